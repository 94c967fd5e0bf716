//! The events of rights: taken away, handed down, and what was done by those who administer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Principal;

/// See [`super::REVOCATION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationBody<'a> {
    /// `principal`, `group`, `token`, `logout`, `resource` or `session`.
    #[serde(borrow)]
    pub target: Cow<'a, str>,
}

/// See [`super::REVOCATION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationPayload<'a> {
    /// Who revoked.
    #[serde(borrow)]
    pub by: Cow<'a, str>,
    /// The group's name.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Cow<'a, str>>,
    /// The logout.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub logout: Option<Logout<'a>>,
    /// The principal's id.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Cow<'a, str>>,
    /// Why.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
    /// The resource's name.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Cow<'a, str>>,
    /// The session's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// The token's id.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Cow<'a, str>>,
}

/// The end of logins at an issuer: tokens that were issued by then, for this login or this principal, stay out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logout<'a> {
    /// When, by the issuer's clock, in seconds since 1970 UTC.
    pub issued_s: u64,
    /// The login, as `issuer:sid`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Cow<'a, str>>,
    /// Whose it was; where no login is named, all of theirs.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Cow<'a, str>>,
}

impl RevocationPayload<'_> {
    /// What was revoked, in words.
    #[must_use]
    pub fn whom(&self) -> String {
        let named = [
            ("group ", &self.group),
            ("", &self.principal),
            ("resource ", &self.resource),
            ("token ", &self.token),
        ];
        let named = named.into_iter().find_map(|(kind, name)| Some(format!("{kind}{}", name.as_ref()?)));
        let logout = self.logout.as_ref().map(|logout| match (&logout.login, &logout.principal) {
            (Some(login), _) => format!("login {login}"),
            (None, principal) => format!("the logins of {}", principal.as_deref().unwrap_or_default()),
        });
        named.or(logout).unwrap_or_else(|| {
            self.session.map_or("a session".to_owned(), |number| format!("session {number}"))
        })
    }
}

/// See [`super::ADMIN_ACTION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminActionBody<'a> {
    /// The action, as policy spells it: `read_sessions`, `revoke`, ….
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    /// `permit` or `refuse`.
    #[serde(borrow)]
    pub decision: Cow<'a, str>,
}

/// See [`super::ADMIN_ACTION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminActionPayload<'a> {
    /// The policies that made the decision: `ci.cedar:3`.
    #[serde(borrow)]
    pub policies: Vec<Cow<'a, str>>,
    /// Who did it.
    #[serde(borrow)]
    pub principal: Principal<'a>,
    /// What stood in the way beside policy.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
    /// What was asked of the server: method and path.
    #[serde(borrow)]
    pub request: Cow<'a, str>,
    /// The address that it came from.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
}

/// See [`super::REVOKED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedBody {
    /// How many there are in all.
    pub count: u64,
}

/// See [`super::REVOKED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedPayload {
    /// The groups' names.
    pub groups: BTreeSet<String>,
    /// What was logged out.
    #[serde(default, skip_serializing_if = "LoggedOut::is_empty")]
    pub logouts: LoggedOut,
    /// The principals' ids.
    pub principals: BTreeSet<String>,
    /// The tokens' ids.
    pub tokens: BTreeSet<String>,
}

impl RevokedPayload {
    /// How many there are in all, as [`RevokedBody::count`] has it.
    #[must_use]
    pub fn count(&self) -> u64 {
        let LoggedOut { logins, nameless, principals } = &self.logouts;
        let names = self.groups.len() + self.principals.len() + self.tokens.len();
        (names + logins.len() + nameless.len() + principals.len()) as u64
    }
}

/// Whose tokens stay out that were issued by then: ids, each with seconds since 1970 UTC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoggedOut {
    /// Logins, as `issuer:sid`.
    pub logins: BTreeMap<String, u64>,
    /// Principals, as far as their tokens name no login.
    pub nameless: BTreeMap<String, u64>,
    /// Principals, with all their logins.
    pub principals: BTreeMap<String, u64>,
}

impl LoggedOut {
    /// Whether nothing was logged out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.logins.is_empty() && self.nameless.is_empty() && self.principals.is_empty()
    }
}

/// See [`super::DELEGATION_CREATED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationCreatedBody<'a> {
    /// Its id.
    #[serde(borrow)]
    pub delegation: Cow<'a, str>,
    /// When it ends at the latest, in seconds since 1970 UTC.
    pub expires_s: u64,
    /// How many more levels may come after it.
    pub further: u8,
    /// The id of the one before it; absent for the first of a chain.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Cow<'a, str>>,
}

/// See [`super::DELEGATION_CREATED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationCreatedPayload<'a> {
    /// The actions: verbs, and groups of them.
    #[serde(borrow)]
    pub actions: Vec<Cow<'a, str>>,
    /// Who acts, where they showed who they are.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Principal<'a>>,
    /// How many commands may be executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<u64>,
    /// What it was called.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    /// Whose rights they are.
    #[serde(borrow)]
    pub principal: Principal<'a>,
    /// The resources.
    #[serde(borrow)]
    pub resources: Vec<Cow<'a, str>>,
    /// The upstream's roles; absent for any.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<Cow<'a, str>>>,
    /// The most rows that one command may show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The address that it was asked for from.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// The tables; absent for anything.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<Vec<Cow<'a, str>>>,
    /// The id of the principal's own token, with which the chain began.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
}

/// See [`super::DELEGATION_ENDED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationEndedBody<'a> {
    /// Its id. All that came after it ended with it.
    #[serde(borrow)]
    pub delegation: Cow<'a, str>,
    /// Why: `ended` by whoever held it, `revoked` by an operator.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
}

/// See [`super::DELEGATION_ENDED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationEndedPayload<'a> {
    /// Who ended it.
    #[serde(borrow)]
    pub by: Cow<'a, str>,
    /// Why, in their own words.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Cow<'a, str>>,
}

//! The events of approvals: asked for, answered, used, or come to nothing.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Parameter, Text};

/// See [`super::APPROVAL_REQUESTED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequestedBody<'a> {
    /// BLAKE3 of all that is approved with it, in hex.
    #[serde(borrow)]
    pub digest: Cow<'a, str>,
    /// For how many seconds it holds once it is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
    /// Its id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Whether it holds once for its caller, in whichever session presents its id, and not in this session alone.
    pub once: bool,
    /// How many persons must approve at least.
    pub quorum: u64,
    /// The command's number within its session; the first one's where several were sent as one.
    pub request: u64,
    /// Until when it stands, in seconds since 1970 UTC.
    pub until_s: u64,
}

/// See [`super::APPROVAL_REQUESTED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequestedPayload<'a> {
    /// Who asks, and every actor on their behalf: each as `issuer:subject`.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Cow<'a, str>>,
    /// The commands, in the order of their execution.
    #[serde(borrow)]
    pub commands: Vec<AskedCommand<'a>>,
    /// Whose approval it takes: all of them.
    #[serde(borrow)]
    pub demands: Vec<AskedDemand<'a>>,
    /// Whether a transaction was open, and locks may be held.
    pub in_transaction: bool,
    /// The objects that the catalog knew: number and qualified name.
    #[serde(borrow)]
    pub objects: Vec<Cow<'a, str>>,
    /// The policies that ask for it.
    #[serde(borrow)]
    pub policies: Vec<Cow<'a, str>>,
    /// Why the caller wants it, where it said so.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
    /// The resource and the database: `orders-db/orders`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Cow<'a, str>>,
    /// The role in use.
    #[serde(borrow)]
    pub role: Cow<'a, str>,
    /// The search path.
    #[serde(borrow)]
    pub search_path: Cow<'a, str>,
}

/// So many persons of any of these groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedDemand<'a> {
    /// The groups whose members count.
    #[serde(borrow)]
    pub groups: Vec<Cow<'a, str>>,
    /// How many persons.
    pub quorum: u64,
}

impl std::fmt::Display for AskedDemand<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.quorum, self.groups.join(" or "))
    }
}

/// A command for which approval is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedCommand<'a> {
    /// What it does to what.
    #[serde(borrow)]
    pub actions: Vec<Cow<'a, str>>,
    /// `reads` or `may_change`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Cow<'a, str>>,
    /// Whether it has a condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_where: Option<bool>,
    /// The kind of statement: `select`, `create_table`, ….
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Cow<'a, str>>,
    /// Its parameters.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter<'a>>,
    /// What is sent in the statement's place, where masks make it another.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Text<'a>>,
    /// The statement.
    #[serde(borrow)]
    pub statement: Text<'a>,
}

/// See [`super::APPROVAL_ANSWERED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalAnsweredBody<'a> {
    /// `approve` or `deny`.
    #[serde(borrow)]
    pub answer: Cow<'a, str>,
    /// The request's id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Why the answer does not count, where it does not: `requester`, `not_a_person`, `not_a_member`, `answered`, `too_late`, `revoked`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Cow<'a, str>>,
    /// For how many seconds the approval covers the like of it in the same session; none for this one command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_s: Option<u64>,
}

/// See [`super::APPROVAL_ANSWERED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalAnsweredPayload<'a> {
    /// Who answered: `issuer:subject`.
    #[serde(borrow)]
    pub approver: Cow<'a, str>,
    /// The groups that they were in.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Cow<'a, str>>,
    /// The name that people know them by.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Why, where they said so.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
    /// The token that they showed, by its id.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Cow<'a, str>>,
}

/// See [`super::APPROVAL_USED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalUsedBody<'a> {
    /// The digest of what runs, in hex.
    #[serde(borrow)]
    pub digest: Cow<'a, str>,
    /// The id of the request that was approved.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The number of the (first) command that runs.
    pub request: u64,
}

/// See [`super::APPROVAL_USED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalUsedPayload<'a> {
    /// Who approved: each as `issuer:subject`.
    #[serde(borrow)]
    pub approvers: Vec<Cow<'a, str>>,
}

/// See [`super::APPROVAL_LAPSED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalLapsedBody<'a> {
    /// The request's id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Why: `denied`, `expired`, `cancelled`, `client_left`, `changed`, `passed_over`, `session_ended`.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
}

/// See [`super::GLASS_BROKEN`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlassBrokenBody<'a> {
    /// The digest of what runs, in hex.
    #[serde(borrow)]
    pub digest: Cow<'a, str>,
    /// The number of the (first) command that runs.
    pub request: u64,
}

/// See [`super::GLASS_BROKEN`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlassBrokenPayload<'a> {
    /// Whose approval was needed: `2 of dba`; empty where the permit is for emergencies alone.
    #[serde(borrow)]
    pub needed: Cow<'a, str>,
    /// Why, in the caller's words.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
}

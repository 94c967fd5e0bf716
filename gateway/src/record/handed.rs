//! Delegations in the ledger: how they are written, and how those that a former run left are found again.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatebook_ledger::event;

use super::principal;
use crate::delegation::{Delegation, Kept};
use crate::identity::{Login, Principal, PrincipalKind};
use crate::policy::ScopeText;

/// A delegation as its event.
pub(super) fn written(
    made: &Delegation,
    source: SocketAddr,
) -> (event::DelegationCreatedBody<'_>, event::DelegationCreatedPayload<'_>) {
    let list = |names: &[String]| names.iter().map(|name| Cow::Owned(name.clone())).collect::<Vec<_>>();
    let body = event::DelegationCreatedBody {
        delegation: (&*made.id).into(),
        expires_s: made.expires.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        further: made.further,
        parent: made.parent.as_ref().map(|parent| (&*parent.id).into()),
    };
    let payload = event::DelegationCreatedPayload {
        actions: list(&made.text.actions),
        actor: made.actor.as_deref().map(logged_in),
        commands: made.commands.as_ref().map(|commands| commands.max),
        name: made.name.as_deref().map(Into::into),
        principal: logged_in(&made.principal),
        resources: list(&made.text.resources),
        roles: made.text.roles.as_deref().map(list),
        rows: made.text.rows,
        source: source.to_string().into(),
        tables: made.text.tables.as_deref().map(list),
        token: (&**made.principal.token_id()).into(),
    };
    (body, payload)
}

/// A principal with the login that its token came of: when that is over, so is what was handed down by it.
fn logged_in(who: &Principal) -> event::Principal<'_> {
    let Login { id, issued_s } = who.login();
    let sid = id.as_deref().and_then(|id| id.split_once(':')).map(|(_, sid)| sid.into());
    event::Principal { login: Some(event::Login { issued_s: *issued_s, sid }), ..principal(who) }
}

/// What is gathered of them on the way back through the ledger, segment by segment.
#[derive(Default)]
pub(super) struct Delegations {
    ended: HashSet<String>,
    made: Vec<(u64, Kept)>,
}

impl Delegations {
    /// One was made. Without its payload it is over, and so is all that comes after it.
    pub(super) fn made(
        &mut self,
        seq: u64,
        body: &event::DelegationCreatedBody<'_>,
        payload: Option<Box<event::DelegationCreatedPayload<'_>>>,
        made: SystemTime,
    ) {
        self.made.extend(payload.map(|payload| (seq, read(body, *payload, made))));
    }

    /// One was ended.
    pub(super) fn ended(&mut self, body: &event::DelegationEndedBody<'_>) {
        self.ended.insert(body.delegation.to_string());
    }

    /// How far it is known now.
    pub(super) fn mark(&self) -> usize {
        self.made.len()
    }

    /// Forgets what was made since a mark.
    pub(super) fn forget(&mut self, mark: usize) {
        self.made.truncate(mark);
    }

    /// Those whose time is not over and that nobody ended, in the order in which they were made.
    pub(super) fn left(mut self, now: SystemTime) -> Vec<Kept> {
        self.made.retain(|(_, kept)| kept.expires > now && !self.ended.contains(&*kept.id));
        self.made.sort_by_key(|(seq, _)| *seq);
        self.made.into_iter().map(|(_, kept)| kept).collect()
    }
}

/// A delegation as it was written, at this time.
fn read(
    body: &event::DelegationCreatedBody<'_>,
    made: event::DelegationCreatedPayload<'_>,
    created: SystemTime,
) -> Kept {
    let texts = |names: Vec<Cow<'_, str>>| names.into_iter().map(Cow::into_owned).collect::<Vec<String>>();
    Kept {
        id: (&*body.delegation).into(),
        parent: body.parent.as_deref().map(Arc::from),
        principal: recorded(&made.principal, &made.token, body.expires_s),
        actor: made.actor.as_ref().map(|actor| recorded(actor, "", body.expires_s)),
        name: made.name.map(Arc::from),
        text: ScopeText {
            resources: texts(made.resources),
            actions: texts(made.actions),
            roles: made.roles.map(texts),
            tables: made.tables.map(texts),
            rows: made.rows,
        },
        commands: made.commands,
        further: body.further,
        created,
        expires: UNIX_EPOCH + Duration::from_secs(body.expires_s),
    }
}

fn recorded(who: &event::Principal<'_>, token: &str, until: u64) -> Principal {
    let kind = if who.kind == "user" { PrincipalKind::User } else { PrincipalKind::Service };
    let groups = who.groups.iter().map(|group| Arc::from(&**group));
    let login = who.login.as_ref().map_or_else(Login::default, |login| Login {
        id: login.sid.as_ref().map(|sid| format!("{}:{sid}", who.issuer).into()),
        issued_s: login.issued_s,
    });
    Principal::recorded(kind, &who.issuer, &who.subject, &who.name, groups, token, until).with_login(login)
}

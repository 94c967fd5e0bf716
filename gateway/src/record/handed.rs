//! Delegations in the ledger: how they are written, and how those that a former run left are found again.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatebook_ledger::reader::Item;
use gatebook_ledger::{Storage, event, index};

use super::principal;
use crate::delegation::{Delegation, Kept};
use crate::identity::{Principal, PrincipalKind};
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
        actor: made.actor.as_deref().map(principal),
        commands: made.commands.as_ref().map(|commands| commands.max),
        name: made.name.as_deref().map(Into::into),
        principal: principal(&made.principal),
        resources: list(&made.text.resources),
        roles: made.text.roles.as_deref().map(list),
        rows: made.text.rows,
        source: source.to_string().into(),
        tables: made.text.tables.as_deref().map(list),
        token: (&**made.principal.token_id()).into(),
    };
    (body, payload)
}

/// The delegations whose time is not over and that nobody ended, in the order in which they were made. Found through the index
/// where there is one.
///
/// # Errors
/// Of the storage; also where an end cannot be read: nothing comes to life again because a byte was flipped.
pub(super) fn kept(folder: &Path, ledger: &dyn Storage, now: SystemTime) -> io::Result<Vec<Kept>> {
    let index = index::open_existing(&folder.join(index::NAME), ledger, event::words).unwrap_or_default();
    // A row that was lost would bring back what was ended, so the index is believed only where its rows are all there.
    let index = index.filter(|index| index.is_whole().unwrap_or(false));
    let each = |kind, take: &mut dyn FnMut(event::Decoded<'_>, u64) -> bool| {
        let mut unread = None;
        let query = index::Query { kind: Some(kind), ..index::Query::default() };
        index::find(ledger, index.as_ref(), event::words, &query, |item| {
            match item {
                Item::Entry { entry, payload, .. } => {
                    let decoded = event::decode(entry.header.kind, entry.body, payload);
                    if !decoded.is_ok_and(|decoded| take(decoded, entry.header.time_ns)) {
                        unread = Some(format!("entry {} cannot be read", entry.header.seq));
                    }
                }
                Item::Broken { .. } => unread = Some("a part of the ledger is damaged".to_owned()),
            }
            if unread.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        unread.map_or(Ok(()), |what| {
            Err(io::Error::other(format!(
                "{what}, so which delegations live is not known; look with gatebook-ledger verify, and bring the segment back from a backup"
            )))
        })
    };
    let mut ended = HashSet::new();
    each(event::DELEGATION_ENDED, &mut |decoded, _| match decoded {
        event::Decoded::DelegationEnded(body, _) => {
            ended.insert(body.delegation.into_owned());
            true
        }
        _ => false,
    })?;
    let mut kept = Vec::new();
    each(event::DELEGATION_CREATED, &mut |decoded, time_ns| {
        let event::Decoded::DelegationCreated(body, payload) = decoded else { return false };
        let expires = UNIX_EPOCH + Duration::from_secs(body.expires_s);
        // One whose payload was erased is over, and so is all that comes after it.
        let Some(made) = payload.filter(|_| expires > now && !ended.contains(&*body.delegation)) else {
            return true;
        };
        let texts =
            |names: Vec<Cow<'_, str>>| names.into_iter().map(Cow::into_owned).collect::<Vec<String>>();
        kept.push(Kept {
            id: body.delegation.into(),
            parent: body.parent.map(Arc::from),
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
            created: UNIX_EPOCH + Duration::from_nanos(time_ns),
            expires,
        });
        true
    })?;
    Ok(kept)
}

fn recorded(who: &event::Principal<'_>, token: &str, until: u64) -> Principal {
    let kind = if who.kind == "user" { PrincipalKind::User } else { PrincipalKind::Service };
    let groups = who.groups.iter().map(|group| Arc::from(&**group));
    Principal::recorded(kind, &who.issuer, &who.subject, &who.name, groups, token, until)
}

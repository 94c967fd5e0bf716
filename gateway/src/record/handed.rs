//! Delegations in the ledger: how they are written, and how those that a former run left are found again.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatebook_ledger::event::{self, Decoded};
use gatebook_ledger::{Storage, Writer, reader};

use super::principal;
use crate::delegation::{Delegation, Kept};
use crate::identity::{Login, Principal, PrincipalKind};
use crate::policy::ScopeText;

/// Longer lasts none: `delegation.ttl_max` goes no further.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

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

/// The delegations whose time is not over and that nobody ended, in the order in which they were made.
///
/// They are read back from the end of a writer's ledger along its chain, as who was revoked is: whoever can write to the files, and does
/// not hold the keys, brings nothing back to life. No delegation lasts longer than [`LONGEST`], so what is older need not be read; each segment's
/// list of who was revoked tells how old it is. What cannot be read, because it was moved away or is not what the ledger goes on from, is over with
/// all before it: an end is never before what it ends.
///
/// # Errors
/// Of the storage; also where an entry about one cannot be read.
pub(super) fn kept(storage: &dyn Storage, writer: &Writer, now: SystemTime) -> io::Result<Vec<Kept>> {
    let oldest = now.checked_sub(LONGEST).unwrap_or(UNIX_EPOCH);
    let (mut ended, mut kept) = (HashSet::new(), Vec::new());
    let mut behind = writer.chain();
    for number in (0..=writer.segment()).rev() {
        let (mut old, mut unread, known) = (false, None, kept.len());
        let kinds = [event::DELEGATION_CREATED, event::DELEGATION_ENDED, event::REVOKED];
        let visited = reader::visit_behind(storage, number, behind, &kinds, |entry, payload| {
            let (kind, made) = (entry.header.kind, UNIX_EPOCH + Duration::from_nanos(entry.header.time_ns));
            match event::decode(kind, entry.body, payload) {
                _ if kind == event::REVOKED => old |= made < oldest,
                Ok(Decoded::DelegationEnded(body, _)) => drop(ended.insert(body.delegation.into_owned())),
                Ok(Decoded::DelegationCreated(body, payload)) => {
                    // One whose payload was erased is over, and so is all that comes after it.
                    if let Some(payload) = payload {
                        kept.push((entry.header.seq, read(&body, *payload, made)));
                    }
                }
                _ => unread = Some(entry.header.seq),
            }
        });
        match visited {
            Ok(begins) => behind = begins,
            // What was handed down there or before is over, which is the safe side.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                tracing::warn!(%error, segment = number, "cannot be read; what was handed down in it or before is over");
                kept.truncate(known);
                break;
            }
            Err(error) => return Err(error),
        }
        if let Some(seq) = unread {
            return Err(io::Error::other(format!(
                "entry {seq}, a delegation, cannot be read, so which of them live is not known; look with gatebook-ledger verify, and bring the segment back from a backup"
            )));
        }
        if old {
            break;
        }
    }
    kept.retain(|(_, kept)| kept.expires > now && !ended.contains(&*kept.id));
    kept.sort_by_key(|(seq, _)| *seq);
    Ok(kept.into_iter().map(|(_, kept)| kept).collect())
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

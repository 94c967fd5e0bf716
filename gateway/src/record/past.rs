//! Sessions, live and past, found again in the ledger: through its index where that can be had, and each hit read at its segment.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use gatebook_ledger::event::{self, Decoded, SessionClosedBody, SessionOpenedPayload};
use gatebook_ledger::index::{self, Index, Query, Sled};
use gatebook_ledger::reader::Item;
use gatebook_ledger::{Directory, Kind};
use serde::Serialize;

/// How long to wait for an index that is just taken further.
const BUSY_WAIT: Duration = Duration::from_millis(100);
const BUSY_WAITS_MAX: u32 = 20;
/// How far a clock may have been set back within a session.
const SET_BACK_NS: u64 = 3600 * 1_000_000_000;

/// Which sessions are sought; one must fit all that is given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sought {
    /// The one of this number.
    pub(crate) session: Option<u64>,
    /// Those that this principal opened, or acts in.
    pub(crate) principal: Option<String>,
    /// Those that reached this resource.
    pub(crate) resource: Option<String>,
    /// Opened not before this, in seconds since 1970.
    pub(crate) since_s: Option<u64>,
    /// Opened not after this.
    pub(crate) until_s: Option<u64>,
    /// The newest so many of them.
    pub(crate) limit: usize,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Past {
    /// The oldest first.
    pub(crate) sessions: Vec<PastSession>,
    /// Whether there are older ones, beyond the limit.
    pub(crate) more: bool,
    /// Whether something that was read is damaged: there may be more.
    pub(crate) damaged: bool,
}

/// One session as the ledger has it.
#[derive(Debug, Serialize)]
pub(crate) struct PastSession {
    session: u64,
    opened_s: u64,
    /// Who, where and as what; none where that was erased.
    #[serde(flatten)]
    who: Option<Who>,
    /// How it ended; none where it did not yet.
    closed: Option<Closed>,
}

#[derive(Debug, Serialize)]
struct Who {
    principal: String,
    name: String,
    actors: Vec<String>,
    resource: String,
    role: String,
    source: String,
    application: String,
    token: String,
}

#[derive(Debug, Serialize)]
struct Closed {
    closed_s: u64,
    reason: String,
    commands: Option<u64>,
    refused: Option<u64>,
    shown_bytes: Option<u64>,
}

/// Finds sessions. Blocks, at most until `until`.
///
/// # Errors
/// Of the storage; [`io::ErrorKind::TimedOut`].
pub(super) fn find(folder: &Path, sought: &Sought, until: Instant) -> io::Result<Past> {
    let ledger = Directory::open(folder)?;
    let index = index_of(folder, &ledger);
    let (mut late, mut damaged) = (false, false);
    let mut read = |query: &Query, take: &mut dyn FnMut(u64, u64, Decoded<'_>) -> ControlFlow<()>| {
        index::find(&ledger, index.as_ref(), event::words, query, |item| {
            late |= Instant::now() > until;
            match item {
                _ if late => return ControlFlow::Break(()),
                Item::Entry { entry, payload, .. } => {
                    let header = &entry.header;
                    match event::decode(header.kind, entry.body, payload) {
                        Ok(decoded) => return take(header.session, header.time_ns, decoded),
                        Err(_) => damaged = true,
                    }
                }
                Item::Broken { unfinished, .. } => damaged |= !unfinished,
            }
            ControlFlow::Continue(())
        })
    };
    let ns = |seconds: u64| seconds.saturating_mul(1_000_000_000);
    let openings = Query {
        session: sought.session,
        principal: sought.principal.clone(),
        resource: sought.resource.clone(),
        since_ns: sought.since_s.map(ns),
        until_ns: sought.until_s.map(|until| ns(until).saturating_add(999_999_999)),
        kind: Some(Kind::SESSION_OPENED),
    };
    let (mut found, mut more) = (VecDeque::new(), false);
    read(&openings, &mut |session, time_ns, event| {
        if let Decoded::SessionOpened(_, payload) = event {
            found.push_back((session, time_ns, payload.map(who)));
            if found.len() > sought.limit {
                found.pop_front();
                more = true;
            }
        }
        ControlFlow::Continue(())
    })?;
    let mut closed: HashMap<u64, Option<Closed>> =
        found.iter().map(|(session, ..)| (*session, None)).collect();
    if let Some((_, first_ns, _)) = found.front() {
        let closes = Query {
            session: sought.session,
            since_ns: Some(first_ns.saturating_sub(SET_BACK_NS)),
            kind: Some(Kind::SESSION_CLOSED),
            ..Query::default()
        };
        let mut open = closed.len();
        read(&closes, &mut |session, time_ns, event| {
            if let (Decoded::SessionClosed(body), Some(place)) = (event, closed.get_mut(&session)) {
                *place = Some(ended(&body, time_ns));
                open -= 1;
            }
            if open == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    if late {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "there is too much to read; ask for a shorter time",
        ));
    }
    let sessions = found.into_iter().map(|(session, time_ns, who)| PastSession {
        session,
        opened_s: time_ns / 1_000_000_000,
        who,
        closed: closed.remove(&session).flatten(),
    });
    Ok(Past { sessions: sessions.collect(), more, damaged })
}

/// The index, where there is one that can be had: without it everything is read.
fn index_of(folder: &Path, ledger: &Directory) -> Option<Index<Sled>> {
    let folder = folder.join(index::NAME);
    for _ in 0..BUSY_WAITS_MAX {
        match index::open_existing(&folder, ledger, event::words) {
            Ok(index) => return index,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(BUSY_WAIT),
            Err(error) => {
                tracing::warn!(%error, "ledger: the index cannot be used, and everything is read");
                return None;
            }
        }
    }
    None
}

fn who(opened: SessionOpenedPayload<'_>) -> Who {
    let id = |who: &event::Principal<'_>| format!("{}:{}", who.issuer, who.subject);
    Who {
        principal: id(&opened.principal),
        name: opened.principal.name.to_string(),
        actors: opened.actors.iter().map(id).collect(),
        resource: format!("{}/{}", opened.resource, opened.database),
        role: opened.role.into_owned(),
        source: opened.source.into_owned(),
        application: opened.application.into_owned(),
        token: opened.token.into_owned(),
    }
}

fn ended(body: &SessionClosedBody<'_>, time_ns: u64) -> Closed {
    Closed {
        closed_s: time_ns / 1_000_000_000,
        reason: body.reason.to_string(),
        commands: body.commands,
        refused: body.refused,
        shown_bytes: body.shown_bytes,
    }
}

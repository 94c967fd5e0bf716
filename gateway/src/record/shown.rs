//! What principals were shown in a day, found again after a start: the ledger is the only store of that.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use gatebook_ledger::reader::Item;
use gatebook_ledger::{Storage, event, index};

use crate::session::Day;

/// What each principal was shown since `day` began, by the outcomes of its commands.
///
/// # Errors
/// Of the storage; also where what is needed cannot be read whole.
pub(super) fn since(folder: &Path, ledger: &dyn Storage, day: Day) -> io::Result<HashMap<Arc<str>, Day>> {
    let index = index::open_existing(&folder.join(index::NAME), ledger, event::words).unwrap_or_default();
    let index = index.filter(|index| index.is_whole().unwrap_or(false));
    let mut unread = None;
    let mut find = |query: &index::Query, take: &mut dyn FnMut(u64, event::Decoded<'_>)| {
        index::find(ledger, index.as_ref(), event::words, query, |item| {
            match item {
                Item::Entry { entry, payload, .. } => {
                    let header = &entry.header;
                    match event::decode(header.kind, entry.body, payload) {
                        Ok(decoded) => take(header.session, decoded),
                        Err(_) => unread = Some(format!("entry {} cannot be read", header.seq)),
                    }
                }
                Item::Broken { .. } => unread = Some("a part of it is damaged".to_owned()),
            }
            if unread.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    };
    let mut sessions: HashMap<u64, Day> = HashMap::new();
    let outcomes = index::Query {
        kind: Some(event::OUTCOME),
        since_ns: Some(day.begins_ns()),
        ..index::Query::default()
    };
    find(&outcomes, &mut |session, event| {
        if let event::Decoded::Outcome(outcome, _) = event {
            let shown = sessions.entry(session).or_insert(day);
            shown.rows = shown.rows.saturating_add(outcome.rows);
            shown.bytes = shown.bytes.saturating_add(outcome.bytes);
        }
    })?;
    let mut principals: HashMap<Arc<str>, Day> = HashMap::new();
    let openings =
        index::Query { kind: Some(gatebook_ledger::Kind::SESSION_OPENED), ..index::Query::default() };
    if !sessions.is_empty() {
        find(&openings, &mut |session, event| {
            if let event::Decoded::SessionOpened(_, Some(opened)) = event
                && let Some(of) = sessions.remove(&session)
            {
                let id = format!("{}:{}", opened.principal.issuer, opened.principal.subject);
                let shown = principals.entry(id.into()).or_insert(day);
                shown.rows = shown.rows.saturating_add(of.rows);
                shown.bytes = shown.bytes.saturating_add(of.bytes);
            }
        })?;
    }
    match unread {
        Some(what) => Err(io::Error::other(format!("{what}, so what was shown today is not known"))),
        None => Ok(principals),
    }
}

//! Finds entries: through the index where there is one that fits, by reading everything where there is none.
//!
//! What the index covers is read at the stretches that it names, and what came since is read to the end, so an answer
//! never lags. Before the first entry is shown, every stretch is held against what the index says of it; one that does
//! not fit makes the index worthless, and everything is read instead.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;

use crate::entry::{Entry, Kind, Malformed};
use crate::hash::{Committer, Digest, leaf, term};
use crate::reader::{self, Item, Place};
use crate::segment::{BLOCK, Frame, SegmentReader, Step, name};
use crate::storage::{Mode, Storage};

use super::rows::{self, Stretch};
use super::store::Store;
use super::{Field, Index, Words, invalid};

const ODD_ROW: &str = "the index has a row that is none";

/// What is sought; an entry must fit all that is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Of this session.
    pub session: Option<u64>,
    /// Of sessions that this principal opened or acted in, or naming it.
    pub principal: Option<String>,
    /// Of sessions that reached this resource, or naming it.
    pub resource: Option<String>,
    /// Not before this, in nanoseconds since 1970 UTC.
    pub since_ns: Option<u64>,
    /// Not after this.
    pub until_ns: Option<u64>,
    /// Of this kind.
    pub kind: Option<Kind>,
}

impl Query {
    fn terms(&self) -> impl Iterator<Item = (Field, &str)> {
        let principal = self.principal.as_deref().map(|text| (Field::Principal, text));
        principal.into_iter().chain(self.resource.as_deref().map(|text| (Field::Resource, text)))
    }

    fn has_terms(&self) -> bool {
        self.principal.is_some() || self.resource.is_some()
    }

    fn in_time(&self, time_ns: u64) -> bool {
        self.since_ns.is_none_or(|since| time_ns >= since)
            && self.until_ns.is_none_or(|until| time_ns <= until)
    }
}

/// Visits the entries that fit, in order, and what is broken where everything is read. Gives why the index that was
/// given was not believed; none where it was, or none was given.
///
/// # Errors
/// Of the storage.
pub fn find<S: Store>(
    ledger: &dyn Storage,
    index: Option<&Index<S>>,
    words: Words,
    query: &Query,
    mut visitor: impl FnMut(Item<'_>) -> ControlFlow<()>,
) -> io::Result<Option<String>> {
    let mut distrusted = None;
    if let Some(index) = index {
        match Plan::new(index, query, ledger) {
            Ok(mut plan) => {
                if plan.show(ledger, &mut visitor)?.is_continue() {
                    scan(ledger, Some(index.applied.place), &mut plan.filter, &mut visitor)?;
                }
                return Ok(None);
            }
            Err(error) => distrusted = Some(error.to_string()),
        }
    }
    scan(ledger, None, &mut Filter::new(query, words), &mut visitor)?;
    Ok(distrusted)
}

fn scan(
    ledger: &dyn Storage,
    from: Option<Place>,
    filter: &mut Filter<'_>,
    visitor: &mut impl FnMut(Item<'_>) -> ControlFlow<()>,
) -> io::Result<()> {
    reader::visit(ledger, from, |item| match &item {
        Item::Entry { entry, payload, .. } if !filter.fits(entry, *payload) => ControlFlow::Continue(()),
        _ => visitor(item),
    })
}

/// Tells whether an entry is sought. It must be shown the openings of sessions before their other entries.
struct Filter<'a> {
    query: &'a Query,
    words: Words,
    /// The sessions whose opening has all the words that are sought.
    sessions: BTreeSet<u64>,
}

impl<'a> Filter<'a> {
    fn new(query: &'a Query, words: Words) -> Filter<'a> {
        Filter { query, words, sessions: BTreeSet::new() }
    }

    fn fits(&mut self, entry: &Entry<'_>, payload: Option<&[u8]>) -> bool {
        let (header, query) = (&entry.header, self.query);
        self.has_words(entry, payload)
            && query.session.is_none_or(|session| session == header.session)
            && query.kind.is_none_or(|kind| kind == header.kind)
            && query.in_time(header.time_ns)
    }

    fn has_words(&mut self, entry: &Entry<'_>, payload: Option<&[u8]>) -> bool {
        let header = &entry.header;
        if !self.query.has_terms() {
            return true;
        }
        if header.session != 0 && header.kind != Kind::SESSION_OPENED {
            return self.sessions.contains(&header.session);
        }
        let mut sought: Vec<(Field, &str)> = self.query.terms().collect();
        (self.words)(entry, payload, &mut |field, text| sought.retain(|term| *term != (field, text)));
        if sought.is_empty() && header.session != 0 {
            self.sessions.insert(header.session);
        }
        sought.is_empty()
    }
}

/// The stretches to read, each held against the segment.
struct Plan<'a> {
    stretches: BTreeSet<Stretch>,
    filter: Filter<'a>,
}

impl<'a> Plan<'a> {
    fn new<S: Store>(index: &Index<S>, query: &'a Query, ledger: &dyn Storage) -> io::Result<Plan<'a>> {
        let mut filter = Filter::new(query, index.words);
        let mut stretches = None;
        if query.has_terms() {
            stretches = Some(index.stretches_with_terms(query, ledger, &mut filter)?);
        }
        if let Some(session) = query.session {
            narrow(&mut stretches, index.stretches(b"s", &session.to_be_bytes())?);
        }
        if let Some(kind) = query.kind {
            narrow(&mut stretches, index.stretches(b"k", &kind.0.to_be_bytes())?);
        }
        if stretches.is_none() || query.since_ns.is_some() || query.until_ns.is_some() {
            narrow(&mut stretches, index.stretches_in_time(query)?);
        }
        let plan = Plan { stretches: stretches.unwrap_or_default(), filter };
        if chained(query)
            && plan.stretches.is_empty()
            && query.session.is_some_and(|session| (1..=index.applied.sessions).contains(&session))
        {
            return Err(invalid("the index has lost this session"));
        }
        let closed = query.session.map(|session| index.closed(session)).transpose()?.flatten();
        plan.check(ledger, closed)?;
        Ok(plan)
    }

    /// Holds what the index says against the segments, and against how many entries it says a closed session has.
    fn check(&self, ledger: &dyn Storage, closed: Option<u64>) -> io::Result<()> {
        let query = self.filter.query;
        let mut chain = chained(query).then(Follow::default);
        let mut segments = Segments::new(ledger);
        for stretch in &self.stretches {
            let (mut has_session, mut has_kind) = (query.session.is_none(), query.kind.is_none());
            let _ = segments.read(stretch, |_, frame| {
                for entry in frame.records().filter_map(|record| Entry::decode(record.entry).ok()) {
                    has_kind |= query.kind == Some(entry.header.kind);
                    if query.session == Some(entry.header.session) {
                        has_session = true;
                        if let Some(chain) = &mut chain {
                            chain.take(&entry)?;
                        }
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if !has_session || !has_kind {
                return Err(invalid("the index names a stretch that does not hold what is sought"));
            }
        }
        if chain.is_some_and(|chain| closed.is_some_and(|entries| entries != chain.entries)) {
            return Err(invalid("the index has lost entries of this session"));
        }
        Ok(())
    }

    fn show(
        &mut self,
        ledger: &dyn Storage,
        visitor: &mut impl FnMut(Item<'_>) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let mut committer = Committer::new();
        let mut segments = Segments::new(ledger);
        for stretch in &self.stretches {
            let filter = &mut self.filter;
            let flow = segments.read(stretch, |place, frame| {
                Ok(reader::visit_frame(place, frame, &mut committer, &mut |item| match &item {
                    Item::Entry { entry, payload, .. } if !filter.fits(entry, *payload) => {
                        ControlFlow::Continue(())
                    }
                    _ => visitor(item),
                }))
            })?;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Whether all entries of one session are sought.
fn chained(query: &Query) -> bool {
    *query == Query { session: query.session, ..Query::default() } && query.session.is_some()
}

/// One session's entries must follow each other: a stretch that the index forgot shows here.
#[derive(Default)]
struct Follow {
    entries: u64,
    last: Digest,
}

impl Follow {
    fn take(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        if entry.header.session_seq != self.entries || entry.header.prev_in_session != self.last {
            return Err(invalid("the index has lost entries of this session"));
        }
        self.entries += 1;
        self.last = leaf(entry.bytes);
        Ok(())
    }
}

fn narrow(stretches: &mut Option<BTreeSet<Stretch>>, others: BTreeSet<Stretch>) {
    *stretches = Some(match stretches.take() {
        None => others,
        Some(known) => known.intersection(&others).copied().collect(),
    });
}

impl<S: Store> Index<S> {
    fn stretches(&self, table: &[u8], what: &[u8]) -> io::Result<BTreeSet<Stretch>> {
        let mut stretches = BTreeSet::new();
        let (from, to) = rows::span(table, what);
        let skip = from.len();
        let mut odd = false;
        self.store.scan(&from, &to, &mut |key, value| {
            let stretch = rows::stretch_of(key, skip, value);
            odd |= stretch.is_none();
            stretches.extend(stretch);
            !odd
        })?;
        if odd { Err(invalid(ODD_ROW)) } else { Ok(stretches) }
    }

    /// How many entries a session has that the index knows as closed.
    fn closed(&self, session: u64) -> io::Result<Option<u64>> {
        let value = self.store.fetch(&rows::closed_row(session, 0).0)?;
        value.map(|value| rows::number(&value, 0).ok_or_else(|| invalid(ODD_ROW))).transpose()
    }

    /// The stretches that may hold entries of a time. They stand in the order of the ledger, since the latest time so
    /// far never falls; and no entry lies further behind it than the clock was ever set back.
    fn stretches_in_time(&self, query: &Query) -> io::Result<BTreeSet<Stretch>> {
        let mut stretches = BTreeSet::new();
        let (_, to) = rows::span(b"t", b"");
        let (from, _) = rows::span(b"t", &query.since_ns.unwrap_or(0).to_be_bytes());
        let mut odd = false;
        let mut after = false;
        self.store.scan(&from, &to, &mut |key, value| {
            let row = (rows::number(key, 1), rows::stretch_of(key, 9, value), rows::number(value, 4));
            let (Some(latest_ns), Some(stretch), Some(earliest_ns)) = row else {
                odd = true;
                return false;
            };
            if after {
                return false;
            }
            // This one may begin in time; the next one cannot.
            after =
                query.until_ns.is_some_and(|until| latest_ns > until.saturating_add(self.applied.skew_ns));
            if query.until_ns.is_none_or(|until| earliest_ns <= until) {
                stretches.insert(stretch);
            }
            true
        })?;
        if odd { Err(invalid(ODD_ROW)) } else { Ok(stretches) }
    }

    /// The stretches of sessions whose opening has the words, and of single entries that have them. The filter learns
    /// the sessions.
    fn stretches_with_terms(
        &self,
        query: &Query,
        ledger: &dyn Storage,
        filter: &mut Filter<'_>,
    ) -> io::Result<BTreeSet<Stretch>> {
        let mut found: Option<BTreeSet<(Stretch, u64)>> = None;
        for (field, text) in query.terms() {
            let (from, to) = rows::span(b"x", &term(field.tag(), text).0);
            let skip = from.len();
            let mut rows = Vec::new();
            self.store.scan(&from, &to, &mut |key, value| {
                let row = rows::stretch_of(key, skip, value).zip(rows::number(key, skip + 16));
                let fine = row.is_some();
                rows.push(row);
                fine
            })?;
            let rows: Option<BTreeSet<(Stretch, u64)>> = rows.into_iter().collect();
            let rows = rows.ok_or_else(|| invalid(ODD_ROW))?;
            found = Some(match found {
                None => rows,
                Some(known) => known.intersection(&rows).copied().collect(),
            });
        }
        let mut stretches = BTreeSet::new();
        let mut segments = Segments::new(ledger);
        let mut committer = Committer::new();
        for (stretch, session) in found.unwrap_or_default() {
            let mut holds = false;
            let _ = segments.read(&stretch, |_, frame| {
                for record in frame.records() {
                    let entry = Entry::decode(record.entry).map_err(|why| invalid(why.0))?;
                    let header = &entry.header;
                    let opens = header.kind == Kind::SESSION_OPENED;
                    if header.session != session || session != 0 && !opens {
                        continue;
                    }
                    let payload = record.payload_matches(&entry, &mut committer).then_some(record.payload);
                    // Where the payload is gone nothing can be held against the index, and nothing is shown.
                    holds |= filter.has_words(&entry, payload) || payload.is_none();
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if !holds {
                return Err(invalid("the index names a word that is not there"));
            }
            if session == 0 {
                stretches.insert(stretch);
            } else if filter.sessions.contains(&session)
                && query.session.is_none_or(|sought| sought == session)
            {
                stretches.append(&mut self.stretches(b"s", &session.to_be_bytes())?);
            }
        }
        Ok(stretches)
    }
}

/// Reads stretches, one segment open at a time.
struct Segments<'a> {
    ledger: &'a dyn Storage,
    open: Option<(u64, SegmentReader)>,
}

impl<'a> Segments<'a> {
    fn new(ledger: &'a dyn Storage) -> Segments<'a> {
        Segments { ledger, open: None }
    }

    fn read(
        &mut self,
        stretch: &Stretch,
        mut each: impl FnMut(Place, &Frame<'_>) -> io::Result<ControlFlow<()>>,
    ) -> io::Result<ControlFlow<()>> {
        if self.open.as_ref().is_none_or(|(number, _)| *number != stretch.segment) {
            let file = self.ledger.open(&name(stretch.segment), Mode::Read)?;
            self.open =
                Some((stretch.segment, SegmentReader::new(file)?.with_read_ahead(super::STRETCH_BYTES)));
        }
        let Some((_, reader)) = &mut self.open else { return Ok(ControlFlow::Continue(())) };
        let Place { segment, offset } = stretch.place();
        let end = offset.saturating_add(u64::from(stretch.blocks) * BLOCK as u64);
        reader.seek(offset);
        while reader.offset() < end {
            match reader.step()? {
                Step::Frame { offset, frame } => {
                    if each(Place { segment, offset }, &frame)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Step::Damaged { why: Malformed(why), .. } => return Err(invalid(why)),
                Step::Footer { .. } | Step::End { .. } => {
                    return Err(invalid("the index names a stretch that is not there"));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

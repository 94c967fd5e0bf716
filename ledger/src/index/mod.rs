//! A derived index: which stretches of the segments hold a session, a kind, an hour, a principal. sled keeps it.
//!
//! It holds only what can be made from the segments, and every hit is checked at the segment before anybody sees it.
//! It is fed from the committed ledger, off the writer's path, and never waited for. It is told *what* a word of an
//! entry is by a function that comes from outside: the log layer knows no principals.
//!
//! What a newcomer gets wrong: sled's `flush` makes no `fdatasync`, so after a crash the index may be behind, ahead,
//! or broken. It says how far it got, what the chain's value was there, and what all its rows come to; where that
//! does not fit, it is moved aside and made anew.

mod find;
mod rows;
mod store;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::entry::{Entry, Kind};
use crate::hash::{Committer, Digest, term};
use crate::reader::{self, Place};
use crate::segment::{BLOCK, Frame, SegmentReader, Step, name};
use crate::storage::{Mode, Storage};

use rows::{APPLIED, Applied, Stretch};

pub use find::{Query, find};
pub use store::{Row, Sled, Store};

/// The folder's name in the ledger's directory.
pub const NAME: &str = "index";

/// A stretch ends before it grows beyond this, unless one frame is longer.
const STRETCH_BYTES: usize = 64 * 1024;
/// So many rows go into one batch.
const BATCH_ROWS: usize = 4096;

/// What a word of an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Somebody: who acts, or one on whose behalf.
    Principal,
    /// What is reached.
    Resource,
}

impl Field {
    fn tag(self) -> u8 {
        match self {
            Field::Principal => 1,
            Field::Resource => 2,
        }
    }
}

/// Tells the words that an entry can be found by, from the entry and its payload, where that is there. What the
/// opening of a session has, the whole session has.
pub type Words = fn(&Entry<'_>, Option<&[u8]>, &mut dyn FnMut(Field, &str));

/// How far an index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    /// How many entries it covers.
    pub entries: u64,
    /// Up to where.
    pub place: Place,
}

/// The index of one ledger.
#[derive(Debug)]
pub struct Index<S> {
    store: S,
    genesis: Digest,
    applied: Applied,
    words: Words,
}

/// Opens the index of a ledger in a folder. One that is broken, or not of this ledger, is moved aside, and an empty one
/// is given with the reason.
///
/// # Errors
/// Of the ledger's storage; [`io::ErrorKind::WouldBlock`] where another process has the index: read without it then.
pub fn open(folder: &Path, ledger: &dyn Storage, words: Words) -> io::Result<(Index<Sled>, Option<String>)> {
    match Sled::open(folder).and_then(|store| Index::over(store, ledger, words)) {
        Ok(index) => Ok((index, None)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
        Err(error) => {
            move_aside(folder)?;
            Ok((Index::over(Sled::open(folder)?, ledger, words)?, Some(error.to_string())))
        }
    }
}

/// Opens an index to read through it, and changes nothing about it. None where there is none.
///
/// # Errors
/// As [`open`]; whatever is wrong with it, the ledger can be read without it.
pub fn open_existing(folder: &Path, ledger: &dyn Storage, words: Words) -> io::Result<Option<Index<Sled>>> {
    if !folder.join("db").exists() {
        return Ok(None);
    }
    Index::over(Sled::open(folder)?, ledger, words).map(Some)
}

/// Moves an index out of the way; one that was moved before is removed.
///
/// # Errors
/// Of the system.
pub fn move_aside(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    forget_aside(folder)?;
    fs::rename(folder, aside(folder))
}

/// Removes an index that was moved out of the way.
///
/// # Errors
/// Of the system.
pub fn forget_aside(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(aside(folder)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn aside(folder: &Path) -> PathBuf {
    let mut aside = folder.as_os_str().to_owned();
    aside.push(".broken");
    aside.into()
}

impl<S: Store> Index<S> {
    /// Takes up an index where it got to, if that is a place of this ledger.
    ///
    /// # Errors
    /// Of store and storage; [`io::ErrorKind::InvalidData`] where it is not an index of this ledger.
    pub fn over(store: S, ledger: &dyn Storage, words: Words) -> io::Result<Index<S>> {
        let genesis = reader::manifest(ledger)?.genesis();
        let start = Place { segment: 0, offset: BLOCK as u64 };
        let empty = Applied {
            place: start,
            last: start,
            next_seq: 0,
            chain: genesis,
            latest_ns: 0,
            skew_ns: 0,
            sessions: 0,
            rows: 0,
            sum: 0,
        };
        let applied = match store.fetch(APPLIED)? {
            None => empty,
            Some(bytes) => Applied::decode(&bytes, genesis)
                .filter(|applied| stands(ledger, applied))
                .ok_or_else(|| invalid("the index does not fit this ledger"))?,
        };
        Ok(Index { store, genesis, applied, words })
    }

    /// How far it got.
    #[must_use]
    pub fn covered(&self) -> Covered {
        Covered { entries: self.applied.next_seq, place: self.applied.place }
    }

    /// Reads every row, and says whether they are those that were put in.
    ///
    /// # Errors
    /// Of the store.
    pub fn is_whole(&self) -> io::Result<bool> {
        let mut found = Applied { rows: 0, sum: 0, ..self.applied };
        for table in [b"c", b"k", b"s", b"t", b"x"] {
            let (from, to) = rows::span(table, b"");
            self.store.scan(&from, &to, &mut |key, value| {
                found.count((key, value));
                true
            })?;
        }
        Ok(found == self.applied)
    }

    /// Reads what was committed since, and takes it in; `each` hears how far it is after each batch, and can stop it.
    /// Give it a reader's view of the ledger, live or not. Gives how far it is then.
    ///
    /// # Errors
    /// Of store and storage. What was taken in before stays.
    pub fn catch_up(
        &mut self,
        ledger: &dyn Storage,
        each: &mut dyn FnMut(Covered) -> ControlFlow<()>,
    ) -> io::Result<Covered> {
        let mut draft = Draft::new(self.applied, self.words);
        'segments: for number in self.applied.place.segment.. {
            let file = match ledger.open(&name(number), Mode::Read) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let mut reader = SegmentReader::new(file)?;
            if number == draft.applied.place.segment {
                reader.seek(draft.applied.place.offset);
            } else {
                draft.applied.place = Place { segment: number, offset: BLOCK as u64 };
            }
            loop {
                match reader.step()? {
                    // What does not follow is the verifier's business; the index stops before it.
                    Step::Frame { frame, .. } if frame.header.chain_in != draft.applied.chain => {
                        break 'segments;
                    }
                    Step::Frame { offset, frame } => {
                        draft.take(Place { segment: number, offset }, &frame);
                        draft.applied.place.offset = reader.offset();
                    }
                    Step::Footer { .. } => break,
                    Step::End { .. } | Step::Damaged { .. } => break 'segments,
                }
                if draft.rows.len() >= BATCH_ROWS {
                    self.commit(&mut draft)?;
                    if each(self.covered()).is_break() {
                        return Ok(self.covered());
                    }
                }
            }
            draft.end_stretch();
        }
        self.commit(&mut draft)?;
        let covered = self.covered();
        let _ = each(covered);
        Ok(covered)
    }

    fn commit(&mut self, draft: &mut Draft) -> io::Result<()> {
        draft.end_stretch();
        if draft.applied == self.applied {
            return Ok(());
        }
        let mut rows = std::mem::take(&mut draft.rows);
        rows.push((APPLIED.to_vec(), draft.applied.encode(self.genesis)));
        self.store.apply(rows)?;
        self.applied = draft.applied;
        Ok(())
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The rows to be, and where the index will be with them.
struct Draft {
    applied: Applied,
    rows: Vec<Row>,
    stretch: Option<Open>,
    committer: Committer,
    words: Words,
}

/// The stretch that is being gathered.
struct Open {
    start: Place,
    end: u64,
    earliest_ns: u64,
    sessions: BTreeSet<u64>,
    kinds: BTreeSet<Kind>,
    terms: BTreeSet<(Digest, u64)>,
    /// The sessions that are closed here, and how many entries they have.
    closed: BTreeMap<u64, u64>,
}

impl Draft {
    fn new(applied: Applied, words: Words) -> Draft {
        Draft { applied, rows: Vec::new(), stretch: None, committer: Committer::new(), words }
    }

    fn take(&mut self, place: Place, frame: &Frame<'_>) {
        let end = place.offset + crate::segment::padded(frame.header.length()) as u64;
        if self.stretch.as_ref().is_some_and(|open| end - open.start.offset > STRETCH_BYTES as u64) {
            self.end_stretch();
        }
        let open = self.stretch.get_or_insert_with(|| Open {
            start: place,
            end,
            earliest_ns: u64::MAX,
            sessions: BTreeSet::new(),
            kinds: BTreeSet::new(),
            terms: BTreeSet::new(),
            closed: BTreeMap::new(),
        });
        open.end = end;
        for record in frame.records() {
            let Ok(entry) = Entry::decode(record.entry) else { continue };
            let header = &entry.header;
            open.kinds.insert(header.kind);
            if header.session != 0 {
                open.sessions.insert(header.session);
            }
            if header.kind == Kind::SESSION_CLOSED {
                open.closed.insert(header.session, header.session_seq.saturating_add(1));
            }
            open.earliest_ns = open.earliest_ns.min(header.time_ns);
            self.applied.latest_ns = self.applied.latest_ns.max(header.time_ns);
            self.applied.skew_ns = self.applied.skew_ns.max(self.applied.latest_ns - header.time_ns);
            self.applied.sessions = self.applied.sessions.max(header.session);
            if header.session == 0 || header.kind == Kind::SESSION_OPENED {
                let payload = record.payload_matches(&entry, &mut self.committer).then_some(record.payload);
                (self.words)(&entry, payload, &mut |field, text| {
                    open.terms.insert((term(field.tag(), text), header.session));
                });
            }
        }
        self.applied.last = place;
        self.applied.chain = frame.chain_next();
        self.applied.next_seq = frame.header.first_seq + u64::from(frame.header.count);
    }

    fn end_stretch(&mut self) {
        let Some(open) = self.stretch.take() else { return };
        let blocks = u32::try_from((open.end - open.start.offset) / BLOCK as u64).unwrap_or(u32::MAX);
        let stretch = Stretch { segment: open.start.segment, offset: open.start.offset, blocks };
        let before = self.rows.len();
        self.rows.push(rows::time_row(self.applied.latest_ns, &stretch, open.earliest_ns));
        self.rows.extend(open.sessions.iter().map(|session| rows::session_row(*session, &stretch)));
        self.rows.extend(open.closed.iter().map(|(session, entries)| rows::closed_row(*session, *entries)));
        self.rows.extend(open.kinds.iter().map(|kind| rows::kind_row(*kind, &stretch)));
        self.rows.extend(open.terms.iter().map(|(term, session)| rows::term_row(term, &stretch, *session)));
        for (key, value) in &self.rows[before..] {
            self.applied.count((key, value));
        }
    }
}

/// Whether the last frame that was taken in still stands, and leads to the chain's value that the index has: in a ledger
/// that recovery cut, and in another one, it does not.
fn stands(ledger: &dyn Storage, applied: &Applied) -> bool {
    if applied.next_seq == 0 {
        return true;
    }
    let Ok(file) = ledger.open(&name(applied.last.segment), Mode::Read) else { return false };
    let Ok(mut reader) = SegmentReader::new(file) else { return false };
    reader.seek(applied.last.offset);
    match reader.step() {
        Ok(Step::Frame { frame, .. }) => {
            frame.chain_next() == applied.chain
                && frame.header.first_seq + u64::from(frame.header.count) == applied.next_seq
        }
        _ => false,
    }
}

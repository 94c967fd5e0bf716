//! The rows of the index, byte by byte. All numbers are big-endian, so that keys sort as their numbers do.
//!
//! ```text
//! 't' latest time up to its end (8) ‖ place (16)    → blocks (4) ‖ earliest time in it (8)     a stretch
//! 's' session (8) ‖ place (16)                      → blocks (4)                               it holds entries of that session
//! 'k' kind (2) ‖ place (16)                         → blocks (4)                               it holds entries of that kind
//! 'x' digest of field and text (32) ‖ place (16) ‖ session (8) → blocks (4)                    an entry there has that term
//! 'c' session (8)                                   → entries (8)                              it is closed, and has so many
//! 'applied'                                         → how far it got, and what all rows come to
//! ```
//! A *stretch* is some whole frames that follow each other in one segment. Names are there as digests alone.

use crate::entry::{Kind, array};
use crate::hash::Digest;
use crate::reader::Place;

use super::store::Row;

pub(super) const APPLIED: &[u8] = b"applied";
const SCHEMA: u32 = 2;
const APPLIED_BYTES: usize = 4 + 9 * 8 + 16 + 32 + 32;

/// Some whole frames that follow each other in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stretch {
    /// Where the first frame begins.
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// How long they are, in blocks.
    pub(crate) blocks: u32,
}

impl Stretch {
    pub(crate) fn place(&self) -> Place {
        Place { segment: self.segment, offset: self.offset }
    }
}

pub(super) fn time_row(latest_ns: u64, stretch: &Stretch, earliest_ns: u64) -> Row {
    let value = [&stretch.blocks.to_be_bytes()[..], &earliest_ns.to_be_bytes()].concat();
    (key(b"t", &latest_ns.to_be_bytes(), stretch), value)
}

pub(super) fn session_row(session: u64, stretch: &Stretch) -> Row {
    (key(b"s", &session.to_be_bytes(), stretch), stretch.blocks.to_be_bytes().to_vec())
}

pub(super) fn closed_row(session: u64, entries: u64) -> Row {
    ([b"c", &session.to_be_bytes()[..]].concat(), entries.to_be_bytes().to_vec())
}

pub(super) fn kind_row(kind: Kind, stretch: &Stretch) -> Row {
    (key(b"k", &kind.0.to_be_bytes(), stretch), stretch.blocks.to_be_bytes().to_vec())
}

pub(super) fn term_row(term: &Digest, stretch: &Stretch, session: u64) -> Row {
    let mut key = key(b"x", &term.0, stretch);
    key.extend_from_slice(&session.to_be_bytes());
    (key, stretch.blocks.to_be_bytes().to_vec())
}

fn key(table: &[u8], what: &[u8], stretch: &Stretch) -> Vec<u8> {
    [table, what, &stretch.segment.to_be_bytes(), &stretch.offset.to_be_bytes()].concat()
}

/// From where to before where the rows of a table lie whose key goes on like this.
pub(super) fn span(table: &[u8], what: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let from = [table, what].concat();
    let mut to = from.clone();
    // The next prefix of that length: the tables' letters are ASCII, so there is one.
    while to.last() == Some(&0xff) {
        to.pop();
    }
    if let Some(last) = to.last_mut() {
        *last += 1;
    }
    (from, to)
}

/// The stretch of a row whose key has its place behind `skip` bytes; none where it is no such row.
pub(super) fn stretch_of(key: &[u8], skip: usize, value: &[u8]) -> Option<Stretch> {
    let place = key.get(skip..skip + 16)?;
    Some(Stretch {
        segment: u64::from_be_bytes(array(&place[..8])),
        offset: u64::from_be_bytes(array(&place[8..])),
        blocks: u32::from_be_bytes(array(value.get(..4)?)),
    })
}

/// A number in a key or a value.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(array(bytes.get(at..at + 8)?)))
}

/// How far the index got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Applied {
    /// Behind the last frame that was taken in.
    pub(super) place: Place,
    /// Where that frame begins.
    pub(super) last: Place,
    pub(super) next_seq: u64,
    /// The chain's value behind that frame.
    pub(super) chain: Digest,
    /// The latest time of any entry.
    pub(super) latest_ns: u64,
    /// How far the clock ever stood behind that.
    pub(super) skew_ns: u64,
    /// How many sessions were opened.
    pub(super) sessions: u64,
    /// How many rows there are, without this one.
    pub(super) rows: u64,
    /// The sum of their digests: rows that were lost, added or changed show in it.
    pub(super) sum: u128,
}

impl Applied {
    pub(super) fn count(&mut self, (key, value): (&[u8], &[u8])) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(row_digest(key, value));
    }

    pub(super) fn encode(&self, genesis: Digest) -> Vec<u8> {
        let mut out = SCHEMA.to_be_bytes().to_vec();
        let places = [self.place.segment, self.place.offset, self.last.segment, self.last.offset];
        let counts = [self.next_seq, self.latest_ns, self.skew_ns, self.sessions, self.rows];
        for number in places.iter().chain(&counts) {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.sum.to_be_bytes());
        out.extend_from_slice(&self.chain.0);
        out.extend_from_slice(&genesis.0);
        out
    }

    pub(super) fn decode(bytes: &[u8], genesis: Digest) -> Option<Applied> {
        if bytes.len() != APPLIED_BYTES
            || bytes[..4] != SCHEMA.to_be_bytes()
            || bytes[APPLIED_BYTES - 32..] != genesis.0
        {
            return None;
        }
        let number = |nth: usize| number(bytes, 4 + 8 * nth);
        let place = |nth: usize| Some(Place { segment: number(nth)?, offset: number(nth + 1)? });
        Some(Applied {
            place: place(0)?,
            last: place(2)?,
            next_seq: number(4)?,
            latest_ns: number(5)?,
            skew_ns: number(6)?,
            sessions: number(7)?,
            rows: number(8)?,
            sum: u128::from_be_bytes(array(&bytes[76..92])),
            chain: Digest(array(&bytes[92..124])),
        })
    }
}

fn row_digest(key: &[u8], value: &[u8]) -> u128 {
    let mut bytes = u8::try_from(key.len()).unwrap_or(u8::MAX).to_be_bytes().to_vec();
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
    u128::from_be_bytes(array(&crate::hash::plain(&bytes).0[..16]))
}

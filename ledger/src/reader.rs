//! Reads a ledger from front to back, live or at rest, and goes on behind what is broken.
//!
//! It takes no lock and writes nothing. It checks each frame's checksum, chain value and layout, and each
//! payload's commitment, so that what it shows is what was written; whether the ledger as a whole can be
//! believed is [`crate::verify`]'s to say. What a newcomer gets wrong: the end of a live ledger may be a frame
//! that is half written, and that is no damage.

use std::io;
use std::ops::ControlFlow;

use crate::entry::{Entry, Malformed};
use crate::hash::Committer;
use crate::manifest::{self, MANIFEST_BYTES_MAX, Manifest};
use crate::segment::{Frame, SegmentReader, Step, name, number_of};
use crate::storage::{Mode, Storage, read};

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// Where in its file the frame begins.
    pub offset: u64,
}

/// What reading comes to, in order.
#[derive(Debug)]
pub enum Item<'a> {
    /// An entry.
    Entry {
        /// Where its frame stands.
        place: Place,
        /// The entry.
        entry: Entry<'a>,
        /// Its payload; none where it is not the one that the entry commits to.
        payload: Option<&'a [u8]>,
    },
    /// Something that cannot be read.
    Broken {
        /// Where.
        place: Place,
        /// What is wrong.
        why: Malformed,
        /// Whether it is the end of the ledger and looks like a write that is not finished.
        unfinished: bool,
    },
}

/// Reads and checks `ledger.toml`.
///
/// # Errors
/// Of the storage; [`io::ErrorKind::InvalidData`] where it is not a manifest.
pub fn manifest(storage: &dyn Storage) -> io::Result<Manifest> {
    let bytes = read(storage, manifest::NAME, MANIFEST_BYTES_MAX)?;
    Manifest::parse(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The numbers of the segments that are there, sorted.
///
/// # Errors
/// Of the storage.
pub fn segments(storage: &dyn Storage) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = storage.list("segments")?.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Visits every entry from a place on; the beginning is the default place. Stops early where the visitor breaks.
///
/// # Errors
/// Of the storage.
pub fn visit(
    storage: &dyn Storage,
    from: Option<Place>,
    mut visitor: impl FnMut(Item<'_>) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut committer = Committer::new();
    let numbers = segments(storage)?;
    let last = numbers.last().copied();
    for number in numbers {
        if from.is_some_and(|place| place.segment > number) {
            continue;
        }
        let mut reader = SegmentReader::new(storage.open(&name(number), Mode::Read)?)?;
        if let Some(place) = from.filter(|place| place.segment == number) {
            reader.seek(place.offset);
        }
        loop {
            let (offset, why, torn) = match reader.step()? {
                Step::Frame { offset, frame } => {
                    if visit_frame(Place { segment: number, offset }, &frame, &mut committer, &mut visitor)
                        .is_break()
                    {
                        return Ok(());
                    }
                    continue;
                }
                Step::Footer { .. } => break,
                Step::End { .. } if Some(number) == last => break,
                Step::End { offset } => (offset, Malformed("sealed segment ends without a footer"), false),
                Step::Damaged { offset, why, torn } => (offset, why, torn),
            };
            let goes_on = reader.find_next()?;
            let unfinished = torn && !goes_on && Some(number) == last;
            let broken = Item::Broken { place: Place { segment: number, offset }, why, unfinished };
            if visitor(broken).is_break() {
                return Ok(());
            }
            if !goes_on {
                break;
            }
        }
    }
    Ok(())
}

/// Visits the entries of one frame.
pub(crate) fn visit_frame(
    place: Place,
    frame: &Frame<'_>,
    committer: &mut Committer,
    visitor: &mut impl FnMut(Item<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for record in frame.records() {
        match Entry::decode(record.entry) {
            Ok(entry) => {
                let payload = record.payload_matches(&entry, committer).then_some(record.payload);
                visitor(Item::Entry { place, entry, payload })?;
            }
            Err(why) => visitor(Item::Broken { place, why, unfinished: false })?,
        }
    }
    ControlFlow::Continue(())
}

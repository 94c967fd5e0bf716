//! Reads a ledger from front to back, live or at rest, and goes on behind what is broken.
//!
//! It takes no lock and writes nothing. It checks each frame's checksum, chain value and layout, and each
//! payload's commitment, so that what it shows is what was written; whether the ledger as a whole can be
//! believed is [`crate::verify`]'s to say. What a newcomer gets wrong: the end of a live ledger may be a frame
//! that is half written, and that is no damage.

use std::io;
use std::ops::ControlFlow;

use crate::entry::{Entry, Kind, Malformed};
use crate::hash::{Committer, Digest};
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

/// Visits those entries of one segment that are of these kinds, where the segment leads to the chain's value `behind`. Gives the
/// value that it begins with, and that the segment before must lead to: whoever knows the end of the chain goes back from there,
/// and is shown what was written, all of it, whoever may have written to the files since.
///
/// # Errors
/// Of the storage; [`io::ErrorKind::InvalidData`] where anything of it is damaged, or it leads elsewhere. Then what was visited
/// counts for nothing.
pub fn visit_behind(
    storage: &dyn Storage,
    number: u64,
    behind: Digest,
    kinds: &[Kind],
    mut visitor: impl FnMut(&Entry<'_>, Option<&[u8]>),
) -> io::Result<Digest> {
    let wrong = |why: &str| {
        let message = format!("segment {number:08} {why}");
        io::Error::new(io::ErrorKind::InvalidData, message)
    };
    let mut reader = SegmentReader::new(storage.open(&name(number), Mode::Read)?)?;
    let mut committer = Committer::new();
    let (mut begins, mut chain) = (None, None);
    loop {
        let frame = match reader.step()? {
            Step::Frame { frame, .. } => frame,
            Step::Footer { .. } | Step::End { .. } => break,
            Step::Damaged { why, .. } => return Err(wrong(&format!("is damaged: {why}"))),
        };
        if chain.is_some_and(|chain| chain != frame.header.chain_in) {
            return Err(wrong("has a frame that does not follow the one before"));
        }
        begins.get_or_insert(frame.header.chain_in);
        chain = Some(frame.chain_next());
        for record in frame.records() {
            let entry = Entry::decode(record.entry).map_err(|why| wrong(&format!("is damaged: {why}")))?;
            if kinds.contains(&entry.header.kind) {
                let payload = record.payload_matches(&entry, &mut committer).then_some(record.payload);
                visitor(&entry, payload);
            }
        }
    }
    if chain.is_some_and(|chain| chain != behind) {
        return Err(wrong("is not the one that the ledger goes on from"));
    }
    Ok(begins.unwrap_or(behind))
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

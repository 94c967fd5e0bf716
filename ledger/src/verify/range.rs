//! Judges the segments of a range of entries: each for itself, joined where they follow each other, and every entry
//! against the tiles, which lead to the checkpoint's root.

use std::io;

use super::bundle::{Evidence, Wrong, wrong};
use super::report::Court;
use super::tiles::check_tiles;
use crate::bundle::COVER;
use crate::entry::{Entry, array, check_canonical};
use crate::hash::{Committer, Digest, leaf};
use crate::merkle::proof::Head;
use crate::merkle::{Range, TILE_WIDTH, tile_path};
use crate::reader::segments;
use crate::segment::{Footer, Frame, SegmentReader, Step, all_zero, name};
use crate::storage::{Mode, Storage, read};

pub(super) fn judge(evidence: &Evidence<'_>, first: u64, last: u64, court: &mut Court) -> Result<(), Wrong> {
    let size = evidence.cover.size;
    if first > last || last >= size {
        return Err(wrong(COVER, "its range is not under the checkpoint"));
    }
    let head = Head { size, root: evidence.cover.root };
    check_tiles(evidence.storage, head, Some(first..=last), false, 0, &mut court.findings)?;
    if !court.findings.problems.is_empty() {
        return Ok(());
    }
    let mut walk =
        Walk { evidence, next: None, chain: None, leaves: None, committer: Committer::new(), redacted: 0 };
    let (mut begins, mut expected) = (None, None);
    for number in segments(evidence.storage)? {
        if expected.replace(number + 1).is_some_and(|expected| expected != number) {
            break;
        }
        let started = walk.segment(number, court)?;
        begins = begins.or(started);
        court.segments += 1;
        if !court.findings.problems.is_empty() {
            return Ok(());
        }
    }
    let covered = begins.is_some_and(|begins| begins <= first) && walk.next.is_some_and(|next| next > last);
    if !covered {
        return Err(Wrong::Missing(COVER, format!("not all entries from {first} to {last} are here")));
    }
    court.redacted = walk.redacted;
    court.entries = walk.next.unwrap_or(0) - begins.unwrap_or(0);
    court
        .findings
        .notes
        .push(format!("entries {first} to {last} of {size} are here, and no others were asked for"));
    Ok(())
}

struct Walk<'a> {
    evidence: &'a Evidence<'a>,
    next: Option<u64>,
    chain: Option<Digest>,
    /// The leaves of the tile at hand.
    leaves: Option<(u64, Vec<u8>)>,
    committer: Committer,
    redacted: u64,
}

impl Walk<'_> {
    /// Judges a segment; gives its first entry's number.
    fn segment(&mut self, number: u64, court: &mut Court) -> Result<Option<u64>, Wrong> {
        let file = name(number);
        let mut blame = |offset: u64, entry: Option<u64>, what: &str| {
            court.tampered(Some(file.clone()), Some(offset), entry, what.to_owned());
        };
        let storage = self.evidence.storage;
        let mut reader = SegmentReader::new(storage.open(&file, Mode::Read)?)?;
        let header = match reader.header()? {
            Ok(header) => header,
            Err(why) => {
                blame(0, None, why.0);
                return Ok(None);
            }
        };
        let manifest = self.evidence.manifest;
        let follows = self.next.is_none_or(|next| next == header.first_seq)
            && self.chain.is_none_or(|chain| chain == header.chain_in);
        let known = self.evidence.epochs.get(header.epoch.number as usize) == Some(&header.epoch);
        let newer = header.first_seq >= self.evidence.cover.size;
        if header.number != number || header.genesis != manifest.genesis() || !follows || !(known || newer) {
            blame(0, Some(header.first_seq), "segment header contradicts what is before it");
            return Ok(None);
        }
        (self.next, self.chain) = (Some(header.first_seq), Some(header.chain_in));
        let mut frames = 0;
        loop {
            match reader.step()? {
                Step::Frame { offset, frame } => {
                    frames += 1;
                    let signed = frame.is_signed_by(&manifest.origin, &header.epoch.key)
                        && frame.header.epoch == header.epoch.number;
                    if !signed
                        || Some(frame.header.chain_in) != self.chain
                        || Some(frame.header.first_seq) != self.next
                    {
                        blame(
                            offset,
                            self.next,
                            "frame does not follow the one before, or is not signed by its epoch",
                        );
                        return Ok(None);
                    }
                    if let Err((entry, what)) = self.frame(&frame)? {
                        blame(offset, Some(entry), what);
                        return Ok(None);
                    }
                    self.chain = Some(frame.chain_next());
                }
                Step::Footer { offset, bytes } => {
                    match Footer::decode(bytes, offset, &manifest.origin, &header.epoch.key) {
                        Ok(footer)
                            if footer.number == number
                                && footer.frames == frames
                                && Some(footer.next_seq) == self.next
                                && Some(footer.chain) == self.chain => {}
                        Ok(_) => blame(offset, self.next, "segment footer contradicts its segment"),
                        Err(why) => blame(offset, self.next, why.0),
                    }
                    break;
                }
                Step::End { .. } => break,
                Step::Damaged { offset, why, .. } => {
                    blame(offset, self.next, why.0);
                    break;
                }
            }
        }
        court.frames += frames;
        Ok(Some(header.first_seq))
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Result<Result<(), (u64, &'static str)>, Wrong> {
        for record in frame.records() {
            let seq = self.next.unwrap_or(0);
            let entry = match Entry::decode(record.entry)
                .and_then(|entry| check_canonical(entry.body).map(|()| entry))
            {
                Ok(entry) if entry.header.seq == seq && entry.header.epoch == frame.header.epoch => entry,
                Ok(_) => return Ok(Err((seq, "entry has another number or epoch than its place"))),
                Err(why) => return Ok(Err((seq, why.0))),
            };
            if !record.payload_matches(&entry, &mut self.committer) {
                let zeroed = all_zero(&record.salt) && all_zero(record.payload);
                if !zeroed || !self.evidence.is_redacted(seq) {
                    return Ok(Err((seq, "payload is not the one that its entry commits to")));
                }
                self.redacted += 1;
            }
            if seq < self.evidence.cover.size && self.published(seq)? != Some(leaf(entry.bytes)) {
                return Ok(Err((seq, "entry is not the one under the checkpoint")));
            }
            self.next = Some(seq + 1);
        }
        Ok(Ok(()))
    }

    /// The leaf that the checked tiles have for an entry.
    fn published(&mut self, seq: u64) -> Result<Option<Digest>, Wrong> {
        let index = seq / TILE_WIDTH as u64;
        if self.leaves.as_ref().is_none_or(|(at, _)| *at != index) {
            self.leaves = Some((index, leaves(self.evidence.storage, self.evidence.cover.size, index)?));
        }
        let at = usize::try_from(seq % TILE_WIDTH as u64).unwrap_or(usize::MAX) * 32;
        let hash = self.leaves.as_ref().and_then(|(_, bytes)| bytes.get(at..at + 32));
        Ok(hash.map(|hash| Digest(array(hash))))
    }
}

fn leaves(storage: &dyn Storage, size: u64, index: u64) -> io::Result<Vec<u8>> {
    let width = TILE_WIDTH as u64;
    let here = usize::try_from(size.saturating_sub(index * width).min(width)).unwrap_or(TILE_WIDTH);
    read(storage, &tile_path("0", index, here), TILE_WIDTH * 32)
}

/// The root of the first `old` leaves of a tree of `size`, from its tiles.
pub(super) fn root_at(storage: &dyn Storage, size: u64, old: u64) -> io::Result<Digest> {
    let mut range = Range::empty(0);
    for index in 0..old.div_ceil(TILE_WIDTH as u64) {
        for hash in leaves(storage, size, index)?.chunks_exact(32) {
            if range.end() < old {
                range.push(Digest(array(hash)));
            }
        }
    }
    range.root().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

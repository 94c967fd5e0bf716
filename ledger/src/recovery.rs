//! What the writer does before its first entry: finds the end of the ledger, and cuts what a crash left.
//!
//! It cuts only in the last segment, only where nothing valid follows, only above every checkpoint that was
//! signed; and what it cuts is kept in `quarantine/`. Anything else that is wrong stops it, unchanged.
//!
//! It reads from the last sealed segment on. Damage before that is the verifier's to find.

use std::io;

use serde::Serialize;

use crate::checkpoint::{NOTE_BYTES_MAX, Note};
use crate::entry::{Entry, Malformed};
use crate::error::OpenError;
use crate::hash::{Committer, Digest, leaf, plain};
use crate::manifest::{self, MANIFEST_BYTES_MAX, Manifest};
use crate::merkle::Tree;
use crate::segment::{
    self, BLOCK, Footer, Frame, SegmentHeader, SegmentReader, Step, all_zero, footer_of, number_of,
};
use crate::session::Sessions;
use crate::signature::{Keys, Role};
use crate::state::{self, Signed, StateFile};
use crate::storage::{Mode, Storage, read};
use crate::writer::{CHECKPOINT, Position, Tail};

/// The most that recovery keeps of what it cuts; a crash leaves less.
const CUT_BYTES_MAX: u64 = 1 << 30;

/// What opening a ledger found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// What was cut off, if anything.
    pub cut: Option<Cut>,
    /// The sessions that nobody closed, sorted: their gateway stopped in the middle.
    pub open_sessions: Vec<u64>,
    /// How many entries there are.
    pub entries: u64,
}

/// What was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// From which segment.
    pub segment: u64,
    /// From where in its file.
    pub offset: u64,
    /// How many bytes, without zeros at their end.
    pub bytes: u64,
    /// BLAKE3 of those bytes.
    pub blake3: Digest,
    /// Where they are kept.
    pub quarantine: String,
}

/// What is cut, and its bytes.
type Torn = (Cut, Vec<u8>);

/// All that the writer starts with.
pub(crate) struct Found {
    pub(crate) manifest: Manifest,
    pub(crate) position: Position,
    pub(crate) tail: Tail,
    pub(crate) state: StateFile,
    pub(crate) published: u64,
    pub(crate) recovery: Recovery,
}

/// Removes what a creation that never finished left behind: a first segment without a frame, and a state.
pub(crate) fn remove_unborn(storage: &dyn Storage) -> Result<(), OpenError> {
    let first = segment::name(0);
    let segments = storage.list("segments")?;
    for name in &segments {
        let mut reader = SegmentReader::new(storage.open(&format!("segments/{name}"), Mode::Read)?)?;
        if format!("segments/{name}") != first || reader.data_end(BLOCK as u64)? > BLOCK as u64 {
            return Err(OpenError::Exists);
        }
    }
    if !segments.is_empty() {
        storage.remove(&first)?;
    }
    Ok(storage.remove(state::NAME)?)
}

/// Finds the end of the ledger; cuts what a crash left.
pub(crate) fn recover(storage: &dyn Storage, keys: &dyn Keys) -> Result<Found, OpenError> {
    let manifest = Manifest::parse(&read(storage, manifest::NAME, MANIFEST_BYTES_MAX)?)?;
    for (role, ours) in [(Role::Log, manifest.log_key), (Role::Epoch, manifest.epoch_key)] {
        if keys.public(role)? != ours {
            return Err(OpenError::OtherKey(role.name()));
        }
    }
    let signed = read_state(storage)?;
    let published = published(storage, &manifest)?;
    let numbers = segment_numbers(storage)?;
    let mut walk = Walk::start(storage, &manifest, &numbers, published)?;
    walk.claims = vec![(signed.size, signed.root)];
    let (tail, cut) = walk.run(&numbers, signed.size.max(published))?;
    let position = walk.position;
    // Nothing was changed up to here. Now the state is mended and the torn end cut.
    let state = StateFile::open(storage)?;
    let tail = tail.settle(storage, &manifest, cut.as_ref(), &position)?;
    let recovery = Recovery {
        cut: cut.map(|(cut, _)| cut),
        open_sessions: position.sessions.open_numbers(),
        entries: position.next_seq,
    };
    Ok(Found { manifest, position, tail, state, published, recovery })
}

fn read_state(storage: &dyn Storage) -> Result<Signed, OpenError> {
    let file = storage.open(state::NAME, Mode::Read)?;
    Ok(state::read(file.as_ref())?.newest)
}

/// The size of the published checkpoint: the tiles before it are all there.
fn published(storage: &dyn Storage, manifest: &Manifest) -> Result<u64, OpenError> {
    match read(storage, CHECKPOINT, NOTE_BYTES_MAX) {
        Ok(bytes) => {
            let note = Note::parse(&bytes).map_err(|error| OpenError::Rollback(error.to_string()))?;
            let checkpoint = note.verify(&manifest.checkpoint_keys());
            Ok(checkpoint.map_err(|error| OpenError::Rollback(error.to_string()))?.size)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn segment_numbers(storage: &dyn Storage) -> Result<Vec<u64>, OpenError> {
    let mut numbers: Vec<u64> = storage.list("segments")?.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    if numbers.is_empty() || numbers.iter().zip(0..).any(|(number, expected)| *number != expected) {
        return Err(OpenError::Rollback("a segment is missing".to_owned()));
    }
    Ok(numbers)
}

struct Walk<'a> {
    storage: &'a dyn Storage,
    manifest: &'a Manifest,
    position: Position,
    /// The first segment to read.
    first: u64,
    committer: Committer,
    /// Sizes and roots that were signed.
    claims: Vec<(u64, Digest)>,
}

/// Where the ledger ends.
struct End {
    segment: u64,
    offset: u64,
    frames: u64,
    /// Whether the segment's header must be written, because a crash came before it.
    headless: bool,
    /// Whether the segment is sealed, so that a new one must follow.
    sealed: bool,
}

impl<'a> Walk<'a> {
    /// Starts behind the last sealed segment whose tiles are all published.
    fn start(
        storage: &'a dyn Storage,
        manifest: &'a Manifest,
        numbers: &[u64],
        published: u64,
    ) -> Result<Walk<'a>, OpenError> {
        let start = Position {
            chain: manifest.genesis(),
            next_seq: 0,
            sessions: Sessions::default(),
            tree: Tree::default(),
        };
        let mut walk = Walk {
            storage,
            manifest,
            position: start,
            first: 0,
            committer: Committer::new(),
            claims: Vec::new(),
        };
        for number in numbers[..numbers.len() - 1].iter().rev() {
            let file = storage.open(&segment::name(*number), Mode::Read)?;
            let damaged = |why| OpenError::Damaged { segment: *number, offset: 0, why };
            let footer = footer_of(file, &manifest.origin, &manifest.epoch_key)?
                .filter(|footer| footer.number == *number)
                .ok_or_else(|| damaged(Malformed("segment is not sealed, and another follows")))?;
            if footer.next_seq <= published {
                walk.position =
                    after(footer).ok_or_else(|| damaged(Malformed("segment footer contradicts itself")))?;
                walk.first = number + 1;
                break;
            }
        }
        Ok(walk)
    }

    /// Reads to the end. Gives where it is, and what is to be cut there.
    fn run(&mut self, numbers: &[u64], floor: u64) -> Result<(End, Option<Torn>), OpenError> {
        let last = numbers.len() as u64 - 1;
        for segment in self.first..=last {
            let end = self.segment(segment, segment == last)?;
            if segment == last {
                let cut = self.torn(&end)?;
                if self.position.next_seq < floor {
                    let message = format!("{} entries are here, {floor} were signed", self.position.next_seq);
                    return Err(OpenError::Rollback(message));
                }
                return Ok((end, cut));
            }
        }
        Err(OpenError::Rollback("a segment is missing".to_owned()))
    }

    /// Reads a segment to its footer, or to where its valid frames end.
    fn segment(&mut self, number: u64, last: bool) -> Result<End, OpenError> {
        let mut reader = SegmentReader::new(self.storage.open(&segment::name(number), Mode::Read)?)?;
        let damaged = |offset, why| OpenError::Damaged { segment: number, offset, why };
        let expected = self.header(number);
        let mut end =
            End { segment: number, offset: BLOCK as u64, frames: 0, headless: false, sealed: false };
        match reader.header()? {
            Ok(header) if header == expected => {}
            Ok(_) => return Err(damaged(0, Malformed("segment header contradicts what is before it"))),
            Err(why) => {
                // A new segment's header is written together with its first frame, so a torn one has no
                // valid frame behind it either.
                let mut whole = Vec::new();
                expected.encode(&mut whole);
                let block = reader.view(0, BLOCK)?;
                if !last || !is_torn_prefix(block, &whole) {
                    return Err(damaged(0, why));
                }
                end.headless = true;
                end.offset = 0;
                return Ok(end);
            }
        }
        loop {
            match reader.step()? {
                Step::Frame { offset, frame } => {
                    if let Err(why) = self.frame(&frame) {
                        if !last || why.0 != TORN_PAYLOAD {
                            return Err(damaged(offset, why));
                        }
                        end.offset = offset;
                        return Ok(end);
                    }
                    end.frames += 1;
                    end.offset = reader.offset();
                }
                Step::Footer { offset, bytes } => {
                    match Footer::decode(bytes, offset, &self.manifest.origin, &self.manifest.epoch_key) {
                        Ok(footer) => {
                            self.check_footer(&footer, number, end.frames)
                                .map_err(|why| damaged(offset, why))?;
                            end.sealed = true;
                        }
                        Err(_) if last => {}
                        Err(why) => return Err(damaged(offset, why)),
                    }
                    end.offset = offset;
                    return Ok(end);
                }
                Step::End { offset } | Step::Damaged { offset, .. } if last => {
                    end.offset = offset;
                    return Ok(end);
                }
                Step::End { offset } => {
                    return Err(damaged(offset, Malformed("sealed segment ends without a footer")));
                }
                Step::Damaged { offset, why, .. } => return Err(damaged(offset, why)),
            }
        }
    }

    fn header(&self, number: u64) -> SegmentHeader {
        SegmentHeader {
            number,
            first_seq: self.position.next_seq,
            chain_in: self.position.chain,
            genesis: self.manifest.genesis(),
        }
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), Malformed> {
        let header = &frame.header;
        if header.first_seq != self.position.next_seq
            || header.chain_in != self.position.chain
            || header.epoch != 0
        {
            return Err(Malformed("frame does not follow the one before"));
        }
        if !frame.is_signed_by(&self.manifest.origin, &self.manifest.epoch_key) {
            return Err(Malformed("frame is not signed by its epoch"));
        }
        // Payloads come first: where one is torn the frame was never acknowledged, and nothing of it counts.
        for record in frame.records() {
            let entry = Entry::decode(record.entry)?;
            if !record.payload_matches(&entry, &mut self.committer) {
                return Err(Malformed(TORN_PAYLOAD));
            }
        }
        for record in frame.records() {
            self.entry(&Entry::decode(record.entry)?)?;
        }
        self.position.chain = frame.chain_next();
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), Malformed> {
        let (header, position) = (&entry.header, &mut self.position);
        let place = position.sessions.place(header.kind, header.session)?;
        if header.seq != position.next_seq || place != (header.session_seq, header.prev_in_session) {
            return Err(Malformed("entry does not follow the one before"));
        }
        let leaf = leaf(entry.bytes);
        position.sessions.take(header.kind, header.session, leaf);
        position.tree.push(leaf);
        position.next_seq += 1;
        let contradicts =
            |(size, root): &(u64, Digest)| *size == position.next_seq && *root != position.tree.root();
        if self.claims.iter().any(contradicts) {
            return Err(Malformed("entries are not those that were signed"));
        }
        Ok(())
    }

    fn check_footer(&self, footer: &Footer, number: u64, frames: u64) -> Result<(), Malformed> {
        let position = &self.position;
        let agrees = footer.number == number
            && footer.frames == frames
            && footer.next_seq == position.next_seq
            && footer.chain == position.chain
            && footer.root == position.tree.root()
            && footer.sessions == position.sessions;
        if agrees { Ok(()) } else { Err(Malformed("segment footer contradicts its segment")) }
    }

    /// What stands behind the end and is to be cut: nothing valid may be among it.
    fn torn(&self, end: &End) -> Result<Option<Torn>, OpenError> {
        if end.sealed {
            return Ok(None);
        }
        let mut reader = SegmentReader::new(self.storage.open(&segment::name(end.segment), Mode::Read)?)?;
        let data_end = reader.data_end(end.offset)?;
        if data_end == end.offset {
            return Ok(None);
        }
        reader.seek(end.offset);
        if self.valid_frame_follows(&mut reader)? || data_end - end.offset > CUT_BYTES_MAX {
            let why = Malformed("what is here is damaged, and valid frames follow");
            return Err(OpenError::Damaged { segment: end.segment, offset: end.offset, why });
        }
        let length = usize::try_from(data_end - end.offset).unwrap_or(usize::MAX);
        let bytes = reader.view(end.offset, length)?.to_vec();
        let quarantine =
            format!("quarantine/{:08}-{}-{}", end.segment, end.offset, &plain(&bytes).to_string()[..16]);
        let cut = Cut {
            segment: end.segment,
            offset: end.offset,
            bytes: bytes.len() as u64,
            blake3: plain(&bytes),
            quarantine,
        };
        Ok(Some((cut, bytes)))
    }

    /// Whether anything behind this place was signed after what stands here was durable: then no crash tore it.
    /// Frames of one unfinished write may reach the disk in any order; each says how much was durable when it
    /// was signed, and only where that is no more than what is valid before the tear may it be cut with it.
    fn valid_frame_follows(&self, reader: &mut SegmentReader) -> Result<bool, OpenError> {
        let (origin, key, ends) = (&self.manifest.origin, &self.manifest.epoch_key, self.position.next_seq);
        while reader.find_next()? {
            match reader.step()? {
                Step::Frame { frame, .. }
                    if frame.header.durable > ends && frame.is_signed_by(origin, key) =>
                {
                    return Ok(true);
                }
                Step::Footer { offset, bytes } => {
                    if Footer::decode(bytes, offset, origin, key).is_ok_and(|footer| footer.durable > ends) {
                        return Ok(true);
                    }
                    reader.seek(offset);
                }
                Step::Frame { offset, .. } | Step::Damaged { offset, .. } | Step::End { offset } => {
                    reader.seek(offset)
                }
            }
        }
        Ok(false)
    }
}

/// The one failure of a signed frame that a crash explains.
const TORN_PAYLOAD: &str = "payload is not the one that its entry commits to";

/// Whether a block is the beginning of what should be there, then zeros.
fn is_torn_prefix(block: &[u8], whole: &[u8]) -> bool {
    let same = block.iter().zip(whole).take_while(|(a, b)| a == b).count();
    all_zero(&block[same..])
}

fn after(footer: Footer) -> Option<Position> {
    let tree = Tree::from_levels(footer.next_seq, footer.levels)?;
    (tree.root() == footer.root).then_some(Position {
        chain: footer.chain,
        next_seq: footer.next_seq,
        sessions: footer.sessions,
        tree,
    })
}

impl End {
    /// Puts what is cut into quarantine, cuts it, and opens the file where the writer goes on.
    fn settle(
        self,
        storage: &dyn Storage,
        manifest: &Manifest,
        cut: Option<&Torn>,
        position: &Position,
    ) -> Result<Tail, OpenError> {
        if let Some((cut, bytes)) = cut {
            storage.replace(&cut.quarantine, bytes)?;
        }
        let (number, mode) =
            if self.sealed { (self.segment + 1, Mode::Create) } else { (self.segment, Mode::Write) };
        if self.sealed {
            storage.make_read_only(&segment::name(self.segment))?;
        }
        let mut file = storage.open(&segment::name(number), mode)?;
        let mut offset = self.offset;
        if self.sealed || self.headless {
            let mut header = Vec::new();
            let (first_seq, chain_in) = (position.next_seq, position.chain);
            SegmentHeader { number, first_seq, chain_in, genesis: manifest.genesis() }.encode(&mut header);
            file.set_length(0)?;
            file.write_at(0, &header)?;
            offset = BLOCK as u64;
        } else {
            // Also where nothing is cut: what was filled ahead is given back, and filled again when needed.
            file.set_length(offset)?;
        }
        file.sync()?;
        storage.sync_folder("segments")?;
        let frames = if self.sealed { 0 } else { self.frames };
        Ok(Tail { segment: number, file, offset, frames })
    }
}

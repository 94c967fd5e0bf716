//! What the writer does before its first entry: finds the end of the ledger, and cuts what a crash left.
//!
//! It cuts only in the last segment, only where nothing valid follows, only above every checkpoint that was
//! signed; and what it cuts is kept in `quarantine/`. Anything else that is wrong stops it, unchanged.
//!
//! It reads from the last sealed segment on. Damage before that is the verifier's to find.

use std::io;

use serde::Serialize;

use crate::entry::{Entry, Kind, Malformed};
use crate::epoch::Epoch;
use crate::error::OpenError;
use crate::hash::{Committer, Digest, leaf, plain};
use crate::manifest::{self, MANIFEST_BYTES_MAX, Manifest};
use crate::merkle::Tree;
use crate::orders::{Authority, Order};
use crate::segment::{self, BLOCK, Footer, Frame, SegmentHeader, SegmentReader, Step, ends_of, number_of};
use crate::session::Sessions;
use crate::signature::{Keys, Role};
use crate::standing;
use crate::state::{self, StateFile};
use crate::storage::{File, Mode, Storage, read};
use crate::writer::{Position, Tail};

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
    /// What was cut, now or by a recovery that crashed, and is not recorded.
    pub(crate) unrecorded: Vec<Cut>,
}

impl Cut {
    fn new(segment: u64, offset: u64, bytes: &[u8]) -> Cut {
        let blake3 = plain(bytes);
        let quarantine = format!("quarantine/{segment:08}-{offset}-{}", &blake3.to_string()[..16]);
        Cut { segment, offset, bytes: bytes.len() as u64, blake3, quarantine }
    }
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
    confirm(storage)?;
    let mut state = StateFile::open(storage)?;
    let signed = state.newest();
    let published = published(storage, &manifest)?;
    let numbers = segment_numbers(storage)?;
    let mut walk = Walk::start(storage, &manifest, &numbers, published.0)?;
    walk.claims = vec![(signed.size, signed.root), published];
    let (tail, cut) = walk.run(&numbers, signed.size.max(published.0))?;
    let mut position = walk.position;
    own_keys(&position, keys, tail.sealed)?;
    // Nothing was changed up to here. Now the state is mended and the torn end cut.
    state.mend()?;
    if tail.sealed {
        position.pass_seal();
    }
    let tail = tail.settle(storage, &manifest, cut.as_ref(), &position)?;
    let unrecorded = unrecorded(storage, &tail)?;
    let recovery = Recovery {
        cut: cut.map(|(cut, _)| cut),
        open_sessions: position.sessions.open_numbers(),
        entries: position.next_seq,
    };
    Ok(Found { manifest, position, tail, state, published: published.0, recovery, unrecorded })
}

/// Whether the keys are those with which this ledger goes on.
fn own_keys(position: &Position, keys: &dyn Keys, sealed: bool) -> Result<(), OpenError> {
    let log = position.authority.log;
    if keys.public(Role::Log(log.number))? != log.key {
        return Err(OpenError::OtherKey("log"));
    }
    // Where the seal stands and the footer does not, the old key writes that first.
    let this = Some(position.epoch).filter(|_| position.next_epoch.is_none() || !sealed);
    for epoch in this.into_iter().chain(position.next_epoch) {
        if keys.public(Role::Epoch(epoch.number))? != epoch.key {
            return Err(OpenError::OtherKey("epoch"));
        }
    }
    Ok(())
}

/// Makes what is here durable before any of it is believed: its writer may have died before its last sync, or
/// gone on behind one that failed. Then the system shows what the disk does not have, and going on behind it
/// would lose what is acknowledged from now on. A read-only segment was synced before it was made so.
fn confirm(storage: &dyn Storage) -> Result<(), OpenError> {
    storage.sync_folder("")?;
    storage.sync_folder("segments")?;
    let Some(last) = segment_numbers(storage)?.pop() else { return Ok(()) };
    match storage.open(&segment::name(last), Mode::Write) {
        Ok(mut file) => Ok(file.confirm()?),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What was cut here and is not recorded yet: now, or by a recovery that crashed before it could say so. Its
/// entries would stand where the ledger now ends, so every piece that was cut here is one.
fn unrecorded(storage: &dyn Storage, tail: &Tail) -> Result<Vec<Cut>, OpenError> {
    let mut cuts = Vec::new();
    // A cut behind a seal has the footer in its place, and is recorded in the segment after it.
    let sealed_at = match tail.segment.checked_sub(1).filter(|_| tail.frames == 0) {
        Some(before) => SegmentReader::new(storage.open(&segment::name(before), Mode::Read)?)?
            .footer_offset()?
            .map(|offset| (before, offset)),
        None => None,
    };
    for name in storage.list("quarantine")? {
        let mut parts = name.splitn(3, '-');
        let mut number = || parts.next().and_then(|digits| digits.parse::<u64>().ok());
        let (Some(segment), Some(offset)) = (number(), number()) else { continue };
        if (segment, offset) != (tail.segment, tail.offset) && Some((segment, offset)) != sealed_at {
            continue;
        }
        let quarantine = format!("quarantine/{name}");
        let bytes = read(storage, &quarantine, usize::try_from(CUT_BYTES_MAX).unwrap_or(usize::MAX))?;
        let cut = Cut::new(segment, offset, &bytes);
        if cut.quarantine == quarantine {
            cuts.push(cut);
        }
    }
    Ok(cuts)
}

/// Size and root of the published checkpoint: the tiles before it are all there. So it must be signed: what it covers is
/// not read, and never published again.
fn published(storage: &dyn Storage, manifest: &Manifest) -> Result<(u64, Digest), OpenError> {
    match standing::published(storage, manifest) {
        Ok(Some(checkpoint)) => Ok((checkpoint.size, checkpoint.root)),
        Ok(None) => Ok((0, crate::hash::empty_root())),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(OpenError::Rollback(error.to_string()))
        }
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
    /// Whether the epoch's seal was the last entry, also where only a footer told so.
    ended: bool,
    committer: Committer,
    /// Sizes and roots that were signed.
    claims: Vec<(u64, Digest)>,
}

/// Where the ledger ends.
struct End {
    segment: u64,
    offset: u64,
    frames: u64,
    /// The segment's header, where a crash came before it.
    header: Option<SegmentHeader>,
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
            authority: Authority::first(manifest),
            epoch: Epoch::first(manifest.epoch_key, 0),
            latest_ns: 0,
            next_epoch: None,
        };
        let mut walk = Walk {
            storage,
            manifest,
            position: start,
            first: 0,
            ended: false,
            committer: Committer::new(),
            claims: Vec::new(),
        };
        for number in numbers[..numbers.len() - 1].iter().rev() {
            let file = storage.open(&segment::name(*number), Mode::Read)?;
            let damaged = |why| OpenError::Damaged { segment: *number, offset: 0, why };
            let (header, footer) = ends_of(file, &manifest.origin)?
                .filter(|(header, footer)| {
                    (header.number, footer.number, header.epoch.number) == (*number, *number, footer.epoch)
                })
                .ok_or_else(|| damaged(Malformed("segment is not sealed, and another follows")))?;
            // Behind a seal the next header must be there to tell the epoch, and the last one may be torn.
            let told = !footer.ends_epoch || number + 2 < numbers.len() as u64;
            if footer.next_seq <= published && told {
                walk.ended = footer.ends_epoch;
                walk.position = after(header.epoch, footer)
                    .ok_or_else(|| damaged(Malformed("segment footer contradicts itself")))?;
                walk.first = number + 1;
                break;
            }
        }
        if walk.first == 0 {
            // Only the first header says when epoch 0 began; it may be archived, and then a later one is started from.
            let first = storage.open(&segment::name(0), Mode::Read)?;
            let header = SegmentReader::new(first)?.header()?;
            let header = header.map_err(|why| OpenError::Damaged { segment: 0, offset: 0, why })?;
            walk.position.epoch.since_ns = header.epoch.since_ns;
            walk.position.latest_ns = header.epoch.since_ns;
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
        let header = reader.header()?;
        self.pass_seal(header.as_ref().ok());
        let expected = self.position.header(number, self.manifest.genesis());
        let mut end = End { segment: number, offset: BLOCK as u64, frames: 0, header: None, sealed: false };
        match header {
            Ok(header) if header == expected => {}
            Ok(_) => return Err(damaged(0, Malformed("segment header contradicts what is before it"))),
            // A new segment's header is written together with its first frames, and a crash may have taken it and
            // left them, or the other way round. It says nothing that is not known.
            Err(_) if last => end.header = Some(expected),
            Err(why) => return Err(damaged(0, why)),
        }
        loop {
            match reader.step()? {
                Step::Frame { offset, frame } => {
                    if self.ended {
                        return Err(damaged(offset, Malformed("a frame stands behind its epoch's seal")));
                    }
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
                    match Footer::decode(bytes, offset, &self.manifest.origin, &self.position.epoch.key) {
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

    /// Begins the next epoch where this one's seal was the last entry. A footer tells only that it was; then the
    /// next segment's header tells the rest, under the certificate of this epoch's key.
    fn pass_seal(&mut self, header: Option<&SegmentHeader>) {
        let position = &mut self.position;
        if self.ended && position.next_epoch.is_none() {
            position.next_epoch = header.map(|header| header.epoch).filter(|epoch| {
                epoch.follows(&position.epoch, &self.manifest.origin)
                    && (epoch.first_seq, epoch.since_ns) == (position.next_seq, position.latest_ns)
            });
        }
        position.pass_seal();
        self.ended = false;
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), Malformed> {
        let header = &frame.header;
        if header.first_seq != self.position.next_seq
            || header.chain_in != self.position.chain
            || header.epoch != self.position.epoch.number
        {
            return Err(Malformed("frame does not follow the one before"));
        }
        if !frame.is_signed_by(&self.manifest.origin, &self.position.epoch.key) {
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
        match header.kind {
            Kind::EPOCH_SEAL => {
                position.next_epoch = Some(position.epoch.after_seal(entry, &self.manifest.origin)?);
                self.ended = true;
            }
            Kind::KEYS_CHANGED => {
                let order = Order::parse(entry.body)?;
                position.authority = position.authority.after(&order, header.time_ns, self.manifest)?;
            }
            _ => {}
        }
        position.latest_ns = position.latest_ns.max(header.time_ns);
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
            && footer.epoch == position.epoch.number
            && footer.latest_ns == position.latest_ns
            && footer.ends_epoch == self.ended
            && footer.authority == position.authority
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
        Ok(Some((Cut::new(end.segment, end.offset, &bytes), bytes)))
    }

    /// Whether anything behind this place was signed after what stands here was durable: then no crash tore it.
    /// Frames of one unfinished write may reach the disk in any order; each says how much was durable when it
    /// was signed, and only where that is no more than what is valid before the tear may it be cut with it.
    fn valid_frame_follows(&self, reader: &mut SegmentReader) -> Result<bool, OpenError> {
        let (origin, key, ends) = (&self.manifest.origin, &self.position.epoch.key, self.position.next_seq);
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

fn after(epoch: Epoch, footer: Footer) -> Option<Position> {
    let tree = Tree::from_levels(footer.next_seq, footer.levels)?;
    (tree.root() == footer.root).then_some(Position {
        chain: footer.chain,
        next_seq: footer.next_seq,
        sessions: footer.sessions,
        tree,
        authority: footer.authority,
        epoch,
        latest_ns: footer.latest_ns,
        next_epoch: None,
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
        let own = segment::name(self.segment);
        if let Some(header) = self.header {
            let mut file = storage.open(&own, Mode::Write)?;
            write_header(file.as_mut(), &header)?;
        }
        if self.sealed {
            storage.make_read_only(&own)?;
            let (number, offset) = (self.segment + 1, BLOCK as u64);
            let mut file = storage.open(&segment::name(number), Mode::Create)?;
            write_header(file.as_mut(), &position.header(number, manifest.genesis()))?;
            storage.sync_folder("segments")?;
            return Ok(Tail { segment: number, file, offset, frames: 0 });
        }
        let mut file = storage.open(&own, Mode::Write)?;
        // Also where nothing is cut: what was filled ahead is given back, and filled again when needed.
        file.set_length(self.offset)?;
        file.sync()?;
        Ok(Tail { segment: self.segment, file, offset: self.offset, frames: self.frames })
    }
}

fn write_header(file: &mut dyn File, header: &SegmentHeader) -> io::Result<()> {
    let mut block = Vec::new();
    header.encode(&mut block);
    file.write_at(0, &block)?;
    file.sync()
}

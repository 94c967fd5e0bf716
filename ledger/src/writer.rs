//! The writer: takes entries, signs them by frames, writes and syncs, and signs checkpoints.
//!
//! It is synchronous and deterministic: time, salts and keys come from outside, and the same calls give the
//! same bytes. An entry goes through three steps: [`Writer::stage`] gives it its number, [`Writer::write`]
//! hands it to the operating system, [`Writer::sync`] makes it durable. It is acknowledged after the third.
//!
//! What a newcomer gets wrong: after any failure the writer is poisoned for good. Whether bytes reached the
//! disk is then unknown, so nothing is tried again; [`Writer::open`] finds out what is there.

use std::io;
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::entry::{BODY_BYTES_MAX, HEADER_BYTES, Header, Kind, Malformed, check_canonical};
use crate::epoch::Epoch;
use crate::error::{OpenError, StageError, WriteError};
use crate::hash::{Committer, Digest, SALT_BYTES, leaf};
use crate::manifest::{self, Manifest};
use crate::merkle::{TILE_WIDTH, Tile, Tree, tile_path};
use crate::orders::{Authority, Order};
use crate::recovery::{self, Cut, Recovery};
use crate::segment::{self, Ahead, BLOCK, Footer, FrameBuilder, PAYLOAD_BYTES_MAX, SegmentHeader};
use crate::session::Sessions;
use crate::signature::{KeyError, Keys, Origin, Role};
use crate::state::{Signed, StateFile};
use crate::storage::{File, Mode, Storage};

/// What only the writer itself writes.
const OWN_KINDS: [Kind; 5] =
    [Kind::LEDGER_OPENED, Kind::CHAIN_HEAD, Kind::RECOVERY, Kind::KEYS_CHANGED, Kind::EPOCH_SEAL];

/// The name of the checkpoint's file.
pub const CHECKPOINT: &str = "checkpoint";

/// How much goes into one frame and one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A frame is finished before its entries grow beyond this; at most 1 MiB.
    pub frame_entries_bytes_max: usize,
    /// A frame is finished before its payloads grow beyond this, unless one payload alone is longer.
    pub frame_payloads_bytes_max: usize,
    /// A segment is sealed once it is this long.
    pub segment_bytes: u64,
    /// How far ahead of the writer a segment is filled with zeros; 0 for not at all.
    pub fill_bytes: u64,
    /// An epoch is over once it is this old, in nanoseconds: the shorter, the less can whoever takes the keys rewrite.
    pub epoch_ns: u64,
    /// An epoch is over once so many bytes were written in it since the ledger was opened.
    pub epoch_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            frame_entries_bytes_max: 64 * 1024,
            frame_payloads_bytes_max: 1024 * 1024,
            segment_bytes: 64 * 1024 * 1024,
            fill_bytes: 1024 * 1024,
            epoch_ns: 3600 * 1_000_000_000,
            epoch_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// Where salts come from. Each must be one that nobody can guess, or a commitment hides nothing.
pub trait Salts: Send {
    /// The next salt.
    ///
    /// # Errors
    /// Where there is no randomness.
    fn next(&mut self) -> io::Result<[u8; SALT_BYTES]>;
}

/// Salts from the operating system's generator, drawn many at a time.
pub struct SystemSalts {
    drawn: [u8; 4096],
    used: usize,
}

impl Default for SystemSalts {
    fn default() -> Self {
        SystemSalts { drawn: [0; 4096], used: 4096 }
    }
}

impl Salts for SystemSalts {
    fn next(&mut self) -> io::Result<[u8; SALT_BYTES]> {
        if self.used == self.drawn.len() {
            getrandom::fill(&mut self.drawn).map_err(|error| io::Error::other(error.to_string()))?;
            self.used = 0;
        }
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&self.drawn[self.used..self.used + SALT_BYTES]);
        self.used += SALT_BYTES;
        Ok(salt)
    }
}

impl std::fmt::Debug for SystemSalts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SystemSalts")
    }
}

/// An entry to be.
#[derive(Clone, Copy)]
pub struct Draft<'a> {
    /// What it is about.
    pub kind: Kind,
    /// When, in nanoseconds since 1970 UTC.
    pub time_ns: u64,
    /// The session that it belongs to; 0 for none.
    pub session: u64,
    /// Its body, public: canonical JSON.
    pub body: &'a [u8],
    /// Its payload, private; may be empty.
    pub payload: &'a [u8],
}

/// Where the ledger stands: all that the next entry depends on.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    pub(crate) chain: Digest,
    pub(crate) next_seq: u64,
    pub(crate) sessions: Sessions,
    pub(crate) tree: Tree,
    pub(crate) authority: Authority,
    pub(crate) epoch: Epoch,
    /// The latest time of any entry of the epoch.
    pub(crate) latest_ns: u64,
    /// The epoch after this one, where this one's seal was the last entry.
    pub(crate) next_epoch: Option<Epoch>,
}

impl Position {
    /// What the header of a segment says that begins here, behind what was sealed.
    pub(crate) fn header(&self, number: u64, genesis: Digest) -> SegmentHeader {
        let (first_seq, chain_in, epoch) = (self.next_seq, self.chain, self.epoch);
        SegmentHeader { number, first_seq, chain_in, genesis, epoch }
    }

    /// Begins the next epoch, where this one is sealed.
    pub(crate) fn pass_seal(&mut self) {
        if let Some(next) = self.next_epoch.take() {
            (self.epoch, self.latest_ns) = (next, next.since_ns);
        }
    }
}

/// Where in the segments the writer stands.
pub(crate) struct Tail {
    pub(crate) segment: u64,
    pub(crate) file: Box<dyn File>,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    /// How many frames the segment has.
    pub(crate) frames: u64,
}

/// Writes one ledger; the only writer while it lives.
pub struct Writer {
    storage: Arc<dyn Storage>,
    keys: Box<dyn Keys>,
    salts: Box<dyn Salts>,
    limits: Limits,
    manifest: Manifest,
    committer: Committer,
    position: Position,
    state: StateFile,
    /// The size of the tree that was last handed out for publication.
    published: u64,
    /// What was written stands before this.
    written: u64,
    /// What is durable stands before this.
    durable: u64,
    file: Box<dyn File>,
    /// The number of the segment that `file` is.
    file_segment: u64,
    /// Where `out` will be written in the file.
    file_offset: u64,
    /// How far the file is filled.
    filled: u64,
    /// Where the frame being built will stand, in which segment, behind how many frames.
    segment: u64,
    segment_offset: u64,
    segment_frames: u64,
    /// Finished frames, footers and segment headers, then the frame being built.
    out: Vec<u8>,
    /// Where in `out` a new segment begins.
    cuts: Vec<usize>,
    frame: FrameBuilder,
    /// When this epoch began by the clock that asks whether it is over.
    epoch_began_ns: u64,
    /// How much was written in it.
    epoch_bytes: u64,
    poisoned: bool,
    _lock: Box<dyn Send>,
}

impl Writer {
    /// Creates a ledger in a place that holds none. Its first entry is durable on return.
    ///
    /// # Errors
    /// [`OpenError::Exists`] where there is one already; others where storage or keys fail.
    pub fn create(
        storage: Arc<dyn Storage>,
        origin: &Origin,
        keys: Box<dyn Keys>,
        salts: Box<dyn Salts>,
        limits: Limits,
        now_ns: u64,
    ) -> Result<Writer, OpenError> {
        let lock = take_lock(storage.as_ref())?;
        if storage.list("")?.iter().any(|name| name == manifest::NAME) {
            return Err(OpenError::Exists);
        }
        let manifest = match keys.manifest()? {
            Some(certified) => Manifest::parse(&certified)?,
            None => Manifest::create(origin, keys.as_ref())?,
        };
        if manifest.origin != *origin {
            return Err(OpenError::Manifest(manifest::BadManifest("it was certified for another ledger")));
        }
        recovery::remove_unborn(storage.as_ref())?;
        // The manifest comes last: until it is there nothing is, and the files before it may be made anew.
        let mut header = Vec::new();
        let chain_in = manifest.genesis();
        let epoch = Epoch::first(manifest.epoch_key, now_ns);
        SegmentHeader { number: 0, first_seq: 0, chain_in, genesis: chain_in, epoch }.encode(&mut header);
        let mut file = storage.open(&segment::name(0), Mode::Create)?;
        file.write_at(0, &header)?;
        file.sync()?;
        storage.sync_folder("segments")?;
        drop(file);
        StateFile::create(storage.as_ref())?;
        storage.replace(manifest::NAME, manifest.text().as_bytes())?;
        Writer::open_locked(storage, lock, keys, salts, limits, now_ns).map(|(writer, _)| writer)
    }

    /// Opens a ledger to go on with it. Cuts off what a crash left unfinished, which was never acknowledged,
    /// keeps it in `quarantine/`, and records that.
    ///
    /// # Errors
    /// [`OpenError`]; where it is `Damaged` or `Rollback`, nothing was changed.
    pub fn open(
        storage: Arc<dyn Storage>,
        keys: Box<dyn Keys>,
        salts: Box<dyn Salts>,
        limits: Limits,
        now_ns: u64,
    ) -> Result<(Writer, Recovery), OpenError> {
        let lock = take_lock(storage.as_ref())?;
        Writer::open_locked(storage, lock, keys, salts, limits, now_ns)
    }

    fn open_locked(
        storage: Arc<dyn Storage>,
        lock: Box<dyn Send>,
        keys: Box<dyn Keys>,
        salts: Box<dyn Salts>,
        limits: Limits,
        now_ns: u64,
    ) -> Result<(Writer, Recovery), OpenError> {
        let found = recovery::recover(storage.as_ref(), keys.as_ref())?;
        let recovery::Found { manifest, position, tail, state, published, recovery, unrecorded } = found;
        let mut writer = Writer {
            keys,
            salts,
            limits,
            committer: Committer::new(),
            published,
            written: position.next_seq,
            durable: position.next_seq,
            filled: tail.file.length()?,
            file: tail.file,
            file_segment: tail.segment,
            file_offset: tail.offset,
            segment: tail.segment,
            segment_offset: tail.offset,
            segment_frames: tail.frames,
            out: Vec::new(),
            cuts: Vec::new(),
            frame: FrameBuilder::default(),
            poisoned: false,
            storage,
            manifest,
            epoch_began_ns: now_ns,
            epoch_bytes: 0,
            position,
            state,
            _lock: lock,
        };
        writer.record_opening(&unrecorded, now_ns).map_err(OpenError::from)?;
        Ok((writer, recovery))
    }

    /// The log layer's own entries: that the ledger was opened, what recovery cut.
    fn record_opening(&mut self, cuts: &[Cut], now_ns: u64) -> Result<(), WriteError> {
        if self.position.next_epoch.is_some() {
            // A crash kept a seal from its footer; nothing may come between.
            self.roll_if_full()?;
        }
        self.epoch_began_ns = self.position.epoch.since_ns.min(now_ns);
        if self.position.next_seq == 0 {
            let body =
                format!(r#"{{"format":{},"genesis":"{}"}}"#, manifest::FORMAT, self.manifest.genesis());
            self.stage_own(Kind::LEDGER_OPENED, self.position.epoch.since_ns, &body)?;
        }
        for cut in cuts {
            let body = format!(
                r#"{{"blake3":"{}","bytes":{},"offset":{},"segment":{}}}"#,
                cut.blake3, cut.bytes, cut.offset, cut.segment
            );
            self.stage_own(Kind::RECOVERY, now_ns, &body)?;
        }
        // A segment that is full already, by a crash before its footer, is sealed now.
        self.roll_if_full()?;
        while let Some(brought) = self.brought_order(now_ns)? {
            self.stage_order(brought)?;
        }
        self.write()?;
        self.sync()?;
        self.erase_old_keys(now_ns)?;
        self.rotate_if_due(now_ns).map(drop)
    }

    /// Takes the next of the root key's orders, where it was brought; durable on return. Gives whether there was one. Its keys are
    /// in force from the next entry on.
    ///
    /// # Errors
    /// [`WriteError::Key`] where the order is refused: then the writer is as it was. Any other poisons it.
    pub fn take_order(&mut self, now_ns: u64) -> Result<bool, WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        self.keys.look(Role::Log(self.position.authority.orders + 1))?;
        let Some(brought) = self.brought_order(now_ns)? else { return Ok(false) };
        self.guarded(|writer| writer.stage_order(brought))?;
        self.write()?;
        self.sync()?;
        self.guarded(|writer| Ok(writer.erase_old_keys(now_ns)?))?;
        Ok(true)
    }

    fn stage_order(&mut self, (time_ns, order, next): (u64, Order, Authority)) -> Result<(), WriteError> {
        self.stage_own(Kind::KEYS_CHANGED, time_ns, &order.body())?;
        self.position.authority = next;
        Ok(())
    }

    /// The next order, where it was brought: when it is taken, as it is taken, and what holds behind it.
    fn brought_order(&self, now_ns: u64) -> Result<Option<(u64, Order, Authority)>, KeyError> {
        let (authority, manifest) = (self.position.authority, &self.manifest);
        let number = authority.orders + 1;
        let Some(body) = self.keys.order(number)? else { return Ok(None) };
        let refused = |why: &dyn std::fmt::Display| KeyError::Unusable(format!("order {number}: {why}"));
        let order = Order::parse(&body).map_err(|why| refused(&why))?;
        authority.admits(&order, &manifest.origin).map_err(|why| refused(&why))?;
        let order = order.taken(&authority, manifest, self.keys.as_ref()).map_err(|why| refused(&why))?;
        let time_ns = now_ns.max(self.position.epoch.since_ns);
        let next = authority.after(&order, time_ns, manifest).map_err(|why| refused(&why))?;
        Ok(Some((time_ns, order, next)))
    }

    /// Erases the keys whose time is over: of sealed epochs, of one that was drawn and never came to be, and log
    /// keys that were replaced. If we stop before, the next opening erases them.
    fn erase_old_keys(&mut self, now_ns: u64) -> Result<(), KeyError> {
        let (epoch, log) = (self.position.epoch.number, self.position.authority.log.number);
        let signers: Vec<u32> = self.position.authority.signers(now_ns).map(|key| key.number).collect();
        for role in self.keys.held() {
            let over = match role {
                Role::Epoch(number) => number != epoch,
                // A later number is one that the next order will bring.
                Role::Log(number) => number < log && !signers.contains(&number),
                Role::Root(_) => false,
            };
            if over {
                self.keys.erase(role)?;
            }
        }
        Ok(())
    }

    /// Ends the epoch where it is old or long enough. Gives whether it did.
    ///
    /// # Errors
    /// As [`Writer::rotate`].
    pub fn rotate_if_due(&mut self, now_ns: u64) -> Result<bool, WriteError> {
        let due = now_ns.abs_diff(self.epoch_began_ns) >= self.limits.epoch_ns
            || self.epoch_bytes >= self.limits.epoch_bytes;
        if due {
            self.rotate(now_ns)?;
        }
        Ok(due)
    }

    /// Ends the epoch, also an empty one: draws the next key, seals this epoch with it, and erases this epoch's key.
    /// All that was staged before is durable on return.
    ///
    /// # Errors
    /// [`WriteError`]; then the writer is poisoned, and opening again finishes what was begun.
    pub fn rotate(&mut self, now_ns: u64) -> Result<(), WriteError> {
        self.guarded(|writer| writer.change_epoch(now_ns))
    }

    fn change_epoch(&mut self, now_ns: u64) -> Result<(), WriteError> {
        self.write_staged()?;
        // If we stop behind this, opening erases the key that was drawn, and the epoch goes on.
        let key = self.keys.draw(Role::Epoch(self.position.epoch.number + 1))?;
        let (first_seq, since_ns) = (self.position.next_seq + 1, now_ns.max(self.position.latest_ns));
        let (origin, keys) = (&self.manifest.origin, self.keys.as_ref());
        let next = self.position.epoch.certify_next(origin, keys, key, first_seq, since_ns)?;
        self.stage_own(Kind::EPOCH_SEAL, since_ns, &next.seal())?;
        self.position.next_epoch = Some(next);
        // If we stop within this, the seal is either cut with what is torn, or stands; then opening writes the
        // footer that may be missing, for which the old key is still here.
        self.write_staged()?;
        self.file.sync()?;
        self.durable = self.written;
        (self.epoch_began_ns, self.epoch_bytes) = (now_ns, 0);
        Ok(self.erase_old_keys(now_ns)?)
    }

    /// An entry of the log layer's own.
    fn stage_own(&mut self, kind: Kind, time_ns: u64, body: &str) -> Result<u64, WriteError> {
        let draft = Draft { kind, time_ns, session: 0, body: body.as_bytes(), payload: b"" };
        check_canonical(draft.body).map_err(StageError::from)?;
        self.stage_placed(&draft, 0, Digest::ZERO)
    }

    /// What the ledger is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The number of the next entry: how many there are, with those that are only staged.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.position.next_seq
    }

    /// The number of the segment that the next entry goes to.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// The chain's value behind what was written; what is only staged is not in it.
    #[must_use]
    pub fn chain(&self) -> Digest {
        self.position.chain
    }

    /// The epoch that the next entry belongs to.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.position.epoch
    }

    /// Which root and log keys are in force.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.position.authority
    }

    /// How many entries are durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The number that the next session takes. The entry of kind [`Kind::SESSION_OPENED`] that carries it
    /// takes it; until then this stays the same.
    #[must_use]
    pub fn next_session(&self) -> u64 {
        self.position.sessions.next
    }

    /// How many entries an open session has so far, with those that are only staged; none where it is not open.
    #[must_use]
    pub fn session_entries(&self, session: u64) -> Option<u64> {
        self.position.sessions.open.get(&session).map(|link| link.entries)
    }

    /// The open sessions, sorted.
    #[must_use]
    pub fn open_sessions(&self) -> Vec<u64> {
        self.position.sessions.open_numbers()
    }

    /// Whether it has failed, so that it takes nothing more.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Takes an entry and gives it its number, in memory alone. A time before the epoch's beginning becomes that.
    ///
    /// # Errors
    /// [`StageError`]; unless it is `Poisoned`, the writer is as it was before.
    pub fn stage(&mut self, draft: &Draft<'_>) -> Result<u64, StageError> {
        if self.poisoned {
            return Err(StageError::Poisoned);
        }
        if draft.body.len() > BODY_BYTES_MAX {
            return Err(StageError::BodyTooLong(draft.body.len()));
        }
        if draft.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(StageError::PayloadTooLong(draft.payload.len()));
        }
        check_canonical(draft.body)?;
        if OWN_KINDS.contains(&draft.kind) {
            return Err(Malformed("the writer itself writes entries of this kind").into());
        }
        let (session_seq, prev_in_session) = self.position.sessions.place(draft.kind, draft.session)?;
        self.stage_placed(draft, session_seq, prev_in_session).map_err(|_| {
            self.poisoned = true;
            StageError::Poisoned
        })
    }

    fn stage_placed(
        &mut self,
        draft: &Draft<'_>,
        session_seq: u64,
        prev_in_session: Digest,
    ) -> Result<u64, WriteError> {
        let salt = self.salts.next()?;
        let entry_length = HEADER_BYTES + draft.body.len();
        if !self.frame.is_empty() && !self.fits(2 + entry_length, SALT_BYTES + draft.payload.len()) {
            self.finish_frame()?;
        }
        if self.frame.is_empty() {
            self.frame.begin(&mut self.out);
        }
        let header = Header {
            kind: draft.kind,
            encrypted: false,
            epoch: self.position.epoch.number,
            seq: self.position.next_seq,
            time_ns: draft.time_ns.max(self.position.epoch.since_ns),
            session: draft.session,
            session_seq,
            prev_in_session,
            payload_commit: self.committer.commit(&salt, draft.payload),
        };
        let prefix = u16::try_from(entry_length).unwrap_or(u16::MAX);
        self.out.extend_from_slice(&prefix.to_be_bytes());
        let start = self.out.len();
        header.encode(&mut self.out);
        self.out.extend_from_slice(draft.body);
        let leaf = leaf(&self.out[start..]);
        self.frame.add(&salt, draft.payload);
        self.position.tree.push(leaf);
        self.position.sessions.take(draft.kind, draft.session, leaf);
        self.position.next_seq += 1;
        self.position.latest_ns = self.position.latest_ns.max(header.time_ns);
        Ok(header.seq)
    }

    fn fits(&self, entry_bytes: usize, payload_bytes: usize) -> bool {
        self.frame.entries_length(&self.out) + entry_bytes <= self.limits.frame_entries_bytes_max
            && self.frame.payloads_length() + payload_bytes <= self.limits.frame_payloads_bytes_max
    }

    /// Signs the frame being built, and seals the segment behind it when that is full.
    fn finish_frame(&mut self) -> Result<(), KeyError> {
        let start = self.out.len() - self.frame.entries_length(&self.out) - segment::FRAME_HEADER_BYTES;
        let first_seq = self.position.next_seq - u64::from(self.frame.count());
        let (chain_in, origin) = (self.position.chain, &self.manifest.origin);
        self.position.chain = self.frame.finish(
            &mut self.out,
            Ahead { chain_in, first_seq, durable: self.durable, epoch: self.position.epoch.number },
            origin,
            self.keys.as_ref(),
        )?;
        self.segment_offset += (self.out.len() - start) as u64;
        self.epoch_bytes += (self.out.len() - start) as u64;
        self.segment_frames += 1;
        self.roll_if_full()
    }

    /// Ends the segment, where it is full or its epoch is sealed, and begins the next one, both in the buffer.
    /// No frame may be unfinished.
    fn roll_if_full(&mut self) -> Result<(), KeyError> {
        let ends_epoch = self.position.next_epoch.is_some();
        let full = self.segment_offset >= self.limits.segment_bytes || ends_epoch;
        if !full || !self.frame.is_empty() {
            return Ok(());
        }
        let footer = Footer {
            number: self.segment,
            epoch: self.position.epoch.number,
            next_seq: self.position.next_seq,
            frames: self.segment_frames,
            durable: self.durable,
            latest_ns: self.position.latest_ns,
            ends_epoch,
            authority: self.position.authority,
            chain: self.position.chain,
            root: self.position.tree.root(),
            levels: self.position.tree.levels().to_vec(),
            sessions: self.position.sessions.clone(),
        };
        footer.encode(self.segment_offset, &self.manifest.origin, self.keys.as_ref(), &mut self.out)?;
        self.cuts.push(self.out.len());
        self.segment += 1;
        self.segment_offset = BLOCK as u64;
        self.segment_frames = 0;
        self.position.pass_seal();
        self.position.header(self.segment, self.manifest.genesis()).encode(&mut self.out);
        Ok(())
    }

    /// Hands all that is staged to the operating system, with one write a segment.
    ///
    /// # Errors
    /// [`WriteError`]; then the writer is poisoned.
    pub fn write(&mut self) -> Result<(), WriteError> {
        self.guarded(Writer::write_staged)
    }

    fn write_staged(&mut self) -> Result<(), WriteError> {
        if !self.frame.is_empty() {
            self.finish_frame()?;
        }
        let out = std::mem::take(&mut self.out);
        let mut start = 0;
        for cut in std::mem::take(&mut self.cuts) {
            self.write_part(&out[start..cut], false)?;
            self.change_segment()?;
            start = cut;
        }
        self.write_part(&out[start..], true)?;
        self.out = out;
        self.out.clear();
        // A payload of 64 MiB must not keep its room for ever.
        self.out.shrink_to(4 * segment::FRAME_ENTRIES_BYTES_MAX);
        self.written = self.position.next_seq;
        Ok(())
    }

    fn write_part(&mut self, bytes: &[u8], more_follows: bool) -> Result<(), WriteError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = self.file_offset + bytes.len() as u64;
        if more_follows && end > self.filled && self.limits.fill_bytes > 0 {
            // Zeros ahead of the frames: the next syncs then change no length and no extent. If we stop
            // between the two writes, recovery finds zeros where no frame is, and that is an open segment's end.
            let filled = end.next_multiple_of(self.limits.fill_bytes);
            let zeros = vec![0; usize::try_from(filled - end).unwrap_or(0)];
            if !zeros.is_empty() {
                self.file.write_at(end, &zeros)?;
            }
            self.filled = filled;
        }
        self.file.write_at(self.file_offset, bytes)?;
        self.file_offset = end;
        Ok(())
    }

    /// Makes the sealed segment durable before its successor exists, so that only the last one can be torn.
    fn change_segment(&mut self) -> Result<(), WriteError> {
        if self.filled > self.file_offset {
            self.file.set_length(self.file_offset)?;
        }
        self.file.sync()?;
        self.storage.make_read_only(&segment::name(self.file_segment))?;
        self.file_segment += 1;
        self.file = self.storage.open(&segment::name(self.file_segment), Mode::Create)?;
        self.storage.sync_folder("segments")?;
        (self.file_offset, self.filled) = (0, 0);
        Ok(())
    }

    /// Makes all that was written durable. On return it may be acknowledged: every entry before the number given.
    ///
    /// # Errors
    /// [`WriteError`]; then the writer is poisoned.
    pub fn sync(&mut self) -> Result<u64, WriteError> {
        self.guarded(|writer| Ok(writer.file.sync()?))?;
        self.durable = self.written;
        Ok(self.durable)
    }

    /// Signs a checkpoint over everything so far, after a `chain.head` entry that binds the chain into the
    /// tree, and makes it durable in the state file. None where nothing was added since the last one.
    ///
    /// What it gives is stored by [`Publication::store`], on any thread: tiles and checkpoint are derived,
    /// and nobody waits for them.
    ///
    /// # Errors
    /// [`WriteError`]; then the writer is poisoned.
    pub fn publish(&mut self, now_ns: u64) -> Result<Option<Publication>, WriteError> {
        if self.position.next_seq == self.published && !self.poisoned {
            return Ok(None);
        }
        self.guarded(|writer| writer.publish_all(now_ns)).map(Some)
    }

    fn publish_all(&mut self, now_ns: u64) -> Result<Publication, WriteError> {
        self.write_staged()?;
        let body = format!(r#"{{"chain":"{}"}}"#, self.position.chain);
        self.stage_own(Kind::CHAIN_HEAD, now_ns, &body)?;
        self.write_staged()?;
        self.file.sync()?;
        self.durable = self.written;
        let checkpoint = Checkpoint {
            origin: self.manifest.origin.clone(),
            size: self.position.next_seq,
            root: self.position.tree.root(),
        };
        // The state goes first: if we stop between, a checkpoint was counted that nobody saw. The other way
        // round, one could be seen that recovery does not know to protect.
        self.state.advance(Signed {
            generation: self.state.newest().generation + 1,
            size: checkpoint.size,
            root: checkpoint.root,
            chain: self.position.chain,
            time_ns: now_ns,
            epoch: self.position.epoch.number,
        })?;
        let (in_force, keys) = (self.position.authority.log.number, self.keys.as_ref());
        let logs = self.position.authority.signers(now_ns).map(|key| key.number);
        // A clock that ran ahead may have had the retiring key erased; its line is a service, and nobody insists on it.
        let logs = logs.map(|number| (number, Role::Log(number)));
        let held = logs.filter(|(number, role)| *number == in_force || keys.public(*role).is_ok());
        let epoch = Role::Epoch(self.position.epoch.number);
        let signers: Vec<Role> = held.map(|(_, role)| role).chain([epoch]).collect();
        let note = checkpoint.sign(self.keys.as_ref(), &signers)?;
        self.published = checkpoint.size;
        let (full, partial) = (self.position.tree.take_full(), self.position.tree.partial());
        Ok(Publication { checkpoint, note, full, partial })
    }

    /// Publishes what is left, and gives the segment's unused room back.
    ///
    /// # Errors
    /// [`WriteError`]; then what was acknowledged is there, and opening again recovers the rest.
    pub fn close(mut self, now_ns: u64) -> Result<(), WriteError> {
        self.write()?;
        self.sync()?;
        if let Some(publication) = self.publish(now_ns)? {
            publication.store(self.storage.as_ref())?;
        }
        if self.filled > self.file_offset {
            self.file.set_length(self.file_offset)?;
            self.file.sync()?;
        }
        Ok(())
    }

    /// Runs a step that leaves the storage unknown where it fails.
    fn guarded<T>(
        &mut self,
        step: impl FnOnce(&mut Writer) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let result = step(self);
        self.poisoned = result.is_err();
        result
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("origin", &self.manifest.origin)
            .field("next_seq", &self.position.next_seq)
            .field("durable", &self.durable)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

fn take_lock(storage: &dyn Storage) -> Result<Box<dyn Send>, OpenError> {
    storage.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked,
        _ => OpenError::Storage(error),
    })
}

/// A signed checkpoint with the tiles that it needs, to be stored off the writer's path, in order.
#[derive(Debug, Clone)]
pub struct Publication {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// The signed note.
    pub note: String,
    full: Vec<Tile>,
    partial: Vec<Tile>,
}

impl Publication {
    /// Stores tiles, then the checkpoint that needs them, then removes partial tiles that nobody needs.
    ///
    /// # Errors
    /// Of the storage. Nothing is lost then: opening the ledger again makes the tiles anew.
    pub fn store(&self, storage: &dyn Storage) -> io::Result<()> {
        for tile in self.full.iter().chain(&self.partial) {
            storage.replace(&tile.path(), &tile.bytes())?;
        }
        storage.replace(CHECKPOINT, self.note.as_bytes())?;
        // A reader may have just read the checkpoint before this one: its partial tile stays a while longer.
        self.full.iter().try_for_each(|tile| prune(storage, tile, 0))?;
        self.partial.iter().try_for_each(|tile| prune(storage, tile, 2))
    }
}

fn prune(storage: &dyn Storage, tile: &Tile, keep: usize) -> io::Result<()> {
    let folder = format!("{}.p", tile_path(&tile.level.to_string(), tile.index, TILE_WIDTH));
    let mut widths: Vec<usize> = storage.list(&folder)?.iter().filter_map(|name| name.parse().ok()).collect();
    widths.sort_unstable();
    widths.truncate(widths.len().saturating_sub(keep));
    widths.iter().try_for_each(|width| storage.remove(&format!("{folder}/{width}")))
}

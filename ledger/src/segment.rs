//! Segment files: a header block, frames, and a footer when sealed. All parts begin at multiples of 4,096.
//!
//! A frame holds entries, and after its checksum their payloads, each behind its salt. The chain covers the
//! entries and the payloads' lengths; the payloads themselves are covered by the entries' commitments alone,
//! so that they can be redacted in place while chain, signatures and tree stay as they are.
//!
//! What a newcomer gets wrong: an open segment is longer than what was written to it. It is filled with zeros
//! ahead of the writer, because a sync that has to grow a file costs twice one that does not.

use std::io;

use crate::entry::{Entry, Malformed, array};
use crate::epoch::{EPOCH_BYTES, Epoch};
use crate::hash::{self, Committer, Digest, SALT_BYTES};
use crate::orders::Authority;
use crate::session::{Link, Sessions};
use crate::signature::{KeyError, Keys, Origin, PublicKey, Role, Signature, Use, message};
use crate::storage::{File, read_full};

/// What everything in a segment is aligned to.
pub const BLOCK: usize = 4096;
/// The longest region of entries in a frame.
pub const FRAME_ENTRIES_BYTES_MAX: usize = 1024 * 1024;
/// The longest payload of one entry.
pub const PAYLOAD_BYTES_MAX: usize = 96 * 1024 * 1024;
/// The longest region of payloads in a frame.
pub const FRAME_PAYLOADS_BYTES_MAX: usize = 128 * 1024 * 1024;
/// The longest footer: room for a million open sessions.
pub const FOOTER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The length of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 76;
/// The length of what follows a frame's entries and lengths: chain, signature, checksum.
pub const FRAME_TRAILER_BYTES: usize = 100;

const FRAME_MAGIC: &[u8; 8] = b"GBFRAME1";
const SEGMENT_MAGIC: &[u8; 8] = b"GBSEGM01";
const FOOTER_MAGIC: &[u8; 8] = b"GBFOOT01";
const SEALED_MAGIC: &[u8; 8] = b"GBSEALED";
const SEGMENT_HEADER_BYTES: usize = 88 + EPOCH_BYTES + 4;
const FOOTER_FIXED_BYTES: usize = 16;
const READ_AHEAD: usize = 256 * 1024;

/// The name of a segment's file.
#[must_use]
pub fn name(number: u64) -> String {
    format!("segments/{number:08}.seg")
}

/// The number in a segment's file name, without its folder; none for any other name.
#[must_use]
pub fn number_of(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".seg")?;
    let number = digits.parse().ok()?;
    (format!("{number:08}") == digits).then_some(number)
}

/// The next multiple of a block.
#[must_use]
pub fn padded(length: usize) -> usize {
    length.next_multiple_of(BLOCK)
}

/// The first block of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The segment's number, as in its name.
    pub number: u64,
    /// The number of its first entry.
    pub first_seq: u64,
    /// The chain's value before its first frame.
    pub chain_in: Digest,
    /// The chain's value before the first frame of the ledger.
    pub genesis: Digest,
    /// The epoch that it belongs to.
    pub epoch: Epoch,
}

impl SegmentHeader {
    /// Writes the block.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(SEGMENT_MAGIC);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.first_seq.to_be_bytes());
        out.extend_from_slice(&self.chain_in.0);
        out.extend_from_slice(&self.genesis.0);
        self.epoch.encode(out);
        let sum = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&sum.to_be_bytes());
        out.resize(start + BLOCK, 0);
    }

    /// Reads the block.
    ///
    /// # Errors
    /// [`Malformed`] where any byte of it is wrong.
    pub fn decode(block: &[u8]) -> Result<SegmentHeader, Malformed> {
        if block.len() < BLOCK || &block[..8] != SEGMENT_MAGIC {
            return Err(Malformed("segment has no header"));
        }
        let sum_at = SEGMENT_HEADER_BYTES - 4;
        if crc32c::crc32c(&block[..sum_at]).to_be_bytes() != block[sum_at..SEGMENT_HEADER_BYTES]
            || !all_zero(&block[SEGMENT_HEADER_BYTES..BLOCK])
        {
            return Err(Malformed("segment header does not match its checksum"));
        }
        Ok(SegmentHeader {
            number: u64::from_be_bytes(array(&block[8..16])),
            first_seq: u64::from_be_bytes(array(&block[16..24])),
            chain_in: Digest(array(&block[24..56])),
            genesis: Digest(array(&block[56..88])),
            epoch: Epoch::decode(&array(&block[88..sum_at]))
                .ok_or(Malformed("segment header holds a key that is none"))?,
        })
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The length of the entries with their length prefixes.
    pub entries_length: u32,
    /// The length of the payloads with their salts.
    pub payloads_length: u32,
    /// How many entries.
    pub count: u32,
    /// The epoch whose key signs it.
    pub epoch: u32,
    /// The number of its first entry.
    pub first_seq: u64,
    /// How many entries were durable when it was signed. Where a frame is torn and this one behind it is not,
    /// it tells whether both may be of one unfinished write.
    pub durable: u64,
    /// The chain's value before it.
    pub chain_in: Digest,
}

impl FrameHeader {
    fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..8].copy_from_slice(FRAME_MAGIC);
        bytes[8..12].copy_from_slice(&self.entries_length.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.payloads_length.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.count.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.first_seq.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.durable.to_be_bytes());
        bytes[40..72].copy_from_slice(&self.chain_in.0);
        let sum = crc32c::crc32c(&bytes[..72]);
        bytes[72..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<FrameHeader, Malformed> {
        if bytes.len() < FRAME_HEADER_BYTES || &bytes[..8] != FRAME_MAGIC {
            return Err(Malformed("no frame begins here"));
        }
        // Checked for itself: whether a frame is torn is told by its length, which must then be believed.
        if crc32c::crc32c(&bytes[..72]).to_be_bytes() != bytes[72..76] {
            return Err(Malformed("frame header does not match its checksum"));
        }
        let header = FrameHeader {
            entries_length: u32::from_be_bytes(array(&bytes[8..12])),
            payloads_length: u32::from_be_bytes(array(&bytes[12..16])),
            count: u32::from_be_bytes(array(&bytes[16..20])),
            epoch: u32::from_be_bytes(array(&bytes[20..24])),
            first_seq: u64::from_be_bytes(array(&bytes[24..32])),
            durable: u64::from_be_bytes(array(&bytes[32..40])),
            chain_in: Digest(array(&bytes[40..72])),
        };
        let entry_least = 2 + crate::entry::HEADER_BYTES;
        let count = header.count as usize;
        if count == 0
            || header.entries_length as usize > FRAME_ENTRIES_BYTES_MAX
            || header.payloads_length as usize > FRAME_PAYLOADS_BYTES_MAX
            || count * entry_least > header.entries_length as usize
            || count * SALT_BYTES > header.payloads_length as usize
        {
            return Err(Malformed("frame header has impossible lengths"));
        }
        Ok(header)
    }

    /// How much of the frame the chain covers: header, entries, lengths.
    fn signed_length(&self) -> usize {
        FRAME_HEADER_BYTES + self.entries_length as usize + 4 * self.count as usize
    }

    fn payloads_at(&self) -> usize {
        self.signed_length() + FRAME_TRAILER_BYTES
    }

    /// The frame's length without padding.
    #[must_use]
    pub fn length(&self) -> usize {
        self.payloads_at() + self.payloads_length as usize
    }
}

/// What a frame says of everything before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) chain_in: Digest,
    pub(crate) first_seq: u64,
    pub(crate) durable: u64,
    pub(crate) epoch: u32,
}

/// A frame that is being built, at the end of a buffer. Its entries stand there already, after room for the header.
#[derive(Debug, Default)]
pub(crate) struct FrameBuilder {
    start: usize,
    count: u32,
    lengths: Vec<u8>,
    payloads: Vec<u8>,
}

impl FrameBuilder {
    /// Begins a frame at the end of `out`.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        self.start = out.len();
        out.resize(self.start + FRAME_HEADER_BYTES, 0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The length of the entries so far.
    pub(crate) fn entries_length(&self, out: &[u8]) -> usize {
        out.len() - self.start - FRAME_HEADER_BYTES
    }

    pub(crate) fn payloads_length(&self) -> usize {
        self.payloads.len()
    }

    /// Counts an entry that was just written to the buffer, and takes its payload.
    pub(crate) fn add(&mut self, salt: &[u8; SALT_BYTES], payload: &[u8]) {
        self.count += 1;
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.lengths.extend_from_slice(&length.to_be_bytes());
        self.payloads.extend_from_slice(salt);
        self.payloads.extend_from_slice(payload);
    }

    /// Finishes the frame; gives the chain's next value.
    pub(crate) fn finish(
        &mut self,
        out: &mut Vec<u8>,
        ahead: Ahead,
        origin: &Origin,
        keys: &dyn Keys,
    ) -> Result<Digest, KeyError> {
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ahead { chain_in, first_seq, durable, epoch } = ahead;
        let header = FrameHeader {
            entries_length: length(self.entries_length(out)),
            payloads_length: length(self.payloads.len()),
            count: self.count,
            epoch,
            first_seq,
            durable,
            chain_in,
        };
        out[self.start..self.start + FRAME_HEADER_BYTES].copy_from_slice(&header.encode());
        out.extend_from_slice(&self.lengths);
        let chain_out = hash::frame(&out[self.start..]);
        let signature = keys.sign(Role::Epoch(epoch), &message(Use::Frame, origin, epoch, &chain_out.0))?;
        out.extend_from_slice(&chain_out.0);
        out.extend_from_slice(&signature);
        let sum = crc32c::crc32c(&out[self.start..]);
        out.extend_from_slice(&sum.to_be_bytes());
        out.extend_from_slice(&self.payloads);
        let end = self.start + padded(out.len() - self.start);
        out.resize(end, 0);
        self.count = 0;
        self.lengths.clear();
        self.payloads.clear();
        // A payload of 64 MiB must not keep its room for ever.
        self.payloads.shrink_to(4 * FRAME_ENTRIES_BYTES_MAX);
        Ok(hash::link(&chain_out, &signature))
    }
}

/// A frame as it is stored, its checksum, chain value and layout checked; its signature and payloads not yet.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its header.
    pub header: FrameHeader,
    bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a frame from its bytes with their padding.
    ///
    /// # Errors
    /// [`Malformed`] where any byte but a payload's is wrong.
    pub fn decode(bytes: &'a [u8]) -> Result<Frame<'a>, Malformed> {
        let header = FrameHeader::decode(bytes)?;
        let (signed, length) = (header.signed_length(), header.length());
        if bytes.len() < padded(length) {
            return Err(Malformed("frame is cut off"));
        }
        let sum_at = header.payloads_at() - 4;
        if crc32c::crc32c(&bytes[..sum_at]).to_be_bytes() != bytes[sum_at..sum_at + 4] {
            return Err(Malformed("frame does not match its checksum"));
        }
        if !all_zero(&bytes[length..padded(length)]) {
            return Err(Malformed("frame's padding is not zero"));
        }
        if hash::frame(&bytes[..signed]).0 != bytes[signed..signed + 32] {
            return Err(Malformed("frame does not match its chain value"));
        }
        let frame = Frame { header, bytes: &bytes[..length] };
        frame.check_layout()?;
        Ok(frame)
    }

    fn check_layout(&self) -> Result<(), Malformed> {
        let entries =
            &self.bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.header.entries_length as usize];
        let mut at = 0;
        for _ in 0..self.header.count {
            let Some(prefix) = entries.get(at..at + 2) else {
                return Err(Malformed("frame holds fewer entries than it says"));
            };
            at += 2 + usize::from(u16::from_be_bytes(array(prefix)));
        }
        if at != entries.len() {
            return Err(Malformed("frame's entries have another length than it says"));
        }
        let payloads: u64 = self.lengths().map(|length| u64::from(length) + SALT_BYTES as u64).sum();
        if payloads == u64::from(self.header.payloads_length) {
            Ok(())
        } else {
            Err(Malformed("frame's payloads have another length than it says"))
        }
    }

    fn lengths(&self) -> impl Iterator<Item = u32> + use<'a> {
        let table = &self.bytes
            [FRAME_HEADER_BYTES + self.header.entries_length as usize..self.header.signed_length()];
        table.chunks_exact(4).map(|length| u32::from_be_bytes(array(length)))
    }

    /// The chain's value that the frame signs.
    #[must_use]
    pub fn chain_out(&self) -> Digest {
        let at = self.header.signed_length();
        Digest(array(&self.bytes[at..at + 32]))
    }

    fn signature(&self) -> Signature {
        let at = self.header.signed_length() + 32;
        array(&self.bytes[at..at + 64])
    }

    /// What the next frame must have as its `chain_in`.
    #[must_use]
    pub fn chain_next(&self) -> Digest {
        hash::link(&self.chain_out(), &self.signature())
    }

    /// Whether the key of its epoch signed it.
    #[must_use]
    pub fn is_signed_by(&self, origin: &Origin, key: &PublicKey) -> bool {
        key.verifies(&message(Use::Frame, origin, self.header.epoch, &self.chain_out().0), &self.signature())
    }

    /// The entries' bytes with their length prefixes: just as a tlog-tiles bundle holds them.
    #[must_use]
    pub fn bundle(&self) -> &'a [u8] {
        &self.bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.header.entries_length as usize]
    }

    /// Its entries in order, each with its salt and payload.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let mut entries = self.bundle();
        let mut payloads = &self.bytes[self.header.payloads_at()..];
        self.lengths().map(move |length| {
            let (prefix, rest) = entries.split_at(2);
            let (entry, rest) = rest.split_at(usize::from(u16::from_be_bytes(array(prefix))));
            entries = rest;
            let (salt, rest) = payloads.split_at(SALT_BYTES);
            let (payload, rest) = rest.split_at(length as usize);
            payloads = rest;
            Record { entry, salt: array(salt), payload }
        })
    }
}

/// An entry's bytes with its salt and payload.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The entry's bytes.
    pub entry: &'a [u8],
    /// The payload's salt.
    pub salt: [u8; SALT_BYTES],
    /// The payload.
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// Whether the payload is the one that the entry commits to.
    #[must_use]
    pub fn payload_matches(&self, entry: &Entry<'_>, committer: &mut Committer) -> bool {
        committer.commit(&self.salt, self.payload) == entry.header.payload_commit
    }
}

/// The end of a sealed segment: all that is needed to go on after it, signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The segment's number.
    pub number: u64,
    /// The epoch whose key signs it.
    pub epoch: u32,
    /// The number of the next entry.
    pub next_seq: u64,
    /// How many frames the segment has.
    pub frames: u64,
    /// How many entries were durable when it was signed.
    pub durable: u64,
    /// The latest time of any entry of the epoch so far; when the epoch began, where it has none.
    pub latest_ns: u64,
    /// Whether its last entry is its epoch's seal.
    pub ends_epoch: bool,
    /// The chain's value after its last frame.
    pub chain: Digest,
    /// The root of the tree over all entries so far.
    pub root: Digest,
    /// Which root and log keys are in force.
    pub authority: Authority,
    /// The partial tile of each level of the tree.
    pub levels: Vec<Vec<Digest>>,
    /// The sessions that are open.
    pub sessions: Sessions,
}

impl Footer {
    /// Writes and signs it.
    ///
    /// # Errors
    /// [`KeyError`] where the epoch key does not sign.
    pub fn encode(
        &self,
        offset: u64,
        origin: &Origin,
        keys: &dyn Keys,
        out: &mut Vec<u8>,
    ) -> Result<(), KeyError> {
        let start = out.len();
        out.extend_from_slice(FOOTER_MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        let Footer { number, next_seq, frames, durable, latest_ns, .. } = *self;
        for number in [number, next_seq, frames, durable, self.sessions.next, latest_ns] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.push(u8::from(self.ends_epoch));
        out.extend_from_slice(&self.chain.0);
        out.extend_from_slice(&self.root.0);
        self.authority.encode(out);
        out.push(u8::try_from(self.levels.len()).unwrap_or(u8::MAX));
        for level in &self.levels {
            out.push(u8::try_from(level.len()).unwrap_or(u8::MAX));
            level.iter().for_each(|hash| out.extend_from_slice(&hash.0));
        }
        let open = self.sessions.open_numbers();
        out.extend_from_slice(&u32::try_from(open.len()).unwrap_or(u32::MAX).to_be_bytes());
        for number in open {
            let link = &self.sessions.open[&number];
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&link.entries.to_be_bytes());
            out.extend_from_slice(&link.last.0);
        }
        let body = u32::try_from(out.len() - start - FOOTER_FIXED_BYTES).unwrap_or(u32::MAX);
        out[start + 8..start + 12].copy_from_slice(&body.to_be_bytes());
        let signature =
            keys.sign(Role::Epoch(self.epoch), &message(Use::Seal, origin, self.epoch, &out[start..]))?;
        out.extend_from_slice(&signature);
        let sum = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&sum.to_be_bytes());
        out.resize(start + padded(out.len() - start + 16) - 16, 0);
        out.extend_from_slice(&offset.to_be_bytes());
        out.extend_from_slice(SEALED_MAGIC);
        Ok(())
    }

    /// Reads it from all its bytes, up to the end of the file, and checks its signature.
    ///
    /// # Errors
    /// [`Malformed`] where any byte is wrong.
    pub fn decode(bytes: &[u8], offset: u64, origin: &Origin, key: &PublicKey) -> Result<Footer, Malformed> {
        const WRONG: Malformed = Malformed("segment footer has impossible lengths");
        if bytes.len() < BLOCK || &bytes[..8] != FOOTER_MAGIC {
            return Err(Malformed("no segment footer begins here"));
        }
        let body = u32::from_be_bytes(array(&bytes[8..12])) as usize;
        let signed = FOOTER_FIXED_BYTES + body;
        let end = signed + 68;
        if body > FOOTER_BYTES_MAX || bytes.len() != padded(end + 16) {
            return Err(WRONG);
        }
        if crc32c::crc32c(&bytes[..end - 4]).to_be_bytes() != bytes[end - 4..end] {
            return Err(Malformed("segment footer does not match its checksum"));
        }
        let tail = bytes.len() - 16;
        if !all_zero(&bytes[end..tail])
            || bytes[tail..tail + 8] != offset.to_be_bytes()
            || &bytes[tail + 8..] != SEALED_MAGIC
        {
            return Err(Malformed("segment does not end as a sealed one"));
        }
        let epoch = u32::from_be_bytes(array(&bytes[12..16]));
        if !key.verifies(
            &message(Use::Seal, origin, epoch, &bytes[..signed]),
            &array(&bytes[signed..signed + 64]),
        ) {
            return Err(Malformed("segment footer is not signed by its epoch"));
        }
        let mut rest = Fields(&bytes[FOOTER_FIXED_BYTES..signed]);
        let mut number = || rest.number().ok_or(WRONG);
        let (segment, next_seq, frames, durable, next_session, latest_ns) =
            (number()?, number()?, number()?, number()?, number()?, number()?);
        let ends_epoch = match rest.take() {
            Some([flag @ 0..=1]) => flag == 1,
            _ => return Err(WRONG),
        };
        let (chain, root) = (rest.digest().ok_or(WRONG)?, rest.digest().ok_or(WRONG)?);
        let authority = Authority::decode(&mut rest).ok_or(WRONG)?;
        let mut levels = Vec::new();
        for _ in 0..rest.take::<1>().ok_or(WRONG)?[0] {
            let width = rest.take::<1>().ok_or(WRONG)?[0];
            levels.push((0..width).map(|_| rest.digest()).collect::<Option<Vec<_>>>().ok_or(WRONG)?);
        }
        let mut sessions = Sessions { next: next_session, open: Default::default() };
        for _ in 0..u32::from_be_bytes(rest.take().ok_or(WRONG)?) {
            let (session, entries) = (rest.number().ok_or(WRONG)?, rest.number().ok_or(WRONG)?);
            sessions.open.insert(session, Link { entries, last: rest.digest().ok_or(WRONG)? });
        }
        if !rest.0.is_empty() {
            return Err(WRONG);
        }
        let number = segment;
        Ok(Footer {
            number,
            epoch,
            next_seq,
            frames,
            durable,
            latest_ns,
            ends_epoch,
            chain,
            root,
            authority,
            levels,
            sessions,
        })
    }
}

/// Fixed fields, taken one after the other.
pub(crate) struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn digest(&mut self) -> Option<Digest> {
        self.take().map(Digest)
    }
}

/// Reads a segment's file from front to back, a frame at a time.
pub struct SegmentReader {
    file: Box<dyn File>,
    length: u64,
    offset: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
    read_ahead: usize,
}

/// What stands at a place in a segment.
#[derive(Debug)]
pub enum Step<'a> {
    /// A frame.
    Frame {
        /// Where it begins.
        offset: u64,
        /// The frame.
        frame: Frame<'a>,
    },
    /// A footer: its bytes up to the end of the file.
    Footer {
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// Nothing was written here yet: zeros up to the end of the file, or the end itself.
    End {
        /// Where it begins.
        offset: u64,
    },
    /// Something that is none of these.
    Damaged {
        /// Where it begins.
        offset: u64,
        /// What is wrong with it.
        why: Malformed,
        /// Whether it looks like a write that a crash cut off: its end is missing, and nothing follows.
        torn: bool,
    },
}

impl SegmentReader {
    /// Reads from after the header.
    ///
    /// # Errors
    /// Of the storage.
    pub fn new(file: Box<dyn File>) -> io::Result<SegmentReader> {
        let length = file.length()?;
        Ok(SegmentReader {
            file,
            length,
            offset: BLOCK as u64,
            buffer: Vec::new(),
            buffer_at: 0,
            read_ahead: READ_AHEAD,
        })
    }

    /// Reads so many bytes at a time: many for one who reads everything, few for one who jumps.
    #[must_use]
    pub fn with_read_ahead(mut self, bytes: usize) -> SegmentReader {
        self.read_ahead = bytes;
        self
    }

    /// The segment's header.
    ///
    /// # Errors
    /// Of the storage.
    pub fn header(&mut self) -> io::Result<Result<SegmentHeader, Malformed>> {
        Ok(SegmentHeader::decode(self.view(0, BLOCK)?))
    }

    /// Where the footer begins, as the file's end says; none where it does not end like a sealed segment.
    ///
    /// # Errors
    /// Of the storage.
    pub fn footer_offset(&mut self) -> io::Result<Option<u64>> {
        let Some(tail_at) = self.length.checked_sub(16) else { return Ok(None) };
        let tail = self.view(tail_at, 16)?;
        let sealed = tail.len() == 16 && &tail[8..] == SEALED_MAGIC;
        Ok(sealed.then(|| u64::from_be_bytes(array(&tail[..8]))))
    }

    /// Where the next step begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How long the file was when it was last asked.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Goes to another place, at a multiple of a block.
    pub fn seek(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Forgets what was read ahead, so that what was written since is seen.
    ///
    /// # Errors
    /// Of the storage.
    pub fn refresh(&mut self) -> io::Result<()> {
        self.length = self.file.length()?;
        self.buffer.clear();
        Ok(())
    }

    /// What stands at the present place; goes on behind it where it is a frame.
    ///
    /// # Errors
    /// Of the storage.
    pub fn step(&mut self) -> io::Result<Step<'_>> {
        let offset = self.offset;
        let head = self.view(offset, BLOCK)?;
        if head.starts_with(FOOTER_MAGIC) {
            let rest = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
            if rest > padded(FOOTER_BYTES_MAX) {
                return Ok(Step::Damaged {
                    offset,
                    why: Malformed("segment footer is too long"),
                    torn: false,
                });
            }
            return Ok(Step::Footer { offset, bytes: self.view(offset, rest)? });
        }
        let header = match FrameHeader::decode(head) {
            Ok(header) => header,
            Err(why) => return self.no_frame(offset, why),
        };
        let length = padded(header.length());
        if let Err(why) = Frame::decode(self.view(offset, length)?) {
            let content_end = offset + header.length() as u64;
            let torn = self.data_end(offset)? + 16 <= content_end;
            return Ok(Step::Damaged { offset, why, torn });
        }
        self.offset = offset + length as u64;
        // It stands in the buffer already, so that this reads nothing.
        Ok(Step::Frame { offset, frame: Frame { header, bytes: self.view(offset, header.length())? } })
    }

    fn no_frame(&mut self, offset: u64, why: Malformed) -> io::Result<Step<'_>> {
        let data_end = self.data_end(offset)?;
        if data_end == offset {
            return Ok(Step::End { offset });
        }
        let torn = data_end <= offset + FRAME_HEADER_BYTES as u64;
        Ok(Step::Damaged { offset, why, torn })
    }

    /// One past the last byte after `offset` that is not zero; `offset` where there is none.
    ///
    /// # Errors
    /// Of the storage.
    pub fn data_end(&mut self, offset: u64) -> io::Result<u64> {
        let (mut at, mut end) = (offset, offset);
        loop {
            let part = self.view(at, READ_AHEAD)?;
            if part.is_empty() {
                return Ok(end);
            }
            if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
                end = at + last as u64 + 1;
            }
            at += part.len() as u64;
        }
    }

    /// Goes to the next place after the present one where a whole frame stands; false where there is none.
    ///
    /// # Errors
    /// Of the storage.
    pub fn find_next(&mut self) -> io::Result<bool> {
        let mut at = self.offset + BLOCK as u64;
        while at < self.length {
            let head = self.view(at, FRAME_HEADER_BYTES)?;
            if head.starts_with(FOOTER_MAGIC) {
                self.offset = at;
                return Ok(true);
            }
            if let Ok(header) = FrameHeader::decode(head)
                && Frame::decode(self.view(at, padded(header.length()))?).is_ok()
            {
                self.offset = at;
                return Ok(true);
            }
            at += BLOCK as u64;
        }
        Ok(false)
    }

    /// The bytes of a part of the file; fewer where it ends before.
    ///
    /// # Errors
    /// Of the storage.
    pub fn view(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let length = length.min(usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX));
        let have = self.buffer_at + self.buffer.len() as u64;
        if offset < self.buffer_at || offset + length as u64 > have {
            let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.buffer.resize(length.max(self.read_ahead.min(left)), 0);
            self.buffer_at = offset;
            let read = read_full(self.file.as_ref(), offset, &mut self.buffer)?;
            self.buffer.truncate(read);
        }
        let start = usize::try_from(offset - self.buffer_at).unwrap_or(usize::MAX);
        let end = (start + length).min(self.buffer.len());
        Ok(&self.buffer[start.min(end)..end])
    }
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentReader").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// Whether a file ends as a sealed segment does. Its footer is not looked at.
///
/// # Errors
/// Of the storage.
pub fn is_sealed(file: &dyn File) -> io::Result<bool> {
    let mut tail = [0; 8];
    let Some(at) = file.length()?.checked_sub(8) else { return Ok(false) };
    Ok(read_full(file, at, &mut tail)? == 8 && tail == *SEALED_MAGIC)
}

/// Reads header and footer of a sealed segment; none where it is not sealed. The footer is checked under the key
/// that the header names, which is the verifier's to judge.
///
/// # Errors
/// Of the storage; [`io::ErrorKind::InvalidData`] where it ends like a sealed one, and header or footer is damaged.
pub fn ends_of(file: Box<dyn File>, origin: &Origin) -> io::Result<Option<(SegmentHeader, Footer)>> {
    let mut reader = SegmentReader::new(file)?;
    let Some(offset) = reader.footer_offset()? else { return Ok(None) };
    let damaged = |why: Malformed| io::Error::new(io::ErrorKind::InvalidData, why);
    let length = reader.length.checked_sub(offset).and_then(|length| usize::try_from(length).ok());
    let Some(length) = length.filter(|length| *length <= padded(FOOTER_BYTES_MAX)) else {
        return Err(damaged(Malformed("segment footer has impossible lengths")));
    };
    let header = reader.header()?.map_err(damaged)?;
    let footer = Footer::decode(reader.view(offset, length)?, offset, origin, &header.epoch.key);
    Ok(Some((header, footer.map_err(damaged)?)))
}

/// Whether all bytes are zero.
#[must_use]
pub fn all_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

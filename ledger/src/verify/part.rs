//! The rules within one segment: what each frame and each entry must be, as far as the segment alone can tell.

use std::collections::HashMap;
use std::io;

use super::parallel::Bench;
use super::redacted::Redaction;
use super::report::{Findings, Problem};
use crate::entry::{Entry, Header, Kind, Malformed, check_canonical};
use crate::epoch::Epoch;
use crate::hash::{Committer, Digest, leaf};
use crate::manifest::{self, Manifest};
use crate::merkle::{Range, TILE_WIDTH, tile_path};
use crate::orders::Order;
use crate::segment::{Footer, Frame, SegmentHeader, SegmentReader, all_zero, name};
use crate::session::Link;
use crate::signature::PublicKey;
use crate::storage::read;
use crate::writer::CHECKPOINT;

const PAYLOAD_DIFFERS: &str = "payload is not the one that its entry commits to";

/// What one segment holds, as far as it can be told from itself.
pub(super) struct Part {
    pub(super) number: u64,
    pub(super) header: Option<SegmentHeader>,
    pub(super) first_seq: u64,
    pub(super) next_seq: u64,
    pub(super) chain_in: Option<Digest>,
    pub(super) chain_next: Option<Digest>,
    /// None where an entry is missing in between.
    pub(super) range: Option<Range>,
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) sessions: HashMap<u64, Stretch>,
    pub(super) opened: Vec<(u64, u64)>,
    pub(super) footer: Option<(u64, Footer)>,
    /// The digest of header and footer, where both are there.
    pub(super) ends: Option<Digest>,
    pub(super) frames: u64,
    /// The key of its epoch; none where nothing certifies it.
    pub(super) key: Option<PublicKey>,
    /// The latest time of its entries; when its epoch began, where it has none.
    pub(super) latest_ns: u64,
    /// The last entry's time; none where it has no entry.
    pub(super) ends_ns: Option<u64>,
    /// Whether its end was being written all the while.
    pub(super) unsettled: bool,
    /// The number of its epoch's seal, and the epoch that it leads to.
    pub(super) seal: Option<(u64, Epoch)>,
    /// The root key's orders: number and time of the entry, and the order.
    pub(super) orders: Vec<(u64, u64, Order)>,
    /// Entries whose payload and salt are zeros, and which redactions there are: the entry, and which it names.
    pub(super) zeroed: Vec<u64>,
    pub(super) redactions: Vec<(u64, Redaction)>,
    pub(super) findings: Findings,
}

/// The state right after an entry that is the last of a claim.
pub(super) struct Snapshot {
    pub(super) size: u64,
    pub(super) range: Option<Range>,
    pub(super) kind: Kind,
    pub(super) time_ns: u64,
    pub(super) epoch: u32,
    pub(super) chain: Option<Digest>,
}

/// A session's entries within one segment.
pub(super) struct Stretch {
    /// What the first says of those before it; none where it opens the session.
    pub(super) before: Option<Link>,
    pub(super) first_seq: u64,
    pub(super) link: Link,
    pub(super) closed: bool,
}

impl Part {
    pub(super) fn new(number: u64) -> Part {
        Part {
            number,
            header: None,
            first_seq: 0,
            next_seq: 0,
            chain_in: None,
            chain_next: None,
            range: None,
            snapshots: Vec::new(),
            sessions: HashMap::new(),
            opened: Vec::new(),
            footer: None,
            ends: None,
            frames: 0,
            key: None,
            latest_ns: 0,
            ends_ns: None,
            unsettled: false,
            seal: None,
            orders: Vec::new(),
            zeroed: Vec::new(),
            redactions: Vec::new(),
            findings: Findings::default(),
        }
    }

    pub(super) fn problem(&mut self, offset: u64, entry: Option<u64>, what: &str) {
        let entries = entry.map(|entry| (entry, entry));
        self.findings.add(false, Some(name(self.number)), Some(offset), entries, what.to_owned());
    }

    pub(super) fn unfinished(&mut self, live: bool, offset: u64, length: u64) {
        self.unsettled |= live;
        if live {
            self.findings.notes.push(format!("{length} bytes at the end are being written"));
        } else {
            let what = format!(
                "{length} bytes at the end are an unfinished write; opening the ledger cuts them off"
            );
            let next = self.next_seq;
            self.findings.add(true, Some(name(self.number)), Some(offset), Some((next, next)), what);
        }
    }

    /// In a sealed segment a payload of zeros may have been taken out, which the redactions tell once all are known;
    /// in an open one it is what it looks like.
    pub(super) fn settle_zeroed(&mut self) {
        if self.footer.is_none() {
            self.zeroed.clear();
        }
        let zeroed = std::mem::take(&mut self.zeroed);
        let taken_out =
            |problem: &Problem| problem.entry.is_some_and(|entry| zeroed.binary_search(&entry).is_ok());
        self.findings.problems.retain(|problem| problem.what != PAYLOAD_DIFFERS || !taken_out(problem));
        self.zeroed = zeroed;
    }

    /// The last frame's payloads stand at its end, so a torn write may have lost only them.
    pub(super) fn unfinished_payloads(&mut self, live: bool, since: usize) {
        for problem in &mut self.findings.problems[since..] {
            problem.missing |= problem.what == PAYLOAD_DIFFERS;
        }
        self.unsettled |= live;
        if live {
            self.findings.problems.retain(|problem| !problem.missing);
            self.findings.notes.push("payloads at the end are being written".to_owned());
        }
    }

    /// Says what is damaged as exactly as can be: a frame's own words, then the published tiles, tell which entry.
    pub(super) fn damaged(
        &mut self,
        bench: &Bench<'_>,
        reader: &mut SegmentReader,
        offset: u64,
        why: Malformed,
    ) -> io::Result<()> {
        let raw = reader.view(offset, crate::segment::FRAME_ENTRIES_BYTES_MAX)?.to_vec();
        let blamed = blame(bench, &raw, self.next_seq);
        let entries = blamed.or(Some((self.next_seq, self.next_seq)));
        self.findings.add(false, Some(name(self.number)), Some(offset), entries, why.0.to_owned());
        self.range = None;
        self.chain_next = None;
        Ok(())
    }

    pub(super) fn frame(
        &mut self,
        bench: &Bench<'_>,
        offset: u64,
        frame: &Frame<'_>,
        committer: &mut Committer,
    ) {
        let header = &frame.header;
        self.frames += 1;
        if header.first_seq != self.next_seq {
            if self.range.is_some() {
                self.problem(offset, Some(self.next_seq), "entries are missing before this frame");
            }
            self.range = None;
            self.next_seq = header.first_seq;
        }
        if self.chain_next.is_some_and(|chain| chain != header.chain_in) {
            self.problem(offset, Some(header.first_seq), "frame does not follow the one before");
        }
        if self.chain_in.is_none() && self.frames == 1 {
            self.chain_in = Some(header.chain_in);
        }
        let epoch = self.header.map(|header| header.epoch.number);
        let signed = self.key.is_some_and(|key| frame.is_signed_by(&bench.manifest.origin, &key));
        if !signed || epoch.is_some_and(|epoch| epoch != header.epoch) {
            self.problem(offset, Some(header.first_seq), "frame is not signed by the key of its epoch");
        }
        if self.seal.is_some() {
            self.problem(offset, Some(header.first_seq), "frame stands behind the seal of its epoch");
        }
        for record in frame.records() {
            let entry = match Entry::decode(record.entry) {
                Ok(entry) => entry,
                Err(why) => {
                    self.problem(offset, Some(self.next_seq), why.0);
                    self.next_seq += 1;
                    continue;
                }
            };
            if !record.payload_matches(&entry, committer) {
                self.problem(offset, Some(self.next_seq), PAYLOAD_DIFFERS);
                if all_zero(&record.salt) && all_zero(record.payload) {
                    self.zeroed.push(self.next_seq);
                }
            }
            self.entry(bench, offset, &entry, frame);
        }
        self.chain_next = Some(frame.chain_next());
        let (next_seq, chain) = (self.next_seq, self.chain_next);
        for snapshot in self.snapshots.iter_mut().filter(|snapshot| snapshot.size == next_seq) {
            snapshot.chain = chain;
        }
    }

    fn entry(&mut self, bench: &Bench<'_>, offset: u64, entry: &Entry<'_>, frame: &Frame<'_>) {
        let header = &entry.header;
        if header.seq != self.next_seq || header.epoch != frame.header.epoch {
            self.problem(offset, Some(self.next_seq), "entry has another number or epoch than its place");
        }
        if let Err(why) = check_canonical(entry.body) {
            self.problem(offset, Some(self.next_seq), why.0);
        }
        if let Err(why) =
            own_kinds(bench.manifest, entry, frame).and_then(|()| self.take_own(bench, entry, frame))
        {
            self.problem(offset, Some(self.next_seq), why.0);
        }
        if self.header.is_some_and(|segment| header.time_ns < segment.epoch.since_ns) {
            self.problem(offset, Some(self.next_seq), "entry is older than its epoch");
        }
        self.latest_ns = self.latest_ns.max(header.time_ns);
        self.ends_ns = Some(header.time_ns);
        let leaf = leaf(entry.bytes);
        if header.session != 0 {
            if let Err(why) = self.session(entry, leaf) {
                self.problem(offset, Some(self.next_seq), why.0);
            }
        } else if matches!(header.kind, Kind::SESSION_OPENED | Kind::SESSION_CLOSED) {
            self.problem(offset, Some(self.next_seq), "a session's entry names no session");
        } else if header.session_seq != 0 || header.prev_in_session != Digest::ZERO {
            self.problem(offset, Some(self.next_seq), "entry without a session links to one");
        }
        if let Some(range) = &mut self.range {
            range.push(leaf);
        }
        self.next_seq += 1;
        if bench.claims.iter().any(|claim| claim.size == self.next_seq) {
            let (kind, time_ns, range) = (header.kind, header.time_ns, self.range.clone());
            let (size, epoch) = (self.next_seq, header.epoch);
            self.snapshots.push(Snapshot { size, range, kind, time_ns, epoch, chain: None });
        }
    }

    /// Keeps what the log layer's own entries say for when the segments are joined.
    fn take_own(&mut self, bench: &Bench<'_>, entry: &Entry<'_>, frame: &Frame<'_>) -> Result<(), Malformed> {
        let Header { seq, time_ns, session, .. } = entry.header;
        match entry.header.kind {
            Kind::EPOCH_SEAL => {
                let Some(segment) = &self.header else { return Ok(()) };
                if frame.header.count != 1 || time_ns < self.latest_ns {
                    return Err(Malformed(
                        "epoch.seal is not alone in its frame, or older than its epoch's entries",
                    ));
                }
                self.seal = Some((seq, segment.epoch.after_seal(entry, &bench.manifest.origin)?));
            }
            // Nothing else says when epoch 0 began.
            Kind::LEDGER_OPENED if self.header.is_some_and(|segment| segment.epoch.since_ns != time_ns) => {
                return Err(Malformed("epoch 0 does not begin with the first entry"));
            }
            Kind::KEYS_CHANGED if session != 0 => return Err(Malformed("keys.changed is of a session")),
            Kind::KEYS_CHANGED => self.orders.push((seq, time_ns, Order::parse(entry.body)?)),
            Kind::REDACTION if session != 0 => return Err(Malformed("redaction is of a session")),
            Kind::REDACTION => {
                let redaction: Redaction = serde_json::from_slice(entry.body)
                    .map_err(|_| Malformed("redaction is not as the format wants it"))?;
                self.redactions.push((seq, redaction));
            }
            _ => {}
        }
        Ok(())
    }

    fn session(&mut self, entry: &Entry<'_>, leaf: Digest) -> Result<(), Malformed> {
        let header = &entry.header;
        let closed = header.kind == Kind::SESSION_CLOSED;
        let link = Link { entries: header.session_seq.saturating_add(1), last: leaf };
        let stretch = |before| Stretch { before, first_seq: header.seq, link, closed };
        if header.kind == Kind::SESSION_OPENED {
            self.opened.push((header.session, header.seq));
            let again = self.sessions.insert(header.session, stretch(None)).is_some();
            let first = header.session_seq == 0 && header.prev_in_session == Digest::ZERO;
            return if first && !again {
                Ok(())
            } else {
                Err(Malformed("session is opened, but not by its first entry"))
            };
        }
        match self.sessions.get_mut(&header.session) {
            None => {
                let before = Link { entries: header.session_seq, last: header.prev_in_session };
                self.sessions.insert(header.session, stretch(Some(before)));
                Ok(())
            }
            Some(known) => {
                let expected = Link { entries: header.session_seq, last: header.prev_in_session };
                let follows = known.link == expected && !known.closed;
                (known.link, known.closed) = (link, closed);
                if follows {
                    Ok(())
                } else {
                    Err(Malformed("entry does not follow its session's entry before"))
                }
            }
        }
    }
}

/// The log layer's own entries say what the layer itself knows.
fn own_kinds(manifest: &Manifest, entry: &Entry<'_>, frame: &Frame<'_>) -> Result<(), Malformed> {
    match entry.header.kind {
        Kind::LEDGER_OPENED => {
            let expected = format!(r#"{{"format":{},"genesis":"{}"}}"#, manifest::FORMAT, manifest.genesis());
            let right = entry.header.seq == 0 && entry.body == expected.as_bytes();
            if right {
                Ok(())
            } else {
                Err(Malformed("ledger.opened is not the first entry, or of another ledger"))
            }
        }
        _ if entry.header.seq == 0 => Err(Malformed("the first entry is not ledger.opened")),
        Kind::CHAIN_HEAD => {
            let expected = format!(r#"{{"chain":"{}"}}"#, frame.header.chain_in);
            let alone = frame.header.count == 1 && entry.body == expected.as_bytes();
            if alone {
                Ok(())
            } else {
                Err(Malformed("chain.head does not name the chain that it stands in"))
            }
        }
        _ => Ok(()),
    }
}

/// Which entries of a damaged frame are not those that were published; none where nothing tells.
fn blame(bench: &Bench<'_>, raw: &[u8], expected_first: u64) -> Option<(u64, u64)> {
    // The header may itself be damaged: only what agrees with what is expected here is used.
    let count = u64::from(u32::from_be_bytes(crate::entry::array(raw.get(16..20)?)));
    let first = u64::from_be_bytes(crate::entry::array(raw.get(24..32)?));
    if first != expected_first || count == 0 || count > 10_000 {
        return None;
    }
    let last = first + count - 1;
    let mut at = crate::segment::FRAME_HEADER_BYTES;
    let mut published: Option<(u64, Vec<u8>)> = None;
    for seq in first..=last {
        let prefix = raw.get(at..at + 2)?;
        let length = usize::from(u16::from_be_bytes(crate::entry::array(prefix)));
        let Some(bytes) = raw.get(at + 2..at + 2 + length) else { return Some((seq, last)) };
        at += 2 + length;
        let own_number = Entry::decode(bytes).is_ok_and(|entry| entry.header.seq == seq);
        let index = seq / TILE_WIDTH as u64;
        if published.as_ref().is_none_or(|(tile, _)| *tile != index) {
            published = Some((index, published_leaves(bench, index).unwrap_or_default()));
        }
        let within = usize::try_from(seq % TILE_WIDTH as u64).unwrap_or(usize::MAX) * 32;
        let leaves = published.as_ref().map(|(_, leaves)| leaves.as_slice()).unwrap_or_default();
        match leaves.get(within..within + 32) {
            Some(hash) if hash == leaf(bytes).0 => {}
            Some(_) => return Some((seq, seq)),
            None if !own_number => return Some((seq, seq)),
            None => {}
        }
    }
    Some((first, last))
}

/// The leaf hashes of a published tile, full or of the width that the checkpoint has.
fn published_leaves(bench: &Bench<'_>, index: u64) -> Option<Vec<u8>> {
    let size = bench.claims.iter().find(|claim| claim.source == CHECKPOINT)?.size;
    let width = size.checked_sub(index * TILE_WIDTH as u64)?.min(TILE_WIDTH as u64);
    let path = tile_path("0", index, usize::try_from(width).ok()?);
    read(bench.storage, &path, TILE_WIDTH * 32).ok()
}

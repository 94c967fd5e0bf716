//! The judge: reads every stored byte and says what is wrong, and where. It believes nothing but the key that
//! the auditor brings.
//!
//! Segments are checked on all cores, each for itself; then their ends are joined in order: chain, tree,
//! sessions. What a newcomer gets wrong: a ledger that is whole and unanchored may still have lost its newest
//! end, or be an older copy. Only a checkpoint that was kept elsewhere tells, so without one, and without a
//! pinned key, the verdict is never the best one.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use crate::checkpoint::{NOTE_BYTES_MAX, Note, Vkey};
use crate::entry::{Entry, Kind, Malformed, check_canonical};
use crate::hash::{Committer, Digest, leaf};
use crate::manifest::{self, MANIFEST_BYTES_MAX, Manifest};
use crate::merkle::{Range, TILE_WIDTH, root_of, tile_path};
use crate::segment::{Footer, Frame, SegmentHeader, SegmentReader, Step, name};
use crate::session::{Link, Sessions};
use crate::state::{self, Slots};
use crate::storage::{Mode, Storage, read};
use crate::writer::CHECKPOINT;

/// So many problems are told; more are only counted.
const PROBLEMS_MAX: usize = 200;

const PAYLOAD_DIFFERS: &str = "payload is not the one that its entry commits to";

/// What the auditor brings.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The log key that was pinned.
    pub key: Option<Vkey>,
    /// Checkpoints that were kept outside the ledger's directory: a name for each, and its bytes.
    pub checkpoints: Vec<(String, Vec<u8>)>,
    /// How many threads; 0 for as many as there are cores.
    pub threads: usize,
}

/// How far verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many bytes of segments were checked.
    pub bytes: u64,
    /// How many bytes of segments there are.
    pub bytes_total: u64,
    /// How many entries were checked.
    pub entries: u64,
}

/// The judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every byte is as it was signed, under the pinned key, and a checkpoint kept elsewhere agrees.
    Verified,
    /// Something was changed.
    Tampered,
    /// Nothing was changed, and something is missing.
    Incomplete,
    /// Nothing is wrong, but no key was pinned or no checkpoint kept elsewhere was brought.
    Unanchored,
}

impl Verdict {
    /// The exit code of `gatebook-ledger verify`.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Verified => 0,
            Verdict::Tampered => 1,
            Verdict::Incomplete => 2,
            Verdict::Unanchored => 4,
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether it is only that something is missing.
    pub missing: bool,
    /// The file, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The entry, or the first of several that it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// The last of several entries that it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_last: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// A checkpoint that was brought, and agrees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Anchor {
    /// The name that it was brought under.
    pub source: String,
    /// How many entries it covers.
    pub size: u64,
    /// When it was signed, in nanoseconds since 1970 UTC, as the ledger's clock said.
    pub time_ns: u64,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The judgement.
    pub verdict: Verdict,
    /// The ledger's name, where its manifest can be read.
    pub origin: Option<String>,
    /// The verifier key that the ledger claims for itself.
    pub key: Option<String>,
    /// Whether the auditor pinned that key.
    pub key_pinned: bool,
    /// How many entries were read.
    pub entries: u64,
    /// How many frames.
    pub frames: u64,
    /// How many segments.
    pub segments: u64,
    /// How many sessions were opened.
    pub sessions: u64,
    /// How many of them are open.
    pub sessions_open: u64,
    /// The root of the tree over all entries, where they could all be read.
    pub root: Option<Digest>,
    /// The newest checkpoint that was brought and agrees.
    pub anchor: Option<Anchor>,
    /// How many entries are newer than that.
    pub entries_after_anchor: u64,
    /// The size of the checkpoint that lies in the directory.
    pub published: Option<u64>,
    /// What is wrong, in the order of the ledger.
    pub problems: Vec<Problem>,
    /// How many problems there are, told or not.
    pub problem_count: u64,
    /// What was not checked, and what an auditor should know.
    pub notes: Vec<String>,
}

/// Verifies a ledger, live or at rest, or an export.
///
/// # Errors
/// Of the storage: where the ledger cannot be read at all.
pub fn verify(
    storage: &dyn Storage,
    options: &Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> io::Result<Report> {
    let mut court = Court::default();
    let text = read(storage, manifest::NAME, MANIFEST_BYTES_MAX)?;
    let manifest = match Manifest::parse(&text) {
        Ok(manifest) => manifest,
        Err(why) => {
            court.tampered(Some(manifest::NAME.to_owned()), None, None, why.to_string());
            return Ok(court.report(None, options));
        }
    };
    // What was signed is read before the entries: a live ledger grows meanwhile, and never the other way.
    let live = storage.has_writer();
    court.claims = claims(storage, &manifest, options, live, &mut court.findings)?;
    let numbers = crate::reader::segments(storage)?;
    for (number, expected) in numbers.iter().zip(0..) {
        if *number != expected {
            court.missing(Some(name(expected)), None, None, "segment is missing".to_owned());
            break;
        }
    }
    if numbers.is_empty() {
        court.missing(Some(name(0)), None, None, "segment is missing".to_owned());
    }
    let bench =
        Bench { storage, manifest: &manifest, claims: &court.claims, last: numbers.last().copied(), live };
    let parts = bench.check_all(&numbers, options.threads, progress)?;
    let mut joined = Joined::new(&manifest);
    for part in parts {
        joined.join(part, &mut court);
    }
    if let Some(claim) = court.claims.iter().find(|claim| claim.source == CHECKPOINT).cloned() {
        court.published = Some(claim.size);
        check_tiles(storage, &claim, live, &mut court.findings)?;
    }
    joined.judge_claims(&mut court);
    court.entries = joined.next_seq;
    court.root = joined.range.as_ref().and_then(Range::root);
    court.sessions = joined.sessions.next - 1;
    court.sessions_open = joined.sessions.open.len() as u64;
    Ok(court.report(Some(&manifest), options))
}

/// A size and root that somebody signed.
#[derive(Debug, Clone)]
struct Claim {
    source: String,
    size: u64,
    root: Digest,
    /// The chain's value after it, where the claim says.
    chain: Option<Digest>,
    /// Whether the auditor brought it.
    brought: bool,
}

#[derive(Debug, Default)]
struct Findings {
    problems: Vec<Problem>,
    notes: Vec<String>,
}

impl Findings {
    fn add(
        &mut self,
        missing: bool,
        file: Option<String>,
        offset: Option<u64>,
        entries: Option<(u64, u64)>,
        what: String,
    ) {
        let (entry, last) = (entries.map(|(first, _)| first), entries.map(|(_, last)| last));
        let entry_last = last.filter(|last| Some(*last) != entry);
        self.problems.push(Problem { missing, file, offset, entry, entry_last, what });
    }
}

#[derive(Debug, Default)]
struct Court {
    findings: Findings,
    claims: Vec<Claim>,
    entries: u64,
    frames: u64,
    segments: u64,
    sessions: u64,
    sessions_open: u64,
    root: Option<Digest>,
    anchor: Option<Anchor>,
    published: Option<u64>,
}

impl Court {
    fn tampered(&mut self, file: Option<String>, offset: Option<u64>, entry: Option<u64>, what: String) {
        self.findings.add(false, file, offset, entry.map(|entry| (entry, entry)), what);
    }

    fn missing(&mut self, file: Option<String>, offset: Option<u64>, entry: Option<u64>, what: String) {
        self.findings.add(true, file, offset, entry.map(|entry| (entry, entry)), what);
    }

    fn report(mut self, manifest: Option<&Manifest>, options: &Options) -> Report {
        let ours = manifest.map(Manifest::vkey);
        let key_pinned = options.key.is_some() && options.key == ours;
        if options.key.is_some() && ours.is_some() && !key_pinned {
            self.tampered(None, None, None, "the key pinned is not this ledger's log key".to_owned());
        }
        if options.key.is_none() {
            self.findings
                .notes
                .insert(0, "no key is pinned: whoever wrote this ledger may be anybody".to_owned());
        }
        if self.anchor.is_none() {
            let note = "no checkpoint kept elsewhere was brought: an end that was cut off, or an older copy, would not show";
            self.findings.notes.push(note.to_owned());
        }
        let Findings { mut problems, notes } = self.findings;
        let verdict = if problems.iter().any(|problem| !problem.missing) {
            Verdict::Tampered
        } else if !problems.is_empty() {
            Verdict::Incomplete
        } else if key_pinned && self.anchor.is_some() {
            Verdict::Verified
        } else {
            Verdict::Unanchored
        };
        let problem_count = problems.len() as u64;
        problems.truncate(PROBLEMS_MAX);
        let covered = self.anchor.as_ref().map_or(0, |anchor| anchor.size);
        Report {
            verdict,
            origin: manifest.map(|manifest| manifest.origin.to_string()),
            key: ours.map(|key| key.to_string()),
            key_pinned,
            entries: self.entries,
            frames: self.frames,
            segments: self.segments,
            sessions: self.sessions,
            sessions_open: self.sessions_open,
            root: self.root,
            entries_after_anchor: self.entries.saturating_sub(covered),
            anchor: self.anchor,
            published: self.published,
            problems,
            problem_count,
            notes,
        }
    }
}

/// Everything that was signed: the auditor's checkpoints, the one in the directory, the state file.
fn claims(
    storage: &dyn Storage,
    manifest: &Manifest,
    options: &Options,
    live: bool,
    findings: &mut Findings,
) -> io::Result<Vec<Claim>> {
    let mut claims = Vec::new();
    let keys = manifest.checkpoint_keys();
    let mut take = |source: &str, bytes: &[u8], brought: bool, findings: &mut Findings| {
        let checked = Note::parse(bytes).and_then(|note| note.verify(&keys).cloned());
        match checked {
            Ok(checkpoint) => {
                let (size, root, source) = (checkpoint.size, checkpoint.root, source.to_owned());
                claims.push(Claim { source, size, root, chain: None, brought });
            }
            Err(why) => findings.add(false, Some(source.to_owned()), None, None, why.to_string()),
        }
    };
    match read(storage, CHECKPOINT, NOTE_BYTES_MAX) {
        Ok(bytes) => take(CHECKPOINT, &bytes, false, findings),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            findings.notes.push("nothing is published here: no checkpoint, no tiles".to_owned());
        }
        Err(error) => return Err(error),
    }
    for (source, bytes) in &options.checkpoints {
        take(source, bytes, true, findings);
    }
    match read_state(storage, live) {
        Ok(None) => findings.notes.push("no state file here: this is an export".to_owned()),
        Ok(Some(Slots { newest, damaged })) => {
            if damaged {
                let what = "a slot of the state file is damaged".to_owned();
                findings.add(false, Some(state::NAME.to_owned()), None, None, what);
            }
            if newest.generation > 0 {
                let (size, root, chain) = (newest.size, newest.root, Some(newest.chain));
                claims.push(Claim { source: state::NAME.to_owned(), size, root, chain, brought: false });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            findings.add(false, Some(state::NAME.to_owned()), None, None, error.to_string());
        }
        Err(error) => return Err(error),
    }
    Ok(claims)
}

/// Reads the state; a live one again, for its writer may just be at it.
fn read_state(storage: &dyn Storage, live: bool) -> io::Result<Option<Slots>> {
    let file = match storage.open(state::NAME, Mode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut slots = state::read(file.as_ref());
    for _ in 0..if live { 10 } else { 0 } {
        if slots.as_ref().is_ok_and(|slots| !slots.damaged) {
            break;
        }
        slots = state::read(file.as_ref());
    }
    slots.map(Some)
}

/// What the workers share.
struct Bench<'a> {
    storage: &'a dyn Storage,
    manifest: &'a Manifest,
    claims: &'a [Claim],
    last: Option<u64>,
    live: bool,
}

/// What one segment holds, as far as it can be told from itself.
struct Part {
    number: u64,
    header: Option<SegmentHeader>,
    first_seq: u64,
    next_seq: u64,
    chain_in: Option<Digest>,
    chain_next: Option<Digest>,
    /// None where an entry is missing in between.
    range: Option<Range>,
    snapshots: Vec<Snapshot>,
    sessions: HashMap<u64, Stretch>,
    opened: Vec<(u64, u64)>,
    footer: Option<(u64, Footer)>,
    frames: u64,
    findings: Findings,
}

/// The state right after an entry that is the last of a claim.
struct Snapshot {
    size: u64,
    range: Option<Range>,
    kind: Kind,
    time_ns: u64,
    chain: Option<Digest>,
}

/// A session's entries within one segment.
struct Stretch {
    /// What the first says of those before it; none where it opens the session.
    before: Option<Link>,
    first_seq: u64,
    link: Link,
    closed: bool,
}

impl Bench<'_> {
    fn check_all(
        &self,
        numbers: &[u64],
        threads: usize,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> io::Result<Vec<Part>> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if threads == 0 { cores } else { threads }.min(numbers.len()).max(1);
        let mut bytes_total = 0;
        for number in numbers {
            bytes_total += self.storage.open(&name(*number), Mode::Read)?.length()?;
        }
        let meter = Meter { progress, bytes_total, bytes: AtomicU64::new(0), entries: AtomicU64::new(0) };
        let next = AtomicUsize::new(0);
        let parts: Mutex<Vec<io::Result<Part>>> = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let part = self.check(*number, &meter);
                        parts.lock().push(part);
                    }
                });
            }
        });
        let mut parts = parts.into_inner().into_iter().collect::<io::Result<Vec<Part>>>()?;
        parts.sort_unstable_by_key(|part| part.number);
        Ok(parts)
    }

    /// Checks one segment for itself.
    fn check(&self, number: u64, meter: &Meter<'_>) -> io::Result<Part> {
        let mut reader = SegmentReader::new(self.storage.open(&name(number), Mode::Read)?)?;
        let mut part = Part {
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
            frames: 0,
            findings: Findings::default(),
        };
        let is_last = self.last == Some(number);
        let mut known = false;
        match reader.header()? {
            Ok(header) => {
                (part.first_seq, part.next_seq) = (header.first_seq, header.first_seq);
                (part.chain_in, part.chain_next) = (Some(header.chain_in), Some(header.chain_in));
                part.range = Some(Range::empty(header.first_seq));
                part.header = Some(header);
                known = true;
            }
            Err(_) if is_last && self.live && reader.data_end(0)? == 0 => {}
            Err(why) => part.problem(0, None, why.0),
        }
        let mut committer = Committer::new();
        let mut seen = 0;
        let mut retries = 0;
        loop {
            let (offset, why, torn) = match reader.step()? {
                Step::Frame { offset, frame } => {
                    if !known {
                        (part.first_seq, part.next_seq) = (frame.header.first_seq, frame.header.first_seq);
                        known = true;
                    }
                    let problems = part.findings.problems.len();
                    part.frame(self, offset, &frame, &mut committer);
                    let entries = u64::from(frame.header.count);
                    let content_end = offset + frame.header.length() as u64;
                    if is_last
                        && part.findings.problems.len() > problems
                        && reader.data_end(offset)? + 16 <= content_end
                    {
                        part.unfinished_payloads(self.live, problems);
                    }
                    let now = reader.offset();
                    meter.add(now - seen, entries);
                    seen = now;
                    continue;
                }
                Step::Footer { offset, bytes } => {
                    match Footer::decode(bytes, offset, &self.manifest.origin, &self.manifest.epoch_key) {
                        Ok(footer) => {
                            part.footer = Some((offset, footer));
                            break;
                        }
                        Err(why) => (offset, why, false),
                    }
                }
                Step::End { .. } if is_last => break,
                Step::End { offset } => {
                    let what = "sealed segment ends without a footer".to_owned();
                    part.findings.add(true, Some(name(number)), Some(offset), None, what);
                    break;
                }
                Step::Damaged { offset, why, torn } => (offset, why, torn),
            };
            if self.live && is_last && retries < 20 {
                // The writer may be in the middle of this very frame.
                retries += 1;
                reader.refresh()?;
                continue;
            }
            reader.seek(offset);
            let goes_on = reader.find_next()?;
            if is_last && !goes_on && (torn || self.live) {
                let length = reader.data_end(offset)? - offset;
                part.unfinished(self.live, offset, length);
                break;
            }
            let next = if goes_on { Some(reader.offset()) } else { None };
            part.damaged(self, &mut reader, offset, why)?;
            match next {
                Some(next) => reader.seek(next),
                None => break,
            }
        }
        meter.add(reader.length().saturating_sub(seen), 0);
        Ok(part)
    }
}

struct Meter<'a> {
    progress: &'a (dyn Fn(Progress) + Sync),
    bytes_total: u64,
    bytes: AtomicU64,
    entries: AtomicU64,
}

impl Meter<'_> {
    fn add(&self, bytes: u64, entries: u64) {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let entries = self.entries.fetch_add(entries, Ordering::Relaxed) + entries;
        (self.progress)(Progress { bytes, bytes_total: self.bytes_total, entries });
    }
}

impl Part {
    fn problem(&mut self, offset: u64, entry: Option<u64>, what: &str) {
        let entries = entry.map(|entry| (entry, entry));
        self.findings.add(false, Some(name(self.number)), Some(offset), entries, what.to_owned());
    }

    fn unfinished(&mut self, live: bool, offset: u64, length: u64) {
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

    /// The last frame's payloads stand at its end, so a torn write may have lost only them.
    fn unfinished_payloads(&mut self, live: bool, since: usize) {
        for problem in &mut self.findings.problems[since..] {
            problem.missing |= problem.what == PAYLOAD_DIFFERS;
        }
        if live {
            self.findings.problems.retain(|problem| !problem.missing);
            self.findings.notes.push("payloads at the end are being written".to_owned());
        }
    }

    /// Says what is damaged as exactly as can be: a frame's own words, then the published tiles, tell which entry.
    fn damaged(
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

    fn frame(&mut self, bench: &Bench<'_>, offset: u64, frame: &Frame<'_>, committer: &mut Committer) {
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
        if header.epoch != 0 || !frame.is_signed_by(&bench.manifest.origin, &bench.manifest.epoch_key) {
            self.problem(offset, Some(header.first_seq), "frame is not signed by the key of its epoch");
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
        if let Err(why) = own_kinds(bench.manifest, entry, frame) {
            self.problem(offset, Some(self.next_seq), why.0);
        }
        let leaf = leaf(entry.bytes);
        if header.session != 0 {
            if let Err(why) = self.session(entry, leaf) {
                self.problem(offset, Some(self.next_seq), why.0);
            }
        } else if header.session_seq != 0 || header.prev_in_session != Digest::ZERO {
            self.problem(offset, Some(self.next_seq), "entry without a session links to one");
        }
        if let Some(range) = &mut self.range {
            range.push(leaf);
        }
        self.next_seq += 1;
        if bench.claims.iter().any(|claim| claim.size == self.next_seq) {
            let (kind, time_ns, range) = (header.kind, header.time_ns, self.range.clone());
            self.snapshots.push(Snapshot { size: self.next_seq, range, kind, time_ns, chain: None });
        }
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

/// What the segments come to, joined in order.
struct Joined {
    chain: Option<Digest>,
    genesis: Digest,
    next_seq: u64,
    /// None behind an entry that is missing.
    range: Option<Range>,
    sessions: Sessions,
    /// Whether sessions can still be told: not behind damage.
    sessions_known: bool,
    /// For each claim's size: the root, the last entry's kind and time, the chain.
    reached: HashMap<u64, (Option<Digest>, Kind, u64, Option<Digest>)>,
}

impl Joined {
    fn new(manifest: &Manifest) -> Joined {
        Joined {
            chain: Some(manifest.genesis()),
            genesis: manifest.genesis(),
            next_seq: 0,
            range: Some(Range::empty(0)),
            sessions: Sessions::default(),
            sessions_known: true,
            reached: HashMap::new(),
        }
    }

    fn join(&mut self, part: Part, court: &mut Court) {
        let file = || Some(name(part.number));
        court.segments += 1;
        court.frames += part.frames;
        if let Some(header) = &part.header {
            let number = header.number == part.number && header.genesis == self.genesis;
            let follows =
                header.first_seq == self.next_seq && self.chain.is_none_or(|chain| chain == header.chain_in);
            if !number || !follows && self.chain.is_some() {
                let what = "segment header contradicts what is before it".to_owned();
                court.tampered(file(), Some(0), Some(self.next_seq), what);
            }
        } else if self.chain.is_some() && part.chain_in.is_some() && part.chain_in != self.chain {
            let what = "segment does not follow the one before".to_owned();
            court.tampered(file(), Some(0), Some(self.next_seq), what);
        }
        let intact = part.range.is_some() && part.findings.problems.iter().all(|problem| problem.missing);
        for snapshot in &part.snapshots {
            let root = snapshot.range.as_ref().and_then(|part| {
                let mut whole = self.range.clone()?;
                whole.join(part).then(|| whole.root())?
            });
            self.reached.insert(snapshot.size, (root, snapshot.kind, snapshot.time_ns, snapshot.chain));
        }
        let whole = self.range.take();
        self.range =
            whole.zip(part.range.as_ref()).and_then(|(mut whole, range)| whole.join(range).then_some(whole));
        self.join_sessions(&part, intact, court);
        if let Some((offset, footer)) = &part.footer {
            let agrees = footer.number == part.number
                && footer.frames == part.frames
                && footer.next_seq == part.next_seq
                && part.chain_next.is_none_or(|chain| chain == footer.chain)
                && self.range.as_ref().and_then(Range::root).is_none_or(|root| root == footer.root)
                && (!self.sessions_known || footer.sessions == self.sessions);
            if !agrees && intact {
                let what = "segment footer contradicts its segment".to_owned();
                court.tampered(file(), Some(*offset), Some(part.next_seq), what);
            }
        }
        self.chain = part.chain_next;
        self.next_seq = part.next_seq;
        court.findings.problems.extend(part.findings.problems);
        court.findings.notes.extend(part.findings.notes);
    }

    fn join_sessions(&mut self, part: &Part, intact: bool, court: &mut Court) {
        if !intact {
            self.sessions_known = false;
        }
        let known = self.sessions_known;
        let mut blame = |seq: u64, what: &str| {
            if known {
                court.tampered(Some(name(part.number)), None, Some(seq), what.to_owned());
            }
        };
        for (session, seq) in &part.opened {
            if *session != self.sessions.next {
                blame(*seq, "session is opened out of its order: sessions before it are missing");
            }
            self.sessions.next = session + 1;
        }
        for (session, stretch) in &part.sessions {
            if let Some(before) = stretch.before
                && self.sessions.open.get(session) != Some(&before)
            {
                blame(stretch.first_seq, "entry does not follow its session's entry before");
            }
            if stretch.closed {
                self.sessions.open.remove(session);
            } else {
                self.sessions.open.insert(*session, stretch.link);
            }
        }
    }

    /// Compares what was signed with what is there.
    fn judge_claims(&self, court: &mut Court) {
        for claim in court.claims.clone() {
            let source = Some(claim.source.clone());
            if claim.size > self.next_seq {
                let what = format!(
                    "{} entries were signed, and {} are here: the end was cut off, or an older copy put back",
                    claim.size, self.next_seq
                );
                court.missing(source, None, Some(self.next_seq), what);
                continue;
            }
            let Some((root, kind, time_ns, chain)) = self.reached.get(&claim.size) else { continue };
            let Some(root) = root else {
                court
                    .findings
                    .notes
                    .push(format!("{} cannot be compared behind what is broken", claim.source));
                continue;
            };
            let chain_differs = claim.chain.is_some_and(|claimed| *chain != Some(claimed));
            if *root != claim.root || chain_differs || *kind != Kind::CHAIN_HEAD {
                let what = format!("the first {} entries are not those that were signed", claim.size);
                court.tampered(source, None, None, what);
            } else if claim.brought && court.anchor.as_ref().is_none_or(|anchor| anchor.size < claim.size) {
                court.anchor = Some(Anchor { source: claim.source, size: claim.size, time_ns: *time_ns });
            }
        }
    }
}

/// Checks the published tiles against the checkpoint, and bundles of entries, where there are any, against the tiles.
fn check_tiles(storage: &dyn Storage, claim: &Claim, live: bool, findings: &mut Findings) -> io::Result<()> {
    let bundled = !storage.list("tile/entries")?.is_empty();
    let mut size = claim.size;
    let mut above: Option<Vec<Digest>> = None;
    let mut whole = Range::empty(0);
    for level in 0..8 {
        let width = TILE_WIDTH as u64;
        let mut roots = Vec::new();
        let tiles = size.div_ceil(width);
        for index in 0..tiles {
            let here = usize::try_from((size - index * width).min(width)).unwrap_or(TILE_WIDTH);
            let path = tile_path(&level.to_string(), index, here);
            let mut bytes = read(storage, &path, TILE_WIDTH * 32);
            if live && bytes.is_err() {
                // The full tile takes a partial one's place.
                bytes = read(storage, &tile_path(&level.to_string(), index, TILE_WIDTH), TILE_WIDTH * 32);
                if let Ok(full) = &mut bytes {
                    full.truncate(here * 32);
                }
            }
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let what = "tile is missing; opening the ledger makes it anew".to_owned();
                    findings.add(true, Some(path), None, None, what);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    findings.add(false, Some(path), None, None, "tile is too long".to_owned());
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let hashes: Vec<Digest> =
                bytes.chunks_exact(32).map(|hash| Digest(crate::entry::array(hash))).collect();
            let start = usize::try_from(index * width).unwrap_or(usize::MAX);
            let agrees = above
                .as_ref()
                .is_none_or(|above| above.get(start..start + hashes.len()) == Some(&hashes[..]));
            if bytes.len() != here * 32 || !agrees {
                findings.add(
                    false,
                    Some(path),
                    None,
                    None,
                    "tile is not the one that the entries lead to".to_owned(),
                );
                return Ok(());
            }
            if level == 0 {
                hashes.iter().for_each(|hash| whole.push(*hash));
                if bundled {
                    check_bundle(storage, index, &hashes, findings)?;
                }
            }
            if here == TILE_WIDTH {
                roots.push(root_of(&hashes));
            }
        }
        size /= width;
        above = Some(roots);
        if size == 0 {
            break;
        }
    }
    if whole.root() != Some(claim.root) {
        let what = "the tiles do not lead to the checkpoint's root".to_owned();
        findings.add(false, Some("tile/0".to_owned()), None, None, what);
    }
    Ok(())
}

fn check_bundle(
    storage: &dyn Storage,
    index: u64,
    leaves: &[Digest],
    findings: &mut Findings,
) -> io::Result<()> {
    let path = tile_path("entries", index, leaves.len());
    let bytes = match read(storage, &path, TILE_WIDTH * (2 + crate::entry::ENTRY_BYTES_MAX)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            findings.add(true, Some(path), None, None, "bundle of entries is missing".to_owned());
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut rest = bytes.as_slice();
    let first = index * TILE_WIDTH as u64;
    for (expected, seq) in leaves.iter().zip(first..) {
        let entry = rest
            .split_first_chunk::<2>()
            .and_then(|(prefix, tail)| tail.split_at_checked(usize::from(u16::from_be_bytes(*prefix))));
        match entry {
            Some((entry, tail)) if leaf(entry) == *expected => rest = tail,
            _ => {
                let what = "bundle does not hold the entry that was signed".to_owned();
                findings.add(false, Some(path), None, Some((seq, seq)), what);
                return Ok(());
            }
        }
    }
    if !rest.is_empty() {
        findings.add(false, Some(path), None, None, "bundle is longer than its entries".to_owned());
    }
    Ok(())
}

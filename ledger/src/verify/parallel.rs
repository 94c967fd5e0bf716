//! Checks segments on all cores, each for itself; [`super::part`] has the rules.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Progress;
use super::claims::Claim;
use super::earlier::ends;
use super::epochs::EpochKeys;
use super::part::Part;
use crate::entry::Malformed;
use crate::hash::Committer;
use crate::manifest::Manifest;
use crate::merkle::Range;
use crate::segment::{Footer, SegmentReader, Step, name};
use crate::storage::{Mode, Storage};

/// How much of a segment each worker reads at a time.
const READ_AHEAD: usize = 1024 * 1024;
/// How often, and how long apart, the end of a live ledger is looked at until it is taken for what it looks like.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// What the workers share.
pub(super) struct Bench<'a> {
    pub(super) storage: &'a dyn Storage,
    pub(super) manifest: &'a Manifest,
    pub(super) claims: &'a [Claim],
    pub(super) epochs: &'a EpochKeys,
    pub(super) last: Option<u64>,
    pub(super) live: bool,
}

impl Bench<'_> {
    /// Checks the segments, and hands each to `join` in their order. Only so many wait for the one before them that
    /// memory does not grow with the ledger.
    pub(super) fn check_all(
        &self,
        numbers: &[u64],
        threads: usize,
        progress: &(dyn Fn(Progress) + Sync),
        join: &mut (dyn FnMut(Part) + Send),
    ) -> io::Result<()> {
        let threads = cores(threads).min(numbers.len()).max(1);
        let mut bytes_total = 0;
        for number in numbers {
            bytes_total += self.storage.open(&name(*number), Mode::Read)?.length()?;
        }
        let meter = Meter { progress, bytes_total, bytes: AtomicU64::new(0), entries: AtomicU64::new(0) };
        let line = Line {
            state: Mutex::new(Waiting { joined: 0, parts: BTreeMap::new(), stopped: None, join }),
            moved: Condvar::new(),
            room: 2 * threads,
        };
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    // Whoever waits must hear of it when this thread panics.
                    let alarm = Alarm(&line);
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        let Some(number) = numbers.get(place) else { break };
                        if !line.has_room(place) || !line.put(place, self.check(*number, &meter)) {
                            break;
                        }
                    }
                    std::mem::forget(alarm);
                });
            }
        });
        line.state.into_inner().stopped.map_or(Ok(()), Err)
    }

    /// Checks one segment for itself.
    fn check(&self, number: u64, meter: &Meter<'_>) -> io::Result<Part> {
        let mut reader =
            SegmentReader::new(self.storage.open(&name(number), Mode::Read)?)?.with_read_ahead(READ_AHEAD);
        let mut part = Part::new(number);
        let is_last = self.last == Some(number);
        let mut known = false;
        match reader.header()? {
            Ok(header) => {
                (part.first_seq, part.next_seq) = (header.first_seq, header.first_seq);
                (part.chain_in, part.chain_next) = (Some(header.chain_in), Some(header.chain_in));
                part.range = Some(Range::empty(header.first_seq));
                part.latest_ns = header.epoch.since_ns;
                part.key = self.epochs.admit(&header.epoch);
                if part.key.is_none() {
                    let what = "segment header names a key that the epoch before did not certify";
                    part.problem(0, Some(header.first_seq), what);
                }
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
                        part.key = self.epochs.key(frame.header.epoch);
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
                    retries = 0;
                    let now = reader.offset();
                    meter.add(now - seen, entries);
                    seen = now;
                    continue;
                }
                Step::Footer { offset, bytes } => {
                    let footer = match &part.key {
                        Some(key) => Footer::decode(bytes, offset, &self.manifest.origin, key),
                        None => Err(Malformed("segment footer is of an epoch whose key is not known")),
                    };
                    match footer {
                        Ok(footer) => {
                            part.ends = part.header.as_ref().map(|header| ends(header, bytes));
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
            if self.live && is_last && retries < LOOKS {
                // The writer may be in the middle of this very frame: no write takes as long as all these looks.
                retries += 1;
                std::thread::sleep(PAUSE);
                reader.refresh()?;
                continue;
            }
            reader.seek(offset);
            let goes_on = reader.find_next()?;
            if is_last && !goes_on && torn {
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
        part.settle_zeroed();
        Ok(part)
    }
}

/// How many threads are meant: 0 is as many as there are cores.
pub(super) fn cores(threads: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if threads == 0 { cores() } else { threads }
}

/// The parts on their way to be joined in order.
struct Line<'a> {
    state: Mutex<Waiting<'a>>,
    moved: Condvar,
    /// So many places ahead of the one that is joined next may be checked.
    room: usize,
}

struct Waiting<'a> {
    joined: usize,
    parts: BTreeMap<usize, Part>,
    stopped: Option<io::Error>,
    join: &'a mut (dyn FnMut(Part) + Send),
}

impl Line<'_> {
    /// Waits until this place may be checked; false where all is over. Whoever has the place that is joined next never waits.
    fn has_room(&self, place: usize) -> bool {
        let mut state = self.state.lock();
        while state.stopped.is_none() && place >= state.joined + self.room {
            self.moved.wait(&mut state);
        }
        state.stopped.is_none()
    }

    /// Joins what is now in order; false where all is over.
    fn put(&self, place: usize, part: io::Result<Part>) -> bool {
        let mut state = self.state.lock();
        match part {
            Ok(part) => drop(state.parts.insert(place, part)),
            Err(error) => state.stopped = Some(error),
        }
        let Waiting { joined, parts, join, .. } = &mut *state;
        while let Some(part) = parts.remove(joined) {
            join(part);
            *joined += 1;
        }
        self.moved.notify_all();
        state.stopped.is_none()
    }
}

struct Alarm<'a, 'b>(&'a Line<'b>);

impl Drop for Alarm<'_, '_> {
    fn drop(&mut self) {
        self.0.state.lock().stopped = Some(io::Error::other("a thread of the verifier panicked"));
        self.0.moved.notify_all();
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

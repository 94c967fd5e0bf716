//! A run of the ledger that knows what it wrote and what was acknowledged, and the oracle that compares both
//! with what a crash left.
//!
//! The same seed gives the same run: it alone chooses what is staged, when it is written, synced and published,
//! and when the writer is dropped and opened again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use fastrand::Rng;
use gatebook_ledger::reader::{self, Item};
use gatebook_ledger::verify::{Options, Report, Verdict, verify};
use gatebook_ledger::{Draft, Kind, Limits, Memory, MemoryKeys, OpenError, Origin, Recovery, Writer};

use crate::common::{CountedSalts, EVENT, keys};

/// An entry as it was staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Staged {
    pub(crate) kind: Kind,
    pub(crate) session: u64,
    pub(crate) body: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// What a run staged, by number, and what it was told.
#[derive(Clone)]
pub(crate) struct Book {
    pub(crate) staged: BTreeMap<u64, Staged>,
    /// Every entry before this was acknowledged.
    pub(crate) acknowledged: u64,
    /// The newest checkpoint that somebody saw.
    pub(crate) checkpoint: Option<Vec<u8>>,
    /// Its size.
    pub(crate) published: u64,
    /// The key that an auditor pinned.
    pub(crate) key: Option<gatebook_ledger::checkpoint::Vkey>,
    /// Whether creating the ledger returned.
    pub(crate) created: bool,
    /// The keys, which no fault of the disk reaches: they lie elsewhere, and each change of theirs is durable.
    pub(crate) keys: MemoryKeys,
}

impl Default for Book {
    fn default() -> Self {
        Book {
            staged: BTreeMap::new(),
            acknowledged: 0,
            checkpoint: None,
            published: 0,
            key: None,
            created: false,
            keys: *keys(),
        }
    }
}

pub(crate) fn limits(chance: &mut Rng) -> Limits {
    Limits {
        segment_bytes: [16, 24, 64][chance.usize(..3)] * 1024,
        fill_bytes: [0, 4096, 16 * 1024][chance.usize(..3)],
        frame_entries_bytes_max: 700,
        frame_payloads_bytes_max: [1024, 8192][chance.usize(..2)],
        ..Limits::default()
    }
}

/// Opens a ledger with keys that then go on with it.
pub(crate) fn open(
    storage: &Memory,
    keys: &MemoryKeys,
    limits: Limits,
) -> Result<(Writer, Recovery), OpenError> {
    let salts = Box::new(CountedSalts(u128::from(storage.calls()) << 64));
    Writer::open(Arc::new(storage.clone()), Box::new(keys.clone()), salts, limits, 2)
}

/// Why a run ended before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A storage call failed; the writer takes nothing more.
    Failed,
    /// What no fault of this kind may bring about.
    Wrong(String),
}

impl Book {
    /// Runs on one place, from nothing to the end of what the seed says, and goes on behind each failure by
    /// opening again, so often.
    pub(crate) fn write(seed: u64, storage: &Memory, mut reopenings: u32) -> (Book, Result<(), Stop>) {
        let mut book = Book::default();
        let mut chance = Rng::with_seed(seed);
        let mut steps = 14;
        loop {
            let result = book.attempt(&mut chance, storage, &mut steps);
            match result {
                Err(Stop::Failed) if reopenings > 0 => reopenings -= 1,
                result => return (book, result),
            }
        }
    }

    fn attempt(&mut self, chance: &mut Rng, storage: &Memory, steps: &mut u32) -> Result<(), Stop> {
        let limits = limits(chance);
        let mut writer =
            if self.created { self.reopen(storage, limits)? } else { self.create(storage, limits)? };
        while *steps > 0 {
            *steps -= 1;
            match chance.u8(..17) {
                0..8 => self.stage(chance, &mut writer)?,
                8..10 => failing(&mut writer, Writer::write)?,
                10..13 => self.commit(&mut writer)?,
                13..15 => self.publish(&mut writer, storage)?,
                15 => {
                    failing(&mut writer, |writer| writer.rotate(6))?;
                    self.acknowledged = writer.durable();
                }
                _ => {
                    drop(writer);
                    writer = self.reopen(storage, limits)?;
                }
            }
        }
        self.commit(&mut writer)?;
        if chance.bool() {
            self.publish(&mut writer, storage)?;
            let next = writer.next_seq();
            writer.close(9).map_err(|_| Stop::Failed)?;
            self.acknowledged = next;
        }
        Ok(())
    }

    pub(crate) fn create(&mut self, storage: &Memory, limits: Limits) -> Result<Writer, Stop> {
        let origin = Origin::new("test.example/simulated").unwrap();
        let salts = Box::new(CountedSalts(0));
        let place = Arc::new(storage.clone());
        // A creation that failed is taken up again; if it failed behind its manifest, the ledger is there.
        let writer = match Writer::create(place, &origin, Box::new(self.keys.clone()), salts, limits, 1) {
            Err(OpenError::Exists) => open(storage, &self.keys, limits).map(|(writer, _)| writer),
            other => other,
        };
        let writer = writer.map_err(|_| Stop::Failed)?;
        self.created = true;
        self.key = Some(writer.manifest().vkey());
        self.acknowledged = writer.durable();
        Ok(writer)
    }

    /// Opens again in the same place, as after the death of the process alone.
    pub(crate) fn reopen(&mut self, storage: &Memory, limits: Limits) -> Result<Writer, Stop> {
        let calls = storage.calls();
        match open(storage, &self.keys, limits) {
            Ok((writer, recovery)) => {
                self.recovered(&recovery, &writer).map_err(Stop::Wrong)?;
                Ok(writer)
            }
            // It fails where a call fails, which an injected fault alone does, and only once.
            Err(OpenError::Storage(error)) if storage.calls() > calls && is_injected(&error) => {
                Err(Stop::Failed)
            }
            Err(error) => Err(Stop::Wrong(format!("cannot be opened again: {error}"))),
        }
    }

    /// Takes over what recovery found: nothing acknowledged may be missing, and all that is there is durable now.
    pub(crate) fn recovered(&mut self, recovery: &Recovery, writer: &Writer) -> Result<(), String> {
        self.staged.retain(|seq, _| *seq < recovery.entries);
        if recovery.entries < self.acknowledged {
            return Err(format!(
                "{} entries were acknowledged, and recovery found {}",
                self.acknowledged, recovery.entries
            ));
        }
        self.acknowledged = writer.durable();
        Ok(())
    }

    /// Forgets what was staged and not acknowledged: a recovery that failed may have put its own entries there.
    pub(crate) fn forget_unacknowledged(&mut self) {
        let acknowledged = self.acknowledged;
        self.staged.retain(|seq, _| *seq < acknowledged);
    }

    fn stage(&mut self, chance: &mut Rng, writer: &mut Writer) -> Result<(), Stop> {
        let open = writer.open_sessions();
        let (kind, session) = match (chance.u8(..8), open.first()) {
            (0..3, _) => (Kind::SESSION_OPENED, writer.next_session()),
            (3, Some(session)) => (Kind::SESSION_CLOSED, *session),
            (4..6, Some(_)) => (EVENT, open[chance.usize(..open.len())]),
            _ => (EVENT, 0),
        };
        let length = [0, 20, 700, 5000][chance.usize(..4)];
        let payload = std::iter::repeat_with(|| chance.u8(..)).take(length).collect();
        let body = format!(r#"{{"n":{}}}"#, chance.u32(..1000));
        self.stage_one(writer, kind, session, body.as_bytes(), payload)
    }

    pub(crate) fn stage_one(
        &mut self,
        writer: &mut Writer,
        kind: Kind,
        session: u64,
        body: &[u8],
        payload: Vec<u8>,
    ) -> Result<(), Stop> {
        let seq = writer.stage(&Draft { kind, time_ns: 5, session, body, payload: &payload });
        let seq = seq.map_err(|error| Stop::Wrong(format!("an entry is not taken: {error}")))?;
        self.staged.insert(seq, Staged { kind, session, body: body.to_vec(), payload });
        Ok(())
    }

    pub(crate) fn commit(&mut self, writer: &mut Writer) -> Result<(), Stop> {
        failing(writer, Writer::write)?;
        self.acknowledged = failing(writer, Writer::sync)?;
        Ok(())
    }

    pub(crate) fn publish(&mut self, writer: &mut Writer, storage: &Memory) -> Result<(), Stop> {
        let Some(publication) = failing(writer, |writer| writer.publish(9))? else { return Ok(()) };
        self.acknowledged = writer.durable();
        // Tiles and checkpoint are derived, and the writer goes on without them.
        if publication.store(storage).is_ok() {
            self.checkpoint = Some(publication.note.clone().into_bytes());
            self.published = publication.checkpoint.size;
        }
        Ok(())
    }

    /// The oracle of a crash: the ledger opens, everything acknowledged is there, and an auditor agrees.
    pub(crate) fn check_crash(&self, image: &Memory, limits: Limits) -> Result<(), String> {
        let mut book = Book { keys: self.keys.fork(), ..self.clone() };
        let (writer, recovery) = match open(image, &book.keys, limits) {
            Err(_) if !self.created => {
                let mut anew = Book::default();
                return match anew.create(image, limits) {
                    Ok(_) => Ok(()),
                    Err(stop) => Err(format!("a ledger that was never there cannot be created: {stop:?}")),
                };
            }
            opened => opened.map_err(|error| format!("cannot be opened: {error}"))?,
        };
        book.recovered(&recovery, &writer)?;
        book.check_cut(image, &recovery)?;
        let entries = writer.next_seq();
        drop(writer);
        book.check_at_rest(image, entries)
    }

    /// What was cut is kept, and the ledger says so.
    fn check_cut(&self, image: &Memory, recovery: &Recovery) -> Result<(), String> {
        let Some(cut) = &recovery.cut else { return Ok(()) };
        let kept = image.bytes(&cut.quarantine).ok_or("what was cut is not in quarantine")?;
        if kept.len() as u64 != cut.bytes {
            return Err("what was cut is not whole in quarantine".to_owned());
        }
        Ok(())
    }

    /// Whether a ledger that nobody writes holds all of the book, and every quarantined piece is recorded.
    pub(crate) fn check_at_rest(&self, image: &Memory, entries: u64) -> Result<(), String> {
        let found = self.compare(image)?;
        if let Some(broken) = found.broken {
            return Err(format!("a reader says: {broken}"));
        }
        if found.entries != entries || entries < self.acknowledged {
            return Err(format!(
                "{} of {entries} entries are read, {} were acknowledged",
                found.entries, self.acknowledged
            ));
        }
        for name in image.names() {
            let Some(piece) = name.strip_prefix("quarantine/").filter(|name| !name.ends_with(".new")) else {
                continue;
            };
            let hash = gatebook_ledger::hash::plain(&image.bytes(&name).unwrap()).to_string();
            if !found.recoveries.iter().any(|body| body.contains(&hash)) {
                return Err(format!("what was cut is not recorded: {piece}"));
            }
        }
        let report = self.judge(image);
        let good = if self.checkpoint.is_some() { Verdict::Verified } else { Verdict::Unanchored };
        if report.verdict != good || report.entries != entries {
            return Err(format!("the verifier says {:?}: {:?}", report.verdict, report.problems));
        }
        Ok(())
    }

    pub(crate) fn judge(&self, image: &Memory) -> Report {
        let checkpoints = self.checkpoint.iter().map(|note| ("kept".to_owned(), note.clone())).collect();
        verify(
            image,
            &Options { key: self.key.clone(), checkpoints, threads: 1, ..Options::default() },
            &|_| {},
        )
        .unwrap()
    }

    /// Reads everything and compares it with what was staged: other bytes are wrong, fewer are not.
    pub(crate) fn compare(&self, image: &Memory) -> Result<Found, String> {
        let mut found = Found::default();
        let mut wrong = None;
        let read = reader::visit(image, None, |item| {
            match item {
                Item::Entry { entry, payload, .. } => {
                    let header = entry.header;
                    if header.kind == Kind::RECOVERY {
                        found.recoveries.push(String::from_utf8_lossy(entry.body).into_owned());
                    }
                    if payload.is_none() {
                        found.broken = Some(format!("payload of entry {} is broken", header.seq));
                    }
                    if let Some(staged) = self.staged.get(&header.seq) {
                        let same = (staged.kind, staged.session) == (header.kind, header.session)
                            && staged.body == entry.body
                            && payload.is_none_or(|payload| payload == staged.payload);
                        if !same {
                            wrong = Some(format!("entry {} is not the one that was staged", header.seq));
                        }
                    }
                    found.entries += 1;
                }
                Item::Broken { place, why, .. } => {
                    found.broken = Some(format!("segment {}, offset {}: {why}", place.segment, place.offset));
                }
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = read {
            found.broken = Some(error.to_string());
        }
        wrong.map_or(Ok(found), Err)
    }
}

/// What a reader finds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) entries: u64,
    pub(crate) recoveries: Vec<String>,
    pub(crate) broken: Option<String>,
}

/// Runs a step of the writer; where it fails, nothing more may be taken.
fn failing<T, E: std::fmt::Debug>(
    writer: &mut Writer,
    step: impl FnOnce(&mut Writer) -> Result<T, E>,
) -> Result<T, Stop> {
    step(writer).map_err(|error| {
        let draft = Draft { kind: EVENT, time_ns: 5, session: 0, body: b"{}", payload: b"" };
        let takes = writer.stage(&draft).is_ok() || writer.write().is_ok() || writer.sync().is_ok();
        if takes || !writer.is_poisoned() || writer.publish(9).is_ok() {
            Stop::Wrong(format!("the writer goes on behind {error:?}"))
        } else {
            Stop::Failed
        }
    })
}

fn is_injected(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::StorageFull || error.to_string().contains("made to fail")
}

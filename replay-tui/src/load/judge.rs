//! The verifier's words in the app's, and the proof of a single entry.
//!
//! A proof here is made from what lies in the directory, and then checked like a stranger's: the path from the
//! entry's bytes must lead to the root of a checkpoint that the ledger's keys signed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use gatebook_ledger::checkpoint::{NOTE_BYTES_MAX, Note, Vkey};
use gatebook_ledger::hash::Digest;
use gatebook_ledger::merkle::{StoredTiles, proof};
use gatebook_ledger::storage::{self, Directory};
use gatebook_ledger::verify::{self, Options, Progress, Report};
use gatebook_ledger::witness::Cosigner;
use gatebook_ledger::{reader, standing};

use super::LoadError;
use crate::figures::{counted, grouped};
use crate::message::{Problem, Proof, Standing, Verdict, VerdictState};

const CHECKPOINT: &str = "checkpoint";
const KEY_FILE_BYTES_MAX: u64 = 4_096;
const HASH_BYTES: usize = 32;

/// What the auditor brings along: a key, and checkpoints kept elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Pins {
    key: Option<Vkey>,
    checkpoints: Vec<PathBuf>,
    witnesses: Vec<Cosigner>,
}

impl Pins {
    /// Reads a verifier key, given as such or as a file's name, and checkpoint files.
    ///
    /// # Errors
    /// Of the files, or where the key is none.
    pub fn read(key: Option<&str>, checkpoints: &[PathBuf]) -> Result<Self, LoadError> {
        let key = key.map(read_key).transpose()?;
        let pins = Pins { key, checkpoints: checkpoints.to_vec(), witnesses: Vec::new() };
        // Files that are not there are the auditor's mistake, and said at once.
        pins.checkpoint_bytes()?;
        Ok(pins)
    }

    /// With witnesses that must have cosigned, each given as its verifier key or as a file's name.
    ///
    /// # Errors
    /// Of the files, or where a key is none.
    pub fn with_witnesses(mut self, witnesses: &[String]) -> Result<Self, LoadError> {
        self.witnesses = witnesses.iter().map(|key| read_key(key)).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Checkpoints kept elsewhere grow with the ledger, so they are read each time.
    fn checkpoint_bytes(&self) -> io::Result<Vec<(String, Vec<u8>)>> {
        self.checkpoints
            .iter()
            .map(|path| Ok((path.display().to_string(), read_bounded(path, NOTE_BYTES_MAX as u64)?)))
            .collect()
    }
}

fn read_key<K: FromStr>(key: &str) -> Result<K, LoadError> {
    if let Ok(key) = K::from_str(key.trim()) {
        return Ok(key);
    }
    let bytes = read_bounded(Path::new(key), KEY_FILE_BYTES_MAX)?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    K::from_str(text.trim()).map_err(|_| LoadError::NoKey(key.to_owned()))
}

fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let length = fs::metadata(path).map_err(named)?.len();
    if length > bytes_max {
        let error = io::Error::new(io::ErrorKind::InvalidData, format!("longer than {bytes_max} bytes"));
        return Err(named(error));
    }
    fs::read(path).map_err(named)
}

/// The exit code of a verdict, as `gatebook-ledger verify` ends.
#[must_use]
pub fn exit_code(verdict: &VerdictState) -> u8 {
    match verdict {
        VerdictState::Done(done) => match done.standing {
            Standing::Anchored => 0,
            Standing::Tampered => 1,
            Standing::Incomplete => 2,
            Standing::NotAnchored => 4,
        },
        VerdictState::Waiting | VerdictState::Running { .. } | VerdictState::Unreadable(_) => 3,
    }
}

/// Verifies a ledger from its first byte; tells on the way how much of it is checked, from 0 to 1.
pub fn verify(directory: &Path, pins: &Pins, progress: &(dyn Fn(f64) + Sync)) -> VerdictState {
    let verified = Directory::open(directory).and_then(|storage| {
        let options = Options {
            key: pins.key.clone(),
            checkpoints: pins.checkpoint_bytes()?,
            witnesses: pins.witnesses.clone(),
            ..Options::default()
        };
        verify::verify(&storage, &options, &|at: Progress| progress(share(at)))
    });
    match verified {
        Ok(report) => VerdictState::Done(verdict(report)),
        Err(error) => VerdictState::Unreadable(error.to_string()),
    }
}

fn share(at: Progress) -> f64 {
    let parts = u128::from(at.bytes) * 10_000 / u128::from(at.bytes_total.max(1));
    f64::from(u32::try_from(parts).unwrap_or(10_000)) / 10_000.0
}

fn verdict(report: Report) -> Verdict {
    let standing = match report.verdict {
        verify::Verdict::Verified => Standing::Anchored,
        verify::Verdict::Unanchored => Standing::NotAnchored,
        verify::Verdict::Incomplete => Standing::Incomplete,
        verify::Verdict::Tampered => Standing::Tampered,
    };
    let mut remarks = vec![format!(
        "{} in {}, {}, {}, {} open",
        counted(report.entries, "entry", "entries"),
        counted(report.segments, "segment", "segments"),
        counted(report.frames, "frame", "frames"),
        counted(report.sessions, "session", "sessions"),
        grouped(report.sessions_open),
    )];
    if let Some(key) = &report.key {
        let pinned = if report.key_pinned { "pinned by you" } else { "not pinned" };
        remarks.push(format!("log key, {pinned}: {key}"));
    }
    if let Some(anchor) = &report.anchor {
        let newer = counted(report.entries_after_anchor, "entry is newer", "entries are newer");
        remarks.push(format!("anchored by {} to {}; {newer}", anchor.source, grouped(anchor.size)));
    }
    remarks.extend(report.notes);
    Verdict {
        standing,
        entries: report.entries,
        anchored_entries: report.anchor.as_ref().map(|anchor| anchor.size),
        anchored_at_ns: report.anchor.as_ref().map(|anchor| anchor.time_ns),
        key_pinned: report.key_pinned,
        problems: report.problems.into_iter().map(problem).collect(),
        problems_count: report.problem_count,
        remarks,
    }
}

fn problem(problem: verify::Problem) -> Problem {
    let last = problem.entry_last.or(problem.entry);
    let place = match (&problem.file, problem.offset) {
        (Some(file), Some(offset)) => format!("{file} at byte {}", grouped(offset)),
        (Some(file), None) => file.clone(),
        (None, _) => "ledger".to_owned(),
    };
    Problem {
        seqs: problem.entry.zip(last).map(|(first, last)| first..last.saturating_add(1)),
        place,
        why: problem.what,
    }
}

/// Proves that an entry with this leaf hash stands in the ledger at its number.
///
/// # Errors
/// Why there is no proof, in words.
pub(super) fn prove(storage: &Directory, pins: &Pins, seq: u64, leaf: Digest) -> Result<Proof, String> {
    let words = |error: io::Error| error.to_string();
    let manifest = reader::manifest(storage).map_err(words)?;
    let note = storage::read(storage, CHECKPOINT, NOTE_BYTES_MAX).map_err(words)?;
    let note = Note::parse(&note).map_err(|error| format!("the checkpoint: {error}"))?;
    let keys = standing::checkpoint_keys(storage, &manifest, &note).map_err(words)?;
    let checkpoint = note.verify(&keys).map_err(|error| format!("the checkpoint: {error}"))?;
    if seq >= checkpoint.size {
        return Err(format!(
            "newer than the checkpoint, which covers {}; the next one will cover it",
            counted(checkpoint.size, "entry", "entries")
        ));
    }
    let tiles = StoredTiles::new(storage, checkpoint.size);
    let path = proof::inclusion(&tiles, seq, checkpoint.size).map_err(words)?;
    let root = proof::root_from_inclusion(seq, checkpoint.size, leaf, &path);
    let pinned = match &pins.key {
        None => "signed by the ledger's own keys; none is pinned",
        Some(key) if note.is_signed_by(key) => "signed by the key that you pinned",
        Some(_) => return Err("the key that you pinned did not sign the checkpoint".to_owned()),
    };
    let mut facts = vec![("leaf".to_owned(), leaf.to_string())];
    for (height, hash) in path.iter().enumerate() {
        let name = if height == 0 { "path" } else { "" };
        facts.push((name.to_owned(), hash.to_string()));
    }
    let bytes = counted((path.len() * HASH_BYTES) as u64, "byte", "bytes");
    facts.push(("in short".to_owned(), format!("{}, {bytes}", counted(path.len() as u64, "hash", "hashes"))));
    facts.push(("root".to_owned(), checkpoint.root.to_string()));
    facts.push(("checkpoint".to_owned(), format!("{} · {}", grouped(checkpoint.size), checkpoint.origin)));
    facts.push(("signature".to_owned(), pinned.to_owned()));
    Ok(Proof { facts, holds: root == Some(checkpoint.root) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gatebook_ledger::orders::{Cause, Change, Order};
    use gatebook_ledger::signature::Role;
    use gatebook_ledger::{Keys as _, Limits, MemoryKeys, Origin, SystemSalts, Writer};

    use super::*;

    #[test]
    fn a_proof_names_the_pinned_key_only_where_that_signed_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::new("gw1.corp.example/ledger").unwrap();
        let mut keys = MemoryKeys::new(Some(&[1; 32]), &[2; 32], &[3; 32]);
        let place = || Arc::new(Directory::create(folder.path()).unwrap());
        let salts = || Box::new(SystemSalts::default());
        let boxed = |keys: &MemoryKeys| Box::new(keys.clone());
        let limits = Limits { segment_bytes: 256 * 1024, fill_bytes: 64 * 1024, ..Limits::default() };
        let writer = Writer::create(place(), &origin, boxed(&keys), salts(), limits, 1).unwrap();
        writer.close(2).unwrap();
        let log_key = keys.draw(Role::Log(1)).unwrap();
        let change = Change { number: 1, cause: Cause::Revoked, overlap_s: 0, log_key };
        let order = Order::sign(&origin, change, &keys, Role::Root(0), None).unwrap();
        keys.bring_order(1, &order.body());
        let first = reader::manifest(place().as_ref()).unwrap().vkey();
        let (writer, _) = Writer::open(place(), boxed(&keys), salts(), limits, 3).unwrap();
        writer.close(4).unwrap();
        let proven = |key: Vkey| {
            let pins = Pins { key: Some(key), ..Pins::default() };
            prove(&place(), &pins, 0, Digest([0; 32])).map(|proof| proof.facts)
        };
        assert!(proven(first).unwrap_err().contains("did not sign"));
        let facts = proven(Vkey::log(&origin, log_key)).unwrap();
        assert!(facts.iter().any(|(_, fact)| fact == "signed by the key that you pinned"), "{facts:?}");
    }
}

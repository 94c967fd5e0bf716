//! A witness (C2SP tlog-witness): it remembers the newest checkpoint of each log that it knows, cosigns a newer
//! one only where that holds the one it remembers, and so makes a fork or a rollback show.
//!
//! This is the whole witness but for its network: a request's bytes go in, an answer comes out, and what is
//! remembered is durable before the answer exists. What a newcomer gets wrong: comparing the old size and
//! remembering the new one must be one step under one lock, or two requests at once roll it back.

pub mod cosignature;
pub mod kept;

use std::collections::HashMap;
use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use sha2::Digest as _;

pub use self::cosignature::{Cosigner, CosignerKey};

use crate::checkpoint::{Checkpoint, NOTE_BYTES_MAX, Note, Vkey};
use crate::hash::{Digest, empty_root};
use crate::merkle::proof::{HASHES_MAX, Head, is_consistent};
use crate::signature::Origin;
use crate::storage::{Storage, read};

/// The longest request: its first line, its proof, and a note.
pub const REQUEST_BYTES_MAX: usize = 32 + HASHES_MAX * 45 + NOTE_BYTES_MAX;
/// So many forks are kept as evidence; a log that makes more is known for what it is.
const EVIDENCE_MAX: usize = 100;

/// A request to cosign a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// The size of the checkpoint that the witness is thought to have cosigned last; 0 for none.
    pub old: u64,
    /// The consistency proof from there.
    pub proof: Vec<Digest>,
    /// The checkpoint, signed.
    pub note: &'a [u8],
}

impl Request<'_> {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("old {}\n", self.old);
        for hash in &self.proof {
            out.push_str(&STANDARD.encode(hash.0));
            out.push('\n');
        }
        out.push('\n');
        let mut out = out.into_bytes();
        out.extend_from_slice(self.note);
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// A lower-case fragment where it is not spelled as one.
    pub fn decode(bytes: &[u8]) -> Result<Request<'_>, &'static str> {
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err("request is too long");
        }
        let end =
            bytes.windows(2).position(|pair| pair == b"\n\n").ok_or("no empty line before the checkpoint")?;
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "request is not UTF-8")?;
        let mut lines = head.split('\n');
        let size =
            lines.next().and_then(|line| line.strip_prefix("old ")).ok_or("no line of the old size")?;
        let old: u64 = size.parse().map_err(|_| "old size is not a number")?;
        if old.to_string() != size {
            return Err("old size is not in its one spelling");
        }
        let mut proof = Vec::new();
        for line in lines {
            let hash = STANDARD.decode(line).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            proof.push(Digest(hash.ok_or("a line of the proof is not a hash")?));
        }
        if proof.len() > HASHES_MAX {
            return Err("proof has more than 63 lines");
        }
        Ok(Request { old, proof, note: &bytes[end + 2..] })
    }
}

/// What a witness answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200: its signature lines.
    Cosigned(String),
    /// 400: it is not a request.
    Malformed(&'static str),
    /// 403: no key that it trusts for this log signed the checkpoint.
    Forbidden,
    /// 404: it does not know this log.
    Unknown,
    /// 409: it cosigned a tree of this size last, and not that which the request begins from.
    Conflict(u64),
    /// 422: the proof does not lead from the tree that it cosigned to this one.
    Inconsistent,
}

/// One witness over its memory; the only one while it lives.
pub struct Witness {
    storage: Box<dyn Storage>,
    key: CosignerKey,
    cosigner: Cosigner,
    logs: HashMap<String, Vec<Vkey>>,
    /// The place's own lock; this one is held from reading what is remembered until the new checkpoint is.
    step: Mutex<Box<dyn Send>>,
}

impl Witness {
    /// Opens a witness's memory.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where another one has it; of the storage;
    /// [`io::ErrorKind::InvalidData`] where what it remembers is damaged: a witness that forgot is none.
    pub fn open(storage: Box<dyn Storage>, key: CosignerKey, logs: Vec<Vkey>) -> io::Result<Witness> {
        let lock = storage.lock()?;
        let cosigner = key.cosigner().map_err(io::Error::other)?;
        let mut known: HashMap<String, Vec<Vkey>> = HashMap::new();
        for log in logs {
            known.entry(log.name().to_string()).or_default().push(log);
        }
        let witness = Witness { storage, key, cosigner, logs: known, step: Mutex::new(lock) };
        for origin in witness.logs.keys() {
            witness.remembered(origin)?;
        }
        Ok(witness)
    }

    /// What those who rely on it pin.
    #[must_use]
    pub fn cosigner(&self) -> &Cosigner {
        &self.cosigner
    }

    /// The origins that it knows, with the size that it cosigned last, sorted.
    ///
    /// # Errors
    /// As [`Witness::latest`].
    pub fn logs(&self) -> io::Result<Vec<(&str, u64)>> {
        let mut logs = Vec::new();
        for origin in self.logs.keys() {
            logs.push((
                origin.as_str(),
                self.remembered(origin)?.map_or(0, |(checkpoint, _)| checkpoint.size),
            ));
        }
        logs.sort_unstable();
        Ok(logs)
    }

    /// Answers `add-checkpoint`. What it cosigns is durable on return.
    ///
    /// # Errors
    /// Of the storage: then nothing was cosigned.
    pub fn add_checkpoint(&self, request: &[u8], now_s: u64) -> io::Result<Answer> {
        let request = match Request::decode(request) {
            Ok(request) => request,
            Err(why) => return Ok(Answer::Malformed(why)),
        };
        let Ok(note) = Note::parse(request.note) else {
            return Ok(Answer::Malformed("checkpoint is not one"));
        };
        let checkpoint = note.unverified();
        let Some(keys) = self.logs.get(checkpoint.origin.as_str()) else { return Ok(Answer::Unknown) };
        if !keys.iter().any(|key| note.is_signed_by(key)) {
            return Ok(Answer::Forbidden);
        }
        if request.old > checkpoint.size {
            return Ok(Answer::Malformed("old size is beyond the checkpoint's"));
        }
        let step = self.step.lock();
        let known = self.remembered(checkpoint.origin.as_str())?;
        let (old, since) = known
            .map_or((Head { size: 0, root: empty_root() }, None), |(checkpoint, bytes)| {
                (Head { size: checkpoint.size, root: checkpoint.root }, Some(bytes))
            });
        let new = Head { size: checkpoint.size, root: checkpoint.root };
        if old.size == new.size && old.root != new.root {
            // Two trees of one size, both signed by the log: that is the proof of a fork, so it is kept.
            self.keep_evidence(request.note)?;
            return Ok(Answer::Conflict(old.size));
        }
        if request.old != old.size {
            return Ok(Answer::Conflict(old.size));
        }
        if !is_consistent(old, new, &request.proof) {
            return Ok(Answer::Inconsistent);
        }
        let line = self.key.cosign(note.text(), now_s);
        let brought = self.lines_of_the_log(request.note, &checkpoint.origin);
        let mut lines = match since.filter(|_| new.size == old.size) {
            Some(known) => self.lines_of_the_log(&known, &checkpoint.origin),
            None => Vec::new(),
        };
        // Somebody who carried it before may have left out lines, or added false ones: the true ones are welcome still.
        if lines.is_empty() || brought.iter().any(|line| !lines.contains(line)) {
            lines.retain(|line| !brought.contains(line));
            let note = |lines: &[String]| format!("{}\n{}{line}", note.text(), lines.concat());
            let all = note(&[brought.clone(), lines].concat());
            let kept = if all.len() > NOTE_BYTES_MAX { note(&brought) } else { all };
            if kept.len() > NOTE_BYTES_MAX {
                return Ok(Answer::Malformed("checkpoint is too long"));
            }
            self.storage.replace(&file(checkpoint.origin.as_str()), kept.as_bytes())?;
        }
        drop(step);
        Ok(Answer::Cosigned(line))
    }

    /// The newest checkpoint that it cosigned of the log whose origin has this SHA-256, in lower-case hexadecimal;
    /// none where it knows none. An auditor brings it to the verifier.
    ///
    /// # Errors
    /// Of the storage; [`io::ErrorKind::InvalidData`] where what it remembers is damaged.
    pub fn latest(&self, origin_hash: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(origin) = self.logs.keys().find(|origin| hash_of(origin) == origin_hash) else {
            return Ok(None);
        };
        let _step = self.step.lock();
        Ok(self.remembered(origin)?.map(|(_, bytes)| bytes))
    }

    fn remembered(&self, origin: &str) -> io::Result<Option<(Checkpoint, Vec<u8>)>> {
        let name = file(origin);
        let bytes = match read(self.storage.as_ref(), &name, NOTE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let checkpoint = Note::parse(&bytes).ok().filter(|note| {
            note.unverified().origin.as_str() == origin && matches!(self.cosigner.time_of(note), Ok(Some(_)))
        });
        match checkpoint {
            Some(note) => Ok(Some((note.unverified().clone(), bytes))),
            None => {
                let what = format!("{name} is not a checkpoint that this witness cosigned");
                Err(io::Error::new(io::ErrorKind::InvalidData, what))
            }
        }
    }

    /// The signature lines under the log's own names: its key's, and its epoch's, which our verifier wants too.
    /// Whoever replays a checkpoint can add any others, also false ones under the witness's own name.
    fn lines_of_the_log(&self, note: &[u8], origin: &Origin) -> Vec<String> {
        let text = String::from_utf8_lossy(note);
        let lines = text.split_once("\n\n").map_or("", |(_, lines)| lines);
        let is_the_logs = |line: &&str| {
            let name = line.split(' ').nth(1).unwrap_or_default();
            let below = name
                .strip_prefix(origin.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            below && name != self.cosigner.name().as_str()
        };
        lines.split_terminator('\n').filter(is_the_logs).map(|line| format!("{line}\n")).collect()
    }

    fn keep_evidence(&self, note: &[u8]) -> io::Result<()> {
        let name = format!("{}", crate::hash::plain(note));
        let kept = self.storage.list("evidence")?;
        if kept.len() < EVIDENCE_MAX && !kept.contains(&name) {
            self.storage.replace(&format!("evidence/{name}"), note)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Witness").field("cosigner", &self.cosigner).finish_non_exhaustive()
    }
}

/// Where a log's newest checkpoint lies: an origin may hold what a file's name may not.
fn file(origin: &str) -> String {
    format!("checkpoints/{}", hash_of(origin))
}

/// The SHA-256 of an origin, in lower-case hexadecimal: the log's name in paths.
#[must_use]
pub fn hash_of(origin: &str) -> String {
    Digest(sha2::Sha256::digest(origin.as_bytes()).into()).to_string()
}

//! What was signed about the ledger: by the auditor's checkpoints, the published one, the state file.

use std::io;

use super::Options;
use super::report::Findings;
use crate::checkpoint::{NOTE_BYTES_MAX, Note};
use crate::hash::Digest;
use crate::manifest::Manifest;
use crate::state::{self, Slots};
use crate::storage::{Mode, Storage, read};
use crate::writer::CHECKPOINT;

/// A size and root that somebody signed.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) source: String,
    pub(super) size: u64,
    pub(super) root: Digest,
    /// The chain's value after it, where the claim says.
    pub(super) chain: Option<Digest>,
    /// Whether the auditor brought it.
    pub(super) brought: bool,
}

/// Everything that was signed: the auditor's checkpoints, the one in the directory, the state file.
pub(super) fn claims(
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

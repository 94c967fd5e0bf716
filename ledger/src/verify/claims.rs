//! What was signed about the ledger: by the auditor's checkpoints, the published one, the state file.

use std::io;

use super::Options;
use super::report::Findings;
use crate::checkpoint::{NOTE_BYTES_MAX, Note};
use crate::hash::Digest;
use crate::manifest::Manifest;
use crate::state::{self, Slots};
use crate::storage::{Mode, Storage, read};
use crate::witness::kept::COSIGNED;
use crate::writer::CHECKPOINT;

/// A size and root that somebody signed.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) source: String,
    pub(super) size: u64,
    pub(super) root: Digest,
    /// The chain's value after it, where the claim says.
    pub(super) chain: Option<Digest>,
    /// The epoch that it was signed in, where the claim says.
    pub(super) epoch: Option<u32>,
    /// The note, whose signatures are checked once the entries tell which keys were in force.
    pub(super) note: Option<Note>,
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
    let mut take =
        |source: &str, bytes: &[u8], brought: bool, findings: &mut Findings| match Note::parse(bytes) {
            Ok(note) if note.unverified().origin != manifest.origin => {
                let what = "not a good checkpoint: it is of another ledger".to_owned();
                findings.add(false, Some(source.to_owned()), None, None, what);
            }
            Ok(note) => {
                let (size, root, source) =
                    (note.unverified().size, note.unverified().root, source.to_owned());
                // Which epoch signed it is told by the entries: a note may carry anybody's lines.
                let epoch = None;
                claims.push(Claim { source, size, root, chain: None, epoch, note: Some(note), brought });
            }
            Err(why) => findings.add(false, Some(source.to_owned()), None, None, why.to_string()),
        };
    match read(storage, CHECKPOINT, NOTE_BYTES_MAX) {
        Ok(bytes) => take(CHECKPOINT, &bytes, false, findings),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            findings.notes.push("nothing is published here: no checkpoint, no tiles".to_owned());
        }
        Err(error) => return Err(error),
    }
    for name in storage.list(COSIGNED)?.iter().filter(|name| !name.ends_with(".new")) {
        let source = format!("{COSIGNED}/{name}");
        take(&source, &read(storage, &source, NOTE_BYTES_MAX)?, false, findings);
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
                let (source, epoch) = (state::NAME.to_owned(), Some(newest.epoch));
                let (size, root, chain) = (newest.size, newest.root, Some(newest.chain));
                claims.push(Claim { source, size, root, chain, epoch, note: None, brought: false });
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

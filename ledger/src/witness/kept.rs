//! What a ledger keeps of its witnesses: of each the newest checkpoint that it cosigned, in `cosigned/`.
//!
//! The checkpoint that is published gets the line too, as long as it is still that one: the next takes its place
//! a moment later and has no cosignature yet, which is why each witness's newest is kept beside.

use std::io;

use super::cosignature::{Cosigner, FalseCosignature, accept};
use crate::checkpoint::{NOTE_BYTES_MAX, Note};
use crate::storage::{Storage, read};
use crate::writer::CHECKPOINT;

/// The folder of the newest checkpoints that witnesses cosigned.
pub const COSIGNED: &str = "cosigned";

/// The file of one witness's newest.
#[must_use]
pub fn file(cosigner: &Cosigner) -> String {
    format!("{COSIGNED}/{:08x}", u32::from_be_bytes(cosigner.id()))
}

/// Keeps a witness's answer to a note, where it holds the witness's cosignature. Nobody may publish a checkpoint
/// meanwhile.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] where the answer holds no such line; of the storage.
pub fn keep(storage: &dyn Storage, cosigner: &Cosigner, note: &[u8], answer: &str) -> io::Result<()> {
    let invalid = |error: FalseCosignature| io::Error::new(io::ErrorKind::InvalidData, error);
    let parsed = parse(note)?;
    let line = accept(&parsed, cosigner, answer).map_err(invalid)?;
    let cosigned = [note, line.as_bytes()].concat();
    storage.replace(&file(cosigner), &cosigned)?;
    let published = read(storage, CHECKPOINT, NOTE_BYTES_MAX)?;
    let current = parse(&published)?;
    if current.text() == parsed.text() && cosigner.time_of(&current).map_err(invalid)?.is_none() {
        storage.replace(CHECKPOINT, &[&published[..], line.as_bytes()].concat())?;
    }
    Ok(())
}

fn parse(note: &[u8]) -> io::Result<Note> {
    Note::parse(note).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

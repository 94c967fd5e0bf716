//! What can go wrong, told by who is at fault.

use std::io;

use crate::entry::Malformed;
use crate::manifest::BadManifest;
use crate::signature::KeyError;

/// Why a ledger cannot be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is a ledger already, where one shall be created.
    #[error("there is a ledger here already")]
    Exists,
    /// Another writer has it.
    #[error("another writer has this ledger")]
    Locked,
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] io::Error),
    /// `ledger.toml` is not one.
    #[error(transparent)]
    Manifest(#[from] BadManifest),
    /// A key is missing, or does not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The keys given are not those that the ledger began with.
    #[error("the {0} key given is not the one that this ledger began with")]
    OtherKey(&'static str),
    /// What is stored is wrong in a way that no crash explains. Nothing was changed; ask the verifier.
    #[error(
        "segment {segment:08}, offset {offset}: {why}; recovery cuts only what a crash can leave, so it stopped"
    )]
    Damaged {
        /// The segment's number.
        segment: u64,
        /// Where in its file.
        offset: u64,
        /// What is wrong.
        why: Malformed,
    },
    /// The entries are fewer than, or other than, what was signed. Nothing was changed; ask the verifier.
    #[error("{0}; this ledger was cut, or put back from an older copy")]
    Rollback(String),
}

impl From<WriteError> for OpenError {
    fn from(error: WriteError) -> OpenError {
        match error {
            WriteError::Storage(error) => OpenError::Storage(error),
            WriteError::Key(error) => OpenError::Key(error),
            other => OpenError::Storage(io::Error::other(other)),
        }
    }
}

/// Why an entry is not taken. The writer is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// The body is too long.
    #[error("body has {0} bytes, more than an entry can hold")]
    BodyTooLong(usize),
    /// The payload is too long.
    #[error("payload has {0} bytes, more than an entry can have")]
    PayloadTooLong(usize),
    /// The body or the session is not as the format wants it.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The key did not sign, or the writer failed before: nothing more can be written.
    #[error("the ledger's writer has failed before and takes nothing more")]
    Poisoned,
}

/// Why entries were not written. The writer takes nothing more; open the ledger again.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The storage failed. What it holds now is unknown until recovery looks.
    #[error("cannot write the ledger: {0}")]
    Storage(#[from] io::Error),
    /// A key did not sign.
    #[error("cannot sign: {0}")]
    Key(#[from] KeyError),
    /// It failed before.
    #[error("the ledger's writer has failed before and takes nothing more")]
    Poisoned,
    /// The writer's own entry was not taken.
    #[error(transparent)]
    Stage(#[from] StageError),
}

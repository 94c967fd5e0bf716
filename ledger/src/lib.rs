//! The book of a gateway: an append-only ledger, hash-chained, signed, and verifiable by a stranger.
//!
//! Segment files are the truth; tiles, checkpoint and index are derived from them. The byte-exact format is
//! `docs/ledger-format.md`. The log layer (everything outside [`event`]) knows neither clock nor network nor
//! the meaning of events, so that old and future events verify alike.
//!
//! Begin at [`Writer`] to write, at [`reader`] to read, at [`verify`] to judge.
#![forbid(unsafe_code)]

pub mod archive;
pub mod backup;
pub mod bundle;
pub mod checkpoint;
pub mod doctor;
pub mod entry;
pub mod epoch;
pub mod error;
pub mod event;
pub mod export;
pub mod hash;
pub mod index;
pub mod keys;
pub mod manifest;
pub mod merkle;
pub mod orders;
pub mod reader;
pub mod recovery;
pub mod segment;
pub mod session;
pub mod signature;
pub mod standing;
pub mod stat;
pub mod state;
pub mod storage;
pub mod text;
pub mod verify;
pub mod witness;
pub mod writer;

pub use entry::Kind;
pub use error::{OpenError, StageError, WriteError};
pub use recovery::Recovery;
pub use signature::{Keys, MemoryKeys, Origin};
pub use storage::{Directory, Memory, Storage};
pub use writer::{Draft, Limits, Publication, Salts, SystemSalts, Writer};

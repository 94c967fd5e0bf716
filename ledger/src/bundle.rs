//! What accompanies an export, so that a stranger can judge it alone: what it covers, and the proofs that tie it to
//! the checkpoint beside it. The byte-exact description is `docs/export.md`.
//!
//! What a newcomer gets wrong: nothing here is believed. `bundle.json` says what to expect, so that what is left out
//! shows; every statement of it is proven by the files beside it, or the bundle is false.

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::hash::Digest;
use crate::storage::{Storage, read};

/// What a bundle covers.
pub const COVER: &str = "bundle.json";
/// The proofs.
pub const PROOF: &str = "proof.json";
/// A session's entries with their payloads, one a line.
pub const RECORDS: &str = "session.jsonl";
/// The checkpoint of the export before.
pub const PREVIOUS: &str = "previous.checkpoint";

/// The format's name.
pub const FORMAT: &str = "gatebook-bundle/1";

/// The longest cover.
pub const COVER_BYTES_MAX: usize = 64 * 1024;
/// The longest proofs: room for the keys of a hundred thousand epochs.
pub const PROOF_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a bundle covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cover {
    /// [`FORMAT`].
    pub format: String,
    /// The ledger's name.
    pub origin: String,
    /// The ledger's first root key, in base64.
    pub root_key: String,
    /// The size of the checkpoint's tree.
    pub size: u64,
    /// Its root.
    pub root: Digest,
    /// Which part of the ledger it is.
    pub part: Part,
}

/// Which part of a ledger a bundle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    /// All of it.
    Ledger,
    /// The entries from `first` to `last`, and those that share a segment with them.
    Range {
        /// The first entry.
        first: u64,
        /// The last entry.
        last: u64,
    },
    /// One session, from its opening to its close.
    Session {
        /// Its number.
        number: u64,
        /// How many entries it has.
        entries: u64,
        /// The number of its close.
        last: u64,
    },
}

/// The proofs of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The ledger's first entry, which names the hash of `ledger.toml`.
    pub opened: Included,
    /// The epochs up to the checkpoint's, each as a segment's header has it, in base64.
    pub epochs: Vec<Base64>,
    /// The root key's orders under the checkpoint.
    pub orders: Vec<Included>,
    /// What says that payloads were taken out, under the checkpoint.
    pub redactions: Vec<Included>,
    /// The path from a session's last entry to the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Vec<Digest>>,
    /// The consistency proof from the previous export's checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Vec<Digest>>,
}

/// An entry, and the path from it to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Included {
    /// The entry's bytes.
    pub entry: Base64,
    /// The inclusion proof.
    pub path: Vec<Digest>,
}

/// An entry with its salt and payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The entry's bytes.
    pub entry: Base64,
    /// The payload.
    pub payload: Base64,
    /// The payload's salt.
    pub salt: Base64,
}

/// Bytes, spelled in base64: the standard alphabet, padded, in its one spelling.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl std::fmt::Debug for Base64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Base64).map_err(|_| serde::de::Error::custom("not base64"))
    }
}

/// What a directory says that it covers; none where it is no bundle.
///
/// # Errors
/// Of the storage; [`io::ErrorKind::InvalidData`] where it is there and is not one.
pub fn cover(storage: &dyn Storage) -> io::Result<Option<Cover>> {
    let bytes = match read(storage, COVER, COVER_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let cover: Cover = parse(COVER, &bytes)?;
    if cover.format == FORMAT { Ok(Some(cover)) } else { Err(invalid(COVER, "it is of an unknown format")) }
}

/// The proofs of a bundle.
///
/// # Errors
/// Of the storage; [`io::ErrorKind::InvalidData`] where they are not spelled as such.
pub fn proof(storage: &dyn Storage) -> io::Result<Proof> {
    parse(PROOF, &read(storage, PROOF, PROOF_BYTES_MAX)?)
}

fn parse<T: for<'a> Deserialize<'a>>(name: &str, bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|error| invalid(name, &error.to_string()))
}

fn invalid(name: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{name} is not one: {why}"))
}

//! The verbs, and what several of them need: opening a directory, reading a small file, telling a time.

use std::io;
use std::path::Path;

use gatebook_ledger::checkpoint::{NOTE_BYTES_MAX, Vkey};
use gatebook_ledger::{Directory, reader};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(crate) mod export;
pub(crate) mod find;
pub(crate) mod key;
pub(crate) mod rebuild_index;
pub(crate) mod show;
pub(crate) mod verify;
pub(crate) mod witness;

/// Opens a directory that holds a ledger or an export.
pub(crate) fn open(dir: &Path) -> io::Result<Directory> {
    let storage = Directory::open(dir)?;
    if reader::segments(&storage)?.is_empty() && !dir.join("ledger.toml").exists() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} holds no ledger", dir.display())));
    }
    Ok(storage)
}

/// Reads a file that cannot be longer than a note.
pub(crate) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let error =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(error)?;
    io::Read::read_to_end(&mut io::Read::take(file, NOTE_BYTES_MAX as u64 + 1), &mut bytes).map_err(error)?;
    Ok(bytes)
}

/// A verifier key of a log, given to `option` as itself or as the name of a file.
pub(crate) fn read_key(option: &str, given: &str) -> io::Result<Vkey> {
    if let Ok(key) = given.parse() {
        return Ok(key);
    }
    let bad = |error| io::Error::new(io::ErrorKind::InvalidInput, format!("{option}: {error}"));
    String::from_utf8_lossy(&read_small(Path::new(given))?).trim().parse().map_err(bad)
}

/// A time for people: RFC 3339, UTC.
pub(crate) fn instant(time_ns: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ns)).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| time_ns.to_string())
}

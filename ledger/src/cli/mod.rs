//! The verbs, and what several of them need: opening a directory, reading a small file, telling a time.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use gatebook_ledger::checkpoint::{NOTE_BYTES_MAX, Vkey};
use gatebook_ledger::witness::Cosigner;
use gatebook_ledger::{Directory, reader};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(crate) mod archive;
pub(crate) mod backup;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod find;
pub(crate) mod key;
pub(crate) mod keys;
pub(crate) mod rebuild_index;
pub(crate) mod rotate;
pub(crate) mod show;
pub(crate) mod stat;
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

/// A verifier key of a witness, given to `option` as itself or as the name of a file.
pub(crate) fn read_witness(option: &str, given: &str) -> io::Result<Cosigner> {
    if let Ok(key) = given.parse() {
        return Ok(key);
    }
    let bad = |error| io::Error::new(io::ErrorKind::InvalidInput, format!("{option}: {error}"));
    String::from_utf8_lossy(&read_small(Path::new(given))?).trim().parse().map_err(bad)
}

/// A verifier key of a log, given to `option` as itself or as the name of a file.
pub(crate) fn read_key(option: &str, given: &str) -> io::Result<Vkey> {
    if let Ok(key) = given.parse() {
        return Ok(key);
    }
    let bad = |error| io::Error::new(io::ErrorKind::InvalidInput, format!("{option}: {error}"));
    String::from_utf8_lossy(&read_small(Path::new(given))?).trim().parse().map_err(bad)
}

/// How long ago a time was, for people: the largest unit, rounded down.
pub(crate) fn age(time_ns: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs().saturating_sub(time_ns / 1_000_000_000);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A time for people: RFC 3339, UTC.
pub(crate) fn instant(time_ns: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ns)).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| time_ns.to_string())
}

/// A size for people: `3.1 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut unit, mut tenths) = (None, u128::from(bytes) * 10);
    for name in UNITS {
        if tenths < 10_240 {
            break;
        }
        (unit, tenths) = (Some(name), tenths / 1024);
    }
    match unit {
        None => format!("{bytes} bytes"),
        Some(unit) => format!("{}.{} {unit}", tenths / 10, tenths % 10),
    }
}

/// A size as operators write it: `0`, `500MiB`, `20GiB`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|byte: char| byte.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err("not a size like 500MiB".to_owned()),
    };
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "not a size like 500MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_written_and_read() {
        for (size, text) in
            [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3_328_599_654, "3.0 GiB")]
        {
            assert_eq!(bytes(size), text);
        }
        assert!(bytes(u64::MAX).ends_with("PiB"));
        for (text, size) in [("0", 0), ("7", 7), ("500MiB", 500 << 20), ("20 GiB", 20 << 30)] {
            assert_eq!(parse_bytes(text), Ok(size));
        }
        for bad in ["", "MiB", "-1", "1.5GiB", "1GB", "99999999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
    }
}

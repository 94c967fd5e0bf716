//! The same input gives the same bytes: a ledger's files are checked in, and only a change of format changes them.
//!
//! To write them anew: `GOLDEN=write cargo test -p gatebook-ledger --test golden`.

use std::path::{Path, PathBuf};

use gatebook_ledger::hash::Digest;
use gatebook_ledger::orders::Cause;
use gatebook_ledger::{Directory, Kind, Memory, Storage, export};

use crate::common::{EVENT, create_with, judge, keys, open_with, order_log_key, pinned, publish, stage};

/// A ledger with one of everything that the format has: sessions, one of them over the end of a segment, an epoch
/// that ends and an empty one, and a log key that is rotated.
fn write(storage: &Memory) {
    let mut keys = *keys();
    let mut writer = create_with(storage, &keys);
    stage(&mut writer, Kind::SESSION_OPENED, 1, br#"{"who":"dana"}"#);
    stage(&mut writer, EVENT, 1, b"first");
    writer.write().unwrap();
    writer.sync().unwrap();
    stage(&mut writer, EVENT, 1, b"");
    stage(&mut writer, Kind::SESSION_CLOSED, 1, b"");
    publish(storage, &mut writer);
    // Enough to seal a segment, with a session open over its end.
    stage(&mut writer, Kind::SESSION_OPENED, 2, b"who");
    for _ in 0..30 {
        stage(&mut writer, EVENT, 2, &[b'x'; 50]);
    }
    writer.rotate(10).unwrap();
    writer.rotate(20).unwrap();
    stage(&mut writer, EVENT, 2, b"in the third epoch");
    writer.close(30).unwrap();
    order_log_key(&mut keys, 1, Cause::Rotated, 3600);
    let (mut writer, _) = open_with(storage, &keys, 40).unwrap();
    stage(&mut writer, EVENT, 2, b"under the next log key");
    writer.close(50).unwrap();
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// One line a file: its length, BLAKE3 and name; and of the small ones, all their bytes beside.
fn describe(storage: &Memory) -> String {
    let mut lines = String::new();
    for name in storage.names() {
        let bytes = storage.bytes(&name).unwrap();
        let digest = Digest(*blake3::hash(&bytes).as_bytes());
        lines.push_str(&format!("{digest} {:>6} {name}\n", bytes.len()));
    }
    lines
}

#[test]
fn the_same_calls_write_the_same_bytes() {
    let storage = Memory::new();
    write(&storage);
    let folder = golden();
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
        let ledger = folder.join("ledger");
        drop(std::fs::remove_dir_all(&ledger));
        let to = Directory::create(&ledger).unwrap();
        export::export(&storage, &to).unwrap();
        std::fs::write(folder.join("files"), describe(&storage)).unwrap();
    }
    let expected = std::fs::read_to_string(folder.join("files")).unwrap();
    assert_eq!(describe(&storage), expected, "the format changed: is that meant?");
}

#[test]
fn the_ledger_that_is_checked_in_verifies_and_equals_what_is_written_today() {
    let storage = Memory::new();
    write(&storage);
    let kept = Directory::open(&golden().join("ledger")).unwrap();
    let report = judge(&kept, &pinned(&storage));
    assert_eq!(report.verdict.exit_code(), 0, "{:?}", report.problems);
    for name in ["ledger.toml", "checkpoint", "segments/00000000.seg", "segments/00000003.seg"] {
        let kept = gatebook_ledger::storage::read(&kept as &dyn Storage, name, 1 << 20).unwrap();
        assert_eq!(Some(kept), storage.bytes(name), "{name}");
    }
}

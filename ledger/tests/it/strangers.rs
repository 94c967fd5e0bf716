//! Verifiers that share no code with ours judge the same bundles: verify.py, Go's x/mod/sumdb, and the crates
//! `tlog_tiles` and `signed_note`. What ours accepts they accept, and what was changed they refuse, each as far as it looks.

use std::path::{Path, PathBuf};
use std::process::Command;

use gatebook_ledger::export::{Wanted, bundle};
use gatebook_ledger::orders::Cause;
use gatebook_ledger::verify::Options;
use gatebook_ledger::witness::{CosignerKey, Request, Witness, kept};
use gatebook_ledger::{
    Directory, Kind, Memory, Origin, Storage as _, Writer, archive, reader, segment, standing,
};
use zeroize::Zeroizing;

use crate::common::{EVENT, create, create_with, keys, open, open_with, order_log_key, publish, stage};

use crate::common::others::{crates_accept, go_accepts, ours, python};

/// A ledger in a directory, with a checkpoint that a witness cosigned.
struct World {
    folder: tempfile::TempDir,
    vkey: String,
    witness: String,
}

impl World {
    fn new() -> World {
        let storage = Memory::new();
        let mut writer = create(&storage);
        fill(&storage, &mut writer, 90);
        drop(writer);
        let (mut writer, _) = open(&storage).unwrap();
        fill(&storage, &mut writer, 30);
        let manifest = reader::manifest(&storage).unwrap();
        let key = CosignerKey::new(Origin::new("w.example/1").unwrap(), &Zeroizing::new([7; 32]));
        let log = gatebook_ledger::checkpoint::Vkey::log(
            &manifest.origin,
            standing::authority(&storage, &manifest).unwrap().log.key,
        );
        let vkey = log.to_string();
        let witness = Witness::open(Box::new(Memory::new()), key, vec![log]).unwrap();
        let note = storage.bytes("checkpoint").unwrap();
        let request = Request { old: 0, proof: Vec::new(), note: &note }.encode();
        let answer = witness.add_checkpoint(&request, 1_700_000_000).unwrap();
        let gatebook_ledger::witness::Answer::Cosigned(line) = answer else { panic!("{answer:?}") };
        kept::keep(&storage, witness.cosigner(), &note, &line).unwrap();
        drop(writer);
        let folder = tempfile::tempdir().unwrap();
        put(&storage, &folder.path().join("live"));
        World { folder, vkey, witness: witness.cosigner().to_string() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn export(&self, name: &str, wanted: Wanted) -> PathBuf {
        let out = self.path(name);
        let from = Directory::open(&self.path("live")).unwrap();
        bundle(&from, &Directory::create(&out).unwrap(), wanted, None).unwrap();
        out
    }

    fn options(&self) -> Options {
        Options {
            key: Some(self.vkey.parse().unwrap()),
            witnesses: vec![self.witness.parse().unwrap()],
            ..Options::default()
        }
    }
}

fn fill(storage: &Memory, writer: &mut Writer, rounds: u64) {
    let session = writer.next_session();
    stage(writer, Kind::SESSION_OPENED, session, b"who");
    for _ in 0..rounds {
        stage(writer, EVENT, session, b"what");
        stage(writer, EVENT, 0, b"");
        writer.write().unwrap();
        writer.sync().unwrap();
    }
    stage(writer, Kind::SESSION_CLOSED, session, b"");
    publish(storage, writer);
}

fn put(storage: &Memory, dir: &Path) {
    for name in storage.names() {
        let path = dir.join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, storage.bytes(&name).unwrap()).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
    assert!(Command::new("chmod").args(["-R", "u+w"]).arg(to).status().unwrap().success());
}

#[test]
fn all_accept_what_is_whole() {
    let world = World::new();
    let pins = ["--key", &world.vkey, "--witness", &world.witness];
    let export = world.export("export", Wanted::Ledger);
    let session = world.export("session", Wanted::Session(1));
    let range = world.export("range", Wanted::Range { first: 5, last: 9 });
    let live = world.path("live");
    for (dir, tiles) in [(&live, false), (&export, true), (&session, false), (&range, false)] {
        assert_eq!(ours(dir, &world.options()), 0, "{}", dir.display());
        let (code, text) = python(dir, &pins);
        assert_eq!(code, 0, "{}: {text}", dir.display());
        // Without a pin, and with an anchor that is not there.
        assert_eq!(ours(dir, &Options::default()), 4);
        assert_eq!(python(dir, &[]).0, 4);
        if *dir != live {
            let (accepts, text) = go_accepts(dir, &world.vkey, !tiles, None);
            assert!(accepts, "{}: {text}", dir.display());
        }
        // They want every bundle of entries; this range needs all that there are.
        assert_eq!(crates_accept(dir, &world.vkey, false, None), tiles || *dir == range, "{}", dir.display());
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ledger");
    let manifest = reader::manifest(&Directory::open(&golden).unwrap()).unwrap();
    let log = standing::authority(&Directory::open(&golden).unwrap(), &manifest).unwrap().log.key;
    let vkey = gatebook_ledger::checkpoint::Vkey::log(&manifest.origin, log).to_string();
    let checkpoint = golden.join("checkpoint");
    let (code, text) = python(&golden, &["--key", &vkey, "--checkpoint", checkpoint.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    assert!(go_accepts(&golden, &vkey, false, None).0 && crates_accept(&golden, &vkey, false, None));
}

#[test]
fn none_accepts_what_was_changed_where_it_looks() {
    let world = World::new();
    let dirs = [
        world.export("export", Wanted::Ledger),
        world.export("session", Wanted::Session(1)),
        world.export("range", Wanted::Range { first: 5, last: 9 }),
        world.path("live"),
    ];
    for dir in &dirs {
        let list = Command::new("find").arg(dir).args(["-type", "f", "-printf", "%P\n"]).output().unwrap();
        let names = String::from_utf8(list.stdout).unwrap();
        let live = dir.ends_with("live");
        // A live directory keeps tiles of the checkpoint before, which no verifier needs.
        let unneeded = |name: &str| {
            matches!(name, "README.md" | "verify.py" | "lock") || live && name.starts_with("tile/")
        };
        for name in names.lines().filter(|name| !unneeded(name)) {
            let good = std::fs::read(dir.join(name)).unwrap();
            let places: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
            for at in [places[0], places[places.len() / 2]] {
                let changed = world.path("changed");
                if changed.exists() {
                    std::fs::remove_dir_all(&changed).unwrap();
                }
                copy(dir, &changed);
                let mut bytes = good.clone();
                bytes[at] ^= 0x21;
                std::fs::write(changed.join(name), bytes).unwrap();
                let place = format!("{}/{name}, byte {at}", dir.file_name().unwrap().display());
                let verdict = ours(&changed, &world.options());
                let (code, text) = python(&changed, &["--key", &world.vkey, "--witness", &world.witness]);
                assert_eq!(verdict, 1, "{place}: {text}");
                assert_eq!(code, 1, "{place}: {text}");
                // The strangers look at tree, proofs, and the log key's signature.
                let tree = name.starts_with("tile/") && dir.ends_with("export");
                if tree || name == "checkpoint" && at < 60 {
                    assert!(!go_accepts(&changed, &world.vkey, false, None).0, "{place}");
                    assert!(!crates_accept(&changed, &world.vkey, false, None), "{place}");
                }
            }
        }
    }
}

#[test]
fn both_verifiers_tell_an_older_copy_by_a_checkpoint_kept_elsewhere() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&storage, &mut writer, 10);
    let folder = tempfile::tempdir().unwrap();
    let older = folder.path().join("older");
    put(&storage, &older);
    fill(&storage, &mut writer, 10);
    let newer = folder.path().join("newer.checkpoint");
    std::fs::write(&newer, storage.bytes("checkpoint").unwrap()).unwrap();
    let vkey = writer.manifest().vkey().to_string();
    let (code, text) = python(&older, &["--key", &vkey, "--checkpoint", newer.to_str().unwrap()]);
    assert_eq!(code, 2, "{text}");
    let bytes = std::fs::read(&newer).unwrap();
    let options = Options {
        key: Some(vkey.parse().unwrap()),
        checkpoints: vec![("newer".to_owned(), bytes)],
        ..Options::default()
    };
    assert_eq!(ours(&older, &options), 2);
}

/// Exit codes of both verifiers with these pins.
fn both(dir: &Path, vkey: &str, checkpoint: Option<&Path>) -> (u8, i32, String) {
    let mut arguments = vec!["--key", vkey];
    let mut options = Options { key: Some(vkey.parse().unwrap()), ..Options::default() };
    if let Some(path) = checkpoint {
        arguments.extend(["--checkpoint", path.to_str().unwrap()]);
        options.checkpoints = vec![("kept".to_owned(), std::fs::read(path).unwrap())];
    }
    let (code, text) = python(dir, &arguments);
    (ours(dir, &options), code, text)
}

fn agree(dir: &Path, vkey: &str, checkpoint: Option<&Path>, expected: u8, what: &str) -> String {
    let (ours, theirs, text) = both(dir, vkey, checkpoint);
    assert_eq!((ours, theirs), (expected, i32::from(expected)), "{what}: {text}");
    text
}

/// Three epochs of several segments, closed; gives its verifier key. Its checkpoint is kept beside it as `kept`.
fn epochs(folder: &Path) -> String {
    let (storage, keys) = (Memory::new(), keys());
    let mut writer = create_with(&storage, &keys);
    for now in [100, 200] {
        fill(&storage, &mut writer, 12);
        writer.rotate(now).unwrap();
    }
    writer.rotate(300).unwrap();
    fill(&storage, &mut writer, 12);
    let vkey = writer.manifest().vkey().to_string();
    writer.close(400).unwrap();
    put(&storage, &folder.join("ledger"));
    std::fs::write(folder.join("kept"), storage.bytes("checkpoint").unwrap()).unwrap();
    vkey
}

#[test]
fn a_segment_that_is_missing_is_missing_and_no_more_to_both() {
    let folder = tempfile::tempdir().unwrap();
    let vkey = epochs(folder.path());
    let (ledger, kept) = (folder.path().join("ledger"), folder.path().join("kept"));
    agree(&ledger, &vkey, Some(&kept), 0, "whole");
    let numbers = reader::segments(&Directory::open(&ledger).unwrap()).unwrap();
    assert!(numbers.len() > 8, "{numbers:?}");
    // In the last one nothing stands yet.
    for number in &numbers[..numbers.len() - 1] {
        let holed = folder.path().join("holed");
        drop(std::fs::remove_dir_all(&holed));
        copy(&ledger, &holed);
        std::fs::remove_file(holed.join(segment::name(*number))).unwrap();
        agree(&holed, &vkey, Some(&kept), 2, &format!("without segment {number}"));
        // What is behind the hole is read all the same.
        let Some(behind) = numbers.get(usize::try_from(*number).unwrap() + 2) else { continue };
        let path = holed.join(segment::name(*behind));
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.len() == segment::BLOCK {
            // The next one, in which nothing stands yet.
            continue;
        }
        bytes[4096 + 100] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        agree(&holed, &vkey, Some(&kept), 1, &format!("without segment {number}, and {behind} changed"));
    }
}

#[test]
fn both_read_segments_where_the_archive_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let vkey = epochs(folder.path());
    let (ledger, kept) = (folder.path().join("ledger"), folder.path().join("kept"));
    copy(&ledger, &folder.path().join("writable"));
    let (ledger, archived) = (folder.path().join("writable"), folder.path().join("archive"));
    let moved = archive::archive(&Directory::open(&ledger).unwrap(), &archived, 0).unwrap();
    assert!(moved.segments > 3, "{moved:?}");
    agree(&ledger, &vkey, Some(&kept), 0, "archived");
    let map = std::fs::read_to_string(ledger.join("archived")).unwrap();
    std::fs::write(ledger.join("archived"), map.replace("# Sealed", "# sealed")).unwrap();
    agree(&ledger, &vkey, Some(&kept), 3, "a map that is none");
    std::fs::write(ledger.join("archived"), &map).unwrap();
    let first = archived.join("00000000.seg");
    let good = std::fs::read(&first).unwrap();
    std::fs::remove_file(&first).unwrap();
    agree(&ledger, &vkey, Some(&kept), 3, "the archive lost one");
    let mut bytes = good;
    bytes[4096 + 100] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    agree(&ledger, &vkey, Some(&kept), 1, "one was changed in the archive");
    std::fs::remove_file(ledger.join("archived")).unwrap();
    agree(&ledger, &vkey, Some(&kept), 2, "nothing says where they are");
}

#[test]
fn both_judge_lines_of_a_note_for_what_they_are() {
    let world = World::new();
    let dirs = [
        world.path("live"),
        world.export("export", Wanted::Ledger),
        world.export("session", Wanted::Session(1)),
        world.export("range", Wanted::Range { first: 5, last: 9 }),
    ];
    let kept = world.path("kept");
    for dir in &dirs {
        let name = dir.display().to_string();
        let note = std::fs::read_to_string(dir.join("checkpoint")).unwrap();
        let (text, lines) = note.split_once("\n\n").unwrap();
        let added = format!("{text}\n\n\u{2014} test.example/ledger/epoch/9 AAAAAAAA\n{lines}");
        std::fs::write(dir.join("checkpoint"), &added).unwrap();
        std::fs::write(&kept, &added).unwrap();
        agree(dir, &world.vkey, Some(&kept), 0, &format!("{name}: somebody added a line"));
        let without = |sought: &str| {
            let lines: Vec<&str> = lines.lines().filter(|line| !line.contains(sought)).collect();
            format!("{text}\n\n{}\n", lines.join("\n"))
        };
        for lost in ["/epoch/", "ledger "] {
            std::fs::write(&kept, without(lost)).unwrap();
            let text = agree(dir, &world.vkey, Some(&kept), 4, &format!("{name}: without {lost}"));
            assert!(text.contains("not usable"), "{name}: {text}");
        }
        let root = text.lines().nth(2).unwrap();
        let other = added.replacen(root, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 1);
        std::fs::write(&kept, other).unwrap();
        agree(dir, &world.vkey, Some(&kept), 1, &format!("{name}: another root"));
        std::fs::write(dir.join("checkpoint"), without("/epoch/")).unwrap();
        agree(dir, &world.vkey, None, 1, &format!("{name}: its own checkpoint lacks a line"));
    }
}

#[test]
fn both_take_the_end_of_a_live_ledger_for_what_it_is() {
    let (folder, storage) = (tempfile::tempdir().unwrap(), Memory::new());
    let (ledger, kept) = (folder.path().join("ledger"), folder.path().join("kept"));
    let mut writer = create(&storage);
    fill(&storage, &mut writer, 2);
    let vkey = writer.manifest().vkey().to_string();
    drop(writer);
    put(&storage, &ledger);
    std::fs::write(&kept, storage.bytes("checkpoint").unwrap()).unwrap();
    let _writer = Directory::open(&ledger).unwrap().lock().unwrap();
    agree(&ledger, &vkey, Some(&kept), 0, "live");
    let last = reader::segments(&Directory::open(&ledger).unwrap()).unwrap().pop().unwrap();
    let path = ledger.join(segment::name(last));
    let good = std::fs::read(&path).unwrap();
    let frame = (0..good.len()).step_by(4096).rfind(|at| good[*at..].starts_with(b"GBFRAME1")).unwrap();
    let mut bad = good.clone();
    bad[frame + 100] ^= 1;
    std::fs::write(&path, bad).unwrap();
    agree(&ledger, &vkey, Some(&kept), 1, "a changed byte in the last frame");
    let end = (good.iter().rposition(|byte| *byte != 0).unwrap() + 1).next_multiple_of(4096);
    let mut half = good[..end].to_vec();
    half.extend_from_slice(&good[frame..frame + 60]);
    half.resize(end + 4096, 0);
    std::fs::write(&path, half).unwrap();
    agree(&ledger, &vkey, Some(&kept), 4, "a write that goes on");
}

#[test]
fn a_part_names_no_other_key_to_pin_without_a_note_by_the_one_pinned() {
    let (storage, mut keys) = (Memory::new(), *keys());
    let mut writer = create_with(&storage, &keys);
    fill(&storage, &mut writer, 5);
    let old = writer.manifest().vkey().to_string();
    let folder = tempfile::tempdir().unwrap();
    let before = folder.path().join("before");
    std::fs::write(&before, storage.bytes("checkpoint").unwrap()).unwrap();
    drop(writer);
    let new = order_log_key(&mut keys, 1, Cause::Rotated, 0);
    let (mut writer, _) = open_with(&storage, &keys, 10).unwrap();
    fill(&storage, &mut writer, 5);
    let new = gatebook_ledger::checkpoint::Vkey::log(&writer.manifest().origin, new).to_string();
    drop(writer);
    put(&storage, &folder.path().join("live"));
    let from = Directory::open(&folder.path().join("live")).unwrap();
    for (name, wanted) in [("session", Wanted::Session(1)), ("range", Wanted::Range { first: 0, last: 5 })] {
        let out = folder.path().join(name);
        bundle(&from, &Directory::create(&out).unwrap(), wanted, Some(&std::fs::read(&before).unwrap()))
            .unwrap();
        agree(&out, &new, Some(&before), 0, name);
        let text = agree(&out, &old, None, 4, name);
        assert!(text.contains("whose ledger this is") && !text.contains(&format!("pin {new}")), "{text}");
        let text = agree(&out, &old, Some(&before), 4, name);
        assert!(text.contains(&format!("pin {new}")), "{text}");
    }
}

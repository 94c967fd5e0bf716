//! The verifier, judged by what it says of ledgers that were tampered with.

use gatebook_ledger::storage::Crash;
use gatebook_ledger::verify::{Options, Verdict};
use gatebook_ledger::{Draft, Kind, Memory, Storage, export};

use crate::common;
use crate::common::{EVENT, create, fill, judge, open, pinned, publish, stage};

/// A closed ledger of several segments.
fn written(rounds: u64) -> Memory {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&storage, &mut writer, rounds);
    writer.close(9).unwrap();
    storage
}

fn copy(storage: &Memory) -> Memory {
    storage.crash(Crash::LosesNothing)
}

#[test]
fn a_good_ledger_is_verified_only_under_a_pinned_key_and_an_anchor() {
    let storage = written(40);
    let report = judge(&storage, &pinned(&storage));
    assert_eq!((report.verdict, report.problems.as_slice()), (Verdict::Verified, &[][..]));
    assert!(report.segments > 2 && report.key_pinned && report.entries_after_anchor == 0);
    assert_eq!((report.sessions, report.sessions_open), (2, 1));
    let pins = pinned(&storage);
    let no_key = Options { key: None, ..pins.clone() };
    assert_eq!(judge(&storage, &no_key).verdict, Verdict::Unanchored);
    let no_anchor = Options { checkpoints: Vec::new(), ..pins };
    assert_eq!(judge(&storage, &no_anchor).verdict, Verdict::Unanchored);
}

#[test]
fn another_pinned_key_or_a_foreign_checkpoint_is_no_approval() {
    let storage = written(3);
    let mut pins = pinned(&storage);
    pins.key = Some("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap());
    assert_eq!(judge(&storage, &pins).verdict, Verdict::Tampered);
    let mut pins = pinned(&storage);
    pins.checkpoints[0].1[25] ^= 1;
    assert_eq!(judge(&storage, &pins).verdict, Verdict::Tampered);
}

#[test]
fn every_flipped_byte_is_found() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    stage(&mut writer, EVENT, 0, b"payload");
    writer.close(9).unwrap();
    let pins = pinned(&storage);
    let files = storage.names();
    assert!(files.iter().any(|name| name.starts_with("tile/")) && files.len() >= 5, "{files:?}");
    // Of the padding, every 101st byte is tried; of all else every one where the build is optimised, and every
    // 5th where each signature takes milliseconds.
    let step = if cfg!(debug_assertions) { 5 } else { 1 };
    let mut flips: Vec<(&str, usize)> = Vec::new();
    for name in &files {
        let good = storage.bytes(name).unwrap();
        flips.extend(
            (0..good.len())
                .filter(|at| good[*at] != 0 && at % step == 0 || at % 101 == 0)
                .map(|at| (name.as_str(), at)),
        );
    }
    let half = flips.len() / 2;
    std::thread::scope(|scope| {
        for flips in [&flips[..half], &flips[half..]] {
            let (storage, pins) = (&storage, &pins);
            scope.spawn(move || {
                for (name, at) in flips {
                    let changed = copy(storage);
                    let mut bytes = storage.bytes(name).unwrap();
                    bytes[*at] ^= 0x41;
                    changed.set_bytes(name, &bytes);
                    let pins = (at % 10 == 0).then(|| pins.clone());
                    for options in [Some(Options::default()), pins].into_iter().flatten() {
                        let report = judge(&changed, &options);
                        assert_eq!(
                            report.verdict,
                            Verdict::Tampered,
                            "{name}, byte {at}: {:?}",
                            report.problems
                        );
                    }
                }
            });
        }
    });
}

#[test]
fn a_flipped_byte_is_told_by_its_entry() {
    let storage = written(40);
    let segment = "segments/00000000.seg";
    let good = storage.bytes(segment).unwrap();
    let mut reader = None;
    gatebook_ledger::reader::visit(&storage, None, |item| {
        if let gatebook_ledger::reader::Item::Entry { place, entry, .. } = item
            && entry.header.seq == 5
        {
            reader = Some((place.offset, entry.bytes.to_vec()));
            return std::ops::ControlFlow::Break(());
        }
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let (offset, entry) = reader.unwrap();
    let at = good.windows(entry.len()).position(|window| window == entry).unwrap();
    let mut bytes = good.clone();
    bytes[at + entry.len() - 2] ^= 1;
    let changed = copy(&storage);
    changed.set_bytes(segment, &bytes);
    let report = judge(&changed, &pinned(&storage));
    let problem = &report.problems[0];
    assert_eq!((problem.entry, problem.entry_last, problem.offset), (Some(5), None, Some(offset)));
    assert_eq!(problem.file.as_deref(), Some(segment));
    // A payload: its first byte follows its salt, which this test's generator counts up.
    let mut salted = 5u128.to_be_bytes().to_vec();
    salted.extend_from_slice(b"xxxx");
    let payload = good.windows(20).position(|window| window == salted).unwrap() + 16;
    let mut bytes = good;
    bytes[payload] ^= 1;
    changed.set_bytes(segment, &bytes);
    let report = judge(&changed, &pinned(&storage));
    assert_eq!(report.problem_count, 1);
    assert_eq!((report.problems[0].entry, report.verdict), (Some(4), Verdict::Tampered));
}

#[test]
fn what_is_missing_is_told_as_missing() {
    let storage = written(40);
    let pins = pinned(&storage);
    let names: Vec<String> =
        storage.names().into_iter().filter(|name| name.starts_with("segments/")).collect();
    // The last segments; the very last may hold no entry yet.
    let old = copy(&storage);
    names[names.len() - 2..].iter().for_each(|name| old.remove(name).unwrap());
    let report = judge(&old, &pins);
    assert_eq!(report.verdict, Verdict::Incomplete, "{:?}", report.problems);
    // A segment in the middle.
    let holed = copy(&storage);
    holed.remove(&names[1]).unwrap();
    assert_ne!(judge(&holed, &pins).verdict, Verdict::Verified);
    assert!(judge(&holed, &pins).problems.iter().any(|problem| problem.file.as_ref() == Some(&names[1])));
}

#[test]
fn an_older_copy_shows_only_beside_a_newer_checkpoint() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&storage, &mut writer, 3);
    publish(&storage, &mut writer);
    let old = copy(&storage);
    stage(&mut writer, EVENT, 0, b"");
    writer.close(9).unwrap();
    let new = pinned(&storage);
    assert_eq!(judge(&old, &pinned(&old)).verdict, Verdict::Verified);
    assert_eq!(judge(&old, &new).verdict, Verdict::Incomplete);
}

#[test]
fn an_unfinished_write_is_incomplete_until_recovery_cuts_it() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&storage, &mut writer, 1);
    publish(&storage, &mut writer);
    stage(&mut writer, EVENT, 0, &[b'y'; 2000]);
    writer.write().unwrap();
    let unsynced = storage.unsynced_bytes();
    let crashed = storage.crash(Crash::KeepsBytes(unsynced - 3000));
    let pins = pinned(&crashed);
    let report = judge(&crashed, &pins);
    assert_eq!(report.verdict, Verdict::Incomplete, "{:?}", report.problems);
    let (writer, recovery) = open(&crashed).unwrap();
    assert!(recovery.cut.is_some());
    writer.close(9).unwrap();
    assert_eq!(judge(&crashed, &pins).verdict, Verdict::Verified);
}

#[test]
fn a_live_ledger_verifies_at_every_step_of_its_writer() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    let pins = Options { key: Some(writer.manifest().vkey()), ..Options::default() };
    for round in 0..14 {
        stage(&mut writer, EVENT, 0, &[b'x'; 3000]);
        writer.write().unwrap();
        let report = judge(&storage, &pins);
        assert_eq!((report.problems.as_slice(), report.entries), (&[][..], writer.next_seq()), "{round}");
        writer.sync().unwrap();
        if round % 5 == 0 {
            publish(&storage, &mut writer);
        }
    }
}

#[test]
fn an_export_holds_a_whole_tlog_directory_and_verifies() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&storage, &mut writer, 130);
    publish(&storage, &mut writer);
    let pins = pinned(&storage);
    stage(&mut writer, EVENT, 0, b"newer");
    writer.write().unwrap();
    let out = Memory::new();
    let exported = export::export(&storage, &out).unwrap();
    assert_eq!(exported.published + 1, writer.next_seq());
    let report = judge(&out, &pins);
    assert_eq!(
        (report.verdict, report.entries_after_anchor),
        (Verdict::Verified, 1),
        "{:?}",
        report.problems
    );
    assert!(
        out.names().contains(&"tile/entries/000".to_owned())
            && out.names().contains(&"tile/0/000".to_owned())
    );
    assert!(export::export(&storage, &out).is_err(), "only into an empty place");
    for name in out.names().iter().filter(|name| name.starts_with("tile/")) {
        let changed = copy(&out);
        let mut bytes = out.bytes(name).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        changed.set_bytes(name, &bytes);
        let report = judge(&changed, &pins);
        assert_eq!(report.verdict, Verdict::Tampered, "{name}");
        let removed = copy(&out);
        removed.remove(name).unwrap();
        assert_eq!(judge(&removed, &pins).verdict, Verdict::Incomplete, "{name}");
    }
}

#[test]
fn sessions_that_a_crash_left_open_are_there_to_be_closed() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&storage, &mut writer, 3);
    drop(writer);
    let (mut writer, recovery) = open(&storage).unwrap();
    assert_eq!(recovery.open_sessions, [2]);
    stage(&mut writer, Kind::SESSION_CLOSED, 2, b"");
    writer.close(3).unwrap();
    assert_eq!(judge(&storage, &pinned(&storage)).sessions_open, 0);
}

#[test]
fn lines_that_others_add_to_a_note_change_nothing_and_a_lost_one_is_no_tampering() {
    let storage = written(9);
    let pins = pinned(&storage);
    let note = String::from_utf8(pins.checkpoints[0].1.clone()).unwrap();
    let (text, lines) = note.split_once("\n\n").unwrap();
    let added = format!("{text}\n\n\u{2014} test.example/ledger/epoch/9 AAAAAAAA\n{lines}");
    storage.set_bytes("checkpoint", added.as_bytes());
    let bring = |note: &str| Options {
        checkpoints: vec![("brought".to_owned(), note.as_bytes().to_vec())],
        ..pins.clone()
    };
    let report = judge(&storage, &bring(&added));
    assert_eq!(report.verdict, Verdict::Verified, "{:?}", report.problems);
    // Without its epoch's line it is worth nothing, and says nothing against the ledger.
    let (stripped, _) = note.split_once("\u{2014} test.example/ledger/epoch/").unwrap();
    let report = judge(&storage, &bring(stripped));
    assert_eq!((report.verdict, report.anchor), (Verdict::Unanchored, None), "{:?}", report.problems);
    assert!(report.notes.iter().any(|note| note.contains("not usable")), "{:?}", report.notes);
    // With another root it does.
    let other =
        note.replacen(note.lines().nth(2).unwrap(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 1);
    assert_eq!(judge(&storage, &bring(&other)).verdict, Verdict::Tampered);
}

#[test]
fn a_changed_byte_at_the_end_of_a_live_ledger_is_not_taken_for_a_write() {
    let storage = written(3);
    let pins = pinned(&storage);
    let _writer = storage.lock().unwrap();
    assert_eq!(judge(&storage, &pins).verdict, Verdict::Verified);
    let last = storage.names().into_iter().rfind(|name| name.starts_with("segments/")).unwrap();
    let good = storage.bytes(&last).unwrap();
    let frame = (0..good.len()).step_by(4096).rfind(|at| good[*at..].starts_with(b"GBFRAME1")).unwrap();
    let mut bad = good.clone();
    bad[frame + 100] ^= 1;
    storage.set_bytes(&last, &bad);
    assert_eq!(judge(&storage, &pins).verdict, Verdict::Tampered);
    // What looks like a write that goes on is none of which the best can be said.
    let mut half = good.clone();
    half.extend_from_slice(&good[frame..frame + 60]);
    half.resize(good.len() + 4096, 0);
    storage.set_bytes(&last, &half);
    let report = judge(&storage, &pins);
    assert_eq!(report.verdict, Verdict::Unanchored, "{:?}", report.problems);
}

/// A ledger whose first segment is sealed, and what stands in it.
fn sealed(redaction: &str) -> (Memory, Options) {
    let (storage, keys) = (Memory::new(), common::keys());
    let mut writer = common::create_with(&storage, &keys);
    stage(&mut writer, EVENT, 0, b"a secret");
    stage(&mut writer, EVENT, 0, b"another");
    writer.rotate(10).unwrap();
    if !redaction.is_empty() {
        let body = redaction.as_bytes();
        let draft = Draft { kind: Kind::REDACTION, time_ns: 11, session: 0, body, payload: b"" };
        writer.stage(&draft).unwrap();
    }
    writer.close(12).unwrap();
    let pins = pinned(&storage);
    (storage, pins)
}

/// Overwrites a payload and its salt with zeros.
fn wipe(storage: &Memory, payload: &[u8]) {
    let name = "segments/00000000.seg";
    let mut bytes = storage.bytes(name).unwrap();
    let at = bytes.windows(payload.len()).position(|window| window == payload).unwrap();
    bytes[at - 16..at + payload.len()].fill(0);
    storage.set_bytes(name, &bytes);
}

#[test]
fn a_payload_that_a_redaction_names_may_be_gone_and_no_other() {
    let (storage, pins) = sealed(r#"{"first":1,"last":1,"reason":"asked for"}"#);
    assert_eq!(judge(&storage, &pins).redacted, 0, "not yet");
    wipe(&storage, b"a secret");
    let report = judge(&storage, &pins);
    assert_eq!((report.verdict, report.redacted), (Verdict::Verified, 1), "{:?}", report.problems);
    wipe(&storage, b"another");
    assert_eq!(judge(&storage, &pins).verdict, Verdict::Tampered);
    let (storage, pins) = sealed("");
    wipe(&storage, b"a secret");
    assert_eq!(judge(&storage, &pins).verdict, Verdict::Tampered);
    let (storage, pins) = sealed(r#"{"first":1,"last":9,"reason":"of what is yet to come"}"#);
    wipe(&storage, b"a secret");
    assert_eq!(judge(&storage, &pins).verdict, Verdict::Tampered);
}

#[test]
fn a_segment_cut_down_to_its_footer_is_missing_and_no_more() {
    let (storage, pins) = sealed("");
    let name = "segments/00000000.seg";
    let bytes = storage.bytes(name).unwrap();
    let footer = (0..bytes.len()).step_by(4096).find(|at| bytes[*at..].starts_with(b"GBFOOT01")).unwrap();
    let mut pruned = [&bytes[..4096], &bytes[footer..]].concat();
    let offset_at = pruned.len() - 16;
    pruned[offset_at..offset_at + 8].copy_from_slice(&4096_u64.to_be_bytes());
    storage.set_bytes(name, &pruned);
    let report = judge(&storage, &pins);
    assert_eq!(report.verdict, Verdict::Incomplete, "{:?}", report.problems);
    assert!(report.root.is_some(), "the tree goes on from the footer");
}

//! Bundles for strangers: what they hold, what they prove, and what no byte of them may tell.

use gatebook_ledger::export::{Wanted, bundle};
use gatebook_ledger::verify::{Options, Report, Verdict};
use gatebook_ledger::{Kind, Memory, Storage as _, Writer};

use crate::common::{EVENT, create, judge, open, pinned, publish, stage};

/// Sessions whose entries interleave, each with payloads of its own; the last one stays open.
fn sessions(storage: &Memory, writer: &mut Writer, rounds: u64) {
    let numbers: Vec<u64> = (0..4)
        .map(|_| {
            let number = writer.next_session();
            stage(writer, Kind::SESSION_OPENED, number, canary(number, 0).as_bytes());
            number
        })
        .collect();
    for round in 1..=rounds {
        for number in &numbers {
            stage(writer, EVENT, *number, canary(*number, round).as_bytes());
        }
        writer.write().unwrap();
        writer.sync().unwrap();
    }
    for number in &numbers[..3] {
        stage(writer, Kind::SESSION_CLOSED, *number, b"");
    }
    publish(storage, writer);
}

fn canary(session: u64, round: u64) -> String {
    format!("canary-{session}-{round}-")
}

fn written() -> Memory {
    let storage = Memory::new();
    let mut writer = create(&storage);
    sessions(&storage, &mut writer, 40);
    sessions(&storage, &mut writer, 40);
    drop(writer);
    storage
}

fn exported(storage: &Memory, wanted: Wanted) -> Memory {
    let out = Memory::new();
    bundle(storage, &out, wanted, None).unwrap();
    out
}

fn copy(storage: &Memory) -> Memory {
    let copy = Memory::new();
    for name in storage.names() {
        copy.set_bytes(&name, &storage.bytes(&name).unwrap());
    }
    copy
}

fn is_good(report: &Report) {
    assert_eq!(report.verdict, Verdict::Verified, "{:?} {:?}", report.problems, report.notes);
}

/// Every file of a bundle that is evidence: each is changed at many places, and none may pass.
fn no_change_passes(bundle: &Memory, pins: &Options, step: usize) {
    for name in bundle.names() {
        if matches!(name.as_str(), "README.md" | "verify.py") {
            continue;
        }
        let good = bundle.bytes(&name).unwrap();
        for at in (0..good.len()).filter(|at| at % step == 0 && good[*at] != 0 || at % (40 * step) == 0) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x41;
            let changed = copy(bundle);
            changed.set_bytes(&name, &bytes);
            let report = judge(&changed, pins);
            assert_eq!(report.verdict, Verdict::Tampered, "{name}, byte {at}: {:?}", report.problems);
        }
        let removed = copy(bundle);
        removed.remove(&name).unwrap();
        if name == "ledger.toml" {
            continue;
        }
        let report = gatebook_ledger::verify::verify(&removed, pins, &|_| {});
        assert!(!report.is_ok_and(|report| report.verdict == Verdict::Verified), "without {name}");
    }
}

#[test]
fn a_session_is_proven_whole_and_tells_nothing_of_any_other() {
    let storage = written();
    let pins = pinned(&storage);
    for number in [1, 2, 3, 5] {
        let out = exported(&storage, Wanted::Session(number));
        let report = judge(&out, &pins);
        is_good(&report);
        assert_eq!((report.entries, report.sessions), (42, 1));
        for name in ["bundle.json", "proof.json", "session.jsonl", "checkpoint", "README.md", "verify.py"] {
            assert!(out.names().iter().any(|found| found == name), "{name}");
        }
        assert!(!out.names().iter().any(|name| name.starts_with("segments/") || name.starts_with("tile/")));
        let all: Vec<u8> = out.names().iter().flat_map(|name| out.bytes(name).unwrap()).collect();
        let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
        let holds = |needle: &[u8]| all.windows(needle.len()).any(|window| window == needle);
        for session in 1..=8 {
            for round in 0..=40 {
                let (plain, coded) = (canary(session, round), encode(canary(session, round).as_bytes()));
                assert_eq!(holds(coded.as_bytes()), session == number, "session {session}, round {round}");
                assert!(!holds(plain.as_bytes()));
            }
        }
    }
}

#[test]
fn no_change_to_a_sessions_bundle_passes() {
    let storage = written();
    let out = exported(&storage, Wanted::Session(2));
    no_change_passes(&out, &pinned(&storage), if cfg!(debug_assertions) { 61 } else { 7 });
    // Lines left out, doubled, exchanged, or of another session.
    let text = String::from_utf8(out.bytes("session.jsonl").unwrap()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let with = |lines: Vec<&str>| {
        let changed = copy(&out);
        changed.set_bytes("session.jsonl", lines.concat().as_bytes());
        judge(&changed, &pinned(&storage)).verdict
    };
    assert_eq!(with(lines.clone()), Verdict::Verified);
    for at in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(at);
        let last = at == lines.len() - 1;
        let expected = if last { Verdict::Incomplete } else { Verdict::Tampered };
        assert_eq!(with(without), expected, "without line {at}");
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at]);
        assert_eq!(with(doubled), Verdict::Tampered, "line {at} twice");
        if at > 0 {
            let mut swapped = lines.clone();
            swapped.swap(at - 1, at);
            assert_eq!(with(swapped), Verdict::Tampered, "lines {at} and before exchanged");
        }
    }
    let other =
        String::from_utf8(exported(&storage, Wanted::Session(3)).bytes("session.jsonl").unwrap()).unwrap();
    assert_eq!(with(vec![&other]), Verdict::Tampered, "another session's entries");
}

#[test]
fn a_session_that_nothing_can_prove_whole_is_not_handed_over() {
    let storage = written();
    let refused = |number: u64| bundle(&storage, &Memory::new(), Wanted::Session(number), None).unwrap_err();
    assert!(refused(4).to_string().contains("is not closed"), "it is open");
    assert_eq!(refused(9).kind(), std::io::ErrorKind::NotFound);
    // Closed, but not under the checkpoint yet.
    let (mut writer, _) = open(&storage).unwrap();
    stage(&mut writer, Kind::SESSION_CLOSED, 4, b"");
    writer.write().unwrap();
    writer.sync().unwrap();
    assert!(refused(4).to_string().contains("is not closed"));
    publish(&storage, &mut writer);
    drop(writer);
    is_good(&judge(&exported(&storage, Wanted::Session(4)), &pinned(&storage)));
}

#[test]
fn a_range_is_proven_against_the_whole_tree() {
    let storage = written();
    let pins = pinned(&storage);
    let out = exported(&storage, Wanted::Range { first: 100, last: 120 });
    let report = judge(&out, &pins);
    is_good(&report);
    let segments =
        |storage: &Memory| storage.names().iter().filter(|name| name.starts_with("segments/")).count();
    assert!(segments(&out) < segments(&storage) && report.entries >= 21);
    let names = out.names();
    assert!(
        names.contains(&"tile/entries/000".to_owned())
            && !names.iter().any(|name| name.starts_with("tile/entries/001"))
    );
    no_change_passes(&out, &pins, if cfg!(debug_assertions) { 997 } else { 83 });
    let beyond = Wanted::Range { first: 0, last: 1_000_000 };
    assert!(bundle(&storage, &Memory::new(), beyond, None).is_err());
}

#[test]
fn two_exports_prove_that_the_second_continues_the_first() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    sessions(&storage, &mut writer, 10);
    let first = exported(&storage, Wanted::Ledger);
    is_good(&judge(&first, &pinned(&first)));
    drop(writer);
    let older = copy(&storage);
    let (mut writer, _) = open(&storage).unwrap();
    sessions(&storage, &mut writer, 20);
    let previous = first.bytes("checkpoint").unwrap();
    for wanted in [Wanted::Ledger, Wanted::Session(5), Wanted::Range { first: 60, last: 70 }] {
        let second = Memory::new();
        bundle(&storage, &second, wanted, Some(&previous)).unwrap();
        is_good(&judge(&second, &pinned(&storage)));
        // Who kept only the first export's checkpoint has an anchor too.
        let kept = Options { checkpoints: vec![("kept".to_owned(), previous.clone())], ..pinned(&storage) };
        is_good(&judge(&second, &kept));
        // A path that proves nothing.
        let text = String::from_utf8(second.bytes("proof.json").unwrap()).unwrap();
        let mut proof: serde_json::Value = serde_json::from_str(&text).unwrap();
        proof["previous"].as_array_mut().unwrap().pop();
        second.set_bytes("proof.json", proof.to_string().as_bytes());
        assert_eq!(judge(&second, &pinned(&storage)).verdict, Verdict::Tampered);
    }
    // Another history after the same first export.
    drop(writer);
    let (mut fork, _) = open(&older).unwrap();
    stage(&mut fork, EVENT, 0, b"another history");
    sessions(&older, &mut fork, 20);
    let newer = storage.bytes("checkpoint").unwrap();
    let second = Memory::new();
    let forked = bundle(&older, &second, Wanted::Ledger, Some(&newer));
    assert!(forked.is_err() || judge(&second, &pinned(&older)).verdict == Verdict::Tampered);
}

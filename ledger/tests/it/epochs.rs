//! Keys that hand over and are erased: judged by what the verifier says, and by which keys are left.

use std::sync::Arc;

use gatebook_ledger::checkpoint::{Note, Vkey};
use gatebook_ledger::manifest::Manifest;
use gatebook_ledger::orders::{Cause, Change, Order};
use gatebook_ledger::reader::{self, Item};
use gatebook_ledger::signature::Role;
use gatebook_ledger::storage::Crash;
use gatebook_ledger::verify::{Options, Verdict};
use gatebook_ledger::{
    Draft, Keys as _, Kind, Limits, Memory, MemoryKeys, OpenError, Origin, Writer, keys as folder,
};

use crate::common;
use crate::common::{
    CountedSalts, EVENT, create_with, fill, judge, keys, limits, open_with, order_log_key, pinned, publish,
    stage,
};

fn epochs_held(keys: &MemoryKeys) -> Vec<Role> {
    keys.held().into_iter().filter(|role| matches!(role, Role::Epoch(_))).collect()
}

fn count(storage: &Memory, kind: Kind) -> usize {
    let mut count = 0;
    reader::visit(storage, None, |item| {
        count += usize::from(matches!(item, Item::Entry { entry, .. } if entry.header.kind == kind));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    count
}

#[test]
fn an_epoch_that_ends_is_sealed_and_its_key_is_gone_also_of_an_empty_one() {
    let (storage, keys) = (Memory::new(), keys());
    let mut writer = create_with(&storage, &keys);
    fill(&storage, &mut writer, 12);
    for now in [10, 20, 30] {
        writer.rotate(now).unwrap();
    }
    assert_eq!(writer.epoch().number, 3);
    stage(&mut writer, EVENT, 0, b"later");
    writer.close(40).unwrap();
    assert_eq!(epochs_held(&keys), [Role::Epoch(3)]);
    let report = judge(&storage, &pinned(&storage));
    assert_eq!((report.verdict, report.epoch), (Verdict::Verified, 3), "{:?}", report.problems);
    assert_eq!(count(&storage, Kind::EPOCH_SEAL), 3);
    let (writer, recovery) = open_with(&storage, &keys, 50).unwrap();
    assert_eq!((recovery.cut, writer.epoch().number), (None, 3));
}

#[test]
fn an_epoch_ends_by_its_age_or_its_length_and_at_the_opening_too() {
    let (storage, keys) = (Memory::new(), keys());
    let limits = Limits { epoch_ns: 100, epoch_bytes: 40_000, ..limits() };
    let open = |now| {
        let salts = Box::new(CountedSalts(7));
        Writer::open(Arc::new(storage.clone()), Box::new((*keys).clone()), salts, limits, now).unwrap().0
    };
    drop(create_with(&storage, &keys));
    let mut writer = open(2);
    assert!(!writer.rotate_if_due(100).unwrap());
    assert!(writer.rotate_if_due(102).unwrap() && !writer.rotate_if_due(103).unwrap());
    for _ in 0..4 {
        stage(&mut writer, EVENT, 0, &[b'x'; 10_000]);
        writer.write().unwrap();
    }
    assert!(writer.rotate_if_due(104).unwrap());
    // A clock that was put back an hour ends one epoch, not one at each turn.
    assert!(writer.rotate_if_due(3).unwrap() && !writer.rotate_if_due(4).unwrap());
    drop(writer);
    assert_eq!(open(5000).epoch().number, 4);
}

#[test]
fn a_crash_at_any_step_of_a_rotation_recovers_with_one_key_left() {
    let prepared = || {
        let (storage, keys) = (Memory::new(), keys());
        let mut writer = create_with(&storage, &keys);
        fill(&storage, &mut writer, 2);
        stage(&mut writer, EVENT, 0, b"last of its epoch");
        (storage, keys, writer)
    };
    let (storage, _, mut writer) = prepared();
    let before = storage.calls();
    writer.rotate(10).unwrap();
    let steps = storage.calls() - before;
    drop(writer);
    assert!(steps >= 5, "{steps}");
    let (mut went_on, mut sealed) = (0, 0);
    for step in 0..=steps {
        for crash in [Crash::LosesAll, Crash::LosesNothing, Crash::KeepsBytes(4096), Crash::KeepsBytes(8192)]
        {
            let (storage, keys, mut writer) = prepared();
            let durable = writer.durable();
            storage.fail_from(step);
            let done = writer.rotate(10).is_ok();
            assert!(done || writer.is_poisoned());
            drop(writer);
            let crashed = storage.crash(crash);
            let (mut writer, recovery) = open_with(&crashed, &keys, 11).unwrap();
            assert!(recovery.entries >= durable, "step {step}, {crash:?}");
            let epoch = writer.epoch().number;
            assert!(epoch == 1 || !done);
            *(if epoch == 0 { &mut went_on } else { &mut sealed }) += 1;
            assert_eq!(epochs_held(&keys), [Role::Epoch(epoch)], "step {step}, {crash:?}");
            stage(&mut writer, EVENT, 0, b"");
            writer.rotate(12).unwrap();
            writer.close(13).unwrap();
            let report = judge(&crashed, &pinned(&crashed));
            assert_eq!(report.verdict, Verdict::Verified, "step {step}, {crash:?}: {:?}", report.problems);
            assert_eq!(count(&crashed, Kind::EPOCH_SEAL), epoch as usize + 1);
        }
    }
    assert!(went_on > 2 && sealed > 2, "{went_on} went on, {sealed} were sealed");
}

#[test]
fn a_seal_that_a_crash_kept_from_its_footer_gets_it_from_the_old_key() {
    let (storage, keys) = (Memory::new(), keys());
    let mut writer = create_with(&storage, &keys);
    stage(&mut writer, EVENT, 0, b"");
    // All that is written stays, but nothing after the one write that holds seal and footer.
    storage.fail_from(3);
    assert!(writer.rotate(10).is_err());
    drop(writer);
    let crashed = storage.crash(Crash::LosesNothing);
    let name = "segments/00000000.seg";
    let bytes = crashed.bytes(name).unwrap();
    let footer = (0..bytes.len()).step_by(4096).find(|at| bytes[*at..].starts_with(b"GBFOOT01")).unwrap();
    crashed.set_bytes(name, &bytes[..footer + 100]);
    let (writer, recovery) = open_with(&crashed, &keys, 20).unwrap();
    assert!(recovery.cut.is_some() && writer.epoch().number == 1);
    writer.close(30).unwrap();
    assert_eq!(epochs_held(&keys), [Role::Epoch(1)]);
    let report = judge(&crashed, &pinned(&crashed));
    assert_eq!(report.verdict, Verdict::Verified, "{:?}", report.problems);
}

#[test]
fn no_entry_is_older_than_its_epoch_whatever_the_clock_says() {
    let (storage, keys) = (Memory::new(), keys());
    let mut writer = create_with(&storage, &keys);
    let draft = |time_ns| Draft { kind: EVENT, time_ns, session: 0, body: b"{}", payload: b"" };
    writer.stage(&draft(1000)).unwrap();
    writer.rotate(10).unwrap();
    assert_eq!(writer.epoch().since_ns, 1000, "the seal is not older than what it seals");
    writer.stage(&draft(20)).unwrap();
    writer.close(30).unwrap();
    assert_eq!(judge(&storage, &pinned(&storage)).verdict, Verdict::Verified);
    let mut times = Vec::new();
    reader::visit(&storage, None, |item| {
        if let Item::Entry { entry, .. } = item {
            times.push(entry.header.time_ns);
        }
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(times, [1, 1000, 1000, 1000, 1000]);
}

#[test]
fn keys_that_are_not_the_ledgers_do_not_open_it_and_nothing_is_erased() {
    let (storage, keys) = (Memory::new(), keys());
    let mut writer = create_with(&storage, &keys);
    writer.rotate(10).unwrap();
    drop(writer);
    let stale = *common::keys();
    assert!(matches!(open_with(&storage, &stale, 20), Err(OpenError::Key(_))), "it holds epoch 0 alone");
    assert_eq!(epochs_held(&stale), [Role::Epoch(0)]);
    let draft = Draft { kind: Kind::EPOCH_SEAL, time_ns: 30, session: 0, body: b"{}", payload: b"" };
    let (mut writer, _) = open_with(&storage, &keys, 20).unwrap();
    assert!(writer.stage(&draft).is_err(), "nobody else writes the log layer's entries");
}

fn log_lines(storage: &Memory) -> usize {
    let note = storage.bytes("checkpoint").unwrap();
    String::from_utf8(note).unwrap().lines().filter(|line| line.contains(" test.example/ledger ")).count()
}

#[test]
fn a_rotated_log_key_signs_along_until_its_overlap_is_over() {
    let (storage, mut keys) = (Memory::new(), *keys());
    create_with(&storage, &keys).close(5).unwrap();
    let old = pinned(&storage);
    order_log_key(&mut keys, 1, Cause::Rotated, 1);
    let (mut writer, _) = open_with(&storage, &keys, 10).unwrap();
    publish(&storage, &mut writer);
    assert_eq!(log_lines(&storage), 2, "both sign");
    let both = pinned(&storage);
    assert_ne!(both.key, old.key);
    assert_eq!(judge(&storage, &both).verdict, Verdict::Verified);
    let still_old = Options { key: old.key.clone(), ..both };
    assert_eq!(judge(&storage, &still_old).verdict, Verdict::Verified);
    assert_eq!(judge(&storage, &old).verdict, Verdict::Verified, "the older checkpoint is one still");
    // A second later the old key is gone, and who pinned it is told which to pin.
    writer.rotate(1_000_000_011).unwrap();
    assert!(!keys.held().contains(&Role::Log(0)) && keys.held().contains(&Role::Log(1)));
    writer.close(1_000_000_012).unwrap();
    assert_eq!(log_lines(&storage), 1);
    let new = pinned(&storage);
    assert_eq!(judge(&storage, &new).verdict, Verdict::Verified);
    let new_key = new.key.clone().unwrap().to_string();
    let report = judge(&storage, &Options { key: old.key.clone(), ..new.clone() });
    assert_eq!(report.verdict, Verdict::Unanchored);
    assert!(report.notes.iter().all(|note| !note.contains(&new_key)), "nothing of the old key's is here");
    let report = judge(&storage, &old);
    assert_eq!(report.verdict, Verdict::Unanchored);
    assert!(report.notes[0].ends_with(&new.key.unwrap().to_string()), "{}", report.notes[0]);
}

#[test]
fn an_order_is_taken_while_the_ledger_is_written_and_a_bad_one_changes_nothing() {
    let (storage, mut keys) = (Memory::new(), *keys());
    let mut writer = create_with(&storage, &keys);
    stage(&mut writer, EVENT, 0, b"staged, and not written");
    assert!(!writer.take_order(10).unwrap(), "there is none");
    order_log_key(&mut keys, 1, Cause::Rotated, 3600);
    assert!(writer.take_order(10).unwrap() && !writer.take_order(10).unwrap());
    assert_eq!((writer.authority().log.number, writer.durable()), (1, writer.next_seq()));
    publish(&storage, &mut writer);
    assert_eq!(log_lines(&storage), 2, "both sign");
    let thief = MemoryKeys::new(Some(&[9; 32]), &[8; 32], &[7; 32]);
    let change = Change {
        number: 2,
        cause: Cause::Revoked,
        overlap_s: 0,
        log_key: thief.public(Role::Log(0)).unwrap(),
    };
    let origin = Origin::new("test.example/ledger").unwrap();
    let order = Order::sign(&origin, change, &thief, Role::Root(0), None).unwrap();
    keys.bring_order(2, &order.body());
    let before = writer.next_seq();
    let error = writer.take_order(11).unwrap_err().to_string();
    assert!(error.contains("not signed by the root key"), "{error}");
    assert_eq!((writer.is_poisoned(), writer.next_seq()), (false, before));
    stage(&mut writer, EVENT, 0, b"it goes on");
    writer.close(12).unwrap();
    let report = judge(&storage, &pinned(&storage));
    assert_eq!(report.verdict, Verdict::Verified, "{:?}", report.problems);
}

#[test]
fn a_clock_that_ran_ahead_costs_the_retiring_key_and_nothing_else() {
    let (storage, mut keys) = (Memory::new(), *keys());
    create_with(&storage, &keys).close(5).unwrap();
    order_log_key(&mut keys, 1, Cause::Rotated, 3600);
    let (mut writer, _) = open_with(&storage, &keys, 10).unwrap();
    writer.rotate(4_000_000_000_000).unwrap();
    assert!(!keys.held().contains(&Role::Log(0)));
    // The clock is put right: by it the overlap is not over.
    publish(&storage, &mut writer);
    writer.close(20).unwrap();
    assert_eq!((log_lines(&storage), judge(&storage, &pinned(&storage)).verdict), (1, Verdict::Verified));
}

#[test]
fn a_revoked_log_key_signs_nothing_more() {
    let (storage, mut keys) = (Memory::new(), *keys());
    create_with(&storage, &keys).close(5).unwrap();
    let stolen = Vkey::log(&Origin::new("test.example/ledger").unwrap(), keys.public(Role::Log(0)).unwrap());
    let thief = MemoryKeys::new(Some(&[1; 32]), &[2; 32], &[3; 32]);
    order_log_key(&mut keys, 1, Cause::Revoked, 3600);
    let (writer, _) = open_with(&storage, &keys, 10).unwrap();
    writer.close(11).unwrap();
    assert!(!keys.held().contains(&Role::Log(0)));
    let good = pinned(&storage);
    assert_eq!((judge(&storage, &good).verdict, log_lines(&storage)), (Verdict::Verified, 1));
    // With the revoked key and the epoch's, the same checkpoint is none.
    let note = Note::parse(&storage.bytes("checkpoint").unwrap()).unwrap();
    assert!(!note.is_signed_by(&stolen));
    let forged = note.unverified().sign(&thief, &[Role::Log(0), Role::Epoch(0)]).unwrap();
    let brought = Options { checkpoints: vec![("forged".into(), forged.into_bytes())], ..good };
    let report = judge(&storage, &brought);
    assert_eq!((report.verdict, report.anchor), (Verdict::Unanchored, None));
}

#[test]
fn an_order_that_the_root_key_did_not_sign_keeps_the_ledger_closed() {
    let origin = Origin::new("test.example/ledger").unwrap();
    let thief = MemoryKeys::new(Some(&[9; 32]), &[8; 32], &[7; 32]);
    for (number, named) in [(1, "not signed by the root key"), (2, "another number")] {
        let (storage, keys) = (Memory::new(), *keys());
        create_with(&storage, &keys).close(5).unwrap();
        let log_key = thief.public(Role::Log(0)).unwrap();
        let change = Change { number, cause: Cause::Rotated, overlap_s: 0, log_key };
        let order = Order::sign(&origin, change, &thief, Role::Root(0), None).unwrap();
        keys.bring_order(1, &order.body());
        let error = open_with(&storage, &keys, 10).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
        assert_eq!(judge(&storage, &pinned(&storage)).verdict, Verdict::Verified, "and nothing was written");
    }
}

#[test]
fn the_root_key_changes_itself_and_the_old_one_orders_nothing_more() {
    let origin = Origin::new("test.example/ledger").unwrap();
    let (storage, mut keys) = (Memory::new(), *keys());
    create_with(&storage, &keys).close(5).unwrap();
    keys.draw(Role::Root(1)).unwrap();
    let log_key = keys.public(Role::Log(0)).unwrap();
    let change = Change { number: 1, cause: Cause::Revoked, overlap_s: 0, log_key };
    let order = Order::sign(&origin, change, &keys, Role::Root(0), Some(Role::Root(1))).unwrap();
    keys.bring_order(1, &order.body());
    let (writer, _) = open_with(&storage, &keys, 10).unwrap();
    assert_eq!((writer.authority().root.number, writer.authority().log.number), (1, 0));
    writer.close(11).unwrap();
    assert_eq!(judge(&storage, &pinned(&storage)).verdict, Verdict::Verified);
    order_log_key(&mut keys, 2, Cause::Rotated, 0);
    let error = open_with(&storage, &keys, 20).unwrap_err().to_string();
    assert!(error.contains("not signed by the root key"), "{error}");
}

#[test]
fn the_root_key_need_never_be_where_the_ledger_is() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let origin = Origin::new("test.example/ledger").unwrap();
    let mut gateway = folder::FolderKeys::create(here.path()).unwrap();
    let log = gateway.draw(Role::Log(0)).unwrap();
    let epoch = gateway.draw(Role::Epoch(0)).unwrap();
    let mut offline = folder::FolderKeys::create(there.path()).unwrap();
    offline.draw(Role::Root(0)).unwrap();
    let certified = Manifest::certify(&origin, log, epoch, &offline).unwrap().text();
    std::fs::write(here.path().join("ledger.toml"), certified).unwrap();
    let storage = Memory::new();
    let keys = || Box::new(folder::load(here.path()).unwrap());
    let salts = || Box::new(CountedSalts(0));
    let other = Origin::new("other.example/ledger").unwrap();
    let created = Writer::create(Arc::new(storage.clone()), &other, keys(), salts(), limits(), 1);
    assert!(created.is_err(), "the certificate is for another name");
    let mut writer =
        Writer::create(Arc::new(storage.clone()), &origin, keys(), salts(), limits(), 1).unwrap();
    writer.rotate(2).unwrap();
    writer.close(3).unwrap();
    assert!(!folder::path(here.path(), Role::Epoch(0)).exists());
    let (writer, _) = Writer::open(Arc::new(storage.clone()), keys(), salts(), limits(), 4).unwrap();
    writer.close(5).unwrap();
    assert_eq!(judge(&storage, &pinned(&storage)).verdict, Verdict::Verified);
}

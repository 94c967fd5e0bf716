//! The writer and its recovery, judged by what opening again finds.

use std::sync::Arc;

use gatebook_ledger::storage::Crash;
use gatebook_ledger::{Draft, Kind, Memory, MemoryKeys, OpenError, Origin, Writer};

use crate::common::{CountedSalts, EVENT, create, fill, keys, limits, open, stage};

#[test]
fn a_ledger_goes_on_where_it_ended() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&storage, &mut writer, 40);
    let entries = writer.next_seq();
    drop(writer);
    let (mut writer, recovery) = open(&storage).unwrap();
    assert_eq!((recovery.entries, recovery.cut, recovery.open_sessions), (entries, None, vec![2]));
    fill(&storage, &mut writer, 40);
    writer.close(9).unwrap();
    assert!(storage.names().iter().filter(|name| name.starts_with("segments/")).count() > 3);
    let (writer, recovery) = open(&storage).unwrap();
    assert_eq!(recovery.open_sessions, [2, 4]);
    assert_eq!(writer.next_session(), 5);
}

#[test]
fn a_crash_loses_nothing_that_was_acknowledged_wherever_it_tears_the_last_write() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&storage, &mut writer, 1);
    let acknowledged = writer.durable();
    for n in 0..9 {
        stage(&mut writer, EVENT, 2, &vec![b'y'; 10 + 100 * n]);
    }
    writer.write().unwrap();
    let written = writer.next_seq();
    let mut seen_cut = 0;
    let unsynced = storage.unsynced_bytes();
    assert!(unsynced > 12_000, "several frames are torn, none of them in a segment that was sealed");
    for bytes in (unsynced - 12_000..=unsynced).step_by(301) {
        let crashed = storage.crash(Crash::KeepsBytes(bytes));
        let (writer, recovery) = open(&crashed).unwrap();
        assert!((acknowledged..=written).contains(&recovery.entries), "{bytes}");
        if let Some(cut) = recovery.cut {
            seen_cut += 1;
            assert_eq!(crashed.bytes(&cut.quarantine).unwrap().len() as u64, cut.bytes);
            assert_eq!(writer.next_seq(), recovery.entries + 1, "the cut is recorded");
        }
        drop(writer);
        assert_eq!(open(&crashed).unwrap().1.cut, None);
    }
    assert!(seen_cut > 5, "{seen_cut}");
}

#[test]
fn whichever_storage_call_fails_what_was_acknowledged_stays() {
    let run = |storage: &Memory| -> u64 {
        let origin = Origin::new("test.example/ledger").unwrap();
        let salts = Box::new(CountedSalts(0));
        let Ok(mut writer) = Writer::create(Arc::new(storage.clone()), &origin, keys(), salts, limits(), 1)
        else {
            return 0;
        };
        let mut durable = writer.durable();
        let session = writer.next_session();
        stage(&mut writer, Kind::SESSION_OPENED, session, b"who");
        for round in 0..14 {
            let draft = Draft { kind: EVENT, time_ns: 5, session, body: b"{}", payload: &[b'x'; 3000] };
            let done = writer.stage(&draft).is_ok() && writer.write().is_ok();
            let Ok(now) = writer.sync() else {
                assert!(writer.is_poisoned() && writer.stage(&draft).is_err() && writer.write().is_err());
                return durable;
            };
            assert!(done);
            durable = now;
            if round % 5 == 4 {
                match writer.publish(9) {
                    Ok(Some(publication)) => drop(publication.store(storage)),
                    Ok(None) => {}
                    Err(_) => return durable,
                }
            }
        }
        durable
    };
    let storage = Memory::new();
    run(&storage);
    let calls = storage.calls();
    assert!(calls > 40);
    for number in 0..calls {
        let storage = Memory::new();
        storage.fail_from(number);
        let durable = run(&storage);
        storage.heal();
        for crash in [Crash::LosesAll, Crash::LosesNothing, Crash::KeepsBytes(1000)] {
            let crashed = storage.crash(crash);
            match open(&crashed) {
                Ok((_, recovery)) => assert!(recovery.entries >= durable, "call {number}, {crash:?}"),
                Err(error) => {
                    assert_eq!(durable, 0, "call {number}, {crash:?}: {error}");
                    drop(create(&crashed));
                }
            }
        }
    }
}

#[test]
fn damage_that_no_crash_explains_stops_recovery_and_changes_nothing() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&storage, &mut writer, 5);
    drop(writer);
    let last = "segments/00000000.seg";
    let good = storage.bytes(last).unwrap();
    let mut bad = good.clone();
    bad[4096 + 200] ^= 1;
    storage.set_bytes(last, &bad);
    assert!(matches!(open(&storage), Err(OpenError::Damaged { segment: 0, offset: 4096, .. })));
    assert_eq!(storage.bytes(last).unwrap(), bad);
    assert!(!storage.names().iter().any(|name| name.starts_with("quarantine/")));
}

#[test]
fn frames_of_one_unfinished_write_may_reach_the_disk_in_any_order() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&storage, &mut writer, 1);
    let (acknowledged, name) = (writer.durable(), "segments/00000000.seg");
    let before = storage.bytes(name).unwrap();
    for _ in 0..9 {
        stage(&mut writer, EVENT, 2, b"unfinished");
    }
    writer.write().unwrap();
    let mut bytes = storage.bytes(name).unwrap();
    let first = (0..bytes.len())
        .step_by(4096)
        .find(|at| bytes[*at] != 0 && before.get(*at).is_none_or(|byte| *byte == 0))
        .unwrap();
    assert_eq!(&bytes[first + 4096..first + 4104], b"GBFRAME1", "another whole frame follows");
    bytes[first..first + 4096].fill(0);
    let crashed = storage.crash(Crash::LosesNothing);
    crashed.set_bytes(name, &bytes);
    let (_, recovery) = open(&crashed).unwrap();
    assert_eq!((recovery.entries, recovery.cut.is_some()), (acknowledged, true));
    // Once they were acknowledged and another frame was signed, the same hole is damage.
    writer.sync().unwrap();
    stage(&mut writer, EVENT, 2, b"later");
    writer.write().unwrap();
    let mut bytes = storage.bytes(name).unwrap();
    bytes[first..first + 4096].fill(0);
    let damaged = storage.crash(Crash::LosesNothing);
    damaged.set_bytes(name, &bytes);
    let opened = open(&damaged).map(|(_, recovery)| recovery);
    assert!(matches!(opened, Err(OpenError::Damaged { segment: 0, .. })), "{opened:?}");
}

#[test]
fn a_ledger_cut_below_a_signed_checkpoint_is_not_opened() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    let old = storage.bytes("segments/00000000.seg").unwrap();
    stage(&mut writer, EVENT, 0, b"");
    writer.close(3).unwrap();
    storage.set_bytes("segments/00000000.seg", &old);
    assert!(matches!(open(&storage), Err(OpenError::Rollback(_))));
}

#[test]
fn another_key_or_a_second_writer_is_refused() {
    let storage = Memory::new();
    let writer = create(&storage);
    assert!(matches!(open(&storage), Err(OpenError::Locked)));
    drop(writer);
    let other = Box::new(MemoryKeys::new(None, &[2; 32], &[4; 32]));
    let opened = Writer::open(Arc::new(storage.clone()), other, Box::new(CountedSalts(9)), limits(), 2);
    assert!(matches!(opened, Err(OpenError::OtherKey("epoch"))));
}

#[test]
fn a_checkpoint_that_nobody_signed_is_not_started_from() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&storage, &mut writer, 12);
    drop(writer);
    let good = String::from_utf8(storage.bytes("checkpoint").unwrap()).unwrap();
    let (origin, rest) = good.split_once('\n').unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    // Larger than what is published: its tiles would be passed over for good.
    storage.set_bytes("checkpoint", format!("{origin}\n25\n{rest}").as_bytes());
    assert!(matches!(open(&storage), Err(OpenError::Rollback(_))));
    storage.set_bytes("checkpoint", good.as_bytes());
    assert!(open(&storage).is_ok());
}

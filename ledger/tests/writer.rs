//! The writer and its recovery, judged by what opening again finds.

use std::sync::Arc;

use gatebook_ledger::hash::SALT_BYTES;
use gatebook_ledger::storage::Crash;
use gatebook_ledger::{Draft, Kind, Limits, Memory, MemoryKeys, OpenError, Origin, Salts, Writer};

struct CountedSalts(u128);

impl Salts for CountedSalts {
    fn next(&mut self) -> std::io::Result<[u8; SALT_BYTES]> {
        self.0 += 1;
        Ok(self.0.to_be_bytes())
    }
}

fn keys() -> Box<MemoryKeys> {
    Box::new(MemoryKeys::new(Some(&[1; 32]), &[2; 32], &[3; 32]))
}

fn limits() -> Limits {
    Limits {
        segment_bytes: 32 * 1024,
        fill_bytes: 16 * 1024,
        frame_entries_bytes_max: 600,
        ..Limits::default()
    }
}

fn create(storage: &Memory) -> Writer {
    let origin = Origin::new("test.example/ledger").unwrap();
    Writer::create(Arc::new(storage.clone()), &origin, keys(), Box::new(CountedSalts(0)), limits(), 1)
        .unwrap()
}

fn open(storage: &Memory) -> Result<(Writer, gatebook_ledger::Recovery), OpenError> {
    Writer::open(Arc::new(storage.clone()), keys(), Box::new(CountedSalts(1 << 64)), limits(), 2)
}

fn stage(writer: &mut Writer, kind: Kind, session: u64, payload: &[u8]) -> u64 {
    writer.stage(&Draft { kind, time_ns: 5, session, body: br#"{"n":1}"#, payload }).unwrap()
}

const EVENT: Kind = Kind(256);

/// Two sessions over several segments, one left open.
fn fill(writer: &mut Writer, rounds: u64) {
    let session = writer.next_session();
    stage(writer, Kind::SESSION_OPENED, session, b"who");
    for round in 0..rounds {
        stage(writer, EVENT, session, &[b'x'; 100]);
        stage(writer, EVENT, 0, b"");
        if round % 3 == 0 {
            writer.write().unwrap();
            writer.sync().unwrap();
        }
        if round % 7 == 6 {
            writer.publish(9).unwrap();
        }
    }
    stage(writer, Kind::SESSION_CLOSED, session, b"");
    let session = writer.next_session();
    stage(writer, Kind::SESSION_OPENED, session, b"who");
    writer.write().unwrap();
    writer.sync().unwrap();
}

#[test]
fn a_ledger_goes_on_where_it_ended() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&mut writer, 40);
    let entries = writer.next_seq();
    drop(writer);
    let (mut writer, recovery) = open(&storage).unwrap();
    assert_eq!((recovery.entries, recovery.cut, recovery.open_sessions), (entries, None, vec![2]));
    fill(&mut writer, 40);
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
    fill(&mut writer, 1);
    let acknowledged = writer.durable();
    for n in 0..9 {
        stage(&mut writer, EVENT, 2, &vec![b'y'; 10 + 100 * n]);
    }
    writer.write().unwrap();
    let written = writer.next_seq();
    let mut seen_cut = 0;
    let unsynced = storage.unsynced_bytes();
    assert!(unsynced > 12_000, "several frames are torn, none of them in a segment that was sealed");
    for bytes in (unsynced - 12_000..=unsynced).step_by(97) {
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
    assert!(seen_cut > 10, "{seen_cut}");
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
        for round in 0..60 {
            let draft = Draft { kind: EVENT, time_ns: 5, session, body: b"{}", payload: &[b'x'; 300] };
            let done = writer.stage(&draft).is_ok() && writer.write().is_ok();
            let Ok(now) = writer.sync() else {
                assert!(writer.is_poisoned() && writer.stage(&draft).is_err() && writer.write().is_err());
                return durable;
            };
            assert!(done);
            durable = now;
            if round % 10 == 9 {
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
    assert!(calls > 150);
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
    fill(&mut writer, 5);
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

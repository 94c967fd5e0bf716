//! What has gone wrong where others record, and may not here: streams cut at a limit, bursts that are dropped,
//! acknowledgements of a disk that stands still, names used twice, evidence overwritten.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gatebook_ledger::entry::BODY_BYTES_MAX;
use gatebook_ledger::reader::{self, Item};
use gatebook_ledger::segment::PAYLOAD_BYTES_MAX;
use gatebook_ledger::storage::Crash;
use gatebook_ledger::{Draft, Kind, Memory, StageError, Writer};

use crate::common::{EVENT, create, judge, limits, open, pinned, publish, stage};

fn commit(writer: &mut Writer) {
    writer.write().unwrap();
    writer.sync().unwrap();
}

/// The lengths of body and payload of each event.
fn events(storage: &Memory) -> Vec<(usize, usize)> {
    let mut events = Vec::new();
    reader::visit(storage, None, |item| {
        let Item::Entry { entry, payload, .. } = item else { panic!("{item:?}") };
        if entry.header.kind == EVENT {
            events.push((entry.body.len(), payload.unwrap().len()));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    events
}

#[test]
fn no_limit_cuts_or_drops_what_is_recorded() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    let body = |length: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(length - 8)).into_bytes();
    let longest = body(BODY_BYTES_MAX);
    let payload = vec![7; 3 * limits().frame_payloads_bytes_max];
    let draft = Draft { kind: EVENT, time_ns: 5, session: 0, body: &longest, payload: &payload };
    writer.stage(&draft).unwrap();
    // What is longer is refused, whole, and whoever asked is told.
    let longer = body(BODY_BYTES_MAX + 1);
    let refused = writer.stage(&Draft { body: &longer, ..draft });
    assert_eq!(refused, Err(StageError::BodyTooLong(BODY_BYTES_MAX + 1)));
    let endless = vec![0; PAYLOAD_BYTES_MAX + 1];
    let refused = writer.stage(&Draft { payload: &endless, ..draft });
    assert_eq!(refused, Err(StageError::PayloadTooLong(PAYLOAD_BYTES_MAX + 1)));
    stage(&mut writer, EVENT, 0, b"behind it");
    commit(&mut writer);
    assert_eq!(events(&storage), [(longest.len(), payload.len()), (7, 9)]);
}

#[test]
fn a_burst_is_recorded_whole() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    let burst = 20_000;
    for n in 0..burst {
        stage(&mut writer, EVENT, 0, &[b'x'; 11][..n % 11]);
    }
    commit(&mut writer);
    let expected: Vec<_> = (0..burst).map(|n| (7, n % 11)).collect();
    assert_eq!(events(&storage), expected);
    publish(&storage, &mut writer);
    drop(writer);
    assert_eq!(judge(&storage, &pinned(&storage)).problems, []);
}

#[test]
fn a_disk_that_stands_still_acknowledges_nothing() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    let before = writer.durable();
    let acknowledged = Arc::new(AtomicU64::new(before));
    storage.stall_sync(true);
    let told = acknowledged.clone();
    let thread = std::thread::spawn(move || {
        stage(&mut writer, EVENT, 0, b"waits");
        writer.write().unwrap();
        told.store(writer.sync().unwrap(), Ordering::SeqCst);
        writer.durable()
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    while storage.stalled_syncs() == 0 {
        assert!(Instant::now() < deadline, "nobody syncs");
        std::thread::yield_now();
    }
    assert_eq!(acknowledged.load(Ordering::SeqCst), before);
    assert_eq!(open(&storage.crash(Crash::LosesAll)).unwrap().1.entries, before);
    storage.stall_sync(false);
    assert_eq!(thread.join().unwrap(), before + 1);
    assert_eq!(acknowledged.load(Ordering::SeqCst), before + 1);
    assert_eq!(open(&storage.crash(Crash::LosesAll)).unwrap().1.entries, before + 1);
}

#[test]
fn no_number_is_used_twice_and_no_evidence_is_overwritten_however_often_it_crashes() {
    let mut storage = Memory::new();
    drop(create(&storage));
    let mut evidence: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let (mut sessions, mut torn) = (Vec::new(), 0);
    for round in 0..20 {
        let (mut writer, recovery) = open(&storage).unwrap();
        torn += u64::from(recovery.cut.is_some());
        for (name, bytes) in &evidence {
            assert_eq!(storage.bytes(name).as_ref(), Some(bytes), "{name} was overwritten");
        }
        let kept = storage.names().into_iter().filter(|name| name.starts_with("quarantine/"));
        evidence.extend(kept.map(|name| (name.clone(), storage.bytes(&name).unwrap())));
        assert_eq!(evidence.len() as u64, torn, "round {round}");
        let session = writer.next_session();
        assert!(!sessions.contains(&session), "session {session} was there before");
        sessions.push(session);
        stage(&mut writer, Kind::SESSION_OPENED, session, b"who");
        commit(&mut writer);
        // What is never acknowledged is torn, each time at another length.
        stage(&mut writer, EVENT, session, &[b'y'; 3000]);
        writer.write().unwrap();
        let part = storage.unsynced_bytes() - 1000 - 100 * round as u64;
        drop(writer);
        storage = storage.crash(Crash::KeepsBytes(part));
    }
    // A write that fills a segment is synced with it, and cannot be torn.
    assert!(torn > 10, "{torn}");
    let (writer, _) = open(&storage).unwrap();
    assert_eq!(writer.open_sessions(), sessions);
    writer.close(9).unwrap();
    assert_eq!(judge(&storage, &pinned(&storage)).problems, []);
}

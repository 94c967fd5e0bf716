//! Ledgers in memory that are the same each time.

pub(crate) mod attacks;
pub(crate) mod forge;
pub(crate) mod others;

use std::sync::Arc;

use gatebook_ledger::checkpoint::Vkey;
use gatebook_ledger::hash::SALT_BYTES;
use gatebook_ledger::orders::{Cause, Change, Order};
use gatebook_ledger::signature::{PublicKey, Role};
use gatebook_ledger::verify::{Options, Report, verify};
use gatebook_ledger::{
    Draft, Keys as _, Kind, Limits, Memory, MemoryKeys, OpenError, Origin, Recovery, Salts, Storage, Writer,
};

pub(crate) const EVENT: Kind = Kind(256);

pub(crate) struct CountedSalts(pub(crate) u128);

impl Salts for CountedSalts {
    fn next(&mut self) -> std::io::Result<[u8; SALT_BYTES]> {
        self.0 += 1;
        Ok(self.0.to_be_bytes())
    }
}

pub(crate) fn keys() -> Box<MemoryKeys> {
    Box::new(MemoryKeys::new(Some(&[1; 32]), &[2; 32], &[3; 32]))
}

pub(crate) fn limits() -> Limits {
    Limits {
        segment_bytes: 32 * 1024,
        fill_bytes: 16 * 1024,
        frame_entries_bytes_max: 600,
        ..Limits::default()
    }
}

pub(crate) fn create(storage: &Memory) -> Writer {
    create_with(storage, &keys())
}

/// With keys that outlive the writer, so that its epochs can end.
pub(crate) fn create_with(storage: &Memory, keys: &MemoryKeys) -> Writer {
    let (origin, keys) = (Origin::new("test.example/ledger").unwrap(), Box::new(keys.clone()));
    Writer::create(Arc::new(storage.clone()), &origin, keys, Box::new(CountedSalts(0)), limits(), 1).unwrap()
}

pub(crate) fn open(storage: &Memory) -> Result<(Writer, Recovery), OpenError> {
    open_with(storage, &keys(), 2)
}

pub(crate) fn open_with(
    storage: &Memory,
    keys: &MemoryKeys,
    now_ns: u64,
) -> Result<(Writer, Recovery), OpenError> {
    let salts = Box::new(CountedSalts(1 << 64));
    Writer::open(Arc::new(storage.clone()), Box::new(keys.clone()), salts, limits(), now_ns)
}

/// Brings an order of the root key: a new log key, rotated or revoked. Gives its public half.
pub(crate) fn order_log_key(keys: &mut MemoryKeys, number: u32, cause: Cause, overlap_s: u64) -> PublicKey {
    let origin = Origin::new("test.example/ledger").unwrap();
    let log_key = keys.draw(Role::Log(number)).unwrap();
    let change = Change { number, cause, overlap_s, log_key };
    let order = Order::sign(&origin, change, keys, Role::Root(0), None).unwrap();
    keys.bring_order(number, &order.body());
    log_key
}

pub(crate) fn stage(writer: &mut Writer, kind: Kind, session: u64, payload: &[u8]) -> u64 {
    writer.stage(&Draft { kind, time_ns: 5, session, body: br#"{"n":1}"#, payload }).unwrap()
}

/// Writes, syncs, publishes.
pub(crate) fn publish(storage: &Memory, writer: &mut Writer) {
    if let Some(publication) = writer.publish(9).unwrap() {
        publication.store(storage).unwrap();
    }
}

/// Two sessions, one of them left open; published now and then.
pub(crate) fn fill(storage: &Memory, writer: &mut Writer, rounds: u64) {
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
            publish(storage, writer);
        }
    }
    stage(writer, Kind::SESSION_CLOSED, session, b"");
    let session = writer.next_session();
    stage(writer, Kind::SESSION_OPENED, session, b"who");
    writer.write().unwrap();
    writer.sync().unwrap();
}

pub(crate) fn judge(storage: &dyn Storage, options: &Options) -> Report {
    verify(storage, options, &|_| {}).unwrap()
}

/// With the key pinned and the directory's own checkpoint kept elsewhere.
pub(crate) fn pinned(storage: &Memory) -> Options {
    let manifest = gatebook_ledger::reader::manifest(storage).unwrap();
    let log = gatebook_ledger::standing::authority(storage, &manifest).unwrap().log.key;
    let key = Vkey::log(&manifest.origin, log);
    let checkpoint = storage.bytes("checkpoint").unwrap();
    Options {
        key: Some(key),
        checkpoints: vec![("kept".to_owned(), checkpoint)],
        threads: 2,
        ..Options::default()
    }
}

//! The index over three stores: sled, redb, and a map. Each answer is held against reading everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::ReadableDatabase as _;

use super::*;
use crate::reader::Item;
use crate::{Draft as Entry_, Limits, Memory, MemoryKeys, Origin, SystemSalts, Writer};

#[derive(Default)]
struct Map(BTreeMap<Vec<u8>, Vec<u8>>);

impl Store for Map {
    fn fetch(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.get(key).cloned())
    }

    fn apply(&mut self, rows: Vec<Row>) -> io::Result<()> {
        self.0.extend(rows);
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], visitor: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> io::Result<()> {
        let mut rows = self.0.range(from.to_vec()..to.to_vec());
        let _ = rows.all(|(key, value)| visitor(key, value));
        Ok(())
    }
}

struct Redb(redb::Database);

const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("rows");

impl Redb {
    fn new() -> Redb {
        let database =
            redb::Builder::new().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let change = database.begin_write().unwrap();
        change.open_table(TABLE).unwrap();
        change.commit().unwrap();
        Redb(database)
    }
}

impl Store for Redb {
    fn fetch(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let table = self.0.begin_read().unwrap().open_table(TABLE).unwrap();
        Ok(table.get(key).unwrap().map(|value| value.value().to_vec()))
    }

    fn apply(&mut self, rows: Vec<Row>) -> io::Result<()> {
        let change = self.0.begin_write().unwrap();
        {
            let mut table = change.open_table(TABLE).unwrap();
            for (key, value) in rows {
                table.insert(&key[..], &value[..]).unwrap();
            }
        }
        change.commit().map_err(io::Error::other)
    }

    fn scan(&self, from: &[u8], to: &[u8], visitor: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> io::Result<()> {
        let table = self.0.begin_read().unwrap().open_table(TABLE).unwrap();
        for row in table.range(from..to).unwrap() {
            let (key, value) = row.map_err(io::Error::other)?;
            if !visitor(key.value(), value.value()) {
                break;
            }
        }
        Ok(())
    }
}

/// Payloads here are `principal resource`, of openings and of entries without a session.
fn words(_: &Entry<'_>, payload: Option<&[u8]>, tell: &mut dyn FnMut(Field, &str)) {
    let text = payload.map(String::from_utf8_lossy).unwrap_or_default();
    if let Some((principal, resource)) = text.split_once(' ') {
        tell(Field::Principal, principal);
        tell(Field::Resource, resource);
    }
}

fn ledger() -> (Memory, Writer) {
    let storage = Memory::new();
    let keys = Box::new(MemoryKeys::new(Some(&[1; 32]), &[2; 32], &[3; 32]));
    let limits = Limits { segment_bytes: 64 * 1024, fill_bytes: 16 * 1024, ..Limits::default() };
    let salts = Box::new(SystemSalts::default());
    let origin = Origin::new("index.example").unwrap();
    let writer = Writer::create(Arc::new(storage.clone()), &origin, keys, salts, limits, 1).unwrap();
    (storage, writer)
}

/// Sessions that lie across each other, of three principals and two resources, by a clock that jumps back now and then.
fn write(writer: &mut Writer, rounds: u64) {
    let put = |writer: &mut Writer, kind, time_ns, session, payload: &[u8]| {
        writer.stage(&Entry_ { kind, time_ns, session, body: b"{}", payload }).unwrap();
        writer.write().unwrap();
    };
    for _ in 0..rounds {
        let session = writer.next_session();
        let time_ns = session * 1000 - if session.is_multiple_of(5) { 2500 } else { 0 };
        let who = format!("p{} r{}", session % 3, session % 2);
        put(writer, Kind::SESSION_OPENED, time_ns, session, who.as_bytes());
        for earlier in writer.open_sessions() {
            put(writer, Kind(288), time_ns + 1, earlier, &[b'x'; 900]);
        }
        put(writer, Kind(304), time_ns + 2, 0, format!("p{} -", session % 4).as_bytes());
        if session > 4 {
            put(writer, Kind::SESSION_CLOSED, time_ns + 3, session - 4, b"");
        }
    }
}

fn entries<S: Store>(
    storage: &Memory,
    index: Option<&Index<S>>,
    query: &Query,
) -> (Vec<u64>, Option<String>) {
    let mut found = Vec::new();
    let distrusted = find(storage, index, words, query, |item| {
        if let Item::Entry { entry, payload, .. } = item {
            assert!(payload.is_some());
            found.push(entry.header.seq);
        }
        ControlFlow::Continue(())
    });
    (found, distrusted.unwrap())
}

fn queries(sessions: u64) -> Vec<Query> {
    let times = [None, Some(0), Some(1), Some(2999), Some(7001), Some(sessions * 500), Some(u64::MAX)];
    let mut queries = Vec::new();
    for session in [None, Some(1), Some(sessions / 2), Some(sessions), Some(sessions + 1), Some(u64::MAX)] {
        for kind in [None, Some(Kind(288)), Some(Kind(304)), Some(Kind::SESSION_OPENED), Some(Kind(999))] {
            for (principal, resource) in
                [("", ""), ("p1", ""), ("p3", ""), ("", "r1"), ("p2", "r0"), ("p2", "-")]
            {
                let word = |text: &str| (!text.is_empty()).then(|| text.to_owned());
                for (since_ns, until_ns) in times.iter().zip(times.iter().rev()) {
                    let (principal, resource) = (word(principal), word(resource));
                    queries.push(Query {
                        session,
                        principal,
                        resource,
                        since_ns: *since_ns,
                        until_ns: *until_ns,
                        kind,
                    });
                }
            }
        }
    }
    queries
}

/// What the index finds is what reading everything finds, whatever is asked.
fn agrees<S: Store>(storage: &Memory, index: &Index<S>, sessions: u64) {
    let mut hits = 0;
    for query in queries(sessions).into_iter().step_by(11) {
        let (everything, _) = entries::<S>(storage, None, &query);
        hits += everything.len();
        assert_eq!(entries(storage, Some(index), &query), (everything, None), "{query:?}");
    }
    assert!(hits > 20, "the questions have answers");
    assert!(index.is_whole().unwrap());
}

fn catch_up<S: Store>(index: &mut Index<S>, storage: &Memory) -> u64 {
    index.catch_up(storage, &mut |_| ControlFlow::Continue(())).unwrap().entries
}

fn follows<S: Store>(mut store: impl FnMut(&Memory) -> Index<S>) {
    let (storage, mut writer) = ledger();
    for rounds in 1..3 {
        write(&mut writer, 8);
        let mut index = store(&storage);
        if rounds > 1 {
            // What came since is read to the end, so an index that lags answers alike.
            agrees(&storage, &index, 8 * rounds);
        }
        assert_eq!(catch_up(&mut index, &storage), writer.next_seq());
        agrees(&storage, &index, 8 * rounds);
    }
}

#[test]
fn every_store_finds_what_reading_everything_finds() {
    let folder = tempfile::tempdir().unwrap();
    follows(|storage| {
        let (index, why) = open(&folder.path().join(NAME), storage, words).unwrap();
        assert_eq!(why, None, "none was moved aside");
        index
    });
    follows(|storage| Index::over(Redb::new(), storage, words).unwrap());
    follows(|storage| Index::over(Map::default(), storage, words).unwrap());
}

#[test]
fn catching_up_can_be_stopped_and_goes_on() {
    let (storage, mut writer) = ledger();
    write(&mut writer, 700);
    let mut index = Index::over(Map::default(), &storage, words).unwrap();
    let mut rests = 0;
    while index.catch_up(&storage, &mut |_| ControlFlow::Break(())).unwrap().entries < writer.next_seq() {
        rests += 1;
        assert!(rests < 1000);
    }
    assert!(rests > 0, "it was stopped in between");
    assert!(index.is_whole().unwrap());
    let mut map = Index::over(Map::default(), &storage, words).unwrap();
    catch_up(&mut map, &storage);
    for query in queries(700).into_iter().step_by(241) {
        assert_eq!(entries(&storage, Some(&index), &query), entries(&storage, Some(&map), &query));
    }
}

#[test]
fn an_index_of_another_ledger_or_a_broken_one_is_moved_aside_and_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    let (other, mut writer) = ledger();
    write(&mut writer, 8);
    catch_up(&mut open(&path, &other, words).unwrap().0, &other);
    let (shorter, _writer) = ledger();
    let (mut index, why) = open(&path, &shorter, words).unwrap();
    assert_eq!(why.as_deref(), Some("the index does not fit this ledger"));
    assert_eq!(catch_up(&mut index, &shorter), 1, "what the other ledger had is gone");
    drop(index);
    assert!(path.with_extension("broken").exists());
    for garbage in [vec![0xee; 100_000], b"short".to_vec()] {
        fs::write(path.join("conf"), b"garbage").unwrap();
        fs::write(path.join("db"), garbage).unwrap();
        // sled takes some kinds of garbage for an empty store: then there is nothing to move aside.
        let mut index = open(&path, &other, words).unwrap().0;
        assert_eq!(index.covered().entries, 0);
        catch_up(&mut index, &other);
        agrees(&other, &index, 8);
    }
}

#[test]
fn an_index_that_another_process_has_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    let (storage, _writer) = ledger();
    assert!(open_existing(&path, &storage, words).unwrap().is_none());
    let _held = open(&path, &storage, words).unwrap();
    assert_eq!(open(&path, &storage, words).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(!path.with_extension("broken").exists());
}

#[test]
fn a_lie_is_found_at_the_segment_and_everything_is_read_instead() {
    let (storage, mut writer) = ledger();
    write(&mut writer, 12);
    let made = || {
        let mut index = Index::over(Map::default(), &storage, words).unwrap();
        catch_up(&mut index, &storage);
        index
    };
    let session = Query { session: Some(7), ..Query::default() };
    let principal = Query { principal: Some("p1".to_owned()), ..Query::default() };
    let kind = Query { kind: Some(Kind(304)), ..Query::default() };
    let first = Stretch { segment: 0, offset: BLOCK as u64, blocks: 1 };
    let nowhere = Stretch { segment: 77, offset: BLOCK as u64, blocks: 1 };
    let between = Stretch { segment: 0, offset: BLOCK as u64 + 17, blocks: 1 };
    let p1 = term(Field::Principal.tag(), "p1");
    for stretch in [first, nowhere, between] {
        for (query, row) in [
            (&session, rows::session_row(7, &stretch)),
            (&kind, rows::kind_row(Kind(304), &stretch)),
            (&principal, rows::term_row(&p1, &stretch, 2)),
        ] {
            let mut index = made();
            index.store.apply(vec![row]).unwrap();
            assert!(!index.is_whole().unwrap());
            let (found, distrusted) = entries(&storage, Some(&index), query);
            assert!(distrusted.is_some(), "{query:?} {stretch:?}");
            assert_eq!(found, entries::<Map>(&storage, None, query).0);
        }
    }
    // What it left out shows too, where a session must be whole.
    let (from, to) = rows::span(b"s", &7u64.to_be_bytes());
    let keys: Vec<Vec<u8>> = made().store.0.range(from..to).map(|(key, _)| key.clone()).collect();
    for key in keys {
        let mut index = made();
        index.store.0.remove(&key);
        assert!(!index.is_whole().unwrap());
        let (found, _) = entries(&storage, Some(&index), &session);
        assert_eq!(found, entries::<Map>(&storage, None, &session).0);
    }
}

#[test]
fn no_name_stands_in_the_index() {
    let (storage, mut writer) = ledger();
    let who = b"alice.liddell@corp.example payroll-production";
    writer
        .stage(&Entry_ { kind: Kind::SESSION_OPENED, time_ns: 1, session: 1, body: b"{}", payload: who })
        .unwrap();
    writer.write().unwrap();
    let mut index = Index::over(Map::default(), &storage, words).unwrap();
    catch_up(&mut index, &storage);
    let everything: Vec<u8> =
        index.store.0.iter().flat_map(|(key, value)| [&key[..], value].concat()).collect();
    for name in who.split(|byte| *byte == b' ') {
        assert!(!everything.windows(name.len()).any(|bytes| bytes == name));
    }
}

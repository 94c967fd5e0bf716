//! A derived index: which frames hold a session, and where the ledger stood at an hour. sled keeps it.
//!
//! It holds only what can be made from the segments, and whoever reads through it checks at the segment. It
//! is fed from the committed ledger, off the writer's path, and never waited for. What a newcomer gets wrong:
//! sled's `flush` makes no `fdatasync`, so the index may be behind, ahead or broken after a crash; it says how
//! far it got and what the chain's value was there, and where that does not fit it is moved aside and made anew.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::entry::{Entry, Kind, array};
use crate::hash::{Committer, Digest};
use crate::reader::{self, Place};
use crate::segment::{BLOCK, Frame, SegmentReader, Step, name};
use crate::storage::{Mode, Storage};

/// The folder's name in the ledger's directory.
pub const NAME: &str = "index";

const SCHEMA: u32 = 1;
const APPLIED: &[u8] = b"applied";
/// So many frames go into one batch.
const BATCH_FRAMES: usize = 1024;

/// A key-value store with sorted keys: sled, or a map in a test.
pub trait Store: Send {
    /// A value.
    ///
    /// # Errors
    /// Of the store.
    fn fetch(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// Puts all these in place, or none.
    ///
    /// # Errors
    /// Of the store.
    fn apply(&mut self, pairs: Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<()>;

    /// All pairs whose key begins so, in order.
    ///
    /// # Errors
    /// Of the store.
    fn scan(&self, prefix: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>>;

    /// The last pair with this prefix whose key is not after `key`.
    ///
    /// # Errors
    /// Of the store.
    fn before(&self, prefix: &[u8], key: &[u8]) -> io::Result<Option<(Vec<u8>, Vec<u8>)>>;
}

/// sled, with its panics made into errors.
pub struct Sled(sled::Db);

impl Sled {
    /// Opens a folder.
    ///
    /// # Errors
    /// Of sled, its panics among them; [`io::ErrorKind::WouldBlock`] where another process has it.
    pub fn open(folder: &Path) -> io::Result<Sled> {
        // sled panics on some kinds of damage. Nothing of ours is half changed then: the value is not there yet.
        guard(|| sled::Config::new().path(folder).cache_capacity(16 * 1024 * 1024).open()).map(Sled).map_err(
            |error| {
                if error.to_string().contains("could not acquire lock") {
                    io::Error::new(io::ErrorKind::WouldBlock, "another process has this index")
                } else {
                    error
                }
            },
        )
    }
}

fn guard<T>(step: impl FnOnce() -> Result<T, sled::Error>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(io::Error::other(error.to_string())),
        Err(_) => Err(io::Error::other("the index panicked")),
    }
}

impl Store for Sled {
    fn fetch(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        guard(|| Ok(self.0.get(key)?.map(|value| value.to_vec())))
    }

    fn apply(&mut self, pairs: Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        pairs.into_iter().for_each(|(key, value)| batch.insert(key, value));
        guard(|| self.0.apply_batch(batch))
    }

    fn scan(&self, prefix: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        guard(|| {
            let pair = |pair: Result<(sled::IVec, sled::IVec), _>| {
                pair.map(|(key, value)| (key.to_vec(), value.to_vec()))
            };
            self.0.scan_prefix(prefix).map(pair).collect()
        })
    }

    fn before(&self, prefix: &[u8], key: &[u8]) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        guard(|| {
            let found = self.0.range(prefix.to_vec()..=key.to_vec()).next_back().transpose()?;
            Ok(found.map(|(key, value)| (key.to_vec(), value.to_vec())))
        })
    }
}

/// What the index knows of a session. Check it at the segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its number.
    pub number: u64,
    /// The frames that hold it, in order.
    pub frames: Vec<Place>,
}

/// How far the index got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Applied {
    place: Place,
    next_seq: u64,
    chain: Digest,
}

/// The index of one ledger.
pub struct Index<S: Store> {
    store: S,
    genesis: Digest,
    applied: Applied,
}

/// Opens the index of a ledger in a folder; one that is broken, or of another ledger, is moved aside and made anew.
///
/// # Errors
/// Of the ledger's storage; [`io::ErrorKind::WouldBlock`] where another process has the index: read without it then.
pub fn open(folder: &Path, ledger: &dyn Storage) -> io::Result<Index<Sled>> {
    match Sled::open(folder).and_then(|store| Index::over(store, ledger)) {
        Ok(index) => Ok(index),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
        Err(_) => {
            move_aside(folder)?;
            Index::over(Sled::open(folder)?, ledger)
        }
    }
}

fn move_aside(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for number in 0..1000 {
        let mut aside = folder.as_os_str().to_owned();
        aside.push(format!(".broken-{number}"));
        let aside = PathBuf::from(aside);
        if !aside.exists() {
            return fs::rename(folder, aside);
        }
    }
    fs::remove_dir_all(folder)
}

impl<S: Store> Index<S> {
    /// Takes up an index where it got to, if that is a place of this ledger.
    ///
    /// # Errors
    /// Of store and storage; [`io::ErrorKind::InvalidData`] where it is not an index of this ledger.
    pub fn over(store: S, ledger: &dyn Storage) -> io::Result<Index<S>> {
        let genesis = reader::manifest(ledger)?.genesis();
        let place = Place { segment: 0, offset: BLOCK as u64 };
        let start = Applied { place, next_seq: 0, chain: genesis };
        let applied = match store.fetch(APPLIED)? {
            None => start,
            Some(bytes) => {
                decode_applied(&bytes, genesis).filter(|applied| stands(ledger, applied)).ok_or_else(
                    || io::Error::new(io::ErrorKind::InvalidData, "the index does not fit this ledger"),
                )?
            }
        };
        Ok(Index { store, genesis, applied })
    }

    /// How many entries it covers.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.applied.next_seq
    }

    /// Reads what was committed since, and takes it in. Give it a reader's view of the ledger, live or not; gives how
    /// many entries it covers then.
    ///
    /// # Errors
    /// Of store and storage. What was taken in before stays.
    pub fn catch_up(&mut self, ledger: &dyn Storage) -> io::Result<u64> {
        let mut pairs = Vec::new();
        let mut frames = 0;
        'segments: for number in self.applied.place.segment.. {
            let file = match ledger.open(&name(number), Mode::Read) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let mut reader = SegmentReader::new(file)?;
            if number == self.applied.place.segment {
                reader.seek(self.applied.place.offset);
            } else {
                self.applied.place = Place { segment: number, offset: BLOCK as u64 };
            }
            loop {
                match reader.step()? {
                    Step::Frame { offset, frame } => {
                        // What does not follow is the verifier's business; the index stops before it.
                        if frame.header.chain_in != self.applied.chain {
                            break 'segments;
                        }
                        let place = Place { segment: number, offset };
                        take(place, &frame, &mut pairs);
                        self.applied.chain = frame.chain_next();
                        self.applied.next_seq = frame.header.first_seq + u64::from(frame.header.count);
                        frames += 1;
                    }
                    Step::Footer { .. } => break,
                    Step::End { .. } | Step::Damaged { .. } => break 'segments,
                }
                self.applied.place.offset = reader.offset();
                if frames % BATCH_FRAMES == 0 {
                    self.commit(&mut pairs)?;
                }
            }
        }
        self.commit(&mut pairs)?;
        Ok(self.applied.next_seq)
    }

    fn commit(&mut self, pairs: &mut Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        pairs.push((APPLIED.to_vec(), encode_applied(&self.applied, self.genesis)));
        self.store.apply(std::mem::take(pairs))
    }

    /// The frames of a session, each checked to stand there and to hold it; none where the index has no such session.
    ///
    /// # Errors
    /// Of store and storage; [`io::ErrorKind::InvalidData`] where index and segment disagree: make it anew.
    pub fn session(&self, number: u64, ledger: &dyn Storage) -> io::Result<Option<Session>> {
        let mut prefix = b"s".to_vec();
        prefix.extend_from_slice(&number.to_be_bytes());
        let mut frames = Vec::new();
        for (key, _) in self.store.scan(&prefix)? {
            let place = decode_place(key.get(9..)).ok_or_else(disagrees)?;
            if !holds(ledger, place, |entry| entry.header.session == number)? {
                return Err(disagrees());
            }
            frames.push(place);
        }
        Ok((!frames.is_empty()).then_some(Session { number, frames }))
    }

    /// The last frame that begins at or before an instant, by the ledger's clock; none before the first.
    ///
    /// # Errors
    /// Of store and storage; [`io::ErrorKind::InvalidData`] where index and segment disagree: make it anew.
    pub fn at_time(&self, time_ns: u64, ledger: &dyn Storage) -> io::Result<Option<Place>> {
        let mut key = b"t".to_vec();
        key.extend_from_slice(&time_ns.to_be_bytes());
        key.extend_from_slice(&[0xff; 16]);
        let Some((key, _)) = self.store.before(b"t", &key)? else { return Ok(None) };
        let place = decode_place(key.get(9..)).ok_or_else(disagrees)?;
        let time = u64::from_be_bytes(array(&key[1..9]));
        if holds(ledger, place, |entry| entry.header.time_ns == time)? {
            Ok(Some(place))
        } else {
            Err(disagrees())
        }
    }

    /// The numbers of the sessions that were opened, in order.
    ///
    /// # Errors
    /// Of the store.
    pub fn sessions(&self) -> io::Result<Vec<u64>> {
        let opened = self.store.scan(b"o")?;
        Ok(opened
            .iter()
            .filter(|(key, _)| key.len() == 9)
            .map(|(key, _)| u64::from_be_bytes(array(&key[1..9])))
            .collect())
    }
}

fn disagrees() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the index disagrees with the segment")
}

/// One pair for each session of a frame, one for its time.
fn take(place: Place, frame: &Frame<'_>, pairs: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    let mut before = None;
    let mut seen = std::collections::BTreeSet::new();
    for entry in frame.records().filter_map(|record| Entry::decode(record.entry).ok()) {
        let header = entry.header;
        if before.is_none() {
            pairs.push((key(b't', header.time_ns, Some(place)), Vec::new()));
            before = Some(header.time_ns);
        }
        if header.session != 0 && seen.insert(header.session) {
            pairs.push((key(b's', header.session, Some(place)), Vec::new()));
        }
        if header.kind == Kind::SESSION_OPENED {
            pairs.push((key(b'o', header.session, None), Vec::new()));
        }
    }
}

fn key(table: u8, number: u64, place: Option<Place>) -> Vec<u8> {
    let mut key = vec![table];
    key.extend_from_slice(&number.to_be_bytes());
    if let Some(place) = place {
        key.extend_from_slice(&place.segment.to_be_bytes());
        key.extend_from_slice(&place.offset.to_be_bytes());
    }
    key
}

fn decode_place(bytes: Option<&[u8]>) -> Option<Place> {
    let bytes = bytes.filter(|bytes| bytes.len() == 16)?;
    Some(Place {
        segment: u64::from_be_bytes(array(&bytes[..8])),
        offset: u64::from_be_bytes(array(&bytes[8..])),
    })
}

fn encode_applied(applied: &Applied, genesis: Digest) -> Vec<u8> {
    let mut out = SCHEMA.to_be_bytes().to_vec();
    for number in [applied.place.segment, applied.place.offset, applied.next_seq] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&applied.chain.0);
    out.extend_from_slice(&genesis.0);
    out
}

fn decode_applied(bytes: &[u8], genesis: Digest) -> Option<Applied> {
    if bytes.len() != 92 || bytes[..4] != SCHEMA.to_be_bytes() || bytes[60..] != genesis.0 {
        return None;
    }
    let place = decode_place(bytes.get(4..20))?;
    Some(Applied {
        place,
        next_seq: u64::from_be_bytes(array(&bytes[20..28])),
        chain: Digest(array(&bytes[28..60])),
    })
}

/// Whether what follows the place where the index got to follows from what it has: a ledger that was cut by
/// recovery, or is another one, does not.
fn stands(ledger: &dyn Storage, applied: &Applied) -> bool {
    let Ok(file) = ledger.open(&name(applied.place.segment), Mode::Read) else { return false };
    let Ok(mut reader) = SegmentReader::new(file) else { return false };
    reader.seek(applied.place.offset);
    let Ok(Ok(header)) = reader.header() else { return false };
    let length = reader.length();
    match reader.step() {
        Ok(Step::Frame { frame, .. }) => frame.header.chain_in == applied.chain,
        Ok(Step::Footer { .. }) => true,
        // Nothing is there yet: then the frame before it must be the one that it got to.
        Ok(Step::End { offset }) if offset <= length => {
            reader.seek(BLOCK as u64);
            let mut chain = header.chain_in;
            while let Ok(Step::Frame { offset, frame }) = reader.step() {
                if offset >= applied.place.offset {
                    break;
                }
                chain = frame.chain_next();
            }
            chain == applied.chain
        }
        _ => false,
    }
}

/// Whether a whole frame stands at a place, with an entry of this kind in it.
fn holds(ledger: &dyn Storage, place: Place, fits: impl Fn(&Entry<'_>) -> bool) -> io::Result<bool> {
    let file = match ledger.open(&name(place.segment), Mode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut reader = SegmentReader::new(file)?;
    reader.seek(place.offset);
    match reader.step()? {
        Step::Frame { frame, .. } => {
            let mut committer = Committer::new();
            Ok(frame.records().any(|record| {
                Entry::decode(record.entry)
                    .is_ok_and(|entry| fits(&entry) && record.payload_matches(&entry, &mut committer))
            }))
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::{Draft, Limits, Memory, MemoryKeys, Origin, SystemSalts, Writer};

    #[derive(Default)]
    struct Map(BTreeMap<Vec<u8>, Vec<u8>>);

    impl Store for Map {
        fn fetch(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
            Ok(self.0.get(key).cloned())
        }

        fn apply(&mut self, pairs: Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<()> {
            self.0.extend(pairs);
            Ok(())
        }

        fn scan(&self, prefix: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
            let pairs = self.0.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
            Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
        }

        fn before(&self, prefix: &[u8], key: &[u8]) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
            let last = self.0.range(prefix.to_vec()..=key.to_vec()).next_back();
            Ok(last.map(|(key, value)| (key.clone(), value.clone())))
        }
    }

    fn ledger() -> (Memory, Writer) {
        let storage = Memory::new();
        let keys = Box::new(MemoryKeys::new(Some(&[1; 32]), &[2; 32], &[3; 32]));
        let limits = Limits { segment_bytes: 24 * 1024, fill_bytes: 16 * 1024, ..Limits::default() };
        let salts = Box::new(SystemSalts::default());
        let origin = Origin::new("index.example").unwrap();
        let writer = Writer::create(Arc::new(storage.clone()), &origin, keys, salts, limits, 1).unwrap();
        (storage, writer)
    }

    fn write(writer: &mut Writer, rounds: u64) {
        for _ in 0..rounds {
            let session = writer.next_session();
            let time_ns = session * 100;
            for kind in [Kind::SESSION_OPENED, Kind(288)] {
                writer.stage(&Draft { kind, time_ns, session, body: b"{}", payload: b"x" }).unwrap();
                writer.write().unwrap();
            }
        }
    }

    fn check<S: Store>(index: &Index<S>, storage: &Memory, sessions: u64) {
        assert_eq!(index.sessions().unwrap(), (1..=sessions).collect::<Vec<_>>());
        for number in 1..=sessions {
            assert_eq!(index.session(number, storage).unwrap().unwrap().frames.len(), 2);
            let at = index.at_time(number * 100 + 50, storage).unwrap().unwrap();
            assert_eq!(Some(&at), index.session(number, storage).unwrap().unwrap().frames.last());
        }
        assert_eq!(index.session(sessions + 1, storage).unwrap(), None);
    }

    #[test]
    fn an_index_follows_a_live_ledger_and_goes_on_where_it_got_to() {
        let (storage, mut writer) = ledger();
        let folder = tempfile::tempdir().unwrap();
        let mut map = Index::over(Map::default(), &storage).unwrap();
        for rounds in 1..4 {
            write(&mut writer, 3);
            let mut index = open(&folder.path().join(NAME), &storage).unwrap();
            assert_eq!(index.catch_up(&storage).unwrap(), writer.next_seq());
            check(&index, &storage, 3 * rounds);
            map.catch_up(&storage).unwrap();
            check(&map, &storage, 3 * rounds);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "none was moved aside");
    }

    #[test]
    fn an_index_of_another_ledger_or_a_broken_one_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let (other, mut writer) = ledger();
        write(&mut writer, 2);
        open(&path, &other).unwrap().catch_up(&other).unwrap();
        let (shorter, _writer) = ledger();
        let mut index = open(&path, &shorter).unwrap();
        assert_eq!(index.catch_up(&shorter).unwrap(), 1, "what the other ledger had is gone");
        drop(index);
        fs::write(path.join("conf"), b"garbage").unwrap();
        fs::write(path.join("db"), vec![0xee; 100_000]).unwrap();
        let mut index = open(&path, &other).unwrap();
        index.catch_up(&other).unwrap();
        check(&index, &other, 2);
    }

    #[test]
    fn what_the_index_says_is_checked_at_the_segment() {
        let (storage, mut writer) = ledger();
        write(&mut writer, 2);
        let mut index = Index::over(Map::default(), &storage).unwrap();
        index.catch_up(&storage).unwrap();
        let lie = Place { segment: 0, offset: BLOCK as u64 };
        index.store.apply(vec![(key(b's', 2, Some(lie)), Vec::new())]).unwrap();
        assert!(index.session(2, &storage).is_err());
    }
}

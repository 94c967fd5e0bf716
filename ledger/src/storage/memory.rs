//! A ledger's files in memory, with the faults of a disk: a call that fails, a sync that hangs, a crash.
//!
//! A write is visible at once and durable after a sync, as with an operating system. [`Memory::crash`] gives
//! what a disk would hold after the power failed: what was synced, and any part of what was not.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{File, Mode, Storage};

/// Files in memory. Clones share them.
#[derive(Clone, Default)]
pub struct Memory {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    disk: Mutex<Disk>,
    /// Signalled when a stalled sync may go on.
    moved: Condvar,
}

#[derive(Default)]
struct Disk {
    files: BTreeMap<String, Content>,
    calls: u64,
    fail_from: Option<u64>,
    stalled: bool,
    waiting: usize,
    locked: bool,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Whether the name itself would survive a crash.
    linked: bool,
    read_only: bool,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// How much of what was not synced a crash leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Nothing.
    LosesAll,
    /// Everything.
    LosesNothing,
    /// The first so many bytes of each file's unsynced writes, in their order.
    KeepsBytes(u64),
}

impl Memory {
    /// An empty place.
    #[must_use]
    pub fn new() -> Memory {
        Memory::default()
    }

    /// How many calls that change something were made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.shared.disk.lock().calls
    }

    /// Makes the call that is `number` calls away fail, and all that follow; 0 is the next one. A write that
    /// fails leaves its first half.
    pub fn fail_from(&self, number: u64) {
        let mut disk = self.shared.disk.lock();
        disk.fail_from = Some(disk.calls + number);
    }

    /// Lets every call succeed again.
    pub fn heal(&self) {
        self.shared.disk.lock().fail_from = None;
    }

    /// Makes every sync hang from now on, or lets those that hang go on.
    pub fn stall_sync(&self, stalled: bool) {
        self.shared.disk.lock().stalled = stalled;
        self.shared.moved.notify_all();
    }

    /// How many syncs hang.
    #[must_use]
    pub fn stalled_syncs(&self) -> usize {
        self.shared.disk.lock().waiting
    }

    /// What a disk would hold after a crash now: a new place, without lock and faults.
    #[must_use]
    pub fn crash(&self, crash: Crash) -> Memory {
        let disk = self.shared.disk.lock();
        let mut files = BTreeMap::new();
        for (name, content) in &disk.files {
            if !content.linked && crash == Crash::LosesAll {
                continue;
            }
            let bytes = content.after(crash);
            let durable = bytes.clone();
            let linked = true;
            let read_only = content.read_only;
            files.insert(name.clone(), Content { bytes, durable, pending: Vec::new(), linked, read_only });
        }
        Memory {
            shared: Arc::new(Shared {
                disk: Mutex::new(Disk { files, ..Disk::default() }),
                ..Shared::default()
            }),
        }
    }

    /// How many bytes were written since their files were synced, of the file that has most of them.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        let bytes = |change: &Change| match change {
            Change::Write(_, bytes) => bytes.len() as u64,
            Change::Length(_) => 0,
        };
        let disk = self.shared.disk.lock();
        disk.files.values().map(|content| content.pending.iter().map(bytes).sum()).max().unwrap_or(0)
    }

    /// The names of all files.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.shared.disk.lock().files.keys().cloned().collect()
    }

    /// A file's bytes as a reader sees them.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.shared.disk.lock().files.get(name).map(|content| content.bytes.clone())
    }

    /// Puts a file's bytes in place, past every rule: for tampering.
    pub fn set_bytes(&self, name: &str, bytes: &[u8]) {
        let content =
            Content { bytes: bytes.to_vec(), durable: bytes.to_vec(), linked: true, ..Content::default() };
        self.shared.disk.lock().files.insert(name.to_owned(), content);
    }

    /// Counts a call that changes something.
    fn change(&self) -> Result<MutexGuard<'_, Disk>, io::Error> {
        let mut disk = self.shared.disk.lock();
        if disk.count() { Ok(disk) } else { Err(fault()) }
    }
}

impl Disk {
    /// Counts a call; whether it may succeed.
    fn count(&mut self) -> bool {
        let number = self.calls;
        self.calls += 1;
        self.fail_from.is_none_or(|from| number < from)
    }
}

fn fault() -> io::Error {
    io::Error::other("this storage call was made to fail")
}

impl Content {
    fn after(&self, crash: Crash) -> Vec<u8> {
        let mut budget = match crash {
            Crash::LosesAll => return self.durable.clone(),
            Crash::LosesNothing => return self.bytes.clone(),
            Crash::KeepsBytes(bytes) => bytes,
        };
        let mut bytes = self.durable.clone();
        for change in &self.pending {
            match change {
                Change::Length(length) => bytes.resize(position(*length), 0),
                Change::Write(offset, written) => {
                    let part = position(budget).min(written.len());
                    put(&mut bytes, *offset, &written[..part]);
                    budget -= part as u64;
                }
            }
            if budget == 0 {
                break;
            }
        }
        bytes
    }
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn put(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = position(offset);
    let end = start + bytes.len();
    if !bytes.is_empty() && file.len() < end {
        file.resize(end, 0);
    }
    if !bytes.is_empty() {
        file[start..end].copy_from_slice(bytes);
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("cannot open {name}: not found"))
}

impl Storage for Memory {
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn File>> {
        if mode == Mode::Create {
            let mut disk = self.change()?;
            if disk.files.contains_key(name) {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name} exists already")));
            }
            disk.files.insert(name.to_owned(), Content::default());
        } else {
            let disk = self.shared.disk.lock();
            let content = disk.files.get(name).ok_or_else(|| not_found(name))?;
            if mode == Mode::Write && content.read_only {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{name} is read-only")));
            }
        }
        Ok(Box::new(InMemory { memory: self.clone(), name: name.to_owned() }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let disk = self.shared.disk.lock();
        let mut names: Vec<String> = disk
            .files
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix))
            .map(|rest| rest.split('/').next().unwrap_or(rest).to_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.change()?;
        let content =
            Content { bytes: bytes.to_vec(), durable: bytes.to_vec(), linked: true, ..Content::default() };
        disk.files.insert(name.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change()?.files.remove(name);
        Ok(())
    }

    fn make_read_only(&self, name: &str) -> io::Result<()> {
        let mut disk = self.change()?;
        disk.files.get_mut(name).ok_or_else(|| not_found(name))?.read_only = true;
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut disk = self.change()?;
        for (name, content) in &mut disk.files {
            let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
            content.linked |= parent == folder;
        }
        Ok(())
    }

    fn lock(&self) -> io::Result<Box<dyn Send>> {
        let mut disk = self.shared.disk.lock();
        if disk.locked {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "another writer has this ledger"));
        }
        disk.locked = true;
        Ok(Box::new(Guard(self.clone())))
    }

    fn has_writer(&self) -> bool {
        self.shared.disk.lock().locked
    }
}

struct Guard(Memory);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.shared.disk.lock().locked = false;
    }
}

struct InMemory {
    memory: Memory,
    name: String,
}

impl InMemory {
    fn write(&self, disk: &mut Disk, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let content = disk.files.get_mut(&self.name).ok_or_else(|| not_found(&self.name))?;
        put(&mut content.bytes, offset, bytes);
        content.pending.push(Change::Write(offset, bytes.to_vec()));
        Ok(())
    }
}

impl File for InMemory {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let disk = self.memory.shared.disk.lock();
        let content = disk.files.get(&self.name).ok_or_else(|| not_found(&self.name))?;
        let rest = content.bytes.get(position(offset)..).unwrap_or_default();
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.memory.shared.disk.lock();
        if disk.count() {
            return self.write(&mut disk, offset, bytes);
        }
        self.write(&mut disk, offset, &bytes[..bytes.len() / 2])?;
        Err(fault())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.memory.change()?;
        if disk.stalled {
            disk.waiting += 1;
            while disk.stalled {
                self.memory.shared.moved.wait(&mut disk);
            }
            disk.waiting -= 1;
            // It may have been decided while it hung that it shall fail.
            if disk.fail_from.is_some_and(|from| from <= disk.calls) {
                return Err(fault());
            }
        }
        let content = disk.files.get_mut(&self.name).ok_or_else(|| not_found(&self.name))?;
        content.durable = content.bytes.clone();
        content.pending.clear();
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let disk = self.memory.shared.disk.lock();
        Ok(disk.files.get(&self.name).ok_or_else(|| not_found(&self.name))?.bytes.len() as u64)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        let mut disk = self.memory.change()?;
        let content = disk.files.get_mut(&self.name).ok_or_else(|| not_found(&self.name))?;
        content.bytes.resize(position(length), 0);
        content.pending.push(Change::Length(length));
        Ok(())
    }
}

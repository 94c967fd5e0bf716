//! A ledger's files in memory, with the faults of a disk: calls that fail or lie, a sync that hangs, a crash.
//!
//! A write is visible at once and durable after a sync, as with an operating system; so is a file's name, which
//! a sync of its folder makes durable and a sync of the file does not. [`Memory::crash`] gives what a disk would
//! hold after the power failed. A process that dies loses nothing: drop its writer and go on with the same place.
//!
//! What a newcomer gets wrong: after a failed sync ([`Memory::fault_once`]) a reader still sees what was written,
//! and no later sync brings it to the disk, for the system takes those pages for clean. [`File::confirm`] tells.

mod content;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::{Condvar, Mutex, MutexGuard};

use self::content::{Content, position};
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

#[derive(Clone, Default)]
struct Disk {
    /// Never shortened: a handle keeps its file when the name is gone.
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    /// The names that a crash cannot take.
    durable: BTreeMap<String, usize>,
    /// What was done to names since their folders were synced.
    moves: Vec<Move>,
    calls: u64,
    reads: u64,
    fail_from: Option<u64>,
    fault: Option<(u64, Fault)>,
    read_fault: Option<u64>,
    syncs: u64,
    /// From which sync on they hang.
    stalled_from: Option<u64>,
    waiting: usize,
    locked: bool,
}

#[derive(Clone)]
enum Move {
    Link(String, usize),
    Unlink(String),
    Rename { from: String, to: String, file: usize },
}

/// How much of what was not synced a crash leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Nothing.
    LosesAll,
    /// Everything.
    LosesNothing,
    /// The first so many bytes of each file's unsynced writes, in their order, and every name.
    KeepsBytes(u64),
    /// Each unsynced sector for itself: as it was, or as any later write left it, or garbled. Each change of a
    /// name and of a length for itself. The same seed gives the same.
    Sectors {
        /// What chance begins with.
        seed: u64,
        /// How long a sector is: 512 or 4,096.
        bytes: usize,
    },
}

/// What goes wrong in one call that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails (`EIO`). A write leaves nothing; a sync leaves any part, and what it lost is never synced again.
    Failed,
    /// It fails (`ENOSPC`). A write leaves its first half.
    NoSpace,
    /// A write leaves so many bytes and fails; any other call fails.
    Short(usize),
    /// A write lands so many bytes behind its place, and says that it succeeded.
    Misplaced(u64),
    /// The call does nothing, and says that it succeeded.
    Dropped,
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

    /// How many calls that read a file were made.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.shared.disk.lock().reads
    }

    /// Makes the call that is `number` calls away fail, and all that follow, as for a process that dies there; 0
    /// is the next one. A write that fails leaves its first half.
    pub fn fail_from(&self, number: u64) {
        let mut disk = self.shared.disk.lock();
        disk.fail_from = Some(disk.calls + number);
    }

    /// Makes the one call that is `number` calls away go wrong; 0 is the next one.
    pub fn fault_once(&self, number: u64, fault: Fault) {
        let mut disk = self.shared.disk.lock();
        disk.fault = Some((disk.calls + number, fault));
    }

    /// Makes the one read that is `number` reads away fail; 0 is the next one.
    pub fn fail_read_once(&self, number: u64) {
        let mut disk = self.shared.disk.lock();
        disk.read_fault = Some(disk.reads + number);
    }

    /// Lets every call succeed again.
    pub fn heal(&self) {
        let mut disk = self.shared.disk.lock();
        (disk.fail_from, disk.fault, disk.read_fault) = (None, None, None);
    }

    /// Makes every sync hang from now on, or lets those that hang go on.
    pub fn stall_sync(&self, stalled: bool) {
        let mut disk = self.shared.disk.lock();
        disk.stalled_from = stalled.then_some(disk.syncs);
        self.shared.moved.notify_all();
    }

    /// Lets the syncs that hang go on, and those that come later hang.
    pub fn pass_syncs(&self) {
        self.stall_sync(true);
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
        let mut chance = Rng::with_seed(if let Crash::Sectors { seed, .. } = crash { seed } else { 0 });
        let mut after = Disk { durable: disk.names_after(crash, &mut chance), ..Disk::default() };
        after.files = disk.files.iter().map(|content| content.after(crash, &mut chance)).collect();
        after.names = after.durable.clone();
        Memory::from(after)
    }

    /// The same place once more, with what is not yet synced, without lock and faults.
    #[must_use]
    pub fn fork(&self) -> Memory {
        let disk = self.shared.disk.lock().clone();
        let memory = Memory::from(Disk { locked: false, stalled_from: None, waiting: 0, ..disk });
        memory.heal();
        memory
    }

    fn from(disk: Disk) -> Memory {
        Memory { shared: Arc::new(Shared { disk: Mutex::new(disk), ..Shared::default() }) }
    }

    /// How many bytes were written since their files were synced, of the file that has most of them.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        self.shared.disk.lock().files.iter().map(Content::unsynced_bytes).max().unwrap_or(0)
    }

    /// The names of all files.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.shared.disk.lock().names.keys().cloned().collect()
    }

    /// A file's bytes as a reader sees them.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.shared.disk.lock();
        disk.names.get(name).map(|file| disk.files[*file].bytes().to_vec())
    }

    /// Puts a file's bytes in place, past every rule: for tampering.
    pub fn set_bytes(&self, name: &str, bytes: &[u8]) {
        let mut disk = self.shared.disk.lock();
        let file = disk.files.len();
        disk.files.push(Content::durable(bytes));
        disk.moves.retain(|change| change.name() != name);
        disk.names.insert(name.to_owned(), file);
        disk.durable.insert(name.to_owned(), file);
    }

    /// Counts a call that changes something, but neither writes nor syncs; none where it shall do nothing.
    fn change(&self) -> io::Result<Option<MutexGuard<'_, Disk>>> {
        let mut disk = self.shared.disk.lock();
        match disk.count()? {
            None => Ok(Some(disk)),
            Some(Fault::Misplaced(_) | Fault::Dropped) => Ok(None),
            Some(fault) => Err(fault.error()),
        }
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Fault::NoSpace => io::ErrorKind::StorageFull.into(),
            _ => io::Error::other("this storage call was made to fail"),
        }
    }
}

impl Move {
    fn name(&self) -> &str {
        match self {
            Move::Link(name, _) | Move::Unlink(name) | Move::Rename { to: name, .. } => name,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Move::Link(name, file) => drop(names.insert(name.clone(), *file)),
            Move::Unlink(name) => drop(names.remove(name)),
            Move::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

impl Disk {
    /// Counts a call; what shall go wrong with it.
    fn count(&mut self) -> io::Result<Option<Fault>> {
        let number = self.calls;
        self.calls += 1;
        if self.fail_from.is_some_and(|from| number >= from) {
            return Err(dead());
        }
        Ok(self.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault))
    }

    /// Counts a read.
    fn read(&mut self) -> io::Result<()> {
        let number = self.reads;
        self.reads += 1;
        if self.read_fault == Some(number) { Err(Fault::Failed.error()) } else { Ok(()) }
    }

    fn perform(&mut self, change: Move) {
        change.apply(&mut self.names);
        self.moves.push(change);
    }

    fn names_after(&self, crash: Crash, chance: &mut Rng) -> BTreeMap<String, usize> {
        let mut names = self.durable.clone();
        for change in &self.moves {
            let kept = match crash {
                Crash::LosesAll => false,
                Crash::LosesNothing | Crash::KeepsBytes(_) => true,
                Crash::Sectors { .. } => chance.bool(),
            };
            if kept {
                change.apply(&mut names);
            }
        }
        names
    }
}

/// What a call gets that comes after the death of its process.
fn dead() -> io::Error {
    io::Error::other("this storage call and all after it were made to fail")
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("cannot open {name}: not found"))
}

impl Storage for Memory {
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn File>> {
        let file = if mode == Mode::Create {
            let mut disk = match self.change()? {
                Some(disk) => disk,
                None => return Err(not_found(name)),
            };
            if disk.names.contains_key(name) {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name} exists already")));
            }
            let file = disk.files.len();
            disk.files.push(Content::default());
            disk.perform(Move::Link(name.to_owned(), file));
            file
        } else {
            let disk = self.shared.disk.lock();
            let file = *disk.names.get(name).ok_or_else(|| not_found(name))?;
            if mode == Mode::Write && disk.files[file].is_read_only() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{name} is read-only")));
            }
            file
        };
        Ok(Box::new(InMemory { memory: self.clone(), file }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let disk = self.shared.disk.lock();
        let mut names: Vec<String> = disk
            .names
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix))
            .map(|rest| rest.split('/').next().unwrap_or(rest).to_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    // The same calls in the same order as in a directory, each of which can be the last.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = format!("{name}.new");
        let Some(mut disk) = self.change()? else { return Ok(()) };
        let file = disk.files.len();
        disk.files.push(Content::default());
        disk.perform(Move::Link(draft.clone(), file));
        drop(disk);
        let mut written = InMemory { memory: self.clone(), file };
        written.write_at(0, bytes)?;
        written.sync()?;
        if let Some(mut disk) = self.change()? {
            disk.perform(Move::Rename { from: draft, to: name.to_owned(), file });
        }
        self.sync_folder(parent(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if let Some(mut disk) = self.change()?
            && disk.names.contains_key(name)
        {
            disk.perform(Move::Unlink(name.to_owned()));
        }
        Ok(())
    }

    fn make_read_only(&self, name: &str) -> io::Result<()> {
        let Some(mut disk) = self.change()? else { return Ok(()) };
        let file = *disk.names.get(name).ok_or_else(|| not_found(name))?;
        disk.files[file].make_read_only();
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let Some(mut disk) = self.change()? else { return Ok(()) };
        let (here, elsewhere) =
            std::mem::take(&mut disk.moves).into_iter().partition(|change| parent(change.name()) == folder);
        disk.moves = elsewhere;
        let changes: Vec<Move> = here;
        changes.iter().for_each(|change| change.apply(&mut disk.durable));
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

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

struct Guard(Memory);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.shared.disk.lock().locked = false;
    }
}

struct InMemory {
    memory: Memory,
    file: usize,
}

impl File for InMemory {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.memory.shared.disk.lock();
        disk.read()?;
        let rest = disk.files[self.file].bytes().get(position(offset)..).unwrap_or_default();
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.memory.shared.disk.lock();
        let counted = disk.count();
        let content = &mut disk.files[self.file];
        let (place, part, result) = match counted {
            Ok(None) => (offset, bytes.len(), Ok(())),
            Ok(Some(Fault::Misplaced(by))) => (offset + by, bytes.len(), Ok(())),
            Ok(Some(Fault::Dropped)) => (offset, 0, Ok(())),
            Ok(Some(fault @ Fault::Failed)) => (offset, 0, Err(fault.error())),
            Ok(Some(fault @ Fault::NoSpace)) => (offset, bytes.len() / 2, Err(fault.error())),
            Ok(Some(fault @ Fault::Short(part))) => (offset, part.min(bytes.len()), Err(fault.error())),
            Err(error) => (offset, bytes.len() / 2, Err(error)),
        };
        content.write(place, &bytes[..part]);
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.memory.shared.disk.lock();
        let fault = disk.count()?;
        let number = disk.syncs;
        disk.syncs += 1;
        let hangs = |disk: &Disk| disk.stalled_from.is_some_and(|from| from <= number);
        if hangs(&disk) {
            disk.waiting += 1;
            while hangs(&disk) {
                self.memory.shared.moved.wait(&mut disk);
            }
            disk.waiting -= 1;
            // It may have been decided while it hung that it shall fail.
            if disk.fail_from.is_some_and(|from| from <= disk.calls) {
                return Err(dead());
            }
        }
        let seed = disk.calls;
        let content = &mut disk.files[self.file];
        match fault {
            None => content.sync(),
            Some(Fault::Misplaced(_) | Fault::Dropped) => {}
            Some(fault) => {
                content.lose_sync(seed);
                return Err(fault.error());
            }
        }
        Ok(())
    }

    fn confirm(&mut self) -> io::Result<()> {
        self.sync()?;
        self.memory.shared.disk.lock().files[self.file].forget();
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let mut disk = self.memory.shared.disk.lock();
        disk.read()?;
        Ok(disk.files[self.file].bytes().len() as u64)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        if let Some(mut disk) = self.memory.change()? {
            disk.files[self.file].set_length(length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

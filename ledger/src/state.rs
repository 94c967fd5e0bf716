//! `DIR/state`: the last checkpoint that was signed, in two slots that take turns.
//!
//! It keeps us from signing two trees of one size, or a smaller one after a larger, and tells recovery how
//! far it may never cut. It is no anchor: whoever puts back an older copy of the directory puts it back too.

use std::io;

use crate::entry::array;
use crate::hash::Digest;
use crate::segment::{BLOCK, all_zero};
use crate::storage::{File, Mode, Storage, read_full};

/// The file's name.
pub const NAME: &str = "state";

const MAGIC: &[u8; 8] = b"GBSTATE1";
const CONTENT_BYTES: usize = 104;

/// What was signed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signed {
    /// Counts the checkpoints.
    pub generation: u64,
    /// The tree's size.
    pub size: u64,
    /// Its root.
    pub root: Digest,
    /// The chain's value after its last entry.
    pub chain: Digest,
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The epoch.
    pub epoch: u32,
}

impl Signed {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.root.0);
        out.extend_from_slice(&self.chain.0);
        out.extend_from_slice(&self.time_ns.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        let sum = crc32c::crc32c(&out);
        out.extend_from_slice(&sum.to_be_bytes());
        out.resize(BLOCK, 0);
        out
    }

    fn decode(slot: &[u8]) -> Option<Signed> {
        let sum = crc32c::crc32c(&slot[..CONTENT_BYTES - 4]).to_be_bytes();
        if &slot[..8] != MAGIC
            || slot[CONTENT_BYTES - 4..CONTENT_BYTES] != sum
            || !all_zero(&slot[CONTENT_BYTES..])
        {
            return None;
        }
        Some(Signed {
            generation: u64::from_be_bytes(array(&slot[8..16])),
            size: u64::from_be_bytes(array(&slot[16..24])),
            root: Digest(array(&slot[24..56])),
            chain: Digest(array(&slot[56..88])),
            time_ns: u64::from_be_bytes(array(&slot[88..96])),
            epoch: u32::from_be_bytes(array(&slot[96..100])),
        })
    }
}

/// What the two slots hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// The newest that is whole; the zero value where nothing was signed yet.
    pub newest: Signed,
    /// Whether a slot is neither whole nor empty: a crash in the middle of a write, or tampering.
    pub damaged: bool,
}

/// Reads both slots.
///
/// # Errors
/// Of the storage; [`io::ErrorKind::InvalidData`] where no slot is whole or empty.
pub fn read(file: &dyn File) -> io::Result<Slots> {
    let mut bytes = vec![0; 2 * BLOCK];
    let length = read_full(file, 0, &mut bytes)?;
    let mut newest = None;
    let mut damaged = length != 2 * BLOCK || file.length()? != 2 * BLOCK as u64;
    let mut empty = false;
    for (slot, turn) in bytes.chunks_exact(BLOCK).zip(0..) {
        match Signed::decode(slot).filter(|signed| signed.generation % 2 == turn) {
            Some(signed) if newest.is_none_or(|newest: Signed| signed.generation > newest.generation) => {
                newest = Some(signed);
            }
            Some(_) => {}
            None if all_zero(slot) => empty = true,
            None => damaged = true,
        }
    }
    match newest {
        Some(newest) => Ok(Slots { newest, damaged }),
        // The very first write may be the one that a crash left half-done.
        None if empty => Ok(Slots { newest: Signed::default(), damaged }),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "neither slot of the state file is whole")),
    }
}

/// The state file, open for the writer.
pub(crate) struct StateFile {
    file: Box<dyn File>,
    newest: Signed,
    damaged: bool,
}

impl StateFile {
    /// Makes an empty one.
    pub(crate) fn create(storage: &dyn Storage) -> io::Result<StateFile> {
        let mut file = storage.open(NAME, Mode::Create)?;
        file.write_at(0, &[0; 2 * BLOCK])?;
        file.sync()?;
        storage.sync_folder("")?;
        Ok(StateFile { file, newest: Signed::default(), damaged: false })
    }

    /// Opens it, and reads it as the disk has it.
    pub(crate) fn open(storage: &dyn Storage) -> io::Result<StateFile> {
        let mut file = storage.open(NAME, Mode::Write)?;
        file.confirm()?;
        let Slots { newest, damaged } = read(file.as_ref())?;
        Ok(StateFile { file, newest, damaged })
    }

    /// Empties what is neither whole nor empty, as a crash leaves it.
    pub(crate) fn mend(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.damaged) {
            self.file.set_length(2 * BLOCK as u64)?;
            let none = self.newest.generation == 0;
            let (at, slots) = if none { (0, 2) } else { (offset(self.newest.generation + 1), 1) };
            self.file.write_at(at, &vec![0; slots * BLOCK])?;
            self.file.sync()?;
        }
        Ok(())
    }

    /// What was signed last.
    pub(crate) fn newest(&self) -> Signed {
        self.newest
    }

    /// Takes the next checkpoint before it is shown to anybody. Compares with what the file holds first: if
    /// that is not what we left there, somebody else signs with this ledger's keys, and we stop.
    pub(crate) fn advance(&mut self, next: Signed) -> io::Result<()> {
        if read(self.file.as_ref())?.newest != self.newest {
            return Err(io::Error::other("the state file was changed by somebody else"));
        }
        let conflicts = next.size == self.newest.size && next.root != self.newest.root;
        if next.size < self.newest.size || conflicts || next.generation != self.newest.generation + 1 {
            return Err(io::Error::other(
                "a checkpoint that conflicts with one signed before was not signed",
            ));
        }
        self.file.write_at(offset(next.generation), &next.encode())?;
        self.file.sync()?;
        self.newest = next;
        Ok(())
    }
}

fn offset(generation: u64) -> u64 {
    (generation % 2) * BLOCK as u64
}

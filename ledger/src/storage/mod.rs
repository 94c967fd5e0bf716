//! What the ledger asks of a place to keep its files. Two places keep it: a directory, and memory.
//!
//! Names are relative, with `/` between folders. What a newcomer gets wrong: after [`File::sync`] has failed
//! once, nothing is known about any write before it, and trying again may lie. So nobody here tries again.

mod directory;
mod memory;

use std::io;

pub use directory::Directory;
pub(crate) use directory::open_regular;
pub use memory::{Crash, Fault, Memory};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To be read alone; it must exist.
    Read,
    /// To be read and written; it must exist.
    Write,
    /// To be read and written; it must not exist.
    Create,
}

/// A place for a ledger's files.
pub trait Storage: Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    /// Of the system, with the file's name; [`io::ErrorKind::NotFound`] where it is not there.
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn File>>;

    /// The names in a folder, sorted; none where there is no such folder.
    ///
    /// # Errors
    /// Of the system.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Puts a whole file in place, so that after a crash either the old or the new one is there; durable on return.
    ///
    /// # Errors
    /// Of the system; then either file may be there.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// Of the system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes a file read-only.
    ///
    /// # Errors
    /// Of the system.
    fn make_read_only(&self, name: &str) -> io::Result<()>;

    /// Makes the names in a folder durable; the empty name is the root.
    ///
    /// # Errors
    /// Of the system.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;

    /// Takes the place for one writer, until the guard is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where another writer has it.
    fn lock(&self) -> io::Result<Box<dyn Send>>;

    /// Whether a writer has the place now.
    fn has_writer(&self) -> bool;
}

/// An open file.
pub trait File: Send {
    /// Reads at an offset; 0 bytes at and after the end.
    ///
    /// # Errors
    /// Of the system.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// Of the system; a part may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes every write before it durable, with the file's length.
    ///
    /// # Errors
    /// Of the system; then the file's content is unknown.
    fn sync(&mut self) -> io::Result<()>;

    /// Makes durable what an earlier process wrote, and forgets what the system remembers of the file, so that it
    /// reads as the disk has it. After a sync that failed a system may go on showing what it never wrote.
    ///
    /// # Errors
    /// Of the system; then the file's content is unknown.
    fn confirm(&mut self) -> io::Result<()>;

    /// How long it is.
    ///
    /// # Errors
    /// Of the system.
    fn length(&self) -> io::Result<u64>;

    /// Cuts it, or extends it with zeros.
    ///
    /// # Errors
    /// Of the system.
    fn set_length(&mut self, length: u64) -> io::Result<()>;
}

/// Reads a whole file that must not be longer than `bytes_max`.
///
/// # Errors
/// Of the system; [`io::ErrorKind::InvalidData`] where it is longer.
pub fn read(storage: &dyn Storage, name: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = storage.open(name, Mode::Read)?;
    let length = file.length()?;
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= bytes_max) else {
        let message = format!("{name} is longer than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    };
    let mut bytes = vec![0; length];
    let length = read_full(file.as_ref(), 0, &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Reads until `into` is full or the file ends; gives how much was read.
///
/// # Errors
/// Of the system.
pub fn read_full(file: &dyn File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(offset + done as u64, &mut into[done..]) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

//! Copies a ledger, at rest or while it is written, into a directory from which it can be gone on with.
//!
//! What is copied is a prefix: checkpoint and tiles first, then the state, then the segments, which hold at least what
//! both have signed. Keys are not in the ledger, and so not in its backup; archived segments are. It copies what is there
//! and does not judge it; verify the backup. What a newcomer gets wrong: a gateway that goes on from a backup while a
//! witness knows more is a rollback, and is told as one.

use std::io;

use crate::checkpoint::{NOTE_BYTES_MAX, Note};
use crate::manifest::{self, MANIFEST_BYTES_MAX};
use crate::merkle::{TILE_WIDTH, tile_path};
use crate::reader::segments;
use crate::segment::{BLOCK, SegmentReader, Step, name};
use crate::state;
use crate::storage::{Directory, File, Mode, Storage, read};
use crate::writer::CHECKPOINT;

const COPY_BYTES: usize = 1024 * 1024;
/// How often to begin again where the writer published in between.
const ATTEMPTS_MAX: u32 = 10;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backup {
    /// How many segments.
    pub segments: u64,
    /// How many bytes of them.
    pub bytes: u64,
    /// How many entries the checkpoint covers; 0 where nothing is published.
    pub published: u64,
}

/// Copies a ledger into an empty directory; durable on return. The manifest comes last: without it nothing is a ledger.
///
/// # Errors
/// Of either storage; [`io::ErrorKind::AlreadyExists`] where the directory is not empty;
/// [`io::ErrorKind::InvalidData`] where checkpoint or state are not whole. What was copied stays then.
pub fn backup(from: &dyn Storage, to: &Directory) -> io::Result<Backup> {
    if !to.list("")?.is_empty() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the place to back up to is not empty"));
    }
    let mut copied = Backup { published: published(from, to)?, ..Backup::default() };
    state(from, to)?;
    let live = from.has_writer();
    let numbers = segments(from)?;
    for number in &numbers {
        copied.bytes += segment(from, to, *number, live && Some(number) == numbers.last())?;
        copied.segments += 1;
    }
    // One sync for many small files; the manifest behind it has its own.
    let root = std::fs::File::open(to.root())?;
    rustix::fs::syncfs(&root)?;
    to.replace(manifest::NAME, &read(from, manifest::NAME, MANIFEST_BYTES_MAX)?)?;
    Ok(copied)
}

/// Copies checkpoint and tiles that belong together; gives the checkpoint's size.
fn published(from: &dyn Storage, to: &Directory) -> io::Result<u64> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let note = match read(from, CHECKPOINT, NOTE_BYTES_MAX) {
            Ok(note) => note,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let parsed = Note::parse(&note).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let size = parsed.unverified().size;
        match tiles(from, to, size) {
            Ok(()) => {
                put(to, CHECKPOINT, &note)?;
                return Ok(size);
            }
            // A partial tile that a newer checkpoint replaced: that one is read then.
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS_MAX => {}
            Err(error) => return Err(error),
        }
    }
}

fn tiles(from: &dyn Storage, to: &Directory, mut size: u64) -> io::Result<()> {
    let width = TILE_WIDTH as u64;
    for level in 0..8 {
        for index in 0..size.div_ceil(width) {
            let here = usize::try_from((size - index * width).min(width)).unwrap_or(TILE_WIDTH);
            let path = tile_path(&format!("{level}"), index, here);
            put(to, &path, &read(from, &path, TILE_WIDTH * 32)?)?;
        }
        size /= width;
        if size == 0 {
            break;
        }
    }
    Ok(())
}

/// Copies the state file once it reads whole: its writer may just be at it.
fn state(from: &dyn Storage, to: &Directory) -> io::Result<()> {
    for _ in 0..ATTEMPTS_MAX {
        put(to, state::NAME, &read(from, state::NAME, 2 * BLOCK)?)?;
        let copy = to.open(state::NAME, Mode::Read)?;
        if state::read(copy.as_ref()).is_ok_and(|slots| !slots.damaged) {
            return Ok(());
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the state file is damaged; ask `doctor`"))
}

/// Copies a segment without the room that its writer has not used, and without what a live writer is just writing.
fn segment(from: &dyn Storage, to: &Directory, number: u64, being_written: bool) -> io::Result<u64> {
    let file = from.open(&name(number), Mode::Read)?;
    let sealed = crate::segment::is_sealed(file.as_ref())?;
    let mut reader = SegmentReader::new(file)?;
    let end = if sealed { reader.length() } else { end_of(&mut reader, being_written)? };
    let mut copy = create(to, &name(number))?;
    let mut at = 0;
    while at < end {
        let part = reader.view(at, usize::try_from(end - at).unwrap_or(COPY_BYTES).min(COPY_BYTES))?;
        if part.is_empty() {
            break;
        }
        copy.write_at(at, part)?;
        at += part.len() as u64;
    }
    drop(copy);
    if sealed {
        to.make_read_only(&name(number))?;
    }
    Ok(at)
}

/// Where an open segment ends.
fn end_of(reader: &mut SegmentReader, being_written: bool) -> io::Result<u64> {
    loop {
        match reader.step()? {
            Step::Frame { .. } => {}
            Step::End { offset } => return Ok(offset.min(reader.length())),
            Step::Damaged { offset, .. } if being_written => return Ok(offset),
            Step::Footer { .. } | Step::Damaged { .. } => return Ok(reader.length()),
        }
    }
}

/// Puts a file in place of one that an earlier attempt may have left. Not durable yet.
fn put(to: &Directory, name: &str, bytes: &[u8]) -> io::Result<()> {
    create(to, name)?.write_at(0, bytes)
}

fn create(to: &Directory, name: &str) -> io::Result<Box<dyn File>> {
    to.remove(name)?;
    to.open(name, Mode::Create)
}

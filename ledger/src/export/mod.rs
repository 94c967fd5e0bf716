//! Copies a ledger, live or at rest, into a directory that can be handed to an auditor: the segments as they
//! are, and beside them a whole tlog-tiles directory (C2SP) with its checkpoint, hash tiles and entry bundles.
//!
//! A part of it can be handed over too: a range of entries, or one session and nothing of any other. Each bundle
//! carries its proofs, a README for a stranger and a verifier in Python.
//!
//! It copies what is there and does not judge it; verify the export.

mod part;
mod stranger;

use std::io;
use std::ops::{ControlFlow, RangeInclusive};

use crate::checkpoint::{NOTE_BYTES_MAX, Note};
use crate::entry::Malformed;
use crate::hash::leaf;
use crate::manifest::{self, MANIFEST_BYTES_MAX};
use crate::merkle::{TILE_WIDTH, Tile, Tree, tile_path};
use crate::reader::{Item, segments, visit};
use crate::segment::{SegmentReader, Step, name};
use crate::storage::{Mode, Storage, read};
use crate::witness::kept::COSIGNED;
use crate::writer::CHECKPOINT;

pub use self::part::Wanted;

const COPY_BYTES: usize = 1024 * 1024;

/// What was exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// How many segments.
    pub segments: u64,
    /// How many entries the checkpoint covers: so many are in bundles. 0 where nothing is published.
    pub published: u64,
}

/// Makes a bundle in an empty place: a part of the ledger, its proofs, and what a stranger needs to judge it.
/// `previous` is the checkpoint of an earlier export, which this one then proves to be its beginning.
///
/// # Errors
/// As [`export`]; [`io::ErrorKind::InvalidInput`] where the part is not under the checkpoint.
pub fn bundle(
    from: &dyn Storage,
    to: &dyn Storage,
    wanted: Wanted,
    previous: Option<&[u8]>,
) -> io::Result<Exported> {
    match wanted {
        Wanted::Ledger => drop(export(from, to)?),
        Wanted::Range { .. } | Wanted::Session(_) => must_be_empty(to)?,
    }
    let published = part::add(from, to, wanted, previous)?;
    stranger::add(to)?;
    let segments = segments(to)?.len() as u64;
    Ok(Exported { segments, published })
}

fn must_be_empty(to: &dyn Storage) -> io::Result<()> {
    if to.list("")?.is_empty() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "the place to export to is not empty"))
}

/// Exports a ledger into an empty place, without what accompanies a bundle.
///
/// # Errors
/// Of either storage; [`io::ErrorKind::AlreadyExists`] where the place is not empty;
/// [`io::ErrorKind::InvalidData`] where the ledger is too broken to be tiled. Copied files stay then.
pub fn export(from: &dyn Storage, to: &dyn Storage) -> io::Result<Exported> {
    must_be_empty(to)?;
    // The checkpoint comes first: the segments that are copied after it hold at least what it covers.
    let note = match read(from, CHECKPOINT, NOTE_BYTES_MAX) {
        Ok(note) => Some(note),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let numbers = segments(from)?;
    let live = from.has_writer();
    for number in &numbers {
        copy(from, to, *number, live && Some(number) == numbers.last())?;
    }
    to.replace(manifest::NAME, &read(from, manifest::NAME, MANIFEST_BYTES_MAX)?)?;
    let mut published = 0;
    if let Some(note) = note {
        let parsed = Note::parse(&note).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        published = parsed.unverified().size;
        tile(to, to, published, 0..=u64::MAX)?;
        to.replace(CHECKPOINT, &note)?;
        copy_cosigned(from, to)?;
    }
    Ok(Exported { segments: numbers.len() as u64, published })
}

/// Copies a segment without the room that its writer has not used. What is damaged is copied as it is; what a
/// live writer is just writing is not.
fn copy(from: &dyn Storage, to: &dyn Storage, number: u64, being_written: bool) -> io::Result<()> {
    let file = from.open(&name(number), Mode::Read)?;
    let mut reader = SegmentReader::new(file)?;
    let end = loop {
        match reader.step()? {
            Step::Frame { .. } => {}
            Step::End { offset } => break offset.min(reader.length()),
            Step::Damaged { offset, .. } if being_written => break offset,
            Step::Footer { .. } | Step::Damaged { .. } => break reader.length(),
        }
    };
    let mut copy = to.open(&name(number), Mode::Create)?;
    let mut at = 0;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        let part = reader.view(at, length)?;
        if part.is_empty() {
            break;
        }
        copy.write_at(at, part)?;
        at += part.len() as u64;
    }
    copy.sync()?;
    to.sync_folder("segments")
}

/// Copies what witnesses cosigned.
fn copy_cosigned(from: &dyn Storage, to: &dyn Storage) -> io::Result<()> {
    for name in from.list(COSIGNED)?.iter().filter(|name| !name.ends_with(".new")) {
        let path = format!("{COSIGNED}/{name}");
        to.replace(&path, &read(from, &path, NOTE_BYTES_MAX)?)?;
    }
    Ok(())
}

/// Makes hash tiles of the first entries of `from`, and bundles of those of them that are in `bundled`.
fn tile(from: &dyn Storage, to: &dyn Storage, size: u64, bundled: RangeInclusive<u64>) -> io::Result<()> {
    let mut tiler = Tiler { to, tree: Tree::default(), bundle: Vec::new(), bundled };
    let mut failed: Option<io::Error> = None;
    if size > 0 {
        visit(from, None, |item| {
            let step = match item {
                Item::Entry { entry, .. } => tiler.push(entry.bytes),
                Item::Broken { why: Malformed(why), .. } => {
                    Err(io::Error::new(io::ErrorKind::InvalidData, why))
                }
            };
            match step {
                Ok(()) if tiler.tree.size() < size => ControlFlow::Continue(()),
                Ok(()) => ControlFlow::Break(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
    }
    match failed {
        Some(error) => Err(error),
        None if tiler.tree.size() < size => {
            let what = "the ledger has fewer entries than its checkpoint covers";
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
        None => tiler.finish(),
    }
}

struct Tiler<'a> {
    to: &'a dyn Storage,
    tree: Tree,
    bundle: Vec<u8>,
    bundled: RangeInclusive<u64>,
}

impl Tiler<'_> {
    fn push(&mut self, entry: &[u8]) -> io::Result<()> {
        let length = u16::try_from(entry.len()).unwrap_or(u16::MAX);
        self.bundle.extend_from_slice(&length.to_be_bytes());
        self.bundle.extend_from_slice(entry);
        self.tree.push(leaf(entry));
        if self.tree.size().is_multiple_of(TILE_WIDTH as u64) {
            self.store_bundle(TILE_WIDTH)?;
            let full = self.tree.take_full();
            self.store(full)?;
        }
        Ok(())
    }

    /// Stores the entries of the tile that just ended, where any of them is wanted.
    fn store_bundle(&mut self, width: usize) -> io::Result<()> {
        let first = self.tree.size() - width as u64;
        if first <= *self.bundled.end() && self.tree.size() > *self.bundled.start() {
            self.to.replace(&tile_path("entries", first / TILE_WIDTH as u64, width), &self.bundle)?;
        }
        self.bundle.clear();
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let width = usize::try_from(self.tree.size() % TILE_WIDTH as u64).unwrap_or(0);
        if width > 0 {
            self.store_bundle(width)?;
        }
        self.store(self.tree.partial())
    }

    fn store(&self, tiles: Vec<Tile>) -> io::Result<()> {
        tiles.iter().try_for_each(|tile| self.to.replace(&tile.path(), &tile.bytes()))
    }
}

//! Copies a ledger, live or at rest, into a directory that can be handed to an auditor: the segments as they
//! are, and beside them a whole tlog-tiles directory (C2SP) with its checkpoint, hash tiles and entry bundles.
//!
//! It copies what is there and does not judge it; verify the export.

use std::io;
use std::ops::ControlFlow;

use crate::checkpoint::{NOTE_BYTES_MAX, Note};
use crate::entry::Malformed;
use crate::hash::leaf;
use crate::manifest::{self, MANIFEST_BYTES_MAX};
use crate::merkle::{TILE_WIDTH, Tile, Tree, tile_path};
use crate::reader::{Item, segments, visit};
use crate::segment::{SegmentReader, Step, name};
use crate::storage::{Mode, Storage, read};
use crate::writer::CHECKPOINT;

const COPY_BYTES: usize = 1024 * 1024;

/// What was exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// How many segments.
    pub segments: u64,
    /// How many entries the checkpoint covers: so many are in bundles. 0 where nothing is published.
    pub published: u64,
}

/// Exports a ledger into an empty place.
///
/// # Errors
/// Of either storage; [`io::ErrorKind::AlreadyExists`] where the place is not empty;
/// [`io::ErrorKind::InvalidData`] where the ledger is too broken to be tiled. Copied files stay then.
pub fn export(from: &dyn Storage, to: &dyn Storage) -> io::Result<Exported> {
    if !to.list("")?.is_empty() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the place to export to is not empty"));
    }
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
        tile(to, published)?;
        to.replace(CHECKPOINT, &note)?;
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

/// Makes hash tiles and bundles of the first entries.
fn tile(to: &dyn Storage, size: u64) -> io::Result<()> {
    let mut tree = Tree::default();
    let mut bundle = Vec::new();
    let mut failed: Option<io::Error> = None;
    if size > 0 {
        visit(to, None, |item| {
            let step = match item {
                Item::Entry { entry, .. } => push(to, &mut tree, &mut bundle, entry.bytes),
                Item::Broken { why: Malformed(why), .. } => {
                    Err(io::Error::new(io::ErrorKind::InvalidData, why))
                }
            };
            match step {
                Ok(()) if tree.size() < size => ControlFlow::Continue(()),
                Ok(()) => ControlFlow::Break(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let width = usize::try_from(size % TILE_WIDTH as u64).unwrap_or(0);
    if width > 0 {
        to.replace(&tile_path("entries", size / TILE_WIDTH as u64, width), &bundle)?;
    }
    store(to, &tree.partial())
}

fn push(to: &dyn Storage, tree: &mut Tree, bundle: &mut Vec<u8>, entry: &[u8]) -> io::Result<()> {
    let length = u16::try_from(entry.len()).unwrap_or(u16::MAX);
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    tree.push(leaf(entry));
    if tree.size().is_multiple_of(TILE_WIDTH as u64) {
        to.replace(&tile_path("entries", tree.size() / TILE_WIDTH as u64 - 1, TILE_WIDTH), bundle)?;
        bundle.clear();
        store(to, &tree.take_full())?;
    }
    Ok(())
}

fn store(to: &dyn Storage, tiles: &[Tile]) -> io::Result<()> {
    tiles.iter().try_for_each(|tile| to.replace(&tile.path(), &tile.bytes()))
}

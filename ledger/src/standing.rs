//! Which keys a ledger has come to, read from its newest segments alone: for showing, and for a first look at a
//! checkpoint. It follows no certificate from the beginning; that is [`crate::verify`]'s to do.

use std::io;
use std::ops::ControlFlow;

use crate::checkpoint::{Checkpoint, NOTE_BYTES_MAX, Note, Vkey};
use crate::entry::Kind;
use crate::epoch::Epoch;
use crate::manifest::Manifest;
use crate::orders::{Authority, Order};
use crate::reader::{Item, Place, segments, visit};
use crate::segment::{BLOCK, SegmentReader, ends_of, name};
use crate::storage::{Mode, Storage, read};
use crate::writer::CHECKPOINT;

/// The root and log keys that are in force at the end.
///
/// # Errors
/// Of the storage.
pub fn authority(storage: &dyn Storage, manifest: &Manifest) -> io::Result<Authority> {
    let numbers = segments(storage)?;
    let mut standing = (Authority::first(manifest), 0);
    for number in numbers.iter().rev() {
        if let Ok(Some((_, footer))) = ends_of(storage.open(&name(*number), Mode::Read)?, &manifest.origin) {
            standing = (footer.authority, number + 1);
            break;
        }
    }
    let (mut authority, segment) = standing;
    visit(storage, Some(Place { segment, offset: BLOCK as u64 }), |item| {
        if let Item::Entry { entry, .. } = item
            && entry.header.kind == Kind::KEYS_CHANGED
            && let Ok(order) = Order::parse(entry.body)
            && let Ok(next) = authority.after(&order, entry.header.time_ns, manifest)
        {
            authority = next;
        }
        ControlFlow::Continue(())
    })?;
    Ok(authority)
}

/// An epoch, as the newest segment that belongs to it says; the newest epoch where no number is asked for.
///
/// # Errors
/// Of the storage.
pub fn epoch(storage: &dyn Storage, number: Option<u32>) -> io::Result<Option<Epoch>> {
    for segment in segments(storage)?.iter().rev() {
        let mut reader = SegmentReader::new(storage.open(&name(*segment), Mode::Read)?)?;
        let Ok(header) = reader.header()? else { continue };
        match number {
            Some(number) if header.epoch.number > number => {}
            Some(number) if header.epoch.number < number => return Ok(None),
            _ => return Ok(Some(header.epoch)),
        }
    }
    Ok(None)
}

/// The checkpoint that is published here, where its epoch's key signed it; none where nothing is published. Which log key
/// was in force then is [`crate::verify`]'s to say.
///
/// # Errors
/// Of the storage; [`io::ErrorKind::InvalidData`] where it is no checkpoint of this ledger.
pub fn published(storage: &dyn Storage, manifest: &Manifest) -> io::Result<Option<Checkpoint>> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    let bytes = match read(storage, CHECKPOINT, NOTE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let note = Note::parse(&bytes).map_err(|error| wrong(&error.to_string()))?;
    if note.unverified().origin != manifest.origin {
        return Err(wrong("the checkpoint here is of another ledger"));
    }
    for number in note.epochs() {
        let epoch = epoch(storage, Some(number))?.filter(|epoch| epoch.number == number);
        let key = epoch.map(|epoch| Vkey::epoch(&manifest.origin, number, epoch.key));
        if key.is_some_and(|key| note.is_signed_by(&key)) {
            return Ok(Some(note.unverified().clone()));
        }
    }
    Err(wrong("the checkpoint here is not signed by the key of an epoch that is here"))
}

/// The keys that must have signed a checkpoint of this ledger: the log key in force, and its epoch's.
///
/// # Errors
/// Of the storage; [`io::ErrorKind::InvalidData`] where the checkpoint names no epoch that is here.
pub fn checkpoint_keys(storage: &dyn Storage, manifest: &Manifest, note: &Note) -> io::Result<[Vkey; 2]> {
    let unknown = || io::Error::new(io::ErrorKind::InvalidData, "the checkpoint is of no epoch that is here");
    let number = note.epoch().ok_or_else(unknown)?;
    let epoch = epoch(storage, Some(number))?.ok_or_else(unknown)?;
    let log = authority(storage, manifest)?.log.key;
    Ok([Vkey::log(&manifest.origin, log), Vkey::epoch(&manifest.origin, number, epoch.key)])
}

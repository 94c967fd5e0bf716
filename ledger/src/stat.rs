//! What a ledger comes to: sizes, entries, sessions, epochs, how old its newest checkpoint is. It judges nothing.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::archive::Map;
use crate::checkpoint::{NOTE_BYTES_MAX, Note};
use crate::entry::{Entry, Kind};
use crate::reader;
use crate::segment::{SegmentReader, Step, name};
use crate::state;
use crate::storage::{Directory, Mode, Storage as _, read};
use crate::writer::CHECKPOINT;

/// What a ledger comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Stat {
    /// Its name.
    pub origin: String,
    /// How many entries, up to the end of the last frame.
    pub entries: u64,
    /// How many sessions were opened.
    pub sessions: u64,
    /// The epoch of the last frame.
    pub epoch: u32,
    /// The time of the first entry, in nanoseconds since 1970 UTC.
    pub first_ns: Option<u64>,
    /// The time of the last entry.
    pub last_ns: Option<u64>,
    /// Whether a writer has it now.
    pub writer: bool,
    /// Segments in the directory.
    pub segments: Files,
    /// Segments elsewhere, as the map says; no bytes are given where a folder cannot be read.
    pub archived: Files,
    /// Tiles.
    pub tiles: Files,
    /// The index.
    pub index: Files,
    /// What recovery cut off.
    pub quarantine: Files,
    /// The published checkpoint.
    pub checkpoint: Option<Published>,
}

/// Some files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
pub struct Files {
    /// How many.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

/// The published checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Published {
    /// How many entries it covers.
    pub size: u64,
    /// When it was signed, as the state file says; none where that speaks of another one.
    pub time_ns: Option<u64>,
    /// How many entries are newer.
    pub entries_after: u64,
}

/// Looks at a ledger.
///
/// # Errors
/// Of the system; [`io::ErrorKind::InvalidData`] where it has no good manifest.
pub fn stat(ledger: &Directory) -> io::Result<Stat> {
    let root = ledger.root();
    let mut stat = Stat {
        origin: reader::manifest(ledger)?.origin.to_string(),
        writer: ledger.has_writer(),
        segments: files(&root.join("segments"))?,
        tiles: files(&root.join("tile"))?,
        index: files(&root.join(crate::index::NAME))?,
        quarantine: files(&root.join("quarantine"))?,
        ..Stat::default()
    };
    let map = Map::read(root)?;
    stat.archived.files = map.segments();
    for name in map.file_names() {
        let path = map.path_of(&format!("segments/{name}"));
        stat.archived.bytes += path.and_then(|path| fs::metadata(path).ok()).map_or(0, |file| file.len());
    }
    entries(ledger, &mut stat)?;
    stat.checkpoint = published(ledger, stat.entries)?;
    Ok(stat)
}

/// The files in a folder and those below.
fn files(folder: &Path) -> io::Result<Files> {
    let mut sum = Files::default();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(sum),
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", folder.display()))),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let below = files(&entry.path())?;
            sum.files += below.files;
            sum.bytes += below.bytes;
        } else {
            sum.files += 1;
            // What a live ledger removed meanwhile counts for nothing.
            sum.bytes += entry.metadata().map_or(0, |file| file.len());
        }
    }
    Ok(sum)
}

/// Reads from the end back to where a session was opened, and the very first frame.
fn entries(ledger: &Directory, stat: &mut Stat) -> io::Result<()> {
    let numbers = reader::segments(ledger)?;
    for number in numbers.iter().rev() {
        let mut segment = SegmentReader::new(ledger.open(&name(*number), Mode::Read)?)?;
        while let Step::Frame { frame, .. } = segment.step()? {
            let header = &frame.header;
            let end = header.first_seq + u64::from(header.count);
            let is_last = end > stat.entries;
            if is_last {
                (stat.entries, stat.epoch) = (end, header.epoch);
            }
            for entry in frame.records().filter_map(|record| Entry::decode(record.entry).ok()) {
                if is_last {
                    stat.last_ns = Some(entry.header.time_ns);
                }
                if entry.header.kind == Kind::SESSION_OPENED {
                    stat.sessions = stat.sessions.max(entry.header.session);
                }
            }
        }
        if stat.sessions > 0 {
            break;
        }
    }
    if let Some(first) = numbers.first() {
        let mut segment = SegmentReader::new(ledger.open(&name(*first), Mode::Read)?)?;
        if let Step::Frame { frame, .. } = segment.step()? {
            let first = frame.records().find_map(|record| Entry::decode(record.entry).ok());
            stat.first_ns = first.map(|entry| entry.header.time_ns);
        }
    }
    Ok(())
}

fn published(ledger: &Directory, entries: u64) -> io::Result<Option<Published>> {
    let note = match read(ledger, CHECKPOINT, NOTE_BYTES_MAX) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(note) = Note::parse(&note) else { return Ok(None) };
    let size = note.unverified().size;
    let signed = ledger.open(state::NAME, Mode::Read).and_then(|file| state::read(file.as_ref()));
    let time_ns = signed.ok().map(|slots| slots.newest).filter(|newest| newest.size == size);
    Ok(Some(Published {
        size,
        time_ns: time_ns.map(|newest| newest.time_ns),
        entries_after: entries.saturating_sub(size),
    }))
}

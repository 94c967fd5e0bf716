//! The parts of a ledger that can be handed over, and the proofs that tie each to the checkpoint.

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{copy, tile};
use crate::bundle::{Base64, COVER, Cover, FORMAT, Included, PREVIOUS, PROOF, Part, Proof, RECORDS, Record};
use crate::checkpoint::{Checkpoint, NOTE_BYTES_MAX, Note};
use crate::entry::{Entry, Kind};
use crate::hash::leaf;
use crate::manifest::{self, MANIFEST_BYTES_MAX, Manifest};
use crate::merkle::{StoredTiles, proof};
use crate::reader::segments;
use crate::segment::{self, SegmentReader, Step, name};
use crate::storage::{File, Mode, Storage, read};
use crate::witness::kept::COSIGNED;
use crate::writer::CHECKPOINT;

/// Which part of a ledger is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Ledger,
    /// The entries from `first` to `last`.
    Range {
        /// The first entry.
        first: u64,
        /// The last entry.
        last: u64,
    },
    /// One session, which is closed.
    Session(u64),
}

/// Writes the part and its proofs; gives the size of the checkpoint.
pub(super) fn add(
    from: &dyn Storage,
    to: &dyn Storage,
    wanted: Wanted,
    previous: Option<&[u8]>,
) -> io::Result<u64> {
    let manifest = crate::reader::manifest(from)?;
    // The checkpoint of a whole export lies there already; a live ledger may have published another since.
    let at = if wanted == Wanted::Ledger { to } else { from };
    let note = match read(at, CHECKPOINT, NOTE_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && wanted == Wanted::Ledger => return Ok(0),
        other => other?,
    };
    let parsed = Note::parse(&note).map_err(invalid)?;
    let checkpoint = parsed.unverified();
    if let Wanted::Range { first, last } = wanted
        && (first > last || last >= checkpoint.size)
    {
        let what = format!(
            "entries {first} to {last} are not all under the checkpoint, which covers {}",
            checkpoint.size
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let mut found = Found::default();
    if let Wanted::Session(number) = wanted {
        found.session =
            Some(Session { number, out: to.open(RECORDS, Mode::Create)?, at: 0, entries: 0, last: None });
    }
    found.scan(from, checkpoint.size, parsed.epoch())?;
    let part = match wanted {
        Wanted::Ledger => Part::Ledger,
        Wanted::Range { first, last } => {
            range(from, to, checkpoint.size, first, last)?;
            Part::Range { first, last }
        }
        // What was begun of a session that is not handed over does not stay.
        Wanted::Session(number) => {
            found.session_part(number).or_else(|why| to.remove(RECORDS).and(Err(why)))?
        }
    };
    if wanted != Wanted::Ledger {
        to.replace(manifest::NAME, &read(from, manifest::NAME, MANIFEST_BYTES_MAX)?)?;
        to.replace(CHECKPOINT, &with_witnesses(from, note.clone(), &parsed)?)?;
    }
    let tiles = StoredTiles::new(from, checkpoint.size);
    prove(to, &tiles, &manifest, checkpoint, found, part, previous)?;
    Ok(checkpoint.size)
}

/// The checkpoint with the line of each witness that cosigned it: a witness may have done so a moment ago.
fn with_witnesses(from: &dyn Storage, mut note: Vec<u8>, parsed: &Note) -> io::Result<Vec<u8>> {
    for name in from.list(COSIGNED)?.iter().filter(|name| !name.ends_with(".new")) {
        let cosigned = read(from, &format!("{COSIGNED}/{name}"), NOTE_BYTES_MAX)?;
        let text = std::str::from_utf8(&cosigned).map_err(invalid)?;
        if Note::parse(&cosigned).map_err(invalid)?.text() != parsed.text() {
            continue;
        }
        let lines = text.split_once("\n\n").map_or("", |(_, lines)| lines);
        for line in lines.split_inclusive('\n') {
            if !note.windows(line.len()).any(|known| known == line.as_bytes()) {
                note.extend_from_slice(line.as_bytes());
            }
        }
    }
    Ok(note)
}

/// The segments that hold the entries, and the tiles of the whole tree with the bundles that hold them.
fn range(from: &dyn Storage, to: &dyn Storage, size: u64, first: u64, last: u64) -> io::Result<()> {
    let numbers = segments(from)?;
    let live = from.has_writer();
    let mut begins = Vec::new();
    for number in &numbers {
        let mut reader = SegmentReader::new(from.open(&name(*number), Mode::Read)?)?;
        begins.push(reader.header()?.map_err(invalid)?.first_seq);
    }
    for (at, number) in numbers.iter().enumerate() {
        let end = begins.get(at + 1).copied().unwrap_or(u64::MAX);
        if begins[at] <= last && end > first {
            copy(from, to, *number, live && Some(number) == numbers.last())?;
        }
    }
    tile(from, to, size, first..=last)
}

/// What one pass over the ledger finds: what its proofs are made of, and a session's records.
#[derive(Default)]
struct Found {
    /// How many entries were read.
    entries: u64,
    opened: Vec<u8>,
    orders: Vec<(u64, Vec<u8>)>,
    redactions: Vec<(u64, Vec<u8>)>,
    epochs: Vec<Vec<u8>>,
    session: Option<Session>,
}

struct Session {
    number: u64,
    out: Box<dyn File>,
    at: u64,
    entries: u64,
    last: Option<(u64, Kind)>,
}

impl Found {
    /// Reads the entries under the checkpoint.
    fn scan(&mut self, from: &dyn Storage, size: u64, epoch: Option<u32>) -> io::Result<()> {
        for number in segments(from)? {
            let mut reader = SegmentReader::new(from.open(&name(number), Mode::Read)?)?;
            let header = reader.header()?.map_err(invalid)?;
            if header.epoch.number as usize == self.epochs.len() && Some(header.epoch.number) <= epoch {
                let mut bytes = Vec::new();
                header.epoch.encode(&mut bytes);
                self.epochs.push(bytes);
            }
            loop {
                match reader.step()? {
                    Step::Frame { frame, .. } => {
                        for record in frame.records() {
                            if self.entries == size {
                                return Ok(());
                            }
                            self.take(&record)?;
                        }
                    }
                    Step::Footer { .. } | Step::End { .. } => break,
                    Step::Damaged { why, .. } => return Err(invalid(why)),
                }
            }
        }
        if self.entries == size {
            return Ok(());
        }
        Err(invalid("the ledger has fewer entries than its checkpoint covers"))
    }

    fn take(&mut self, record: &segment::Record<'_>) -> io::Result<()> {
        let entry = Entry::decode(record.entry).map_err(invalid)?;
        self.entries += 1;
        match entry.header.kind {
            Kind::LEDGER_OPENED => self.opened = entry.bytes.to_vec(),
            Kind::KEYS_CHANGED => self.orders.push((entry.header.seq, entry.bytes.to_vec())),
            Kind::REDACTION => self.redactions.push((entry.header.seq, entry.bytes.to_vec())),
            _ => {}
        }
        match &mut self.session {
            Some(session) if session.number == entry.header.session => session.take(&entry, record),
            _ => Ok(()),
        }
    }

    fn session_part(&self, number: u64) -> io::Result<Part> {
        let refuse = |kind, what: String| Err(io::Error::new(kind, what));
        let Some(session) = &self.session else { return Err(invalid("no session was asked for")) };
        match session.last {
            Some((last, Kind::SESSION_CLOSED)) => {
                Ok(Part::Session { number, entries: session.entries, last })
            }
            Some(_) => {
                let what = format!(
                    "session {number} is not closed under the checkpoint, so nothing can prove that it is all there"
                );
                refuse(io::ErrorKind::InvalidInput, what)
            }
            None => {
                refuse(io::ErrorKind::NotFound, format!("there is no session {number} under the checkpoint"))
            }
        }
    }
}

impl Session {
    fn take(&mut self, entry: &Entry<'_>, record: &segment::Record<'_>) -> io::Result<()> {
        let line = Record {
            entry: Base64(entry.bytes.to_vec()),
            payload: Base64(record.payload.to_vec()),
            salt: Base64(record.salt.to_vec()),
        };
        let mut line = serde_json::to_vec(&line)?;
        line.push(b'\n');
        self.out.write_at(self.at, &line)?;
        self.at += line.len() as u64;
        self.entries += 1;
        self.last = Some((entry.header.seq, entry.header.kind));
        Ok(())
    }
}

fn prove(
    to: &dyn Storage,
    tiles: &StoredTiles<'_>,
    manifest: &Manifest,
    checkpoint: &Checkpoint,
    found: Found,
    part: Part,
    previous: Option<&[u8]>,
) -> io::Result<()> {
    let include = |seq: u64, entry: Vec<u8>| -> io::Result<Included> {
        let path = proof::inclusion(tiles, seq, checkpoint.size)?;
        let root = proof::root_from_inclusion(seq, checkpoint.size, leaf(&entry), &path);
        if root != Some(checkpoint.root) {
            return Err(invalid("the tiles do not lead from the entries to the checkpoint"));
        }
        Ok(Included { entry: Base64(entry), path })
    };
    let closed = match part {
        Part::Session { last, .. } => Some(proof::inclusion(tiles, last, checkpoint.size)?),
        Part::Ledger | Part::Range { .. } => None,
    };
    let consistency = match previous {
        Some(note) => {
            let old = Note::parse(note).map_err(invalid)?;
            if old.unverified().origin != manifest.origin {
                return Err(invalid("the previous checkpoint is of another ledger"));
            }
            to.replace(PREVIOUS, note)?;
            Some(proof::consistency(tiles, old.unverified().size, checkpoint.size)?)
        }
        None => None,
    };
    let include_all = |entries: Vec<(u64, Vec<u8>)>| -> io::Result<Vec<Included>> {
        entries.into_iter().map(|(seq, entry)| include(seq, entry)).collect()
    };
    let proof = Proof {
        opened: include(0, found.opened)?,
        epochs: found.epochs.into_iter().map(Base64).collect(),
        orders: include_all(found.orders)?,
        redactions: include_all(found.redactions)?,
        closed,
        previous: consistency,
    };
    let cover = Cover {
        format: FORMAT.to_owned(),
        origin: manifest.origin.to_string(),
        root_key: STANDARD.encode(manifest.root_key.bytes()),
        size: checkpoint.size,
        root: checkpoint.root,
        part,
    };
    put(to, PROOF, &proof)?;
    put(to, COVER, &cover)
}

fn put(to: &dyn Storage, name: &str, value: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    to.replace(name, &text)
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

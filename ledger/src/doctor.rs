//! What is wrong with a ledger's directory, and what can be done. It reads, and changes nothing.
//!
//! It looks at what an operator can mend: files that are missing, open to others, left over, or elsewhere. Whether what
//! was recorded is unchanged is [`crate::verify`]'s to say, and takes longer.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;

use serde::Serialize;

use crate::archive::Map;
use crate::checkpoint::{NOTE_BYTES_MAX, Note};
use crate::index::{self, Words};
use crate::manifest;
use crate::reader;
use crate::segment::{SegmentReader, Step, is_sealed, name};
use crate::state;
use crate::storage::{Directory, Mode, Storage as _, read};
use crate::writer::CHECKPOINT;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Complaint {
    /// Whether the ledger, or a part of it, cannot be read, written or believed because of it.
    pub grave: bool,
    /// What it is.
    pub what: String,
    /// What can be done.
    pub remedy: String,
}

/// Examines a ledger; no complaints where all is well.
///
/// # Errors
/// Of the system, where the directory cannot be examined at all.
pub fn examine(ledger: &Directory, words: Words) -> io::Result<Vec<Complaint>> {
    let mut patient = Patient { ledger, live: ledger.has_writer(), complaints: Vec::new() };
    patient.manifest();
    patient.modes()?;
    patient.segments()?;
    patient.state();
    patient.checkpoint();
    patient.leftovers()?;
    patient.index(words);
    Ok(patient.complaints)
}

struct Patient<'a> {
    ledger: &'a Directory,
    live: bool,
    complaints: Vec<Complaint>,
}

impl Patient<'_> {
    fn grave(&mut self, what: impl Into<String>, remedy: &str) {
        self.complaints.push(Complaint { grave: true, what: what.into(), remedy: remedy.to_owned() });
    }

    fn slight(&mut self, what: impl Into<String>, remedy: &str) {
        self.complaints.push(Complaint { grave: false, what: what.into(), remedy: remedy.to_owned() });
    }

    fn manifest(&mut self) {
        if let Err(error) = reader::manifest(self.ledger) {
            let remedy = "put ledger.toml back from a backup: the chain covers every byte of it, so it cannot be made anew";
            self.grave(format!("{}: {error}", manifest::NAME), remedy);
        }
    }

    /// Payloads hold statements and names: nobody but the owner may read them.
    fn modes(&mut self) -> io::Result<()> {
        let root = self.ledger.root().to_owned();
        for (path, file) in
            [(root.clone(), false), (root.join("segments"), false), (root.join(state::NAME), true)]
        {
            let Ok(meta) = fs::metadata(&path) else { continue };
            let mode = meta.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                let remedy = if file {
                    "chmod go-rwx this file"
                } else {
                    "chmod go-rwx this folder and what is in it"
                };
                self.slight(
                    format!("{} is open to others than its owner (mode {mode:04o})", path.display()),
                    remedy,
                );
            }
        }
        Ok(())
    }

    fn segments(&mut self) -> io::Result<()> {
        let map = match Map::read(self.ledger.root()) {
            Ok(map) => map,
            Err(error) => {
                let remedy =
                    "restore this file, or write it anew: a heading, then `first last folder` a line";
                self.grave(error.to_string(), remedy);
                return Ok(());
            }
        };
        for place in map.places() {
            if let Err(error) = fs::read_dir(place) {
                let remedy =
                    "mount it, or correct its folder in the map; nothing in it can be read until then";
                self.grave(format!("the archive {} cannot be read: {error}", place.display()), remedy);
                return Ok(());
            }
        }
        let numbers = reader::segments(self.ledger)?;
        if numbers.is_empty() {
            self.grave("there is no segment", "put the segments back from a backup");
        }
        for (number, expected) in numbers.iter().zip(0..) {
            if *number != expected {
                let remedy =
                    "put it back from a backup or an archive; `verify` then says whether it is the right one";
                self.grave(format!("{} is missing", name(expected)), remedy);
                break;
            }
        }
        let last = numbers.last().copied();
        for number in numbers {
            let file = match self.ledger.open(&name(number), Mode::Read) {
                Ok(file) => file,
                Err(error) => {
                    self.grave(
                        error.to_string(),
                        "put it back from a backup, or make it readable to this user",
                    );
                    continue;
                }
            };
            if is_sealed(file.as_ref())? {
                let local = fs::symlink_metadata(self.ledger.root().join(name(number)));
                if local.is_ok_and(|meta| meta.permissions().mode() & 0o222 != 0) {
                    self.slight(
                        format!("{} is sealed and can be written", name(number)),
                        "chmod 0400 this file",
                    );
                }
            } else if Some(number) != last {
                let what = format!("{} is not sealed, and another follows", name(number));
                self.grave(what, "put it back from a backup; run `verify` to see what it lacks");
            } else {
                self.end(SegmentReader::new(file)?)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, mut segment: SegmentReader) -> io::Result<()> {
        loop {
            let (offset, why, torn) = match segment.step()? {
                Step::Frame { .. } => continue,
                Step::Damaged { offset, why, torn } => (offset, why, torn),
                Step::Footer { .. } | Step::End { .. } => return Ok(()),
            };
            if self.live {
                // It may be what is just being written.
            } else if torn && !segment.find_next()? {
                let what = format!("the last write is unfinished, from offset {offset} on");
                self.slight(
                    what,
                    "start the gateway: it cuts this off, keeps it in quarantine/ and records that",
                );
            } else {
                let what = format!("the open segment is damaged at offset {offset}: {why}");
                self.grave(
                    what,
                    "run `verify`; nothing that a crash leaves looks so. Go on from a backup if it says so",
                );
            }
            return Ok(());
        }
    }

    fn state(&mut self) {
        let read = self.ledger.open(state::NAME, Mode::Read).and_then(|file| state::read(file.as_ref()));
        match read {
            Ok(slots) if slots.damaged && !self.live => {
                self.slight(
                    "one slot of the state file is damaged",
                    "start the gateway: it mends this from the other slot",
                );
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let remedy =
                    "if this is an export, nothing; a ledger that is written needs it back from a backup";
                self.slight("there is no state file", remedy);
            }
            Err(error) => {
                let remedy =
                    "put it back from a backup that is no older than the newest checkpoint anybody has";
                self.grave(format!("{}: {error}", state::NAME), remedy);
            }
        }
    }

    fn checkpoint(&mut self) {
        match read(self.ledger, CHECKPOINT, NOTE_BYTES_MAX) {
            Ok(note) => {
                if let Err(error) = Note::parse(&note) {
                    let remedy = "put back the newest copy that is kept outside (`checkpoint_copies`)";
                    self.grave(format!("{CHECKPOINT}: {error}"), remedy);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.slight(
                    "no checkpoint is published",
                    "start the gateway: it publishes one at each interval",
                );
            }
            Err(error) => self.grave(error.to_string(), "make it readable to this user"),
        }
    }

    fn leftovers(&mut self) -> io::Result<()> {
        let names = self.ledger.list("")?;
        if !self.live && names.iter().any(|name| name.ends_with(".new")) {
            self.slight(
                "a file that was being replaced is left over (*.new)",
                "remove it; the one without .new counts",
            );
        }
        if names.iter().any(|name| name == "index.broken") {
            self.slight(
                "an index that was broken is kept as index.broken",
                "remove it; it is there to be looked at",
            );
        }
        let cut = self.ledger.list("quarantine")?.len();
        if cut > 0 {
            let what = format!("recovery cut off what a crash left unfinished ({cut} files in quarantine/)");
            self.slight(
                what,
                "nothing in it was acknowledged; each is named by a `recovery` entry. Keep or remove them",
            );
        }
        Ok(())
    }

    fn index(&mut self, words: Words) {
        let folder = self.ledger.root().join(index::NAME);
        let whole = index::open_existing(&folder, self.ledger, words)
            .and_then(|index| index.map(|index| index.is_whole()).transpose());
        match whole {
            Ok(Some(true)) => {}
            Ok(Some(false)) => {
                self.slight("the index is not what was put into it", "gatebook-ledger rebuild-index")
            }
            Ok(None) => {
                self.slight("there is no index; finding reads everything", "gatebook-ledger rebuild-index")
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.slight(error.to_string(), "gatebook-ledger rebuild-index"),
        }
    }
}

//! Moves sealed segments to another place, from which everybody still reads them.
//!
//! `DIR/archived` says which segments went where; [`crate::Directory`] looks there for what is not in `DIR/segments`. A
//! segment is copied, synced, read back and compared before the map names it, and removed only then; where the map names one
//! already, that is compared first. Wherever this stops, each segment is in one place or in both. Nothing of the ledger's content depends on the map: who garbles it hides
//! segments, and verification says that they are missing.
//!
//! What a newcomer gets wrong: the two newest sealed segments that the published checkpoint covers stay, and what is newer,
//! because the writer starts there. So a gateway starts while its archive is away.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FlockOperation, OFlags, fadvise, flock};

use crate::hash::{Digest, Plain};
use crate::manifest::Manifest;
use crate::reader;
use crate::segment::{SegmentHeader, SegmentReader, is_sealed, name, number_of};
use crate::standing;
use crate::storage::{Directory, Mode, Storage as _, open_regular};

/// The map's file name.
pub const MAP: &str = "archived";

const HEADING: &str = "# Sealed segments of this ledger that are elsewhere: first, last, folder.";
const MAP_BYTES_MAX: u64 = 64 * 1024;
/// So many segments, 64 TB, can be elsewhere: each is listed by name, and the map may be anybody's.
const SEGMENTS_MAX: u64 = 1_000_000;
const COPY_BYTES: usize = 1024 * 1024;

/// Which segments went where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Map {
    /// First and last number, and the folder.
    spans: Vec<(u64, u64, PathBuf)>,
}

impl Map {
    /// Reads the map of a ledger; an empty one where nothing was archived.
    ///
    /// # Errors
    /// Of the system; [`io::ErrorKind::InvalidData`] where it is not a map.
    pub fn read(ledger: &Path) -> io::Result<Map> {
        let path = ledger.join(MAP);
        let mut text = String::new();
        match open_regular(OpenOptions::new().read(true), &path, OFlags::empty()) {
            Ok(file) => file.take(MAP_BYTES_MAX + 1).read_to_string(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::default()),
            Err(error) => return Err(told(&path, "cannot open", &error)),
        };
        let wrong = || {
            let message = format!("{} does not say which segments went where", path.display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        };
        let lines = text.strip_prefix(HEADING).and_then(|rest| rest.strip_prefix('\n')).ok_or_else(wrong)?;
        let spans = lines.lines().map(parse_span).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        Map { spans }.fits().filter(|_| text.len() as u64 <= MAP_BYTES_MAX).ok_or_else(wrong)
    }

    /// How many segments are elsewhere.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.spans.iter().map(|(first, last, _)| last - first + 1).sum()
    }

    /// The folders that they are in.
    pub fn places(&self) -> impl Iterator<Item = &Path> {
        self.spans.iter().map(|(_, _, place)| place.as_path())
    }

    /// Where a file of the ledger is, if it is a segment that went elsewhere.
    #[must_use]
    pub fn path_of(&self, name: &str) -> Option<PathBuf> {
        let file = name.strip_prefix("segments/")?;
        let number = number_of(file)?;
        let (_, _, place) = self.spans.iter().find(|(first, last, _)| (*first..=*last).contains(&number))?;
        Some(place.join(file))
    }

    /// The file names of all segments that are elsewhere.
    pub(crate) fn file_names(&self) -> impl Iterator<Item = String> {
        let numbers = self.spans.iter().flat_map(|(first, last, _)| *first..=*last);
        numbers.map(|number| name(number).trim_start_matches("segments/").to_owned())
    }

    fn fits(self) -> Option<Map> {
        let lengths = self.spans.iter().map(|(first, last, _)| last - first + 1);
        let total = lengths.fold(0, u64::saturating_add);
        (total <= SEGMENTS_MAX).then_some(self)
    }

    /// The map with this segment at this place, wherever it was before.
    fn with(&self, number: u64, place: &Path) -> Map {
        let mut spans = vec![(number, number, place.to_owned())];
        for (first, last, known) in &self.spans {
            if (*first..=*last).contains(&number) {
                spans.extend((*first < number).then(|| (*first, number - 1, known.clone())));
                spans.extend((number < *last).then(|| (number + 1, *last, known.clone())));
            } else {
                spans.push((*first, *last, known.clone()));
            }
        }
        spans.sort_unstable();
        spans.dedup_by(|next, before| {
            let joins = next.2 == before.2 && before.1.checked_add(1) == Some(next.0);
            if joins {
                before.1 = next.1;
            }
            joins
        });
        Map { spans }
    }

    fn store(&self, ledger: &Directory) -> io::Result<()> {
        let text = self.text();
        if text.len() as u64 > MAP_BYTES_MAX || self.clone().fits().is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the map of the archive would be too long",
            ));
        }
        ledger.replace(MAP, text.as_bytes())
    }

    fn text(&self) -> String {
        let lines =
            self.spans.iter().map(|(first, last, place)| format!("{first} {last} {}\n", place.display()));
        format!("{HEADING}\n{}", lines.collect::<String>())
    }
}

fn parse_span(line: &str) -> Option<(u64, u64, PathBuf)> {
    let mut words = line.splitn(3, ' ');
    let (first, last, place) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
    let fine = first <= last && last - first < SEGMENTS_MAX && can_be_named(place);
    fine.then(|| (first, last, PathBuf::from(place)))
}

fn can_be_named(place: &str) -> bool {
    place.starts_with('/') && !place.chars().any(char::is_control)
}

/// What was archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Archived {
    /// How many segments.
    pub segments: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Moves the oldest sealed segments to `place`, until those that stay come to `keep_bytes` at most. What the writer starts
/// from always stays. A writer may be at work.
///
/// # Errors
/// Of the system; [`io::ErrorKind::WouldBlock`] where somebody else is at it; [`io::ErrorKind::AlreadyExists`] where
/// another segment of that name is there; [`io::ErrorKind::InvalidInput`] where the place is no place for it. What was
/// moved before stays moved.
pub fn archive(ledger: &Directory, place: &Path, keep_bytes: u64) -> io::Result<Archived> {
    let manifest = reader::manifest(ledger)?;
    let genesis = manifest.genesis();
    let place = prepare(ledger.root(), place)?;
    let folder = fs::File::open(&place)?;
    // Whoever else archives into this folder must wait; two ledgers in one would take each other's names.
    flock(&folder, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("cannot lock {}: {error}", place.display()))
    })?;
    let mut map = Map::read(ledger.root())?;
    let here = sealed_here(ledger)?;
    let covered = covered(ledger, &manifest, &here)?;
    let mut bytes = folder_bytes(&ledger.root().join("segments"))?;
    let mut archived = Archived::default();
    for (number, length) in here.into_iter().take_while(|(number, _)| *number < covered) {
        if bytes <= keep_bytes {
            break;
        }
        let from = ledger.root().join(name(number));
        // Only what the map leads to may let this one go, and only if it is the same: the map is older than this run.
        let there = map.path_of(&name(number));
        if !there.map_or(Ok(false), |there| is_copy(&there, &from))? {
            copy(&from, &place, number, genesis)?;
            map = map.with(number, &place);
            map.store(ledger)?;
        }
        // If we stop before this, it is in both places, and this one is read.
        fs::remove_file(&from).map_err(|error| told(&from, "cannot remove", &error))?;
        ledger.sync_folder("segments")?;
        bytes = bytes.saturating_sub(length);
        archived.segments += 1;
        archived.bytes += length;
    }
    Ok(archived)
}

/// The place as the map can name it.
fn prepare(ledger: &Path, place: &Path) -> io::Result<PathBuf> {
    Directory::create(place)?;
    let place = fs::canonicalize(place)?;
    let unfit =
        |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {why}", place.display())));
    if !place.to_str().is_some_and(can_be_named) {
        return unfit("the name of this folder cannot be written into the map");
    }
    if place.starts_with(fs::canonicalize(ledger)?) {
        return unfit("an archive must be outside the ledger's directory");
    }
    Ok(place)
}

/// Numbers and lengths of the sealed segments in the directory itself, sorted.
fn sealed_here(ledger: &Directory) -> io::Result<Vec<(u64, u64)>> {
    let mut sealed = Vec::new();
    for entry in fs::read_dir(ledger.root().join("segments"))? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(number_of) else { continue };
        let file = ledger.open(&name(number), Mode::Read)?;
        if is_sealed(file.as_ref())? {
            sealed.push((number, entry.metadata()?.len()));
        }
    }
    sealed.sort_unstable();
    Ok(sealed)
}

/// The first segment that the writer may start from: the one before the newest that the published checkpoint covers.
fn covered(ledger: &Directory, manifest: &Manifest, sealed: &[(u64, u64)]) -> io::Result<u64> {
    let published = standing::published(ledger, manifest)?.map_or(0, |checkpoint| checkpoint.size);
    for (number, _) in sealed.iter().rev() {
        // It ends where the next one begins, if that has a header yet.
        let next = match ledger.open(&name(number + 1), Mode::Read) {
            Ok(file) => SegmentReader::new(file)?.header()?.ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if next.is_some_and(|next| next.first_seq <= published) {
            // Behind a torn header the writer starts one further back.
            return Ok(number.saturating_sub(1));
        }
    }
    Ok(0)
}

fn folder_bytes(folder: &Path) -> io::Result<u64> {
    fs::read_dir(folder)?.try_fold(0, |sum, entry| Ok(sum + entry?.metadata()?.len()))
}

/// Copies a segment so that it is durable at the place under its name, and the same, byte for byte.
fn copy(from: &Path, place: &Path, number: u64, genesis: Digest) -> io::Result<()> {
    let file_name = name(number).trim_start_matches("segments/").to_owned();
    let (to, draft) = (place.join(&file_name), place.join(format!("{file_name}.new")));
    let mut source = fs::File::open(from).map_err(|error| told(from, "cannot open", &error))?;
    let mut head = vec![0; crate::segment::BLOCK];
    source.read_exact(&mut head)?;
    let header = SegmentHeader::decode(&head).ok().filter(|header| header.genesis == genesis);
    if header.is_none_or(|header| header.number != number) {
        let message = format!("{} is not that segment of this ledger; ask `verify`", from.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    if !to.exists() {
        let mut copy = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(|error| told(&draft, "cannot open", &error))?;
        copy.write_all(&head)?;
        let mut part = vec![0; COPY_BYTES];
        loop {
            let length = source.read(&mut part)?;
            if length == 0 {
                break;
            }
            copy.write_all(&part[..length]).map_err(|error| told(&draft, "cannot write", &error))?;
        }
        copy.set_permissions(Permissions::from_mode(0o400))?;
        copy.sync_all().map_err(|error| told(&draft, "cannot sync", &error))?;
        fs::rename(&draft, &to).map_err(|error| told(&to, "cannot put in place", &error))?;
        fs::File::open(place)?.sync_all()?;
    }
    if is_copy(&to, from)? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is gone", to.display())))
}

/// Whether there is a copy of a segment: another file, no link, and on the medium the same, byte for byte. False where
/// there is nothing.
fn is_copy(path: &Path, of: &Path) -> io::Result<bool> {
    let there = match open_regular(OpenOptions::new().read(true), path, OFlags::NOFOLLOW) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(told(path, "cannot open", &error)),
    };
    let here = fs::File::open(of).map_err(|error| told(of, "cannot open", &error))?;
    let same = |problem: &str| {
        let message = format!("{} {problem} {}", path.display(), of.display());
        Err(io::Error::new(io::ErrorKind::AlreadyExists, message))
    };
    let (a, b) = (there.metadata()?, here.metadata()?);
    if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
        return same("is no copy of");
    }
    // What was just written would be read from memory, and say nothing of the medium.
    there.sync_data().map_err(|error| told(path, "cannot sync", &error))?;
    fadvise(&there, 0, None, Advice::DontNeed)?;
    if digest_of(&here, of)? != digest_of(&there, path)? {
        return same("is not the same as");
    }
    Ok(true)
}

fn digest_of(mut file: &fs::File, path: &Path) -> io::Result<Digest> {
    let (mut digest, mut part) = (Plain::new(), vec![0; COPY_BYTES]);
    loop {
        let length = file.read(&mut part).map_err(|error| told(path, "cannot read", &error))?;
        if length == 0 {
            return Ok(digest.digest());
        }
        digest.update(&part[..length]);
    }
}

fn told(path: &Path, what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_reads_back_as_it_was_written_and_garbage_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Map::read(folder.path()).unwrap(), Map::default());
        let mut map = Map::default();
        for number in 0..5 {
            map = map.with(number, Path::new(if number < 3 { "/cold one" } else { "/two" }));
        }
        assert_eq!(map.spans.len(), 2);
        assert_eq!(map.segments(), 5);
        fs::write(folder.path().join(MAP), map.text()).unwrap();
        let read = Map::read(folder.path()).unwrap();
        assert_eq!(read, map);
        assert_eq!(read.path_of("segments/00000002.seg"), Some("/cold one/00000002.seg".into()));
        assert_eq!(read.path_of("segments/00000004.seg"), Some("/two/00000004.seg".into()));
        assert_eq!(read.path_of("segments/00000005.seg"), None);
        assert_eq!(read.path_of("tile/0/000"), None);
        let moved = read.with(1, Path::new("/two"));
        let places = (0..5).map(|number| moved.path_of(&name(number)).unwrap());
        let expected = ["/cold one", "/two", "/cold one", "/two", "/two"].map(Path::new);
        assert!(places.zip(expected).all(|(path, place)| path.parent() == Some(place)));
        assert_eq!((moved.segments(), moved.with(1, Path::new("/cold one"))), (5, read));
        for bad in [
            "",
            "0 1 /x\n",
            "# other\n",
            &format!("{HEADING}\n2 1 /x\n"),
            &format!("{HEADING}\n0 1 x\n"),
            &format!("{HEADING}\n0 1\n"),
            &format!("{HEADING}\n0 4294967295 /x\n"),
            &format!("{HEADING}\n0 {} /x\n", u64::MAX),
            &format!("{HEADING}\n{}", "0 999999 /x\n".repeat(2)),
        ] {
            fs::write(folder.path().join(MAP), bad).unwrap();
            assert_eq!(Map::read(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidData, "{bad:?}");
        }
    }
}

//! A ledger's files in a directory. Folders are 0700, files 0600, sealed segments 0400.
//!
//! Sealed segments may have gone to another place ([`crate::archive`]); whoever lists or reads segments finds them there
//! all the same, and need not know.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Advice, FlockOperation, OFlags, fadvise, flock};

use super::{File, Mode, Storage};
use crate::archive::Map;

const LOCK: &str = "lock";

/// A directory that holds a ledger, or shall.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Takes a directory that exists.
    ///
    /// # Errors
    /// Of the system, with the path.
    pub fn open(root: &Path) -> io::Result<Directory> {
        let metadata = fs::metadata(root).map_err(|error| at(root, "cannot open", error))?;
        if !metadata.is_dir() {
            let message = format!("{} is not a directory", root.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, message));
        }
        Ok(Directory { root: root.to_owned() })
    }

    /// Takes a directory, and makes it where it does not exist.
    ///
    /// # Errors
    /// Of the system, with the path.
    pub fn create(root: &Path) -> io::Result<Directory> {
        make_folder(root)?;
        Directory::open(root)
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Names come from our own code and from listings; none may lead out of the directory.
    fn path(&self, name: &str) -> io::Result<PathBuf> {
        if Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
            Ok(self.root.join(name))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "a name leads out of the ledger's directory"))
        }
    }

    fn parent_of(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if !parent.is_dir() => make_folder(parent),
            _ => Ok(()),
        }
    }
}

impl Storage for Directory {
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn File>> {
        let path = self.path(name)?;
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            Mode::Read => {}
            Mode::Write => {
                options.write(true);
            }
            Mode::Create => {
                self.parent_of(&path)?;
                options.write(true).create_new(true).mode(0o600);
            }
        }
        match open_regular(&mut options, &path, OFlags::empty()) {
            Ok(file) => Ok(Box::new(OnDisk { file, path })),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && mode == Mode::Read
                    && name.starts_with("segments/") =>
            {
                let Some(path) = Map::read(&self.root)?.path_of(name) else {
                    return Err(at(&path, "cannot open", error));
                };
                // The map names folders alone, and a segment is a file: no link leads elsewhere.
                let file = open_regular(&mut options, &path, OFlags::NOFOLLOW)
                    .map_err(|error| at(&path, "cannot open", error))?;
                Ok(Box::new(OnDisk { file, path }))
            }
            Err(error) => Err(at(&path, "cannot open", error)),
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let path = self.path(folder)?;
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&path, "cannot list", error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| at(&path, "cannot list", error))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        if folder == "segments" {
            names.extend(Map::read(&self.root)?.file_names());
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name)?;
        self.parent_of(&path)?;
        let mut draft = path.clone().into_os_string();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_data()));
        written.map_err(|error| at(&draft, "cannot write", error))?;
        fs::rename(&draft, &path).map_err(|error| at(&path, "cannot put in place", error))?;
        sync_folder(path.parent().unwrap_or(&self.root))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path, "cannot remove", error)),
            _ => Ok(()),
        }
    }

    fn make_read_only(&self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        fs::set_permissions(&path, Permissions::from_mode(0o400))
            .map_err(|error| at(&path, "cannot make read-only", error))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        sync_folder(&self.path(folder)?)
    }

    fn lock(&self) -> io::Result<Box<dyn Send>> {
        let path = self.path(LOCK)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| at(&path, "cannot open", error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Box::new(file)),
            Err(error) => Err(at(&path, "cannot lock", error.into())),
        }
    }

    fn has_writer(&self) -> bool {
        // A shared lock is given back at once; a writer that starts in this moment sees it as taken and
        // says so, which is rare and harmless. An export has no lock file, and no writer.
        let lock = open_regular(OpenOptions::new().read(true), &self.root.join(LOCK), OFlags::empty());
        let Ok(file) = lock else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared).is_err()
    }
}

struct OnDisk {
    file: fs::File,
    path: PathBuf,
}

impl File for OnDisk {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(into, offset).map_err(|error| at(&self.path, "cannot read", error))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|error| at(&self.path, "cannot write", error))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data().map_err(|error| at(&self.path, "cannot sync", error))
    }

    fn confirm(&mut self) -> io::Result<()> {
        self.sync()?;
        fadvise(&self.file, 0, None, Advice::DontNeed)
            .map_err(|error| at(&self.path, "cannot read anew", error.into()))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(|error| at(&self.path, "cannot read", error))?.len())
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length).map_err(|error| at(&self.path, "cannot set the length of", error))
    }
}

/// Opens a file without waiting, and only where it is one: the directory may be anybody's, and to open a pipe or a
/// device in it would wait for somebody who never comes.
pub(crate) fn open_regular(options: &mut OpenOptions, path: &Path, flags: OFlags) -> io::Result<fs::File> {
    let file = options.custom_flags((flags | OFlags::NONBLOCK).bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"))
}

/// Makes a folder and those above it, durably.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at(path, "cannot create", error)),
        _ => match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => sync_folder(parent),
            None => Ok(()),
        },
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| at(path, "cannot sync", error))
}

/// The error with what was done to which file; its kind stays.
fn at(path: &Path, what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Directory::open(folder.path()).unwrap();
        assert!(!storage.has_writer());
        let guard = storage.lock().unwrap();
        assert!(storage.has_writer());
        assert_eq!(storage.lock().err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(guard);
        assert!(storage.lock().is_ok());
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Directory::open(folder.path()).unwrap();
        for name in ["../x", "/etc/passwd", "a/../../x"] {
            assert!(storage.open(name, Mode::Create).is_err(), "{name}");
            assert!(storage.replace(name, b"").is_err(), "{name}");
        }
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_makes_nobody_wait() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Directory::open(folder.path()).unwrap();
        for name in ["lock", "state", "archived"] {
            let (path, mode) = (folder.path().join(name), rustix::fs::Mode::RUSR);
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            assert!(storage.open(name, Mode::Read).is_err(), "{name}");
        }
        assert!(!storage.has_writer() && Map::read(folder.path()).is_err());
    }

    #[test]
    fn a_replaced_file_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Directory::open(folder.path()).unwrap();
        storage.replace("tile/0/000", b"one").unwrap();
        storage.replace("tile/0/000", b"two").unwrap();
        assert_eq!(super::super::read(&storage, "tile/0/000", 3).unwrap(), b"two");
        assert!(super::super::read(&storage, "tile/0/000", 2).is_err());
        assert_eq!(storage.list("tile/0").unwrap(), ["000"]);
    }
}

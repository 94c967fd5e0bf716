//! Keys in files, one folder for a ledger, outside the ledger's own directory.
//!
//! Each file holds one line, is 0600, and is refused where group or others may read it. An epoch's key is
//! overwritten, synced and unlinked when its epoch is sealed. That reaches the old bytes only on a medium that
//! writes where it is told; on flash or a copy-on-write filesystem the folder belongs on an encrypted volume or
//! in memory. What a newcomer gets wrong: a copy of the ledger is for showing; a copy of this folder is for
//! forging, and a backup of it brings back what was erased.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

use crate::hash::UNSEALED;
use crate::manifest::{self, MANIFEST_BYTES_MAX};
use crate::orders::ORDER_BYTES_MAX;
use crate::signature::{KeyError, Keys, PublicKey, Role, Signature, random_seed};

const PREFIX: &str = "gatebook-ledger-key/v1";

/// Where a key lies in its folder.
#[must_use]
pub fn path(folder: &Path, role: Role) -> PathBuf {
    folder.join(format!("ledger-{}-{}.key", role.name(), role.number()))
}

/// Where an order of the root key is put, so that the writer takes it when the ledger is opened next.
#[must_use]
pub fn order_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("ledger-order-{number}.json"))
}

/// The keys of a folder, held until this is dropped; each secret is zeroed then.
pub struct FolderKeys {
    folder: PathBuf,
    /// One that is damaged has the reason in its place: it fails where it is used, and not before.
    /// Boxed, since a map moves what it holds, and what was moved is not zeroed.
    keys: BTreeMap<Role, Result<Box<SigningKey>, String>>,
}

/// Reads the keys of a folder, and makes those of a new ledger where it holds none at all: folder 0700, files 0600.
///
/// The root key may be taken away once the ledger exists. Which of the others are needed is the ledger's to say.
///
/// # Errors
/// [`KeyError`] where a file is readable by others, or the folder cannot be read or written.
pub fn load_or_create(folder: &Path) -> Result<FolderKeys, KeyError> {
    if !exist(folder)? {
        let mut keys = FolderKeys::create(folder)?;
        // The root key comes last: until it exists no ledger can be created, so a half-made folder is harmless.
        for role in [Role::Log(0), Role::Epoch(0), Role::Root(0)] {
            keys.draw(role)?;
        }
    }
    load(folder)
}

/// Reads the keys of a folder.
///
/// # Errors
/// [`KeyError`] where a file is readable by others, or the folder cannot be read.
pub fn load(folder: &Path) -> Result<FolderKeys, KeyError> {
    let mut keys = BTreeMap::new();
    for role in roles(folder).map_err(|error| unusable(folder, "cannot list", &error))? {
        refuse_open_to_others(&path(folder, role))?;
        keys.insert(role, read(folder, role).map_err(|error| error.to_string()));
    }
    Ok(FolderKeys { folder: folder.to_owned(), keys })
}

/// Whether a folder holds keys already. One that cannot be listed may hold some.
///
/// # Errors
/// [`KeyError`] where it cannot be listed.
pub fn exist(folder: &Path) -> Result<bool, KeyError> {
    roles(folder).map(|roles| !roles.is_empty()).map_err(|error| unusable(folder, "cannot list", &error))
}

impl FolderKeys {
    /// Takes a folder that holds no keys yet, and makes it where it does not exist.
    ///
    /// # Errors
    /// [`KeyError`] where it cannot be made, or holds keys.
    pub fn create(folder: &Path) -> Result<FolderKeys, KeyError> {
        if exist(folder)? {
            return Err(KeyError::Unusable(format!("{} holds keys already", folder.display())));
        }
        if !folder.exists() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| unusable(folder, "cannot create", &error))?;
        }
        Ok(FolderKeys { folder: folder.to_owned(), keys: BTreeMap::new() })
    }

    fn key(&self, role: Role) -> Result<&SigningKey, KeyError> {
        match self.keys.get(&role) {
            Some(Ok(key)) => Ok(key),
            Some(Err(why)) => Err(KeyError::Unusable(why.clone())),
            None => Err(KeyError::Absent(role)),
        }
    }
}

impl Keys for FolderKeys {
    fn public(&self, role: Role) -> Result<PublicKey, KeyError> {
        let key = self.key(role)?.verifying_key();
        PublicKey::new(key.as_bytes()).ok_or_else(|| KeyError::Unusable(format!("the {role} is a weak one")))
    }

    fn sign(&self, role: Role, message: &[u8]) -> Result<Signature, KeyError> {
        // The manifest and checkpoints stay signed: without them nothing could be opened.
        if UNSEALED && matches!(role, Role::Epoch(_)) {
            return Ok([0; 64]);
        }
        Ok(self.key(role)?.sign(message).to_bytes())
    }

    fn draw(&mut self, role: Role) -> Result<PublicKey, KeyError> {
        // An epoch's key that was drawn and never came into force makes way. The others' loss would be for good.
        if matches!(role, Role::Epoch(_)) {
            self.erase(role)?;
        }
        let seed = random_seed()?;
        write(&self.folder, role, &seed)
            .map_err(|error| unusable(&path(&self.folder, role), "cannot write key", &error))?;
        self.keys.insert(role, Ok(Box::new(SigningKey::from_bytes(&seed))));
        self.public(role)
    }

    fn erase(&mut self, role: Role) -> Result<(), KeyError> {
        self.keys.remove(&role);
        let path = path(&self.folder, role);
        erase(&path).map_err(|error| unusable(&path, "cannot erase key", &error))
    }

    fn held(&self) -> Vec<Role> {
        self.keys.keys().copied().collect()
    }

    fn manifest(&self) -> Result<Option<Vec<u8>>, KeyError> {
        read_optional(&self.folder.join(manifest::NAME), MANIFEST_BYTES_MAX)
    }

    fn order(&self, number: u32) -> Result<Option<Vec<u8>>, KeyError> {
        let order = read_optional(&order_path(&self.folder, number), ORDER_BYTES_MAX)?;
        // A text file ends with a line end; an entry's body does not.
        Ok(order.map(|bytes| bytes.strip_suffix(b"\n").unwrap_or(&bytes).to_vec()))
    }

    fn look(&mut self, role: Role) -> Result<(), KeyError> {
        let path = path(&self.folder, role);
        if !self.keys.contains_key(&role) && path.exists() {
            refuse_open_to_others(&path)?;
            self.keys.insert(role, read(&self.folder, role).map_err(|error| error.to_string()));
        }
        Ok(())
    }
}

impl std::fmt::Debug for FolderKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FolderKeys").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Which keys' files a folder has, by their names alone.
fn roles(folder: &Path) -> io::Result<Vec<Role>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut roles = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let role = name.to_str().and_then(|name| {
            let (kind, number) = name.strip_prefix("ledger-")?.strip_suffix(".key")?.split_once('-')?;
            let number: u32 = number.parse().ok()?;
            let role = match kind {
                "root" => Role::Root(number),
                "log" => Role::Log(number),
                "epoch" => Role::Epoch(number),
                _ => return None,
            };
            // One spelling: `ledger-log-00.key` is none of ours.
            path(Path::new(""), role).to_str().filter(|spelled| *spelled == name).map(|_| role)
        });
        roles.extend(role);
    }
    Ok(roles)
}

fn write(folder: &Path, role: Role, seed: &[u8; 32]) -> io::Result<()> {
    let encoded = Zeroizing::new(STANDARD.encode(seed));
    let line = Zeroizing::new(format!("{PREFIX} {} {}\n", role.name(), encoded.as_str()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path(folder, role))?;
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

/// Overwrites a key's file where it stands, then unlinks it. If we stop between, the file holds no key any more,
/// and is erased again when the ledger is opened.
fn erase(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(4096);
    file.write_all_at(&vec![b'#'; length], 0)?;
    file.sync_all()?;
    drop(file);
    fs::remove_file(path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn refuse_open_to_others(path: &Path) -> Result<(), KeyError> {
    let mode = fs::metadata(path).map_err(|error| unusable(path, "cannot read key", &error))?.mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(KeyError::Unusable(format!(
        "key {} is open to group or others (mode {:04o}); make it 0600",
        path.display(),
        mode & 0o7777
    )))
}

fn read(folder: &Path, role: Role) -> Result<Box<SigningKey>, KeyError> {
    let path = path(folder, role);
    let mut text = Zeroizing::new(String::with_capacity(256));
    let damaged = || KeyError::Unusable(format!("{} is not a ledger's {} key", path.display(), role.name()));
    let file = File::open(&path).map_err(|error| unusable(&path, "cannot read key", &error))?;
    match file.take(256).read_to_string(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged()),
        Err(error) => return Err(unusable(&path, "cannot read key", &error)),
        Ok(_) => {}
    }
    let encoded = text
        .strip_suffix('\n')
        .and_then(|line| line.strip_prefix(PREFIX))
        .and_then(|rest| rest.strip_prefix(' '))
        .and_then(|rest| rest.strip_prefix(role.name()))
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or_else(damaged)?;
    let mut seed = Zeroizing::new([0; 32]);
    match STANDARD.decode_slice(encoded, seed.as_mut()) {
        Ok(32) => Ok(Box::new(SigningKey::from_bytes(&seed))),
        _ => Err(damaged()),
    }
}

fn read_optional(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, KeyError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(path, "cannot read", &error)),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unusable(path, "cannot read", &error))?;
    Ok(Some(bytes))
}

fn unusable(path: &Path, what: &str, error: &io::Error) -> KeyError {
    KeyError::Unusable(format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ALL: [Role; 3] = [Role::Root(0), Role::Log(0), Role::Epoch(0)];

    #[test]
    fn keys_are_made_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("keys");
        let made = load_or_create(&folder).unwrap();
        let read = load_or_create(&folder).unwrap();
        for role in ALL {
            assert_eq!(made.public(role).unwrap(), read.public(role).unwrap());
            assert_eq!(fs::metadata(path(&folder, role)).unwrap().mode() & 0o777, 0o600);
        }
        fs::remove_file(path(&folder, Role::Root(0))).unwrap();
        assert!(load_or_create(&folder).is_ok(), "the root key may stay offline");
        fs::remove_file(path(&folder, Role::Log(0))).unwrap();
        let keys = load_or_create(&folder).unwrap();
        assert!(matches!(keys.public(Role::Log(0)), Err(KeyError::Absent(_))), "never replaced in silence");
    }

    #[test]
    fn a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("keys");
        fs::write(&folder, b"").unwrap();
        assert!(exist(&folder).is_err() && FolderKeys::create(&folder).is_err());
        // Whatever was believed of the folder: a root or log key is never drawn over.
        fs::remove_file(&folder).unwrap();
        drop(load_or_create(&folder).unwrap());
        let held = |role| fs::read(path(&folder, role)).unwrap();
        let before = [Role::Root(0), Role::Log(0)].map(held);
        let mut unaware = FolderKeys { folder: folder.clone(), keys: BTreeMap::new() };
        for role in [Role::Root(0), Role::Log(0)] {
            assert!(unaware.draw(role).is_err());
        }
        assert_eq!([Role::Root(0), Role::Log(0)].map(held), before);
    }

    #[test]
    fn an_erased_key_is_nowhere_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut keys = load_or_create(folder.path()).unwrap();
        let line = fs::read_to_string(path(folder.path(), Role::Epoch(0))).unwrap();
        // A second name shows what becomes of the bytes themselves.
        let other_name = folder.path().join("second-name");
        fs::hard_link(path(folder.path(), Role::Epoch(0)), &other_name).unwrap();
        keys.erase(Role::Epoch(0)).unwrap();
        assert!(!path(folder.path(), Role::Epoch(0)).exists());
        assert!(matches!(keys.sign(Role::Epoch(0), b""), Err(KeyError::Absent(_))));
        assert_eq!(fs::read(&other_name).unwrap(), vec![b'#'; line.len()]);
        keys.erase(Role::Epoch(0)).unwrap();
        let drawn = keys.draw(Role::Epoch(0)).unwrap();
        assert_eq!(load(folder.path()).unwrap().public(Role::Epoch(0)).unwrap(), drawn);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        load_or_create(folder.path()).unwrap();
        set_permissions(path(folder.path(), Role::Epoch(0)), Permissions::from_mode(0o640)).unwrap();
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("mode 0640"), "{error}");
    }

    #[test]
    fn a_key_of_another_role_or_shape_is_refused_where_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        load_or_create(folder.path()).unwrap();
        let log = fs::read(path(folder.path(), Role::Log(0))).unwrap();
        fs::write(path(folder.path(), Role::Epoch(0)), &log).unwrap();
        let keys = load(folder.path()).unwrap();
        assert!(keys.public(Role::Epoch(0)).is_err() && keys.public(Role::Log(0)).is_ok());
        for damaged in [&log[..log.len() - 4], b"###", b"\xff\xfe"] {
            fs::write(path(folder.path(), Role::Log(0)), damaged).unwrap();
            assert!(load(folder.path()).unwrap().sign(Role::Log(0), b"").is_err());
        }
    }
}

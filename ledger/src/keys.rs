//! Keys in files, one folder for a ledger, outside the ledger's own directory.
//!
//! Each file holds one line, is 0600, and is refused where group or others may read it. What a newcomer
//! gets wrong: a copy of the ledger is for showing; a copy of this folder is for forging.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::signature::{KeyError, MemoryKeys, Role};

const PREFIX: &str = "gatebook-ledger-key/v1";

/// Where a key lies in its folder.
#[must_use]
pub fn path(folder: &Path, role: Role) -> PathBuf {
    folder.join(format!("ledger-{}.key", role.name()))
}

/// Reads the keys of a folder, and makes those of a new one: folder 0700, files 0600.
///
/// The root key may be taken away once the ledger exists; the others may not, for a ledger goes on with
/// the keys that it began with. So keys are made only where the folder holds none at all.
///
/// # Errors
/// [`KeyError`] where a file is missing, readable by others, or not a key.
pub fn load_or_create(folder: &Path) -> Result<MemoryKeys, KeyError> {
    let roles = [Role::Root, Role::Log, Role::Epoch];
    if !roles.iter().any(|role| path(folder, *role).exists()) {
        create(folder).map_err(|error| unusable(folder, "cannot create keys in", &error))?;
    }
    load(folder)
}

/// Reads the keys of a folder.
///
/// # Errors
/// [`KeyError`] where a file other than the root's is missing, or any is readable by others or not a key.
pub fn load(folder: &Path) -> Result<MemoryKeys, KeyError> {
    let root = if path(folder, Role::Root).exists() { Some(read(folder, Role::Root)?) } else { None };
    let log = read(folder, Role::Log)?;
    let epoch = read(folder, Role::Epoch)?;
    Ok(MemoryKeys::new(root.as_deref(), &log, &epoch))
}

fn create(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // The root key comes last: until it exists no ledger can be created, so a half-made folder is harmless.
    for role in [Role::Log, Role::Epoch, Role::Root] {
        let seed = MemoryKeys::generate().map_err(io::Error::other)?;
        let encoded = Zeroizing::new(STANDARD.encode(seed.as_ref()));
        let line = Zeroizing::new(format!("{PREFIX} {} {}\n", role.name(), encoded.as_str()));
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path(folder, role))?;
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
    }
    File::open(folder)?.sync_all()
}

fn read(folder: &Path, role: Role) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let path = path(folder, role);
    let file = File::open(&path).map_err(|error| unusable(&path, "cannot read key", &error))?;
    let metadata = file.metadata().map_err(|error| unusable(&path, "cannot read key", &error))?;
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(KeyError::Unusable(format!(
            "key {} is open to group or others (mode {mode:04o}); make it 0600",
            path.display()
        )));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(256).read_to_string(&mut text).map_err(|error| unusable(&path, "cannot read key", &error))?;
    let damaged = || KeyError::Unusable(format!("{} is not a ledger's {} key", path.display(), role.name()));
    let encoded = text
        .strip_suffix('\n')
        .and_then(|line| line.strip_prefix(PREFIX))
        .and_then(|rest| rest.strip_prefix(' '))
        .and_then(|rest| rest.strip_prefix(role.name()))
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or_else(damaged)?;
    let mut seed = Zeroizing::new([0; 32]);
    match STANDARD.decode_slice(encoded, seed.as_mut()) {
        Ok(32) => Ok(seed),
        _ => Err(damaged()),
    }
}

fn unusable(path: &Path, what: &str, error: &io::Error) -> KeyError {
    KeyError::Unusable(format!("{what} {}: {error}", path.display()))
}

/// Whether a folder holds keys already.
#[must_use]
pub fn exist(folder: &Path) -> bool {
    fs::exists(path(folder, Role::Log)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::signature::Keys as _;

    #[test]
    fn keys_are_made_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("keys");
        let made = load_or_create(&folder).unwrap();
        let read = load_or_create(&folder).unwrap();
        for role in [Role::Root, Role::Log, Role::Epoch] {
            assert_eq!(made.public(role).unwrap(), read.public(role).unwrap());
            assert_eq!(fs::metadata(path(&folder, role)).unwrap().mode() & 0o777, 0o600);
        }
        fs::remove_file(path(&folder, Role::Root)).unwrap();
        assert!(load_or_create(&folder).is_ok(), "the root key may stay offline");
        fs::remove_file(path(&folder, Role::Log)).unwrap();
        assert!(load_or_create(&folder).is_err(), "a lost key is never replaced in silence");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        load_or_create(folder.path()).unwrap();
        set_permissions(path(folder.path(), Role::Epoch), Permissions::from_mode(0o640)).unwrap();
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("mode 0640"), "{error}");
    }

    #[test]
    fn a_key_of_another_role_or_shape_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        load_or_create(folder.path()).unwrap();
        let log = fs::read(path(folder.path(), Role::Log)).unwrap();
        fs::write(path(folder.path(), Role::Epoch), &log).unwrap();
        assert!(load(folder.path()).is_err());
        fs::write(path(folder.path(), Role::Log), &log[..log.len() - 4]).unwrap();
        assert!(load(folder.path()).is_err());
    }
}

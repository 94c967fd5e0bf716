//! Reads a folder of `.cedar` files, within limits, without following anything out of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::mistake::{Mistake, distance};

/// The longest policy file.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// All policy files of a folder together.
pub const FOLDER_BYTES_MAX: usize = 16 << 20;
/// The most policy files in a folder.
pub const FILES_MAX: usize = 1024;

/// How often a folder is read that keeps changing.
const READINGS_MAX: usize = 8;

/// A policy file's name and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// The name within the folder.
    pub name: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
}

/// What a folder holds: the files in the order of their names, and what is wrong with the others.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) files: Vec<PolicyFile>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<Mistake>,
}

/// Reads what is there, as it is now: a folder that changes meanwhile is read until two readings agree, so that no half of one set stands beside half
/// of another.
pub(super) fn read(dir: &Path) -> Folder {
    settled(dir, || read_once(dir))
}

fn settled(dir: &Path, mut reading: impl FnMut() -> Folder) -> Folder {
    let mut folder = reading();
    for _ in 0..READINGS_MAX {
        let again = reading();
        let agrees = again.files == folder.files;
        folder = again;
        if agrees {
            return folder;
        }
    }
    let message = "the policy folder changes while it is read";
    folder.mistakes.push(Mistake::whole(dir.display().to_string(), message));
    folder
}

fn read_once(dir: &Path) -> Folder {
    let mut folder = Folder { files: Vec::new(), mistakes: Vec::new(), warnings: Vec::new() };
    let shown = dir.display().to_string();
    let names = match names(dir) {
        Ok(names) => names,
        Err(error) => {
            folder.mistakes.push(Mistake::whole(shown, format!("cannot read the policy folder: {error}")));
            return folder;
        }
    };
    if std::fs::metadata(dir).is_ok_and(|found| found.mode() & 0o002 != 0) {
        let message = "everybody may write to the policy folder: chmod o-w";
        folder.mistakes.push(Mistake::whole(shown.clone(), message));
    }
    let mut left = FOLDER_BYTES_MAX;
    for name in names {
        match is_policy(&name) {
            Ok(false) => continue,
            Ok(true) if folder.files.len() == FILES_MAX => {
                folder.mistakes.push(Mistake::whole(shown, format!("more than {FILES_MAX} policy files")));
                return folder;
            }
            Ok(true) => {}
            Err(Unread::Mistake(message)) => {
                folder.mistakes.push(Mistake::whole(name, message));
                continue;
            }
            Err(Unread::Warning(message)) => {
                folder.warnings.push(Mistake::whole(name, message));
                continue;
            }
        }
        match read_file(dir, &name, left) {
            Ok(text) => {
                left -= text.len();
                folder.files.push(PolicyFile { name: name.into(), text: text.into() });
            }
            Err(message) => folder.mistakes.push(Mistake::whole(name, message)),
        }
    }
    folder
}

/// The names of all entries, sorted, without what is hidden (`.git`, `.a.cedar.swp`) and editors' copies (`a.cedar~`).
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if !name.as_bytes().starts_with(b".") && !name.as_bytes().ends_with(b"~") {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

enum Unread {
    Mistake(String),
    Warning(String),
}

/// Whether a name is that of a policy file. A near miss would leave a rule out unnoticed, so it is a mistake.
fn is_policy(name: &str) -> Result<bool, Unread> {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    if name.contains(char::is_control) || name.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Unread::Mistake("a policy file's name must be printable UTF-8".into()));
    }
    match extension {
        "cedar" => Ok(true),
        _ if !extension.is_empty() && distance(&extension.to_lowercase(), "cedar") <= 2 => {
            Err(Unread::Mistake("a policy file's name ends with .cedar".into()))
        }
        _ => Err(Unread::Warning("not read: a policy file's name ends with .cedar".into())),
    }
}

/// Opens without waiting for a pipe's other end, and follows a link only to what lies in the folder itself: a mounted ConfigMap shows its files
/// as links to a hidden folder beside them.
fn open(dir: &Path, name: &str) -> Result<File, String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let failed = |error: io::Error| format!("cannot open: {error}");
    match rustix::fs::open(dir.join(name), flags, Mode::empty()) {
        Ok(descriptor) => Ok(File::from(descriptor)),
        Err(rustix::io::Errno::LOOP) => {
            let target = dir.join(name).canonicalize().map_err(failed)?;
            let dir = dir.canonicalize().map_err(failed)?;
            if !target.starts_with(&dir) {
                return Err(
                    "a link that leads out of the folder is not followed: put the file itself here".into()
                );
            }
            let writable =
                |folder: &Path| std::fs::metadata(folder).is_ok_and(|found| found.mode() & 0o002 != 0);
            if target.ancestors().skip(1).take_while(|folder| *folder != dir).any(writable) {
                return Err("everybody may write to the folder that this link leads to: chmod o-w".into());
            }
            rustix::fs::open(target, flags, Mode::empty())
                .map(File::from)
                .map_err(|error| failed(error.into()))
        }
        Err(error) => Err(failed(error.into())),
    }
}

fn read_file(dir: &Path, name: &str, left: usize) -> Result<String, String> {
    let file = open(dir, name)?;
    let found = file.metadata().map_err(|error| format!("cannot read: {error}"))?;
    if !found.is_file() {
        return Err("not a file: policies lie side by side in one folder".into());
    }
    if found.mode() & 0o002 != 0 {
        return Err("everybody may write to this file: chmod o-w".into());
    }
    let most = FILE_BYTES_MAX.min(left);
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot read: {error}"))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("longer than {FILE_BYTES_MAX} bytes"));
    }
    if bytes.len() > left {
        return Err(format!("the policy files together are longer than {FOLDER_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes)
        .map_err(|error| format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the folder holds at each reading; the last one for ever.
    fn settle(readings: &[&[&str]]) -> (Vec<String>, usize, usize) {
        let mut taken = 0;
        let folder = settled(Path::new("policies"), || {
            let texts = readings[taken.min(readings.len() - 1)];
            taken += 1;
            let file =
                |text: &&str| PolicyFile { name: format!("{text}.cedar").into(), text: (*text).into() };
            Folder { files: texts.iter().map(file).collect(), mistakes: Vec::new(), warnings: Vec::new() }
        });
        let names = folder.files.iter().map(|file| file.text.to_string()).collect();
        (names, folder.mistakes.len(), taken)
    }

    #[test]
    fn a_folder_is_read_until_two_readings_agree() {
        assert_eq!(settle(&[&["a", "b"]]), (vec!["a".to_owned(), "b".to_owned()], 0, 2));
        // One file was replaced and the other not yet.
        assert_eq!(settle(&[&["a1", "b1"], &["a2", "b1"], &["a2", "b2"]]).0, ["a2", "b2"]);
        let restless: Vec<[String; 1]> = (0..40).map(|reading| [reading.to_string()]).collect();
        let texts: Vec<Vec<&str>> = restless.iter().map(|texts| vec![texts[0].as_str()]).collect();
        let readings: Vec<&[&str]> = texts.iter().map(Vec::as_slice).collect();
        assert_eq!(settle(&readings).1, 1, "one that never rests is a mistake");
    }
}

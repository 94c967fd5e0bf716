//! Secrets by reference: an environment variable, a file, or a command's output.
//!
//! A [`Secret`] is the reference; the value exists only in what [`Secret::read`] returns and in a small cache, both
//! wiped when dropped. Nothing here prints a value, in no error and no `Debug`.
//!
//! What a newcomer gets wrong: read at each use and keep nothing, so that a rotated secret serves the next
//! connection. When the upstream refuses a password, call [`Secret::forget`] and try once more: a command's output is
//! kept for a minute, and the upstream may have been told of the new one first.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::report::reason;

/// The largest secret, in bytes.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// How long a command may take to print its secret.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(10);
/// How long a command's output serves before the command is run again.
pub const COMMAND_OUTPUT_AGE_MAX: Duration = Duration::from_secs(60);
/// A file changed this recently may change again within one tick of its clock, so it is not cached.
const FILE_SETTLED: Duration = Duration::from_secs(2);

/// A reference to a secret. Clones share one cache.
#[derive(Clone)]
pub struct Secret {
    inner: Arc<Inner>,
}

struct Inner {
    source: Source,
    cache: Mutex<Option<Cached>>,
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Env(String),
    File(PathBuf),
    Command { program: PathBuf, arguments: Vec<String> },
}

struct Cached {
    value: Zeroizing<String>,
    valid: Valid,
}

enum Valid {
    While(Stamp),
    Since(Instant),
}

/// What changes when a file does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a secret cannot be had. No variant holds any part of its value.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The variable is not set, or not text.
    #[error("environment variable {0} is not set")]
    EnvironmentMissing(String),
    /// The file cannot be opened or read.
    #[error("cannot read {}: {}", file.display(), reason(source))]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is a folder, a device, or something else than a file.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Others than its owner can get at it.
    #[error("{} is {by} (mode {mode:04o}); make it 0600", file.display())]
    Exposed {
        /// The file.
        file: PathBuf,
        /// What others can do.
        by: &'static str,
        /// Its mode.
        mode: u32,
    },
    /// It belongs to another user.
    #[error("{} belongs to user {owner}; it must belong to user {wanted} or root", file.display())]
    ForeignOwner {
        /// The file.
        file: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it must be.
        wanted: u32,
    },
    /// It is larger than [`SECRET_BYTES_MAX`].
    #[error("{0} holds more than {SECRET_BYTES_MAX} bytes")]
    TooLarge(String),
    /// There is nothing in it.
    #[error("{0} is empty")]
    Empty(String),
    /// It is no text, or holds a NUL.
    #[error("{0} holds something that is not text")]
    NotText(String),
    /// The program cannot be started.
    #[error("cannot run {}: {}", program.display(), reason(source))]
    CannotRun {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program failed.
    #[error("{} ended with {status}", program.display())]
    CommandFailed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// The program took longer than [`COMMAND_DEADLINE`].
    #[error("{} did not end within {} s", .0.display(), COMMAND_DEADLINE.as_secs())]
    CommandLate(PathBuf),
}

impl Secret {
    /// A secret held by an environment variable.
    ///
    /// # Errors
    /// What is wrong with the variable's name.
    pub fn from_env(variable: &str) -> Result<Self, String> {
        Source::env(variable).map(Secret::new)
    }

    /// A secret held by a file.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        Source::file(path).map(Secret::new)
    }

    pub(super) fn new(source: Source) -> Self {
        Secret { inner: Arc::new(Inner { source, cache: Mutex::new(None) }) }
    }

    /// The secret as it is now. One line end at its end is not part of it.
    ///
    /// A file is checked each time and read again when it has changed; a command is run at most once in
    /// [`COMMAND_OUTPUT_AGE_MAX`], by one caller while the others wait for its answer.
    /// Cancel safe: a command that is still running is killed with its children.
    ///
    /// # Errors
    /// [`SecretError`] when it cannot be had, also where an earlier value is known: a secret taken away stays away.
    pub async fn read(&self) -> Result<Zeroizing<String>, SecretError> {
        self.read_at(SystemTime::now()).await
    }

    async fn read_at(&self, now: SystemTime) -> Result<Zeroizing<String>, SecretError> {
        let mut cache = self.inner.cache.lock().await;
        match &self.inner.source {
            Source::Env(variable) => from_environment(variable),
            Source::File(path) => {
                let (file, stamp) = open_private(path)?;
                if let Some(Cached { value, valid: Valid::While(known) }) = &*cache
                    && *known == stamp
                {
                    return Ok(value.clone());
                }
                *cache = None;
                let value = from_file(path, &file, stamp)?;
                if stamp.is_settled(now) {
                    *cache = Some(Cached { value: value.clone(), valid: Valid::While(stamp) });
                }
                Ok(value)
            }
            Source::Command { program, arguments } => {
                if let Some(Cached { value, valid: Valid::Since(then) }) = &*cache
                    && then.elapsed() < COMMAND_OUTPUT_AGE_MAX
                {
                    return Ok(value.clone());
                }
                *cache = None;
                let value = from_command(program, arguments, COMMAND_DEADLINE).await?;
                *cache = Some(Cached { value: value.clone(), valid: Valid::Since(Instant::now()) });
                Ok(value)
            }
        }
    }

    /// Drops what is cached, so that the next [`Secret::read`] asks the source again.
    pub async fn forget(&self) {
        *self.inner.cache.lock().await = None;
    }

    /// Looks whether the secret could be read now, as far as that shows without running a command.
    ///
    /// # Errors
    /// As [`Secret::read`].
    pub fn inspect(&self) -> Result<(), SecretError> {
        match &self.inner.source {
            Source::Env(variable) => from_environment(variable).map(drop),
            Source::File(path) => {
                let (file, stamp) = open_private(path)?;
                from_file(path, &file, stamp).map(drop)
            }
            Source::Command { program, .. } => inspect_program(program),
        }
    }
}

/// Shows the reference, never the value and never a command's arguments.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner.source {
            Source::Env(variable) => write!(f, "Secret(env {variable})"),
            Source::File(path) => write!(f, "Secret(file {})", path.display()),
            Source::Command { program, .. } => write!(f, "Secret(command {} …)", program.display()),
        }
    }
}

impl Source {
    pub(super) fn env(variable: &str) -> Result<Self, String> {
        let odd = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        if variable.is_empty() || variable.contains(odd) {
            // What was written may be the secret itself, so it is not repeated.
            return Err("env takes the name of an environment variable (letters, digits and _)".into());
        }
        Ok(Source::Env(variable.into()))
    }

    pub(super) fn file(path: &Path) -> Result<Self, String> {
        if path.as_os_str().is_empty() || path.to_string_lossy().contains(char::is_control) {
            return Err("file takes a path".into());
        }
        Ok(Source::File(path.into()))
    }

    /// The program is named by its whole path: what runs must not depend on `PATH` or on the working folder.
    pub(super) fn command(words: Vec<String>) -> Result<Self, String> {
        let mut words = words.into_iter();
        let program = PathBuf::from(words.next().ok_or("command must name a program")?);
        if !program.is_absolute() {
            let near = std::env::var_os("PATH")
                .into_iter()
                .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
                .map(|folder| folder.join(&program))
                .find(|candidate| candidate.is_absolute() && candidate.is_file());
            let near = near.map(|near| format!(" ({})", near.display())).unwrap_or_default();
            return Err(format!("command must name its program by the whole path{near}"));
        }
        let arguments: Vec<String> = words.collect();
        if arguments.iter().any(|argument| argument.contains('\0')) {
            return Err("command holds a NUL".into());
        }
        Ok(Source::Command { program, arguments })
    }
}

impl Stamp {
    fn is_settled(&self, now: SystemTime) -> bool {
        let seconds = u64::try_from(self.modified.0.max(self.changed.0)).unwrap_or(0);
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        now.duration_since(changed).is_ok_and(|age| age > FILE_SETTLED)
    }
}

fn from_environment(variable: &str) -> Result<Zeroizing<String>, SecretError> {
    let value = std::env::var_os(variable).ok_or_else(|| SecretError::EnvironmentMissing(variable.into()))?;
    let named = || format!("environment variable {variable}");
    let bytes = Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(value));
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(SecretError::TooLarge(named()));
    }
    as_secret(&bytes, named)
}

/// Opens a file that its owner alone can read, and that belongs to us or to root; the checks are on what was opened.
fn open_private(path: &Path) -> Result<(File, Stamp), SecretError> {
    let unreadable = |source| SecretError::Unreadable { file: path.into(), source };
    // Without NONBLOCK a pipe put in the file's place would hold us for ever.
    let flags = rustix::fs::OFlags::RDONLY
        | rustix::fs::OFlags::CLOEXEC
        | rustix::fs::OFlags::NONBLOCK
        | rustix::fs::OFlags::NOCTTY;
    let file =
        rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(|errno| unreadable(errno.into()))?;
    let file = File::from(file);
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(SecretError::NotAFile(path.into()));
    }
    let (mode, wanted) = (meta.mode() & 0o7777, rustix::process::geteuid().as_raw());
    let exposed = |by| Err(SecretError::Exposed { file: path.into(), by, mode });
    match mode {
        _ if mode & 0o004 != 0 => return exposed("readable by everyone"),
        _ if mode & 0o002 != 0 => return exposed("writable by everyone"),
        _ if mode & 0o040 != 0 => return exposed("readable by group"),
        _ if mode & 0o077 != 0 => return exposed("open to others than its owner"),
        _ => {}
    }
    if meta.uid() != wanted && meta.uid() != 0 {
        return Err(SecretError::ForeignOwner { file: path.into(), owner: meta.uid(), wanted });
    }
    let stamp = Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        bytes: meta.len(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    };
    Ok((file, stamp))
}

/// The text of a file that its owner alone can read, such as a private key.
pub(super) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let (file, stamp) = open_private(path)?;
    bytes_of(path, &file, stamp)
}

fn from_file(path: &Path, file: &File, stamp: Stamp) -> Result<Zeroizing<String>, SecretError> {
    as_secret(&bytes_of(path, file, stamp)?, || path.display().to_string())
}

fn bytes_of(path: &Path, file: &File, stamp: Stamp) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let too_large = || SecretError::TooLarge(path.display().to_string());
    if stamp.bytes > SECRET_BYTES_MAX {
        return Err(too_large());
    }
    // Room for all at once: a buffer that grows leaves copies behind.
    let room = usize::try_from(SECRET_BYTES_MAX + 1).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let read = file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes);
    let read = read.map_err(|source| SecretError::Unreadable { file: path.into(), source })?;
    if read as u64 > SECRET_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}

async fn from_command(
    program: &Path,
    arguments: &[String],
    deadline: Duration,
) -> Result<Zeroizing<String>, SecretError> {
    inspect_program(program)?;
    let cannot_run = |source| SecretError::CannotRun { program: program.into(), source };
    let mut command = std::process::Command::new(program);
    command.args(arguments).current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().map_err(cannot_run)?;
    let group = Group(child.id());
    let mut output = child.stdout.take().ok_or_else(|| cannot_run(std::io::ErrorKind::BrokenPipe.into()))?;
    let room = usize::try_from(SECRET_BYTES_MAX + 1).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let run = async {
        (&mut output).take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).await.map_err(cannot_run)?;
        if bytes.len() as u64 > SECRET_BYTES_MAX {
            return Err(SecretError::TooLarge(format!("the output of {}", program.display())));
        }
        child.wait().await.map_err(cannot_run)
    };
    let ended = tokio::time::timeout(deadline, run).await;
    let status = ended.map_err(|_| SecretError::CommandLate(program.into()))??;
    drop(group);
    if !status.success() {
        return Err(SecretError::CommandFailed { program: program.into(), status });
    }
    as_secret(&bytes, || format!("the output of {}", program.display()))
}

/// The process group of a command: whatever of it still runs ends with this value.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let id = self.0.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            // An error says that nothing of the group is left.
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }
}

/// A program that someone else could have put there would run with our rights.
fn inspect_program(program: &Path) -> Result<(), SecretError> {
    let meta = std::fs::metadata(program)
        .map_err(|source| SecretError::CannotRun { program: program.into(), source })?;
    let mode = meta.mode() & 0o7777;
    if !meta.is_file() {
        return Err(SecretError::NotAFile(program.into()));
    }
    if mode & 0o111 == 0 {
        let source = std::io::ErrorKind::PermissionDenied.into();
        return Err(SecretError::CannotRun { program: program.into(), source });
    }
    if mode & 0o002 != 0 {
        return Err(SecretError::Exposed { file: program.into(), by: "writable by everyone", mode });
    }
    Ok(())
}

fn as_secret(bytes: &[u8], named: impl Fn() -> String) -> Result<Zeroizing<String>, SecretError> {
    let text = std::str::from_utf8(bytes).map_err(|_| SecretError::NotText(named()))?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return Err(SecretError::Empty(named()));
    }
    if text.contains('\0') {
        return Err(SecretError::NotText(named()));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(path: &Path, content: &[u8]) {
        std::fs::write(path, content).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    impl Secret {
        fn is_cached(&self) -> bool {
            self.inner.cache.try_lock().unwrap().is_some()
        }
    }

    fn command(script: &str) -> Secret {
        Secret::new(Source::command(vec!["/bin/sh".into(), "-c".into(), script.into()]).unwrap())
    }

    #[tokio::test]
    async fn a_rotated_file_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let secret = Secret::from_file(&path).unwrap();
        assert!(matches!(secret.read().await, Err(SecretError::Unreadable { .. })));
        // In place and just now: not kept, because a second change within the clock's tick would not show.
        for value in ["aaaa", "bbbb", "cccc"] {
            write(&path, value.as_bytes());
            assert_eq!(*secret.read().await.unwrap(), value);
            assert!(!secret.is_cached());
        }
        // In place and long ago: kept until the file changes.
        let later = SystemTime::now() + Duration::from_secs(3_600);
        assert_eq!(*secret.read_at(later).await.unwrap(), "cccc");
        assert!(secret.is_cached());
        write(&path, b"cccc, longer");
        assert_eq!(*secret.read_at(later).await.unwrap(), "cccc, longer");
        // By rename, as most tools do it.
        write(&folder.path().join("new"), b"dddd\r\n");
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(*secret.read().await.unwrap(), "dddd");
        assert_eq!(*secret.clone().read().await.unwrap(), "dddd");
        // A secret taken away stays away.
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(secret.read().await, Err(SecretError::Exposed { mode: 0o640, .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(secret.read().await, Err(SecretError::Unreadable { .. })));
    }

    #[tokio::test]
    async fn what_is_no_secret_is_refused_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let secret = Secret::from_file(&path).unwrap();
        let large = vec![b'x'; usize::try_from(SECRET_BYTES_MAX).unwrap() + 1];
        for content in [&b""[..], b"\n", b"canary\xff", b"canary\0", &large] {
            write(&path, content);
            let error = secret.read().await.unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
            assert!(secret.inspect().is_err());
        }
        write(&path, &large[1..]);
        assert_eq!(secret.read().await.unwrap().len() as u64, SECRET_BYTES_MAX);
        write(&path, b"two\nlines\n\n");
        assert_eq!(*secret.read().await.unwrap(), "two\nlines\n");
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(secret.read().await, Err(SecretError::NotAFile(_))));
    }

    #[tokio::test]
    async fn a_file_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root can give a file away.
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write(&path, b"canary");
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        let refused = Secret::from_file(&path).unwrap().read().await;
        assert!(matches!(refused, Err(SecretError::ForeignOwner { owner: 12_345, .. })));
    }

    #[tokio::test]
    async fn a_command_runs_once_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let count = folder.path().join("count");
        let secret = command(&format!("echo x >> {}; wc -l < {}", count.display(), count.display()));
        let (one, other) = tokio::join!(secret.read(), secret.read());
        assert_eq!((one.unwrap().trim(), other.unwrap().trim()), ("1", "1"));
        secret.forget().await;
        assert_eq!(secret.read().await.unwrap().trim(), "2");
    }

    #[tokio::test]
    async fn a_commands_failure_is_told_without_its_arguments_and_output() {
        let secret = command("echo canary; echo canary >&2; exit 3");
        let error = secret.read().await.unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh ended with exit status: 3");
        assert!(!format!("{error:?} {secret:?}").contains("canary"));
        let empty = command("exit 0").read().await.unwrap_err();
        assert_eq!(empty.to_string(), "the output of /bin/sh is empty");
    }

    #[tokio::test]
    async fn a_command_that_hangs_or_floods_ends_with_all_its_children() {
        let hangs = Source::command(vec!["/bin/sh".into(), "-c".into(), "exec sleep 600".into()]).unwrap();
        let Source::Command { program, arguments } = hangs else { unreachable!() };
        let late = from_command(&program, &arguments, Duration::from_millis(20)).await;
        assert!(matches!(late, Err(SecretError::CommandLate(_))));

        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let flood = command(&format!("sleep 600 & echo $! > {}; exec yes", pid.display()));
        assert!(matches!(flood.read().await, Err(SecretError::TooLarge(_))));
        let child = std::fs::read_to_string(&pid).unwrap();
        let stat = PathBuf::from(format!("/proc/{}/stat", child.trim()));
        let started = Instant::now();
        // A killed child may stay as a zombie until someone asks for it.
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(started.elapsed() < Duration::from_secs(10), "the child {child} lives on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_that_others_can_replace_is_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, "#!/bin/sh\necho x\n").unwrap();
        let secret = Secret::new(Source::command(vec![path.to_str().unwrap().into()]).unwrap());
        for (mode, runs) in [(0o644, false), (0o757, false), (0o755, true), (0o700, true)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(secret.inspect().is_ok(), runs, "{mode:o}");
        }
    }
}

//! What this machine has: programs, users, folders. Everything missing is named together with what installs it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long anything that starts may take on a busy machine.
pub const START_MAX: Duration = Duration::from_secs(60);

/// How long one answer may take on a busy machine.
pub const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The folder that outlives runs: installed drivers, a prepared database. `tests/setup` fills it.
#[must_use]
pub fn cache() -> PathBuf {
    let named = std::env::var_os("GATEBOOK_CACHE").map(PathBuf::from);
    let path = named.unwrap_or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"))
            .join("gatebook")
    });
    std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
    path
}

/// The folder `tests/` of the source tree.
#[must_use]
pub fn tests_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A binary of this workspace, from the build that the running test belongs to.
///
/// # Panics
/// When it was not built: `cargo build --workspace --bins` comes first, as in `tests/run`.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    built(Path::new(name))
}

/// A program of `tests/` that is built as an example.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    built(&Path::new("examples").join(name))
}

fn built(below: &Path) -> PathBuf {
    let here = std::env::current_exe().expect("a test knows its own path");
    // A test runs from PROFILE/deps, an example from PROFILE/examples, a binary from PROFILE.
    let profile =
        here.ancestors().skip(1).take(2).map(|folder| folder.join(below)).find(|path| path.is_file());
    profile.unwrap_or_else(|| {
        panic!(
            "{} is not built beside {}: run tests/run, or cargo build --workspace --bins",
            below.display(),
            here.display()
        )
    })
}

/// The folder of PostgreSQL's server programs: `GATEBOOK_POSTGRES_BIN`, or the newest that the system has.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn postgres_programs() -> PathBuf {
    if let Some(named) = std::env::var_os("GATEBOOK_POSTGRES_BIN") {
        return PathBuf::from(named);
    }
    let mut found: Vec<(u32, PathBuf)> = Path::new("/usr/lib/postgresql")
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|version| Some((version.file_name().to_str()?.parse().ok()?, version.path().join("bin"))))
        .filter(|(_, programs)| programs.join("postgres").is_file())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL's server programs are missing: run tests/setup").1
}

/// A program on the path or in a folder where systems keep servers.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: run tests/setup"))
}

/// The user that servers run as which refuse to run as root: none when we are not root.
#[must_use]
pub fn server_user() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let exists = |name: &str| passwd.lines().any(|line| line.split(':').next() == Some(name));
    Some(if exists("postgres") { "postgres" } else { "nobody" })
}

/// Gives a file or folder, with all below it, to the user of [`server_user`].
pub fn give_to_server_user(path: &Path) {
    if let Some(user) = server_user() {
        run(Command::new("chown").arg("-R").arg(user).arg(path));
    }
}

/// A command that runs `program` as the user of [`server_user`] and that dies with its parent.
#[must_use]
pub fn as_server_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = server_user() {
        command.arg(format!("--reuid={user}")).arg("--clear-groups");
    }
    command.arg("--pdeathsig=KILL").arg(program);
    command
}

/// A command that runs `program` and that dies with its parent.
#[must_use]
pub fn mortal(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=KILL").arg(program);
    command
}

/// Runs a command to its end and returns what it printed.
///
/// # Panics
/// When it cannot be started or fails; the message holds what it said.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} failed with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Does something alone among all processes that ask for the same name.
pub fn alone<T>(name: &str, act: impl FnOnce() -> T) -> T {
    let path = cache().join(format!("{name}.lock"));
    let lock = File::create(&path).unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()));
    lock.lock().unwrap_or_else(|e| panic!("cannot lock {}: {e}", path.display()));
    act()
}

/// A port that is free at this moment, for a server that cannot choose one itself.
#[must_use]
pub fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port is free");
    socket.local_addr().expect("a bound socket has an address").port()
}

/// A temporary folder that other users may enter.
#[must_use]
pub fn temporary() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new()
        .prefix("gatebook-test-")
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir();
    folder.expect("a temporary folder can be made")
}

/// Asks again and again until there is an answer, and never longer than the deadline.
///
/// For conditions that nothing announces. Where something can be waited for (a line, a message, an exit), wait for
/// that instead.
///
/// # Panics
/// When the deadline has passed; the message names what was awaited.
pub fn until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < within, "no {what} within {within:?}");
        // Only yields the processor: the condition decides, not this pause.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A line of `/proc/PID/status` in kilobytes: `VmHWM` (the most memory it ever held), `VmRSS` (what it holds).
#[must_use]
pub fn memory_kb(process: u32, line: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

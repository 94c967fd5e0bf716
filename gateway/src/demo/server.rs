//! A private PostgreSQL server in a temporary folder, from the machine's own server programs.
//!
//! It listens on loopback with TLS and SCRAM, under passwords made for this run, and is gone with the demonstration. PostgreSQL refuses to
//! run as root; then it runs as an unprivileged user of the system.

use std::io::{IsTerminal, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::pki::{Authority, PkiError};

/// How long the server has to come up.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Why there is no server.
#[derive(Debug, Error)]
pub(super) enum ServerError {
    /// There are no server programs, and none were installed.
    #[error(
        "no PostgreSQL server programs were found; install the distribution's package ({0}), or name your own server with --postgres URL"
    )]
    NoPrograms(&'static str),
    /// A program failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Which.
        program: String,
        /// What it said.
        output: String,
    },
    /// The system failed us.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// What happened.
        error: std::io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// It did not come up.
    #[error("the server did not come up: {0}")]
    Down(String),
}

/// A private server; it stops when dropped.
pub(super) struct Server {
    child: Child,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    /// Where it listens on loopback.
    pub(super) port: u16,
    /// The superuser's password.
    pub(super) password: Zeroizing<String>,
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ServerError {
    let what = what.into();
    move |error| ServerError::System { what, error }
}

impl Server {
    /// Makes and starts a server in `folder`, with a certificate of `authority`.
    pub(super) fn start(folder: &Path, authority: &Authority) -> Result<Server, ServerError> {
        let programs = programs()?;
        let user = unprivileged()?;
        let give = |path: &Path| match user {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid))
                .map_err(system(format!("cannot hand over {}", path.display()))),
            None => Ok(()),
        };
        let data = folder.join("postgres");
        std::fs::create_dir(&data).map_err(system(format!("cannot make {}", data.display())))?;
        give(&data)?;
        let password = random()?;
        let password_file = folder.join("postgres-password");
        std::fs::write(&password_file, &*password)
            .map_err(system("cannot write a password for the demonstration"))?;
        give(&password_file)?;
        let as_user = |program: &str| {
            let mut command = Command::new(programs.join(program));
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
            command
        };
        let mut initdb = as_user("initdb");
        initdb.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ]);
        initdb.arg(format!("--pwfile={}", password_file.display()));
        run(initdb, "initdb")?;
        let _ = std::fs::remove_file(&password_file);

        let issued =
            authority.issue(&["localhost".into(), "127.0.0.1".into()], time::OffsetDateTime::now_utc())?;
        for (name, text, mode) in
            [("server.crt", issued.chain.as_str(), 0o644), ("server.key", issued.key.as_str(), 0o600)]
        {
            let path = data.join(name);
            std::fs::write(&path, text).map_err(system(format!("cannot write {}", path.display())))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .map_err(system(format!("cannot guard {}", path.display())))?;
            give(&path)?;
        }
        // Another program may take the port before the server does; then it says so, and the demonstration ends.
        let free = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .map_err(system("cannot find a free port"))?;
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nssl = on\nfsync = off\nmax_connections = 100\npassword_encryption = 'scram-sha-256'\n",
            free.port()
        );
        append(&data.join("postgresql.conf"), &settings)?;
        std::fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 scram-sha-256\n")
            .map_err(system("cannot write pg_hba.conf"))?;
        let log = std::fs::File::create(folder.join("postgres.log"))
            .map_err(system("cannot make the server's log"))?;
        let errors = log.try_clone().map_err(system("cannot make the server's log"))?;
        let child = as_user("postgres")
            .arg("-D")
            .arg(&data)
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(system("cannot start postgres"))?;
        let mut server = Server { child, programs, user, port: free.port(), password };
        server.wait_ready(&folder.join("postgres.log"))?;
        Ok(server)
    }

    fn wait_ready(&mut self, log: &Path) -> Result<(), ServerError> {
        let started = Instant::now();
        loop {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            if said.contains("ready to accept connections") {
                return Ok(());
            }
            let gone = self.child.try_wait().ok().flatten().is_some();
            if gone || started.elapsed() > START_DEADLINE {
                return Err(ServerError::Down(said.lines().last().unwrap_or("it said nothing").to_owned()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The folder of the machine's PostgreSQL programs.
    pub(super) fn programs(&self) -> &Path {
        &self.programs
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT asks for a fast shutdown; pg_ctl would want the data folder, which may be gone.
        let mut kill = Command::new("kill");
        if let Some((uid, gid)) = self.user {
            kill.uid(uid).gid(gid);
        }
        let _ = kill.args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

fn append(path: &Path, text: &str) -> Result<(), ServerError> {
    let file = std::fs::OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(system(format!("cannot write {}", path.display())))
}

fn run(mut command: Command, program: &str) -> Result<(), ServerError> {
    let output = command.output().map_err(system(format!("cannot run {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ServerError::Program { program: program.to_owned(), output: said })
}

/// A secret of 192 bits, in letters that need no quoting.
pub(super) fn random() -> Result<Zeroizing<String>, ServerError> {
    let mut bytes = Zeroizing::new([0; 24]);
    getrandom::fill(&mut *bytes).map_err(|error| ServerError::System {
        what: "no randomness".into(),
        error: std::io::Error::other(error.to_string()),
    })?;
    Ok(Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// Finds the server programs, and offers to install them where there are none.
fn programs() -> Result<PathBuf, ServerError> {
    if let Some(found) = find() {
        return Ok(found);
    }
    let package = "postgresql";
    let apt = Path::new("/usr/bin/apt-get");
    let root = rustix::process::geteuid().is_root();
    if !apt.exists() || !root {
        return Err(ServerError::NoPrograms(package));
    }
    if std::io::stdin().is_terminal() {
        eprint!("No PostgreSQL server programs were found. Install the package \"{package}\" now? [y/N] ");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map_err(system("cannot read the answer"))?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            return Err(ServerError::NoPrograms(package));
        }
    } else {
        eprintln!("No PostgreSQL server programs were found: installing the package \"{package}\".");
    }
    let mut update = Command::new(apt);
    update.args(["-q", "update"]).stdin(Stdio::null());
    run(update, "apt-get update")?;
    let mut install = Command::new(apt);
    install
        .args(["-q", "-y", "install", package])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    run(install, "apt-get install")?;
    find().ok_or(ServerError::NoPrograms(package))
}

/// The newest folder that has the server programs.
fn find() -> Option<PathBuf> {
    let complete =
        |folder: &PathBuf| ["postgres", "initdb", "psql"].iter().all(|program| folder.join(program).exists());
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    let known = versions.into_iter().rev().map(|(_, folder)| folder);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let listed: Vec<PathBuf> = std::env::split_paths(&path).collect();
    known
        .chain(listed)
        .chain(["/usr/local/pgsql/bin", "/opt/homebrew/bin", "/usr/local/bin"].map(PathBuf::from))
        .find(complete)
}

/// Whom to run the server as when we are root: `postgres`, or else `nobody`.
fn unprivileged() -> Result<Option<(u32, u32)>, ServerError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(system("/etc/passwd"))?;
    let ids = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = ids("postgres").or_else(|| ids("nobody"));
    found.map(Some).ok_or_else(|| {
        ServerError::Down(
            "PostgreSQL does not run as root, and there is no user \"postgres\" or \"nobody\"".into(),
        )
    })
}

//! Checkpoints carried away from the machine: whoever takes it can rewrite what lies here, and not what has left.
//!
//! A thread of its own does it, so that a slow receiver holds nothing up. It carries the newest checkpoint; one that
//! was published while it was busy is passed over, because the next covers it. What a newcomer gets wrong: a receiver
//! on this machine is an anchor only where the gateway's user cannot write what it keeps.

use std::io::{self, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::{Condvar, Mutex};
use time::OffsetDateTime;

use crate::config::{LedgerConfig, Syslog};

/// How long the command may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);
/// How often it is looked at.
const COMMAND_POLL: Duration = Duration::from_millis(20);
/// How long a datagram may take.
const SYSLOG_DEADLINE: Duration = Duration::from_secs(5);
/// `<109>`: facility 13, log audit, at severity 5, notice (RFC 5424, section 6.2.1).
const PRIORITY: u8 = 13 * 8 + 5;
/// How much of what a command says is told.
const SAID_BYTES_MAX: u64 = 1000;

/// What carries checkpoints away.
#[derive(Clone)]
pub(super) struct Anchors(Arc<Shared>);

struct Shared {
    next: Mutex<Next>,
    changed: Condvar,
}

#[derive(Default)]
struct Next {
    note: Option<String>,
    closed: bool,
}

impl Anchors {
    /// Starts the thread; none where nothing is to be done.
    pub(super) fn start(config: &LedgerConfig) -> io::Result<Option<Anchors>> {
        let receivers = Receivers {
            copies: config.checkpoint_copies.clone(),
            syslog: config.checkpoint_syslog.clone(),
            command: config.checkpoint_command.clone(),
        };
        if receivers.copies.is_empty() && receivers.syslog.is_none() && receivers.command.is_empty() {
            return Ok(None);
        }
        let shared = Arc::new(Shared { next: Mutex::default(), changed: Condvar::new() });
        let anchors = Anchors(shared.clone());
        std::thread::Builder::new().name("anchors".into()).spawn(move || {
            while let Some(note) = shared.take() {
                receivers.carry(&note);
            }
            shared.next.lock().closed = false;
            shared.changed.notify_all();
        })?;
        Ok(Some(anchors))
    }

    /// Has this checkpoint carried away, in the place of one that still waits.
    pub(super) fn hand(&self, note: String) {
        self.0.next.lock().note = Some(note);
        self.0.changed.notify_all();
    }

    /// Waits until the last one was carried away, at most for `deadline`.
    pub(super) fn finish(&self, deadline: Duration) {
        let mut next = self.0.next.lock();
        next.closed = true;
        self.0.changed.notify_all();
        self.0.changed.wait_while_for(&mut next, |next| next.closed, deadline);
    }
}

impl Shared {
    /// The next checkpoint; none at the end.
    fn take(&self) -> Option<String> {
        let mut next = self.next.lock();
        self.changed.wait_while(&mut next, |next| next.note.is_none() && !next.closed);
        next.note.take()
    }
}

struct Receivers {
    copies: Vec<PathBuf>,
    syslog: Option<Syslog>,
    command: Vec<String>,
}

impl Receivers {
    fn carry(&self, note: &str) {
        for copy in &self.copies {
            if let Err(error) = replace(copy, note) {
                tracing::error!(path = %copy.display(), %error, "cannot copy the checkpoint; an older one is all that is anchored there");
            }
        }
        if let Some(syslog) = &self.syslog
            && let Err(error) = send(syslog, &message(note, OffsetDateTime::now_utc()))
        {
            tracing::error!(%error, "cannot send the checkpoint to syslog; an older one is all that is anchored there");
        }
        if !self.command.is_empty()
            && let Err(error) = run(&self.command, note, COMMAND_DEADLINE)
        {
            tracing::error!(command = %self.command[0], %error, "checkpoint_command failed; an older checkpoint is all that is anchored there");
        }
    }
}

/// Replaces a file whole: a reader sees the old checkpoint or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

/// One line of RFC 5424: the note as base64, so that `base64 -d` gives the file that `verify --checkpoint` takes.
fn message(note: &str, now: OffsetDateTime) -> String {
    let time = super::stream::syslog_time(now);
    let pid = std::process::id();
    let mut lines = note.lines();
    let (origin, size) = (lines.next().unwrap_or("-"), lines.next().unwrap_or("-"));
    let note = STANDARD.encode(note);
    format!("<{PRIORITY}>1 {time} - gatebook {pid} checkpoint - origin={origin} size={size} note={note}")
}

fn send(syslog: &Syslog, message: &str) -> io::Result<()> {
    match syslog {
        Syslog::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(SYSLOG_DEADLINE))?;
            socket.send_to(message.as_bytes(), path).map(drop)
        }
        Syslog::Udp(address) => {
            let target = std::net::ToSocketAddrs::to_socket_addrs(address.as_str())?
                .next()
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
            let any = if target.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_write_timeout(Some(SYSLOG_DEADLINE))?;
            socket.send_to(message.as_bytes(), target).map(drop)
        }
    }
}

/// Runs a command with the note as its input, and ends it at the deadline.
fn run(command: &[String], note: &str, deadline: Duration) -> io::Result<()> {
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // A note is shorter than a pipe's buffer, so this cannot wait for a command that does not read.
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(note.as_bytes()));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long and was ended"));
        }
        std::thread::sleep(COMMAND_POLL);
    };
    if status.success() {
        // One that needs no input may close it early.
        return written
            .or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) });
    }
    let mut said = Vec::new();
    if let Some(errors) = child.stderr.take() {
        errors.take(SAID_BYTES_MAX).read_to_end(&mut said)?;
    }
    Err(io::Error::other(format!("{status}: {}", String::from_utf8_lossy(&said).trim().escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &str = "gw.example/ledger\n7\nq83v\n\n\u{2014} gw.example/ledger AAAA\n";

    #[test]
    fn a_checkpoint_reaches_syslog_as_one_line_that_gives_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let message = message(NOTE, OffsetDateTime::UNIX_EPOCH);
        send(&Syslog::Unix(path), &message).unwrap();
        send(&Syslog::Udp(udp.local_addr().unwrap().to_string()), &message).unwrap();
        let mut buffer = [0; 2000];
        let length = socket.recv(&mut buffer).unwrap();
        let got = std::str::from_utf8(&buffer[..length]).unwrap().to_owned();
        let length = udp.recv(&mut buffer).unwrap();
        assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), got);
        assert!(got.starts_with("<109>1 1970-01-01T00:00:00.000000Z - gatebook "), "{got}");
        assert!(!got.contains('\n'));
        let encoded = got.rsplit_once("note=").unwrap().1;
        assert_eq!(STANDARD.decode(encoded).unwrap(), NOTE.as_bytes());
    }

    #[test]
    fn a_command_gets_the_note_and_is_ended_at_its_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        let words = |script: String| vec!["sh".to_owned(), "-c".to_owned(), script];
        run(&words(format!("cat > {}", kept.display())), NOTE, COMMAND_DEADLINE).unwrap();
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), NOTE);
        let error = run(&words("echo no room >&2; exit 3".into()), NOTE, COMMAND_DEADLINE).unwrap_err();
        assert!(error.to_string().contains("no room"), "{error}");
        let error = run(&words("exec sleep 600".into()), NOTE, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

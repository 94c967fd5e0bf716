//! The witness's socket: a thread a connection, few of them, each request with a deadline.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gatebook_ledger::text::line;
use gatebook_ledger::witness::{Answer, REQUEST_BYTES_MAX, Witness};

use super::http::{self, Head, NoRequest};

/// So many connections at once; a witness has few clients, and each says little.
const CONNECTIONS_MAX: usize = 64;
/// How long a request may take, from its first byte or from the connection's opening to its last byte.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long an answer may take to be taken.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
/// So many requests on one connection; then the client opens another.
const REQUESTS_MAX: usize = 1000;
/// How long to pause when no connection can be taken: no file is free, most often.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const SIZE: &str = "text/x.tlog.size";

/// A bound socket.
pub(super) struct Server {
    listener: TcpListener,
}

impl Server {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Server> {
        let listener = TcpListener::bind(address)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
        Ok(Server { listener })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the process ends. What is remembered is durable at any moment, so nothing is to be tidied up.
    pub(super) fn run(&self, witness: &Witness) -> ! {
        let open = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            loop {
                let Ok((stream, peer)) = self.listener.accept() else {
                    std::thread::sleep(ACCEPT_PAUSE);
                    continue;
                };
                if open.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS_MAX {
                    open.fetch_sub(1, Ordering::AcqRel);
                    continue;
                }
                let open = &open;
                let spawned = std::thread::Builder::new().spawn_scoped(scope, move || {
                    let _place = Place(open);
                    converse(witness, stream, peer);
                });
                if spawned.is_err() {
                    open.fetch_sub(1, Ordering::AcqRel);
                }
            }
        })
    }
}

/// One of the places for connections; given back also where a thread panics.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A stream whose reads end by a deadline, however slowly the bytes come.
struct Until<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut stream = self.stream;
        stream.read(into)
    }
}

fn converse(witness: &Witness, stream: TcpStream, peer: SocketAddr) {
    if stream.set_write_timeout(Some(ANSWER_WAIT_MAX)).is_err() || stream.set_nodelay(true).is_err() {
        return;
    }
    let mut buffer = Vec::new();
    for _ in 0..REQUESTS_MAX {
        let mut reader = Until { stream: &stream, deadline: Instant::now() + REQUEST_WAIT_MAX };
        let mut writer = &stream;
        let request = http::read_head(&mut reader, &mut buffer).and_then(|head| {
            if head.body_bytes > REQUEST_BYTES_MAX {
                return Err(NoRequest::Refused("413 Content Too Large"));
            }
            let body = http::read_body(&mut reader, &mut buffer, head.body_bytes)?;
            Ok((head, body))
        });
        let answered = match request {
            Ok((head, body)) => {
                let (status, kind, text) = respond(witness, &head, &body, peer);
                http::answer(&mut writer, status, kind, &text, head.keeps).is_ok() && head.keeps
            }
            Err(NoRequest::Refused(status)) => {
                drop(http::answer(&mut writer, status, TEXT, b"", false));
                // The rest of what was refused is not read; a reset must not take the answer with it.
                drop(stream.shutdown(Shutdown::Write));
                false
            }
            Err(NoRequest::Closed | NoRequest::Failed) => false,
        };
        if !answered {
            return;
        }
    }
}

fn respond(
    witness: &Witness,
    head: &Head,
    body: &[u8],
    peer: SocketAddr,
) -> (&'static str, &'static str, Vec<u8>) {
    match (head.method.as_str(), head.path.as_str()) {
        ("POST", "/add-checkpoint") => {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            match witness.add_checkpoint(body, since.as_secs()) {
                Ok(answer) => told(answer, peer),
                Err(error) => failed(&error),
            }
        }
        ("GET", path) if path.starts_with("/checkpoint/") => {
            match witness.latest(path.trim_start_matches("/checkpoint/")) {
                Ok(Some(note)) => ("200 OK", TEXT, note),
                Ok(None) => ("404 Not Found", TEXT, b"no checkpoint of such a log\n".to_vec()),
                Err(error) => failed(&error),
            }
        }
        (_, "/add-checkpoint") => ("405 Method Not Allowed", TEXT, b"use POST\n".to_vec()),
        _ => ("404 Not Found", TEXT, b"no such path\n".to_vec()),
    }
}

fn told(answer: Answer, peer: SocketAddr) -> (&'static str, &'static str, Vec<u8>) {
    let (status, kind, body) = match answer {
        Answer::Cosigned(line) => return ("200 OK", TEXT, line.into_bytes()),
        Answer::Malformed(why) => ("400 Bad Request", TEXT, format!("{why}\n")),
        Answer::Forbidden => ("403 Forbidden", TEXT, "no trusted key signed this checkpoint\n".to_owned()),
        Answer::Unknown => ("404 Not Found", TEXT, "this log is not known here\n".to_owned()),
        Answer::Conflict(size) => ("409 Conflict", SIZE, format!("{size}\n")),
        Answer::Inconsistent => {
            ("422 Unprocessable Entity", TEXT, "the proof does not lead to this checkpoint\n".to_owned())
        }
    };
    eprintln!("{peer}: {status}: {}", line(body.trim_end()));
    (status, kind, body.into_bytes())
}

/// The witness cannot remember, so it cosigns nothing.
fn failed(error: &io::Error) -> (&'static str, &'static str, Vec<u8>) {
    eprintln!("gatebook-ledger: witness: {}", line(&error.to_string()));
    ("500 Internal Server Error", TEXT, b"the witness cannot write its memory\n".to_vec())
}

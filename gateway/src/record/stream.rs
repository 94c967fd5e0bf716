//! Every event, live and with its sequence number, to a file or to syslog: at least once.
//!
//! A thread for each receiver reads the ledger behind the writer, as any auditor does, and only what is durable. How far it
//! came stands in a file of its own, so a receiver that is slow, dead or new gets everything from there on, and no session
//! ever waits for it. What was sent when the gateway stopped may be sent again: a receiver tells doubles and gaps by `seq`.
//!
//! What a newcomer gets wrong: UDP loses what it likes. It is there for daemons that take nothing else; the gap then shows by
//! its numbers.

use std::fs;
use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gatebook_ledger::entry::Entry;
use gatebook_ledger::reader::{self, Item, Place};
use gatebook_ledger::{Directory, event, text};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Shared;
use crate::config::{LedgerConfig, StreamConfig, StreamTo};

/// How often it looks for more.
const REST: Duration = Duration::from_millis(100);
/// How long it waits after a failure; it grows up to the most.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The most events, and about the most bytes, that are sent before the cursor moves.
const BATCH_EVENTS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How long connecting, and each write, may take.
const SEND_DEADLINE: Duration = Duration::from_secs(10);
/// The longest datagram that is sent with its payload; longer events go without.
const DATAGRAM_BYTES_MAX: usize = 60_000;
/// `<109>`: facility 13, log audit, at severity 5, notice (RFC 5424, section 6.2.1).
const PRIORITY: u8 = 13 * 8 + 5;

/// Starts a thread for each receiver. They end with the recorder.
///
/// # Errors
/// Of the system.
pub(super) fn start(config: &LedgerConfig, streams: &[StreamConfig], shared: &Arc<Shared>) -> io::Result<()> {
    for stream in streams {
        let folder = config.path.with_extension("streams");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let streamer = Streamer {
            ledger: config.path.clone(),
            to: stream.to.clone(),
            name: stream.name.clone(),
            cursor: folder.join(&stream.name),
            shared: shared.clone(),
            connection: None,
        };
        std::thread::Builder::new().name("stream".into()).spawn(move || streamer.run())?;
    }
    Ok(())
}

struct Streamer {
    ledger: PathBuf,
    to: StreamTo,
    name: String,
    cursor: PathBuf,
    shared: Arc<Shared>,
    connection: Option<TcpStream>,
}

/// How far a receiver has everything: the next event's number, and a place that is not behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cursor {
    next: u64,
    place: Option<Place>,
}

/// What is sent in one go.
#[derive(Default)]
struct Batch {
    lines: Vec<Line>,
    bytes: usize,
    after: Cursor,
}

/// One event: as JSON, and without its payload where that makes it too long.
struct Line {
    time: String,
    json: String,
    short: Option<String>,
}

impl Streamer {
    fn run(mut self) {
        let mut cursor = match self.load() {
            Ok(cursor) => cursor,
            Err(error) => {
                let path = self.cursor.display();
                tracing::error!(stream = self.name, %path, %error, "stream: its cursor cannot be read; everything is sent again");
                Cursor::default()
            }
        };
        let mut pause = PAUSE_MIN;
        let mut told = String::new();
        while !self.stopping() {
            match self.step(cursor) {
                Ok(after) if after == cursor => self.rest(REST),
                Ok(after) => {
                    cursor = after;
                    (pause, told) = (PAUSE_MIN, String::new());
                }
                Err(error) => {
                    self.connection = None;
                    let error = error.to_string();
                    if error != told {
                        tracing::error!(stream = self.name, %error, "stream: events wait until its receiver is back; recording goes on");
                        told = error;
                    }
                    self.rest(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire)
    }

    fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.stopping() {
            std::thread::sleep(REST.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Sends what came since, and moves the cursor behind it.
    fn step(&mut self, from: Cursor) -> io::Result<Cursor> {
        let durable = self.shared.durable.load(Ordering::Acquire);
        if from.next >= durable {
            return Ok(from);
        }
        let batch = self.gather(from, durable)?;
        if batch.after == from {
            return Ok(from);
        }
        self.send(&batch)?;
        // If we stop here, the batch is sent again.
        self.store(batch.after)?;
        Ok(batch.after)
    }

    fn gather(&self, from: Cursor, durable: u64) -> io::Result<Batch> {
        let ledger = Directory::open(&self.ledger)?;
        let mut batch = Batch { after: from, ..Batch::default() };
        reader::visit(&ledger, from.place, |item| {
            let (place, entry, payload) = match item {
                Item::Entry { place, entry, payload } => (place, entry, payload),
                Item::Broken { unfinished: true, .. } => return ControlFlow::Break(()),
                // The number that is missing tells it; the gateway's own verification raises the alarm.
                Item::Broken { .. } => return ControlFlow::Continue(()),
            };
            let seq = entry.header.seq;
            if seq < from.next {
                return ControlFlow::Continue(());
            }
            if seq >= durable || batch.lines.len() >= BATCH_EVENTS_MAX || batch.bytes >= BATCH_BYTES_MAX {
                return ControlFlow::Break(());
            }
            let line = Line::new(&entry, payload);
            batch.bytes += line.json.len();
            batch.lines.push(line);
            batch.after = Cursor { next: seq + 1, place: Some(place) };
            ControlFlow::Continue(())
        })?;
        Ok(batch)
    }

    fn send(&mut self, batch: &Batch) -> io::Result<()> {
        match &self.to {
            StreamTo::File(path) => {
                // Opened anew each time, so that it can be moved away.
                let mut file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
                let mut text = Vec::with_capacity(batch.bytes + batch.lines.len());
                for line in &batch.lines {
                    text.extend_from_slice(line.json.as_bytes());
                    text.push(b'\n');
                }
                file.write_all(&text)?;
                file.sync_data()
            }
            StreamTo::Tcp(address) => {
                if self.connection.is_none() {
                    let target = target(address)?;
                    let stream = TcpStream::connect_timeout(&target, SEND_DEADLINE)?;
                    stream.set_write_timeout(Some(SEND_DEADLINE))?;
                    self.connection = Some(stream);
                }
                let Some(stream) = &mut self.connection else { return Ok(()) };
                // RFC 6587, section 3.4.1: each message behind its length.
                let mut framed = Vec::with_capacity(batch.bytes + batch.lines.len() * 96);
                for line in &batch.lines {
                    let message = line.syslog(&line.json);
                    framed.extend_from_slice(format!("{} {message}", message.len()).as_bytes());
                }
                stream.write_all(&framed)
            }
            StreamTo::Udp(address) => {
                let target = target(address)?;
                let socket = UdpSocket::bind(if target.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
                socket.set_write_timeout(Some(SEND_DEADLINE))?;
                batch
                    .lines
                    .iter()
                    .try_for_each(|line| socket.send_to(line.datagram().as_bytes(), target).map(drop))
            }
            StreamTo::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(SEND_DEADLINE))?;
                batch
                    .lines
                    .iter()
                    .try_for_each(|line| socket.send_to(line.datagram().as_bytes(), path).map(drop))
            }
        }
    }

    /// `next segment offset`, in one line; none where there is no file yet.
    fn load(&self) -> io::Result<Cursor> {
        let text = match fs::read_to_string(&self.cursor) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Cursor::default()),
            Err(error) => return Err(error),
        };
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it is no cursor");
        let numbers: Vec<u64> =
            text.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        let [next, segment, offset] = numbers[..] else { return Err(wrong()) };
        Ok(Cursor { next, place: Some(Place { segment, offset }) })
    }

    fn store(&self, cursor: Cursor) -> io::Result<()> {
        let Some(place) = cursor.place else { return Ok(()) };
        // No name begins with a dot.
        let temporary = self.cursor.with_file_name(format!(".{}", self.name));
        fs::write(&temporary, format!("{} {} {}\n", cursor.next, place.segment, place.offset))?;
        fs::rename(&temporary, &self.cursor)
    }
}

impl Line {
    fn new(entry: &Entry<'_>, payload: Option<&[u8]>) -> Line {
        let header = &entry.header;
        let instant = OffsetDateTime::from_unix_timestamp_nanos(header.time_ns.into()).ok();
        let time =
            instant.and_then(|instant| instant.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned());
        let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap_or(Value::Null);
        let mut object = json!({
            "seq": header.seq,
            "time": time,
            "event": event::kind_name(header.kind),
            "kind": header.kind,
            "session": header.session,
            "body": parse(entry.body),
        });
        let written = |object: &Value| text::json(object).unwrap_or_default();
        let without = written(&object);
        match payload {
            Some(b"") => {}
            Some(payload) => object["payload"] = parse(payload),
            None => object["payload"] = Value::Null,
        }
        let json = written(&object);
        let short = (json.len() > DATAGRAM_BYTES_MAX).then_some(without);
        Line { time, json, short }
    }

    fn syslog(&self, json: &str) -> String {
        format!("<{PRIORITY}>1 {} - gatebook {} event - {json}", self.time, std::process::id())
    }

    fn datagram(&self) -> String {
        self.syslog(self.short.as_deref().unwrap_or(&self.json))
    }
}

fn target(address: &str) -> io::Result<std::net::SocketAddr> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    address.to_socket_addrs()?.next().ok_or_else(none)
}

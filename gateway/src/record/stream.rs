//! Every event, live and with its sequence number, to a file or to syslog: at least once.
//!
//! A thread for each receiver reads the ledger behind the writer, as any auditor does, and only what is durable. How far a
//! receiver surely has everything stands in a file of its own, so one that is slow, dead or new gets everything from there on,
//! and no session ever waits for it. A receiver tells doubles and gaps by `seq`.
//!
//! What a newcomer gets wrong: what was sent is not what was received. [`receiver`] knows how far a receiver has it, and when it
//! is gone; then everything from there on is sent again.

mod line;
mod receiver;

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gatebook_ledger::Directory;
use gatebook_ledger::reader::{self, Item, Place};

use self::line::Line;
pub(super) use self::line::syslog_time;
use self::receiver::Receiver;
use super::Shared;
use crate::config::{LedgerConfig, StreamConfig};

/// How often it looks for more.
const REST: Duration = Duration::from_millis(100);
/// How long it waits after a failure; it grows up to the most.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The most events, and about the most bytes, that are sent in one go.
const BATCH_EVENTS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How far one receiver was sent everything.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) name: String,
    /// The number of the next event.
    pub(super) next: AtomicU64,
}

/// Starts a thread for each receiver. They end with the recorder.
///
/// # Errors
/// Of the system.
pub(super) fn start(config: &LedgerConfig, streams: &[StreamConfig], shared: &Arc<Shared>) -> io::Result<()> {
    for stream in streams {
        let folder = config.path.with_extension("streams");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let progress = Arc::new(Progress { name: stream.name.clone(), next: AtomicU64::new(0) });
        shared.streams.lock().push(progress.clone());
        let streamer = Streamer {
            ledger: config.path.clone(),
            receiver: Receiver::new(stream),
            cursor: folder.join(&stream.name),
            shared: shared.clone(),
            progress,
        };
        std::thread::Builder::new().name("stream".into()).spawn(move || streamer.run())?;
    }
    Ok(())
}

struct Streamer {
    ledger: PathBuf,
    receiver: Receiver,
    cursor: PathBuf,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
}

/// A place between two events: the next one's number, and a place in the ledger that is not behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cursor {
    next: u64,
    place: Option<Place>,
}

/// How far a receiver is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    /// Up to here it was sent everything.
    sent: Cursor,
    /// Up to here it surely has everything; this is what the file says.
    settled: Cursor,
}

/// What is sent in one go.
struct Batch {
    lines: Vec<Line>,
    bytes: usize,
    after: Cursor,
}

impl Streamer {
    fn run(mut self) {
        let mut at = self.begin();
        let mut pause = PAUSE_MIN;
        let mut told = String::new();
        while !self.stopping() {
            match self.step(at) {
                Ok(after) if after == at => self.rest(REST),
                Ok(after) => {
                    at = after;
                    (pause, told) = (PAUSE_MIN, String::new());
                }
                Err(error) => {
                    self.receiver.close();
                    at.sent = at.settled;
                    let error = error.to_string();
                    if error != told {
                        tracing::error!(stream = self.progress.name, %error, "stream: events wait until its receiver is back; recording goes on");
                        told = error;
                    }
                    self.rest(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
            self.progress.next.store(at.sent.next, Ordering::Relaxed);
        }
    }

    /// Where a former run left off.
    fn begin(&self) -> Position {
        let name = &*self.progress.name;
        let path = self.cursor.display();
        let cursor = match self.load() {
            // What is durable is never taken back, so this one was another ledger's.
            Ok(cursor) if cursor.next > self.durable() => {
                tracing::error!(stream = name, %path, "stream: its cursor is behind the ledger's end; everything is sent again");
                Cursor::default()
            }
            Ok(cursor) => cursor,
            Err(error) => {
                tracing::error!(stream = name, %path, %error, "stream: its cursor cannot be read; everything is sent again");
                Cursor::default()
            }
        };
        Position { sent: cursor, settled: cursor }
    }

    fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
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

    /// Sends what came since. What a receiver was sent that is gone now, and may not have taken it, is sent again.
    fn step(&mut self, at: Position) -> io::Result<Position> {
        let from = if self.receiver.is_gone() { at.settled } else { at.sent };
        let durable = self.durable();
        if from.next >= durable {
            return Ok(Position { sent: from, ..at });
        }
        let batch = self.gather(from, durable)?;
        if batch.lines.is_empty() {
            return Ok(Position { sent: from, ..at });
        }
        let settled = self.receiver.send(&batch)?.unwrap_or(at.settled);
        // If we stop here, what was settled is sent again.
        if settled != at.settled {
            self.store(settled)?;
        }
        Ok(Position { sent: batch.after, settled })
    }

    fn gather(&self, from: Cursor, durable: u64) -> io::Result<Batch> {
        let ledger = Directory::open(&self.ledger)?;
        let mut batch = Batch { lines: Vec::new(), bytes: 0, after: from };
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
            batch.bytes += line.len();
            batch.lines.push(line);
            batch.after = Cursor { next: seq + 1, place: Some(place) };
            ControlFlow::Continue(())
        })?;
        Ok(batch)
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
        let temporary = self.cursor.with_file_name(format!(".{}", self.progress.name));
        fs::write(&temporary, format!("{} {} {}\n", cursor.next, place.segment, place.offset))?;
        fs::rename(&temporary, &self.cursor)
    }
}

//! What keeps the ledger usable, beside the writer and never in its way: the index is taken further, and old segments go to
//! the archive before they fill the disk.
//!
//! It reads what is on the disk, as any auditor does, so it takes no lock of the writer's and nobody waits for it. The index
//! is open only while it is taken further: in between, `gatebook-ledger find` has it.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gatebook_ledger::{Directory, archive, event, index};

use super::Shared;
use crate::config::LedgerConfig;

/// How long it rests between two rounds.
const REST: Duration = Duration::from_secs(60);
/// How often it says how far a long round is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Starts the thread. It ends with the recorder, or one batch of the index later.
///
/// # Errors
/// Of the system.
pub(super) fn start(config: &LedgerConfig, shared: Arc<Shared>) -> io::Result<()> {
    let upkeep = Upkeep {
        path: config.path.clone(),
        archive: config.archive.clone(),
        keep_bytes: config.keep_bytes,
        shared,
        checked: false,
        told: String::new(),
    };
    std::thread::Builder::new().name("ledger-upkeep".into()).spawn(move || upkeep.run()).map(drop)
}

struct Upkeep {
    path: PathBuf,
    archive: Option<PathBuf>,
    keep_bytes: u64,
    shared: Arc<Shared>,
    /// Whether the index was read through once since the start.
    checked: bool,
    /// What was complained about last, so that it is said once.
    told: String,
}

impl Upkeep {
    fn run(mut self) {
        while !self.stopping() {
            let result = self.take_index_further().and_then(|()| self.archive());
            match result {
                Ok(()) => self.told.clear(),
                Err(error) => {
                    let error = error.to_string();
                    if error != self.told {
                        tracing::error!(path = %self.path.display(), %error, "ledger: its upkeep failed; it is tried again, and recording goes on");
                        self.told = error;
                    }
                }
            }
            let mut stopped = self.shared.stopped.lock();
            self.shared.stopped_changed.wait_while_for(&mut stopped, |stopped| !*stopped, REST);
        }
    }

    fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire)
    }

    fn take_index_further(&mut self) -> io::Result<()> {
        let ledger = Directory::open(&self.path)?;
        let folder = self.path.join(index::NAME);
        let (mut index, why) = match index::open(&folder, &ledger, event::words) {
            Ok(opened) => opened,
            // An auditor reads through it; the next round comes soon.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(why) = why {
            tracing::warn!(path = %folder.display(), why, "ledger: the index is made anew; the old one is kept as index.broken");
        } else if !self.checked && !index.is_whole()? {
            tracing::warn!(path = %folder.display(), "ledger: the index is not what was put into it; it is made anew");
            drop(index);
            index::move_aside(&folder)?;
            index = index::open(&folder, &ledger, event::words)?.0;
        }
        self.checked = true;
        let mut told = Instant::now();
        index.catch_up(&ledger, &mut |covered| {
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                tracing::info!(entries = covered.entries, "ledger: the index is being taken further");
            }
            if self.stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(())
    }

    fn archive(&self) -> io::Result<()> {
        let Some(place) = &self.archive else { return Ok(()) };
        let ledger = Directory::open(&self.path)?;
        let archived = archive::archive(&ledger, place, self.keep_bytes)?;
        if archived.segments > 0 {
            let (segments, bytes) = (archived.segments, archived.bytes);
            tracing::info!(segments, bytes, place = %place.display(), "ledger: old segments went to the archive");
        }
        Ok(())
    }
}

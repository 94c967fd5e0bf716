//! The writer's thread, and how it opens the ledger: the first time, and again after a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use gatebook_ledger::{Kind, Limits, Origin, Storage, SystemSalts, Writer, keys};
use gatebook_ledger::{event, reader};
use gatebook_wire::protocol::EndReason;

use super::anchor::Anchors;
use super::left::{Left, left};
use super::revocations::Revocations;
use super::{Item, Shared, Slot, StartError, now_ns};
use crate::config::LedgerConfig;
use crate::session::{Signal, StayOut, Ticket};
use crate::{approval, delegation};

/// Room on the ledger's disk that is kept for the last words: the close of every session that a full disk cut off.
const RESERVE_BYTES: usize = 4 << 20;

/// The name of the file that keeps it.
const RESERVE: &str = "reserve";

/// How long a record that nobody waits for may lie in memory.
const UNWANTED_WAIT_MAX: Duration = Duration::from_millis(100);

/// How long the gateway waits at its end for the last checkpoint to be carried away.
const ANCHORS_DEADLINE: Duration = Duration::from_secs(5);

/// How long to wait before the ledger is opened again after it failed.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// What was found when the ledger was opened.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// How many entries there were.
    pub(crate) entries: u64,
    /// How many sessions a crash had left open.
    pub(crate) abandoned: usize,
    /// Whether a torn tail was cut off.
    pub(crate) cut: bool,
    /// Who stays out.
    revocations: Revocations,
    left: Left,
}

impl Found {
    /// Those who were revoked and stay out.
    pub(crate) fn revoked(&self) -> &StayOut {
        self.revocations.stay_out()
    }

    /// Delegations that may still live, and requests made ahead of time of which something can still become.
    pub(crate) fn take_left(&mut self) -> (Vec<delegation::Kept>, Vec<approval::Kept>) {
        let Left { delegations, requests } = std::mem::take(&mut self.left);
        (delegations, requests)
    }
}

/// What the ledger's past says that the gateway goes on with.
#[derive(Default)]
struct Past {
    /// Of each session that a crash left open, the commands that have no outcome.
    without_outcome: BTreeMap<u64, BTreeSet<u64>>,
}

impl Past {
    /// A command is without outcome until its outcome comes.
    fn note(&mut self, session: u64, event: Option<event::Decoded<'_>>) {
        let commands = self.without_outcome.entry(session).or_default();
        match event {
            Some(event::Decoded::Command(body, _)) => drop(commands.insert(body.request)),
            Some(event::Decoded::Outcome(body, _)) => drop(commands.remove(&body.request)),
            _ => {}
        }
    }
}

/// A time in which nothing could be recorded.
struct Gap {
    from_ms: u64,
    lost: u64,
    sessions: u64,
}

/// Opens the ledger, the first time and after a failure.
pub(super) struct Opener {
    config: LedgerConfig,
    storage: Arc<dyn Storage>,
}

impl Opener {
    pub(super) fn new(config: LedgerConfig, storage: Arc<dyn Storage>) -> Opener {
        Opener { config, storage }
    }

    pub(super) fn open(&self) -> Result<(Writer, Found), StartError> {
        let path = &self.config.path;
        let loaded = keys::load_or_create(&self.config.keys)
            .map_err(|error| StartError::Keys { path: self.config.keys.clone(), error: error.to_string() })?;
        let failed = |error| StartError::Open { path: path.clone(), error };
        let exists = self
            .storage
            .list("")
            .map_err(|error| failed(error.into()))?
            .iter()
            .any(|name| name == "ledger.toml");
        let salts = || Box::new(SystemSalts::default());
        let (mut found, mut past) = (Found::default(), Past::default());
        let mut writer = if exists {
            let opened =
                Writer::open(self.storage.clone(), Box::new(loaded), salts(), self.limits(), now_ns());
            let (writer, recovery) = opened.map_err(failed)?;
            found.entries = recovery.entries;
            found.abandoned = recovery.open_sessions.len();
            found.cut = recovery.cut.is_some();
            past = self.past(&recovery.open_sessions).map_err(|error| failed(error.into()))?;
            found.revocations =
                Revocations::read(self.storage.as_ref(), &writer).map_err(|error| failed(error.into()))?;
            found.left = left(self.storage.as_ref(), &writer, SystemTime::now())
                .map_err(|error| failed(error.into()))?;
            writer
        } else {
            let origin = Origin::new(&self.config.origin)
                .map_err(|_| StartError::Origin(self.config.origin.clone()))?;
            Writer::create(self.storage.clone(), &origin, Box::new(loaded), salts(), self.limits(), now_ns())
                .map_err(failed)?
        };
        close_abandoned(&mut writer, &past.without_outcome)
            .map_err(|error| failed(gatebook_ledger::OpenError::Storage(std::io::Error::other(error))))?;
        Ok((writer, found))
    }

    /// Keeps room for the last words; tells whether there was any.
    pub(super) fn keep_reserve(&self) -> bool {
        let path = self.config.path.join(RESERVE);
        let kept = || {
            if std::fs::metadata(&path).is_ok_and(|file| file.len() == RESERVE_BYTES as u64) {
                return Ok(());
            }
            let mut file = std::fs::File::create(&path)?;
            // Written, not only claimed: some filesystems give no room for zeros that nobody wrote.
            std::io::Write::write_all(&mut file, &vec![0xa5; RESERVE_BYTES])?;
            file.sync_all()
        };
        let result: std::io::Result<()> = kept();
        if result.is_err() {
            self.release_reserve();
        }
        result.is_ok()
    }

    /// Gives the room up.
    fn release_reserve(&self) {
        let _ = std::fs::remove_file(self.config.path.join(RESERVE));
    }

    fn limits(&self) -> Limits {
        let epoch_ns = u64::try_from(self.config.epoch.as_nanos()).unwrap_or(u64::MAX);
        Limits { epoch_ns, ..Limits::default() }
    }

    /// The commands without outcome of these sessions. An error where the ledger cannot be read whole.
    fn past(&self, open: &[u64]) -> std::io::Result<Past> {
        let mut past = Past::default();
        if open.is_empty() {
            return Ok(past);
        }
        let mut damaged = false;
        reader::visit(self.storage.as_ref(), None, |item| {
            match item {
                reader::Item::Entry { entry, .. } => {
                    let (kind, session) = (entry.header.kind, entry.header.session);
                    if (kind == event::COMMAND || kind == event::OUTCOME)
                        && open.binary_search(&session).is_ok()
                    {
                        past.note(session, event::decode(kind, entry.body, None).ok());
                    }
                }
                reader::Item::Broken { .. } => damaged = true,
            }
            if damaged { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if damaged {
            let message = "a part of it is damaged, so which commands have no outcome is not known; look with gatebook-ledger verify";
            return Err(std::io::Error::other(message));
        }
        Ok(past)
    }
}

/// Closes the sessions that a crash or a failure left open, each command without outcome first: how it came out
/// nobody knows, and the ledger says so.
fn close_abandoned(
    writer: &mut Writer,
    without_outcome: &BTreeMap<u64, BTreeSet<u64>>,
) -> Result<(), gatebook_ledger::WriteError> {
    let closed = event::SessionClosedBody { reason: "crash".into(), ..Default::default() };
    for session in writer.open_sessions() {
        for request in without_outcome.get(&session).into_iter().flatten() {
            let body = event::OutcomeBody {
                bytes: 0,
                duration_us: 0,
                ending: "unknown".into(),
                request: *request,
                rows: 0,
            };
            stage(writer, session, &body)?;
        }
        stage(writer, session, &closed)?;
    }
    writer.write()?;
    writer.sync().map(drop)
}

/// Stages an event without payload.
fn stage<B: event::Body>(
    writer: &mut Writer,
    session: u64,
    body: &B,
) -> Result<(), gatebook_ledger::WriteError> {
    let mut json = Vec::new();
    event::encode(body, None, &mut json);
    let draft =
        gatebook_ledger::Draft { kind: B::KIND, time_ns: now_ns(), session, body: &json, payload: b"" };
    Ok(writer.stage(&draft).map(drop)?)
}

/// The writer's thread.
pub(super) struct Thread {
    shared: Arc<Shared>,
    opener: Opener,
    anchors: Option<Anchors>,
    revocations: Revocations,
    /// Why an order was refused, so that it is said once.
    refused_order: String,
    items: Vec<Item>,
    bytes: Vec<u8>,
}

/// Why the writer's loop ended.
enum Halt {
    Stopped,
    Failed(String),
}

impl Thread {
    pub(super) fn new(
        shared: Arc<Shared>,
        opener: Opener,
        anchors: Option<Anchors>,
        found: &Found,
    ) -> Thread {
        let revocations = found.revocations.clone();
        let refused_order = String::new();
        Thread { shared, opener, anchors, revocations, refused_order, items: Vec::new(), bytes: Vec::new() }
    }

    /// Writes until it is told to stop.
    pub(super) fn run(mut self, mut writer: Writer) {
        loop {
            match self.write(&mut writer) {
                Halt::Stopped => {
                    if let Err(error) = self.publish(&mut writer) {
                        tracing::error!(%error, "the ledger's last checkpoint was not written; what was acknowledged is there");
                    } else if let Err(error) = writer.close(now_ns()) {
                        tracing::error!(%error, "the ledger was not closed in good order; what was acknowledged is there");
                    }
                    if let Some(anchors) = &self.anchors {
                        anchors.finish(ANCHORS_DEADLINE);
                    }
                    *self.shared.stopped.lock() = true;
                    self.shared.stopped_changed.notify_all();
                    return;
                }
                Halt::Failed(error) => {
                    // What could not be written belongs to sessions that end now.
                    let mut gap = Gap { from_ms: now_ns() / 1_000_000, lost: self.drop_taken(), sessions: 0 };
                    self.shared.failed.store(true, Ordering::Release);
                    let sessions = self.shared.end_all();
                    gap.sessions = sessions as u64;
                    tracing::error!(
                        path = %self.opener.config.path.display(), %error, sessions,
                        "ledger: cannot write; these sessions ended and new ones are refused. Free space or mend the disk; the gateway resumes by itself"
                    );
                    drop(writer);
                    self.opener.release_reserve();
                    match self.reopen(gap) {
                        Some(reopened) => writer = reopened,
                        None => {
                            *self.shared.stopped.lock() = true;
                            self.shared.stopped_changed.notify_all();
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Opens the ledger again, and again until it can be written or the gateway stops.
    fn reopen(&mut self, mut gap: Gap) -> Option<Writer> {
        let mut told = String::new();
        loop {
            std::thread::sleep(REOPEN_PAUSE);
            self.take(Duration::ZERO);
            // What was queued belongs to sessions that have ended.
            gap.lost += self.drop_taken();
            if self.shared.stopping.load(Ordering::Acquire) {
                return None;
            }
            let opened =
                self.opener.open().map_err(|error| error.to_string()).and_then(|(mut writer, found)| {
                    record_gap(&mut writer, &gap).map_err(|error| error.to_string())?;
                    Ok((writer, found))
                });
            match opened {
                // The last words are written; without room for the next ones nothing more is begun.
                Ok(_) if !self.opener.keep_reserve() => {
                    let error = "no room to go on; free some space".to_owned();
                    if error != told {
                        tracing::error!(%error, "ledger: its sessions are closed, and new ones are refused");
                        told = error;
                    }
                }
                Ok((writer, found)) => {
                    self.revocations = found.revocations.clone();
                    self.shared.syncing_since.store(0, Ordering::Release);
                    self.shared.failed.store(false, Ordering::Release);
                    tracing::warn!(
                        entries = found.entries,
                        closed = found.abandoned,
                        "ledger: can be written again; sessions are taken"
                    );
                    return Some(writer);
                }
                Err(error) => {
                    if error != told {
                        tracing::error!(%error, "ledger: still cannot be opened");
                        told = error;
                    }
                }
            }
        }
    }

    fn write(&mut self, writer: &mut Writer) -> Halt {
        let mut next_checkpoint = Instant::now() + self.opener.config.checkpoint_interval;
        loop {
            self.take(UNWANTED_WAIT_MAX);
            let stopping = self.shared.stopping.load(Ordering::Acquire) && self.items.is_empty();
            if !self.items.is_empty()
                && let Err(error) = self.commit(writer)
            {
                return Halt::Failed(error.to_string());
            }
            if stopping {
                return Halt::Stopped;
            }
            if let Err(error) = writer.rotate_if_due(now_ns()) {
                return Halt::Failed(error.to_string());
            }
            if Instant::now() >= next_checkpoint {
                next_checkpoint = Instant::now() + self.opener.config.checkpoint_interval;
                if let Err(error) = self.take_orders(writer).and_then(|()| self.publish(writer)) {
                    return Halt::Failed(error);
                }
            }
        }
    }

    /// Takes what is queued, after waiting for at most `pause` for somebody to want it.
    fn take(&mut self, pause: Duration) {
        let mut queue = self.shared.queue.lock();
        if !queue.wanted && !self.shared.stopping.load(Ordering::Acquire) {
            self.shared.filled.wait_for(&mut queue, pause);
        }
        queue.wanted = false;
        std::mem::swap(&mut self.items, &mut queue.items);
        std::mem::swap(&mut self.bytes, &mut queue.bytes);
        let starved = std::mem::take(&mut queue.starved);
        drop(queue);
        self.shared.queued_bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        starved.iter().filter_map(Weak::upgrade).for_each(|slot| slot.signal.wake());
    }

    /// Forgets what was taken; gives how many records that were.
    fn drop_taken(&mut self) -> u64 {
        let taken = self.items.len() as u64;
        self.items.clear();
        self.bytes.clear();
        taken
    }

    /// Stages, writes and syncs what was taken, and tells the sessions.
    fn commit(&mut self, writer: &mut Writer) -> Result<(), gatebook_ledger::WriteError> {
        let since = u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.shared.syncing_since.store(since, Ordering::Release);
        if let Some((list, body_bytes)) = self.revocations.list_for(writer.segment()) {
            let (body, payload) = list.split_at(body_bytes);
            let (kind, time_ns) = (event::REVOKED, now_ns());
            writer.stage(&gatebook_ledger::Draft { kind, time_ns, session: 0, body, payload })?;
        }
        let mut at = 0;
        for item in &mut self.items {
            let (body, payload) = self.bytes[at..at + item.bytes].split_at(item.body_bytes);
            at += item.bytes;
            self.revocations.note(item.kind, body, payload);
            let session = match (&item.slot, item.kind) {
                (Some(slot), Kind::SESSION_OPENED) => {
                    slot.session.store(writer.next_session(), Ordering::Release);
                    writer.next_session()
                }
                (Some(slot), _) => slot.session.load(Ordering::Acquire),
                (None, _) => 0,
            };
            // What comes for a session that was closed has nowhere to go: a cancel request that lost the race.
            if session != 0 && item.kind != Kind::SESSION_OPENED && writer.session_entries(session).is_none()
            {
                // It is not there, so nobody is told that it is.
                if let Some(slot) = item.slot.take() {
                    slot.signal.end(EndReason::LedgerUnavailable);
                }
                continue;
            }
            writer.stage(&gatebook_ledger::Draft {
                kind: item.kind,
                time_ns: item.time_ns,
                session,
                body,
                payload,
            })?;
        }
        writer.write()?;
        self.tell(Signal::made_written);
        writer.sync()?;
        self.shared.syncing_since.store(0, Ordering::Release);
        self.tell(Signal::made_durable);
        self.shared.durable.store(writer.durable(), Ordering::Release);
        self.shared.entries.fetch_add(self.items.len() as u64, Ordering::Relaxed);
        self.drop_taken();
        Ok(())
    }

    /// Tells each session its last ticket of this batch.
    fn tell(&self, tell: impl Fn(&Signal, Ticket)) {
        let slots = self.items.iter().filter_map(|item| Some((item.slot.as_ref()?, item.ticket)));
        let mut last: Option<(&Arc<Slot>, Ticket)> = None;
        for (slot, ticket) in slots {
            match &mut last {
                Some((known, told)) if Arc::ptr_eq(known, slot) => *told = ticket,
                _ => {
                    if let Some((known, told)) = last.replace((slot, ticket)) {
                        tell(&known.signal, told);
                    }
                }
            }
        }
        if let Some((known, told)) = last {
            tell(&known.signal, told);
        }
    }

    /// Takes the root key's orders that were brought since the last checkpoint. One that is refused is told once, and changes
    /// nothing.
    fn take_orders(&mut self, writer: &mut Writer) -> Result<(), String> {
        loop {
            match writer.take_order(now_ns()) {
                Ok(true) => {
                    let number = writer.authority().orders;
                    tracing::warn!(
                        number,
                        "ledger: an order of the root key was taken; its keys are in force"
                    );
                }
                Ok(false) => {
                    self.refused_order.clear();
                    return Ok(());
                }
                Err(error) if writer.is_poisoned() => return Err(error.to_string()),
                Err(error) => {
                    let error = error.to_string();
                    if error != self.refused_order {
                        tracing::error!(%error, "ledger: an order was brought that cannot be taken; a restart would refuse it too");
                        self.refused_order = error;
                    }
                    return Ok(());
                }
            }
        }
    }

    fn publish(&self, writer: &mut Writer) -> Result<(), String> {
        let publication = writer.publish(now_ns()).map_err(|error| error.to_string())?;
        let Some(publication) = publication else { return Ok(()) };
        // Held while the files of one checkpoint are stored: who adds a cosignature finds them whole.
        let mut whole = self.shared.published.lock();
        publication.store(self.opener.storage.as_ref()).map_err(|error| error.to_string())?;
        *whole = Some(publication.note.clone());
        drop(whole);
        self.shared.newest.send_replace(Some(publication.note.as_str().into()));
        if let Some(anchors) = &self.anchors {
            anchors.hand(publication.note);
        }
        Ok(())
    }
}

/// Says in the ledger that there was a time in which nothing could be recorded.
fn record_gap(writer: &mut Writer, gap: &Gap) -> Result<(), gatebook_ledger::WriteError> {
    let Gap { from_ms, lost, sessions } = *gap;
    let body = event::GapBody { cause: "write_failed".into(), from_ms, lost, sessions };
    stage(writer, 0, &body)?;
    writer.write()?;
    writer.sync().map(drop)
}

#[cfg(test)]
mod tests {
    use gatebook_ledger::checkpoint::{Note, Vkey};
    use gatebook_ledger::orders::{Cause, Change, Order};
    use gatebook_ledger::signature::Role;
    use gatebook_ledger::{Keys as _, Memory};

    use super::*;
    use crate::record::Recorder;

    #[test]
    fn an_order_is_taken_while_the_gateway_runs_and_a_bad_one_stops_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoint_interval = Duration::from_millis(20);
        let config = LedgerConfig { checkpoint_interval, ..LedgerConfig::for_test(folder.path()) };
        let storage = Memory::new();
        let (recorder, _) = Recorder::over(&config, Arc::new(storage.clone())).expect("it starts");
        let origin = Origin::new(&config.origin).expect("an origin");
        let mut held = keys::load(&config.keys).expect("keys");
        let mut order = |number, named: Option<u32>| {
            let log_key = held.draw(Role::Log(number)).expect("a key");
            let change =
                Change { number: named.unwrap_or(number), cause: Cause::Rotated, overlap_s: 0, log_key };
            let order = Order::sign(&origin, change, &held, Role::Root(0), None).expect("an order");
            let path = config.keys.join(format!("ledger-order-{number}.json"));
            std::fs::write(path, order.body()).expect("it is brought");
            Vkey::log(&origin, log_key)
        };
        let until_signed_by = |key: &Vkey| {
            let deadline = Instant::now() + Duration::from_secs(60);
            let signed = || {
                let bytes = storage.bytes("checkpoint")?;
                Some(Note::parse(&bytes).ok()?.is_signed_by(key))
            };
            while signed() != Some(true) {
                assert!(Instant::now() < deadline, "{key} signs no checkpoint");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let first = order(1, None);
        until_signed_by(&first);
        // It says that it is the third, and comes second.
        order(2, Some(3));
        let size = || {
            let bytes = storage.bytes("checkpoint").unwrap_or_default();
            Note::parse(&bytes).map_or(0, |note| note.unverified().size)
        };
        let before = size();
        recorder.shared.push(None, &event::GatewayStoppedBody { reason: "test".into() }, None);
        let deadline = Instant::now() + Duration::from_secs(60);
        while size() <= before {
            assert!(Instant::now() < deadline, "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!recorder.refuses_sessions());
        until_signed_by(&first);
        recorder.stop(Duration::from_secs(30));
    }
}

//! The recorder: what sessions say is written into the ledger by one thread, many records with one write and one sync.
//!
//! This is the only place in the gateway that names the ledger. A session puts a record into a bounded queue and gets a ticket; once the
//! record is durable, the session's signal says so. Nothing is acknowledged that is not on the disk.
//!
//! If the ledger cannot be written, every session is told to end and new ones are refused. The writer is never asked again after a failure:
//! the ledger is opened anew, through its recovery, which also closes the sessions that were cut off; then the gateway serves again.

mod ahead;
mod anchor;
mod approval;
mod book;
mod handed;
mod left;
mod past;
mod revocations;
mod shown;
mod stream;
mod thread;
mod upkeep;
mod watch;
mod witness;

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gatebook_ledger::checkpoint::Vkey;
use gatebook_ledger::entry::BODY_BYTES_MAX;
use gatebook_ledger::event::{self, Body};
use gatebook_ledger::segment::PAYLOAD_BYTES_MAX;
use gatebook_ledger::{Directory, Kind, Storage};
use gatebook_wire::protocol::EndReason;
use parking_lot::{Condvar, Mutex};
use thiserror::Error;
use tokio::sync::watch::Sender;
use tokio::time::timeout;

pub(crate) use self::witness::is_witness_key;
use crate::config::{LedgerConfig, StreamConfig};
use crate::delegation::Delegation;
use crate::identity::{Principal, PrincipalKind};
use crate::policy::{Decision, PolicySet, Standing, Verdict};
use crate::session::{Day, Signal, Signals, Target, Ticket};

use anchor::Anchors;
pub(crate) use approval::{Answered, Asked, Broken, Used};
pub(crate) use book::{Book, CommandEntry, OutcomeEntry, Ruled};
pub(crate) use past::{Past, Sought};
pub(crate) use thread::Found;
use thread::{Opener, Thread};
use watch::Watch;

/// How many bytes of records may wait for the writer before sessions stop reading.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Why a record was not made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Unavailable {
    /// The ledger failed, or has not come back yet.
    #[error("the ledger cannot be written")]
    Failed,
    /// The disk took too long.
    #[error("the ledger's disk did not answer in time")]
    Deadline,
}

/// Why the recorder cannot start.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// The ledger cannot be opened.
    #[error("{path}: {error}")]
    Open {
        /// The ledger's folder.
        path: PathBuf,
        /// Why.
        error: gatebook_ledger::OpenError,
    },
    /// Its keys cannot be used.
    #[error("{path}: {error}")]
    Keys {
        /// The keys' folder.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// Its origin is no name.
    #[error("ledger.origin {0:?} is not a name that checkpoints can carry")]
    Origin(String),
    /// A witness cannot be asked.
    #[error("ledger.witness: {0}")]
    Witness(String),
    /// The system failed us.
    #[error("{path}: {error}")]
    System {
        /// What was touched.
        path: PathBuf,
        /// How.
        error: std::io::Error,
    },
}

/// The recorder of one gateway.
#[derive(Clone)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    storage: Arc<dyn Storage>,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    queued_bytes: AtomicUsize,
    failed: AtomicBool,
    refuses_sessions: AtomicBool,
    stopping: AtomicBool,
    stopped: Mutex<bool>,
    stopped_changed: Condvar,
    /// When the oldest record that is not durable was taken up, in milliseconds since `started`; 0 for none.
    syncing_since: AtomicU64,
    started: Instant,
    slots: Mutex<Vec<Weak<Slot>>>,
    /// The newest checkpoint that was published.
    newest: Sender<Option<Arc<str>>>,
    entries: AtomicU64,
    /// The number behind the last entry that is durable.
    durable: AtomicU64,
    commands: AtomicU64,
    /// How many sessions have a command under way.
    busy: AtomicUsize,
    /// The last checkpoint that was published since the start; held by whoever replaces its files.
    published: Arc<Mutex<Option<String>>>,
    /// Why the ledger does not verify, once it was found not to.
    alarm: Mutex<Option<String>>,
    /// Whether new sessions are refused then.
    alarm_refuses: bool,
    /// How far each receiver of events is.
    streams: Mutex<Vec<Arc<stream::Progress>>>,
}

#[derive(Default)]
struct Queue {
    /// Whether somebody waits for what is queued; what nobody waits for is written with what comes next, or a moment later.
    wanted: bool,
    items: Vec<Item>,
    bytes: Vec<u8>,
    starved: Vec<Weak<Slot>>,
}

/// One record on its way; its body and payload stand behind each other in the queue's bytes.
struct Item {
    kind: Kind,
    time_ns: u64,
    slot: Option<Arc<Slot>>,
    ticket: Ticket,
    body_bytes: usize,
    bytes: usize,
}

/// What a session, or one who waits for a single record, shares with the writer.
pub(crate) struct Slot {
    signal: Signal,
    /// The number of the session whose records come through it; 0 until it is opened, and for records of none.
    session: AtomicU64,
    tickets: AtomicU64,
}

impl Signals for Slot {
    fn signal(&self) -> &Signal {
        &self.signal
    }
}

impl Slot {
    fn new() -> Arc<Slot> {
        Slot::beside(0)
    }

    /// A slot for records of the session of this number, besides the session's own: who waits there is woken by nothing else.
    fn beside(session: u64) -> Arc<Slot> {
        let session = AtomicU64::new(session);
        Arc::new(Slot { signal: Signal::default(), session, tickets: AtomicU64::new(0) })
    }

    /// Waits until `ticket` is durable.
    async fn durable(&self, ticket: Ticket, deadline: Duration) -> Result<(), Unavailable> {
        let durable = poll_fn(|cx| {
            self.signal.register(cx);
            self.signal.wait_for(ticket);
            if self.signal.durable() >= ticket {
                return Poll::Ready(Ok(()));
            }
            if self.signal.ending() == Some(EndReason::LedgerUnavailable) {
                return Poll::Ready(Err(Unavailable::Failed));
            }
            Poll::Pending
        });
        timeout(deadline, durable).await.unwrap_or(Err(Unavailable::Deadline))
    }
}

impl Shared {
    /// Queues a record, and has it written at once.
    fn push<B: Body>(&self, slot: Option<&Arc<Slot>>, body: &B, payload: Option<&B::Payload>) -> Ticket {
        let ticket = self.queue(slot, body, payload);
        self.want();
        ticket
    }

    /// Has what is queued written at once.
    fn want(&self) {
        self.queue.lock().wanted = true;
        self.filled.notify_one();
    }

    /// Queues a record; its ticket counts from 1 within its slot.
    fn queue<B: Body>(&self, slot: Option<&Arc<Slot>>, body: &B, payload: Option<&B::Payload>) -> Ticket {
        self.queue_encoded(slot, B::KIND, |bytes| event::encode(body, payload, bytes))
    }

    fn queue_encoded(
        &self,
        slot: Option<&Arc<Slot>>,
        kind: Kind,
        encode: impl FnOnce(&mut Vec<u8>) -> usize,
    ) -> Ticket {
        let time_ns = now_ns();
        let mut queue = self.queue.lock();
        let before = queue.bytes.len();
        let body_bytes = encode(&mut queue.bytes);
        let bytes = queue.bytes.len() - before;
        if body_bytes > BODY_BYTES_MAX || bytes - body_bytes > PAYLOAD_BYTES_MAX {
            // It cannot be recorded, so it does not happen: its ticket is never reached, and its session ends alone.
            queue.bytes.truncate(before);
            drop(queue);
            tracing::error!(kind = kind.0, bytes, "a record is too long for the ledger; its session ends");
            if let Some(slot) = slot {
                slot.signal.end(EndReason::ClientViolation);
            }
            return Ticket::MAX;
        }
        let ticket = slot.map_or(0, |slot| slot.tickets.fetch_add(1, Ordering::Relaxed) + 1);
        queue.items.push(Item { kind, time_ns, slot: slot.cloned(), ticket, body_bytes, bytes });
        // Under the lock, so that the writer cannot take it off before it is on.
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        drop(queue);
        ticket
    }

    fn enroll(&self, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock();
        if slots.len() == slots.capacity() {
            slots.retain(|slot| slot.strong_count() > 0);
        }
        slots.push(Arc::downgrade(slot));
        drop(slots);
        if self.failed.load(Ordering::Acquire) {
            slot.signal.end(EndReason::LedgerUnavailable);
        }
    }

    /// Ends every session: nothing passes unrecorded.
    fn end_all(&self) -> usize {
        let slots = std::mem::take(&mut *self.slots.lock());
        slots
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|slot| slot.signal.end(EndReason::LedgerUnavailable))
            .count()
    }
}

/// What the recorder has come to since the start.
pub(crate) struct Numbers {
    pub(crate) busy: usize,
    pub(crate) commands: u64,
    pub(crate) queued_bytes: usize,
    pub(crate) records: u64,
    /// How many events each receiver was not sent yet.
    pub(crate) streams: Vec<(String, u64)>,
}

/// A session's opening as it is recorded.
pub(crate) struct Opened<'a> {
    pub(crate) principal: &'a Principal,
    /// By which delegation, where it is not the principal itself.
    pub(crate) delegation: Option<&'a Delegation>,
    pub(crate) standing: &'a Standing,
    pub(crate) decision: &'a Decision,
    pub(crate) source: SocketAddr,
    pub(crate) application: &'a str,
    pub(crate) expires: SystemTime,
    pub(crate) shadow: bool,
}

/// Something done to the gateway itself, as it is recorded.
pub(crate) struct AdminEntry<'a> {
    pub(crate) principal: &'a Principal,
    /// The Cedar action; `login` and `logout` for the page.
    pub(crate) action: &'a str,
    /// What policy said, where it was asked.
    pub(crate) decision: Option<&'a Decision>,
    /// What stood in the way beside policy.
    pub(crate) reason: Option<&'a str>,
    /// Method and path.
    pub(crate) request: &'a str,
    pub(crate) source: SocketAddr,
}

/// A revocation as it is recorded.
pub(crate) struct Revoked<'a> {
    pub(crate) target: &'a Target,
    pub(crate) reason: &'a str,
    pub(crate) by: &'a str,
}

/// Refused logins as they are recorded.
#[derive(Debug, Clone)]
pub(crate) struct RefusedLogin {
    pub(crate) source: String,
    pub(crate) resource: String,
    pub(crate) cause: &'static str,
    pub(crate) detail: String,
    pub(crate) count: u64,
}

impl Recorder {
    /// Opens the ledger, or creates it where there is none, and starts the writer.
    ///
    /// # Errors
    /// [`StartError`]: without a ledger nothing is served.
    pub(crate) fn start(config: &LedgerConfig) -> Result<(Recorder, Found), StartError> {
        if gatebook_ledger::hash::UNSEALED {
            tracing::error!("this build is for the bench alone: what it writes is no ledger");
        }
        let directory = Directory::create(&config.path)
            .map_err(|error| StartError::System { path: config.path.clone(), error })?;
        let (recorder, found) = Recorder::over(config, Arc::new(directory))?;
        upkeep::start(config, recorder.shared.clone())
            .map_err(|error| StartError::System { path: config.path.clone(), error })?;
        Ok((recorder, found))
    }

    /// The same over any storage.
    pub(crate) fn over(
        config: &LedgerConfig,
        storage: Arc<dyn Storage>,
    ) -> Result<(Recorder, Found), StartError> {
        let watched = storage.clone();
        let opener = Opener::new(config.clone(), storage.clone());
        let (writer, found) = opener.open()?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            queued_bytes: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            refuses_sessions: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stopped: Mutex::new(false),
            stopped_changed: Condvar::new(),
            syncing_since: AtomicU64::new(0),
            started: Instant::now(),
            slots: Mutex::default(),
            newest: Sender::new(None),
            entries: AtomicU64::new(0),
            durable: AtomicU64::new(writer.durable()),
            commands: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            published: Arc::default(),
            alarm: Mutex::default(),
            alarm_refuses: config.refuse_when_tampered,
            streams: Mutex::default(),
        });
        opener.keep_reserve();
        let system = |error| StartError::System { path: config.path.clone(), error };
        let watch = Watch {
            shared: shared.clone(),
            storage: watched,
            key: Vkey::log(&writer.manifest().origin, writer.authority().log.key),
            interval: config.verify_interval,
            earlier: None,
            looks: 0,
        };
        std::thread::Builder::new().name("watch".into()).spawn(move || watch.run()).map_err(system)?;
        let thread = Thread::new(shared.clone(), opener, Anchors::start(config).map_err(system)?, &found);
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || thread.run(writer))
            .map_err(system)?;
        Ok((Recorder { shared, storage }, found))
    }

    /// Has each new checkpoint cosigned by the witnesses, from now on; nothing ever waits for them.
    ///
    /// # Errors
    /// [`StartError::Witness`] where one of them cannot be asked at all.
    pub(crate) fn attend_witnesses(&self, config: &LedgerConfig) -> Result<(), StartError> {
        witness::attend(self, config).map_err(StartError::Witness)
    }

    /// Whether new sessions are refused: the ledger failed, its disk is nearly full, or it does not verify.
    pub(crate) fn refuses_sessions(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
            || self.shared.refuses_sessions.load(Ordering::Acquire)
            || self.shared.alarm_refuses && self.shared.alarm.lock().is_some()
    }

    /// What it has come to since the start.
    pub(crate) fn numbers(&self) -> Numbers {
        let shared = &self.shared;
        let durable = shared.durable.load(Ordering::Acquire);
        let waiting = |stream: &Arc<stream::Progress>| {
            let next = stream.next.load(Ordering::Relaxed);
            (stream.name.clone(), durable.saturating_sub(next))
        };
        Numbers {
            busy: shared.busy.load(Ordering::Relaxed),
            commands: shared.commands.load(Ordering::Relaxed),
            queued_bytes: shared.queued_bytes.load(Ordering::Relaxed),
            records: shared.entries.load(Ordering::Relaxed),
            streams: shared.streams.lock().iter().map(waiting).collect(),
        }
    }

    /// Has every event sent to these receivers, from now on; nothing ever waits for them.
    ///
    /// # Errors
    /// [`StartError::System`].
    pub(crate) fn stream(&self, config: &LedgerConfig, streams: &[StreamConfig]) -> Result<(), StartError> {
        stream::start(config, streams, &self.shared)
            .map_err(|error| StartError::System { path: config.path.clone(), error })
    }

    /// Why sessions cannot be opened, in words for anybody.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        let shared = &self.shared;
        if shared.failed.load(Ordering::Acquire) {
            Some("the ledger cannot be written")
        } else if shared.refuses_sessions.load(Ordering::Acquire) {
            Some("the ledger's disk is nearly full")
        } else if self.refuses_sessions() {
            Some("the ledger does not verify")
        } else {
            None
        }
    }

    /// Why the ledger does not verify, where the gateway found so.
    pub(crate) fn alarm(&self) -> Option<String> {
        self.shared.alarm.lock().clone()
    }

    /// Refuses new sessions, or takes them again: the disk's space says so.
    pub(crate) fn refuse_sessions(&self, refuse: bool) {
        self.shared.refuses_sessions.store(refuse, Ordering::Release);
    }

    /// How long the oldest record that is not durable has been waiting.
    pub(crate) fn stalled_for(&self) -> Duration {
        match self.shared.syncing_since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => self.shared.started.elapsed().saturating_sub(Duration::from_millis(since)),
        }
    }

    /// Ends every session because the disk does not answer.
    pub(crate) fn end_all(&self) -> usize {
        self.shared.end_all()
    }

    /// Opens a session in the ledger; durable when it returns.
    pub(crate) async fn open_session(
        &self,
        opened: &Opened<'_>,
        deadline: Duration,
    ) -> Result<Book, Unavailable> {
        if self.shared.failed.load(Ordering::Acquire) {
            return Err(Unavailable::Failed);
        }
        let slot = Slot::new();
        self.shared.enroll(&slot);
        let standing = opened.standing;
        let body = event::SessionOpenedBody { protocol: standing.protocol.into(), shadow: opened.shadow };
        let payload = event::SessionOpenedPayload {
            actors: opened.delegation.iter().flat_map(|last| last.chain()).map(actor).collect(),
            application: opened.application.into(),
            database: (&*standing.database).into(),
            expires_s: opened.expires.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            policies: opened.decision.determining.iter().map(|policy| policy.to_string().into()).collect(),
            principal: principal(opened.principal),
            resource: (&*standing.resource).into(),
            role: (&*standing.role).into(),
            source: opened.source.to_string().into(),
            token: opened.delegation.map_or_else(
                || (&**opened.principal.token_id()).into(),
                |last| format!("jti:{}", last.id).into(),
            ),
        };
        let ticket = self.shared.push(Some(&slot), &body, Some(&payload));
        // Whoever gives up waiting leaves a session that must be closed as well.
        let opening = Opening { shared: &self.shared, slot: &slot, opened: false };
        slot.durable(ticket, deadline).await?;
        opening.done();
        Ok(Book::new(self.shared.clone(), slot))
    }

    /// Records what somebody wants of the gateway itself, and the decision; durable when it returns.
    pub(crate) async fn record_admin(
        &self,
        entry: &AdminEntry<'_>,
        deadline: Duration,
    ) -> Result<(), Unavailable> {
        let verdict = entry.decision.map_or(Verdict::Permit, |decision| decision.verdict);
        let policies = entry.decision.into_iter().flat_map(|decision| &decision.determining);
        let body = event::AdminActionBody { action: entry.action.into(), decision: verdict.name().into() };
        let payload = event::AdminActionPayload {
            policies: policies.map(|policy| policy.to_string().into()).collect(),
            principal: principal(entry.principal),
            reason: entry.reason.map(Into::into),
            request: entry.request.into(),
            source: entry.source.to_string().into(),
        };
        self.record(&body, Some(&payload), deadline).await
    }

    /// What each principal was shown so far in the day of now.
    ///
    /// # Errors
    /// [`StartError::System`] when the ledger cannot be read.
    pub(crate) fn shown_today(&self, config: &LedgerConfig) -> Result<HashMap<Arc<str>, Day>, StartError> {
        let path = &config.path;
        shown::since(path, self.storage.as_ref(), Day::of(SystemTime::now()))
            .map_err(|error| StartError::System { path: path.clone(), error })
    }

    /// The sessions that fit, those that are over among them. Blocks, at most until `until`.
    ///
    /// # Errors
    /// Of the storage; [`std::io::ErrorKind::TimedOut`].
    pub(crate) fn find_sessions(
        &self,
        config: &LedgerConfig,
        sought: &Sought,
        until: Instant,
    ) -> std::io::Result<Past> {
        past::find(&config.path, sought, until)
    }

    /// Records that rights are handed down; durable when it returns.
    pub(crate) async fn record_delegation(
        &self,
        made: &Delegation,
        source: SocketAddr,
        deadline: Duration,
    ) -> Result<(), Unavailable> {
        let (body, payload) = handed::written(made, source);
        self.record(&body, Some(&payload), deadline).await
    }

    /// Records that what was handed down ends before its time; durable when it returns.
    pub(crate) async fn record_delegation_end(
        &self,
        id: &str,
        by: &str,
        reason: &str,
        why: &str,
        deadline: Duration,
    ) -> Result<(), Unavailable> {
        let body = event::DelegationEndedBody { delegation: id.into(), reason: reason.into() };
        let why = Some(why).filter(|why| !why.is_empty()).map(Into::into);
        self.record(&body, Some(&event::DelegationEndedPayload { by: by.into(), why }), deadline).await
    }

    /// Records a revocation; durable when it returns.
    pub(crate) async fn record_revocation(
        &self,
        revoked: &Revoked<'_>,
        deadline: Duration,
    ) -> Result<(), Unavailable> {
        let mut payload = event::RevocationPayload {
            by: revoked.by.into(),
            group: None,
            logout: None,
            principal: None,
            reason: revoked.reason.into(),
            resource: None,
            session: None,
            token: None,
        };
        match revoked.target {
            Target::Principal(id) => payload.principal = Some(id.as_str().into()),
            Target::Group(name) => payload.group = Some(name.as_str().into()),
            Target::Token(id) => payload.token = Some(id.as_str().into()),
            Target::Logout(logout) => {
                payload.logout = Some(event::Logout {
                    issued_s: logout.issued_s,
                    login: logout.login.as_deref().map(Into::into),
                    principal: logout.principal.as_deref().map(Into::into),
                });
            }
            Target::Resource(name) => payload.resource = Some(name.as_str().into()),
            Target::Session(number) => payload.session = Some(*number),
            // It ends as it does otherwise, so that there is one event to derive the living from.
            Target::Delegation(id) => {
                return self.record_delegation_end(id, revoked.by, "revoked", revoked.reason, deadline).await;
            }
        }
        let body = event::RevocationBody { target: revoked.target.kind().into() };
        self.record(&body, Some(&payload), deadline).await
    }

    /// Records that policies took effect; durable when it returns.
    pub(crate) async fn record_policies(
        &self,
        set: &PolicySet,
        deadline: Duration,
    ) -> Result<(), Unavailable> {
        let body = event::PolicyLoadedBody { hash: set_hash(set).into(), policies: set.len() as u64 };
        let files = set
            .files()
            .iter()
            .map(|file| event::PolicyFile { name: (&*file.name).into(), text: (&*file.text).into() });
        self.record(&body, Some(&event::PolicyLoadedPayload { files: files.collect() }), deadline).await
    }

    /// Records that an edit of the policies was not taken.
    pub(crate) fn record_rejected_policies(&self, stays: &PolicySet, mistakes: &[String]) {
        let body = event::PolicyRejectedBody { stays: set_hash(stays).into() };
        let payload = event::PolicyRejectedPayload {
            mistakes: mistakes.iter().map(|line| line.as_str().into()).collect(),
        };
        self.shared.push(None, &body, Some(&payload));
    }

    /// Records that the gateway serves, and by what configuration; durable when it returns.
    pub(crate) async fn record_start(
        &self,
        text: &str,
        resources: usize,
        deadline: Duration,
    ) -> Result<(), Unavailable> {
        let body = event::GatewayStartedBody { version: env!("CARGO_PKG_VERSION").into() };
        self.record(&body, None, deadline).await?;
        let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
        let body = event::ConfigLoadedBody { hash: hash.into(), resources: resources as u64 };
        self.record(&body, Some(&event::ConfigLoadedPayload { text: text.into() }), deadline).await
    }

    /// Records refused logins. Nobody waits for it.
    pub(crate) fn record_refused_login(&self, refused: &RefusedLogin) {
        let body = event::LoginRefusedBody { cause: refused.cause.into(), count: refused.count };
        let payload = event::LoginRefusedPayload {
            detail: refused.detail.as_str().into(),
            resource: refused.resource.as_str().into(),
            source: refused.source.as_str().into(),
        };
        self.shared.push(None, &body, Some(&payload));
    }

    async fn record<B: Body>(
        &self,
        body: &B,
        payload: Option<&B::Payload>,
        deadline: Duration,
    ) -> Result<(), Unavailable> {
        if self.shared.failed.load(Ordering::Acquire) {
            return Err(Unavailable::Failed);
        }
        let slot = Slot::new();
        self.shared.enroll(&slot);
        let ticket = self.shared.push(Some(&slot), body, payload);
        slot.durable(ticket, deadline).await
    }

    /// Writes what is left, publishes a last checkpoint, and stops. Blocks until it is done, at most for `deadline`.
    pub(crate) fn stop(&self, deadline: Duration) {
        self.shared.push(None, &event::GatewayStoppedBody { reason: "signal".into() }, None);
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.filled.notify_one();
        let mut stopped = self.shared.stopped.lock();
        if !*stopped {
            self.shared.stopped_changed.wait_for(&mut stopped, deadline);
        }
    }
}

/// A session that is being opened: where that comes to nothing, what was queued of it is closed behind it.
struct Opening<'a> {
    shared: &'a Arc<Shared>,
    slot: &'a Arc<Slot>,
    opened: bool,
}

impl Opening<'_> {
    fn done(mut self) {
        self.opened = true;
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.opened {
            let body = event::SessionClosedBody {
                channels: Some(event::Channels::default()),
                commands: Some(0),
                fed_bytes: Some(0),
                reason: EndReason::LedgerUnavailable.name().into(),
                refused: Some(0),
                shown_bytes: Some(0),
            };
            self.shared.queue(Some(self.slot), &body, None);
        }
    }
}

/// A principal as events spell it.
fn principal(principal: &Principal) -> event::Principal<'_> {
    event::Principal {
        delegation: None,
        groups: principal.groups().iter().map(|group| (&**group).into()).collect(),
        issuer: (&**principal.issuer()).into(),
        kind: match principal.kind() {
            PrincipalKind::User => "user",
            PrincipalKind::Service => "service",
        }
        .into(),
        login: None,
        name: (&**principal.name()).into(),
        subject: (&**principal.subject()).into(),
    }
}

/// A link of a chain as events spell it: who acts, or what was handed down, where nobody showed who they are.
fn actor(link: &Delegation) -> event::Principal<'_> {
    let delegation = Some((&*link.id).into());
    match &link.actor {
        Some(actor) => event::Principal { delegation, ..principal(actor) },
        None => event::Principal {
            delegation,
            groups: Vec::new(),
            issuer: "".into(),
            kind: "agent".into(),
            login: None,
            name: link.name.as_deref().unwrap_or(&link.id).into(),
            subject: (&*link.id).into(),
        },
    }
}

fn set_hash(set: &PolicySet) -> String {
    blake3::Hash::from_bytes(*set.hash()).to_hex().to_string()
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

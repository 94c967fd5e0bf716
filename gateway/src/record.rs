//! The recorder: what sessions say is written into the ledger by one thread, many records with one write and one sync.
//!
//! This is the only place in the gateway that names the ledger. A session puts a record into a bounded queue and gets a ticket; once the
//! record is durable, the session's signal says so. Nothing is acknowledged that is not on the disk.
//!
//! If the ledger cannot be written, every session is told to end and new ones are refused. The writer is never asked again after a failure:
//! the ledger is opened anew, through its recovery, which also closes the sessions that were cut off; then the gateway serves again.

use std::borrow::Cow;
use std::collections::HashSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gatebook_ledger::event::{self, Body};
use gatebook_ledger::{Directory, Kind, Limits, Origin, Storage, SystemSalts, Writer, keys};
use gatebook_wire::action::Effect;
use gatebook_wire::protocol::{Command, EndReason, Ending, Meaning, Phase, RequestId};
use parking_lot::{Condvar, Mutex};
use thiserror::Error;
use tokio::time::timeout;

use crate::config::LedgerConfig;
use crate::identity::Principal;
use crate::policy::{Decision, PolicySet, Standing, SubjectKind};
use crate::session::{Signal, Signals, Target, Ticket, Totals};

/// How many bytes of records may wait for the writer before sessions stop reading.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Room on the ledger's disk that is kept for the last words: the close of every session that a full disk cut off.
const RESERVE_BYTES: usize = 4 << 20;

/// The name of the file that keeps it.
const RESERVE: &str = "reserve";

/// How long a record that nobody waits for may lie in memory.
const UNWANTED_WAIT_MAX: Duration = Duration::from_millis(100);

/// Up to how many busy sessions have a read's record written while the upstream answers; more of them gather theirs for one sync.
const QUIET_SESSIONS: usize = 2;

/// How long to wait before the ledger is opened again after it failed.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

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
    entries: AtomicU64,
    commands: AtomicU64,
    /// How many sessions have a command under way.
    busy: AtomicUsize,
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
    /// The session's number in the ledger; 0 until it is opened, and for records of no session.
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
        Arc::new(Slot { signal: Signal::default(), session: AtomicU64::new(0), tickets: AtomicU64::new(0) })
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

/// How a command was ruled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ruled {
    /// It goes.
    Permit,
    /// It does not.
    Refuse,
    /// Policy refuses it, and the resource only watches.
    ShadowRefuse,
}

impl Ruled {
    fn name(self) -> &'static str {
        match self {
            Ruled::Permit => "permit",
            Ruled::Refuse => "refuse",
            Ruled::ShadowRefuse => "shadow_refuse",
        }
    }
}

/// A command as it is recorded.
pub(crate) struct CommandEntry<'a> {
    pub(crate) request: RequestId,
    pub(crate) command: &'a Command,
    pub(crate) decision: &'a Arc<Decision>,
    pub(crate) ruled: Ruled,
}

/// An outcome as it is recorded.
pub(crate) struct OutcomeEntry<'a> {
    pub(crate) request: RequestId,
    pub(crate) ending: &'a Ending,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) duration: Duration,
    pub(crate) shown: Option<blake3::Hash>,
    pub(crate) fed_bytes: u64,
    pub(crate) fed: Option<blake3::Hash>,
}

/// A session's opening as it is recorded.
pub(crate) struct Opened<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) standing: &'a Standing,
    pub(crate) decision: &'a Decision,
    pub(crate) source: SocketAddr,
    pub(crate) application: &'a str,
    pub(crate) expires: SystemTime,
    pub(crate) shadow: bool,
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
        let directory = Directory::create(&config.path)
            .map_err(|error| StartError::System { path: config.path.clone(), error })?;
        Recorder::over(config, Arc::new(directory))
    }

    /// The same over any storage.
    pub(crate) fn over(
        config: &LedgerConfig,
        storage: Arc<dyn Storage>,
    ) -> Result<(Recorder, Found), StartError> {
        let opener = Opener { config: config.clone(), storage };
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
            entries: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
        });
        opener.keep_reserve();
        let thread = Thread { shared: shared.clone(), opener, items: Vec::new(), bytes: Vec::new() };
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || thread.run(writer))
            .map_err(|error| StartError::System { path: config.path.clone(), error })?;
        Ok((Recorder { shared }, found))
    }

    /// Whether new sessions are refused: the ledger failed, or its disk is nearly full.
    pub(crate) fn refuses_sessions(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire) || self.shared.refuses_sessions.load(Ordering::Acquire)
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
        let principal = |link: &crate::policy::Subject, name: &str| event::Principal {
            groups: link.groups().iter().map(|group| Cow::Owned(group.to_string())).collect(),
            issuer: Cow::Owned(link.issuer().to_owned()),
            kind: Cow::Borrowed(match link.kind() {
                SubjectKind::User => "user",
                SubjectKind::Service => "service",
            }),
            name: Cow::Owned(name.to_owned()),
            subject: Cow::Owned(link.subject().to_owned()),
        };
        let Some((first, actors)) = standing.chain.split_first() else { return Err(Unavailable::Failed) };
        let body = event::SessionOpenedBody { protocol: standing.protocol.into(), shadow: opened.shadow };
        let payload = event::SessionOpenedPayload {
            actors: actors.iter().map(|actor| principal(actor, actor.subject())).collect(),
            application: opened.application.into(),
            database: (&*standing.database).into(),
            expires_s: opened.expires.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            policies: opened.decision.determining.iter().map(|policy| policy.to_string().into()).collect(),
            principal: principal(first, opened.principal.name()),
            resource: (&*standing.resource).into(),
            role: (&*standing.role).into(),
            source: opened.source.to_string().into(),
            token: (&**opened.principal.token_id()).into(),
        };
        let ticket = self.shared.push(Some(&slot), &body, Some(&payload));
        slot.durable(ticket, deadline).await?;
        Ok(Book { shared: self.shared.clone(), slot, templates: Templates::default() })
    }

    /// Records a revocation; durable when it returns.
    pub(crate) async fn record_revocation(
        &self,
        revoked: &Revoked<'_>,
        deadline: Duration,
    ) -> Result<(), Unavailable> {
        let (target, principal, session) = match revoked.target {
            Target::Principal(id) => ("principal", Some(id.as_str().into()), None),
            Target::Session(number) => ("session", None, Some(*number)),
        };
        let body = event::RevocationBody { target: target.into() };
        let payload = event::RevocationPayload {
            by: revoked.by.into(),
            principal,
            reason: revoked.reason.into(),
            session,
        };
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

fn set_hash(set: &PolicySet) -> String {
    blake3::Hash::from_bytes(*set.hash()).to_hex().to_string()
}

/// A session's pages.
pub(crate) struct Book {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    templates: Templates,
}

/// How many templates a session keeps.
const TEMPLATES_MAX: usize = 16;

/// The parts of records that stay the same, of the commands that were decided last.
#[derive(Default)]
struct Templates(Vec<Template>);

struct Template {
    /// Held so that their addresses stay their own.
    meaning: Arc<Meaning>,
    decision: Arc<Decision>,
    written: event::CommandTemplate,
}

impl Templates {
    fn of(&mut self, meaning: &Arc<Meaning>, decision: &Arc<Decision>) -> &event::CommandTemplate {
        let known = self
            .0
            .iter()
            .position(|known| Arc::ptr_eq(&known.meaning, meaning) && Arc::ptr_eq(&known.decision, decision));
        let at = known.unwrap_or_else(|| {
            if self.0.len() == TEMPLATES_MAX {
                self.0.remove(0);
            }
            let written = event::CommandTemplate::new(&event::CommandPayload {
                actions: meaning
                    .actions
                    .iter()
                    .map(|action| format!("{} {}", action.verb.name(), action.object).into())
                    .collect(),
                errors: decision.errors.iter().map(|error| error.as_str().into()).collect(),
                kind: meaning.facts.kind.as_str().into(),
                obligations: decision
                    .obligations
                    .iter()
                    .map(|obligation| obligation.to_string().into())
                    .collect(),
                parameters: Vec::new(),
                policies: decision.determining.iter().map(|policy| policy.to_string().into()).collect(),
                statement: event::Text::Text(Cow::Borrowed("")),
            });
            self.0.push(Template { meaning: meaning.clone(), decision: decision.clone(), written });
            self.0.len() - 1
        });
        &self.0[at].written
    }
}

impl Book {
    /// The session's number in the ledger.
    pub(crate) fn number(&self) -> u64 {
        self.slot.session.load(Ordering::Acquire)
    }

    /// The session's signals.
    pub(crate) fn signal(&self) -> &Signal {
        &self.slot.signal
    }

    /// The session's signals, to be shared.
    pub(crate) fn slot(&self) -> Arc<Slot> {
        self.slot.clone()
    }

    /// Whether there is room for more; where there is none, the signal tells when there is.
    pub(crate) fn has_room(&self) -> bool {
        if self.shared.queued_bytes.load(Ordering::Relaxed) < QUEUE_BYTES_MAX {
            return true;
        }
        self.shared.queue.lock().starved.push(Arc::downgrade(&self.slot));
        self.shared.queued_bytes.load(Ordering::Relaxed) < QUEUE_BYTES_MAX
    }

    /// The session has a command under way, as it had none before.
    pub(crate) fn begin(&self) {
        self.shared.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// The session's last command that was under way has ended.
    pub(crate) fn finish(&self) {
        self.shared.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether so few sessions have a command under way that there is nothing to gather.
    pub(crate) fn is_quiet(&self) -> bool {
        self.shared.busy.load(Ordering::Relaxed) <= QUIET_SESSIONS
    }

    /// Has what was recorded made durable now; without it that happens a moment later.
    pub(crate) fn commit(&self) {
        self.shared.want();
    }

    /// Records a command and its decision; [`Book::commit`] has it made durable.
    pub(crate) fn command(&mut self, entry: &CommandEntry<'_>) -> Ticket {
        let CommandEntry { command, decision, .. } = entry;
        let body = event::CommandBody {
            decision: entry.ruled.name().into(),
            effect: match command.meaning.effect {
                Effect::Reads => "reads",
                Effect::MayChange => "may_change",
            }
            .into(),
            phase: match command.phase {
                Phase::Prepare => "prepare",
                Phase::Execute => "execute",
            }
            .into(),
            request: entry.request,
        };
        let parameters: Vec<_> = command.parameters.iter().map(parameter).collect();
        let statement = event::Text::new(&command.statement);
        let template = self.templates.of(&command.meaning, decision);
        self.shared.commands.fetch_add(1, Ordering::Relaxed);
        self.shared.queue_encoded(Some(&self.slot), event::COMMAND, |bytes| {
            template.encode(&body, &parameters, &statement, bytes)
        })
    }

    /// Records how a command came out. Nobody waits for it.
    pub(crate) fn outcome(&self, entry: &OutcomeEntry<'_>) {
        let body = event::OutcomeBody {
            bytes: entry.bytes,
            duration_us: u64::try_from(entry.duration.as_micros()).unwrap_or(u64::MAX),
            ending: entry.ending.name().into(),
            request: entry.request,
            rows: entry.rows,
        };
        let hex = |hash: &blake3::Hash| hash.to_hex();
        let (shown, fed) = (entry.shown.as_ref().map(hex), entry.fed.as_ref().map(hex));
        let payload = event::OutcomePayload {
            code: match entry.ending {
                Ending::Failed(code) => Some(code.as_str().into()),
                _ => None,
            },
            fed_blake3: fed.as_deref().map(Cow::Borrowed),
            fed_bytes: (entry.fed_bytes > 0).then_some(entry.fed_bytes),
            shown_blake3: shown.as_deref().map(Cow::Borrowed),
            tag: match entry.ending {
                Ending::Completed(tag) if !tag.is_empty() => Some(tag.as_str().into()),
                _ => None,
            },
        };
        self.shared.queue(Some(&self.slot), &body, Some(&payload));
    }

    /// What records cancel requests for this session.
    pub(crate) fn canceller(&self) -> Canceller {
        Canceller { shared: self.shared.clone(), slot: self.slot.clone() }
    }

    /// Closes the session in the ledger: nothing of it can follow.
    pub(crate) fn close(self, reason: EndReason, totals: &Totals) {
        let body = event::SessionClosedBody {
            commands: Some(totals.commands),
            fed_bytes: Some(totals.fed_bytes),
            reason: reason.name().into(),
            refused: Some(totals.refused),
            to_client_bytes: Some(totals.to_client_bytes),
        };
        self.shared.push(Some(&self.slot), &body, None);
    }
}

/// Records cancel requests, which come over connections of their own.
#[derive(Clone)]
pub(crate) struct Canceller {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
}

impl Canceller {
    /// Records a cancel request; durable when it returns. An error when the session is over.
    pub(crate) async fn record(&self, source: SocketAddr) -> Result<(), Unavailable> {
        let body = event::CancelBody { by: "client".into() };
        let payload = event::CancelPayload { source: source.to_string().into() };
        let ticket = self.shared.push(Some(&self.slot), &body, Some(&payload));
        // A waker of its own: the session's task has the slot's.
        let started = Instant::now();
        while self.slot.signal.durable() < ticket {
            if self.slot.signal.ending().is_some() || started.elapsed() > CANCEL_DEADLINE {
                return Err(Unavailable::Deadline);
            }
            tokio::time::sleep(CANCEL_POLL).await;
        }
        Ok(())
    }
}

/// How long a cancel request may wait for its record.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);
/// How often it looks.
const CANCEL_POLL: Duration = Duration::from_millis(2);

fn parameter(parameter: &gatebook_wire::protocol::Parameter) -> event::Parameter<'_> {
    let value = parameter.value.as_ref();
    event::Parameter {
        binary: parameter.binary,
        type_oid: parameter.type_oid,
        value: value
            .map(|bytes| if parameter.binary { event::Text::base64(bytes) } else { event::Text::new(bytes) }),
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What was found when the ledger was opened.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// How many entries there were.
    pub(crate) entries: u64,
    /// How many sessions a crash had left open.
    pub(crate) abandoned: usize,
    /// Whether a torn tail was cut off.
    pub(crate) cut: bool,
    /// Principals that stay out.
    pub(crate) revoked: HashSet<String>,
}

/// Opens the ledger, the first time and after a failure.
struct Opener {
    config: LedgerConfig,
    storage: Arc<dyn Storage>,
}

impl Opener {
    fn open(&self) -> Result<(Writer, Found), StartError> {
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
        let mut found = Found::default();
        let mut writer = if exists {
            let opened =
                Writer::open(self.storage.clone(), Box::new(loaded), salts(), Limits::default(), now_ns());
            let (writer, recovery) = opened.map_err(failed)?;
            found.entries = recovery.entries;
            found.abandoned = recovery.open_sessions.len();
            found.cut = recovery.cut.is_some();
            found.revoked = self.revoked().map_err(|error| failed(error.into()))?;
            writer
        } else {
            let origin = Origin::new(&self.config.origin)
                .map_err(|_| StartError::Origin(self.config.origin.clone()))?;
            Writer::create(
                self.storage.clone(),
                &origin,
                Box::new(loaded),
                salts(),
                Limits::default(),
                now_ns(),
            )
            .map_err(failed)?
        };
        self.close_abandoned(&mut writer)
            .map_err(|error| failed(gatebook_ledger::OpenError::Storage(std::io::Error::other(error))))?;
        Ok((writer, found))
    }

    /// Keeps room for the last words; tells whether there was any.
    fn keep_reserve(&self) -> bool {
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

    /// The principals that were revoked: the ledger is the only store of that.
    fn revoked(&self) -> std::io::Result<HashSet<String>> {
        let mut revoked = HashSet::new();
        gatebook_ledger::reader::visit(self.storage.as_ref(), None, |item| {
            if let gatebook_ledger::reader::Item::Entry { entry, payload, .. } = item
                && entry.header.kind == event::REVOCATION
                && let Ok(event::Decoded::Revocation(Some(payload))) =
                    event::decode(entry.header.kind, entry.body, payload)
            {
                revoked.extend(payload.principal.map(Cow::into_owned));
            }
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(revoked)
    }

    /// Closes the sessions that a crash or a failure left open: their last outcomes are unknown.
    fn close_abandoned(&self, writer: &mut Writer) -> Result<(), gatebook_ledger::WriteError> {
        let body = event::SessionClosedBody {
            commands: None,
            fed_bytes: None,
            reason: "crash".into(),
            refused: None,
            to_client_bytes: None,
        };
        let mut json = Vec::new();
        event::encode(&body, None, &mut json);
        for session in writer.open_sessions() {
            let draft = gatebook_ledger::Draft {
                kind: Kind::SESSION_CLOSED,
                time_ns: now_ns(),
                session,
                body: &json,
                payload: b"",
            };
            writer.stage(&draft)?;
        }
        writer.write()?;
        writer.sync().map(drop)
    }
}

/// The writer's thread.
struct Thread {
    shared: Arc<Shared>,
    opener: Opener,
    items: Vec<Item>,
    bytes: Vec<u8>,
}

/// Why the writer's loop ended.
enum Halt {
    Stopped,
    Failed(String),
}

impl Thread {
    fn run(mut self, mut writer: Writer) {
        loop {
            match self.write(&mut writer) {
                Halt::Stopped => {
                    if let Err(error) = writer.close(now_ns()) {
                        tracing::error!(%error, "the ledger's last checkpoint was not written; what was acknowledged is there");
                    }
                    *self.shared.stopped.lock() = true;
                    self.shared.stopped_changed.notify_all();
                    return;
                }
                Halt::Failed(error) => {
                    // What could not be written belongs to sessions that end now.
                    self.drop_taken();
                    self.shared.failed.store(true, Ordering::Release);
                    let sessions = self.shared.end_all();
                    tracing::error!(
                        path = %self.opener.config.path.display(), %error, sessions,
                        "ledger: cannot write; these sessions ended and new ones are refused. Free space or mend the disk; the gateway resumes by itself"
                    );
                    drop(writer);
                    self.opener.release_reserve();
                    match self.reopen() {
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
    fn reopen(&mut self) -> Option<Writer> {
        let mut told = String::new();
        loop {
            std::thread::sleep(REOPEN_PAUSE);
            self.take(Duration::ZERO);
            // What was queued belongs to sessions that have ended.
            self.drop_taken();
            if self.shared.stopping.load(Ordering::Acquire) {
                return None;
            }
            match self.opener.open() {
                // The last words are written; without room for the next ones nothing more is begun.
                Ok(_) if !self.opener.keep_reserve() => {
                    let error = "no room to go on; free some space".to_owned();
                    if error != told {
                        tracing::error!(%error, "ledger: its sessions are closed, and new ones are refused");
                        told = error;
                    }
                }
                Ok((writer, found)) => {
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
                    let error = error.to_string();
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
            if Instant::now() >= next_checkpoint {
                next_checkpoint = Instant::now() + self.opener.config.checkpoint_interval;
                if let Err(error) = self.publish(writer) {
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

    fn drop_taken(&mut self) {
        self.items.clear();
        self.bytes.clear();
    }

    /// Stages, writes and syncs what was taken, and tells the sessions.
    fn commit(&mut self, writer: &mut Writer) -> Result<(), gatebook_ledger::WriteError> {
        let since = u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.shared.syncing_since.store(since, Ordering::Release);
        let mut at = 0;
        for item in &mut self.items {
            let (body, payload) = self.bytes[at..at + item.bytes].split_at(item.body_bytes);
            at += item.bytes;
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
                item.slot = None;
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

    fn publish(&self, writer: &mut Writer) -> Result<(), String> {
        let publication = writer.publish(now_ns()).map_err(|error| error.to_string())?;
        let Some(publication) = publication else { return Ok(()) };
        publication.store(self.opener.storage.as_ref()).map_err(|error| error.to_string())?;
        for copy in &self.opener.config.checkpoint_copies {
            if let Err(error) = replace(copy, &publication.note) {
                tracing::error!(path = %copy.display(), %error, "cannot copy the checkpoint; an older one is all that is anchored there");
            }
        }
        Ok(())
    }
}

/// Replaces a file whole: a reader sees the old checkpoint or the new one.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

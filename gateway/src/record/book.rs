//! What one session writes: its commands, their outcomes, its close, and the cancel requests for it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gatebook_ledger::event;
use gatebook_wire::action::Effect;
use gatebook_wire::detect::Found;
use gatebook_wire::protocol::{Command, EndReason, Ending, Meaning, Phase, RequestId};

use super::approval::{Asked, Broken, Used};
use super::{QUEUE_BYTES_MAX, Shared, Slot, Unavailable};
use crate::approval::{Id, Lapse};
use crate::policy::Decision;
use crate::session::{Passed, Signal, Ticket, Totals};

/// How many templates a session keeps.
const TEMPLATES_MAX: usize = 16;

/// Up to how many busy sessions have a read's record written while the upstream answers; more of them gather theirs for one sync.
const QUIET_SESSIONS: usize = 2;

/// How long a cancel request may wait for its record.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);

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
    pub(crate) detected: Found,
}

/// A session's pages.
pub(crate) struct Book {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    templates: Templates,
}

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
                    .chain(
                        meaning
                            .masks
                            .iter()
                            .map(|masked| format!("mask {} with {}", masked.column, masked.mask).into()),
                    )
                    .collect(),
                parameters: Vec::new(),
                policies: decision.determining.iter().map(|policy| policy.to_string().into()).collect(),
                sent: None,
                statement: event::Text::Text(Cow::Borrowed("")),
            });
            self.0.push(Template { meaning: meaning.clone(), decision: decision.clone(), written });
            self.0.len() - 1
        });
        &self.0[at].written
    }
}

impl Book {
    pub(super) fn new(shared: Arc<Shared>, slot: Arc<Slot>) -> Book {
        Book { shared, slot, templates: Templates::default() }
    }

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
            effect: effect(&command.meaning).into(),
            phase: match command.phase {
                Phase::Prepare => "prepare",
                Phase::Execute => "execute",
            }
            .into(),
            request: entry.request,
        };
        let parameters: Vec<_> = command.parameters.iter().map(parameter).collect();
        let statement = event::Text::new(&command.statement);
        let sent = command.sent.as_deref().map(event::Text::new);
        let template = self.templates.of(&command.meaning, decision);
        self.shared.commands.fetch_add(1, Ordering::Relaxed);
        self.shared.queue_encoded(Some(&self.slot), event::COMMAND, |bytes| {
            template.encode(&body, &parameters, sent.as_ref(), &statement, bytes)
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
                Ending::Failed(code) | Ending::Cut(Err(code)) => Some(code.as_str().into()),
                _ => None,
            },
            detected: entry.detected.any().then(|| entry.detected.to_string().into()),
            fed_blake3: fed.as_deref().map(Cow::Borrowed),
            fed_bytes: (entry.fed_bytes > 0).then_some(entry.fed_bytes),
            shown_blake3: shown.as_deref().map(Cow::Borrowed),
            tag: match entry.ending {
                Ending::Completed(tag) | Ending::Cut(Ok(tag)) if !tag.is_empty() => Some(tag.as_str().into()),
                _ => None,
            },
        };
        self.shared.queue(Some(&self.slot), &body, Some(&payload));
    }

    /// Records that somebody's approval is asked for.
    pub(crate) fn approval_requested(&self, asked: &Asked<'_>) {
        super::approval::requested(&self.shared, Some(&self.slot), asked);
    }

    /// Records that a command goes on because of an approval; the command itself follows.
    pub(crate) fn approval_used(&self, used: &Used<'_>) {
        super::approval::used(&self.shared, &self.slot, used);
    }

    /// Records that a command goes on without the approval that it needed; the command itself follows.
    pub(crate) fn glass_broken(&self, broken: &Broken<'_>) {
        super::approval::broken(&self.shared, &self.slot, broken);
    }

    /// Records that a request came to nothing.
    pub(crate) fn approval_lapsed(&self, id: Id, lapse: Lapse) {
        super::approval::lapsed(&self.shared, Some(&self.slot), id, lapse);
    }

    /// What records cancel requests for this session.
    pub(crate) fn canceller(&self) -> Canceller {
        Canceller { shared: self.shared.clone(), slot: self.slot.clone() }
    }

    /// Closes the session in the ledger: nothing of it can follow.
    pub(crate) fn close(self, reason: EndReason, totals: &Totals) {
        let passed = |Passed { bytes, messages }| event::Passed { bytes, messages };
        let channels = &totals.channels;
        let body = event::SessionClosedBody {
            channels: Some(event::Channels {
                client_to_gateway: passed(channels.client_to_gateway),
                gateway_to_client: passed(channels.gateway_to_client),
                gateway_to_upstream: passed(channels.gateway_to_upstream),
                upstream_to_gateway: passed(channels.upstream_to_gateway),
            }),
            commands: Some(totals.commands),
            fed_bytes: Some(totals.fed_bytes),
            reason: reason.name().into(),
            refused: Some(totals.refused),
            shown_bytes: Some(totals.shown_bytes),
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
        // The session's task waits at the session's own slot.
        let slot = Slot::beside(self.slot.session.load(Ordering::Acquire));
        self.shared.enroll(&slot);
        let ticket = self.shared.push(Some(&slot), &body, Some(&payload));
        slot.durable(ticket, CANCEL_DEADLINE).await
    }
}

/// What a command may do, as events spell it.
pub(super) fn effect(meaning: &Meaning) -> &'static str {
    match meaning.effect {
        Effect::Reads => "reads",
        Effect::MayChange => "may_change",
    }
}

pub(super) fn parameter(parameter: &gatebook_wire::protocol::Parameter) -> event::Parameter<'_> {
    let value = parameter.value.as_ref();
    event::Parameter {
        binary: parameter.binary,
        type_oid: parameter.type_oid,
        value: value
            .map(|bytes| if parameter.binary { event::Text::base64(bytes) } else { event::Text::new(bytes) }),
    }
}

//! The one trait that every wire protocol implements: frames in, steps out.
//!
//! A machine is deterministic and does no I/O. It says *what was said* and never decides; the session asks
//! policy and the ledger, and tells the machine only when the answer was no ([`Protocol::refuse`]).
//!
//! What a newcomer gets wrong: after a [`ClientStep::Ask`], the next call decides how it went. Another
//! `on_client` or `on_upstream` means that all of its commands were permitted and sent; `refuse` means that
//! nothing of it was sent, and that what `refuse` returns took its place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Waker;

use bytes::Bytes;
use thiserror::Error;

use crate::action::{Action, Effect, Facts, Object};
use crate::detect::Found;

/// Names one command within its exchange, counted from 0 in the order in which they were asked for.
pub type RequestId = u64;

/// One wire protocol as a deterministic machine.
pub trait Protocol: Send {
    /// What the client sends.
    type ClientFrame: Send;
    /// What the upstream sends, and what a client can be told.
    type UpstreamFrame: Send;

    /// Takes one frame from the client.
    ///
    /// # Errors
    /// [`Violation`] when the client broke the protocol, or sent what this machine does not know.
    fn on_client(&mut self, frame: Self::ClientFrame) -> Result<ClientStep<Self::ClientFrame>, Violation>;

    /// Takes one frame from the upstream.
    ///
    /// # Errors
    /// [`Violation`] when the upstream broke the protocol, or sent what this machine does not know.
    fn on_upstream(
        &mut self,
        frame: Self::UpstreamFrame,
    ) -> Result<UpstreamStep<Self::UpstreamFrame>, Violation>;

    /// Replaces the frame that was just asked for by one that fails upstream at the same place in the order.
    fn refuse(&mut self, refusal: &Refusal) -> Refused<Self::ClientFrame>;

    /// Forgets what was just asked for, as though its frame had never been handed in: it waits for somebody outside, and is handed in
    /// again whenever the upstream has spoken, and when that somebody has answered.
    fn withdraw(&mut self);

    /// What decides, beside the commands themselves, what these do.
    fn circumstances(&self, commands: &[Command]) -> Circumstances;

    /// Whether what was understood of the command that this answers still holds; asked before it is shown, and again once `waker` was woken.
    fn confirm(&mut self, disclosure: &Disclosure<Self::UpstreamFrame>, waker: &Waker) -> Confirmed;

    /// Whether something has come for which the machine had a client's frame [wait](ClientStep::Wait), other than the upstream's next frame; `waker`
    /// is woken when it does.
    fn awaited(&mut self, waker: &Waker) -> bool;

    /// Looks through what is about to be shown for what nobody declared, and overwrites what it finds unless it only counts; gives what it found.
    fn look_through(&self, frame: &mut Self::UpstreamFrame) -> Found;

    /// Says something to the client between answers; none where the protocol has no words for it, or it is too late for any.
    fn tell(&self, words: &str) -> Option<Self::UpstreamFrame>;

    /// What was just permitted runs under limits: nothing behind it goes on before its end is known, so that it can still be made to
    /// fail. Gives what must be sent right behind it, for its answer to come.
    fn limit(&mut self) -> Option<Self::ClientFrame>;

    /// A limit is reached by what was about to be shown: of it, and of everything behind it, no more than `rows` rows are. The command fails,
    /// with `excess` as its error, as if it had failed by itself; the caller has the upstream cancel it. What is no row and tells nothing is
    /// shown all the same.
    ///
    /// Gives nothing where nothing can be said now, in the middle of a row.
    fn cut(
        &mut self,
        over: Disclosure<Self::UpstreamFrame>,
        rows: u64,
        excess: &Excess,
    ) -> Option<Cut<Self::UpstreamFrame>>;

    /// The command has run for too long, and the caller has the upstream cancel it: its error then is `excess`.
    fn expire(&mut self, request: RequestId, excess: &Excess);

    /// What the machine itself must send upstream now, for a command that was cut to have an error's effect.
    fn owed(&mut self) -> Option<Self::ClientFrame>;

    /// The last words to the client.
    fn terminate(&mut self, reason: EndReason) -> Vec<Self::UpstreamFrame>;

    /// What has ended since the last call: how each command came out, in order.
    fn ended(&mut self) -> &mut VecDeque<Ended>;
}

/// What to do about a client's frame.
#[derive(Debug)]
pub enum ClientStep<F> {
    /// It carries a wish: decide and record its commands, then forward the frame or [`Protocol::refuse`] it.
    Ask(Intent<F>),
    /// It carries neither wish nor data: pass it on in its place.
    Relay(F),
    /// It belongs to a command that was permitted: pass it on in its place and count its bytes.
    Feed(RequestId, F),
    /// Nothing goes on: the upstream would pass over it.
    Hold,
    /// What it means depends on answers that are still to come: hand it in again after the upstream's next frame,
    /// and read nothing more from the client until then.
    Wait(F),
    /// The client has said goodbye: pass this on, then end.
    Farewell(F),
}

/// What to do about an upstream's frame.
#[derive(Debug)]
pub enum UpstreamStep<F> {
    /// It shows something to the client.
    Disclose(Disclosure<F>),
    /// It shows something of commands that nobody asked for by themselves, such as the binding of parameters that failed: they are decided
    /// and recorded first, and end with it.
    Account(Intent<()>, Disclosure<F>),
    /// It carries no data of the upstream's.
    Relay(F),
    /// Nothing goes on.
    Hold,
}

/// Whether what was understood of a command holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// It does.
    Yes,
    /// That is being found out.
    Wait,
    /// It may not: nothing of its answer may be shown, and what it did may not be what was permitted.
    No,
}

/// Data on its way to the client.
#[derive(Debug)]
pub struct Disclosure<F> {
    /// The command that it answers; none for what arrives unasked (notifications).
    pub request: Option<RequestId>,
    /// How many rows it completes.
    pub rows: u64,
    /// Whether its last row goes on in the next frame: nothing else can be said in between.
    pub goes_on: bool,
    /// The frame itself.
    pub frame: F,
}

/// What is left of data over a limit.
#[derive(Debug)]
pub struct Cut<F> {
    /// What may still be shown of them, or takes their place.
    pub shown: Option<Disclosure<F>>,
    /// The error that takes the place of the rest of the answer; none where the command goes on, or is over.
    pub error: Option<F>,
}

/// A limit that was reached, in words for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// More rows, or bytes, than the command may show.
    Shown,
    /// More than the session may be shown.
    Session,
    /// More than the principal may be shown in a day.
    Day,
    /// It ran for too long.
    Time,
}

/// A frame that wants something, and what it wants.
#[derive(Debug)]
pub struct Intent<F> {
    /// Its commands, at least one, in the order of their execution; the first is `first`, and so on by one.
    pub commands: Vec<Command>,
    /// The id of the first command.
    pub first: RequestId,
    /// The frame to forward once every command is permitted.
    pub frame: F,
    /// What this protocol cannot let pass, whatever policy says; the commands are recorded as refused.
    pub forbidden: Option<Refusal>,
}

/// One command to decide and to record.
#[derive(Debug, Clone)]
pub struct Command {
    /// What the frame does with the statement.
    pub phase: Phase,
    /// The statement as the client wrote it.
    pub statement: Bytes,
    /// Its parameters, where it has them.
    pub parameters: Vec<Parameter>,
    /// The statement as it is sent, where masks make it another.
    pub sent: Option<Bytes>,
    /// What analysis found. Shared, so that a decision about it can be cached by identity.
    pub meaning: Arc<Meaning>,
    /// Counts the rows of a result that several commands show in parts; none where it is this one's alone.
    pub shown_rows: Option<Arc<AtomicU64>>,
}

/// What a command means: all that policy looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Meaning {
    /// What it does, sorted and without doubles; empty when it touches nothing that policy guards.
    pub actions: Vec<Action>,
    /// What is proven about its effect.
    pub effect: Effect,
    /// Facts for policies.
    pub facts: Facts,
    /// The sensitive columns that it is shown masked.
    pub masks: Vec<Masked>,
    /// As which roles of the upstream it may run: policy must permit it for each.
    pub roles: Roles,
}

/// As which roles of the upstream a command may run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Roles {
    /// The one that its session logged in as.
    #[default]
    Login,
    /// Any of these.
    AnyOf(Vec<Arc<str>>),
    /// Nobody can tell.
    Unknown,
}

/// A sensitive column that a command is shown masked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Masked {
    /// The column.
    pub column: Object,
    /// The mask's name.
    pub mask: &'static str,
}

/// Whether a command runs, or is only made ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It is parsed and planned upstream, and its shape is told to the client.
    Prepare,
    /// It runs.
    Execute,
}

/// One parameter of a command, as it travelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The type's number on the wire; 0 where the client left it to the server.
    pub type_oid: u32,
    /// Whether `value` is in the protocol's binary format.
    pub binary: bool,
    /// The bytes; none for NULL.
    pub value: Option<Bytes>,
}

/// What decides, beside its own bytes, what a command does: two that are equal in all of this do the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The role in use, for people.
    pub role: String,
    /// Where names without a schema are looked for, for people.
    pub search_path: String,
    /// Names all that the meaning of a name depends on in this session, the two above included.
    pub state: [u8; 32],
    /// The objects that the commands name and the catalog knows: the number that the upstream gave each, and its qualified name; sorted.
    pub objects: Vec<(u32, String)>,
    /// Whether something earlier may hold locks until a later command ends the transaction.
    pub in_transaction: bool,
    /// Why the caller wants it, where the commands say so (`/* reason: … */`).
    pub reason: Option<String>,
    /// Why the caller wants it at once and without anybody's consent, where the commands say so (`/* break-glass: … */`).
    pub break_glass: Option<String>,
}

/// What kind of refusal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// Policy, or the protocol, does not let it pass.
    NotPermitted,
    /// It needed somebody's approval and did not get it.
    NotApproved,
    /// The client took it back while it waited.
    Cancelled,
}

/// Why a command is refused, in words for the client: what and what next, never which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of refusal it is.
    pub kind: RefusalKind,
    /// What is not permitted, as a lower-case fragment: `drop on public.orders`.
    pub message: String,
    /// What the client can do about it.
    pub hint: Option<String>,
}

/// What takes a refused frame's place.
#[derive(Debug)]
pub struct Refused<C> {
    /// A frame for the upstream that must fail there.
    pub upstream: C,
}

/// How a command came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which one.
    pub request: RequestId,
    /// How.
    pub ending: Ending,
}

/// The way in which a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The upstream said that it is done, with its tag (`UPDATE 1`).
    Completed(String),
    /// The upstream stopped after a part, as the client asked it to (a row limit).
    Suspended,
    /// The upstream refused or failed, with its code (SQLSTATE).
    Failed(String),
    /// It reached a limit: the client was told an error. What the upstream itself said: done, with its tag, or failed, with its code.
    Cut(Result<String, String>),
    /// An earlier command's error made the upstream pass over it: it never ran.
    Skipped,
    /// We refused it.
    Refused,
    /// The conversation ended before its outcome was known.
    Unknown,
}

impl Ending {
    /// The ending as ledger and logs spell it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Ending::Completed(_) => "completed",
            Ending::Suspended => "suspended",
            Ending::Failed(_) => "failed",
            Ending::Cut(_) => "cut",
            Ending::Skipped => "skipped",
            Ending::Refused => "refused",
            Ending::Unknown => "unknown",
        }
    }
}

/// Why a session ends. Each protocol says it in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndReason {
    /// The client said goodbye or hung up.
    ClientLeft,
    /// The upstream closed the connection.
    UpstreamLeft,
    /// The client broke the protocol.
    ClientViolation,
    /// The upstream broke the protocol.
    UpstreamViolation,
    /// The principal, or this session, was revoked.
    Revoked,
    /// The token or the grant has run out.
    Expired,
    /// Policy changed, and no longer lets this principal assume this role.
    PolicyChanged,
    /// Nothing was said for too long.
    Idle,
    /// A limit of policy was reached where the command alone could not be made to fail.
    Limit,
    /// Definitions changed while a command ran, so that it may have been another than the one that was permitted.
    DefinitionsChanged,
    /// The ledger cannot be written: nothing may go on without its record.
    LedgerUnavailable,
    /// The gateway stops.
    Shutdown,
}

impl EndReason {
    /// The reason as ledger and logs spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            EndReason::ClientLeft => "client_left",
            EndReason::UpstreamLeft => "upstream_left",
            EndReason::ClientViolation => "client_violation",
            EndReason::UpstreamViolation => "upstream_violation",
            EndReason::Revoked => "revoked",
            EndReason::Expired => "expired",
            EndReason::PolicyChanged => "policy_changed",
            EndReason::Idle => "idle",
            EndReason::Limit => "limit",
            EndReason::DefinitionsChanged => "definitions_changed",
            EndReason::LedgerUnavailable => "ledger_unavailable",
            EndReason::Shutdown => "shutdown",
        }
    }
}

/// A peer broke its protocol, or sent what this gateway does not know. The connection ends.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Violation(pub String);

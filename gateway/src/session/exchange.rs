//! One conversation inside a session: what was asked for, how it was decided, what it showed, and how it came out.
//!
//! It joins policy and the book, and knows no protocol. Decisions are made here and nowhere else.

mod consent;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};

use gatebook_wire::action::Effect;
use gatebook_wire::detect::Found;
use gatebook_wire::protocol::{
    Circumstances, Command, Disclosure, EndReason, Ended, Ending, Excess, Intent, Phase, Refusal,
    RefusalKind, RequestId, Violation,
};
use tokio::task::JoinHandle;

use consent::{Asking, Consent};
pub(crate) use consent::{Locks, People, Presented};

use super::signal::Ticket;
use super::tally::{Bounds, Shown, Tally};
use crate::approval::Lapse;
use crate::delegation::Allowance;
use crate::policy::{Decision, DecisionCache, Live, Standing, Verdict as Ruling};
use crate::record::{Book, CommandEntry, OutcomeEntry, Ruled};

/// Under what terms a session runs: who, on what, as whom, and how strictly.
pub(crate) struct Terms {
    /// Who asks, where, and as which role.
    pub(crate) standing: Arc<Standing>,
    /// Whether refusals are recorded but not made.
    pub(crate) shadow: bool,
    /// How many commands may still be executed, by each link of the chain that limits them.
    pub(crate) allowances: Vec<Arc<Allowance>>,
    /// Whether reads are released once their record is written, before it is durable.
    pub(crate) reads_when_written: bool,
    /// What the principal was shown today.
    pub(crate) tally: Arc<Tally>,
    /// Has the upstream cancel what the session runs; the task ends when it has been asked.
    pub(crate) cancel: Option<Cancel>,
}

/// See [`Terms::cancel`].
pub(crate) type Cancel = Box<dyn Fn() -> JoinHandle<()> + Send + Sync>;

/// What passed in an exchange.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Commands decided.
    pub(crate) commands: u64,
    /// Commands refused.
    pub(crate) refused: u64,
    /// Bytes that commands showed to the client: all of it is in their outcomes.
    pub(crate) shown_bytes: u64,
    /// Bytes of data that the client fed to commands: all of it is in their outcomes.
    pub(crate) fed_bytes: u64,
    /// Everything that passed, commands or not.
    pub(crate) channels: Channels,
}

/// What passed in each channel, from the session's first message to its last words.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Channels {
    /// Taken from the client.
    pub(crate) client_to_gateway: Passed,
    /// Let go to the upstream.
    pub(crate) gateway_to_upstream: Passed,
    /// Taken from the upstream.
    pub(crate) upstream_to_gateway: Passed,
    /// Let go to the client.
    pub(crate) gateway_to_client: Passed,
}

/// What passed one way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Passed {
    /// Bytes, headers included.
    pub(crate) bytes: u64,
    /// Messages that ended.
    pub(crate) messages: u64,
}

impl std::ops::AddAssign for Passed {
    fn add_assign(&mut self, more: Passed) {
        self.bytes += more.bytes;
        self.messages += more.messages;
    }
}

/// How long the upstream may go on with a command that was cut.
const DRAINING: Duration = Duration::from_secs(10);

/// How many decisions a session remembers.
const DECISIONS_MAX: usize = 512;

/// One conversation inside a session.
pub(crate) struct Exchange {
    terms: Terms,
    policy: Arc<Live>,
    book: Book,
    decisions: DecisionCache,
    open: VecDeque<Open>,
    /// What the oldest open command that shows something has shown so far.
    shown: blake3::Hasher,
    fed: blake3::Hasher,
    totals: Totals,
    violation: Option<Violation>,
    asking: Asking,
    /// Whether commands were recorded that nobody has asked to be made durable.
    uncommitted: bool,
    /// When the last command ended: the next one runs from then on.
    free_since: Instant,
}

/// A command that was asked for and has not ended.
struct Open {
    request: RequestId,
    /// Whether it runs, and is not only made ready.
    runs: bool,
    gate: Ticket,
    asked: Instant,
    rows: u64,
    bytes: u64,
    fed_bytes: u64,
    detected: Found,
    bounds: Bounds,
    /// The rows of the whole result, where several commands show it.
    shown_rows: Option<Arc<AtomicU64>>,
    /// Whether the last row shown goes on.
    unfinished: bool,
    /// When it was cut, or cancelled for its time.
    stopped: Option<Instant>,
}

impl Open {
    fn new(request: RequestId, command: &Command, gate: Ticket, asked: Instant, bounds: Bounds) -> Open {
        Open {
            request,
            runs: command.phase == Phase::Execute,
            gate,
            asked,
            rows: 0,
            bytes: 0,
            fed_bytes: 0,
            detected: Found::default(),
            bounds,
            shown_rows: command.shown_rows.clone(),
            unfinished: false,
            stopped: None,
        }
    }
}

/// Whether a frame may go.
pub(super) enum Verdict {
    /// Once this record is durable.
    Permit(Ticket),
    /// The same, under limits.
    PermitLimited(Ticket),
    /// It may not; what takes its place goes once this record is durable.
    Refuse(Refusal, Ticket),
    /// It waits for people: its frame is to be handed in again once [`Exchange::is_answered`], and when the upstream has spoken.
    Wait,
}

impl Exchange {
    /// An exchange under `terms`, written into `book`.
    pub(crate) fn new(terms: Terms, policy: Arc<Live>, book: Book, people: People) -> Exchange {
        if terms.reads_when_written {
            book.signal().want_written();
        }
        Exchange {
            terms,
            policy,
            book,
            decisions: DecisionCache::new(DECISIONS_MAX),
            open: VecDeque::new(),
            shown: blake3::Hasher::new(),
            fed: blake3::Hasher::new(),
            totals: Totals::default(),
            violation: None,
            asking: Asking::new(people),
            uncommitted: false,
            free_since: Instant::now(),
        }
    }

    /// Decides and records every command of an intent; one that waits for people is neither decided nor recorded yet.
    pub(super) fn authorize<F>(
        &mut self,
        intent: &Intent<F>,
        circumstances: impl FnOnce() -> Circumstances,
    ) -> Verdict {
        let asked = Instant::now();
        let policy = self.policy.load();
        let mut refusal = intent.forbidden.clone();
        let mut note = None;
        if policy.concerns_people() && intent.forbidden.is_none() && !self.terms.shadow {
            match self.consent(&policy, &intent.commands, intent.first, circumstances) {
                Consent::NotWanted | Consent::Given => {}
                Consent::Wait => return Verdict::Wait,
                Consent::Refused(why, words) => (refusal, note) = (Some(why), Some(words)),
            }
        } else {
            self.give_up(Lapse::Changed);
        }
        let (mut may_change, mut limited) = (false, false);
        let mut gate = 0;
        if self.open.is_empty() {
            self.book.begin();
        }
        for (command, request) in intent.commands.iter().zip(intent.first..) {
            let mut decision = self.decisions.decide(&policy, &self.terms.standing, &command.meaning);
            if let Some(note) = &note {
                decision = Arc::new(not_approved(&decision, note));
            }
            let bounds = if self.terms.shadow { Bounds::default() } else { Bounds::of(&decision) };
            let used_up =
                if command.phase == Phase::Execute { bounds.used_up(self.shown_so_far(0)) } else { None };
            let executes = command.phase == Phase::Execute
                && intent.forbidden.is_none()
                && decision.is_permit()
                && used_up.is_none();
            if executes && !self.terms.allowances.iter().all(|allowance| allowance.take()) {
                decision = Arc::new(decision.beyond("the commands that were handed down are used up"));
            }
            let refused = intent.forbidden.is_some() || !decision.is_permit() || used_up.is_some();
            let tried = self.terms.shadow && intent.forbidden.is_none() && !decision.beyond;
            let ruled = match (refused, tried) {
                (false, _) => Ruled::Permit,
                (true, false) => Ruled::Refuse,
                (true, true) => Ruled::ShadowRefuse,
            };
            if ruled == Ruled::Refuse {
                self.totals.refused += 1;
                refusal.get_or_insert_with(|| used_up.map_or_else(|| refusal_of(command), used_up_of));
            }
            self.totals.commands += 1;
            may_change |= command.meaning.effect == Effect::MayChange;
            gate = self.book.command(&CommandEntry { request, command, decision: &decision, ruled });
            limited |= bounds.are_any();
            self.open.push_back(Open::new(request, command, gate, asked, bounds));
        }
        self.uncommitted = true;
        // The answer of a command waits for the records of all that were asked for with it.
        let asked_with = intent.commands.len();
        self.open.iter_mut().rev().take(asked_with).for_each(|open| open.gate = gate);
        match refusal {
            Some(refusal) => {
                // What it is told instead is ours.
                self.open.iter_mut().rev().take(asked_with).for_each(|open| open.bounds = Bounds::default());
                Verdict::Refuse(refusal, gate)
            }
            None if limited => Verdict::PermitLimited(if may_change { gate } else { 0 }),
            None => Verdict::Permit(if may_change { gate } else { 0 }),
        }
    }

    /// Records commands that nobody asked for by themselves and that are over, with what policy says of them.
    pub(super) fn account(&mut self, intent: &Intent<()>) {
        let policy = self.policy.load();
        if self.open.is_empty() {
            self.book.begin();
        }
        for (command, request) in intent.commands.iter().zip(intent.first..) {
            let decision = self.decisions.decide(&policy, &self.terms.standing, &command.meaning);
            let ruled = match (decision.is_permit(), self.terms.shadow) {
                (true, _) => Ruled::Permit,
                (false, false) => Ruled::Refuse,
                (false, true) => Ruled::ShadowRefuse,
            };
            self.totals.commands += 1;
            self.totals.refused += u64::from(ruled == Ruled::Refuse);
            let gate = self.book.command(&CommandEntry { request, command, decision: &decision, ruled });
            let bounds = if self.terms.shadow { Bounds::default() } else { Bounds::of(&decision) };
            self.open.push_back(Open::new(request, command, gate, Instant::now(), bounds));
        }
        self.uncommitted = true;
    }

    /// Nothing more can be done now. Has the task woken once the record `awaited` is far enough, and what was recorded written where that is
    /// waited for: one sync for all that came together, in this session and in others.
    ///
    /// A read's answer is under way while its record is not wanted yet; so the records of many sessions gather, and one of them, the first whose
    /// answer has come, has all of them written. Where hardly anybody else is there to wait for, its record is written meanwhile.
    pub(super) fn wait_for(&mut self, awaited: Option<Ticket>) {
        self.book.signal().wait_for(awaited.unwrap_or(0));
        if self.uncommitted && (awaited.is_some() || self.book.is_quiet()) {
            self.uncommitted = false;
            self.book.commit();
        }
    }

    /// The record that must be durable before anything of this command is shown.
    pub(super) fn gate(&self, request: RequestId) -> Ticket {
        self.find(request).map_or(0, |at| self.open[at].gate)
    }

    /// How far the records are durable: what may change something goes no further.
    pub(super) fn durable(&self) -> Ticket {
        self.book.signal().durable()
    }

    /// Up to which record's command answers may be shown. It is further than what is durable only where the resource releases its reads early, and
    /// only reads can have an answer by then.
    pub(super) fn shown_up_to(&self) -> Ticket {
        if self.terms.reads_when_written {
            self.book.signal().written()
        } else {
            self.book.signal().durable()
        }
    }

    /// Data for the upstream that belong to a command.
    pub(super) fn fed(&mut self, request: RequestId, bytes: &[u8]) {
        // What comes for a command that has ended belongs to none.
        let Some(at) = self.find(request) else { return };
        self.totals.fed_bytes += bytes.len() as u64;
        self.fed.update(bytes);
        self.open[at].fed_bytes += bytes.len() as u64;
    }

    /// Whether data may be shown, within the limits of the decision; where they may not, how many of the rows may, and which limit it is.
    /// Of what is no row only its bytes count.
    pub(super) fn excess(
        &self,
        request: Option<RequestId>,
        rows: u64,
        goes_on: bool,
        bytes: &[u8],
    ) -> Option<(u64, Excess)> {
        let open = &self.open[request.and_then(|request| self.find(request))?];
        // A row counts from its first byte.
        let begun = rows + u64::from(goes_on);
        if !open.bounds.are_any() {
            return None;
        }
        let shown = open.shown_rows.as_ref().map_or(open.rows, |rows| rows.load(Ordering::Relaxed));
        let (rows, excess) = open.bounds.over(self.shown_so_far(shown), begun, bytes.len() as u64)?;
        // One that has begun is shown to its end.
        Some((rows.max(u64::from(open.unfinished)), excess))
    }

    fn shown_so_far(&self, rows: u64) -> Shown {
        Shown { rows, session_bytes: self.totals.shown_bytes, day: self.terms.tally.today() }
    }

    /// Counts data that are about to be shown to the client.
    pub(super) fn disclosed<F>(&mut self, disclosure: &Disclosure<F>, bytes: &[u8], detected: &Found) {
        let &Disclosure { request, rows, goes_on, .. } = disclosure;
        if let Some(at) = request.and_then(|request| self.find(request)) {
            let open = &mut self.open[at];
            open.rows += rows;
            open.detected.add(detected);
            open.unfinished = goes_on;
            if let Some(shown) = &open.shown_rows {
                shown.fetch_add(rows, Ordering::Relaxed);
            }
            open.bytes += bytes.len() as u64;
            self.shown.update(bytes);
            self.totals.shown_bytes += bytes.len() as u64;
            self.terms.tally.add(rows, bytes.len() as u64);
        }
    }

    /// A limit is reached where nothing can be said: the session ends.
    pub(super) fn unsayable(&self) {
        self.book.signal().end(EndReason::Limit);
    }

    /// A command may have been another than the one that was permitted: the session ends.
    pub(super) fn unconfirmed(&self) {
        self.book.signal().end(EndReason::DefinitionsChanged);
    }

    /// A command was cut: the upstream has to be done with it soon.
    pub(super) fn stopped(&mut self, request: Option<RequestId>) {
        if let Some(at) = request.and_then(|request| self.find(request)) {
            self.open[at].stopped = Some(Instant::now());
        }
    }

    /// When the command that runs has to be stopped, or to have stopped.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let open = self.open.front()?;
        match open.stopped {
            Some(at) => Some(at + DRAINING),
            None => Some(open.asked.max(self.free_since) + Duration::from_secs(open.bounds.seconds?)),
        }
    }

    /// The deadline has passed: gives the command that is to be stopped. One that was stopped and still runs ends the session.
    pub(super) fn overdue(&mut self) -> Option<RequestId> {
        let open = self.open.front_mut()?;
        if open.stopped.is_some() {
            self.book.signal().end(EndReason::Limit);
            return None;
        }
        open.stopped = Some(Instant::now());
        Some(open.request)
    }

    /// Has the upstream cancel what runs.
    pub(super) fn cancel(&self) -> Option<JoinHandle<()>> {
        self.terms.cancel.as_ref().map(|cancel| cancel())
    }

    /// Keeps what passed in all.
    pub(super) fn passed(&mut self, channels: Channels) {
        self.totals.channels = channels;
    }

    /// A command came out.
    pub(super) fn ended(&mut self, ended: Ended) {
        let Some(open) = self.find(ended.request).and_then(|at| self.open.remove(at)) else { return };
        self.free_since = Instant::now();
        self.outcome(&open, &ended.ending);
        if self.open.is_empty() {
            self.book.finish();
        }
    }

    fn outcome(&mut self, open: &Open, ending: &Ending) {
        let shown = (open.bytes > 0).then(|| self.shown.finalize());
        let fed = (open.fed_bytes > 0).then(|| self.fed.finalize());
        self.book.outcome(&OutcomeEntry {
            request: open.request,
            ending,
            rows: open.rows,
            bytes: open.bytes,
            duration: open.asked.elapsed(),
            shown,
            fed_bytes: open.fed_bytes,
            fed,
            detected: open.detected,
        });
        if shown.is_some() {
            self.shown.reset();
        }
        if fed.is_some() {
            self.fed.reset();
        }
    }

    fn find(&self, request: RequestId) -> Option<usize> {
        let first = self.open.front()?.request;
        let guess = usize::try_from(request.checked_sub(first)?).ok()?;
        match self.open.get(guess) {
            Some(open) if open.request == request => Some(guess),
            _ => self.open.iter().position(|open| open.request == request),
        }
    }

    /// Something passed, in either direction. A session whose command runs is not idle.
    pub(super) fn active(&self) {
        self.book.signal().active(!self.open.is_empty() || self.is_waiting());
    }

    /// Whether a command is open.
    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether the recorder takes more.
    pub(super) fn has_room(&self) -> bool {
        self.book.has_room()
    }

    /// Why the session must end, if it must.
    pub(super) fn ending(&self) -> Option<EndReason> {
        self.book.signal().ending()
    }

    /// Wakes the task of `cx` when records become durable, the recorder has room, or the session must end.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.book.signal().register(cx);
    }

    /// Keeps why a peer was cut off.
    pub(super) fn violated(&mut self, reason: EndReason, violation: &Violation) -> EndReason {
        self.violation = Some(violation.clone());
        reason
    }

    /// Ends the exchange: what is still open has no known outcome. Gives back the book, whether a command was still under way,
    /// what passed, and what broke the protocol.
    pub(crate) fn close(mut self) -> (Book, bool, Totals, Option<Violation>) {
        self.give_up(Lapse::SessionEnded);
        let under_way = self.has_open();
        if under_way {
            self.book.finish();
        }
        while let Some(open) = self.open.pop_front() {
            self.outcome(&open, &Ending::Unknown);
        }
        (self.book, under_way, self.totals, self.violation)
    }
}

/// A decision whose permission is worth nothing, because people did not consent.
fn not_approved(decision: &Decision, why: &str) -> Decision {
    let mut errors = decision.errors.clone();
    errors.push(format!("not approved: {why}"));
    Decision { verdict: Ruling::Refuse, errors, ..decision.clone() }
}

/// The kind of a command, in words.
fn kind_of(command: &Command) -> String {
    let kind = command.meaning.facts.kind.replace('_', " ");
    if kind == "opaque" { "a statement that cannot be analysed".to_owned() } else { kind }
}

/// What the client is told when what it may be shown is used up.
fn used_up_of(excess: Excess) -> Refusal {
    let what = if excess == Excess::Day { "in one day" } else { "in one session" };
    Refusal {
        kind: RefusalKind::NotPermitted,
        message: format!("more than may be shown {what}"),
        hint: Some("come back later, or ask for less".into()),
    }
}

/// What the client is told: the kind of command it sent, and never whether what it names exists.
fn refusal_of(command: &Command) -> Refusal {
    let hint = Some("ask the operators of this gateway for access".into());
    Refusal { kind: RefusalKind::NotPermitted, message: kind_of(command), hint }
}

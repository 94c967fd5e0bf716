//! The one loop: every protocol's frames go through it, in both directions, and nothing goes around it.
//!
//! `decide → record → send` on the way up; `record → send` on the way down. A frame that waits for the disk keeps its
//! place in a queue, and everything behind it waits with it; an answer that has come before its command's record is durable
//! is held, and nothing more is read from the upstream.
//!
//! What a newcomer gets wrong: nothing here awaits. The loop is one poll function, so that no branch can be cancelled half-way,
//! and so that each turn looks first at whether the session must end.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use gatebook_wire::protocol::{
    ClientStep, Confirmed, Cut, Disclosure, EndReason, Excess, Intent, Protocol, UpstreamStep,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::cleared::{Cleared, Door};
use super::exchange::{Channels, Exchange, Passed, Verdict};
use super::signal::Ticket;
use crate::approval::Lapse;
use crate::link::{Link, OUTBOX_BYTES_MAX};

/// How long a command may go on after its client has left.
const LEAVING: Duration = Duration::from_secs(10);

/// How long a client has to take our last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How many bytes may wait for the disk before the client is read no further.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Relays until the conversation ends; says why it did.
///
/// Not cancel safe: dropping it leaves commands without an outcome.
pub(crate) async fn relay<P, C, U>(machine: P, client: C, upstream: U, exchange: &mut Exchange) -> EndReason
where
    P: Protocol,
    P::ClientFrame: Clone,
    C: Link<Incoming = P::ClientFrame, Outgoing = P::UpstreamFrame>,
    U: Link<Incoming = P::UpstreamFrame, Outgoing = P::ClientFrame>,
{
    let mut relay = Relay {
        machine,
        client: Door::new(client),
        upstream: Door::new(upstream),
        exchange,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        held: None,
        stalled: None,
        retry: false,
        from_client: Passed::default(),
        from_upstream: Passed::default(),
        upstream_closed: false,
        unfinished: false,
        leaving: None,
        stop: None,
        cancelling: None,
    };
    let reason = poll_fn(|cx| relay.poll(cx)).await;
    relay.last_words(reason).await;
    let channels = Channels {
        client_to_gateway: relay.from_client,
        gateway_to_upstream: relay.upstream.passed(),
        upstream_to_gateway: relay.from_upstream,
        gateway_to_client: relay.client.passed(),
    };
    relay.exchange.passed(channels);
    reason
}

struct Relay<'a, P: Protocol, C, U> {
    machine: P,
    client: Door<C>,
    upstream: Door<U>,
    exchange: &'a mut Exchange,
    /// Frames for the upstream, each with the record that must be durable first.
    waiting: VecDeque<(Ticket, Cleared<P::ClientFrame>, usize)>,
    waiting_bytes: usize,
    /// An answer whose command's record is not durable yet, or that is not confirmed yet.
    held: Option<Held<P::UpstreamFrame>>,
    /// A client's frame that can be understood only after the upstream's next, or that waits for people. It is handed in again.
    stalled: Option<P::ClientFrame>,
    retry: bool,
    /// What was taken from either side.
    from_client: Passed,
    from_upstream: Passed,
    upstream_closed: bool,
    /// Whether the last frame pushed to the client goes on in one that was not.
    unfinished: bool,
    /// The client has left; what is open may end until then.
    leaving: Option<Pin<Box<Sleep>>>,
    /// When the command that runs has to be stopped.
    stop: Option<Pin<Box<Sleep>>>,
    /// The upstream is being asked to cancel. Until it has been, nothing is sent that could be what it cancels.
    cancelling: Option<JoinHandle<()>>,
}

struct Held<F> {
    /// The record that must be durable.
    gate: Ticket,
    /// Whether what was understood of its command is confirmed; where not, the task is woken when that is known.
    confirmed: bool,
    disclosure: Disclosure<F>,
}

impl<P, C, U> Relay<'_, P, C, U>
where
    P: Protocol,
    P::ClientFrame: Clone,
    C: Link<Incoming = P::ClientFrame, Outgoing = P::UpstreamFrame>,
    U: Link<Incoming = P::UpstreamFrame, Outgoing = P::ClientFrame>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        self.exchange.register(cx);
        // A side that had nothing more to read will wake the task when it has: within this turn it is not asked again.
        let (mut client_dry, mut upstream_dry) = (false, false);
        loop {
            if let Some(reason) = self.exchange.ending() {
                return Poll::Ready(reason);
            }
            let mut moved = self.release(cx);
            moved |= self.poll_stop(cx);
            match self.pump_upstream(cx) {
                Ok(pumped) => moved |= pumped,
                Err(violation) => {
                    return Poll::Ready(self.exchange.violated(EndReason::UpstreamViolation, &violation));
                }
            }
            moved |= self.tell_waiting(cx);
            match self.pump_client(cx) {
                Ok(pumped) => moved |= pumped,
                Err(violation) => {
                    return Poll::Ready(self.exchange.violated(EndReason::ClientViolation, &violation));
                }
            }
            // An outbox that was full held frames back that nothing else will wake us for.
            let full = self.full_outboxes();
            let client_flushed = match self.client.poll_flush(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) if self.leaving.is_none() => {
                    self.leave();
                    moved = true;
                    false
                }
                Poll::Ready(Err(_)) => true,
                Poll::Pending => false,
            };
            // What an upstream says before it closes is still read when it can no longer be written to.
            let upstream_flushed =
                self.upstream_closed || !matches!(self.upstream.poll_flush(cx), Poll::Pending);
            moved |= self.full_outboxes() < full;
            if self.upstream_closed && self.held.is_none() && (client_flushed || self.leaving.is_some()) {
                let left =
                    if self.leaving.is_some() { EndReason::ClientLeft } else { EndReason::UpstreamLeft };
                return Poll::Ready(left);
            }
            if let Some(deadline) = &mut self.leaving {
                let done = self.waiting.is_empty() && upstream_flushed && !self.exchange.has_open();
                if done || deadline.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(EndReason::ClientLeft);
                }
            }
            if !upstream_dry && self.upstream_may_speak() {
                match self.upstream.poll_fill(cx) {
                    Poll::Ready(Ok(true)) => moved = true,
                    Poll::Ready(Ok(false) | Err(_)) => {
                        self.upstream_closed = true;
                        moved = true;
                    }
                    Poll::Pending => upstream_dry = true,
                }
            }
            if !client_dry && self.client_may_be_read() {
                match self.client.poll_fill(cx) {
                    Poll::Ready(Ok(true)) => moved = true,
                    Poll::Ready(Ok(false) | Err(_)) => {
                        self.leave();
                        moved = true;
                    }
                    Poll::Pending => client_dry = true,
                }
            }
            if !moved {
                // The record that lets something go is waited for; it may have become durable since it was looked at. A gate that is reached
                // already is not what is waited for: behind it the outbox is full.
                let shown = self.held.as_ref().filter(|held| held.confirmed).map(|held| held.gate);
                let sent = self.waiting.front().map(|front| front.0);
                let (shown_up_to, durable) = (self.exchange.shown_up_to(), self.exchange.durable());
                let unshown = shown.filter(|gate| *gate > shown_up_to);
                let unsent = sent.filter(|gate| *gate > durable);
                self.exchange.wait_for(unshown.into_iter().chain(unsent).min());
                let shown = shown.is_some_and(|gate| gate <= self.exchange.shown_up_to());
                let sent = sent.is_some_and(|gate| gate <= self.exchange.durable());
                if shown || (sent && self.upstream.queued_bytes() < OUTBOX_BYTES_MAX) {
                    continue;
                }
                return Poll::Pending;
            }
            self.exchange.active();
        }
    }

    /// Stops a command whose time is over, and sends what was kept back while the upstream was asked to cancel.
    fn poll_stop(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        match self.exchange.deadline().map(Instant::from_std) {
            None => self.stop = None,
            Some(at) => {
                let stop = self.stop.get_or_insert_with(|| Box::pin(sleep_until(at)));
                if stop.deadline() != at {
                    stop.as_mut().reset(at);
                }
                if stop.as_mut().poll(cx).is_ready() {
                    self.stop = None;
                    moved = true;
                    if let Some(request) = self.exchange.overdue() {
                        self.machine.expire(request, &Excess::Time);
                        self.cancel();
                    }
                }
            }
        }
        if let Some(cancelling) = &mut self.cancelling
            && Pin::new(cancelling).poll(cx).is_ready()
        {
            self.cancelling = None;
            self.retry = true;
            moved = true;
        }
        if self.cancelling.is_none() {
            while let Some(frame) = self.machine.owed() {
                let bytes = Door::<U>::bytes(&frame).len();
                self.send(0, bytes, Cleared::ours(frame));
                moved = true;
            }
        }
        moved
    }

    fn cancel(&mut self) {
        if self.cancelling.is_none() {
            self.cancelling = self.exchange.cancel();
        }
    }

    /// How many outboxes are too full for more.
    fn full_outboxes(&self) -> usize {
        let full = |queued: usize| usize::from(queued >= OUTBOX_BYTES_MAX);
        full(self.client.queued_bytes()) + full(self.upstream.queued_bytes())
    }

    fn leave(&mut self) {
        if self.exchange.is_waiting() {
            self.exchange.give_up(Lapse::ClientLeft);
            self.stalled = None;
        }
        self.leaving.get_or_insert_with(|| Box::pin(sleep(LEAVING)));
    }

    fn upstream_may_speak(&self) -> bool {
        !self.upstream_closed
            && self.held.is_none()
            && self.client.queued_bytes() < OUTBOX_BYTES_MAX
            && self.exchange.has_room()
    }

    fn client_may_speak(&self) -> bool {
        self.leaving.is_none()
            && self.cancelling.is_none()
            && self.waiting_bytes < WAITING_BYTES_MAX
            && self.upstream.queued_bytes() < OUTBOX_BYTES_MAX
            && self.exchange.has_room()
    }

    /// While a command waits for people its client is read on, up to a bound: that it has left shows by nothing else.
    fn client_may_be_read(&self) -> bool {
        let listens = self.exchange.is_waiting() && self.client.arrived_bytes() < WAITING_BYTES_MAX;
        self.client_may_speak() && (self.stalled.is_none() || listens)
    }

    /// Tells a client that its command waits for people, at once and from time to time.
    fn tell_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        // Words in the middle of a row would be taken for a part of it.
        if self.unfinished || self.leaving.is_some() || self.client.queued_bytes() >= OUTBOX_BYTES_MAX {
            return false;
        }
        let Some(frame) = self.exchange.words(cx).and_then(|words| self.machine.tell(&words)) else {
            return false;
        };
        self.client.push(&Cleared::ours(frame));
        true
    }

    /// Lets go what was waiting for the disk.
    fn release(&mut self, cx: &Context<'_>) -> bool {
        let durable = self.exchange.durable();
        let mut moved = false;
        while let Some((gate, _, _)) = self.waiting.front() {
            if *gate > durable || self.upstream.queued_bytes() >= OUTBOX_BYTES_MAX {
                break;
            }
            if let Some((_, frame, bytes)) = self.waiting.pop_front() {
                self.waiting_bytes -= bytes;
                self.upstream.push(&frame);
                moved = true;
            }
        }
        if let Some(held) = self.held.take() {
            self.disclose_when_recorded(held.gate, held.disclosure, cx);
            moved |= self.held.is_none();
        }
        moved
    }

    /// Sends a frame up once the record `gate` is durable, behind everything that was sent before it.
    fn send(&mut self, gate: Ticket, bytes: usize, frame: Cleared<P::ClientFrame>) {
        if self.waiting.is_empty() && gate <= self.exchange.durable() {
            self.upstream.push(&frame);
        } else {
            self.waiting_bytes += bytes;
            self.waiting.push_back((gate, frame, bytes));
        }
    }

    fn pump_client(&mut self, cx: &Context<'_>) -> Result<bool, gatebook_wire::protocol::Violation> {
        let mut moved = false;
        self.retry |= self.exchange.is_answered() || self.machine.awaited(cx.waker());
        while self.client_may_speak() {
            let waited = self.exchange.is_waiting();
            let frame = match self.stalled.take() {
                Some(frame) if !std::mem::take(&mut self.retry) => {
                    self.stalled = Some(frame);
                    break;
                }
                Some(frame) => frame,
                None => {
                    let Some(frame) = self.client.take()? else { break };
                    self.from_client += Door::<U>::weight(&frame);
                    frame
                }
            };
            moved = true;
            let again = frame.clone();
            let step = self.machine.on_client(frame)?;
            match &step {
                ClientStep::Ask(_) | ClientStep::Wait(_) => {}
                ClientStep::Hold if waited => self.exchange.give_up(Lapse::PassedOver),
                _ if waited => self.exchange.give_up(Lapse::Changed),
                _ => {}
            }
            match step {
                ClientStep::Ask(intent) => {
                    if !self.ask(intent) {
                        self.stalled = Some(again);
                        self.retry = false;
                        break;
                    }
                }
                ClientStep::Relay(frame) => {
                    let bytes = Door::<U>::bytes(&frame).len();
                    self.send(0, bytes, Cleared::inert(frame));
                }
                ClientStep::Feed(request, frame) => {
                    let bytes = Door::<U>::bytes(&frame);
                    self.exchange.fed(request, bytes);
                    let bytes = bytes.len();
                    self.send(0, bytes, Cleared::permitted(frame));
                }
                ClientStep::Hold => {}
                ClientStep::Wait(frame) => {
                    self.stalled = Some(frame);
                    self.retry = false;
                    break;
                }
                ClientStep::Farewell(frame) => {
                    let bytes = Door::<U>::bytes(&frame).len();
                    self.send(0, bytes, Cleared::inert(frame));
                    self.leave();
                }
            }
        }
        Ok(moved)
    }

    /// Decides what a frame wants; tells whether that is decided, and does not wait for people.
    fn ask(&mut self, intent: Intent<P::ClientFrame>) -> bool {
        let machine = &self.machine;
        match self.exchange.authorize(&intent, || machine.circumstances(&intent.commands)) {
            Verdict::Wait => {
                self.machine.withdraw();
                return false;
            }
            Verdict::Permit(gate) => {
                let bytes = Door::<U>::bytes(&intent.frame).len();
                self.send(gate, bytes, Cleared::permitted(intent.frame));
            }
            Verdict::PermitLimited(gate) => {
                let bytes = Door::<U>::bytes(&intent.frame).len();
                self.send(gate, bytes, Cleared::permitted(intent.frame));
                if let Some(frame) = self.machine.limit() {
                    let bytes = Door::<U>::bytes(&frame).len();
                    self.send(gate, bytes, Cleared::inert(frame));
                }
            }
            Verdict::Refuse(refusal, gate) => {
                let frame = self.machine.refuse(&refusal).upstream;
                let bytes = Door::<U>::bytes(&frame).len();
                self.send(gate, bytes, Cleared::ours(frame));
            }
        }
        true
    }

    fn pump_upstream(&mut self, cx: &Context<'_>) -> Result<bool, gatebook_wire::protocol::Violation> {
        let mut moved = false;
        while self.held.is_none()
            && self.client.queued_bytes() < OUTBOX_BYTES_MAX
            && self.exchange.has_room()
            && self.exchange.ending().is_none()
        {
            let Some(frame) = self.upstream.take()? else { break };
            self.from_upstream += Door::<C>::weight(&frame);
            moved = true;
            self.retry = true;
            match self.machine.on_upstream(frame)? {
                UpstreamStep::Disclose(disclosure) => self.take_disclosure(disclosure, cx),
                UpstreamStep::Account(intent, disclosure) => {
                    self.exchange.account(&intent);
                    self.take_disclosure(disclosure, cx);
                }
                UpstreamStep::Relay(frame) => {
                    self.client.push(&Cleared::inert(frame));
                }
                UpstreamStep::Hold => {}
            }
            if self.held.is_none() {
                self.settle();
            }
        }
        Ok(moved)
    }

    fn take_disclosure(&mut self, disclosure: Disclosure<P::UpstreamFrame>, cx: &Context<'_>) {
        let gate = disclosure.request.map_or(0, |request| self.exchange.gate(request));
        self.disclose_when_recorded(gate, disclosure, cx);
    }

    /// Shows data to the client once the record of their command is durable, and what was understood of it is confirmed.
    fn disclose_when_recorded(
        &mut self,
        gate: Ticket,
        disclosure: Disclosure<P::UpstreamFrame>,
        cx: &Context<'_>,
    ) {
        let confirmed = self.machine.confirm(&disclosure, cx.waker());
        match confirmed {
            Confirmed::Yes if gate <= self.exchange.shown_up_to() => self.disclose(disclosure),
            Confirmed::Yes | Confirmed::Wait => {
                self.held = Some(Held { gate, confirmed: confirmed == Confirmed::Yes, disclosure });
            }
            Confirmed::No => self.exchange.unconfirmed(),
        }
    }

    /// Shows data to the client, counted before they go.
    fn disclose(&mut self, disclosure: Disclosure<P::UpstreamFrame>) {
        let Disclosure { request, rows, goes_on, .. } = disclosure;
        let bytes = Door::<C>::bytes(&disclosure.frame);
        match self.exchange.excess(request, rows, goes_on, bytes) {
            _ if self.leaving.is_some() => {}
            None => self.show(disclosure),
            Some((rows, excess)) => self.cut(disclosure, rows, excess),
        }
        self.settle();
    }

    fn show(&mut self, mut disclosure: Disclosure<P::UpstreamFrame>) {
        let detected = self.machine.look_through(&mut disclosure.frame);
        self.exchange.disclosed(&disclosure, Door::<C>::bytes(&disclosure.frame), &detected);
        self.unfinished = disclosure.goes_on;
        self.client.push(&Cleared::disclosed(disclosure.frame));
    }

    /// A limit is reached: an error takes the place of the rest, where there is one.
    fn cut(&mut self, over: Disclosure<P::UpstreamFrame>, rows: u64, excess: Excess) {
        let request = over.request;
        let Some(Cut { shown, error }) = self.machine.cut(over, rows, &excess) else {
            return self.exchange.unsayable();
        };
        if let Some(shown) = shown {
            self.show(shown);
        }
        if let Some(error) = error {
            self.client.push(&Cleared::ours(error));
            self.exchange.stopped(request);
            self.cancel();
        }
    }

    /// Records how commands came out, once what they showed is counted.
    fn settle(&mut self) {
        while let Some(ended) = self.machine.ended().pop_front() {
            self.exchange.ended(ended);
        }
    }

    /// Tells the client why it ends, as far as it still listens.
    async fn last_words(&mut self, reason: EndReason) {
        if self.unfinished {
            // Words in the middle of a row would be taken for a part of it.
            return;
        }
        for frame in self.machine.terminate(reason) {
            self.client.push(&Cleared::ours(frame));
        }
        // A client that does not read has no claim to more than this.
        let farewell = async {
            poll_fn(|cx| self.client.poll_flush(cx)).await?;
            poll_fn(|cx| self.client.poll_close(cx)).await
        };
        let _ = timeout(LAST_WORDS, farewell).await;
    }
}

//! What reaches a session from outside its own task: how far its records are durable, and that it must end.
//!
//! All of it is a few atomics and one waker, so that a group commit tells a thousand sessions without a lock, and wakes only those that
//! wait for it: a read's record is mostly durable before its answer has come, and then nobody need be woken.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Context;

use futures_util::task::AtomicWaker;
use gatebook_wire::protocol::EndReason;

/// Counts a session's records, from 1: the number of the last one that must be durable. 0 is nothing.
pub(crate) type Ticket = u64;

/// The signals of one session.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    written: AtomicU64,
    wants_written: AtomicBool,
    durable: AtomicU64,
    /// What the session's task waits for; 0 for nothing.
    awaited: AtomicU64,
    ending: AtomicU8,
    activity: AtomicU64,
    /// Whether a command waits for somebody's approval, see [`Withdrawn`].
    held: AtomicU8,
    busy: AtomicBool,
    waker: AtomicWaker,
}

/// Nothing waits for an approval.
const NOT_HELD: u8 = 0;
/// A command waits, and nothing else is under way.
const HELD_ALONE: u8 = 1;
/// A command waits behind one that is under way.
const HELD_BEHIND: u8 = 2;
/// The client took back what waited.
const WITHDRAWN: u8 = 3;

/// What a cancel request meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    /// Nothing waited for an approval: it is for the upstream.
    Nothing,
    /// What waited is withdrawn, and nothing else was under way.
    Alone,
    /// What waited is withdrawn; what is under way is for the upstream.
    Behind,
}

const REASONS: [EndReason; 12] = [
    EndReason::ClientLeft,
    EndReason::UpstreamLeft,
    EndReason::ClientViolation,
    EndReason::UpstreamViolation,
    EndReason::Revoked,
    EndReason::Expired,
    EndReason::PolicyChanged,
    EndReason::Idle,
    EndReason::LedgerUnavailable,
    EndReason::Limit,
    EndReason::DefinitionsChanged,
    EndReason::Shutdown,
];

impl Signal {
    /// Every record up to `ticket` is durable.
    pub(crate) fn made_durable(&self, ticket: Ticket) {
        self.durable.fetch_max(ticket, Ordering::SeqCst);
        self.wake_if_awaited(ticket);
    }

    /// The task's half is [`Signal::wait_for`]: each side writes first and reads then, in one order for all, so that one of them sees the other.
    fn wake_if_awaited(&self, ticket: Ticket) {
        let awaited = self.awaited.load(Ordering::SeqCst);
        if awaited != 0 && awaited <= ticket {
            self.waker.wake();
        }
    }

    /// Has the task woken once `ticket` is reached, 0 for not at all. What was reached before this call must be looked at after it.
    pub(crate) fn wait_for(&self, ticket: Ticket) {
        self.awaited.store(ticket, Ordering::SeqCst);
    }

    /// Asks to be told also when records are written and not yet durable.
    pub(crate) fn want_written(&self) {
        self.wants_written.store(true, Ordering::Release);
    }

    /// Every record up to `ticket` is with the operating system.
    pub(crate) fn made_written(&self, ticket: Ticket) {
        if !self.wants_written.load(Ordering::Acquire) {
            return;
        }
        self.written.fetch_max(ticket, Ordering::SeqCst);
        self.wake_if_awaited(ticket);
    }

    /// How far the records are with the operating system, or durable.
    pub(crate) fn written(&self) -> Ticket {
        self.written.load(Ordering::SeqCst).max(self.durable())
    }

    /// How far the records are durable.
    pub(crate) fn durable(&self) -> Ticket {
        self.durable.load(Ordering::SeqCst)
    }

    /// The session must end. The first reason stands; tells whether this was it.
    pub(crate) fn end(&self, reason: EndReason) -> bool {
        let number = REASONS
            .iter()
            .position(|known| *known == reason)
            .map_or(1, |at| u8::try_from(at + 1).unwrap_or(1));
        let first = self.ending.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire).is_ok();
        self.waker.wake();
        first
    }

    /// Why the session must end, if it must.
    pub(crate) fn ending(&self) -> Option<EndReason> {
        let number = self.ending.load(Ordering::Acquire).checked_sub(1)?;
        REASONS.get(usize::from(number)).copied()
    }

    /// A command waits for somebody's approval, and the client may take it back; `behind` another that is under way.
    pub(crate) fn hold(&self, behind: bool) {
        self.held.store(if behind { HELD_BEHIND } else { HELD_ALONE }, Ordering::Release);
    }

    /// Nothing waits any more.
    pub(crate) fn release(&self) {
        self.held.store(NOT_HELD, Ordering::Release);
    }

    /// The client takes back what waits.
    pub(crate) fn withdraw(&self) -> Withdrawn {
        for (held, withdrawn) in [(HELD_ALONE, Withdrawn::Alone), (HELD_BEHIND, Withdrawn::Behind)] {
            if self.held.compare_exchange(held, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                self.waker.wake();
                return withdrawn;
            }
        }
        Withdrawn::Nothing
    }

    /// Whether the client took back what waits.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.held.load(Ordering::Acquire) == WITHDRAWN
    }

    /// Something passed; `busy` while a command runs.
    pub(crate) fn active(&self, busy: bool) {
        self.activity.fetch_add(1, Ordering::Relaxed);
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Whether a command runs.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Changes whenever something passed.
    pub(crate) fn activity(&self) -> u64 {
        self.activity.load(Ordering::Relaxed)
    }

    /// Wakes the task of `cx` at the next change.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Wakes the session's task.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }
}

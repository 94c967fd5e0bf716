//! The reasons for which a frame may go, each a maker of [`Cleared`], and the [`Door`], the only way out.
//!
//! A sink is held by a door alone, and a door takes nothing but cleared frames; so sending a frame that nobody decided
//! about does not compile. The makers are visible to the relay only.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use gatebook_wire::protocol::Violation;

use super::exchange::Passed;
use crate::link::Link;

/// A frame that may go.
pub(super) struct Cleared<F>(F);

impl<F> Cleared<F> {
    /// The frame carries neither wish nor data.
    pub(super) fn inert(frame: F) -> Cleared<F> {
        Cleared(frame)
    }

    /// Its commands were permitted, and that is recorded as durably as their effect demands; or it belongs to such a command.
    pub(super) fn permitted(frame: F) -> Cleared<F> {
        Cleared(frame)
    }

    /// It shows what a recorded decision let be shown, and is counted.
    pub(super) fn disclosed(frame: F) -> Cleared<F> {
        Cleared(frame)
    }

    /// We say it ourselves: a refusal, a notice, or the last words.
    pub(super) fn ours(frame: F) -> Cleared<F> {
        Cleared(frame)
    }
}

/// One side of an exchange, out of which only cleared frames go. It counts them.
pub(super) struct Door<L> {
    link: L,
    passed: Passed,
}

impl<L: Link> Door<L> {
    pub(super) fn new(link: L) -> Door<L> {
        Door { link, passed: Passed::default() }
    }

    pub(super) fn push(&mut self, frame: &Cleared<L::Outgoing>) {
        self.passed.bytes += L::bytes(&frame.0).len() as u64;
        self.passed.messages += L::messages(&frame.0);
        self.link.push(&frame.0);
    }

    /// What went out of it.
    pub(super) fn passed(&self) -> Passed {
        self.passed
    }

    pub(super) fn take(&mut self) -> Result<Option<L::Incoming>, Violation> {
        self.link.take()
    }

    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.link.poll_fill(cx)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_flush(cx)
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_close(cx)
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.link.queued_bytes()
    }

    pub(super) fn arrived_bytes(&self) -> usize {
        self.link.arrived_bytes()
    }

    pub(super) fn bytes(frame: &L::Outgoing) -> &Bytes {
        L::bytes(frame)
    }

    /// A frame as it counts.
    pub(super) fn weight(frame: &L::Outgoing) -> Passed {
        Passed { bytes: L::bytes(frame).len() as u64, messages: L::messages(frame) }
    }
}

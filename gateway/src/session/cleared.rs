//! The reasons for which a frame may go, each a maker of [`Cleared`], and the [`Door`], the only way out.
//!
//! A sink is held by a door alone, and a door takes nothing but cleared frames; so sending a frame that nobody decided
//! about does not compile. The makers are visible to the relay only.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use gatebook_wire::protocol::Violation;

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

/// One side of an exchange, out of which only cleared frames go.
pub(super) struct Door<L>(L);

impl<L: Link> Door<L> {
    pub(super) fn new(link: L) -> Door<L> {
        Door(link)
    }

    pub(super) fn push(&mut self, frame: &Cleared<L::Outgoing>) {
        self.0.push(&frame.0);
    }

    pub(super) fn take(&mut self) -> Result<Option<L::Incoming>, Violation> {
        self.0.take()
    }

    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.0.poll_fill(cx)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_close(cx)
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.0.queued_bytes()
    }

    pub(super) fn arrived_bytes(&self) -> usize {
        self.0.arrived_bytes()
    }

    pub(super) fn bytes(frame: &L::Outgoing) -> &Bytes {
        L::bytes(frame)
    }
}

//! A connection seen as frames: what has arrived is taken, what is to go is pushed, and both are polled by one task.
//!
//! Nothing here waits. `push` only queues, so that nothing delays a revocation; the relay stops taking frames from one
//! side while the other side's outbox is full.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use gatebook_wire::postgres::frame::{Decoder, Frame};
use gatebook_wire::protocol::Violation;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How much is read at once: little at first, so that an idle session is small, more while data flows.
const READ_BYTES: std::ops::RangeInclusive<usize> = (4 << 10)..=(128 << 10);

/// How much may wait in an outbox before the other side is read no further.
pub(crate) const OUTBOX_BYTES_MAX: usize = 256 << 10;

/// One side of an exchange.
pub(crate) trait Link: Send {
    /// What is taken from it.
    type Incoming: Send;
    /// What is pushed to it.
    type Outgoing: Send;

    /// The next frame that has fully arrived.
    ///
    /// # Errors
    /// [`Violation`] when the bytes are no frames; the link is then of no further use.
    fn take(&mut self) -> Result<Option<Self::Incoming>, Violation>;

    /// Reads more. Ready with `false` when the peer has closed.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>>;

    /// Queues a frame.
    fn push(&mut self, frame: &Self::Outgoing);

    /// Sends what is queued. Ready when nothing is left.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says that nothing more will come, as far as the transport can (TLS has a word for it). Ready when that is sent.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// How many bytes are queued.
    fn queued_bytes(&self) -> usize;

    /// How many bytes have arrived and were not taken.
    fn arrived_bytes(&self) -> usize;

    /// The bytes of a frame as it travels on this link.
    fn bytes(frame: &Self::Outgoing) -> &Bytes;

    /// How many messages end in a frame.
    fn messages(frame: &Self::Outgoing) -> u64;
}

/// A byte stream that carries PostgreSQL messages.
pub(crate) struct Framed<S> {
    stream: S,
    decoder: Decoder,
    incoming: BytesMut,
    outgoing: BytesMut,
    read_bytes: usize,
    dirty: bool,
}

impl<S> Framed<S> {
    /// A stream on which `incoming` has arrived already.
    pub(crate) fn new(stream: S, decoder: Decoder, incoming: BytesMut) -> Framed<S> {
        Framed {
            stream,
            decoder,
            incoming,
            outgoing: BytesMut::new(),
            read_bytes: *READ_BYTES.start(),
            dirty: false,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Link for Framed<S> {
    type Incoming = Frame;
    type Outgoing = Frame;

    fn take(&mut self) -> Result<Option<Frame>, Violation> {
        if self.incoming.is_empty() {
            return Ok(None);
        }
        Ok(self.decoder.decode(&mut self.incoming)?)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.incoming.reserve(self.read_bytes);
        let mut room = (&mut self.incoming).limit(self.read_bytes);
        let read = std::task::ready!(pin!(self.stream.read_buf(&mut room)).poll(cx))?;
        self.read_bytes =
            if read == self.read_bytes { self.read_bytes * 4 } else { self.read_bytes.min(read * 4) };
        self.read_bytes = self.read_bytes.clamp(*READ_BYTES.start(), *READ_BYTES.end());
        Poll::Ready(Ok(read > 0))
    }

    fn push(&mut self, frame: &Frame) {
        self.outgoing.extend_from_slice(frame.bytes());
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            self.dirty = true;
            if std::task::ready!(pin!(self.stream.write_buf(&mut self.outgoing)).poll(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        if self.dirty {
            std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn queued_bytes(&self) -> usize {
        self.outgoing.len()
    }

    fn arrived_bytes(&self) -> usize {
        self.incoming.len()
    }

    fn bytes(frame: &Frame) -> &Bytes {
        frame.bytes()
    }

    fn messages(frame: &Frame) -> u64 {
        frame.messages()
    }
}

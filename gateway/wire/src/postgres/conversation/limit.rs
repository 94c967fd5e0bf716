//! Commands under limits: one that reaches its limit fails, as if it had failed by itself.
//!
//! The client is told an error in place of the rest. The upstream is asked to cancel; what it still says goes nowhere; and where it
//! was done before it heard, a poison is sent, so that an open transaction fails and one that Sync would commit is rolled back. For that to be possible
//! nothing may have been sent behind the command: so what comes behind one under limits waits for its end.
//!
//! What a newcomer gets wrong: without a Sync a server keeps an answer in its buffer, so a Flush goes behind an Execute under limits. And what COPY
//! reads from the client is behind it by its nature: such a command is not waited for, and may be done before the cancel comes.

use std::collections::VecDeque;

use super::super::frame::{Frame, Message};
use super::super::report::{self, put_string};
use super::{Conversation, Copy, Expected, POISON, POISON_NAME, Poisoned, poison_parse};
use crate::protocol::{Cut, Disclosure, Ended, Ending, Excess, RequestId, UpstreamStep, Violation};

/// What is known of the commands under limits.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// The newest command sent runs under limits: what comes behind it waits.
    limited: bool,
    /// The command that was cut, until the client can go on.
    cut: Option<RequestId>,
    /// The command that was cancelled for its time.
    expired: Option<(RequestId, Excess)>,
    owed: VecDeque<Message>,
}

impl Limits {
    pub(super) fn is_cutting(&self) -> bool {
        self.cut.is_some()
    }

    pub(super) fn expire(&mut self, request: RequestId, excess: Excess) {
        self.expired = Some((request, excess));
    }

    pub(super) fn owed(&mut self) -> Option<Frame> {
        self.owed.pop_front().map(Frame::from)
    }
}

impl Conversation {
    /// What was just asked for runs under limits.
    pub(super) fn limit_asked(&mut self) -> Option<Frame> {
        match self.asked.as_ref().map(|asked| &asked.expected) {
            Some(Expected::Simple { copies_in: false, .. }) => {
                self.limits.limited = true;
                None
            }
            Some(Expected::Execute { copies_in: false, .. }) => {
                self.limits.limited = true;
                Some(Message::build(b'H', |_| ()).into())
            }
            _ => None,
        }
    }

    /// Whether the client's frame must wait for the end of a command under limits.
    pub(super) fn holds_back(&mut self, frame: &Frame) -> bool {
        self.limits.limited &= !self.outstanding.is_empty();
        self.limits.limited && !matches!(frame.tag(), b'd' | b'c' | b'f' | b'X')
    }

    /// See [`Protocol::cut`](crate::protocol::Protocol::cut).
    pub(super) fn cut_running(
        &mut self,
        over: Disclosure<Frame>,
        rows: u64,
        excess: Excess,
    ) -> Option<Cut<Frame>> {
        let run = match over.frame {
            Frame::Run(run) => run,
            Frame::Message(message) => return Some(self.cut_message(over.request, message, excess)),
        };
        let first = run.first(rows);
        if self.running() != over.request || (run.resumes > 0 && first.completed == 0) {
            return None;
        }
        self.limits.cut = over.request;
        let shown = (first.completed > 0).then(|| Disclosure {
            request: over.request,
            rows: first.completed,
            goes_on: false,
            frame: Frame::Run(first),
        });
        Some(Cut { shown, error: Some(report::excess(excess).into()) })
    }

    /// What is no row is cut where the server puts values into it: errors, notices, the result of a function.
    fn cut_message(&mut self, request: Option<RequestId>, message: Message, excess: Excess) -> Cut<Frame> {
        let show =
            |message: Message| Some(Disclosure { request, rows: 0, goes_on: false, frame: message.into() });
        match message.tag() {
            b'E' => {
                for Ended { ending, .. } in
                    self.ended.iter_mut().filter(|ended| Some(ended.request) == request)
                {
                    if let Ending::Failed(code) = ending {
                        *ending = Ending::Cut(Err(std::mem::take(code)));
                    }
                }
                Cut { shown: show(report::excess(excess)), error: None }
            }
            b'N' => Cut { shown: None, error: None },
            b'V' => {
                self.limits.cut = request;
                Cut { shown: None, error: Some(report::excess(excess).into()) }
            }
            _ => Cut { shown: show(message), error: None },
        }
    }

    /// What the upstream still says of a command that was cut: it is followed, and goes nowhere.
    pub(super) fn drain(&mut self, frame: Frame) -> Result<UpstreamStep<Frame>, Violation> {
        let Frame::Message(message) = frame else { return Ok(UpstreamStep::Hold) };
        let (tag, open) = (message.tag(), message.body().first() == Some(&b'T'));
        let step = self.on_upstream_message(message)?;
        self.tell_limits();
        match tag {
            // Settings and notifications are not its own.
            b'S' | b'A' => return Ok(step),
            b'Z' if open && self.outstanding.is_empty() => {
                self.poison(Poisoned::Query, Message::build(b'Q', |out| put_string(out, POISON)));
            }
            b'Z' => {
                self.limits.cut = None;
                return Ok(step);
            }
            b'C' | b'I' | b's' if self.outstanding.is_empty() => {
                self.poison(Poisoned::Execute, poison_parse(POISON_NAME.as_bytes()));
            }
            b'G' => {
                self.copy = Copy::No;
                let fail = Message::build(b'f', |out| put_string(out, POISON));
                self.limits.owed.push_back(fail);
            }
            b'E' if self.speechless => return Ok(step),
            // Of an extended query nothing more comes before the client's Sync.
            b'E' if !matches!(self.outstanding.front(), Some(Expected::Simple { .. })) => {
                self.limits.cut = None;
            }
            _ => {}
        }
        Ok(UpstreamStep::Hold)
    }

    /// Sends what must fail, of which the client is told nothing: it knows.
    fn poison(&mut self, instead_of: Poisoned, message: Message) {
        self.outstanding.push_back(Expected::Poison { requests: 0..0, refusal: None, instead_of });
        self.limits.owed.push_back(message);
    }

    /// The error of a command that was cancelled for its time, if this is it.
    pub(super) fn excess(&self, code: &str) -> Option<Message> {
        let (request, excess) = self.limits.expired?;
        (code == report::QUERY_CANCELED && self.running() == Some(request)).then(|| report::excess(excess))
    }

    /// Tells of what has ended that it was cut.
    pub(super) fn tell_limits(&mut self) {
        let (cut, expired) = (self.limits.cut, self.limits.expired.map(|(request, _)| request));
        if cut.is_none() && expired.is_none() {
            return;
        }
        for Ended { request, ending } in &mut self.ended {
            let is_cut = cut == Some(*request);
            let is_expired = expired == Some(*request);
            match ending {
                Ending::Completed(tag) if is_cut => *ending = Ending::Cut(Ok(std::mem::take(tag))),
                Ending::Suspended if is_cut => *ending = Ending::Cut(Ok(String::new())),
                Ending::Failed(code) if is_cut || (is_expired && code == report::QUERY_CANCELED) => {
                    *ending = Ending::Cut(Err(std::mem::take(code)));
                }
                _ => {}
            }
            if is_expired {
                self.limits.expired = None;
            }
        }
    }
}

//! What was decided is what ran: confirmed by a look at the upstream's catalog that began after the upstream had begun to answer.
//!
//! The server resolves a statement's names, and locks what they stand for, before it answers; the gateway resolved them by a catalog that was
//! read before it decided. So where a look that began after the first byte of the answer finds that catalog unchanged, or finds by the new one that the text
//! means the same and that nobody touched what it names, the server resolved them alike. Until then nothing of the answer is shown, and
//! where it cannot be told the session ends. What may change something cannot be taken back by not showing it: it is decided by a look that
//! began after it had arrived.
//!
//! What a newcomer gets wrong: a command that changes definitions is not confirmed by its completion and by what it is told beside that, since
//! it changed them itself; and `BEGIN` and its like touch nothing that could have changed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;

use super::super::frame::Frame;
use super::{Asked, Conversation, Expected, Look, may_define};
use crate::action::Effect;
use crate::protocol::{
    ClientStep, Confirmed, Disclosure, Intent, Phase, Protocol, Refusal, RefusalKind, RequestId, Violation,
};
use crate::sql::{Analysis, Basis, Sending};

/// What commands were understood by.
#[derive(Debug, Default)]
pub(super) struct Confirming {
    /// Of commands that were sent, in their order.
    sent: VecDeque<(Range<RequestId>, Arc<Analysis>, Understood)>,
    /// The look that is waited for before an answer is shown, and whose answer.
    look: Option<(RequestId, u64)>,
    /// The command of which answers may be shown.
    confirmed: Option<RequestId>,
    /// The look that is waited for before the client's frame is decided.
    ahead: Option<u64>,
}

/// What a command was understood by.
#[derive(Debug, Clone)]
pub(super) struct Understood {
    /// None where what the upstream runs cannot be read again.
    text: Option<Bytes>,
    sending: Option<Arc<Sending>>,
    basis: Basis,
}

impl Understood {
    /// The same where the text may not be the one that runs.
    pub(super) fn unread(self) -> Understood {
        Understood { text: None, ..self }
    }
}

impl Conversation {
    /// Shows no answer before what was understood of its command is confirmed, see the module.
    #[must_use]
    pub fn confirming(mut self) -> Conversation {
        self.confirming = Some(Confirming::default());
        self
    }

    /// What a text is understood by now.
    pub(super) fn understood(
        &self,
        text: Option<Bytes>,
        sending: Option<Arc<Sending>>,
    ) -> Option<Understood> {
        self.confirming.as_ref()?;
        Some(Understood { text, sending, basis: self.session.basis(self.catalog.snapshot()) })
    }

    /// Keeps what a command that is sent now was understood by.
    pub(super) fn keep_understood(&mut self, asked: &mut Asked) {
        let runs = matches!(asked.expected, Expected::Simple { .. } | Expected::Execute { .. });
        if let (Some(confirming), Some(understood), true) =
            (&mut self.confirming, asked.understood.take(), runs)
        {
            confirming.sent.push_back((asked.requests.clone(), asked.runs.clone(), understood));
        }
    }

    /// See [`Protocol::confirm`].
    pub(super) fn confirm_answer(&mut self, answer: &Disclosure<Frame>, waker: &Waker) -> Confirmed {
        let (Some(confirming), Some(request)) = (&mut self.confirming, answer.request) else {
            return Confirmed::Yes;
        };
        while confirming.sent.front().is_some_and(|(requests, ..)| requests.end <= request) {
            confirming.sent.pop_front();
        }
        let Some((_, runs, understood)) =
            confirming.sent.front().filter(|(requests, ..)| requests.contains(&request))
        else {
            return Confirmed::Yes;
        };
        if confirming.confirmed == Some(request) || !tells(&answer.frame, runs) {
            return Confirmed::Yes;
        }
        let number = match confirming.look {
            Some((asked_for, number)) if asked_for == request => number,
            _ => confirming.look.insert((request, self.catalog.ask())).1,
        };
        match self.catalog.looked(number, Some(waker)) {
            Look::Pending => return Confirmed::Wait,
            Look::Failed => return Confirmed::No,
            Look::Done => {}
        }
        let (runs, understood) = (runs.clone(), understood.clone());
        if !self.holds(&runs, &understood) {
            return Confirmed::No;
        }
        if let Some(confirming) = &mut self.confirming {
            confirming.confirmed = Some(request);
        }
        Confirmed::Yes
    }

    /// Takes a client's frame once the catalog is known by which it has to be decided.
    pub(super) fn take_confirmed(&mut self, frame: Frame) -> Result<ClientStep<Frame>, Violation> {
        if self.skipping || !matches!(frame.tag(), b'Q' | b'P' | b'B' | b'E' | b'F') {
            return self.take(frame);
        }
        let waited = self.confirming.as_mut().and_then(|confirming| confirming.ahead.take());
        let look = match waited {
            Some(number) => Some((number, self.catalog.looked(number, None))),
            None => {
                let wanted = self.catalog.defined();
                let look = self.catalog.looked(wanted, None);
                (look == Look::Pending).then_some((wanted, look))
            }
        };
        if let Some((number, Look::Pending)) = look {
            return Ok(self.wait_for_look(number, frame));
        }
        let again = frame.clone();
        match (self.take(frame)?, look) {
            (ClientStep::Ask(intent), None) if changes(&intent) => {
                self.withdraw();
                let number = self.catalog.ask();
                Ok(self.wait_for_look(number, again))
            }
            (ClientStep::Ask(mut intent), Some((_, look)))
                if changes(&intent) && (look == Look::Failed || !self.asked_still_holds()) =>
            {
                intent.forbidden.get_or_insert_with(|| Refusal {
                    kind: RefusalKind::NotPermitted,
                    message: "a change while definitions change, or cannot be looked at".into(),
                    hint: Some("try again in a moment".into()),
                });
                Ok(ClientStep::Ask(intent))
            }
            (step, _) => Ok(step),
        }
    }

    /// Whether what was just asked for means by the newest catalog what it meant when it was understood, which for a portal was earlier.
    fn asked_still_holds(&self) -> bool {
        let asked = self.asked.as_ref();
        asked.and_then(|asked| Some(self.holds(&asked.runs, asked.understood.as_ref()?))).unwrap_or(true)
    }

    fn holds(&self, runs: &Analysis, understood: &Understood) -> bool {
        let text = understood.text.as_deref().and_then(|text| std::str::from_utf8(text).ok());
        let sent = understood.sending.as_ref().map(|sending| sending.text.as_str());
        self.session.holds(&understood.basis, runs, text, sent, &self.catalog.snapshot())
    }

    fn wait_for_look(&mut self, number: u64, frame: Frame) -> ClientStep<Frame> {
        if let Some(confirming) = &mut self.confirming {
            confirming.ahead = Some(number);
        }
        ClientStep::Wait(frame)
    }

    /// See [`Protocol::awaited`].
    pub(super) fn has_looked(&mut self, waker: &Waker) -> bool {
        let ahead = self.confirming.as_ref().and_then(|confirming| confirming.ahead);
        ahead.is_some_and(|number| self.catalog.looked(number, Some(waker)) != Look::Pending)
    }
}

/// Whether anything of it runs and may change something.
fn changes(intent: &Intent<Frame>) -> bool {
    intent
        .commands
        .iter()
        .any(|command| command.phase == Phase::Execute && command.meaning.effect == Effect::MayChange)
}

/// Whether this part of an answer says anything that depends on what names stand for.
fn tells(frame: &Frame, runs: &Analysis) -> bool {
    let mut meanings = runs.statements.iter().map(|statement| &statement.meaning);
    match frame.tag() {
        b'D' | b'd' | b'V' => true,
        b'E' | b'N' => !meanings.any(|meaning| may_define(meaning)),
        b'C' | b's' => {
            meanings.clone().any(|meaning| !meaning.actions.is_empty())
                && !meanings.any(|meaning| may_define(meaning))
        }
        _ => false,
    }
}

//! What the server answers: which command it belongs to, how that came out, and what the client is told.

use super::super::frame::{Frame, Message};
use super::super::login::is_utf8;
use super::super::names::Naming;
use super::super::report::{self, Report};
use super::{Conversation, Copy, Expected, Poisoned, Portal, commands, disclose, unexpected};
use crate::protocol::{Disclosure, Ended, Ending, Intent, Phase, RequestId, UpstreamStep, Violation};
use crate::sql::{Sent, Transaction};

impl Conversation {
    /// The command whose rows or completion come next.
    pub(super) fn running(&self) -> Option<RequestId> {
        match self.outstanding.front()? {
            Expected::Simple { next, left, .. } if *left > 0 => Some(*next),
            Expected::Execute { requests, .. } => Some(requests.start),
            _ => None,
        }
    }

    /// The command that a notice comes from.
    fn speaking(&self) -> Option<RequestId> {
        match self.outstanding.front()? {
            Expected::Parse { requests, .. } => Some(requests.start),
            _ => self.running(),
        }
    }

    /// The result of a FunctionCall; what ends it is ReadyForQuery.
    fn function_result(&mut self, message: Message) -> Result<UpstreamStep<Frame>, Violation> {
        match self.outstanding.front_mut() {
            Some(Expected::Simple { next, left: 1, last_tag: last_tag @ None, .. }) => {
                *last_tag = Some(String::new());
                let request = *next;
                Ok(disclose(Some(request), 0, message))
            }
            _ => Err(unexpected(&message)),
        }
    }

    /// A command is complete (`C`, `I`) or suspended (`s`).
    fn completed(&mut self, message: Message) -> Result<UpstreamStep<Frame>, Violation> {
        let ending = match message.tag() {
            b'C' => Ending::Completed(String::from_utf8_lossy(&report::string_body(&message)?).into_owned()),
            b'I' => Ending::Completed(String::new()),
            _ => Ending::Suspended,
        };
        self.copy = Copy::No;
        self.swallowed = 0;
        match self.outstanding.front_mut() {
            Some(Expected::Simple { next, left, sent, last_tag, .. })
                if *left > 0 && ending != Ending::Suspended =>
            {
                let request = *next;
                // The last one ends with ReadyForQuery: what our grammar took for one statement may be several to the server.
                if *left == 1 {
                    if let Ending::Completed(tag) = ending {
                        *last_tag = Some(tag);
                    }
                } else {
                    if let Some(sent) = sent.pop_front() {
                        self.session.ended(sent, true);
                    }
                    *next += 1;
                    *left -= 1;
                    self.ended.push_back(Ended { request, ending });
                }
                Ok(disclose(Some(request), 0, message))
            }
            Some(Expected::Execute { requests, sent, .. }) => {
                let (requests, sent) = (requests.clone(), std::mem::take(sent));
                let request = requests.start;
                self.outstanding.pop_front();
                self.ended_all(sent, true);
                self.end(requests, &ending);
                self.pass_copy_ends();
                Ok(disclose(Some(request), 0, message))
            }
            _ => Err(unexpected(&message)),
        }
    }

    fn end(&mut self, requests: std::ops::Range<RequestId>, ending: &Ending) {
        self.ended.extend(requests.map(|request| Ended { request, ending: ending.clone() }));
    }

    fn ended_all(&mut self, sent: impl IntoIterator<Item = Sent>, completed: bool) {
        for sent in sent {
            self.session.ended(sent, completed);
        }
    }

    fn close_settled(&mut self, kind: u8, name: &[u8], naming: Naming) {
        match kind {
            b'S' => self.statements.settled(name, naming),
            _ => self.portals.settled(name, naming),
        }
    }

    fn pass_copy_ends(&mut self) {
        while matches!(self.outstanding.front(), Some(Expected::CopyEnd)) {
            self.outstanding.pop_front();
        }
    }

    fn ready(&mut self, message: Message) -> Result<UpstreamStep<Frame>, Violation> {
        let status =
            message.parse(|fields| fields.u8().filter(|status| matches!(status, b'I' | b'T' | b'E')))?;
        self.copy = Copy::No;
        self.pass_copy_ends();
        match self.outstanding.pop_front() {
            Some(Expected::Sync) => {}
            Some(Expected::Simple { next, left, sent, last_tag, .. }) => {
                if let Some(tag) = last_tag.filter(|_| left > 0) {
                    self.ended_all(sent, true);
                    self.ended.push_back(Ended { request: next, ending: Ending::Completed(tag) });
                } else if left > 0 {
                    return Err(unexpected(&message));
                }
            }
            // A COPY that failed before it read anything did not swallow the Sync that came with it.
            None if self.swallowed > 0 => {
                self.swallowed -= 1;
                self.skipping = false;
                self.batch += 1;
            }
            other => {
                self.outstanding.extend(other);
                return Err(unexpected(&message));
            }
        }
        if status == b'I' {
            self.hushed &= !self.outstanding.is_empty();
            self.portals.forget_confirmed();
            if std::mem::take(&mut self.defining) {
                self.catalog.look_soon();
            }
        }
        self.in_transaction = status != b'I';
        self.session.ready(match status {
            b'I' => Transaction::Idle,
            b'T' => Transaction::Open,
            _ => Transaction::Failed,
        });
        self.pass_copy_ends();
        Ok(UpstreamStep::Relay(message.into()))
    }

    /// An error or a notice as the client is told it: places are those of its own text, and what may hold masked values is withheld.
    fn told(&self, message: Message) -> Result<Message, Violation> {
        let sending = match self.outstanding.front() {
            Some(
                Expected::Simple { sending, .. }
                | Expected::Parse { sending, .. }
                | Expected::Execute { sending, .. },
            ) => sending.as_deref(),
            Some(Expected::Bind { portal, .. }) => portal.sending.as_deref(),
            _ => None,
        };
        if sending.is_none() && !self.hushed {
            return Ok(message);
        }
        let place = |character: usize| sending.map_or(character, |sending| sending.character(character));
        Ok(report::retold(&message, self.hushed, place)?)
    }

    /// An error, which ends what runs and, in an extended query, the rest of its batch.
    fn error(&mut self, message: Message) -> Result<UpstreamStep<Frame>, Violation> {
        let report = Report::read(&message)?;
        if report.severity != "ERROR" {
            self.speechless = true;
            return Ok(disclose(self.running(), 0, message));
        }
        let message = self.excess(&report.code).unwrap_or(message);
        self.copy = Copy::No;
        self.session.failed();
        self.pass_copy_ends();
        match self.outstanding.front_mut() {
            // An error of the commit that a Sync makes, or one that nothing caused.
            None | Some(Expected::Sync) => Ok(disclose(None, 0, message)),
            Some(Expected::Simple { next, left, sent, .. }) => {
                let (first, count, sent) = (*next, std::mem::take(left), std::mem::take(sent));
                self.ended_all(sent, false);
                for request in first..first + count as RequestId {
                    let ending =
                        if request == first { Ending::Failed(report.code.clone()) } else { Ending::Skipped };
                    self.ended.push_back(Ended { request, ending });
                }
                Ok(disclose((count > 0).then_some(first), 0, message))
            }
            Some(Expected::Poison { .. }) => self.refused(&report),
            Some(_) => {
                let failed = self.outstanding.pop_front().expect("the front is there");
                let bound = match &failed {
                    Expected::Bind { portal, .. } => Some(portal.clone()),
                    _ => None,
                };
                let ending = Ending::Failed(report.code);
                let request = self.drop_expected(failed, &ending, Naming::Failed);
                self.pass_over();
                Ok(match bound {
                    Some(portal) => self.unbound(&portal, &ending, message),
                    None => disclose(request, 0, message),
                })
            }
        }
    }

    /// Parameters were not taken: what was tried with them is told, since the error may tell of them.
    fn unbound(&mut self, portal: &Portal, ending: &Ending, message: Message) -> UpstreamStep<Frame> {
        let commands = commands(&portal.text, &portal.analysis, Phase::Prepare, &portal.parameters);
        let requests = self.requests(commands.len());
        let first = requests.start;
        self.end(requests, ending);
        let frame = message.into();
        UpstreamStep::Account(
            Intent { commands, first, frame: (), forbidden: None },
            Disclosure { request: Some(first), rows: 0, goes_on: false, frame },
        )
    }

    /// A poison failed, as it must: the client gets our words.
    fn refused(&mut self, report: &Report) -> Result<UpstreamStep<Frame>, Violation> {
        let Some(Expected::Poison { requests, refusal, instead_of }) = self.outstanding.pop_front() else {
            return Err(Violation("no refusal is under way".into()));
        };
        // A cancel request that came in time for it has the same effect.
        if refusal.is_some() && !matches!(report.code.as_str(), "42601" | report::QUERY_CANCELED) {
            return Err(Violation(format!("the upstream answered a refused command with {}", report.code)));
        }
        let request = requests.start;
        self.end(requests, &Ending::Refused);
        match instead_of {
            Poisoned::Query => self.outstanding.push_front(Expected::Sync),
            Poisoned::Parse(name) => {
                self.statements.settled(&name, Naming::Failed);
                self.pass_over();
            }
            Poisoned::Execute => self.pass_over(),
        }
        Ok(match refusal {
            Some(refusal) => disclose(Some(request), 0, report::refusal(&refusal)),
            None => UpstreamStep::Hold,
        })
    }

    /// After an error in an extended query the server passes over everything up to the next Sync.
    fn pass_over(&mut self) {
        while let Some(expected) = self.outstanding.pop_front() {
            if matches!(expected, Expected::Sync) {
                self.outstanding.push_front(expected);
                return;
            }
            self.drop_expected(expected, &Ending::Skipped, Naming::PassedOver);
        }
        self.skipping = true;
    }

    /// Ends what was expected without having come; tells which command it was.
    fn drop_expected(&mut self, expected: Expected, ending: &Ending, naming: Naming) -> Option<RequestId> {
        match expected {
            Expected::Parse { requests, name, sent, .. } => {
                self.statements.settled(&name, naming);
                self.ended_all(sent, false);
                let first = requests.start;
                self.end(requests, ending);
                Some(first)
            }
            Expected::Bind { name, sent, .. } => {
                self.portals.settled(&name, naming);
                self.ended_all(sent, false);
                None
            }
            Expected::Close { kind, name, sent } => {
                self.close_settled(kind, &name, Naming::PassedOver);
                self.ended_all(sent, false);
                None
            }
            Expected::Execute { requests, sent, .. } => {
                self.ended_all(sent, false);
                let first = requests.start;
                self.end(requests, ending);
                Some(first)
            }
            Expected::Simple { next, left, sent, .. } => {
                self.ended_all(sent, false);
                self.end(next..next + left as RequestId, ending);
                Some(next)
            }
            Expected::Poison { requests, instead_of, .. } => {
                if let Poisoned::Parse(name) = instead_of {
                    self.statements.settled(&name, Naming::PassedOver);
                }
                let first = requests.start;
                self.end(requests, &Ending::Refused);
                Some(first)
            }
            Expected::Describe | Expected::Sync | Expected::CopyEnd => None,
        }
    }

    /// Takes the front when it is what `message` answers.
    fn answer(
        &mut self,
        message: &Message,
        matches: impl FnOnce(&Expected) -> bool,
    ) -> Result<Expected, Violation> {
        match self.outstanding.pop_front() {
            Some(expected) if matches(&expected) => Ok(expected),
            other => {
                if let Some(other) = other {
                    self.outstanding.push_front(other);
                }
                Err(unexpected(message))
            }
        }
    }

    fn parameter_status(&mut self, message: Message) -> Result<UpstreamStep<Frame>, Violation> {
        let (name, value) = message.parse(|fields| Some((fields.string()?, fields.string()?)))?;
        let (name, value) = (String::from_utf8_lossy(&name), String::from_utf8_lossy(&value));
        if name.eq_ignore_ascii_case("client_encoding") && !is_utf8(&value) {
            return Err(Violation(format!("client_encoding became {value}")));
        }
        self.session.parameter_status(&name, &value);
        Ok(UpstreamStep::Relay(message.into()))
    }

    pub(super) fn on_upstream_message(&mut self, message: Message) -> Result<UpstreamStep<Frame>, Violation> {
        match message.tag() {
            b'1' => {
                let expected =
                    self.answer(&message, |expected| matches!(expected, Expected::Parse { .. }))?;
                let Expected::Parse { requests, name, sent, .. } = expected else {
                    return Err(unexpected(&message));
                };
                self.statements.settled(&name, Naming::Done);
                self.ended_all(sent, true);
                let request = requests.start;
                self.end(requests, &Ending::Completed(String::new()));
                Ok(disclose(Some(request), 0, message))
            }
            b'2' => {
                let expected = self.answer(&message, |expected| matches!(expected, Expected::Bind { .. }))?;
                if let Expected::Bind { name, sent, .. } = expected {
                    self.portals.settled(&name, Naming::Done);
                    self.ended_all(sent, true);
                }
                Ok(UpstreamStep::Relay(message.into()))
            }
            b'3' => {
                let expected =
                    self.answer(&message, |expected| matches!(expected, Expected::Close { .. }))?;
                if let Expected::Close { kind, name, sent } = expected {
                    self.close_settled(kind, &name, Naming::Done);
                    self.ended_all(sent, true);
                }
                Ok(UpstreamStep::Relay(message.into()))
            }
            b't' if matches!(self.outstanding.front(), Some(Expected::Describe)) => {
                Ok(UpstreamStep::Relay(message.into()))
            }
            b'n' => {
                self.answer(&message, |expected| matches!(expected, Expected::Describe))?;
                Ok(UpstreamStep::Relay(message.into()))
            }
            b'T' if matches!(self.outstanding.front(), Some(Expected::Describe)) => {
                self.outstanding.pop_front();
                Ok(UpstreamStep::Relay(message.into()))
            }
            b'T' | b'H' | b'c' => {
                let request = self.running().ok_or_else(|| unexpected(&message))?;
                Ok(disclose(Some(request), 0, message))
            }
            b'G' => self.copy_in_asked(message),
            b'C' | b'I' | b's' => self.completed(message),
            b'V' => self.function_result(message),
            b'Z' => self.ready(message),
            b'E' => {
                let message = self.told(message)?;
                self.error(message)
            }
            b'N' => {
                let message = self.told(message)?;
                Ok(disclose(self.speaking(), 0, message))
            }
            b'A' if self.session.masks() => Ok(disclose(None, 0, report::without_payload(&message)?)),
            b'A' => Ok(disclose(None, 0, message)),
            b'S' => self.parameter_status(message),
            _ => Err(unexpected(&message)),
        }
    }
}

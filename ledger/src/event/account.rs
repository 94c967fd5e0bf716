//! A session's counts: what its close says passed, held against what its other entries say.
//!
//! The log layer proves that no entry of a session is missing; this proves that the close was written about these entries.
//! Bytes of commands are counted exactly; a channel carries these and more (logins' rest, errors, notices), so it is never less.

use super::{Decoded, SessionClosedBody};

/// What the entries of one session come to so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    commands: u64,
    refused: u64,
    shown_bytes: u64,
    fed_bytes: u64,
    /// Whether an outcome's payload is gone, and with it how much was fed.
    fed_unknown: bool,
}

impl Account {
    /// Takes the next entry of the session.
    pub fn take(&mut self, event: &Decoded<'_>) {
        match event {
            Decoded::Command(body, _) => {
                self.commands += 1;
                self.refused += u64::from(body.decision == "refuse");
            }
            Decoded::Outcome(body, payload) => {
                self.shown_bytes = self.shown_bytes.saturating_add(body.bytes);
                let fed = payload.as_ref().and_then(|payload| payload.fed_bytes).unwrap_or(0);
                self.fed_bytes = self.fed_bytes.saturating_add(fed);
                self.fed_unknown |= payload.is_none();
            }
            _ => {}
        }
    }

    /// Where the close says otherwise than the entries before it; a count that it does not give is not compared.
    #[must_use]
    pub fn differences(&self, closed: &SessionClosedBody<'_>) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, said: Option<u64>, found: u64| {
            if let Some(said) = said.filter(|said| *said != found) {
                differences.push(format!("the close counts {said} {what}, and {found} are here"));
            }
        };
        compare("commands", closed.commands, self.commands);
        compare("refused commands", closed.refused, self.refused);
        compare("bytes shown", closed.shown_bytes, self.shown_bytes);
        compare("bytes fed", closed.fed_bytes.filter(|_| !self.fed_unknown), self.fed_bytes);
        if let Some(channels) = &closed.channels {
            let mut carried = |what: &str, carried: u64, counted: u64| {
                if carried < counted {
                    let what = format!("the close counts {carried} bytes {what}, and {counted} are here");
                    differences.push(what);
                }
            };
            carried("to the client", channels.gateway_to_client.bytes, self.shown_bytes);
            carried("from the client", channels.client_to_gateway.bytes, self.fed_bytes);
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Channels, CommandBody, OutcomeBody, OutcomePayload, Passed};
    use super::*;

    #[test]
    fn a_close_that_counts_otherwise_is_told() {
        let mut account = Account::default();
        for (request, decision) in [(0, "permit"), (1, "refuse")] {
            let (effect, phase) = ("reads".into(), "execute".into());
            account.take(&Decoded::Command(
                CommandBody { decision: decision.into(), effect, phase, request },
                None,
            ));
        }
        let body = OutcomeBody { bytes: 40, duration_us: 1, ending: "completed".into(), request: 0, rows: 1 };
        let payload = OutcomePayload {
            code: None,
            detected: None,
            fed_blake3: None,
            fed_bytes: Some(7),
            shown_blake3: None,
            tag: None,
        };
        account.take(&Decoded::Outcome(body, Some(payload)));
        let passed = |bytes| Passed { bytes, messages: 1 };
        let channels =
            Channels { client_to_gateway: passed(7), gateway_to_client: passed(40), ..Channels::default() };
        let good = SessionClosedBody {
            channels: Some(channels),
            commands: Some(2),
            fed_bytes: Some(7),
            reason: "client_left".into(),
            refused: Some(1),
            shown_bytes: Some(40),
        };
        assert_eq!(account.differences(&good), Vec::<String>::new());
        let crashed = SessionClosedBody { reason: "crash".into(), ..SessionClosedBody::default() };
        assert_eq!(account.differences(&crashed), Vec::<String>::new(), "it counts nothing");
        let less = |channels| SessionClosedBody { channels: Some(channels), ..good.clone() };
        for other in [
            SessionClosedBody { commands: Some(3), ..good.clone() },
            SessionClosedBody { refused: Some(0), ..good.clone() },
            SessionClosedBody { shown_bytes: Some(41), ..good.clone() },
            SessionClosedBody { fed_bytes: Some(6), ..good.clone() },
            less(Channels { gateway_to_client: passed(39), ..channels }),
            less(Channels { client_to_gateway: passed(6), ..channels }),
        ] {
            assert_eq!(account.differences(&other).len(), 1, "{other:?}");
        }
    }
}

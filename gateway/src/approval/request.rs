//! One request for approval, and what can become of it. Pure: who answered and what time it is are arguments.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use gatebook_wire::protocol::RequestId;
use parking_lot::Mutex;

use super::{Digest, Id, Scope, Shown};
use crate::identity::{Principal, PrincipalKind};
use crate::policy::Approval;
use crate::session::Signals;

/// A person's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Yes: to this one command, or also to the like of it in the same session for so long.
    Approve {
        /// For how long, where it is not for this one command alone.
        session: Option<Duration>,
    },
    /// No.
    Deny,
}

/// A person who approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Consent {
    /// Who, with the groups that they were in.
    pub(crate) by: Arc<Principal>,
    /// For how long the like of it is approved too.
    pub(crate) session: Option<Duration>,
}

/// It waits for answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    consents: Vec<Consent>,
}

/// Enough persons approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Who they are.
    pub(crate) consents: Vec<Consent>,
    /// When the last of them did.
    pub(crate) at: SystemTime,
}

/// Somebody said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denied {
    /// Who: `issuer:subject`.
    pub(crate) by: Arc<str>,
    /// Why, in their words.
    pub(crate) reason: Arc<str>,
}

/// Why a request came to nothing, where nobody said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lapse {
    /// Its time ran out.
    Expired,
    /// The client took the command back.
    Cancelled,
    /// The client left.
    ClientLeft,
    /// The command, or what it means, or what policy wants for it, is no longer what was asked about.
    Changed,
    /// An earlier command's error made the upstream pass over it.
    PassedOver,
    /// The session ended.
    SessionEnded,
    /// Somebody said no.
    Denied,
}

impl Lapse {
    /// The reason as the ledger spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Lapse::Expired => "expired",
            Lapse::Cancelled => "cancelled",
            Lapse::ClientLeft => "client_left",
            Lapse::Changed => "changed",
            Lapse::PassedOver => "passed_over",
            Lapse::SessionEnded => "session_ended",
            Lapse::Denied => "denied",
        }
    }
}

/// Where a request stands.
#[derive(Debug)]
enum State {
    Pending(Pending),
    Granted(Granted),
    Denied(Denied),
    Lapsed(Lapse),
    Used(Granted),
}

/// Where a request stands, for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standpoint {
    /// It waits for answers.
    Pending,
    /// It may be used, once.
    Granted(Granted),
    /// Somebody said no.
    Denied(Denied),
    /// It came to nothing.
    Lapsed(Lapse),
    /// It was used.
    Used,
}

impl Standpoint {
    /// The state as people and programs are told it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Standpoint::Pending => "pending",
            Standpoint::Granted(_) => "granted",
            Standpoint::Denied(_) => "denied",
            Standpoint::Lapsed(lapse) => lapse.name(),
            Standpoint::Used => "used",
        }
    }
}

/// Why an answer does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Who asked, or acts for them, cannot answer.
    Requester,
    /// Only a person can.
    NotAPerson,
    /// They are in none of the groups.
    NotAMember,
    /// They have answered.
    Answered,
    /// It is decided, or came to nothing.
    TooLate,
    /// They were revoked.
    Revoked,
    /// Policy does not let them answer at all.
    Forbidden,
}

impl Unfit {
    /// The reason as the ledger spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unfit::Requester => "requester",
            Unfit::NotAPerson => "not_a_person",
            Unfit::NotAMember => "not_a_member",
            Unfit::Answered => "answered",
            Unfit::TooLate => "too_late",
            Unfit::Revoked => "revoked",
            Unfit::Forbidden => "forbidden",
        }
    }
}

impl Pending {
    /// One more person approves; with enough of them it is granted.
    fn approved(mut self, consent: Consent, wanted: &Approval, now: SystemTime) -> State {
        self.consents.push(consent);
        if suffice(&self.consents, wanted) {
            State::Granted(Granted { consents: self.consents, at: now })
        } else {
            State::Pending(self)
        }
    }
}

/// Whether those who approved are enough for what is wanted.
pub(crate) fn suffice(consents: &[Consent], wanted: &Approval) -> bool {
    wanted.is_met_by(consents.iter().map(|consent| &**consent.by.groups()))
}

impl Granted {
    /// Until when the like of it is approved in the same session: as long as every one of them said, counted from the approval, and never
    /// longer than `most`. None where any of them approved this one command alone.
    pub(crate) fn session_until(&self, most: Duration) -> Option<SystemTime> {
        let each = self.consents.iter().map(|consent| consent.session);
        let shortest = each.collect::<Option<Vec<_>>>()?.into_iter().min()?;
        Some(self.at + shortest.min(most))
    }
}

/// One request for approval.
pub(crate) struct Request {
    /// What it is called.
    pub(crate) id: Id,
    /// What it is bound to.
    pub(crate) digest: Digest,
    /// Where it holds.
    pub(crate) scope: Scope,
    /// The command's number in that session.
    pub(crate) number: RequestId,
    /// Who asked, and every actor on their behalf: `issuer:subject` each.
    pub(crate) chain: Vec<Arc<str>>,
    /// What policy wants.
    pub(crate) wanted: Approval,
    /// When it was made.
    pub(crate) asked: SystemTime,
    /// Until when it waits.
    pub(crate) until: SystemTime,
    /// What people are shown of it.
    shown: Mutex<Shown>,
    state: Mutex<State>,
    /// Whether nothing more becomes of it.
    pub(super) over: AtomicBool,
    /// Held while an answer is recorded, so that answers take effect one after another.
    pub(super) answering: tokio::sync::Mutex<()>,
    /// Whom to wake.
    waiter: Option<Arc<dyn Signals>>,
}

/// What a request is made of.
pub(crate) struct Draft {
    pub(crate) id: Id,
    pub(crate) digest: Digest,
    pub(crate) scope: Scope,
    pub(crate) number: RequestId,
    pub(crate) chain: Vec<Arc<str>>,
    pub(crate) wanted: Approval,
    pub(crate) asked: SystemTime,
    pub(crate) until: SystemTime,
    pub(crate) shown: Shown,
    pub(crate) waiter: Option<Arc<dyn Signals>>,
}

/// A request that was made ahead of time, as the ledger kept it, with those who approved and when each did.
pub(crate) struct Kept {
    pub(crate) draft: Draft,
    pub(crate) consents: Vec<(SystemTime, Consent)>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("id", &self.draft.id)
            .field("consents", &self.consents.len())
            .finish_non_exhaustive()
    }
}

impl Request {
    /// A request as it stood when the gateway stopped.
    pub(crate) fn restored(kept: Kept) -> Request {
        let request = Request::new(kept.draft);
        let state =
            kept.consents.into_iter().fold(State::Pending(Pending::default()), |state, (at, consent)| {
                match state {
                    State::Pending(pending) => pending.approved(consent, &request.wanted, at),
                    state => state,
                }
            });
        *request.state.lock() = state;
        request
    }

    /// A request that waits for answers.
    pub(crate) fn new(draft: Draft) -> Request {
        let Draft { id, digest, scope, number, chain, wanted, asked, until, shown, waiter } = draft;
        Request {
            id,
            digest,
            scope,
            number,
            chain,
            wanted,
            asked,
            until,
            shown: Mutex::new(shown),
            state: Mutex::new(State::Pending(Pending::default())),
            over: AtomicBool::new(false),
            answering: tokio::sync::Mutex::default(),
            waiter,
        }
    }

    /// Where it stands at this time. What expires does so by being looked at.
    pub(crate) fn look(&self, now: SystemTime) -> Standpoint {
        let mut state = self.state.lock();
        let expired = match &*state {
            State::Pending(_) => now >= self.until,
            State::Granted(granted) => now >= granted.at + self.wanted.expires,
            _ => false,
        };
        if expired {
            *state = State::Lapsed(Lapse::Expired);
        }
        match &*state {
            State::Pending(_) => Standpoint::Pending,
            State::Granted(granted) => Standpoint::Granted(granted.clone()),
            State::Denied(denied) => Standpoint::Denied(denied.clone()),
            State::Lapsed(lapse) => Standpoint::Lapsed(*lapse),
            State::Used(_) => Standpoint::Used,
        }
    }

    /// Whether this person's answer would count at this time.
    pub(crate) fn fits(&self, who: &Principal, now: SystemTime) -> Result<(), Unfit> {
        if self.look(now) != Standpoint::Pending {
            return Err(Unfit::TooLate);
        }
        if self.chain.iter().any(|link| **link == **who.id()) {
            return Err(Unfit::Requester);
        }
        if who.kind() != PrincipalKind::User {
            return Err(Unfit::NotAPerson);
        }
        if !self.wanted.concerns(who.groups()) {
            return Err(Unfit::NotAMember);
        }
        match &*self.state.lock() {
            State::Pending(pending) if pending.consents.iter().any(|known| known.by.id() == who.id()) => {
                Err(Unfit::Answered)
            }
            State::Pending(_) => Ok(()),
            _ => Err(Unfit::TooLate),
        }
    }

    /// Takes a person's answer, and wakes who waits for it. The answer is in the ledger already.
    pub(crate) fn answer(
        &self,
        who: &Principal,
        answer: &Answer,
        reason: &str,
        now: SystemTime,
    ) -> Result<(), Unfit> {
        self.fits(who, now)?;
        let mut state = self.state.lock();
        let State::Pending(pending) = &mut *state else { return Err(Unfit::TooLate) };
        let pending = std::mem::take(pending);
        *state = match answer {
            Answer::Deny => State::Denied(Denied { by: who.id().clone(), reason: reason.into() }),
            Answer::Approve { session } => {
                let consent = Consent { by: Arc::new(who.clone()), session: *session };
                pending.approved(consent, &self.wanted, now)
            }
        };
        drop(state);
        self.wake();
        Ok(())
    }

    /// Uses the grant: who calls this first has it, and nobody after.
    pub(crate) fn take(&self, now: SystemTime) -> Option<Granted> {
        self.look(now);
        let mut state = self.state.lock();
        let State::Granted(granted) = &*state else { return None };
        let granted = granted.clone();
        *state = State::Used(granted.clone());
        Some(granted)
    }

    /// It comes to nothing, where nothing has become of it yet.
    pub(crate) fn lapse(&self, lapse: Lapse) {
        let mut state = self.state.lock();
        if matches!(*state, State::Pending(_) | State::Granted(_)) {
            *state = State::Lapsed(lapse);
        }
    }

    /// Whether the consent of anybody of whom `which` is true is part of it, and it was not used. It comes to nothing when they are
    /// revoked.
    pub(crate) fn rests_on(&self, which: impl Fn(&Principal) -> bool) -> bool {
        match &*self.state.lock() {
            State::Granted(Granted { consents, .. }) | State::Pending(Pending { consents }) => {
                consents.iter().any(|consent| which(&consent.by))
            }
            _ => false,
        }
    }

    /// Wakes the session that waits.
    pub(crate) fn wake(&self) {
        if let Some(waiter) = &self.waiter {
            waiter.signal().wake();
        }
    }

    /// The resource and the database that it is about.
    pub(crate) fn resource(&self) -> String {
        self.shown.lock().resource.clone()
    }

    /// What the transaction holds was found out: it is shown to whoever is asked.
    pub(crate) fn holds(&self, locks: Vec<String>) {
        self.shown.lock().locks = locks;
    }

    /// It is over: no more is kept of it than lists show.
    pub(super) fn shorten(&self) {
        self.shown.lock().shorten();
    }

    /// It as people are shown it at this time.
    pub(crate) fn shown(&self, now: SystemTime) -> Shown {
        let standpoint = self.look(now);
        let mut shown = self.shown.lock().clone();
        shown.state = standpoint.name().into();
        let state = self.state.lock();
        let consents = match &*state {
            State::Pending(pending) => &pending.consents[..],
            State::Granted(granted) | State::Used(granted) => &granted.consents,
            State::Denied(denied) => {
                shown.denied_by = Some(denied.by.to_string());
                shown.answer_reason = Some(denied.reason.to_string()).filter(|reason| !reason.is_empty());
                &[]
            }
            State::Lapsed(_) => &[],
        };
        shown.approved_by = consents.iter().map(|consent| consent.by.id().to_string()).collect();
        shown
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;

//! Answering a request: who may, and in which order things happen.

use std::sync::Arc;
use std::time::SystemTime;

use thiserror::Error;

use super::{Answer, Id, Kept, Request, Scope, Unfit};
use crate::gateway::{Gateway, to_its_end};
use crate::identity::Principal;
use crate::policy::AdminAction;
use crate::record::{Answered, Unavailable};

/// Why an answer does not count, in words for whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum AnswerError {
    /// There is no such request.
    #[error("there is no request {0}, or it is long over")]
    Unknown(Id),
    /// Who asked cannot answer.
    #[error("whoever asks for an approval, or acts for them, cannot give it")]
    Requester,
    /// Only a person can.
    #[error("only a person can answer, not a service")]
    NotAPerson,
    /// They are in none of the groups.
    #[error("only a member of {0} can answer")]
    NotAMember(String),
    /// They have answered.
    #[error("you have approved it already; another person must, too")]
    Answered,
    /// It is over.
    #[error("too late: it is {0}")]
    TooLate(&'static str),
    /// They were revoked.
    #[error("your access was revoked")]
    Revoked,
    /// Policy does not let them answer at all.
    #[error("policy does not permit you `approve` on the gateway")]
    Forbidden,
    /// The ledger cannot be written.
    #[error("{0}, so the answer does not count")]
    Unavailable(#[from] Unavailable),
}

impl Gateway {
    /// Takes a person's answer to a request: it is recorded, with their identity, before it takes effect, and recorded as well where it
    /// does not count.
    ///
    /// It goes on to its end where whoever asked does not wait for it: an answer is not in the ledger and nowhere else.
    pub(crate) async fn answer_approval(
        self: &Arc<Gateway>,
        who: &Principal,
        id: Id,
        answer: &Answer,
        reason: &str,
    ) -> Result<Arc<Request>, AnswerError> {
        let (gateway, who, answer, reason) = (self.clone(), who.clone(), answer.clone(), reason.to_owned());
        to_its_end(async move { gateway.take_answer(&who, id, &answer, &reason).await }).await
    }

    async fn take_answer(
        &self,
        who: &Principal,
        id: Id,
        answer: &Answer,
        reason: &str,
    ) -> Result<Arc<Request>, AnswerError> {
        let request = self.approvals.find(id).ok_or(AnswerError::Unknown(id))?;
        // One after another: of two who race, the second one finds what the first one made of it.
        let turn = request.answering.lock().await;
        let fit = match () {
            () if self.is_revoked(who) => Err(Unfit::Revoked),
            () if !self.permits(who, AdminAction::Approve) => Err(Unfit::Forbidden),
            () => request.fits(who, SystemTime::now()),
        };
        let answered = Answered {
            id,
            session: match request.scope {
                Scope::Session(number) if fit != Err(Unfit::TooLate) => number,
                _ => 0,
            },
            who,
            answer,
            reason,
            refused: fit.err().map(Unfit::name),
        };
        let recorded = self.recorder.record_answer(&answered, self.config.limits.durable_deadline).await;
        let now = SystemTime::now();
        let taken = match (fit, recorded) {
            (Err(unfit), _) => Err(unfit),
            (Ok(()), Err(_)) if request.fits(who, now) == Err(Unfit::TooLate) => Err(Unfit::TooLate),
            (Ok(()), Err(error)) => return Err(error.into()),
            // They were revoked while it was being recorded.
            (Ok(()), Ok(())) if self.is_revoked(who) => Err(Unfit::Revoked),
            (Ok(()), Ok(())) => request.answer(who, answer, reason, now),
        };
        drop(turn);
        // From here on a revocation finds the consent; one that came before is found here.
        if taken.is_ok() && self.is_revoked(who) {
            self.revoke_consents();
        }
        if taken.is_ok() {
            self.approvals.happened("approval.answered", request.shown(now));
        }
        tracing::info!(%id, by = &**who.id(), ?answer, refused = ?taken.err(), "approval answered");
        match taken {
            Ok(()) => Ok(request),
            Err(unfit) => Err(match unfit {
                Unfit::Requester => AnswerError::Requester,
                Unfit::NotAPerson => AnswerError::NotAPerson,
                Unfit::NotAMember => {
                    let groups: Vec<&str> =
                        request.wanted.groups().into_iter().map(|group| &**group).collect();
                    AnswerError::NotAMember(groups.join(" or "))
                }
                Unfit::Answered => AnswerError::Answered,
                Unfit::TooLate => AnswerError::TooLate(request.look(now).name()),
                Unfit::Revoked => AnswerError::Revoked,
                Unfit::Forbidden => AnswerError::Forbidden,
            }),
        }
    }

    /// Ends what rests on the consent of anybody who was revoked; the sessions that wait for it are told by being woken.
    pub(crate) fn revoke_consents(&self) {
        let stays_out = |who: &Principal| self.is_revoked(who);
        for request in self.approvals.all().iter().filter(|request| request.rests_on(stays_out)) {
            request.lapse(super::Lapse::Changed);
            match request.scope {
                Scope::Session(_) => request.wake(),
                Scope::Once(_) => {
                    self.approvals.over(request);
                    self.recorder.record_lapsed(request.id, super::Lapse::Changed);
                }
            }
        }
    }

    /// Takes up the requests that a former run left. Whoever was revoked has consented to none of them.
    pub(crate) fn restore_approvals(&self, kept: Vec<Kept>) {
        self.approvals.restore(kept);
        self.revoke_consents();
    }

    /// Ends what has expired; what nobody's session waits for is recorded here.
    pub(crate) fn expire_approvals(&self, now: SystemTime) {
        for request in self.approvals.expire(now) {
            self.recorder.record_lapsed(request.id, super::Lapse::Expired);
        }
    }
}

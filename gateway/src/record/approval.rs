//! What is written about approvals.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use gatebook_ledger::event;
use gatebook_wire::protocol::{Circumstances, Command, RequestId};

use super::book::{effect, parameter};
use super::{Recorder, Shared, Slot, Unavailable};
use crate::approval::{Answer, Consent, Digest, Id, Lapse, Request, Scope, objects, seconds};
use crate::identity::Principal;
use crate::policy::Demand;

/// A request as it is recorded.
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Request,
    pub(crate) commands: &'a [Command],
    pub(crate) circumstances: &'a Circumstances,
    pub(crate) policies: &'a [String],
}

/// The use of an approval as it is recorded.
pub(crate) struct Used<'a> {
    pub(crate) id: Id,
    pub(crate) digest: Digest,
    pub(crate) number: RequestId,
    pub(crate) consents: &'a [Consent],
}

/// An emergency as it is recorded.
pub(crate) struct Broken<'a> {
    pub(crate) digest: Digest,
    pub(crate) number: RequestId,
    /// Whose approval was needed: `2 of dba`; empty where the permit is for emergencies alone.
    pub(crate) needed: &'a str,
    pub(crate) why: &'a str,
}

/// An answer as it is recorded.
pub(crate) struct Answered<'a> {
    pub(crate) id: Id,
    /// The session that waits for it; 0 for none.
    pub(crate) session: u64,
    pub(crate) who: &'a Principal,
    pub(crate) answer: &'a Answer,
    pub(crate) reason: &'a str,
    /// Why it does not count, where it does not.
    pub(crate) refused: Option<&'static str>,
}

pub(super) fn requested(shared: &Shared, slot: Option<&Arc<Slot>>, asked: &Asked<'_>) {
    let request = asked.request;
    let body = event::ApprovalRequestedBody {
        digest: request.digest.to_string().into(),
        expires_s: Some(request.wanted.expires.as_secs()),
        id: request.id.to_string().into(),
        once: matches!(request.scope, Scope::Once(_)),
        quorum: request.wanted.quorum().into(),
        request: request.number,
        until_s: seconds(request.until),
    };
    let circumstances = asked.circumstances;
    let payload = event::ApprovalRequestedPayload {
        chain: texts(&request.chain),
        commands: asked.commands.iter().map(command).collect(),
        demands: request.wanted.demands.iter().map(demand).collect(),
        in_transaction: circumstances.in_transaction,
        objects: objects(circumstances).into_iter().map(Cow::Owned).collect(),
        policies: asked.policies.iter().map(|policy| policy.as_str().into()).collect(),
        reason: circumstances.reason.as_deref().map(Cow::Borrowed),
        resource: Some(request.resource().into()),
        role: circumstances.role.as_str().into(),
        search_path: circumstances.search_path.as_str().into(),
    };
    shared.push(slot, &body, Some(&payload));
}

fn demand(demand: &Demand) -> event::AskedDemand<'_> {
    event::AskedDemand { groups: texts(&demand.groups), quorum: demand.quorum.into() }
}

fn texts<'a>(names: impl IntoIterator<Item = &'a Arc<str>>) -> Vec<Cow<'a, str>> {
    names.into_iter().map(|name| Cow::Borrowed(&**name)).collect()
}

fn command(command: &Command) -> event::AskedCommand<'_> {
    let meaning = &command.meaning;
    let actions = meaning.actions.iter();
    event::AskedCommand {
        actions: actions.map(|action| format!("{} {}", action.verb.name(), action.object).into()).collect(),
        effect: Some(effect(meaning).into()),
        has_where: Some(meaning.facts.has_where),
        kind: Some(meaning.facts.kind.as_str().into()),
        parameters: command.parameters.iter().map(parameter).collect(),
        sent: command.sent.as_deref().map(event::Text::new),
        statement: event::Text::new(&command.statement),
    }
}

pub(super) fn used(shared: &Shared, slot: &Arc<Slot>, used: &Used<'_>) {
    let body = event::ApprovalUsedBody {
        digest: used.digest.to_string().into(),
        id: used.id.to_string().into(),
        request: used.number,
    };
    let approvers = used.consents.iter().map(|consent| Cow::Borrowed(&**consent.by.id())).collect();
    shared.queue(Some(slot), &body, Some(&event::ApprovalUsedPayload { approvers }));
}

pub(super) fn broken(shared: &Shared, slot: &Arc<Slot>, broken: &Broken<'_>) {
    let body = event::GlassBrokenBody { digest: broken.digest.to_string().into(), request: broken.number };
    let payload = event::GlassBrokenPayload { needed: broken.needed.into(), reason: broken.why.into() };
    shared.queue(Some(slot), &body, Some(&payload));
}

pub(super) fn lapsed(shared: &Shared, slot: Option<&Arc<Slot>>, id: Id, lapse: Lapse) {
    let body = event::ApprovalLapsedBody { id: id.to_string().into(), reason: lapse.name().into() };
    shared.queue(slot, &body, None);
}

impl Recorder {
    /// Records an answer to a request for approval; durable when it returns.
    pub(crate) async fn record_answer(
        &self,
        answered: &Answered<'_>,
        deadline: Duration,
    ) -> Result<(), Unavailable> {
        let (answer, session) = match answered.answer {
            Answer::Approve { session } => ("approve", *session),
            Answer::Deny => ("deny", None),
        };
        let body = event::ApprovalAnsweredBody {
            answer: answer.into(),
            id: answered.id.to_string().into(),
            refused: answered.refused.map(Cow::Borrowed),
            session_s: session.map(|time| time.as_secs()),
        };
        let payload = event::ApprovalAnsweredPayload {
            approver: (&**answered.who.id()).into(),
            groups: texts(answered.who.groups().iter()),
            name: (&**answered.who.name()).into(),
            reason: answered.reason.into(),
            token: Some((&**answered.who.token_id()).into()),
        };
        // The session's own task waits at the session's own slot.
        let slot = Slot::beside(answered.session);
        self.shared.enroll(&slot);
        let ticket = self.shared.push(Some(&slot), &body, Some(&payload));
        slot.durable(ticket, deadline).await
    }

    /// Records that a request which no session waits for came to nothing. Nobody waits for it.
    pub(crate) fn record_lapsed(&self, id: Id, lapse: Lapse) {
        lapsed(&self.shared, None, id, lapse);
    }
}

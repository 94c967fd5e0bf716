//! Requests for approval that were made ahead of time, and that a former run left: what they were, and who has approved.
//!
//! Those that a session waits for end with it, and so does what was approved for the rest of a session: there is nothing of them to find.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatebook_ledger::event;

use crate::approval::{
    Consent, Digest, Draft, Id, Kept, Scope, Shown, ShownCommand, ShownParts, seconds, shown_parts,
};
use crate::identity::{Principal, PrincipalKind};
use crate::policy::{Approval, Demand, InTransaction};

/// What is gathered of them on the way back through the ledger, segment by segment.
#[derive(Default)]
pub(super) struct Requests {
    asked: Vec<(u64, Draft)>,
    answers: Vec<(u64, String, SystemTime, Consent)>,
    over: HashSet<String>,
}

impl Requests {
    /// Nothing more becomes of this one.
    pub(super) fn over(&mut self, id: &str) {
        self.over.insert(id.to_owned());
    }

    /// One was made. Without its payload, or as an earlier version wrote it, it cannot go on.
    pub(super) fn asked(
        &mut self,
        seq: u64,
        body: &event::ApprovalRequestedBody<'_>,
        payload: Option<event::ApprovalRequestedPayload<'_>>,
    ) {
        if body.once
            && let Some(draft) = payload.and_then(|payload| draft(body, payload))
        {
            self.asked.push((seq, draft));
        }
    }

    /// Somebody answered. Whoever cannot be told has not approved.
    pub(super) fn answered(
        &mut self,
        seq: u64,
        body: &event::ApprovalAnsweredBody<'_>,
        payload: Option<event::ApprovalAnsweredPayload<'_>>,
        made: SystemTime,
    ) {
        match payload {
            _ if body.refused.is_some() => {}
            Some(payload) if body.answer == "approve" => {
                let Some((issuer, subject)) = payload.approver.split_once(':') else { return };
                let groups = payload.groups.iter().map(|group| Arc::from(&**group));
                let token = payload.token.as_deref().unwrap_or_default();
                // How long their token lasts is of no consequence: they have answered.
                let until = seconds(made);
                let by = Principal::recorded(
                    PrincipalKind::User,
                    issuer,
                    subject,
                    &payload.name,
                    groups,
                    token,
                    until,
                );
                let consent = Consent { by: Arc::new(by), session: None };
                self.answers.push((seq, body.id.to_string(), made, consent));
            }
            _ => self.over(&body.id),
        }
    }

    /// How far it is known now.
    pub(super) fn mark(&self) -> usize {
        self.asked.len()
    }

    /// Forgets what was made since a mark. Answers to it find nothing then.
    pub(super) fn forget(&mut self, mark: usize) {
        self.asked.truncate(mark);
    }

    /// Those of which something can still become, the oldest first.
    pub(super) fn left(mut self) -> Vec<Kept> {
        self.asked.retain(|(_, draft)| !self.over.contains(&draft.id.to_string()));
        self.asked.sort_by_key(|(seq, _)| *seq);
        self.answers.sort_by_key(|(seq, ..)| *seq);
        let consents = |asked: u64, id: &str| {
            let theirs = self.answers.iter().filter(|(seq, to, ..)| *seq > asked && to == id);
            theirs.map(|(_, _, at, consent)| (*at, consent.clone())).collect()
        };
        let kept = self.asked.into_iter().map(|(seq, draft)| {
            let consents = consents(seq, &draft.id.to_string());
            Kept { draft, consents }
        });
        kept.collect()
    }
}

/// A request as it was recorded.
fn draft(
    body: &event::ApprovalRequestedBody<'_>,
    payload: event::ApprovalRequestedPayload<'_>,
) -> Option<Draft> {
    let texts = |names: &[Cow<'_, str>]| names.iter().map(ToString::to_string).collect::<Vec<String>>();
    let id: Id = body.id.parse().ok()?;
    let digest: Digest = body.digest.parse().ok()?;
    // Ahead of time it waits as long as it holds.
    let expires = Duration::from_secs(body.expires_s?);
    let until = UNIX_EPOCH.checked_add(Duration::from_secs(body.until_s))?;
    let asked = until.checked_sub(expires)?;
    let resource = payload.resource.as_ref()?.to_string();
    let (principal, through) = payload.chain.split_first()?;
    let wanted = Approval {
        demands: payload.demands.iter().map(demand).collect::<Option<_>>()?,
        expires,
        // It waits in no transaction.
        in_transaction: InTransaction::Refuse,
    };
    if wanted.demands.is_empty() {
        return None;
    }
    let shown = Shown {
        id: id.to_string(),
        principal: principal.to_string(),
        through: texts(through),
        resource,
        role: payload.role.to_string(),
        search_path: payload.search_path.to_string(),
        commands: commands(&payload.commands)?,
        objects: texts(&payload.objects),
        reason: payload.reason.as_deref().map(str::to_owned),
        policies: texts(&payload.policies),
        approvers: wanted.demands.iter().map(ToString::to_string).collect(),
        quorum: wanted.quorum(),
        in_transaction: payload.in_transaction,
        asked_s: seconds(asked),
        until_s: body.until_s,
        digest: digest.to_string(),
        ..Shown::default()
    };
    Some(Draft {
        id,
        digest,
        scope: Scope::Once(id),
        number: body.request,
        chain: payload.chain.iter().map(|link| Arc::from(&**link)).collect(),
        wanted,
        asked,
        until,
        shown,
        waiter: None,
    })
}

fn demand(asked: &event::AskedDemand<'_>) -> Option<Demand> {
    let groups = asked.groups.iter().map(|group| Arc::from(&**group)).collect();
    Some(Demand { groups, quorum: u8::try_from(asked.quorum).ok().filter(|quorum| *quorum > 0)? })
}

/// A command's bytes: its statement, what is sent in its place, and its values, each with whether it is binary.
type Bytes<'a> = (Cow<'a, [u8]>, Option<Cow<'a, [u8]>>, Vec<(bool, Option<Cow<'a, [u8]>>)>);

fn bytes<'a>(asked: &'a event::AskedCommand<'_>) -> Option<Bytes<'a>> {
    let maybe = |text: &'a Option<event::Text<'_>>| match text {
        None => Some(None),
        Some(text) => text.bytes().map(Some),
    };
    let parameters = asked.parameters.iter().map(|one| Some((one.binary, maybe(&one.value)?)));
    Some((asked.statement.bytes()?, maybe(&asked.sent)?, parameters.collect::<Option<_>>()?))
}

fn commands(asked: &[event::AskedCommand<'_>]) -> Option<Vec<ShownCommand>> {
    let all = asked.iter().map(bytes).collect::<Option<Vec<_>>>()?;
    let parts = asked.iter().zip(&all).map(|(asked, (statement, sent, parameters))| ShownParts {
        statement,
        sent: sent.as_deref(),
        parameters: parameters.iter().map(|(binary, value)| (*binary, value.as_deref())).collect(),
        actions: asked.actions.iter().map(ToString::to_string).collect(),
        kind: asked.kind.as_deref().unwrap_or_default(),
        reads: asked.effect.as_deref() == Some("reads"),
        has_where: asked.has_where.unwrap_or_default(),
    });
    Some(shown_parts(&parts.collect::<Vec<_>>()))
}

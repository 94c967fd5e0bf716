//! What a command needs of people before it goes: a reason of its caller, and somebody else's approval.
//!
//! A command that needs approval is not decided while it waits. Its frame is handed in again whenever something may have changed, and
//! everything is looked at anew: what it means, what policy says today, and whether the approval is for exactly this. So what was approved
//! and what runs are compared at the last moment, and by the code that lets it go.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, SystemTime};

use gatebook_wire::action::{Action, Verb};
use gatebook_wire::protocol::{Circumstances, Command, Phase, Refusal, RefusalKind, RequestId};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Exchange;
use crate::approval::{
    Approvals, Bound, Consent as Person, Digest, Draft, Full, Id, Lapse, Request, Scope, Shown, Standpoint,
    commands as shown_commands, objects, seconds, suffice,
};
use crate::identity::Principal;
use crate::policy::{Approval, Glass, InTransaction, PolicySet};
use crate::record::{Asked, Broken, Used};

/// How often a client that waits is told so: its read timeout may be short.
const TELL_EVERY: Duration = Duration::from_secs(20);

/// How many approvals for the rest of a session are kept.
const GRANTS_MAX: usize = 64;

/// What a client brings with it when it connects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Presented {
    /// Nothing: it waits.
    #[default]
    Nothing,
    /// It asks ahead of time: what needs approval is asked for and refused, and told by which id it may come back.
    Ask,
    /// An approval that was given ahead of time; none where what it brings is no id.
    Approved(Option<Id>),
}

/// Finds out, beside everything else, what the session's transaction holds, and shows it to whoever is asked.
pub(crate) type Locks = Box<dyn Fn(Arc<Request>) + Send + Sync>;

/// Tells of somebody whether they were revoked.
pub(crate) type StaysOut = Box<dyn Fn(&Principal) -> bool + Send + Sync>;

/// What an exchange needs to ask people.
pub(crate) struct People {
    pub(crate) approvals: Arc<Approvals>,
    pub(crate) presented: Presented,
    pub(crate) locks: Option<Locks>,
    /// Whether somebody was revoked.
    pub(crate) stays_out: StaysOut,
}

/// The people of an exchange, and what it asks them now.
pub(super) struct Asking {
    people: People,
    waiting: Option<Waiting>,
    grants: Vec<SessionGrant>,
}

/// A command that waits.
struct Waiting {
    request: Arc<Request>,
    /// The hash of the policies under which it was last looked at.
    policies: [u8; 32],
    /// When the client is told next.
    tell: Pin<Box<Sleep>>,
}

/// An approval for the like of a command, for a while.
struct SessionGrant {
    id: Id,
    until: SystemTime,
    consents: Vec<Person>,
    state: [u8; 32],
    actions: Vec<Action>,
}

/// Whether people let a command go.
pub(super) enum Consent {
    /// Nobody need be asked.
    NotWanted,
    /// It may go.
    Given,
    /// It waits.
    Wait,
    /// It may not; with a note for the ledger.
    Refused(Refusal, String),
}

impl Asking {
    pub(super) fn new(people: People) -> Asking {
        Asking { people, waiting: None, grants: Vec::new() }
    }
}

/// What is wanted of people for the commands at hand.
struct Wanted<'a> {
    commands: &'a [Command],
    first: RequestId,
    approval: Approval,
    policies: Vec<String>,
    /// The hash of the policies in force.
    set: [u8; 32],
    circumstances: &'a Circumstances,
    now: SystemTime,
}

impl Exchange {
    /// Asks people about commands that policy permits, as far as it wants them asked.
    pub(super) fn consent(
        &mut self,
        policy: &PolicySet,
        commands: &[Command],
        first: RequestId,
        circumstances: impl FnOnce() -> Circumstances,
    ) -> Consent {
        let mut approval: Option<Approval> = None;
        let mut wants_reason = false;
        let mut glass: Option<Glass> = None;
        let mut policies = Vec::new();
        for command in commands {
            let decision = self.decisions.decide(policy, &self.terms.standing, &command.meaning);
            if !decision.is_permit() {
                self.give_up(Lapse::Changed);
                return Consent::NotWanted;
            }
            // What is only made ready changes nothing and shows nothing; it is asked about when it runs.
            if command.phase == Phase::Prepare {
                continue;
            }
            wants_reason |= decision.wants_reason();
            glass = Some(glass.map_or(decision.glass, |glass| glass.and(decision.glass)));
            if let Some(more) = decision.approval.clone() {
                policies.extend(decision.determining.iter().map(ToString::to_string));
                approval = Some(match approval {
                    Some(approval) => approval.and(more),
                    None => more,
                });
            }
        }
        let glass = glass.filter(|glass| glass.required || approval.is_some() && glass.lifts);
        if approval.is_none() && glass.is_none() && !wants_reason {
            self.give_up(Lapse::Changed);
            return Consent::NotWanted;
        }
        let circumstances = circumstances();
        let emergency = circumstances.break_glass.clone().filter(|_| glass.is_some());
        if glass.is_some_and(|glass| glass.required) && emergency.is_none() {
            self.give_up(Lapse::Changed);
            let hint =
                "where it is one, begin the statement with /* break-glass: why */; everybody will be told";
            return refused(
                commands,
                RefusalKind::NotApproved,
                "it is permitted in an emergency alone",
                hint,
            );
        }
        if wants_reason && circumstances.reason.is_none() && emergency.is_none() {
            self.give_up(Lapse::Changed);
            let hint = "begin the statement with /* reason: … */";
            return refused(commands, RefusalKind::NotApproved, "say why you want it", hint);
        }
        let lifted = emergency.is_some() && glass.is_some_and(|glass| glass.lifts);
        let groups = approval.as_ref().map_or_else(String::new, ToString::to_string);
        let consent = match approval {
            Some(approval) if !lifted => {
                policies.sort();
                policies.dedup();
                let (circumstances, now) = (&circumstances, SystemTime::now());
                let set = *policy.hash();
                self.wait_for_people(&Wanted { commands, first, approval, policies, set, circumstances, now })
            }
            _ => {
                self.give_up(Lapse::Changed);
                Consent::Given
            }
        };
        if let (Consent::Given, Some(why)) = (&consent, emergency) {
            self.break_glass(&why, &groups, commands, first, &circumstances);
        }
        consent
    }

    fn wait_for_people(&mut self, wanted: &Wanted<'_>) -> Consent {
        let settled = if self.is_waiting() { self.look_at_answers(wanted) } else { None };
        settled.unwrap_or_else(|| self.ask_people(wanted))
    }

    /// The caller goes on without asking those whom policy wants asked: that stands in the ledger before the command does, and everybody is
    /// told.
    fn break_glass(
        &self,
        why: &str,
        needed: &str,
        commands: &[Command],
        first: RequestId,
        circumstances: &Circumstances,
    ) {
        let scope = Scope::Session(self.book.number());
        let digest = Bound { scope, standing: &self.terms.standing, circumstances, commands }.digest();
        self.book.glass_broken(&Broken { digest, number: first, needed, why });
        let shown = Shown {
            state: "broken".into(),
            session: Some(self.book.number()),
            reason: Some(why.to_owned()),
            approvers: vec![needed.to_owned()],
            asked_s: seconds(SystemTime::now()),
            digest: digest.to_string(),
            ..self.shown(commands, circumstances)
        };
        tracing::error!(
            session = self.book.number(),
            principal = shown.principal,
            why = %why.escape_debug(),
            "GLASS BROKEN: a command goes on without the approval that it needs"
        );
        self.asking.people.approvals.happened("glass.broken", shown);
    }

    /// Commands as people are shown them, with all that is known of them before anybody is asked.
    fn shown(&self, commands: &[Command], circumstances: &Circumstances) -> Shown {
        let standing = &self.terms.standing;
        let mut chain = standing.chain.iter().map(|link| link.id().to_string());
        Shown {
            principal: chain.next().unwrap_or_default(),
            through: chain.collect(),
            resource: format!("{}/{}", standing.resource, standing.database),
            role: circumstances.role.clone(),
            search_path: circumstances.search_path.clone(),
            commands: shown_commands(commands),
            objects: objects(circumstances),
            in_transaction: circumstances.in_transaction,
            ..Shown::default()
        }
    }

    fn digest(&self, wanted: &Wanted<'_>, scope: Scope) -> Digest {
        let Wanted { commands, circumstances, .. } = wanted;
        Bound { scope, standing: &self.terms.standing, circumstances, commands }.digest()
    }

    /// What became of the request that is under way; none where it is not about this any more, and must be asked anew.
    fn look_at_answers(&mut self, wanted: &Wanted<'_>) -> Option<Consent> {
        let request = self.asking.waiting.as_ref()?.request.clone();
        let commands = wanted.commands;
        let by = &request.wanted;
        if self.book.signal().is_withdrawn() {
            self.give_up(Lapse::Cancelled);
            let what = "the request for approval is withdrawn";
            let refusal = Refusal { kind: RefusalKind::Cancelled, message: what.into(), hint: None };
            return Some(Consent::Refused(refusal, what.into()));
        }
        if request.digest != self.digest(wanted, Scope::Session(self.book.number())) {
            self.give_up(Lapse::Changed);
            return None;
        }
        match request.look(wanted.now) {
            // Other policies are in force, and they want others to be asked.
            Standpoint::Pending if request.wanted != wanted.approval => {
                self.give_up(Lapse::Changed);
                None
            }
            Standpoint::Pending => {
                if let Some(waiting) = &mut self.asking.waiting {
                    waiting.policies = wanted.set;
                }
                Some(Consent::Wait)
            }
            Standpoint::Granted(granted) if suffice(&granted.consents, &wanted.approval) => {
                match request.take(wanted.now) {
                    Some(granted) => {
                        self.settle_waiting(&request);
                        self.remember(
                            &request,
                            &granted.consents,
                            granted.session_until(wanted.approval.expires),
                            wanted,
                        );
                        self.uses(&request, &granted.consents, wanted);
                        Some(Consent::Given)
                    }
                    None => Some(Consent::Wait),
                }
            }
            // Those who approved are not enough for what policy wants by now.
            Standpoint::Granted(_) => {
                self.give_up(Lapse::Changed);
                None
            }
            Standpoint::Denied(denied) => {
                self.give_up(Lapse::Denied);
                let why =
                    if denied.reason.is_empty() { String::new() } else { format!(": {}", denied.reason) };
                let what = format!("denied by {}{why}", denied.by);
                Some(refused(
                    commands,
                    RefusalKind::NotApproved,
                    &what,
                    "talk to them, or to the others who may approve",
                ))
            }
            // Somebody whose consent it rested on was revoked: others are asked.
            Standpoint::Lapsed(Lapse::Changed) => {
                self.give_up(Lapse::Changed);
                None
            }
            Standpoint::Lapsed(_) | Standpoint::Used => {
                self.give_up(Lapse::Expired);
                let hint = format!("ask {by} for it, and run it again");
                Some(refused(commands, RefusalKind::NotApproved, "nobody approved it in time", &hint))
            }
        }
    }

    /// Asks, or finds that it was asked and answered before.
    fn ask_people(&mut self, wanted: &Wanted<'_>) -> Consent {
        let by = &wanted.approval;
        if self.was_granted(wanted) {
            return Consent::Given;
        }
        // Nobody could tell from its text what they approve, nor would its text bind it.
        if wanted.commands.iter().any(|command| command.meaning.facts.by_name) {
            let what = format!("it needs approval by {by}, and runs what a name stands for");
            return refused(
                wanted.commands,
                RefusalKind::NotApproved,
                &what,
                "send the statement itself, in place of EXECUTE or FETCH",
            );
        }
        match self.asking.people.presented {
            Presented::Approved(id) => return self.use_presented(id, wanted),
            Presented::Ask => {
                let id = self.asking.people.approvals.id();
                let scope = Scope::Once(id);
                return match self.request(id, scope, wanted.approval.expires, wanted) {
                    Err(Full) => too_many(wanted.commands),
                    Ok(_) => refused(
                        wanted.commands,
                        RefusalKind::NotApproved,
                        &format!("{by} are asked, as request {id}"),
                        &format!(
                            "once it is approved, connect with options='-c gatebook.approval={id}' and run it again"
                        ),
                    ),
                };
            }
            Presented::Nothing => {}
        }
        let wait = match wanted.approval.in_transaction {
            _ if !wanted.circumstances.in_transaction => wanted.approval.expires,
            InTransaction::Wait(most) => wanted.approval.expires.min(most),
            InTransaction::Refuse => {
                let what = format!("it needs approval by {by}, which is not waited for inside a transaction");
                let hint = "run it before the transaction begins, or ask ahead of time";
                return refused(wanted.commands, RefusalKind::NotApproved, &what, hint);
            }
        };
        let id = self.asking.people.approvals.id();
        match self.request(id, Scope::Session(self.book.number()), wait, wanted) {
            Err(Full) => too_many(wanted.commands),
            Ok(request) => {
                self.book.signal().hold(self.open.iter().any(|open| open.runs));
                if wanted.circumstances.in_transaction
                    && let Some(locks) = &self.asking.people.locks
                {
                    locks(request.clone());
                }
                let tell = Box::pin(sleep_until(Instant::now()));
                self.asking.waiting = Some(Waiting { request, policies: wanted.set, tell });
                Consent::Wait
            }
        }
    }

    /// Makes a request, recorded before anybody can answer it.
    fn request(
        &self,
        id: Id,
        scope: Scope,
        wait: Duration,
        wanted: &Wanted<'_>,
    ) -> Result<Arc<Request>, Full> {
        let standing = &self.terms.standing;
        let circumstances = wanted.circumstances;
        let digest = self.digest(wanted, scope);
        let until = wanted.now + wait;
        let held = matches!(scope, Scope::Session(_));
        let chain: Vec<Arc<str>> = standing.chain.iter().map(|link| link.id().clone()).collect();
        let shown = Shown {
            id: id.to_string(),
            session: held.then(|| self.book.number()),
            reason: circumstances.reason.clone(),
            policies: wanted.policies.clone(),
            approvers: wanted.approval.demands.iter().map(ToString::to_string).collect(),
            quorum: wanted.approval.quorum(),
            asked_s: seconds(wanted.now),
            until_s: seconds(until),
            digest: digest.to_string(),
            ..self.shown(wanted.commands, circumstances)
        };
        let draft = Draft {
            id,
            digest,
            scope,
            number: wanted.first,
            chain,
            wanted: wanted.approval.clone(),
            asked: wanted.now,
            until,
            shown,
            waiter: held.then(|| self.book.slot() as Arc<dyn crate::session::Signals>),
        };
        let Wanted { commands, circumstances, policies, .. } = wanted;
        let request = self.asking.people.approvals.enter(draft, |request| {
            self.book.approval_requested(&Asked { request, commands, circumstances, policies });
        })?;
        self.asking.people.approvals.happened("approval.requested", request.shown(wanted.now));
        Ok(request)
    }

    /// Uses an approval that was given ahead of time, if it is for exactly this.
    fn use_presented(&mut self, id: Option<Id>, wanted: &Wanted<'_>) -> Consent {
        let no = |what: &str| {
            let what = format!("the approval that it brings {what}");
            refused(wanted.commands, RefusalKind::NotApproved, &what, "ask anew with gatebook.approval=ask")
        };
        let found = id.and_then(|id| Some((id, self.asking.people.approvals.find(id)?)));
        let Some((id, request)) = found else { return no("is not known") };
        if request.scope != Scope::Once(id) || request.digest != self.digest(wanted, Scope::Once(id)) {
            return no("is not for this command, of this caller, in this place");
        }
        match request.look(wanted.now) {
            Standpoint::Granted(granted) if !suffice(&granted.consents, &wanted.approval) => {
                no("is not enough for what policy wants by now")
            }
            Standpoint::Granted(_) => match request.take(wanted.now) {
                Some(granted) => {
                    self.asking.people.approvals.over(&request);
                    self.uses(&request, &granted.consents, wanted);
                    Consent::Given
                }
                None => no("was used"),
            },
            other => no(&format!("is {}", other.name())),
        }
    }

    /// Whether the like of it was approved for a while.
    fn was_granted(&mut self, wanted: &Wanted<'_>) -> bool {
        self.asking.grants.retain(|grant| wanted.now < grant.until);
        let stays_out = &self.asking.people.stays_out;
        let fits = |grant: &&SessionGrant| {
            let mut actions = wanted.commands.iter().flat_map(|command| &command.meaning.actions);
            grant.state == wanted.circumstances.state
                && suffice(&grant.consents, &wanted.approval)
                && !grant.consents.iter().any(|consent| stays_out(&consent.by))
                && actions.all(|action| grant.actions.contains(action))
        };
        let Some(grant) = self.asking.grants.iter().find(fits) else { return false };
        let digest = self.digest(wanted, Scope::Session(self.book.number()));
        self.book.approval_used(&Used {
            id: grant.id,
            digest,
            number: wanted.first,
            consents: &grant.consents,
        });
        true
    }

    /// Keeps what was approved for the rest of the session, or for a while of it.
    fn remember(
        &mut self,
        request: &Request,
        consents: &[Person],
        until: Option<SystemTime>,
        wanted: &Wanted<'_>,
    ) {
        let Some(until) = until else { return };
        // The like of these is not known: one of them may do anything.
        let is_vague = |action: &Action| matches!(action.verb, Verb::Opaque | Verb::Call | Verb::Administer);
        if wanted.commands.iter().flat_map(|command| &command.meaning.actions).any(is_vague) {
            return;
        }
        if self.asking.grants.len() == GRANTS_MAX {
            self.asking.grants.remove(0);
        }
        let actions = wanted.commands.iter().flat_map(|command| command.meaning.actions.iter().cloned());
        self.asking.grants.push(SessionGrant {
            id: request.id,
            until,
            consents: consents.to_vec(),
            state: wanted.circumstances.state,
            actions: actions.collect(),
        });
    }

    fn uses(&self, request: &Request, consents: &[Person], wanted: &Wanted<'_>) {
        let Request { id, digest, .. } = request;
        self.book.approval_used(&Used { id: *id, digest: *digest, number: wanted.first, consents });
    }

    fn settle_waiting(&mut self, request: &Request) {
        self.asking.waiting = None;
        self.book.signal().release();
        self.asking.people.approvals.over(request);
    }

    /// Nothing waits any more; what did has come to nothing.
    pub(in crate::session) fn give_up(&mut self, lapse: Lapse) {
        let Some(waiting) = &self.asking.waiting else { return };
        let request = waiting.request.clone();
        request.lapse(lapse);
        self.book.approval_lapsed(request.id, lapse);
        self.settle_waiting(&request);
    }

    /// Whether a command waits for people.
    pub(in crate::session) fn is_waiting(&self) -> bool {
        self.asking.waiting.is_some()
    }

    /// Whether what waits is to be handed in again: it is answered, withdrawn, its time is over, or other policies are in force.
    pub(in crate::session) fn is_answered(&self) -> bool {
        self.asking.waiting.as_ref().is_some_and(|waiting| {
            *self.policy.load().hash() != waiting.policies
                || self.book.signal().is_withdrawn()
                || waiting.request.look(SystemTime::now()) != Standpoint::Pending
        })
    }

    /// What the client is to be told now; has the task of `cx` woken when there is more.
    pub(in crate::session) fn words(&mut self, cx: &mut Context<'_>) -> Option<String> {
        let waiting = self.asking.waiting.as_mut()?;
        if waiting.tell.as_mut().poll(cx).is_pending() {
            return None;
        }
        waiting.tell.as_mut().reset(Instant::now() + TELL_EVERY);
        // The clock of a fresh deadline runs only once it was asked.
        let _ = waiting.tell.as_mut().poll(cx);
        let request = &waiting.request;
        let left = request.until.duration_since(SystemTime::now()).unwrap_or_default().as_secs();
        let left = if left >= 120 { format!("{} min", left.div_ceil(60)) } else { format!("{left} s") };
        let by = &request.wanted;
        Some(format!(
            "waiting for approval by {by} (request {}, {left} left); Ctrl-C withdraws it",
            request.id
        ))
    }
}

fn refused(commands: &[Command], kind: RefusalKind, what: &str, hint: &str) -> Consent {
    let command = commands.first().map_or_else(String::new, super::kind_of);
    let message = format!("{command}: {what}");
    Consent::Refused(Refusal { kind, message, hint: Some(hint.into()) }, what.into())
}

fn too_many(commands: &[Command]) -> Consent {
    refused(
        commands,
        RefusalKind::NotApproved,
        "too many requests for approval wait already",
        "try again later",
    )
}

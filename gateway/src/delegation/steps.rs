//! The steps of a delegation's life: who asks, what may be handed down, the record, the token, the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Allowance, Delegation, Delegations, NAME_BYTES_MAX, TTL_MIN};
use crate::gateway::{Gateway, to_its_end};
use crate::identity::{Cause, Credential, Principal, Rejected};
use crate::policy::{AdminAction, Scope, ScopeText};
use crate::record::{AdminEntry, Unavailable};
use crate::session::{Ended, Target};

/// Who presented a credential: a principal, or whoever holds what one handed down.
pub(crate) struct Caller {
    pub(crate) principal: Arc<Principal>,
    /// The last link of the chain, where there is one.
    pub(crate) delegation: Option<Arc<Delegation>>,
}

impl Caller {
    /// When its credential is over.
    pub(crate) fn expires(&self) -> SystemTime {
        self.delegation.as_ref().map_or_else(|| self.principal.expires(), |delegation| delegation.expires)
    }

    /// Everybody along the chain who showed who they are.
    pub(crate) fn principals(&self) -> Vec<Arc<Principal>> {
        match &self.delegation {
            Some(delegation) => delegation.principals().cloned().collect(),
            None => vec![self.principal.clone()],
        }
    }
}

/// What is asked for. What is left out is what was handed down to whoever asks.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) scope: ScopeText,
    pub(crate) ttl: Option<Duration>,
    pub(crate) commands: Option<u64>,
    pub(crate) further: u8,
    pub(crate) name: Option<String>,
}

/// Why nothing is handed down, in words for whoever asked.
#[derive(Debug)]
pub(crate) enum Refused {
    /// What is asked for cannot be.
    Request(String),
    /// The resources cannot be handed down.
    Target(String),
    /// What may be done with them cannot.
    Scope(String),
    /// Policy does not let this chain delegate.
    Policy,
    /// There are too many already.
    TooMany,
    /// Who asks is over by now.
    Over,
    /// It cannot be recorded.
    Unrecorded,
}

impl Refused {
    /// Why, for the ledger and for whoever asked.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Refused::Request(why) | Refused::Target(why) | Refused::Scope(why) => why,
            Refused::Policy => "not permitted to delegate; ask the operators of this gateway",
            Refused::TooMany => "too many delegations live; end some, or wait until they end",
            Refused::Over => "what was handed down to you is over",
            Refused::Unrecorded => "the ledger cannot be written, and nothing is handed down unrecorded",
        }
    }
}

impl Delegations {
    /// Plans a delegation; nothing is recorded or entered yet.
    fn plan(
        &self,
        caller: &Caller,
        actor: Option<Arc<Principal>>,
        mut wanted: Wanted,
        now: SystemTime,
    ) -> Result<Delegation, Refused> {
        let before = caller.delegation.as_deref();
        let depth = before.map_or(0, |before| before.chain().len());
        let allowed = before.map_or(self.depth_max, |before| before.further);
        if allowed == 0 || depth >= usize::from(self.depth_max) {
            return Err(Refused::Request(
                "no further delegation was handed down: the chain is as deep as it may be".into(),
            ));
        }
        if wanted.further >= allowed {
            let most = allowed - 1;
            return Err(Refused::Request(format!(
                "depth {} is deeper than allowed: at most {most}",
                wanted.further
            )));
        }
        if let Some(actor) = &actor
            && caller.principals().iter().any(|known| known.id() == actor.id())
        {
            return Err(Refused::Request(
                "the actor is in the chain already, so it would go round in a circle".into(),
            ));
        }
        let odd = |name: &String| {
            name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control)
        };
        if wanted.name.as_ref().is_some_and(odd) {
            return Err(Refused::Request(format!(
                "a name has 1 to {NAME_BYTES_MAX} bytes and no control characters"
            )));
        }
        if wanted.commands == Some(0) {
            return Err(Refused::Request("commands is a number from 1 on".into()));
        }
        if let Some(before) = before {
            inherit(&mut wanted.scope, &before.text);
        }
        let id = id();
        let refused = |error: crate::policy::ScopeError| {
            if error.resources { Refused::Target(error.message) } else { Refused::Scope(error.message) }
        };
        let scope = Scope::read(&id, &wanted.scope).map_err(refused)?;
        if let Some(before) = before {
            scope.within(&before.scope).map_err(refused)?;
        }
        let ttl = wanted.ttl.unwrap_or(self.ttl_max).min(self.ttl_max).max(TTL_MIN);
        // A token's times are whole seconds, and so is the record.
        let created = SystemTime::UNIX_EPOCH
            + Duration::from_secs(
                now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            );
        let expires = (created + ttl).min(caller.expires());
        let actor_expires = actor.as_ref().map_or(expires, |actor| actor.expires());
        if !self.has_room(&caller.principal) {
            return Err(Refused::TooMany);
        }
        Ok(Delegation {
            id,
            parent: caller.delegation.clone(),
            principal: caller.principal.clone(),
            actor,
            name: wanted.name.map(Arc::from),
            text: wanted.scope,
            scope: Arc::new(scope),
            commands: wanted.commands.map(Allowance::new),
            further: wanted.further,
            created,
            expires: expires.min(actor_expires),
        })
    }

    /// The token of a delegation. Whose it is and through whom is said for readers alone.
    fn token(&self, delegation: &Delegation) -> Zeroizing<String> {
        let mut act = Value::Null;
        for link in delegation.chain() {
            let sub = link.actor.as_ref().map_or(&link.id, |actor| actor.id());
            let before = std::mem::replace(&mut act, json!({ "sub": **sub }));
            if !before.is_null() {
                act["act"] = before;
            }
        }
        let claims = json!({
            "sub": **delegation.principal.id(),
            "act": act,
            "scope": delegation.text.actions.join(" "),
            "resources": delegation.text.resources,
        });
        self.keys.sign(&delegation.id, delegation.created, delegation.expires, claims)
    }
}

/// What is left out is what was handed down.
fn inherit(wanted: &mut ScopeText, before: &ScopeText) {
    if wanted.resources.is_empty() {
        wanted.resources.clone_from(&before.resources);
    }
    if wanted.actions.is_empty() {
        wanted.actions.clone_from(&before.actions);
    }
    if wanted.roles.is_none() {
        wanted.roles.clone_from(&before.roles);
    }
    if wanted.tables.is_none() {
        wanted.tables.clone_from(&before.tables);
    }
    wanted.rows = wanted.rows.or(before.rows);
}

/// A name that nobody guesses and nothing else has.
fn id() -> Arc<str> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    BASE64_URL_SAFE_NO_PAD.encode(bytes).into()
}

impl Gateway {
    /// Who a credential speaks for: an issuer's token, or one of the gateway's own for what was handed down.
    ///
    /// # Errors
    /// [`Rejected`], for the ledger.
    pub(crate) async fn authenticate(
        &self,
        credential: &Credential,
        now: SystemTime,
    ) -> Result<Caller, Rejected> {
        if let Some(delegations) = &self.delegations
            && delegations.keys.claims(credential)
        {
            let id = delegations.keys.verify(credential, now)?;
            let found = delegations.find(&id, now);
            let over = || Rejected::of_ours(Cause::Expired, format!("delegation {id} is over"));
            let delegation = found.ok_or_else(over)?;
            return Ok(Caller { principal: delegation.principal.clone(), delegation: Some(delegation) });
        }
        let principal = self.identity.verify(credential, now).await?;
        Ok(Caller { principal, delegation: None })
    }

    /// Whether anybody along the chain was revoked, and who.
    pub(crate) fn revoked_of(&self, caller: &Caller) -> Option<Arc<str>> {
        let mut principals = caller.principals().into_iter();
        principals.find(|principal| self.is_revoked(principal)).map(|principal| principal.id().clone())
    }

    /// Hands down a part of a caller's rights. Every outcome is in the ledger before it is told.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) async fn delegate(
        &self,
        delegations: &Delegations,
        caller: &Caller,
        actor: Option<Arc<Principal>>,
        wanted: Wanted,
        source: SocketAddr,
    ) -> Result<(Arc<Delegation>, Zeroizing<String>), Refused> {
        let deadline = self.config.limits.durable_deadline;
        let chain: Option<Vec<_>> =
            caller.principals().iter().map(|principal| crate::gateway::subject(principal)).collect();
        let chain = chain.unwrap_or_default();
        let mut decision =
            self.policy.load().decide_admin(&chain, AdminAction::Delegate, &self.config.ledger.origin);
        let planned = match decision.is_permit() {
            true => delegations.plan(caller, actor, wanted, SystemTime::now()),
            false => Err(Refused::Policy),
        };
        if planned.is_err() {
            decision.verdict = crate::policy::Verdict::Refuse;
        }
        let entry = AdminEntry {
            principal: &caller.principal,
            action: AdminAction::Delegate.name(),
            decision: Some(&decision),
            reason: planned.as_ref().err().map(Refused::reason),
            request: "POST /token",
            source,
        };
        self.recorder.record_admin(&entry, deadline).await.map_err(|_| Refused::Unrecorded)?;
        let delegation = Arc::new(planned?);
        self.recorder
            .record_delegation(&delegation, source, deadline)
            .await
            .map_err(|_| Refused::Unrecorded)?;
        // A revocation or an end may have come meanwhile: it finds the delegation here, or we find it there.
        if !delegations.enter(&delegation) {
            return Err(Refused::Over);
        }
        if delegation.principals().any(|principal| self.is_revoked(principal)) {
            delegations.end(|link| link.id == delegation.id);
            return Err(Refused::Over);
        }
        let token = delegations.token(&delegation);
        Ok((delegation, token))
    }

    /// Ends a delegation and all that come after it, for whoever holds it: the ledger first, then their sessions end.
    ///
    /// # Errors
    /// [`Unavailable`] where it is not recorded in time. Ending is the safe direction: it is done all the same, and also where whoever
    /// asked does not wait for it.
    pub(crate) async fn end_delegation(
        self: &Arc<Gateway>,
        id: &str,
        by: &str,
    ) -> Result<Ended, Unavailable> {
        let (gateway, id, by) = (self.clone(), id.to_owned(), by.to_owned());
        to_its_end(async move { gateway.end_delegation_now(&id, &by).await }).await
    }

    async fn end_delegation_now(&self, id: &str, by: &str) -> Result<Ended, Unavailable> {
        let recorded = self
            .recorder
            .record_delegation_end(id, by, "ended", "", self.config.limits.durable_deadline)
            .await;
        if let Some(delegations) = &self.delegations {
            delegations.end(|link| *link.id == *id);
        }
        let ended = self.registry.revoke(&Target::Delegation(id.to_owned()));
        recorded.map(|()| ended)
    }
}

//! Delegations: what somebody handed down of their rights, to whom, and until when.
//!
//! The chain is the gateway's own record. Each delegation is in the ledger before its token exists, and those that live are
//! derived from the ledger at the start, so there is one store. What is effective is the intersection along the chain, of each
//! link's rights under today's policy and of each delegation's scope; it is decided where every command is ([`crate::policy`]).
//!
//! What a newcomer gets wrong: a delegation is never looked up through its parent, since ending one takes its whole subtree
//! out of the living under one lock. So whoever is found lives, and so do all before it.

mod command;
mod steps;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use indexmap::IndexMap;
use parking_lot::RwLock;

pub(crate) use self::command::{DelegateArgs, run};
pub(crate) use self::steps::{Caller, Refused, Wanted};
use crate::identity::{OwnKeys, Principal};
use crate::policy::{Scope, ScopeText, Subject};

/// The most delegations that live at once, and of one principal.
const LIVE_MAX: usize = 65_536;
const LIVE_PER_PRINCIPAL_MAX: usize = 1024;
/// The longest name that whoever asks gives a delegation.
const NAME_BYTES_MAX: usize = 128;
/// The shortest life that can be asked for.
const TTL_MIN: Duration = Duration::from_secs(1);

/// One link of a chain: rights handed down.
pub(crate) struct Delegation {
    pub(crate) id: Arc<str>,
    /// The one before it; none where it was made with a principal's own token.
    pub(crate) parent: Option<Arc<Delegation>>,
    /// Whose rights they are: the same along the whole chain.
    pub(crate) principal: Arc<Principal>,
    /// Who acts, where they showed who they are; they are then a link of their own before policy.
    pub(crate) actor: Option<Arc<Principal>>,
    /// What it was called by whoever asked for it; decides nothing.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) text: ScopeText,
    pub(crate) scope: Arc<Scope>,
    pub(crate) commands: Option<Arc<Allowance>>,
    /// How many more levels may come after it.
    pub(crate) further: u8,
    pub(crate) created: SystemTime,
    pub(crate) expires: SystemTime,
}

impl Delegation {
    /// The chain up to this one, the oldest first.
    pub(crate) fn chain(&self) -> Vec<&Delegation> {
        let mut chain: Vec<&Delegation> =
            std::iter::successors(Some(self), |link| link.parent.as_deref()).collect();
        chain.reverse();
        chain
    }

    /// Everybody along the chain who showed who they are, the principal first.
    pub(crate) fn principals(&self) -> impl Iterator<Item = &Arc<Principal>> {
        let actors = self.chain().into_iter().filter_map(|link| link.actor.as_ref());
        std::iter::once(&self.principal).chain(actors)
    }

    /// The same as policy sees them; none where an issuer's name cannot stand in an id.
    pub(crate) fn subjects(&self) -> Option<Vec<Subject>> {
        self.principals().map(|principal| crate::gateway::subject(principal)).collect()
    }
}

/// How many commands may still be executed.
pub(crate) struct Allowance {
    pub(crate) max: u64,
    used: AtomicU64,
}

impl Allowance {
    /// An allowance of so many commands.
    pub(crate) fn new(max: u64) -> Arc<Allowance> {
        Arc::new(Allowance { max, used: AtomicU64::new(0) })
    }

    /// Takes one command from it; false where none is left.
    pub(crate) fn take(&self) -> bool {
        let one_more = |used: u64| (used < self.max).then_some(used + 1);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    /// How many were taken.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }
}

/// A delegation as the ledger keeps it.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) id: Arc<str>,
    pub(crate) parent: Option<Arc<str>>,
    pub(crate) principal: Principal,
    pub(crate) actor: Option<Principal>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) text: ScopeText,
    pub(crate) commands: Option<u64>,
    pub(crate) further: u8,
    pub(crate) created: SystemTime,
    pub(crate) expires: SystemTime,
}

/// The delegations that live now, and the keys that sign their tokens.
pub(crate) struct Delegations {
    pub(crate) keys: OwnKeys,
    /// How many levels there may be.
    depth_max: u8,
    /// How long one may last.
    ttl_max: Duration,
    /// In the order in which they were made: a second sees many, so their times give none.
    live: RwLock<IndexMap<Arc<str>, Arc<Delegation>>>,
}

impl Delegations {
    /// None yet.
    pub(crate) fn new(keys: OwnKeys, depth_max: u8, ttl_max: Duration) -> Delegations {
        Delegations { keys, depth_max, ttl_max, live: RwLock::default() }
    }

    /// Takes up those that a former run left, in the order of the ledger. What cannot be taken up as it was is over: its parent
    /// is, its time is, or how many of its commands were used is not known any more.
    pub(crate) fn restore(&self, kept: Vec<Kept>, now: SystemTime) {
        let mut live = self.live.write();
        for kept in kept {
            let parent = match &kept.parent {
                None => None,
                Some(id) => match live.get(id) {
                    Some(parent) => Some(parent.clone()),
                    None => continue,
                },
            };
            let depth = parent.iter().flat_map(|parent: &Arc<Delegation>| parent.chain()).count() + 1;
            // What may be handed down today may be less than what could be then.
            let expires = kept.expires.min(kept.created + self.ttl_max);
            let is_over = expires <= now || kept.commands.is_some() || depth > usize::from(self.depth_max);
            if is_over || live.len() >= LIVE_MAX {
                continue;
            }
            let Ok(scope) = Scope::read(&kept.id, &kept.text) else { continue };
            let delegation = Delegation {
                id: kept.id.clone(),
                parent,
                principal: Arc::new(kept.principal),
                actor: kept.actor.map(Arc::new),
                name: kept.name,
                text: kept.text,
                scope: Arc::new(scope),
                commands: None,
                further: kept.further,
                created: kept.created,
                expires,
            };
            live.insert(kept.id, Arc::new(delegation));
        }
    }

    /// One that lives.
    pub(crate) fn find(&self, id: &str, now: SystemTime) -> Option<Arc<Delegation>> {
        self.live.read().get(id).filter(|delegation| delegation.expires > now).cloned()
    }

    /// All that live, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Delegation>> {
        self.live.read().values().cloned().collect()
    }

    /// How many live.
    pub(crate) fn len(&self) -> usize {
        self.live.read().len()
    }

    /// Enters one among the living; false where the one before it is over by now.
    fn enter(&self, delegation: &Arc<Delegation>) -> bool {
        let mut live = self.live.write();
        let parent = delegation.parent.as_ref();
        if parent.is_some_and(|parent| !live.contains_key(&parent.id)) {
            return false;
        }
        live.insert(delegation.id.clone(), delegation.clone());
        true
    }

    /// Whether there is room for one more of this principal's.
    fn has_room(&self, principal: &Principal) -> bool {
        let live = self.live.read();
        let same = live.values().filter(|delegation| delegation.principal.id() == principal.id()).count();
        live.len() < LIVE_MAX && same < LIVE_PER_PRINCIPAL_MAX
    }

    /// Takes those that `which` picks out of the living, and all that come after them.
    pub(crate) fn end(&self, which: impl Fn(&Delegation) -> bool) -> u64 {
        let mut live = self.live.write();
        let before = live.len();
        live.retain(|_, delegation| !delegation.chain().iter().any(|link| which(link)));
        (before - live.len()) as u64
    }

    /// Forgets those whose time is over; they were found no more before.
    pub(crate) fn sweep(&self, now: SystemTime) {
        if self.live.read().values().any(|delegation| delegation.expires <= now) {
            self.end(|delegation| delegation.expires <= now);
        }
    }
}

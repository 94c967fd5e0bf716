//! The sessions that live now, and the ways to end them: by session, by principal, by time.
//!
//! Ending is a signal that each session's own task obeys first; nothing here touches a connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use gatebook_wire::protocol::EndReason;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::signal::Signal;
use crate::identity::{Logout, Principal};
use crate::policy::Standing;

/// A session as the registry knows it.
pub(crate) struct Live {
    /// Its number in the ledger.
    pub(crate) number: u64,
    /// Who, where, and as which role.
    pub(crate) standing: Arc<Standing>,
    /// Who opened it, by which token.
    pub(crate) principal: Arc<Principal>,
    /// How it is told to end.
    pub(crate) signal: Arc<dyn Signals>,
    /// When it ends at the latest.
    pub(crate) expires: SystemTime,
    /// How long nothing may pass.
    pub(crate) idle_timeout: Duration,
    /// When it began.
    pub(crate) started: SystemTime,
    /// What its client sends to cancel.
    pub(crate) cancel_key: Vec<u8>,
    /// Cancels what it runs upstream.
    pub(crate) cancel: Box<dyn Fn(std::net::SocketAddr) -> tokio::task::JoinHandle<()> + Send + Sync>,
    /// When something last passed, as seen by the loop that looks for idle ones.
    pub(crate) seen: Mutex<(u64, Instant)>,
}

/// What the registry needs of a session's own signals.
pub(crate) trait Signals: Send + Sync {
    /// The signals themselves.
    fn signal(&self) -> &Signal;
}

/// Whom to revoke.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// A principal by its id, `issuer:subject`; it stays out.
    Principal(String),
    /// A group: whoever's token names it stays out.
    Group(String),
    /// A token by its id, `jti:…` or `blake3:…`; it stays out.
    Token(String),
    /// What the issuer says is over: tokens that came of it stay out.
    Logout(Logout),
    /// A resource by its name: its sessions end, and may come again.
    Resource(String),
    /// One session by its number; its principal may come again.
    Session(u64),
    /// What was handed down, by the delegation's id, and all that came of it.
    Delegation(String),
}

impl Target {
    /// What kind of thing it is, as the ledger spells it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Target::Principal(_) => "principal",
            Target::Group(_) => "group",
            Target::Token(_) => "token",
            Target::Logout(_) => "logout",
            Target::Resource(_) => "resource",
            Target::Session(_) => "session",
            Target::Delegation(_) => "delegation",
        }
    }
}

/// As people are told it: `corp:lee`, `group contractors`.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Principal(id) => write!(f, "{id}"),
            Target::Group(name) => write!(f, "group {name}"),
            Target::Token(id) => write!(f, "token {id}"),
            Target::Logout(Logout { login: Some(login), .. }) => write!(f, "login {login}"),
            Target::Logout(Logout { principal, .. }) => {
                write!(f, "the logins of {}", principal.as_deref().unwrap_or_default())
            }
            Target::Resource(name) => write!(f, "resource {name}"),
            Target::Session(number) => write!(f, "session {number}"),
            Target::Delegation(id) => write!(f, "delegation {id}"),
        }
    }
}

/// What an order to end came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// How many sessions were told.
    pub(crate) sessions: u64,
}

/// The sessions that live now.
#[derive(Default)]
pub(crate) struct Registry {
    sessions: Mutex<HashMap<u64, Arc<Live>>>,
    count: AtomicU64,
}

impl Registry {
    /// Enters a session; it is taken out when the guard drops.
    pub(crate) fn enter(self: &Arc<Registry>, live: Live) -> Entered {
        let number = live.number;
        self.sessions.lock().insert(number, Arc::new(live));
        self.count.fetch_add(1, Ordering::Relaxed);
        Entered { registry: self.clone(), number }
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// All sessions, in the order of their numbers.
    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        let mut all: Vec<_> = self.sessions.lock().values().cloned().collect();
        all.sort_by_key(|live| live.number);
        all
    }

    /// Ends every session that `which` picks.
    pub(crate) fn end(&self, reason: EndReason, which: impl Fn(&Live) -> bool) -> Ended {
        let mut ended = Ended::default();
        for live in self.sessions.lock().values().filter(|live| which(live)) {
            ended.sessions += u64::from(live.signal.signal().end(reason));
        }
        ended
    }

    /// Ends the sessions of a target.
    pub(crate) fn revoke(&self, target: &Target) -> Ended {
        self.end(EndReason::Revoked, |live| match target {
            Target::Principal(id) => live.standing.chain.iter().any(|link| **link.id() == **id),
            Target::Group(name) => {
                live.standing.chain.iter().any(|link| link.groups().iter().any(|group| **group == **name))
            }
            Target::Token(id) => **live.principal.token_id() == **id,
            Target::Logout(logout) => logout.covers(&live.principal),
            Target::Resource(name) => *live.standing.resource == **name,
            Target::Session(number) => live.number == *number,
            Target::Delegation(id) => live.standing.scopes.iter().any(|scope| **scope.delegation() == **id),
        })
    }

    /// The session that a cancel key names. Every key is compared, in constant time.
    pub(crate) fn by_cancel_key(&self, key: &[u8]) -> Option<Arc<Live>> {
        let sessions = self.sessions.lock();
        let mut found = None;
        for live in sessions.values() {
            if bool::from(live.cancel_key.ct_eq(key)) {
                found = Some(live.clone());
            }
        }
        found
    }

    /// Ends what has expired or idled out.
    pub(crate) fn expire(&self, now: SystemTime, instant: Instant) {
        self.end(EndReason::Expired, |live| live.expires <= now);
        self.end(EndReason::Idle, |live| {
            let activity = live.signal.signal().activity();
            let mut seen = live.seen.lock();
            if seen.0 != activity || live.signal.signal().is_busy() {
                *seen = (activity, instant);
            }
            instant.duration_since(seen.1) >= live.idle_timeout
        });
    }
}

/// Takes its session out of the registry when it drops.
pub(crate) struct Entered {
    registry: Arc<Registry>,
    number: u64,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.registry.sessions.lock().remove(&self.number).is_some() {
            self.registry.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

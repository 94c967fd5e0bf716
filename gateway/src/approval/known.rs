//! The requests that are known now: those that wait, those that were granted ahead of time, and for a while those that are over.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use super::request::{Draft, Kept};
use super::{Id, Lapse, Request, Scope, Shown, Standpoint};

/// How many requests may be under way at once.
const REQUESTS_MAX: usize = 10_000;
/// How many of one caller.
const REQUESTS_OF_ONE_MAX: usize = 32;
/// How many that are over are remembered.
const OVER_MAX: usize = 1_000;

/// Too many requests wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// The requests that are known now.
pub(crate) struct Approvals {
    known: Mutex<Known>,
    /// Counts what happened to any of them.
    changes: watch::Sender<u64>,
    /// Who is told what happened.
    told: Mutex<Vec<mpsc::Sender<Arc<Happened>>>>,
}

/// Something that happened to a request, or without one.
#[derive(Debug)]
pub(crate) struct Happened {
    /// The event as the ledger spells it.
    pub(crate) event: &'static str,
    /// The request as it is shown afterwards.
    pub(crate) approval: Shown,
}

#[derive(Default)]
struct Known {
    requests: HashMap<Id, Arc<Request>>,
    over: VecDeque<Id>,
}

impl Default for Approvals {
    fn default() -> Approvals {
        Approvals { known: Mutex::default(), changes: watch::Sender::new(0), told: Mutex::default() }
    }
}

impl Approvals {
    /// An id that no request has.
    pub(crate) fn id(&self) -> Id {
        let known = self.known.lock();
        loop {
            let id = Id::new();
            if !known.requests.contains_key(&id) {
                return id;
            }
        }
    }

    /// Enters a request, which `record` records before anybody can see it.
    pub(crate) fn enter(&self, draft: Draft, record: impl FnOnce(&Request)) -> Result<Arc<Request>, Full> {
        let mut known = self.known.lock();
        let under_way = known.requests.len() - known.over.len();
        let of_one =
            || known.requests.values().filter(|request| request.chain.first() == draft.chain.first());
        let waiting = |request: &&Arc<Request>| request.look(draft.asked) == Standpoint::Pending;
        if under_way >= REQUESTS_MAX || of_one().filter(waiting).count() >= REQUESTS_OF_ONE_MAX {
            return Err(Full);
        }
        let request = Arc::new(Request::new(draft));
        record(&request);
        known.requests.insert(request.id, request.clone());
        drop(known);
        self.changed();
        Ok(request)
    }

    /// Takes up what a former run left, the newest where there are too many.
    pub(crate) fn restore(&self, kept: Vec<Kept>) {
        let surplus = kept.len().saturating_sub(REQUESTS_MAX);
        let requests = kept.into_iter().skip(surplus).map(Request::restored);
        self.known.lock().requests.extend(requests.map(|request| (request.id, Arc::new(request))));
    }

    /// The request of this id.
    pub(crate) fn find(&self, id: Id) -> Option<Arc<Request>> {
        self.known.lock().requests.get(&id).cloned()
    }

    /// All of them, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Request>> {
        let mut all: Vec<_> = self.known.lock().requests.values().cloned().collect();
        all.sort_by_key(|request| (request.asked, request.id));
        all
    }

    /// Nothing more becomes of this one: it is remembered for a while.
    pub(crate) fn over(&self, request: &Request) {
        let mut known = self.known.lock();
        let first = !request.over.swap(true, Ordering::Relaxed);
        if first {
            known.over.push_back(request.id);
            if known.over.len() > OVER_MAX
                && let Some(oldest) = known.over.pop_front()
            {
                known.requests.remove(&oldest);
            }
        }
        drop(known);
        if first {
            let shown = request.shown(SystemTime::now());
            request.shorten();
            self.happened(if shown.state == "used" { "approval.used" } else { "approval.lapsed" }, shown);
        }
    }

    /// Ends what has expired: wakes the sessions that wait, and gives back those for which none does.
    pub(crate) fn expire(&self, now: SystemTime) -> Vec<Arc<Request>> {
        let known = self.known.lock();
        let expired: Vec<_> = known
            .requests
            .values()
            .filter(|request| !request.over.load(Ordering::Relaxed))
            .filter(|request| request.look(now) == Standpoint::Lapsed(Lapse::Expired))
            .cloned()
            .collect();
        drop(known);
        let (held, ahead): (Vec<_>, Vec<_>) =
            expired.into_iter().partition(|request| matches!(request.scope, Scope::Session(_)));
        held.iter().for_each(|request| request.wake());
        ahead.iter().for_each(|request| self.over(request));
        ahead
    }

    /// Has every session that waits look again at what it waits for.
    pub(crate) fn wake(&self) {
        self.known.lock().requests.values().for_each(|request| request.wake());
    }

    /// Something happened: whoever wants to be told is told, as far as they keep up.
    pub(crate) fn happened(&self, event: &'static str, approval: Shown) {
        let happened = Arc::new(Happened { event, approval });
        self.told.lock().retain(|told| match told.try_send(happened.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                tracing::error!(event, "a webhook is so far behind that it is not told of this");
                true
            }
            Err(TrySendError::Closed(_)) => false,
        });
        self.changed();
    }

    /// Tells of everything that happens from now on; of what does not fit into `most` nothing is told.
    pub(crate) fn tell(&self, most: usize) -> mpsc::Receiver<Arc<Happened>> {
        let (sender, receiver) = mpsc::channel(most);
        self.told.lock().push(sender);
        receiver
    }

    /// Something changed about one of them.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Tells of everything that happens to them.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

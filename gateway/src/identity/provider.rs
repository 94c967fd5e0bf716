//! One issuer's keys over time: fetched when first needed, refreshed in the background, kept while the issuer
//! is down, and asked for anew when a token names a key that is not known.
//!
//! What a newcomer gets wrong: anybody can send a token with a key id of his own making. So fetches have a gate:
//! one at a time, and one in [`FETCH_SPACING`], whoever asks; the others share its outcome. A fetch is a task
//! of its own, as a client that hangs up must not be able to stop it for everybody.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::http::{Http, REQUEST_WAIT_MAX};
use super::keys::Keys;

/// The least time between two fetches of one issuer's keys.
const FETCH_SPACING: Duration = Duration::from_secs(10);
/// The time between two fetches in the background.
const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// The time between two fetches in the background after one failed.
const RETRY_EVERY: Duration = Duration::from_secs(15);
/// A fetch is two requests: the discovery document, and the keys.
const FETCH_WAIT_MAX: Duration = REQUEST_WAIT_MAX.saturating_mul(2);

/// An issuer, as a source of keys.
#[derive(Debug)]
pub(super) struct Provider {
    name: Arc<str>,
    url: String,
    http: Http,
    keys_max_age: Duration,
    fetched: ArcSwapOption<Fetched>,
    failure: Mutex<Option<String>>,
    gate: Arc<tokio::sync::Mutex<Option<Attempt>>>,
}

#[derive(Debug)]
struct Fetched {
    keys: Arc<Keys>,
    at: SystemTime,
}

#[derive(Debug)]
struct Attempt {
    at: SystemTime,
    outcome: Result<(), String>,
}

impl Provider {
    pub(super) fn new(name: Arc<str>, url: String, http: Http, keys_max_age: Duration) -> Self {
        Self {
            name,
            url,
            http,
            keys_max_age,
            fetched: ArcSwapOption::empty(),
            failure: Mutex::new(None),
            gate: Arc::default(),
        }
    }

    /// The keys that may be used now: none before the first fetch, and none that are too old.
    pub(super) fn keys(&self, now: SystemTime) -> Option<Arc<Keys>> {
        let fetched = self.fetched.load();
        let fetched = fetched.as_ref()?;
        (distance(now, fetched.at) <= self.keys_max_age).then(|| Arc::clone(&fetched.keys))
    }

    /// When the keys were fetched, how many can be used, and why the last fetch failed where it did.
    pub(super) fn state(&self) -> (Option<SystemTime>, usize, Option<String>) {
        let fetched = self.fetched.load();
        let fetched = fetched.as_ref();
        (
            fetched.map(|fetched| fetched.at),
            fetched.map_or(0, |fetched| fetched.keys.len()),
            self.failure.lock().clone(),
        )
    }

    /// Fetches the keys, or shares the outcome of a fetch that is under way or was made a moment ago.
    /// Waits for twice the time of a fetch at most. Cancel-safe: the fetch goes on without its caller.
    ///
    /// # Errors
    /// A lower-case fragment that says why the keys cannot be had.
    pub(super) async fn fetch(self: &Arc<Self>, now: SystemTime) -> Result<(), String> {
        let mut gate = timeout(FETCH_WAIT_MAX, Arc::clone(&self.gate).lock_owned())
            .await
            .map_err(|_| "another fetch takes too long".to_owned())?;
        if let Some(last) = gate.as_ref()
            && distance(now, last.at) < FETCH_SPACING
        {
            return last.outcome.clone();
        }
        let provider = Arc::clone(self);
        let fetch = tokio::spawn(async move {
            // It stands before the fetch, so that no way out of it leaves the gate open.
            *gate = Some(Attempt { at: now, outcome: Err("a fetch was broken off".to_owned()) });
            let outcome = match timeout(FETCH_WAIT_MAX, provider.ask()).await {
                Ok(Ok(keys)) => {
                    provider.keep(keys, now);
                    Ok(())
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Err(format!("{}: no answer in time", provider.url)),
            };
            provider.note(&outcome);
            *gate = Some(Attempt { at: now, outcome: outcome.clone() });
            outcome
        });
        fetch.await.unwrap_or_else(|_| Err("a fetch was broken off".to_owned()))
    }

    /// Keeps the keys fresh for as long as it is polled, by a clock and a way to wait.
    pub(super) async fn maintain<N, P, F>(self: Arc<Self>, now: N, pause: P)
    where
        N: Fn() -> SystemTime,
        P: Fn(Duration) -> F,
        F: Future<Output = ()>,
    {
        loop {
            let fetched = self.fetch(now()).await;
            pause(if fetched.is_ok() { REFRESH_EVERY } else { RETRY_EVERY }).await;
        }
    }

    async fn ask(&self) -> Result<Keys, String> {
        let url = self.http.discover(&self.url).await?.endpoint("jwks_uri")?;
        Keys::parse(&self.http.document(&url).await?).map_err(|error| format!("{url}: {error}"))
    }

    /// Equal keys stay the same object, as which the cache of verified tokens knows them.
    fn keep(&self, keys: Keys, at: SystemTime) {
        let before = self.fetched.load();
        let keys = match before.as_ref() {
            Some(before) if before.keys.same_as(&keys) => Arc::clone(&before.keys),
            _ => {
                tracing::info!(issuer = &*self.name, keys = keys.len(), unused = ?keys.unused(), "new keys");
                Arc::new(keys)
            }
        };
        self.fetched.store(Some(Arc::new(Fetched { keys, at })));
    }

    fn note(&self, outcome: &Result<(), String>) {
        let failure = outcome.as_ref().err().cloned();
        let mut known = self.failure.lock();
        match (&*known, &failure) {
            (None, Some(failure)) => {
                let hours = self.keys_max_age.as_secs_f64() / 3600.0;
                tracing::warn!(
                    issuer = &*self.name,
                    "cannot fetch keys: {failure}. Known keys serve for {hours:.1} h after their last fetch; \
                     the gateway tries again by itself."
                );
            }
            (Some(_), None) => tracing::info!(issuer = &*self.name, "keys can be fetched again"),
            _ => {}
        }
        *known = failure;
    }
}

/// How far two moments lie apart: a clock that was set back makes keys old, never young for ever.
fn distance(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}

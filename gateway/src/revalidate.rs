//! Whether the tokens behind live sessions, and behind what was handed down, still hold: their issuer is asked at an interval.
//!
//! One that the issuer calls inactive is revoked like any other token: in the ledger first, then its sessions end and it stays out. No
//! answer is borne for as long as the configuration says, counted from the last good one for this very token.
//!
//! What a newcomer gets wrong: an issuer that is down is asked a few times, and not once for each of ten thousand tokens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use zeroize::Zeroizing;

use crate::config::IntrospectionConfig;
use crate::gateway::Gateway;
use crate::identity::http::Http;
use crate::identity::{Credential, Endpoint, Introspector};
use crate::session::Target;

/// How often it is looked whether a token is due, and so how soon a new one is asked about.
const TURN: Duration = Duration::from_secs(1);
/// How many tokens are asked about at once.
const AT_ONCE: usize = 8;

/// Who did it, as the ledger has it.
const BY: &str = "introspection";

/// Starts a task for each issuer that is asked.
///
/// # Errors
/// A lower-case fragment where an issuer cannot be asked at all.
pub(crate) fn start(gateway: &Arc<Gateway>) -> Result<(), String> {
    for config in &gateway.config.introspections {
        let Some(issuer) = gateway.config.issuers.iter().find(|issuer| issuer.name == config.issuer) else {
            continue;
        };
        let http = Http::new(issuer.ca.as_deref(), issuer.danger_http)?;
        let asker = Asker {
            gateway: gateway.clone(),
            introspector: Introspector::new(http, &issuer.url, &config.client_id),
            config: config.clone(),
            known: HashMap::new(),
            told: None,
        };
        tokio::spawn(asker.run());
    }
    Ok(())
}

/// One issuer, and how it stands with its tokens.
struct Asker {
    gateway: Arc<Gateway>,
    introspector: Introspector,
    config: IntrospectionConfig,
    known: HashMap<Arc<str>, Known>,
    /// Why there was no answer, as it was said last.
    told: Option<String>,
}

/// How it stands with one token.
struct Known {
    /// When it was asked about last.
    asked: Option<Instant>,
    /// When it surely held: at the last good answer, or when it was first seen.
    held: Instant,
    /// Whether the last question had no answer.
    unanswered: bool,
    /// Whether it was revoked; its sessions are about to end.
    over: bool,
}

impl Asker {
    async fn run(mut self) {
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let tokens = self.tokens();
        let now = Instant::now();
        self.known.retain(|id, _| tokens.contains_key(id));
        let mut due = Vec::new();
        for (id, token) in tokens {
            let new = || Known { asked: None, held: now, unanswered: false, over: false };
            let known = self.known.entry(id.clone()).or_insert_with(new);
            let again = known.asked.is_none_or(|asked| now.duration_since(asked) >= self.config.interval);
            if again && !known.over {
                known.asked = Some(now);
                due.push((id, token));
            }
        }
        if !due.is_empty() {
            self.ask(&due).await;
        }
        self.give_up().await;
    }

    /// The tokens by which sessions and delegations live, by their ids.
    fn tokens(&self) -> HashMap<Arc<str>, Arc<Credential>> {
        let sessions = self.gateway.registry.all();
        let delegations = self.gateway.delegations.as_ref().map(|delegations| delegations.all());
        let handed = delegations.iter().flatten().flat_map(|delegation| delegation.principals());
        sessions
            .iter()
            .map(|live| &live.principal)
            .chain(handed)
            .filter(|principal| **principal.issuer() == *self.config.issuer)
            .filter_map(|principal| Some((principal.token_id().clone(), principal.shown()?.clone())))
            .collect()
    }

    async fn ask(&mut self, due: &[(Arc<str>, Arc<Credential>)]) {
        let mut failure = None;
        match self.prepare().await {
            Err(error) => {
                failure = Some(error);
                self.without_answer(due);
            }
            Ok((endpoint, secret)) => {
                for (at, some) in due.chunks(AT_ONCE).enumerate() {
                    let questions =
                        some.iter().map(|(_, token)| self.introspector.is_active(&endpoint, &secret, token));
                    let answers = join_all(questions).await;
                    let silent = answers.iter().all(Result::is_err);
                    for ((id, _), answer) in some.iter().zip(answers) {
                        match answer {
                            Ok(true) => self.holds(id),
                            Ok(false) => self.end(id, "its issuer says that the token is not active").await,
                            Err(error) => {
                                failure = Some(error);
                                self.without_answer(&[(id.clone(), ())]);
                            }
                        }
                    }
                    if silent {
                        self.without_answer(&due[at * AT_ONCE..]);
                        break;
                    }
                }
            }
        }
        self.tell(failure);
    }

    async fn prepare(&self) -> Result<(Endpoint, Zeroizing<String>), String> {
        let secret =
            self.config.client_secret.read().await.map_err(|error| format!("client_secret: {error}"))?;
        Ok((self.introspector.find().await?, secret))
    }

    fn holds(&mut self, id: &Arc<str>) {
        if let Some(known) = self.known.get_mut(id) {
            (known.held, known.unanswered) = (Instant::now(), false);
        }
    }

    fn without_answer<T>(&mut self, tokens: &[(Arc<str>, T)]) {
        for (id, _) in tokens {
            if let Some(known) = self.known.get_mut(id) {
                known.unanswered = true;
            }
        }
    }

    /// Ends what goes on without an answer for too long.
    async fn give_up(&mut self) {
        let Some(most) = self.config.unanswered_max else { return };
        let silent = |known: &Known| known.unanswered && !known.over && known.held.elapsed() >= most;
        let ids: Vec<Arc<str>> =
            self.known.iter().filter(|(_, known)| silent(known)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.end(&id, "its issuer did not say in time whether the token is still active").await;
        }
    }

    async fn end(&mut self, id: &Arc<str>, why: &str) {
        if let Some(known) = self.known.get_mut(id) {
            known.over = true;
        }
        let target = Target::Token(id.to_string());
        match self.gateway.revoke(&target, why, BY).await {
            Ok(ended) => {
                tracing::warn!(
                    issuer = self.config.issuer,
                    token = &**id,
                    why,
                    sessions = ended.sessions,
                    "revoked"
                );
            }
            Err(error) => {
                tracing::error!(issuer = self.config.issuer, token = &**id, why, %error, "ended, and not recorded");
            }
        }
    }

    fn tell(&mut self, failure: Option<String>) {
        match (&self.told, &failure) {
            (told, Some(failure)) if told.as_ref() != Some(failure) => {
                let issuer = &*self.config.issuer;
                match self.config.unanswered_max {
                    Some(most) => tracing::error!(
                        issuer,
                        failure,
                        ?most,
                        "introspection: no answer; sessions end after the time"
                    ),
                    None => tracing::error!(
                        issuer,
                        failure,
                        "introspection: no answer; sessions go on until their tokens expire"
                    ),
                }
            }
            (Some(_), None) => tracing::info!(issuer = self.config.issuer, "introspection: answered again"),
            _ => {}
        }
        self.told = failure;
    }
}

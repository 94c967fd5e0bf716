//! Sessions as the ledger has them, those that are over among them: who, where, as what, and how it ended; no statements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Visit;
use super::answer::{Answer, Problem, json as answer};
use super::openapi::{list as list_of, number, object, text};
use crate::identity::Principal;
use crate::record::Sought;

/// How many sessions are listed where nothing else is asked for, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// How long one search may read.
const SEARCH_DEADLINE: Duration = Duration::from_secs(30);

/// The sessions that fit.
pub(super) async fn list(visit: Visit, _: Arc<Principal>) -> Answer {
    let mut sought = Sought { limit: LIMIT, ..Sought::default() };
    for (name, value) in visit.query()? {
        let whole = || {
            let wrong = || Problem::new(StatusCode::BAD_REQUEST, format!("{name} is a whole number"));
            value.parse::<u64>().map_err(|_| wrong())
        };
        match &*name {
            "principal" => sought.principal = Some(value),
            "resource" => sought.resource = Some(value),
            "session" => sought.session = Some(whole()?),
            "since_s" => sought.since_s = Some(whole()?),
            "until_s" => sought.until_s = Some(whole()?),
            "limit" => {
                let fits = usize::try_from(whole()?).ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                let wrong = || Problem::new(StatusCode::BAD_REQUEST, format!("limit is 1 to {LIMIT_MAX}"));
                sought.limit = fits.ok_or_else(wrong)?;
            }
            _ => {
                return Err(Problem::new(StatusCode::BAD_REQUEST, format!("{name:?} is nothing to ask for")));
            }
        }
    }
    let busy = || Problem::new(StatusCode::TOO_MANY_REQUESTS, "other searches are under way; try again");
    let place = visit.server.searches.clone().try_acquire_owned().map_err(|_| busy())?;
    let gateway = visit.gateway().clone();
    let search = tokio::task::spawn_blocking(move || {
        let found =
            gateway.recorder.find_sessions(&gateway.config.ledger, &sought, Instant::now() + SEARCH_DEADLINE);
        drop(place);
        found
    });
    match search.await {
        Ok(Ok(past)) => answer(StatusCode::OK, &past),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, error.to_string()))
        }
        failed => {
            tracing::error!(?failed, "the ledger cannot be searched");
            Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the ledger cannot be read; the log says why",
            ))
        }
    }
}

pub(super) fn list_asks() -> Value {
    let (number, text) = (number(), text());
    object(
        [],
        [
            ("principal", text.clone()),
            ("resource", text),
            ("session", number.clone()),
            ("since_s", number.clone()),
            ("until_s", number.clone()),
            ("limit", number),
        ],
    )
}

pub(super) fn list_schema() -> Value {
    let flag = || json!({ "type": "boolean" });
    let closed = object(
        [("closed_s", number()), ("reason", text())],
        [("commands", number()), ("refused", number()), ("shown_bytes", number())],
    );
    let session = object(
        [
            ("session", number()),
            ("opened_s", number()),
            ("closed", json!({ "anyOf": [closed, { "type": "null" }] })),
        ],
        [
            ("principal", text()),
            ("name", text()),
            ("actors", list_of(text())),
            ("resource", text()),
            ("role", text()),
            ("source", text()),
            ("application", text()),
            ("token", text()),
        ],
    );
    object([("sessions", list_of(session)), ("more", flag()), ("damaged", flag())], [])
}

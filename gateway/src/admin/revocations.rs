//! Putting people out: who is out, and making it so.

use std::sync::Arc;
use std::time::Instant;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Visit;
use super::answer::{Answer, Problem, json as answer};
use super::openapi::{list as list_of, number, object, text};
use crate::identity::Principal;
use crate::session::Target;

/// Who stays out.
pub(super) async fn list(visit: Visit, _: Arc<Principal>) -> Answer {
    let stay_out = visit.gateway().stay_out();
    let [principals, groups, tokens] = stay_out.all().map(|names| {
        let mut names: Vec<&String> = names.iter().collect();
        names.sort();
        names
    });
    let [logins, nameless, logged_out] = stay_out.logouts();
    answer(
        StatusCode::OK,
        &json!({
            "principals": principals,
            "groups": groups,
            "tokens": tokens,
            "logouts": { "logins": logins, "nameless": nameless, "principals": logged_out },
        }),
    )
}

pub(super) fn list_schema() -> Value {
    let names = || list_of(text());
    let until = || json!({ "type": "object", "additionalProperties": number() });
    let logouts = object([("logins", until()), ("nameless", until()), ("principals", until())], []);
    object([("principals", names()), ("groups", names()), ("tokens", names()), ("logouts", logouts)], [])
}

/// Whom to revoke: exactly one of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    principal: Option<String>,
    group: Option<String>,
    token: Option<String>,
    resource: Option<String>,
    session: Option<u64>,
    delegation: Option<String>,
    #[serde(default)]
    reason: String,
}

/// The longest reason, and the longest id of a principal.
const TEXT_BYTES_MAX: usize = 4096;

/// Ends sessions now.
pub(super) async fn revoke(visit: Visit, by: Arc<Principal>) -> Answer {
    let asked: Revoke = visit.json()?;
    let one = "name exactly one of principal, group, token, resource, session and delegation";
    let targets = [
        asked.principal.map(Target::Principal),
        asked.group.map(Target::Group),
        asked.token.map(Target::Token),
        asked.resource.map(Target::Resource),
        asked.session.map(Target::Session),
        asked.delegation.map(Target::Delegation),
    ];
    let mut targets = targets.into_iter().flatten();
    let (Some(target), None) = (targets.next(), targets.next()) else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, one));
    };
    let long = |text: &str| text.len() > TEXT_BYTES_MAX;
    if long(&asked.reason) || long(&target.to_string()) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "that is too long"));
    }
    let started = Instant::now();
    let ended = visit.gateway().revoke(&target, &asked.reason, by.id()).await;
    let ended = ended.map_err(|_| Problem::unrecorded())?;
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::warn!(source = %visit.source, ?target, reason = asked.reason, by = &**by.id(), sessions = ended.sessions, "revoked");
    answer(StatusCode::OK, &json!({ "sessions": ended.sessions, "ms": ms }))
}

pub(super) fn revoke_takes() -> Value {
    object(
        [],
        [
            ("principal", text()),
            ("group", text()),
            ("token", text()),
            ("resource", text()),
            ("session", number()),
            ("delegation", text()),
            ("reason", text()),
        ],
    )
}

pub(super) fn revoke_gives() -> Value {
    object([("sessions", number()), ("ms", number())], [])
}

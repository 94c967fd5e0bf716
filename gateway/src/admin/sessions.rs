//! Sessions: who is behind the gateway now, and putting them out.

use std::sync::Arc;
use std::time::Instant;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Visit;
use super::answer::{Answer, Problem, json as answer};
use super::openapi::{list as list_of, number, object, text};
use crate::control;
use crate::identity::Principal;
use crate::session::Target;

/// The sessions that live now.
pub(super) async fn list(visit: Visit, _: Arc<Principal>) -> Answer {
    let gateway = visit.gateway();
    let sessions: Vec<_> = gateway.registry.all().iter().map(|live| control::line_of(live)).collect();
    answer(StatusCode::OK, &json!({ "sessions": sessions, "alarm": gateway.recorder.alarm() }))
}

/// One session that lives now.
pub(super) async fn one(visit: Visit, _: Arc<Principal>) -> Answer {
    let number = visit.place.first().and_then(|number| number.parse::<u64>().ok());
    let all = visit.gateway().registry.all();
    match all.iter().find(|live| Some(live.number) == number) {
        Some(live) => answer(StatusCode::OK, &control::line_of(live)),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "no such session lives")),
    }
}

pub(super) fn list_schema() -> Value {
    let alarm = json!({ "type": ["string", "null"] });
    object([("sessions", list_of(one_schema())), ("alarm", alarm)], [])
}

pub(super) fn one_schema() -> Value {
    object(
        [
            ("session", number()),
            ("principal", text()),
            ("resource", text()),
            ("role", text()),
            ("started_s", number()),
            ("expires_s", number()),
        ],
        [],
    )
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
    #[serde(default)]
    reason: String,
}

/// The longest reason, and the longest id of a principal.
const TEXT_BYTES_MAX: usize = 4096;

/// Ends sessions now.
pub(super) async fn revoke(visit: Visit, by: Arc<Principal>) -> Answer {
    let asked: Revoke = visit.json()?;
    let one = "name exactly one of principal, group, token, resource and session";
    let targets = [
        asked.principal.map(Target::Principal),
        asked.group.map(Target::Group),
        asked.token.map(Target::Token),
        asked.resource.map(Target::Resource),
        asked.session.map(Target::Session),
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
            ("reason", text()),
        ],
    )
}

pub(super) fn revoke_gives() -> Value {
    object([("sessions", number()), ("ms", number())], [])
}

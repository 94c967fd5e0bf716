//! Sessions: who is behind the gateway now.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Visit;
use super::answer::{Answer, Problem, json as answer};
use super::openapi::{list as list_of, number, object, text};
use crate::control;
use crate::identity::Principal;

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

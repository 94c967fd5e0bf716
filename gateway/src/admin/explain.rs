//! What policy says of somebody's statement, by the policies and the catalogs that the gateway has: `gatebook policy explain`, asked
//! of the gateway itself.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Visit;
use super::answer::{Answer, Problem, json as answer};
use super::openapi::{list as list_of, object, text};
use crate::explain::Question;
use crate::identity::Principal;

/// Answers one question.
pub(super) async fn explain(visit: Visit, _: Arc<Principal>) -> Answer {
    let question: Question = visit.json()?;
    match visit.gateway().explain(&question) {
        Ok(explained) => answer(StatusCode::OK, &explained),
        Err(error) => Err(Problem::new(StatusCode::BAD_REQUEST, error.to_string())),
    }
}

pub(super) fn takes() -> Value {
    object(
        [("principal", text()), ("resource", text()), ("role", text()), ("statement", text())],
        [("service", json!({ "type": "boolean" })), ("groups", list_of(text())), ("database", text())],
    )
}

pub(super) fn gives() -> Value {
    let decision = || json!({ "enum": ["permit", "refuse"] });
    let names = || list_of(text());
    let ruling = || {
        object(
            [
                ("what", text()),
                ("decision", decision()),
                ("policies", names()),
                ("obligations", names()),
                ("errors", names()),
            ],
            [],
        )
    };
    let masked = object([("column", text()), ("mask", text())], []);
    let statement = object(
        [
            ("statement", text()),
            ("kind", text()),
            ("effect", json!({ "enum": ["reads", "may_change"] })),
            ("ruling", ruling()),
            ("actions", list_of(ruling())),
            ("masks", list_of(masked)),
        ],
        [("sent", text())],
    );
    object(
        [
            ("decision", decision()),
            ("shadow", json!({ "type": "boolean" })),
            ("login", ruling()),
            ("statements", list_of(statement)),
        ],
        [],
    )
}

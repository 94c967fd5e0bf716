//! How it stands with the gateway, for whatever starts, stops and watches it. Nothing here needs a token, so nothing here
//! tells an address, a name of a principal, or a message of another system: those are in the log.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Visit;
use super::answer::{Answer, json as answer};
use super::openapi::{list, object, text};

/// The process answers.
pub(super) async fn live(_: Visit) -> Answer {
    answer(StatusCode::OK, &json!({ "live": true }))
}

pub(super) fn live_schema() -> Value {
    object([("live", json!({ "type": "boolean" }))], [])
}

/// Whether sessions can be opened. An issuer or an upstream that is away does not make the gateway unready: other sessions
/// are served, and another gateway would not reach it either.
pub(super) async fn ready(visit: Visit) -> Answer {
    let gateway = visit.gateway();
    let mut checks = Vec::new();
    let mut check = |name: &str, state: &str, detail: Option<&str>| {
        checks.push(json!({ "name": name, "state": state, "detail": detail.unwrap_or_default() }));
    };
    let ledger = gateway.recorder.trouble();
    check("ledger", if ledger.is_some() { "failed" } else { "ok" }, ledger);
    for issuer in gateway.identity.state() {
        let name = format!("issuer {}", issuer.name);
        match (issuer.keys, issuer.failure) {
            (0, _) => {
                check(&name, "degraded", Some("none of its keys is known; its principals cannot log in"))
            }
            (_, Some(_)) => {
                check(&name, "degraded", Some("its keys cannot be fetched; those known serve on"))
            }
            (_, None) => check(&name, "ok", None),
        }
    }
    for served in gateway.resources() {
        let resource = served.upstream.resource();
        for database in &resource.databases {
            let known = served.catalog(database).is_some_and(|catalog| catalog.is_known());
            let name = format!("resource {}/{database}", resource.name);
            let detail = "its catalog was not read yet; statements in it cannot be analysed";
            check(&name, if known { "ok" } else { "degraded" }, (!known).then_some(detail));
        }
    }
    let status = if ledger.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    answer(status, &json!({ "ready": ledger.is_none(), "checks": checks }))
}

pub(super) fn ready_schema() -> Value {
    let state = json!({ "type": "string", "enum": ["ok", "degraded", "failed"] });
    let check = object([("name", text()), ("state", state), ("detail", text())], []);
    object([("ready", json!({ "type": "boolean" })), ("checks", list(check))], [])
}

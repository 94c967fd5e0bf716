//! What is served, and as whom: names of the configuration, and nothing that a client could reach an upstream by.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Visit;
use super::answer::{Answer, json as answer};
use super::openapi::{list as list_of, number, object, text};
use crate::identity::Principal;

/// Every resource, by name.
pub(super) async fn list(visit: Visit, _: Arc<Principal>) -> Answer {
    let gateway = visit.gateway();
    let sessions = gateway.registry.all();
    let mut all: Vec<Value> = gateway
        .resources()
        .map(|served| {
            let resource = served.upstream.resource();
            let databases: Vec<Value> = resource
                .databases
                .iter()
                .map(|database| {
                    let known = served.catalog(database).is_some_and(|catalog| catalog.is_known());
                    json!({ "database": database, "catalog_known": known })
                })
                .collect();
            let roles: Vec<&str> = resource.roles.iter().map(|role| role.name.as_str()).collect();
            let live = sessions.iter().filter(|live| *live.standing.resource == *resource.name).count();
            json!({
                "resource": resource.name,
                "databases": databases,
                "roles": roles,
                "shadow": resource.shadow,
                "sessions": live,
            })
        })
        .collect();
    all.sort_by(|one, other| one["resource"].as_str().cmp(&other["resource"].as_str()));
    answer(StatusCode::OK, &json!({ "resources": all }))
}

pub(super) fn list_schema() -> Value {
    let flag = || json!({ "type": "boolean" });
    let database = object([("database", text()), ("catalog_known", flag())], []);
    let resource = object(
        [
            ("resource", text()),
            ("databases", list_of(database)),
            ("roles", list_of(text())),
            ("shadow", flag()),
            ("sessions", number()),
        ],
        [],
    );
    object([("resources", list_of(resource))], [])
}

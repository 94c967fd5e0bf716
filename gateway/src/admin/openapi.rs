//! The OpenAPI document (3.1), made of the table of routes: what is served and what is described cannot part.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::Visit;
use super::answer::{Answer, json as answer};
use super::routes::{Door, ROUTES, Route, Takes};

/// Answers with the document.
pub(super) async fn document(visit: Visit) -> Answer {
    answer(StatusCode::OK, &describe(&visit.server.config.url))
}

/// All that is part of the API, served at this URL.
fn describe(url: &str) -> Value {
    let mut paths = Map::new();
    for route in ROUTES.iter().filter(|route| !matches!(route.door, Door::Page(_))) {
        let place = paths.entry(route.path).or_insert_with(|| json!({}));
        place[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    let problem = json!({
        "type": "object",
        "required": ["title", "status", "detail"],
        "properties": { "title": text(), "status": { "type": "integer" }, "detail": text() },
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gatebook",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The gateway's own server. Every action that needs a token is in the ledger before it is done.",
        },
        "servers": [{ "url": url }],
        "paths": paths,
        "components": {
            "schemas": { "Problem": problem },
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "summary": route.says,
        "responses": {
            "200": { "description": "Done.", "content": { "application/json": { "schema": (route.gives)() } } },
            "default": {
                "description": "Not done, and why.",
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            },
        },
    });
    let mut parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": text() }))
        .collect();
    if let Takes::Query(schema) = route.takes
        && let Some(members) = schema()["properties"].as_object()
    {
        let members = members.iter();
        parameters
            .extend(members.map(|(name, schema)| json!({ "name": name, "in": "query", "schema": schema })));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    let (kind, takes) = match route.takes {
        Takes::Nothing | Takes::Query(_) => ("", None),
        Takes::Json(schema) => ("application/json", Some(schema())),
        Takes::Form(schema) => ("application/x-www-form-urlencoded", Some(schema())),
    };
    if let Some(schema) = takes {
        operation["requestBody"] = json!({ "required": true, "content": { kind: { "schema": schema } } });
    }
    if let Door::Permitted(action, _) = route.door {
        operation["security"] = json!([{ "token": [] }]);
        operation["x-cedar-action"] = action.name().into();
    }
    operation
}

/// The document's own schema, as far as it has one.
pub(super) fn schema() -> Value {
    json!({ "type": "object" })
}

/// A JSON Schema of a string.
pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

/// A JSON Schema of a whole number.
pub(super) fn number() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// A JSON Schema of an object: its required members first, then those that may be left out.
pub(super) fn object<const N: usize, const M: usize>(
    required: [(&str, Value); N],
    optional: [(&str, Value); M],
) -> Value {
    let names: Vec<&str> = required.iter().map(|(name, _)| *name).collect();
    let members: Map<String, Value> =
        required.into_iter().chain(optional).map(|(name, schema)| (name.to_owned(), schema)).collect();
    json!({ "type": "object", "required": names, "properties": members, "additionalProperties": false })
}

/// A JSON Schema of a list.
pub(super) fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

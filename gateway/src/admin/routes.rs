//! Everything that can be asked of the server, in one table.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::Method;
use serde_json::Value;

use super::answer::{Answer, Problem};
use super::{
    Visit, approvals, explain, health, logout, openapi, page, past, resources, revocations, sessions, token,
};
use crate::identity::Principal;
use crate::policy::AdminAction;

/// One thing that can be asked.
pub(super) struct Route {
    pub(super) method: Method,
    /// Its path; a segment in braces stands for any plain one.
    pub(super) path: &'static str,
    /// What it does, for the OpenAPI document.
    pub(super) says: &'static str,
    /// What its body holds.
    pub(super) takes: Takes,
    /// What it answers, as a JSON Schema.
    pub(super) gives: fn() -> Value,
    pub(super) door: Door,
}

/// What a request brings, with its JSON Schema.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Nothing,
    /// Parameters in the query.
    Query(fn() -> Value),
    Json(fn() -> Value),
    Form(fn() -> Value),
}

/// Who may ask, and what answers.
#[derive(Clone, Copy)]
pub(super) enum Door {
    /// Anybody who can reach the server.
    Open(fn(Visit) -> BoxFuture<'static, Answer>),
    /// A person's browser. It is there where the page for approvers is, and no part of the API.
    Page(fn(Visit) -> BoxFuture<'static, Answer>),
    /// A principal that policy permits this action. By the time of the answer that is in the ledger.
    Permitted(AdminAction, fn(Visit, Arc<Principal>) -> BoxFuture<'static, Answer>),
}

/// The table, in the order of the document.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "/livez",
        says: "Whether the gateway's process answers at all.",
        takes: Takes::Nothing,
        gives: health::live_schema,
        door: Door::Open(|visit| Box::pin(health::live(visit))),
    },
    Route {
        method: Method::GET,
        path: "/readyz",
        says: "Whether sessions can be opened, and what is wrong where not everything is well: 503 where nothing can be recorded.",
        takes: Takes::Nothing,
        gives: health::ready_schema,
        door: Door::Open(|visit| Box::pin(health::ready(visit))),
    },
    Route {
        method: Method::GET,
        path: "/openapi.json",
        says: "This document.",
        takes: Takes::Nothing,
        gives: openapi::schema,
        door: Door::Open(|visit| Box::pin(openapi::document(visit))),
    },
    Route {
        method: Method::GET,
        path: "/v1/sessions",
        says: "The sessions that live now.",
        takes: Takes::Nothing,
        gives: sessions::list_schema,
        door: Door::Permitted(AdminAction::ReadSessions, |visit, by| Box::pin(sessions::list(visit, by))),
    },
    Route {
        method: Method::GET,
        path: "/v1/sessions/past",
        says: "Sessions as the ledger has them, those that are over among them: the newest that fit, the oldest of these first.",
        takes: Takes::Query(past::list_asks),
        gives: past::list_schema,
        door: Door::Permitted(AdminAction::ReadSessions, |visit, by| Box::pin(past::list(visit, by))),
    },
    Route {
        method: Method::GET,
        path: "/v1/sessions/{session}",
        says: "One session that lives now.",
        takes: Takes::Nothing,
        gives: sessions::one_schema,
        door: Door::Permitted(AdminAction::ReadSessions, |visit, by| Box::pin(sessions::one(visit, by))),
    },
    Route {
        method: Method::GET,
        path: "/v1/resources",
        says: "What is served, as which roles, and how many sessions live there.",
        takes: Takes::Nothing,
        gives: resources::list_schema,
        door: Door::Permitted(AdminAction::ReadResources, |visit, by| Box::pin(resources::list(visit, by))),
    },
    Route {
        method: Method::POST,
        path: "/v1/policy/explain",
        says: "What the policies in force decide about a principal's statement, action by action. Nothing is run.",
        takes: Takes::Json(explain::takes),
        gives: explain::gives,
        door: Door::Permitted(AdminAction::Explain, |visit, by| Box::pin(explain::explain(visit, by))),
    },
    Route {
        method: Method::GET,
        path: "/v1/revocations",
        says: "Who was revoked and stays out.",
        takes: Takes::Nothing,
        gives: revocations::list_schema,
        door: Door::Permitted(AdminAction::Revoke, |visit, by| Box::pin(revocations::list(visit, by))),
    },
    Route {
        method: Method::POST,
        path: "/v1/revocations",
        says: "Ends sessions now, and keeps a principal out. The revocation is in the ledger before it takes effect.",
        takes: Takes::Json(revocations::revoke_takes),
        gives: revocations::revoke_gives,
        door: Door::Permitted(AdminAction::Revoke, |visit, by| Box::pin(revocations::revoke(visit, by))),
    },
    Route {
        method: Method::POST,
        path: "/backchannel-logout",
        says: "Ends what came of a login that its issuer says is over (OpenID Connect Back-Channel Logout). The issuer's own token opens it.",
        takes: Takes::Form(logout::takes),
        gives: logout::gives,
        door: Door::Open(|visit| Box::pin(logout::logout(visit))),
    },
    Route {
        method: Method::GET,
        path: "/v1/approvals",
        says: "The requests for approval that wait, and those that were answered or came to nothing lately.",
        takes: Takes::Nothing,
        gives: approvals::list_schema,
        door: Door::Permitted(AdminAction::Approve, |visit, by| Box::pin(approvals::list(visit, by))),
    },
    Route {
        method: Method::GET,
        path: "/v1/approvals/live",
        says: "The same at once and again after each change, as server-sent events named approvals, until the token expires.",
        takes: Takes::Nothing,
        gives: approvals::follow_schema,
        door: Door::Permitted(AdminAction::Approve, |visit, by| Box::pin(approvals::follow(visit, by))),
    },
    Route {
        method: Method::GET,
        path: "/v1/approvals/{id}",
        says: "One request for approval.",
        takes: Takes::Nothing,
        gives: approvals::one_schema,
        door: Door::Permitted(AdminAction::Approve, |visit, by| Box::pin(approvals::one(visit, by))),
    },
    Route {
        method: Method::POST,
        path: "/v1/approvals/{id}/answers",
        says: "Approves or denies a request in the name of the token's person. The answer is in the ledger before it takes effect, and also where it does not count.",
        takes: Takes::Json(approvals::give_takes),
        gives: approvals::one_schema,
        door: Door::Permitted(AdminAction::Approve, |visit, by| Box::pin(approvals::give(visit, by))),
    },
    Route {
        method: Method::POST,
        path: "/token",
        says: "Exchanges a token for sessions for one that can do less (RFC 8693). It is in the ledger before the token exists.",
        takes: Takes::Form(token::exchange_takes),
        gives: token::exchange_gives,
        door: Door::Open(|visit| Box::pin(token::exchange(visit))),
    },
    Route {
        method: Method::POST,
        path: "/revoke",
        says: "Ends what a token was handed down for, and all that came of it (RFC 7009). Whoever holds the token may.",
        takes: Takes::Form(token::revoke_takes),
        gives: token::revoke_gives,
        door: Door::Open(|visit| Box::pin(token::revoke(visit))),
    },
    Route {
        method: Method::GET,
        path: "/jwks.json",
        says: "The keys that sign what is handed down (RFC 7517).",
        takes: Takes::Nothing,
        gives: token::keys_schema,
        door: Door::Open(|visit| Box::pin(token::keys(visit))),
    },
    Route {
        method: Method::GET,
        path: "/v1/delegations",
        says: "The delegations that live, the oldest first.",
        takes: Takes::Nothing,
        gives: token::all_schema,
        door: Door::Permitted(AdminAction::ReadDelegations, |visit, by| Box::pin(token::all(visit, by))),
    },
    Route {
        method: Method::DELETE,
        path: "/v1/delegations/{delegation}",
        says: "Ends a delegation and all that came of it, with their sessions.",
        takes: Takes::Nothing,
        gives: token::end_gives,
        door: Door::Permitted(AdminAction::Revoke, |visit, by| Box::pin(token::end(visit, by))),
    },
    of_page(Method::GET, "/", |visit| Box::pin(page::shell(visit))),
    of_page(Method::GET, "/page.css", |visit| Box::pin(page::style(visit))),
    of_page(Method::GET, "/page.js", |visit| Box::pin(page::script(visit))),
    of_page(Method::GET, "/login", |visit| Box::pin(page::begin(visit))),
    of_page(Method::GET, page::CALLBACK, |visit| Box::pin(page::callback(visit))),
    of_page(Method::GET, page::SESSION, |visit| Box::pin(page::session(visit))),
    of_page(Method::POST, "/logout", |visit| Box::pin(page::logout(visit))),
];

const fn of_page(
    method: Method,
    path: &'static str,
    answer: fn(Visit) -> BoxFuture<'static, Answer>,
) -> Route {
    Route { method, path, says: "", takes: Takes::Nothing, gives: openapi::schema, door: Door::Page(answer) }
}

/// The longest segment that a path may have in the place of braces.
const PLACE_BYTES_MAX: usize = 256;

/// The route that a request asks for, and what stands in the place of its braces.
pub(super) fn find(method: &Method, path: &str) -> Result<(&'static Route, Vec<String>), Problem> {
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some(place) = matches(route.path, path) else { continue };
        if route.method == *method {
            return Ok((route, place));
        }
        allowed.push(route.method.as_str());
    }
    if allowed.is_empty() { Err(Problem::not_found()) } else { Err(Problem::method(&allowed.join(", "))) }
}

fn matches(pattern: &str, path: &str) -> Option<Vec<String>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:".contains(c);
    let mut place = Vec::new();
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        let segment = segments.next()?;
        if wanted.starts_with('{') {
            if segment.is_empty() || segment.len() > PLACE_BYTES_MAX || !segment.chars().all(plain) {
                return None;
            }
            place.push(segment.to_owned());
        } else if segment != wanted {
            return None;
        }
    }
    segments.next().is_none().then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        assert!(find(&Method::GET, "/v1/sessions").is_ok());
        for path in [
            "",
            "//",
            "/v1",
            "/v1/sessions/",
            "//v1/sessions",
            "/v1//sessions",
            "/v1/./sessions",
            "/V1/sessions",
            "/v1/%73essions",
            "/v1/sessions;a",
            "/v1/x/../sessions",
            "v1/sessions",
        ] {
            assert!(find(&Method::GET, path).is_err(), "{path}");
        }
        assert_eq!(matches("/a/{id}/b", "/a/x:1/b"), Some(vec!["x:1".to_owned()]));
        for path in ["/a//b", "/a/x%2f/b", "/a/x/b/c", "/a/x"] {
            assert_eq!(matches("/a/{id}/b", path), None, "{path}");
        }
    }

    #[test]
    fn no_two_routes_are_one() {
        for (at, route) in ROUTES.iter().enumerate() {
            let same = |other: &&Route| other.path == route.path && other.method == route.method;
            assert_eq!(ROUTES.iter().skip(at).filter(same).count(), 1, "{}", route.path);
        }
    }
}

//! What the server answers: JSON, or a problem (RFC 9457), each under headers that let a browser make nothing else of it.

use std::borrow::Cow;
use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

/// An answer's body: whole, or a stream.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// What a route comes to.
pub(crate) type Answer = Result<Response<Body>, Problem>;

/// Why something was not done, in words for whoever asked.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    header: Option<(HeaderName, HeaderValue)>,
    /// The member `error` of an OAuth answer (RFC 6749, section 5.2), where it is one.
    oauth: Option<&'static str>,
}

impl Problem {
    /// A problem with a lower-case fragment that says what to do.
    pub(crate) fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem { status, detail: detail.into(), header: None, oauth: None }
    }

    /// A refusal of an OAuth endpoint.
    pub(crate) fn oauth(error: &'static str, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem { oauth: Some(error), ..Problem::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// The status that it is told with.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// There is nothing at this path.
    pub(crate) fn not_found() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "there is nothing here; /openapi.json lists what there is")
    }

    /// There is, but not with this method.
    pub(super) fn method(allowed: &str) -> Problem {
        let header = HeaderValue::from_str(allowed).ok().map(|allowed| (ALLOW, allowed));
        Problem { header, ..Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes other methods") }
    }

    /// No token was sent.
    pub(super) fn no_token() -> Problem {
        Problem::challenge("Bearer", "send a token: Authorization: Bearer …")
    }

    /// One was, and is not accepted; why is for the ledger.
    pub(super) fn bad_token() -> Problem {
        Problem::challenge("Bearer error=\"invalid_token\"", "the token was not accepted")
    }

    fn challenge(challenge: &'static str, detail: &'static str) -> Problem {
        let header = Some((WWW_AUTHENTICATE, HeaderValue::from_static(challenge)));
        Problem { header, ..Problem::new(StatusCode::UNAUTHORIZED, detail) }
    }

    /// Policy says no.
    pub(crate) fn forbidden() -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "not permitted; ask the operators of this gateway for access")
    }

    /// The ledger says nothing, so nothing is done.
    pub(crate) fn unrecorded() -> Problem {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the ledger cannot be written, and nothing is done unrecorded",
        )
    }
}

/// An answer of JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => Ok(whole(status, "application/json", bytes)),
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written")),
    }
}

/// An answer of one piece.
pub(crate) fn whole(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes.into()).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The answer as it is sent. What a route set itself stays; a page needs another content policy than JSON.
pub(super) fn finish(answer: Answer) -> Response<Body> {
    let mut response = answer.unwrap_or_else(|problem| {
        let Problem { status, detail, header, oauth } = problem;
        let (kind, body) = match oauth {
            Some(error) => ("application/json", json!({ "error": error, "error_description": detail })),
            None => {
                let title = status.canonical_reason().unwrap_or_default();
                let body = json!({ "title": title, "status": status.as_u16(), "detail": detail });
                ("application/problem+json", body)
            }
        };
        let mut response = whole(status, kind, body.to_string());
        response.headers_mut().extend(header.map(|(name, value)| (Some(name), value)));
        response
    });
    let headers = response.headers_mut();
    for (name, value) in [
        ("cache-control", "no-store"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ] {
        headers.entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    }
    response
}

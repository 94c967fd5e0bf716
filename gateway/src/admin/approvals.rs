//! Requests for approval: seen, followed live, and answered, by whoever policy permits `approve`.
//!
//! That permission opens the door. Whether an answer counts is another question, which the request itself decides: only members of the
//! groups that its policy names, and never whoever asked.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Visit;
use super::answer::{Answer, Problem, json as answer};
use super::openapi::{list as list_of, number, object, text};
use crate::approval::{Answer as Given, AnswerError, Id, Request, Shown, Unfit};
use crate::gateway::Gateway;
use crate::identity::Principal;
use crate::policy::AdminAction;

/// The longest reason.
const REASON_BYTES_MAX: usize = 4096;
/// How often a stream on which nothing happens says that it lives.
const STREAM_PULSE: Duration = Duration::from_secs(15);
/// How many events wait for a reader; one that is slower misses none, for each holds everything.
const STREAM_EVENTS_MAX: usize = 4;

/// A request, and why this person's answer to it would not count.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    shown: Shown,
    #[serde(skip_serializing_if = "Option::is_none")]
    unfit: Option<&'static str>,
}

impl Told {
    fn new(gateway: &Gateway, request: &Request, to: &Principal, now: SystemTime) -> Told {
        let fit = if gateway.is_revoked(to) { Err(Unfit::Revoked) } else { request.fits(to, now) };
        Told { shown: request.shown(now), unfit: fit.err().map(Unfit::name) }
    }
}

fn known(gateway: &Gateway, to: &Principal) -> Vec<Told> {
    let now = SystemTime::now();
    gateway.approvals.all().iter().map(|request| Told::new(gateway, request, to, now)).collect()
}

fn id(visit: &Visit) -> Result<Id, Problem> {
    let id = visit.place.first().and_then(|id| id.parse().ok());
    id.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "this is no request's id"))
}

/// The requests that are known.
pub(super) async fn list(visit: Visit, by: Arc<Principal>) -> Answer {
    answer(StatusCode::OK, &json!({ "approvals": known(visit.gateway(), &by) }))
}

pub(super) fn list_schema() -> Value {
    object([("approvals", list_of(one_schema()))], [])
}

/// One of them.
pub(super) async fn one(visit: Visit, by: Arc<Principal>) -> Answer {
    let id = id(&visit)?;
    match visit.gateway().approvals.find(id) {
        Some(request) => {
            answer(StatusCode::OK, &Told::new(visit.gateway(), &request, &by, SystemTime::now()))
        }
        None => Err(Problem::new(StatusCode::NOT_FOUND, "there is no such request, or it is long over")),
    }
}

pub(super) fn one_schema() -> Value {
    let yes_or_no = || json!({ "type": "boolean" });
    let parameter = json!({ "type": ["string", "null"] });
    let command = object(
        [
            ("statement", text()),
            ("cut", yes_or_no()),
            ("parameters", list_of(parameter)),
            ("actions", list_of(text())),
            ("kind", text()),
            ("reads", yes_or_no()),
            ("has_where", yes_or_no()),
        ],
        [("sent", text())],
    );
    object(
        [
            ("id", text()),
            ("state", text()),
            ("principal", text()),
            ("through", list_of(text())),
            ("resource", text()),
            ("role", text()),
            ("search_path", text()),
            ("commands", list_of(command)),
            ("objects", list_of(text())),
            ("policies", list_of(text())),
            ("approvers", list_of(text())),
            ("quorum", number()),
            ("approved_by", list_of(text())),
            ("in_transaction", yes_or_no()),
            ("locks", list_of(text())),
            ("asked_s", number()),
            ("until_s", number()),
            ("digest", text()),
        ],
        [
            ("session", number()),
            ("reason", text()),
            ("denied_by", text()),
            ("answer_reason", text()),
            ("unfit", text()),
        ],
    )
}

/// Somebody's answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    approve: bool,
    session_s: Option<u64>,
    #[serde(default)]
    reason: String,
}

/// Answers a request, in the name of whoever's token it is.
pub(super) async fn give(visit: Visit, by: Arc<Principal>) -> Answer {
    let asked: Asked = visit.json()?;
    if asked.reason.len() > REASON_BYTES_MAX {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the reason is too long"));
    }
    let given = match (asked.approve, asked.session_s) {
        (true, session) => Given::Approve { session: session.map(Duration::from_secs) },
        (false, None) => Given::Deny,
        (false, Some(_)) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "session_s has no meaning without approve"));
        }
    };
    match visit.gateway().answer_approval(&by, id(&visit)?, &given, &asked.reason).await {
        Ok(request) => answer(StatusCode::OK, &Told::new(visit.gateway(), &request, &by, SystemTime::now())),
        Err(AnswerError::Unavailable(_)) => Err(Problem::unrecorded()),
        Err(error) => {
            let status = match error {
                AnswerError::Unknown(_) => StatusCode::NOT_FOUND,
                AnswerError::TooLate(_) | AnswerError::Answered => StatusCode::CONFLICT,
                _ => StatusCode::FORBIDDEN,
            };
            Err(Problem::new(status, error.to_string()))
        }
    }
}

pub(super) fn give_takes() -> Value {
    let approve = json!({ "type": "boolean" });
    object([("approve", approve)], [("session_s", number()), ("reason", text())])
}

/// Frames that another task makes.
struct Events(mpsc::Receiver<Bytes>);

impl Stream for Events {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// All requests at once and again after each change, as server-sent events, until the token or the session is over, policy no longer
/// permits it, or the reader leaves.
pub(super) async fn follow(visit: Visit, by: Arc<Principal>) -> Answer {
    let (frames, events) = mpsc::channel(STREAM_EVENTS_MAX);
    let Visit { server, session, .. } = visit;
    let gateway = server.gateway.clone();
    let may_look = move |by: &Principal| {
        let now = SystemTime::now();
        by.expires() > now
            && !server.gateway.is_revoked(by)
            && session.as_ref().is_none_or(|session| session.lives(Instant::now(), now))
            && server.gateway.permits(by, AdminAction::Approve)
    };
    tokio::spawn(async move {
        let mut changes = gateway.approvals.changes();
        let mut changed = true;
        while may_look(&by) {
            let frame = match changed {
                true => {
                    let data = json!({ "approvals": known(&gateway, &by) }).to_string();
                    format!("event: approvals\ndata: {data}\n\n")
                }
                false => ":\n\n".to_owned(),
            };
            if frames.send(frame.into()).await.is_err() {
                return;
            }
            changed = match timeout(STREAM_PULSE, changes.changed()).await {
                Ok(Ok(())) => true,
                Ok(Err(_)) => return,
                Err(_) => false,
            };
        }
    });
    let mut response = Response::new(StreamBody::new(Events(events)).boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

pub(super) fn follow_schema() -> Value {
    list_schema()
}

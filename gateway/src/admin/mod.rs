//! The gateway's own HTTPS server: for operators, approvers, those who delegate, and for what watches over it.
//!
//! What can be asked stands in one table ([`routes`]), from which the OpenAPI document is made too. A route is either open or
//! needs a permission: then the bearer token makes a principal by the same issuers as a session's, but with an audience of its
//! own; Cedar decides about `Gateway::"this"`; and the decision is durable in the ledger before anything is done or shown.
//!
//! Approvers have a page ([`page`]): their session's cookie takes the token's place for the action `approve`, and for no other.
//!
//! What a newcomer gets wrong: a path is compared as it was sent. There is no decoding and no cleaning, so there are no two
//! spellings of one route, and a check cannot look at another path than the one that is answered.

mod answer;
mod approvals;
mod explain;
mod health;
mod logout;
mod openapi;
mod page;
mod past;
mod resources;
mod revocations;
mod routes;
mod sessions;
mod token;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use openidconnect::url::form_urlencoded;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

pub(crate) use self::answer::{Answer, Body, Problem};
use self::page::{Page, Session};
use self::routes::Door;
use crate::config::tls::{ServerTls, TlsError};
use crate::config::{AdminConfig, Limits};
use crate::gateway::Gateway;
use crate::identity::{Credential, Identity, Principal, TOKEN_BYTES_MAX};
use crate::listen::Doorkeeper;
use crate::policy::{AdminAction, Decision};
use crate::record::AdminEntry;

/// The most connections at once, and of one address.
const CONNECTIONS_MAX: usize = 512;
const CONNECTIONS_PER_SOURCE_MAX: usize = 64;
/// The longest head of a request: a token of the longest kind fits.
const HEAD_BYTES_MAX: usize = TOKEN_BYTES_MAX + 8 * 1024;
/// The longest body of a request: two tokens of the longest kind fit.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long TLS may take, and then the head of each request: so long a connection may be idle, too.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long a request's body and its answer may take; an answer that is a stream may last longer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// How long a client may take none of what is written to it.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// How long to wait after the system refused to accept: out of descriptors, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many searches of the ledger there may be at once.
const SEARCHES_MAX: usize = 2;
/// How much of a path is recorded.
const RECORDED_BYTES_MAX: usize = 512;

/// The server, over one gateway.
pub(crate) struct Server {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) config: AdminConfig,
    tls: ServerTls,
    identity: Identity,
    /// Those who search the ledger.
    searches: Arc<Semaphore>,
    /// The page for approvers, where there is one.
    page: Option<Page>,
}

/// Why there is no server.
#[derive(Debug, Error)]
pub(crate) enum ServerError {
    /// Its certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nobody can ever sign in at its page.
    #[error("admin.login: {0}")]
    Login(String),
}

/// One request, read whole.
pub(crate) struct Visit {
    pub(crate) server: Arc<Server>,
    pub(crate) source: SocketAddr,
    pub(crate) head: Parts,
    /// What stands in the path where the route's has braces.
    pub(crate) place: Vec<String>,
    pub(crate) body: Bytes,
    /// The page's session by which it is asked, where it is not by a token.
    session: Option<Arc<Session>>,
}

impl Visit {
    /// The gateway that is asked.
    pub(crate) fn gateway(&self) -> &Arc<Gateway> {
        &self.server.gateway
    }

    /// What the query asks for: names and values, no name twice.
    pub(crate) fn query(&self) -> Result<BTreeMap<String, String>, Problem> {
        let mut asked = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(self.head.uri.query().unwrap_or_default().as_bytes()) {
            if asked.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(Problem::new(StatusCode::BAD_REQUEST, format!("{name:?} stands twice")));
            }
        }
        Ok(asked)
    }

    /// The body, as the JSON that the route takes.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Problem> {
        let is_json = |value: &hyper::header::HeaderValue| {
            value.to_str().is_ok_and(|kind| {
                kind.split(';')
                    .next()
                    .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
            })
        };
        if !self.head.headers.get(hyper::header::CONTENT_TYPE).is_some_and(is_json) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json",
            ));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body: {error}")))
    }
}

impl Server {
    /// A server that listens nowhere yet.
    ///
    /// # Errors
    /// [`ServerError`] where its certificate cannot be used, or its page can never be logged in to.
    pub(crate) fn new(gateway: Arc<Gateway>, config: AdminConfig) -> Result<Arc<Server>, ServerError> {
        let tls = ServerTls::single(&config.certificate, b"http/1.1")?;
        let identity = gateway.identity.for_audience(&config.audience);
        let page = config.login.as_ref().and_then(|login| {
            let issuer = gateway.config.issuers.iter().find(|issuer| issuer.name == login.issuer)?;
            Some(Page::new(&config.url, login, issuer, &gateway.identity))
        });
        let page = page.transpose().map_err(ServerError::Login)?;
        let searches = Arc::new(Semaphore::new(SEARCHES_MAX));
        Ok(Arc::new(Server { gateway, config, tls, identity, searches, page }))
    }

    /// Reads the certificate anew where it changed.
    ///
    /// # Errors
    /// [`TlsError`] where it cannot be used; the old one stays.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        self.tls.reload()
    }

    /// Accepts until `stop` says so. Each connection is a task of its own.
    pub(crate) async fn listen(self: Arc<Server>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let doorkeeper = Doorkeeper::new(&Limits {
            connections_max: CONNECTIONS_MAX,
            logins_max: CONNECTIONS_MAX,
            logins_per_source_max: CONNECTIONS_PER_SOURCE_MAX,
            ..self.gateway.config.limits.clone()
        });
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, source) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the admin server");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = doorkeeper.admit(source.ip()) else {
                tracing::warn!(%source, "admin connection closed: too many at once");
                continue;
            };
            let server = self.clone();
            tokio::spawn(async move {
                server.serve(stream, source).await;
                drop(place);
            });
        }
    }

    /// One connection: TLS, then one request after another.
    async fn serve(self: Arc<Server>, stream: TcpStream, source: SocketAddr) {
        let mut stream = Box::pin(TimeoutStream::new(stream));
        stream.as_mut().set_write_timeout_pinned(Some(WRITE_DEADLINE));
        let accepted = timeout(HEAD_DEADLINE, TlsAcceptor::from(self.tls.config()).accept(stream)).await;
        let Ok(Ok(stream)) = accepted else { return };
        let service = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request, source).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%source, %error, "admin connection ended");
        }
    }

    async fn answer(self: Arc<Server>, request: Request<Incoming>, source: SocketAddr) -> Response<Body> {
        let deadline = Problem::new(StatusCode::GATEWAY_TIMEOUT, "this took too long");
        let answered = timeout(ANSWER_DEADLINE, self.act(request, source)).await.unwrap_or(Err(deadline));
        answer::finish(answered)
    }

    async fn act(self: Arc<Server>, request: Request<Incoming>, source: SocketAddr) -> Answer {
        let (head, body) = request.into_parts();
        let (route, place) = routes::find(&head.method, head.uri.path())?;
        // Before the body is read: whoever may not ask is not listened to.
        let (mut by, mut session) = (None, None);
        if let Door::Permitted(action, _) = route.door {
            session = self.session(&head, action, source)?;
            let principal = match &session {
                Some(session) => session.principal.clone(),
                None => self.authenticate(&head, source).await?,
            };
            self.permit(&principal, action, action.name(), &asked(&head), source).await?;
            by = Some(principal);
        }
        let body = read(body).await?;
        let visit = Visit { server: self, source, head, place, body, session };
        match (route.door, by) {
            (Door::Open(answer) | Door::Page(answer), _) => answer(visit).await,
            (Door::Permitted(_, answer), Some(by)) => answer(visit, by).await,
            (Door::Permitted(..), None) => Err(Problem::no_token()),
        }
    }

    /// The page's session by which this is asked for, where no token is shown: it is good for answering requests, and for nothing else.
    fn session(
        &self,
        head: &Parts,
        action: AdminAction,
        source: SocketAddr,
    ) -> Result<Option<Arc<Session>>, Problem> {
        match &self.page {
            Some(page) if action == AdminAction::Approve && !head.headers.contains_key(AUTHORIZATION) => {
                page.guard(&self.gateway, head, source)
            }
            _ => Ok(None),
        }
    }

    /// Who asks, by the bearer token of the request's head (RFC 6750). Every refusal is recorded.
    async fn authenticate(&self, head: &Parts, source: SocketAddr) -> Result<Arc<Principal>, Problem> {
        let mut given = head.headers.get_all(AUTHORIZATION).iter();
        let (Some(header), None) = (given.next(), given.next()) else { return Err(Problem::no_token()) };
        let token = header.as_bytes().split_at_checked("Bearer ".len());
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
        let Some((_, token)) = token else { return Err(Problem::no_token()) };
        self.verify(&Credential::new(token.to_vec()), source).await
    }

    /// Who a token for this server speaks for. Every refusal is recorded.
    pub(crate) async fn verify(
        &self,
        credential: &Credential,
        source: SocketAddr,
    ) -> Result<Arc<Principal>, Problem> {
        match self.identity.verify(credential, SystemTime::now()).await {
            Ok(principal) if self.gateway.is_revoked(&principal) => {
                self.gateway.refused_login(source, RESOURCE, "revoked", principal.id());
                Err(Problem::bad_token())
            }
            Ok(principal) => Ok(principal),
            Err(rejected) => {
                self.gateway.refused_login(source, RESOURCE, rejected.cause().name(), rejected.detail());
                Err(Problem::bad_token())
            }
        }
    }

    /// Asks policy whether this principal may do this to the gateway, and records the answer under `name`; durable when it returns.
    async fn permit(
        &self,
        principal: &Principal,
        action: AdminAction,
        name: &str,
        request: &str,
        source: SocketAddr,
    ) -> Result<(), Problem> {
        let Some(decision) = self.decide(principal, action) else { return Err(Problem::forbidden()) };
        self.record(principal, name, Some(&decision), request, source).await?;
        if !decision.is_permit() {
            tracing::warn!(%source, principal = &**principal.id(), action = name, "admin action refused");
            return Err(Problem::forbidden());
        }
        Ok(())
    }

    /// What policy says of it; none for a principal that policy has no name for.
    fn decide(&self, principal: &Principal, action: AdminAction) -> Option<Decision> {
        let subject = crate::gateway::subject(principal)?;
        Some(self.gateway.policy.load().decide_admin(&[subject], action, &self.gateway.config.ledger.origin))
    }

    /// Records what somebody wants of the gateway; durable when it returns.
    async fn record(
        &self,
        principal: &Principal,
        action: &str,
        decision: Option<&Decision>,
        request: &str,
        source: SocketAddr,
    ) -> Result<(), Problem> {
        let entry = AdminEntry { principal, action, decision, reason: None, request, source };
        let recorded =
            self.gateway.recorder.record_admin(&entry, self.gateway.config.limits.durable_deadline);
        recorded.await.map_err(|_| Problem::unrecorded())
    }
}

/// What the ledger calls the server where it names the resource that somebody wanted to reach.
const RESOURCE: &str = "the gateway itself";

/// Method and path as the ledger keeps them: no query, which is nobody's but the client's.
fn asked(head: &Parts) -> String {
    let path: String = head.uri.path().chars().take(RECORDED_BYTES_MAX).collect();
    format!("{} {path}", head.method)
}

async fn read(body: Incoming) -> Result<Bytes, Problem> {
    let too_long =
        || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {BODY_BYTES_MAX} bytes"));
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_long());
    }
    Ok(Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|_| too_long())?.to_bytes())
}

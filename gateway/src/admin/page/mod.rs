//! The web page for approvers: one shell that says nothing, a login at an OpenID Connect issuer, and a session that opens the
//! API's approvals and nothing else.
//!
//! The shell, its style and its script are the same for everybody. All that is shown comes through the API's own routes, which take the
//! session's cookie in place of a token (see [`Page::guard`]), so an answer given here goes the way of every other answer.
//!
//! What a newcomer gets wrong: the session's cookie is `SameSite=Strict`, so no link from elsewhere brings it along, not even to the shell.
//! That is why the shell needs none, and why the login ends with a page that goes on to the shell by itself instead of a redirect.

mod cookie;
mod logins;
mod provider;
mod sessions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, LOCATION, ORIGIN, REFRESH};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use openidconnect::url::{Url, form_urlencoded};
use serde_json::json;
use subtle::ConstantTimeEq as _;

use self::logins::Logins;
use self::provider::Provider;
pub(crate) use self::sessions::Session;
use self::sessions::Sessions;
use super::answer::{json as answer, whole};
use super::{Answer, Body, Problem, RESOURCE, Server, Visit};
use crate::config::{IssuerConfig, LoginConfig};
use crate::gateway::Gateway;
use crate::identity::{Identity, Principal, quoted};
use crate::policy::AdminAction;

/// Where the issuer sends people back to.
pub(super) const CALLBACK: &str = "/login/callback";
/// Where the script asks whose session it is.
pub(super) const SESSION: &str = "/login/session";
/// The cookie of a session.
const SESSION_COOKIE: &str = "__Host-gatebook";
/// The cookie of a login that is under way.
const LOGIN_COOKIE: &str = "__Host-gatebook-login";
/// How long a login may take.
const LOGIN_WAIT_MAX: Duration = Duration::from_secs(600);
/// The header in which the script repeats what the session's own answer told it.
const PROOF: HeaderName = HeaderName::from_static("gatebook-proof");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const SHELL: &str = include_str!("assets/page.html");
const STYLE: &str = include_str!("assets/page.css");
const SCRIPT: &str = include_str!("assets/page.js");
/// What stands around the one sentence that a person is told while they log in.
const NOTE: &str = include_str!("assets/note.html");

/// The page of one gateway.
pub(super) struct Page {
    /// As browsers name it: scheme, host, and the port where it is another than the scheme's own.
    origin: String,
    shell_policy: HeaderValue,
    note_policy: HeaderValue,
    issuer: String,
    identity: Identity,
    provider: Provider,
    logins: Logins,
    sessions: Sessions,
}

/// Why a login came to nothing: for the ledger, and for the person.
struct Failed {
    cause: &'static str,
    detail: String,
    status: StatusCode,
    told: &'static str,
}

impl Failed {
    fn new(cause: &'static str, detail: impl Into<String>) -> Failed {
        let told = "This sign-in did not work, or took too long. Please try again.";
        Failed { cause, detail: detail.into(), status: StatusCode::BAD_REQUEST, told }
    }

    fn told(self, status: StatusCode, told: &'static str) -> Failed {
        Failed { status, told, ..self }
    }
}

impl Page {
    /// A page at this URL, whose people log in at this issuer.
    ///
    /// # Errors
    /// A lower-case fragment where the issuer can never be asked.
    pub(super) fn new(
        url: &str,
        login: &LoginConfig,
        issuer: &IssuerConfig,
        identity: &Identity,
    ) -> Result<Page, String> {
        let origin = Url::parse(url).map_err(|error| error.to_string())?.origin().ascii_serialization();
        let policy = |text: String| HeaderValue::try_from(text).map_err(|error| error.to_string());
        let nothing = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        Ok(Page {
            // A header's list cannot hold a line's end, and neither can an origin.
            shell_policy: policy(format!(
                "{nothing}; script-src {origin}/page.js; style-src {origin}/page.css; connect-src {origin}{SESSION} \
                 {origin}/logout {origin}/v1/approvals {origin}/v1/approvals/; require-trusted-types-for 'script'; trusted-types 'none'"
            ))?,
            note_policy: policy(format!("{nothing}; style-src {origin}/page.css"))?,
            issuer: issuer.name.clone(),
            identity: identity.for_audience(&login.client_id),
            provider: Provider::new(login, issuer, format!("{origin}{CALLBACK}"))?,
            logins: Logins::new(LOGIN_WAIT_MAX),
            sessions: Sessions::new(login.session_max, login.idle_timeout),
            origin,
        })
    }

    /// The session whose cookie a request brings; none where it brings no cookie. A request that another site may have caused is refused, and
    /// recorded: what changes something must come from the page's own origin and repeat the session's proof.
    pub(super) fn guard(
        &self,
        gateway: &Gateway,
        head: &Parts,
        source: SocketAddr,
    ) -> Result<Option<Arc<Session>>, Problem> {
        let Some(cookie) = cookie::find(head, SESSION_COOKIE) else { return Ok(None) };
        // A stream that a browser keeps open by itself is no sign that somebody is there.
        let person = head.method != Method::GET || head.uri.path() == SESSION;
        let session = self.sessions.find(cookie, person, Instant::now(), SystemTime::now());
        let over = || Problem::new(StatusCode::UNAUTHORIZED, "your session is over; sign in again");
        let session = session.ok_or_else(over)?;
        if gateway.is_revoked(&session.principal) {
            self.sessions.end(cookie);
            gateway.refused_login(source, RESOURCE, "revoked", session.principal.id());
            return Err(over());
        }
        if let Err(why) = self.is_own(head, &session) {
            let detail =
                format!("{}: {} {}: {why}", session.principal.id(), head.method, quoted(head.uri.path()));
            gateway.refused_login(source, RESOURCE, "cross_site", &detail);
            return Err(Problem::new(StatusCode::FORBIDDEN, "this did not come from the gateway's own page"));
        }
        Ok(Some(session))
    }

    /// Whether a request comes from the page itself, as far as a browser tells (Fetch Metadata; RFC 6454, section 7).
    fn is_own(&self, head: &Parts, session: &Session) -> Result<(), &'static str> {
        let site = one(head, &FETCH_SITE)?;
        let origin = one(head, &ORIGIN)?;
        if site.is_some_and(|site| site != "same-origin") {
            return Err("another site had the browser send it");
        }
        if origin.is_some_and(|origin| origin != self.origin) {
            return Err("it has another origin");
        }
        if head.method == Method::GET {
            return Ok(());
        }
        if origin.is_none() {
            return Err("it has no origin");
        }
        let proof = one(head, &PROOF)?.unwrap_or_default();
        match bool::from(proof.as_bytes().ct_eq(session.proof.as_bytes())) {
            true => Ok(()),
            false => Err("its proof is not the session's"),
        }
    }

    /// What came back from the issuer, and who that is.
    async fn verify(&self, gateway: &Gateway, visit: &Visit) -> Result<Arc<Principal>, Failed> {
        let cookie = cookie::find(&visit.head, LOGIN_COOKIE);
        // Taken first: whatever comes of it, it is not used again.
        let login = cookie.and_then(|cookie| self.logins.take(cookie, Instant::now()));
        let login = login.ok_or_else(|| {
            Failed::new("login_unknown", "the browser that came back did not begin this login, or it is over")
        })?;
        let said = Said::read(visit.head.uri.query().unwrap_or_default())
            .ok_or_else(|| Failed::new("login_malformed", "what came back names something twice"))?;
        if !bool::from(said.state.as_bytes().ct_eq(login.state.as_bytes())) {
            return Err(Failed::new("login_state", "the state that came back is another login's"));
        }
        let endpoints = self.provider.endpoints(Instant::now()).await.map_err(unreachable_issuer)?;
        match &said.issuer {
            Some(issuer) if *issuer != self.provider.issuer => {
                return Err(Failed::new("login_issuer", format!("it came back from {}", quoted(issuer))));
            }
            None if endpoints.names_itself => {
                return Err(Failed::new(
                    "login_issuer",
                    "it came back from nobody who names themselves (RFC 9207)",
                ));
            }
            _ => {}
        }
        if let Some(error) = &said.error {
            return Err(Failed::new("login_denied", format!("the issuer says {}", quoted(error))));
        }
        let code = said.code.ok_or_else(|| Failed::new("login_malformed", "no code came back"))?;
        let token = self.provider.exchange(&endpoints, &code, &login.verifier).await;
        let token = token.map_err(|why| Failed::new("login_code", why))?;
        let now = SystemTime::now();
        let verified = self.identity.verify_login(&self.issuer, &token, &login.nonce, now).await;
        let principal =
            verified.map_err(|rejected| Failed::new(rejected.cause().name(), rejected.detail()))?;
        if gateway.is_revoked(&principal) {
            let told = "Your access to this gateway was revoked.";
            return Err(Failed::new("revoked", &**principal.id()).told(StatusCode::FORBIDDEN, told));
        }
        Ok(principal)
    }

    /// An answer that is one sentence.
    fn note(&self, status: StatusCode, title: &str, told: &str) -> Response<Body> {
        let text = NOTE.replace("{title}", title).replace("{told}", told);
        let mut response = whole(status, "text/html; charset=utf-8", text);
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, self.note_policy.clone());
        response
    }

    fn failed(&self, server: &Server, source: SocketAddr, failed: &Failed) -> Response<Body> {
        server.gateway.refused_login(source, RESOURCE, failed.cause, &failed.detail);
        let mut response = self.note(failed.status, "Not signed in", failed.told);
        cookie::clear(response.headers_mut(), LOGIN_COOKIE);
        response
    }
}

/// What an issuer sends a browser back with (RFC 6749, section 4.1.2; RFC 9207).
#[derive(Default)]
struct Said {
    state: String,
    code: Option<String>,
    error: Option<String>,
    issuer: Option<String>,
}

impl Said {
    /// None where anything of it stands twice.
    fn read(query: &str) -> Option<Said> {
        let mut said = Said::default();
        let mut state = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "state" => &mut state,
                "code" => &mut said.code,
                "error" => &mut said.error,
                "iss" => &mut said.issuer,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        said.state = state.unwrap_or_default();
        Some(said)
    }
}

/// A header that may stand once.
fn one<'h>(head: &'h Parts, name: &HeaderName) -> Result<Option<&'h str>, &'static str> {
    let mut values = head.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| "a header of it is no text"),
        _ => Err("a header of it stands twice"),
    }
}

fn unreachable_issuer(why: String) -> Failed {
    let told = "Where you sign in cannot be reached just now. Please try again in a moment.";
    Failed::new("provider_unreachable", why).told(StatusCode::SERVICE_UNAVAILABLE, told)
}

fn of(visit: &Visit) -> Result<&Page, Problem> {
    visit.server.page.as_ref().ok_or_else(Problem::not_found)
}

/// The shell.
pub(super) async fn shell(visit: Visit) -> Answer {
    let page = of(&visit)?;
    let mut response = whole(StatusCode::OK, "text/html; charset=utf-8", SHELL);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, page.shell_policy.clone());
    Ok(response)
}

/// Its style.
pub(super) async fn style(_: Visit) -> Answer {
    Ok(whole(StatusCode::OK, "text/css; charset=utf-8", STYLE))
}

/// Its script.
pub(super) async fn script(_: Visit) -> Answer {
    Ok(whole(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT))
}

/// Sends a person to the issuer (OpenID Connect Core, section 3.1.2.1, with PKCE). What they ask for is nowhere in it: neither whom to ask
/// nor where to come back to is theirs to say.
pub(super) async fn begin(visit: Visit) -> Answer {
    let page = of(&visit)?;
    let endpoints = match page.provider.endpoints(Instant::now()).await {
        Ok(endpoints) => endpoints,
        Err(why) => return Ok(page.failed(&visit.server, visit.source, &unreachable_issuer(why))),
    };
    let (cookie, login) = page.logins.begin(visit.source.ip(), Instant::now());
    let target = page.provider.authorization(&endpoints, &login);
    let target = HeaderValue::try_from(target.as_str())
        .map_err(|_| Problem::new(StatusCode::BAD_GATEWAY, "the issuer's address cannot be sent"))?;
    let mut response = whole(StatusCode::SEE_OTHER, "text/plain", "");
    response.headers_mut().insert(LOCATION, target);
    // Lax: the issuer's site is what brings the person back.
    cookie::set(response.headers_mut(), LOGIN_COOKIE, &cookie, "Lax", LOGIN_WAIT_MAX);
    Ok(response)
}

/// Takes up who comes back from the issuer: verified, permitted, recorded, and only then signed in.
pub(super) async fn callback(visit: Visit) -> Answer {
    let page = of(&visit)?;
    let (server, source) = (&visit.server, visit.source);
    let principal = match page.verify(&server.gateway, &visit).await {
        Ok(principal) => principal,
        Err(failed) => return Ok(page.failed(server, source, &failed)),
    };
    let permitted = server.permit(&principal, AdminAction::Approve, "login", "GET /login/callback", source);
    if let Err(problem) = permitted.await {
        let told = match problem.status() {
            StatusCode::FORBIDDEN => {
                "You are not among those who answer requests for approval here. Ask the operators of this gateway for access."
            }
            _ => "The gateway cannot record anything just now, so nobody is signed in.",
        };
        let mut response = page.note(problem.status(), "Not signed in", told);
        cookie::clear(response.headers_mut(), LOGIN_COOKIE);
        return Ok(response);
    }
    if let Some(former) = cookie::find(&visit.head, SESSION_COOKIE) {
        page.sessions.end(former);
    }
    let Some((cookie, life)) = page.sessions.open(principal, Instant::now(), SystemTime::now()) else {
        return Ok(page.note(
            StatusCode::SERVICE_UNAVAILABLE,
            "Not signed in",
            "Too many people are signed in.",
        ));
    };
    let mut response = page.note(StatusCode::OK, "Signed in", "You are signed in.");
    response.headers_mut().insert(REFRESH, HeaderValue::from_static("0;url=/"));
    cookie::clear(response.headers_mut(), LOGIN_COOKIE);
    cookie::set(response.headers_mut(), SESSION_COOKIE, &cookie, "Strict", life);
    Ok(response)
}

/// Whose session it is, and the proof that the script repeats with each answer.
pub(super) async fn session(visit: Visit) -> Answer {
    let page = of(&visit)?;
    let session = page.guard(visit.gateway(), &visit.head, visit.source)?.ok_or_else(Problem::no_token)?;
    let now = SystemTime::now();
    answer(
        StatusCode::OK,
        &json!({
            "name": &**session.principal.name(),
            "principal": &**session.principal.id(),
            "proof": *session.proof,
            "now_s": crate::approval::seconds(now),
            "until_s": crate::approval::seconds(session.until),
        }),
    )
}

/// Ends a session: at once, and then on record.
pub(super) async fn logout(visit: Visit) -> Answer {
    let page = of(&visit)?;
    let session = page.guard(visit.gateway(), &visit.head, visit.source)?.ok_or_else(Problem::no_token)?;
    if let Some(cookie) = cookie::find(&visit.head, SESSION_COOKIE) {
        page.sessions.end(cookie);
    }
    // Whoever follows the list under this session is looked at again.
    visit.gateway().approvals.changed();
    visit.server.record(&session.principal, "logout", None, "POST /logout", visit.source).await?;
    let mut response = answer(StatusCode::OK, &json!({}))?;
    cookie::clear(response.headers_mut(), SESSION_COOKIE);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::Said;

    #[test]
    fn what_stands_twice_is_not_read() {
        let said = Said::read("code=a%20b&state=s&iss=https%3A%2F%2Fidp&x=1&x=2").expect("each once");
        assert_eq!(
            (said.code.as_deref(), &*said.state, said.issuer.as_deref()),
            (Some("a b"), "s", Some("https://idp"))
        );
        for query in ["code=a&code=a", "state=s&state=t", "iss=a&iss=b", "error=a&error=a"] {
            assert!(Said::read(query).is_none(), "{query}");
        }
    }
}

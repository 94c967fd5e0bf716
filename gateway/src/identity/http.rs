//! HTTP towards an issuer: its discovery document, its keys, its token endpoint.
//!
//! Every answer is bounded in time and in length, no redirect is followed, and nothing goes over clear text
//! except to this machine itself, under a setting that says `danger`, and to a witness, who is told what is public.

use std::fmt::Write as _;
use std::time::Duration;

use openidconnect::url::{Host, Url};
use openidconnect::{HttpRequest, HttpResponse, reqwest};
use thiserror::Error;

use super::json::{self, Object};
use super::rejected::quoted;

/// The longest that a connection to an issuer may take.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(3);
/// The longest that one request to an issuer may take, its answer's body included.
pub(super) const REQUEST_WAIT_MAX: Duration = Duration::from_secs(5);
/// The longest body that is read of an issuer.
const BODY_BYTES_MAX: usize = 512 * 1024;

/// A client for one issuer, with the certificates that this issuer is trusted by.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    clear_text: ClearText,
}

/// Where clear text may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClearText {
    Nowhere,
    Loopback,
    Anywhere,
}

/// A request did not bring an answer. Neither the request's body nor its headers are in it.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct HttpFailure(String);

impl Http {
    /// With `ca` given (PEM), only those authorities are trusted; without it, the system's.
    ///
    /// # Errors
    /// A lower-case fragment when there is no authority to trust.
    pub(crate) fn new(ca: Option<&[u8]>, danger_http: bool) -> Result<Self, String> {
        let clear_text = if danger_http { ClearText::Loopback } else { ClearText::Nowhere };
        Self::build(ca, clear_text)
    }

    /// For what is public, and signed by who answers: TLS adds nothing to it but that fewer look on.
    ///
    /// # Errors
    /// A lower-case fragment when the client cannot be made.
    pub(crate) fn public() -> Result<Self, String> {
        Self::build(None, ClearText::Anywhere)
    }

    fn build(ca: Option<&[u8]>, clear_text: ClearText) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("gatebook/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .https_only(clear_text == ClearText::Nowhere)
            .min_tls_version(reqwest::tls::Version::TLS_1_2)
            .connect_timeout(CONNECT_WAIT_MAX)
            .timeout(REQUEST_WAIT_MAX)
            .pool_max_idle_per_host(1);
        if clear_text == ClearText::Loopback {
            // It reaches this machine only, and must not leave it through a proxy.
            builder = builder.no_proxy();
        }
        let authorities = match ca {
            Some(pem) => reqwest::Certificate::from_pem_bundle(pem).map_err(|error| chain(&error))?,
            None if clear_text == ClearText::Loopback => Vec::new(),
            None => system_authorities(),
        };
        if authorities.is_empty() && clear_text == ClearText::Nowhere {
            return Err("there is no certificate authority to trust".to_owned());
        }
        builder = builder.tls_built_in_root_certs(false);
        for authority in authorities {
            builder = builder.add_root_certificate(authority);
        }
        let client = builder.build().map_err(|error| chain(&error))?;
        Ok(Self { client, clear_text })
    }

    /// Whether a URL may be asked at all.
    ///
    /// # Errors
    /// A lower-case fragment that says why not.
    pub(crate) fn permits(&self, url: &Url) -> Result<(), String> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL must not carry a user or a password".to_owned());
        }
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => return Err(format!("{} names no host", quoted(url.as_str()))),
        };
        match (url.scheme(), self.clear_text) {
            ("https", _) | ("http", ClearText::Anywhere) => Ok(()),
            ("http", ClearText::Loopback) if loopback => Ok(()),
            ("http", ClearText::Loopback) => Err("http goes to a loopback address only".to_owned()),
            (scheme, _) => Err(format!("https is needed, not {scheme}")),
        }
    }

    /// Sends one request; the form that the OAuth library calls.
    pub(crate) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpFailure> {
        let request = reqwest::Request::try_from(request).map_err(|error| HttpFailure(chain(&error)))?;
        self.permits(request.url()).map_err(HttpFailure)?;
        let mut response = self.client.execute(request).await.map_err(|error| HttpFailure(chain(&error)))?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| HttpFailure(chain(&error)))? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(HttpFailure(format!("the answer is longer than {BODY_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = HttpResponse::new(body);
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }

    /// Fetches a document that must be there.
    ///
    /// # Errors
    /// A lower-case fragment that names the URL.
    pub(crate) async fn document(&self, url: &Url) -> Result<Vec<u8>, String> {
        let failed = |error: String| format!("{url}: {error}");
        self.permits(url).map_err(failed)?;
        let mut request = HttpRequest::new(Vec::new());
        *request.uri_mut() = url.as_str().parse().map_err(|_| failed("is not a URI".to_owned()))?;
        let accept = openidconnect::http::HeaderValue::from_static("application/json");
        request.headers_mut().insert(openidconnect::http::header::ACCEPT, accept);
        let answer = self.send(request).await.map_err(|error| failed(error.to_string()))?;
        if answer.status() != openidconnect::http::StatusCode::OK {
            return Err(failed(format!("answered {}", answer.status())));
        }
        Ok(answer.into_body())
    }

    /// Fetches an issuer's discovery document (OpenID Connect Discovery 1.0 section 4) and checks that it is
    /// this issuer's own.
    ///
    /// # Errors
    /// A lower-case fragment that names the URL.
    pub(crate) async fn discover(&self, issuer: &str) -> Result<Discovery, String> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|error| format!("{}: {error}", quoted(&url)))?;
        let document =
            json::object(&self.document(&url).await?).map_err(|error| format!("{url}: {error}"))?;
        let named = json::optional_str(&document, "issuer").ok().flatten();
        if named != Some(issuer) {
            let named = named.map_or_else(|| "nobody".to_owned(), quoted);
            return Err(format!("{url}: speaks for {named}, not for {}", quoted(issuer)));
        }
        Ok(Discovery { url, document })
    }
}

/// What an issuer says about itself.
///
/// `openidconnect` has a type for this, but it refuses documents without an authorization endpoint, which
/// issuers of workload tokens do not have.
#[derive(Debug)]
pub(crate) struct Discovery {
    url: Url,
    document: Object,
}

impl Discovery {
    /// One of the document's URLs.
    ///
    /// # Errors
    /// A lower-case fragment when it is missing or is no URL.
    pub(crate) fn endpoint(&self, member: &str) -> Result<Url, String> {
        let failed = |error: String| format!("{}: {error}", self.url);
        let text = json::optional_str(&self.document, member).map_err(failed)?;
        let text = text.ok_or_else(|| failed(format!("has no {member}")))?;
        Url::parse(text).map_err(|error| failed(format!("{member} {}: {error}", quoted(text))))
    }

    /// Whether a member is there and true.
    pub(crate) fn is_true(&self, member: &str) -> bool {
        self.document.get(member).and_then(serde_json::Value::as_bool) == Some(true)
    }

    /// Whether a member that is an array of strings holds this one; none where the member is missing.
    pub(crate) fn lists(&self, member: &str, value: &str) -> Option<bool> {
        Some(self.document.get(member)?.as_array()?.iter().any(|element| element == value))
    }
}

/// Certificates of the system that cannot be read are passed over: trust only gets smaller.
fn system_authorities() -> Vec<reqwest::Certificate> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!("the system's certificate authorities: {error}");
    }
    found.certs.iter().filter_map(|der| reqwest::Certificate::from_der(der).ok()).collect()
}

/// An error and its causes in one line, without the URL: whoever reports it knows that better.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<reqwest::Error>() {
        Some(error) if error.is_timeout() => "no answer in time".to_owned(),
        _ => without_url(&error.to_string()),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// reqwest appends ` for url (…)`, which may carry what a redirect or a query brought along.
fn without_url(text: &str) -> String {
    text.split(" for url (").next().unwrap_or(text).to_owned()
}

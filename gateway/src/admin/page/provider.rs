//! The issuer at which approvers sign in, as an OAuth client asks it: by the code flow with PKCE, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openidconnect::HttpRequest;
use openidconnect::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use openidconnect::http::{Method, StatusCode};
use openidconnect::url::{Url, form_urlencoded};
use serde_json::Value;
use zeroize::Zeroizing;

use super::logins::Begun;
use crate::config::{IssuerConfig, LoginConfig, Secret};
use crate::identity::http::Http;
use crate::identity::{Credential, quoted};

/// How long what an issuer says about itself serves.
const DISCOVERY_AGE_MAX: Duration = Duration::from_secs(300);
/// How long it is left alone after it could not be asked.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The issuer.
pub(super) struct Provider {
    /// As it names itself.
    pub(super) issuer: String,
    http: Http,
    client_id: String,
    secret: Option<Secret>,
    scope: String,
    redirect: String,
    /// One asks at a time; the others share the outcome.
    found: tokio::sync::Mutex<Option<Found>>,
}

struct Found {
    at: Instant,
    outcome: Result<Arc<Endpoints>, String>,
}

/// What it says about itself.
pub(super) struct Endpoints {
    authorization: Url,
    token: Url,
    /// Whether whoever comes back from it brings its name (RFC 9207).
    pub(super) names_itself: bool,
    /// Whether a secret goes into the body, because it is not taken in the header.
    secret_in_body: bool,
}

impl Provider {
    /// An issuer that is not asked anything yet.
    ///
    /// # Errors
    /// A lower-case fragment where it can never be asked.
    pub(super) fn new(
        login: &LoginConfig,
        issuer: &IssuerConfig,
        redirect: String,
    ) -> Result<Provider, String> {
        Ok(Provider {
            issuer: issuer.url.clone(),
            http: Http::new(issuer.ca.as_deref(), issuer.danger_http)?,
            client_id: login.client_id.clone(),
            secret: login.client_secret.clone(),
            scope: login.scopes.join(" "),
            redirect,
            found: tokio::sync::Mutex::default(),
        })
    }

    /// What it says about itself, asked at most every few minutes.
    ///
    /// # Errors
    /// A lower-case fragment where it cannot be asked, or cannot do what is needed.
    pub(super) async fn endpoints(&self, now: Instant) -> Result<Arc<Endpoints>, String> {
        let mut found = self.found.lock().await;
        if let Some(Found { at, outcome }) = &*found {
            let age = now.saturating_duration_since(*at);
            if age < if outcome.is_ok() { DISCOVERY_AGE_MAX } else { RETRY_AFTER } {
                return outcome.clone();
            }
        }
        let outcome = self.discover().await.map(Arc::new);
        *found = Some(Found { at: now, outcome: outcome.clone() });
        outcome
    }

    async fn discover(&self) -> Result<Endpoints, String> {
        let said = self.http.discover(&self.issuer).await?;
        let (authorization, token) =
            (said.endpoint("authorization_endpoint")?, said.endpoint("token_endpoint")?);
        // A browser is sent to the first, with what must not be overheard either.
        self.http.permits(&authorization)?;
        self.http.permits(&token)?;
        if said.lists("code_challenge_methods_supported", "S256") == Some(false) {
            return Err("it does not take PKCE with S256 (RFC 7636)".to_owned());
        }
        let takes = |method| said.lists("token_endpoint_auth_methods_supported", method);
        Ok(Endpoints {
            authorization,
            token,
            names_itself: said.is_true("authorization_response_iss_parameter_supported"),
            secret_in_body: (takes("client_secret_basic"), takes("client_secret_post"))
                == (Some(false), Some(true)),
        })
    }

    /// Where a browser is sent to sign in.
    pub(super) fn authorization(&self, endpoints: &Endpoints, login: &Begun) -> Url {
        let mut url = endpoints.authorization.clone();
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.client_id),
            ("redirect_uri", &self.redirect),
            ("scope", &self.scope),
            ("state", &login.state),
            ("nonce", &login.nonce),
            ("code_challenge", &login.challenge),
            ("code_challenge_method", "S256"),
        ]);
        url
    }

    /// Exchanges a code for the ID token that it stands for.
    ///
    /// # Errors
    /// A lower-case fragment; neither the code nor the secret nor anything else of the answer is in it.
    pub(super) async fn exchange(
        &self,
        endpoints: &Endpoints,
        code: &str,
        verifier: &str,
    ) -> Result<Credential, String> {
        let secret = match &self.secret {
            None => None,
            Some(secret) => Some(
                secret.read().await.map_err(|error| format!("cannot read the client's secret: {error}"))?,
            ),
        };
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect),
            ("code_verifier", verifier),
        ];
        let (authorization, rest) = match &secret {
            Some(secret) if !endpoints.secret_in_body => (Some(self.basic(secret)?), vec![]),
            Some(secret) => (None, vec![("client_id", &*self.client_id), ("client_secret", secret)]),
            None => (None, vec![("client_id", &*self.client_id)]),
        };
        let form =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).extend_pairs(rest).finish();
        let mut request = HttpRequest::new(form.into_bytes());
        *request.method_mut() = Method::POST;
        *request.uri_mut() =
            endpoints.token.as_str().parse().map_err(|_| "its token endpoint is no URI".to_owned())?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        let answer = self.http.send(request).await.map_err(|error| error.to_string())?;
        let said: Value = serde_json::from_slice(answer.body())
            .map_err(|_| format!("its token endpoint answers {} and no JSON", answer.status()))?;
        if answer.status() != StatusCode::OK {
            let why = said["error"].as_str().map_or_else(|| answer.status().to_string(), quoted);
            return Err(format!("the issuer does not take the code: {why}"));
        }
        let token = said["id_token"].as_str().ok_or("the issuer gave no ID token")?;
        Ok(Credential::from(token))
    }

    /// RFC 6749, section 2.3.1: both are form-encoded first.
    fn basic(&self, secret: &str) -> Result<HeaderValue, String> {
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = Zeroizing::new(format!("{}:{}", encoded(&self.client_id), encoded(secret)));
        let value = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
        let mut value = HeaderValue::from_str(&value).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

//! Asking an issuer whether a token still holds (RFC 7662).
//!
//! What a newcomer gets wrong: only a plain `"active": false` says that a token is over. Everything else that is no answer (a
//! provider that is down, an endpoint that refuses the client) says nothing about the token; what follows from that is for the caller.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openidconnect::HttpRequest;
use openidconnect::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use openidconnect::http::{Method, StatusCode};
use openidconnect::url::{Url, form_urlencoded};
use serde_json::Value;
use zeroize::Zeroizing;

use super::http::Http;
use super::{Credential, json};

/// An issuer, as somebody to ask.
pub(crate) struct Introspector {
    http: Http,
    issuer: String,
    client_id: String,
}

/// Where it is asked, and how.
pub(crate) struct Endpoint {
    url: Url,
    /// Whether the client shows its secret in the body, since the issuer takes it no other way.
    secret_in_body: bool,
}

impl Introspector {
    /// Nothing is asked yet.
    pub(crate) fn new(http: Http, issuer: &str, client_id: &str) -> Introspector {
        Introspector { http, issuer: issuer.to_owned(), client_id: client_id.to_owned() }
    }

    /// Finds where the issuer is asked.
    ///
    /// # Errors
    /// A lower-case fragment.
    pub(crate) async fn find(&self) -> Result<Endpoint, String> {
        let discovery = self.http.discover(&self.issuer).await?;
        let lists = |method| discovery.lists("introspection_endpoint_auth_methods_supported", method);
        Ok(Endpoint {
            url: discovery.endpoint("introspection_endpoint")?,
            secret_in_body: lists("client_secret_basic") == Some(false)
                && lists("client_secret_post") == Some(true),
        })
    }

    /// Whether the issuer says that a token still holds.
    ///
    /// # Errors
    /// A lower-case fragment where it says nothing about that; never any part of the token or the secret.
    pub(crate) async fn is_active(
        &self,
        endpoint: &Endpoint,
        secret: &Zeroizing<String>,
        token: &Credential,
    ) -> Result<bool, String> {
        let failed = |error: &str| format!("{}: {error}", endpoint.url);
        let token = std::str::from_utf8(token.expose()).map_err(|_| failed("the token is no text"))?;
        let mut request = HttpRequest::new(self.form(endpoint, secret, token));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = endpoint.url.as_str().parse().map_err(|_| failed("is not a URI"))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        if !endpoint.secret_in_body {
            headers.insert(AUTHORIZATION, basic(&self.client_id, secret).map_err(failed)?);
        }
        let answer = self.http.send(request).await.map_err(|error| failed(&error.to_string()))?;
        if answer.status() != StatusCode::OK {
            return Err(failed(&format!("answered {}", answer.status())));
        }
        let answer = json::object(answer.body()).map_err(|error| failed(&error))?;
        answer
            .get("active")
            .and_then(Value::as_bool)
            .ok_or_else(|| failed("does not say whether it is active"))
    }

    fn form(&self, endpoint: &Endpoint, secret: &str, token: &str) -> Vec<u8> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", token);
        if endpoint.secret_in_body {
            form.append_pair("client_id", &self.client_id).append_pair("client_secret", secret);
        }
        form.finish().into_bytes()
    }
}

/// RFC 6749, section 2.3.1: both are form-encoded before they are joined.
fn basic(client_id: &str, secret: &str) -> Result<HeaderValue, &'static str> {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let joined = Zeroizing::new(format!("{}:{}", encode(client_id), encode(secret)));
    let value = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(joined.as_bytes())));
    let mut value = HeaderValue::from_str(&value).map_err(|_| "the client cannot be named in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

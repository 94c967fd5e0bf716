//! The gateway's own HTTPS server, as a command asks it: where it is, whom it is trusted by, and with which token.

use std::path::{Path, PathBuf};

use openidconnect::HttpRequest;
use openidconnect::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use openidconnect::http::{Method, StatusCode};
use openidconnect::url::{Url, form_urlencoded};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::config::Secret;
use crate::identity::http::Http;
use crate::identity::quoted;

/// The environment variable that holds the token where no option names a file.
pub(crate) const TOKEN_VARIABLE: &str = "GATEBOOK_TOKEN";
/// The longest certificate file.
const CA_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RemoteArgs {
    /// The gateway's HTTPS server, as admin.url names it
    #[arg(long, env = "GATEBOOK_URL", value_name = "URL")]
    pub(crate) url: String,
    /// Trust these certificate authorities (PEM) instead of the system's
    #[arg(long, env = "GATEBOOK_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The file that holds your token; nobody else may read it [default: the variable GATEBOOK_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// A server to ask.
pub(crate) struct Remote {
    http: Http,
    url: String,
}

impl Remote {
    /// A server; nothing is asked yet.
    ///
    /// # Errors
    /// A lower-case fragment that says what is wrong with an option.
    pub(crate) fn new(url: &str, ca: Option<&Path>) -> Result<Remote, String> {
        let authorities = ca.map(read).transpose()?;
        let named = |error: String| ca.map_or(error.clone(), |ca| format!("{}: {error}", ca.display()));
        let http = Http::new(authorities.as_deref(), false).map_err(named)?;
        Ok(Remote { http, url: url.trim_end_matches('/').to_owned() })
    }

    /// Posts a form; gives back the JSON that is answered.
    ///
    /// # Errors
    /// What went wrong, or what the server says is wrong, fit to be shown.
    pub(crate) async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Result<Value, String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        self.send(Method::POST, path, None, "application/x-www-form-urlencoded", form.finish()).await
    }

    /// Asks for a path in the name of whoever's token it is; gives back the JSON that is answered.
    ///
    /// # Errors
    /// As [`Remote::form`].
    pub(crate) async fn get(&self, path: &str, token: &str) -> Result<Value, String> {
        self.send(Method::GET, path, Some(token), "application/json", String::new()).await
    }

    /// Posts JSON in the name of whoever's token it is; gives back the JSON that is answered.
    ///
    /// # Errors
    /// As [`Remote::form`].
    pub(crate) async fn post(&self, path: &str, token: &str, body: &Value) -> Result<Value, String> {
        self.send(Method::POST, path, Some(token), "application/json", body.to_string()).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        kind: &'static str,
        body: String,
    ) -> Result<Value, String> {
        let mut request = HttpRequest::new(body.into_bytes());
        *request.method_mut() = method;
        let url = format!("{}{path}", self.url);
        Url::parse(&url).map_err(|error| error.to_string()).and_then(|url| self.http.permits(&url))?;
        *request.uri_mut() = url.parse().map_err(|_| "is no URL".to_owned())?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(token) = token {
            let bearer = Zeroizing::new(format!("Bearer {}", token.trim()));
            let mut bearer = HeaderValue::from_str(&bearer)
                .map_err(|_| "the token cannot be sent: it is no text of one line")?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let answer = self.http.send(request).await.map_err(|error| error.to_string())?;
        let json: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        if answer.status() == StatusCode::OK {
            return Ok(json);
        }
        let why = ["error_description", "detail", "error"].iter().find_map(|name| json[name].as_str());
        Err(why.map_or_else(|| format!("answered {}", answer.status()), quoted))
    }
}

/// A token from a file, or from the variable where none is named.
///
/// # Errors
/// A lower-case fragment; never any part of the token.
pub(crate) async fn token(file: Option<&Path>) -> Result<Zeroizing<String>, String> {
    let secret = match file {
        Some(file) => Secret::from_file(&std::path::absolute(file).map_err(|error| error.to_string())?),
        None => Secret::from_env(TOKEN_VARIABLE),
    };
    secret?.read().await.map_err(|error| error.to_string())
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut pem = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(opened, CA_BYTES_MAX + 1), &mut pem)
        .map_err(failed)?;
    if pem.len() as u64 > CA_BYTES_MAX {
        return Err(format!("{}: longer than {CA_BYTES_MAX} bytes", file.display()));
    }
    Ok(pem)
}

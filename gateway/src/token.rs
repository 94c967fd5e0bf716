//! `gatebook token`: gets a token from an issuer and prints it alone on standard output, for
//! `PGPASSWORD=$(gatebook token …)`.
//!
//! With a client's secret it asks in the client's own name (RFC 6749 section 4.4); without one it shows a URL
//! and a code on standard error and waits until a person approves (RFC 8628). It keeps no token, opens no
//! browser, and does not verify what it prints: that is for whoever the token is shown to.
//!
//! What a newcomer gets wrong: a secret never stands on the command line, where every process can read it.

use std::fmt;
use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AuthType, ClientId, ClientSecret, DeviceAuthorizationUrl, ErrorResponse, ExtraTokenFields, HttpRequest,
    RequestTokenError, Scope, StandardDeviceAuthorizationResponse, StandardRevocableToken,
    StandardTokenResponse, TokenResponse as _, TokenUrl,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::config::Secret;
use crate::identity::http::{Discovery, Http};
use crate::identity::quoted;

/// The environment variable that holds the client's secret where no option names another place.
const SECRET_VARIABLE: &str = "GATEBOOK_CLIENT_SECRET";
/// The longest that a command may take to print the client's secret: people may have to unlock something.
const SECRET_COMMAND_WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest secret.
const SECRET_BYTES_MAX: usize = 64 * 1024;
/// The longest certificate file.
const CA_BYTES_MAX: u64 = 1024 * 1024;
/// The longest that a person is waited for, whatever the issuer offers.
const APPROVAL_WAIT_MAX: Duration = Duration::from_secs(30 * 60);
/// The longest code that a person is asked to type.
const USER_CODE_BYTES_MAX: usize = 64;

/// Get a token from an OpenID Connect issuer and print it, for use as a password
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// The issuer's URL, as the gateway's configuration names it
    #[arg(long, env = "GATEBOOK_ISSUER", value_name = "URL")]
    pub issuer: String,
    /// The client that asks
    #[arg(long, env = "GATEBOOK_CLIENT_ID", value_name = "ID")]
    pub client_id: String,
    /// The environment variable that holds the client's secret [default: GATEBOOK_CLIENT_SECRET, where set]
    #[arg(long, value_name = "NAME", group = "secret")]
    pub client_secret_env: Option<String>,
    /// The file that holds the client's secret; nobody else may read it
    #[arg(long, value_name = "FILE", group = "secret")]
    pub client_secret_file: Option<PathBuf>,
    /// A shell command that prints the client's secret
    #[arg(long, value_name = "COMMAND", group = "secret")]
    pub client_secret_command: Option<String>,
    /// Let a person approve on another device, also where there is a client's secret
    #[arg(long)]
    pub device: bool,
    /// Whom the token is for, where the issuer must be told
    #[arg(long, env = "GATEBOOK_AUDIENCE", value_name = "AUDIENCE")]
    pub audience: Option<String>,
    /// A scope to ask for; may be repeated [default: openid for a person, none for a client]
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// Print the ID token [default for a person]
    #[arg(long, conflicts_with = "access_token")]
    pub id_token: bool,
    /// Print the access token [default for a client]
    #[arg(long)]
    pub access_token: bool,
    /// Trust these certificate authorities (PEM) instead of the system's
    #[arg(long, env = "GATEBOOK_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Ask the issuer in clear text, on a loopback address only
    #[arg(long)]
    pub danger_http: bool,
}

/// No token could be had.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The client's secret cannot be read.
    #[error("cannot read the client's secret: {0}")]
    Secret(String),
    /// The certificates cannot be read.
    #[error("cannot use {}: {reason}", file.display())]
    Ca {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The issuer cannot be asked, or answers what is no answer.
    #[error("cannot ask the issuer: {0}")]
    Issuer(String),
    /// The issuer said no.
    #[error("the issuer refused: {0}")]
    Refused(String),
    /// Nobody approved while the code was good.
    #[error("nobody approved in time; run it again for a new code")]
    NotApproved,
    /// It gave a token, but not of the kind that was asked for.
    #[error("the issuer gave no ID token; ask with --scope openid, or take --access-token")]
    NoIdToken,
    /// It gave something that cannot be a token.
    #[error("the issuer gave something that is no token")]
    NotAToken,
}

/// Prints a token on standard output, or what went wrong on standard error.
pub async fn run(args: TokenArgs) -> ExitCode {
    let token = fetch(&args, &mut std::io::stderr(), tokio::time::sleep).await;
    let printed = match token {
        Ok(token) => writeln!(std::io::stdout(), "{}", *token).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "gatebook token: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Gets a token. What a person has to do goes to `notice`; `pause` is how to wait between two questions.
///
/// # Errors
/// [`TokenError`], in which no secret and no token stands.
pub async fn fetch<P, F>(
    args: &TokenArgs,
    notice: &mut dyn Write,
    pause: P,
) -> Result<Zeroizing<String>, TokenError>
where
    P: Fn(Duration) -> F,
    F: Future<Output = ()>,
{
    let secret = client_secret(args).await?;
    let http = Http::new(authorities(args)?.as_deref(), args.danger_http).map_err(TokenError::Issuer)?;
    let issuer = Endpoints::discover(&http, args).await?;
    let client = client(args, &issuer, secret.as_ref());
    let person = args.device || secret.is_none();
    let answer = if person {
        ask_person(args, &http, &issuer, client, notice, pause).await?
    } else {
        ask_as_client(args, &http, &client).await?
    };
    choose(
        &answer,
        args.id_token || (person && !args.access_token && answer.extra_fields().id_token.is_some()),
    )
}

type Answer = StandardTokenResponse<WithIdToken, BasicTokenType>;
type OAuth<Device, Token> = oauth2::Client<
    BasicErrorResponse,
    Answer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    oauth2::EndpointNotSet,
    Device,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    Token,
>;
type Client = OAuth<oauth2::EndpointNotSet, oauth2::EndpointSet>;

/// The member that OpenID Connect adds to a token response.
#[derive(Deserialize, Serialize)]
struct WithIdToken {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
}

impl ExtraTokenFields for WithIdToken {}

impl fmt::Debug for WithIdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithIdToken").finish_non_exhaustive()
    }
}

struct Endpoints {
    token: TokenUrl,
    discovery: Discovery,
}

impl Endpoints {
    async fn discover(http: &Http, args: &TokenArgs) -> Result<Self, TokenError> {
        let discovery = http.discover(&args.issuer).await.map_err(TokenError::Issuer)?;
        let token = discovery.endpoint("token_endpoint").map_err(TokenError::Issuer)?;
        Ok(Self { token: TokenUrl::from_url(token), discovery })
    }

    /// How a client shows its secret: in the header unless the issuer takes it in the body only.
    fn auth_type(&self) -> AuthType {
        let lists = |method| self.discovery.lists("token_endpoint_auth_methods_supported", method);
        match (lists("client_secret_basic"), lists("client_secret_post")) {
            (Some(false), Some(true)) => AuthType::RequestBody,
            _ => AuthType::BasicAuth,
        }
    }
}

fn client(args: &TokenArgs, issuer: &Endpoints, secret: Option<&Zeroizing<String>>) -> Client {
    let client =
        OAuth::<oauth2::EndpointNotSet, oauth2::EndpointNotSet>::new(ClientId::new(args.client_id.clone()))
            .set_auth_type(issuer.auth_type())
            .set_token_uri(issuer.token.clone());
    match secret {
        Some(secret) => client.set_client_secret(ClientSecret::new(secret.to_string())),
        None => client,
    }
}

async fn ask_as_client(args: &TokenArgs, http: &Http, client: &Client) -> Result<Answer, TokenError> {
    let mut request = client.exchange_client_credentials();
    for (name, value) in target(args) {
        request = request.add_extra_param(name, value);
    }
    request = request.add_scopes(args.scopes.iter().cloned().map(Scope::new));
    let send = |request: HttpRequest| http.send(request);
    request.request_async(&send).await.map_err(|error| failure(&error))
}

async fn ask_person<P, F>(
    args: &TokenArgs,
    http: &Http,
    issuer: &Endpoints,
    client: Client,
    notice: &mut dyn Write,
    pause: P,
) -> Result<Answer, TokenError>
where
    P: Fn(Duration) -> F,
    F: Future<Output = ()>,
{
    let url = issuer.discovery.endpoint("device_authorization_endpoint").map_err(|error| {
        TokenError::Issuer(format!("{error}; without it, a client's secret is needed (--client-secret-file)"))
    })?;
    let client = client.set_device_authorization_url(DeviceAuthorizationUrl::from_url(url));
    let send = |request: HttpRequest| http.send(request);
    let mut request = client.exchange_device_code();
    for (name, value) in target(args) {
        request = request.add_extra_param(name, value);
    }
    let scopes = if args.scopes.is_empty() { vec!["openid".to_owned()] } else { args.scopes.clone() };
    request = request.add_scopes(scopes.into_iter().map(Scope::new));
    let device: StandardDeviceAuthorizationResponse =
        request.request_async(&send).await.map_err(|error| failure(&error))?;
    tell(&device, notice)?;
    let wait = device.expires_in().min(APPROVAL_WAIT_MAX);
    let mut request = client.exchange_device_access_token(&device);
    for (name, value) in target(args) {
        request = request.add_extra_param(name, value);
    }
    match timeout(wait, request.request_async(&send, pause, Some(wait))).await {
        Ok(answer) => answer.map_err(|error| failure(&error)),
        Err(_) => Err(TokenError::NotApproved),
    }
}

/// The issuer's text goes to a person's terminal, so it must be plain.
fn tell(device: &StandardDeviceAuthorizationResponse, notice: &mut dyn Write) -> Result<(), TokenError> {
    let url = device.verification_uri().url();
    let code = device.user_code().secret();
    let plain =
        code.len() <= USER_CODE_BYTES_MAX && code.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if !plain || code.is_empty() || !matches!(url.scheme(), "https" | "http") {
        return Err(TokenError::Issuer("it shows a code or a URL that a person cannot use".to_owned()));
    }
    let minutes = device.expires_in().min(APPROVAL_WAIT_MAX).as_secs().div_ceil(60);
    let _ = writeln!(notice, "open {url} and enter {code}");
    let complete = device.verification_uri_complete().and_then(|complete| complete.secret().parse().ok());
    if let Some(complete) = complete.filter(|url: &oauth2::url::Url| matches!(url.scheme(), "https" | "http"))
    {
        let _ = writeln!(notice, "or open {complete}");
    }
    let _ = writeln!(notice, "waiting up to {minutes} min; Ctrl-C gives up");
    Ok(())
}

/// Issuers are told whom a token is for in two ways; both ignore what they do not know (RFC 6749 section 3.2).
/// A resource must be an absolute URI (RFC 8707), or it is refused.
fn target(args: &TokenArgs) -> Vec<(&'static str, String)> {
    let Some(audience) = &args.audience else { return Vec::new() };
    let mut parameters = vec![("audience", audience.clone())];
    if oauth2::url::Url::parse(audience).is_ok() {
        parameters.push(("resource", audience.clone()));
    }
    parameters
}

fn choose(answer: &Answer, id_token: bool) -> Result<Zeroizing<String>, TokenError> {
    let token = if id_token {
        answer.extra_fields().id_token.as_ref().ok_or(TokenError::NoIdToken)?
    } else {
        answer.access_token().secret()
    };
    let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(Zeroizing::new(token.clone())) } else { Err(TokenError::NotAToken) }
}

/// The library's error may hold the whole answer, tokens included; only what says why is taken from it.
fn failure<RE, TE>(error: &RequestTokenError<RE, TE>) -> TokenError
where
    RE: std::error::Error + 'static,
    TE: ErrorResponse + fmt::Display + 'static,
{
    match error {
        RequestTokenError::ServerResponse(said) => match said.to_string() {
            said if said.starts_with("expired_token") => TokenError::NotApproved,
            said => TokenError::Refused(quoted(&said)),
        },
        RequestTokenError::Request(error) => TokenError::Issuer(error.to_string()),
        RequestTokenError::Parse(error, _) => {
            TokenError::Issuer(format!("its answer has another form than expected, at {}", error.path()))
        }
        RequestTokenError::Other(text) => TokenError::Issuer(quoted(text)),
    }
}

fn authorities(args: &TokenArgs) -> Result<Option<Vec<u8>>, TokenError> {
    let Some(file) = &args.ca else { return Ok(None) };
    let failed = |reason: String| TokenError::Ca { file: file.clone(), reason };
    let mut pem = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| failed(error.to_string()))?;
    std::io::Read::read_to_end(&mut std::io::Read::take(opened, CA_BYTES_MAX + 1), &mut pem)
        .map_err(|error| failed(error.to_string()))?;
    if pem.len() as u64 > CA_BYTES_MAX {
        return Err(failed(format!("longer than {CA_BYTES_MAX} bytes")));
    }
    // Here, where the file's name is known, and not where the client is made.
    Http::new(Some(&pem), false).map_err(failed)?;
    Ok(Some(pem))
}

/// The client's secret, from the one place that is named, or from the usual variable where it is set.
async fn client_secret(args: &TokenArgs) -> Result<Option<Zeroizing<String>>, TokenError> {
    let secret = match (&args.client_secret_env, &args.client_secret_file, &args.client_secret_command) {
        (Some(name), _, _) => Secret::from_env(name),
        (_, Some(file), _) => {
            let file = std::path::absolute(file).map_err(|error| TokenError::Secret(error.to_string()))?;
            Secret::from_file(&file)
        }
        (_, _, Some(command)) => return secret_of_command(command).await.map(Some),
        (None, None, None) if std::env::var_os(SECRET_VARIABLE).is_some() => {
            Secret::from_env(SECRET_VARIABLE)
        }
        (None, None, None) => return Ok(None),
    };
    let read = secret.map_err(TokenError::Secret)?.read().await;
    read.map(Some).map_err(|error| TokenError::Secret(error.to_string()))
}

async fn secret_of_command(command: &str) -> Result<Zeroizing<String>, TokenError> {
    let failed = |reason: &str| TokenError::Secret(format!("the command {reason}"));
    let run = async {
        let mut child = tokio::process::Command::new("/bin/sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&format!("cannot be run: {error}")))?;
        let output = child.stdout.take().ok_or_else(|| failed("has no output"))?;
        let mut secret = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 1));
        let read = output.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut secret).await;
        read.map_err(|error| failed(&format!("cannot be read: {error}")))?;
        if secret.len() > SECRET_BYTES_MAX {
            return Err(failed("prints too much"));
        }
        let status = child.wait().await.map_err(|error| failed(&format!("is lost: {error}")))?;
        if !status.success() {
            return Err(failed(&format!("ended with {status}")));
        }
        let text = std::str::from_utf8(&secret).map_err(|_| failed("prints something that is not text"))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(failed("prints nothing"));
        }
        Ok(Zeroizing::new(text.to_owned()))
    };
    timeout(SECRET_COMMAND_WAIT_MAX, run).await.unwrap_or_else(|_| Err(failed("does not end")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Mutex;
    use std::time::{Duration, SystemTime};

    use clap::Parser as _;
    use serde_json::{Map, json};
    use zeroize::Zeroizing;

    use super::{TokenArgs, TokenError, fetch};
    use crate::identity::{Credential, Identity, IssuerConfig, PrincipalKind};
    use crate::issuer::{Client, Issuer, IssuerOptions, TokenClaims};

    const SECRET: &str = "s3cret/with+odd:letters%";

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: TokenArgs,
    }

    async fn issuer() -> Issuer {
        let client = Client {
            id: "ci:deploy".to_owned(),
            secret: Zeroizing::new(SECRET.to_owned()),
            audience: "urn:gatebook".to_owned(),
            groups: vec!["ci/shop/deploy".to_owned()],
            claims: Map::new(),
        };
        let options = IssuerOptions {
            listen: "127.0.0.1:0".parse().expect("an address"),
            host: "127.0.0.1".to_owned(),
            tls: None,
            clients: vec![client],
        };
        Issuer::start(options).await.expect("an issuer")
    }

    fn identity(issuer: &Issuer) -> Identity {
        let mut config = IssuerConfig::new("demo", issuer.url(), "gatebook");
        config.access_token_audience = Some("urn:gatebook".to_owned());
        config.groups_claim = Some("groups".to_owned());
        config.principal = PrincipalKind::Service;
        config.danger_http = true;
        Identity::new(&[config]).expect("a configuration")
    }

    fn args(issuer: &Issuer, client: &str, more: &[&str]) -> TokenArgs {
        let line = ["token", "--issuer", issuer.url(), "--client-id", client, "--danger-http"];
        Line::try_parse_from(line.iter().chain(more)).expect("arguments").args
    }

    async fn no_pause(_: Duration) {
        panic!("there is nothing to wait for");
    }

    async fn speaks_for(identity: &Identity, token: &str) -> String {
        let verified = identity.verify(&Credential::from(token), SystemTime::now()).await;
        verified.expect("a principal").id().to_string()
    }

    #[tokio::test]
    async fn a_client_gets_a_token_with_its_secret_from_any_place() {
        let issuer = issuer().await;
        let identity = identity(&issuer);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("secret");
        std::fs::write(&file, format!("{SECRET}\n")).expect("a file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        let file = file.to_str().expect("text");
        let command = format!("cat '{file}'");
        for place in [["--client-secret-file", file], ["--client-secret-command", &command]] {
            let mut notice = Vec::new();
            let args = args(&issuer, "ci:deploy", &[place[0], place[1], "--audience", "urn:gatebook"]);
            let token = fetch(&args, &mut notice, no_pause).await.expect("a token");
            assert_eq!(speaks_for(&identity, &token).await, "demo:ci:deploy");
            assert!(notice.is_empty(), "nothing to do for a person");
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_is_said_without_the_secret() {
        let issuer = issuer().await;
        let refused = |line: &[&str]| {
            let args = args(&issuer, "ci:deploy", line);
            async move { fetch(&args, &mut Vec::new(), no_pause).await.expect_err("no token") }
        };
        for (line, expected) in [
            (vec!["--client-secret-command", "echo wrong-secret"], "the issuer refused: \"invalid_client\""),
            (vec!["--client-secret-command", "exit 3"], "ended with exit status: 3"),
            (vec!["--client-secret-command", "true"], "prints nothing"),
            (vec!["--client-secret-command", "head -c 100000 /dev/zero"], "prints too much"),
            (vec!["--client-secret-env", "GATEBOOK_TEST_NOT_SET"], "GATEBOOK_TEST_NOT_SET is not set"),
            (vec!["--client-secret-file", "/nowhere"], "/nowhere"),
            (vec!["--client-secret-file", "/etc/passwd"], "0600"),
            (vec!["--ca", "/etc/passwd"], "cannot use /etc/passwd"),
        ] {
            let error = refused(&line).await.to_string();
            assert!(error.contains(expected), "{line:?}: {error}");
            assert!(!error.contains("wrong-secret") && !error.contains("root:"), "{error}");
        }
        let echo = format!("echo '{SECRET}'");
        let right = ["--client-secret-command", echo.as_str()];
        let other = refused(&[&right[..], &["--audience", "urn:other"]].concat()).await;
        assert!(matches!(other, TokenError::Refused(ref said) if said.contains("invalid_target")), "{other}");
        let id = refused(&[&right[..], &["--id-token"]].concat()).await;
        assert!(matches!(id, TokenError::NoIdToken), "{id}");
        let elsewhere =
            TokenArgs { issuer: format!("{}/", issuer.url()), ..args(&issuer, "x", &["--device"]) };
        let error = fetch(&elsewhere, &mut Vec::new(), no_pause).await.expect_err("another issuer");
        assert!(error.to_string().contains("speaks for"), "{error}");
    }

    #[tokio::test]
    async fn a_person_approves_on_another_device() {
        let issuer = issuer().await;
        let identity = identity(&issuer);
        let args = args(&issuer, "cli", &["--device"]);
        let pauses = Mutex::new(Vec::new());
        let shown = std::sync::Arc::new(Mutex::new(Vec::new()));
        struct Shown(std::sync::Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Shown {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().expect("a lock").write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let approve = |pause: Duration| {
            pauses.lock().expect("a lock").push(pause);
            if pauses.lock().expect("a lock").len() == 2 {
                let shown = String::from_utf8(shown.lock().expect("a lock").clone()).expect("text");
                let code = shown.lines().next().and_then(|line| line.rsplit(' ').next()).expect("a code");
                let mut claims = TokenClaims::new("lee", "gatebook");
                claims.claims.insert("preferred_username".to_owned(), json!("Lee"));
                assert!(issuer.approve_device(code, claims), "{shown}");
            }
            std::future::ready(())
        };
        let token = fetch(&args, &mut Shown(std::sync::Arc::clone(&shown)), approve).await.expect("a token");
        assert_eq!(speaks_for(&identity, &token).await, "demo:lee");
        assert_eq!(*pauses.lock().expect("a lock"), [Duration::from_secs(1); 2]);
    }
}

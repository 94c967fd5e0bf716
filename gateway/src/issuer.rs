//! A small OpenID Connect issuer inside the process, **for the demonstration and for tests only**.
//!
//! What it serves is real: discovery, published keys, client credentials and the device flow, tokens signed
//! with Ed25519, rotation of the key. But it knows its subjects only because the program that started it says
//! who they are: whoever holds an [`Issuer`] makes a token for anybody. So it listens on a loopback address
//! only, keeps its keys in memory, and says what it is in its discovery document and on standard error's log.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use openidconnect::core::{CoreEdDsaPrivateSigningKey, CoreJwsSigningAlgorithm};
use openidconnect::url::form_urlencoded;
use openidconnect::{JsonWebKeyId, PrivateSigningKey as _};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The most connections at once; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 64;
/// The longest that one connection may last.
const CONNECTION_WAIT_MAX: Duration = Duration::from_secs(30);
/// The longest request body.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// The most devices that wait for approval at once.
const DEVICES_MAX: usize = 256;
/// For how long a device code can be approved.
const DEVICE_TTL: Duration = Duration::from_secs(600);
/// How often a device may ask.
const DEVICE_POLL_SECONDS: u64 = 1;
/// How long its issuer says that tokens of its token endpoint last.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// How to start an issuer.
pub struct IssuerOptions {
    /// Where to listen: a loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The host in its URL. Over TLS its certificate must be valid for it.
    pub host: String,
    /// Its certificate and key; without them it speaks clear text.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Clients that may ask for tokens with an id and a secret.
    pub clients: Vec<Client>,
}

/// A client that has a secret, and the subject that its tokens speak for.
pub struct Client {
    /// Its id, which is also the subject of its tokens.
    pub id: String,
    /// Its secret.
    pub secret: Zeroizing<String>,
    /// The audience of its tokens.
    pub audience: String,
    /// The groups of its subject.
    pub groups: Vec<String>,
    /// Further claims.
    pub claims: Map<String, Value>,
}

/// What a token says.
#[derive(Debug, Clone)]
pub struct TokenClaims {
    /// The subject.
    pub subject: String,
    /// The audience.
    pub audience: String,
    /// The groups, in the claim `groups`; none leaves the claim out.
    pub groups: Vec<String>,
    /// How long it lasts from now on.
    pub ttl: Duration,
    /// Further claims, which take the place of those that would otherwise be there.
    pub claims: Map<String, Value>,
    /// What kind of token it is.
    pub kind: TokenKind,
}

/// The two kinds of token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKind {
    /// An ID token (`typ: JWT`).
    Id,
    /// An access token (`typ: at+jwt`, RFC 9068) that was given to this client.
    Access {
        /// The client.
        client: String,
    },
}

impl TokenClaims {
    /// An ID token of one hour without groups.
    #[must_use]
    pub fn new(subject: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            audience: audience.into(),
            groups: Vec::new(),
            ttl: TOKEN_TTL,
            claims: Map::new(),
            kind: TokenKind::Id,
        }
    }
}

/// A running issuer. It stops when dropped.
pub struct Issuer {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

struct Shared {
    url: String,
    clients: Vec<Client>,
    keys: Mutex<SigningKeys>,
    devices: Mutex<BTreeMap<String, Device>>,
    key_requests: AtomicU64,
}

/// The first key signs; all are published.
struct SigningKeys {
    keys: Vec<SigningKey>,
}

struct SigningKey {
    id: String,
    key: CoreEdDsaPrivateSigningKey,
}

struct Device {
    user_code: String,
    client: String,
    asked: SystemTime,
    approved: Option<TokenClaims>,
}

impl Issuer {
    /// Starts to listen, with a new key.
    ///
    /// # Errors
    /// When the address is no loopback address, cannot be listened on, or no randomness is to be had.
    pub async fn start(options: IssuerOptions) -> io::Result<Self> {
        if !options.listen.ip().is_loopback() {
            let text =
                format!("the demonstration issuer listens on loopback only, not on {}", options.listen);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            url: format!("{scheme}://{}:{}", options.host, address.port()),
            clients: options.clients,
            keys: Mutex::new(SigningKeys { keys: vec![SigningKey::generate()?] }),
            devices: Mutex::default(),
            key_requests: AtomicU64::new(0),
        });
        tracing::warn!(url = %shared.url, "an issuer for demonstration only is running: it vouches for nobody");
        let tls = options.tls.map(tokio_rustls::TlsAcceptor::from);
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&shared)));
        Ok(Self { shared, address, task })
    }

    /// Its issuer identifier.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Signs a token that says this.
    ///
    /// # Errors
    /// When no randomness is to be had.
    pub fn issue(&self, claims: &TokenClaims) -> io::Result<Zeroizing<String>> {
        self.shared.issue(claims)
    }

    /// Signs with a new key from now on. The former keys stay published, or are withdrawn with all of their tokens.
    ///
    /// # Errors
    /// When no randomness is to be had.
    pub fn rotate(&self, withdraw_former: bool) -> io::Result<()> {
        let fresh = SigningKey::generate()?;
        let mut keys = self.shared.keys.lock();
        if withdraw_former {
            keys.keys.clear();
        }
        keys.keys.insert(0, fresh);
        Ok(())
    }

    /// Approves the device that shows this code; false where none does.
    pub fn approve_device(&self, user_code: &str, claims: TokenClaims) -> bool {
        let mut devices = self.shared.devices.lock();
        let device = devices.values_mut().find(|device| device.user_code == user_code);
        device.map(|device| device.approved = Some(claims)).is_some()
    }

    /// How often its keys were asked for.
    #[must_use]
    pub fn key_requests(&self) -> u64 {
        self.shared.key_requests.load(Ordering::Relaxed)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<tokio_rustls::TlsAcceptor>, shared: Arc<Shared>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: give connections time to end instead of spinning.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let _permit = permit;
            let _ = timeout(CONNECTION_WAIT_MAX, connection(stream, tls, shared)).await;
        });
    }
}

async fn connection(stream: TcpStream, tls: Option<tokio_rustls::TlsAcceptor>, shared: Arc<Shared>) {
    match tls {
        None => serve(stream, shared).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, shared).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_WAIT_MAX)
        .max_buf_size(BODY_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("demonstration issuer: {error}");
    }
}

/// A refusal of the token endpoint (RFC 6749 section 5.2, RFC 8628 section 3.5).
struct Refusal(StatusCode, &'static str);

const INVALID_CLIENT: Refusal = Refusal(StatusCode::UNAUTHORIZED, "invalid_client");

impl Refusal {
    fn bad(error: &'static str) -> Self {
        Self(StatusCode::BAD_REQUEST, error)
    }
}

type Form = BTreeMap<String, Zeroizing<String>>;

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        match (&method, path.as_str()) {
            (&Method::GET, "/.well-known/openid-configuration") => respond(StatusCode::OK, &self.discovery()),
            (&Method::GET, "/jwks") => {
                self.key_requests.fetch_add(1, Ordering::Relaxed);
                respond(StatusCode::OK, &self.keys.lock().published())
            }
            (&Method::POST, "/token" | "/device_authorization") => {
                let answer = match posted(request).await {
                    Ok((form, basic)) if path == "/token" => self.token(&form, basic.as_ref()),
                    Ok((form, _)) => self.device_authorization(&form),
                    Err(refusal) => Err(refusal),
                };
                match answer {
                    Ok(answer) => respond(StatusCode::OK, &answer),
                    Err(Refusal(status, error)) => respond(status, &json!({ "error": error })),
                }
            }
            _ => respond(StatusCode::NOT_FOUND, &json!({ "error": "not_found" })),
        }
    }

    fn discovery(&self) -> Value {
        let url = &self.url;
        json!({
            "issuer": url,
            "jwks_uri": format!("{url}/jwks"),
            "token_endpoint": format!("{url}/token"),
            "device_authorization_endpoint": format!("{url}/device_authorization"),
            "grant_types_supported": ["client_credentials", DEVICE_GRANT],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
            "service_documentation": "an issuer inside gatebook, for demonstration only: it vouches for nobody",
        })
    }

    fn token(&self, form: &Form, basic: Option<&(String, Zeroizing<String>)>) -> Result<Value, Refusal> {
        match form.get("grant_type").map(|grant| grant.as_str()) {
            Some("client_credentials") => self.client_credentials(form, basic),
            Some(DEVICE_GRANT) => self.device_token(form),
            _ => Err(Refusal::bad("unsupported_grant_type")),
        }
    }

    fn client_credentials(
        &self,
        form: &Form,
        basic: Option<&(String, Zeroizing<String>)>,
    ) -> Result<Value, Refusal> {
        let posted = || Some((form.get("client_id")?.to_string(), form.get("client_secret")?.clone()));
        let (id, secret) = basic.cloned().or_else(posted).ok_or(INVALID_CLIENT)?;
        let client = self.clients.iter().find(|client| client.id == id).ok_or(INVALID_CLIENT)?;
        if !bool::from(client.secret.as_bytes().ct_eq(secret.as_bytes())) {
            return Err(INVALID_CLIENT);
        }
        let asked = form.get("audience").or_else(|| form.get("resource"));
        if asked.is_some_and(|audience| **audience != client.audience) {
            return Err(Refusal::bad("invalid_target"));
        }
        let claims = TokenClaims {
            subject: client.id.clone(),
            audience: client.audience.clone(),
            groups: client.groups.clone(),
            ttl: TOKEN_TTL,
            claims: client.claims.clone(),
            kind: TokenKind::Access { client: client.id.clone() },
        };
        self.granted(&claims)
    }

    fn device_authorization(&self, form: &Form) -> Result<Value, Refusal> {
        let client = form.get("client_id").ok_or(INVALID_CLIENT)?.to_string();
        let no_randomness = |_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "server_error");
        let device_code = random().map_err(no_randomness)?;
        // No vowels and no digits: no words, and nothing to mix up (RFC 8628 section 6.1).
        const LETTERS: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ";
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes)
            .map_err(|_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "server_error"))?;
        let letters: Vec<u8> = bytes.iter().map(|byte| LETTERS[usize::from(*byte) % LETTERS.len()]).collect();
        let letters = String::from_utf8_lossy(&letters);
        let user_code = format!("{}-{}", &letters[..4], &letters[4..]);
        let mut devices = self.devices.lock();
        devices.retain(|_, device| device.asked.elapsed().is_ok_and(|age| age < DEVICE_TTL));
        if devices.len() >= DEVICES_MAX {
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"));
        }
        let device =
            Device { user_code: user_code.clone(), client, asked: SystemTime::now(), approved: None };
        devices.insert(device_code.clone(), device);
        Ok(json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": format!("{}/device", self.url),
            "expires_in": DEVICE_TTL.as_secs(),
            "interval": DEVICE_POLL_SECONDS,
        }))
    }

    fn device_token(&self, form: &Form) -> Result<Value, Refusal> {
        let code = form.get("device_code").ok_or(Refusal::bad("invalid_request"))?;
        let claims = {
            let mut devices = self.devices.lock();
            devices.retain(|_, device| device.asked.elapsed().is_ok_and(|age| age < DEVICE_TTL));
            let device = devices.get(code.as_str()).ok_or(Refusal::bad("expired_token"))?;
            if form.get("client_id").is_none_or(|client| **client != device.client) {
                return Err(Refusal::bad("invalid_grant"));
            }
            let Some(claims) = device.approved.clone() else {
                return Err(Refusal::bad("authorization_pending"));
            };
            // A code is good for one token.
            devices.remove(code.as_str());
            claims
        };
        self.granted(&claims)
    }

    /// What the token endpoint answers: the token of the kind that was asked for, and beside an ID token an
    /// access token, which OAuth demands.
    fn granted(&self, claims: &TokenClaims) -> Result<Value, Refusal> {
        let issue = |claims: &TokenClaims| {
            let token = self.issue(claims);
            token.map_err(|_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "server_error"))
        };
        let access = match &claims.kind {
            TokenKind::Access { .. } => issue(claims)?,
            TokenKind::Id => {
                let kind = TokenKind::Access { client: claims.subject.clone() };
                issue(&TokenClaims { kind, ..claims.clone() })?
            }
        };
        let mut answer = json!({
            "access_token": access.as_str(), "token_type": "Bearer", "expires_in": claims.ttl.as_secs(),
        });
        if claims.kind == TokenKind::Id {
            answer["id_token"] = Value::String(issue(claims)?.to_string());
        }
        Ok(answer)
    }

    fn issue(&self, claims: &TokenClaims) -> io::Result<Zeroizing<String>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut payload = json!({
            "iss": self.url,
            "sub": claims.subject,
            "aud": claims.audience,
            "iat": now,
            "exp": now.saturating_add(claims.ttl.as_secs()),
            "jti": random()?,
        });
        if !claims.groups.is_empty() {
            payload["groups"] = json!(claims.groups);
        }
        let typ = match &claims.kind {
            TokenKind::Id => "JWT",
            TokenKind::Access { client } => {
                payload["client_id"] = json!(client);
                "at+jwt"
            }
        };
        for (name, value) in &claims.claims {
            payload[name] = value.clone();
        }
        self.keys.lock().sign(typ, &payload)
    }
}

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

impl SigningKeys {
    fn published(&self) -> Value {
        let keys: Vec<Value> = self.keys.iter().map(SigningKey::published).collect();
        json!({ "keys": keys })
    }

    fn sign(&self, typ: &str, payload: &Value) -> io::Result<Zeroizing<String>> {
        let key = self.keys.first().ok_or_else(|| io::Error::other("there is no key to sign with"))?;
        let header = json!({ "alg": "EdDSA", "typ": typ, "kid": key.id });
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = Zeroizing::new(format!("{}.{}", encode(&header), encode(payload)));
        let signature = key.key.sign(&CoreJwsSigningAlgorithm::EdDsa, token.as_bytes());
        let signature = signature.map_err(|error| io::Error::other(error.to_string()))?;
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

impl SigningKey {
    fn generate() -> io::Result<Self> {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(io::Error::other)?;
        let pem = Zeroizing::new(pair.serialize_pem());
        let id = random()?;
        let kid = Some(JsonWebKeyId::new(id.clone()));
        let key = CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, kid).map_err(io::Error::other)?;
        Ok(Self { id, key })
    }

    fn published(&self) -> Value {
        let mut key = serde_json::to_value(self.key.as_verification_key()).unwrap_or_default();
        key["alg"] = json!("EdDSA");
        key
    }
}

/// The form of a request, and the client's id and secret from its header where it has one.
async fn posted(request: Request<Incoming>) -> Result<(Form, Option<(String, Zeroizing<String>)>), Refusal> {
    let basic = match request.headers().get(AUTHORIZATION) {
        None => None,
        Some(value) => Some(value.to_str().ok().and_then(basic_credentials).ok_or(INVALID_CLIENT)?),
    };
    let invalid = || Refusal::bad("invalid_request");
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await.map_err(|_| invalid())?;
    let mut form = Form::new();
    for (name, value) in form_urlencoded::parse(&body.to_bytes()) {
        if form.insert(name.into_owned(), Zeroizing::new(value.into_owned())).is_some() {
            return Err(invalid());
        }
    }
    Ok((form, basic))
}

/// Both halves are form-encoded inside the header (RFC 6749 section 2.3.1).
fn basic_credentials(header: &str) -> Option<(String, Zeroizing<String>)> {
    let decoded = Zeroizing::new(BASE64_STANDARD.decode(header.strip_prefix("Basic ")?).ok()?);
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    let decode = |text: &str| {
        let pair = format!("x={text}");
        form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
    };
    Some((decode(id)?, Zeroizing::new(decode(secret)?)))
}

fn respond(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

fn random() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use serde_json::{Map, Value, json};

    use super::{DEVICE_GRANT, Issuer, IssuerOptions, TokenClaims, TokenKind};
    use crate::identity::{Cause, Credential, Identity, IssuerConfig};

    fn options(listen: &str) -> IssuerOptions {
        IssuerOptions {
            listen: listen.parse().expect("an address"),
            host: "localhost".to_owned(),
            tls: None,
            clients: Vec::new(),
        }
    }

    fn config(issuer: &Issuer) -> IssuerConfig {
        let mut config = IssuerConfig::new("demo", issuer.url(), "gatebook");
        config.groups_claim = Some("groups".to_owned());
        config.danger_http = true;
        config
    }

    #[tokio::test]
    async fn keys_rotate() {
        let issuer = Issuer::start(options("127.0.0.1:0")).await.expect("an issuer");
        let identity = Identity::new(&[config(&issuer)]).expect("a configuration");
        let issue = || issuer.issue(&TokenClaims::new("lee", "gatebook")).expect("a token");
        let now = SystemTime::now();
        let verify = async |token: &str, seconds: u64| {
            identity.verify(&Credential::from(token), now + Duration::from_secs(seconds)).await.is_ok()
        };
        let before = issue();
        assert!(verify(&before, 0).await);
        issuer.rotate(false).expect("a key");
        let after = issue();
        assert!(verify(&after, 20).await && verify(&before, 20).await);
        assert_eq!(issuer.key_requests(), 2);
        issuer.rotate(true).expect("a key");
        assert!(verify(&issue(), 40).await);
        assert!(!verify(&before, 40).await && !verify(&after, 40).await, "withdrawn with their key");
    }

    #[tokio::test]
    async fn over_tls_it_is_trusted_by_its_own_authority_only() {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&pair).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(pair.serialize_der()).expect("a key");
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a configuration");
        let options = IssuerOptions { tls: Some(Arc::new(tls)), ..options("127.0.0.1:0") };
        let issuer = Issuer::start(options).await.expect("an issuer");
        assert!(issuer.url().starts_with("https://localhost:"));
        let mut claims = TokenClaims::new("lee", "gatebook");
        claims.groups = vec!["dba".to_owned()];
        let credential = Credential::from(issuer.issue(&claims).expect("a token").as_str());
        let mut config = config(&issuer);
        config.danger_http = false;
        config.ca = Some(certificate.pem().into_bytes());
        let trusting = Identity::new(std::slice::from_ref(&config)).expect("a configuration");
        let principal = trusting.verify(&credential, SystemTime::now()).await.expect("a principal");
        assert_eq!(&*principal.groups()[0], "dba");

        let other = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        config.ca = Some(params.self_signed(&other).expect("a certificate").pem().into_bytes());
        let distrusting = Identity::new(&[config]).expect("a configuration");
        let rejected =
            distrusting.verify(&credential, SystemTime::now()).await.expect_err("another authority");
        assert_eq!(rejected.cause(), Cause::ProviderUnreachable, "{rejected}");
    }

    #[tokio::test]
    async fn claims_can_be_replaced_and_kinds_differ() {
        let issuer = Issuer::start(options("127.0.0.1:0")).await.expect("an issuer");
        let identity = Identity::new(&[config(&issuer)]).expect("a configuration");
        let cause = async |claims: TokenClaims| {
            let token = issuer.issue(&claims).expect("a token");
            let verified = identity.verify(&Credential::from(token.as_str()), SystemTime::now()).await;
            verified.err().map(|rejected| rejected.cause())
        };
        let good = TokenClaims::new("lee", "gatebook");
        assert_eq!(cause(good.clone()).await, None);
        let expired = Map::from_iter([("exp".to_owned(), json!(1))]);
        assert_eq!(cause(TokenClaims { claims: expired, ..good.clone() }).await, Some(Cause::Expired));
        let kind = TokenKind::Access { client: "cli".to_owned() };
        assert_eq!(cause(TokenClaims { kind, ..good }).await, Some(Cause::WrongPurpose));
    }

    #[tokio::test]
    async fn it_listens_on_loopback_only_and_answers_what_it_knows() {
        assert!(Issuer::start(options("0.0.0.0:0")).await.is_err());
        let issuer = Issuer::start(options("127.0.0.1:0")).await.expect("an issuer");
        let address = issuer.address();
        let ask = move |request: String| {
            let mut stream = std::net::TcpStream::connect(address).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
            stream.write_all(request.as_bytes()).expect("a request");
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        };
        let post = |path: &str, body: &str| {
            let length = body.len();
            format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            )
        };
        let long = format!("a={}", "x".repeat(20_000));
        let cases = [
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), "404"),
            (post("/token", ""), "unsupported_grant_type"),
            (post("/token", "grant_type=client_credentials"), "invalid_client"),
            (post("/token", "grant_type=client_credentials&client_id=a&client_secret=b"), "invalid_client"),
            (post("/token", "grant_type=a&grant_type=b"), "invalid_request"),
            (post("/token", &long), "invalid_request"),
            (post("/device_authorization", ""), "invalid_client"),
            ("nonsense\r\n\r\n".to_owned(), "400"),
        ];
        let device = tokio::task::spawn_blocking(move || {
            for (request, expected) in cases {
                let answer = ask(request.clone());
                assert!(answer.contains(expected), "{request}: {answer}");
            }
            let answer = ask(post("/device_authorization", "client_id=cli"));
            let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
            let device: Value = serde_json::from_str(body).expect("JSON");
            (device, ask, post)
        });
        let (device, ask, post) = device.await.expect("answers");
        let text = |member: &str| device[member].as_str().expect("text").to_owned();
        let form = format!("grant_type={DEVICE_GRANT}&device_code={}&client_id=", text("device_code"));
        assert!(!issuer.approve_device("AAAA-AAAA", TokenClaims::new("eve", "gatebook")));
        let asked = [
            (format!("{form}cli"), "authorization_pending"),
            (format!("{form}other"), "invalid_grant"),
            (format!("{form}cli"), "\"id_token\""),
            (format!("{form}cli"), "expired_token"),
        ];
        for (place, (form, expected)) in asked.into_iter().enumerate() {
            if place == 2 {
                assert!(issuer.approve_device(&text("user_code"), TokenClaims::new("lee", "gatebook")));
            }
            let answer =
                tokio::task::spawn_blocking(move || ask(post("/token", &form))).await.expect("an answer");
            assert!(answer.contains(expected), "{place}: {answer}");
        }
    }
}

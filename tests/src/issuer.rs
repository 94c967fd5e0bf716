//! An identity provider of the test's own, which will sign whatever it is asked to.
//!
//! It serves discovery and keys over TLS and makes tokens, good ones and every kind of bad one: that is what a real
//! provider refuses to do. Real providers are tested beside it (`tests/oidc`).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::Authority;

/// The audience of good tokens.
pub const AUDIENCE: &str = "gatebook";

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// The longest request head that is read.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A running provider. It ends with this value.
pub struct Issuer {
    url: String,
    authority: Authority,
    shared: Arc<Shared>,
    address: std::net::SocketAddr,
}

struct Shared {
    keys: Mutex<Vec<Key>>,
    /// What each code of a browser's login is exchanged for.
    codes: Mutex<BTreeMap<String, Value>>,
    /// The forms in which codes were shown.
    shown: Mutex<Vec<BTreeMap<String, String>>>,
    requests: AtomicUsize,
    stopped: AtomicBool,
    /// What it says about tokens that it is asked about.
    asked: Mutex<Asked>,
}

/// Questions about tokens (RFC 7662): who may ask, and which tokens are over.
#[derive(Default)]
struct Asked {
    count: usize,
    over: Vec<String>,
    silent: bool,
}

/// The client that may ask whether a token holds, and its secret.
pub const ASKER: (&str, &str) = ("asker", "s3cret/with+odd:letters%");

/// A signing key with its name.
pub struct Key {
    id: String,
    pair: EcdsaKeyPair,
}

impl Key {
    /// Makes a key.
    ///
    /// # Panics
    /// When the machine has no randomness.
    #[must_use]
    pub fn new(id: &str) -> Self {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("randomness");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self { id: id.to_owned(), pair: pair.expect("a key that was just made is valid") }
    }

    /// Its public half as a JWK.
    #[must_use]
    pub fn jwk(&self) -> Value {
        // An uncompressed point: 4, x, y (SEC 1 section 2.3.3).
        let point = self.pair.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id,
               "x": encode(&point[1..33]), "y": encode(&point[33..65])})
    }

    /// Signs claims under a header of the caller's choice.
    ///
    /// # Panics
    /// When the machine has no randomness.
    #[must_use]
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = unsigned(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).expect("randomness");
        format!("{text}.{}", encode(signature.as_ref()))
    }

    /// The header of a good token.
    #[must_use]
    pub fn header(&self) -> Value {
        json!({"alg": "ES256", "typ": "JWT", "kid": self.id})
    }
}

/// Header and claims in their encoding, the dot between them included and no signature after them.
#[must_use]
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

/// Base64 as tokens spell it.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A number that no other call gets.
fn fresh() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::SeqCst)
}

/// Seconds since 1970, now.
///
/// # Panics
/// When the clock stands before 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}

impl Issuer {
    /// Starts a provider.
    ///
    /// # Panics
    /// When no loopback port is free.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let url = format!("https://localhost:{}", address.port());
        let authority = Authority::new();
        let tls = Arc::new(authority.issue(&["localhost", "127.0.0.1"]).server());
        let shared = Arc::new(Shared {
            keys: Mutex::new(vec![Key::new("first")]),
            codes: Mutex::default(),
            shown: Mutex::default(),
            requests: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            asked: Mutex::default(),
        });
        let (served, of) = (Arc::clone(&shared), url.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if served.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (tls, served, of) = (Arc::clone(&tls), Arc::clone(&served), of.clone());
                // A client that breaks off is the client's affair.
                std::thread::spawn(move || serve(stream, tls, &served, &of));
            }
        });
        Self { url, authority, shared, address }
    }

    /// Its URL, which is also the `iss` of its tokens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Writes the certificate of the authority that vouches for its TLS.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write_authority(&self, file: &Path) {
        std::fs::write(file, self.authority.pem()).expect("the folder can be written");
    }

    /// How many times its keys were fetched.
    #[must_use]
    pub fn key_requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// How many times it was asked whether a token holds.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    #[must_use]
    pub fn questions(&self) -> usize {
        self.shared.asked.lock().expect("no holder panics").count
    }

    /// Says of this token from now on that it is not active.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    pub fn end(&self, token: &str) {
        self.shared.asked.lock().expect("no holder panics").over.push(token.to_owned());
    }

    /// Says nothing about any token from now on, or answers again.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    pub fn be_silent(&self, silent: bool) {
        self.shared.asked.lock().expect("no holder panics").silent = silent;
    }

    /// The claims of a good logout token for this subject and this login.
    #[must_use]
    pub fn logout_claims(&self, subject: Option<&str>, sid: Option<&str>) -> Value {
        let mut claims = json!({
            "iss": self.url, "aud": AUDIENCE, "iat": now(), "exp": now() + 120, "jti": format!("logout-{}", fresh()),
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        for (name, value) in [("sub", subject), ("sid", sid)] {
            if let Some(value) = value {
                claims[name] = value.into();
            }
        }
        claims
    }

    /// Has a code be exchanged for this, once.
    ///
    /// # Panics
    /// Never: no holder of the codes panics.
    pub fn give_code(&self, code: &str, answer: Value) {
        self.shared.codes.lock().expect("no holder panics").insert(code.to_owned(), answer);
    }

    /// The forms in which codes were shown, in their order.
    ///
    /// # Panics
    /// Never: no holder of them panics.
    #[must_use]
    pub fn shown_codes(&self) -> Vec<BTreeMap<String, String>> {
        self.shared.shown.lock().expect("no holder panics").clone()
    }

    /// The claims of a good token that is valid for an hour.
    #[must_use]
    pub fn claims(&self, subject: &str, groups: &[&str]) -> Value {
        json!({"iss": self.url, "sub": subject, "aud": AUDIENCE, "iat": now() - 1, "exp": now() + 3600,
               "groups": groups, "preferred_username": subject})
    }

    /// A good token.
    #[must_use]
    pub fn token(&self, subject: &str, groups: &[&str]) -> String {
        self.sign(&self.claims(subject, groups))
    }

    /// Signs claims as a good token's.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        self.with_key(|key| key.sign(&key.header(), claims))
    }

    /// Does something with the key that signs.
    ///
    /// # Panics
    /// Never: there is always a key.
    pub fn with_key<T>(&self, act: impl FnOnce(&Key) -> T) -> T {
        act(self.shared.keys.lock().expect("no holder panics").last().expect("there is a key"))
    }

    /// Signs with a new key from now on. The old ones stay published, or not.
    ///
    /// # Panics
    /// Never: no holder of the keys panics.
    pub fn rotate(&self, id: &str, keep_old: bool) {
        let mut keys = self.shared.keys.lock().expect("no holder panics");
        if !keep_old {
            keys.clear();
        }
        keys.push(Key::new(id));
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, tls: Arc<rustls::ServerConfig>, shared: &Shared, url: &str) -> Option<()> {
    stream.set_read_timeout(Some(REQUEST_MAX)).ok()?;
    stream.set_write_timeout(Some(REQUEST_MAX)).ok()?;
    let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(tls).ok()?, stream);
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX || stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let (status, body) = match head.split(' ').nth(1)? {
        "/.well-known/openid-configuration" => ("200 OK", discovery(url)),
        "/introspect" => introspected(&mut stream, &head, shared)?,
        "/jwks" => {
            shared.requests.fetch_add(1, Ordering::SeqCst);
            let keys = shared.keys.lock().ok()?;
            ("200 OK", json!({"keys": keys.iter().map(Key::jwk).collect::<Vec<_>>()}))
        }
        "/token" => {
            let form = crate::https::pairs(&read_body(&mut stream, &head)?);
            let answer = shared.codes.lock().ok()?.remove(form.get("code").map_or("", String::as_str));
            shared.shown.lock().ok()?.push(form);
            match answer {
                Some(answer) => ("200 OK", answer),
                None => ("400 Bad Request", json!({"error": "invalid_grant"})),
            }
        }
        _ => ("404 Not Found", json!({"error": "not_found"})),
    };
    let body = body.to_string();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (known, value) = line.split_once(": ")?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn read_body(stream: &mut impl Read, head: &str) -> Option<String> {
    let length =
        header(head, "content-length")?.parse().ok().filter(|length| *length < HEAD_BYTES_MAX * 4)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

/// The answer to a question about a token; none where it says nothing.
fn introspected(stream: &mut impl Read, head: &str, shared: &Shared) -> Option<(&'static str, Value)> {
    let body = read_body(stream, head)?;
    let mut asked = shared.asked.lock().ok()?;
    asked.count += 1;
    if asked.silent {
        return None;
    }
    // RFC 6749, section 2.3.1: both are form-encoded first.
    let escape =
        |text: &str| text.replace('%', "%25").replace('/', "%2F").replace('+', "%2B").replace(':', "%3A");
    let (client, secret) = ASKER;
    let expected = base64::prelude::BASE64_STANDARD.encode(format!("{}:{}", escape(client), escape(secret)));
    if header(head, "authorization") != Some(&*format!("Basic {expected}")) {
        return Some(("401 Unauthorized", json!({"error": "invalid_client"})));
    }
    // A token's letters stand for themselves in a form.
    let token = body.split('&').find_map(|field| field.strip_prefix("token="))?;
    Some(("200 OK", json!({"active": !asked.over.iter().any(|over| over == token)})))
}

fn discovery(url: &str) -> Value {
    json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/jwks"),
        "introspection_endpoint": format!("{url}/introspect"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

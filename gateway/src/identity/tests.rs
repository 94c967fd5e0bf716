//! Identity judged from outside: tokens go in, principals or causes come out, and a provider on loopback
//! counts what it was asked. Time is passed in; nothing sleeps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openidconnect::core::{
    CoreEdDsaPrivateSigningKey, CoreHmacKey, CoreJwsSigningAlgorithm, CoreRsaPrivateSigningKey,
};
use openidconnect::{JsonWebKeyId, PrivateSigningKey as _};
use parking_lot::Mutex;
use rcgen::{PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Algorithm, Cause, Credential, Identity, IssuerConfig, Principal, PrincipalKind, Rejected};

const NOW: u64 = 1_800_000_000;
const RSA_PEM: &str = include_str!("testdata/rsa-2048.pem");

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A provider that serves what a test tells it to, and counts.
struct Stand {
    url: String,
    state: Arc<Mutex<StandState>>,
    /// One permit an answer to `/keys`, where a test holds answers back.
    gate: Arc<Semaphore>,
}

struct StandState {
    up: bool,
    discovery: String,
    keys: String,
    /// Sent in place of everything else where it is set.
    answer: Option<String>,
    discoveries: usize,
    fetches: usize,
}

impl Stand {
    async fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let state = Arc::new(Mutex::new(StandState {
            up: true,
            discovery: json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }).to_string(),
            keys: String::new(),
            answer: None,
            discoveries: 0,
            fetches: 0,
        }));
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS / 2));
        let stand = Self { url, state: Arc::clone(&state), gate: Arc::clone(&gate) };
        stand.publish(keys);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                tokio::spawn(Self::serve(stream, Arc::clone(&state), Arc::clone(&gate)));
            }
        });
        stand
    }

    async fn serve(mut stream: tokio::net::TcpStream, state: Arc<Mutex<StandState>>, gate: Arc<Semaphore>) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            request.push(byte);
        }
        let is_keys = request.starts_with(b"GET /keys ");
        let answer = {
            let mut state = state.lock();
            if is_keys {
                state.fetches += 1;
            } else {
                state.discoveries += 1;
            }
            if !state.up {
                return;
            }
            let body = if is_keys { &state.keys } else { &state.discovery };
            state.answer.clone().unwrap_or_else(|| ok(body))
        };
        if is_keys {
            gate.acquire().await.expect("gate").forget();
        }
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    fn publish(&self, keys: &[&Key]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.state.lock().keys = json!({ "keys": keys }).to_string();
    }

    fn fetches(&self) -> usize {
        self.state.lock().fetches
    }

    fn config(&self) -> IssuerConfig {
        let mut config = IssuerConfig::new("corp", &self.url, "gatebook");
        config.access_token_audience = Some("urn:gatebook".to_owned());
        config.groups_claim = Some("groups".to_owned());
        config.danger_http = true;
        config
    }

    fn identity(&self) -> Identity {
        Identity::new(&[self.config()]).expect("configuration")
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.url, "sub": "lee", "aud": "gatebook",
            "exp": NOW + 600, "iat": NOW - 60, "nbf": NOW - 60,
            "jti": "token-1", "groups": ["dba", "dev"],
        })
    }

    /// The claims with some of them replaced, or removed where the value is null.
    fn claims_but(&self, changes: Value) -> Value {
        let mut claims = self.claims();
        for (name, value) in changes.as_object().expect("an object") {
            let object = claims.as_object_mut().expect("an object");
            if value.is_null() {
                object.remove(name)
            } else {
                object.insert(name.clone(), value.clone())
            };
        }
        claims
    }
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A key pair that signs tokens as a provider would, or as an attacker would.
struct Key {
    kid: &'static str,
    alg: &'static str,
    secret: Secret,
}

enum Secret {
    Ed25519(CoreEdDsaPrivateSigningKey, Vec<u8>),
    Rsa(CoreRsaPrivateSigningKey),
    P256(rcgen::KeyPair),
}

impl Key {
    fn ed25519(kid: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let public = pair.der_bytes().to_vec();
        let key = CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pair.serialize_pem(), None).expect("a key");
        Self { kid, alg: "EdDSA", secret: Secret::Ed25519(key, public) }
    }

    fn rsa(kid: &'static str, alg: &'static str) -> Self {
        let key = CoreRsaPrivateSigningKey::from_pem(RSA_PEM, Some(JsonWebKeyId::new(kid.to_owned())));
        Self { kid, alg, secret: Secret::Rsa(key.expect("a key")) }
    }

    fn p256(kid: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        Self { kid, alg: "ES256", secret: Secret::P256(pair) }
    }

    fn jwk(&self) -> Value {
        let mut jwk = match &self.secret {
            Secret::Ed25519(_, public) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": BASE64_URL_SAFE_NO_PAD.encode(public) })
            }
            Secret::Rsa(key) => serde_json::to_value(key.as_verification_key()).expect("a key"),
            Secret::P256(pair) => {
                let point = pair.der_bytes();
                let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
                json!({ "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..65]) })
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(self.alg);
        jwk["x5t"] = json!("a member that nobody here knows");
        jwk
    }

    fn sign(&self, signed: &[u8]) -> Vec<u8> {
        match &self.secret {
            Secret::Ed25519(key, _) => {
                key.sign(&CoreJwsSigningAlgorithm::EdDsa, signed).expect("a signature")
            }
            Secret::Rsa(key) => {
                let algorithm = match self.alg {
                    "PS256" => CoreJwsSigningAlgorithm::RsaSsaPssSha256,
                    _ => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
                };
                key.sign(&algorithm, signed).expect("a signature")
            }
            Secret::P256(pair) => fixed_width(&pair.sign(signed).expect("a signature")),
        }
    }

    fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.alg, "kid": self.kid, "typ": "JWT" }), claims)
    }

    fn access_token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.alg, "kid": self.kid, "typ": "at+jwt" }), claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.token_of_text(&header.to_string(), &claims.to_string())
    }

    fn token_of_text(&self, header: &str, claims: &str) -> String {
        let signed = signing_input(header, claims);
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

fn signing_input(header: &str, claims: &str) -> String {
    format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims))
}

/// An ECDSA signature as JOSE has it (RFC 7518 section 3.4), from the DER form.
fn fixed_width(der: &[u8]) -> Vec<u8> {
    let r_len = usize::from(der[3]);
    let r = &der[4..4 + r_len];
    let s = &der[6 + r_len..];
    let mut fixed = Vec::new();
    for number in [r, s] {
        let number = &number[number.len().saturating_sub(32)..];
        fixed.extend(std::iter::repeat_n(0, 32 - number.len()));
        fixed.extend_from_slice(number);
    }
    fixed
}

async fn verify(identity: &Identity, token: &str, seconds: u64) -> Result<Arc<Principal>, Rejected> {
    identity.verify(&Credential::from(token), at(seconds)).await
}

async fn cause(identity: &Identity, token: &str, seconds: u64) -> Cause {
    let rejected = verify(identity, token, seconds).await.expect_err("a token that must be refused");
    let signature = token.rsplit('.').next().unwrap_or_default();
    let told = format!("{rejected} {rejected:?}");
    assert!(signature.len() < 16 || !told.contains(signature), "a credential in {told}");
    rejected.cause()
}

#[tokio::test]
async fn a_token_becomes_a_principal() {
    let key = Key::ed25519("one");
    let stand = Stand::start(&[&key]).await;
    let identity = stand.identity();
    let claims = stand.claims_but(json!({ "groups": ["dev", "dba", "dev"], "preferred_username": "Lee" }));
    let principal = verify(&identity, &key.token(&claims), NOW).await.expect("a principal");
    assert_eq!(&**principal.id(), "corp:lee");
    assert_eq!((&**principal.issuer(), &**principal.subject(), &**principal.name()), ("corp", "lee", "Lee"));
    assert_eq!(principal.kind(), PrincipalKind::User);
    let groups: Vec<&str> = principal.groups().iter().map(AsRef::as_ref).collect();
    assert_eq!(groups, ["dba", "dev"]);
    assert_eq!(&**principal.token_id(), "jti:token-1");
    assert_eq!((principal.not_before(), principal.expires()), (at(NOW - 90), at(NOW + 630)));

    let anonymous = key.token(&stand.claims_but(json!({ "jti": null })));
    let principal = verify(&identity, &anonymous, NOW).await.expect("a principal");
    let (signed, _) = anonymous.rsplit_once('.').expect("a signature");
    assert_eq!(**principal.token_id(), format!("blake3:{}", blake3::hash(signed.as_bytes()).to_hex()));
}

#[tokio::test]
async fn every_default_algorithm_is_verified() {
    let keys = [Key::rsa("rs", "RS256"), Key::rsa("ps", "PS256"), Key::p256("es"), Key::ed25519("ed")];
    let stand = Stand::start(&keys.iter().collect::<Vec<_>>()).await;
    let identity = stand.identity();
    for key in &keys {
        let token = key.token(&stand.claims());
        assert!(verify(&identity, &token, NOW).await.is_ok(), "{}", key.alg);
        let (signed, _) = token.rsplit_once('.').expect("three parts");
        let other = BASE64_URL_SAFE_NO_PAD.encode(key.sign(b"something else"));
        assert_eq!(
            cause(&identity, &format!("{signed}.{other}"), NOW).await,
            Cause::BadSignature,
            "{}",
            key.alg
        );
    }
    let unnamed = keys[2].token_with(&json!({ "alg": "ES256" }), &stand.claims());
    assert!(verify(&identity, &unnamed, NOW).await.is_ok(), "the only key that fits needs no name");
}

#[tokio::test]
async fn wrong_tokens_are_refused_before_anything_is_fetched() {
    let key = Key::ed25519("one");
    let stand = Stand::start(&[&key]).await;
    let identity = stand.identity();
    let header = |changes: Value| {
        let mut header = json!({ "alg": "EdDSA", "kid": "one" });
        for (name, value) in changes.as_object().expect("an object") {
            header[name] = value.clone();
        }
        key.token_with(&header, &stand.claims())
    };
    let but = |changes: Value| key.token(&stand.claims_but(changes));
    let good = key.token(&stand.claims());
    let unsigned = |alg: &str| {
        format!("{}.", signing_input(&json!({ "alg": alg }).to_string(), &stand.claims().to_string()))
    };
    let long = but(json!({ "filler": "x".repeat(20_000) }));
    let cases: Vec<(&str, String, Cause)> = vec![
        ("nothing", String::new(), Cause::Malformed),
        ("a password", "hunter2".to_owned(), Cause::Malformed),
        ("two parts", good.rsplit_once('.').expect("parts").0.to_owned(), Cause::Malformed),
        ("four parts", format!("{good}.x"), Cause::Malformed),
        ("five parts", format!("{good}.x.y"), Cause::Malformed),
        ("padding", format!("{good}=="), Cause::Malformed),
        ("a blank in front", format!(" {good}"), Cause::Malformed),
        ("a line end behind", format!("{good}\n"), Cause::Malformed),
        ("no header object", key.token_of_text("[]", "{}"), Cause::Malformed),
        ("no alg", key.token_of_text("{}", "{}"), Cause::Malformed),
        ("alg twice", key.token_of_text(r#"{"alg":"EdDSA","alg":"none"}"#, "{}"), Cause::Malformed),
        ("a kid that is no string", header(json!({ "kid": 7 })), Cause::Malformed),
        ("a kid without end", header(json!({ "kid": "k".repeat(600) })), Cause::Malformed),
        (
            "sub twice",
            key.token_of_text(
                r#"{"alg":"EdDSA","kid":"one"}"#,
                &stand.claims().to_string().replacen('{', r#"{"sub":"root","#, 1),
            ),
            Cause::Malformed,
        ),
        ("oversized", long, Cause::Oversized),
        ("no issuer", but(json!({ "iss": null })), Cause::UnknownIssuer),
        ("another issuer", but(json!({ "iss": "https://idp.other.example" })), Cause::UnknownIssuer),
        ("almost this issuer", but(json!({ "iss": format!("{}/", stand.url) })), Cause::UnknownIssuer),
        ("an issuer that is no string", but(json!({ "iss": [stand.url] })), Cause::UnknownIssuer),
        ("alg none", unsigned("none"), Cause::AlgorithmNotAllowed),
        ("alg None", unsigned("None"), Cause::AlgorithmNotAllowed),
        ("alg NONE", unsigned("NONE"), Cause::AlgorithmNotAllowed),
        ("alg HS256", header(json!({ "alg": "HS256" })), Cause::AlgorithmNotAllowed),
        ("alg off the list", header(json!({ "alg": "RS512" })), Cause::AlgorithmNotAllowed),
        ("crit", header(json!({ "crit": ["b64"], "b64": false })), Cause::CriticalHeader),
        ("an empty crit", header(json!({ "crit": [] })), Cause::CriticalHeader),
        ("a logout token", header(json!({ "typ": "logout+jwt" })), Cause::WrongPurpose),
        ("a proof of possession", header(json!({ "typ": "dpop+jwt" })), Cause::WrongPurpose),
        ("a token in a token", header(json!({ "cty": "JWT" })), Cause::WrongPurpose),
        ("an event", but(json!({ "events": {} })), Cause::WrongPurpose),
        ("a delegation", but(json!({ "act": { "sub": "agent" } })), Cause::WrongPurpose),
        ("a key-bound token", but(json!({ "cnf": { "jkt": "x" } })), Cause::WrongPurpose),
        ("no audience", but(json!({ "aud": null })), Cause::WrongAudience),
        ("another audience", but(json!({ "aud": "other" })), Cause::WrongAudience),
        ("other audiences", but(json!({ "aud": ["other", "gatebook2"] })), Cause::WrongAudience),
        ("an audience that is no string", but(json!({ "aud": [7] })), Cause::BadClaim),
        ("audiences, nobody authorized", but(json!({ "aud": ["gatebook", "other"] })), Cause::WrongParty),
        ("another party", but(json!({ "azp": "other" })), Cause::WrongParty),
        ("two parties", but(json!({ "azp": "gatebook", "client_id": "other" })), Cause::BadClaim),
        ("expired", but(json!({ "exp": NOW - 30 })), Cause::Expired),
        ("expired by a fraction", but(json!({ "exp": (NOW - 30) as f64 + 0.5 })), Cause::Expired),
        ("expired long ago", but(json!({ "exp": 0, "iat": 0, "nbf": null })), Cause::Expired),
        ("no expiry", but(json!({ "exp": null })), Cause::BadClaim),
        ("an expiry in words", but(json!({ "exp": "tomorrow" })), Cause::BadClaim),
        ("an expiry before 1970", but(json!({ "exp": -1 })), Cause::BadClaim),
        ("an expiry without end", but(json!({ "exp": 1e300 })), Cause::BadClaim),
        ("an expiry that wraps", but(json!({ "exp": u64::MAX })), Cause::BadClaim),
        ("not yet valid", but(json!({ "nbf": NOW + 31 })), Cause::NotYetValid),
        ("issued in the future", but(json!({ "iat": NOW + 31, "nbf": null })), Cause::NotYetValid),
        ("valid, but issued in the future", but(json!({ "iat": NOW + 31 })), Cause::NotYetValid),
        ("never issued", but(json!({ "iat": null })), Cause::BadClaim),
        ("no subject", but(json!({ "sub": null })), Cause::NoSubject),
        ("an empty subject", but(json!({ "sub": "" })), Cause::NoSubject),
        ("a subject that is no string", but(json!({ "sub": 7 })), Cause::NoSubject),
        ("a subject with control characters", but(json!({ "sub": "lee\r\nroot" })), Cause::NoSubject),
        ("a subject without end", but(json!({ "sub": "x".repeat(2000) })), Cause::NoSubject),
        ("groups that are none", but(json!({ "groups": { "dba": true } })), Cause::BadClaim),
        ("a token id that is no string", but(json!({ "jti": 7 })), Cause::BadClaim),
        ("an access token's audience", but(json!({ "aud": "urn:gatebook" })), Cause::WrongAudience),
        ("an ID token's audience", key.access_token(&stand.claims()), Cause::WrongAudience),
    ];
    for (what, token, expected) in &cases {
        assert_eq!(cause(&identity, token, NOW).await, *expected, "{what}");
    }
    let causes: BTreeSet<Cause> = cases.iter().map(|(_, _, cause)| *cause).collect();
    assert_eq!(causes.len(), 12, "every cause that needs no keys: {causes:?}");
    assert_eq!((stand.fetches(), stand.state.lock().discoveries), (0, 0));
    assert!(verify(&identity, &good, NOW).await.is_ok(), "and yet the good one is good");
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let (rsa, edwards) = (Key::rsa("rsa", "RS256"), Key::ed25519("ed"));
    let stand = Stand::start(&[&rsa, &edwards]).await;
    let identity = stand.identity();
    assert!(verify(&identity, &edwards.token(&stand.claims()), NOW).await.is_ok());

    let forger = Key::ed25519("ed");
    assert_eq!(cause(&identity, &forger.token(&stand.claims()), NOW).await, Cause::BadSignature);

    // The classic: the public key, as everybody can fetch it, used as a shared secret.
    let published = rsa.jwk();
    let modulus = published["n"].as_str().expect("a modulus");
    let secrets = [
        BASE64_URL_SAFE_NO_PAD.decode(modulus).expect("base64"),
        modulus.as_bytes().to_vec(),
        published.to_string().into_bytes(),
    ];
    for secret in secrets {
        for kid in ["rsa", "ed"] {
            let header = json!({ "alg": "HS256", "kid": kid }).to_string();
            let signed = signing_input(&header, &stand.claims().to_string());
            let hmac = CoreHmacKey::new(secret.clone());
            let signature =
                hmac.sign(&CoreJwsSigningAlgorithm::HmacSha256, signed.as_bytes()).expect("a signature");
            let token = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));
            assert_eq!(cause(&identity, &token, NOW).await, Cause::AlgorithmNotAllowed);
        }
    }

    // A key that the token brings along is not looked at.
    let own = Key::ed25519("mine");
    let header =
        json!({ "alg": "EdDSA", "kid": "ed", "jwk": own.jwk(), "jku": format!("{}/keys", stand.url) });
    assert_eq!(cause(&identity, &own.token_with(&header, &stand.claims()), NOW).await, Cause::BadSignature);

    // A key serves the algorithm that it was published for, and no other.
    let other = Key::rsa("rsa", "PS256");
    assert_eq!(cause(&identity, &other.token(&stand.claims()), NOW).await, Cause::UnknownKey);
    // An algorithm that the configuration allows but another kind of key.
    let header = json!({ "alg": "ES256", "kid": "ed" });
    assert_eq!(cause(&identity, &edwards.token_with(&header, &stand.claims()), NOW).await, Cause::UnknownKey);
}

#[tokio::test]
async fn no_byte_of_a_token_can_be_changed_or_cut() {
    let key = Key::ed25519("one");
    let stand = Stand::start(&[&key]).await;
    let identity = stand.identity();
    let good = key.token(&stand.claims());
    assert!(verify(&identity, &good, NOW).await.is_ok());
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("ASCII");
        assert!(verify(&identity, &changed, NOW).await.is_err(), "byte {at} changed");
        assert!(verify(&identity, &good[..at], NOW).await.is_err(), "cut at {at}");
    }
    assert!(stand.fetches() <= 1, "{} fetches", stand.fetches());
}

#[tokio::test]
async fn clock_skew_reaches_to_its_last_second() {
    let key = Key::ed25519("one");
    let stand = Stand::start(&[&key]).await;
    let identity = stand.identity();
    let token = key.token(&stand.claims());
    for (seconds, expected) in [
        (NOW - 91, Some(Cause::NotYetValid)),
        (NOW - 90, None),
        (NOW, None),
        (NOW + 629, None),
        (NOW + 630, Some(Cause::Expired)),
        (0, Some(Cause::NotYetValid)),
    ] {
        // Twice: the second time the token is remembered.
        for _ in 0..2 {
            let found = verify(&identity, &token, seconds).await.err().map(|rejected| rejected.cause());
            assert_eq!(found, expected, "{} s from now", seconds.cast_signed() - NOW.cast_signed());
        }
    }
    assert_eq!(cause(&identity, &token, 0).await, Cause::NotYetValid);
}

#[tokio::test]
async fn access_tokens_have_an_audience_of_their_own() {
    let key = Key::ed25519("one");
    let stand = Stand::start(&[&key]).await;
    let identity = stand.identity();
    let claims =
        stand.claims_but(json!({ "aud": ["urn:gatebook", "urn:other"], "client_id": "ci", "nbf": null }));
    let principal = verify(&identity, &key.access_token(&claims), NOW).await.expect("a principal");
    assert_eq!(principal.client().map(AsRef::as_ref), Some("ci"));
    let spelled = json!({ "alg": "EdDSA", "kid": "one", "typ": "Application/AT+JWT" });
    assert!(verify(&identity, &key.token_with(&spelled, &claims), NOW).await.is_ok());

    let mut config = stand.config();
    config.authorized_parties = vec!["ci".to_owned()];
    let identity = Identity::new(&[config.clone()]).expect("configuration");
    assert!(verify(&identity, &key.access_token(&claims), NOW).await.is_ok());
    let other = stand.claims_but(json!({ "aud": "urn:gatebook", "client_id": "other" }));
    assert_eq!(cause(&identity, &key.access_token(&other), NOW).await, Cause::WrongParty);
    let nobody = stand.claims_but(json!({ "aud": "urn:gatebook" }));
    assert_eq!(cause(&identity, &key.access_token(&nobody), NOW).await, Cause::WrongParty);
    let party = stand.claims_but(json!({ "aud": ["gatebook", "other"], "azp": "ci" }));
    assert!(verify(&identity, &key.token(&party), NOW).await.is_ok(), "an authorized party");

    config.access_token_audience = None;
    let identity = Identity::new(&[config.clone()]).expect("configuration");
    assert_eq!(cause(&identity, &key.access_token(&claims), NOW).await, Cause::WrongPurpose);
    config.access_token_audience = config.audience.take();
    let identity = Identity::new(&[config]).expect("configuration");
    assert_eq!(cause(&identity, &key.token(&stand.claims()), NOW).await, Cause::WrongPurpose);
}

#[tokio::test]
async fn unknown_keys_cause_one_fetch_in_ten_seconds() {
    let (key, unknown) = (Key::ed25519("one"), Key::ed25519("two"));
    let stand = Stand::start(&[&key]).await;
    let identity = Arc::new(stand.identity());
    assert!(verify(&identity, &key.token(&stand.claims()), NOW).await.is_ok());
    assert_eq!(stand.fetches(), 1);

    let flood = |seconds: u64| {
        let (identity, token) = (Arc::clone(&identity), unknown.token(&stand.claims()));
        async move {
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..50 {
                let (identity, token) = (Arc::clone(&identity), token.clone());
                tasks.spawn(async move { cause(&identity, &token, seconds + number % 9).await });
            }
            while let Some(cause) = tasks.join_next().await {
                assert_eq!(cause.expect("a task"), Cause::UnknownKey);
            }
        }
    };
    flood(NOW + 1).await;
    assert_eq!(stand.fetches(), 1, "the fetch of a moment ago is shared");
    flood(NOW + 20).await;
    assert_eq!(stand.fetches(), 2, "fifty at once cause one fetch");
    flood(NOW + 21).await;
    assert_eq!(stand.fetches(), 2);
    assert!(verify(&identity, &key.token(&stand.claims()), NOW + 21).await.is_ok(), "others are not held up");
}

#[tokio::test]
async fn rotation_brings_new_keys_and_withdraws_old_tokens() {
    let (old, new) = (Key::ed25519("old"), Key::ed25519("new"));
    let stand = Stand::start(&[&old]).await;
    let identity = stand.identity();
    let before = old.token(&stand.claims());
    let first = verify(&identity, &before, NOW).await.expect("a principal");
    let again = verify(&identity, &before, NOW + 1).await.expect("a principal");
    assert!(Arc::ptr_eq(&first, &again), "remembered");

    stand.publish(&[&new, &old]);
    assert!(verify(&identity, &new.token(&stand.claims()), NOW + 20).await.is_ok());
    assert!(verify(&identity, &before, NOW + 20).await.is_ok(), "the former key is still published");

    stand.publish(&[&new]);
    let unknown = Key::ed25519("nobody's");
    assert_eq!(cause(&identity, &unknown.token(&stand.claims()), NOW + 40).await, Cause::UnknownKey);
    assert_eq!(cause(&identity, &before, NOW + 40).await, Cause::UnknownKey, "withdrawn, though remembered");
    assert_eq!(stand.fetches(), 3);

    // A key that changed under its id.
    let swapped = Key::ed25519("new");
    let token = new.token(&stand.claims());
    assert!(verify(&identity, &token, NOW + 40).await.is_ok());
    stand.publish(&[&swapped]);
    assert_eq!(cause(&identity, &unknown.token(&stand.claims()), NOW + 60).await, Cause::UnknownKey);
    assert_eq!(cause(&identity, &token, NOW + 60).await, Cause::BadSignature);
}

#[tokio::test]
async fn equal_keys_keep_what_was_verified() {
    let key = Key::ed25519("one");
    let stand = Stand::start(&[&key]).await;
    let identity = stand.identity();
    let token = key.token(&stand.claims());
    let first = verify(&identity, &token, NOW).await.expect("a principal");
    let unknown = Key::ed25519("two").token(&stand.claims());
    assert_eq!(cause(&identity, &unknown, NOW + 20).await, Cause::UnknownKey);
    assert_eq!(stand.fetches(), 2);
    let again = verify(&identity, &token, NOW + 20).await.expect("a principal");
    assert!(Arc::ptr_eq(&first, &again), "the same keys again forget nothing");
}

#[tokio::test]
async fn known_keys_serve_while_the_provider_is_down_and_no_longer() {
    let (key, other) = (Key::ed25519("one"), Key::ed25519("two"));
    let stand = Stand::start(&[&key]).await;
    let mut config = stand.config();
    config.keys_max_age = Duration::from_secs(3600);
    let identity = Identity::new(&[config]).expect("a provider that is down is no reason not to start");
    let token = |seconds: u64| {
        key.token(&stand.claims_but(json!({ "exp": seconds + 600, "jti": seconds.to_string() })))
    };

    stand.state.lock().up = false;
    assert_eq!(cause(&identity, &token(NOW), NOW).await, Cause::ProviderUnreachable);
    assert_eq!(cause(&identity, &token(NOW), NOW + 5).await, Cause::ProviderUnreachable);
    assert_eq!(stand.state.lock().discoveries, 1, "a provider that is down is left alone for a while");
    assert!(identity.state()[0].failure.is_some());

    stand.state.lock().up = true;
    assert!(verify(&identity, &token(NOW), NOW + 10).await.is_ok(), "it comes back by itself");
    assert_eq!((identity.state()[0].keys, &identity.state()[0].failure), (1, &None));

    stand.state.lock().up = false;
    assert_eq!(cause(&identity, &other.token(&stand.claims()), NOW + 30).await, Cause::ProviderUnreachable);
    let last = NOW + 10 + 3600;
    assert!(verify(&identity, &token(last), last).await.is_ok(), "its keys still serve");
    assert_eq!(
        cause(&identity, &token(last), last + 1).await,
        Cause::ProviderUnreachable,
        "they are too old"
    );
    stand.state.lock().up = true;
    assert!(verify(&identity, &token(last), last + 11).await.is_ok());
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_the_fetch() {
    let key = Key::ed25519("one");
    let stand = Stand::start(&[&key]).await;
    stand.gate.forget_permits(usize::MAX >> 4);
    let identity = Arc::new(stand.identity());
    let token = key.token(&stand.claims());
    let gone = tokio::spawn({
        let (identity, token) = (Arc::clone(&identity), token.clone());
        async move { verify(&identity, &token, NOW).await }
    });
    while stand.fetches() == 0 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    assert!(gone.await.expect_err("aborted").is_cancelled());
    stand.gate.add_permits(1);
    assert!(verify(&identity, &token, NOW + 1).await.is_ok(), "its fetch went on");
    assert_eq!(stand.fetches(), 1);
}

#[tokio::test]
async fn keys_are_kept_fresh_in_the_background() {
    let (key, new) = (Key::ed25519("one"), Key::ed25519("two"));
    let stand = Stand::start(&[&key]).await;
    let identity = stand.identity();
    let clock = Mutex::new(at(NOW));
    let pauses = Mutex::new(Vec::new());
    let pause = |span: Duration| {
        *clock.lock() += span;
        let mut pauses = pauses.lock();
        pauses.push(span.as_secs());
        match pauses.len() {
            1 => stand.publish(&[&new]),
            2 => stand.state.lock().up = false,
            4 => stand.state.lock().up = true,
            _ => {}
        }
        let enough = pauses.len() == 5;
        async move {
            if enough {
                std::future::pending().await
            }
        }
    };
    let maintain = Arc::clone(&identity.issuers[0].provider).maintain(|| *clock.lock(), pause);
    let done = async {
        while pauses.lock().len() < 5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { () = maintain => {}, () = done => {} }
    assert_eq!(*pauses.lock(), [300, 300, 15, 15, 300], "sooner after a failure");
    assert_eq!(stand.fetches(), 3, "nobody presented a token");
    let last = NOW + 630;
    let claims = stand.claims_but(json!({ "exp": last + 60 }));
    assert!(verify(&identity, &new.token(&claims), last).await.is_ok());
    assert_eq!(cause(&identity, &key.token(&claims), last).await, Cause::UnknownKey);
    assert_eq!(stand.fetches(), 3, "and the newest keys were there");
}

#[tokio::test]
async fn a_provider_cannot_send_us_elsewhere() {
    let key = Key::ed25519("one");
    let stand = Stand::start(&[&key]).await;
    let good = stand.state.lock().discovery.clone();
    let elsewhere = Stand::start(&[&key]).await;
    let with = |change: fn(&mut Value, &str)| {
        let mut discovery: Value = serde_json::from_str(&good).expect("JSON");
        change(&mut discovery, &elsewhere.url);
        discovery.to_string()
    };
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nLocation: {}/keys\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        elsewhere.url
    );
    let cases: Vec<(&str, String, Option<String>, &str)> = vec![
        ("another issuer", with(|d, url| d["issuer"] = json!(url)), None, "speaks for"),
        ("no issuer", with(|d, _| d["issuer"] = json!(null)), None, "speaks for nobody"),
        ("no keys", with(|d, _| d["jwks_uri"] = json!(7)), None, "is not a string"),
        ("keys in clear text", with(|d, _| d["jwks_uri"] = json!("http://192.0.2.1/keys")), None, "loopback"),
        ("keys in a file", with(|d, _| d["jwks_uri"] = json!("file:///etc/passwd")), None, "names no host"),
        ("a password", with(|d, _| d["jwks_uri"] = json!("http://u:p@127.0.0.1/")), None, "must not carry"),
        ("twice", good.replacen('{', "{\"issuer\":\"x\",", 1), None, "stands twice"),
        ("a redirect", good.clone(), Some(redirect), "302"),
        ("no end", good.clone(), Some(ok(&" ".repeat(600_000))), "longer than"),
        ("no JSON", "<html>".to_owned(), None, "is not strict JSON"),
    ];
    for (what, discovery, answer, expected) in cases {
        {
            let mut state = stand.state.lock();
            (state.discovery, state.answer) = (discovery, answer);
        }
        let identity = stand.identity();
        let rejected = verify(&identity, &key.token(&stand.claims()), NOW).await.expect_err(what);
        assert_eq!(rejected.cause(), Cause::ProviderUnreachable, "{what}: {rejected}");
        assert!(rejected.detail().contains(expected), "{what}: {rejected}");
    }
    assert_eq!((elsewhere.fetches(), elsewhere.state.lock().discoveries), (0, 0));
}

#[tokio::test]
async fn issuers_stand_beside_each_other_and_do_not_mix() {
    let (people, jobs) = (Key::ed25519("k"), Key::ed25519("k"));
    let (corp, gitlab) = (Stand::start(&[&people]).await, Stand::start(&[&jobs]).await);
    let mut config = gitlab.config();
    config.name = "gitlab".to_owned();
    config.principal = PrincipalKind::Service;
    config.groups_claim = None;
    config.groups = BTreeMap::from([("project_path".to_owned(), "ci/{project_path}".to_owned())]);
    let identity = Identity::new(&[corp.config(), config]).expect("configuration");

    let job = gitlab.claims_but(json!({ "sub": "project:shop/deploy", "project_path": "shop/deploy" }));
    let principal = verify(&identity, &jobs.token(&job), NOW).await.expect("a principal");
    assert_eq!((&**principal.id(), principal.kind()), ("gitlab:project:shop/deploy", PrincipalKind::Service));
    let groups: Vec<&str> = principal.groups().iter().map(AsRef::as_ref).collect();
    assert_eq!(groups, ["ci/shop/deploy"], "the claim of another issuer's configuration gives nothing");
    assert_eq!(&**verify(&identity, &people.token(&corp.claims()), NOW).await.expect("one").id(), "corp:lee");

    // The key of one issuer does not speak for the other, under the same key id.
    assert_eq!(cause(&identity, &jobs.token(&corp.claims()), NOW).await, Cause::BadSignature);
    assert_eq!(cause(&identity, &people.token(&gitlab.claims()), NOW).await, Cause::BadSignature);
}

#[tokio::test]
async fn the_algorithms_of_the_configuration_are_the_only_ones() {
    let (rsa, edwards) = (Key::rsa("rsa", "RS256"), Key::ed25519("ed"));
    let stand = Stand::start(&[&rsa, &edwards]).await;
    let mut config = stand.config();
    config.algorithms = vec![Algorithm::EdDsa];
    let identity = Identity::new(&[config]).expect("configuration");
    assert!(verify(&identity, &edwards.token(&stand.claims()), NOW).await.is_ok());
    assert_eq!(cause(&identity, &rsa.token(&stand.claims()), NOW).await, Cause::AlgorithmNotAllowed);
}

#[tokio::test]
async fn a_token_without_a_key_id_is_not_tried_with_every_key() {
    let (one, two) = (Key::ed25519("one"), Key::ed25519("two"));
    let stand = Stand::start(&[&one, &two]).await;
    let identity = stand.identity();
    let token = one.token_with(&json!({ "alg": "EdDSA" }), &stand.claims());
    assert_eq!(cause(&identity, &token, NOW).await, Cause::UnknownKey);
}

#[test]
fn mistakes_in_the_configuration_are_told_together() {
    let mut bad = IssuerConfig::new("a:b", "ftp://x.example/?q", "");
    bad.algorithms.clear();
    bad.clock_skew = Duration::from_secs(301);
    bad.keys_max_age = Duration::from_secs(1);
    bad.groups = BTreeMap::from([("a".to_owned(), "constant".to_owned())]);
    bad.ca = Some(b"nothing".to_vec());
    let mut nobody = IssuerConfig::new("corp", "https://idp.corp.example", "x");
    nobody.audience = None;
    nobody.ca = None;
    let clear = IssuerConfig::new("clear", "http://idp.corp.example", "x");
    let mut remote = IssuerConfig::new("remote", "http://idp.corp.example", "x");
    remote.danger_http = true;
    let mut local = IssuerConfig::new("clear", "http://localhost:1", "x");
    local.danger_http = true;
    let configs = [bad, nobody, clear, remote, local.clone(), local.clone()];
    let mistakes = Identity::new(&configs).err().expect("mistakes").join("\n");
    for expected in [
        "issuer \"a:b\": a name is",
        "an audience is empty",
        "algorithms is empty",
        "clock_skew is more than 300 s",
        "keys_max_age is not between",
        "does not use {a}",
        "neither a query",
        "ca: ",
        "issuer \"corp\": neither audience",
        "issuer \"clear\": url: https is needed, not http",
        "issuer \"remote\": url: http goes to a loopback address only",
        "issuer \"clear\": the name stands twice",
        "stands twice",
    ] {
        assert!(mistakes.contains(expected), "{expected:?} is not in:\n{mistakes}");
    }
    assert!(Identity::new(&[local]).is_ok());
}

#[test]
fn every_cause_and_algorithm_stands_in_the_documentation() {
    let page = include_str!("../../../docs/identity.md");
    for cause in Cause::ALL {
        assert!(page.contains(&format!("| `{}` |", cause.name())), "{}", cause.name());
    }
    for algorithm in Algorithm::DEFAULT {
        assert!(page.contains(&format!("`{algorithm}`")), "{algorithm}");
    }
    let names: BTreeSet<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
    assert_eq!(names.len(), Cause::ALL.len(), "each cause has a name of its own");
}

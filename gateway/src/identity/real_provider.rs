//! Identity and `gatebook token` against a real OpenID Connect provider, over TLS: discovery, ID tokens, RFC
//! 9068 access tokens, the device flow, rotation and withdrawal of keys.
//!
//! `tests/setup` installs the provider's packages.

use std::io::{BufRead as _, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use clap::Parser as _;

use super::http::Http;
use super::{Cause, Credential, Identity, Introspector, IssuerConfig, Principal, PrincipalKind, Rejected};
use crate::token::{TokenArgs, TokenError, fetch};

const ANSWER_MAX: Duration = Duration::from_secs(60);

/// The provider: a process that ends when its standard input does, that is with this value.
struct Provider {
    url: String,
    ca: Vec<u8>,
    folder: tempfile::TempDir,
    process: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Provider {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (authority, certificate, key) = certificates();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let (key, certificate) = (write("key.pem", &key), write("certificate.pem", &certificate));
        let script = write("provider.mjs", include_str!("../../../tests/oidc/provider.mjs"));
        write("ca.pem", &authority);
        let modules = cache().join("oidc/node_modules");
        assert!(modules.is_dir(), "{} is missing: run tests/setup", modules.display());
        let mut process = Command::new("node")
            .args([&script, &key, &certificate, &modules])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node runs: see tests/setup");
        let (said, lines) = channel();
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        let input = process.stdin.take().expect("a pipe");
        let mut provider =
            Self { url: String::new(), ca: authority.into_bytes(), folder, process, input, lines };
        let up = provider.line();
        provider.url = up.strip_prefix("listening on ").expect("a URL").to_owned();
        provider
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(ANSWER_MAX).expect("the provider answers")
    }

    fn command(&mut self, command: &str) {
        assert_eq!(self.ask(command), "done", "{command}");
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").expect("the provider listens");
        self.line()
    }

    fn identity(&self) -> Identity {
        let mut config = IssuerConfig::new("idp", &self.url, "cli");
        config.access_token_audience = Some("urn:gatebook".to_owned());
        config.logout_audience = Some("cli".to_owned());
        config.groups_claim = Some("groups".to_owned());
        config.principal = PrincipalKind::Service;
        config.ca = Some(self.ca.clone());
        Identity::new(&[config]).expect("a configuration")
    }

    fn arguments(&self, more: &[&str]) -> TokenArgs {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: TokenArgs,
        }
        let ca = self.folder.path().join("ca.pem");
        let ca = ca.to_str().expect("text");
        let line = ["token", "--issuer", &self.url, "--ca", ca];
        Line::try_parse_from(line.iter().chain(more)).expect("arguments").args
    }

    async fn client_token(&self) -> String {
        let args = self.arguments(&[
            "--client-id",
            "ci",
            "--client-secret-command",
            "echo ci-secret",
            "--audience",
            "urn:gatebook",
        ]);
        fetch(&args, &mut Vec::new(), tokio::time::sleep).await.expect("a token").to_string()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn certificates() -> (String, String, String) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let authority = params.self_signed(&authority_key).expect("a certificate");
    let issuer = rcgen::Issuer::new(params, authority_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    (authority.pem(), certificate.pem(), key.serialize_pem())
}

/// As in `tests/setup`.
fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    variable("GATEBOOK_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("gatebook")))
        .or_else(|| Some(variable("HOME")?.join(".cache/gatebook")))
        .expect("HOME is set")
}

async fn verify(identity: &Identity, token: &str, later: u64) -> Result<Arc<Principal>, Rejected> {
    identity.verify(&Credential::from(token), SystemTime::now() + Duration::from_secs(later)).await
}

fn groups(principal: &Principal) -> Vec<&str> {
    principal.groups().iter().map(AsRef::as_ref).collect()
}

#[tokio::test]
async fn a_real_provider_is_understood() {
    let mut provider = Provider::start();
    let identity = provider.identity();

    let before = provider.client_token().await;
    let principal = verify(&identity, &before, 0).await.expect("an access token (RFC 9068)");
    assert_eq!((&**principal.id(), groups(&principal)), ("idp:ci", vec!["ci/shop/deploy"]));
    assert_eq!(principal.client().map(AsRef::as_ref), Some("ci"));

    provider.command("rotate");
    let after = provider.client_token().await;
    assert!(verify(&identity, &after, 11).await.is_ok(), "a key that was not known is fetched");
    assert!(verify(&identity, &before, 11).await.is_ok(), "the former key is still published");

    provider.command("withdraw");
    let latest = provider.client_token().await;
    assert!(verify(&identity, &latest, 22).await.is_ok());
    let rejected = verify(&identity, &after, 22).await.expect_err("withdrawn with its key");
    assert_eq!(rejected.cause(), Cause::UnknownKey, "{rejected}");
    let rejected = verify(&identity, &latest, 400).await.expect_err("its time is over");
    assert_eq!(rejected.cause(), Cause::Expired, "{rejected}");

    let other = provider.arguments(&[
        "--client-id",
        "ci",
        "--client-secret-command",
        "echo ci-secret",
        "--audience",
        "urn:another",
    ]);
    let foreign = fetch(&other, &mut Vec::new(), tokio::time::sleep).await.expect("a token");
    let rejected = verify(&identity, &foreign, 22).await.expect_err("made for another resource");
    assert_eq!(rejected.cause(), Cause::WrongAudience, "{rejected}");

    let wrong = provider.arguments(&["--client-id", "ci", "--client-secret-command", "echo guessed"]);
    let error = fetch(&wrong, &mut Vec::new(), tokio::time::sleep).await.expect_err("a wrong secret");
    assert!(matches!(&error, TokenError::Refused(said) if said.contains("invalid_client")), "{error}");
}

#[derive(Clone, Default)]
struct Terminal(Arc<Mutex<Vec<u8>>>);

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a lock").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_person_logs_in_by_the_device_flow() {
    let mut provider = Provider::start();
    let identity = provider.identity();
    let args = provider.arguments(&[
        "--client-id",
        "cli",
        "--scope",
        "openid",
        "--scope",
        "profile",
        "--scope",
        "groups",
    ]);
    let mut terminal = Terminal::default();
    let shown = terminal.clone();
    let provider = Mutex::new(&mut provider);
    // The first pause is the moment at which the person approves, once the provider has said "not yet".
    let approved = Mutex::new(false);
    let pause = |_| {
        let mut approved = approved.lock().expect("a lock");
        if !*approved {
            let text = String::from_utf8(shown.0.lock().expect("a lock").clone()).expect("text");
            let code = text.lines().next().and_then(|line| line.rsplit(' ').next()).expect("a code");
            provider.lock().expect("a lock").command(&format!("approve {code} alice"));
            *approved = true;
        }
        std::future::ready(())
    };
    let token = fetch(&args, &mut terminal, pause).await.expect("a token");
    let principal = verify(&identity, &token, 0).await.expect("an ID token");
    assert_eq!((&**principal.id(), &**principal.name()), ("idp:alice", "alice"));
    assert_eq!(groups(&principal), ["dba", "dev"]);
}

#[tokio::test]
async fn a_logout_of_a_real_provider_is_understood_once() {
    let mut provider = Provider::start();
    let identity = provider.identity();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let uri = format!("http://{}/backchannel-logout", listener.local_addr().expect("an address"));
    let received = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.expect("the provider comes");
        let mut request = Vec::new();
        // The form is the body's only line, and its length stands before it.
        let body = loop {
            stream.read_buf(&mut request).await.expect("a request");
            let text = String::from_utf8(request.clone()).expect("text");
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse().expect("a length"))
            });
            if length == Some(body.len()) {
                break body.to_owned();
            }
        };
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await
            .expect("an answer");
        body
    });
    // The provider's answer comes after ours, so this thread must not wait for it.
    let told = tokio::task::spawn_blocking(move || {
        (provider.ask(&format!("logout alice the-login {uri}")), provider)
    });
    let body = tokio::time::timeout(ANSWER_MAX, received).await.expect("in time").expect("a form");
    let (said, _provider) = told.await.expect("an answer");
    assert_eq!(said, "done");
    let token = body.strip_prefix("logout_token=").expect("one field");
    let verify = || async { identity.verify_logout(&Credential::from(token), SystemTime::now()).await };
    let told = verify().await.map_err(|rejected| rejected.to_string()).expect("a logout token");
    assert_eq!(told.logout.login.as_deref(), Some("idp:the-login"));
    assert_eq!(told.logout.principal.as_deref(), Some("idp:alice"));
    let again = verify().await.err().expect("once");
    assert_eq!(again.cause(), Cause::Replayed);
    told.forget();
    assert!(verify().await.is_ok(), "one that could not be acted on may be told again");
    let rejected =
        identity.verify(&Credential::from(token), SystemTime::now()).await.expect_err("it opens nothing");
    assert_eq!(rejected.cause(), Cause::WrongPurpose);
}

#[tokio::test]
async fn a_real_provider_says_whether_a_token_still_holds() {
    let mut provider = Provider::start();
    let secret = |text: &str| zeroize::Zeroizing::new(text.to_owned());
    let http = Http::new(Some(&provider.ca), false).expect("a client");
    let introspector = Introspector::new(http, &provider.url, "ci");
    let endpoint = introspector.find().await.expect("it has an endpoint for that");
    let said = provider.ask("opaque");
    let token = said.strip_prefix("done ").expect("a token");
    let ask = |with: &str| {
        let (secret, token) = (secret(with), Credential::from(token));
        let (introspector, endpoint) = (&introspector, &endpoint);
        async move { introspector.is_active(endpoint, &secret, &token).await }
    };
    assert_eq!(ask("ci-secret").await, Ok(true));
    let error = ask("guessed").await.expect_err("no answer to a stranger");
    assert!(error.contains("401") && !error.contains("guessed") && !error.contains(token), "{error}");
    provider.command(&format!("end {token}"));
    assert_eq!(ask("ci-secret").await, Ok(false));
    // This provider does not say anything about tokens that are JWTs: no answer, and not "inactive".
    let jwt = Credential::from(provider.client_token().await.as_str());
    let error = introspector.is_active(&endpoint, &secret("ci-secret"), &jwt).await.expect_err("no answer");
    assert!(error.contains("400"), "{error}");
}

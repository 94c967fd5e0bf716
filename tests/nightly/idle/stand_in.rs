//! A stand-in for a PostgreSQL server: it logs everybody in over TLS with SCRAM-SHA-256, as a server does, and then idles.
//!
//! It costs next to nothing a connection, so that thousands of sessions measure the gateway and not the machine. The catalog's
//! connection alone is passed on to a real server, since the gateway waits for what it says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use gatebook_tests::Authority;
use gatebook_tests::postgres::{APP_PASSWORD, CATALOG};
use gatebook_tests::wire::{SSL_REQUEST, frame};
use ring::{digest, hmac, pbkdf2};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What a new PostgreSQL asks for.
const ITERATIONS: std::num::NonZeroU32 = std::num::NonZeroU32::new(4096).expect("it is not zero");
const SALT: [u8; 16] = *b"sixteen salt by.";
/// The longest message of a login.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// A stand-in that listens.
pub(crate) struct StandIn {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    idle: Arc<AtomicUsize>,
}

struct Keys {
    client: hmac::Tag,
    server: hmac::Key,
}

impl StandIn {
    /// Starts one with a certificate of `authority`, before the server that answers for the catalog.
    pub(crate) async fn start(authority: &Authority, catalog: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let tls = TlsAcceptor::from(Arc::new(authority.issue(&["localhost"]).server()));
        let idle = Arc::new(AtomicUsize::new(0));
        let keys = Arc::new(Keys::of(APP_PASSWORD));
        let counted = Arc::clone(&idle);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, keys, idle) = (tls.clone(), Arc::clone(&keys), Arc::clone(&counted));
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, tls, &keys, &idle, catalog).await {
                        eprintln!("stand-in: {error}");
                    }
                });
            }
        });
        Ok(Self { address, idle })
    }

    /// How many sessions are logged in at this moment.
    pub(crate) fn idle(&self) -> usize {
        self.idle.load(Ordering::SeqCst)
    }
}

impl Keys {
    /// RFC 5802, section 3.
    fn of(password: &str) -> Self {
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &SALT, password.as_bytes(), &mut salted);
        let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let server = hmac::sign(&salted, b"Server Key");
        Self {
            client: hmac::sign(&salted, b"Client Key"),
            server: hmac::Key::new(hmac::HMAC_SHA256, server.as_ref()),
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    tls: TlsAcceptor,
    keys: &Keys,
    idle: &AtomicUsize,
    catalog: SocketAddr,
) -> io::Result<()> {
    let mut request = [0; SSL_REQUEST.len()];
    stream.read_exact(&mut request).await?;
    if request != SSL_REQUEST {
        return Err(io::Error::other("the first packet does not ask for TLS"));
    }
    stream.write_all(b"S").await?;
    let mut stream = tls.accept(stream).await?;
    let startup = body(&mut stream, 0).await?;
    if startup.windows(CATALOG.len()).any(|window| window == CATALOG.as_bytes()) {
        let mut server = TcpStream::connect(catalog).await?;
        let length = u32::try_from(startup.len() + 4).expect("it is short").to_be_bytes();
        server.write_all(&[&length, &startup[..]].concat()).await?;
        // It ends when the gateway does.
        let _ = copy_bidirectional(&mut stream, &mut server).await;
        return Ok(());
    }
    log_in(&mut stream, keys).await?;
    idle.fetch_add(1, Ordering::SeqCst);
    // Nothing comes but the end.
    let _ = stream.read(&mut [0; 16]).await;
    idle.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

/// A message's body behind its length, which follows `before` bytes.
async fn body(stream: &mut TlsStream<TcpStream>, before: usize) -> io::Result<Vec<u8>> {
    let mut head = vec![0; before + 4];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes(head[before..].try_into().expect("four bytes")) as usize;
    if !(4..MESSAGE_BYTES_MAX).contains(&length) {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// SCRAM-SHA-256 without channel binding (RFC 5802, section 5), and what a server says once it is ready.
async fn log_in(stream: &mut TlsStream<TcpStream>, keys: &Keys) -> io::Result<()> {
    let wrong = |what: &str| io::Error::other(format!("SCRAM: {what}"));
    let ask = |code: u32, data: &[u8]| frame(b'R', &[&code.to_be_bytes(), data].concat());
    stream.write_all(&ask(10, b"SCRAM-SHA-256\0\0")).await?;
    let first = String::from_utf8(body(stream, 1).await?).map_err(|_| wrong("not text"))?;
    let (header, bare) = match first.split_once("n,,") {
        Some((_, bare)) => ("n,,", bare),
        None => ("y,,", first.split_once("y,,").ok_or_else(|| wrong("no header"))?.1),
    };
    let nonce = bare.split_once("r=").ok_or_else(|| wrong("no nonce"))?.1;
    let challenge = format!("r={nonce}stand-in,s={},i={ITERATIONS}", BASE64.encode(SALT));
    stream.write_all(&ask(11, challenge.as_bytes())).await?;
    let last = String::from_utf8(body(stream, 1).await?).map_err(|_| wrong("not text"))?;
    let (unproven, proof) = last.split_once(",p=").ok_or_else(|| wrong("no proof"))?;
    if unproven != format!("c={},r={nonce}stand-in", BASE64.encode(header)) {
        return Err(wrong("another nonce, or another channel"));
    }
    let message = format!("{bare},{challenge},{unproven}");
    let stored = digest::digest(&digest::SHA256, keys.client.as_ref());
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, stored.as_ref()), message.as_bytes());
    let expected = keys.client.as_ref().iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign);
    if BASE64.decode(proof).ok() != Some(expected.collect()) {
        return Err(wrong("another password"));
    }
    let verifier = format!("v={}", BASE64.encode(hmac::sign(&keys.server, message.as_bytes())));
    let mut welcome = [ask(12, verifier.as_bytes()), ask(0, &[])].concat();
    for (name, value) in [
        ("server_version", "18.0"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("integer_datetimes", "on"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
    ] {
        welcome.extend(frame(b'S', format!("{name}\0{value}\0").as_bytes()));
    }
    welcome.extend(frame(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]));
    welcome.extend(frame(b'Z', b"I"));
    stream.write_all(&welcome).await
}

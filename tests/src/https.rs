//! HTTP/1.1 over TLS by hand, one request a connection: for requests that no library would send, too.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use crate::machine::ANSWER_MAX;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A server to ask.
pub struct Https {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status; 0 where the server closed without an answer.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of the cookie that it sets, where it sets one of this name to something.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let set = self.headers.iter().filter(|(known, _)| known == "set-cookie");
        let mut values =
            set.filter_map(|(_, value)| value.strip_prefix(name)?.strip_prefix('=')?.split(';').next());
        values.rfind(|value| !value.is_empty())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

impl Https {
    /// A server at this address, whose certificate is verified as `localhost`'s.
    #[must_use]
    pub fn new(address: SocketAddr, tls: ClientConfig) -> Self {
        Self { address, tls: Arc::new(tls) }
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Asks for a path, with a token or without.
    ///
    /// # Panics
    /// When the server cannot be reached.
    #[must_use]
    pub fn get(&self, path: &str, token: Option<&str>) -> Reply {
        self.ask("GET", path, token, "", "")
    }

    /// Posts JSON.
    ///
    /// # Panics
    /// When the server cannot be reached.
    #[must_use]
    pub fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Reply {
        self.ask("POST", path, token, "application/json", &body.to_string())
    }

    /// Posts a form.
    ///
    /// # Panics
    /// When the server cannot be reached.
    #[must_use]
    pub fn form(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let encoded: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
        self.ask("POST", path, None, "application/x-www-form-urlencoded", &encoded.join("&"))
    }

    /// Follows server-sent events until `go_on` says no. Each is the JSON behind its `data:`.
    ///
    /// # Panics
    /// When the server cannot be reached, answers otherwise, or ends first.
    pub fn follow(&self, path: &str, token: &str, go_on: impl FnMut(&Value) -> bool) {
        let stopped = self.events(path, &[("authorization", &format!("Bearer {token}"))], go_on);
        assert!(stopped, "the stream ended first");
    }

    /// Follows server-sent events until `go_on` says no, or the server ends them: whether it was `go_on`.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub fn events(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        mut go_on: impl FnMut(&Value) -> bool,
    ) -> bool {
        let stream = TcpStream::connect(self.address).expect("the server can be reached");
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("a deadline");
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.tls), name).expect("a configuration");
        let mut stream = StreamOwned::new(connection, stream);
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{}\r\n", lines(headers));
        stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).expect("the server reads");
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return false };
            // The pieces of the chunked coding stand on lines of their own.
            let Some(data) = line.strip_prefix("data: ") else { continue };
            if !go_on(&serde_json::from_str(data).expect("an event is JSON")) {
                return true;
            }
        }
        false
    }

    /// Sends a request with these headers, and none of our own but the host's and the length.
    ///
    /// # Panics
    /// When the server cannot be reached.
    #[must_use]
    pub fn with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}content-length: {}\r\n\r\n{body}",
            lines(headers),
            body.len()
        ))
    }

    /// Sends a request made of these.
    ///
    /// # Panics
    /// When the server cannot be reached.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, token: Option<&str>, kind: &str, body: &str) -> Reply {
        let authorization =
            token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
        let kind = if kind.is_empty() { String::new() } else { format!("content-type: {kind}\r\n") };
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{authorization}{kind}\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Sends these bytes, whatever they are.
    ///
    /// # Panics
    /// When the server cannot be reached.
    #[must_use]
    pub fn raw(&self, request: &str) -> Reply {
        let stream = TcpStream::connect(self.address).expect("the server can be reached");
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("a deadline");
        stream.set_write_timeout(Some(ANSWER_MAX)).expect("a deadline");
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.tls), name).expect("a configuration");
        let mut stream = StreamOwned::new(connection, stream);
        // A server may refuse before it has read everything.
        let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.flush());
        let mut answer = Vec::new();
        let _ = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
        read(&String::from_utf8_lossy(&answer))
    }
}

fn read(answer: &str) -> Reply {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Reply { status, headers, body: body.to_owned() }
}

fn lines(headers: &[(&str, &str)]) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// The names and values of a query or a form; of what stands twice the last.
#[must_use]
pub fn pairs(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (plain(name), plain(value))).collect()
}

fn plain(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8(digits).unwrap_or_default();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A text as it stands in a query or a form.
#[must_use]
pub fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("%{byte:02X}");
        }
        escaped
    })
}

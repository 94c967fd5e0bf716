//! PostgreSQL's wire protocol by hand: for all that no driver would ever send.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::machine::ANSWER_MAX;

/// The longest message that this client believes in.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// `SSLRequest` (PostgreSQL, Message Formats).
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// `GSSENCRequest`.
pub const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

/// One message from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its first byte.
    pub tag: u8,
    /// What follows its length.
    pub body: Vec<u8>,
}

/// The fields of an `ErrorResponse` or a `NoticeResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// `ERROR`, `FATAL`, …
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// The message.
    pub message: String,
    /// The hint, where there is one.
    pub hint: String,
}

impl Message {
    /// What it reports, when it is an error or a notice.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        if !matches!(self.tag, b'E' | b'N') {
            return None;
        }
        let mut report = Report::default();
        for field in self.body.split(|byte| *byte == 0).filter(|field| !field.is_empty()) {
            let text = String::from_utf8_lossy(&field[1..]).into_owned();
            match field[0] {
                b'V' => report.severity = text,
                b'C' => report.code = text,
                b'M' => report.message = text,
                b'H' => report.hint = text,
                _ => {}
            }
        }
        Some(report)
    }

    /// The message in a few words, so that a test can name what it expects: `T`, `D 1,two`, `C INSERT 0 1`, `E 42501`, `Z I`.
    #[must_use]
    pub fn brief(&self) -> String {
        let tag = char::from(self.tag);
        match self.tag {
            b'C' => format!("C {}", String::from_utf8_lossy(&self.body).trim_end_matches('\0')),
            b'Z' => format!("Z {}", String::from_utf8_lossy(&self.body)),
            b'E' | b'N' => format!("{tag} {}", self.report().unwrap_or_default().code),
            b'D' => format!("D {}", cells(&self.body).join(",")),
            b'd' => format!("d {}", String::from_utf8_lossy(&self.body).trim_end()),
            _ => tag.to_string(),
        }
    }
}

/// The cells of a `DataRow` as text; NULL as `∅`.
#[must_use]
pub fn cells(body: &[u8]) -> Vec<String> {
    let mut cells = Vec::new();
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => {
                let (cell, next) = after.split_at(length.min(after.len()));
                cells.push(String::from_utf8_lossy(cell).into_owned());
                rest = next;
            }
            Err(_) => {
                cells.push("∅".to_owned());
                rest = after;
            }
        }
    }
    cells
}

/// All messages in a few words, without those that only tell of the session's settings.
#[must_use]
pub fn brief(messages: &[Message]) -> Vec<String> {
    messages.iter().filter(|message| message.tag != b'S').map(Message::brief).collect()
}

enum Stream {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection to a server, or to what stands before it.
pub struct Client {
    stream: Stream,
    /// The process number and secret key that a cancel request must name.
    pub cancel_key: Vec<u8>,
}

impl Client {
    /// Connects in clear.
    ///
    /// # Panics
    /// When nothing listens.
    #[must_use]
    pub fn clear(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, ANSWER_MAX).expect("something listens");
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("a deadline can be set");
        stream.set_write_timeout(Some(ANSWER_MAX)).expect("a deadline can be set");
        stream.set_nodelay(true).expect("a socket option can be set");
        Self { stream: Stream::Clear(stream), cancel_key: Vec::new() }
    }

    /// Connects and asks for TLS.
    ///
    /// # Panics
    /// When there is no TLS.
    #[must_use]
    pub fn tls(address: SocketAddr, config: ClientConfig) -> Self {
        Self::tls_to("localhost", address, config).expect("the server speaks TLS")
    }

    /// As [`Client::tls`], with the server of this name.
    ///
    /// # Errors
    /// When the handshake fails.
    ///
    /// # Panics
    /// When there is no TLS.
    pub fn tls_to(name: &'static str, address: SocketAddr, config: ClientConfig) -> io::Result<Self> {
        let mut client = Self::clear(address);
        client.send(&SSL_REQUEST).expect("the server reads");
        let mut answer = [0];
        client.read_exact(&mut answer).expect("the server answers");
        assert_eq!(answer, *b"S", "the server has TLS");
        client.upgrade_to(name, config)
    }

    /// Connects with TLS from the first byte, as libpq 17 and later can.
    ///
    /// # Errors
    /// When the handshake fails.
    pub fn direct_tls(address: SocketAddr, mut config: ClientConfig) -> io::Result<Self> {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Self::clear(address).upgrade(config)
    }

    /// Begins TLS on a connection in clear.
    ///
    /// # Errors
    /// When the handshake fails.
    ///
    /// # Panics
    /// When TLS has begun already.
    pub fn upgrade(self, config: ClientConfig) -> io::Result<Self> {
        self.upgrade_to("localhost", config)
    }

    /// Begins TLS with the server of this name, which a client says unless its configuration keeps it from that.
    ///
    /// # Errors
    /// When the handshake fails.
    ///
    /// # Panics
    /// When TLS has begun already.
    pub fn upgrade_to(self, name: &'static str, config: ClientConfig) -> io::Result<Self> {
        let Stream::Clear(mut socket) = self.stream else { panic!("TLS has begun already") };
        let name = ServerName::try_from(name).expect("it is a name");
        let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Self { stream: Stream::Tls(Box::new(StreamOwned::new(tls, socket))), cancel_key: Vec::new() })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Clear(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// When they do not come.
    pub fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Clear(stream) => stream.read_exact(bytes),
            Stream::Tls(stream) => stream.read_exact(bytes),
        }
    }

    /// Reads one message: none when the other side has closed.
    ///
    /// # Errors
    /// When it does not come in time, or is none.
    pub fn receive(&mut self) -> io::Result<Option<Message>> {
        let mut head = [0; 5];
        match self.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if closed(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if !(4..MESSAGE_BYTES_MAX).contains(&length) {
            return Err(io::Error::other(format!("a message of {length} bytes")));
        }
        let mut body = vec![0; length - 4];
        self.read_exact(&mut body)?;
        Ok(Some(Message { tag: head[0], body }))
    }

    /// Reads messages up to and including the first of these tags, or to the end of the connection.
    ///
    /// # Panics
    /// When they do not come in time.
    pub fn receive_until(&mut self, tags: &[u8]) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            match self.receive().expect("the server answers in time") {
                None => return all,
                Some(message) => {
                    let last = tags.contains(&message.tag);
                    all.push(message);
                    if last {
                        return all;
                    }
                }
            }
        }
    }

    /// Everything that comes until the other side closes.
    ///
    /// # Panics
    /// When it does not close in time.
    pub fn receive_to_end(&mut self) -> Vec<Message> {
        self.receive_until(&[])
    }

    /// Logs in with a password or a token, over SCRAM or in clear, as the server asks.
    ///
    /// # Errors
    /// What the server says when it refuses.
    ///
    /// # Panics
    /// When the server breaks the protocol.
    pub fn login(&mut self, user: &str, database: &str, password: &str) -> Result<(), Report> {
        self.send(&startup(&[("user", user), ("database", database)])).expect("the server reads");
        self.authenticate(password)
    }

    /// Answers what a server asks after the startup message.
    ///
    /// # Errors
    /// What the server says when it refuses.
    ///
    /// # Panics
    /// When the server breaks the protocol.
    pub fn authenticate(&mut self, password: &str) -> Result<(), Report> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let message =
                self.receive().expect("the server answers in time").expect("the server says why it closes");
            match (message.tag, message.body.get(..4)) {
                (b'E', _) => return Err(message.report().expect("an error reports")),
                (b'R', Some([0, 0, 0, 3])) => {
                    let mut body = password.as_bytes().to_vec();
                    body.push(0);
                    self.send(&frame(b'p', &body)).expect("the server reads");
                }
                (b'R', Some([0, 0, 0, 10])) => {
                    self.send(&sasl("SCRAM-SHA-256", scram.message())).expect("the server reads");
                }
                (b'R', Some([0, 0, 0, 11])) => {
                    scram.update(&message.body[4..]).expect("the server knows SCRAM");
                    self.send(&frame(b'p', scram.message())).expect("the server reads");
                }
                (b'R', Some([0, 0, 0, 12])) => {
                    scram.finish(&message.body[4..]).expect("the server knows the password")
                }
                (b'K', _) => self.cancel_key = message.body,
                (b'Z', _) => return Ok(()),
                (b'R' | b'S' | b'N' | b'v', _) => {}
                _ => panic!("unexpected at login: {message:?}"),
            }
        }
    }

    /// Sends frames and reads the answers up to the next `ReadyForQuery`.
    ///
    /// # Panics
    /// When they do not come in time.
    pub fn ask(&mut self, frames: &[Vec<u8>]) -> Vec<Message> {
        self.send(&frames.concat()).expect("the server reads");
        self.receive_until(b"Z")
    }

    /// Runs a simple query and tells the answers in a few words.
    ///
    /// # Panics
    /// When they do not come in time.
    pub fn simple(&mut self, sql: &str) -> Vec<String> {
        brief(&self.ask(&[query(sql)]))
    }
}

/// Whether an error only says that the other side has closed.
fn closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

/// A message with its tag and length.
///
/// # Panics
/// When the body is longer than the protocol can say.
#[must_use]
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(u32::try_from(body.len() + 4).expect("it is shorter than 4 GB").to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A startup message of version 3.0.
///
/// # Panics
/// When it is longer than the protocol can say.
#[must_use]
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    startup_of(0, parameters)
}

/// A startup message of version 3.`minor`.
///
/// # Panics
/// When it is longer than the protocol can say.
#[must_use]
pub fn startup_of(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 3];
    body.extend(minor.to_be_bytes());
    for (name, value) in parameters {
        for text in [name, value] {
            body.extend(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    let mut bytes = u32::try_from(body.len() + 4).expect("it is shorter than 4 GB").to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// `CancelRequest` for a key that a server gave at login.
///
/// # Panics
/// When the key is longer than the protocol can say.
#[must_use]
pub fn cancel(key: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(key.len() + 8).expect("a key is short").to_be_bytes().to_vec();
    bytes.extend([0x04, 0xd2, 0x16, 0x2e]);
    bytes.extend(key);
    bytes
}

fn text(parts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend(part.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// The first message of a SASL exchange (`SASLInitialResponse`).
///
/// # Panics
/// When the response is longer than the protocol can say.
#[must_use]
pub fn sasl(mechanism: &str, response: &[u8]) -> Vec<u8> {
    let mut body = text(&[mechanism]);
    body.extend(i32::try_from(response.len()).expect("it is short").to_be_bytes());
    body.extend(response);
    frame(b'p', &body)
}

/// A client's OAUTHBEARER message (RFC 7628, section 3.1); without a token it asks where tokens are to be had.
#[must_use]
pub fn bearer(token: Option<&str>) -> Vec<u8> {
    let auth = token.map(|token| format!("Bearer {token}")).unwrap_or_default();
    sasl("OAUTHBEARER", format!("n,,\x01auth={auth}\x01\x01").as_bytes())
}

/// `Query`.
#[must_use]
pub fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &text(&[sql]))
}

/// `Parse` that leaves the parameters' types to the server.
#[must_use]
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    let mut body = text(&[name, sql]);
    body.extend([0, 0]);
    frame(b'P', &body)
}

/// `Bind` with parameters as text, and results as text.
///
/// # Panics
/// When there are more parameters than the protocol can say.
#[must_use]
pub fn bind(portal: &str, name: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    bind_as(portal, name, parameters, false)
}

/// `Bind` with parameters as text, and all results as text or all in binary.
///
/// # Panics
/// When there are more parameters than the protocol can say.
#[must_use]
pub fn bind_as(portal: &str, name: &str, parameters: &[Option<&str>], binary: bool) -> Vec<u8> {
    let mut body = text(&[portal, name]);
    body.extend([0, 0]);
    body.extend(u16::try_from(parameters.len()).expect("they are few").to_be_bytes());
    for parameter in parameters {
        match parameter {
            None => body.extend((-1_i32).to_be_bytes()),
            Some(value) => {
                body.extend(i32::try_from(value.len()).expect("they are short").to_be_bytes());
                body.extend(value.as_bytes());
            }
        }
    }
    body.extend([0, 1, 0, u8::from(binary)]);
    frame(b'B', &body)
}

/// `Execute`; 0 rows are all rows.
#[must_use]
pub fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    let mut body = text(&[portal]);
    body.extend(rows_max.to_be_bytes());
    frame(b'E', &body)
}

/// `Describe` of a statement (`S`) or a portal (`P`).
#[must_use]
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    let mut body = vec![kind];
    body.extend(text(&[name]));
    frame(b'D', &body)
}

/// `Sync`.
#[must_use]
pub fn sync() -> Vec<u8> {
    frame(b'S', &[])
}

/// `CopyData`.
#[must_use]
pub fn copy_data(data: &str) -> Vec<u8> {
    frame(b'd', data.as_bytes())
}

/// `CopyDone`.
#[must_use]
pub fn copy_done() -> Vec<u8> {
    frame(b'c', &[])
}

/// `FunctionCall` with arguments and result as text.
///
/// # Panics
/// When there are more arguments than the protocol can say.
#[must_use]
pub fn function_call(number: u32, arguments: &[&str]) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    body.extend([0, 0]);
    body.extend(u16::try_from(arguments.len()).expect("they are few").to_be_bytes());
    for argument in arguments {
        body.extend(i32::try_from(argument.len()).expect("they are short").to_be_bytes());
        body.extend(argument.as_bytes());
    }
    body.extend([0, 0]);
    frame(b'F', &body)
}

/// `Terminate`.
#[must_use]
pub fn terminate() -> Vec<u8> {
    frame(b'X', &[])
}

/// A statement with its parameters, from Parse to Execute, without the Sync.
#[must_use]
pub fn extended(sql: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    [parse("", sql), bind("", "", parameters), execute("", 0)].concat()
}

//! The opening of a PostgreSQL connection: the first packet, its parameters, and what of them may pass on.
//!
//! Only a written list of startup parameters reaches an upstream. `options` is parsed as the server parses it
//! (`-c name=value`, `--name=value`, backslash escapes) and each setting in it is held to the same list.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::frame::Message;
use super::report::put_string;
use crate::limits;

/// The highest minor protocol version that we speak: 3.2, whose cancel keys may be long.
pub const MINOR_VERSION_MAX: u16 = 2;

/// The ALPN name by which a client asks for TLS from the first byte.
pub const ALPN: &[u8] = b"postgresql";

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENCRYPTION_REQUEST: u32 = 80_877_104;

/// The longest cancel key of protocol 3.2.
pub const CANCEL_KEY_BYTES_MAX: usize = 256;

/// What a connection's first packet asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// TLS, if we have it.
    Tls,
    /// GSSAPI encryption, which we refuse.
    Gss,
    /// To cancel what a session runs.
    Cancel(CancelKey),
    /// A session.
    Startup(Startup),
}

/// What a CancelRequest carries.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    /// The number that stands for the server's process.
    pub process_id: u32,
    /// The secret.
    pub secret: Bytes,
}

impl CancelKey {
    /// Both parts behind each other.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        [&self.process_id.to_be_bytes()[..], &self.secret].concat()
    }
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey").finish_non_exhaustive()
    }
}

/// A StartupMessage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// The minor version that the client asked for.
    pub minor_version: u16,
    /// `_pq_.` options, none of which we know.
    pub protocol_options: Vec<Bytes>,
    /// All other parameters, by name.
    pub parameters: BTreeMap<String, String>,
}

/// A first packet that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpeningError {
    /// The packet's length is impossible.
    #[error("first packet claims {0} bytes")]
    Length(u32),
    /// A major version other than 3.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{MINOR_VERSION_MAX}")]
    Version {
        /// The major version asked for.
        major: u16,
        /// The minor version asked for.
        minor: u16,
    },
    /// The packet does not follow its format.
    #[error("malformed startup packet: {0}")]
    Malformed(&'static str),
}

/// Takes a connection's first packet off `buffer`, or nothing when more must arrive.
///
/// # Errors
/// [`OpeningError`] when what has arrived can be no first packet; no more than its header is looked at.
pub fn decode_opening(buffer: &mut BytesMut) -> Result<Option<Opening>, OpeningError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head);
    if !(8..=limits::STARTUP_BYTES_MAX).contains(&(length as usize)) {
        return Err(OpeningError::Length(length));
    }
    if buffer.len() < length as usize {
        return Ok(None);
    }
    let mut packet = buffer.split_to(length as usize).freeze();
    packet.advance(4);
    let code = packet.get_u32();
    match code {
        SSL_REQUEST if packet.is_empty() => Ok(Some(Opening::Tls)),
        GSS_ENCRYPTION_REQUEST if packet.is_empty() => Ok(Some(Opening::Gss)),
        CANCEL_REQUEST if (8..=4 + CANCEL_KEY_BYTES_MAX).contains(&packet.len()) => {
            Ok(Some(Opening::Cancel(CancelKey { process_id: packet.get_u32(), secret: packet })))
        }
        SSL_REQUEST | GSS_ENCRYPTION_REQUEST | CANCEL_REQUEST => {
            Err(OpeningError::Malformed("a request of the wrong length"))
        }
        _ => startup(code, packet).map(|startup| Some(Opening::Startup(startup))),
    }
}

fn startup(code: u32, mut packet: Bytes) -> Result<Startup, OpeningError> {
    let (major, minor_version) = ((code >> 16) as u16, (code & 0xffff) as u16);
    if major != 3 {
        return Err(OpeningError::Version { major, minor: minor_version });
    }
    let mut startup = Startup { minor_version, protocol_options: Vec::new(), parameters: BTreeMap::new() };
    loop {
        let name =
            take_string(&mut packet).ok_or(OpeningError::Malformed("a parameter's name has no end"))?;
        if name.is_empty() {
            break;
        }
        let value =
            take_string(&mut packet).ok_or(OpeningError::Malformed("a parameter's value has no end"))?;
        if name.starts_with(b"_pq_.") {
            startup.protocol_options.push(name);
            continue;
        }
        let text = |bytes: Bytes| {
            String::from_utf8(bytes.into()).map_err(|_| OpeningError::Malformed("a parameter is not UTF-8"))
        };
        if startup.parameters.insert(text(name)?, text(value)?).is_some() {
            return Err(OpeningError::Malformed("a parameter is given twice"));
        }
    }
    if packet.is_empty() { Ok(startup) } else { Err(OpeningError::Malformed("bytes left over at the end")) }
}

fn take_string(packet: &mut Bytes) -> Option<Bytes> {
    let end = packet.iter().position(|&byte| byte == 0)?;
    let text = packet.split_to(end);
    packet.advance(1);
    Some(text)
}

/// What a client asked for at startup, held against the list of what may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The role of the upstream that it wants to be.
    pub user: String,
    /// The database; the role's name where none was given, as PostgreSQL has it.
    pub database: String,
    /// What it calls itself.
    pub application_name: String,
    /// Settings that pass on, by lower-case name.
    pub settings: BTreeMap<String, String>,
    /// Settings for the gateway itself (`gatebook.approval`), by what follows the dot. They do not pass on.
    pub for_gateway: BTreeMap<String, String>,
}

/// A startup parameter that may not pass.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParameterError {
    /// No user was named.
    #[error("no user name in the startup packet; name the upstream role to assume, as in \"user=app_ro\"")]
    NoUser,
    /// A parameter that is not on the list.
    #[error(
        "startup parameter \"{0}\" is not allowed through this gateway; set it after login where policy permits"
    )]
    NotAllowed(String),
    /// An encoding other than UTF8.
    #[error("client_encoding \"{0}\" is not allowed through this gateway; set PGCLIENTENCODING=UTF8")]
    Encoding(String),
    /// A replication connection.
    #[error("replication connections are not allowed through this gateway")]
    Replication,
    /// `options` holds something other than settings.
    #[error("startup parameter \"options\" holds \"{0}\"; only -c name=value and --name=value are allowed")]
    Options(String),
}

/// Settings that a client may bring at startup, besides `user`, `database`, `client_encoding` and `options`.
/// None of them changes what a statement means or may do; `search_path` is followed by the analysis.
pub const STARTUP_SETTINGS: [&str; 17] = [
    "application_name",
    "bytea_output",
    "client_min_messages",
    "datestyle",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "plan_cache_mode",
    "search_path",
    "statement_timeout",
    "tcp_keepalives_idle",
    "timezone",
    "work_mem",
];

/// Settings that a client may bring for the gateway itself.
pub const GATEWAY_SETTINGS: [&str; 1] = ["gatebook.approval"];

impl Startup {
    /// Holds the parameters against the list of what may pass.
    ///
    /// # Errors
    /// [`ParameterError`] for the first that may not.
    pub fn request(&self) -> Result<Request, ParameterError> {
        let mut settings = BTreeMap::new();
        let mut user = None;
        let mut database = None;
        // `options` comes first, since a parameter of its own overrides it.
        if let Some(options) = self.parameters.get("options") {
            for (name, value) in parse_options(options)? {
                admit(&name, &value, &mut settings)?;
            }
        }
        for (name, value) in &self.parameters {
            match name.as_str() {
                "user" => user = Some(value.clone()),
                "database" => database = Some(value.clone()),
                "options" => {}
                "replication" if matches!(value.as_str(), "false" | "off" | "no" | "0") => {}
                "replication" => return Err(ParameterError::Replication),
                _ => admit(name, value, &mut settings)?,
            }
        }
        let user = user.filter(|user| !user.is_empty()).ok_or(ParameterError::NoUser)?;
        let database = database.filter(|database| !database.is_empty()).unwrap_or_else(|| user.clone());
        let application_name = settings.remove("application_name").unwrap_or_default();
        let for_gateway = GATEWAY_SETTINGS
            .iter()
            .filter_map(|name| Some((name.split_once('.')?.1.to_owned(), settings.remove(*name)?)))
            .collect();
        Ok(Request { user, database, application_name, settings, for_gateway })
    }
}

fn admit(name: &str, value: &str, settings: &mut BTreeMap<String, String>) -> Result<(), ParameterError> {
    let lower = name.to_ascii_lowercase();
    if lower == "client_encoding" {
        return if is_utf8(value) { Ok(()) } else { Err(ParameterError::Encoding(value.to_owned())) };
    }
    if !STARTUP_SETTINGS.contains(&lower.as_str()) && !GATEWAY_SETTINGS.contains(&lower.as_str()) {
        return Err(ParameterError::NotAllowed(name.to_owned()));
    }
    settings.insert(lower, value.to_owned());
    Ok(())
}

/// Whether a name of an encoding is one of UTF-8's, read as PostgreSQL reads it: case and punctuation do not count.
#[must_use]
pub fn is_utf8(encoding: &str) -> bool {
    let plain: String =
        encoding.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    matches!(plain.as_str(), "utf8" | "unicode")
}

/// Splits `options` as the server does: at white space, a backslash makes the next character literal.
fn parse_options(options: &str) -> Result<Vec<(String, String)>, ParameterError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            c if c.is_ascii_whitespace() || c == '\x0b' => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("--") {
            Some(rest) => rest.to_owned(),
            None => match word.strip_prefix("-c") {
                Some("") => words.next().unwrap_or_default(),
                Some(rest) => rest.to_owned(),
                None => return Err(ParameterError::Options(word)),
            },
        };
        match assignment.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                settings.push((name.replace('-', "_"), value.to_owned()))
            }
            _ => return Err(ParameterError::Options(word)),
        }
    }
    Ok(settings)
}

/// The first packet of a session with an upstream, protocol 3.0.
#[must_use]
pub fn startup_packet<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Bytes {
    let mut packet = BytesMut::with_capacity(256);
    packet.put_u32(0);
    packet.put_u32(0x0003_0000);
    for (name, value) in parameters {
        put_string(&mut packet, name);
        put_string(&mut packet, value);
    }
    packet.put_u8(0);
    finish_packet(packet)
}

/// The packet that asks an upstream for TLS.
#[must_use]
pub fn ssl_request() -> Bytes {
    let mut packet = BytesMut::with_capacity(8);
    packet.put_u32(0);
    packet.put_u32(SSL_REQUEST);
    finish_packet(packet)
}

/// The packet that asks an upstream to cancel what a session runs.
#[must_use]
pub fn cancel_request(key: &CancelKey) -> Bytes {
    let mut packet = BytesMut::with_capacity(16);
    packet.put_u32(0);
    packet.put_u32(CANCEL_REQUEST);
    packet.put_u32(key.process_id);
    packet.put_slice(&key.secret);
    finish_packet(packet)
}

fn finish_packet(mut packet: BytesMut) -> Bytes {
    let length = u32::try_from(packet.len()).expect("a packet of ours is short");
    packet[..4].copy_from_slice(&length.to_be_bytes());
    packet.freeze()
}

/// A PasswordMessage, for an upstream.
#[must_use]
pub fn password(secret: &str) -> Message {
    Message::build(b'p', |out| put_string(out, secret))
}

/// A SASLInitialResponse, for an upstream.
#[must_use]
pub fn sasl_initial_response(mechanism: &str, response: &[u8]) -> Message {
    Message::build(b'p', |out| {
        put_string(out, mechanism);
        out.put_u32(u32::try_from(response.len()).expect("a SASL message of ours is short"));
        out.put_slice(response);
    })
}

/// A SASLResponse, for an upstream.
#[must_use]
pub fn sasl_response(response: &[u8]) -> Message {
    Message::build(b'p', |out| out.put_slice(response))
}

/// What a client's SASL message for OAUTHBEARER carries (RFC 7628, section 3.1).
#[derive(Clone, PartialEq, Eq)]
pub enum Bearer {
    /// A token.
    Token(Bytes),
    /// Nothing: the client asks where tokens are to be had (section 4.3).
    Discovery,
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Bearer::Token(_) => "Token(…)",
            Bearer::Discovery => "Discovery",
        })
    }
}

/// Reads an initial client response: `n,[a=authzid],^Akey=value^A…^A^A` with the one key `auth`, `host` and `port` being of no use here.
#[must_use]
pub fn bearer(response: &Bytes) -> Option<Bearer> {
    let at = response.iter().position(|&byte| byte == 1)?;
    // An authorization identity other than the token's own subject is not taken.
    if !matches!(&response[..at], b"n,," | b"y,,") {
        return None;
    }
    let pairs = response.slice(at + 1..);
    let pairs = pairs
        .strip_suffix(b"\x01\x01")
        .or_else(|| pairs.strip_suffix(b"\x01").filter(|rest| rest.is_empty()))?;
    let mut auth = None;
    for pair in pairs.split(|&byte| byte == 1) {
        match pair.split_at_checked(5) {
            Some((b"auth=", value)) if auth.is_none() => auth = Some(value),
            Some((b"host=" | b"port=", _)) => {}
            _ => return None,
        }
    }
    let auth = auth?;
    if auth.is_empty() {
        return Some(Bearer::Discovery);
    }
    let (scheme, token) = auth.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty())
        .then(|| Bearer::Token(response.slice_ref(token)))
}

/// What a client that asked where tokens are to be had is told (RFC 7628, section 3.2.2), as JSON.
#[must_use]
pub fn bearer_challenge(issuer: &str) -> String {
    let escaped: String = issuer.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')).collect();
    let document = format!("{}/.well-known/openid-configuration", escaped.trim_end_matches('/'));
    format!("{{\"status\":\"invalid_token\",\"scope\":\"openid\",\"openid-configuration\":\"{document}\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup_of(parameters: &[(&str, &str)]) -> Startup {
        let mut buffer = BytesMut::from(&startup_packet(parameters.iter().copied())[..]);
        match decode_opening(&mut buffer) {
            Ok(Some(Opening::Startup(startup))) => startup,
            other => panic!("not a startup: {other:?}"),
        }
    }

    #[test]
    fn options_are_read_as_the_server_reads_them() {
        let request = startup_of(&[
            ("user", "u"),
            ("options", r"-c statement_timeout=5s --work-mem=4MB -csearch_path=a\ b,\\c"),
        ])
        .request();
        let settings = request.expect("all of these may pass").settings;
        assert_eq!(settings["statement_timeout"], "5s");
        assert_eq!(settings["work_mem"], "4MB");
        assert_eq!(settings["search_path"], r"a b,\c");
        let request = startup_of(&[("user", "u"), ("options", "-c gatebook.approval=ask")]).request();
        let request = request.expect("it is for the gateway");
        assert_eq!((&*request.for_gateway["approval"], request.settings.len()), ("ask", 0));
    }

    #[test]
    fn what_is_not_on_the_list_does_not_pass() {
        let refused =
            |parameters: &[(&str, &str)]| startup_of(parameters).request().expect_err("this must not pass");
        assert_eq!(
            refused(&[("user", "u"), ("session_preload_libraries", "x")]),
            ParameterError::NotAllowed("session_preload_libraries".into())
        );
        assert_eq!(
            refused(&[("user", "u"), ("options", "-c default_transaction_read_only=false")]),
            ParameterError::NotAllowed("default_transaction_read_only".into())
        );
        assert_eq!(refused(&[("user", "u"), ("options", "-W 5")]), ParameterError::Options("-W".into()));
        assert_eq!(
            refused(&[("user", "u"), ("client_encoding", "SJIS")]),
            ParameterError::Encoding("SJIS".into())
        );
        assert_eq!(
            refused(&[("user", "u"), ("options", "-c client_encoding=LATIN1")]),
            ParameterError::Encoding("LATIN1".into())
        );
        assert_eq!(refused(&[("user", "u"), ("replication", "database")]), ParameterError::Replication);
        assert_eq!(refused(&[("database", "d")]), ParameterError::NoUser);
    }

    #[test]
    fn a_first_packet_is_held_to_its_length() {
        for (bytes, error) in [
            (&b"\0\0\0\x07"[..], OpeningError::Length(7)),
            (b"\x7f\xff\xff\xff", OpeningError::Length(0x7fff_ffff)),
            (b"GET / HTTP/1.1\r\n", OpeningError::Length(0x4745_5420)),
            (b"\0\0\0\x09\x04\xd2\x16\x2f\0", OpeningError::Malformed("a request of the wrong length")),
            (b"\0\0\0\x08\0\x02\0\0", OpeningError::Version { major: 2, minor: 0 }),
        ] {
            assert_eq!(decode_opening(&mut BytesMut::from(bytes)), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn a_first_packet_waits_for_its_last_byte() {
        let packet = startup_packet([("user", "u"), ("database", "d")]);
        for cut in 0..packet.len() {
            assert_eq!(decode_opening(&mut BytesMut::from(&packet[..cut])), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn a_bearer_message_is_read_strictly() {
        let read = |text: &'static [u8]| bearer(&Bytes::from_static(text));
        assert_eq!(
            read(b"n,,\x01auth=Bearer abc.def\x01\x01"),
            Some(Bearer::Token(Bytes::from_static(b"abc.def")))
        );
        assert_eq!(
            read(b"n,,\x01host=h\x01auth=bearer t\x01\x01"),
            Some(Bearer::Token(Bytes::from_static(b"t")))
        );
        assert_eq!(read(b"n,,\x01auth=\x01\x01"), Some(Bearer::Discovery));
        for wrong in [
            &b"n,a=other,\x01auth=Bearer t\x01\x01"[..],
            b"n,,\x01auth=Basic t\x01\x01",
            b"n,,\x01auth=Bearer a\x01auth=Bearer b\x01\x01",
            b"n,,\x01auth=Bearer t",
            b"p=x,,\x01auth=Bearer t\x01\x01",
            b"",
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}

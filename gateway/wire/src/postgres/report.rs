//! The messages that the gateway itself says: errors, notices, readiness. PostgreSQL manual, "Error and Notice Message Fields".

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{Fields, Malformed, Message};
use crate::protocol::{Excess, Refusal, RefusalKind};

/// SQLSTATE of a refusal.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// SQLSTATE of a command that its client took back.
pub const QUERY_CANCELED: &str = "57014";
/// SQLSTATE of what went well.
pub const SUCCESSFUL: &str = "00000";
/// SQLSTATE of a login that failed.
pub const INVALID_PASSWORD: &str = "28P01";
/// SQLSTATE of a login that is not allowed here.
pub const INVALID_AUTHORIZATION: &str = "28000";
/// SQLSTATE of a session that an operator ended.
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// SQLSTATE of a command that cannot run now, such as while the ledger cannot be written.
pub const CANNOT_CONNECT_NOW: &str = "57P03";
/// SQLSTATE of a broken protocol.
pub const PROTOCOL_VIOLATION: &str = "08P01";
/// SQLSTATE of an upstream that cannot be reached.
pub const CONNECTION_FAILURE: &str = "08006";
/// SQLSTATE of something that this gateway does not support.
pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// SQLSTATE of a parameter with a value that is not allowed.
pub const INVALID_PARAMETER_VALUE: &str = "22023";

/// SQLSTATE of a command that reached a limit.
pub const LIMIT_EXCEEDED: &str = "53400";

/// How severe a report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It is worth knowing; nothing failed.
    Notice,
    /// The command failed; the connection lives on.
    Error,
    /// The connection ends.
    Fatal,
}

/// Builds an ErrorResponse, or a NoticeResponse. Control characters are taken out of the texts, since they reach a terminal.
#[must_use]
pub fn error(severity: Severity, code: &str, message: &str, hint: Option<&str>) -> Message {
    let (tag, severity) = match severity {
        Severity::Notice => (b'N', "NOTICE"),
        Severity::Error => (b'E', "ERROR"),
        Severity::Fatal => (b'E', "FATAL"),
    };
    Message::build(tag, |out| {
        let mut field = |tag: u8, text: &str| {
            out.put_u8(tag);
            out.extend(text.bytes().map(|byte| if byte < b' ' || byte == 0x7f { b' ' } else { byte }));
            out.put_u8(0);
        };
        field(b'S', severity);
        field(b'V', severity);
        field(b'C', code);
        field(b'M', message);
        if let Some(hint) = hint {
            field(b'H', hint);
        }
        out.put_u8(0);
    })
}

/// A refusal as the error that the client sees.
#[must_use]
pub fn refusal(refusal: &Refusal) -> Message {
    let (code, begin) = match refusal.kind {
        RefusalKind::NotPermitted => (INSUFFICIENT_PRIVILEGE, "not permitted"),
        RefusalKind::NotApproved => (INSUFFICIENT_PRIVILEGE, "not approved"),
        RefusalKind::Cancelled => (QUERY_CANCELED, "canceling statement due to user request"),
    };
    error(Severity::Error, code, &format!("{begin}: {}", refusal.message), refusal.hint.as_deref())
}

/// A limit that was reached as the error that the client sees.
#[must_use]
pub fn excess(excess: Excess) -> Message {
    let (code, message, hint) = match excess {
        Excess::Shown => (LIMIT_EXCEEDED, "more rows than may be shown: the result was cut", "add a LIMIT"),
        Excess::Session => {
            (LIMIT_EXCEEDED, "more than may be shown in one session: the result was cut", "ask for less")
        }
        Excess::Day => (
            LIMIT_EXCEEDED,
            "more than may be shown in one day: the result was cut",
            "ask for less, or tomorrow",
        ),
        Excess::Time => {
            (QUERY_CANCELED, "canceling statement: it took longer than it may", "ask for less at a time")
        }
    };
    error(Severity::Error, code, message, Some(hint))
}

/// What an ErrorResponse or NoticeResponse says, as far as a session looks at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The severity, never translated (field `V`).
    pub severity: String,
    /// The SQLSTATE (field `C`).
    pub code: String,
    /// The message (field `M`).
    pub message: String,
}

impl Report {
    /// Reads the fields of an ErrorResponse or NoticeResponse.
    ///
    /// # Errors
    /// [`Malformed`] when the message is no list of fields.
    pub fn read(message: &Message) -> Result<Report, Malformed> {
        message.parse(|fields| {
            let mut report = Report::default();
            loop {
                let tag = fields.u8()?;
                if tag == 0 {
                    return Some(report);
                }
                let text = String::from_utf8_lossy(&fields.string()?).into_owned();
                match tag {
                    b'V' => report.severity = text,
                    b'C' => report.code = text,
                    b'M' => report.message = text,
                    _ => {}
                }
            }
        })
    }
}

/// What stands in place of a text that may hold values which the client is shown masked.
const WITHHELD: &str = "the upstream's text is withheld: it may tell values that are masked";

/// An ErrorResponse or NoticeResponse with its position moved by `place` and, `withheld`, without any text that may hold values: severity,
/// code, position and the names of objects stay.
///
/// # Errors
/// [`Malformed`] when the message is no list of fields.
pub fn retold(
    message: &Message,
    withheld: bool,
    place: impl Fn(usize) -> usize,
) -> Result<Message, Malformed> {
    let fields = message.parse(|fields| {
        let mut read = Vec::new();
        loop {
            match fields.u8()? {
                0 => return Some(read),
                tag => read.push((tag, fields.string()?)),
            }
        }
    })?;
    Ok(Message::build(message.tag(), |out| {
        for (tag, text) in fields {
            let moved = match tag {
                b'P' => std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).map(&place),
                _ => None,
            };
            match (tag, moved) {
                (_, Some(moved)) => {
                    out.put_u8(tag);
                    put_string(out, &moved.to_string());
                }
                (b'M', None) if withheld => {
                    out.put_u8(tag);
                    put_string(out, WITHHELD);
                }
                (b'D' | b'H' | b'W' | b'p' | b'q', None) if withheld => {}
                _ => {
                    out.put_u8(tag);
                    out.put_slice(&text);
                    out.put_u8(0);
                }
            }
        }
        out.put_u8(0);
    }))
}

/// A NotificationResponse without its payload.
///
/// # Errors
/// [`Malformed`] when the message is none.
pub fn without_payload(message: &Message) -> Result<Message, Malformed> {
    let (process_id, channel) = message.parse(|fields| {
        let (process_id, channel) = (fields.i32()?, fields.string()?);
        fields.string()?;
        Some((process_id, channel))
    })?;
    Ok(Message::build(b'A', |out| {
        out.put_i32(process_id);
        out.put_slice(&channel);
        out.put_u8(0);
        out.put_u8(0);
    }))
}

/// AuthenticationOk.
#[must_use]
pub fn authentication_ok() -> Message {
    Message::build(b'R', |out| out.put_i32(0))
}

/// AuthenticationCleartextPassword.
#[must_use]
pub fn authentication_cleartext_password() -> Message {
    Message::build(b'R', |out| out.put_i32(3))
}

/// AuthenticationSASL with the mechanisms on offer.
#[must_use]
pub fn authentication_sasl(mechanisms: &[&str]) -> Message {
    Message::build(b'R', |out| {
        out.put_i32(10);
        for mechanism in mechanisms {
            put_string(out, mechanism);
        }
        out.put_u8(0);
    })
}

/// AuthenticationSASLContinue.
#[must_use]
pub fn authentication_sasl_continue(challenge: &[u8]) -> Message {
    Message::build(b'R', |out| {
        out.put_i32(11);
        out.put_slice(challenge);
    })
}

/// ParameterStatus.
#[must_use]
pub fn parameter_status(name: &[u8], value: &[u8]) -> Message {
    Message::build(b'S', |out| {
        for text in [name, value] {
            out.put_slice(text);
            out.put_u8(0);
        }
    })
}

/// BackendKeyData: what a client sends back to cancel.
#[must_use]
pub fn backend_key_data(process_id: u32, secret: &[u8]) -> Message {
    Message::build(b'K', |out| {
        out.put_u32(process_id);
        out.put_slice(secret);
    })
}

/// NegotiateProtocolVersion: the newest minor version that we speak, and the `_pq_.` options that we do not know.
#[must_use]
pub fn negotiate_protocol_version(minor: u16, unknown: &[Bytes]) -> Message {
    Message::build(b'v', |out| {
        out.put_u32(0x0003_0000 | u32::from(minor));
        out.put_u32(u32::try_from(unknown.len()).unwrap_or(u32::MAX));
        for name in unknown {
            out.put_slice(name);
            out.put_u8(0);
        }
    })
}

/// ReadyForQuery with a transaction status.
#[must_use]
pub fn ready_for_query(status: u8) -> Message {
    Message::build(b'Z', |out| out.put_u8(status))
}

/// Writes a string and its NUL.
pub fn put_string(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

/// The text up to the NUL of a message whose body is one string.
///
/// # Errors
/// [`Malformed`] when the body is anything else.
pub fn string_body(message: &Message) -> Result<Bytes, Malformed> {
    message.parse(Fields::string)
}

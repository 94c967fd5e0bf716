//! One event as receivers get it: a JSON object in one line, alone or behind the header of RFC 5424.
//!
//! Whatever stands in an event, it stays one line: [`text::json`] escapes every control character, and what else could end or
//! turn around a line.

use gatebook_ledger::entry::Entry;
use gatebook_ledger::{event, text};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// The longest datagram that is sent with everything in it; of a longer event the payload is left out, and then the body.
const DATAGRAM_BYTES_MAX: usize = 60_000;
/// `<109>`: facility 13, log audit, at severity 5, notice (RFC 5424, section 6.2.1).
const PRIORITY: u8 = 13 * 8 + 5;

/// One event: as JSON, and shortened where that makes too long a datagram.
pub(super) struct Line {
    time: String,
    json: String,
    short: Option<String>,
}

impl Line {
    pub(super) fn new(entry: &Entry<'_>, payload: Option<&[u8]>) -> Line {
        let header = &entry.header;
        let instant = OffsetDateTime::from_unix_timestamp_nanos(header.time_ns.into())
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap_or(Value::Null);
        let written = |object: &Value| text::json(object).unwrap_or_default();
        let mut object = json!({
            "seq": header.seq,
            "time": instant.format(&Rfc3339).unwrap_or_default(),
            "event": event::kind_name(header.kind),
            "kind": header.kind,
            "session": header.session,
            "body": parse(entry.body),
        });
        let mut short = written(&object);
        match payload {
            Some(b"") => {}
            Some(payload) => object["payload"] = parse(payload),
            None => object["payload"] = Value::Null,
        }
        let json = written(&object);
        if short.len() > DATAGRAM_BYTES_MAX {
            (object["body"], object["payload"]) = (Value::Null, Value::Null);
            short = written(&object);
        }
        let short = (json.len() > DATAGRAM_BYTES_MAX).then_some(short);
        Line { time: syslog_time(instant), json, short }
    }

    /// How many bytes it has, about.
    pub(super) fn len(&self) -> usize {
        self.json.len()
    }

    /// As JSON.
    pub(super) fn json(&self) -> &str {
        &self.json
    }

    /// As a message of RFC 5424.
    pub(super) fn message(&self) -> String {
        self.syslog(&self.json)
    }

    /// As a message that fits into a datagram.
    pub(super) fn datagram(&self) -> String {
        self.syslog(self.short.as_deref().unwrap_or(&self.json))
    }

    fn syslog(&self, json: &str) -> String {
        format!("<{PRIORITY}>1 {} - gatebook {} event - {json}", self.time, std::process::id())
    }
}

/// A time as RFC 5424, section 6.2.3, takes it: no finer than microseconds.
pub(in super::super) fn syslog_time(instant: OffsetDateTime) -> String {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    instant.to_offset(time::UtcOffset::UTC).format(form).unwrap_or_else(|_| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use gatebook_ledger::Kind;
    use gatebook_ledger::entry::Header;
    use gatebook_ledger::hash::Digest;

    use super::*;

    fn line(body: &Value, payload: &Value) -> Line {
        let header = Header {
            kind: Kind(288),
            encrypted: false,
            seq: 7,
            time_ns: 1_000_000_123,
            epoch: 0,
            session: 3,
            session_seq: 0,
            prev_in_session: Digest::ZERO,
            payload_commit: Digest::ZERO,
        };
        let body = body.to_string();
        let entry = Entry { header, body: body.as_bytes(), bytes: &[] };
        Line::new(&entry, Some(payload.to_string().as_bytes()))
    }

    #[test]
    fn hostile_content_stays_in_its_line_and_its_field() {
        let hostile = "a\n<34>1 - - - - - - \r\u{0}\u{1b}[2J\u{85}\u{2028}\u{202e}\u{9b}]x=\"y\"";
        let line = line(&json!({ "decision": hostile }), &json!({ "statement": { "text": hostile } }));
        let message = line.message();
        let (head, json) = message.split_once(" event - ").expect("a header");
        assert!(head.starts_with("<109>1 1970-01-01T00:00:01.000000Z - gatebook "), "{head}");
        assert!(!json.chars().any(|c| c.is_control() || "\u{2028}\u{202e}".contains(c)), "{json}");
        let back: Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(back["payload"]["statement"]["text"], hostile);
        assert_eq!((&back["seq"], &back["body"]["decision"]), (&json!(7), &json!(hostile)));
        assert_eq!(line.datagram(), message);
    }

    #[test]
    fn what_makes_too_long_a_datagram_is_left_out_and_its_number_stays() {
        let (small, long) = (json!({ "a": 1 }), json!({ "a": "\u{1}".repeat(30_000) }));
        for (body, payload, kept) in [(&small, &long, &small), (&long, &small, &Value::Null)] {
            let line = line(body, payload);
            let datagram = line.datagram();
            assert!(datagram.len() < 65_000 && line.message().len() > 65_000);
            let (_, json) = datagram.split_once(" event - ").expect("a header");
            let back: Value = serde_json::from_str(json).expect("JSON");
            assert_eq!((&back["seq"], &back["body"]), (&json!(7), kept));
        }
    }
}

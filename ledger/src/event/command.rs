//! The events of a command: what was decided of it, with its text and parameters, and what came of it.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::encode;

/// See [`super::COMMAND`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandBody<'a> {
    /// `permit`, `refuse`, or `shadow_refuse`: refused by policy and let pass by a resource in shadow mode.
    #[serde(borrow)]
    pub decision: Cow<'a, str>,
    /// `reads` or `may_change`.
    #[serde(borrow)]
    pub effect: Cow<'a, str>,
    /// `prepare` or `execute`.
    #[serde(borrow)]
    pub phase: Cow<'a, str>,
    /// Its number within its session, from 0.
    pub request: u64,
}

/// See [`super::COMMAND`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandPayload<'a> {
    /// What it does to what: `select orders/public.customers`.
    #[serde(borrow)]
    pub actions: Vec<Cow<'a, str>>,
    /// What went wrong while deciding.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Cow<'a, str>>,
    /// The kind of statement.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// What must be kept along with a permission.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub obligations: Vec<Cow<'a, str>>,
    /// Its parameters.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter<'a>>,
    /// The policies that made the decision: `ci.cedar:3`.
    #[serde(borrow)]
    pub policies: Vec<Cow<'a, str>>,
    /// The statement as it was sent to the upstream, where masks made it another.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Text<'a>>,
    /// The statement.
    #[serde(borrow)]
    pub statement: Text<'a>,
}

/// From how many bytes on a text is held against its length in base64.
const LONG_TEXT_BYTES: usize = 64 << 10;

/// How many bytes the escapes of canonical JSON add.
fn escapes(bytes: &[u8]) -> usize {
    let added = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0..=0x1f => 5,
        _ => 0,
    };
    bytes.iter().map(added).sum()
}

/// Bytes that are usually text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Text<'a> {
    /// They are not UTF-8, or mostly what JSON escapes: in base64.
    Base64(#[serde(borrow)] Cow<'a, str>),
    /// They are.
    Text(#[serde(borrow)] Cow<'a, str>),
}

impl<'a> Text<'a> {
    /// These bytes: as text where they are UTF-8 and their escapes take less room than base64.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Text<'a> {
        match std::str::from_utf8(bytes) {
            Ok(text) if bytes.len() < LONG_TEXT_BYTES || escapes(bytes) <= bytes.len() / 3 => {
                Text::Text(Cow::Borrowed(text))
            }
            _ => Text::base64(bytes),
        }
    }

    /// These bytes, text or not.
    #[must_use]
    pub fn base64(bytes: &[u8]) -> Text<'static> {
        Text::Base64(Cow::Owned(STANDARD.encode(bytes)))
    }

    /// The bytes; none where the base64 is none.
    #[must_use]
    pub fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Text::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
            Text::Base64(text) => STANDARD.decode(&**text).ok().map(Cow::Owned),
        }
    }
}

/// One parameter of a command, as it travelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter<'a> {
    /// Whether it is in the protocol's binary format.
    pub binary: bool,
    /// Its type's number; 0 where the client left it to the server.
    #[serde(rename = "type")]
    pub type_oid: u32,
    /// Its value; none for NULL.
    #[serde(borrow)]
    pub value: Option<Text<'a>>,
}

/// See [`super::OUTCOME`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeBody<'a> {
    /// How many bytes were sent to the client.
    pub bytes: u64,
    /// From the decision to the end, in microseconds.
    pub duration_us: u64,
    /// `completed`, `suspended`, `failed`, `cut`, `skipped`, `refused` or `unknown`.
    #[serde(borrow)]
    pub ending: Cow<'a, str>,
    /// The command's number within its session.
    pub request: u64,
    /// How many rows were shown.
    pub rows: u64,
}

/// See [`super::OUTCOME`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomePayload<'a> {
    /// The upstream's error code.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Cow<'a, str>>,
    /// What content detection found in what was shown: `email 3, card 1`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub detected: Option<Cow<'a, str>>,
    /// BLAKE3 of the data that the client fed to the upstream, in hex.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub fed_blake3: Option<Cow<'a, str>>,
    /// How many bytes of data the client fed to the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fed_bytes: Option<u64>,
    /// BLAKE3 of what was sent to the client, in hex.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub shown_blake3: Option<Cow<'a, str>>,
    /// The upstream's tag: `UPDATE 1`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Cow<'a, str>>,
}

/// See [`super::CANCEL`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelBody<'a> {
    /// How it came: `client`.
    #[serde(borrow)]
    pub by: Cow<'a, str>,
}

/// See [`super::CANCEL`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelPayload<'a> {
    /// The address that it came from.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
}

/// The part of a command's payload that stays the same for as long as the same meaning is decided alike, written once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandTemplate {
    before_parameters: Vec<u8>,
    before_statement: Vec<u8>,
}

impl CommandTemplate {
    /// A template from a payload, whose parameters and statement do not matter.
    ///
    /// # Panics
    /// Never: see [`encode`].
    #[must_use]
    pub fn new(payload: &CommandPayload<'_>) -> CommandTemplate {
        let mut before_parameters = b"{\"actions\":".to_vec();
        let list = |name: &str, values: &[Cow<'_, str>], out: &mut Vec<u8>| {
            if !values.is_empty() {
                out.extend_from_slice(name.as_bytes());
                serde_json::to_writer(out, values).expect("a list of texts is always JSON");
            }
        };
        serde_json::to_writer(&mut before_parameters, &payload.actions)
            .expect("a list of texts is always JSON");
        list(",\"errors\":", &payload.errors, &mut before_parameters);
        before_parameters.extend_from_slice(b",\"kind\":");
        serde_json::to_writer(&mut before_parameters, &payload.kind).expect("a text is always JSON");
        list(",\"obligations\":", &payload.obligations, &mut before_parameters);
        let mut before_statement = b",\"policies\":".to_vec();
        serde_json::to_writer(&mut before_statement, &payload.policies)
            .expect("a list of texts is always JSON");
        CommandTemplate { before_parameters, before_statement }
    }

    /// Appends a command to `out` exactly as [`encode`] would; gives back the length of the body.
    ///
    /// # Panics
    /// Never: see [`encode`].
    pub fn encode(
        &self,
        body: &CommandBody<'_>,
        parameters: &[Parameter<'_>],
        sent: Option<&Text<'_>>,
        statement: &Text<'_>,
        out: &mut Vec<u8>,
    ) -> usize {
        let body_bytes = encode(body, None, out);
        out.extend_from_slice(&self.before_parameters);
        if !parameters.is_empty() {
            out.extend_from_slice(b",\"parameters\":");
            serde_json::to_writer(&mut *out, parameters).expect("parameters are always JSON");
        }
        out.extend_from_slice(&self.before_statement);
        if let Some(sent) = sent {
            out.extend_from_slice(b",\"sent\":");
            serde_json::to_writer(&mut *out, sent).expect("a text is always JSON");
        }
        out.extend_from_slice(b",\"statement\":");
        serde_json::to_writer(&mut *out, statement).expect("a text is always JSON");
        out.push(b'}');
        body_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_of_escapes_is_base64_and_comes_back() {
        let controls = vec![1; LONG_TEXT_BYTES];
        let text = Text::new(&controls);
        assert!(matches!(text, Text::Base64(_)));
        assert_eq!(text.bytes().as_deref(), Some(&controls[..]));
        // Ordinary text has some escapes.
        let quoted = "select 'it''s', \"a\"\n".repeat(LONG_TEXT_BYTES / 16);
        assert!(matches!(Text::new(quoted.as_bytes()), Text::Text(_)));
        assert_eq!(
            serde_json::to_string(&quoted).map_or(0, |json| json.len()),
            quoted.len() + 2 + escapes(quoted.as_bytes())
        );
    }

    #[test]
    fn a_template_writes_what_the_types_write() {
        let texts =
            |texts: &[&'static str]| texts.iter().map(|text| Cow::Borrowed(*text)).collect::<Vec<_>>();
        let value = Parameter { binary: false, type_oid: 23, value: Some(Text::new(b"4711\n\"")) };
        for (errors, obligations, parameters, sent) in [
            (vec![], vec![], vec![], None),
            (
                texts(&["a \"b\""]),
                texts(&["max_rows 5"]),
                vec![value.clone(), Parameter { value: None, ..value.clone() }],
                Some(Text::new(b"select 1")),
            ),
        ] {
            let payload = CommandPayload {
                actions: texts(&["select d/s.t", "insert d/s.u"]),
                errors,
                kind: "select".into(),
                obligations,
                parameters,
                policies: texts(&["ci.cedar:3"]),
                sent: sent.clone(),
                statement: Text::new("select '\u{1}ä' -- \\".as_bytes()),
            };
            let body = CommandBody {
                decision: "permit".into(),
                effect: "reads".into(),
                phase: "execute".into(),
                request: 7,
            };
            let (mut whole, mut templated) = (Vec::new(), Vec::new());
            let body_bytes = encode(&body, Some(&payload), &mut whole);
            let template = CommandTemplate::new(&payload);
            assert_eq!(
                template.encode(
                    &body,
                    &payload.parameters,
                    payload.sent.as_ref(),
                    &payload.statement,
                    &mut templated
                ),
                body_bytes
            );
            assert_eq!(String::from_utf8_lossy(&templated), String::from_utf8_lossy(&whole));
        }
    }
}

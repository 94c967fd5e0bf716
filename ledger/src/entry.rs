//! One entry: a fixed header, then a body of canonical JSON. It is a leaf of the tree, and public.
//!
//! What a newcomer gets wrong: a body carries no statement, parameter, personal name or address; those are
//! payload, which an entry only commits to. Bytes are hashed as they are stored and never encoded again.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hash::Digest;

/// The length of the fixed header.
pub const HEADER_BYTES: usize = 104;
/// The longest entry, header and body: what a tlog-tiles bundle can hold.
pub const ENTRY_BYTES_MAX: usize = 65_535;
/// The longest body.
pub const BODY_BYTES_MAX: usize = ENTRY_BYTES_MAX - HEADER_BYTES;

const VERSION: u8 = 1;

/// What an entry is about. Numbers below 256 belong to the log layer, which knows their meaning; the rest
/// are the event vocabulary's, and opaque to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kind(pub u16);

impl Kind {
    /// The first entry of every ledger; commits to `ledger.toml`.
    pub const LEDGER_OPENED: Kind = Kind(1);
    /// Binds the BLAKE3 chain into the tree, before each checkpoint.
    pub const CHAIN_HEAD: Kind = Kind(2);
    /// What recovery cut off after a crash.
    pub const RECOVERY: Kind = Kind(3);
    /// An order of the root key: which root and log keys are in force from here on.
    pub const KEYS_CHANGED: Kind = Kind(4);
    /// The last entry of an epoch; names the next one's key.
    pub const EPOCH_SEAL: Kind = Kind(5);
    /// Where recording was impossible.
    pub const GAP: Kind = Kind(6);
    /// Which payloads were taken out.
    pub const REDACTION: Kind = Kind(7);
    /// Reserved: a witness's cosignature.
    pub const WITNESS: Kind = Kind(8);
    /// Reserved: which segments were cut down to header and footer.
    pub const PRUNING: Kind = Kind(9);
    /// Reserved: the wrapped key of a session's payloads.
    pub const SESSION_KEY: Kind = Kind(10);
    /// Reserved: a session's key was destroyed.
    pub const SESSION_SHREDDED: Kind = Kind(11);
    /// Opens the session that its header names; session numbers have no gaps.
    pub const SESSION_OPENED: Kind = Kind(16);
    /// Ends the session that its header names; nothing of that session may follow.
    pub const SESSION_CLOSED: Kind = Kind(17);
}

/// An entry's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Header {
    /// What it is about.
    pub kind: Kind,
    /// Whether the payload is ciphertext; the commitment is to what is stored.
    pub encrypted: bool,
    /// The epoch whose key signs its frame.
    pub epoch: u32,
    /// Its number in the ledger, from 0: its leaf index.
    pub seq: u64,
    /// When, in nanoseconds since 1970 UTC, as the writer's clock said. It may run backwards within its epoch.
    pub time_ns: u64,
    /// The session that it belongs to; 0 for none.
    pub session: u64,
    /// Its number within its session, from 0; 0 where there is no session.
    pub session_seq: u64,
    /// The leaf hash of the session's entry before; zero for the first, and where there is no session.
    pub prev_in_session: Digest,
    /// The salted commitment to the payload. Also an entry without payload has one.
    pub payload_commit: Digest,
}

impl Header {
    /// Writes the header's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = VERSION;
        bytes[1] = u8::from(self.encrypted);
        bytes[2..4].copy_from_slice(&self.kind.0.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.time_ns.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.session.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.session_seq.to_be_bytes());
        bytes[40..72].copy_from_slice(&self.prev_in_session.0);
        bytes[72..104].copy_from_slice(&self.payload_commit.0);
        out.extend_from_slice(&bytes);
    }
}

/// An entry as it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its header.
    pub header: Header,
    /// Its body: canonical JSON.
    pub body: &'a [u8],
    /// All its bytes: what the leaf hash is over.
    pub bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads an entry from all its bytes.
    ///
    /// # Errors
    /// [`Malformed`] where it is too short or too long, or of another version.
    pub fn decode(bytes: &'a [u8]) -> Result<Entry<'a>, Malformed> {
        let Some((head, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(Malformed("entry is shorter than its header"));
        };
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(Malformed("entry is longer than 65,535 bytes"));
        }
        if head[0] != VERSION || head[1] > 1 {
            return Err(Malformed("entry is of an unknown version"));
        }
        let header = Header {
            kind: Kind(u16::from_be_bytes(array(&head[2..4]))),
            encrypted: head[1] == 1,
            epoch: u32::from_be_bytes(array(&head[4..8])),
            seq: u64::from_be_bytes(array(&head[8..16])),
            time_ns: u64::from_be_bytes(array(&head[16..24])),
            session: u64::from_be_bytes(array(&head[24..32])),
            session_seq: u64::from_be_bytes(array(&head[32..40])),
            prev_in_session: Digest(array(&head[40..72])),
            payload_commit: Digest(array(&head[72..104])),
        };
        Ok(Entry { header, body, bytes })
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("header", &self.header).field("body_bytes", &self.body.len()).finish()
    }
}

/// Stored bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Copies a slice whose length was checked into an array.
pub(crate) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

/// Refuses every spelling of JSON but one: objects with sorted plain-ASCII keys without doubles, integers
/// below 2^53 in plain decimal, shortest escapes, no white space.
///
/// # Errors
/// [`Malformed`] at the first byte that is spelled otherwise.
pub fn check_canonical(json: &[u8]) -> Result<(), Malformed> {
    let text = std::str::from_utf8(json).map_err(|_| Malformed("body is not UTF-8"))?;
    let mut scanner = Canonical { bytes: text.as_bytes(), at: 0 };
    if scanner.peek() != Some(b'{') {
        return Err(Malformed("body is not a JSON object"));
    }
    scanner.value(0)?;
    if scanner.at == json.len() { Ok(()) } else { Err(Malformed("body goes on after its JSON object")) }
}

const DEPTH_MAX: u32 = 32;
const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Whether a byte of a string stands for itself.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut control = 0;
    while control < 0x20 {
        plain[control] = false;
        control += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};
const NOT_CANONICAL: Malformed = Malformed("body is not canonical JSON");

struct Canonical<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Canonical<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, expected: &[u8]) -> Result<(), Malformed> {
        if self.bytes[self.at..].starts_with(expected) {
            self.at += expected.len();
            Ok(())
        } else {
            Err(NOT_CANONICAL)
        }
    }

    fn value(&mut self, depth: u32) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed("body is nested too deeply"));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.take(b"true"),
            Some(b'f') => self.take(b"false"),
            Some(b'n') => self.take(b"null"),
            _ => self.integer(),
        }
    }

    fn object(&mut self, depth: u32) -> Result<(), Malformed> {
        self.at += 1;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut before: Option<&[u8]> = None;
        loop {
            let key = self.string()?;
            if before.is_some_and(|before| before >= key) || key.iter().any(|b| !b.is_ascii() || *b == b'\\')
            {
                return Err(NOT_CANONICAL);
            }
            before = Some(key);
            self.take(b":")?;
            self.value(depth + 1)?;
            if self.peek() == Some(b'}') {
                self.at += 1;
                return Ok(());
            }
            self.take(b",")?;
        }
    }

    fn list(&mut self, depth: u32) -> Result<(), Malformed> {
        self.at += 1;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            if self.peek() == Some(b']') {
                self.at += 1;
                return Ok(());
            }
            self.take(b",")?;
        }
    }

    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        self.take(b"\"")?;
        let start = self.at;
        loop {
            let plain = self.bytes[self.at..].iter().position(|byte| !PLAIN[usize::from(*byte)]);
            self.at += plain.ok_or(NOT_CANONICAL)?;
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Ok(&self.bytes[start..self.at - 1]);
                }
                b'\\' => self.escape()?,
                _ => return Err(NOT_CANONICAL),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.take(b"u00")?;
                let digits: &[u8] = self.bytes.get(self.at..self.at + 2).ok_or(NOT_CANONICAL)?;
                let low = matches!(digits[1], b'0'..=b'9' | b'a'..=b'f');
                let named = digits[0] == b'0' && matches!(digits[1], b'8' | b'9' | b'a' | b'c' | b'd');
                if !matches!(digits[0], b'0' | b'1') || !low || named {
                    return Err(NOT_CANONICAL);
                }
                self.at += 2;
                Ok(())
            }
            _ => Err(NOT_CANONICAL),
        }
    }

    fn integer(&mut self) -> Result<(), Malformed> {
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let start = self.at;
        let mut value: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value * 10 + u64::from(digit - b'0');
            if value > INTEGER_MAX {
                return Err(Malformed("body holds an integer beyond 2^53"));
            }
            self.at += 1;
        }
        let length = self.at - start;
        let zero_led = length > 1 && self.bytes[start] == b'0';
        if length == 0 || zero_led || (negative && value == 0) { Err(NOT_CANONICAL) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_spelling_of_json_is_accepted() {
        for good in [
            "{}",
            r#"{"a":1}"#,
            r#"{"a":-1,"b":[true,false,null,"x\n\u001f\"é"]}"#,
            r#"{"a":{"b":{}},"c":[]}"#,
            r#"{"a":9007199254740991}"#,
        ] {
            assert_eq!(check_canonical(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [
            "",
            "1",
            "[]",
            "{} ",
            "{ }",
            r#"{"b":1,"a":1}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":01}"#,
            r#"{"a":-0}"#,
            r#"{"a":1e3}"#,
            r#"{"a":"\u000a"}"#,
            r#"{"a":"\u001F"}"#,
            r#"{"a":"\/"}"#,
            r#"{"a":"\u0041"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":9007199254740992}"#,
            r#"{"é":1}"#,
            r#"{"a":1,}"#,
            r#"{"a" :1}"#,
            r#"{"a":tru}"#,
            r#"{"a":"\u00"#,
            r#"{"a":+1}"#,
        ] {
            assert!(check_canonical(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(40), "]".repeat(40));
        assert!(check_canonical(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let header = Header {
            kind: Kind(0x0102),
            encrypted: false,
            epoch: 3,
            seq: 4,
            time_ns: 5,
            session: 6,
            session_seq: 7,
            prev_in_session: Digest([8; 32]),
            payload_commit: Digest([9; 32]),
        };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes.extend_from_slice(b"{}");
        let entry = Entry::decode(&bytes).unwrap();
        assert_eq!((entry.header, entry.body), (header, &b"{}"[..]));
        bytes[1] = 1;
        assert!(Entry::decode(&bytes).unwrap().header.encrypted);
        bytes[1] = 2;
        assert!(Entry::decode(&bytes).is_err(), "the reserved bits are checked");
        assert!(Entry::decode(&bytes[..103]).is_err());
    }
}

//! Cosignatures of witnesses (C2SP tlog-cosignature, `cosignature/v1`, Ed25519).
//!
//! A cosignature says: at this time, this was the largest tree of that log that I had seen, and it holds every
//! smaller one that I had seen. What a newcomer gets wrong: it is over the checkpoint's text and a time, so it
//! verifies under the key type 0x04 alone, and never as a plain note signature.

use std::fmt;
use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

use crate::checkpoint::{BadVkey, Note, key_id, parse_vkey, vkey_text};
use crate::entry::array;
use crate::signature::{Origin, PublicKey, Signature};

const COSIGNATURE_V1: u8 = 4;
const TIME_BYTES: usize = 8;

/// A witness's verifier key: `name+id+key`, of type 0x04.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigner {
    name: Origin,
    key: PublicKey,
}

impl Cosigner {
    /// The witness's name.
    #[must_use]
    pub fn name(&self) -> &Origin {
        &self.name
    }

    /// The four bytes that stand for its key before a signature.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        key_id(&self.name, COSIGNATURE_V1, &self.key)
    }

    /// What this witness said of a note, if anything.
    ///
    /// # Errors
    /// [`FalseCosignature`] where the note has a line under its name and id that it did not sign.
    pub fn time_of(&self, note: &Note) -> Result<Option<u64>, FalseCosignature> {
        let mut newest = None;
        for (name, id, bytes) in note.signatures() {
            if name == self.name.as_str() && id == self.id() {
                let time_s = self.verified(note.text(), bytes).ok_or(FalseCosignature)?;
                newest = newest.max(Some(time_s));
            }
        }
        Ok(newest)
    }

    /// The time of a cosignature of this text, where it is one.
    fn verified(&self, text: &str, bytes: &[u8]) -> Option<u64> {
        let (time, signature) = bytes.split_first_chunk::<TIME_BYTES>()?;
        let signature: Signature = signature.try_into().ok()?;
        let time_s = u64::from_be_bytes(*time);
        let believable = i64::try_from(time_s).is_ok();
        (believable && self.key.verifies(message(text, time_s).as_bytes(), &signature)).then_some(time_s)
    }
}

impl fmt::Display for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&vkey_text(&self.name, COSIGNATURE_V1, &self.key))
    }
}

impl FromStr for Cosigner {
    type Err = BadVkey;

    fn from_str(text: &str) -> Result<Cosigner, BadVkey> {
        let (name, key) = parse_vkey(text, COSIGNATURE_V1).ok_or(BadVkey)?;
        Ok(Cosigner { name, key })
    }
}

/// A line under a witness's name that the witness did not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cosignature under a pinned witness's name is false")]
pub struct FalseCosignature;

/// A witness's secret key with its name.
pub struct CosignerKey {
    name: Origin,
    key: SigningKey,
}

impl CosignerKey {
    /// Takes a secret seed. One key serves one witness name: the signed message does not say the name.
    #[must_use]
    pub fn new(name: Origin, seed: &Zeroizing<[u8; 32]>) -> CosignerKey {
        CosignerKey { name, key: SigningKey::from_bytes(seed) }
    }

    /// What those who rely on the witness pin.
    ///
    /// # Errors
    /// [`BadVkey`] where the key is a weak one, which no generator gives.
    pub fn cosigner(&self) -> Result<Cosigner, BadVkey> {
        let key = PublicKey::new(&self.key.verifying_key().to_bytes()).ok_or(BadVkey)?;
        Ok(Cosigner { name: self.name.clone(), key })
    }

    /// The signature line for a note's text, with its line end.
    pub(super) fn cosign(&self, text: &str, time_s: u64) -> String {
        let key = PublicKey::new(&self.key.verifying_key().to_bytes());
        let id = key.map_or([0; 4], |key| key_id(&self.name, COSIGNATURE_V1, &key));
        let mut bytes = id.to_vec();
        bytes.extend_from_slice(&time_s.to_be_bytes());
        bytes.extend_from_slice(&self.key.sign(message(text, time_s).as_bytes()).to_bytes());
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode(bytes))
    }
}

impl fmt::Debug for CosignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CosignerKey").field("name", &self.name).finish_non_exhaustive()
    }
}

fn message(text: &str, time_s: u64) -> String {
    format!("cosignature/v1\ntime {time_s}\n{text}")
}

/// Reads the signature lines of a witness's answer, and keeps those that `cosigner` made of this note.
///
/// # Errors
/// [`FalseCosignature`] where none is.
pub fn accept(note: &Note, cosigner: &Cosigner, answer: &str) -> Result<String, FalseCosignature> {
    let mut taken = String::new();
    for line in answer.split_terminator('\n') {
        let bytes = line
            .strip_prefix("\u{2014} ")
            .and_then(|rest| rest.split_once(' '))
            .filter(|(name, _)| *name == cosigner.name.as_str())
            .and_then(|(_, encoded)| STANDARD.decode(encoded).ok());
        let good = bytes.is_some_and(|bytes| {
            bytes.len() > 4
                && array::<4>(&bytes[..4]) == cosigner.id()
                && cosigner.verified(note.text(), &bytes[4..]).is_some()
        });
        if good {
            taken.push_str(line);
            taken.push('\n');
        }
    }
    if taken.is_empty() { Err(FalseCosignature) } else { Ok(taken) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, seed: u8) -> CosignerKey {
        CosignerKey::new(Origin::new(name).unwrap(), &Zeroizing::new([seed; 32]))
    }

    const TEXT: &str = "gw.example/ledger\n7\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n";

    #[test]
    fn a_cosignature_is_that_of_its_witness_time_and_text_alone() {
        let (one, other) = (key("w.example/1", 1), key("w.example/1", 2));
        let line = one.cosign(TEXT, 1_700_000_000);
        let note = Note::parse(format!("{TEXT}\n{line}").as_bytes()).unwrap();
        let cosigner = one.cosigner().unwrap();
        assert_eq!(cosigner.time_of(&note), Ok(Some(1_700_000_000)));
        assert_eq!(other.cosigner().unwrap().time_of(&note), Ok(None), "another key has another id");
        assert_eq!(accept(&note, &cosigner, &line), Ok(line.clone()));
        let others = format!("{}{line}", other.cosign(TEXT, 5));
        assert_eq!(accept(&note, &cosigner, &others), Ok(line.clone()), "unknown keys are passed over");
        let (_, encoded) = line.trim_end().rsplit_once(' ').unwrap();
        let good = STANDARD.decode(encoded).unwrap();
        for at in 4..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let line = format!("\u{2014} w.example/1 {}\n", STANDARD.encode(&bad));
            let note = Note::parse(format!("{TEXT}\n{line}").as_bytes()).unwrap();
            assert_eq!(cosigner.time_of(&note), Err(FalseCosignature), "byte {at}");
            assert!(accept(&note, &cosigner, &line).is_err());
        }
        let other_text = TEXT.replace("\n7\n", "\n8\n");
        let moved = Note::parse(format!("{other_text}\n{line}").as_bytes()).unwrap();
        assert_eq!(cosigner.time_of(&moved), Err(FalseCosignature));
    }

    #[test]
    fn a_verifier_key_of_a_log_is_none_of_a_witness() {
        let text = key("w.example/1", 1).cosigner().unwrap().to_string();
        assert_eq!(text.parse::<Cosigner>().unwrap().to_string(), text);
        assert!(text.parse::<crate::checkpoint::Vkey>().is_err());
        assert!(
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse::<Cosigner>().is_err()
        );
        assert!(!format!("{:?}", key("w.example/1", 7)).contains("7, 7"));
    }
}

//! Checkpoints: signed notes of C2SP (`signed-note`, `tlog-checkpoint`), and the verifier key that an auditor pins.
//!
//! A note is accepted only where each line is as we would write it. Lines of signers that we do not know
//! are passed over, as C2SP asks, so that witnesses can add theirs.

use std::fmt;
use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::Digest as _;

use crate::entry::array;
use crate::hash::Digest;
use crate::signature::{KeyError, Keys, Origin, PublicKey, Role, Signature};

/// The largest note that is read.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;

const ED25519: u8 = 1;

/// What a checkpoint says: this log had this many entries, and this root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The ledger.
    pub origin: Origin,
    /// How many entries.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
}

impl Checkpoint {
    /// The text of the note, without signatures.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.0))
    }

    /// The whole note, signed by these keys: log keys under the origin, an epoch's key under its own name.
    ///
    /// # Errors
    /// [`KeyError`] where a key is not there or does not sign.
    pub fn sign(&self, keys: &dyn Keys, signers: &[Role]) -> Result<String, KeyError> {
        let text = self.text();
        let mut note = format!("{text}\n");
        for role in signers {
            let vkey = match role {
                Role::Epoch(epoch) => Vkey::epoch(&self.origin, *epoch, keys.public(*role)?),
                Role::Log(_) | Role::Root(_) => Vkey::log(&self.origin, keys.public(*role)?),
            };
            let mut bytes = vkey.id().to_vec();
            bytes.extend_from_slice(&keys.sign(*role, text.as_bytes())?);
            note.push_str(&format!("\u{2014} {} {}\n", vkey.name, STANDARD.encode(bytes)));
        }
        Ok(note)
    }
}

/// A C2SP verifier key: `name+id+key`, Ed25519 alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vkey {
    name: Origin,
    key: PublicKey,
}

impl Vkey {
    /// The verifier key of a ledger's log key.
    #[must_use]
    pub fn log(origin: &Origin, key: PublicKey) -> Vkey {
        Vkey { name: origin.clone(), key }
    }

    /// The verifier key of an epoch, under the name `origin/epoch/N`.
    #[must_use]
    pub fn epoch(origin: &Origin, epoch: u32, key: PublicKey) -> Vkey {
        // An origin of the longest kind leaves no room for the suffix; such a name is still one line.
        let name = Origin::new(&format!("{origin}/epoch/{epoch}")).unwrap_or_else(|_| origin.clone());
        Vkey { name, key }
    }

    /// The key's name: for a log key, the ledger's origin.
    #[must_use]
    pub fn name(&self) -> &Origin {
        &self.name
    }

    /// The key itself.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The four bytes that stand for it before a signature.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        key_id(&self.name, ED25519, &self.key)
    }
}

/// A key's id (C2SP signed-note): it tells one signer's lines from those of others, and proves nothing.
pub(crate) fn key_id(name: &Origin, algorithm: u8, key: &PublicKey) -> [u8; 4] {
    let hash = sha2::Sha256::new()
        .chain_update(name.as_str())
        .chain_update([b'\n', algorithm])
        .chain_update(key.bytes())
        .finalize();
    array(&hash[..4])
}

/// The text of a verifier key: `name+id+key`.
pub(crate) fn vkey_text(name: &Origin, algorithm: u8, key: &PublicKey) -> String {
    let mut typed = [algorithm; 33];
    typed[1..].copy_from_slice(&key.bytes());
    let id = u32::from_be_bytes(key_id(name, algorithm, key));
    format!("{name}+{id:08x}+{}", STANDARD.encode(typed))
}

/// Reads a verifier key of one algorithm.
pub(crate) fn parse_vkey(text: &str, algorithm: u8) -> Option<(Origin, PublicKey)> {
    let (name, rest) = text.split_once('+')?;
    let (_, encoded) = rest.split_once('+')?;
    let typed: [u8; 33] = STANDARD.decode(encoded).ok()?.try_into().ok()?;
    let (name, key) = (Origin::new(name).ok()?, PublicKey::new(&array(&typed[1..]))?);
    // One spelling, and an id that is the key's.
    (vkey_text(&name, algorithm, &key) == text).then_some((name, key))
}

impl fmt::Display for Vkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&vkey_text(&self.name, ED25519, &self.key))
    }
}

impl FromStr for Vkey {
    type Err = BadVkey;

    fn from_str(text: &str) -> Result<Vkey, BadVkey> {
        let (name, key) = parse_vkey(text, ED25519).ok_or(BadVkey)?;
        Ok(Vkey { name, key })
    }
}

/// Text that is not a verifier key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a verifier key (name+id+key, Ed25519)")]
pub struct BadVkey;

/// A note, read but not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    checkpoint: Checkpoint,
    text: String,
    lines: Vec<(String, [u8; 4], Vec<u8>)>,
}

impl Note {
    /// Reads a note.
    ///
    /// # Errors
    /// [`BadNote`] where it is not spelled as a checkpoint without extension lines.
    pub fn parse(bytes: &[u8]) -> Result<Note, BadNote> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(BadNote("it is too long"));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| BadNote("it is not UTF-8"))?;
        let (text, signatures) = note.split_once("\n\n").ok_or(BadNote("it has no signatures"))?;
        let text = format!("{text}\n");
        let mut fields = text.split_terminator('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(BadNote("it has not three lines"));
        };
        let root = STANDARD.decode(root).ok().and_then(|b| <[u8; 32]>::try_from(b).ok());
        let checkpoint = Checkpoint {
            origin: Origin::new(origin).map_err(|_| BadNote("its origin is not one"))?,
            size: size.parse().map_err(|_| BadNote("its size is not a number"))?,
            root: Digest(root.ok_or(BadNote("its root is not 32 bytes of base64"))?),
        };
        if checkpoint.text() != text || !signatures.ends_with('\n') {
            return Err(BadNote("it is not in its one spelling"));
        }
        let mut lines = Vec::new();
        for line in signatures.split_terminator('\n') {
            lines.push(signature_line(line).ok_or(BadNote("a signature line is not one"))?);
        }
        if lines.is_empty() {
            return Err(BadNote("it has no signatures"));
        }
        Ok(Note { checkpoint, text, lines })
    }

    /// What it says, not believed.
    #[must_use]
    pub fn unverified(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What it says, where each of these keys signed it.
    ///
    /// # Errors
    /// [`BadNote`] where one did not, or the origin is another than the first key's name.
    pub fn verify(&self, keys: &[Vkey]) -> Result<&Checkpoint, BadNote> {
        let Some(first) = keys.first() else { return Err(BadNote("there is no key to verify it with")) };
        if self.checkpoint.origin != first.name {
            return Err(BadNote("it is of another ledger"));
        }
        if keys.iter().all(|key| self.is_signed_by(key)) {
            Ok(&self.checkpoint)
        } else {
            Err(BadNote("a signature that it needs is missing or false"))
        }
    }

    /// Whether this key signed it.
    #[must_use]
    pub fn is_signed_by(&self, key: &Vkey) -> bool {
        self.lines.iter().any(|(name, id, signature)| {
            name == key.name.as_str()
                && *id == key.id()
                && <Signature>::try_from(signature.as_slice())
                    .is_ok_and(|signature| key.key.verifies(self.text.as_bytes(), &signature))
        })
    }

    /// The epochs that its lines name, not believed: whoever carries a note can add lines to it.
    pub fn epochs(&self) -> impl Iterator<Item = u32> {
        let prefix = format!("{}/epoch/", self.checkpoint.origin);
        self.signatures().filter_map(move |(name, ..)| {
            let digits = name.strip_prefix(&prefix)?;
            digits.parse().ok().filter(|number: &u32| number.to_string() == digits)
        })
    }

    /// The epoch that it says it was signed in, not believed.
    #[must_use]
    pub fn epoch(&self) -> Option<u32> {
        self.epochs().next()
    }

    /// The text that is signed, up to the line end before the empty line.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its signature lines: name, key id, and what follows the id.
    pub fn signatures(&self) -> impl Iterator<Item = (&str, [u8; 4], &[u8])> {
        self.lines.iter().map(|(name, id, signature)| (name.as_str(), *id, signature.as_slice()))
    }
}

fn signature_line(line: &str) -> Option<(String, [u8; 4], Vec<u8>)> {
    let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    let (id, signature) = bytes.split_first_chunk::<4>()?;
    (!name.is_empty() && !signature.is_empty() && !name.contains('+'))
        .then(|| (name.to_owned(), *id, signature.to_vec()))
}

/// Why a note is no checkpoint of this ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a good checkpoint: {0}")]
pub struct BadNote(pub(crate) &'static str);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::MemoryKeys;

    #[test]
    fn a_verifier_key_is_the_one_of_c2sp() {
        // The example of golang.org/x/mod/sumdb/note: an independent spelling of name, id and key.
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let vkey: Vkey = text.parse().unwrap();
        assert_eq!(vkey.to_string(), text);
        let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signature = STANDARD
            .decode("x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=")
            .unwrap();
        assert_eq!(signature[..4], vkey.id());
        assert!(vkey.key.verifies(note.as_bytes(), &array(&signature[4..])));
        assert!(
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse::<Vkey>().is_err()
        );
    }

    #[test]
    fn a_checkpoint_needs_both_signatures_and_its_one_spelling() {
        let keys = MemoryKeys::new(None, &[1; 32], &[2; 32]);
        let origin = Origin::new("gw.example/ledger").unwrap();
        let checkpoint = Checkpoint { origin: origin.clone(), size: 7, root: Digest([3; 32]) };
        let note = checkpoint.sign(&keys, &[Role::Log(0), Role::Epoch(0)]).unwrap();
        let log = Vkey::log(&origin, keys.public(Role::Log(0)).unwrap());
        let epoch = Vkey::epoch(&origin, 0, keys.public(Role::Epoch(0)).unwrap());
        let both = [log.clone(), epoch.clone()];
        assert_eq!(Note::parse(note.as_bytes()).unwrap().verify(&both), Ok(&checkpoint));
        let without = note.lines().take(5).fold(String::new(), |text, line| text + line + "\n");
        let short = Note::parse(without.as_bytes()).unwrap();
        assert!(short.verify(&both).is_err(), "the log key alone is not enough");
        assert!(short.verify(&[log]).is_ok());
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let verified = Note::parse(&bytes).is_ok_and(|note| note.verify(&both).is_ok());
            assert!(!verified, "byte {at} can be changed");
        }
        let padded = note.replacen("\n7\n", "\n07\n", 1);
        assert!(Note::parse(padded.as_bytes()).is_err());
    }
}

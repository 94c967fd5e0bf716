//! Who signs what: the three keys, and the one shape of every signed message that is not a C2SP note.
//!
//! A signature is over `gatebook-ledger/v1/<use>` ‖ 0 ‖ length and text of the origin ‖ epoch ‖ message, so
//! that none can be taken for another. What a newcomer gets wrong: the *log* key, which an auditor pins,
//! signs checkpoints alone; frames are signed by the *epoch* key, or neither may be worth anything when
//! the other is stolen.

use std::fmt;

use ed25519_dalek::{Signature as Ed25519, Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

/// An Ed25519 signature.
pub type Signature = [u8; 64];

/// The longest origin.
pub const ORIGIN_BYTES_MAX: usize = 255;

/// The ledger's name, unique in the world, as the first line of each checkpoint: `gw1.example.com/ledger`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// Takes printable ASCII without spaces and plus signs, as C2SP wants of a key's name.
    ///
    /// # Errors
    /// [`BadOrigin`] for anything else.
    pub fn new(name: &str) -> Result<Origin, BadOrigin> {
        let fine = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'+' | b'"' | b'\\');
        if name.is_empty() || name.len() > ORIGIN_BYTES_MAX || !name.bytes().all(fine) {
            return Err(BadOrigin);
        }
        Ok(Origin(name.to_owned()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that cannot be an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an origin is 1 to 255 printable ASCII characters without spaces, plus signs, quotes and backslashes"
)]
pub struct BadOrigin;

/// Which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Certifies the others, once; may stay offline afterwards.
    Root,
    /// Signs checkpoints; long-lived; what an auditor pins and a witness knows.
    Log,
    /// Signs frames and seals, and adds a second line to checkpoints.
    Epoch,
}

impl Role {
    /// The role as file names and messages spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Root => "root",
            Role::Log => "log",
            Role::Epoch => "epoch",
        }
    }
}

/// What a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A frame's `chain_out`, by the epoch key.
    Frame,
    /// A sealed segment's footer, by the epoch key.
    Seal,
    /// The log key and the key of epoch 0, by the root key.
    Root,
}

impl Use {
    fn label(self) -> &'static [u8] {
        match self {
            Use::Frame => b"gatebook-ledger/v1/frame\0",
            Use::Seal => b"gatebook-ledger/v1/seal\0",
            Use::Root => b"gatebook-ledger/v1/root\0",
        }
    }
}

/// The bytes that are signed for a use.
#[must_use]
pub fn message(purpose: Use, origin: &Origin, epoch: u32, message: &[u8]) -> Vec<u8> {
    let origin = origin.as_str().as_bytes();
    let mut out = Vec::with_capacity(32 + origin.len() + message.len());
    out.extend_from_slice(purpose.label());
    out.push(u8::try_from(origin.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(origin);
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// A public Ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Takes 32 bytes that are a point of the curve and not of small order.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Option<PublicKey> {
        let key = VerifyingKey::from_bytes(bytes).ok()?;
        (!key.is_weak()).then_some(PublicKey(key))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Whether this key signed this message. Strict: malleable signatures and weak keys are refused.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        self.0.verify_strict(message, &Ed25519::from_bytes(signature)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", crate::hash::Digest(self.bytes()))
    }
}

/// Holds the writer's keys: in files, in memory, in a module of hardware.
pub trait Keys: Send {
    /// The public half of a key. The root's is known from the manifest and asked for only at creation.
    ///
    /// # Errors
    /// [`KeyError`] where this holder has no such key.
    fn public(&self, role: Role) -> Result<PublicKey, KeyError>;

    /// Signs a message.
    ///
    /// # Errors
    /// [`KeyError`] where this holder has no such key or cannot use it.
    fn sign(&self, role: Role, message: &[u8]) -> Result<Signature, KeyError>;
}

/// A key that cannot be used, and why. Never names key material.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("there is no {} key here", .0.name())]
    Absent(Role),
    /// It could not be read, or could not sign.
    #[error("{0}")]
    Unusable(String),
}

/// Keys in memory.
pub struct MemoryKeys {
    root: Option<SigningKey>,
    log: SigningKey,
    epoch: SigningKey,
}

impl MemoryKeys {
    /// Takes the three secret seeds; the root's may stay elsewhere once the ledger is created.
    #[must_use]
    pub fn new(root: Option<&[u8; 32]>, log: &[u8; 32], epoch: &[u8; 32]) -> MemoryKeys {
        MemoryKeys {
            root: root.map(SigningKey::from_bytes),
            log: SigningKey::from_bytes(log),
            epoch: SigningKey::from_bytes(epoch),
        }
    }

    /// Draws three new keys from the operating system; gives back their seeds too, to be stored.
    ///
    /// # Errors
    /// [`KeyError`] where the operating system gives no randomness.
    pub fn generate() -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut())
            .map_err(|error| KeyError::Unusable(format!("no randomness: {error}")))?;
        Ok(seed)
    }

    fn key(&self, role: Role) -> Result<&SigningKey, KeyError> {
        match role {
            Role::Root => self.root.as_ref().ok_or(KeyError::Absent(Role::Root)),
            Role::Log => Ok(&self.log),
            Role::Epoch => Ok(&self.epoch),
        }
    }
}

impl Keys for MemoryKeys {
    fn public(&self, role: Role) -> Result<PublicKey, KeyError> {
        Ok(PublicKey(self.key(role)?.verifying_key()))
    }

    fn sign(&self, role: Role, message: &[u8]) -> Result<Signature, KeyError> {
        Ok(self.key(role)?.sign(message).to_bytes())
    }
}

impl fmt::Debug for MemoryKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryKeys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_for_one_use_origin_or_epoch_is_none_for_another() {
        let keys = MemoryKeys::new(None, &[1; 32], &[2; 32]);
        let (a, b) = (Origin::new("a.example").unwrap(), Origin::new("b.example").unwrap());
        let key = keys.public(Role::Epoch).unwrap();
        let signature = keys.sign(Role::Epoch, &message(Use::Frame, &a, 0, b"x")).unwrap();
        assert!(key.verifies(&message(Use::Frame, &a, 0, b"x"), &signature));
        for other in [
            message(Use::Seal, &a, 0, b"x"),
            message(Use::Frame, &b, 0, b"x"),
            message(Use::Frame, &a, 1, b"x"),
            message(Use::Frame, &a, 0, b"y"),
        ] {
            assert!(!key.verifies(&other, &signature));
        }
        assert!(!keys.public(Role::Log).unwrap().verifies(&message(Use::Frame, &a, 0, b"x"), &signature));
        assert!(matches!(keys.sign(Role::Root, b""), Err(KeyError::Absent(Role::Root))));
    }

    #[test]
    fn an_origin_is_a_name_that_a_note_can_carry() {
        for bad in ["", "a b", "a+b", "a\nb", "é", "a\"b"] {
            assert_eq!(Origin::new(bad), Err(BadOrigin), "{bad:?}");
        }
        assert!(Origin::new("gw1.corp.example/ledger").is_ok());
    }

    #[test]
    fn no_key_shows_its_secret() {
        let shown = format!("{:?}", MemoryKeys::new(Some(&[7; 32]), &[7; 32], &[7; 32]));
        assert_eq!(shown, "MemoryKeys");
    }
}

//! Who signs what: the keys and their numbers, and the one shape of every signed message that is not a C2SP note.
//!
//! A signature is over `gatebook-ledger/v1/<use>` ‖ 0 ‖ length and text of the origin ‖ epoch ‖ message, so
//! that none can be taken for another. What a newcomer gets wrong: the *log* key, which an auditor pins,
//! signs checkpoints alone; frames are signed by the *epoch* key, or neither may be worth anything when
//! the other is stolen.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ed25519_dalek::{Signature as Ed25519, Signer as _, SigningKey, VerifyingKey};
use parking_lot::Mutex;
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

/// Which key. A root or log key has the number of the order that brought it, 0 for those of `ledger.toml`; an
/// epoch's key has the epoch's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Certifies the others; may stay offline.
    Root(u32),
    /// Signs checkpoints; long-lived; what an auditor pins and a witness knows.
    Log(u32),
    /// Signs the frames and footers of its epoch and the next epoch's key, and adds a second line to checkpoints.
    Epoch(u32),
}

impl Role {
    /// The role as file names and messages spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Root(_) => "root",
            Role::Log(_) => "log",
            Role::Epoch(_) => "epoch",
        }
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Role::Root(number) | Role::Log(number) | Role::Epoch(number) => number,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} key {}", self.name(), self.number())
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
    /// The key of the next epoch, by the key of this one.
    NextEpoch,
    /// A change of the root or log key, by the root key.
    Keys,
    /// The same and the ledger that it is for, by the log key that it brings.
    LogKey,
}

impl Use {
    fn label(self) -> &'static [u8] {
        match self {
            Use::Frame => b"gatebook-ledger/v1/frame\0",
            Use::Seal => b"gatebook-ledger/v1/seal\0",
            Use::Root => b"gatebook-ledger/v1/root\0",
            Use::NextEpoch => b"gatebook-ledger/v1/next-epoch\0",
            Use::Keys => b"gatebook-ledger/v1/keys\0",
            Use::LogKey => b"gatebook-ledger/v1/log-key\0",
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
    /// The public half of a key.
    ///
    /// # Errors
    /// [`KeyError`] where this holder has no such key.
    fn public(&self, role: Role) -> Result<PublicKey, KeyError>;

    /// Signs a message.
    ///
    /// # Errors
    /// [`KeyError`] where this holder has no such key or cannot use it.
    fn sign(&self, role: Role, message: &[u8]) -> Result<Signature, KeyError>;

    /// Draws a new key; an epoch's in the place of any that has this name. It is durable on return: what it will sign
    /// must not become durable before the key itself.
    ///
    /// # Errors
    /// [`KeyError`] where there is no randomness or no room, or a root or log key of this name is there already.
    fn draw(&mut self, role: Role) -> Result<PublicKey, KeyError>;

    /// Destroys a key for good; durable on return. One that is not there is no error.
    ///
    /// # Errors
    /// [`KeyError`] where it may still be there.
    fn erase(&mut self, role: Role) -> Result<(), KeyError>;

    /// Every key that is held, also one that is damaged.
    fn held(&self) -> Vec<Role>;

    /// A manifest that was certified where the root key is; none where the root key is held here.
    ///
    /// # Errors
    /// [`KeyError`] where it cannot be read.
    fn manifest(&self) -> Result<Option<Vec<u8>>, KeyError> {
        Ok(None)
    }

    /// The root key's order of this number, where it has been brought.
    ///
    /// # Errors
    /// [`KeyError`] where it cannot be read.
    fn order(&self, number: u32) -> Result<Option<Vec<u8>>, KeyError> {
        let _ = number;
        Ok(None)
    }

    /// Takes up a key that was drawn elsewhere since these were loaded, where there is one.
    ///
    /// # Errors
    /// [`KeyError`] where it is there and cannot be read, or others can read it.
    fn look(&mut self, role: Role) -> Result<(), KeyError> {
        let _ = role;
        Ok(())
    }
}

/// A key that cannot be used, and why. Never names key material.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("there is no {0} here")]
    Absent(Role),
    /// It could not be read, or could not sign.
    #[error("{0}")]
    Unusable(String),
}

/// Keys in memory, for tests and demonstrations: what is drawn follows from the first epoch's seed, so that the
/// same calls write the same bytes. Its clones hold the same keys, so that they outlive a writer that crashed.
#[derive(Clone)]
pub struct MemoryKeys(Arc<Mutex<Held>>);

struct Held {
    keys: BTreeMap<Role, SigningKey>,
    seed: Zeroizing<[u8; 32]>,
    draws: u64,
    orders: BTreeMap<u32, Vec<u8>>,
}

impl MemoryKeys {
    /// Takes the secret seeds of the root key, the log key and the key of epoch 0; the root's may stay elsewhere
    /// once the ledger is created.
    #[must_use]
    pub fn new(root: Option<&[u8; 32]>, log: &[u8; 32], epoch: &[u8; 32]) -> MemoryKeys {
        let root = root.map(|seed| (Role::Root(0), SigningKey::from_bytes(seed)));
        let others = [(Role::Log(0), log), (Role::Epoch(0), epoch)]
            .map(|(role, seed)| (role, SigningKey::from_bytes(seed)));
        MemoryKeys(Arc::new(Mutex::new(Held {
            keys: others.into_iter().chain(root).collect(),
            seed: Zeroizing::new(*epoch),
            draws: 0,
            orders: BTreeMap::new(),
        })))
    }

    /// The same keys once more, which what is drawn and erased here does not touch.
    #[must_use]
    pub fn fork(&self) -> MemoryKeys {
        let Held { keys, seed, draws, orders } = &*self.0.lock();
        let (keys, seed, orders) = (keys.clone(), seed.clone(), orders.clone());
        MemoryKeys(Arc::new(Mutex::new(Held { keys, seed, draws: *draws, orders })))
    }

    /// Brings an order of the root key.
    pub fn bring_order(&self, number: u32, order: &str) {
        self.0.lock().orders.insert(number, order.as_bytes().to_vec());
    }
}

/// Draws the secret seed of a key from the operating system.
///
/// # Errors
/// [`KeyError`] where it gives no randomness.
pub fn random_seed() -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| KeyError::Unusable(format!("no randomness: {error}")))?;
    Ok(seed)
}

impl Keys for MemoryKeys {
    fn public(&self, role: Role) -> Result<PublicKey, KeyError> {
        let held = self.0.lock();
        let key = held.keys.get(&role).ok_or(KeyError::Absent(role))?;
        Ok(PublicKey(key.verifying_key()))
    }

    fn sign(&self, role: Role, message: &[u8]) -> Result<Signature, KeyError> {
        let held = self.0.lock();
        let key = held.keys.get(&role).ok_or(KeyError::Absent(role))?;
        Ok(key.sign(message).to_bytes())
    }

    fn draw(&mut self, role: Role) -> Result<PublicKey, KeyError> {
        let mut held = self.0.lock();
        held.draws += 1;
        let mut input = Zeroizing::new(held.seed.to_vec());
        input.extend_from_slice(&held.draws.to_be_bytes());
        let key = SigningKey::from_bytes(&blake3::derive_key("gatebook-ledger/v1 keys of tests", &input));
        let public = PublicKey(key.verifying_key());
        held.keys.insert(role, key);
        Ok(public)
    }

    fn erase(&mut self, role: Role) -> Result<(), KeyError> {
        self.0.lock().keys.remove(&role);
        Ok(())
    }

    fn held(&self) -> Vec<Role> {
        self.0.lock().keys.keys().copied().collect()
    }

    fn order(&self, number: u32) -> Result<Option<Vec<u8>>, KeyError> {
        Ok(self.0.lock().orders.get(&number).cloned())
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
        let key = keys.public(Role::Epoch(0)).unwrap();
        let signature = keys.sign(Role::Epoch(0), &message(Use::Frame, &a, 0, b"x")).unwrap();
        assert!(key.verifies(&message(Use::Frame, &a, 0, b"x"), &signature));
        for other in [
            message(Use::Seal, &a, 0, b"x"),
            message(Use::Frame, &b, 0, b"x"),
            message(Use::Frame, &a, 1, b"x"),
            message(Use::Frame, &a, 0, b"y"),
        ] {
            assert!(!key.verifies(&other, &signature));
        }
        assert!(!keys.public(Role::Log(0)).unwrap().verifies(&message(Use::Frame, &a, 0, b"x"), &signature));
        assert!(matches!(keys.sign(Role::Root(0), b""), Err(KeyError::Absent(Role::Root(0)))));
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

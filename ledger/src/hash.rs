//! Every use of a hash function in the ledger, each with a domain of its own.
//!
//! BLAKE3 gives the chain and the commitments, in `derive_key` mode with one context string a use. SHA-256
//! gives the tree of RFC 6962, so that verifiers that already exist can check it. What a newcomer gets
//! wrong: a context string is part of the format; changing a letter makes every ledger unverifiable.

use std::fmt;

use sha2::Digest as _;
use sha2::digest::generic_array::GenericArray;

const FRAME: &str = "gatebook-ledger/v1 frame";
const LINK: &str = "gatebook-ledger/v1 link";
const GENESIS: &str = "gatebook-ledger/v1 genesis";
const PAYLOAD: &str = "gatebook-ledger/v1 payload";
const TERM: &str = "gatebook-ledger/v1 index term";

/// Thirty-two bytes that stand for others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest that stands for "nothing before this".
    pub const ZERO: Digest = Digest([0; 32]);

    /// Reads 64 lower-case hexadecimal digits; any other spelling is refused.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Digest> {
        fn digit(byte: u8) -> Option<u8> {
            match byte {
                b'0'..=b'9' => Some(byte - b'0'),
                b'a'..=b'f' => Some(byte - b'a' + 10),
                _ => None,
            }
        }
        let text = text.as_bytes();
        if text.len() != 64 {
            return None;
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Digest(out))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Digest::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom("not 64 lower-case hexadecimal digits"))
    }
}

/// Whether this build leaves out hashing and signing and writes as many zeros, so that the bench can tell what both cost. Never so
/// in a build that is given to anybody; and what such a build writes verifies nowhere.
pub const UNSEALED: bool = cfg!(feature = "bench-unsealed");

/// The chain's value before the first frame: it stands for every byte of `ledger.toml`.
#[must_use]
pub fn genesis(manifest: &[u8]) -> Digest {
    Digest(blake3::derive_key(GENESIS, manifest))
}

/// The chain's value that a frame signs: over its header (which holds `chain_in`), its entries and its
/// table of payload lengths.
#[must_use]
pub fn frame(signed_part: &[u8]) -> Digest {
    if UNSEALED {
        return Digest::ZERO;
    }
    Digest(blake3::derive_key(FRAME, signed_part))
}

/// What the next frame takes as its `chain_in`.
#[must_use]
pub fn link(chain_out: &Digest, signature: &[u8; 64]) -> Digest {
    if UNSEALED {
        return Digest::ZERO;
    }
    let mut both = [0; 96];
    both[..32].copy_from_slice(&chain_out.0);
    both[32..].copy_from_slice(signature);
    Digest(blake3::derive_key(LINK, &both))
}

/// What stands in the index for a word of an entry, so that no name is kept there. No part of the format.
#[must_use]
pub fn term(field: u8, text: &str) -> Digest {
    Digest(
        *blake3::Hasher::new_derive_key(TERM).update(&[field]).update(text.as_bytes()).finalize().as_bytes(),
    )
}

/// Plain BLAKE3, for bytes that an event or a recovery names.
#[must_use]
pub fn plain(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// Plain BLAKE3 over bytes that arrive in parts.
#[derive(Clone, Default)]
pub struct Plain(blake3::Hasher);

impl Plain {
    /// Starts with nothing.
    #[must_use]
    pub fn new() -> Plain {
        Plain::default()
    }

    /// Takes the next part.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all parts so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plain")
    }
}

/// How many bytes of salt each payload has.
pub const SALT_BYTES: usize = 16;

/// Makes payload commitments; one value serves a thread, so that the context is prepared once.
#[derive(Clone)]
pub struct Committer(blake3::Hasher);

impl Committer {
    /// Prepares the context.
    #[must_use]
    pub fn new() -> Committer {
        Committer(blake3::Hasher::new_derive_key(PAYLOAD))
    }

    /// The commitment to a payload under its salt. It hides the payload from whoever lacks the salt.
    pub fn commit(&mut self, salt: &[u8; SALT_BYTES], payload: &[u8]) -> Digest {
        if UNSEALED {
            return Digest::ZERO;
        }
        self.0.reset();
        self.0.update(salt).update(payload);
        Digest(*self.0.finalize().as_bytes())
    }
}

impl Default for Committer {
    fn default() -> Self {
        Committer::new()
    }
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Committer")
    }
}

/// The leaf hash of RFC 6962, section 2.1: SHA-256 over 0x00 and the entry.
#[must_use]
pub fn leaf(entry: &[u8]) -> Digest {
    sha256_of(0, &[entry])
}

/// The node hash of RFC 6962, section 2.1: SHA-256 over 0x01 and both children.
#[must_use]
pub fn node(left: &Digest, right: &Digest) -> Digest {
    sha256_of(1, &[&left.0, &right.0])
}

/// FIPS 180-4, section 5.3.3.
const SHA256_START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const SHA256_BLOCK: usize = 64;
/// What is not longer is padded here (FIPS 180-4, section 5.1.1) and compressed in one call, which saves a fifth of its time.
const SHORT_BLOCKS: usize = 6;
const SHORT_BYTES_MAX: usize = SHORT_BLOCKS * SHA256_BLOCK - 9;

/// SHA-256 over one byte and these parts.
fn sha256_of(first: u8, parts: &[&[u8]]) -> Digest {
    if UNSEALED {
        return Digest::ZERO;
    }
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    if length > SHORT_BYTES_MAX {
        let whole = sha2::Sha256::new().chain_update([first]);
        return Digest(parts.iter().fold(whole, |hash, part| hash.chain_update(part)).finalize().into());
    }
    let mut bytes = [0; SHORT_BLOCKS * SHA256_BLOCK];
    bytes[0] = first;
    let mut at = 1;
    for part in parts {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    bytes[at] = 0x80;
    let end = (at + 9).next_multiple_of(SHA256_BLOCK);
    bytes[end - 8..end].copy_from_slice(&(8 * length as u64).to_be_bytes());
    let blocks: [GenericArray<u8, _>; SHORT_BLOCKS] = std::array::from_fn(|nth| {
        *GenericArray::from_slice(&bytes[nth * SHA256_BLOCK..(nth + 1) * SHA256_BLOCK])
    });
    let mut state = SHA256_START;
    sha2::compress256(&mut state, &blocks[..end / SHA256_BLOCK]);
    let mut out = [0; 32];
    for (bytes, word) in out.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    Digest(out)
}

/// The root of the empty tree (RFC 6962): SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Digest {
    Digest(sha2::Sha256::digest([]).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_to_anybody_hashes_and_signs() {
        assert_ne!(frame(b"a frame"), Digest::ZERO);
        assert_ne!(link(&Digest::ZERO, &[0; 64]), Digest::ZERO);
        assert_ne!(leaf(b"an entry"), Digest::ZERO);
        assert_ne!(Committer::new().commit(&[0; SALT_BYTES], b"a payload"), Digest::ZERO);
    }

    #[test]
    fn a_leaf_is_sha256_at_every_length() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for length in 0..bytes.len() {
            let entry = &bytes[..length];
            let expected = sha2::Sha256::new().chain_update([0]).chain_update(entry).finalize();
            assert_eq!(leaf(entry).0[..], expected[..], "{length}");
        }
        let (left, right) = (Digest([7; 32]), Digest([9; 32]));
        let expected =
            sha2::Sha256::new().chain_update([1]).chain_update([7; 32]).chain_update([9; 32]).finalize();
        assert_eq!(node(&left, &right).0[..], expected[..]);
    }
}

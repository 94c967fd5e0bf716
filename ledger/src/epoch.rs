//! Epochs: the key that signs is short-lived, and each hands over to the next before it is erased.
//!
//! An epoch ends with an `epoch.seal` entry, signed like any other, that names the next epoch's key and holds its
//! certificate. What a newcomer gets wrong: the certificate is over *where* the next epoch begins too, so that a
//! seal which a crash tore off certifies nothing elsewhere; the key that it named is thrown away all the same.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::entry::{Entry, Kind, Malformed, array};
use crate::signature::{KeyError, Keys, Origin, PublicKey, Role, Signature, Use, message};

/// The length of an epoch's fields in a segment's header.
pub(crate) const EPOCH_BYTES: usize = 116;

const UNSEALED: Malformed = Malformed("epoch.seal is not as the format wants it");

/// An epoch: what each of its segments' headers says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// Its number, from 0.
    pub number: u32,
    /// The number of its first entry.
    pub first_seq: u64,
    /// When it began, in nanoseconds since 1970 UTC: none of its entries is older.
    pub since_ns: u64,
    /// The key that signs it.
    pub key: PublicKey,
    /// That key's certificate by the key of the epoch before; zeros in epoch 0.
    pub certificate: Signature,
}

impl Epoch {
    /// Epoch 0, with the key that the manifest names.
    #[must_use]
    pub fn first(key: PublicKey, since_ns: u64) -> Epoch {
        Epoch { number: 0, first_seq: 0, since_ns, key, certificate: [0; 64] }
    }

    /// Certifies the epoch after this one.
    ///
    /// # Errors
    /// [`KeyError`] where this epoch's key does not sign.
    pub fn certify_next(
        &self,
        origin: &Origin,
        keys: &dyn Keys,
        key: PublicKey,
        first_seq: u64,
        since_ns: u64,
    ) -> Result<Epoch, KeyError> {
        let number = self.number + 1;
        let mut next = Epoch { number, first_seq, since_ns, key, certificate: [0; 64] };
        next.certificate = keys.sign(Role::Epoch(self.number), &next.certified(origin, self.number))?;
        Ok(next)
    }

    fn certified(&self, origin: &Origin, by: u32) -> Vec<u8> {
        let fields = [&self.key.bytes()[..], &self.first_seq.to_be_bytes(), &self.since_ns.to_be_bytes()];
        message(Use::NextEpoch, origin, by, &fields.concat())
    }

    /// Whether this is the epoch after that one, certified by its key.
    #[must_use]
    pub fn follows(&self, before: &Epoch, origin: &Origin) -> bool {
        before.number.checked_add(1) == Some(self.number)
            && before.key.verifies(&self.certified(origin, before.number), &self.certificate)
    }

    /// The body of the `epoch.seal` entry that comes before this epoch.
    #[must_use]
    pub fn seal(&self) -> String {
        let (certificate, key) = (STANDARD.encode(self.certificate), STANDARD.encode(self.key.bytes()));
        format!(r#"{{"certificate":"{certificate}","key":"{key}"}}"#)
    }

    /// The epoch that an `epoch.seal` entry of this one leads to; its certificate is checked.
    ///
    /// # Errors
    /// [`Malformed`] where the entry is none, or this epoch's key did not certify that one.
    pub fn after_seal(&self, entry: &Entry<'_>, origin: &Origin) -> Result<Epoch, Malformed> {
        let body: Seal<'_> = serde_json::from_slice(entry.body).map_err(|_| UNSEALED)?;
        let decode = |text: &str| STANDARD.decode(text).ok();
        let key = decode(body.key).and_then(|key| PublicKey::new(&key.try_into().ok()?));
        let certificate = decode(body.certificate).and_then(|certificate| certificate.try_into().ok());
        let next = Epoch {
            number: self.number.checked_add(1).ok_or(UNSEALED)?,
            first_seq: entry.header.seq + 1,
            since_ns: entry.header.time_ns,
            key: key.ok_or(UNSEALED)?,
            certificate: certificate.ok_or(UNSEALED)?,
        };
        let own = entry.header.kind == Kind::EPOCH_SEAL && entry.header.session == 0;
        if !own || next.seal().as_bytes() != entry.body {
            return Err(UNSEALED);
        }
        if !next.follows(self, origin) {
            return Err(Malformed("epoch.seal names a key that its epoch did not certify"));
        }
        Ok(next)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.first_seq.to_be_bytes());
        out.extend_from_slice(&self.since_ns.to_be_bytes());
        out.extend_from_slice(&self.key.bytes());
        out.extend_from_slice(&self.certificate);
    }

    pub(crate) fn decode(bytes: &[u8; EPOCH_BYTES]) -> Option<Epoch> {
        Some(Epoch {
            number: u32::from_be_bytes(array(&bytes[..4])),
            first_seq: u64::from_be_bytes(array(&bytes[4..12])),
            since_ns: u64::from_be_bytes(array(&bytes[12..20])),
            key: PublicKey::new(&array(&bytes[20..52]))?,
            certificate: array(&bytes[52..]),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal<'a> {
    certificate: &'a str,
    key: &'a str,
}

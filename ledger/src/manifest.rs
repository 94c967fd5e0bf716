//! `ledger.toml`: what this ledger is. Written once; each of its bytes is under the chain's first value.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::checkpoint::Vkey;
use crate::hash::{Digest, genesis};
use crate::signature::{KeyError, Keys, Origin, PublicKey, Role, Signature, Use, message};

/// The version of the format that is written and read.
pub const FORMAT: u32 = 1;
/// The manifest's name in the ledger's directory.
pub const NAME: &str = "ledger.toml";
/// The longest manifest that is read.
pub const MANIFEST_BYTES_MAX: usize = 4096;

/// A ledger's name and keys, certified by its root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The ledger's name.
    pub origin: Origin,
    /// The root key.
    pub root_key: PublicKey,
    /// The log key.
    pub log_key: PublicKey,
    /// The key of epoch 0.
    pub epoch_key: PublicKey,
    certificate: Signature,
}

impl Manifest {
    /// Makes the manifest of a new ledger, where all three keys are in one place.
    ///
    /// # Errors
    /// [`KeyError`] where a key is not there.
    pub fn create(origin: &Origin, keys: &dyn Keys) -> Result<Manifest, KeyError> {
        let (log_key, epoch_key) = (keys.public(Role::Log(0))?, keys.public(Role::Epoch(0))?);
        Manifest::certify(origin, log_key, epoch_key, keys)
    }

    /// The same where the root key is and the others are not.
    ///
    /// # Errors
    /// [`KeyError`] where the root key is not there.
    pub fn certify(
        origin: &Origin,
        log_key: PublicKey,
        epoch_key: PublicKey,
        root: &dyn Keys,
    ) -> Result<Manifest, KeyError> {
        let certificate = root.sign(Role::Root(0), &certified(origin, log_key, epoch_key))?;
        Ok(Manifest {
            origin: origin.clone(),
            root_key: root.public(Role::Root(0))?,
            log_key,
            epoch_key,
            certificate,
        })
    }

    /// Reads a manifest: one spelling is accepted, and the root's certificate must hold.
    ///
    /// # Errors
    /// [`BadManifest`] otherwise.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, BadManifest> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(BadManifest("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| BadManifest("it is not UTF-8"))?;
        let fields: Fields =
            toml::from_str(text).map_err(|_| BadManifest("it does not have the fields of one"))?;
        if fields.format != FORMAT {
            return Err(BadManifest("it is of a format that this program does not know"));
        }
        let key = |text: &str| {
            let bytes: Option<[u8; 32]> = STANDARD.decode(text).ok().and_then(|b| b.try_into().ok());
            bytes.and_then(|bytes| PublicKey::new(&bytes)).ok_or(BadManifest("a key in it is none"))
        };
        let certificate = STANDARD.decode(&fields.certificate).ok().and_then(|b| b.try_into().ok());
        let manifest = Manifest {
            origin: Origin::new(&fields.origin).map_err(|_| BadManifest("its origin is not one"))?,
            root_key: key(&fields.root_key)?,
            log_key: key(&fields.log_key)?,
            epoch_key: key(&fields.epoch_key)?,
            certificate: certificate.ok_or(BadManifest("its certificate is not a signature"))?,
        };
        if manifest.text() != text {
            return Err(BadManifest("it is not in its one spelling"));
        }
        let signed = certified(&manifest.origin, manifest.log_key, manifest.epoch_key);
        if !manifest.root_key.verifies(&signed, &manifest.certificate) {
            return Err(BadManifest("its root key did not sign its other keys"));
        }
        Ok(manifest)
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "# What this ledger is. The chain covers every byte of this file: a change makes it unverifiable.\n\
             format = {FORMAT}\norigin = \"{}\"\nroot_key = \"{}\"\nlog_key = \"{}\"\nepoch_key = \"{}\"\ncertificate = \"{}\"\n",
            self.origin,
            STANDARD.encode(self.root_key.bytes()),
            STANDARD.encode(self.log_key.bytes()),
            STANDARD.encode(self.epoch_key.bytes()),
            STANDARD.encode(self.certificate),
        )
    }

    /// The chain's value before the first frame.
    #[must_use]
    pub fn genesis(&self) -> Digest {
        genesis(self.text().as_bytes())
    }

    /// The verifier key of the log key: what an auditor pins.
    #[must_use]
    pub fn vkey(&self) -> Vkey {
        Vkey::log(&self.origin, self.log_key)
    }
}

fn certified(origin: &Origin, log_key: PublicKey, epoch_key: PublicKey) -> Vec<u8> {
    let both = [log_key.bytes(), epoch_key.bytes()].concat();
    message(Use::Root, origin, 0, &both)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    format: u32,
    origin: String,
    root_key: String,
    log_key: String,
    epoch_key: String,
    certificate: String,
}

/// Why a `ledger.toml` is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ledger.toml is not a good manifest: {0}")]
pub struct BadManifest(pub(crate) &'static str);

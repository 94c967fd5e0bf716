//! An issuer's public keys: which of those that it publishes are used, for which algorithms, and the check of
//! a signature.
//!
//! Only what can be used safely is kept: no shared secrets, no keys for encryption, no short RSA keys, no key
//! whose private half was published along. An algorithm belongs to a key by the key's kind, never because a
//! token says so; that is what keeps a public key from being used as an HMAC secret.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openidconnect::JsonWebKey as _;
use openidconnect::core::{CoreJsonWebKey, CoreJwsSigningAlgorithm};
use serde_json::{Value, json};

use super::json::{self, Object};
use super::rejected::quoted;

/// The most keys that are read of one issuer.
const KEYS_MAX: usize = 100;
/// The shortest RSA modulus that RFC 7518 section 3.3 lets one use.
const RSA_BITS_MIN: usize = 2048;
/// The longest RSA modulus that a check is spent on.
const RSA_BITS_MAX: usize = 4096;

/// A signature algorithm that tokens may use. Neither `none` nor the `HS` family can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All algorithms, in the order of their declaration.
    pub const ALL: [Algorithm; 9] = [
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
    ];

    /// What an issuer may use where its configuration does not say.
    pub const DEFAULT: [Algorithm; 4] =
        [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa, Algorithm::Ps256];

    /// The name in a token's header and in the configuration (RFC 7518 section 3.1, RFC 8037).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    fn library(self) -> CoreJwsSigningAlgorithm {
        match self {
            Algorithm::Rs256 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
            Algorithm::Rs384 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
            Algorithm::Rs512 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
            Algorithm::Ps256 => CoreJwsSigningAlgorithm::RsaSsaPssSha256,
            Algorithm::Ps384 => CoreJwsSigningAlgorithm::RsaSsaPssSha384,
            Algorithm::Ps512 => CoreJwsSigningAlgorithm::RsaSsaPssSha512,
            Algorithm::Es256 => CoreJwsSigningAlgorithm::EcdsaP256Sha256,
            Algorithm::Es384 => CoreJwsSigningAlgorithm::EcdsaP384Sha384,
            Algorithm::EdDsa => CoreJwsSigningAlgorithm::EdDsa,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names are case-sensitive. `Ed25519` (RFC 9864) is another name of what `EdDSA` means here.
impl FromStr for Algorithm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let name = if name == "Ed25519" { "EdDSA" } else { name };
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
            format!("{} is not among {}", quoted(name), known.join(", "))
        })
    }
}

/// The keys of one issuer, as of one fetch.
#[derive(Debug, Default)]
pub(super) struct Keys {
    keys: Vec<Key>,
    /// Of all that decides: equal fingerprints, equal verdicts.
    fingerprint: Option<blake3::Hash>,
    /// What was published and is not used, for the operator.
    unused: Vec<String>,
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    library: CoreJsonWebKey,
}

impl Keys {
    /// Reads a JSON Web Key Set (RFC 7517 section 5). Keys that cannot be used are left out.
    ///
    /// # Errors
    /// A lower-case fragment when it is none.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let set = json::object(body)?;
        let Some(Value::Array(published)) = set.get("keys") else {
            return Err("has no array of keys".to_owned());
        };
        if published.len() > KEYS_MAX {
            return Err(format!("has more than {KEYS_MAX} keys"));
        }
        let mut keys = Self::default();
        let mut hasher = blake3::Hasher::new();
        for value in published {
            let key = value.as_object().ok_or_else(|| "is not an object".to_owned()).and_then(Key::parse);
            match key {
                Ok(key) => {
                    hasher.update(format!("{key:?}\n").as_bytes());
                    keys.keys.push(key);
                }
                Err(reason) => keys.unused.push(reason),
            }
        }
        keys.fingerprint = Some(hasher.finalize());
        Ok(keys)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn unused(&self) -> &[String] {
        &self.unused
    }

    pub(super) fn same_as(&self, other: &Keys) -> bool {
        self.fingerprint.is_some() && self.fingerprint == other.fingerprint
    }

    /// Checks a signature by the key that the token names, or by the only one that fits where it names none.
    pub(super) fn verify(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> SignatureVerdict {
        let fitting = || self.keys.iter().filter(|key| key.fits(kid, algorithm));
        match (fitting().count(), kid) {
            (0, _) => return SignatureVerdict::NoKey,
            (2.., None) => return SignatureVerdict::Ambiguous,
            _ => {}
        }
        let good = |key: &Key| key.library.verify_signature(&algorithm.library(), signed, signature).is_ok();
        if fitting().any(good) { SignatureVerdict::Good } else { SignatureVerdict::Bad }
    }
}

/// What came of checking a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureVerdict {
    Good,
    Bad,
    /// No key fits; another fetch may bring one.
    NoKey,
    /// The token names no key, and several fit.
    Ambiguous,
}

impl Key {
    fn parse(jwk: &Object) -> Result<Self, String> {
        let kid = json::optional_str(jwk, "kid")?.map(str::to_owned);
        let name = kid.as_deref().map_or_else(|| "a key without kid".to_owned(), quoted);
        let text = |member: &str| {
            json::optional_str(jwk, member)
                .map_err(|error| format!("{name}: {error}"))?
                .ok_or_else(|| format!("{name}: member {member} is missing"))
        };
        if ["d", "p", "q", "k"].iter().any(|member| jwk.contains_key(*member)) {
            return Err(format!("{name}: secret key material is published"));
        }
        if json::optional_str(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(format!("{name}: not for signatures"));
        }
        match jwk.get("key_ops") {
            None => {}
            Some(Value::Array(ops)) if ops.iter().any(|op| op == "verify") => {}
            Some(_) => return Err(format!("{name}: not for verification")),
        }
        // Only what decides goes to the library, so that an unknown member of a key cannot lose the key.
        let (mut algorithms, jwk_of_library) = match (text("kty")?, jwk.get("crv").and_then(Value::as_str)) {
            ("RSA", _) => {
                let bits = modulus_bits(text("n")?).ok_or_else(|| format!("{name}: bad modulus"))?;
                if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
                    return Err(format!("{name}: an RSA key of {bits} bits"));
                }
                let algorithms = vec![
                    Algorithm::Rs256,
                    Algorithm::Rs384,
                    Algorithm::Rs512,
                    Algorithm::Ps256,
                    Algorithm::Ps384,
                    Algorithm::Ps512,
                ];
                (algorithms, json!({ "kty": "RSA", "n": text("n")?, "e": text("e")? }))
            }
            ("EC", Some(curve @ ("P-256" | "P-384"))) => {
                let algorithm = if curve == "P-256" { Algorithm::Es256 } else { Algorithm::Es384 };
                (vec![algorithm], json!({ "kty": "EC", "crv": curve, "x": text("x")?, "y": text("y")? }))
            }
            ("OKP", Some("Ed25519")) => {
                (vec![Algorithm::EdDsa], json!({ "kty": "OKP", "crv": "Ed25519", "x": text("x")? }))
            }
            (kind, curve) => {
                let kind = quoted(kind);
                return Err(format!(
                    "{name}: kind {kind} {} is not used",
                    curve.map_or(String::new(), quoted)
                ));
            }
        };
        if let Some(declared) = json::optional_str(jwk, "alg")? {
            algorithms.retain(|algorithm| declared.parse() == Ok(*algorithm));
            if algorithms.is_empty() {
                return Err(format!("{name}: algorithm {} does not fit it", quoted(declared)));
            }
        }
        let library = serde_json::from_value(jwk_of_library).map_err(|error| format!("{name}: {error}"))?;
        Ok(Self { kid, algorithms, library })
    }

    fn fits(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        (kid.is_none() || kid == self.kid.as_deref()) && self.algorithms.contains(&algorithm)
    }
}

fn modulus_bits(encoded: &str) -> Option<usize> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    let leading = usize::try_from(bytes[first].leading_zeros()).ok()?;
    Some((bytes.len() - first) * 8 - leading)
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Keys, SignatureVerdict};

    fn unused(jwk: &str) -> String {
        let keys = Keys::parse(format!("{{\"keys\":[{jwk}]}}").as_bytes()).expect("a key set");
        assert_eq!(keys.len(), 0, "{jwk}");
        keys.unused().join("; ")
    }

    #[test]
    fn keys_that_cannot_be_used_safely_are_left_out() {
        let short = "AQAB".repeat(32);
        for (jwk, reason) in [
            (r#"{"kty":"oct","k":"AAAA","kid":"a"}"#.to_owned(), "secret key material"),
            (r#"{"kty":"oct","kid":"a"}"#.to_owned(), "is not used"),
            (format!(r#"{{"kty":"RSA","n":"{short}","e":"AQAB"}}"#), "an RSA key of 761 bits"),
            (r#"{"kty":"RSA","n":"AQ==","e":"AQAB"}"#.to_owned(), "bad modulus"),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA","d":"AAAA"}"#.to_owned(), "secret key material"),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA","use":"enc"}"#.to_owned(), "not for signatures"),
            (
                r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA","key_ops":["sign"]}"#.to_owned(),
                "not for verification",
            ),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA","alg":"HS256"}"#.to_owned(), "does not fit"),
            (r#"{"kty":"OKP","crv":"Ed25519"}"#.to_owned(), "member x is missing"),
            (r#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}"#.to_owned(), "is not used"),
            (r#"{"kty":7}"#.to_owned(), "member kty is not a string"),
            ("7".to_owned(), "is not an object"),
        ] {
            let found = unused(&jwk);
            assert!(found.contains(reason), "{jwk}: {found}");
        }
    }

    #[test]
    fn a_key_set_is_bounded_and_strict() {
        assert!(Keys::parse(b"{}").is_err());
        assert!(Keys::parse(b"{\"keys\":[],\"keys\":[]}").is_err());
        let many = format!("{{\"keys\":[{}]}}", vec!["{}"; 101].join(","));
        assert!(Keys::parse(many.as_bytes()).is_err());
        assert_eq!(
            Keys::parse(b"{\"keys\":[]}").expect("keys").verify(None, Algorithm::EdDsa, b"", b""),
            SignatureVerdict::NoKey
        );
    }

    #[test]
    fn neither_none_nor_a_shared_secret_is_an_algorithm() {
        for name in ["none", "None", "HS256", "HS384", "HS512", "rs256", "ES512", "", "RSA-OAEP"] {
            assert!(name.parse::<Algorithm>().is_err(), "{name}");
        }
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
        }
    }
}

//! The gateway's own tokens: what a delegation hands down, signed by a key that this gateway alone has.
//!
//! A token names a delegation and ends with it; what it may be used for is the gateway's own record. What else it says (`sub`,
//! `act`, `scope`) is for readers, and is never read back: nobody gains by writing more into it.
//!
//! Keys are Ed25519. One signs for [`OwnKeys::age_max`], and stays published and believed until the last token that it signed
//! is over; then its file is removed.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::jws::Unverified;
use super::principal::Credential;
use super::rejected::{Cause, Rejected, quoted};
use super::{TOKEN_BYTES_MAX, json as object, unix};

/// The type of these tokens: no other token is taken for one, and none of them for another (RFC 8725, section 3.11).
const TYP: &str = "gatebook-delegation+jwt";
/// The longest file of a key.
const KEY_BYTES_MAX: u64 = 4096;

/// The keys that sign, and the name under which.
pub(crate) struct OwnKeys {
    folder: PathBuf,
    url: String,
    age_max: Duration,
    /// How long a token lasts at most.
    ttl_max: Duration,
    /// The newest first, which signs.
    keys: RwLock<Vec<OwnKey>>,
}

struct OwnKey {
    id: String,
    made: u64,
    pair: Ed25519KeyPair,
    file: PathBuf,
}

impl OwnKeys {
    /// Reads the keys of a folder, and makes the first where there is none.
    ///
    /// # Errors
    /// A lower-case fragment that names the file.
    pub(crate) fn open(
        folder: &Path,
        url: &str,
        age_max: Duration,
        ttl_max: Duration,
        now: SystemTime,
    ) -> Result<OwnKeys, String> {
        let failed = |error: io::Error| format!("{}: {error}", folder.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mut keys = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            if file.extension().is_some_and(|extension| extension == "key") {
                keys.push(OwnKey::read(file)?);
            }
        }
        keys.sort_by_key(|key: &OwnKey| std::cmp::Reverse(key.made));
        let own = OwnKeys {
            folder: folder.to_owned(),
            url: url.to_owned(),
            age_max,
            ttl_max,
            keys: RwLock::new(keys),
        };
        own.rotate(now)?;
        Ok(own)
    }

    /// Makes a new key where the one that signs is too old, and removes those whose last token is over.
    ///
    /// # Errors
    /// A lower-case fragment that names the file; the keys stay as they were.
    pub(crate) fn rotate(&self, now: SystemTime) -> Result<(), String> {
        let seconds = unix(now);
        let age = |key: &OwnKey| Duration::from_secs(seconds.saturating_sub(key.made));
        let over = self.age_max + self.ttl_max;
        let due = {
            let keys = self.keys.read();
            (keys.first().is_none_or(|key| age(key) >= self.age_max), keys.iter().any(|key| age(key) > over))
        };
        if due == (false, false) {
            return Ok(());
        }
        let fresh = if due.0 { Some(OwnKey::make(&self.folder, seconds)?) } else { None };
        let mut keys = self.keys.write();
        if let Some(fresh) = fresh {
            keys.insert(0, fresh);
        }
        let (kept, gone): (Vec<OwnKey>, Vec<OwnKey>) = keys.drain(..).partition(|key| age(key) <= over);
        *keys = kept;
        for key in gone {
            let _ = fs::remove_file(&key.file);
        }
        Ok(())
    }

    /// Whether a credential says that it is one of these tokens. It only tells whom to ask; nothing of it is believed.
    pub(crate) fn claims(&self, credential: &Credential) -> bool {
        let token = credential.expose();
        token.len() <= TOKEN_BYTES_MAX
            && Unverified::parse(token).is_ok_and(|token| {
                object::optional_str(&token.claims, "iss")
                    .is_ok_and(|issuer| issuer == Some(self.url.as_str()))
            })
    }

    /// Signs a token for a delegation; `claims` are for readers, and lose against what this gateway reads back.
    pub(crate) fn sign(
        &self,
        delegation: &str,
        issued: SystemTime,
        expires: SystemTime,
        mut claims: Value,
    ) -> Zeroizing<String> {
        claims["iss"] = json!(self.url);
        claims["aud"] = json!(self.url);
        claims["jti"] = json!(delegation);
        claims["iat"] = json!(unix(issued));
        claims["exp"] = json!(unix(expires));
        let keys = self.keys.read();
        let key = &keys[0];
        let header = json!({ "alg": "EdDSA", "typ": TYP, "kid": key.id });
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = Zeroizing::new(format!("{}.{}", encode(&header), encode(&claims)));
        let signature = key.pair.sign(token.as_bytes());
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        token
    }

    /// The id of the delegation that a token is good for.
    ///
    /// # Errors
    /// [`Rejected`], for the ledger.
    pub(crate) fn verify(&self, credential: &Credential, now: SystemTime) -> Result<Arc<str>, Rejected> {
        let token = Unverified::parse(credential.expose())?;
        let wrong = |cause, detail: String| Err(Rejected::new(cause, detail));
        if token.header.typ.as_deref() != Some(TYP) {
            return wrong(
                Cause::WrongPurpose,
                "it names the gateway as its issuer, and is no delegation".into(),
            );
        }
        if token.header.algorithm != "EdDSA" {
            return wrong(Cause::AlgorithmNotAllowed, quoted(&token.header.algorithm));
        }
        let keys = self.keys.read();
        let named = keys.iter().find(|key| Some(key.id.as_str()) == token.header.kid.as_deref());
        let Some(key) = named else {
            return wrong(Cause::UnknownKey, "it was not signed by a key of this gateway".into());
        };
        if UnparsedPublicKey::new(&ED25519, key.pair.public_key())
            .verify(token.signed, &token.signature)
            .is_err()
        {
            return wrong(Cause::BadSignature, "by the gateway's own key".into());
        }
        let bad = |detail| Rejected::new(Cause::BadClaim, detail);
        let text = |name| object::optional_str(&token.claims, name).map_err(bad);
        if (text("iss")?, text("aud")?) != (Some(self.url.as_str()), Some(self.url.as_str())) {
            return wrong(Cause::WrongAudience, "it is another gateway's".into());
        }
        let expires = token.claims.get("exp").and_then(Value::as_u64).unwrap_or(0);
        if unix(now) >= expires {
            return wrong(Cause::Expired, format!("for {} s", unix(now) - expires));
        }
        text("jti")?.map(Arc::from).ok_or_else(|| bad("claim jti is missing".to_owned()))
    }

    /// The public halves, as a JWK set (RFC 7517, RFC 8037).
    pub(crate) fn published(&self) -> Value {
        let keys: Vec<Value> = self
            .keys
            .read()
            .iter()
            .map(|key| {
                let public = BASE64_URL_SAFE_NO_PAD.encode(key.pair.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.id, "x": public })
            })
            .collect();
        json!({ "keys": keys })
    }
}

impl OwnKey {
    /// Makes a key and its file, whose name tells when.
    fn make(folder: &Path, made: u64) -> Result<OwnKey, String> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| "the operating system gives no randomness".to_owned())?;
        let temporary = folder.join("new.tmp");
        let failed = |error: io::Error| format!("{}: {error}", temporary.display());
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed)?;
        file.write_all(document.as_ref()).and_then(|()| file.sync_all()).map_err(failed)?;
        // A half-written key never has the name of a whole one.
        let place = folder.join(format!("{made}.key"));
        fs::rename(&temporary, &place).and_then(|()| fs::File::open(folder)?.sync_all()).map_err(failed)?;
        OwnKey::read(place)
    }

    fn read(file: PathBuf) -> Result<OwnKey, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let meta = fs::metadata(&file).map_err(|error| failed(&error))?;
        let mode = meta.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(failed(&format!("others can read it (mode {:04o}); make it 0600", mode & 0o7777)));
        }
        if meta.len() > KEY_BYTES_MAX {
            return Err(failed(&"it is no key"));
        }
        let made = file.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        let Some(made) = made else { return Err(failed(&"its name is not the second that it was made in")) };
        let bytes = Zeroizing::new(fs::read(&file).map_err(|error| failed(&error))?);
        let pair = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| failed(&"it is no Ed25519 key"))?;
        let id = blake3::hash(pair.public_key().as_ref());
        Ok(OwnKey { id: BASE64_URL_SAFE_NO_PAD.encode(&id.as_bytes()[..16]), made, pair, file })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn open(folder: &Path, now: u64) -> OwnKeys {
        OwnKeys::open(folder, "https://gw.example", 24 * HOUR, HOUR, at(now)).expect("keys")
    }

    fn verify(keys: &OwnKeys, token: &str, now: u64) -> Result<String, Cause> {
        let verified = keys.verify(&Credential::from(token), at(now));
        verified.map(|id| id.to_string()).map_err(|rejected| rejected.cause())
    }

    #[test]
    fn a_token_is_good_until_it_ends_and_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = open(folder.path(), 1000);
        let token = keys.sign("d1", at(1000), at(1600), json!({ "jti": "d2", "exp": 9_999_999 }));
        assert!(keys.claims(&Credential::from(token.as_str())));
        assert_eq!(verify(&keys, &token, 1599), Ok("d1".into()), "what is for readers decides nothing");
        assert_eq!(verify(&keys, &token, 1600), Err(Cause::Expired));
        assert_eq!(verify(&open(folder.path(), 1500), &token, 1599), Ok("d1".into()));
        let (text, _) = token.rsplit_once('.').expect("three parts");
        let other = tempfile::tempdir().expect("a folder");
        let forged = open(other.path(), 1000).sign("d1", at(1000), at(1600), json!({}));
        assert_eq!(verify(&keys, &forged, 1100), Err(Cause::UnknownKey));
        let (_, signature) = forged.rsplit_once('.').expect("three parts");
        assert_eq!(verify(&keys, &format!("{text}.{signature}"), 1100), Err(Cause::BadSignature));
        assert_eq!(verify(&keys, &format!("{text}."), 1100), Err(Cause::BadSignature));
    }

    #[test]
    fn keys_rotate_and_old_ones_go_when_their_tokens_are_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = open(folder.path(), 1000);
        let day = 24 * 3600;
        let token = keys.sign("d1", at(999 + day), at(999 + day + 3600), json!({}));
        keys.rotate(at(1000 + day)).expect("a key");
        assert_eq!(keys.published()["keys"].as_array().map(Vec::len), Some(2));
        assert_eq!(verify(&keys, &token, 999 + day + 3599), Ok("d1".into()));
        keys.rotate(at(1001 + day + 3600)).expect("fewer keys");
        assert_eq!(keys.published()["keys"].as_array().map(Vec::len), Some(1));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        assert_eq!(verify(&keys, &token, 1001 + day), Err(Cause::UnknownKey));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(open(folder.path(), 1000));
        let file = folder.path().join("1000.key");
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("a mode");
        let error = OwnKeys::open(folder.path(), "https://gw.example", HOUR, HOUR, at(1000)).err();
        assert!(error.is_some_and(|error| error.contains("0640")));
    }
}

//! A certificate authority of one's own, for a first set-up and for the demonstration.
//!
//! It makes ECDSA P-256 keys and certificates for servers, and nothing else: no certificates for clients, no
//! intermediate authorities. Private keys leave it only as wiped-after-use text or as files of mode 0600; an existing file is
//! never replaced unless the caller says so.
//!
//! What a newcomer gets wrong: whoever holds the authority's key can be any server to every client that trusts it. A
//! gateway needs `ca.key` only to renew its certificate, so it may well be kept elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use x509_parser::oid_registry;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use crate::config::reason;

/// How long an authority is valid.
pub const AUTHORITY_VALIDITY: Duration = Duration::days(3_650);
/// How long a server's certificate is valid: clients refuse longer ones.
pub const SERVER_VALIDITY: Duration = Duration::days(397);
/// Certificates are valid from a little earlier, for clients whose clocks are behind.
const BACKDATED: Duration = Duration::hours(1);

/// How much of a PEM file is read, in bytes; what we write has less than 4,096.
const PEM_BYTES_MAX: usize = 64 * 1024;

/// Why a certificate could not be made or stored.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A name is neither a host name nor an address, or there is none.
    #[error("\"{0}\" is no host name and no address")]
    BadName(String),
    /// The library refused to make a key or a certificate.
    #[error("cannot make a certificate: {0}")]
    Failed(#[from] rcgen::Error),
    /// An authority's files hold something else.
    #[error("{} is not an authority's: {what}", file.display())]
    NotAnAuthority {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {}", file.display(), reason(source))]
    Storage {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// An authority: its certificate, and the key that signs.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A server's certificate and its key, as PEM text.
pub struct Issued {
    /// The certificate, without its authority's: what `certificate.chain` names.
    pub chain: String,
    /// The private key, PKCS #8.
    pub key: Zeroizing<String>,
}

impl Authority {
    /// Makes an authority called `name`, valid from `now`.
    ///
    /// # Errors
    /// [`PkiError::Failed`] when the name cannot be encoded or there is no randomness.
    pub fn create(name: &str, now: OffsetDateTime) -> Result<Self, PkiError> {
        let mut params = authority_params(name);
        (params.not_before, params.not_after) = (now - BACKDATED, now + AUTHORITY_VALIDITY);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Authority { certificate, issuer: Issuer::new(params, key) })
    }

    /// Reads an authority that [`Authority::write`] wrote.
    ///
    /// # Errors
    /// [`PkiError`] when the files cannot be read, or are not an authority's that this module made.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let not_ours =
            |file: &Path, what: &str| PkiError::NotAnAuthority { file: file.into(), what: what.into() };
        let pem = read_bounded(certificate)?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| not_ours(certificate, "it holds no certificate"))?;
        // The library's errors about a key may show what it read.
        let key_pair =
            KeyPair::from_pem(&read_bounded(key)?).map_err(|_| not_ours(key, "it holds no private key"))?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|_| not_ours(certificate, "it holds no certificate"))?;
        if !parsed.is_ca() {
            return Err(not_ours(certificate, "it may not sign certificates"));
        }
        if parsed.public_key().raw != key_pair.subject_public_key_info() {
            return Err(not_ours(key, "it is the key of another certificate"));
        }
        // What is signed must name its signer exactly, and only names of this one shape are spelled the same again.
        let mut names = parsed.subject().iter_attributes();
        let name = match (names.next(), names.next()) {
            (Some(name), None) if *name.attr_type() == oid_registry::OID_X509_COMMON_NAME => {
                name.as_str().ok()
            }
            _ => None,
        };
        let name = name.ok_or_else(|| not_ours(certificate, "it was not made by gatebook init"))?;
        let issuer = Issuer::new(authority_params(name), key_pair);
        Ok(Authority { certificate: pem.to_string(), issuer })
    }

    /// The authority's certificate as PEM text: what clients are told to trust.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Makes a key and a certificate for a server that is reached under these names and addresses.
    ///
    /// # Errors
    /// [`PkiError::BadName`] when one of them is neither, or there is none.
    pub fn issue(&self, names: &[String], now: OffsetDateTime) -> Result<Issued, PkiError> {
        let first = names.first().ok_or_else(|| PkiError::BadName(String::new()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = called(first);
        params.subject_alt_names = names.iter().map(|name| alternative(name)).collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (now - BACKDATED, now + SERVER_VALIDITY);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let chain = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { chain, key: Zeroizing::new(key.serialize_pem()) })
    }

    /// Writes `ca.pem` and `ca.key` into a folder; neither may exist.
    ///
    /// # Errors
    /// [`PkiError::Storage`] when a file exists or cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), PkiError> {
        let key = Zeroizing::new(self.issuer.key().serialize_pem());
        create(&folder.join("ca.key"), key.as_bytes(), Secrecy::Private)?;
        create(&folder.join("ca.pem"), self.certificate.as_bytes(), Secrecy::Public)
    }
}

impl Issued {
    /// Writes `server.pem` and `server.key` into a folder; neither may exist.
    ///
    /// # Errors
    /// [`PkiError::Storage`] when a file exists or cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), PkiError> {
        create(&folder.join("server.key"), self.key.as_bytes(), Secrecy::Private)?;
        create(&folder.join("server.pem"), self.chain.as_bytes(), Secrecy::Public)
    }

    /// Puts both in the place of an earlier pair, each by a rename, so that a reader finds no half of a file. Between the
    /// two renames the pair does not match; the gateway then keeps what it has and looks again.
    ///
    /// # Errors
    /// [`PkiError::Storage`] when a file cannot be written.
    pub fn replace(&self, folder: &Path) -> Result<(), PkiError> {
        let files = [
            ("server.key", self.key.as_bytes(), Secrecy::Private),
            ("server.pem", self.chain.as_bytes(), Secrecy::Public),
        ];
        for (name, content, secrecy) in files {
            let (new, file) = (folder.join(format!("{name}.new")), folder.join(name));
            let storage = |source| PkiError::Storage { file: new.clone(), source };
            match std::fs::remove_file(&new) {
                Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(storage(why)),
                _ => {}
            }
            create(&new, content, secrecy)?;
            std::fs::rename(&new, &file).map_err(storage)?;
        }
        Ok(())
    }
}

/// The host names and addresses that the first certificate of a PEM file is valid for.
///
/// # Errors
/// [`PkiError`] when the file cannot be read or holds no certificate.
pub fn names_of(certificate: &Path) -> Result<Vec<String>, PkiError> {
    let broken = || PkiError::NoCertificate(certificate.into());
    let pem = read_bounded(certificate)?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| broken())?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| broken())?;
    let Some(names) = parsed.subject_alternative_name().map_err(|_| broken())? else { return Ok(Vec::new()) };
    let as_text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let short = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = short.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    };
    Ok(names.value.general_names.iter().filter_map(as_text).collect())
}

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// Its owner alone: 0600.
    Private,
    /// Everyone: 0644.
    Public,
}

/// Writes a file that must not exist, durably, with its mode from the first byte on.
pub(crate) fn create(file: &Path, content: &[u8], secrecy: Secrecy) -> Result<(), PkiError> {
    let mode = match secrecy {
        Secrecy::Private => 0o600,
        Secrecy::Public => 0o644,
    };
    let write = || {
        let mut open: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
        open.set_permissions(std::fs::Permissions::from_mode(mode))?;
        open.write_all(content)?;
        open.sync_all()
    };
    write().map_err(|source| PkiError::Storage { file: file.into(), source })
}

/// All of an authority but its key and its years.
fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = called(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn read_bounded(file: &Path) -> Result<Zeroizing<String>, PkiError> {
    let mut text = Zeroizing::new(String::with_capacity(PEM_BYTES_MAX));
    let most = PEM_BYTES_MAX as u64;
    File::open(file)
        .and_then(|open| open.take(most).read_to_string(&mut text))
        .map_err(|source| PkiError::Storage { file: file.into(), source })?;
    Ok(text)
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

fn alternative(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || PkiError::BadName(name.into());
    match rustls::pki_types::ServerName::try_from(name) {
        Ok(_) => Ok(SanType::DnsName(name.to_ascii_lowercase().try_into().map_err(|_| bad())?)),
        Err(_) => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-22 12:00 UTC);

    fn der(pem: &str) -> Vec<u8> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
    }

    #[test]
    fn a_certificate_is_its_authoritys_for_these_names_and_a_year() {
        let authority = Authority::create("Test authority", NOW).unwrap();
        let names = ["Db.Example".to_owned(), "127.0.0.1".into(), "::1".into()];
        let issued = authority.issue(&names, NOW).unwrap();
        let (leaf, ca) = (der(&issued.chain), der(authority.certificate()));
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        let (_, ca) = X509Certificate::from_der(&ca).unwrap();
        assert_eq!(leaf.issuer(), ca.subject());
        assert!(ca.is_ca() && !leaf.is_ca());
        let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len();
        assert_eq!(names, 3);
        assert_eq!(leaf.validity().not_after.timestamp(), (NOW + SERVER_VALIDITY).unix_timestamp());
        assert!(leaf.validity().not_before.timestamp() < NOW.unix_timestamp());
    }

    #[test]
    fn what_is_no_name_gets_no_certificate() {
        let authority = Authority::create("Test authority", NOW).unwrap();
        for names in
            [vec![], vec!["".to_owned()], vec!["a b".into()], vec!["ok.example".into(), "*.x y".into()]]
        {
            assert!(matches!(authority.issue(&names, NOW), Err(PkiError::BadName(_))), "{names:?}");
        }
    }

    #[test]
    fn keys_are_private_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create("Test authority", NOW).unwrap();
        authority.write(folder.path()).unwrap();
        let mode =
            |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("ca.key"), mode("ca.pem")), (0o600, 0o644));
        let before = std::fs::read(folder.path().join("ca.key")).unwrap();
        let other = Authority::create("Another", NOW).unwrap();
        assert!(matches!(other.write(folder.path()), Err(PkiError::Storage { .. })));
        assert_eq!(std::fs::read(folder.path().join("ca.key")).unwrap(), before);
    }

    #[test]
    fn an_authority_read_back_renews_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create("Test authority", NOW).unwrap();
        authority.write(folder.path()).unwrap();
        authority.issue(&["db.example".into()], NOW).unwrap().write(folder.path()).unwrap();
        let again = Authority::read(&folder.path().join("ca.pem"), &folder.path().join("ca.key")).unwrap();
        assert_eq!(again.certificate(), authority.certificate());
        let later = NOW + SERVER_VALIDITY;
        again.issue(&["db.example".into()], later).unwrap().replace(folder.path()).unwrap();
        let pem = std::fs::read_to_string(folder.path().join("server.pem")).unwrap();
        let leaf = der(&pem);
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        assert_eq!(leaf.validity().not_after.timestamp(), (later + SERVER_VALIDITY).unix_timestamp());
        let ca = der(authority.certificate());
        assert_eq!(leaf.issuer(), X509Certificate::from_der(&ca).unwrap().1.subject());
        let wrong = Authority::read(&folder.path().join("ca.pem"), &folder.path().join("ca.pem"));
        assert!(matches!(wrong, Err(PkiError::NotAnAuthority { .. })));
    }
}

//! TLS material: certificates for clients, verification of upstreams, and what a channel is bound to.
//!
//! Both sides speak TLS 1.2 or 1.3 and nothing older. There is no way to accept an upstream's certificate unverified:
//! a configuration that wants no verification has no TLS at all, and says so with a word that begins with `danger_`.
//!
//! What a newcomer gets wrong: the objects here stay the same while certificates rotate. [`ServerTls::reload`] and
//! [`ClientTls::reload`] look at the files and change what the *next* connection sees; when a file is broken they say
//! so and keep what they had.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use sha2::Digest;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::report::reason;
use super::secret::{SecretError, read_private};
use super::{CertificateFiles, Config, Listener, UpstreamTls};

/// The protocol name that PostgreSQL clients and servers offer in ALPN.
pub const ALPN_POSTGRESQL: &[u8] = b"postgresql";
/// The largest PEM file, in bytes. Bundles of public authorities have about a quarter of it.
pub const PEM_BYTES_MAX: u64 = 1 << 20;

/// Why certificates, keys or authorities cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file of certificates cannot be read.
    #[error("cannot read {}: {}", file.display(), reason(source))]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of certificates holds something else.
    #[error("{}: {what}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The private key cannot be read, or can be read by too many.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// Key and certificate are not a pair.
    #[error("the key {} does not belong to the certificate {}", key.display(), chain.display())]
    Mismatch {
        /// The certificate.
        chain: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The system has no certificate authorities.
    #[error("the system has no certificate authorities ({0}); name them with ca")]
    NoSystemAuthorities(String),
    /// A server name is neither a DNS name nor an address.
    #[error("\"{0}\" is no host name and no address")]
    BadName(String),
    /// A resource has no certificate, so it cannot be served over TLS.
    #[error("resource \"{0}\" has no certificate")]
    NoCertificate(String),
}

/// TLS towards the clients of one listener.
///
/// Which certificate a client is shown goes by the server name that it asks for. Sessions are never resumed: a
/// reconnecting client is verified, and shown the present certificate, like any other.
pub struct ServerTls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
    sources: Mutex<Vec<CertificateSource>>,
}

/// One certificate on disk and the names that it is shown for; no names: shown for any.
struct CertificateSource {
    names: Vec<String>,
    files: CertificateFiles,
    seen: Option<(Stamp, Stamp)>,
}

#[derive(Debug, Default)]
struct Shown {
    by_name: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
    for_any: ArcSwapOption<CertifiedKey>,
}

impl ServerTls {
    /// TLS for one listener; none when nothing on it has a certificate, so that its clients do without TLS.
    ///
    /// # Errors
    /// [`TlsError`] when a certificate or its key cannot be used.
    pub fn new(config: &Config, listener: &Listener) -> Result<Option<Self>, TlsError> {
        let resources = || listener.resources.iter().map(|at| &config.resources[*at]);
        let sources: Vec<_> = resources()
            .filter_map(|resource| {
                let files = resource.certificate.clone()?;
                Some(CertificateSource { names: resource.server_names.clone(), files, seen: None })
            })
            .collect();
        if sources.is_empty() {
            return match resources().find(|resource| !resource.danger_cleartext_loopback) {
                Some(resource) => Err(TlsError::NoCertificate(resource.name.clone())),
                None => Ok(None),
            };
        }
        ServerTls::over(sources, ALPN_POSTGRESQL).map(Some)
    }

    /// TLS for a listener with one certificate, whatever name clients ask for, that speaks one protocol.
    ///
    /// # Errors
    /// [`TlsError`] when the certificate or its key cannot be used.
    pub fn single(files: &CertificateFiles, alpn: &[u8]) -> Result<Self, TlsError> {
        let source = CertificateSource { names: Vec::new(), files: files.clone(), seen: None };
        ServerTls::over(vec![source], alpn)
    }

    fn over(sources: Vec<CertificateSource>, alpn: &[u8]) -> Result<Self, TlsError> {
        let shown = Arc::new(Shown::default());
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        server.alpn_protocols = vec![alpn.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let tls = ServerTls { config: Arc::new(server), shown, sources: Mutex::new(sources) };
        tls.reload()?;
        Ok(tls)
    }

    /// What the TLS library wants; the same for the listener's whole life.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Reads certificates and keys again where their files have changed, and says whether any had.
    ///
    /// # Errors
    /// [`TlsError`] when one cannot be used, such as a key that does not fit because only one of the two files has
    /// been renewed so far. Nothing changes then, and the next call looks again.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let mut sources = self.sources.lock();
        let seen: Vec<_> = sources.iter().map(|source| source.files.stamps()).collect::<Result<_, _>>()?;
        if sources.iter().zip(&seen).all(|(source, seen)| source.seen.as_ref() == Some(seen)) {
            return Ok(false);
        }
        let mut by_name = HashMap::new();
        let mut for_any = None;
        for source in sources.iter() {
            let key = Arc::new(certified_key(&source.files)?);
            if source.names.is_empty() {
                for_any = Some(Arc::clone(&key));
            }
            by_name.extend(source.names.iter().map(|name| (name.clone(), Arc::clone(&key))));
        }
        self.shown.by_name.store(Arc::new(by_name));
        self.shown.for_any.store(for_any);
        for (source, seen) in sources.iter_mut().zip(seen) {
            source.seen = Some(seen);
        }
        Ok(true)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            self.by_name.load().get(&name).cloned()
        });
        named.or_else(|| self.for_any.load_full())
    }
}

/// TLS towards one upstream, whose certificate is always verified.
#[derive(Debug)]
pub struct ClientTls {
    server_name: ServerName<'static>,
    ca: Option<PathBuf>,
    config: ArcSwap<ClientConfig>,
    seen: Mutex<Option<Stamp>>,
}

impl ClientTls {
    /// TLS as the configuration wants it; none where it is disabled.
    ///
    /// # Errors
    /// [`TlsError`] when the authorities cannot be read, or there are none.
    pub fn new(tls: &UpstreamTls) -> Result<Option<Self>, TlsError> {
        let UpstreamTls::Verify { ca, server_name } = tls else { return Ok(None) };
        let name =
            ServerName::try_from(server_name.clone()).map_err(|_| TlsError::BadName(server_name.clone()))?;
        let seen = ca.as_deref().map(stamp).transpose()?;
        let config = ArcSwap::new(client_config(ca.as_deref())?);
        Ok(Some(ClientTls { server_name: name, ca: ca.clone(), config, seen: Mutex::new(seen) }))
    }

    /// What the TLS library wants for the next connection.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.load_full()
    }

    /// The name that the upstream's certificate must be valid for.
    #[must_use]
    pub fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// Reads the authorities again where their file has changed, and says whether it had. The system's authorities are
    /// read once.
    ///
    /// # Errors
    /// [`TlsError`] when the file cannot be used. Nothing changes then.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let Some(ca) = self.ca.as_deref() else { return Ok(false) };
        let mut seen = self.seen.lock();
        let now = stamp(ca)?;
        if *seen == Some(now) {
            return Ok(false);
        }
        self.config.store(client_config(Some(ca))?);
        *seen = Some(now);
        Ok(true)
    }
}

/// The hash of a server's certificate that binds SCRAM to a TLS channel: `tls-server-end-point`, RFC 5929 section 4.1.
///
/// It is made with the hash of the certificate's own signature, with SHA-256 in place of MD5 and SHA-1. None where the
/// signature has no such hash (Ed25519), so that the channel cannot be bound in this way.
#[must_use]
pub fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let algorithm = &parsed.signature_algorithm;
    let mut hash = algorithm.algorithm.to_id_string();
    if hash == RSASSA_PSS {
        // RFC 4055 section 3.1: the parameters name the hash; left out, it is SHA-1.
        use x509_parser::signature_algorithm::SignatureAlgorithm;
        let Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) = SignatureAlgorithm::try_from(algorithm) else {
            return None;
        };
        hash = parameters.hash_algorithm_oid().to_id_string();
    }
    let (_, digest) = END_POINT_HASHES.iter().find(|(oids, _)| oids.contains(&hash.as_str()))?;
    Some(digest(certificate))
}

const RSASSA_PSS: &str = "1.2.840.113549.1.1.10";

type HashOf = fn(&[u8]) -> Vec<u8>;

/// Object identifiers of signatures and of bare hashes (RFC 4055, RFC 5758), and the hash to use for each.
const END_POINT_HASHES: &[(&[&str], HashOf)] = &[
    (
        &[
            "1.2.840.113549.1.1.4",   // md5WithRSAEncryption
            "1.2.840.113549.1.1.5",   // sha1WithRSAEncryption
            "1.2.840.10045.4.1",      // ecdsa-with-SHA1
            "1.3.14.3.2.26",          // sha1
            "1.2.840.113549.1.1.11",  // sha256WithRSAEncryption
            "1.2.840.10045.4.3.2",    // ecdsa-with-SHA256
            "2.16.840.1.101.3.4.2.1", // sha256
        ],
        |bytes| sha2::Sha256::digest(bytes).to_vec(),
    ),
    (
        &[
            "1.2.840.113549.1.1.14",  // sha224WithRSAEncryption
            "1.2.840.10045.4.3.1",    // ecdsa-with-SHA224
            "2.16.840.1.101.3.4.2.4", // sha224
        ],
        |bytes| sha2::Sha224::digest(bytes).to_vec(),
    ),
    (
        &[
            "1.2.840.113549.1.1.12",  // sha384WithRSAEncryption
            "1.2.840.10045.4.3.3",    // ecdsa-with-SHA384
            "2.16.840.1.101.3.4.2.2", // sha384
        ],
        |bytes| sha2::Sha384::digest(bytes).to_vec(),
    ),
    (
        &[
            "1.2.840.113549.1.1.13",  // sha512WithRSAEncryption
            "1.2.840.10045.4.3.4",    // ecdsa-with-SHA512
            "2.16.840.1.101.3.4.2.3", // sha512
        ],
        |bytes| sha2::Sha512::digest(bytes).to_vec(),
    ),
];

/// What a server certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Seconds since 1970.
    pub(super) not_before: i64,
    /// Seconds since 1970.
    pub(super) not_after: i64,
    /// The names out of `wanted` that it is not valid for.
    pub(super) uncovered: Vec<String>,
}

/// Reads a pair of files as a listener would, and says what its certificate says about itself.
pub(super) fn inspect_certificate(files: &CertificateFiles, wanted: &[String]) -> Result<Facts, TlsError> {
    let key = certified_key(files)?;
    let malformed = |what: String| TlsError::Malformed { file: files.chain.clone(), what };
    let leaf = key.cert.first().ok_or_else(|| malformed("it holds no certificate".into()))?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|wrong| malformed(wrong.to_string()))?;
    let for_rustls = ParsedCertificate::try_from(leaf).map_err(|wrong| malformed(wrong.to_string()))?;
    let covers = |name: &String| {
        ServerName::try_from(name.as_str())
            .is_ok_and(|name| rustls::client::verify_server_name(&for_rustls, &name).is_ok())
    };
    Ok(Facts {
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        uncovered: wanted.iter().filter(|name| !covers(name)).cloned().collect(),
    })
}

/// The certificates of a PEM file of authorities, at least one and each readable.
pub(super) fn authorities(file: &Path) -> Result<(Vec<u8>, RootCertStore), TlsError> {
    let malformed = |what: String| TlsError::Malformed { file: file.into(), what };
    let text = read_bounded(file)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(&text, file)? {
        roots.add(certificate).map_err(|wrong| malformed(format!("not an authority: {wrong}")))?;
    }
    Ok((text, roots))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let (roots, pinned) = match ca {
        Some(file) => (authorities(file)?.1, certificates(file)?),
        None => (system_authorities()?, Vec::new()),
    };
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|wrong| TlsError::NoSystemAuthorities(wrong.to_string()))?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { webpki, pinned }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_POSTGRESQL.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Chain, time and name are verified by webpki; in one case it needs help.
///
/// A server's self-signed certificate, made as PostgreSQL's manual shows it, calls itself an authority, and webpki does
/// not take an authority for a server. Where that very certificate is in the operator's own `ca` file there is no chain to
/// verify: time and name are, and the handshake proves the key.
#[derive(Debug)]
struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.pinned.iter().any(|pinned| pinned.as_ref() == end_entity.as_ref()) {
            return self.webpki.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        let (_, parsed) = X509Certificate::from_der(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let (now, validity) = (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), parsed.validity());
        if now < validity.not_before.timestamp() {
            return Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet));
        }
        if now > validity.not_after.timestamp() {
            return Err(rustls::Error::InvalidCertificate(CertificateError::Expired));
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(|| "none found".into(), ToString::to_string);
        return Err(TlsError::NoSystemAuthorities(why));
    }
    Ok(roots)
}

fn certified_key(files: &CertificateFiles) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.chain)?;
    let text = read_private(&files.key)?;
    let malformed = |what: &str| TlsError::Malformed { file: files.key.clone(), what: what.into() };
    // The library's errors may show what it read, so they are not passed on.
    let key =
        PrivateKeyDer::from_pem_slice(&text).map_err(|_| malformed("it holds no private key in PEM"))?;
    let key = provider().key_provider.load_private_key(key).map_err(|_| {
        malformed("its kind of private key is not supported; use ECDSA P-256, Ed25519 or RSA")
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(_) => Err(TlsError::Mismatch { chain: files.chain.clone(), key: files.key.clone() }),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates_in(&read_bounded(file)?, file)
}

fn certificates_in(text: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let malformed = |what: &str| TlsError::Malformed { file: file.into(), what: what.into() };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|_| malformed("it is not well-formed PEM"))?;
    if certificates.is_empty() {
        return Err(malformed("it holds no certificate in PEM"));
    }
    for certificate in &certificates {
        if X509Certificate::from_der(certificate).is_err() {
            return Err(malformed("it holds something that is not a certificate"));
        }
    }
    Ok(certificates)
}

fn read_bounded(file: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { file: file.into(), source };
    if !std::fs::metadata(file).map_err(unreadable)?.is_file() {
        return Err(TlsError::Malformed { file: file.into(), what: "it is not a regular file".into() });
    }
    let mut text = Vec::new();
    File::open(file)
        .map_err(unreadable)?
        .take(PEM_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > PEM_BYTES_MAX {
        let what = format!("it has more than {PEM_BYTES_MAX} bytes");
        return Err(TlsError::Malformed { file: file.into(), what });
    }
    Ok(text)
}

/// What changes when a file does.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

fn stamp(file: &Path) -> Result<Stamp, TlsError> {
    let meta =
        std::fs::metadata(file).map_err(|source| TlsError::Unreadable { file: file.into(), source })?;
    Ok((meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()))
}

impl CertificateFiles {
    fn stamps(&self) -> Result<(Stamp, Stamp), TlsError> {
        Ok((stamp(&self.chain)?, stamp(&self.key)?))
    }
}

#[cfg(test)]
mod tests;

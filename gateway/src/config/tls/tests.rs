//! TLS as clients and upstreams see it: handshakes in memory between our two sides and a foreign one.

use rcgen::{CertificateParams, IsCa, KeyPair};
use rustls::{ClientConnection, Connection, ProtocolVersion, ServerConnection};
use time::OffsetDateTime;

use super::super::tests::{Folder, RESOURCE, TOP};
use super::*;
use crate::pki::Authority;

/// What both sides know after a handshake.
#[derive(Debug)]
struct Met {
    certificate: CertificateDer<'static>,
    server_name: Option<String>,
    alpn: Option<Vec<u8>>,
    version: Option<ProtocolVersion>,
}

/// Shakes hands until both sides are content; the error is that of the first who is not.
fn meet(
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
    server: Arc<ServerConfig>,
) -> Result<Met, rustls::Error> {
    let mut client = Connection::from(ClientConnection::new(client, name)?);
    let mut server = Connection::from(ServerConnection::new(server)?);
    for _ in 0..10 {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
        if !client.is_handshaking() && !server.is_handshaking() {
            let Connection::Server(server) = &server else { unreachable!() };
            return Ok(Met {
                certificate: client.peer_certificates().expect("a certificate")[0].clone(),
                server_name: server.server_name().map(String::from),
                alpn: client.alpn_protocol().map(<[u8]>::to_vec),
                version: client.protocol_version(),
            });
        }
    }
    panic!("the handshake does not end");
}

fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).expect("memory takes all");
    }
    let mut wire = &wire[..];
    while !wire.is_empty() {
        to.read_tls(&mut wire).expect("memory gives all");
        to.process_new_packets()?;
    }
    Ok(())
}

/// Our client side, which trusts the folder's authority.
fn client(folder: &Folder, name: &str) -> (Arc<ClientConfig>, ServerName<'static>) {
    let tls = client_tls(folder, "ca.pem", name);
    (tls.config(), tls.server_name())
}

fn client_tls(folder: &Folder, ca: &str, name: &str) -> ClientTls {
    let tls = UpstreamTls::Verify { ca: Some(folder.path(ca)), server_name: name.into() };
    ClientTls::new(&tls).expect("TLS").expect("not disabled")
}

fn server(config: &Config) -> ServerTls {
    ServerTls::new(config, &config.listeners()[0]).expect("TLS").expect("certificates")
}

fn leaf(folder: &Folder, file: &str) -> CertificateDer<'static> {
    certificates(&folder.path(file)).expect("a certificate")[0].clone()
}

/// Puts another certificate for `names` beside the folder's own.
fn issue(folder: &Folder, into: &str, names: &[&str]) {
    let authority = Authority::read(&folder.path("ca.pem"), &folder.path("ca.key")).expect("an authority");
    let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
    let path = folder.path(into);
    std::fs::create_dir_all(&path).expect("a folder");
    authority.issue(&names, OffsetDateTime::now_utc()).expect("a certificate").replace(&path).expect("files");
}

fn two_names(folder: &Folder) -> Config {
    issue(folder, "wages", &["wages.example"]);
    let orders = format!("{RESOURCE}server_name = \"orders.example\"\n");
    let wages = RESOURCE.replace("orders-db", "wages-db")
        + "server_name = \"wages.example\"\n\
           certificate = { chain = \"wages/server.pem\", key = \"wages/server.key\" }\n";
    folder.config(&format!("{TOP}{orders}{wages}"))
}

#[test]
fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
    let folder = Folder::new();
    let config = two_names(&folder);
    let server = server(&config);
    for (name, file) in [("orders.example", "server.pem"), ("wages.example", "wages/server.pem")] {
        let (client, asked) = client(&folder, name);
        let met = meet(client, asked, server.config()).expect("a handshake");
        assert_eq!(met.certificate, leaf(&folder, file));
        assert_eq!(met.server_name.as_deref(), Some(name));
        assert_eq!(
            (met.alpn.as_deref(), met.version),
            (Some(ALPN_POSTGRESQL), Some(ProtocolVersion::TLSv1_3))
        );
    }
    // A name that nothing here has, and no name at all: no certificate, so no handshake.
    for name in ["other.example", "127.0.0.1"] {
        let (client, asked) = client(&folder, name);
        let refused = meet(client, asked, server.config()).expect_err(name);
        assert!(
            !matches!(refused, rustls::Error::InvalidCertificate(_)),
            "one was shown for {name}: {refused}"
        );
    }
    // A listener of one resource without names shows its certificate to anyone.
    let config = folder.config(&format!("{TOP}{RESOURCE}"));
    let (client, asked) = client(&folder, "localhost");
    let met = meet(client, asked, self::server(&config).config()).expect("a handshake");
    assert_eq!(met.certificate, leaf(&folder, "server.pem"));
}

#[test]
fn tls_1_2_is_spoken_and_a_foreign_protocol_is_not() {
    let folder = Folder::new();
    let config = folder.config(&format!("{TOP}{RESOURCE}"));
    let server = server(&config);
    let (_, roots) = authorities(&folder.path("ca.pem")).expect("the authority");
    let old = |alpn: &[&[u8]]| {
        let mut old = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .expect("a version")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        old.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        meet(Arc::new(old), ServerName::try_from("localhost").expect("a name"), server.config())
    };
    let met = old(&[]).expect("a handshake");
    assert_eq!((met.version, met.alpn), (Some(ProtocolVersion::TLSv1_2), None));
    assert!(old(&[b"http/1.1"]).is_err(), "a browser's request must not reach a database");
}

#[test]
fn a_renewed_certificate_serves_the_next_connection() {
    let folder = Folder::new();
    let config = two_names(&folder);
    let server = server(&config);
    let shown = |name: &str| {
        let (client, asked) = client(&folder, name);
        meet(client, asked, server.config()).expect("a handshake").certificate
    };
    assert!(!server.reload().expect("nothing new"));
    let before = shown("wages.example");
    issue(&folder, "wages", &["wages.example"]);
    assert_eq!(shown("wages.example"), before, "nothing changes unasked");
    assert!(server.reload().expect("a renewed certificate"));
    let after = shown("wages.example");
    assert!(after != before && after == leaf(&folder, "wages/server.pem"));
    assert!(!server.reload().expect("nothing new"));

    // Half of a renewal: the certificate is new, its key is not. What was shown goes on being shown.
    let key = std::fs::read(folder.path("wages/server.key")).expect("the key");
    issue(&folder, "next", &["wages.example"]);
    std::fs::rename(folder.path("next/server.pem"), folder.path("wages/server.pem")).expect("the new half");
    assert!(matches!(server.reload(), Err(TlsError::Mismatch { .. })));
    assert!(matches!(server.reload(), Err(TlsError::Mismatch { .. })), "it stays wrong until it is right");
    assert_eq!(shown("wages.example"), after);
    std::fs::rename(folder.path("next/server.key"), folder.path("wages/server.key")).expect("the other half");
    assert!(server.reload().expect("a renewed pair"));
    assert_ne!(shown("wages.example"), after);
    assert_ne!(std::fs::read(folder.path("wages/server.key")).expect("the key"), key);
    std::fs::remove_file(folder.path("wages/server.key")).expect("no key");
    assert!(server.reload().is_err());
    assert_eq!(shown("wages.example"), leaf(&folder, "wages/server.pem"));
}

#[test]
fn a_resource_without_certificate_is_never_served_by_accident() {
    let folder = Folder::new();
    let mut config = folder.config(&format!("{TOP}{RESOURCE}"));
    config.resources[0].certificate = None;
    assert!(matches!(ServerTls::new(&config, &config.listeners()[0]), Err(TlsError::NoCertificate(_))));
}

#[test]
fn an_upstream_is_verified_in_full() {
    let (folder, stranger) = (Folder::new(), Folder::new());
    let config = folder.config(&format!("{TOP}{RESOURCE}"));
    let server = server(&config);
    let verdict = |ca: &Folder, name: &str| {
        let (client, asked) = client(ca, name);
        meet(client, asked, server.config()).map(drop)
    };
    assert_eq!(verdict(&folder, "localhost"), Ok(()));
    let wrong_name = verdict(&folder, "db.example").expect_err("another name");
    assert!(matches!(
        wrong_name,
        rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })
    ));
    let wrong_address = verdict(&folder, "127.0.0.1").expect_err("an address that is not in it");
    assert!(matches!(
        wrong_address,
        rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })
    ));
    let stranger = verdict(&stranger, "localhost").expect_err("another authority of the same name");
    assert!(matches!(stranger, rustls::Error::InvalidCertificate(_)), "{stranger:?}");
    assert!(ClientTls::new(&UpstreamTls::Disabled).expect("no TLS").is_none());
}

#[test]
fn a_self_signed_upstream_is_taken_for_itself_and_for_nothing_else() {
    let folder = Folder::new();
    // As PostgreSQL's manual makes it: an authority by its own word, which it is not.
    let make = |file: &str, name: &str, days: i64| {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) =
            (now - time::Duration::days(9), now + time::Duration::days(days));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path(file), certificate.pem()).expect("its file");
        let chain = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Arc::new(server.expect("a server"))
    };
    let (own, other, late) = (
        make("own.pem", "db.example", 9),
        make("other.pem", "db.example", 9),
        make("late.pem", "db.example", -1),
    );
    let verdict = |ca: &str, name: &str, server: &Arc<ServerConfig>| {
        let tls = client_tls(&folder, ca, name);
        meet(tls.config(), tls.server_name(), Arc::clone(server)).map(drop)
    };
    assert_eq!(verdict("own.pem", "db.example", &own), Ok(()));
    assert!(verdict("own.pem", "db.example", &other).is_err(), "another certificate of the same name");
    assert!(verdict("own.pem", "wages.example", &own).is_err(), "another name");
    let late = verdict("late.pem", "db.example", &late);
    assert_eq!(late, Err(rustls::Error::InvalidCertificate(CertificateError::Expired)));
}

#[test]
fn renewed_authorities_serve_the_next_connection() {
    let (folder, stranger) = (Folder::new(), Folder::new());
    let config = folder.config(&format!("{TOP}{RESOURCE}"));
    let server = server(&config);
    std::fs::copy(stranger.path("ca.pem"), folder.path("upstream.pem")).expect("a wrong authority");
    let tls = client_tls(&folder, "upstream.pem", "localhost");
    let verdict = || meet(tls.config(), tls.server_name(), server.config()).is_ok();
    assert!(!verdict() && !tls.reload().expect("nothing new"));
    std::fs::copy(folder.path("ca.pem"), folder.path("upstream.new")).expect("the right authority");
    std::fs::rename(folder.path("upstream.new"), folder.path("upstream.pem")).expect("in its place");
    assert!(tls.reload().expect("a new authority") && verdict());
    std::fs::write(folder.path("upstream.pem"), "nothing").expect("a broken edit");
    assert!(tls.reload().is_err() && verdict());
}

#[test]
fn a_channel_is_bound_by_the_hash_of_the_certificates_signature() {
    let digest = |certificate: &[u8], hash: HashOf| Some(hash(certificate));
    let sha = |bits: usize| -> HashOf {
        match bits {
            256 => |bytes| sha2::Sha256::digest(bytes).to_vec(),
            384 => |bytes| sha2::Sha384::digest(bytes).to_vec(),
            _ => |bytes| sha2::Sha512::digest(bytes).to_vec(),
        }
    };
    let made = |algorithm| {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let params = CertificateParams::new(["db.example".to_owned()]).expect("a name");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    };
    let p256 = made(&rcgen::PKCS_ECDSA_P256_SHA256);
    assert_eq!(end_point_hash(&p256), digest(&p256, sha(256)));
    let p384 = made(&rcgen::PKCS_ECDSA_P384_SHA384);
    assert_eq!(end_point_hash(&p384), digest(&p384, sha(384)));
    assert_eq!(end_point_hash(&made(&rcgen::PKCS_ED25519)), None);
    let der = |pem: &[u8]| CertificateDer::from_pem_slice(pem).expect("a certificate");
    let pss = der(include_bytes!("../fixtures/rsa-pss-sha512.pem"));
    assert_eq!(end_point_hash(&pss), digest(&pss, sha(512)));
    let sha1 = der(include_bytes!("../fixtures/rsa-sha1.pem"));
    assert_eq!(end_point_hash(&sha1), digest(&sha1, sha(256)), "RFC 5929: SHA-256 in place of SHA-1");
    assert_eq!(end_point_hash(&p256[..p256.len() - 1]), None);
    assert_eq!(end_point_hash(&[&p256[..], &[0]].concat()), None);
    assert_eq!(end_point_hash(b""), None);
}

#[test]
fn files_that_hold_something_else_are_named() {
    let folder = Folder::new();
    let files =
        |chain: &str, key: &str| CertificateFiles { chain: folder.path(chain), key: folder.path(key) };
    let wrong = |chain: &str, key: &str| certified_key(&files(chain, key)).expect_err("no pair").to_string();
    crate::pki::create(
        &folder.path("broken"),
        b"-----BEGIN CERTIFICATE-----\n!!\n",
        crate::pki::Secrecy::Private,
    )
    .expect("a file");
    assert!(wrong("broken", "server.key").ends_with("it is not well-formed PEM"));
    assert!(wrong("server.pem", "broken").ends_with("it holds no private key in PEM"));
    assert!(wrong("server.pem", "password").ends_with("it holds no private key in PEM"));
    assert!(!wrong("server.pem", "password").contains("canary"));
    assert!(wrong("policies", "server.key").ends_with("it is not a regular file"));
    let large = "#".repeat(usize::try_from(PEM_BYTES_MAX).expect("a size") + 1);
    std::fs::write(folder.path("large"), large).expect("a file");
    assert!(wrong("large", "server.key").contains("it has more than 1048576 bytes"));
}

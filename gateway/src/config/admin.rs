//! `[admin]`: where the gateway's own HTTPS server listens, and whose tokens it takes; `[delegation]`: what it hands down.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::read::{certificate, check_issuer_url, overlap};
use super::table::{At, Table};
use super::{AdminConfig, CertificateFiles, DelegationConfig, IssuerConfig, LedgerConfig, Resource};

/// Nothing where the table is not written; also where it has mistakes, which were told then.
pub(super) fn admin(
    root: &Table<'_>,
    default: Option<&At<CertificateFiles>>,
    issuers: &[IssuerConfig],
    resources: &[Resource],
) -> Option<AdminConfig> {
    let table = root.table("admin", "admin: ");
    let (listen, url, audience) = (table.text("listen"), table.text("url"), table.text("audience"));
    let own = certificate(&table);
    if !table.is_written() {
        return None;
    }
    let certificate = own.or_else(|| default.cloned());
    if certificate.is_none() && !table.holds("certificate") {
        table.missing("certificate is missing, here and at the top: tokens are taken over TLS only");
    }
    let listen = listen.and_then(|listen| address(&table, &listen, resources));
    if let Some(url) = &url {
        if let Err(wrong) = check_issuer_url(&url.value, false) {
            table.mistake(url.line, format!("url {wrong}"));
        } else if url.value.ends_with('/') {
            table.mistake(url.line, "url must not end with a slash: paths are put behind it");
        }
        if issuers.iter().any(|issuer| issuer.url == url.value) {
            table
                .mistake(url.line, "url is an issuer's: the gateway's own tokens could not be told from its");
        }
    }
    if let Some(audience) = &audience {
        let other = |issuer: &&IssuerConfig| {
            [&issuer.audience, &issuer.access_token_audience]
                .into_iter()
                .flatten()
                .any(|known| *known == audience.value)
        };
        if let Some(issuer) = issuers.iter().find(other) {
            table.mistake(
                audience.line,
                format!(
                    "audience is also issuer \"{}\"'s: a token for a session would open the gateway itself",
                    issuer.name
                ),
            );
        }
    }
    Some(AdminConfig {
        listen: listen?,
        url: url?.value,
        audience: audience?.value,
        certificate: certificate?.value,
    })
}

/// Nothing where the table is not written.
pub(super) fn delegation(root: &Table<'_>, ledger: Option<&LedgerConfig>) -> Option<DelegationConfig> {
    let table = root.table("delegation", "delegation: ");
    let (keys, key_age) = (table.path("keys"), table.duration("key_age"));
    let (depth_max, ttl_max) = (table.count("depth_max"), table.duration("ttl_max"));
    if !table.is_written() {
        return None;
    }
    if !root.holds("admin") {
        table.mistake(table.line(), "needs an [admin] server: tokens are handed down there");
    }
    let inside = |keys: &At<PathBuf>| ledger.is_some_and(|ledger| keys.value.starts_with(&ledger.path));
    if let Some(keys) = keys.as_ref().filter(|keys| inside(keys)) {
        table.mistake(keys.line, "keys must not lie inside ledger.path, which is handed to auditors");
    }
    Some(DelegationConfig {
        keys: keys?.value,
        key_age: key_age?.value,
        depth_max: u8::try_from(depth_max).ok()?,
        ttl_max: ttl_max?.value,
    })
}

/// An address of its own: what arrives there is HTTPS, and no resource's.
fn address(table: &Table<'_>, text: &At<String>, resources: &[Resource]) -> Option<SocketAddr> {
    let Ok(address) = text.value.parse::<SocketAddr>() else {
        table.mistake(
            text.line,
            format!("listen takes an address and a port, such as 0.0.0.0:8443; not \"{}\"", text.value),
        );
        return None;
    };
    let same = |listen: &&SocketAddr| {
        listen.port() == address.port()
            && address.port() != 0
            && (**listen == address || overlap(listen.ip(), address.ip()))
    };
    if let Some(resource) = resources.iter().find(|resource| resource.listen.iter().any(|at| same(&at))) {
        table.mistake(text.line, format!("listen: resource \"{}\" listens at {address}", resource.name));
    }
    Some(address)
}

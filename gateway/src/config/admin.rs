//! `[admin]`: where the gateway's own HTTPS server listens, and whose tokens it takes; `[delegation]`: what it
//! hands down; `[metrics]` and `[[stream]]`: what it tells others.

use std::net::SocketAddr;
use std::path::PathBuf;

use openidconnect::url::Url;

use super::keys::meant;
use super::read::{certificate, check_issuer_url, name, overlap, plain, read_syslog};
use super::table::{At, Table};
use super::{
    AdminConfig, CertificateFiles, DelegationConfig, IssuerConfig, LedgerConfig, LoginConfig, PrincipalKind,
    Resource, StreamConfig, StreamTo, Syslog,
};

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
    let login = login(&table, url.as_ref(), issuers);
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
        login,
    })
}

/// Nothing where the table is not written.
fn login(admin: &Table<'_>, url: Option<&At<String>>, issuers: &[IssuerConfig]) -> Option<LoginConfig> {
    let table = admin.table("login", "login: ");
    let (issuer, client_id) = (table.text("issuer"), table.text("client_id"));
    let (secret, scopes) = (table.secret("client_secret"), table.texts("scopes"));
    let (session_max, idle) = (table.duration("session_max"), table.duration("idle_timeout"));
    if !table.is_written() {
        return None;
    }
    if let Some(url) = url
        && let Ok(parsed) = Url::parse(&url.value)
        && parsed.path() != "/"
    {
        table.mistake(
            url.line,
            "needs an admin.url without a path: browsers keep its cookies for the whole host",
        );
    }
    if let Some(name) = &issuer {
        match issuers.iter().find(|issuer| issuer.name == name.value) {
            None => {
                let meant = meant(&name.value, issuers.iter().map(|issuer| issuer.name.as_str()));
                table.mistake(name.line, format!("there is no issuer \"{}\"{meant}", name.value));
            }
            Some(issuer) if issuer.principal != PrincipalKind::User => table.mistake(
                name.line,
                format!("issuer \"{}\" does not speak for people (principal = \"User\")", name.value),
            ),
            Some(_) => {}
        }
    }
    if let Some(secret) = &secret
        && let Err(wrong) = secret.value.inspect()
    {
        table.mistake(secret.line, format!("client_secret: {wrong}"));
    }
    if let Some(first) = scopes.first()
        && scopes.iter().all(|scope| scope.value != "openid")
    {
        table.mistake(first.line, "scopes must hold \"openid\": without it there is no ID token");
    }
    if let Some(spaced) = scopes.iter().find(|scope| scope.value.contains(' ')) {
        table.mistake(
            spaced.line,
            format!("scopes: \"{}\" is more than one; write each for itself", spaced.value),
        );
    }
    let scopes: Vec<String> = scopes.into_iter().map(|scope| scope.value).collect();
    Some(LoginConfig {
        issuer: issuer?.value,
        client_id: client_id?.value,
        client_secret: secret.map(|secret| secret.value),
        scopes: if scopes.is_empty() { vec!["openid".into(), "profile".into()] } else { scopes },
        session_max: session_max?.value,
        idle_timeout: idle?.value,
    })
}

/// Where numbers are to be had.
pub(super) fn metrics(root: &Table<'_>, resources: &[Resource]) -> Option<SocketAddr> {
    let table = root.table("metrics", "metrics: ");
    address(&table, &table.text("listen")?, resources)
}

/// Who is sent every event.
pub(super) fn streams(root: &Table<'_>, ledger: Option<&LedgerConfig>) -> Vec<StreamConfig> {
    let mut streams: Vec<StreamConfig> = Vec::new();
    for table in root.tables("stream", "stream") {
        let (name, to, resend) = (name(&table), table.text("to"), table.size("resend"));
        let (Some(name), Some(to), Some(resend)) = (name, to, resend) else { continue };
        if streams.iter().any(|known| known.name == name) {
            table.mistake(table.line_of("name"), "another stream has this name");
        }
        let read = match to.value.split_once(':') {
            Some(("file", path)) if path.starts_with('/') => Some(StreamTo::File(path.into())),
            Some(("tcp", address)) => match read_syslog(&format!("udp:{address}")) {
                Some(Syslog::Udp(address)) => Some(StreamTo::Tcp(address)),
                _ => None,
            },
            _ => read_syslog(&to.value).map(|syslog| match syslog {
                Syslog::Unix(path) => StreamTo::Unix(path),
                Syslog::Udp(address) => StreamTo::Udp(address),
            }),
        };
        let Some(read) = read else {
            let forms = "\"file:/PATH\", \"tcp:HOST:PORT\", \"udp:HOST:PORT\" or \"unix:/PATH\"";
            table.mistake(to.line, format!("to takes {forms}"));
            continue;
        };
        if let (StreamTo::File(path), Some(ledger)) = (&read, ledger)
            && plain(path).starts_with(plain(&ledger.path))
        {
            table.mistake(to.line, "to must not lie inside ledger.path");
        }
        if table.holds("resend") && !matches!(read, StreamTo::Tcp(_)) {
            table.mistake(resend.line, "resend does nothing but over tcp");
        }
        streams.push(StreamConfig { name, to: read, resend: resend.value });
    }
    streams
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
    let inside =
        |keys: &At<PathBuf>| ledger.is_some_and(|ledger| plain(&keys.value).starts_with(plain(&ledger.path)));
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

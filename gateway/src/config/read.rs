//! From the file's text to a [`Config`], or to the list of all that is wrong with it.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatebook_wire::detect::Class;
use rustls::pki_types::ServerName;
use toml::de::DeTable;

use super::admin::{admin, delegation, metrics, streams};
use super::keys::meant;
use super::mask;
use super::report::reason;
use super::table::{At, Sink, Table};
use super::text::{lines, redacted};
use super::tls;
use super::webhook::webhooks;
use super::{
    CONFIG_BYTES_MAX, CertificateFiles, Check, Config, Durability, HostPort, IntrospectionConfig,
    IssuerConfig, Kind, LedgerConfig, Limits, Log, Login, PrincipalKind, Report, Resource, Role, Syslog,
    UpstreamTls, WitnessConfig,
};

/// The longest path of a local socket, in bytes: `sun_path` with its NUL has 108.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The longest name of a database or role: PostgreSQL's `NAMEDATALEN` with its NUL is 64.
const POSTGRES_NAME_BYTES_MAX: usize = 63;
/// The longest name of a resource or issuer.
const NAME_BYTES_MAX: usize = 63;
/// The longest origin; it stands in every checkpoint.
const ORIGIN_BYTES_MAX: usize = 255;
const POSTGRES_PORT: u16 = 5432;
/// Certificates that end sooner than this are warned of.
const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 86_400);

pub(super) fn check(file: &Path) -> Check {
    let mut report = Report::default();
    report.read(file);
    let text = match read_text(file) {
        Ok(text) => text,
        Err(why) => {
            report.mistake(file, 0, why);
            return Check { report, config: None };
        }
    };
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    let (document, errors) = DeTable::parse_recoverable(&text);
    let sink = Sink::new(&text, folder, !errors.is_empty());
    for error in errors {
        let at = error.span().map_or(text.len(), |span| span.start);
        sink.mistake(sink.line(at), error.message());
    }
    let config = read(file, &text, document.get_ref(), &sink);
    let clean = sink.mistakes.borrow().is_empty();
    for mistake in sink.mistakes.take() {
        report.mistake(file, mistake.line, mistake.text);
    }
    for warning in sink.warnings.take() {
        report.warning(file, warning.line, warning.text);
    }
    Check { report, config: config.filter(|_| clean) }
}

/// Whoever can write this file decides what runs with our rights.
fn read_text(file: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(file).map_err(|why| format!("cannot read it: {}", reason(&why)))?;
    if !meta.is_file() {
        return Err("it is not a regular file".into());
    }
    if meta.mode() & 0o002 != 0 {
        return Err(format!("it is writable by everyone (mode {:04o}); make it 0640", meta.mode() & 0o7777));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|why| format!("cannot read it: {}", reason(&why)))?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(format!("it has more than {CONFIG_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".into())
}

/// Nothing comes out where something required is missing; that was written down then.
pub(super) fn read(file: &Path, text: &str, document: &DeTable<'_>, sink: &Sink) -> Option<Config> {
    let root = Table::root(document, sink);
    let policies = root.path("policies");
    if let Some(policies) = &policies
        && !policies.value.is_dir()
    {
        root.mistake(policies.line, format!("policies: {} is not a folder", policies.value.display()));
    }
    let control = root.path("control");
    if let Some(control) = &control {
        check_control(&root, control);
    }
    let certificate = certificate(&root);
    let ledger = ledger(&root.table("ledger", "ledger: "));
    let (issuers, introspections) = issuers(&root.table("identity", ""));
    let resources = resources(&root, certificate.as_ref());
    let admin = admin(&root, certificate.as_ref(), &issuers, &resources);
    let webhooks = webhooks(&root);
    let (metrics, streams) = (metrics(&root, &resources), streams(&root, ledger.as_ref()));
    let delegation = delegation(&root, ledger.as_ref());
    let limits = limits(&root.table("limits", "limits: "));
    let log = log(&root.table("log", "log: "));
    Some(Config {
        file: file.to_path_buf(),
        policies: policies?.value,
        control: control?.value,
        ledger: ledger?,
        issuers,
        introspections,
        resources,
        admin,
        webhooks,
        metrics,
        streams,
        delegation,
        limits: limits?,
        log: log?,
        text: redacted(text, sink),
        lines: lines(document, sink),
    })
}

fn check_control(root: &Table<'_>, control: &At<PathBuf>) {
    let path = control.value.display();
    let bytes = control.value.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        let most = SOCKET_PATH_BYTES_MAX;
        root.mistake(
            control.line,
            format!("control: {path} has {bytes} bytes; a socket's path has at most {most}"),
        );
    }
    if !control.value.parent().is_some_and(Path::is_dir) {
        root.mistake(control.line, format!("control: the folder of {path} does not exist"));
    }
}

pub(super) fn certificate(parent: &Table<'_>) -> Option<At<CertificateFiles>> {
    let table = parent.table("certificate", "certificate: ");
    let (chain, key) = (table.path("chain"), table.path("key"));
    let files = CertificateFiles { chain: chain?.value, key: key?.value };
    check_certificate(&table, table.line(), &files, &[]);
    Some(At { value: files, line: table.line() })
}

fn check_certificate(table: &Table<'_>, line: usize, files: &CertificateFiles, names: &[String]) {
    let facts = match tls::inspect_certificate(files, names) {
        Ok(facts) => facts,
        Err(wrong) => return table.mistake(line, wrong.to_string()),
    };
    let chain = files.chain.display();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let (now, soon) = (now.cast_signed(), (now + CERTIFICATE_WARNING.as_secs()).cast_signed());
    match &facts {
        facts if facts.not_after < now => table.mistake(line, format!("{chain} has expired")),
        facts if facts.not_before > now => table.mistake(line, format!("{chain} is not valid yet")),
        facts if facts.not_after < soon => {
            table.warning(line, format!("{chain} expires in {} days", (facts.not_after - now) / 86_400));
        }
        _ => {}
    }
    for name in &facts.uncovered {
        let names = valid_names(files);
        table.mistake(line, format!("{chain} is not valid for \"{name}\", only for: {names}"));
    }
}

fn valid_names(files: &CertificateFiles) -> String {
    crate::pki::names_of(&files.chain).map(|names| names.join(", ")).unwrap_or_default()
}

fn ledger(table: &Table<'_>) -> Option<LedgerConfig> {
    let (path, keys, origin) = (table.path("path"), table.path("keys"), table.text("origin"));
    let copies = table.paths("checkpoint_copies");
    let interval = table.duration("checkpoint_interval");
    let (archive, keep_bytes) = (table.path("archive"), table.size("keep_bytes"));
    let (epoch, verify_interval) = (table.duration("epoch"), table.duration("verify_interval"));
    let syslog = table.text("checkpoint_syslog").and_then(|syslog| {
        let read = read_syslog(&syslog.value);
        if read.is_none() {
            table.mistake(syslog.line, "checkpoint_syslog takes \"udp:HOST:PORT\" or \"unix:/PATH\"");
        }
        read
    });
    let command = table.texts("checkpoint_command").into_iter().map(|word| word.value).collect();
    let witnesses = witnesses(table);
    let (warn, alarm, refuse) =
        (table.percent("free_warn"), table.percent("free_alarm"), table.percent("free_refuse"));
    if let Some(origin) = &origin {
        let odd = |c: char| !c.is_ascii_graphic() || c == '+';
        if origin.value.contains(odd) || origin.value.len() > ORIGIN_BYTES_MAX {
            let most = ORIGIN_BYTES_MAX;
            table.mistake(
                origin.line,
                format!("origin takes at most {most} visible ASCII characters, without blanks and \"+\""),
            );
        }
    }
    if let (Some(path), Some(keys)) = (&path, &keys) {
        check_places(table, path, keys, &copies);
    }
    if !table.holds("archive") && table.holds("keep_bytes") {
        table.mistake(
            table.line_of("keep_bytes"),
            "keep_bytes does nothing without archive: every segment stays",
        );
    }
    if let (Some(path), Some(archive)) = (&path, &archive)
        && plain(&archive.value).starts_with(plain(&path.value))
    {
        table.mistake(archive.line, "archive must not lie inside path: it shall free its disk");
    }
    if let (Some(warn), Some(alarm), Some(refuse)) = (&warn, &alarm, &refuse)
        && !(warn.value > alarm.value && alarm.value > refuse.value)
    {
        table.mistake(
            warn.line.max(alarm.line).max(refuse.line),
            format!(
                "free_warn must be more than free_alarm, and that more than free_refuse; they are {}%, {}%, {}%",
                warn.value, alarm.value, refuse.value
            ),
        );
    }
    Some(LedgerConfig {
        path: path?.value,
        keys: keys?.value,
        origin: origin?.value,
        checkpoint_interval: interval?.value,
        checkpoint_copies: copies.into_iter().map(|copy| copy.value).collect(),
        archive: archive.map(|archive| archive.value),
        keep_bytes: keep_bytes?.value,
        checkpoint_syslog: syslog,
        checkpoint_command: command,
        epoch: epoch?.value,
        verify_interval: verify_interval?.value,
        refuse_when_tampered: table.flag("refuse_when_tampered").value,
        witnesses,
        free_warn: warn?.value,
        free_alarm: alarm?.value,
        free_refuse: refuse?.value,
    })
}

pub(super) fn read_syslog(text: &str) -> Option<Syslog> {
    if let Some(path) = text.strip_prefix("unix:") {
        return path.starts_with('/').then(|| Syslog::Unix(path.into()));
    }
    let address = text.strip_prefix("udp:")?;
    let (host, port) = address.rsplit_once(':')?;
    let fine = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
    fine.then(|| Syslog::Udp(address.to_owned()))
}

fn witnesses(ledger: &Table<'_>) -> Vec<WitnessConfig> {
    let mut witnesses: Vec<WitnessConfig> = Vec::new();
    for table in ledger.tables("witness", "witness") {
        let (Some(url), Some(vkey)) = (table.text("url"), table.text("vkey")) else { continue };
        let public = url.value.replacen("http://", "https://", 1);
        if let Err(wrong) = check_issuer_url(&public, false) {
            table.mistake(url.line, format!("url {wrong}"));
        }
        if !crate::record::is_witness_key(&vkey.value) {
            table.mistake(vkey.line, "vkey is not a witness's verifier key (name+id+key, type 4)");
        }
        if witnesses.iter().any(|known| known.vkey == vkey.value) {
            table.mistake(vkey.line, "another witness has this vkey");
        }
        witnesses.push(WitnessConfig { url: url.value, vkey: vkey.value });
    }
    witnesses
}

/// The ledger's folder is handed to auditors: no key may lie in it, and a copy in it would prove nothing.
fn check_places(table: &Table<'_>, path: &At<PathBuf>, keys: &At<PathBuf>, copies: &[At<PathBuf>]) {
    let (ledger, keys_line) = (plain(&path.value), keys.line);
    if ledger.exists() && !ledger.is_dir() {
        table.mistake(path.line, format!("path: {} is not a folder", path.value.display()));
    }
    let keys = plain(&keys.value);
    if keys.starts_with(&ledger) {
        table.mistake(
            keys_line,
            "keys must not lie inside path: the ledger is handed to auditors, its keys never",
        );
    }
    if let Ok(meta) = std::fs::metadata(&keys) {
        let mode = meta.mode() & 0o7777;
        if !meta.is_dir() {
            table.mistake(keys_line, format!("keys: {} is not a folder", keys.display()));
        } else if mode & 0o077 != 0 {
            table.mistake(
                keys_line,
                format!(
                    "keys: {} is open to others than its owner (mode {mode:04o}); make it 0700",
                    keys.display()
                ),
            );
        }
    }
    for copy in copies {
        let (file, line) = (plain(&copy.value), copy.line);
        let shown = file.display();
        if file.starts_with(&ledger) {
            table.mistake(
                line,
                format!("checkpoint_copies: {shown} lies inside the ledger, where it proves nothing"),
            );
        } else if !file.parent().is_some_and(Path::is_dir) {
            table.mistake(line, format!("checkpoint_copies: the folder of {shown} does not exist"));
        } else if file.is_dir() {
            table.mistake(line, format!("checkpoint_copies: {shown} is a folder; name a file in it"));
        }
    }
}

/// A path without `.` and `..`, and with links resolved as far as it exists.
pub(super) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            other => plain.push(other),
        }
        if let Ok(real) = std::fs::canonicalize(&plain) {
            plain = real;
        }
    }
    plain
}

fn issuers(identity: &Table<'_>) -> (Vec<IssuerConfig>, Vec<IntrospectionConfig>) {
    let (mut issuers, mut introspections): (Vec<IssuerConfig>, _) = (Vec::new(), Vec::new());
    let tables = identity.tables("issuer", "issuer");
    for table in &tables {
        let Some(issuer) = issuer(table) else { continue };
        if issuers.iter().any(|known| known.name == issuer.name) {
            table.mistake(table.line_of("name"), "another issuer has this name");
        }
        if issuers.iter().any(|known| known.url == issuer.url) {
            table.mistake(
                table.line_of("url"),
                format!("another issuer has the url {}, so its tokens would be judged twice", issuer.url),
            );
        }
        introspections.extend(introspection(table, &issuer.name));
        issuers.push(issuer);
    }
    (issuers, introspections)
}

fn introspection(issuer: &Table<'_>, name: &str) -> Option<IntrospectionConfig> {
    let table = issuer.table("introspection", "introspection: ");
    let (client_id, client_secret) = (table.text("client_id"), table.secret("client_secret"));
    let (interval, unanswered_max) = (table.duration("interval"), table.duration("unanswered_max"));
    if !table.is_written() {
        return None;
    }
    if let Some(secret) = &client_secret
        && let Err(wrong) = secret.value.inspect()
    {
        table.mistake(secret.line, format!("client_secret: {wrong}"));
    }
    if let (Some(interval), Some(most)) = (&interval, &unanswered_max)
        && most.value < interval.value
    {
        table.mistake(
            most.line,
            "unanswered_max is less than interval: nobody would have been asked again by then",
        );
    }
    Some(IntrospectionConfig {
        issuer: name.to_owned(),
        client_id: client_id?.value,
        client_secret: client_secret?.value,
        interval: interval?.value,
        unanswered_max: unanswered_max.map(|most| most.value),
    })
}

/// The `name` of a resource or an issuer: policies, the ledger and operators spell it, so its alphabet is plain.
pub(super) fn name(table: &Table<'_>) -> Option<String> {
    let name = table.text("name")?;
    let odd = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
    let first = name.value.starts_with(['-', '_', '.']);
    if name.value.contains(odd) || first || name.value.len() > NAME_BYTES_MAX {
        let most = NAME_BYTES_MAX;
        table.mistake(
            name.line,
            format!("name takes at most {most} of a-z, 0-9, \"-\", \"_\" and \".\", a letter or digit first"),
        );
    }
    Some(name.value)
}

fn issuer(table: &Table<'_>) -> Option<IssuerConfig> {
    let name = name(table);
    let url = table.text("url");
    let (audience, access) = (table.text("audience"), table.text("access_token_audience"));
    let authorized_parties = table.texts("authorized_parties");
    let (groups_claim, groups) = (table.text("groups_claim"), table.open("groups"));
    let principal = table.choice("principal");
    let ca = table.path("ca").and_then(|ca| match tls::authorities(&ca.value) {
        Ok((text, _)) => Some(text),
        Err(wrong) => {
            table.mistake(ca.line, format!("ca: {wrong}"));
            None
        }
    });
    let algorithms = table.choices("algorithms");
    let logout_audience = table.text("logout_audience");
    let (clock_skew, keys_max_age) = (table.duration("clock_skew"), table.duration("keys_max_age"));
    let danger_http = table.flag("danger_http");
    if danger_http.value {
        table.warning(danger_http.line, "danger_http is on: whoever reads loopback traffic sees tokens");
    }
    if let Some(url) = &url
        && let Err(wrong) = check_issuer_url(&url.value, danger_http.value)
    {
        table.mistake(url.line, format!("url {wrong}"));
    }
    if danger_http.value && url.as_ref().is_some_and(|url| url.value.starts_with("https://")) {
        table.mistake(danger_http.line, "danger_http does nothing here: url begins with https://");
    }
    if audience.is_none()
        && access.is_none()
        && !table.holds("audience")
        && !table.holds("access_token_audience")
    {
        table.missing("audience or access_token_audience is missing: without one no token is for us");
    }
    for (claim, template) in &groups {
        if let Err(wrong) = check_template(claim, &template.value) {
            table.mistake(template.line, format!("groups: {claim}: {wrong}"));
        }
    }
    Some(IssuerConfig {
        name: name?,
        url: url?.value,
        audience: audience.map(|text| text.value),
        access_token_audience: access.map(|text| text.value),
        authorized_parties: authorized_parties.into_iter().map(|party| party.value).collect(),
        groups_claim: groups_claim.map(|text| text.value),
        groups: groups.into_iter().map(|(claim, template)| (claim, template.value)).collect(),
        principal: match principal?.value {
            "Service" => PrincipalKind::Service,
            _ => PrincipalKind::User,
        },
        ca,
        algorithms,
        logout_audience: logout_audience.map(|text| text.value),
        clock_skew: clock_skew?.value,
        keys_max_age: keys_max_age?.value,
        danger_http: danger_http.value,
    })
}

/// The url itself is not repeated where it may hold a password.
pub(super) fn check_issuer_url(url: &str, danger_http: bool) -> Result<(), String> {
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err("must begin with https://".into()),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("must hold no user and no password".into());
    }
    if rest.contains(['?', '#']) || rest.contains(|c: char| c.is_whitespace() || !c.is_ascii_graphic()) {
        return Err("must hold no query, no fragment and no blanks".into());
    }
    let HostPort { host, .. } = host_port(authority, if secure { 443 } else { 80 })?;
    match (secure, danger_http) {
        (true, _) => Ok(()),
        (false, true) if is_loopback_host(&host) => Ok(()),
        (false, true) => Err("may begin with http:// only where its host is loopback".into()),
        (false, false) => {
            Err("must begin with https:// (danger_http = true allows http:// on loopback)".into())
        }
    }
}

fn check_template(claim: &str, template: &str) -> Result<(), String> {
    if claim.is_empty() || claim.contains(['{', '}']) {
        return Err("that is no claim's name".into());
    }
    let mut rest = template;
    let mut uses_claim = false;
    while let Some(at) = rest.find(['{', '}']) {
        let inner = rest[at..].strip_prefix('{').and_then(|inner| inner.split_once('}'));
        match inner {
            Some((name, after)) if !name.is_empty() && !name.contains('{') => {
                uses_claim |= name == claim;
                rest = after;
            }
            _ => return Err("a brace is not closed, not opened, or empty".into()),
        }
    }
    // A constant would put everybody into the group whose token has the claim at all.
    if uses_claim { Ok(()) } else { Err(format!("the template does not use {{{claim}}}")) }
}

fn resources(root: &Table<'_>, certificate: Option<&At<CertificateFiles>>) -> Vec<Resource> {
    let tables = root.tables("resource", "resource");
    if !root.holds("resource") {
        root.warning(0, "there is no [[resource]]: nothing is served");
    } else if !root.holds("identity") {
        root.warning(0, "there is no [[identity.issuer]]: nobody can log in");
    }
    let mut resources: Vec<(&Table<'_>, Resource)> = Vec::new();
    for table in &tables {
        let Some(resource) = resource(table, certificate) else { continue };
        if resources.iter().any(|(_, known)| known.name == resource.name) {
            table.mistake(table.line_of("name"), "another resource has this name");
        }
        for (_, known) in &resources {
            check_listeners(known, table, &resource);
        }
        resources.push((table, resource));
    }
    for (table, resource) in &resources {
        check_loop(table, resource, resources.iter().map(|(_, resource)| resource));
    }
    resources.into_iter().map(|(_, resource)| resource).collect()
}

/// Two resources on one address need names to tell them apart; two addresses must not claim one port.
fn check_listeners(known: &Resource, table: &Table<'_>, resource: &Resource) {
    let line = table.line_of("listen");
    for address in resource.listen.iter().filter(|address| address.port() != 0) {
        for other in known.listen.iter().filter(|other| other.port() == address.port()) {
            if address == other {
                if resource.server_names.is_empty() || known.server_names.is_empty() {
                    table.mistake(
                        line,
                        format!(
                            "resource \"{}\" listens at {address} too; give each a server_name",
                            known.name
                        ),
                    );
                }
                let shared = resource.server_names.iter().find(|name| known.server_names.contains(name));
                if let Some(name) = shared {
                    table.mistake(
                        table.line_of("server_name"),
                        format!(
                            "resource \"{}\" has the server_name \"{name}\" at {address} too",
                            known.name
                        ),
                    );
                }
            } else if overlap(address.ip(), other.ip()) {
                table.mistake(
                    line,
                    format!("{address} and {other}, where resource \"{}\" listens, are one port", known.name),
                );
            }
        }
    }
}

/// Whether one address covers the other: `0.0.0.0` any of its kind, `[::]` every one.
pub(super) fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let covers = |wide: IpAddr, narrow: IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || wide.is_ipv4() == narrow.is_ipv4())
    };
    covers(one, other) || covers(other, one)
}

/// An upstream that is our own listener would be asked by ourselves, for ever.
fn check_loop<'r>(table: &Table<'_>, resource: &Resource, mut all: impl Iterator<Item = &'r Resource>) {
    let HostPort { host, port } = &resource.upstream;
    let address = if host == "localhost" { Some(IpAddr::from([127, 0, 0, 1])) } else { host.parse().ok() };
    let Some(address) = address else { return };
    let ours = |listen: &SocketAddr| {
        let wide = listen.ip().is_unspecified() && address.is_loopback();
        listen.port() == *port && (listen.ip() == address || wide)
    };
    if let Some(other) = all.find(|other| other.listen.iter().any(ours)) {
        table.mistake(
            table.line_of("upstream"),
            format!("upstream {host}:{port} is where the gateway itself listens for \"{}\"", other.name),
        );
    }
}

fn resource(table: &Table<'_>, default: Option<&At<CertificateFiles>>) -> Option<Resource> {
    let name = name(table);
    let kind = table.choice("kind");
    let listen = addresses(table);
    let server_names = server_names(table);
    let own = certificate(table);
    let cleartext = table.flag("danger_cleartext_loopback");
    check_client_side(table, &listen, &server_names, own.as_ref().or(default), &cleartext);
    let upstream = upstream(table);
    let upstream_tls = upstream_tls(table, upstream.as_ref());
    let databases = databases(table);
    let roles = roles(table);
    let catalog_role = catalog_role(table, &roles);
    let login = table.choice("login");
    let durability = durability(table);
    let shadow = table.flag("shadow");
    if shadow.value {
        table.warning(shadow.line, "shadow is on: commands that policy refuses are recorded and pass");
    }
    let masks = mask::masks(table, &databases);
    let confirm_catalog = table.flag("confirm_catalog").value;
    let chosen = table.choices("detect");
    let detect = Class::ALL.into_iter().filter(|class| chosen.contains(&class.name())).collect();
    let (session_max, idle_timeout) = (table.duration("session_max"), table.duration("idle_timeout"));
    kind?;
    Some(Resource {
        name: name?,
        kind: Kind::Postgres,
        listen: listen.into_iter().map(|address| address.value).collect(),
        server_names: server_names.into_iter().map(|name| name.value).collect(),
        certificate: own.or_else(|| default.cloned()).map(|files| files.value),
        upstream: upstream?,
        upstream_tls: upstream_tls?,
        databases,
        catalog_role: catalog_role.or_else(|| roles.first().map(|role| role.name.clone()))?,
        roles,
        login: match login?.value {
            "oauthbearer" => Login::OAuthBearer,
            _ => Login::Password,
        },
        danger_cleartext_loopback: cleartext.value,
        durability: durability?,
        shadow: shadow.value,
        masks,
        confirm_catalog,
        detect,
        session_max: session_max.map(|limit| limit.value),
        idle_timeout: idle_timeout?.value,
    })
}

fn addresses(table: &Table<'_>) -> Vec<At<SocketAddr>> {
    let mut addresses: Vec<At<SocketAddr>> = Vec::new();
    for text in table.texts("listen") {
        match text.value.parse::<SocketAddr>() {
            Ok(address) => {
                let clash = addresses.iter().find(|known| {
                    known.value.port() == address.port()
                        && address.port() != 0
                        && (known.value == address || overlap(known.value.ip(), address.ip()))
                });
                if let Some(known) = clash {
                    table.mistake(text.line, format!("listen: {address} and {} are one port", known.value));
                }
                addresses.push(At { value: address, line: text.line });
            }
            Err(_) => table.mistake(
                text.line,
                format!("listen takes an address and a port, such as 0.0.0.0:5432; not \"{}\"", text.value),
            ),
        }
    }
    addresses
}

fn server_names(table: &Table<'_>) -> Vec<At<String>> {
    let mut names = Vec::new();
    for text in table.texts("server_name") {
        let name = text.value.to_ascii_lowercase();
        if matches!(ServerName::try_from(name.as_str()), Ok(ServerName::DnsName(_))) && !name.ends_with('.') {
            names.push(At { value: name, line: text.line });
        } else {
            table.mistake(
                text.line,
                format!("server_name takes host names, neither addresses nor wildcards; not \"{name}\""),
            );
        }
    }
    names
}

/// A token may travel in clear only where nobody but this machine can see it.
fn check_client_side(
    table: &Table<'_>,
    listen: &[At<SocketAddr>],
    server_names: &[At<String>],
    certificate: Option<&At<CertificateFiles>>,
    cleartext: &At<bool>,
) {
    match certificate {
        Some(files) if !server_names.is_empty() => {
            let names: Vec<String> = server_names.iter().map(|name| name.value.clone()).collect();
            let line = server_names.first().map_or(table.line(), |name| name.line);
            check_certificate_names(table, line, &files.value, &names);
        }
        None if !cleartext.value && !table.holds("certificate") => {
            table.missing("certificate is missing, here and at the top: clients send tokens over TLS only");
        }
        _ => {}
    }
    if !cleartext.value {
        return;
    }
    table.warning(cleartext.line, "danger_cleartext_loopback is on: tokens may cross loopback in clear");
    for address in listen.iter().filter(|address| !address.value.ip().is_loopback()) {
        table.mistake(
            address.line,
            format!(
                "danger_cleartext_loopback needs every listen address to be loopback; {} is not",
                address.value
            ),
        );
    }
    if let Some(name) = server_names.first() {
        table.mistake(
            name.line,
            "server_name and danger_cleartext_loopback exclude each other: without TLS there is no server name",
        );
    }
}

fn check_certificate_names(table: &Table<'_>, line: usize, files: &CertificateFiles, names: &[String]) {
    // Where the files cannot be used at all, that was said when they were named.
    let Ok(facts) = tls::inspect_certificate(files, names) else { return };
    for name in &facts.uncovered {
        let (chain, valid) = (files.chain.display(), valid_names(files));
        table.mistake(line, format!("server_name \"{name}\": {chain} is only valid for: {valid}"));
    }
}

fn upstream(table: &Table<'_>) -> Option<HostPort> {
    let text = table.text("upstream")?;
    if text.value.contains('@') || text.value.contains("://") || text.value.contains('=') {
        // It may hold a password, so it is not repeated.
        table.mistake(
            text.line,
            "upstream takes a host and a port only, such as 10.0.4.17:5432; no URL, no user, no password",
        );
        return None;
    }
    match host_port(&text.value, POSTGRES_PORT) {
        Ok(upstream) => Some(upstream),
        Err(wrong) => {
            table.mistake(text.line, format!("upstream {wrong}"));
            None
        }
    }
}

fn host_port(text: &str, default_port: u16) -> Result<HostPort, String> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or("has something behind its bracket")?)),
        None if text.matches(':').count() > 1 => {
            return Err(format!("must hold its IPv6 address in brackets, such as [::1]:{default_port}"));
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None => default_port,
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port != 0 && !digits.starts_with(['0', '+']) => port,
            _ => return Err(format!("has no port from 1 to 65535 behind its colon: \"{text}\"")),
        },
    };
    let is_ipv6 = host.parse::<std::net::Ipv6Addr>().is_ok();
    if ServerName::try_from(host).is_err() || is_ipv6 != bracketed.is_some() {
        return Err(format!("holds no host name and no address: \"{text}\""));
    }
    Ok(HostPort { host: host.to_owned(), port })
}

fn is_loopback_host(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn upstream_tls(resource: &Table<'_>, upstream: Option<&HostPort>) -> Option<UpstreamTls> {
    let table = resource.table("tls", "tls: ");
    let (ca, server_name) = (table.path("ca"), table.text("server_name"));
    let disable = table.flag("danger_disable");
    if let Some(ca) = &ca
        && let Err(wrong) = tls::authorities(&ca.value)
    {
        table.mistake(ca.line, format!("ca: {wrong}"));
    }
    if let Some(name) = &server_name
        && ServerName::try_from(name.value.as_str()).is_err()
    {
        table.mistake(name.line, format!("server_name: \"{}\" is no host name and no address", name.value));
    }
    if disable.value {
        table.warning(disable.line, "danger_disable is on: the upstream is spoken to in clear");
        if ca.is_some() || server_name.is_some() {
            table.mistake(
                disable.line,
                "danger_disable leaves ca and server_name without effect; remove either",
            );
        }
        return Some(UpstreamTls::Disabled);
    }
    let server_name = server_name.map(|name| name.value).or_else(|| Some(upstream?.host.clone()))?;
    Some(UpstreamTls::Verify { ca: ca.map(|ca| ca.value), server_name })
}

/// Names stand in policies as `"resource/database"`, so a slash would let one name spell another.
fn check_postgres_name(table: &Table<'_>, key: &str, name: &At<String>) {
    if name.value.len() > POSTGRES_NAME_BYTES_MAX {
        let most = POSTGRES_NAME_BYTES_MAX;
        table.mistake(name.line, format!("{key}: \"{}\" has more than {most} bytes", name.value));
    }
    if name.value.contains(['/', '"']) {
        table.mistake(name.line, format!("{key}: \"{}\" holds a slash or a quote", name.value));
    }
}

fn databases(table: &Table<'_>) -> Vec<String> {
    let databases = table.texts("databases");
    for database in &databases {
        check_postgres_name(table, "databases", database);
    }
    databases.into_iter().map(|database| database.value).collect()
}

fn roles(resource: &Table<'_>) -> Vec<Role> {
    let mut roles: Vec<Role> = Vec::new();
    for table in resource.tables("roles", "role") {
        let name = table.text("name");
        if let Some(name) = &name {
            check_postgres_name(&table, "name", name);
            if roles.iter().any(|known| known.name == name.value) {
                table.mistake(name.line, "another role has this name");
            }
        }
        let password = table.secret("password");
        if let Some(password) = &password
            && let Err(wrong) = password.value.inspect()
        {
            table.mistake(password.line, format!("password: {wrong}"));
        }
        if let Some(name) = name {
            roles.push(Role { name: name.value, password: password.map(|password| password.value) });
        }
    }
    roles
}

fn catalog_role(table: &Table<'_>, roles: &[Role]) -> Option<String> {
    let role = table.text("catalog_role")?;
    let names = || roles.iter().map(|role| role.name.as_str());
    if !names().any(|name| name == role.value) {
        let meant = meant(&role.value, names());
        table.mistake(role.line, format!("catalog_role \"{}\" is not among roles{meant}", role.value));
    }
    Some(role.value)
}

fn durability(resource: &Table<'_>) -> Option<Durability> {
    if !resource.holds_table("durability") {
        return resource.choice("durability").map(|_| Durability::Strict);
    }
    let table = resource.table("durability", "durability: ");
    let reads = table.duration("reads")?;
    table.warning(reads.line, "reads may be answered before their record is on disk");
    Some(Durability::ReadsWithin(reads.value))
}

fn limits(table: &Table<'_>) -> Option<Limits> {
    let count = |name| usize::try_from(table.count(name)).unwrap_or(usize::MAX);
    let (connections_max, logins_max) = (count("connections_max"), count("logins_max"));
    let logins_per_source_max = count("logins_per_source_max");
    if logins_per_source_max > logins_max {
        table.mistake(
            table.line_of("logins_per_source_max"),
            format!("logins_per_source_max ({logins_per_source_max}) is more than logins_max ({logins_max})"),
        );
    }
    Some(Limits {
        connections_max,
        logins_max,
        logins_per_source_max,
        login_deadline: table.duration("login_deadline")?.value,
        connect_deadline: table.duration("connect_deadline")?.value,
        durable_deadline: table.duration("durable_deadline")?.value,
        drain_deadline: table.duration("drain_deadline")?.value,
        message_bytes_max: usize::try_from(table.size("message_bytes_max")?.value).ok()?,
    })
}

fn log(table: &Table<'_>) -> Option<Log> {
    let (level, format) = (table.choice("level"), table.choice("format"));
    Some(Log { level: level?.value, json: format?.value == "json" })
}

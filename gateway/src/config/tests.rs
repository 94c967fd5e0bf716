//! What reading promises, judged by the report and the configuration that come out.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use gatebook_wire::detect::Class;
use time::OffsetDateTime;
use toml::de::DeTable;

use super::keys::{KEYS, Takes};
use super::table::Sink;
use super::*;
use crate::pki::{Authority, Secrecy, create};

/// A folder that holds what configurations name.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        std::fs::create_dir(path.join("policies")).expect("policies");
        let authority = Authority::create("Test", OffsetDateTime::now_utc()).expect("an authority");
        authority.write(path).expect("the authority's files");
        let names = ["localhost", "orders.example", "wages.example"].map(String::from);
        let issued = authority.issue(&names, OffsetDateTime::now_utc()).expect("a certificate");
        issued.write(path).expect("the certificate's files");
        create(&path.join("password"), b"canary-in-file\n", Secrecy::Private).expect("a secret");
        Folder(folder)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn check(&self, text: &str) -> Check {
        std::fs::write(self.path(CONFIG_FILE), text).expect("the file");
        check(&self.path(CONFIG_FILE))
    }

    pub(super) fn config(&self, text: &str) -> Config {
        let Check { report, config } = self.check(text);
        config.unwrap_or_else(|| panic!("{report}\n{text}"))
    }

    fn mistakes(&self, text: &str) -> Vec<(usize, String)> {
        let Check { report, config } = self.check(text);
        assert_eq!(report.is_clean(), config.is_some(), "a configuration and mistakes exclude each other");
        report.files[0].mistakes.iter().map(|mistake| (mistake.line, mistake.text.clone())).collect()
    }

    /// Exactly these mistakes: each line, and a part of each text.
    fn expect(&self, text: &str, expected: &[(usize, &str)]) {
        let found = self.mistakes(text);
        let same = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(found, expected)| found.0 == expected.0 && found.1.contains(expected.1));
        assert!(same, "expected {expected:#?}\nfound {found:#?}\n{text}");
    }
}

pub(super) const TOP: &str = r#"certificate = { chain = "server.pem", key = "server.key" }
[ledger]
path = "ledger"
origin = "gw.example/ledger"
"#;

pub(super) const RESOURCE: &str = r#"[[resource]]
name = "orders-db"
kind = "postgres"
listen = "127.0.0.1:6432"
upstream = "db.example"
databases = ["orders"]
roles = [{ name = "app", password = { file = "password" } }]
"#;

const ISSUER: &str = r#"[[identity.issuer]]
name = "corp"
url = "https://idp.example"
audience = "gatebook"
"#;

/// Every key, each with a value that is not its default.
const FULL: &str = r#"policies = "rules"
control = "operator.sock"
certificate = { chain = "server.pem", key = "server.key" }

[ledger]
path = "book"
keys = "signing"
origin = "gw.example/ledger"
checkpoint_interval = "5s"
checkpoint_copies = ["copy.checkpoint"]
archive = "cold"
keep_bytes = "3GiB"
checkpoint_syslog = "udp:siem.example:514"
checkpoint_command = ["keep", "--quiet"]
epoch = "2h"
verify_interval = "3h"
refuse_when_tampered = false
free_warn = "30%"
free_alarm = "15%"
free_refuse = "7%"

[[ledger.witness]]
url = "http://witness.example:7380"
vkey = "w.example/1+81606773+BBbfll6EbQftl0tEBZvFe2SuQLbfuf1c2t2Xo6wMNFiO"

[[identity.issuer]]
name = "ci"
url = "http://127.0.0.1:8080/realm"
audience = "id"
access_token_audience = "at"
authorized_parties = ["deployer"]
groups_claim = "roles"
groups = { project_path = "ci/{project_path}/{ref}" }
principal = "Service"
ca = "ca.pem"
algorithms = ["ES256"]
logout_audience = "out"
introspection = { client_id = "asker", client_secret = { file = "password" }, interval = "10s", unanswered_max = "3m" }
clock_skew = "5s"
keys_max_age = "2h"
danger_http = true

[[identity.issuer]]
name = "people"
url = "https://idp.example"
audience = "cli"

[[resource]]
name = "orders-db"
kind = "postgres"
listen = ["127.0.0.1:6432", "[::1]:6432"]
server_name = "Orders.Example"
certificate = { chain = "server.pem", key = "server.key" }
upstream = "[2001:db8::5]:5433"
tls = { ca = "ca.pem", server_name = "db.example" }
databases = ["orders", "archive"]
roles = [{ name = "app", password = { file = "password" } }, { name = "catalog" }]
catalog_role = "catalog"
login = "oauthbearer"
durability = { reads = "250ms" }
shadow = true
detect = ["card", "secret"]
confirm_catalog = true
mask = [{ columns = ["public.customers.email", 'sales."Card".no'], with = "email", databases = ["orders"] }]
session_max = "8h"
idle_timeout = "2m"

[[resource]]
name = "wages-db"
kind = "postgres"
listen = "127.0.0.1:7432"
danger_cleartext_loopback = true
upstream = "localhost"
tls = { danger_disable = true }
databases = ["wages"]
roles = [{ name = "app" }]

[admin]
listen = "127.0.0.1:8443"
url = "https://gw.example:8443"
audience = "gatebook-admin"
certificate = { chain = "server.pem", key = "server.key" }

[admin.login]
issuer = "people"
client_id = "gatebook-page"
client_secret = { file = "password" }
scopes = ["openid", "groups"]
session_max = "4h"
idle_timeout = "9m"

[[webhook]]
url = { file = "password" }
secret = { file = "password" }
format = "slack"
ca = "ca.pem"
danger_http = true

[metrics]
listen = "127.0.0.1:9464"

[[stream]]
name = "siem"
to = "tcp:siem.example:6514"
resend = "1MiB"

[delegation]
keys = "own"
key_age = "2d"
depth_max = 3
ttl_max = "20m"

[limits]
connections_max = 11
logins_max = 7
logins_per_source_max = 3
login_deadline = "11s"
connect_deadline = "12s"
durable_deadline = "13s"
drain_deadline = "0s"
message_bytes_max = "64KiB"

[log]
level = "warn"
format = "json"
"#;

fn full() -> (Folder, Config) {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("rules")).expect("rules");
    let config = folder.config(FULL);
    (folder, config)
}

#[test]
fn every_key_reaches_the_configuration() {
    let (folder, config) = full();
    assert_eq!(config.policies, folder.path("rules"));
    assert_eq!(config.control, folder.path("operator.sock"));
    assert_eq!(
        config.ledger,
        LedgerConfig {
            path: folder.path("book"),
            keys: folder.path("signing"),
            origin: "gw.example/ledger".into(),
            checkpoint_interval: Duration::from_secs(5),
            checkpoint_copies: vec![folder.path("copy.checkpoint")],
            archive: Some(folder.path("cold")),
            keep_bytes: 3 << 30,
            checkpoint_syslog: Some(Syslog::Udp("siem.example:514".into())),
            checkpoint_command: vec!["keep".into(), "--quiet".into()],
            epoch: Duration::from_secs(7200),
            verify_interval: Duration::from_secs(10_800),
            refuse_when_tampered: false,
            witnesses: vec![WitnessConfig {
                url: "http://witness.example:7380".into(),
                vkey: "w.example/1+81606773+BBbfll6EbQftl0tEBZvFe2SuQLbfuf1c2t2Xo6wMNFiO".into(),
            }],
            free_warn: 30,
            free_alarm: 15,
            free_refuse: 7,
        }
    );
    assert_eq!(
        config.issuers[..1],
        [IssuerConfig {
            name: "ci".into(),
            url: "http://127.0.0.1:8080/realm".into(),
            audience: Some("id".into()),
            access_token_audience: Some("at".into()),
            authorized_parties: vec!["deployer".into()],
            groups_claim: Some("roles".into()),
            groups: [("project_path".to_owned(), "ci/{project_path}/{ref}".to_owned())].into(),
            principal: PrincipalKind::Service,
            ca: Some(std::fs::read(folder.path("ca.pem")).expect("the authority")),
            algorithms: vec!["ES256"],
            logout_audience: Some("out".into()),
            clock_skew: Duration::from_secs(5),
            keys_max_age: Duration::from_secs(7_200),
            danger_http: true,
        }]
    );
    let [asked] = &config.introspections[..] else { panic!("{:?}", config.introspections) };
    assert_eq!((&*asked.issuer, &*asked.client_id), ("ci", "asker"));
    let times = (asked.interval, asked.unanswered_max);
    assert_eq!(times, (Duration::from_secs(10), Some(Duration::from_secs(180))));
    assert_eq!(config.issuers[1].principal, PrincipalKind::User);
    let [orders, wages] = &config.resources[..] else { panic!("{:?}", config.resources) };
    let files = CertificateFiles { chain: folder.path("server.pem"), key: folder.path("server.key") };
    let listen = ["127.0.0.1:6432", "[::1]:6432"].map(|address| address.parse().expect("an address"));
    assert_eq!(
        (orders.name.as_str(), orders.kind, &orders.listen[..]),
        ("orders-db", Kind::Postgres, &listen[..])
    );
    assert_eq!(
        (&orders.server_names[..], &orders.certificate),
        (&["orders.example".into()][..], &Some(files))
    );
    assert_eq!(orders.upstream, HostPort { host: "2001:db8::5".into(), port: 5433 });
    let (ca, server_name) = (Some(folder.path("ca.pem")), "db.example".into());
    assert_eq!(orders.upstream_tls, UpstreamTls::Verify { ca, server_name });
    assert_eq!(orders.databases, ["orders", "archive"]);
    assert!(orders.role("app").is_some_and(|role| role.password.is_some()));
    assert!(orders.role("catalog").is_some_and(|role| role.password.is_none()));
    assert!(orders.role("App").is_none());
    assert_eq!((orders.catalog_role.as_str(), orders.login), ("catalog", Login::OAuthBearer));
    assert_eq!(orders.durability, Durability::ReadsWithin(Duration::from_millis(250)));
    assert!(orders.shadow && orders.confirm_catalog && !orders.danger_cleartext_loopback);
    assert_eq!(orders.detect, [Class::Card, Class::Secret].into_iter().collect());
    let masks: Vec<String> = orders.masks.iter().map(|mask| format!("{:?}", mask.column)).collect();
    assert_eq!(orders.masks.len(), 2, "{masks:?}");
    let card = &orders.masks[1];
    assert_eq!((&*card.column.schema, &*card.column.table, &*card.column.column), ("sales", "Card", "no"));
    assert_eq!(card.databases, ["orders"]);
    assert_eq!(orders.session_max, Some(Duration::from_secs(8 * 3_600)));
    assert_eq!(orders.idle_timeout, Duration::from_secs(120));
    assert!(wages.danger_cleartext_loopback);
    assert_eq!((&wages.upstream_tls, wages.catalog_role.as_str()), (&UpstreamTls::Disabled, "app"));
    assert_eq!(wages.upstream, HostPort { host: "localhost".into(), port: 5432 });
    let listen = "127.0.0.1:8443".parse().expect("an address");
    let (url, audience) = ("https://gw.example:8443".to_owned(), "gatebook-admin".to_owned());
    let certificate = CertificateFiles { chain: folder.path("server.pem"), key: folder.path("server.key") };
    let Some(AdminConfig { login: Some(login), .. }) = &config.admin else { panic!("{:?}", config.admin) };
    let admin =
        config.admin.as_ref().map(|admin| (admin.listen, &admin.url, &admin.audience, &admin.certificate));
    assert_eq!(admin, Some((listen, &url, &audience, &certificate)));
    assert_eq!(
        (&*login.issuer, &*login.client_id, login.client_secret.is_some()),
        ("people", "gatebook-page", true)
    );
    assert_eq!(login.scopes, ["openid", "groups"]);
    assert_eq!(
        (login.session_max, login.idle_timeout),
        (Duration::from_secs(14_400), Duration::from_secs(540))
    );
    let [webhook] = &config.webhooks[..] else { panic!("{:?}", config.webhooks) };
    let ca = std::fs::read(folder.path("ca.pem")).expect("the authority");
    assert_eq!((webhook.slack, webhook.danger_http, webhook.ca.as_ref()), (true, true, Some(&ca)));
    assert_eq!(config.metrics, "127.0.0.1:9464".parse().ok());
    assert_eq!(
        config.streams,
        [StreamConfig {
            name: "siem".into(),
            to: StreamTo::Tcp("siem.example:6514".into()),
            resend: 1 << 20
        }]
    );
    let (key_age, ttl_max) = (Duration::from_secs(2 * 86_400), Duration::from_secs(1200));
    let keys = folder.path("own");
    assert_eq!(config.delegation, Some(DelegationConfig { keys, key_age, depth_max: 3, ttl_max }));
    assert_eq!(
        config.limits,
        Limits {
            connections_max: 11,
            logins_max: 7,
            logins_per_source_max: 3,
            login_deadline: Duration::from_secs(11),
            connect_deadline: Duration::from_secs(12),
            durable_deadline: Duration::from_secs(13),
            drain_deadline: Duration::ZERO,
            message_bytes_max: 64 << 10,
        }
    );
    assert_eq!(config.log, Log { level: "warn", json: true });
}

#[test]
fn the_table_of_keys_and_the_reader_name_the_same_keys() {
    let folder = Folder::new();
    let (document, errors) = DeTable::parse_recoverable(FULL);
    assert!(errors.is_empty());
    let sink = Sink::new(FULL, folder.0.path(), false);
    read::read(&folder.path(CONFIG_FILE), FULL, document.get_ref(), &sink);
    let asked = sink.asked.take();
    let listed: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(
        listed.difference(&asked).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "listed, but read by nobody"
    );
    assert_eq!(listed.len(), KEYS.len(), "a key stands twice");
}

#[test]
fn what_is_left_out_has_the_value_that_the_reference_says() {
    let folder = Folder::new();
    let config = folder.config(&format!("{TOP}{ISSUER}{RESOURCE}"));
    assert_eq!(config.policies, folder.path("policies"));
    assert_eq!(config.control, folder.path("control.sock"));
    assert_eq!(config.ledger.keys, folder.path("keys"));
    assert_eq!((config.ledger.free_warn, config.ledger.free_alarm, config.ledger.free_refuse), (20, 10, 5));
    assert_eq!(config.ledger.checkpoint_interval, Duration::from_secs(60));
    let issuer = &config.issuers[0];
    assert_eq!(issuer.algorithms, ["RS256", "PS256", "ES256", "EdDSA"]);
    assert_eq!((issuer.principal, issuer.clock_skew), (PrincipalKind::User, Duration::from_secs(30)));
    assert_eq!((issuer.keys_max_age, issuer.danger_http), (Duration::from_secs(86_400), false));
    let resource = &config.resources[0];
    assert_eq!((resource.login, resource.durability), (Login::Password, Durability::Strict));
    let tls = UpstreamTls::Verify { ca: None, server_name: "db.example".into() };
    assert_eq!((&resource.upstream_tls, resource.upstream.port), (&tls, 5432));
    assert!(!resource.shadow && resource.session_max.is_none() && resource.server_names.is_empty());
    assert_eq!((resource.idle_timeout, resource.catalog_role.as_str()), (Duration::from_secs(3_600), "app"));
    assert_eq!((config.limits.connections_max, config.limits.message_bytes_max), (10_000, 16 << 20));
    assert_eq!(config.log, Log { level: "info", json: false });
    for key in KEYS {
        if let (super::keys::Absent::Is(default), Takes::Duration(..)) = (key.absent, key.takes) {
            assert!(units::duration(default).is_ok(), "{}", key.path);
        }
    }
}

#[test]
fn all_mistakes_are_reported_together_each_at_its_line() {
    let folder = Folder::new();
    let text = r#"policy = "policies"
[ledger]
path = 7
origin = "has blanks"
free_warn = "5%"
checkpoint_interval = "1 minute"

[[identity.issuer]]
name = "Corp"
url = "https://user:canary@idp.example"
algorithms = ["none", "HS256", "RS265"]

[[resource]]
name = "orders-db"
kind = "postgresql"
listen = "localhost:5432"
upstream = "postgres://app:canary@db/orders"
databases = []
roles = [{ name = "app", password = "canary" }, { name = "app", pasword = { env = "X" } }]
login = "passwort"
sensitive = [{ columns = ["customers.email"], mask = "partial" }]
catalog_role = "ap"
idle_timeout = "31d"

[limits]
connections_max = 0
logins_max = "many"
"#;
    folder.expect(
        text,
        &[
            (1, "unknown key \"policy\" (did you mean \"policies\"?)"),
            (3, "ledger: path takes a path, not a number"),
            (4, "ledger: origin takes at most 255 visible ASCII characters"),
            (5, "free_warn must be more than free_alarm"),
            (6, "checkpoint_interval takes a whole number and a unit: 250ms, 30s, 15m, 8h, 7d; not \"1 minute\""),
            (8, "issuer \"Corp\": audience or access_token_audience is missing"),
            (9, "issuer \"Corp\": name takes at most 63 of a-z"),
            (10, "issuer \"Corp\": url must hold no user and no password"),
            (11, "algorithms: \"none\" is never accepted"),
            (11, "issuer \"Corp\": algorithms: \"HS256\" is never accepted"),
            (11, "algorithms: \"RS265\" is never accepted (did you mean \"RS256\"?)"),
            (13, "resource \"orders-db\": certificate is missing, here and at the top"),
            (15, "kind takes \"postgres\", not \"postgresql\" (did you mean \"postgres\"?)"),
            (16, "listen takes an address and a port, such as 0.0.0.0:5432; not \"localhost:5432\""),
            (17, "upstream takes a host and a port only"),
            (18, "databases must not be empty"),
            (19, "resource \"orders-db\": role \"app\": unknown key \"pasword\" (did you mean \"password\"?)"),
            (19, "role \"app\": password must not stand in this file; write { env = \"NAME\" }"),
            (19, "role \"app\": another role has this name"),
            (20, "login takes \"password\" or \"oauthbearer\", not \"passwort\" (did you mean \"password\"?)"),
            (21, "resource \"orders-db\": sensitive: sensitive columns are declared with [[resource.mask]]"),
            (22, "catalog_role \"ap\" is not among roles (did you mean \"app\"?)"),
            (23, "idle_timeout takes a duration from 1s to 30d, not 31d"),
            (26, "connections_max takes a whole number from 1 to 1000000, not 0"),
            (27, "logins_max takes a whole number from 1 to 100000, not a string"),
        ],
    );
    let report = folder.check(text).report;
    assert!(!format!("{report}{report:?}{}", report.json()).contains("canary"), "{report}");
}

#[test]
fn an_unknown_key_is_refused_at_each_level() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("rules")).expect("rules");
    let places = [
        ("control = \"operator.sock\"", "control = \"operator.sock\"\nzzz = 1"),
        ("server.key\" }\n\n[ledger]", "server.key\", zzz = 1 }\n\n[ledger]"),
        ("path = \"book\"", "zzz = 1\npath = \"book\""),
        ("[[identity.issuer]]", "[identity]\nzzz = 1\n[[identity.issuer]]"),
        ("name = \"ci\"", "zzz = 1\nname = \"ci\""),
        ("kind = \"postgres\"\nlisten = [", "zzz = 1\nkind = \"postgres\"\nlisten = ["),
        ("key = \"server.key\" }\nupstream", "key = \"server.key\", zzz = 1 }\nupstream"),
        ("server_name = \"db.example\" }", "server_name = \"db.example\", zzz = 1 }"),
        ("{ name = \"catalog\" }", "{ name = \"catalog\", zzz = 1 }"),
        ("{ reads = \"250ms\" }", "{ reads = \"250ms\", zzz = 1 }"),
        ("connections_max", "zzz = 1\nconnections_max"),
        ("level = ", "zzz = 1\nlevel = "),
        ("columns = ", "zzz = 1, columns = "),
        ("vkey = ", "zzz = 1\nvkey = "),
        ("format = \"slack\"", "zzz = 1\nformat = \"slack\""),
        ("audience = \"gatebook-admin\"", "zzz = 1\naudience = \"gatebook-admin\""),
        ("key = \"server.key\" }\n\n[admin.login]", "key = \"server.key\", zzz = 1 }\n\n[admin.login]"),
        ("session_max = \"4h\"", "zzz = 1\nsession_max = \"4h\""),
        ("ttl_max = ", "zzz = 1\nttl_max = "),
        ("listen = \"127.0.0.1:9464\"", "zzz = 1\nlisten = \"127.0.0.1:9464\""),
        ("name = \"siem\"", "zzz = 1\nname = \"siem\""),
        ("{ client_id = ", "{ zzz = 1, client_id = "),
    ];
    let levels: BTreeSet<_> =
        KEYS.iter().map(|key| key.path.rsplit_once('.').map_or("", |(place, _)| place)).collect();
    assert_eq!(levels.len(), places.len(), "each level has its case: {levels:?}");
    for (before, after) in places {
        let text = FULL.replacen(before, after, 1);
        let (until, _) = text.split_once("zzz").unwrap_or_else(|| panic!("{before} is not there"));
        let line = 1 + until.matches('\n').count();
        folder.expect(&text, &[(line, "unknown key \"zzz\"")]);
    }
    // Further tables, and an open table whose keys are the operator's.
    folder.expect(&format!("{TOP}[zzz]\n"), &[(5, "unknown key \"zzz\"")]);
    folder.expect(&format!("{TOP}{ISSUER}groups = {{ zzz = \"{{zzz}}\" }}\n"), &[]);
}

#[test]
fn what_is_required_is_missed_by_name() {
    let folder = Folder::new();
    folder.expect("", &[(1, "ledger is missing: it takes a table")]);
    folder.expect("[ledger]\n", &[(1, "ledger: path is missing"), (1, "ledger: origin is missing")]);
    for (key, line) in
        [("name", 5), ("kind", 5), ("listen", 5), ("upstream", 5), ("databases", 5), ("roles", 5)]
    {
        let kept = RESOURCE.lines().filter(|written| !written.starts_with(&format!("{key} =")));
        let text = format!("{TOP}{}\n", kept.collect::<Vec<_>>().join("\n"));
        folder.expect(&text, &[(line, &format!("{key} is missing"))]);
    }
}

#[test]
fn broken_syntax_is_reported_beside_what_can_still_be_read() {
    let folder = Folder::new();
    let text = "[ledger]\npath = \"ledger\norigin = \"x\"\nzzz = 1\n[[resource]]\n";
    let found = folder.mistakes(text);
    assert_eq!(found.first().map(|(line, _)| *line), Some(2), "{found:?}");
    assert!(found.iter().any(|(line, text)| *line == 4 && text.contains("zzz")), "{found:?}");
    assert!(!found.iter().any(|(_, text)| text.contains("missing")), "{found:?}");
    folder.expect("[ledger]\npath = \"a\"\npath = \"b\"\norigin = \"x\"\n", &[(3, "duplicate key")]);
}

/// Wherever a file is cut or broken, reading ends with a report and not with a panic.
#[test]
fn no_text_is_too_broken_to_be_reported_on() {
    let (folder, _) = full();
    // Without certificates, which take most of the time to read.
    let text = FULL.replace("server_name = \"Orders.Example\"", "danger_cleartext_loopback = true");
    let text: String =
        text.lines().filter(|line| !line.contains("pem")).map(|line| format!("{line}\n")).collect();
    let mut clean = 0;
    for at in 0..text.len() {
        let cut = &text[..at];
        let broken = format!("{cut}{}{}", ["\"", "[", "}", "\n=", "\u{0}"][at % 5], &text[at + 1..]);
        for text in [cut, &broken] {
            let Check { report, config } = folder.check(text);
            assert_eq!(report.is_clean(), config.is_some(), "{report}\n{text}");
            clean += usize::from(config.is_some());
        }
    }
    assert!(clean > 0, "some cuts leave a whole configuration");
    assert!(folder.check(&"[".repeat(100_000)).config.is_none());
    assert!(folder.check(&format!("a = {}", "[".repeat(100_000))).config.is_none());
    assert!(folder.check(&format!("a{} = 1", ".a".repeat(100_000))).config.is_none());
}

#[test]
fn listeners_that_cannot_be_told_apart_are_refused() {
    let folder = Folder::new();
    let two = |first: &str, second: &str| {
        let one = RESOURCE.replace("listen = \"127.0.0.1:6432\"", first);
        let other = RESOURCE.replace("listen = \"127.0.0.1:6432\"", second).replace("orders-db", "wages-db");
        format!("{TOP}{one}{other}")
    };
    let named = |listen: &str, name: &str| format!("listen = \"{listen}\"\nserver_name = \"{name}\"");
    let plain = |listen: &str| format!("listen = \"{listen}\"");
    type Case<'a> = (String, String, &'a [(usize, &'a str)]);
    let cases: [Case<'_>; 9] = [
        (plain("127.0.0.1:1"), plain("127.0.0.1:2"), &[]),
        (plain("127.0.0.1:0"), plain("127.0.0.1:0"), &[]),
        (named("127.0.0.1:1", "orders.example"), named("127.0.0.1:1", "wages.example"), &[]),
        (
            plain("127.0.0.1:1"),
            plain("127.0.0.1:1"),
            &[(15, "resource \"orders-db\" listens at 127.0.0.1:1 too; give each a server_name")],
        ),
        (
            named("127.0.0.1:1", "orders.example"),
            plain("127.0.0.1:1"),
            &[(16, "resource \"orders-db\" listens at 127.0.0.1:1 too; give each a server_name")],
        ),
        (
            named("127.0.0.1:1", "orders.example"),
            named("127.0.0.1:1", "ORDERS.example"),
            &[(17, "has the server_name \"orders.example\" at 127.0.0.1:1 too")],
        ),
        (
            plain("0.0.0.0:1"),
            plain("127.0.0.1:1"),
            &[(15, "127.0.0.1:1 and 0.0.0.0:1, where resource \"orders-db\" listens, are one port")],
        ),
        (plain("127.0.0.1:1"), plain("[::]:1"), &[(15, "are one port")]),
        (
            plain("127.0.0.1:1"),
            named("127.0.0.1:2", "other.example"),
            &[(16, "server.pem is only valid for: localhost, orders.example, wages.example")],
        ),
    ];
    for (first, second, expected) in cases {
        folder.expect(&two(&first, &second), expected);
    }
    folder.expect(
        &format!("{TOP}{}", RESOURCE.replace("\"127.0.0.1:6432\"", "[\"127.0.0.1:1\", \"0.0.0.0:1\"]")),
        &[(8, "listen: 0.0.0.0:1 and 127.0.0.1:1 are one port")],
    );
    folder.expect(
        &two("listen = \"127.0.0.1:1\"", "listen = \"127.0.0.1:2\"").replace("wages-db", "orders-db"),
        &[(13, "another resource has this name")],
    );
    folder.expect(
        &format!("{TOP}{}", RESOURCE.replace("db.example", "localhost:6432")),
        &[(9, "upstream localhost:6432 is where the gateway itself listens for \"orders-db\"")],
    );
}

#[test]
fn a_connection_reaches_the_resource_that_it_names() {
    let folder = Folder::new();
    let named = |resource: &str, name: &str| {
        RESOURCE.replace("orders-db", resource) + &format!("server_name = [\"{name}.example\"]\n")
    };
    let apart = RESOURCE.replace("orders-db", "apart").replace("6432", "7432");
    // Where the system chooses the ports, no two listeners are the same.
    let chosen = RESOURCE.replace("6432", "0");
    let chosen = format!("{TOP}{chosen}{}", chosen.replace("orders-db", "wages-db"));
    assert_eq!(folder.config(&chosen).listeners().len(), 2);
    let config =
        folder.config(&format!("{TOP}{}{}{apart}", named("orders-db", "orders"), named("wages-db", "wages")));
    let [shared, own] = &config.listeners()[..] else { panic!("{:?}", config.listeners()) };
    assert_eq!((&shared.resources[..], &own.resources[..]), (&[0, 1][..], &[2][..]));
    let reached = |listener, name| config.reached(listener, name).map(|resource| resource.name.as_str());
    assert_eq!(reached(shared, Some("orders.example")), Some("orders-db"));
    assert_eq!(reached(shared, Some("WAGES.example.")), Some("wages-db"));
    assert_eq!(reached(shared, Some("other.example")), None);
    assert_eq!(reached(shared, None), None);
    assert_eq!(reached(own, Some("other.example")), Some("apart"));
    assert_eq!(reached(own, None), Some("apart"));
}

#[test]
fn tokens_travel_in_clear_on_loopback_only() {
    let folder = Folder::new();
    let clear = |listen: &str| {
        let resource = RESOURCE.replace("\"127.0.0.1:6432\"", listen);
        format!("[ledger]\npath = \"ledger\"\norigin = \"o\"\n{resource}danger_cleartext_loopback = true\n")
    };
    let config = folder.config(&clear("[\"127.0.0.1:1\", \"[::1]:1\"]"));
    assert!(config.resources[0].certificate.is_none());
    assert!(tls::ServerTls::new(&config, &config.listeners()[0]).is_ok_and(|tls| tls.is_none()));
    folder.expect(&clear("[\"127.0.0.1:1\", \"10.0.0.1:1\"]"), &[(7, "10.0.0.1:1 is not")]);
    folder.expect(&clear("\"0.0.0.0:1\""), &[(7, "0.0.0.0:1 is not")]);
    let text = clear("\"127.0.0.1:1\"") + "server_name = \"orders.example\"\n";
    folder.expect(&text, &[(12, "exclude each other")]);
    let warned = folder.check(&clear("\"127.0.0.1:1\"")).report;
    assert!(warned.files[0].warnings.iter().any(|warning| warning.line == 11), "{warned}");
}

#[test]
fn rules_without_effect_are_refused() {
    let folder = Folder::new();
    let tls = |tls: &str| format!("{TOP}{RESOURCE}tls = {tls}\n");
    folder.expect(
        &tls("{ danger_disable = true, ca = \"ca.pem\" }"),
        &[(12, "danger_disable leaves ca and server_name without effect")],
    );
    folder.expect(&tls("{ ca = \"server.key\" }"), &[(12, "ca: server.key: it holds no certificate in PEM")]);
    folder.expect(&tls("{ ca = \"none.pem\" }"), &[(12, "ca: cannot read none.pem")]);
    folder.expect(&tls("{ server_name = \"a b\" }"), &[(12, "\"a b\" is no host name and no address")]);
    folder.expect(&tls("{ certificate = \"x\" }"), &[(12, "what clients are shown stands in certificate")]);
    folder.expect(
        &format!("{TOP}{ISSUER}danger_http = true\n"),
        &[(9, "danger_http does nothing here: url begins with https://")],
    );
    folder.expect(
        &format!("{TOP}[limits]\nlogins_max = 5\nlogins_per_source_max = 6\n"),
        &[(7, "logins_per_source_max (6) is more than logins_max (5)")],
    );
}

#[test]
fn an_upstream_is_a_place_and_no_login() {
    let folder = Folder::new();
    let upstream = |upstream: &str| format!("{TOP}{}", RESOURCE.replace("db.example", upstream));
    for (written, host, port) in [
        ("db", "db", 5432),
        ("10.0.4.17:6000", "10.0.4.17", 6000),
        ("[::1]", "::1", 5432),
        ("[fe80::1]:1", "fe80::1", 1),
    ] {
        let config = folder.config(&upstream(written));
        assert_eq!(config.resources[0].upstream, HostPort { host: host.into(), port });
    }
    for login in ["app:canary@db:5432", "postgres://app:canary@db/orders", "host=db password=canary"] {
        folder.expect(&upstream(login), &[(9, "upstream takes a host and a port only")]);
        assert!(!folder.check(&upstream(login)).report.to_string().contains("canary"), "{login}");
    }
    for (place, wrong) in [
        ("db:0", "has no port from 1 to 65535"),
        ("db:65536", "has no port from 1 to 65535"),
        ("db:", "has no port from 1 to 65535"),
        ("db:05432", "has no port from 1 to 65535"),
        ("::1", "must hold its IPv6 address in brackets"),
        ("[::1]5432", "has something behind its bracket"),
        ("[10.0.0.1]:1", "holds no host name and no address"),
        ("a b:1", "holds no host name and no address"),
        (":5432", "holds no host name and no address"),
    ] {
        folder.expect(&upstream(place), &[(9, wrong)]);
    }
}

#[test]
fn issuers_are_told_apart_and_reached_safely() {
    let folder = Folder::new();
    let url = |url: &str| format!("{TOP}{}", ISSUER.replace("https://idp.example", url));
    for good in ["https://idp.example:8443/realms/a", "https://[::1]:8443", "https://10.1.2.3/"] {
        folder.expect(&url(good), &[]);
    }
    for (bad, wrong) in [
        ("http://idp.example", "must begin with https://"),
        ("http://127.0.0.1", "danger_http = true allows http:// on loopback"),
        ("ftp://idp.example", "must begin with https://"),
        ("https://a:canary@idp.example", "must hold no user and no password"),
        ("https://idp.example/?canary=1", "must hold no query"),
        ("https://idp.example:0", "has no port from 1 to 65535"),
        ("https://", "holds no host name"),
        ("https://::1", "in brackets"),
    ] {
        folder.expect(&url(bad), &[(7, wrong)]);
    }
    folder.expect(
        &(url("http://idp.example") + "danger_http = true\n"),
        &[(7, "may begin with http:// only where its host is loopback")],
    );
    folder.expect(
        &format!("{TOP}{ISSUER}{ISSUER}"),
        &[(10, "another issuer has this name"), (11, "another issuer has the url https://idp.example")],
    );
    for (template, wrong) in [
        ("ci/{sub}", "the template does not use {project}"),
        ("ci", "the template does not use {project}"),
        ("{project", "a brace is not closed"),
        ("}{project}", "a brace is not closed"),
        ("{project}{}", "or empty"),
    ] {
        let text = format!("{TOP}{ISSUER}groups = {{ project = \"{template}\" }}\n");
        folder.expect(&text, &[(9, wrong)]);
    }
}

#[test]
fn the_ledgers_keys_and_copies_stay_out_of_it() {
    let folder = Folder::new();
    let ledger = |more: &str| format!("[ledger]\npath = \"ledger\"\norigin = \"o\"\n{more}\n");
    folder.expect(&ledger("keys = \"x/../ledger/keys\""), &[(4, "keys must not lie inside path")]);
    folder.expect(&ledger("archive = \"./ledger/cold\""), &[(4, "archive must not lie inside path")]);
    folder.expect(&ledger("keep_bytes = \"1GiB\""), &[(4, "keep_bytes does nothing without archive")]);
    folder.expect(
        &ledger("checkpoint_copies = [\n\"none/copy\",\n\"ledger/copy\",\n\"policies\"]"),
        &[
            (5, "the folder of none/copy does not exist"),
            (6, "ledger/copy lies inside the ledger"),
            (7, "policies is a folder; name a file in it"),
        ],
    );
    std::os::unix::fs::symlink(folder.path("ledger"), folder.path("link")).expect("a link");
    std::fs::create_dir(folder.path("ledger")).expect("the ledger");
    folder.expect(&ledger("keys = \"link/keys\""), &[(4, "keys must not lie inside path")]);
    std::fs::create_dir(folder.path("open")).expect("a folder");
    std::fs::set_permissions(folder.path("open"), Permissions::from_mode(0o750)).expect("its mode");
    folder.expect(
        &ledger("keys = \"open\""),
        &[(4, "keys: open is open to others than its owner (mode 0750); make it 0700")],
    );
    folder
        .expect(&ledger("").replace("\"ledger\"", "\"password\""), &[(2, "path: password is not a folder")]);
}

#[test]
fn files_that_cannot_serve_are_mistakes() {
    let folder = Folder::new();
    let text = format!("{TOP}{RESOURCE}");
    folder.expect(&text, &[]);
    let mode = |name: &str, mode| std::fs::set_permissions(folder.path(name), Permissions::from_mode(mode));
    for (bits, wrong) in [
        (0o640, "password: password is readable by group (mode 0640); make it 0600"),
        (0o604, "readable by everyone (mode 0604)"),
        (0o602, "writable by everyone"),
        (0o620, "open to others than its owner"),
    ] {
        mode("password", bits).expect("a mode");
        folder.expect(&text, &[(11, wrong)]);
    }
    mode("password", 0o400).expect("a mode");
    folder.expect(&text, &[]);
    mode("server.key", 0o640).expect("a mode");
    folder.expect(&text, &[(1, "certificate: server.key is readable by group (mode 0640); make it 0600")]);
    std::fs::remove_file(folder.path("server.key")).expect("no key");
    std::fs::copy(folder.path("ca.key"), folder.path("server.key")).expect("another key");
    folder.expect(&text, &[(1, "the key server.key does not belong to the certificate server.pem")]);
    folder.expect(&text.replace("server.pem", "none.pem"), &[(1, "cannot read none.pem")]);
    folder
        .expect(&text.replace("server.pem", "password"), &[(1, "password: it holds no certificate in PEM")]);
    std::fs::remove_dir(folder.path("policies")).expect("no policies");
    let found = folder.mistakes(&text);
    assert!(found.iter().any(|(_, text)| text == "policies: policies is not a folder"), "{found:?}");
}

#[test]
fn a_certificate_out_of_its_time_is_a_mistake_and_a_late_one_a_warning() {
    let folder = Folder::new();
    let now = OffsetDateTime::now_utc();
    let authority = Authority::read(&folder.path("ca.pem"), &folder.path("ca.key")).expect("the authority");
    let reissue =
        |at| authority.issue(&["localhost".into()], at).and_then(|issued| issued.replace(folder.0.path()));
    reissue(now - crate::pki::SERVER_VALIDITY - time::Duration::days(1)).expect("an old one");
    folder.expect(TOP, &[(1, "certificate: server.pem has expired")]);
    reissue(now + time::Duration::days(2)).expect("an early one");
    folder.expect(TOP, &[(1, "certificate: server.pem is not valid yet")]);
    reissue(now - crate::pki::SERVER_VALIDITY + time::Duration::days(5)).expect("a late one");
    let report = folder.check(TOP).report;
    assert!(report.is_clean(), "{report}");
    assert!(report.to_string().contains("warning: certificate: server.pem expires in"), "{report}");
}

#[test]
fn a_secret_is_a_reference_of_one_kind() {
    let folder = Folder::new();
    let password = |password: &str| format!("{TOP}{}", RESOURCE.replace("{ file = \"password\" }", password));
    for (written, wrong) in [
        ("\"canary\"", "must not stand in this file"),
        ("5", "takes a reference"),
        ("{}", "takes exactly one of env, file and command"),
        ("{ env = \"A\", file = \"password\" }", "takes exactly one of env, file and command"),
        ("{ fil = \"password\" }", "unknown kind of reference \"fil\" (did you mean \"file\"?)"),
        ("{ env = 5 }", "env takes a string"),
        ("{ env = \"not a name: canary\" }", "env takes the name of an environment variable"),
        (
            "{ env = \"GATEBOOK_TEST_IS_NOT_SET\" }",
            "environment variable GATEBOOK_TEST_IS_NOT_SET is not set",
        ),
        ("{ file = \"none\" }", "cannot read none: no such file or directory"),
        ("{ file = \"policies\" }", "policies is not a regular file"),
        ("{ command = \"cat\" }", "command takes a list of strings"),
        ("{ command = [] }", "command must name a program"),
        ("{ command = [\"sh\", \"-c\", \"canary\"] }", "command must name its program by the whole path (/"),
        ("{ command = [\"/none/x\"] }", "cannot run /none/x"),
    ] {
        let text = password(written);
        folder.expect(&text, &[(11, wrong)]);
        assert!(!folder.check(&text).report.to_string().contains("canary"), "{written}");
    }
    folder.expect(&password("{ command = [\"/bin/sh\", \"-c\", \"echo x\"] }"), &[]);
    folder.expect(&password("{ env = \"PATH\" }"), &[]);
}

#[test]
fn the_recorded_text_tells_no_secret_and_keeps_its_lines() {
    let folder = Folder::new();
    let command = "{ command = [\"/bin/sh\", \"-c\", \"echo canary\"] }";
    let resource = RESOURCE.replace("{ file = \"password\" }", command);
    let text = format!(
        "# old password: canary\n{TOP}{resource}# password = \"canary\"\nlogin = \"password\" # canary\n"
    );
    let config = folder.config(&text);
    let redacted = config.redacted_text();
    assert!(!redacted.contains("canary") && !format!("{config:?}").contains("canary"), "{redacted}");
    assert!(redacted.contains("command = [\"/bin/sh\", \"…\", \"…\"]"), "{redacted}");
    assert_eq!(redacted.lines().count(), text.lines().count());
    assert_eq!(redacted.lines().nth(5), Some("[[resource]]"));
    // A hash sign within a string is no comment.
    let config = folder.config(&format!("{TOP}{}", RESOURCE.replace("\"orders\"", "\"orders#1\"")));
    assert!(config.redacted_text().contains("databases = [\"orders#1\"]"));
}

#[test]
fn later_mistakes_find_their_line() {
    let (_folder, config) = full();
    let line = |path: &str| config.line(path);
    let written = |text: &str| 1 + FULL[..FULL.find(text).expect("the text")].matches('\n').count();
    assert_eq!(line("resource.0.databases.1"), written("databases = [\"orders\", \"archive\"]"));
    assert_eq!(line("resource.1"), written("[[resource]]\nname = \"wages-db\""));
    assert_eq!(line("resource.1.login"), line("resource.1"));
    assert_eq!(line("identity.issuer.0.url"), written("url = \"http://127.0.0.1"));
    assert_eq!(line("nothing.like.it"), 0);
}

#[test]
fn a_file_that_others_can_write_or_that_is_too_large_is_not_read() {
    let folder = Folder::new();
    let file = folder.path(CONFIG_FILE);
    folder.expect(TOP, &[]);
    std::fs::set_permissions(&file, Permissions::from_mode(0o646)).expect("a mode");
    assert!(check(&file).report.to_string().contains("it is writable by everyone (mode 0646)"));
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("a mode");
    let most = usize::try_from(CONFIG_BYTES_MAX).expect("a size");
    folder.expect(&"#".repeat(most + 1), &[(0, "it has more than 1048576 bytes")]);
    assert!(check(&folder.path("none.toml")).report.to_string().contains("cannot read it"));
    assert!(check(folder.0.path()).report.to_string().contains("it is not a regular file"));
    std::fs::write(&file, [b'a', 0xff]).expect("bytes");
    assert!(check(&file).report.to_string().contains("it is not UTF-8 text"));
}

/// `GATEBOOK_BLESS=1` writes the reference anew.
#[test]
fn the_reference_is_the_table_of_keys() {
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md"));
    if std::env::var_os("GATEBOOK_BLESS").is_some() {
        std::fs::write(&file, reference()).expect("the reference");
    }
    let written = std::fs::read_to_string(&file).expect("the reference");
    assert!(
        written == reference(),
        "docs/configuration.md is not what the keys say; run with GATEBOOK_BLESS=1"
    );
}

#[test]
fn the_references_example_is_valid_but_for_files_that_are_not_there() {
    let folder = Folder::new();
    let text = reference();
    let (_, example) = text.split_once("```toml\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    for (line, text) in folder.mistakes(example) {
        let about_files =
            ["cannot read ", "does not exist", "is not set"].iter().any(|part| text.contains(part));
        assert!(about_files, "{line} {text}");
    }
}

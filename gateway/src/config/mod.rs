//! The configuration: one TOML file, read once into plain data that is ready to use.
//!
//! It refuses what it does not know and what it could not enforce, and it reports every mistake at once, each with its
//! line. Files that the configuration names (certificates, secrets, folders) are looked at while reading, because
//! a file with the wrong mode is as much a mistake as a wrong word.
//!
//! What a newcomer gets wrong: a [`Config`] exists only when there was no mistake at all; there is no way to a half of one.

mod admin;
mod keys;
mod mask;
mod read;
mod reference;
mod report;
mod secret;
mod table;
mod text;
pub mod tls;
mod units;
mod webhook;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gatebook_wire::detect::Classes;
use gatebook_wire::sql::Sensitive;

pub use mask::MaskedColumn;
pub use reference::reference;
pub(crate) use report::reason;
pub use report::{FileReport, Mistake, Report};
pub use secret::{COMMAND_DEADLINE, COMMAND_OUTPUT_AGE_MAX, SECRET_BYTES_MAX, Secret, SecretError};
pub(crate) use units::duration;

/// The largest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The name of the configuration file where none is given.
pub const CONFIG_FILE: &str = "gatebook.toml";

/// A configuration without mistakes. Every path in it starts at the configuration file's folder.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it came from.
    pub file: PathBuf,
    /// The folder of policies.
    pub policies: PathBuf,
    /// The operator's local socket.
    pub control: PathBuf,
    /// The ledger.
    pub ledger: LedgerConfig,
    /// Who vouches for callers, in the order of the file. No two share a name or a URL.
    pub issuers: Vec<IssuerConfig>,
    /// Which issuers are asked whether their tokens still hold.
    pub introspections: Vec<IntrospectionConfig>,
    /// What is served, in the order of the file. No two share a name.
    pub resources: Vec<Resource>,
    /// The gateway's own HTTPS server; none where it has none.
    pub admin: Option<AdminConfig>,
    /// Who is told of requests for approval, in the order of the file.
    pub webhooks: Vec<WebhookConfig>,
    /// Where numbers are to be had; none for nowhere.
    pub metrics: Option<SocketAddr>,
    /// Who is sent every event. No two share a name.
    pub streams: Vec<StreamConfig>,
    /// How rights are handed down; none where they are not.
    pub delegation: Option<DelegationConfig>,
    /// What one client, or all, may use up.
    pub limits: Limits,
    /// What the operator is told.
    pub log: Log,
    text: String,
    lines: BTreeMap<String, usize>,
}

/// Where the ledger is and how it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerConfig {
    /// Its folder; it may not exist yet.
    pub path: PathBuf,
    /// The folder of its signing keys, outside `path`; it may not exist yet.
    pub keys: PathBuf,
    /// Its name in every signature: a C2SP origin.
    pub origin: String,
    /// How often a checkpoint is published.
    pub checkpoint_interval: Duration,
    /// Where each new checkpoint is copied to, outside `path`.
    pub checkpoint_copies: Vec<PathBuf>,
    /// Where its old segments go, outside `path`; none for nowhere.
    pub archive: Option<PathBuf>,
    /// How many bytes of segments stay in `path` where there is an archive.
    pub keep_bytes: u64,
    /// Where each new checkpoint is sent as a message.
    pub checkpoint_syslog: Option<Syslog>,
    /// What is run with each new checkpoint as its input; empty for nothing.
    pub checkpoint_command: Vec<String>,
    /// How long one key signs, before it is sealed and erased.
    pub epoch: Duration,
    /// How often the gateway verifies its own ledger.
    pub verify_interval: Duration,
    /// Whether new sessions are refused once it does not verify.
    pub refuse_when_tampered: bool,
    /// Who cosigns each new checkpoint. No two share a key.
    pub witnesses: Vec<WitnessConfig>,
    /// Warn below this share of free space, in percent.
    pub free_warn: u8,
    /// Warn louder below this share, less than `free_warn`.
    pub free_alarm: u8,
    /// Refuse new sessions below this share, less than `free_alarm`.
    pub free_refuse: u8,
}

#[cfg(test)]
impl LedgerConfig {
    /// A ledger below this folder that nothing happens to by itself.
    pub(crate) fn for_test(folder: &std::path::Path) -> LedgerConfig {
        let never = Duration::from_secs(3600);
        LedgerConfig {
            path: folder.join("ledger"),
            keys: folder.join("keys"),
            origin: "test.example/ledger".into(),
            checkpoint_interval: never,
            checkpoint_copies: Vec::new(),
            archive: None,
            keep_bytes: 0,
            checkpoint_syslog: None,
            checkpoint_command: Vec::new(),
            epoch: never,
            verify_interval: never,
            refuse_when_tampered: true,
            witnesses: Vec::new(),
            free_warn: 3,
            free_alarm: 2,
            free_refuse: 1,
        }
    }
}

/// Where a syslog daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Syslog {
    /// A datagram socket of this machine.
    Unix(PathBuf),
    /// Host and port, over UDP.
    Udp(String),
}

/// One witness (C2SP tlog-witness).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessConfig {
    /// Where it is; `/add-checkpoint` is added.
    pub url: String,
    /// Its verifier key.
    pub vkey: String,
}

/// One who is told of requests for approval.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// Where it is told.
    pub url: Secret,
    /// What messages are signed with.
    pub secret: Secret,
    /// Whether it is Slack.
    pub slack: bool,
    /// The only authorities that are trusted for it (PEM).
    pub ca: Option<Vec<u8>>,
    /// Whether it may be told in clear, on loopback.
    pub danger_http: bool,
}

/// One OpenID Connect provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// Its short name, the first part of every principal.
    pub name: String,
    /// The issuer as the `iss` claim spells it: `https://…`, or `http://` on loopback where `danger_http` is set.
    pub url: String,
    /// The `aud` of ID tokens; without one they are refused.
    pub audience: Option<String>,
    /// The `aud` of access tokens; without one they are refused.
    pub access_token_audience: Option<String>,
    /// The clients that a token may have been given to; any where there are none.
    pub authorized_parties: Vec<String>,
    /// The claim that lists groups.
    pub groups_claim: Option<String>,
    /// For each claim the template of a group, holding `{claim}` once or more.
    pub groups: BTreeMap<String, String>,
    /// What policy calls the principals.
    pub principal: PrincipalKind,
    /// The PEM text of the only authorities trusted for connections to it.
    pub ca: Option<Vec<u8>>,
    /// Names of the signature algorithms accepted, at least one: `RS256`, …
    pub algorithms: Vec<&'static str>,
    /// The `aud` of its logout tokens; without one they are refused.
    pub logout_audience: Option<String>,
    /// How far its clock may be from ours.
    pub clock_skew: Duration,
    /// How long cached keys serve while it cannot be reached.
    pub keys_max_age: Duration,
    /// Whether `http://` on loopback is accepted.
    pub danger_http: bool,
}

/// How one issuer is asked whether its tokens still hold (RFC 7662).
#[derive(Debug, Clone)]
pub struct IntrospectionConfig {
    /// The issuer's name.
    pub issuer: String,
    /// The client that asks.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// How often each token is asked about.
    pub interval: Duration,
    /// For how long no answer is borne; none: until the token expires.
    pub unanswered_max: Option<Duration>,
}

/// What policy calls a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A machine.
    Service,
}

/// One upstream and the way to it.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Its name, as policy and ledger spell it.
    pub name: String,
    /// The protocol that it speaks.
    pub kind: Kind,
    /// Where clients connect, at least one address.
    pub listen: Vec<SocketAddr>,
    /// The only TLS server names (SNI) under which it is reached, in lower case; empty: any name, or none.
    pub server_names: Vec<String>,
    /// What clients are shown; none only where `danger_cleartext_loopback` lets them do without TLS.
    pub certificate: Option<CertificateFiles>,
    /// The server behind.
    pub upstream: HostPort,
    /// How the upstream is verified.
    pub upstream_tls: UpstreamTls,
    /// The databases that can be reached, at least one.
    pub databases: Vec<String>,
    /// The roles that a session may run as, at least one.
    pub roles: Vec<Role>,
    /// The role that reads the catalog: one of `roles`.
    pub catalog_role: String,
    /// How clients hand over their token.
    pub login: Login,
    /// Whether clients may log in without TLS; every address in `listen` is then loopback.
    pub danger_cleartext_loopback: bool,
    /// What must be on disk before what.
    pub durability: Durability,
    /// Whether commands are decided and recorded, but never refused.
    pub shadow: bool,
    /// The columns that are declared sensitive.
    pub masks: Vec<MaskedColumn>,
    /// Whether what was understood of a command is confirmed before its answer is shown.
    pub confirm_catalog: bool,
    /// What answers are looked through for.
    pub detect: Classes,
    /// How long after login a session ends, in place of the token's expiry.
    pub session_max: Option<Duration>,
    /// How long nothing may pass in either direction.
    pub idle_timeout: Duration,
}

impl Resource {
    /// The role of this name, if it is listed.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == name)
    }

    /// The sensitive columns of a database.
    pub(crate) fn sensitive(&self, database: &str) -> Arc<[Sensitive]> {
        let here = |masked: &&MaskedColumn| {
            masked.databases.is_empty() || masked.databases.iter().any(|name| name == database)
        };
        self.masks.iter().filter(here).map(|masked| masked.column.clone()).collect()
    }
}

/// The protocols that a resource can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL, protocol 3.
    Postgres,
}

/// A PEM chain and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The server's certificate first, then the intermediate ones.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

/// How an upstream's certificate is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Chain and name are verified.
    Verify {
        /// The only authorities trusted; none: the system's.
        ca: Option<PathBuf>,
        /// The name or address that the certificate must be valid for.
        server_name: String,
    },
    /// There is no TLS. The key that says so begins with `danger_`.
    Disabled,
}

/// A role of the upstream.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its password; none where the upstream asks for none.
    pub password: Option<Secret>,
}

/// How clients hand over their token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// In place of a password.
    Password,
    /// SASL OAUTHBEARER, RFC 7628.
    OAuthBearer,
}

/// What must be on disk before an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Every decision.
    Strict,
    /// Decisions about what is proven to only read may reach the disk this much later.
    ReadsWithin(Duration),
}

/// The gateway's own HTTPS server.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How clients reach it, and the issuer of the tokens that the gateway itself makes; without a slash at its end.
    pub url: String,
    /// The `aud` that tokens for it must carry; no issuer's own.
    pub audience: String,
    /// What clients are shown.
    pub certificate: CertificateFiles,
    /// Where people log in who approve in a browser; none where there is no page for them.
    pub login: Option<LoginConfig>,
}

/// How approvers log in to the gateway's own page.
#[derive(Debug, Clone)]
pub struct LoginConfig {
    /// The name of the issuer, one that speaks for people.
    pub issuer: String,
    /// What the gateway is called there.
    pub client_id: String,
    /// What it shows there; none for a client without a secret.
    pub client_secret: Option<Secret>,
    /// What it asks for; `openid` is among it.
    pub scopes: Vec<String>,
    /// How long a session lasts at most.
    pub session_max: Duration,
    /// How long one lasts in which nobody is there.
    pub idle_timeout: Duration,
}

/// One receiver of every event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    /// Its name, which is also its cursor's.
    pub name: String,
    /// Where it is.
    pub to: StreamTo,
    /// How many bytes over TCP must follow what counts as received; as many are sent again to the next connection.
    pub resend: u64,
}

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamTo {
    /// A file, one JSON object a line.
    File(PathBuf),
    /// A datagram socket of this machine, RFC 5424.
    Unix(PathBuf),
    /// Host and port, over UDP, RFC 5424.
    Udp(String),
    /// Host and port, over TCP, RFC 5424 framed as in RFC 6587.
    Tcp(String),
}

/// How rights are handed down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegationConfig {
    /// The folder of the keys that sign tokens; it may not exist yet.
    pub keys: PathBuf,
    /// How long one key signs.
    pub key_age: Duration,
    /// How many levels there may be.
    pub depth_max: u8,
    /// How long one delegation may last.
    pub ttl_max: Duration,
}

/// What one client, or all, may use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once.
    pub connections_max: usize,
    /// Connections at once that have not logged in.
    pub logins_max: usize,
    /// The same for one client address; at most `logins_max`.
    pub logins_per_source_max: usize,
    /// From the first byte to the end of the client's login.
    pub login_deadline: Duration,
    /// Connecting and logging in to an upstream.
    pub connect_deadline: Duration,
    /// Waiting for the ledger's disk.
    pub durable_deadline: Duration,
    /// From the order to stop to the end of the last session; may be zero.
    pub drain_deadline: Duration,
    /// The largest message that must be held whole, in bytes.
    pub message_bytes_max: usize,
}

/// What the operator is told on standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info` or `debug`.
    pub level: &'static str,
    /// Whether each line is a JSON object.
    pub json: bool,
}

/// One address to listen at and what is served there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address; with port 0 the system chooses one, and the listener is no other resource's.
    pub address: SocketAddr,
    /// Places in [`Config::resources`]: one, or several that all have server names.
    pub resources: Vec<usize>,
}

/// What reading a configuration came to.
#[derive(Debug)]
pub struct Check {
    /// What was found; callers that check more (policies, the live upstream) add to it.
    pub report: Report,
    /// The configuration, if there was no mistake.
    pub config: Option<Config>,
}

impl Config {
    /// Reads a configuration that must be without mistakes.
    ///
    /// # Errors
    /// The report, when there are mistakes.
    pub fn load(file: &Path) -> Result<Config, Report> {
        let Check { report, config } = check(file);
        config.ok_or(report)
    }

    /// The addresses to listen at, in the order of the file.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        for (at, resource) in self.resources.iter().enumerate() {
            for address in &resource.listen {
                let shared =
                    listeners.iter_mut().find(|known| known.address == *address && address.port() != 0);
                match shared {
                    Some(listener) => listener.resources.push(at),
                    None => listeners.push(Listener { address: *address, resources: vec![at] }),
                }
            }
        }
        listeners
    }

    /// The resource that a connection to `listener` reaches under this TLS server name, or without one.
    #[must_use]
    pub fn reached(&self, listener: &Listener, server_name: Option<&str>) -> Option<&Resource> {
        let name = server_name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        listener.resources.iter().map(|at| &self.resources[*at]).find(|resource| {
            resource.server_names.is_empty()
                || name.as_ref().is_some_and(|name| resource.server_names.contains(name))
        })
    }

    /// The file's text as the ledger keeps it: without comments, and without the arguments of secret commands.
    /// Lines are those of the file.
    #[must_use]
    pub fn redacted_text(&self) -> &str {
        &self.text
    }

    /// The line of a value, for mistakes that only show later: `resource.0.databases.1`. Where the value was left out
    /// it is the line of the nearest thing around it.
    #[must_use]
    pub fn line(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rsplit_once('.') {
                Some((around, _)) => path = around,
                None => return 0,
            }
        }
    }
}

/// Reads a configuration and says all that is wrong with it.
#[must_use]
pub fn check(file: &Path) -> Check {
    read::check(file)
}

#[cfg(test)]
mod tests;

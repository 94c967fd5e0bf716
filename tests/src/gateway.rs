//! The real gateway: its binary, its configuration file, its ledger, before a real server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::certificates::write_private;
use crate::https::Https;
use crate::issuer::AUDIENCE;
use crate::machine::{self, START_MAX};
use crate::postgres::{
    APP, APP_PASSWORD, CATALOG, CATALOG_PASSWORD, DATABASE, Environment, READER, READER_PASSWORD,
};
use crate::wire::Client;
use crate::{Authority, Child, Issuer, Ledger, Postgres};

/// Where a ledger lies in the machine's own temporary folder, how full that is says nothing about the test.
const SPACE: &str = "free_warn = \"3%\"\nfree_alarm = \"2%\"\nfree_refuse = \"1%\"";

/// Where the gateway's own HTTPS server says it is. Nobody finds it there by asking: a test knows the address.
pub const ADMIN_HOST: &str = "gateway.example";

/// What the gateway calls its own HTTPS server.
pub const ADMIN_URL: &str = "https://gateway.example";

/// The audience of tokens for it.
pub const ADMIN_AUDIENCE: &str = "gatebook-admin";

/// The resource's name.
pub const RESOURCE: &str = "orders-db";

/// Everything is permitted: what remains is that everything is recorded.
pub const PERMIT_ALL: &str = "permit (principal, action, resource);\n";

/// As [`PERMIT_ALL`], but nobody touches the table `wages`, and nothing is dropped.
pub const GUARD_WAGES: &str = "permit (principal, action, resource);\n\
    forbid (principal, action, resource in Table::\"orders-db/orders/public.wages\");\n";

/// How a gateway is to be set up.
pub struct Setup<'a> {
    postgres: &'a Postgres,
    issuer: &'a Issuer,
    policies: String,
    resource: String,
    top: String,
    issuer_lines: String,
    ledger: Option<PathBuf>,
    upstream: Option<SocketAddr>,
    listen: SocketAddr,
    program: &'a str,
    databases: Vec<String>,
    roles: Vec<(String, String)>,
}

/// A gateway: its folder, and the process where one runs. Both end with this value.
pub struct Gateway {
    program: PathBuf,
    process: Child,
    address: SocketAddr,
    folder: TempDir,
    ledger: PathBuf,
    authority: Authority,
}

impl<'a> Setup<'a> {
    /// A gateway before this server that believes this issuer and permits everything.
    #[must_use]
    pub fn new(postgres: &'a Postgres, issuer: &'a Issuer) -> Self {
        Self {
            postgres,
            issuer,
            policies: PERMIT_ALL.to_owned(),
            resource: String::new(),
            top: String::new(),
            issuer_lines: String::new(),
            ledger: None,
            upstream: None,
            listen: ([127, 0, 0, 1], 0).into(),
            program: "gatebook",
            databases: vec![DATABASE.to_owned()],
            roles: [(APP, APP_PASSWORD), (READER, READER_PASSWORD), (CATALOG, CATALOG_PASSWORD)]
                .map(|(role, password)| (role.to_owned(), password.to_owned()))
                .to_vec(),
        }
    }

    /// These policies in place of the permissive one.
    #[must_use]
    pub fn policies(mut self, cedar: &str) -> Self {
        cedar.clone_into(&mut self.policies);
        self
    }

    /// Further lines of the resource's table.
    #[must_use]
    pub fn resource(mut self, lines: &str) -> Self {
        self.resource += lines;
        self.resource.push('\n');
        self
    }

    /// Further lines of the issuer's table.
    #[must_use]
    pub fn issuer(mut self, lines: &str) -> Self {
        self.issuer_lines += lines;
        self.issuer_lines.push('\n');
        self
    }

    /// With the gateway's own HTTPS server ([`Gateway::admin`]), and these further lines of its table.
    #[must_use]
    pub fn admin(self, lines: &str) -> Self {
        self.top(&format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\nurl = \"{ADMIN_URL}\"\naudience = \"{ADMIN_AUDIENCE}\"\n{lines}"
        ))
    }

    /// Further tables (`[limits]`, `[log]`).
    #[must_use]
    pub fn top(mut self, lines: &str) -> Self {
        self.top += lines;
        self.top.push('\n');
        self
    }

    /// The ledger in this folder, which is made by the gateway.
    #[must_use]
    pub fn ledger(mut self, folder: &Path) -> Self {
        self.ledger = Some(folder.to_owned());
        self
    }

    /// Another upstream than the server: something that stands in its way.
    #[must_use]
    pub fn upstream(mut self, address: SocketAddr) -> Self {
        self.upstream = Some(address);
        self
    }

    /// Another program of this build, that serves in its place.
    #[must_use]
    pub fn program(mut self, name: &'a str) -> Self {
        self.program = name;
        self
    }

    /// Where it listens, in place of any free port, so that another resource can listen there too.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Further databases of the server's.
    #[must_use]
    pub fn databases(mut self, names: &[&str]) -> Self {
        self.databases.extend(names.iter().map(ToString::to_string));
        self
    }

    /// A further role of the server's.
    #[must_use]
    pub fn role(mut self, name: &str, password: &str) -> Self {
        self.roles.push((name.to_owned(), password.to_owned()));
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it does not come up; the message holds what it said.
    #[must_use]
    pub fn start(self) -> Gateway {
        let folder = machine::temporary();
        let at = |name: &str| folder.path().join(name);
        let ledger = self.ledger.clone().unwrap_or_else(|| at("ledger"));
        let authority = Authority::new();
        std::fs::write(at("ca.crt"), authority.pem()).expect("the folder can be written");
        authority.issue(&["localhost", "127.0.0.1", ADMIN_HOST]).write(folder.path(), "server");
        self.issuer.write_authority(&at("issuer-ca.crt"));
        std::fs::copy(self.postgres.authority_file(), at("upstream-ca.crt"))
            .expect("the folder can be written");
        std::fs::create_dir(at("policies")).expect("the folder can be written");
        std::fs::write(at("policies/test.cedar"), &self.policies).expect("the folder can be written");
        for (role, password) in &self.roles {
            write_private(&at(&format!("{role}.password")), password);
        }
        std::fs::write(at("gatebook.toml"), self.configuration(&ledger)).expect("the folder can be written");
        let program = machine::binary(self.program);
        let (process, address) = serve(&program, folder.path());
        Gateway { program, process, address, folder, ledger, authority }
    }

    fn configuration(&self, ledger: &Path) -> String {
        let upstream = self.upstream.unwrap_or(self.postgres.address());
        let roles: Vec<String> = self
            .roles
            .iter()
            .map(|(role, _)| format!("{{ name = \"{role}\", password = {{ file = \"{role}.password\" }} }}"))
            .collect();
        format!(
            r#"policies = "policies"
certificate = {{ chain = "server.crt", key = "server.key" }}

[ledger]
path = "{ledger}"
origin = "test.gatebook.example/ledger"
{space}

[[identity.issuer]]
name = "idp"
url = "{issuer}"
audience = "{AUDIENCE}"
groups_claim = "groups"
ca = "issuer-ca.crt"
{issuer_lines}
[[resource]]
name = "{RESOURCE}"
kind = "postgres"
listen = "{listen}"
upstream = "localhost:{port}"
tls = {{ ca = "upstream-ca.crt" }}
databases = {databases:?}
roles = [{roles}]
catalog_role = "{CATALOG}"
{resource}
{top}"#,
            ledger = ledger.display(),
            space = if self.ledger.is_some() { "" } else { SPACE },
            issuer = self.issuer.url(),
            port = upstream.port(),
            listen = self.listen,
            databases = self.databases,
            roles = roles.join(", "),
            resource = self.resource,
            issuer_lines = self.issuer_lines,
            top = self.top,
        )
    }
}

/// Starts the binary in a folder and waits until it serves.
fn serve(program: &Path, folder: &Path) -> (Child, SocketAddr) {
    let mut command = machine::mortal(program);
    command.arg("serve").arg("--config").arg(folder.join("gatebook.toml")).env("NO_COLOR", "1");
    let process = Child::start("gatebook", command);
    let address = process.line_from(0, "listening on", START_MAX, |line| {
        let after = line.split_once("listening on ")?.1;
        after.split(|c: char| c.is_whitespace() || c == ',').find_map(|word| word.parse().ok())
    });
    (process, address)
}

impl Gateway {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its own HTTPS server.
    ///
    /// # Panics
    /// When it was not set up with one.
    #[must_use]
    pub fn admin(&self) -> Https {
        let address = self.process.line_from(0, "admin: listening on", START_MAX, |line| {
            line.strip_prefix("admin: listening on ")?.parse().ok()
        });
        Https::new(address, self.tls())
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What a client needs that trusts its certificate.
    #[must_use]
    pub fn tls(&self) -> rustls::ClientConfig {
        self.authority.client()
    }

    /// How a client reaches the application's database through it.
    #[must_use]
    pub fn environment(&self, token: &str) -> Environment {
        Environment {
            port: self.address.port(),
            user: APP.to_owned(),
            password: token.to_owned(),
            database: DATABASE.to_owned(),
            authority: self.folder.path().join("ca.crt"),
        }
    }

    /// A connection that is logged in as the application's role.
    ///
    /// # Panics
    /// When the token is refused.
    #[must_use]
    pub fn login(&self, token: &str) -> Client {
        let mut client = Client::tls(self.address, self.tls());
        client
            .login(APP, DATABASE, token)
            .unwrap_or_else(|refused| panic!("the login is refused: {refused:?}"));
        client
    }

    /// The text of its configuration.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn configuration(&self) -> String {
        std::fs::read_to_string(self.folder().join("gatebook.toml")).expect("the configuration is there")
    }

    /// Its folder, with the configuration and the policies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its ledger.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger::new(&self.ledger)
    }

    /// The process, for its lines and its end.
    pub fn process(&mut self) -> &mut Child {
        &mut self.process
    }

    /// The process, for its lines alone.
    #[must_use]
    pub fn process_ref(&self) -> &Child {
        &self.process
    }

    /// An operator's command, such as `revoke`, with this gateway's configuration.
    #[must_use]
    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(machine::binary("gatebook"));
        command.arg(verb).arg("--config").arg(self.folder.path().join("gatebook.toml")).env("NO_COLOR", "1");
        command
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait(START_MAX)
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again over the same folder, at another port.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self) {
        self.process.kill();
        (self.process, self.address) = serve(&self.program, self.folder.path());
    }
}

//! The ways from a client to the server that are compared.

use std::path::{Path, PathBuf};

use gatebook_tests::gateway::Setup;
use gatebook_tests::machine::{self, START_MAX};
use gatebook_tests::postgres::{APP, APP_PASSWORD, Environment};
use gatebook_tests::{Child, Gateway, Issuer, Postgres};
use tempfile::TempDir;

/// What the gateway decides by: a team's set, with a rule that guards a table, not one rule that permits everything.
const POLICIES: &str = r#"
permit (principal in Group::"developers", action == Action::"login", resource in Resource::"orders-db");
permit (principal in Group::"developers", action in [Action::"read", Action::"write"], resource in Database::"orders-db/orders");
permit (principal in Group::"dba", action, resource in Resource::"orders-db");
permit (principal in Group::"auditors", action in Action::"read", resource in Database::"orders-db/orders");
forbid (principal, action, resource in Table::"orders-db/orders/public.wages") unless { principal in Group::"payroll" };
"#;

/// The server behind all lanes, and what it holds.
pub(crate) struct Upstream<'a> {
    /// The server.
    pub(crate) postgres: &'a Postgres,
    /// pgbench's scale.
    pub(crate) scale: u32,
    /// The size of the table that is copied, in megabytes.
    pub(crate) copy_mb: u32,
}

/// One way to the server.
pub(crate) struct Lane {
    /// Its name in the figures.
    pub(crate) via: &'static str,
    kind: Kind,
}

enum Kind {
    Direct,
    Through {
        server: Box<Child>,
        port: u16,
        authority: PathBuf,
        _folder: TempDir,
    },
    /// Started afresh for each run, with its ledger in a folder of this one.
    Gatebook {
        program: &'static str,
        ledgers: PathBuf,
        kind: &'static str,
        issuer: Box<Issuer>,
    },
}

/// A lane in use for one run.
pub(crate) struct Running {
    /// How its client reaches it.
    pub(crate) environment: Environment,
    /// The process in the middle.
    pub(crate) process: Option<u32>,
    /// With its ledger's folder, and whether that is a ledger.
    gateway: Option<(Gateway, TempDir, bool)>,
}

/// What a gateway's ledger says about one run.
pub(crate) struct Recorded {
    /// Executions in it.
    pub(crate) executions: u64,
    /// Why it does not verify, when it does not.
    pub(crate) broken: Option<String>,
}

impl Lane {
    /// Starts what stands between client and server.
    pub(crate) fn start(name: &str, postgres: &Postgres) -> Result<Vec<Self>, String> {
        match name {
            "direct" => Ok(vec![Self { via: "direct", kind: Kind::Direct }]),
            "haproxy" => Ok(vec![haproxy(postgres)]),
            "pgbouncer" => Ok(vec![pgbouncer(postgres)]),
            "gatebook" => Ok(gatebook()),
            "unsealed" => Ok(vec![unsealed()]),
            _ => Err(format!("no lane is called {name}")),
        }
    }

    /// Where this lane's ledger lies: none where there is no ledger.
    pub(crate) fn ledger(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Gatebook { kind, .. } => Some(kind),
            _ => None,
        }
    }

    /// Makes it ready for one run.
    pub(crate) fn open(&self, postgres: &Postgres) -> Running {
        let mut environment = postgres.environment(APP, APP_PASSWORD);
        let mut gateway = None;
        let process = match &self.kind {
            Kind::Direct => None,
            Kind::Gatebook { program, ledgers, issuer, .. } => {
                let folder = tempfile::Builder::new().prefix("gatebook-bench-").tempdir_in(ledgers);
                let folder = folder.expect("the ledger's folder can be written");
                let setup = Setup::new(postgres, issuer).policies(POLICIES).program(program);
                let started =
                    setup.ledger(&folder.path().join("ledger")).top("[log]\nlevel = \"warn\"").start();
                environment = started.environment(&issuer.token("bench", &["developers"]));
                let process = started.id();
                gateway = Some((started, folder, self.via != "unsealed"));
                Some(process)
            }
            Kind::Through { server, port, authority, .. } => {
                environment.port = *port;
                environment.authority.clone_from(authority);
                Some(server.id())
            }
        };
        Running { environment, process, gateway }
    }
}

impl Running {
    /// Ends the run. A gateway is stopped, and its ledger verified and counted.
    pub(crate) fn close(self) -> Option<Recorded> {
        let (mut gateway, _folder, sealed) = self.gateway?;
        let stopped = gateway.stop();
        if !sealed {
            return None;
        }
        let ledger = gateway.ledger();
        let verdict = ledger.verify();
        let broken = if !stopped.success() {
            Some(format!("the gateway stopped with {stopped}"))
        } else if verdict.is_sound() {
            None
        } else {
            Some(format!("the ledger does not verify: {}", verdict.said))
        };
        Some(Recorded { executions: ledger.executions(), broken })
    }
}

/// The gateway, once with its ledger in memory and once on a disk.
fn gatebook() -> Vec<Lane> {
    let memory = PathBuf::from("/dev/shm");
    let places = [(memory, "tmpfs"), (machine::cache(), "disk")];
    let there = places.into_iter().filter(|(folder, _)| folder.is_dir());
    let lane = |(ledgers, kind)| Lane {
        via: "gatebook",
        kind: Kind::Gatebook { program: "gatebook", ledgers, kind, issuer: Box::new(Issuer::start()) },
    };
    there.map(lane).collect()
}

/// The same gateway, built so that it writes and syncs as many bytes and neither hashes nor signs them: what a ledger costs at the
/// least. What it writes is no ledger, so nothing is counted or verified there.
fn unsealed() -> Lane {
    let (program, ledgers, issuer) = ("gatebook-unsealed", machine::cache(), Box::new(Issuer::start()));
    Lane { via: "unsealed", kind: Kind::Gatebook { program, ledgers, kind: "disk", issuer } }
}

/// TLS passed through: the floor of what any program in the middle costs.
fn haproxy(postgres: &Postgres) -> Lane {
    let folder = machine::temporary();
    let port = machine::free_port();
    let conf = folder.path().join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 4000\n  nbthread 2\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1h\n  \
         timeout server 1h\nfrontend clients\n  bind 127.0.0.1:{port}\n  default_backend upstream\nbackend upstream\n  \
         server postgres {}\n",
        postgres.address()
    );
    std::fs::write(&conf, text).expect("the folder can be written");
    let mut command = machine::mortal(&machine::program("haproxy"));
    command.arg("-db").arg("-f").arg(&conf);
    let server = Child::start("haproxy", command);
    listening(port);
    let authority = postgres.authority_file();
    Lane {
        via: "haproxy",
        kind: Kind::Through { server: Box::new(server), port, authority, _folder: folder },
    }
}

/// Session pooling, TLS towards both sides, as the gateway has it.
fn pgbouncer(postgres: &Postgres) -> Lane {
    let folder = machine::temporary();
    let port = machine::free_port();
    let at = |name: &str| folder.path().join(name);
    postgres.authority().issue(&["localhost", "127.0.0.1"]).write(folder.path(), "server");
    std::fs::write(at("users.txt"), format!("\"{APP}\" \"{APP_PASSWORD}\"\n"))
        .expect("the folder can be written");
    std::fs::copy(postgres.authority_file(), at("ca.crt")).expect("the folder can be written");
    let shown = |path: &Path| path.display().to_string();
    let text = format!(
        "[databases]\n* = host=localhost port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = session\ndefault_pool_size = 1100\n\
         max_client_conn = 4000\nclient_tls_sslmode = require\nclient_tls_key_file = {}\nclient_tls_cert_file = {}\n\
         server_tls_sslmode = verify-full\nserver_tls_ca_file = {}\nlog_connections = 0\nlog_disconnections = 0\n",
        postgres.address().port(),
        shown(&at("users.txt")),
        shown(&at("server.key")),
        shown(&at("server.crt")),
        shown(&at("ca.crt")),
    );
    std::fs::write(at("pgbouncer.ini"), text).expect("the folder can be written");
    machine::give_to_server_user(folder.path());
    let mut command = machine::as_server_user(&machine::program("pgbouncer"));
    command.arg(at("pgbouncer.ini"));
    let server = Child::start("pgbouncer", command);
    listening(port);
    let authority = at("ca.crt");
    Lane {
        via: "pgbouncer",
        kind: Kind::Through { server: Box::new(server), port, authority, _folder: folder },
    }
}

fn listening(port: u16) {
    machine::until("listener", START_MAX, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
}

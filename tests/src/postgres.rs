//! A real PostgreSQL server of its own for each test: own authority, TLS, SCRAM, its own data.
//!
//! A prepared data folder is made once and kept in the cache; a test copies it, which takes a fraction of the time of
//! `initdb`. The server's own statement log is the tests' second witness: what it says was executed is
//! compared with what the ledger says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::machine::{self, START_MAX};
use crate::{Authority, Child};

/// The password of the superuser `postgres`.
pub const ADMIN_PASSWORD: &str = "admin-pw-4f1c";
/// The password of [`APP`].
pub const APP_PASSWORD: &str = "app-rw-pw-9d27";
/// The password of [`READER`].
pub const READER_PASSWORD: &str = "app-ro-pw-51b3";
/// The password of [`CATALOG`].
pub const CATALOG_PASSWORD: &str = "catalog-pw-77e0";
/// The role that owns the application's tables.
pub const APP: &str = "app_rw";
/// A role that may only read them.
pub const READER: &str = "app_ro";
/// The role over which a gateway reads the catalog.
pub const CATALOG: &str = "gatebook_catalog";
/// The application's database.
pub const DATABASE: &str = "orders";

/// What the prepared data folder holds; one statement a line. A change of it makes a new folder.
fn cluster_sql() -> String {
    format!(
        "CREATE ROLE {APP} LOGIN PASSWORD '{APP_PASSWORD}';\n\
         CREATE ROLE {READER} LOGIN PASSWORD '{READER_PASSWORD}';\n\
         CREATE ROLE {CATALOG} LOGIN PASSWORD '{CATALOG_PASSWORD}';\n\
         CREATE DATABASE {DATABASE} OWNER {APP};\n"
    )
}

/// The application's tables: some that anybody may see, one (`wages`) that policies guard.
fn database_sql() -> String {
    format!(
        "ALTER SCHEMA public OWNER TO {APP};\n\
         SET SESSION AUTHORIZATION {APP};\n\
         CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, email text NOT NULL);\n\
         CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers, state text NOT NULL DEFAULT 'open', total numeric(10,2) NOT NULL);\n\
         CREATE TABLE wages (id int PRIMARY KEY, person text NOT NULL, amount numeric(10,2) NOT NULL);\n\
         CREATE TABLE notes (id serial PRIMARY KEY, body text, raw bytea, at timestamptz NOT NULL DEFAULT '2026-01-01 00:00:00+00');\n\
         CREATE TABLE journal (id bigint PRIMARY KEY, worker int, body text);\n\
         CREATE TABLE driver_script (id int PRIMARY KEY, body text, amount numeric(10,2));\n\
         INSERT INTO customers SELECT i, 'customer ' || i, 'c' || i || '@example.test' FROM generate_series(1, 20) i;\n\
         INSERT INTO orders SELECT i, 1 + i % 20, 'open', i * 1.5 FROM generate_series(1, 100) i;\n\
         INSERT INTO wages SELECT i, 'person ' || i, 1000 + i FROM generate_series(1, 5) i;\n\
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER};\n"
    )
}

/// A running server. It ends with this value.
pub struct Postgres {
    server: Child,
    address: SocketAddr,
    folder: TempDir,
    authority: Authority,
}

/// One execution, as the server's log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// The backend's process number: one connection.
    pub backend: u32,
    /// The role that was logged in.
    pub role: String,
    /// The statement's text; for a simple query the whole string.
    pub text: String,
    /// The parameters in the server's spelling (`$1 = '4', $2 = NULL`).
    pub parameters: Option<String>,
    /// Whether it continued a portal that was suspended before.
    pub continued: bool,
}

impl Postgres {
    /// Starts a server.
    ///
    /// # Panics
    /// When it does not come up; the message holds what it said.
    #[must_use]
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts a server that logs each execution, for [`Postgres::executed`].
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[must_use]
    pub fn logging() -> Self {
        Self::with("log_statement = all\nlog_parameter_max_length = -1\nlog_connections = on\n")
    }

    /// Starts a server with further lines of `postgresql.conf`.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[must_use]
    pub fn with(settings: &str) -> Self {
        let template = template();
        let folder = machine::temporary();
        let data = folder.path().join("data");
        machine::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&template).arg(&data));
        let authority = Authority::new();
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).expect("the folder can be written");
        authority.issue(&["localhost", "127.0.0.1"]).write(&data, "server");
        let port = machine::free_port();
        let conf = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n\
             ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n\
             password_encryption = scram-sha-256\nmax_connections = 200\nshared_buffers = 64MB\n\
             fsync = off\nfull_page_writes = off\nsynchronous_commit = off\n\
             log_line_prefix = '@gb/%p/%u/%d/ '\nlog_checkpoints = off\nTimeZone = UTC\nlog_timezone = UTC\n{settings}"
        );
        std::fs::write(data.join("postgresql.conf"), conf).expect("the folder can be written");
        std::fs::write(
            data.join("pg_hba.conf"),
            "hostssl all all 127.0.0.1/32 scram-sha-256\nhostnossl all all 127.0.0.1/32 scram-sha-256\n",
        )
        .expect("the folder can be written");
        for name in ["server.crt", "server.key", "postgresql.conf", "pg_hba.conf"] {
            machine::give_to_server_user(&data.join(name));
        }
        let mut command = machine::as_server_user(&machine::postgres_programs().join("postgres"));
        command.arg("-D").arg(&data).current_dir(folder.path());
        let server = Child::start("postgres", command);
        server.line("database system is ready to accept connections", START_MAX);
        Self { server, address: ([127, 0, 0, 1], port).into(), folder, authority }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authority that its certificate comes from.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The authority's certificate as a file.
    #[must_use]
    pub fn authority_file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// The postmaster's process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// Runs SQL as the superuser in the application's database, and returns unaligned rows.
    ///
    /// # Panics
    /// When any statement fails.
    pub fn admin(&self, sql: &str) -> String {
        let mut psql = Command::new(machine::program("psql"));
        self.environment("postgres", ADMIN_PASSWORD).apply(&mut psql);
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        machine::run(&mut psql).trim_end().to_owned()
    }

    /// How a client reaches this server directly.
    #[must_use]
    pub fn environment(&self, user: &str, password: &str) -> Environment {
        Environment {
            port: self.address.port(),
            user: user.to_owned(),
            password: password.to_owned(),
            database: DATABASE.to_owned(),
            authority: self.authority_file(),
        }
    }

    /// What the server's log says was executed by one role so far, in its order.
    ///
    /// # Panics
    /// When the log's end does not arrive.
    #[must_use]
    pub fn executed(&self, role: &str) -> Vec<Executed> {
        // The log comes through a pipe: a statement of our own marks how far it must have come.
        let mark = format!("mark {:?}", std::time::Instant::now());
        self.admin(&format!("SELECT $gb${mark}$gb$"));
        self.server.line(&mark, machine::ANSWER_MAX);
        executed(&self.server.lines()).into_iter().filter(|executed| executed.role == role).collect()
    }

    /// All that the server said.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.server.lines()
    }

    /// How many client connections a role has at this moment.
    ///
    /// # Panics
    /// When the server cannot be asked.
    #[must_use]
    pub fn connections(&self, role: &str) -> usize {
        let count = self.admin(&format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'"));
        count.parse().expect("a count is a number")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // An immediate shutdown takes the backends along; the data is thrown away with its folder.
        self.server.signal(Signal::QUIT);
        if !std::thread::panicking() {
            self.server.wait(START_MAX);
        }
    }
}

/// How a client reaches a server: libpq's environment, which every driver program of `drivers/` reads.
#[derive(Clone)]
pub struct Environment {
    /// The port on `localhost`.
    pub port: u16,
    /// The role.
    pub user: String,
    /// The password, or the token.
    pub password: String,
    /// The database.
    pub database: String,
    /// The authority that the server's certificate must come from.
    pub authority: PathBuf,
}

impl Environment {
    /// Puts it into a command's environment, and takes out whatever else libpq would read there.
    pub fn apply(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .env("PGHOST", "localhost")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", &self.user)
            .env("PGPASSWORD", &self.password)
            .env("PGDATABASE", &self.database)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", &self.authority)
            .env("PGCONNECT_TIMEOUT", "30")
            .env("PSQLRC", "/dev/null")
            .env("LC_ALL", "C.UTF-8");
    }
}

/// The prepared data folder; made when it is missing.
fn template() -> PathBuf {
    use sha2::{Digest, Sha256};
    let programs = machine::postgres_programs();
    let mut text = machine::run(Command::new(programs.join("postgres")).arg("--version"));
    text += &cluster_sql();
    text += &database_sql();
    let name: String = Sha256::digest(&text).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let path = machine::cache().join(format!("postgres-{name}"));
    if path.is_dir() {
        return path;
    }
    machine::alone("postgres", || {
        if path.is_dir() {
            return;
        }
        let folder = machine::temporary();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("the folder can be written");
        let password = folder.path().join("password");
        std::fs::write(&password, ADMIN_PASSWORD).expect("the folder can be written");
        machine::give_to_server_user(folder.path());
        machine::run(
            machine::as_server_user(&programs.join("initdb"))
                .current_dir(folder.path())
                .arg("-D")
                .arg(&data)
                .arg(format!("--pwfile={}", password.display()))
                .args([
                    "-U",
                    "postgres",
                    "-A",
                    "scram-sha-256",
                    "-E",
                    "UTF8",
                    "--locale=C.UTF-8",
                    "--no-sync",
                ]),
        );
        for (database, sql) in [("postgres", cluster_sql()), (DATABASE, database_sql())] {
            let mut command = machine::as_server_user(&programs.join("postgres"));
            command.current_dir(folder.path()).args(["--single", "-D"]).arg(&data).arg(database);
            let mut single = Child::start("postgres --single", command);
            single.write(&sql);
            single.close_input();
            let status = single.wait(START_MAX);
            let said = single.lines().join("\n");
            assert!(status.success() && !said.contains("ERROR:"), "cannot prepare {database}: {said}");
        }
        // Beside the cache first, so that a folder of that name is always a complete one.
        let beside = path.with_extension("new");
        let _ = std::fs::remove_dir_all(&beside);
        machine::run(Command::new("cp").arg("-a").arg(&data).arg(&beside));
        std::fs::rename(&beside, &path).expect("the cache can be written");
    });
    path
}

fn executed(lines: &[String]) -> Vec<Executed> {
    let mut all: Vec<Executed> = Vec::new();
    // Where a continuation line belongs: to a statement, to a parameter list, or to nothing of ours.
    enum Open {
        Text(usize),
        Parameters(usize),
        Nothing,
    }
    let mut open = Open::Nothing;
    for line in lines {
        if let Some(more) = line.strip_prefix('\t') {
            match open {
                Open::Text(at) => {
                    all[at].text.push('\n');
                    all[at].text.push_str(more);
                }
                Open::Parameters(at) => {
                    let parameters = all[at].parameters.get_or_insert_default();
                    parameters.push('\n');
                    parameters.push_str(more);
                }
                Open::Nothing => {}
            }
            continue;
        }
        open = Open::Nothing;
        let Some((backend, role, said)) = entry(line) else { continue };
        if let Some(log) = said.strip_prefix("LOG:  ") {
            let (text, continued) = if let Some(text) = log.strip_prefix("statement: ") {
                (text, false)
            } else if let Some(execute) = log.strip_prefix("execute fetch from ") {
                (after_name(execute), true)
            } else if let Some(execute) = log.strip_prefix("execute ") {
                (after_name(execute), false)
            } else {
                continue;
            };
            open = Open::Text(all.len());
            let (role, text) = (role.to_owned(), text.to_owned());
            all.push(Executed { backend, role, text, parameters: None, continued });
        } else if let Some(detail) = said.strip_prefix("DETAIL:  parameters: ")
            && let Some(at) = all.iter().rposition(|executed| executed.backend == backend)
        {
            all[at].parameters = Some(detail.to_owned());
            open = Open::Parameters(at);
        }
    }
    all
}

fn entry(line: &str) -> Option<(u32, &str, &str)> {
    let mut parts = line.strip_prefix("@gb/")?.splitn(4, '/');
    let backend = parts.next()?.parse().ok()?;
    let role = parts.next()?;
    parts.next()?;
    Some((backend, role, parts.next()?.trim_start()))
}

fn after_name(text: &str) -> &str {
    text.split_once(": ").map_or(text, |(_, statement)| statement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_executions_with_parameters_and_line_breaks() {
        let lines: Vec<String> = [
            "@gb/7/app_rw/orders/ LOG:  statement: select 1",
            "@gb/7/app_rw/orders/ LOG:  execute s1: insert into t",
            "\tvalues ($1, $2)",
            "@gb/7/app_rw/orders/ DETAIL:  parameters: $1 = '4', $2 = 'a",
            "\tb'",
            "@gb/9/postgres/orders/ LOG:  execute fetch from <unnamed>/C_2: table t",
            "@gb/7/app_rw/orders/ ERROR:  no",
            "\tmore of the error",
        ]
        .map(str::to_owned)
        .to_vec();
        let all = executed(&lines);
        assert_eq!(all.len(), 3);
        assert_eq!(all[1].text, "insert into t\nvalues ($1, $2)");
        assert_eq!(all[1].parameters.as_deref(), Some("$1 = '4', $2 = 'a\nb'"));
        assert!(all[2].continued);
        assert_eq!(all[2].text, "table t");
    }
}

//! `gatebook demo`: the whole story on one machine, with nothing set up before.
//!
//! Everything in it is real: an OpenID Connect issuer, a PostgreSQL server, the gateway as `serve` runs it, `psql` as the client, and the
//! verifier that auditors use. Only the issuer knows its subjects because this program says so.
//!
//! What a newcomer gets wrong: a step that did not do what it says ends the story with exit code 1; nothing is only printed.

mod server;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use gatebook_ledger::verify::{Options, Report, Verdict};
use gatebook_ledger::{Directory, reader, verify};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use self::server::{Server, ServerError, random};
use crate::config::{self, Log};
use crate::issuer::{Issuer, IssuerOptions, TokenClaims};
use crate::pki::{Authority, PkiError};
use crate::run::{self, Running, ServeError};
use crate::session::Target;

/// How long one step of the story may take.
const STEP_DEADLINE: Duration = Duration::from_secs(60);

/// Play the whole story on this machine, with nothing set up before
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Exit after the story: 0 only if every step did what it says
    #[arg(long)]
    once: bool,
    /// Where the demonstration's ledger and keys are kept
    #[arg(long, value_name = "DIR", default_value = "gatebook-demo")]
    dir: PathBuf,
    /// Use this server instead of a private one: postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslrootcert=FILE. A schema "gatebook_demo" is
    /// made in it and removed at the end
    #[arg(long, value_name = "URL", env = "GATEBOOK_DEMO_POSTGRES", hide_env_values = true)]
    postgres: Option<String>,
}

/// Why the story cannot go on.
#[derive(Debug, Error)]
enum DemoError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("the demonstration's configuration has mistakes:\n{0}")]
    Config(config::Report),
    #[error("--postgres: {0}")]
    Url(String),
    #[error("{what}: {error}")]
    System { what: String, error: std::io::Error },
    #[error("this step did not do what it says: {0}")]
    Step(String),
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> DemoError {
    let what = what.into();
    move |error| DemoError::System { what, error }
}

/// Plays the story.
pub(crate) async fn run(args: DemoArgs) -> ExitCode {
    match play(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gatebook: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where the demonstration's PostgreSQL is, and who may do what there.
struct Database {
    host: String,
    port: u16,
    name: String,
    owner: String,
    password: Zeroizing<String>,
    authority: PathBuf,
    psql: PathBuf,
    /// Kept so that it lives as long as the story.
    _server: Option<Server>,
}

/// What is told, a step at a time.
struct Teller {
    colour: bool,
    number: u32,
}

impl Teller {
    fn step(&mut self, title: &str) {
        self.number += 1;
        let (on, off) = if self.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        println!("\n{on}{}. {title}{off}", self.number);
    }

    fn command(&self, line: &str) {
        println!("   $ {line}");
    }

    fn output(&self, text: &str) {
        for line in text.lines() {
            let clean: String =
                line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
            println!("   {clean}");
        }
    }

    fn done(&self, what: &str) {
        let (on, off) = if self.colour { ("\x1b[32m", "\x1b[0m") } else { ("", "") };
        println!("   {on}✔{off} {what}");
    }
}

async fn play(args: &DemoArgs) -> Result<(), DemoError> {
    let quiet = Log { level: "error", json: false };
    run::start_logging(&quiet);
    let mut teller = Teller {
        colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        number: 0,
    };
    let folder = tempfile::Builder::new()
        .prefix("gatebook-demo-")
        .tempdir()
        .map_err(system("cannot make a temporary folder"))?;
    // The server's own user must reach its data folder in here.
    open_folder(folder.path())?;
    let places = Places::choose(&args.dir)?;

    teller.step("A PostgreSQL server, an OpenID Connect issuer and the gateway start");
    let authority = Authority::create("Gatebook demonstration", time::OffsetDateTime::now_utc())?;
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.certificate())
        .map_err(system("cannot write the authority's certificate"))?;
    let database = match &args.postgres {
        Some(url) => parse_url(url)?,
        None => {
            let server = tokio::task::block_in_place(|| Server::start(folder.path(), &authority))?;
            Database {
                host: "localhost".into(),
                port: server.port,
                name: "postgres".into(),
                owner: "postgres".into(),
                password: server.password.clone(),
                authority: ca.clone(),
                psql: server.programs().join("psql"),
                _server: Some(server),
            }
        }
    };
    let told = over(&database, args, teller, folder.path(), &ca, &authority, &places).await;
    if args.postgres.is_none() {
        return told;
    }
    // What was made in somebody's own server goes, however the story ended.
    let removed = owner_psql(&database, REMOVE).await;
    told?;
    let (gone, said) = removed?;
    expect(gone, &format!("what was made in the server could not be removed: {said}"))
}

/// The story over a server that is there.
async fn over(
    database: &Database,
    args: &DemoArgs,
    teller: Teller,
    folder: &Path,
    ca: &Path,
    authority: &Authority,
    places: &Places,
) -> Result<(), DemoError> {
    let role_password = fill(database).await?;
    let issuer = Issuer::start(IssuerOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        host: "127.0.0.1".into(),
        tls: None,
        clients: Vec::new(),
    })
    .await
    .map_err(system("cannot start the issuer"))?;
    let file = configure(folder, places, authority, database, issuer.url(), &role_password)?;
    let (checked, report) = crate::cli::check(&file);
    let config = checked.filter(|_| report.is_clean()).ok_or(DemoError::Config(report))?;
    let running = run::start(config).await?;
    let gateway = running
        .addresses
        .first()
        .map(|(_, address)| *address)
        .ok_or_else(|| DemoError::Step("nothing is listened on".into()))?;
    teller.done(&format!(
        "PostgreSQL at {}:{}; the issuer at {}; the gateway at {gateway}",
        database.host,
        database.port,
        issuer.url()
    ));
    teller.done(&format!("the ledger is in {}", places.ledger.display()));

    let story = Story { teller, database, gateway, ca, issuer: &issuer, running: &running, places };
    let told = story.tell().await;
    let result = match told {
        Ok(teller) if !args.once => stay(&teller, database, gateway, ca, &issuer, places, folder).await,
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    running.drain().await;
    result
}

/// Where this demonstration keeps what outlives it.
struct Places {
    ledger: PathBuf,
    keys: PathBuf,
}

impl Places {
    /// `DIR/ledger`, or the next free name beside it.
    fn choose(dir: &Path) -> Result<Places, DemoError> {
        std::fs::create_dir_all(dir).map_err(system(format!("cannot make {}", dir.display())))?;
        let dir = dir.canonicalize().map_err(system(format!("cannot find {}", dir.display())))?;
        for number in 1u32.. {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let places = Places {
                ledger: dir.join(format!("ledger{suffix}")),
                keys: dir.join(format!("keys{suffix}")),
            };
            if !places.ledger.exists() && !places.keys.exists() {
                return Ok(places);
            }
        }
        Err(DemoError::Step("no free name for a ledger".into()))
    }
}

fn open_folder(folder: &Path) -> Result<(), DemoError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))
        .map_err(system("cannot open the temporary folder to the server's user"))
}

/// Takes away what [`fill`] made.
const REMOVE: &str = "SET client_min_messages = warning; DROP SCHEMA IF EXISTS gatebook_demo CASCADE; DROP ROLE IF EXISTS gatebook_demo_app;";

/// Makes the role and the table of the story; gives back the role's password.
async fn fill(database: &Database) -> Result<Zeroizing<String>, DemoError> {
    let password = random()?;
    let sql = Zeroizing::new(format!(
        "{REMOVE} CREATE ROLE gatebook_demo_app LOGIN PASSWORD '{}'; GRANT gatebook_demo_app TO CURRENT_USER; CREATE SCHEMA gatebook_demo AUTHORIZATION gatebook_demo_app; \
         ALTER ROLE gatebook_demo_app SET search_path = gatebook_demo; SET ROLE gatebook_demo_app; \
         CREATE TABLE gatebook_demo.orders (id int PRIMARY KEY, customer text NOT NULL, total numeric(10,2) NOT NULL, state text NOT NULL); \
         INSERT INTO gatebook_demo.orders SELECT n, 'customer ' || n, n * 9.95, CASE n % 3 WHEN 0 THEN 'paid' ELSE 'open' END FROM generate_series(1, 12) n;",
        *password
    ));
    let output = owner_psql(database, &sql).await?;
    if output.0 {
        Ok(password)
    } else {
        Err(DemoError::Step(format!("the server could not be filled: {}", output.1)))
    }
}

async fn owner_psql(database: &Database, sql: &str) -> Result<(bool, String), DemoError> {
    let target = format!(
        "host={} port={} dbname={} user={} sslmode=verify-full sslrootcert={}",
        database.host,
        database.port,
        database.name,
        database.owner,
        database.authority.display()
    );
    let mut psql = psql(&database.psql, &target, &database.password);
    let mut child = psql
        .args(["-v", "ON_ERROR_STOP=1", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(system("cannot run psql"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(sql.as_bytes()).await.map_err(system("cannot talk to psql"))?;
    }
    finish(child).await
}

fn psql(program: &Path, target: &str, password: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-X", "-w", "-d", target])
        .env("PGPASSWORD", password)
        .env("PGCLIENTENCODING", "UTF8")
        .env("LC_ALL", "C");
    for variable in
        ["PGOPTIONS", "PGSERVICE", "PGSSLMODE", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSFILE"]
    {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn finish(child: Child) -> Result<(bool, String), DemoError> {
    let output = timeout(STEP_DEADLINE, child.wait_with_output())
        .await
        .map_err(|_| DemoError::Step("psql did not end in time".into()))?;
    let output = output.map_err(system("cannot wait for psql"))?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), said))
}

fn configure(
    folder: &Path,
    places: &Places,
    authority: &Authority,
    database: &Database,
    issuer: &str,
    password: &str,
) -> Result<PathBuf, DemoError> {
    let write = |name: &str, text: &str, mode: u32| {
        let path = folder.join(name);
        let open = std::os::unix::fs::OpenOptionsExt::mode(
            std::fs::OpenOptions::new().write(true).create_new(true),
            mode,
        )
        .open(&path);
        open.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(system(format!("cannot write {}", path.display())))
    };
    std::fs::create_dir(folder.join("policies")).map_err(system("cannot make a folder for policies"))?;
    let issued =
        authority.issue(&["localhost".into(), "127.0.0.1".into()], time::OffsetDateTime::now_utc())?;
    write("gateway.pem", &issued.chain, 0o644)?;
    write("gateway.key", &issued.key, 0o600)?;
    write("role-password", password, 0o600)?;
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let path = |path: &Path| quote(&path.display().to_string());
    let name = &database.name;
    write(
        "policies/demo.cedar",
        &format!(
            "// Everybody in the group may log in as the application's role, and read.\n\
             permit (principal in Group::\"ci/shop\", action == Action::\"login\", resource == Role::\"orders-db/gatebook_demo_app\");\n\n\
             permit (principal in Group::\"ci/shop\", action in Action::\"read\", resource in Database::{});\n",
            quote(&format!("orders-db/{name}"))
        ),
        0o644,
    )?;
    let text = format!(
        r#"policies = "policies"
control = {control}

[ledger]
path = {ledger}
keys = {keys}
origin = "gatebook.demo/ledger"
checkpoint_interval = "1s"

[[identity.issuer]]
name = "demo"
url = {issuer}
audience = "gatebook"
groups_claim = "groups"
principal = "Service"
algorithms = ["EdDSA"]
danger_http = true

[[resource]]
name = "orders-db"
kind = "postgres"
listen = "127.0.0.1:0"
certificate = {{ chain = "gateway.pem", key = "gateway.key" }}
upstream = {upstream}
tls = {{ ca = {ca} }}
databases = [{database}]
roles = [{{ name = "gatebook_demo_app", password = {{ file = "role-password" }} }}]
"#,
        control = path(&folder.join("control.sock")),
        ledger = path(&places.ledger),
        keys = path(&places.keys),
        issuer = quote(issuer),
        upstream = quote(&format!("{}:{}", database.host, database.port)),
        ca = path(&database.authority),
        database = quote(name),
    );
    write("gatebook.toml", &text, 0o600)?;
    Ok(folder.join("gatebook.toml"))
}

/// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslrootcert=FILE`.
fn parse_url(url: &str) -> Result<Database, DemoError> {
    let wrong = |what: &str| DemoError::Url(what.to_owned());
    let url = openidconnect::url::Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(wrong("the URL must begin with postgres://"));
    }
    let decode = |text: &str| {
        let pair = format!("x={}", text.replace('+', "%2B"));
        openidconnect::url::form_urlencoded::parse(pair.as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let authority =
        url.query_pairs().find(|(name, _)| name == "sslrootcert").map(|(_, file)| PathBuf::from(&*file));
    let psql = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("psql"))
        .find(|path| path.exists());
    Ok(Database {
        host: url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| wrong("it names no host"))?
            .to_owned(),
        port: url.port().unwrap_or(5432),
        name: Some(decode(url.path().trim_start_matches('/')))
            .filter(|name| !name.is_empty())
            .ok_or_else(|| wrong("it names no database"))?,
        owner: Some(decode(url.username()))
            .filter(|name| !name.is_empty())
            .ok_or_else(|| wrong("it names no user"))?,
        password: Zeroizing::new(decode(url.password().ok_or_else(|| wrong("it holds no password"))?)),
        authority: authority.ok_or_else(|| {
            wrong("it names no sslrootcert=FILE, and the server's certificate is always verified")
        })?,
        psql: psql.ok_or_else(|| wrong("there is no psql on the PATH"))?,
        _server: None,
    })
}

struct Story<'a> {
    teller: Teller,
    database: &'a Database,
    gateway: SocketAddr,
    ca: &'a Path,
    issuer: &'a Issuer,
    running: &'a Running,
    places: &'a Places,
}

impl Story<'_> {
    fn token(&self, subject: &str) -> Result<Zeroizing<String>, DemoError> {
        let mut claims = TokenClaims::new(subject, "gatebook");
        claims.groups = vec!["ci/shop".into()];
        self.issuer.issue(&claims).map_err(system("cannot sign a token"))
    }

    fn target(&self) -> String {
        target(self.database, self.gateway, self.ca)
    }

    async fn psql(&self, token: &str, sql: &str) -> Result<(bool, String), DemoError> {
        self.teller.command(&format!("psql … -c {sql:?}"));
        let mut command = psql(&self.database.psql, &self.target(), token);
        let child = command
            .args(["-c", sql])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(system("cannot run psql"))?;
        let (ok, said) = finish(child).await?;
        self.teller.output(&said);
        Ok((ok, said))
    }

    async fn tell(mut self) -> Result<Teller, DemoError> {
        let token = self.token("shop/deploy#881")?;

        self.teller.step("A CI job reads orders: unmodified psql, its token as the password");
        let (ok, said) = self
            .psql(&token, "select id, customer, total, state from orders where id <= 3 order by id")
            .await?;
        expect(ok && said.contains("customer 2") && said.contains("(3 rows)"), &said)?;
        self.teller.done("permitted: policy lets the group ci/shop read");

        self.teller.step("It tries to drop the table");
        let (ok, said) = self.psql(&token, "drop table orders").await?;
        expect(!ok && said.contains("not permitted: drop"), &said)?;
        let (_, count) =
            owner_psql(self.database, "\\t on\nselect count(*) from gatebook_demo.orders;").await?;
        expect(count.trim() == "12", &count)?;
        self.teller.done("refused before the server saw it; the table has all its 12 rows");

        self.teller.step("It keeps a session open, and is revoked while its token still has an hour to live");
        let mut live = LiveSession::open(psql(&self.database.psql, &self.target(), &token)).await?;
        let answer = live.ask("select 'still here' as session;").await?;
        expect(answer.contains("still here"), &answer)?;
        let target = Target::Principal("demo:shop/deploy#881".into());
        let revoked = self.running.gateway.revoke(&target, "contract ended", "demo").await;
        let ended = revoked.map_err(|error| DemoError::Step(error.to_string()))?;
        self.teller.command("gatebook revoke --principal demo:shop/deploy#881 --reason \"contract ended\"");
        expect(ended.sessions == 1, &format!("{} sessions were ended", ended.sessions))?;
        let last = live.last_words().await?;
        self.teller.output(&last);
        expect(last.contains("access was revoked"), &last)?;
        let (ok, said) = self.psql(&token, "select 1").await?;
        expect(!ok && !said.contains("(1 row)"), &said)?;
        self.teller.done("its live session ended at once, and the same token opens no other");

        self.teller.step("An auditor verifies the ledger");
        // What has been acknowledged is on the disk; the verdict is about exactly that.
        let report = judge(&self.places.ledger)?;
        self.teller.command(&format!("gatebook-ledger verify {}", self.places.ledger.display()));
        self.teller.output(&format!(
            "{} entries in {} frames, {} sessions; every signature, chain value and commitment checked",
            report.entries, report.frames, report.sessions
        ));
        expect(report.verdict == Verdict::Unanchored && report.problems.is_empty(), &describe(&report))?;
        self.teller.done(
            "nothing was changed (pin the log key, and keep a checkpoint elsewhere, to have it anchored)",
        );

        self.teller.step("Somebody flips one byte in a copy of it");
        let copy = tempfile::tempdir().map_err(system("cannot make a folder for the copy"))?;
        let (entry, offset) = forge(&self.places.ledger, copy.path())?;
        self.teller.output(&format!(
            "the drop's record is entry {entry}; byte {offset} of the segment is now another"
        ));
        let report = judge(copy.path())?;
        self.teller.output(&describe(&report));
        let named = report.problems.iter().any(|problem| {
            problem.entry.is_some_and(|first| first <= entry && entry <= problem.entry_last.unwrap_or(first))
        });
        expect(report.verdict == Verdict::Tampered && named, &describe(&report))?;
        self.teller.done("found, and the entry is named");
        Ok(self.teller)
    }
}

fn target(database: &Database, gateway: SocketAddr, ca: &Path) -> String {
    format!(
        "host=localhost port={} dbname={} user=gatebook_demo_app sslmode=verify-full sslrootcert={}",
        gateway.port(),
        database.name,
        ca.display()
    )
}

fn expect(holds: bool, said: &str) -> Result<(), DemoError> {
    if holds { Ok(()) } else { Err(DemoError::Step(said.trim().to_owned())) }
}

/// A psql that stays connected.
struct LiveSession {
    child: Child,
    output: BufReader<tokio::process::ChildStdout>,
}

impl LiveSession {
    async fn open(mut command: Command) -> Result<LiveSession, DemoError> {
        command.args(["-A", "-t", "-q"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(system("cannot run psql"))?;
        let output = child.stdout.take().ok_or_else(|| DemoError::Step("psql has no output".into()))?;
        Ok(LiveSession { child, output: BufReader::new(output) })
    }

    async fn say(&mut self, line: &str) -> Result<(), DemoError> {
        let stdin = self.child.stdin.as_mut().ok_or_else(|| DemoError::Step("psql has no input".into()))?;
        stdin.write_all(format!("{line}\n").as_bytes()).await.map_err(system("cannot talk to psql"))
    }

    async fn ask(&mut self, line: &str) -> Result<String, DemoError> {
        self.say(line).await?;
        let mut answer = String::new();
        let read = timeout(STEP_DEADLINE, self.output.read_line(&mut answer)).await;
        read.map_err(|_| DemoError::Step("psql gave no answer in time".into()))?
            .map_err(system("cannot read from psql"))?;
        Ok(answer)
    }

    /// What psql says when it finds its connection gone: it looks when it is given something to do.
    async fn last_words(mut self) -> Result<String, DemoError> {
        self.say("select 'after the revocation';").await?;
        drop(self.child.stdin.take());
        finish(self.child).await.map(|(_, said)| said)
    }
}

fn judge(ledger: &Path) -> Result<Report, DemoError> {
    let storage = Directory::open(ledger).map_err(system(format!("cannot open {}", ledger.display())))?;
    verify::verify(&storage, &Options::default(), &|_| {})
        .map_err(system(format!("cannot verify {}", ledger.display())))
}

fn describe(report: &Report) -> String {
    let problems: Vec<String> = report
        .problems
        .iter()
        .map(|problem| {
            let entries = match (problem.entry, problem.entry_last) {
                (Some(first), Some(last)) if last != first => format!("entries {first} to {last}: "),
                (Some(first), _) => format!("entry {first}: "),
                _ => String::new(),
            };
            let file = problem.file.as_deref().unwrap_or("ledger");
            let offset = problem.offset.map_or_else(String::new, |offset| format!(", offset {offset}"));
            format!("{file}{offset}: {entries}{}", problem.what)
        })
        .collect();
    if problems.is_empty() { format!("{:?}", report.verdict) } else { problems.join("\n") }
}

/// Copies the ledger and flips a byte in the statement of the refused drop; gives back its entry and the byte's place.
fn forge(ledger: &Path, copy: &Path) -> Result<(u64, u64), DemoError> {
    copy_folder(ledger, copy).map_err(system("cannot copy the ledger"))?;
    let storage = Directory::open(copy).map_err(system("cannot open the copy"))?;
    let mut found = None;
    let needle = b"drop table orders";
    reader::visit(&storage, None, |item| {
        if let reader::Item::Entry { place, entry, payload: Some(payload) } = item
            && payload.windows(needle.len()).any(|window| window == needle)
        {
            found.get_or_insert((entry.header.seq, place));
        }
        std::ops::ControlFlow::Continue(())
    })
    .map_err(system("cannot read the copy"))?;
    drop(storage);
    let (entry, place) = found.ok_or_else(|| DemoError::Step("the drop is not in the ledger".into()))?;
    let path = copy.join("segments").join(format!("{:08}.seg", place.segment));
    let mut bytes = std::fs::read(&path).map_err(system("cannot read the copy's segment"))?;
    let from = usize::try_from(place.offset).unwrap_or(0);
    let at = bytes[from..].windows(needle.len()).position(|window| window == needle);
    let at = from + at.ok_or_else(|| DemoError::Step("the drop is not where the ledger says".into()))?;
    bytes[at] ^= 1;
    let mut permissions =
        std::fs::metadata(&path).map_err(system("cannot look at the segment"))?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(&path, permissions).map_err(system("cannot write to the copy's segment"))?;
    std::fs::write(&path, bytes).map_err(system("cannot write the copy's segment"))?;
    Ok((entry, at as u64))
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Stays up, and says what to try.
async fn stay(
    teller: &Teller,
    database: &Database,
    gateway: SocketAddr,
    ca: &Path,
    issuer: &Issuer,
    places: &Places,
    folder: &Path,
) -> Result<(), DemoError> {
    let mut claims = TokenClaims::new("you", "gatebook");
    claims.groups = vec!["ci/shop".into()];
    let token = issuer.issue(&claims).map_err(system("cannot sign a token"))?;
    let path = folder.join("token");
    let open = std::os::unix::fs::OpenOptionsExt::mode(
        std::fs::OpenOptions::new().write(true).create_new(true),
        0o600,
    )
    .open(&path);
    open.and_then(|mut file| file.write_all(token.as_bytes())).map_err(system("cannot write your token"))?;
    println!("\nThe gateway stays up until Ctrl-C. Your own token is good for an hour. Try:\n");
    teller.command(&format!(
        "PGPASSWORD=$(cat {}) psql \"{}\"",
        path.display(),
        target(database, gateway, ca)
    ));
    teller.command(&format!("gatebook sessions ls --config {}", folder.join("gatebook.toml").display()));
    println!("\nand replay what happened, believing nobody:\n");
    teller.command(&format!("gatebook-replay {}", places.ledger.display()));
    tokio::signal::ctrl_c().await.map_err(system("cannot wait for Ctrl-C"))?;
    println!();
    Ok(())
}

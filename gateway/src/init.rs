//! `gatebook init DIR`: a set to start from, with every choice commented where it is made.
//!
//! It makes the configuration, a folder of policies, folders for keys and secrets, an authority of its own and a server's
//! certificate. It refuses to write over anything: a folder that holds one of these already is left as it was. It makes no
//! ledger; the gateway does so when it first starts.
//!
//! What a newcomer gets wrong: without an issuer and an upstream the set is valid but serves nothing. Both can be given on
//! the command line, or written into the file later.

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use thiserror::Error;
use time::OffsetDateTime;

use crate::config::{CONFIG_FILE, reason};
use crate::pki::{Authority, PkiError, Secrecy, create, names_of};

/// Write a set to start from: configuration, policies, keys and an own certificate authority.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The folder to fill; it is made when it does not exist
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// A name or address under which clients reach the gateway; may be repeated [default: localhost, 127.0.0.1]
    #[arg(long = "name", value_name = "HOST")]
    pub names: Vec<String>,
    /// Only renew tls/server.pem in a folder that init made, for the same names unless --name says others
    #[arg(long)]
    pub renew: bool,
    /// The URL of the OpenID Connect provider that vouches for callers
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// The audience that its tokens must carry
    #[arg(long, value_name = "NAME", default_value = "gatebook")]
    pub audience: String,
    /// The PostgreSQL server to stand in front of
    #[arg(long, value_name = "HOST:PORT", requires_all = ["database", "role"])]
    pub upstream: Option<String>,
    /// A PEM file of the authorities that signed the server's certificate (else the system's)
    #[arg(long, value_name = "FILE", requires = "upstream")]
    pub upstream_ca: Option<PathBuf>,
    /// A database that can be reached
    #[arg(long, value_name = "NAME", requires = "upstream")]
    pub database: Option<String>,
    /// A role that sessions may run as
    #[arg(long, value_name = "NAME", requires = "upstream")]
    pub role: Option<String>,
    /// Where clients connect
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6432")]
    pub listen: String,
}

/// Why there is no set to start from.
#[derive(Debug, Error)]
pub enum InitError {
    /// Something is there already.
    #[error("{} exists already; init writes over nothing", .0.display())]
    Exists(PathBuf),
    /// A folder cannot be made.
    #[error("cannot make {}: {}", folder.display(), reason(source))]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or file cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// What was given on the command line does not make a valid configuration.
    #[error("{option} {wrong}")]
    Argument {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        wrong: String,
    },
}

/// Fills the folder, and says what to do next: two or three lines for a terminal.
///
/// # Errors
/// [`InitError`]; what was made before it stays, and names itself in the next attempt.
pub fn run(args: &InitArgs, starter_policy: &str, now: OffsetDateTime) -> Result<String, InitError> {
    if args.renew {
        return renew(args, now);
    }
    let folder = &args.folder;
    check(args)?;
    let parts = [CONFIG_FILE, "policies", "keys", "secrets", "tls"];
    if let Some(existing) =
        parts.iter().map(|part| folder.join(part)).find(|part| part.symlink_metadata().is_ok())
    {
        return Err(InitError::Exists(existing));
    }
    make_folder(folder, 0o755)?;
    for (part, mode) in [("policies", 0o755), ("keys", 0o700), ("secrets", 0o700), ("tls", 0o755)] {
        make_folder(&folder.join(part), mode)?;
    }
    create(&folder.join("policies/starter.cedar"), starter_policy.as_bytes(), Secrecy::Public)?;
    let names = names(args);
    let authority = Authority::create(&format!("Gatebook at {}", names[0]), now)?;
    authority.write(&folder.join("tls"))?;
    authority.issue(&names, now)?.write(&folder.join("tls"))?;
    if let Some(role) = &args.role {
        // Empty, but private already: whoever fills it in need not think of its mode.
        create(&folder.join("secrets").join(role), b"", Secrecy::Private)?;
    }
    // The configuration last: where it stands, the rest is complete.
    create(&folder.join(CONFIG_FILE), text(args).as_bytes(), Secrecy::Public)?;
    Ok(next_steps(args))
}

/// What would make a broken file or an unusable certificate is refused before anything is written.
fn check(args: &InitArgs) -> Result<(), InitError> {
    let texts = [
        ("--issuer", args.issuer.as_deref()),
        ("--audience", Some(args.audience.as_str())),
        ("--upstream", args.upstream.as_deref()),
        ("--database", args.database.as_deref()),
        ("--role", args.role.as_deref()),
        ("--listen", Some(args.listen.as_str())),
        ("--upstream-ca", args.upstream_ca.as_deref().map(|file| file.to_str().unwrap_or("\0"))),
    ];
    for (option, text) in texts.into_iter().filter_map(|(option, text)| Some((option, text?))) {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(InitError::Argument { option, wrong: "is empty or not printable text".into() });
        }
    }
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c));
    if let Some(role) = args.role.as_deref().filter(|role| role.contains(odd) || role.starts_with('.')) {
        let wrong =
            format!("\"{role}\" cannot name a file of its own; write the role into the configuration");
        return Err(InitError::Argument { option: "--role", wrong });
    }
    Ok(())
}

/// Never empty.
fn names(args: &InitArgs) -> Vec<String> {
    if args.names.is_empty() {
        ["localhost", "127.0.0.1"].map(String::from).to_vec()
    } else {
        args.names.clone()
    }
}

/// A running gateway shows the new certificate to the next connection; clients trust the same authority as before.
fn renew(args: &InitArgs, now: OffsetDateTime) -> Result<String, InitError> {
    let tls = args.folder.join("tls");
    let authority = Authority::read(&tls.join("ca.pem"), &tls.join("ca.key"))?;
    let names = if args.names.is_empty() { names_of(&tls.join("server.pem"))? } else { args.names.clone() };
    authority.issue(&names, now)?.replace(&tls)?;
    Ok(format!("renewed {} for {}\n", tls.join("server.pem").display(), names.join(", ")))
}

fn make_folder(folder: &Path, mode: u32) -> Result<(), InitError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .map_err(|source| InitError::Folder { folder: folder.into(), source })
}

/// A string as TOML spells it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn text(args: &InitArgs) -> String {
    let origin = format!("{}/ledger", names(args)[0].to_ascii_lowercase());
    let mut text = HEAD.replace("{origin}", &quoted(&origin));
    let issuer = args.issuer.as_deref().unwrap_or("https://idp.corp.example");
    let issuer = ISSUER.replace("{url}", &quoted(issuer)).replace("{audience}", &quoted(&args.audience));
    push_section(&mut text, &issuer, args.issuer.is_some());
    let role = args.role.as_deref().unwrap_or("app_ro");
    let ca = args.upstream_ca.as_deref().map(|ca| std::path::absolute(ca).unwrap_or_else(|_| ca.into()));
    let tls = match &ca {
        Some(ca) => format!("tls = {{ ca = {} }}", quoted(&ca.to_string_lossy())),
        None => "# tls = { ca = \"orders-ca.pem\" }\t# else the system's authorities".into(),
    };
    let database = args.database.as_deref().unwrap_or("orders");
    let resource = RESOURCE
        .replace("{name}", &quoted(&resource_name(database)))
        .replace("{listen}", &quoted(&args.listen))
        .replace("{upstream}", &quoted(args.upstream.as_deref().unwrap_or("10.0.4.17:5432")))
        .replace("{tls}", &tls)
        .replace("{database}", &quoted(database))
        .replace("{role}", &quoted(role))
        .replace("{secret}", &quoted(&format!("secrets/{role}")));
    push_section(&mut text, &resource, args.upstream.is_some());
    text.push_str(TAIL);
    aligned(&text)
}

/// Brings remarks, which stand behind a tab, to one column where the line is short enough.
fn aligned(text: &str) -> String {
    const COLUMN: usize = 44;
    text.lines().fold(String::with_capacity(text.len()), |mut all, line| {
        let _ = match line.split_once('\t') {
            Some((code, remark)) => writeln!(all, "{code:<COLUMN$} {remark}"),
            None => writeln!(all, "{line}"),
        };
        all
    })
}

/// A resource's name made from a database's: policies name it, so it has a plain alphabet.
fn resource_name(database: &str) -> String {
    let plain: String = database
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .take(59)
        .collect();
    let plain = plain.trim_start_matches(['-', '_', '.']);
    format!("{}-db", if plain.is_empty() { "main" } else { plain })
}

/// A section that is not filled in stands there as comment, to be uncommented.
fn push_section(text: &mut String, section: &str, live: bool) {
    for line in section.lines() {
        let mark = if live || line.is_empty() || line.starts_with('#') { "" } else { "# " };
        let _ = writeln!(text, "{mark}{line}");
    }
}

fn next_steps(args: &InitArgs) -> String {
    let folder = args.folder.display();
    let mut steps = format!("wrote {folder}: {CONFIG_FILE}, policies/starter.cedar, tls/, keys/, secrets/\n");
    match (&args.role, args.issuer.is_some()) {
        (Some(role), true) => {
            let _ = writeln!(
                steps,
                "next: write the password of {role} into {folder}/secrets/{role}, and into {folder}/policies who may do what"
            );
        }
        _ => {
            let _ = writeln!(
                steps,
                "next: name your identity provider and your database in {folder}/{CONFIG_FILE}"
            );
        }
    }
    let _ = writeln!(
        steps,
        "then: gatebook check --config {folder}/{CONFIG_FILE}, and gatebook serve; clients trust {folder}/tls/ca.pem"
    );
    steps
}

const HEAD: &str = r#"# Gatebook. Relative paths start at this file's folder; every key is explained in docs/configuration.md.
# After a change: gatebook check

policies = "policies"	# folder of .cedar files; nothing is permitted that they do not permit
certificate = { chain = "tls/server.pem", key = "tls/server.key" }	# what clients are shown

[ledger]
path = "ledger"	# the book; hand copies of it to auditors
keys = "keys"	# the keys that sign it; hand these to nobody
origin = {origin}	# its name in every signature: choose once
# checkpoint_copies = ["/mnt/other-disk/gatebook.checkpoint"]	# shows a ledger that was cut or rolled back

"#;

const ISSUER: &str = r#"# Who vouches for callers. Several issuers may stand beside each other, such as one for people and one for CI jobs.
[[identity.issuer]]
name = "corp"	# the first part of every principal: corp:lee
url = {url}
audience = {audience}	# the `aud` of ID tokens; tokens for anything else are refused
# access_token_audience = "gatebook"	# accepts access tokens (at+jwt) too
groups_claim = "groups"

"#;

const RESOURCE: &str = r#"# A database, and the way to it.
[[resource]]
name = {name}	# as policies spell it
kind = "postgres"
listen = {listen}
upstream = {upstream}
{tls}
databases = [{database}]
roles = [{ name = {role}, password = { file = {secret} } }]	# or { env = "NAME" }, { command = ["/path", "argument"] }
# shadow = true	# try policies on live traffic: decide and record, refuse nothing

"#;

const TAIL: &str = r#"# [limits]
# connections_max = 10000
# login_deadline = "30s"
# drain_deadline = "30s"	# how long open sessions may go on after the order to stop

# [log]
# level = "info"	# error, warn, info, debug
# format = "text"	# or json
"#;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;
    use crate::config;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        init: InitArgs,
    }

    const STARTER: &str = "// nothing is permitted yet\n";

    fn init(folder: &Path, options: &[&str]) -> Result<String, InitError> {
        let line = ["init", folder.to_str().unwrap()].into_iter().chain(options.iter().copied());
        let line = Line::try_parse_from(line).unwrap_or_else(|wrong| panic!("{wrong}"));
        run(&line.init, STARTER, OffsetDateTime::now_utc())
    }

    #[test]
    fn what_init_writes_passes_check() {
        let folder = tempfile::tempdir().unwrap();
        let steps = init(&folder.path().join("gb"), &[]).unwrap();
        assert!(steps.lines().count() <= 3 && steps.contains("gatebook check"), "{steps}");
        let file = folder.path().join("gb").join(CONFIG_FILE);
        let check = config::check(&file);
        assert!(check.report.is_clean(), "{}", check.report);
        let config = check.config.expect("a configuration");
        assert_eq!(config.ledger.origin, "localhost/ledger");
        assert!(config.resources.is_empty() && config.issuers.is_empty());
        for (part, mode) in
            [("keys", 0o700), ("secrets", 0o700), ("tls/ca.key", 0o600), ("tls/server.key", 0o600)]
        {
            let meta = std::fs::metadata(folder.path().join("gb").join(part)).unwrap();
            assert_eq!(meta.permissions().mode() & 0o777, mode, "{part}");
        }
    }

    #[test]
    fn the_commented_sections_are_valid_once_uncommented() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("gb");
        init(&folder, &[]).unwrap();
        let file = folder.join(CONFIG_FILE);
        let text = std::fs::read_to_string(&file).unwrap();
        let uncommented: Vec<_> = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.starts_with('[') || rest.split(' ').nth(1) == Some("=") => rest,
                _ => line,
            })
            .filter(|line| !line.starts_with("checkpoint_copies") && !line.starts_with("tls = "))
            .collect();
        std::fs::write(&file, uncommented.join("\n")).unwrap();
        create(&folder.join("secrets/app_ro"), b"canary", Secrecy::Private).unwrap();
        let check = config::check(&file);
        assert!(check.report.is_clean(), "{}", check.report);
        let config = check.config.unwrap();
        assert_eq!((config.resources.len(), config.issuers.len()), (1, 1));
        assert!(config.resources[0].shadow);
    }

    #[test]
    fn a_set_made_for_a_database_lacks_only_its_password() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("gb");
        let options = [
            "--issuer=https://idp.example/realm",
            "--upstream=db.example:5433",
            "--database=Shop Floor",
            "--role=app_ro",
            "--name=gw.example",
        ];
        let steps = init(&folder, &options).unwrap();
        assert!(steps.contains("secrets/app_ro"), "{steps}");
        let file = folder.join(CONFIG_FILE);
        let report = config::check(&file).report;
        assert_eq!(report.mistakes(), 1, "{report}");
        assert!(
            report.to_string().contains("role \"app_ro\": password: secrets/app_ro is empty"),
            "{report}"
        );
        std::fs::write(folder.join("secrets/app_ro"), "canary\n").unwrap();
        let config = config::Config::load(&file).unwrap_or_else(|report| panic!("{report}"));
        let resource = &config.resources[0];
        assert_eq!((resource.name.as_str(), resource.databases[0].as_str()), ("shop-floor-db", "Shop Floor"));
        assert_eq!(resource.upstream, config::HostPort { host: "db.example".into(), port: 5433 });
    }

    #[test]
    fn renewing_keeps_names_and_authority() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("gb");
        init(&folder, &["--name=gw.example", "--name=10.0.0.7", "--name=::1"]).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.join("tls").join(name)).unwrap();
        let (ca, server, key) = (read("ca.pem"), read("server.pem"), read("server.key"));
        let said = init(&folder, &["--renew"]).unwrap();
        assert!(said.contains("for gw.example, 10.0.0.7, ::1"), "{said}");
        assert!(read("ca.pem") == ca && read("server.pem") != server && read("server.key") != key);
        let report = config::check(&folder.join(CONFIG_FILE)).report;
        assert!(report.is_clean(), "{report}");
        assert!(init(&folder.join("none"), &["--renew"]).is_err());
    }

    #[test]
    fn init_writes_over_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG_FILE), "precious").unwrap();
        assert!(matches!(init(folder.path(), &[]), Err(InitError::Exists(_))));
        assert_eq!(std::fs::read_to_string(folder.path().join(CONFIG_FILE)).unwrap(), "precious");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(
            init(&folder.path().join("x"), &["--role=../up", "--upstream=h", "--database=d"]),
            Err(InitError::Argument { .. })
        ));
        assert!(!folder.path().join("x").exists());
    }
}

//! The command line: one verb each for operators and for those who want a token.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, CONFIG_FILE, Config, Report};
use crate::control::{self, Answer, Ask};
use crate::explain::{ExplainArgs, TestArgs};
use crate::init::InitArgs;
use crate::session::Target;
use crate::token::TokenArgs;
use crate::{explain, init, policy, run, token};

/// An access gateway for PostgreSQL: callers bring an identity token, every command is decided by policy, and every decision is durable
/// in a signed ledger before its command takes effect.
#[derive(Debug, Parser)]
#[command(name = "gatebook", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  gatebook init /etc/gatebook                      write a set to start from
  gatebook check --config /etc/gatebook/gatebook.toml
  gatebook serve --config /etc/gatebook/gatebook.toml
  PGPASSWORD=$(gatebook token --issuer https://idp.example --client-id ci) psql \"host=gateway.example user=app_ro dbname=orders\"
  gatebook revoke --principal corp:lee --reason \"contract ended\"
  gatebook policy explain --principal corp:lee --group devs --resource orders --role app_ro --statement 'TABLE orders'
  gatebook delegate --resource orders-db --actions read --ttl 10m -- ./agent
  gatebook demo                                    the whole story on this machine, with nothing set up before";

#[derive(Debug, Subcommand)]
enum Verb {
    Init(InitArgs),
    /// Find every mistake in configuration and policies, each with its line
    Check {
        #[command(flatten)]
        config: ConfigArg,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Serve the configured resources until told to stop (SIGTERM drains, SIGHUP reloads policies and certificates)
    Serve(ConfigArg),
    Token(TokenArgs),
    /// End sessions now, and keep a principal out
    Revoke {
        #[command(flatten)]
        config: ConfigArg,
        /// The principal, as ISSUER:SUBJECT; it stays out
        #[arg(long, value_name = "ID", group = "whom")]
        principal: Option<String>,
        /// A group: whoever's token names it stays out
        #[arg(long, value_name = "NAME", group = "whom")]
        group: Option<String>,
        /// A token, by its id in the ledger (jti:… or blake3:…); it stays out
        #[arg(long, value_name = "ID", group = "whom")]
        token: Option<String>,
        /// All sessions on a resource; they may come again
        #[arg(long, value_name = "NAME", group = "whom")]
        resource: Option<String>,
        /// One session, by its number; its principal may come again
        #[arg(long, value_name = "NUMBER", group = "whom")]
        session: Option<u64>,
        /// What was handed down, by the delegation's id, with all that came of it
        #[arg(long, value_name = "ID", group = "whom")]
        delegation: Option<String>,
        /// Why: it goes into the ledger
        #[arg(long, default_value = "")]
        reason: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// What lives behind the gateway now
    Sessions {
        #[command(subcommand)]
        verb: SessionsVerb,
    },
    /// Ask the policies what they decide, before anybody else does
    Policy {
        #[command(subcommand)]
        verb: PolicyVerb,
    },
    Approvals(crate::approval::ApprovalsArgs),
    Delegate(crate::delegation::DelegateArgs),
    Demo(crate::demo::DemoArgs),
}

#[derive(Debug, Subcommand)]
enum PolicyVerb {
    Explain(ExplainArgs),
    Test(TestArgs),
}

#[derive(Debug, Subcommand)]
enum SessionsVerb {
    /// List the live sessions
    Ls {
        #[command(flatten)]
        config: ConfigArg,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArg {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "GATEBOOK_CONFIG", default_value = CONFIG_FILE)]
    pub(crate) config: PathBuf,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gatebook: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(dispatch(cli.verb))
}

async fn dispatch(verb: Verb) -> ExitCode {
    match verb {
        Verb::Init(args) => match init::run(&args, policy::STARTER, time::OffsetDateTime::now_utc()) {
            Ok(next) => {
                println!("{next}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error.to_string()),
        },
        Verb::Check { config, json } => {
            let (_, report) = check(&config.config);
            if json {
                println!("{}", report.json());
            } else {
                print!("{report}");
            }
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Verb::Serve(config) => {
            let (checked, report) = check(&config.config);
            match checked {
                Some(config) if report.is_clean() => {
                    if report.files.iter().any(|file| !file.warnings.is_empty()) {
                        eprint!("{report}");
                    }
                    run::serve(config).await
                }
                _ => {
                    eprint!("{report}");
                    fail("nothing is served while there are mistakes")
                }
            }
        }
        Verb::Token(args) => token::run(args).await,
        Verb::Revoke { config, principal, group, token, resource, session, delegation, reason, json } => {
            let target = principal
                .map(Target::Principal)
                .or(group.map(Target::Group))
                .or(token.map(Target::Token))
                .or(resource.map(Target::Resource))
                .or(session.map(Target::Session))
                .or(delegation.map(Target::Delegation));
            let Some(target) = target else {
                return fail("name --principal, --group, --token, --resource, --session or --delegation");
            };
            let whom = target.to_string();
            match ask(&config, &Ask::Revoke { target, reason }).await {
                Ok(answer) if json => print_json(&answer),
                Ok(Answer::Revoked { sessions, ms }) => {
                    println!("revoked {whom}: {sessions} {} ended, in {ms} ms", plural(sessions, "session"));
                    ExitCode::SUCCESS
                }
                Ok(answer) => unexpected(answer),
                Err(code) => code,
            }
        }
        Verb::Sessions { verb: SessionsVerb::Ls { config, json } } => {
            match ask(&config, &Ask::Sessions).await {
                Ok(Answer::Sessions { sessions, alarm }) => {
                    print_sessions(&sessions, json);
                    let Some(alarm) = alarm else { return ExitCode::SUCCESS };
                    fail(&format!("ALARM: the ledger does not verify: {}", alarm.escape_debug()))
                }
                Ok(answer) => unexpected(answer),
                Err(code) => code,
            }
        }
        Verb::Policy { verb: PolicyVerb::Explain(args) } => explain::run(args).await,
        Verb::Policy { verb: PolicyVerb::Test(args) } => explain::test(args).await,
        Verb::Approvals(args) => args.run().await,
        Verb::Delegate(args) => crate::delegation::run(args).await,
        Verb::Demo(args) => crate::demo::run(args).await,
    }
}

/// Everything that can be known to be wrong before anything is served.
pub(crate) fn check(file: &std::path::Path) -> (Option<Config>, Report) {
    let config::Check { mut report, config } = config::check(file);
    if let Some(config) = &config {
        check_policies(config, &mut report);
    }
    (config, report)
}

fn check_policies(config: &Config, report: &mut Report) {
    let place = |mistake: &policy::Mistake| config.policies.join(&*mistake.file);
    match policy::PolicySet::load(&config.policies) {
        Ok(set) => {
            for file in set.files() {
                report.read(&config.policies.join(&*file.name));
            }
            for warning in set.warnings() {
                report.warning(&place(warning), warning.line as usize, warning.message.clone());
            }
            for mistake in set.check_against(&known(config)) {
                report.mistake(&place(&mistake), mistake.line as usize, mistake.message.clone());
            }
        }
        Err(mistakes) => {
            for mistake in mistakes {
                report.mistake(&place(&mistake), mistake.line as usize, mistake.message.clone());
            }
        }
    }
}

/// What policies may name.
pub(crate) fn known(config: &Config) -> policy::Known {
    let resource = |resource: &config::Resource| policy::KnownResource {
        databases: resource.databases.iter().cloned().collect(),
        roles: resource.roles.iter().map(|role| role.name.clone()).collect(),
    };
    policy::Known {
        issuers: config.issuers.iter().map(|issuer| issuer.name.clone()).collect(),
        resources: config.resources.iter().map(|known| (known.name.clone(), resource(known))).collect(),
    }
}

pub(crate) async fn ask(config: &ConfigArg, what: &Ask) -> Result<Answer, ExitCode> {
    let loaded = config::check(&config.config);
    let Some(config) = loaded.config else {
        eprint!("{}", loaded.report);
        return Err(fail("the configuration has mistakes, so its control socket is not known"));
    };
    control::ask(&config.control, what)
        .await
        .map_err(|error| fail(&format!("{error}; is the gateway running with this configuration?")))
}

pub(crate) fn unexpected(answer: Answer) -> ExitCode {
    match answer {
        Answer::Failed { error } => fail(&error),
        _ => fail("the gateway answered something else"),
    }
}

pub(crate) fn print_json(answer: &Answer) -> ExitCode {
    println!("{}", serde_json::to_string(answer).unwrap_or_default());
    if matches!(answer, Answer::Failed { .. }) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print_sessions(sessions: &[control::SessionLine], json: bool) {
    if json {
        for session in sessions {
            println!("{}", serde_json::to_string(session).unwrap_or_default());
        }
        return;
    }
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    println!("{:>8}  {:<36}  {:<28}  {:<16}  SINCE", "SESSION", "PRINCIPAL", "RESOURCE", "ROLE");
    for session in sessions {
        let minutes = now.saturating_sub(session.started_s) / 60;
        let clean = |text: &str| {
            text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>()
        };
        println!(
            "{:>8}  {:<36}  {:<28}  {:<16}  {minutes} min",
            session.session,
            clean(&session.principal),
            clean(&session.resource),
            clean(&session.role)
        );
    }
}

pub(crate) fn plural(count: u64, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

pub(crate) fn fail(message: &str) -> ExitCode {
    eprintln!("gatebook: {message}");
    ExitCode::FAILURE
}

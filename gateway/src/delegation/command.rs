//! `gatebook delegate`: runs a command with a part of one's rights, and takes them back when it ends.
//!
//! What a newcomer gets wrong: the command is told to end by whatever tells us to end, and only when it has ended is what was
//! handed down taken back; so it can still clean up. Nothing can be done after SIGKILL: then `--ttl` ends it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::remote::{Remote, RemoteArgs, TOKEN_VARIABLE, token};

/// How often the end is told before it is left to the time.
const END_TRIES: u32 = 3;
const END_PAUSE: Duration = Duration::from_millis(500);
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Run a command with a part of your rights, and take them back when it ends
///
/// The command finds a token in PGPASSWORD, and in GATEBOOK_TOKEN, so that it can itself run `gatebook delegate`, where --depth
/// lets it.
#[derive(Debug, clap::Args)]
pub(crate) struct DelegateArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// A resource that may be reached; may be repeated [default: those that you were handed down]
    #[arg(long = "resource", value_name = "NAME")]
    resources: Vec<String>,
    /// What may be done: read, write, define, or verbs such as insert
    #[arg(long, value_name = "ACTIONS", value_delimiter = ',')]
    actions: Vec<String>,
    /// A table, as schema.table, schema.* or database/schema.table; may be repeated [default: any]
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// A role of the upstream; may be repeated [default: any that you may be]
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// The most rows that one command may show
    #[arg(long, value_name = "ROWS")]
    rows: Option<u64>,
    /// How many commands may be executed
    #[arg(long, value_name = "COUNT")]
    commands: Option<u64>,
    /// For how long at most: 30s, 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration)]
    ttl: Option<Duration>,
    /// How many more levels the command may hand down itself
    #[arg(long, value_name = "LEVELS", default_value_t = 0)]
    depth: u8,
    /// What it is called in the ledger
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The file that holds the command's own token, where it has an identity; policy must then permit it as well
    #[arg(long, value_name = "FILE")]
    actor_token_file: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command; ends as it ends.
pub(crate) async fn run(args: DelegateArgs) -> ExitCode {
    match delegated(&args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gatebook delegate: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn delegated(args: &DelegateArgs) -> Result<ExitCode, String> {
    let failed = |error: std::io::Error| format!("cannot watch for signals: {error}");
    // Before there is anything to take back: from now on no signal ends us unnoticed.
    let mut signals = [
        (signal(SignalKind::terminate()).map_err(failed)?, Signal::TERM),
        (signal(SignalKind::interrupt()).map_err(failed)?, Signal::INT),
        (signal(SignalKind::hangup()).map_err(failed)?, Signal::HUP),
        (signal(SignalKind::quit()).map_err(failed)?, Signal::QUIT),
    ];
    let remote = Remote::new(&args.remote.url, args.remote.ca.as_deref())?;
    let handed = exchange(args, &remote).await?;
    let (program, arguments) = args.command.split_first().ok_or("name a command behind --")?;
    let started = tokio::process::Command::new(program)
        .args(arguments)
        .env("PGPASSWORD", handed.as_str())
        .env(TOKEN_VARIABLE, handed.as_str())
        .env("GATEBOOK_URL", &args.remote.url)
        .spawn();
    let ended = match started {
        Ok(mut child) => {
            let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
            let [term, int, hup, quit] = &mut signals;
            loop {
                let told = tokio::select! {
                    biased;
                    ended = child.wait() => break ended.map_err(|error| format!("the command is lost: {error}")),
                    Some(()) = term.0.recv() => term.1,
                    Some(()) = int.0.recv() => int.1,
                    Some(()) = hup.0.recv() => hup.1,
                    Some(()) = quit.0.recv() => quit.1,
                };
                if let Some(pid) = pid {
                    let _ = kill_process(pid, told);
                }
            }
        }
        Err(error) => Err(format!("cannot run {}: {error}", program.display())),
    };
    take_back(&remote, &handed).await;
    ended.map(code)
}

/// Asks for a token that can do less.
async fn exchange(args: &DelegateArgs, remote: &Remote) -> Result<Zeroizing<String>, String> {
    let own =
        token(args.remote.token_file.as_deref()).await.map_err(|error| format!("your token: {error}"))?;
    let actor = match &args.actor_token_file {
        None => None,
        Some(file) => Some(token(Some(file)).await.map_err(|error| format!("the actor's token: {error}"))?),
    };
    let numbers = [
        ("rows", args.rows),
        ("commands", args.commands),
        // A part of a second is less than what is asked for.
        ("expires_in", args.ttl.map(|ttl| ttl.as_secs())),
        ("depth", Some(u64::from(args.depth))),
    ];
    let numbers: Vec<(&str, String)> =
        numbers.into_iter().filter_map(|(name, number)| Some((name, number?.to_string()))).collect();
    let scope = args.actions.join(" ");
    let mut fields = vec![
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", own.as_str()),
        ("subject_token_type", JWT),
        ("scope", &scope),
    ];
    if let Some(actor) = &actor {
        fields.extend([("actor_token", actor.as_str()), ("actor_token_type", JWT)]);
    }
    for (name, values) in [("audience", &args.resources), ("table", &args.tables), ("role", &args.roles)] {
        fields.extend(values.iter().map(|value| (name, value.as_str())));
    }
    fields.extend(numbers.iter().map(|(name, number)| (*name, number.as_str())));
    fields.extend(args.name.iter().map(|name| ("name", name.as_str())));
    let answer =
        remote.form("/token", &fields).await.map_err(|error| format!("nothing was handed down: {error}"))?;
    let token = answer.get("access_token").and_then(Value::as_str);
    token.map(|token| Zeroizing::new(token.to_owned())).ok_or("the gateway answered without a token".into())
}

async fn take_back(remote: &Remote, handed: &str) {
    for left in (0..END_TRIES).rev() {
        match remote.form("/revoke", &[("token", handed)]).await {
            Ok(_) => return,
            Err(_) if left > 0 => tokio::time::sleep(END_PAUSE).await,
            Err(error) => {
                eprintln!(
                    "gatebook delegate: what was handed down could not be taken back ({error}); it ends by its time"
                );
            }
        }
    }
}

/// As a shell tells it: a command that a signal ended has 128 and its number.
fn code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

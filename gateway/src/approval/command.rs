//! `gatebook approvals`: for whoever is asked, at a terminal: over the control socket on the gateway's own machine, or over HTTPS from anywhere.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};

use serde::Deserialize;
use serde_json::json;

use super::{Id, Shown, seconds};
use crate::cli::{self, ConfigArg, fail, print_json, unexpected};
use crate::control::{Answer, Ask, Token};
use crate::remote::{self, Remote};

/// How often `--wait` looks; over HTTPS each look is in the ledger.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOK_EVERY_FAR: Duration = Duration::from_secs(3);

/// See commands that wait for somebody's approval, and answer
#[derive(Debug, Args)]
pub(crate) struct ApprovalsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List what waits for approval
    Ls {
        #[command(flatten)]
        at: At,
        /// List also what was answered, or came to nothing, lately
        #[arg(long)]
        all: bool,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one request: who asks, through whom, for exactly what
    Show {
        #[command(flatten)]
        at: At,
        /// The request, as 7Q5K-M2XW
        id: Id,
        /// Wait until it is answered, or came to nothing; succeed only if it was granted
        #[arg(long)]
        wait: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Approve one command, in your own name
    Approve {
        #[command(flatten)]
        answering: Answering,
        /// Approve the like of it in the same session too, for so long (as 10m): the same actions on the same objects
        #[arg(long, value_name = "TIME", value_parser = time)]
        session: Option<Duration>,
    },
    /// Deny one command, in your own name
    Deny {
        #[command(flatten)]
        answering: Answering,
    },
}

/// Which gateway, and who asks.
#[derive(Debug, Args)]
struct At {
    #[command(flatten)]
    config: ConfigArg,
    /// Ask over HTTPS, at this admin.url, in place of the control socket of --config
    #[arg(long, env = "GATEBOOK_URL", value_name = "URL")]
    url: Option<String>,
    /// Trust these certificate authorities (PEM) there instead of the system's
    #[arg(long, env = "GATEBOOK_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The file that holds your token; nobody else may read it [default: GATEBOOK_TOKEN in the environment]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Answering {
    #[command(flatten)]
    at: At,
    /// The request, as 7Q5K-M2XW
    id: Id,
    /// Why: it goes into the ledger
    #[arg(long, default_value = "")]
    reason: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl ApprovalsArgs {
    pub(crate) async fn run(self) -> ExitCode {
        match self.verb {
            Verb::Ls { at, all, json } => list(&at, all, json).await,
            Verb::Show { at, id, wait, json } => show(&at, id, wait, json).await,
            Verb::Approve { answering, session } => answering.send(true, session).await,
            Verb::Deny { answering } => answering.send(false, None).await,
        }
    }
}

/// What the API answers to a question for requests.
#[derive(Deserialize)]
struct Listed {
    approvals: Vec<Shown>,
}

impl At {
    async fn token(&self) -> Result<zeroize::Zeroizing<String>, ExitCode> {
        let token = remote::token(self.token_file.as_deref()).await;
        token.map_err(|error| fail(&format!("cannot read your token: {error}; gatebook token prints one")))
    }

    /// The requests that the gateway knows.
    async fn known(&self) -> Result<Vec<Shown>, ExitCode> {
        let Some(url) = &self.url else {
            return match cli::ask(&self.config, &Ask::Approvals).await? {
                Answer::Approvals { approvals } => Ok(approvals),
                answer => Err(unexpected(answer)),
            };
        };
        let token = self.token().await?;
        let asked = async { Remote::new(url, self.ca.as_deref())?.get("/v1/approvals", &token).await };
        let listed = asked.await.map_err(|error| fail(&error))?;
        let listed: Listed =
            serde_json::from_value(listed).map_err(|_| fail("the gateway answered something else"))?;
        Ok(listed.approvals)
    }

    /// Answers one of them.
    async fn answer(
        &self,
        id: Id,
        approve: bool,
        session: Option<Duration>,
        reason: &str,
    ) -> Result<Answer, ExitCode> {
        let token = self.token().await?;
        let session_s = session.map(|time| time.as_secs());
        let Some(url) = &self.url else {
            let what =
                Ask::Answer { id, approve, session_s, reason: reason.to_owned(), token: Token::new(&token) };
            return cli::ask(&self.config, &what).await;
        };
        let path = format!("/v1/approvals/{id}/answers");
        let mut body = json!({ "approve": approve, "reason": reason });
        if let Some(session_s) = session_s {
            body["session_s"] = session_s.into();
        }
        let asked = async { Remote::new(url, self.ca.as_deref())?.post(&path, &token, &body).await };
        let approval = asked.await.map_err(|error| fail(&error))?;
        let approval =
            serde_json::from_value(approval).map_err(|_| fail("the gateway answered something else"))?;
        Ok(Answer::Answered { approval })
    }
}

impl Answering {
    async fn send(self, approve: bool, session: Option<Duration>) -> ExitCode {
        match self.at.answer(self.id, approve, session, &self.reason).await {
            Ok(answer) if self.json => print_json(&answer),
            Ok(Answer::Answered { approval }) => {
                let given = approval.approved_by.len();
                match (approve, &*approval.state) {
                    (true, "pending") => {
                        println!("{}: {given} of {} have approved", approval.id, approval.quorum)
                    }
                    (true, _) => println!("{}: approved", approval.id),
                    (false, _) => println!("{}: denied", approval.id),
                }
                ExitCode::SUCCESS
            }
            Ok(answer) => unexpected(answer),
            Err(code) => code,
        }
    }
}

async fn list(at: &At, all: bool, json: bool) -> ExitCode {
    let known = match at.known().await {
        Ok(known) => known,
        Err(code) => return code,
    };
    let chosen: Vec<_> = known.iter().filter(|shown| all || shown.state == "pending").collect();
    if json {
        chosen.iter().for_each(|shown| println!("{}", serde_json::to_string(shown).unwrap_or_default()));
        return ExitCode::SUCCESS;
    }
    println!(
        "{:<9}  {:<9}  {:>6}  {:<28}  {:<24}  STATEMENT",
        "REQUEST", "STATE", "LEFT", "PRINCIPAL", "APPROVERS"
    );
    for shown in chosen {
        let statement = shown.commands.first().map_or("", |command| &command.statement);
        println!(
            "{:<9}  {:<9}  {:>6}  {:<28}  {:<24}  {}",
            shown.id,
            shown.state,
            left(shown),
            clean(&shown.principal),
            clean(&approvers(shown)),
            clean(statement).chars().take(120).collect::<String>(),
        );
    }
    ExitCode::SUCCESS
}

async fn show(at: &At, id: Id, wait: bool, json: bool) -> ExitCode {
    let id = id.to_string();
    loop {
        let known = match at.known().await {
            Ok(known) => known,
            Err(code) => return code,
        };
        let Some(shown) = known.into_iter().find(|shown| shown.id == id) else {
            return fail(&format!("there is no request {id}, or it is long over"));
        };
        if wait && shown.state == "pending" {
            tokio::time::sleep(if at.url.is_some() { LOOK_EVERY_FAR } else { LOOK_EVERY }).await;
            continue;
        }
        if json {
            println!("{}", serde_json::to_string(&shown).unwrap_or_default());
        } else {
            print!("{}", told(&shown));
        }
        let well = !wait || matches!(&*shown.state, "granted" | "used");
        return if well { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
}

/// A request in full, for a terminal. Everything that came from outside is stripped of what a terminal obeys.
fn told(shown: &Shown) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("{name:<12} {}\n", clean(value)));
        }
    };
    line("request", &format!("{}  {}", shown.id, shown.state));
    line("principal", &shown.principal);
    line("through", &shown.through.join(" > "));
    line("resource", &format!("{} as {}", shown.resource, shown.role));
    line("search path", &shown.search_path);
    for command in &shown.commands {
        // Its lines stay lines: what follows a comment must not look like a part of it.
        let mut name = "statement";
        for text in command.statement.lines() {
            line(std::mem::take(&mut name), text);
        }
        line("sent as", command.sent.as_deref().unwrap_or_default());
        if command.cut {
            line("", "(cut: it is longer than is shown; its record in the ledger is whole)");
        }
        let parameters = command.parameters.iter().enumerate();
        parameters.for_each(|(at, value)| {
            line("", &format!("${} = {}", at + 1, value.as_deref().unwrap_or("NULL")))
        });
        line("actions", &command.actions.join(", "));
    }
    line("objects", &shown.objects.join(", "));
    line("reason", shown.reason.as_deref().unwrap_or_default());
    line("policies", &shown.policies.join(", "));
    line("approvers", &approvers(shown));
    line("approved by", &shown.approved_by.join(", "));
    line("denied by", shown.denied_by.as_deref().unwrap_or_default());
    line("because", shown.answer_reason.as_deref().unwrap_or_default());
    if shown.in_transaction {
        line("transaction", &format!("open; holds {}", shown.locks.join(", ")));
    }
    line("left", &left(shown));
    line("digest", &shown.digest);
    text
}

fn approvers(shown: &Shown) -> String {
    shown.approvers.join(", and ")
}

fn left(shown: &Shown) -> String {
    if shown.state != "pending" {
        return String::new();
    }
    match shown.until_s.saturating_sub(seconds(SystemTime::now())) {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// Text without what a terminal obeys.
fn clean(text: &str) -> String {
    let hostile = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars()
        .map(|c| {
            if c == '\n' || c == '\t' {
                ' '
            } else if hostile(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// A time as digits and one of `s`, `m`, `h`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time (for example 10m)");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(wrong)
}

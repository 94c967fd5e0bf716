//! The command line of the auditor's terminal.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use gatebook_replay::load::Pins;
use gatebook_replay::message::SessionId;
use gatebook_replay::{headless, run, text};

/// What usage errors and ledgers that cannot be read end with, as in `gatebook-ledger`.
const UNREADABLE: u8 = 3;

/// Verify a ledger and replay any session in it.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The ledger's directory, live or at rest. It is only read; a gateway that writes it is not disturbed
    #[arg(required = true)]
    directory: Option<PathBuf>,
    /// Open this session at once
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    #[command(flatten)]
    pins: PinArguments,
}

#[derive(Args)]
struct PinArguments {
    /// The log's verifier key, or a file that holds it (from `gatebook-ledger key DIR --vkey`, kept by you, not by
    /// the ledger's keeper). Without it nothing is more than consistent with itself
    #[arg(long, value_name = "VKEY")]
    key: Option<String>,
    /// A checkpoint that was kept outside of the ledger; may be given several times
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// A witness's verifier key, or a file that holds it: it must have cosigned; may be given several times
    #[arg(long, value_name = "VKEY")]
    witness: Vec<String>,
}

#[derive(Subcommand)]
enum Verb {
    /// Print everything that a session did, in order: statements, parameters, decisions, outcomes
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The ledger's directory
        directory: PathBuf,
        /// The session's number
        session: SessionId,
        /// One JSON object a line, exact
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        pins: PinArguments,
    },
    /// Print one line for each session
    Sessions {
        /// The ledger's directory
        directory: PathBuf,
        /// One JSON object a line, exact
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        pins: PinArguments,
    },
}

const EXAMPLES: &str = "\
Examples:
  gatebook-replay ./ledger                        look around; ? shows the keys
  gatebook-replay ./ledger --key gateway.vkey     … with the key that you pinned
  gatebook-replay ./ledger --session 17           open one session
  gatebook-replay sessions ./ledger               list sessions without a screen
  gatebook-replay show ./ledger 17 --json | jq -r 'select(.decision == \"refuse\") | .statement'

Ends with 0 where the ledger is verified and anchored, 1 tampered, 2 incomplete, 3 not readable or wrong usage,
4 verified but no key pinned or nothing to anchor it. (The screen ends with 0 whatever it shows.)";

const SHOW_EXAMPLES: &str = "\
Examples:
  gatebook-replay show ./ledger 17
  gatebook-replay show ./ledger 17 --json --key gateway.vkey";

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { UNREADABLE } else { 0 };
            // Nothing is left to be done where even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match act(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("gatebook-replay: {}", text::exact(error.to_string().as_bytes()));
            ExitCode::from(UNREADABLE)
        }
    }
}

fn act(arguments: Arguments) -> Result<u8, Box<dyn std::error::Error>> {
    match arguments.verb {
        Some(Verb::Show { directory, session, json, pins }) => {
            Ok(headless::show(&directory, session, &pins.read()?, json)?)
        }
        Some(Verb::Sessions { directory, json, pins }) => {
            Ok(headless::sessions(&directory, &pins.read()?, json)?)
        }
        None => {
            if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
                return Err(
                    "the screen needs a terminal; without one, use: gatebook-replay sessions DIR".into()
                );
            }
            let directory = arguments.directory.unwrap_or_default();
            run::run(directory, arguments.pins.read()?, arguments.session)?;
            Ok(0)
        }
    }
}

impl PinArguments {
    fn read(self) -> Result<Pins, Box<dyn std::error::Error>> {
        Ok(Pins::read(self.key.as_deref(), &self.checkpoint)?.with_witnesses(&self.witness)?)
    }
}

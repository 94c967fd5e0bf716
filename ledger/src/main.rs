//! `gatebook-ledger`: what an auditor runs. One module a verb; each takes its arguments and gives the exit code.
#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gatebook_ledger::text::line;

mod cli;

/// Usage, or unreadable.
const UNREADABLE: u8 = 3;

/// Verifies, shows, exports and witnesses Gatebook ledgers.
#[derive(Parser)]
#[command(name = "gatebook-ledger", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Verify(cli::verify::Arguments),
    Show(cli::show::Arguments),
    Find(cli::find::Arguments),
    Export(cli::export::Arguments),
    Key(cli::key::Arguments),
    Keys(cli::keys::Arguments),
    Rotate(cli::rotate::Arguments),
    RebuildIndex(cli::rebuild_index::Arguments),
    Archive(cli::archive::Arguments),
    Backup(cli::backup::Arguments),
    Doctor(cli::doctor::Arguments),
    Stat(cli::stat::Arguments),
    Witness(cli::witness::Arguments),
}

impl Verb {
    fn run(self) -> io::Result<u8> {
        match self {
            Verb::Verify(arguments) => cli::verify::run(&arguments),
            Verb::Show(arguments) => cli::show::run(&arguments),
            Verb::Find(arguments) => cli::find::run(&arguments),
            Verb::Export(arguments) => cli::export::run(&arguments),
            Verb::Key(arguments) => cli::key::run(&arguments),
            Verb::Keys(arguments) => cli::keys::run(&arguments),
            Verb::Rotate(arguments) => cli::rotate::run(&arguments),
            Verb::RebuildIndex(arguments) => cli::rebuild_index::run(&arguments),
            Verb::Archive(arguments) => cli::archive::run(&arguments),
            Verb::Backup(arguments) => cli::backup::run(&arguments),
            Verb::Doctor(arguments) => cli::doctor::run(&arguments),
            Verb::Stat(arguments) => cli::stat::run(&arguments),
            Verb::Witness(arguments) => cli::witness::run(&arguments),
        }
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { UNREADABLE } else { 0 };
            // Where even this cannot be printed, the exit code still says it.
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match arguments.verb.run() {
        Ok(code) => ExitCode::from(code),
        // A reader that closed the pipe has seen what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gatebook-ledger: {}", line(&error.to_string()));
            ExitCode::from(UNREADABLE)
        }
    }
}

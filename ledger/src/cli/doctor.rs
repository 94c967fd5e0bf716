//! `doctor`: what is wrong, and what can be done.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use gatebook_ledger::doctor::examine;
use gatebook_ledger::text::{self, line};
use gatebook_ledger::{Directory, event};

/// Looks for what an operator can mend: files that are missing, open to others, left over, or elsewhere. Changes nothing.
///
/// Exits 0 where all is well or only small things are not, 1 where the ledger cannot be read, written or believed. It does
/// not read the entries: `verify` does.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory.
    dir: PathBuf,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let complaints = examine(&Directory::open(&arguments.dir)?, event::words)?;
    let mut out = io::stdout().lock();
    for complaint in &complaints {
        if arguments.json {
            writeln!(out, "{}", text::json(complaint)?)?;
        } else {
            let mark = if complaint.grave { '✘' } else { '–' };
            writeln!(out, "{mark} {}\n    {}", line(&complaint.what), line(&complaint.remedy))?;
        }
    }
    if complaints.is_empty() && !arguments.json {
        writeln!(out, "✔ nothing is wrong that can be seen without reading the entries")?;
    }
    Ok(u8::from(complaints.iter().any(|complaint| complaint.grave)))
}

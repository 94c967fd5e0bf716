//! `stat`: what a ledger comes to.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use gatebook_ledger::stat::{Files, Stat, stat};
use gatebook_ledger::text::{self, line};
use time::OffsetDateTime;

use super::{bytes, instant, open};

/// Shows sizes, entries, sessions, the epoch, and how old the newest checkpoint is. It judges nothing.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory, or an export.
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let stat = stat(&open(&arguments.dir)?)?;
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", text::json(&stat)?)?;
    } else {
        print(&mut out, &stat)?;
    }
    Ok(0)
}

fn print(out: &mut impl Write, stat: &Stat) -> io::Result<()> {
    writeln!(
        out,
        "origin      {}{}",
        line(&stat.origin),
        if stat.writer { "   (being written)" } else { "" }
    )?;
    writeln!(out, "entries     {} in {} sessions, epoch {}", stat.entries, stat.sessions, stat.epoch)?;
    if let (Some(first), Some(last)) = (stat.first_ns, stat.last_ns) {
        writeln!(out, "time        {} to {}", instant(first), instant(last))?;
    }
    match stat.checkpoint {
        Some(checkpoint) => {
            let signed = checkpoint.time_ns.map_or_else(|| "at an unknown time".to_owned(), age);
            let after = checkpoint.entries_after;
            writeln!(out, "checkpoint  at {}, signed {signed}; {after} entries are newer", checkpoint.size)?;
        }
        None => writeln!(out, "checkpoint  none")?,
    }
    for (name, files) in [
        ("segments", stat.segments),
        ("archived", stat.archived),
        ("tiles", stat.tiles),
        ("index", stat.index),
        ("quarantine", stat.quarantine),
    ] {
        let Files { files, bytes: length } = files;
        writeln!(out, "{name:<11} {} in {files} files", bytes(length))?;
    }
    Ok(())
}

/// A time, and how long ago that is.
fn age(time_ns: u64) -> String {
    let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos()).unwrap_or(0);
    let seconds = now.saturating_sub(time_ns) / 1_000_000_000;
    let ago = match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    };
    format!("{} ({ago} ago)", instant(time_ns))
}

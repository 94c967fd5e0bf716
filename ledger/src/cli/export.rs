//! `export`: hands a ledger, or a part of it, to an auditor.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use gatebook_ledger::export::{Wanted, bundle};
use gatebook_ledger::reader::{self, Item};
use gatebook_ledger::text::line;
use gatebook_ledger::{Directory, Storage};

use super::{open, read_small, show};

/// Copies a ledger, or a part of it, into a new directory that a stranger can judge alone.
///
/// Each bundle holds its proofs, a README and verify.py, which needs only Python with blake3 and cryptography.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory.
    dir: PathBuf,
    /// The directory to make.
    #[arg(long)]
    out: PathBuf,
    /// Only the entries from A up to but not including B, with the segments that hold them.
    #[arg(long, value_name = "A..B", value_parser = range, conflicts_with = "session")]
    range: Option<(u64, u64)>,
    /// Only one session, which is closed; nothing of any other.
    #[arg(long, value_name = "NUMBER")]
    session: Option<u64>,
    /// The checkpoint of an earlier export, or that export: this one then proves that it continues it.
    #[arg(long, value_name = "FILE|DIR")]
    previous: Option<PathBuf>,
    /// Adds the entries as text, one JSON object a line, in entries.jsonl.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line.
    Jsonl,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let ends =
        text.split_once("..").and_then(|(first, end)| Some((first.parse().ok()?, end.parse::<u64>().ok()?)));
    match ends {
        Some((first, end)) if first < end => Ok((first, end - 1)),
        _ => Err("a range is A..B, two numbers, A less than B".to_owned()),
    }
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let from = open(&arguments.dir)?;
    let wanted = match (arguments.session, arguments.range) {
        (Some(session), _) => Wanted::Session(session),
        (None, Some((first, last))) => Wanted::Range { first, last },
        (None, None) => Wanted::Ledger,
    };
    let previous = arguments.previous.as_deref().map(previous).transpose()?;
    let to = Directory::create(&arguments.out)?;
    let exported = bundle(&from, &to, wanted, previous.as_deref())?;
    if arguments.format == Some(Format::Jsonl) {
        readable(&from, &arguments.out, wanted)?;
    }
    let shown = line(&arguments.out.to_string_lossy());
    let published = exported.published;
    match wanted {
        Wanted::Session(number) => println!("{shown}: session {number}, proven under {published} entries"),
        _ => println!("{shown}: {} segments, {published} entries under the checkpoint", exported.segments),
    }
    Ok(0)
}

fn previous(path: &Path) -> io::Result<Vec<u8>> {
    read_small(&if path.is_dir() { path.join("checkpoint") } else { path.to_owned() })
}

/// The entries as text. It proves nothing; the bundle beside it does.
fn readable(from: &Directory, out: &Path, wanted: Wanted) -> io::Result<()> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out.join("entries.jsonl"))?;
    let mut file = io::BufWriter::new(file);
    let mut failed = None;
    reader::visit(from as &dyn Storage, None, |item| {
        let Item::Entry { place, entry, payload } = item else { return std::ops::ControlFlow::Continue(()) };
        let is_wanted = match wanted {
            Wanted::Ledger => true,
            Wanted::Range { first, last } => (first..=last).contains(&entry.header.seq),
            Wanted::Session(number) => entry.header.session == number,
        };
        match if is_wanted { show::show_json(&mut file, place, &entry, payload) } else { Ok(()) } {
            Ok(()) => std::ops::ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                std::ops::ControlFlow::Break(())
            }
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => file.flush(),
    }
}

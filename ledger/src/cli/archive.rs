//! `archive`: sealed segments go elsewhere.

use std::io;
use std::path::PathBuf;

use clap::Args;
use gatebook_ledger::text::line;

use super::{bytes, open, parse_bytes};

/// Moves the oldest sealed segments to another folder, from which every command still reads them.
///
/// Each is copied, synced, read back and compared before it is removed here. The gateway may be running; it does the same by
/// itself where `[ledger] archive` is set.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory.
    dir: PathBuf,
    /// The folder to move them to, one for this ledger alone; it is made where it does not exist.
    #[arg(long)]
    to: PathBuf,
    /// How much stays here at most: `500MiB`, `20GiB`. What the writer starts from stays anyway: the two newest
    /// sealed segments that the checkpoint covers, and what is newer.
    #[arg(long, value_parser = parse_bytes, default_value = "0")]
    keep: u64,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let storage = open(&arguments.dir)?;
    let archived = gatebook_ledger::archive::archive(&storage, &arguments.to, arguments.keep)?;
    let to = line(&arguments.to.to_string_lossy());
    println!("{} segments, {}, are now in {to}", archived.segments, bytes(archived.bytes));
    Ok(0)
}

//! `export`: copies a ledger for an auditor.

use std::io;
use std::path::PathBuf;

use clap::Args;
use gatebook_ledger::text::line;
use gatebook_ledger::{Directory, export};

use super::open;

/// Copies the ledger, with a whole tlog-tiles directory, into a new directory.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory.
    dir: PathBuf,
    /// The directory to make.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let to = Directory::create(&arguments.out)?;
    let exported = export::export(&open(&arguments.dir)?, &to)?;
    let (segments, published) = (exported.segments, exported.published);
    println!(
        "{}: {segments} segments, {published} entries under the checkpoint",
        line(&arguments.out.to_string_lossy())
    );
    Ok(0)
}

//! `backup`: a copy from which the ledger can be gone on with.

use std::io;
use std::path::PathBuf;

use clap::Args;
use gatebook_ledger::Directory;
use gatebook_ledger::text::line;

use super::{bytes, open};

/// Copies the ledger into a new directory; the gateway may be running.
///
/// The copy is a prefix that verifies, archived segments among it. The signing keys are elsewhere: back them up for
/// themselves, or not at all.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory.
    dir: PathBuf,
    /// The directory to make.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let storage = open(&arguments.dir)?;
    let to = Directory::create(&arguments.out)?;
    let copied = gatebook_ledger::backup::backup(&storage, &to)?;
    println!(
        "{}: {} segments, {}, {} entries under the checkpoint",
        line(&arguments.out.to_string_lossy()),
        copied.segments,
        bytes(copied.bytes),
        copied.published
    );
    Ok(0)
}

//! `key`: the ledger's public keys.

use std::io;
use std::path::PathBuf;

use clap::Args;
use gatebook_ledger::reader;

use super::open;

/// Shows the ledger's keys.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory, or an export.
    dir: PathBuf,
    /// Print the verifier key of the log key alone: what an auditor pins.
    #[arg(long)]
    vkey: bool,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let manifest = reader::manifest(&open(&arguments.dir)?)?;
    if arguments.vkey {
        println!("{}", manifest.vkey());
    } else {
        let [log, epoch] = manifest.checkpoint_keys();
        println!("log    {log}\nepoch  {epoch}\nroot   {:?}", manifest.root_key);
    }
    Ok(0)
}

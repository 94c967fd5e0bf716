//! `key`: the ledger's public keys.

use std::io;
use std::path::PathBuf;

use clap::Args;
use gatebook_ledger::checkpoint::Vkey;
use gatebook_ledger::{reader, standing};

use super::{instant, open};

/// Shows the ledger's keys.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory, or an export.
    dir: PathBuf,
    /// Print the verifier key of the log key in force alone: what an auditor pins.
    #[arg(long)]
    vkey: bool,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let storage = open(&arguments.dir)?;
    let manifest = reader::manifest(&storage)?;
    let authority = standing::authority(&storage, &manifest)?;
    let log = Vkey::log(&manifest.origin, authority.log.key);
    if arguments.vkey {
        println!("{log}");
        return Ok(0);
    }
    println!("log       {log}");
    if let Some(retiring) = authority.retiring {
        let until = instant(retiring.until_ns);
        println!("retiring  {}  until {until}", Vkey::log(&manifest.origin, retiring.was.key));
    }
    if let Some(epoch) = standing::epoch(&storage, None)? {
        let since = instant(epoch.since_ns);
        println!("epoch     {}  since {since}", Vkey::epoch(&manifest.origin, epoch.number, epoch.key));
    }
    println!("root      {:?}", authority.root.key);
    Ok(0)
}

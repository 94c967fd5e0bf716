//! `rebuild-index`: makes the index anew.

use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use gatebook_ledger::{event, index, reader};

use super::open;

/// Makes the index anew from the segments; the old one is removed.
///
/// The gateway does this by itself, in the background. Exits 3 where the gateway is just at it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory.
    dir: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let storage = open(&arguments.dir)?;
    reader::manifest(&storage)?;
    let folder = arguments.dir.join(index::NAME);
    // Taken first, so that none is moved away under whoever has it.
    drop(index::open(&folder, &storage, event::words)?);
    index::move_aside(&folder)?;
    let (mut index, _) = index::open(&folder, &storage, event::words)?;
    let shows = io::stderr().is_terminal();
    let covered = index.catch_up(&storage, &mut |covered| {
        if shows {
            eprint!("\r{} entries", covered.entries);
        }
        ControlFlow::Continue(())
    })?;
    if shows {
        eprint!("\r\u{1b}[K");
    }
    index::forget_aside(&folder)?;
    println!("the index covers {} entries", covered.entries);
    Ok(0)
}

//! `rotate`: ends an epoch by hand, and takes the root key's orders. The gateway does both by itself while it runs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use gatebook_ledger::{Limits, SystemSalts, Writer, keys};

use super::open;

/// Seals the present epoch and erases its key, while no gateway runs on this ledger. Takes orders that were brought.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ledger's directory.
    dir: PathBuf,
    /// The folder of its keys.
    #[arg(long)]
    keys: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let storage = Arc::new(open(&arguments.dir)?);
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    };
    let keys = keys::load(&arguments.keys).map_err(io::Error::other)?;
    let salts = Box::new(SystemSalts::default());
    let (mut writer, _) = Writer::open(storage, Box::new(keys), salts, Limits::default(), now())
        .map_err(|error| io::Error::other(error.to_string()))?;
    let sealed = writer.epoch().number;
    writer.rotate(now()).map_err(io::Error::other)?;
    let orders = writer.authority().orders;
    writer.close(now()).map_err(io::Error::other)?;
    println!("epoch {sealed} is sealed and its key erased; {orders} orders were taken so far");
    Ok(0)
}

//! `keys`: makes keys, and what the root key signs. The root key's folder may be on a machine without network: what
//! goes to it is two public keys, and what comes back is a text.

use std::io;
use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use gatebook_ledger::keys::{FolderKeys, load};
use gatebook_ledger::manifest::Manifest;
use gatebook_ledger::orders::{Cause, Change, Order};
use gatebook_ledger::signature::{PublicKey, Role};
use gatebook_ledger::{Keys as _, Origin};

/// Makes a ledger's keys, and certifies them where the root key is.
///
/// A root key that is never on the gateway: `keys create-root ROOT` on its own machine, `keys create FOLDER` on the
/// gateway, `keys certify ROOT …` on the first with what the second printed, and its output as FOLDER/ledger.toml.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes a folder with a log key and the key of epoch 0, without a root key.
    Create {
        /// The folder: `ledger.keys` of the gateway's configuration.
        folder: PathBuf,
    },
    /// Makes a folder with a root key alone.
    CreateRoot {
        /// The folder.
        folder: PathBuf,
    },
    /// Prints the `ledger.toml` of a new ledger, certified by the root key.
    Certify {
        /// The root key's folder.
        folder: PathBuf,
        /// The ledger's name, as in the gateway's configuration.
        #[arg(long)]
        origin: String,
        /// The public log key.
        #[arg(long, value_name = "BASE64")]
        log_key: String,
        /// The public key of epoch 0.
        #[arg(long, value_name = "BASE64")]
        epoch_key: String,
    },
    /// Draws the log key that an order will bring, and prints its public half.
    NextLog {
        /// The gateway's keys' folder.
        folder: PathBuf,
        /// The number of the order.
        #[arg(long)]
        number: u32,
    },
    /// Prints an order of the root key, to be put into the gateway's keys' folder as ledger-order-NUMBER.json.
    ///
    /// The ledger takes it when it is opened next: at the gateway's start, or by `gatebook-ledger rotate`.
    Order {
        /// The root key's folder.
        folder: PathBuf,
        /// The ledger's name.
        #[arg(long)]
        origin: String,
        /// The order's number: 1 for a ledger's first.
        #[arg(long)]
        number: u32,
        /// The public log key from now on; the present one, where only the root key changes.
        #[arg(long, value_name = "BASE64")]
        log_key: String,
        /// How many days the old log key signs along.
        #[arg(long, default_value_t = 30)]
        overlap_days: u64,
        /// The old key may be in other hands: it signs nothing more.
        #[arg(long)]
        revoke: bool,
        /// Draws a new root key too, which signs the orders after this one.
        #[arg(long)]
        new_root: bool,
    },
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    match &arguments.verb {
        Verb::Create { folder } => {
            let mut keys = FolderKeys::create(folder).map_err(io::Error::other)?;
            for role in [Role::Log(0), Role::Epoch(0)] {
                let public = keys.draw(role).map_err(io::Error::other)?;
                println!("--{}-key {}", role.name(), STANDARD.encode(public.bytes()));
            }
        }
        Verb::CreateRoot { folder } => {
            let mut keys = FolderKeys::create(folder).map_err(io::Error::other)?;
            keys.draw(Role::Root(0)).map_err(io::Error::other)?;
        }
        Verb::Certify { folder, origin, log_key, epoch_key } => {
            let keys = load(folder).map_err(io::Error::other)?;
            let (log, epoch) = (public(log_key)?, public(epoch_key)?);
            let manifest = Manifest::certify(&named(origin)?, log, epoch, &keys).map_err(io::Error::other)?;
            print!("{}", manifest.text());
        }
        Verb::NextLog { folder, number } => {
            let mut keys = load(folder).map_err(io::Error::other)?;
            let role = Role::Log(*number);
            if *number == 0 || keys.held().contains(&role) {
                return Err(wrong(&format!("{} has a {role} already, or 0 was asked for", folder.display())));
            }
            println!("--log-key {}", STANDARD.encode(keys.draw(role).map_err(io::Error::other)?.bytes()));
        }
        Verb::Order { folder, origin, number, log_key, overlap_days, revoke, new_root } => {
            let mut keys = load(folder).map_err(io::Error::other)?;
            let root = keys.held().into_iter().rfind(|role| matches!(role, Role::Root(_)));
            let root = root.ok_or_else(|| wrong(&format!("{} has no root key", folder.display())))?;
            let change = Change {
                number: *number,
                cause: if *revoke { Cause::Revoked } else { Cause::Rotated },
                overlap_s: overlap_days.saturating_mul(86_400),
                log_key: public(log_key)?,
            };
            let next = new_root.then_some(Role::Root(*number));
            if let Some(next) = next {
                if keys.held().contains(&next) {
                    return Err(wrong(&format!("{} has a {next} already", folder.display())));
                }
                keys.draw(next).map_err(io::Error::other)?;
            }
            let order = Order::sign(&named(origin)?, change, &keys, root, next).map_err(io::Error::other)?;
            println!("{}", order.body());
        }
    }
    Ok(0)
}

fn named(origin: &str) -> io::Result<Origin> {
    Origin::new(origin).map_err(|error| wrong(&error.to_string()))
}

fn public(text: &str) -> io::Result<PublicKey> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.and_then(|bytes| PublicKey::new(&bytes)).ok_or_else(|| wrong("not a public key in base64"))
}

fn wrong(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

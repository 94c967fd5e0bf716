//! `witness`: remembers the newest checkpoint of each log that it is told of, and cosigns newer ones.
//!
//! What a newcomer gets wrong: it belongs on a machine that the gateway's administrators do not hold. Its
//! directory is its memory: whoever puts back an older copy of it makes it forget.

mod http;
mod serve;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use gatebook_ledger::text::line;
use gatebook_ledger::witness::{CosignerKey, Witness};
use gatebook_ledger::{Directory, Origin};
use zeroize::Zeroizing;

use super::read_key;

const KEY: &str = "witness.key";
const PREFIX: &str = "gatebook-witness-key/v1";

/// Runs a witness (C2SP tlog-witness): cosigns checkpoints of logs, each only if it holds the one before.
///
/// Run it on a machine that the gateway's administrators do not hold. Exits 3 where it cannot start.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The witness's directory: its key and its memory. It is made where it does not exist.
    dir: PathBuf,
    /// The witness's name, such as witness.example.org/w1. Needed once, when its key is made.
    #[arg(long)]
    name: Option<String>,
    /// A log's verifier key, or a file that holds it; may be given again. Other logs are not served.
    #[arg(long, value_name = "VKEY|FILE")]
    log: Vec<String>,
    /// Where to listen for HTTP. Checkpoints are public and signed, so it needs no TLS of its own.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Print the witness's verifier key alone, and stop: what gateways and auditors pin.
    #[arg(long, conflicts_with_all = ["log", "listen"])]
    vkey: bool,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<u8> {
    let key = load_or_create(&arguments.dir, arguments.name.as_deref())?;
    let cosigner = key.cosigner().map_err(io::Error::other)?;
    if arguments.vkey {
        println!("{cosigner}");
        return Ok(0);
    }
    let usage = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let listen = arguments.listen.ok_or_else(|| usage("--listen says where to listen; it is missing"))?;
    if arguments.log.is_empty() {
        return Err(usage("--log names a log to witness; it is missing"));
    }
    let logs = arguments.log.iter().map(|given| read_key("--log", given)).collect::<io::Result<Vec<_>>>()?;
    let witness = Witness::open(Box::new(Directory::open(&arguments.dir)?), key, logs)?;
    let server = serve::Server::bind(listen)?;
    println!("witness  {cosigner}");
    for (origin, size) in witness.logs()? {
        println!("log      {}  {size} entries cosigned", line(origin));
    }
    println!("listens  http://{}", server.address()?);
    io::stdout().flush()?;
    server.run(&witness)
}

/// Reads the witness's key; makes one where there is none and a name is given.
fn load_or_create(dir: &Path, name: Option<&str>) -> io::Result<CosignerKey> {
    let path = dir.join(KEY);
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    if !path.exists() {
        let name = name
            .ok_or_else(|| invalid(format!("{} holds no witness's key; --name makes one", dir.display())))?;
        let name = Origin::new(name).map_err(|error| invalid(format!("--name: {error}")))?;
        create(&path, &name)?;
    }
    let (known, seed) = read(&path)?;
    if name.is_some_and(|name| name != known.as_str()) {
        return Err(invalid(format!("--name: this witness is {known}; another name is another witness")));
    }
    Ok(CosignerKey::new(known, &seed))
}

fn create(path: &Path, name: &Origin) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    if !folder.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let seed = gatebook_ledger::signature::random_seed().map_err(io::Error::other)?;
    let encoded = Zeroizing::new(STANDARD.encode(seed.as_ref()));
    let text = Zeroizing::new(format!("{PREFIX} {name} {}\n", encoded.as_str()));
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    File::open(folder)?.sync_all()
}

fn read(path: &Path) -> io::Result<(Origin, Zeroizing<[u8; 32]>)> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{} {what}", path.display()));
    let file = File::open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display())))?;
    if file.metadata()?.mode() & 0o077 != 0 {
        return Err(bad("is open to group or others; make it 0600"));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(512).read_to_string(&mut text)?;
    let not_one = || bad("is not a witness's key");
    let mut fields = text.strip_suffix('\n').ok_or_else(not_one)?.split(' ');
    let (Some(PREFIX), Some(name), Some(encoded), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(not_one());
    };
    let mut seed = Zeroizing::new([0; 32]);
    match STANDARD.decode_slice(encoded, seed.as_mut()) {
        Ok(32) => Ok((Origin::new(name).map_err(|_| not_one())?, seed)),
        _ => Err(not_one()),
    }
}

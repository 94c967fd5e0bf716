//! The ledger's figures, side by side in one run: `tests/bench/run-ledger [--json] [--quick] [--dir DIR]`.
//!
//! Durable appends in turns with a bare file that writes and syncs the same bytes, verification on one thread and on all,
//! memory at two lengths, an index opened and asked. What a newcomer gets wrong: on a machine that does other things too,
//! wall-clock says little. Look at the lower percentiles and at processor time; each measurement of memory is a process of its own.
#![forbid(unsafe_code)]

mod append;
mod large;
mod machine;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use gatebook_ledger::{Directory, Draft, Kind, Limits, MemoryKeys, Origin, SystemSalts, Writer, event};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A body of 96 bytes: with its header an entry of 200.
const BODY: &[u8] =
    br#"{"decision":"permit","effect":"reads","phase":"execute","request":123456,"statement_bytes":1234}"#;
/// So many entries has a session.
const SESSION_ENTRIES: u64 = 100;

struct Options {
    json: bool,
    quick: bool,
    dir: PathBuf,
}

const USAGE: &str = "usage: ledger [--json] [--quick] [--dir DIR]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // A process of its own, for its own peak of memory.
        ["part", name, dir, entries] => large::part(name, Path::new(dir), entries),
        _ => options(&arguments).and_then(|options| run(&options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ledger: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(arguments: &[String]) -> Outcome<Options> {
    let dir = std::env::temp_dir().join(format!("gatebook-ledger-bench-{}", std::process::id()));
    let mut options = Options { json: false, quick: false, dir };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => options.json = true,
            "--quick" => options.quick = true,
            "--dir" => options.dir = arguments.next().ok_or(USAGE)?.into(),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Outcome<()> {
    std::fs::create_dir(&options.dir)?;
    let result = measure(options);
    std::fs::remove_dir_all(&options.dir)?;
    let report = result?;
    if options.json {
        println!("{report}");
    } else {
        println!("{report:#}");
    }
    Ok(())
}

fn measure(options: &Options) -> Outcome<Value> {
    let (rounds, lengths) =
        if options.quick { (20, [10_000, 100_000]) } else { (100, [1_000_000, 10_000_000]) };
    let mut appends = Vec::new();
    for batch in [1, 10, 100, 1000] {
        eprintln!("appends, {batch} a commit");
        appends.push(append::append(&options.dir, batch, rounds)?);
    }
    let mut sizes = Vec::new();
    for entries in lengths {
        let dir = options.dir.join(entries.to_string());
        let part = |name: &str| apart(name, &dir, entries);
        let mut figures = json!({"entries": entries});
        for name in ["write", "verify-1", "verify-all", "index", "find"] {
            eprintln!("{entries} entries: {name}");
            figures[name] = part(name)?;
        }
        sizes.push(figures);
        std::fs::remove_dir_all(&dir)?;
    }
    let dir = options.dir.join("payloads");
    eprintln!("payloads");
    let payloads = json!({
        "write": apart("write-payloads", &dir, lengths[0])?,
        "verify-1": apart("verify-1", &dir, lengths[0])?,
    });
    Ok(json!({
        "machine": machine::about(),
        "entry_bytes": gatebook_ledger::entry::HEADER_BYTES + BODY.len(),
        "append": appends,
        "lengths": sizes,
        "payloads_of_300_bytes": payloads,
        "inclusion_proof_bytes": {"100000000": proof_bytes(100_000_000)},
    }))
}

/// Runs a part in a process of its own, and reads its figures.
fn apart(name: &str, dir: &Path, entries: u64) -> Outcome<Value> {
    let output = Command::new(std::env::current_exe()?)
        .args(["part", name])
        .arg(dir)
        .arg(entries.to_string())
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{name} of {entries} entries failed").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The longest inclusion proof (RFC 6962, section 2.1.1) in a tree of this size: a hash a level.
fn proof_bytes(entries: u64) -> u64 {
    32 * u64::from(entries.next_power_of_two().trailing_zeros())
}

fn create(dir: &Path) -> Outcome<Writer> {
    let storage = Arc::new(Directory::create(dir)?);
    let keys = Box::new(MemoryKeys::new(Some(&[1; 32]), &[2; 32], &[3; 32]));
    let origin = Origin::new("bench.example/ledger")?;
    Ok(Writer::create(storage, &origin, keys, Box::new(SystemSalts::default()), Limits::default(), 1)?)
}

/// Stages the next entry of a ledger whose sessions have a hundred commands each.
fn stage(writer: &mut Writer, nth: u64, payload: &[u8]) -> io::Result<()> {
    let time_ns = 1_700_000_000_000_000_000 + nth * 100_000;
    let session = 1 + nth / SESSION_ENTRIES;
    let kind = match nth % SESSION_ENTRIES {
        0 => Kind::SESSION_OPENED,
        99 => Kind::SESSION_CLOSED,
        _ => event::COMMAND,
    };
    let draft = Draft { kind, time_ns, session, body: BODY, payload };
    writer.stage(&draft).map(drop).map_err(io::Error::other)
}

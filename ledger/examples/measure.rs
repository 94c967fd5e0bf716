//! Measures the ledger beside a bare file that writes and syncs the same bytes:
//! `cargo run --release -p gatebook-ledger --example measure -- DIR`.
//!
//! DIR is made, and must not exist. Run it on the disk in question, and more than once: syncs vary.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatebook_ledger::verify::{Options, verify};
use gatebook_ledger::{Directory, Draft, Kind, Limits, MemoryKeys, Origin, SystemSalts, Writer};

const BODY: &[u8] = br#"{"decision":"permit","effect":"reads","phase":"execute","request":123456}"#;
const PAYLOAD: [u8; 300] = [b'p'; 300];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: measure DIR")?;
    let dir = Path::new(&dir);
    stage_and_commit(&dir.join("cpu"))?;
    for batch in [1, 10, 100, 1000] {
        durable(dir, batch)?;
    }
    verification(&dir.join("cpu"))?;
    Ok(())
}

fn create(dir: &Path) -> Result<Writer, Box<dyn std::error::Error>> {
    let storage = Arc::new(Directory::create(dir)?);
    let keys = Box::new(MemoryKeys::new(Some(&[1; 32]), &[2; 32], &[3; 32]));
    let origin = Origin::new("measure.example/ledger")?;
    Ok(Writer::create(storage, &origin, keys, Box::new(SystemSalts::default()), Limits::default(), 1)?)
}

fn stage(writer: &mut Writer, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    for _ in 0..count {
        writer.stage(&Draft { kind: Kind(288), time_ns: 7, session: 1, body: BODY, payload: &PAYLOAD })?;
    }
    Ok(())
}

/// Processor time of the steps, without syncs.
fn stage_and_commit(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut writer = create(dir)?;
    writer.stage(&Draft { kind: Kind::SESSION_OPENED, time_ns: 7, session: 1, body: b"{}", payload: b"" })?;
    let (mut staging, mut writing, rounds, batch) = (Duration::ZERO, Duration::ZERO, 5_000, 200);
    for _ in 0..rounds {
        let start = Instant::now();
        stage(&mut writer, batch)?;
        let staged = Instant::now();
        writer.write()?;
        staging += staged - start;
        writing += staged.elapsed();
    }
    let entries = f64::from(rounds) * batch as f64;
    println!(
        "stage   {:6.0} ns an entry ({} bytes, payload {})",
        staging.as_nanos() as f64 / entries,
        104 + BODY.len(),
        PAYLOAD.len()
    );
    println!("write   {:6.1} µs a frame of {batch} entries", writing.as_micros() as f64 / f64::from(rounds));
    let mut single = Duration::ZERO;
    for _ in 0..rounds {
        stage(&mut writer, 1)?;
        let start = Instant::now();
        writer.write()?;
        single += start.elapsed();
    }
    println!("write   {:6.1} µs a frame of one entry", single.as_micros() as f64 / f64::from(rounds));
    writer.close(9)?;
    Ok(())
}

/// Durable entries a second, in turns with a bare file.
fn durable(dir: &Path, batch: usize) -> Result<(), Box<dyn std::error::Error>> {
    let rounds = 60;
    let mut writer = create(&dir.join(format!("durable-{batch}")))?;
    writer.stage(&Draft { kind: Kind::SESSION_OPENED, time_ns: 7, session: 1, body: b"{}", payload: b"" })?;
    let bytes = (batch * (106 + BODY.len() + 20 + PAYLOAD.len()) + 176).next_multiple_of(4096);
    let zeros = vec![0xa5; bytes];
    let file =
        OpenOptions::new().create(true).truncate(true).read(true).write(true).open(dir.join("bare"))?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let start = Instant::now();
        stage(&mut writer, batch)?;
        writer.write()?;
        writer.sync()?;
        ours.push(start.elapsed());
        let start = Instant::now();
        file.write_all_at(&zeros, (round * bytes) as u64)?;
        file.sync_data()?;
        bare.push(start.elapsed());
    }
    writer.close(9)?;
    for times in [&mut ours, &mut bare] {
        times.sort_unstable();
    }
    let at = |times: &[Duration], part: usize| times[times.len() * part / 10].as_micros();
    println!(
        "durable, {batch:4} a commit: ledger p20 {:5} µs p50 {:5} µs   bare write+fdatasync p20 {:5} µs p50 {:5} µs",
        at(&ours, 2),
        at(&ours, 5),
        at(&bare, 2),
        at(&bare, 5)
    );
    Ok(())
}

fn verification(dir: &Path) -> io::Result<()> {
    let storage = Directory::open(dir)?;
    for threads in [1, 2] {
        let start = Instant::now();
        let report = verify(&storage, &Options { threads, ..Options::default() }, &|_| {})?;
        let rate = report.entries as f64 / start.elapsed().as_secs_f64() / 1e6;
        println!(
            "verify  {rate:.2} million entries a second on {threads} threads, payloads too ({} entries)",
            report.entries
        );
    }
    Ok(())
}

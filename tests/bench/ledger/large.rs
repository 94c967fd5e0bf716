//! Long ledgers: written, verified, indexed and asked, each in a process of its own.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use gatebook_ledger::index::{self, Query};
use gatebook_ledger::verify::{Options, verify};
use gatebook_ledger::{Directory, Storage, event};
use serde_json::{Value, json};

use crate::machine::{peak_kib, processor_time};
use crate::{Outcome, SESSION_ENTRIES, create, stage};

/// So many entries go into one commit, as on a busy gateway.
const BATCH: u64 = 1000;
const PAYLOAD: [u8; 300] = [b'p'; 300];
/// So many sessions are asked for.
const QUESTIONS: u64 = 100;

/// Runs one part and prints its figures.
pub(crate) fn part(name: &str, dir: &Path, entries: &str) -> Outcome<()> {
    let entries = entries.parse()?;
    let figures = match name {
        "write" => write(dir, entries, &[])?,
        "write-payloads" => write(dir, entries, &PAYLOAD)?,
        "verify-1" => judge(dir, 1)?,
        "verify-all" => judge(dir, 0)?,
        "index" => build(dir)?,
        "find" => find(dir, entries)?,
        _ => return Err("there is no such part".into()),
    };
    println!("{figures}");
    Ok(())
}

fn write(dir: &Path, entries: u64, payload: &[u8]) -> Outcome<Value> {
    let mut writer = create(dir)?;
    let storage = Directory::open(dir)?;
    let (start, began) = (Instant::now(), processor_time());
    for nth in 0..entries {
        stage(&mut writer, nth, payload)?;
        if nth % BATCH == BATCH - 1 {
            writer.write()?;
        }
        if nth % 100_000 == 99_999
            && let Some(publication) = writer.publish(1_700_000_000_000_000_000 + nth * 100_000)?
        {
            publication.store(&storage)?;
        }
    }
    writer.close(u64::MAX >> 1)?;
    Ok(json!({
        "seconds": start.elapsed().as_secs_f64(),
        "cpu_seconds": (processor_time() - began).as_secs_f64(),
        "peak_kib": peak_kib(),
    }))
}

fn judge(dir: &Path, threads: usize) -> Outcome<Value> {
    let storage = Directory::open(dir)?;
    let (start, began) = (Instant::now(), processor_time());
    let report = verify(&storage, &Options { threads, ..Options::default() }, &|_| {})?;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), (processor_time() - began).as_secs_f64());
    if report.problem_count > 0 {
        return Err("the ledger does not verify".into());
    }
    let rate = |seconds: f64| (report.entries as f64 / seconds).round();
    Ok(json!({
        "entries": report.entries,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "entries_a_second": rate(seconds),
        "entries_a_cpu_second": rate(cpu),
        "peak_kib": peak_kib(),
    }))
}

fn build(dir: &Path) -> Outcome<Value> {
    let storage = Directory::open(dir)?;
    let (start, began) = (Instant::now(), processor_time());
    let (mut index, _) = index::open(&dir.join(index::NAME), &storage, event::words)?;
    index.catch_up(&storage, &mut |_| ControlFlow::Continue(()))?;
    drop(index);
    Ok(json!({
        "seconds": start.elapsed().as_secs_f64(),
        "cpu_seconds": (processor_time() - began).as_secs_f64(),
        "peak_kib": peak_kib(),
        "bytes": folder_bytes(&storage)?,
    }))
}

fn folder_bytes(storage: &dyn Storage) -> Outcome<u64> {
    let mut bytes = 0;
    for name in storage.list(index::NAME)? {
        if let Ok(file) =
            storage.open(&format!("{}/{name}", index::NAME), gatebook_ledger::storage::Mode::Read)
        {
            bytes += file.length().unwrap_or(0);
        }
    }
    Ok(bytes)
}

fn find(dir: &Path, entries: u64) -> Outcome<Value> {
    let storage = Directory::open(dir)?;
    let start = Instant::now();
    let index = index::open_existing(&dir.join(index::NAME), &storage, event::words)?.ok_or("no index")?;
    let opening = start.elapsed();
    let sessions = entries / SESSION_ENTRIES;
    let mut times = Vec::new();
    for nth in 0..QUESTIONS {
        let session = 1 + nth * (sessions - 1) / QUESTIONS;
        let query = Query { session: Some(session), ..Query::default() };
        let mut found = 0;
        let start = Instant::now();
        let distrusted = index::find(&storage, Some(&index), event::words, &query, |_| {
            found += 1;
            ControlFlow::Continue(())
        })?;
        times.push(start.elapsed());
        if found != SESSION_ENTRIES || distrusted.is_some() {
            return Err(format!("session {session}: {found} entries, {distrusted:?}").into());
        }
    }
    times.sort_unstable();
    let millis = |nth: usize| times[nth].as_secs_f64() * 1e3;
    Ok(json!({
        "open_ms": opening.as_secs_f64() * 1e3,
        "session_ms": {"p50": millis(times.len() / 2), "p99": millis(times.len() - 2), "max": millis(times.len() - 1)},
        "peak_kib": peak_kib(),
    }))
}

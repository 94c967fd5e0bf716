//! The figures: direct, haproxy, pgbouncer and Gatebook side by side, interleaved, over TLS on every leg.
//!
//! Each cell (a workload, a protocol mode, a number of clients) is run through every lane before the next cell begins,
//! in turns, so that a noisy minute hurts all lanes alike. A gateway is started afresh for each of its runs:
//! its ledger then holds that run alone, and its executions are counted, compared and verified.
//!
//! What a newcomer gets wrong: throughput on a shared machine says little, processor time says much. Compare
//! `cpu_us_per_txn` first.

mod cpu;
mod lane;
mod load;

use std::process::ExitCode;

use gatebook_tests::Postgres;
use gatebook_tests::postgres::{APP, APP_PASSWORD};

use lane::{Lane, Upstream};
use load::{Load, Measured};

/// What one run is asked to do.
struct Options {
    quick: bool,
    json: bool,
    lanes: Vec<String>,
    only: Option<String>,
    clients: Option<u32>,
    ledger: Option<String>,
    seconds: Option<u32>,
    rounds: Option<usize>,
}

const USAGE: &str = "usage: bench [--quick] [--json] [--lanes a,b,…] [--only WORKLOAD] [--clients N] [--ledger KIND] [--seconds N] [--rounds N]\n\
                     lanes: direct, haproxy, pgbouncer, gatebook, unsealed (left out of a quick run)\n\
                     workloads: select, tpcb, pipeline, connect, copy, idle; or one mode of them: select-simple\n\
                     ledgers: tmpfs, disk";

fn options() -> Result<Options, String> {
    let mut options = Options {
        quick: false,
        json: false,
        lanes: Vec::new(),
        only: None,
        clients: None,
        ledger: None,
        seconds: None,
        rounds: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value\n{USAGE}"));
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--json" => options.json = true,
            "--lanes" => options.lanes = value()?.split(',').map(str::to_owned).collect(),
            "--clients" => options.clients = Some(value()?.parse().map_err(|e| format!("--clients: {e}"))?),
            "--ledger" => options.ledger = Some(value()?),
            "--only" => options.only = Some(value()?),
            "--seconds" => options.seconds = Some(value()?.parse().map_err(|e| format!("--seconds: {e}"))?),
            "--rounds" => options.rounds = Some(value()?.parse().map_err(|e| format!("--rounds: {e}"))?),
            _ => return Err(format!("unknown argument {argument}\n{USAGE}")),
        }
    }
    if options.lanes.is_empty() {
        let lanes = ["direct", "haproxy", "pgbouncer", "gatebook", "unsealed"];
        let wanted = if options.quick { 4 } else { 5 };
        options.lanes.extend(lanes[..wanted].iter().map(ToString::to_string));
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(3);
        }
    };
    let seconds = options.seconds.unwrap_or(if options.quick { 1 } else { 8 });
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 2 });
    let postgres = Postgres::with("max_connections = 1200\nshared_buffers = 512MB\nmax_wal_size = 4GB\n");
    let mut lanes: Vec<Lane> = Vec::new();
    for name in &options.lanes {
        match Lane::start(name, &postgres) {
            Ok(started) => lanes.extend(started),
            Err(why) => {
                eprintln!("{why}\n{USAGE}");
                return ExitCode::from(3);
            }
        }
    }
    if let Some(kind) = &options.ledger {
        lanes.retain(|lane| lane.ledger().is_none_or(|ledger| ledger == kind));
    }
    let direct = postgres.environment(APP, APP_PASSWORD);
    let copy_mb = if options.quick { 64 } else { 1024 };
    let scale = load::prepare(&direct, if options.quick { 5 } else { 20 }, copy_mb);
    let upstream = Upstream { postgres: &postgres, scale, copy_mb };

    let loads: Vec<Load> = Load::all(options.quick)
        .into_iter()
        .filter(|load| options.only.as_deref().is_none_or(|only| load.name().starts_with(only)))
        .filter(|load| options.clients.is_none_or(|clients| load.clients() == clients))
        .collect();
    if !options.json {
        println!("{}", Measured::HEADING);
    }
    let mut failures = Vec::new();
    for load in &loads {
        for round in 0..rounds {
            for turn in 0..lanes.len() {
                let lane = &lanes[(turn + round) % lanes.len()];
                let measured = load::run(load, lane, &upstream, seconds);
                println!("{}", if options.json { measured.json() } else { measured.row() });
                failures.extend(measured.failure);
            }
        }
    }
    for failure in &failures {
        eprintln!("failed: {failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

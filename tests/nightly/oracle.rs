//! PostgreSQL's regression suite before the differential oracle: `oracle SUITE [TEST…]`.
//!
//! Each script runs by itself, in the order of the suite's schedule, as its superuser; whatever of it the analysis calls a read is
//! run in a read-only transaction first.

#[path = "../oracle/mod.rs"]
mod oracle;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use gatebook_tests::Postgres;
use gatebook_tests::machine;
use gatebook_tests::postgres::ADMIN_PASSWORD;
use gatebook_tests::wire::Client;
use oracle::Oracle;

/// So many statements at least are found to be reads; fewer, and the oracle has gone blind.
const READS_MIN: u64 = 10_000;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(suite) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: oracle SUITE [TEST…]");
        return ExitCode::from(3);
    };
    let only: Vec<String> = arguments.collect();
    // The server reads the suite's data where it lies.
    let folder = machine::temporary();
    let work = folder.path().join("work");
    machine::run(Command::new("cp").arg("-r").arg(&suite).arg(&work));
    machine::run(Command::new("chmod").args(["-R", "a+rwX"]).arg(folder.path()));

    let postgres = Postgres::with("max_prepared_transactions = 2\n");
    postgres.admin("CREATE DATABASE regression TEMPLATE template0");
    let connect = || {
        let mut client = Client::tls(postgres.address(), postgres.authority().client());
        client.login("postgres", "regression", ADMIN_PASSWORD).expect("the superuser is let in");
        client
    };
    let schedule = std::fs::read_to_string(work.join("parallel_schedule")).expect("the suite has a schedule");
    let tests: Vec<&str> = schedule
        .lines()
        .filter_map(|line| line.strip_prefix("test: "))
        .flat_map(str::split_whitespace)
        .collect();
    let mut oracle = Oracle::new("regression", &connect);
    for test in tests
        .iter()
        .filter(|test| only.is_empty() || only.iter().any(|name| name == *test) || **test == "test_setup")
    {
        let path = work.join(format!("sql/{test}.sql"));
        let Ok(text) = std::fs::read(&path) else { continue };
        let text = String::from_utf8_lossy(&text);
        // What psql would put in from the environment.
        let text = [
            (":'filename'", format!("'{}'", work.join("data").display())),
            (":'regresslib'", format!("'{}'", work.join("regress.so").display())),
            (":'libdir'", format!("'{}'", work.display())),
        ]
        .iter()
        .fold(text.into_owned(), |text, (name, value)| text.replace(name, value));
        let text = filenames(&text, &work.display().to_string());
        oracle.script(&text);
        println!(
            "{test}: {} statements, {} reads, {} wrong",
            oracle.findings.statements,
            oracle.findings.reads,
            oracle.findings.wrong.len()
        );
    }
    let findings = oracle.findings;
    for wrong in &findings.wrong {
        println!("--- {wrong}");
    }
    println!(
        "{} statements, {} of them reads, {} wrongly so",
        findings.statements,
        findings.reads,
        findings.wrong.len()
    );
    let enough = !only.is_empty() || findings.reads >= READS_MIN;
    if findings.wrong.is_empty() && enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Follows `\set filename :abs_srcdir '/data/x.data'`, by which the suite names its files.
fn filenames(text: &str, work: &str) -> String {
    let mut name = String::new();
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        if let Some(path) =
            line.strip_prefix("\\set filename :abs_srcdir '").and_then(|rest| rest.strip_suffix('\''))
        {
            name = format!("'{work}{path}'");
        }
        let whole = format!("'{work}/data'");
        out.push_str(&if name.is_empty() { line.to_owned() } else { line.replace(&whole, &name) });
        out.push('\n');
    }
    out
}

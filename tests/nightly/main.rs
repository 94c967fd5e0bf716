//! PostgreSQL's regression suite, directly and through the gateway, each over a server of its own: `regress SUITE [TEST…]`.
//!
//! Every role and every step of the suite is the superuser's, so the gateway injects that role; what a test
//! prints is kept on both ways and compared. A server of its own for each way, because the suite leaves roles behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use gatebook_tests::gateway::Setup;
use gatebook_tests::machine;
use gatebook_tests::postgres::{ADMIN_PASSWORD, Environment};
use gatebook_tests::{Issuer, Postgres};

/// How many tests may print something else through the gateway, such as what depends on the order in which others run.
const DIFFERENCES_MAX: usize = 3;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(suite) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: regress SUITE [TEST…]");
        return ExitCode::from(3);
    };
    let tests: Vec<String> = arguments.collect();

    let postgres = prepared();
    let direct = run(
        &suite,
        &tests,
        &Environment { database: "regression".into(), ..superuser(&postgres) },
        "directly",
    );
    drop(postgres);

    let postgres = prepared();
    let issuer = Issuer::start();
    let setup = Setup::new(&postgres, &issuer)
        .role("postgres", ADMIN_PASSWORD)
        .databases(&["postgres", "regression"]);
    let mut gateway = setup.top("[log]\nlevel = \"warn\"").start();
    let token = issuer.sign(&{
        let mut claims = issuer.claims("suite", &["dba"]);
        claims["exp"] = (gatebook_tests::issuer::now() + 24 * 3600).into();
        claims
    });
    let mut environment = gateway.environment(&token);
    environment.user = "postgres".into();
    environment.database = "regression".into();
    let through = run(&suite, &tests, &environment, "through the gateway");
    let stopped = gateway.stop();
    gateway.ledger().assert_sound();
    println!(
        "gateway stopped: {stopped}; its ledger verifies; {} executions recorded",
        gateway.ledger().executions()
    );

    let differing: Vec<&String> = direct
        .iter()
        .filter(|(test, printed)| through.get(*test) != Some(printed))
        .map(|(test, _)| test)
        .collect();
    for test in &differing {
        println!("--- {test} prints something else through the gateway");
        let folder = machine::temporary();
        let (a, b) = (folder.path().join("direct"), folder.path().join("gateway"));
        std::fs::write(&a, &direct[*test]).expect("the folder can be written");
        std::fs::write(&b, through.get(*test).map_or("", String::as_str)).expect("the folder can be written");
        let diff = Command::new("diff").arg("-U2").args([&a, &b]).output().expect("diff runs");
        for line in String::from_utf8_lossy(&diff.stdout).lines().take(40) {
            println!("{}", line.chars().take(200).collect::<String>());
        }
    }
    println!("{} tests, {} differ: {differing:?}", direct.len(), differing.len());
    if differing.len() <= DIFFERENCES_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A server with the suite's database as `pg_regress` would make it.
fn prepared() -> Postgres {
    let postgres = Postgres::with("max_prepared_transactions = 2\n");
    for sql in [
        "CREATE DATABASE regression TEMPLATE template0",
        "ALTER DATABASE regression SET lc_messages TO 'C'",
        "ALTER DATABASE regression SET lc_monetary TO 'C'",
        "ALTER DATABASE regression SET lc_numeric TO 'C'",
        "ALTER DATABASE regression SET lc_time TO 'C'",
        "ALTER DATABASE regression SET bytea_output TO 'hex'",
        "ALTER DATABASE regression SET timezone_abbreviations TO 'Default'",
    ] {
        postgres.admin(sql);
    }
    postgres
}

fn superuser(postgres: &Postgres) -> Environment {
    postgres.environment("postgres", ADMIN_PASSWORD)
}

/// Runs the suite and returns what each test printed.
fn run(suite: &Path, tests: &[String], environment: &Environment, how: &str) -> BTreeMap<String, String> {
    let folder = machine::temporary();
    let work = folder.path().join("work");
    machine::run(Command::new("cp").arg("-r").arg(suite).arg(&work));
    let out = work.join("out");
    for part in ["results", "testtablespace", "sql", "expected"] {
        std::fs::create_dir_all(out.join(part)).expect("the folder can be written");
    }
    // The server writes COPY output there.
    machine::run(Command::new("chmod").args(["-R", "a+rwX"]).arg(folder.path()));
    let programs = machine::postgres_programs();
    let mut command = Command::new(programs.join("../lib/pgxs/src/test/regress/pg_regress"));
    environment.apply(&mut command);
    command.current_dir(&work);
    command.arg(format!("--bindir={}", programs.display()));
    command.args([
        "--inputdir=.",
        "--outputdir=out",
        "--host=localhost",
        "--use-existing",
        "--dbname=regression",
    ]);
    command.arg(format!("--dlpath={}", work.display()));
    command.arg(format!("--port={}", environment.port)).arg(format!("--user={}", environment.user));
    command.arg("--max-concurrent-tests=20");
    match tests {
        [] => command.arg("--schedule=parallel_schedule"),
        tests => command.args(tests),
    };
    let output = command.output().expect("pg_regress runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!(
        "{how}: {}",
        said.lines()
            .rev()
            .find(|line| line.contains(" tests passed") || line.contains(" tests failed"))
            .unwrap_or("no summary")
            .trim()
    );
    let mut printed = BTreeMap::new();
    for entry in out.join("results").read_dir().expect("there are results").flatten() {
        let text =
            String::from_utf8_lossy(&std::fs::read(entry.path()).expect("a result can be read")).into_owned();
        // The folder is this run's own.
        let text = text.replace(&work.display().to_string(), "WORK");
        if entry.path().extension().is_none_or(|extension| extension != "out") {
            continue;
        }
        printed.insert(entry.file_name().to_string_lossy().into_owned(), text);
    }
    if printed.is_empty() {
        println!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    printed
}

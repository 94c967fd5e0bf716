//! Ten thousand idle sessions at once, and what each holds of the gateway's memory: `idle [SESSIONS]`.
//!
//! Every session is real (TLS and a token on the client's side, TLS and SCRAM on the upstream's, an opening that is durable in the
//! ledger), but the upstream is a stand-in that idles. A session is two open files in the gateway, and so it is here, where
//! both of its ends are: where the system allows fewer than that, fewer are opened, and that is said.

mod stand_in;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use gatebook_tests::gateway::Setup;
use gatebook_tests::machine::{self, START_MAX, until};
use gatebook_tests::postgres::{APP, DATABASE};
use gatebook_tests::wire::Client;
use gatebook_tests::{Issuer, Postgres};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use stand_in::StandIn;

/// The most that a session may hold.
const KB_MAX: u64 = 100;
/// Files that are no session's: here, and in the gateway, which keeps some back for its ledger.
const OTHER_FILES: u64 = 256;
/// How many log in at the same time.
const HANDS: usize = 16;

fn main() -> ExitCode {
    let wanted: usize = match std::env::args().nth(1).map(|argument| argument.parse()) {
        None => 10_000,
        Some(Ok(wanted)) => wanted,
        Some(Err(_)) => {
            eprintln!("usage: idle [SESSIONS]");
            return ExitCode::from(3);
        }
    };
    let sessions = wanted.min(attainable());
    if sessions < wanted {
        println!(
            "{wanted} sessions want more open files than this system allows a process: {sessions} it is"
        );
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let postgres = Postgres::start();
    let upstream = runtime
        .block_on(StandIn::start(postgres.authority(), postgres.address()))
        .expect("a loopback port is free");
    let issuer = Issuer::start();
    let mut gateway = Setup::new(&postgres, &issuer)
        .upstream(upstream.address)
        .resource("idle_timeout = \"1h\"")
        .top("[log]\nlevel = \"warn\"")
        .start();
    let token = issuer.token("sleeper", &["developers"]);
    let tls = gateway.tls();
    let address = gateway.address();
    let open = || {
        let mut client = Client::tls(address, tls.clone());
        let told = client.login(APP, DATABASE, &token);
        told.unwrap_or_else(|refused| panic!("an idle session is refused: {refused:?}"));
        client
    };

    // What is made once, for the first session, is no session's own.
    let first = open();
    let before = machine::memory_kb(gateway.id(), "VmRSS").expect("the gateway runs");
    let start = Instant::now();
    let (left, opened) = (AtomicUsize::new(sessions - 1), Mutex::new(vec![first]));
    let take = |left: usize| left.checked_sub(1);
    std::thread::scope(|scope| {
        for _ in 0..HANDS {
            scope.spawn(|| {
                while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
                    let client = open();
                    opened.lock().expect("no holder panics").push(client);
                }
            });
        }
    });
    let took = start.elapsed().as_secs_f64();
    until("all sessions at once", START_MAX, || (upstream.idle() == sessions).then_some(()));
    let after = machine::memory_kb(gateway.id(), "VmRSS").expect("the gateway runs");
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let each = (after - before) as f64 / (sessions - 1) as f64;
    println!(
        "{sessions} sessions at once, opened in {took:.1} s; gateway {before} KB with one, {after} KB with all: {each:.1} KB a session"
    );

    drop(opened);
    until("end of all sessions", START_MAX, || (upstream.idle() == 0).then_some(()));
    let stopped = gateway.stop();
    let ledger = gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    let count = |name: &str| told.iter().filter(|event| event.name == name).count();
    let (begun, ended) = (count("session.opened"), count("session.closed"));
    println!(
        "gateway stopped: {stopped}; its ledger verifies; {begun} sessions opened and {ended} closed in it"
    );
    let good = stopped.success() && each <= KB_MAX as f64 && (begun, ended) == (sessions, sessions);
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many sessions this process's open files allow, once it has asked for as many as it may have.
fn attainable() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(OTHER_FILES) / 2).unwrap_or(usize::MAX)
}

//! How fast people's words take effect: a revocation of many sessions until the last byte, and an approval until the command that waits
//! for it is done. `control [--json] [SESSIONS]`, one thousand where nothing is said; half of them run a statement.
//!
//! What a newcomer gets wrong: what is timed begins before the order is sent over HTTPS, so that the ledger's disk is in it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatebook_tests::approvals::{insert, policies};
use gatebook_tests::gateway::Setup;
use gatebook_tests::machine::{ANSWER_MAX, until};
use gatebook_tests::postgres::{APP, DATABASE};
use gatebook_tests::wire::{Client, query};
use gatebook_tests::{Postgres, World};
use serde_json::{Value, json};

/// How many approvals are timed.
const APPROVALS: usize = 50;
/// How many threads open sessions.
const OPENERS: usize = 16;
/// The stack of a thread that only waits.
const STACK_BYTES: usize = 256 << 10;

fn main() -> ExitCode {
    let (mut json_wanted, mut sessions) = (false, 1_000);
    for argument in std::env::args().skip(1) {
        match argument.parse() {
            Ok(number) => sessions = number,
            Err(_) if argument == "--json" => json_wanted = true,
            Err(_) => {
                eprintln!("usage: control [--json] [SESSIONS]");
                return ExitCode::from(3);
            }
        }
    }
    let postgres = Postgres::with(&format!("max_connections = {}\n", sessions + 100));
    let world = World::before(postgres, |setup: Setup<'_>| {
        let limits = "[limits]\nlogins_max = 10000\nlogins_per_source_max = 10000\n[log]\nlevel = \"warn\"";
        setup.policies(&policies("@requires_approval(\"dba\")")).top(limits).admin("")
    });
    let approvals = approvals(&world);
    let (closed, cancelled) = revocation(&world, sessions);
    let figures = json!({
        "approval_ms": { "count": approvals.len(), "p50": at(&approvals, 50), "p99": at(&approvals, 99) },
        "revocation_ms": { "sessions": sessions, "p50": at(&closed, 50), "p99": at(&closed, 99), "last": at(&closed, 100),
            "last_statement_cancelled": cancelled.as_secs_f64() * 1e3 },
    });
    if json_wanted {
        println!("{figures}");
    } else {
        let told = |name: &str, of: &Value| println!("{name}: {of}");
        told("approval to the end of the command, ms", &figures["approval_ms"]);
        told("revocation to the last byte, ms", &figures["revocation_ms"]);
    }
    ExitCode::SUCCESS
}

/// A percentile in milliseconds, by nearest rank.
fn at(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).clamp(1, sorted.len());
    sorted[rank - 1].as_secs_f64() * 1e3
}

/// From the approver's request to the end of the command that waited.
fn approvals(world: &World) -> Vec<Duration> {
    let admin = world.gateway.admin();
    let dana = world.admin_token("dana", &["dba"]);
    let mut client = world.client();
    let mut times = Vec::new();
    for id in 0..APPROVALS {
        client.send(&query(&insert(u32::try_from(id).expect("they are few")))).expect("the gateway reads");
        client.receive_until(b"N");
        let listed = admin.get("/v1/approvals", Some(&dana)).json();
        let waiting =
            listed["approvals"].as_array().into_iter().flatten().find(|one| one["state"] == "pending");
        let path =
            format!("/v1/approvals/{}/answers", waiting.expect("it waits")["id"].as_str().expect("an id"));
        let begun = Instant::now();
        assert_eq!(admin.post(&path, Some(&dana), &json!({ "approve": true })).status, 200);
        client.receive_until(b"Z");
        times.push(begun.elapsed());
    }
    times.sort();
    times
}

/// From the operator's request to the last byte of each session, and to the end of the last statement upstream.
fn revocation(world: &World, sessions: usize) -> (Vec<Duration>, Duration) {
    let token = world.token();
    let (address, tls) = (world.gateway.address(), world.gateway.tls());
    let open = |number: usize| {
        let mut client = Client::tls(address, tls.clone());
        client.login(APP, DATABASE, &token).unwrap_or_else(|refused| panic!("session {number}: {refused:?}"));
        if number.is_multiple_of(2) {
            client.send(&query("SELECT pg_sleep(600)")).expect("the gateway reads");
        }
        client
    };
    let numbers: Vec<usize> = (0..sessions).collect();
    let clients: Vec<Client> = std::thread::scope(|scope| {
        let openers: Vec<_> = numbers
            .chunks(sessions.div_ceil(OPENERS).max(1))
            .map(|mine| scope.spawn(|| mine.iter().map(|number| open(*number)).collect::<Vec<_>>()))
            .collect();
        openers.into_iter().flat_map(|opener| opener.join().expect("it opens")).collect()
    });
    let running = || {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{APP}' AND query LIKE '%pg_sleep(600)%' AND state = 'active'"
        );
        world.postgres.admin(&sql).parse::<usize>().expect("a count")
    };
    until("running statements", ANSWER_MAX * 4, || (running() == sessions.div_ceil(2)).then_some(()));
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let read = move || {
                client.receive_to_end();
                Instant::now()
            };
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn(read).expect("a thread")
        })
        .collect();
    let admin = Arc::new(world.gateway.admin());
    let ops = world.admin_token("olga", &["ops"]);
    let begun = Instant::now();
    let reply =
        admin.post("/v1/revocations", Some(&ops), &json!({ "principal": "idp:lee", "reason": "bench" }));
    assert_eq!(reply.status, 200, "{reply:?}");
    until("end of the last statement", ANSWER_MAX * 4, || (running() == 0).then_some(()));
    let cancelled = begun.elapsed();
    let mut times: Vec<Duration> =
        readers.into_iter().map(|reader| reader.join().expect("it ends") - begun).collect();
    times.sort();
    (times, cancelled)
}

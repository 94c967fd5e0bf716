//! Limits that policy sets: what reaches one is cut with an error, as if it had failed by itself, and the connection lives on.

use gatebook_tests::World;
use gatebook_tests::wire::{bind, brief, execute, extended, frame, parse, query, sync, terminate};

const LOGIN: &str = "permit (principal, action == Action::\"login\", resource);\n";
const CUT: &str = "E 53400";

/// Reads and inserts of at most three rows, and what belongs to transactions.
fn three_rows() -> String {
    format!(
        "{LOGIN}@max_rows(\"3\")\npermit (principal, action in [Action::\"read\", Action::\"write\"], resource);"
    )
}

fn rows(world: &World) -> String {
    world.postgres.admin("SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM journal")
}

fn some(count: u32) -> String {
    format!("SELECT id FROM orders ORDER BY id LIMIT {count}")
}

/// Three rows, and the error.
const THREE: [&str; 5] = ["T", "D 1", "D 2", "D 3", CUT];

#[test]
fn rows_over_the_limit_are_an_error_and_the_connection_lives_on() {
    let mut world = World::new(&three_rows());
    let mut client = world.client();
    assert_eq!(client.simple(&some(3)), ["T", "D 1", "D 2", "D 3", "C SELECT 3", "Z I"]);
    assert_eq!(client.simple(&some(4)), [&THREE[..], &["Z I"]].concat());
    assert_eq!(client.simple("SELECT id FROM orders, generate_series(1, 10000)")[4..], [CUT, "Z I"]);
    assert_eq!(client.simple("COPY orders (id) TO STDOUT"), ["H", "d 1", "d 2", "d 3", CUT, "Z I"]);
    let bound = [parse("", &some(4)), bind("", "", &[]), execute("", 0), sync()];
    assert_eq!(brief(&client.ask(&bound)), ["1", "2", "D 1", "D 2", "D 3", CUT, "Z I"]);
    assert_eq!(client.simple(&some(1)), ["T", "D 1", "C SELECT 1", "Z I"]);
    client.send(&terminate()).unwrap();
    drop(client);
    assert!(world.gateway.stop().success());
    world.gateway.ledger().assert_sound();
    let told: Vec<(Option<String>, Option<u64>)> = world
        .gateway
        .ledger()
        .commands()
        .into_iter()
        .filter(|command| command.phase == "execute")
        .map(|command| (command.ending, command.rows))
        .collect();
    let cut = (Some("cut".to_owned()), Some(3));
    let complete = |rows| (Some("completed".to_owned()), Some(rows));
    assert_eq!(told, [complete(3), cut.clone(), cut.clone(), cut.clone(), cut, complete(1)]);
}

/// As an error would: an open transaction fails, savepoints work, what is behind is passed over, and nothing commits.
#[test]
fn a_cut_has_the_effect_of_an_error() {
    let world = World::new(&three_rows());
    let mut client = world.client();
    let insert = |id: u32| format!("INSERT INTO journal (id) VALUES ({id})");
    for (sql, last) in [
        ("BEGIN", "Z T"),
        (&*insert(1), "Z T"),
        ("SAVEPOINT s", "Z T"),
        (&insert(2), "Z T"),
        (&some(4), "Z E"),
        (&insert(3), "Z E"),
        ("ROLLBACK TO s", "Z T"),
        (&insert(4), "Z T"),
        ("COMMIT", "Z I"),
    ] {
        assert_eq!(client.simple(sql).last().unwrap(), last, "{sql}");
    }
    assert_eq!(rows(&world), "1,4");

    // Pipelined: the next query was sent before the first was answered.
    client.send(&[query("BEGIN"), query(&insert(5)), query(&some(4)), query("COMMIT")].concat()).unwrap();
    for expected in [
        vec!["C BEGIN", "Z T"],
        vec!["C INSERT 0 1", "Z T"],
        [&THREE[..], &["Z E"]].concat(),
        vec!["C ROLLBACK", "Z I"],
    ] {
        assert_eq!(brief(&client.receive_until(b"Z")), expected);
    }

    // One batch is one implicit transaction.
    let batch = [extended(&insert(6), &[]), extended(&some(4), &[]), extended(&insert(7), &[]), sync()];
    let answer = brief(&client.ask(&batch));
    assert_eq!(answer, ["1", "2", "C INSERT 0 1", "1", "2", "D 1", "D 2", "D 3", CUT, "Z I"]);
    let batch = [extended(&insert(8), &[]), sync()];
    assert_eq!(brief(&client.ask(&batch)), ["1", "2", "C INSERT 0 1", "Z I"]);
    assert_eq!(rows(&world), "1,4,8");

    // What it wrote itself, in a batch, is undone as well.
    let returning = "INSERT INTO journal (id) SELECT g FROM generate_series(11, 14) g RETURNING id";
    let answer = brief(&client.ask(&[extended(returning, &[]), sync()]));
    assert_eq!(answer, ["1", "2", "D 11", "D 12", "D 13", CUT, "Z I"]);
    assert_eq!(rows(&world), "1,4,8");
}

/// A portal's rows are counted together, however many executions fetch them.
#[test]
fn a_portal_fetched_in_parts_is_one_result() {
    let world = World::new(&three_rows());
    let mut client = world.client();
    let frames =
        [query("BEGIN"), parse("", &some(9)), bind("p", "", &[]), execute("p", 2), execute("p", 2), sync()];
    client.send(&frames.concat()).unwrap();
    assert_eq!(brief(&client.receive_until(b"Z")), ["C BEGIN", "Z T"]);
    assert_eq!(brief(&client.receive_until(b"Z")), ["1", "2", "D 1", "D 2", "s", "D 3", CUT, "Z E"]);
    assert_eq!(client.simple("ROLLBACK"), ["C ROLLBACK", "Z I"]);
    // Another portal of the same statement begins anew.
    let again = [
        parse("s", &some(2)),
        bind("", "s", &[]),
        execute("", 0),
        bind("", "s", &[]),
        execute("", 0),
        sync(),
    ];
    let answer = brief(&client.ask(&again));
    assert_eq!(answer, ["1", "2", "D 1", "D 2", "C SELECT 2", "2", "D 1", "D 2", "C SELECT 2", "Z I"]);
}

/// A row that is longer than what the gateway holds at once is shown whole or not at all.
#[test]
fn long_rows_are_cut_between_them() {
    let world = World::new(&three_rows());
    let mut client = world.client();
    for length in [10_000, 300_000, 3_000_000] {
        let answer = client.ask(&[query(&format!("SELECT repeat('x', {length}) FROM orders LIMIT 9"))]);
        let tags: String = answer.iter().map(|message| char::from(message.tag)).collect();
        assert_eq!(tags, "TDDDEZ", "{length}");
        assert!(answer[1..4].iter().all(|row| row.body.len() == length + 6));
    }
    assert_eq!(client.simple(&some(1)), ["T", "D 1", "C SELECT 1", "Z I"]);
}

#[test]
fn a_statement_that_runs_too_long_is_cancelled() {
    let world = World::new(&format!(
        "{LOGIN}@max_time(\"1s\")\npermit (principal, action in [Action::\"read\", Action::\"write\"], resource);"
    ));
    let mut client = world.client();
    let insert = "INSERT INTO journal (id) VALUES (1)";
    let slow = "SELECT count(*) FROM orders, pg_sleep(600)";
    let told = client.ask(&[query(slow)]);
    assert_eq!(brief(&told), ["T", "E 57014", "Z I"]);
    assert!(told[1].report().unwrap().message.contains("longer than it may"), "{told:?}");
    assert_eq!(client.simple("BEGIN"), ["C BEGIN", "Z T"]);
    assert_eq!(client.simple(insert), ["C INSERT 0 1", "Z T"]);
    assert_eq!(client.simple(slow), ["T", "E 57014", "Z E"]);
    assert_eq!(client.simple("COMMIT"), ["C ROLLBACK", "Z I"]);
    let batch = [extended(insert, &[]), extended(slow, &[]), extended("SELECT id FROM orders", &[]), sync()];
    let answer = brief(&client.ask(&batch));
    assert_eq!(answer, ["1", "2", "C INSERT 0 1", "1", "2", "E 57014", "Z I"]);
    assert_eq!(rows(&world), "");
    assert_eq!(client.simple(&some(1)), ["T", "D 1", "C SELECT 1", "Z I"]);
}

#[test]
fn bytes_of_a_session_are_counted_together() {
    let world = World::new(&format!(
        "{LOGIN}@max_bytes_per_session(\"100KiB\")\npermit (principal, action in Action::\"read\", resource);"
    ));
    let mut client = world.client();
    let wide = "SELECT repeat('x', 1000) FROM orders LIMIT 30";
    assert_eq!(client.simple(wide).len(), 33);
    assert_eq!(client.simple(wide).len(), 33);
    let answer = client.simple("SELECT repeat('x', 1000) FROM orders, generate_series(1, 100)");
    assert_eq!(answer[answer.len() - 2..], [CUT, "Z I"], "{}", answer.len());
    assert!(answer.len() < 45, "{}", answer.len());
    let mut left = 0;
    while client.simple("SELECT id FROM orders LIMIT 1") != ["E 42501", "Z I"] {
        left += 1;
        assert!(left < 5_000, "it is never used up");
    }
    assert_eq!(world.client().simple(wide).len(), 33, "another session begins anew");
}

/// What a principal was shown today counts in each of its sessions, and is known again after a restart.
#[test]
fn rows_of_a_day_are_counted_over_sessions_and_restarts() {
    let mut world = World::new(&format!(
        "{LOGIN}@max_rows_per_day(\"10\")\npermit (principal, action in Action::\"read\", resource);"
    ));
    let other = world.issuer.token("kim", &["developers"]);
    assert_eq!(world.client().simple(&some(4)).len(), 7);
    let mut client = world.client();
    assert_eq!(client.simple(&some(4)).len(), 7);
    client.send(&terminate()).unwrap();
    assert!(client.receive_to_end().is_empty());
    assert!(world.gateway.stop().success());
    world.gateway.restart();
    let mut client = world.client();
    assert_eq!(client.simple(&some(4)), ["T", "D 1", "D 2", CUT, "Z I"]);
    assert_eq!(client.simple(&some(1)), ["E 42501", "Z I"], "nothing is left");
    assert_eq!(world.client().simple(&some(1)), ["E 42501", "Z I"]);
    assert_eq!(world.gateway.login(&other).simple(&some(4)).len(), 7, "another principal");
}

/// From outside of what this protocol is for: a gateway's own cancel must not hit what comes next.
#[test]
fn what_follows_a_cut_at_once_is_not_cancelled() {
    let world = World::new(&three_rows());
    let mut client = world.client();
    for _ in 0..200 {
        client.send(&[query(&some(5)), query("SELECT 1 FROM pg_sleep(0.002)")].concat()).unwrap();
        assert_eq!(brief(&client.receive_until(b"Z"))[4..], [CUT, "Z I"]);
        assert_eq!(brief(&client.receive_until(b"Z")), ["T", "D 1", "C SELECT 1", "Z I"]);
    }
}

/// A command may be in COPY when its text goes on with another: data that come early belong to whichever asks for them.
#[test]
fn copy_data_sent_ahead_reach_the_copy_that_asks_for_them() {
    let world = World::new(gatebook_tests::gateway::PERMIT_ALL);
    let mut client = world.client();
    let text = "SELECT 1; COPY journal (id) FROM STDIN; SELECT 2; COPY journal (id) FROM STDIN; SELECT 3";
    let frames = [
        query(text),
        frame(b'd', b"1\n"),
        frame(b'c', b""),
        frame(b'd', b"2\n"),
        frame(b'c', b""),
        query("SELECT 4"),
    ];
    client.send(&frames.concat()).unwrap();
    let answer = brief(&client.receive_until(b"Z"));
    let expected = [
        "T",
        "D 1",
        "C SELECT 1",
        "G",
        "C COPY 1",
        "T",
        "D 2",
        "C SELECT 1",
        "G",
        "C COPY 1",
        "T",
        "D 3",
        "C SELECT 1",
        "Z I",
    ];
    assert_eq!(answer, expected);
    assert_eq!(brief(&client.receive_until(b"Z")), ["T", "D 4", "C SELECT 1", "Z I"]);
    assert_eq!(rows(&world), "1,2");
}

/// The server puts values into what is no row: the text of an error or a notice, the result of a function that was called by number.
#[test]
fn what_is_no_row_is_cut_by_its_bytes() {
    let policy = format!("{LOGIN}@max_bytes_per_session(\"2KiB\")\npermit (principal, action, resource);");
    let world = World::new(&policy);
    let failed = "SELECT (SELECT repeat('secret', 20000) FROM orders LIMIT 1)::int";
    let batch = [extended(failed, &[]), sync()];
    let told = "DO $$ BEGIN RAISE NOTICE '%', repeat('secret', 20000); END $$";
    let oid: u32 = world.postgres.admin("SELECT 'query_to_xml'::regproc::oid").parse().expect("a number");
    let mut called = oid.to_be_bytes().to_vec();
    called.extend([0, 0, 0, 4]);
    for argument in ["SELECT repeat('secret', 20000)", "f", "f", ""] {
        called.extend(u32::try_from(argument.len()).expect("it is short").to_be_bytes());
        called.extend(argument.as_bytes());
    }
    called.extend([0, 0]);
    for (frames, expected) in [
        (vec![query(failed)], vec![CUT, "Z I"]),
        (batch.to_vec(), vec![CUT, "Z I"]),
        (vec![query(told)], vec!["C DO", "Z I"]),
        (vec![frame(b'F', &called)], vec![CUT, "Z I"]),
    ] {
        let mut client = world.client();
        let answer = client.ask(&frames);
        let size: usize = answer.iter().map(|message| message.body.len()).sum();
        let mut told = brief(&answer);
        told.retain(|told| !matches!(&**told, "1" | "2" | "T"));
        assert_eq!(told, expected);
        assert!(size < 2048, "{size}");
        assert!(answer.iter().all(|message| !message.body.windows(12).any(|text| text == b"secretsecret")));
    }
    // What is small passes, up to the limit.
    let mut client = world.client();
    assert_eq!(client.simple("SELECT 'x'::int FROM orders"), ["E 22P02", "Z I"]);
    assert_eq!(client.simple(&some(1)), ["T", "D 1", "C SELECT 1", "Z I"]);
}

//! A refusal has an error's effect at its place in the order, and the connection lives on.
//!
//! From `negatives`: "a refusal closes the connection; or is answered by the proxy alone, so that the rest of the
//! transaction or pipeline commits".

use gatebook_tests::gateway::GUARD_WAGES;
use gatebook_tests::wire::{
    Client, bind, brief, copy_data, copy_done, describe, execute, extended, parse, sync,
};
use gatebook_tests::{Postgres, World};

const REFUSED: &str = "E 42501";

fn guarded() -> (World, Client) {
    let world = World::new(GUARD_WAGES);
    let client = world.client();
    (world, client)
}

fn insert(id: u32) -> String {
    format!("INSERT INTO journal (id, worker, body) VALUES ({id}, 0, 'x')")
}

fn rows(world: &World) -> String {
    world.postgres.admin("SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM journal")
}

#[test]
fn a_refused_statement_is_an_error_and_the_connection_lives_on() {
    let (world, mut client) = guarded();
    let answer = client.ask(&[gatebook_tests::wire::query("SELECT amount FROM wages")]);
    assert_eq!(brief(&answer), [REFUSED, "Z I"]);
    let report = answer[0].report().unwrap();
    assert_eq!(report.severity, "ERROR");
    assert!(report.message.starts_with("not permitted"), "{report:?}");
    assert!(!report.hint.is_empty(), "the next step is named: {report:?}");
    assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    let executed = world.postgres.executed(gatebook_tests::postgres::APP);
    assert!(executed.iter().all(|executed| !executed.text.contains("wages")), "{executed:?}");
}

/// Whether a table exists is nothing that a refusal tells.
#[test]
fn a_refusal_is_the_same_whether_the_table_exists() {
    let world = World::new(
        "permit (principal, action == Action::\"login\", resource);\n\
         permit (principal, action in Action::\"read\", resource in Table::\"orders-db/orders/public.orders\");",
    );
    let mut client = world.client();
    let exists = client.ask(&[gatebook_tests::wire::query("SELECT * FROM wages")]);
    let does_not = client.ask(&[gatebook_tests::wire::query("SELECT * FROM wages_of_nobody")]);
    assert_eq!(brief(&exists), [REFUSED, "Z I"]);
    assert_eq!(exists, does_not);
}

#[test]
fn insert_refused_insert_then_sync_leaves_no_row() {
    let (world, mut client) = guarded();
    let frames = [
        extended(&insert(1), &[]),
        extended("SELECT amount FROM wages", &[]),
        extended(&insert(2), &[]),
        sync(),
    ];
    let answer = brief(&client.ask(&frames));
    assert_eq!(answer, ["1", "2", "C INSERT 0 1", REFUSED, "Z I"]);
    assert_eq!(rows(&world), "", "the implicit transaction rolls back");
    assert_eq!(brief(&client.ask(&[extended(&insert(3), &[]), sync()])), ["1", "2", "C INSERT 0 1", "Z I"]);
    assert_eq!(rows(&world), "3");
}

#[test]
fn a_transaction_with_a_refusal_answers_commit_with_rollback() {
    let (world, mut client) = guarded();
    assert_eq!(client.simple("BEGIN"), ["C BEGIN", "Z T"]);
    assert_eq!(client.simple(&insert(1)), ["C INSERT 0 1", "Z T"]);
    assert_eq!(client.simple("SELECT amount FROM wages"), [REFUSED, "Z E"]);
    assert_eq!(client.simple(&insert(2)), ["E 25P02", "Z E"]);
    assert_eq!(client.simple("COMMIT"), ["C ROLLBACK", "Z I"]);
    assert_eq!(rows(&world), "");
}

#[test]
fn a_savepoint_outlives_a_refusal() {
    let (world, mut client) = guarded();
    for (sql, answer) in [
        ("BEGIN", ["C BEGIN", "Z T"]),
        (&*insert(1), ["C INSERT 0 1", "Z T"]),
        ("SAVEPOINT before", ["C SAVEPOINT", "Z T"]),
        (&insert(2), ["C INSERT 0 1", "Z T"]),
        ("DELETE FROM wages", [REFUSED, "Z E"]),
        ("ROLLBACK TO SAVEPOINT before", ["C ROLLBACK", "Z T"]),
        (&insert(3), ["C INSERT 0 1", "Z T"]),
        ("COMMIT", ["C COMMIT", "Z I"]),
    ] {
        assert_eq!(client.simple(sql), answer, "{sql}");
    }
    assert_eq!(rows(&world), "1,3");
}

#[test]
fn one_refused_statement_refuses_the_string_that_holds_it() {
    let (world, mut client) = guarded();
    let several = format!("{}; SELECT amount FROM wages; {}", insert(1), insert(2));
    let answer = client.simple(&several);
    assert_eq!(answer.last().unwrap(), "Z I");
    assert_eq!(answer[answer.len() - 2], REFUSED, "{answer:?}");
    assert_eq!(rows(&world), "");
}

#[test]
fn what_follows_a_refusal_up_to_sync_is_passed_over() {
    let (world, mut client) = guarded();
    let frames = [
        extended("DELETE FROM wages", &[]),
        extended(&insert(1), &[]),
        sync(),
        extended(&insert(2), &[]),
        sync(),
    ];
    client.send(&frames.concat()).unwrap();
    assert_eq!(brief(&client.receive_until(b"Z")), [REFUSED, "Z I"]);
    assert_eq!(brief(&client.receive_until(b"Z")), ["1", "2", "C INSERT 0 1", "Z I"]);
    assert_eq!(rows(&world), "2");
    assert_eq!(world.postgres.admin("SELECT count(*) FROM wages"), "5");
}

/// A statement is decided again when it is executed: a policy may have changed since it was prepared, and a name may
/// mean something else.
#[test]
fn a_prepared_statement_is_decided_at_parse() {
    let (_world, mut client) = guarded();
    let answer =
        client.ask(&[parse("w", "SELECT amount FROM wages WHERE id = $1"), describe(b'S', "w"), sync()]);
    assert_eq!(brief(&answer), [REFUSED, "Z I"], "its columns are not told either");
    let answer = client.ask(&[bind("", "w", &[Some("1")]), execute("", 0), sync()]);
    assert_eq!(brief(&answer), ["E 26000", "Z I"]);
}

#[test]
fn prepare_and_execute_in_sql_are_decided_as_what_they_run() {
    let (world, mut client) = guarded();
    assert_eq!(client.simple("PREPARE w AS SELECT amount FROM wages"), [REFUSED, "Z I"]);
    assert_eq!(client.simple("PREPARE o AS SELECT id FROM orders WHERE id = 1"), ["C PREPARE", "Z I"]);
    assert_eq!(client.simple("EXECUTE o"), ["T", "D 1", "C SELECT 1", "Z I"]);
    assert_eq!(client.simple("BEGIN"), ["C BEGIN", "Z T"]);
    assert_eq!(client.simple("DECLARE c CURSOR FOR SELECT amount FROM wages"), [REFUSED, "Z E"]);
    assert_eq!(client.simple("ROLLBACK"), ["C ROLLBACK", "Z I"]);
    drop(world);
}

#[test]
fn copy_of_a_guarded_table_is_refused_both_ways() {
    let (world, mut client) = guarded();
    assert_eq!(client.simple("COPY wages TO STDOUT"), [REFUSED, "Z I"]);
    assert_eq!(client.simple("COPY (SELECT * FROM wages) TO STDOUT"), [REFUSED, "Z I"]);
    assert_eq!(client.simple("COPY wages FROM STDIN"), [REFUSED, "Z I"]);
    assert_eq!(client.simple("COPY (DELETE FROM wages RETURNING *) TO STDOUT"), [REFUSED, "Z I"]);
    assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    assert_eq!(world.postgres.admin("SELECT count(*) FROM wages"), "5");
}

/// A client that has data ready sends it at once: what it sends after a refused COPY must be passed over, as a server
/// does after an error.
#[test]
fn data_sent_after_a_refused_copy_is_passed_over() {
    let (world, mut client) = guarded();
    let frames = [
        gatebook_tests::wire::query("COPY wages FROM STDIN"),
        copy_data("6\tnobody\t1\n"),
        copy_done(),
        gatebook_tests::wire::query("SELECT 1"),
    ];
    client.send(&frames.concat()).unwrap();
    assert_eq!(brief(&client.receive_until(b"Z")), [REFUSED, "Z I"]);
    assert_eq!(brief(&client.receive_until(b"Z")), ["T", "D 1", "C SELECT 1", "Z I"]);
    assert_eq!(world.postgres.admin("SELECT count(*) FROM wages"), "5");
}

#[test]
fn a_permitted_copy_in_a_transaction_is_undone_by_a_later_refusal() {
    let (world, mut client) = guarded();
    assert_eq!(client.simple("BEGIN"), ["C BEGIN", "Z T"]);
    client.send(&gatebook_tests::wire::query("COPY journal (id, body) FROM STDIN")).unwrap();
    assert_eq!(brief(&client.receive_until(b"G")), ["G"]);
    assert_eq!(brief(&client.ask(&[copy_data("7\tseven\n"), copy_done()])), ["C COPY 1", "Z T"]);
    assert_eq!(client.simple("TRUNCATE wages"), [REFUSED, "Z E"]);
    assert_eq!(client.simple("COMMIT"), ["C ROLLBACK", "Z I"]);
    assert_eq!(rows(&world), "");
}

#[test]
fn a_refusal_leaves_an_open_cursor_as_an_error_would() {
    let (_world, mut client) = guarded();
    assert_eq!(client.simple("BEGIN"), ["C BEGIN", "Z T"]);
    assert_eq!(
        client.simple("DECLARE c CURSOR FOR SELECT id FROM orders ORDER BY id"),
        ["C DECLARE CURSOR", "Z T"]
    );
    assert_eq!(client.simple("FETCH 1 FROM c"), ["T", "D 1", "C FETCH 1", "Z T"]);
    assert_eq!(client.simple("SAVEPOINT s"), ["C SAVEPOINT", "Z T"]);
    assert_eq!(client.simple("SELECT * FROM wages"), [REFUSED, "Z E"]);
    assert_eq!(client.simple("ROLLBACK TO s"), ["C ROLLBACK", "Z T"]);
    assert_eq!(client.simple("FETCH 1 FROM c"), ["T", "D 2", "C FETCH 1", "Z T"]);
}

/// Ways to the same table that have hidden it from other gateways.
#[test]
fn a_guarded_table_is_guarded_however_it_is_named() {
    let postgres = Postgres::logging();
    postgres.admin("CREATE VIEW wages_view AS SELECT * FROM wages; GRANT ALL ON wages_view TO app_rw");
    let world = World::before(postgres, |setup| setup.policies(GUARD_WAGES));
    let mut client = world.client();
    for sql in [
        "TABLE wages",
        "SELECT * FROM public.wages",
        "SELECT * FROM \"wages\"",
        "SELECT * FROM U&\"\\0077ages\"",
        "SELECT * FROM (wages CROSS JOIN orders)",
        "SELECT * FROM ONLY wages",
        "SELECT (SELECT max(amount) FROM wages)",
        "WITH w AS (SELECT * FROM wages) SELECT * FROM w",
        "WITH d AS (DELETE FROM wages RETURNING *) SELECT count(*) FROM d",
        "SELECT 1 WHERE EXISTS (SELECT FROM wages)",
        "SELECT 1 UNION ALL SELECT id FROM wages",
        "EXPLAIN ANALYZE SELECT * FROM wages",
        "EXPLAIN (ANALYZE, COSTS off) DELETE FROM wages",
        "CREATE TABLE copied AS SELECT * FROM wages",
        "SELECT * INTO copied FROM wages",
        "CREATE TEMP VIEW v AS SELECT * FROM wages",
        "INSERT INTO journal (id, body) SELECT id, person FROM wages",
        "UPDATE orders SET state = (SELECT person FROM wages LIMIT 1)",
        "DELETE FROM orders USING wages WHERE wages.id = orders.id",
        "MERGE INTO wages USING orders ON wages.id = orders.id WHEN MATCHED THEN DELETE",
        "/* SELECT 1 */ SELECT * FROM wages -- nothing",
        "SELECT /* a /* nested */ comment */ * FROM wages",
        "SELECT E'\\'', amount FROM wages",
        "SELECT $$'$$, amount FROM wages",
        "TRUNCATE orders, wages",
        "LOCK TABLE wages",
        "DROP TABLE wages",
        "ALTER TABLE wages RENAME TO open_wages",
        "SELECT * FROM wages_view",
    ] {
        let answer = client.simple(sql);
        assert_eq!(answer, [REFUSED, "Z I"], "{sql}");
        let answer = brief(&client.ask(&[parse("", sql), sync()]));
        assert_eq!(answer, [REFUSED, "Z I"], "prepared: {sql}");
    }
    assert_eq!(world.postgres.admin("SELECT count(*) FROM wages"), "5");
}

/// What the gateway has not seen yet it cannot know: a view that was made a moment ago.
#[test]
fn what_cannot_be_resolved_is_refused_unless_a_policy_permits_the_unknown() {
    let world = World::new(
        "permit (principal, action == Action::\"login\", resource);\n\
         permit (principal, action in Action::\"read\", resource in Table::\"orders-db/orders/public.orders\");",
    );
    let mut client = world.client();
    world.postgres.admin("CREATE VIEW fresh AS SELECT * FROM wages; GRANT ALL ON fresh TO app_rw");
    assert_eq!(client.simple("SELECT * FROM fresh"), [REFUSED, "Z I"]);
    assert_eq!(client.simple("SELECT id FROM orders WHERE id = 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
}

#[test]
fn a_setting_that_changes_how_text_is_read_hides_nothing() {
    let (_world, mut client) = guarded();
    assert_eq!(client.simple("SET standard_conforming_strings = off").last().unwrap(), "Z I");
    // With the setting off the backslash escapes the quote: the string ends later than it seems, or earlier.
    for sql in [
        "SELECT 'a\\'; SELECT amount FROM wages --'",
        "SELECT '\\' , (SELECT max(amount) FROM wages) --'",
        "SELECT '\\''; SELECT max(amount) FROM wages; --'",
    ] {
        let answer = client.simple(sql);
        assert!(answer.iter().all(|line| !line.starts_with("D 100")), "{sql}: {answer:?}");
        assert_eq!(answer.last().unwrap(), "Z I");
    }
}

/// What a client tries with parameters is told also where the server does not take them: its error repeats them.
#[test]
fn parameters_that_are_not_taken_are_recorded() {
    let mut world = World::new(gatebook_tests::gateway::PERMIT_ALL);
    let mut client = world.client();
    let frames = [
        extended("SELECT id FROM orders WHERE id = $1", &[Some("12x34")]),
        extended("SELECT 1", &[]),
        sync(),
        extended("SELECT id FROM orders WHERE id = $1", &[Some("7")]),
        sync(),
    ];
    client.send(&frames.concat()).unwrap();
    assert_eq!(brief(&client.receive_until(b"Z")), ["1", "E 22P02", "Z I"]);
    assert_eq!(brief(&client.receive_until(b"Z")), ["1", "2", "D 7", "C SELECT 1", "Z I"]);
    drop(client);
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let commands = ledger.commands();
    let prepares = |command: &&gatebook_tests::ledger::Command| {
        command.phase == "prepare" && command.parameters.first().is_some_and(|first| first.is(Some("12x34")))
    };
    let failed = commands.iter().find(prepares).expect("what was tried is told");
    assert_eq!((failed.ending.as_deref(), failed.parameters.len()), (Some("failed"), 1));
}

//! Definitions that somebody else changes between a decision and what it decided on: what policy denies is neither shown nor done.
//!
//! The gateway reads the catalog now and then, and each change here is made past it, right before the client's next command: what decides that
//! knows nothing of the change yet.

use gatebook_tests::machine::{ANSWER_MAX, until};
use gatebook_tests::wire::{Client, Message, bind_as, brief, execute, extended, parse, query, sync};
use gatebook_tests::{Postgres, World};

const POLICY: &str = r#"
permit (principal, action == Action::"login", resource);
permit (principal, action in [Action::"read", Action::"write"], resource in Schema::"orders-db/orders/public");
forbid (principal, action, resource == Table::"orders-db/orders/public.wages");
"#;
const CONFIRMED: &str = "confirm_catalog = true";

/// A view of the orders' states, one through which a chest is written, and a schema that is looked at before `public` and is empty.
const VIEWS: &str = "CREATE SCHEMA desk AUTHORIZATION app_rw; ALTER ROLE app_rw SET search_path = desk, public; \
    SET SESSION AUTHORIZATION app_rw; \
    CREATE VIEW glance AS SELECT id, state AS word FROM orders; \
    CREATE TABLE chest (id int, word text); CREATE VIEW box AS SELECT id, word FROM chest; \
    CREATE VIEW hidden AS SELECT id, person AS word FROM wages; \
    CREATE TABLE plain AS SELECT id, state AS word FROM orders";

/// What opens the wages under another name, what takes that back, and what is asked meanwhile.
const CHANGES: [(&str, &str, &str); 4] = [
    (
        "CREATE OR REPLACE VIEW glance AS SELECT id, person AS word FROM wages",
        "CREATE OR REPLACE VIEW glance AS SELECT id, state AS word FROM orders",
        "SELECT word FROM glance ORDER BY id LIMIT 3",
    ),
    (
        "ALTER TABLE plain RENAME TO aside; ALTER VIEW hidden RENAME TO plain",
        "ALTER VIEW plain RENAME TO hidden; ALTER TABLE aside RENAME TO plain",
        "SELECT word FROM plain ORDER BY id LIMIT 3",
    ),
    (
        "SET ROLE app_rw; CREATE TABLE desk.plain AS SELECT id, person AS word FROM public.wages",
        "DROP TABLE desk.plain",
        "SELECT word FROM plain ORDER BY id LIMIT 3",
    ),
    (
        "SET ROLE app_rw; CREATE VIEW desk.glance AS SELECT id, person AS word FROM public.wages",
        "DROP VIEW desk.glance",
        "COPY (SELECT word FROM glance ORDER BY id LIMIT 3) TO STDOUT",
    ),
];

fn world(resource: &str) -> World {
    let postgres = Postgres::start();
    postgres.admin(VIEWS);
    World::before(postgres, |setup| setup.policies(POLICY).resource(resource))
}

/// Each way to ask, none of which was asked before.
fn ways(sql: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bound = |binary| [bind_as("", "kept", &[], binary), execute("", 0), sync()].concat();
    let mut ways =
        vec![("simple", query(sql)), ("prepared before", bound(false)), ("in binary", bound(true))];
    ways.push(("in extended protocol", [extended(sql, &[]), sync()].concat()));
    ways.push(("behind others", [query("SELECT 1"), query(sql)].concat()));
    ways
}

/// Everything that comes for `frames` and a last empty query, or up to the connection's end.
fn all(client: &mut Client, frames: Vec<u8>) -> Vec<Message> {
    let mut answer = Vec::new();
    if client.send(&[frames, query("")].concat()).is_ok() {
        while let Ok(Some(message)) = client.receive() {
            answer.push(message);
            if let [.., empty, Message { tag: b'Z', .. }] = &answer[..]
                && empty.tag == b'I'
            {
                break;
            }
        }
    }
    answer
}

fn shows(answer: &[Message], words: &str) -> bool {
    answer.iter().any(|message| String::from_utf8_lossy(&message.body).contains(words))
}

/// A session to which the catalog is what it is, and that has prepared `sql`.
fn ready(world: &World, sql: &str) -> Client {
    until("the change is known to have been taken back", ANSWER_MAX, || {
        let mut client = world.client();
        let answer = all(&mut client, [parse("kept", sql), sync(), query(sql)].concat());
        shows(&answer, "open").then_some(client)
    })
}

#[test]
fn what_is_changed_right_before_a_read_is_not_shown() {
    let mut world = world(CONFIRMED);
    let mut ended = 0;
    for (open, close, sql) in CHANGES {
        for (way, frames) in ways(sql) {
            let mut client = ready(&world, sql);
            world.postgres.admin(open);
            let answer = all(&mut client, frames);
            assert!(!shows(&answer, "person"), "{open}, {way}: {answer:?}");
            ended += usize::from(!answer.iter().any(|message| message.tag == b'I'));
            // Whoever asks again is refused by what is known by now.
            let refused = brief(&all(&mut world.client(), query(sql)));
            assert_eq!(refused, ["E 42501", "Z I", "I", "Z I"], "{open}, {way}");
            world.postgres.admin(close);
        }
    }
    assert!(ended > 0, "no read was caught");
    assert!(world.gateway.stop().success());
    world.gateway.ledger().assert_sound();
    let closed = world.gateway.ledger().told();
    let closed = closed.iter().filter(|event| event.body["reason"] == "definitions_changed").count();
    assert_eq!(closed, ended);
}

#[test]
fn what_is_changed_right_before_a_write_is_not_written() {
    let world = world(CONFIRMED);
    let insert = "INSERT INTO box VALUES (7, 'mine')";
    for (way, frames) in [("simple", query(insert)), ("extended", [extended(insert, &[]), sync()].concat())] {
        let mut client = world.client();
        assert_eq!(brief(&all(&mut client, query("DELETE FROM box WHERE id = 7")))[1], "Z I", "{way}");
        world.postgres.admin(
            "ALTER TABLE wages ALTER amount SET DEFAULT 0; \
             CREATE OR REPLACE VIEW box AS SELECT id, person AS word FROM wages",
        );
        let answer = brief(&all(&mut client, frames));
        assert!(answer.iter().any(|message| message == "E 42501"), "{way}: {answer:?}");
        assert_eq!(world.postgres.admin("SELECT count(*) FROM wages WHERE id = 7"), "0", "{way}");
        world.postgres.admin("CREATE OR REPLACE VIEW box AS SELECT id, word FROM chest");
    }
}

/// A cursor's query was resolved when it was declared, and its rows are shown later.
#[test]
fn a_cursor_is_confirmed_when_it_is_declared() {
    let world = world(CONFIRMED);
    let (open, close, sql) = CHANGES[0];
    for declare in [format!("DECLARE c CURSOR FOR {sql}"), format!("DECLARE c CURSOR WITH HOLD FOR {sql}")] {
        let mut client = ready(&world, sql);
        assert_eq!(brief(&all(&mut client, query("BEGIN")))[0], "C BEGIN");
        world.postgres.admin(open);
        let answer = all(&mut client, [query(&declare), query("FETCH ALL FROM c")].concat());
        assert!(!shows(&answer, "person"), "{declare}: {answer:?}");
        world.postgres.admin(close);
    }
}

/// Definitions change all the time; only those matter that a command names, and those of one's own do not.
#[test]
fn other_definitions_and_ones_own_disturb_nobody() {
    let postgres = Postgres::start();
    postgres.admin(VIEWS);
    let world = World::before(postgres, |setup| setup.resource(CONFIRMED));
    let mut client = world.client();
    for round in 0..5 {
        world.postgres.admin(&format!(
            "CREATE TABLE other{round} (id int); CREATE VIEW others{round} AS TABLE other{round}; DROP VIEW others{round}; TRUNCATE chest; GRANT SELECT ON glance TO app_ro; CREATE INDEX ON orders (state)"
        ));
        assert_eq!(client.simple("SELECT word FROM glance WHERE id = 1")[1], "D open");
        assert_eq!(client.simple("TABLE chest")[1], "C SELECT 0");
        for (sql, answer) in [
            ("CREATE TABLE mine (id int)", "C CREATE TABLE"),
            ("INSERT INTO mine VALUES (1), (2)", "C INSERT 0 2"),
            ("ALTER TABLE mine ADD more int DEFAULT 3", "C ALTER TABLE"),
            ("CREATE VIEW ours AS SELECT more FROM mine", "C CREATE VIEW"),
            ("SELECT sum(more) FROM ours", "D 6"),
            ("TRUNCATE mine", "C TRUNCATE TABLE"),
            ("SELECT count(*) FROM ours", "D 0"),
            ("DROP TABLE mine CASCADE", "C DROP TABLE"),
        ] {
            let got = if round % 2 == 0 {
                client.simple(sql)
            } else {
                brief(&client.ask(&[extended(sql, &[]), sync()]))
            };
            assert!(got.iter().any(|message| message == answer), "{sql}: {got:?}");
        }
        let script = "BEGIN; CREATE TABLE mine AS SELECT 5 AS n; DECLARE c CURSOR FOR SELECT n FROM mine; FETCH c; \
            DROP TABLE mine CASCADE";
        let got = client.simple(script);
        assert_eq!(got.last().unwrap(), "Z E", "a cursor holds its table: {got:?}");
        assert_eq!(client.simple("ROLLBACK"), ["C ROLLBACK", "Z I"]);
    }
}

/// Where the catalog cannot be read nobody knows what a command meant.
#[test]
fn nothing_is_shown_or_changed_while_the_catalog_cannot_be_read() {
    let world = world(CONFIRMED);
    let mut client = world.client();
    assert_eq!(client.simple("SELECT word FROM glance WHERE id = 1")[1], "D open");
    world.postgres.admin(
        "ALTER ROLE gatebook_catalog NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gatebook_catalog'",
    );
    let write = brief(&all(&mut client, query("DELETE FROM journal")));
    assert_eq!(write.first().map(String::as_str), Some("E 42501"), "{write:?}");
    let read = all(&mut client, query("SELECT word FROM glance WHERE id = 1"));
    assert!(!shows(&read, "open"), "{read:?}");
    assert_eq!(brief(&read).last().map(String::as_str), Some("E 57P01"), "{read:?}");
    world.postgres.admin("ALTER ROLE gatebook_catalog LOGIN");
    until("it is read again", ANSWER_MAX, || {
        let answer = all(&mut world.client(), query("SELECT word FROM glance WHERE id = 1"));
        shows(&answer, "open").then_some(())
    });
}

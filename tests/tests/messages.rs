//! Every message of the protocol, in the states in which it may come: what a server answers is what the gateway answers.
//!
//! `docs/protocols.md` names a test for each message; that they exist is tested here, too.

use std::path::Path;

use gatebook_tests::World;
use gatebook_tests::gateway::PERMIT_ALL;
use gatebook_tests::machine;
use gatebook_tests::postgres::{APP, APP_PASSWORD, DATABASE};
use gatebook_tests::wire::{
    Client, bind, brief, copy_data, copy_done, describe, execute, extended, frame, function_call, parse,
    query, sync,
};

/// `Flush`.
fn flush() -> Vec<u8> {
    frame(b'H', &[])
}

/// `Close` of a statement (`S`) or a portal (`P`).
fn close(kind: u8, name: &str) -> Vec<u8> {
    frame(b'C', &[&[kind], name.as_bytes(), &[0]].concat())
}

/// `CopyFail`.
fn copy_fail() -> Vec<u8> {
    frame(b'f', b"no more\0")
}

/// What is sent at once, and how many ReadyForQuery it is answered with.
struct Exchange {
    name: &'static str,
    frames: Vec<Vec<u8>>,
    ready: usize,
}

fn exchange(name: &'static str, ready: usize, frames: impl IntoIterator<Item = Vec<u8>>) -> Exchange {
    Exchange { name, frames: frames.into_iter().collect(), ready }
}

fn insert(id: u32) -> Vec<u8> {
    query(&format!("INSERT INTO journal (id) VALUES ({id})"))
}

/// What belongs together runs on one connection, in this order.
fn exchanges() -> Vec<Exchange> {
    let copy_in = || query("COPY journal (id) FROM STDIN");
    let bad = || parse("", "SELECT nonsense(");
    vec![
        exchange("Query", 1, [query("SELECT 1")]),
        exchange("Query without a statement", 1, [query("  -- nothing\n")]),
        exchange("Query of several statements", 1, [query("SELECT 1; SELECT 2; BEGIN; SELECT 3; COMMIT")]),
        exchange("Query of several statements that fails", 1, [query("SELECT 1; SELECT 1/0; SELECT 3")]),
        exchange(
            "Query that fails in a transaction",
            3,
            [query("BEGIN"), query("SELECT 1/0"), query("ROLLBACK")],
        ),
        exchange("Queries at once", 3, [query("SELECT 1"), query("SELECT 2"), query("SELECT 3")]),
        exchange("NoticeResponse", 1, [query("DO $$ BEGIN RAISE NOTICE 'noted'; END $$")]),
        exchange("NotificationResponse", 2, [query("LISTEN heard"), query("NOTIFY heard, 'told'")]),
        exchange(
            "ParameterStatus",
            2,
            [query("SET application_name = 'other'"), query("RESET application_name")],
        ),
        exchange("Parse, Bind, Execute, Sync", 1, [extended("SELECT $1::int", &[Some("7")]), sync()]),
        exchange("Parse without a statement", 1, [extended("", &[]), sync()]),
        exchange("Parse of several statements", 1, [parse("", "SELECT 1; SELECT 2"), sync()]),
        exchange("Parse that fails", 1, [bad(), bind("", "", &[]), execute("", 0), sync()]),
        exchange(
            "Describe of a statement",
            1,
            [parse("s", "SELECT $1::text AS t"), describe(b'S', "s"), sync()],
        ),
        exchange(
            "Describe of a portal",
            1,
            [bind("p", "s", &[Some("x")]), describe(b'P', "p"), execute("p", 0), sync()],
        ),
        exchange(
            "Describe of what shows nothing",
            1,
            [parse("n", "SET work_mem = '4MB'"), describe(b'S', "n"), sync()],
        ),
        exchange("Describe of what is not there", 1, [describe(b'S', "nobody"), sync()]),
        exchange("Bind of too few parameters", 1, [bind("", "s", &[]), execute("", 0), sync()]),
        exchange("Bind of NULL", 1, [bind("", "s", &[None]), execute("", 0), sync()]),
        exchange("Bind of what is not there", 1, [bind("", "nobody", &[]), sync()]),
        exchange("Execute of what is not there", 1, [execute("nobody", 0), sync()]),
        exchange("a statement's name taken twice", 1, [parse("s", "SELECT 2"), sync()]),
        exchange(
            "PortalSuspended",
            3,
            [
                query("BEGIN"),
                parse("", "SELECT g FROM generate_series(1, 3) g"),
                bind("p", "", &[]),
                execute("p", 2),
                execute("p", 2),
                execute("p", 2),
                sync(),
                query("COMMIT"),
            ],
        ),
        exchange("Close", 2, [close(b'S', "s"), close(b'P', "nobody"), sync(), bind("", "s", &[]), sync()]),
        exchange("Sync alone", 2, [sync(), sync()]),
        exchange(
            "Flush",
            1,
            [
                flush(),
                parse("", "SELECT 1"),
                flush(),
                bind("", "", &[]),
                flush(),
                execute("", 0),
                flush(),
                sync(),
            ],
        ),
        exchange(
            "an error and what is passed over",
            1,
            [extended("SELECT 1/0", &[]), extended("SELECT 1", &[]), close(b'S', ""), sync()],
        ),
        exchange(
            "batches at once",
            2,
            [extended("SELECT 1", &[]), sync(), extended("SELECT 2", &[]), sync()],
        ),
        exchange("Query behind an extended one", 2, [extended("SELECT 1", &[]), sync(), query("SELECT 2")]),
        exchange("Query within a batch", 1, [extended("SELECT 1", &[]), query("SELECT 2")]),
        exchange("FunctionCall", 1, [function_call(870, &["ÄB"])]),
        exchange("FunctionCall of what is not there", 1, [function_call(4_000_000_000, &[])]),
        exchange("FunctionCall with a wrong count", 1, [function_call(870, &[])]),
        exchange(
            "FunctionCall in a failed transaction",
            4,
            [query("BEGIN"), query("SELECT 1/0"), function_call(870, &["x"]), query("ROLLBACK")],
        ),
        exchange("COPY out", 1, [query("COPY customers (id) TO STDOUT")]),
        exchange(
            "COPY out, extended",
            1,
            [extended("COPY customers (id) TO STDOUT (FORMAT csv)", &[]), sync()],
        ),
        exchange(
            "COPY out that fails on its way",
            1,
            [query("COPY (SELECT 1 / (3 - g) FROM generate_series(1, 5) g) TO STDOUT")],
        ),
        exchange("COPY in", 1, [copy_in(), copy_data("1\n2\n"), copy_done()]),
        exchange(
            "COPY in, in pieces",
            1,
            [copy_in(), copy_data("3"), copy_data("1\n3"), copy_data("2\n"), copy_done()],
        ),
        exchange(
            "COPY in, extended",
            1,
            [
                parse("", "COPY journal (id) FROM STDIN"),
                bind("", "", &[]),
                execute("", 0),
                copy_data("4\n"),
                copy_done(),
                sync(),
            ],
        ),
        exchange("CopyFail", 1, [copy_in(), copy_data("5\n"), copy_fail()]),
        exchange(
            "COPY in that fails on its way",
            2,
            [copy_in(), copy_data("x\n"), copy_data("6\n"), copy_done(), query("SELECT 1")],
        ),
        exchange(
            "COPY in with Sync and Flush within",
            1,
            [copy_in(), copy_data("7\n"), flush(), copy_done()],
        ),
        exchange(
            "COPY data without a COPY",
            1,
            [copy_data("8\n"), copy_done(), copy_fail(), query("SELECT 1")],
        ),
        exchange(
            "COPY both ways in one text",
            1,
            [
                query("COPY journal (id) FROM STDIN; COPY journal (id) TO STDOUT"),
                copy_data("9\n"),
                copy_done(),
            ],
        ),
        exchange(
            "a cursor",
            4,
            [
                query("BEGIN"),
                query("DECLARE c CURSOR FOR SELECT 1"),
                query("FETCH ALL FROM c"),
                query("ROLLBACK"),
            ],
        ),
        exchange("a change", 2, [insert(100), query("SELECT count(*) FROM journal")]),
        exchange("a change that fails", 1, [insert(100)]),
        exchange("DISCARD ALL", 2, [query("DISCARD ALL"), query("SELECT 1")]),
    ]
}

/// What came back, without what differs by nature: the number of the backend in a notification.
fn answer(client: &mut Client, exchange: &Exchange) -> Vec<String> {
    client.send(&exchange.frames.concat()).expect("the server reads");
    let mut all = Vec::new();
    for _ in 0..exchange.ready {
        all.extend(client.receive_until(b"Z"));
    }
    let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
    let shown = all.iter().filter(|message| message.tag != b'S').map(|message| match message.tag {
        b'T' | b't' | b'G' | b'H' | b'V' | b'n' => format!("{} {:?}", char::from(message.tag), message.body),
        b'A' => format!("A {}", text(message.body.get(4..).unwrap_or_default())),
        _ => message.brief(),
    });
    shown.collect()
}

#[test]
fn every_message_is_answered_as_by_the_server() {
    let world = World::new(PERMIT_ALL);
    let mut through = world.client();
    let other = gatebook_tests::Postgres::start();
    let mut direct = Client::tls(other.address(), other.authority().client());
    direct.login(APP, DATABASE, APP_PASSWORD).expect("the server lets it in");
    let mut wrong = Vec::new();
    for exchange in exchanges() {
        let (expected, found) = (answer(&mut direct, &exchange), answer(&mut through, &exchange));
        if expected != found {
            wrong.push(format!("{}\n direct  {expected:?}\n through {found:?}", exchange.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let rows = "SELECT string_agg(id::text, ',' ORDER BY id) FROM journal";
    assert_eq!(world.postgres.admin(rows), other.admin(rows));
}

/// What no client may send once it is logged in ends its session, and what the server would take for an error of the protocol.
#[test]
fn messages_out_of_place_end_the_session() {
    let world = World::new(PERMIT_ALL);
    for bytes in [
        frame(b'p', b"password\0"),
        frame(b'R', &[0; 4]),
        frame(b'W', &[0; 3]),
        frame(b'!', b""),
        frame(b'Q', b"SELECT 1"),
        frame(b'Q', b"SELECT 1\0; SELECT 2\0"),
        frame(b'D', b"Xs\0"),
        frame(b'C', b"Xs\0"),
        frame(b'B', b"\0\0\0\x01\0\x07\0\x01\0\0\0\x01x\0\0"),
        frame(b'F', &[0, 0, 3, 0x66, 0, 0, 0, 9]),
        frame(b'S', b"more"),
    ] {
        let mut client = world.client();
        client.send(&bytes).expect("it reads");
        assert_eq!(brief(&client.receive_to_end()), ["E 08P01"], "{bytes:?}");
    }
    assert_eq!(world.client().simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
}

/// Each row of the tables names what tests it.
#[test]
fn every_message_of_the_documentation_has_its_test() {
    let text = include_str!("../../docs/protocols.md");
    let root = machine::tests_folder().join("..");
    let mut sources = String::new();
    for folder in [
        "tests/tests",
        "gateway/wire/tests",
        "gateway/wire/src/postgres",
        "gateway/src/session",
        "gateway/src",
    ] {
        read(&root.join(folder), &mut sources);
    }
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows.len() > 45, "the tables are gone: {}", rows.len());
    for row in rows {
        let named = row.rsplit('|').nth(1).unwrap_or_default();
        let names: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test is named: {row}");
        for name in names {
            assert!(sources.contains(&format!("fn {name}(")), "there is no such test: {name}");
        }
    }
}

fn read(folder: &Path, into: &mut String) {
    for entry in folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(path).expect("a source can be read"));
        }
    }
}

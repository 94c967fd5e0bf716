//! What nobody declared and content detection finds, on a real server: however it is asked for, it is overwritten and counted.

use gatebook_tests::postgres::{APP, APP_PASSWORD, DATABASE};
use gatebook_tests::wire::{
    Client, Message, bind_as, brief, describe, execute, function_call, parse, query, sync, terminate,
};
use gatebook_tests::{Postgres, World};

const READ_AND_WRITE: &str = "permit (principal, action, resource);";
const DETECT: &str = "detect = [\"email\", \"card\", \"secret\"]";
/// Values of the table `memos`; no column of it is declared.
const HIDDEN: [&str; 3] = ["lee.k@mail.corp.test", "4012888888881881", "AKIAIOSFODNN7EXAMPLE"];

/// A server whose table `memos` holds the hidden values once each, the card twice.
fn postgres() -> Postgres {
    let postgres = Postgres::start();
    postgres.admin(
        "CREATE TABLE memos (id int PRIMARY KEY, body text UNIQUE, tags text[], more jsonb); \
         ALTER TABLE memos OWNER TO app_rw; \
         INSERT INTO memos VALUES (1, 'write to lee.k@mail.corp.test', \
            ARRAY[rpad('4012888888881881', 97), 'AKIAIOSFODNN7EXAMPLE'], '{\"card\": 4012888888881881}'); \
         INSERT INTO memos SELECT i, 'memo ' || i FROM generate_series(2, 9) i",
    );
    postgres
}

fn in_binary(sql: &str) -> [Vec<u8>; 5] {
    [parse("", sql), bind_as("", "", &[], true), describe(b'P', ""), execute("", 0), sync()]
}

fn direct(world: &World) -> Client {
    let mut client = Client::tls(world.postgres.address(), world.postgres.authority().client());
    client.login(APP, DATABASE, APP_PASSWORD).expect("the server lets it in");
    client
}

fn assert_hidden(what: &str, answer: &[Message]) {
    for message in answer {
        let text = String::from_utf8_lossy(&message.body);
        let seen = HIDDEN.iter().find(|hidden| text.contains(**hidden));
        assert_eq!(seen, None, "{what}: {text:?}");
    }
}

#[test]
fn what_is_found_is_overwritten_however_it_is_asked_for() {
    let mut world = World::before(postgres(), |setup| setup.policies(READ_AND_WRITE).resource(DETECT));
    let mut client = world.client();
    let all = "SELECT id, body, tags, more FROM memos WHERE id = 1";
    let shown = client.simple(all);
    let tags = format!("{{\"9999999999991881{}\",xxxxxxxxxxxx9xxxxxxx}}", " ".repeat(81));
    assert_eq!(shown[1], format!("D 1,write to xxx.x@xxxx.xxxx.xxxx,{tags},{{\"card\": 9999999999991881}}"));
    // A value in binary is as long as before, its lengths and its other bytes are the same.
    let clear = direct(&world).ask(&in_binary(all));
    let through = client.ask(&in_binary(all));
    assert_hidden("binary", &through);
    let rows = |answer: &[Message]| -> Vec<u8> {
        answer.iter().filter(|message| message.tag == b'D').flat_map(|row| row.body.clone()).collect()
    };
    let (clear, hidden) = (rows(&clear), rows(&through));
    assert_eq!(clear.len(), hidden.len());
    let differ = clear.iter().zip(&hidden).filter(|(a, b)| a != b);
    assert!(differ.clone().count() > 30 && differ.clone().all(|(a, _)| a.is_ascii_alphanumeric()));
    for sql in
        ["COPY memos TO STDOUT", "COPY memos TO STDOUT (FORMAT csv)", "COPY memos TO STDOUT (FORMAT binary)"]
    {
        let copied = client.ask(&[query(sql)]);
        assert_eq!(copied.last().map(Message::brief).as_deref(), Some("Z I"), "{sql}");
        assert_hidden(sql, &copied);
    }
    // The key that is there already is told in the error's detail.
    let told = client.ask(&[query("INSERT INTO memos VALUES (20, 'write to lee.k@mail.corp.test')")]);
    assert_eq!(brief(&told), ["E 23505", "Z I"]);
    assert_hidden("an error", &told);
    let said = String::from_utf8_lossy(&told[0].body).into_owned();
    assert!(
        said.contains("(body)=(write to xxx.x@xxxx.xxxx.xxxx)") && said.contains("memos_body_key"),
        "{said}"
    );
    let told = client.ask(&[query("DO $$ BEGIN RAISE NOTICE 'key %', 'AKIAIOSFODNN7EXAMPLE'; END $$")]);
    assert_eq!(brief(&told), ["N 00000", "C DO", "Z I"]);
    assert_hidden("a notice", &told);
    let told = client.ask(&[query("LISTEN news; NOTIFY news, 'from lee.k@mail.corp.test'")]);
    assert_hidden("a notification", &told);
    assert!(told.iter().any(|message| message.tag == b'A'), "{told:?}");
    let number = world.postgres.admin("SELECT 'pg_catalog.btrim(text)'::regprocedure::oid");
    let number = number.parse().expect("a number");
    let told = client.ask(&[function_call(number, &["lee@mail.example"])]);
    assert!(told.iter().any(|message| message.body.ends_with(b"xxx@xxxx.xxxxxxx")), "{told:?}");
    client.send(&terminate()).unwrap();
    drop(client);
    assert!(world.gateway.stop().success());
    world.gateway.ledger().assert_sound();
    let counted: Vec<String> = world
        .gateway
        .ledger()
        .told()
        .iter()
        .filter_map(|event| event.payload["detected"].as_str().map(str::to_owned))
        .collect();
    let each = "email 1, card 2, secret 1";
    let expected = [each, each, each, each, each, "email 1", "secret 1", "email 1"];
    assert_eq!(counted, expected);
}

/// What is cut off by a limit was not shown, and is not counted.
#[test]
fn only_what_is_shown_is_counted() {
    let limited = format!("@max_rows(\"2\")\n{READ_AND_WRITE}");
    let mut world = World::before(postgres(), |setup| setup.policies(&limited).resource(DETECT));
    let mut client = world.client();
    let three = "SELECT 'a' || id || '@mail.example' FROM memos WHERE id < 4";
    assert_eq!(client.simple(three)[1..], ["D x9@xxxx.xxxxxxx", "D x9@xxxx.xxxxxxx", "E 53400", "Z I"]);
    drop(client);
    assert!(world.gateway.stop().success());
    let counted: Vec<_> = world
        .gateway
        .ledger()
        .told()
        .iter()
        .filter_map(|event| event.payload["detected"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(counted, ["email 2"]);
}

/// A team that tries it on live traffic sees nothing change.
#[test]
fn in_shadow_mode_it_is_only_counted() {
    let mut world = World::before(postgres(), |setup| {
        setup.policies(READ_AND_WRITE).resource(DETECT).resource("shadow = true")
    });
    let mut client = world.client();
    assert_eq!(client.simple("SELECT body FROM memos WHERE id = 1")[1], "D write to lee.k@mail.corp.test");
    drop(client);
    assert!(world.gateway.stop().success());
    let told = world.gateway.ledger().told();
    assert!(told.iter().any(|event| event.payload["detected"] == "email 1"));
}

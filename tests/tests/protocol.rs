//! What newer clients ask for at the door: protocol 3.2 with its long cancel keys, and tokens by OAUTHBEARER, first by hand
//! and then with a real libpq 18.

use gatebook_tests::World;
use gatebook_tests::driver::libpq;
use gatebook_tests::gateway::PERMIT_ALL;
use gatebook_tests::postgres::{APP, DATABASE};
use gatebook_tests::wire::{self, Client, Message, bearer, brief, frame, query, startup_of};
use serde_json::{Value, json};

const ONE: [&str; 4] = ["T", "D 1", "C SELECT 1", "Z I"];

fn connected(world: &World) -> Client {
    Client::tls(world.gateway.address(), world.gateway.tls())
}

/// Logs in with protocol 3.`minor`, and returns what the server answered to the startup message first.
fn login(client: &mut Client, minor: u16, options: &[(&str, &str)], token: &str) -> Message {
    let parameters = [&[("user", APP), ("database", DATABASE)], options].concat();
    client.send(&startup_of(minor, &parameters)).unwrap();
    let first = client.receive().unwrap().expect("the server answers");
    if first.tag == b'R' {
        // The request for the token, which is what a login reads first.
        client.send(&frame(b'p', format!("{token}\0").as_bytes())).unwrap();
    }
    client.authenticate(token).expect("the token is good");
    first
}

fn sleeping(client: &mut Client) {
    client.send(&query("DO $$ BEGIN RAISE NOTICE 'running'; PERFORM pg_sleep(300); END $$")).unwrap();
    assert_eq!(brief(&client.receive_until(b"N")), ["N 00000"]);
}

#[test]
fn a_protocol_newer_than_ours_is_talked_down_to_it() {
    let world = World::new(PERMIT_ALL);
    let token = world.token();
    // Version 3.2, and the two options that we do not know, by name.
    let told = b"\0\x03\0\x02\0\0\0\x02_pq_.one\0_pq_.two\0";
    let mut client = connected(&world);
    let first = login(&mut client, 9, &[("_pq_.one", "1"), ("_pq_.two", "")], &token);
    assert_eq!((first.tag, &*first.body), (b'v', &told[..]));
    assert_eq!(client.cancel_key.len(), 36, "what was agreed on is 3.2, with its longer keys");
    assert_eq!(client.simple("SELECT 1"), ONE);
    // An option alone is talked about too, within the version that was asked for.
    let mut client = connected(&world);
    let first = login(&mut client, 0, &[("_pq_.one", "1")], &token);
    assert_eq!((first.tag, &*first.body), (b'v', &b"\0\x03\0\0\0\0\0\x01_pq_.one\0"[..]));
    assert_eq!(client.cancel_key.len(), 8, "protocol 3.0 has no room for more");
    for minor in [0, 2] {
        let mut client = connected(&world);
        assert_eq!(login(&mut client, minor, &[], &token).tag, b'R', "3.{minor} is nothing to talk about");
        assert_eq!(client.simple("SELECT 1"), ONE);
    }
    // Another major version is another protocol.
    let mut client = connected(&world);
    let mut ancient = startup_of(0, &[("user", APP), ("database", DATABASE)]);
    ancient[5] = 2;
    client.send(&ancient).unwrap();
    assert_eq!(brief(&client.receive_to_end()), ["E 08P01"]);
}

#[test]
fn a_long_key_cancels_in_clear_and_a_wrong_one_of_its_length_does_not() {
    let mut world = World::new(PERMIT_ALL);
    let mut client = connected(&world);
    login(&mut client, 2, &[], &world.token());
    let key = client.cancel_key.clone();
    assert_eq!(key.len(), 36, "four bytes that stand for the process and a secret of 256 bits");
    sleeping(&mut client);
    let cancel = |key: &[u8]| {
        let mut canceller = Client::clear(world.gateway.address());
        canceller.send(&wire::cancel(key)).unwrap();
        assert!(canceller.receive_to_end().is_empty(), "whether a key is known is never told");
    };
    for wrong in 0..key.len() {
        let mut guessed = key.clone();
        guessed[wrong] ^= 1;
        cancel(&guessed);
    }
    // A key's beginning is no key, and nor is one with something behind it.
    cancel(&key[..8]);
    cancel(&[&key[..], &[0]].concat());
    let running = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_rw' AND state = 'active'";
    assert_eq!(world.postgres.admin(running), "1");
    cancel(&key);
    assert_eq!(brief(&client.receive_until(b"Z")), ["E 57014", "Z I"]);
    drop(client);
    assert!(world.gateway.stop().success());
    let told = world.gateway.ledger().told();
    let opened: Vec<u64> =
        told.iter().filter(|event| event.name == "session.opened").map(|event| event.session).collect();
    let cancels: Vec<u64> =
        told.iter().filter(|event| event.name == "cancel").map(|event| event.session).collect();
    assert_eq!(cancels, opened, "one request had a key, and is recorded under its session");
}

/// A gateway that takes tokens by OAUTHBEARER.
fn bearing() -> World {
    World::with(|setup| setup.policies(PERMIT_ALL).resource("login = \"oauthbearer\""))
}

/// A connection whose server has offered its mechanisms.
fn offered(world: &World) -> Client {
    let mut client = connected(world);
    client.send(&startup_of(0, &[("user", APP), ("database", DATABASE)])).unwrap();
    let offer = client.receive().unwrap().expect("the server answers");
    assert_eq!((offer.tag, &*offer.body), (b'R', &b"\0\0\0\x0aOAUTHBEARER\0\0"[..]));
    client
}

/// The status that a server's challenge tells (RFC 7628, section 3.2.2).
fn challenge(client: &mut Client) -> Value {
    let message = client.receive().unwrap().expect("the server answers");
    assert_eq!((message.tag, message.body.get(..4)), (b'R', Some(&[0, 0, 0, 11][..])), "{message:?}");
    serde_json::from_slice(&message.body[4..]).expect("the challenge is JSON")
}

#[test]
fn a_token_is_taken_by_oauthbearer_and_a_client_without_one_is_told_where_to_get_it() {
    let mut world = bearing();
    let mut client = offered(&world);
    client.send(&bearer(Some(&world.token()))).unwrap();
    client.authenticate("").expect("the token is good");
    assert_eq!(client.simple("SELECT 1"), ONE);
    drop(client);

    let discovery = json!({
        "status": "invalid_token",
        "scope": "openid",
        "openid-configuration": format!("{}/.well-known/openid-configuration", world.issuer.url()),
    });
    let mut without = offered(&world);
    without.send(&bearer(None)).unwrap();
    assert_eq!(challenge(&mut without), discovery);
    without.send(&frame(b'p', b"\x01")).unwrap();
    assert_eq!(brief(&without.receive_to_end()), ["E 28000"]);

    // A bad token is answered in the same way: the client may have a fresher one, or fetch it there.
    let good = world.token();
    let bad = format!("{}A{}", &good[..good.len() - 10], &good[good.len() - 9..]);
    let mut wrong = offered(&world);
    wrong.send(&bearer(Some(&bad))).unwrap();
    assert_eq!(challenge(&mut wrong), discovery);
    wrong.send(&frame(b'p', b"\x01")).unwrap();
    let last = wrong.receive_to_end();
    let report = last[0].report().expect("the end is an error");
    assert_eq!((last.len(), &*report.severity, &*report.code), (1, "FATAL", "28P01"));

    // What is no OAUTHBEARER message ends the connection, and nothing of it is repeated.
    let message = |text: &str| wire::sasl("OAUTHBEARER", text.as_bytes());
    let token = &good;
    for malformed in [
        wire::sasl("SCRAM-SHA-256", b"n,,n=,r=abc"),
        frame(b'p', format!("{token}\0").as_bytes()),
        message(""),
        message("n,,"),
        message(&format!("auth=Bearer {token}")),
        message(&format!("n,a=somebody,\x01auth=Bearer {token}\x01\x01")),
        message(&format!("n,,\x01auth=Bearer {token}\x01auth=Bearer {token}\x01\x01")),
        message(&format!("n,,\x01auth=Basic {token}\x01\x01")),
        message(&format!("n,,\x01auth=Bearer {token}\x01")),
        message(&format!("p=tls-exporter,,\x01auth=Bearer {token}\x01\x01")),
    ] {
        let mut client = offered(&world);
        client.send(&malformed).unwrap();
        let last = client.receive_to_end();
        assert_eq!(brief(&last), ["E 08P01"], "{malformed:?}");
        assert!(!last[0].report().unwrap().message.contains(&token[..20]));
    }

    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    let refused: Vec<&Value> =
        told.iter().filter(|event| event.name == "login.refused").map(|event| &event.body).collect();
    assert_eq!(refused, [&json!({"cause": "bad_signature", "count": 1})]);
    assert_eq!(told.iter().filter(|event| event.name == "session.opened").count(), 1);
}

/// PostgreSQL's own client library of version 18, unmodified: protocol 3.2, TLS from the first byte, both ways to cancel.
#[test]
fn libpq_18_speaks_its_newest_protocol_over_direct_tls() {
    let world = World::new(PERMIT_ALL);
    let environment = world.gateway.environment(&world.token());
    for (settings, how, protocol) in [
        ("", "secure", 3_00_00),
        ("max_protocol_version=latest", "clear", 3_00_02),
        ("min_protocol_version=3.2 max_protocol_version=3.2 sslnegotiation=direct", "secure", 3_00_02),
    ] {
        let told = libpq(&environment, "", &[settings, how]);
        assert!(told["libpq"].as_u64().unwrap() >= 18_00_00, "{told}");
        assert_eq!(told["error"], Value::Null);
        assert_eq!(
            (&told["protocol"], &told["tls"], &told["row"], &told["cancelled"]),
            (&json!(protocol), &json!(true), &json!([APP, 42]), &json!("57014")),
            "{settings}"
        );
    }
}

/// libpq 18 finds the issuer by itself, asks the application for a token, and presents it.
#[test]
fn libpq_18_logs_in_by_oauthbearer() {
    let mut world = bearing();
    let environment = world.gateway.environment("a password that nobody asks for");
    let issuer = world.issuer.url().to_owned();
    let document = format!("{issuer}/.well-known/openid-configuration");
    // With the issuer alone libpq asks the server first, which also names the scope; with the document's address it does not.
    for (known, scope) in [(&issuer, "openid"), (&document, "")] {
        let settings = format!("oauth_issuer={known} oauth_client_id=psql require_auth=oauth");
        let told = libpq(&environment, &world.token(), &[&settings]);
        assert_eq!(told["error"], Value::Null);
        assert_eq!(told["row"], json!([APP, 42]));
        assert_eq!(told["asked"], json!([{"configuration": document, "scope": scope}]));
    }
    let settings = format!("oauth_issuer={document} oauth_client_id=psql oauth_scope=openid");
    let told = libpq(&environment, "not-a-token", &[&settings]);
    let error = told["error"].as_str().expect("a bad token is refused");
    assert!(error.contains("FATAL:  the token was not accepted"), "{error}");
    assert_eq!(told["row"], Value::Null);
    assert!(world.gateway.stop().success());
    world.gateway.ledger().assert_sound();
}

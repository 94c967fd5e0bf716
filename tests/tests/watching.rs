//! What the gateway tells those who watch it: numbers, and every event.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use gatebook_tests::World;
use gatebook_tests::gateway::PERMIT_ALL;
use gatebook_tests::machine::{self, ANSWER_MAX, START_MAX, until};
use serde_json::Value;

const ROW: [&str; 4] = ["T", "D 1", "C SELECT 1", "Z I"];

fn asked(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the listener can be reached");
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn metrics_of(world: &World) -> String {
    world.gateway.process_ref().line_from(0, "metrics: listening on", START_MAX, |line| {
        line.strip_prefix("metrics: listening on ").map(str::to_owned)
    })
}

fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

#[test]
fn numbers_tell_what_happens_and_nothing_else() {
    let world = World::with(|setup| setup.policies(PERMIT_ALL).top("[metrics]\nlisten = \"127.0.0.1:0\""));
    let address = metrics_of(&world);
    let mut client = world.client();
    assert_eq!(client.simple("SELECT 1"), ROW);
    let mut refused = gatebook_tests::wire::Client::tls(world.gateway.address(), world.gateway.tls());
    refused.login("app", "orders", "nonsense").expect_err("no token");
    let text = asked(&address, "/metrics");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(sample(&text, "gatebook_sessions"), 1.0);
    assert_eq!(sample(&text, "gatebook_commands_total"), 1.0);
    assert_eq!(sample(&text, "gatebook_logins_refused_total"), 1.0);
    assert_eq!(sample(&text, "gatebook_ledger_refuses"), 0.0);
    assert_eq!(sample(&text, "gatebook_issuer_keys{issuer=\"idp\"}"), 1.0);
    assert!(sample(&text, "gatebook_ledger_records_total") > 3.0);
    for secret in ["lee", "127.0.0.1", "SELECT", world.issuer.url()] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    for path in ["/", "/v1/sessions", "/metrics/", "/debug/pprof"] {
        assert!(asked(&address, path).starts_with("HTTP/1.1 404"), "{path}");
    }
}

/// The sequence numbers of JSON lines.
fn numbers(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?.get("seq")?.as_u64()).collect()
}

/// One message in the framing of RFC 6587, section 3.4.1.
fn message(stream: &mut impl BufRead) -> Option<String> {
    let mut length = Vec::new();
    stream.read_until(b' ', &mut length).ok().filter(|count| *count > 0)?;
    let length: usize = std::str::from_utf8(&length).unwrap().trim().parse().expect("a length");
    let mut text = vec![0; length];
    stream.read_exact(&mut text).ok()?;
    Some(String::from_utf8(text).unwrap())
}

/// Adds the numbers of what is received to `seen`, until a message has `wanted` in it; false where the stream ends first.
fn receives(stream: &mut impl BufRead, wanted: &str, seen: &mut BTreeSet<u64>) -> bool {
    while let Some(message) = message(stream) {
        assert!(message.starts_with("<109>1 20") && !message.contains('\n'), "{message}");
        let (_, json) = message.split_once(" event - ").expect("RFC 5424");
        let event: Value = serde_json::from_str(json).expect("JSON");
        seen.insert(event["seq"].as_u64().expect("a number"));
        if message.contains(wanted) {
            return true;
        }
    }
    false
}

fn receive_until(stream: &mut impl BufRead, wanted: &str, seen: &mut BTreeSet<u64>) {
    assert!(receives(stream, wanted, seen), "the stream ends before {wanted}");
}

fn whole(seen: &BTreeSet<u64>) -> bool {
    seen.iter().copied().eq(0..=*seen.last().expect("something was received"))
}

fn accepted(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("the gateway comes to it");
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    stream
}

/// A write to a receiver that just went succeeds, so what it was sent and did not read was lost, and nothing told: no number was
/// missing but at the very end. Now what it may not have taken is sent again.
#[test]
fn what_a_receiver_did_not_take_is_sent_again_to_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let stream = format!("[[stream]]\nname = \"siem\"\nto = \"tcp:{}\"", listener.local_addr().unwrap());
    let world = World::with(|setup| setup.policies(PERMIT_ALL).top(&stream));
    let mut client = world.client();
    assert_eq!(client.simple("SELECT 1 -- first"), ROW);
    let mut taken = BufReader::new(accepted(&listener));
    let mut seen = BTreeSet::new();
    receive_until(&mut taken, "-- first", &mut seen);
    let first = taken.into_inner();
    // It arrives, and nobody reads it; and what was read and may not have been kept comes again, too.
    assert_eq!(client.simple("SELECT 1 -- second"), ROW);
    let mut peeked = vec![0; 1 << 20];
    until("the second command in the buffer", ANSWER_MAX, || {
        let count = first.peek(&mut peeked).expect("it lives");
        peeked[..count].windows(9).any(|window| window == b"-- second").then_some(())
    });
    drop(first);
    let mut again = BufReader::new(accepted(&listener));
    let mut seen = BTreeSet::new();
    receive_until(&mut again, "-- second", &mut seen);
    assert!(whole(&seen), "{seen:?}");
    // Nothing new need happen for that; and it goes on over the new connection.
    assert_eq!(client.simple("SELECT 1 /* third\n<34>1 - \u{1b}[2J */"), ROW);
    receive_until(&mut again, "/* third\\n<34>1 - \\u001b[2J", &mut seen);
    assert!(whole(&seen), "{seen:?}");
}

#[test]
fn a_receiver_that_reads_nothing_holds_nobody_up_and_gets_everything_later() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let stream = format!(
        "[metrics]\nlisten = \"127.0.0.1:0\"\n[[stream]]\nname = \"siem\"\nto = \"tcp:{}\"\nresend = \"64KiB\"",
        listener.local_addr().unwrap()
    );
    let world = World::with(|setup| setup.policies(PERMIT_ALL).top(&stream));
    let metrics = metrics_of(&world);
    let mut client = world.client();
    assert_eq!(client.simple("SELECT 1"), ROW);
    let slow = accepted(&listener);
    // More than the buffers of both sides hold.
    for _ in 0..24 {
        let answer = client.simple(&format!("SELECT length('{}')", "x".repeat(1 << 20)));
        assert_eq!(answer[1], "D 1048576");
    }
    assert!(sample(&asked(&metrics, "/metrics"), "gatebook_stream_waiting_events{stream=\"siem\"}") > 0.0);
    assert_eq!(client.simple("SELECT 1 -- last"), ROW);
    let mut seen = BTreeSet::new();
    receive_until(&mut BufReader::new(slow), "-- last", &mut seen);
    assert!(whole(&seen), "{seen:?}");
}

#[test]
fn every_event_reaches_a_file_and_a_receiver_that_comes_late() {
    let folder = machine::temporary();
    let file = folder.path().join("events.jsonl");
    let address = format!("127.0.0.1:{}", machine::free_port());
    let streams = format!(
        "[[stream]]\nname = \"file\"\nto = \"file:{}\"\n[[stream]]\nname = \"siem\"\nto = \"tcp:{address}\"",
        file.display()
    );
    let mut world = World::with(|setup| setup.policies(PERMIT_ALL).top(&streams));
    // Nobody listens at the second address, and nobody here notices.
    let mut client = world.client();
    assert_eq!(client.simple("SELECT 1 -- first"), ROW);
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    until("the command in the file", ANSWER_MAX, || read().contains("-- first").then_some(()));
    let listener = TcpListener::bind(&address).expect("the port is free");
    let mut stream = BufReader::new(accepted(&listener));
    let mut seen = BTreeSet::new();
    receive_until(&mut stream, "-- first", &mut seen);
    assert_eq!(seen.first(), Some(&0), "from the ledger's beginning");
    drop(client);
    drop(stream);
    assert!(world.gateway.stop().success());
    world.gateway.restart();
    let mut client = world.client();
    assert_eq!(client.simple("SELECT 1 -- second"), ROW);
    // The former process may have come back first, and is gone.
    while !receives(&mut BufReader::new(accepted(&listener)), "-- second", &mut seen) {}
    assert!(whole(&seen), "every number, at least once: {seen:?}");
    until("the command in the file", ANSWER_MAX, || read().contains("-- second").then_some(()));
    let written: BTreeSet<u64> = numbers(&read()).into_iter().collect();
    assert!(whole(&written), "{written:?}");
    drop(client);
    assert!(world.gateway.stop().success());
    let told = world.gateway.ledger().told();
    assert!(told.len() as u64 > *written.last().unwrap());
}

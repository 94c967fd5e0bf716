//! What the gateway tells those who watch it: numbers, and every event.

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

fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

#[test]
fn numbers_tell_what_happens_and_nothing_else() {
    let world = World::with(|setup| setup.policies(PERMIT_ALL).top("[metrics]\nlisten = \"127.0.0.1:0\""));
    let address = world.gateway.process_ref().line_from(0, "metrics: listening on", START_MAX, |line| {
        line.strip_prefix("metrics: listening on ").map(str::to_owned)
    });
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
    let (stream, _) = listener.accept().expect("the gateway comes back to it");
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    let mut stream = BufReader::new(stream);
    let mut received = Vec::new();
    let mut receive_until = |stream: &mut BufReader<TcpStream>, wanted: &str| {
        loop {
            let message = message(stream).unwrap_or_else(|| panic!("no {wanted}"));
            assert!(message.starts_with("<109>1 20"), "{message}");
            let (_, json) = message.split_once(" event - ").expect("RFC 5424");
            received.push(serde_json::from_str::<Value>(json).unwrap()["seq"].as_u64().unwrap());
            if message.contains(wanted) {
                break received.clone();
            }
        }
    };
    let first = receive_until(&mut stream, "-- first");
    assert_eq!(first[0], 0, "from the ledger's beginning");
    drop(client);
    drop(stream);
    assert!(world.gateway.stop().success());
    world.gateway.restart();
    let mut client = world.client();
    assert_eq!(client.simple("SELECT 1 -- second"), ROW);
    let (stream, _) = listener.accept().expect("after a restart too");
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    let mut all = receive_until(&mut BufReader::new(stream), "-- second");
    all.sort_unstable();
    all.dedup();
    assert!(all.iter().copied().eq(0..=*all.last().unwrap()), "every number, at least once: {all:?}");
    until("the command in the file", ANSWER_MAX, || read().contains("-- second").then_some(()));
    let mut written = numbers(&read());
    written.sort_unstable();
    written.dedup();
    assert!(written.iter().copied().eq(0..=*written.last().unwrap()), "{written:?}");
    drop(client);
    assert!(world.gateway.stop().success());
    let told = world.gateway.ledger().told();
    assert!(told.len() as u64 > *written.last().unwrap());
}

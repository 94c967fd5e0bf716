//! Webhooks: what a receiver is told of approvals, that it can tell who said it, and that it is told again where it failed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Receiver, Sender, channel};

use gatebook_tests::World;
use gatebook_tests::approvals::{approve, insert, policies, waiting};
use gatebook_tests::machine::{self, ANSWER_MAX};
use gatebook_tests::wire::{brief, query};
use ring::hmac;
use serde_json::Value;

const SECRET: &str = "a secret that nobody guesses";

/// What a receiver got, and with which status it answered.
struct Message {
    headers: Vec<(String, String)>,
    body: String,
    status: u16,
}

impl Message {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no {name}"), |(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }

    /// Whether it is signed with this secret, at this time.
    fn is_signed(&self, secret: &str, timestamp: &str) -> bool {
        let signature = self.header("gatebook-signature").strip_prefix("v1=").expect("the first version");
        let bytes: Vec<u8> = (0..signature.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).expect("hex"))
            .collect();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        hmac::verify(&key, format!("{timestamp}.{}", self.body).as_bytes(), &bytes).is_ok()
    }
}

/// Receives in clear on loopback, and answers the first messages with these statuses.
fn receive(listener: TcpListener, mut refusals: Vec<u16>, told: Sender<Message>) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let mut reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                break;
            }
            headers.extend(
                line.trim().split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())),
            );
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let Some(length) = length.and_then(|(_, length)| length.parse().ok()) else { continue };
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            continue;
        }
        let status = if refusals.is_empty() { 200 } else { refusals.remove(0) };
        let _ = write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let body = String::from_utf8(body).expect("a body is text");
        if told.send(Message { headers, body, status }).is_err() {
            return;
        }
    }
}

/// A world with one webhook, and what its receiver is told.
fn world(format: &str, refusals: Vec<u16>) -> (World, Receiver<Message>, tempfile::TempDir) {
    let folder = machine::temporary();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port is free");
    let url = format!("http://{}/hook/T0KEN", listener.local_addr().expect("it has an address"));
    let (sender, receiver) = channel();
    std::thread::spawn(move || receive(listener, refusals, sender));
    for (name, text) in [("url", &*url), ("secret", SECRET)] {
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("the folder can be written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a file of our own");
    }
    let at = folder.path().display();
    let lines = format!(
        "[[webhook]]\nurl = {{ file = \"{at}/url\" }}\nsecret = {{ file = \"{at}/secret\" }}\nformat = \"{format}\"\ndanger_http = true"
    );
    let world = World::with(|setup| {
        setup.policies(&policies("@requires_approval(\"dba\")\n@break_glass")).top(&lines)
    });
    (world, receiver, folder)
}

#[test]
fn a_receiver_is_told_in_order_signed_and_again_where_it_failed() {
    let (world, told, _folder) = world("json", vec![500, 429]);
    let mut client = world.client();
    client.send(&query(&insert(1))).unwrap();
    assert_eq!(brief(&client.receive_until(b"N")), ["N 00000"]);
    let next = || told.recv_timeout(ANSWER_MAX).expect("the receiver is told");
    let tries = [next(), next(), next()];
    assert_eq!(tries.each_ref().map(|message| message.status), [500, 429, 200]);
    assert!(
        tries
            .iter()
            .all(|message| message.body == tries[0].body && message.header("gatebook-delivery") == "1")
    );
    let first = &tries[2];
    let timestamp = first.header("gatebook-timestamp");
    assert!(first.is_signed(SECRET, timestamp));
    assert!(!first.is_signed("another secret altogether", timestamp), "forged");
    assert!(!first.is_signed(SECRET, "1"), "replayed at another time");
    assert_eq!(first.json()["event"], "approval.requested");
    assert_eq!(first.json()["approval"]["commands"][0]["statement"], insert(1));
    approve(&world, &waiting(&world));
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    client.send(&query(&format!("/* break-glass: outage */ {}", insert(2)))).unwrap();
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    let rest = [next(), next(), next()];
    let events = rest.each_ref().map(|message| message.json()["event"].clone());
    assert_eq!(
        Value::from(events.to_vec()),
        serde_json::json!(["approval.answered", "approval.used", "glass.broken"])
    );
    let numbers = rest.each_ref().map(|message| message.header("gatebook-delivery").to_owned());
    assert_eq!(numbers, ["2", "3", "4"]);
    assert_eq!(rest[2].json()["approval"]["reason"], "outage");
    // Its URL is a credential.
    let said = world.gateway.process_ref().lines().join("\n");
    assert!(said.contains("a webhook does not take a message") && !said.contains("T0KEN"), "{said}");
    assert!(!said.contains(SECRET));
}

#[test]
fn slack_is_told_in_blocks() {
    let (world, told, _folder) = world("slack", Vec::new());
    let mut client = world.client();
    let hostile = format!("/* <!channel> ``` */ {}", insert(1));
    client.send(&query(&hostile)).unwrap();
    let message = told.recv_timeout(ANSWER_MAX).expect("the receiver is told");
    let json = message.json();
    let id = waiting(&world)["id"].as_str().unwrap().to_owned();
    assert!(json["text"].as_str().unwrap().contains(&id), "{json}");
    let kinds: Vec<&Value> = json["blocks"].as_array().unwrap().iter().map(|block| &block["type"]).collect();
    assert_eq!(kinds, ["header", "section", "section", "context"]);
    assert!(!message.body.contains("<!channel>"), "{}", message.body);
    assert!(message.is_signed(SECRET, message.header("gatebook-timestamp")));
}

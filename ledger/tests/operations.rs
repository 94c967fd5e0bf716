//! The operator's verbs, as a process: what they print, what they leave, how they exit.

#[allow(dead_code, reason = "each test program uses its part")]
mod common;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use gatebook_ledger::event::{self, Principal, SessionOpenedBody, SessionOpenedPayload};
use gatebook_ledger::{Directory, Draft, Kind, Writer};

use common::{CountedSalts, keys, limits};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gatebook-ledger")).args(arguments).output().unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn create(dir: &Path) -> Writer {
    let storage = Arc::new(Directory::create(dir).unwrap());
    let origin = gatebook_ledger::Origin::new("ops.example/ledger").unwrap();
    Writer::create(storage, &origin, keys(), Box::new(CountedSalts(0)), limits(), 1).unwrap()
}

/// A day and a second for each session, the odd ones through an agent.
fn write(writer: &mut Writer, sessions: u64) {
    let who = |name: &'static str| Principal {
        groups: Vec::new(),
        issuer: "corp".into(),
        kind: "user".into(),
        name: name.into(),
        subject: format!("{name}@corp").into(),
    };
    for _ in 0..sessions {
        let session = writer.next_session();
        let time_ns = session * 86_400_000_000_000;
        let payload = SessionOpenedPayload {
            actors: if session % 2 == 1 { vec![who("agent")] } else { Vec::new() },
            application: "psql".into(),
            database: "orders".into(),
            expires_s: 9,
            policies: Vec::new(),
            principal: who(if session.is_multiple_of(3) { "mia" } else { "alice" }),
            resource: if session.is_multiple_of(4) { "ledgers".into() } else { "orders".into() },
            role: "app".into(),
            source: "127.0.0.1:9".into(),
            token: "t".into(),
        };
        let mut bytes = Vec::new();
        let body = SessionOpenedBody { protocol: "postgres".into(), shadow: false };
        let length = event::encode(&body, Some(&payload), &mut bytes);
        let (body, payload) = bytes.split_at(length);
        writer.stage(&Draft { kind: Kind::SESSION_OPENED, time_ns, session, body, payload }).unwrap();
        for kind in [event::COMMAND, event::OUTCOME, Kind::SESSION_CLOSED] {
            let time_ns = time_ns + 1_000_000_000;
            writer.stage(&Draft { kind, time_ns, session, body: b"{}", payload: &[b'x'; 2000] }).unwrap();
        }
        writer.write().unwrap();
        writer.sync().unwrap();
    }
}

fn found(dir: &str, arguments: &[&str]) -> (Vec<u64>, i32) {
    let mut all = vec!["find", dir, "--json"];
    all.extend_from_slice(arguments);
    let output = run(&all);
    assert_eq!(said(&output), "");
    let seqs = printed(&output)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    (seqs, output.status.code().unwrap())
}

#[test]
fn what_is_found_is_the_same_with_an_index_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ledger");
    let mut writer = create(&dir);
    write(&mut writer, 30);
    let dir = dir.to_str().unwrap();
    let questions: &[(&[&str], usize)] = &[
        (&["--session", "7"], 4),
        (&["--principal", "mia"], 40),
        (&["--principal", "corp:mia@corp", "--kind", "session.opened"], 10),
        (&["--principal", "agent", "--resource", "orders"], 60),
        (&["--resource", "ledgers", "--kind", "command"], 7),
        (&["--since", "1970-01-11", "--until", "1970-01-11"], 4),
        (&["--since", "1970-01-30T00:00:01Z"], 3 + 4),
        (&["--principal", "nobody"], 0),
        (&["--kind", "revocation"], 0),
    ];
    let without: Vec<_> = questions.iter().map(|(question, _)| found(dir, question)).collect();
    for ((question, count), (seqs, code)) in questions.iter().zip(&without) {
        assert_eq!((seqs.len(), *code), (*count, i32::from(*count == 0)), "{question:?}");
    }
    assert!(!Path::new(dir).join("index").exists(), "a reader makes no index");
    let rebuilt = run(&["rebuild-index", dir]);
    assert_eq!(printed(&rebuilt), "the index covers 121 entries\n", "{}", said(&rebuilt));
    let with: Vec<_> = questions.iter().map(|(question, _)| found(dir, question)).collect();
    assert_eq!(with, without);
    // What came since is found as well.
    write(&mut writer, 1);
    assert_eq!(found(dir, &["--session", "31"]).0.len(), 4);
}

#[test]
fn an_index_of_another_ledger_is_not_believed_and_the_answer_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    write(&mut create(&one), 9);
    write(&mut create(&two), 3);
    assert!(run(&["rebuild-index", one.to_str().unwrap()]).status.success());
    std::fs::rename(one.join("index"), two.join("index")).unwrap();
    let dir = two.to_str().unwrap();
    let output = run(&["find", dir, "--session", "3"]);
    assert_eq!((printed(&output).lines().count(), output.status.code()), (4, Some(0)));
    assert!(said(&output).contains("rebuild-index"), "{}", said(&output));
    assert!(run(&["rebuild-index", dir]).status.success());
    assert_eq!(said(&run(&["find", dir, "--session", "3"])), "");
}

#[test]
fn a_question_that_makes_no_sense_is_usage() {
    for bad in [&["--kind", "no.such"][..], &["--since", "yesterday"], &["--session", "x"]] {
        assert_eq!(run(&[&["find", "/nowhere"], bad].concat()).status.code(), Some(3));
    }
}

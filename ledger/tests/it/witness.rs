//! A witness as its clients see it: the program, spoken to over its socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gatebook_ledger::checkpoint::Note;
use gatebook_ledger::merkle::{StoredTiles, proof};
use gatebook_ledger::witness::{Cosigner, Request, cosignature, hash_of};
use gatebook_ledger::{Memory, MemoryKeys, Origin, Writer, reader, standing};

use crate::common;
use crate::common::{CountedSalts, EVENT, create, limits, open, publish, stage};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gatebook-ledger");
const PATIENCE: Duration = Duration::from_secs(30);

/// A running witness.
struct Running {
    child: Child,
    address: String,
    cosigner: Cosigner,
}

impl Running {
    fn start(dir: &Path, logs: &[String]) -> Running {
        let mut command = Command::new(PROGRAM);
        command.arg("witness").arg(dir).args(["--name", "w.example/1", "--listen", "127.0.0.1:0"]);
        for log in logs {
            command.args(["--log", log]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (mut cosigner, mut address) = (None, None);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(key) = line.strip_prefix("witness  ") {
                cosigner = Some(key.parse().unwrap());
            }
            if let Some(rest) = line.strip_prefix("listens  http://") {
                address = Some(rest.to_owned());
                break;
            }
        }
        Running { child, address: address.unwrap(), cosigner: cosigner.unwrap() }
    }

    fn say(&self, request: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
    }

    fn post(&self, body: &[u8]) -> (u16, String, String) {
        let mut request = format!(
            "POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.say(&request)
    }

    fn get(&self, path: &str) -> (u16, String, String) {
        self.say(format!("GET {path} HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n").as_bytes())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn vkey(storage: &Memory) -> String {
    reader::manifest(storage).unwrap().vkey().to_string()
}

/// The ledger's checkpoint with the proof from `old`.
fn request(storage: &Memory, old: u64) -> Vec<u8> {
    let note = storage.bytes("checkpoint").unwrap();
    let size = size(storage);
    let proof = proof::consistency(&StoredTiles::new(storage, size), old, size).unwrap();
    Request { old, proof, note: &note }.encode()
}

fn size(storage: &Memory) -> u64 {
    Note::parse(&storage.bytes("checkpoint").unwrap()).unwrap().unverified().size
}

fn grow(storage: &Memory, writer: &mut Writer, entries: u64) -> u64 {
    for _ in 0..entries {
        stage(writer, EVENT, 0, b"x");
    }
    publish(storage, writer);
    size(storage)
}

fn copy(storage: &Memory) -> Memory {
    let copy = Memory::new();
    for name in storage.names() {
        copy.set_bytes(&name, &storage.bytes(&name).unwrap());
    }
    copy
}

#[test]
fn a_growing_log_is_cosigned_and_remembered_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Memory::new();
    let mut writer = create(&storage);
    let witness = Running::start(dir.path(), &[vkey(&storage)]);
    let mut old = 0;
    for entries in [3, 1, 300, 7] {
        let new = grow(&storage, &mut writer, entries);
        // Whoever is first with it may leave out the line of its epoch, which is taken when it comes.
        let text = String::from_utf8(request(&storage, old)).unwrap();
        let (stripped, _) = text.split_once("\u{2014} test.example/ledger/epoch/").unwrap();
        let (status, _, body) = witness.post(stripped.as_bytes());
        assert_eq!(status, 200, "{body}");
        let note = Note::parse(&storage.bytes("checkpoint").unwrap()).unwrap();
        let line = cosignature::accept(&note, &witness.cosigner, &body).unwrap();
        // Again: the same tree, cosigned anew.
        assert_eq!(witness.post(&request(&storage, new)).0, 200);
        assert!(line.starts_with("\u{2014} w.example/1 "));
        old = new;
    }
    let cosigner = witness.cosigner.clone();
    drop(witness);
    let witness = Running::start(dir.path(), &[vkey(&storage)]);
    assert_eq!(witness.cosigner, cosigner);
    let (status, head, body) = witness.post(&request(&storage, 0));
    assert_eq!((status, body), (409, format!("{old}\n")));
    assert!(head.contains("content-type: text/x.tlog.size\r\n"), "{head}");
    // What it remembers is a checkpoint for the verifier, with its own line.
    let (status, _, kept) = witness.get(&format!("/checkpoint/{}", hash_of("test.example/ledger")));
    assert_eq!(status, 200);
    let kept = Note::parse(kept.as_bytes()).unwrap();
    let manifest = reader::manifest(&storage).unwrap();
    assert!(kept.verify(&standing::checkpoint_keys(&storage, &manifest, &kept).unwrap()).is_ok());
    assert!(cosigner.time_of(&kept).unwrap().is_some());
    assert_eq!(kept.unverified().size, old);
}

#[test]
fn every_refusal_of_the_protocol_has_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Memory::new();
    let mut writer = create(&storage);
    let known = vkey(&storage);
    let witness = Running::start(dir.path(), std::slice::from_ref(&known));
    let first = grow(&storage, &mut writer, 5);
    assert_eq!(witness.post(&request(&storage, 0)).0, 200);
    let second = grow(&storage, &mut writer, 5);
    // A proof that is wrong, too long, or missing.
    let note = storage.bytes("checkpoint").unwrap();
    let good = proof::consistency(&StoredTiles::new(&storage, second), first, second).unwrap();
    let mut flipped = good.clone();
    flipped[0].0[7] ^= 1;
    let longer = [&good[..], &good[..1]].concat();
    for proof in [Vec::new(), flipped, longer, good[1..].to_vec()] {
        assert_eq!(witness.post(&Request { old: first, proof, note: &note }.encode()).0, 422);
    }
    // Another key, under the known origin.
    let other = Memory::new();
    let origin = Origin::new("test.example/ledger").unwrap();
    let keys = Box::new(MemoryKeys::new(Some(&[1; 32]), &[9; 32], &[3; 32]));
    let mut stranger =
        Writer::create(Arc::new(other.clone()), &origin, keys, Box::new(CountedSalts(0)), limits(), 1)
            .unwrap();
    grow(&other, &mut stranger, 20);
    assert_eq!(witness.post(&request(&other, 0)).0, 403);
    // Another origin, under the known key.
    let other = Memory::new();
    let origin = Origin::new("other.example/ledger").unwrap();
    let mut stranger = Writer::create(
        Arc::new(other.clone()),
        &origin,
        common::keys(),
        Box::new(CountedSalts(0)),
        limits(),
        1,
    )
    .unwrap();
    grow(&other, &mut stranger, 20);
    assert_eq!(witness.post(&request(&other, 0)).0, 404);
    // What is no request.
    let good = Request { old: first, proof: good, note: &note }.encode();
    let text = String::from_utf8(good.clone()).unwrap();
    for bad in [
        String::new(),
        "old 0\n\n".to_owned(),
        text.replacen("old ", "new ", 1),
        text.replacen("old ", "old 0", 1),
        text.replacen("old ", "old +", 1),
        text.replacen(&format!("old {first}\n"), &format!("old {}\n", second + 1), 1),
        text.replacen(&format!("old {first}\n"), &format!("old {first}\n{}", "AAAA\n".repeat(64)), 1),
        text.replacen(&format!("\n{second}\n"), &format!("\n0{second}\n"), 1),
    ] {
        assert_eq!(witness.post(bad.as_bytes()).0, 400, "{bad}");
    }
    assert_eq!(witness.get("/add-checkpoint").0, 405);
    assert_eq!(witness.get("/checkpoint/../witness.key").0, 404);
    assert_eq!(witness.say(b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n").0, 413);
    // None of that moved it.
    assert_eq!(witness.post(&good).0, 200);
}

#[test]
fn an_older_copy_put_back_and_a_fork_are_caught() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Memory::new();
    let mut writer = create(&storage);
    let witness = Running::start(dir.path(), &[vkey(&storage)]);
    let first = grow(&storage, &mut writer, 5);
    assert_eq!(witness.post(&request(&storage, 0)).0, 200);
    drop(writer);
    let older = copy(&storage);
    let (mut writer, _) = open(&storage).unwrap();
    let second = grow(&storage, &mut writer, 4);
    assert_eq!(witness.post(&request(&storage, first)).0, 200);
    // The whole directory, state and all, as it was: the keys open it, and only the witness knows better.
    let (mut rolled_back, _) = open(&older).unwrap();
    let conflict = (409, format!("{second}\n"));
    let answer = witness.post(&request(&older, first));
    assert_eq!((answer.0, answer.2), conflict);
    // It goes on from there: another tree of the same size,
    stage(&mut rolled_back, EVENT, 0, b"another history");
    assert_eq!(grow(&older, &mut rolled_back, 3), second);
    let evidence = || std::fs::read_dir(dir.path().join("evidence")).map_or(0, Iterator::count);
    assert_eq!(evidence(), 0);
    let answer = witness.post(&request(&older, second));
    assert_eq!((answer.0, answer.2), conflict);
    assert_eq!(evidence(), 1, "two signed trees of one size are kept");
    // and a larger one, with every proof that it can make.
    let third = grow(&older, &mut rolled_back, 30);
    assert_eq!(witness.post(&request(&older, second)).0, 422);
    assert_eq!(witness.post(&request(&older, first)).0, 409);
    assert!(third > second);
    // The true one goes on.
    grow(&storage, &mut writer, 1);
    assert_eq!(witness.post(&request(&storage, second)).0, 200);
}

#[test]
fn of_many_requests_at_once_one_wins_and_none_rolls_back() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Memory::new();
    let mut writer = create(&storage);
    let witness = Running::start(dir.path(), &[vkey(&storage)]);
    let requests: Vec<(u64, Vec<u8>)> =
        (0..8).map(|_| (grow(&storage, &mut writer, 3), request(&storage, 0))).collect();
    let won: Vec<u64> = std::thread::scope(|scope| {
        let asked: Vec<_> = requests
            .iter()
            .map(|(size, request)| scope.spawn(|| (witness.post(request).0 == 200).then_some(*size)))
            .collect();
        asked.into_iter().filter_map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(won.len(), 1, "each begins from nothing, so only one can");
    assert_eq!(witness.post(&request(&storage, 1)).2, format!("{}\n", won[0]));
}

#[test]
fn lines_that_anybody_can_add_do_not_spoil_its_memory() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Memory::new();
    let mut writer = create(&storage);
    let witness = Running::start(dir.path(), &[vkey(&storage)]);
    let size = grow(&storage, &mut writer, 5);
    let note = String::from_utf8(storage.bytes("checkpoint").unwrap()).unwrap();
    // A line under the witness's own name and id, which it never made.
    let id = witness.cosigner.id();
    let mut line = id.to_vec();
    line.extend_from_slice(&[0; 72]);
    let false_line = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, line);
    let spoiled = format!("{note}\u{2014} w.example/1 {false_line}\n");
    let request = Request { old: 0, proof: Vec::new(), note: spoiled.as_bytes() }.encode();
    assert_eq!(witness.post(&request).0, 200);
    drop(witness);
    let witness = Running::start(dir.path(), &[vkey(&storage)]);
    assert_eq!(witness.post(&self::request(&storage, size)).0, 200);
}

#[test]
fn a_witness_that_forgot_or_is_there_twice_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Memory::new();
    let mut writer = create(&storage);
    let log = vkey(&storage);
    let witness = Running::start(dir.path(), std::slice::from_ref(&log));
    grow(&storage, &mut writer, 5);
    assert_eq!(witness.post(&request(&storage, 0)).0, 200);
    let start = |more: &[&str]| {
        let out = Command::new(PROGRAM)
            .arg("witness")
            .arg(dir.path())
            .args(["--listen", "127.0.0.1:0", "--log", &log])
            .args(more)
            .output()
            .unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, text) = start(&[]);
    assert_eq!(code, Some(3), "{text}");
    drop(witness);
    let (code, text) = start(&["--name", "w.example/2"]);
    assert!(code == Some(3) && text.contains("another witness"), "{text}");
    let memory = dir.path().join("checkpoints").join(hash_of("test.example/ledger"));
    let mut bytes = std::fs::read(&memory).unwrap();
    let last = bytes.len() - 10;
    bytes[last] ^= 1;
    std::fs::write(&memory, bytes).unwrap();
    let (code, text) = start(&[]);
    assert!(code == Some(3) && text.contains("not a checkpoint that this witness cosigned"), "{text}");
    let key = std::fs::read_to_string(dir.path().join("witness.key")).unwrap();
    assert!(!text.contains(key.split(' ').nth(2).unwrap().trim()));
}

//! The attendant against a real witness over a real socket: the judgement is the ledger's, the HTTP of these tests.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use gatebook_ledger::witness::{Answer, CosignerKey, Witness};
use gatebook_ledger::{Draft, Kind, Limits, Memory, MemoryKeys, Origin, SystemSalts, Writer};
use zeroize::Zeroizing;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// Serves a witness for the rest of the test; gives its address.
fn serve(witness: Witness) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut bytes = Vec::new();
            let body = loop {
                let mut part = [0; 4096];
                let read = stream.read(&mut part).expect("a request");
                bytes.extend_from_slice(&part[..read]);
                let text = String::from_utf8_lossy(&bytes).to_lowercase();
                let Some(end) = text.find("\r\n\r\n") else { continue };
                let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
                let length: usize = length.expect("a length").parse().expect("a number");
                if bytes.len() >= end + 4 + length {
                    break bytes.split_off(end + 4);
                }
            };
            let (status, body) = match witness.add_checkpoint(&body, 1_700_000_000).expect("its memory") {
                Answer::Cosigned(line) => ("200 OK", line),
                Answer::Conflict(size) => ("409 Conflict", format!("{size}\n")),
                Answer::Inconsistent => ("422 Unprocessable Entity", String::new()),
                other => panic!("{other:?}"),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).expect("the answer");
        }
    });
    address
}

fn ledger(storage: &Memory) -> Writer {
    let origin = Origin::new("gw.example/ledger").expect("an origin");
    let keys = Box::new(MemoryKeys::new(Some(&[1; 32]), &[2; 32], &[3; 32]));
    let salts = Box::new(SystemSalts::default());
    Writer::create(Arc::new(storage.clone()), &origin, keys, salts, Limits::default(), 1).expect("a ledger")
}

fn grow(storage: &Memory, writer: &mut Writer, payload: &[u8]) -> Vec<u8> {
    writer.stage(&Draft { kind: Kind(256), time_ns: 5, session: 0, body: b"{}", payload }).expect("an entry");
    let publication = writer.publish(9).expect("a checkpoint").expect("something new");
    publication.store(storage).expect("stored");
    publication.note.into_bytes()
}

fn attendant(storage: &Memory, address: SocketAddr, cosigner: Cosigner) -> Attendant {
    Attendant {
        published: Arc::default(),
        storage: Arc::new(storage.clone()),
        http: Http::public().expect("a client"),
        url: Url::parse(&format!("http://{address}/add-checkpoint")).expect("a URL"),
        cosigner,
    }
}

fn witness(logs: &Memory) -> Witness {
    let key = CosignerKey::new(Origin::new("w.example/1").expect("a name"), &Zeroizing::new([7; 32]));
    let log = gatebook_ledger::reader::manifest(logs).expect("a manifest").vkey();
    Witness::open(Box::new(Memory::new()), key, vec![log]).expect("a witness")
}

fn copy(storage: &Memory) -> Memory {
    let copy = Memory::new();
    for name in storage.names() {
        copy.set_bytes(&name, &storage.bytes(&name).expect("its bytes"));
    }
    copy
}

#[tokio::test]
async fn what_a_witness_cosigns_is_kept_and_another_history_raises_an_alarm() {
    let storage = Memory::new();
    let mut writer = ledger(&storage);
    let first = grow(&storage, &mut writer, b"one");
    let witness = witness(&storage);
    let cosigner = witness.cosigner().clone();
    let attendant = attendant(&storage, serve(witness), cosigner.clone());
    let mut known = 0;
    assert_eq!(attendant.submit(&first, &mut known).await, Ok(()));
    let kept = storage.bytes(&kept::file(&cosigner)).expect("the cosigned checkpoint");
    let published = storage.bytes("checkpoint").expect("the checkpoint");
    for note in [&kept, &published] {
        assert_eq!(cosigner.time_of(&Note::parse(note).expect("a note")), Ok(Some(1_700_000_000)));
    }
    let older = copy(&storage);
    let second = grow(&storage, &mut writer, b"two");
    // One that was forgotten in between is asked where it is.
    let mut forgot = 0;
    assert_eq!(attendant.submit(&second, &mut forgot).await, Ok(()));
    assert_eq!(forgot, Note::parse(&second).expect("a note").unverified().size);
    // The older copy, put back.
    let rolled_back = Attendant { storage: Arc::new(older.clone()), ..attendant };
    let outcome = rolled_back.submit(&first, &mut 0).await;
    assert!(matches!(&outcome, Err(NotCosigned::Alarm(what)) if what.contains("put back")), "{outcome:?}");
    // Two histories from there.
    let keys = Box::new(MemoryKeys::new(None, &[2; 32], &[3; 32]));
    drop(writer);
    let salts = Box::new(SystemSalts::default());
    let (mut fork, _) =
        Writer::open(Arc::new(older.clone()), keys, salts, Limits::default(), 2).expect("the older copy");
    let forked = grow(&older, &mut fork, b"three");
    let outcome = rolled_back.submit(&forked, &mut 0).await;
    assert!(matches!(&outcome, Err(NotCosigned::Alarm(what)) if what.contains("two ledgers")), "{outcome:?}");
    let forked = grow(&older, &mut fork, b"four");
    let outcome = rolled_back.submit(&forked, &mut 0).await;
    assert!(matches!(&outcome, Err(NotCosigned::Alarm(what)) if what.contains("forged")), "{outcome:?}");
}

#[tokio::test]
async fn a_dead_witness_is_trouble_and_the_task_goes_on_to_the_next_checkpoint() {
    let storage = Memory::new();
    let mut writer = ledger(&storage);
    let note = grow(&storage, &mut writer, b"one");
    let witness = witness(&storage);
    let cosigner = witness.cosigner().clone();
    // A port that nobody listens on.
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let dead = attendant(&storage, closed, cosigner.clone());
    assert!(matches!(dead.submit(&note, &mut 0).await, Err(NotCosigned::Trouble(_))));
    let (newest, receiver) = watch::channel(None);
    let alive = attendant(&storage, serve(witness), cosigner.clone());
    let task = tokio::spawn(alive.run(receiver));
    for payload in [&b"two"[..], b"three"] {
        let note = grow(&storage, &mut writer, payload);
        newest.send_replace(Some(String::from_utf8(note.clone()).expect("text").as_str().into()));
        let until = Instant::now() + PATIENCE;
        while !storage.bytes(&kept::file(&cosigner)).is_some_and(|kept| kept.starts_with(&note)) {
            assert!(Instant::now() < until, "it was not cosigned");
            tokio::task::yield_now().await;
        }
    }
    drop(newest);
    assert!(timeout(PATIENCE, task).await.is_ok(), "it ends with its recorder");
}

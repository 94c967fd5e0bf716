//! Real ledgers, written by the real writer: what the loader tells of them, whole, live and broken.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use crate::book::{Book, S, morning, vkey};
use gatebook_replay::load::{LoadError, Loader, Pins, verify};
use gatebook_replay::message::*;

const NOW_NS: u64 = 1_795_356_127 * S;

fn loader(directory: &Path) -> Loader {
    let mut loader = Loader::open(directory, Pins::default()).unwrap();
    loader.read_all().unwrap();
    loader
}

fn statements(directory: &Path, session: SessionId) -> Vec<String> {
    let mut loader = loader(directory);
    let (_, steps) = loader.session(session).unwrap();
    let is_command = |step: &Step| matches!(step.what, What::Command { .. });
    let commands: Vec<usize> = (0..steps.len()).filter(|index| is_command(&steps[*index])).collect();
    commands
        .into_iter()
        .map(|index| String::from_utf8_lossy(&loader.words(index).statement).into_owned())
        .collect()
}

/// Every file with its bytes, to see that nothing was written.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                all.push((entry.path(), fs::read(entry.path()).unwrap()));
            }
        }
    }
    all.sort();
    all
}

fn segment(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("segments/{number:08}.seg"))
}

/// Changes one byte where `needle` stands, in whichever segment it does; gives the segment's number.
fn flip(directory: &Path, needle: &[u8]) -> u64 {
    for number in 0.. {
        let path = segment(directory, number);
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at + needle.len() - 1] ^= 1;
            make_writable(&path);
            fs::write(&path, bytes).unwrap();
            return number;
        }
    }
    unreachable!()
}

fn make_writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn replay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gatebook-replay")).args(arguments).output().unwrap()
}

#[test]
fn the_exact_query_sequence_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let shop = morning(directory.path(), NOW_NS);
    let seen = statements(directory.path(), shop);
    assert_eq!(seen.len(), 8);
    assert_eq!(seen[2], "drop table orders");
    assert_eq!(seen[3], "insert into shipments (order_id, carrier, note)\nvalues ($1, $2, $3)");
    let mut loader = loader(directory.path());
    let (row, steps) = loader.session(shop).unwrap();
    assert_eq!((row.principal.as_str(), row.commands, row.refused), ("gitlab:shop/deploy#881", 8, 1));
    assert_eq!(row.ended.map(|(_, reason)| reason).as_deref(), Some("revoked"));
    assert_eq!(row.through, ["ssh:web-1"]);
    let What::Command { decision, outcome, .. } = &steps[3].what else { panic!("{:?}", steps[3]) };
    assert_eq!((*decision, *outcome), (Decision::Refuse, None));
    let words = loader.words(4);
    assert_eq!(words.parameters_count, 3);
    assert_eq!(
        words.parameters[0],
        Parameter { type_oid: 23, binary: true, null: false, value: vec![0, 0, 0x12, 0x67] }
    );
    assert_eq!(words.answer, "INSERT 0 1");
}

#[test]
fn a_ledger_is_read_while_it_is_written_and_nothing_of_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::create(directory.path(), NOW_NS);
    let session = book.open("corp:lee", &[], "orders-db", "orders", "app_ro");
    let request = book.command(session, b"select 1", "permit", &[]);
    let mut loader = Loader::open(directory.path(), Pins::default()).unwrap();
    loader.read_all().unwrap();
    loader.grant(&Wish::Open(session));
    assert!(loader.read_on().1, "nothing new");

    book.outcome(session, request, "completed", 1, "SELECT 1", 1_000_000);
    book.command(session, b"select 2", "permit", &[]);
    let before = contents(directory.path());
    let (messages, done) = loader.read_on();
    assert!(done);
    let Some(Message::Steps { from, steps, .. }) =
        messages.iter().find(|message| matches!(message, Message::Steps { .. }))
    else {
        panic!("{messages:?}")
    };
    assert_eq!(*from, 1, "the first command has its outcome now");
    assert_eq!(steps.len(), 2);
    let Some(Message::Sessions { changed, .. }) = messages.first() else { panic!("{messages:?}") };
    assert_eq!(changed.iter().map(|row| (row.id, row.commands)).collect::<Vec<_>>(), [(session, 2)]);
    assert!(matches!(verify(directory.path(), &Pins::default(), &|_| {}), VerdictState::Done(_)));
    assert_eq!(contents(directory.path()), before);

    for index in 0..3_000 {
        book.command(session, format!("select {index}").as_bytes(), "permit", &[]);
    }
    loader.read_all().unwrap();
    assert_eq!(loader.rows()[1].commands, 3_002, "over the ends of several segments");
    book.end(session, "client_left", 3_002, 0);
    book.close();
    loader.read_all().unwrap();
    assert!(loader.rows()[1].ended.is_some());
}

#[test]
fn a_write_that_is_not_finished_is_no_damage_and_is_read_when_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::create(directory.path(), NOW_NS);
    let session = book.open("corp:lee", &[], "orders-db", "orders", "app_ro");
    let path = segment(directory.path(), 0);
    let before = fs::read(&path).unwrap();
    book.command(session, b"select 1", "permit", &[]);
    let after = fs::read(&path).unwrap();
    let first = before.iter().zip(&after).position(|(a, b)| a != b).unwrap();
    let last = before.iter().zip(&after).rposition(|(a, b)| a != b).unwrap();
    fs::write(&path, &before).unwrap();
    let mut loader = Loader::open(directory.path(), Pins::default()).unwrap();
    for end in (first..=last).step_by(7) {
        let mut torn = before.clone();
        torn[first..end].copy_from_slice(&after[first..end]);
        fs::write(&path, &torn).unwrap();
        loader.read_all().unwrap();
        assert!(loader.rows().iter().all(|row| row.broken == 0), "torn at {end}");
        assert_eq!(loader.rows()[1].commands, 0, "torn at {end}");
    }
    fs::write(&path, &after).unwrap();
    loader.read_all().unwrap();
    assert_eq!(loader.rows()[1].commands, 1);
}

#[test]
fn a_changed_payload_is_not_shown_and_its_neighbours_are() {
    let directory = tempfile::tempdir().unwrap();
    let shop = morning(directory.path(), NOW_NS);
    flip(directory.path(), b"drop table orders");
    let mut loader = loader(directory.path());
    let (_, steps) = loader.session(shop).unwrap();
    let words = loader.words(3);
    assert_eq!(words.statement, b"");
    assert!(words.missing.is_some());
    assert_eq!(steps.len(), 11);
    let verdict = verify(directory.path(), &Pins::default(), &|_| {});
    let VerdictState::Done(done) = verdict else { panic!("{verdict:?}") };
    assert_eq!(done.standing, Standing::Tampered);
    assert!(done.problems.iter().any(|problem| problem.seqs == Some(steps[3].seq..steps[3].seq + 1)));
}

#[test]
fn a_session_whose_opening_was_changed_names_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let shop = morning(directory.path(), NOW_NS);
    flip(directory.path(), b"shop/deploy#881");
    let mut loader = loader(directory.path());
    let (row, _) = loader.session(shop).unwrap();
    assert_eq!((row.principal.as_str(), row.broken), ("(not what was recorded)", 1));
}

#[test]
fn a_broken_frame_stands_in_its_place_with_its_offset_and_what_follows_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::create(directory.path(), NOW_NS);
    let session = book.open("corp:lee", &[], "orders-db", "orders", "app_ro");
    for statement in ["select 1", "select 2", "select 3"] {
        book.now_ns += S;
        book.command(session, statement.as_bytes(), "permit", &[]);
    }
    book.close();
    let segment = flip(directory.path(), b"\"request\":1");
    let mut loader = loader(directory.path());
    let (row, steps) = loader.session(session).unwrap();
    assert_eq!(row.broken, 1);
    let What::Broken { segment: at, offset, length, why } = &steps[2].what else { panic!("{steps:?}") };
    assert_eq!((*at, *offset % 4096, *length), (segment, 0, Some(4096)));
    assert!(why.starts_with("1 entry of this session is lost: "), "{why}");
    assert_eq!(statements(directory.path(), session), ["select 1", "select 3"]);
    let (outside, steps) = loader.session(0).unwrap();
    assert_eq!(outside.broken, 1);
    assert!(steps.iter().any(|step| matches!(step.what, What::Broken { .. })));
}

#[test]
fn a_missing_segment_is_said_and_the_rest_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let shop = morning(directory.path(), NOW_NS);
    fs::remove_file(segment(directory.path(), 0)).unwrap();
    let mut loader = loader(directory.path());
    assert!(loader.rows()[0].broken > 0);
    assert!(loader.session(shop).is_ok());
}

#[test]
fn any_changed_byte_changes_no_statement_that_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let mut book = Book::create(directory.path(), NOW_NS);
    let session = book.open("corp:lee", &[], "orders-db", "orders", "app_ro");
    let request = book.command(session, b"select 'Aachen'", "permit", &["ci.cedar:1"]);
    book.outcome(session, request, "completed", 1, "SELECT 1", 1_000);
    book.close();
    let path = segment(directory.path(), 0);
    let whole = fs::read(&path).unwrap();
    make_writable(&path);
    for at in (0..whole.len()).filter(|at| whole[*at] != 0 || at % 97 == 0) {
        let mut changed = whole.clone();
        changed[at] ^= 0x20;
        fs::write(&path, &changed).unwrap();
        let mut loader = Loader::open(directory.path(), Pins::default()).unwrap();
        loader.read_all().unwrap();
        let Ok((_, steps)) = loader.session(session) else { continue };
        for (index, step) in steps.iter().enumerate() {
            let words = loader.words(index);
            let is_command = matches!(step.what, What::Command { .. });
            if is_command && words.missing.is_none() {
                assert_eq!(words.statement, b"select 'Aachen'", "byte {at}");
                assert_eq!(words.policies, ["ci.cedar:1"], "byte {at}");
            }
        }
    }
}

#[test]
fn every_entry_under_the_checkpoint_is_proven_and_a_changed_tile_proves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let shop = morning(directory.path(), NOW_NS);
    let pins = Pins::read(Some(&vkey(directory.path())), &[]).unwrap();
    let mut loader = Loader::open(directory.path(), pins).unwrap();
    loader.read_all().unwrap();
    for session in 0..=shop {
        let (_, steps) = loader.session(session).unwrap();
        for step in steps {
            let messages = loader.grant(&Wish::Prove(step.seq));
            let [Message::Proof { proof: Ok(proof), .. }] = messages.as_slice() else {
                panic!("{messages:?}")
            };
            assert!(proof.holds, "entry {}", step.seq);
        }
    }
    let tile =
        contents(directory.path()).into_iter().find(|(path, _)| path.to_string_lossy().contains("/tile/0/"));
    let (path, mut bytes) = tile.unwrap();
    bytes[40] ^= 1;
    make_writable(&path);
    fs::write(path, bytes).unwrap();
    let (_, steps) = loader.session(shop).unwrap();
    let messages = loader.grant(&Wish::Prove(steps[0].seq));
    let [Message::Proof { proof: Ok(proof), .. }] = messages.as_slice() else { panic!("{messages:?}") };
    assert!(!proof.holds);
}

#[test]
fn headless_ends_with_the_verdicts_codes() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("ledger");
    let shop = morning(&ledger, NOW_NS).to_string();
    let key = vkey(&ledger);
    let anchor = directory.path().join("anchor");
    fs::copy(ledger.join("checkpoint"), &anchor).unwrap();
    let (ledger_name, anchor) = (ledger.to_str().unwrap(), anchor.to_str().unwrap());
    let code = |arguments: &[&str]| replay(arguments).status.code();
    assert_eq!(code(&["sessions", ledger_name]), Some(4), "no key");
    assert_eq!(code(&["show", ledger_name, &shop, "--key", &key]), Some(4), "no anchor");
    assert_eq!(code(&["show", ledger_name, &shop, "--key", &key, "--checkpoint", anchor]), Some(0));
    assert_eq!(code(&["show", ledger_name, "99"]), Some(3));
    assert_eq!(code(&["show", ledger_name]), Some(3));
    assert_eq!(code(&["sessions", "/nowhere"]), Some(3));
    assert_eq!(code(&["sessions", ledger_name, "--key", "nonsense"]), Some(3));
    assert_eq!(code(&[ledger_name]), Some(3), "a screen needs a terminal");
    assert_eq!(code(&["--help"]), Some(0));
    flip(&ledger, b"drop table orders");
    assert_eq!(code(&["show", ledger_name, &shop, "--key", &key, "--checkpoint", anchor]), Some(1));
}

#[test]
fn json_holds_the_exact_statements_and_text_holds_no_control() {
    let directory = tempfile::tempdir().unwrap();
    let shop = morning(directory.path(), NOW_NS);
    let name = directory.path().to_str().unwrap();
    let output = replay(&["show", name, &shop.to_string(), "--json"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let statement = |line: &str| {
        let step: serde_json::Value = serde_json::from_str(line).unwrap();
        step.get("statement").and_then(|statement| statement.as_str().map(str::to_owned))
    };
    let shown: Vec<String> = lines.lines().filter_map(statement).collect();
    assert_eq!(shown, statements(directory.path(), shop));
    assert!(!lines.chars().any(|c| c.is_control() && c != '\n'));
    assert!(!lines.contains('\u{202e}'));
    let output = replay(&["show", name, &shop.to_string()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("‹esc›[2J"));
    assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'));
}

#[test]
fn what_is_no_ledger_is_said() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Loader::open(directory.path(), Pins::default()), Err(LoadError::NoLedger(_))));
    assert!(matches!(verify(directory.path(), &Pins::default(), &|_| {}), VerdictState::Unreadable(_)));
}

#[test]
fn verification_tells_how_far_it_is() {
    let directory = tempfile::tempdir().unwrap();
    morning(directory.path(), NOW_NS);
    let seen = Mutex::new(Vec::new());
    verify(directory.path(), &Pins::default(), &|share| seen.lock().unwrap().push(share));
    let seen = seen.into_inner().unwrap();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|share| (0.0..=1.0).contains(share)), "{seen:?}");
}

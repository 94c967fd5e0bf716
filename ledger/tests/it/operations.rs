//! The operator's verbs, as a process: what they print, what they leave, how they exit.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use gatebook_ledger::event::{self, Principal, SessionOpenedBody, SessionOpenedPayload};
use gatebook_ledger::{Directory, Draft, Kind, Writer};

use crate::common::{CountedSalts, keys, limits};

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
        delegation: None,
        groups: Vec::new(),
        issuer: "corp".into(),
        kind: "user".into(),
        login: None,
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
    let from_index = "gatebook-ledger: answered from the index, which verification does not cover\n";
    let asked = arguments.contains(&"--index") && Path::new(dir).join("index").exists();
    assert_eq!(said(&output), if asked { from_index } else { "" });
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
    let indexed = |question: &[&str]| found(dir, &[question, &["--index"]].concat());
    let with: Vec<_> = questions.iter().map(|(question, _)| indexed(question)).collect();
    assert_eq!(with, without);
    // What came since is found as well.
    write(&mut writer, 1);
    assert_eq!(indexed(&["--session", "31"]).0.len(), 4);
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
    // Unless it is asked for it is not so much as opened.
    let before = std::fs::metadata(two.join("index/db")).unwrap().modified().unwrap();
    assert_eq!(said(&run(&["find", dir, "--session", "3"])), "");
    assert_eq!(std::fs::metadata(two.join("index/db")).unwrap().modified().unwrap(), before);
    let output = run(&["find", dir, "--session", "3", "--index"]);
    assert_eq!((printed(&output).lines().count(), output.status.code()), (4, Some(0)));
    assert!(said(&output).contains("rebuild-index"), "{}", said(&output));
    assert!(run(&["rebuild-index", dir]).status.success());
    assert_eq!(found(dir, &["--session", "3", "--index"]).0.len(), 4);
}

#[test]
fn a_question_that_makes_no_sense_is_usage() {
    for bad in [&["--kind", "no.such"][..], &["--since", "yesterday"], &["--session", "x"]] {
        assert_eq!(run(&[&["find", "/nowhere"], bad].concat()).status.code(), Some(3));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The verdict's exit code and the report, as JSON.
fn verdict(dir: &Path) -> (i32, serde_json::Value) {
    let output = run(&["verify", text(dir), "--json"]);
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

/// The shown entries, without where they stand.
fn shown(dir: &Path) -> String {
    let output = run(&["show", text(dir)]);
    assert!(output.status.success(), "{}", said(&output));
    printed(&output)
}

fn segments(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    names
}

fn reopen(dir: &Path) -> Writer {
    let storage = Arc::new(Directory::open(dir).unwrap());
    Writer::open(storage, keys(), Box::new(CountedSalts(1 << 64)), limits(), 2).unwrap().0
}

fn publish(dir: &Path, writer: &mut Writer, now_ns: u64) {
    let publication = writer.publish(now_ns).unwrap().unwrap();
    publication.store(&Directory::open(dir).unwrap()).unwrap();
}

#[test]
fn archived_segments_are_read_as_if_they_were_here() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, cold) = (folder.path().join("ledger"), folder.path().join("cold storage"));
    let mut writer = create(&dir);
    write(&mut writer, 40);
    publish(&dir, &mut writer, 40 * 86_400_000_000_000 + 2_000_000_000);
    let (before, entries) = (verdict(&dir), shown(&dir));
    let all = segments(&dir.join("segments"));
    assert!(all.len() > 6, "{all:?}");

    // While the writer has it: two sealed ones and the open one stay.
    let output = run(&["archive", text(&dir), "--to", text(&cold)]);
    assert!(output.status.success(), "{}", said(&output));
    let (here, there) = (segments(&dir.join("segments")), segments(&cold));
    assert_eq!((here.len(), [there.clone(), here].concat()), (3, all));
    assert_eq!((verdict(&dir), shown(&dir)), (before, entries.clone()));
    write(&mut writer, 20);
    drop(writer);
    assert!(shown(&dir).starts_with(&entries));
    assert_eq!(verdict(&dir).1["problem_count"], 0);

    // A ledger that is begun again, indexed, exported or backed up is the whole one.
    let mut writer = reopen(&dir);
    write(&mut writer, 1);
    publish(&dir, &mut writer, 70 * 86_400_000_000_000);
    drop(writer);
    assert!(run(&["rebuild-index", text(&dir)]).status.success());
    assert_eq!(found(text(&dir), &["--session", "1"]).0.len(), 4);
    let (copy, export) = (folder.path().join("copy"), folder.path().join("export"));
    assert!(run(&["backup", text(&dir), "--out", text(&copy)]).status.success());
    assert!(run(&["export", text(&dir), "--out", text(&export)]).status.success());
    assert_eq!((shown(&copy), shown(&export)), (shown(&dir), shown(&dir)));

    // A second time goes on, and only as far as it must.
    let one = std::fs::metadata(cold.join(&there[0])).unwrap().len();
    let keep = (segments(&dir.join("segments")).len() as u64 * one).to_string();
    assert!(run(&["archive", text(&dir), "--to", text(&cold), "--keep", &keep]).status.success());
    assert!(segments(&dir.join("segments")).len() > 3);
    assert!(run(&["archive", text(&dir), "--to", text(&cold)]).status.success());
    assert_eq!(segments(&dir.join("segments")).len(), 3);
    assert_eq!(verdict(&dir).1["problem_count"], 0);
}

#[test]
fn a_fault_in_the_archive_is_found_and_its_absence_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, cold) = (folder.path().join("ledger"), folder.path().join("cold"));
    let mut writer = create(&dir);
    write(&mut writer, 30);
    let output = run(&["archive", text(&dir), "--to", text(&cold)]);
    assert!(
        printed(&output).starts_with("0 segments"),
        "nothing is published: the writer would start from the first"
    );
    std::fs::remove_dir(&cold).unwrap();
    publish(&dir, &mut writer, 31 * 86_400_000_000_000);
    drop(writer);
    // What a crash left in the middle of a copy is made anew; what is another's is not touched.
    std::fs::create_dir(&cold).unwrap();
    std::fs::write(cold.join("00000000.seg.new"), b"half").unwrap();
    std::fs::write(cold.join("00000001.seg"), b"of somebody else").unwrap();
    let output = run(&["archive", text(&dir), "--to", text(&cold)]);
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("00000001.seg"), "{}", said(&output));
    assert_eq!(std::fs::read(cold.join("00000001.seg")).unwrap(), b"of somebody else");
    assert_eq!(verdict(&dir).1["problem_count"], 0);
    std::fs::remove_file(cold.join("00000001.seg")).unwrap();
    assert!(run(&["archive", text(&dir), "--to", text(&cold)]).status.success());
    // Stopped between the map and the removal, a segment is in both places; the next run removes it here.
    std::fs::copy(cold.join("00000002.seg"), dir.join("segments/00000002.seg")).unwrap();
    assert_eq!(verdict(&dir).1["problem_count"], 0);
    assert!(run(&["archive", text(&dir), "--to", text(&cold)]).status.success());
    assert_eq!(segments(&dir.join("segments")).len(), 3);
    // The map does not stand for the copy: where that is gone, or another, or this very file, none is removed.
    let (local, there) = (dir.join("segments/00000002.seg"), cold.join("00000002.seg"));
    std::fs::rename(&there, &local).unwrap();
    let other = folder.path().join("warm");
    assert!(run(&["archive", text(&dir), "--to", text(&other)]).status.success());
    assert!(!local.exists() && other.join("00000002.seg").exists());
    assert_eq!(verdict(&dir).1["problem_count"], 0);
    let kept = std::fs::read(other.join("00000002.seg")).unwrap();
    for change in ["link", "differs"] {
        std::fs::write(&local, &kept).unwrap();
        std::fs::remove_file(other.join("00000002.seg")).unwrap();
        if change == "link" {
            std::fs::hard_link(&local, other.join("00000002.seg")).unwrap();
        } else {
            std::fs::write(other.join("00000002.seg"), &kept[1..]).unwrap();
        }
        let output = run(&["archive", text(&dir), "--to", text(&cold)]);
        assert_eq!(output.status.code(), Some(3), "{change}");
        assert_eq!(std::fs::read(&local).unwrap(), kept, "{change}");
    }
    std::fs::remove_file(other.join("00000002.seg")).unwrap();
    assert!(run(&["archive", text(&dir), "--to", text(&cold)]).status.success());
    assert_eq!(segments(&dir.join("segments")).len(), 3);

    let segment = cold.join("00000001.seg");
    let good = std::fs::read(&segment).unwrap();
    let mut bad = good.clone();
    bad[5000] ^= 1;
    std::fs::remove_file(&segment).unwrap();
    std::fs::write(&segment, bad).unwrap();
    assert_eq!(verdict(&dir).0, 1, "a flipped bit there is tampering");
    std::fs::remove_file(&segment).unwrap();
    std::os::unix::fs::symlink(cold.join("00000003.seg"), &segment).unwrap();
    assert_eq!(run(&["verify", text(&dir)]).status.code(), Some(3), "no link is followed");
    std::fs::remove_file(&segment).unwrap();
    std::fs::write(&segment, good).unwrap();

    std::fs::rename(&cold, folder.path().join("away")).unwrap();
    let output = run(&["verify", text(&dir)]);
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("cold/00000000.seg"), "{}", said(&output));
    let doctor = run(&["doctor", text(&dir)]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(printed(&doctor).contains("mount it"), "{}", printed(&doctor));
    // The writer needs nothing of it.
    write(&mut reopen(&dir), 1);
}

#[test]
fn an_archive_is_refused_where_it_makes_no_sense() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ledger");
    let mut writer = create(&dir);
    write(&mut writer, 20);
    publish(&dir, &mut writer, 21 * 86_400_000_000_000);
    for place in [dir.join("cold"), folder.path().join("a\nb")] {
        assert_eq!(run(&["archive", text(&dir), "--to", text(&place)]).status.code(), Some(3));
        assert!(segments(&place).is_empty());
    }
    std::fs::write(dir.join("archived"), "garbage").unwrap();
    assert_eq!(run(&["verify", text(&dir)]).status.code(), Some(3));
    assert_eq!(run(&["doctor", text(&dir)]).status.code(), Some(1));
}

#[test]
fn a_backup_while_writing_verifies_and_can_be_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ledger");
    let mut writer = create(&dir);
    write(&mut writer, 10);
    publish(&dir, &mut writer, 11 * 86_400_000_000_000);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let copies: Vec<_> = (0..6).map(|nth| folder.path().join(format!("copy-{nth}"))).collect();
    std::thread::scope(|scope| {
        let stop = &stop;
        let (dir, writer) = (&dir, &mut writer);
        scope.spawn(move || {
            let mut now_ns = 12 * 86_400_000_000_000;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                write(writer, 3);
                now_ns += 4 * 86_400_000_000_000;
                publish(dir, writer, now_ns);
            }
        });
        for copy in &copies {
            let output = run(&["backup", text(dir), "--out", text(copy)]);
            if !output.status.success() {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("{}", said(&output));
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let everything = shown(&dir);
    for copy in &copies {
        let (code, report) = verdict(copy);
        assert_eq!((code, &report["problem_count"]), (4, &0.into()), "{report}");
        assert!(everything.starts_with(&shown(copy)), "a prefix");
        let mut writer = reopen(copy);
        write(&mut writer, 2);
        drop(writer);
        assert_eq!(verdict(copy).1["problem_count"], 0);
    }
    assert_eq!(run(&["backup", text(&dir), "--out", text(&copies[0])]).status.code(), Some(3), "not empty");
}

#[test]
fn stat_counts_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ledger");
    let mut writer = create(&dir);
    write(&mut writer, 30);
    publish(&dir, &mut writer, 31 * 86_400_000_000_000);
    write(&mut writer, 1);
    assert!(run(&["archive", text(&dir), "--to", text(&folder.path().join("cold"))]).status.success());
    let stat = |dir: &Path| -> serde_json::Value {
        serde_json::from_slice(&run(&["stat", text(dir), "--json"]).stdout).unwrap()
    };
    let live = stat(&dir);
    assert_eq!(
        (&live["entries"], &live["sessions"], &live["writer"]),
        (&126.into(), &31.into(), &true.into())
    );
    assert_eq!(live["checkpoint"]["size"], 122);
    assert_eq!(live["checkpoint"]["entries_after"], 4);
    assert_eq!(live["checkpoint"]["time_ns"], 31u64 * 86_400_000_000_000);
    assert_eq!(live["archived"]["files"], segments(&folder.path().join("cold")).len());
    assert!(live["archived"]["bytes"].as_u64() > Some(100_000));
    drop(writer);
    assert_eq!(stat(&dir)["writer"], false);
    let words = printed(&run(&["stat", text(&dir)]));
    assert!(words.contains("126 in 31 sessions, epoch 0"), "{words}");
}

#[test]
fn the_doctor_names_each_ailment_and_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let healthy = folder.path().join("healthy");
    let mut writer = create(&healthy);
    write(&mut writer, 20);
    writer.close(30 * 86_400_000_000_000).unwrap();
    assert!(run(&["rebuild-index", text(&healthy)]).status.success());
    let doctor = |dir: &Path| {
        let output = run(&["doctor", text(dir)]);
        (output.status.code().unwrap(), printed(&output))
    };
    assert_eq!(
        doctor(&healthy),
        (0, "✔ nothing is wrong that can be seen without reading the entries\n".to_owned())
    );
    let last = segments(&healthy.join("segments")).pop().unwrap();
    type Ailment<'a> = (&'a str, i32, &'a str, &'a dyn Fn(&Path));
    let last = &last;
    let ailments: &[Ailment<'_>] = &[
        ("open", 0, "chmod", &|dir| mode(dir, 0o755)),
        ("writable", 0, "chmod 0400", &|dir| mode(&dir.join("segments/00000000.seg"), 0o600)),
        ("segment", 1, "00000001.seg is missing", &|dir| {
            std::fs::remove_file(dir.join("segments/00000001.seg")).unwrap()
        }),
        ("first", 1, "00000000.seg is missing", &|dir| {
            std::fs::remove_file(dir.join("segments/00000000.seg")).unwrap()
        }),
        ("manifest", 1, "ledger.toml", &|dir| std::fs::write(dir.join("ledger.toml"), "x").unwrap()),
        ("state", 1, "state", &|dir| std::fs::write(dir.join("state"), [7; 8192]).unwrap()),
        ("stateless", 0, "no state file", &|dir| std::fs::remove_file(dir.join("state")).unwrap()),
        ("checkpoint", 1, "checkpoint_copies", &|dir| std::fs::write(dir.join("checkpoint"), "x").unwrap()),
        ("unpublished", 0, "no checkpoint", &|dir| std::fs::remove_file(dir.join("checkpoint")).unwrap()),
        ("index", 0, "rebuild-index", &|dir| std::fs::remove_dir_all(dir.join("index")).unwrap()),
        ("leftover", 0, "*.new", &|dir| std::fs::write(dir.join("state.new"), "x").unwrap()),
        ("quarantine", 0, "quarantine", &|dir| {
            std::fs::create_dir(dir.join("quarantine")).unwrap();
            std::fs::write(dir.join("quarantine/x"), "x").unwrap();
        }),
        ("damage", 1, "is damaged", &|dir| {
            let path = dir.join("segments").join(last);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[4096 + 300] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }),
    ];
    for (name, code, word, inflict) in ailments {
        let dir = folder.path().join(name);
        assert!(Command::new("cp").args(["-a", text(&healthy), text(&dir)]).status().unwrap().success());
        inflict(&dir);
        let (exit, words) = doctor(&dir);
        assert!(exit == *code && words.contains(word), "{name}: exit {exit}\n{words}");
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_verdict_is_resumed_and_says_what_was_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, kept) = (folder.path().join("ledger"), folder.path().join("report.json"));
    let mut writer = create(&dir);
    write(&mut writer, 5);
    let first = writer.next_session();
    stage_open(&mut writer);
    write_in(&mut writer, first, 30);
    publish(&dir, &mut writer, 40 * 86_400_000_000_000);
    std::fs::write(&kept, run(&["verify", text(&dir), "--json"]).stdout).unwrap();
    write(&mut writer, 20);
    publish(&dir, &mut writer, 90 * 86_400_000_000_000);
    drop(writer);
    let key = printed(&run(&["key", text(&dir), "--vkey"])).trim().to_owned();
    let anchor = folder.path().join("anchor");
    std::fs::copy(dir.join("checkpoint"), &anchor).unwrap();
    let verify = |resume: &Path| {
        let pins = ["--key", &key, "--checkpoint", text(&anchor), "--json"];
        let output = run(&[&["verify", text(&dir), "--resume", text(resume)][..], &pins].concat());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), report)
    };
    let whole = verdict(&dir).1;
    let (code, report) = verify(&kept);
    assert_eq!((code, &report["problem_count"]), (4, &0.into()), "{report}");
    assert!(report["resumed"].as_u64() > Some(20), "{report}");
    for field in ["entries", "root", "sessions", "sessions_open", "earlier"] {
        assert_eq!(report[field], whole[field], "{field}");
    }
    assert_eq!(report["anchor"]["size"], report["published"]);
    assert!(report["notes"][0].as_str().unwrap().contains("were not read again"));

    // Read again or not, what is changed behind it shows, and so does a lie in it.
    let bent = folder.path().join("bent.json");
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    let zeros = serde_json::Value::from("0".repeat(64));
    type Bend<'a> = (&'a str, &'a dyn Fn(&mut serde_json::Value));
    let bends: &[Bend<'_>] = &[
        ("genesis", &|earlier| earlier["genesis"] = zeros.clone()),
        ("ends", &|earlier| earlier["ends"] = zeros.clone()),
        ("further", &|earlier| earlier["segments"] = (earlier["segments"].as_u64().unwrap() + 1).into()),
        ("nearer", &|earlier| earlier["segments"] = (earlier["segments"].as_u64().unwrap() - 1).into()),
        ("beyond", &|earlier| earlier["segments"] = 77_777_777.into()),
        ("none", &|earlier| earlier["segments"] = 0.into()),
    ];
    for (name, bend) in bends {
        let mut report = good.clone();
        bend(&mut report["earlier"]);
        std::fs::write(&bent, report.to_string()).unwrap();
        assert_eq!(verify(&bent).0, 1, "{name}");
    }
    for garbage in ["", "{}", "[1]"] {
        std::fs::write(&bent, garbage).unwrap();
        assert_eq!(verify(&bent).0, 3, "{garbage:?}");
    }
}

fn stage_open(writer: &mut Writer) {
    let session = writer.next_session();
    let draft = Draft { kind: Kind::SESSION_OPENED, time_ns: 9, session, body: b"{}", payload: b"" };
    writer.stage(&draft).unwrap();
}

/// Entries of a session that stays open, over several segments.
fn write_in(writer: &mut Writer, session: u64, count: u64) {
    for nth in 0..count {
        let time_ns = nth;
        let payload = &[b'x'; 3000];
        writer.stage(&Draft { kind: event::COMMAND, time_ns, session, body: b"{}", payload }).unwrap();
        writer.write().unwrap();
        writer.sync().unwrap();
    }
}

#[test]
fn show_tells_a_close_that_counts_otherwise_than_the_session_holds() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ledger");
    let mut writer = create(&dir);
    let mut tell = |kind, session, body: &[u8]| {
        writer.stage(&Draft { kind, time_ns: 5, session, body, payload: b"" }).unwrap();
    };
    for (session, close) in [
        (1, &br#"{"commands":1,"reason":"client_left","refused":0,"shown_bytes":9}"#[..]),
        (2, br#"{"commands":2,"reason":"client_left","refused":0,"shown_bytes":9}"#),
        (3, br#"{"reason":"crash"}"#),
    ] {
        tell(Kind::SESSION_OPENED, session, br#"{"protocol":"postgres","shadow":false}"#);
        let command = br#"{"decision":"permit","effect":"reads","phase":"execute","request":0}"#;
        tell(event::COMMAND, session, command);
        let outcome = br#"{"bytes":9,"duration_us":1,"ending":"completed","request":0,"rows":1}"#;
        tell(event::OUTCOME, session, outcome);
        tell(Kind::SESSION_CLOSED, session, close);
    }
    writer.write().unwrap();
    writer.sync().unwrap();
    let dir = dir.to_str().unwrap();
    for session in ["1", "3"] {
        let shown = run(&["show", dir, session]);
        assert_eq!((shown.status.code(), said(&shown).as_str()), (Some(0), ""), "session {session}");
    }
    for arguments in [&["show", dir, "2"][..], &["show", dir]] {
        let shown = run(arguments);
        assert_eq!(shown.status.code(), Some(1));
        let difference = "session 2: the close counts 2 commands, and 1 are here";
        assert!(said(&shown).contains(difference), "{}", said(&shown));
    }
}

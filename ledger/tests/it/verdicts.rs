//! What every verifier says of every attack by somebody who holds the keys, and of bundles that were changed: ours, verify.py,
//! Go's x/mod/sumdb, and the crates `tlog_tiles` and `signed_note`. The table is published in `docs/ledger-faults.md`, and this
//! test holds it; what the verifiers disagree on stands there, or the test fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatebook_ledger::checkpoint::Vkey;
use gatebook_ledger::export::{Wanted, bundle};
use gatebook_ledger::verify::Options;
use gatebook_ledger::{Directory, Kind, Memory, Storage as _};

use crate::common;
use crate::common::attacks::{ATTACKS, made_up, scene};
use crate::common::others::{crates_accept, go_accepts, ours, python};
use crate::common::{EVENT, create, pinned, publish, stage};

/// A directory to be judged, and the checkpoint that its auditor kept.
struct Case {
    name: String,
    dir: PathBuf,
    kept: PathBuf,
    vkey: String,
    /// Whether not all entries are bundled in it.
    part: bool,
}

/// One verifier's word, with the checkpoint that was kept and without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Words<T> {
    with: T,
    without: T,
}

struct Verdict {
    ours: Words<u8>,
    python: Words<i32>,
    go: Words<bool>,
    crates: Words<bool>,
}

impl Case {
    fn judge(&self) -> Verdict {
        let (dir, kept) = (self.dir.as_path(), self.kept.as_path());
        let key = Some(self.vkey.parse().unwrap());
        let checkpoints = vec![("kept".to_owned(), std::fs::read(kept).unwrap())];
        let alone = Options { key, ..Options::default() };
        let anchored = Options { checkpoints, ..alone.clone() };
        let pin = ["--key", &self.vkey];
        let bring = ["--key", &self.vkey, "--checkpoint", kept.to_str().unwrap()];
        Verdict {
            ours: Words { with: ours(dir, &anchored), without: ours(dir, &alone) },
            python: Words { with: python(dir, &bring).0, without: python(dir, &pin).0 },
            go: Words {
                with: go_accepts(dir, &self.vkey, self.part, Some(kept)).0,
                without: go_accepts(dir, &self.vkey, self.part, None).0,
            },
            crates: Words {
                with: crates_accept(dir, &self.vkey, self.part, Some(kept)),
                without: crates_accept(dir, &self.vkey, self.part, None),
            },
        }
    }
}

fn put(storage: &Memory, folder: &Path) {
    let to = Directory::create(folder).unwrap();
    for name in storage.names().iter().filter(|name| *name != "lock") {
        to.replace(name, &storage.bytes(name).unwrap()).unwrap();
    }
}

fn attacks(folder: &Path) -> Vec<Case> {
    let scene = scene();
    let vkey = pinned(&scene.storage).key.unwrap().to_string();
    let case = |(name, _, _, attack): &common::attacks::Attack| {
        let attacked = attack(&scene);
        let place = folder.join(name);
        let (dir, kept) = (place.join("ledger"), place.join("kept"));
        put(&attacked.storage, &dir);
        std::fs::write(&kept, attacked.kept.as_ref().unwrap_or(&scene.kept)).unwrap();
        Case { name: name.replace('_', " "), dir, kept, vkey: vkey.clone(), part: true }
    };
    let mut cases: Vec<Case> = ATTACKS.iter().map(case).collect();
    for (borrowed, what) in [(false, "that it did not sign"), (true, "that it signed for its own ledger")] {
        let (storage, named, note) = made_up(borrowed);
        let name =
            format!("make up a ledger whose root key orders another's log key into it by an order {what}");
        let place = folder.join(&name);
        let (dir, kept) = (place.join("ledger"), place.join("kept"));
        put(&storage, &dir);
        std::fs::write(&kept, note).unwrap();
        let origin = gatebook_ledger::reader::manifest(&storage).unwrap().origin;
        cases.push(Case { name, dir, kept, vkey: Vkey::log(&origin, named).to_string(), part: true });
    }
    cases
}

/// What is done to each file of a bundle.
type Change = (&'static str, fn(&Path));

const CHANGES: [Change; 4] = [
    ("a byte changed", |path| {
        let mut bytes = std::fs::read(path).unwrap();
        let at = bytes.iter().position(|byte| *byte != 0).unwrap();
        bytes[at] ^= 0x21;
        std::fs::write(path, bytes).unwrap();
    }),
    ("a byte changed in the middle", |path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        let at = (middle..bytes.len()).find(|at| bytes[*at] != 0).unwrap();
        bytes[at] ^= 0x21;
        std::fs::write(path, bytes).unwrap();
    }),
    ("its second half cut off", |path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("removed", |path| std::fs::remove_file(path).unwrap()),
];

fn bundles(folder: &Path) -> Vec<Case> {
    let storage = Memory::new();
    let mut writer = create(&storage);
    for _ in 0..2 {
        let session = writer.next_session();
        stage(&mut writer, Kind::SESSION_OPENED, session, b"who");
        for _ in 0..20 {
            stage(&mut writer, EVENT, session, b"what");
            writer.write().unwrap();
            writer.sync().unwrap();
        }
        stage(&mut writer, Kind::SESSION_CLOSED, session, b"");
        publish(&storage, &mut writer);
    }
    drop(writer);
    let kept = folder.join("kept");
    std::fs::write(&kept, storage.bytes("checkpoint").unwrap()).unwrap();
    let vkey = pinned(&storage).key.unwrap().to_string();
    let parts = [
        ("export", Wanted::Ledger),
        ("session", Wanted::Session(1)),
        ("range", Wanted::Range { first: 3, last: 9 }),
    ];
    let mut cases = Vec::new();
    for (name, wanted) in parts {
        let whole = folder.join(name);
        bundle(&storage, &Directory::create(&whole).unwrap(), wanted, None).unwrap();
        let case = |name: String, dir| {
            let part = !matches!(wanted, Wanted::Ledger);
            Case { name, dir, kept: kept.clone(), vkey: vkey.clone(), part }
        };
        cases.push(case(format!("{name}, as it is"), whole.clone()));
        let list = Command::new("find").arg(&whole).args(["-type", "f", "-printf", "%P\n"]).output().unwrap();
        let files = String::from_utf8(list.stdout).unwrap();
        let mut files: Vec<&str> =
            files.lines().filter(|file| !matches!(*file, "README.md" | "verify.py" | "lock")).collect();
        files.sort_unstable();
        for file in files {
            for (nth, (what, change)) in CHANGES.iter().enumerate() {
                let dir = folder.join(format!("{name}-{}-{nth}", file.replace('/', "-")));
                for (tool, flags) in [("cp", "-r"), ("chmod", "-R")] {
                    let mut command = Command::new(tool);
                    let command = if tool == "cp" {
                        command.arg(flags).arg(&whole).arg(&dir)
                    } else {
                        command.args([flags, "u+w"]).arg(&dir)
                    };
                    assert!(command.status().unwrap().success());
                }
                change(&dir.join(file));
                cases.push(case(format!("{name}: `{file}`, {what}"), dir));
            }
        }
    }
    cases
}

fn judge_all(cases: &[Case]) -> Vec<Verdict> {
    let (verdicts, next) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(at) else { break };
                    let verdict = case.judge();
                    verdicts.lock().unwrap().push((at, verdict));
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().unwrap();
    verdicts.sort_by_key(|(at, _)| *at);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}

const HEAD: &str = "
## Attacks, and what each verifier says

Made by `ledger/tests/it/verdicts.rs`, which holds it to what runs. Above are faults; these are attacks by somebody who has the log key and the present epoch's key (`ledger/tests/it/common/attacks.rs`), and
changes of exports. Each cell says: under the pinned log key with a checkpoint that was kept elsewhere, and without one. `gatebook-ledger` and `verify.py` give exit codes: 0 verified, 1 tampered, 2 incomplete, 3 unreadable, 4 nothing is wrong, and
nothing anchors it. Go's `x/mod/sumdb`, and the crates `tlog_tiles` and `signed_note`, accept or refuse: they know the log key's signature, the tree, and entries that are bundled. What only chain, epochs, segments or payloads tell they cannot see; a checkpoint
that was kept elsewhere shows them every other tree. They have nothing to read where there are no tiles (a session: the crates), so they refuse that.

| what | `gatebook-ledger` | `verify.py` | sumdb | crates |
|---|---|---|---|---|
";

fn print(cases: &[Case], verdicts: &[Verdict]) -> String {
    let word = |accepts: bool| if accepts { "accepts" } else { "refuses" };
    let mut text = HEAD.to_owned();
    for (case, verdict) in cases.iter().zip(verdicts) {
        let Verdict { ours, python, go, crates } = verdict;
        text.push_str(&format!(
            "| {} | {}, {} | {}, {} | {}, {} | {}, {} |\n",
            case.name,
            ours.with,
            ours.without,
            python.with,
            python.without,
            word(go.with),
            word(go.without),
            word(crates.with),
            word(crates.without)
        ));
    }
    text
}

#[test]
fn every_verifier_says_of_every_attack_what_the_documentation_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut cases = attacks(&folder.path().join("attacks"));
    cases.extend(bundles(folder.path()));
    let verdicts = judge_all(&cases);
    let mut wrong = Vec::new();
    for (case, verdict) in cases.iter().zip(&verdicts) {
        let Verdict { ours, python, go, .. } = verdict;
        if (i32::from(ours.with), i32::from(ours.without)) != (python.with, python.without) {
            wrong.push(format!("{}: we say {ours:?}, and verify.py {python:?}", case.name));
        }
        // What we find nothing wrong with, a stranger must not refuse.
        if ours.with == 0 && !go.with || ours.without == 4 && !go.without {
            wrong.push(format!("{}: we say {ours:?}, and sumdb {go:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ledger-faults.md");
    let said = std::fs::read_to_string(&path).unwrap();
    let at = said.find("\n## ").unwrap_or(said.len());
    let found = print(&cases, &verdicts);
    if std::env::var_os("GATEBOOK_WRITE_FAULTS").is_some() {
        std::fs::write(&path, said[..at].to_owned() + &found).unwrap();
        return;
    }
    for (said, found) in said[at..].lines().zip(found.lines()) {
        assert_eq!(said, found, "GATEBOOK_WRITE_FAULTS=1 writes it");
    }
    assert_eq!(said[at..].lines().count(), found.lines().count(), "GATEBOOK_WRITE_FAULTS=1 writes it");
}

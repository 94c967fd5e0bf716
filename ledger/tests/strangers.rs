//! Verifiers that share no code with ours judge the same bundles: verify.py, Go's x/mod/sumdb, and the crates
//! `tlog_tiles` and `signed_note`. What ours accepts they accept, and what was changed they refuse, each as far as it looks.
//!
//! They need what `tests/setup` installs: Python with blake3 and cryptography, Go with golang.org/x/mod.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use gatebook_ledger::export::{Wanted, bundle};
use gatebook_ledger::verify::{Options, verify};
use gatebook_ledger::witness::{CosignerKey, Request, Witness, kept};
use gatebook_ledger::{Directory, Kind, Memory, Origin, Writer, reader, standing};
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::{Checkpoint, Hash, HashReader as _, Tile, TileHashReader, TileReader};
use zeroize::Zeroizing;

use common::{EVENT, create, open, publish, stage};

#[allow(dead_code, reason = "each test program uses its part")]
mod common;

fn cache() -> PathBuf {
    if let Some(cache) = std::env::var_os("GATEBOOK_CACHE") {
        return cache.into();
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache");
    base.unwrap_or_else(home).join("gatebook")
}

/// Runs verify.py; gives its exit status and what it says.
fn python(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let python = cache().join("python/bin/python3");
    assert!(python.exists(), "{} is missing; run tests/setup", python.display());
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("verify.py");
    let out = Command::new(python).arg(program).arg(dir).args(arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.code().unwrap_or(-1), text)
}

/// The Go program, built once.
fn go() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, program) = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("tlog");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/tlog.go");
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(source)
            .env("GO111MODULE", "off")
            .env("GOPATH", "/usr/share/gocode")
            .env("GOCACHE", cache().join("go"))
            .output()
            .expect("go is missing; run tests/setup");
        assert!(built.status.success(), "run tests/setup: {}", String::from_utf8_lossy(&built.stderr));
        (dir, program)
    });
    program
}

fn go_accepts(dir: &Path, vkey: &str, part: bool) -> (bool, String) {
    let mut command = Command::new(go());
    if part {
        command.env("PART", "1");
    }
    let out = command.arg(dir).arg(vkey).output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Where C2SP tlog-tiles puts a tile: its path says no height.
fn place(tile: &Tile) -> String {
    tile.path().replacen("tile/8/", "tile/", 1).replacen("tile/data/", "tile/entries/", 1)
}

struct Tiles<'a>(&'a Path);

impl TileReader for Tiles<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let missing = |_| tlog_tiles::Error::InvalidTile;
        tiles.iter().map(|tile| std::fs::read(self.0.join(place(tile))).map_err(missing)).collect()
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

/// The crates' judgement of a directory of tiles, and of the entries that are bundled in it.
fn crates_accept(dir: &Path, vkey: &str) -> bool {
    let Ok(bytes) = std::fs::read(dir.join("checkpoint")) else { return false };
    let Ok(note) = Note::from_bytes(&bytes) else { return false };
    let verifier = StandardVerifier::new(vkey).unwrap();
    if note.verify(&VerifierList::new(vec![Box::new(verifier)])).is_err() {
        return false;
    }
    let Ok(checkpoint) = Checkpoint::from_reader(&mut note.text(), false) else { return false };
    let size = checkpoint.size();
    let tiles = Tiles(dir);
    let reader = TileHashReader::new(size, Hash(checkpoint.hash().0), &tiles);
    for first in (0..size).step_by(256) {
        let last = (first + 256).min(size);
        let indexes: Vec<u64> = (first..last).map(|n| tlog_tiles::stored_hash_index(0, n)).collect();
        let Ok(leaves) = reader.read_hashes(&indexes) else { return false };
        let width = u32::try_from(last - first).unwrap();
        let path = place(&Tile::new(8, 0, first / 256, width, true));
        let Ok(entries) = std::fs::read(dir.join(path)) else { return false };
        let mut rest = entries.as_slice();
        for leaf in leaves {
            let Some((prefix, tail)) = rest.split_first_chunk::<2>() else { return false };
            let Some((entry, tail)) = tail.split_at_checked(usize::from(u16::from_be_bytes(*prefix))) else {
                return false;
            };
            if tlog_tiles::record_hash(entry) != leaf {
                return false;
            }
            rest = tail;
        }
        if !rest.is_empty() {
            return false;
        }
    }
    true
}

fn ours(dir: &Path, options: &Options) -> u8 {
    match verify(&Directory::open(dir).unwrap(), options, &|_| {}) {
        Ok(report) => report.verdict.exit_code(),
        Err(_) => 3,
    }
}

/// A ledger in a directory, with a checkpoint that a witness cosigned.
struct World {
    folder: tempfile::TempDir,
    vkey: String,
    witness: String,
}

impl World {
    fn new() -> World {
        let storage = Memory::new();
        let mut writer = create(&storage);
        fill(&storage, &mut writer, 90);
        drop(writer);
        let (mut writer, _) = open(&storage).unwrap();
        fill(&storage, &mut writer, 30);
        let manifest = reader::manifest(&storage).unwrap();
        let key = CosignerKey::new(Origin::new("w.example/1").unwrap(), &Zeroizing::new([7; 32]));
        let log = gatebook_ledger::checkpoint::Vkey::log(
            &manifest.origin,
            standing::authority(&storage, &manifest).unwrap().log.key,
        );
        let vkey = log.to_string();
        let witness = Witness::open(Box::new(Memory::new()), key, vec![log]).unwrap();
        let note = storage.bytes("checkpoint").unwrap();
        let request = Request { old: 0, proof: Vec::new(), note: &note }.encode();
        let answer = witness.add_checkpoint(&request, 1_700_000_000).unwrap();
        let gatebook_ledger::witness::Answer::Cosigned(line) = answer else { panic!("{answer:?}") };
        kept::keep(&storage, witness.cosigner(), &note, &line).unwrap();
        drop(writer);
        let folder = tempfile::tempdir().unwrap();
        put(&storage, &folder.path().join("live"));
        World { folder, vkey, witness: witness.cosigner().to_string() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn export(&self, name: &str, wanted: Wanted) -> PathBuf {
        let out = self.path(name);
        let from = Directory::open(&self.path("live")).unwrap();
        bundle(&from, &Directory::create(&out).unwrap(), wanted, None).unwrap();
        out
    }

    fn options(&self) -> Options {
        Options {
            key: Some(self.vkey.parse().unwrap()),
            witnesses: vec![self.witness.parse().unwrap()],
            ..Options::default()
        }
    }
}

fn fill(storage: &Memory, writer: &mut Writer, rounds: u64) {
    let session = writer.next_session();
    stage(writer, Kind::SESSION_OPENED, session, b"who");
    for _ in 0..rounds {
        stage(writer, EVENT, session, b"what");
        stage(writer, EVENT, 0, b"");
        writer.write().unwrap();
        writer.sync().unwrap();
    }
    stage(writer, Kind::SESSION_CLOSED, session, b"");
    publish(storage, writer);
}

fn put(storage: &Memory, dir: &Path) {
    for name in storage.names() {
        let path = dir.join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, storage.bytes(&name).unwrap()).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
    assert!(Command::new("chmod").args(["-R", "u+w"]).arg(to).status().unwrap().success());
}

#[test]
fn all_accept_what_is_whole() {
    let world = World::new();
    let pins = ["--key", &world.vkey, "--witness", &world.witness];
    let export = world.export("export", Wanted::Ledger);
    let session = world.export("session", Wanted::Session(1));
    let range = world.export("range", Wanted::Range { first: 5, last: 9 });
    let live = world.path("live");
    for (dir, tiles) in [(&live, false), (&export, true), (&session, false), (&range, false)] {
        assert_eq!(ours(dir, &world.options()), 0, "{}", dir.display());
        let (code, text) = python(dir, &pins);
        assert_eq!(code, 0, "{}: {text}", dir.display());
        // Without a pin, and with an anchor that is not there.
        assert_eq!(ours(dir, &Options::default()), 4);
        assert_eq!(python(dir, &[]).0, 4);
        if *dir != live {
            let (accepts, text) = go_accepts(dir, &world.vkey, !tiles);
            assert!(accepts, "{}: {text}", dir.display());
        }
        // They want every bundle of entries; this range needs all that there are.
        assert_eq!(crates_accept(dir, &world.vkey), tiles || *dir == range, "{}", dir.display());
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ledger");
    let manifest = reader::manifest(&Directory::open(&golden).unwrap()).unwrap();
    let log = standing::authority(&Directory::open(&golden).unwrap(), &manifest).unwrap().log.key;
    let vkey = gatebook_ledger::checkpoint::Vkey::log(&manifest.origin, log).to_string();
    let checkpoint = golden.join("checkpoint");
    let (code, text) = python(&golden, &["--key", &vkey, "--checkpoint", checkpoint.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    assert!(go_accepts(&golden, &vkey, false).0 && crates_accept(&golden, &vkey));
}

#[test]
fn none_accepts_what_was_changed_where_it_looks() {
    let world = World::new();
    let dirs = [
        world.export("export", Wanted::Ledger),
        world.export("session", Wanted::Session(1)),
        world.export("range", Wanted::Range { first: 5, last: 9 }),
        world.path("live"),
    ];
    for dir in &dirs {
        let list = Command::new("find").arg(dir).args(["-type", "f", "-printf", "%P\n"]).output().unwrap();
        let names = String::from_utf8(list.stdout).unwrap();
        let live = dir.ends_with("live");
        // A live directory keeps tiles of the checkpoint before, which no verifier needs.
        let unneeded = |name: &str| {
            matches!(name, "README.md" | "verify.py" | "lock") || live && name.starts_with("tile/")
        };
        for name in names.lines().filter(|name| !unneeded(name)) {
            let good = std::fs::read(dir.join(name)).unwrap();
            let places: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
            for at in [places[0], places[places.len() / 2]] {
                let changed = world.path("changed");
                if changed.exists() {
                    std::fs::remove_dir_all(&changed).unwrap();
                }
                copy(dir, &changed);
                let mut bytes = good.clone();
                bytes[at] ^= 0x21;
                std::fs::write(changed.join(name), bytes).unwrap();
                let place = format!("{}/{name}, byte {at}", dir.file_name().unwrap().display());
                let verdict = ours(&changed, &world.options());
                let (code, text) = python(&changed, &["--key", &world.vkey, "--witness", &world.witness]);
                assert_eq!(verdict, 1, "{place}: {text}");
                assert_eq!(code, 1, "{place}: {text}");
                // The strangers look at tree, proofs, and the log key's signature.
                let tree = name.starts_with("tile/") && dir.ends_with("export");
                if tree || name == "checkpoint" && at < 60 {
                    assert!(!go_accepts(&changed, &world.vkey, false).0, "{place}");
                    assert!(!crates_accept(&changed, &world.vkey), "{place}");
                }
            }
        }
    }
}

#[test]
fn both_verifiers_tell_an_older_copy_by_a_checkpoint_kept_elsewhere() {
    let storage = Memory::new();
    let mut writer = create(&storage);
    fill(&storage, &mut writer, 10);
    let folder = tempfile::tempdir().unwrap();
    let older = folder.path().join("older");
    put(&storage, &older);
    fill(&storage, &mut writer, 10);
    let newer = folder.path().join("newer.checkpoint");
    std::fs::write(&newer, storage.bytes("checkpoint").unwrap()).unwrap();
    let vkey = writer.manifest().vkey().to_string();
    let (code, text) = python(&older, &["--key", &vkey, "--checkpoint", newer.to_str().unwrap()]);
    assert_eq!(code, 2, "{text}");
    let bytes = std::fs::read(&newer).unwrap();
    let options = Options {
        key: Some(vkey.parse().unwrap()),
        checkpoints: vec![("newer".to_owned(), bytes)],
        ..Options::default()
    };
    assert_eq!(ours(&older, &options), 2);
}

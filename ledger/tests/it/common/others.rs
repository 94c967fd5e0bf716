//! Verifiers that share no code with ours: verify.py, Go's x/mod/sumdb, and the crates `tlog_tiles` and `signed_note`.
//!
//! They need what `tests/setup` installs: Python with blake3 and cryptography, Go with golang.org/x/mod.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use gatebook_ledger::Directory;
use gatebook_ledger::verify::{Options, verify};
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::{Checkpoint, Hash, HashReader as _, Tile, TileHashReader, TileReader};

fn cache() -> PathBuf {
    if let Some(cache) = std::env::var_os("GATEBOOK_CACHE") {
        return cache.into();
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache");
    base.unwrap_or_else(home).join("gatebook")
}

/// Runs verify.py; gives its exit status and what it says.
pub(crate) fn python(dir: &Path, arguments: &[&str]) -> (i32, String) {
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

/// Whether Go accepts a directory, or the proofs of a part. A checkpoint that was kept must be the beginning of what is here.
pub(crate) fn go_accepts(dir: &Path, vkey: &str, part: bool, kept: Option<&Path>) -> (bool, String) {
    let mut command = Command::new(go());
    if part {
        command.env("PART", "1");
    }
    if let Some(kept) = kept {
        command.env("KEPT", kept);
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

/// The crates' judgement of a directory of tiles, and of the entries that are bundled in it: all must be, but in a part.
pub(crate) fn crates_accept(dir: &Path, vkey: &str, part: bool, kept: Option<&Path>) -> bool {
    judge(dir, vkey, part, kept).is_some()
}

fn signed(path: &Path, vkey: &str) -> Option<Checkpoint> {
    let note = Note::from_bytes(&std::fs::read(path).ok()?).ok()?;
    let verifier = StandardVerifier::new(vkey).unwrap();
    note.verify(&VerifierList::new(vec![Box::new(verifier)])).ok()?;
    Checkpoint::from_reader(&mut note.text(), false).ok()
}

fn judge(dir: &Path, vkey: &str, part: bool, kept: Option<&Path>) -> Option<()> {
    let checkpoint = signed(&dir.join("checkpoint"), vkey)?;
    let size = checkpoint.size();
    let tiles = Tiles(dir);
    let reader = TileHashReader::new(size, Hash(checkpoint.hash().0), &tiles);
    for first in (0..size).step_by(256) {
        let last = (first + 256).min(size);
        let indexes: Vec<u64> = (first..last).map(|n| tlog_tiles::stored_hash_index(0, n)).collect();
        let leaves = reader.read_hashes(&indexes).ok()?;
        let width = u32::try_from(last - first).unwrap();
        let path = place(&Tile::new(8, 0, first / 256, width, true));
        let entries = match std::fs::read(dir.join(path)) {
            Err(_) if part => continue,
            read => read.ok()?,
        };
        let mut rest = entries.as_slice();
        for leaf in leaves {
            let (prefix, tail) = rest.split_first_chunk::<2>()?;
            let (entry, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*prefix)))?;
            if tlog_tiles::record_hash(entry) != leaf {
                return None;
            }
            rest = tail;
        }
        if !rest.is_empty() {
            return None;
        }
    }
    let Some(kept) = kept else { return Some(()) };
    let kept = signed(kept, vkey)?;
    let here = (kept.size() <= size).then(|| tlog_tiles::tree_hash(kept.size(), &reader).ok())??;
    (here.0 == kept.hash().0).then_some(())
}

/// Our own verifier's exit code.
pub(crate) fn ours(dir: &Path, options: &Options) -> u8 {
    match verify(&Directory::open(dir).unwrap(), options, &|_| {}) {
        Ok(report) => report.verdict.exit_code(),
        Err(_) => 3,
    }
}

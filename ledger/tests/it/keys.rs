//! The root key on a machine of its own, by the program alone.

use std::path::Path;
use std::process::Command;

use gatebook_ledger::{Directory, Limits, Origin, SystemSalts, Writer, keys};

fn ledger(words: &[&str], paths: &[&Path]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gatebook-ledger"))
        .args(words)
        .args(paths.iter().flat_map(|path| [path.as_os_str()]))
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.is_empty() || output.status.code() != Some(0), "{errors}");
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap() + &errors)
}

fn value<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim()
}

#[test]
fn a_ledger_lives_without_its_root_key_and_its_log_key_is_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let (root, own, dir) =
        (folder.path().join("root"), folder.path().join("keys"), folder.path().join("ledger"));
    assert_eq!(ledger(&["keys", "create-root"], &[&root]).0, 0);
    let (_, made) = ledger(&["keys", "create"], &[&own]);
    let (log, epoch) = (value(&made, "--log-key"), value(&made, "--epoch-key"));
    let origin = ["--origin", "test.example/ledger"];
    let certify = [&["keys", "certify", "--log-key", log, "--epoch-key", epoch][..], &origin].concat();
    let (code, manifest) = ledger(&certify, &[&root]);
    assert_eq!(code, 0, "{manifest}");
    std::fs::write(own.join("ledger.toml"), manifest).unwrap();
    let storage = std::sync::Arc::new(Directory::create(&dir).unwrap());
    let held = Box::new(keys::load(&own).unwrap());
    let name = Origin::new("test.example/ledger").unwrap();
    let salts = Box::new(SystemSalts::default());
    Writer::create(storage, &name, held, salts, Limits::default(), 1_700_000_000_000_000_000)
        .unwrap()
        .close(1_700_000_001_000_000_000)
        .unwrap();
    let (_, before) = ledger(&["key", "--vkey"], &[&dir]);
    let (_, next) = ledger(&["keys", "next-log", "--number", "1"], &[&own]);
    let next = value(&next, "--log-key");
    let order = [&["keys", "order", "--number", "1", "--log-key", next][..], &origin].concat();
    let (code, order) = ledger(&order, &[&root]);
    assert_eq!(code, 0, "{order}");
    std::fs::write(own.join("ledger-order-1.json"), order).unwrap();
    let rotate = ["rotate", "--keys", own.to_str().unwrap()];
    let (code, said) = ledger(&rotate, &[&dir]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("1 orders"), "{said}");
    let (_, shown) = ledger(&["key"], &[&dir]);
    assert!(shown.contains("retiring") && shown.contains(before.trim()), "{shown}");
    let (_, after) = ledger(&["key", "--vkey"], &[&dir]);
    assert_ne!(before, after);
    for pinned in [before.trim(), after.trim()] {
        let checkpoint = folder.path().join("kept");
        std::fs::copy(dir.join("checkpoint"), &checkpoint).unwrap();
        let verify = ["verify", "--key", pinned, "--checkpoint", checkpoint.to_str().unwrap()];
        let (code, said) = ledger(&verify, &[&dir]);
        assert_eq!(code, 0, "{said}");
    }
    assert!(!own.join("ledger-epoch-0.key").exists() && !own.join("ledger-root-0.key").exists());
    // A key of the ledger's that is put back from a copy opens nothing.
    let (code, said) = ledger(&["rotate", "--keys", root.to_str().unwrap()], &[&dir]);
    assert_eq!(code, 3, "{said}");
}

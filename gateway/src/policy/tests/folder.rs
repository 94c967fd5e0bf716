//! The folder, and the set in force.

use super::*;

fn dir(texts: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in texts {
        fs::write(dir.path().join(name), text).expect("a file");
    }
    dir
}

const OPEN: &str = "permit (principal, action == Action::\"select\", resource);";

#[test]
fn a_folder_is_read_in_the_order_of_names() {
    let dir = dir(&[("b.cedar", OPEN), ("a.cedar", OPEN), (".c.cedar.swp", "not a policy")]);
    let set = PolicySet::load(dir.path()).expect("all well");
    assert_eq!(set.files().iter().map(|file| &*file.name).collect::<Vec<_>>(), ["a.cedar", "b.cedar"]);
    assert_eq!((set.len(), set.is_empty(), set.warnings().len()), (2, false, 0));
    check(&set, "user corp:lee", "select table orders/public.orders", "permit by a.cedar:1, b.cedar:1");
}

#[test]
fn what_is_no_policy_file_is_told() {
    let dir =
        dir(&[("a.cedar", OPEN), ("notes.md", "x"), ("b.ceder", OPEN), ("c.CEDAR", OPEN), ("big.cedar", "")]);
    let at = |name: &str| dir.path().join(name);
    fs::write(at("big.cedar"), "/".repeat(FILE_BYTES_MAX + 1)).expect("a file");
    fs::write(at("bytes.cedar"), b"// \xff").expect("a file");
    fs::create_dir(at("sub.cedar")).expect("a folder");
    let elsewhere = tempfile::tempdir().expect("another folder");
    fs::write(elsewhere.path().join("a.cedar"), OPEN).expect("a file");
    symlink(elsewhere.path().join("a.cedar"), at("link.cedar")).expect("a link");
    symlink("absent.cedar", at("torn.cedar")).expect("a link");
    fs::write(at("open.cedar"), OPEN).expect("a file");
    fs::set_permissions(at("open.cedar"), fs::Permissions::from_mode(0o666)).expect("a mode");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe.cedar"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .expect("a pipe");
    let mistakes = PolicySet::load(dir.path()).expect_err("many mistakes");
    assert_eq!(
        mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>(),
        [
            "b.ceder: a policy file's name ends with .cedar",
            "big.cedar: longer than 1048576 bytes",
            "bytes.cedar: not UTF-8 at byte 3",
            "c.CEDAR: a policy file's name ends with .cedar",
            "link.cedar: a link that leads out of the folder is not followed: put the file itself here",
            "open.cedar: everybody may write to this file: chmod o-w",
            "pipe.cedar: not a file: policies lie side by side in one folder",
            "sub.cedar: not a file: policies lie side by side in one folder",
            "torn.cedar: cannot open: No such file or directory (os error 2)",
        ]
    );
}

#[test]
fn links_within_the_folder_are_followed_as_in_a_mounted_config_map() {
    let dir = dir(&[]);
    fs::create_dir(dir.path().join("..2024_01")).expect("a folder");
    fs::write(dir.path().join("..2024_01/a.cedar"), OPEN).expect("a file");
    symlink("..2024_01", dir.path().join("..data")).expect("a link");
    symlink("..data/a.cedar", dir.path().join("a.cedar")).expect("a link");
    let set = PolicySet::load(dir.path()).expect("all well");
    check(&set, "user corp:lee", "select table orders/public.orders", "permit by a.cedar:1");
}

#[test]
fn a_link_to_where_everybody_may_write_is_a_mistake() {
    let dir = dir(&[]);
    let open = dir.path().join(".open");
    fs::create_dir(&open).expect("a folder");
    fs::write(open.join("a.cedar"), OPEN).expect("a file");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("a mode");
    symlink(".open/a.cedar", dir.path().join("a.cedar")).expect("a link");
    let mistakes = PolicySet::load(dir.path()).expect_err("anybody could change it");
    assert_eq!(
        mistakes[0].to_string(),
        "a.cedar: everybody may write to the folder that this link leads to: chmod o-w"
    );
}

#[test]
fn other_files_are_warned_of() {
    let dir = dir(&[("a.cedar", OPEN), ("notes.md", "x"), ("a.cedar~", OPEN)]);
    let set = PolicySet::load(dir.path()).expect("all well");
    let warnings: Vec<String> = set.warnings().iter().map(Mistake::to_string).collect();
    assert_eq!(warnings, ["notes.md: not read: a policy file's name ends with .cedar"]);
}

#[test]
fn a_folder_that_is_not_there_is_a_mistake_and_an_empty_one_refuses_everything() {
    let dir = dir(&[]);
    check(&PolicySet::load(dir.path()).expect("empty"), "user corp:lee", "select database orders", "refuse");
    let mistakes = PolicySet::load(&dir.path().join("absent")).expect_err("absent");
    assert!(mistakes[0].to_string().contains("cannot read the policy folder: "), "{}", mistakes[0]);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
    assert!(PolicySet::load(dir.path()).is_err(), "anybody could put a policy there");
}

#[test]
fn a_folder_has_a_limit_of_bytes_and_of_files() {
    let dir = dir(&[]);
    for number in 0..17 {
        fs::write(dir.path().join(format!("{number:02}.cedar")), " ".repeat(FILE_BYTES_MAX)).expect("a file");
    }
    let mistakes = PolicySet::load(dir.path()).expect_err("too much");
    assert_eq!(
        mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>(),
        ["16.cedar: the policy files together are longer than 16777216 bytes"]
    );

    let dir = self::dir(&[]);
    for number in 0..=FILES_MAX {
        fs::write(dir.path().join(format!("{number:04}.cedar")), "").expect("a file");
    }
    let mistakes = PolicySet::load(dir.path()).expect_err("too many");
    assert_eq!(mistakes[0].message, "more than 1024 policy files");
}

#[test]
fn a_broken_edit_keeps_the_set_in_force() {
    let dir = dir(&[("a.cedar", OPEN)]);
    let file = dir.path().join("a.cedar");
    let live = Live::open(dir.path()).expect("all well");
    let select = "select table orders/public.orders";
    let permits = || live.load().decide(&standing("user corp:lee"), &meaning(select)).is_permit();
    assert!(permits());
    assert!(!live.has_changed());
    assert!(live.reload().expect("all well").is_none(), "nothing new");

    fs::write(&file, "permit (principal").expect("a file");
    assert!(live.has_changed());
    assert!(!live.has_changed(), "told once");
    assert!(live.reload().is_err());
    assert!(permits());
    assert_eq!(live.generation(), 0);

    fs::write(&file, "permit (principal, action == Action::\"insert\", resource);").expect("a file");
    assert!(live.has_changed());
    let next = live.reload().expect("all well").expect("a new set");
    assert!(permits(), "read is not in force");
    assert_eq!(live.install(Arc::clone(&next)), 1);
    assert!(!permits());
    assert_eq!(live.generation(), 1);
    assert_eq!(live.current().hash(), next.hash());

    fs::remove_dir_all(dir.path()).expect("removed");
    assert!(live.has_changed());
    assert!(live.reload().is_err(), "a folder that went away empties nothing");
}

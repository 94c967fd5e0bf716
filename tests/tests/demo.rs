//! The demonstration, as somebody meets it who has just cloned the repository.

use std::path::Path;

use gatebook_tests::postgres::DATABASE;
use gatebook_tests::{Child, Ledger, Postgres, machine};

/// How long the whole story may take on a busy machine, its server's making included.
const STORY_MAX: std::time::Duration = std::time::Duration::from_secs(240);

/// Tells the story in `folder`; returns whether it came true, and what was said.
fn story(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = machine::mortal(&machine::binary("gatebook"));
    command.args(["demo", "--once"]).args(arguments).current_dir(folder).env("NO_COLOR", "1");
    let mut demo = Child::start("gatebook demo", command);
    demo.close_input();
    let ended = demo.wait(STORY_MAX);
    (ended.success(), demo.lines().join("\n"))
}

#[test]
fn the_story_comes_true_twice_and_each_time_leaves_a_ledger_of_its_own() {
    let folder = machine::temporary();
    for name in ["ledger", "ledger-2"] {
        let (true_to_its_word, said) = story(folder.path(), &[]);
        assert!(true_to_its_word, "{said}");
        let ledger = Ledger::new(&folder.path().join("gatebook-demo").join(name));
        ledger.assert_sound();
        let refused: Vec<String> = ledger
            .commands()
            .into_iter()
            .filter(|command| command.decision == "refuse")
            .map(|command| command.statement)
            .collect();
        assert_eq!(refused, ["drop table orders"]);
        assert_eq!(ledger.told().iter().filter(|event| event.name == "revocation").count(), 1);
    }
}

#[test]
fn the_story_comes_true_over_ones_own_server_and_leaves_nothing_there() {
    let folder = machine::temporary();
    let postgres = Postgres::start();
    // Whoever owns a database with a provider is no superuser.
    postgres.admin(&format!(
        "CREATE ROLE landlady LOGIN CREATEROLE PASSWORD 'a+b/c d'; GRANT CREATE ON DATABASE {DATABASE} TO landlady"
    ));
    let url = |password: &str| {
        format!(
            "postgres://landlady:{password}@localhost:{}/{DATABASE}?sslrootcert={}",
            postgres.address().port(),
            postgres.authority_file().display()
        )
    };
    let left = || {
        postgres.admin(
            "SELECT (SELECT count(*) FROM pg_roles WHERE rolname LIKE 'gatebook_demo%') + \
             (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'gatebook_demo%')",
        )
    };
    let (true_to_its_word, said) = story(folder.path(), &["--postgres", &url("a+b%2Fc%20d")]);
    assert!(true_to_its_word, "{said}");
    assert_eq!(left(), "0");
    // A story that cannot be told ends with an exit code, and the password is in none of its words.
    let (true_to_its_word, said) = story(folder.path(), &["--postgres", &url("wrong-password")]);
    assert!(!true_to_its_word && said.contains("could not be filled"), "{said}");
    assert!(!said.contains("wrong-password"), "{said}");
    let (true_to_its_word, said) = story(folder.path(), &["--postgres", "postgres://nobody@localhost/none"]);
    assert!(!true_to_its_word && said.contains("it holds no password"), "{said}");
}

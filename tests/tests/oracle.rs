//! The corpus before the differential oracle: whatever of it is called a read is one. The regression suite's statements are the nightly form.

#[path = "../oracle/mod.rs"]
mod oracle;

use gatebook_tests::Postgres;
use gatebook_tests::corpus::Corpus;
use gatebook_tests::machine;
use gatebook_tests::postgres::ADMIN_PASSWORD;
use gatebook_tests::wire::Client;
use oracle::Oracle;

const DATABASE: &str = "clinic";

#[test]
fn what_is_called_a_read_is_one() {
    let postgres = Postgres::start();
    postgres.admin(&format!("CREATE DATABASE {DATABASE}"));
    let connect = || {
        let mut client = Client::tls(postgres.address(), postgres.authority().client());
        client.login("postgres", DATABASE, ADMIN_PASSWORD).expect("the superuser is let in");
        client
    };
    let folder = machine::tests_folder().join("corpus/postgres");
    let mut texts: Vec<String> = Vec::new();
    let mut setup = String::new();
    for entry in folder.read_dir().expect("the corpus is there") {
        let text = std::fs::read_to_string(entry.expect("a file").path()).expect("the corpus can be read");
        let corpus: Corpus = toml::from_str(&text).expect("the corpus is well formed");
        setup.extend(corpus.setup.values().map(|setup| setup.sql.as_str()));
        texts.extend(corpus.attack.iter().chain(&corpus.legitimate).map(|case| case.script()));
    }
    let mut oracle = Oracle::new(DATABASE, &connect);
    oracle.script(&setup);
    let before = oracle.findings.reads;
    for text in &texts {
        oracle.script(text);
    }
    let findings = oracle.findings;
    assert!(findings.wrong.is_empty(), "{}", findings.wrong.join("\n"));
    assert!(findings.reads - before > 120, "few reads: {} of {}", findings.reads, findings.statements);
}

/// The oracle itself sees what it is for: given an analysis that calls everything a read, it tells each trace.
#[test]
fn the_oracle_sees_what_is_no_read() {
    let postgres = Postgres::start();
    let connect = || {
        let mut client = Client::tls(postgres.address(), postgres.authority().client());
        client.login("postgres", "orders", ADMIN_PASSWORD).expect("the superuser is let in");
        client
    };
    for sql in [
        "INSERT INTO journal (id) VALUES (1);",
        "SELECT nextval('notes_id_seq');",
        "SELECT pg_advisory_lock(1);",
        "SELECT pg_create_physical_replication_slot('s');",
        "SELECT * FROM orders FOR UPDATE;",
    ] {
        let mut oracle = Oracle::new("orders", &connect);
        oracle.believes_everything = true;
        oracle.script(sql);
        assert_eq!(oracle.findings.wrong.len(), 1, "{sql}: {:?}", oracle.findings);
    }
}

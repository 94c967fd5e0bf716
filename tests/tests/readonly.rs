//! Whoever policy lets only read is held to that twice: by the decision, and by the upstream's own session.
//!
//! What the second fence is for is an analysis that is wrong or late; so these tests ask the server what it holds the session to, and
//! send everything that would lift it.

use gatebook_tests::gateway::PERMIT_ALL;
use gatebook_tests::wire::{Client, brief, parse, query, sync};
use gatebook_tests::{Postgres, World};

const READS: &str = "permit (principal, action in [Action::\"read\", Action::\"login\"], resource);\n\
    permit (principal, action in [Action::\"write\", Action::\"define\"], resource) when { context.role == \"app_ro\" };\n";

const REFUSED: &str = "E 42501";

fn shown(client: &mut Client, setting: &str) -> String {
    let told = brief(&client.ask(&[query(&format!("SHOW {setting}"))]));
    told.iter().find_map(|line| line.strip_prefix("D ")).unwrap_or_else(|| panic!("{told:?}")).to_owned()
}

#[test]
fn a_session_that_may_only_read_starts_read_only_upstream() {
    let world = World::new(READS);
    let mut client = world.client();
    assert_eq!(shown(&mut client, "default_transaction_read_only"), "on");
    assert_eq!(client.simple("SELECT count(*) FROM orders"), ["T", "D 100", "C SELECT 1", "Z I"]);
    // A definition that changed a moment ago is decided as it was, or as it is: written is nothing.
    world.postgres.admin("CREATE VIEW harmless AS SELECT 1 AS one; GRANT SELECT ON harmless TO app_rw");
    let one = ["T", "D 1", "C SELECT 1", "Z I"];
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while client.simple("SELECT one FROM harmless") != one {
        assert!(std::time::Instant::now() < deadline, "the view is never seen");
    }
    world.postgres.admin(
        "CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO journal (id) VALUES (1) RETURNING 1';\n\
         CREATE OR REPLACE VIEW harmless AS SELECT writes() AS one",
    );
    let answer = client.simple("SELECT one FROM harmless");
    assert!(answer == ["T", "E 25006", "Z I"] || answer == [REFUSED, "Z I"], "{answer:?}");
    assert_eq!(world.postgres.admin("SELECT count(*) FROM journal"), "0");
}

#[test]
fn a_session_that_may_change_something_does_not() {
    let world = World::new(PERMIT_ALL);
    let mut client = world.client();
    assert_eq!(shown(&mut client, "default_transaction_read_only"), "off");
    for sql in [
        "SET default_transaction_read_only = off",
        "BEGIN READ WRITE",
        "SET TRANSACTION READ WRITE",
        "COMMIT",
    ] {
        let answer = client.simple(sql);
        assert!(answer[0].starts_with("C "), "{sql}: {answer:?}");
    }
}

/// Everything that would lift it, alone, prepared, and in a transaction that has read nothing yet.
#[test]
fn what_would_lift_it_is_refused() {
    let world = World::new(READS);
    let mut client = world.client();
    for sql in [
        "BEGIN READ WRITE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE",
        "START TRANSACTION READ ONLY, READ WRITE",
        "SET default_transaction_read_only = off",
        "SET SESSION default_transaction_read_only TO 'no'",
        "SET default_transaction_read_only TO 0",
        "SET Default_Transaction_Read_Only TO fal",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SELECT set_config('DEFAULT_transaction_read_only', 'of' || 'f', true)",
        "SELECT set_config('default_transaction_read_only', NULL, false)",
        "SELECT set_config('transaction_read' || '_only', 'off', false)",
        "SELECT pg_catalog.set_config(name, 'off', false) FROM pg_settings WHERE name LIKE '%read_only'",
        "UPDATE pg_settings SET setting = 'off' WHERE name = 'default_transaction_read_only'",
        "DO $$ BEGIN SET default_transaction_read_only = off; END $$",
    ] {
        assert_eq!(client.simple(sql), [REFUSED, "Z I"], "{sql}");
        assert_eq!(brief(&client.ask(&[parse("", sql), sync()])), [REFUSED, "Z I"], "prepared: {sql}");
    }
    for sql in [
        "SET TRANSACTION READ WRITE",
        "SET LOCAL transaction_read_only = off",
        "SET transaction_read_only TO DEFAULT",
        "RESET transaction_read_only",
        "SET LOCAL default_transaction_read_only = off",
        "SELECT set_config('transaction_read_only', 'off', true)",
    ] {
        assert_eq!(client.simple("BEGIN"), ["C BEGIN", "Z T"]);
        assert_eq!(client.simple(sql), [REFUSED, "Z E"], "{sql}");
        assert_eq!(client.simple("ROLLBACK"), ["C ROLLBACK", "Z I"]);
    }
    assert_eq!(shown(&mut client, "transaction_read_only"), "on");
    assert_eq!(shown(&mut client, "default_transaction_read_only"), "on");
}

/// What goes back to where the session began goes back to reading.
#[test]
fn what_resets_a_session_leaves_it_read_only() {
    let world = World::new(READS);
    let mut client = world.client();
    for sql in [
        "RESET ALL",
        "RESET default_transaction_read_only",
        "SET default_transaction_read_only TO DEFAULT",
        "DISCARD ALL",
        "SET default_transaction_read_only = on",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "BEGIN READ ONLY",
        "SET TRANSACTION READ ONLY",
        "COMMIT",
        "RESET SESSION AUTHORIZATION",
    ] {
        let answer = client.simple(sql);
        assert!(answer.iter().any(|line| line.starts_with("C ")), "{sql}: {answer:?}");
        assert_eq!(shown(&mut client, "transaction_read_only"), "on", "{sql}");
    }
    assert_eq!(shown(&mut client, "default_transaction_read_only"), "on");
}

/// What the owner made the default of the role or the database does not count against what the gateway asks for.
#[test]
fn a_default_of_the_role_does_not_lift_it() {
    let postgres = Postgres::logging();
    postgres.admin("ALTER ROLE app_rw SET default_transaction_read_only = off");
    postgres.admin("ALTER DATABASE orders SET default_transaction_read_only = off");
    let world = World::before(postgres, |setup| setup.policies(READS));
    let mut client = world.client();
    assert_eq!(shown(&mut client, "transaction_read_only"), "on");
    assert_eq!(client.simple("RESET ALL"), ["C RESET", "Z I"]);
    assert_eq!(shown(&mut client, "transaction_read_only"), "on");
}

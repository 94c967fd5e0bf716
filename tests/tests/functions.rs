//! Functions: what is pure, and what is called by its number, which is what `lo_open` and its like in libpq do.

use std::process::Command;

use gatebook_tests::machine;
use gatebook_tests::wire::{Client, brief, function_call, query};
use gatebook_tests::{Postgres, World};

const REFUSED: &str = "E 42501";

/// Reading, and one function.
const ONE_FUNCTION: &str = "permit (principal, action in [Action::\"read\", Action::\"login\"], resource);\n\
    permit (principal, action == Action::\"call\", resource == Function::\"orders-db/orders/public.refund\");\n";

fn world(policies: &str) -> World {
    let postgres = Postgres::logging();
    postgres.admin(
        "CREATE FUNCTION refund(o int) RETURNS int LANGUAGE sql AS 'INSERT INTO journal (id, body) VALUES (o, ''refund'') RETURNING 7';\n\
         CREATE FUNCTION payout(o int) RETURNS int LANGUAGE sql AS 'INSERT INTO journal (id, body) VALUES (o, ''payout'') RETURNING 8';\n\
         CREATE FUNCTION shown(o int) RETURNS text LANGUAGE sql AS 'SELECT person FROM wages WHERE id = o';\n\
         GRANT INSERT ON journal TO app_rw",
    );
    World::before(postgres, |setup| setup.policies(policies))
}

fn number(world: &World, signature: &str) -> u32 {
    let told = world.postgres.admin(&format!("SELECT '{signature}'::regprocedure::oid"));
    told.parse().unwrap_or_else(|_| panic!("{signature}: {told}"))
}

fn journal(world: &World) -> String {
    world.postgres.admin("SELECT coalesce(string_agg(id || body, ',' ORDER BY id), '') FROM journal")
}

fn call(world: &World, client: &mut Client, signature: &str, arguments: &[&str]) -> Vec<String> {
    brief(&client.ask(&[function_call(number(world, signature), arguments)]))
}

#[test]
fn a_call_by_number_is_decided_as_one_by_name() {
    let mut world = world(ONE_FUNCTION);
    let mut client = world.client();
    let answer = client.ask(&[function_call(number(&world, "refund(int)"), &["1"])]);
    assert_eq!(brief(&answer), ["V", "Z I"]);
    assert_eq!(answer[0].body, [0, 0, 0, 1, b'7'], "its result comes as the server gave it");
    assert_eq!(call(&world, &mut client, "pg_catalog.length(text)", &["ÄB"]), ["V", "Z I"], "a pure one");
    for (signature, arguments) in [
        ("payout(int)", &["2"][..]),
        ("shown(int)", &["1"]),
        ("pg_catalog.nextval(regclass)", &["notes_id_seq"]),
        ("pg_catalog.set_config(text, text, boolean)", &["search_path", "x", "f"]),
        ("pg_catalog.lo_creat(int)", &["-1"]),
        ("pg_catalog.pg_read_file(text)", &["PG_VERSION"]),
        ("pg_catalog.query_to_xml(text, boolean, boolean, text)", &["SELECT 1", "f", "f", ""]),
    ] {
        assert_eq!(call(&world, &mut client, signature, arguments), [REFUSED, "Z I"], "{signature}");
    }
    assert_eq!(brief(&client.ask(&[function_call(4_000_000_000, &[])])), [REFUSED, "Z I"], "nobody knows it");
    assert_eq!(journal(&world), "1refund");
    drop(client);
    assert!(world.gateway.stop().success());

    let ledger = world.gateway.ledger();
    let commands = ledger.commands();
    let told: Vec<(&str, &str, bool)> = commands
        .iter()
        .map(|command| (command.statement.as_str(), command.decision.as_str(), command.parameters.is_empty()))
        .collect();
    let first = format!("function call {} public.refund", number(&world, "refund(int)"));
    assert_eq!(told[0], (first.as_str(), "permit", false));
    assert_eq!(told.iter().filter(|told| told.1 == "refuse").count(), 8);
}

/// It keeps its place among what comes before and behind it, and its failure is the transaction's.
#[test]
fn a_call_by_number_keeps_its_place() {
    let world = world(ONE_FUNCTION);
    let mut client = world.client();
    let (refund, payout) = (number(&world, "refund(int)"), number(&world, "payout(int)"));
    let frames = [query("SELECT 1"), function_call(refund, &["1"]), query("SELECT count(*) FROM journal")];
    client.send(&frames.concat()).unwrap();
    assert_eq!(brief(&client.receive_until(b"Z")), ["T", "D 1", "C SELECT 1", "Z I"]);
    assert_eq!(brief(&client.receive_until(b"Z")), ["V", "Z I"]);
    assert_eq!(brief(&client.receive_until(b"Z")), ["T", "D 1", "C SELECT 1", "Z I"]);

    assert_eq!(client.simple("BEGIN"), ["C BEGIN", "Z T"]);
    assert_eq!(brief(&client.ask(&[function_call(refund, &["2"])])), ["V", "Z T"]);
    assert_eq!(brief(&client.ask(&[function_call(payout, &["3"])])), [REFUSED, "Z E"]);
    assert_eq!(brief(&client.ask(&[function_call(refund, &["4"])])), ["E 25P02", "Z E"]);
    assert_eq!(client.simple("COMMIT"), ["C ROLLBACK", "Z I"]);
    // One that fails upstream: the number is taken already.
    assert_eq!(brief(&client.ask(&[function_call(refund, &["1"])])), ["E 23505", "Z I"]);
    assert_eq!(journal(&world), "1refund");
}

/// libpq's calls for large objects are calls by number.
#[test]
fn large_objects_pass_where_their_functions_are_permitted() {
    let world = world(
        "permit (principal, action in [Action::\"read\", Action::\"login\"], resource);\n\
         permit (principal, action == Action::\"call\", resource in Schema::\"orders-db/orders/pg_catalog\") when { resource.name like \"lo*\" };",
    );
    let environment = world.gateway.environment(&world.token());
    let folder = tempfile::tempdir().unwrap();
    let (written, read) = (folder.path().join("written"), folder.path().join("read"));
    std::fs::write(&written, vec![b'x'; 20_000]).unwrap();
    let script = format!(
        "\\set ON_ERROR_STOP 1\n\\lo_import {}\n\\lo_export :LASTOID {}\n",
        written.display(),
        read.display()
    );
    let file = folder.path().join("script");
    std::fs::write(&file, script).unwrap();
    let mut psql = Command::new(machine::program("psql"));
    environment.apply(&mut psql);
    let output = psql.args(["-X", "-q", "-f"]).arg(&file).output().expect("psql runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read(&read).unwrap(), vec![b'x'; 20_000]);
}

/// The list of pure functions and the table of the documentation between them name every function of a real server that a
/// client can call, each once: what a new version brings is in neither, and fails here.
#[test]
fn every_function_of_the_server_is_pure_or_of_a_documented_category() {
    let pure: Vec<&str> = include_str!("../../gateway/wire/src/sql/pure_functions.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    let text = include_str!("../../docs/policy.md");
    let table =
        text.split_once("\n## Functions\n").expect("the section").1.split_once("\n## ").expect("its end").0;
    let patterns: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| line.rsplit('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2))
        .collect();
    assert!(patterns.len() > 50, "the table is gone: {patterns:?}");
    for pure in &pure {
        let excluded = patterns.iter().find(|pattern| matches(pattern, pure));
        assert_eq!(excluded, None, "{pure} is pure and excluded");
    }

    let postgres = Postgres::start();
    // What takes or gives `internal` or a trigger no client can call.
    let callable = postgres.admin(
        "SELECT string_agg(DISTINCT proname || ' ' || vol, ',') FROM (SELECT proname, bool_or(provolatile = 'v') AS vol FROM pg_proc \
         WHERE pronamespace = 'pg_catalog'::regnamespace AND NOT 'internal'::regtype = ANY (proargtypes) \
         AND NOT prorettype::regtype::text IN ('internal', 'trigger', 'event_trigger', 'fdw_handler', 'index_am_handler', 'table_am_handler', \
         'tsm_handler', 'language_handler') GROUP BY 1) f",
    );
    // Volatile, because they tell what is, and not what was when the statement began.
    let tells = [
        "clock_timestamp",
        "current_query",
        "currval",
        "lastval",
        "random",
        "timeofday",
        "gen_random_uuid",
        "txid_status",
        "pg_blocking_pids",
        "pg_collation_actual_version",
        "pg_control_*",
        "pg_current_wal_*",
        "pg_database_collation_actual_version",
        "pg_database_size",
        "pg_indexes_size",
        "pg_is_*",
        "pg_jit_available",
        "pg_last_*",
        "pg_lock_status",
        "pg_notification_queue_usage",
        "pg_partition_*",
        "pg_prepared_xact",
        "pg_relation_size",
        "pg_safe_snapshot_blocking_pids",
        "pg_sleep*",
        "pg_stat_clear_snapshot",
        "pg_stat_get_xact_*",
        "pg_stat_have_stats",
        "pg_table_size",
        "pg_tablespace_size",
        "pg_total_relation_size",
        "pg_xact_*",
    ];
    for function in callable.split(',') {
        let (name, volatile) = function.split_once(' ').expect("a name and a truth");
        let is_pure = pure.binary_search(&name).is_ok();
        let excluded = patterns.iter().any(|pattern| matches(pattern, name));
        assert!(is_pure || excluded, "{name} is neither on the list nor in the table");
        let told = tells.iter().any(|pattern| matches(pattern, name));
        assert!(!is_pure || volatile == "false" || told, "{name} is volatile, and pure");
    }
}

/// Whether a name matches a pattern with `*` for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
        }),
    }
}

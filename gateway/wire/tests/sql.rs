//! What statements want, judged through the public door against a catalog that a real PostgreSQL 15 server gave.

use std::fmt::Write as _;
use std::sync::Arc;

use gatebook_wire::action::Effect;
use gatebook_wire::sql::{
    CATALOG_QUERIES, Catalog, Masking, Rows, Session, Start, Statement, Transaction, literal_key,
};

/// The rows of [`CATALOG_QUERIES`] as tab-separated text.
fn catalog_of(text: &str) -> Catalog {
    let mut queries: Vec<Rows> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            assert_eq!(name, CATALOG_QUERIES[queries.len()].name);
            queries.push(Rows::new());
        } else {
            queries.last_mut().expect("a head").push(line.split('\t').map(value).collect());
        }
    }
    Catalog::from_rows(queries, &[]).expect("a catalog")
}

fn value(text: &str) -> Option<String> {
    let plain = || text.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\");
    (text != "\\N").then(plain)
}

fn catalog() -> Catalog {
    catalog_of(include_str!("sql/catalog15.tsv"))
}

/// The same database on a server of version 18.
fn catalog_18() -> Catalog {
    catalog_of(include_str!("sql/catalog18.tsv"))
}

fn session(catalog: &Catalog) -> Session {
    session_of("app", catalog)
}

fn session_of(role: &str, catalog: &Catalog) -> Session {
    Session::new(
        Start {
            database: Arc::from("fixture"),
            role: Arc::from(role),
            search_path: None,
            masking: Masking::default(),
        },
        catalog,
    )
}

/// A statement's meaning in a line: `reads: select public.visits`.
fn line(statement: &Statement) -> String {
    let meaning = &statement.meaning;
    let mut line = match meaning.effect {
        Effect::Reads => "reads:".to_owned(),
        Effect::MayChange => "may change:".to_owned(),
    };
    for action in &meaning.actions {
        let object = action.object.to_string();
        let object = object.strip_prefix("fixture/").unwrap_or(&object);
        let _ = write!(line, " {} {object};", action.verb.name());
    }
    line.trim_end_matches(';').to_owned()
}

fn lines(session: &Session, catalog: &Catalog, text: &str) -> Vec<String> {
    session.analyze(text, catalog).statements.iter().map(line).collect()
}

/// Sends a text whose statements all complete.
fn run(session: &mut Session, catalog: &Catalog, text: &str) {
    for statement in &session.analyze(text, catalog).statements {
        let sent = session.sent(statement);
        session.ended(sent, true);
    }
}

fn check(session: &Session, catalog: &Catalog, text: &str, expected: &[&str]) {
    assert_eq!(lines(session, catalog, text), expected, "{text}");
}

/// The catalog with further rows, each in its section.
fn catalog_with(rows: &[(&str, &str)]) -> Catalog {
    let mut text = include_str!("sql/catalog15.tsv").to_owned();
    for (section, row) in rows {
        let head = format!("## {section}\n");
        assert!(text.contains(&head), "{section}");
        text = text.replace(&head, &format!("{head}{row}\n"));
    }
    catalog_of(&text)
}

/// A view that set the search path was read without notice, and what came next was decided in the old path: so it was for everything that
/// a definition keeps.
#[test]
fn what_a_definition_keeps_is_done_by_whoever_uses_it() {
    let set = "set_config('search_path'::text, 'lab'::text, false)";
    let catalog = catalog_with(&[
        ("relations", &format!("17001\tpublic\tv_move\tv\tf\tf\t\\N\t SELECT {set} AS a;")),
        ("relations", "17002\tpublic\tv_over\tv\tf\tf\t\\N\t SELECT a FROM public.v_move;"),
        ("relations", "17003\tpublic\tkeeping\tr\tf\tf\t\\N\t\\N"),
        ("relations", "17004\tpublic\tguarded\tr\tt\tf\t\\N\t\\N"),
        ("relations", "17005\tpublic\tmade_of\tr\tf\tf\t\\N\t\\N"),
        ("relations", "17006\tpublic\treferenced\tr\tf\tf\t\\N\t\\N"),
        ("columns", "17003\ta\t25"),
        ("columns", "17005\ta\t17010"),
        ("columns", "17006\tid\t23"),
        ("types", "17010\tpublic\tmover\td\t0\t25\t0"),
        ("types", "17011\tpublic\t_mover\tb\t17010\t0\t0"),
        ("checks", &format!("17010\t({set} IS NOT NULL)")),
        ("rows", "17020\t17021\t17010"),
        ("expressions", &format!("17003\tf\t{set}")),
        ("expressions", &format!("17004\tt\t({set} IS NOT NULL), true")),
        ("copies", "17003\ta\t17006\tid\tf"),
    ]);
    let moved = ["reads: select lab.patients; select public.patients"];
    for text in [
        "SELECT * FROM v_move",
        "SELECT * FROM v_over",
        "INSERT INTO keeping DEFAULT VALUES",
        "SELECT 1 FROM guarded",
        "SELECT 'x'::mover",
        "SELECT ARRAY['x']::mover[]",
        "SELECT NULL::made_of",
        "INSERT INTO made_of VALUES ('x')",
        "DELETE FROM referenced",
    ] {
        let mut session = session(&catalog);
        check(&session, &catalog, "SELECT mail FROM patients", &["reads: select public.patients"]);
        run(&mut session, &catalog, text);
        let found = lines(&session, &catalog, "SELECT mail FROM patients");
        assert_eq!(found, moved, "{text}");
        session.ready(Transaction::Idle);
        assert_eq!(lines(&session, &catalog, "SELECT mail FROM patients"), moved, "{text}, settled");
    }
    // Reading what only writing runs changes nothing.
    let mut session = session(&catalog);
    run(&mut session, &catalog, "SELECT * FROM keeping; INSERT INTO memo (line) VALUES ('x')");
    session.ready(Transaction::Idle);
    check(&session, &catalog, "SELECT mail FROM patients", &["reads: select public.patients"]);
}

/// A parameter of a domain ran its checks when it was bound, and nobody had been asked.
#[test]
fn a_parameter_wants_what_makes_its_value() {
    let catalog = catalog_with(&[("rows", "17020\t17021\t16703"), ("rows", "17030\t17031\t0")]);
    let session = session(&catalog);
    let wants = |text: &str, types: &[u32]| -> Vec<String> {
        let analysis = session.analyze(text, &catalog);
        session.with_parameters(analysis, types, text.len(), &catalog).statements.iter().map(line).collect()
    };
    assert_eq!(wants("SELECT $1", &[0, 23]), ["reads:"]);
    for (oid, expected) in [
        (16703, "may change: call public.forget"),
        (16702, "may change: call public.forget"),
        (17020, "may change: call public.forget"),
        (17021, "may change: call public.forget"),
        (16706, "reads:"),
        (17999, "may change: opaque fixture"),
    ] {
        assert_eq!(wants("SELECT $1", &[oid]), [expected], "{oid}");
        if oid != 16706 {
            assert_eq!(wants("", &[oid]), [expected], "{oid} without a statement");
        }
    }
    assert_eq!(
        wants("SELECT $1, id FROM visits", &[16703]),
        ["may change: select public.visits; call public.forget"]
    );
}

/// `SET LOCAL ROLE` was followed as if it lasted: `$user` in the path then stood for the wrong role.
#[test]
fn a_local_role_ends_with_its_transaction() {
    let catalog = catalog();
    let mut session = session(&catalog);
    let both = ["reads: select public.orders; select shop.orders"];
    run(&mut session, &catalog, "BEGIN; SET LOCAL ROLE shop");
    check(&session, &catalog, "SELECT 1 FROM orders", &both);
    run(&mut session, &catalog, "COMMIT");
    session.ready(Transaction::Idle);
    check(&session, &catalog, "SELECT 1 FROM orders", &["reads: select public.orders"]);
    run(&mut session, &catalog, "SET LOCAL ROLE shop");
    session.ready(Transaction::Idle);
    check(&session, &catalog, "SELECT 1 FROM orders", &["reads: select public.orders"]);
    run(&mut session, &catalog, "SET SESSION AUTHORIZATION shop");
    session.ready(Transaction::Idle);
    check(&session, &catalog, "SET ROLE NONE", &["may change: opaque fixture"]);
    check(&session, &catalog, "RESET SESSION AUTHORIZATION", &["may change: login app"]);
}

#[test]
fn writing_to_what_ships_with_postgresql_is_opaque() {
    let catalog = catalog();
    let session = session(&catalog);
    for (text, expected) in [
        ("UPDATE pg_settings SET setting = 'lab'", "set unknown;"),
        ("DELETE FROM pg_proc", "delete pg_catalog.pg_proc;"),
    ] {
        let found = lines(&session, &catalog, text).join("");
        assert!(found.contains(expected) && found.ends_with("opaque fixture"), "{text}: {found}");
    }
}

/// What is kept with a table, a domain or an index was made without a look at what it calls.
#[test]
fn a_definition_wants_what_it_keeps() {
    let catalog = catalog();
    let session = session(&catalog);
    for text in [
        "CREATE TABLE k (a int DEFAULT forget(1))",
        "CREATE TABLE k (a int, CHECK (forget(a) > 0))",
        "CREATE TABLE k (a int) PARTITION BY LIST (forget(a))",
        "CREATE TABLE k PARTITION OF metric FOR VALUES IN (forget(1))",
        "CREATE TABLE k PARTITION OF metric FOR VALUES FROM (forget(1)) TO (MAXVALUE)",
        "CREATE TABLE k PARTITION OF metric FOR VALUES FROM (MINVALUE) TO (forget(1))",
        "CREATE TABLE k (a positive)",
        "CREATE TABLE k (a int, EXCLUDE (forget(a) WITH =))",
        "CREATE TABLE k (a int, EXCLUDE (a WITH =) WHERE (forget(a) > 0))",
        "CREATE TABLE k (a int GENERATED ALWAYS AS (forget(1)) STORED)",
        "CREATE FOREIGN TABLE k (a int DEFAULT forget(1)) SERVER s",
        "ALTER TABLE memo ALTER line SET DEFAULT forget(1)",
        "ALTER TABLE memo ADD COLUMN a int CHECK (forget(1) > 0)",
        "ALTER TABLE metric ATTACH PARTITION memo FOR VALUES IN (forget(1))",
        "CREATE DOMAIN k AS int CHECK (forget(VALUE) > 0)",
        "CREATE DOMAIN k AS int DEFAULT forget(1)",
        "CREATE DOMAIN k AS positive",
        "ALTER DOMAIN positive ADD CHECK (forget(VALUE) > 0)",
        "ALTER DOMAIN positive SET DEFAULT forget(1)",
        "CREATE INDEX ON memo (forget(id))",
        "CREATE INDEX ON memo (id) WHERE forget(id) > 0",
        "CREATE STATISTICS s ON forget(id), (id + 1) FROM memo",
        "CREATE POLICY p ON memo USING (forget(id) > 0)",
        "ALTER POLICY p ON memo WITH CHECK (forget(id) > 0)",
        "CREATE TRIGGER t BEFORE INSERT ON memo FOR EACH ROW WHEN (forget(1) > 0) EXECUTE FUNCTION wipe()",
        "CREATE TYPE k AS RANGE (subtype = int, subtype_diff = forget)",
    ] {
        let found = lines(&session, &catalog, text).join("");
        assert!(found.contains("call public.forget"), "{text}: {found}");
    }
    // What keeps something that sets the path makes its table unknown before the catalog shows it.
    for text in [
        "CREATE TABLE memo (a text DEFAULT set_config('search_path', 'lab', false))",
        "ALTER TABLE memo ALTER line SET DEFAULT set_config('search_path', 'lab', false)",
        "CREATE DOMAIN k AS text CHECK (set_config('search_path', 'lab', false) IS NOT NULL)",
    ] {
        let mut session = session_of("app", &catalog);
        run(&mut session, &catalog, text);
        run(&mut session, &catalog, "SET search_path = public");
        let found = lines(&session, &catalog, "INSERT INTO memo VALUES ('x')").join("");
        assert!(found.ends_with("opaque fixture"), "{text}: {found}");
    }
}

/// Nine namings under way at once made the first eight be forgotten, though any of them may stand.
#[test]
fn a_name_with_too_many_meanings_is_unknown() {
    let catalog = catalog();
    let mut session = session(&catalog);
    let sent: Vec<_> = (0..9).map(|_| session.prepare_sent("w", "DELETE FROM visits", &[], None)).collect();
    let last = session.prepare_sent("w", "SELECT 1", &[], None);
    check(&session, &catalog, "EXECUTE w", &["may change: opaque fixture"]);
    for sent in sent {
        session.ended(sent, false);
    }
    check(&session, &catalog, "EXECUTE w", &["may change: opaque fixture"]);
    session.ended(last, true);
    check(&session, &catalog, "EXECUTE w", &["reads:"]);
}

/// What a statement may have changed is followed by the next: the work grew with the square of their number.
#[test]
fn a_text_that_changes_too_much_is_opaque() {
    let catalog = catalog();
    let session = session(&catalog);
    let text = |count: usize| (0..count).map(|at| format!("CREATE TEMP TABLE t{at} ();")).collect::<String>();
    assert_eq!(lines(&session, &catalog, &text(300)).len(), 300);
    assert_eq!(lines(&session, &catalog, &text(1_002)), ["may change: opaque fixture"]);
}

/// Each `DEALLOCATE ALL` of one text was noted at each name: time and memory grew with their product.
#[test]
fn names_are_taken_away_in_no_room() {
    let catalog = catalog();
    let mut session = session(&catalog);
    for name in 0..10_000 {
        let sent = session.prepare_sent(&format!("s{name}"), "SELECT 1 FROM visits", &[], None);
        session.ended(sent, true);
    }
    let text = "DEALLOCATE ALL; CLOSE ALL; DISCARD ALL;".repeat(3_000);
    assert_eq!(session.analyze(&text, &catalog).statements.len(), 9_000);
    let text = "DEALLOCATE ALL; EXECUTE s7".to_owned();
    check(&session, &catalog, &text, &["reads:", "reads: select public.visits"]);
    run(&mut session, &catalog, "DEALLOCATE ALL");
    check(&session, &catalog, "EXECUTE s7", &["may change: opaque fixture"]);
}

#[test]
fn statements_want_what_they_touch() {
    wants_on(catalog);
}

#[test]
fn statements_want_the_same_on_a_newer_server() {
    wants_on(catalog_18);
}

fn wants_on(catalog: fn() -> Catalog) {
    let catalog = catalog();
    let session = session(&catalog);
    let cases = [
        ("SELECT 1", "reads:"),
        ("SELECT id FROM visits WHERE id = 1", "reads: select public.visits"),
        (
            "SELECT abs(fee), reason || 'x' FROM visits v WHERE v.id IN (1, 2) AND reason LIKE 'x%' ORDER BY fee",
            "reads: select public.visits",
        ),
        ("SELECT now(), version(), current_user, random()", "reads:"),
        ("SELECT * FROM v_contact", "reads: select public.patients; select public.v_contact"),
        ("SELECT n FROM v_touch", "may change: select public.v_touch; call public.forget"),
        ("SELECT forget(1)", "may change: call public.forget"),
        ("SELECT nextval('badge_seq'::regclass)", "may change: advance public.badge_seq"),
        ("SELECT nextval($1)", "may change: advance fixture"),
        ("SELECT set_config('work_mem', '1', false)", "may change: set work_mem"),
        (
            "SELECT set_config('default_' OPERATOR(pg_catalog.||) 'x', '1', false)",
            "may change: set unknown; opaque fixture",
        ),
        ("SELECT lo_create(0)", "may change: call pg_catalog.lo_create"),
        (
            "SELECT query_to_xml('SELECT 1', false, false, '')",
            "may change: call pg_catalog.query_to_xml; opaque fixture",
        ),
        (
            "SELECT histogram_bounds FROM pg_stats",
            "reads: select pg_catalog.pg_attribute; select pg_catalog.pg_class; select pg_catalog.pg_namespace; select pg_catalog.pg_statistic; select pg_catalog.pg_stats; opaque fixture",
        ),
        (
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'visits'::regclass",
            "reads: select pg_catalog.pg_attribute",
        ),
        ("SELECT pg_try_advisory_lock(5, 6)", "may change:"),
        ("SELECT * FROM visits FOR UPDATE", "may change: select public.visits; lock public.visits"),
        (
            "SELECT full_name INTO TABLE kept FROM patients",
            "may change: select public.patients; create public.kept",
        ),
        (
            "WITH visits AS (SELECT staff AS reason FROM wages) SELECT reason FROM visits",
            "reads: select public.wages",
        ),
        ("WITH wages AS (SELECT staff FROM wages) SELECT * FROM wages", "reads: select public.wages"),
        ("WITH RECURSIVE wages AS (SELECT 1 AS n UNION SELECT n FROM wages) SELECT * FROM wages", "reads:"),
        (
            "WITH n AS (INSERT INTO memo (line) VALUES ('cte') RETURNING id) SELECT id FROM n",
            "may change: select public.memo; insert public.memo",
        ),
        (
            "EXPLAIN (ANALYZE on, COSTS off) INSERT INTO memo (line) SELECT 'e'",
            "may change: insert public.memo",
        ),
        ("EXPLAIN SELECT * FROM visits", "reads: select public.visits"),
        ("DO $$ BEGIN NULL; END $$", "may change: opaque fixture"),
        ("CALL wipe(4)", "may change: call public.wipe"),
        ("COPY memo FROM STDIN", "may change: insert public.memo"),
        ("COPY (SELECT staff FROM wages) TO STDOUT", "reads: select public.wages"),
        (
            "COPY (DELETE FROM memo RETURNING id) TO STDOUT",
            "may change: select public.memo; delete public.memo",
        ),
        ("COPY memo TO PROGRAM 'sh'", "may change: select public.memo; administer fixture; opaque fixture"),
        ("SELECT nick FROM people WHERE id = 1 AND nick = 'x'", "may change: select public.people"),
        ("SELECT boss FROM people", "may change: select public.people"),
        ("SELECT v FROM metric", "reads: select public.metric; select public.metric_2024"),
        ("SELECT v FROM metric_2024", "reads: select public.metric; select public.metric_2024"),
        ("SELECT * FROM secured", "may change: select public.secured"),
        ("INSERT INTO ruled VALUES (1)", "may change: insert public.ruled; delete public.memo"),
        ("SELECT * FROM m_wages", "reads: select public.m_wages; select public.wages"),
        ("SELECT 1::positive", "may change: call public.forget"),
        ("SELECT ARRAY[1]::positive[]", "may change: call public.forget"),
        ("SELECT 'sad'::mood", "reads:"),
        ("SELECT 1::mood", "may change: call public.to_mood"),
        ("SELECT CAST(id AS mood) FROM visits", "may change: select public.visits; call public.to_mood"),
        ("SELECT mood(1)", "may change: call public.to_mood"),
        ("SELECT v.visit_touch FROM visits v", "may change: select public.visits; call public.visit_touch"),
        ("SELECT (v).visit_touch FROM visits v", "may change: select public.visits; call public.visit_touch"),
        (
            "SELECT (SELECT v).visit_touch FROM visits v",
            "may change: select public.visits; call public.visit_touch",
        ),
        ("SELECT v.reason FROM visits v", "reads: select public.visits"),
        ("SELECT reason(v) FROM visits v", "reads: select public.visits"),
        ("SELECT 1 === 2", "may change: call public.same"),
        ("SELECT 1 OPERATOR(public.===) 2", "may change: call public.same"),
        ("SELECT * FROM visits ORDER BY id USING ===", "may change: select public.visits; call public.same"),
        ("SELECT 1 === ANY (ARRAY[1, 2])", "may change: call public.same"),
        ("SELECT (1, 2) === (SELECT 1, 2)", "may change: call public.same"),
        ("SELECT lower('x')", "reads:"),
        ("SELECT shop.lower('x')", "may change: call shop.lower"),
        ("UPDATE visits SET fee = 1", "may change: update public.visits"),
        ("UPDATE visits SET fee = fee + 1", "may change: select public.visits; update public.visits"),
        ("UPDATE visits SET fee = 1 WHERE id = 2", "may change: select public.visits; update public.visits"),
        (
            "DELETE FROM v_contact",
            "may change: select public.patients; delete public.patients; delete public.v_contact",
        ),
        (
            "INSERT INTO visits (reason) SELECT staff FROM wages RETURNING reason",
            "may change: select public.visits; select public.wages; insert public.visits",
        ),
        ("LISTEN heard", "may change: select fixture"),
        ("SET search_path TO lab", "reads:"),
        ("SET ROLE postgres", "may change: login postgres"),
        ("RESET ROLE", "may change: login app"),
        ("SET SESSION AUTHORIZATION 'bob'", "may change: login bob"),
        ("SELECT set_config('role', 'postgres', true)", "may change: login postgres"),
        ("SET TimeZone = 'UTC'", "reads:"),
        ("SET LOCAL statement_timeout = 5", "reads:"),
        ("SET client_encoding = 'UTF-8'", "reads:"),
        ("SET NAMES 'latin1'", "may change: opaque fixture"),
        ("SET session_replication_role = replica", "may change: set session_replication_role"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY", "reads:"),
        ("BEGIN READ ONLY", "reads:"),
        ("COMMIT", "reads:"),
        ("SHOW search_path", "reads:"),
        ("CREATE TABLE foo (id int)", "may change: create public.foo"),
        ("CREATE TEMP TABLE foo (id int)", "may change: create pg_temp.foo"),
        ("DROP TABLE visits", "may change: drop public.visits"),
        ("DROP TABLE IF EXISTS nothere", "may change: drop app.nothere; drop public.nothere"),
        ("DROP TABLE visits CASCADE", "may change: drop fixture; drop public.visits"),
        ("DROP INDEX patients_pkey", "may change: alter public.patients; drop public.patients_pkey"),
        (
            "ALTER TABLE visits ADD COLUMN z int DEFAULT forget(1)",
            "may change: alter public.visits; call public.forget",
        ),
        ("CREATE INDEX ON visits (forget(id))", "may change: alter public.visits; call public.forget"),
        ("CREATE VIEW leak AS SELECT * FROM wages", "may change: select public.wages; create public.leak"),
        ("COMMENT ON COLUMN visits.fee IS 'x'", "may change: alter public.visits"),
        ("GRANT SELECT ON visits TO limited", "may change: administer public.visits"),
        ("ALTER ROLE CURRENT_USER SET work_mem = '7MB'", "may change: administer app"),
        ("TRUNCATE memo", "may change: truncate public.memo"),
        (
            "MERGE INTO memo m USING visits v ON v.id = m.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'x')",
            "may change: select public.memo; select public.visits; insert public.memo; delete public.memo",
        ),
        ("SELECT * FROM unknown_table", "may change: opaque fixture"),
        ("SELECT unknown_function(1)", "may change: call public.unknown_function; opaque fixture"),
        ("SELECT 1::unknown_type", "may change: opaque fixture"),
        ("SELECT garbage garbage garbage FROM", "may change: opaque fixture"),
        ("NOTIFY x", "may change: call pg_catalog.pg_notify"),
        ("VACUUM memo", "may change: administer public.memo"),
        ("SELECT * FROM pg_stat_get_activity(NULL)", "may change: call pg_catalog.pg_stat_get_activity"),
        (
            "SELECT count(*) FILTER (WHERE forget(1) > 0) OVER (ORDER BY id) FROM visits",
            "may change: select public.visits; call public.forget",
        ),
        ("SELECT * FROM visits TABLESAMPLE system (10)", "reads: select public.visits"),
        ("SELECT * FROM ROWS FROM (forget(1), generate_series(1, 2)) AS x", "may change: call public.forget"),
        ("SELECT JSON_OBJECT('a' VALUE forget(1))", "may change: call public.forget"),
        (
            "SELECT CASE id WHEN 1 THEN forget(2) END FROM visits",
            "may change: select public.visits; call public.forget",
        ),
        ("SELECT 1 LIMIT forget(1)", "may change: call public.forget"),
        ("VALUES (1), (forget(2))", "may change: call public.forget"),
        (
            "SELECT id FROM visits GROUP BY GROUPING SETS ((id), (forget(id)))",
            "may change: select public.visits; call public.forget",
        ),
        (
            "SELECT sum(id) OVER w FROM visits WINDOW w AS (ORDER BY forget(id))",
            "may change: select public.visits; call public.forget",
        ),
        (
            "SELECT DISTINCT ON (forget(id)) id FROM visits",
            "may change: select public.visits; call public.forget",
        ),
        ("SELECT (ARRAY[1, 2])[forget(1)]", "may change: call public.forget"),
    ];
    for (text, expected) in cases {
        check(&session, &catalog, text, &[expected]);
    }
}

#[test]
fn each_statement_of_a_text_is_told_apart() {
    let catalog = catalog();
    let session = session(&catalog);
    let text = "SELECT 1;;/* ; */;INSERT INTO memo (line) VALUES ('ä;');\n DELETE FROM memo -- ;";
    let analysis = session.analyze(text, &catalog);
    let slices: Vec<&str> =
        analysis.statements.iter().map(|statement| text[statement.range.clone()].trim()).collect();
    assert_eq!(analysis.statements.len(), 3);
    assert!(slices[1].ends_with("VALUES ('ä;')") && slices[2].starts_with("DELETE"), "{slices:?}");
    assert_eq!(analysis.statements[0].meaning.facts.statements, 3);
    assert!(session.analyze(" ; -- nothing", &catalog).statements.is_empty());
}

#[test]
fn a_path_that_was_sent_is_possible_and_one_that_completed_is_certain() {
    let catalog = catalog();
    let mut session = session(&catalog);
    let statement = session.analyze("SET search_path = lab", &catalog).statements[0].clone();
    let sent = session.sent(&statement);
    let both = ["reads: select lab.patients; select public.patients"];
    check(&session, &catalog, "SELECT mail FROM patients", &both);
    session.ended(sent, true);
    check(&session, &catalog, "SELECT mail FROM patients", &both);
    session.ready(Transaction::Idle);
    check(&session, &catalog, "SELECT mail FROM patients", &["reads: select lab.patients"]);
}

#[test]
fn a_path_whose_statement_failed_and_one_before_it_stay_possible() {
    let catalog = catalog();
    let mut session = session(&catalog);
    run(&mut session, &catalog, "SET search_path = lab");
    let statement = session.analyze("SELECT 1 / 0", &catalog).statements[0].clone();
    let sent = session.sent(&statement);
    session.ended(sent, false);
    session.ready(Transaction::Idle);
    check(
        &session,
        &catalog,
        "SELECT 1 FROM patients",
        &["reads: select lab.patients; select public.patients"],
    );
    run(&mut session, &catalog, "SET search_path = public");
    session.ready(Transaction::Idle);
    check(&session, &catalog, "SELECT 1 FROM patients", &["reads: select public.patients"]);
}

#[test]
fn a_transaction_that_rolls_back_takes_its_path_along() {
    let catalog = catalog();
    let mut session = session(&catalog);
    run(&mut session, &catalog, "BEGIN; SET LOCAL search_path = lab");
    session.ready(Transaction::Open);
    check(&session, &catalog, "TABLE patients", &["reads: select lab.patients; select public.patients"]);
    run(&mut session, &catalog, "ROLLBACK");
    session.ready(Transaction::Idle);
    check(&session, &catalog, "TABLE patients", &["reads: select public.patients"]);
    // In one message a ROLLBACK takes back what stood before the BEGIN as well.
    run(&mut session, &catalog, "SET search_path = lab; BEGIN; ROLLBACK");
    session.ready(Transaction::Idle);
    check(&session, &catalog, "TABLE patients", &["reads: select lab.patients; select public.patients"]);
}

#[test]
fn a_schema_that_the_role_may_not_use_hides_nothing() {
    let catalog = catalog();
    let mut limited = session_of("limited", &catalog);
    run(&mut limited, &catalog, "SET search_path = hidden, public");
    limited.ready(Transaction::Idle);
    check(&limited, &catalog, "SELECT 1 FROM visits", &["reads: select hidden.visits; select public.visits"]);
    let mut owner = session_of("postgres", &catalog);
    run(&mut owner, &catalog, "SET search_path = hidden, public");
    owner.ready(Transaction::Idle);
    check(&owner, &catalog, "SELECT 1 FROM visits", &["reads: select hidden.visits"]);
}

#[test]
fn the_path_takes_its_user_and_shadows_functions() {
    let catalog = catalog();
    let mut session = session_of("shop", &catalog);
    check(&session, &catalog, "TABLE orders", &["reads: select public.orders; select shop.orders"]);
    check(&session, &catalog, "SELECT lower('x')", &["may change: call shop.lower"]);
    // After such a call any path is possible, and any table of that name.
    run(&mut session, &catalog, "SELECT lower('x')");
    session.ready(Transaction::Idle);
    check(&session, &catalog, "TABLE patients", &["reads: select lab.patients; select public.patients"]);
    session.parameter_status("search_path", "lab");
    session.ready(Transaction::Idle);
    check(&session, &catalog, "TABLE patients", &["reads: select lab.patients"]);
}

#[test]
fn a_prepared_name_runs_all_that_it_can_stand_for() {
    let catalog = catalog();
    let mut session = session(&catalog);
    check(&session, &catalog, "EXECUTE w", &["may change: opaque fixture"]);
    run(&mut session, &catalog, "PREPARE w AS UPDATE memo SET line = 'w'");
    check(&session, &catalog, "EXECUTE w", &["may change: update public.memo"]);
    check(&session, &catalog, "EXPLAIN ANALYZE EXECUTE w", &["may change: update public.memo"]);
    check(
        &session,
        &catalog,
        "CREATE TABLE n AS EXECUTE w",
        &["may change: update public.memo; create public.n"],
    );
    let again = session.prepare_sent("w", "SELECT 1 FROM visits", &[], None);
    check(&session, &catalog, "EXECUTE w", &["may change: select public.visits; update public.memo"]);
    session.ended(again, true);
    check(&session, &catalog, "EXECUTE w", &["reads: select public.visits"]);
    assert_eq!(line(&session.prepared("w", &catalog).statements[0]), "reads: select public.visits");
    // It is planned anew with the path of the moment.
    run(&mut session, &catalog, "PREPARE p AS TABLE patients; SET search_path = lab");
    session.ready(Transaction::Idle);
    check(&session, &catalog, "EXECUTE p", &["reads: select lab.patients"]);
    run(&mut session, &catalog, "DEALLOCATE ALL");
    check(&session, &catalog, "EXECUTE p", &["may change: opaque fixture"]);
    check(
        &session,
        &catalog,
        "PREPARE x AS DELETE FROM public.memo; EXECUTE x",
        &["may change: delete public.memo", "may change: delete public.memo"],
    );
}

#[test]
fn a_cursor_fetches_what_it_was_declared_for() {
    let catalog = catalog();
    let mut session = session(&catalog);
    run(&mut session, &catalog, "BEGIN; DECLARE wc CURSOR FOR TABLE wages");
    check(&session, &catalog, "FETCH 2 FROM wc", &["reads: select public.wages"]);
    check(&session, &catalog, "MOVE 2 IN wc", &["reads: select public.wages"]);
    assert_eq!(line(&session.portal("wc").statements[0]), "reads: select public.wages");
    run(&mut session, &catalog, "CLOSE wc");
    check(&session, &catalog, "FETCH 2 FROM wc", &["may change: opaque fixture"]);
    check(&session, &catalog, "FETCH 2 FROM nobody", &["may change: opaque fixture"]);
}

#[test]
fn names_that_sql_takes_over_are_told() {
    let catalog = catalog();
    let session = session(&catalog);
    let told = |text: &str| format!("{:?}", session.analyze(text, &catalog).statements[0].renames());
    assert_eq!(told("PREPARE a AS SELECT 1"), "Statement(\"a\")");
    assert_eq!(told("DEALLOCATE a"), "Statement(\"a\")");
    assert_eq!(told("DEALLOCATE ALL"), "AllStatements");
    assert_eq!(told("DECLARE c CURSOR FOR SELECT 1"), "Portal(\"c\")");
    assert_eq!(told("CLOSE ALL"), "AllPortals");
    assert_eq!(told("DISCARD ALL"), "Everything");
    assert_eq!(told("DO 'x'"), "Everything");
    assert_eq!(told("SELECT 1"), "Nothing");
}

#[test]
fn backslashes_are_read_as_the_server_reads_them() {
    let catalog = catalog();
    let mut session = session(&catalog);
    let hides = "SELECT 'q\\' ; TRUNCATE memo; --'; TRUNCATE memo; --'";
    check(&session, &catalog, hides, &["reads:", "may change: truncate public.memo"]);
    let statement = session.analyze("SET standard_conforming_strings = off", &catalog).statements[0].clone();
    let sent = session.sent(&statement);
    check(&session, &catalog, hides, &["may change: opaque fixture"]);
    check(&session, &catalog, "SELECT 'plain'", &["reads:"]);
    session.parameter_status("standard_conforming_strings", "off");
    session.ended(sent, true);
    session.ready(Transaction::Idle);
    check(&session, &catalog, hides, &["reads:", "may change: truncate public.memo"]);
    check(&session, &catalog, "SELECT '\\'; TRUNCATE memo; --'", &["reads:"]);
}

#[test]
fn a_commit_waits_for_the_disk_only_where_something_may_have_changed() {
    let catalog = catalog();
    let mut session = session(&catalog);
    run(&mut session, &catalog, "BEGIN");
    run(&mut session, &catalog, "SELECT 1 FROM visits");
    check(&session, &catalog, "COMMIT", &["reads:"]);
    run(&mut session, &catalog, "UPDATE memo SET line = ''");
    check(&session, &catalog, "COMMIT", &["may change:"]);
    run(&mut session, &catalog, "COMMIT");
    session.ready(Transaction::Idle);
    check(&session, &catalog, "COMMIT", &["reads:"]);
    assert_eq!(lines(&session, &catalog, "UPDATE memo SET line = ''; COMMIT")[1], "may change:");
}

#[test]
fn what_the_session_made_is_known_by_name_until_the_catalog_has_it() {
    let catalog = catalog();
    let mut session = session(&catalog);
    run(
        &mut session,
        &catalog,
        "CREATE TABLE foo (id int); CREATE VIEW bar AS SELECT * FROM wages; CREATE TEMP TABLE visits (id int)",
    );
    session.ready(Transaction::Idle);
    check(&session, &catalog, "TABLE foo", &["may change: select public.foo"]);
    check(&session, &catalog, "TABLE bar", &["may change: select public.bar; opaque fixture"]);
    check(&session, &catalog, "TABLE visits", &["may change: select pg_temp.visits; select public.visits"]);
    run(&mut session, &catalog, "CREATE OR REPLACE VIEW v_contact AS SELECT * FROM wages; DROP TABLE memo");
    session.ready(Transaction::Idle);
    assert!(lines(&session, &catalog, "TABLE v_contact")[0].contains("opaque"));
    // A look that was under way may have missed it; the one after it has not.
    check(&session, &catalog, "TABLE orders", &["may change: select public.orders"]);
    let next = catalog.confirmed();
    check(&session, &next, "TABLE orders", &["may change: select public.orders"]);
    let after = next.confirmed();
    check(&session, &after, "TABLE orders", &["reads: select public.orders"]);
    check(&session, &after, "TABLE foo", &["may change: opaque fixture"]);
    check(&session, &after, "TABLE visits", &["may change: select pg_temp.visits; select public.visits"]);
    // What is sent later holds in the state that has caught up as well, and a later definition is late again.
    run(&mut session, &after, "SET search_path = lab");
    session.ready(Transaction::Idle);
    check(&session, &after, "TABLE patients", &["reads: select lab.patients"]);
    run(&mut session, &after, "CREATE TABLE lab.more (id int)");
    session.ready(Transaction::Idle);
    check(&session, &after, "TABLE patients", &["may change: select lab.patients"]);
    check(&session, &after, "TABLE v_contact", &["may change: opaque fixture"]);
    check(
        &session,
        &after,
        "TABLE public.v_contact",
        &["may change: select public.patients; select public.v_contact"],
    );
}

#[test]
fn what_nobody_knows_is_opaque_and_forgets_names() {
    let catalog = Catalog::empty();
    let session = session(&catalog);
    check(&session, &catalog, "TABLE visits", &["may change: opaque fixture"]);
    assert!(lines(&session, &catalog, "SELECT now()")[0].starts_with("may change"));
    check(&session, &catalog, "SELECT 1", &["reads:"]);
}

#[test]
fn a_catalog_refuses_rows_that_are_malformed() {
    assert!(Catalog::from_rows(Vec::new(), &[]).is_err());
    let rows = |change: fn(&mut Vec<Rows>)| {
        let mut queries: Vec<Rows> = Vec::new();
        for line in include_str!("sql/catalog15.tsv").lines() {
            match line.strip_prefix("## ") {
                Some(_) => queries.push(Rows::new()),
                None => queries.last_mut().expect("a head").push(line.split('\t').map(value).collect()),
            }
        }
        change(&mut queries);
        Catalog::from_rows(queries, &[]).err().map(|error| error.to_string())
    };
    assert_eq!(rows(|_| {}), None);
    assert_eq!(
        rows(|q| q[5][0][0] = Some("x".into())).as_deref(),
        Some("catalog query relations: \"x\" is no object number")
    );
    assert_eq!(
        rows(|q| _ = q[5][0].pop()).as_deref(),
        Some("catalog query relations: a row does not have 8 columns")
    );
    assert!(rows(|q| q[5][0][3] = Some("?".into())).is_some());
    assert!(rows(|q| q[0].clear()).is_some());
}

/// Whether a policy of the corpus lets a statement pass.
fn permits(policy: &str, statement: &Statement) -> bool {
    statement.meaning.actions.iter().all(|action| {
        let (verb, object) = (action.verb.name(), action.object.to_string());
        let system =
            object.starts_with("fixture/pg_catalog.") || object.starts_with("fixture/information_schema.");
        match policy {
            "read_only" | "mask" => verb == "select",
            "deny_table" => match object.as_str() {
                "fixture/public.visits" | "fixture/public.patients" => {
                    action.verb.group().is_some_and(|group| group != "define")
                }
                _ => verb == "select" && system && !object.contains("pg_stat"),
            },
            other => panic!("policy {other}"),
        }
    })
}

#[test]
fn the_corpus_is_held_and_let_through() {
    corpus_on(catalog);
}

#[test]
fn the_corpus_is_held_and_let_through_on_a_newer_server() {
    corpus_on(catalog_18);
}

fn corpus_on(catalog: fn() -> Catalog) {
    let catalog = catalog();
    for case in include_str!("sql/corpus.tsv").lines().filter(|line| !line.starts_with('#')) {
        let mut fields = case.split('\t');
        let (kind, id, policies) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        let steps: Vec<String> = fields.map(|step| value(step).unwrap()).collect();
        for policy in policies.split(',') {
            let mut session = session(&catalog);
            let mut refused = false;
            for step in &steps {
                let analysis = session.analyze(step, &catalog);
                if !analysis.statements.iter().all(|statement| permits(policy, statement)) {
                    refused = true;
                    continue;
                }
                for statement in &analysis.statements {
                    let sent = session.sent(statement);
                    session.ended(sent, true);
                }
            }
            assert_eq!(
                refused,
                kind == "attack",
                "{id} under {policy}: {:?}",
                steps.iter().map(|s| lines(&session, &catalog, s)).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn texts_with_one_key_share_one_meaning() {
    let catalog = catalog();
    let session = session(&catalog);
    let first = session.analyze("SELECT id FROM visits WHERE id = 1", &catalog).statements[0].clone();
    let second = session.analyze("SELECT id FROM visits WHERE id = 1234", &catalog).statements[0].clone();
    assert!(Arc::ptr_eq(&first.meaning, &second.meaning));
    assert_eq!(second.range, 0..37);
    assert_eq!(literal_key("SELECT nextval(16399)"), literal_key("SELECT nextval(16400)"));
    assert!(session.analyze("SELECT nextval(16399)", &catalog).literals_matter);
}

#[test]
fn nesting_and_size_end_cleanly() {
    let catalog = catalog();
    let session = session(&catalog);
    let deep = |open: &str, close: &str, depth: usize| {
        format!("SELECT {}1{}", open.repeat(depth), close.repeat(depth))
    };
    for depth in [10, 100, 1_000, 10_000, 100_000] {
        for text in [
            deep("(", ")", depth),
            deep("-(", ")", depth),
            deep("abs(", ")", depth),
            deep("(SELECT ", ")", depth),
            deep("ARRAY[", "]", depth),
            deep("NOT ", "", depth),
            deep("1 + ", "", depth),
            format!("SELECT 1{}", " + 1".repeat(depth)),
            format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(depth)),
            format!("SELECT * FROM visits{}", " JOIN visits USING (id)".repeat(depth)),
            format!("SELECT 1{}", "; SELECT 1".repeat(depth)),
            format!("SELECT {}", "CASE WHEN true THEN ".repeat(depth)),
            "(".repeat(depth),
            format!("SELECT 1 WHERE id IN (1{})", ", 1".repeat(depth)),
        ] {
            for statement in &session.analyze(&text, &catalog).statements {
                assert!(statement.range.end <= text.len());
            }
        }
    }
    let long = format!("SELECT '{}'", "x".repeat(gatebook_wire::sql::TEXT_BYTES_MAX));
    check(&session, &catalog, &long, &["may change: opaque fixture"]);
    check(&session, &catalog, "SELECT \0", &["may change: opaque fixture"]);
}

/// Reads SQL files as a client would send them, one statement after the other, and tells what each wants. With `SQL_FILES`
/// (a folder), `SQL_CATALOG` (rows of the catalog queries) and `SQL_TOLD` (what to write: for each text of one statement the
/// text, its kind and its meaning, each ended by a NUL) it prepares a comparison with what a live server does.
#[test]
#[ignore = "needs files from elsewhere"]
fn files_are_told_apart_without_a_panic() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let catalog = catalog_of(&std::fs::read_to_string(variable("SQL_CATALOG")).expect("a catalog"));
    let mut told = String::new();
    let (mut all, mut reads, mut opaque) = (0, 0, 0);
    for file in std::fs::read_dir(variable("SQL_FILES")).expect("a folder") {
        let text = std::fs::read(file.expect("a file").path()).expect("its bytes");
        let mut session = session_of("postgres", &catalog);
        for text in pieces(&String::from_utf8_lossy(&text)) {
            let analysis = session.analyze(&text, &catalog);
            let fresh = session_of("postgres", &catalog).analyze(&text, &catalog);
            if let [statement] = &fresh.statements[..] {
                let _ = write!(told, "{text}\0{}\0{}\0", statement.meaning.facts.kind, line(statement));
            }
            for statement in &analysis.statements {
                all += 1;
                reads += usize::from(statement.meaning.effect == Effect::Reads);
                opaque += usize::from(line(statement).contains("opaque"));
                let sent = session.sent(statement);
                session.ended(sent, true);
            }
            session.ready(Transaction::Idle);
        }
    }
    println!("{all} statements, {reads} proven to only read, {opaque} opaque");
    std::fs::write(variable("SQL_TOLD"), told).expect("written");
}

/// Cuts a script where a line ends with a semicolon, without psql's own commands and the data of COPY.
fn pieces(script: &str) -> Vec<String> {
    let (mut pieces, mut piece, mut data) = (Vec::new(), String::new(), false);
    for line in script.lines() {
        if data {
            data = line != "\\.";
            continue;
        }
        if line.trim_start().starts_with('\\') {
            continue;
        }
        piece.push_str(line);
        piece.push('\n');
        if line.trim_end().ends_with(';') {
            let lower = piece.to_ascii_lowercase();
            data = lower.trim_start().starts_with("copy") && lower.contains("from stdin");
            pieces.push(std::mem::take(&mut piece));
        }
    }
    pieces.push(piece);
    pieces
}

#[test]
#[ignore = "measures; run it in a release build"]
fn cost() {
    let catalog = catalog();
    let session = session(&catalog);
    let time = |name: &str, text: &dyn Fn(u32) -> String| {
        const ROUNDS: u32 = 20_000;
        let texts: Vec<String> = (0..ROUNDS).map(text).collect();
        let start = std::time::Instant::now();
        for text in &texts {
            std::hint::black_box(session.analyze(text, &catalog));
        }
        println!("{name}: {:.2} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
    };
    time("cached by key", &|n| format!("SELECT id FROM visits WHERE id = {n}"));
    time("cached by text", &|_| "SELECT id FROM visits WHERE reason = 'x'".to_owned());
    time("analysed", &|n| format!("SELECT c{n} FROM visits WHERE id = 1"));
    time("analysed join", &|n| {
        format!(
            "SELECT v.reason, p.c{n} FROM visits v JOIN patients p ON p.id = v.patient_id WHERE p.ward = 'x' ORDER BY v.id"
        )
    });
    let start = std::time::Instant::now();
    for _ in 0..20_000 {
        let _ = std::hint::black_box(pg_query::parse("SELECT id FROM visits WHERE id = 1", 0));
    }
    println!("parser alone: {:.2} us", start.elapsed().as_secs_f64() * 1e6 / 20_000.0);
}

#[test]
#[ignore = "prints for the eye"]
fn show() {
    let catalog = catalog();
    let session = session(&catalog);
    for text in std::fs::read_to_string(std::env::var("SHOW").expect("SHOW")).expect("a file").lines() {
        println!("{text}");
        for line in lines(&session, &catalog, text) {
            println!("      {line}");
        }
    }
}

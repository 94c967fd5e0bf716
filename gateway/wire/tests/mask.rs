//! Masks, judged by the text that is sent in place of the client's and by the permissions that are asked for.

use std::sync::Arc;

use gatebook_wire::action::Verb;
use gatebook_wire::sql::{
    Analysis, CATALOG_QUERIES, Catalog, Mask, Masking, Rows, Sensitive, Session, Start, Transaction,
};

fn sensitive() -> Arc<[Sensitive]> {
    let column = |column: &str, mask| Sensitive {
        schema: "public".into(),
        table: "patients".into(),
        column: column.into(),
        mask,
    };
    [column("mail", Mask::Email), column("iban", Mask::Redact), column("phone", Mask::Partial)].into()
}

const CATALOG: &str = include_str!("sql/catalog15.tsv");

fn catalog() -> Catalog {
    catalog_of(CATALOG)
}

fn catalog_of(text: &str) -> Catalog {
    let mut queries: Vec<Rows> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            assert_eq!(name, CATALOG_QUERIES[queries.len()].name);
            queries.push(Rows::new());
        } else {
            let value = |text: &str| (text != "\\N").then(|| text.replace("\\n", "\n").replace("\\t", "\t"));
            queries.last_mut().expect("a head").push(line.split('\t').map(value).collect());
        }
    }
    Catalog::from_rows(queries, &sensitive()).expect("a catalog")
}

fn session(catalog: &Catalog, masked: impl FnMut(&Sensitive) -> bool) -> Session {
    let masking = Masking::new(sensitive(), masked);
    Session::new(Start { database: "d".into(), role: "app".into(), search_path: None, masking }, catalog)
}

/// The columns for which a text needs `unmask`.
fn unmask(analysis: &Analysis) -> Vec<String> {
    let actions = analysis.statements.iter().flat_map(|statement| &statement.meaning.actions);
    let unmask = actions.filter(|action| action.verb == Verb::Unmask);
    unmask.map(|action| action.object.to_string().replace("d/public.patients.", "")).collect()
}

const PATIENTS: &str = "SELECT \"id\", \"full_name\", CAST('masked@masked.invalid' AS \"pg_catalog\".\"text\") AS \"mail\", \
    CAST('[redacted]' AS \"pg_catalog\".\"text\") AS \"iban\", \
    CAST(CASE WHEN pg_catalog.length(CAST(\"phone\" AS pg_catalog.text)) OPERATOR(pg_catalog.<) 8 \
    THEN pg_catalog.repeat('*', pg_catalog.length(CAST(\"phone\" AS pg_catalog.text))) \
    ELSE pg_catalog.regexp_replace(CAST(\"phone\" AS pg_catalog.text), '.(?=.{4})', '*', 'g') END AS \"pg_catalog\".\"text\") AS \"phone\", \
    \"ward\", \"admitted\" FROM \"public\".\"patients\"";

/// Texts in which relations give way; `{}` stands for the query over patients.
#[test]
fn a_relation_gives_way_wherever_it_is_read() {
    let catalog = catalog();
    let session = session(&catalog, |_| true);
    for (text, expected) in [
        ("SELECT p.* FROM patients p WHERE p.id < 6", "SELECT p.* FROM ({}) p WHERE p.id < 6"),
        ("SELECT mail FROM patients", "SELECT mail FROM ({}) AS \"patients\""),
        (
            "SELECT public.patients.mail FROM public.patients",
            "SELECT patients.mail FROM ({}) AS \"patients\"",
        ),
        ("/* é */ TABLE patients -- x", "/* é */ SELECT * FROM ({}) AS \"patients\" -- x"),
        (
            "SELECT 1 FROM visits v JOIN patients p ON p.id = v.patient_id WHERE p.phone LIKE '1%'",
            "SELECT 1 FROM visits v JOIN ({}) p ON p.id = v.patient_id WHERE p.phone LIKE '1%'",
        ),
        ("SELECT (SELECT max(mail) FROM patients)", "SELECT (SELECT max(mail) FROM ({}) AS \"patients\")"),
        (
            "WITH patients AS (SELECT mail FROM patients) SELECT * FROM patients",
            "WITH patients AS (SELECT mail FROM ({}) AS \"patients\") SELECT * FROM patients",
        ),
        (
            "SELECT line FROM memo UNION TABLE patients",
            "SELECT line FROM memo UNION SELECT * FROM ({}) AS \"patients\"",
        ),
        ("DECLARE c CURSOR FOR SELECT p FROM patients p", "DECLARE c CURSOR FOR SELECT p FROM ({}) p"),
        ("PREPARE q AS SELECT mail FROM patients", "PREPARE q AS SELECT mail FROM ({}) AS \"patients\""),
        ("EXPLAIN SELECT mail FROM patients x", "EXPLAIN SELECT mail FROM ({}) x"),
        ("COPY (SELECT p.mail FROM patients p) TO STDOUT", "COPY (SELECT p.mail FROM ({}) p) TO STDOUT"),
        (
            "INSERT INTO memo (line) SELECT mail FROM patients",
            "INSERT INTO memo (line) SELECT mail FROM ({}) AS \"patients\"",
        ),
        (
            "CREATE TEMP TABLE t AS SELECT mail FROM patients",
            "CREATE TEMP TABLE t AS SELECT mail FROM ({}) AS \"patients\"",
        ),
        (
            "SELECT 1; SELECT mail FROM patients; SELECT 2",
            "SELECT 1; SELECT mail FROM ({}) AS \"patients\"; SELECT 2",
        ),
        ("SELECT * FROM U&\"p\\0061tients\" p", "SELECT * FROM ({}) p"),
    ] {
        let analysis = session.analyze(text, &catalog);
        assert_eq!(unmask(&analysis), Vec::<String>::new(), "{text}");
        let sent = analysis.sent(text).unwrap_or_else(|| panic!("not masked: {text}"));
        assert_eq!(sent.text, expected.replace("{}", PATIENTS), "{text}");
        let masks: Vec<String> = analysis
            .statements
            .iter()
            .flat_map(|s| &s.meaning.masks)
            .map(|m| format!("{} {}", m.column, m.mask))
            .collect();
        assert_eq!(masks.len(), 3, "{text}: {masks:?}");
        // What it may do is decided on what the client wrote.
        assert!(
            analysis.statements.iter().any(|s| s
                .meaning
                .actions
                .iter()
                .any(|a| a.object.to_string() == "d/public.patients"))
        );
    }
    let only = session.analyze("SELECT 1 FROM ONLY (patients) p", &catalog);
    let only = only.sent("SELECT 1 FROM ONLY (patients) p").expect("it is masked").text;
    assert_eq!(
        only,
        format!("SELECT 1 FROM ({}) p", PATIENTS.replace("FROM \"public\"", "FROM ONLY \"public\""))
    );
    let copy = "COPY patients (id, mail) TO STDOUT WITH (FORMAT csv)";
    let sent = session.analyze(copy, &catalog).sent(copy).expect("it is masked").text;
    let query = PATIENTS.replace("FROM \"public\"", "FROM ONLY \"public\"");
    assert_eq!(
        sent,
        format!("COPY (SELECT \"id\", \"mail\" FROM ({query}) AS \"patients\") TO STDOUT WITH (FORMAT csv)")
    );
}

#[test]
fn a_view_gives_way_to_its_definition() {
    let catalog = catalog();
    let session = session(&catalog, |_| true);
    let text = "SELECT account FROM v_contact ORDER BY k";
    let analysis = session.analyze(text, &catalog);
    assert_eq!(unmask(&analysis), Vec::<String>::new());
    let sent = analysis.sent(text).expect("it is masked").text;
    assert!(sent.contains(&format!("({PATIENTS})")) && !sent.contains("v_contact ORDER"), "{sent}");
}

/// Another session may drop what a bare name stands for, and the catalog is read a moment late.
#[test]
fn a_bare_name_that_may_come_to_mean_more_is_sent_whole() {
    let catalog = catalog();
    let masking = Masking::new(sensitive(), |_| true);
    let search_path = Some("lab, public".to_owned());
    let session =
        Session::new(Start { database: "d".into(), role: "postgres".into(), search_path, masking }, &catalog);
    for (text, expected) in [
        ("SELECT patients.mail FROM patients", "SELECT patients.mail FROM \"lab\".\"patients\""),
        ("TABLE patients", "TABLE \"lab\".\"patients\""),
        ("COPY patients (mail) TO STDOUT", "COPY \"lab\".\"patients\" (mail) TO STDOUT"),
        (
            "UPDATE patients p SET mail = '' RETURNING *",
            "UPDATE \"lab\".\"patients\" p SET mail = '' RETURNING *",
        ),
    ] {
        let analysis = session.analyze(text, &catalog);
        assert_eq!(unmask(&analysis), Vec::<String>::new(), "{text}");
        assert_eq!(analysis.sent(text).expect("it is sent otherwise").text, expected);
    }
    for text in ["SELECT mail FROM lab.patients", "SELECT reason FROM visits"] {
        assert_eq!(session.analyze(text, &catalog).sent(text), None, "{text}");
    }
}

#[test]
fn what_holds_the_same_values_has_the_same_mask() {
    let copies = "## copies\n16469\tward\t16469\tphone\tt\n16481\treason\t16469\tmail\tf\n";
    let catalog = catalog_of(&CATALOG.replace("## copies\n", copies));
    let session = session(&catalog, |_| true);
    for (text, expected) in [
        (
            "SELECT reason FROM visits",
            "CAST('masked@masked.invalid' AS \"pg_catalog\".\"text\") AS \"reason\"",
        ),
        ("SELECT ward FROM patients", "CAST('[redacted]' AS \"pg_catalog\".\"text\") AS \"ward\""),
    ] {
        let sent = session.analyze(text, &catalog).sent(text).expect("it is masked").text;
        assert!(sent.contains(expected), "{sent}");
    }
}

#[test]
fn what_cannot_give_way_needs_permission() {
    let catalog = catalog();
    let session = session(&catalog, |_| true);
    let all = ["iban", "mail", "phone"];
    for text in [
        "SELECT mail_of(1)",
        "DO $$ BEGIN END $$",
        "SELECT query_to_xml('SELECT 1', false, false, '')",
        "SELECT * FROM pg_stats",
        "SELECT pg_read_file('x')",
        "SELECT 1 FROM patients TABLESAMPLE system (10)",
        "CREATE VIEW w AS SELECT mail FROM patients",
        "CREATE MATERIALIZED VIEW w AS SELECT mail FROM patients",
        "CREATE TABLE t (a text DEFAULT mail_of(1))",
        "ALTER TABLE visits ALTER reason SET DEFAULT mail_of(1)",
        "CREATE POLICY p ON visits USING (EXISTS (SELECT 1 FROM patients WHERE mail LIKE 'a%'))",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT mail FROM patients'",
        "ALTER TABLE patients RENAME TO others",
        "ALTER TABLE patients RENAME COLUMN mail TO others",
        "ALTER SCHEMA public RENAME TO others",
        "CLUSTER patients USING patients_mail_key",
        "UPDATE patients SET ward = 'x' WHERE mail LIKE 'a%'",
        "UPDATE patients SET full_name = mail",
        "DELETE FROM patients p WHERE (p).mail = 'a'",
        "DELETE FROM patients WHERE patients::text LIKE '%a%'",
        "DELETE FROM patients WHERE id = 1 RETURNING *",
        "UPDATE patients AS excluded SET ward = 'x' WHERE excluded.mail = 'a'",
        "INSERT INTO patients (full_name, mail, iban) VALUES ('a', 'b', 'c') RETURNING patients",
        "INSERT INTO patients (mail) VALUES ('a') ON CONFLICT (mail) DO UPDATE SET ward = patients.mail",
        "WITH x AS (DELETE FROM patients RETURNING mail) SELECT * FROM x",
        "MERGE INTO patients p USING visits v ON p.mail = v.reason WHEN MATCHED THEN DELETE",
        "no SQL at all",
        "UPDATE v_contact SET account = 'x' WHERE address = 'a'",
        "SELECT x FROM xmltable('/' PASSING (SELECT query_to_xml('TABLE patients', true, true, '')) COLUMNS x text)",
    ] {
        let analysis = session.analyze(text, &catalog);
        assert!(!unmask(&analysis).is_empty(), "{text}");
        assert!(unmask(&analysis).iter().all(|column| all.contains(&column.as_str())), "{text}");
        assert_eq!(analysis.sent(text), None, "{text}");
    }
}

#[test]
fn writing_without_looking_stays_as_it_is() {
    let catalog = catalog();
    let session = session(&catalog, |_| true);
    for text in [
        "INSERT INTO patients (full_name, mail, iban) VALUES ('a', 'b', 'c') RETURNING id",
        "INSERT INTO patients (mail) SELECT reason FROM visits",
        "INSERT INTO patients (mail) VALUES ('a') ON CONFLICT (mail) DO UPDATE SET mail = excluded.mail",
        "UPDATE patients SET mail = 'x' WHERE id = 1 RETURNING patients.ward",
        "DELETE FROM patients p WHERE p.id IN (SELECT patient_id FROM visits)",
        "COPY patients (mail) FROM STDIN",
        "SELECT mail FROM lab.patients",
        "SELECT nextval('badge_seq')",
        "CREATE TEMP TABLE t (a int DEFAULT 0, b timestamptz DEFAULT now())",
        "CREATE INDEX ON visits (reason)",
    ] {
        let analysis = session.analyze(text, &catalog);
        assert_eq!(unmask(&analysis), Vec::<String>::new(), "{text}");
        assert_eq!(analysis.sent(text), None, "{text}");
    }
}

/// The key is the upstream's; whoever could call the function could try values.
#[test]
fn a_hash_is_made_by_a_function_that_the_session_cannot_call() {
    let column = Sensitive {
        schema: "public".into(),
        table: "patients".into(),
        column: "mail".into(),
        mask: Mask::Hash,
    };
    let masking = Masking::new([column].into(), |_| true);
    let catalog = catalog();
    let start = Start { database: "d".into(), role: "app".into(), search_path: None, masking };
    let session = Session::new(start, &catalog);
    let text = "SELECT mail FROM patients";
    let analysis = session.analyze(text, &catalog);
    assert_eq!(unmask(&analysis), Vec::<String>::new());
    let sent = analysis.sent(text).expect("it is masked").text;
    assert!(sent.contains("CAST(gatebook.pseudonym(CAST(\"mail\" AS pg_catalog.text)) AS"), "{sent}");
    let guess = session.analyze("SELECT id FROM patients WHERE mail = gatebook.pseudonym('a')", &catalog);
    assert_eq!(unmask(&guess), ["mail"]);
}

#[test]
fn a_session_that_may_see_a_column_is_recorded_to_have_asked_for_it() {
    let catalog = catalog();
    let session = session(&catalog, |column| &*column.column != "mail");
    let text = "SELECT mail, iban FROM patients";
    let analysis = session.analyze(text, &catalog);
    assert_eq!(unmask(&analysis), ["mail"]);
    let sent = analysis.sent(text).expect("the others are masked").text;
    assert!(sent.contains("\"full_name\", \"mail\", CAST("), "{sent}");
}

/// Found by reading: the server plans a prepared statement anew once the search path is another, and then the name stands for the
/// table that was not masked when it was sent.
#[test]
fn a_prepared_statement_that_would_be_sent_otherwise_now_needs_permission() {
    let catalog = catalog();
    let mut session = session(&catalog, |_| true);
    let run = |session: &mut Session, text: &str| {
        for statement in &session.analyze(text, &catalog).statements {
            let sent = session.sent(statement);
            session.ended(sent, true);
        }
        session.ready(Transaction::Idle);
    };
    run(&mut session, "SET search_path = lab");
    let text = "SELECT mail FROM patients";
    let whole = "SELECT mail FROM \"lab\".\"patients\"";
    assert_eq!(session.analyze(text, &catalog).sent(text).expect("it is sent whole").text, whole);
    let sent = session.prepare_sent("p", text, &[], Some(whole));
    session.ended(sent, true);
    run(&mut session, "PREPARE q AS SELECT mail FROM patients");
    assert_eq!(unmask(&session.prepared("p", &catalog)), Vec::<String>::new());
    run(&mut session, "SET search_path = public");
    assert_eq!(unmask(&session.prepared("p", &catalog)), ["iban", "mail", "phone"]);
    assert_eq!(unmask(&session.analyze("EXECUTE q", &catalog)), ["iban", "mail", "phone"]);
    run(&mut session, "PREPARE masked AS SELECT mail FROM patients");
    let execute = session.analyze("EXECUTE masked", &catalog);
    assert_eq!(unmask(&execute), Vec::<String>::new());
    assert_eq!(execute.statements[0].meaning.masks.len(), 3);
}

#[test]
fn a_place_in_what_was_sent_is_told_as_one_in_what_was_asked() {
    let catalog = catalog();
    let session = session(&catalog, |_| true);
    let text = "SELECT 'é', nothing FROM patients p, patients q WHERE wrong = 1";
    let sent = session.analyze(text, &catalog).sent(text).expect("it is masked");
    for word in ["nothing", "wrong", "SELECT 'é'", " q WHERE"] {
        let character = |text: &str| text[..text.find(word).expect("it is there")].chars().count() + 1;
        assert_eq!(sent.character(character(&sent.text)), character(text), "{word}");
    }
    let inside = sent.text[..sent.text.find("full_name").expect("it is there")].chars().count() + 1;
    assert_eq!(
        sent.character(inside),
        text[..text.find("patients p").expect("it is there")].chars().count() + 1
    );
}

/// Statements of other sessions, with the values in them, were there for a masked session to read.
#[test]
fn what_others_run_is_shown_to_who_may_see_in_clear() {
    let catalog = catalog();
    let masked = session(&catalog, |_| true);
    for (text, needs) in [
        ("SELECT count(*) FROM pg_stat_activity WHERE state = 'active'", false),
        ("SELECT pid, state FROM pg_stat_activity a JOIN pg_database d ON datid = oid", false),
        ("SELECT query FROM pg_stat_activity", true),
        ("SELECT * FROM pg_catalog.pg_stat_activity", true),
        ("SELECT x.q FROM (SELECT a.query AS q FROM pg_stat_activity a) x", true),
        ("SELECT a FROM pg_stat_activity a", true),
        ("SELECT pg_stat_activity::text FROM pg_stat_activity", true),
        ("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'x%'", true),
        ("SELECT 1 FROM pg_stat_activity NATURAL JOIN (VALUES ('x')) v(query)", true),
        ("SELECT 1 FROM pg_stat_activity JOIN (VALUES ('x')) v(query) USING (query)", true),
        ("SELECT 1 FROM pg_stat_activity JOIN (VALUES (1)) v(pid) USING (pid)", false),
        ("SELECT c FROM pg_stat_activity AS a(b, c)", true),
        ("COPY (TABLE pg_stat_activity) TO STDOUT", true),
        ("UPDATE memo SET line = a.query FROM pg_stat_activity a", true),
    ] {
        assert_eq!(!unmask(&masked.analyze(text, &catalog)).is_empty(), needs, "{text}");
        let clear = session(&catalog, |_| false);
        assert!(unmask(&clear.analyze(text, &catalog)).is_empty(), "{text}");
    }
}

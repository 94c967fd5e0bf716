//! What statements want, judged through the public door against a catalog that a real PostgreSQL 15 server gave.

use std::fmt::Write as _;
use std::sync::Arc;

use gatebook_wire::action::Effect;
use gatebook_wire::sql::{CATALOG_QUERIES, Catalog, Rows, Session, Start, Statement};

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
    Catalog::from_rows(queries).expect("a catalog")
}

fn value(text: &str) -> Option<String> {
    let plain = || text.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\");
    (text != "\\N").then(plain)
}

fn catalog() -> Catalog {
    catalog_of(include_str!("sql/catalog15.tsv"))
}

fn session(catalog: &Catalog) -> Session {
    session_of("app", catalog)
}

fn session_of(role: &str, catalog: &Catalog) -> Session {
    Session::new(Start { database: Arc::from("fixture"), role: Arc::from(role), search_path: None }, catalog)
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

//! The differential oracle: what the analysis calls a mere read is run on a real server in a read-only transaction, and must
//! neither be refused there nor leave a trace.
//!
//! A read-only transaction lets pass what changes no table of it: sequences, advisory locks, other backends, files, settings. So the server's state
//! is compared before and after, too.
//!
//! What a newcomer gets wrong: each statement is then run again as it is, since the next ones build upon it.

use std::sync::Arc;

use gatebook_wire::action::{Effect, Verb};
use gatebook_wire::protocol::Meaning;
use gatebook_wire::sql::{
    CATALOG_QUERIES, CATALOG_SETUP, Catalog, Masking, Rows, Session, Start, Transaction,
};

use gatebook_tests::machine::{ANSWER_MAX, until};
use gatebook_tests::wire::{self, Client, Message, copy_data, copy_done, frame, query};

/// What a read must leave as it was, in one text.
const STATE: &str = "SELECT concat_ws('|', \
    (SELECT count(*) || '/' || coalesce(sum(last_value), 0) FROM pg_catalog.pg_sequences), \
    (SELECT pg_catalog.md5(coalesce(string_agg(concat_ws('=', name, setting), ',' ORDER BY seqno), '')) FROM pg_catalog.pg_file_settings), \
    (SELECT coalesce(string_agg(s::text, ',' ORDER BY s::text), '') FROM pg_catalog.pg_db_role_setting s), \
    (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'), \
    (SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), '') FROM pg_catalog.pg_replication_slots), \
    (SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory'), \
    (SELECT pg_catalog.string_agg(name, ',' ORDER BY name) FROM pg_catalog.pg_ls_dir('.') AS f(name) WHERE name !~ '^(pg_internal|core|postmaster)'), \
    (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata), \
    (SELECT count(*) FROM pg_catalog.pg_prepared_xacts))";

/// How many clients there are.
const CLIENTS: &str =
    "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'";

/// SQLSTATE of what a read-only transaction refuses.
const READ_ONLY_TRANSACTION: &str = "25006";

/// How often the catalog is read anew for one script at most: it is what takes the time.
const CATALOGS_MAX: u32 = 40;

/// Opens a connection as the superuser of one database.
pub(crate) type Connect<'a> = dyn Fn() -> Client + 'a;

/// What an oracle has seen.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Statements that were read.
    pub(crate) statements: u64,
    /// Those that were called reads and run in a read-only transaction.
    pub(crate) reads: u64,
    /// What was called a read and is none: the statement, and what it did.
    pub(crate) wrong: Vec<String>,
}

/// Runs scripts against a database.
pub(crate) struct Oracle<'a> {
    connect: &'a Connect<'a>,
    database: Arc<str>,
    watcher: Client,
    /// How many clients there are while no script runs.
    clients: String,
    /// The catalog as it was last read, where nothing has changed definitions since.
    known: Option<Catalog>,
    /// For a test of the oracle: every statement is called a read.
    pub(crate) believes_everything: bool,
    /// What was found.
    pub(crate) findings: Findings,
}

/// One script on its way.
struct Script {
    client: Client,
    session: Session,
    catalog: Catalog,
    /// Whether definitions may have changed since the catalog was read.
    stale: bool,
    catalogs: u32,
    status: u8,
}

impl<'a> Oracle<'a> {
    /// An oracle over a database.
    #[must_use]
    pub(crate) fn new(database: &str, connect: &'a Connect<'a>) -> Oracle<'a> {
        let mut watcher = connect();
        let clients = told(&mut watcher, CLIENTS);
        Oracle {
            connect,
            database: database.into(),
            watcher,
            clients,
            known: None,
            believes_everything: false,
            findings: Findings::default(),
        }
    }

    /// Runs a script as psql would, without its own commands.
    ///
    /// # Panics
    /// When the catalog cannot be read.
    pub(crate) fn script(&mut self, text: &str) {
        let catalog = self.known.take().unwrap_or_else(|| read_catalog(&mut self.watcher));
        let start = Start {
            database: self.database.clone(),
            role: "postgres".into(),
            search_path: None,
            masking: Masking::default(),
        };
        let session = Session::new(start, &catalog);
        // The server takes its time to see off the client of the script before.
        until("end of the last script's client", ANSWER_MAX, || {
            (told(&mut self.watcher, CLIENTS) == self.clients).then_some(())
        });
        let client = (self.connect)();
        let mut script = Script { client, session, catalog, stale: false, catalogs: 0, status: b'I' };
        for (statement, data) in statements(text) {
            if !self.statement(&mut script, &statement, data.as_deref()) {
                return;
            }
        }
        self.known = (!script.stale).then_some(script.catalog);
    }

    /// Runs one statement; false when the connection is gone.
    fn statement(&mut self, script: &mut Script, text: &str, data: Option<&str>) -> bool {
        self.findings.statements += 1;
        let mut analysis = script.session.analyze(text, &script.catalog);
        let reads = |analysis: &gatebook_wire::sql::Analysis| {
            analysis.statements.len() == 1
                && analysis.statements.iter().all(|statement| statement.meaning.effect == Effect::Reads)
        };
        if script.stale && !reads(&analysis) && queries(text) && script.catalogs < CATALOGS_MAX {
            script.catalogs += 1;
            let newer = read_catalog(&mut self.watcher).succeeding(&script.catalog);
            script.catalog = newer.confirmed().confirmed().confirmed();
            script.stale = false;
            analysis = script.session.analyze(text, &script.catalog);
        }
        let is_read = reads(&analysis) || self.believes_everything;
        let kind = analysis.statements.first().map_or("", |statement| &statement.meaning.facts.kind);
        if is_read && !steers(kind) && script.status != b'E' && data.is_none() {
            self.findings.reads += 1;
            let before = self.state();
            let (begin, end) = match script.status {
                b'I' => ("BEGIN READ ONLY", "ROLLBACK"),
                _ => (
                    "SAVEPOINT gatebook_oracle; SET LOCAL transaction_read_only = on",
                    "ROLLBACK TO gatebook_oracle; RELEASE gatebook_oracle",
                ),
            };
            let Some(_) = ask(&mut script.client, &query(begin)) else { return false };
            let Some(told) = ask(&mut script.client, &query(text)) else { return false };
            let Some(_) = ask(&mut script.client, &query(end)) else { return false };
            let refused =
                told.iter().filter_map(Message::report).any(|report| report.code == READ_ONLY_TRANSACTION);
            let after = self.state();
            if refused {
                self.findings.wrong.push(format!("refused as a write: {text}"));
            } else if before != after {
                self.findings
                    .wrong
                    .push(format!("left a trace: {text}\n  before {before}\n  after  {after}"));
            }
        }
        let sent: Vec<_> =
            analysis.statements.iter().map(|statement| script.session.sent(statement)).collect();
        let mut frames = query(text);
        if let Some(data) = data {
            frames.extend([copy_data(data), copy_done()].concat());
        }
        let Some(told) = ask(&mut script.client, &frames) else { return false };
        let failed = told.iter().any(|message| message.tag == b'E');
        for sent in sent {
            script.session.ended(sent, !failed);
        }
        if failed {
            script.session.failed();
        }
        for message in told.iter().filter(|message| message.tag == b'S') {
            let mut parts = message.body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
            if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                script.session.parameter_status(&name, &value);
            }
        }
        script.status = told.last().and_then(|message| message.body.first().copied()).unwrap_or(b'I');
        script.session.ready(match script.status {
            b'I' => Transaction::Idle,
            b'T' => Transaction::Open,
            _ => Transaction::Failed,
        });
        script.stale |= analysis.statements.iter().any(|statement| defines(&statement.meaning));
        true
    }

    fn state(&mut self) -> String {
        told(&mut self.watcher, STATE)
    }
}

/// The one row that a query of ours shows.
fn told(client: &mut Client, sql: &str) -> String {
    let told = ask(client, &query(sql)).expect("the server is there");
    let row = told.iter().find(|message| message.tag == b'D');
    row.map_or_else(|| panic!("{told:?}"), |row| wire::cells(&row.body).concat())
}

/// Whether it may have changed definitions.
fn defines(meaning: &Meaning) -> bool {
    let defines = [Verb::Create, Verb::Alter, Verb::Drop, Verb::Administer, Verb::Call, Verb::Opaque];
    meaning.actions.iter().any(|action| defines.contains(&action.verb))
}

/// Whether the statement may be worth a newer catalog.
fn queries(text: &str) -> bool {
    let text = text.trim_start().trim_start_matches('(');
    let word: String = text.chars().take_while(char::is_ascii_alphabetic).collect();
    ["select", "with", "values", "table", "explain", "copy"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known))
}

/// What steers the session or its transaction is no read of anything.
fn steers(kind: &str) -> bool {
    let kinds = [
        "begin",
        "commit",
        "rollback",
        "savepoint",
        "release",
        "rollback_to",
        "set",
        "reset",
        "prepare",
        "deallocate",
        "declare",
        "close",
        "fetch",
        "move",
        "discard",
    ];
    kinds.contains(&kind)
}

/// Sends, and receives up to ReadyForQuery; none when the connection is gone.
fn ask(client: &mut Client, frames: &[u8]) -> Option<Vec<Message>> {
    client.send(frames).ok()?;
    let first =
        frames.first_chunk::<5>().map_or(0, |head| u32::from_be_bytes([head[1], head[2], head[3], head[4]]));
    let has_data = frames.len() > first as usize + 1;
    let mut told = Vec::new();
    loop {
        let message = client.receive().ok()??;
        let tag = message.tag;
        told.push(message);
        match tag {
            b'Z' => return Some(told),
            b'G' if !has_data => {
                client.send(&frame(b'f', b"no data\0")).ok()?;
            }
            _ => {}
        }
    }
}

/// Reads a catalog as a gateway does.
fn read_catalog(client: &mut Client) -> Catalog {
    let run = |client: &mut Client, sql: &str| -> Rows {
        let told = ask(client, &query(sql)).expect("the server is there");
        let failed = told.iter().find_map(|message| message.report().filter(|_| message.tag == b'E'));
        assert_eq!(failed, None, "{sql}");
        told.iter().filter(|message| message.tag == b'D').map(|row| values(&row.body)).collect()
    };
    run(client, "DISCARD ALL");
    run(client, CATALOG_SETUP);
    run(client, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    let rows = CATALOG_QUERIES.iter().map(|catalog_query| run(client, catalog_query.sql)).collect();
    run(client, "COMMIT");
    Catalog::from_rows(rows, &[]).expect("a catalog")
}

fn values(body: &[u8]) -> Vec<Option<String>> {
    let mut values = Vec::new();
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let (value, next) = after.split_at(length.unwrap_or(0));
        values.push(length.map(|_| String::from_utf8_lossy(value).into_owned()));
        rest = next;
    }
    values
}

/// The statements of a psql script, each with the data that follow it. psql's own commands are left out.
fn statements(text: &str) -> Vec<(String, Option<String>)> {
    let mut statements = Vec::new();
    let mut statement = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if statement.trim().is_empty() && line.trim_start().starts_with('\\') {
            statement.clear();
            continue;
        }
        // What psql would send its buffer for.
        let line = line.split_once(" \\g").map_or(line, |(before, _)| before);
        statement.push_str(line);
        statement.push('\n');
        if !is_whole(&statement) {
            continue;
        }
        let whole = std::mem::take(&mut statement);
        let words = whole.to_ascii_lowercase();
        let copies = words.trim_start().starts_with("copy") && words.contains("from stdin");
        let data = copies.then(|| {
            lines.by_ref().take_while(|line| *line != "\\.").map(|line| format!("{line}\n")).collect()
        });
        statements.push((whole, data));
    }
    statements
}

/// Whether psql would send what has been read: it ends with a semicolon outside of quotes, comments and brackets.
fn is_whole(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut ended) = (0, 0_i32, false);
    while at < bytes.len() {
        let rest = &text[at..];
        let skip = |end: &str, from: usize| rest[from..].find(end).map(|found| from + found + end.len());
        let next = match bytes[at] {
            b'\'' | b'"' => {
                let escapes = bytes[at] == b'\'' && at > 0 && matches!(bytes[at - 1], b'e' | b'E');
                let quote = bytes[at];
                let mut end = at + 1;
                loop {
                    match bytes.get(end) {
                        None => return false,
                        Some(b'\\') if escapes => end += 2,
                        Some(byte) if *byte == quote => break,
                        Some(_) => end += 1,
                    }
                }
                Some(end + 1 - at)
            }
            b'-' if rest.starts_with("--") => Some(rest.find('\n').unwrap_or(rest.len())),
            b'/' if rest.starts_with("/*") => skip("*/", 2),
            b'$' => {
                let tag: String =
                    rest[1..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if rest[1 + tag.len()..].starts_with('$') && !tag.starts_with(|c: char| c.is_ascii_digit()) {
                    let quote = format!("${tag}$");
                    skip(&quote, quote.len())
                } else {
                    Some(1)
                }
            }
            byte => {
                depth += i32::from(byte == b'(') - i32::from(byte == b')');
                if byte == b';' && depth <= 0 {
                    ended = true;
                } else if !byte.is_ascii_whitespace() {
                    ended = false;
                }
                Some(rest.chars().next().map_or(1, char::len_utf8))
            }
        };
        let Some(next) = next else { return false };
        at += next;
    }
    // A function's body in SQL holds semicolons of its own.
    let words = text.to_ascii_lowercase();
    ended && (!words.contains("begin atomic") || words.trim_end().ends_with("end;"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_taken_apart_as_psql_does() {
        let script = "\\set x 1\nSELECT ';' -- ;\n, $a$;$a$;\nCOPY t FROM STDIN;\n1\n\\.\nSELECT E'\\';'\n;\n/* ;\n*/ TABLE t;\n";
        let found = statements(script);
        let texts: Vec<&str> = found.iter().map(|(text, _)| text.trim()).collect();
        assert_eq!(
            texts,
            ["SELECT ';' -- ;\n, $a$;$a$;", "COPY t FROM STDIN;", "SELECT E'\\';'\n;", "/* ;\n*/ TABLE t;"]
        );
        assert_eq!(found[1].1.as_deref(), Some("1\n"));
    }
}

//! Unmodified clients see the same through the gateway as directly, and everything that they execute is in the ledger
//! exactly once, in order, with its parameters.
//!
//! There are three witnesses: what the client saw (its transcript), what the server executed (its own log), and
//! the ledger. The ledger is held against the server's log, which knows nothing of it.

use std::collections::BTreeMap;

use gatebook_tests::World;
use gatebook_tests::driver::Driver;
use gatebook_tests::gateway::PERMIT_ALL;
use gatebook_tests::ledger::Command;
use gatebook_tests::postgres::{APP, APP_PASSWORD, Executed};

/// What one connection executed, in order.
type Conversation = Vec<Executed>;

/// The server's log by connection, in the order in which connections first executed anything.
fn conversations(executed: Vec<Executed>) -> Vec<Conversation> {
    let mut order = Vec::new();
    let mut by_backend: BTreeMap<u32, Conversation> = BTreeMap::new();
    for one in executed {
        let conversation = by_backend.entry(one.backend).or_default();
        if conversation.is_empty() {
            order.push(one.backend);
        }
        conversation.push(one);
    }
    order.iter().filter_map(|backend| by_backend.remove(backend)).collect()
}

/// What a conversation executed, without what differs from one connection to the next.
fn said(conversations: &[Conversation]) -> Vec<Vec<(String, Option<String>)>> {
    let one = |executed: &Executed| (executed.text.clone(), executed.parameters.clone());
    conversations.iter().map(|conversation| conversation.iter().map(one).collect()).collect()
}

/// The values in `$1 = '4', $2 = NULL`.
fn parameters(spelled: &str) -> Vec<Option<String>> {
    let mut values = Vec::new();
    let mut rest = spelled;
    while let Some((_, after)) = rest.split_once(" = ") {
        let Some(quoted) = after.strip_prefix('\'') else {
            values.push(None);
            rest = after.strip_prefix("NULL").unwrap_or(after);
            continue;
        };
        let (mut value, mut at) = (String::new(), quoted);
        loop {
            let (part, next) = quoted_part(at);
            value.push_str(part);
            match next.strip_prefix("''") {
                Some(more) => {
                    value.push('\'');
                    at = more;
                }
                None => {
                    rest = next.get(1..).unwrap_or_default();
                    break;
                }
            }
        }
        values.push(Some(value));
    }
    values
}

fn quoted_part(text: &str) -> (&str, &str) {
    text.split_at(text.find('\'').unwrap_or(text.len()))
}

/// The commands of the ledger that ran, by session, in order.
fn ran(commands: Vec<Command>) -> Vec<Vec<Command>> {
    let mut sessions: BTreeMap<u64, Vec<Command>> = BTreeMap::new();
    for command in commands {
        let never_ran = matches!(command.ending.as_deref(), Some("skipped" | "refused"));
        if command.phase == "execute" && !never_ran {
            sessions.entry(command.session).or_default().push(command);
        }
    }
    sessions.into_values().collect()
}

/// Holds one session of the ledger against what the server says of one connection.
fn compare(driver: Driver, executed: &[Executed], commands: &[Command]) {
    let mut commands = commands.iter().peekable();
    // What fails before it runs (it does not parse) was decided and recorded, and the server does not log it.
    let never_began = |command: &Command, text: &str| {
        command.ending.as_deref() == Some("failed") && !text.contains(command.statement.trim())
    };
    for one in executed {
        while commands.next_if(|command| never_began(command, &one.text)).is_some() {}
        let command =
            commands.next().unwrap_or_else(|| panic!("{driver:?}: executed and not recorded: {one:?}"));
        // The server logs a string of several statements once; the ledger holds each of them.
        let mut covered = command.statement.trim().len();
        assert!(
            one.text.trim() == command.statement.trim() || one.text.contains(command.statement.trim()),
            "{driver:?}: executed {one:?}, recorded {command:?}"
        );
        while covered < one.text.trim().len()
            && commands.peek().is_some_and(|next| {
                one.text.contains(next.statement.trim())
                    && next.statement.trim() != one.text.trim()
                    && !next.statement.trim().is_empty()
            })
        {
            covered += commands.next().map_or(0, |next| next.statement.trim().len() + 1);
        }
        let spelled = one.parameters.as_deref().map(parameters).unwrap_or_default();
        // EXECUTE of SQL has its values in its text; the server lists none of its own.
        if !one.continued && one.parameters.is_some() {
            assert_eq!(command.parameters.len(), spelled.len(), "{driver:?}: {one:?} {command:?}");
            for (recorded, spelled) in command.parameters.iter().zip(&spelled) {
                assert!(
                    recorded.is(spelled.as_deref()),
                    "{driver:?}: {recorded:?} is not {spelled:?} in {one:?}"
                );
            }
        }
    }
    let more: Vec<_> = commands.filter(|command| !never_began(command, "")).collect();
    assert!(more.is_empty(), "{driver:?}: recorded and never executed: {more:?}");
}

fn check(name: &'static str, modes: &[&'static str]) {
    let mut world = World::new(PERMIT_ALL);
    let directly = world.postgres.environment(APP, APP_PASSWORD);
    let through = world.gateway.environment(&world.token());
    let mut before = 0;
    let mut all = Vec::new();
    for driver in modes.iter().map(|mode| Driver { name, mode }) {
        let seen_directly = driver.run(&directly);
        let executed = world.postgres.executed(APP);
        let direct = conversations(executed[before..].to_vec());
        before = executed.len();
        let seen_through = driver.run(&through);
        let executed = world.postgres.executed(APP);
        let passed = conversations(executed[before..].to_vec());
        before = executed.len();
        assert_eq!(seen_directly, seen_through, "{driver:?}: the client sees a difference");
        assert_eq!(said(&direct), said(&passed), "{driver:?}: the server sees a difference");
        all.push((driver, passed));
    }
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let mut sessions = ran(ledger.commands()).into_iter();
    for (driver, passed) in all {
        for conversation in passed {
            let session = sessions.next().unwrap_or_else(|| panic!("{driver:?}: a session is missing"));
            compare(driver, &conversation, &session);
        }
    }
    assert!(sessions.next().is_none(), "a session too many");
}

#[test]
fn psql_sees_no_difference_and_is_recorded_whole() {
    check("psql", &["plain"]);
}

#[test]
fn psycopg_sees_no_difference_and_is_recorded_whole() {
    check("psycopg", &["text", "binary", "pipeline"]);
}

#[test]
fn asyncpg_sees_no_difference_and_is_recorded_whole() {
    check("asyncpg", &["cached", "uncached"]);
}

#[test]
fn node_postgres_sees_no_difference_and_is_recorded_whole() {
    check("node", &["text", "binary"]);
}

#[test]
fn jdbc_sees_no_difference_and_is_recorded_whole() {
    check("jdbc", &["simple", "extended", "extendedForPrepared", "extendedCacheEverything"]);
}

#[test]
fn tokio_postgres_sees_no_difference_and_is_recorded_whole() {
    check("tokio-postgres", &["extended", "simple"]);
}

/// Each tag of the script was executed directly, so that the comparison compares something.
#[test]
fn the_script_reaches_the_server_statement_by_statement() {
    let postgres = gatebook_tests::Postgres::logging();
    let driver = Driver { name: "psql", mode: "plain" };
    let _ = driver.run(&postgres.environment(APP, APP_PASSWORD));
    let all: String = postgres.executed(APP).into_iter().map(|one| one.text + "\n").collect();
    let missing: Vec<String> =
        gatebook_tests::driver::script().1.into_iter().filter(|tag| !all.contains(tag)).collect();
    // What does not parse is not logged as a statement.
    assert_eq!(missing, ["/* g17 */"]);
}

#[test]
fn spelled_parameters_are_read_back() {
    let spelled = "$1 = '4', $2 = NULL, $3 = 'it''s, $4 = ''x''', $4 = ''";
    let expected = [Some("4"), None, Some("it's, $4 = 'x'"), Some("")];
    assert_eq!(parameters(spelled), expected.map(|value| value.map(str::to_owned)));
}

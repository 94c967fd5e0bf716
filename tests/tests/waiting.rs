//! Unmodified clients whose statement waits for approval: psql, psycopg, JDBC. Each gets its answer, may cancel, and may leave.

use std::process::Command;

use gatebook_tests::approvals::{approve, insert, policies, rows, state, waiting};
use gatebook_tests::machine::{self, ANSWER_MAX, until};
use gatebook_tests::{Child, World};
use rustix::process::Signal;
use serde_json::Value;
use std::time::Duration;

/// How long a client waits in the nightly run, where patience is tried: longer than any usual timeout between two notices.
const PATIENCE: Duration = Duration::from_secs(31);

fn world() -> World {
    World::new(&policies("@requires_approval(\"dba\")"))
}

/// Starts a client whose statement waits.
fn client(world: &World, name: &str, mode: &str) -> Child {
    let programs = machine::tests_folder().join("drivers/approval");
    let mut command = match name {
        "psql" => {
            let mut command = machine::mortal(&machine::program("psql"));
            command.args(["-X", "-v", "VERBOSITY=verbose", "-c", &insert(1), "-c", "SELECT 'after ' || 7"]);
            command
        }
        "psycopg" => {
            let mut command = machine::mortal(&machine::cache().join("python/bin/python"));
            command.arg(programs.join("wait.py")).arg(mode);
            command
        }
        _ => {
            let mut command = machine::mortal(&machine::program("java"));
            let classes =
                format!("{}:/usr/share/java/postgresql.jar", machine::cache().join("java").display());
            command.args(["-XX:TieredStopAtLevel=1", "-cp", &classes, "Wait", mode]);
            command
        }
    };
    world.gateway.environment(&world.token()).apply(&mut command);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Child::start(name, command)
}

const CLIENTS: [&str; 3] = ["psql", "psycopg", "jdbc"];

fn ended(world: &World, request: &Value, how: &str) {
    let id = request["id"].as_str().expect("an id");
    until("end of the request", ANSWER_MAX, || (state(world, id) == how).then_some(()));
}

#[test]
fn a_client_waits_and_gets_its_answer() {
    for name in CLIENTS {
        let world = world();
        let mut client = client(&world, name, "wait");
        let request = waiting(&world);
        if std::env::var_os("GATEBOOK_NIGHTLY").is_some() {
            let asked = request["asked_s"].as_u64().expect("a time");
            until("end of patience", PATIENCE * 2, || {
                (gatebook_tests::issuer::now() > asked + PATIENCE.as_secs()).then_some(())
            });
        }
        if name != "jdbc" {
            client.line("waiting for approval by dba", ANSWER_MAX);
        }
        assert_eq!(rows(&world), "", "{name}");
        approve(&world, &request);
        client.line("INSERT", ANSWER_MAX);
        client.line("after 7", ANSWER_MAX);
        assert!(client.wait(ANSWER_MAX).success(), "{name}");
        assert_eq!(rows(&world), "1", "{name}");
        ended(&world, &request, "used");
    }
}

#[test]
fn a_client_that_cancels_goes_on_without_it() {
    for name in CLIENTS {
        let world = world();
        let mut client = client(&world, name, "cancel");
        // psycopg cancels as soon as it is told, so that the request may be over already.
        let request = match name {
            "psycopg" => Value::Null,
            _ => waiting(&world),
        };
        match name {
            "psql" => client.signal(Signal::INT),
            "jdbc" => client.write("\n"),
            _ => {}
        }
        client.line("57014", ANSWER_MAX);
        if name != "psql" {
            client.line("after 7", ANSWER_MAX);
        }
        client.wait(ANSWER_MAX);
        if !request.is_null() {
            ended(&world, &request, "cancelled");
        }
        assert_eq!(rows(&world), "", "{name}");
    }
}

#[test]
fn a_client_that_leaves_has_asked_for_nothing() {
    for name in CLIENTS {
        let world = world();
        let mut client = client(&world, name, "leave");
        let request = match name {
            "psycopg" => Value::Null,
            _ => waiting(&world),
        };
        match name {
            "psql" => client.kill(),
            "jdbc" => client.write("\n"),
            _ => {}
        }
        client.wait(ANSWER_MAX);
        if request.is_null() {
            until("end of the request", ANSWER_MAX, || {
                let known = gatebook_tests::approvals::known(&world);
                known.iter().any(|request| request["state"] == "client_left").then_some(())
            });
        } else {
            ended(&world, &request, "client_left");
        }
        assert_eq!(rows(&world), "", "{name}");
    }
}

/// The program's own listing is for a terminal: what a caller wrote does nothing there.
#[test]
fn a_hostile_statement_is_only_text_in_the_list() {
    let world = world();
    let mut command = machine::mortal(&machine::program("psql"));
    let hostile = format!("/* \u{1b}[2J\u{1b}]0;owned\u{7} \u{202e}live\r\nREQUEST */ {}", insert(1));
    command.args(["-X", "-c", &hostile]);
    world.gateway.environment(&world.token()).apply(&mut command);
    let _client = Child::start("psql", command);
    let request = waiting(&world);
    let id = request["id"].as_str().expect("an id");
    for arguments in [vec!["ls"], vec!["show", id]] {
        let mut command: Command =
            gatebook_tests::approvals::approvals(&world.gateway, arguments[0], &arguments[1..]);
        let said = machine::run(&mut command);
        assert!(said.contains(id) && said.contains("INSERT INTO journal"), "{said:?}");
        let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!said.contains(obeyed), "{said:?}");
    }
    assert_eq!(request["commands"][0]["statement"], hostile);
}

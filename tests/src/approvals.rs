//! Requests for approval as those see them who are asked: through the program, with a token.

use std::process::{Command, Output};

use serde_json::Value;

use crate::gateway::PERMIT_ALL;
use crate::machine::{self, ANSWER_MAX, until};
use crate::{Gateway, World};

/// One who may approve, in the tests: her name and her groups.
pub const DANA: (&str, &[&str]) = ("dana", &["dba"]);

/// Everything is permitted, and changes of the journal under these annotations.
#[must_use]
pub fn policies(annotations: &str) -> String {
    format!(
        "{PERMIT_ALL}{annotations}\n\
         permit (principal, action in Action::\"write\", resource in Table::\"orders-db/orders/public.journal\");\n"
    )
}

/// A change of the journal.
#[must_use]
pub fn insert(id: u32) -> String {
    format!("INSERT INTO journal (id, worker, body) VALUES ({id}, 0, 'x')")
}

/// What the journal holds.
#[must_use]
pub fn rows(world: &World) -> String {
    world.postgres.admin("SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM journal")
}

/// `gatebook approvals`, with this gateway's configuration and nobody's token.
#[must_use]
pub fn approvals(gateway: &Gateway, verb: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(machine::binary("gatebook"));
    command.args(["approvals", verb, "--config"]).arg(gateway.folder().join("gatebook.toml")).args(arguments);
    command.env("NO_COLOR", "1").env_remove("GATEBOOK_TOKEN");
    command
}

/// The same over HTTPS, with a token for the gateway's own server and nobody's configuration.
#[must_use]
pub fn approvals_from_afar(gateway: &Gateway, token: &str, verb: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(machine::binary("gatebook"));
    let url = format!("https://localhost:{}", gateway.admin().port());
    command
        .args(["approvals", verb, "--url", &url, "--ca"])
        .arg(gateway.folder().join("ca.crt"))
        .args(arguments);
    command.current_dir(gateway.folder().join("policies")).env("NO_COLOR", "1").env("GATEBOOK_TOKEN", token);
    command
}

/// Every request that the gateway knows.
///
/// # Panics
/// When it does not tell.
#[must_use]
pub fn known(world: &World) -> Vec<Value> {
    let text = machine::run(&mut approvals(&world.gateway, "ls", &["--all", "--json"]));
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// The first request that waits, once there is one.
///
/// # Panics
/// When there is none in time.
#[must_use]
pub fn waiting(world: &World) -> Value {
    until("request for approval", ANSWER_MAX, || {
        known(world).into_iter().find(|request| request["state"] == "pending")
    })
}

/// What has become of a request.
///
/// # Panics
/// When the gateway does not know it.
#[must_use]
pub fn state(world: &World, id: &str) -> String {
    let known = known(world);
    let request = known.iter().find(|request| request["id"] == id).expect("it is known");
    request["state"].as_str().unwrap_or_default().to_owned()
}

/// Answers a request in somebody's name.
///
/// # Panics
/// When the program cannot be run.
#[must_use]
pub fn answer(world: &World, verb: &str, request: &Value, who: (&str, &[&str]), more: &[&str]) -> Output {
    let id = request["id"].as_str().expect("a request has an id");
    let mut command = approvals(&world.gateway, verb, &[id]);
    // Where there is an admin server, a token for it counts, and no other.
    let token = match world.gateway.configuration().contains("[admin]") {
        true => world.admin_token(who.0, who.1),
        false => world.issuer.token(who.0, who.1),
    };
    command.args(more).env("GATEBOOK_TOKEN", token);
    command.output().expect("the program runs")
}

/// Dana approves.
///
/// # Panics
/// When her answer does not count.
pub fn approve(world: &World, request: &Value) {
    let output = answer(world, "approve", request, DANA, &[]);
    assert!(output.status.success(), "{output:?}");
}

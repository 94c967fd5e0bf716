//! Whose word counts for a command that waits, what exactly they are shown, and until when their word holds.
//!
//! From `negatives`: an approval of less than what runs, one that outlives who gave it, and a list that a caller can make unreadable.

use gatebook_tests::World;
use gatebook_tests::approvals::{DANA, answer, approve, insert, known, policies, rows, state, waiting};
use gatebook_tests::machine::{self, ANSWER_MAX, until};
use gatebook_tests::postgres::{APP, DATABASE};
use gatebook_tests::wire::{Client, bind, brief, execute, extended, parse, query, startup, sync};

const ZOE: (&str, &[&str]) = ("zoe", &["security"]);
const NO: [&str; 2] = ["E 42501", "Z I"];

/// Sends what waits, and reads up to the notice that says so.
fn ask(client: &mut Client, frames: &[u8]) {
    client.send(frames).unwrap();
    let heard = brief(&client.receive_until(b"NZE"));
    assert_eq!(heard.last().map(String::as_str), Some("N 00000"), "{heard:?}");
}

#[test]
fn each_action_of_a_command_is_approved_by_its_own_approvers() {
    let world = World::new(&format!(
        "{}@requires_approval(\"security\")\n\
         permit (principal, action == Action::\"insert\", resource in Table::\"orders-db/orders/public.wages\");\n",
        policies("@requires_approval(\"dba\")")
    ));
    let mut client = world.client();
    let both = "WITH gone AS (DELETE FROM journal WHERE id = -1 RETURNING id) \
                INSERT INTO wages SELECT 4711, 'x', 1 FROM gone";
    ask(&mut client, &query(both));
    let request = waiting(&world);
    assert_eq!(request["approvers"], serde_json::json!(["dba", "security"]));
    approve(&world, &request);
    assert_eq!(state(&world, request["id"].as_str().unwrap()), "pending", "half of it is approved");
    let other = answer(&world, "approve", &request, ("sam", &["dba"]), &[]);
    assert!(other.status.success(), "{other:?}");
    assert_eq!(state(&world, request["id"].as_str().unwrap()), "pending", "and no more by another of them");
    assert!(answer(&world, "approve", &request, ZOE, &[]).status.success());
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 0", "Z I"]);
}

#[test]
fn what_runs_by_a_name_is_not_approved_by_it() {
    let world = World::new(&policies("@requires_approval(\"dba\")"));
    let mut client = world.client();
    // The same words, in a session where the name stands for something else, would be approved as well.
    let named = [parse("p", "DELETE FROM journal WHERE id = -1"), sync()];
    assert_eq!(brief(&client.ask(&named)), ["1", "Z I"]);
    assert_eq!(client.simple("EXECUTE p"), NO);
    assert_eq!(client.simple("EXPLAIN ANALYZE EXECUTE p"), NO);
    assert!(known(&world).is_empty(), "nobody is asked");
    // By its own text, in whichever protocol, it is.
    ask(&mut client, &[bind("", "p", &[]), execute("", 0), sync()].concat());
    assert_eq!(waiting(&world)["commands"][0]["statement"], "DELETE FROM journal WHERE id = -1");
    approve(&world, &waiting(&world));
    assert_eq!(brief(&client.receive_until(b"Z")), ["2", "C DELETE 0", "Z I"]);
}

#[test]
fn an_approval_ends_with_who_gave_it() {
    let world = World::new(&policies("@requires_approval(\"dba\")"));
    let mut held = world.client();
    ask(&mut held, &query(&insert(1)));
    assert!(answer(&world, "approve", &waiting(&world), DANA, &["--session", "10m"]).status.success());
    assert_eq!(brief(&held.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    assert_eq!(held.simple(&insert(2)), ["C INSERT 0 1", "Z I"], "the like of it");
    let mut ahead = Client::tls(world.gateway.address(), world.gateway.tls());
    let options = "-c gatebook.approval=ask";
    ahead.send(&startup(&[("user", APP), ("database", DATABASE), ("options", options)])).unwrap();
    ahead.authenticate(&world.token()).expect("the login is taken");
    assert_eq!(ahead.simple(&insert(3)), NO);
    let request = waiting(&world);
    let id = request["id"].as_str().unwrap().to_owned();
    approve(&world, &request);
    assert_eq!(state(&world, &id), "granted");
    // Nobody of that group has a say any more, and what they said is void.
    machine::run(world.gateway.command("revoke").args(["--group", "dba"]));
    assert_eq!(state(&world, &id), "changed");
    ask(&mut held, &query(&insert(4)));
    assert!(!answer(&world, "approve", &waiting(&world), DANA, &[]).status.success());
    assert_eq!(rows(&world), "1,2");
}

#[test]
fn who_may_not_approve_by_policy_does_not() {
    let mut world = World::new(&format!(
        "{}forbid (principal == User::\"idp:dana\", action == Action::\"approve\", resource);\n",
        policies("@requires_approval(\"dba\")")
    ));
    let mut client = world.client();
    ask(&mut client, &query(&insert(1)));
    let refused = answer(&world, "approve", &waiting(&world), DANA, &[]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("policy does not permit you"), "{said}");
    assert!(answer(&world, "approve", &waiting(&world), ("sam", &["dba"]), &[]).status.success());
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    drop(client);
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    let told = ledger.told();
    let first = told.iter().find(|event| event.name == "approval.answered").expect("an answer");
    assert_eq!(
        (&first.body["refused"], &first.payload["approver"]),
        (&"forbidden".into(), &"idp:dana".into())
    );
}

#[test]
fn a_caller_cannot_make_the_list_too_long_to_read() {
    let world = World::new(&policies("@requires_approval(\"dba\")"));
    let sql = "INSERT INTO journal (id, worker, body) VALUES (1, 0, $1)";
    let long = "x".repeat(3 << 20);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = world.client();
        ask(&mut client, &[extended(sql, &[Some(&long)]), sync()].concat());
        clients.push(client);
    }
    let all = known(&world);
    assert_eq!(all.len(), 8);
    for request in &all {
        assert_eq!(request["commands"][0]["cut"], true);
        assert!(request.to_string().len() < 100_000, "{} bytes", request.to_string().len());
    }
    drop(clients);
    until("end of the requests", ANSWER_MAX, || {
        known(&world).iter().all(|request| request["state"] == "client_left").then_some(())
    });
    // Of what is over no values are kept.
    for request in known(&world) {
        assert_eq!(request["commands"][0]["parameters"], serde_json::json!([]));
    }
}

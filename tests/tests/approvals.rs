//! Commands that wait for somebody else: who may let them go, for exactly what, and what becomes of those that nobody does.
//!
//! From `negatives`: approvals that are not bound to the session and the command, that a requester gives to itself, that are used twice.

use std::process::Command;

use gatebook_tests::World;
use gatebook_tests::approvals::{
    DANA, answer, approvals, approvals_from_afar, approve, insert, known, policies, rows, state, waiting,
};
use gatebook_tests::gateway::PERMIT_ALL;
use gatebook_tests::ledger::Event;
use gatebook_tests::machine::{self, ANSWER_MAX, until};
use gatebook_tests::postgres::{APP, DATABASE};
use gatebook_tests::wire::{self, Client, bind, brief, execute, extended, parse, query, startup, sync};
use serde_json::Value;

/// Sends a statement that waits, and reads the notice that says so.
fn ask(client: &mut Client, frames: &[u8]) -> wire::Message {
    client.send(frames).unwrap();
    let mut heard = client.receive_until(b"NZE");
    let notice = heard.pop().expect("something is said");
    assert_eq!(notice.brief(), "N 00000", "{heard:?} {notice:?}");
    notice
}

/// The ledger's words on approvals, in their order.
fn told(world: &mut World) -> Vec<Event> {
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    ledger.told()
}

fn lapses(told: &[Event]) -> Vec<&str> {
    let lapsed = told.iter().filter(|event| event.name == "approval.lapsed");
    lapsed.map(|event| event.body["reason"].as_str().unwrap()).collect()
}

#[test]
fn a_command_waits_in_the_live_session_until_somebody_approves_exactly_it() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")"));
    let mut client = world.client();
    let notice = ask(&mut client, &query(&insert(1)));
    let request = waiting(&world);
    let words = notice.report().unwrap().message;
    let id = request["id"].as_str().unwrap();
    assert!(words.contains("approval by dba") && words.contains(id) && words.contains("15 min"), "{words}");
    assert_eq!(request["principal"], "idp:lee");
    assert_eq!(request["commands"][0]["statement"], insert(1));
    assert_eq!(request["resource"], "orders-db/orders");
    let oid = world.postgres.admin("SELECT 'public.journal'::regclass::oid");
    assert_eq!(request["objects"][0], format!("public.journal ({oid})"));
    assert_eq!(rows(&world), "", "nothing reaches the server while it waits");
    approve(&world, &request);
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    assert_eq!(rows(&world), "1");
    // The approval was for that one command: the same again asks again.
    ask(&mut client, &query(&insert(1)));
    let again = waiting(&world);
    assert_ne!(again["id"], request["id"]);
    assert_eq!(state(&world, id), "used");
    drop(client);
    until("end of the request", ANSWER_MAX, || {
        (state(&world, again["id"].as_str().unwrap()) == "client_left").then_some(())
    });
    let told = told(&mut world);
    let names: Vec<&str> = told
        .iter()
        .filter(|event| event.name.starts_with("approval.") || event.name == "command")
        .map(|event| &*event.name)
        .collect();
    assert_eq!(
        names,
        [
            "approval.requested",
            "approval.answered",
            "approval.used",
            "command",
            "approval.requested",
            "approval.lapsed"
        ]
    );
    let find = |name: &str| told.iter().find(|event| event.name == name).unwrap();
    let (requested, answered, used) =
        (find("approval.requested"), find("approval.answered"), find("approval.used"));
    assert_eq!(requested.body["digest"], used.body["digest"]);
    assert_eq!(answered.payload["approver"], "idp:dana");
    assert_eq!(used.payload["approvers"][0], "idp:dana");
    assert!([requested, answered, used].iter().all(|event| event.session == find("command").session));
    assert_eq!(rows(&world), "1");
}

#[test]
fn a_denied_command_fails_and_the_session_lives_on() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")"));
    let mut client = world.client();
    assert_eq!(client.simple("BEGIN"), ["C BEGIN", "Z T"]);
    ask(&mut client, &query(&insert(1)));
    let output = answer(&world, "deny", &waiting(&world), DANA, &["--reason", "not\x1b[2J today"]);
    assert!(output.status.success(), "{output:?}");
    let heard = client.receive_until(b"Z");
    assert_eq!(brief(&heard), ["E 42501", "Z E"], "a refusal has an error's effect");
    let words = heard[0].report().unwrap().message;
    assert!(words.starts_with("not approved: ") && words.contains("denied by idp:dana: not"), "{words}");
    assert!(!words.contains('\x1b'), "{words:?}");
    assert_eq!(client.simple("ROLLBACK"), ["C ROLLBACK", "Z I"]);
    assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    drop(client);
    let told = told(&mut world);
    assert_eq!(lapses(&told), ["denied"]);
    let command = told.iter().filter(|event| event.name == "command").nth(1).unwrap();
    assert_eq!(command.body["decision"], "refuse");
    assert!(command.payload["errors"].to_string().contains("denied by idp:dana"), "{}", command.payload);
    assert_eq!(rows(&world), "");
}

#[test]
fn who_may_not_answer_is_refused_and_recorded_and_the_command_goes_on_waiting() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")\n@quorum(\"2\")"));
    let mut client = world.client();
    ask(&mut client, &query(&insert(1)));
    let request = waiting(&world);
    let both: &[&str] = &["developers", "dba"];
    for (verb, who, says) in [
        ("approve", ("lee", both), "whoever asks"),
        ("deny", ("lee", both), "whoever asks"),
        ("approve", ("kim", &["developers"] as &[&str]), "member of dba"),
    ] {
        let output = answer(&world, verb, &request, who, &[]);
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(says), "{said}");
    }
    // No token, and one of nobody's.
    for token in [None, Some("ey.not.one")] {
        let mut command = approvals(&world.gateway, "approve", &[request["id"].as_str().unwrap()]);
        command.envs(token.map(|token| ("GATEBOOK_TOKEN", token)));
        let output = command.output().unwrap();
        assert!(
            !output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("ey.not"),
            "{output:?}"
        );
    }
    approve(&world, &request);
    let twice = answer(&world, "approve", &request, DANA, &[]);
    assert!(!twice.status.success(), "a quorum counts persons");
    let pending = waiting(&world);
    assert_eq!(pending["approved_by"], serde_json::json!(["idp:dana"]));
    assert_eq!(rows(&world), "");
    let output = answer(&world, "approve", &request, ("sam", &["dba"]), &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    let late = answer(&world, "deny", &request, ("zoe", &["dba"]), &[]);
    assert!(!late.status.success() && String::from_utf8_lossy(&late.stderr).contains("too late"), "{late:?}");
    drop(client);
    let told = told(&mut world);
    let refused: Vec<Value> = told
        .iter()
        .filter(|event| event.name == "approval.answered")
        .map(|event| event.body["refused"].clone())
        .collect();
    let expected =
        serde_json::json!(["requester", "requester", "not_a_member", null, "answered", null, "too_late"]);
    assert_eq!(Value::from(refused), expected);
    let used = told.iter().find(|event| event.name == "approval.used").unwrap();
    assert_eq!(used.payload["approvers"], serde_json::json!(["idp:dana", "idp:sam"]));
}

#[test]
fn of_approvers_who_race_one_counts() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")"));
    let mut client = world.client();
    ask(&mut client, &query(&insert(1)));
    let request = waiting(&world);
    let won = std::thread::scope(|scope| {
        let racers: Vec<_> = ["dana", "sam", "zoe", "kim"]
            .into_iter()
            .map(|name| {
                let (world, request) = (&world, &request);
                scope.spawn(move || answer(world, "approve", request, (name, &["dba"]), &[]).status.success())
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(won, 1);
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    drop(client);
    let told = told(&mut world);
    let answers: Vec<&Event> = told.iter().filter(|event| event.name == "approval.answered").collect();
    let counted = answers.iter().filter(|event| event.body["refused"].is_null()).count();
    assert_eq!((answers.len(), counted), (4, 1), "the ledger says which one counted");
    assert_eq!(told.iter().filter(|event| event.name == "approval.used").count(), 1);
    assert_eq!(rows(&world), "1");
}

#[test]
fn what_nobody_approves_in_time_fails() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")\n@expires(\"1s\")"));
    let mut client = world.client();
    ask(&mut client, &query(&insert(1)));
    let id = known(&world)[0]["id"].clone();
    assert_eq!(brief(&client.receive_until(b"Z")), ["E 42501", "Z I"]);
    let late = answer(&world, "approve", &serde_json::json!({ "id": id }), DANA, &[]);
    assert!(!late.status.success());
    assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    drop(client);
    let told = told(&mut world);
    assert_eq!(lapses(&told), ["expired"]);
    assert_eq!(rows(&world), "");
}

#[test]
fn a_client_takes_back_what_waits_by_cancelling() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")"));
    let mut client = world.client();
    ask(&mut client, &query(&insert(1)));
    let request = waiting(&world);
    let mut canceller = Client::clear(world.gateway.address());
    canceller.send(&wire::cancel(&client.cancel_key)).unwrap();
    assert!(canceller.receive_to_end().is_empty());
    assert_eq!(brief(&client.receive_until(b"Z")), ["E 57014", "Z I"]);
    let late = answer(&world, "approve", &request, DANA, &[]);
    assert!(!late.status.success());
    // What comes next is not cancelled.
    assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    drop(client);
    assert_eq!(lapses(&told(&mut world)), ["cancelled"]);
    assert_eq!(rows(&world), "");
}

#[test]
fn what_waits_lapses_with_its_client_and_with_its_session() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")"));
    let mut leaving = world.client();
    ask(&mut leaving, &query(&insert(1)));
    let request = waiting(&world);
    drop(leaving);
    let id = request["id"].as_str().unwrap();
    until("end of the request", ANSWER_MAX, || (state(&world, id) == "client_left").then_some(()));
    assert!(!answer(&world, "approve", &request, DANA, &[]).status.success(), "approved after it left");
    let mut revoked = world.client();
    ask(&mut revoked, &query(&insert(2)));
    let request = waiting(&world);
    machine::run(world.gateway.command("revoke").args(["--principal", "idp:lee"]));
    assert_eq!(brief(&revoked.receive_to_end()), ["E 57P01"]);
    until("end of the request", ANSWER_MAX, || {
        (state(&world, request["id"].as_str().unwrap()) == "session_ended").then_some(())
    });
    assert!(
        !answer(&world, "approve", &request, DANA, &[]).status.success(),
        "approved after it was revoked"
    );
    assert_eq!(lapses(&told(&mut world)), ["client_left", "session_ended"]);
    assert_eq!(rows(&world), "");
}

/// Pipelined, with parameters, and behind something that fails: nothing is approved that would not run.
#[test]
fn an_extended_query_waits_at_its_place_in_the_pipeline() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")"));
    let mut client = world.client();
    let sql = "INSERT INTO journal (id, worker, body) VALUES ($1::int, 0, 'x')";
    let frames = [extended("SELECT 7", &[]), extended(sql, &[Some("5")]), extended("SELECT 8", &[]), sync()];
    ask(&mut client, &frames.concat());
    let request = waiting(&world);
    assert_eq!(request["commands"][0]["parameters"], serde_json::json!(["5"]));
    assert_eq!(request["commands"][0]["statement"], sql);
    approve(&world, &request);
    let heard = brief(&client.receive_until(b"Z"));
    let expected =
        ["1", "2", "D 7", "C SELECT 1", "1", "2", "C INSERT 0 1", "1", "2", "D 8", "C SELECT 1", "Z I"];
    assert_eq!(heard, expected);
    assert_eq!(rows(&world), "5");
    // The server passes over what follows an error: that is known as soon as the error is.
    let frames = [extended("SELECT 1/0", &[]), extended(sql, &[Some("6")]), sync()];
    client.send(&frames.concat()).unwrap();
    let heard: Vec<String> =
        brief(&client.receive_until(b"Z")).into_iter().filter(|brief| brief != "N 00000").collect();
    assert_eq!(heard, ["1", "E 22012", "Z I"]);
    assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    drop(client);
    assert_eq!(lapses(&told(&mut world)), ["passed_over"]);
    assert_eq!(rows(&world), "5");
}

#[test]
fn inside_a_transaction_policy_says_how_long_it_waits_and_what_is_held_is_shown() {
    let world = World::new(&policies("@requires_approval(\"dba\")\n@in_transaction(\"wait 90s\")"));
    let mut client = world.client();
    assert_eq!(client.simple("BEGIN"), ["C BEGIN", "Z T"]);
    assert_eq!(client.simple("UPDATE orders SET state = state WHERE id = 1"), ["C UPDATE 1", "Z T"]);
    ask(&mut client, &query(&insert(1)));
    let request = waiting(&world);
    assert_eq!(request["in_transaction"], true);
    let seconds = request["until_s"].as_u64().unwrap() - request["asked_s"].as_u64().unwrap();
    assert_eq!(seconds, 90);
    until("locks of the transaction", ANSWER_MAX, || {
        waiting(&world)["locks"].to_string().contains("public.orders RowExclusiveLock").then_some(())
    });
    approve(&world, &request);
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z T"]);
    assert_eq!(client.simple("COMMIT"), ["C COMMIT", "Z I"]);
    assert_eq!(rows(&world), "1");
}

#[test]
fn a_policy_can_refuse_to_wait_inside_a_transaction() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")\n@in_transaction(\"refuse\")"));
    let mut client = world.client();
    assert_eq!(client.simple("BEGIN"), ["C BEGIN", "Z T"]);
    assert_eq!(client.simple(&insert(1)), ["E 42501", "Z E"]);
    assert_eq!(client.simple("ROLLBACK"), ["C ROLLBACK", "Z I"]);
    assert!(known(&world).is_empty());
    // A batch that has begun is a transaction too, though nobody said BEGIN.
    let frames =
        [extended("UPDATE orders SET state = state WHERE id = 1", &[]), extended(&insert(1), &[]), sync()];
    assert_eq!(brief(&client.ask(&frames)), ["1", "2", "C UPDATE 1", "1", "2", "E 42501", "Z I"]);
    ask(&mut client, &query(&insert(1)));
    approve(&world, &waiting(&world));
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    drop(client);
    told(&mut world);
}

/// What is approved is what was shown: who changes the ground under it has asked for nothing.
#[test]
fn an_approval_is_worth_nothing_once_the_object_or_the_policy_is_another() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")"));
    let mut client = world.client();
    ask(&mut client, &query(&insert(1)));
    let first = waiting(&world);
    world.postgres.admin(
        "ALTER TABLE journal RENAME TO journal_before; CREATE TABLE journal (LIKE journal_before); \
         GRANT ALL ON journal TO PUBLIC",
    );
    // The gateway looks at the catalog once a second; what is approved after that is for an object that is gone.
    let oid = world.postgres.admin("SELECT 'public.journal'::regclass::oid");
    until("catalog that knows the new table", ANSWER_MAX, || {
        let mut other = world.client();
        other.send(&query("INSERT INTO journal (id, worker, body) VALUES (9, 9, 'y')")).unwrap();
        other.receive_until(b"N");
        let requests = known(&world);
        let newest = requests.iter().rfind(|request| request["state"] == "pending")?;
        newest["objects"].to_string().contains(&format!("({oid})")).then_some(())
    });
    approve(&world, &first);
    assert_eq!(brief(&client.receive_until(b"N")), ["N 00000"], "it asks anew");
    until("second request", ANSWER_MAX, || {
        (state(&world, first["id"].as_str().unwrap()) == "changed").then_some(())
    });
    assert_eq!(rows(&world), "");
    // As soon as policy wants others to approve, they are asked, and those who were before no more.
    let second = until("second request", ANSWER_MAX, || {
        known(&world)
            .into_iter()
            .find(|request| request["state"] == "pending" && request["commands"][0]["statement"] == insert(1))
    });
    let file = world.gateway.folder().join("policies/test.cedar");
    let reload = |text: &str| {
        std::fs::write(&file, text).unwrap();
        machine::run(Command::new("kill").args(["-HUP", &world.gateway.id().to_string()]));
    };
    reload(&policies("@requires_approval(\"security\")"));
    assert_eq!(brief(&client.receive_until(b"N")), ["N 00000"], "it asks others");
    assert!(!answer(&world, "approve", &second, DANA, &[]).status.success());
    assert_eq!(state(&world, second["id"].as_str().unwrap()), "changed");
    // And under one that permits it to nobody it waits no longer.
    reload(&format!("{PERMIT_ALL}forbid (principal, action in Action::\"write\", resource);"));
    assert_eq!(brief(&client.receive_until(b"Z")), ["E 42501", "Z I"]);
    drop(client);
    let told = told(&mut world);
    assert_eq!(told.iter().filter(|event| event.name == "approval.used").count(), 0);
    assert_eq!(rows(&world), "");
}

#[test]
fn an_approval_for_the_rest_of_a_session_covers_its_like_and_nothing_else() {
    let mut world = World::new(&format!(
        "{}@requires_approval(\"dba\")\npermit (principal, action == Action::\"delete\", resource);\n",
        policies("@requires_approval(\"dba\")\n@expires(\"5m\")")
    ));
    let mut client = world.client();
    ask(&mut client, &query(&insert(1)));
    let output = answer(&world, "approve", &waiting(&world), DANA, &["--session", "2h"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    assert_eq!(client.simple(&insert(2)), ["C INSERT 0 1", "Z I"], "the like of it");
    let mut other = world.client();
    ask(&mut other, &query(&insert(3)));
    let id = waiting(&world)["id"].as_str().unwrap().to_owned();
    drop(other);
    until("end of the request", ANSWER_MAX, || (state(&world, &id) == "client_left").then_some(()));
    ask(&mut client, &query("DELETE FROM journal WHERE id = 1"));
    approve(&world, &waiting(&world));
    assert_eq!(brief(&client.receive_until(b"Z")), ["C DELETE 1", "Z I"]);
    // Under another search path the same words are not the like of it.
    assert_eq!(client.simple("SET search_path = public, pg_temp").last().unwrap(), "Z I");
    ask(&mut client, &query(&insert(4)));
    drop(client);
    let told = told(&mut world);
    let used: Vec<&Event> = told.iter().filter(|event| event.name == "approval.used").collect();
    assert_eq!(used.len(), 3);
    assert_eq!(used[0].body["id"], used[1].body["id"]);
    assert_ne!(used[0].body["digest"], used[1].body["digest"], "what ran is recorded, each time");
    assert_eq!(rows(&world), "2");
}

fn connect_with(world: &World, user: &str, setting: &str) -> Client {
    let mut client = Client::tls(world.gateway.address(), world.gateway.tls());
    let options = format!("-c gatebook.approval={setting}");
    client.send(&startup(&[("user", APP), ("database", DATABASE), ("options", &options)])).unwrap();
    client.authenticate(&world.issuer.token(user, &["developers"])).expect("the login is taken");
    client
}

/// A job asks, goes away, comes back with the id, and may do that one thing once.
#[test]
fn an_approval_given_ahead_of_time_is_for_one_caller_one_command_and_one_use() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")"));
    let sql = "INSERT INTO journal (id, worker, body) VALUES ($1::int, 0, 'x')";
    let run = |client: &mut Client, sql: &str, parameter: &str| {
        brief(&client.ask(&[parse("", sql), bind("", "", &[Some(parameter)]), execute("", 0), sync()]))
    };
    let done = ["1", "2", "C INSERT 0 1", "Z I"];
    let no = ["1", "2", "E 42501", "Z I"];
    assert_eq!(run(&mut connect_with(&world, "lee", "ask"), sql, "1"), no);
    let request = waiting(&world);
    let id = request["id"].as_str().unwrap().to_owned();
    assert_eq!(request["session"], Value::Null);
    assert_eq!(run(&mut connect_with(&world, "lee", &id), sql, "1"), no, "not before it is approved");
    approve(&world, &request);
    assert_eq!(state(&world, &id), "granted");
    machine::run(&mut approvals(&world.gateway, "show", &[&id, "--wait"]));
    let mut client = connect_with(&world, "lee", &id);
    assert_eq!(run(&mut client, sql, "2"), no, "a changed parameter");
    assert_eq!(run(&mut client, &format!("{sql} "), "1"), no, "a changed byte");
    assert_eq!(client.simple("SET search_path = public, pg_temp").last().unwrap(), "Z I");
    assert_eq!(run(&mut client, sql, "1"), no, "another search path");
    assert_eq!(run(&mut connect_with(&world, "kim", &id), sql, "1"), no, "another caller");
    assert_eq!(run(&mut connect_with(&world, "lee", "0000-0000"), sql, "1"), no, "another id");
    assert_eq!(run(&mut connect_with(&world, "lee", "whatever"), sql, "1"), no, "no id");
    assert_eq!(state(&world, &id), "granted");
    assert_eq!(rows(&world), "");
    let mut client = connect_with(&world, "lee", &id.to_lowercase());
    assert_eq!(run(&mut client, sql, "1"), done);
    assert_eq!(run(&mut client, sql, "1"), no, "used");
    assert_eq!(run(&mut connect_with(&world, "lee", &id), sql, "1"), no, "used");
    drop(client);
    let told = told(&mut world);
    assert_eq!(told.iter().filter(|event| event.name == "approval.used").count(), 1);
    let refused = told.iter().filter(|event| event.name == "command" && event.body["decision"] == "refuse");
    let refused: Vec<String> = refused.map(|event| event.payload["errors"].to_string()).collect();
    assert_eq!(refused.len(), 10, "each is recorded: {refused:?}");
    assert!(refused.iter().all(|errors| errors.contains("not approved")), "{refused:?}");
    assert_eq!(rows(&world), "1");
}

#[test]
fn a_caller_that_must_say_why_does_so_in_a_comment() {
    let mut world = World::new(&policies("@reason_required\n@requires_approval(\"dba\")"));
    let mut client = world.client();
    let heard = client.ask(&[query(&insert(1))]);
    assert_eq!(brief(&heard), ["E 42501", "Z I"]);
    assert!(heard[0].report().unwrap().hint.contains("/* reason:"), "{heard:?}");
    ask(&mut client, &query(&format!("/* reason: double charge, ticket 4711 */ {}", insert(1))));
    let request = waiting(&world);
    assert_eq!(request["reason"], "double charge, ticket 4711");
    approve(&world, &request);
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    drop(client);
    let told = told(&mut world);
    let requested = told.iter().find(|event| event.name == "approval.requested").unwrap();
    assert_eq!(requested.payload["reason"], "double charge, ticket 4711");
}

#[test]
fn a_shadowed_resource_waits_for_nobody() {
    let world = World::with(|setup| {
        setup.policies(&policies("@requires_approval(\"dba\")")).resource("shadow = true")
    });
    let mut client = world.client();
    assert_eq!(client.simple(&insert(1)), ["C INSERT 0 1", "Z I"]);
    assert!(known(&world).is_empty());
}

/// What waits is nothing idle, and what is sent behind it keeps its place.
#[test]
fn a_session_that_waits_is_not_idle() {
    let world = World::with(|setup| {
        setup
            .policies(&policies("@requires_approval(\"dba\")\n@expires(\"4s\")"))
            .resource("idle_timeout = \"1s\"")
    });
    let mut client = world.client();
    ask(&mut client, &[query(&insert(1)), query("SELECT 1")].concat());
    assert_eq!(
        brief(&client.receive_until(b"Z")),
        ["E 42501", "Z I"],
        "it waited longer than idleness lasts"
    );
    assert_eq!(brief(&client.receive_until(b"Z")), ["T", "D 1", "C SELECT 1", "Z I"]);
}

#[test]
fn who_breaks_the_glass_goes_on_at_once_and_everybody_is_told() {
    let mut world = World::new(
        "permit (principal, action == Action::\"login\", resource);\n\
         permit (principal, action == Action::\"approve\", resource);\n\
         permit (principal, action in Action::\"read\", resource);\n\
         @requires_approval(\"dba\")\n@break_glass\n\
         permit (principal, action == Action::\"insert\", resource in Table::\"orders-db/orders/public.journal\");\n\
         @requires_approval(\"dba\")\n\
         permit (principal, action == Action::\"delete\", resource in Table::\"orders-db/orders/public.journal\");\n\
         @break_glass\n\
         permit (principal, action == Action::\"update\", resource in Table::\"orders-db/orders/public.orders\");\n",
    );
    let mut client = world.client();
    let emergency = |sql: &str| format!("/* break-glass: the shop is down */ {sql}");
    assert_eq!(client.simple(&emergency(&insert(1))), ["C INSERT 0 1", "Z I"]);
    world.gateway.process_ref().line("GLASS BROKEN", ANSWER_MAX);
    let update = "UPDATE orders SET state = state WHERE id = 1";
    assert_eq!(client.simple(update), ["E 42501", "Z I"], "an emergency alone");
    assert_eq!(client.simple(&emergency(update)), ["C UPDATE 1", "Z I"]);
    // Where policy has no glass there is nothing to break, and one action's glass is not another's.
    ask(&mut client, &query(&emergency("DELETE FROM journal")));
    approve(&world, &waiting(&world));
    assert_eq!(brief(&client.receive_until(b"Z")), ["C DELETE 1", "Z I"]);
    let both = "WITH gone AS (DELETE FROM journal RETURNING id) UPDATE orders SET state = state WHERE id = 1";
    ask(&mut client, &query(&emergency(both)));
    approve(&world, &waiting(&world));
    assert_eq!(brief(&client.receive_until(b"Z")), ["C UPDATE 1", "Z I"]);
    drop(client);
    let told = told(&mut world);
    let broken: Vec<&Event> = told.iter().filter(|event| event.name == "glass.broken").collect();
    assert!(broken.len() >= 3, "{broken:?}");
    assert_eq!(broken[0].payload, serde_json::json!({ "needed": "dba", "reason": "the shop is down" }));
    let first = told.iter().position(|event| event.name == "glass.broken").unwrap();
    assert_eq!(told[first + 1].name, "command", "it stands before what it let go");
    assert_eq!(told.iter().filter(|event| event.name == "approval.used").count(), 2);
}

/// Over HTTPS, too, it is the person's own token that counts, and the list follows by itself.
#[test]
fn an_approver_far_away_sees_it_live_and_answers() {
    let mut world = World::with(|setup| setup.policies(&policies("@requires_approval(\"dba\")")).admin(""));
    let admin = world.gateway.admin();
    let mut client = world.client();
    ask(&mut client, &query(&insert(1)));
    let dana = world.admin_token(DANA.0, DANA.1);
    let listed = admin.get("/v1/approvals", Some(&dana)).json();
    let request = &listed["approvals"][0];
    assert_eq!((&request["principal"], &request["state"]), (&"idp:lee".into(), &"pending".into()));
    let path = format!("/v1/approvals/{}", request["id"].as_str().unwrap());
    assert_eq!(&admin.get(&path, Some(&dana)).json(), request);
    let answers = format!("{path}/answers");
    let yes = serde_json::json!({ "approve": true, "reason": "checked" });
    let lee = world.admin_token("lee", &["dba"]);
    let kim = world.admin_token("kim", &["developers"]);
    let session = world.issuer.token(DANA.0, DANA.1);
    assert_eq!(admin.get("/v1/approvals", None).status, 401);
    assert_eq!(admin.post(&answers, None, &yes).status, 401);
    assert_eq!(admin.post(&answers, Some(&session), &yes).status, 401, "a token for sessions");
    for (token, status) in [(&lee, 403), (&kim, 403)] {
        assert_eq!(admin.post(&answers, Some(token), &yes).status, status);
    }
    assert_eq!(rows(&world), "");
    let (approved, heard) = std::thread::scope(|scope| {
        let (first, again) = std::sync::mpsc::channel();
        let follower = scope.spawn({
            let (admin, dana) = (&admin, &dana);
            move || {
                let mut states = Vec::new();
                admin.follow("/v1/approvals/live", dana, |event| {
                    let state = event["approvals"][0]["state"].as_str().unwrap_or_default().to_owned();
                    let over = state == "used";
                    states.push(state);
                    let _ = first.send(());
                    !over
                });
                states
            }
        });
        again.recv_timeout(ANSWER_MAX).expect("the list comes at once");
        let approved = admin.post(&answers, Some(&dana), &yes);
        (approved, follower.join().unwrap())
    });
    assert_eq!(approved.status, 200, "{approved:?}");
    assert_eq!(heard.first().map(String::as_str), Some("pending"), "{heard:?}");
    assert_eq!(heard.last().map(String::as_str), Some("used"), "{heard:?}");
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    assert_eq!(admin.post(&answers, Some(&dana), &yes).status, 409, "it is over");
    drop(client);
    let told = told(&mut world);
    let refused =
        told.iter().filter(|event| event.name == "approval.answered" && event.body["refused"] != Value::Null);
    assert_eq!(refused.count(), 3);
    assert!(told.iter().any(|event| event.name == "admin.action" && event.body["action"] == "approve"));
}

/// The same at a terminal, on another machine than the gateway's: no socket, no configuration, a token for this door.
#[test]
fn an_approver_far_away_answers_at_a_terminal() {
    let world = World::with(|setup| setup.policies(&policies("@requires_approval(\"dba\")")).admin(""));
    let dana = world.admin_token(DANA.0, DANA.1);
    let from_afar = |token: &str, verb: &str, arguments: &[&str]| {
        approvals_from_afar(&world.gateway, token, verb, arguments).output().expect("the program runs")
    };
    let mut client = world.client();
    ask(&mut client, &query(&insert(1)));
    let listed = from_afar(&dana, "ls", &["--json"]);
    let request: Value = serde_json::from_slice(&listed.stdout).expect("one line of JSON");
    let id = request["id"].as_str().unwrap();
    let shown = String::from_utf8(from_afar(&dana, "show", &[id]).stdout).unwrap();
    assert!(shown.contains(&insert(1)) && shown.contains("idp:lee"), "{shown}");
    for (token, why) in [
        (&*world.admin_token("kim", &["developers"]), "only a member of dba"),
        (&*world.admin_token("lee", &["dba"]), "whoever asks"),
        (&*world.issuer.token(DANA.0, DANA.1), "not accepted"),
    ] {
        let output = from_afar(token, "approve", &[id]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(why) && !said.contains(token), "{said}");
    }
    assert_eq!(rows(&world), "");
    let output = from_afar(&dana, "approve", &[id, "--reason", "checked"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    until("use", ANSWER_MAX, || (state(&world, id) == "used").then_some(()));
    assert!(from_afar(&dana, "show", &[id, "--wait"]).status.success());
    ask(&mut client, &query(&insert(2)));
    let second = waiting(&world)["id"].as_str().unwrap().to_owned();
    assert!(from_afar(&dana, "deny", &[&second, "--reason", "no"]).status.success());
    assert_eq!(brief(&client.receive_until(b"Z")), ["E 42501", "Z I"]);
}

/// Whose access is revoked has consented to nothing that is still to come.
#[test]
fn a_grant_ends_with_the_access_of_whoever_gave_it() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")\n@quorum(\"2\")"));
    let mut client = world.client();
    assert_eq!(connect_with(&world, "lee", "ask").simple(&insert(1)), ["E 42501", "Z I"]);
    let ahead = waiting(&world);
    approve(&world, &ahead);
    assert!(answer(&world, "approve", &ahead, ("sam", &["dba"]), &[]).status.success());
    let id = ahead["id"].as_str().unwrap();
    assert_eq!(state(&world, id), "granted");
    ask(&mut client, &query(&insert(2)));
    let held = waiting(&world);
    approve(&world, &held);
    machine::run(world.gateway.command("revoke").args(["--principal", "idp:dana"]));
    assert_eq!(state(&world, id), "changed");
    assert_eq!(connect_with(&world, "lee", id).simple(&insert(1)), ["E 42501", "Z I"]);
    // The command that waits asks anew, and dana's consent is gone.
    assert_eq!(brief(&client.receive_until(b"N")), ["N 00000"]);
    let again = waiting(&world);
    assert_eq!(again["approved_by"], serde_json::json!([]));
    let late = answer(&world, "approve", &again, DANA, &[]);
    assert!(!late.status.success(), "{late:?}");
    for name in ["sam", "zoe"] {
        assert!(answer(&world, "approve", &again, (name, &["dba"]), &[]).status.success());
    }
    assert_eq!(brief(&client.receive_until(b"Z")), ["C INSERT 0 1", "Z I"]);
    assert_eq!(rows(&world), "2");
    drop(client);
    assert_eq!(lapses(&told(&mut world)), ["changed", "changed"]);
}

/// The gateway is killed between the request, the approvals and the use: what people said stands, and what was used stays used.
#[test]
fn what_was_asked_and_answered_ahead_of_time_survives_a_kill() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")\n@quorum(\"2\")\n@expires(\"10m\")"));
    let sam = ("sam", &["dba"][..]);
    let run = |world: &World, user: &str, setting: &str, id: u32| {
        let mut client = connect_with(world, user, setting);
        let sql = format!(
            "/* reason: {} */ INSERT INTO journal (id, worker, body) VALUES ($1::int, 0, NULL)",
            "ä".repeat(9)
        );
        brief(&client.ask(&[parse("", &sql), bind("", "", &[Some(&id.to_string())]), execute("", 0), sync()]))
    };
    let (no, done) = (["1", "2", "E 42501", "Z I"], ["1", "2", "C INSERT 0 1", "Z I"]);
    // Asked: five of them, of which nobody has said anything, one has approved, two have, one has denied, and one is used.
    let ids: Vec<String> = (1..=5)
        .map(|id| {
            assert_eq!(run(&world, "lee", "ask", id), no);
            waiting_for(&world, id)["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let [quiet, half, whole, denied, used] = &ids[..] else { panic!("{ids:?}") };
    let say = |world: &World, verb: &str, id: &str, who: (&str, &[&str])| {
        answer(world, verb, &serde_json::json!({ "id": id }), who, &["--reason", "so be it"]).status.success()
    };
    for id in [half, whole, used] {
        assert!(say(&world, "approve", id, DANA));
    }
    for id in [whole, used] {
        assert!(say(&world, "approve", id, sam));
    }
    assert!(say(&world, "deny", denied, DANA));
    assert_eq!(run(&world, "lee", used, 5), done);
    let before = known(&world);
    world.gateway.kill();
    world.gateway.restart();
    // Where somebody can still do something nothing has changed, down to what people are shown.
    let after = known(&world);
    assert_eq!(after.len(), 3, "{after:?}");
    for request in &after {
        let same = before.iter().find(|known| known["id"] == request["id"]).expect("it was known");
        assert_eq!(request, same);
    }
    assert_eq!([quiet, half, whole].map(|id| state(&world, id)), ["pending", "pending", "granted"]);
    assert_eq!(run(&world, "lee", used, 5), no, "used");
    assert_eq!(run(&world, "lee", denied, 4), no, "denied");
    assert_eq!(run(&world, "lee", half, 2), no, "one of two");
    assert_eq!(run(&world, "kim", whole, 3), no, "another caller");
    assert_eq!(run(&world, "lee", whole, 33), no, "another parameter");
    assert!(!say(&world, "approve", half, DANA), "her answer stands, and counts once");
    assert!(!say(&world, "approve", quiet, ("lee", &["dba"])), "it is still his own");
    assert!(say(&world, "approve", half, sam));
    assert_eq!(run(&world, "lee", half, 2), done);
    assert_eq!(run(&world, "lee", whole, 3), done);
    world.gateway.kill();
    world.gateway.restart();
    for (id, number) in [(half, 2), (whole, 3)] {
        assert_eq!(run(&world, "lee", id, number), no, "once, and a kill does not give it back");
    }
    assert_eq!(known(&world).len(), 1);
    // Whoever is revoked has consented to nothing that is still to come, whenever the gateway comes back.
    assert!(say(&world, "approve", quiet, DANA) && say(&world, "approve", quiet, sam));
    machine::run(world.gateway.command("revoke").args(["--principal", "idp:dana"]));
    world.gateway.kill();
    world.gateway.restart();
    assert_eq!(run(&world, "lee", quiet, 1), no);
    assert_eq!(rows(&world), "2,3,5");
    let told = told(&mut world);
    assert_eq!(told.iter().filter(|event| event.name == "approval.used").count(), 3);
}

/// The request of this number's insertion.
fn waiting_for(world: &World, number: u32) -> Value {
    let number = number.to_string();
    until("request for approval", ANSWER_MAX, || {
        let fits = |request: &Value| {
            request["state"] == "pending" && request["commands"][0]["parameters"][0] == number
        };
        known(world).into_iter().find(fits)
    })
}

/// What ran out while the gateway was down is over when it is back, and that is recorded.
#[test]
fn time_goes_on_while_the_gateway_is_down() {
    let mut world = World::new(&policies("@requires_approval(\"dba\")\n@expires(\"4s\")"));
    assert_eq!(connect_with(&world, "lee", "ask").simple(&insert(1)), ["E 42501", "Z I"]);
    let request = waiting(&world);
    approve(&world, &request);
    let over = request["asked_s"].as_u64().unwrap() + 10;
    world.gateway.kill();
    until("end of its time", ANSWER_MAX, || (gatebook_tests::issuer::now() > over).then_some(()));
    world.gateway.restart();
    let id = request["id"].as_str().unwrap();
    until("end of the request", ANSWER_MAX, || (state(&world, id) == "expired").then_some(()));
    assert_eq!(connect_with(&world, "lee", id).simple(&insert(1)), ["E 42501", "Z I"]);
    assert_eq!(lapses(&told(&mut world)), ["expired"]);
}

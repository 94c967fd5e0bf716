//! How sessions are cancelled, revoked and ended.

use std::process::Command;

use gatebook_tests::gateway::PERMIT_ALL;
use gatebook_tests::machine::{ANSWER_MAX, run, until};
use gatebook_tests::postgres::{APP, DATABASE};
use gatebook_tests::wire::{self, Client, brief, query};
use gatebook_tests::{Gateway, World};

const SLEEP: &str = "DO $$ BEGIN RAISE NOTICE 'running'; PERFORM pg_sleep(300); END $$";

/// Starts a statement that sleeps, and returns when it runs upstream.
fn sleeping(client: &mut Client) {
    client.send(&query(SLEEP)).unwrap();
    assert_eq!(brief(&client.receive_until(b"N")), ["N 00000"]);
}

fn running(world: &World) -> String {
    world
        .postgres
        .admin(&format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{APP}' AND state = 'active'"))
}

fn revoke(gateway: &Gateway, what: &[&str]) -> String {
    run(gateway.command("revoke").args(what).args(["--reason", "the contract ended"]))
}

#[test]
fn a_cancel_request_stops_what_runs_and_the_session_lives_on() {
    let mut world = World::new(PERMIT_ALL);
    let mut client = world.client();
    for over_tls in [false, true] {
        sleeping(&mut client);
        let mut canceller = match over_tls {
            false => Client::clear(world.gateway.address()),
            true => Client::tls(world.gateway.address(), world.gateway.tls()),
        };
        canceller.send(&wire::cancel(&client.cancel_key)).unwrap();
        assert!(canceller.receive_to_end().is_empty(), "a cancel request is not answered");
        assert_eq!(brief(&client.receive_until(b"Z")), ["E 57014", "Z I"]);
        assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    }
    drop(client);
    assert!(world.gateway.stop().success());
    let told = world.gateway.ledger().told();
    let session = told.iter().find(|event| event.name == "session.opened").unwrap().session;
    let cancels: Vec<u64> =
        told.iter().filter(|event| event.name == "cancel").map(|event| event.session).collect();
    assert_eq!(cancels, [session, session], "each is recorded under the session that it names");
}

#[test]
fn a_key_that_is_not_the_gateways_own_cancels_nothing() {
    let world = World::new(PERMIT_ALL);
    let mut client = world.client();
    sleeping(&mut client);
    // The server's own process number with the secret's bytes flipped, and the right number with another secret.
    let flipped: Vec<u8> = client.cancel_key.iter().map(|byte| byte ^ 0x55).collect();
    let mut secret = client.cancel_key.clone();
    *secret.last_mut().unwrap() ^= 1;
    let mut shorter = client.cancel_key.clone();
    shorter.pop();
    for key in [flipped, secret, shorter] {
        let mut canceller = Client::clear(world.gateway.address());
        canceller.send(&wire::cancel(&key)).unwrap();
        // Whether a key is known is never told; that a request is malformed may be.
        let answer = canceller.receive_to_end();
        assert!(answer.is_empty() || key.len() != client.cancel_key.len(), "{answer:?}");
    }
    assert_eq!(running(&world), "1");
    let mut canceller = Client::clear(world.gateway.address());
    canceller.send(&wire::cancel(&client.cancel_key)).unwrap();
    assert_eq!(brief(&client.receive_until(b"Z")), ["E 57014", "Z I"]);
}

#[test]
fn a_revoked_principal_is_out_at_once_and_stays_out() {
    let mut world = World::new(PERMIT_ALL);
    let token = world.token();
    let (mut busy, mut idle) = (world.gateway.login(&token), world.gateway.login(&token));
    let mut other = world.gateway.login(&world.issuer.token("dana", &["developers"]));
    sleeping(&mut busy);
    let said = revoke(&world.gateway, &["--principal", "idp:lee"]);
    assert!(said.contains("idp:lee") && said.contains('2'), "{said}");
    for client in [&mut busy, &mut idle] {
        let last = client.receive_to_end();
        assert_eq!(
            last.last().and_then(wire::Message::report).map(|report| report.code),
            Some("57P01".into()),
            "{last:?}"
        );
    }
    until("end of the revoked statement", ANSWER_MAX, || (running(&world) == "0").then_some(()));
    let refused = |world: &World| {
        let mut client = Client::tls(world.gateway.address(), world.gateway.tls());
        client.login(APP, DATABASE, &token).expect_err("a revoked principal stays out")
    };
    assert_eq!(refused(&world).severity, "FATAL");
    assert_eq!(other.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"], "nobody else notices");
    // Neither a new token nor a restart brings it back.
    let fresh = world.issuer.token("lee", &["developers", "dba"]);
    let mut client = Client::tls(world.gateway.address(), world.gateway.tls());
    client.login(APP, DATABASE, &fresh).expect_err("it is the principal that is revoked, not the token");
    drop(other);
    assert!(world.gateway.stop().success());
    world.gateway.restart();
    refused(&world);
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    let place = |name: &str, reason: Option<&str>| {
        let found = told.iter().position(|event| {
            event.name == name && reason.is_none_or(|reason| event.body["reason"] == reason)
        });
        found.unwrap_or_else(|| panic!("no {name} {reason:?} in {told:?}"))
    };
    assert!(
        place("revocation", None) < place("session.closed", Some("revoked")),
        "the ledger first, then the session"
    );
}

#[test]
fn one_session_can_be_revoked_alone() {
    let mut world = World::new(PERMIT_ALL);
    let token = world.token();
    let mut first = world.gateway.login(&token);
    let number = until("session in the ledger", ANSWER_MAX, || {
        world
            .gateway
            .ledger()
            .told()
            .iter()
            .find(|event| event.name == "session.opened")
            .map(|event| event.session)
    });
    let mut second = world.gateway.login(&token);
    revoke(&world.gateway, &["--session", &number.to_string()]);
    let last = first.receive_to_end();
    assert_eq!(last.last().and_then(wire::Message::report).map(|report| report.code), Some("57P01".into()));
    assert_eq!(second.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    drop(second);
    assert!(world.gateway.stop().success());
}

#[test]
fn a_session_ends_when_its_token_does() {
    let world = World::with(|setup| setup.policies(PERMIT_ALL).issuer("clock_skew = \"0s\""));
    let mut claims = world.issuer.claims("lee", &["developers"]);
    claims["exp"] = (gatebook_tests::issuer::now() + 4).into();
    let mut client = world.gateway.login(&world.issuer.sign(&claims));
    assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    let last = client.receive_to_end();
    assert_eq!(last.last().and_then(wire::Message::report).map(|report| report.code), Some("57P01".into()));
    assert!(gatebook_tests::issuer::now() >= claims["exp"].as_u64().unwrap(), "not before its time");
}

#[test]
fn a_session_that_is_idle_too_long_ends() {
    let world = World::with(|setup| setup.policies(PERMIT_ALL).resource("idle_timeout = \"1s\""));
    let mut client = world.client();
    assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    let last = client.receive_to_end();
    assert_eq!(last.last().and_then(wire::Message::report).map(|report| report.code), Some("57P05".into()));
}

#[test]
fn policies_are_taken_up_while_sessions_live() {
    let world = World::new(PERMIT_ALL);
    let mut client = world.client();
    assert_eq!(client.simple("SELECT id FROM wages WHERE id = 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    let policies = world.gateway.folder().join("policies/test.cedar");
    let reload = |text: &str| {
        std::fs::write(&policies, text).unwrap();
        run(Command::new("kill").args(["-HUP", &world.gateway.id().to_string()]));
    };
    reload(gatebook_tests::gateway::GUARD_WAGES);
    until("refusal under the new policies", ANSWER_MAX, || {
        (client.simple("SELECT id FROM wages WHERE id = 1") == ["E 42501", "Z I"]).then_some(())
    });
    // A broken edit keeps the old set, and says so.
    reload("permit (principal, action, resource;");
    world.gateway.process_ref().line("test.cedar", ANSWER_MAX);
    assert_eq!(client.simple("SELECT id FROM wages WHERE id = 1"), ["E 42501", "Z I"]);
    assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    // A principal that may no longer be its role is out at once.
    reload("permit (principal in Group::\"nobody\", action, resource);");
    let last = client.receive_to_end();
    assert_eq!(last.last().and_then(wire::Message::report).map(|report| report.code), Some("57P01".into()));
}

#[test]
fn a_gateway_that_is_asked_to_stop_says_goodbye() {
    let mut world = World::with(|setup| setup.policies(PERMIT_ALL).top("[limits]\ndrain_deadline = \"1s\""));
    let mut client = world.client();
    world.gateway.process().signal(rustix::process::Signal::TERM);
    let last = client.receive_to_end();
    assert_eq!(last.last().and_then(wire::Message::report).map(|report| report.code), Some("57P01".into()));
    assert!(world.gateway.process().wait(ANSWER_MAX).success());
    world.gateway.ledger().assert_sound();
    let told = world.gateway.ledger().told();
    let last = told.iter().rev().map(|event| &*event.name).find(|name| *name != "chain.head");
    assert_eq!(last, Some("gateway.stopped"));
}

/// In shadow mode everything is decided and recorded, and nothing is refused.
#[test]
fn a_shadowed_resource_refuses_nothing_and_records_what_it_would_refuse() {
    let mut world =
        World::with(|setup| setup.policies(gatebook_tests::gateway::GUARD_WAGES).resource("shadow = true"));
    let mut client = world.client();
    assert_eq!(client.simple("SELECT id FROM wages WHERE id = 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    drop(client);
    assert!(world.gateway.stop().success());
    let commands = world.gateway.ledger().commands();
    let decisions: Vec<&str> = commands.iter().map(|command| &*command.decision).collect();
    assert_eq!(decisions, ["shadow_refuse"]);
    assert_eq!(commands[0].ending.as_deref(), Some("completed"));
}

/// A group and a token stay out, after a restart too; a resource's sessions end and may come again.
#[test]
fn groups_tokens_and_resources_can_be_revoked() {
    let mut world = World::new(PERMIT_ALL);
    let comes = |world: &World, token: &str| {
        let mut client = Client::tls(world.gateway.address(), world.gateway.tls());
        client.login(APP, DATABASE, token).map(|()| client)
    };
    let ended = |client: &mut Client| {
        let last = client.receive_to_end();
        assert_eq!(
            last.last().and_then(wire::Message::report).map(|report| report.code),
            Some("57P01".into())
        );
    };
    let mut claims = world.issuer.claims("kim", &["developers"]);
    claims["jti"] = "stolen".into();
    let stolen = world.issuer.sign(&claims);
    let (contractor, own) =
        (world.issuer.token("lee", &["contractors"]), world.issuer.token("kim", &["developers"]));
    let mut by_group = comes(&world, &contractor).expect("it may");
    let mut by_token = comes(&world, &stolen).expect("it may");
    let mut other = comes(&world, &own).expect("it may");
    revoke(&world.gateway, &["--group", "contractors"]);
    ended(&mut by_group);
    revoke(&world.gateway, &["--token", "jti:stolen"]);
    ended(&mut by_token);
    assert_eq!(other.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    revoke(&world.gateway, &["--resource", gatebook_tests::gateway::RESOURCE]);
    ended(&mut other);
    for restarted in [false, true] {
        if restarted {
            assert!(world.gateway.stop().success());
            world.gateway.restart();
        }
        assert!(comes(&world, &contractor).is_err(), "the group stays out");
        assert!(comes(&world, &stolen).is_err(), "the token stays out");
        assert!(comes(&world, &own).is_ok(), "the same person with a token of their own");
    }
    let several = world.gateway.command("revoke").args(["--group", "a", "--session", "1"]).output().unwrap();
    assert!(!several.status.success(), "exactly one of them");
}

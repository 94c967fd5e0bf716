//! What an issuer says after it gave a token: that a login is over, that a token is not active any more.

use gatebook_tests::World;
use gatebook_tests::certificates::write_private;
use gatebook_tests::gateway::{PERMIT_ALL, Setup};
use gatebook_tests::https::{Https, Reply};
use gatebook_tests::issuer::{ASKER, AUDIENCE, Key, now, unsigned};
use gatebook_tests::ledger::Event;
use gatebook_tests::machine::{ANSWER_MAX, until};
use gatebook_tests::postgres::{APP, DATABASE};
use gatebook_tests::wire::{self, Client};
use serde_json::{Value, json};

const ROW: [&str; 4] = ["T", "D 1", "C SELECT 1", "Z I"];

/// Everybody does anything; developers hand it down.
const POLICIES: &str = "\
    permit (principal, action, resource);\n\
    permit (principal in Group::\"developers\", action == Action::\"delegate\", resource == Gateway::\"this\");\n\
    permit (principal in Group::\"ops\", action == Action::\"revoke\", resource == Gateway::\"this\");\n";

fn with_logouts(setup: Setup<'_>) -> Setup<'_> {
    setup
        .policies(POLICIES)
        .issuer(&format!("logout_audience = \"{AUDIENCE}\""))
        .admin("")
        .top("[delegation]")
}

/// A token of lee's, of this login where one is named, issued so many seconds ago.
fn token(world: &World, sid: Option<&str>, ago: i64) -> String {
    let mut claims = world.issuer.claims("lee", &["developers"]);
    claims["iat"] = now().saturating_add_signed(-ago).into();
    claims["jti"] = format!("{sid:?} {ago}").into();
    if let Some(sid) = sid {
        claims["sid"] = sid.into();
    }
    world.issuer.sign(&claims)
}

fn tell(admin: &Https, logout_token: &str) -> Reply {
    admin.form("/backchannel-logout", &[("logout_token", logout_token)])
}

fn is_let_in(world: &World, token: &str) -> bool {
    Client::tls(world.gateway.address(), world.gateway.tls()).login(APP, DATABASE, token).is_ok()
}

fn last_words(client: &mut Client) -> Option<String> {
    client.receive_to_end().last().and_then(wire::Message::report).map(|report| report.code)
}

fn place(told: &[Event], name: &str, field: &str, value: &str) -> usize {
    told.iter()
        .position(|event| event.name == name && event.body[field] == value)
        .unwrap_or_else(|| panic!("no {name} with {field} {value}: {told:#?}"))
}

#[test]
fn a_logout_ends_the_sessions_of_its_login_and_whoever_logs_in_again_is_let_in() {
    let mut world = World::with(with_logouts);
    let admin = world.gateway.admin();
    let (this, that, nameless) =
        (token(&world, Some("one"), 9), token(&world, Some("two"), 9), token(&world, None, 9));
    let mut ends: Vec<Client> = [&this, &nameless].map(|token| world.gateway.login(token)).into();
    let mut stays = world.gateway.login(&that);
    let logout = world.issuer.sign(&world.issuer.logout_claims(Some("lee"), Some("one")));
    assert_eq!(tell(&admin, &logout).status, 200);
    for client in &mut ends {
        assert_eq!(last_words(client).as_deref(), Some("57P01"));
    }
    assert_eq!(stays.simple("SELECT 1"), ROW, "another login goes on");
    assert_eq!([&this, &nameless].map(|token| is_let_in(&world, token)), [false, false]);
    let again = token(&world, Some("three"), 0);
    assert!(is_let_in(&world, &again));
    // Without a login, all of them are meant that were there by then.
    let logout = world.issuer.sign(&world.issuer.logout_claims(Some("lee"), None));
    assert_eq!(tell(&admin, &logout).status, 200);
    assert_eq!(last_words(&mut stays).as_deref(), Some("57P01"));
    let later = token(&world, Some("four"), -9);
    let who_is_let_in =
        |world: &World| [&this, &that, &nameless, &again, &later].map(|token| is_let_in(world, token));
    assert_eq!(who_is_let_in(&world), [false, false, false, false, true]);
    let ops = world.admin_token("olga", &["ops"]);
    let out = admin.get("/v1/revocations", Some(&ops)).json();
    assert!(out["logouts"]["logins"]["idp:one"].is_u64() && out["principals"] == json!([]), "{out}");
    assert!(world.gateway.stop().success());
    world.gateway.restart();
    assert_eq!(who_is_let_in(&world), [false, false, false, false, true], "a restart brings nobody back");
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    assert!(
        place(&told, "revocation", "target", "logout") < place(&told, "session.closed", "reason", "revoked")
    );
    let logouts: Vec<&Value> = told
        .iter()
        .filter(|event| event.name == "revocation")
        .map(|event| &event.payload["logout"])
        .collect();
    assert_eq!((logouts.len(), &logouts[0]["login"]), (2, &json!("idp:one")), "{logouts:?}");
}

#[test]
fn what_was_handed_down_ends_with_the_login_also_after_a_restart() {
    let mut world = World::with(with_logouts);
    let exchange = |world: &World, subject: &str| {
        let reply = world.gateway.admin().form(
            "/token",
            &[
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("subject_token", subject),
                ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
                ("audience", "orders-db"),
                ("scope", "read"),
            ],
        );
        reply.json()["access_token"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned()
    };
    let one = exchange(&world, &token(&world, Some("one"), 9));
    let two = exchange(&world, &token(&world, Some("two"), 9));
    let mut first = world.gateway.login(&one);
    let told = |world: &World, sid: &str| {
        let logout = world.issuer.sign(&world.issuer.logout_claims(Some("lee"), Some(sid)));
        assert_eq!(tell(&world.gateway.admin(), &logout).status, 200);
    };
    told(&world, "one");
    assert_eq!(last_words(&mut first).as_deref(), Some("57P01"));
    assert_eq!([&one, &two].map(|token| is_let_in(&world, token)), [false, true]);
    assert!(world.gateway.stop().success());
    world.gateway.restart();
    assert_eq!([&one, &two].map(|token| is_let_in(&world, token)), [false, true]);
    let mut second = world.gateway.login(&two);
    told(&world, "two");
    assert_eq!(last_words(&mut second).as_deref(), Some("57P01"));
    assert!(!is_let_in(&world, &two));
}

#[test]
fn what_is_no_logout_of_the_issuer_ends_nothing() {
    let mut world = World::with(with_logouts);
    let admin = world.gateway.admin();
    let mut client = world.gateway.login(&token(&world, Some("one"), 9));
    let good = || world.issuer.logout_claims(Some("lee"), Some("one"));
    let changed = |name: &str, value: Value| {
        let mut claims = good();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value,
        }
        world.issuer.sign(&claims)
    };
    let neither = world.issuer.sign(&world.issuer.logout_claims(None, None));
    let foreign = Key::new("first").sign(&Key::new("first").header(), &good());
    let plain = unsigned(&json!({"alg": "none"}), &good()) + ".";
    let typed = |typ: &str| {
        world.issuer.with_key(|key| {
            let mut header = key.header();
            header["typ"] = typ.into();
            key.sign(&header, &good())
        })
    };
    let logout = json!("http://schemas.openid.net/event/backchannel-logout");
    let mut causes = vec!["replayed"];
    for (what, token, cause) in [
        ("of another issuer", changed("iss", json!("https://evil.example")), "unknown_issuer"),
        ("for another client", changed("aud", json!("another")), "wrong_audience"),
        ("for nobody", changed("aud", Value::Null), "wrong_audience"),
        ("of no event", changed("events", Value::Null), "wrong_purpose"),
        ("of another event", changed("events", json!({"urn:another": {}})), "wrong_purpose"),
        (
            "of an event that is none",
            changed("events", json!({ logout.as_str().unwrap(): true })),
            "wrong_purpose",
        ),
        ("of a list of events", changed("events", json!([logout])), "wrong_purpose"),
        ("with a nonce", changed("nonce", json!("n")), "wrong_purpose"),
        ("expired", changed("exp", json!(now() - 60)), "expired"),
        ("without an end", changed("exp", Value::Null), "bad_claim"),
        ("of the future", changed("iat", json!(now() + 600)), "not_yet_valid"),
        ("of no time", changed("iat", Value::Null), "bad_claim"),
        ("without an id", changed("jti", Value::Null), "bad_claim"),
        ("with an odd login", changed("sid", json!("a\nb")), "bad_claim"),
        ("with a login that is no text", changed("sid", json!(7)), "bad_claim"),
        ("of nobody", neither, "no_subject"),
        ("signed by somebody else", foreign, "bad_signature"),
        ("not signed", plain, "algorithm_not_allowed"),
        ("an access token by its type", typed("at+jwt"), "wrong_purpose"),
        ("an ID token", self::token(&world, Some("one"), 9), "wrong_purpose"),
        ("no token", "nonsense".to_owned(), "malformed"),
    ] {
        let reply = tell(&admin, &token);
        assert_eq!(
            (reply.status, &reply.json()["error"]),
            (400, &json!("invalid_request")),
            "{what}: {reply:?}"
        );
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        causes.push(cause);
        assert_eq!(client.simple("SELECT 1"), ROW, "{what}");
    }
    assert_eq!(admin.get("/backchannel-logout", None).status, 405);
    assert_eq!(admin.form("/backchannel-logout", &[]).status, 400);
    // A logout token opens nothing.
    assert!(!is_let_in(&world, &typed("logout+jwt")) && !is_let_in(&world, &changed("jti", json!("a"))));
    // A token that outlives what is remembered of a logout would come back in after it.
    let mut claims = world.issuer.claims("lee", &[]);
    claims["exp"] = (now() + 40 * 86_400).into();
    assert!(!is_let_in(&world, &world.issuer.sign(&claims)));
    // And a good one, which counts once.
    let once = typed("logout+jwt");
    assert_eq!([tell(&admin, &once).status, tell(&admin, &once).status], [200, 400]);
    assert_eq!(last_words(&mut client).as_deref(), Some("57P01"));
    assert!(world.gateway.stop().success());
    let told = world.gateway.ledger().told();
    assert_eq!(told.iter().filter(|event| event.name == "revocation").count(), 1);
    for cause in causes {
        let refused = |event: &Event| event.name == "login.refused" && event.body["cause"] == cause;
        assert!(told.iter().any(refused), "{cause}");
    }
}

#[test]
fn an_issuer_that_was_not_asked_for_logouts_logs_nobody_out() {
    let world = World::with(|setup| setup.policies(PERMIT_ALL).admin(""));
    let mut client = world.gateway.login(&token(&world, Some("one"), 9));
    let logout = world.issuer.sign(&world.issuer.logout_claims(Some("lee"), Some("one")));
    assert_eq!(tell(&world.gateway.admin(), &logout).status, 400);
    assert_eq!(client.simple("SELECT 1"), ROW);
}

/// A gateway that asks its issuer each second; the client's secret lies beside its configuration.
fn with_introspection(unanswered_max: &str) -> (World, tempfile::TempDir) {
    let folder = gatebook_tests::machine::temporary();
    let secret = folder.path().join("asker.secret");
    write_private(&secret, ASKER.1);
    let world = World::with(|setup| {
        setup.policies(POLICIES).admin("").top("[delegation]").issuer(&format!(
            "introspection = {{ client_id = \"{}\", client_secret = {{ file = \"{}\" }}, interval = \"1s\"{unanswered_max} }}",
            ASKER.0,
            secret.display(),
        ))
    });
    // The secret is read each time it is needed.
    (world, folder)
}

#[test]
fn a_token_that_its_issuer_calls_inactive_ends_its_sessions_and_stays_out() {
    let (mut world, _folder) = with_introspection("");
    let (ended, kept) = (token(&world, None, 9), token(&world, None, 8));
    let mut clients: Vec<Client> = [&ended, &ended].map(|token| world.gateway.login(token)).into();
    let mut other = world.gateway.login(&kept);
    until("a question about each", ANSWER_MAX, || (world.issuer.questions() >= 2).then_some(()));
    for client in clients.iter_mut().chain([&mut other]) {
        assert_eq!(client.simple("SELECT 1"), ROW, "what is active goes on");
    }
    world.issuer.end(&ended);
    for client in &mut clients {
        assert_eq!(last_words(client).as_deref(), Some("57P01"));
    }
    assert_eq!(other.simple("SELECT 1"), ROW);
    assert_eq!([&ended, &kept].map(|token| is_let_in(&world, token)), [false, true]);
    // Nobody answers: what was not called inactive goes on, as nothing else was asked for.
    world.issuer.be_silent(true);
    let before = world.issuer.questions();
    until("further questions", ANSWER_MAX, || (world.issuer.questions() >= before + 3).then_some(()));
    assert_eq!(other.simple("SELECT 1"), ROW);
    world.issuer.be_silent(false);
    world.issuer.end(&kept);
    assert_eq!(last_words(&mut other).as_deref(), Some("57P01"));
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    assert!(
        place(&told, "revocation", "target", "token") < place(&told, "session.closed", "reason", "revoked")
    );
    let by: Vec<&Value> =
        told.iter().filter(|event| event.name == "revocation").map(|event| &event.payload["by"]).collect();
    assert_eq!(by, ["introspection", "introspection"], "once for each token");
    let shown = told.iter().map(|event| format!("{event:?}")).collect::<String>();
    assert!(!shown.contains(&ended[..60]) && !shown.contains(ASKER.1));
}

#[test]
fn where_the_configuration_wants_it_no_answer_ends_a_session_too() {
    let (mut world, _folder) = with_introspection(", unanswered_max = \"2s\"");
    let token = token(&world, None, 9);
    let mut client = world.gateway.login(&token);
    until("a question", ANSWER_MAX, || (world.issuer.questions() >= 1).then_some(()));
    assert_eq!(client.simple("SELECT 1"), ROW);
    world.issuer.be_silent(true);
    assert_eq!(last_words(&mut client).as_deref(), Some("57P01"));
    world.issuer.be_silent(false);
    assert!(!is_let_in(&world, &token));
    assert!(world.gateway.stop().success());
    let told = world.gateway.ledger().told();
    let why =
        told.iter().find(|event| event.name == "revocation").map(|event| event.payload["reason"].to_string());
    assert!(why.is_some_and(|why| why.contains("did not say in time")), "{told:?}");
}

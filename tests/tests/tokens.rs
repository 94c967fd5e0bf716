//! Every kind of bad token is refused, in the same words, and recorded.

use gatebook_tests::World;
use gatebook_tests::issuer::{Key, encode, now, unsigned};
use gatebook_tests::machine::{ANSWER_MAX, until};
use gatebook_tests::postgres::{APP, DATABASE, READER};
use gatebook_tests::wire::{Client, Report};
use serde_json::{Value, json};

fn attempt(world: &World, token: &str) -> Result<(), Report> {
    Client::tls(world.gateway.address(), world.gateway.tls()).login(APP, DATABASE, token)
}

fn with(mut claims: Value, change: impl FnOnce(&mut Value)) -> Value {
    change(&mut claims);
    claims
}

/// What is wrong, and the token.
fn bad_tokens(world: &World) -> Vec<(&'static str, String)> {
    let issuer = &world.issuer;
    let good = issuer.claims("lee", &["developers"]);
    let signed = |change: fn(&mut Value)| issuer.sign(&with(good.clone(), change));
    let headed = |change: fn(&mut Value)| issuer.with_key(|key| key.sign(&with(key.header(), change), &good));
    let token = issuer.sign(&good);
    let (text, signature) = token.rsplit_once('.').unwrap();
    let public = issuer.with_key(Key::jwk);
    let hmac = |secret: &[u8]| {
        let text = unsigned(&json!({"alg": "HS256", "typ": "JWT", "kid": "first"}), &good);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        format!("{text}.{}", encode(ring::hmac::sign(&key, text.as_bytes()).as_ref()))
    };
    let flipped: String = {
        let last = if signature.starts_with('A') { 'B' } else { 'A' };
        format!("{text}.{last}{}", &signature[1..])
    };
    vec![
        ("no token", "hunter2".to_owned()),
        ("nothing", String::new()),
        ("only dots", "..".to_owned()),
        ("unsigned", text.to_owned()),
        ("an empty signature", format!("{text}.")),
        ("alg none", format!("{}.", unsigned(&json!({"alg": "none", "typ": "JWT"}), &good))),
        ("alg none with a signature", format!("{}.{signature}", unsigned(&json!({"alg": "none"}), &good))),
        ("alg NONE", format!("{}.", unsigned(&json!({"alg": "NONE", "kid": "first"}), &good))),
        ("a flipped signature", flipped),
        ("claims of another token", {
            let other = unsigned(&json!({"alg": "ES256", "kid": "first"}), &issuer.claims("root", &["dba"]));
            format!("{other}.{signature}")
        }),
        (
            "a key of the same name that is not the issuer's",
            Key::new("first").sign(&json!({"alg": "ES256", "kid": "first"}), &good),
        ),
        ("an unknown key", Key::new("other").sign(&json!({"alg": "ES256", "kid": "other"}), &good)),
        ("a key that the token brings along", {
            let own = Key::new("own");
            own.sign(&json!({"alg": "ES256", "kid": "own", "jwk": own.jwk()}), &good)
        }),
        ("the public key as a shared secret", hmac(public.to_string().as_bytes())),
        ("the public key's coordinate as a shared secret", hmac(public["x"].as_str().unwrap().as_bytes())),
        ("another algorithm's name", headed(|header| header["alg"] = "RS256".into())),
        ("a critical header that is unknown", headed(|header| header["crit"] = json!(["b64"]))),
        ("expired", signed(|claims| claims["exp"] = (now() - 600).into())),
        (
            "no expiry",
            signed(|claims| {
                claims.as_object_mut().unwrap().remove("exp");
            }),
        ),
        ("an expiry that is no number", signed(|claims| claims["exp"] = "tomorrow".into())),
        ("not yet valid", signed(|claims| claims["nbf"] = (now() + 600).into())),
        ("issued in the future", signed(|claims| claims["iat"] = (now() + 600).into())),
        ("another audience", signed(|claims| claims["aud"] = "another-service".into())),
        (
            "no audience",
            signed(|claims| {
                claims.as_object_mut().unwrap().remove("aud");
            }),
        ),
        (
            "several audiences and no party",
            signed(|claims| claims["aud"] = json!(["gatebook", "another-service"])),
        ),
        ("given to another party", signed(|claims| claims["azp"] = "another-service".into())),
        ("another issuer", signed(|claims| claims["iss"] = "https://idp.example".into())),
        (
            "the issuer with a slash more",
            signed(|claims| claims["iss"] = format!("{}/", claims["iss"].as_str().unwrap()).into()),
        ),
        (
            "no subject",
            signed(|claims| {
                claims.as_object_mut().unwrap().remove("sub");
            }),
        ),
        ("an empty subject", signed(|claims| claims["sub"] = "".into())),
        ("an access token where only ID tokens are taken", headed(|header| header["typ"] = "at+jwt".into())),
        ("a logout token", signed(|claims| claims["events"] = json!({"x": {}}))),
        ("too long", signed(|claims| claims["padding"] = "x".repeat(20_000).into())),
    ]
}

#[test]
fn each_bad_token_is_refused_in_the_same_words_and_recorded() {
    let mut world = World::new(gatebook_tests::gateway::PERMIT_ALL);
    attempt(&world, &world.token()).expect("a good token is good");
    let bad = bad_tokens(&world);
    let mut words = Vec::new();
    for (what, token) in &bad {
        let report = attempt(&world, token).err().unwrap_or_else(|| panic!("{what} is let in"));
        assert_eq!((&*report.severity, &*report.code), ("FATAL", "28P01"), "{what}: {report:?}");
        words.push(report.message);
    }
    words.dedup();
    assert_eq!(words.len(), 1, "what was wrong is for the operator: {words:?}");
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    let refused: u64 = told
        .iter()
        .filter(|event| event.name == "login.refused")
        .map(|event| event.body["count"].as_u64().unwrap())
        .sum();
    assert_eq!(refused, bad.len() as u64, "each is counted");
    let causes: std::collections::BTreeSet<String> = told
        .iter()
        .filter(|event| event.name == "login.refused")
        .map(|event| event.body["cause"].as_str().unwrap().to_owned())
        .collect();
    assert!(causes.len() >= 8, "each kind is told apart: {causes:?}");
    assert_eq!(told.iter().filter(|event| event.name == "session.opened").count(), 1);
    let upstream =
        world.postgres.log().into_iter().filter(|line| line.contains("connection authorized: user=app_rw"));
    assert_eq!(upstream.count(), 1, "the server never heard of a refused login");
}

/// A token's text must not be found in anything that the gateway writes.
#[test]
fn no_token_and_no_password_is_found_in_what_the_gateway_writes() {
    let mut world = World::new(gatebook_tests::gateway::PERMIT_ALL);
    let token = world.token();
    let mut client = world.gateway.login(&token);
    client.simple("SELECT 1");
    let refused =
        world.issuer.sign(&with(world.issuer.claims("lee", &[]), |claims| claims["aud"] = "x".into()));
    attempt(&world, &refused).unwrap_err();
    // A token that is sent as the user's name, as some clients do.
    let mut confused = Client::tls(world.gateway.address(), world.gateway.tls());
    confused.login(&token, DATABASE, &token).unwrap_err();
    drop(client);
    assert!(world.gateway.stop().success());
    let secrets = [
        &*token,
        &refused,
        gatebook_tests::postgres::APP_PASSWORD,
        gatebook_tests::postgres::CATALOG_PASSWORD,
    ];
    let said = world.gateway.process().lines().join("\n");
    let mut written = vec![("the gateway's own words".to_owned(), said.into_bytes())];
    let mut folders = vec![world.gateway.ledger().folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => {
                    written.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap()))
                }
            }
        }
    }
    for (place, bytes) in written {
        for secret in &secrets {
            // The signature alone is a secret too; its first characters are enough to find it.
            let part = secret.rsplit('.').next().unwrap();
            let found = bytes
                .windows(part.len().min(24))
                .any(|window| window == &part.as_bytes()[..part.len().min(24)]);
            let which = secrets.iter().position(|other| other == secret);
            assert!(!found, "{place} holds a secret ({which:?} of those above)");
        }
    }
}

#[test]
fn a_token_that_may_not_be_this_role_is_refused_and_recorded() {
    let mut world = World::new(
        "permit (principal in Group::\"developers\", action == Action::\"login\", resource == Role::\"orders-db/app_ro\");\n\
         permit (principal, action in Action::\"read\", resource);",
    );
    let token = world.token();
    let report = attempt(&world, &token).expect_err("the role is not permitted");
    assert_eq!((&*report.severity, &*report.code), ("FATAL", "28000"), "{report:?}");
    let stranger = world.issuer.token("mallory", &["interns"]);
    for (role, database) in
        [(READER, DATABASE), ("postgres", DATABASE), (READER, "postgres"), ("nobody", "nothing")]
    {
        let mut client = Client::tls(world.gateway.address(), world.gateway.tls());
        let other = client.login(role, database, &stranger).expect_err("nothing is permitted");
        assert_eq!(other, report, "what exists is not told: {role} {database}");
    }
    let mut client = Client::tls(world.gateway.address(), world.gateway.tls());
    client.login(READER, DATABASE, &token).expect("this role is permitted");
    assert_eq!(client.simple("SELECT id FROM orders WHERE id = 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    drop(client);
    assert!(world.gateway.stop().success());
    let told = world.gateway.ledger().told();
    let refused: u64 = told
        .iter()
        .filter(|event| event.name == "login.refused")
        .map(|event| event.body["count"].as_u64().unwrap())
        .sum();
    assert_eq!(refused, 5);
}

#[test]
fn a_rotated_key_is_found_and_a_dropped_one_is_no_longer_believed() {
    let world = World::new(gatebook_tests::gateway::PERMIT_ALL);
    let old = world.token();
    attempt(&world, &old).expect("the first key is published");
    world.issuer.rotate("second", true);
    // Unknown keys make the gateway ask at most once in ten seconds, and it has just asked.
    let fresh = world.token();
    until("second key", ANSWER_MAX, || attempt(&world, &fresh).ok());
    attempt(&world, &old).expect("the first is still published");
    let before = world.issuer.key_requests();
    for n in 0..50 {
        let unknown = Key::new(&format!("unknown-{n}"));
        let token = unknown.sign(&unknown.header(), &world.issuer.claims("lee", &[]));
        attempt(&world, &token).unwrap_err();
    }
    let fetched = world.issuer.key_requests() - before;
    assert!(fetched <= 6, "50 unknown keys made the gateway fetch {fetched} times");
}

//! What is handed down: a part of somebody's rights, for a while, and never more.

use std::process::{Command, Stdio};

use gatebook_tests::World;
use gatebook_tests::https::{Https, Reply};
use gatebook_tests::issuer::now;
use gatebook_tests::ledger::Event;
use gatebook_tests::machine::{self, ANSWER_MAX, run, until};
use gatebook_tests::postgres::{APP, DATABASE};
use gatebook_tests::wire::{self, Client, Report};
use serde_json::{Value, json};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Developers do anything but wages, and may hand it down; agents read; operators look after it.
const POLICIES: &str = "\
    permit (principal in Group::\"developers\", action, resource in Resource::\"orders-db\");\n\
    permit (principal in Group::\"agents\", action in [Action::\"login\", Action::\"read\"], resource in Resource::\"orders-db\");\n\
    forbid (principal, action, resource in Table::\"orders-db/orders/public.wages\");\n\
    permit (principal in Group::\"developers\", action == Action::\"delegate\", resource == Gateway::\"this\");\n\
    permit (principal in Group::\"agents\", action == Action::\"delegate\", resource == Gateway::\"this\");\n\
    permit (principal in Group::\"ops\", action in [Action::\"read_delegations\", Action::\"revoke\"], resource == Gateway::\"this\");\n";

fn world() -> World {
    World::with(|setup| {
        setup.policies(POLICIES).issuer("clock_skew = \"0s\"").admin("").top("[delegation]\ndepth_max = 3")
    })
}

fn exchange(admin: &Https, subject: &str, more: &[(&str, &str)]) -> Reply {
    let mut fields = vec![("grant_type", GRANT), ("subject_token", subject), ("subject_token_type", JWT)];
    fields.extend_from_slice(more);
    admin.form("/token", &fields)
}

/// The token and the id of what is handed down.
fn handed(admin: &Https, subject: &str, more: &[(&str, &str)]) -> (String, String) {
    let reply = exchange(admin, subject, more);
    assert_eq!(reply.status, 200, "{more:?}: {reply:?}");
    let json = reply.json();
    let text = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("no {name}: {json}")).to_owned();
    (text("access_token"), text("delegation"))
}

const READ: &[(&str, &str)] = &[("audience", "orders-db"), ("scope", "read")];
const DEEP: &[(&str, &str)] = &[("audience", "orders-db"), ("scope", "read insert"), ("depth", "2")];

fn attempt(world: &World, token: &str) -> Result<Client, Report> {
    let mut client = Client::tls(world.gateway.address(), world.gateway.tls());
    client.login(APP, DATABASE, token).map(|()| client)
}

fn let_in(world: &World, token: &str) -> Client {
    attempt(world, token).unwrap_or_else(|refused| panic!("the login is refused: {refused:?}"))
}

fn refused(world: &World, token: &str) -> String {
    attempt(world, token).err().expect("it is let in").code
}

fn last_words(client: &mut Client) -> Option<String> {
    client.receive_to_end().last().and_then(wire::Message::report).map(|report| report.code)
}

fn of<'a>(told: &'a [Event], name: &'a str) -> impl Iterator<Item = &'a Event> {
    told.iter().filter(move |event| event.name == name)
}

const ROW: [&str; 4] = ["T", "D 1", "C SELECT 1", "Z I"];
const NO: [&str; 2] = ["E 42501", "Z I"];
const CUSTOMERS: &str = "SELECT id FROM customers WHERE id = 1";
const ORDERS: &str = "SELECT id FROM orders WHERE id = 1";
const INSERT: &str = "INSERT INTO journal VALUES (1, 1, 'x')";

#[test]
fn what_is_handed_down_does_less_and_the_chain_is_recorded() {
    let mut world = world();
    let admin = world.gateway.admin();
    let lee = world.token();
    let (child, id) = handed(
        &admin,
        &lee,
        &[
            ("audience", "orders-db"),
            ("scope", "read insert"),
            ("table", "public.customers"),
            ("table", "public.journal"),
            ("depth", "1"),
            ("name", "planner"),
        ],
    );
    let mut client = let_in(&world, &child);
    assert_eq!(client.simple(CUSTOMERS), ROW);
    assert_eq!(client.simple(INSERT), ["C INSERT 0 1", "Z I"]);
    assert_eq!(client.simple(ORDERS), NO, "another table");
    assert_eq!(client.simple("DELETE FROM journal"), NO, "another action");
    assert_eq!(client.simple("SELECT id FROM wages WHERE id = 1"), NO, "what lee may not, nobody hands down");
    // An agent with an identity of its own gets no more than policy gives it: it only reads.
    let bot = world.issuer.token("bot", &["agents"]);
    let (grandchild, second) =
        handed(&admin, &child, &[("actor_token", &bot), ("actor_token_type", JWT), ("rows", "3")]);
    let mut inner = let_in(&world, &grandchild);
    assert_eq!(inner.simple(CUSTOMERS), ROW);
    assert_eq!(inner.simple(INSERT), NO, "handed down, and not the agent's by policy");
    assert_eq!(inner.simple(ORDERS), NO);
    let shown = inner.simple("SELECT id FROM customers ORDER BY id LIMIT 3");
    assert_eq!(shown, ["T", "D 1", "D 2", "D 3", "C SELECT 3", "Z I"]);
    let shown = inner.simple("SELECT id FROM customers ORDER BY id");
    assert!(shown.iter().filter(|message| message.starts_with('D')).count() <= 3, "{shown:?}");
    assert!(shown.iter().any(|message| message.starts_with("E ")), "{shown:?}");
    assert!(!shown.iter().any(|message| message.starts_with('C')), "no completion of a part: {shown:?}");
    let mut own = let_in(&world, &lee);
    assert_eq!(own.simple(ORDERS), ROW, "lee has what lee had");
    let operator = world.admin_token("olga", &["ops"]);
    let listed = admin.get("/v1/delegations", Some(&operator)).json();
    assert_eq!(listed["delegations"].as_array().map(Vec::len), Some(2), "{listed}");
    assert_eq!(listed["delegations"][1]["parent"], *id);
    assert!(!listed.to_string().contains(&child[..40]), "no token is ever listed");
    assert_eq!(admin.get("/v1/delegations", Some(&lee)).status, 401);
    assert_eq!(admin.get("/jwks.json", None).json()["keys"][0]["crv"], "Ed25519");
    drop((client, own));
    drop(inner);
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    let made: Vec<&Event> = of(&told, "delegation.created").collect();
    assert_eq!(made.len(), 2);
    assert_eq!((&made[0].body["delegation"], &made[1].body["parent"]), (&json!(id), &json!(id)));
    let opened: Vec<&Value> = of(&told, "session.opened")
        .map(|event| &event.payload)
        .filter(|payload| payload["actors"][0].is_object())
        .collect();
    let chain = |payload: &Value| -> Vec<(String, String)> {
        let actors = payload["actors"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        actors.iter().map(|actor| (text(&actor["delegation"]), text(&actor["name"]))).collect()
    };
    assert_eq!(chain(opened[0]), [(id.clone(), "planner".to_owned())]);
    assert_eq!(chain(opened[1]), [(id.clone(), "planner".to_owned()), (second, "bot".to_owned())]);
    assert_eq!(opened[1]["principal"]["subject"], "lee");
    let errors: Vec<&str> =
        of(&told, "command").filter_map(|event| event.payload["errors"][0].as_str()).collect();
    assert_eq!(
        errors.iter().filter(|error| error.starts_with(&format!("delegation {id} does not reach"))).count(),
        4,
        "{errors:?}"
    );
    let everything: String = told.iter().map(|event| format!("{}{}", event.body, event.payload)).collect();
    assert!(!everything.contains(&child[..40]), "no token is ever recorded");
}

#[test]
fn ending_one_ends_its_subtree_at_once_and_for_good() {
    let mut world = world();
    let admin = world.gateway.admin();
    let lee = world.token();
    let (parent, parent_id) = handed(&admin, &lee, DEEP);
    let (child, _) = handed(&admin, &parent, &[("depth", "1")]);
    let (grandchild, _) = handed(&admin, &child, &[("scope", "read")]);
    let (sibling, _) = handed(&admin, &lee, READ);
    let (limited, _) = handed(&admin, &lee, &[READ, &[("commands", "2")]].concat());
    let [mut first, mut second, mut third, mut other] =
        [&parent, &child, &grandchild, &sibling].map(|token| let_in(&world, token));
    assert_eq!(third.simple(CUSTOMERS), ROW);
    // The commands handed down are used up, in one session or in another.
    let mut counted = let_in(&world, &limited);
    assert_eq!(counted.simple(CUSTOMERS), ROW);
    drop(counted);
    let mut counted = let_in(&world, &limited);
    assert_eq!(counted.simple(CUSTOMERS), ROW);
    assert_eq!(counted.simple(CUSTOMERS), NO);
    // The child ends itself: the sessions of what came after it end with it, the parent's lives on.
    assert_eq!(admin.form("/revoke", &[("token", &child)]).status, 200);
    assert_eq!(last_words(&mut second).as_deref(), Some("57P01"));
    assert_eq!(last_words(&mut third).as_deref(), Some("57P01"));
    assert_eq!(first.simple(CUSTOMERS), ROW);
    for stolen in [&child, &grandchild] {
        assert_eq!(refused(&world, stolen), "28P01");
        assert_eq!(exchange(&admin, stolen, READ).status, 400, "nor does it hand anything down");
    }
    assert_eq!(admin.form("/revoke", &[("token", &child)]).status, 200, "what is over is no mistake");
    // After a restart everything is as it was: what lived lives, what was ended stays so, and what cannot be counted on is over.
    assert!(world.gateway.stop().success());
    world.gateway.restart();
    let admin = world.gateway.admin();
    assert_eq!(let_in(&world, &parent).simple(CUSTOMERS), ROW);
    let mut other_again = let_in(&world, &sibling);
    for over in [&child, &grandchild, &limited] {
        assert_eq!(refused(&world, over), "28P01");
    }
    drop((first, other.simple(CUSTOMERS)));
    // An operator ends one by its id.
    let mut again = let_in(&world, &parent);
    let operator = world.admin_token("olga", &["ops"]);
    let path = format!("/v1/delegations/{parent_id}");
    assert_eq!(admin.ask("DELETE", &path, Some(&world.admin_token("ned", &[])), "", "").status, 403);
    assert_eq!(admin.ask("DELETE", &path, Some(&operator), "", "").status, 200);
    assert_eq!(last_words(&mut again).as_deref(), Some("57P01"));
    assert_eq!(admin.ask("DELETE", &path, Some(&operator), "", "").status, 404);
    // Whoever is revoked takes everything along that was handed down.
    assert_eq!(other_again.simple(CUSTOMERS), ROW);
    run(world.gateway.command("revoke").args(["--principal", "idp:lee", "--reason", "left"]));
    assert_eq!(last_words(&mut other_again).as_deref(), Some("57P01"));
    assert!(matches!(&*refused(&world, &sibling), "28P01" | "28000"));
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    let reasons: Vec<&Value> = of(&told, "delegation.ended").map(|event| &event.body["reason"]).collect();
    assert_eq!(reasons, ["ended", "revoked"]);
    let place = |name: &str, field: &str, value: &str| {
        told.iter().position(|event| event.name == name && event.body[field] == value)
    };
    assert!(
        place("delegation.ended", "reason", "ended") < place("session.closed", "reason", "revoked"),
        "the ledger first"
    );
    let used_up =
        of(&told, "command").filter(|event| event.payload["errors"].to_string().contains("used up")).count();
    assert_eq!(used_up, 1);
    let over = of(&told, "login.refused").filter(|event| event.body["cause"] == "expired").count();
    assert!(over >= 2, "{over}");
}

#[test]
fn nobody_gets_more_than_was_handed_down() {
    let mut world = world();
    let admin = world.gateway.admin();
    let lee = world.token();
    let narrow: &[(&str, &str)] = &[
        ("audience", "orders-db"),
        ("scope", "select insert"),
        ("table", "public.customers"),
        ("role", APP),
        ("rows", "5"),
        ("depth", "2"),
    ];
    let (parent, _) = handed(&admin, &lee, narrow);
    // Each dimension wider than handed down.
    for (more, error) in [
        (("audience", "wages-db"), "invalid_target"),
        (("scope", "delete"), "invalid_scope"),
        (("scope", "read write"), "invalid_scope"),
        (("table", "public.orders"), "invalid_scope"),
        (("table", "public.*"), "invalid_scope"),
        (("role", "postgres"), "invalid_scope"),
        (("rows", "6"), "invalid_scope"),
        (("depth", "2"), "invalid_request"),
        (("depth", "255"), "invalid_request"),
        (("depth", "256"), "invalid_request"),
        (("commands", "0"), "invalid_request"),
        (("name", "a\u{1b}[2J"), "invalid_request"),
    ] {
        let reply = exchange(&admin, &parent, &[more]);
        assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some(error)), "{more:?}: {reply:?}");
    }
    // As deep as it may be, and one more.
    let (second, _) = handed(&admin, &parent, &[("depth", "1")]);
    let (third, _) = handed(&admin, &second, &[]);
    assert_eq!(exchange(&admin, &third, &[]).json()["error"], "invalid_request");
    assert_eq!(
        exchange(&admin, &lee, &[READ, &[("depth", "3")]].concat()).json()["error"],
        "invalid_request"
    );
    // Round in a circle.
    let bot = world.issuer.token("bot", &["agents"]);
    let as_bot: &[(&str, &str)] = &[("actor_token", &bot), ("actor_token_type", JWT), ("depth", "1")];
    let (through, _) = handed(&admin, &parent, as_bot);
    for looping in [&bot, &lee] {
        let reply = exchange(&admin, &through, &[("actor_token", looping), ("actor_token_type", JWT)]);
        assert_eq!(reply.json()["error"], "invalid_request", "{reply:?}");
    }
    assert_eq!(
        exchange(&admin, &lee, &[READ, &[("actor_token", &parent), ("actor_token_type", JWT)]].concat())
            .status,
        400
    );
    // What a caller writes into a token itself is not believed.
    let mut forged = world.issuer.claims("lee", &["developers"]);
    forged["act"] = json!({"sub": "idp:dana"});
    let forged = world.issuer.sign(&forged);
    assert_eq!(refused(&world, &forged), "28P01");
    assert_eq!(exchange(&admin, &forged, READ).status, 400);
    let parts: Vec<&str> = parent.split('.').collect();
    let claims = String::from_utf8(decode(parts[1])).unwrap();
    for (from, to) in [("\"scope\":\"select insert\"", "\"scope\":\"read write\""), ("idp:lee", "idp:eve")] {
        let other = claims.replacen(from, to, 1);
        assert_ne!(other, claims, "{from} is in {claims}");
        let token = format!("{}.{}.{}", parts[0], gatebook_tests::issuer::encode(other.as_bytes()), parts[2]);
        assert_eq!(refused(&world, &token), "28P01");
    }
    let issued = world
        .issuer
        .sign(&json!({"iss": gatebook_tests::gateway::ADMIN_URL, "aud": gatebook_tests::gateway::ADMIN_URL,
        "sub": "idp:lee", "iat": now(), "exp": now() + 600, "jti": "x"}));
    assert_eq!(refused(&world, &issued), "28P01", "another's signature under the gateway's name");
    // A token for another purpose is none for this one.
    assert_eq!(exchange(&admin, &world.admin_token("lee", &["developers"]), READ).status, 400);
    assert_eq!(admin.get("/v1/delegations", Some(&parent)).status, 401);
    // Policy does not let everybody hand down, and the chain's every link must be let.
    let ned = world.issuer.token("ned", &[]);
    assert_eq!(exchange(&admin, &ned, READ).json()["error"], "unauthorized_client");
    // Requests that are none.
    for fields in [
        vec![("grant_type", "client_credentials")],
        vec![("grant_type", GRANT)],
        vec![("grant_type", GRANT), ("subject_token", &*lee)],
        vec![
            ("grant_type", GRANT),
            ("subject_token", &*lee),
            ("subject_token", &*lee),
            ("subject_token_type", JWT),
        ],
        vec![("grant_type", GRANT), ("subject_token", &*lee), ("subject_token_type", JWT)],
        vec![
            ("grant_type", GRANT),
            ("subject_token", &*lee),
            ("subject_token_type", JWT),
            ("audience", "orders-db"),
            ("scope", "login"),
        ],
    ] {
        assert_eq!(admin.form("/token", &fields).status, 400, "{fields:?}");
    }
    // A child never outlives its parent, nor the token that it was made with.
    let mut claims = world.issuer.claims("lee", &["developers"]);
    claims["exp"] = (now() + 6).into();
    let short = world.issuer.sign(&claims);
    let reply = exchange(&admin, &short, &[READ, &[("expires_in", "3600"), ("depth", "1")]].concat()).json();
    assert!(reply["expires_in"].as_u64().is_some_and(|left| left <= 6), "{reply}");
    let child = reply["access_token"].as_str().unwrap().to_owned();
    let (inner, _) = handed(&admin, &child, &[("expires_in", "3600")]);
    let mut client = let_in(&world, &inner);
    assert_eq!(client.simple(CUSTOMERS), ROW);
    assert_eq!(last_words(&mut client).as_deref(), Some("57P01"));
    assert!(now() >= claims["exp"].as_u64().unwrap(), "not before its time");
    assert_eq!(refused(&world, &inner), "28P01");
    assert_eq!(exchange(&admin, &child, &[]).status, 400, "an expired parent hands nothing down");
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    let reasons: Vec<String> = of(&told, "admin.action")
        .filter(|event| event.body["decision"] == "refuse" && event.body["action"] == "delegate")
        .map(|event| event.payload["reason"].as_str().unwrap_or_default().to_owned())
        .collect();
    for wanted in [
        "not among those handed down",
        "at most 5 rows",
        "deeper than allowed",
        "as deep as it may be",
        "circle",
        "not permitted to delegate",
    ] {
        assert!(reasons.iter().any(|reason| reason.contains(wanted)), "no {wanted:?} in {reasons:#?}");
    }
    let causes: Vec<&str> =
        of(&told, "login.refused").filter_map(|event| event.body["cause"].as_str()).collect();
    for wanted in ["wrong_purpose", "bad_signature", "wrong_audience", "expired"] {
        assert!(causes.contains(&wanted), "no {wanted} in {causes:?}");
    }
}

fn decode(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

/// Each link is asked about under today's policy: what is taken from the principal is taken from everybody after it.
#[test]
fn a_change_of_policy_reaches_through_the_chain() {
    let world = world();
    let admin = world.gateway.admin();
    let (child, _) = handed(&admin, &world.token(), DEEP);
    let (inner, _) = handed(&admin, &child, &[]);
    let mut client = let_in(&world, &inner);
    assert_eq!(client.simple(CUSTOMERS), ROW);
    let guarded = format!(
        "{POLICIES}forbid (principal == User::\"idp:lee\", action, resource in Table::\"orders-db/orders/public.customers\");\n"
    );
    std::fs::write(world.gateway.folder().join("policies/test.cedar"), guarded).unwrap();
    run(Command::new("kill").args(["-HUP", &world.gateway.id().to_string()]));
    until("refusal under the new policies", ANSWER_MAX, || (client.simple(CUSTOMERS) == NO).then_some(()));
    assert_eq!(client.simple(ORDERS), ROW);
}

/// In shadow policy refuses nothing, but what was not handed down was not handed down.
#[test]
fn in_shadow_what_was_not_handed_down_is_refused_all_the_same() {
    let world =
        World::with(|setup| setup.policies(POLICIES).resource("shadow = true").admin("").top("[delegation]"));
    let admin = world.gateway.admin();
    let (child, _) = handed(&admin, &world.token(), READ);
    let mut client = let_in(&world, &child);
    assert_eq!(client.simple("SELECT id FROM wages WHERE id = 1"), ROW, "policy is only tried out");
    assert_eq!(client.simple(INSERT), NO);
}

fn delegate(world: &World, token: &str, arguments: &[&str]) -> Command {
    let admin = world.gateway.admin();
    let mut command = Command::new(machine::binary("gatebook"));
    command
        .args(["delegate", "--url", &format!("https://localhost:{}", admin.port()), "--ca"])
        .arg(world.gateway.folder().join("ca.crt"))
        .args(arguments)
        .stdin(Stdio::null());
    world.gateway.environment("none").apply(&mut command);
    command.env("GATEBOOK_TOKEN", token);
    command
}

#[test]
fn a_command_runs_with_less_and_nothing_is_left_behind() {
    let mut world = world();
    let lee = world.token();
    let psql = machine::program("psql").display().to_string();
    let read = ["--resource", "orders-db", "--actions", "read", "--ttl", "10m"];
    let with = |more: &[&str]| -> Vec<String> { read.iter().chain(more).map(ToString::to_string).collect() };
    let go = |more: &[&str]| {
        let arguments = with(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        delegate(&world, &lee, &arguments).output().expect("the command runs")
    };
    let output = go(&["--", &psql, "-XAtc", CUSTOMERS]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{output:?}");
    let output = go(&["--", &psql, "-XAtc", INSERT]);
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("42501")
            || String::from_utf8_lossy(&output.stderr).contains("insert"),
        "{output:?}"
    );
    assert_eq!(go(&["--", "sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(go(&["--", "/nonexistent"]).status.code(), Some(1));
    // An agent starts another, which gets less again; deeper it does not go.
    let gatebook = machine::binary("gatebook").display().to_string();
    let ca = world.gateway.folder().join("ca.crt").display().to_string();
    let inner = [
        "--depth",
        "1",
        "--",
        &gatebook,
        "delegate",
        "--ca",
        &ca,
        "--table",
        "public.customers",
        "--",
        &psql,
        "-XAtc",
        CUSTOMERS,
    ];
    assert_eq!(String::from_utf8_lossy(&go(&inner).stdout), "1\n");
    let output = go(&["--", &gatebook, "delegate", "--ca", &ca, "--", "true"]);
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("as deep as it may be"),
        "{output:?}"
    );
    // A signal is passed on, and what was handed down is taken back all the same.
    let arguments = with(&["--", "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut child =
        delegate(&world, &lee, &arguments).stdout(Stdio::piped()).spawn().expect("the command runs");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    run(Command::new("kill").arg(child.id().to_string()));
    assert_eq!(child.wait().unwrap().code(), Some(9));
    let operator = world.admin_token("olga", &["ops"]);
    let left = world.gateway.admin().get("/v1/delegations", Some(&operator)).json();
    assert_eq!(left["delegations"], json!([]), "all were taken back");
    assert!(world.gateway.stop().success());
    let told = world.gateway.ledger().told();
    assert_eq!(of(&told, "delegation.created").count(), of(&told, "delegation.ended").count());
}

/// The commands of a page: what stands behind `$ ` in its blocks of code, with the lines that go on.
fn commands(page: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for block in page.split("```").skip(1).step_by(2) {
        let mut goes_on = false;
        for line in block.lines() {
            match (line.strip_prefix("$ "), goes_on) {
                (Some(command), _) => commands.push(command.to_owned()),
                (None, true) => *commands.last_mut().expect("it goes on from one") += &format!("\n{line}"),
                (None, false) => continue,
            }
            goes_on = line.ends_with('\\');
        }
    }
    commands
}

/// What the page says to type works as it stands there, but for the names of machines and for logging in at the issuer.
#[test]
fn the_commands_in_the_documentation_work() {
    let world = world();
    let folder = machine::temporary();
    let lee = world.token();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    write("token", &lee);
    write("agent", &format!("#!/bin/sh\nexec psql -XAtc '{CUSTOMERS}'\n"));
    run(Command::new("chmod").arg("+x").arg(folder.path().join("agent")));
    let url = format!("https://localhost:{}", world.gateway.admin().port());
    let ca = world.gateway.folder().join("ca.crt");
    let page = include_str!("../../docs/delegation.md").replace("https://gateway.corp.example:8443", &url);
    let commands = commands(&page);
    assert!(
        commands.len() >= 4 && commands.iter().any(|command| command.starts_with("curl ")),
        "{commands:#?}"
    );
    let binaries = machine::binary("gatebook");
    let path =
        [binaries.parent(), machine::program("psql").parent()].map(|folder| folder.unwrap().to_owned());
    let path = std::env::join_paths(
        path.into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    // Each in a shell of its own would lose what was exported.
    let script = format!(
        "set -e\ngatebook() {{ if [ \"$1\" = token ]; then cat token; else command gatebook \"$@\"; fi; }}\n{}\n",
        commands.join("\necho\n")
    );
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(&script).current_dir(folder.path()).stdin(Stdio::null());
    world.gateway.environment("none").apply(&mut shell);
    shell.env("PATH", path.unwrap()).env("CURL_CA_BUNDLE", &ca).env("GATEBOOK_CA", &ca);
    let said = run(&mut shell);
    assert!(said.lines().any(|line| line == "1"), "what the agent was shown: {said}");
    let json = said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no answer: {said}"));
    let answer: Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(answer["scope"], "read");
    assert!(answer["expires_in"].as_u64().is_some_and(|left| (500..=600).contains(&left)), "{answer}");
    let mut client = let_in(&world, answer["access_token"].as_str().expect("a token"));
    assert_eq!(
        (client.simple(CUSTOMERS), client.simple(INSERT)),
        (ROW.map(str::to_owned).into(), NO.map(str::to_owned).into())
    );
}

#[test]
fn an_operator_revokes_by_delegation_and_says_why() {
    let mut world = world();
    let admin = world.gateway.admin();
    let lee = world.token();
    let operator = world.admin_token("olga", &["ops"]);
    let (parent, parent_id) = handed(&admin, &lee, DEEP);
    let (child, _) = handed(&admin, &parent, &[("scope", "read")]);
    let (other, other_id) = handed(&admin, &lee, READ);
    let [mut first, mut second, mut third] = [&parent, &child, &other].map(|token| let_in(&world, token));
    let said = run(world.gateway.command("revoke").args([
        "--delegation",
        &parent_id,
        "--reason",
        "the agent went astray",
    ]));
    assert!(said.contains(&format!("revoked delegation {parent_id}: 2 sessions ended")), "{said}");
    for client in [&mut first, &mut second] {
        assert_eq!(last_words(client).as_deref(), Some("57P01"));
    }
    assert_eq!(third.simple(CUSTOMERS), ROW);
    let order = json!({"delegation": other_id, "reason": "and this one"});
    let reply = admin.post("/v1/revocations", Some(&operator), &order);
    assert_eq!((reply.status, &reply.json()["sessions"]), (200, &json!(1)), "{reply:?}");
    assert_eq!(last_words(&mut third).as_deref(), Some("57P01"));
    for over in [&parent, &child, &other] {
        assert_eq!(refused(&world, over), "28P01");
    }
    let mut own = let_in(&world, &lee);
    assert_eq!(own.simple(CUSTOMERS), ROW, "nobody was revoked");
    assert_eq!(admin.get("/v1/revocations", Some(&operator)).json()["principals"], json!([]));
    assert!(world.gateway.stop().success());
    world.gateway.restart();
    for over in [&parent, &child, &other] {
        assert_eq!(refused(&world, over), "28P01");
    }
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    let ended: Vec<_> = of(&told, "delegation.ended")
        .map(|event| (event.body["reason"].as_str().unwrap(), event.payload["why"].as_str().unwrap()))
        .collect();
    assert_eq!(ended, [("revoked", "the agent went astray"), ("revoked", "and this one")]);
}

/// The MCP client's configuration on the page, with a real server behind it.
#[test]
fn an_mcp_server_does_what_it_was_handed_down() {
    let world = world();
    let page = include_str!("../../docs/delegation.md");
    let block =
        page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("a configuration");
    let configuration: Value = serde_json::from_str(block).expect("JSON");
    let server = &configuration["mcpServers"]["orders"];
    assert_eq!(server["command"], "gatebook");
    let installed =
        machine::cache().join("mcp/node_modules/@modelcontextprotocol/server-postgres/dist/index.js");
    assert!(installed.is_file(), "{} is missing: run tests/setup", installed.display());
    let mut arguments: Vec<String> = server["args"]
        .as_array()
        .expect("arguments")
        .iter()
        .map(|argument| argument.as_str().expect("text"))
        // It is installed already.
        .filter(|argument| !["-y", "npx"].contains(argument))
        .map(|argument| {
            let argument =
                argument.replace("@modelcontextprotocol/server-postgres", &installed.display().to_string());
            argument.replace(
                "app_ro@gateway.corp.example:5432",
                &format!("{APP}@localhost:{}", world.gateway.address().port()),
            )
        })
        .collect();
    let program = arguments.iter().position(|argument| argument == "--").expect("a command") + 1;
    arguments.insert(program, machine::program("node").display().to_string());
    let ca = world.gateway.folder().join("ca.crt");
    let mut command = Command::new(machine::binary("gatebook"));
    command
        .args(&arguments)
        .env("GATEBOOK_TOKEN", world.token())
        .env("GATEBOOK_CA", &ca)
        .env("NODE_EXTRA_CA_CERTS", &ca);
    command.env("GATEBOOK_URL", format!("https://localhost:{}", world.gateway.admin().port()));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the server is started");
    let mut input = child.stdin.take().expect("a pipe");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("a pipe")));
    // One JSON-RPC message a line, each way.
    let mut ask = |id: u64, method: &str, parameters: Value| -> Value {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": parameters});
        std::io::Write::write_all(&mut input, format!("{message}\n").as_bytes()).expect("it reads");
        let line = lines.next().expect("it answers").expect("text");
        serde_json::from_str(&line).expect("JSON")
    };
    let hello = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
    assert!(ask(1, "initialize", hello)["result"].is_object());
    let mut query =
        |id: u64, sql: &str| ask(id, "tools/call", json!({"name": "query", "arguments": {"sql": sql}}));
    let rows = |answer: &Value| {
        answer["result"]["content"][0]["text"]
            .as_str()
            .map(|text| text.split_whitespace().collect::<String>())
    };
    assert_eq!(rows(&query(2, CUSTOMERS)).as_deref(), Some(r#"[{"id":1}]"#));
    let refused = query(3, "COMMIT; DELETE FROM journal");
    assert!(refused.to_string().contains("not permitted"), "{refused}");
    assert_eq!(rows(&query(4, ORDERS)).as_deref(), Some(r#"[{"id":1}]"#), "it goes on");
    run(Command::new("kill").arg(child.id().to_string()));
    child.wait().expect("it ends");
    let operator = world.admin_token("olga", &["ops"]);
    let left = world.gateway.admin().get("/v1/delegations", Some(&operator)).json();
    assert_eq!(left["delegations"], json!([]), "what was handed down is taken back");
}

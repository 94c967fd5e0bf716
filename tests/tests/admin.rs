//! The gateway's own HTTPS server: who may ask, what is answered, what is recorded.

use gatebook_tests::World;
use gatebook_tests::https::Reply;
use gatebook_tests::machine::{ANSWER_MAX, run, until};
use gatebook_tests::wire;
use serde_json::json;

/// Everybody uses the database; only operators do anything to the gateway.
const POLICIES: &str = "\
    permit (principal, action, resource in Resource::\"orders-db\");\n\
    permit (principal in Group::\"ops\", action in [Action::\"read_sessions\", Action::\"read_resources\", Action::\"read_delegations\", Action::\"revoke\", Action::\"explain\"], resource == Gateway::\"this\");\n\
    permit (principal in Group::\"auditors\", action == Action::\"read_sessions\", resource == Gateway::\"this\");\n";

fn world() -> World {
    World::with(|setup| setup.policies(POLICIES).admin(""))
}

/// Method, path and body of everything that needs a permission, and the status that an operator gets.
const GUARDED: &[(&str, &str, &str, u16)] = &[
    ("GET", "/v1/sessions", "", 200),
    ("GET", "/v1/sessions/4711", "", 404),
    ("GET", "/v1/sessions/past", "", 200),
    ("GET", "/v1/resources", "", 200),
    ("GET", "/v1/delegations", "", 404),
    ("DELETE", "/v1/delegations/none", "", 404),
    (
        "POST",
        "/v1/policy/explain",
        r#"{"principal":"idp:lee","resource":"none of ours","role":"app_rw","statement":"SELECT 1"}"#,
        400,
    ),
    ("GET", "/v1/revocations", "", 200),
    ("POST", "/v1/revocations", r#"{"session":4711,"reason":"none of ours"}"#, 200),
];

#[test]
fn each_route_asks_who_is_there() {
    let mut world = world();
    let admin = world.gateway.admin();
    let ask = |(method, path, body, _): (&str, &str, &str, u16), token: Option<&str>| -> Reply {
        admin.ask(method, path, token, if body.is_empty() { "" } else { "application/json" }, body)
    };
    let ops = world.admin_token("olga", &["ops"]);
    let auditor = world.admin_token("ada", &["auditors"]);
    let nobody = world.admin_token("ned", &[]);
    // A token for sessions, however mighty its groups, opens nothing here.
    let session = world.issuer.token("olga", &["ops"]);
    for route in GUARDED.iter().copied() {
        let (method, path, _, expected) = route;
        let shown = format!("{method} {path}");
        let reply = ask(route, None);
        assert_eq!(
            (reply.status, reply.header("www-authenticate")),
            (401, Some("Bearer")),
            "{shown}: {reply:?}"
        );
        assert_eq!(ask(route, Some(&session)).status, 401, "{shown}");
        assert_eq!(ask(route, Some("nonsense")).status, 401, "{shown}");
        assert_eq!(ask(route, Some(&nobody)).status, 403, "{shown}");
        let auditors = if path.starts_with("/v1/sessions") { expected } else { 403 };
        assert_eq!(ask(route, Some(&auditor)).status, auditors, "{shown}");
        let reply = ask(route, Some(&ops));
        assert_eq!(reply.status, expected, "{shown}: {reply:?}");
        for variant in ["{}/", "/{}", "{}?x=1/..", "{}%2f", "{};x"] {
            let path = variant.replace("{}", path);
            let reply = ask((method, &path, route.2, 0), Some(&nobody));
            assert!(matches!(reply.status, 403 | 404), "{method} {path}: {reply:?}");
        }
        assert_eq!(ask(("PATCH", path, "", 0), Some(&ops)).status, 405, "{shown}");
    }
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    let of = |decision: &str| {
        told.iter().filter(|event| event.name == "admin.action" && event.body["decision"] == decision).count()
    };
    // Each route once by the operator, and those of sessions by the auditor, who is refused the others; nobody is refused each twice, the second time
    // by `?x=1/..`.
    let routes = GUARDED.len();
    let auditors = GUARDED.iter().filter(|(_, path, ..)| path.starts_with("/v1/sessions")).count();
    assert_eq!((of("permit"), of("refuse")), (routes + auditors, routes - auditors + 2 * routes), "{told:?}");
    let causes: Vec<&str> = told
        .iter()
        .filter(|event| event.name == "login.refused")
        .filter_map(|event| event.body["cause"].as_str())
        .collect();
    assert!(causes.contains(&"wrong_audience") && causes.contains(&"malformed"), "{causes:?}");
}

#[test]
fn a_token_for_the_gateway_itself_opens_no_session() {
    let world = world();
    let token = world.admin_token("olga", &["ops"]);
    let mut client = wire::Client::tls(world.gateway.address(), world.gateway.tls());
    let refused = client.login("app", "orders", &token).expect_err("made for another audience");
    assert_eq!(refused.code, "28P01");
}

#[test]
fn an_operator_revokes_and_the_order_is_recorded_first() {
    let mut world = world();
    let admin = world.gateway.admin();
    let mut client = world.client();
    assert_eq!(client.simple("SELECT 1"), ["T", "D 1", "C SELECT 1", "Z I"]);
    let ops = world.admin_token("olga", &["ops"]);
    let listed = admin.get("/v1/sessions", Some(&ops)).json();
    assert_eq!(listed["sessions"][0]["principal"], "idp:lee", "{listed}");
    let reply = admin.post("/v1/revocations", Some(&ops), &json!({"principal": "idp:lee", "reason": "left"}));
    assert_eq!((reply.status, &reply.json()["sessions"]), (200, &json!(1)), "{reply:?}");
    let last = client.receive_to_end();
    assert_eq!(last.last().and_then(wire::Message::report).map(|report| report.code), Some("57P01".into()));
    // Who was revoked is out of this door too.
    let lee = world.admin_token("lee", &["ops"]);
    assert_eq!(admin.get("/v1/sessions", Some(&lee)).status, 401);
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    let told = ledger.told();
    let at = |name: &str, field: &str, value: &str| {
        told.iter()
            .position(|event| event.name == name && event.body[field] == value)
            .unwrap_or_else(|| panic!("no {name} {value}: {told:?}"))
    };
    let order = at("admin.action", "action", "revoke");
    let revocation = at("revocation", "target", "principal");
    let closed = at("session.closed", "reason", "revoked");
    assert!(order < revocation && revocation < closed);
}

#[test]
fn what_is_no_request_of_ours_is_refused_and_the_server_lives_on() {
    let world = world();
    let admin = world.gateway.admin();
    let ops = world.admin_token("olga", &["ops"]);
    let post = |kind: &str, body: &str| admin.ask("POST", "/v1/revocations", Some(&ops), kind, body).status;
    assert_eq!(post("text/plain", "{}"), 415, "a form of another site cannot send JSON");
    assert_eq!(post("application/json", "{"), 400);
    assert_eq!(post("application/json", "{}"), 400, "whom");
    assert_eq!(post("application/json", r#"{"principal":"a:b","session":1}"#), 400);
    assert_eq!(post("application/json", r#"{"sesion":1}"#), 400, "an unknown member is not passed over");
    let announced = format!(
        "POST /v1/revocations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ops}\r\ncontent-type: application/json\r\n\
         content-length: 99999999\r\n\r\n"
    );
    assert_eq!(admin.raw(&announced).status, 413, "before it is sent");
    let long_head = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(100_000));
    assert!(matches!(admin.raw(&long_head).status, 0 | 431));
    for garbage in ["\r\n\r\n", "GET\r\n\r\n", "\u{0}\u{1}\u{2}", "GET /livez HTTP/9.9\r\n\r\n"] {
        let _ = admin.raw(garbage);
    }
    let two = format!(
        "GET /v1/sessions HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {ops}\r\nauthorization: Bearer x\r\n\r\n"
    );
    assert_eq!(admin.raw(&two).status, 401, "two credentials are none");
    assert_eq!(admin.get("/livez", None).status, 200);
}

#[test]
fn health_and_the_document_need_no_token_and_hold_nothing_secret() {
    let mut world = world();
    let admin = world.gateway.admin();
    assert_eq!(admin.get("/livez", None).json(), json!({"live": true}));
    let ready = until("the catalog", ANSWER_MAX, || {
        let reply = admin.get("/readyz", None);
        (reply.status == 200 && !reply.body.contains("its catalog was not read")).then_some(reply)
    });
    assert_eq!(ready.json()["ready"], true);
    assert!(!ready.body.contains(world.issuer.url()) && !ready.body.contains("127.0.0.1"), "{ready:?}");
    let document = admin.get("/openapi.json", None).json();
    assert_eq!(document["openapi"], "3.1.0");
    for (method, path, _, _) in GUARDED {
        let path = path.replace("4711", "{session}").replace("none", "{delegation}");
        let operation = &document["paths"][&path][method.to_lowercase()];
        assert!(
            operation["x-cedar-action"].is_string() && operation["security"].is_array(),
            "{path}: {operation}"
        );
    }
    let csp = admin.get("/livez", None);
    assert_eq!(csp.header("x-content-type-options"), Some("nosniff"));
    assert!(
        csp.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'"))
    );
    assert_eq!(csp.header("cache-control"), Some("no-store"));
    // A real client reads it too.
    let authority = world.gateway.folder().join("ca.crt");
    let url = format!("https://localhost:{}/livez", admin.port());
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--http1.1", "--cacert"]).arg(&authority).arg(&url);
    assert_eq!(run(&mut curl), "{\"live\":true}");
    assert!(world.gateway.stop().success());
}

#[test]
fn the_running_gateway_explains_as_the_command_does() {
    let world = World::with(|setup| {
        let masked = "[[resource.mask]]\ncolumns = [\"public.customers.email\"]\nwith = \"partial\"";
        setup
            .policies(&POLICIES.replace(
                "action, resource in",
                "action in [Action::\"login\", Action::\"read\"], resource in",
            ))
            .resource(masked)
            .admin("")
    });
    let admin = world.gateway.admin();
    let ops = world.admin_token("olga", &["ops"]);
    let folder = world.gateway.folder();
    for (statement, decision) in [
        ("SELECT id, email FROM customers WHERE id = 7", "permit"),
        ("DELETE FROM customers; SELECT 1", "refuse"),
        ("SELEC", "refuse"),
    ] {
        let question = json!({
            "principal": "idp:dana", "groups": ["devs"], "resource": "orders-db", "role": "app_rw", "statement": statement,
        });
        let asked = until("the catalog", ANSWER_MAX, || {
            let reply = admin.post("/v1/policy/explain", Some(&ops), &question);
            (reply.status == 200).then(|| reply.json())
        });
        let mut command = std::process::Command::new(gatebook_tests::machine::binary("gatebook"));
        command.args(["policy", "explain", "--config"]).arg(folder.join("gatebook.toml"));
        command.args([
            "--principal",
            "idp:dana",
            "--group",
            "devs",
            "--resource",
            "orders-db",
            "--role",
            "app_rw",
            "--json",
        ]);
        let output = command.args(["--statement", statement]).output().expect("the command runs");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&asked, &asked["decision"]), (&told, &json!(decision)), "{statement}");
    }
    for (member, value) in [
        ("principal", "dana"),
        ("role", "nobody"),
        ("statement", ""),
        ("database", "postgres"),
        ("rolle", "app_rw"),
    ] {
        let mut question = json!({"principal": "idp:dana", "resource": "orders-db", "role": "app_rw", "statement": "SELECT 1"});
        question[member] = value.into();
        assert_eq!(admin.post("/v1/policy/explain", Some(&ops), &question).status, 400, "{member} {value}");
    }
}

#[test]
fn past_sessions_are_found_in_the_ledger() {
    let mut world = world();
    let ops = world.admin_token("olga", &["ops"]);
    let lee = world.token();
    for statement in ["SELECT 1", "SELECT 2"] {
        let mut client = world.gateway.login(&lee);
        assert_eq!(client.simple(statement).len(), 4);
    }
    let mia = world.issuer.token("mia", &["developers"]);
    let _lives = world.gateway.login(&mia);
    let past = |world: &World, asked: &str| {
        let reply = world.gateway.admin().get(&format!("/v1/sessions/past{asked}"), Some(&ops));
        assert_eq!(reply.status, 200, "{asked}: {reply:?}");
        reply.json()
    };
    // A session's close is recorded a moment after its client left.
    let all = until("two that are over", ANSWER_MAX, || {
        let all = past(&world, "");
        let closed =
            all["sessions"].as_array().unwrap().iter().filter(|one| !one["closed"].is_null()).count();
        (closed == 2).then_some(all)
    });
    let sessions = all["sessions"].as_array().unwrap();
    assert_eq!((sessions.len(), &all["more"], &all["damaged"]), (3, &json!(false), &json!(false)));
    let [first, second, third] = &sessions[..] else { panic!("{all}") };
    assert_eq!((&first["principal"], &first["resource"]), (&json!("idp:lee"), &json!("orders-db/orders")));
    assert_eq!(first["closed"]["reason"], "client_left");
    assert_eq!((&second["closed"]["commands"], &second["closed"]["refused"]), (&json!(1), &json!(0)));
    assert_eq!((&third["principal"], &third["closed"]), (&json!("idp:mia"), &json!(null)));
    assert!(!all.to_string().contains("SELECT"), "statements are not for whoever may list sessions");
    let numbers = |world: &World, asked: &str| -> Vec<u64> {
        past(world, asked)["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["session"].as_u64().unwrap())
            .collect()
    };
    let opened = third["opened_s"].as_u64().unwrap();
    let same = |world: &World| {
        for (asked, found) in [
            ("?principal=idp:lee", vec![1, 2]),
            ("?principal=idp%3Alee&limit=1", vec![2]),
            ("?session=3", vec![3]),
            ("?principal=idp:lee&session=3", vec![]),
            ("?resource=orders-db", vec![1, 2, 3]),
            ("?resource=none", vec![]),
            (&format!("?since_s={}", opened + 3600), vec![]),
            (&format!("?until_s={opened}"), vec![1, 2, 3]),
        ] {
            assert_eq!(numbers(world, asked), found, "{asked}");
        }
        assert_eq!(past(world, "?limit=1")["more"], true);
    };
    same(&world);
    for asked in ["?limit=0", "?limit=1001", "?session=x", "?what=1", "?session=1&session=2"] {
        let reply = world.gateway.admin().get(&format!("/v1/sessions/past{asked}"), Some(&ops));
        assert_eq!(reply.status, 400, "{asked}: {reply:?}");
    }
    // Through the index too, which a start takes further.
    assert!(world.gateway.stop().success());
    let mut rebuild = std::process::Command::new(gatebook_tests::machine::binary("gatebook-ledger"));
    run(rebuild.arg("rebuild-index").arg(world.gateway.ledger().folder()));
    world.gateway.restart();
    same(&world);
}

//! The page for approvers: who gets in, what their session is good for, and what a real browser makes of it.
//!
//! From `negatives`: single sign-on completed as another user, a state that is not checked, a redirect target from the query, and what a
//! recorded command does in its reader's browser.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use gatebook_tests::approvals::{insert, known, policies, rows, state, waiting};
use gatebook_tests::gateway::{ADMIN_URL, PERMIT_ALL};
use gatebook_tests::https::{Https, Reply, escape, pairs};
use gatebook_tests::issuer::now;
use gatebook_tests::ledger::Event;
use gatebook_tests::machine::{self, ANSWER_MAX, until};
use gatebook_tests::wire::{Client, query};
use gatebook_tests::{Browser, Child, Provider, World};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const SESSION: &str = "__Host-gatebook";
const LOGIN: &str = "__Host-gatebook-login";
const PAGE: &str = "[admin.login]\nissuer = \"idp\"\nclient_id = \"page\"\n";

/// Everybody uses the database and members of `dba` approve changes of the journal; whoever is in `guests` may not even look.
fn rules() -> String {
    format!(
        "{}forbid (principal in Group::\"guests\", action == Action::\"approve\", resource == Gateway::\"this\");\n",
        policies("@requires_approval(\"dba\")")
    )
}

fn world() -> World {
    World::with(|setup| setup.policies(&rules()).admin(PAGE))
}

/// A login that was begun: its cookie, and what the browser was sent to the issuer with.
struct Begun {
    cookie: String,
    sent: std::collections::BTreeMap<String, String>,
}

fn begin(admin: &Https, path: &str) -> Begun {
    let reply = admin.get(path, None);
    assert_eq!(reply.status, 303, "{reply:?}");
    let set = reply.header("set-cookie").expect("a cookie");
    for attribute in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age=600"] {
        assert!(set.contains(attribute), "{set}");
    }
    let target = reply.header("location").expect("a target");
    let (_, sent) = target.split_once('?').expect("a query");
    let cookie = reply.cookie(LOGIN).expect("a cookie").to_owned();
    Begun { cookie: format!("{LOGIN}={cookie}"), sent: pairs(sent) }
}

impl Begun {
    /// The claims of the ID token that a good issuer makes for it.
    fn claims(&self, world: &World, subject: &str, groups: &[&str]) -> Value {
        let mut claims = world.issuer.claims(subject, groups);
        claims["aud"] = "page".into();
        claims["nonce"] = self.sent["nonce"].as_str().into();
        claims
    }

    /// Comes back from the issuer with a code that stands for this token.
    fn come_back(&self, world: &World, token: &str) -> Reply {
        let code = format!("code-{}", self.sent["state"]);
        world
            .issuer
            .give_code(&code, json!({ "access_token": "x", "token_type": "Bearer", "id_token": token }));
        self.call(world, &format!("code={code}&state={}", self.sent["state"]))
    }

    fn call(&self, world: &World, query: &str) -> Reply {
        let path = format!("/login/callback?{query}");
        world.gateway.admin().with("GET", &path, &[("cookie", &self.cookie)], "")
    }
}

/// Signs somebody in; gives back the session's cookie and its proof.
fn sign_in(world: &World, subject: &str, groups: &[&str]) -> (String, String) {
    let admin = world.gateway.admin();
    let begun = begin(&admin, "/login");
    let reply = begun.come_back(world, &world.issuer.sign(&begun.claims(world, subject, groups)));
    assert_eq!((reply.status, reply.header("refresh")), (200, Some("0;url=/")), "{reply:?}");
    let cookie = format!("{SESSION}={}", reply.cookie(SESSION).expect("a session"));
    let told = admin.with("GET", "/login/session", &[("cookie", &cookie)], "").json();
    assert_eq!(told["principal"], format!("idp:{subject}"));
    (cookie, told["proof"].as_str().expect("a proof").to_owned())
}

fn told(world: &mut World) -> Vec<Event> {
    assert!(world.gateway.stop().success());
    let ledger = world.gateway.ledger();
    ledger.assert_sound();
    ledger.told()
}

fn causes(told: &[Event]) -> Vec<&str> {
    let refused = told.iter().filter(|event| event.name == "login.refused");
    refused.filter_map(|event| event.body["cause"].as_str()).collect()
}

fn client(world: &World, sql: &str) -> Client {
    let mut client = world.client();
    client.send(&query(sql)).expect("the gateway reads");
    client
}

#[test]
fn who_signs_in_does_so_by_code_with_pkce_state_and_nonce() {
    let mut world = world();
    let admin = world.gateway.admin();
    // Neither the host nor the query says where anybody is sent.
    let hostile =
        "/login?redirect_uri=https%3A%2F%2Fevil.example&next=//evil.example&return_to=https://evil.example";
    let begun = begin(&admin, hostile);
    assert_eq!(begun.sent["redirect_uri"], format!("{ADMIN_URL}/login/callback"));
    let fixed = [
        ("response_type", "code"),
        ("client_id", "page"),
        ("code_challenge_method", "S256"),
        ("scope", "openid profile"),
    ];
    fixed.iter().for_each(|(name, value)| assert_eq!(begun.sent[*name], *value));
    let elsewhere = admin.raw("GET /login HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    let target = elsewhere.header("location").expect("a target");
    assert!(
        target.starts_with(&format!("{}/authorize?", world.issuer.url())) && !target.contains("evil"),
        "{target}"
    );
    let token = world.issuer.sign(&begun.claims(&world, "dana", &["dba"]));
    let code = "c0de";
    world.issuer.give_code(code, json!({ "access_token": "x", "token_type": "Bearer", "id_token": token }));
    let state = &begun.sent["state"];
    let reply = begun.call(
        &world,
        &format!("code={code}&state={state}&iss={}&next=//evil.example", escape(world.issuer.url())),
    );
    assert_eq!(
        (reply.status, reply.header("refresh"), reply.header("location")),
        (200, Some("0;url=/"), None)
    );
    assert!(!reply.body.contains("evil"), "{reply:?}");
    let session =
        reply.headers.iter().find(|(_, value)| value.starts_with(&format!("{SESSION}="))).expect("a session");
    for attribute in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(session.1.contains(attribute), "{session:?}");
    }
    let shown = world.issuer.shown_codes();
    let [form] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!((&*form["code"], &*form["grant_type"]), (code, "authorization_code"));
    assert_eq!(form["redirect_uri"], begun.sent["redirect_uri"]);
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
    assert_eq!(challenge, begun.sent["code_challenge"]);
    assert!(form["code_verifier"].len() >= 43);
    // Once.
    assert_eq!(begun.come_back(&world, &token).status, 400);
    let told = told(&mut world);
    let login = told.iter().find(|event| event.name == "admin.action").expect("it is recorded");
    assert_eq!((&login.body["action"], &login.body["decision"]), (&json!("login"), &json!("permit")));
    assert_eq!(login.payload["principal"]["subject"], "dana");
    assert_eq!(causes(&told), ["login_unknown"]);
    let everything = format!("{:?}", world.gateway.ledger().events());
    let log = world.gateway.process_ref().lines().join("\n");
    let cookie = reply.cookie(SESSION).expect("a session");
    for secret in [cookie, code, &form["code_verifier"], &begun.sent["nonce"], state, &token] {
        assert!(!everything.contains(secret) && !log.contains(secret), "{secret}");
    }
}

/// Each is a login that an attacker would like to be taken. None opens a session, and each is recorded with its cause.
#[test]
fn a_login_that_is_not_this_browsers_own_opens_nothing() {
    let mut world = world();
    let admin = world.gateway.admin();
    let refused = |reply: &Reply, status: u16, what: &str| {
        assert_eq!((reply.status, reply.cookie(SESSION)), (status, None), "{what}: {reply:?}");
        assert_eq!(reply.header("refresh"), None, "{what}");
    };
    let fresh = || begin(&admin, "/login");
    let signed = |begun: &Begun| world.issuer.sign(&begun.claims(&world, "dana", &["dba"]));
    let without = |begun: &Begun, member: &str, value: Value| {
        let mut claims = begun.claims(&world, "dana", &["dba"]);
        claims[member] = value;
        world.issuer.sign(&claims)
    };

    let begun = fresh();
    let query = format!("code=stolen&state={}", begun.sent["state"]);
    refused(&admin.get(&format!("/login/callback?{query}"), None), 400, "state and code in another browser");
    let other = fresh();
    refused(&other.call(&world, &query), 400, "another login's state");
    refused(&other.come_back(&world, &signed(&other)), 400, "what was tried once is over");
    refused(&begun.call(&world, "code=x&state="), 400, "no state");
    refused(&begun.come_back(&world, &signed(&begun)), 400, "and is over, too");
    assert!(world.issuer.shown_codes().is_empty(), "no code of theirs was shown to the issuer");

    let begun = fresh();
    refused(&begun.come_back(&world, &signed(&fresh())), 400, "a token of another login: its nonce");
    let begun = fresh();
    refused(&begun.come_back(&world, &without(&begun, "nonce", Value::Null)), 400, "no nonce");
    let begun = fresh();
    refused(
        &begun.come_back(&world, &without(&begun, "aud", "gatebook".into())),
        400,
        "a token for sessions",
    );
    let begun = fresh();
    let admins = without(&begun, "aud", "gatebook-admin".into());
    refused(&begun.come_back(&world, &admins), 400, "a token for the API");
    let begun = fresh();
    refused(&begun.come_back(&world, &without(&begun, "exp", (now() - 60).into())), 400, "over");
    let begun = fresh();
    let strangers = gatebook_tests::Issuer::start();
    let foreign = strangers.sign(&begun.claims(&world, "dana", &["dba"]));
    refused(&begun.come_back(&world, &foreign), 400, "another key");
    let begun = fresh();
    let access = world.issuer.with_key(|key| {
        let mut header = key.header();
        header["typ"] = "at+jwt".into();
        key.sign(&header, &begun.claims(&world, "dana", &["dba"]))
    });
    refused(&begun.come_back(&world, &access), 400, "an access token");
    for (query, what) in [
        ("code=never-given&state={}", "a code that the issuer does not know"),
        ("error=access_denied&state={}", "the issuer says no"),
        ("code=a&code=b&state={}", "two codes"),
        ("state={}", "no code"),
        ("code=a&state={}&iss=https%3A%2F%2Fevil.example", "another issuer (RFC 9207)"),
    ] {
        let begun = fresh();
        refused(&begun.call(&world, &query.replace("{}", &begun.sent["state"])), 400, what);
    }
    let begun = fresh();
    let guest = world.issuer.sign(&begun.claims(&world, "gus", &["guests"]));
    refused(&begun.come_back(&world, &guest), 403, "policy");
    machine::run(world.gateway.command("revoke").args(["--principal", "idp:dana"]));
    let begun = fresh();
    refused(&begun.come_back(&world, &signed(&begun)), 403, "revoked");
    for path in ["/login/session", "/v1/approvals", "/v1/approvals/live"] {
        assert_eq!(
            admin.with("GET", path, &[("cookie", &format!("{SESSION}=guessed"))], "").status,
            401,
            "{path}"
        );
    }

    let told = told(&mut world);
    let causes = causes(&told);
    for cause in [
        "login_unknown",
        "login_state",
        "wrong_nonce",
        "wrong_audience",
        "expired",
        "bad_signature",
        "wrong_purpose",
        "login_code",
        "login_denied",
        "login_malformed",
        "login_issuer",
        "revoked",
    ] {
        assert!(causes.contains(&cause), "{cause}: {causes:?}");
    }
    let logins: Vec<_> = told.iter().filter(|event| event.body["action"] == "login").collect();
    assert_eq!(logins.len(), 1, "{logins:?}");
    assert_eq!(
        (&logins[0].body["decision"], &logins[0].payload["principal"]["subject"]),
        (&json!("refuse"), &json!("gus"))
    );
}

/// A browser sends a cookie along wherever it is told to; so the cookie alone answers nothing.
#[test]
fn another_site_answers_nothing_in_an_approvers_name() {
    let mut world = world();
    let admin = world.gateway.admin();
    let (cookie, proof) = sign_in(&world, "dana", &["dba"]);
    let (_, anothers) = sign_in(&world, "dana", &["dba"]);
    let mut client = client(&world, &insert(1));
    let id = waiting(&world)["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/approvals/{id}/answers");
    let yes = r#"{"approve":true,"reason":"checked"}"#;
    let post = |more: &[(&str, &str)]| {
        let headers = [&[("cookie", &*cookie), ("content-type", "application/json")], more].concat();
        admin.with("POST", &path, &headers, yes).status
    };
    let (origin, evil) = (("origin", ADMIN_URL), ("origin", "https://evil.example"));
    let mine = ("gatebook-proof", &*proof);
    assert_eq!(post(&[]), 403, "a cookie alone");
    assert_eq!(post(&[mine]), 403, "no origin");
    assert_eq!(post(&[evil, mine]), 403, "another origin");
    assert_eq!(post(&[("origin", "null"), mine]), 403, "an origin that says nothing");
    assert_eq!(post(&[("origin", "https://gateway.example.evil.example"), mine]), 403);
    assert_eq!(post(&[("origin", "http://gateway.example"), mine]), 403, "in clear");
    assert_eq!(post(&[origin]), 403, "no proof");
    assert_eq!(post(&[origin, ("gatebook-proof", "")]), 403, "an empty one");
    assert_eq!(post(&[origin, ("gatebook-proof", &anothers)]), 403, "another session's");
    for site in ["cross-site", "same-site", "none"] {
        assert_eq!(post(&[origin, mine, ("sec-fetch-site", site)]), 403, "{site}");
    }
    assert_eq!(post(&[origin, evil, mine]), 403, "two origins");
    let get = |path: &str, more: &[(&str, &str)]| {
        admin.with("GET", path, &[&[("cookie", &*cookie)], more].concat(), "").status
    };
    assert_eq!(get("/v1/approvals", &[("sec-fetch-site", "cross-site")]), 403);
    assert_eq!(get("/login/session", &[evil]), 403);
    assert_eq!(get("/v1/approvals", &[("sec-fetch-site", "same-origin")]), 200);
    // It is good for answering requests, and opens nothing else.
    for path in ["/v1/sessions", "/v1/delegations"] {
        assert_eq!(get(path, &[]), 401, "{path}");
    }
    let revoke = [("cookie", &*cookie), ("content-type", "application/json"), origin, mine];
    assert_eq!(admin.with("POST", "/v1/revocations", &revoke, r#"{"principal":"idp:lee"}"#).status, 401);
    let doubled = format!("{cookie}; {cookie}");
    assert_eq!(admin.with("GET", "/v1/approvals", &[("cookie", &doubled)], "").status, 401, "two are none");
    // Who shows a token is who it says, whatever the cookie says.
    assert_eq!(get("/v1/approvals", &[("authorization", "Bearer nonsense")]), 401);
    assert_eq!(
        admin.with("POST", "/logout", &[("cookie", &cookie), origin], "").status,
        403,
        "nor is anybody signed out"
    );
    assert_eq!((state(&world, &id), rows(&world)), ("pending".to_owned(), String::new()));

    // Whoever asked, whoever is in no group, and then its own page.
    let (lees, lees_proof) = sign_in(&world, "lee", &["dba"]);
    let headers =
        [("cookie", &*lees), ("content-type", "application/json"), origin, ("gatebook-proof", &lees_proof)];
    let own = admin.with("POST", &path, &headers, yes);
    assert!(own.status == 403 && own.body.contains("whoever asks"), "{own:?}");
    let seen = admin.with("GET", "/v1/approvals", &[("cookie", &lees)], "").json();
    assert_eq!(seen["approvals"][0]["unfit"], "requester", "and is told so before");
    assert_eq!(post(&[origin, mine, ("sec-fetch-site", "same-origin")]), 200);
    assert_eq!(gatebook_tests::wire::brief(&client.receive_until(b"Z")).last().expect("an end"), "Z I");
    assert_eq!(rows(&world), "1");
    drop(client);
    let told = told(&mut world);
    assert!(causes(&told).contains(&"cross_site"), "{:?}", causes(&told));
    let answered: Vec<_> = told.iter().filter(|event| event.name == "approval.answered").collect();
    assert_eq!(answered.len(), 2, "{answered:?}");
    assert_eq!(
        (&answered[0].body["refused"], &answered[1].payload["approver"]),
        (&json!("requester"), &json!("idp:dana"))
    );
}

#[test]
fn a_session_ends_for_good_and_at_once() {
    let mut world = world();
    let admin = world.gateway.admin();
    let looks = |cookie: &str| admin.with("GET", "/v1/approvals", &[("cookie", cookie)], "").status;
    // By signing out, also for whoever follows the list under it.
    let (cookie, proof) = sign_in(&world, "dana", &["dba"]);
    let (other, _) = sign_in(&world, "dana", &["dba"]);
    std::thread::scope(|scope| {
        let (first, seen) = std::sync::mpsc::channel();
        let (admin, cookie) = (&admin, &cookie);
        let follower = scope.spawn(move || {
            admin.events("/v1/approvals/live", &[("cookie", cookie)], |_| first.send(()).is_ok())
        });
        seen.recv_timeout(ANSWER_MAX).expect("the list comes at once");
        let headers = [("cookie", &**cookie), ("origin", ADMIN_URL), ("gatebook-proof", &*proof)];
        let left = admin.with("POST", "/logout", &headers, "");
        assert_eq!(left.status, 200, "{left:?}");
        assert!(
            left.headers
                .iter()
                .any(|(_, value)| value.starts_with(&format!("{SESSION}=;")) && value.contains("Max-Age=0"))
        );
        let stopped = follower.join().expect("it follows");
        assert!(!stopped, "the gateway ended it");
    });
    assert_eq!((looks(&cookie), looks(&other)), (401, 200));
    // With its token.
    let begun = begin(&admin, "/login");
    let mut claims = begun.claims(&world, "kim", &["dba"]);
    claims["exp"] = (now() + 4).into();
    let short = begun.come_back(&world, &world.issuer.sign(&claims));
    let short = format!("{SESSION}={}", short.cookie(SESSION).expect("a session"));
    assert_eq!(looks(&short), 200);
    // By a policy that no longer lets it look; it lives, and sees nothing.
    let (guest, _) = sign_in(&world, "gus", &["ops"]);
    let file = world.gateway.folder().join("policies/test.cedar");
    std::fs::write(
        &file,
        format!("{PERMIT_ALL}forbid (principal in Group::\"ops\", action == Action::\"approve\", resource);"),
    )
    .expect("a file");
    machine::run(std::process::Command::new("kill").args(["-HUP", &world.gateway.id().to_string()]));
    until("policy", ANSWER_MAX, || (looks(&guest) == 403).then_some(()));
    // With its person's access.
    machine::run(world.gateway.command("revoke").args(["--principal", "idp:dana"]));
    assert_eq!(looks(&other), 401);
    until("end of the token", ANSWER_MAX * 2, || (looks(&short) == 401).then_some(()));
    let told = told(&mut world);
    assert_eq!(told.iter().filter(|event| event.body["action"] == "logout").count(), 1);
}

#[test]
fn the_shell_says_nothing_and_lets_nothing_in() {
    let world = world();
    let admin = world.gateway.admin();
    let shell = admin.get("/", None);
    let policy = shell.header("content-security-policy").expect("a policy").to_owned();
    for part in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        &format!("script-src {ADMIN_URL}/page.js;"),
        &format!("style-src {ADMIN_URL}/page.css;"),
    ] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    for path in ["/", "/page.js", "/page.css", "/login/callback"] {
        let reply = admin.get(path, None);
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{path}");
        }
        assert!(
            reply
                .header("content-security-policy")
                .is_some_and(|policy| policy.contains("default-src 'none'")),
            "{path}"
        );
        assert_eq!(reply.header("access-control-allow-origin"), None, "{path}");
    }
    assert!(
        !shell.body.contains("style=") && !shell.body.contains("<script>") && !shell.body.contains("onclick")
    );
    assert_eq!(admin.with("POST", "/", &[], "").status, 405);
    assert!(admin.get("/openapi.json", None).json()["paths"]["/login"].is_null(), "it is no part of the API");
    // Where nobody can log in there is no page at all.
    let without = World::with(|setup| setup.admin(""));
    for path in ["/", "/login", "/login/callback", "/login/session"] {
        assert_eq!(without.gateway.admin().get(path, None).status, 404, "{path}");
    }
}

/// A gateway whose approvers sign in at a real provider.
fn real() -> (World, Provider) {
    let provider = Provider::start();
    let (issuer, login) = provider.tables();
    let world = World::with(|setup| setup.policies(&rules()).admin(&login).top(&issuer));
    (world, provider)
}

fn sign_in_as(browser: &Browser, subject: &str) {
    sign_in_at(browser, ADMIN_URL, subject);
}

fn sign_in_at(browser: &Browser, url: &str, subject: &str) {
    browser.go(url);
    browser.click("#enter");
    browser.fill("input[name=subject]", subject);
    browser.press("Enter");
    browser.see("#who");
}

fn psql(world: &World, sql: &str) -> Child {
    let mut command = machine::mortal(&machine::program("psql"));
    world.gateway.environment(&world.token()).apply(&mut command);
    command.args(["-X", "-c", sql]);
    Child::start("psql", command)
}

fn no_wider_than_the_screen(browser: &Browser) {
    let wide =
        browser.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth].join()");
    let (scroll, client) = wide.as_str().and_then(|wide| wide.split_once(',')).expect("two widths");
    assert_eq!(scroll, client, "it scrolls sideways");
}

/// Where pictures for the documentation are taken, when somebody asks for them.
fn picture(browser: &Browser, name: &str) {
    if std::env::var_os("GATEBOOK_PICTURES").is_some() {
        browser.picture(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images").join(name));
    }
}

const CHARGE: &str = "/* reason: double charge, ticket 4711 */\nINSERT INTO journal (id, worker, body)\nSELECT id, 7, 'refunded' FROM orders WHERE id = 1\nRETURNING id, body";

#[test]
fn a_request_appears_is_approved_in_a_browser_and_the_waiting_client_gets_its_rows() {
    let (mut world, _provider) = real();
    let browser = Browser::start(&world.gateway);
    browser.page(1100, 900, false);
    browser.go(ADMIN_URL);
    browser.see("#enter");
    sign_in_as(&browser, "alice");
    browser.see("#nothing");
    assert_eq!(browser.text("#name"), "alice");
    for cookie in browser.cookies().iter().filter(|cookie| cookie["domain"] == "gateway.example") {
        assert_eq!((&cookie["name"], &cookie["sameSite"]), (&json!(SESSION), &json!("Strict")), "{cookie}");
        assert!(cookie["httpOnly"] == true && cookie["secure"] == true && cookie["path"] == "/", "{cookie}");
    }
    // Nothing is loaded anew from here on.
    browser.value("window.same = true");
    let mut client = psql(&world, CHARGE);
    browser.see("article.card");
    let shown = browser.text("article.card");
    for part in [
        "idp:lee",
        "SELECT id, 7, 'refunded' FROM orders WHERE id = 1",
        "double charge, ticket 4711",
        "orders-db/orders as app_rw",
        "by nobody yet",
        "public.journal",
        "min left",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(browser.value("document.title").as_str().expect("a title").starts_with("(1)"));
    picture(&browser, "approvals.png");
    browser.fill("article.card textarea", "checked with accounting");
    browser.click("article.card .approve");
    client.line("refunded", ANSWER_MAX);
    client.line("(1 row)", ANSWER_MAX);
    assert!(client.wait(ANSWER_MAX).success());
    browser.see(".outcome.used");
    assert!(browser.text(".outcome.used").contains("corp:alice"));
    assert_eq!(rows(&world), "1");

    // Deny likewise, by the keyboard alone.
    let client = psql(&world, &insert(2));
    browser.see("article.card .deny");
    browser.value(
        "document.querySelector('article.card .deny').closest('article').querySelector('textarea').focus()",
    );
    browser.ask("type", json!({ "text": "not today" }));
    for _ in 0..2 {
        browser.press("Tab");
    }
    assert_eq!(browser.value("document.activeElement.textContent"), "Deny");
    browser.press("Enter");
    client.line("denied by corp:alice: not today", ANSWER_MAX);
    browser.see(".outcome.denied");
    assert_eq!(rows(&world), "1");

    // Whoever is in none of the groups sees why they cannot answer.
    assert_eq!(browser.value("window.same"), true);
    browser.click("#leave");
    browser.see("#enter");
    assert_eq!(browser.count("article"), 0);
    assert!(browser.cookies().iter().all(|cookie| cookie["name"] != SESSION));
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
    browser.page(1100, 900, false);
    sign_in_as(&browser, "bob");
    let client = psql(&world, &insert(3));
    browser.see("article.card .unfit");
    assert_eq!(browser.count("article.card button"), 0);
    drop(client);
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());

    let told = told(&mut world);
    let of = |action: &str| {
        let all = told.iter().filter(|event| event.name == "admin.action" && event.body["action"] == action);
        all.map(|event| event.payload["principal"]["subject"].as_str().expect("a subject"))
            .collect::<Vec<_>>()
    };
    assert_eq!((of("login"), of("logout")), (vec!["alice", "bob"], vec!["alice"]));
    let answers: Vec<_> = told.iter().filter(|event| event.name == "approval.answered").collect();
    let answers: Vec<_> = answers
        .iter()
        .map(|event| (&event.body["answer"], &event.payload["approver"], &event.payload["reason"]))
        .collect();
    let (alice, approve, deny) = (json!("corp:alice"), json!("approve"), json!("deny"));
    assert_eq!(
        answers,
        [(&approve, &alice, &json!("checked with accounting")), (&deny, &alice, &json!("not today"))]
    );
}

/// What a caller writes reaches the eyes of whoever approves, and nothing else of their browser.
#[test]
fn a_hostile_statement_is_shown_on_a_phone_and_does_nothing() {
    let (world, _provider) = real();
    let browser = Browser::start(&world.gateway);
    browser.page(390, 844, true);
    sign_in_as(&browser, "alice");
    let hostile = format!(
        "/* <img src=x onerror=\"window.hit=1\"><script>window.hit=2</script> \u{202e}txet\u{2066} \u{1b}[2J \u{200b}{} */ {}",
        "W".repeat(400),
        insert(1)
    );
    let mut client = world.client();
    client.send(&query(&hostile)).expect("the gateway reads");
    browser.see("article.card");
    let shown = browser.text("article.card pre");
    assert!(shown.contains("<img src=x onerror=\"window.hit=1\"><script>window.hit=2</script>"), "{shown}");
    for seen in ["U+202E", "U+2066", "U+001B", "U+200B"] {
        assert!(shown.contains(seen), "{seen}: {shown}");
    }
    assert!(!shown.contains(['\u{202e}', '\u{2066}', '\u{1b}', '\u{200b}']));
    assert_eq!(browser.count("article img, article script"), 0);
    assert_eq!(browser.value("window.hit ?? null"), Value::Null);
    no_wider_than_the_screen(&browser);
    let small = browser.value("[...document.querySelectorAll('.card button')].every((button) => button.getBoundingClientRect().height >= 44)");
    assert_eq!(small, true, "a finger hits each button");
    drop(client);
    browser.see(".outcome.client_left");
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());

    browser.page(390, 844, true);
    sign_in_as(&browser, "alice");
    let client = psql(&world, CHARGE);
    browser.see("article.card");
    no_wider_than_the_screen(&browser);
    picture(&browser, "approvals-phone.png");
    let id = waiting(&world)["id"].as_str().expect("an id").to_owned();
    browser.click("article.card .approve");
    until("use", ANSWER_MAX, || (state(&world, &id) == "used").then_some(()));
    drop(client);
}

/// A provider that does not let somebody in leaves them outside, with a way back.
#[test]
fn whom_the_provider_does_not_know_stays_outside() {
    let (world, _provider) = real();
    let browser = Browser::start(&world.gateway);
    browser.page(390, 844, false);
    browser.go(ADMIN_URL);
    browser.click("#enter");
    browser.fill("input[name=subject]", "mallory");
    browser.press("Enter");
    browser.see("main.alone");
    assert!(browser.text("main").contains("did not work"));
    assert!(known(&world).is_empty() && browser.cookies().iter().all(|cookie| cookie["name"] != SESSION));
    browser.click("main a.button");
    browser.see("#enter");
    // A link to one request finds it on the other side of the login.
    let client = psql(&world, &insert(1));
    let id = waiting(&world)["id"].as_str().expect("an id").to_owned();
    browser.page(390, 844, false);
    sign_in_at(&browser, &format!("{ADMIN_URL}/#{id}"), "carol");
    browser.see(&format!("[id=\"{id}\"]"));
    assert_eq!(browser.value("sessionStorage.getItem('wanted')"), Value::Null, "it was found");
    drop(client);
}

//! What `gatebook policy` says ahead of time is what a session then meets.

use std::path::Path;
use std::process::{Command, Output};

use gatebook_tests::{Postgres, World};

const POLICIES: &str = r#"
permit (principal in Group::"developers", action == Action::"login", resource == Role::"orders-db/app_rw");
@max_rows("50")
permit (principal in Group::"developers", action in Action::"read", resource in Schema::"orders-db/orders/public");
forbid (principal, action, resource == Table::"orders-db/orders/public.orders") unless { principal in Group::"finance" };
"#;

const MASKS: &str = r#"
[[resource.mask]]
columns = ["public.customers.email"]
with = "partial"
"#;

fn world() -> World {
    World::before(Postgres::start(), |setup| setup.policies(POLICIES).resource(MASKS))
}

/// The command over the world's configuration, with what every question here shares.
fn explain(world: &World, groups: &[&str], statement: &str) -> Output {
    let mut command = policy(world, "explain");
    command.args(["--principal", "idp:dana", "--resource", "orders-db", "--role", "app_rw", "--json"]);
    command.args(["--statement", statement]);
    for group in groups {
        command.args(["--group", group]);
    }
    command.output().expect("the program runs")
}

fn policy(world: &World, verb: &str) -> Command {
    let mut command = Command::new(gatebook_tests::machine::binary("gatebook"));
    command.args(["policy", verb, "--config"]).arg(world.gateway.folder().join("gatebook.toml"));
    command
}

fn test_cases(world: &World, cases: &str) -> Output {
    let file = world.gateway.folder().join("cases.toml");
    std::fs::write(&file, cases).expect("the file can be written");
    policy(world, "test").arg(&file).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it is UTF-8")
}

#[test]
fn an_explanation_is_what_a_session_meets() {
    let world = world();
    let statements = [
        "SELECT id, email FROM customers WHERE id = 7",
        "SELECT count(*) FROM orders",
        "DELETE FROM customers WHERE id = -1",
        "SELECT 1; DROP TABLE customers",
        "SELEC",
    ];
    for (groups, subject) in [(["developers"].as_slice(), "dana"), (&["developers", "finance"], "fay")] {
        let mut client = world.gateway.login(&world.issuer.token(subject, groups));
        for statement in statements {
            let output = explain(&world, groups, statement);
            let explained: serde_json::Value =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
            let answer = client.simple(statement);
            let refused = answer.iter().any(|line| line == "E 42501");
            assert_eq!(
                explained["decision"],
                if refused { "refuse" } else { "permit" },
                "{groups:?} {statement}"
            );
            assert_eq!(output.status.success(), !refused, "{statement}");
            if statement.contains("email") {
                assert_eq!(explained["statements"][0]["masks"][0]["column"], "orders/public.customers.email");
                assert_eq!(explained["statements"][0]["ruling"]["obligations"][0], "max_rows 50");
                assert_eq!(answer[1], "D 7,***********test");
            }
        }
    }
}

#[test]
fn cases_pass_or_name_their_difference() {
    let world = world();
    let case = |name: &str, rest: &str| {
        format!(
            "[[case]]\nname = \"{name}\"\nprincipal = \"idp:dana\"\ngroups = [\"developers\"]\nresource = \"orders-db\"\nrole = \"app_rw\"\n{rest}\n"
        )
    };
    let reads = case(
        "reads",
        "statement = \"SELECT email FROM customers\"\nexpect = \"permit\"\nmasks = [\"public.customers.email\"]",
    );
    let output = test_cases(&world, &reads);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), "ok    reads\n1 cases: 1 passed, 0 failed\n");

    let clear = case("clear", "statement = \"SELECT email FROM customers\"\nexpect = \"permit\"\nmasks = []");
    let drops = case("drops", "statement = \"DROP TABLE customers\"\nexpect = \"permit\"");
    let output = test_cases(&world, &format!("{reads}{clear}{drops}"));
    assert!(!output.status.success());
    let told = text(&output.stdout);
    assert!(
        told.contains("cases.toml:10: masked are [\"public.customers.email\"], and were to be []"),
        "{told}"
    );
    assert!(told.contains("cases.toml:19: it is refused, and was to be permitted"), "{told}");
    assert!(told.contains("refuse  drop orders/public.customers  (no policy permits it)"), "{told}");
    assert!(told.ends_with("3 cases: 1 passed, 2 failed\n"), "{told}");

    for (cases, wrong) in [
        ("", "the file has no cases"),
        (
            &*case("typo", "statement = \"SELECT 1\"\nexpect = \"permit\"\nmaskz = []"),
            "unknown field `maskz`",
        ),
        (&*case("typo", "statement = \"SELECT 1\"\nexpect = \"maybe\""), "unknown variant `maybe`"),
    ] {
        let output = test_cases(&world, cases);
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(wrong), "{output:?}");
    }
}

#[test]
fn without_the_upstreams_catalog_nothing_is_said() {
    let mut world = world();
    world.gateway.stop();
    let configuration = world.gateway.folder().join("gatebook.toml");
    point_nowhere(&configuration);
    let output = explain(&world, &["developers"], "SELECT 1");
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(text(&output.stderr).contains("cannot be read within"), "{output:?}");
}

/// Has the configuration name an upstream where nobody listens.
fn point_nowhere(configuration: &Path) {
    let text = std::fs::read_to_string(configuration).expect("it is there");
    let port = gatebook_tests::machine::free_port();
    let lines = text.lines().map(|line| match line.split_once('=') {
        Some((key, _)) if key.trim() == "upstream" => format!("upstream = \"127.0.0.1:{port}\""),
        _ => line.to_owned(),
    });
    let pointed = lines.chain(["".into()]).collect::<Vec<_>>().join("\n");
    let deadline = "[limits]\nconnect_deadline = \"2s\"\n";
    let pointed = if pointed.contains("[limits]") { pointed } else { format!("{pointed}\n{deadline}") };
    std::fs::write(configuration, pointed).expect("it can be written");
}

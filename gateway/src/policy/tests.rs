//! Policies judged from outside: texts go in, decisions come out.

mod chains;
mod folder;
mod reads;
mod slices;
mod written;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::str::FromStr;

use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicyId, Request};

use gatebook_wire::protocol::Roles;

use super::question::{SCHEMA_TEXT, VOCABULARY};
use super::*;

// ---- small words for tests ----

fn files(texts: &[(&str, &str)]) -> Vec<PolicyFile> {
    texts.iter().map(|(name, text)| PolicyFile { name: (*name).into(), text: (*text).into() }).collect()
}

fn set(text: &str) -> PolicySet {
    PolicySet::from_files(files(&[("a.cedar", text)])).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

fn mistakes(text: &str) -> Vec<String> {
    let mistakes = PolicySet::from_files(files(&[("a.cedar", text)])).expect_err(text);
    mistakes.iter().map(Mistake::to_string).collect()
}

/// `service gitlab:shop/deploy (ci/shop/deploy, ci)`, more of them after `>`.
fn chain(text: &str) -> Vec<Subject> {
    text.split('>')
        .map(|link| {
            let (kind, rest) = link.trim().split_once(' ').expect("a kind and an id");
            let (id, groups) = rest.split_once(" (").unwrap_or((rest, ")"));
            let (issuer, subject) = id.split_once(':').expect("an issuer");
            let groups = groups.trim_end_matches(')').split(", ").filter(|group| !group.is_empty());
            let kind = match kind {
                "user" => SubjectKind::User,
                "service" => SubjectKind::Service,
                _ => panic!("{kind}"),
            };
            Subject::new(kind, issuer, subject, groups.map(Arc::from)).expect("a plain issuer")
        })
        .collect()
}

/// `select table orders/public.orders`: ids are written without their resource.
fn action(text: &str) -> Action {
    let mut words = text.trim().splitn(3, ' ');
    let (verb, kind, id) =
        (words.next().expect("verb"), words.next().expect("kind"), words.next().expect("object"));
    let verb = *Verb::ALL.iter().find(|known| known.name() == verb).expect("a known verb");
    let kind =
        *name::Kind::ALL.iter().find(|known| known.name().to_lowercase() == kind).expect("a known kind");
    let parts = name::split(kind, &format!("r/{id}")).unwrap_or_else(|| panic!("{id}"));
    let part = |place: usize| -> Arc<str> { parts[place].as_str().into() };
    let object = match kind {
        name::Kind::Resource => panic!("no object is a resource"),
        name::Kind::Database => Object::Database { database: part(1) },
        name::Kind::Schema => Object::Schema { database: part(1), schema: part(2) },
        name::Kind::Table => Object::Table { database: part(1), schema: part(2), table: part(3) },
        name::Kind::Column => {
            Object::Column { database: part(1), schema: part(2), table: part(3), column: part(4) }
        }
        name::Kind::Function => Object::Function { database: part(1), schema: part(2), function: part(3) },
        name::Kind::Role => Object::Role { role: part(1) },
        name::Kind::Setting => Object::Setting { database: part(1), setting: part(2) },
    };
    Action { verb, object }
}

fn standing(who: &str) -> Standing {
    Standing {
        scopes: Vec::new(),
        chain: chain(who),
        resource: "orders-db".into(),
        database: "orders".into(),
        role: "app_ro".into(),
        protocol: "postgres",
    }
}

/// `select table orders/public.orders, insert table orders/public.log; has_where=true kind=insert`.
fn meaning(text: &str) -> Meaning {
    let (actions, facts) = text.split_once(';').unwrap_or((text, ""));
    let mut meaning = Meaning {
        actions: actions.split(", ").filter(|text| !text.trim().is_empty()).map(action).collect(),
        effect: Effect::MayChange,
        facts: Facts { kind: "select".into(), statements: 1, resolved: true, ..Facts::default() },
        masks: Vec::new(),
        roles: Roles::default(),
    };
    for fact in facts.split_whitespace() {
        let (key, value) = fact.split_once('=').expect("key=value");
        match key {
            "kind" => meaning.facts.kind = value.into(),
            "has_where" => meaning.facts.has_where = value == "true",
            "has_limit" => meaning.facts.has_limit = value == "true",
            "relations" => meaning.facts.relations = value.parse().expect("a number"),
            "calls" => meaning.facts.calls = value.parse().expect("a number"),
            "fingerprint" => meaning.facts.fingerprint = value.into(),
            "resolved" => meaning.facts.resolved = value == "true",
            "statements" => meaning.facts.statements = value.parse().expect("a number"),
            "effect" if value == "reads" => meaning.effect = Effect::Reads,
            "effect" if value == "may_change" => meaning.effect = Effect::MayChange,
            _ => panic!("{fact}"),
        }
    }
    meaning
}

/// `permit by a.cedar:1, a.cedar:4 with max_rows 5`, or `refuse …`, as the documentation writes it.
fn said(decision: &Decision) -> String {
    let join = |all: Vec<String>| all.join(", ");
    let mut said = decision.verdict.name().to_owned();
    if !decision.determining.is_empty() {
        said += &format!(" by {}", join(decision.determining.iter().map(PolicyRef::to_string).collect()));
    }
    if !decision.obligations.is_empty() {
        said += &format!(" with {}", join(decision.obligations.iter().map(Obligation::to_string).collect()));
    }
    if !decision.errors.is_empty() {
        said += " after errors";
    }
    said
}

fn check(set: &PolicySet, who: &str, what: &str, expected: &str) {
    let decision = set.decide(&standing(who), &meaning(what));
    assert_eq!(said(&decision), expected, "{who}: {what}: {decision:#?}");
    assert_eq!(decision.is_permit(), decision.refused.is_empty() && decision.errors.is_empty());
}

// ---- decisions ----

#[test]
fn what_no_policy_permits_is_refused() {
    for text in ["", "forbid (principal, action, resource);"] {
        let set = set(text);
        for verb in Verb::ALL {
            let kind = name::Kind::ALL
                .into_iter()
                .skip(1)
                .find_map(|kind| {
                    let id = match kind {
                        name::Kind::Role => "app_ro",
                        name::Kind::Column => "orders/public.orders.id",
                        name::Kind::Table | name::Kind::Function => "orders/public.orders",
                        name::Kind::Schema | name::Kind::Setting => "orders/public",
                        _ => "orders",
                    };
                    let text = format!("{} {} {id}", verb.name(), kind.name().to_lowercase());
                    question::is_known(&action(&text)).then_some(text)
                })
                .expect("each verb applies to something");
            let decision = set.decide(&standing("user corp:lee"), &meaning(&kind));
            assert!(!decision.is_permit(), "{kind}");
            assert_eq!(decision.errors, [""; 0]);
            assert_eq!(decision.refused, [action(&kind)]);
        }
    }
}

#[test]
fn no_group_of_actions_holds_what_may_do_anything() {
    let set = set(
        r#"permit (principal, action in [Action::"read", Action::"write", Action::"define"], resource);"#,
    );
    for what in [
        "opaque database orders",
        "administer database orders",
        "set setting orders/row_security",
        "call function orders/public.refund",
        "login role app_ro",
        "unmask column orders/public.customers.card",
    ] {
        check(&set, "user corp:lee", what, "refuse");
    }
    for verb in Verb::ALL.into_iter().filter(|verb| verb.group().is_some()) {
        check(
            &set,
            "user corp:lee",
            &format!("{} table orders/public.orders", verb.name()),
            "permit by a.cedar:1",
        );
    }
}

#[test]
fn each_link_of_a_chain_must_be_permitted() {
    let set = set("permit (principal in Group::\"dev\", action, resource);\n\
                   forbid (principal == Service::\"agents:bad\", action, resource);");
    let what = "select table orders/public.orders";
    check(&set, "user corp:lee (dev)", what, "permit by a.cedar:1");
    check(&set, "user corp:lee (dev) > service agents:bot (dev)", what, "permit by a.cedar:1");
    check(&set, "user corp:lee (dev) > service agents:bot", what, "refuse");
    check(&set, "user corp:lee > service agents:bot (dev)", what, "refuse");
    check(&set, "user corp:lee (dev) > service agents:bad (dev)", what, "refuse by a.cedar:2");
    check(&set, "service corp:lee (dev) > user agents:bad (dev)", what, "permit by a.cedar:1");
}

#[test]
fn nobody_may_nothing() {
    let set = set("permit (principal, action, resource);");
    let nobody = Standing { chain: Vec::new(), ..standing("user corp:lee") };
    for what in ["", "select table orders/public.orders"] {
        let decision = set.decide(&nobody, &meaning(what));
        assert_eq!(said(&decision), "refuse after errors");
        assert_eq!(decision.refused.len(), usize::from(!what.is_empty()));
    }
}

#[test]
fn a_command_that_asks_for_nothing_is_permitted() {
    check(&set("forbid (principal, action, resource);"), "user corp:lee", "", "permit");
}

#[test]
fn one_refused_action_refuses_the_command_and_is_named() {
    let set = set(r#"permit (principal, action, resource) unless { resource.name == "wages" };"#);
    let what =
        "select table orders/public.orders, select table orders/public.wages, insert table orders/public.log";
    let decision = set.decide(&standing("user corp:lee"), &meaning(what));
    assert_eq!(decision.refused, [action("select table orders/public.wages")]);
    assert_eq!(said(&decision), "refuse");
}

/// Cedar passes over a policy that fails to evaluate: a `forbid` that overflows would permit.
#[test]
fn an_error_refuses_whichever_policy_it_is_in() {
    let overflow = "when { 9223372036854775807 + context.statement.statements > 0 }";
    let nobody = r#"when { User::"corp:nobody".issuer == "corp" }"#;
    for effect in ["permit", "forbid"] {
        for condition in [overflow, nobody] {
            let text = format!(
                "permit (principal, action, resource);\n{effect} (principal, action == Action::\"select\", resource) {condition};"
            );
            let set = set(&text);
            let decision =
                set.decide(&standing("user corp:lee"), &meaning("select table orders/public.orders"));
            assert_eq!(said(&decision), "refuse after errors", "{text}");
            assert_eq!(decision.errors.len(), 1);
            assert_eq!(decision.refused, [action("select table orders/public.orders")]);
            assert!(
                decision.errors[0]
                    .starts_with("a.cedar:2: cannot tell whether corp:lee may select orders/public.orders: ")
            );
            assert!(!decision.errors[0].contains("policy1"), "{}", decision.errors[0]);
            check(&set, "user corp:lee", "insert table orders/public.orders", "permit by a.cedar:1");
        }
    }
}

#[test]
fn many_errors_are_counted_and_not_kept() {
    let set = set(
        "permit (principal, action, resource) when { 9223372036854775807 + context.statement.statements > 0 };",
    );
    let what: Vec<String> = (0..100).map(|number| format!("select table orders/public.t{number}")).collect();
    let decision = set.decide(&standing("user corp:lee"), &meaning(&what.join(", ")));
    assert_eq!(decision.errors.len(), 9);
    assert_eq!(decision.errors[8], "and 92 further errors");
}

#[test]
fn an_action_that_the_schema_does_not_know_is_refused() {
    let set = set("permit (principal, action, resource);");
    check(&set, "user corp:lee", "select role app_ro", "refuse after errors");
    check(&set, "user corp:lee", "login table orders/public.orders", "refuse after errors");
}

#[test]
fn names_with_separators_are_not_other_objects() {
    let set = set(r#"
        permit (principal, action == Action::"select", resource == Table::"orders-db/orders/public.orders");
        permit (principal, action == Action::"insert", resource == Table::"orders-db/orders/\"a.b\".c");
        permit (principal, action == Action::"update", resource in Database::"orders-db/orders");
    "#);
    let ask = |verb, database: &str, schema: &str, table: &str| {
        let object = Object::Table { database: database.into(), schema: schema.into(), table: table.into() };
        let meaning = Meaning { actions: vec![Action { verb, object }], ..meaning("") };
        set.decide(&standing("user corp:lee"), &meaning).is_permit()
    };
    assert!(ask(Verb::Select, "orders", "public", "orders"));
    assert!(!ask(Verb::Select, "orders/public", "orders", ""));
    assert!(!ask(Verb::Select, "orders", "", "public.orders"));
    assert!(!ask(Verb::Select, "orders", "public.orders", ""));
    assert!(ask(Verb::Insert, "orders", "a.b", "c"));
    assert!(!ask(Verb::Insert, "orders", "a", "b.c"));
    assert!(ask(Verb::Update, "orders", "any", "any"));
    assert!(!ask(Verb::Update, "orders/public", "any", "any"));
}

#[test]
fn an_issuer_with_a_colon_is_no_issuer() {
    let subject = |issuer: &str| Subject::new(SubjectKind::User, issuer, "x:y", []);
    assert_eq!(subject("a:b"), None);
    assert_eq!(subject(""), None);
    let subject = subject("corp").expect("a plain issuer");
    assert_eq!((subject.issuer(), subject.subject(), &**subject.id()), ("corp", "x:y", "corp:x:y"));
}

#[test]
fn obligations_of_all_determining_permits_hold_together() {
    let set = set(r#"
@max_rows("1000")
permit (principal, action == Action::"select", resource);
@max_rows("50")
permit (principal in Group::"dev", action == Action::"select", resource);
permit (principal in Group::"dba", action == Action::"select", resource);
@max_rows("5")
permit (principal, action == Action::"select", resource == Table::"orders-db/orders/public.wages");
@max_rows("2")
permit (principal, action == Action::"select", resource) when { context.statement.has_limit };
"#);
    let orders = "select table orders/public.orders";
    check(&set, "user corp:lee", orders, "permit by a.cedar:2 with max_rows 1000");
    check(&set, "user corp:lee (dev)", orders, "permit by a.cedar:2, a.cedar:4 with max_rows 50");
    check(&set, "user corp:lee (dba)", orders, "permit by a.cedar:2, a.cedar:6 with max_rows 1000");
    check(
        &set,
        "user corp:lee (dba)",
        "select table orders/public.orders, select table orders/public.wages",
        "permit by a.cedar:2, a.cedar:6, a.cedar:7 with max_rows 5",
    );
    check(
        &set,
        "user corp:lee (dba) > service agents:bot (dev)",
        orders,
        "permit by a.cedar:2, a.cedar:4, a.cedar:6 with max_rows 50",
    );
    let limited = "select table orders/public.orders; has_limit=true";
    check(&set, "user corp:lee", limited, "permit by a.cedar:2, a.cedar:9 with max_rows 2");
    let decision = set.decide(&standing("user corp:lee"), &meaning(limited));
    assert_eq!(decision.at_most(Limit::Rows), Some(2));
}

#[test]
fn every_fact_reaches_the_condition() {
    for (condition, with, without) in [
        ("context.statement.kind == \"copy\"", "; kind=copy", "; kind=select"),
        ("context.statement.has_where", "; has_where=true", ""),
        ("context.statement.has_limit", "; has_limit=true", ""),
        ("context.statement.statements == 2", "; statements=2", ""),
        ("context.statement.resolved", "; resolved=true", "; resolved=false"),
        ("context.statement.effect == Effect::\"reads\"", "; effect=reads", ""),
        ("context.statement.effect == Effect::\"may_change\"", "", "; effect=reads"),
    ] {
        let set = set(&format!(
            "permit (principal, action == Action::\"select\", resource) when {{ {condition} }};"
        ));
        let what = "select table orders/public.orders";
        check(&set, "user corp:lee", &format!("{what}{with}"), "permit by a.cedar:1");
        check(&set, "user corp:lee", &format!("{what}{without}"), "refuse");
    }
    for (condition, holds) in [
        ("context.role == \"app_ro\"", true),
        ("context.role == \"app_rw\"", false),
        ("context.database == \"orders\"", true),
        ("context.database == \"other\"", false),
        ("context.resource == \"orders-db\"", true),
        ("context.protocol == \"postgres\"", true),
        ("context.protocol == \"mysql\"", false),
        ("principal.issuer == \"corp\" && principal.subject == \"lee\"", true),
        ("principal.issuer == \"gitlab\"", false),
        ("resource.schema == \"public\" && resource.name == \"orders\"", true),
        ("resource.name like \"o*\"", true),
        ("resource.name == \"public\"", false),
    ] {
        let text = format!(
            "permit (principal, action == Action::\"select\", resource is Table) when {{ {condition} }};"
        );
        let expected = if holds { "permit by a.cedar:1" } else { "refuse" };
        check(&set(&text), "user corp:lee", "select table orders/public.orders", expected);
    }
}

/// A session that became another role was decided by the one that it logged in as.
#[test]
fn every_role_in_use_must_be_permitted() {
    let is = |role: &str| format!("context.role == {role:?}");
    let permit = |condition: &str| format!("permit (principal, action, resource) when {{ {condition} }};");
    let not_boss = format!(
        "permit (principal, action, resource);\nforbid (principal, action, resource) when {{ {} }};",
        is("boss")
    );
    let any_of = |roles: &[&str]| Roles::AnyOf(roles.iter().map(|role| (*role).into()).collect());
    let unasked = "permit (principal, action, resource) when { context.database == \"orders\" };".to_owned();
    for (text, roles, permitted) in [
        (&not_boss, Roles::Login, true),
        (&not_boss, any_of(&["app_ro"]), true),
        (&not_boss, any_of(&["boss"]), false),
        (&not_boss, any_of(&["app_ro", "boss"]), false),
        (&not_boss, any_of(&[]), false),
        (&not_boss, Roles::Unknown, false),
        (&permit(&is("boss")), any_of(&["boss"]), true),
        (&permit(&is("boss")), any_of(&["app_ro", "boss"]), false),
        (&permit(&format!("{} || {}", is("boss"), is("app_ro"))), any_of(&["app_ro", "boss"]), true),
        (&permit(&is("app_ro")), Roles::Unknown, false),
        (&unasked, Roles::Unknown, true),
    ] {
        let meaning = Meaning { roles: roles.clone(), ..meaning("select table orders/public.orders") };
        let decision = set(text).decide(&standing("user corp:lee"), &meaning);
        assert_eq!(decision.is_permit(), permitted, "{text} as {roles:?}: {:?}", decision.errors);
    }
}

#[test]
fn login_is_decided_on_the_role() {
    let set = set(r#"permit (principal, action == Action::"login", resource == Role::"orders-db/app_ro");"#);
    let standing = standing("user corp:lee");
    assert!(set.decide(&standing, &login("app_ro")).is_permit());
    assert!(!set.decide(&standing, &login("app_rw")).is_permit());
}

// ---- what does not load ----

#[test]
fn each_mistake_is_refused_at_load_with_its_place() {
    let mut wrong = Vec::new();
    for (text, expected) in [
        ("permit (principal, action, resource)", "a.cedar:1:37: "),
        (
            "permit (principal, action, resource);\nallow (principal, action, resource);",
            "a.cedar:2:1: invalid policy effect: allow",
        ),
        (
            "permit (principal, action, resource == Tabel::\"orders-db/o/p.t\");",
            "a.cedar:1:40: unrecognized entity type `Tabel` (did you mean `Table`?)",
        ),
        (
            "permit (principal, action == Action::\"selct\", resource);",
            "a.cedar:1:30: unrecognized action `Action::\"selct\"` (did you mean `Action::\"select\"`?)",
        ),
        (
            "\n\npermit (principal, action, resource) when { context.statement.has_wher };",
            "a.cedar:3:45: attribute `statement.has_wher` ",
        ),
        (
            "permit (principal, action, resource) when { context.statement.effect == \"reads\" };",
            "a.cedar:1:45: ",
        ),
        (
            "permit (principal, action, resource) when { context.statement.effect == Effect::\"read\" };",
            "a.cedar:1:73: entity `Effect::\"read\"` is of an enumerated entity type, but `\"read\"` is not declared as a valid eid",
        ),
        ("permit (principal, action, resource) when { context.statement.kind == 1 };", "a.cedar:1:45: "),
        (
            "permit (principal, action == Action::\"read\", resource);",
            "a.cedar:1:1: can never apply: no action of its scope is done by such a principal to such a resource",
        ),
        (
            "permit (principal, action == Action::\"login\", resource is Table);",
            "a.cedar:1:1: can never apply: no action of its scope is done by such a principal to such a resource",
        ),
        (
            "permit (principal, action, resource) when { false };",
            "a.cedar:1:1: can never apply: its conditions are never true",
        ),
        (
            "permit (principal in ?principal, action, resource);",
            "a.cedar:1:1: a template with slots (?principal, ?resource) is never linked here: write the policy out",
        ),
        (
            "@requires_aproval(\"dba\")\npermit (principal, action, resource);",
            "a.cedar:1:1: @requires_aproval: unknown annotation (did you mean @requires_approval?)",
        ),
        (
            "@id(\"x\")\n@requires_approval(\"dba\")\npermit (principal, action, resource);",
            "a.cedar:2:1: @requires_approval: a login waits for nobody, and neither does what is done to the gateway: name other actions",
        ),
        (
            "@reason_required\npermit (principal, action, resource);",
            "a.cedar:1:1: @reason_required: a login waits for nobody, and neither does what is done to the gateway: name other actions",
        ),
        (
            "@break_glass\npermit (principal, action == Action::\"login\", resource);",
            "a.cedar:1:1: @break_glass: a login waits for nobody, and neither does what is done to the gateway: name other actions",
        ),
        (
            "@requires_approval(\"dba\")\npermit (principal, action in [Action::\"update\", Action::\"login\"], resource);",
            "a.cedar:1:1: @requires_approval: a login waits for nobody, and neither does what is done to the gateway: name other actions",
        ),
        (
            "@reason_required\npermit (principal, action == Action::\"revoke\", resource);",
            "a.cedar:1:1: @reason_required: a login waits for nobody, and neither does what is done to the gateway: name other actions",
        ),
        (
            "@max_rows(\"many\")\npermit (principal, action, resource);",
            "a.cedar:1:1: @max_rows: \"many\" is not a number of rows (for example \"1000\")",
        ),
        (
            "@max_rows(\"5\")\nforbid (principal, action, resource);",
            "a.cedar:1:1: @max_rows: an obligation on a forbid has no meaning: it permits nothing",
        ),
        (
            "@max_rows(\"5\")\npermit (principal, action in [Action::\"define\", Action::\"login\"], resource);",
            "a.cedar:1:1: @max_rows: none of the actions of this policy shows rows",
        ),
        (
            "@id(\"x\")\npermit (principal, action, resource);\n@id(\"x\")\nforbid (principal, action, resource);",
            "a.cedar:3:1: @id: \"x\" is already the name of a.cedar:1",
        ),
        (
            "permit (principal, action, resource in Database::\"orders\");",
            "a.cedar:1:40: \"orders\" is no database: write Database::\"resource/database\"",
        ),
        (
            "permit (principal, action, resource) when { resource in Table::\"r/d/t\" };",
            "a.cedar:1:57: \"r/d/t\" is no table: write Table::\"resource/database/schema.table\"",
        ),
        (
            "permit (principal, action, resource in Database::\"r/\\\"d\\\"\");",
            "a.cedar:1:40: \"r/\\\"d\\\"\" has quotes that it does not need: write \"r/d\"",
        ),
        (
            "permit (principal == User::\"lee\", action, resource);",
            "a.cedar:1:22: \"lee\" is no principal: write User::\"issuer:subject\"",
        ),
    ] {
        let found = mistakes(text);
        if found.len() != 1 || !found[0].starts_with(expected) {
            wrong.push(format!("{text}\n expected {expected}\n found    {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_mistakes_of_all_files_are_told_together() {
    let texts = [
        (
            "b.cedar",
            "@qorum(\"2\")\npermit (principal, action == Action::\"selct\", resource);\nforbid (principal, action, resource == Role::\"x\");",
        ),
        ("a.cedar", "permit (principal"),
        ("c.cedar", "permit (principal, action, resource);"),
    ];
    let mistakes = PolicySet::from_files(files(&texts)).expect_err("three mistakes and one");
    let places: Vec<(&str, u32)> = mistakes.iter().map(|mistake| (&*mistake.file, mistake.line)).collect();
    assert_eq!(places, [("a.cedar", 1), ("b.cedar", 1), ("b.cedar", 2), ("b.cedar", 3)]);
}

#[test]
fn what_is_suspicious_loads_with_a_warning() {
    let warnings = |text: &str| set(text).warnings().iter().map(Mistake::to_string).collect::<Vec<_>>();
    assert_eq!(warnings(""), ["policies: there is no policy, so everything is refused"]);
    assert_eq!(
        warnings("permit (principal, action, resource);"),
        [
            "a.cedar:1:1: permits every action, `opaque`, `administer` and `login` among them: better name the actions"
        ]
    );
    assert_eq!(warnings("forbid (principal, action, resource);"), [""; 0]);
}

#[test]
fn names_that_the_configuration_has_not_are_mistakes() {
    let known = Known {
        issuers: ["corp".to_owned()].into(),
        resources: BTreeMap::from([(
            "orders-db".to_owned(),
            KnownResource { databases: ["orders".to_owned()].into(), roles: ["app_ro".to_owned()].into() },
        )]),
    };
    let set =
        set(r#"permit (principal == User::"corp:lee", action, resource in Database::"orders-db/orders");
permit (principal == User::"crop:lee", action, resource in Resource::"orders-bd");
permit (principal, action, resource in Schema::"orders-db/order/public");
permit (principal, action == Action::"login", resource == Role::"orders-db/app_rw")
  when { context.role == "app_ro" && resource in Resource::"elsewhere" };
"#);
    let told: Vec<String> = set.check_against(&known).iter().map(Mistake::to_string).collect();
    assert_eq!(
        told,
        [
            "a.cedar:2:22: issuer \"crop\" is not in the configuration (did you mean corp?)",
            "a.cedar:2:60: resource \"orders-bd\" is not in the configuration (did you mean orders-db?)",
            "a.cedar:3:40: resource \"orders-db\": database \"order\" is not in the configuration (did you mean orders?)",
            "a.cedar:4:59: resource \"orders-db\": role \"app_rw\" is not in the configuration (did you mean app_ro?)",
            "a.cedar:5:50: resource \"elsewhere\" is not in the configuration",
        ]
    );
}

// ---- the schema ----

#[test]
fn the_schema_has_each_verb_in_its_group_and_no_other_action() {
    let expected: HashSet<String> = Verb::ALL
        .iter()
        .flat_map(|verb| [Some(verb.name()), verb.group()])
        .flatten()
        .chain(AdminAction::ALL.iter().map(|action| action.name()))
        .map(|name| format!("Action::{name:?}"))
        .collect();
    let found: HashSet<String> = VOCABULARY.validator.schema().actions().map(EntityUid::to_string).collect();
    assert_eq!(found, expected);

    let entities = VOCABULARY.validator.schema().action_entities().expect("the actions of the schema");
    for (place, verb) in Verb::ALL.into_iter().enumerate() {
        assert_eq!(verb as usize, place, "tables are indexed by verb");
        let ancestors: Vec<EntityUid> =
            entities.ancestors(VOCABULARY.action(verb)).expect("an action").cloned().collect();
        assert_eq!(ancestors, Vec::from_iter(VOCABULARY.action_group(verb)));
    }
    for (place, kind) in name::Kind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, place, "tables are indexed by kind");
    }
}

#[test]
fn the_hash_is_of_names_and_texts_and_schema_alone() {
    let text = "permit (principal, action, resource);";
    let of = |texts: &[(&str, &str)]| *PolicySet::from_files(files(texts)).expect("all well").hash();
    let one = of(&[("a.cedar", text), ("b.cedar", "")]);
    assert_eq!(one, of(&[("b.cedar", ""), ("a.cedar", text)]));
    let others = [
        of(&[("a.cedar", text)]),
        of(&[("b.cedar", text), ("a.cedar", "")]),
        of(&[("a.cedar", &format!("{text}\n")), ("b.cedar", "")]),
    ];
    assert!(!others.contains(&one));

    // Byte for byte as the documentation has it.
    let mut bytes = Vec::new();
    for part in [SCHEMA_TEXT, "a.cedar", text, "b.cedar", ""] {
        bytes.extend(u64::try_from(part.len()).expect("short").to_le_bytes());
        bytes.extend(part.as_bytes());
    }
    assert_eq!(one, blake3::derive_key("gatebook policy set v1", &bytes));
}

// ---- the cache ----

#[test]
fn the_cache_answers_as_the_set_does_and_forgets_on_every_change() {
    let open = set("permit (principal, action == Action::\"select\", resource);");
    let shut = set("permit (principal, action == Action::\"insert\", resource);");
    let lee = Arc::new(standing("user corp:lee"));
    let what = Arc::new(meaning("select table orders/public.orders"));
    let mut cache = DecisionCache::new(8);

    let first = cache.decide(&open, &lee, &what);
    assert!(first.is_permit());
    assert!(Arc::ptr_eq(&first, &cache.decide(&open, &lee, &what)), "from memory");
    let same = Arc::new(Standing::clone(&lee));
    assert!(Arc::ptr_eq(&first, &cache.decide(&open, &same, &what)), "an equal standing is the same");

    assert!(!cache.decide(&shut, &lee, &what).is_permit(), "another set");
    assert!(cache.decide(&open, &lee, &what).is_permit());
    let by_group = set(
        "permit (principal in Group::\"dev\", action == Action::\"select\", resource) when { context.role == \"app_rw\" && context.database == \"stock\" && context.resource == \"stock-db\" };",
    );
    let mut standing = standing("user corp:lee (dev)");
    (standing.role, standing.database, standing.resource) =
        ("app_rw".into(), "stock".into(), "stock-db".into());
    assert!(cache.decide(&by_group, &Arc::new(standing.clone()), &what).is_permit());
    for change in [
        |standing: &mut Standing| standing.chain = chain("user corp:lee"),
        |standing: &mut Standing| standing.chain.push(chain("service agents:bot").remove(0)),
        |standing: &mut Standing| standing.role = "app_ro".into(),
        |standing: &mut Standing| standing.database = "orders".into(),
        |standing: &mut Standing| standing.resource = "orders-db".into(),
    ] {
        let permitted = Arc::new(standing.clone());
        assert!(cache.decide(&by_group, &permitted, &what).is_permit());
        let mut changed = standing.clone();
        change(&mut changed);
        assert!(!cache.decide(&by_group, &Arc::new(changed), &what).is_permit(), "another standing");
    }
}

/// An address is a key only while its owner is held: dropping a meaning must not let another take its place.
#[test]
fn the_cache_never_takes_one_meaning_for_another() {
    let set = set("permit (principal, action == Action::\"select\", resource);");
    let lee = Arc::new(standing("user corp:lee"));
    let mut cache = DecisionCache::new(64);
    for round in 0..1000 {
        let verb = if round % 3 == 0 { "select" } else { "insert" };
        let what = Arc::new(meaning(&format!("{verb} table orders/public.orders")));
        assert_eq!(cache.decide(&set, &lee, &what).is_permit(), verb == "select");
    }
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_used() {
    let set = set("permit (principal, action == Action::\"select\", resource);");
    let lee = Arc::new(standing("user corp:lee"));
    let mut cache = DecisionCache::new(4);
    let often = Arc::new(meaning("select table orders/public.orders"));
    let first = cache.decide(&set, &lee, &often);
    let mut held = Vec::new();
    for _ in 0..100 {
        let once = Arc::new(meaning("select table orders/public.orders"));
        cache.decide(&set, &lee, &once);
        held.push(once);
        assert!(Arc::ptr_eq(&first, &cache.decide(&set, &lee, &often)), "what is used stays");
    }
    let kept = held.iter().filter(|meaning| Arc::strong_count(meaning) > 1).count();
    assert!(kept <= 8, "{kept} are held");
}

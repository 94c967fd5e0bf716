//! Slices against Cedar's own authorizer: they never change a decision.

use super::*;

/// A small generator, so that a failure is found again by its number.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }

    pub(super) fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.roll(choices.len())]
    }
}

const PLACES: [&str; 12] = [
    "Resource::\"orders-db\"",
    "Resource::\"other\"",
    "Database::\"orders-db/orders\"",
    "Database::\"orders-db/stock\"",
    "Schema::\"orders-db/orders/public\"",
    "Schema::\"orders-db/orders/audit\"",
    "Table::\"orders-db/orders/public.orders\"",
    "Table::\"orders-db/orders/public.wages\"",
    "Column::\"orders-db/orders/public.orders.id\"",
    "Function::\"orders-db/orders/public.refund\"",
    "Role::\"orders-db/app_ro\"",
    "Setting::\"orders-db/orders/work_mem\"",
];
const CONDITIONS: [&str; 14] = [
    "",
    "",
    "",
    "when { context.statement.has_where }",
    "unless { context.statement.has_where }",
    "when { context.statement.statements > 1 || context.role == \"app_ro\" }",
    "when { 9223372036854775806 + context.statement.statements > 0 }",
    "when { User::\"corp:nobody\".issuer == \"corp\" }",
    "when { resource.name == \"orders\" }",
    "when { principal.issuer == \"corp\" }",
    "when { principal in Group::\"dev\" }",
    "unless { resource in Schema::\"orders-db/orders/public\" }",
    "when { action in Action::\"read\" || action == Action::\"opaque\" }",
    "when { context.statement.effect == Effect::\"reads\" }",
];

pub(super) fn random_policy(dice: &mut Dice) -> String {
    let principal = dice.pick(&[
        "principal",
        "principal",
        "principal == User::\"corp:lee\"",
        "principal == Service::\"gitlab:job\"",
        "principal in User::\"corp:lee\"",
        "principal in Group::\"dev\"",
        "principal in Group::\"dba\"",
        "principal is User",
        "principal is Service in Group::\"dev\"",
    ]);
    let verb = Verb::ALL[dice.roll(Verb::ALL.len())].name();
    let group = dice.pick(&["read", "write", "define"]);
    let action = match dice.roll(5) {
        0 => "action".to_owned(),
        1 => format!("action == Action::{verb:?}"),
        2 => format!("action in Action::{verb:?}"),
        3 => format!("action in Action::{group:?}"),
        _ => format!("action in [Action::{group:?}, Action::{verb:?}]"),
    };
    let place = dice.pick(&PLACES);
    let kind = dice.pick(&["Database", "Schema", "Table", "Column", "Function", "Role"]);
    let resource = match dice.roll(6) {
        0 | 1 => "resource".to_owned(),
        2 => format!("resource == {place}"),
        3 => format!("resource in {place}"),
        4 => format!("resource is {kind}"),
        _ => format!("resource is {kind} in {place}"),
    };
    let effect = dice.pick(&["permit", "permit", "forbid"]);
    format!("{effect} ({principal}, {action}, {resource}) {};", dice.pick(&CONDITIONS))
}

/// The whole little world, written down without any of the code under test.
fn world() -> Entities {
    let user = r#"{"uid":{"type":"User","id":"corp:lee"},"attrs":{"issuer":"corp","subject":"lee"},"parents":[{"type":"Group","id":"dev"}]}"#;
    let job = r#"{"uid":{"type":"Service","id":"gitlab:job"},"attrs":{"issuer":"gitlab","subject":"job"},"parents":[{"type":"Group","id":"dev"},{"type":"Group","id":"dba"}]}"#;
    let mut all = vec![user.to_owned(), job.to_owned()];
    for group in ["dev", "dba"] {
        all.push(format!(r#"{{"uid":{{"type":"Group","id":"{group}"}},"attrs":{{}},"parents":[]}}"#));
    }
    for (kind, id, attributes, parent) in [
        ("Resource", "orders-db", r#""name":"orders-db""#, None),
        ("Database", "orders-db/orders", r#""name":"orders""#, Some(("Resource", "orders-db"))),
        ("Schema", "orders-db/orders/public", r#""name":"public""#, Some(("Database", "orders-db/orders"))),
        ("Schema", "orders-db/orders/audit", r#""name":"audit""#, Some(("Database", "orders-db/orders"))),
        (
            "Table",
            "orders-db/orders/public.orders",
            r#""schema":"public","name":"orders""#,
            Some(("Schema", "orders-db/orders/public")),
        ),
        (
            "Table",
            "orders-db/orders/audit.orders",
            r#""schema":"audit","name":"orders""#,
            Some(("Schema", "orders-db/orders/audit")),
        ),
        (
            "Column",
            "orders-db/orders/public.orders.id",
            r#""schema":"public","table":"orders","name":"id""#,
            Some(("Table", "orders-db/orders/public.orders")),
        ),
        (
            "Function",
            "orders-db/orders/public.refund",
            r#""schema":"public","name":"refund""#,
            Some(("Schema", "orders-db/orders/public")),
        ),
        ("Role", "orders-db/app_ro", r#""name":"app_ro""#, Some(("Resource", "orders-db"))),
        (
            "Setting",
            "orders-db/orders/work_mem",
            r#""name":"work_mem""#,
            Some(("Database", "orders-db/orders")),
        ),
    ] {
        let parents =
            parent.map_or(String::new(), |(kind, id)| format!(r#"{{"type":"{kind}","id":"{id}"}}"#));
        all.push(format!(
            r#"{{"uid":{{"type":"{kind}","id":"{id}"}},"attrs":{{{attributes}}},"parents":[{parents}]}}"#
        ));
    }
    let text = format!("[{}]", all.join(","));
    Entities::from_json_str(&text, Some(VOCABULARY.validator.schema()))
        .expect("the world is as the schema says")
}

/// Slices, minimal entities and single evaluation never change what Cedar says, except that an error refuses.
#[test]
fn slicing_never_changes_a_decision() {
    let world = world();
    let objects = [
        "database orders",
        "schema orders/public",
        "table orders/public.orders",
        "table orders/audit.orders",
        "column orders/public.orders.id",
        "function orders/public.refund",
        "role app_ro",
        "setting orders/work_mem",
    ];
    let (mut permits, mut refusals, mut errors) = (0, 0, 0);
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let mut policies = Vec::new();
        while policies.len() < 1 + usize::try_from(seed % 12).expect("small") {
            let text = random_policy(&mut dice);
            // Some can never apply; loading refuses them, and they are not what is tested here.
            if PolicySet::from_files(files(&[("a.cedar", &text)])).is_ok() {
                policies.push(text);
            }
        }
        let ours = set(&policies.join("\n"));
        let all = policies.iter().enumerate().map(|(line, text)| {
            let id = PolicyId::new(format!("a.cedar:{}", line + 1));
            cedar_policy::Policy::parse(Some(id), text).expect("it was parsed before")
        });
        let theirs = cedar_policy::PolicySet::from_policies(all).expect("ids differ");
        for _ in 0..60 {
            let verb = Verb::ALL[dice.roll(Verb::ALL.len())];
            let asked = format!("{} {}", verb.name(), dice.pick(&objects));
            let has_where = dice.roll(2) == 0;
            let statements = 1 + dice.roll(2);
            let reads = dice.roll(2) == 0;
            let (who, uid) = if dice.roll(2) == 0 {
                ("user corp:lee (dev)", "User::\"corp:lee\"")
            } else {
                ("service gitlab:job (dev, dba)", "Service::\"gitlab:job\"")
            };
            let action = action(&asked);
            if !question::is_known(&action) {
                continue;
            }
            let effect = if reads { "reads" } else { "may_change" };
            let what = format!("{asked}; has_where={has_where} statements={statements} effect={effect}");
            let decision = ours.decide(&standing(who), &meaning(&what));

            let context = format!(
                r#"{{"resource":"orders-db","database":"orders","role":"app_ro","protocol":"postgres","statement":{{"kind":"select","has_where":{has_where},"has_limit":false,"statements":{statements},"resolved":true,"relations":0,"calls":0,"fingerprint":"","effect":{{"__entity":{{"type":"Effect","id":"{effect}"}}}}}}}}"#
            );
            let (kind, id) =
                asked.split_once(' ').and_then(|(_, object)| object.split_once(' ')).expect("an object");
            let kind = format!("{}{}", kind[..1].to_uppercase(), &kind[1..]);
            let action = VOCABULARY.action(verb).clone();
            let context = Context::from_json_str(&context, Some((VOCABULARY.validator.schema(), &action)))
                .expect("a context");
            let resource = EntityUid::from_str(&format!("{kind}::\"orders-db/{id}\"")).expect("an id");
            let principal = EntityUid::from_str(uid).expect("an id");
            let request =
                Request::new(principal, action, resource, context, Some(VOCABULARY.validator.schema()))
                    .expect("valid");
            let full = Authorizer::new().is_authorized(&request, &theirs, &world);

            let told =
                format!("seed {seed}: {who}: {what}\n{}\n{decision:#?}\n{full:#?}", policies.join("\n"));
            let erred = full.diagnostics().errors().count();
            assert_eq!(decision.errors.len(), erred, "{told}");
            if erred > 0 {
                errors += 1;
                assert!(!decision.is_permit(), "{told}");
                continue;
            }
            let permitted = full.decision() == cedar_policy::Decision::Allow;
            assert_eq!(decision.is_permit(), permitted, "{told}");
            let reasons: HashSet<String> =
                full.diagnostics().reason().map(|id| AsRef::<str>::as_ref(id).to_owned()).collect();
            let ours: HashSet<String> = decision.determining.iter().map(PolicyRef::to_string).collect();
            assert_eq!(ours, reasons, "{told}");
            if permitted { permits += 1 } else { refusals += 1 }
        }
    }
    // Each way of coming out was tested, not only the easy one.
    assert!(permits > 200 && refusals > 200 && errors > 50, "{permits} {refusals} {errors}");
}

//! Chains: what is effective is the intersection of every link's rights and every delegation's scope, no more and no less.

use super::slices::{Dice, random_policy};
use super::*;

const OBJECTS: [&str; 8] = [
    "database orders",
    "schema orders/public",
    "table orders/public.orders",
    "table orders/audit.orders",
    "column orders/public.orders.id",
    "function orders/public.refund",
    "role app_ro",
    "setting orders/work_mem",
];

fn random_scope(dice: &mut Dice, place: usize) -> Arc<Scope> {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let text = ScopeText {
        resources: owned(if dice.roll(12) == 0 { &["other"] } else { &["orders-db", "other"] }),
        actions: match dice.roll(4) {
            0 => owned(&["read"]),
            1 => owned(&["read", "write", "set"]),
            2 => owned(&["read", "call", "define", "opaque"]),
            _ => owned(&["read", "write", "define", "administer", "opaque", "set", "call", "unmask"]),
        },
        roles: (dice.roll(3) == 0).then(|| owned(&[dice.pick(&["app_ro", "app_rw"])])),
        tables: (dice.roll(2) == 0)
            .then(|| owned(&[dice.pick(&["public.orders", "audit.*", "stock/public.*"])])),
        rows: (dice.roll(2) == 0).then(|| 1 + dice.roll(100) as u64),
    };
    Arc::new(Scope::read(&format!("d{place}"), &text).expect("a scope"))
}

#[test]
fn effective_is_the_intersection_along_the_chain() {
    let people =
        ["user corp:lee (dev)", "service gitlab:job (dev, dba)", "user corp:dana (dba)", "service ci:bot"];
    let (mut permits, mut refusals, mut limited) = (0, 0, 0);
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut policies = vec!["permit (principal, action, resource);".to_owned()];
        while policies.len() < 1 + dice.roll(6) {
            let text = random_policy(&mut dice);
            if PolicySet::from_files(files(&[("a.cedar", &text)])).is_ok() {
                policies.push(text);
            }
        }
        let set = set(&policies.join("\n"));
        for _ in 0..20 {
            let links: Vec<&str> = (0..1 + dice.roll(3)).map(|_| dice.pick(&people)).collect();
            let scopes: Vec<_> = (0..dice.roll(4)).map(|place| random_scope(&mut dice, place)).collect();
            let actions: Vec<String> = (0..1 + dice.roll(2))
                .map(|_| format!("{} {}", Verb::ALL[dice.roll(Verb::ALL.len())].name(), dice.pick(&OBJECTS)))
                .collect();
            let meaning = meaning(&actions.join(", "));
            let whole = Standing { scopes: scopes.clone(), ..standing(&links.join(" > ")) };
            let decision = set.decide(&whole, &meaning);
            let by_links = links.iter().all(|link| set.decide(&standing(link), &meaning).is_permit());
            let by_scopes = scopes
                .iter()
                .all(|scope| meaning.actions.iter().all(|action| scope.allows("orders-db", action)));
            let told = format!(
                "seed {seed}: {links:?} {scopes:?} {actions:?}\n{}\n{decision:#?}",
                policies.join("\n")
            );
            assert_eq!(decision.is_permit(), by_links && by_scopes, "{told}");
            assert_eq!(decision.beyond, !by_scopes, "{told}");
            if decision.is_permit() {
                permits += 1;
                let least = scopes.iter().filter_map(|scope| scope.rows_max()).min();
                limited += usize::from(least.is_some());
                let rows = decision.at_most(Limit::Rows);
                assert!(least.is_none_or(|least| rows.is_some_and(|rows| rows <= least.get())), "{told}");
            } else {
                refusals += 1;
            }
        }
    }
    assert!(permits > 200 && refusals > 200 && limited > 50, "{permits} {refusals} {limited}");
}

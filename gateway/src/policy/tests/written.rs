//! What is written for people is true: the starting policies and the documentation.

use super::*;

#[test]
fn the_starting_policies_load_without_a_word() {
    let set = PolicySet::from_files(files(&[("starter.cedar", STARTER)]))
        .unwrap_or_else(|found| panic!("{found:#?}"));
    assert_eq!(set.warnings(), []);
    let known = Known {
        issuers: Default::default(),
        resources: BTreeMap::from([(
            "orders-db".to_owned(),
            KnownResource { databases: ["orders".to_owned()].into(), roles: ["app_ro".to_owned()].into() },
        )]),
    };
    assert_eq!(set.check_against(&known), []);

    // What stands in it commented out must be right as well.
    let uncommented: String = STARTER.lines().map(|line| uncomment(line) + "\n").collect();
    let set = PolicySet::from_files(files(&[("starter.cedar", &uncommented)]))
        .unwrap_or_else(|found| panic!("{found:#?}"));
    assert_eq!(set.len(), 6);
    let update = "update table orders/public.orders";
    let job = "service gitlab:job (ci/shop/deploy)";
    check(&set, job, &format!("{update}; has_where=true"), "permit by starter.cedar:37");
    check(&set, job, update, "refuse");
    check(&set, job, "insert table orders/public.orders", "permit by starter.cedar:37");
    check(&set, "user corp:lee (dba)", "select table orders/public.wages", "refuse by starter.cedar:26");
}

/// A commented-out line of policy; prose stays a comment.
fn uncomment(line: &str) -> String {
    let Some(rest) = line.strip_prefix("// ") else { return line.to_owned() };
    let starts = ["@", "permit", "  principal", "  action", "  resource", ")", "unless"];
    if starts.iter().any(|start| rest.starts_with(start)) { rest.to_owned() } else { line.to_owned() }
}

/// The examples of `docs/policy.md`: under each heading, the `cedar` blocks are a folder; a `decisions` block asks it,
/// and a `mistakes` block says why it does not load.
#[test]
fn worked_decisions_of_the_documentation_are_true() {
    let text = include_str!("../../../../docs/policy.md");
    let (mut decisions, mut refusals, mut wrong) = (0, 0, Vec::new());
    let mut folder: Vec<(String, String)> = Vec::new();
    for (heading, kind, body) in blocks(text) {
        let compile = |folder: &[(String, String)]| {
            let files = folder
                .iter()
                .map(|(name, text)| PolicyFile { name: name.as_str().into(), text: text.as_str().into() });
            PolicySet::from_files(files.collect())
        };
        match kind.split_once(' ').unwrap_or((&kind, "")) {
            ("heading", _) => folder.clear(),
            ("cedar", name) => folder.push((name.to_owned(), body)),
            ("decisions", _) => {
                let set = compile(&folder).unwrap_or_else(|found| panic!("{heading}: {found:#?}"));
                for line in body.lines() {
                    let columns: Vec<&str> = line.split('|').map(str::trim).collect();
                    let [who, what, expected] = columns[..] else { panic!("{heading}: {line}") };
                    let decision = set.decide(&standing(who), &meaning(what));
                    decisions += 1;
                    if said(&decision) != expected {
                        wrong.push(format!(
                            "{heading}: {line}\n found {}: {:?}",
                            said(&decision),
                            decision.errors
                        ));
                    }
                }
            }
            ("mistakes", _) => {
                let found = compile(&folder).expect_err(&heading);
                let found: Vec<String> = found.iter().map(Mistake::to_string).collect();
                refusals += found.len();
                if found != body.lines().collect::<Vec<_>>() {
                    wrong.push(format!("{heading}\n found {found:#?}"));
                }
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        decisions >= 20 && refusals >= 5,
        "the documentation has lost its examples: {decisions} {refusals}"
    );
}

/// The headings and fenced blocks of a text, each with the heading that it stands under.
fn blocks(text: &str) -> Vec<(String, String, String)> {
    let mut blocks = Vec::new();
    let mut heading = String::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => open = Some((kind.to_owned(), String::new())),
            (None, None) if line.starts_with('#') => {
                heading = line.to_owned();
                blocks.push((heading.clone(), "heading".to_owned(), String::new()));
            }
            (None, None) => {}
            (Some(_), Some(_)) => {
                let (kind, body) = open.take().expect("it is open");
                blocks.push((heading.clone(), kind, body));
            }
            (Some((_, body)), None) => {
                body.push_str(line);
                body.push('\n');
            }
        }
    }
    blocks
}

//! Which groups a token puts its subject into: those of one claim, and those that templates make of others.
//!
//! All issuers share one space of group names, as policies name a group without its issuer. An issuer that
//! should not be able to name another's groups gets a template with a prefix of its own instead of
//! `groups_claim`.
//!
//! What a newcomer gets wrong: a group that is missing may widen what is permitted (`forbid` rules name groups
//! too). So a claim of a form that is not understood refuses the token; it is never passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::json::Object;
use super::rejected::quoted;

/// The most groups that one token may give.
pub(super) const GROUPS_MAX: usize = 1024;
/// The longest name of a group.
pub(super) const GROUP_BYTES_MAX: usize = 256;

/// How an issuer's tokens name groups.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupRules {
    claim: Option<String>,
    templates: Vec<Template>,
}

#[derive(Debug, Clone)]
struct Template {
    /// The claim whose presence makes the group; an array makes one group an element.
    claim: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Claim(String),
}

impl GroupRules {
    /// # Errors
    /// One lower-case fragment for each template that cannot mean what was meant.
    pub(super) fn new(
        claim: Option<&str>,
        templates: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let mut parsed = Vec::new();
        if claim == Some("") {
            mistakes.push("groups_claim is empty".to_owned());
        }
        for (claim, text) in templates {
            match Template::parse(claim, text) {
                Ok(template) => parsed.push(template),
                Err(mistake) => mistakes.push(format!("groups: {claim} = {text:?}: {mistake}")),
            }
        }
        if mistakes.is_empty() {
            Ok(Self { claim: claim.map(str::to_owned), templates: parsed })
        } else {
            Err(mistakes)
        }
    }

    /// The groups of one token, sorted and without doubles.
    ///
    /// # Errors
    /// A lower-case fragment when a claim has a form from which no group can be drawn.
    pub(super) fn groups(&self, claims: &Object) -> Result<Arc<[Arc<str>]>, String> {
        let mut groups = BTreeSet::new();
        if let Some(name) = &self.claim {
            for group in elements(claims, name)? {
                insert(&mut groups, group)?;
            }
        }
        for template in &self.templates {
            for element in elements(claims, &template.claim)? {
                if let Some(group) = template.fill(&element, claims)? {
                    insert(&mut groups, group)?;
                }
            }
        }
        Ok(groups.into_iter().collect())
    }
}

impl Template {
    fn parse(claim: &str, text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(open);
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let Some(end) = from.strip_prefix('{').and_then(|inner| inner.find(['{', '}'])) else {
                return Err("a brace is not closed or not opened".to_owned());
            };
            let name = &from[1..=end];
            if name.is_empty() || !from[1 + end..].starts_with('}') {
                return Err("a brace is not closed, or encloses nothing".to_owned());
            }
            parts.push(Part::Claim(name.to_owned()));
            rest = &from[end + 2..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        // A constant would put everybody into the group whose token has the claim, `false` included.
        if !parts.iter().any(|part| matches!(part, Part::Claim(name) if name == claim)) {
            return Err(format!("the template does not use {{{claim}}}"));
        }
        Ok(Self { claim: claim.to_owned(), parts })
    }

    /// The group that this element makes; none where another claim of the template is missing.
    fn fill(&self, element: &str, claims: &Object) -> Result<Option<String>, String> {
        let mut group = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => group.push_str(text),
                Part::Claim(name) if *name == self.claim => group.push_str(element),
                Part::Claim(name) => match lookup(claims, name) {
                    None | Some(Value::Null) => return Ok(None),
                    Some(value) => {
                        group.push_str(&scalar(value).ok_or_else(|| format!("claim {name} is no scalar"))?);
                    }
                },
            }
        }
        Ok(Some(group))
    }
}

fn insert(groups: &mut BTreeSet<Arc<str>>, group: String) -> Result<(), String> {
    if group.is_empty() || group.len() > GROUP_BYTES_MAX || group.chars().any(char::is_control) {
        return Err(format!("{} cannot be the name of a group", quoted(&group)));
    }
    groups.insert(group.into());
    if groups.len() > GROUPS_MAX {
        return Err(format!("more than {GROUPS_MAX} groups"));
    }
    Ok(())
}

/// The elements of a claim that is one scalar or an array of them; none where it is absent.
fn elements(claims: &Object, name: &str) -> Result<Vec<String>, String> {
    // Too many groups for a token: the provider names a place to ask instead (OIDC Core 5.6.2).
    if let Some(Value::Object(elsewhere)) = claims.get("_claim_names")
        && elsewhere.contains_key(name)
    {
        return Err(format!("claim {name} is not in the token but elsewhere (_claim_names)"));
    }
    let unusable = || format!("claim {name} is neither a scalar nor an array of them");
    match lookup(claims, name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(array)) => array.iter().map(|value| scalar(value).ok_or_else(unusable)).collect(),
        Some(value) => Ok(vec![scalar(value).ok_or_else(unusable)?]),
    }
}

/// A claim by its name, or by a JSON Pointer (RFC 6901) where the name begins with a slash.
fn lookup<'a>(claims: &'a Object, name: &str) -> Option<&'a Value> {
    let Some(pointer) = name.strip_prefix('/') else { return claims.get(name) };
    let mut steps = pointer.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
    let mut value = claims.get(&steps.next()?)?;
    for step in steps {
        value = value.as_object()?.get(&step)?;
    }
    Some(value)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::json;
    use super::{GROUPS_MAX, GroupRules};

    fn check(claim: Option<&str>, templates: &[(&str, &str)], claims: &str, expected: Result<&[&str], &str>) {
        let templates: BTreeMap<String, String> =
            templates.iter().map(|(claim, text)| ((*claim).to_owned(), (*text).to_owned())).collect();
        let rules = GroupRules::new(claim, &templates).expect("rules");
        let found = rules.groups(&json::object(claims.as_bytes()).expect("claims"));
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                let found: Vec<&str> = found.iter().map(AsRef::as_ref).collect();
                assert_eq!(found, expected, "{claims}");
            }
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{claims}: {found}"),
            (found, expected) => panic!("{claims}: found {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn groups_come_from_the_claim_sorted_and_once() {
        check(Some("groups"), &[], r#"{"groups":["ops","dba","ops"]}"#, Ok(&["dba", "ops"]));
        check(Some("groups"), &[], r#"{"groups":"dba"}"#, Ok(&["dba"]));
        check(Some("groups"), &[], r#"{"roles":["dba"]}"#, Ok(&[]));
        check(Some("https://x.example/groups"), &[], r#"{"https://x.example/groups":["a"]}"#, Ok(&["a"]));
        check(Some("/realm_access/roles"), &[], r#"{"realm_access":{"roles":["a"]}}"#, Ok(&["a"]));
        check(None, &[], r#"{"groups":["dba"]}"#, Ok(&[]));
    }

    #[test]
    fn groups_are_made_of_templates() {
        let ci = [("project_path", "ci/{project_path}")];
        check(None, &ci, r#"{"project_path":"shop/deploy"}"#, Ok(&["ci/shop/deploy"]));
        check(None, &ci, r#"{"other":1}"#, Ok(&[]));
        let both = [("ref", "ci/{project_path}@{ref}")];
        check(None, &both, r#"{"project_path":"shop","ref":"main"}"#, Ok(&["ci/shop@main"]));
        check(None, &both, r#"{"ref":"main"}"#, Ok(&[]));
        let prefix = [("groups", "corp/{groups}")];
        check(None, &prefix, r#"{"groups":["a","b"]}"#, Ok(&["corp/a", "corp/b"]));
        check(
            None,
            &[("ref_protected", "protected={ref_protected}")],
            r#"{"ref_protected":false}"#,
            Ok(&["protected=false"]),
        );
    }

    #[test]
    fn a_claim_that_is_not_understood_refuses_the_token() {
        check(Some("groups"), &[], r#"{"groups":{"a":1}}"#, Err("neither a scalar"));
        check(Some("groups"), &[], r#"{"groups":["a",["b"]]}"#, Err("neither a scalar"));
        check(Some("groups"), &[], r#"{"groups":["a\u0000"]}"#, Err("cannot be the name"));
        check(Some("groups"), &[], r#"{"groups":[""]}"#, Err("cannot be the name"));
        check(Some("groups"), &[], r#"{"_claim_names":{"groups":"src1"}}"#, Err("elsewhere"));
        check(None, &[("a", "{a}/{b}")], r#"{"a":"x","b":["y"]}"#, Err("no scalar"));
        let many: Vec<String> = (0..=GROUPS_MAX).map(|number| format!("\"g{number}\"")).collect();
        check(Some("groups"), &[], &format!("{{\"groups\":[{}]}}", many.join(",")), Err("more than"));
    }

    #[test]
    fn templates_that_cannot_mean_what_was_meant_are_refused() {
        for (claim, text) in [
            ("a", "constant"),
            ("a", "{b}"),
            ("a", "{a"),
            ("a", "a}"),
            ("a", "{}"),
            ("a", "{a}{"),
            ("a", "{{a}}"),
            ("a", ""),
        ] {
            let templates = BTreeMap::from([(claim.to_owned(), text.to_owned())]);
            assert!(GroupRules::new(None, &templates).is_err(), "{text}");
        }
    }
}

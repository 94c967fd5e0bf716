//! Compares the names in policies with what there is: a rule about what does not exist protects nothing.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{EntityUid, Policy};

use super::folder::PolicyFile;
use super::mistake::{Mistake, did_you_mean};
use super::name::{self, Kind};
use super::question::{GATEWAY_ID, VOCABULARY};
use super::set::Rule;

/// What the configuration knows.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The issuers' names.
    pub issuers: BTreeSet<String>,
    /// The resources by name.
    pub resources: BTreeMap<String, KnownResource>,
}

/// What the configuration knows of one resource.
#[derive(Debug, Clone, Default)]
pub struct KnownResource {
    /// Its databases.
    pub databases: BTreeSet<String>,
    /// Its roles.
    pub roles: BTreeSet<String>,
}

impl Known {
    /// What one policy names that is not known.
    pub(super) fn mistakes(&self, rule: &Rule, text: &str) -> Vec<Mistake> {
        let literals = rule.policy.entity_literals();
        let unknown = literals.iter().filter_map(|uid| self.unknown(uid).map(|message| (uid, message)));
        unknown
            .map(|(uid, message)| Mistake::at(&rule.place.file, text, place(&rule.policy, uid), message))
            .collect()
    }

    fn unknown(&self, uid: &EntityUid) -> Option<String> {
        let id: &str = uid.id().as_ref();
        let Some(kind) = VOCABULARY.kind(uid.type_name()) else {
            let (issuer, _) = id.split_once(':').filter(|_| VOCABULARY.is_principal(uid.type_name()))?;
            return missing("issuer", issuer, self.issuers.iter());
        };
        let parts = name::split(kind, id)?;
        let Some(resource) = self.resources.get(&parts[0]) else {
            return missing("resource", &parts[0], self.resources.keys());
        };
        let (what, names) = match kind {
            Kind::Resource => return None,
            Kind::Role => ("role", &resource.roles),
            _ => ("database", &resource.databases),
        };
        let found = missing(what, &parts[1], names.iter())?;
        Some(format!("resource {:?}: {found}", parts[0]))
    }
}

fn missing<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a String> + Clone) -> Option<String> {
    if known.clone().any(|known| known == name) {
        return None;
    }
    Some(format!(
        "{what} {name:?} is not in the configuration{}",
        did_you_mean(name, known.map(String::as_str), "")
    ))
}

/// Ids that no object and no principal can ever have.
pub(super) fn malformed(policy: &Policy, file: &PolicyFile) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for uid in policy.entity_literals() {
        if let Some(message) = misspelled(&uid) {
            mistakes.push(Mistake::at(&file.name, &file.text, place(policy, &uid), message));
        }
    }
    mistakes
}

fn misspelled(uid: &EntityUid) -> Option<String> {
    let id: &str = uid.id().as_ref();
    let Some(kind) = VOCABULARY.kind(uid.type_name()) else {
        if VOCABULARY.is_gateway(uid.type_name()) && id != GATEWAY_ID {
            return Some(format!("{id:?} is no gateway: write Gateway::{GATEWAY_ID:?}"));
        }
        let principal = VOCABULARY.is_principal(uid.type_name());
        let named =
            id.split_once(':').is_some_and(|(issuer, subject)| !issuer.is_empty() && !subject.is_empty());
        return (principal && !named)
            .then(|| format!("{id:?} is no principal: write {}::\"issuer:subject\"", uid.type_name()));
    };
    let Some(parts) = name::split(kind, id) else {
        return Some(format!(
            "{id:?} is no {}: write {}::{:?}",
            kind.name().to_lowercase(),
            kind.name(),
            kind.form()
        ));
    };
    let spelled = name::join(kind, &parts.iter().map(String::as_str).collect::<Vec<_>>());
    (spelled != id).then(|| format!("{id:?} has quotes that it does not need: write {spelled:?}"))
}

/// Where in its file a policy names an entity; where the policy begins, if it spells the name in another way.
fn place(policy: &Policy, uid: &EntityUid) -> usize {
    let Some(loc) = policy.as_ref().loc() else { return 0 };
    let within = loc.snippet().and_then(|snippet| snippet.find(&uid.to_string()));
    loc.start() + within.unwrap_or(0)
}

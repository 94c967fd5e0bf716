//! Whether a set lets somebody do anything but read: if not, the upstream's session is opened for reading only.
//!
//! Nothing is asked of Cedar here, since what will be asked for is not known yet. Scopes are compared with the session, and of conditions is
//! evaluated what a session fixes: its role, database, resource and protocol, the principal and its groups, the action. The rest may be either.
//! So a set that permits a change is never taken for one that only reads; the reverse can happen, and costs the second fence.

use cedar_policy::{EntityUid, ResourceConstraint};
use gatebook_wire::action::Verb;
use serde_json::Value;

use super::super::Standing;
use super::super::name::{self, Kind};
use super::super::question::{Asker, VOCABULARY};
use super::{PolicySet, Rule};

/// What does nothing but read, or become a role.
const READS: [Verb; 3] = [Verb::Select, Verb::Unmask, Verb::Login];

/// The settings by which a session is held to reading.
const FENCES: [&str; 2] = ["default_transaction_read_only", "transaction_read_only"];

impl PolicySet {
    /// Whether nothing but reading can be permitted to this chain in this role and database: then some link of it is permitted no more.
    ///
    /// It holds for this set; another one may permit more.
    #[must_use]
    pub fn only_reads(&self, standing: &Standing) -> bool {
        standing.chain.iter().any(|link| {
            let asker = Asker::new(link);
            let changes = Verb::ALL.into_iter().filter(|verb| !READS.contains(verb));
            !changes.into_iter().any(|verb| self.may_permit(&Scene { asker: &asker, standing, verb }))
        })
    }

    fn may_permit(&self, scene: &Scene<'_>) -> bool {
        let slice = &self.index[scene.verb as usize];
        let places = slice.anywhere.iter().chain(slice.below.values().flatten());
        let (mut permitted, mut forbidden) = (false, false);
        for rule in places.map(|&place| &self.rules[place]) {
            if !rule.has_principal(scene.asker) {
                continue;
            }
            if rule.forbids {
                forbidden |= scene.covered_by(rule) && scene.holds(rule) == Some(true);
            } else {
                permitted = permitted || scene.reached_by(rule) && scene.holds(rule) != Some(false);
            }
        }
        permitted && !forbidden
    }
}

/// One verb, asked by one link of a chain in a session.
struct Scene<'a> {
    asker: &'a Asker<'a>,
    standing: &'a Standing,
    verb: Verb,
}

impl Scene<'_> {
    /// Whether the rule's scope can hold an object of the session.
    fn reached_by(&self, rule: &Rule) -> bool {
        match &rule.resource {
            ResourceConstraint::Any | ResourceConstraint::Is(_) => true,
            ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
                self.reaches(uid)
            }
        }
    }

    fn reaches(&self, uid: &EntityUid) -> bool {
        let id: &str = uid.id().as_ref();
        let Some(kind) = VOCABULARY.kind(uid.type_name()) else { return true };
        let Some(parts) = name::split(kind, id) else { return true };
        let part = |place: usize| parts.get(place).map_or("", String::as_str);
        let database = matches!(kind, Kind::Resource | Kind::Role) || *part(1) == *self.standing.database;
        // Any other setting may be changed by who only reads.
        let fence = self.verb != Verb::Set || kind != Kind::Setting || FENCES.contains(&part(2));
        *part(0) == *self.standing.resource && database && fence
    }

    /// Whether the rule's scope holds every object of the session.
    fn covered_by(&self, rule: &Rule) -> bool {
        match &rule.resource {
            ResourceConstraint::Any => true,
            ResourceConstraint::In(uid) => {
                let id: &str = uid.id().as_ref();
                VOCABULARY.kind(uid.type_name()) == Some(Kind::Resource)
                    && name::split(Kind::Resource, id)
                        .is_some_and(|parts| *parts[0] == *self.standing.resource)
            }
            _ => false,
        }
    }

    /// Whether the rule's conditions hold, as far as a session fixes them.
    fn holds(&self, rule: &Rule) -> Option<bool> {
        if !rule.conditional {
            return Some(true);
        }
        let policy = rule.policy.to_json().ok()?;
        let conditions = policy.get("conditions")?.as_array()?;
        let mut all = Some(true);
        for condition in conditions {
            let body = condition.get("body").and_then(|body| self.truth(body));
            let unless = condition.get("kind").and_then(Value::as_str) == Some("unless");
            all = and(all, body.map(|truth| truth != unless));
        }
        all
    }

    /// An expression of Cedar's JSON format that is true or false for certain.
    fn truth(&self, expression: &Value) -> Option<bool> {
        if let Some(literal) = expression.get("Value") {
            return literal.as_bool();
        }
        let (operator, parts) = expression.as_object()?.iter().next()?;
        let part = |name: &str| parts.get(name);
        match operator.as_str() {
            "!" => Some(!self.truth(part("arg")?)?),
            "&&" => and(self.truth(part("left")?), self.truth(part("right")?)),
            "||" => {
                let not = |side: Option<bool>| side.map(|truth| !truth);
                not(and(not(self.truth(part("left")?)), not(self.truth(part("right")?))))
            }
            "==" => Some(self.known(part("left")?)? == self.known(part("right")?)?),
            "!=" => Some(self.known(part("left")?)? != self.known(part("right")?)?),
            "in" => {
                let place = entity(part("right")?)?;
                match variable(part("left")?)? {
                    "principal" => {
                        let asker = self.asker;
                        Some(
                            asker.uid.to_string() == place
                                || asker.groups.iter().any(|group| group.to_string() == place),
                        )
                    }
                    "action" => {
                        let group = VOCABULARY.action_group(self.verb);
                        Some(
                            VOCABULARY.action(self.verb).to_string() == place
                                || group.is_some_and(|group| group.to_string() == place),
                        )
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// A value that a session fixes: a text, or an entity as Cedar spells it.
    fn known(&self, expression: &Value) -> Option<String> {
        if let Some(literal) = expression.get("Value") {
            return literal.as_str().map(|text| format!("{text:?}")).or_else(|| entity(expression));
        }
        if let Some(variable) = variable(expression) {
            return match variable {
                "principal" => Some(self.asker.uid.to_string()),
                "action" => Some(VOCABULARY.action(self.verb).to_string()),
                _ => None,
            };
        }
        let field = expression.get(".")?;
        let (of, name) = (variable(field.get("left")?)?, field.get("attr")?.as_str()?);
        let text = match (of, name) {
            ("context", "resource") => &*self.standing.resource,
            ("context", "database") => &*self.standing.database,
            ("context", "role") => &*self.standing.role,
            ("context", "protocol") => self.standing.protocol,
            ("principal", "issuer") => self.asker.subject.issuer(),
            ("principal", "subject") => self.asker.subject.subject(),
            _ => return None,
        };
        Some(format!("{text:?}"))
    }
}

fn variable(expression: &Value) -> Option<&str> {
    expression.get("Var")?.as_str()
}

/// An entity that stands in an expression, as Cedar spells it.
fn entity(expression: &Value) -> Option<String> {
    let uid = expression.get("Value")?.get("__entity")?;
    EntityUid::from_json(uid.clone()).ok().map(|uid| uid.to_string())
}

/// True where both are, false where either is: Cedar never gets to `true` past an operand that is false.
fn and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

//! Turns who asks and what they want into Cedar's words: entities and requests, no more than one decision needs.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression, Schema,
    Validator,
};
use gatebook_wire::action::{Action, Effect, Object, Verb};
use gatebook_wire::protocol::{Meaning, Roles};

use super::name::{self, Kind};
use super::{Standing, Subject, SubjectKind};

/// The schema's text, which ships with the program.
pub(super) const SCHEMA_TEXT: &str = include_str!("schema.cedarschema");

/// The id of the only entity of the type `Gateway`.
pub(super) const GATEWAY_ID: &str = "this";

/// The fixed part of every question, made once.
pub(super) static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(Vocabulary::new);

/// The schema within its validator, and what it names.
pub(super) struct Vocabulary {
    pub(super) validator: Validator,
    user: EntityTypeName,
    service: EntityTypeName,
    group: EntityTypeName,
    effect: EntityTypeName,
    action: EntityTypeName,
    gateway: EntityTypeName,
    kinds: [EntityTypeName; Kind::ALL.len()],
    verbs: [Word; Verb::ALL.len()],
}

/// An action as Cedar knows it.
struct Word {
    uid: EntityUid,
    /// The action's own entity and that of its group.
    entities: Vec<Entity>,
    /// Whether the schema lets it be done to each kind.
    applies_to: [bool; Kind::ALL.len()],
}

impl Vocabulary {
    fn new() -> Self {
        let name = |text: &str| EntityTypeName::from_str(text).expect("a fixed name is well-formed");
        let (schema, _) =
            Schema::from_cedarschema_str(SCHEMA_TEXT).expect("the shipped schema is well-formed");
        let kinds = Kind::ALL.map(|kind| name(kind.name()));
        let action = name("Action");
        let verbs = Verb::ALL.map(|verb| {
            let uid = uid(&action, verb.name());
            let group: Option<EntityUid> = verb.group().map(|group| self::uid(&action, group));
            let mut entities = vec![Entity::new_no_attrs(uid.clone(), group.iter().cloned().collect())];
            entities.extend(group.map(|group| Entity::new_no_attrs(group, HashSet::new())));
            let found: HashSet<&EntityTypeName> =
                schema.resources_for_action(&uid).into_iter().flatten().collect();
            Word { applies_to: kinds.each_ref().map(|kind| found.contains(kind)), uid, entities }
        });
        Vocabulary {
            user: name("User"),
            service: name("Service"),
            group: name("Group"),
            effect: name("Effect"),
            gateway: name("Gateway"),
            action,
            validator: Validator::new(schema),
            kinds,
            verbs,
        }
    }

    /// The Cedar action of a verb.
    pub(super) fn action(&self, verb: Verb) -> &EntityUid {
        &self.verbs[verb as usize].uid
    }

    /// The Cedar group that a verb stands in, if any.
    pub(super) fn action_group(&self, verb: Verb) -> Option<EntityUid> {
        self.verbs[verb as usize].entities.get(1).map(Entity::uid)
    }

    /// The kind of resource entity that a Cedar type names.
    pub(super) fn kind(&self, name: &EntityTypeName) -> Option<Kind> {
        self.kinds.iter().position(|known| known == name).map(|place| Kind::ALL[place])
    }

    /// Whether a Cedar type is the gateway's own.
    pub(super) fn is_gateway(&self, name: &EntityTypeName) -> bool {
        *name == self.gateway
    }

    /// Whether a Cedar type is one of the principals'.
    pub(super) fn is_principal(&self, name: &EntityTypeName) -> bool {
        *name == self.user || *name == self.service
    }
}

fn uid(name: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id))
}

/// One link of a chain as Cedar knows it.
pub(super) struct Asker<'a> {
    pub(super) uid: EntityUid,
    pub(super) groups: HashSet<EntityUid>,
    pub(super) subject: &'a Subject,
}

impl<'a> Asker<'a> {
    pub(super) fn new(subject: &'a Subject) -> Self {
        let words = &*VOCABULARY;
        let kind = match subject.kind() {
            SubjectKind::User => &words.user,
            SubjectKind::Service => &words.service,
        };
        let groups = subject.groups().iter().map(|group| uid(&words.group, group)).collect();
        Asker { uid: uid(kind, subject.id()), groups, subject }
    }

    fn entity(&self) -> Result<Entity, Unaskable> {
        let attributes = texts([("issuer", self.subject.issuer()), ("subject", self.subject.subject())]);
        // Groups need no entities of their own: they have no attributes and lie in nothing.
        Ok(Entity::new(self.uid.clone(), attributes, self.groups.clone())?)
    }
}

/// One object as Cedar knows it.
pub(super) struct Asked<'a> {
    /// The object itself and everything that it lies in, from the inside outwards: never empty.
    pub(super) path: Vec<EntityUid>,
    kind: Kind,
    resource: &'a str,
    object: &'a Object,
}

impl<'a> Asked<'a> {
    pub(super) fn new(resource: &'a str, object: &'a Object) -> Self {
        let words = &*VOCABULARY;
        let (kind, below) = Kind::of(object);
        let parts: Vec<&str> = std::iter::once(resource).chain(below).collect();
        let place = |kind: Kind| {
            let length = kind.length().min(parts.len());
            uid(&words.kinds[kind as usize], &name::join(kind, &parts[..length]))
        };
        let path = std::iter::successors(Some(kind), |kind| kind.parent()).map(place).collect();
        Asked { path, kind, resource, object }
    }

    fn entities(&self) -> Result<Vec<Entity>, Unaskable> {
        let mut kinds = std::iter::successors(Some(self.kind), |kind| kind.parent());
        self.path
            .iter()
            .enumerate()
            .map(|(place, uid)| {
                let parents = self.path.get(place + 1).into_iter().cloned().collect();
                let kind = kinds.next().unwrap_or(Kind::Resource);
                Ok(Entity::new(uid.clone(), self.attributes(kind), parents)?)
            })
            .collect()
    }

    fn attributes(&self, kind: Kind) -> HashMap<String, RestrictedExpression> {
        let (_, below) = Kind::of(self.object);
        let part = |place: usize| below.get(place).copied().unwrap_or_default();
        match kind {
            Kind::Resource => texts([("name", self.resource)]),
            Kind::Database | Kind::Role => texts([("name", part(0))]),
            Kind::Schema | Kind::Setting => texts([("name", part(1))]),
            Kind::Table | Kind::Function => texts([("schema", part(1)), ("name", part(2))]),
            Kind::Column => texts([("schema", part(1)), ("table", part(2)), ("name", part(3))]),
        }
    }
}

fn texts<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, RestrictedExpression> {
    pairs.map(|(key, value)| (key.to_owned(), RestrictedExpression::new_string(value.to_owned()))).into()
}

/// The roles as which a command is decided, each by itself; none for one that nobody can tell.
pub(super) fn roles<'a>(standing: &'a Standing, meaning: &'a Meaning) -> Vec<Option<&'a str>> {
    match &meaning.roles {
        Roles::Login => vec![Some(&*standing.role)],
        Roles::AnyOf(roles) => roles.iter().map(|role| Some(&**role)).collect(),
        Roles::Unknown => vec![None],
    }
}

/// Everything that policy may know about a command beside who asks and for what. Where its role is not known there is none: a policy that
/// asks for it then fails, and nothing is permitted.
pub(super) fn context(
    standing: &Standing,
    role: Option<&str>,
    meaning: &Meaning,
) -> Result<Context, Unaskable> {
    let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
    let facts = &meaning.facts;
    let effect = match meaning.effect {
        Effect::Reads => "reads",
        Effect::MayChange => "may_change",
    };
    let statement = RestrictedExpression::new_record([
        ("kind".to_owned(), text(&facts.kind)),
        ("has_where".to_owned(), RestrictedExpression::new_bool(facts.has_where)),
        ("has_limit".to_owned(), RestrictedExpression::new_bool(facts.has_limit)),
        ("statements".to_owned(), RestrictedExpression::new_long(facts.statements.into())),
        ("resolved".to_owned(), RestrictedExpression::new_bool(facts.resolved)),
        ("relations".to_owned(), RestrictedExpression::new_long(facts.relations.into())),
        ("calls".to_owned(), RestrictedExpression::new_long(facts.calls.into())),
        ("fingerprint".to_owned(), text(&facts.fingerprint)),
        ("effect".to_owned(), RestrictedExpression::new_entity_uid(uid(&VOCABULARY.effect, effect))),
    ])?;
    let mut pairs = vec![
        ("resource".to_owned(), text(&standing.resource)),
        ("database".to_owned(), text(&standing.database)),
        ("protocol".to_owned(), text(standing.protocol)),
        ("statement".to_owned(), statement),
    ];
    pairs.extend(role.map(|role| ("role".to_owned(), text(role))));
    Ok(Context::from_pairs(pairs)?)
}

/// Whether the schema knows this verb on this kind of object at all.
pub(super) fn is_known(action: &Action) -> bool {
    let (kind, _) = Kind::of(&action.object);
    VOCABULARY.verbs[action.verb as usize].applies_to[kind as usize]
}

/// The whole question to Cedar.
pub(super) fn ask(
    asker: &Asker<'_>,
    verb: Verb,
    asked: &Asked<'_>,
    context: Context,
) -> Result<(Request, Entities), Unaskable> {
    let mut entities = asked.entities()?;
    entities.push(asker.entity()?);
    entities.extend(VOCABULARY.verbs[verb as usize].entities.iter().cloned());
    let action = VOCABULARY.action(verb).clone();
    // What has no role is not of the schema, and is asked all the same.
    let checked = checked_against().filter(|_| context.get("role").is_some());
    let request = Request::new(asker.uid.clone(), action, asked.path[0].clone(), context, checked)?;
    Ok((request, Entities::from_entities(entities, checked_against())?))
}

/// The whole question to Cedar about the gateway itself; `standing` names no resource, and `meaning` has no actions.
pub(super) fn ask_of_gateway(
    asker: &Asker<'_>,
    action: &str,
    name: &str,
    standing: &Standing,
    meaning: &Meaning,
) -> Result<(Request, Entities), Unaskable> {
    let words = &*VOCABULARY;
    let (action, gateway) = (uid(&words.action, action), uid(&words.gateway, GATEWAY_ID));
    let entities = [
        Entity::new(gateway.clone(), texts([("name", name)]), HashSet::new())?,
        asker.entity()?,
        Entity::new_no_attrs(action.clone(), HashSet::new()),
    ];
    let context = context(standing, Some(&standing.role), meaning)?;
    let request = Request::new(asker.uid.clone(), action, gateway, context, checked_against())?;
    Ok((request, Entities::from_entities(entities, checked_against())?))
}

/// Tests check every question against the schema; a running gateway asks only questions of the tested shape.
fn checked_against() -> Option<&'static Schema> {
    cfg!(test).then(|| VOCABULARY.validator.schema())
}

/// Why a question could not be put to Cedar, in its words. It is then refused.
#[derive(Debug)]
pub(super) struct Unaskable(String);

impl fmt::Display for Unaskable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! from_cedar {
    ($($error:ty),*) => {
        $(impl From<$error> for Unaskable {
            fn from(error: $error) -> Self {
                Unaskable(error.to_string())
            }
        })*
    };
}
from_cedar!(
    cedar_policy::ContextCreationError,
    cedar_policy::EntityAttrEvaluationError,
    cedar_policy::ExpressionConstructionError,
    cedar_policy::RequestValidationError
);

impl From<cedar_policy::entities_errors::EntitiesError> for Unaskable {
    fn from(error: cedar_policy::entities_errors::EntitiesError) -> Self {
        Unaskable(error.to_string())
    }
}

//! What a delegation leaves of the rights of those before it: lists that a command must be within.
//!
//! A scope only ever takes away. It is looked at beside policy, for each delegation of a chain, so what is effective is the
//! intersection along the chain, whatever any of the links says.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use gatebook_wire::action::{Action, Object, Verb};

use super::name::{self, Kind};

/// The most names in one list of a scope.
pub const SCOPE_NAMES_MAX: usize = 256;
/// The longest name in a scope.
const NAME_BYTES_MAX: usize = 512;

/// A scope as it is written: by whoever asks for it, and in the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScopeText {
    /// The resources, by name.
    pub resources: Vec<String>,
    /// Verbs, and groups of them: `read`, `insert`.
    pub actions: Vec<String>,
    /// The upstream's roles; none for any.
    pub roles: Option<Vec<String>>,
    /// The tables, as `[database/]schema.table`, where `*` stands for every table; none for anything.
    pub tables: Option<Vec<String>>,
    /// The most rows that one command may show.
    pub rows: Option<u64>,
}

/// What one delegation may be used for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    delegation: Arc<str>,
    resources: Vec<Arc<str>>,
    verbs: Vec<Verb>,
    roles: Option<Vec<Arc<str>>>,
    tables: Option<Vec<Tables>>,
    rows_max: Option<NonZeroU64>,
}

/// A table, or all tables of a schema, in one database or in any.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Tables {
    database: Option<Arc<str>>,
    schema: Arc<str>,
    table: Option<Arc<str>>,
}

/// Why a scope cannot be: a lower-case fragment for whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeError {
    /// Whether it is the resources that are wrong, and not what may be done with them.
    pub resources: bool,
    /// What is wrong.
    pub message: String,
}

impl Scope {
    /// Reads a scope; `delegation` is the id of whose it is.
    ///
    /// # Errors
    /// [`ScopeError`] where a name is none, or a list is empty or too long.
    pub fn read(delegation: &str, text: &ScopeText) -> Result<Scope, ScopeError> {
        let resources =
            names("resource", &text.resources).map_err(|message| ScopeError { resources: true, message })?;
        let wrong = |message| ScopeError { resources: false, message };
        let mut verbs = Vec::new();
        for action in names("action", &text.actions).map_err(wrong)? {
            verbs.extend(verbs_of(&action).map_err(wrong)?);
        }
        verbs.sort();
        verbs.dedup();
        let roles = text.roles.as_deref().map(|roles| names("role", roles)).transpose().map_err(wrong)?;
        let tables = text.tables.as_deref().map(|tables| {
            let mut tables: Vec<Tables> =
                names("table", tables)?.iter().map(|table| Tables::read(table)).collect::<Result<_, _>>()?;
            tables.sort();
            Ok(tables)
        });
        let rows_max =
            text.rows.map(|rows| NonZeroU64::new(rows).ok_or("rows is a number from 1 on".to_owned()));
        Ok(Scope {
            delegation: delegation.into(),
            resources,
            verbs,
            roles,
            tables: tables.transpose().map_err(wrong)?,
            rows_max: rows_max.transpose().map_err(wrong)?,
        })
    }

    /// The id of the delegation whose scope it is.
    #[must_use]
    pub fn delegation(&self) -> &Arc<str> {
        &self.delegation
    }

    /// Whether this may be done to an object of this resource, as far as the delegation goes. Becoming a role is what opens a
    /// session, so it needs no mention among the actions.
    #[must_use]
    pub fn allows(&self, resource: &str, action: &Action) -> bool {
        let is_named = |names: &[Arc<str>], name: &str| names.iter().any(|known| **known == *name);
        if !is_named(&self.resources, resource) {
            return false;
        }
        match (action.verb, &action.object) {
            (Verb::Login, Object::Role { role }) => {
                self.roles.as_deref().is_none_or(|roles| is_named(roles, role))
            }
            (verb, object) => self.verbs.contains(&verb) && self.reaches(object),
        }
    }

    /// Where tables are named, nothing else is reached but a session's own settings: a function or a whole database may
    /// touch any table.
    fn reaches(&self, object: &Object) -> bool {
        let Some(tables) = &self.tables else { return true };
        match object {
            Object::Table { database, schema, table } | Object::Column { database, schema, table, .. } => {
                tables.iter().any(|named| named.holds(database, schema, table))
            }
            Object::Setting { .. } => true,
            Object::Database { .. }
            | Object::Schema { .. }
            | Object::Function { .. }
            | Object::Role { .. } => false,
        }
    }

    /// The most rows that one command may show.
    #[must_use]
    pub fn rows_max(&self) -> Option<NonZeroU64> {
        self.rows_max
    }

    /// Whether everything that it allows is allowed by the scope before it in the chain too.
    ///
    /// # Errors
    /// [`ScopeError`] that names what is more.
    pub fn within(&self, before: &Scope) -> Result<(), ScopeError> {
        let wider = |resources, message| Err(ScopeError { resources, message });
        if let Some(more) = self.resources.iter().find(|name| !before.resources.contains(name)) {
            return wider(true, format!("resource {more:?} is not among those handed down"));
        }
        if let Some(more) = self.verbs.iter().find(|verb| !before.verbs.contains(verb)) {
            return wider(false, format!("action {} is not among those handed down", more.name()));
        }
        match (&self.roles, &before.roles) {
            (None, Some(_)) => return wider(false, "only some roles were handed down".into()),
            (Some(roles), Some(known)) => {
                if let Some(more) = roles.iter().find(|role| !known.contains(role)) {
                    return wider(false, format!("role {more:?} is not among those handed down"));
                }
            }
            (_, None) => {}
        }
        match (&self.tables, &before.tables) {
            (None, Some(_)) => return wider(false, "only some tables were handed down".into()),
            (Some(tables), Some(known)) => {
                if let Some(more) = tables.iter().find(|table| !known.iter().any(|known| known.covers(table)))
                {
                    return wider(false, format!("table {more} is not among those handed down"));
                }
            }
            (_, None) => {}
        }
        match (self.rows_max, before.rows_max) {
            (Some(rows), Some(known)) if rows > known => {
                wider(false, format!("at most {known} rows were handed down"))
            }
            (None, Some(known)) => wider(false, format!("at most {known} rows were handed down")),
            _ => Ok(()),
        }
    }
}

impl Tables {
    fn read(text: &str) -> Result<Tables, String> {
        let wrong = || format!("{text:?} is no table: write schema.table, schema.* or database/schema.table");
        let (place, every) = match text.strip_suffix(".*") {
            Some(schema) => (format!("{schema}.x"), true),
            None => (text.to_owned(), false),
        };
        let (database, parts) = match name::split(Kind::Table, &format!("r/{place}")) {
            Some(parts) => (Some(parts[1].as_str().into()), parts),
            None => (None, name::split(Kind::Table, &format!("r/d/{place}")).ok_or_else(wrong)?),
        };
        let table = (!every).then(|| parts[3].as_str().into());
        Ok(Tables { database, schema: parts[2].as_str().into(), table })
    }

    fn holds(&self, database: &str, schema: &str, table: &str) -> bool {
        self.database.as_deref().is_none_or(|known| known == database)
            && *self.schema == *schema
            && self.table.as_deref().is_none_or(|known| known == table)
    }

    fn covers(&self, other: &Tables) -> bool {
        (self.database.is_none() || self.database == other.database)
            && self.schema == other.schema
            && (self.table.is_none() || self.table == other.table)
    }
}

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tables { database, schema, table } = self;
        write!(f, "{:?}.{:?}", schema, table.as_deref().unwrap_or("*"))?;
        database.as_ref().map_or(Ok(()), |database| write!(f, " of {database:?}"))
    }
}

fn verbs_of(action: &str) -> Result<Vec<Verb>, String> {
    let named = |verb: &Verb| *verb != Verb::Login && (verb.name() == action || verb.group() == Some(action));
    let verbs: Vec<Verb> = Verb::ALL.into_iter().filter(named).collect();
    if verbs.is_empty() {
        return Err(format!(
            "{action:?} is no action: read, write, define, or the name of one such as insert"
        ));
    }
    Ok(verbs)
}

/// Names without doubles, in order.
fn names(what: &str, list: &[String]) -> Result<Vec<Arc<str>>, String> {
    if list.is_empty() || list.len() > SCOPE_NAMES_MAX {
        return Err(format!("name one {what} at least, and {SCOPE_NAMES_MAX} at most"));
    }
    let odd =
        |name: &&String| name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control);
    if list.iter().any(|name| odd(&name)) {
        return Err(format!("a {what} has 1 to {NAME_BYTES_MAX} bytes and no control characters"));
    }
    let mut names: Vec<Arc<str>> = list.iter().map(|name| name.as_str().into()).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(actions: &[&str], tables: Option<&[&str]>) -> Scope {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let text = ScopeText {
            resources: owned(&["orders-db"]),
            actions: owned(actions),
            tables: tables.map(owned),
            ..ScopeText::default()
        };
        Scope::read("d", &text).unwrap_or_else(|error| panic!("{}", error.message))
    }

    fn table(verb: Verb, name: &str) -> Action {
        let (schema, table) = name.split_once('.').expect("schema and table");
        Action {
            verb,
            object: Object::Table { database: "orders".into(), schema: schema.into(), table: table.into() },
        }
    }

    #[test]
    fn a_scope_allows_what_it_names_and_nothing_else() {
        let scope = scope(&["read", "insert"], Some(&["public.orders", "audit.*", "stock/public.parts"]));
        for (verb, name, allowed) in [
            (Verb::Select, "public.orders", true),
            (Verb::Insert, "public.orders", true),
            (Verb::Delete, "public.orders", false),
            (Verb::Select, "public.wages", false),
            (Verb::Select, "audit.anything", true),
            (Verb::Select, "public.parts", false),
        ] {
            assert_eq!(scope.allows("orders-db", &table(verb, name)), allowed, "{} {name}", verb.name());
            assert!(!scope.allows("other-db", &table(verb, name)));
        }
        let database: Arc<str> = "orders".into();
        for object in [
            Object::Database { database: database.clone() },
            Object::Schema { database: database.clone(), schema: "public".into() },
            Object::Function {
                database: database.clone(),
                schema: "public".into(),
                function: "orders".into(),
            },
        ] {
            assert!(!scope.allows("orders-db", &Action { verb: Verb::Select, object }));
        }
        let column =
            Object::Column { database, schema: "public".into(), table: "orders".into(), column: "id".into() };
        assert!(scope.allows("orders-db", &Action { verb: Verb::Select, object: column }));
        let role = Object::Role { role: "app".into() };
        assert!(scope.allows("orders-db", &Action { verb: Verb::Login, object: role }));
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        let read = |change: &dyn Fn(&mut ScopeText)| {
            let mut text = ScopeText {
                resources: vec!["r".into()],
                actions: vec!["read".into()],
                ..ScopeText::default()
            };
            change(&mut text);
            Scope::read("d", &text).is_ok()
        };
        assert!(read(&|_| {}));
        assert!(!read(&|text| text.resources.clear()));
        assert!(!read(&|text| text.actions.clear()));
        assert!(!read(&|text| text.actions = vec!["login".into()]));
        assert!(!read(&|text| text.actions = vec!["*".into()]));
        assert!(!read(&|text| text.tables = Some(vec![])));
        assert!(!read(&|text| text.tables = Some(vec!["orders".into()])));
        assert!(!read(&|text| text.tables = Some(vec!["a/b/c.d".into()])));
        assert!(!read(&|text| text.roles = Some(vec!["a\nb".into()])));
        assert!(!read(&|text| text.rows = Some(0)));
        assert!(!read(&|text| text.resources = vec!["r".repeat(600)]));
        assert!(!read(&|text| text.resources = (0..300).map(|at| at.to_string()).collect()));
    }

    /// Over all scopes of a small world: what is within another allows nothing that the other does not.
    #[test]
    fn what_is_within_never_allows_more() {
        let lists: &[&[&str]] = &[&["select"], &["insert"], &["read", "write"], &["delete", "select"]];
        let places: &[Option<&[&str]>] = &[
            None,
            Some(&["public.orders"]),
            Some(&["public.*"]),
            Some(&["orders/public.orders"]),
            Some(&["stock/public.*", "public.wages"]),
            Some(&["audit.*", "public.orders"]),
        ];
        let scopes: Vec<Scope> =
            lists.iter().flat_map(|actions| places.iter().map(|tables| scope(actions, *tables))).collect();
        let mut asked = Vec::new();
        for verb in [Verb::Select, Verb::Insert, Verb::Delete, Verb::Call, Verb::Opaque] {
            for database in ["orders", "stock"] {
                for name in ["public.orders", "public.wages", "audit.x"] {
                    let mut action = table(verb, name);
                    if let Object::Table { database: place, .. } = &mut action.object {
                        *place = database.into();
                    }
                    asked.push(action);
                }
                asked.push(Action { verb, object: Object::Database { database: database.into() } });
            }
        }
        let (mut within, mut beyond) = (0, 0);
        for inner in &scopes {
            for outer in &scopes {
                if inner.within(outer).is_err() {
                    beyond += 1;
                    continue;
                }
                within += 1;
                for action in &asked {
                    assert!(
                        !inner.allows("orders-db", action) || outer.allows("orders-db", action),
                        "{inner:?} within {outer:?}: {action:?}"
                    );
                }
            }
        }
        assert!(within > scopes.len() && beyond > scopes.len(), "{within} {beyond}");
    }
}

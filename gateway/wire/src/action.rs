//! What a command wants, in words that policy understands and that belong to no protocol.
//!
//! A machine reads frames and names [`Action`]s; it never decides whether one may be. What it cannot name
//! is [`Verb::Opaque`] on the whole database, which no rule allows by accident.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// One thing that a command does to one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Action {
    /// What is done.
    pub verb: Verb,
    /// What it is done to.
    pub object: Object,
}

/// The verbs of policy, each the name of a Cedar action; [`Verb::group`] names the Cedar group it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Read rows or cells.
    Select,
    /// Add rows.
    Insert,
    /// Change rows.
    Update,
    /// Remove rows.
    Delete,
    /// Remove all rows.
    Truncate,
    /// Lock a relation or rows explicitly (`LOCK TABLE`, `FOR UPDATE`).
    Lock,
    /// Move a sequence (`nextval`, `setval`).
    Advance,
    /// Make a new object.
    Create,
    /// Change an object's definition, ownership or comment.
    Alter,
    /// Remove an object.
    Drop,
    /// Grant or revoke privileges, change roles, run maintenance, change what outlives the session.
    Administer,
    /// Change a session setting that is not known to be harmless.
    Set,
    /// Run a function or procedure that is not on the pure list.
    Call,
    /// See a sensitive column in clear.
    Unmask,
    /// Become a role of the upstream: at login, by `SET ROLE`, by `SET SESSION AUTHORIZATION`.
    Login,
    /// Something that analysis could not name: it may do anything that the role may do.
    Opaque,
}

impl Verb {
    /// All verbs, in the order of their declaration.
    pub const ALL: [Verb; 16] = [
        Verb::Select,
        Verb::Insert,
        Verb::Update,
        Verb::Delete,
        Verb::Truncate,
        Verb::Lock,
        Verb::Advance,
        Verb::Create,
        Verb::Alter,
        Verb::Drop,
        Verb::Administer,
        Verb::Set,
        Verb::Call,
        Verb::Unmask,
        Verb::Login,
        Verb::Opaque,
    ];

    /// The verb as policy, ledger and error messages spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verb::Select => "select",
            Verb::Insert => "insert",
            Verb::Update => "update",
            Verb::Delete => "delete",
            Verb::Truncate => "truncate",
            Verb::Lock => "lock",
            Verb::Advance => "advance",
            Verb::Create => "create",
            Verb::Alter => "alter",
            Verb::Drop => "drop",
            Verb::Administer => "administer",
            Verb::Set => "set",
            Verb::Call => "call",
            Verb::Unmask => "unmask",
            Verb::Login => "login",
            Verb::Opaque => "opaque",
        }
    }

    /// The Cedar action group that holds this verb, where there is one: `read`, `write`, `define`.
    #[must_use]
    pub fn group(self) -> Option<&'static str> {
        match self {
            Verb::Select => Some("read"),
            Verb::Insert | Verb::Update | Verb::Delete | Verb::Truncate | Verb::Lock | Verb::Advance => {
                Some("write")
            }
            Verb::Create | Verb::Alter | Verb::Drop => Some("define"),
            Verb::Administer | Verb::Set | Verb::Call | Verb::Unmask | Verb::Login | Verb::Opaque => None,
        }
    }
}

/// What an action is done to. The resource (the named upstream) is implied by the session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Object {
    /// A whole database of the resource.
    Database {
        /// Its name.
        database: Arc<str>,
    },
    /// A schema.
    Schema {
        /// The database that holds it.
        database: Arc<str>,
        /// Its name.
        schema: Arc<str>,
    },
    /// A table, view, sequence or any other relation.
    Table {
        /// The database that holds it.
        database: Arc<str>,
        /// The schema that holds it.
        schema: Arc<str>,
        /// Its name.
        table: Arc<str>,
    },
    /// A column of a relation.
    Column {
        /// The database that holds it.
        database: Arc<str>,
        /// The schema that holds it.
        schema: Arc<str>,
        /// The relation that holds it.
        table: Arc<str>,
        /// Its name.
        column: Arc<str>,
    },
    /// A function or procedure, named without its arguments.
    Function {
        /// The database that holds it.
        database: Arc<str>,
        /// The schema that holds it.
        schema: Arc<str>,
        /// Its name.
        function: Arc<str>,
    },
    /// A role of the upstream.
    Role {
        /// Its name.
        role: Arc<str>,
    },
    /// A session setting of a database.
    Setting {
        /// The database whose session it is.
        database: Arc<str>,
        /// Its name, in lower case.
        setting: Arc<str>,
    },
}

/// The object's path below its resource, as policy spells it: `orders`, `orders/public`,
/// `orders/public.customers`, `orders/public.customers.email`.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Database { database } => write!(f, "{database}"),
            Object::Schema { database, schema } => write!(f, "{database}/{schema}"),
            Object::Table { database, schema, table } => write!(f, "{database}/{schema}.{table}"),
            Object::Column { database, schema, table, column } => {
                write!(f, "{database}/{schema}.{table}.{column}")
            }
            Object::Function { database, schema, function } => write!(f, "{database}/{schema}.{function}"),
            Object::Role { role } => write!(f, "{role}"),
            Object::Setting { database, setting } => write!(f, "{database}/{setting}"),
        }
    }
}

/// What is proven about a command's effect on the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Proven to only read: it may be forwarded while the disk still writes; its answer waits.
    Reads,
    /// It may change something, or nothing is proven: it waits for the disk.
    MayChange,
}

/// Facts about one statement that policies may ask for (`context.statement.…`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Facts {
    /// What kind of statement it is, as SQL's first words in snake case: `select`, `create_table`, `opaque`.
    pub kind: String,
    /// Whether a `SELECT`, `UPDATE` or `DELETE` at the top has a `WHERE` clause.
    pub has_where: bool,
    /// Whether a `SELECT` at the top has a `LIMIT`.
    pub has_limit: bool,
    /// How many statements the command's text holds.
    pub statements: u32,
    /// Whether every name in it was resolved against the catalog.
    pub resolved: bool,
    /// How many relations it touches, views and what lies under them each for itself.
    pub relations: u32,
    /// How many functions it calls that are not pure.
    pub calls: u32,
    /// Whether it runs what a name stands for, which its own text does not tell: `EXECUTE`, `FETCH`.
    pub by_name: bool,
    /// What statements share that differ in constants alone, as sixteen hexadecimal digits (`pg_query`'s fingerprint); empty where it has none.
    pub fingerprint: String,
}

impl Facts {
    /// Counts what `actions`, sorted, touch.
    pub(crate) fn count<'a>(&mut self, actions: impl IntoIterator<Item = &'a Action>) {
        let (mut relations, mut calls) = (BTreeSet::new(), BTreeSet::new());
        for action in actions {
            match (&action.object, action.verb) {
                (object @ Object::Table { .. }, _) => _ = relations.insert(object),
                (object @ Object::Function { .. }, Verb::Call) => _ = calls.insert(object),
                _ => {}
            }
        }
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        (self.relations, self.calls) = (number(relations.len()), number(calls.len()));
    }
}

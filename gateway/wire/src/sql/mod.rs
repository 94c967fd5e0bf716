//! What a PostgreSQL statement wants, found out with PostgreSQL's own grammar and the upstream's catalog.
//!
//! [`Session::analyze`] turns a text into [`Statement`]s, each with the [`Meaning`] that policy decides on. It is
//! pure and never fails: what it cannot parse, resolve or bound is [`Verb::Opaque`] on the whole database, which no
//! rule allows by accident. It refuses to guess. [`Effect::Reads`] is said only where every relation, function,
//! operator, cast and type is known to leave the upstream as it was.
//!
//! What a newcomer gets wrong: a session has no single state here. Commands travel in pipelines, transactions roll
//! back, and a name may mean what an earlier command made of it or what it meant before. So a [`Session`] keeps the
//! small set of states that are *possible*, and a statement wants the union of what it would want in each. The set
//! grows when a command is [sent](Session::sent) and shrinks when the upstream [told](Session::ended) how it went.
//!
//! Three rules on objects follow from "every way to the same effect is the same action":
//! - reading a view is reading the view *and* every relation under it; writing through a view is writing to those;
//! - naming a table that has children is naming its children, and naming a child is naming its parents;
//! - a function behind an operator, a cast or a dotted name (`row.function`) is called just as one with parentheses.
//!
//! Triggers, defaults, foreign keys with their cascades, and the policies of row security belong to the table on which its owner
//! put them: writing to the table stands for what they do. What a rewrite rule reads or writes elsewhere is added to the
//! statement's actions. Calling a function is what stands for all that it does, in the session too.

mod cache;
mod catalog;
mod literal;
mod names;
mod parse;
mod purity;
mod query;
mod session;
mod setting;
mod state;
mod statement;

use std::ops::Range;
use std::sync::Arc;

use crate::action::{Action, Effect, Facts, Object, Verb};
use crate::protocol::Meaning;

pub use catalog::{
    CATALOG_QUERIES, CATALOG_SETUP, Catalog, CatalogError, CatalogQuery, FINGERPRINT_QUERY, Rows,
};
pub use literal::literal_key;
pub use session::{Sent, Session, Start, Transaction};

/// The longest text that is analysed; a longer one is opaque. Parsing takes memory of a hundred times its size.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// What a text holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysis {
    /// Its statements in order; none where the text is empty.
    pub statements: Vec<Statement>,
    /// Whether the meanings depend on the value of a constant in the text. Where they do not, texts with the same
    /// [`literal_key`] mean the same.
    pub literals_matter: bool,
}

/// One statement of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Where it stands, in bytes of the text.
    pub range: Range<usize>,
    /// What policy decides on.
    pub meaning: Arc<Meaning>,
    /// What running it does to the session's state.
    steps: Arc<[session::Step]>,
}

/// Which names that a client gave, or will use, in the extended protocol a statement changes by SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renames<'a> {
    /// None.
    Nothing,
    /// One prepared statement: `PREPARE`, `DEALLOCATE`.
    Statement(&'a str),
    /// One portal: `DECLARE`, `CLOSE`.
    Portal(&'a str),
    /// All portals: `CLOSE ALL`.
    AllPortals,
    /// All prepared statements: `DEALLOCATE ALL`.
    AllStatements,
    /// All of both, or nobody knows: `DISCARD ALL`, what is opaque.
    Everything,
}

impl Statement {
    /// What running it does to names of prepared statements and portals.
    #[must_use]
    pub fn renames(&self) -> Renames<'_> {
        session::renames(&self.steps)
    }
}

impl Analysis {
    /// The analysis of a text about which nothing is known, such as one that is not UTF-8.
    #[must_use]
    pub fn opaque(database: &Arc<str>, text_bytes: usize) -> Self {
        let statement = Statement {
            range: 0..text_bytes,
            meaning: Arc::new(opaque(database)),
            steps: Arc::new([session::Step::Anything]),
        };
        Self { statements: vec![statement], literals_matter: true }
    }
}

/// The meaning of what is not understood.
fn opaque(database: &Arc<str>) -> Meaning {
    Meaning {
        actions: vec![Action { verb: Verb::Opaque, object: Object::Database { database: database.clone() } }],
        effect: Effect::MayChange,
        facts: Facts { kind: "opaque".to_owned(), statements: 1, ..Facts::default() },
    }
}

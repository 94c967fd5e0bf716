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
//! put them: writing to the table stands for what they do to objects, and to make them needs what they need. What they do to the session, as seen in
//! their own text, is done by whoever uses them. What a rewrite rule or the check of a domain reads or writes is added to the statement's actions.
//! Calling a function is what stands for all that it does, in the session too.

mod basis;
mod cache;
mod catalog;
mod circumstances;
mod literal;
mod mask;
mod names;
mod parse;
mod purity;
mod query;
mod session;
mod setting;
mod splice;
mod state;
mod statement;

use std::ops::Range;
use std::sync::Arc;

use splice::Spliced;

use crate::action::{Action, Effect, Facts, Object, Verb};
use crate::protocol::{Meaning, Roles};

pub use basis::Basis;
pub use catalog::{
    CATALOG_QUERIES, CATALOG_SETUP, Catalog, CatalogError, CatalogQuery, FINGERPRINT_QUERY, Rows,
};
pub use literal::literal_key;
pub use mask::{Mask, Masking, Sensitive};
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
    /// What is sent in its place, where it is shown anything masked.
    masked: Option<Arc<Spliced>>,
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
    /// What is sent in its place, where it is shown anything masked.
    #[must_use]
    pub fn masked(&self) -> Option<&str> {
        self.masked.as_ref().map(|masked| masked.text.as_str())
    }

    /// What running it does to names of prepared statements and portals.
    #[must_use]
    pub fn renames(&self) -> Renames<'_> {
        session::renames(&self.steps)
    }
}

impl Statement {
    /// It is sent as `masked`; what it prepares is then prepared as that.
    fn masks(&mut self, masked: Spliced) {
        if self.steps.iter().any(|step| matches!(step, session::Step::Prepare(..))) {
            let mut steps = self.steps.to_vec();
            for step in &mut steps {
                if let session::Step::Prepare(_, _, sent) = step {
                    *sent = Some(Arc::from(&*masked.text));
                }
            }
            self.steps = steps.into();
        }
        self.masked = Some(Arc::new(masked));
    }

    /// What it would be shown masked it may see in clear: that needs permission.
    fn expose(&mut self) {
        let meaning = Arc::make_mut(&mut self.meaning);
        let exposed = std::mem::take(&mut meaning.masks);
        meaning
            .actions
            .extend(exposed.into_iter().map(|masked| Action { verb: Verb::Unmask, object: masked.column }));
        meaning.actions.sort();
        meaning.actions.dedup();
        self.masked = None;
    }
}

impl Analysis {
    /// The text as it is to be sent, where masks make it another.
    #[must_use]
    pub fn sent(&self, text: &str) -> Option<Sending> {
        let mut sending = Sending { text: String::new(), client: String::new(), places: Vec::new() };
        let mut done = 0;
        for statement in &self.statements {
            let Some(masked) = &statement.masked else { continue };
            let before = statement.range.start;
            sending.text.push_str(&text[done..before]);
            let after = sending.text.len();
            let moved = |range: &Range<usize>, by: usize| range.start + by..range.end + by;
            let places = masked.places.iter();
            sending.places.extend(places.map(|(from, to)| (moved(from, before), moved(to, after))));
            sending.text.push_str(&masked.text);
            done = statement.range.end;
        }
        (done > 0).then(|| {
            sending.text.push_str(&text[done..]);
            sending.client.push_str(text);
            sending
        })
    }

    /// The same for a text that the upstream keeps as `sent`: where it would have to be sent otherwise now, it may show in clear what is
    /// masked.
    #[must_use]
    pub fn kept(self: Arc<Self>, text: &str, sent: Option<&str>) -> Arc<Self> {
        match self.sent(text) {
            Some(now) if sent != Some(&now.text) => {
                let mut analysis = (*self).clone();
                analysis.statements.iter_mut().for_each(Statement::expose);
                Arc::new(analysis)
            }
            _ => self,
        }
    }

    /// The analysis of a text about which nothing is known, such as one that is not UTF-8.
    fn opaque(database: &Arc<str>, masking: &Masking, roles: Roles, text_bytes: usize) -> Self {
        let statement = Statement {
            range: 0..text_bytes,
            meaning: Arc::new(opaque(database, masking, roles)),
            masked: None,
            steps: Arc::new([session::Step::Anything]),
        };
        Self { statements: vec![statement], literals_matter: true }
    }
}

/// A text as it is sent in place of the client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// The text.
    pub text: String,
    client: String,
    places: Vec<(Range<usize>, Range<usize>)>,
}

impl Sending {
    /// Which character of the client's text a character of this one is, both counted from 1 as the server counts them. All that the
    /// gateway wrote is where it begins.
    #[must_use]
    pub fn character(&self, character: usize) -> usize {
        let at =
            self.text.char_indices().nth(character.saturating_sub(1)).map_or(self.text.len(), |(at, _)| at);
        let client = match self.places.iter().rev().find(|(_, written)| written.start <= at) {
            Some((replaced, written)) if written.contains(&at) => replaced.start,
            Some((replaced, written)) => at - written.end + replaced.end,
            None => at,
        };
        self.client.get(..client).map_or(1, |before| before.chars().count() + 1)
    }
}

/// The meaning of what is not understood: it may do anything, and see anything.
fn opaque(database: &Arc<str>, masking: &Masking, roles: Roles) -> Meaning {
    let mut actions =
        vec![Action { verb: Verb::Opaque, object: Object::Database { database: database.clone() } }];
    let unmask = masking.declared().iter().map(|column| column.object(database));
    actions.extend(unmask.map(|object| Action { verb: Verb::Unmask, object }));
    actions.sort();
    Meaning {
        actions,
        effect: Effect::MayChange,
        facts: Facts { kind: "opaque".to_owned(), statements: 1, ..Facts::default() },
        masks: Vec::new(),
        roles,
    }
}

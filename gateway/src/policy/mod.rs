//! Whether it may be: Cedar policies behind one pure [`PolicySet::decide`].
//!
//! A folder of `.cedar` files becomes a [`PolicySet`]; a set answers whether a chain of subjects may do what a
//! command means. Nothing here reads a clock or does I/O while deciding: the same arguments have the same answer.
//! Default is to refuse. Every evaluation error refuses, also where Cedar itself would pass over a failing
//! `forbid`. A folder with any mistake does not load: a rule that cannot apply, or an annotation that nothing
//! keeps, would be believed to protect.
//!
//! What a newcomer gets wrong: a chain is an intersection, so every link must be permitted for itself; the
//! obligations of *all* determining permits hold together, so a generous policy never lifts a strict one's limit;
//! and a command without actions asks for nothing that policy guards, so no `forbid` can catch it.

mod admin;
mod cache;
mod folder;
mod known;
mod mistake;
mod name;
mod obligation;
mod question;
mod scope;
mod set;
mod watch;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use gatebook_wire::action::{Action, Effect, Facts, Object, Verb};
use gatebook_wire::protocol::{Meaning, Roles};

pub use admin::AdminAction;
pub use cache::DecisionCache;
pub use folder::{FILE_BYTES_MAX, FILES_MAX, FOLDER_BYTES_MAX, PolicyFile};
pub use known::{Known, KnownResource};
pub use mistake::Mistake;
pub use obligation::{Approval, Demand, Glass, InTransaction, Limit, Obligation};
pub use scope::{SCOPE_NAMES_MAX, Scope, ScopeError, ScopeText};
pub use set::{POLICIES_MAX, PolicySet};
pub use watch::Live;

/// The policies that `gatebook init` writes: commented, to be changed.
pub const STARTER: &str = include_str!("starter.cedar");

/// The Cedar schema that every policy is checked against.
pub const SCHEMA: &str = question::SCHEMA_TEXT;

/// What kind of principal a subject is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubjectKind {
    /// A person.
    User,
    /// A CI job, an agent, any program with an identity of its own.
    Service,
}

/// One authenticated link of a chain, as policy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    kind: SubjectKind,
    id: Arc<str>,
    issuer_bytes: usize,
    groups: Vec<Arc<str>>,
}

impl Subject {
    /// A subject of an issuer, with the groups that it is in at this moment.
    ///
    /// None where the issuer's name is empty or holds a colon: `a:b` of `c` and `b:c` of `a` would be one principal.
    #[must_use]
    pub fn new(
        kind: SubjectKind,
        issuer: &str,
        subject: &str,
        groups: impl IntoIterator<Item = Arc<str>>,
    ) -> Option<Self> {
        if issuer.is_empty() || issuer.contains(':') {
            return None;
        }
        let mut groups: Vec<Arc<str>> = groups.into_iter().collect();
        groups.sort();
        groups.dedup();
        Some(Subject { kind, id: format!("{issuer}:{subject}").into(), issuer_bytes: issuer.len(), groups })
    }

    /// What kind of principal it is.
    #[must_use]
    pub fn kind(&self) -> SubjectKind {
        self.kind
    }

    /// Its id: `issuer:subject`.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The issuer's name.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.id[..self.issuer_bytes]
    }

    /// The name that the issuer knows it by.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.id[self.issuer_bytes + 1..]
    }

    /// The groups that it is in, sorted, each once.
    #[must_use]
    pub fn groups(&self) -> &[Arc<str>] {
        &self.groups
    }
}

/// Who asks, where, and as which role: all that a decision depends on beside the set and the command's meaning.
///
/// It does not change: a session that becomes another role makes a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Standing {
    /// The principal first, then each actor on its behalf; never empty. Each must be permitted.
    pub chain: Vec<Subject>,
    /// What each delegation along the chain left of it; empty where nothing was handed down.
    pub scopes: Vec<Arc<Scope>>,
    /// The resource's name.
    pub resource: Arc<str>,
    /// The database of the session.
    pub database: Arc<str>,
    /// The upstream role in use; at login, the one asked for.
    pub role: Arc<str>,
    /// The protocol's name: `postgres`.
    pub protocol: &'static str,
}

/// Whether it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It may.
    Permit,
    /// It may not.
    Refuse,
}

impl Verdict {
    /// The verdict as the ledger spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Permit => "permit",
            Verdict::Refuse => "refuse",
        }
    }
}

/// Where a policy stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRef {
    /// The file's name within the folder.
    pub file: Arc<str>,
    /// The line that it begins on, its annotations included, from 1.
    pub line: u32,
    /// Its `@id`, where it has one.
    pub id: Option<Arc<str>>,
}

/// `ci.cedar:3`.
impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The answer about one command. It is for the ledger and the operator: a client is never told which rule it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be.
    pub verdict: Verdict,
    /// The policies that made it so, sorted: the permits of a permitted command, the forbids of a refused one.
    /// Empty for what no policy permits, and for a command that asks for nothing.
    pub determining: Vec<PolicyRef>,
    /// What must be kept if it is permitted; empty if it is refused.
    pub obligations: Vec<Obligation>,
    /// What breaking the glass does for it.
    pub glass: Glass,
    /// Whose approval it needs, where it needs any.
    pub approval: Option<Approval>,
    /// The actions that are not permitted, in the order of the meaning.
    pub refused: Vec<Action>,
    /// What went wrong while deciding, and which delegation does not reach so far, for the operator. Anything here means that
    /// the command is refused.
    pub errors: Vec<String>,
    /// Whether a delegation does not reach so far. That is no rule that could be tried out, so it holds in shadow too.
    pub beyond: bool,
}

impl Standing {
    /// The most rows that the delegations along the chain let one command show.
    #[must_use]
    pub fn rows_max(&self) -> Option<u64> {
        self.scopes.iter().filter_map(|scope| scope.rows_max()).min().map(std::num::NonZeroU64::get)
    }
}

impl Decision {
    /// The same command, refused because what was handed down does not reach so far.
    #[must_use]
    pub fn beyond(&self, why: &str) -> Decision {
        Decision {
            verdict: Verdict::Refuse,
            determining: Vec::new(),
            obligations: Vec::new(),
            glass: Glass::NONE,
            approval: None,
            refused: Vec::new(),
            errors: vec![why.to_owned()],
            beyond: true,
        }
    }

    /// Whether it may be.
    #[must_use]
    pub fn is_permit(&self) -> bool {
        self.verdict == Verdict::Permit
    }

    /// Whether the caller must say why.
    #[must_use]
    pub fn wants_reason(&self) -> bool {
        self.obligations.contains(&Obligation::ReasonRequired)
    }

    /// How much of something there may be, where there is a limit.
    #[must_use]
    pub fn at_most(&self, limit: Limit) -> Option<u64> {
        self.obligations.iter().find_map(|obligation| match obligation {
            Obligation::AtMost(found, most) if *found == limit => Some(most.get()),
            _ => None,
        })
    }
}

/// What becoming a role means, at login and after it: the question that opens a session.
#[must_use]
pub fn login(role: &str) -> Meaning {
    asked_at_login(Verb::Login, Object::Role { role: role.into() })
}

/// What seeing a sensitive column in clear means: asked of each when a session opens, and again of each statement that does.
#[must_use]
pub fn unmask(column: Object) -> Meaning {
    asked_at_login(Verb::Unmask, column)
}

fn asked_at_login(verb: Verb, object: Object) -> Meaning {
    Meaning {
        actions: vec![Action { verb, object }],
        effect: Effect::MayChange,
        facts: Facts { kind: "login".into(), resolved: true, ..Facts::default() },
        masks: Vec::new(),
        roles: Roles::default(),
    }
}

/// A column's schema, table and name, from `schema.table.column` as policy spells it.
pub(crate) fn column(text: &str) -> Option<[String; 3]> {
    let parts = name::split(name::Kind::Column, &format!("r/d/{text}"))?;
    let [_, _, schema, table, column] = <[String; 5]>::try_from(parts).ok()?;
    Some([schema, table, column])
}

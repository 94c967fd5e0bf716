//! The possible states of one upstream session.
//!
//! What was sent is possible at once. What the upstream told is settled when nothing is outstanding and no transaction
//! is open: then the commands since the last such moment are gone through in their order, and where none of them
//! failed, exactly one state is left of what they set. Where one failed, all that they named stays possible.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cache::Key;
use super::catalog::{self, Known};
use super::mask::Masking;
use super::parse::Strings;
use super::query::Wants;
use super::state::{Made, Names, Path, State};
use super::statement;
use super::{Analysis, Catalog, Renames, Statement, literal_key};
use crate::action::{Effect, Facts};
use crate::protocol::Meaning;

/// How many names of prepared statements, and of portals, are followed.
const NAMES_MAX: usize = 16_384;

/// How many things one name is kept to stand for at once.
const CANDIDATES_MAX: usize = 8;

/// How many statements that change state are remembered until they are settled.
const LOG_MAX: usize = 1024;

/// Stands for the look from which on a snapshot had caught up, once one has.
const HAS_CAUGHT_UP: u64 = u64::MAX;

/// How deep an `EXECUTE` may run an `EXECUTE`.
const EXECUTE_DEPTH_MAX: u8 = 4;

/// What is known of a session when its login ends.
#[derive(Debug, Clone)]
pub struct Start {
    /// The database that it is in.
    pub database: Arc<str>,
    /// The role that it logged in as.
    pub role: Arc<str>,
    /// The search path that a startup parameter set, where one did.
    pub search_path: Option<String>,
    /// The database's sensitive columns, and which of them it is shown masked.
    pub masking: Masking,
}

/// What a statement does to the state of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Begin,
    Commit,
    Rollback,
    /// Savepoints: what they bring back is not followed exactly.
    Savepoint,
    Path(Value),
    LocalPath(Value),
    /// None: any role.
    Role(Option<Arc<str>>),
    /// The same until the transaction ends.
    LocalRole(Option<Arc<str>>),
    /// The session role may be another one.
    Authorized,
    /// A function of somebody's ran: it may have set the search path, or how strings are read.
    Called,
    /// `standard_conforming_strings` may change.
    Strings,
    /// A name, the text of the whole statement, and what was sent in its place.
    Prepare(Arc<str>, Arc<str>, Option<Arc<str>>),
    /// None: all.
    Deallocate(Option<Arc<str>>),
    Declare(Arc<str>, Box<Statement>),
    /// None: all.
    Close(Option<Arc<str>>),
    Made(Arc<str>, Made),
    MadeFunction(Arc<str>),
    MadeOperator(Arc<str>),
    MadeType(Arc<str>),
    /// Some definition changed.
    Defined,
    /// Definitions changed in ways that are not followed.
    Unsettled,
    ResetAll,
    /// It may do anything.
    Anything,
}

/// A new search path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Is(Path),
    Default,
    Unknown,
}

/// The transaction status that `ReadyForQuery` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    /// None is open (`I`).
    Idle,
    /// One is open (`T`).
    Open,
    /// One is open and has failed (`E`).
    Failed,
}

/// Something that was sent and has not ended: to be handed back to [`Session::ended`].
#[derive(Debug)]
#[must_use = "what was sent has an end"]
pub struct Sent {
    number: u64,
    steps: Arc<[Step]>,
}

/// The possible states of one upstream session.
#[derive(Debug)]
pub struct Session {
    start: Start,
    path_default: Option<Path>,
    /// What is possible now.
    state: Arc<State>,
    /// The same for a snapshot that was read after all that this session defined.
    caught_up: Option<Arc<State>>,
    /// The look from which on `caught_up` holds; 0 where it is still to be noted, [`HAS_CAUGHT_UP`] where it does.
    caught_up_from: AtomicU64,
    /// What was possible when everything was last settled.
    settled_paths: Option<BTreeSet<Path>>,
    settled_roles: Option<BTreeSet<Arc<str>>>,
    /// What the server reports, where it reports it.
    reported_path: Option<Path>,
    reports_path: bool,
    reported_strings: Strings,
    /// What has ended since, and whether it completed; none where it was too much.
    log: Option<Vec<(Arc<[Step]>, bool)>>,
    numbers: u64,
    outstanding: usize,
    /// What is possible, or was reported, may be more than what is: there is something to settle.
    moved: bool,
    /// Something since was sent that is not proven to only read.
    wrote: bool,
    prepared: Candidates<Prepared>,
    portals: Candidates<Statement>,
}

#[derive(Debug, Clone)]
struct Prepared {
    text: Arc<str>,
    types: Arc<[u32]>,
    /// What was sent in its place.
    masked: Option<Arc<str>>,
    strings: Option<Strings>,
    /// `text` is a whole `PREPARE`, of which the query runs.
    inner: bool,
}

/// What names can stand for: things by the number of what named them; none where that took the name away.
///
/// They are copied when one is changed while a [scratch](Session::scratch) session shares them.
#[derive(Debug, Clone)]
struct Candidates<T> {
    names: Arc<HashMap<Arc<str>, Standing<T>>>,
}

/// What one name can stand for.
#[derive(Debug, Clone)]
struct Standing<T> {
    things: Vec<(u64, Option<T>)>,
    /// The newest of those that were too many to keep; 0 where all are kept.
    lost: u64,
}

impl Session {
    /// The state right after login.
    #[must_use]
    pub fn new(start: Start, catalog: &Catalog) -> Self {
        let path_default = match &start.search_path {
            Some(path) => catalog::split_path(path),
            None => catalog.known().search_path(&start.role).and_then(catalog::split_path),
        };
        let paths = path_default.clone().map(|path| BTreeSet::from([path]));
        let names = Names::new(paths.clone(), Some(start.role.clone()));
        Self {
            path_default,
            settled_roles: names.roles.clone(),
            state: Arc::new(State::new(names, start.role.clone(), start.masking.clone(), false)),
            caught_up: None,
            caught_up_from: AtomicU64::new(0),
            settled_paths: paths,
            reported_path: None,
            reports_path: false,
            reported_strings: Strings::Standard,
            log: Some(Vec::new()),
            numbers: 0,
            outstanding: 0,
            moved: true,
            wrote: false,
            prepared: Candidates::new(),
            portals: Candidates::new(),
            start,
        }
    }

    /// The same where it was started with `default_transaction_read_only=on`, which its client may not lift: what would is
    /// [`Verb::Set`](crate::action::Verb::Set) on the setting.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        let State { names, masking, .. } = (*self.state).clone();
        self.state = Arc::new(State::new(names, self.start.role.clone(), masking, true));
        self
    }

    /// What the statements of `text` want, in every state that is possible now. It never fails: see the module.
    #[must_use]
    pub fn analyze(&self, text: &str, catalog: &Catalog) -> Arc<Analysis> {
        let state = self.state_for(catalog);
        self.analyze_in(text, state.names.strings, false, &state, catalog, 0)
    }

    /// The same text with parameters of these types (0 leaves one to the server): to bind them runs what makes their values, such as
    /// the checks of a domain.
    #[must_use]
    pub fn with_parameters(
        &self,
        analysis: Arc<Analysis>,
        types: &[u32],
        text_bytes: usize,
        catalog: &Catalog,
    ) -> Arc<Analysis> {
        let added = types.iter().copied().filter(|oid| !Known::type_is_builtin(*oid)).collect();
        let runs = Running { session: self, catalog, depth: 0 };
        let bound = statement::parameters(&added, &self.state_for(catalog), runs);
        if bound.meaning.actions.is_empty() && bound.meaning.effect == Effect::Reads {
            return analysis;
        }
        let mut analysis = (*analysis).clone();
        for statement in &mut analysis.statements {
            let facts = Facts { resolved: bound.meaning.facts.resolved, ..statement.meaning.facts.clone() };
            let bound = Statement {
                meaning: Arc::new(Meaning { facts, ..(*bound.meaning).clone() }),
                ..bound.clone()
            };
            *statement = union([&*statement, &bound].into_iter()).expect("it is one of two");
        }
        if analysis.statements.is_empty() {
            analysis.statements.push(Statement { range: 0..text_bytes, ..bound });
        }
        Arc::new(analysis)
    }

    /// What running the prepared statement `name` wants, as the upstream would plan it now. This covers names made by
    /// [`Session::prepare_sent`] and by `PREPARE`, which share one namespace.
    #[must_use]
    pub fn prepared(&self, name: &str, catalog: &Catalog) -> Arc<Analysis> {
        let state = self.state_for(catalog);
        match self.prepared_in(name, &state, catalog, 0) {
            Some(analysis) => analysis,
            None => Arc::new(self.opaque(name.len())),
        }
    }

    /// What running the portal `name` wants: one made by [`Session::bind_sent`] or by `DECLARE`.
    #[must_use]
    pub fn portal(&self, name: &str) -> Arc<Analysis> {
        let candidates: Vec<&Statement> = self.portals.get(name).collect();
        let mut statement = match union(candidates.iter().copied()) {
            Some(statement) => statement,
            None => return Arc::new(self.opaque(name.len())),
        };
        statement.range = 0..name.len();
        Arc::new(Analysis { statements: vec![statement], literals_matter: true })
    }

    /// What a FunctionCall of that number wants, and how it is told.
    #[must_use]
    pub fn function_call(&self, oid: u32, catalog: &Catalog) -> (String, Arc<Analysis>) {
        let runs = Running { session: self, catalog, depth: 0 };
        let (text, statement) = statement::call(oid, &self.state_for(catalog), runs);
        (text, Arc::new(Analysis { statements: vec![statement], literals_matter: true }))
    }

    /// What a text wants about which nothing is known, such as one that is not UTF-8.
    #[must_use]
    pub fn opaque(&self, text_bytes: usize) -> Analysis {
        Analysis::opaque(&self.start.database, &self.start.masking, self.state.roles(), text_bytes)
    }

    /// Whether it is shown anything masked.
    #[must_use]
    pub fn masks(&self) -> bool {
        self.start.masking.masks()
    }

    /// The statement was forwarded: its effects are possible from now on.
    pub fn sent(&mut self, statement: &Statement) -> Sent {
        self.wrote |= statement.meaning.effect == Effect::MayChange;
        self.take(statement.steps.clone())
    }

    /// A Parse message was forwarded that names `text` (the empty name too), with parameters of these `types`; as `masked`, where masks made it another.
    pub fn prepare_sent(&mut self, name: &str, text: &str, types: &[u32], masked: Option<&str>) -> Sent {
        let sent = self.take(Arc::new([]));
        let prepared = Prepared {
            text: text.into(),
            types: types.into(),
            masked: masked.map(Arc::from),
            strings: self.state.names.strings,
            inner: false,
        };
        self.prepared.possible(name, sent.number, Some(prepared));
        Sent { steps: Arc::new([Step::Prepare(name.into(), "".into(), None)]), ..sent }
    }

    /// A Bind message was forwarded that makes the portal `portal` of an analysed statement.
    pub fn bind_sent(&mut self, portal: &str, statement: &Statement) -> Sent {
        let sent = self.take(Arc::new([]));
        self.portals.possible(portal, sent.number, Some(statement.clone()));
        Sent { steps: Arc::new([Step::Declare(portal.into(), Box::new(statement.clone()))]), ..sent }
    }

    /// A Close message for a prepared statement was forwarded.
    pub fn unprepare_sent(&mut self, name: &str) -> Sent {
        self.take(Arc::new([Step::Deallocate(Some(name.into()))]))
    }

    /// A Close message for a portal was forwarded.
    pub fn close_sent(&mut self, portal: &str) -> Sent {
        self.take(Arc::new([Step::Close(Some(portal.into()))]))
    }

    /// The upstream told how what was sent came out; `completed` is false where it failed or was passed over. To be
    /// called once for each [`Sent`], in their order.
    pub fn ended(&mut self, sent: Sent, completed: bool) {
        self.outstanding = self.outstanding.saturating_sub(1);
        for step in sent.steps.iter() {
            match step {
                Step::Prepare(name, ..) => self.prepared.ended(name, sent.number, completed),
                Step::Declare(name, _) => self.portals.ended(name, sent.number, completed),
                Step::Deallocate(name) => self.prepared.taken(name.as_deref(), sent.number, completed),
                Step::Close(name) => self.portals.taken(name.as_deref(), sent.number, completed),
                _ => {}
            }
        }
        // Names are no part of a transaction; what is left is told apart when all is settled.
        if sent.steps.iter().any(is_logged) || !completed {
            self.moved = true;
            match &mut self.log {
                Some(log) if log.len() < LOG_MAX => log.push((sent.steps, completed)),
                _ => self.log = None,
            }
        }
    }

    /// The upstream reported an error, of whatever it was: what the transaction changed so far may be taken back.
    pub fn failed(&mut self) {
        self.moved = true;
        match &mut self.log {
            Some(log) if log.last().is_some_and(|(steps, completed)| steps.is_empty() && !completed) => {}
            Some(log) if log.len() < LOG_MAX => log.push((Arc::new([]), false)),
            _ => self.log = None,
        }
    }

    /// The upstream is ready for the next batch.
    pub fn ready(&mut self, transaction: Transaction) {
        if self.outstanding > 0 {
            return;
        }
        match transaction {
            Transaction::Idle => self.settle(),
            // How strings are read is reported before this is said.
            Transaction::Open | Transaction::Failed => {
                let strings = Some(self.reported_strings);
                if self.state.names.strings != strings {
                    self.change(|names| names.strings = strings);
                }
            }
        }
    }

    /// The upstream reported a setting.
    pub fn parameter_status(&mut self, name: &str, value: &str) {
        self.moved = true;
        match name {
            "standard_conforming_strings" => {
                self.reported_strings = if value == "on" { Strings::Standard } else { Strings::Escapes };
                let strings = (self.outstanding == 0).then_some(self.reported_strings);
                self.change(|names| names.strings = strings);
            }
            "search_path" => {
                self.reports_path = true;
                self.reported_path = catalog::split_path(value);
                let path = self.reported_path.clone();
                if self.outstanding == 0 && self.log.as_ref().is_some_and(Vec::is_empty) {
                    self.settled_paths = path.map(|path| BTreeSet::from([path]));
                    let paths = self.settled_paths.clone();
                    self.change(|names| names.paths = paths);
                } else {
                    self.change(|names| names.path_possible(path));
                }
            }
            _ => {}
        }
    }

    // ---- analysis --------------------------------------------------------------------------------------------------

    /// The state to resolve names in: the snapshot may have caught up with what this session defined.
    pub(super) fn state_for(&self, catalog: &Catalog) -> Arc<State> {
        if let Some(caught_up) = &self.caught_up {
            match self.caught_up_from.load(Ordering::Relaxed) {
                // The look after the next began after now, and so after everything that this session defined.
                0 => self.caught_up_from.store(catalog.look() + 2, Ordering::Relaxed),
                from if from == HAS_CAUGHT_UP || catalog.look() >= from => {
                    self.caught_up_from.store(HAS_CAUGHT_UP, Ordering::Relaxed);
                    return caught_up.clone();
                }
                _ => {}
            }
        }
        self.state.clone()
    }

    /// The analysis of a text, or of what a `PREPARE` in it prepares (`inner`).
    pub(super) fn analyze_in(
        &self,
        text: &str,
        strings: Option<Strings>,
        inner: bool,
        state: &Arc<State>,
        catalog: &Catalog,
        depth: u8,
    ) -> Arc<Analysis> {
        let (strings, sure) = match strings {
            Some(strings) => (strings, true),
            None => (Strings::Standard, false),
        };
        // Only a backslash is read in two ways.
        if !sure && text.contains('\\') {
            return Arc::new(self.opaque(text.len()));
        }
        let variant = u8::from(inner) | u8::from(strings == Strings::Escapes) << 1;
        let cache = &catalog.known().cache;
        let literal = if inner { None } else { literal_key(text) };
        if let Some(literal) = &literal {
            let key = Key { state, variant: variant | 4, text: literal };
            if let Some(analysis) = cache.get(key) {
                return at_length(analysis, text);
            }
        }
        // What a COMMIT does depends on what came before it.
        let variant = if literal.is_none() { variant | u8::from(self.wrote) << 3 } else { variant };
        let key = Key { state, variant, text };
        if let Some(analysis) = cache.get(key) {
            return analysis;
        }
        let runs = Running { session: self, catalog, depth };
        let examined = statement::examine(text, strings, inner, state, runs);
        let analysis = Arc::new(examined.analysis);
        if examined.lasting {
            match &literal {
                Some(literal) if !analysis.literals_matter && analysis.statements.len() == 1 => {
                    cache.put(Key { state, variant: variant | 4, text: literal }, &analysis);
                }
                _ => cache.put(key, &analysis),
            }
        }
        analysis
    }

    fn prepared_in(
        &self,
        name: &str,
        state: &Arc<State>,
        catalog: &Catalog,
        depth: u8,
    ) -> Option<Arc<Analysis>> {
        if depth > EXECUTE_DEPTH_MAX {
            return None;
        }
        let mut analyses = Vec::new();
        for prepared in self.prepared.get(name) {
            let analysis =
                self.analyze_in(&prepared.text, prepared.strings, prepared.inner, state, catalog, depth + 1);
            let analysis = analysis.kept(&prepared.text, prepared.masked.as_deref());
            analyses.push(self.with_parameters(analysis, &prepared.types, prepared.text.len(), catalog));
        }
        if let [one] = &analyses[..] {
            return Some(one.clone());
        }
        let statement = union(analyses.iter().flat_map(|analysis| &analysis.statements))?;
        Some(Arc::new(Analysis { statements: vec![statement], literals_matter: true }))
    }

    // ---- state -----------------------------------------------------------------------------------------------------

    fn take(&mut self, steps: Arc<[Step]>) -> Sent {
        self.numbers += 1;
        self.outstanding += 1;
        self.possible(&steps, self.numbers);
        Sent { number: self.numbers, steps }
    }

    /// A copy, in `state`, to try out in which state a later statement of one text would find itself.
    pub(super) fn scratch(&self, state: &Arc<State>) -> Session {
        Session {
            start: self.start.clone(),
            path_default: self.path_default.clone(),
            state: state.clone(),
            caught_up: None,
            caught_up_from: AtomicU64::new(0),
            settled_paths: None,
            settled_roles: None,
            reported_path: None,
            reports_path: false,
            reported_strings: self.reported_strings,
            log: None,
            numbers: self.numbers,
            outstanding: 1,
            moved: true,
            wrote: self.wrote,
            prepared: self.prepared.clone(),
            portals: self.portals.clone(),
        }
    }

    /// Makes the effects of `steps` possible.
    fn possible(&mut self, steps: &[Step], number: u64) {
        if steps.is_empty() {
            return;
        }
        self.moved = true;
        for step in steps {
            match step {
                Step::Prepare(name, text, masked) => {
                    let prepared = Prepared {
                        text: text.clone(),
                        types: Arc::new([]),
                        masked: masked.clone(),
                        strings: self.state.names.strings,
                        inner: true,
                    };
                    self.prepared.possible(name, number, Some(prepared));
                }
                Step::Declare(name, statement) => {
                    self.portals.possible(name, number, Some((**statement).clone()))
                }
                Step::Deallocate(name) => self.prepared.take_away(name.as_deref(), number),
                Step::Close(name) => self.portals.take_away(name.as_deref(), number),
                Step::Anything => {
                    self.prepared = Candidates::new();
                    self.portals = Candidates::new();
                }
                _ => {}
            }
        }
        if steps.iter().any(defines) {
            if let Some(caught_up) = self.caught_up.take()
                && *self.caught_up_from.get_mut() == HAS_CAUGHT_UP
            {
                self.state = caught_up;
            }
            *self.caught_up_from.get_mut() = 0;
        }
        if steps.iter().any(changes_names) {
            let default = self.path_default.clone();
            self.change(|names| {
                for step in steps {
                    possible_name(names, step, &default);
                }
            });
        }
    }

    fn state_of(&self, names: Names) -> State {
        State::new(names, self.start.role.clone(), self.start.masking.clone(), self.state.read_only)
    }

    fn change(&mut self, change: impl FnOnce(&mut Names)) {
        let mut names = self.state.names.clone();
        change(&mut names);
        if names != self.state.names {
            self.state = Arc::new(self.state_of(names));
            if self.caught_up.is_some() {
                let caught_up = self.state.names.settled_definitions();
                self.caught_up = Some(Arc::new(self.state_of(caught_up)));
            }
        }
    }

    /// Nothing is outstanding and no transaction is open: what was possible becomes what is.
    fn settle(&mut self) {
        self.wrote = false;
        if !std::mem::take(&mut self.moved) {
            return;
        }
        let log = self.log.replace(Vec::new());
        let (paths, roles) = match &log {
            Some(log) if log.is_empty() => (self.settled_paths.clone(), self.settled_roles.clone()),
            Some(log) => self.replay(log),
            None => (self.state.names.paths.clone(), self.state.names.roles.clone()),
        };
        let paths = if self.reports_path {
            self.reported_path.clone().map(|path| BTreeSet::from([path]))
        } else {
            paths
        };
        self.settled_paths.clone_from(&paths);
        self.settled_roles.clone_from(&roles);
        let strings = Some(self.reported_strings);
        self.change(|names| {
            names.paths = paths;
            names.roles = roles;
            names.strings = strings;
        });
        // From here on everything that this session defined is there for others to read.
        if self.caught_up.is_none() {
            let caught_up = self.state.names.settled_definitions();
            if caught_up != self.state.names {
                self.caught_up = Some(Arc::new(self.state_of(caught_up)));
                *self.caught_up_from.get_mut() = 0;
            }
        }
    }

    /// Goes through what ended since the last settled moment.
    fn replay(&self, log: &[(Arc<[Step]>, bool)]) -> (Option<BTreeSet<Path>>, Option<BTreeSet<Arc<str>>>) {
        let steps = || log.iter().flat_map(|(steps, _)| steps.iter());
        let start =
            || Names { roles: self.settled_roles.clone(), ..Names::new(self.settled_paths.clone(), None) };
        let changes = |step: &Step| {
            matches!(step, Step::Path(_) | Step::Called | Step::Role(_) | Step::ResetAll | Step::Anything)
        };
        let failed = log.iter().any(|(_, completed)| !completed);
        let rollbacks = steps().filter(|step| **step == Step::Rollback).count();
        // A ROLLBACK takes back what came before a BEGIN as well, where one message held both.
        let begun_first = steps().find(|step| changes(step) || **step == Step::Begin) == Some(&Step::Begin);
        let taken_back = rollbacks == 1 && begun_first && !steps().any(|step| *step == Step::Commit);
        if !failed && taken_back && steps().last() == Some(&Step::Rollback) {
            return (self.settled_paths.clone(), self.settled_roles.clone());
        }
        if failed || rollbacks > 0 || steps().any(|step| *step == Step::Savepoint) {
            let mut names = start();
            for step in steps().filter(|step| changes(step)) {
                possible_name(&mut names, step, &self.path_default);
            }
            return (names.paths, names.roles);
        }
        let mut current = start();
        for step in steps() {
            match step {
                Step::Path(Value::Is(path)) => current.paths = Some(BTreeSet::from([path.clone()])),
                Step::Path(Value::Default) | Step::ResetAll => {
                    current.paths = self.path_default.clone().map(|path| BTreeSet::from([path]));
                }
                Step::Path(Value::Unknown) | Step::Called => current.paths = None,
                Step::Anything => (current.paths, current.roles) = (None, None),
                Step::Role(role) => current.roles = role.clone().map(|role| BTreeSet::from([role])),
                _ => {}
            }
        }
        (current.paths, current.roles)
    }
}

/// What an `EXECUTE` or a `FETCH` runs, asked of a session.
#[derive(Clone, Copy)]
pub(super) struct Running<'a> {
    pub(super) session: &'a Session,
    pub(super) catalog: &'a Catalog,
    pub(super) depth: u8,
}

impl Running<'_> {
    /// What the prepared statement runs; none where nobody knows it.
    pub(super) fn prepared(&self, name: &str, state: &Arc<State>) -> Option<Statement> {
        let analysis = self.session.prepared_in(name, state, self.catalog, self.depth)?;
        union(analysis.statements.iter())
    }

    /// What the portal runs; none where nobody knows it.
    pub(super) fn portal(&self, name: &str) -> Option<Statement> {
        union(self.session.portals.get(name))
    }
}

impl Session {
    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    pub(super) fn database(&self) -> &Arc<str> {
        &self.start.database
    }

    pub(super) fn wrote(&self) -> bool {
        self.wrote
    }
}

impl<T: Clone> Candidates<T> {
    fn new() -> Self {
        Self { names: Arc::default() }
    }

    /// What the name can stand for; nothing where nobody knows.
    fn get(&self, name: &str) -> impl Iterator<Item = &T> {
        let known = self.names.get(name).filter(|standing| standing.lost == 0);
        known.into_iter().flat_map(|standing| &standing.things).filter_map(|(_, thing)| thing.as_ref())
    }

    fn possible(&mut self, name: &str, number: u64, thing: Option<T>) {
        if self.names.len() >= NAMES_MAX && !self.names.contains_key(name) {
            return;
        }
        let names = Arc::make_mut(&mut self.names);
        let standing = names.entry(name.into()).or_insert_with(|| Standing { things: Vec::new(), lost: 0 });
        if standing.things.len() >= CANDIDATES_MAX {
            // Too many: nobody knows what it stands for before a later one has taken its place.
            standing.lost = standing.things.last().map_or(number, |(newest, _)| *newest);
            standing.things.clear();
        }
        standing.things.push((number, thing));
    }

    /// A name may be taken away. Where all are, nothing is noted: each still can stand for what it did, until it is told that none does.
    fn take_away(&mut self, name: Option<&str>, number: u64) {
        if let Some(name) = name.filter(|name| self.names.contains_key(*name)) {
            self.possible(name, number, None);
        }
    }

    /// What was named then is what the name stands for, or what may have been named since; or it was not named.
    fn ended(&mut self, name: &str, number: u64, completed: bool) {
        if !self.names.contains_key(name) {
            return;
        }
        let names = Arc::make_mut(&mut self.names);
        if let Some(standing) = names.get_mut(name) {
            let here = standing.things.iter().any(|(named, _)| *named == number);
            standing.ended(number, completed, here);
            if standing.things.is_empty() && standing.lost == 0 {
                names.remove(name);
            }
        }
    }

    fn taken(&mut self, name: Option<&str>, number: u64, completed: bool) {
        match name {
            Some(name) => {
                self.ended(name, number, completed);
                let gone = |standing: &Standing<T>| standing.is_gone();
                if self.names.get(name).is_some_and(gone) {
                    Arc::make_mut(&mut self.names).remove(name);
                }
            }
            None if completed => Arc::make_mut(&mut self.names).retain(|_, standing| {
                standing.ended(number, true, true);
                !standing.is_gone()
            }),
            None => {}
        }
    }
}

impl<T> Standing<T> {
    fn ended(&mut self, number: u64, completed: bool, here: bool) {
        self.things.retain(|(named, _)| if completed { !here || *named >= number } else { *named != number });
        if completed && here && number > self.lost {
            self.lost = 0;
        }
    }

    fn is_gone(&self) -> bool {
        self.lost == 0 && self.things.iter().all(|(_, thing)| thing.is_none())
    }
}

/// A statement that may be any of several: it wants what they want together.
fn union<'a>(statements: impl Iterator<Item = &'a Statement>) -> Option<Statement> {
    let mut statements = statements.peekable();
    let mut union = statements.next()?.clone();
    if statements.peek().is_none() {
        return Some(union);
    }
    let mut wants = Wants::nothing();
    let mut facts = union.meaning.facts.clone();
    let mut steps = union.steps.to_vec();
    let mut effect = union.meaning.effect;
    let mut masks = union.meaning.masks.clone();
    wants.actions.extend(union.meaning.actions.iter().cloned());
    for statement in statements {
        wants.actions.extend(statement.meaning.actions.iter().cloned());
        steps.extend(statement.steps.iter().cloned());
        masks.extend(statement.meaning.masks.iter().cloned());
        if statement.meaning.effect == Effect::MayChange {
            effect = Effect::MayChange;
        }
        facts.resolved &= statement.meaning.facts.resolved;
        facts.has_where &= statement.meaning.facts.has_where;
        facts.has_limit &= statement.meaning.facts.has_limit;
        if facts.fingerprint != statement.meaning.facts.fingerprint {
            facts.fingerprint.clear();
        }
    }
    union.steps = steps.into();
    masks.sort();
    masks.dedup();
    facts.count(&wants.actions);
    let roles = union.meaning.roles.clone();
    union.meaning =
        Arc::new(Meaning { actions: wants.actions.into_iter().collect(), effect, facts, masks, roles });
    Some(union)
}

/// The same analysis for a text of one statement that differs in the length of its literals.
fn at_length(analysis: Arc<Analysis>, text: &str) -> Arc<Analysis> {
    match &analysis.statements[..] {
        [statement] if statement.range != (0..text.len()) => {
            let statement = Statement { range: 0..text.len(), ..statement.clone() };
            Arc::new(Analysis { statements: vec![statement], literals_matter: analysis.literals_matter })
        }
        _ => analysis,
    }
}

/// Whether a step changes the session itself, as seen in the statement and not in a function that it calls.
pub(super) fn moves(step: &Step) -> bool {
    use Step::{Anything, Authorized, LocalPath, LocalRole, Path, ResetAll, Role, Strings};
    matches!(
        step,
        Path(_) | LocalPath(_) | Role(_) | LocalRole(_) | Authorized | Strings | ResetAll | Anything
    )
}

/// What running `steps` does to names that the extended protocol shares with SQL.
pub(super) fn renames(steps: &[Step]) -> Renames<'_> {
    let mut renames = Renames::Nothing;
    for step in steps {
        let one = match step {
            Step::Prepare(name, ..) | Step::Deallocate(Some(name)) => Renames::Statement(name),
            Step::Deallocate(None) => Renames::AllStatements,
            Step::Declare(name, _) | Step::Close(Some(name)) => Renames::Portal(name),
            Step::Close(None) => Renames::AllPortals,
            Step::Anything => Renames::Everything,
            _ => continue,
        };
        renames = if renames == Renames::Nothing { one } else { Renames::Everything };
    }
    renames
}

/// Whether a step has to be told apart when all is settled.
fn is_logged(step: &Step) -> bool {
    matches!(
        step,
        Step::Begin
            | Step::Commit
            | Step::Rollback
            | Step::Savepoint
            | Step::Path(_)
            | Step::LocalPath(_)
            | Step::Role(_)
            | Step::LocalRole(_)
            | Step::Called
            | Step::ResetAll
            | Step::Anything
    )
}

fn changes_names(step: &Step) -> bool {
    !matches!(
        step,
        Step::Begin
            | Step::Commit
            | Step::Rollback
            | Step::Savepoint
            | Step::Prepare(..)
            | Step::Deallocate(_)
            | Step::Declare(..)
            | Step::Close(_)
    )
}

fn defines(step: &Step) -> bool {
    matches!(
        step,
        Step::Made(_, Made::In(_) | Made::Dropped | Made::Somewhere)
            | Step::MadeFunction(_)
            | Step::MadeOperator(_)
            | Step::MadeType(_)
            | Step::Defined
            | Step::Unsettled
            | Step::Anything
    )
}

/// Makes what `step` does to names possible.
fn possible_name(names: &mut Names, step: &Step, path_default: &Option<Path>) {
    names.changed |= defines(step);
    match step {
        Step::Path(Value::Is(path)) | Step::LocalPath(Value::Is(path)) => {
            names.path_possible(Some(path.clone()))
        }
        Step::Path(Value::Default) | Step::LocalPath(Value::Default) => {
            names.path_possible(path_default.clone())
        }
        Step::Path(Value::Unknown) | Step::LocalPath(Value::Unknown) => names.paths = None,
        Step::Role(role) | Step::LocalRole(role) => names.role_possible(role.clone()),
        Step::Authorized => names.authorized = true,
        Step::Called => (names.paths, names.strings) = (None, None),
        Step::Strings => names.strings = None,
        Step::Made(name, made) => names.made_possible(name.clone(), made.clone()),
        Step::MadeFunction(name) => _ = names.made_functions.insert(name.clone()),
        Step::MadeOperator(name) => _ = names.made_operators.insert(name.clone()),
        Step::MadeType(name) => _ = names.made_types.insert(name.clone()),
        Step::Unsettled => names.unsettled = true,
        Step::ResetAll => {
            names.path_possible(path_default.clone());
            names.strings = None;
        }
        Step::Anything => {
            names.paths = None;
            names.roles = None;
            names.strings = None;
            names.authorized = true;
            names.unsettled = true;
        }
        _ => {}
    }
}

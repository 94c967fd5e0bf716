//! What each statement of a text wants.

mod definition;
mod object;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use pg_query::protobuf::{
    CopyStmt, DiscardMode, ExplainStmt, ObjectType, PrepareStmt, RawStmt, SelectStmt, TransactionStmt,
    TransactionStmtKind, VariableSetKind, VariableSetStmt,
};
use pg_query::{Node, NodeEnum};

use super::parse::{self, Strings};
use super::query::{Setting, Walk, Wants, constant_text, strings};
use super::session::{Running, Session, Step};
use super::splice::{Edit, Spliced, splice};
use super::state::State;
use super::{Analysis, Statement, names, opaque, setting};
use crate::action::{Action, Effect, Facts, Object, Verb};
use crate::protocol::{Masked, Meaning, Roles};

/// How many statements one text may hold before it is opaque as a whole.
const STATEMENTS_MAX: usize = 10_000;

/// How many of them may change what names stand for: each is followed by itself, with all that came before.
const CHANGES_MAX: usize = 1_000;

/// A text's analysis, and whether it is good for every session in the same state.
pub(super) struct Examined {
    pub(super) analysis: Analysis,
    pub(super) lasting: bool,
}

/// Examines a text in a state of a session; with `inner`, what the `PREPARE` in it prepares.
pub(super) fn examine(
    text: &str,
    strings: Strings,
    inner: bool,
    state: &Arc<State>,
    runs: Running<'_>,
) -> Examined {
    let tree = match parse::parse(text, strings) {
        Ok(tree) if tree.stmts.len() <= STATEMENTS_MAX => tree,
        _ => return Examined { analysis: runs.session.opaque(text.len()), lasting: true },
    };
    let count = u32::try_from(tree.stmts.len()).unwrap_or(u32::MAX);
    let mut statements: Vec<Statement> = Vec::with_capacity(tree.stmts.len());
    let (mut literals_matter, mut lasting, mut wrote) = (false, true, runs.session.wrote());
    // The session as the statements so far may leave it, once one of them does something to it.
    let (mut later, mut changes): (Option<Session>, usize) = (None, 0);
    for raw in &tree.stmts {
        let range = range_of(raw.stmt_location, raw.stmt_len, text);
        let now = Running { session: later.as_ref().unwrap_or(runs.session), ..runs };
        let state_now = later.as_ref().map_or(state, Session::state);
        let fingerprint =
            parse::fingerprint(text.get(range.clone()).unwrap_or(text), strings).unwrap_or_default();
        let telling = Telling { inner, count, wrote, state: state_now, runs: now, fingerprint: &fingerprint };
        let source = text.get(range.clone()).unwrap_or(text);
        let told = telling.tell(raw, source, &[]);
        literals_matter |= told.literals || !told.edits.is_empty();
        lasting &= told.lasting;
        let mut statement = Statement { range, ..told.statement };
        if !told.edits.is_empty() {
            let after = statements.last().map_or(0, |last| last.range.end);
            match telling.masked(source, statement.range.start, strings, told.edits, &statement) {
                Some(masked) if after <= statement.range.start => statement.masks(masked),
                _ => statement.expose(),
            }
        }
        wrote |= statement.meaning.effect == Effect::MayChange;
        if !statement.steps.is_empty() && count > 1 {
            let session = match &mut later {
                Some(session) => session,
                none => none.insert(runs.session.scratch(state)),
            };
            let before = *session.state().id();
            let _ = session.sent(&statement);
            changes += usize::from(before != *session.state().id());
            if changes > CHANGES_MAX {
                return Examined { analysis: runs.session.opaque(text.len()), lasting: true };
            }
        }
        statements.push(statement);
    }
    Examined { analysis: Analysis { statements, literals_matter }, lasting }
}

/// What calling the function of a number wants, and a text that tells it.
pub(super) fn call(oid: u32, state: &Arc<State>, runs: Running<'_>) -> (String, Statement) {
    let text = match runs.catalog.known().function_numbered(oid) {
        Some((schema, name)) => format!("function call {oid} {schema}.{name}"),
        None => format!("function call {oid}"),
    };
    let wrote = runs.session.wrote();
    let telling = Telling { inner: false, count: 1, wrote, state, runs, fingerprint: "" };
    let mut teller = telling.teller(&text);
    teller.kind("function_call");
    teller.walk.numbered(oid);
    let told = teller.told(runs.session.database());
    let statement = Statement { range: 0..text.len(), ..told.statement };
    (text, statement)
}

/// What binding parameters of these types wants.
pub(super) fn parameters(types: &BTreeSet<u32>, state: &Arc<State>, runs: Running<'_>) -> Statement {
    let wrote = runs.session.wrote();
    let telling = Telling { inner: false, count: 1, wrote, state, runs, fingerprint: "" };
    let mut teller = telling.teller("");
    teller.kind("empty");
    for oid in types {
        teller.walk.parameter(*oid);
    }
    teller.told(runs.session.database()).statement
}

/// Where a statement stands; the parser says 0 for "to the end".
fn range_of(location: i32, length: i32, text: &str) -> Range<usize> {
    let start = usize::try_from(location).unwrap_or(0).min(text.len());
    let end = match usize::try_from(length).unwrap_or(0) {
        0 => text.len(),
        length => start.saturating_add(length).min(text.len()),
    };
    if text.is_char_boundary(start) && text.is_char_boundary(end) { start..end } else { 0..text.len() }
}

/// In which circumstances a statement is told.
#[derive(Clone, Copy)]
struct Telling<'a> {
    inner: bool,
    count: u32,
    wrote: bool,
    state: &'a Arc<State>,
    runs: Running<'a>,
    fingerprint: &'a str,
}

/// What was told of one statement.
struct Told {
    statement: Statement,
    literals: bool,
    lasting: bool,
    /// What has to be written into its text; nothing where that would not be enough.
    edits: Vec<Edit>,
}

impl Telling<'_> {
    fn teller<'b>(&'b self, source: &'b str) -> Teller<'b> {
        Teller {
            walk: Walk::new(self.runs.catalog.known(), self.state, self.runs.session.database()),
            runs: self.runs,
            state: self.state,
            source,
            facts: Facts {
                statements: self.count,
                resolved: true,
                fingerprint: self.fingerprint.to_owned(),
                ..Facts::default()
            },
            lasting: true,
            wrote: self.wrote,
            masks: Vec::new(),
        }
    }

    /// What a statement wants; in its text the gateway itself has written the places `written`.
    fn tell(&self, raw: &RawStmt, source: &str, written: &[Range<usize>]) -> Told {
        let mut teller = self.teller(source);
        teller.walk.written = written;
        match raw.stmt.as_deref().and_then(|node| node.node.as_ref()) {
            Some(NodeEnum::PrepareStmt(prepare)) if self.inner => teller.prepared(prepare),
            Some(node) => teller.statement(node),
            None => teller.walk.opaque(),
        }
        teller.told(self.runs.session.database())
    }

    /// The text with the edits made, proven: parsed and walked anew, it names nothing masked where the gateway did not write, and
    /// needs no permission that it did not need before.
    fn masked(
        &self,
        source: &str,
        start: usize,
        strings: Strings,
        mut edits: Vec<Edit>,
        told: &Statement,
    ) -> Option<Spliced> {
        for edit in &mut edits {
            edit.at = edit.at.checked_sub(start)?;
        }
        let spliced = splice(source, edits)?;
        let tree = parse::parse(&spliced.text, strings).ok()?;
        let [raw] = &tree.stmts[..] else { return None };
        let written: Vec<Range<usize>> = spliced.places.iter().map(|(_, written)| written.clone()).collect();
        let again = self.tell(raw, &spliced.text, &written);
        let needed = |action: &&Action| action.verb == Verb::Unmask;
        let known = &told.meaning.actions;
        let proven = again.edits.is_empty()
            && again.statement.meaning.actions.iter().filter(needed).all(|action| known.contains(action));
        proven.then_some(spliced)
    }
}

/// Tells what one statement wants.
struct Teller<'a> {
    walk: Walk<'a>,
    runs: Running<'a>,
    state: &'a Arc<State>,
    source: &'a str,
    facts: Facts,
    lasting: bool,
    wrote: bool,
    /// What is masked in what it runs by name.
    masks: Vec<Masked>,
}

impl<'a> Teller<'a> {
    fn told(mut self, database: &Arc<str>) -> Told {
        let mut masks = std::mem::take(&mut self.masks);
        if self.walk.sight.exposed.is_empty() {
            masks.extend(self.walk.masks());
        }
        masks.sort();
        masks.dedup();
        let unmask = self.walk.unmask(&self.walk.wants.actions);
        let sight = std::mem::take(&mut self.walk.sight);
        let Wants { mut actions, proven, resolved, opaque: is_opaque, mut steps, literals } = self.walk.wants;
        if is_opaque {
            actions.extend(opaque(database, &self.state.masking, Roles::Unknown).actions);
            steps.push(Step::Anything);
        }
        actions.extend(unmask);
        let edits = if sight.exposed.is_empty() { sight.edits } else { Vec::new() };
        let mut facts = self.facts;
        facts.resolved = resolved && !is_opaque;
        facts.count(&actions);
        let proven = proven && !is_opaque && !self.state.names.changed;
        let effect = if proven { Effect::Reads } else { Effect::MayChange };
        let roles = self.state.roles();
        let meaning = Meaning { actions: actions.into_iter().collect(), effect, facts, masks, roles };
        let statement =
            Statement { range: 0..0, meaning: Arc::new(meaning), masked: None, steps: steps.into() };
        Told { statement, literals, lasting: self.lasting, edits }
    }

    fn kind(&mut self, kind: &str) {
        if self.facts.kind.is_empty() {
            kind.clone_into(&mut self.facts.kind);
        }
    }

    fn changes(&mut self) {
        self.walk.wants.proven = false;
    }

    fn act(&mut self, verb: Verb, object: Object) {
        self.changes();
        self.walk.act(verb, object);
    }

    fn on_database(&mut self, verb: Verb) {
        let object = self.walk.database_object();
        self.act(verb, object);
    }

    fn on_schema(&mut self, verb: Verb, schema: &str) {
        let database = self.walk.database.clone();
        self.act(verb, Object::Schema { database, schema: Arc::from(schema) });
    }

    fn step(&mut self, step: Step) {
        self.walk.wants.steps.push(step);
    }

    fn nodes(&mut self, node: Option<&'a Node>) {
        match node.and_then(|node| node.node.as_ref()) {
            Some(node) => self.statement(node),
            None => self.walk.opaque(),
        }
    }

    fn statement(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::SelectStmt(select) => self.select(select),
            NodeEnum::InsertStmt(_)
            | NodeEnum::UpdateStmt(_)
            | NodeEnum::DeleteStmt(_)
            | NodeEnum::MergeStmt(_) => {
                self.writes(node);
            }
            NodeEnum::TransactionStmt(transaction) => self.transaction(transaction),
            NodeEnum::VariableSetStmt(set) => self.set(set),
            NodeEnum::VariableShowStmt(_) => self.kind("show"),
            NodeEnum::ExplainStmt(explain) => self.explain(explain),
            NodeEnum::CopyStmt(copy) => self.copy(copy),
            NodeEnum::PrepareStmt(_)
            | NodeEnum::ExecuteStmt(_)
            | NodeEnum::DeallocateStmt(_)
            | NodeEnum::DeclareCursorStmt(_)
            | NodeEnum::FetchStmt(_)
            | NodeEnum::ClosePortalStmt(_)
            | NodeEnum::DiscardStmt(_) => self.names(node),
            _ => self.definition(node),
        }
    }

    fn select(&mut self, select: &'a SelectStmt) {
        self.kind(if select.into_clause.is_some() { "select_into" } else { "select" });
        self.facts.has_where = select.where_clause.is_some();
        self.facts.has_limit = select.limit_count.is_some();
        self.walk.select(select);
    }

    fn writes(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::InsertStmt(_) => self.kind("insert"),
            NodeEnum::UpdateStmt(update) => {
                self.kind("update");
                self.facts.has_where = update.where_clause.is_some();
            }
            NodeEnum::DeleteStmt(delete) => {
                self.kind("delete");
                self.facts.has_where = delete.where_clause.is_some();
            }
            _ => self.kind("merge"),
        }
        self.changes();
        self.walk.row_statement(node);
    }

    fn transaction(&mut self, transaction: &'a TransactionStmt) {
        for option in &transaction.options {
            self.transaction_option(option);
        }
        match TransactionStmtKind::try_from(transaction.kind) {
            Ok(TransactionStmtKind::TransStmtBegin | TransactionStmtKind::TransStmtStart) => {
                self.kind("begin");
                self.step(Step::Begin);
            }
            Ok(TransactionStmtKind::TransStmtCommit) => {
                self.kind("commit");
                // What was written takes effect now; where nothing was, nothing does.
                self.walk.wants.proven &= !self.wrote;
                self.step(Step::Commit);
                if transaction.chain {
                    self.step(Step::Begin);
                }
            }
            Ok(TransactionStmtKind::TransStmtRollback) => {
                self.kind("rollback");
                self.step(Step::Rollback);
                if transaction.chain {
                    self.step(Step::Begin);
                }
            }
            Ok(TransactionStmtKind::TransStmtSavepoint) => {
                self.kind("savepoint");
            }
            Ok(TransactionStmtKind::TransStmtRelease) => self.kind("release"),
            Ok(TransactionStmtKind::TransStmtRollbackTo) => {
                self.kind("rollback_to");
                self.step(Step::Savepoint);
            }
            Ok(TransactionStmtKind::TransStmtPrepare) => {
                self.kind("prepare_transaction");
                self.changes();
                self.step(Step::Savepoint);
            }
            Ok(TransactionStmtKind::TransStmtCommitPrepared) => {
                self.kind("commit_prepared");
                self.on_database(Verb::Administer);
            }
            Ok(TransactionStmtKind::TransStmtRollbackPrepared) => {
                self.kind("rollback_prepared");
                self.on_database(Verb::Administer);
            }
            _ => self.walk.opaque(),
        }
    }

    fn set(&mut self, set: &'a VariableSetStmt) {
        let kind = VariableSetKind::try_from(set.kind);
        self.kind(match kind {
            Ok(VariableSetKind::VarReset | VariableSetKind::VarResetAll) => "reset",
            _ => "set",
        });
        self.walk.wants.literals = true;
        let name = setting::fold(&set.name);
        match kind {
            Ok(VariableSetKind::VarSetValue) => {
                let values: Option<Vec<String>> = set.args.iter().map(constant).collect();
                let value = match values {
                    Some(values) => {
                        Setting::Names(values.into_iter().map(|value| Arc::from(names::cut(value))).collect())
                    }
                    None => Setting::Unknown,
                };
                self.walk.setting(&name, value, set.is_local);
            }
            Ok(VariableSetKind::VarSetDefault | VariableSetKind::VarReset) => {
                self.walk.setting(&name, Setting::Default, set.is_local);
            }
            Ok(VariableSetKind::VarSetMulti) => self.set_transaction(set),
            Ok(VariableSetKind::VarResetAll) => self.step(Step::ResetAll),
            _ => self.walk.opaque(),
        }
    }

    /// `SET TRANSACTION` and `SET SESSION CHARACTERISTICS`.
    fn set_transaction(&mut self, set: &'a VariableSetStmt) {
        for option in &set.args {
            self.transaction_option(option);
        }
    }

    /// `READ ONLY`, `ISOLATION LEVEL …`, `SNAPSHOT …`: each a setting.
    fn transaction_option(&mut self, option: &'a Node) {
        let (name, value) = match option.node.as_ref() {
            Some(NodeEnum::DefElem(element)) => {
                (element.defname.as_str(), element.arg.as_deref().and_then(constant))
            }
            // `SET TRANSACTION SNAPSHOT`.
            Some(NodeEnum::AConst(_)) => ("transaction_snapshot", None),
            _ => return self.walk.opaque(),
        };
        self.walk.setting(name, value.as_deref().map_or(Setting::Unknown, Setting::Text), true);
    }

    fn explain(&mut self, explain: &'a ExplainStmt) {
        self.kind("explain");
        // Planning alone runs functions too, and whether ANALYZE is on is no matter to what may be seen.
        self.nodes(explain.query.as_deref());
        // What it would do to the session is done only by ANALYZE: what was there before stays possible.
        self.walk.wants.steps.push(Step::Savepoint);
    }

    fn copy(&mut self, copy: &'a CopyStmt) {
        self.kind(if copy.is_from { "copy_from" } else { "copy_to" });
        if copy.is_program || !copy.filename.is_empty() {
            // A file or a program of the server, as the server's own user.
            self.on_database(Verb::Administer);
            self.walk.opaque();
        }
        match (&copy.relation, copy.query.as_deref()) {
            (Some(relation), _) if copy.is_from => self.walk.on_relation(Verb::Insert, relation),
            (Some(relation), _) => {
                self.walk.on_relation(Verb::Select, relation);
                self.walk.copies(relation, strings(&copy.attlist));
            }
            (None, Some(query)) => self.nodes(Some(query)),
            (None, None) => self.walk.opaque(),
        }
        if let Some(condition) = copy.where_clause.as_deref() {
            self.walk.optional(Some(condition));
        }
    }

    /// What is prepared: its parameters are made when it runs.
    fn prepared(&mut self, prepare: &'a PrepareStmt) {
        for argument in &prepare.argtypes {
            match argument.node.as_ref() {
                Some(NodeEnum::TypeName(name)) => _ = self.walk.type_name(Some(name)),
                _ => self.walk.opaque(),
            }
        }
        self.nodes(prepare.query.as_deref());
    }

    /// Statements about names of prepared statements and portals.
    fn names(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::PrepareStmt(prepare) => {
                self.kind("prepare");
                self.prepared(prepare);
                // What it runs has its effects when it runs.
                self.walk.wants.steps =
                    vec![Step::Prepare(Arc::from(&*prepare.name), Arc::from(self.source), None)];
            }
            NodeEnum::ExecuteStmt(execute) => {
                self.kind("execute");
                self.walk.all(&execute.params);
                let runs = self.runs.prepared(&execute.name, self.state);
                self.run(runs);
            }
            NodeEnum::DeallocateStmt(deallocate) => {
                self.kind("deallocate");
                self.step(Step::Deallocate((!deallocate.isall).then(|| Arc::from(&*deallocate.name))));
            }
            NodeEnum::DeclareCursorStmt(declare) => {
                self.kind("declare");
                self.nodes(declare.query.as_deref());
                let mut actions = self.walk.wants.actions.clone();
                actions.extend(self.walk.unmask(&actions));
                let statement = Statement {
                    range: 0..self.source.len(),
                    meaning: Arc::new(Meaning {
                        actions: actions.into_iter().collect(),
                        effect: if self.walk.wants.proven && !self.state.names.changed {
                            Effect::Reads
                        } else {
                            Effect::MayChange
                        },
                        facts: Facts {
                            kind: "fetch".to_owned(),
                            resolved: self.walk.wants.resolved,
                            statements: 1,
                            ..Facts::default()
                        },
                        masks: self.walk.masks(),
                        roles: self.state.roles(),
                    }),
                    masked: None,
                    steps: std::mem::take(&mut self.walk.wants.steps).into(),
                };
                let statement = if self.walk.wants.opaque {
                    opaque_statement(
                        &statement,
                        &opaque(self.walk.database, &self.state.masking, Roles::Unknown),
                    )
                } else {
                    statement
                };
                self.step(Step::Declare(Arc::from(&*declare.portalname), Box::new(statement)));
            }
            NodeEnum::FetchStmt(fetch) => {
                self.kind(if fetch.ismove { "move" } else { "fetch" });
                let runs = self.runs.portal(&fetch.portalname);
                self.run(runs);
            }
            NodeEnum::ClosePortalStmt(close) => {
                self.kind("close");
                let all = close.portalname.is_empty();
                self.step(Step::Close((!all).then(|| Arc::from(&*close.portalname))));
            }
            NodeEnum::DiscardStmt(discard) => {
                self.kind("discard");
                self.changes();
                if DiscardMode::try_from(discard.target) == Ok(DiscardMode::DiscardAll) {
                    self.step(Step::ResetAll);
                    self.step(Step::Role(self.state.authenticated()));
                    self.step(Step::Deallocate(None));
                    self.step(Step::Close(None));
                }
            }
            _ => self.walk.opaque(),
        }
    }

    /// Runs what a name stands for.
    fn run(&mut self, runs: Option<Statement>) {
        self.lasting = false;
        self.facts.by_name = true;
        match runs {
            Some(statement) => {
                let meaning = &statement.meaning;
                let wants = &mut self.walk.wants;
                wants.actions.extend(meaning.actions.iter().cloned());
                self.masks.extend(meaning.masks.iter().cloned());
                wants.proven &= meaning.effect == Effect::Reads;
                wants.resolved &= meaning.facts.resolved;
                wants.steps.extend(
                    statement.steps.iter().filter(|step| !matches!(step, Step::Declare(..))).cloned(),
                );
                self.facts.has_where = meaning.facts.has_where;
                self.facts.has_limit = meaning.facts.has_limit;
                self.facts.fingerprint.clone_from(&meaning.facts.fingerprint);
            }
            None => self.walk.opaque(),
        }
    }
}

fn opaque_statement(statement: &Statement, opaque: &Meaning) -> Statement {
    let mut meaning = (*statement.meaning).clone();
    meaning.actions.extend(opaque.actions.iter().cloned());
    meaning.actions.sort();
    meaning.actions.dedup();
    meaning.effect = Effect::MayChange;
    meaning.facts.resolved = false;
    Statement {
        meaning: Arc::new(meaning),
        steps: Arc::new([Step::Anything]),
        masked: None,
        range: statement.range.clone(),
    }
}

fn is_relation(kind: Option<ObjectType>) -> bool {
    matches!(
        kind,
        Some(
            ObjectType::ObjectTable
                | ObjectType::ObjectView
                | ObjectType::ObjectMatview
                | ObjectType::ObjectIndex
                | ObjectType::ObjectSequence
                | ObjectType::ObjectForeignTable
        )
    )
}

fn list(node: &Node) -> Option<&[Node]> {
    match node.node.as_ref()? {
        NodeEnum::List(list) => Some(&list.items),
        _ => None,
    }
}

/// A constant of `SET` as the text that the server makes of it.
fn constant(node: &Node) -> Option<String> {
    use pg_query::protobuf::a_const::Val;
    if let Some(text) = constant_text(node) {
        return Some(text.to_owned());
    }
    match node.node.as_ref()? {
        NodeEnum::AConst(constant) => match constant.val.as_ref()? {
            Val::Ival(number) => Some(number.ival.to_string()),
            Val::Fval(number) => Some(number.fval.clone()),
            Val::Boolval(truth) => Some(truth.boolval.to_string()),
            Val::Sval(text) => Some(text.sval.clone()),
            Val::Bsval(_) => None,
        },
        _ => None,
    }
}

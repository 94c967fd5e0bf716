//! What queries and expressions want: a walk over the part of the tree that reads and writes rows.
//!
//! It names every node that it understands. A node that it does not name makes the statement opaque: a new grammar can
//! never slip something past it.

mod call;
mod expression;
mod relation;
mod sight;
mod types;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use pg_query::protobuf::{
    CmdType, CommonTableExpr, DeleteStmt, FuncCall, InsertStmt, LockingClause, MergeStmt, OnConflictClause,
    RangeVar, RuleStmt, SelectStmt, UpdateStmt, WithClause,
};
use pg_query::{Node, NodeEnum};

use sight::Sight;

use super::catalog::{Known, Relation, RelationId};
use super::session::Step;
use super::state::{Made, State};
use crate::action::{Action, Object, Verb};

/// How deep views may stand on views.
const VIEW_DEPTH_MAX: u8 = 32;

/// How much one definition may do to the session before nobody follows.
const STEPS_MAX: usize = 64;

/// How many relations one name may stand for through its family (children, parents).
const FAMILY_MAX: usize = 16_384;

/// What a statement wants, as far as it was walked.
#[derive(Debug, Clone)]
pub(super) struct Wants {
    pub(super) actions: BTreeSet<Action>,
    /// Everything so far is proven to only read.
    pub(super) proven: bool,
    /// Every name so far was found.
    pub(super) resolved: bool,
    /// It cannot be told what it does.
    pub(super) opaque: bool,
    /// The value of a constant made a difference.
    pub(super) literals: bool,
    pub(super) steps: Vec<Step>,
}

impl Wants {
    pub(super) fn nothing() -> Self {
        Self {
            actions: BTreeSet::new(),
            proven: true,
            resolved: true,
            opaque: false,
            literals: false,
            steps: Vec::new(),
        }
    }

    /// Takes over what a definition wants that the statement uses: a view's query, a rule, the check of a domain.
    pub(super) fn include(&mut self, part: &Wants) {
        self.actions.extend(part.actions.iter().cloned());
        self.proven &= part.proven;
        self.resolved &= part.resolved;
        self.opaque |= part.opaque;
        self.literals |= part.literals;
        self.follow(part, |_| true);
    }

    /// Takes over what a definition does to the session, as far as `counts`. It may never be evaluated (`WHERE false`): what was there
    /// before stays possible.
    pub(super) fn follow(&mut self, part: &Wants, counts: impl Fn(&Step) -> bool) {
        let everything = [Step::Anything];
        let steps = if part.steps.len() > STEPS_MAX { &everything[..] } else { &part.steps };
        for step in steps.iter().filter(|step| counts(step)) {
            // Each step but once: views on views name the lowest a million times.
            for step in [step, &Step::Savepoint] {
                if !self.steps.contains(step) {
                    self.steps.push(step.clone());
                }
            }
        }
    }
}

/// What a definition wants that the catalog keeps: the query of a view, an expression.
#[derive(Debug)]
pub(super) struct Below {
    wants: Wants,
}

/// What is known of an expression's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sql) enum Typed {
    /// One that ships with PostgreSQL.
    Builtin,
    /// None yet: a string constant, NULL.
    Literal,
    /// Any.
    Any,
}

/// A member of a FROM clause.
struct Source<'a> {
    alias: &'a str,
    /// The relation, where it is surely one and known.
    relation: Option<&'a Relation>,
}

/// A walk over one statement.
pub(super) struct Walk<'a> {
    pub(super) known: &'a Known,
    pub(super) state: &'a State,
    pub(super) database: &'a Arc<str>,
    pub(super) wants: Wants,
    /// Names of common table expressions that can be seen here, the innermost last.
    ctes: Vec<&'a str>,
    /// The FROM clauses around here, the innermost last.
    sources: Vec<Vec<Source<'a>>>,
    /// Relations in the order in which they were read: what `FOR UPDATE` locks.
    reads: Vec<Object>,
    view_depth: u8,
    /// It walks a view that ships with PostgreSQL, whose functions need no permission of their own.
    system: bool,
    /// Names of the two relations that a rule may use.
    in_rule: bool,
    pub(super) sight: Sight,
    /// Where the gateway itself has written.
    pub(super) written: &'a [Range<usize>],
}

impl<'a> Walk<'a> {
    pub(super) fn new(known: &'a Known, state: &'a State, database: &'a Arc<str>) -> Self {
        Self {
            known,
            state,
            database,
            wants: Wants::nothing(),
            ctes: Vec::new(),
            sources: vec![Vec::new()],
            reads: Vec::new(),
            view_depth: 0,
            system: false,
            in_rule: false,
            sight: Sight::default(),
            written: &[],
        }
    }

    pub(super) fn act(&mut self, verb: Verb, object: Object) {
        self.wants.actions.insert(Action { verb, object });
    }

    /// Does `verb` to what was read since `mark`.
    fn act_since(&mut self, verb: Verb, mark: usize) {
        let objects = self.reads[mark..].iter().cloned();
        self.wants.actions.extend(objects.map(|object| Action { verb, object }));
    }

    pub(super) fn opaque(&mut self) {
        self.wants.opaque = true;
        self.wants.proven = false;
    }

    /// A name that the catalog does not know.
    pub(super) fn unresolved(&mut self) {
        self.wants.resolved = false;
        self.opaque();
    }

    pub(super) fn database_object(&self) -> Object {
        Object::Database { database: self.database.clone() }
    }

    pub(super) fn table(&self, schema: &Arc<str>, table: &Arc<str>) -> Object {
        Object::Table { database: self.database.clone(), schema: schema.clone(), table: table.clone() }
    }

    fn relation_object(&self, id: RelationId) -> Object {
        let relation = self.known.relation(id);
        self.table(&relation.schema, &relation.name)
    }

    fn query(&mut self, node: &'a Node) {
        match node.node.as_ref() {
            Some(node) => self.row_statement(node),
            None => self.opaque(),
        }
    }

    /// A statement that reads or writes rows, or that may stand in its place in a rule.
    pub(super) fn row_statement(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::SelectStmt(select) => self.select(select),
            NodeEnum::InsertStmt(insert) => self.insert(insert),
            NodeEnum::UpdateStmt(update) => self.update(update),
            NodeEnum::DeleteStmt(delete) => self.delete(delete),
            NodeEnum::MergeStmt(merge) => self.merge(merge),
            NodeEnum::NotifyStmt(_) => self.call("pg_catalog".into(), "pg_notify".into()),
            _ => self.opaque(),
        }
    }

    /// `CALL`.
    pub(super) fn procedure(&mut self, call: &'a FuncCall) {
        self.wants.proven = false;
        self.function_call(call);
    }

    /// The condition and the actions of a rule.
    pub(super) fn rule_body(&mut self, rule: &'a RuleStmt) {
        let outside = std::mem::replace(&mut self.in_rule, true);
        self.optional(rule.where_clause.as_deref());
        for action in &rule.actions {
            self.query(action);
        }
        self.in_rule = outside;
    }

    fn with(&mut self, clause: Option<&'a WithClause>) {
        let Some(clause) = clause else { return };
        let expressions = || {
            clause.ctes.iter().filter_map(|node| match node.node.as_ref() {
                Some(NodeEnum::CommonTableExpr(cte)) => Some(&**cte),
                _ => None,
            })
        };
        if expressions().count() != clause.ctes.len() {
            self.opaque();
        }
        if clause.recursive {
            self.ctes.extend(expressions().map(|cte| cte.ctename.as_str()));
        }
        for cte in expressions() {
            self.common_table(cte);
            if !clause.recursive {
                // Before this point the name stood for a relation, also inside its own query.
                self.ctes.push(&cte.ctename);
            }
        }
    }

    fn common_table(&mut self, cte: &'a CommonTableExpr) {
        self.sources.push(Vec::new());
        if let Some(query) = cte.ctequery.as_deref() {
            self.query(query);
        }
        if cte.search_clause.is_some() || cte.cycle_clause.is_some() {
            self.operator("", "=", Typed::Any, Typed::Any);
        }
        if let Some(cycle) = &cte.cycle_clause {
            self.optional(cycle.cycle_mark_value.as_deref());
            self.optional(cycle.cycle_mark_default.as_deref());
        }
        self.sources.pop();
    }

    pub(super) fn select(&mut self, select: &'a SelectStmt) {
        let ctes = self.ctes.len();
        self.sources.push(Vec::new());
        self.with(select.with_clause.as_ref());
        let mark = self.reads.len();
        if let Some(left) = &select.larg {
            self.select(left);
        }
        if let Some(right) = &select.rarg {
            self.select(right);
        }
        for from in &select.from_clause {
            self.from(from);
        }
        self.locking(&select.locking_clause, mark);
        self.all(&select.distinct_clause);
        self.all(&select.target_list);
        self.optional(select.where_clause.as_deref());
        self.all(&select.group_clause);
        self.optional(select.having_clause.as_deref());
        self.all(&select.window_clause);
        self.all(&select.values_lists);
        self.all(&select.sort_clause);
        self.optional(select.limit_offset.as_deref());
        self.optional(select.limit_count.as_deref());
        if let Some(into) = &select.into_clause {
            self.wants.proven = false;
            match &into.rel {
                Some(relation) => self.create(relation),
                None => self.opaque(),
            }
        }
        self.sources.pop();
        self.ctes.truncate(ctes);
    }

    /// `FOR UPDATE` and its like: locks on what this FROM clause reads, whichever of it they name.
    fn locking(&mut self, clauses: &[Node], mark: usize) {
        let locks = |node: &Node| matches!(&node.node, Some(NodeEnum::LockingClause(LockingClause { .. })));
        if clauses.is_empty() {
            return;
        }
        self.wants.proven = false;
        if !clauses.iter().all(locks) {
            self.opaque();
        }
        self.act_since(Verb::Lock, mark);
    }

    fn from(&mut self, node: &'a Node) {
        match node.node.as_ref() {
            Some(NodeEnum::RangeVar(range)) => self.range(range),
            Some(NodeEnum::JoinExpr(join)) => {
                // The alias of a join hides those inside; names that are found too often only make a call more.
                self.optional_from(join.larg.as_deref());
                self.optional_from(join.rarg.as_deref());
                self.joins(join.is_natural, &join.using_clause);
                if let Some(alias) = &join.alias {
                    self.source(&alias.aliasname, None);
                }
                if join.is_natural || !join.using_clause.is_empty() {
                    self.operator("", "=", Typed::Any, Typed::Any);
                }
                self.optional(join.quals.as_deref());
            }
            Some(NodeEnum::RangeSubselect(sub)) => {
                match sub.subquery.as_deref() {
                    Some(query) => self.query(query),
                    None => self.opaque(),
                }
                self.source(sub.alias.as_ref().map_or("", |alias| &alias.aliasname), None);
            }
            Some(NodeEnum::RangeFunction(range)) => {
                for function in &range.functions {
                    // Each is a list of the call and its column definitions.
                    match function.node.as_ref() {
                        Some(NodeEnum::List(list)) => self.all_optional(&list.items),
                        _ => self.opaque(),
                    }
                }
                self.all(&range.coldeflist);
                self.source(range.alias.as_ref().map_or("", |alias| &alias.aliasname), None);
            }
            Some(NodeEnum::RangeTableFunc(table)) => {
                self.optional(table.docexpr.as_deref());
                self.optional(table.rowexpr.as_deref());
                self.all(&table.namespaces);
                self.all(&table.columns);
                self.source(table.alias.as_ref().map_or("", |alias| &alias.aliasname), None);
            }
            Some(NodeEnum::JsonTable(table)) => {
                self.json_value(table.context_item.as_deref());
                self.json_path(table.pathspec.as_deref());
                self.all(&table.passing);
                self.all(&table.columns);
                self.optional(table.on_error.as_ref().and_then(|behavior| behavior.expr.as_deref()));
                self.source(table.alias.as_ref().map_or("", |alias| &alias.aliasname), None);
            }
            Some(NodeEnum::RangeTableSample(sample)) => {
                self.optional_from(sample.relation.as_deref());
                // `bernoulli` and `system` ship with PostgreSQL; others are functions of somebody's.
                match strings(&sample.method).as_deref() {
                    Some([name] | ["pg_catalog", name]) if matches!(*name, "bernoulli" | "system") => {
                        for function in self.state.functions(self.known, "", name) {
                            self.call(function.schema.clone(), Arc::from(*name));
                        }
                    }
                    Some([name]) => self.call(Arc::from("public"), Arc::from(*name)),
                    Some([schema, name]) => self.call(Arc::from(*schema), Arc::from(*name)),
                    _ => self.opaque(),
                }
                self.all(&sample.args);
                self.optional(sample.repeatable.as_deref());
            }
            _ => self.opaque(),
        }
    }

    fn optional_from(&mut self, node: Option<&'a Node>) {
        match node {
            Some(node) => self.from(node),
            None => self.opaque(),
        }
    }

    fn source(&mut self, alias: &'a str, relation: Option<&'a Relation>) {
        if let Some(level) = self.sources.last_mut() {
            level.push(Source { alias, relation });
        }
    }

    fn range(&mut self, range: &'a RangeVar) {
        let alias = range.alias.as_ref();
        let name = alias.map_or(range.relname.as_str(), |alias| &alias.aliasname);
        let unqualified = range.schemaname.is_empty();
        if unqualified && self.ctes.contains(&range.relname.as_str()) {
            return self.source(name, None);
        }
        if self.in_rule && unqualified && matches!(&*range.relname, "old" | "new") {
            return self.source(name, None);
        }
        let mark = self.reads.len();
        let (relations, known) = (self.resolve(&range.schemaname, &range.relname), self.known);
        self.act_since(Verb::Select, mark);
        let alone = self.reads.len() == mark && relations.len() == 1;
        self.sees(range, &relations, alone);
        for &id in &relations {
            self.read(id);
        }
        let renamed = alias.is_some_and(|alias| !alias.colnames.is_empty());
        self.source(name, relations.first().filter(|_| alone && !renamed).map(|&id| known.relation(id)));
    }

    fn insert(&mut self, insert: &'a InsertStmt) {
        let ctes = self.ctes.len();
        self.sources.push(Vec::new());
        self.with(insert.with_clause.as_ref());
        self.target(Verb::Insert, insert.relation.as_ref());
        self.all(&insert.cols);
        if let Some(query) = insert.select_stmt.as_deref() {
            self.query(query);
        }
        if let Some(conflict) = insert.on_conflict_clause.as_deref() {
            self.guard(insert.relation.as_ref(), true);
            self.on_conflict(conflict, insert.relation.as_ref());
            self.unguard();
        }
        self.guard(insert.relation.as_ref(), false);
        self.returning(insert.returning_clause.as_ref(), insert.relation.as_ref());
        self.unguard();
        self.sources.pop();
        self.ctes.truncate(ctes);
    }

    fn on_conflict(&mut self, conflict: &'a OnConflictClause, relation: Option<&'a RangeVar>) {
        if let Some(infer) = conflict.infer.as_deref() {
            self.all(&infer.index_elems);
            self.optional(infer.where_clause.as_deref());
        }
        self.all(&conflict.target_list);
        self.optional(conflict.where_clause.as_deref());
        if !conflict.target_list.is_empty() {
            self.target(Verb::Update, relation);
            if conflict.where_clause.is_some() || reads_columns(&conflict.target_list) {
                self.target(Verb::Select, relation);
            }
        }
    }

    fn update(&mut self, update: &'a UpdateStmt) {
        let ctes = self.ctes.len();
        self.sources.push(Vec::new());
        self.with(update.with_clause.as_ref());
        self.guard(update.relation.as_ref(), false);
        self.target(Verb::Update, update.relation.as_ref());
        for from in &update.from_clause {
            self.from(from);
        }
        self.all(&update.target_list);
        self.optional(update.where_clause.as_deref());
        // What it finds by a condition, computes from or returns, it reads.
        if update.where_clause.is_some() || reads_columns(&update.target_list) {
            self.target(Verb::Select, update.relation.as_ref());
        }
        self.returning(update.returning_clause.as_ref(), update.relation.as_ref());
        self.unguard();
        self.sources.pop();
        self.ctes.truncate(ctes);
    }

    fn delete(&mut self, delete: &'a DeleteStmt) {
        let ctes = self.ctes.len();
        self.sources.push(Vec::new());
        self.with(delete.with_clause.as_ref());
        self.guard(delete.relation.as_ref(), false);
        self.target(Verb::Delete, delete.relation.as_ref());
        for using in &delete.using_clause {
            self.from(using);
        }
        self.optional(delete.where_clause.as_deref());
        if delete.where_clause.is_some() {
            self.target(Verb::Select, delete.relation.as_ref());
        }
        self.returning(delete.returning_clause.as_ref(), delete.relation.as_ref());
        self.unguard();
        self.sources.pop();
        self.ctes.truncate(ctes);
    }

    fn merge(&mut self, merge: &'a MergeStmt) {
        let ctes = self.ctes.len();
        self.sources.push(Vec::new());
        self.with(merge.with_clause.as_ref());
        self.guard(merge.relation.as_ref(), false);
        self.target(Verb::Select, merge.relation.as_ref());
        self.optional_from(merge.source_relation.as_deref());
        self.optional(merge.join_condition.as_deref());
        for node in &merge.merge_when_clauses {
            let Some(NodeEnum::MergeWhenClause(when)) = node.node.as_ref() else {
                self.opaque();
                continue;
            };
            match CmdType::try_from(when.command_type) {
                Ok(CmdType::CmdInsert) => self.target(Verb::Insert, merge.relation.as_ref()),
                Ok(CmdType::CmdUpdate) => self.target(Verb::Update, merge.relation.as_ref()),
                Ok(CmdType::CmdDelete) => self.target(Verb::Delete, merge.relation.as_ref()),
                Ok(CmdType::CmdNothing) => {}
                _ => self.opaque(),
            }
            self.optional(when.condition.as_deref());
            self.all(&when.target_list);
            self.all(&when.values);
        }
        self.returning(merge.returning_clause.as_ref(), merge.relation.as_ref());
        self.unguard();
        self.wants.proven = false;
        self.sources.pop();
        self.ctes.truncate(ctes);
    }

    /// The relation that a statement writes to, and then as a member of its FROM clause.
    fn target(&mut self, verb: Verb, range: Option<&'a RangeVar>) {
        let Some(range) = range else { return self.opaque() };
        self.on_relation(verb, range);
        let alias = range.alias.as_ref().map_or(range.relname.as_str(), |alias| &alias.aliasname);
        let (found, known) = (self.state.resolve(self.known, &range.schemaname, &range.relname), self.known);
        let relation = match &found.relations[..] {
            [one] if !found.temporary && found.made.is_empty() => Some(known.relation(*one)),
            _ => None,
        };
        self.source(alias, relation);
        for special in ["excluded", "old", "new"] {
            self.source(special, relation);
        }
    }

    fn returning(
        &mut self,
        clause: Option<&'a pg_query::protobuf::ReturningClause>,
        range: Option<&'a RangeVar>,
    ) {
        let Some(clause) = clause else { return };
        self.target(Verb::Select, range);
        if !clause.options.is_empty() {
            // `WITH (OLD AS o)`: further names of the whole row.
            self.exposes_guarded();
        }
        self.all(&clause.exprs);
    }

    /// Names a relation that does not exist yet.
    pub(super) fn create(&mut self, range: &RangeVar) {
        let name: Arc<str> = Arc::from(range.relname.as_str());
        if range.relpersistence == "t" || range.schemaname.starts_with("pg_temp") {
            let object = self.table(&Arc::from("pg_temp"), &name);
            self.act(Verb::Create, object);
            self.wants.steps.push(Step::Made(name, Made::Temporary));
            return;
        }
        for schema in self.creation_schemas(&range.schemaname) {
            match schema {
                Some(schema) => {
                    let object = self.table(&schema, &name);
                    self.act(Verb::Create, object);
                    self.wants.steps.push(Step::Made(name.clone(), Made::In(schema)));
                }
                None => {
                    let object = self.database_object();
                    self.act(Verb::Create, object);
                    self.wants.steps.push(Step::Made(name.clone(), Made::Somewhere));
                }
            }
        }
    }

    /// The schemas in which an object of that qualification would be made; none where it cannot be told.
    pub(super) fn creation_schemas(&self, schema: &str) -> Vec<Option<Arc<str>>> {
        if schema.is_empty() {
            self.state.creation_schemas(self.known)
        } else {
            vec![Some(Arc::from(schema))]
        }
    }
}

/// A new value of a setting.
pub(super) enum Setting<'a> {
    Text(&'a str),
    Names(Arc<[Arc<str>]>),
    Default,
    Unknown,
}

fn typed(type_oid: u32) -> Typed {
    if Known::type_is_builtin(type_oid) { Typed::Builtin } else { Typed::Any }
}

fn join(types: &[Typed]) -> Typed {
    if types.contains(&Typed::Any) {
        Typed::Any
    } else if types.contains(&Typed::Builtin) {
        Typed::Builtin
    } else {
        Typed::Literal
    }
}

/// The strings of a list, if it holds nothing else.
pub(super) fn strings(nodes: &[Node]) -> Option<Vec<&str>> {
    nodes
        .iter()
        .map(|node| match node.node.as_ref() {
            Some(NodeEnum::String(string)) => Some(string.sval.as_str()),
            _ => None,
        })
        .collect()
}

/// A string constant, under casts too.
pub(super) fn constant_text(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::AConst(constant) => match constant.val.as_ref()? {
            pg_query::protobuf::a_const::Val::Sval(text) => Some(&text.sval),
            _ => None,
        },
        NodeEnum::TypeCast(cast) => constant_text(cast.arg.as_deref()?),
        _ => None,
    }
}

fn constant_truth(node: &Node) -> Option<bool> {
    match node.node.as_ref()? {
        NodeEnum::AConst(constant) => match constant.val.as_ref()? {
            pg_query::protobuf::a_const::Val::Boolval(value) => Some(value.boolval),
            pg_query::protobuf::a_const::Val::Sval(text) => truth(&text.sval),
            _ => None,
        },
        NodeEnum::TypeCast(cast) => constant_truth(cast.arg.as_deref()?),
        _ => None,
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "t" | "yes" | "y" | "1" => Some(true),
        "off" | "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

fn is_utf8(encoding: &str) -> bool {
    let letters: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect();
    matches!(letters.to_ascii_lowercase().as_str(), "utf8" | "unicode")
}

/// Whether assignments compute from anything else than constants and parameters.
fn reads_columns(targets: &[Node]) -> bool {
    let plain = |node: &Node| match node.node.as_ref() {
        Some(NodeEnum::ResTarget(target)) => target.val.as_deref().is_none_or(|value| {
            matches!(
                value.node,
                Some(NodeEnum::AConst(_) | NodeEnum::ParamRef(_) | NodeEnum::SetToDefault(_))
            )
        }),
        _ => false,
    };
    !targets.iter().all(plain)
}

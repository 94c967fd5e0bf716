//! What queries and expressions want: a walk over the part of the tree that reads and writes rows.
//!
//! It names every node that it understands. A node that it does not name makes the statement opaque: a new grammar can
//! never slip something past it.

use std::collections::BTreeSet;
use std::sync::Arc;

use pg_query::protobuf::{
    AExprKind, AIndirection, CmdType, ColumnRef, CommonTableExpr, DeleteStmt, FuncCall, InsertStmt,
    LockingClause, MergeStmt, OnConflictClause, RangeVar, RuleStmt, SelectStmt, SubLinkType, TypeName,
    UpdateStmt, WindowDef, WithClause,
};
use pg_query::{Node, NodeEnum};

use super::catalog::{Column, Kind, Known, Relation, RelationId};
use super::session::{Step, Value};
use super::state::{Made, State};
use super::{names, parse, purity, setting};
use crate::action::{Action, Object, Verb};

/// How deep views may stand on views.
const VIEW_DEPTH_MAX: u8 = 32;

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

    /// Takes over what a part wants, but for what it does to the session.
    pub(super) fn include(&mut self, part: &Wants) {
        self.actions.extend(part.actions.iter().cloned());
        self.proven &= part.proven;
        self.resolved &= part.resolved;
        self.opaque |= part.opaque;
        self.literals |= part.literals;
    }
}

/// What lies below a view.
#[derive(Debug)]
pub(super) struct Below {
    wants: Wants,
}

/// What is known of an expression's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Typed {
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

    // ---- relations -------------------------------------------------------------------------------------------------

    /// The relations that a name can stand for in the states that are possible now. What cannot be found is marked.
    pub(super) fn resolve(&mut self, schema: &str, name: &str) -> Vec<RelationId> {
        let found = self.state.resolve(self.known, schema, name);
        if found.temporary {
            self.wants.proven = false;
            let object = self.table(&Arc::from("pg_temp"), &Arc::from(name));
            self.reads.push(object);
        }
        for made in &found.made {
            self.wants.proven = false;
            let object = self.table(made, &Arc::from(name));
            self.reads.push(object);
        }
        if found.unresolved {
            self.unresolved();
        }
        found.relations
    }

    /// Does `verb` to whatever a name can stand for; `within` also reads what lies below views.
    pub(super) fn on_relation(&mut self, verb: Verb, range: &RangeVar) {
        let mark = self.reads.len();
        let relations = self.resolve(&range.schemaname, &range.relname);
        self.act_since(verb, mark);
        for id in relations {
            match verb {
                Verb::Select => self.read(id),
                Verb::Insert | Verb::Update | Verb::Delete | Verb::Truncate => self.write(verb, id),
                _ => {
                    for member in self.family(id) {
                        let object = self.relation_object(member);
                        self.act(verb, object);
                    }
                }
            }
        }
        if verb != Verb::Select {
            self.wants.proven = false;
        }
    }

    /// A relation, its children with theirs, and its parents with theirs.
    fn family(&mut self, id: RelationId) -> Vec<RelationId> {
        let relation = self.known.relation(id);
        let mut family = vec![id];
        if relation.children.is_empty() && relation.parents.is_empty() {
            return family;
        }
        for down in [true, false] {
            let mut next = 0;
            let mut line = vec![id];
            while let Some(&member) = line.get(next) {
                let member = self.known.relation(member);
                let more = if down { &member.children } else { &member.parents };
                for &more in more {
                    if !line.contains(&more) || line.len() < 64 {
                        line.push(more);
                    }
                }
                next += 1;
                if line.len() > FAMILY_MAX {
                    self.opaque();
                    break;
                }
            }
            family.extend(&line[1..]);
        }
        family
    }

    fn read(&mut self, id: RelationId) {
        for member in self.family(id) {
            let relation = self.known.relation(member);
            let object = self.relation_object(member);
            if !relation.system {
                self.reads.push(object.clone());
            }
            self.act(Verb::Select, object);
            self.wants.proven &= relation.inert;
            self.odd_columns(relation);
            match relation.kind {
                Kind::View => {
                    let below = self.below(member);
                    self.wants.include(&below.wants);
                    let tables = below.wants.actions.iter().filter(|action| action.verb == Verb::Select);
                    self.reads.extend(tables.map(|action| action.object.clone()));
                }
                Kind::MaterializedView => {
                    // Its rows are stored: its query shows what they tell, and does not run.
                    let below = self.below(member);
                    self.wants.opaque |= below.wants.opaque;
                    self.wants.resolved &= below.wants.resolved;
                    let tables = below.wants.actions.iter().filter(|action| action.verb == Verb::Select);
                    self.wants.actions.extend(tables.cloned());
                }
                Kind::Table | Kind::Foreign | Kind::Sequence | Kind::Index => {}
            }
        }
    }

    /// Casts that the server may apply unasked to columns of types that somebody added.
    fn odd_columns(&mut self, relation: &Relation) {
        let odd = |column: &&Column| !Known::type_is_builtin(column.type_oid);
        for column in relation.columns.iter().filter(odd) {
            for cast in self.known.casts_from(column.type_oid) {
                if let (Some((schema, function)), false) = (&cast.function, cast.computes) {
                    self.call(schema.clone(), function.clone());
                }
            }
        }
    }

    /// What lies below a view, found once for each snapshot.
    fn below(&mut self, id: RelationId) -> Arc<Below> {
        let relation = self.known.relation(id);
        if let Some(below) = relation.below.get() {
            return below.clone();
        }
        if self.view_depth >= VIEW_DEPTH_MAX {
            let mut wants = Wants::nothing();
            (wants.opaque, wants.proven) = (true, false);
            return Arc::new(Below { wants });
        }
        let parsed =
            relation.definition.as_deref().and_then(|text| parse::parse(text, parse::Strings::Standard).ok());
        let state = State::of_definitions();
        let mut walk = Walk::new(self.known, &state, self.database);
        walk.view_depth = self.view_depth + 1;
        walk.system = relation.system;
        match parsed.as_ref().map(|tree| &tree.stmts[..]) {
            Some([statement]) => match statement.stmt.as_ref().and_then(|node| node.node.as_ref()) {
                Some(NodeEnum::SelectStmt(select)) => walk.select(select),
                _ => walk.opaque(),
            },
            // Its owner's definition is unknown, but a view that ships with PostgreSQL reads catalogs alone.
            _ => walk.opaque(),
        }
        let mut wants = walk.wants;
        if relation.system {
            (wants.opaque, wants.proven, wants.resolved) = (false, true, true);
        }
        wants.literals = false;
        wants.steps.clear();
        relation.below.get_or_init(|| Arc::new(Below { wants })).clone()
    }

    /// Writes to a relation: to what lies below a view as well, and to what its rules name.
    fn write(&mut self, verb: Verb, id: RelationId) {
        self.wants.proven = false;
        for member in self.family(id) {
            let relation = self.known.relation(member);
            let object = self.relation_object(member);
            self.act(verb, object);
            if relation.has_triggers {
                self.wants.steps.push(Step::Path(Value::Unknown));
            }
            if matches!(relation.kind, Kind::View) {
                let below = self.below(member);
                self.wants.include(&below.wants);
                for action in below.wants.actions.iter().filter(|action| action.verb == Verb::Select) {
                    self.act(verb, action.object.clone());
                }
            }
            if self.view_depth < VIEW_DEPTH_MAX {
                for rule in &relation.rules {
                    self.rule(rule);
                }
            }
        }
    }

    /// What a rewrite rule does, whichever event it is for.
    fn rule(&mut self, text: &str) {
        let Ok(tree) = parse::parse(text, parse::Strings::Standard) else { return self.opaque() };
        let state = State::of_definitions();
        let mut walk = Walk::new(self.known, &state, self.database);
        walk.view_depth = self.view_depth + 1;
        let statement =
            tree.stmts.first().and_then(|raw| raw.stmt.as_ref()).and_then(|node| node.node.as_ref());
        let Some(NodeEnum::RuleStmt(rule)) = statement else { return self.opaque() };
        walk.rule_body(rule);
        let wants = walk.wants;
        self.wants.include(&wants);
    }

    // ---- queries ---------------------------------------------------------------------------------------------------

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
            self.on_conflict(conflict, insert.relation.as_ref());
        }
        self.returning(insert.returning_clause.as_ref(), insert.relation.as_ref());
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
        self.sources.pop();
        self.ctes.truncate(ctes);
    }

    fn delete(&mut self, delete: &'a DeleteStmt) {
        let ctes = self.ctes.len();
        self.sources.push(Vec::new());
        self.with(delete.with_clause.as_ref());
        self.target(Verb::Delete, delete.relation.as_ref());
        for using in &delete.using_clause {
            self.from(using);
        }
        self.optional(delete.where_clause.as_deref());
        if delete.where_clause.is_some() {
            self.target(Verb::Select, delete.relation.as_ref());
        }
        self.returning(delete.returning_clause.as_ref(), delete.relation.as_ref());
        self.sources.pop();
        self.ctes.truncate(ctes);
    }

    fn merge(&mut self, merge: &'a MergeStmt) {
        let ctes = self.ctes.len();
        self.sources.push(Vec::new());
        self.with(merge.with_clause.as_ref());
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

    // ---- expressions -----------------------------------------------------------------------------------------------

    pub(super) fn all(&mut self, nodes: &'a [Node]) {
        for node in nodes {
            self.expression(node);
        }
    }

    /// A list that may have holes.
    fn all_optional(&mut self, nodes: &'a [Node]) {
        for node in nodes.iter().filter(|node| node.node.is_some()) {
            self.expression(node);
        }
    }

    pub(super) fn optional(&mut self, node: Option<&'a Node>) {
        if let Some(node) = node {
            self.expression(node);
        }
    }

    fn types(&mut self, nodes: &'a [Node]) -> Vec<Typed> {
        nodes.iter().map(|node| self.expression(node)).collect()
    }

    fn expression(&mut self, node: &'a Node) -> Typed {
        let Some(node) = node.node.as_ref() else {
            // An empty place in a list: `a[:2]`, `DEFAULT` of a cycle.
            return Typed::Literal;
        };
        match node {
            NodeEnum::AConst(constant) => match constant.val {
                Some(pg_query::protobuf::a_const::Val::Sval(_)) | None => Typed::Literal,
                Some(_) => Typed::Builtin,
            },
            NodeEnum::ColumnRef(column) => self.column(column),
            NodeEnum::ParamRef(_) => Typed::Any,
            NodeEnum::AExpr(_) | NodeEnum::AIndirection(_) | NodeEnum::SubLink(_) | NodeEnum::CaseExpr(_) => {
                self.compound(node)
            }
            NodeEnum::TypeCast(cast) => {
                let from = cast.arg.as_deref().map_or(Typed::Any, |arg| self.expression(arg));
                self.type_name_from(cast.type_name.as_ref(), from)
            }
            NodeEnum::FuncCall(call) => self.function_call(call),
            NodeEnum::BoolExpr(expression) => {
                self.all(&expression.args);
                Typed::Builtin
            }
            NodeEnum::NullTest(test) => {
                self.optional(test.arg.as_deref());
                Typed::Builtin
            }
            NodeEnum::BooleanTest(test) => {
                self.optional(test.arg.as_deref());
                Typed::Builtin
            }
            NodeEnum::CoalesceExpr(expression) => join(&self.types(&expression.args)),
            NodeEnum::MinMaxExpr(expression) => join(&self.types(&expression.args)),
            NodeEnum::RowExpr(row) => {
                self.all(&row.args);
                Typed::Any
            }
            NodeEnum::AArrayExpr(array) => join(&self.types(&array.elements)),
            NodeEnum::CollateClause(clause) => match clause.arg.as_deref() {
                Some(arg) => self.expression(arg),
                None => Typed::Any,
            },
            NodeEnum::SqlvalueFunction(_) | NodeEnum::MergeSupportFunc(_) => Typed::Builtin,
            NodeEnum::GroupingFunc(grouping) => {
                self.all(&grouping.args);
                Typed::Builtin
            }
            NodeEnum::NamedArgExpr(named) => {
                self.optional(named.arg.as_deref());
                Typed::Any
            }
            NodeEnum::ResTarget(target) => {
                self.all(&target.indirection);
                self.optional(target.val.as_deref());
                Typed::Any
            }
            NodeEnum::List(list) => join(&self.types(&list.items)),
            NodeEnum::SetToDefault(_)
            | NodeEnum::AStar(_)
            | NodeEnum::String(_)
            | NodeEnum::CurrentOfExpr(_) => Typed::Any,
            other => {
                self.clause(other);
                Typed::Any
            }
        }
    }

    /// Expressions that hold others and operators.
    fn compound(&mut self, node: &'a NodeEnum) -> Typed {
        match node {
            NodeEnum::AExpr(expression) => self.operation(expression),
            NodeEnum::AIndirection(indirection) => self.indirection(indirection),
            NodeEnum::SubLink(link) => {
                let test = link.testexpr.as_deref().map(|test| self.expression(test));
                match link.subselect.as_deref() {
                    Some(query) => self.query(query),
                    None => self.opaque(),
                }
                if let Some(test) = test {
                    match strings(&link.oper_name).as_deref() {
                        Some([]) => self.operator("", "=", test, Typed::Any),
                        Some([name]) => self.operator("", name, test, Typed::Any),
                        Some([schema, name]) => self.operator(schema, name, test, Typed::Any),
                        _ => self.opaque(),
                    }
                }
                match SubLinkType::try_from(link.sub_link_type) {
                    Ok(SubLinkType::ExistsSublink | SubLinkType::AllSublink | SubLinkType::AnySublink) => {
                        Typed::Builtin
                    }
                    _ => Typed::Any,
                }
            }
            NodeEnum::CaseExpr(case) => {
                let tested = case.arg.as_deref().map(|arg| self.expression(arg));
                let mut results = Vec::new();
                for when in &case.args {
                    let Some(NodeEnum::CaseWhen(when)) = when.node.as_ref() else {
                        self.opaque();
                        continue;
                    };
                    let condition = when.expr.as_deref().map_or(Typed::Any, |expr| self.expression(expr));
                    if let Some(tested) = tested {
                        self.operator("", "=", tested, condition);
                    }
                    results.push(when.result.as_deref().map_or(Typed::Any, |result| self.expression(result)));
                }
                if let Some(otherwise) = case.defresult.as_deref() {
                    results.push(self.expression(otherwise));
                }
                join(&results)
            }
            _ => Typed::Any,
        }
    }

    fn operation(&mut self, expression: &'a pg_query::protobuf::AExpr) -> Typed {
        let left = expression.lexpr.as_deref().map_or(Typed::Builtin, |left| self.expression(left));
        let right = expression.rexpr.as_deref().map_or(Typed::Builtin, |right| self.expression(right));
        let name = strings(&expression.name);
        let (schema, name) = match name.as_deref() {
            Some([name]) => ("", *name),
            Some([schema, name]) => (*schema, *name),
            _ => {
                self.opaque();
                return Typed::Any;
            }
        };
        match AExprKind::try_from(expression.kind) {
            Ok(
                AExprKind::AexprBetween
                | AExprKind::AexprNotBetween
                | AExprKind::AexprBetweenSym
                | AExprKind::AexprNotBetweenSym,
            ) => {
                for name in ["<", "<=", ">", ">="] {
                    self.operator("", name, left, right);
                }
            }
            Ok(
                AExprKind::AexprOp
                | AExprKind::AexprOpAny
                | AExprKind::AexprOpAll
                | AExprKind::AexprDistinct
                | AExprKind::AexprNotDistinct
                | AExprKind::AexprNullif
                | AExprKind::AexprIn
                | AExprKind::AexprLike
                | AExprKind::AexprIlike
                | AExprKind::AexprSimilar,
            ) => self.operator(schema, name, left, right),
            _ => self.opaque(),
        }
        match (left, right) {
            (Typed::Any, _) | (_, Typed::Any) => Typed::Any,
            _ => Typed::Builtin,
        }
    }

    /// Parts of queries that stand where expressions do.
    fn clause(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::SortBy(sort) => {
                let typed = sort.node.as_deref().map_or(Typed::Any, |node| self.expression(node));
                match strings(&sort.use_op).as_deref() {
                    Some([]) => {}
                    Some([name]) => self.operator("", name, typed, typed),
                    Some([schema, name]) => self.operator(schema, name, typed, typed),
                    _ => self.opaque(),
                }
            }
            NodeEnum::WindowDef(window) => self.window(window),
            NodeEnum::GroupingSet(set) => self.all(&set.content),
            NodeEnum::AIndices(indices) => {
                self.optional(indices.lidx.as_deref());
                self.optional(indices.uidx.as_deref());
            }
            NodeEnum::MultiAssignRef(assign) => self.optional(assign.source.as_deref()),
            NodeEnum::IndexElem(element) => {
                self.optional(element.expr.as_deref());
            }
            NodeEnum::ColumnDef(column) => {
                self.type_name(column.type_name.as_ref());
                self.optional(column.raw_default.as_deref());
            }
            NodeEnum::TypeName(name) => {
                self.type_name(Some(name));
            }
            NodeEnum::XmlExpr(xml) => {
                self.all(&xml.named_args);
                self.all_optional(&xml.args);
            }
            NodeEnum::XmlSerialize(xml) => {
                self.optional(xml.expr.as_deref());
                self.type_name(xml.type_name.as_ref());
            }
            NodeEnum::RangeTableFuncCol(column) => {
                self.type_name_unless_ordinality(column.type_name.as_ref());
                self.optional(column.colexpr.as_deref());
                self.optional(column.coldefexpr.as_deref());
            }
            _ => self.json(node),
        }
    }

    /// The SQL/JSON constructors and queries: built into the grammar, they call nothing by name.
    fn json(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::JsonFuncExpr(json) => {
                self.json_value(json.context_item.as_deref());
                self.optional(json.pathspec.as_deref());
                self.all(&json.passing);
                self.json_output(json.output.as_ref());
                for behavior in [&json.on_empty, &json.on_error].into_iter().flatten() {
                    self.optional(behavior.expr.as_deref());
                }
            }
            NodeEnum::JsonValueExpr(value) => self.json_value(Some(value)),
            NodeEnum::JsonArgument(argument) => self.json_value(argument.val.as_deref()),
            NodeEnum::JsonKeyValue(pair) => {
                self.optional(pair.key.as_deref());
                self.json_value(pair.value.as_deref());
            }
            NodeEnum::JsonIsPredicate(test) => self.optional(test.expr.as_deref()),
            NodeEnum::JsonParseExpr(json) => {
                self.json_value(json.expr.as_deref());
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonScalarExpr(json) => {
                self.optional(json.expr.as_deref());
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonSerializeExpr(json) => {
                self.json_value(json.expr.as_deref());
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonObjectConstructor(json) => {
                self.all(&json.exprs);
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonArrayConstructor(json) => {
                self.all(&json.exprs);
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonArrayQueryConstructor(json) => {
                match json.query.as_deref() {
                    Some(query) => self.query(query),
                    None => self.opaque(),
                }
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonObjectAgg(json) => {
                self.json_aggregate(json.constructor.as_deref());
                if let Some(pair) = json.arg.as_deref() {
                    self.optional(pair.key.as_deref());
                    self.json_value(pair.value.as_deref());
                }
            }
            NodeEnum::JsonArrayAgg(json) => {
                self.json_aggregate(json.constructor.as_deref());
                self.json_value(json.arg.as_deref());
            }
            NodeEnum::JsonTableColumn(column) => {
                self.type_name_unless_ordinality(column.type_name.as_ref());
                self.json_path(column.pathspec.as_deref());
                self.all(&column.columns);
                for behavior in [&column.on_empty, &column.on_error].into_iter().flatten() {
                    self.optional(behavior.expr.as_deref());
                }
            }
            NodeEnum::JsonTablePathSpec(path) => self.json_path(Some(path)),
            _ => self.opaque(),
        }
    }

    fn json_value(&mut self, value: Option<&'a pg_query::protobuf::JsonValueExpr>) {
        if let Some(value) = value {
            self.optional(value.raw_expr.as_deref());
        }
    }

    fn json_path(&mut self, path: Option<&'a pg_query::protobuf::JsonTablePathSpec>) {
        if let Some(path) = path {
            self.optional(path.string.as_deref());
        }
    }

    fn json_output(&mut self, output: Option<&'a pg_query::protobuf::JsonOutput>) {
        if let Some(output) = output {
            self.type_name_unless_ordinality(output.type_name.as_ref());
        }
    }

    fn json_aggregate(&mut self, constructor: Option<&'a pg_query::protobuf::JsonAggConstructor>) {
        let Some(constructor) = constructor else { return };
        self.json_output(constructor.output.as_ref());
        self.optional(constructor.agg_filter.as_deref());
        self.all(&constructor.agg_order);
        if let Some(window) = constructor.over.as_deref() {
            self.window(window);
        }
    }

    fn window(&mut self, window: &'a WindowDef) {
        self.all(&window.partition_clause);
        self.all(&window.order_clause);
        self.optional(window.start_offset.as_deref());
        self.optional(window.end_offset.as_deref());
    }

    // ---- names in expressions --------------------------------------------------------------------------------------

    /// `column`, `alias.column`, and `alias.function`, which is a call.
    fn column(&mut self, column: &'a ColumnRef) -> Typed {
        let mut fields = Vec::with_capacity(column.fields.len());
        for field in &column.fields {
            match field.node.as_ref() {
                Some(NodeEnum::String(name)) => fields.push(name.sval.as_str()),
                Some(NodeEnum::AStar(_)) => return Typed::Any,
                _ => {
                    self.opaque();
                    return Typed::Any;
                }
            }
        }
        match fields[..] {
            [name] => self.column_type(name),
            [.., alias, name] => {
                let source = self.sources.iter().rev().flatten().find(|source| source.alias == alias);
                let relation = source.and_then(|source| source.relation);
                if let Some(column) = relation.and_then(|relation| relation.column(name)) {
                    return typed(column.type_oid);
                }
                self.field(name);
                Typed::Any
            }
            [] => Typed::Any,
        }
    }

    /// The type of an unqualified column, where it surely is one of these.
    fn column_type(&self, name: &str) -> Typed {
        for level in self.sources.iter().rev() {
            let mut found = None;
            for source in level {
                let Some(relation) = source.relation else { return Typed::Any };
                match relation.column(name) {
                    Some(column) if Known::type_is_builtin(column.type_oid) => found = Some(Typed::Builtin),
                    Some(_) => return Typed::Any,
                    None => {}
                }
            }
            if let Some(found) = found {
                return found;
            }
        }
        Typed::Any
    }

    /// A field of a row that is not known to be a column: it may be a function of the row.
    fn field(&mut self, name: &'a str) {
        let known = self.known;
        let calls = known.functions_named(name).iter().any(|function| function.takes_one);
        if calls || self.state.has_made_function(name) || (known.is_builtin(name) && !purity::is_pure(name)) {
            self.function("", name, &[Typed::Any], true);
        }
    }

    fn indirection(&mut self, indirection: &'a AIndirection) -> Typed {
        self.optional(indirection.arg.as_deref());
        for part in &indirection.indirection {
            match part.node.as_ref() {
                Some(NodeEnum::String(name)) => self.field(&name.sval),
                Some(NodeEnum::AIndices(_) | NodeEnum::AStar(_)) => {
                    self.expression(part);
                }
                _ => self.opaque(),
            }
        }
        Typed::Any
    }

    /// An operator: those that ship with PostgreSQL are pure, others are calls of their functions.
    fn operator(&mut self, schema: &str, name: &str, left: Typed, right: Typed) {
        if self.state.has_made_operator(name) {
            self.opaque();
        }
        let known = self.known;
        let fixed = !known.has_implicit_cast_from_builtin();
        for operator in self.state.operators(known, schema, name) {
            let excluded = |typed: Typed, oid: u32| {
                fixed && typed == Typed::Builtin && oid != 0 && !Known::type_is_builtin(oid)
            };
            if excluded(left, operator.left) || excluded(right, operator.right) {
                continue;
            }
            self.wants.proven = false;
            if !operator.computes {
                self.call(operator.function_schema.clone(), operator.function.clone());
            }
        }
        self.loose_casts();
    }

    /// Casts from types that ship with PostgreSQL which the server applies unasked.
    fn loose_casts(&mut self) {
        let known = self.known;
        if !known.has_implicit_cast_from_builtin() {
            return;
        }
        for cast in known.loose_casts() {
            self.wants.proven = false;
            if let (Some((schema, function)), false) = (&cast.function, cast.computes) {
                self.call(schema.clone(), function.clone());
            }
        }
    }

    fn function_call(&mut self, call: &'a FuncCall) -> Typed {
        let types = self.types(&call.args);
        self.all(&call.agg_order);
        self.optional(call.agg_filter.as_deref());
        if let Some(window) = call.over.as_deref() {
            self.window(window);
        }
        let name = strings(&call.funcname);
        let (schema, name) = match name.as_deref() {
            Some([name]) => ("", *name),
            Some([schema, name]) => (*schema, *name),
            Some([_, schema, name]) => (*schema, *name),
            _ => {
                self.opaque();
                return Typed::Any;
            }
        };
        let named = call.args.iter().any(|arg| matches!(arg.node, Some(NodeEnum::NamedArgExpr(_))))
            || call.func_variadic;
        let only_builtin =
            if matches!(schema, "" | "pg_catalog") && matches!(name, "nextval" | "setval" | "set_config") {
                self.special(schema, name, call)
            } else {
                self.function(schema, name, if named { &[] } else { &types }, types.len() == 1)
            };
        if only_builtin && types.iter().all(|typed| *typed != Typed::Any) {
            Typed::Builtin
        } else {
            Typed::Any
        }
    }

    /// A call by name; whether only functions that ship with PostgreSQL can be meant.
    fn function(&mut self, schema: &str, name: &str, types: &[Typed], one: bool) -> bool {
        if self.state.has_made_function(name) {
            self.opaque();
        }
        let known = self.known;
        let fixed = !known.has_implicit_cast_from_builtin();
        let mut found = false;
        for function in self.state.functions(known, schema, name) {
            let excluded = types
                .iter()
                .zip(&function.arguments)
                .any(|(typed, oid)| fixed && *typed == Typed::Builtin && !Known::type_is_builtin(*oid));
            if excluded {
                continue;
            }
            found = true;
            self.wants.proven = false;
            if !function.computes {
                self.call(function.schema.clone(), Arc::from(name));
            }
        }
        self.loose_casts();
        if schema == "information_schema" && name.starts_with("_pg_") && !found {
            return true;
        }
        if matches!(schema, "" | "pg_catalog") && known.is_builtin(name) {
            self.builtin(name);
            return !found;
        }
        if !found {
            self.no_function(schema, name, one);
        }
        false
    }

    fn builtin(&mut self, name: &str) {
        if purity::is_pure(name) {
            return;
        }
        self.wants.proven = false;
        if purity::is_harmless(name) {
            return;
        }
        if !self.system {
            self.call("pg_catalog".into(), Arc::from(name));
            if purity::runs_values(name) {
                self.opaque();
            }
        }
    }

    /// Where no function has the name, it can be a type (a cast) or a column of a row.
    fn no_function(&mut self, schema: &str, name: &str, one: bool) {
        let known = self.known;
        if one && self.type_named(schema, name, Typed::Any) {
            return;
        }
        let column = |source: &Source<'_>| source.relation.is_some_and(|relation| relation.has_column(name));
        if one
            && schema.is_empty()
            && self.sources.iter().flatten().any(column)
            && known.functions_named(name).is_empty()
        {
            return;
        }
        if known.server_version != 0 && purity::is_pure(name) && matches!(schema, "" | "pg_catalog") {
            // Another version has it: here the call fails.
            return;
        }
        self.wants.proven = false;
        self.unresolved();
        let schema = if schema.is_empty() { "public" } else { schema };
        self.call(Arc::from(schema), Arc::from(name));
    }

    /// A call of something that is not pure. What it does to the session nobody knows: another search path is possible.
    pub(super) fn call(&mut self, schema: Arc<str>, function: Arc<str>) {
        self.wants.proven = false;
        if self.system {
            return;
        }
        if &*schema != "pg_catalog" {
            self.wants.steps.push(Step::Path(Value::Unknown));
        }
        let object = Object::Function { database: self.database.clone(), schema, function };
        self.act(Verb::Call, object);
    }

    /// `nextval`, `setval` and `set_config`: what they do depends on their constants.
    fn special(&mut self, schema: &str, name: &str, call: &'a FuncCall) -> bool {
        self.wants.literals = true;
        self.wants.proven = false;
        let known = self.known;
        for function in self.state.functions(known, schema, name) {
            self.call(function.schema.clone(), Arc::from(name));
        }
        if name == "set_config" {
            self.set_config(call);
            return true;
        }
        let sequence = call.args.first().and_then(constant_text).and_then(names::qualified);
        match sequence {
            Some((schema, sequence)) => {
                let range = RangeVar {
                    schemaname: schema.unwrap_or_default(),
                    relname: sequence,
                    ..RangeVar::default()
                };
                self.on_relation(Verb::Advance, &range);
            }
            None => {
                let object = self.database_object();
                self.act(Verb::Advance, object);
            }
        }
        true
    }

    fn set_config(&mut self, call: &'a FuncCall) {
        let name = call.args.first().and_then(constant_text).map(setting::fold);
        let value = call.args.get(1).and_then(constant_text);
        let local = match call.args.get(2).map(constant_truth) {
            Some(Some(local)) => local,
            // Both are possible; what outlives the transaction is the wider.
            _ => false,
        };
        match name {
            Some(name) => {
                self.setting(&name, value.map_or(Setting::Unknown, Setting::Text), local);
                // It may never be evaluated (`WHERE false`): what was there before stays possible.
                self.wants.steps.push(Step::Savepoint);
            }
            None => {
                let object = Object::Setting { database: self.database.clone(), setting: "unknown".into() };
                self.act(Verb::Set, object);
                self.wants.steps.push(Step::Anything);
                self.opaque();
            }
        }
    }

    /// A setting is given a value.
    pub(super) fn setting(&mut self, name: &str, value: Setting<'_>, local: bool) {
        self.wants.literals = true;
        match name {
            "search_path" => {
                let value = match value {
                    Setting::Text(text) => super::catalog::split_path(text).map_or(Value::Unknown, Value::Is),
                    Setting::Names(names) => Value::Is(names),
                    Setting::Default => Value::Default,
                    Setting::Unknown => Value::Unknown,
                };
                self.wants.steps.push(if local { Step::LocalPath(value) } else { Step::Path(value) });
            }
            "standard_conforming_strings" => self.wants.steps.push(Step::Strings),
            "backslash_quote" => {}
            "client_encoding" | "names" => {
                let utf8 = match value {
                    Setting::Text(text) => is_utf8(text),
                    Setting::Names(names) => names.iter().all(|name| is_utf8(name)) && names.len() == 1,
                    Setting::Default | Setting::Unknown => false,
                };
                if !utf8 {
                    self.opaque();
                }
            }
            "role" | "session_authorization" => {
                let role = match value {
                    Setting::Text(text) => Some(text.to_owned()),
                    Setting::Names(names) if names.len() == 1 => Some(names[0].to_string()),
                    Setting::Default => Some("none".to_owned()),
                    _ => None,
                };
                self.wants.proven = false;
                match role {
                    Some(role) => self.login(&role),
                    None => {
                        self.wants.steps.push(Step::Role(None));
                        self.opaque();
                    }
                }
            }
            _ if setting::is_harmless(name) => {}
            _ => self.set(name),
        }
    }

    fn set(&mut self, name: &str) {
        self.wants.proven = false;
        let object = Object::Setting { database: self.database.clone(), setting: Arc::from(name) };
        self.act(Verb::Set, object);
    }

    /// Becoming a role; `none` and `default` are the role of the session.
    pub(super) fn login(&mut self, role: &str) {
        self.wants.proven = false;
        let role = if matches!(role, "none" | "default") {
            self.state.session_role.clone()
        } else {
            Arc::from(role)
        };
        self.wants.steps.push(Step::Role(Some(role.clone())));
        self.act(Verb::Login, Object::Role { role });
    }

    // ---- types -----------------------------------------------------------------------------------------------------

    /// A type: making a value of it can run the checks of a domain, a cast function, code of somebody's.
    pub(super) fn type_name(&mut self, name: Option<&TypeName>) -> Typed {
        self.type_name_from(name, Typed::Any)
    }

    fn type_name_from(&mut self, name: Option<&TypeName>, from: Typed) -> Typed {
        let Some(name) = name else {
            self.opaque();
            return Typed::Any;
        };
        let (schema, name) = match strings(&name.names).as_deref() {
            Some([name]) => (String::new(), (*name).to_owned()),
            Some([.., schema, name]) => ((*schema).to_owned(), (*name).to_owned()),
            _ => {
                self.opaque();
                return Typed::Any;
            }
        };
        if !self.type_named(&schema, &name, from) {
            let relations = self.state.resolve(self.known, &schema, &name);
            self.wants.proven = false;
            // The row type of a relation; a type that nobody knows may hide checks.
            if relations.unresolved {
                self.unresolved();
            }
            return Typed::Any;
        }
        let known = self.known;
        let builtin = self.state.types(known, &schema, &name).iter().all(|&oid| Known::type_is_builtin(oid));
        if builtin { Typed::Builtin } else { Typed::Any }
    }

    fn type_name_unless_ordinality(&mut self, name: Option<&TypeName>) {
        if name.is_some() {
            self.type_name(name);
        }
    }

    /// Uses a type by its name, if there is one.
    fn type_named(&mut self, schema: &str, name: &str, from: Typed) -> bool {
        let known = self.known;
        let types = self.state.types(known, schema, name);
        if self.state.has_made_type(name) {
            self.opaque();
        }
        for &oid in &types {
            self.wants.proven &= known.type_input_is_inert(oid, 0);
            for (schema, function) in known.checks_of(oid) {
                self.call(schema.clone(), function.clone());
            }
            // A constant without a type takes the type's own way in, and no cast.
            for cast in known.casts_to(oid).filter(|_| from != Typed::Literal) {
                self.wants.proven = false;
                if let (Some((schema, function)), false) = (&cast.function, cast.computes) {
                    self.call(schema.clone(), function.clone());
                }
            }
        }
        !types.is_empty()
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

//! What each statement of a text wants.

use std::ops::Range;
use std::sync::Arc;

use pg_query::protobuf::{
    AlterTableCmd, AlterTableType, ColumnDef, ConstrType, Constraint, CopyStmt, CreateStmt, DiscardMode,
    DropBehavior, DropStmt, ExplainStmt, GrantStmt, GrantTargetType, ObjectType, RangeVar, RoleSpec,
    RoleSpecType, SelectStmt, TransactionStmt, TransactionStmtKind, VariableSetKind, VariableSetStmt,
};
use pg_query::{Node, NodeEnum};

use super::parse::{self, Strings};
use super::query::{Setting, Walk, Wants, constant_text, strings};
use super::session::{Running, Session, Step, Value};
use super::state::{Made, State};
use super::{Analysis, Statement, names, opaque, setting};
use crate::action::{Action, Effect, Facts, Object, Verb};
use crate::protocol::Meaning;

/// How many statements one text may hold before it is opaque as a whole.
const STATEMENTS_MAX: usize = 10_000;

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
    let database = runs.session.database();
    let tree = match parse::parse(text, strings) {
        Ok(tree) if tree.stmts.len() <= STATEMENTS_MAX => tree,
        _ => return Examined { analysis: Analysis::opaque(database, text.len()), lasting: true },
    };
    let count = u32::try_from(tree.stmts.len()).unwrap_or(u32::MAX);
    let mut statements: Vec<Statement> = Vec::with_capacity(tree.stmts.len());
    let (mut literals_matter, mut lasting, mut wrote) = (false, true, runs.session.wrote());
    // The session as the statements so far may leave it, once one of them does something to it.
    let mut later: Option<Session> = None;
    for raw in &tree.stmts {
        let range = range_of(raw.stmt_location, raw.stmt_len, text);
        let runs = Running { session: later.as_ref().unwrap_or(runs.session), ..runs };
        let state = later.as_ref().map_or(state, Session::state);
        let mut teller = Teller {
            walk: Walk::new(runs.catalog.known(), state, database),
            runs,
            state,
            source: text.get(range.clone()).unwrap_or(text),
            facts: Facts { statements: count, resolved: true, ..Facts::default() },
            lasting: true,
            wrote,
        };
        match raw.stmt.as_deref().and_then(|node| node.node.as_ref()) {
            Some(NodeEnum::PrepareStmt(prepare)) if inner => teller.nodes(prepare.query.as_deref()),
            Some(node) => teller.statement(node),
            None => teller.walk.opaque(),
        }
        literals_matter |= teller.walk.wants.literals;
        lasting &= teller.lasting;
        let statement = teller.told(range, database);
        wrote |= statement.meaning.effect == Effect::MayChange;
        if !statement.steps.is_empty() && count > 1 {
            let mut session = runs.session.scratch(state);
            let _ = session.sent(&statement);
            later = Some(session);
        }
        statements.push(statement);
    }
    Examined { analysis: Analysis { statements, literals_matter }, lasting }
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

/// Tells what one statement wants.
struct Teller<'a> {
    walk: Walk<'a>,
    runs: Running<'a>,
    state: &'a Arc<State>,
    source: &'a str,
    facts: Facts,
    lasting: bool,
    wrote: bool,
}

impl<'a> Teller<'a> {
    fn told(self, range: Range<usize>, database: &Arc<str>) -> Statement {
        let Wants { mut actions, proven, resolved, opaque: is_opaque, mut steps, .. } = self.walk.wants;
        if is_opaque {
            actions.extend(opaque(database).actions);
            steps.push(Step::Anything);
        }
        let mut facts = self.facts;
        facts.resolved = resolved && !is_opaque;
        let proven = proven && !is_opaque && !self.state.names.changed;
        let effect = if proven { Effect::Reads } else { Effect::MayChange };
        let actions: Vec<Action> = actions.into_iter().collect();
        Statement { range, meaning: Arc::new(Meaning { actions, effect, facts }), steps: steps.into() }
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
        let options: Vec<&str> = transaction.options.iter().filter_map(element_name).collect();
        if options.len() != transaction.options.len()
            || !options.iter().all(|name| setting::is_harmless(name))
        {
            self.changes();
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
            let name = match option.node.as_ref() {
                Some(NodeEnum::DefElem(element)) => element.defname.as_str(),
                // `SET TRANSACTION SNAPSHOT`.
                Some(NodeEnum::AConst(_)) => "transaction_snapshot",
                _ => return self.walk.opaque(),
            };
            self.walk.setting(name, Setting::Unknown, true);
        }
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
            (Some(relation), _) => {
                self.walk.on_relation(if copy.is_from { Verb::Insert } else { Verb::Select }, relation);
            }
            (None, Some(query)) => self.nodes(Some(query)),
            (None, None) => self.walk.opaque(),
        }
        if let Some(condition) = copy.where_clause.as_deref() {
            self.walk.optional(Some(condition));
        }
    }

    /// Statements about names of prepared statements and portals.
    fn names(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::PrepareStmt(prepare) => {
                self.kind("prepare");
                for argument in &prepare.argtypes {
                    match argument.node.as_ref() {
                        Some(NodeEnum::TypeName(name)) => _ = self.walk.type_name(Some(name)),
                        _ => self.walk.opaque(),
                    }
                }
                self.nodes(prepare.query.as_deref());
                // What it runs has its effects when it runs.
                self.walk.wants.steps =
                    vec![Step::Prepare(Arc::from(&*prepare.name), Arc::from(self.source))];
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
                let statement = Statement {
                    range: 0..self.source.len(),
                    meaning: Arc::new(Meaning {
                        actions: self.walk.wants.actions.iter().cloned().collect(),
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
                    }),
                    steps: std::mem::take(&mut self.walk.wants.steps).into(),
                };
                let statement = if self.walk.wants.opaque {
                    opaque_statement(&statement, self.walk.database)
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
                    self.step(Step::Role(Some(self.state.session_role.clone())));
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
        match runs {
            Some(statement) => {
                let meaning = &statement.meaning;
                let wants = &mut self.walk.wants;
                wants.actions.extend(meaning.actions.iter().cloned());
                wants.proven &= meaning.effect == Effect::Reads;
                wants.resolved &= meaning.facts.resolved;
                wants.steps.extend(
                    statement.steps.iter().filter(|step| !matches!(step, Step::Declare(..))).cloned(),
                );
                self.facts.has_where = meaning.facts.has_where;
                self.facts.has_limit = meaning.facts.has_limit;
            }
            None => self.walk.opaque(),
        }
    }

    // ---- definitions -----------------------------------------------------------------------------------------------

    fn definition(&mut self, node: &'a NodeEnum) {
        self.changes();
        match node {
            NodeEnum::CreateStmt(create) => self.create_table(create),
            NodeEnum::CreateForeignTableStmt(create) => {
                self.kind("create_foreign_table");
                self.on_database(Verb::Administer);
                match &create.base_stmt {
                    Some(base) => {
                        self.create_table(base);
                        self.remake(base.relation.as_ref());
                    }
                    None => self.walk.opaque(),
                }
            }
            NodeEnum::CreateTableAsStmt(create) => {
                self.kind(match ObjectType::try_from(create.objtype) {
                    Ok(ObjectType::ObjectMatview) => "create_materialized_view",
                    _ => "create_table_as",
                });
                self.nodes(create.query.as_deref());
                match create.into.as_ref().and_then(|into| into.rel.as_ref()) {
                    Some(relation) => self.walk.create(relation),
                    None => self.walk.opaque(),
                }
                self.step(Step::Defined);
                if create.if_not_exists
                    || ObjectType::try_from(create.objtype) == Ok(ObjectType::ObjectMatview)
                {
                    self.remake(create.into.as_ref().and_then(|into| into.rel.as_ref()));
                }
            }
            NodeEnum::ViewStmt(view) => {
                self.kind("create_view");
                self.nodes(view.query.as_deref());
                match &view.view {
                    Some(relation) => self.walk.create(relation),
                    None => self.walk.opaque(),
                }
                if view.replace {
                    self.on_made(Verb::Alter, view.view.as_ref());
                }
                self.remake(view.view.as_ref());
            }
            NodeEnum::AlterTableStmt(alter) => {
                self.kind("alter_table");
                self.on_made(Verb::Alter, alter.relation.as_ref());
                for command in &alter.cmds {
                    match command.node.as_ref() {
                        Some(NodeEnum::AlterTableCmd(command)) => {
                            self.alter_table(command, alter.relation.as_ref())
                        }
                        _ => self.walk.opaque(),
                    }
                }
                self.step(Step::Defined);
            }
            NodeEnum::IndexStmt(index) => {
                self.kind("create_index");
                self.on_made(Verb::Alter, index.relation.as_ref());
                self.walk.all(&index.index_params);
                self.walk.optional(index.where_clause.as_deref());
                self.step(Step::Defined);
            }
            NodeEnum::DropStmt(drop) => self.drop(drop),
            NodeEnum::TruncateStmt(truncate) => {
                self.kind("truncate");
                for relation in &truncate.relations {
                    match relation.node.as_ref() {
                        Some(NodeEnum::RangeVar(range)) => self.walk.on_relation(Verb::Truncate, range),
                        _ => self.walk.opaque(),
                    }
                }
                if DropBehavior::try_from(truncate.behavior) == Ok(DropBehavior::DropCascade) {
                    self.on_database(Verb::Truncate);
                }
            }
            NodeEnum::LockStmt(lock) => {
                self.kind("lock");
                for relation in &lock.relations {
                    match relation.node.as_ref() {
                        Some(NodeEnum::RangeVar(range)) => self.walk.on_relation(Verb::Lock, range),
                        _ => self.walk.opaque(),
                    }
                }
            }
            NodeEnum::RenameStmt(rename) => {
                self.kind("rename");
                let kind = ObjectType::try_from(rename.rename_type).ok();
                self.on_object(Verb::Alter, kind, rename.relation.as_ref(), rename.object.as_deref());
                if rename.relation.is_some() {
                    self.step(Step::Made(Arc::from(&*rename.newname), Made::Somewhere));
                    if let Some(relation) = &rename.relation {
                        self.step(Step::Made(Arc::from(&*relation.relname), Made::Dropped));
                    }
                } else {
                    self.made_by_kind(kind, &rename.newname);
                }
                self.step(Step::Defined);
            }
            NodeEnum::AlterObjectSchemaStmt(alter) => {
                self.kind("alter_schema");
                let kind = ObjectType::try_from(alter.object_type).ok();
                self.on_object(Verb::Alter, kind, alter.relation.as_ref(), alter.object.as_deref());
                self.on_schema(Verb::Create, &alter.newschema);
                match &alter.relation {
                    Some(relation) => self.step(Step::Made(Arc::from(&*relation.relname), Made::Somewhere)),
                    None => self.step(Step::Unsettled),
                }
                self.step(Step::Defined);
            }
            NodeEnum::AlterOwnerStmt(alter) => {
                self.kind("alter_owner");
                let kind = ObjectType::try_from(alter.object_type).ok();
                self.on_object(Verb::Alter, kind, alter.relation.as_ref(), alter.object.as_deref());
                self.step(Step::Defined);
            }
            NodeEnum::AlterObjectDependsStmt(alter) => {
                self.kind("alter_depends");
                let kind = ObjectType::try_from(alter.object_type).ok();
                self.on_object(Verb::Alter, kind, alter.relation.as_ref(), alter.object.as_deref());
            }
            NodeEnum::CommentStmt(comment) => {
                self.kind("comment");
                self.on_object(
                    Verb::Alter,
                    ObjectType::try_from(comment.objtype).ok(),
                    None,
                    comment.object.as_deref(),
                );
            }
            NodeEnum::SecLabelStmt(label) => {
                self.kind("security_label");
                self.on_object(
                    Verb::Administer,
                    ObjectType::try_from(label.objtype).ok(),
                    None,
                    label.object.as_deref(),
                );
            }
            NodeEnum::RuleStmt(rule) => {
                self.kind("create_rule");
                self.on_made(Verb::Alter, rule.relation.as_ref());
                self.walk.rule_body(rule);
                self.remake(rule.relation.as_ref());
            }
            NodeEnum::CreateTrigStmt(trigger) => {
                self.kind("create_trigger");
                self.on_made(Verb::Alter, trigger.relation.as_ref());
                self.function_named(Verb::Call, &trigger.funcname);
                // Writes to the table may change the search path from now on.
                self.step(Step::Path(Value::Unknown));
                self.step(Step::Defined);
            }
            NodeEnum::CreatePolicyStmt(policy) => {
                self.kind("create_policy");
                self.on_made(Verb::Alter, policy.table.as_ref());
                self.step(Step::Defined);
            }
            NodeEnum::AlterPolicyStmt(policy) => {
                self.kind("alter_policy");
                self.on_made(Verb::Alter, policy.table.as_ref());
                self.step(Step::Defined);
            }
            NodeEnum::CreateStatsStmt(_) | NodeEnum::AlterStatsStmt(_) => {
                self.kind("create_statistics");
                if let NodeEnum::CreateStatsStmt(statistics) = node {
                    for relation in &statistics.relations {
                        match relation.node.as_ref() {
                            Some(NodeEnum::RangeVar(range)) => self.on_made(Verb::Alter, Some(range)),
                            _ => self.walk.opaque(),
                        }
                    }
                } else {
                    self.on_database(Verb::Alter);
                }
                self.step(Step::Defined);
            }
            NodeEnum::CreateSeqStmt(create) => {
                self.kind("create_sequence");
                match &create.sequence {
                    Some(relation) => self.walk.create(relation),
                    None => self.walk.opaque(),
                }
                self.step(Step::Defined);
            }
            NodeEnum::AlterSeqStmt(alter) => {
                self.kind("alter_sequence");
                self.on_made(Verb::Alter, alter.sequence.as_ref());
                self.step(Step::Defined);
            }
            _ => self.other_definition(node),
        }
    }

    fn other_definition(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::CreateSchemaStmt(create) => {
                self.kind("create_schema");
                let name = match (&*create.schemaname, &create.authrole) {
                    ("", Some(role)) => role.rolename.clone(),
                    (name, _) => name.to_owned(),
                };
                self.on_schema(Verb::Create, &name);
                for element in &create.schema_elts {
                    self.nodes(Some(element));
                }
                // What is in it hides what follows in a search path.
                self.step(if create.schema_elts.is_empty() { Step::Defined } else { Step::Unsettled });
            }
            NodeEnum::CreateFunctionStmt(create) => {
                self.kind(if create.is_procedure { "create_procedure" } else { "create_function" });
                self.function_made(&create.funcname);
            }
            NodeEnum::AlterFunctionStmt(alter) => {
                self.kind("alter_function");
                match &alter.func {
                    Some(function) => self.function_named(Verb::Alter, &function.objname),
                    None => self.walk.opaque(),
                }
                self.step(Step::Defined);
            }
            NodeEnum::DefineStmt(define) => {
                self.kind("create");
                let kind = ObjectType::try_from(define.kind).ok();
                match kind {
                    Some(ObjectType::ObjectAggregate) => {
                        self.function_made(&define.defnames);
                        for element in &define.definition {
                            self.support_function(element);
                        }
                    }
                    Some(ObjectType::ObjectOperator) => {
                        self.made_in_schema(&define.defnames);
                        match strings(&define.defnames).as_deref().and_then(<[&str]>::last) {
                            Some(name) => self.step(Step::MadeOperator(Arc::from(*name))),
                            None => self.walk.opaque(),
                        }
                    }
                    Some(ObjectType::ObjectType) => self.type_made(&define.defnames),
                    _ => {
                        self.made_in_schema(&define.defnames);
                        self.step(Step::Defined);
                    }
                }
            }
            NodeEnum::CreateDomainStmt(create) => {
                self.kind("create_domain");
                self.type_made(&create.domainname);
            }
            NodeEnum::CreateEnumStmt(create) => {
                self.kind("create_type");
                self.type_made(&create.type_name);
            }
            NodeEnum::CreateRangeStmt(create) => {
                self.kind("create_type");
                self.type_made(&create.type_name);
            }
            NodeEnum::CompositeTypeStmt(create) => {
                self.kind("create_type");
                match &create.typevar {
                    Some(range) => {
                        for schema in self.walk.creation_schemas(&range.schemaname) {
                            match schema {
                                Some(schema) => self.on_schema(Verb::Create, &schema),
                                None => self.on_database(Verb::Create),
                            }
                        }
                        self.step(Step::MadeType(Arc::from(&*range.relname)));
                    }
                    None => self.walk.opaque(),
                }
            }
            NodeEnum::AlterEnumStmt(alter) => {
                self.kind("alter_type");
                self.in_schema_of(Verb::Alter, &alter.type_name);
                self.step(Step::Defined);
            }
            NodeEnum::AlterDomainStmt(alter) => {
                self.kind("alter_domain");
                self.in_schema_of(Verb::Alter, &alter.type_name);
                self.step(Step::Defined);
            }
            NodeEnum::AlterTypeStmt(alter) => {
                self.kind("alter_type");
                self.in_schema_of(Verb::Alter, &alter.type_name);
                self.step(Step::Defined);
            }
            NodeEnum::AlterOperatorStmt(_)
            | NodeEnum::AlterOpFamilyStmt(_)
            | NodeEnum::AlterCollationStmt(_)
            | NodeEnum::AlterTsdictionaryStmt(_)
            | NodeEnum::AlterTsconfigurationStmt(_) => {
                self.kind("alter");
                self.on_database(Verb::Alter);
                self.step(Step::Unsettled);
            }
            NodeEnum::CreateOpClassStmt(_)
            | NodeEnum::CreateOpFamilyStmt(_)
            | NodeEnum::CreateConversionStmt(_) => {
                self.kind("create");
                self.on_database(Verb::Create);
                self.step(Step::Unsettled);
            }
            NodeEnum::CreateCastStmt(create) => {
                self.kind("create_cast");
                self.on_database(Verb::Create);
                if let Some(function) = &create.func {
                    self.function_named(Verb::Call, &function.objname);
                }
                self.step(Step::Unsettled);
            }
            _ => self.administration(node),
        }
    }

    fn administration(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::CallStmt(call) => {
                self.kind("call");
                match call.funccall.as_deref() {
                    Some(call) => self.walk.procedure(call),
                    None => self.walk.opaque(),
                }
            }
            NodeEnum::DoStmt(_) => {
                self.kind("do");
                self.walk.opaque();
            }
            NodeEnum::LoadStmt(_) => {
                self.kind("load");
                self.on_database(Verb::Administer);
                self.walk.opaque();
            }
            NodeEnum::NotifyStmt(_) => {
                self.kind("notify");
                self.walk.call("pg_catalog".into(), "pg_notify".into());
            }
            NodeEnum::ListenStmt(_) => self.kind("listen"),
            NodeEnum::UnlistenStmt(_) => self.kind("unlisten"),
            NodeEnum::ConstraintsSetStmt(_) => self.kind("set_constraints"),
            NodeEnum::CheckPointStmt(_) => {
                self.kind("checkpoint");
                self.on_database(Verb::Administer);
            }
            NodeEnum::GrantStmt(grant) => self.grant(grant),
            NodeEnum::GrantRoleStmt(grant) => {
                self.kind(if grant.is_grant { "grant_role" } else { "revoke_role" });
                for role in &grant.granted_roles {
                    match role.node.as_ref() {
                        Some(NodeEnum::AccessPriv(privilege)) => self.role(&privilege.priv_name),
                        _ => self.walk.opaque(),
                    }
                }
                self.role_nodes(&grant.grantee_roles);
            }
            NodeEnum::CreateRoleStmt(create) => {
                self.kind("create_role");
                self.role(&create.role);
                self.on_database(Verb::Administer);
            }
            NodeEnum::AlterRoleStmt(alter) => {
                self.kind("alter_role");
                self.role_spec(alter.role.as_ref());
                self.on_database(Verb::Administer);
            }
            NodeEnum::AlterRoleSetStmt(alter) => {
                self.kind("alter_role_set");
                match &alter.role {
                    Some(role) => self.role_spec(Some(role)),
                    None => self.on_database(Verb::Administer),
                }
            }
            NodeEnum::DropRoleStmt(drop) => {
                self.kind("drop_role");
                self.role_nodes(&drop.roles);
                self.on_database(Verb::Administer);
            }
            NodeEnum::DropOwnedStmt(_) => {
                self.kind("drop_owned");
                self.on_database(Verb::Drop);
                self.on_database(Verb::Administer);
                self.step(Step::Unsettled);
            }
            NodeEnum::ReassignOwnedStmt(_) => {
                self.kind("reassign_owned");
                self.on_database(Verb::Administer);
            }
            NodeEnum::VacuumStmt(vacuum) => {
                self.kind(if vacuum.is_vacuumcmd { "vacuum" } else { "analyze" });
                if vacuum.rels.is_empty() {
                    self.on_database(Verb::Administer);
                }
                for relation in &vacuum.rels {
                    match relation.node.as_ref() {
                        Some(NodeEnum::VacuumRelation(relation)) => {
                            self.on_made(Verb::Administer, relation.relation.as_ref())
                        }
                        _ => self.walk.opaque(),
                    }
                }
            }
            NodeEnum::ClusterStmt(cluster) => {
                self.kind("cluster");
                self.administer(cluster.relation.as_ref());
            }
            NodeEnum::ReindexStmt(reindex) => {
                self.kind("reindex");
                self.administer(reindex.relation.as_ref());
            }
            NodeEnum::RefreshMatViewStmt(refresh) => {
                self.kind("refresh_materialized_view");
                self.administer(refresh.relation.as_ref());
            }
            NodeEnum::CreatedbStmt(create) => {
                self.kind("create_database");
                self.act(Verb::Create, Object::Database { database: Arc::from(&*create.dbname) });
                self.on_database(Verb::Administer);
            }
            NodeEnum::DropdbStmt(drop) => {
                self.kind("drop_database");
                self.act(Verb::Drop, Object::Database { database: Arc::from(&*drop.dbname) });
                self.on_database(Verb::Administer);
            }
            NodeEnum::AlterDatabaseStmt(_)
            | NodeEnum::AlterDatabaseSetStmt(_)
            | NodeEnum::AlterDatabaseRefreshCollStmt(_)
            | NodeEnum::AlterSystemStmt(_)
            | NodeEnum::AlterDefaultPrivilegesStmt(_)
            | NodeEnum::CreateTableSpaceStmt(_)
            | NodeEnum::DropTableSpaceStmt(_)
            | NodeEnum::AlterTableSpaceOptionsStmt(_)
            | NodeEnum::AlterTableMoveAllStmt(_)
            | NodeEnum::CreatePublicationStmt(_)
            | NodeEnum::AlterPublicationStmt(_)
            | NodeEnum::CreateSubscriptionStmt(_)
            | NodeEnum::AlterSubscriptionStmt(_)
            | NodeEnum::DropSubscriptionStmt(_) => {
                self.kind("administer");
                self.on_database(Verb::Administer);
            }
            NodeEnum::CreateExtensionStmt(_)
            | NodeEnum::AlterExtensionStmt(_)
            | NodeEnum::AlterExtensionContentsStmt(_)
            | NodeEnum::CreateFdwStmt(_)
            | NodeEnum::AlterFdwStmt(_)
            | NodeEnum::CreateForeignServerStmt(_)
            | NodeEnum::AlterForeignServerStmt(_)
            | NodeEnum::CreateUserMappingStmt(_)
            | NodeEnum::AlterUserMappingStmt(_)
            | NodeEnum::DropUserMappingStmt(_)
            | NodeEnum::ImportForeignSchemaStmt(_)
            | NodeEnum::CreatePlangStmt(_)
            | NodeEnum::CreateTransformStmt(_)
            | NodeEnum::CreateAmStmt(_)
            | NodeEnum::CreateEventTrigStmt(_)
            | NodeEnum::AlterEventTrigStmt(_) => {
                self.kind("create_extension");
                self.on_database(Verb::Create);
                self.on_database(Verb::Administer);
                self.step(Step::Unsettled);
            }
            _ => {
                self.kind("opaque");
                self.walk.opaque();
            }
        }
    }

    fn administer(&mut self, relation: Option<&RangeVar>) {
        match relation {
            Some(_) => self.on_made(Verb::Administer, relation),
            None => self.on_database(Verb::Administer),
        }
    }

    fn create_table(&mut self, create: &'a CreateStmt) {
        self.kind("create_table");
        let Some(relation) = &create.relation else { return self.walk.opaque() };
        self.walk.create(relation);
        for parent in &create.inh_relations {
            match parent.node.as_ref() {
                // Its rows show among the parent's.
                Some(NodeEnum::RangeVar(parent)) => self.on_made(Verb::Alter, Some(parent)),
                _ => self.walk.opaque(),
            }
        }
        for element in &create.table_elts {
            match element.node.as_ref() {
                Some(NodeEnum::ColumnDef(column)) => self.references(&column.constraints),
                Some(NodeEnum::Constraint(constraint)) => self.reference(constraint),
                Some(NodeEnum::TableLikeClause(like)) => self.on_made(Verb::Select, like.relation.as_ref()),
                _ => self.walk.opaque(),
            }
        }
        if create.if_not_exists && relation.relpersistence != "t" {
            // What is there already may be a view.
            self.remake(Some(relation));
        }
        if relation.relpersistence != "t" {
            self.step(Step::Defined);
        }
    }

    fn references(&mut self, constraints: &'a [Node]) {
        for constraint in constraints {
            match constraint.node.as_ref() {
                Some(NodeEnum::Constraint(constraint)) => self.reference(constraint),
                Some(NodeEnum::CollateClause(_)) => {}
                _ => self.walk.opaque(),
            }
        }
    }

    /// A foreign key lets its table tell what is in another, and locks rows there.
    fn reference(&mut self, constraint: &'a Constraint) {
        if ConstrType::try_from(constraint.contype) == Ok(ConstrType::ConstrForeign) {
            self.on_made(Verb::Select, constraint.pktable.as_ref());
        }
    }

    fn alter_table(&mut self, command: &'a AlterTableCmd, table: Option<&RangeVar>) {
        let kind = AlterTableType::try_from(command.subtype);
        let definition = command.def.as_deref().and_then(|node| node.node.as_ref());
        match definition {
            None => {}
            Some(NodeEnum::ColumnDef(column)) => self.alter_column(column),
            Some(NodeEnum::Constraint(constraint)) => {
                self.reference(constraint);
                self.walk.optional(constraint.raw_expr.as_deref());
                self.walk.optional(constraint.where_clause.as_deref());
            }
            Some(NodeEnum::PartitionCmd(partition)) => {
                self.on_made(Verb::Alter, partition.name.as_ref());
                self.remake(table);
                self.remake(partition.name.as_ref());
            }
            Some(NodeEnum::RangeVar(parent)) => {
                self.on_made(Verb::Alter, Some(parent));
                self.remake(Some(parent));
            }
            // A new default or an expression that is kept runs when somebody writes.
            _ if kind == Ok(AlterTableType::AtColumnDefault) => {}
            Some(
                NodeEnum::List(_)
                | NodeEnum::String(_)
                | NodeEnum::Integer(_)
                | NodeEnum::TypeName(_)
                | NodeEnum::ReplicaIdentityStmt(_)
                | NodeEnum::AtalterConstraint(_),
            ) => {}
            Some(_) => {
                self.walk.optional(command.def.as_deref());
            }
        }
        if matches!(
            kind,
            Ok(AlterTableType::AtEnableRule
                | AlterTableType::AtEnableAlwaysRule
                | AlterTableType::AtEnableReplicaRule)
        ) {
            self.remake(table);
        }
    }

    /// A column that is added or changes its type: what it is computed from runs for each row.
    fn alter_column(&mut self, column: &'a ColumnDef) {
        if column.type_name.is_some() {
            _ = self.walk.type_name(column.type_name.as_ref());
        }
        self.walk.optional(column.raw_default.as_deref());
        self.references(&column.constraints);
        for constraint in &column.constraints {
            if let Some(NodeEnum::Constraint(constraint)) = constraint.node.as_ref() {
                self.walk.optional(constraint.raw_expr.as_deref());
            }
        }
    }

    fn drop(&mut self, drop: &'a DropStmt) {
        self.kind("drop");
        let kind = ObjectType::try_from(drop.remove_type).ok();
        for object in &drop.objects {
            self.on_object(Verb::Drop, kind, None, Some(object));
            if is_relation(kind) {
                match list(object).and_then(strings).as_deref().and_then(<[&str]>::last) {
                    Some(name) => self.step(Step::Made(Arc::from(*name), Made::Dropped)),
                    None => self.walk.opaque(),
                }
            }
        }
        match kind {
            Some(ObjectType::ObjectSchema | ObjectType::ObjectExtension) => self.step(Step::Unsettled),
            _ => self.step(Step::Defined),
        }
        if DropBehavior::try_from(drop.behavior) == Ok(DropBehavior::DropCascade) {
            // What depends on it can be anywhere.
            self.on_database(Verb::Drop);
        }
    }

    fn grant(&mut self, grant: &'a GrantStmt) {
        self.kind(if grant.is_grant { "grant" } else { "revoke" });
        let kind = ObjectType::try_from(grant.objtype).ok();
        let in_schema =
            GrantTargetType::try_from(grant.targtype) == Ok(GrantTargetType::AclTargetAllInSchema);
        for object in &grant.objects {
            match object.node.as_ref() {
                Some(NodeEnum::String(name)) if in_schema => self.on_schema(Verb::Administer, &name.sval),
                Some(NodeEnum::RangeVar(range)) => self.on_made(Verb::Administer, Some(range)),
                _ => self.on_object(Verb::Administer, kind, None, Some(object)),
            }
        }
        if grant.objects.is_empty() {
            self.on_database(Verb::Administer);
        }
        self.step(Step::Defined);
    }

    // ---- objects ---------------------------------------------------------------------------------------------------

    /// Does `verb` to an object of whatever kind.
    fn on_object(
        &mut self,
        verb: Verb,
        kind: Option<ObjectType>,
        relation: Option<&'a RangeVar>,
        object: Option<&'a Node>,
    ) {
        if relation.is_some() {
            return self.on_made(verb, relation);
        }
        let Some(object) = object else { return self.on_database(verb) };
        match (kind, object.node.as_ref()) {
            (Some(ObjectType::ObjectSchema), Some(NodeEnum::String(name))) => {
                self.on_schema(verb, &name.sval)
            }
            (Some(ObjectType::ObjectRole), Some(NodeEnum::String(name))) => self.role(&name.sval),
            (
                Some(
                    ObjectType::ObjectFunction
                    | ObjectType::ObjectProcedure
                    | ObjectType::ObjectRoutine
                    | ObjectType::ObjectAggregate,
                ),
                Some(NodeEnum::ObjectWithArgs(function)),
            ) => {
                self.function_named(verb, &function.objname);
                if let Some(name) = strings(&function.objname).as_deref().and_then(<[&str]>::last) {
                    self.step(Step::MadeFunction(Arc::from(*name)));
                }
            }
            (Some(ObjectType::ObjectType | ObjectType::ObjectDomain), Some(NodeEnum::TypeName(name))) => {
                self.in_schema_of(verb, &name.names);
                if let Some(name) = strings(&name.names).as_deref().and_then(<[&str]>::last) {
                    self.step(Step::MadeType(Arc::from(*name)));
                }
            }
            (kind, Some(NodeEnum::List(names))) => match (strings(&names.items), kind) {
                (Some(names), kind) if is_relation(kind) => self.on_name(verb, &names),
                // The table of which it is a part stands before its name.
                (
                    Some(names),
                    Some(
                        ObjectType::ObjectColumn
                        | ObjectType::ObjectTrigger
                        | ObjectType::ObjectRule
                        | ObjectType::ObjectPolicy
                        | ObjectType::ObjectTabconstraint,
                    ),
                ) if names.len() > 1 => self
                    .on_name(if verb == Verb::Drop { Verb::Alter } else { verb }, &names[..names.len() - 1]),
                _ => self.on_database(verb),
            },
            _ => self.on_database(verb),
        }
    }

    fn on_name(&mut self, verb: Verb, names: &[&str]) {
        let (schema, name) = match names {
            [name] => ("", *name),
            [.., schema, name] => (*schema, *name),
            [] => return self.walk.opaque(),
        };
        let range =
            RangeVar { schemaname: schema.to_owned(), relname: name.to_owned(), ..RangeVar::default() };
        self.on_made(verb, Some(&range));
    }

    /// Does `verb` to a relation that need not be known: what its definition is does not matter, so a name is enough.
    fn on_made(&mut self, verb: Verb, range: Option<&RangeVar>) {
        let Some(range) = range else { return self.walk.opaque() };
        let found = self.state.resolve(self.walk.known, &range.schemaname, &range.relname);
        if !found.unresolved {
            self.walk.on_relation(verb, range);
            for id in found.relations {
                if let Some(table) = self.walk.known.relation(id).index_of {
                    let table = self.walk.known.relation(table);
                    let object = self.walk.table(&table.schema, &table.name);
                    self.act(if verb == Verb::Drop { Verb::Alter } else { verb }, object);
                }
            }
            return;
        }
        self.walk.wants.resolved = false;
        let name: Arc<str> = Arc::from(&*range.relname);
        for id in found.relations {
            let relation = self.walk.known.relation(id);
            let object = self.walk.table(&relation.schema, &relation.name);
            self.act(verb, object);
        }
        if !range.schemaname.is_empty() {
            let object = self.walk.table(&Arc::from(&*range.schemaname), &name);
            return self.act(verb, object);
        }
        match self.state.schemas() {
            Some(schemas) => {
                for schema in schemas.iter().filter(|schema| &***schema != "pg_catalog") {
                    let object = self.walk.table(schema, &name);
                    self.act(verb, object);
                }
            }
            None => self.on_database(verb),
        }
    }

    /// The name stands for something else from now on.
    fn remake(&mut self, range: Option<&RangeVar>) {
        match range {
            Some(range) => self.step(Step::Made(Arc::from(&*range.relname), Made::Somewhere)),
            None => self.step(Step::Unsettled),
        }
        self.step(Step::Defined);
    }

    fn made_by_kind(&mut self, kind: Option<ObjectType>, name: &str) {
        let name = Arc::from(name);
        self.step(match kind {
            Some(
                ObjectType::ObjectFunction
                | ObjectType::ObjectProcedure
                | ObjectType::ObjectRoutine
                | ObjectType::ObjectAggregate,
            ) => Step::MadeFunction(name),
            Some(ObjectType::ObjectType | ObjectType::ObjectDomain) => Step::MadeType(name),
            _ => Step::Unsettled,
        });
    }

    fn function_made(&mut self, name: &'a [Node]) {
        match strings(name).as_deref() {
            Some([name]) => {
                for schema in self.walk.creation_schemas("") {
                    match schema {
                        Some(schema) => self.on_function(Verb::Create, &schema, name),
                        None => self.on_database(Verb::Create),
                    }
                }
                self.step(Step::MadeFunction(Arc::from(*name)));
            }
            Some([.., schema, name]) => {
                self.on_function(Verb::Create, schema, name);
                self.step(Step::MadeFunction(Arc::from(*name)));
            }
            _ => self.walk.opaque(),
        }
    }

    fn on_function(&mut self, verb: Verb, schema: &str, function: &str) {
        let database = self.walk.database.clone();
        self.act(
            verb,
            Object::Function { database, schema: Arc::from(schema), function: Arc::from(function) },
        );
    }

    /// Does `verb` to every function that a name can stand for.
    fn function_named(&mut self, verb: Verb, name: &[Node]) {
        let parts = strings(name);
        let (schema, name) = match parts.as_deref() {
            Some([name]) => ("", *name),
            Some([.., schema, name]) => (*schema, *name),
            _ => return self.walk.opaque(),
        };
        if !schema.is_empty() {
            return self.on_function(verb, schema, name);
        }
        let mut schemas: Vec<Arc<str>> = self
            .state
            .functions(self.walk.known, "", name)
            .iter()
            .map(|function| function.schema.clone())
            .collect();
        if self.walk.known.is_builtin(name) {
            schemas.push("pg_catalog".into());
        }
        if schemas.is_empty() {
            self.walk.wants.resolved = false;
            match self.state.schemas() {
                Some(possible) => {
                    schemas.extend(possible.into_iter().filter(|schema| &**schema != "pg_catalog"))
                }
                None => self.on_database(verb),
            }
        }
        for schema in schemas {
            self.on_function(verb, &schema, name);
        }
    }

    /// A function that an aggregate is made of.
    fn support_function(&mut self, element: &'a Node) {
        let Some(NodeEnum::DefElem(element)) = element.node.as_ref() else { return self.walk.opaque() };
        if !element.defname.ends_with("func") {
            return;
        }
        let names = match element.arg.as_deref().and_then(|arg| arg.node.as_ref()) {
            Some(NodeEnum::TypeName(name)) => &name.names[..],
            Some(NodeEnum::List(list)) => &list.items[..],
            _ => return self.walk.opaque(),
        };
        let pure = matches!(strings(names).as_deref(), Some([.., name])
            if super::purity::is_pure(name) && self.walk.known.functions_named(name).is_empty());
        if !pure {
            self.function_named(Verb::Call, names);
        }
    }

    fn type_made(&mut self, name: &'a [Node]) {
        self.made_in_schema(name);
        match strings(name).as_deref().and_then(<[&str]>::last) {
            Some(name) => self.step(Step::MadeType(Arc::from(*name))),
            None => self.walk.opaque(),
        }
    }

    /// Something else than a relation or a function is made in a schema.
    fn made_in_schema(&mut self, name: &'a [Node]) {
        match strings(name).as_deref() {
            Some([_]) => {
                for schema in self.walk.creation_schemas("") {
                    match schema {
                        Some(schema) => self.on_schema(Verb::Create, &schema),
                        None => self.on_database(Verb::Create),
                    }
                }
            }
            Some([.., schema, _]) => self.on_schema(Verb::Create, schema),
            _ => self.walk.opaque(),
        }
    }

    /// Does `verb` to the schema in which something of that name can be.
    fn in_schema_of(&mut self, verb: Verb, name: &[Node]) {
        match strings(name).as_deref() {
            Some([_]) => match self.state.schemas() {
                Some(schemas) => {
                    for schema in schemas {
                        self.on_schema(verb, &schema);
                    }
                }
                None => self.on_database(verb),
            },
            Some([.., schema, _]) => self.on_schema(verb, schema),
            _ => self.walk.opaque(),
        }
    }

    fn role(&mut self, role: &str) {
        self.act(Verb::Administer, Object::Role { role: Arc::from(role) });
    }

    fn role_nodes(&mut self, roles: &'a [Node]) {
        for role in roles {
            match role.node.as_ref() {
                Some(NodeEnum::RoleSpec(role)) => self.role_spec(Some(role)),
                _ => self.walk.opaque(),
            }
        }
    }

    fn role_spec(&mut self, role: Option<&RoleSpec>) {
        let Some(role) = role else { return self.on_database(Verb::Administer) };
        match RoleSpecType::try_from(role.roletype) {
            Ok(RoleSpecType::RolespecCstring) => self.role(&role.rolename),
            Ok(RoleSpecType::RolespecSessionUser) => {
                let session = self.state.session_role.clone();
                self.role(&session);
            }
            Ok(RoleSpecType::RolespecCurrentRole | RoleSpecType::RolespecCurrentUser) => {
                match self.state.names.roles.clone() {
                    Some(roles) => {
                        for role in roles {
                            self.role(&role);
                        }
                    }
                    None => self.on_database(Verb::Administer),
                }
            }
            Ok(RoleSpecType::RolespecPublic) => self.role("public"),
            _ => self.walk.opaque(),
        }
    }
}

fn opaque_statement(statement: &Statement, database: &Arc<str>) -> Statement {
    let mut meaning = (*statement.meaning).clone();
    meaning.actions.extend(opaque(database).actions);
    meaning.actions.sort();
    meaning.actions.dedup();
    meaning.effect = Effect::MayChange;
    meaning.facts.resolved = false;
    Statement {
        meaning: Arc::new(meaning),
        steps: Arc::new([Step::Anything]),
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

fn element_name(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::DefElem(element) => Some(&element.defname),
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

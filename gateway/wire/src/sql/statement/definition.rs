//! What statements want that define, administer or remove something.

use std::sync::Arc;

use pg_query::protobuf::{
    AlterTableCmd, AlterTableType, ColumnDef, ConstrType, Constraint, CreateStmt, DropBehavior, DropStmt,
    GrantStmt, GrantTargetType, ObjectType, PartitionBoundSpec, RangeVar,
};
use pg_query::{Node, NodeEnum};

use super::{Teller, is_relation, list};
use crate::action::{Object, Verb};
use crate::sql::catalog::RelationId;
use crate::sql::query::{Typed, strings};
use crate::sql::session::{Step, moves};
use crate::sql::state::Made;

impl<'a> Teller<'a> {
    pub(super) fn definition(&mut self, node: &'a NodeEnum) {
        self.changes();
        if !runs_nothing_later(node) {
            self.walk.exposes_everything();
        }
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
                self.walk.sight.defines =
                    ObjectType::try_from(create.objtype) == Ok(ObjectType::ObjectMatview);
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
                self.walk.sight.defines = true;
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
                self.keeps(alter.relation.as_ref());
                self.touches(alter.relation.as_ref());
                self.step(Step::Defined);
            }
            NodeEnum::IndexStmt(index) => {
                self.kind("create_index");
                self.on_made(Verb::Alter, index.relation.as_ref());
                self.walk.all(&index.index_params);
                self.walk.optional(index.where_clause.as_deref());
                self.keeps(index.relation.as_ref());
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
                if kind == Some(ObjectType::ObjectSchema) {
                    // Masks are declared by the schema's name.
                    self.walk.exposes_everything();
                }
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
                self.walk.sight.defines = true;
                self.on_made(Verb::Alter, rule.relation.as_ref());
                self.walk.rule_body(rule);
                self.remake(rule.relation.as_ref());
            }
            NodeEnum::CreateTrigStmt(trigger) => {
                self.kind("create_trigger");
                self.on_made(Verb::Alter, trigger.relation.as_ref());
                self.function_named(Verb::Call, &trigger.funcname);
                self.walk.optional(trigger.when_clause.as_deref());
                self.keeps(trigger.relation.as_ref());
                // Writes to the table call it from now on.
                self.step(Step::Called);
                self.step(Step::Defined);
            }
            NodeEnum::CreatePolicyStmt(policy) => {
                self.kind("create_policy");
                self.policy(policy.table.as_ref(), [policy.qual.as_deref(), policy.with_check.as_deref()]);
            }
            NodeEnum::AlterPolicyStmt(policy) => {
                self.kind("alter_policy");
                self.policy(policy.table.as_ref(), [policy.qual.as_deref(), policy.with_check.as_deref()]);
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
                    for element in &statistics.exprs {
                        match element.node.as_ref() {
                            Some(NodeEnum::StatsElem(element)) => self.walk.optional(element.expr.as_deref()),
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
                            self.support_function(element, |name| name.ends_with("func"));
                        }
                    }
                    Some(ObjectType::ObjectOperator) => {
                        self.made_in_schema(&define.defnames);
                        match strings(&define.defnames).as_deref().and_then(<[&str]>::last) {
                            Some(name) => self.step(Step::MadeOperator(Arc::from(*name))),
                            None => self.walk.opaque(),
                        }
                    }
                    Some(ObjectType::ObjectType) => {
                        self.type_made(&define.defnames);
                        let runs = [
                            "input",
                            "output",
                            "receive",
                            "send",
                            "typmod_in",
                            "typmod_out",
                            "analyze",
                            "subscript",
                        ];
                        for element in &define.definition {
                            self.support_function(element, |name| runs.contains(&name));
                        }
                    }
                    _ => {
                        self.made_in_schema(&define.defnames);
                        self.step(Step::Defined);
                    }
                }
            }
            NodeEnum::CreateDomainStmt(create) => {
                self.kind("create_domain");
                self.type_made(&create.domainname);
                if let Some(base) = &create.type_name {
                    self.walk.column_made_of(base);
                }
                self.constraints(&create.constraints);
                self.domain_made();
            }
            NodeEnum::CreateEnumStmt(create) => {
                self.kind("create_type");
                self.type_made(&create.type_name);
            }
            NodeEnum::CreateRangeStmt(create) => {
                self.kind("create_type");
                self.type_made(&create.type_name);
                for element in &create.params {
                    self.support_function(element, |name| matches!(name, "canonical" | "subtype_diff"));
                }
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
                match alter.def.as_deref().map(|definition| (definition, definition.node.as_ref())) {
                    Some((_, Some(NodeEnum::Constraint(constraint)))) => self.constraint(constraint),
                    Some((expression, _)) => self.walk.optional(Some(expression)),
                    None => {}
                }
                self.domain_made();
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
            NodeEnum::ListenStmt(_) => {
                self.kind("listen");
                // What others tell in their notifications can be anything that is there.
                self.on_database(Verb::Select);
            }
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
                // Its rows show among the parent's, and what is kept with the parent is kept with it.
                Some(NodeEnum::RangeVar(parent)) => {
                    self.on_made(Verb::Alter, Some(parent));
                    self.touches(Some(parent));
                }
                _ => self.walk.opaque(),
            }
        }
        for element in &create.table_elts {
            match element.node.as_ref() {
                Some(NodeEnum::ColumnDef(column)) => {
                    if let Some(name) = &column.type_name {
                        self.walk.column_made_of(name);
                    }
                    self.walk.optional(column.raw_default.as_deref());
                    self.constraints(&column.constraints);
                }
                Some(NodeEnum::Constraint(constraint)) => self.constraint(constraint),
                Some(NodeEnum::TableLikeClause(like)) => {
                    self.on_made(Verb::Select, like.relation.as_ref());
                    self.takes_over(like.relation.as_ref());
                }
                _ => self.walk.opaque(),
            }
        }
        self.constraints(&create.constraints);
        self.bound(create.partbound.as_ref());
        for element in create.partspec.iter().flat_map(|partitions| &partitions.part_params) {
            match element.node.as_ref() {
                Some(NodeEnum::PartitionElem(element)) => self.walk.optional(element.expr.as_deref()),
                _ => self.walk.opaque(),
            }
        }
        if let Some(name) = &create.of_typename {
            self.walk.column_made_of(name);
        }
        self.keeps(Some(relation));
        if create.if_not_exists && relation.relpersistence != "t" {
            // What is there already may be a view.
            self.remake(Some(relation));
        }
        if relation.relpersistence != "t" {
            self.step(Step::Defined);
        }
    }

    fn constraints(&mut self, constraints: &'a [Node]) {
        for constraint in constraints {
            match constraint.node.as_ref() {
                Some(NodeEnum::Constraint(constraint)) => self.constraint(constraint),
                Some(NodeEnum::CollateClause(_)) => {}
                _ => self.walk.opaque(),
            }
        }
    }

    /// A default, a check, a generated column, an exclusion: it runs when somebody writes, and may show what it sees. A foreign key lets its table tell
    /// what is in another, and locks rows there.
    fn constraint(&mut self, constraint: &'a Constraint) {
        if ConstrType::try_from(constraint.contype) == Ok(ConstrType::ConstrForeign) {
            self.on_made(Verb::Select, constraint.pktable.as_ref());
        }
        self.walk.optional(constraint.raw_expr.as_deref());
        self.walk.optional(constraint.where_clause.as_deref());
        for exclusion in &constraint.exclusions {
            match list(exclusion) {
                Some([element, operator]) => {
                    self.walk.optional(Some(element));
                    match list(operator).and_then(strings).as_deref() {
                        Some([name]) => self.walk.operator("", name, Typed::Any, Typed::Any),
                        Some([schema, name]) => self.walk.operator(schema, name, Typed::Any, Typed::Any),
                        _ => self.walk.opaque(),
                    }
                }
                _ => self.walk.opaque(),
            }
        }
    }

    /// The bounds of a partition are computed at once.
    fn bound(&mut self, bound: Option<&'a PartitionBoundSpec>) {
        let data =
            bound.into_iter().flat_map(|bound| [&bound.listdatums, &bound.lowerdatums, &bound.upperdatums]);
        for datum in data.flatten() {
            match datum.node.as_ref() {
                Some(NodeEnum::PartitionRangeDatum(datum)) => self.walk.optional(datum.value.as_deref()),
                _ => self.walk.optional(Some(datum)),
            }
        }
    }

    fn policy(&mut self, table: Option<&RangeVar>, conditions: [Option<&'a Node>; 2]) {
        self.on_made(Verb::Alter, table);
        for condition in conditions {
            self.walk.optional(condition);
        }
        self.keeps(table);
        self.step(Step::Defined);
    }

    /// Whether what it keeps for later does something to the session: only the next catalog tells whoever uses it.
    fn moves(&self) -> bool {
        self.walk.wants.opaque || self.walk.wants.steps.iter().any(moves)
    }

    /// A relation keeps what was defined.
    fn keeps(&mut self, relation: Option<&RangeVar>) {
        if self.moves() {
            self.remake(relation);
        }
    }

    /// A type keeps what was defined: any table may have a column of it.
    fn domain_made(&mut self) {
        if self.moves() {
            self.step(Step::Unsettled);
        }
    }

    /// What is kept with a relation runs, or is kept with another as well.
    fn touches(&mut self, relation: Option<&RangeVar>) {
        for id in self.known(relation) {
            self.walk.touch(id, false);
        }
    }

    /// `LIKE`: what is kept with a relation is put somewhere else, by whoever makes that.
    fn takes_over(&mut self, relation: Option<&RangeVar>) {
        for id in self.known(relation) {
            self.walk.takes_over(id);
        }
    }

    fn known(&self, relation: Option<&RangeVar>) -> Vec<RelationId> {
        let resolve =
            |range: &RangeVar| self.state.resolve(self.walk.known, &range.schemaname, &range.relname);
        relation.map(resolve).unwrap_or_default().relations
    }

    fn alter_table(&mut self, command: &'a AlterTableCmd, table: Option<&RangeVar>) {
        let kind = AlterTableType::try_from(command.subtype);
        let definition = command.def.as_deref().and_then(|node| node.node.as_ref());
        match definition {
            None => {}
            _ if kind == Ok(AlterTableType::AtColumnDefault) => self.walk.optional(command.def.as_deref()),
            Some(NodeEnum::ColumnDef(column)) => self.alter_column(column),
            Some(NodeEnum::Constraint(constraint)) => self.constraint(constraint),
            Some(NodeEnum::PartitionCmd(partition)) => {
                self.bound(partition.bound.as_ref());
                self.on_made(Verb::Alter, partition.name.as_ref());
                self.remake(table);
                self.remake(partition.name.as_ref());
            }
            Some(NodeEnum::RangeVar(parent)) => {
                self.on_made(Verb::Alter, Some(parent));
                self.remake(Some(parent));
            }
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
        self.constraints(&column.constraints);
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
}

/// Whether what it makes runs nothing of its own when it is used: a session that is shown masks may make no functions, views, rules, triggers,
/// policies or defaults that look for it. (`CLUSTER` lays rows in the order of their values.)
fn runs_nothing_later(node: &NodeEnum) -> bool {
    matches!(
        node,
        NodeEnum::CreateStmt(_)
            | NodeEnum::CreateTableAsStmt(_)
            | NodeEnum::IndexStmt(_)
            | NodeEnum::DropStmt(_)
            | NodeEnum::TruncateStmt(_)
            | NodeEnum::LockStmt(_)
            | NodeEnum::RenameStmt(_)
            | NodeEnum::CommentStmt(_)
            | NodeEnum::CreateSeqStmt(_)
            | NodeEnum::AlterSeqStmt(_)
            | NodeEnum::CreateEnumStmt(_)
            | NodeEnum::CompositeTypeStmt(_)
            | NodeEnum::CallStmt(_)
            | NodeEnum::NotifyStmt(_)
            | NodeEnum::ListenStmt(_)
            | NodeEnum::UnlistenStmt(_)
            | NodeEnum::ConstraintsSetStmt(_)
            | NodeEnum::CheckPointStmt(_)
            | NodeEnum::VacuumStmt(_)
            | NodeEnum::ReindexStmt(_)
            | NodeEnum::RefreshMatViewStmt(_)
    )
}

//! What statements want that define, administer or remove something.

use std::sync::Arc;

use pg_query::protobuf::{
    AlterTableCmd, AlterTableType, ColumnDef, ConstrType, Constraint, CreateStmt, DropBehavior, DropStmt,
    GrantStmt, GrantTargetType, ObjectType, RangeVar,
};
use pg_query::{Node, NodeEnum};

use super::{Teller, is_relation, list};
use crate::action::{Object, Verb};
use crate::sql::query::strings;
use crate::sql::session::{Step, Value};
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
                Some(NodeEnum::Constraint(constraint)) => {
                    self.reference(constraint);
                    if constraint.raw_expr.is_some() && self.state.masking.masks() {
                        // A default or a check runs when somebody writes, and may show what it sees.
                        self.walk.optional(constraint.raw_expr.as_deref());
                    }
                }
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

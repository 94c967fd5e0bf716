//! Which objects a definition is about, whatever their kind, and which of them are made.

use std::sync::Arc;

use pg_query::protobuf::{ObjectType, RangeVar, RoleSpec, RoleSpecType};
use pg_query::{Node, NodeEnum};

use super::{Teller, is_relation};
use crate::action::{Object, Verb};
use crate::sql::purity;
use crate::sql::query::strings;
use crate::sql::session::Step;
use crate::sql::state::Made;

impl<'a> Teller<'a> {
    /// Does `verb` to an object of whatever kind.
    pub(super) fn on_object(
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
    pub(super) fn on_made(&mut self, verb: Verb, range: Option<&RangeVar>) {
        let Some(range) = range else { return self.walk.opaque() };
        let found = self.state.resolve(self.walk.known, &range.schemaname, &range.relname);
        if matches!(verb, Verb::Select | Verb::Alter | Verb::Create) {
            self.walk.exposes(&found.relations);
        }
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
    pub(super) fn remake(&mut self, range: Option<&RangeVar>) {
        match range {
            Some(range) => self.step(Step::Made(Arc::from(&*range.relname), Made::Somewhere)),
            None => self.step(Step::Unsettled),
        }
        self.step(Step::Defined);
    }

    pub(super) fn made_by_kind(&mut self, kind: Option<ObjectType>, name: &str) {
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

    pub(super) fn function_made(&mut self, name: &'a [Node]) {
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
    pub(super) fn function_named(&mut self, verb: Verb, name: &[Node]) {
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

    /// A function that an aggregate or a type is made of: an element with such a name.
    pub(super) fn support_function(&mut self, element: &'a Node, is_one: impl Fn(&str) -> bool) {
        let Some(NodeEnum::DefElem(element)) = element.node.as_ref() else { return self.walk.opaque() };
        if !is_one(&element.defname) {
            return;
        }
        let names = match element.arg.as_deref().and_then(|arg| arg.node.as_ref()) {
            Some(NodeEnum::TypeName(name)) => &name.names[..],
            Some(NodeEnum::List(list)) => &list.items[..],
            _ => return self.walk.opaque(),
        };
        let pure = matches!(strings(names).as_deref(), Some([.., name])
            if purity::is_pure(name) && self.walk.known.functions_named(name).is_empty());
        if !pure {
            self.function_named(Verb::Call, names);
        }
    }

    pub(super) fn type_made(&mut self, name: &'a [Node]) {
        self.made_in_schema(name);
        match strings(name).as_deref().and_then(<[&str]>::last) {
            Some(name) => self.step(Step::MadeType(Arc::from(*name))),
            None => self.walk.opaque(),
        }
    }

    /// Something else than a relation or a function is made in a schema.
    pub(super) fn made_in_schema(&mut self, name: &'a [Node]) {
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
    pub(super) fn in_schema_of(&mut self, verb: Verb, name: &[Node]) {
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

    pub(super) fn role(&mut self, role: &str) {
        self.act(Verb::Administer, Object::Role { role: Arc::from(role) });
    }

    pub(super) fn role_nodes(&mut self, roles: &'a [Node]) {
        for role in roles {
            match role.node.as_ref() {
                Some(NodeEnum::RoleSpec(role)) => self.role_spec(Some(role)),
                _ => self.walk.opaque(),
            }
        }
    }

    pub(super) fn role_spec(&mut self, role: Option<&RoleSpec>) {
        let Some(role) = role else { return self.on_database(Verb::Administer) };
        match RoleSpecType::try_from(role.roletype) {
            Ok(RoleSpecType::RolespecCstring) => self.role(&role.rolename),
            Ok(RoleSpecType::RolespecSessionUser) => match self.state.session_role() {
                Some(session) => self.role(&session),
                None => self.on_database(Verb::Administer),
            },
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

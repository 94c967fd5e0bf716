//! What names in expressions call: operators, functions, `row.function`, casts applied unasked, and settings.

use std::sync::Arc;

use pg_query::protobuf::{AIndirection, ColumnRef, FuncCall, RangeVar};
use pg_query::{Node, NodeEnum};

use super::{Setting, Source, Typed, Walk, constant_text, constant_truth, is_utf8, strings, truth, typed};
use crate::action::{Object, Verb};
use crate::sql::catalog::{Known, split_path};
use crate::sql::session::{Step, Value};
use crate::sql::{names, purity, setting};

/// Whether what it does is found in its constants.
fn is_special(function: &str) -> bool {
    matches!(function, "nextval" | "setval" | "set_config")
}

impl<'a> Walk<'a> {
    /// `column`, `alias.column`, and `alias.function`, which is a call.
    pub(super) fn column(&mut self, column: &'a ColumnRef) -> Typed {
        let mut fields = Vec::with_capacity(column.fields.len());
        for field in &column.fields {
            match field.node.as_ref() {
                Some(NodeEnum::String(name)) => fields.push(name.sval.as_str()),
                Some(NodeEnum::AStar(_)) => {
                    self.names_column(column, &fields, true);
                    return Typed::Any;
                }
                _ => {
                    self.opaque();
                    return Typed::Any;
                }
            }
        }
        self.names_column(column, &fields, false);
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

    pub(super) fn indirection(&mut self, indirection: &'a AIndirection) -> Typed {
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
    pub(in crate::sql) fn operator(&mut self, schema: &str, name: &str, left: Typed, right: Typed) {
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

    pub(super) fn function_call(&mut self, call: &'a FuncCall) -> Typed {
        let types = self.types(&call.args);
        self.all(&call.agg_order);
        self.optional(call.agg_filter.as_deref());
        if let Some(window) = call.over.as_deref() {
            self.window(window);
        }
        if self.is_written(call.location) {
            return Typed::Any;
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
        let only_builtin = if matches!(schema, "" | "pg_catalog") && is_special(name) {
            self.special(schema, name, &call.args)
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

    /// The function of that number, whatever it is given.
    pub(in crate::sql) fn numbered(&mut self, oid: u32) {
        let known = self.known;
        match known.function_numbered(oid) {
            Some((schema, name)) if &**schema == "pg_catalog" && is_special(name) => {
                self.special(schema, name, &[]);
            }
            Some((schema, name)) => _ = self.function(schema, name, &[], false),
            None => self.unresolved(),
        }
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
                self.wants.steps.push(Step::Anything);
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

    /// A call of something that is not pure. What it does to the session nobody knows.
    pub(in crate::sql) fn call(&mut self, schema: Arc<str>, function: Arc<str>) {
        self.wants.proven = false;
        if self.system {
            return;
        }
        if &*schema != "pg_catalog" {
            self.wants.steps.push(Step::Called);
        }
        let object = Object::Function { database: self.database.clone(), schema, function };
        self.act(Verb::Call, object);
    }

    /// `nextval`, `setval` and `set_config`: what they do depends on their constants.
    fn special(&mut self, schema: &str, name: &str, arguments: &[Node]) -> bool {
        self.wants.literals = true;
        self.wants.proven = false;
        let known = self.known;
        for function in self.state.functions(known, schema, name) {
            self.call(function.schema.clone(), Arc::from(name));
        }
        if name == "set_config" {
            self.set_config(arguments);
            return true;
        }
        let sequence = arguments.first().and_then(constant_text).and_then(names::qualified);
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

    fn set_config(&mut self, arguments: &[Node]) {
        let name = arguments.first().and_then(constant_text).map(setting::fold);
        let value = arguments.get(1).and_then(constant_text);
        let local = match arguments.get(2).map(constant_truth) {
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
    pub(in crate::sql) fn setting(&mut self, name: &str, value: Setting<'_>, local: bool) {
        self.wants.literals = true;
        match name {
            "search_path" => {
                let value = match value {
                    Setting::Text(text) => split_path(text).map_or(Value::Unknown, Value::Is),
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
                let session = name == "session_authorization";
                let becomes = match role.as_deref() {
                    Some("none" | "default") if session => self.state.authenticated(),
                    Some("none" | "default") => self.state.session_role(),
                    Some(role) => Some(Arc::from(role)),
                    None => None,
                };
                self.login(becomes, local);
                if session {
                    self.wants.steps.push(Step::Authorized);
                }
            }
            // As it was started, the session has the first of them on; the second is off for a new transaction that has neither.
            "default_transaction_read_only" | "transaction_read_only" if self.state.read_only => {
                let on = match value {
                    Setting::Text(text) => truth(text) == Some(true),
                    Setting::Names(names) => names.len() == 1 && truth(&names[0]) == Some(true),
                    Setting::Default => name == "default_transaction_read_only",
                    Setting::Unknown => false,
                };
                if !on {
                    self.set(name);
                }
            }
            _ if setting::is_harmless(name) => {}
            _ => self.set(name),
        }
    }

    pub(super) fn set(&mut self, name: &str) {
        self.wants.proven = false;
        let object = Object::Setting { database: self.database.clone(), setting: Arc::from(name) };
        self.act(Verb::Set, object);
    }

    /// Becoming a role; none where it cannot be told which.
    fn login(&mut self, role: Option<Arc<str>>, local: bool) {
        self.wants.proven = false;
        self.wants.steps.push(if local { Step::LocalRole(role.clone()) } else { Step::Role(role.clone()) });
        match role {
            Some(role) => self.act(Verb::Login, Object::Role { role }),
            None => self.opaque(),
        }
    }
}

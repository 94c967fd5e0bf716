//! What naming a type wants: making a value of it may run checks and casts.

use pg_query::protobuf::TypeName;

use super::{Typed, Walk, strings};
use crate::sql::catalog::{Known, RelationId};

impl<'a> Walk<'a> {
    /// A type: making a value of it can run the checks of a domain, a cast function, code of somebody's.
    pub(in crate::sql) fn type_name(&mut self, name: Option<&TypeName>) -> Typed {
        self.type_name_from(name, Typed::Any)
    }

    pub(super) fn type_name_from(&mut self, name: Option<&TypeName>, from: Typed) -> Typed {
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
            self.makes_rows(&relations.relations);
            return Typed::Any;
        }
        let known = self.known;
        let builtin = self.state.types(known, &schema, &name).iter().all(|&oid| Known::type_is_builtin(oid));
        if builtin { Typed::Builtin } else { Typed::Any }
    }

    pub(super) fn type_name_unless_ordinality(&mut self, name: Option<&TypeName>) {
        if name.is_some() {
            self.type_name(name);
        }
    }

    /// Uses a type by its name, if there is one.
    pub(super) fn type_named(&mut self, schema: &str, name: &str, from: Typed) -> bool {
        let known = self.known;
        let types = self.state.types(known, schema, name);
        if self.state.has_made_type(name) {
            self.opaque();
        }
        for &oid in &types {
            self.wants.proven &= known.type_input_is_inert(oid, 0);
            self.makes(oid);
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
    /// A column gets this type: what makes its values runs once somebody writes. A type that nobody knows is `serial`, or was made in this
    /// session, which was decided then.
    pub(in crate::sql) fn column_made_of(&mut self, name: &TypeName) {
        let (known, names) = (self.known, strings(&name.names));
        let (schema, name) = match names.as_deref() {
            Some([name]) => ("", *name),
            Some([.., schema, name]) => (*schema, *name),
            _ => return self.opaque(),
        };
        for oid in self.state.types(known, schema, name) {
            self.makes(oid);
        }
        let found = self.state.resolve(known, schema, name);
        self.makes_rows(&found.relations);
    }

    /// A parameter has the type of that number: its value is made when it is bound, and may be cast unasked.
    pub(in crate::sql) fn parameter(&mut self, oid: u32) {
        let known = self.known;
        self.wants.proven &= known.type_input_is_inert(oid, 0);
        self.makes(oid);
        for cast in known.casts_from(oid) {
            self.wants.proven = false;
            if let (Some((schema, function)), false) = (&cast.function, cast.computes) {
                self.call(schema.clone(), function.clone());
            }
        }
    }

    /// Values of a type are made: checks run, its own and those of what it is made of.
    fn makes(&mut self, oid: u32) {
        match self.known.checks_of(oid) {
            Some(checks) => {
                for stored in checks {
                    let below = self.stored(stored);
                    self.wants.include(&below.wants);
                }
            }
            None => self.unresolved(),
        }
    }

    pub(super) fn makes_rows(&mut self, relations: &[RelationId]) {
        let known = self.known;
        for &id in relations {
            let columns = known.relation(id).columns.iter();
            for column in columns.filter(|column| !Known::type_is_builtin(column.type_oid)) {
                self.makes(column.type_oid);
            }
        }
    }
}

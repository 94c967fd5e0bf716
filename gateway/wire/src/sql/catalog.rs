//! What the upstream's catalog says about names: an immutable snapshot.
//!
//! It is filled from text rows that somebody else fetched; it refuses rows that are malformed or too many. Objects that
//! ship with PostgreSQL have numbers below 16384: of their functions only the names are kept, because
//! [`purity`](super::purity) knows them; everything that somebody added is kept with what a proof needs.
//!
//! What a newcomer gets wrong: the snapshot is late. It is right about names that it knows, as of the moment when it was
//! read, and says nothing about a name that it does not know: such a name is unresolved, never absent.

mod queries;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

pub use queries::{CATALOG_QUERIES, CATALOG_SETUP, CatalogQuery, FINGERPRINT_QUERY};
use thiserror::Error;

use super::cache::Cache;
use super::mask::Sensitive;
use super::names;
use super::query::Below;
use crate::action::Object;

/// The rows of one query: text values, none for NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// Objects with smaller numbers ship with PostgreSQL (`FirstNormalObjectId`).
const FIRST_ADDED_OID: u32 = 16384;

/// Why rows make no catalog.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("catalog query {query}: {reason}")]
pub struct CatalogError {
    query: &'static str,
    reason: String,
}

/// An immutable snapshot of an upstream database's catalog. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Catalog {
    known: Arc<Known>,
    /// Counts the looks at the upstream that made or confirmed it.
    look: u64,
}

/// What a snapshot holds.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) server_version: u32,
    /// The search path of a session for which nothing else sets one; none where it cannot be told.
    path_default: Option<String>,
    /// `(for this database, role, path)`, see `pg_db_role_setting`.
    path_settings: Vec<(bool, Option<Arc<str>>, String)>,
    schemas: HashMap<Arc<str>, Schema>,
    superusers: HashSet<Arc<str>>,
    relations: Vec<Relation>,
    relations_by_name: HashMap<Arc<str>, Vec<RelationId>>,
    /// Which columns of a relation are sensitive.
    sensitive: HashMap<RelationId, Vec<SensitiveColumn>>,
    copies: Vec<Copied>,
    types: HashMap<u32, Type>,
    types_by_name: HashMap<Arc<str>, Vec<u32>>,
    builtins: HashSet<Arc<str>>,
    functions: HashMap<Arc<str>, Vec<Function>>,
    /// Every function by its number, also those that ship with PostgreSQL: what a FunctionCall names.
    numbers: HashMap<u32, FunctionName>,
    operators: HashMap<Arc<str>, Vec<Operator>>,
    casts: Vec<Cast>,
    /// The checks of a domain, and its default.
    checks: HashMap<u32, Vec<Stored>>,
    /// Row types and arrays of them, with the types in them that somebody added.
    rows: HashMap<u32, Vec<u32>>,
    /// By a relation's number, or a function's name with its schema: what differs after any change.
    versions: HashMap<String, String>,
    pub(super) cache: Cache,
}

/// A function's schema and its name.
type FunctionName = (Arc<str>, Arc<str>);

/// A relation's place in the snapshot.
pub(super) type RelationId = usize;

#[derive(Debug)]
struct Schema {
    owner: Option<Arc<str>>,
    /// Whether everybody may look into it.
    open: bool,
}

/// A table, view, index or sequence.
#[derive(Debug)]
pub(super) struct Relation {
    /// The number that the upstream gave it.
    pub(super) oid: u32,
    pub(super) schema: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    /// It ships with PostgreSQL.
    pub(super) system: bool,
    /// Reading its rows runs nothing: no row security, no access method of somebody's, no type with code of somebody's.
    pub(super) inert: bool,
    pub(super) has_triggers: bool,
    /// The table that an index is for.
    pub(super) index_of: Option<RelationId>,
    pub(super) parents: Vec<RelationId>,
    pub(super) children: Vec<RelationId>,
    pub(super) columns: Vec<Column>,
    /// The query of a view or materialised view.
    pub(super) definition: Option<String>,
    /// The rewrite rules for writes, as `CREATE RULE`.
    pub(super) rules: Vec<String>,
    /// What lies below a view; found when it is first asked for.
    pub(super) below: OnceLock<Arc<Below>>,
    /// Its defaults, checks and policies.
    pub(super) stored: Vec<Stored>,
    /// The relations whose foreign keys change with it.
    pub(super) referenced_by: Vec<RelationId>,
}

/// Expressions that the catalog keeps, and that run where what they stand on is used.
#[derive(Debug)]
pub(super) struct Stored {
    /// A query of them.
    pub(super) query: String,
    /// It runs where its relation is read, too.
    pub(super) at_reading: bool,
    /// What they want; found when it is first asked for.
    pub(super) below: OnceLock<Arc<Below>>,
}

impl Stored {
    fn new(expressions: &str, at_reading: bool) -> Self {
        Self { query: format!("SELECT {expressions}"), at_reading, below: OnceLock::new() }
    }
}

/// What kind of relation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    View,
    MaterializedView,
    Foreign,
    Sequence,
    Index,
}

/// A column that is declared sensitive, or that shows what such a one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SensitiveColumn {
    /// Its place in its relation.
    pub(super) place: usize,
    /// The place of what is declared among the declared columns.
    pub(super) declared: usize,
    /// It is computed from that: a mask that keeps a part of the value would keep any part of it here.
    pub(super) computed: bool,
}

/// A column that holds another's values: it references it, or is computed from it.
#[derive(Debug)]
struct Copied {
    relation: RelationId,
    column: Arc<str>,
    source: RelationId,
    source_column: Arc<str>,
    computed: bool,
}

/// A column of a relation.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: Arc<str>,
    pub(super) type_oid: u32,
}

/// A type.
#[derive(Debug)]
pub(super) struct Type {
    pub(super) schema: Arc<str>,
    name: Arc<str>,
    kind: u8,
    element: u32,
    base: u32,
    subtype: u32,
}

/// A function that somebody added.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) schema: Arc<str>,
    /// An extension's, in C, and declared immutable: it works on its arguments alone.
    pub(super) computes: bool,
    /// It can be called with one argument, and so also as `row.function`.
    pub(super) takes_one: bool,
    pub(super) arguments: Vec<u32>,
}

/// An operator that somebody added.
#[derive(Debug)]
pub(super) struct Operator {
    pub(super) schema: Arc<str>,
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) function_schema: Arc<str>,
    pub(super) function: Arc<str>,
    pub(super) computes: bool,
}

/// A cast that somebody added.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) source: u32,
    pub(super) target: u32,
    pub(super) implicit: bool,
    /// Its function, where it has one.
    pub(super) function: Option<FunctionName>,
    pub(super) computes: bool,
}

impl Catalog {
    /// Reads the rows of [`CATALOG_QUERIES`], in their order; `sensitive` are the columns that are declared so.
    ///
    /// # Errors
    /// When a query's rows are missing, too many or malformed.
    pub fn from_rows(rows: Vec<Rows>, sensitive: &[Sensitive]) -> Result<Self, CatalogError> {
        let mut known = Reading::new(rows)?.read()?;
        known.declare(sensitive);
        Ok(Self { known: Arc::new(known), look: 1 })
    }

    /// The columns of `declared` that no relation here has: a misspelt name, or one that was changed since.
    pub fn missing<'s>(&self, declared: &'s [Sensitive]) -> impl Iterator<Item = &'s Sensitive> {
        let known = self.known.clone();
        declared.iter().filter(move |column| known.declared_by(column).next().is_none())
    }

    /// A catalog that knows nothing: every name in a text stays unresolved.
    #[must_use]
    pub fn empty() -> Self {
        Self { known: Arc::new(Known::default()), look: 0 }
    }

    /// The same catalog, found unchanged by a look at [`FINGERPRINT_QUERY`] that began after the previous one had ended.
    ///
    /// A session that changed definitions distrusts the snapshot until two later looks have confirmed or replaced it.
    #[must_use]
    pub fn confirmed(&self) -> Self {
        Self { known: self.known.clone(), look: self.look + 1 }
    }

    /// This snapshot as the one that replaces `previous`; its reading began after the look before had ended.
    #[must_use]
    pub fn succeeding(self, previous: &Self) -> Self {
        Self { known: self.known, look: previous.look + 1 }
    }

    /// How many relations it knows.
    #[must_use]
    pub fn relations(&self) -> usize {
        self.known.relations.len()
    }

    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// Whether both hold the same, as one reading found it.
    pub(super) fn is_same(&self, other: &Catalog) -> bool {
        Arc::ptr_eq(&self.known, &other.known)
    }

    pub(super) fn look(&self) -> u64 {
        self.look
    }
}

impl Known {
    /// The search path that a new session of `role` has; none where it cannot be told.
    pub(super) fn search_path(&self, role: &str) -> Option<&str> {
        // The most particular wins: role in database, role, database (catalog `pg_db_role_setting`).
        let setting = |here: bool, role: Option<&str>| {
            self.path_settings
                .iter()
                .find(|(h, r, _)| *h == here && r.as_deref() == role)
                .map(|(_, _, path)| path.as_str())
        };
        setting(true, Some(role))
            .or_else(|| setting(false, Some(role)))
            .or_else(|| setting(true, None))
            .or_else(|| setting(false, None))
            .or(self.path_default.as_deref())
    }

    /// Whether `role` surely may look up names in `schema`: the server passes over schemas where it may not.
    pub(super) fn usable(&self, schema: &str, role: Option<&str>) -> bool {
        let Some(known) = self.schemas.get(schema) else { return false };
        known.open
            || role.is_some_and(|role| self.superusers.contains(role) || known.owner.as_deref() == Some(role))
    }

    pub(super) fn has_schema(&self, schema: &str) -> bool {
        self.schemas.contains_key(schema)
    }

    /// The relations that have a declared column.
    fn declared_by<'k>(&'k self, column: &'k Sensitive) -> impl Iterator<Item = RelationId> + 'k {
        let named = self.relations_named(&column.table).iter().copied();
        named.filter(|&id| {
            let relation = self.relation(id);
            relation.schema == column.schema && relation.has_column(&column.column)
        })
    }

    /// Notes which columns are sensitive: those declared, those by which parents and children show the same values, and those that hold
    /// them once more.
    fn declare(&mut self, sensitive: &[Sensitive]) {
        for (declared, column) in sensitive.iter().enumerate() {
            let mut next: Vec<(RelationId, Arc<str>, bool)> =
                self.declared_by(column).map(|id| (id, column.column.clone(), false)).collect();
            while let Some((id, name, computed)) = next.pop() {
                let relation = &self.relations[id];
                let Some(place) = relation.columns.iter().position(|known| known.name == name) else {
                    continue;
                };
                let known = self.sensitive.entry(id).or_default();
                if known.iter().any(|known| (known.place, known.declared) == (place, declared)) {
                    continue;
                }
                known.push(SensitiveColumn { place, declared, computed });
                let family = relation.children.iter().chain(&relation.parents);
                next.extend(family.map(|&other| (other, name.clone(), computed)));
                let copies =
                    self.copies.iter().filter(|copy| copy.source == id && copy.source_column == name);
                next.extend(
                    copies.map(|copy| (copy.relation, copy.column.clone(), computed || copy.computed)),
                );
            }
        }
    }

    /// What differs whenever anything was changed about the object; none where it is not known, or of another kind.
    pub(super) fn version(&self, object: &Object) -> Option<&str> {
        let key = match object {
            Object::Table { schema, table, .. } | Object::Column { schema, table, .. } => {
                self.number_of(schema, table)?.to_string()
            }
            Object::Function { schema, function, .. } => format!("{schema}.{function}"),
            _ => return None,
        };
        self.versions.get(&key).map(String::as_str)
    }

    /// Whether any column is sensitive.
    pub(super) fn has_sensitive(&self) -> bool {
        !self.sensitive.is_empty()
    }

    /// The sensitive columns of a relation.
    pub(super) fn sensitive(&self, id: RelationId) -> &[SensitiveColumn] {
        self.sensitive.get(&id).map_or(&[], Vec::as_slice)
    }

    /// A type's schema and its name.
    pub(super) fn type_name(&self, oid: u32) -> Option<(&str, &str)> {
        self.types.get(&oid).map(|found| (&*found.schema, &*found.name))
    }

    pub(super) fn relation(&self, id: RelationId) -> &Relation {
        &self.relations[id]
    }

    /// The number that the upstream gave a relation.
    pub(super) fn number_of(&self, schema: &str, name: &str) -> Option<u32> {
        let mut named = self.relations_named(name).iter().map(|&id| self.relation(id));
        named.find(|relation| &*relation.schema == schema).map(|relation| relation.oid)
    }

    /// Every relation of that name, whatever its schema.
    pub(super) fn relations_named(&self, name: &str) -> &[RelationId] {
        self.relations_by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// Every function of that name that somebody added.
    pub(super) fn functions_named(&self, name: &str) -> &[Function] {
        self.functions.get(name).map_or(&[], Vec::as_slice)
    }

    /// The schema and the name of the function of that number.
    pub(super) fn function_numbered(&self, oid: u32) -> Option<&FunctionName> {
        self.numbers.get(&oid)
    }

    /// Every operator of that name that somebody added.
    pub(super) fn operators_named(&self, name: &str) -> &[Operator] {
        self.operators.get(name).map_or(&[], Vec::as_slice)
    }

    /// Every type of that name, whatever its schema.
    pub(super) fn types_named(&self, name: &str) -> impl Iterator<Item = (u32, &Type)> {
        let numbers = self.types_by_name.get(name).map_or(&[][..], Vec::as_slice);
        numbers.iter().map(|number| (*number, &self.types[number]))
    }

    /// What making a value of the type runs: the checks of a domain, and those of what a type is made of. None where the type, or one of those, is
    /// not known.
    pub(super) fn checks_of(&self, oid: u32) -> Option<Vec<&Stored>> {
        let (mut checks, mut made_of, mut next) = (Vec::new(), vec![oid], 0);
        while let Some(&oid) = made_of.get(next) {
            next += 1;
            if Self::type_is_builtin(oid) {
                continue;
            }
            let found = self.types.get(&oid);
            let members = self.rows.get(&oid);
            if found.is_none() && members.is_none() {
                return None;
            }
            checks.extend(self.checks.get(&oid).into_iter().flatten());
            let parts = found.into_iter().flat_map(|found| [found.base, found.element, found.subtype]);
            for part in parts.chain(members.into_iter().flatten().copied()) {
                if !made_of.contains(&part) {
                    made_of.push(part);
                }
            }
        }
        Some(checks)
    }

    pub(super) fn casts_to(&self, target: u32) -> impl Iterator<Item = &Cast> {
        self.casts.iter().filter(move |cast| cast.target == target)
    }

    pub(super) fn casts_from(&self, source: u32) -> impl Iterator<Item = &Cast> {
        self.casts.iter().filter(move |cast| cast.source == source)
    }

    /// Casts from types that ship with PostgreSQL which the server may apply unasked.
    pub(super) fn loose_casts(&self) -> impl Iterator<Item = &Cast> {
        self.casts.iter().filter(|cast| cast.implicit && Self::type_is_builtin(cast.source))
    }

    /// Whether somebody added a cast that the server may apply unasked to a type that it ships with.
    pub(super) fn has_implicit_cast_from_builtin(&self) -> bool {
        self.casts.iter().any(|cast| cast.implicit && cast.source < FIRST_ADDED_OID)
    }

    /// Whether PostgreSQL ships a function of that name.
    pub(super) fn is_builtin(&self, function: &str) -> bool {
        self.builtins.contains(function)
    }

    /// Whether reading and showing values of the type runs only code that PostgreSQL ships.
    pub(super) fn type_is_inert(&self, oid: u32, depth: u8) -> bool {
        if oid < FIRST_ADDED_OID {
            return true;
        }
        let Some(found) = self.types.get(&oid).filter(|_| depth < 8) else { return false };
        match found.kind {
            b'e' => true,
            b'd' => self.type_is_inert(found.base, depth + 1),
            b'r' | b'm' => found.subtype != 0 && self.type_is_inert(found.subtype, depth + 1),
            b'b' => found.element != 0 && self.type_is_inert(found.element, depth + 1),
            _ => false,
        }
    }

    /// Whether making a value of the type from text runs only code that PostgreSQL ships: a domain has checks.
    pub(super) fn type_input_is_inert(&self, oid: u32, depth: u8) -> bool {
        if oid < FIRST_ADDED_OID {
            return true;
        }
        let Some(found) = self.types.get(&oid).filter(|_| depth < 8) else { return false };
        match found.kind {
            b'e' => true,
            b'b' => found.element != 0 && self.type_input_is_inert(found.element, depth + 1),
            _ => false,
        }
    }

    /// Whether a type ships with PostgreSQL.
    pub(super) fn type_is_builtin(oid: u32) -> bool {
        oid < FIRST_ADDED_OID
    }
}

impl Relation {
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| &*column.name == name)
    }

    pub(super) fn has_column(&self, name: &str) -> bool {
        self.column(name).is_some()
    }
}

/// Rows on their way into a [`Known`].
struct Reading {
    queries: std::iter::Zip<std::slice::Iter<'static, CatalogQuery>, std::vec::IntoIter<Rows>>,
    strings: HashSet<Arc<str>>,
}

/// One row, read from its left.
struct Row {
    query: &'static str,
    values: std::vec::IntoIter<Option<String>>,
}

impl Row {
    fn malformed(&self, reason: impl Into<String>) -> CatalogError {
        CatalogError { query: self.query, reason: reason.into() }
    }

    fn optional(&mut self) -> Result<Option<String>, CatalogError> {
        self.values.next().ok_or_else(|| self.malformed("a row is too short"))
    }

    fn text(&mut self) -> Result<String, CatalogError> {
        self.optional()?.ok_or_else(|| self.malformed("a value is missing"))
    }

    fn number(&mut self) -> Result<u32, CatalogError> {
        let text = self.text()?;
        text.parse().map_err(|_| self.malformed(format!("{text:?} is no object number")))
    }

    fn truth(&mut self) -> Result<bool, CatalogError> {
        match self.text()?.as_str() {
            "t" => Ok(true),
            "f" => Ok(false),
            other => Err(self.malformed(format!("{other:?} is no boolean"))),
        }
    }

    fn letter(&mut self) -> Result<u8, CatalogError> {
        match self.text()?.as_bytes() {
            [letter] => Ok(*letter),
            _ => Err(self.malformed("a kind is not one letter")),
        }
    }
}

impl Reading {
    fn new(rows: Vec<Rows>) -> Result<Self, CatalogError> {
        if rows.len() != CATALOG_QUERIES.len() {
            let reason = format!("rows of {} queries for {}", rows.len(), CATALOG_QUERIES.len());
            return Err(CatalogError { query: "all", reason });
        }
        Ok(Self { queries: CATALOG_QUERIES.iter().zip(rows), strings: HashSet::new() })
    }

    /// The rows of the next query, which must be `name`.
    fn next(&mut self, name: &'static str) -> Result<Vec<Row>, CatalogError> {
        let Some((query, rows)) = self.queries.next().filter(|(query, _)| query.name == name) else {
            return Err(CatalogError { query: name, reason: "it is not the next".to_owned() });
        };
        if rows.len() > query.rows_max {
            let reason = format!("{} rows are more than {}", rows.len(), query.rows_max);
            return Err(CatalogError { query: name, reason });
        }
        if rows.iter().any(|row| row.len() != query.columns) {
            let reason = format!("a row does not have {} columns", query.columns);
            return Err(CatalogError { query: name, reason });
        }
        Ok(rows.into_iter().map(|row| Row { query: name, values: row.into_iter() }).collect())
    }

    /// One `Arc` for each different string: names repeat a thousand times.
    fn intern(&mut self, text: String) -> Arc<str> {
        if let Some(known) = self.strings.get(text.as_str()) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.strings.insert(new.clone());
        new
    }

    fn read(mut self) -> Result<Known, CatalogError> {
        let mut known = Known::default();
        let looker = self.server(&mut known)?;
        self.next("path")?;
        for mut row in self.next("schemas")? {
            let name = self.intern(row.text()?);
            let owner = row.optional()?.map(|owner| self.intern(owner));
            known.schemas.insert(name, Schema { owner, open: row.truth()? });
        }
        for mut row in self.next("superusers")? {
            let role = self.intern(row.text()?);
            known.superusers.insert(role);
        }
        for mut row in self.next("settings")? {
            let (here, role) = (row.truth()?, row.optional()?);
            let role = role.map(|role| self.intern(role));
            known.path_settings.push((here, role, row.text()?));
        }
        // What was set for the role that looks hides what others have.
        let hidden = |(_, role, _): &(bool, Option<Arc<str>>, String)| {
            role.as_deref().is_none_or(|role| role == looker)
        };
        if known.path_settings.iter().any(hidden) {
            known.path_default = None;
        }
        let by_oid = self.relations(&mut known)?;
        self.columns(&mut known, &by_oid)?;
        self.types(&mut known)?;
        self.functions(&mut known)?;
        for mut row in self.next("checks")? {
            let (domain, expression) = (row.number()?, row.text()?);
            known.checks.entry(domain).or_default().push(Stored::new(&expression, false));
        }
        for mut row in self.next("rows")? {
            let (row_type, array, member) = (row.number()?, row.number()?, row.number()?);
            known.rows.entry(row_type).or_default().extend(Some(member).filter(|member| *member != 0));
            known.rows.insert(array, vec![row_type]);
        }
        for mut row in self.next("expressions")? {
            let (relation, at_reading, expressions) = (row.number()?, row.truth()?, row.text()?);
            if let Some(&relation) = by_oid.get(&relation) {
                known.relations[relation].stored.push(Stored::new(&expressions, at_reading));
            }
        }
        for mut row in self.next("numbers")? {
            let oid = row.number()?;
            let function = (self.intern(row.text()?), self.intern(row.text()?));
            known.numbers.insert(oid, function);
        }
        for mut row in self.next("children")? {
            let (child, parent) = (row.number()?, row.number()?);
            if let (Some(&child), Some(&parent)) = (by_oid.get(&child), by_oid.get(&parent)) {
                known.relations[parent].children.push(child);
                known.relations[child].parents.push(parent);
            }
        }
        for mut row in self.next("rules")? {
            let (table, text) = (row.number()?, row.text()?);
            if let Some(&table) = by_oid.get(&table) {
                known.relations[table].rules.push(text);
            }
        }
        for mut row in self.next("copies")? {
            let (relation, column) = (row.number()?, self.intern(row.text()?));
            let (source, source_column) = (row.number()?, self.intern(row.text()?));
            let computed = row.truth()?;
            if let (Some(&relation), Some(&source)) = (by_oid.get(&relation), by_oid.get(&source)) {
                if !computed && !known.relations[source].referenced_by.contains(&relation) {
                    known.relations[source].referenced_by.push(relation);
                }
                known.copies.push(Copied { relation, column, source, source_column, computed });
            }
        }
        for mut row in self.next("versions")? {
            let (object, version) = (row.text()?, row.text()?);
            known.versions.insert(object, version);
        }
        Self::find_inert(&mut known);
        Ok(known)
    }

    /// Reads the first query, and gives the role that asked it.
    fn server(&mut self, known: &mut Known) -> Result<String, CatalogError> {
        let [row] = &mut self.next("server")?[..] else {
            return Err(CatalogError { query: "server", reason: "it is not one row".to_owned() });
        };
        known.server_version = row.number()?;
        row.text()?;
        let (path, source) = (row.optional()?, row.text()?);
        // What a client asked for when it started says nothing about others.
        known.path_default = path.filter(|_| source != "client");
        row.text()
    }

    fn relations(&mut self, known: &mut Known) -> Result<HashMap<u32, RelationId>, CatalogError> {
        let rows = self.next("relations")?;
        let mut by_oid = HashMap::with_capacity(rows.len());
        let mut indexes = Vec::new();
        for mut row in rows {
            let id = known.relations.len();
            let oid = row.number()?;
            let (schema, name) = (self.intern(row.text()?), self.intern(row.text()?));
            let kind = match row.letter()? {
                b'r' | b'p' => Kind::Table,
                b'v' => Kind::View,
                b'm' => Kind::MaterializedView,
                b'f' => Kind::Foreign,
                b'S' => Kind::Sequence,
                b'i' | b'I' => Kind::Index,
                other => {
                    return Err(row.malformed(format!("relation kind {:?} is not known", char::from(other))));
                }
            };
            let (guarded, has_triggers) = (row.truth()?, row.truth()?);
            if let Some(table) = row.optional()? {
                indexes
                    .push((id, table.parse().map_err(|_| row.malformed("an index's table is no number"))?));
            }
            by_oid.insert(oid, id);
            known.relations_by_name.entry(name.clone()).or_default().push(id);
            known.relations.push(Relation {
                oid,
                system: oid < FIRST_ADDED_OID && matches!(&*schema, "pg_catalog" | "information_schema"),
                schema,
                name,
                kind,
                inert: !guarded && kind != Kind::Foreign,
                has_triggers,
                index_of: None,
                parents: Vec::new(),
                children: Vec::new(),
                columns: Vec::new(),
                definition: row.optional()?,
                rules: Vec::new(),
                below: OnceLock::new(),
                stored: Vec::new(),
                referenced_by: Vec::new(),
            });
        }
        for (index, table) in indexes {
            let table: u32 = table;
            known.relations[index].index_of = by_oid.get(&table).copied();
        }
        Ok(by_oid)
    }

    fn columns(&mut self, known: &mut Known, by_oid: &HashMap<u32, RelationId>) -> Result<(), CatalogError> {
        for mut row in self.next("columns")? {
            let (relation, name, type_oid) = (row.number()?, row.text()?, row.number()?);
            let name = self.intern(name);
            if let Some(&relation) = by_oid.get(&relation) {
                known.relations[relation].columns.push(Column { name, type_oid });
            }
        }
        Ok(())
    }

    fn types(&mut self, known: &mut Known) -> Result<(), CatalogError> {
        for mut row in self.next("types")? {
            let oid = row.number()?;
            let (schema, name) = (self.intern(row.text()?), self.intern(row.text()?));
            let kind = row.letter()?;
            let (element, base, subtype) = (row.number()?, row.number()?, row.number()?);
            known.types_by_name.entry(name.clone()).or_default().push(oid);
            known.types.insert(oid, Type { schema, name, kind, element, base, subtype });
        }
        Ok(())
    }

    fn functions(&mut self, known: &mut Known) -> Result<(), CatalogError> {
        for mut row in self.next("builtins")? {
            let name = self.intern(row.text()?);
            known.builtins.insert(name);
        }
        for mut row in self.next("functions")? {
            let (schema, name) = (self.intern(row.text()?), self.intern(row.text()?));
            let (volatility, language) = (row.letter()?, row.text()?);
            let (takes_one, extension) = (row.truth()?, row.truth()?);
            let computes = extension && volatility == b'i' && matches!(&*language, "c" | "internal");
            let arguments = row.text()?;
            let arguments: Result<Vec<u32>, _> = arguments.split_ascii_whitespace().map(str::parse).collect();
            let arguments = arguments.map_err(|_| row.malformed("an argument's type is no number"))?;
            known.functions.entry(name).or_default().push(Function {
                schema,
                computes,
                takes_one,
                arguments,
            });
        }
        for mut row in self.next("operators")? {
            let (schema, name) = (self.intern(row.text()?), self.intern(row.text()?));
            let (left, right) = (row.number()?, row.number()?);
            let (function_schema, function) = (self.intern(row.text()?), self.intern(row.text()?));
            let computes = row.truth()?;
            let operator = Operator { schema, left, right, function_schema, function, computes };
            known.operators.entry(name).or_default().push(operator);
        }
        for mut row in self.next("casts")? {
            let (source, target) = (row.number()?, row.number()?);
            let implicit = row.letter()? == b'i';
            let function = match (row.optional()?, row.optional()?) {
                (Some(schema), Some(name)) => Some((self.intern(schema), self.intern(name))),
                _ => None,
            };
            known.casts.push(Cast { source, target, implicit, function, computes: row.truth()? });
        }
        Ok(())
    }

    fn find_inert(known: &mut Known) {
        for id in 0..known.relations.len() {
            let columns = &known.relations[id].columns;
            let inert = columns.iter().all(|column| known.type_is_inert(column.type_oid, 0));
            known.relations[id].inert &= inert;
        }
    }
}

/// A search path as the server splits it; none where it would refuse it.
pub(super) fn split_path(text: &str) -> Option<Arc<[Arc<str>]>> {
    names::split_identifiers(text, ',').map(|names| names.into_iter().map(Arc::from).collect())
}

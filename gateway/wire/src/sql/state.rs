//! What names can stand for: the part of a session's state that resolution depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::catalog::{Function, Known, Operator, RelationId};
use super::mask::Masking;
use super::parse::Strings;
use crate::protocol::Roles;

/// How many search paths, and how many roles, are kept as possible before any is.
const POSSIBLE_MAX: usize = 8;

/// How many names of objects made in the session are kept.
const MADE_MAX: usize = 4096;

/// A search path as it was set; `$user` stands as it is.
pub(super) type Path = Arc<[Arc<str>]>;

/// Everything that the meaning of a name depends on besides the catalog. It is hashed once, so well that an equal hash is equality: sessions
/// share what was found out in states of the same hash, whoever chose their names.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) names: Names,
    session_role: Arc<str>,
    pub(super) masking: Masking,
    /// The upstream holds it to reading: what would lift that is no harmless setting.
    pub(super) read_only: bool,
    /// The possible search paths as the server looks through them; none: any.
    searches: Option<Vec<Search>>,
    id: blake3::Hash,
}

/// A search path with `$user` and `pg_catalog` in their places.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Search {
    schemas: Vec<Arc<str>>,
    role: Option<Arc<str>>,
}

/// See [`State`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Names {
    /// Possible search paths; none: any.
    pub(super) paths: Option<BTreeSet<Path>>,
    /// Possible current roles; none: any.
    pub(super) roles: Option<BTreeSet<Arc<str>>>,
    /// How backslashes can be read; both where none is sure.
    pub(super) strings: Option<Strings>,
    /// Objects that this session may have made, or changed, since the snapshot.
    pub(super) made: BTreeMap<Arc<str>, BTreeSet<Made>>,
    pub(super) made_functions: BTreeSet<Arc<str>>,
    pub(super) made_operators: BTreeSet<Arc<str>>,
    pub(super) made_types: BTreeSet<Arc<str>>,
    /// It changed definitions since the snapshot: nothing is proven.
    pub(super) changed: bool,
    /// It changed definitions in ways that are not followed: nothing is known.
    pub(super) unsettled: bool,
    /// More names than are kept may be temporary tables.
    pub(super) flooded: bool,
    /// It may have become another session role: nobody knows whom `NONE` stands for.
    pub(super) authorized: bool,
}

/// Where the session may have made a relation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Made {
    /// Among its temporary ones.
    Temporary,
    /// A plain table in a schema.
    In(Arc<str>),
    /// Dropped: behind it another schema's can come to light.
    Dropped,
    /// Somewhere, or it is no plain table, or it was changed.
    Somewhere,
}

/// Feeds a collision-resistant hash with what `Hash` tells of a value; of the names it tells lengths or ends, so that no two spell the same.
struct Digest(blake3::Hasher);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.finalize().as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

/// What a relation's name can stand for.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) relations: Vec<RelationId>,
    /// A temporary table of the session.
    pub(super) temporary: bool,
    /// Tables that the session made in these schemas, which the snapshot does not have.
    pub(super) made: Vec<Arc<str>>,
    /// It can be something else as well.
    pub(super) unresolved: bool,
}

impl State {
    pub(super) fn new(names: Names, session_role: Arc<str>, masking: Masking, read_only: bool) -> Self {
        let mut digest = Digest(blake3::Hasher::new());
        (&names, &session_role, &masking, read_only).hash(&mut digest);
        Self { id: digest.0.finalize(), searches: names.searches(), names, session_role, masking, read_only }
    }

    /// In which the catalog itself spells definitions: with every name qualified that is not PostgreSQL's own.
    pub(super) fn of_definitions(masking: Masking) -> Self {
        let path: Path = Arc::new([Arc::from("pg_catalog")]);
        Self::new(Names::new(Some(BTreeSet::from([path])), None), Arc::from(""), masking, false)
    }

    /// The role as which the session logged in; none in a definition, which runs in anybody's session.
    pub(super) fn authenticated(&self) -> Option<Arc<str>> {
        (!self.session_role.is_empty()).then(|| self.session_role.clone())
    }

    /// The role that `NONE` stands for; none where it cannot be told.
    pub(super) fn session_role(&self) -> Option<Arc<str>> {
        self.authenticated().filter(|_| !self.names.authorized)
    }

    /// As which roles a statement may run.
    pub(super) fn roles(&self) -> Roles {
        match &self.names.roles {
            Some(roles) if roles.len() == 1 && roles.contains(&self.session_role) => Roles::Login,
            Some(roles) => Roles::AnyOf(roles.iter().cloned().collect()),
            None => Roles::Unknown,
        }
    }

    /// The same for equal states, and for no others.
    pub(super) fn id(&self) -> &blake3::Hash {
        &self.id
    }

    /// What a relation's name, qualified or not, can stand for.
    pub(super) fn resolve(&self, known: &Known, schema: &str, name: &str) -> Found {
        let mut found = Found::default();
        let made = self.names.made.get(name);
        if self.names.unsettled {
            found.unresolved = true;
        }
        if schema == "pg_temp" || schema.starts_with("pg_temp_") {
            found.temporary = true;
            return found;
        }
        let all = known.relations_named(name);
        if !schema.is_empty() {
            found.relations =
                all.iter().copied().filter(|&id| *known.relation(id).schema == *schema).collect();
            self.add_made(&mut found, made, Some(schema));
            return found;
        }
        match &self.searches {
            None => {
                found.relations = all.to_vec();
                self.add_made(&mut found, made, None);
            }
            Some(paths) => {
                let dropped = made.is_some_and(|made| made.contains(&Made::Dropped));
                let mut somewhere_missing = false;
                for Search { schemas, role } in paths {
                    let mut stopped = false;
                    for schema in schemas {
                        let here = all.iter().copied().find(|&id| *known.relation(id).schema == **schema);
                        if let Some(id) = here {
                            if !found.relations.contains(&id) {
                                found.relations.push(id);
                            }
                            // The server passes over a schema where the role may not look.
                            if !dropped && known.usable(schema, role.as_deref()) {
                                stopped = true;
                                break;
                            }
                        }
                    }
                    somewhere_missing |= !stopped;
                }
                let empty = found.relations.is_empty();
                self.add_made(&mut found, made, None);
                found.unresolved |= somewhere_missing && empty && !found.temporary && found.made.is_empty();
            }
        }
        found.temporary |= self.names.flooded;
        found
    }

    fn add_made(&self, found: &mut Found, made: Option<&BTreeSet<Made>>, schema: Option<&str>) {
        for made in made.into_iter().flatten() {
            match made {
                Made::Temporary => found.temporary |= schema.is_none(),
                Made::In(there) if schema.is_none_or(|schema| schema == &**there) => {
                    found.made.push(there.clone())
                }
                Made::In(_) | Made::Dropped => {}
                Made::Somewhere => found.unresolved = true,
            }
        }
        found.unresolved |= found.relations.is_empty() && found.made.is_empty() && !found.temporary;
    }

    /// Schemas in which functions, operators and types are looked for; none: all.
    fn reach(&self) -> Option<BTreeSet<Arc<str>>> {
        Some(self.searches.as_ref()?.iter().flat_map(|search| search.schemas.iter().cloned()).collect())
    }

    /// The schemas in which an unqualified name is looked for; none: any.
    pub(super) fn schemas(&self) -> Option<BTreeSet<Arc<str>>> {
        self.reach()
    }

    /// Whether something in `there` can be meant.
    fn in_reach<'k>(&self, schema: &'k str) -> impl Fn(&str) -> bool + use<'k> {
        let reach = if schema.is_empty() { self.reach() } else { None };
        let qualified = !schema.is_empty();
        move |there| {
            if qualified { there == schema } else { reach.as_ref().is_none_or(|reach| reach.contains(there)) }
        }
    }

    /// The functions of that name that somebody added and that can be meant.
    pub(super) fn functions<'k>(&self, known: &'k Known, schema: &str, name: &str) -> Vec<&'k Function> {
        let all = known.functions_named(name);
        if all.is_empty() {
            return Vec::new();
        }
        let reach = self.in_reach(schema);
        all.iter().filter(|function| reach(&function.schema)).collect()
    }

    /// The operators of that name that somebody added and that can be meant.
    pub(super) fn operators<'k>(&self, known: &'k Known, schema: &str, name: &str) -> Vec<&'k Operator> {
        let all = known.operators_named(name);
        if all.is_empty() {
            return Vec::new();
        }
        let reach = self.in_reach(schema);
        all.iter().filter(|operator| reach(&operator.schema)).collect()
    }

    /// The types of that name that can be meant.
    pub(super) fn types(&self, known: &Known, schema: &str, name: &str) -> Vec<u32> {
        let reach = self.in_reach(schema);
        known.types_named(name).filter(|(_, found)| reach(&found.schema)).map(|(oid, _)| oid).collect()
    }

    pub(super) fn has_made_function(&self, name: &str) -> bool {
        self.names.unsettled || self.names.made_functions.contains(name)
    }

    pub(super) fn has_made_operator(&self, name: &str) -> bool {
        self.names.made_operators.contains(name)
    }

    pub(super) fn has_made_type(&self, name: &str) -> bool {
        self.names.made_types.contains(name)
    }

    /// The schemas in which an unqualified new object can land: the first that is there; none where it cannot be told.
    pub(super) fn creation_schemas(&self, known: &Known) -> Vec<Option<Arc<str>>> {
        let Some(paths) = self.names.paths.as_ref() else { return vec![None] };
        let mut schemas = BTreeSet::new();
        for path in paths {
            for role in self.names.roles.iter().flatten() {
                let named = path.iter().map(|schema| if &**schema == "$user" { role } else { schema });
                let first =
                    named.clone().find(|schema| known.has_schema(schema) && known.usable(schema, Some(role)));
                // A schema where it may not look is passed over; whether it may is not always known.
                let doubtful =
                    named.filter(|schema| known.has_schema(schema) && !known.usable(schema, Some(role)));
                schemas.extend(doubtful.map(|schema| Some(schema.clone())));
                schemas.insert(first.cloned());
            }
        }
        if schemas.is_empty() || self.names.roles.is_none() {
            schemas.insert(None);
        }
        schemas.into_iter().collect()
    }
}

impl Names {
    pub(super) fn new(paths: Option<BTreeSet<Path>>, role: Option<Arc<str>>) -> Self {
        Self {
            paths,
            roles: role.map(|role| BTreeSet::from([role])),
            strings: Some(Strings::Standard),
            made: BTreeMap::new(),
            made_functions: BTreeSet::new(),
            made_operators: BTreeSet::new(),
            made_types: BTreeSet::new(),
            changed: false,
            unsettled: false,
            flooded: false,
            authorized: false,
        }
    }

    fn searches(&self) -> Option<Vec<Search>> {
        let paths = self.paths.as_ref()?;
        let roles: Vec<Option<Arc<str>>> = match &self.roles {
            Some(roles) => roles.iter().cloned().map(Some).collect(),
            None => vec![None],
        };
        let mut searches = Vec::with_capacity(paths.len() * roles.len());
        for path in paths {
            for role in &roles {
                let mut schemas = Vec::with_capacity(path.len() + 1);
                if !path.iter().any(|schema| &**schema == "pg_catalog") {
                    schemas.push(Arc::from("pg_catalog"));
                }
                for schema in path.iter() {
                    match (&**schema, role) {
                        ("$user", Some(role)) => schemas.push(role.clone()),
                        // Any schema can have the name of a role.
                        ("$user", None) => return None,
                        _ => schemas.push(schema.clone()),
                    }
                }
                searches.push(Search { schemas, role: role.clone() });
            }
        }
        Some(searches)
    }

    pub(super) fn path_possible(&mut self, path: Option<Path>) {
        self.paths = match (self.paths.take(), path) {
            (Some(mut paths), Some(path)) => {
                paths.insert(path);
                Some(paths).filter(|paths| paths.len() <= POSSIBLE_MAX)
            }
            _ => None,
        };
    }

    pub(super) fn role_possible(&mut self, role: Option<Arc<str>>) {
        self.roles = match (self.roles.take(), role) {
            (Some(mut roles), Some(role)) => {
                roles.insert(role);
                Some(roles).filter(|roles| roles.len() <= POSSIBLE_MAX)
            }
            _ => None,
        };
    }

    pub(super) fn made_possible(&mut self, name: Arc<str>, made: Made) {
        if self.made.len() >= MADE_MAX && !self.made.contains_key(&name) {
            self.flooded = true;
            self.unsettled |= made != Made::Temporary;
            return;
        }
        self.made.entry(name).or_default().insert(made);
    }

    /// Forgets what the next snapshot has: all but temporary objects.
    pub(super) fn settled_definitions(&self) -> Names {
        let mut names = self.clone();
        for made in names.made.values_mut() {
            made.retain(|made| *made == Made::Temporary);
        }
        names.made.retain(|_, made| !made.is_empty());
        names.made_functions.clear();
        names.made_operators.clear();
        names.made_types.clear();
        names.unsettled = false;
        names.changed = false;
        names
    }
}

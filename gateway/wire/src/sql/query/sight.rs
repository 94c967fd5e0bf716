//! What a statement sees of sensitive columns, and how it is kept from seeing them.
//!
//! A relation with masked columns gives way, where a FROM clause names it, to a query that yields masks in their place: the server itself
//! then never computes with a clear value, so that predicates, casts, whole rows and error texts are harmless by construction. A view over
//! such a relation gives way to its own definition, with the same done inside. What cannot give way is *exposed*: it needs `unmask`.
//!
//! The relation that a statement writes to stays itself, so what such a statement reads of it is watched by name (a [`Guard`]): a sensitive
//! column, a star or a whole row of it is exposed.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{ColumnRef, RangeVar};

use super::{VIEW_DEPTH_MAX, Walk};
use crate::action::{Action, Object, Verb};
use crate::protocol::Masked;
use crate::sql::catalog::{Kind, RelationId, SensitiveColumn};
use crate::sql::mask::{self, Mask, Masking};
use crate::sql::names::quoted;
use crate::sql::parse::{self, Strings};
use crate::sql::purity;
use crate::sql::splice::{Edit, EditKind, splice};
use crate::sql::state::State;

/// What a statement sees of sensitive columns, by their places among the declared ones.
#[derive(Debug, Default)]
pub(in crate::sql) struct Sight {
    /// Not masked for this session.
    pub(in crate::sql) clear: BTreeSet<usize>,
    /// Masked, once the edits are made.
    pub(in crate::sql) masked: BTreeSet<usize>,
    /// Masked for this session, and seen where nothing can be edited.
    pub(in crate::sql) exposed: BTreeSet<usize>,
    pub(in crate::sql) edits: Vec<Edit>,
    /// It makes a definition that outlives the session: what it names stays named.
    pub(in crate::sql) defines: bool,
    guards: Vec<Guard>,
    /// Relations with statements of other sessions, in which values stand that are masked here.
    overheard: Vec<Guard>,
}

/// What is watched while a statement writes to a relation with masked columns.
#[derive(Debug)]
struct Guard {
    /// The names under which the relation's rows can be named as a whole.
    rows: Vec<String>,
    /// Its masked columns, and where they stand among the declared ones.
    masked: Vec<(Arc<str>, usize)>,
    columns: Vec<Arc<str>>,
    /// `excluded` is what the client itself wanted to insert.
    excluded: bool,
}

impl Sight {
    /// What a rule shows it shows in clear: its text is the owner's, and cannot be edited.
    pub(super) fn sees_in_a_rule(&mut self, rule: Sight) {
        self.clear.extend(rule.clear);
        self.exposed.extend(rule.masked);
        self.exposed.extend(rule.exposed);
    }
}

impl<'a> Walk<'a> {
    fn masking(&self) -> &'a Masking {
        &self.state.masking
    }

    /// Whether the gateway itself wrote what stands there.
    pub(super) fn is_written(&self, location: i32) -> bool {
        usize::try_from(location).is_ok_and(|at| self.written.iter().any(|range| range.contains(&at)))
    }

    /// The declared columns that reading a relation can show.
    fn reach(&mut self, id: RelationId) -> BTreeSet<usize> {
        let known = self.known;
        let of = |id: RelationId| known.sensitive(id).iter().map(|column| column.declared);
        let mut reach: BTreeSet<usize> = of(id).collect();
        let relation = known.relation(id);
        if matches!(relation.kind, Kind::View | Kind::MaterializedView) && !relation.system {
            for action in &self.below(id).wants.actions {
                let Object::Table { schema, table, .. } = &action.object else { continue };
                if action.verb == Verb::Select {
                    let below = known.relations_named(table).iter().copied();
                    reach.extend(below.filter(|&id| known.relation(id).schema == *schema).flat_map(of));
                }
            }
        }
        reach
    }

    /// The masked columns that reading any of these can show; those that are not masked are noted.
    fn masked_reach(&mut self, relations: &[RelationId]) -> BTreeSet<usize> {
        if !self.known.has_sensitive() {
            return BTreeSet::new();
        }
        let masking = self.masking();
        let reach: BTreeSet<usize> = relations.iter().flat_map(|&id| self.reach(id)).collect();
        let (masked, clear) = reach.into_iter().partition(|&declared| masking.is_masked(declared));
        self.sight.clear.extend::<BTreeSet<usize>>(clear);
        masked
    }

    /// A FROM clause names what can be any of these; `sure` where it is one of them and nothing else.
    pub(super) fn sees(&mut self, range: &RangeVar, relations: &[RelationId], sure: bool) {
        if self.is_written(range.location) {
            return;
        }
        self.overhears(range, relations);
        let masked = self.masked_reach(relations);
        if masked.is_empty() {
            return self.pins(range, relations, sure);
        }
        let alias = range.alias.is_none().then(|| quoted(&range.relname));
        let query = match relations {
            [id] if sure && !self.sight.defines => self.masked_query(*id, !range.inh),
            _ => None,
        };
        self.edit(range.location, query.map(|query| EditKind::Relation { query, alias }), masked);
    }

    /// A relation that shows what other sessions run is watched, to the end of the statement, for the column with their texts.
    fn overhears(&mut self, range: &RangeVar, relations: &[RelationId]) {
        let (known, masking) = (self.known, self.masking());
        let shows = |id: &&RelationId| {
            let relation = known.relation(**id);
            relation.system && purity::shows_statements(&relation.name)
        };
        let Some(&id) = relations.iter().find(shows).filter(|_| masking.masks()) else { return };
        let masked = (0..masking.declared().len()).filter(|&at| masking.is_masked(at));
        let alias = range.alias.as_ref().map_or(&range.relname, |alias| &alias.aliasname);
        self.sight.overheard.push(Guard {
            rows: vec![alias.clone()],
            masked: masked.map(|at| (Arc::from("query"), at)).collect(),
            columns: known.relation(id).columns.iter().map(|column| column.name.clone()).collect(),
            excluded: false,
        });
        if range.alias.as_ref().is_some_and(|alias| !alias.colnames.is_empty()) {
            self.exposes_everything();
        }
    }

    /// A join compares the columns of one name.
    pub(super) fn joins(&mut self, natural: bool, using: &[pg_query::Node]) {
        let named = super::strings(using).is_none_or(|names| names.contains(&"query"));
        if (natural || named) && !self.sight.overheard.is_empty() {
            self.exposes_everything();
        }
    }

    /// `COPY relation TO`: the relation alone, without its children.
    pub(in crate::sql) fn copies(&mut self, range: &RangeVar, columns: Option<Vec<&str>>) {
        let found = self.state.resolve(self.known, &range.schemaname, &range.relname);
        let masked = self.masked_reach(&found.relations);
        self.overhears(range, &found.relations);
        if !self.sight.overheard.is_empty() {
            self.exposes_everything();
        }
        let sure = !found.temporary && found.made.is_empty() && !found.unresolved;
        if masked.is_empty() {
            return self.pins(range, &found.relations, sure);
        }
        let listed = columns.as_ref().is_some_and(|columns| !columns.is_empty());
        let query = match (&found.relations[..], columns) {
            ([id], Some(columns)) if sure => self.masked_query(*id, true).map(|query| {
                let list: Vec<String> = columns.into_iter().map(quoted).collect();
                let list = if list.is_empty() { "*".to_owned() } else { list.join(", ") };
                format!("SELECT {list} FROM ({query}) AS {}", quoted(&range.relname))
            }),
            _ => None,
        };
        self.edit(range.location, query.map(|query| EditKind::Copy { query, listed }), masked);
    }

    /// A bare name that stands for something without masks now, and for something masked once another session has changed what there
    /// is: it is sent as what it stands for now.
    fn pins(&mut self, range: &RangeVar, relations: &[RelationId], sure: bool) {
        let (known, masking) = (self.known, self.masking());
        if !range.schemaname.is_empty() || !known.has_sensitive() {
            return;
        }
        let namesakes = known.relations_named(&range.relname).iter().filter(|id| !relations.contains(id));
        let masked: BTreeSet<usize> = namesakes
            .flat_map(|&id| self.reach(id))
            .filter(|&declared| masking.is_masked(declared))
            .collect();
        if masked.is_empty() {
            return;
        }
        match (relations, usize::try_from(range.location)) {
            ([id], Ok(at)) if sure && !self.sight.defines => {
                let relation = known.relation(*id);
                let name = format!("{}.{}", quoted(&relation.schema), quoted(&relation.name));
                self.sight.edits.push(Edit { at, kind: EditKind::Name(name) });
            }
            _ => self.sight.exposed.extend(masked),
        }
    }

    fn edit(&mut self, location: i32, kind: Option<EditKind>, masked: BTreeSet<usize>) {
        match (kind, usize::try_from(location)) {
            (Some(kind), Ok(at)) => {
                self.sight.masked.extend(masked);
                self.sight.edits.push(Edit { at, kind });
            }
            _ => self.sight.exposed.extend(masked),
        }
    }

    /// A statement that is no query names these; what is sensitive in them is exposed.
    pub(in crate::sql) fn exposes(&mut self, relations: &[RelationId]) {
        let masked = self.masked_reach(relations);
        self.sight.exposed.extend(masked);
    }

    /// It makes something that runs later, out of sight: all that is masked is exposed.
    pub(in crate::sql) fn exposes_everything(&mut self) {
        let masking = self.masking();
        self.sight.exposed.extend((0..masking.declared().len()).filter(|&at| masking.is_masked(at)));
    }

    /// The query that takes a relation's place: none where its columns cannot be masked.
    fn masked_query(&mut self, id: RelationId, only: bool) -> Option<String> {
        let known = self.known;
        let relation = known.relation(id);
        let own: Vec<SensitiveColumn> = known
            .sensitive(id)
            .iter()
            .copied()
            .filter(|column| self.masking().is_masked(column.declared))
            .collect();
        let from = match relation.kind {
            Kind::MaterializedView if own.len() < self.masked_reach(&[id]).len() => return None,
            Kind::View if !relation.system => self.masked_definition(id)?,
            Kind::Table | Kind::Foreign | Kind::MaterializedView => {
                let only = if only { "ONLY " } else { "" };
                format!("{only}{}.{}", quoted(&relation.schema), quoted(&relation.name))
            }
            _ => return None,
        };
        let columns: Option<Vec<String>> = relation
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| {
                let Some(sensitive) = own.iter().find(|own| own.place == place) else {
                    return Some(quoted(&column.name));
                };
                let (schema, name) = known.type_name(column.type_oid)?;
                let computed = own.iter().any(|own| own.place == place && own.computed);
                let mask = match self.masking().declared()[sensitive.declared].mask {
                    _ if computed => Mask::Redact,
                    mask => mask,
                };
                let expression = mask::expression(mask, &column.name, schema, name);
                Some(format!("{expression} AS {}", quoted(&column.name)))
            })
            .collect();
        Some(format!("SELECT {} FROM {from}", columns?.join(", ")))
    }

    /// A view's own query, with what is sensitive below it masked.
    fn masked_definition(&mut self, id: RelationId) -> Option<String> {
        let relation = self.known.relation(id);
        if self.view_depth >= VIEW_DEPTH_MAX {
            return None;
        }
        let definition = relation.definition.as_deref()?.trim_end().trim_end_matches(';');
        let state = State::of_definitions(self.masking().clone());
        let walked = |text: &str, written: &[Range<usize>]| {
            let tree = parse::parse(text, Strings::Standard).ok()?;
            let [statement] = &tree.stmts[..] else { return None };
            let Some(NodeEnum::SelectStmt(select)) = statement.stmt.as_ref()?.node.as_ref() else {
                return None;
            };
            let mut walk = Walk::new(self.known, &state, self.database);
            walk.view_depth = self.view_depth + 1;
            walk.written = written;
            walk.select(select);
            (!walk.wants.opaque && walk.sight.exposed.is_empty()).then_some(walk.sight.edits)
        };
        let text = match walked(definition, &[])? {
            edits if edits.is_empty() => definition.to_owned(),
            edits => {
                let spliced = splice(definition, edits)?;
                let written: Vec<Range<usize>> =
                    spliced.places.iter().map(|(_, written)| written.clone()).collect();
                walked(&spliced.text, &written)?.is_empty().then_some(spliced.text)?
            }
        };
        Some(format!("({text}) AS {}", quoted(&relation.name)))
    }

    // ---- writes ----------------------------------------------------------------------------------------------------

    /// Watches what a statement reads of the relation that it writes to, until [`Walk::unguard`].
    pub(super) fn guard(&mut self, range: Option<&RangeVar>, excluded: bool) {
        let mut guard = Guard { rows: Vec::new(), masked: Vec::new(), columns: Vec::new(), excluded };
        if let Some(range) = range
            && self.known.has_sensitive()
        {
            let (known, masking) = (self.known, self.masking());
            let found = self.state.resolve(known, &range.schemaname, &range.relname);
            if !self.is_written(range.location) && self.masked_reach(&found.relations).is_empty() {
                let sure = !found.temporary && found.made.is_empty() && !found.unresolved;
                self.pins(range, &found.relations, sure);
            }
            for &id in &found.relations {
                let relation = known.relation(id);
                let own = known.sensitive(id).iter().filter(|column| masking.is_masked(column.declared));
                guard
                    .masked
                    .extend(own.map(|column| (relation.columns[column.place].name.clone(), column.declared)));
                guard.columns.extend(relation.columns.iter().map(|column| column.name.clone()));
                if matches!(relation.kind, Kind::View) {
                    // Its columns have names of their own: any of them may be one that is masked below.
                    let below = self.masked_reach(&[id]);
                    let columns = relation.columns.iter().map(|column| column.name.clone());
                    guard
                        .masked
                        .extend(columns.flat_map(|name| below.iter().map(move |&at| (name.clone(), at))));
                } else {
                    self.masked_reach(&[id]);
                }
            }
            let alias = range.alias.as_ref().map_or(&range.relname, |alias| &alias.aliasname);
            guard.rows = [alias.as_str(), "old", "new", "excluded"].map(str::to_owned).to_vec();
            guard.excluded &= alias != "excluded";
            let renamed = range.alias.as_ref().is_some_and(|alias| !alias.colnames.is_empty());
            if renamed && !guard.masked.is_empty() {
                self.sight.exposed.extend(guard.masked.iter().map(|(_, declared)| *declared));
            }
        }
        self.sight.guards.push(guard);
    }

    pub(super) fn unguard(&mut self) {
        self.sight.guards.pop();
    }

    /// Everything that is masked in the relations being written to is exposed.
    pub(super) fn exposes_guarded(&mut self) {
        let guarded: Vec<usize> =
            self.sight.guards.iter().flat_map(|guard| &guard.masked).map(|(_, at)| *at).collect();
        self.sight.exposed.extend(guarded);
    }

    /// A column is named; `star` for `*`, with what stands before it.
    pub(super) fn names_column(&mut self, column: &ColumnRef, fields: &[&str], star: bool) {
        if self.is_written(column.location) {
            return;
        }
        let watched = |guard: &Guard| {
            let own = guard.excluded && matches!(fields, ["excluded", _]) && !star;
            let row = |name: &str| guard.rows.iter().any(|row| row == name);
            let named = fields.iter().any(|field| guard.masked.iter().any(|(name, _)| **name == **field));
            let whole = match fields {
                _ if star => true,
                [name] => row(name),
                // A field of the row that is no column is a function of the row.
                [.., alias, name] => row(alias) && !guard.columns.iter().any(|column| **column == **name),
                [] => true,
            };
            !guard.masked.is_empty() && !own && (named || whole)
        };
        if self.sight.guards.iter().any(watched) {
            self.exposes_guarded();
        }
        if self.sight.overheard.iter().any(watched) {
            self.exposes_everything();
        }
        // Its table stands under its bare name once it has given way.
        let relation = if star { fields } else { fields.split_last().map_or(fields, |(_, before)| before) };
        if let [before @ .., schema, table] = relation
            && self.known.has_sensitive()
        {
            let found = self.state.resolve(self.known, schema, table);
            if !self.masked_reach(&found.relations).is_empty() {
                let kind = EditKind::Qualifier { parts: before.len() + 1 };
                self.edit(column.location, Some(kind), BTreeSet::new());
            }
        }
    }

    // ---- the end ---------------------------------------------------------------------------------------------------

    /// The permissions that the statement needs to see what it sees, given all of its actions.
    pub(in crate::sql) fn unmask(&self, actions: &BTreeSet<Action>) -> Vec<Action> {
        let masking = self.masking();
        let anything = self.wants.opaque
            || actions.iter().any(|action| match (&action.verb, &action.object) {
                (Verb::Opaque, _) => true,
                (Verb::Call, Object::Function { schema, function, .. }) => {
                    &**schema != "pg_catalog" || !purity::shows_nothing(function)
                }
                _ => false,
            });
        let declared = masking.declared().iter().enumerate();
        let needed = declared.filter(|(at, _)| {
            anything
                || self.sight.clear.contains(at)
                || self.sight.exposed.contains(at)
                || (!self.sight.exposed.is_empty() && self.sight.masked.contains(at))
        });
        needed
            .map(|(_, column)| Action { verb: Verb::Unmask, object: column.object(self.database) })
            .collect()
    }

    /// The columns that are masked, and how.
    pub(in crate::sql) fn masks(&self) -> Vec<Masked> {
        let declared = self.masking().declared();
        let masked = self.sight.masked.iter().filter_map(|&at| declared.get(at));
        masked
            .map(|column| Masked { column: column.object(self.database), mask: column.mask.name() })
            .collect()
    }
}

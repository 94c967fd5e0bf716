//! What naming a relation wants: its family, what lies below a view, what a rewrite rule does.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use pg_query::NodeEnum;
use pg_query::protobuf::RangeVar;

use super::{Below, FAMILY_MAX, VIEW_DEPTH_MAX, Walk};
use crate::action::Verb;
use crate::sql::catalog::{Column, Kind, Known, Relation, RelationId, Stored};
use crate::sql::mask::Masking;
use crate::sql::parse;
use crate::sql::purity;
use crate::sql::session::Step;
use crate::sql::state::State;

impl<'a> Walk<'a> {
    /// The relations that a name can stand for in the states that are possible now. What cannot be found is marked.
    pub(in crate::sql) fn resolve(&mut self, schema: &str, name: &str) -> Vec<RelationId> {
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
    pub(in crate::sql) fn on_relation(&mut self, verb: Verb, range: &RangeVar) {
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

    pub(super) fn read(&mut self, id: RelationId) {
        for member in self.family(id) {
            let relation = self.known.relation(member);
            let object = self.relation_object(member);
            if !relation.system {
                self.reads.push(object.clone());
            }
            self.act(Verb::Select, object);
            self.wants.proven &= relation.inert;
            if relation.system && purity::shows_values(&relation.name) {
                // What the planner keeps of every table's values: nobody can say whose they are.
                let database = self.database_object();
                self.act(Verb::Opaque, database);
            }
            self.odd_columns(relation);
            self.guarded_by(relation);
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
    pub(super) fn below(&mut self, id: RelationId) -> Arc<Below> {
        let relation = self.known.relation(id);
        self.kept(&relation.below, relation.definition.as_deref().unwrap_or_default(), relation.system)
    }

    /// What an expression wants that the catalog keeps, found once for each snapshot.
    pub(super) fn stored(&mut self, stored: &Stored) -> Arc<Below> {
        self.kept(&stored.below, &stored.query, false)
    }

    /// What a query wants that the catalog keeps; `system` for one that ships with PostgreSQL.
    ///
    /// Definitions may stand on each other in a circle: the innermost is then too deep, and opaque, and so are all of them.
    fn kept(&self, below: &OnceLock<Arc<Below>>, query: &str, system: bool) -> Arc<Below> {
        if let Some(below) = below.get() {
            return below.clone();
        }
        let state = State::of_definitions(Masking::default());
        let parsed = parse::parse(query, parse::Strings::Standard);
        let mut walk = Walk::new(self.known, &state, self.database);
        walk.view_depth = self.view_depth + 1;
        walk.system = system;
        if self.view_depth >= VIEW_DEPTH_MAX {
            walk.opaque();
            return Arc::new(Below { wants: walk.wants });
        }
        match parsed.as_ref().map(|tree| &tree.stmts[..]) {
            Ok([statement]) => match statement.stmt.as_ref().and_then(|node| node.node.as_ref()) {
                Some(NodeEnum::SelectStmt(select)) => walk.select(select),
                _ => walk.opaque(),
            },
            // Its owner's definition is unknown, but a view that ships with PostgreSQL reads catalogs alone.
            _ => walk.opaque(),
        }
        let mut wants = walk.wants;
        if system {
            (wants.opaque, wants.proven, wants.resolved) = (false, true, true);
        } else if wants.opaque {
            wants.steps.push(Step::Anything);
        }
        wants.literals = false;
        below.get_or_init(|| Arc::new(Below { wants })).clone()
    }

    /// Writes to a relation: to what lies below a view as well, and to what its rules name.
    fn write(&mut self, verb: Verb, id: RelationId) {
        self.wants.proven = false;
        for member in self.family(id) {
            let relation = self.known.relation(member);
            let object = self.relation_object(member);
            self.act(verb, object);
            if relation.system {
                self.write_system(&relation.name);
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
        self.touch(id, matches!(verb, Verb::Update | Verb::Delete));
    }

    /// Writing to what ships with PostgreSQL: to `pg_settings` it is `set_config`, and anywhere else it makes the catalog another one.
    fn write_system(&mut self, name: &str) {
        if name == "pg_settings" {
            self.set("unknown");
        }
        self.opaque();
    }

    /// What checks, defaults and policies of a relation and of those that cascade with it (`cascades`) do to the session. To objects
    /// nothing counts: writing to the table stands for that. Nor do functions: what they do is the affair of whoever put them there.
    pub(in crate::sql) fn touch(&mut self, id: RelationId, cascades: bool) {
        let known = self.known;
        let mut touched = self.family(id);
        let mut next = 0;
        while let Some(&member) = touched.get(next) {
            let relation = known.relation(member);
            if cascades {
                for &referencing in &relation.referenced_by {
                    let family = self.family(referencing);
                    touched.extend(family);
                }
                let mut seen = BTreeSet::new();
                touched.retain(|&member| seen.insert(member));
            }
            next += 1;
            if relation.has_triggers {
                self.wants.steps.push(Step::Called);
            }
            for stored in &relation.stored {
                self.applies(stored);
            }
            for column in relation.columns.iter().filter(|column| !Known::type_is_builtin(column.type_oid)) {
                for stored in known.checks_of(column.type_oid).unwrap_or_default() {
                    self.applies(stored);
                }
            }
        }
    }

    /// Another relation is made with the checks and defaults of this one, by whoever makes it.
    pub(in crate::sql) fn takes_over(&mut self, id: RelationId) {
        for stored in &self.known.relation(id).stored {
            let below = self.stored(stored);
            self.wants.include(&below.wants);
        }
        self.makes_rows(&[id]);
    }

    /// What the policies of a relation do to the session that reads it.
    fn guarded_by(&mut self, relation: &Relation) {
        for stored in relation.stored.iter().filter(|stored| stored.at_reading) {
            self.applies(stored);
        }
    }

    fn applies(&mut self, stored: &Stored) {
        let below = self.stored(stored);
        self.wants.follow(&below.wants, |step| *step != Step::Called);
    }

    /// What a rewrite rule does, whichever event it is for.
    fn rule(&mut self, text: &str) {
        let Ok(tree) = parse::parse(text, parse::Strings::Standard) else { return self.opaque() };
        let state = State::of_definitions(self.state.masking.clone());
        let mut walk = Walk::new(self.known, &state, self.database);
        walk.view_depth = self.view_depth + 1;
        let statement =
            tree.stmts.first().and_then(|raw| raw.stmt.as_ref()).and_then(|node| node.node.as_ref());
        let Some(NodeEnum::RuleStmt(rule)) = statement else { return self.opaque() };
        walk.rule_body(rule);
        let (wants, sight) = (walk.wants, walk.sight);
        self.wants.include(&wants);
        self.sight.sees_in_a_rule(sight);
    }
}

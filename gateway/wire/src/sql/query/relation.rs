//! What naming a relation wants: its family, what lies below a view, what a rewrite rule does.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::RangeVar;

use super::{Below, FAMILY_MAX, VIEW_DEPTH_MAX, Walk, Wants};
use crate::action::Verb;
use crate::sql::catalog::{Column, Kind, Known, Relation, RelationId};
use crate::sql::mask::Masking;
use crate::sql::parse;
use crate::sql::purity;
use crate::sql::session::{Step, Value};
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
        if let Some(below) = relation.below.get() {
            return below.clone();
        }
        if self.view_depth >= VIEW_DEPTH_MAX {
            let mut wants = Wants::nothing();
            (wants.opaque, wants.proven) = (true, false);
            return Arc::new(Below { wants });
        }
        let parsed =
            relation.definition.as_deref().and_then(|text| parse::parse(text, parse::Strings::Standard).ok());
        let state = State::of_definitions(Masking::default());
        let mut walk = Walk::new(self.known, &state, self.database);
        walk.view_depth = self.view_depth + 1;
        walk.system = relation.system;
        match parsed.as_ref().map(|tree| &tree.stmts[..]) {
            Some([statement]) => match statement.stmt.as_ref().and_then(|node| node.node.as_ref()) {
                Some(NodeEnum::SelectStmt(select)) => walk.select(select),
                _ => walk.opaque(),
            },
            // Its owner's definition is unknown, but a view that ships with PostgreSQL reads catalogs alone.
            _ => walk.opaque(),
        }
        let mut wants = walk.wants;
        if relation.system {
            (wants.opaque, wants.proven, wants.resolved) = (false, true, true);
        }
        wants.literals = false;
        wants.steps.clear();
        relation.below.get_or_init(|| Arc::new(Below { wants })).clone()
    }

    /// Writes to a relation: to what lies below a view as well, and to what its rules name.
    fn write(&mut self, verb: Verb, id: RelationId) {
        self.wants.proven = false;
        for member in self.family(id) {
            let relation = self.known.relation(member);
            let object = self.relation_object(member);
            self.act(verb, object);
            if relation.has_triggers {
                self.wants.steps.push(Step::Path(Value::Unknown));
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

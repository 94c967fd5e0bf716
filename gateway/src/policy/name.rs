//! The ids of Cedar entities: an object's path below its resource, in one spelling only.
//!
//! Names come from the upstream, where anybody who may create a table chooses them. Were parts simply joined,
//! table `b.c` of schema `a` and table `c` of schema `a.b` would be one object to policy. So a part that holds a
//! separator is quoted as SQL quotes it, and no two objects share an id.

use gatebook_wire::action::Object;

/// A type of resource entity. The discriminants index tables by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Resource,
    Database,
    Schema,
    Table,
    Column,
    Function,
    Role,
    Setting,
}

impl Kind {
    pub(super) const ALL: [Kind; 8] = [
        Kind::Resource,
        Kind::Database,
        Kind::Schema,
        Kind::Table,
        Kind::Column,
        Kind::Function,
        Kind::Role,
        Kind::Setting,
    ];

    /// The entity type's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Resource => "Resource",
            Kind::Database => "Database",
            Kind::Schema => "Schema",
            Kind::Table => "Table",
            Kind::Column => "Column",
            Kind::Function => "Function",
            Kind::Role => "Role",
            Kind::Setting => "Setting",
        }
    }

    /// How its ids are built, for messages.
    pub(super) fn form(self) -> &'static str {
        match self {
            Kind::Resource => "resource",
            Kind::Database => "resource/database",
            Kind::Schema => "resource/database/schema",
            Kind::Table => "resource/database/schema.table",
            Kind::Column => "resource/database/schema.table.column",
            Kind::Function => "resource/database/schema.function",
            Kind::Role => "resource/role",
            Kind::Setting => "resource/database/setting",
        }
    }

    /// How many parts its ids have.
    pub(super) fn length(self) -> usize {
        let (slashed, dotted) = self.shape();
        slashed + dotted
    }

    /// What its entities lie in.
    pub(super) fn parent(self) -> Option<Kind> {
        match self {
            Kind::Resource => None,
            Kind::Database | Kind::Role => Some(Kind::Resource),
            Kind::Schema | Kind::Setting => Some(Kind::Database),
            Kind::Table | Kind::Function => Some(Kind::Schema),
            Kind::Column => Some(Kind::Table),
        }
    }

    /// How many parts are divided by slashes, and how many by dots after them.
    fn shape(self) -> (usize, usize) {
        match self {
            Kind::Resource => (1, 0),
            Kind::Database | Kind::Role => (2, 0),
            Kind::Schema | Kind::Setting => (3, 0),
            Kind::Table | Kind::Function => (2, 2),
            Kind::Column => (2, 3),
        }
    }

    /// The kind of an object, and the parts of its id below the resource.
    pub(super) fn of(object: &Object) -> (Kind, Vec<&str>) {
        match object {
            Object::Database { database } => (Kind::Database, vec![database]),
            Object::Schema { database, schema } => (Kind::Schema, vec![database, schema]),
            Object::Table { database, schema, table } => (Kind::Table, vec![database, schema, table]),
            Object::Column { database, schema, table, column } => {
                (Kind::Column, vec![database, schema, table, column])
            }
            Object::Function { database, schema, function } => {
                (Kind::Function, vec![database, schema, function])
            }
            Object::Role { role } => (Kind::Role, vec![role]),
            Object::Setting { database, setting } => (Kind::Setting, vec![database, setting]),
        }
    }
}

/// The id of an entity of this kind, from its parts, the resource first.
pub(super) fn join(kind: Kind, parts: &[&str]) -> String {
    let (slashed, _) = kind.shape();
    let mut id = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            id.push(if place <= slashed { '/' } else { '.' });
        }
        push_part(&mut id, part, place >= slashed);
    }
    id
}

fn push_part(id: &mut String, part: &str, dotted: bool) {
    if !part.is_empty() && !part.contains(|c| is_special(c, dotted)) {
        id.push_str(part);
        return;
    }
    id.push('"');
    for c in part.chars() {
        if c == '"' {
            id.push('"');
        }
        id.push(c);
    }
    id.push('"');
}

fn is_special(c: char, dotted: bool) -> bool {
    c == '/' || c == '"' || (dotted && c == '.')
}

/// The parts of an id, the resource first; none where it is not of this kind's form.
pub(super) fn split(kind: Kind, id: &str) -> Option<Vec<String>> {
    let (slashed, dots) = kind.shape();
    let mut parts = Vec::with_capacity(slashed + dots);
    let mut rest = id;
    for place in 0..slashed + dots {
        if place > 0 {
            rest = rest.strip_prefix(if place <= slashed { '/' } else { '.' })?;
        }
        let (part, after) = take_part(rest, place >= slashed)?;
        parts.push(part);
        rest = after;
    }
    rest.is_empty().then_some(parts)
}

fn take_part(text: &str, dotted: bool) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c| is_special(c, dotted)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut part = String::new();
    let mut rest = quoted;
    loop {
        let end = rest.find('"')?;
        part.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                part.push('"');
                rest = after;
            }
            None => return Some((part, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_documented() {
        for (kind, parts, expected) in [
            (Kind::Resource, vec!["orders.db"], "orders.db"),
            (Kind::Database, vec!["orders-db", "orders"], "orders-db/orders"),
            (Kind::Schema, vec!["orders-db", "orders", "a.b"], "orders-db/orders/a.b"),
            (Kind::Table, vec!["orders-db", "orders", "public", "orders"], "orders-db/orders/public.orders"),
            (Kind::Table, vec!["r", "d", "a.b", "c"], "r/d/\"a.b\".c"),
            (Kind::Table, vec!["r", "d", "a", "b.c"], "r/d/a.\"b.c\""),
            (Kind::Column, vec!["r", "d", "public", "t", "say \"x\""], "r/d/public.t.\"say \"\"x\"\"\""),
            (Kind::Role, vec!["r", "lee.k@corp"], "r/lee.k@corp"),
            (Kind::Setting, vec!["r", "d", "app.user"], "r/d/app.user"),
            (Kind::Database, vec!["r", ""], "r/\"\""),
        ] {
            assert_eq!(join(kind, &parts), expected);
        }
    }

    /// Every name made of the letters that matter, in every place: no two objects share an id, and each id is read back.
    #[test]
    fn no_two_objects_share_an_id() {
        let letters = ["", "a", ".", "/", "\"", "a.", ".a", "a/b", "\"\"", "a\"b", "\"a\"", "\".\""];
        let mut seen = std::collections::HashMap::new();
        for first in letters {
            for second in letters {
                for third in letters {
                    let parts = ["r", first, second, third];
                    let id = join(Kind::Table, &parts);
                    assert_eq!(
                        split(Kind::Table, &id).as_deref(),
                        Some(&parts.map(String::from)[..]),
                        "{id}"
                    );
                    assert_eq!(seen.insert(id.clone(), parts), None, "{id}");
                }
            }
        }
    }

    #[test]
    fn ids_of_another_form_are_not_read() {
        for (kind, id) in [
            (Kind::Table, "orders"),
            (Kind::Table, "r/d/s"),
            (Kind::Table, "r/d/s.t.c"),
            (Kind::Table, "r/d/e/s.t"),
            (Kind::Database, "r"),
            (Kind::Database, "r/d/e"),
            (Kind::Database, "r/\"d"),
            (Kind::Database, "r/d\"e"),
            (Kind::Database, "r/\"d\"e"),
            (Kind::Database, "/d"),
            (Kind::Resource, ""),
        ] {
            assert_eq!(split(kind, id), None, "{id}");
        }
    }
}

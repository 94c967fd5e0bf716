//! Masks: what stands in place of a sensitive value, as an SQL expression that the upstream computes itself.
//!
//! An expression names only functions of `pg_catalog`, holds no secret (a session can read its own statement's text there), cannot
//! fail, and has the column's own type, so that every driver decodes it. [`Mask::Hash`] alone calls a function that an operator made, and that a
//! session which is shown masks cannot call itself.
//!
//! What a newcomer gets wrong: a mask whose sort does not fit the column's type is no mistake; it shows what [`Mask::Redact`] shows there.

use std::sync::Arc;

use super::names::quoted;
use crate::action::Object;

/// What is shown in place of a sensitive value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mask {
    /// One constant for every value: `[redacted]`, 0, 1970-01-01, …
    Redact,
    /// The last four characters of a text of eight and more, stars for the others.
    Partial,
    /// A keyed hash of a text, always the same for the same value: what `gatebook.pseudonym(text)` of the upstream makes of it, which holds
    /// the key.
    Hash,
    /// NULL.
    Null,
    /// A card's number: its last four digits, zeros for the others; blanks and dashes stay.
    Card,
    /// One constant e-mail address.
    Email,
    /// One constant telephone number.
    Phone,
    /// The first day of its year.
    Date,
    /// The UUID of zeros.
    Uuid,
    /// Zero.
    Number,
}

impl Mask {
    /// All masks, in the order of their declaration.
    pub const ALL: [Mask; 10] = [
        Mask::Redact,
        Mask::Partial,
        Mask::Hash,
        Mask::Null,
        Mask::Card,
        Mask::Email,
        Mask::Phone,
        Mask::Date,
        Mask::Uuid,
        Mask::Number,
    ];

    /// The mask as configuration and ledger spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mask::Redact => "redact",
            Mask::Partial => "partial",
            Mask::Hash => "hash",
            Mask::Null => "null",
            Mask::Card => "card",
            Mask::Email => "email",
            Mask::Phone => "phone",
            Mask::Date => "date",
            Mask::Uuid => "uuid",
            Mask::Number => "number",
        }
    }
}

/// A column that is declared sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sensitive {
    /// The schema that holds its table.
    pub schema: Arc<str>,
    /// Its table or view.
    pub table: Arc<str>,
    /// Its name.
    pub column: Arc<str>,
    /// What whoever may not see it is shown.
    pub mask: Mask,
}

impl Sensitive {
    /// The column as policy knows it.
    #[must_use]
    pub fn object(&self, database: &Arc<str>) -> Object {
        Object::Column {
            database: database.clone(),
            schema: self.schema.clone(),
            table: self.table.clone(),
            column: self.column.clone(),
        }
    }
}

/// The sensitive columns of a database, and which of them a session is shown masked. It does not change while the session lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Masking {
    declared: Arc<[Sensitive]>,
    masked: Arc<[bool]>,
}

impl Masking {
    /// The columns of a database, of which those are masked that `is_masked` says.
    #[must_use]
    pub fn new(declared: Arc<[Sensitive]>, is_masked: impl FnMut(&Sensitive) -> bool) -> Masking {
        let masked = declared.iter().map(is_masked).collect();
        Masking { declared, masked }
    }

    /// Whether the session is shown anything masked.
    #[must_use]
    pub fn masks(&self) -> bool {
        self.masked.contains(&true)
    }

    pub(super) fn declared(&self) -> &[Sensitive] {
        &self.declared
    }

    pub(super) fn is_masked(&self, declared: usize) -> bool {
        self.masked.get(declared).copied().unwrap_or(false)
    }
}

/// Sorts of types that masks tell apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Text,
    Number,
    Date,
    Time,
    Uuid,
    Json,
    Bytes,
    Other,
}

fn sort(schema: &str, name: &str) -> Sort {
    match (schema, name) {
        ("pg_catalog", "text" | "varchar" | "bpchar" | "name") | (_, "citext") => Sort::Text,
        ("pg_catalog", "int2" | "int4" | "int8" | "float4" | "float8" | "numeric" | "money") => Sort::Number,
        ("pg_catalog", "date") => Sort::Date,
        ("pg_catalog", "timestamp" | "timestamptz") => Sort::Time,
        ("pg_catalog", "uuid") => Sort::Uuid,
        ("pg_catalog", "json" | "jsonb") => Sort::Json,
        ("pg_catalog", "bytea") => Sort::Bytes,
        _ => Sort::Other,
    }
}

/// The expression that `mask` makes of a column whose type is `name` in `schema`.
pub(super) fn expression(mask: Mask, column: &str, schema: &str, name: &str) -> String {
    let sort = sort(schema, name);
    let column = quoted(column);
    let text = format!("CAST({column} AS pg_catalog.text)");
    let value = match (mask, sort) {
        (Mask::Null, _) => "NULL".to_owned(),
        (Mask::Hash, Sort::Text) => format!("gatebook.pseudonym({text})"),
        (Mask::Partial, Sort::Text) => format!(
            "CASE WHEN pg_catalog.length({text}) OPERATOR(pg_catalog.<) 8 \
             THEN pg_catalog.repeat('*', pg_catalog.length({text})) \
             ELSE pg_catalog.regexp_replace({text}, '.(?=.{{4}})', '*', 'g') END"
        ),
        (Mask::Card, Sort::Text) => format!(
            "CASE WHEN pg_catalog.length({text}) OPERATOR(pg_catalog.<) 12 \
             THEN pg_catalog.repeat('0', pg_catalog.length({text})) \
             ELSE pg_catalog.concat(pg_catalog.regexp_replace(pg_catalog.left({text}, -4), '[^ -]', '0', 'g'), \
             pg_catalog.right({text}, 4)) END"
        ),
        (Mask::Email, Sort::Text) => "'masked@masked.invalid'".to_owned(),
        (Mask::Phone, Sort::Text) => "'+00000000000'".to_owned(),
        (Mask::Number, Sort::Text) => "'0'".to_owned(),
        (Mask::Uuid, Sort::Text) | (_, Sort::Uuid) => "'00000000-0000-0000-0000-000000000000'".to_owned(),
        (Mask::Date, Sort::Date) => {
            format!("pg_catalog.date_trunc('year', CAST({column} AS pg_catalog.timestamp))")
        }
        (Mask::Date, Sort::Time) => format!("pg_catalog.date_trunc('year', {column})"),
        (Mask::Date, Sort::Text) | (_, Sort::Date | Sort::Time) => "'1970-01-01'".to_owned(),
        (_, Sort::Text) => "'[redacted]'".to_owned(),
        (_, Sort::Number) => "0".to_owned(),
        (_, Sort::Json) => "'\"[redacted]\"'".to_owned(),
        (_, Sort::Bytes) => "pg_catalog.decode('', 'hex')".to_owned(),
        (_, Sort::Other) => "NULL".to_owned(),
    };
    format!("CAST({value} AS {}.{})", quoted(schema), quoted(name))
}

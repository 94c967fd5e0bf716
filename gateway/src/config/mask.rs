//! Columns that are declared sensitive: `[[resource.mask]]`.

use gatebook_wire::sql::{Mask, Sensitive};

use super::keys::meant;
use super::table::Table;
use crate::policy;

/// A column that is declared sensitive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedColumn {
    /// The databases in which it is; empty: every one of the resource.
    pub databases: Vec<String>,
    /// The column and its mask.
    pub column: Sensitive,
}

/// Reads the masks of a resource with these databases.
pub(super) fn masks(resource: &Table<'_>, databases: &[String]) -> Vec<MaskedColumn> {
    let mut masks: Vec<MaskedColumn> = Vec::new();
    for table in resource.tables("mask", "mask") {
        let with = table.choice("with");
        let mut here = Vec::new();
        for database in table.texts("databases") {
            if !databases.contains(&database.value) {
                let meant = meant(&database.value, databases.iter().map(String::as_str));
                let text = format!("databases: \"{}\" is not among the resource's{meant}", database.value);
                table.mistake(database.line, text);
            }
            here.push(database.value);
        }
        let Some(with) = with else { continue };
        let Some(mask) = Mask::ALL.into_iter().find(|mask| mask.name() == with.value) else { continue };
        for text in table.texts("columns") {
            let Some([schema, name, column]) = policy::column(&text.value) else {
                table
                    .mistake(text.line, format!("columns takes schema.table.column; not \"{}\"", text.value));
                continue;
            };
            let column = Sensitive { schema: schema.into(), table: name.into(), column: column.into(), mask };
            let same = |known: &&MaskedColumn| {
                let known = &known.column;
                (&known.schema, &known.table, &known.column)
                    == (&column.schema, &column.table, &column.column)
            };
            if masks.iter().any(|known| same(&known)) {
                table.mistake(text.line, format!("columns: \"{}\" has a mask already", text.value));
                continue;
            }
            masks.push(MaskedColumn { databases: here.clone(), column });
        }
    }
    masks
}

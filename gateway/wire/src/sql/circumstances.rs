//! What decides, beside a statement's own text, what the statement does: for whoever approves it, and for the digest that binds the approval.

use super::{Catalog, Session};
use crate::action::Object;
use crate::protocol::{Circumstances, Command};

/// The longest reason that is taken from a comment.
const REASON_BYTES_MAX: usize = 1024;

impl Session {
    /// The circumstances of these commands now. Whether a transaction is open is for the conversation to say.
    #[must_use]
    pub fn circumstances(&self, commands: &[Command], catalog: &Catalog) -> Circumstances {
        let state = self.state_for(catalog);
        let any = "not known";
        let roles = state.names.roles.as_ref().map_or(any.to_owned(), |roles| {
            roles.iter().map(|role| &**role).collect::<Vec<_>>().join(" or ")
        });
        let paths = state.names.paths.as_ref().map_or(any.to_owned(), |paths| {
            paths.iter().map(|path| path.join(", ")).collect::<Vec<_>>().join(" or ")
        });
        let mut objects: Vec<(u32, String)> = commands
            .iter()
            .flat_map(|command| &command.meaning.actions)
            .filter_map(|action| match &action.object {
                Object::Table { schema, table, .. } | Object::Column { schema, table, .. } => {
                    Some((catalog.known().number_of(schema, table)?, format!("{schema}.{table}")))
                }
                _ => None,
            })
            .collect();
        objects.sort();
        objects.dedup();
        let said = |word| commands.iter().find_map(|command| said(&command.statement, word));
        Circumstances {
            role: roles,
            search_path: paths,
            state: *state.id().as_bytes(),
            objects,
            in_transaction: false,
            reason: said("reason"),
            break_glass: said("break-glass"),
        }
    }
}

/// What a statement says of itself in a comment that stands before it: `/* reason: … */`, or the same behind `--`.
fn said(statement: &[u8], word: &str) -> Option<String> {
    let mut rest = std::str::from_utf8(statement).ok()?.trim_start();
    loop {
        let (comment, after) = if let Some(inside) = rest.strip_prefix("/*") {
            inside.split_once("*/")?
        } else if let Some(line) = rest.strip_prefix("--") {
            line.split_once('\n')?
        } else {
            return None;
        };
        if let Some(text) = comment.trim_start().strip_prefix(word).and_then(|text| text.strip_prefix(':')) {
            let text = text.trim();
            let end = (0..=text.len().min(REASON_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at))?;
            return (!text.is_empty()).then(|| text[..end].to_owned());
        }
        rest = after.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::said;

    #[test]
    fn a_reason_stands_in_a_comment_before_the_statement() {
        for (statement, reason) in [
            ("/* reason: double charge */ UPDATE orders SET paid = true", Some("double charge")),
            ("  -- ticket\n--reason:  4711 \nDELETE FROM orders", Some("4711")),
            ("/* reason: */ DELETE FROM orders", None),
            ("/*reason*/ DELETE FROM orders", None),
            ("/* the reason: x */ DELETE FROM orders", None),
            ("DELETE FROM orders /* reason: behind */", None),
            ("SELECT '/* reason: no */'", None),
            ("/* reason: unfinished", None),
            ("", None),
        ] {
            assert_eq!(said(statement.as_bytes(), "reason").as_deref(), reason, "{statement}");
        }
        assert_eq!(said(b"/* break-glass: outage */ SELECT 1", "break-glass").as_deref(), Some("outage"));
        assert_eq!(said(b"/* break-glass: outage */ SELECT 1", "reason"), None);
        assert_eq!(said("/* reason: \u{e4}".as_bytes(), "reason"), None);
        let long = format!("/* reason: {} */ SELECT 1", "ä".repeat(2000));
        assert_eq!(said(long.as_bytes(), "reason").map(|text| text.len()), Some(1024));
    }
}

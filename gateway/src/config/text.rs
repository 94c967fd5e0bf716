//! The file's text: as the ledger keeps it, and where in it each value stands.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use super::table::Sink;

/// The text without what people put where nobody looks: old passwords in comments, tokens in a command's arguments.
pub(super) fn redacted(text: &str, sink: &Sink) -> String {
    let comments = Source::new(text)
        .lex()
        .filter(|token| token.kind() == TokenKind::Comment)
        .map(|token| (token.span().start()..token.span().end(), ""));
    let hidden = sink.hidden.borrow();
    let mut cuts: Vec<_> = comments.chain(hidden.iter().map(|span| (span.clone(), "\"…\""))).collect();
    cuts.sort_by_key(|(span, _)| span.start);
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for (span, instead) in cuts {
        kept.push_str(text.get(from..span.start).unwrap_or_default());
        kept.push_str(instead);
        from = span.end.max(from);
    }
    kept.push_str(text.get(from..).unwrap_or_default());
    kept.lines().map(str::trim_end).fold(String::with_capacity(kept.len()), |mut all, line| {
        all.push_str(line);
        all.push('\n');
        all
    })
}

/// The line of every value, by its path; members of lists are counted from 0.
pub(super) fn lines(document: &DeTable<'_>, sink: &Sink) -> BTreeMap<String, usize> {
    fn walk(path: &str, value: &Spanned<DeValue<'_>>, sink: &Sink, lines: &mut BTreeMap<String, usize>) {
        lines.insert(path.to_owned(), sink.line(value.span().start));
        match value.get_ref() {
            DeValue::Table(entries) => {
                for (key, value) in entries {
                    walk(&format!("{path}.{}", key.get_ref()), value, sink, lines);
                }
            }
            DeValue::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    walk(&format!("{path}.{at}"), item, sink, lines);
                }
            }
            _ => {}
        }
    }
    let mut lines = BTreeMap::new();
    for (key, value) in document {
        walk(key.get_ref(), value, sink, &mut lines);
    }
    lines
}

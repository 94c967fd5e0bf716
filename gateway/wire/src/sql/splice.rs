//! Writing into a statement's text where the gateway has found a name, and nowhere else.
//!
//! The text around stays as the client wrote it, to the byte: what is not replaced cannot be misspelt, and places in it can be told again
//! after the server has spoken of places in what it was sent. Whoever splices proves the result afterwards, by parsing and walking it anew:
//! nothing here is trusted to be right.

use std::ops::Range;

use pg_query::protobuf::{ScanToken, Token};

/// What takes the place of a name that stands at `at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) at: usize,
    pub(super) kind: EditKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EditKind {
    /// A relation in a FROM clause: a query, and the alias that it needs where the client gave none.
    Relation { query: String, alias: Option<String> },
    /// The relation of a COPY with its list of columns, if it has one.
    Copy { query: String, listed: bool },
    /// The relation itself, by its whole name.
    Name(String),
    /// A column that is qualified by more than its table: so many parts in front go.
    Qualifier { parts: usize },
}

/// A text with something written into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spliced {
    pub(super) text: String,
    /// What was replaced, and what stands in its place.
    pub(super) places: Vec<(Range<usize>, Range<usize>)>,
}

/// Makes the edits; none where the text is not as they say.
pub(super) fn splice(text: &str, mut edits: Vec<Edit>) -> Option<Spliced> {
    edits.sort_by_key(|edit| edit.at);
    edits.dedup();
    let tokens = Tokens::of(text)?;
    let mut spliced = Spliced { text: String::with_capacity(text.len() + 256), places: Vec::new() };
    let mut done = 0;
    for edit in edits {
        let (range, replacement) = tokens.place(&edit)?;
        let untouched = text.get(done..range.start)?;
        spliced.text.push_str(untouched);
        let start = spliced.text.len();
        spliced.text.push_str(&replacement);
        done = range.end;
        spliced.places.push((range, start..spliced.text.len()));
    }
    spliced.text.push_str(text.get(done..)?);
    Some(spliced)
}

/// A text's tokens without its comments.
struct Tokens<'a> {
    text: &'a str,
    tokens: Vec<ScanToken>,
}

impl<'a> Tokens<'a> {
    fn of(text: &'a str) -> Option<Tokens<'a>> {
        let mut tokens = pg_query::scan_tokens(text).ok()?;
        tokens
            .retain(|token| !matches!(Token::try_from(token.token), Ok(Token::SqlComment | Token::CComment)));
        Some(Tokens { text, tokens })
    }

    fn range(&self, index: usize) -> Option<Range<usize>> {
        let token = self.tokens.get(index)?;
        Some(usize::try_from(token.start).ok()?..usize::try_from(token.end).ok()?)
    }

    fn is(&self, index: Option<usize>, word: &str) -> bool {
        let text = index.and_then(|index| self.range(index)).and_then(|range| self.text.get(range));
        text.is_some_and(|text| text.eq_ignore_ascii_case(word))
    }

    /// The last token of the qualified name that begins at `first`.
    fn end_of_name(&self, first: usize) -> Option<usize> {
        let mut last = first;
        while self.is(Some(last + 1), ".") {
            last += 2;
        }
        // `U&"…" UESCAPE '!'` is one name of several tokens.
        (!self.is(Some(last + 1), "uescape")).then_some(last)
    }

    fn place(&self, edit: &Edit) -> Option<(Range<usize>, String)> {
        let at = i32::try_from(edit.at).ok()?;
        let first = self.tokens.binary_search_by_key(&at, |token| token.start).ok()?;
        let last = self.end_of_name(first)?;
        match &edit.kind {
            EditKind::Relation { query, alias } => {
                let (mut first, mut last) = (first, last);
                if self.is(Some(last + 1), "*") {
                    last += 1;
                }
                let before = |index: usize, by: usize| index.checked_sub(by);
                if self.is(before(first, 1), "only") {
                    first -= 1;
                } else if self.is(before(first, 1), "(")
                    && self.is(before(first, 2), "only")
                    && self.is(Some(last + 1), ")")
                {
                    (first, last) = (first - 2, last + 1);
                }
                let mut replacement = format!("({query})");
                if let Some(alias) = alias {
                    replacement += &format!(" AS {alias}");
                }
                if self.is(before(first, 1), "table") {
                    first -= 1;
                    replacement = format!("SELECT * FROM {replacement}");
                }
                Some((self.range(first)?.start..self.range(last)?.end, replacement))
            }
            EditKind::Copy { query, listed } => {
                let mut last = last;
                if *listed {
                    while !self.is(Some(last), ")") {
                        last += 1;
                        self.range(last)?;
                    }
                }
                Some((self.range(first)?.start..self.range(last)?.end, format!("({query})")))
            }
            EditKind::Name(name) => Some((self.range(first)?.start..self.range(last)?.end, name.clone())),
            EditKind::Qualifier { parts } => {
                let kept = first + 2 * parts;
                (kept <= last).then_some(())?;
                Some((self.range(first)?.start..self.range(kept)?.start, String::new()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, name: &str, alias: Option<&str>, expected: &str) {
        let edit = Edit {
            at: text.find(name).expect("the name is there"),
            kind: EditKind::Relation { query: "Q".into(), alias: alias.map(str::to_owned) },
        };
        assert_eq!(splice(text, vec![edit]).expect("it can be spliced").text, expected);
    }

    #[test]
    fn a_relation_gives_way_with_all_that_belongs_to_its_name() {
        check("SELECT 1 FROM t x", "t x", None, "SELECT 1 FROM (Q) x");
        check(
            "SELECT 1 FROM s . /* c */ t WHERE true",
            "s .",
            Some("t"),
            "SELECT 1 FROM (Q) AS t WHERE true",
        );
        check("SELECT 1 FROM ONLY t", "t", Some("t"), "SELECT 1 FROM (Q) AS t");
        check("SELECT 1 FROM only(t) x", "t)", None, "SELECT 1 FROM (Q) x");
        check("SELECT 1 FROM t * , u", "t *", Some("t"), "SELECT 1 FROM (Q) AS t , u");
        check("TABLE ONLY q", "q", Some("q"), "SELECT * FROM (Q) AS q");
        check("SELECT '–', a FROM \"Ä\".t", "\"Ä\"", Some("t"), "SELECT '–', a FROM (Q) AS t");
    }

    #[test]
    fn what_is_not_as_it_was_said_is_not_spliced() {
        let edit = |at| vec![Edit { at, kind: EditKind::Relation { query: "Q".into(), alias: None } }];
        assert_eq!(splice("SELECT 1 FROM t", edit(13)), None);
        assert_eq!(splice("SELECT 1 FROM U&\"t\" UESCAPE '!'", edit(14)), None);
        assert_eq!(splice("SELECT 'unended", edit(7)), None);
    }
}

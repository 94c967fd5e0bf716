//! A key under which texts that differ only in integer literals are the same.
//!
//! It is for the hot path: `… WHERE id = 1` and `… WHERE id = 2` need one analysis and one decision. It refuses every text
//! about which there could be a doubt, and then the text is its own key.
//!
//! Why it is safe. Only printable ASCII and plain white space pass, without double quotes, dollar signs, backslashes and comment
//! starts, and strings only in single quotes, on one line, without a quote in them, and behind white space, `(`, `,` or `=`, so that no
//! prefix gives them another meaning. So the lexer is in its initial state before each token, settings do not matter to it, and strings are
//! kept as they are. An integer literal is replaced
//! only where it is one to nine digits between two characters that can neither continue a number nor an identifier; such
//! a run is exactly one `ICONST` token that fits an `int4`, whatever its digits. So texts with one key have the same tokens
//! except for the values of `ICONST`s. Only a few productions look at such a value while they parse: `float(n)` names another
//! type or fails. Texts with `float` in them are refused, and so is everything that is not one `SELECT`, `INSERT`, `UPDATE`, `DELETE`,
//! `WITH` or `VALUES`. The placeholder is a control character, which no text that passes can hold.

/// The longest text that gets a key; longer ones seldom come twice.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The most digits that surely fit an `int4`.
const DIGITS_MAX: usize = 9;

const PLACEHOLDER: char = '\u{1}';

/// The text with its integer literals taken out, or none where that is not provably safe.
///
/// Two texts with the same key parse to the same tree but for the values of integer constants. Combined with
/// [`Analysis::literals_matter`](super::Analysis::literals_matter) being false they have the same meaning.
///
/// ```
/// use gatebook_wire::sql::literal_key;
/// assert_eq!(literal_key("SELECT a FROM t WHERE id = 1"), literal_key("SELECT a FROM t WHERE id = 237"));
/// assert_ne!(literal_key("SELECT a FROM t1"), literal_key("SELECT a FROM t2"));
/// assert_eq!(literal_key("SELECT a FROM t WHERE b = 'x' AND c = 1"), literal_key("SELECT a FROM t WHERE b = 'x' AND c = 2"));
/// assert_ne!(literal_key("SELECT a FROM t WHERE b = 'x'"), literal_key("SELECT a FROM t WHERE b = 'y'"));
/// assert_eq!(literal_key("SELECT 'it''s'"), None);
/// ```
#[must_use]
pub fn literal_key(text: &str) -> Option<String> {
    if text.len() > TEXT_BYTES_MAX || !starts_safely(text) {
        return None;
    }
    let bytes = text.as_bytes();
    let mut key = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let next = bytes.get(at + 1).copied();
        match byte {
            b'\'' => {
                let string = &text[at..at + string_bytes(&bytes[..at], &bytes[at..])?];
                key.push_str(string);
                at += string.len();
                continue;
            }
            b'"' | b'$' | b'\\' | b'`' | b'{' | b'}' => return None,
            b'-' if next == Some(b'-') => return None,
            b'/' if next == Some(b'*') => return None,
            b';' if !text[at + 1..].trim_ascii().is_empty() => return None,
            b'f' | b'F' if is_float(&bytes[at..]) => return None,
            b'0'..=b'9' if at > 0 && ends_a_token(bytes[at - 1]) => {
                let digits = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
                let after = bytes.get(at + digits).copied();
                if digits <= DIGITS_MAX && after.is_none_or(ends_a_token) {
                    key.push(PLACEHOLDER);
                } else {
                    key.push_str(&text[at..at + digits]);
                }
                at += digits;
                continue;
            }
            b' '..=b'~' | b'\t' | b'\n' | b'\r' => {}
            _ => return None,
        }
        key.push(char::from(byte));
        at += 1;
    }
    Some(key)
}

/// Whether the first word is one of the statements that the key is proven for.
fn starts_safely(text: &str) -> bool {
    let text = text.trim_ascii_start();
    let word = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    ["select", "insert", "update", "delete", "with", "values"]
        .iter()
        .any(|known| text[..word].eq_ignore_ascii_case(known))
}

/// How long the string at the beginning of `rest` is, both quotes counted; none where it is not of the plain kind.
fn string_bytes(before: &[u8], rest: &[u8]) -> Option<usize> {
    if !matches!(before.last()?, b' ' | b'\t' | b'\n' | b'\r' | b'(' | b',' | b'=') {
        return None;
    }
    let inside =
        rest[1..].iter().take_while(|byte| matches!(byte, b' '..=b'~') && !b"'\\".contains(byte)).count();
    let ends = rest.get(inside + 1) == Some(&b'\'') && rest.get(inside + 2) != Some(&b'\'');
    ends.then_some(inside + 2)
}

fn is_float(bytes: &[u8]) -> bool {
    bytes.get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"float"))
}

/// Whether a byte beside digits makes them a token of their own: no letter, digit, `_`, `.`, `:` or bracket.
fn ends_a_token(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t'
            | b'\n'
            | b'\r'
            | b'('
            | b')'
            | b','
            | b';'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'<'
            | b'>'
            | b'='
            | b'~'
            | b'!'
            | b'@'
            | b'#'
            | b'%'
            | b'^'
            | b'&'
            | b'|'
            | b'?'
    )
}

#[cfg(test)]
mod tests {
    use super::super::parse::{Strings, parse};
    use super::*;

    /// Builds texts from parts, each next to each: one that gets a key must parse to the same tree with other numbers.
    #[test]
    fn texts_with_one_key_have_one_tree() {
        #[rustfmt::skip]
        let parts = [
            "1", "23", "456789012", "4567890123", "id", "visits", "fee", "(", ")", ",", "+", "-", "*", "/", "=", "<", ">=", " ", "\n",
            ".", "e", "1.5", "::int", "FROM", "WHERE", "LIMIT", "float(", "numeric(10,", "ARRAY[", "]", "$1", "'1'", "--", "/*", "!",
            "'a'", "'b 7'", "'", "E'c\\'", "U&'d", "''", "'float(1)'", "'--'", "'\n'",
            "0x", "_1", "a1", "IN (", "BETWEEN", "AND", "?", "interval(", "bit(", "FETCH FIRST", "OFFSET", "@", "time(",
        ];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).expect("it is below")
        };
        let (mut keyed, mut parsed) = (0, 0);
        for _ in 0..20_000 {
            let mut text = String::from("SELECT ");
            for _ in 0..next(9) {
                text.push_str(parts[next(parts.len())]);
                if next(2) == 0 {
                    text.push(' ');
                }
            }
            let Some(key) = literal_key(&text) else { continue };
            let tree = tree(&text);
            for digits in ["7", "900000001", "00"] {
                let other = key.replace(PLACEHOLDER, digits);
                assert_eq!(literal_key(&other).as_ref(), Some(&key), "{text}");
                assert_eq!(tree, super::tests::tree(&other), "{text} / {other}");
            }
            keyed += 1;
            parsed += usize::from(tree.is_some());
        }
        assert!(keyed > 5_000 && parsed > 500, "{keyed} {parsed}");
    }

    /// The tree of a text without the values of its integers and without positions.
    fn tree(text: &str) -> Option<String> {
        let mut shown = format!("{:?}", parse(text, Strings::Standard).ok()?);
        for name in ["location: ", "ival: ", "stmt_len: ", "list_start: ", "list_end: "] {
            let mut out = String::new();
            let mut rest = shown.as_str();
            while let Some(at) = rest.find(name) {
                out.push_str(&rest[..at + name.len()]);
                rest = rest[at + name.len()..].trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
            }
            out.push_str(rest);
            shown = out;
        }
        Some(shown)
    }
}

//! Names inside strings: search paths, and what is cast to `regclass`.

/// The most bytes of a name that the server keeps (`NAMEDATALEN` - 1).
const NAME_BYTES_MAX: usize = 63;

/// Splits a list of identifiers as the server does (`SplitIdentifierString`): unquoted ones fold to lower case, quoted
/// ones stay, long ones are cut. None where the server would refuse the list.
pub(super) fn split_identifiers(text: &str, separator: char) -> Option<Vec<String>> {
    let mut rest = text.trim_start_matches(is_space);
    let mut names = Vec::new();
    if rest.is_empty() {
        return Some(names);
    }
    loop {
        let name;
        if let Some(quoted) = rest.strip_prefix('"') {
            (name, rest) = quoted_identifier(quoted)?;
        } else {
            let end = rest.find(|c| c == separator || is_space(c)).unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            // Outside ASCII the server folds by its locale: such a name is not predictable.
            if !rest[..end].is_ascii() || rest[..end].contains('"') {
                return None;
            }
            name = rest[..end].to_ascii_lowercase();
            rest = &rest[end..];
        }
        names.push(cut(name));
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() {
            return Some(names);
        }
        rest = rest.strip_prefix(separator)?.trim_start_matches(is_space);
    }
}

/// A qualified name in a string (`textToQualifiedNameList`): one or two parts.
pub(super) fn qualified(text: &str) -> Option<(Option<String>, String)> {
    let mut parts = split_identifiers(text, '.')?;
    let name = parts.pop()?;
    let schema = parts.pop();
    // A database in front must be this one: the server refuses others.
    if parts.len() > 1 { None } else { Some((schema, name)) }
}

fn quoted_identifier(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

/// Cuts a name where the server does: at the last whole character within its limit.
pub(super) fn cut(mut name: String) -> String {
    if name.len() > NAME_BYTES_MAX {
        let end = (0..=NAME_BYTES_MAX).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
        name.truncate(end);
    }
    name
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

/// A name as SQL quotes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

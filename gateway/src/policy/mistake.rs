//! What is wrong with a policy folder, and where, in words for the operator.

use std::fmt;
use std::sync::Arc;

/// One mistake, or one warning, in a policy folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The file's name within the folder; the folder itself where no file is at fault.
    pub file: Arc<str>,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// The column in characters, from 1; 0 where the file as a whole is meant.
    pub column: u32,
    /// What is wrong and what would be right, as a lower-case fragment.
    pub message: String,
}

impl Mistake {
    /// A mistake that concerns a file as a whole.
    pub(super) fn whole(file: impl Into<Arc<str>>, message: impl Into<String>) -> Self {
        Mistake { file: file.into(), line: 0, column: 0, message: message.into() }
    }

    /// A mistake at a byte of a file's text.
    pub(super) fn at(file: &Arc<str>, text: &str, offset: usize, message: impl Into<String>) -> Self {
        let (line, column) = line_and_column(text, offset);
        Mistake { file: Arc::clone(file), line, column, message: message.into() }
    }
}

/// `ci.cedar:12:1: message`, or `ci.cedar: message` for a whole file.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}:{}: {}", self.file, self.column, self.message),
        }
    }
}

/// Line and column, both from 1, of a byte in a text.
pub(super) fn line_and_column(text: &str, offset: usize) -> (u32, u32) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (count(before.matches('\n').count()), count(before[start..].chars().count()))
}

fn count(before: usize) -> u32 {
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}

/// ` (did you mean …?)` for the known word that is nearest to an unknown one, or nothing.
pub(super) fn did_you_mean<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
    prefix: &str,
) -> String {
    let allowed = (unknown.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|word| (distance(unknown, word), word))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map_or_else(String::new, |(_, word)| format!(" (did you mean {prefix}{word}?)"))
}

/// How many letters must be added, removed, replaced or swapped with a neighbour to turn one word into another.
pub(super) fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let mut least = (last[j] + usize::from(l != r)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *l == right[j - 1] && left[i - 1] == *r {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters_and_swaps() {
        for (left, right, expected) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("quorum", "qorum", 1),
            ("id", "", 2),
            ("ab", "xy", 2),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
            assert_eq!(distance(right, left), expected, "{right} {left}");
        }
    }

    #[test]
    fn columns_are_counted_in_characters() {
        assert_eq!(line_and_column("aé\nüb", 6), (2, 2));
        assert_eq!(line_and_column("aé\nüb", 5), (2, 1));
        assert_eq!(line_and_column("", 99), (1, 1));
    }
}

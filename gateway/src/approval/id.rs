//! What a request is called: short enough to be read out, and never used twice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Crockford's base 32: no letter that is taken for another.
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The id of a request: 40 random bits, as `7Q5K-M2XW`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Id([u8; 8]);

impl Id {
    /// A new one.
    ///
    /// # Panics
    /// Where the operating system has no randomness.
    pub(crate) fn new() -> Id {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the operating system has randomness");
        Id(random.map(|byte| LETTERS[usize::from(byte % 32)]))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, letter) in self.0.iter().enumerate() {
            let dash = if at == 4 { "-" } else { "" };
            write!(f, "{dash}{}", char::from(*letter))?;
        }
        Ok(())
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.to_string()
    }
}

/// It is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no request's id, which look like 7Q5K-M2XW")]
pub(crate) struct NoId;

impl TryFrom<String> for Id {
    type Error = NoId;

    fn try_from(text: String) -> Result<Id, NoId> {
        text.parse()
    }
}

impl FromStr for Id {
    type Err = NoId;

    /// In capitals or not, with its dash or without.
    fn from_str(text: &str) -> Result<Id, NoId> {
        let mut letters = text.bytes().filter(|byte| *byte != b'-').map(|byte| byte.to_ascii_uppercase());
        let mut id = [0; 8];
        for letter in &mut id {
            *letter = letters.next().filter(|byte| LETTERS.contains(byte)).ok_or(NoId)?;
        }
        if letters.next().is_some() { Err(NoId) } else { Ok(Id(id)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_shown() {
        let id = Id::new();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_lowercase().replace('-', "").parse(), Ok(id));
        for wrong in ["", "7Q5K-M2X", "7Q5K-M2XWW", "7Q5K-M2XU", "7Q5K M2XW", "é2345678"] {
            assert_eq!(wrong.parse::<Id>(), Err(NoId), "{wrong}");
        }
    }
}

//! Sessions as the log layer sees them: numbered without gaps, each a chain of its own by leaf hashes.
//!
//! One rule for writer, recovery and verifier, so that what one writes the others accept, and nothing else.

use std::collections::HashMap;

use crate::entry::{Kind, Malformed};
use crate::hash::Digest;

/// Where an open session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// How many entries it has: the number of the next.
    pub entries: u64,
    /// The leaf hash of its last entry.
    pub last: Digest,
}

/// The sessions that are open, and the number of the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    /// The number that the next session must take.
    pub next: u64,
    /// Those that are open.
    pub open: HashMap<u64, Link>,
}

impl Default for Sessions {
    fn default() -> Self {
        Sessions { next: 1, open: HashMap::new() }
    }
}

impl Sessions {
    /// What the header of the next entry of this kind must say of its session: number within it, and link.
    ///
    /// # Errors
    /// [`Malformed`] where such an entry may not come now.
    pub fn place(&self, kind: Kind, session: u64) -> Result<(u64, Digest), Malformed> {
        match (kind, session) {
            (Kind::SESSION_OPENED | Kind::SESSION_CLOSED, 0) => {
                Err(Malformed("a session's entry names no session"))
            }
            (_, 0) => Ok((0, Digest::ZERO)),
            (Kind::SESSION_OPENED, number) if number == self.next => Ok((0, Digest::ZERO)),
            (Kind::SESSION_OPENED, _) => Err(Malformed("a session is opened out of its order")),
            (_, number) => match self.open.get(&number) {
                Some(link) => Ok((link.entries, link.last)),
                None => Err(Malformed("an entry is of a session that is not open")),
            },
        }
    }

    /// Counts an entry that was placed.
    pub fn take(&mut self, kind: Kind, session: u64, leaf: Digest) {
        match (kind, session) {
            (_, 0) => {}
            (Kind::SESSION_CLOSED, number) => {
                self.open.remove(&number);
            }
            (Kind::SESSION_OPENED, number) => {
                self.next = number + 1;
                self.open.insert(number, Link { entries: 1, last: leaf });
            }
            (_, number) => {
                if let Some(link) = self.open.get_mut(&number) {
                    link.entries += 1;
                    link.last = leaf;
                }
            }
        }
    }

    /// The numbers of the open sessions, sorted.
    #[must_use]
    pub fn open_numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.open.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }
}

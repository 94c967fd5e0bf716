//! What a stranger needs beside the evidence: how to judge it, and a program that does.

use std::io;

use crate::bundle::{self, Part};
use crate::storage::Storage;

/// The verifier in Python: it was written from the format's description, and shares no code with ours.
const VERIFIER: &str = include_str!("../../verify.py");

/// Adds the README and the verifier.
pub(super) fn add(to: &dyn Storage) -> io::Result<()> {
    let Some(cover) = bundle::cover(to)? else { return Ok(()) };
    let what = match cover.part {
        Part::Ledger => {
            format!("a whole ledger: its first {} entries, and what was written after them", cover.size)
        }
        Part::Range { first, last } => {
            format!("the entries {first} to {last} of a ledger, and those that share a file with them")
        }
        Part::Session { number, entries, .. } => {
            format!(
                "session {number} of a ledger: its {entries} entries from the opening to the close, and nothing of any other session"
            )
        }
    };
    let readme = include_str!("README.md").replace("{what}", &what).replace("{origin}", &cover.origin);
    to.replace("README.md", readme.as_bytes())?;
    to.replace("verify.py", VERIFIER.as_bytes())
}

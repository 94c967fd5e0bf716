//! What the pinned witnesses said: each must have cosigned a checkpoint that agrees with what is here.

use super::report::{Anchor, Court};
use crate::checkpoint::Note;
use crate::witness::Cosigner;

/// Judges the cosignatures of notes that agree, each with where it was found.
pub(super) fn judge(pinned: &[Cosigner], agreeing: &[(String, Note)], court: &mut Court) {
    for witness in pinned {
        let mut newest: Option<(u64, u64)> = None;
        for (source, note) in agreeing {
            match witness.time_of(note) {
                Ok(Some(time_s)) => newest = newest.max(Some((note.unverified().size, time_s))),
                Ok(None) => {}
                Err(why) => court.tampered(Some(source.clone()), None, None, why.to_string()),
            }
        }
        match newest {
            Some((size, time_s)) => {
                let source = format!("witness {}", witness.name());
                court.anchored(Anchor { source, size, time_ns: time_s.saturating_mul(1_000_000_000) });
            }
            None => {
                court.unwitnessed = true;
                let note = format!("the witness {} has cosigned nothing that is here", witness.name());
                court.findings.notes.push(note);
            }
        }
    }
}

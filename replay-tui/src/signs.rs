//! The sign, the words and the tone of everything that can be said about an entry or a ledger.
//!
//! Signs and words carry the whole meaning; a tone only repeats it for those who see colours.

use crate::figures;
use crate::message::{Decision, Ending, Note, Outcome, Standing, UnixNs, Verdict, VerdictState, What};

/// What a colour would say, one thing each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// Of less weight than what stands around it.
    Faint,
    /// Of more weight.
    Strong,
    /// Verified.
    Good,
    /// Not yet covered by an anchor, or not known.
    Doubt,
    /// Broken.
    Bad,
    /// Policy said no.
    Refused,
    /// A person decided.
    Human,
}

/// A sign, a word, and their tone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// The sign: one column.
    pub sign: char,
    /// The words.
    pub words: String,
    /// The tone.
    pub tone: Tone,
}

fn sign(sign: char, words: impl Into<String>, tone: Tone) -> Sign {
    Sign { sign, words: words.into(), tone }
}

/// What a step is, in a word of at most eight columns.
#[must_use]
pub fn step(what: &What) -> Sign {
    match what {
        What::Command { decision: Decision::Permit, prepare: true, .. } => sign('✔', "prepare", Tone::Faint),
        What::Command { decision: Decision::Permit, .. } => sign('✔', "permit", Tone::Plain),
        What::Command { decision: Decision::Refuse, .. } => sign('✘', "refuse", Tone::Refused),
        What::Command { decision: Decision::ShadowRefuse, .. } => sign('◌', "shadow", Tone::Refused),
        What::Command { decision: Decision::Unknown, .. } => sign('?', "unknown", Tone::Doubt),
        What::Note(Note::Opened) => sign('●', "opened", Tone::Faint),
        What::Note(Note::Closed) => sign('○', "closed", Tone::Faint),
        What::Note(Note::Revoked) => sign('■', "revoked", Tone::Human),
        What::Note(Note::Asked) => sign('⧗', "asked", Tone::Human),
        What::Note(Note::Answered) => sign('⧗', "answer", Tone::Human),
        What::Note(Note::Lapsed) => sign('⧗', "lapsed", Tone::Faint),
        What::Note(Note::GlassBroken) => sign('▲', "GLASS", Tone::Bad),
        What::Note(Note::Gap) => sign('▲', "gap", Tone::Bad),
        What::Note(Note::Other(_)) => sign('·', "note", Tone::Faint),
        What::Broken { .. } => sign('▲', "BROKEN", Tone::Bad),
    }
}

/// How a command came out, in a few words: rows, or what stopped it.
#[must_use]
pub fn outcome(outcome: &Outcome, answer: &str) -> (String, Tone) {
    match outcome.ending {
        Ending::Completed if outcome.rows == 0 && !answer.is_empty() => (answer.to_owned(), Tone::Faint),
        Ending::Completed => (figures::counted(outcome.rows, "row", "rows"), Tone::Faint),
        Ending::Suspended => {
            (format!("{}, more", figures::counted(outcome.rows, "row", "rows")), Tone::Faint)
        }
        Ending::Failed => (format!("error {answer}"), Tone::Strong),
        Ending::Cut => (format!("{}, cut", figures::counted(outcome.rows, "row", "rows")), Tone::Strong),
        Ending::Skipped => ("skipped".to_owned(), Tone::Faint),
        Ending::Refused => ("refused".to_owned(), Tone::Refused),
        Ending::Unknown => ("unknown".to_owned(), Tone::Doubt),
    }
}

/// The verdict in one word, as `gatebook-ledger verify` says it.
#[must_use]
pub fn standing(standing: Standing) -> Sign {
    match standing {
        Standing::Anchored => sign('✔', "verified and anchored", Tone::Good),
        Standing::NotAnchored => sign('◐', "verified, not anchored", Tone::Doubt),
        Standing::Incomplete => sign('▲', "INCOMPLETE", Tone::Bad),
        Standing::Tampered => sign('▲', "TAMPERED", Tone::Bad),
    }
}

/// The verdict and how far it reaches, for the top of the screen; `now_ns` is what an anchor's age counts to.
#[must_use]
pub fn verdict(state: &VerdictState, now_ns: UnixNs) -> Sign {
    match state {
        VerdictState::Waiting => sign('⋯', "not verified yet", Tone::Doubt),
        VerdictState::Running { share } => {
            let percent = (share.clamp(0.0, 1.0) * 100.0).floor();
            sign('⋯', format!("verifying {percent:.0} %"), Tone::Doubt)
        }
        VerdictState::Unreadable(_) => sign('▲', "CANNOT BE VERIFIED", Tone::Bad),
        VerdictState::Done(done) => match done.standing {
            Standing::Anchored => {
                let reach = format!("verified to {}", figures::grouped(done.entries));
                sign('✔', format!("{reach} · {}", anchor(done, now_ns)), Tone::Good)
            }
            Standing::NotAnchored => {
                let reach = format!("verified to {}", figures::grouped(done.entries));
                let lacks = if done.key_pinned { "not anchored" } else { "no key pinned" };
                sign('◐', format!("{reach} · {lacks}"), Tone::Doubt)
            }
            Standing::Incomplete | Standing::Tampered => {
                let problems = figures::counted(done.problems_count, "problem", "problems");
                let first = done.problems.iter().find_map(|problem| problem.seqs.as_ref());
                let place = first
                    .map_or(String::new(), |seqs| format!(" · from entry {}", figures::grouped(seqs.start)));
                let word = standing(done.standing);
                Sign { words: format!("{} · {problems}{place}", word.words), ..word }
            }
        },
    }
}

fn anchor(done: &Verdict, now_ns: UnixNs) -> String {
    let age_s = done.anchored_at_ns.map(|at_ns| now_ns.saturating_sub(at_ns) / 1_000_000_000);
    let age = age_s.map_or_else(String::new, |age_s| format!(" {} ago", figures::age(age_s)));
    match done.entries.saturating_sub(done.anchored_entries.unwrap_or(0)) {
        0 => format!("anchored{age}"),
        newer => format!("anchored{age}, {} newer", figures::grouped(newer)),
    }
}

//! What the app is told ([`Message`]), what it asks for ([`Wish`]), and the plain values in them.
//!
//! These types know nothing of the ledger's own: `load` fills them and is the only module that could. Every
//! string and byte in them is as recorded, hostile until `text` has shown it.

use std::ops::Range;

use crate::keys::Key;
use crate::parameter;

/// Names a session in its ledger. 0 is not a session: it holds what was recorded outside any.
pub type SessionId = u64;

/// Nanoseconds since 1970 in UTC, as recorded.
pub type UnixNs = u64;

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A key was pressed.
    Key(Key),
    /// The screen has this many columns and rows now.
    Resize(u16, u16),
    /// Time has passed; it comes with every message and alone in this one.
    Tick,
    /// These sessions are new or have changed.
    Sessions {
        /// The rows, each replacing an older one of the same session.
        changed: Vec<SessionRow>,
        /// How many entries have been read.
        entries: u64,
        /// How many bytes have been read, and how many there are.
        read: (u64, u64),
    },
    /// A session's steps from `from` on; what was known of them and after them is replaced.
    Steps {
        /// Whose steps.
        session: SessionId,
        /// The index of the first.
        from: usize,
        /// The steps.
        steps: Vec<Step>,
    },
    /// The words of some steps, cut to a size that fits a list.
    Texts {
        /// Whose steps.
        session: SessionId,
        /// The index of the first.
        from: usize,
        /// The words.
        texts: Vec<StepText>,
    },
    /// The words of one step, as far as they fit a screen to scroll in.
    Whole {
        /// Whose step.
        session: SessionId,
        /// Its index.
        index: usize,
        /// The words.
        text: Box<StepText>,
    },
    /// How a search ended.
    Found {
        /// Where it was.
        session: SessionId,
        /// The step that matches, if any does.
        index: Option<usize>,
    },
    /// What proves that an entry stands in the ledger, or why nothing does.
    Proof {
        /// The entry.
        seq: u64,
        /// The proof.
        proof: Result<Proof, String>,
    },
    /// How the verification goes.
    Verdict(VerdictState),
    /// Reading is done: everything asked for so far was answered.
    Idle,
    /// Something could not be read.
    Trouble(String),
    /// The process was asked to end.
    Quit,
}

/// What the app asks of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Read what was appended since, and tell about it, also for the session that is open.
    Refresh,
    /// Read a session's steps, from now on with every refresh.
    Open(SessionId),
    /// Read the words of these steps.
    Texts {
        /// Whose steps.
        session: SessionId,
        /// Which.
        range: Range<usize>,
    },
    /// Read all words of one step.
    Whole {
        /// Whose step.
        session: SessionId,
        /// Which.
        index: usize,
    },
    /// Search a session's statements and parameters for a text, in any case of letters.
    Find {
        /// Where.
        session: SessionId,
        /// For what.
        needle: String,
        /// The first step to look at.
        from: usize,
        /// Towards the start.
        backwards: bool,
    },
    /// Prove one entry.
    Prove(u64),
    /// Verify the ledger from its first byte.
    Verify,
    /// End.
    Quit,
}

/// One session in the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionRow {
    /// Which.
    pub id: SessionId,
    /// When it opened.
    pub opened_ns: UnixNs,
    /// When its last entry was written.
    pub last_ns: UnixNs,
    /// When and how it ended; none while it lives.
    pub ended: Option<(UnixNs, String)>,
    /// The protocol spoken.
    pub protocol: String,
    /// Who: the principal's name with its issuer.
    pub principal: String,
    /// The chain of actors between the principal and the gateway.
    pub through: Vec<String>,
    /// The upstream.
    pub resource: String,
    /// The upstream's database.
    pub database: String,
    /// The upstream's role.
    pub role: String,
    /// Where the client called from.
    pub client_address: String,
    /// What the client calls itself.
    pub application: String,
    /// How many commands were executed or refused.
    pub commands: u64,
    /// How many of them were refused.
    pub refused: u64,
    /// How many entries of it cannot be believed.
    pub broken: u64,
}

/// One line of a session's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The entry's number in the ledger.
    pub seq: u64,
    /// When it was written.
    pub at_ns: UnixNs,
    /// What it says.
    pub what: What,
}

/// What a step says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A command was decided.
    Command {
        /// Its number within the session.
        request: u64,
        /// Whether it only made a statement ready.
        prepare: bool,
        /// What was decided.
        decision: Decision,
        /// How it came out, once it has.
        outcome: Option<Outcome>,
    },
    /// Anything else, by the name of its event.
    Note(Note),
    /// Here something is recorded that cannot be believed.
    Broken {
        /// Which segment file.
        segment: u64,
        /// The first byte in it that is in doubt.
        offset: u64,
        /// How many bytes from there; none where the end is unknown.
        length: Option<u64>,
        /// Why.
        why: String,
    },
}

/// What a note is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The session opened.
    Opened,
    /// The session closed.
    Closed,
    /// A person or a rule took something away: a command was cancelled, access revoked.
    Revoked,
    /// Somebody's approval was asked for.
    Asked,
    /// Somebody answered; or a command went on because of an approval.
    Answered,
    /// A request for approval came to nothing.
    Lapsed,
    /// A command went on without the approval that it needed.
    GlassBroken,
    /// Something was not recorded, and why.
    Gap,
    /// Any other event, by its name.
    Other(String),
}

/// What policy said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may be.
    Permit,
    /// It may not.
    Refuse,
    /// It may not, but the resource only watches: it was let through.
    ShadowRefuse,
    /// A word that this program does not know.
    Unknown,
}

/// How a command came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The entry's number in the ledger.
    pub seq: u64,
    /// When it was written.
    pub at_ns: UnixNs,
    /// The way in which it ended.
    pub ending: Ending,
    /// How many rows the client was sent.
    pub rows: u64,
    /// How many bytes the client was sent.
    pub bytes: u64,
    /// How long it took.
    pub duration_us: u64,
}

/// The way in which a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It ran to its end.
    Completed,
    /// It stopped after a part, as the client asked.
    Suspended,
    /// The upstream refused it or failed.
    Failed,
    /// It reached a limit of policy: the rest was not shown, and the client was told an error.
    Cut,
    /// An earlier error made the upstream pass over it.
    Skipped,
    /// The gateway refused it.
    Refused,
    /// A crash lost the answer, or this program does not know the word.
    Unknown,
}

/// The words of one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepText {
    /// The statement, or what a note has to say.
    pub statement: Vec<u8>,
    /// How long the statement is in full.
    pub statement_bytes: u64,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// How many parameters there are in full.
    pub parameters_count: usize,
    /// The policies that determined the decision.
    pub policies: Vec<String>,
    /// The upstream's tag (`UPDATE 1`) or error code.
    pub answer: String,
    /// Everything else that was recorded: names and values.
    pub facts: Vec<(String, String)>,
    /// The entry's leaf hash in the tree, in hexadecimal.
    pub leaf: String,
    /// The segment file and the first byte of the entry in it.
    pub place: Option<(u64, u64)>,
    /// Why there are no words: the payload is absent, redacted or not the one that was recorded.
    pub missing: Option<String>,
    /// Whether that is because something was changed.
    pub broken: bool,
}

impl StepText {
    /// The statement and its parameters behind it, for where they are wrapped.
    #[must_use]
    pub fn in_one(&self) -> Vec<u8> {
        let mut all = self.statement.clone();
        let list = parameter::list(&self.parameters, self.parameters_count);
        if !list.is_empty() {
            all.extend_from_slice(b"  ");
            all.extend(list);
        }
        all
    }

    /// About how much memory it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let texts: usize =
            self.policies.iter().chain(self.facts.iter().map(|(_, value)| value)).map(String::len).sum();
        let values: usize = self.parameters.iter().map(|parameter| parameter.value.len() + 32).sum();
        256 + self.statement.len() + values + texts
    }
}

/// One parameter of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameter {
    /// The type's number in PostgreSQL; 0 where unknown.
    pub type_oid: u32,
    /// Whether `value` is in the protocol's binary format.
    pub binary: bool,
    /// Whether it is NULL; then `value` is empty.
    pub null: bool,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// Why an entry can be believed: facts to show, and what they come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// Names and values, in the order of the argument.
    pub facts: Vec<(String, String)>,
    /// Whether the path leads to a signed root.
    pub holds: bool,
}

/// How far the verification is, or what it found.
#[derive(Debug, Clone, PartialEq)]
pub enum VerdictState {
    /// It has not begun.
    Waiting,
    /// It runs.
    Running {
        /// How much is checked, from 0 to 1.
        share: f64,
    },
    /// It is done.
    Done(Verdict),
    /// It could not be done at all.
    Unreadable(String),
}

/// What the verifier found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// In one word.
    pub standing: Standing,
    /// How many entries it covers, from the first.
    pub entries: u64,
    /// How many of them an anchor covers.
    pub anchored_entries: Option<u64>,
    /// When the newest anchor was signed, as the ledger's clock said.
    pub anchored_at_ns: Option<UnixNs>,
    /// Whether the auditor pinned the log's key.
    pub key_pinned: bool,
    /// What is wrong, in the order of the ledger.
    pub problems: Vec<Problem>,
    /// How many problems there are in full.
    pub problems_count: u64,
    /// What was checked and what was not: one line each.
    pub remarks: Vec<String>,
}

/// The verdict in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// Everything holds, up to an anchor outside of the ledger, by a key that the auditor pinned.
    Anchored,
    /// Everything holds in itself, but no key is pinned or nothing outside vouches for it.
    #[default]
    NotAnchored,
    /// Something is missing.
    Incomplete,
    /// Something was changed.
    Tampered,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    /// The entries that it puts in doubt; none where they cannot be named.
    pub seqs: Option<Range<u64>>,
    /// Where: a file and an offset, as the verifier says it.
    pub place: String,
    /// What.
    pub why: String,
}

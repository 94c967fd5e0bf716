//! The judgement, and what it is made of: problems, notes, what was counted.

use serde::Serialize;

use super::Options;
use super::claims::Claim;
use super::earlier::Earlier;
use crate::checkpoint::{Note, Vkey};
use crate::hash::Digest;
use crate::manifest::Manifest;

/// So many problems are told; more are only counted.
const PROBLEMS_MAX: usize = 200;

/// The judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every byte is as it was signed, under the pinned key, and a checkpoint kept elsewhere agrees.
    Verified,
    /// Something was changed.
    Tampered,
    /// Nothing was changed, and something is missing.
    Incomplete,
    /// Nothing is wrong, but no key was pinned, or no checkpoint kept elsewhere was brought, or not all was read again.
    Unanchored,
}

impl Verdict {
    /// The exit code of `gatebook-ledger verify`.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Verified => 0,
            Verdict::Tampered => 1,
            Verdict::Incomplete => 2,
            Verdict::Unanchored => 4,
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether it is only that something is missing.
    pub missing: bool,
    /// The file, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The entry, or the first of several that it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// The last of several entries that it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_last: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What was kept or seen elsewhere, and agrees: a checkpoint that was brought, or a witness's cosignature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Anchor {
    /// The name that it was brought under, or the witness's.
    pub source: String,
    /// How many entries it covers.
    pub size: u64,
    /// When it was signed, in nanoseconds since 1970 UTC, by the ledger's clock or the witness's.
    pub time_ns: u64,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The judgement.
    pub verdict: Verdict,
    /// The ledger's name, where its manifest can be read.
    pub origin: Option<String>,
    /// The verifier key of the log key that is in force at the end, as the ledger claims.
    pub key: Option<String>,
    /// Whether the auditor pinned that key, or one that is retiring and signs along, and a note that it signed agrees
    /// with what is here: it leads to `ledger.toml`, and so to all other keys.
    pub key_pinned: bool,
    /// How many entries were read.
    pub entries: u64,
    /// How many frames.
    pub frames: u64,
    /// How many segments.
    pub segments: u64,
    /// How many sessions were opened.
    pub sessions: u64,
    /// How many of them are open.
    pub sessions_open: u64,
    /// The epoch at the end.
    pub epoch: u32,
    /// How many payloads were taken out, each with an entry that says so.
    pub redacted: u64,
    /// The root of the tree over all entries, where they could all be read.
    pub root: Option<Digest>,
    /// The newest anchor.
    pub anchor: Option<Anchor>,
    /// How many entries are newer than that.
    pub entries_after_anchor: u64,
    /// The size of the checkpoint that lies in the directory.
    pub published: Option<u64>,
    /// How many entries were not read again, because an earlier verdict was brought.
    pub resumed: u64,
    /// What a later verdict can go on from; none where something is wrong, or too little is sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Earlier>,
    /// What is wrong, in the order of the ledger.
    pub problems: Vec<Problem>,
    /// How many problems there are, told or not.
    pub problem_count: u64,
    /// What was not checked, and what an auditor should know.
    pub notes: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<String>,
}

impl Findings {
    pub(super) fn add(
        &mut self,
        missing: bool,
        file: Option<String>,
        offset: Option<u64>,
        entries: Option<(u64, u64)>,
        what: String,
    ) {
        let (entry, last) = (entries.map(|(first, _)| first), entries.map(|(_, last)| last));
        let entry_last = last.filter(|last| Some(*last) != entry);
        self.problems.push(Problem { missing, file, offset, entry, entry_last, what });
    }
}

#[derive(Debug, Default)]
pub(super) struct Court {
    pub(super) findings: Findings,
    pub(super) claims: Vec<Claim>,
    pub(super) entries: u64,
    pub(super) frames: u64,
    pub(super) segments: u64,
    pub(super) sessions: u64,
    pub(super) sessions_open: u64,
    pub(super) root: Option<Digest>,
    pub(super) anchor: Option<Anchor>,
    pub(super) published: Option<u64>,
    pub(super) epoch: u32,
    pub(super) redacted: u64,
    /// The log key in force at the end.
    pub(super) key: Option<Vkey>,
    pub(super) key_pinned: bool,
    /// Whether the end was being written all the while, so that it could not be checked.
    pub(super) unsettled: bool,
    /// Whether something that the pinned key signed agrees with what is here.
    pub(super) pin_signed: bool,
    pub(super) resumed: u64,
    pub(super) earlier: Option<Earlier>,
    /// The notes that agree with what is here.
    pub(super) agreeing: Vec<(String, Note)>,
    /// Whether a pinned witness has cosigned none of them.
    pub(super) unwitnessed: bool,
}

impl Court {
    /// Takes an anchor, where it is newer than the one before.
    pub(super) fn anchored(&mut self, anchor: Anchor) {
        let place = |anchor: &Anchor| (anchor.size, anchor.time_ns);
        if self.anchor.as_ref().is_none_or(|before| place(before) < place(&anchor)) {
            self.anchor = Some(anchor);
        }
    }

    pub(super) fn tampered(
        &mut self,
        file: Option<String>,
        offset: Option<u64>,
        entry: Option<u64>,
        what: String,
    ) {
        self.findings.add(false, file, offset, entry.map(|entry| (entry, entry)), what);
    }

    pub(super) fn missing(
        &mut self,
        file: Option<String>,
        offset: Option<u64>,
        entry: Option<u64>,
        what: String,
    ) {
        self.findings.add(true, file, offset, entry.map(|entry| (entry, entry)), what);
    }

    pub(super) fn report(mut self, manifest: Option<&Manifest>, options: &Options) -> Report {
        let key_pinned = self.key_pinned;
        if options.key.is_none() {
            self.findings
                .notes
                .insert(0, "no key is pinned: whoever wrote this ledger may be anybody".to_owned());
        }
        if self.resumed > 0 {
            let note = format!(
                "entries 0 to {} were not read again: they rest on the earlier verdict, which nobody signed",
                self.resumed - 1
            );
            self.findings.notes.insert(0, note);
        }
        if self.anchor.is_none() {
            let note = "no checkpoint kept elsewhere was brought: an end that was cut off, or an older copy, would not show";
            self.findings.notes.push(note.to_owned());
        }
        let Findings { mut problems, notes } = self.findings;
        let verdict = if problems.iter().any(|problem| !problem.missing) {
            Verdict::Tampered
        } else if !problems.is_empty() {
            Verdict::Incomplete
        } else if key_pinned
            && self.anchor.is_some()
            && self.resumed == 0
            && !self.unsettled
            && !self.unwitnessed
        {
            Verdict::Verified
        } else {
            Verdict::Unanchored
        };
        let problem_count = problems.len() as u64;
        problems.truncate(PROBLEMS_MAX);
        let covered = self.anchor.as_ref().map_or(0, |anchor| anchor.size);
        Report {
            verdict,
            origin: manifest.map(|manifest| manifest.origin.to_string()),
            key: self.key.map(|key| key.to_string()),
            key_pinned,
            entries: self.entries,
            frames: self.frames,
            segments: self.segments,
            sessions: self.sessions,
            sessions_open: self.sessions_open,
            epoch: self.epoch,
            redacted: self.redacted,
            root: self.root,
            entries_after_anchor: self.entries.saturating_sub(covered),
            anchor: self.anchor,
            published: self.published,
            resumed: self.resumed,
            earlier: self.earlier.filter(|_| problem_count == 0),
            problems,
            problem_count,
            notes,
        }
    }
}

//! The rules between segments: their ends are joined in order into one chain, one tree, one account of sessions,
//! and that is compared with what was signed.

use std::collections::HashMap;

use super::part::Part;
use super::report::{Anchor, Court};
use crate::entry::Kind;
use crate::hash::Digest;
use crate::manifest::Manifest;
use crate::merkle::Range;
use crate::segment::name;
use crate::session::Sessions;

/// What the segments come to, joined in order.
pub(super) struct Joined {
    pub(super) chain: Option<Digest>,
    pub(super) genesis: Digest,
    pub(super) next_seq: u64,
    /// None behind an entry that is missing.
    pub(super) range: Option<Range>,
    pub(super) sessions: Sessions,
    /// Whether sessions can still be told: not behind damage.
    pub(super) sessions_known: bool,
    /// For each claim's size: the root, the last entry's kind and time, the chain.
    pub(super) reached: HashMap<u64, (Option<Digest>, Kind, u64, Option<Digest>)>,
}

impl Joined {
    pub(super) fn new(manifest: &Manifest) -> Joined {
        Joined {
            chain: Some(manifest.genesis()),
            genesis: manifest.genesis(),
            next_seq: 0,
            range: Some(Range::empty(0)),
            sessions: Sessions::default(),
            sessions_known: true,
            reached: HashMap::new(),
        }
    }

    pub(super) fn join(&mut self, part: Part, court: &mut Court) {
        let file = || Some(name(part.number));
        court.segments += 1;
        court.frames += part.frames;
        if let Some(header) = &part.header {
            let number = header.number == part.number && header.genesis == self.genesis;
            let follows =
                header.first_seq == self.next_seq && self.chain.is_none_or(|chain| chain == header.chain_in);
            if !number || !follows && self.chain.is_some() {
                let what = "segment header contradicts what is before it".to_owned();
                court.tampered(file(), Some(0), Some(self.next_seq), what);
            }
        } else if self.chain.is_some() && part.chain_in.is_some() && part.chain_in != self.chain {
            let what = "segment does not follow the one before".to_owned();
            court.tampered(file(), Some(0), Some(self.next_seq), what);
        }
        let intact = part.range.is_some() && part.findings.problems.iter().all(|problem| problem.missing);
        for snapshot in &part.snapshots {
            let root = snapshot.range.as_ref().and_then(|part| {
                let mut whole = self.range.clone()?;
                whole.join(part).then(|| whole.root())?
            });
            self.reached.insert(snapshot.size, (root, snapshot.kind, snapshot.time_ns, snapshot.chain));
        }
        let whole = self.range.take();
        self.range =
            whole.zip(part.range.as_ref()).and_then(|(mut whole, range)| whole.join(range).then_some(whole));
        self.join_sessions(&part, intact, court);
        if let Some((offset, footer)) = &part.footer {
            let agrees = footer.number == part.number
                && footer.frames == part.frames
                && footer.next_seq == part.next_seq
                && part.chain_next.is_none_or(|chain| chain == footer.chain)
                && self.range.as_ref().and_then(Range::root).is_none_or(|root| root == footer.root)
                && (!self.sessions_known || footer.sessions == self.sessions);
            if !agrees && intact {
                let what = "segment footer contradicts its segment".to_owned();
                court.tampered(file(), Some(*offset), Some(part.next_seq), what);
            }
        }
        self.chain = part.chain_next;
        self.next_seq = part.next_seq;
        court.findings.problems.extend(part.findings.problems);
        court.findings.notes.extend(part.findings.notes);
    }

    fn join_sessions(&mut self, part: &Part, intact: bool, court: &mut Court) {
        if !intact {
            self.sessions_known = false;
        }
        let known = self.sessions_known;
        let mut blame = |seq: u64, what: &str| {
            if known {
                court.tampered(Some(name(part.number)), None, Some(seq), what.to_owned());
            }
        };
        for (session, seq) in &part.opened {
            if *session != self.sessions.next {
                blame(*seq, "session is opened out of its order: sessions before it are missing");
            }
            self.sessions.next = session + 1;
        }
        for (session, stretch) in &part.sessions {
            if let Some(before) = stretch.before
                && self.sessions.open.get(session) != Some(&before)
            {
                blame(stretch.first_seq, "entry does not follow its session's entry before");
            }
            if stretch.closed {
                self.sessions.open.remove(session);
            } else {
                self.sessions.open.insert(*session, stretch.link);
            }
        }
    }

    /// Compares what was signed with what is there.
    pub(super) fn judge_claims(&self, court: &mut Court) {
        for claim in court.claims.clone() {
            let source = Some(claim.source.clone());
            if claim.size > self.next_seq {
                let what = format!(
                    "{} entries were signed, and {} are here: the end was cut off, or an older copy put back",
                    claim.size, self.next_seq
                );
                court.missing(source, None, Some(self.next_seq), what);
                continue;
            }
            let Some((root, kind, time_ns, chain)) = self.reached.get(&claim.size) else { continue };
            let Some(root) = root else {
                court
                    .findings
                    .notes
                    .push(format!("{} cannot be compared behind what is broken", claim.source));
                continue;
            };
            let chain_differs = claim.chain.is_some_and(|claimed| *chain != Some(claimed));
            if *root != claim.root || chain_differs || *kind != Kind::CHAIN_HEAD {
                let what = format!("the first {} entries are not those that were signed", claim.size);
                court.tampered(source, None, None, what);
            } else if claim.brought && court.anchor.as_ref().is_none_or(|anchor| anchor.size < claim.size) {
                court.anchor = Some(Anchor { source: claim.source, size: claim.size, time_ns: *time_ns });
            }
        }
    }
}

//! The rules between segments: their ends are joined in order into one chain, one tree, one account of sessions,
//! and that is compared with what was signed.

use std::collections::HashMap;

use super::earlier::Earlier;
use super::epochs::EpochKeys;
use super::part::{Part, Snapshot};
use super::pin;
use super::redacted::{Redacted, Redaction};
use super::report::{Anchor, Court};
use crate::checkpoint::{BadNote, Note, Vkey};
use crate::entry::Kind;
use crate::epoch::Epoch;
use crate::hash::Digest;
use crate::manifest::Manifest;
use crate::merkle::Range;
use crate::orders::Authority;
use crate::segment::{Footer, name};
use crate::session::Sessions;
use crate::signature::Origin;

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
    /// What stands at each claim's size.
    pub(super) reached: HashMap<u64, Reached>,
    /// The epoch that the next segment must be of; none where that cannot be told.
    pub(super) epoch: Option<Epoch>,
    /// The latest time of the epoch's entries.
    latest_ns: u64,
    /// The latest entry's time.
    ends_ns: u64,
    origin: Origin,
    /// From which entry on which root and log keys were in force.
    authorities: Vec<(u64, Authority)>,
    /// Whether those can still be told: not behind damage.
    authority_known: bool,
    /// Whether the epoch's latest time can be told: not behind a segment that is missing.
    latest_known: bool,
    /// The number that the next segment must have.
    next_number: u64,
    /// Behind which entry, and up to which, nothing can be compared, because segments before it are missing.
    unknown: Vec<(u64, u64)>,
    zeroed: Vec<u64>,
    redactions: Vec<(u64, Redaction)>,
    /// The digest of the ends of the segment that was joined last; none where it is not whole and sealed.
    ends: Option<Digest>,
    /// What a later verdict can go on from.
    pub(super) earlier: Option<Earlier>,
    /// How many entries an earlier verdict spares this one.
    pub(super) resumed: u64,
}

/// What stands right behind the last entry of a claim.
pub(super) struct Reached {
    root: Option<Digest>,
    kind: Kind,
    time_ns: u64,
    epoch: u32,
    chain: Option<Digest>,
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
            epoch: None,
            latest_ns: 0,
            ends_ns: 0,
            origin: manifest.origin.clone(),
            authorities: vec![(0, Authority::first(manifest))],
            authority_known: true,
            latest_known: true,
            next_number: 0,
            unknown: Vec::new(),
            zeroed: Vec::new(),
            redactions: Vec::new(),
            ends: None,
            earlier: None,
            resumed: 0,
        }
    }

    /// Goes on behind a sealed segment that an earlier verdict found whole; `epoch` is the one that the next segment is of.
    pub(super) fn behind(manifest: &Manifest, footer: Footer, epoch: Epoch) -> Option<Joined> {
        let mut joined = Joined::new(manifest);
        joined.range = Some(Range::from_levels(footer.next_seq, &footer.levels)?);
        (joined.chain, joined.next_seq) = (Some(footer.chain), footer.next_seq);
        joined.next_number = footer.number + 1;
        joined.resumed = footer.next_seq;
        joined.sessions = footer.sessions;
        joined.authorities = vec![(0, footer.authority)];
        joined.ends_ns = footer.latest_ns;
        joined.latest_ns = if footer.ends_epoch { epoch.since_ns } else { footer.latest_ns };
        joined.epoch = Some(epoch);
        Some(joined)
    }

    pub(super) fn join(&mut self, manifest: &Manifest, part: Part, court: &mut Court) {
        let file = || Some(name(part.number));
        // Behind the last sealed segment there is nothing yet that this could be held against, so it is read again.
        if let Some(ends) = self.ends.filter(|_| part.footer.is_some()) {
            self.earlier = Some(Earlier { genesis: self.genesis, segments: part.number, ends });
        }
        court.segments += 1;
        court.frames += part.frames;
        court.unsettled |= part.unsettled;
        if part.number != self.next_number {
            self.pass_hole(&part, court);
        }
        self.next_number = part.number + 1;
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
        self.join_epoch(manifest, &part, court);
        let intact = part.range.is_some() && part.findings.problems.iter().all(|problem| problem.missing);
        for snapshot in &part.snapshots {
            let root = snapshot.range.as_ref().and_then(|part| {
                let mut whole = self.range.clone()?;
                whole.join(part).then(|| whole.root())?
            });
            let Snapshot { size, kind, time_ns, epoch, chain, .. } = *snapshot;
            self.reached.insert(size, Reached { root, kind, time_ns, epoch, chain });
        }
        let whole = self.range.take();
        self.range =
            whole.zip(part.range.as_ref()).and_then(|(mut whole, range)| whole.join(range).then_some(whole));
        self.join_sessions(&part, intact, court);
        self.join_orders(manifest, &part, intact, court);
        if let Some((offset, footer)) = &part.footer {
            let agrees = footer.number == part.number
                && footer.frames == part.frames
                && footer.next_seq == part.next_seq
                && part.chain_next.is_none_or(|chain| chain == footer.chain)
                && self.range.as_ref().and_then(Range::root).is_none_or(|root| root == footer.root)
                && (!self.sessions_known || footer.sessions == self.sessions)
                && part.header.is_none_or(|header| footer.epoch == header.epoch.number)
                && (!self.latest_known || footer.latest_ns == self.latest_ns)
                && footer.ends_epoch == part.seal.is_some()
                && (!self.authority_known || footer.authority == self.authority());
            if part.frames == 0 && footer.frames > 0 && intact {
                let what = "the frames of this segment are missing: it was cut down to its footer".to_owned();
                court.missing(file(), Some(*offset), Some(part.next_seq), what);
                return self.pass_over(footer, court);
            } else if !agrees && intact {
                let what = "segment footer contradicts its segment".to_owned();
                court.tampered(file(), Some(*offset), Some(part.next_seq), what);
            } else if self.is_behind_hole() && intact {
                self.learn(footer, court);
            }
        }
        self.leave_epoch(&part);
        self.ends = part.ends.filter(|_| intact);
        self.zeroed.extend(part.zeroed);
        self.redactions.extend(part.redactions);
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

    /// Goes on behind segments that are missing. What they would tell is not known until the next footer tells it.
    fn pass_hole(&mut self, part: &Part, court: &mut Court) {
        let first_seq = part.header.map_or(part.first_seq, |header| header.first_seq);
        if first_seq < self.next_seq {
            let what = "segment header contradicts what is before it".to_owned();
            court.tampered(Some(name(part.number)), Some(0), Some(first_seq), what);
        }
        self.unknown.push((self.next_seq, u64::MAX));
        self.next_seq = first_seq;
        (self.chain, self.range) = (None, None);
        if part
            .header
            .is_some_and(|header| self.epoch.is_some_and(|epoch| header.epoch.number > epoch.number))
        {
            self.epoch = None;
        }
        (self.sessions_known, self.authority_known, self.latest_known) = (false, false, false);
    }

    fn is_behind_hole(&self) -> bool {
        self.unknown.last().is_some_and(|(_, end)| *end == u64::MAX)
    }

    /// Goes on behind a segment of which only the footer is left, which its epoch signed.
    fn pass_over(&mut self, footer: &Footer, court: &mut Court) {
        (self.chain, self.next_seq) = (Some(footer.chain), footer.next_seq);
        self.learn(footer, court);
        if footer.ends_epoch {
            self.epoch = None;
        }
    }

    /// Takes what the footer of a segment says of all before it.
    fn learn(&mut self, footer: &Footer, court: &mut Court) {
        self.range = Range::from_levels(footer.next_seq, &footer.levels);
        if self.range.as_ref().and_then(Range::root) != Some(footer.root) {
            let what = "segment footer contradicts itself".to_owned();
            court.tampered(Some(name(footer.number)), None, Some(footer.next_seq), what);
        }
        self.sessions = footer.sessions.clone();
        self.authorities.push((footer.next_seq, footer.authority));
        self.latest_ns = footer.latest_ns;
        (self.sessions_known, self.authority_known, self.latest_known) = (true, true, true);
        if let Some((_, end)) = self.unknown.last_mut().filter(|(_, end)| *end == u64::MAX) {
            *end = footer.next_seq;
        }
    }

    /// The segment must be of the epoch that goes on, or of the one that the seal before it leads to.
    fn join_epoch(&mut self, manifest: &Manifest, part: &Part, court: &mut Court) {
        let Some(header) = &part.header else { return };
        let (file, seq) = (Some(name(part.number)), Some(header.first_seq));
        let expected = match self.epoch {
            // Nothing certifies when epoch 0 began; its first entry does, and the tree holds that.
            None if part.number == 0 => Some(Epoch::first(manifest.epoch_key, header.epoch.since_ns)),
            expected => expected,
        };
        let Some(expected) = expected else {
            self.enter(header.epoch);
            return;
        };
        if header.epoch != expected {
            let what = if header.epoch.number > expected.number {
                format!("epoch {} has no seal, and epoch {} follows", expected.number, header.epoch.number)
            } else if header.epoch.number < expected.number {
                format!("epoch {} was sealed, and goes on", header.epoch.number)
            } else {
                format!("epoch {} is not the one that was begun", header.epoch.number)
            };
            court.tampered(file, Some(0), seq, what);
        }
        self.enter(header.epoch);
        self.latest_ns = self.latest_ns.max(part.latest_ns);
        if part.seal.as_ref().is_some_and(|(_, next)| next.since_ns < self.latest_ns) {
            let what = "epoch.seal is older than entries of its epoch".to_owned();
            court.tampered(Some(name(part.number)), None, part.seal.map(|(seq, _)| seq), what);
        }
    }

    fn enter(&mut self, epoch: Epoch) {
        if self.epoch.is_none_or(|before| before.number != epoch.number) {
            self.latest_ns = epoch.since_ns;
        }
        self.epoch = Some(epoch);
    }

    fn leave_epoch(&mut self, part: &Part) {
        // A segment without entries says nothing of when the ledger ends.
        self.ends_ns = part.ends_ns.unwrap_or(self.ends_ns);
        if let Some((_, next)) = part.seal {
            self.enter(next);
            self.latest_known = true;
        } else if part.header.is_none() && part.frames > 0 {
            // What a damaged header hides may have been another epoch.
            self.epoch = None;
        }
    }

    fn join_orders(&mut self, manifest: &Manifest, part: &Part, intact: bool, court: &mut Court) {
        self.authority_known &= intact;
        for (seq, time_ns, order) in &part.orders {
            match self.authority().after(order, *time_ns, manifest) {
                Ok(next) => self.authorities.push((seq + 1, next)),
                Err(why) if self.authority_known => {
                    court.tampered(Some(name(part.number)), None, Some(*seq), why.0.to_owned());
                }
                Err(_) => {}
            }
        }
    }

    fn authority(&self) -> Authority {
        self.authorities[self.authorities.len() - 1].1
    }

    /// What was in force behind the first `size` entries.
    fn authority_at(&self, size: u64) -> Authority {
        let behind = self.authorities.iter().rev().find(|(from, _)| *from <= size);
        behind.map_or_else(|| self.authority(), |(_, authority)| *authority)
    }

    /// A payload of zeros must have been redacted, by an entry that comes later.
    pub(super) fn judge_redactions(&self, court: &mut Court) {
        let redacted = Redacted::new(self.redactions.iter().copied());
        // What says so may be in a segment that is missing.
        let missing = !self.unknown.is_empty();
        for seq in &self.zeroed {
            if redacted.has(*seq) {
                court.redacted += 1;
            } else {
                let what = "payload is gone, and no redaction says so".to_owned();
                court.findings.add(missing, None, None, Some((*seq, *seq)), what);
            }
        }
    }

    /// Which of this ledger's keys the auditor pinned.
    pub(super) fn judge_pin(&self, pinned: Option<&Vkey>, court: &mut Court) {
        let whole = !self.is_behind_hole();
        pin::judge(&self.origin, &self.authorities, self.ends_ns, whole, pinned, court);
    }

    /// Whether a note is signed by the keys that were in force: the log key, and the key of its last entry's epoch.
    fn check_note(&self, note: &Note, epochs: &EpochKeys) -> Result<(), BadNote> {
        let size = note.unverified().size;
        let signed = |epoch| {
            epochs.key(epoch).is_some_and(|key| note.is_signed_by(&Vkey::epoch(&self.origin, epoch, key)))
        };
        let by_epoch = match self.reached.get(&size) {
            Some(reached) => signed(reached.epoch),
            // Beyond the end of what is here it may be of an epoch that is not, which is told as that.
            None => note
                .epochs()
                .any(|epoch| signed(epoch) || size > self.next_seq && epochs.key(epoch).is_none()),
        };
        if !by_epoch {
            return Err(BadNote("the key of its epoch did not sign it"));
        }
        note.verify(&[Vkey::log(&self.origin, self.authority_at(size).log.key)]).map(drop)
    }

    /// Compares what was signed with what is there.
    pub(super) fn judge_claims(&self, epochs: &EpochKeys, pinned: Option<&Vkey>, court: &mut Court) {
        for claim in court.claims.clone() {
            let source = Some(claim.source.clone());
            if self.resumed > 0 && claim.size <= self.resumed {
                let note =
                    format!("{} covers only what was not read again: it was not compared", claim.source);
                court.findings.notes.push(note);
                continue;
            }
            if self.unknown.iter().any(|(behind, end)| *behind < claim.size && claim.size <= *end) {
                let note = format!("{} cannot be compared behind what is missing", claim.source);
                court.findings.notes.push(note);
                continue;
            }
            if let Some(Err(why)) = claim.note.as_ref().map(|note| self.check_note(note, epochs)) {
                let agrees = self.reached.get(&claim.size).is_some_and(|here| here.root == Some(claim.root));
                if claim.brought && agrees {
                    // Whoever carried it may have lost or garbled a line; what it says is so, and it proves nothing.
                    court.findings.notes.push(format!("{} is not usable: {why}", claim.source));
                } else {
                    court.tampered(source, None, None, why.to_string());
                }
                continue;
            }
            if claim.size > self.next_seq {
                let what = format!(
                    "{} entries were signed, and {} are here: the end was cut off, or an older copy put back",
                    claim.size, self.next_seq
                );
                court.missing(source, None, Some(self.next_seq), what);
                continue;
            }
            let Some(Reached { root, kind, time_ns, epoch, chain }) = self.reached.get(&claim.size) else {
                continue;
            };
            let Some(root) = root else {
                court
                    .findings
                    .notes
                    .push(format!("{} cannot be compared behind what is broken", claim.source));
                continue;
            };
            let chain_differs = claim.chain.is_some_and(|claimed| *chain != Some(claimed));
            let epoch_differs = claim.epoch.is_some_and(|claimed| claimed != *epoch);
            if *root != claim.root || chain_differs || epoch_differs || *kind != Kind::CHAIN_HEAD {
                let what = format!("the first {} entries are not those that were signed", claim.size);
                court.tampered(source, None, None, what);
                continue;
            }
            let signed = claim.note.as_ref().zip(pinned).is_some_and(|(note, key)| note.is_signed_by(key));
            court.pin_signed |= signed;
            if claim.brought {
                court.anchored(Anchor { source: claim.source.clone(), size: claim.size, time_ns: *time_ns });
            }
            court.agreeing.extend(claim.note.map(|note| (claim.source, note)));
        }
    }
}

//! Judges a part of a ledger that was handed over: a session, or a range of entries.
//!
//! Everything hangs from the checkpoint: its keys are reached from `ledger.toml`, which the first entry names, through
//! the certificates of the epochs and the root key's orders; every entry is tied to its root. What a newcomer gets
//! wrong: a session is complete only where its last entry is its close. Each entry names the one before by its hash,
//! and the first is the opening, so nothing can be missing in between.

use std::io;
use std::ops::ControlFlow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::redacted::{Redacted, Redaction};
use super::report::{Anchor, Court};
use super::{Options, Report, pin, range, witnesses};
use crate::bundle::{self, Base64, Cover, Part, Proof, RECORDS, Record};
use crate::checkpoint::{BadNote, NOTE_BYTES_MAX, Note, Vkey};
use crate::entry::{Entry, Kind, Malformed, check_canonical};
use crate::epoch::{EPOCH_BYTES, Epoch};
use crate::hash::{Committer, Digest, SALT_BYTES, leaf};
use crate::manifest::{self, MANIFEST_BYTES_MAX, Manifest};
use crate::merkle::proof::{Head, is_consistent, root_from_inclusion};
use crate::orders::{Authority, Order};
use crate::segment::{PAYLOAD_BYTES_MAX, all_zero};
use crate::storage::{Mode, Storage, read, read_full};
use crate::writer::CHECKPOINT;

/// The longest line of a record: an entry and its payload in base64, and the names of its fields.
const LINE_BYTES_MAX: usize = 4 * (PAYLOAD_BYTES_MAX + 65_536) / 3 + 256;

/// Judges a bundle of a part.
pub(super) fn judge(storage: &dyn Storage, cover: &Cover, options: &Options) -> io::Result<Report> {
    let mut court = Court::default();
    let manifest = match Manifest::parse(&read(storage, manifest::NAME, MANIFEST_BYTES_MAX)?) {
        Ok(manifest) => manifest,
        Err(why) => {
            court.tampered(Some(manifest::NAME.to_owned()), None, None, why.to_string());
            return Ok(court.report(None, options));
        }
    };
    let judged = Evidence::read(storage, cover, &manifest).and_then(|mut evidence| {
        evidence.judge(&mut court)?;
        Ok(evidence)
    });
    match judged {
        Ok(evidence) => evidence.conclude(options, &mut court),
        Err(Wrong::Storage(error)) => return Err(error),
        Err(Wrong::False(file, entry, what)) => court.tampered(Some(file.to_owned()), None, entry, what),
        Err(Wrong::Missing(file, what)) => court.missing(Some(file.to_owned()), None, None, what),
    }
    Ok(court.report(Some(&manifest), options))
}

/// What a bundle of a whole ledger says beside the ledger itself.
pub(super) fn judge_whole(
    storage: &dyn Storage,
    cover: &Cover,
    manifest: &Manifest,
    court: &mut Court,
) -> io::Result<()> {
    let judged = Evidence::read(storage, cover, manifest).and_then(|evidence| evidence.judge_previous());
    match judged {
        Ok(()) => Ok(()),
        Err(Wrong::Storage(error)) => Err(error),
        Err(Wrong::False(file, entry, what)) => {
            court.tampered(Some(file.to_owned()), None, entry, what);
            Ok(())
        }
        Err(Wrong::Missing(file, what)) => {
            court.missing(Some(file.to_owned()), None, None, what);
            Ok(())
        }
    }
}

/// Why a bundle is not what it says.
pub(super) enum Wrong {
    Storage(io::Error),
    False(&'static str, Option<u64>, String),
    Missing(&'static str, String),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Wrong {
        match error.kind() {
            io::ErrorKind::InvalidData => Wrong::False(bundle::PROOF, None, error.to_string()),
            io::ErrorKind::NotFound => Wrong::Missing(bundle::PROOF, error.to_string()),
            _ => Wrong::Storage(error),
        }
    }
}

pub(super) fn wrong(file: &'static str, what: &str) -> Wrong {
    Wrong::False(file, None, what.to_owned())
}

/// What ties the part to the checkpoint.
pub(super) struct Evidence<'a> {
    pub(super) storage: &'a dyn Storage,
    pub(super) cover: &'a Cover,
    pub(super) manifest: &'a Manifest,
    proof: Proof,
    pub(super) note: Note,
    pub(super) epochs: Vec<Epoch>,
    /// From which entry on which root and log keys were in force, the last one at the end.
    authorities: Vec<(u64, Authority)>,
    /// Which entries' payloads were taken out.
    redacted: Redacted,
    /// The latest time that an entry was proven to have.
    latest_ns: u64,
}

impl<'a> Evidence<'a> {
    fn read(
        storage: &'a dyn Storage,
        cover: &'a Cover,
        manifest: &'a Manifest,
    ) -> Result<Evidence<'a>, Wrong> {
        let note = Note::parse(&read(storage, CHECKPOINT, NOTE_BYTES_MAX)?)
            .map_err(|why| Wrong::False(CHECKPOINT, None, why.to_string()))?;
        let signed = note.unverified();
        if signed.origin != manifest.origin {
            return Err(wrong(CHECKPOINT, "it is of another ledger"));
        }
        let same = cover.origin == manifest.origin.as_str()
            && cover.root_key == STANDARD.encode(manifest.root_key.bytes())
            && (cover.size, cover.root) == (signed.size, signed.root);
        if !same {
            return Err(wrong(bundle::COVER, "it contradicts the checkpoint or ledger.toml"));
        }
        let proof = bundle::proof(storage)?;
        let authorities = vec![(0, Authority::first(manifest))];
        let (epochs, redacted) = (Vec::new(), Redacted::default());
        let evidence =
            Evidence { storage, cover, manifest, proof, note, epochs, authorities, redacted, latest_ns: 0 };
        evidence.with_keys()
    }

    /// Follows the keys from `ledger.toml` to the checkpoint's, and checks its signatures.
    fn with_keys(mut self) -> Result<Evidence<'a>, Wrong> {
        const FILE: &str = bundle::PROOF;
        let false_entry = |why: Malformed| wrong(FILE, why.0);
        let opened = self.included(&self.proof.opened)?;
        let genesis = format!(r#"{{"format":{},"genesis":"{}"}}"#, manifest::FORMAT, self.manifest.genesis());
        if opened.header.seq != 0
            || opened.header.kind != Kind::LEDGER_OPENED
            || opened.body != genesis.as_bytes()
        {
            return Err(wrong(FILE, "the ledger's first entry is of another ledger.toml"));
        }
        let since_ns = opened.header.time_ns;
        let mut epochs: Vec<Epoch> = Vec::new();
        for Base64(bytes) in &self.proof.epochs {
            let bytes: Option<&[u8; EPOCH_BYTES]> = bytes.as_slice().try_into().ok();
            let epoch = bytes.and_then(Epoch::decode).ok_or_else(|| wrong(FILE, "an epoch is not one"))?;
            let follows = match epochs.last() {
                Some(before) => epoch.follows(before, &self.manifest.origin),
                None => epoch == Epoch::first(self.manifest.epoch_key, since_ns),
            };
            if !follows {
                return Err(wrong(FILE, "an epoch's key is not certified by the one before"));
            }
            epochs.push(epoch);
        }
        let mut authorities = self.authorities.clone();
        let mut latest_ns = since_ns;
        for included in &self.proof.orders {
            let entry = self.included(included)?;
            let order = Order::parse(entry.body).map_err(false_entry)?;
            let (before, authority) = authorities[authorities.len() - 1];
            if entry.header.kind != Kind::KEYS_CHANGED
                || entry.header.session != 0
                || entry.header.seq < before
            {
                return Err(wrong(FILE, "an order is not one"));
            }
            let next = authority.after(&order, entry.header.time_ns, self.manifest).map_err(false_entry)?;
            authorities.push((entry.header.seq + 1, next));
            latest_ns = latest_ns.max(entry.header.time_ns);
        }
        let mut redactions = Vec::new();
        for included in &self.proof.redactions {
            let entry = self.included(included)?;
            match serde_json::from_slice::<Redaction>(entry.body) {
                Ok(redaction) if (entry.header.kind, entry.header.session) == (Kind::REDACTION, 0) => {
                    redactions.push((entry.header.seq, redaction));
                }
                _ => return Err(wrong(FILE, "a redaction is not one")),
            }
        }
        (self.redacted, self.latest_ns) = (Redacted::new(redactions.into_iter()), latest_ns);
        (self.epochs, self.authorities) = (epochs, authorities);
        if self.epochs.last().is_none_or(|last| last.first_seq >= self.cover.size) {
            return Err(wrong(FILE, "the epochs do not lead to the checkpoint's"));
        }
        self.check_note(&self.note).map_err(|why| wrong(CHECKPOINT, &why.to_string()))?;
        Ok(self)
    }

    fn authority(&self) -> &Authority {
        &self.authorities[self.authorities.len() - 1].1
    }

    /// Whether a checkpoint of this ledger is signed by the keys that were in force: the log key, and the key of its last
    /// entry's epoch, whatever lines others added.
    fn check_note(&self, note: &Note) -> Result<(), BadNote> {
        let (origin, size) = (&self.manifest.origin, note.unverified().size);
        let signed = |epoch: &Epoch| note.is_signed_by(&Vkey::epoch(origin, epoch.number, epoch.key));
        let by_epoch = if size <= self.cover.size {
            self.epochs.iter().rfind(|epoch| epoch.first_seq < size).is_some_and(signed)
        } else {
            // It may be of an epoch that came later.
            note.epochs().any(|number| self.epochs.get(number as usize).is_none_or(signed))
        };
        if !by_epoch {
            return Err(BadNote("the key of its epoch did not sign it"));
        }
        let in_force = self.authorities.iter().rev().find(|(from, _)| *from <= size);
        let log = in_force.map_or_else(|| *self.authority(), |(_, authority)| *authority).log.key;
        note.verify(&[Vkey::log(origin, log)]).map(drop)
    }

    /// An entry that is under the checkpoint's root, at the place that it says.
    fn included<'e>(&self, included: &'e bundle::Included) -> Result<Entry<'e>, Wrong> {
        let entry = Entry::decode(&included.entry.0).map_err(|why| wrong(bundle::PROOF, why.0))?;
        check_canonical(entry.body).map_err(|why| wrong(bundle::PROOF, why.0))?;
        if self.leads(entry.header.seq, leaf(entry.bytes), &included.path) {
            Ok(entry)
        } else {
            Err(Wrong::False(
                bundle::PROOF,
                Some(entry.header.seq),
                "entry is not under the checkpoint".to_owned(),
            ))
        }
    }

    /// Whether an entry under the checkpoint says that this entry's payload was taken out.
    pub(super) fn is_redacted(&self, seq: u64) -> bool {
        self.redacted.has(seq)
    }

    fn leads(&self, seq: u64, leaf: Digest, path: &[Digest]) -> bool {
        root_from_inclusion(seq, self.cover.size, leaf, path) == Some(self.cover.root)
    }

    fn judge(&mut self, court: &mut Court) -> Result<(), Wrong> {
        court.published = Some(self.cover.size);
        court.epoch = u32::try_from(self.epochs.len().saturating_sub(1)).unwrap_or(u32::MAX);
        self.judge_previous()?;
        match self.cover.part {
            Part::Ledger => Ok(()),
            Part::Session { number, entries, last } => self.judge_session(number, entries, last, court),
            Part::Range { first, last } => range::judge(self, first, last, court),
        }
    }

    /// The checkpoint of the export before must be the beginning of this one.
    fn judge_previous(&self) -> Result<(), Wrong> {
        const FILE: &str = bundle::PREVIOUS;
        let Some(path) = &self.proof.previous else { return Ok(()) };
        let note = Note::parse(&read(self.storage, FILE, NOTE_BYTES_MAX)?)
            .map_err(|why| wrong(FILE, &why.to_string()))?;
        self.check_note(&note).map_err(|why| wrong(FILE, &why.to_string()))?;
        if self.extends(&note, path) {
            Ok(())
        } else {
            Err(wrong(FILE, "it is not the beginning of this one"))
        }
    }

    fn extends(&self, old: &Note, path: &[Digest]) -> bool {
        let (old, new) = (old.unverified(), self.note.unverified());
        let head = |size, root| Head { size, root };
        is_consistent(head(old.size, old.root), head(new.size, new.root), path)
    }

    fn judge_session(
        &mut self,
        number: u64,
        entries: u64,
        last: u64,
        court: &mut Court,
    ) -> Result<(), Wrong> {
        let mut walk = Walk {
            number,
            entries: 0,
            before: Digest::ZERO,
            last: None,
            latest_ns: 0,
            committer: Committer::new(),
        };
        let mut failed = None;
        let mut take = |line: &[u8]| -> Result<(), (Option<u64>, String)> {
            let zeroed = walk.step(line)?;
            let Some(seq) = zeroed else { return Ok(()) };
            if !self.is_redacted(seq) {
                return Err((Some(seq), "payload is gone, and no redaction says so".to_owned()));
            }
            court.redacted += 1;
            Ok(())
        };
        lines(self.storage, RECORDS, LINE_BYTES_MAX, |line| match take(line) {
            Ok(()) => ControlFlow::Continue(()),
            Err((entry, what)) => {
                failed = Some(Wrong::False(RECORDS, entry, what));
                ControlFlow::Break(())
            }
        })?;
        if let Some(failed) = failed {
            return Err(failed);
        }
        let Some((seq, Kind::SESSION_CLOSED)) = walk.last else {
            return Err(Wrong::Missing(RECORDS, "the session's close is missing".to_owned()));
        };
        if (walk.entries, seq) != (entries, last) {
            return Err(wrong(bundle::COVER, "it says another number of entries"));
        }
        let path = self
            .proof
            .closed
            .as_deref()
            .ok_or_else(|| wrong(bundle::PROOF, "it has no path of the close"))?;
        if !self.leads(seq, walk.before, path) {
            return Err(Wrong::False(
                RECORDS,
                Some(seq),
                "the session's close is not under the checkpoint".to_owned(),
            ));
        }
        self.latest_ns = self.latest_ns.max(walk.latest_ns);
        (court.entries, court.sessions) = (entries, 1);
        court
            .findings
            .notes
            .push(format!("session {number} is complete: {entries} entries, from its opening to its close"));
        Ok(())
    }

    /// Pins, anchors, witnesses.
    fn conclude(&self, options: &Options, court: &mut Court) {
        let mut notes = vec![(CHECKPOINT.to_owned(), self.note.clone())];
        for (source, bytes) in &options.checkpoints {
            let note = match Note::parse(bytes) {
                Ok(note) if note.unverified().origin == self.manifest.origin => note,
                Ok(_) => {
                    let what = "not a good checkpoint: it is of another ledger".to_owned();
                    court.tampered(Some(source.clone()), None, None, what);
                    continue;
                }
                Err(why) => {
                    court.tampered(Some(source.clone()), None, None, why.to_string());
                    continue;
                }
            };
            match (self.anchor(&note), self.check_note(&note)) {
                // Whoever carried it may have lost or garbled a line; what it says is so, and it proves nothing.
                (Ok(Some(_)), Err(why)) => {
                    court.findings.notes.push(format!("{source} is not usable: {why}"));
                }
                (_, Err(why)) => court.tampered(Some(source.clone()), None, None, why.to_string()),
                (Err(why), Ok(())) => court.tampered(Some(source.clone()), None, None, why),
                (Ok(None), Ok(())) => court.findings.notes.push(format!(
                    "{source} is of another size, and nothing here proves that one tree is the beginning of the other"
                )),
                (Ok(Some(size)), Ok(())) => {
                    court.anchored(Anchor { source: source.clone(), size, time_ns: self.latest_ns });
                    notes.push((source.clone(), note));
                }
            }
        }
        court.pin_signed = options
            .key
            .as_ref()
            .is_some_and(|pinned| notes.iter().any(|(_, note)| note.is_signed_by(pinned)));
        let pinned = options.key.as_ref();
        pin::judge(&self.manifest.origin, &self.authorities, self.latest_ns, true, pinned, court);
        witnesses::judge(&options.witnesses, &notes, court);
    }

    /// How much of what is here a checkpoint that was kept elsewhere covers; none where that cannot be told.
    fn anchor(&self, kept: &Note) -> Result<Option<u64>, String> {
        let (kept_head, ours) = (kept.unverified(), self.note.unverified());
        if kept_head.size == ours.size {
            let same = kept_head.root == ours.root;
            return if same {
                Ok(Some(ours.size))
            } else {
                Err("another tree of the same size was signed".to_owned())
            };
        }
        if self.proof.previous.as_deref().is_some_and(|path| self.extends(kept, path)) {
            return Ok(Some(kept_head.size));
        }
        match self.cover.part {
            Part::Range { .. } if kept_head.size < ours.size => {
                match range::root_at(self.storage, ours.size, kept_head.size) {
                    Ok(root) if root == kept_head.root => Ok(Some(kept_head.size)),
                    Ok(_) => {
                        Err(format!("the first {} entries are not those that were signed", kept_head.size))
                    }
                    Err(_) => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }
}

/// One session's entries, in order.
struct Walk {
    number: u64,
    entries: u64,
    before: Digest,
    last: Option<(u64, Kind)>,
    latest_ns: u64,
    committer: Committer,
}

impl Walk {
    /// Takes the next line; gives its entry's number where its payload and salt are zeros.
    fn step(&mut self, line: &[u8]) -> Result<Option<u64>, (Option<u64>, String)> {
        let record: Record = serde_json::from_slice(line)
            .map_err(|error| (None, format!("line {}: {error}", self.entries + 1)))?;
        let entry = Entry::decode(&record.entry.0).map_err(|why| (None, why.0.to_owned()))?;
        let seq = entry.header.seq;
        let blame = |what: &str| (Some(seq), what.to_owned());
        check_canonical(entry.body).map_err(|why| blame(why.0))?;
        let opens = entry.header.kind == Kind::SESSION_OPENED;
        if entry.header.session != self.number {
            return Err(blame("entry is of another session"));
        }
        if self.last.is_some_and(|(before, kind)| before >= seq || kind == Kind::SESSION_CLOSED)
            || (entry.header.session_seq, entry.header.prev_in_session) != (self.entries, self.before)
            || opens != (self.entries == 0)
        {
            return Err(blame("entry does not follow its session's entry before"));
        }
        let salt: [u8; SALT_BYTES] =
            record.salt.0.as_slice().try_into().map_err(|_| blame("salt has another length"))?;
        let whole = self.committer.commit(&salt, &record.payload.0) == entry.header.payload_commit;
        let zeroed = all_zero(&salt) && all_zero(&record.payload.0);
        if !whole && !zeroed {
            return Err(blame("payload is not the one that its entry commits to"));
        }
        self.entries += 1;
        self.before = leaf(entry.bytes);
        self.latest_ns = self.latest_ns.max(entry.header.time_ns);
        self.last = Some((seq, entry.header.kind));
        Ok((!whole).then_some(seq))
    }
}

/// Gives each line of a file, without its end; no line may be longer than `bytes_max`.
fn lines(
    storage: &dyn Storage,
    name: &str,
    bytes_max: usize,
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<()> {
    const PART: usize = 64 * 1024;
    let file = storage.open(name, Mode::Read)?;
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {what}"));
    let (mut buffer, mut at) = (Vec::new(), 0);
    loop {
        let before = buffer.len();
        buffer.resize(before + PART, 0);
        let read = read_full(file.as_ref(), at, &mut buffer[before..])?;
        buffer.truncate(before + read);
        at += read as u64;
        let mut from = 0;
        let mut search = before;
        while let Some(end) = buffer[search..].iter().position(|byte| *byte == b'\n') {
            if each(&buffer[from..search + end]).is_break() {
                return Ok(());
            }
            from = search + end + 1;
            search = from;
        }
        buffer.drain(..from);
        if read == 0 {
            return if buffer.is_empty() { Ok(()) } else { Err(invalid("its last line has no end")) };
        }
        if buffer.len() > bytes_max {
            return Err(invalid("a line is too long"));
        }
    }
}

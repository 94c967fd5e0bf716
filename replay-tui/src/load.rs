//! The rim: reads a ledger's segments, live or at rest, and tells the app in its own words.
//!
//! It opens files for reading alone, takes no lock and writes nothing. It reads forward once, and again only what
//! is asked for: of each entry it keeps where its frame stands, never its words. What it cannot believe it shows in
//! its place, and goes on behind it; whether the ledger as a whole can be believed is the verifier's to say.
//!
//! What a newcomer gets wrong: the end of a live ledger may be a frame that is half written. That is not damage; it
//! is looked at again at the next refresh.

mod judge;
mod vocabulary;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatebook_ledger::entry::{Entry, Kind};
use gatebook_ledger::hash::{self, Committer};
use gatebook_ledger::reader::segments;
use gatebook_ledger::segment::{self, Frame, Record, SegmentReader, Step as Stand};
use gatebook_ledger::storage::{Directory, Mode, Storage};

use crate::figures::{counted, grouped};
use crate::message::{Message, Parameter, Proof, SessionId, SessionRow, Step, StepText, UnixNs, What, Wish};

pub use judge::{Pins, exit_code, verify};
use vocabulary::{Head, Words};

/// So much is read before the auditor's next wish is looked at.
const READ_ON_BYTES: u64 = 2 * 1024 * 1024;
/// No more of a statement is kept for a list.
const LIST_STATEMENT_BYTES_MAX: usize = 4 * 1024;
/// No more parameters are kept for a list.
const LIST_PARAMETERS_MAX: usize = 32;
/// No more of one parameter is kept for a list.
const LIST_PARAMETER_BYTES_MAX: usize = 256;
/// No more of a statement is kept for a page.
const PAGE_STATEMENT_BYTES_MAX: usize = 1024 * 1024;
/// No more parameters are kept for a page.
const PAGE_PARAMETERS_MAX: usize = 1_000;
/// No more of one parameter is kept for a page.
const PAGE_PARAMETER_BYTES_MAX: usize = 16 * 1024;
/// So many frames are kept after they were looked into, …
const RECENT_FRAMES: usize = 4;
/// … each no longer than this.
const RECENT_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// No more of a name is kept in a row.
const NAME_BYTES_MAX: usize = 1_024;

/// Why a directory cannot be read as a ledger.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system does not let us.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is no ledger in it.
    #[error("{0} holds no ledger: there is no segment in it")]
    NoLedger(PathBuf),
    /// What was given as a verifier key is none.
    #[error("{0} is neither a verifier key (name+id+key) nor a file that holds one")]
    NoKey(String),
    /// There is no such session in it.
    #[error("there is no session {0} in this ledger")]
    NoSession(SessionId),
}

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FrameAt {
    segment: u64,
    offset: u64,
}

/// Where the words of a step are.
#[derive(Debug, Clone, Copy)]
struct Place {
    entry: Option<FrameAt>,
    outcome: Option<(FrameAt, u64)>,
}

/// What stands in the ledger where nothing can be believed.
#[derive(Debug, Clone)]
struct Damage {
    /// The number of the first entry that is lost.
    seq: u64,
    segment: u64,
    offset: u64,
    length: Option<u64>,
    why: String,
}

/// One entry with its payload, taken out of a frame that was whole.
struct Stored {
    entry: Vec<u8>,
    payload: Vec<u8>,
    /// Whether the payload is the one that the entry commits to.
    sound: bool,
}

impl Stored {
    fn seq(&self) -> Option<u64> {
        Entry::decode(&self.entry).ok().map(|entry| entry.header.seq)
    }
}

/// What is known of a session.
#[derive(Debug, Default)]
struct Known {
    row: SessionRow,
    frames: Vec<FrameAt>,
    next_in_session: u64,
}

/// The reader of one ledger.
pub struct Loader {
    storage: Directory,
    pins: Pins,
    reader: Option<SegmentReader>,
    segment: Option<u64>,
    /// Whether that segment was the last when it was looked at.
    in_last: bool,
    /// The number of the next entry, as far as it is known.
    next_seq: u64,
    last_time_ns: UnixNs,
    stuck_at: Option<u64>,
    known: HashMap<SessionId, Known>,
    changed: BTreeSet<SessionId>,
    damages: Vec<Damage>,
    open: Option<Open>,
    fetched: Option<(u64, SegmentReader)>,
    /// The frames that were looked into last: neighbours in a session are mostly neighbours in a frame.
    recent: VecDeque<(FrameAt, Vec<Arc<Stored>>)>,
    committer: Committer,
    read_bytes: u64,
}

impl Loader {
    /// Opens a ledger's directory, or an export's. What the auditor brought along is for proofs.
    ///
    /// # Errors
    /// [`LoadError`] where it cannot be read, or holds no ledger.
    pub fn open(directory: &Path, pins: Pins) -> Result<Self, LoadError> {
        let storage = Directory::open(directory)?;
        if segments(&storage)?.is_empty() {
            return Err(LoadError::NoLedger(directory.to_owned()));
        }
        let mut loader = Loader {
            storage,
            pins,
            reader: None,
            segment: None,
            in_last: false,
            next_seq: 0,
            last_time_ns: 0,
            stuck_at: None,
            known: HashMap::new(),
            changed: BTreeSet::new(),
            damages: Vec::new(),
            open: None,
            fetched: None,
            recent: VecDeque::new(),
            committer: Committer::new(),
            read_bytes: 0,
        };
        loader.next_segment()?;
        Ok(loader)
    }

    /// Reads on for a while; says what there is to tell, and whether the end was reached.
    pub fn read_on(&mut self) -> (Vec<Message>, bool) {
        let mut messages = Vec::new();
        let until = self.read_bytes + READ_ON_BYTES;
        let done = loop {
            match self.advance() {
                Ok(true) if self.read_bytes < until => {}
                Ok(more) => break !more,
                Err(error) => {
                    messages.push(Message::Trouble(format!("segment {}: {error}", self.at_segment())));
                    break true;
                }
            }
        };
        let changed: Vec<SessionRow> = std::mem::take(&mut self.changed)
            .iter()
            .filter_map(|id| self.known.get(id))
            .map(|known| known.row.clone())
            .collect();
        let size = if done { self.read_bytes } else { self.size().max(self.read_bytes) };
        messages.push(Message::Sessions { changed, entries: self.next_seq, read: (self.read_bytes, size) });
        messages.extend(self.open.as_mut().and_then(Open::news));
        (messages, done)
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// Of the system.
    pub fn read_all(&mut self) -> Result<(), LoadError> {
        while self.advance()? {}
        Ok(())
    }

    /// All sessions, in the order of their numbers.
    #[must_use]
    pub fn rows(&self) -> Vec<&SessionRow> {
        let mut rows: Vec<&SessionRow> = self.known.values().map(|known| &known.row).collect();
        rows.sort_by_key(|row| row.id);
        rows
    }

    /// A session's row and steps, read anew.
    ///
    /// # Errors
    /// [`LoadError::NoSession`] where it is not in what was read.
    pub fn session(&mut self, id: SessionId) -> Result<(SessionRow, Vec<Step>), LoadError> {
        let row = self.known.get(&id).ok_or(LoadError::NoSession(id))?.row.clone();
        self.open_session(id)?;
        Ok((row, self.open.as_ref().map(|open| open.steps.clone()).unwrap_or_default()))
    }

    /// All words of a step of the session that was read last.
    #[must_use]
    pub fn words(&mut self, index: usize) -> StepText {
        self.text(index, &Sizes::all())
    }

    /// Answers a wish about what was read.
    pub fn grant(&mut self, wish: &Wish) -> Vec<Message> {
        match wish {
            Wish::Open(session) => match self.open_session(*session) {
                Ok(()) => self.open.as_mut().and_then(Open::news).into_iter().collect(),
                Err(error) => vec![Message::Trouble(error.to_string())],
            },
            Wish::Texts { session, range } if self.is_open(*session) => {
                let texts = range.clone().map(|index| self.text(index, &Sizes::list())).collect();
                vec![Message::Texts { session: *session, from: range.start, texts }]
            }
            Wish::Whole { session, index } if self.is_open(*session) => {
                let text = Box::new(self.text(*index, &Sizes::page()));
                vec![Message::Whole { session: *session, index: *index, text }]
            }
            Wish::Find { session, needle, from, backwards } if self.is_open(*session) => {
                let index = self.find(&needle.to_lowercase(), *from, *backwards);
                vec![Message::Found { session: *session, index }]
            }
            Wish::Prove(seq) => vec![Message::Proof { seq: *seq, proof: self.prove(*seq) }],
            // A session that was left meanwhile, and what is not the reader's to do.
            _ => Vec::new(),
        }
    }

    fn is_open(&self, session: SessionId) -> bool {
        self.open.as_ref().is_some_and(|open| open.session == session)
    }

    /// How long all segments are.
    fn size(&self) -> u64 {
        let names = self.storage.list("segments").unwrap_or_default();
        let opened =
            names.iter().filter_map(|name| self.storage.open(&format!("segments/{name}"), Mode::Read).ok());
        opened.filter_map(|file| file.length().ok()).sum()
    }

    fn at_segment(&self) -> u64 {
        self.segment.unwrap_or_default()
    }

    /// Takes the next frame; false at the end of what is written.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(mut reader) = self.reader.take() else { return self.next_segment() };
        let more = self.advance_in(&mut reader);
        // The next segment may have been opened meanwhile.
        if self.reader.is_none() {
            self.reader = Some(reader);
        }
        more
    }

    fn advance_in(&mut self, reader: &mut SegmentReader) -> io::Result<bool> {
        let before = reader.offset();
        if self.in_last && self.is_half_written(reader)? {
            reader.seek(before);
            reader.refresh()?;
            return Ok(false);
        }
        reader.seek(before);
        match reader.step()? {
            Stand::Frame { offset, frame } => {
                self.take_frame(&frame, FrameAt { segment: self.at_segment(), offset });
                self.stuck_at = None;
                self.read_bytes += reader.offset() - before;
                Ok(true)
            }
            Stand::Footer { .. } => {
                if self.next_segment()? {
                    return Ok(true);
                }
                reader.refresh()?;
                Ok(false)
            }
            Stand::End { offset } => self.pass_end(reader, offset),
            Stand::Damaged { offset, why, torn } => {
                let why = why.to_string();
                self.pass_damage(reader, offset, why, torn)
            }
        }
    }

    /// Whether the frame here is the newest, and lacks the end of its payloads because a writer is just at it. Its
    /// checksum covers all but the payloads, which are written with it and behind it.
    fn is_half_written(&mut self, reader: &mut SegmentReader) -> io::Result<bool> {
        let Stand::Frame { frame, .. } = reader.step()? else { return Ok(false) };
        let committer = &mut self.committer;
        let mut sound = |record: Record<'_>| {
            Entry::decode(record.entry).is_ok_and(|entry| record.payload_matches(&entry, committer))
        };
        if frame.records().all(&mut sound) {
            return Ok(false);
        }
        let next = reader.offset();
        let nothing_follows = reader.view(next, segment::BLOCK)?.iter().all(|byte| *byte == 0);
        // The writer's lock is looked at only here, where it decides.
        Ok(nothing_follows && self.storage.has_writer())
    }

    /// At the end of what was written to a segment: of the last one, that is the end.
    fn pass_end(&mut self, reader: &mut SegmentReader, offset: u64) -> io::Result<bool> {
        let followed = self.following()?.is_some();
        self.in_last = !followed;
        // A live writer may have sealed it since it was looked at.
        reader.refresh()?;
        if !followed {
            return Ok(false);
        }
        if matches!(reader.step()?, Stand::End { .. }) {
            self.report(offset, None, "the segment ends without its seal".to_owned());
            return self.next_segment();
        }
        reader.seek(offset);
        Ok(true)
    }

    /// The next segment that is there.
    fn following(&self) -> io::Result<Option<u64>> {
        let numbers = segments(&self.storage)?;
        Ok(numbers.into_iter().find(|number| self.segment.is_none_or(|segment| *number > segment)))
    }

    /// Goes to the next segment, where there is one.
    fn next_segment(&mut self) -> io::Result<bool> {
        let Some(number) = self.following()? else { return Ok(false) };
        self.reader = Some(SegmentReader::new(self.storage.open(&segment::name(number), Mode::Read)?)?);
        let expected = self.segment.map_or(0, |segment| segment + 1);
        self.segment = Some(number);
        self.stuck_at = None;
        self.in_last = self.following()?.is_none();
        if number > expected {
            let why =
                format!("before it, {} missing", counted(number - expected, "segment is", "segments are"));
            self.report(0, None, why);
        }
        Ok(true)
    }

    fn pass_damage(
        &mut self,
        reader: &mut SegmentReader,
        offset: u64,
        why: String,
        torn: bool,
    ) -> io::Result<bool> {
        let goes_on = reader.find_next()?;
        if torn && !goes_on && self.following()?.is_none() {
            reader.seek(offset);
            reader.refresh()?;
            return Ok(false);
        }
        let length = goes_on.then(|| reader.offset() - offset);
        if self.stuck_at != Some(offset) {
            self.report(offset, length, why);
        }
        if goes_on {
            self.read_bytes += length.unwrap_or(0);
            return Ok(true);
        }
        self.stuck_at = Some(offset);
        reader.seek(offset);
        if self.next_segment()? {
            return Ok(true);
        }
        reader.refresh()?;
        Ok(false)
    }

    fn report(&mut self, offset: u64, length: Option<u64>, why: String) {
        let damage = Damage { seq: self.next_seq, segment: self.at_segment(), offset, length, why };
        self.take_damage(damage);
    }

    fn take_damage(&mut self, damage: Damage) {
        let outside = self.known.entry(0).or_default();
        outside.row.broken += 1;
        if outside.row.opened_ns == 0 {
            outside.row.opened_ns = self.last_time_ns;
        }
        self.changed.insert(0);
        if let Some(open) = &mut self.open
            && open.session == 0
        {
            open.push_damage(&damage, self.last_time_ns);
        }
        self.damages.push(damage);
    }

    fn take_frame(&mut self, frame: &Frame<'_>, at: FrameAt) {
        for record in frame.records() {
            let Ok(entry) = Entry::decode(record.entry) else { continue };
            let header = entry.header;
            self.next_seq = header.seq + 1;
            self.last_time_ns = header.time_ns;
            if header.kind == Kind::CHAIN_HEAD {
                continue;
            }
            let head = vocabulary::head(&entry);
            let known = self.known.entry(header.session).or_default();
            if known.frames.last() != Some(&at) {
                known.frames.push(at);
            }
            if header.kind == Kind::SESSION_OPENED {
                let sound = record.payload_matches(&entry, &mut self.committer);
                vocabulary::opened(&mut known.row, &entry, record.payload, sound);
            }
            let row = &mut known.row;
            row.id = header.session;
            if row.opened_ns == 0 {
                row.opened_ns = header.time_ns;
            }
            row.last_ns = header.time_ns;
            row.broken += missing(header.session, known.next_in_session, header.session_seq);
            known.next_in_session = header.session_seq + 1;
            match &head {
                Head::Command { prepare, decision, .. } => {
                    let refused = *decision == crate::message::Decision::Refuse;
                    row.commands += u64::from(!prepare || refused);
                    row.refused += u64::from(refused);
                }
                Head::Closed { reason } => row.ended = Some((header.time_ns, reason.clone())),
                _ => {}
            }
            self.changed.insert(header.session);
            if let Some(open) = &mut self.open
                && open.session == header.session
            {
                open.take(&entry, head, at, &self.damages);
            }
        }
    }

    /// Reads a session's frames again, as far as the ledger was read.
    fn open_session(&mut self, session: SessionId) -> Result<(), LoadError> {
        self.open = None;
        let frames = self.known.get(&session).ok_or(LoadError::NoSession(session))?.frames.clone();
        let mut open = Open::new(session);
        let damages = std::mem::take(&mut self.damages);
        let mut due = if session == 0 { damages.as_slice() } else { &[] };
        for at in frames {
            self.with_frame(at, |frame| {
                while let Some((damage, rest)) = due.split_first()
                    && damage.seq <= frame.header.first_seq
                {
                    open.push_damage(damage, open.last_ns());
                    due = rest;
                }
                for record in frame.records() {
                    let Ok(entry) = Entry::decode(record.entry) else { continue };
                    if entry.header.session == session && entry.header.kind != Kind::CHAIN_HEAD {
                        open.take(&entry, vocabulary::head(&entry), at, &damages);
                    }
                }
            })?;
        }
        due.iter().for_each(|damage| open.push_damage(damage, open.last_ns()));
        self.damages = damages;
        self.open = Some(open);
        Ok(())
    }

    /// Reads one frame again. A frame that is not there any more, or no longer whole, is an error.
    fn with_frame<T>(&mut self, at: FrameAt, use_frame: impl FnOnce(&Frame<'_>) -> T) -> io::Result<T> {
        if self.fetched.as_ref().is_none_or(|(segment, _)| *segment != at.segment) {
            let file = self.storage.open(&segment::name(at.segment), Mode::Read)?;
            self.fetched = Some((at.segment, SegmentReader::new(file)?));
        }
        let Some((_, reader)) = &mut self.fetched else { return Err(io::ErrorKind::NotFound.into()) };
        if at.offset >= reader.length() {
            reader.refresh()?;
        }
        reader.seek(at.offset);
        match reader.step()? {
            Stand::Frame { frame, .. } => Ok(use_frame(&frame)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that was whole is not any more")),
        }
    }

    /// One entry of a frame. A few frames are kept, unless they are very large.
    fn stored(&mut self, at: FrameAt, seq: u64) -> io::Result<Arc<Stored>> {
        let not_there =
            || io::Error::new(io::ErrorKind::InvalidData, "the entry is not in its frame any more");
        let pick = |records: &[Arc<Stored>]| records.iter().find(|stored| stored.seq() == Some(seq)).cloned();
        if let Some((_, records)) = self.recent.iter().find(|(kept, _)| *kept == at) {
            return pick(records).ok_or_else(not_there);
        }
        let mut committer = std::mem::take(&mut self.committer);
        let read = self.with_frame(at, |frame| {
            let store = |record: Record<'_>| {
                let sound = Entry::decode(record.entry)
                    .is_ok_and(|entry| record.payload_matches(&entry, &mut committer));
                Arc::new(Stored { entry: record.entry.to_vec(), payload: record.payload.to_vec(), sound })
            };
            (frame.header.length(), frame.records().map(store).collect::<Vec<_>>())
        });
        self.committer = committer;
        let (length, records) = read?;
        let found = pick(&records).ok_or_else(not_there);
        if length <= RECENT_FRAME_BYTES_MAX {
            self.recent.truncate(RECENT_FRAMES - 1);
            self.recent.push_front((at, records));
        }
        found
    }

    fn text(&mut self, index: usize, sizes: &Sizes) -> StepText {
        let Some(open) = &self.open else { return StepText::default() };
        let (Some(step), Some(place)) = (open.steps.get(index), open.places.get(index)) else {
            return StepText::default();
        };
        let (seq, place) = (step.seq, *place);
        let Some(at) = place.entry else { return StepText::default() };
        let mut text = match self.stored(at, seq) {
            Ok(stored) => words_of(&stored, at, sizes),
            Err(error) => StepText { missing: Some(error.to_string()), ..StepText::default() },
        };
        if let Some((at, seq)) = place.outcome
            && let Ok(stored) = self.stored(at, seq)
        {
            let outcome = words_of(&stored, at, sizes);
            text.answer = outcome.answer;
            text.facts.extend(outcome.facts);
            text.facts.push(("ended in".to_owned(), format!("entry {}", grouped(seq))));
        }
        text
    }

    fn prove(&mut self, seq: u64) -> Result<Proof, String> {
        let open = self.open.as_ref().ok_or("no session is open")?;
        let index =
            open.steps.iter().position(|step| step.seq == seq).ok_or("the entry is not in this session")?;
        let at = open.places[index].entry.ok_or("what stands here cannot be read")?;
        let stored = self.stored(at, seq).map_err(|error| error.to_string())?;
        let leaf = hash::leaf(&stored.entry);
        judge::prove(&self.storage, &self.pins, seq, leaf)
    }

    fn find(&mut self, needle: &str, from: usize, backwards: bool) -> Option<usize> {
        let count = self.open.as_ref()?.steps.len();
        (0..count)
            .map(|ahead| if backwards { (from + count - ahead) % count } else { (from + ahead) % count })
            .find(|index| {
                let text = self.text(*index, &Sizes::all());
                let holds = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_lowercase().contains(needle);
                holds(&text.statement)
                    || text.parameters.iter().any(|parameter| holds(&crate::parameter::value(parameter)))
                    || text.policies.iter().any(|policy| holds(policy.as_bytes()))
            })
    }
}

/// How many of a session's entries are missing before one.
fn missing(session: SessionId, expected: u64, found: u64) -> u64 {
    if session == 0 { 0 } else { found.saturating_sub(expected) }
}

fn words_of(stored: &Stored, at: FrameAt, sizes: &Sizes) -> StepText {
    let mut text = StepText {
        leaf: hash::leaf(&stored.entry).to_string(),
        place: Some((at.segment, at.offset)),
        ..StepText::default()
    };
    if !stored.sound {
        text.broken = true;
        text.missing = Some("what is stored is not what the entry commits to".to_owned());
        return text;
    }
    match Entry::decode(&stored.entry).map_err(|why| why.to_string()) {
        Ok(entry) => match vocabulary::words(&entry, &stored.payload) {
            Ok(words) => fill(&mut text, words, sizes),
            Err(why) => text.missing = Some(why),
        },
        Err(why) => text.missing = Some(why),
    }
    text
}

fn fill(text: &mut StepText, words: Words, sizes: &Sizes) {
    text.statement_bytes = words.statement.len() as u64;
    text.statement = words.statement;
    text.statement.truncate(sizes.statement_bytes_max);
    text.parameters_count = words.parameters.len();
    text.parameters = words.parameters;
    text.parameters.truncate(sizes.parameters_max);
    for Parameter { value, .. } in &mut text.parameters {
        value.truncate(sizes.parameter_bytes_max);
    }
    text.policies = words.policies;
    text.answer = words.answer;
    text.facts = words.facts;
    for (_, value) in &mut text.facts {
        shorten(value, sizes.parameter_bytes_max);
    }
}

/// Cuts a name to [`NAME_BYTES_MAX`] bytes or a little less, at a character's end.
fn shorten(name: &mut String, bytes_max: usize) {
    if name.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        name.truncate(end);
    }
}

/// How much of an entry's words is kept.
struct Sizes {
    statement_bytes_max: usize,
    parameters_max: usize,
    parameter_bytes_max: usize,
}

impl Sizes {
    fn list() -> Self {
        Sizes {
            statement_bytes_max: LIST_STATEMENT_BYTES_MAX,
            parameters_max: LIST_PARAMETERS_MAX,
            parameter_bytes_max: LIST_PARAMETER_BYTES_MAX,
        }
    }

    fn page() -> Self {
        Sizes {
            statement_bytes_max: PAGE_STATEMENT_BYTES_MAX,
            parameters_max: PAGE_PARAMETERS_MAX,
            parameter_bytes_max: PAGE_PARAMETER_BYTES_MAX,
        }
    }

    fn all() -> Self {
        Sizes { statement_bytes_max: usize::MAX, parameters_max: usize::MAX, parameter_bytes_max: usize::MAX }
    }
}

/// The session whose steps the app follows.
struct Open {
    session: SessionId,
    steps: Vec<Step>,
    places: Vec<Place>,
    /// Commands without an outcome, by their request.
    waiting: HashMap<u64, usize>,
    next_in_session: u64,
    /// The first step that the app does not know as it is now.
    news_from: Option<usize>,
}

impl Open {
    fn new(session: SessionId) -> Self {
        let (steps, places, waiting) = (Vec::new(), Vec::new(), HashMap::new());
        Open { session, steps, places, waiting, next_in_session: 0, news_from: Some(0) }
    }

    fn news(&mut self) -> Option<Message> {
        let from = self.news_from.take()?;
        Some(Message::Steps { session: self.session, from, steps: self.steps[from..].to_vec() })
    }

    fn last_ns(&self) -> UnixNs {
        self.steps.last().map_or(0, |step| step.at_ns)
    }

    fn push(&mut self, step: Step, place: Place) {
        self.mark(self.steps.len());
        self.steps.push(step);
        self.places.push(place);
    }

    fn mark(&mut self, index: usize) {
        self.news_from = Some(self.news_from.map_or(index, |from| from.min(index)));
    }

    fn push_damage(&mut self, damage: &Damage, at_ns: UnixNs) {
        let what = What::Broken {
            segment: damage.segment,
            offset: damage.offset,
            length: damage.length,
            why: damage.why.clone(),
        };
        self.push(Step { seq: damage.seq, at_ns, what }, Place { entry: None, outcome: None });
    }

    fn take(&mut self, entry: &Entry<'_>, head: Head, at: FrameAt, damages: &[Damage]) {
        let header = entry.header;
        let lost = missing(self.session, self.next_in_session, header.session_seq);
        if lost > 0 {
            self.push_lost(lost, header.seq, header.time_ns, damages);
        }
        self.next_in_session = header.session_seq + 1;
        let what = match head {
            Head::Outcome { request, outcome } => {
                // A command whose entry was lost leaves an outcome that belongs to nothing.
                let Some(index) = self.waiting.remove(&request) else { return };
                if let What::Command { outcome: slot, .. } = &mut self.steps[index].what {
                    *slot = Some(outcome);
                }
                self.places[index].outcome = Some((at, header.seq));
                self.mark(index);
                return;
            }
            Head::Command { request, prepare, decision } => {
                self.waiting.insert(request, self.steps.len());
                What::Command { request, prepare, decision, outcome: None }
            }
            Head::Closed { .. } => What::Note(crate::message::Note::Closed),
            Head::Note(note) => What::Note(note),
        };
        let step = Step { seq: header.seq, at_ns: header.time_ns, what };
        self.push(step, Place { entry: Some(at), outcome: None });
    }

    /// Shows where entries of this session are missing, with the damage that took them, where it is known.
    fn push_lost(&mut self, lost: u64, before_seq: u64, at_ns: UnixNs, damages: &[Damage]) {
        let after_seq = self.steps.last().map_or(0, |step| step.seq);
        let found = damages.iter().rev().find(|damage| damage.seq > after_seq && damage.seq < before_seq);
        let entries = counted(lost, "entry of this session is lost", "entries of this session are lost");
        let damage = match found {
            Some(damage) => Damage { why: format!("{entries}: {}", damage.why), ..damage.clone() },
            None => Damage { seq: after_seq + 1, segment: 0, offset: 0, length: None, why: entries },
        };
        self.push_damage(&damage, at_ns);
    }
}

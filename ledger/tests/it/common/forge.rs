//! A forger who holds a ledger's current keys: takes its segments apart, changes them, and puts them together again
//! with every checksum, hash and link mended, and signed with what is left to sign with.
//!
//! It writes the format by itself, from `docs/ledger-format.md`, and uses the crate for hashes and parts alone.

use gatebook_ledger::checkpoint::Checkpoint;
use gatebook_ledger::entry::{Entry, Header};
use gatebook_ledger::hash::{self, Committer, Digest, SALT_BYTES};
use gatebook_ledger::manifest::Manifest;
use gatebook_ledger::merkle::Tree;
use gatebook_ledger::orders::Authority;
use gatebook_ledger::segment::{Footer, SegmentHeader, SegmentReader, Step, name, padded};
use gatebook_ledger::session::Sessions;
use gatebook_ledger::signature::{Keys as _, Role, Use, message};
use gatebook_ledger::storage::Mode;
use gatebook_ledger::{Kind, Memory, MemoryKeys, Storage as _, reader};

/// An entry with its payload.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
    pub(crate) salt: [u8; SALT_BYTES],
    pub(crate) payload: Vec<u8>,
    /// Whether the header's numbers and links stay as they are, instead of being mended.
    pub(crate) as_is: bool,
}

impl Piece {
    /// A new entry of this kind.
    pub(crate) fn new(kind: Kind, time_ns: u64, session: u64, body: &str) -> Piece {
        let header = Header {
            kind,
            encrypted: false,
            epoch: 0,
            seq: 0,
            time_ns,
            session,
            session_seq: 0,
            prev_in_session: Digest::ZERO,
            payload_commit: Digest::ZERO,
        };
        Piece {
            header,
            body: body.as_bytes().to_vec(),
            salt: [7; SALT_BYTES],
            payload: Vec::new(),
            as_is: false,
        }
    }
}

/// A segment taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) header: SegmentHeader,
    pub(crate) frames: Vec<Vec<Piece>>,
    pub(crate) sealed: bool,
    /// What is done to its header and its footer, behind all mending.
    pub(crate) change_header: fn(&mut SegmentHeader),
    pub(crate) change_footer: fn(&mut Footer),
}

/// A ledger taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Forge {
    pub(crate) manifest: Manifest,
    pub(crate) parts: Vec<Part>,
    /// The newest epoch's key: it signs also for those whose keys are gone.
    pub(crate) epoch_key: Role,
    /// What signs frames in its place.
    pub(crate) frame_role: Option<Role>,
    /// The log key that signs the checkpoint.
    pub(crate) log_role: Role,
    keys: MemoryKeys,
}

impl Forge {
    pub(crate) fn new(storage: &Memory, keys: &MemoryKeys) -> Forge {
        let manifest = reader::manifest(storage).unwrap();
        let mut epochs = keys.held().into_iter().filter(|role| matches!(role, Role::Epoch(_)));
        let parts = reader::segments(storage).unwrap().into_iter().map(|number| take_apart(storage, number));
        Forge {
            manifest,
            parts: parts.collect(),
            epoch_key: epochs.next_back().unwrap(),
            frame_role: None,
            log_role: Role::Log(0),
            keys: keys.clone(),
        }
    }

    /// The last segment, which the forger can sign.
    pub(crate) fn last(&mut self) -> &mut Part {
        self.parts.last_mut().unwrap()
    }

    /// The signing key of an epoch, where it is still there.
    fn signer(&self, epoch: u32) -> Role {
        if self.keys.held().contains(&Role::Epoch(epoch)) { Role::Epoch(epoch) } else { self.epoch_key }
    }

    /// Puts everything from a segment on together again, and publishes a checkpoint of it; gives that.
    pub(crate) fn write(&self, storage: &Memory, from: usize) -> Option<String> {
        let mut state = State::new(&self.manifest);
        for (number, part) in self.parts.iter().enumerate() {
            let bytes = state.put_together(self, number as u64, part, number >= from);
            if number >= from {
                storage.set_bytes(&name(number as u64), &bytes);
            }
        }
        // The writer's own guard and what was published would contradict: a copy without them is like an export.
        for name in storage.names() {
            if name == "state" || name == "checkpoint" || name.starts_with("tile/") {
                storage.remove(&name).unwrap();
            }
        }
        if state.last_kind != Some(Kind::CHAIN_HEAD) {
            return None;
        }
        let checkpoint = Checkpoint {
            origin: self.manifest.origin.clone(),
            size: state.next_seq,
            root: state.tree.root(),
        };
        let note = checkpoint.sign(&self.keys, &[self.log_role, self.epoch_key]).unwrap();
        for tile in state.tree.take_full().iter().chain(&state.tree.partial()) {
            storage.set_bytes(&tile.path(), &tile.bytes());
        }
        storage.set_bytes("checkpoint", note.as_bytes());
        Some(note)
    }

    /// Gives each entry of the last segment a frame of its own.
    pub(crate) fn one_a_frame(&mut self) {
        let last = self.last();
        let pieces: Vec<Piece> = last.frames.drain(..).flatten().collect();
        last.frames = pieces.into_iter().map(|piece| vec![piece]).collect();
    }
}

struct State {
    chain: Digest,
    genesis: Digest,
    next_seq: u64,
    tree: Tree,
    sessions: Sessions,
    authority: Authority,
    latest_ns: u64,
    epoch: u32,
    last_kind: Option<Kind>,
    committer: Committer,
}

impl State {
    fn new(manifest: &Manifest) -> State {
        State {
            chain: manifest.genesis(),
            genesis: manifest.genesis(),
            next_seq: 0,
            tree: Tree::default(),
            sessions: Sessions::default(),
            authority: Authority::first(manifest),
            latest_ns: 0,
            epoch: u32::MAX,
            last_kind: None,
            committer: Committer::new(),
        }
    }

    fn put_together(&mut self, forge: &Forge, number: u64, part: &Part, mend: bool) -> Vec<u8> {
        let mut header = part.header;
        if mend {
            (header.number, header.first_seq) = (number, self.next_seq);
            (header.chain_in, header.genesis) = (self.chain, self.genesis);
        }
        if header.epoch.number != self.epoch {
            (self.epoch, self.latest_ns) = (header.epoch.number, header.epoch.since_ns);
        }
        (part.change_header)(&mut header);
        let mut out = Vec::new();
        header.encode(&mut out);
        for pieces in &part.frames {
            self.frame(forge, &header, pieces, mend, &mut out);
        }
        if part.sealed {
            let mut footer = Footer {
                number: header.number,
                epoch: header.epoch.number,
                next_seq: self.next_seq,
                frames: part.frames.len() as u64,
                durable: self.next_seq,
                latest_ns: self.latest_ns,
                ends_epoch: self.last_kind == Some(Kind::EPOCH_SEAL),
                chain: self.chain,
                root: self.tree.root(),
                authority: self.authority,
                levels: self.tree.levels().to_vec(),
                sessions: self.sessions.clone(),
            };
            (part.change_footer)(&mut footer);
            let at = out.len() as u64;
            footer.encode(at, &forge.manifest.origin, &forge.keys_of(header.epoch.number), &mut out).unwrap();
        }
        out
    }

    fn frame(
        &mut self,
        forge: &Forge,
        segment: &SegmentHeader,
        pieces: &[Piece],
        mend: bool,
        out: &mut Vec<u8>,
    ) {
        let (mut entries, mut lengths, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
        let first_seq = pieces[0].header.seq;
        let first_seq = if pieces[0].as_is { first_seq } else { self.next_seq };
        for piece in pieces {
            let mut header = piece.header;
            let place = self.sessions.place(header.kind, header.session);
            if mend && !piece.as_is {
                header.seq = self.next_seq;
                header.epoch = segment.epoch.number;
                header.payload_commit = self.committer.commit(&piece.salt, &piece.payload);
                if let Ok((session_seq, prev)) = place {
                    (header.session_seq, header.prev_in_session) = (session_seq, prev);
                }
            }
            let mut body = piece.body.clone();
            if mend && header.kind == Kind::CHAIN_HEAD && !piece.as_is {
                body = format!(r#"{{"chain":"{}"}}"#, self.chain).into_bytes();
            }
            let mut entry = Vec::new();
            header.encode(&mut entry);
            entry.extend_from_slice(&body);
            let leaf = hash::leaf(&entry);
            entries.extend_from_slice(&u16::try_from(entry.len()).unwrap().to_be_bytes());
            entries.extend_from_slice(&entry);
            lengths.extend_from_slice(&u32::try_from(piece.payload.len()).unwrap().to_be_bytes());
            payloads.extend_from_slice(&piece.salt);
            payloads.extend_from_slice(&piece.payload);
            self.tree.push(leaf);
            self.sessions.take(header.kind, header.session, leaf);
            self.next_seq = if piece.as_is { header.seq + 1 } else { self.next_seq + 1 };
            self.latest_ns = self.latest_ns.max(header.time_ns);
            self.last_kind = Some(header.kind);
        }
        let epoch = segment.epoch.number;
        let start = out.len();
        out.extend_from_slice(b"GBFRAME1");
        for number in [entries.len(), payloads.len(), pieces.len()] {
            out.extend_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
        }
        out.extend_from_slice(&epoch.to_be_bytes());
        out.extend_from_slice(&first_seq.to_be_bytes());
        out.extend_from_slice(&first_seq.to_be_bytes());
        out.extend_from_slice(&self.chain.0);
        out.extend_from_slice(&crc32c::crc32c(&out[start..]).to_be_bytes());
        out.extend_from_slice(&entries);
        out.extend_from_slice(&lengths);
        let chain_out = hash::frame(&out[start..]);
        let signed = message(Use::Frame, &forge.manifest.origin, epoch, &chain_out.0);
        let signer = forge.frame_role.unwrap_or_else(|| forge.signer(epoch));
        let signature = forge.keys.sign(signer, &signed).unwrap();
        out.extend_from_slice(&chain_out.0);
        out.extend_from_slice(&signature);
        out.extend_from_slice(&crc32c::crc32c(&out[start..]).to_be_bytes());
        out.extend_from_slice(&payloads);
        out.resize(start + padded(out.len() - start), 0);
        self.chain = hash::link(&chain_out, &signature);
        if !mend {
            // What is not touched is signed by keys that are gone: its chain is read from the segment that follows.
            self.chain = forge.chain_behind(segment.number, self.next_seq).unwrap_or(self.chain);
        }
    }
}

impl Forge {
    /// The chain's value where the segment behind this one begins, as it stands there.
    fn chain_behind(&self, number: u64, next_seq: u64) -> Option<Digest> {
        let next = self.parts.iter().find(|part| part.header.number == number + 1)?;
        (next.header.first_seq == next_seq).then_some(next.header.chain_in)
    }

    /// Keys that sign for an epoch even where its own key is gone.
    fn keys_of(&self, epoch: u32) -> impl gatebook_ledger::Keys {
        Substitute { keys: self.keys.clone(), signer: self.signer(epoch) }
    }
}

struct Substitute {
    keys: MemoryKeys,
    signer: Role,
}

impl gatebook_ledger::Keys for Substitute {
    fn public(
        &self,
        _: Role,
    ) -> Result<gatebook_ledger::signature::PublicKey, gatebook_ledger::signature::KeyError> {
        self.keys.public(self.signer)
    }

    fn sign(&self, _: Role, message: &[u8]) -> Result<[u8; 64], gatebook_ledger::signature::KeyError> {
        self.keys.sign(self.signer, message)
    }

    fn draw(
        &mut self,
        role: Role,
    ) -> Result<gatebook_ledger::signature::PublicKey, gatebook_ledger::signature::KeyError> {
        self.keys.draw(role)
    }

    fn erase(&mut self, role: Role) -> Result<(), gatebook_ledger::signature::KeyError> {
        self.keys.erase(role)
    }

    fn held(&self) -> Vec<Role> {
        self.keys.held()
    }
}

fn take_apart(storage: &Memory, number: u64) -> Part {
    let mut reader = SegmentReader::new(storage.open(&name(number), Mode::Read).unwrap()).unwrap();
    let header = reader.header().unwrap().unwrap();
    let mut part =
        Part { header, frames: Vec::new(), sealed: false, change_header: |_| (), change_footer: |_| () };
    loop {
        match reader.step().unwrap() {
            Step::Frame { frame, .. } => {
                let pieces = frame.records().map(|record| {
                    let entry = Entry::decode(record.entry).unwrap();
                    let (header, body) = (entry.header, entry.body.to_vec());
                    Piece { header, body, salt: record.salt, payload: record.payload.to_vec(), as_is: false }
                });
                part.frames.push(pieces.collect());
            }
            Step::Footer { .. } => {
                part.sealed = true;
                return part;
            }
            Step::End { .. } | Step::Damaged { .. } => return part,
        }
    }
}

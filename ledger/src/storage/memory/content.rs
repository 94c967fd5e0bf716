//! One file's bytes: what a reader sees, what is durable, and what lies between.

use fastrand::Rng;

use super::Crash;

#[derive(Clone, Default)]
pub(super) struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    read_only: bool,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Content {
    /// A file that holds these bytes for good.
    pub(super) fn durable(bytes: &[u8]) -> Content {
        Content { bytes: bytes.to_vec(), durable: bytes.to_vec(), ..Content::default() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn make_read_only(&mut self) {
        self.read_only = true;
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.change(Change::Write(offset, bytes.to_vec()));
        }
    }

    pub(super) fn set_length(&mut self, length: u64) {
        self.change(Change::Length(length));
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.bytes);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        // What an earlier sync lost stays lost: only what was written since comes to the disk.
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that fails: any part of what was written is durable, and the rest never will be, though it is seen.
    pub(super) fn lose_sync(&mut self, seed: u64) {
        self.durable = self.mixed(512, &mut Rng::with_seed(seed));
        self.pending.clear();
    }

    /// Shows what is durable from now on. Nothing may be pending.
    pub(super) fn forget(&mut self) {
        self.bytes = self.durable.clone();
    }

    pub(super) fn unsynced_bytes(&self) -> u64 {
        let bytes = |change: &Change| match change {
            Change::Write(_, bytes) => bytes.len() as u64,
            Change::Length(_) => 0,
        };
        self.pending.iter().map(bytes).sum()
    }

    /// What a crash leaves of the file.
    pub(super) fn after(&self, crash: Crash, chance: &mut Rng) -> Content {
        let mut content = Content::durable(&match crash {
            Crash::LosesAll => self.durable.clone(),
            Crash::LosesNothing => self.whole(),
            Crash::KeepsBytes(bytes) => self.kept(bytes),
            Crash::Sectors { bytes, .. } => self.mixed(bytes, chance),
        });
        // A mode is not synced by anybody.
        content.read_only = self.read_only && !(matches!(crash, Crash::Sectors { .. }) && chance.bool());
        content
    }

    fn whole(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        self.pending.iter().for_each(|change| change.apply(&mut bytes));
        bytes
    }

    fn kept(&self, mut budget: u64) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.pending {
            match change {
                Change::Length(_) => change.apply(&mut bytes),
                Change::Write(offset, written) => {
                    let part = position(budget).min(written.len());
                    put(&mut bytes, *offset, &written[..part]);
                    budget -= part as u64;
                }
            }
            if budget == 0 {
                break;
            }
        }
        bytes
    }

    /// Every sector as one of its states since the last sync, or garbled; the length as one of its.
    fn mixed(&self, sector_bytes: usize, chance: &mut Rng) -> Vec<u8> {
        let mut states = vec![self.durable.clone()];
        for change in &self.pending {
            let mut next = states[states.len() - 1].clone();
            change.apply(&mut next);
            states.push(next);
        }
        let length = states[chance.usize(..states.len())].len();
        let mut mixed = Vec::with_capacity(length);
        while mixed.len() < length {
            let sector = mixed.len()..(mixed.len() + sector_bytes).min(length);
            let end = sector.end;
            let mut seen: Vec<&[u8]> = Vec::new();
            for state in &states {
                let part = state.get(sector.start.min(state.len())..end.min(state.len())).unwrap_or_default();
                if seen.last() != Some(&part) {
                    seen.push(part);
                }
            }
            match chance.usize(..8) {
                0 if seen.len() > 1 => {
                    mixed.extend(std::iter::repeat_with(|| chance.u8(..)).take(sector.len()))
                }
                _ => mixed.extend_from_slice(seen[chance.usize(..seen.len())]),
            }
            mixed.resize(end, 0);
        }
        mixed
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Length(length) => bytes.resize(position(*length), 0),
            Change::Write(offset, written) => put(bytes, *offset, written),
        }
    }
}

pub(super) fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn put(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = position(offset);
    let end = start + bytes.len();
    if bytes.is_empty() {
        return;
    }
    if file.len() < end {
        file.resize(end, 0);
    }
    file[start..end].copy_from_slice(bytes);
}

//! Analyses of one catalog snapshot, kept by text and by the state of the session. It dies with its snapshot.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use super::Analysis;
use super::state::State;

/// How many parts lock by themselves.
const SHARDS: usize = 16;

/// How many analyses a generation of a part keeps; there are two.
const ENTRIES_MAX: usize = 512;

/// The longest key that is kept.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// Analyses by what they depend on.
pub(super) struct Cache {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

/// Two generations: a full one becomes the old one, and what is used again moves back.
#[derive(Default)]
struct Shard {
    young: HashMap<u64, Entry>,
    old: HashMap<u64, Entry>,
}

#[derive(Clone)]
struct Entry {
    state: blake3::Hash,
    variant: u8,
    text: Box<str>,
    analysis: Arc<Analysis>,
}

/// What an analysis depends on.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) state: &'a State,
    /// Tells apart what the text is asked about.
    pub(super) variant: u8,
    /// The text, or its [`literal_key`](super::literal_key).
    pub(super) text: &'a str,
}

impl Cache {
    pub(super) fn get(&self, key: Key<'_>) -> Option<Arc<Analysis>> {
        let hash = self.hash(key);
        let mut shard = self.shard(hash);
        if let Some(entry) = shard.young.get(&hash).filter(|entry| entry.matches(key)) {
            return Some(entry.analysis.clone());
        }
        let entry = shard.old.get(&hash).filter(|entry| entry.matches(key))?.clone();
        let analysis = entry.analysis.clone();
        shard.put(hash, entry);
        Some(analysis)
    }

    pub(super) fn put(&self, key: Key<'_>, analysis: &Arc<Analysis>) {
        if key.text.len() > TEXT_BYTES_MAX {
            return;
        }
        let entry = Entry {
            state: *key.state.id(),
            variant: key.variant,
            text: key.text.into(),
            analysis: analysis.clone(),
        };
        let hash = self.hash(key);
        self.shard(hash).put(hash, entry);
    }

    fn hash(&self, key: Key<'_>) -> u64 {
        self.hasher.hash_one((key.state.id().as_bytes(), key.variant, key.text))
    }

    fn shard(&self, hash: u64) -> std::sync::MutexGuard<'_, Shard> {
        let index = usize::try_from(hash >> 60).unwrap_or(0) % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn put(&mut self, hash: u64, entry: Entry) {
        if self.young.len() >= ENTRIES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, entry);
    }
}

impl Entry {
    /// The hash is only a place: everything is compared.
    fn matches(&self, key: Key<'_>) -> bool {
        self.variant == key.variant && *self.text == *key.text && self.state == *key.state.id()
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cache")
    }
}

//! Decisions already made, so that a command asked again costs a look-up.
//!
//! A decision depends on the set, the standing and the meaning, and on nothing else; the cache is keyed by all
//! three. The meaning is compared by its address, which is safe only because the cache holds on to it: the address
//! cannot come to mean another while it is a key.

use std::collections::HashMap;
use std::sync::Arc;

use gatebook_wire::protocol::Meaning;

use super::{Decision, PolicySet, Standing};

/// The most recent decisions of one session.
///
/// Bounded: it holds two generations of at most `entries_max` decisions each. When the younger is full it becomes the
/// elder and the elder is forgotten; what is asked for again moves to the younger.
#[derive(Debug)]
pub struct DecisionCache {
    entries_max: usize,
    set: [u8; 32],
    standing: Option<Arc<Standing>>,
    younger: HashMap<usize, Entry>,
    elder: HashMap<usize, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Held so that its address stays its own.
    meaning: Arc<Meaning>,
    decision: Arc<Decision>,
}

impl DecisionCache {
    /// An empty cache. It allocates nothing until it is used.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        DecisionCache {
            entries_max: entries_max.max(1),
            set: [0; 32],
            standing: None,
            younger: HashMap::new(),
            elder: HashMap::new(),
        }
    }

    /// What `set` decides, from memory where the same was asked before.
    ///
    /// A set of another hash, or another standing, forgets everything.
    pub fn decide(
        &mut self,
        set: &PolicySet,
        standing: &Arc<Standing>,
        meaning: &Arc<Meaning>,
    ) -> Arc<Decision> {
        if !self.holds_for(set, standing) {
            self.younger.clear();
            self.elder.clear();
            self.set = *set.hash();
            self.standing = Some(Arc::clone(standing));
        }
        let key = Arc::as_ptr(meaning).addr();
        if let Some(entry) = self.younger.get(&key) {
            return Arc::clone(&entry.decision);
        }
        let entry = self.elder.remove(&key).unwrap_or_else(|| Entry {
            meaning: Arc::clone(meaning),
            decision: Arc::new(set.decide(standing, meaning)),
        });
        debug_assert!(Arc::ptr_eq(&entry.meaning, meaning), "a held address means one thing");
        let decision = Arc::clone(&entry.decision);
        if self.younger.len() >= self.entries_max {
            self.elder = std::mem::take(&mut self.younger);
        }
        self.younger.insert(key, entry);
        decision
    }

    fn holds_for(&self, set: &PolicySet, standing: &Arc<Standing>) -> bool {
        let same_standing =
            self.standing.as_ref().is_some_and(|known| Arc::ptr_eq(known, standing) || known == standing);
        same_standing && self.set == *set.hash()
    }
}

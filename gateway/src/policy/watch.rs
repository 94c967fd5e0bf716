//! The set in force, and the next one.
//!
//! Reading a new set and putting it in force are two steps, because what is in force must be in the ledger first.
//! A folder with a mistake never replaces the set in force.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use super::folder;
use super::{Mistake, PolicySet};

/// A policy folder and the set of it that is in force.
#[derive(Debug)]
pub struct Live {
    dir: PathBuf,
    set: ArcSwap<PolicySet>,
    generation: AtomicU64,
    looked_at: Mutex<[u8; 32]>,
}

impl Live {
    /// Reads a folder; its set is in force at once.
    ///
    /// # Errors
    /// All mistakes of the folder together.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Live, Vec<Mistake>> {
        let dir = dir.into();
        // Before reading: an edit that comes between the two is seen as a change at the next look.
        let looked_at = fingerprint(&dir);
        let set = PolicySet::load(&dir)?;
        Ok(Live {
            dir,
            set: ArcSwap::from_pointee(set),
            generation: AtomicU64::new(0),
            looked_at: Mutex::new(looked_at),
        })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The set in force, for a decision now: a guard that is not kept across a wait.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<PolicySet>> {
        self.set.load()
    }

    /// The set in force, to keep.
    #[must_use]
    pub fn current(&self) -> Arc<PolicySet> {
        self.set.load_full()
    }

    /// How often a set was put in force since the folder was opened.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether the folder differs from what it was when last asked, or opened. It reads all of it: not for every second.
    ///
    /// A broken edit is a change once, so that it is told once.
    pub fn has_changed(&self) -> bool {
        let now = fingerprint(&self.dir);
        let mut looked_at = self.looked_at.lock();
        std::mem::replace(&mut *looked_at, now) != now
    }

    /// Reads the folder's set without putting it in force: none where it is the one in force already.
    ///
    /// # Errors
    /// All mistakes of the folder together; the set in force stays.
    pub fn reload(&self) -> Result<Option<Arc<PolicySet>>, Vec<Mistake>> {
        let set = PolicySet::load(&self.dir)?;
        Ok((set.hash() != self.load().hash()).then(|| Arc::new(set)))
    }

    /// Puts a set in force and returns its generation. It must be in the ledger by now.
    pub fn install(&self, set: Arc<PolicySet>) -> u64 {
        self.set.store(set);
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }
}

/// Tells whether a folder changed: BLAKE3 over what can be read of it, and over what cannot.
fn fingerprint(dir: &Path) -> [u8; 32] {
    let folder = folder::read(dir);
    let mut hasher = blake3::Hasher::new_derive_key("gatebook policy folder v1");
    let mut part = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    for file in &folder.files {
        part(&file.name);
        part(&file.text);
    }
    for mistake in folder.mistakes.iter().chain(&folder.warnings) {
        part(&mistake.to_string());
    }
    *hasher.finalize().as_bytes()
}

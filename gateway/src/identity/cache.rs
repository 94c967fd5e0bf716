//! Tokens that were verified, so that a client that connects anew for every query pays for one signature.
//!
//! An entry is no permission. It says that these bytes carried a good signature by these keys; keys and times
//! are compared anew at each use. Only verified tokens come in, so nobody without one can push others out.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::keys::Keys;
use super::principal::Principal;

/// One verified token.
#[derive(Clone)]
pub(super) struct Verified {
    pub(super) principal: Arc<Principal>,
    /// The place of the issuer in the configuration.
    pub(super) issuer: usize,
    /// The very keys that it was verified with; another set of keys, another verification.
    pub(super) keys: Arc<Keys>,
}

/// Verified tokens by their BLAKE3 hash, in two halves: when the young half is full it becomes the old one and
/// what was not used since is forgotten.
pub(super) struct Cache {
    half_max: usize,
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    young: HashMap<[u8; 32], Verified>,
    old: HashMap<[u8; 32], Verified>,
}

impl Cache {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { half_max: (entries_max / 2).max(1), halves: Mutex::default() }
    }

    pub(super) fn find(&self, token: &[u8; 32]) -> Option<Verified> {
        let mut halves = self.halves.lock();
        if let Some(found) = halves.young.get(token) {
            return Some(found.clone());
        }
        let found = halves.old.remove(token)?;
        self.keep(&mut halves, *token, found.clone());
        Some(found)
    }

    pub(super) fn insert(&self, token: [u8; 32], verified: Verified) {
        self.keep(&mut self.halves.lock(), token, verified);
    }

    pub(super) fn remove(&self, token: &[u8; 32]) {
        let mut halves = self.halves.lock();
        halves.young.remove(token);
        halves.old.remove(token);
    }

    fn keep(&self, halves: &mut Halves, token: [u8; 32], verified: Verified) {
        if halves.young.len() >= self.half_max {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(token, verified);
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::Keys;
    use super::super::principal::{Principal, PrincipalKind};
    use super::{Cache, Verified};
    use std::sync::Arc;

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(8);
        let verified = Verified {
            principal: Arc::new(Principal::for_test(PrincipalKind::User, "corp", "lee", &[])),
            issuer: 0,
            keys: Arc::new(Keys::default()),
        };
        cache.insert([0; 32], verified.clone());
        for number in 1..100_u8 {
            cache.insert([number; 32], verified.clone());
            assert!(cache.find(&[0; 32]).is_some(), "what is used stays, after {number}");
            let halves = cache.halves.lock();
            assert!(halves.young.len() + halves.old.len() <= 8);
        }
        assert!(cache.find(&[1; 32]).is_none(), "what is not used goes");
        cache.remove(&[0; 32]);
        assert!(cache.find(&[0; 32]).is_none());
    }
}

//! What a name of a prepared statement or portal stands for, while answers are outstanding.
//!
//! A client may pipeline: it names a statement, uses the name, and names another, before the server has answered
//! anything. An error upstream makes the server pass over the rest of that *batch* (up to its Sync), so a name may
//! stand for what it stood for before. Within one batch there is no doubt: were the naming passed over, so would be
//! the use. Across batches there is, and then the answer is [`Lookup::Unsettled`]: wait for the server.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// Counts batches: what lies between two Syncs.
pub(super) type Batch = u64;

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup<T> {
    /// This.
    Found(T),
    /// This, unless something that we could not read has given the name to something else since.
    Doubted(T),
    /// Nothing that we made.
    Unknown,
    /// It depends on an answer that is still to come.
    Unsettled,
}

/// A namespace of the upstream's session.
#[derive(Debug)]
pub(super) struct Names<T> {
    slots: HashMap<Bytes, Slot<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    confirmed: Option<Held<T>>,
    pending: VecDeque<(Batch, Option<Held<T>>)>,
}

#[derive(Debug, Clone)]
struct Held<T> {
    value: T,
    doubted: bool,
}

impl<T: Clone> Names<T> {
    pub(super) fn new() -> Names<T> {
        Names { slots: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// What `name` stands for to a frame of `batch`.
    pub(super) fn lookup(&self, name: &[u8], batch: Batch) -> Lookup<T> {
        let Some(slot) = self.slots.get(name) else { return Lookup::Unknown };
        let value = match slot.pending.back() {
            Some((named_in, value)) if *named_in == batch => value,
            Some(_) => return Lookup::Unsettled,
            None => &slot.confirmed,
        };
        match value.clone() {
            Some(Held { value, doubted: false }) => Lookup::Found(value),
            Some(Held { value, doubted: true }) => Lookup::Doubted(value),
            None => Lookup::Unknown,
        }
    }

    /// A frame that names `value` (or, with none, closes the name) was sent.
    pub(super) fn sent(&mut self, name: &Bytes, batch: Batch, value: Option<T>) {
        let slot = self
            .slots
            .entry(name.clone())
            .or_insert_with(|| Slot { confirmed: None, pending: VecDeque::new() });
        slot.pending.push_back((batch, value.map(|value| Held { value, doubted: false })));
    }

    /// The server answered the oldest naming of `name`.
    pub(super) fn settled(&mut self, name: &[u8], outcome: Naming) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let named = slot.pending.pop_front().and_then(|(_, value)| value);
        match outcome {
            Naming::Done => slot.confirmed = named,
            Naming::Failed if name.is_empty() => slot.confirmed = None,
            Naming::Failed | Naming::PassedOver => {}
        }
        if slot.confirmed.is_none() && slot.pending.is_empty() {
            self.slots.remove(name);
        }
    }

    /// Forgets what `name` stands for: it was changed in a way that we do not follow.
    pub(super) fn forget(&mut self, name: &[u8]) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.confirmed = None;
            slot.pending.iter_mut().for_each(|(_, value)| *value = None);
            if slot.pending.is_empty() {
                self.slots.remove(name);
            }
        }
    }

    /// Forgets every name.
    pub(super) fn forget_all(&mut self) {
        self.forget_confirmed();
        self.slots.values_mut().flat_map(|slot| slot.pending.iter_mut()).for_each(|(_, value)| *value = None);
    }

    /// Doubts every name: something ran that may have given them to something else.
    pub(super) fn doubt_all(&mut self) {
        let held = |slot: &mut Slot<T>| {
            slot.confirmed.iter_mut().for_each(|held| held.doubted = true);
            slot.pending
                .iter_mut()
                .filter_map(|(_, held)| held.as_mut())
                .for_each(|held| held.doubted = true);
        };
        self.slots.values_mut().for_each(held);
    }

    /// Forgets every name but those still to be answered: the server dropped what it had.
    pub(super) fn forget_confirmed(&mut self) {
        self.slots.retain(|_, slot| {
            slot.confirmed = None;
            !slot.pending.is_empty()
        });
    }

    /// Everything that a name may still stand for.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        let held = self.slots.values().flat_map(|slot| {
            slot.confirmed.iter().chain(slot.pending.iter().filter_map(|(_, held)| held.as_ref()))
        });
        held.map(|held| &held.value)
    }
}

/// How the server took a frame that names something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// It did it.
    Done,
    /// It failed at it; a failed Parse or Bind of the unnamed one drops what that was.
    Failed,
    /// It passed over it after an earlier error.
    PassedOver,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_certain_within_its_batch_and_unsettled_across_batches() {
        let mut names = Names::new();
        let name = Bytes::from_static(b"s");
        names.sent(&name, 1, Some('a'));
        assert_eq!(names.lookup(b"s", 1), Lookup::Found('a'));
        assert_eq!(names.lookup(b"s", 2), Lookup::Unsettled);
        names.settled(b"s", Naming::Done);
        assert_eq!(names.lookup(b"s", 2), Lookup::Found('a'));
    }

    #[test]
    fn a_naming_that_was_passed_over_leaves_what_was_there() {
        let mut names = Names::new();
        for (batch, value) in [(1, 'a'), (2, 'b')] {
            names.sent(&Bytes::new(), batch, Some(value));
        }
        names.settled(b"", Naming::Done);
        names.settled(b"", Naming::PassedOver);
        assert_eq!(names.lookup(b"", 3), Lookup::Found('a'));
        names.sent(&Bytes::new(), 3, Some('c'));
        names.settled(b"", Naming::Failed);
        assert_eq!(names.lookup(b"", 4), Lookup::Unknown, "a failed Parse drops the unnamed statement");
    }
}

//! The keys of the epochs, gathered before the segments are checked, so that these can be checked in any order.
//!
//! A key is known where the one before it certified it. It is taken from the segments' headers; where such a header
//! is damaged, from the seal before it, so that one wrong byte does not make every later signature look wrong.

use std::collections::BTreeMap;
use std::io;

use crate::entry::Entry;
use crate::epoch::Epoch;
use crate::manifest::Manifest;
use crate::segment::{BLOCK, Frame, SegmentReader, name};
use crate::signature::{Origin, PublicKey};
use crate::storage::{Mode, Storage};

pub(super) struct EpochKeys {
    origin: Origin,
    first: Epoch,
    /// By number, the first among them.
    known: BTreeMap<u32, Epoch>,
}

impl EpochKeys {
    pub(super) fn read(
        storage: &dyn Storage,
        manifest: &Manifest,
        segments: &[u64],
    ) -> io::Result<EpochKeys> {
        let first = Epoch::first(manifest.epoch_key, 0);
        let mut keys =
            EpochKeys { origin: manifest.origin.clone(), first, known: BTreeMap::from([(0, first)]) };
        for (at, number) in segments.iter().enumerate() {
            let mut reader = SegmentReader::new(storage.open(&name(*number), Mode::Read)?)?;
            let before = at.checked_sub(1).and_then(|at| segments.get(at));
            let follows = before.map_or(0, |before| before + 1) == *number;
            let header = reader.header()?.ok();
            if let Some(header) = header.filter(|header| keys.admit(&header.epoch).is_some()) {
                keys.known.entry(header.epoch.number).or_insert(header.epoch);
            } else if let Some(header) = header
                && !follows
                && header.epoch.number > keys.last().number + 1
            {
                // What certified it is missing, which is told as that; it goes on as if it had been there.
                keys.known.insert(header.epoch.number, header.epoch);
            } else if let Some(before) = before {
                keys.push_from_seal(SegmentReader::new(storage.open(&name(*before), Mode::Read)?)?)?;
            }
        }
        Ok(keys)
    }

    /// The epoch that the seal at the end of a sealed segment leads to: it stands in the block before the footer.
    fn push_from_seal(&mut self, mut reader: SegmentReader) -> io::Result<()> {
        let last = self.last();
        let Some(footer_at) = reader.footer_offset()? else { return Ok(()) };
        let Some(seal_at) = footer_at.checked_sub(BLOCK as u64) else { return Ok(()) };
        let Ok(frame) = Frame::decode(reader.view(seal_at, BLOCK)?) else { return Ok(()) };
        let next = frame.records().next().and_then(|record| {
            let entry = Entry::decode(record.entry).ok()?;
            last.after_seal(&entry, &self.origin).ok()
        });
        self.known.extend(next.map(|next| (next.number, next)));
        Ok(())
    }

    fn last(&self) -> Epoch {
        self.known.last_key_value().map_or(self.first, |(_, epoch)| *epoch)
    }

    /// The key of an epoch.
    pub(super) fn key(&self, number: u32) -> Option<PublicKey> {
        self.known.get(&number).map(|epoch| epoch.key)
    }

    /// The key that a segment's header names, where its epoch has it, or where it is the one after all that are
    /// known: a live ledger grows meanwhile.
    pub(super) fn admit(&self, epoch: &Epoch) -> Option<PublicKey> {
        match self.key(epoch.number) {
            Some(key) => (key == epoch.key).then_some(key),
            None => epoch.follows(&self.last(), &self.origin).then_some(epoch.key),
        }
    }
}

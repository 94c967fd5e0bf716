//! The keys of the epochs, gathered before the segments are checked, so that these can be checked in any order.
//!
//! A key is known where the one before it certified it. It is taken from the segments' headers; where such a header
//! is damaged, from the seal before it, so that one wrong byte does not make every later signature look wrong.

use std::io;

use crate::entry::Entry;
use crate::epoch::Epoch;
use crate::manifest::Manifest;
use crate::segment::{BLOCK, Frame, SegmentReader, name};
use crate::signature::{Origin, PublicKey};
use crate::storage::{Mode, Storage};

pub(super) struct EpochKeys {
    origin: Origin,
    /// By number.
    known: Vec<Epoch>,
}

impl EpochKeys {
    pub(super) fn read(
        storage: &dyn Storage,
        manifest: &Manifest,
        segments: &[u64],
    ) -> io::Result<EpochKeys> {
        let known = vec![Epoch::first(manifest.epoch_key, 0)];
        let mut keys = EpochKeys { origin: manifest.origin.clone(), known };
        for (at, number) in segments.iter().enumerate() {
            let mut reader = SegmentReader::new(storage.open(&name(*number), Mode::Read)?)?;
            if let Ok(header) = reader.header()?
                && keys.admit(&header.epoch).is_some()
            {
                if header.epoch.number as usize == keys.known.len() {
                    keys.known.push(header.epoch);
                }
            } else if let Some(before) = at.checked_sub(1).and_then(|at| segments.get(at)) {
                keys.push_from_seal(SegmentReader::new(storage.open(&name(*before), Mode::Read)?)?)?;
            }
        }
        Ok(keys)
    }

    /// The epoch that the seal at the end of a sealed segment leads to: it stands in the block before the footer.
    fn push_from_seal(&mut self, mut reader: SegmentReader) -> io::Result<()> {
        let last = self.known[self.known.len() - 1];
        let Some(footer_at) = reader.footer_offset()? else { return Ok(()) };
        let Some(seal_at) = footer_at.checked_sub(BLOCK as u64) else { return Ok(()) };
        let Ok(frame) = Frame::decode(reader.view(seal_at, BLOCK)?) else { return Ok(()) };
        let next = frame.records().next().and_then(|record| {
            let entry = Entry::decode(record.entry).ok()?;
            last.after_seal(&entry, &self.origin).ok()
        });
        self.known.extend(next);
        Ok(())
    }

    /// The key of an epoch.
    pub(super) fn key(&self, number: u32) -> Option<PublicKey> {
        self.known.get(number as usize).map(|epoch| epoch.key)
    }

    /// The key that a segment's header names, where its epoch has it, or where it is the one after all that are
    /// known: a live ledger grows meanwhile.
    pub(super) fn admit(&self, epoch: &Epoch) -> Option<PublicKey> {
        match self.key(epoch.number) {
            Some(key) => (key == epoch.key).then_some(key),
            None => epoch.follows(&self.known[self.known.len() - 1], &self.origin).then_some(epoch.key),
        }
    }
}

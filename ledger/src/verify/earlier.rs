//! What an earlier verdict leaves behind, so that a later one need not read everything again.
//!
//! It names some sealed segments that were read and found whole, by a digest of the last one's ends: its header, and its
//! footer, which has all that is needed to go on. The auditor keeps it, unsigned, and it is believed no further than it
//! goes: what is read from there on must follow from it, every checkpoint of a later size must have a root that grows out
//! of its tree, and the verdict says what was not read again, and is never the best one.

use std::io;

use serde::{Deserialize, Serialize};

use super::join::Joined;
use crate::entry::Malformed;
use crate::epoch::Epoch;
use crate::hash::{Digest, plain};
use crate::manifest::Manifest;
use crate::segment::{BLOCK, Footer, SegmentHeader, SegmentReader, name};
use crate::storage::{Mode, Storage};

const CHANGED: Malformed =
    Malformed("the segment that the earlier verdict ends with is not the one that it read");

/// The first sealed segments, all of which were read and found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earlier {
    /// Which ledger: the chain's first value.
    pub genesis: Digest,
    /// How many segments.
    pub segments: u64,
    /// BLAKE3 of the last one's header block and of its footer.
    pub ends: Digest,
}

/// The digest of a segment's ends.
pub(super) fn ends(header: &SegmentHeader, footer: &[u8]) -> Digest {
    let mut bytes = Vec::with_capacity(BLOCK + footer.len());
    header.encode(&mut bytes);
    bytes.extend_from_slice(footer);
    plain(&bytes)
}

impl Earlier {
    /// The state to go on from; [`Malformed`] where that is not what it was.
    ///
    /// # Errors
    /// Of the storage.
    pub(super) fn joined(
        &self,
        storage: &dyn Storage,
        manifest: &Manifest,
    ) -> io::Result<Result<Joined, Malformed>> {
        if self.genesis != manifest.genesis() {
            return Ok(Err(Malformed("the earlier verdict is of another ledger")));
        }
        let Some(last) = self.segments.checked_sub(1) else { return Ok(Err(CHANGED)) };
        let file = match storage.open(&name(last), Mode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(CHANGED)),
            Err(error) => return Err(error),
        };
        let mut reader = SegmentReader::new(file)?;
        let Some((header, footer)) = self.ends_of(&mut reader, manifest)? else { return Ok(Err(CHANGED)) };
        let epoch = if footer.ends_epoch {
            self.epoch_after(storage, &header.epoch, manifest)?
        } else {
            Some(header.epoch)
        };
        let Some(epoch) = epoch else {
            return Ok(Err(Malformed("no epoch follows that the earlier verdict's last one certified")));
        };
        Ok(Joined::behind(manifest, footer, epoch).ok_or(CHANGED))
    }

    /// Header and footer of the last segment, where they are those that were read.
    fn ends_of(
        &self,
        reader: &mut SegmentReader,
        manifest: &Manifest,
    ) -> io::Result<Option<(SegmentHeader, Footer)>> {
        let Ok(header) = reader.header()? else { return Ok(None) };
        let Some(offset) = reader.footer_offset()? else { return Ok(None) };
        let length = usize::try_from(reader.length().saturating_sub(offset)).unwrap_or(usize::MAX);
        if length > crate::segment::padded(crate::segment::FOOTER_BYTES_MAX) {
            return Ok(None);
        }
        let bytes = reader.view(offset, length)?;
        if ends(&header, bytes) != self.ends {
            return Ok(None);
        }
        let footer = Footer::decode(bytes, offset, &manifest.origin, &header.epoch.key);
        Ok(footer.ok().map(|footer| (header, footer)))
    }

    /// The epoch of the segment behind, where this one's key certified it.
    fn epoch_after(
        &self,
        storage: &dyn Storage,
        before: &Epoch,
        manifest: &Manifest,
    ) -> io::Result<Option<Epoch>> {
        let file = match storage.open(&name(self.segments), Mode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = SegmentReader::new(file)?.header()?.ok();
        Ok(header.map(|header| header.epoch).filter(|epoch| epoch.follows(before, &manifest.origin)))
    }
}

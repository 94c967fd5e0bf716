//! The published tiles and bundles of entries, held against the checkpoint.
//!
//! Each tile is hashed once: its root is what the tile above says of it, and the newest tiles of all levels make the root
//! of the tree.

use std::io;
use std::ops::RangeInclusive;

use super::parallel::cores;
use super::report::Findings;
use crate::hash::{Digest, leaf};
use crate::merkle::proof::Head;
use crate::merkle::{TILE_WIDTH, Tree, root_of, tile_path};
use crate::storage::{Storage, read};

const WIDTH: u64 = TILE_WIDTH as u64;
/// Fewer tiles than this are not worth a thread.
const TILES_A_THREAD: u64 = 64;

/// What the checker of tiles knows.
struct Shelf<'a> {
    storage: &'a dyn Storage,
    live: bool,
    /// The entries whose bundles must be there.
    bundled: Option<RangeInclusive<u64>>,
}

/// Some tiles of one level: the roots of the full ones, the hashes of a partial one, and what is wrong. Where something
/// is wrong the tiles behind it are not there.
#[derive(Default)]
struct Row {
    roots: Vec<Digest>,
    partial: Vec<Digest>,
    findings: Findings,
}

/// Checks the published tiles against a checkpoint's head, and the bundles that must be there against the tiles.
pub(super) fn check_tiles(
    storage: &dyn Storage,
    head: Head,
    bundled: Option<RangeInclusive<u64>>,
    live: bool,
    threads: usize,
    findings: &mut Findings,
) -> io::Result<()> {
    let shelf = Shelf { storage, live, bundled };
    let mut size = head.size;
    let mut above: Option<Vec<Digest>> = None;
    let mut partials = Vec::new();
    for level in 0..8 {
        if size == 0 {
            break;
        }
        let row = shelf.row(level, size, above.as_deref(), threads)?;
        let broken = !row.findings.problems.is_empty();
        findings.problems.extend(row.findings.problems);
        if broken {
            return Ok(());
        }
        partials.push(row.partial);
        size /= WIDTH;
        above = Some(row.roots);
    }
    if Tree::from_levels(head.size, partials).map(|tree| tree.root()) != Some(head.root) {
        let what = "the tiles do not lead to the checkpoint's root".to_owned();
        findings.add(false, Some("tile/0".to_owned()), None, None, what);
    }
    Ok(())
}

impl Shelf<'_> {
    /// Checks the tiles of a level on several threads; `size` is how many hashes it holds, `above` what they must be.
    fn row(&self, level: u8, size: u64, above: Option<&[Digest]>, threads: usize) -> io::Result<Row> {
        let tiles = size.div_ceil(WIDTH);
        let threads = (cores(threads) as u64).min(tiles.div_ceil(TILES_A_THREAD)).max(1);
        let share = tiles.div_ceil(threads);
        let parts = std::thread::scope(|scope| {
            let part = |nth: u64| scope.spawn(move || self.part(level, size, above, nth * share, share));
            let parts: Vec<_> = (0..threads).map(part).collect();
            parts.into_iter().map(|part| part.join()).collect::<Vec<_>>()
        });
        let mut row = Row::default();
        for part in parts {
            let part = part.map_err(|_| io::Error::other("a thread of the verifier panicked"))??;
            row.roots.extend(part.roots);
            row.partial.extend(part.partial);
            row.findings.problems.extend(part.findings.problems);
        }
        Ok(row)
    }

    fn part(
        &self,
        level: u8,
        size: u64,
        above: Option<&[Digest]>,
        first: u64,
        share: u64,
    ) -> io::Result<Row> {
        let mut row = Row::default();
        for index in first..(first + share).min(size.div_ceil(WIDTH)) {
            let width = usize::try_from((size - index * WIDTH).min(WIDTH)).unwrap_or(TILE_WIDTH);
            let Some(hashes) = self.tile(level, index, width, above, &mut row.findings)? else { break };
            let (begin, end) = (index * WIDTH, index * WIDTH + width as u64);
            let wanted = |bundled: &RangeInclusive<u64>| begin <= *bundled.end() && end > *bundled.start();
            if level == 0 && self.bundled.as_ref().is_some_and(wanted) {
                check_bundle(self.storage, index, &hashes, &mut row.findings)?;
            }
            if width == TILE_WIDTH {
                row.roots.push(root_of(&hashes));
            } else {
                row.partial = hashes;
            }
        }
        Ok(row)
    }

    /// Reads a tile; none where it is missing, or not what the level below comes to.
    fn tile(
        &self,
        level: u8,
        index: u64,
        width: usize,
        above: Option<&[Digest]>,
        findings: &mut Findings,
    ) -> io::Result<Option<Vec<Digest>>> {
        let path = tile_path(&level.to_string(), index, width);
        let mut bytes = read(self.storage, &path, TILE_WIDTH * 32);
        if self.live && bytes.is_err() {
            // The full tile takes a partial one's place.
            bytes = read(self.storage, &tile_path(&level.to_string(), index, TILE_WIDTH), TILE_WIDTH * 32);
            if let Ok(full) = &mut bytes {
                full.truncate(width * 32);
            }
        }
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what = "tile is missing; opening the ledger makes it anew".to_owned();
                findings.add(true, Some(path), None, None, what);
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                findings.add(false, Some(path), None, None, "tile is too long".to_owned());
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let (hashes, rest) = bytes.as_chunks::<32>();
        let hashes: Vec<Digest> = hashes.iter().map(|hash| Digest(*hash)).collect();
        let start = usize::try_from(index * WIDTH).unwrap_or(usize::MAX);
        let agrees = above.is_none_or(|above| above.get(start..start + hashes.len()) == Some(&hashes[..]));
        if hashes.len() != width || !rest.is_empty() || !agrees {
            let what = "tile is not the one that the entries lead to".to_owned();
            findings.add(false, Some(path), None, None, what);
            return Ok(None);
        }
        Ok(Some(hashes))
    }
}

fn check_bundle(
    storage: &dyn Storage,
    index: u64,
    leaves: &[Digest],
    findings: &mut Findings,
) -> io::Result<()> {
    let path = tile_path("entries", index, leaves.len());
    let bytes = match read(storage, &path, TILE_WIDTH * (2 + crate::entry::ENTRY_BYTES_MAX)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            findings.add(true, Some(path), None, None, "bundle of entries is missing".to_owned());
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut rest = bytes.as_slice();
    let first = index * TILE_WIDTH as u64;
    for (expected, seq) in leaves.iter().zip(first..) {
        let entry = rest
            .split_first_chunk::<2>()
            .and_then(|(prefix, tail)| tail.split_at_checked(usize::from(u16::from_be_bytes(*prefix))));
        match entry {
            Some((entry, tail)) if leaf(entry) == *expected => rest = tail,
            _ => {
                let what = "bundle does not hold the entry that was signed".to_owned();
                findings.add(false, Some(path), None, Some((seq, seq)), what);
                return Ok(());
            }
        }
    }
    if !rest.is_empty() {
        findings.add(false, Some(path), None, None, "bundle is longer than its entries".to_owned());
    }
    Ok(())
}

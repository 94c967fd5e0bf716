//! The hashes of a published tree, read from its tiles. They are not believed: a proof made of wrong ones fails.

use std::cell::RefCell;
use std::io;

use super::proof::Hashes;
use super::{TILE_WIDTH, root_of, tile_path};
use crate::entry::array;
use crate::hash::Digest;
use crate::storage::{Storage, read};

const HASH_BYTES: usize = 32;
const TILE_BYTES_MAX: usize = TILE_WIDTH * HASH_BYTES;
/// A proof asks for neighbours: of each level the last few tiles are worth keeping.
const KEPT_MAX: usize = 32;

/// The tiles of a tree of one size, in the directory of a ledger or an export.
pub struct StoredTiles<'a> {
    storage: &'a dyn Storage,
    size: u64,
    kept: RefCell<Vec<(u32, u64, Vec<u8>)>>,
}

impl<'a> StoredTiles<'a> {
    /// The tree of `size` leaves, which the checkpoint in the same place covers, or covered before.
    #[must_use]
    pub fn new(storage: &'a dyn Storage, size: u64) -> StoredTiles<'a> {
        StoredTiles { storage, size, kept: RefCell::default() }
    }

    /// A tile's bytes: the full one, or the partial one that this tree ends in.
    fn tile(&self, level: u32, index: u64) -> io::Result<Vec<u8>> {
        let known = |(at, number, _): &&(u32, u64, Vec<u8>)| (*at, *number) == (level, index);
        if let Some((_, _, bytes)) = self.kept.borrow().iter().find(known) {
            return Ok(bytes.clone());
        }
        let width = TILE_WIDTH as u64;
        let here = (self.size >> (8 * level)).saturating_sub(index * width).min(width);
        let here = usize::try_from(here).unwrap_or(TILE_WIDTH);
        let path = |stored| tile_path(&level.to_string(), index, stored);
        // A live writer may have put the full one in the partial one's place.
        let bytes = match read(self.storage, &path(here), TILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && here < TILE_WIDTH => {
                read(self.storage, &path(TILE_WIDTH), TILE_BYTES_MAX).map_err(|_| error)
            }
            other => other,
        }?;
        let mut kept = self.kept.borrow_mut();
        if kept.len() == KEPT_MAX {
            kept.remove(0);
        }
        kept.push((level, index, bytes.clone()));
        Ok(bytes)
    }
}

impl Hashes for StoredTiles<'_> {
    fn perfect(&self, height: u32, index: u64) -> io::Result<Digest> {
        let (level, within) = (height / 8, height % 8);
        let first = index << within;
        let tile = self.tile(level, first / TILE_WIDTH as u64)?;
        let at = usize::try_from(first % TILE_WIDTH as u64).unwrap_or(TILE_WIDTH) * HASH_BYTES;
        let hashes = tile.get(at..at + (HASH_BYTES << within)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("a tile of level {level} is too short"))
        })?;
        Ok(root_of(&hashes.chunks_exact(HASH_BYTES).map(|hash| Digest(array(hash))).collect::<Vec<_>>()))
    }
}

impl std::fmt::Debug for StoredTiles<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredTiles").field("size", &self.size).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::proof::{self, Head, is_consistent, root_from_inclusion};
    use super::super::{Tree, root_of};
    use super::*;
    use crate::hash::leaf;
    use crate::storage::Memory;

    #[test]
    fn proofs_from_tiles_hold_in_trees_of_several_levels() {
        let storage = Memory::new();
        let all: Vec<Digest> = (0..66_000_u32).map(|n| leaf(&n.to_be_bytes())).collect();
        let mut tree = Tree::default();
        let mut heads = Vec::new();
        let sizes = [1_u64, 255, 256, 257, 1000, 65_535, 65_536, 65_537, 66_000];
        for hash in &all {
            tree.push(*hash);
            if sizes.contains(&tree.size()) {
                for tile in tree.take_full().iter().chain(&tree.partial()) {
                    storage.replace(&tile.path(), &tile.bytes()).unwrap();
                }
                heads.push(Head { size: tree.size(), root: tree.root() });
            }
        }
        for new in &heads {
            let tiles = StoredTiles::new(&storage, new.size);
            for old in heads.iter().filter(|old| old.size <= new.size) {
                let path = proof::consistency(&tiles, old.size, new.size).unwrap();
                assert!(is_consistent(*old, *new, &path), "{} to {}", old.size, new.size);
            }
            for seq in [0, 100, 255, 256, 999, 65_535, 65_536].into_iter().filter(|seq| *seq < new.size) {
                let path = proof::inclusion(&tiles, seq, new.size).unwrap();
                let index = usize::try_from(seq).unwrap();
                assert_eq!(root_from_inclusion(seq, new.size, all[index], &path), Some(new.root));
            }
        }
        assert_eq!(root_of(&all), heads.last().unwrap().root);
    }
}

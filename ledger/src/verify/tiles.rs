//! The published tiles and bundles of entries, held against the checkpoint.

use std::io;

use super::claims::Claim;
use super::report::Findings;
use crate::hash::{Digest, leaf};
use crate::merkle::{Range, TILE_WIDTH, root_of, tile_path};
use crate::storage::{Storage, read};

/// Checks the published tiles against the checkpoint, and bundles of entries, where there are any, against the tiles.
pub(super) fn check_tiles(
    storage: &dyn Storage,
    claim: &Claim,
    live: bool,
    findings: &mut Findings,
) -> io::Result<()> {
    let bundled = !storage.list("tile/entries")?.is_empty();
    let mut size = claim.size;
    let mut above: Option<Vec<Digest>> = None;
    let mut whole = Range::empty(0);
    for level in 0..8 {
        let width = TILE_WIDTH as u64;
        let mut roots = Vec::new();
        let tiles = size.div_ceil(width);
        for index in 0..tiles {
            let here = usize::try_from((size - index * width).min(width)).unwrap_or(TILE_WIDTH);
            let path = tile_path(&level.to_string(), index, here);
            let mut bytes = read(storage, &path, TILE_WIDTH * 32);
            if live && bytes.is_err() {
                // The full tile takes a partial one's place.
                bytes = read(storage, &tile_path(&level.to_string(), index, TILE_WIDTH), TILE_WIDTH * 32);
                if let Ok(full) = &mut bytes {
                    full.truncate(here * 32);
                }
            }
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let what = "tile is missing; opening the ledger makes it anew".to_owned();
                    findings.add(true, Some(path), None, None, what);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    findings.add(false, Some(path), None, None, "tile is too long".to_owned());
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let hashes: Vec<Digest> =
                bytes.chunks_exact(32).map(|hash| Digest(crate::entry::array(hash))).collect();
            let start = usize::try_from(index * width).unwrap_or(usize::MAX);
            let agrees = above
                .as_ref()
                .is_none_or(|above| above.get(start..start + hashes.len()) == Some(&hashes[..]));
            if bytes.len() != here * 32 || !agrees {
                findings.add(
                    false,
                    Some(path),
                    None,
                    None,
                    "tile is not the one that the entries lead to".to_owned(),
                );
                return Ok(());
            }
            if level == 0 {
                hashes.iter().for_each(|hash| whole.push(*hash));
                if bundled {
                    check_bundle(storage, index, &hashes, findings)?;
                }
            }
            if here == TILE_WIDTH {
                roots.push(root_of(&hashes));
            }
        }
        size /= width;
        above = Some(roots);
        if size == 0 {
            break;
        }
    }
    if whole.root() != Some(claim.root) {
        let what = "the tiles do not lead to the checkpoint's root".to_owned();
        findings.add(false, Some("tile/0".to_owned()), None, None, what);
    }
    Ok(())
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

//! Proofs of RFC 6962, section 2.1: that a leaf is in a tree, and that one tree is the beginning of another.
//!
//! What a newcomer gets wrong: a proof is judged by its shape as well as by its hashes. One that is too long,
//! too short, or empty where it must not be, is false whatever its hashes say; verifiers that walked only the
//! hashes they were given have accepted forged trees (CVE-2022-36111).

use std::io;

use crate::hash::{Digest, node};

/// More hashes than a proof in any tree of 2^63 leaves has.
pub const HASHES_MAX: usize = 63;

/// Where the hashes of a tree come from.
pub trait Hashes {
    /// The root of the perfect subtree of `height` whose first leaf is `index << height`.
    ///
    /// # Errors
    /// Where the hash cannot be had.
    fn perfect(&self, height: u32, index: u64) -> io::Result<Digest>;
}

/// Leaf hashes in memory.
impl Hashes for [Digest] {
    fn perfect(&self, height: u32, index: u64) -> io::Result<Digest> {
        let begin = usize::try_from(index << height).unwrap_or(usize::MAX);
        let leaves = self.get(begin..begin.saturating_add(1 << height));
        let leaves = leaves.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such leaves"))?;
        Ok(super::root_of(leaves))
    }
}

/// The root over `size` leaves from `begin`, which is a multiple of the next power of two.
fn subtree(hashes: &(impl Hashes + ?Sized), begin: u64, size: u64) -> io::Result<Digest> {
    if size.is_power_of_two() {
        let height = size.trailing_zeros();
        return hashes.perfect(height, begin >> height);
    }
    let left = size.next_power_of_two() / 2;
    Ok(node(&subtree(hashes, begin, left)?, &subtree(hashes, begin + left, size - left)?))
}

/// The inclusion proof (RFC 6962, section 2.1.1) of leaf `index` in the tree of `size` leaves.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] where there is no such leaf; of the source of hashes.
pub fn inclusion(hashes: &(impl Hashes + ?Sized), index: u64, size: u64) -> io::Result<Vec<Digest>> {
    if index >= size {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such leaf in a tree of that size"));
    }
    let (mut begin, mut size) = (0, size);
    let mut path = Vec::new();
    while size > 1 {
        let left = size.next_power_of_two() / 2;
        if index - begin < left {
            path.push(subtree(hashes, begin + left, size - left)?);
            size = left;
        } else {
            path.push(subtree(hashes, begin, left)?);
            (begin, size) = (begin + left, size - left);
        }
    }
    path.reverse();
    Ok(path)
}

/// The root that an inclusion proof leads to (RFC 9162, section 2.1.3.2); none where its shape is wrong.
#[must_use]
pub fn root_from_inclusion(index: u64, size: u64, leaf: Digest, proof: &[Digest]) -> Option<Digest> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// The consistency proof (RFC 6962, section 2.1.2) from the tree of `old` leaves to that of `new`; empty
/// where the old one is empty or the same.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] where the old tree is the larger one; of the source of hashes.
pub fn consistency(hashes: &(impl Hashes + ?Sized), old: u64, new: u64) -> io::Result<Vec<Digest>> {
    if old > new {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the old tree is larger than the new one"));
    }
    let mut path = Vec::new();
    if old == 0 || old == new {
        return Ok(path);
    }
    // The subtree at hand: where it begins, how large it is, how much of it the old tree has. On the left edge
    // the old tree's own root stands for itself, so it is not part of the proof.
    let (mut begin, mut size, mut known) = (0, new, old);
    while known < size {
        let left = size.next_power_of_two() / 2;
        if known <= left {
            path.push(subtree(hashes, begin + left, size - left)?);
            size = left;
        } else {
            path.push(subtree(hashes, begin, left)?);
            (begin, size, known) = (begin + left, size - left, known - left);
        }
    }
    if begin > 0 {
        path.push(subtree(hashes, begin, size)?);
    }
    path.reverse();
    Ok(path)
}

/// A tree as somebody signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many leaves it has.
    pub size: u64,
    /// Its root.
    pub root: Digest,
}

/// Whether the old tree is the beginning of the new one, by a consistency proof (RFC 9162, section 2.1.4.2).
/// The empty tree is the beginning of any.
#[must_use]
pub fn is_consistent(old: Head, new: Head, proof: &[Digest]) -> bool {
    if old.size == 0 {
        return proof.is_empty() && old.root == crate::hash::empty_root();
    }
    if old.size >= new.size {
        return old == new && proof.is_empty();
    }
    // An old tree that is perfect stands for itself.
    let (first, rest) = match (old.size.is_power_of_two(), proof) {
        (true, rest) => (old.root, rest),
        (false, [first, rest @ ..]) => (*first, rest),
        (false, []) => return false,
    };
    let shift = (old.size - 1).trailing_ones();
    let (mut at, mut last) = ((old.size - 1) >> shift, (new.size - 1) >> shift);
    let (mut old_root, mut new_root) = (first, first);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_root = node(hash, &old_root);
            new_root = node(hash, &new_root);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_root = node(&new_root, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_root == old.root && new_root == new.root
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use super::*;
    use crate::hash::{empty_root, leaf};
    use crate::merkle::{Tree, root_of};

    fn leaves(count: usize) -> Vec<Digest> {
        (0..count).map(|n| leaf(&n.to_be_bytes())).collect()
    }

    /// RFC 6962, section 2.1, word by word.
    fn naive_root(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => empty_root(),
            [only] => *only,
            _ => {
                let k = leaves.len().next_power_of_two() / 2;
                node(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
            }
        }
    }

    /// RFC 6962, section 2.1.2: SUBPROOF(m, D[begin:end], b), word by word.
    fn naive_subproof(m: usize, (begin, end): (usize, usize), whole: bool, roots: &Roots) -> Vec<Digest> {
        if m == end - begin {
            return if whole { Vec::new() } else { vec![roots.of(begin, end)] };
        }
        let k = (end - begin).next_power_of_two() / 2;
        let mut proof;
        if m <= k {
            proof = naive_subproof(m, (begin, begin + k), whole, roots);
            proof.push(roots.of(begin + k, end));
        } else {
            proof = naive_subproof(m - k, (begin + k, end), false, roots);
            proof.push(roots.of(begin, begin + k));
        }
        proof
    }

    /// The definition's roots, each worked out once: there are 45,000 pairs of trees up to 300.
    struct Roots {
        leaves: Vec<Digest>,
        known: RefCell<HashMap<(usize, usize), Digest>>,
    }

    impl Roots {
        fn of(&self, begin: usize, end: usize) -> Digest {
            let mut known = self.known.borrow_mut();
            *known.entry((begin, end)).or_insert_with(|| naive_root(&self.leaves[begin..end]))
        }
    }

    impl Hashes for Roots {
        fn perfect(&self, height: u32, index: u64) -> io::Result<Digest> {
            let begin = usize::try_from(index << height).unwrap();
            Ok(self.of(begin, begin + (1 << height)))
        }
    }

    fn head(leaves: &[Digest]) -> Head {
        Head { size: leaves.len() as u64, root: root_of(leaves) }
    }

    #[test]
    fn the_tree_is_the_one_of_the_definition() {
        let all = leaves(700);
        let mut tree = Tree::default();
        for count in 0..=all.len() {
            assert_eq!(tree.root(), naive_root(&all[..count]), "{count}");
            if let Some(hash) = all.get(count) {
                tree.push(*hash);
            }
        }
    }

    #[test]
    fn every_pair_of_trees_up_to_300_is_proven_consistent_as_the_definition_says() {
        let roots = Roots { leaves: leaves(300), known: RefCell::default() };
        let heads: Vec<Head> = (0..=300).map(|size| head(&roots.leaves[..size])).collect();
        for new in 0..=300 {
            for old in 0..=new {
                let proof = consistency(&roots, old as u64, new as u64).unwrap();
                if old > 0 {
                    assert_eq!(proof, naive_subproof(old, (0, new), true, &roots), "{old} to {new}");
                }
                assert!(proof.len() <= HASHES_MAX && is_consistent(heads[old], heads[new], &proof));
                assert!(old == new || !is_consistent(heads[new], heads[old], &proof), "{new} to {old}");
            }
        }
    }

    #[test]
    fn forged_consistency_proofs_are_refused() {
        let all = leaves(40);
        for new in 1..=40 {
            for old in 1..new {
                let (from, to) = (head(&all[..old]), head(&all[..new]));
                let proof = consistency(&all[..], old as u64, new as u64).unwrap();
                let mut forged: Vec<Vec<Digest>> = vec![Vec::new(), vec![to.root], vec![from.root, to.root]];
                for at in 0..proof.len() {
                    let mut flipped = proof.clone();
                    flipped[at].0[0] ^= 1;
                    let mut shorter = proof.clone();
                    shorter.remove(at);
                    let mut doubled = proof.clone();
                    doubled.insert(at, proof[at]);
                    forged.extend([flipped, shorter, doubled]);
                }
                for extra in [Digest::ZERO, from.root, to.root] {
                    forged.push([&proof[..], &[extra]].concat());
                    forged.push([&[extra], &proof[..]].concat());
                }
                for forged in forged.iter().filter(|forged| **forged != proof) {
                    assert!(!is_consistent(from, to, forged), "{old} to {new}: {forged:?}");
                }
                // The right proof, for other trees.
                let other = Head { root: leaf(b"other"), ..from };
                assert!(!is_consistent(other, to, &proof));
                assert!(!is_consistent(from, Head { root: leaf(b"other"), ..to }, &proof));
                for size in (0..=41).filter(|size| *size != old as u64) {
                    assert!(!is_consistent(Head { size, ..from }, to, &proof), "{size} for {old} to {new}");
                }
            }
        }
    }

    #[test]
    fn two_trees_of_one_size_are_consistent_only_where_they_are_one() {
        let all = leaves(7);
        let (one, other) = (head(&all), Head { size: 7, root: leaf(b"other") });
        assert!(is_consistent(one, one, &[]));
        assert!(!is_consistent(one, other, &[]), "a fork");
        assert!(!is_consistent(one, one, &[Digest::ZERO]), "a proof where there is nothing to prove");
        let empty = head(&[]);
        assert!(is_consistent(empty, one, &[]));
        assert!(!is_consistent(Head { size: 0, root: Digest::ZERO }, one, &[]), "no root of no leaves");
        assert!(!is_consistent(empty, one, &[one.root]));
        assert!(consistency(&all[..], 8, 7).is_err() && consistency(&all[..], 1, 8).is_err());
    }

    #[test]
    fn an_inclusion_proof_leads_to_the_root_and_no_other_does() {
        for size in 1..40 {
            let all = leaves(size);
            let root = root_of(&all);
            for index in 0..size {
                let proof = inclusion(&all[..], index as u64, size as u64).unwrap();
                let lead = |index: usize, proof: &[Digest]| {
                    root_from_inclusion(index as u64, size as u64, all[index.min(size - 1)], proof)
                };
                assert_eq!(lead(index, &proof), Some(root));
                assert_ne!(lead(index + 1, &proof), Some(root));
                let mut longer = proof.clone();
                longer.push(Digest::ZERO);
                assert_ne!(lead(index, &longer), Some(root));
                if !proof.is_empty() {
                    assert_ne!(lead(index, &proof[1..]), Some(root));
                }
                // An inner node shown as a leaf: what the two prefixes of RFC 6962 are for.
                if let [sibling, rest @ ..] = &proof[..]
                    && index ^ 1 < size
                {
                    let pair =
                        if index & 1 == 0 { node(&all[index], sibling) } else { node(sibling, &all[index]) };
                    assert_ne!(root_from_inclusion(index as u64, size as u64, pair, rest), Some(root));
                }
            }
            assert!(inclusion(&all[..], size as u64, size as u64).is_err());
        }
    }
}

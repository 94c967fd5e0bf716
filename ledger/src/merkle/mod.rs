//! The tree of RFC 6962 over the entries, cut into the tiles of C2SP tlog-tiles.
//!
//! [`Tree`] is the writer's: it grows by leaves and gives tiles. [`Range`] is the verifier's: a part of the
//! tree in a few hashes, which joins with its neighbour, so that parts can be hashed on all cores. [`proof`]
//! makes proofs from hashes that are stored, and judges those of others.

pub mod proof;
mod stored;

use crate::hash::{Digest, empty_root, node};

pub use self::stored::StoredTiles;

/// How many hashes a full tile holds.
pub const TILE_WIDTH: usize = 256;
/// More levels of tiles than 2^64 entries can need.
const LEVELS_MAX: usize = 8;

/// One tile of hashes, full or partial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Its level, from 0 at the leaves.
    pub level: u8,
    /// Its number within the level.
    pub index: u64,
    /// Its hashes, 1 to 256.
    pub hashes: Vec<Digest>,
}

impl Tile {
    /// Where it is stored: `tile/0/x001/234`, with `.p/17` where it is partial.
    #[must_use]
    pub fn path(&self) -> String {
        tile_path(&self.level.to_string(), self.index, self.hashes.len())
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.hashes.iter().flat_map(|hash| hash.0).collect()
    }
}

/// The path of a tile (`level` is a number) or of a bundle of entries (`level` is `entries`).
#[must_use]
pub fn tile_path(level: &str, index: u64, width: usize) -> String {
    let mut path = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    let partial = if width < TILE_WIDTH { format!(".p/{width}") } else { String::new() };
    format!("tile/{level}/{path}{partial}")
}

/// A growing tree: the partial tile of each level, and the full tiles not yet taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    size: u64,
    levels: Vec<Vec<Digest>>,
    full: Vec<Tile>,
}

impl Tree {
    /// A tree of `size` leaves, from the partial tiles of its levels as [`Tree::levels`] gave them.
    /// None where they do not belong to a tree of that size.
    #[must_use]
    pub fn from_levels(size: u64, levels: Vec<Vec<Digest>>) -> Option<Tree> {
        let mut rest = size;
        for level in &levels {
            if level.len() as u64 != rest % TILE_WIDTH as u64 {
                return None;
            }
            rest /= TILE_WIDTH as u64;
        }
        (rest == 0 && levels.len() <= LEVELS_MAX).then_some(Tree { size, levels, full: Vec::new() })
    }

    /// How many leaves it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the partial tile of each level, from the leaves up.
    #[must_use]
    pub fn levels(&self) -> &[Vec<Digest>] {
        &self.levels
    }

    /// Adds a leaf by its hash.
    pub fn push(&mut self, leaf: Digest) {
        let mut hash = leaf;
        let mut index = self.size;
        self.size += 1;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::with_capacity(TILE_WIDTH));
            }
            self.levels[level].push(hash);
            if self.levels[level].len() < TILE_WIDTH {
                return;
            }
            let hashes = std::mem::replace(&mut self.levels[level], Vec::with_capacity(TILE_WIDTH));
            hash = perfect_root(&hashes);
            index /= TILE_WIDTH as u64;
            let level = u8::try_from(level).unwrap_or(u8::MAX);
            self.full.push(Tile { level, index, hashes });
        }
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut root: Option<Digest> = None;
        for hashes in &self.levels {
            let mut end = hashes.len();
            while end > 0 {
                let start = end & (end - 1);
                let left = perfect_root(&hashes[start..end]);
                root = Some(root.map_or(left, |right| node(&left, &right)));
                end = start;
            }
        }
        root.unwrap_or_else(empty_root)
    }

    /// Takes the tiles that became full since the last call.
    pub fn take_full(&mut self) -> Vec<Tile> {
        std::mem::take(&mut self.full)
    }

    /// The partial tiles, one a level at most.
    #[must_use]
    pub fn partial(&self) -> Vec<Tile> {
        let mut rest = self.size;
        let mut tiles = Vec::new();
        for (level, hashes) in (0..).zip(&self.levels) {
            rest /= TILE_WIDTH as u64;
            if !hashes.is_empty() {
                tiles.push(Tile { level, index: rest, hashes: hashes.clone() });
            }
        }
        tiles
    }
}

/// The root over hashes whose number is a power of two, at most 256.
fn perfect_root(hashes: &[Digest]) -> Digest {
    let mut row = [Digest::ZERO; TILE_WIDTH];
    let mut length = hashes.len();
    row[..length].copy_from_slice(hashes);
    while length > 1 {
        length /= 2;
        for at in 0..length {
            row[at] = node(&row[2 * at], &row[2 * at + 1]);
        }
    }
    row[0]
}

/// The part of the tree from leaf `begin` to before leaf `end`, as the fewest whole subtrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    begin: u64,
    end: u64,
    /// Height and hash, from left to right.
    nodes: Vec<(u32, Digest)>,
}

impl Range {
    /// The empty range before leaf `begin`.
    #[must_use]
    pub fn empty(begin: u64) -> Range {
        Range { begin, end: begin, nodes: Vec::new() }
    }

    /// One past its last leaf.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The range of the first `end` leaves, from the partial tile of each level as [`Tree::levels`] gives them; none where
    /// they do not belong to so many leaves.
    #[must_use]
    pub fn from_levels(end: u64, levels: &[Vec<Digest>]) -> Option<Range> {
        Tree::from_levels(end, levels.to_vec())?;
        let mut nodes = Vec::new();
        for (level, hashes) in levels.iter().enumerate().rev() {
            let tile_height = 8 * u32::try_from(level).ok()?;
            let mut start = 0;
            for height in (0..8).rev().filter(|height| hashes.len() >> height & 1 == 1) {
                let end = start + (1 << height);
                nodes.push((tile_height + height, perfect_root(&hashes[start..end])));
                start = end;
            }
        }
        Some(Range { begin: 0, end, nodes })
    }

    /// Adds the next leaf by its hash.
    pub fn push(&mut self, leaf: Digest) {
        self.push_node(0, leaf);
    }

    /// Adds the range that begins where this one ends; false, and nothing changed, for any other.
    #[must_use]
    pub fn join(&mut self, next: &Range) -> bool {
        if next.begin != self.end {
            return false;
        }
        for (height, hash) in &next.nodes {
            self.push_node(*height, *hash);
        }
        true
    }

    fn push_node(&mut self, mut height: u32, mut hash: Digest) {
        // A node pairs with its left neighbour when it is a right child: then that neighbour, if it is in
        // the range at all, is the last node and of the same height.
        let mut index = self.end >> height;
        self.end += 1 << height;
        while index & 1 == 1
            && let Some((left_height, left)) = self.nodes.last()
            && *left_height == height
        {
            hash = node(left, &hash);
            self.nodes.pop();
            height += 1;
            index >>= 1;
        }
        self.nodes.push((height, hash));
    }

    /// The root, where the range begins at leaf 0.
    #[must_use]
    pub fn root(&self) -> Option<Digest> {
        if self.begin != 0 {
            return None;
        }
        let root = self.nodes.iter().rev().map(|(_, hash)| *hash).reduce(|right, left| node(&left, &right));
        Some(root.unwrap_or_else(empty_root))
    }
}

/// The root of a tree with these leaf hashes.
#[must_use]
pub fn root_of(leaves: &[Digest]) -> Digest {
    let mut range = Range::empty(0);
    leaves.iter().for_each(|leaf| range.push(*leaf));
    range.root().unwrap_or_else(empty_root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::leaf;

    /// The leaves and roots that implementations of RFC 6962 test with.
    const LEAVES: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn leaves(count: usize) -> Vec<Digest> {
        (0..count).map(|n| leaf(&n.to_be_bytes())).collect()
    }

    #[test]
    fn roots_are_those_of_rfc_6962() {
        let hashes: Vec<Digest> = LEAVES.iter().map(|bytes| leaf(bytes)).collect();
        let mut tree = Tree::default();
        for (count, expected) in ROOTS.iter().enumerate() {
            assert_eq!(tree.root().to_string(), *expected);
            assert_eq!(root_of(&hashes[..count]).to_string(), *expected);
            if let Some(hash) = hashes.get(count) {
                tree.push(*hash);
            }
        }
    }

    #[test]
    fn a_tree_equals_its_ranges_however_it_is_cut() {
        let all = leaves(1000);
        for count in [0, 1, 2, 255, 256, 257, 511, 512, 513, 999, 1000] {
            let mut tree = Tree::default();
            all[..count].iter().for_each(|hash| tree.push(*hash));
            for cut in [0, count / 3, count / 2, count] {
                let mut left = Range::empty(0);
                all[..cut].iter().for_each(|hash| left.push(*hash));
                let mut right = Range::empty(cut as u64);
                all[cut..count].iter().for_each(|hash| right.push(*hash));
                assert!(left.join(&right));
                assert_eq!(left.root(), Some(tree.root()), "{count} cut at {cut}");
            }
        }
        assert!(!Range::empty(0).join(&Range::empty(1)), "a hole between ranges is refused");
    }

    #[test]
    fn tiles_hold_every_leaf_and_their_own_roots() {
        let all = leaves(70_000);
        let mut tree = Tree::default();
        all.iter().for_each(|hash| tree.push(*hash));
        let full = tree.take_full();
        let first: Vec<Digest> =
            full.iter().filter(|tile| tile.level == 0).flat_map(|tile| tile.hashes.clone()).collect();
        assert_eq!(first, all[..69_888]);
        assert_eq!(full.iter().filter(|tile| tile.level == 1).count(), 1);
        let above: Vec<Tile> = full.iter().filter(|tile| tile.level == 1).cloned().collect();
        assert_eq!(above[0].hashes[3], root_of(&all[768..1024]));
        let partial: Vec<String> = tree.partial().iter().map(Tile::path).collect();
        assert_eq!(partial, ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
        assert_eq!(tile_path("entries", 1_234_067, 256), "tile/entries/x001/x234/067");
        let again = Tree::from_levels(tree.size(), tree.levels().to_vec()).unwrap();
        assert_eq!(again.root(), tree.root());
        assert!(Tree::from_levels(tree.size() + 1, tree.levels().to_vec()).is_none());
    }
}

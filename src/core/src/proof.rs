//! Proofs about a log (RFC 9162, sections 2.1.3 and 2.1.4): that a leaf is in it, and that it only grew. What of the tree a
//! proof takes is told first, so that only those tiles are read.

use std::collections::BTreeMap;

use crate::merkle::{Hash, node_hash};
use crate::tiles::{Node, Tile};

/// The hashes of a proof, each as the leaves that it is over: from one, to below the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<(u64, u64)>);

impl Path {
    /// Of the inclusion of leaf `index` in a tree of `size` leaves (section 2.1.3.1). `None` where that has no such leaf.
    pub fn of_inclusion(index: u64, size: u64) -> Option<Self> {
        if index >= size {
            return None;
        }
        let (mut begin, mut end, mut path) = (0, size, Vec::new());
        while end - begin > 1 {
            let middle = begin + split(end - begin);
            if index < middle {
                path.push((middle, end));
                end = middle;
            } else {
                path.push((begin, middle));
                begin = middle;
            }
        }
        path.reverse();
        Some(Self(path))
    }

    /// Of the consistency of a tree of `from` leaves with one of `to` (section 2.1.4.1). `None` unless
    /// `0 < from <= to`; of a tree with itself, it is empty.
    pub fn of_consistency(from: u64, to: u64) -> Option<Self> {
        if from == 0 || from > to {
            return None;
        }
        let (mut begin, mut end, mut path) = (0, to, Vec::new());
        // Whether the subtree that is looked at is all of the earlier tree: then its root is known.
        let mut known = true;
        while from != end {
            let middle = begin + split(end - begin);
            if from <= middle {
                path.push((middle, end));
                end = middle;
            } else {
                path.push((begin, middle));
                begin = middle;
                known = false;
            }
        }
        if !known {
            path.push((begin, end));
        }
        path.reverse();
        Some(Self(path))
    }

    /// The tiles that its hashes follow from.
    pub fn tiles(&self) -> Vec<Tile> {
        let mut tiles: Vec<_> = self.0.iter().flat_map(|range| nodes(*range)).map(Node::tile).collect();
        tiles.sort_unstable();
        tiles.dedup();
        tiles
    }

    /// Its hashes, where these tiles have all that it takes.
    pub fn hashes(&self, tiles: &BTreeMap<Tile, Vec<Hash>>) -> Option<Vec<Hash>> {
        self.0.iter().map(|range| root(*range, tiles)).collect()
    }
}

/// The tiles that the root of a tree of `size` leaves follows from.
pub fn tiles_of_root(size: u64) -> Vec<Tile> {
    Path(vec![(0, size)]).tiles()
}

/// The root of a tree of `size` leaves, where these tiles have all that it takes.
pub fn root_at(size: u64, tiles: &BTreeMap<Tile, Vec<Hash>>) -> Option<Hash> {
    if size == 0 { Some(crate::merkle::root_of(&[])) } else { root((0, size), tiles) }
}

/// The largest power of two below `n`, of two or more.
fn split(n: u64) -> u64 {
    1 << (u64::BITS - 1 - (n - 1).leading_zeros())
}

/// The perfect subtrees that the leaves of a range consist of, largest first. The range begins where the split of a tree
/// does, so that each of them is a node of it.
fn nodes((begin, end): (u64, u64)) -> impl Iterator<Item = Node> {
    let mut at = begin;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|left| *left > 0)?;
        let level = u64::BITS - 1 - left.leading_zeros();
        let node = Node { level, index: at >> level };
        at += 1 << level;
        Some(node)
    })
}

fn root(range: (u64, u64), tiles: &BTreeMap<Tile, Vec<Hash>>) -> Option<Hash> {
    let roots = nodes(range).map(|node| node.root(tiles)).collect::<Option<Vec<_>>>()?;
    roots.into_iter().rev().reduce(|right, left| node_hash(&left, &right))
}

/// Whether these hashes prove that the tree of `size` leaves with this root has `leaf` at `index` (RFC 9162, section
/// 2.1.3.2).
pub fn includes(leaf: &Hash, index: u64, size: u64, hashes: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for other in hashes {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(other, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, other);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Whether these hashes prove that a tree of `to` leaves is one of `from` leaves that only grew (RFC 9162, section 2.1.4.2).
pub fn extends((from, old): (u64, &Hash), (to, new): (u64, &Hash), hashes: &[Hash]) -> bool {
    if from == to {
        return old == new && hashes.is_empty();
    }
    if from == 0 || from > to {
        return false;
    }
    let known = from.is_power_of_two().then_some(*old);
    let mut hashes = known.iter().chain(hashes);
    let Some(first) = hashes.next() else { return false };
    let (mut at, mut last) = (from - 1, to - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut earlier, mut later) = (*first, *first);
    for other in hashes {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            earlier = node_hash(other, &earlier);
            later = node_hash(other, &later);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            later = node_hash(&later, other);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && earlier == *old && later == *new
}

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::merkle::{leaf_hash, root_of};
use crate::tiles::WIDTH;

fn leaves(size: u64) -> Vec<Hash> {
    (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

/// Every tile of a tree, by its definition.
fn all_tiles(leaves: &[Hash]) -> BTreeMap<Tile, Vec<Hash>> {
    let (mut level, mut hashes, mut tiles) = (0, leaves.to_vec(), BTreeMap::new());
    while !hashes.is_empty() {
        for (index, tile) in (0..).zip(hashes.chunks(WIDTH)) {
            tiles.insert(Tile { level, index }, tile.to_vec());
        }
        hashes = hashes.chunks_exact(WIDTH).map(root_of).collect();
        level += 1;
    }
    tiles
}

/// RFC 9162, section 2.1.3.1, word for word.
fn path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(k);
    if m < k {
        [path(m, left), vec![root_of(right)]].concat()
    } else {
        [path(m - k, right), vec![root_of(left)]].concat()
    }
}

/// RFC 9162, section 2.1.4.1, word for word.
fn subproof(m: usize, leaves: &[Hash], known: bool) -> Vec<Hash> {
    if m == leaves.len() {
        return if known { Vec::new() } else { vec![root_of(leaves)] };
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(k);
    if m <= k {
        [subproof(m, left, known), vec![root_of(right)]].concat()
    } else {
        [subproof(m - k, right, false), vec![root_of(left)]].concat()
    }
}

/// Only the tiles that it asks for are given.
fn hashes(path: &Path, tiles: &BTreeMap<Tile, Vec<Hash>>) -> Vec<Hash> {
    let some = path.tiles().into_iter().map(|tile| (tile, tiles[&tile].clone())).collect();
    path.hashes(&some).unwrap()
}

proptest! {
    #[test]
    fn proofs_are_rfc_9162s_and_verify(size in 1u64..1500, one in any::<u64>(), later in 0u64..1500) {
        let all = leaves(size + later);
        let tiles = all_tiles(&all);
        let (earlier, at) = (usize::try_from(size).unwrap(), one % size);
        let (index, leaf) = (usize::try_from(at).unwrap(), all[usize::try_from(at).unwrap()]);
        let (old, new) = (root_of(&all[..earlier]), root_of(&all));
        prop_assert_eq!(root_at(size, &tiles), Some(old));

        // From tiles that have grown since, too.
        let proof = hashes(&Path::of_inclusion(at, size).unwrap(), &tiles);
        prop_assert_eq!(&proof, &path(index, &all[..earlier]));
        prop_assert!(includes(&leaf, at, size, &proof, &old));
        let grown = hashes(&Path::of_consistency(size, size + later).unwrap(), &tiles);
        prop_assert_eq!(&grown, &subproof(earlier, &all, true));
        prop_assert!(extends((size, &old), (size + later, &new), &grown));

        // And nothing else does.
        let other = leaf_hash(b"another");
        prop_assert!(!includes(&other, at, size, &proof, &old));
        prop_assert!(!includes(&leaf, at, size, &proof, &other));
        prop_assert!(!includes(&leaf, (at + 1) % size, size, &proof, &old) || size == 1);
        prop_assert!(!includes(&leaf, size, size, &proof, &old));
        prop_assert!(!extends((size, &other), (size + later, &new), &grown));
        prop_assert!(!extends((size, &old), (size + later, &other), &grown));
        if later > 0 {
            prop_assert!(!extends((size + later, &new), (size, &old), &grown));
        }
        for n in 0..proof.len() {
            let mut bad = proof.clone();
            bad[n][0] ^= 1;
            prop_assert!(!includes(&leaf, at, size, &bad, &old));
            bad.remove(n);
            prop_assert!(!includes(&leaf, at, size, &bad, &old));
        }
        for n in 0..grown.len() {
            let mut bad = grown.clone();
            bad[n][0] ^= 1;
            prop_assert!(!extends((size, &old), (size + later, &new), &bad));
            bad.remove(n);
            prop_assert!(!extends((size, &old), (size + later, &new), &bad));
        }
        let longer = |proof: &[Hash]| [proof, &[other]].concat();
        prop_assert!(!includes(&leaf, at, size, &longer(&proof), &old));
        prop_assert!(!extends((size, &old), (size + later, &new), &longer(&grown)));
    }
}

#[test]
fn a_large_tree_takes_tiles_of_every_level() {
    let all = leaves(70_001);
    let tiles = all_tiles(&all);
    let root = root_of(&all);
    assert_eq!(root_at(70_001, &tiles), Some(root));
    assert_eq!(tiles_of_root(70_001).iter().map(|tile| tile.level).max(), Some(2));
    for index in [0, 255, 256, 65_535, 65_536, 69_999, 70_000] {
        let path = Path::of_inclusion(index, 70_001).unwrap();
        assert!(path.tiles().len() <= 6, "{:?}", path.tiles());
        let proof = hashes(&path, &tiles);
        assert!(includes(&all[usize::try_from(index).unwrap()], index, 70_001, &proof, &root), "{index}");
    }
    for from in [1, 255, 256, 257, 65_536, 65_537, 70_000] {
        let old = root_of(&all[..usize::try_from(from).unwrap()]);
        let proof = hashes(&Path::of_consistency(from, 70_001).unwrap(), &tiles);
        assert!(extends((from, &old), (70_001, &root), &proof), "{from}");
    }
}

#[test]
fn what_has_no_proof() {
    assert_eq!(Path::of_inclusion(0, 0), None);
    assert_eq!(Path::of_inclusion(5, 5), None);
    assert_eq!(Path::of_consistency(0, 5), None);
    assert_eq!(Path::of_consistency(6, 5), None);
    let one = leaf_hash(b"one");
    assert!(!extends((0, &root_of(&[])), (1, &one), &[]));
    assert!(extends((1, &one), (1, &one), &[]));
    assert!(!extends((1, &one), (1, &one), &[one]));
    assert!(
        Path::of_inclusion(u64::MAX - 1, u64::MAX).is_some() && Path::of_consistency(1, u64::MAX).is_some()
    );
    assert_eq!(Path::of_inclusion(3, 7).unwrap().hashes(&BTreeMap::new()), None);
    assert_eq!(root_at(0, &BTreeMap::new()), Some(root_of(&[])));
}

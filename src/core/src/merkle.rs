//! The audit log's Merkle tree: RFC 6962 hashing (RFC 9162, section 2.1), leaves only ever appended.

use crate::digest::Digest;

/// A node's or leaf's hash: SHA-256.
pub type Hash = [u8; 32];

/// The hash of an entry: `SHA-256(0x00 ‖ entry)`.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    hash(&[&[0], entry])
}

/// The hash of two children: `SHA-256(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], left, right])
}

fn hash(parts: &[&[u8]]) -> Hash {
    *Digest::of_parts(parts).as_bytes()
}

/// The root over these leaves, by the definition: for checking, not for growing.
pub fn root_of(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root()
}

/// The roots of the perfect subtrees that a tree of this size consists of, largest first: all it takes to append and
/// to give the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// A frontier that was kept: `None` unless there is one root for each bit of `size`.
    pub fn from_parts(size: u64, roots: Vec<Hash>) -> Option<Self> {
        (usize::try_from(size.count_ones()).ok()? == roots.len()).then_some(Self { size, roots })
    }

    /// How many leaves there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The roots of its perfect subtrees, largest first.
    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut carried = leaf;
        let mut size = self.size;
        while size & 1 == 1 {
            if let Some(left) = self.roots.pop() {
                carried = node_hash(&left, &carried);
            }
            size >>= 1;
        }
        self.roots.push(carried);
        self.size += 1;
    }

    /// The root over all leaves; of none, the hash of nothing.
    pub fn root(&self) -> Hash {
        let mut roots = self.roots.iter().rev();
        let Some(last) = roots.next() else { return hash(&[]) };
        roots.fold(*last, |right, left| node_hash(left, &right))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9162, section 2.1.1, word for word.
    fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => hash(&[]),
            [one] => *one,
            many => {
                let k = many.len().next_power_of_two() / 2;
                node_hash(&mth(&many[..k]), &mth(&many[k..]))
            }
        }
    }

    proptest! {
        #[test]
        fn root_is_rfc_9162s(n in 0usize..300) {
            let leaves: Vec<_> = (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect();
            prop_assert_eq!(root_of(&leaves), mth(&leaves));
        }

        #[test]
        fn a_frontier_continues_where_it_was_kept(n in 0u64..300, more in 0u64..50) {
            let mut whole = Frontier::default();
            (0..n).for_each(|i| whole.push(leaf_hash(&i.to_be_bytes())));
            let mut kept = Frontier::from_parts(whole.size(), whole.roots().to_vec()).unwrap();
            (n..n + more).for_each(|i| { whole.push(leaf_hash(&i.to_be_bytes())); kept.push(leaf_hash(&i.to_be_bytes())); });
            prop_assert_eq!(kept, whole);
        }
    }

    /// The first roots of certificate-transparency's reference test tree.
    #[test]
    fn known_roots() {
        let entries: [&[u8]; 3] = [b"", b"\x00", b"\x10"];
        let hex = |hash: Hash| Digest::from_bytes(hash).to_string();
        let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        assert_eq!(hex(root_of(&[])), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(
            hex(root_of(&leaves[..1])),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        assert_eq!(
            hex(root_of(&leaves[..2])),
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
        );
        assert_eq!(hex(root_of(&leaves)), "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77");
    }
}

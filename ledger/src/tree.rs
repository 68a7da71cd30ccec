//! The tree of RFC 6962, section 2.1, and its proofs.
//!
//! Leaves and inner nodes are hashed under different prefixes, so that neither can be passed off as the other. Proofs are
//! told as the [`Subtree`]s whose hashes they consist of: who keeps the tree decides how to find those.

use sha2::{Digest as _, Sha256};

/// SHA-256 of a leaf or of a subtree.
pub type Hash = [u8; 32];

/// The hash of a leaf.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

/// The hash of two subtrees side by side.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Leaves `start..end` of a tree, `start < end`, as one node of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subtree {
    /// The first leaf.
    pub start: u64,
    /// One past the last leaf.
    pub end: u64,
}

impl Subtree {
    /// Number of leaves.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Never: a node has leaves.
    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Where the node's two children meet: behind the largest power of two that is smaller than its length. `None` for a
    /// leaf.
    pub const fn split(self) -> Option<u64> {
        if self.len() < 2 { None } else { Some(self.start + (1 << (u64::BITS - 1 - (self.len() - 1).leading_zeros()))) }
    }

    /// The complete subtrees, left to right, that the node consists of: each has a power of two of leaves, and its start
    /// is a multiple of its length if the node's start is one of the node's.
    pub fn complete(self) -> Vec<Self> {
        let mut parts = Vec::new();
        let mut rest = self;
        while let Some(middle) = rest.split() {
            if rest.len().is_power_of_two() {
                break;
            }
            parts.push(Self { start: rest.start, end: middle });
            rest.start = middle;
        }
        if !rest.is_empty() {
            parts.push(rest);
        }
        parts
    }
}

/// The hash of adjacent complete subtrees, largest first, as [`Subtree::complete`] lists them.
pub fn join(parts: &[Hash]) -> Hash {
    let mut parts = parts.iter().rev();
    match parts.next() {
        // The root of a tree without leaves.
        None => Sha256::digest([]).into(),
        Some(last) => parts.fold(*last, |right, left| node_hash(left, &right)),
    }
}

/// The right edge of a growing tree: the hashes of its complete subtrees, largest first. All that appending needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Takes up a frontier that was kept. `None` if the number of hashes does not fit the size.
    pub fn new(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// Number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The hashes, largest subtree first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Appends a leaf. Returns the complete subtrees that it finished besides itself, smallest first.
    pub fn push(&mut self, leaf: Hash) -> Vec<(Subtree, Hash)> {
        let mut finished = Vec::new();
        let end = self.size + 1;
        let mut node = leaf;
        // Each trailing one of the size is a complete subtree that the new leaf finds its twin in.
        for level in 0..self.size.trailing_ones() {
            let Some(left) = self.peaks.pop() else { break };
            node = node_hash(&left, &node);
            finished.push((Subtree { start: end - (2 << level), end }, node));
        }
        self.peaks.push(node);
        self.size = end;
        finished
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        join(&self.peaks)
    }
}

/// The subtrees whose hashes prove that leaf `index` is in a tree of `size` leaves, from the leaf upwards (RFC 6962,
/// 2.1.1). `None` if there is no such leaf.
pub fn inclusion(index: u64, size: u64) -> Option<Vec<Subtree>> {
    if index >= size {
        return None;
    }
    let mut path = Vec::new();
    let mut node = Subtree { start: 0, end: size };
    while let Some(middle) = node.split() {
        let (left, right) = (Subtree { end: middle, ..node }, Subtree { start: middle, ..node });
        let (next, other) = if index < middle { (left, right) } else { (right, left) };
        path.push(other);
        node = next;
    }
    path.reverse();
    Some(path)
}

/// The subtrees whose hashes prove that the tree of `old` leaves is the beginning of the tree of `new` leaves (RFC 6962,
/// 2.1.2). `None` unless `0 < old <= new`.
pub fn consistency(old: u64, new: u64) -> Option<Vec<Subtree>> {
    if old == 0 || old > new {
        return None;
    }
    let mut path = Vec::new();
    let mut node = Subtree { start: 0, end: new };
    // Whether `node` still starts where the old tree ends a complete subtree that the verifier knows as its root.
    let mut is_known = true;
    while node.end != old {
        let Some(middle) = node.split() else { break };
        let (left, right) = (Subtree { end: middle, ..node }, Subtree { start: middle, ..node });
        if old <= middle {
            path.push(right);
            node = left;
        } else {
            path.push(left);
            node = right;
            is_known = false;
        }
    }
    if !is_known {
        path.push(node);
    }
    path.reverse();
    Some(path)
}

/// Checks a proof of inclusion: the root that follows from it, or `None` if it has the wrong number of hashes.
pub fn root_of_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash]) -> Option<Hash> {
    let path = inclusion(index, size)?;
    if path.len() != proof.len() {
        return None;
    }
    Some(path.iter().zip(proof).fold(*leaf, |node, (other, hash)| {
        if other.start > index { node_hash(&node, hash) } else { node_hash(hash, &node) }
    }))
}

/// Checks a proof of consistency against both roots.
pub fn is_consistent(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    let Some(path) = consistency(old, new) else { return false };
    if path.len() != proof.len() {
        return false;
    }
    let mut steps = path.iter().zip(proof).peekable();
    // The node in which the old tree ends: given, or the old root itself if the old tree is one complete subtree.
    let is_given = steps.peek().is_some_and(|(first, _)| first.end == old);
    let (mut was, mut is) = match steps.next_if(|_| is_given) {
        Some((_, hash)) => (*hash, *hash),
        None => (*old_root, *old_root),
    };
    for (other, hash) in steps {
        if other.start >= old {
            is = node_hash(&is, hash);
        } else {
            was = node_hash(hash, &was);
            is = node_hash(hash, &is);
        }
    }
    was == *old_root && is == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 6962, 2.1, word by word.
    fn reference_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => *leaf,
            _ => {
                let mut k = 1;
                while k * 2 < leaves.len() {
                    k *= 2;
                }
                node_hash(&reference_root(&leaves[..k]), &reference_root(&leaves[k..]))
            }
        }
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    fn hashes(leaves: &[Hash], path: &[Subtree]) -> Vec<Hash> {
        path.iter().map(|node| reference_root(&leaves[node.start as usize..node.end as usize])).collect()
    }

    #[test]
    fn roots_are_those_of_certificate_transparencys_test_vectors() {
        // The eight leaves and the root that Certificate Transparency implementations share.
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let mut frontier = Frontier::default();
        assert_eq!(hex::encode(frontier.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for input in inputs {
            frontier.push(leaf_hash(input));
        }
        assert_eq!(hex::encode(frontier.root()), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    #[test]
    fn a_growing_tree_has_the_root_and_the_subtrees_of_the_definition() {
        let leaves = leaves(70);
        let mut frontier = Frontier::default();
        for (count, leaf) in leaves.iter().enumerate() {
            for (node, hash) in frontier.push(*leaf) {
                assert!(node.len().is_power_of_two() && node.start % node.len() == 0, "{node:?}");
                assert_eq!(hashes(&leaves, &[node]), [hash]);
            }
            assert_eq!(frontier.root(), reference_root(&leaves[..=count]));
            let parts = Subtree { start: 0, end: frontier.size() }.complete();
            assert_eq!(hashes(&leaves, &parts), frontier.peaks());
            assert_eq!(Frontier::new(frontier.size(), frontier.peaks().to_vec()), Some(frontier.clone()));
        }
        assert_eq!(Frontier::new(3, vec![[0; 32]]), None);
    }

    proptest! {
        #[test]
        fn inclusion_is_proved_and_nothing_else_is(size in 1usize..200, index in 0usize..200, wrong in 0usize..200) {
            let leaves = leaves(size);
            let (index, wrong) = (index % size, wrong % size);
            let root = reference_root(&leaves);
            let path = inclusion(index as u64, size as u64).expect("inside");
            let proof = hashes(&leaves, &path);
            prop_assert_eq!(root_of_inclusion(&leaves[index], index as u64, size as u64, &proof), Some(root));
            if wrong != index {
                prop_assert_ne!(root_of_inclusion(&leaves[wrong], index as u64, size as u64, &proof), Some(root));
            }
            let shorter = proof.len().checked_sub(1).map(|end| &proof[..end]);
            if let Some(shorter) = shorter {
                prop_assert_eq!(root_of_inclusion(&leaves[index], index as u64, size as u64, shorter), None);
            }
            prop_assert_eq!(inclusion(size as u64, size as u64), None);
        }

        #[test]
        fn a_tree_is_consistent_with_its_beginnings_and_with_no_other(old in 1usize..130, more in 0usize..130, edit in any::<prop::sample::Index>()) {
            let new = old + more;
            let all = leaves(new);
            let (old_root, new_root) = (reference_root(&all[..old]), reference_root(&all));
            let path = consistency(old as u64, new as u64).expect("beginning");
            let proof = hashes(&all, &path);
            prop_assert!(is_consistent(old as u64, &old_root, new as u64, &new_root, &proof));
            // A past that was rewritten has another root, whatever proof is made for it.
            let mut forked = all.clone();
            forked[edit.index(old)] = leaf_hash(b"rewritten");
            let forked_proof = hashes(&forked, &path);
            let forked_root = reference_root(&forked);
            prop_assert!(!is_consistent(old as u64, &old_root, new as u64, &forked_root, &forked_proof));
            prop_assert!(!is_consistent(old as u64, &old_root, new as u64, &forked_root, &proof));
            if let Some((_, shorter)) = proof.split_last() {
                prop_assert!(!is_consistent(old as u64, &old_root, new as u64, &new_root, shorter));
            }
        }
    }
}

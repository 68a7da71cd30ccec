//! Proofs as files: that an event is in a ledger, and that a ledger goes on from an earlier one. Each carries the signed
//! heads that it holds between, so it verifies with nothing but the public key.

use crate::head::{Head, HeadError, PUBLIC_KEY_LEN_BYTES, SignedHead};
use crate::leaf::{Leaf, Names};
use crate::tree::{Hash, is_consistent, leaf_hash, root_of_inclusion};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The name of this layout, in each file.
pub const PROOF_FORMAT: &str = "valv-ledger-proof-1";

/// A proof, as it travels.
#[allow(clippy::large_enum_variant, reason = "one at a time")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "proof", rename_all = "lowercase", deny_unknown_fields)]
pub enum Proof {
    /// That an event is in a ledger.
    Inclusion {
        /// [`PROOF_FORMAT`].
        format: String,
        /// The event's place, from 0.
        index: u64,
        /// [`Leaf::to_bytes`], base64.
        leaf: String,
        /// The CBOR of the event's [`Names`], base64; `None` once they were erased.
        names: Option<String>,
        /// Hashes from the leaf upwards (RFC 6962, 2.1.1), hexadecimal.
        path: Vec<String>,
        /// The head of the ledger that it is in.
        head: SignedHead,
    },
    /// That a ledger goes on from an earlier one.
    Consistency {
        /// [`PROOF_FORMAT`].
        format: String,
        /// Hashes (RFC 6962, 2.1.2), hexadecimal.
        path: Vec<String>,
        /// The earlier head.
        old: SignedHead,
        /// The later head.
        new: SignedHead,
    },
}

/// Why a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is no proof, or one of a format that is not known here.
    #[error("{what}")]
    Form {
        /// What is wrong.
        what: &'static str,
    },
    /// A head's signature or form is wrong.
    #[error("the head: {0}")]
    Head(#[from] HeadError),
    /// The names are not those of the leaf.
    #[error("the names are not those that the leaf was made of")]
    Names,
    /// The event is not in the ledger that the head was signed over.
    #[error("the event is not in the ledger that the head was signed over")]
    NotIncluded,
    /// The heads are of different projects.
    #[error("the heads are of different projects")]
    OtherProject,
    /// The later ledger does not go on from the earlier.
    #[error("the ledger of {new} events does not go on from that of {old}: it was rewritten or forked")]
    Forked {
        /// Events in the earlier.
        old: u64,
        /// Events in the later.
        new: u64,
    },
}

/// What a proof that holds says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one at a time, and looked at once")]
pub enum Proven {
    /// The event is in the ledger.
    Inclusion {
        /// The event.
        leaf: Leaf,
        /// Its names, unless they were erased.
        names: Option<Names>,
        /// Its place.
        index: u64,
        /// The ledger.
        head: Head,
    },
    /// The later ledger begins with the earlier.
    Consistency {
        /// The earlier.
        old: Head,
        /// The later.
        new: Head,
    },
}

impl Proof {
    /// Writes down a proof of inclusion.
    pub fn inclusion(index: u64, leaf: &[u8], names: Option<&[u8]>, path: &[Hash], head: SignedHead) -> Self {
        Self::Inclusion {
            format: PROOF_FORMAT.to_owned(),
            index,
            leaf: STANDARD.encode(leaf),
            names: names.map(|names| STANDARD.encode(names)),
            path: path.iter().map(hex::encode).collect(),
            head,
        }
    }

    /// Writes down a proof of consistency.
    pub fn consistency(path: &[Hash], old: SignedHead, new: SignedHead) -> Self {
        Self::Consistency { format: PROOF_FORMAT.to_owned(), path: path.iter().map(hex::encode).collect(), old, new }
    }

    /// Reads a proof; `None` if the text is none.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The proof as a line of JSON.
    pub fn to_json(&self) -> String {
        // Strings and integers only: nothing here can fail to become JSON.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Checks it.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, public_key: &[u8; PUBLIC_KEY_LEN_BYTES]) -> Result<Proven, ProofError> {
        match self {
            Self::Inclusion { format, index, leaf, names, path, head } => {
                check_format(format)?;
                let head = head.verify(public_key)?;
                let malformed = ProofError::Form { what: "the leaf can't be read" };
                let leaf_bytes = STANDARD.decode(leaf).map_err(|_| malformed.clone())?;
                let leaf = Leaf::from_bytes(&leaf_bytes).ok_or(malformed)?;
                if leaf.project != head.project {
                    return Err(ProofError::OtherProject);
                }
                let root = root_of_inclusion(&leaf_hash(&leaf_bytes), *index, head.size, &hashes(path)?);
                if root != Some(head.root) {
                    return Err(ProofError::NotIncluded);
                }
                let names = match names {
                    None => None,
                    Some(names) => {
                        let names = STANDARD.decode(names).ok();
                        let names = names.and_then(|bytes| minicbor::decode::<Names>(&bytes).ok());
                        let names = names.filter(|names| names.hash() == leaf.names_hash);
                        Some(names.ok_or(ProofError::Names)?)
                    }
                };
                Ok(Proven::Inclusion { leaf, names, index: *index, head })
            }
            Self::Consistency { format, path, old, new } => {
                check_format(format)?;
                let (old, new) = (old.verify(public_key)?, new.verify(public_key)?);
                if old.project != new.project {
                    return Err(ProofError::OtherProject);
                }
                let path = hashes(path)?;
                // Every ledger goes on from the empty one; RFC 6962 has no proof for it.
                let holds = match old.size {
                    0 => path.is_empty() && old.root == crate::Frontier::default().root(),
                    size => is_consistent(size, &old.root, new.size, &new.root, &path),
                };
                if holds {
                    Ok(Proven::Consistency { old, new })
                } else {
                    Err(ProofError::Forked { old: old.size, new: new.size })
                }
            }
        }
    }
}

fn check_format(format: &str) -> Result<(), ProofError> {
    if format == PROOF_FORMAT { Ok(()) } else { Err(ProofError::Form { what: "the proof's format is not known here" }) }
}

fn hashes(path: &[String]) -> Result<Vec<Hash>, ProofError> {
    let hash = |text: &String| hex::decode(text).ok()?.try_into().ok();
    path.iter().map(hash).collect::<Option<Vec<_>>>().ok_or(ProofError::Form { what: "the path is no list of hashes" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf::LEAF_FORMAT;
    use crate::tree::{self, Frontier};
    use proptest::prelude::*;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use valv_types::{CommitId, ProjectId, TimestampMicros};

    fn key(seed: u8) -> (Ed25519KeyPair, [u8; 32]) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("seed");
        let public = pair.public_key().as_ref().try_into().expect("32 bytes");
        (pair, public)
    }

    fn leaves(count: usize) -> Vec<Vec<u8>> {
        let leaf = |number: usize| Leaf {
            format: LEAF_FORMAT,
            project: ProjectId::from_bytes([4; 16]),
            event: CommitId::from_bytes([number as u8; 16]),
            time: TimestampMicros(number as u64),
            kind: 20,
            user: None,
            bucket: None,
            version: None,
            bytes: number as u64,
            names_hash: [number as u8; 32],
            entries_hash: None,
        };
        (0..count).map(|number| leaf(number).to_bytes()).collect()
    }

    fn root(leaves: &[Vec<u8>]) -> Hash {
        let mut frontier = Frontier::default();
        for leaf in leaves {
            frontier.push(leaf_hash(leaf));
        }
        frontier.root()
    }

    fn subtree(leaves: &[Vec<u8>], node: tree::Subtree) -> Hash {
        root(&leaves[node.start as usize..node.end as usize])
    }

    fn head(leaves: &[Vec<u8>]) -> SignedHead {
        let (pair, public) = key(1);
        let head = Head {
            project: ProjectId::from_bytes([4; 16]),
            size: leaves.len() as u64,
            root: root(leaves),
            time: TimestampMicros(7),
        };
        SignedHead::new(&head, &public, pair.sign(head.signed_text().as_bytes()).as_ref())
    }

    fn inclusion(leaves: &[Vec<u8>], index: usize) -> Proof {
        let path = tree::inclusion(index as u64, leaves.len() as u64).expect("inside");
        let path: Vec<Hash> = path.into_iter().map(|node| subtree(leaves, node)).collect();
        Proof::inclusion(index as u64, &leaves[index], None, &path, head(leaves))
    }

    fn consistency(old: &[Vec<u8>], new: &[Vec<u8>]) -> Proof {
        let path = tree::consistency(old.len() as u64, new.len() as u64).unwrap_or_default();
        let path: Vec<Hash> = path.into_iter().map(|node| subtree(new, node)).collect();
        Proof::consistency(&path, head(old), head(new))
    }

    proptest! {
        #[test]
        fn proofs_hold_for_every_size_and_for_no_other_event(size in 1usize..80, index in any::<prop::sample::Index>(), other in any::<prop::sample::Index>()) {
            let all = leaves(size);
            let (index, other) = (index.index(size), other.index(size));
            let proof = inclusion(&all, index);
            let again = Proof::from_json(&proof.to_json()).expect("JSON");
            prop_assert_eq!(&again, &proof);
            prop_assert!(matches!(again.verify(&key(1).1), Ok(Proven::Inclusion { .. })), "a true proof");
            let Proof::Inclusion { format, leaf, names, path, head, .. } = proof else { unreachable!() };
            if other != index {
                let moved = Proof::Inclusion { format: format.clone(), index: other as u64, leaf, names: names.clone(), path: path.clone(), head: head.clone() };
                prop_assert_eq!(moved.verify(&key(1).1), Err(ProofError::NotIncluded));
                let edited = Proof::Inclusion { format, index: index as u64, leaf: STANDARD.encode(&all[other]), names, path, head };
                prop_assert_eq!(edited.verify(&key(1).1), Err(ProofError::NotIncluded));
            }
        }

        #[test]
        fn a_ledger_goes_on_from_its_beginnings_only(old in 0usize..60, more in 0usize..60, edit in any::<prop::sample::Index>()) {
            let all = leaves(old + more);
            prop_assert!(consistency(&all[..old], &all).verify(&key(1).1).is_ok());
            if old > 0 {
                let mut forked = all.clone();
                forked[edit.index(old)] = b"rewritten".to_vec();
                prop_assert_eq!(
                    consistency(&all[..old], &forked).verify(&key(1).1),
                    Err(ProofError::Forked { old: old as u64, new: (old + more) as u64 })
                );
            }
        }
    }

    #[test]
    fn names_and_keys_and_heads_are_checked() {
        let all = leaves(5);
        let Proof::Inclusion { format, index, leaf, path, head, .. } = inclusion(&all, 2) else { unreachable!() };
        let with_names = Proof::Inclusion {
            format: format.clone(),
            index,
            leaf: leaf.clone(),
            names: Some(STANDARD.encode(b"\x80")),
            path: path.clone(),
            head: head.clone(),
        };
        assert_eq!(with_names.verify(&key(1).1), Err(ProofError::Names));
        let proof = inclusion(&all, 2);
        assert!(matches!(proof.verify(&key(2).1), Err(ProofError::Head(HeadError::OtherKey { .. }))));
        let resized = SignedHead { size: 6, ..head };
        let proof = Proof::Inclusion { format, index, leaf, names: None, path, head: resized };
        assert_eq!(proof.verify(&key(1).1), Err(ProofError::Head(HeadError::Signature)));
    }
}

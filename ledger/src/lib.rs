//! A project's ledger: a Merkle tree over its custody events, and what anybody can check of it without trusting Valv.
//!
//! This crate exists so that the one who verifies and the one who writes share the same few definitions: what a leaf is
//! ([`leaf`]), what accesses in it say ([`access`]), how leaves are hashed into a tree and what a proof is ([`tree`]), what
//! a signed head says ([`head`]), what an export and a proof hold ([`export`], [`proof`]), what a signed statement is
//! ([`statement`]), and what usage follows from events ([`usage`]). It must never know how records are stored, sealed or sequenced, and it holds no
//! secret: it checks signatures, and makes none.

pub mod access;
pub mod export;
pub mod head;
pub mod leaf;
pub mod proof;
pub mod statement;
pub mod tree;
pub mod usage;

pub use access::{Access, AccessEnd, AccessName, AccessNames, AccessState, Accesses, Client, Completion};
pub use export::{ExportError, Report, verify};
pub use head::{Head, HeadError, SignedHead};
pub use leaf::{Leaf, Names};
pub use proof::{Proof, ProofError, Proven};
pub use statement::{SignedStatement, Statement, StatementError, StatementKind};
pub use tree::{Frontier, Hash, Subtree};

//! Heads of ledgers and proofs about them.
//!
//! A proof consists of hashes of subtrees. Those of complete subtrees of 256 leaves and more are rows, written when
//! sequencing finishes them, so a proof reads one row for each level and the records of the two pages of leaves that it
//! touches: O(log n), and at most 512 records. A tree that an older Valv sequenced has no such rows: the first proof over
//! it reads its records once, and leaves the rows behind. Finding an event's place by its id reads the pages of leaves,
//! 16 bytes an event.

use crate::attempt::{self, Attempt, store_error};
use crate::records::{self, LEAVES_PER_PAGE, LeafPage, NodeRecord};
use crate::sequencer::frontier_of;
use crate::service::{Core, MetadataService, corrupt, malformed};
use crate::store::Snapshot;
use std::sync::Arc;
use valv_ledger::{Frontier, Hash, Head, Names, SignedHead, Subtree, tree};
use valv_metadata_api::MetadataError;
use valv_types::{CommitId, ProjectId};

/// Complete subtrees from this many leaves on are rows: those of a page, and above.
pub(crate) const NODE_LEAVES_MIN: u64 = LEAVES_PER_PAGE as u64;
/// Nodes written in one commit when an older tree gets its rows.
const NODES_PER_COMMIT: usize = 4_096;

/// Which event is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventAsked {
    /// By its id.
    Id(CommitId),
    /// By its place.
    Index(u64),
}

/// A proof that an event is in a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inclusion {
    /// The event's place.
    pub index: u64,
    /// [`valv_ledger::Leaf::to_bytes`].
    pub leaf: Vec<u8>,
    /// The CBOR of its names, unless they were erased.
    pub names: Option<Vec<u8>>,
    /// The path from the leaf upwards.
    pub path: Vec<Hash>,
    /// The number of events of the tree that the path is of.
    pub size: u64,
    /// The newest head, signed. Of the same size, if no other was asked for.
    pub head: SignedHead,
}

/// A proof that a ledger goes on from an earlier state of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consistency {
    /// The path.
    pub path: Vec<Hash>,
    /// The newest head, signed.
    pub head: SignedHead,
}

/// Hashes of a tree's subtrees, from rows as far as there are any.
struct Nodes<'a> {
    core: &'a Core,
    snapshot: &'a dyn Snapshot,
    project: ProjectId,
    /// Leaf hashes of the page read last: neighbours in a path lie in the same one.
    page: Option<(u64, Vec<Hash>)>,
    /// Nodes that have no row yet.
    missing: Vec<(Subtree, Hash)>,
}

impl Nodes<'_> {
    fn hash(&mut self, node: Subtree) -> Result<Hash, MetadataError> {
        let is_complete = node.len().is_power_of_two() && node.start.is_multiple_of(node.len());
        let is_row = is_complete && node.len() >= NODE_LEAVES_MIN;
        if is_row {
            let row = self.snapshot.get(&self.core.node_key(self.project, node)).map_err(store_error)?;
            if let Some(row) = row {
                return Ok(records::decode::<NodeRecord>("node of a ledger", &row.value)?.hash);
            }
        }
        let hash = match node.split() {
            Some(middle) if node.len() > NODE_LEAVES_MIN => {
                let left = self.hash(Subtree { end: middle, ..node })?;
                tree::node_hash(&left, &self.hash(Subtree { start: middle, ..node })?)
            }
            _ => self.hash_in_page(node)?,
        };
        if is_row {
            self.missing.push((node, hash));
        }
        Ok(hash)
    }

    /// Nodes of at most a page's leaves lie in one page: the start of a node is a multiple of a power of two that is no
    /// smaller than its length.
    fn hash_in_page(&mut self, node: Subtree) -> Result<Hash, MetadataError> {
        let number = node.start / NODE_LEAVES_MIN;
        if self.page.as_ref().is_none_or(|(read, _)| *read != number) {
            self.page = Some((number, self.leaf_hashes(number)?));
        }
        let leaves = self.page.as_ref().map(|(_, leaves)| leaves.as_slice()).unwrap_or_default();
        let first = (node.start % NODE_LEAVES_MIN) as usize;
        let leaves = leaves.get(first..first + node.len() as usize).ok_or_else(|| corrupt("leaves of a ledger"))?;
        let mut frontier = Frontier::default();
        for leaf in leaves {
            frontier.push(*leaf);
        }
        Ok(frontier.root())
    }

    fn leaf_hashes(&self, page: u64) -> Result<Vec<Hash>, MetadataError> {
        let page = self.core.leaf_page(self.snapshot, self.project, page)?;
        let hash = |event| {
            let record = self.core.ledger_record(self.snapshot, self.project, event)?;
            Ok(tree::leaf_hash(&record.leaf(self.project, event).to_bytes()))
        };
        page.events().map(hash).collect()
    }

    fn hashes(&mut self, path: Vec<Subtree>) -> Result<Vec<Hash>, MetadataError> {
        path.into_iter().map(|node| self.hash(node)).collect()
    }
}

/// A tree that was asked about, in one snapshot.
struct Asked<T> {
    answer: T,
    tree: Frontier,
    missing: Vec<(Subtree, Hash)>,
}

impl MetadataService {
    /// The project of this name.
    pub async fn project_id(&self, name: &str) -> Result<ProjectId, MetadataError> {
        self.0.project_named(name).await
    }

    /// A signed head of a project's ledger, or of the cluster's. Everything that was committed before the call is in it.
    pub async fn ledger_head(&self, project: ProjectId) -> Result<SignedHead, MetadataError> {
        let core = &self.0;
        core.sequence_ledgers().await?;
        let row = core.get(&core.rows.ledger_tree(project)).await?;
        Ok(core.signed_head(project, &frontier_of(row.as_ref())?))
    }

    /// Proves that an event is in a ledger: in that of `size` events, or in the newest.
    ///
    /// # Errors
    /// [`MetadataError::NoSuchVersion`] if it is not; others as metadata answers.
    pub async fn prove_inclusion(
        &self,
        project: ProjectId,
        event: EventAsked,
        size: Option<u64>,
    ) -> Result<Inclusion, MetadataError> {
        self.0.inclusion_of(project, event, size).await
    }

    /// Proves that the newest ledger goes on from that of `old` events.
    ///
    /// # Errors
    /// [`MetadataError::Malformed`] if it has fewer events.
    pub async fn prove_consistency(&self, project: ProjectId, old: u64) -> Result<Consistency, MetadataError> {
        let core = &self.0;
        core.sequence_ledgers().await?;
        let asked = core.ask_tree(project, move |nodes, tree| match old {
            // Every ledger goes on from the empty one.
            0 => Ok(Vec::new()),
            old => {
                let path = tree::consistency(old, tree.size());
                nodes.hashes(path.ok_or_else(|| malformed("the ledger has fewer events than the earlier one"))?)
            }
        });
        let asked = asked.await?;
        Ok(Consistency { path: asked.answer, head: core.signed_head(project, &asked.tree) })
    }
}

impl Core {
    /// See [`MetadataService::prove_inclusion`].
    pub(crate) async fn inclusion_of(
        self: &Arc<Self>,
        project: ProjectId,
        event: EventAsked,
        size: Option<u64>,
    ) -> Result<Inclusion, MetadataError> {
        self.sequence_ledgers().await?;
        let asked = self
            .ask_tree(project, move |nodes, tree| {
                let Nodes { core, snapshot, .. } = *nodes;
                let size = size.unwrap_or(tree.size());
                if size > tree.size() {
                    return Err(malformed("the ledger has fewer events than that"));
                }
                let index = match event {
                    EventAsked::Index(index) => index,
                    EventAsked::Id(id) => core.index_of(snapshot, project, id)?.ok_or(MetadataError::NoSuchVersion)?,
                };
                let path = tree::inclusion(index, size).ok_or(MetadataError::NoSuchVersion)?;
                let path = nodes.hashes(path)?;
                let page = core.leaf_page(snapshot, project, index / NODE_LEAVES_MIN)?;
                let id = page.events().nth((index % NODE_LEAVES_MIN) as usize);
                let id = id.ok_or_else(|| corrupt("leaves of a ledger"))?;
                let record = core.ledger_record(snapshot, project, id)?;
                let leaf = record.leaf(project, id).to_bytes();
                // Nothing is handed out that does not hold: a record that was changed behind Valv's back proves nothing.
                let root = tree::root_of_inclusion(&tree::leaf_hash(&leaf), index, size, &path);
                if size == tree.size() && root != Some(tree.root()) {
                    return Err(corrupt("ledger: its records are not those that were sequenced"));
                }
                // A leaf of accesses has many names, which an export shows.
                let names = match record.entries {
                    None => core.names_of::<Names>(project, id, &record)?.map(|names| names.to_bytes()),
                    Some(_) => None,
                };
                Ok((index, leaf, names, path, size))
            })
            .await?;
        let (index, leaf, names, path, size) = asked.answer;
        Ok(Inclusion { index, leaf, names, path, size, head: self.signed_head(project, &asked.tree) })
    }

    /// Asks about a tree where blocking on disk stalls nobody, and writes the nodes that had no row.
    async fn ask_tree<T: Send + 'static>(
        self: &Arc<Self>,
        project: ProjectId,
        ask: impl FnOnce(&mut Nodes<'_>, &Frontier) -> Result<T, MetadataError> + Send + 'static,
    ) -> Result<Asked<T>, MetadataError> {
        let asked = self
            .scan(move |core, snapshot| {
                let row = snapshot.get(&core.rows.ledger_tree(project)).map_err(store_error)?;
                let tree = frontier_of(row.as_ref())?;
                let mut nodes = Nodes { core, snapshot, project, page: None, missing: Vec::new() };
                let answer = ask(&mut nodes, &tree)?;
                Ok(Asked { answer, tree, missing: nodes.missing })
            })
            .await?;
        for nodes in asked.missing.chunks(NODES_PER_COMMIT) {
            let mut attempt = Attempt::default();
            for (node, hash) in nodes {
                attempt.put(self.node_key(project, *node), records::encode(&NodeRecord { hash: *hash }));
            }
            // Whoever else writes a node writes the same.
            attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await?;
        }
        Ok(asked)
    }

    /// The row of a complete subtree: by its level (2^level leaves) and its number among those of its level.
    pub(crate) fn node_key(&self, project: ProjectId, node: Subtree) -> crate::store::Key {
        self.rows.ledger_node(project, node.len().trailing_zeros() as u8, node.start / node.len().max(1))
    }

    pub(crate) fn leaf_page(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        page: u64,
    ) -> Result<LeafPage, MetadataError> {
        let row = snapshot.get(&self.rows.ledger_leaves_page(project, page)).map_err(store_error)?;
        records::decode("leaves of a ledger", &row.ok_or_else(|| corrupt("leaves of a ledger"))?.value)
    }

    /// The place of an event in its tree.
    fn index_of(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        event: CommitId,
    ) -> Result<Option<u64>, MetadataError> {
        // Most ids that are asked for in vain are of no event at all.
        if snapshot.get(&self.rows.ledger(project, event)).map_err(store_error)?.is_none() {
            return Ok(None);
        }
        let range = self.rows.ledger_leaves(project);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut first = 0;
        while let Some((_, row)) = cursor.next().map_err(store_error)? {
            let page: LeafPage = records::decode("leaves of a ledger", &row.value)?;
            if let Some(found) = page.events().position(|id| id == event) {
                return Ok(Some(first + found as u64));
            }
            first += page.len() as u64;
        }
        Ok(None)
    }

    /// A head of this tree, signed now.
    pub(crate) fn signed_head(&self, project: ProjectId, tree: &Frontier) -> SignedHead {
        let head = Head { project, size: tree.size(), root: tree.root(), time: self.clock.now() };
        let key = self.signing_key();
        let signature = key.sign(head.signed_text().as_bytes());
        SignedHead::new(&head, &key.public_key(), &signature)
    }

    /// Adds the subtrees that a new leaf finished to the commit that appends it.
    pub(crate) fn put_nodes(&self, attempt: &mut Attempt, project: ProjectId, finished: Vec<(Subtree, Hash)>) {
        for (node, hash) in finished.into_iter().filter(|(node, _)| node.len() >= NODE_LEAVES_MIN) {
            attempt.put(self.node_key(project, node), records::encode(&NodeRecord { hash }));
        }
    }
}

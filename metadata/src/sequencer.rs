//! Sequencing: ledger records become leaves of their project's tree, and a tree is exported with a signed head.
//!
//! A record is durable before its effect is visible, wherever it lies; its place in the tree is decided here, later:
//! the maximum merge delay is an hour (`background.rs`) and the time that a backlog takes, at some ten thousand records a
//! second; an export brings everything that is pending into the tree first. Whoever holds the background lease does it, and two at once do no harm: a commit
//! that appends to a tree expects the tree of the snapshot in which its records were pending.

use crate::attempt::{self, Attempt, store_error};
use crate::records::{self, LEAVES_PER_PAGE, LeafPage, LedgerRecord, TreeRecord};
use crate::rows::{Tag, pending_parts};
use crate::seal::Place;
use crate::service::{Core, MetadataService, corrupt};
use crate::store::{Key, Snapshot, Versioned};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use valv_codec::SigningKey;
use valv_ledger::{AccessNames, Accesses, Frontier, Leaf, Names, export, tree};
use valv_metadata_api::MetadataError;
use valv_types::{CommitId, ProjectId};

/// Records that one pass reads at once, and so at most the leaves of one commit: a write each, pages and tree, well below
/// [`crate::store::COMMIT_KEYS_MAX`].
const BATCH: usize = 4_096;

/// Why a ledger's export ended early.
#[derive(Debug, thiserror::Error)]
pub enum LedgerExportError {
    /// Metadata could not be read, or contradicts itself.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The lines could not be written.
    #[error("writing the export: {0}")]
    Io(#[from] io::Error),
}

/// A project's tree, and the leaves of its pending records in the order in which they enter it: both of one snapshot, so that a tree
/// that has not changed since has none of the records.
#[derive(Default)]
struct Pending {
    tree: Option<Versioned>,
    /// The page that the next leaf goes to, as far as it is filled.
    page: LeafPage,
    leaves: Vec<Leaf>,
}

impl MetadataService {
    /// Brings every pending ledger record into its tree. Returns how many. The background pass does this too.
    pub async fn sequence_ledgers(&self) -> Result<usize, MetadataError> {
        self.0.sequence_ledgers().await
    }

    /// The public key that heads of ledgers verify with.
    pub fn signing_public_key(&self) -> [u8; valv_codec::PUBLIC_KEY_LEN_BYTES] {
        self.0.signing_key().public_key()
    }

    /// Writes the ledger of the project of this name: JSON Lines that [`valv_ledger::verify`] checks. Everything that was
    /// committed before the call is in it. Runs on the caller's thread between waits, as [`Self::export_all`] does.
    /// Returns the number of events.
    pub async fn export_ledger(&self, project: &str, out: &mut (dyn Write + Send)) -> Result<u64, LedgerExportError> {
        let project = self.0.project_named(project).await?;
        self.0.export_ledger_of(project, out).await
    }

    /// The same for the cluster's own ledger: custodians and disks, and what else belongs to no project.
    pub async fn export_cluster_ledger(&self, out: &mut (dyn Write + Send)) -> Result<u64, LedgerExportError> {
        self.0.export_ledger_of(ProjectId::CLUSTER, out).await
    }
}

impl Core {
    async fn export_ledger_of(
        self: &Arc<Self>,
        project: ProjectId,
        out: &mut (dyn Write + Send),
    ) -> Result<u64, LedgerExportError> {
        self.sequence_ledgers().await?;
        let snapshot = self.snapshot().await?;
        self.write_ledger(snapshot.as_ref(), project, out)
    }

    pub(crate) fn signing_key(&self) -> SigningKey {
        self.seals.keys().system().signing_key()
    }

    pub(crate) async fn sequence_ledgers(self: &Arc<Self>) -> Result<usize, MetadataError> {
        let mut sequenced = 0;
        loop {
            let batch = self.scan(|core, snapshot| core.pending_records(snapshot)).await?;
            let found: usize = batch.values().map(|pending| pending.leaves.len()).sum();
            for (project, pending) in batch {
                // A conflict means that somebody else has appended to this tree; the next pass sees what is left.
                sequenced += self.append_to_tree(project, pending).await?;
            }
            if found < BATCH {
                return Ok(sequenced);
            }
        }
    }

    fn pending_records(&self, snapshot: &dyn Snapshot) -> Result<BTreeMap<ProjectId, Pending>, MetadataError> {
        let range = self.rows.range(Tag::LedgerPending, &[]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut batch: BTreeMap<ProjectId, Pending> = BTreeMap::new();
        for _ in 0..BATCH {
            let Some((key, _)) = cursor.next().map_err(store_error)? else { break };
            let (project, event) = pending_parts(&key).ok_or_else(|| corrupt("pending ledger record"))?;
            let record = self.ledger_record(snapshot, project, event)?;
            // Only the leaf is kept: a record of accesses may be a hundred times as long.
            batch.entry(project).or_default().leaves.push(record.leaf(project, event));
        }
        for (project, pending) in &mut batch {
            pending.tree = snapshot.get(&self.rows.ledger_tree(*project)).map_err(store_error)?;
            pending.page = self.last_page(snapshot, *project, pending.tree.as_ref())?;
            pending.leaves.sort_by_key(|leaf| (leaf.time, *leaf.event.as_bytes()));
        }
        Ok(batch)
    }

    pub(crate) fn ledger_record(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        event: CommitId,
    ) -> Result<LedgerRecord, MetadataError> {
        let row = snapshot.get(&self.rows.ledger(project, event)).map_err(store_error)?;
        records::decode("ledger record", &row.ok_or_else(|| corrupt("ledger record is missing"))?.value)
    }

    /// The page that holds leaf `index`.
    fn page_key(&self, project: ProjectId, index: u64) -> Key {
        self.rows.ledger_leaves_page(project, index / LEAVES_PER_PAGE as u64)
    }

    /// The page that the next leaf of a tree goes to.
    fn last_page(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        tree: Option<&Versioned>,
    ) -> Result<LeafPage, MetadataError> {
        let size = frontier_of(tree)?.size();
        let filled = (size % LEAVES_PER_PAGE as u64) as usize;
        if filled == 0 {
            return Ok(LeafPage::default());
        }
        let row = snapshot.get(&self.page_key(project, size)).map_err(store_error)?;
        let row = row.ok_or_else(|| corrupt("leaves of a ledger"))?;
        let page: LeafPage = records::decode("leaves of a ledger", &row.value)?;
        if page.len() == filled { Ok(page) } else { Err(corrupt("leaves of a ledger")) }
    }

    async fn append_to_tree(&self, project: ProjectId, pending: Pending) -> Result<usize, MetadataError> {
        let tree_key = self.rows.ledger_tree(project);
        let Pending { tree, mut page, leaves } = pending;
        let mut frontier = frontier_of(tree.as_ref())?;
        let mut attempt = Attempt::default();
        attempt.expect(tree_key.clone(), tree.as_ref());
        for leaf in &leaves {
            attempt.remove(self.rows.ledger_pending(project, leaf.event));
            page.push(leaf.event);
            if page.len() == LEAVES_PER_PAGE {
                attempt.put(self.page_key(project, frontier.size()), records::encode(&std::mem::take(&mut page)));
            }
            let finished = frontier.push(tree::leaf_hash(&leaf.to_bytes()));
            self.put_nodes(&mut attempt, project, finished);
        }
        if page.len() > 0 {
            attempt.put(self.page_key(project, frontier.size()), records::encode(&page));
        }
        attempt.put(tree_key, records::encode(&TreeRecord::of(&frontier)));
        let is_done = attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await?;
        Ok(if is_done { leaves.len() } else { 0 })
    }

    fn write_ledger(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        out: &mut (dyn Write + Send),
    ) -> Result<u64, LedgerExportError> {
        let row = snapshot.get(&self.rows.ledger_tree(project)).map_err(store_error)?;
        let tree = frontier_of(row.as_ref())?;
        let mut seen = Frontier::default();
        out.write_all(export::first_line(project).as_bytes())?;
        let range = self.rows.ledger_leaves(project);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while let Some((_, row)) = cursor.next().map_err(store_error)? {
            let page: LeafPage = records::decode("leaves of a ledger", &row.value)?;
            for event in page.events() {
                let record = self.ledger_record(snapshot, project, event)?;
                let leaf = record.leaf(project, event);
                let line = match &record.entries {
                    None => {
                        let names = self.names_of::<Names>(project, event, &record)?;
                        export::event_line(seen.size(), &leaf, names.as_ref())
                    }
                    Some(entries) => {
                        let accesses = Accesses::from_bytes(entries).ok_or_else(|| corrupt("ledger: accesses"))?;
                        let names = self.names_of::<AccessNames>(project, event, &record)?;
                        export::accesses_line(seen.size(), &leaf, accesses, names.as_ref())
                    }
                };
                out.write_all(line.as_bytes())?;
                seen.push(tree::leaf_hash(&leaf.to_bytes()));
            }
        }
        if seen != tree {
            // Nothing is signed that does not hold.
            return Err(corrupt("ledger: its records are not those that were sequenced").into());
        }
        out.write_all(export::last_line(self.signed_head(project, &tree)).as_bytes())?;
        out.flush()?;
        Ok(tree.size())
    }

    /// The names of an event; `None` once the key that sealed them is gone.
    pub(crate) fn names_of<T: for<'b> minicbor::Decode<'b, ()>>(
        &self,
        project: ProjectId,
        event: CommitId,
        record: &LedgerRecord,
    ) -> Result<Option<T>, MetadataError> {
        if record.sealed.is_empty() {
            return Ok(None);
        }
        match self.seals.open(Place::Ledger(project, event), record.key_version, &record.sealed) {
            Ok(names) => Ok(Some(names)),
            Err(MetadataError::KeyUnavailable | MetadataError::KeyDestroyed) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

pub(crate) fn frontier_of(row: Option<&Versioned>) -> Result<Frontier, MetadataError> {
    match row {
        None => Ok(Frontier::default()),
        Some(row) => {
            let tree: TreeRecord = records::decode("tree of a ledger", &row.value)?;
            tree.frontier().ok_or_else(|| corrupt("tree of a ledger"))
        }
    }
}

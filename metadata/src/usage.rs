//! Usage of projects: months are rows that follow from the ledger's leaves, in order, each leaf once.
//!
//! Whoever counts takes the leaves from where the last one stopped, and commits the changed months together with the new
//! place: so the rows always say exactly what a beginning of the ledger says. The holder of the background lease counts
//! when it has sequenced; a question counts what is left first. A ledger that is older than the rows is counted from its
//! first leaf.

use crate::attempt::{self, ATTEMPTS_MAX, Attempt, store_error};
use crate::proofs::NODE_LEAVES_MIN;
use crate::records::{self, UsageCountedRecord};
use crate::rows::{Tag, last_id};
use crate::sequencer::frontier_of;
use crate::service::{Core, MetadataService, corrupt};
use crate::store::Snapshot;
use std::collections::BTreeMap;
use std::sync::Arc;
use valv_ledger::Accesses;
use valv_ledger::usage::{Held, Month, MonthSums, Usage};
use valv_metadata_api::MetadataError;
use valv_types::{CommitId, ProjectId};

/// Leaves counted in one commit: their records are some MiB, read in a fraction of a second.
const LEAVES_PER_COMMIT: u64 = 4_096;

/// A project's usage in one month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectUsage {
    /// The project.
    pub project: ProjectId,
    /// Its name.
    pub name: String,
    /// Events of its ledger that were counted, of all months.
    pub ledger_size: u64,
    /// What follows from them.
    pub usage: Usage,
}

/// One commit's worth of counting.
enum Step {
    Done,
    More(Attempt),
}

impl MetadataService {
    /// Usage of the project of this name in a month; of all projects if there is no name. Everything that was committed
    /// before the call is in it.
    pub async fn usage(&self, project: Option<&str>, month: Month) -> Result<Vec<ProjectUsage>, MetadataError> {
        let core = &self.0;
        let projects = match project {
            Some(name) => vec![core.project_named(name).await?],
            None => core.project_ids().await?,
        };
        core.sequence_ledgers().await?;
        let mut found = Vec::with_capacity(projects.len());
        for project in projects {
            core.count_usage(project).await?;
            found.push(core.usage_of(project, month).await?);
        }
        Ok(found)
    }
}

impl MetadataService {
    /// How many records of repairs a project's ledger has, and the bytes of the blobs that they tell of. Everything that
    /// was committed before the call is in it.
    pub async fn repairs_of(&self, project: ProjectId) -> Result<(u64, u128), MetadataError> {
        let core = &self.0;
        core.sequence_ledgers().await?;
        core.count_usage(project).await?;
        core.scan(move |core, snapshot| {
            let range = core.rows.usage_months(project);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            let (mut records, mut bytes) = (0, 0);
            while let Some((_, row)) = cursor.next().map_err(store_error)? {
                let sums: MonthSums = records::decode("usage", &row.value)?;
                records += sums.repairs;
                bytes += sums.repaired_bytes.get();
            }
            Ok((records, bytes))
        })
        .await
    }
}

impl Core {
    /// Every project.
    pub(crate) async fn project_ids(self: &Arc<Self>) -> Result<Vec<ProjectId>, MetadataError> {
        self.scan(|core, snapshot| {
            let range = core.rows.range(Tag::Project, &[]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            let mut projects = Vec::new();
            while let Some((key, _)) = cursor.next().map_err(store_error)? {
                projects.push(ProjectId::from_bytes(last_id(&key).ok_or_else(|| corrupt("project"))?));
            }
            Ok(projects)
        })
        .await
    }

    /// Counts all projects' leaves: after sequencing, in the background.
    pub(crate) async fn count_all_usage(self: &Arc<Self>) -> Result<(), MetadataError> {
        for project in self.project_ids().await? {
            self.count_usage(project).await?;
        }
        Ok(())
    }

    /// Counts the leaves that are not counted yet.
    pub(crate) async fn count_usage(self: &Arc<Self>, project: ProjectId) -> Result<(), MetadataError> {
        let mut conflicts = 0;
        while conflicts < ATTEMPTS_MAX {
            match self.scan(move |core, snapshot| core.plan_count(snapshot, project)).await? {
                Step::Done => return Ok(()),
                Step::More(attempt) => {
                    // A conflict means that somebody else has counted these leaves.
                    let is_done = attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await?;
                    conflicts = if is_done { 0 } else { conflicts + 1 };
                }
            }
        }
        Err(MetadataError::Conflict)
    }

    fn plan_count(&self, snapshot: &dyn Snapshot, project: ProjectId) -> Result<Step, MetadataError> {
        let tree = snapshot.get(&self.rows.ledger_tree(project)).map_err(store_error)?;
        let size = frontier_of(tree.as_ref())?.size();
        let counted_key = self.rows.usage_counted(project);
        let counted_row = snapshot.get(&counted_key).map_err(store_error)?;
        let counted = match &counted_row {
            None => 0,
            Some(row) => records::decode::<UsageCountedRecord>("counted leaves", &row.value)?.leaves,
        };
        if counted >= size {
            return Ok(Step::Done);
        }
        let end = size.min(counted + LEAVES_PER_COMMIT);
        let mut months: BTreeMap<Month, MonthSums> = BTreeMap::new();
        for page_number in counted / NODE_LEAVES_MIN..end.div_ceil(NODE_LEAVES_MIN) {
            let page = self.leaf_page(snapshot, project, page_number)?;
            for (index, event) in (page_number * NODE_LEAVES_MIN..).zip(page.events()) {
                if index < counted || index >= end {
                    continue;
                }
                let record = self.ledger_record(snapshot, project, event)?;
                let leaf = record.leaf(project, event);
                let month = Month::of(leaf.time);
                let sums = months.entry(month).or_default();
                sums.add(month.start(), &leaf);
                if let Some(entries) = &record.entries {
                    sums.add_accesses(&Accesses::from_bytes(entries).ok_or_else(|| corrupt("ledger: accesses"))?);
                }
            }
        }
        let mut attempt = Attempt::default();
        // All months change together with this row only, so it guards them.
        attempt.expect(counted_key.clone(), counted_row.as_ref());
        attempt.put(counted_key, records::encode(&UsageCountedRecord { leaves: end }));
        for (month, more) in months {
            let key = self.rows.usage(project, month.number());
            let mut sums = match snapshot.get(&key).map_err(store_error)? {
                None => MonthSums::default(),
                Some(row) => records::decode("usage", &row.value)?,
            };
            sums.merge(&more);
            attempt.put(key, records::encode(&sums));
        }
        Ok(Step::More(attempt))
    }

    async fn usage_of(self: &Arc<Self>, project: ProjectId, month: Month) -> Result<ProjectUsage, MetadataError> {
        let name = self.name_of_project(project).await?;
        // After counting: no event that was counted is later, but for clocks that differ.
        let now = self.now();
        let (ledger_size, usage) = self
            .scan(move |core, snapshot| {
                let counted = snapshot.get(&core.rows.usage_counted(project)).map_err(store_error)?;
                let counted = match counted {
                    None => 0,
                    Some(row) => records::decode::<UsageCountedRecord>("counted leaves", &row.value)?.leaves,
                };
                let range = core.rows.usage_months(project);
                let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                let mut held = Held::default();
                let mut own = MonthSums::default();
                while let Some((key, row)) = cursor.next().map_err(store_error)? {
                    let number = key.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
                    let found = Month::from_number(number.ok_or_else(|| corrupt("usage"))?);
                    if found > month {
                        break;
                    }
                    let sums: MonthSums = records::decode("usage", &row.value)?;
                    if found == month {
                        own = sums;
                    } else {
                        held = held.after(&sums);
                    }
                }
                Ok((counted, Usage::new(month, held, own, now)))
            })
            .await?;
        Ok(ProjectUsage { project, name, ledger_size, usage })
    }
}

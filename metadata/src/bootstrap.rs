//! The first start of a cluster: its row, and its first pool with placement groups over the disks that there are.

use crate::attempt::{self, ATTEMPTS_MAX, Attempt, Plan, Settled, settle};
use crate::principals::FIRST_POOL;
use crate::records::{self, ClusterRecord};
use crate::rows::Tag;
use crate::service::{Core, MetadataService};
use std::collections::BTreeSet;
use valv_metadata_api::{ClusterMap, Empty, MetadataError};
use valv_types::{
    CellId, ClusterId, CommitId, DiskId, Epoch, Layout, LayoutError, PlacementGroup, PoolMap, ProjectId,
    TimestampMicros,
};

/// Most placement groups of a pool: a pool map of 4,096 groups of 20 disks is about 1.4 MB, so this stays below the
/// store's largest value with profiles up to 12+3.
const GROUPS_MAX: u32 = 2048;

/// What the first start makes.
#[derive(Debug, Clone)]
pub struct BootstrapConfig {
    /// The cluster's id, as the disks carry it.
    pub cluster: ClusterId,
    /// The cell; must be the service's.
    pub cell: CellId,
    /// The disks of the first pool.
    pub disks: Vec<DiskId>,
    /// Data shards.
    pub k: u8,
    /// Parity shards.
    pub m: u8,
    /// Placement groups: a power of two.
    pub pg_count: u32,
}

/// Why a cluster could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A placement group needs k+m different disks.
    #[error("an erasure profile of {need} shards needs {need} disks, and there are {have}")]
    NotEnoughDisks {
        /// Different disks given.
        have: usize,
        /// Disks needed.
        need: usize,
    },
    /// The number of placement groups can't be used.
    #[error("the number of placement groups must be a power of two up to {GROUPS_MAX}, not {given}")]
    Groups {
        /// The number given.
        given: u32,
    },
    /// The erasure profile can't be used.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The store belongs to another cluster or cell.
    #[error("this metadata belongs to cluster {found}, not {given}")]
    OtherCluster {
        /// The cluster in the store.
        found: ClusterId,
        /// The cluster given.
        given: ClusterId,
    },
    /// The service was opened for another cell.
    #[error("this metadata service is of cell {}, not {}", found.0, given.0)]
    OtherCell {
        /// The service's cell.
        found: CellId,
        /// The cell given.
        given: CellId,
    },
    /// Metadata did not answer.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

/// The placement groups of a new pool: each an ordering of k+m disks. Deterministic in its arguments. Disks that are in
/// fewer groups come first, and a hash of group and disk orders the rest, so that every disk holds as much as the others
/// and, by the order within the group, as much parity.
pub(crate) fn place_groups(cluster: ClusterId, disks: &[DiskId], slots: usize, count: u32) -> Vec<PlacementGroup> {
    let disks: BTreeSet<DiskId> = disks.iter().copied().collect();
    let mut used: Vec<(DiskId, u32)> = disks.into_iter().map(|disk| (disk, 0)).collect();
    (0..count)
        .map(|group| {
            let rank = |disk: DiskId| {
                let mut hasher = blake3::Hasher::new();
                hasher.update(cluster.as_bytes()).update(&group.to_be_bytes()).update(disk.as_bytes());
                *hasher.finalize().as_bytes()
            };
            used.sort_by_key(|&(disk, groups)| (groups, rank(disk)));
            let mut chosen: Vec<DiskId> = used.iter().take(slots).map(|&(disk, _)| disk).collect();
            used.iter_mut().take(slots).for_each(|(_, groups)| *groups += 1);
            chosen.sort_by_key(|&disk| rank(disk));
            PlacementGroup { epoch: Epoch(1), disks: chosen }
        })
        .collect()
}

impl MetadataService {
    /// Makes the cluster and its first pool, unless they are there: then it only checks that they are this cluster's.
    /// Durable when it returns; may be repeated, and called by several services at once.
    pub async fn bootstrap(&self, config: BootstrapConfig) -> Result<ClusterMap, BootstrapError> {
        self.0.bootstrap(config).await
    }

    /// Makes sure of the key that seals the cluster's own records ([`ProjectId::CLUSTER`]), which a cluster that an older
    /// Valv made has not got yet.
    pub async fn ensure_cluster_key(&self) -> Result<(), MetadataError> {
        self.0.new_project_key(ProjectId::CLUSTER).await
    }
}

impl Core {
    async fn bootstrap(&self, config: BootstrapConfig) -> Result<ClusterMap, BootstrapError> {
        if config.cell != self.config.cell {
            return Err(BootstrapError::OtherCell { found: self.config.cell, given: config.cell });
        }
        let layout = Layout::current(FIRST_POOL, config.k, config.m)?;
        if !config.pg_count.is_power_of_two() || config.pg_count > GROUPS_MAX {
            return Err(BootstrapError::Groups { given: config.pg_count });
        }
        let commit = CommitId::random();
        for number in 0..ATTEMPTS_MAX {
            let row = self.get(&self.rows.cluster()).await?;
            let plan = match row {
                Some(row) => {
                    let cluster: ClusterRecord = records::decode("cluster", &row.value)?;
                    if cluster.cluster != config.cluster {
                        return Err(BootstrapError::OtherCluster { found: cluster.cluster, given: config.cluster });
                    }
                    self.adopt_cluster(&cluster)?;
                    Plan::Nothing(())
                }
                None => self.plan_cluster(&config, layout)?,
            };
            // After the commit the loop reads the row that won, be it ours or another service's.
            let made = matches!(plan, Plan::Commit(..));
            let settled = settle(self.store.as_ref(), commit, number, Ok(plan)).await?;
            if matches!(settled, Settled::Done(())) && !made {
                self.new_project_key(ProjectId::CLUSTER).await?;
                return Ok(self.read_cluster_map(Empty {}).await?);
            }
        }
        Err(MetadataError::Conflict.into())
    }

    fn plan_cluster(&self, config: &BootstrapConfig, layout: Layout) -> Result<Plan<()>, BootstrapError> {
        let have = config.disks.iter().collect::<BTreeSet<_>>().len();
        let need = usize::from(layout.slots());
        if have < need {
            return Err(BootstrapError::NotEnoughDisks { have, need });
        }
        let mut name_key = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(name_key.as_mut_slice())
            .map_err(|_| MetadataError::Unavailable { what: "no randomness available".to_owned() })?;
        let cluster = ClusterRecord {
            cluster: config.cluster,
            created: TimestampMicros::now(),
            sealed_name_key: self.seals.seal_name_key(config.cluster.as_bytes(), name_key.as_slice())?,
        };
        let groups = place_groups(config.cluster, &config.disks, need, config.pg_count);
        let mut attempt = Attempt::default();
        attempt.expect_absent(self.rows.cluster());
        attempt.put(self.rows.cluster(), records::encode(&cluster));
        attempt.put(self.rows.pool(FIRST_POOL), records::encode(&PoolMap { layout, groups }));
        Ok(Plan::Commit(attempt, ()))
    }

    pub(crate) async fn read_cluster_map(&self, _: Empty) -> Result<ClusterMap, MetadataError> {
        let snapshot = self.snapshot().await?;
        let row = snapshot.get(&self.rows.cluster()).map_err(attempt::store_error)?;
        let row =
            row.ok_or_else(|| MetadataError::Unavailable { what: "this store holds no cluster yet".to_owned() })?;
        let cluster: ClusterRecord = records::decode("cluster", &row.value)?;
        let range = self.rows.range(Tag::Pool, &[]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(attempt::store_error)?;
        let mut pools = Vec::new();
        while let Some((_, row)) = cursor.next().map_err(attempt::store_error)? {
            pools.push(records::decode("pool", &row.value)?);
        }
        Ok(ClusterMap { cluster: cluster.cluster, cell: self.config.cell, pools })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn groups_use_every_disk_equally_and_spread_parity() {
        let cluster = ClusterId::from_bytes([7; 16]);
        let disks: Vec<_> = (0..9u8).map(|i| DiskId::from_bytes([i; 16])).collect();
        let groups = place_groups(cluster, &disks, 6, 48);
        let mut uses: BTreeMap<DiskId, usize> = BTreeMap::new();
        let mut first: BTreeSet<DiskId> = BTreeSet::new();
        for group in &groups {
            assert_eq!(group.disks.iter().collect::<BTreeSet<_>>().len(), 6);
            group.disks.iter().for_each(|disk| *uses.entry(*disk).or_default() += 1);
            first.insert(group.disks[0]);
        }
        assert!(uses.values().all(|&n| n == 32), "{uses:?}");
        assert_eq!(first.len(), 9, "every disk leads some group");
        assert_eq!(groups, place_groups(cluster, &disks, 6, 48), "deterministic");
    }
}

//! The scan that feeds the horizon: every version that has to be kept, chunk by chunk, with the disks that it lies on.
//!
//! One snapshot for the whole scan, so a report is of one moment; memory is what `valv-horizon` needs, whatever the number of
//! versions. A version counts with its own length: copies that share their bytes count each, as they do in usage.
//!
//! Inline bodies lie in the metadata, whose mirror is on m+1 disks at a time and moves on when one of them fails. Which, is
//! not written down anywhere; so they count as lying on those m+1 that are guaranteed for the shortest time, which is the
//! safe side.

use crate::attempt::store_error;
use crate::records::{
    BucketRecord, FLAG_DELETE_MARKER, FLAG_LEGAL_HOLD, HeadRecord, NoncurrentRecord, PageRecord, VersionRecord, decode,
};
use crate::rows::{Tag, bucket_of_row, split_object_row};
use crate::service::{Core, MetadataService, corrupt};
use crate::store::Snapshot;
use minicbor::Decode;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use valv_horizon::{FOREVER, Guarantees, Horizon, Piece, Report, Window};
use valv_metadata_api::*;
use valv_types::{
    BucketId, ChunkId, DiskId, FRAME_TAG_BYTES, PoolId, PoolMap, ProjectId, TimestampMicros, placement_hash,
};

/// Rows between two words on how far a scan is: some tenths of a second.
const ROWS_PER_WORD: u64 = 50_000;

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HorizonProgress {
    /// Versions looked at.
    pub versions: u64,
    /// Of these, those that have to be kept.
    pub kept: u64,
}

/// A horizon, as of one moment.
#[derive(Debug, Clone)]
pub struct FoundHorizon {
    /// The time that was looked at.
    pub window: Window,
    /// What was found.
    pub report: Report,
    /// The names of the projects in it.
    pub names: BTreeMap<ProjectId, String>,
    /// What is known of every disk.
    pub disks: Vec<DiskCustody>,
    /// How much was looked at.
    pub scanned: HorizonProgress,
}

/// As much of a version's row as says whether it has to be kept.
#[derive(Decode)]
struct Kept {
    #[n(2)]
    flags: u8,
    #[n(6)]
    retention: Option<Retention>,
}

/// The same of a head or noncurrent row.
#[derive(Decode)]
struct KeptRow {
    #[n(0)]
    version: Kept,
}

impl Kept {
    /// Until when it has to be kept.
    fn until(&self) -> Option<TimestampMicros> {
        if self.flags & FLAG_LEGAL_HOLD != 0 {
            return Some(FOREVER);
        }
        self.retention.map(|retention| retention.until)
    }

    fn is_delete_marker(&self) -> bool {
        self.flags & FLAG_DELETE_MARKER != 0
    }
}

/// Where pieces lie.
struct Places {
    pools: HashMap<PoolId, PoolMap>,
    /// Every disk of a pool, that whose guarantee ends first in front.
    by_end: Vec<DiskId>,
}

/// A scan under way.
struct Scan<'a> {
    core: &'a Core,
    snapshot: &'a dyn Snapshot,
    places: Places,
    horizon: Horizon,
    /// Chosen for each chunk anew; kept for its allocation.
    disks: Vec<DiskId>,
    progress: HorizonProgress,
}

impl MetadataService {
    /// What has to be kept for longer than its hardware is guaranteed, as it will be by `by` (now, if that is `None`), in one
    /// project or in all. `progress` hears how far the scan is every now and then and may end it: then there is no answer.
    pub async fn horizon(
        &self,
        project: Option<ProjectId>,
        by: Option<TimestampMicros>,
        progress: impl FnMut(HorizonProgress) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Option<FoundHorizon>, MetadataError> {
        self.0.find_horizon(project, by, progress).await
    }
}

impl Core {
    pub(super) async fn find_horizon(
        self: &Arc<Self>,
        project: Option<ProjectId>,
        by: Option<TimestampMicros>,
        mut progress: impl FnMut(HorizonProgress) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Option<FoundHorizon>, MetadataError> {
        // Retention ends by cluster time, which may lag; guarantees end by the calendar.
        let now = self.clock.now();
        let window = Window { now, by: by.unwrap_or_else(|| now.max(self.now())) };
        self.scan(move |core, snapshot| {
            let disks = core.custody_in(snapshot)?.all_disks();
            let guarantees: Guarantees =
                disks.iter().filter_map(|disk| Some((disk.disk, disk.guaranteed_until?))).collect();
            let mut scan = Scan {
                core,
                snapshot,
                places: core.places(snapshot, &guarantees)?,
                horizon: Horizon::new(window, guarantees),
                disks: Vec::new(),
                progress: HorizonProgress::default(),
            };
            for tag in [Tag::Head, Tag::Noncurrent] {
                if scan.rows(tag, project, &mut progress)?.is_break() {
                    return Ok(None);
                }
            }
            let (scanned, report) = (scan.progress, scan.horizon.finish());
            let mut names = BTreeMap::new();
            for project in report.projects.keys() {
                names.insert(*project, core.project_name(snapshot, *project)?.0);
            }
            Ok(Some(FoundHorizon { window, report, names, disks, scanned }))
        })
        .await
    }

    fn places(&self, snapshot: &dyn Snapshot, guarantees: &Guarantees) -> Result<Places, MetadataError> {
        let pools = self.pools_in(snapshot)?;
        let groups = pools.iter().flat_map(|pool| &pool.groups);
        let disks: BTreeSet<DiskId> = groups.flat_map(|group| group.disks.iter().copied()).collect();
        let mut by_end: Vec<DiskId> = disks.into_iter().collect();
        by_end.sort_by_key(|disk| (guarantees.end(*disk), *disk));
        Ok(Places { pools: pools.into_iter().map(|pool| (pool.layout.pool, pool)).collect(), by_end })
    }
}

impl Scan<'_> {
    fn rows(
        &mut self,
        tag: Tag,
        only: Option<ProjectId>,
        progress: &mut impl FnMut(HorizonProgress) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, MetadataError> {
        let range = self.core.rows.range(tag, &[]);
        let mut cursor = self.snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        // Rows of a bucket stand together: one is remembered.
        let mut bucket: Option<(BucketId, BucketRecord)> = None;
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            let id = bucket_of_row(&key).ok_or_else(|| corrupt("object row"))?;
            if bucket.as_ref().is_none_or(|(known, _)| *known != id) {
                bucket = Some((id, self.bucket(id)?));
            }
            let Some((_, record)) = &bucket else { continue };
            let project = record.project;
            if only.is_some_and(|only| only != project) {
                let after = self.core.rows.range(tag, &[id.as_bytes()]).end;
                cursor.seek(&after).map_err(store_error)?;
                continue;
            }
            self.progress.versions += 1;
            let kept: KeptRow = decode("version", &row.value)?;
            let mut until = kept.version.until();
            // Holds on a project, a bucket or a prefix; what is no version's data can't be kept.
            if record.has_holds() && !kept.version.is_delete_marker() {
                let (object_key, _) = split_object_row(&key).ok_or_else(|| corrupt("object row"))?;
                if record.is_held(&object_key) {
                    until = Some(FOREVER);
                }
            }
            if let Some(until) = until {
                let version = match tag {
                    Tag::Head => decode::<HeadRecord>("head", &row.value)?.version,
                    _ => decode::<NoncurrentRecord>("noncurrent version", &row.value)?.version,
                };
                self.progress.kept += 1;
                self.version(project, until, &version)?;
            }
            if self.progress.versions.is_multiple_of(ROWS_PER_WORD) && progress(self.progress).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(progress(self.progress))
    }

    fn bucket(&self, bucket: BucketId) -> Result<BucketRecord, MetadataError> {
        let row = self.snapshot.get(&self.core.rows.bucket(bucket)).map_err(store_error)?;
        decode("bucket", &row.ok_or_else(|| corrupt("bucket"))?.value)
    }

    fn version(
        &mut self,
        project: ProjectId,
        until: TimestampMicros,
        version: &VersionRecord,
    ) -> Result<(), MetadataError> {
        match &version.body {
            Body::Empty => Ok(()),
            Body::Blob(blob) => self.blob(project, until, blob),
            Body::Parts(index) => {
                for page in 0..index.page_offsets.len() as u32 {
                    let key = self.core.rows.part_page(index.pages_of, page);
                    let row = self.snapshot.get(&key).map_err(store_error)?.ok_or_else(|| corrupt("page"))?;
                    let page: PageRecord = decode("page", &row.value)?;
                    page.parts.iter().try_for_each(|part| self.blob(project, until, &part.blob))?;
                }
                Ok(())
            }
        }
    }

    fn blob(&mut self, project: ProjectId, until: TimestampMicros, blob: &BlobRecord) -> Result<(), MetadataError> {
        let layout = &blob.layout;
        if blob.len_bytes == 0 {
            return Ok(());
        }
        if blob.place == BlobPlace::Inline {
            let copies = (usize::from(layout.m) + 1).min(self.places.by_end.len());
            self.horizon.add(Piece {
                project,
                keep_until: until,
                plain_bytes: blob.len_bytes,
                disks: &self.places.by_end[..copies],
                shard_bytes: blob.len_bytes + u64::from(FRAME_TAG_BYTES),
                losses_max: usize::from(layout.m),
            });
            return Ok(());
        }
        layout.check().map_err(|_| corrupt("layout of a blob"))?;
        let pool = self.places.pools.get(&layout.pool).ok_or_else(|| corrupt("pool of a blob"))?;
        for chunk in layout.chunks(blob.len_bytes) {
            let hash = placement_hash(ChunkId { blob: blob.blob, index: chunk.index });
            self.disks.clear();
            for shard in 0..chunk.coding.shards() {
                self.disks.push(pool.disk(hash, shard).ok_or_else(|| corrupt("placement of a blob"))?);
            }
            self.horizon.add(Piece {
                project,
                keep_until: until,
                plain_bytes: u64::from(chunk.plain_len_bytes),
                disks: &self.disks,
                shard_bytes: u64::from(chunk.shard_len_bytes),
                losses_max: usize::from(chunk.coding.m),
            });
        }
        Ok(())
    }
}

impl super::Custody {
    /// Every disk that a pool uses or that something was said of.
    pub(super) fn all_disks(&self) -> Vec<DiskCustody> {
        let disks: BTreeSet<DiskId> = self.disks.keys().chain(&self.in_pools).copied().collect();
        disks.into_iter().map(|disk| self.disk_view(disk)).collect()
    }
}

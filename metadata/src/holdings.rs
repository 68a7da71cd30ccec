//! What a project holds, version by version, with the blobs that it lies in: what a fixity report goes through.

use crate::attempt::store_error;
use crate::records::{self, HeadRecord, NoncurrentRecord, PageRecord, VersionRecord};
use crate::rows::Tag;
use crate::service::{Core, MetadataService, corrupt};
use crate::store::Snapshot;
use valv_metadata_api::{BlobPlace, BlobRecord, Body, LiveBlob, MetadataError};
use valv_types::{BucketId, ProjectId, TimestampMicros};

/// Versions in a page ...
const VERSIONS_PER_PAGE: usize = 1_000;
/// ... which ends after the version that reaches this many blobs: with the 10,000 of the largest, about a MiB.
const BLOBS_PER_PAGE: usize = 4_096;

/// A version, and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldVersion {
    /// Its length.
    pub len_bytes: u64,
    /// When it was made. What it was copied from may be older.
    pub made: TimestampMicros,
    /// Bodies in the metadata store itself.
    pub inline: u64,
    /// Those of them that are not there.
    pub inline_missing: u64,
    /// Blobs in shards.
    pub blobs: Vec<LiveBlob>,
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCursor {
    bucket: BucketId,
    is_noncurrent: bool,
    from: Vec<u8>,
}

/// Some of a project's versions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeldPage {
    /// The versions; delete markers are not among them.
    pub versions: Vec<HeldVersion>,
    /// Where to go on; `None` at the end.
    pub next: Option<HeldCursor>,
}

impl MetadataService {
    /// A page of a project's versions, each page of one moment: first all current ones of a bucket, then the others. Not
    /// those in the trash.
    pub async fn held_versions(
        &self,
        project: ProjectId,
        after: Option<HeldCursor>,
    ) -> Result<HeldPage, MetadataError> {
        self.0.scan(move |core, snapshot| core.held_page(snapshot, project, after)).await
    }
}

impl Core {
    fn held_page(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        after: Option<HeldCursor>,
    ) -> Result<HeldPage, MetadataError> {
        let mut page = HeldPage::default();
        let mut blobs = 0;
        for bucket in self.bucket_ids(snapshot, project)? {
            for is_noncurrent in [false, true] {
                let tag = if is_noncurrent { Tag::Noncurrent } else { Tag::Head };
                let range = self.rows.range(tag, &[bucket.as_bytes()]);
                let start = match &after {
                    Some(after) if (bucket, is_noncurrent) < (after.bucket, after.is_noncurrent) => continue,
                    Some(after) if (bucket, is_noncurrent) == (after.bucket, after.is_noncurrent) => &after.from,
                    _ => &range.start,
                };
                let mut cursor = snapshot.scan(start, &range.end).map_err(store_error)?;
                while let Some((key, row)) = cursor.next().map_err(store_error)? {
                    if page.versions.len() >= VERSIONS_PER_PAGE || blobs >= BLOBS_PER_PAGE {
                        page.next = Some(HeldCursor { bucket, is_noncurrent, from: key.to_vec() });
                        return Ok(page);
                    }
                    let version = match is_noncurrent {
                        false => records::decode::<HeadRecord>("head", &row.value)?.version,
                        true => records::decode::<NoncurrentRecord>("noncurrent version", &row.value)?.version,
                    };
                    if !version.is_delete_marker() {
                        let held = self.held_version(snapshot, &version)?;
                        blobs += held.blobs.len();
                        page.versions.push(held);
                    }
                }
            }
        }
        Ok(page)
    }

    fn held_version(&self, snapshot: &dyn Snapshot, version: &VersionRecord) -> Result<HeldVersion, MetadataError> {
        let mut held = HeldVersion {
            len_bytes: version.len_bytes,
            made: version.order,
            inline: 0,
            inline_missing: 0,
            blobs: Vec::new(),
        };
        match &version.body {
            Body::Empty => {}
            Body::Blob(blob) => self.add_held(snapshot, &mut held, blob)?,
            Body::Parts(index) => {
                for page in 0..index.page_offsets.len() as u32 {
                    let row = snapshot.get(&self.rows.part_page(index.pages_of, page)).map_err(store_error)?;
                    let record: PageRecord = records::decode("page", &row.ok_or_else(|| corrupt("page"))?.value)?;
                    for part in &record.parts {
                        self.add_held(snapshot, &mut held, &part.blob)?;
                    }
                }
            }
        }
        Ok(held)
    }

    fn add_held(
        &self,
        snapshot: &dyn Snapshot,
        held: &mut HeldVersion,
        blob: &BlobRecord,
    ) -> Result<(), MetadataError> {
        match blob.place {
            // A part without bytes has a blob of no length, which lies nowhere.
            _ if blob.len_bytes == 0 => {}
            BlobPlace::Inline => {
                held.inline += 1;
                if snapshot.get(&self.rows.inline(blob.blob)).map_err(store_error)?.is_none() {
                    held.inline_missing += 1;
                }
            }
            BlobPlace::Shards => {
                held.blobs.push(LiveBlob { blob: blob.blob, len_bytes: blob.len_bytes, layout: blob.layout });
            }
        }
        Ok(())
    }
}

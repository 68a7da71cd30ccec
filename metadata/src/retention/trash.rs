//! What the trash still has, for who may bring it back.

use crate::attempt::store_error;
use crate::records::{BucketRecord, TrashRecord, TrashedVersion, decode};
use crate::service::{Core, MetadataService, corrupt};
use crate::store::Snapshot;
use std::collections::HashMap;
use valv_metadata_api::{ListTrash, MetadataError, ObjectKey, RETENTION_PAGE_MAX, TrashEntry, TrashPage, TrashPlace};
use valv_types::{BucketId, TimestampMicros, VersionId};

/// Rows looked at for one page: the trash is in order of its purging, whosever it is, so a page may find few of one project.
const ROWS_PER_PAGE: usize = 50_000;

impl MetadataService {
    /// A page of what a project's trash has.
    pub async fn list_trash(&self, request: ListTrash) -> Result<TrashPage, MetadataError> {
        self.0.scan(move |core, snapshot| core.trash_page(snapshot, &request)).await
    }
}

impl Core {
    fn trash_page(&self, snapshot: &dyn Snapshot, request: &ListTrash) -> Result<TrashPage, MetadataError> {
        let zero = TrashPlace { due: TimestampMicros(0), version: VersionId::from_bytes([0; 16]) };
        let from = request.after.unwrap_or(zero);
        let range = self.rows.trash_from(from.due, from.version);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut names = HashMap::new();
        let mut page = TrashPage { entries: Vec::new(), next: None };
        let limit = request.limit.min(RETENTION_PAGE_MAX) as usize;
        let (mut rows, mut last) = (0, None);
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            let place = place_of(&key).ok_or_else(|| corrupt("trash"))?;
            if request.after == Some(place) {
                continue;
            }
            if rows == ROWS_PER_PAGE || page.entries.len() >= limit {
                page.next = last;
                break;
            }
            rows += 1;
            last = Some(place);
            let TrashRecord::Version(trashed) = decode("trash", &row.value)? else { continue };
            let wanted = trashed.project == request.project
                && request.bucket.is_none_or(|bucket| trashed.bucket == bucket)
                && trashed.key.starts_with(&request.prefix)
                && !trashed.purging;
            if wanted {
                page.entries.push(self.trash_entry(snapshot, &mut names, place, *trashed)?);
            }
        }
        Ok(page)
    }

    fn trash_entry(
        &self,
        snapshot: &dyn Snapshot,
        names: &mut HashMap<BucketId, Option<String>>,
        place: TrashPlace,
        trashed: TrashedVersion,
    ) -> Result<TrashEntry, MetadataError> {
        let bucket = trashed.bucket;
        let bucket_name = match names.get(&bucket) {
            Some(name) => name.clone(),
            None => {
                let row = snapshot.get(&self.rows.bucket(bucket)).map_err(store_error)?;
                let record: Option<BucketRecord> = row.map(|row| decode("bucket", &row.value)).transpose()?;
                let name = record.map(|record| self.bucket_view(bucket, &record)).transpose()?.map(|view| view.name);
                names.insert(bucket, name.clone());
                name
            }
        };
        Ok(TrashEntry {
            place,
            bucket,
            bucket_name,
            key: ObjectKey::new(trashed.key).ok_or_else(|| corrupt("trash"))?,
            len_bytes: trashed.version.len_bytes,
            written: trashed.version.order,
            removed: trashed.removed,
            by: trashed.by,
            is_null: trashed.version.is_null(),
        })
    }
}

/// Due time and id from a trash row's key.
fn place_of(row: &[u8]) -> Option<TrashPlace> {
    let rest = row.get(3..)?;
    let due = u64::from_be_bytes(rest.get(..8)?.try_into().ok()?);
    Some(TrashPlace { due: TimestampMicros(due), version: VersionId::from_slice(rest.get(8..)?).ok()? })
}

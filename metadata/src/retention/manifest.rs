//! A bucket's checksum manifest: what a page of it says.

use crate::attempt::store_error;
use crate::service::{Core, MetadataService, bucket_of};
use crate::store::Snapshot;
use valv_metadata_api::{
    ListEntry, ListVersions, ManifestEntry, MetadataError, ObjectKey, RETENTION_PAGE_MAX, VersionPlace, VersionSelector,
};
use valv_types::BucketId;

impl MetadataService {
    /// A page of a bucket's versions with all their checksums, in the order of listings, after `after` (`None` begins), and
    /// where the next page goes on. A key may stand there without a version: the page then begins with the next key.
    /// Delete markers are left out. Pages are of different moments, so what is written meanwhile may be in or not.
    pub async fn manifest_page(
        &self,
        bucket: BucketId,
        prefix: Vec<u8>,
        after: Option<(ObjectKey, Option<VersionSelector>)>,
    ) -> Result<(Vec<ManifestEntry>, Option<VersionPlace>), MetadataError> {
        let (key, version) = after.map_or((Vec::new(), None), |(key, version)| (key.as_bytes().to_vec(), version));
        let page = ListVersions {
            bucket,
            prefix,
            delimiter: Vec::new(),
            after: key,
            after_version: version,
            limit: RETENTION_PAGE_MAX,
        };
        let page = self.0.page_of_versions(page).await?;
        let next = match (page.next_after, page.entries.last()) {
            (Some(_), Some(last)) => Some(VersionPlace { key: last.key.clone(), version: last.id }),
            _ => None,
        };
        let entries = self.0.scan(move |core, snapshot| core.manifest_entries(snapshot, bucket, page.entries)).await?;
        Ok((entries, next))
    }
}

impl Core {
    fn manifest_entries(
        &self,
        snapshot: &dyn Snapshot,
        bucket_id: BucketId,
        listed: Vec<ListEntry>,
    ) -> Result<Vec<ManifestEntry>, MetadataError> {
        let bucket_row = snapshot.get(&self.rows.bucket(bucket_id)).map_err(store_error)?;
        let bucket = bucket_of(bucket_row.as_ref())?;
        let mut entries = Vec::with_capacity(listed.len());
        for entry in listed.into_iter().filter(|entry| !entry.is_delete_marker) {
            let found = self.find_in(snapshot, bucket_id, &entry.key, VersionSelector::Id(entry.id))?;
            // Removed since it was listed.
            let Some(found) = found else { continue };
            let attributes = self.open_attributes(bucket.project, bucket_id, &found.version)?;
            entries.push(ManifestEntry {
                place: VersionPlace { key: entry.key, version: entry.id },
                is_null: found.version.is_null(),
                is_current: found.is_current(),
                len_bytes: found.version.len_bytes,
                modified: found.version.order,
                etag: attributes.etag,
                checksums: attributes.checksums,
                encryption: attributes.encryption,
            });
        }
        Ok(entries)
    }
}

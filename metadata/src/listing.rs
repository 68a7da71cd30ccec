//! Listings: pages of current versions, of all versions, and of uploads, in key order, folded at a delimiter.
//!
//! A page costs its own rows: a common prefix is one row and one seek, whatever lies under it, and old versions are in
//! rows that a listing of current ones never meets. Only deleted keys whose delete markers remain are passed over.

use crate::attempt::store_error;
use crate::records::{self, ListedHead, ListedNoncurrent, ListedVersion, UploadRecord, VersionIndexRecord};
use crate::rows::{NoncurrentPlace, Tag, last_id, split_object_row};
use crate::seal::Place;
use crate::service::{Core, bucket_of, corrupt};
use crate::store::{Cursor, Snapshot};
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{BucketId, ProjectId, UploadId};

/// Entries and common prefixes in a page: S3's limit.
const PAGE_MAX: usize = 1_000;

/// What a listing is of, and where it goes on.
#[derive(Debug)]
struct Walk<'a> {
    bucket: BucketId,
    prefix: &'a [u8],
    delimiter: &'a [u8],
    after: &'a [u8],
    limit: usize,
}

impl<'a> Walk<'a> {
    /// The common prefix that a key (which starts with the prefix) is folded into.
    fn fold<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        if self.delimiter.is_empty() {
            return None;
        }
        let rest = key.get(self.prefix.len()..)?;
        let at = match self.delimiter {
            &[byte] => rest.iter().position(|&b| b == byte)?,
            delimiter => rest.windows(delimiter.len()).position(|window| window == delimiter)?,
        };
        Some(&key[..self.prefix.len() + at + self.delimiter.len()])
    }

    /// The first row to look at, among rows of `tag`. `again` starts at the rows of the key `after` instead of behind
    /// them.
    fn start(&self, core: &Core, tag: Tag, again: bool) -> Vec<u8> {
        let first = core.rows.keys_with_prefix(tag, self.bucket, self.prefix).start;
        let resumed = if self.after.is_empty() {
            return first;
        } else if let Some(folded) = self.after.starts_with(self.prefix).then(|| self.fold(self.after)).flatten() {
            core.rows.keys_with_prefix(tag, self.bucket, folded).end
        } else if again {
            core.rows.rows_of_key(tag, self.bucket, self.after).start
        } else {
            core.rows.after_key(tag, self.bucket, self.after)
        };
        first.max(resumed)
    }

    fn end(&self, core: &Core, tag: Tag) -> Vec<u8> {
        core.rows.keys_with_prefix(tag, self.bucket, self.prefix).end
    }

    /// A cursor from `start` to the end of the prefix; `None` if there is nothing between them.
    fn cursor<'s>(
        &self,
        core: &Core,
        snapshot: &'s dyn Snapshot,
        tag: Tag,
        start: &[u8],
    ) -> Result<Option<Box<dyn Cursor + 's>>, MetadataError> {
        let end = self.end(core, tag);
        if start >= end.as_slice() {
            return Ok(None);
        }
        snapshot.scan(start, &end).map(Some).map_err(store_error)
    }
}

fn page_limit(limit: u32) -> usize {
    (limit as usize).min(PAGE_MAX)
}

impl Core {
    fn list_entry(
        &self,
        project: ProjectId,
        bucket: BucketId,
        key: Vec<u8>,
        version: &ListedVersion<'_>,
        is_current: bool,
    ) -> Result<ListEntry, MetadataError> {
        let is_delete_marker = version.flags & records::FLAG_DELETE_MARKER != 0;
        let (etag, checksums) = if is_delete_marker {
            Default::default()
        } else {
            let place = Place::Version(project, bucket, version.id);
            self.seals.open_listed(place, version.key_version, version.sealed, |listed| {
                let checksums = listed.checksums.iter().map(|sum| (sum.algorithm, sum.kind)).collect();
                (listed.etag.to_owned(), checksums)
            })?
        };
        Ok(ListEntry {
            key: ObjectKey::new(key).ok_or_else(|| corrupt("head"))?,
            id: version.id,
            is_null: version.flags & records::FLAG_NULL != 0,
            is_current,
            is_delete_marker,
            modified: version.order,
            len_bytes: version.len_bytes,
            etag,
            owner: version.owner,
            checksums,
        })
    }

    pub(crate) async fn page_of_objects(self: &Arc<Self>, request: ListObjects) -> Result<ObjectList, MetadataError> {
        self.scan(move |core, snapshot| core.list_objects(snapshot, &request)).await
    }

    fn list_objects(&self, snapshot: &dyn Snapshot, request: &ListObjects) -> Result<ObjectList, MetadataError> {
        let bucket_row = snapshot.get(&self.rows.bucket(request.bucket)).map_err(store_error)?;
        let project = bucket_of(bucket_row.as_ref())?.project;
        let walk = Walk {
            bucket: request.bucket,
            prefix: &request.prefix,
            delimiter: &request.delimiter,
            after: &request.after,
            limit: page_limit(request.limit),
        };
        let mut list = ObjectList { entries: Vec::new(), common_prefixes: Vec::new(), next_after: None };
        let start = walk.start(self, Tag::Head, false);
        let Some(mut cursor) = walk.cursor(self, snapshot, Tag::Head, &start)? else { return Ok(list) };
        if walk.limit == 0 {
            return Ok(list);
        }
        // The last key or common prefix returned.
        let mut last: Option<Vec<u8>> = None;
        while let Some((row_key, row)) = cursor.next().map_err(store_error)? {
            let head: ListedHead<'_> = records::decode("head", &row.value)?;
            if head.version.flags & records::FLAG_DELETE_MARKER != 0 {
                continue;
            }
            if list.entries.len() + list.common_prefixes.len() == walk.limit {
                list.next_after = last;
                break;
            }
            let (key, _) = split_object_row(&row_key).ok_or_else(|| corrupt("head row"))?;
            if let Some(folded) = walk.fold(&key) {
                list.common_prefixes.push(CommonPrefix(folded.to_vec()));
                let behind = self.rows.keys_with_prefix(Tag::Head, walk.bucket, folded).end;
                last = Some(folded.to_vec());
                if behind >= walk.end(self, Tag::Head) {
                    break;
                }
                cursor.seek(&behind).map_err(store_error)?;
            } else {
                if list.entries.len() + list.common_prefixes.len() + 1 == walk.limit {
                    last = Some(key.clone());
                }
                list.entries.push(self.list_entry(project, request.bucket, key, &head.version, true)?);
            }
        }
        Ok(list)
    }

    pub(crate) async fn page_of_versions(
        self: &Arc<Self>,
        request: ListVersions,
    ) -> Result<VersionList, MetadataError> {
        self.scan(move |core, snapshot| core.list_versions(snapshot, &request)).await
    }

    fn list_versions(&self, snapshot: &dyn Snapshot, request: &ListVersions) -> Result<VersionList, MetadataError> {
        let bucket_row = snapshot.get(&self.rows.bucket(request.bucket)).map_err(store_error)?;
        let project = bucket_of(bucket_row.as_ref())?.project;
        let walk = Walk {
            bucket: request.bucket,
            prefix: &request.prefix,
            delimiter: &request.delimiter,
            after: &request.after,
            limit: page_limit(request.limit),
        };
        let mut page = VersionPage {
            core: self,
            project,
            limit: walk.limit,
            list: VersionList {
                entries: Vec::new(),
                common_prefixes: Vec::new(),
                next_after: None,
                next_after_version: None,
            },
            last: None,
        };
        if walk.limit == 0 {
            return Ok(page.list);
        }
        let resume = match (ObjectKey::new(request.after.clone()), request.after_version) {
            (Some(key), Some(version)) => Some(self.resume_at(snapshot, request.bucket, &key, version)?),
            _ => None,
        };
        let start = walk.start(self, Tag::Head, resume.is_some());
        let Some(mut cursor) = walk.cursor(self, snapshot, Tag::Head, &start)? else { return Ok(page.list) };
        while let Some((row_key, row)) = cursor.next().map_err(store_error)? {
            if page.is_full() {
                return Ok(page.truncated());
            }
            let (key, _) = split_object_row(&row_key).ok_or_else(|| corrupt("head row"))?;
            if let Some(folded) = walk.fold(&key) {
                page.push_prefix(folded);
                let behind = self.rows.keys_with_prefix(Tag::Head, walk.bucket, folded).end;
                if behind >= walk.end(self, Tag::Head) {
                    break;
                }
                cursor.seek(&behind).map_err(store_error)?;
                continue;
            }
            let resume = resume.filter(|_| key == request.after);
            let head: ListedHead<'_> = records::decode("head", &row.value)?;
            if matches!(resume, None | Some(Resume::Key)) {
                page.push_version(request.bucket, &key, &head.version, true)?;
            }
            let range = self.rows.rows_of_key(Tag::Noncurrent, request.bucket, &key);
            let first = match resume {
                Some(Resume::Behind(place)) => {
                    let key = ObjectKey::new(key.clone()).ok_or_else(|| corrupt("head row"))?;
                    let mut row = self.rows.noncurrent(request.bucket, &key, place).to_vec();
                    // The next possible key.
                    row.push(0);
                    row
                }
                _ => range.start,
            };
            let mut older = snapshot.scan(&first, &range.end).map_err(store_error)?;
            while let Some((_, row)) = older.next().map_err(store_error)? {
                if page.is_full() {
                    return Ok(page.truncated());
                }
                let listed: ListedNoncurrent<'_> = records::decode("noncurrent version", &row.value)?;
                page.push_version(request.bucket, &key, &listed.version, false)?;
            }
        }
        Ok(page.list)
    }

    /// Where a listing of versions goes on behind `version` of `key`. A version that is gone by now (clients delete what
    /// they have listed, then ask for more) has no place any more: the listing goes on at the key's remaining versions.
    fn resume_at(
        &self,
        snapshot: &dyn Snapshot,
        bucket: BucketId,
        key: &ObjectKey,
        version: VersionSelector,
    ) -> Result<Resume, MetadataError> {
        let Some(row) = snapshot.get(&self.rows.head(bucket, key)).map_err(store_error)? else {
            return Ok(Resume::Key);
        };
        let head: ListedHead<'_> = records::decode("head", &row.value)?;
        let is_null = head.version.flags & records::FLAG_NULL != 0;
        Ok(match version {
            VersionSelector::Current => Resume::BehindHead,
            VersionSelector::Null if is_null => Resume::BehindHead,
            VersionSelector::Null => match head.null {
                Some(null) => Resume::Behind(NoncurrentPlace { order: null.order, id: null.id }),
                None => Resume::Key,
            },
            VersionSelector::Id(id) if head.version.id == id => Resume::BehindHead,
            VersionSelector::Id(id) => {
                match snapshot.get(&self.rows.version_index(bucket, id)).map_err(store_error)? {
                    Some(row) => {
                        let index: VersionIndexRecord = records::decode("version index", &row.value)?;
                        Resume::Behind(NoncurrentPlace { order: index.order, id })
                    }
                    None => Resume::Key,
                }
            }
        })
    }

    pub(crate) async fn page_of_uploads(self: &Arc<Self>, request: ListUploads) -> Result<UploadList, MetadataError> {
        self.scan(move |core, snapshot| core.list_uploads(snapshot, &request)).await
    }

    fn list_uploads(&self, snapshot: &dyn Snapshot, request: &ListUploads) -> Result<UploadList, MetadataError> {
        let bucket_row = snapshot.get(&self.rows.bucket(request.bucket)).map_err(store_error)?;
        let bucket = bucket_of(bucket_row.as_ref())?;
        let walk = Walk {
            bucket: request.bucket,
            prefix: &request.prefix,
            delimiter: &request.delimiter,
            after: &request.after,
            limit: page_limit(request.limit),
        };
        let mut list =
            UploadList { uploads: Vec::new(), common_prefixes: Vec::new(), next_after: None, next_after_upload: None };
        let start = match (request.after_upload, ObjectKey::new(request.after.clone())) {
            (Some(upload), Some(key)) => match self.upload_place(snapshot, request.bucket, &key, upload)? {
                Some(mut row) => {
                    row.push(0);
                    walk.start(self, Tag::UploadIndex, true).max(row)
                }
                // The upload has ended since: go on at the key's remaining ones.
                None => walk.start(self, Tag::UploadIndex, true),
            },
            _ => walk.start(self, Tag::UploadIndex, false),
        };
        let Some(mut cursor) = walk.cursor(self, snapshot, Tag::UploadIndex, &start)? else { return Ok(list) };
        if walk.limit == 0 {
            return Ok(list);
        }
        let mut last: Option<(Vec<u8>, Option<UploadId>)> = None;
        while let Some((row_key, _)) = cursor.next().map_err(store_error)? {
            if list.uploads.len() + list.common_prefixes.len() == walk.limit {
                (list.next_after, list.next_after_upload) = last.unzip_flat();
                break;
            }
            let (key, suffix) = split_object_row(&row_key).ok_or_else(|| corrupt("upload index"))?;
            if let Some(folded) = walk.fold(&key) {
                list.common_prefixes.push(CommonPrefix(folded.to_vec()));
                last = Some((folded.to_vec(), None));
                let behind = self.rows.keys_with_prefix(Tag::UploadIndex, walk.bucket, folded).end;
                if behind >= walk.end(self, Tag::UploadIndex) {
                    break;
                }
                cursor.seek(&behind).map_err(store_error)?;
                continue;
            }
            let id = last_id(suffix).map(UploadId::from_bytes).ok_or_else(|| corrupt("upload index"))?;
            let row = snapshot.get(&self.rows.upload(id)).map_err(store_error)?;
            let record: UploadRecord = records::decode("upload", &row.ok_or_else(|| corrupt("upload index"))?.value)?;
            list.uploads.push(self.upload_view(id, &bucket, &record)?);
            last = Some((key, Some(id)));
        }
        Ok(list)
    }

    fn upload_place(
        &self,
        snapshot: &dyn Snapshot,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<Option<Vec<u8>>, MetadataError> {
        let row = snapshot.get(&self.rows.upload(upload)).map_err(store_error)?;
        match crate::uploads::upload_of(row.as_ref(), bucket, key) {
            Ok(record) => Ok(Some(self.rows.upload_index(bucket, key, record.initiated, upload).to_vec())),
            Err(MetadataError::NoSuchUpload) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Where a listing of versions goes on within the key that it had reached.
#[derive(Debug, Clone, Copy)]
enum Resume {
    /// At the key's first version.
    Key,
    /// Behind its current version.
    BehindHead,
    /// Behind this noncurrent version.
    Behind(NoncurrentPlace),
}

struct VersionPage<'a> {
    core: &'a Core,
    project: ProjectId,
    limit: usize,
    list: VersionList,
    last: Option<(Vec<u8>, Option<VersionSelector>)>,
}

impl VersionPage<'_> {
    fn len(&self) -> usize {
        self.list.entries.len() + self.list.common_prefixes.len()
    }

    fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    fn push_prefix(&mut self, folded: &[u8]) {
        self.list.common_prefixes.push(CommonPrefix(folded.to_vec()));
        self.last = Some((folded.to_vec(), None));
    }

    fn push_version(
        &mut self,
        bucket: BucketId,
        key: &[u8],
        version: &ListedVersion<'_>,
        is_current: bool,
    ) -> Result<(), MetadataError> {
        let entry = self.core.list_entry(self.project, bucket, key.to_vec(), version, is_current)?;
        if self.len() + 1 == self.limit {
            let selector = if entry.is_null { VersionSelector::Null } else { VersionSelector::Id(entry.id) };
            self.last = Some((key.to_vec(), Some(selector)));
        }
        self.list.entries.push(entry);
        Ok(())
    }

    fn truncated(mut self) -> VersionList {
        (self.list.next_after, self.list.next_after_version) = self.last.unzip_flat();
        self.list
    }
}

/// Takes a continuation apart.
trait UnzipFlat<A, B> {
    fn unzip_flat(self) -> (Option<A>, Option<B>);
}

impl<A, B> UnzipFlat<A, B> for Option<(A, Option<B>)> {
    fn unzip_flat(self) -> (Option<A>, Option<B>) {
        match self {
            Some((a, b)) => (Some(a), b),
            None => (None, None),
        }
    }
}

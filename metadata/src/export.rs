//! The export: JSON Lines with all that recovering objects without Valv needs, except keys. A program reads them
//! together with a key backup and the disks; `docs/format-metadata.md` specifies the lines.

use crate::attempt::store_error;
use crate::records::{self, BucketRecord, HeadRecord, NoncurrentRecord, PageRecord, VersionRecord};
use crate::rows::{KeyRange, Tag, bucket_of_row, split_object_row};
use crate::service::{Core, MetadataService, corrupt};
use crate::store::Snapshot;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Write};
use valv_metadata_api::*;
use valv_types::{BucketId, NamespaceId, PoolMap};

/// Format of the lines.
const FORMAT: u32 = 1;

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Metadata could not be read.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The lines could not be written.
    #[error("writing the export: {0}")]
    Io(#[from] io::Error),
}

/// The number of SSE-C in an Encryption record (docs/format-metadata.md), which the gateway writes.
const METHOD_CUSTOMER: u8 = 2;
/// An Encryption record of that method and nothing else.
const METHOD_CUSTOMER_RECORD: [u8; 2] = [0x81, METHOD_CUSTOMER];

/// Whether a version was sealed with its customer's key, too.
pub(crate) fn is_customers(encryption: &[u8]) -> bool {
    let mut fields = minicbor::Decoder::new(encryption);
    matches!(fields.array(), Ok(Some(1..))) && matches!(fields.u8(), Ok(METHOD_CUSTOMER))
}

impl MetadataService {
    /// Writes the header line and one line for every version of every bucket of this cell, from one snapshot. Runs on
    /// the caller's thread between waits: for command-line tools and blocking threads, not beside requests.
    pub async fn export_all(&self, out: &mut (dyn Write + Send)) -> Result<u64, ExportError> {
        let header = self.0.export_header().await?;
        let snapshot = self.0.snapshot().await?;
        write_line(out, &header)?;
        let mut buckets = HashMap::new();
        let mut lines = 0;
        for tag in [Tag::Head, Tag::Noncurrent] {
            let range = self.0.rows.range(tag, &[]);
            lines += self.0.export_rows(snapshot.as_ref(), tag, &range, &mut buckets, out)?;
        }
        out.flush()?;
        Ok(lines)
    }

    /// Writes the header line and one line for one version.
    pub async fn export_object(
        &self,
        namespace: NamespaceId,
        bucket: &str,
        key: &ObjectKey,
        version: VersionSelector,
        out: &mut (dyn Write + Send),
    ) -> Result<(), ExportError> {
        let header = self.0.export_header().await?;
        let bucket = self.0.find_bucket(GetBucket { namespace, name: bucket.to_owned() }).await?;
        let snapshot = self.0.snapshot().await?;
        let record = self.0.bucket_record(bucket.id).await?;
        let found = self.0.find_in(snapshot.as_ref(), bucket.id, key, version)?.ok_or(MetadataError::NoSuchVersion)?;
        let context = BucketContext { id: bucket.id, name: bucket.name, record };
        let is_current = found.is_current();
        let line = self.0.export_line(snapshot.as_ref(), &context, key.as_bytes(), &found.version, is_current)?;
        write_line(out, &header)?;
        write_line(out, &line)?;
        out.flush()?;
        Ok(())
    }
}

struct BucketContext {
    id: BucketId,
    name: String,
    record: BucketRecord,
}

fn write_line(out: &mut (dyn Write + Send), line: &Value) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// Bytes as base64, and as text if they are text.
fn key_json(key: &[u8]) -> Value {
    let mut out = Map::new();
    out.insert("base64".to_owned(), Value::from(BASE64.encode(key)));
    if let Ok(text) = std::str::from_utf8(key) {
        out.insert("utf8".to_owned(), Value::from(text));
    }
    Value::Object(out)
}

fn pool_json(pool: &PoolMap) -> Value {
    let groups: Vec<Value> =
        pool.groups.iter().map(|group| json!({ "epoch": group.epoch, "disks": group.disks })).collect();
    json!({ "layout": pool.layout, "groups": groups })
}

pub(crate) fn checksum_json(checksum: &Checksum) -> Value {
    let algorithm = match checksum.algorithm {
        ChecksumAlgorithm::Crc32 => "CRC32",
        ChecksumAlgorithm::Crc32c => "CRC32C",
        ChecksumAlgorithm::Crc64Nvme => "CRC64NVME",
        ChecksumAlgorithm::Sha1 => "SHA1",
        ChecksumAlgorithm::Sha256 => "SHA256",
        ChecksumAlgorithm::Sha512 => "SHA512",
        ChecksumAlgorithm::Md5 => "MD5",
        ChecksumAlgorithm::XxHash64 => "XXHASH64",
        ChecksumAlgorithm::XxHash3 => "XXHASH3",
        ChecksumAlgorithm::XxHash128 => "XXHASH128",
    };
    let kind = match checksum.kind {
        ChecksumType::FullObject => "FULL_OBJECT",
        ChecksumType::Composite => "COMPOSITE",
    };
    json!({ "algorithm": algorithm, "type": kind, "base64": BASE64.encode(&checksum.value) })
}

impl Core {
    async fn export_header(&self) -> Result<Value, MetadataError> {
        let map = self.read_cluster_map(Empty {}).await?;
        Ok(json!({
            "type": "valv-metadata-export",
            "format": FORMAT,
            "cluster": map.cluster,
            "cell": map.cell,
            "exported_micros": self.now(),
            "pools": map.pools.iter().map(pool_json).collect::<Vec<_>>(),
        }))
    }

    fn export_rows(
        &self,
        snapshot: &dyn Snapshot,
        tag: Tag,
        range: &KeyRange,
        buckets: &mut HashMap<BucketId, BucketContext>,
        out: &mut (dyn Write + Send),
    ) -> Result<u64, ExportError> {
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut lines = 0;
        while let Some((row_key, row)) = cursor.next().map_err(store_error)? {
            let id = bucket_of_row(&row_key).ok_or_else(|| corrupt("object row"))?;
            let context = match buckets.entry(id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.bucket_context(snapshot, id)?),
            };
            let (key, _) = split_object_row(&row_key).ok_or_else(|| corrupt("object row"))?;
            let (version, is_current) = match tag {
                Tag::Head => (records::decode::<HeadRecord>("head", &row.value)?.version, true),
                _ => (records::decode::<NoncurrentRecord>("noncurrent version", &row.value)?.version, false),
            };
            let line = self.export_line(snapshot, context, &key, &version, is_current)?;
            write_line(out, &line)?;
            lines += 1;
        }
        Ok(lines)
    }

    fn bucket_context(&self, snapshot: &dyn Snapshot, id: BucketId) -> Result<BucketContext, MetadataError> {
        let row = snapshot.get(&self.rows.bucket(id)).map_err(store_error)?;
        let record: BucketRecord = records::decode("bucket", &row.ok_or_else(|| corrupt("bucket"))?.value)?;
        let name = self.bucket_view(id, &record)?.name;
        Ok(BucketContext { id, name, record })
    }

    fn export_line(
        &self,
        snapshot: &dyn Snapshot,
        bucket: &BucketContext,
        key: &[u8],
        version: &VersionRecord,
        is_current: bool,
    ) -> Result<Value, MetadataError> {
        let project = bucket.record.project;
        let view = self.version_view(project, bucket.id, version)?;
        let attributes = &view.attributes;
        // Of what a customer's key is needed for, an export in clear tells nothing that fingerprints the bytes or by which
        // keys could be guessed.
        let is_customers = is_customers(&attributes.encryption);
        let (checksums, encryption) = match is_customers {
            true => (&[][..], &METHOD_CUSTOMER_RECORD[..]),
            false => (attributes.checksums.as_slice(), attributes.encryption.as_slice()),
        };
        Ok(json!({
            "type": "version",
            "project": project,
            "bucket": { "id": bucket.id, "name": bucket.name },
            "key": key_json(key),
            "version": view.id,
            "is_null": view.is_null,
            "is_current": is_current,
            "is_delete_marker": view.is_delete_marker,
            "modified_micros": view.order,
            "len_bytes": view.len_bytes,
            "etag": attributes.etag,
            "headers": attributes.headers,
            "user_metadata": attributes.user_metadata,
            "tags": attributes.tags,
            "checksums": checksums.iter().map(checksum_json).collect::<Vec<_>>(),
            "acl_base64": BASE64.encode(&attributes.acl),
            "encryption_base64": BASE64.encode(encryption),
            "owner": view.owner,
            "retention": view.retention.map(|retention| json!({
                "mode": match retention.mode {
                    RetentionMode::Governance => "GOVERNANCE",
                    RetentionMode::Compliance => "COMPLIANCE",
                },
                "until_micros": retention.until,
            })),
            "legal_hold": view.legal_hold,
            "blobs": self.export_body(snapshot, bucket, &view.body, is_customers)?,
        }))
    }

    /// The blobs of a body in order: none, one, or one a part.
    fn export_body(
        &self,
        snapshot: &dyn Snapshot,
        bucket: &BucketContext,
        body: &Body,
        is_customers: bool,
    ) -> Result<Vec<Value>, MetadataError> {
        match body {
            Body::Empty => Ok(Vec::new()),
            Body::Blob(blob) => Ok(vec![self.export_blob(snapshot, blob, 0, None)?]),
            Body::Parts(index) => {
                let mut out = Vec::with_capacity(index.count as usize);
                for page in 0..index.page_offsets.len() as u32 {
                    let row = snapshot.get(&self.rows.part_page(index.pages_of, page)).map_err(store_error)?;
                    let record: PageRecord = records::decode("page", &row.ok_or_else(|| corrupt("page"))?.value)?;
                    for mut part in self.page_view(bucket.record.project, index.pages_of, page, record)? {
                        if part.blob.len_bytes == 0 {
                            continue;
                        }
                        if is_customers {
                            part.checksums.clear();
                        }
                        out.push(self.export_blob(snapshot, &part.blob, part.offset, Some(&part))?);
                    }
                }
                Ok(out)
            }
        }
    }

    fn export_blob(
        &self,
        snapshot: &dyn Snapshot,
        blob: &BlobRecord,
        offset: u64,
        part: Option<&PartRecord>,
    ) -> Result<Value, MetadataError> {
        let inline = match blob.place {
            BlobPlace::Shards => None,
            BlobPlace::Inline => {
                let row = snapshot.get(&self.rows.inline(blob.blob)).map_err(store_error)?;
                Some(BASE64.encode(row.ok_or_else(|| corrupt("inline body"))?.value))
            }
        };
        Ok(json!({
            "offset": offset,
            "len_bytes": blob.len_bytes,
            "blob": blob.blob,
            "layout": blob.layout,
            "place": match blob.place { BlobPlace::Inline => "inline", BlobPlace::Shards => "shards" },
            "wrapped_key_base64": BASE64.encode(&blob.wrapped_key),
            "inline_base64": inline,
            "part": part.map(|part| json!({
                "number": part.number,
                "md5": hex::encode(part.md5),
                "modified_micros": part.modified,
                "checksums": part.checksums.iter().map(checksum_json).collect::<Vec<_>>(),
            })),
        }))
    }
}

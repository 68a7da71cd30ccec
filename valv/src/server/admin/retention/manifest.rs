//! The manifest of a bucket: a line for each object, then the statement that signs them all.

use super::super::error::refused;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::Stream;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use tonic::Status;
use valv_gateway::checksum::{algorithm_name, type_name};
use valv_ledger::statement::{Lines, StatementKind, rfc3339};
use valv_metadata::MetadataService;
use valv_metadata_api::{ManifestEntry, ObjectKey, VersionPlace, VersionSelector};
use valv_proto::admin::v1::{ExportManifestRequest, ExportedBytes};
use valv_types::{BucketId, ProjectId};

/// Bytes of one message; a line has some 8 KiB at most.
const PIECE_BYTES: usize = 1 << 20;

struct Export {
    service: Arc<MetadataService>,
    project: ProjectId,
    bucket: BucketId,
    request: ExportManifestRequest,
    after: Option<(ObjectKey, Option<VersionSelector>)>,
    lines: Lines,
    objects: u64,
    bytes: u64,
    /// Pieces made and not sent, at most a page of a thousand lines.
    pieces: VecDeque<Bytes>,
    is_done: bool,
}

/// Streams the manifest. Memory is bounded by a page of entries, whatever the bucket holds.
#[allow(clippy::result_large_err, reason = "tonic's error type")]
pub(super) fn export(
    service: Arc<MetadataService>,
    project: ProjectId,
    bucket: BucketId,
    request: ExportManifestRequest,
) -> Result<impl Stream<Item = Result<ExportedBytes, Status>> + Send, Status> {
    let after = match request.start_after.is_empty() {
        true => None,
        false => {
            let key = ObjectKey::new(request.start_after.to_vec());
            Some((key.ok_or_else(|| Status::invalid_argument("no object has so long a key"))?, None))
        }
    };
    let export = Export {
        service,
        project,
        bucket,
        request,
        after,
        lines: Lines::default(),
        objects: 0,
        bytes: 0,
        pieces: VecDeque::new(),
        is_done: false,
    };
    Ok(futures_util::stream::try_unfold(export, |mut export| async move {
        while export.pieces.is_empty() && !export.is_done {
            export.advance().await?;
        }
        Ok(export.pieces.pop_front().map(|piece| (ExportedBytes { json_lines: piece }, export)))
    }))
}

impl Export {
    /// Writes a page, and after the last one the statement.
    async fn advance(&mut self) -> Result<(), Status> {
        let page = self.service.manifest_page(self.bucket, self.request.prefix.to_vec(), self.after.take());
        let (entries, next) = page.await.map_err(refused)?;
        let mut piece = Vec::new();
        for entry in entries.iter().filter(|entry| entry.is_current || self.request.all_versions) {
            let line = line(entry);
            self.lines.push(line.as_bytes());
            self.objects += 1;
            self.bytes = self.bytes.saturating_add(entry.len_bytes);
            piece.extend_from_slice(line.as_bytes());
            if piece.len() >= PIECE_BYTES {
                self.pieces.push_back(std::mem::take(&mut piece).into());
            }
        }
        match next {
            Some(VersionPlace { key, version }) => self.after = Some((key, Some(VersionSelector::Id(version)))),
            None => {
                piece.extend_from_slice(self.statement().await?.as_bytes());
                self.is_done = true;
            }
        }
        if !piece.is_empty() {
            self.pieces.push_back(piece.into());
        }
        Ok(())
    }

    async fn statement(&mut self) -> Result<String, Status> {
        let mut facts = Map::new();
        facts.insert("bucket".to_owned(), self.bucket.to_string().into());
        facts.insert("bucket_name".to_owned(), self.request.bucket.clone().into());
        put_bytes(&mut facts, "prefix", &self.request.prefix);
        put_bytes(&mut facts, "start_after", &self.request.start_after);
        facts.insert("versions".to_owned(), if self.request.all_versions { "all" } else { "current" }.into());
        facts.insert("objects".to_owned(), self.objects.into());
        facts.insert("bytes".to_owned(), self.bytes.into());
        std::mem::take(&mut self.lines).put_into(&mut facts);
        let signed = self.service.statement(StatementKind::ChecksumManifest, self.project, Value::Object(facts));
        Ok(signed.await.map_err(refused)?.to_line())
    }
}

/// A text as it is; what is no UTF-8 in base64, under another name.
fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// An object's key in a line.
pub(super) fn put_key(object: &mut Map<String, Value>, key: &[u8]) {
    put_bytes(object, "key", key);
}

fn line(entry: &ManifestEntry) -> String {
    let mut line = Map::new();
    put_key(&mut line, entry.place.key.as_bytes());
    let version = if entry.is_null { "null".to_owned() } else { entry.place.version.to_string() };
    line.insert("version".to_owned(), version.into());
    line.insert("current".to_owned(), entry.is_current.into());
    line.insert("size".to_owned(), entry.len_bytes.into());
    line.insert("modified".to_owned(), rfc3339(entry.modified).into());
    line.insert("etag".to_owned(), entry.etag.clone().into());
    // An ETag of several parts, and one under a customer's key, is no MD5 of the bytes.
    if entry.etag.len() == 32 && !valv_gateway::has_random_etag(&entry.encryption) {
        line.insert("md5".to_owned(), entry.etag.clone().into());
    }
    let checksums = entry.checksums.iter().map(|checksum| {
        let told = json!({ "type": type_name(checksum.kind), "base64": STANDARD.encode(&checksum.value) });
        (algorithm_name(checksum.algorithm).to_owned(), told)
    });
    line.insert("checksums".to_owned(), Value::Object(checksums.collect()));
    format!("{}\n", Value::Object(line))
}

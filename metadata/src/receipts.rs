//! Receipts: a line for each event of a kind, with what the ledger says of it and where it stands there, and a signed
//! statement over all lines.
//!
//! A receipt goes through the ledger from its first leaf to its last and reads every record once, so it costs as much as
//! an export of the ledger; it holds a line in memory at a time.

use crate::attempt::store_error;
use crate::records::{self, LeafPage};
use crate::sequencer::{LedgerExportError, frontier_of};
use crate::service::{Core, MetadataService};
use crate::store::Snapshot;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use valv_ledger::leaf::kind_name;
use valv_ledger::statement::{Lines, rfc3339};
use valv_ledger::{Frontier, Leaf, Names, StatementKind, tree};
use valv_metadata_api::{MetadataError, ObjectKey, VersionSelector};
use valv_types::{BucketId, ProjectId, TimestampMicros};

/// What a receipt is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptAsked {
    /// Its kind: it says which events are in it.
    pub kind: StatementKind,
    /// Of which project.
    pub project: ProjectId,
    /// Of this bucket only.
    pub bucket: Option<String>,
    /// Of keys with this prefix only.
    pub prefix: Vec<u8>,
    /// Of events at or after this time.
    pub since: TimestampMicros,
    /// Of events before this time.
    pub until: TimestampMicros,
}

/// The kinds of events in a receipt: numbers as in the ledger, beside their meaning in `docs/ledger.md`.
fn is_event_of(kind: StatementKind, event: u32) -> bool {
    match kind {
        // Uploads, copies, completed multipart uploads.
        StatementKind::IngestReceipt => matches!(event, 20 | 21 | 32),
        StatementKind::RepairReceipt => event == 110,
        StatementKind::MigrationReceipt => event == 111,
        // What was read by anybody.
        StatementKind::ExportReceipt => matches!(event, 100..=109),
        // What left the trash for good, and decided disposals.
        StatementKind::DisposalReceipt => matches!(event, 25 | 94..=98),
        StatementKind::TransferReceipt => matches!(event, 130..=139),
        StatementKind::ShredCertificate
        | StatementKind::FixityReport
        | StatementKind::UsageReport
        | StatementKind::ChecksumManifest => false,
    }
}

impl MetadataService {
    /// Writes a receipt: JSON Lines that [`valv_ledger::statement::verify`] checks. Everything that was committed before
    /// the call is in it. Runs on the caller's thread between waits, as [`Self::export_ledger`] does. Returns the number
    /// of events.
    pub async fn write_receipt(
        &self,
        asked: &ReceiptAsked,
        out: &mut (dyn Write + Send),
    ) -> Result<u64, LedgerExportError> {
        self.0.write_receipt(asked, out).await
    }
}

/// Sums of a receipt's lines.
#[derive(Default)]
struct Sums {
    lines: Lines,
    events: u64,
    bytes: u64,
    gone: u64,
    without_names: u64,
}

impl Core {
    async fn write_receipt(
        self: &Arc<Self>,
        asked: &ReceiptAsked,
        out: &mut (dyn Write + Send),
    ) -> Result<u64, LedgerExportError> {
        self.sequence_ledgers().await?;
        let snapshot = self.snapshot().await?;
        let sums = self.receipt_lines(snapshot.as_ref(), asked, out)?;
        drop(snapshot);
        let mut facts = Map::new();
        facts.insert("events".to_owned(), json!(sums.events));
        facts.insert("bytes".to_owned(), json!(sums.bytes));
        facts.insert("bucket".to_owned(), json!(asked.bucket));
        facts.insert("prefix".to_owned(), text_or_hex(&asked.prefix));
        let bound = |time: TimestampMicros, none: TimestampMicros| (time != none).then(|| rfc3339(time));
        facts.insert("since".to_owned(), json!(bound(asked.since, TimestampMicros(0))));
        facts.insert("until".to_owned(), json!(bound(asked.until, TimestampMicros(u64::MAX))));
        if asked.kind == StatementKind::IngestReceipt {
            facts.insert("versions_removed_since".to_owned(), json!(sums.gone));
        }
        facts.insert("events_with_erased_names".to_owned(), json!(sums.without_names));
        sums.lines.put_into(&mut facts);
        let signed = self.statement(asked.kind, asked.project, Value::Object(facts)).await?;
        out.write_all(signed.to_line().as_bytes())?;
        out.flush()?;
        Ok(sums.events)
    }

    fn receipt_lines(
        &self,
        snapshot: &dyn Snapshot,
        asked: &ReceiptAsked,
        out: &mut (dyn Write + Send),
    ) -> Result<Sums, LedgerExportError> {
        let project = asked.project;
        let buckets = self.bucket_names(snapshot, project)?;
        let is_wanted_bucket = |id: Option<BucketId>| match &asked.bucket {
            None => true,
            Some(name) => id.is_some_and(|id| buckets.get(&id) == Some(name)),
        };
        if asked.bucket.as_ref().is_some_and(|name| !buckets.values().any(|own| own == name)) {
            return Err(MetadataError::NoSuchBucket.into());
        }
        let row = snapshot.get(&self.rows.ledger_tree(project)).map_err(store_error)?;
        let expected = frontier_of(row.as_ref())?;
        let (mut seen, mut sums) = (Frontier::default(), Sums::default());
        let range = self.rows.ledger_leaves(project);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while let Some((_, row)) = cursor.next().map_err(store_error)? {
            let page: LeafPage = records::decode("leaves of a ledger", &row.value)?;
            for event in page.events() {
                let record = self.ledger_record(snapshot, project, event)?;
                let leaf = record.leaf(project, event);
                let index = seen.size();
                seen.push(tree::leaf_hash(&leaf.to_bytes()));
                let is_in_time = asked.since <= leaf.time && leaf.time < asked.until;
                if !is_event_of(asked.kind, leaf.kind) || !is_in_time || !is_wanted_bucket(leaf.bucket) {
                    continue;
                }
                // A leaf of accesses has many names, which an export shows.
                let names = match record.entries {
                    None => self.names_of::<Names>(project, event, &record)?,
                    Some(_) => None,
                };
                // Without its name nobody can say whether it began with the prefix.
                let is_below = |names: &Names| names.subject.starts_with(&asked.prefix);
                if !asked.prefix.is_empty() && !names.as_ref().is_some_and(is_below) {
                    continue;
                }
                let mut line = event_json(index, &leaf, names.as_ref());
                if let Some(name) = leaf.bucket.and_then(|id| buckets.get(&id)) {
                    line["bucket_name"] = json!(name);
                }
                if asked.kind == StatementKind::IngestReceipt {
                    let stored = self.stored_json(snapshot, project, &leaf, names.as_ref())?;
                    // Without its names nobody can look for it: that says nothing of whether it is there.
                    sums.gone += u64::from(stored.is_null() && names.is_some());
                    line["stored"] = stored;
                }
                let text = format!("{line}\n");
                out.write_all(text.as_bytes())?;
                sums.lines.push(text.as_bytes());
                sums.events += 1;
                sums.bytes = sums.bytes.saturating_add(leaf.bytes);
                sums.without_names += u64::from(names.is_none());
            }
        }
        if seen != expected {
            // Nothing is signed that does not hold.
            return Err(crate::service::corrupt("ledger: its records are not those that were sequenced").into());
        }
        Ok(sums)
    }

    fn bucket_names(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
    ) -> Result<HashMap<BucketId, String>, MetadataError> {
        let mut names = HashMap::new();
        for id in self.bucket_ids(snapshot, project)? {
            let Some(row) = snapshot.get(&self.rows.bucket(id)).map_err(store_error)? else { continue };
            match self.bucket_view(id, &records::decode("bucket", &row.value)?) {
                Ok(bucket) => drop(names.insert(id, bucket.name)),
                // Erased with the project's key.
                Err(MetadataError::KeyUnavailable | MetadataError::KeyDestroyed) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(names)
    }

    /// What is stored of an ingested version: null if it is not there any more.
    fn stored_json(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        leaf: &Leaf,
        names: Option<&Names>,
    ) -> Result<Value, MetadataError> {
        let key = names.and_then(|names| ObjectKey::new(names.subject.clone()));
        let (Some(bucket), Some(id), Some(key)) = (leaf.bucket, leaf.version, key) else { return Ok(Value::Null) };
        let Some(found) = self.find_in(snapshot, bucket, &key, VersionSelector::Id(id))? else {
            return Ok(Value::Null);
        };
        let is_current = found.is_current();
        let view = match self.version_view(project, bucket, &found.version) {
            Ok(view) => view,
            Err(MetadataError::KeyUnavailable | MetadataError::KeyDestroyed) => {
                return Ok(
                    json!({"is_current": is_current, "len_bytes": found.version.len_bytes, "key_is_gone": true}),
                );
            }
            Err(error) => return Err(error),
        };
        // Of what a customer's key is needed for, nothing is told that fingerprints the bytes.
        let is_customers = crate::export::is_customers(&view.attributes.encryption);
        let checksums: Vec<Value> = match is_customers {
            true => Vec::new(),
            false => view.attributes.checksums.iter().map(crate::export::checksum_json).collect(),
        };
        Ok(json!({
            "is_current": is_current,
            "len_bytes": view.len_bytes,
            "etag": view.attributes.etag,
            "checksums": checksums,
        }))
    }
}

fn text_or_hex(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"hex": hex::encode(bytes)}),
    }
}

fn event_json(index: u64, leaf: &Leaf, names: Option<&Names>) -> Value {
    let detail = names.and_then(|names| names.detail.as_deref());
    let detail: Option<Value> = detail.and_then(|text| serde_json::from_str(text).ok());
    json!({
        "index": index,
        "event": leaf.event.to_string(),
        "kind": kind_name(leaf.kind),
        "time": rfc3339(leaf.time),
        "time_micros": leaf.time.0,
        "user": leaf.user.map(|id| id.to_string()),
        "bucket": leaf.bucket.map(|id| id.to_string()),
        "version": leaf.version.map(|id| id.to_string()),
        "bytes": leaf.bytes,
        "subject": names.map(|names| text_or_hex(&names.subject)),
        "access_key": names.and_then(|names| names.access_key.as_ref()).map(|key| key.as_str()),
        "detail": detail,
    })
}

//! What answers say of lifecycle rules: `x-amz-expiration`, `x-amz-abort-date` and `x-amz-abort-rule-id`.
//!
//! A bucket's record tells whether it has rules at all, so one without pays nothing. Rules that were read are kept under
//! the bucket's number of document changes, which comes with the record: they are read again only after a change.
//! Nothing here decides anything, so nothing here fails: rules that can't be read are logged, and the headers left out.

use crate::http_date;
use crate::ops::Context;
use crate::ops::headers::header_value;
use http::HeaderMap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use valv_lifecycle::{Configuration, DayLength, Removal, Standing, Version};
use valv_metadata_api::{Bucket, BucketDocumentKind, GetBucketDocument, Metadata, NewBody, ObjectKey};
use valv_types::{BucketId, TimestampMicros};

/// Rules kept, of all buckets together. A rule is some 200 bytes, with long prefixes and ten tags a few KiB: a few MiB
/// usually, 50 MiB if somebody tries. A cache that would hold more is emptied.
const CACHED_RULES_MAX: usize = 20_000;
/// Buckets whose rules are kept.
const CACHED_BUCKETS_MAX: usize = 4_096;

/// A bucket's rules as read after so many changes of its documents.
struct Cached {
    changes: u64,
    rules: Arc<Configuration>,
}

/// The days that answers count. Always the calendar's: where an operator has made days short, so that rules can be tried
/// out, clients go on to reckon with what S3 documents, and so do the suites for which days are made short.
const DAY: DayLength = DayLength::CALENDAR;

/// Buckets' rules.
#[derive(Default)]
pub(crate) struct LifecycleRules {
    cached: Mutex<HashMap<BucketId, Cached>>,
}

impl LifecycleRules {
    /// The rules of a bucket that has some.
    async fn of(&self, metadata: &dyn Metadata, bucket: &Bucket) -> Option<Arc<Configuration>> {
        if !bucket.documents.contains(&BucketDocumentKind::Lifecycle) {
            return None;
        }
        let changes = bucket.document_changes;
        if let Some(cached) = self.cached.lock().get(&bucket.id).filter(|cached| cached.changes == changes) {
            return Some(Arc::clone(&cached.rules));
        }
        let request = GetBucketDocument { bucket: bucket.id, kind: BucketDocumentKind::Lifecycle };
        let rules = match metadata.get_bucket_document(request).await {
            Ok(document) => Configuration::decode(&document.body),
            Err(error) => {
                // Removed since the bucket was read, or metadata is away, which the request itself will tell.
                tracing::debug!(bucket = %bucket.id, %error, "no lifecycle rules for an answer's headers");
                return None;
            }
        };
        let rules = match rules {
            Ok(rules) => Arc::new(rules),
            Err(error) => {
                tracing::error!(bucket = %bucket.id, %error, "a bucket's lifecycle rules can't be read");
                return None;
            }
        };
        let mut cached = self.cached.lock();
        let held: usize = cached.values().map(|cached| cached.rules.rules().len()).sum();
        if held + rules.rules().len() > CACHED_RULES_MAX || cached.len() >= CACHED_BUCKETS_MAX {
            cached.clear();
        }
        cached.insert(bucket.id, Cached { changes, rules: Arc::clone(&rules) });
        Some(rules)
    }
}

/// What an answer says of a current version's end. Made before the version is, so that nothing can fail afterwards.
#[derive(Default)]
pub(crate) struct Expiring(Option<Rules>);

struct Rules {
    rules: Arc<Configuration>,
    key: ObjectKey,
    len_bytes: u64,
    tags: Vec<(String, String)>,
}

impl Expiring {
    /// For an object of `bucket` with this key, length and these tags.
    pub(crate) async fn of(
        cx: &Context,
        bucket: &Bucket,
        key: &ObjectKey,
        len_bytes: u64,
        tags: &[(String, String)],
    ) -> Self {
        let Some(rules) = cx.shared.lifecycle.of(cx.shared.metadata.as_ref(), bucket).await else {
            return Self::default();
        };
        Self(Some(Rules { rules, key: key.clone(), len_bytes, tags: tags.to_vec() }))
    }

    /// Adds `x-amz-expiration` if a rule will end the version, written at `modified`.
    pub(crate) fn add(&self, headers: &mut HeaderMap, modified: TimestampMicros) {
        let Some(Rules { rules, key, len_bytes, tags }) = &self.0 else { return };
        let version = Version {
            key: key.as_bytes(),
            len_bytes: *len_bytes,
            tags,
            modified,
            is_delete_marker: false,
            standing: Standing::Current { is_only: false },
        };
        let scheduled = rules.schedule(&version, DAY).filter(|scheduled| scheduled.removal == Removal::Expire);
        let Some(scheduled) = scheduled else { return };
        let (date, rule) = (date(scheduled.at), id_text(scheduled.rule.id()));
        headers.insert("x-amz-expiration", header_value(&format!("expiry-date=\"{date}\", rule-id=\"{rule}\"")));
    }
}

/// The length of the version that a body is to become.
pub(crate) fn len_of(body: &NewBody) -> u64 {
    match body {
        NewBody::Empty => 0,
        NewBody::Inline(blob, _) | NewBody::Blob(blob) => blob.len_bytes,
    }
}

/// Adds when an open upload is aborted, and by which rule, if any rule does.
pub(crate) async fn add_abort(
    cx: &Context,
    headers: &mut HeaderMap,
    bucket: &Bucket,
    key: &ObjectKey,
    initiated: TimestampMicros,
) {
    let lifecycle = &cx.shared.lifecycle;
    let Some(rules) = lifecycle.of(cx.shared.metadata.as_ref(), bucket).await else { return };
    if let Some((at, rule)) = rules.abort(key.as_bytes(), initiated, DAY) {
        headers.insert("x-amz-abort-date", header_value(&date(at)));
        headers.insert("x-amz-abort-rule-id", header_value(&id_text(rule.id())));
    }
}

/// An HTTP date has whole seconds; an end that lies within one is told as the next.
fn date(at: TimestampMicros) -> String {
    http_date::format_http(TimestampMicros::from_secs(at.0.div_ceil(1_000_000)))
}

/// A rule's id as it stands in a header. AWS documents it as URL-encoded and sends it as it is; so only what a quoted
/// header value can't carry is encoded: bytes that are not printable ASCII, and the quotation mark.
fn id_text(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for &byte in id.as_bytes() {
        match byte {
            b'"' => out.push_str("%22"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                // Writing to a String can't fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use valv_lifecycle::{Expiration, Filter, FilterForm, MinimumSize, Rule, Scope, SizeBounds, Status};

    fn rules(id: &str, expiration: Expiration) -> Arc<Configuration> {
        let filter = Filter::new(FilterForm::Single, Some("a/".to_owned()), vec![], SizeBounds::default());
        let scope = Scope::Filter(filter.expect("filter"));
        let rule = Rule::new(id.to_owned(), Status::Enabled, scope, Some(expiration), None, None).expect("rule");
        Arc::new(Configuration::new(vec![rule], MinimumSize::default()).expect("rules"))
    }

    fn told(rules: Arc<Configuration>, key: &str, modified: TimestampMicros) -> Option<String> {
        let key = ObjectKey::new(key).expect("key");
        let mut headers = HeaderMap::new();
        Expiring(Some(Rules { rules, key, len_bytes: 1, tags: Vec::new() })).add(&mut headers, modified);
        headers.get("x-amz-expiration").map(|value| value.to_str().expect("text").to_owned())
    }

    #[test]
    fn a_current_versions_end_is_told_as_aws_writes_it() {
        let modified = http_date::parse_iso8601("2012-12-16T10:30:00.5Z").expect("date");
        let four = rules("picture-deletion-rule", Expiration::days(4).expect("days"));
        assert_eq!(
            told(Arc::clone(&four), "a/b", modified).as_deref(),
            Some("expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\", rule-id=\"picture-deletion-rule\"")
        );
        assert_eq!(told(four, "b", modified), None);
        let markers = rules("m", Expiration::DeleteMarker(true));
        assert_eq!(told(markers, "a/b", modified), None);
    }

    #[test]
    fn an_id_that_no_header_can_carry_is_encoded() {
        assert_eq!(id_text("Delete after 14 days"), "Delete after 14 days");
        assert_eq!(id_text("å\"\r\n"), "%C3%A5%22%0D%0A");
        let odd = rules("å\"", Expiration::days(1).expect("days"));
        let told = told(odd, "a/", TimestampMicros(0)).expect("header");
        assert!(told.ends_with("rule-id=\"%C3%A5%22\""));
    }
}

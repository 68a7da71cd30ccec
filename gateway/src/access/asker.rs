//! Who asks, from where, and with which words: everything about a request that a decision may look at.

use super::Action;
use super::roles::{Reach, reach};
use super::rules::About;
use crate::host::Query;
use crate::http_date;
use crate::ops::copy::normal_copy_source;
use crate::ops::headers::{parse_tagging_header, retention_mode_name};
use crate::router::Operation;
use crate::sigv4::{Identity, SignedBy};
use http::HeaderMap;
use http::header::{IF_MATCH, IF_NONE_MATCH, REFERER, USER_AGENT};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use valv_metadata_api::{AccessGrant, Bucket, VersionSelector};
use valv_policy::ConditionKeys;
use valv_types::TimestampMicros;

/// A request's author and words.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    /// Who signed; `None` for an anonymous request.
    pub(crate) identity: Option<Identity>,
    pub(crate) operation: Operation,
    /// The client's address, as the socket or trusted proxies tell it; `None` if it is not known.
    pub(crate) client: Option<IpAddr>,
    pub(crate) is_tls: bool,
    pub(crate) headers: Arc<HeaderMap>,
    pub(crate) query: Arc<Query>,
    /// When the request came in.
    pub(crate) now: TimestampMicros,
}

impl Asker {
    /// Whether the operation lists keys: then a `prefix` in the query says which.
    pub(super) fn is_listing(&self) -> bool {
        matches!(
            self.operation,
            Operation::ListObjects
                | Operation::ListObjectsV2
                | Operation::ListObjectVersions
                | Operation::ListMultipartUploads
        )
    }

    /// Whether the asker's access key acts in the bucket's project. In a governed one that gives no right by itself: see
    /// [`Self::role_allows`].
    pub(crate) fn is_member(&self, bucket: &Bucket) -> bool {
        self.own_grant(bucket).is_some()
    }

    fn own_grant(&self, bucket: &Bucket) -> Option<&AccessGrant> {
        self.identity.as_ref().map(|identity| &identity.grant).filter(|grant| grant.project == bucket.project)
    }

    /// Whether the roles of the asker leave an action open, if the bucket is of the asker's own project. Nothing is said here
    /// against anybody else.
    pub(crate) fn role_allows(&self, action: Action, bucket: &Bucket, about: &About) -> bool {
        let Some(grant) = self.own_grant(bucket) else { return true };
        match reach(grant, action) {
            Reach::All => true,
            Reach::OwnUploads => about.upload_initiator.as_ref() == Some(&grant.canonical_id),
            Reach::Nothing => false,
        }
    }

    /// Whether who began an upload matters for what the asker may do with it.
    pub(crate) fn depends_on_initiator(&self, action: Action, bucket: &Bucket) -> bool {
        self.own_grant(bucket).is_none_or(|grant| reach(grant, action) == Reach::OwnUploads)
    }

    /// The same asker with what the access key stands for now.
    pub(crate) fn with_grant(&self, grant: AccessGrant) -> Self {
        let identity = self.identity.clone().map(|identity| Identity { grant, ..identity });
        Self { identity, ..self.clone() }
    }
}

/// Condition keys that are request headers of the same name ("Amazon S3 condition keys" of the user guide).
const HEADER_KEYS: [&str; 14] = [
    "x-amz-acl",
    "x-amz-content-sha256",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
    "x-amz-metadata-directive",
    "x-amz-object-ownership",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
];

/// The condition keys of one request, as far as they are known for what it is about.
///
/// A value counts only where the operation acts on it. A word that does nothing could say whatever a condition wants to
/// hear: a `prefix` beside a GET of a key, tags in a header beside those of a body.
pub(crate) struct Keys<'a> {
    pub(crate) asker: &'a Asker,
    pub(crate) about: &'a About,
    /// When the decision is made, for `aws:CurrentTime`: a transfer is judged again while it runs.
    pub(crate) now: TimestampMicros,
}

impl Keys<'_> {
    fn header(&self, name: &str) -> Option<Vec<Cow<'_, str>>> {
        let value = self.asker.headers.get(name)?;
        Some(vec![String::from_utf8_lossy(value.as_bytes())])
    }

    fn query(&self, name: &str) -> Option<Vec<Cow<'_, str>>> {
        Some(vec![String::from_utf8_lossy(self.asker.query.get_bytes(name)?)])
    }

    /// Tags that the request gives an object.
    fn request_tags(&self) -> Vec<(String, String)> {
        match self.asker.operation {
            Operation::PutObjectTagging => return self.about.given.tags.clone(),
            // The copy gets its source's; the header is ignored.
            Operation::CopyObject
                if self.header("x-amz-tagging-directive").is_none_or(|values| values != ["REPLACE"]) =>
            {
                return Vec::new();
            }
            _ => {}
        }
        let header = self.asker.headers.get("x-amz-tagging");
        header.and_then(|header| parse_tagging_header(header.as_bytes()).ok()).unwrap_or_default()
    }

    fn version(&self) -> Option<String> {
        match self.about.version {
            VersionSelector::Current => None,
            VersionSelector::Null => Some("null".to_owned()),
            VersionSelector::Id(id) => Some(id.to_string()),
        }
    }

    /// What is said of retention and hold: by the body of the operations that change them, by headers elsewhere.
    fn lock(&self, name: &str) -> Option<Vec<Cow<'_, str>>> {
        let given = &self.about.given;
        let is_in_body = matches!(self.asker.operation, Operation::PutObjectRetention | Operation::PutObjectLegalHold);
        let until = match (is_in_body, given.retention) {
            (true, retention) => retention.map(|retention| retention.until),
            (false, _) => {
                let header = self.asker.headers.get("x-amz-object-lock-retain-until-date");
                header.and_then(|header| http_date::parse_iso8601(header.to_str().ok()?))
            }
        };
        let text: Cow<'_, str> = match name {
            "object-lock-remaining-retention-days" => {
                const MICROS_PER_DAY: u64 = 24 * 60 * 60 * 1_000_000;
                // A day begun is a day: who asks for ten days has not asked for nine because the request took a second.
                until?.0.saturating_sub(self.now.0).div_ceil(MICROS_PER_DAY).to_string().into()
            }
            "object-lock-mode" if is_in_body => retention_mode_name(given.retention?.mode).into(),
            "object-lock-retain-until-date" if is_in_body => http_date::format_iso8601(until?).into(),
            "object-lock-legal-hold" if is_in_body => if given.legal_hold? { "ON" } else { "OFF" }.into(),
            "object-lock-mode" => return self.header("x-amz-object-lock-mode"),
            "object-lock-retain-until-date" => return self.header("x-amz-object-lock-retain-until-date"),
            "object-lock-legal-hold" => return self.header("x-amz-object-lock-legal-hold"),
            _ => return None,
        };
        Some(vec![text])
    }

    /// Whether the request makes an object, which the beginnings of a multipart upload don't: for policies that demand
    /// conditional writes ("Enforce conditional writes on Amazon S3 buckets").
    fn creates_object(&self) -> Option<bool> {
        match self.asker.operation {
            Operation::PutObject
            | Operation::PostObject
            | Operation::CopyObject
            | Operation::CompleteMultipartUpload => Some(true),
            Operation::CreateMultipartUpload | Operation::UploadPart | Operation::UploadPartCopy => Some(false),
            _ => None,
        }
    }

    fn aws(&self, name: &str) -> Option<Vec<Cow<'_, str>>> {
        let text: Cow<'_, str> = match name {
            "sourceip" => self.asker.client?.to_string().into(),
            "securetransport" => self.asker.is_tls.to_string().into(),
            "currenttime" => http_date::format_iso8601(self.now).into(),
            "epochtime" => self.now.as_secs().to_string().into(),
            "useragent" => return self.header(USER_AGENT.as_str()),
            "referer" => return self.header(REFERER.as_str()),
            _ => return None,
        };
        Some(vec![text])
    }

    fn s3(&self, name: &str, original: &str) -> Option<Vec<Cow<'_, str>>> {
        let asker = self.asker;
        let text = match name {
            "prefix" | "delimiter" | "max-keys" => return self.query(name).filter(|_| self.asker.is_listing()),
            "versionid" => Cow::Owned(self.version()?),
            "x-amz-copy-source" => Cow::Owned(normal_copy_source(asker.headers.get(name)?.as_bytes())),
            "objectcreationoperation" => Cow::Owned(self.creates_object()?.to_string()),
            "if-match" if asker.operation == Operation::DeleteObjects => {
                Cow::Borrowed(self.about.given.if_match.as_deref()?)
            }
            "if-match" => return self.header(IF_MATCH.as_str()),
            "if-none-match" => return self.header(IF_NONE_MATCH.as_str()),
            "signatureversion" => match asker.identity.as_ref()?.signed_by {
                SignedBy::Header | SignedBy::Presigned | SignedBy::FormPolicy => Cow::Borrowed("AWS4-HMAC-SHA256"),
                SignedBy::PresignedV2 | SignedBy::FormPolicyV2 => Cow::Borrowed("AWS"),
            },
            "signatureage" => {
                let signed = asker.identity.as_ref()?;
                if matches!(signed.signed_by, SignedBy::PresignedV2 | SignedBy::FormPolicyV2) {
                    return None;
                }
                let age_micros = asker.now.0.saturating_sub(signed.signed_at.0);
                Cow::Owned((age_micros / 1_000).to_string())
            }
            "authtype" => match asker.identity.as_ref()?.signed_by {
                SignedBy::Header => Cow::Borrowed("REST-HEADER"),
                SignedBy::Presigned | SignedBy::PresignedV2 => Cow::Borrowed("REST-QUERY-STRING"),
                SignedBy::FormPolicy | SignedBy::FormPolicyV2 => Cow::Borrowed("POST"),
            },
            _ if name.starts_with("object-lock-") => return self.lock(name),
            "requestobjecttagkeys" => {
                let keys: Vec<_> = self.request_tags().into_iter().map(|(key, _)| Cow::Owned(key)).collect();
                return if keys.is_empty() { None } else { Some(keys) };
            }
            _ if name.starts_with("existingobjecttag/") => {
                let key = original.split_once('/')?.1;
                let (_, value) = self.about.object.as_ref()?.tags.iter().find(|(tag, _)| tag == key)?;
                Cow::Borrowed(value.as_str())
            }
            _ if name.starts_with("requestobjecttag/") => {
                let key = original.split_once('/')?.1;
                Cow::Owned(self.request_tags().into_iter().find(|(tag, _)| tag == key)?.1)
            }
            _ if HEADER_KEYS.contains(&name) => return self.header(name),
            _ => return None,
        };
        Some(vec![text])
    }
}

impl ConditionKeys for Keys<'_> {
    fn values(&self, key: &str) -> Option<Vec<Cow<'_, str>>> {
        let (vendor, name) = key.split_once(':')?;
        let lower = name.to_ascii_lowercase();
        if vendor.eq_ignore_ascii_case("aws") {
            self.aws(&lower)
        } else if vendor.eq_ignore_ascii_case("s3") {
            self.s3(&lower, name)
        } else {
            None
        }
    }
}

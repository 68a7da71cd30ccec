//! Who asks, from where, and with which words: everything about a request that a decision may look at.

use crate::host::Query;
use crate::sigv4::Identity;
use http::HeaderMap;
use std::net::SocketAddr;
use std::sync::Arc;
use valv_metadata_api::Bucket;
use valv_types::TimestampMicros;

/// A request's author and words.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "read by the conditions of bucket policies")]
pub(crate) struct Asker {
    /// Who signed; `None` for an anonymous request.
    pub(crate) identity: Option<Identity>,
    pub(crate) peer: SocketAddr,
    pub(crate) is_tls: bool,
    pub(crate) headers: Arc<HeaderMap>,
    pub(crate) query: Arc<Query>,
    /// When the request came in.
    pub(crate) now: TimestampMicros,
}

impl Asker {
    /// Whether the asker is a member of the bucket's project.
    pub(crate) fn is_member(&self, bucket: &Bucket) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.grant.project == bucket.project)
    }
}

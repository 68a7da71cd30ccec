//! Which requests are accesses, and what the ledger says of them.
//!
//! Every request that asks for something of a bucket (GET, HEAD and lists, of objects and of settings) and every refusal for
//! lack of a right is recorded when its answer is known and before it is given. Downloads and copies, which move an object's
//! bytes, are recorded by themselves before the first byte, with [`begin`]. What changes something has its own event, in the
//! commit that makes the change.

use super::{Answer, Context};
use crate::access::About;
use crate::accesses::{NewAccess, Ticket};
use crate::error::{S3Code, S3Error};
use crate::router::Operation;
use http::StatusCode;
use http_body::Body as _;
use std::ops::Range;
use valv_ledger::AccessState;
use valv_metadata_api::{Bucket, ObjectKey, VersionSelector};
use valv_types::{BucketId, ProjectId, VersionId};

/// What a request has met that its record may need.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// The version that was read last.
    version: Option<VersionId>,
    /// Every right that was missing.
    denials: Vec<Denial>,
    /// The operation records its access itself.
    is_recorded: bool,
}

/// A right that was missing.
#[derive(Debug, Clone)]
struct Denial {
    project: ProjectId,
    bucket: BucketId,
    version: Option<VersionId>,
    key: Option<ObjectKey>,
}

impl Met {
    /// A version's record was read.
    pub(crate) fn version(&mut self, version: VersionId) {
        self.version = Some(version);
    }

    /// What was missing last was missing on this key.
    pub(crate) fn key(&mut self, key: &ObjectKey) {
        if let Some(denial) = self.denials.last_mut() {
            denial.key.get_or_insert_with(|| key.clone());
        }
    }

    /// `judged` is an answer about a right on `bucket`: a refusal is noted. `version` is what it is about, if that is known.
    pub(crate) fn judged<T>(
        &mut self,
        bucket: &Bucket,
        about: &About,
        version: Option<VersionId>,
        judged: Result<T, S3Error>,
    ) -> Result<T, S3Error> {
        if judged.as_ref().is_err_and(is_denial) {
            let named = match about.version {
                VersionSelector::Id(id) => Some(id),
                VersionSelector::Current | VersionSelector::Null => None,
            };
            let version = version.or_else(|| about.object.as_ref()?.id).or(named);
            let key = about.key.clone();
            self.denials.push(Denial { project: bucket.project, bucket: bucket.id, version, key });
        }
        judged
    }
}

fn is_denial(error: &S3Error) -> bool {
    error.code() == S3Code::AccessDenied
}

/// Whether the operation asks and changes nothing.
fn asks_only(operation: Operation) -> bool {
    // AWS's own way of naming.
    ["Get", "Head", "List"].iter().any(|word| operation.name().starts_with(word))
}

impl Context {
    /// An access by this request, to nothing yet.
    fn access_to(&self, project: ProjectId, bucket: Option<BucketId>, status: u16) -> NewAccess {
        let identity = self.identity();
        NewAccess {
            project,
            action: self.operation.name(),
            user: identity.map(|identity| identity.grant.user),
            access_key: identity.map(|identity| identity.access_key.clone()),
            remote: self.asker.client.unwrap_or_else(|| self.conn.peer.ip()),
            request: self.conn.request_id,
            time: self.now,
            bucket,
            version: None,
            opening: self.opening(),
            range: 0..0,
            bytes: 0,
            status,
            state: AccessState::Answered,
            subject: Vec::new(),
        }
    }
}

/// Begins to record that this request reads `range` of an object version. No byte may leave before the ticket says that it is
/// recorded; what was sent is told to the ticket.
///
/// # Errors
/// As [`crate::accesses::AccessRecorder::begin`].
pub(crate) fn begin(
    cx: &Context,
    bucket: &Bucket,
    version: VersionId,
    range: Range<u64>,
    status: StatusCode,
) -> Result<Ticket, S3Error> {
    cx.met.lock().is_recorded = true;
    let bytes = range.end - range.start;
    let access = cx.access_to(bucket.project, Some(bucket.id), status.as_u16());
    cx.shared.accesses.begin(NewAccess { version: Some(version), range, bytes, state: AccessState::Begun, ..access })
}

/// Records what an answer tells, or that it refuses, and hands the answer on when that is durable.
pub(crate) async fn answered(cx: &Context, answer: Answer) -> Answer {
    let accesses = accesses_of(cx, &answer);
    let mut tickets = Vec::with_capacity(accesses.len());
    for access in accesses {
        tickets.push(cx.shared.accesses.begin(access)?);
    }
    for mut ticket in tickets {
        ticket.recorded().await?;
    }
    answer
}

fn accesses_of(cx: &Context, answer: &Answer) -> Vec<NewAccess> {
    let mut met = cx.met.lock();
    let is_denied = answer.as_ref().is_err_and(is_denial);
    let denied = |denial: &Denial| {
        let access = cx.access_to(denial.project, Some(denial.bucket), StatusCode::FORBIDDEN.as_u16());
        NewAccess { version: denial.version, subject: subject(denial.version, denial.key.as_ref()), ..access }
    };
    if cx.operation == Operation::DeleteObjects && !is_denied {
        // One answer for many keys.
        return std::mem::take(&mut met.denials).iter().map(denied).collect();
    }
    if is_denied && let Some(denial) = met.denials.last() {
        return vec![denied(denial)];
    }
    if !is_denied && (met.is_recorded || !asks_only(cx.operation)) {
        return Vec::new();
    }
    let (status, bytes) = match answer {
        Ok(response) if response.status().is_success() => {
            (response.status(), response.body().size_hint().exact().unwrap_or_default())
        }
        Ok(response) => (response.status(), 0),
        Err(error) => (error.status(), 0),
    };
    if status.is_server_error() {
        // Nothing was told.
        return Vec::new();
    }
    // Who asks for a bucket that does not exist, without a signature or in a project of his own, has accessed nothing.
    let (project, bucket) = match (cx.seen_bucket(), cx.identity()) {
        (Some(bucket), _) => (bucket.project, Some(bucket.id)),
        (None, Some(identity)) if is_denied || cx.operation == Operation::ListBuckets => (identity.grant.project, None),
        (None, _) => return Vec::new(),
    };
    let subject = match (&cx.target.key, cx.query.get_bytes("prefix")) {
        (None, Some(prefix)) if cx.operation.name().starts_with("List") => prefix.to_vec(),
        (key, _) => subject(met.version, key.as_ref()),
    };
    let access = cx.access_to(project, bucket, status.as_u16());
    vec![NewAccess { version: met.version, bytes, subject, ..access }]
}

/// A key is named only where no version stands for it: the version's own record has it.
fn subject(version: Option<VersionId>, key: Option<&ObjectKey>) -> Vec<u8> {
    match (version, key) {
        (None, Some(key)) => key.as_bytes().to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_only_is_told_by_its_name() {
        let asking = Operation::ALL.iter().filter(|operation| asks_only(**operation));
        for operation in asking.clone() {
            let name = operation.name();
            assert!(
                !["Put", "Delete", "Create", "Copy", "Upload", "Complete", "Abort"]
                    .iter()
                    .any(|word| name.starts_with(word))
            );
        }
        for operation in [
            Operation::GetObject,
            Operation::HeadObject,
            Operation::HeadBucket,
            Operation::ListParts,
            Operation::ListObjectVersions,
            Operation::GetObjectAttributes,
            Operation::GetBucketPolicyStatus,
        ] {
            assert!(asks_only(operation), "{operation:?}");
        }
        assert!(
            !asks_only(Operation::CopyObject) && !asks_only(Operation::PostObject) && !asks_only(Operation::Preflight)
        );
        assert!(asking.count() > 30);
    }
}

//! Transfers that outlast a lease: each second they ask whether their right still holds.

use super::{About, Action, Asker, ObjectFacts, judge};
use crate::error::{S3Code, S3Error};
use crate::state::Shared;
use std::sync::Arc;
use std::time::{Duration, Instant};
use valv_metadata_api::{Bucket, GetBucket, GetObject, MetadataError, VersionSelector};
use valv_types::{OpeningId, TimestampMicros};

/// How often a running transfer asks whether it still may.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// One thing that a request was allowed to do.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) action: Action,
    pub(crate) bucket: Bucket,
    pub(crate) about: Arc<About>,
    /// The opening by which it was allowed, to a stranger.
    pub(crate) opening: Option<OpeningId>,
}

/// Keeps asking, during a transfer, whether its right still holds.
pub(crate) struct AccessWatch {
    shared: Arc<Shared>,
    asker: Arc<Asker>,
    judged: Vec<Judged>,
    next: Instant,
}

impl AccessWatch {
    /// Watches over a transfer of `asker`, who was allowed everything in `judged`.
    pub(crate) fn new(shared: Arc<Shared>, asker: Arc<Asker>, judged: Vec<Judged>) -> Self {
        Self { shared, asker, judged, next: Instant::now() + WATCH_INTERVAL }
    }

    /// To be called with every piece; asks once a second.
    ///
    /// # Errors
    /// AccessDenied if the key is gone or stands for somebody else, or if the bucket's rules no longer allow what they
    /// allowed; ServiceUnavailable if that can't be learnt.
    pub(crate) async fn check(&mut self) -> Result<(), S3Error> {
        let now = Instant::now();
        if now < self.next {
            return Ok(());
        }
        self.renew().await?;
        self.next = now + WATCH_INTERVAL;
        Ok(())
    }

    /// Waits until [`Self::check`] will ask again. Cancel safe.
    pub(crate) async fn due(&self) {
        tokio::time::sleep_until(self.next.into()).await;
    }

    async fn renew(&self) -> Result<(), S3Error> {
        let grant = self.shared.principals.still_granted(&self.asker).await?;
        // By the roles that the user has now, not by those at the beginning.
        let asker = grant.map_or_else(|| Arc::clone(&self.asker), |grant| Arc::new(self.asker.with_grant(grant)));
        for judged in &self.judged {
            let request = GetBucket { namespace: judged.bucket.namespace, name: judged.bucket.name.clone() };
            let bucket = match self.shared.metadata.get_bucket(request).await {
                Ok(bucket) if bucket.id == judged.bucket.id => bucket,
                Ok(_) | Err(MetadataError::NoSuchBucket) => return Err(S3Code::AccessDenied.into()),
                Err(error) => return Err(error.into()),
            };
            let about = self.about_now(judged, &bucket).await?;
            let about = About { only: judged.opening, ..About::clone(&about) };
            let now = TimestampMicros::now();
            judge(&self.shared.rules, &asker, judged.action, &bucket, &about, now).await?;
        }
        Ok(())
    }

    /// What was judged, with the ACL and the tags that the object has now. One that was removed keeps those it had: its
    /// reader had begun before.
    async fn about_now(&self, judged: &Judged, bucket: &Bucket) -> Result<Arc<About>, S3Error> {
        let id = judged.about.object.as_ref().and_then(|object| object.id);
        let (Some(key), Some(id)) = (&judged.about.key, id) else { return Ok(Arc::clone(&judged.about)) };
        let version = VersionSelector::Id(id);
        let request = GetObject { bucket: bucket.id, key: key.clone(), version, with_inline: false };
        match self.shared.metadata.get_object(request).await {
            Ok(found) => {
                let facts = ObjectFacts::of(&self.shared.principals, bucket, &found).await?;
                Ok(Arc::new(About { object: Some(facts), ..About::clone(&judged.about) }))
            }
            Err(MetadataError::NoSuchKey | MetadataError::NoSuchVersion) => Ok(Arc::clone(&judged.about)),
            Err(error) => Err(error.into()),
        }
    }
}

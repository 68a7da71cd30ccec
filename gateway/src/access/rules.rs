//! What a decision may look at besides who asks.

use super::Principals;
use crate::error::S3Error;
use valv_metadata_api::{Bucket, FoundObject};

/// What a decision may look at of an object.
#[derive(Debug, Clone, Default)]
#[expect(dead_code, reason = "read by bucket policies and ACLs")]
pub(crate) struct ObjectFacts {
    /// Its owner's canonical id; `None` if it is the bucket's owner.
    pub(crate) foreign_owner: Option<String>,
    pub(crate) tags: Vec<(String, String)>,
}

impl ObjectFacts {
    /// Reads them of a version. Whoever wrote it with a key of the bucket's project wrote it for the bucket's owner.
    ///
    /// # Errors
    /// That metadata can't be reached.
    pub(crate) async fn of(principals: &Principals, bucket: &Bucket, found: &FoundObject) -> Result<Self, S3Error> {
        let foreign_owner = match found.version.owner {
            Some(owner) if owner != bucket.owner => principals
                .user(owner)
                .await?
                .filter(|owner| owner.project != bucket.project)
                .map(|owner| owner.canonical_id.clone()),
            _ => None,
        };
        Ok(Self { foreign_owner, tags: found.version.attributes.tags.clone() })
    }
}

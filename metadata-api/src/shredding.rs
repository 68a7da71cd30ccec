//! Destroying keys on purpose.

use crate::ObjectKey;
use minicbor::{Decode, Encode};
use valv_types::{BucketId, ProjectId, VersionId};

/// Destroys all versions of a project's key. Refused while anything in the project is under retention or legal hold.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ShredProject {
    /// The project.
    #[n(0)]
    pub project: ProjectId,
}

/// Destroys the key of one object version. Refused under retention or legal hold, and while another version shares its data.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ShredObject {
    /// The project.
    #[n(0)]
    pub project: ProjectId,
    /// The bucket.
    #[n(1)]
    pub bucket: BucketId,
    /// The object's key.
    #[n(2)]
    pub key: ObjectKey,
    /// The version.
    #[n(3)]
    pub version: VersionId,
}

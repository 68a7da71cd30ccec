//! What somebody may be allowed to do: the actions of S3's policies, one for each right that an operation needs.
//!
//! Source: "Actions, resources, and condition keys for Amazon S3" of the Service Authorization Reference.

use crate::router::Operation;
use valv_metadata_api::VersionSelector;

macro_rules! actions {
    ($( $name:ident; )*) => {
        /// An action of `s3:`, by the name that AWS gives it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are AWS's; the Service Authorization Reference documents them")]
        pub enum Action {
            $( $name, )*
        }

        impl Action {
            /// The name as policies write it, such as `s3:GetObject`.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$name => concat!("s3:", stringify!($name)), )*
                }
            }
        }
    };
}

actions! {
    ListBucket; ListBucketVersions; ListBucketMultipartUploads; ListMultipartUploadParts; DeleteBucket;
    GetBucketLocation; GetBucketVersioning; PutBucketVersioning; GetBucketTagging; PutBucketTagging;
    GetBucketCORS; PutBucketCORS; GetBucketAcl; PutBucketAcl; GetBucketPolicy; PutBucketPolicy; DeleteBucketPolicy;
    GetBucketPolicyStatus; GetLifecycleConfiguration; PutLifecycleConfiguration; GetEncryptionConfiguration;
    PutEncryptionConfiguration; GetBucketOwnershipControls; PutBucketOwnershipControls; GetBucketPublicAccessBlock;
    PutBucketPublicAccessBlock; GetBucketObjectLockConfiguration; PutBucketObjectLockConfiguration; GetBucketLogging;
    PutBucketLogging; GetBucketNotification; PutBucketNotification; GetBucketRequestPayment; PutBucketRequestPayment;
    GetBucketWebsite; PutBucketWebsite; DeleteBucketWebsite; GetReplicationConfiguration; PutReplicationConfiguration;
    GetAccelerateConfiguration; PutAccelerateConfiguration; GetAnalyticsConfiguration; GetInventoryConfiguration;
    GetMetricsConfiguration; GetIntelligentTieringConfiguration; GetObject; GetObjectVersion; GetObjectAttributes;
    GetObjectVersionAttributes; PutObject; DeleteObject; DeleteObjectVersion; AbortMultipartUpload; GetObjectTagging;
    GetObjectVersionTagging; PutObjectTagging; PutObjectVersionTagging; DeleteObjectTagging;
    DeleteObjectVersionTagging; GetObjectAcl; GetObjectVersionAcl; PutObjectAcl; PutObjectVersionAcl;
    GetObjectRetention; PutObjectRetention; GetObjectLegalHold; PutObjectLegalHold; BypassGovernanceRetention;
}

impl Action {
    /// The action's twin for a request that names a version, where S3 tells the two apart.
    #[must_use]
    pub const fn of_version(self, selector: VersionSelector) -> Self {
        if matches!(selector, VersionSelector::Current) {
            return self;
        }
        match self {
            Self::GetObject => Self::GetObjectVersion,
            Self::GetObjectAttributes => Self::GetObjectVersionAttributes,
            Self::DeleteObject => Self::DeleteObjectVersion,
            Self::GetObjectTagging => Self::GetObjectVersionTagging,
            Self::PutObjectTagging => Self::PutObjectVersionTagging,
            Self::DeleteObjectTagging => Self::DeleteObjectVersionTagging,
            Self::GetObjectAcl => Self::GetObjectVersionAcl,
            Self::PutObjectAcl => Self::PutObjectVersionAcl,
            other => other,
        }
    }

    /// The right that an operation on a bucket's settings needs; `None` for every other operation.
    pub const fn of_settings(operation: Operation) -> Option<Self> {
        Some(match operation {
            Operation::GetBucketLocation => Self::GetBucketLocation,
            Operation::GetBucketVersioning => Self::GetBucketVersioning,
            Operation::PutBucketVersioning => Self::PutBucketVersioning,
            Operation::GetBucketTagging => Self::GetBucketTagging,
            Operation::PutBucketTagging | Operation::DeleteBucketTagging => Self::PutBucketTagging,
            Operation::GetBucketCors => Self::GetBucketCORS,
            Operation::PutBucketCors | Operation::DeleteBucketCors => Self::PutBucketCORS,
            Operation::GetBucketAcl => Self::GetBucketAcl,
            Operation::PutBucketAcl => Self::PutBucketAcl,
            Operation::GetBucketPolicy => Self::GetBucketPolicy,
            Operation::PutBucketPolicy => Self::PutBucketPolicy,
            Operation::DeleteBucketPolicy => Self::DeleteBucketPolicy,
            Operation::GetBucketPolicyStatus => Self::GetBucketPolicyStatus,
            Operation::GetBucketLifecycle => Self::GetLifecycleConfiguration,
            Operation::PutBucketLifecycle | Operation::DeleteBucketLifecycle => Self::PutLifecycleConfiguration,
            Operation::GetBucketEncryption => Self::GetEncryptionConfiguration,
            Operation::PutBucketEncryption | Operation::DeleteBucketEncryption => Self::PutEncryptionConfiguration,
            Operation::GetBucketOwnershipControls => Self::GetBucketOwnershipControls,
            Operation::PutBucketOwnershipControls | Operation::DeleteBucketOwnershipControls => {
                Self::PutBucketOwnershipControls
            }
            Operation::GetPublicAccessBlock => Self::GetBucketPublicAccessBlock,
            Operation::PutPublicAccessBlock | Operation::DeletePublicAccessBlock => Self::PutBucketPublicAccessBlock,
            Operation::GetObjectLockConfiguration => Self::GetBucketObjectLockConfiguration,
            Operation::PutObjectLockConfiguration => Self::PutBucketObjectLockConfiguration,
            Operation::GetBucketLogging => Self::GetBucketLogging,
            Operation::PutBucketLogging => Self::PutBucketLogging,
            Operation::GetBucketNotification => Self::GetBucketNotification,
            Operation::PutBucketNotification => Self::PutBucketNotification,
            Operation::GetBucketRequestPayment => Self::GetBucketRequestPayment,
            Operation::PutBucketRequestPayment => Self::PutBucketRequestPayment,
            Operation::GetBucketWebsite => Self::GetBucketWebsite,
            Operation::PutBucketWebsite => Self::PutBucketWebsite,
            Operation::DeleteBucketWebsite => Self::DeleteBucketWebsite,
            Operation::GetBucketReplication => Self::GetReplicationConfiguration,
            Operation::PutBucketReplication | Operation::DeleteBucketReplication => Self::PutReplicationConfiguration,
            Operation::GetBucketAccelerate => Self::GetAccelerateConfiguration,
            Operation::PutBucketAccelerate => Self::PutAccelerateConfiguration,
            Operation::ListBucketAnalytics | Operation::GetBucketAnalytics => Self::GetAnalyticsConfiguration,
            Operation::ListBucketInventory | Operation::GetBucketInventory => Self::GetInventoryConfiguration,
            Operation::ListBucketMetrics | Operation::GetBucketMetrics => Self::GetMetricsConfiguration,
            Operation::ListBucketIntelligentTiering | Operation::GetBucketIntelligentTiering => {
                Self::GetIntelligentTieringConfiguration
            }
            _ => return None,
        })
    }
}

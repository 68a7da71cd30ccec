//! What the data path refuses, as S3 says it: one exhaustive match.

use crate::data::DataError;
use crate::error::{S3Code, S3Error};

impl From<DataError> for S3Error {
    fn from(error: DataError) -> Self {
        let code = match &error {
            DataError::Metadata(metadata) => return metadata.clone().into(),
            // SDKs repeat both by themselves, SlowDown with a longer pause.
            DataError::Overloaded => S3Code::SlowDown,
            DataError::NotEnoughDisks { .. }
            | DataError::NotEnoughShards { .. }
            | DataError::Fenced
            | DataError::NotReady
            | DataError::Stopped => S3Code::ServiceUnavailable,
            DataError::Revoked => S3Code::AccessDenied,
            DataError::Corrupt { .. }
            | DataError::Key(_)
            | DataError::UnknownPool { .. }
            | DataError::Layout(_)
            | DataError::LongerThanAnnounced { .. }
            | DataError::Misuse
            | DataError::Erasure(_) => S3Code::InternalError,
        };
        Self::new(code).with_source(error)
    }
}

//! Doors to parsers that nothing outside the gateway has a use for, except the fuzz targets.

use crate::error::S3Error;
use crate::ops::copy::CopySource;
use valv_metadata_api::{ObjectKey, VersionSelector};

/// Reads `x-amz-copy-source`: bucket, key and version.
///
/// # Errors
/// InvalidArgument, KeyTooLongError, NotImplemented for access points.
pub fn copy_source(header: &str) -> Result<(String, ObjectKey, VersionSelector), S3Error> {
    let CopySource { bucket, key, version } = CopySource::parse(header)?;
    Ok((bucket, key, version))
}

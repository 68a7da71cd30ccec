//! Doors to parsers that nothing outside the gateway has a use for, except the fuzz targets.

use crate::error::S3Error;
use crate::ops::copy::CopySource;
use valv_lifecycle::MinimumSize;
use valv_metadata_api::{ObjectKey, VersionSelector};

/// Reads `x-amz-copy-source`: bucket, key and version.
///
/// # Errors
/// InvalidArgument, KeyTooLongError, NotImplemented for access points.
pub fn copy_source(header: &str) -> Result<(String, ObjectKey, VersionSelector), S3Error> {
    let CopySource { bucket, key, version } = CopySource::parse(header)?;
    Ok((bucket, key, version))
}

/// Reads a lifecycle configuration as a PUT does. Returns its bytes at rest, and the document that a GET gives back.
///
/// # Errors
/// What a PUT of it answers.
pub fn lifecycle(document: &[u8]) -> Result<(Vec<u8>, String), S3Error> {
    let tree = crate::xml::parse(document, "LifecycleConfiguration")?;
    let configuration = crate::ops::lifecycle::read(&tree, MinimumSize::default())?;
    Ok((configuration.encode(), crate::ops::lifecycle::write(&configuration)))
}

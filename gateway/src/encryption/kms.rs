//! The project's key by the names that SSE-KMS gives to keys.
//!
//! There is no KMS: a project has one key, in versions, and every object of the project is sealed under it whichever way
//! it is asked for. So that nobody believes otherwise, a name of any other key is refused.

use crate::error::{S3Code, S3Error};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::HashMap;
use valv_types::ProjectId;

/// Longest key name (AWS KMS: 2,048).
pub(crate) const KEY_ID_LEN_BYTES_MAX: usize = 2048;
/// Longest encryption context, in base64. AWS names no number for S3; KMS bounds it by what a request may hold, and S3 bounds all
/// metadata headers by 8 KiB.
const CONTEXT_LEN_BYTES_MAX: usize = 8 * 1024;
/// The project's key by a name that is the same in every project, and the name that AWS gives to S3's own key.
const ALIASES: [&str; 2] = ["alias/project", "alias/aws/s3"];

/// What this endpoint knows keys by.
pub(crate) struct Names<'a> {
    /// The region that ARNs name: the endpoint's own.
    pub(crate) region: &'a str,
    /// Regions that it answers to as well.
    pub(crate) regions_also: &'a [String],
    /// Further names that the operator gives to every project's key.
    pub(crate) declared: &'a [String],
}

/// The name that answers give to a project's key.
pub(crate) fn key_arn(region: &str, project: ProjectId) -> String {
    format!("arn:aws:kms:{region}:{project}:key/{project}")
}

/// Whether `id` is the project's, as 32 hexadecimal digits or with hyphens as UUIDs are written.
fn is_project(id: &str, project: ProjectId) -> bool {
    id.len() <= 36 && id.replace('-', "").eq_ignore_ascii_case(&project.to_string())
}

/// Refuses a key that is not the project's. Returns the name that answers are to give it, if it is not the ARN: what the
/// operator declared goes back as it came, because its clients know the key by it.
///
/// # Errors
/// KMS.NotFoundException.
pub(crate) fn find_key(id: &str, names: &Names<'_>, project: ProjectId) -> Result<Option<String>, S3Error> {
    if names.declared.iter().any(|name| name == id) {
        return Ok(Some(id.to_owned()));
    }
    let own = |what: &str| match what.strip_prefix("key/") {
        Some(key) => is_project(key, project),
        None => ALIASES.contains(&what),
    };
    let arn = id.strip_prefix("arn:aws:kms:").and_then(|rest| {
        let mut parts = rest.splitn(3, ':');
        Some((parts.next()?, parts.next()?, parts.next()?))
    });
    let is_own = match arn {
        Some((region, account, what)) => {
            let is_here = region == names.region || names.regions_also.iter().any(|also| also == region);
            is_here && is_project(account, project) && own(what)
        }
        None => is_project(id, project) || ALIASES.contains(&id),
    };
    if is_own {
        return Ok(None);
    }
    let base = format!("arn:aws:kms:{}:{project}:", names.region);
    let message = match (id.starts_with("arn:"), id.starts_with("alias/")) {
        (true, _) => format!("Key '{id}' does not exist"),
        (_, true) => format!("Alias {base}{id} is not found."),
        (false, false) => format!("Key '{base}key/{id}' does not exist"),
    };
    Err(S3Error::new(S3Code::KmsNotFoundException).with_message(message))
}

/// Reads an encryption context: base64 of a JSON object of strings. Returns it as it came.
///
/// # Errors
/// InvalidArgument.
pub(crate) fn check_context(header: &[u8]) -> Result<String, S3Error> {
    let invalid = || {
        S3Error::invalid_argument(
            "The header 'x-amz-server-side-encryption-context' shall be Base64-encoded UTF-8 string holding JSON which \
             represents a string-string map",
            super::KMS_CONTEXT.as_str(),
            "",
        )
    };
    let text = std::str::from_utf8(header).ok().filter(|text| text.len() <= CONTEXT_LEN_BYTES_MAX);
    let text = text.ok_or_else(invalid)?;
    let json = BASE64.decode(text).map_err(|_| invalid())?;
    serde_json::from_slice::<HashMap<String, String>>(&json).map_err(|_| invalid())?;
    Ok(text.to_owned())
}

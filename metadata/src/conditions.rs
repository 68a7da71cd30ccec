//! Preconditions of writes, judged inside the commit attempt against the version just read.

use valv_metadata_api::{MetadataError, Precondition, WriteCondition};
use valv_types::TimestampMicros;

/// The version that a condition is judged against: not a delete marker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current {
    pub(crate) order: TimestampMicros,
    pub(crate) len_bytes: u64,
}

/// Judges `condition`. `etag` opens the version's ETag; it is asked only when the condition names ETags.
pub(crate) fn check(
    condition: &WriteCondition,
    current: Option<Current>,
    etag: impl Fn() -> Result<String, MetadataError>,
) -> Result<(), MetadataError> {
    let failed = |which| Err(MetadataError::PreconditionFailed { which });
    let matches = |wanted: &[String]| -> Result<bool, MetadataError> {
        if wanted.iter().any(|etag| etag == "*") {
            return Ok(true);
        }
        let etag = etag()?;
        Ok(wanted.contains(&etag))
    };
    if let Some(wanted) = &condition.if_match {
        match current {
            None => return failed(Precondition::IfMatchMissing),
            Some(_) if !matches(wanted)? => return failed(Precondition::IfMatch),
            Some(_) => {}
        }
    }
    if let Some(unwanted) = &condition.if_none_match
        && current.is_some()
        && matches(unwanted)?
    {
        return failed(Precondition::IfNoneMatch);
    }
    // These two are for deletes alone, and hold where nothing is left to delete (AWS: "if the size matches or if the object
    // doesn't exist").
    if let (Some(secs), Some(version)) = (condition.if_match_modified_secs, current)
        && version.order.as_secs() != secs
    {
        return failed(Precondition::IfMatch);
    }
    if let (Some(len_bytes), Some(version)) = (condition.if_match_len_bytes, current)
        && version.len_bytes != len_bytes
    {
        return failed(Precondition::IfMatch);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn list(etags: &[&str]) -> Option<Vec<String>> {
        Some(etags.iter().map(|etag| (*etag).to_owned()).collect())
    }

    #[test]
    fn conditions_are_judged_as_s3_does() {
        let current = Some(Current { order: TimestampMicros(7_900_000), len_bytes: 3 });
        let none = WriteCondition::default;
        let failed = |which| Err(MetadataError::PreconditionFailed { which });
        let cases = [
            (none(), None, Ok(())),
            (WriteCondition { if_match: list(&["a", "e"]), ..none() }, current, Ok(())),
            (WriteCondition { if_match: list(&["*"]), ..none() }, current, Ok(())),
            (WriteCondition { if_match: list(&["a"]), ..none() }, current, failed(Precondition::IfMatch)),
            (WriteCondition { if_match: list(&["*"]), ..none() }, None, failed(Precondition::IfMatchMissing)),
            (WriteCondition { if_none_match: list(&["*"]), ..none() }, None, Ok(())),
            (WriteCondition { if_none_match: list(&["*"]), ..none() }, current, failed(Precondition::IfNoneMatch)),
            (WriteCondition { if_none_match: list(&["e"]), ..none() }, current, failed(Precondition::IfNoneMatch)),
            (WriteCondition { if_none_match: list(&["a"]), ..none() }, current, Ok(())),
            (WriteCondition { if_match_modified_secs: Some(7), ..none() }, current, Ok(())),
            (WriteCondition { if_match_modified_secs: Some(8), ..none() }, current, failed(Precondition::IfMatch)),
            (WriteCondition { if_match_modified_secs: Some(8), ..none() }, None, Ok(())),
            (WriteCondition { if_match_len_bytes: Some(3), ..none() }, current, Ok(())),
            (WriteCondition { if_match_len_bytes: Some(3), ..none() }, None, Ok(())),
            (WriteCondition { if_match_len_bytes: Some(4), ..none() }, current, failed(Precondition::IfMatch)),
        ];
        for (condition, current, expected) in cases {
            assert_eq!(check(&condition, current, || Ok("e".to_owned())), expected, "{condition:?}");
        }
    }
}

//! Preconditions of writes, judged inside the commit attempt against the version just read.

use valv_metadata_api::{MetadataError, Precondition, WriteCondition};
use valv_types::TimestampMicros;

/// The version that a condition is judged against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current {
    pub(crate) order: TimestampMicros,
    pub(crate) len_bytes: u64,
    pub(crate) is_delete_marker: bool,
}

/// Judges `condition`. `etag` opens the version's ETag; it is asked only when the condition names ETags.
pub(crate) fn check(
    condition: &WriteCondition,
    current: Option<Current>,
    etag: impl Fn() -> Result<String, MetadataError>,
) -> Result<(), MetadataError> {
    // A delete marker has no entity tag: there it is as if nothing were there.
    let object = current.filter(|version| !version.is_delete_marker);
    let failed = |which| Err(MetadataError::PreconditionFailed { which });
    let matches = |wanted: &[String]| -> Result<bool, MetadataError> {
        if wanted.iter().any(|etag| etag == "*") {
            return Ok(true);
        }
        let etag = etag()?;
        Ok(wanted.contains(&etag))
    };
    if let Some(wanted) = &condition.if_match {
        match object {
            None => return failed(Precondition::IfMatchMissing),
            Some(_) if !matches(wanted)? => return failed(Precondition::IfMatch),
            Some(_) => {}
        }
    }
    if let Some(unwanted) = &condition.if_none_match
        && object.is_some()
        && matches(unwanted)?
    {
        return failed(Precondition::IfNoneMatch);
    }
    // These two are for deletes alone, and hold where nothing is left to delete (AWS: "if the size matches or if the object
    // doesn't exist"). A delete marker has a time, and no bytes.
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
        let current = Some(Current { order: TimestampMicros(7_900_000), len_bytes: 3, is_delete_marker: false });
        let marker = current.map(|current| Current { len_bytes: 0, is_delete_marker: true, ..current });
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
            (WriteCondition { if_match: list(&["*"]), ..none() }, marker, failed(Precondition::IfMatchMissing)),
            (WriteCondition { if_none_match: list(&["*"]), ..none() }, marker, Ok(())),
            (WriteCondition { if_match_modified_secs: Some(8), ..none() }, marker, failed(Precondition::IfMatch)),
            (WriteCondition { if_match_len_bytes: Some(3), ..none() }, marker, failed(Precondition::IfMatch)),
            (WriteCondition { if_match_len_bytes: Some(0), ..none() }, marker, Ok(())),
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

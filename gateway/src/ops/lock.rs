//! Object Lock: a bucket's default, and retention and legal hold of versions. What they protect is enforced inside the
//! metadata commit; here their words are read and written.

use super::context::{BodyDigest, Context};
use super::delete::bypass;
use super::get::readable;
use super::headers::{check_future, missing_lock_configuration, parse_retention_mode, retention_mode_name};
use super::tagging::{update_bucket, update_version};
use super::{Answer, status, xml};
use crate::access::{Action, Given};
use crate::error::{S3Code, S3Error};
use crate::http_date;
use crate::payload::Payload;
use crate::xml::{Element, Namespace, Writer};
use http::StatusCode;
use valv_metadata_api::{
    Bucket, BucketChange, DefaultRetention, LockRequest, MetadataError, ObjectLock, Retention, RetentionPeriod,
    VersionChange, Versioning,
};

/// Longest document of this family; the largest has six elements.
const LOCK_LEN_BYTES_MAX: usize = 16 * 1024;
/// Longest default retention (AWS: 100 years).
const YEARS_MAX: u32 = 100;
const DAYS_MAX: u32 = 36_500;

/// GET `?object-lock`.
pub(crate) async fn get_configuration(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::GetBucketObjectLockConfiguration).await?;
    let lock = bucket.object_lock.ok_or(S3Code::ObjectLockConfigurationNotFoundError)?;
    Ok(xml(configuration_document(lock)))
}

fn configuration_document(lock: ObjectLock) -> String {
    Writer::document("ObjectLockConfiguration", Namespace::S3, |xml| {
        xml.text("ObjectLockEnabled", "Enabled");
        if let Some(default) = lock.default {
            xml.element("Rule", |xml| {
                xml.element("DefaultRetention", |xml| {
                    xml.text("Mode", retention_mode_name(default.mode));
                    match default.period {
                        RetentionPeriod::Days(days) => xml.value("Days", days),
                        RetentionPeriod::Years(years) => xml.value("Years", years),
                    }
                });
            });
        }
    })
}

/// PUT `?object-lock`.
pub(crate) async fn put_configuration(cx: &Context, mut payload: Payload) -> Answer {
    let bucket = cx.bucket(Action::PutBucketObjectLockConfiguration).await?;
    let document =
        cx.xml_body(&mut payload, "ObjectLockConfiguration", LOCK_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    let lock = read_configuration(&document)?;
    if bucket.versioning != Versioning::Enabled {
        return Err(S3Error::new(S3Code::InvalidBucketState)
            .with_message("Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration"));
    }
    update_bucket(cx, &bucket, BucketChange::ObjectLock(lock)).await?;
    Ok(status(StatusCode::OK))
}

fn read_configuration(document: &Element) -> Result<ObjectLock, S3Error> {
    if document.text_of("ObjectLockEnabled").is_some_and(|text| text.trim() != "Enabled") {
        return Err(S3Code::MalformedXML.into());
    }
    let Some(rule) = document.child("Rule") else {
        // A configuration that says nothing at all is none.
        document.text_of("ObjectLockEnabled").ok_or(S3Code::MalformedXML)?;
        return Ok(ObjectLock { default: None });
    };
    let retention = rule.child("DefaultRetention").ok_or(S3Code::MalformedXML)?;
    let mode = parse_retention_mode(retention.required("Mode")?.trim()).ok_or(S3Code::MalformedXML)?;
    // Signed, because AWS tells "not positive" apart from "not a number".
    let period = |name, max: u32| -> Result<Option<u32>, S3Error> {
        match retention.number::<i64>(name)? {
            None => Ok(None),
            Some(number) => match u32::try_from(number) {
                Ok(number) if (1..=max).contains(&number) => Ok(Some(number)),
                _ => Err(S3Error::new(S3Code::InvalidRetentionPeriod).with_message(format!(
                    "Default retention period must be a positive integer value of at most {max}"
                ))),
            },
        }
    };
    let period = match (period("Days", DAYS_MAX)?, period("Years", YEARS_MAX)?) {
        (Some(days), None) => RetentionPeriod::Days(days),
        (None, Some(years)) => RetentionPeriod::Years(years),
        (Some(_), Some(_)) | (None, None) => return Err(S3Code::MalformedXML.into()),
    };
    Ok(ObjectLock { default: Some(DefaultRetention { mode, period }) })
}

/// Refuses locks in a bucket that was made without Object Lock.
fn check_enabled(bucket: &Bucket) -> Result<(), S3Error> {
    if bucket.object_lock.is_some() { Ok(()) } else { Err(missing_lock_configuration()) }
}

/// GET `?retention`.
pub(crate) async fn get_retention(cx: &Context) -> Answer {
    let (bucket, found) = readable(cx, Action::GetObjectRetention, false).await?;
    check_enabled(&bucket)?;
    let retention = found.version.retention.ok_or(S3Code::NoSuchObjectLockConfiguration)?;
    Ok(xml(Writer::document("Retention", Namespace::S3, |xml| {
        xml.text("Mode", retention_mode_name(retention.mode));
        xml.text("RetainUntilDate", &http_date::format_iso8601(retention.until));
    })))
}

/// PUT `?retention`.
pub(crate) async fn put_retention(cx: &Context, mut payload: Payload) -> Answer {
    cx.bucket_of_many().await?;
    let document = cx.xml_body(&mut payload, "Retention", LOCK_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    let retention = read_retention(&document)?;
    cx.gives(Given { retention, ..Given::default() });
    let (bucket, found) = readable(cx, Action::PutObjectRetention, false).await?;
    check_enabled(&bucket)?;
    let bypass_governance = bypass(cx, &bucket).await?;
    if let Some(retention) = &retention {
        check_future(retention.until, cx.now)?;
    }
    update_version(cx, &bucket, &found, VersionChange::Retention { retention, bypass_governance }).await?;
    Ok(status(StatusCode::OK))
}

/// An empty element removes the retention (which metadata allows for governance with the bypass only).
fn read_retention(document: &Element) -> Result<Option<Retention>, S3Error> {
    match (document.text_of("Mode"), document.text_of("RetainUntilDate")) {
        (None, None) => Ok(None),
        (Some(mode), Some(until)) => {
            let mode = parse_retention_mode(mode.trim()).ok_or(S3Code::MalformedXML)?;
            let until = http_date::parse_iso8601(until).ok_or(S3Code::MalformedXML)?;
            Ok(Some(Retention { mode, until }))
        }
        _ => Err(S3Code::MalformedXML.into()),
    }
}

/// GET `?legal-hold`.
pub(crate) async fn get_legal_hold(cx: &Context) -> Answer {
    let (bucket, found) = readable(cx, Action::GetObjectLegalHold, false).await?;
    check_enabled(&bucket)?;
    if !found.version.legal_hold_said {
        return Err(S3Code::NoSuchObjectLockConfiguration.into());
    }
    Ok(xml(Writer::document("LegalHold", Namespace::S3, |xml| {
        xml.text("Status", if found.version.legal_hold { "ON" } else { "OFF" });
    })))
}

/// PUT `?legal-hold`.
pub(crate) async fn put_legal_hold(cx: &Context, mut payload: Payload) -> Answer {
    cx.bucket_of_many().await?;
    let document = cx.xml_body(&mut payload, "LegalHold", LOCK_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    let is_on = match document.required("Status")?.trim() {
        "ON" => true,
        "OFF" => false,
        _ => return Err(S3Code::MalformedXML.into()),
    };
    cx.gives(Given { legal_hold: Some(is_on), ..Given::default() });
    let (bucket, found) = readable(cx, Action::PutObjectLegalHold, false).await?;
    check_enabled(&bucket)?;
    update_version(cx, &bucket, &found, VersionChange::LegalHold(is_on)).await?;
    Ok(status(StatusCode::OK))
}

/// Asks for the rights that a write with a lock needs besides its own.
///
/// # Errors
/// AccessDenied.
pub(crate) async fn may_lock(cx: &Context, bucket: &Bucket, lock: &LockRequest) -> Result<(), S3Error> {
    if lock.retention.is_some() {
        cx.may(Action::PutObjectRetention, bucket).await?;
    }
    if lock.legal_hold {
        cx.may(Action::PutObjectLegalHold, bucket).await?;
    }
    Ok(())
}

/// Metadata's words for a change that the bucket's state does not allow, in S3's.
pub(crate) fn refused_versioning(error: MetadataError) -> S3Error {
    match error {
        MetadataError::InvalidBucketState => S3Error::new(S3Code::InvalidBucketState).with_message(
            "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.",
        ),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;
    use valv_metadata_api::RetentionMode;

    #[test]
    fn configurations_come_back_as_they_were_given() {
        for default in [
            None,
            Some(DefaultRetention { mode: RetentionMode::Governance, period: RetentionPeriod::Days(36_500) }),
            Some(DefaultRetention { mode: RetentionMode::Compliance, period: RetentionPeriod::Years(10) }),
        ] {
            let lock = ObjectLock { default };
            let xml = configuration_document(lock);
            let read = read_configuration(&parse(xml.as_bytes(), "ObjectLockConfiguration").expect("XML"));
            assert_eq!(read.expect("configuration"), lock);
        }
    }

    #[test]
    fn configurations_that_are_incomplete_or_out_of_range_are_refused() {
        let rule = |inner: &str| {
            format!(
                "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>{inner}\
                 </DefaultRetention></Rule></ObjectLockConfiguration>"
            )
        };
        for (xml, code) in [
            (rule("<Mode>GOVERNANCE</Mode>"), S3Code::MalformedXML),
            (rule("<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>"), S3Code::MalformedXML),
            (rule("<Mode>governance</Mode><Days>1</Days>"), S3Code::MalformedXML),
            (rule("<Days>1</Days>"), S3Code::MalformedXML),
            ("<ObjectLockConfiguration/>".to_owned(), S3Code::MalformedXML),
            (rule("<Mode>GOVERNANCE</Mode><Days>0</Days>"), S3Code::InvalidRetentionPeriod),
            (rule("<Mode>GOVERNANCE</Mode><Days>-1</Days>"), S3Code::InvalidRetentionPeriod),
            (rule("<Mode>GOVERNANCE</Mode><Years>101</Years>"), S3Code::InvalidRetentionPeriod),
            (
                "<ObjectLockConfiguration><ObjectLockEnabled>Off</ObjectLockEnabled></ObjectLockConfiguration>"
                    .to_owned(),
                S3Code::MalformedXML,
            ),
        ] {
            let document = parse(xml.as_bytes(), "ObjectLockConfiguration").expect("XML");
            assert_eq!(read_configuration(&document).err().map(|error| error.code()), Some(code), "{xml}");
        }
    }

    #[test]
    fn a_retention_is_whole_or_nothing() {
        let read = |xml: &str| read_retention(&parse(xml.as_bytes(), "Retention").expect("XML"));
        assert_eq!(read("<Retention/>").expect("none"), None);
        let until = "<RetainUntilDate>2040-01-01T00:00:00Z</RetainUntilDate>";
        assert!(read(&format!("<Retention><Mode>COMPLIANCE</Mode>{until}</Retention>")).expect("some").is_some());
        for bad in [
            format!("<Retention>{until}</Retention>"),
            "<Retention><Mode>COMPLIANCE</Mode></Retention>".to_owned(),
            format!("<Retention><Mode>X</Mode>{until}</Retention>"),
            "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>soon</RetainUntilDate></Retention>".to_owned(),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }
}

//! Buckets themselves: list, create, head, delete, location.

use super::context::{BodyDigest, Context};
use super::headers::{header_value, text};
use super::tagging::{TAGGING_LEN_BYTES_MAX, created_with};
use super::token::{TokenKind, decode, encode};
use super::{Answer, no_content, status, xml};
use crate::access::{Action, may_create_bucket};
use crate::error::{S3Code, S3Error};
use crate::http_date;
use crate::limits::PAGE_LEN_MAX;
use crate::payload::Payload;
use crate::xml::{Namespace, Writer};
use http::StatusCode;
use http::header::LOCATION;
use valv_metadata_api::{CreateBucket, DeleteBucket, ListBuckets, MetadataError, OpenedTo};
use valv_types::CommitId;

/// Buckets in one page, and what an unpaged request gets at most (AWS: 10,000).
const BUCKETS_PAGE_MAX: u32 = 10_000;
/// Longest CreateBucketConfiguration: a location, and as many tags as a bucket may have.
const CONFIGURATION_LEN_BYTES_MAX: usize = TAGGING_LEN_BYTES_MAX;

/// GET of the service.
pub(crate) async fn list(cx: &Context) -> Answer {
    let grant = &cx.signed()?.grant;
    let prefix = cx.query.get("prefix")?.unwrap_or_default();
    let token = cx.query.get("continuation-token")?.filter(|token| !token.is_empty());
    let after = match token {
        None => None,
        Some(token) => {
            let bytes = decode(TokenKind::Buckets, token)?;
            Some(String::from_utf8(bytes).map_err(|_| S3Code::InvalidArgument)?)
        }
    };
    let limit = match cx.query.get("max-buckets")? {
        None => BUCKETS_PAGE_MAX,
        Some(text) => match text.parse() {
            Ok(number) if (1..=BUCKETS_PAGE_MAX).contains(&number) => number,
            _ => {
                return Err(S3Error::invalid_argument(
                    format!("max-buckets must be an integer between 1 and {BUCKETS_PAGE_MAX}"),
                    "max-buckets",
                    text,
                ));
            }
        },
    };
    if let Some(region) = cx.query.get("bucket-region")?
        && region != cx.shared.sigv4.region()
    {
        return Err(S3Error::invalid_argument("No buckets are in this region here", "bucket-region", region));
    }
    let (buckets, has_more) = pages(cx, prefix, after, limit).await?;
    Ok(xml(Writer::document("ListAllMyBucketsResult", Namespace::S3, |xml| {
        xml.element("Owner", |xml| {
            xml.text("ID", &grant.canonical_id);
            xml.text("DisplayName", &grant.display_name);
        });
        xml.element("Buckets", |xml| {
            for bucket in &buckets {
                xml.element("Bucket", |xml| {
                    xml.text("Name", &bucket.name);
                    xml.text("CreationDate", &http_date::format_iso8601(bucket.created));
                });
            }
        });
        if let Some(last) = buckets.last().filter(|_| has_more) {
            xml.text("ContinuationToken", &encode(TokenKind::Buckets, last.name.as_bytes()));
        }
        if !prefix.is_empty() {
            xml.text("Prefix", prefix);
        }
    })))
}

/// Buckets in name order, up to `limit`, and whether there are more. Asked for in pages that metadata answers at once.
async fn pages(
    cx: &Context,
    prefix: &str,
    mut after: Option<String>,
    limit: u32,
) -> Result<(Vec<valv_metadata_api::Bucket>, bool), S3Error> {
    let limit = limit as usize;
    let mut buckets = Vec::new();
    let grant = &cx.signed()?.grant;
    loop {
        let request = ListBuckets {
            project: grant.project,
            prefix: prefix.to_owned(),
            after: after.take(),
            limit: PAGE_LEN_MAX,
            opened_to: Some(OpenedTo { user: grant.user, namespace: grant.namespace }),
        };
        let page = cx.shared.metadata.list_buckets(request).await?;
        let is_last = page.len() < PAGE_LEN_MAX as usize;
        buckets.extend(page);
        if buckets.len() > limit {
            buckets.truncate(limit);
            return Ok((buckets, true));
        }
        if is_last {
            return Ok((buckets, false));
        }
        after = buckets.last().map(|bucket| bucket.name.clone());
    }
}

/// PUT of a bucket.
pub(crate) async fn create(cx: &Context, mut payload: Payload) -> Answer {
    if !may_create_bucket(&cx.signed()?.grant) {
        return Err(S3Code::AccessDenied.into());
    }
    let name = cx.bucket_name()?.to_owned();
    let mut documents = super::acl::of_new_bucket(cx).await?;
    let object_lock = match text(&cx.headers, "x-amz-bucket-object-lock-enabled") {
        None => false,
        Some(flag) if flag.eq_ignore_ascii_case("true") => true,
        Some(flag) if flag.eq_ignore_ascii_case("false") => false,
        Some(flag) => {
            return Err(S3Error::invalid_argument(
                "The value must be true or false",
                "x-amz-bucket-object-lock-enabled",
                flag,
            ));
        }
    };
    let body = cx.small_body(&mut payload, CONFIGURATION_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    if !body.trim_ascii().is_empty() {
        let configuration = crate::xml::parse(&body, "CreateBucketConfiguration")?;
        check_location(cx, configuration.text_of("LocationConstraint"))?;
        if let Some(tags) = configuration.child("Tags") {
            documents.extend(created_with(tags)?);
        }
        if configuration.child("Bucket").is_some() || configuration.child("Location").is_some() {
            return Err(S3Error::not_implemented("Location").with_message("Directory buckets are not implemented."));
        }
    }
    let request = CreateBucket {
        actor: cx.actor(),
        namespace: cx.signed()?.grant.namespace,
        name: name.clone(),
        object_lock,
        documents,
        commit: CommitId::random(),
    };
    let created = cx
        .shared
        .commit(move |metadata| {
            let request = request.clone();
            async move { metadata.create_bucket(request).await }
        })
        .await;
    match created {
        Ok(_) => {}
        // us-east-1 alone answers 200 to the owner who creates a bucket again; clients of that region count on it.
        Err(MetadataError::BucketAlreadyOwnedByYou) if cx.shared.sigv4.region() == "us-east-1" && !object_lock => {
            super::acl::of_recreated_bucket(cx).await?;
        }
        Err(error) => return Err(S3Error::from(error).with_extra("BucketName", name)),
    }
    let mut response = status(StatusCode::OK);
    response.headers_mut().insert(LOCATION, header_value(&format!("/{name}")));
    Ok(response)
}

fn check_location(cx: &Context, location: Option<&str>) -> Result<(), S3Error> {
    let region = cx.shared.sigv4.region();
    match location.map(str::trim) {
        None | Some("") => Ok(()),
        Some(location) if location == region => Ok(()),
        Some(location) if cx.shared.config.regions_also.iter().any(|also| also == location) => Ok(()),
        Some(location) if !is_region(location) => Err(S3Code::InvalidLocationConstraint.into()),
        Some(location) => Err(S3Error::new(S3Code::IllegalLocationConstraintException).with_message(format!(
            "The {location} location constraint is incompatible for the region specific endpoint this request was sent to."
        ))),
    }
}

/// Whether a text has the form of a region's name, such as `eu-north-1` or `us-gov-west-1`.
fn is_region(text: &str) -> bool {
    let mut words = text.rsplit('-');
    let is_numbered =
        words.next().is_some_and(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()));
    let mut count = 0;
    let all_letters = words
        .inspect(|_| count += 1)
        .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()));
    // AWS's oldest name for a place is one, too.
    text == "EU" || (is_numbered && all_letters && count >= 2)
}

/// HEAD of a bucket.
pub(crate) async fn head(cx: &Context) -> Answer {
    cx.bucket(Action::ListBucket).await?;
    let mut response = status(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert("x-amz-bucket-region", header_value(cx.shared.sigv4.region()));
    headers.insert("x-amz-access-point-alias", http::HeaderValue::from_static("false"));
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/xml"));
    Ok(response)
}

/// DELETE of a bucket.
pub(crate) async fn delete(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::DeleteBucket).await?;
    let name = bucket.name.clone();
    let request = DeleteBucket { actor: cx.actor(), bucket: bucket.id, commit: CommitId::random() };
    cx.shared
        .commit(move |metadata| {
            let request = request.clone();
            async move { metadata.delete_bucket(request).await }
        })
        .await
        .map_err(|error| S3Error::from(error).with_extra("BucketName", name))?;
    Ok(no_content())
}

/// GET `?location`.
pub(crate) async fn location(cx: &Context) -> Answer {
    cx.bucket(Action::GetBucketLocation).await?;
    let region = cx.shared.sigv4.region();
    // us-east-1 is told as nothing, for reasons of 2006.
    let location = if region == "us-east-1" { "" } else { region };
    Ok(xml(format!(
        "{}<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{location}</LocationConstraint>",
        crate::xml::DECLARATION
    )))
}

#[cfg(test)]
mod tests {
    use super::is_region;

    #[test]
    fn regions_are_told_from_nonsense() {
        for region in ["eu-north-1", "us-gov-west-1", "ap-southeast-12", "EU"] {
            assert!(is_region(region), "{region}");
        }
        for other in ["", "eu", "eu-1", "eu-north-", "eu--1", "Eu-North-1", "somewhere", "1-2-3", "eu-north-1x"] {
            assert!(!is_region(other), "{other}");
        }
    }
}

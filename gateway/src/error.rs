//! S3's errors: every code with its status, the error as it travels inside the gateway, and its XML.
//!
//! Codes, statuses and the meaning of the messages follow AWS's "Error responses" page of the S3 API reference.
//! What metadata refuses is mapped here in one exhaustive match.

use crate::body::ResponseBody;
use crate::request_id::RequestId;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use valv_metadata_api::{BucketDocumentKind, LockReason, MetadataError, Precondition};

macro_rules! codes {
    (@text $name:ident) => { stringify!($name) };
    (@text $name:ident $text:literal) => { $text };
    ($( $status:literal $name:ident $(as $text:literal)? $message:literal; )*) => {
        /// An S3 error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum S3Code {
            $(
                #[doc = concat!(stringify!($status), ": ", $message)]
                $name,
            )*
        }

        impl S3Code {
            /// Every code.
            pub const ALL: &'static [S3Code] = &[$(S3Code::$name),*];

            /// The code as it stands in `<Code>`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $( S3Code::$name => codes!(@text $name $($text)?), )*
                }
            }

            const fn status_u16(self) -> u16 {
                match self {
                    $( S3Code::$name => $status, )*
                }
            }

            /// What `<Message>` says if nothing more exact is known.
            pub const fn default_message(self) -> &'static str {
                match self {
                    $( S3Code::$name => $message, )*
                }
            }
        }
    };
}

codes! {
    400 AccessControlListNotSupported "The bucket does not allow ACLs";
    403 AccessDenied "Access Denied";
    403 AccountProblem "There is a problem with your account that prevents the operation from completing successfully.";
    403 AccessForbidden "Access is forbidden.";
    400 AuthorizationHeaderMalformed "The authorization header is malformed.";
    400 AuthorizationQueryParametersError "The authorization query parameters are not valid.";
    400 BadDigest "The Content-MD5 or checksum value that you specified did not match what the server received.";
    400 BadRequest "The request can't be understood.";
    409 BucketAlreadyExists "The requested bucket name is not available. Select a different name and try again.";
    409 BucketAlreadyOwnedByYou "Your previous request to create the named bucket succeeded and you already own it.";
    409 BucketNotEmpty "The bucket you tried to delete is not empty";
    409 ConditionalRequestConflict "A conflicting operation occurred during the conditional request. Try again.";
    400 CredentialsNotSupported "This request does not support credentials.";
    400 EntityTooLarge "Your proposed upload exceeds the maximum allowed size";
    400 EntityTooSmall "Your proposed upload is smaller than the minimum allowed size";
    400 ExpiredToken "The provided token has expired.";
    400 IllegalLocationConstraintException "The specified location constraint is not valid for the region-specific endpoint this request was sent to.";
    400 IllegalVersioningConfigurationException "The versioning configuration specified in the request is not valid.";
    400 IncompleteBody "You did not provide the number of bytes specified by the Content-Length HTTP header";
    400 IncorrectNumberOfFilesInPostRequest "POST requires exactly one file upload per request.";
    500 InternalError "We encountered an internal error. Please try again.";
    403 InvalidAccessKeyId "The AWS Access Key Id you provided does not exist in our records.";
    400 InvalidArgument "Invalid Argument";
    400 InvalidBucketAclWithBlockPublicAccessError "Bucket cannot have public ACLs set with BlockPublicAccess enabled";
    400 InvalidBucketAclWithObjectOwnership "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting";
    400 InvalidBucketName "The specified bucket is not valid.";
    409 InvalidBucketState "The request is not valid with the current state of the bucket.";
    403 InvalidChunkSizeError "Only the last chunk is allowed to have a size less than 8192 bytes";
    400 InvalidDigest "The Content-MD5 or checksum value you specified is not valid.";
    400 InvalidEncryptionAlgorithmError "The encryption request that you specified is not valid.";
    400 InvalidHostHeader "The Host header is not valid.";
    400 InvalidLocationConstraint "The specified location constraint is not valid";
    403 InvalidObjectState "The operation is not valid for the current state of the object.";
    400 InvalidPart "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.";
    416 InvalidPartNumber "The requested partnumber is not satisfiable";
    400 InvalidPartOrder "The list of parts was not in ascending order. Parts must be ordered by part number.";
    400 InvalidPolicyDocument "The content of the form does not meet the conditions specified in the policy document.";
    416 InvalidRange "The requested range is not satisfiable";
    400 InvalidRequest "Invalid Request";
    400 InvalidRetentionPeriod "The retention period must be a positive integer.";
    400 InvalidStorageClass "The storage class you specified is not valid";
    400 InvalidTag "The tag provided was not a valid tag.";
    400 InvalidTargetBucketForLogging "The target bucket for logging does not exist, is not yours, or can't be written by the log delivery group.";
    400 InvalidToken "The provided token is malformed or otherwise not valid.";
    400 InvalidURI "Couldn't parse the specified URI.";
    400 KmsNotFoundException as "KMS.NotFoundException" "The request was rejected because the specified KMS key could not be found.";
    400 KeyTooLongError "Your key is too long";
    400 MalformedACLError "The ACL that you provided was not well formed or did not validate against our published schema";
    400 MalformedPOSTRequest "The body of your POST request is not well-formed multipart/form-data.";
    400 MalformedPolicy "The policy is not well formed.";
    400 MalformedTrailerError "The request contained trailing data that was not well-formed or did not conform to our published schema.";
    400 MalformedXML "The XML you provided was not well-formed or did not validate against our published schema";
    400 MaxMessageLengthExceeded "Your request was too big.";
    400 MaxPostPreDataLengthExceededError "Your POST request fields preceding the upload file were too large.";
    400 MetadataTooLarge "Your metadata headers exceed the maximum allowed metadata size";
    405 MethodNotAllowed "The specified method is not allowed against this resource.";
    411 MissingContentLength "You must provide the Content-Length HTTP header.";
    400 MissingRequestBodyError "Request Body is empty";
    400 MissingSecurityHeader "Your request was missing a required header.";
    404 NoSuchBucket "The specified bucket does not exist";
    404 NoSuchBucketPolicy "The bucket policy does not exist";
    404 NoSuchCORSConfiguration "The CORS configuration does not exist";
    404 NoSuchConfiguration "The specified configuration does not exist.";
    404 NoSuchKey "The specified key does not exist.";
    404 NoSuchLifecycleConfiguration "The lifecycle configuration does not exist";
    404 NoSuchObjectLockConfiguration "The specified object does not have a ObjectLock configuration";
    404 NoSuchPublicAccessBlockConfiguration "The public access block configuration was not found";
    404 NoSuchTagSet "The TagSet does not exist";
    404 NoSuchUpload "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.";
    404 NoSuchVersion "The specified version does not exist.";
    404 NoSuchWebsiteConfiguration "The specified bucket does not have a website configuration";
    501 NotImplemented "A header or query you provided implies functionality that is not implemented.";
    304 NotModified "Not Modified";
    404 ObjectLockConfigurationNotFoundError "Object Lock configuration does not exist for this bucket";
    409 OperationAborted "A conflicting conditional operation is currently in progress against this resource. Please try again.";
    404 OwnershipControlsNotFoundError "The bucket ownership controls were not found";
    301 PermanentRedirect "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint.";
    412 PreconditionFailed "At least one of the pre-conditions you specified did not hold";
    403 QuotaExceeded "The project's quota does not allow this request.";
    404 ReplicationConfigurationNotFoundError "The replication configuration was not found";
    400 RequestHeaderSectionTooLarge "Your request header section exceeds the maximum allowed request header section size.";
    400 RequestIsNotMultiPartContent "Bucket POST must be of the enclosure-type multipart/form-data.";
    403 RequestTimeTooSkewed "The difference between the request time and the server's time is too large.";
    400 RequestTimeout "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed.";
    404 ServerSideEncryptionConfigurationNotFoundError "The server side encryption configuration was not found";
    503 ServiceUnavailable "Service is unable to handle request.";
    403 SignatureDoesNotMatch "The request signature we calculated does not match the signature you provided. Check your key and signing method.";
    503 SlowDown "Please reduce your request rate.";
    400 TokenRefreshRequired "The provided token must be refreshed.";
    400 TooManyBuckets "You have attempted to create more buckets than allowed";
    400 UnexpectedContent "This request does not support content.";
    400 UnresolvableGrantByEmailAddress "The email address you provided does not match any account on record.";
    400 UserKeyMustBeSpecified "The bucket POST must contain the specified field name. If it is specified, check the order of the fields.";
    400 XAmzContentSHA256Mismatch "The provided 'x-amz-content-sha256' header does not match what was computed.";
}

impl S3Code {
    /// The HTTP status that goes with the code.
    pub fn status(self) -> StatusCode {
        // The table above holds only valid statuses (tested), so the fallback is never taken.
        StatusCode::from_u16(self.status_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl fmt::Display for S3Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An answer other than success. What is in it is sent to the client, except [`S3Error::source_error`].
///
/// ```
/// # use valv_gateway::error::{S3Code, S3Error};
/// let error = S3Error::new(S3Code::NoSuchKey).with_resource("/bucket/key").with_extra("Key", "key");
/// assert_eq!(error.status(), 404);
/// ```
#[derive(Debug, Clone)]
pub struct S3Error {
    code: S3Code,
    close: bool,
    message: Option<Cow<'static, str>>,
    resource: Option<String>,
    extra: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl S3Error {
    /// An error with its code's usual message.
    pub const fn new(code: S3Code) -> Self {
        Self { code, close: false, message: None, resource: None, extra: Vec::new(), headers: Vec::new(), source: None }
    }

    /// InternalError whose cause is for the log only: the client learns nothing of it.
    pub fn internal(source: impl StdError + Send + Sync + 'static) -> Self {
        Self::new(S3Code::InternalError).with_source(source)
    }

    /// InvalidArgument naming the argument and its value, as AWS does.
    pub fn invalid_argument(
        message: impl Into<Cow<'static, str>>,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        Self::new(S3Code::InvalidArgument)
            .with_message(message)
            .with_extra("ArgumentName", name)
            .with_extra("ArgumentValue", value)
    }

    /// InvalidRequest with a message.
    pub fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(S3Code::InvalidRequest).with_message(message)
    }

    /// NotImplemented for a header or parameter.
    pub fn not_implemented(header: impl Into<String>) -> Self {
        Self::new(S3Code::NotImplemented).with_extra("Header", header)
    }

    /// What S3 answers when a bucket has no document of this kind.
    pub fn no_such_document(kind: BucketDocumentKind) -> Self {
        use BucketDocumentKind as Kind;
        Self::new(match kind {
            Kind::Policy => S3Code::NoSuchBucketPolicy,
            Kind::Lifecycle => S3Code::NoSuchLifecycleConfiguration,
            Kind::Cors => S3Code::NoSuchCORSConfiguration,
            Kind::Tagging => S3Code::NoSuchTagSet,
            Kind::Encryption => S3Code::ServerSideEncryptionConfigurationNotFoundError,
            Kind::OwnershipControls => S3Code::OwnershipControlsNotFoundError,
            Kind::PublicAccessBlock => S3Code::NoSuchPublicAccessBlockConfiguration,
            Kind::Website => S3Code::NoSuchWebsiteConfiguration,
            // A bucket always has these (a default stands in), so their absence is never an answer of S3.
            Kind::Acl | Kind::Notification | Kind::Logging | Kind::RequestPayment => S3Code::InternalError,
        })
    }

    /// Replaces the message.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Sets `<Resource>`: the bucket or object that the request named, as a path.
    #[must_use]
    pub fn with_resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Sets `<Resource>` unless it is set: for the router, which knows the path but not why something failed.
    #[must_use]
    pub fn or_resource(mut self, resource: impl FnOnce() -> String) -> Self {
        self.resource.get_or_insert_with(resource);
        self
    }

    /// Adds an element, such as `Key` or `ActualObjectSize`.
    #[must_use]
    pub fn with_extra(mut self, element: &'static str, text: impl Into<String>) -> Self {
        self.extra.push((element, text.into()));
        self
    }

    /// Adds a response header, such as `x-amz-delete-marker` or `allow`.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Says that the connection can't be used after this answer (the rest of the request is unreadable).
    #[must_use]
    pub fn closing_connection(mut self) -> Self {
        self.close = true;
        self
    }

    /// The code.
    pub const fn code(&self) -> S3Code {
        self.code
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The message.
    pub fn message(&self) -> &str {
        self.message.as_deref().unwrap_or(self.code.default_message())
    }

    /// `<Resource>`, if set.
    pub fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    /// An additional element's text.
    pub fn extra(&self, element: &str) -> Option<&str> {
        self.extra.iter().find(|(name, _)| *name == element).map(|(_, text)| text.as_str())
    }

    /// The cause, for the log. It never reaches the client.
    pub fn source_error(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.source.as_deref()
    }

    /// The XML document that a client gets.
    pub fn to_xml(&self, id: &RequestId) -> String {
        let mut xml = String::with_capacity(512);
        xml.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>");
        element(&mut xml, "Code", self.code.as_str());
        element(&mut xml, "Message", self.message());
        for (name, text) in &self.extra {
            element(&mut xml, name, text);
        }
        if let Some(resource) = &self.resource {
            element(&mut xml, "Resource", resource);
        }
        // A request id is hexadecimal digits, so it needs no escaping. Writing to a String can't fail.
        let _ = write!(xml, "<RequestId>{id}</RequestId>");
        element(&mut xml, "HostId", id.host_id());
        xml.push_str("</Error>");
        xml
    }

    /// The response. A HEAD request and 304 get no body. The ids' headers are added by the server, as to any response.
    pub fn into_response(self, id: &RequestId, is_head: bool) -> Response<ResponseBody> {
        let status = self.status();
        let bodyless = is_head || status == StatusCode::NOT_MODIFIED;
        let body = if bodyless { ResponseBody::empty() } else { ResponseBody::full(self.to_xml(id)) };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if !bodyless {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message())
    }
}

impl StdError for S3Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<S3Code> for S3Error {
    fn from(code: S3Code) -> Self {
        Self::new(code)
    }
}

impl From<MetadataError> for S3Error {
    fn from(error: MetadataError) -> Self {
        let plain = Self::new;
        let mapped = match &error {
            MetadataError::NoSuchAccessKey => plain(S3Code::InvalidAccessKeyId),
            // Users are looked up only for grants that name them.
            MetadataError::NoSuchUser => plain(S3Code::InvalidArgument).with_message("Invalid id"),
            // No bucket can be in a namespace that is not there.
            MetadataError::NoSuchBucket | MetadataError::NoSuchNamespace => plain(S3Code::NoSuchBucket),
            MetadataError::BucketAlreadyOwnedByYou => plain(S3Code::BucketAlreadyOwnedByYou),
            MetadataError::BucketAlreadyExists => plain(S3Code::BucketAlreadyExists),
            MetadataError::BucketNotEmpty => plain(S3Code::BucketNotEmpty),
            MetadataError::NoSuchKey => plain(S3Code::NoSuchKey),
            MetadataError::NoSuchVersion => plain(S3Code::NoSuchVersion),
            MetadataError::NoSuchUpload => plain(S3Code::NoSuchUpload),
            MetadataError::InvalidPart { number } => {
                plain(S3Code::InvalidPart).with_extra("PartNumber", number.to_string())
            }
            MetadataError::InvalidPartOrder => plain(S3Code::InvalidPartOrder),
            MetadataError::PartTooSmall { number, len_bytes } => plain(S3Code::EntityTooSmall)
                .with_extra("ProposedSize", len_bytes.to_string())
                .with_extra("MinSizeAllowed", crate::limits::PART_LEN_BYTES_MIN.to_string())
                .with_extra("PartNumber", number.to_string()),
            // Which code is right depends on the document that was asked for: callers that know use
            // `S3Error::no_such_document`, and one that forgot is a bug.
            MetadataError::NoSuchDocument => plain(S3Code::InternalError),
            MetadataError::PreconditionFailed { which } => match which {
                Precondition::IfMatch => plain(S3Code::PreconditionFailed).with_extra("Condition", "If-Match"),
                Precondition::IfMatchMissing => plain(S3Code::NoSuchKey),
                Precondition::IfNoneMatch => plain(S3Code::PreconditionFailed).with_extra("Condition", "If-None-Match"),
            },
            MetadataError::Locked { reason } => plain(S3Code::AccessDenied).with_message(match reason {
                LockReason::Governance | LockReason::Compliance => {
                    "Access Denied because object protected by object lock."
                }
                LockReason::LegalHold | LockReason::ScopeHold => {
                    "Access Denied because object protected by object lock legal hold."
                }
                LockReason::DisposalOnly => "Access Denied because data of this project leave by a disposal only.",
            }),
            MetadataError::RetentionBelowMinimum { minimum_days } => plain(S3Code::InvalidArgument)
                .with_message(format!("This project demands COMPLIANCE retention of at least {minimum_days} days.")),
            MetadataError::InvalidBucketState => plain(S3Code::InvalidBucketState),
            MetadataError::QuotaExceeded => plain(S3Code::QuotaExceeded),
            MetadataError::ReadOnly { since } => plain(S3Code::AccountProblem).with_message(format!(
                "The project was paid for until {}: it is read-only, and nothing in it can be written or deleted.",
                crate::http_date::format_iso8601(*since)
            )),
            // The gateway registers anew by itself; a client's retry meets the new incarnation.
            MetadataError::Fenced => plain(S3Code::ServiceUnavailable),
            // 503 and not 409, because every SDK repeats a 503 by itself.
            MetadataError::Conflict => plain(S3Code::SlowDown),
            MetadataError::Unavailable { .. } | MetadataError::KeyUnavailable => plain(S3Code::ServiceUnavailable),
            MetadataError::KeyDestroyed => {
                plain(S3Code::AccessDenied).with_message("Access Denied because the key of this data was destroyed.")
            }
            // No S3 request administers users.
            MetadataError::Corrupt { .. }
            | MetadataError::Malformed { .. }
            | MetadataError::Principal { .. }
            | MetadataError::Approval { .. }
            | MetadataError::Project { .. }
            | MetadataError::Token { .. }
            | MetadataError::Opening { .. } => plain(S3Code::InternalError),
            // Nor retention, holds and disposals of projects.
            MetadataError::Retention { .. } => plain(S3Code::InternalError),
            // Nor custodians.
            MetadataError::Custody { .. } => plain(S3Code::InternalError),
        };
        mapped.with_source(error)
    }
}

/// Appends `<name>text</name>` with the text escaped.
fn element(xml: &mut String, name: &str, text: &str) {
    let _ = write!(xml, "<{name}>");
    for c in text.chars() {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\r' => xml.push_str("&#xD;"),
            '\n' | '\t' => xml.push(c),
            // XML 1.0 has no way to write the other control characters, so a message that quotes one shows this.
            c if (c as u32) < 0x20 || matches!(c, '\u{fffe}' | '\u{ffff}') => xml.push('\u{fffd}'),
            c => xml.push(c),
        }
    }
    let _ = write!(xml, "</{name}>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[test]
    fn every_code_has_a_valid_status_and_a_message() {
        for &code in S3Code::ALL {
            assert_eq!(code.status().as_u16(), code.status_u16(), "{code}");
            assert!(code.status_u16() >= 300, "{code}");
            assert!(!code.default_message().is_empty(), "{code}");
        }
    }

    #[test]
    fn errors_stay_small_enough_to_return_by_value() {
        assert!(size_of::<S3Error>() <= 128, "{}", size_of::<S3Error>());
    }

    #[test]
    fn xml_escapes_text_and_keeps_the_order_of_elements() {
        let error = S3Error::new(S3Code::NoSuchKey)
            .with_message("a<b>&\"\u{1}")
            .with_extra("Key", "x&y")
            .with_resource("/bucket/x&y");
        let id = RequestId::from_u64(0x1234);
        let expected = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>a&lt;b&gt;&amp;&quot;\u{fffd}</Message>\
             <Key>x&amp;y</Key><Resource>/bucket/x&amp;y</Resource><RequestId>0000000000001234</RequestId>\
             <HostId>{}</HostId></Error>",
            id.host_id()
        );
        assert_eq!(error.to_xml(&id), expected);
    }

    #[tokio::test]
    async fn head_and_not_modified_have_no_body_and_others_do() {
        for (code, is_head, has_body) in [
            (S3Code::NoSuchKey, false, true),
            (S3Code::NoSuchKey, true, false),
            (S3Code::NotModified, false, false),
            (S3Code::PreconditionFailed, false, true),
        ] {
            let etag = HeaderValue::from_static("\"x\"");
            let error = S3Error::new(code).with_header(http::header::ETAG, etag.clone());
            let response = error.into_response(&RequestId::next(), is_head);
            assert_eq!(response.status(), code.status());
            assert_eq!(response.headers().get(http::header::ETAG), Some(&etag));
            assert_eq!(response.headers().contains_key(CONTENT_TYPE), has_body);
            let body = response.into_body().collect().await.expect("in memory").to_bytes();
            assert_eq!(!body.is_empty(), has_body, "{code} {is_head}");
        }
    }

    #[test]
    fn what_metadata_says_for_people_does_not_reach_the_client() {
        let error = S3Error::from(MetadataError::Corrupt { what: "row 17 of secret".to_owned() });
        assert_eq!(error.code(), S3Code::InternalError);
        assert!(!error.to_xml(&RequestId::next()).contains("row 17"));
        assert!(error.source_error().is_some_and(|source| source.to_string().contains("row 17")));
    }

    #[test]
    fn metadata_refusals_map_to_the_codes_of_s3() {
        let cases = [
            (MetadataError::NoSuchAccessKey, S3Code::InvalidAccessKeyId),
            (MetadataError::PreconditionFailed { which: Precondition::IfMatchMissing }, S3Code::NoSuchKey),
            (MetadataError::PreconditionFailed { which: Precondition::IfNoneMatch }, S3Code::PreconditionFailed),
            (MetadataError::PartTooSmall { number: 3, len_bytes: 7 }, S3Code::EntityTooSmall),
            (MetadataError::Locked { reason: LockReason::Compliance }, S3Code::AccessDenied),
            (MetadataError::Fenced, S3Code::ServiceUnavailable),
            (MetadataError::Conflict, S3Code::SlowDown),
        ];
        for (from, to) in cases {
            assert_eq!(S3Error::from(from.clone()).code(), to, "{from:?}");
        }
    }
}

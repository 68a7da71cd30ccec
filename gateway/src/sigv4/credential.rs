//! What a request says of its signature: the Authorization header, the query of a presigned URL, and the credential in
//! either.

use super::{ALGORITHM, PRESIGNED_EXPIRES_SECS_MAX, SigV4Config, Signature, SigningKey};
use crate::error::{S3Code, S3Error};
use crate::host::Query;
use crate::http_date;
use valv_metadata_api::AccessGrant;
use valv_types::{AccessKeyId, TimestampMicros};

/// Where a credential stands; AWS's codes and messages differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Authorization header.
    Header,
    /// Query of a presigned URL.
    Query,
    /// Field of a POST form.
    Form,
}

impl Place {
    /// The error for a malformed authorization in this place.
    pub(super) fn malformed(self, what: impl std::fmt::Display) -> S3Error {
        match self {
            Place::Header => malformed_header(what),
            Place::Query => malformed_query(format!("Error parsing the X-Amz-Credential parameter; {what}")),
            Place::Form => S3Error::invalid_argument(
                format!("Error parsing the x-amz-credential field; {what}"),
                "x-amz-credential",
                "",
            ),
        }
    }
}

/// AuthorizationHeaderMalformed, in AWS's wording.
pub(super) fn malformed_header(what: impl std::fmt::Display) -> S3Error {
    S3Error::new(S3Code::AuthorizationHeaderMalformed)
        .with_message(format!("The authorization header is malformed; {what}"))
}

fn malformed_query(message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::new(S3Code::AuthorizationQueryParametersError).with_message(message)
}

/// `AKID/20130524/us-east-1/s3/aws4_request`, read and not yet judged.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) access_key: AccessKeyId,
    date: String,
    region: String,
    service: String,
    terminator: String,
}

impl Credential {
    pub(super) fn parse(text: &str, place: Place) -> Result<Self, S3Error> {
        // From the right, because nothing says that an access key has no slash in it.
        let mut parts = text.rsplitn(5, '/');
        let (Some(terminator), Some(service), Some(region), Some(date), Some(id)) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(place.malformed(
                "the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".",
            ));
        };
        let access_key = AccessKeyId::new(id).map_err(|_| {
            S3Error::new(S3Code::InvalidAccessKeyId)
                .with_extra("AWSAccessKeyId", id.chars().take(128).collect::<String>())
        })?;
        let owned = str::to_owned;
        Ok(Self {
            access_key,
            date: owned(date),
            region: owned(region),
            service: owned(service),
            terminator: owned(terminator),
        })
    }

    /// Checks that the scope is this endpoint's and of the day that the request states.
    pub(super) fn check(&self, config: &SigV4Config, signed_at: TimestampMicros, place: Place) -> Result<(), S3Error> {
        if self.terminator != "aws4_request" {
            return Err(place.malformed(format_args!(
                "incorrect terminal \"{}\". This endpoint uses \"aws4_request\".",
                self.terminator
            )));
        }
        if self.service != "s3" {
            return Err(place
                .malformed(format_args!("incorrect service \"{}\". This endpoint belongs to \"s3\".", self.service)));
        }
        if !config.accepts(&self.region) {
            let expected = config.region();
            return Err(place
                .malformed(format_args!("the region '{}' is wrong; expecting '{expected}'", self.region))
                .with_extra("Region", expected));
        }
        let stated = http_date::format_basic(signed_at);
        if stated.get(..8) != Some(self.date.as_str()) {
            return Err(place.malformed(format_args!(
                "Invalid credential date \"{}\". This date is not the same as X-Amz-Date: \"{}\".",
                self.date,
                stated.get(..8).unwrap_or_default()
            )));
        }
        Ok(())
    }

    /// `20130524/us-east-1/s3/aws4_request`.
    pub(super) fn scope(&self) -> String {
        format!("{}/{}/{}/{}", self.date, self.region, self.service, self.terminator)
    }

    pub(super) fn signing_key(&self, grant: &AccessGrant) -> SigningKey {
        SigningKey::derive(grant.secret.expose(), &self.date, &self.region, &self.service)
    }
}

/// A SigV4 Authorization header.
#[derive(Debug)]
pub(super) struct AuthorizationHeader {
    pub(super) credential: Credential,
    pub(super) signed_headers: Vec<String>,
    pub(super) signature: Signature,
}

impl AuthorizationHeader {
    pub(super) fn parse(value: &str) -> Result<Self, S3Error> {
        let value = value.trim();
        let (scheme, rest) = value.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((value, ""));
        match scheme {
            ALGORITHM => {}
            "" => return Err(S3Error::new(S3Code::AccessDenied)),
            "AWS" if rest.contains(':') => return Err(signature_v2()),
            "AWS" => {
                return Err(S3Error::invalid_argument(
                    "AWS authorization header is invalid.  Expected AwsAccessKeyId:signature",
                    "Authorization",
                    "",
                ));
            }
            scheme if scheme.starts_with("AWS4-ECDSA") => {
                return Err(S3Error::not_implemented("Authorization")
                    .with_message("Signature Version 4A (AWS4-ECDSA-P256-SHA256) is not implemented."));
            }
            _ => {
                return Err(S3Error::invalid_argument("Unsupported Authorization Type", "Authorization", ""));
            }
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for field in rest.split(',').map(str::trim).filter(|field| !field.is_empty()) {
            let (name, value) =
                field.split_once('=').ok_or_else(|| malformed_header("expecting NAME=VALUE components"))?;
            let slot = match name.trim() {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                // Unknown components are not under the signature and mean nothing.
                _ => continue,
            };
            if slot.replace(value.trim()).is_some() {
                return Err(malformed_header("a component is given more than once"));
            }
        }
        let missing = |name: &str| {
            malformed_header(format_args!(
                "the authorization header requires three components: Credential, SignedHeaders, and Signature; {name} is missing."
            ))
        };
        let credential = credential.ok_or_else(|| missing("Credential"))?;
        let signed_headers = signed_headers.ok_or_else(|| missing("SignedHeaders"))?;
        let signature = signature.ok_or_else(|| missing("Signature"))?;
        Ok(Self {
            credential: Credential::parse(credential, Place::Header)?,
            signed_headers: parse_signed_headers(signed_headers)
                .ok_or_else(|| malformed_header("SignedHeaders is not a list of lower-case names"))?,
            // A string that can't be a signature is a wrong signature.
            signature: Signature::from_hex(signature.as_bytes())
                .ok_or_else(|| S3Error::new(S3Code::SignatureDoesNotMatch))?,
        })
    }
}

/// What answers SigV2, which signs neither body nor all headers.
fn signature_v2() -> S3Error {
    S3Error::invalid_request(
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
    )
}

/// `host;range;x-amz-date`: names, lower-case, none twice. `None` if it is anything else.
fn parse_signed_headers(text: &str) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for name in text.split(';') {
        let is_token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_token) || names.iter().any(|seen| seen == name) {
            return None;
        }
        names.push(name.to_owned());
        // No request has more headers than that, so a longer list names headers that are not there.
        if names.len() > crate::limits::HEADERS_MAX {
            return None;
        }
    }
    Some(names)
}

/// The query of a presigned URL.
#[derive(Debug)]
pub(super) struct PresignedQuery {
    pub(super) credential: Credential,
    pub(super) signed_headers: Vec<String>,
    pub(super) signature: Signature,
    pub(super) signed_at: TimestampMicros,
    pub(super) expires_secs: u64,
    pub(super) security_token: Option<String>,
    pub(super) content_sha256: Option<String>,
}

impl PresignedQuery {
    /// Whether a query carries any signature, of whatever version.
    pub(super) fn is_present(query: &str) -> bool {
        query.split('&').any(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            matches!(name, "X-Amz-Algorithm" | "X-Amz-Credential" | "X-Amz-Signature" | "AWSAccessKeyId")
        })
    }

    /// The session token that a query carries, beside whatever else.
    pub(super) fn security_token(query: &str) -> Result<Option<String>, S3Error> {
        Ok(Query::parse(query)?.get("X-Amz-Security-Token")?.map(str::to_owned))
    }

    pub(super) fn parse(query: &str) -> Result<Self, S3Error> {
        let query = Query::parse(query)?;
        let once = |name: &'static str| -> Result<Option<&str>, S3Error> {
            if query.all_bytes(name).nth(1).is_some() {
                return Err(malformed_query(format!("{name} may be given only once.")));
            }
            query.get(name)
        };
        if once("AWSAccessKeyId")?.is_some() {
            return Err(signature_v2());
        }
        let required = |name: &'static str| -> Result<&str, S3Error> {
            once(name)?.ok_or_else(|| {
                malformed_query(
                    "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, \
                     X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
                )
            })
        };
        if required("X-Amz-Algorithm")? != ALGORITHM {
            return Err(malformed_query(format!("X-Amz-Algorithm only supports \"{ALGORITHM}\"")));
        }
        let credential = Credential::parse(required("X-Amz-Credential")?, Place::Query)?;
        let signed_at = http_date::parse_basic(required("X-Amz-Date")?)
            .ok_or_else(|| malformed_query("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""))?;
        let signed_headers = parse_signed_headers(required("X-Amz-SignedHeaders")?)
            .ok_or_else(|| malformed_query("X-Amz-SignedHeaders is not a list of lower-case names"))?;
        let signature = Signature::from_hex(required("X-Amz-Signature")?.as_bytes())
            .ok_or_else(|| S3Error::new(S3Code::SignatureDoesNotMatch))?;
        let expires_secs = parse_expires(required("X-Amz-Expires")?)?;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Ok(Self {
            credential,
            signed_headers,
            signature,
            signed_at,
            expires_secs,
            security_token: owned(once("X-Amz-Security-Token")?),
            content_sha256: owned(once("X-Amz-Content-Sha256")?),
        })
    }
}

fn parse_expires(text: &str) -> Result<u64, S3Error> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed_query("X-Amz-Expires should be a number"));
    }
    if text.starts_with('-') {
        return Err(malformed_query("X-Amz-Expires must be non-negative"));
    }
    // A number too long for u64 is more than a week, too. Zero is a number: such a URL has expired when it is made.
    match text.parse() {
        Ok(secs) if secs <= PRESIGNED_EXPIRES_SECS_MAX => Ok(secs),
        _ => Err(malformed_query(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than \
             604800 seconds",
        )),
    }
}

//! How an object is sealed at its writer's wish: what requests ask for, what the object's record says of it, what opens it
//! again, and what answers tell.
//!
//! Every object is sealed under a data key of its own, which its project's key wraps. That is what S3 calls SSE-S3, and
//! SSE-KMS here is the same sealing under a name for the project's key. SSE-C adds a layer: the data key is wrapped by the
//! customer's key first (`valv_codec::CustomerKey`), which is in memory while its request lasts and nowhere else.
//!
//! The record is sealed with the version's other attributes; its fields are in `docs/format-metadata.md`, "Encryption".

mod customer;
pub(crate) mod kms;

pub(crate) use customer::{Customer, KeyHeaders, Use};

use crate::error::{S3Code, S3Error};
use crate::ops::headers::{header_value, text};
use http::{HeaderMap, HeaderName, HeaderValue};
use minicbor::{Decode, Encode};
use valv_codec::{CustomerKey, CustomerKeyCheck};
use valv_types::ProjectId;

/// The header that names the method.
pub(crate) const METHOD: HeaderName = HeaderName::from_static("x-amz-server-side-encryption");
const KMS_KEY_ID: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-aws-kms-key-id");
const KMS_CONTEXT: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-context");
const BUCKET_KEY: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-bucket-key-enabled");

/// How a version, or an upload that will be one, is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Encryption {
    /// SSE-S3: nothing was asked for, or that.
    #[default]
    Managed,
    /// SSE-KMS: the project's key by its name.
    Kms {
        /// S3 Bucket Key, as it was asked for. Nothing is done differently: a project's key is on loan in any case.
        has_bucket_key: bool,
        /// The encryption context, in base64 as it came. Kept, sealed, and told to whoever writes.
        context: Option<String>,
        /// The name that answers give to the key, if it is not the ARN.
        key_name: Option<String>,
    },
    /// SSE-C: the customer's key is needed, too.
    Customer(CustomerKeyCheck),
}

#[derive(Clone, Copy, Encode, Decode)]
#[cbor(index_only)]
enum Method {
    #[n(1)]
    Kms,
    #[n(2)]
    CustomerAes256,
}

/// [`Encryption`] at rest.
#[derive(Encode, Decode)]
struct Record {
    #[n(0)]
    method: Method,
    #[n(1)]
    has_bucket_key: Option<bool>,
    #[n(2)]
    context: Option<String>,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    salt: Option<Vec<u8>>,
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    digest: Option<Vec<u8>>,
    #[n(5)]
    key_name: Option<String>,
}

/// Whether a version with this record ([`valv_metadata_api::Attributes::encryption`]) has an ETag that says nothing of its
/// bytes: those that customers' keys seal. A record that can't be read counts as such.
pub fn has_random_etag(record: &[u8]) -> bool {
    !matches!(Encryption::read(record), Ok(Encryption::Managed | Encryption::Kms { .. }))
}

impl Encryption {
    /// Reads `Attributes::encryption`.
    ///
    /// # Errors
    /// InternalError for a record of a newer Valv, or one that contradicts itself.
    pub(crate) fn read(record: &[u8]) -> Result<Self, S3Error> {
        if record.is_empty() {
            return Ok(Self::Managed);
        }
        let record: Record = minicbor::decode(record).map_err(S3Error::internal)?;
        match record.method {
            Method::Kms => Ok(Self::Kms {
                has_bucket_key: record.has_bucket_key.unwrap_or(false),
                context: record.context,
                key_name: record.key_name,
            }),
            Method::CustomerAes256 => {
                let salt = record.salt.and_then(|salt| salt.try_into().ok());
                let digest = record.digest.and_then(|digest| digest.try_into().ok());
                let (Some(salt), Some(digest)) = (salt, digest) else { return Err(S3Code::InternalError.into()) };
                Ok(Self::Customer(CustomerKeyCheck { salt, digest }))
            }
        }
    }

    /// What [`Self::read`] reads.
    ///
    /// # Errors
    /// InternalError, which encoding to memory rules out.
    pub(crate) fn to_record(&self) -> Result<Vec<u8>, S3Error> {
        let empty = Record {
            method: Method::Kms,
            has_bucket_key: None,
            context: None,
            salt: None,
            digest: None,
            key_name: None,
        };
        let record = match self {
            Self::Managed => return Ok(Vec::new()),
            Self::Kms { has_bucket_key, context, key_name } => Record {
                has_bucket_key: Some(*has_bucket_key),
                context: context.clone(),
                key_name: key_name.clone(),
                ..empty
            },
            Self::Customer(check) => Record {
                method: Method::CustomerAes256,
                salt: Some(check.salt.to_vec()),
                digest: Some(check.digest.to_vec()),
                ..empty
            },
        };
        minicbor::to_vec(record).map_err(S3Error::internal)
    }

    /// Whether the customer's key is needed.
    pub(crate) const fn is_customer(&self) -> bool {
        matches!(self, Self::Customer(_))
    }

    /// Holds the key that a request brought against an object's record.
    ///
    /// # Errors
    /// InvalidRequest if there is a key too many or too few; AccessDenied for a wrong one.
    pub(crate) fn opened_by(self, project: ProjectId, given: Option<Customer>) -> Result<Sealing, S3Error> {
        match (&self, &given) {
            (Self::Customer(check), Some(customer)) if customer.key.matches(project, check) => {}
            (Self::Customer(_), Some(_)) => return Err(customer::wrong_key()),
            (Self::Customer(_), None) => {
                return Err(S3Error::invalid_request(
                    "The object was stored using a form of Server Side Encryption. The correct parameters must be \
                     provided to retrieve the object.",
                ));
            }
            (Self::Managed | Self::Kms { .. }, Some(_)) => {
                return Err(S3Error::invalid_request("The encryption parameters are not applicable to this object."));
            }
            (Self::Managed | Self::Kms { .. }, None) => {}
        }
        Ok(Sealing { encryption: self, customer: given, project })
    }

    /// Holds the key that a part brought against its upload's record.
    ///
    /// # Errors
    /// InvalidRequest for a missing, an unexpected and a wrong key.
    pub(crate) fn continued_by(self, project: ProjectId, given: Option<Customer>) -> Result<Sealing, S3Error> {
        match (&self, &given) {
            (Self::Customer(check), Some(customer)) if customer.key.matches(project, check) => {}
            (Self::Customer(_), Some(_)) => {
                return Err(S3Error::invalid_request(
                    "The provided encryption parameters did not match the ones used originally.",
                ));
            }
            (Self::Customer(_), None) | (Self::Managed | Self::Kms { .. }, Some(_)) => {
                return Err(S3Error::invalid_request(
                    "The multipart upload initiate requested encryption. Subsequent part requests must include the \
                     appropriate encryption parameters.",
                ));
            }
            (Self::Managed | Self::Kms { .. }, None) => {}
        }
        Ok(Sealing { encryption: self, customer: given, project })
    }
}

/// How the bytes of one request are sealed or opened: the record, with the key if it needs one.
pub(crate) struct Sealing {
    pub(crate) encryption: Encryption,
    customer: Option<Customer>,
    /// Whose key seals.
    project: ProjectId,
}

/// Whether an answer tells of a write or of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerTo {
    /// AWS repeats the encryption context.
    Write,
    /// AWS does not.
    Read,
}

impl Sealing {
    /// The customer's key, if one is needed.
    pub(crate) fn key(&self) -> Option<&CustomerKey> {
        self.customer.as_ref().map(|customer| &customer.key)
    }

    /// The record to keep.
    ///
    /// # Errors
    /// As [`Encryption::to_record`].
    pub(crate) fn to_record(&self) -> Result<Vec<u8>, S3Error> {
        self.encryption.to_record()
    }

    /// What the ETag is made of: the body's MD5, or random bytes where the bytes are the customer's secret. An MD5 in
    /// listings would tell everybody who may list whether two customers' objects are the same, or are a known file. (AWS:
    /// the ETag of an SSE-C object is not an MD5.)
    ///
    /// # Errors
    /// InternalError if there is no randomness.
    pub(crate) fn etag(&self, md5: [u8; 16]) -> Result<[u8; 16], S3Error> {
        if !self.encryption.is_customer() {
            return Ok(md5);
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| S3Error::new(S3Code::InternalError))?;
        Ok(random)
    }

    /// Adds what S3's answers say of it. `region` is the endpoint's.
    pub(crate) fn add_headers(&self, headers: &mut HeaderMap, region: &str, answer: AnswerTo) {
        match &self.encryption {
            Encryption::Managed => {
                headers.insert(METHOD, HeaderValue::from_static("AES256"));
            }
            Encryption::Kms { has_bucket_key, context, key_name } => {
                headers.insert(METHOD, HeaderValue::from_static("aws:kms"));
                let name = key_name.clone().unwrap_or_else(|| kms::key_arn(region, self.project));
                headers.insert(KMS_KEY_ID, header_value(&name));
                if *has_bucket_key {
                    headers.insert(BUCKET_KEY, HeaderValue::from_static("true"));
                }
                if let (Some(context), AnswerTo::Write) = (context, answer) {
                    headers.insert(KMS_CONTEXT, header_value(context));
                }
            }
            Encryption::Customer(_) => {
                if let Some(customer) = &self.customer {
                    customer.add_headers(headers);
                }
            }
        }
    }
}

/// What a write asks for.
pub(crate) enum Asked {
    /// Nothing: the bucket's default.
    Nothing {
        /// Except, perhaps, of an S3 Bucket Key.
        has_bucket_key: Option<bool>,
    },
    /// SSE-S3.
    Managed,
    /// SSE-KMS.
    Kms {
        /// The key's name; `None` is the project's own.
        key_id: Option<String>,
        /// Whether with an S3 Bucket Key; `None` is the bucket's default.
        has_bucket_key: Option<bool>,
        /// The encryption context.
        context: Option<String>,
    },
    /// SSE-C.
    Customer(Customer),
}

impl Asked {
    /// Reads the headers of a write (or the fields of a form, which have the same names). `is_private` says whether
    /// nobody listens on the way.
    ///
    /// # Errors
    /// As AWS for each combination that means nothing; NotImplemented for `aws:kms:dsse`: two layers would be told of and
    /// one be there.
    pub(crate) fn of_write(headers: &HeaderMap, is_private: bool) -> Result<Self, S3Error> {
        if let Some(method) = headers.get(METHOD)
            && KeyHeaders::Object.are_in(headers)
        {
            return Err(customer::invalid(
                "Server Side Encryption with Customer provided key is incompatible with the encryption method specified",
                &String::from_utf8_lossy(method.as_bytes()),
            ));
        }
        if let Some(customer) = Customer::read(headers, KeyHeaders::Object, Use::Write, is_private)? {
            return Ok(Self::Customer(customer));
        }
        let has_bucket_key = match headers.get(BUCKET_KEY) {
            None => None,
            Some(value) => match value.as_bytes() {
                value if value.eq_ignore_ascii_case(b"true") => Some(true),
                value if value.eq_ignore_ascii_case(b"false") => Some(false),
                value => {
                    return Err(S3Error::invalid_argument(
                        "The bucket key setting must be true or false",
                        BUCKET_KEY.as_str(),
                        String::from_utf8_lossy(value),
                    ));
                }
            },
        };
        let needs_kms = [KMS_KEY_ID, KMS_CONTEXT].into_iter().find(|name| headers.contains_key(name));
        match (headers.get(METHOD).map(HeaderValue::as_bytes), needs_kms) {
            (Some(b"aws:kms"), _) => Ok(Self::Kms {
                key_id: text(headers, KMS_KEY_ID.as_str()).filter(|id| !id.is_empty()).map(str::to_owned),
                has_bucket_key,
                context: headers.get(KMS_CONTEXT).map(|value| kms::check_context(value.as_bytes())).transpose()?,
            }),
            (Some(b"aws:kms:dsse"), _) => Err(S3Error::not_implemented(METHOD.as_str()).with_message(
                "Dual-layer server-side encryption with KMS keys (DSSE-KMS) is not implemented; use aws:kms or AES256.",
            )),
            (None | Some(b"AES256"), Some(name)) => Err(S3Error::invalid_argument(
                "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : \
                 aws:kms",
                name.as_str(),
                "",
            )),
            (None, None) => Ok(Self::Nothing { has_bucket_key }),
            (Some(b"AES256"), None) => Ok(Self::Managed),
            (Some(other), _) => Err(S3Error::invalid_argument(
                "The encryption method specified is not supported",
                METHOD.as_str(),
                String::from_utf8_lossy(other),
            )),
        }
    }

    /// How a new version of `project` is sealed. [`Self::Nothing`] is SSE-S3 here: a bucket's default comes before this.
    ///
    /// # Errors
    /// KMS.NotFoundException for a key that is not the project's; InternalError if there is no randomness.
    pub(crate) fn sealing(self, names: &kms::Names<'_>, project: ProjectId) -> Result<Sealing, S3Error> {
        let (encryption, customer) = match self {
            Self::Nothing { .. } | Self::Managed => (Encryption::Managed, None),
            Self::Kms { key_id, has_bucket_key, context } => {
                let key_name = match key_id {
                    None => None,
                    Some(id) => kms::find_key(&id, names, project)?,
                };
                (Encryption::Kms { has_bucket_key: has_bucket_key.unwrap_or(false), context, key_name }, None)
            }
            Self::Customer(customer) => {
                let check = customer.key.check(project).map_err(S3Error::internal)?;
                (Encryption::Customer(check), Some(customer))
            }
        };
        Ok(Sealing { encryption, customer, project })
    }
}

/// Refuses a read that names a method: what an object is sealed with can't be chosen when it is read.
///
/// # Errors
/// InvalidArgument.
pub(crate) fn check_read(headers: &HeaderMap) -> Result<(), S3Error> {
    match headers.get(METHOD) {
        None => Ok(()),
        Some(value) => Err(S3Error::invalid_argument(
            "x-amz-server-side-encryption header is not supported for this operation.",
            METHOD.as_str(),
            String::from_utf8_lossy(value.as_bytes()),
        )),
    }
}

#[cfg(test)]
mod tests;

//! Encryption as operations see it: a bucket's default, and how the objects of a request are sealed and opened.

use super::context::{BodyDigest, Context};
use super::tagging::{bucket_document, update_bucket};
use super::{Answer, no_content, status, xml};
use crate::access::Action;
use crate::encryption::{AnswerTo, Asked, Customer, Encryption, KeyHeaders, Sealing, Use, check_read, kms};
use crate::error::{S3Code, S3Error};
use crate::payload::Payload;
use crate::xml::{Element, Namespace, Writer, parse};
use http::{HeaderMap, StatusCode};
use valv_metadata_api::{Attributes, Bucket, BucketChange, BucketDocument, BucketDocumentKind};

/// Longest ServerSideEncryptionConfiguration: its one rule has a key's name of 2 KiB and a handful of short elements.
const ENCRYPTION_LEN_BYTES_MAX: usize = 16 * 1024;
const ROOT: &str = "ServerSideEncryptionConfiguration";

/// Whether nobody listens between the client and this process, so that a key may come along: TLS, the same machine, or
/// the operator's word that TLS ends before the gateway.
fn is_private(cx: &Context) -> bool {
    cx.conn.is_tls || cx.conn.peer.ip().to_canonical().is_loopback() || cx.shared.config.sse_c_without_tls
}

/// What the request's headers (or the fields of its form) ask for its new object.
///
/// # Errors
/// As [`Asked::of_write`].
pub(crate) fn asked(cx: &Context) -> Result<Asked, S3Error> {
    Asked::of_write(&cx.headers, is_private(cx))
}

/// How a new object of `bucket` is sealed: as asked for, or else by the bucket's default.
///
/// # Errors
/// AccessDenied for a customer's key where the bucket takes none; KMS.NotFoundException.
pub(crate) async fn new_object(cx: &Context, bucket: &Bucket, asked: Asked) -> Result<Sealing, S3Error> {
    let default = default(cx, bucket).await?;
    let asked = match default {
        None => asked,
        Some(default) => default.apply(asked).ok_or_else(|| blocked(cx, bucket))?,
    };
    asked.sealing(&names(cx), bucket.project)
}

/// The customer's key that a read brings along.
///
/// # Errors
/// As [`Customer::read`].
pub(crate) fn read_key(cx: &Context) -> Result<Option<Customer>, S3Error> {
    check_read(&cx.headers)?;
    Customer::read(&cx.headers, KeyHeaders::Object, Use::Read, is_private(cx))
}

/// The customer's key of a copy's source.
///
/// # Errors
/// As [`Customer::read`].
pub(crate) fn source_key(cx: &Context) -> Result<Option<Customer>, S3Error> {
    Customer::read(&cx.headers, KeyHeaders::CopySource, Use::Read, is_private(cx))
}

/// Holds the key that a read brought against the object's record.
///
/// # Errors
/// InvalidRequest, AccessDenied.
pub(crate) fn open(bucket: &Bucket, attributes: &Attributes, given: Option<Customer>) -> Result<Sealing, S3Error> {
    Encryption::read(&attributes.encryption)?.opened_by(bucket.project, given)
}

/// The customer's key that a part, or a call about parts, brings along.
///
/// # Errors
/// As [`Customer::read`].
pub(crate) fn part_key(cx: &Context, wanted_for: Use) -> Result<Option<Customer>, S3Error> {
    // A method that is named again with a part decides nothing: the upload's holds, and the answer tells it.
    Customer::read(&cx.headers, KeyHeaders::Object, wanted_for, is_private(cx))
}

/// Holds the key that a part brought against its upload's record. In a bucket that has come to refuse customers' keys no
/// part is added with one.
///
/// # Errors
/// InvalidRequest, AccessDenied.
pub(crate) async fn part(
    cx: &Context,
    bucket: &Bucket,
    upload: &Attributes,
    given: Option<Customer>,
) -> Result<Sealing, S3Error> {
    let sealing = Encryption::read(&upload.encryption)?.continued_by(bucket.project, given)?;
    if sealing.encryption.is_customer() && default(cx, bucket).await?.is_some_and(|default| default.blocks_customers())
    {
        return Err(blocked(cx, bucket));
    }
    Ok(sealing)
}

/// Holds the key that a call about an upload brought against its record. Checksums of a customer's parts tell something
/// of their bytes, so who chose a checksum must bring the key (as AWS demands); without one it may be left out.
///
/// # Errors
/// InvalidRequest; InvalidArgument for a key that is needed and missing.
pub(crate) fn upload(
    bucket: &Bucket,
    upload: &valv_metadata_api::Upload,
    given: Option<Customer>,
) -> Result<UploadSealing, S3Error> {
    let encryption = Encryption::read(&upload.attributes.encryption)?;
    match given {
        None if encryption.is_customer() && upload.checksum.is_some() => Err(S3Error::invalid_argument(
            "Requests specifying Server Side Encryption with Customer provided keys must provide an appropriate secret key.",
            crate::encryption::METHOD.as_str(),
            "null",
        )),
        None if encryption.is_customer() => Ok(UploadSealing(None)),
        given => encryption.continued_by(bucket.project, given).map(Some).map(UploadSealing),
    }
}

/// How an upload is sealed, as far as the request may be told: a customer's key is named to who brought it.
pub(crate) struct UploadSealing(Option<Sealing>);

impl UploadSealing {
    /// Of an upload that is not there any more.
    pub(crate) const fn unknown() -> Self {
        Self(None)
    }

    /// The headers of a completion's answer.
    pub(crate) fn headers(&self, cx: &Context) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(sealing) = &self.0 {
            add_headers(cx, sealing, &mut headers, AnswerTo::Write);
        }
        headers
    }
}

/// Adds what the answer says of the object's encryption.
pub(crate) fn add_headers(cx: &Context, sealing: &Sealing, headers: &mut HeaderMap, answer: AnswerTo) {
    sealing.add_headers(headers, &cx.shared.config.region, answer);
}

fn names(cx: &Context) -> kms::Names<'_> {
    let config = &cx.shared.config;
    kms::Names { region: &config.region, regions_also: &config.regions_also, declared: &config.kms_key_names }
}

/// The refusal of a customer's key where the bucket takes none (AWS: "Blocking or unblocking SSE-C").
fn blocked(cx: &Context, bucket: &Bucket) -> S3Error {
    let key = cx.target.key.as_ref().map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
    S3Error::new(S3Code::AccessDenied).with_message(format!(
        "You are not authorized to perform: s3:PutObject on resource: \"arn:aws:s3:::{}/{}\" because this bucket has blocked \
         upload requests that specify Server Side Encryption with Customer provided keys (SSE-C). Please specify a \
         different server-side encryption type",
        bucket.name,
        key.unwrap_or_default()
    ))
}

/// What a bucket does with new objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Default {
    /// SSE-KMS, perhaps under a named key, instead of SSE-S3.
    kms: Option<Option<String>>,
    has_bucket_key: bool,
    /// Whether customers' keys are refused; `None` if nothing was said of it.
    blocks_customers: Option<bool>,
}

/// The bucket's default, if one was set: a bucket without it costs no look-up.
async fn default(cx: &Context, bucket: &Bucket) -> Result<Option<Default>, S3Error> {
    let kind = BucketDocumentKind::Encryption;
    if !bucket.documents.contains(&kind) {
        return Ok(None);
    }
    match bucket_document(cx, bucket, kind).await {
        Ok(body) => Default::read(&parse(&body, ROOT)?).map(Some),
        // Removed since the bucket was read.
        Err(error) if error.code() == S3Code::ServerSideEncryptionConfigurationNotFoundError => Ok(None),
        Err(error) => Err(error),
    }
}

impl Default {
    /// Reads the document, as a client sends it or as it was kept.
    ///
    /// # Errors
    /// MalformedXML; InvalidArgument for a key without SSE-KMS; NotImplemented for methods that are not there.
    fn read(document: &Element) -> Result<Self, S3Error> {
        let mut rules = document.all("Rule");
        let (Some(rule), None) = (rules.next(), rules.next()) else { return Err(S3Code::MalformedXML.into()) };
        let kms = match rule.child("ApplyServerSideEncryptionByDefault") {
            None => None,
            Some(apply) => Self::read_method(apply)?,
        };
        let blocks_customers = match rule.child("BlockedEncryptionTypes") {
            None => None,
            Some(blocked) => {
                let mut blocks = None;
                for kind in blocked.all("EncryptionType") {
                    blocks = match kind.text().trim() {
                        "NONE" => Some(false),
                        "SSE-C" => Some(true),
                        _ => return Err(S3Code::MalformedXML.into()),
                    };
                }
                Some(blocks.ok_or(S3Code::MalformedXML)?)
            }
        };
        Ok(Self { kms, has_bucket_key: rule.flag("BucketKeyEnabled")?, blocks_customers })
    }

    fn read_method(apply: &Element) -> Result<Option<Option<String>>, S3Error> {
        let key_id = apply.text_of("KMSMasterKeyID").map(str::trim).filter(|id| !id.is_empty());
        if key_id.is_some_and(|id| id.len() > kms::KEY_ID_LEN_BYTES_MAX) {
            return Err(S3Code::MalformedXML.into());
        }
        match apply.required("SSEAlgorithm")?.trim() {
            "AES256" => match key_id {
                None => Ok(None),
                Some(id) => Err(S3Error::invalid_argument(
                    "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse",
                    "ApplyServerSideEncryptionByDefault",
                    id,
                )),
            },
            // Whether the key is the project's is asked when it is used, as in AWS.
            "aws:kms" => Ok(Some(key_id.map(str::to_owned))),
            method @ ("aws:kms:dsse" | "aws:fsx" | "aws:backup") => Err(S3Error::not_implemented("SSEAlgorithm")
                .with_message(format!("Default encryption with {method} is not implemented; use aws:kms or AES256."))),
            _ => Err(S3Code::MalformedXML.into()),
        }
    }

    fn document(&self) -> String {
        Writer::document(ROOT, Namespace::S3, |xml| {
            xml.element("Rule", |xml| {
                xml.element("ApplyServerSideEncryptionByDefault", |xml| {
                    xml.text("SSEAlgorithm", if self.kms.is_some() { "aws:kms" } else { "AES256" });
                    xml.optional("KMSMasterKeyID", self.kms.as_ref().and_then(|id| id.as_deref()));
                });
                if let Some(blocks) = self.blocks_customers {
                    xml.element("BlockedEncryptionTypes", |xml| {
                        xml.text("EncryptionType", if blocks { "SSE-C" } else { "NONE" });
                    });
                }
                xml.value("BucketKeyEnabled", self.has_bucket_key);
            });
        })
    }

    fn blocks_customers(&self) -> bool {
        self.blocks_customers.unwrap_or(false)
    }

    /// What is done for a request that asks so; `None` for a customer's key that is refused.
    fn apply(self, asked: Asked) -> Option<Asked> {
        let own_bucket_key = self.has_bucket_key;
        Some(match asked {
            Asked::Customer(_) if self.blocks_customers() => return None,
            Asked::Nothing { has_bucket_key } => match self.kms {
                None => Asked::Managed,
                Some(key_id) => {
                    Asked::Kms { key_id, has_bucket_key: Some(has_bucket_key.unwrap_or(own_bucket_key)), context: None }
                }
            },
            Asked::Kms { key_id, has_bucket_key, context } => {
                Asked::Kms { key_id, has_bucket_key: Some(has_bucket_key.unwrap_or(own_bucket_key)), context }
            }
            asked @ (Asked::Managed | Asked::Customer(_)) => asked,
        })
    }
}

/// GET `?encryption`. A bucket without a setting does what AWS's do: SSE-S3.
pub(crate) async fn get(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::GetEncryptionConfiguration).await?;
    Ok(xml(default(cx, &bucket).await?.unwrap_or_default().document()))
}

/// PUT `?encryption`. What it does not say of blocked types stays as it was.
pub(crate) async fn put(cx: &Context, mut payload: Payload) -> Answer {
    let bucket = cx.bucket(Action::PutEncryptionConfiguration).await?;
    let document = cx.xml_body(&mut payload, ROOT, ENCRYPTION_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    let mut new = Default::read(&document)?;
    if new.blocks_customers.is_none() {
        new.blocks_customers = default(cx, &bucket).await?.and_then(|old| old.blocks_customers);
    }
    let document = BucketDocument { kind: BucketDocumentKind::Encryption, body: new.document().into_bytes() };
    update_bucket(cx, &bucket, BucketChange::SetDocument(document)).await?;
    Ok(status(StatusCode::OK))
}

/// DELETE `?encryption`: back to SSE-S3, and customers' keys are taken.
pub(crate) async fn delete(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::PutEncryptionConfiguration).await?;
    update_bucket(cx, &bucket, BucketChange::RemoveDocument(BucketDocumentKind::Encryption)).await?;
    Ok(no_content())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(inner: &str) -> Result<Default, S3Code> {
        let xml = format!("<{ROOT}><Rule>{inner}</Rule></{ROOT}>");
        Default::read(&parse(xml.as_bytes(), ROOT).map_err(|error| error.code())?).map_err(|error| error.code())
    }

    fn method(inner: &str) -> String {
        format!("<ApplyServerSideEncryptionByDefault>{inner}</ApplyServerSideEncryptionByDefault>")
    }

    #[test]
    fn documents_come_back_as_they_were_given() {
        let managed = Default::default();
        let kms = Default { kms: Some(None), has_bucket_key: true, blocks_customers: Some(true) };
        let named =
            Default { kms: Some(Some("alias/a&b".to_owned())), blocks_customers: Some(false), ..managed.clone() };
        for default in [managed, kms, named] {
            assert_eq!(Default::read(&parse(default.document().as_bytes(), ROOT).expect("XML")).ok(), Some(default));
        }
    }

    #[test]
    fn documents_are_read_as_aws_reads_them() {
        let managed = Default::default();
        let id = "<KMSMasterKeyID>k</KMSMasterKeyID>";
        for (inner, expected) in [
            (method("<SSEAlgorithm>AES256</SSEAlgorithm>"), Ok(managed.clone())),
            (
                method("<SSEAlgorithm>AES256</SSEAlgorithm>") + "<BucketKeyEnabled>true</BucketKeyEnabled>",
                Ok(Default { has_bucket_key: true, ..managed.clone() }),
            ),
            (method("<SSEAlgorithm>aws:kms</SSEAlgorithm>"), Ok(Default { kms: Some(None), ..managed.clone() })),
            (
                method(&format!("{id}<SSEAlgorithm>aws:kms</SSEAlgorithm>")),
                Ok(Default { kms: Some(Some("k".to_owned())), ..managed.clone() }),
            ),
            (
                "<BlockedEncryptionTypes><EncryptionType>SSE-C</EncryptionType></BlockedEncryptionTypes>".to_owned(),
                Ok(Default { blocks_customers: Some(true), ..managed }),
            ),
            (method(&format!("{id}<SSEAlgorithm>AES256</SSEAlgorithm>")), Err(S3Code::InvalidArgument)),
            (method("<SSEAlgorithm>aws:kms:dsse</SSEAlgorithm>"), Err(S3Code::NotImplemented)),
            (method("<SSEAlgorithm>DES</SSEAlgorithm>"), Err(S3Code::MalformedXML)),
            (method(""), Err(S3Code::MalformedXML)),
            ("<BucketKeyEnabled>maybe</BucketKeyEnabled>".to_owned(), Err(S3Code::MalformedXML)),
            ("<BlockedEncryptionTypes/>".to_owned(), Err(S3Code::MalformedXML)),
            (
                "<BlockedEncryptionTypes><EncryptionType>SSE-X</EncryptionType></BlockedEncryptionTypes>".to_owned(),
                Err(S3Code::MalformedXML),
            ),
            ("</Rule><Rule>".to_owned(), Err(S3Code::MalformedXML)),
        ] {
            assert_eq!(rule(&inner), expected, "{inner}");
        }
        let none = format!("<{ROOT}/>");
        assert!(Default::read(&parse(none.as_bytes(), ROOT).expect("XML")).is_err());
    }

    #[test]
    fn a_default_holds_where_nothing_is_asked_for() {
        let kms = || Default { kms: Some(Some("k".to_owned())), has_bucket_key: true, blocks_customers: Some(true) };
        let nothing = Asked::Nothing { has_bucket_key: None };
        assert!(matches!(Default::default().apply(nothing), Some(Asked::Managed)));
        let nothing = Asked::Nothing { has_bucket_key: Some(false) };
        assert!(matches!(
            kms().apply(nothing),
            Some(Asked::Kms { key_id: Some(_), has_bucket_key: Some(false), context: None })
        ));
        assert!(matches!(kms().apply(Asked::Managed), Some(Asked::Managed)));
        let own = Asked::Kms { key_id: None, has_bucket_key: None, context: None };
        assert!(matches!(kms().apply(own), Some(Asked::Kms { key_id: None, has_bucket_key: Some(true), .. })));
    }
}

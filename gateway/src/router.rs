//! Which operation a request is: method, what the path names, sub-resources in the query, and one header.
//!
//! Pure: it reads no body and asks nobody, so every combination is a line of a table in the tests.

use crate::error::{S3Code, S3Error};
use crate::host::{Query, Target};
use http::{HeaderMap, Method};

macro_rules! operations {
    ($( $(#[$doc:meta])* $name:ident; )*) => {
        /// An operation of S3, by the name that AWS gives it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are AWS's; the S3 API reference documents them")]
        pub enum Operation {
            $( $name, )*
        }

        impl Operation {
            /// Every operation.
            pub const ALL: &'static [Operation] = &[$( Operation::$name ),*];

            /// AWS's name of it, for metrics and logs.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Operation::$name => stringify!($name), )*
                }
            }
        }
    };
}

operations! {
    ListBuckets;
    CreateBucket; HeadBucket; DeleteBucket; GetBucketLocation;
    ListObjects; ListObjectsV2; ListObjectVersions; ListMultipartUploads; DeleteObjects;
    GetBucketVersioning; PutBucketVersioning;
    GetBucketTagging; PutBucketTagging; DeleteBucketTagging;
    GetBucketCors; PutBucketCors; DeleteBucketCors;
    GetBucketAcl; PutBucketAcl;
    GetBucketPolicy; PutBucketPolicy; DeleteBucketPolicy; GetBucketPolicyStatus;
    GetBucketLifecycle; PutBucketLifecycle; DeleteBucketLifecycle;
    GetBucketEncryption; PutBucketEncryption; DeleteBucketEncryption;
    GetPublicAccessBlock; PutPublicAccessBlock; DeletePublicAccessBlock;
    GetBucketOwnershipControls; PutBucketOwnershipControls; DeleteBucketOwnershipControls;
    GetObjectLockConfiguration; PutObjectLockConfiguration;
    GetBucketLogging; PutBucketLogging;
    GetBucketNotification; PutBucketNotification;
    GetBucketRequestPayment; PutBucketRequestPayment;
    GetBucketWebsite; PutBucketWebsite; DeleteBucketWebsite;
    GetBucketReplication; PutBucketReplication; DeleteBucketReplication;
    GetBucketAccelerate; PutBucketAccelerate;
    ListBucketAnalytics; GetBucketAnalytics;
    ListBucketInventory; GetBucketInventory;
    ListBucketMetrics; GetBucketMetrics;
    ListBucketIntelligentTiering; GetBucketIntelligentTiering;
    PutObject; PostObject; GetObject; HeadObject; DeleteObject; CopyObject; GetObjectAttributes;
    GetObjectTagging; PutObjectTagging; DeleteObjectTagging;
    GetObjectAcl; PutObjectAcl;
    GetObjectRetention; PutObjectRetention;
    GetObjectLegalHold; PutObjectLegalHold;
    CreateMultipartUpload; UploadPart; UploadPartCopy; CompleteMultipartUpload; AbortMultipartUpload; ListParts;
    Preflight;
}

/// Sub-resources of S3 that Valv does not have, on any kind of target: 501, whatever the method.
const NOT_IMPLEMENTED: [&str; 11] = [
    "torrent",
    "restore",
    "select",
    "metadataTable",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "session",
    "renameObject",
    "abac",
    "annotation",
];

/// Sub-resources that a bucket or an object has. A request that names one with a method it does not have is refused, and
/// never taken for the plain operation: `PUT ?policy` must not create a bucket.
const SUBRESOURCES: [&str; 30] = [
    "accelerate",
    "acl",
    "analytics",
    "attributes",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "retention",
    "tagging",
    "uploadId",
    "uploads",
    "versioning",
    "versions",
    "website",
    "partNumber",
];

/// Finds the operation.
///
/// # Errors
/// MethodNotAllowed where S3 knows the resource and not the method; NotImplemented for what Valv does not have.
pub fn route(method: &Method, target: &Target, query: &Query, headers: &HeaderMap) -> Result<Operation, S3Error> {
    if method == Method::OPTIONS {
        return Ok(Operation::Preflight);
    }
    if let Some(name) = NOT_IMPLEMENTED.into_iter().find(|name| query.has(name)) {
        return Err(S3Error::not_implemented(name));
    }
    match (&target.bucket, &target.key) {
        (None, _) => service(method),
        (Some(_), None) => bucket(method, query),
        (Some(_), Some(_)) => object(method, query, headers),
    }
}

fn not_allowed(method: &Method, resource_type: &'static str) -> S3Error {
    S3Error::new(S3Code::MethodNotAllowed)
        .with_extra("Method", method.as_str())
        .with_extra("ResourceType", resource_type)
}

fn service(method: &Method) -> Result<Operation, S3Error> {
    match *method {
        Method::GET => Ok(Operation::ListBuckets),
        _ => Err(not_allowed(method, "SERVICE")),
    }
}

/// The one sub-resource that a query names, or none. AWS takes the first it knows; naming two is a client's mistake.
fn subresource<'s>(query: &Query, except: &[&str]) -> Option<&'s str> {
    SUBRESOURCES.into_iter().find(|name| query.has(name) && !except.contains(name))
}

fn bucket(method: &Method, query: &Query) -> Result<Operation, S3Error> {
    use Operation::*;
    // `partNumber`, `uploadId` and the sub-resources of objects mean nothing on a bucket.
    let named = subresource(query, &["partNumber", "uploadId", "attributes", "retention", "legal-hold"]);
    let Some(name) = named else {
        return match *method {
            Method::GET if query.get_bytes("list-type") == Some(b"2") => Ok(ListObjectsV2),
            Method::GET => Ok(ListObjects),
            Method::HEAD => Ok(HeadBucket),
            Method::PUT => Ok(CreateBucket),
            Method::DELETE => Ok(DeleteBucket),
            // A browser's form upload.
            Method::POST => Ok(PostObject),
            _ => Err(not_allowed(method, "BUCKET")),
        };
    };
    let has_id = query.has("id");
    Ok(match (name, method) {
        ("accelerate", &Method::GET) => GetBucketAccelerate,
        ("accelerate", &Method::PUT) => PutBucketAccelerate,
        ("acl", &Method::GET) => GetBucketAcl,
        ("acl", &Method::PUT) => PutBucketAcl,
        ("analytics", &Method::GET) if has_id => GetBucketAnalytics,
        ("analytics", &Method::GET) => ListBucketAnalytics,
        ("cors", &Method::GET) => GetBucketCors,
        ("cors", &Method::PUT) => PutBucketCors,
        ("cors", &Method::DELETE) => DeleteBucketCors,
        ("delete", &Method::POST) => DeleteObjects,
        ("encryption", &Method::GET) => GetBucketEncryption,
        ("encryption", &Method::PUT) => PutBucketEncryption,
        ("encryption", &Method::DELETE) => DeleteBucketEncryption,
        ("intelligent-tiering", &Method::GET) if has_id => GetBucketIntelligentTiering,
        ("intelligent-tiering", &Method::GET) => ListBucketIntelligentTiering,
        ("inventory", &Method::GET) if has_id => GetBucketInventory,
        ("inventory", &Method::GET) => ListBucketInventory,
        ("lifecycle", &Method::GET) => GetBucketLifecycle,
        ("lifecycle", &Method::PUT) => PutBucketLifecycle,
        ("lifecycle", &Method::DELETE) => DeleteBucketLifecycle,
        ("location", &Method::GET) => GetBucketLocation,
        ("logging", &Method::GET) => GetBucketLogging,
        ("logging", &Method::PUT) => PutBucketLogging,
        ("metrics", &Method::GET) if has_id => GetBucketMetrics,
        ("metrics", &Method::GET) => ListBucketMetrics,
        ("notification", &Method::GET) => GetBucketNotification,
        ("notification", &Method::PUT) => PutBucketNotification,
        ("object-lock", &Method::GET) => GetObjectLockConfiguration,
        ("object-lock", &Method::PUT) => PutObjectLockConfiguration,
        ("ownershipControls", &Method::GET) => GetBucketOwnershipControls,
        ("ownershipControls", &Method::PUT) => PutBucketOwnershipControls,
        ("ownershipControls", &Method::DELETE) => DeleteBucketOwnershipControls,
        ("policy", &Method::GET) => GetBucketPolicy,
        ("policy", &Method::PUT) => PutBucketPolicy,
        ("policy", &Method::DELETE) => DeleteBucketPolicy,
        ("policyStatus", &Method::GET) => GetBucketPolicyStatus,
        ("publicAccessBlock", &Method::GET) => GetPublicAccessBlock,
        ("publicAccessBlock", &Method::PUT) => PutPublicAccessBlock,
        ("publicAccessBlock", &Method::DELETE) => DeletePublicAccessBlock,
        ("replication", &Method::GET) => GetBucketReplication,
        ("replication", &Method::PUT) => PutBucketReplication,
        ("replication", &Method::DELETE) => DeleteBucketReplication,
        ("requestPayment", &Method::GET) => GetBucketRequestPayment,
        ("requestPayment", &Method::PUT) => PutBucketRequestPayment,
        ("tagging", &Method::GET) => GetBucketTagging,
        ("tagging", &Method::PUT) => PutBucketTagging,
        ("tagging", &Method::DELETE) => DeleteBucketTagging,
        ("uploads", &Method::GET) => ListMultipartUploads,
        ("versioning", &Method::GET) => GetBucketVersioning,
        ("versioning", &Method::PUT) => PutBucketVersioning,
        ("versions", &Method::GET) => ListObjectVersions,
        ("website", &Method::GET) => GetBucketWebsite,
        ("website", &Method::PUT) => PutBucketWebsite,
        ("website", &Method::DELETE) => DeleteBucketWebsite,
        ("analytics" | "inventory" | "metrics" | "intelligent-tiering", &(Method::PUT | Method::DELETE)) => {
            return Err(S3Error::not_implemented(name));
        }
        // HEAD is not GET here: AWS has no HEAD of a sub-resource.
        _ => return Err(not_allowed(method, "BUCKET")),
    })
}

fn object(method: &Method, query: &Query, headers: &HeaderMap) -> Result<Operation, S3Error> {
    use Operation::*;
    let is_copy = headers.contains_key("x-amz-copy-source");
    let has_upload = query.has("uploadId");
    // These depend on more than a name: parts first, then the rest.
    match *method {
        Method::PUT if has_upload || query.has("partNumber") => {
            return match (has_upload && query.has("partNumber"), is_copy) {
                (true, false) => Ok(UploadPart),
                (true, true) => Ok(UploadPartCopy),
                (false, _) => Err(S3Error::invalid_argument(
                    "This operation needs both uploadId and partNumber",
                    if has_upload { "partNumber" } else { "uploadId" },
                    "",
                )),
            };
        }
        Method::GET if has_upload => return Ok(ListParts),
        Method::DELETE if has_upload => return Ok(AbortMultipartUpload),
        Method::POST if has_upload => return Ok(CompleteMultipartUpload),
        Method::POST if query.has("uploads") => return Ok(CreateMultipartUpload),
        Method::HEAD if !query.has("uploads") => return Ok(HeadObject),
        _ => {}
    }
    let Some(name) = subresource(query, &["partNumber", "uploadId"]) else {
        return match *method {
            Method::GET => Ok(GetObject),
            Method::HEAD => Ok(HeadObject),
            Method::PUT if is_copy => Ok(CopyObject),
            Method::PUT => Ok(PutObject),
            Method::DELETE => Ok(DeleteObject),
            _ => Err(not_allowed(method, "OBJECT")),
        };
    };
    Ok(match (name, method) {
        ("acl", &Method::GET) => GetObjectAcl,
        ("acl", &Method::PUT) => PutObjectAcl,
        ("attributes", &Method::GET) => GetObjectAttributes,
        ("legal-hold", &Method::GET) => GetObjectLegalHold,
        ("legal-hold", &Method::PUT) => PutObjectLegalHold,
        ("retention", &Method::GET) => GetObjectRetention,
        ("retention", &Method::PUT) => PutObjectRetention,
        ("tagging", &Method::GET) => GetObjectTagging,
        ("tagging", &Method::PUT) => PutObjectTagging,
        ("tagging", &Method::DELETE) => DeleteObjectTagging,
        ("encryption", &Method::PUT) => return Err(S3Error::not_implemented(name)),
        _ => return Err(not_allowed(method, "OBJECT")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::AddressingStyle;
    use valv_metadata_api::ObjectKey;

    /// `GET b?acl` and the like: a method, a path of at most bucket and key, a query; `+copy` adds a copy source.
    fn routed(line: &str) -> Result<&'static str, S3Code> {
        let (line, is_copy) = line.strip_suffix(" +copy").map_or((line, false), |line| (line, true));
        let (method, rest) = line.split_once(' ').expect("method");
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut names = path.trim_matches('/').splitn(2, '/');
        let bucket = names.next().filter(|name| !name.is_empty()).map(str::to_owned);
        let target = Target { bucket, key: names.next().and_then(ObjectKey::new), style: AddressingStyle::Path };
        let mut headers = HeaderMap::new();
        if is_copy {
            headers.insert("x-amz-copy-source", "a/b".parse().expect("value"));
        }
        let query = Query::parse(query).expect("query");
        let method = method.parse().expect("method");
        route(&method, &target, &query, &headers).map(Operation::name).map_err(|error| error.code())
    }

    #[test]
    fn every_operation_has_its_request() {
        let table = [
            ("GET /", "ListBuckets"),
            ("GET /?max-buckets=3&x-id=ListBuckets", "ListBuckets"),
            ("PUT /b", "CreateBucket"),
            ("PUT /b?x-id=CreateBucket", "CreateBucket"),
            ("HEAD /b", "HeadBucket"),
            ("DELETE /b", "DeleteBucket"),
            ("GET /b?location", "GetBucketLocation"),
            ("GET /b", "ListObjects"),
            ("GET /b?list-type=1&prefix=acl", "ListObjects"),
            ("GET /b?list-type=2&prefix=x", "ListObjectsV2"),
            ("GET /b?versions&prefix=x", "ListObjectVersions"),
            ("GET /b?uploads", "ListMultipartUploads"),
            ("POST /b?delete", "DeleteObjects"),
            ("GET /b?versioning", "GetBucketVersioning"),
            ("PUT /b?versioning", "PutBucketVersioning"),
            ("GET /b?tagging", "GetBucketTagging"),
            ("PUT /b?tagging", "PutBucketTagging"),
            ("DELETE /b?tagging", "DeleteBucketTagging"),
            ("GET /b?cors", "GetBucketCors"),
            ("PUT /b?cors", "PutBucketCors"),
            ("DELETE /b?cors", "DeleteBucketCors"),
            ("GET /b?acl", "GetBucketAcl"),
            ("PUT /b?acl", "PutBucketAcl"),
            ("GET /b?policy", "GetBucketPolicy"),
            ("PUT /b?policy", "PutBucketPolicy"),
            ("DELETE /b?policy", "DeleteBucketPolicy"),
            ("GET /b?policyStatus", "GetBucketPolicyStatus"),
            ("GET /b?lifecycle", "GetBucketLifecycle"),
            ("PUT /b?lifecycle", "PutBucketLifecycle"),
            ("DELETE /b?lifecycle", "DeleteBucketLifecycle"),
            ("GET /b?encryption", "GetBucketEncryption"),
            ("PUT /b?encryption", "PutBucketEncryption"),
            ("DELETE /b?encryption", "DeleteBucketEncryption"),
            ("GET /b?publicAccessBlock", "GetPublicAccessBlock"),
            ("PUT /b?publicAccessBlock", "PutPublicAccessBlock"),
            ("DELETE /b?publicAccessBlock", "DeletePublicAccessBlock"),
            ("GET /b?ownershipControls", "GetBucketOwnershipControls"),
            ("PUT /b?ownershipControls", "PutBucketOwnershipControls"),
            ("DELETE /b?ownershipControls", "DeleteBucketOwnershipControls"),
            ("GET /b?object-lock", "GetObjectLockConfiguration"),
            ("PUT /b?object-lock", "PutObjectLockConfiguration"),
            ("GET /b?logging", "GetBucketLogging"),
            ("PUT /b?logging", "PutBucketLogging"),
            ("GET /b?notification", "GetBucketNotification"),
            ("PUT /b?notification", "PutBucketNotification"),
            ("GET /b?requestPayment", "GetBucketRequestPayment"),
            ("PUT /b?requestPayment", "PutBucketRequestPayment"),
            ("GET /b?website", "GetBucketWebsite"),
            ("PUT /b?website", "PutBucketWebsite"),
            ("DELETE /b?website", "DeleteBucketWebsite"),
            ("GET /b?replication", "GetBucketReplication"),
            ("PUT /b?replication", "PutBucketReplication"),
            ("DELETE /b?replication", "DeleteBucketReplication"),
            ("GET /b?accelerate", "GetBucketAccelerate"),
            ("PUT /b?accelerate", "PutBucketAccelerate"),
            ("GET /b?analytics", "ListBucketAnalytics"),
            ("GET /b?analytics&id=1", "GetBucketAnalytics"),
            ("GET /b?inventory", "ListBucketInventory"),
            ("GET /b?inventory&id=1", "GetBucketInventory"),
            ("GET /b?metrics", "ListBucketMetrics"),
            ("GET /b?metrics&id=1", "GetBucketMetrics"),
            ("GET /b?intelligent-tiering", "ListBucketIntelligentTiering"),
            ("GET /b?intelligent-tiering&id=1", "GetBucketIntelligentTiering"),
            ("POST /b", "PostObject"),
            ("PUT /b/k", "PutObject"),
            ("PUT /b/k?x-id=PutObject", "PutObject"),
            ("GET /b/k?versionId=1", "GetObject"),
            ("GET /b/k?partNumber=1", "GetObject"),
            ("GET /b/k?response-content-type=a", "GetObject"),
            ("HEAD /b/k?partNumber=1", "HeadObject"),
            ("DELETE /b/k?versionId=1", "DeleteObject"),
            ("PUT /b/k +copy", "CopyObject"),
            ("GET /b/k?attributes", "GetObjectAttributes"),
            ("GET /b/k?tagging", "GetObjectTagging"),
            ("PUT /b/k?tagging", "PutObjectTagging"),
            ("DELETE /b/k?tagging", "DeleteObjectTagging"),
            ("GET /b/k?acl", "GetObjectAcl"),
            ("PUT /b/k?acl", "PutObjectAcl"),
            ("GET /b/k?retention", "GetObjectRetention"),
            ("PUT /b/k?retention", "PutObjectRetention"),
            ("GET /b/k?legal-hold", "GetObjectLegalHold"),
            ("PUT /b/k?legal-hold", "PutObjectLegalHold"),
            ("POST /b/k?uploads", "CreateMultipartUpload"),
            ("PUT /b/k?partNumber=1&uploadId=x", "UploadPart"),
            ("PUT /b/k?partNumber=1&uploadId=x +copy", "UploadPartCopy"),
            ("POST /b/k?uploadId=x", "CompleteMultipartUpload"),
            ("DELETE /b/k?uploadId=x", "AbortMultipartUpload"),
            ("GET /b/k?uploadId=x&max-parts=3", "ListParts"),
            ("OPTIONS /b/k", "Preflight"),
        ];
        for (request, expected) in table {
            assert_eq!(routed(request), Ok(expected), "{request}");
        }
        for operation in Operation::ALL {
            assert!(table.iter().any(|(_, name)| *name == operation.name()), "{operation:?} is not in the table");
        }
    }

    #[test]
    fn what_is_not_an_operation_is_refused_and_never_taken_for_another() {
        use S3Code::{InvalidArgument, MethodNotAllowed, NotImplemented};
        for (request, expected) in [
            ("PUT /", MethodNotAllowed),
            ("POST /", MethodNotAllowed),
            ("PATCH /b", MethodNotAllowed),
            ("PUT /b?location", MethodNotAllowed),
            ("DELETE /b?versioning", MethodNotAllowed),
            ("DELETE /b?acl", MethodNotAllowed),
            ("DELETE /b?object-lock", MethodNotAllowed),
            ("HEAD /b?acl", MethodNotAllowed),
            ("PUT /b?policyStatus", MethodNotAllowed),
            ("PUT /b?analytics&id=1", NotImplemented),
            ("PUT /b?delete", MethodNotAllowed),
            ("GET /b?delete", MethodNotAllowed),
            ("GET /b?session", NotImplemented),
            ("POST /b/k", MethodNotAllowed),
            ("PATCH /b/k", MethodNotAllowed),
            ("POST /b/k?restore", NotImplemented),
            ("POST /b/k?select&select-type=2", NotImplemented),
            ("GET /b/k?torrent", NotImplemented),
            ("PUT /b/k?uploadId=x", InvalidArgument),
            ("PUT /b/k?partNumber=1", InvalidArgument),
            ("PUT /b/k?uploads", MethodNotAllowed),
            ("PUT /b/k?policy", MethodNotAllowed),
            ("DELETE /b/k?retention", MethodNotAllowed),
            ("DELETE /b/k?acl", MethodNotAllowed),
            ("PUT /b/k?encryption", NotImplemented),
        ] {
            assert_eq!(routed(request), Err(expected), "{request}");
        }
    }
}

//! What a bucket's documents say about access, read once for each change of them.

use super::{Openings, Principals};
use crate::error::{S3Code, S3Error};
use crate::xml::{Element, parse};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use valv_metadata_api::{
    Bucket, BucketDocumentKind, FoundObject, GetBucketDocument, Metadata, MetadataError, ObjectKey, Retention,
    VersionSelector,
};
use valv_policy::{Acl, ObjectOwnership, Policy, PublicAccessBlock};
use valv_types::{BucketId, OpeningId, VersionId};

/// Buckets whose rules are held: a policy of 20 KiB takes at most 300 KiB when parsed (values of two bytes each), so
/// 150 MiB if every one is made for that, and commonly one. When it is full everything goes, which costs each bucket one read.
const RULES_MAX: usize = 500;

/// The documents that decide.
const KINDS: [BucketDocumentKind; 4] = [
    BucketDocumentKind::Policy,
    BucketDocumentKind::Acl,
    BucketDocumentKind::OwnershipControls,
    BucketDocumentKind::PublicAccessBlock,
];

/// A bucket's rules.
pub(crate) struct Rules {
    pub(crate) policy: Option<Policy>,
    /// A policy that was accepted once and can't be read now. It opens nothing, and only the policy itself is in reach of
    /// the bucket's project, who can replace it.
    pub(crate) is_policy_unreadable: bool,
    /// The bucket's own list; `None` says that its owner has FULL_CONTROL.
    pub(crate) acl: Option<Acl>,
    pub(crate) ownership: ObjectOwnership,
    pub(crate) public_access_block: PublicAccessBlock,
}

impl Rules {
    /// What holds for a bucket whose owner has said nothing: locked down, as AWS makes buckets since April 2023.
    fn silent() -> Self {
        Self {
            policy: None,
            is_policy_unreadable: false,
            acl: None,
            ownership: ObjectOwnership::default(),
            public_access_block: PublicAccessBlock::default(),
        }
    }

    /// Reads them from metadata.
    ///
    /// # Errors
    /// That metadata can't be reached; InternalError for a document that can't be read back. Neither opens anything.
    async fn read(metadata: &dyn Metadata, bucket: &Bucket) -> Result<Self, S3Error> {
        let mut rules = Self::silent();
        for &kind in bucket.documents.iter().filter(|kind| KINDS.contains(kind)) {
            let request = GetBucketDocument { bucket: bucket.id, kind };
            let body = match metadata.get_bucket_document(request).await {
                Ok(document) => document.body,
                // Removed since the bucket was read.
                Err(MetadataError::NoSuchDocument) => continue,
                Err(error) => return Err(error.into()),
            };
            match kind {
                BucketDocumentKind::Policy => match Policy::parse(&body, bucket.own_name()) {
                    Ok(policy) => rules.policy = Some(policy),
                    Err(error) => {
                        tracing::error!(bucket = %bucket.id, %error, "a bucket's policy can't be read; nobody gets in");
                        rules.is_policy_unreadable = true;
                    }
                },
                BucketDocumentKind::Acl => rules.acl = Some(Acl::from_bytes(&body).map_err(S3Error::internal)?),
                // Kept empty when they were removed, which in S3 is not the same as never having been touched.
                BucketDocumentKind::OwnershipControls if body.is_empty() => {
                    rules.ownership = ObjectOwnership::ObjectWriter;
                }
                BucketDocumentKind::PublicAccessBlock if body.is_empty() => {
                    rules.public_access_block = read_public_access_block(&Element::default())?;
                }
                BucketDocumentKind::OwnershipControls => {
                    rules.ownership = read_ownership(&parse(&body, "OwnershipControls")?)?;
                }
                BucketDocumentKind::PublicAccessBlock => {
                    let document = parse(&body, "PublicAccessBlockConfiguration")?;
                    rules.public_access_block = read_public_access_block(&document)?;
                }
                _ => {}
            }
        }
        Ok(rules)
    }
}

/// Reads a PublicAccessBlockConfiguration. A switch that is not named is off.
///
/// # Errors
/// MalformedXML.
pub(crate) fn read_public_access_block(document: &Element) -> Result<PublicAccessBlock, S3Error> {
    Ok(PublicAccessBlock {
        block_public_acls: document.flag("BlockPublicAcls")?,
        ignore_public_acls: document.flag("IgnorePublicAcls")?,
        block_public_policy: document.flag("BlockPublicPolicy")?,
        restrict_public_buckets: document.flag("RestrictPublicBuckets")?,
    })
}

/// Reads OwnershipControls: one rule.
///
/// # Errors
/// MalformedXML.
pub(crate) fn read_ownership(document: &Element) -> Result<ObjectOwnership, S3Error> {
    let mut rules = document.all("Rule");
    let (Some(rule), None) = (rules.next(), rules.next()) else { return Err(S3Code::MalformedXML.into()) };
    ObjectOwnership::parse(rule.required("ObjectOwnership")?.trim()).ok_or_else(|| S3Code::MalformedXML.into())
}

/// Rules by bucket and change: a bucket without any of the documents costs nothing, another one read a change.
pub(crate) struct RulesCache {
    metadata: Arc<dyn Metadata>,
    principals: Arc<Principals>,
    openings: Openings,
    held: Mutex<HashMap<(BucketId, u64), Arc<Rules>>>,
    /// For buckets that say nothing.
    silent: Arc<Rules>,
}

impl RulesCache {
    /// Nothing held yet.
    pub(crate) fn new(metadata: Arc<dyn Metadata>, principals: Arc<Principals>, openings: Openings) -> Self {
        Self { metadata, principals, openings, held: Mutex::default(), silent: Arc::new(Rules::silent()) }
    }

    /// What is open to strangers.
    pub(crate) fn openings(&self) -> &Openings {
        &self.openings
    }

    /// Whether the bucket's documents leave everything to membership of its project.
    pub(crate) fn knows_only_members(&self, bucket: &Bucket) -> bool {
        !bucket.documents.iter().any(|kind| KINDS.contains(kind))
    }

    /// The list that holds for a bucket with these rules. An owner who is gone owns nothing that anybody could claim.
    ///
    /// # Errors
    /// That metadata can't be reached.
    pub(crate) async fn acl_of(&self, bucket: &Bucket, rules: &Rules) -> Result<Acl, S3Error> {
        if let Some(acl) = &rules.acl {
            return Ok(acl.clone());
        }
        let owner = self.principals.user(bucket.owner).await?;
        Ok(Acl::private(owner.as_ref().map_or("", |owner| owner.canonical_id.as_str())))
    }

    /// The rules of a bucket that has just been read.
    ///
    /// # Errors
    /// As [`Rules::read`].
    pub(crate) async fn of(&self, bucket: &Bucket) -> Result<Arc<Rules>, S3Error> {
        if self.knows_only_members(bucket) {
            return Ok(Arc::clone(&self.silent));
        }
        let name = (bucket.id, bucket.document_changes);
        if let Some(rules) = self.held.lock().get(&name) {
            return Ok(Arc::clone(rules));
        }
        let rules = Arc::new(Rules::read(self.metadata.as_ref(), bucket).await?);
        let mut held = self.held.lock();
        if held.len() >= RULES_MAX {
            held.clear();
        }
        held.insert(name, Arc::clone(&rules));
        Ok(rules)
    }
}

/// What a decision may look at of an object.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObjectFacts {
    /// Which version they are of, to read them again while a transfer runs.
    pub(crate) id: Option<VersionId>,
    /// Its owner's canonical id; `None` if it is the bucket's owner.
    pub(crate) foreign_owner: Option<String>,
    /// Its list; `None` says that its owner has FULL_CONTROL.
    pub(crate) acl: Option<Acl>,
    pub(crate) tags: Vec<(String, String)>,
}

/// What a request's body gives an object that exists, for operations that say it there. Their headers of the same meaning
/// change nothing, so they must not satisfy a condition either.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) retention: Option<Retention>,
    pub(crate) legal_hold: Option<bool>,
    /// Which ETag an object of DeleteObjects must have.
    pub(crate) if_match: Option<String>,
}

/// What an action is about, besides a bucket.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) key: Option<ObjectKey>,
    /// Which version: of the object that is judged, be it named by the query, a body's line or a copy's source.
    pub(crate) version: VersionSelector,
    /// What the request's body gives the object.
    pub(crate) given: Given,
    /// What is known of the object: rights that its ACL or its tags give need it.
    pub(crate) object: Option<ObjectFacts>,
    /// The canonical id of who began the multipart upload.
    pub(crate) upload_initiator: Option<String>,
    /// A key of which the answer would tell whether it exists.
    pub(crate) probed: Option<ObjectKey>,
    /// The only opening that counts: the one by which a transfer began.
    pub(crate) only: Option<OpeningId>,
}

impl About {
    /// Some key, of which nothing else is known.
    pub(crate) fn key(key: Option<&ObjectKey>) -> Self {
        Self { key: key.cloned(), ..Self::default() }
    }

    /// A version of a key.
    pub(crate) fn version(key: &ObjectKey, version: VersionSelector) -> Self {
        Self { version, ..Self::key(Some(key)) }
    }
}

impl Default for About {
    fn default() -> Self {
        Self {
            key: None,
            version: VersionSelector::Current,
            given: Given::default(),
            object: None,
            upload_initiator: None,
            probed: None,
            only: None,
        }
    }
}

impl ObjectFacts {
    /// Reads them of a version. Whoever wrote it with a key of the bucket's project wrote it for the bucket's owner.
    ///
    /// # Errors
    /// That metadata can't be reached; InternalError for an ACL that can't be read back.
    pub(crate) async fn of(principals: &Principals, bucket: &Bucket, found: &FoundObject) -> Result<Self, S3Error> {
        let attributes = &found.version.attributes;
        let acl = match attributes.acl.as_slice() {
            [] => None,
            stored => Some(Acl::from_bytes(stored).map_err(S3Error::internal)?),
        };
        let foreign_owner = match found.version.owner {
            Some(owner) if owner != bucket.owner => principals
                .user(owner)
                .await?
                .filter(|owner| owner.project != bucket.project)
                .map(|owner| owner.canonical_id.clone()),
            _ => None,
        };
        Ok(Self { id: Some(found.version.id), foreign_owner, acl, tags: attributes.tags.clone() })
    }
}

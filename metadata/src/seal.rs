//! Sealing of records: which key, and which place each record is bound to.

use crate::keystore::{KeyStore, KeyStoreError};
use crate::records::{self, ListedAttributes};
use minicbor::{Decode, Encode};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use valv_codec::{KeyError, RecordKey};
use valv_metadata_api::{BucketDocumentKind, MetadataError};
use valv_types::{
    AccessKeyId, BucketId, CommitId, CustodianId, DisposalId, HoldId, OpeningId, ProjectId, ProposalId, UploadId,
    UserId, VersionId,
};

/// Record keys kept in memory. Each is 32 bytes, and a cell has at most some thousands of projects; a full cache is
/// emptied, which costs each project one unwrapping (some microseconds).
const CACHED_KEYS_MAX: usize = 4096;

/// What a sealed record is bound to: it opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// Attributes of a version. Not bound to the object key or to the row, so that a version moves between its key's
    /// head and noncurrent rows as it is.
    Version(ProjectId, BucketId, VersionId),
    Upload(ProjectId, BucketId, UploadId),
    Part(ProjectId, UploadId, u16),
    Page(ProjectId, VersionId, u32),
    Bucket(ProjectId, BucketId),
    Document(ProjectId, BucketId, BucketDocumentKind),
    Ledger(ProjectId, CommitId),
    Proposal(ProjectId, ProposalId),
    Retention(ProjectId),
    Hold(ProjectId, HoldId),
    Disposal(ProjectId, DisposalId),
    /// What is said of a project.
    Project(ProjectId),
    /// Of the cluster: sealed under the key of [`ProjectId::CLUSTER`].
    Custodian(CustodianId),
    Transfer(ProjectId, CommitId),
    Opening(ProjectId, OpeningId),
}

impl Place {
    fn project(&self) -> ProjectId {
        match *self {
            Self::Version(project, ..)
            | Self::Upload(project, ..)
            | Self::Part(project, ..)
            | Self::Page(project, ..)
            | Self::Bucket(project, ..)
            | Self::Document(project, ..)
            | Self::Ledger(project, ..)
            | Self::Proposal(project, ..)
            | Self::Retention(project)
            | Self::Hold(project, ..)
            | Self::Disposal(project, ..)
            | Self::Project(project)
            | Self::Transfer(project, ..)
            | Self::Opening(project, ..) => project,
            Self::Custodian(_) => ProjectId::CLUSTER,
        }
    }

    /// The associated data: a word, a zero byte, and the ids.
    fn bytes(&self) -> Vec<u8> {
        let (word, project) = (self.word(), self.project());
        let mut out = Vec::with_capacity(word.len() + 1 + 3 * 16);
        out.extend_from_slice(word.as_bytes());
        out.push(0);
        out.extend_from_slice(project.as_bytes());
        match self {
            Self::Version(_, bucket, version) => {
                out.extend_from_slice(bucket.as_bytes());
                out.extend_from_slice(version.as_bytes());
            }
            Self::Upload(_, bucket, upload) => {
                out.extend_from_slice(bucket.as_bytes());
                out.extend_from_slice(upload.as_bytes());
            }
            Self::Part(_, upload, number) => {
                out.extend_from_slice(upload.as_bytes());
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Page(_, version, page) => {
                out.extend_from_slice(version.as_bytes());
                out.extend_from_slice(&page.to_be_bytes());
            }
            Self::Bucket(_, bucket) => out.extend_from_slice(bucket.as_bytes()),
            Self::Document(_, bucket, kind) => {
                out.extend_from_slice(bucket.as_bytes());
                out.push(*kind as u8);
            }
            Self::Ledger(_, event) => out.extend_from_slice(event.as_bytes()),
            Self::Proposal(_, proposal) => out.extend_from_slice(proposal.as_bytes()),
            Self::Retention(_) => {}
            Self::Hold(_, hold) => out.extend_from_slice(hold.as_bytes()),
            Self::Disposal(_, disposal) => out.extend_from_slice(disposal.as_bytes()),
            Self::Project(_) => {}
            Self::Custodian(custodian) => out.extend_from_slice(custodian.as_bytes()),
            Self::Transfer(_, offer) => out.extend_from_slice(offer.as_bytes()),
            Self::Opening(_, opening) => out.extend_from_slice(opening.as_bytes()),
        }
        out
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Version(..) => "version",
            Self::Upload(..) => "upload",
            Self::Part(..) => "part",
            Self::Page(..) => "page",
            Self::Bucket(..) => "bucket",
            Self::Document(..) => "document",
            Self::Ledger(..) => "ledger",
            Self::Proposal(..) => "proposal",
            Self::Retention(..) => "retention",
            Self::Hold(..) => "hold",
            Self::Disposal(..) => "disposal",
            Self::Project(_) => "project",
            Self::Custodian(..) => "custodian",
            Self::Transfer(..) => "transfer",
            Self::Opening(..) => "opening",
        }
    }
}

/// A sealed record with the version of the key that sealed it.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) key_version: u32,
    pub(crate) bytes: Vec<u8>,
}

/// Seals and opens records.
#[derive(Debug)]
pub(crate) struct Seals {
    keys: Arc<KeyStore>,
    cache: RwLock<HashMap<(ProjectId, u32), RecordKey>>,
    principals: RecordKey,
    access_keys: RecordKey,
    names: RecordKey,
}

pub(crate) fn no_key(error: KeyStoreError) -> MetadataError {
    match error {
        KeyStoreError::NoKey { .. } => MetadataError::KeyUnavailable,
        KeyStoreError::Shredded { .. } => MetadataError::KeyDestroyed,
        KeyStoreError::Io { .. }
        | KeyStoreError::Format { .. }
        | KeyStoreError::Full
        | KeyStoreError::NoRootHome
        | KeyStoreError::Key(_)
        | KeyStoreError::Share(_) => {
            tracing::error!(%error, "the key store did not give a project key");
            MetadataError::KeyUnavailable
        }
    }
}

fn no_randomness(error: KeyError) -> MetadataError {
    MetadataError::Unavailable { what: error.to_string() }
}

fn corrupt(what: &str) -> MetadataError {
    MetadataError::Corrupt { what: what.to_owned() }
}

impl Seals {
    pub(crate) fn new(keys: Arc<KeyStore>) -> Self {
        let system = keys.system();
        let principals = system.system_record_key("principals");
        let access_keys = system.system_record_key("access keys");
        let names = system.system_record_key("names");
        Self { keys, cache: RwLock::default(), principals, access_keys, names }
    }

    pub(crate) fn keys(&self) -> &Arc<KeyStore> {
        &self.keys
    }

    /// Why a project has no key.
    fn no_key(&self, project: ProjectId) -> MetadataError {
        match self.keys.shredded(project) {
            Some(_) => MetadataError::KeyDestroyed,
            None => MetadataError::KeyUnavailable,
        }
    }

    /// Forgets a project's keys, after it was shredded.
    pub(crate) fn forget(&self, project: ProjectId) {
        self.cache.write().retain(|(owner, _), _| *owner != project);
    }

    fn record_key(&self, project: ProjectId, version: u32) -> Result<RecordKey, MetadataError> {
        if let Some(key) = self.cache.read().get(&(project, version)) {
            return Ok(key.clone());
        }
        let key = self.keys.project_key(project, Some(version)).map_err(no_key)?.record_key(project);
        let mut cache = self.cache.write();
        if cache.len() >= CACHED_KEYS_MAX {
            cache.clear();
        }
        cache.insert((project, version), key.clone());
        Ok(key)
    }

    /// Seals `record` for `place` under the project's newest key.
    pub(crate) fn seal<T: Encode<()>>(&self, place: Place, record: &T) -> Result<Sealed, MetadataError> {
        self.seal_bytes(place, &records::encode(record))
    }

    pub(crate) fn seal_bytes(&self, place: Place, plain: &[u8]) -> Result<Sealed, MetadataError> {
        let project = place.project();
        let key_version = self.keys.newest_version(project).ok_or_else(|| self.no_key(project))?;
        let bytes = self.record_key(project, key_version)?.seal(&place.bytes(), plain).map_err(no_randomness)?;
        Ok(Sealed { key_version, bytes })
    }

    /// Opens a record sealed for `place`.
    pub(crate) fn open_bytes(&self, place: Place, key_version: u32, sealed: &[u8]) -> Result<Vec<u8>, MetadataError> {
        let key = self.record_key(place.project(), key_version)?;
        key.open(&place.bytes(), sealed).map_err(|_| corrupt(place.word()))
    }

    pub(crate) fn open<T: for<'b> Decode<'b, ()>>(
        &self,
        place: Place,
        key_version: u32,
        sealed: &[u8],
    ) -> Result<T, MetadataError> {
        records::decode(place.word(), &self.open_bytes(place, key_version, sealed)?)
    }

    /// Opens a version's attributes and lets `read` take what it needs without copying the rest.
    pub(crate) fn open_listed<R>(
        &self,
        place: Place,
        key_version: u32,
        sealed: &[u8],
        read: impl FnOnce(ListedAttributes<'_>) -> R,
    ) -> Result<R, MetadataError> {
        let plain = self.open_bytes(place, key_version, sealed)?;
        Ok(read(records::decode(place.word(), &plain)?))
    }

    pub(crate) fn seal_principal(&self, id: &[u8; 16], plain: &[u8]) -> Result<Vec<u8>, MetadataError> {
        self.principals.seal(id, plain).map_err(no_randomness)
    }

    pub(crate) fn open_principal(&self, id: &[u8; 16], sealed: &[u8]) -> Result<Vec<u8>, MetadataError> {
        self.principals.open(id, sealed).map_err(|_| corrupt("principal"))
    }

    fn access_key_place(id: &AccessKeyId, user: UserId, project: ProjectId) -> Vec<u8> {
        [user.as_bytes().as_slice(), project.as_bytes(), id.as_str().as_bytes()].concat()
    }

    pub(crate) fn seal_access_secret(
        &self,
        id: &AccessKeyId,
        user: UserId,
        project: ProjectId,
        secret: &[u8],
    ) -> Result<Vec<u8>, MetadataError> {
        self.access_keys.seal(&Self::access_key_place(id, user, project), secret).map_err(no_randomness)
    }

    pub(crate) fn open_access_secret(
        &self,
        id: &AccessKeyId,
        user: UserId,
        project: ProjectId,
        sealed: &[u8],
    ) -> Result<Vec<u8>, MetadataError> {
        self.access_keys.open(&Self::access_key_place(id, user, project), sealed).map_err(|_| corrupt("access key"))
    }

    pub(crate) fn seal_name_key(&self, cluster: &[u8; 16], key: &[u8]) -> Result<Vec<u8>, MetadataError> {
        self.names.seal(cluster, key).map_err(no_randomness)
    }

    pub(crate) fn open_name_key(&self, cluster: &[u8; 16], sealed: &[u8]) -> Result<Vec<u8>, MetadataError> {
        self.names.open(cluster, sealed).map_err(|_| MetadataError::KeyUnavailable)
    }
}

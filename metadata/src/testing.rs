//! A MetaStore in memory for the domain's own tests, and a service over it with one project.

use crate::store::{Commit, CommitOutcome, Cursor, Key, MetaStore, Snapshot, StoreError, Versioned};
use crate::{BootstrapConfig, KeyStore, MetadataConfig, MetadataService};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use valv_codec::RootKey;
use valv_metadata_api::*;
use valv_types::{
    AccessKeyId, BlobId, BucketId, CellId, ClusterId, CommitId, DiskId, Epoch, IncarnationId, Layout, NamespaceId,
    ProjectId, Revision, VersionId,
};

type Map = BTreeMap<Key, Versioned>;

#[derive(Default)]
struct State {
    rows: Arc<Map>,
    revision: u64,
    outcomes: HashMap<CommitId, Revision>,
}

/// Rows in memory, with answers that can be lost.
#[derive(Default)]
pub(crate) struct MemoryStore {
    state: Mutex<State>,
    /// The next so many commits happen, and answer that their outcome is unknown.
    pub(crate) lose_answers: AtomicU32,
}

impl MemoryStore {
    pub(crate) fn rows(&self) -> Arc<Map> {
        Arc::clone(&self.state.lock().rows)
    }

    /// Goes back to rows that were read before, so that a test can try several ways on from there.
    pub(crate) fn go_back_to(&self, rows: Arc<Map>) {
        self.state.lock().rows = rows;
    }

    /// Rows of one kind.
    pub(crate) fn count(&self, tag: crate::rows::Tag) -> usize {
        self.rows().keys().filter(|key| key[2] == tag as u8).count()
    }
}

#[async_trait]
impl MetaStore for MemoryStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        tokio::task::yield_now().await;
        Ok(self.state.lock().rows.get(key).cloned())
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        tokio::task::yield_now().await;
        let rows = self.rows();
        Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let state = self.state.lock();
        Ok(Box::new(MemorySnapshot { rows: Arc::clone(&state.rows), revision: Revision(state.revision) }))
    }

    async fn commit(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        tokio::task::yield_now().await;
        let mut state = self.state.lock();
        if let Some(revision) = state.outcomes.get(&commit.id) {
            return Ok(CommitOutcome::Committed(*revision));
        }
        let keys: std::collections::BTreeSet<_> = commit.writes.iter().map(|write| &write.key).collect();
        assert_eq!(keys.len(), commit.writes.len(), "a key stands twice among the writes");
        assert!(commit.expected.len() + commit.writes.len() <= crate::store::COMMIT_KEYS_MAX);
        for write in &commit.writes {
            assert!(write.key.len() <= crate::store::KEY_LEN_BYTES_MAX);
            assert!(write.value.as_ref().is_none_or(|value| value.len() <= crate::store::VALUE_LEN_BYTES_MAX));
        }
        for (index, expected) in commit.expected.iter().enumerate() {
            if state.rows.get(&expected.key).map(|row| row.revision) != expected.revision {
                return Ok(CommitOutcome::Conflict { index });
            }
        }
        state.revision += 1;
        let revision = Revision(state.revision);
        state.outcomes.insert(commit.id, revision);
        let rows = Arc::make_mut(&mut state.rows);
        for write in commit.writes {
            match write.value {
                Some(value) => rows.insert(write.key, Versioned { revision, value }),
                None => rows.remove(&write.key),
            };
        }
        let lost = self.lose_answers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match lost {
            Ok(_) => Err(StoreError::Unknown { id: commit.id }),
            Err(_) => Ok(CommitOutcome::Committed(revision)),
        }
    }

    async fn outcome(&self, id: CommitId) -> Result<Option<Revision>, StoreError> {
        Ok(self.state.lock().outcomes.get(&id).copied())
    }

    async fn latest_revision(&self) -> Result<Revision, StoreError> {
        Ok(Revision(self.state.lock().revision))
    }
}

struct MemorySnapshot {
    rows: Arc<Map>,
    revision: Revision,
}

impl Snapshot for MemorySnapshot {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, start: &[u8], end: &[u8]) -> Result<Box<dyn Cursor + '_>, StoreError> {
        assert!(start <= end, "a range that ends before it starts");
        let (next, end) = (Bound::Included(Key::copy_from_slice(start)), Key::copy_from_slice(end));
        Ok(Box::new(MemoryCursor { rows: &self.rows, next, end }))
    }
}

struct MemoryCursor<'a> {
    rows: &'a Map,
    next: Bound<Key>,
    end: Key,
}

impl Cursor for MemoryCursor<'_> {
    fn next(&mut self) -> Result<Option<(Key, Versioned)>, StoreError> {
        let (Bound::Included(at) | Bound::Excluded(at)) = &self.next else { return Ok(None) };
        if *at >= self.end {
            return Ok(None);
        }
        let found = self.rows.range((self.next.clone(), Bound::Excluded(self.end.clone()))).next();
        let found = found.map(|(key, row)| (key.clone(), row.clone()));
        if let Some((key, _)) = &found {
            self.next = Bound::Excluded(key.clone());
        }
        Ok(found)
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let (Bound::Included(at) | Bound::Excluded(at)) = &self.next else { return Ok(()) };
        assert!(key >= at.as_ref(), "a seek backwards");
        assert!(key <= self.end.as_ref(), "a seek out of the range");
        self.next = Bound::Included(Key::copy_from_slice(key));
        Ok(())
    }
}

/// A marker for what must be sealed.
pub(crate) const SECRET_TEXT: &str = "planted-marker-7f3a";

/// A service with a cluster of six disks, one project and one user.
pub(crate) struct Fixture<S = MemoryStore> {
    pub(crate) store: Arc<S>,
    pub(crate) service: Arc<MetadataService>,
    pub(crate) actor: Actor,
    pub(crate) namespace: NamespaceId,
    pub(crate) incarnation: IncarnationId,
    sequence: AtomicU64,
    root: RootKey,
    /// Holds the key store's files.
    folder: tempfile::TempDir,
}

pub(crate) fn disks() -> Vec<DiskId> {
    (1..=6u8).map(|i| DiskId::from_bytes([i; 16])).collect()
}

pub(crate) fn principal(name: &str) -> EnsurePrincipal {
    EnsurePrincipal {
        user_name: name.to_owned(),
        display_name: format!("{name} display"),
        email: format!("{name}@example.org"),
        canonical_id: String::new(),
        project_name: format!("project of {name}"),
        namespace_name: "shared".to_owned(),
        access_key: AccessKeyId::new(format!("KEY-{name}")).unwrap(),
        secret: Secret::new(format!("{SECRET_TEXT} {name}").into_bytes()),
    }
}

pub(crate) fn actor(project: ProjectId, user: valv_types::UserId) -> Actor {
    Actor {
        project,
        user: Some(user),
        access_key: None,
        request_id: "r".to_owned(),
        remote: "::1".to_owned(),
        caller: None,
        opening: None,
    }
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with_config(MetadataConfig { trash_secs: 0, ..MetadataConfig::default() }).await
    }

    pub(crate) async fn with_config(config: MetadataConfig) -> Self {
        Self::over(Arc::new(MemoryStore::default()), config).await
    }
}

impl<S: MetaStore + 'static> Fixture<S> {
    /// The same over any store.
    pub(crate) async fn over(store: Arc<S>, config: MetadataConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = RootKey::generate(1).unwrap();
        let keys = KeyStore::open(folder.path(), root.clone()).unwrap();
        let service = MetadataService::open(config, Arc::clone(&store) as Arc<dyn MetaStore>, keys).await.unwrap();
        let bootstrap = BootstrapConfig {
            cluster: ClusterId::random(),
            cell: config.cell,
            disks: disks(),
            k: 4,
            m: 2,
            pg_count: 16,
        };
        service.bootstrap(bootstrap).await.unwrap();
        let made = service.ensure_principal(principal("main")).await.unwrap();
        let incarnation = service.register_incarnation(Empty {}).await.unwrap();
        Self {
            store,
            service,
            actor: actor(made.project, made.user),
            namespace: made.namespace,
            incarnation,
            sequence: AtomicU64::new(1),
            root,
            folder,
        }
    }

    /// Another service over the same rows and keys, as after a crash: cluster time goes on at what was persisted.
    pub(crate) async fn restart(&mut self) {
        let keys = KeyStore::open(self.folder.path(), self.root.clone()).unwrap();
        let store = Arc::clone(&self.store) as Arc<dyn MetaStore>;
        self.service = MetadataService::open(self.service.0.config, store, keys).await.unwrap();
    }

    pub(crate) fn cell(&self) -> CellId {
        self.service.0.config.cell
    }

    pub(crate) async fn bucket(&self, name: &str, object_lock: bool) -> BucketId {
        let request = CreateBucket {
            actor: self.actor.clone(),
            namespace: self.namespace,
            name: name.to_owned(),
            object_lock,
            documents: Vec::new(),
            commit: CommitId::random(),
        };
        self.service.create_bucket(request).await.unwrap().id
    }

    pub(crate) async fn versioning(&self, bucket: BucketId, versioning: Versioning) -> Result<Bucket, MetadataError> {
        let change = BucketChange::Versioning(versioning);
        let request = UpdateBucket { actor: self.actor.clone(), bucket, change, commit: CommitId::random() };
        self.service.update_bucket(request).await
    }

    pub(crate) async fn set_document(&self, bucket: BucketId, document: BucketDocument) {
        let change = BucketChange::SetDocument(document);
        let request = UpdateBucket { actor: self.actor.clone(), bucket, change, commit: CommitId::random() };
        self.service.update_bucket(request).await.unwrap();
    }

    pub(crate) fn blob(&self, len_bytes: u64, place: BlobPlace) -> BlobRecord {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        BlobRecord {
            blob: BlobId::new(self.incarnation, sequence),
            len_bytes,
            layout: Layout::current(crate::principals::FIRST_POOL, 4, 2).unwrap(),
            place,
            wrapped_key: vec![7; 102],
        }
    }

    pub(crate) fn proof(&self) -> WriteProof {
        WriteProof { incarnation: self.incarnation, epoch: Epoch(1), missing: Vec::new() }
    }

    /// A PUT of a body in shards.
    pub(crate) fn put(&self, bucket: BucketId, key: &[u8]) -> PutObject {
        let blob = self.blob(1 << 20, BlobPlace::Shards);
        PutObject {
            actor: self.actor.clone(),
            bucket,
            key: ObjectKey::new(key).unwrap(),
            attributes: Attributes {
                etag: blob.blob.to_string(),
                user_metadata: vec![("note".to_owned(), SECRET_TEXT.to_owned())],
                ..Attributes::default()
            },
            body: NewBody::Blob(blob),
            lock: LockRequest::default(),
            condition: WriteCondition::default(),
            proof: self.proof(),
            commit: CommitId::random(),
        }
    }

    pub(crate) async fn put_now(&self, bucket: BucketId, key: &[u8]) -> Written {
        self.service.put_object(self.put(bucket, key)).await.unwrap()
    }

    pub(crate) fn get(&self, bucket: BucketId, key: &[u8], version: VersionSelector) -> GetObject {
        GetObject { bucket, key: ObjectKey::new(key).unwrap(), version, with_inline: true }
    }

    pub(crate) fn delete(&self, bucket: BucketId, key: &[u8], version: VersionSelector) -> DeleteObject {
        DeleteObject {
            actor: self.actor.clone(),
            bucket,
            key: ObjectKey::new(key).unwrap(),
            version,
            bypass_governance: false,
            condition: WriteCondition::default(),
            commit: CommitId::random(),
        }
    }

    pub(crate) fn copy(&self, bucket: BucketId, from: (&[u8], VersionId), to: &[u8]) -> CopyObject {
        CopyObject {
            actor: self.actor.clone(),
            source_bucket: bucket,
            source_key: ObjectKey::new(from.0).unwrap(),
            source_version: from.1,
            bucket,
            key: ObjectKey::new(to).unwrap(),
            attributes: Attributes { etag: "copied".to_owned(), ..Attributes::default() },
            lock: LockRequest::default(),
            condition: WriteCondition::default(),
            commit: CommitId::random(),
        }
    }

    /// All versions of a bucket, in one page.
    pub(crate) async fn versions(&self, bucket: BucketId) -> Vec<ListEntry> {
        let list = self.service.list_versions(list_versions(bucket, b"", b"", 1000)).await.unwrap();
        assert!(list.next_after.is_none());
        list.entries
    }

    /// Ids of all blobs that a census should find.
    pub(crate) async fn live_blobs(&self) -> Vec<BlobId> {
        let live = self.service.list_blobs(ListBlobs { after: None, limit: 10_000 }).await.unwrap();
        live.into_iter().map(|live| live.blob).collect()
    }

    pub(crate) async fn doomed_blobs(&self) -> Vec<BlobId> {
        let mut doomed: Vec<_> =
            self.service.list_doomed(Limit { limit: 10_000 }).await.unwrap().into_iter().map(|d| d.blob).collect();
        doomed.sort_unstable();
        doomed
    }
}

pub(crate) fn list_versions(bucket: BucketId, prefix: &[u8], delimiter: &[u8], limit: u32) -> ListVersions {
    ListVersions {
        bucket,
        prefix: prefix.to_vec(),
        delimiter: delimiter.to_vec(),
        after: Vec::new(),
        after_version: None,
        limit,
    }
}

/// Runs a test's future on a runtime of its own: property tests are not async.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

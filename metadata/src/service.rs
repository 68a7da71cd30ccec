//! [`MetadataService`]: the state that all operations share, and the dispatch of the trait to them.

use crate::attempt::store_error;
use crate::clock::ClusterClock;
use crate::custody::HorizonMetrics;
use crate::keystore::{KeyStore, KeyStoreError, ShreddedProject};
use crate::lifecycle::LifecycleMetrics;
use crate::quota::QuotaLocks;
use crate::records::{self, BucketRecord, ClusterRecord};
use crate::rows::{NameHash, Rows};
use crate::seal::{Place, Seals};
use crate::store::{Key, MetaStore, Snapshot, Versioned};
use async_trait::async_trait;
use std::sync::{Arc, OnceLock};
use valv_lifecycle::DayLength;
use valv_metadata_api::*;
use valv_types::{BucketId, CellId, IncarnationId, ProjectId, TimestampMicros};
use zeroize::Zeroizing;

/// Queues for repeated attempts. More than the tasks that contend at any time, so that unrelated keys seldom share one.
const QUEUES: usize = 256;

/// How the service behaves.
#[derive(Debug, Clone, Copy)]
pub struct MetadataConfig {
    /// The cell whose MetaStore this is.
    pub cell: CellId,
    /// How long a removed version can be brought back, in seconds. 0 purges it at the next pass.
    pub trash_secs: u64,
    /// A gateway incarnation that is silent for longer is fenced, in seconds.
    pub fence_after_secs: u64,
    /// How long a gateway may keep a project key, in milliseconds.
    pub key_lease_ms: u32,
    /// How long old versions of a project's key outlive their last reference, in seconds.
    pub key_retire_secs: u64,
    /// How long backups of the key store are kept, in seconds: what certificates of destroyed keys say.
    pub key_backup_secs: u64,
    /// Pause between passes of background work, in milliseconds.
    pub background_every_ms: u64,
    /// How long a day of lifecycle rules is.
    pub lifecycle_day: DayLength,
    /// From the start of one pass over all lifecycle rules to that of the next, in milliseconds.
    pub lifecycle_every_ms: u64,
    /// How long an approved act that can't be undone waits, in seconds.
    pub cooling_off_secs: u64,
    /// How far ahead the horizon's gauges look, in seconds.
    pub horizon_warn_secs: u64,
}

impl Default for MetadataConfig {
    fn default() -> Self {
        Self {
            cell: CellId(1),
            trash_secs: 24 * 60 * 60,
            fence_after_secs: 10 * 60,
            key_lease_ms: 5 * 60 * 1000,
            key_retire_secs: 24 * 60 * 60,
            key_backup_secs: 30 * 24 * 60 * 60,
            background_every_ms: 2_000,
            lifecycle_day: DayLength::CALENDAR,
            lifecycle_every_ms: 60 * 60 * 1000,
            cooling_off_secs: 7 * 24 * 60 * 60,
            horizon_warn_secs: 365 * 24 * 60 * 60,
        }
    }
}

/// Why the service could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Metadata did not answer, or its rows don't open under this root key.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The key store failed.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
}

/// The metadata service of one cell. It is stateless besides caches and its clock: any number may run over one store.
#[derive(Debug, Clone)]
pub struct MetadataService(pub(crate) Arc<Core>);

/// What the operations share. Behind an `Arc` of its own, because scans move to the blocking pool and take it along.
pub(crate) struct Core {
    pub(crate) config: MetadataConfig,
    pub(crate) store: Arc<dyn MetaStore>,
    pub(crate) rows: Rows,
    pub(crate) seals: Seals,
    pub(crate) clock: ClusterClock,
    /// The key of the hashes that stand in rows' keys for names. Set once the cluster exists.
    pub(crate) name_key: OnceLock<Zeroizing<[u8; 32]>>,
    pub(crate) lifecycle: LifecycleMetrics,
    pub(crate) horizon: HorizonMetrics,
    pub(crate) quota_locks: QuotaLocks,
    queues: Vec<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("config", &self.config).finish_non_exhaustive()
    }
}

impl MetadataService {
    /// Opens the service over a store. A store without a cluster answers nothing until [`Self::bootstrap`].
    pub async fn open(
        config: MetadataConfig,
        store: Arc<dyn MetaStore>,
        keys: KeyStore,
    ) -> Result<Arc<Self>, OpenError> {
        let rows = Rows::new(config.cell);
        let clock = ClusterClock::open(store.as_ref(), &rows).await?;
        let core = Core {
            config,
            store,
            rows,
            seals: Seals::new(Arc::new(keys)),
            clock,
            name_key: OnceLock::new(),
            lifecycle: LifecycleMetrics::default(),
            horizon: HorizonMetrics::default(),
            quota_locks: QuotaLocks::default(),
            queues: (0..QUEUES).map(|_| tokio::sync::Mutex::new(())).collect(),
        };
        if let Some(row) = core.get(&core.rows.cluster()).await? {
            core.adopt_cluster(&records::decode("cluster", &row.value)?)?;
        }
        Ok(Arc::new(Self(Arc::new(core))))
    }

    /// The key store.
    pub fn keys(&self) -> &Arc<KeyStore> {
        self.0.seals.keys()
    }

    /// Destroys a project's keys and everything derived from them that this process holds. Blocks on disk.
    pub fn shred_project_keys(&self, project: ProjectId) -> Result<ShreddedProject, KeyStoreError> {
        let shredded = self.0.seals.keys().shred(project)?;
        self.0.seals.forget(project);
        Ok(shredded)
    }
}

impl Core {
    pub(crate) fn adopt_cluster(&self, cluster: &ClusterRecord) -> Result<(), MetadataError> {
        let key = Zeroizing::new(self.seals.open_name_key(cluster.cluster.as_bytes(), &cluster.sealed_name_key)?);
        let key: [u8; 32] =
            key.as_slice().try_into().map_err(|_| MetadataError::Corrupt { what: "name key".to_owned() })?;
        // A second call finds the same key: the cluster row never changes it.
        let _ = self.name_key.set(Zeroizing::new(key));
        Ok(())
    }

    /// The hash that stands in keys for a name. `kind` separates names of different things.
    pub(crate) fn name_hash(&self, kind: &str, name: &str) -> Result<NameHash, MetadataError> {
        let key = self.name_key.get().ok_or_else(|| MetadataError::Unavailable {
            what: "this store holds no cluster yet: it has to be bootstrapped".to_owned(),
        })?;
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(kind.as_bytes()).update(&[0]).update(name.as_bytes());
        let mut out = [0; 16];
        hasher.finalize_xof().fill(&mut out);
        Ok(out)
    }

    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Versioned>, MetadataError> {
        self.store.get(key).await.map_err(store_error)
    }

    /// Reads a fixed number of rows from one snapshot.
    pub(crate) async fn get_rows<const N: usize>(
        &self,
        keys: &[Key; N],
    ) -> Result<[Option<Versioned>; N], MetadataError> {
        let rows = self.store.get_many(keys).await.map_err(store_error)?;
        rows.try_into().map_err(|_| MetadataError::Corrupt { what: "the store answered another number of rows".into() })
    }

    pub(crate) async fn snapshot(&self) -> Result<Box<dyn Snapshot>, MetadataError> {
        self.store.snapshot().await.map_err(store_error)
    }

    /// Reads a bucket's state, with the row for guarding a commit.
    pub(crate) async fn bucket_record(&self, bucket: BucketId) -> Result<BucketRecord, MetadataError> {
        bucket_of(self.get(&self.rows.bucket(bucket)).await?.as_ref())
    }

    /// The bucket as the API tells it.
    pub(crate) fn bucket_view(&self, id: BucketId, record: &BucketRecord) -> Result<Bucket, MetadataError> {
        let place = Place::Bucket(record.project, id);
        let name = self.seals.open_bytes(place, record.key_version, &record.sealed_name)?;
        Ok(Bucket {
            id,
            name: String::from_utf8(name).map_err(|_| MetadataError::Corrupt { what: "bucket name".to_owned() })?,
            project: record.project,
            namespace: record.namespace,
            owner: record.owner,
            created: record.created,
            layout: record.layout,
            versioning: record.versioning,
            object_lock: record.object_lock,
            documents: record.documents.clone(),
            document_changes: record.document_changes,
            own_name: None,
        })
    }

    /// Where repeated attempts on one row queue up. First attempts don't: two writers of one key are rare.
    pub(crate) async fn queue(&self, number: u32, key: &[u8]) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if number == 0 {
            return None;
        }
        let hash = blake3::hash(key);
        let index = usize::from(hash.as_bytes()[0]) % QUEUES;
        Some(self.queues[index].lock().await)
    }

    /// Runs a scan where blocking on disk stalls nobody else.
    pub(crate) async fn scan<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &dyn Snapshot) -> Result<T, MetadataError> + Send + 'static,
    ) -> Result<T, MetadataError> {
        let snapshot = self.snapshot().await?;
        let core = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&core, snapshot.as_ref()))
            .await
            .map_err(|error| MetadataError::Unavailable { what: format!("a metadata scan ended: {error}") })?
    }

    pub(crate) fn now(&self) -> TimestampMicros {
        TimestampMicros::now()
    }
}

/// Decodes a bucket row that must be there.
pub(crate) fn bucket_of(row: Option<&Versioned>) -> Result<BucketRecord, MetadataError> {
    match row {
        Some(row) => records::decode("bucket", &row.value),
        None => Err(MetadataError::NoSuchBucket),
    }
}

/// Whether `text` can be what a person said: of at most so many bytes, over several lines if need be, and nothing that is
/// no text.
pub(crate) fn is_text(text: &str, len_bytes_max: usize) -> bool {
    text.len() <= len_bytes_max && !text.chars().any(|c| c.is_control() && c != '\n')
}

pub(crate) fn malformed(what: &str) -> MetadataError {
    MetadataError::Malformed { what: what.to_owned() }
}

pub(crate) fn corrupt(what: &str) -> MetadataError {
    MetadataError::Corrupt { what: what.to_owned() }
}

macro_rules! dispatch {
    ($( $name:ident($request:ty) -> $response:ty => $method:ident; )*) => {
        /// The service as the API's trait: each operation is a method of the module that owns it.
        #[async_trait]
        impl Metadata for MetadataService {
            $( async fn $name(&self, request: $request) -> Result<$response, MetadataError> {
                self.0.$method(request).await
            } )*
        }
    };
}

dispatch! {
    get_access_key(GetAccessKey) -> AccessGrant => find_access_key;
    ensure_principal(EnsurePrincipal) -> EnsuredPrincipal => make_principal;
    get_user(GetUser) -> User => find_user;
    get_project_key(GetProjectKey) -> ProjectKeyLease => lend_project_key;
    get_cluster_map(Empty) -> ClusterMap => read_cluster_map;
    register_incarnation(Empty) -> IncarnationId => new_incarnation;
    heartbeat(Heartbeat) -> Empty => renew_incarnation;
    get_namespace(GetNamespace) -> Namespace => find_namespace;
    record_accesses(RecordAccesses) -> Empty => add_accesses;
    create_bucket(CreateBucket) -> Bucket => make_bucket;
    get_bucket(GetBucket) -> Bucket => find_bucket;
    delete_bucket(DeleteBucket) -> Empty => remove_bucket;
    list_buckets(ListBuckets) -> Vec<Bucket> => page_of_buckets;
    update_bucket(UpdateBucket) -> Bucket => change_bucket;
    get_bucket_document(GetBucketDocument) -> BucketDocument => read_document;
    put_object(PutObject) -> Written => put_version;
    get_object(GetObject) -> FoundObject => read_version;
    get_part_page(GetPartPage) -> PartPage => read_part_page;
    copy_object(CopyObject) -> Written => copy_version;
    delete_object(DeleteObject) -> Deleted => delete_version;
    update_version(UpdateVersion) -> FoundObject => change_version;
    list_objects(ListObjects) -> ObjectList => page_of_objects;
    list_versions(ListVersions) -> VersionList => page_of_versions;
    create_upload(CreateUpload) -> Upload => open_upload;
    get_upload(GetUpload) -> Upload => find_upload;
    put_part(PutPart) -> PartRecord => add_part;
    list_parts(ListParts) -> PartList => page_of_parts;
    complete_upload(CompleteUpload) -> Written => finish_upload;
    abort_upload(AbortUpload) -> Empty => drop_upload;
    list_uploads(ListUploads) -> UploadList => page_of_uploads;
    list_blobs(ListBlobs) -> Vec<LiveBlob> => census_page;
    find_orphans(BlobIds) -> BlobIds => judge_orphans;
    queue_repair(BlobIds) -> Empty => add_repairs;
    list_repairs(Limit) -> Vec<LiveBlob> => waiting_repairs;
    finish_repairs(BlobIds) -> Empty => end_repairs;
    list_doomed(Limit) -> Vec<DoomedBlob> => waiting_doomed;
    answer_doomed(DoomedAnswer) -> Empty => note_doomed;
    note_repairs(NoteRepairs) -> Empty => record_repairs;
    list_users(ListUsers) -> Vec<UserEntry> => page_of_users;
    describe_user(GetUser) -> UserDetail => detail_of_user;
    create_access_key(CreateAccessKey) -> AccessKeyEntry => add_access_key;
    update_access_key(UpdateAccessKey) -> AccessKeyEntry => change_access_key;
    delete_access_key(DeleteAccessKey) -> Empty => remove_access_key;
    update_user(UpdateUser) -> User => change_user;
    delete_user(DeleteUser) -> Empty => remove_user;
    create_project(CreateProject) -> Project => make_project;
    get_project(GetProject) -> Project => find_project;
    list_projects(ListProjects) -> Vec<Project> => page_of_projects;
    update_project(UpdateProject) -> Project => change_project;
    govern_project(GovernProject) -> Project => make_governed;
    set_member(SetMember) -> Member => add_member;
    remove_member(RemoveMember) -> Empty => end_membership;
    list_members(ListMembers) -> Vec<Member> => all_members;
    projects_of(ProjectsOf) -> Vec<Membership> => memberships;
    create_opening(CreateOpening) -> Opening => make_opening;
    revoke_opening(RevokeOpening) -> Opening => end_opening;
    list_openings(ListOpenings) -> Vec<Opening> => all_openings;
    get_opening(GetOpening) -> Opening => find_opening;
    get_bucket_openings(GetBucketOpenings) -> BucketOpenings => openings_of_bucket;
    draw_opening_budget(DrawOpeningBudget) -> DrawnBudget => draw_budget;
    set_zone(SetZone) -> Zone => put_zone;
    remove_zone(RemoveZone) -> Empty => drop_zone;
    list_zones(ListZones) -> Vec<Zone> => all_zones;
    propose_act(ProposeAct) -> Proposal => make_proposal;
    answer_proposal(AnswerProposal) -> Proposal => settle_proposal;
    get_proposal(GetProposal) -> Proposal => find_proposal;
    list_proposals(ListProposals) -> Vec<Proposal> => all_proposals;
    create_token(CreateToken) -> TokenEntry => make_token;
    list_tokens(ListTokens) -> Vec<TokenEntry> => all_tokens;
    revoke_token(RevokeToken) -> TokenEntry => end_token;
    check_token(CheckToken) -> TokenGrant => judge_token;
    create_custodian(CreateCustodian) -> Custodian => make_custodian;
    update_custodian(UpdateCustodian) -> Custodian => change_custodian;
    remove_custodian(RemoveCustodian) -> Empty => drop_custodian;
    list_custodians(Empty) -> Vec<Custodian> => all_custodians;
    set_disk_custody(SetDiskCustody) -> DiskCustody => change_disk_custody;
    list_disk_custody(Empty) -> Vec<DiskCustody> => all_disk_custody;
    offer_transfer(OfferTransfer) -> Transfer => offer_transfer;
    get_transfer(GetTransfer) -> Transfer => find_transfer;
    accept_transfer(AcceptTransfer) -> Transfer => accept_transfer;
    withdraw_transfer(WithdrawTransfer) -> Transfer => withdraw_transfer;
}

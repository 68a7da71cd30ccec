//! The list of operations, once; trait, messages, dispatch and client follow from it.

use crate::*;
use async_trait::async_trait;
use minicbor::{Decode, Encode};
use valv_types::IncarnationId;

macro_rules! metadata_api {
    ($( $(#[$doc:meta])* $n:literal $name:ident: $variant:ident($request:ty) -> $response:ty; )*) => {
        /// The metadata service.
        ///
        /// Every method that changes something is one commit: it happened as a whole or not at all, it is durable when
        /// `Ok` returns, and its ledger record is inside it. Repeating a call with the same commit id returns the first
        /// outcome. A read sees every commit that returned before it began. Cancel safety: a dropped future may or may
        /// not have had its effect; ask again with the same commit id to learn which.
        #[async_trait]
        pub trait Metadata: Send + Sync + 'static {
            $( $(#[$doc])* async fn $name(&self, request: $request) -> Result<$response, MetadataError>; )*
        }

        /// Any request, as it travels.
        #[derive(Debug, Clone, Encode, Decode)]
        #[allow(clippy::large_enum_variant, reason = "made once per call and encoded at once")]
        pub enum Request {
            $(
                #[doc = concat!("See [`Metadata::", stringify!($name), "`].")]
                #[n($n)]
                $variant(#[n(0)] $request),
            )*
        }

        /// Any response, as it travels.
        #[derive(Debug, Clone, Encode, Decode)]
        #[allow(clippy::large_enum_variant, reason = "made once per call and encoded at once")]
        pub enum Response {
            $(
                #[doc = concat!("See [`Metadata::", stringify!($name), "`].")]
                #[n($n)]
                $variant(#[n(0)] $response),
            )*
        }

        /// Answers any request from `metadata`: the server side of the wire.
        pub async fn serve(metadata: &dyn Metadata, request: Request) -> Result<Response, MetadataError> {
            match request {
                $( Request::$variant(request) => metadata.$name(request).await.map(Response::$variant), )*
            }
        }

        #[async_trait]
        impl<T: Transport> Metadata for Client<T> {
            $(
                async fn $name(&self, request: $request) -> Result<$response, MetadataError> {
                    match self.0.call(Request::$variant(request)).await? {
                        Response::$variant(response) => Ok(response),
                        _ => Err(MetadataError::Malformed { what: "response of another kind".to_owned() }),
                    }
                }
            )*
        }
    };
}

/// Carries a request to a metadata service and its answer back.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends one request. An answer that never came is [`MetadataError::Unavailable`].
    async fn call(&self, request: Request) -> Result<Response, MetadataError>;
}

/// A metadata service at the other end of a transport.
#[derive(Debug, Clone)]
pub struct Client<T>(pub T);

metadata_api! {
    /// Looks up an access key.
    1 get_access_key: GetAccessKey(GetAccessKey) -> AccessGrant;
    /// Creates or confirms a user with project, namespace and access key.
    2 ensure_principal: EnsurePrincipal(EnsurePrincipal) -> EnsuredPrincipal;
    /// Looks up a user.
    3 get_user: GetUser(GetUser) -> User;
    /// Lends a project's key.
    4 get_project_key: GetProjectKey(GetProjectKey) -> ProjectKeyLease;
    /// The cluster's id, pools and placement groups.
    5 get_cluster_map: GetClusterMap(Empty) -> ClusterMap;
    /// Registers a new incarnation of a gateway.
    6 register_incarnation: RegisterIncarnation(Empty) -> IncarnationId;
    /// Renews an incarnation and publishes its low-water mark; a fenced one gets [`MetadataError::Fenced`].
    7 heartbeat: Heartbeat(Heartbeat) -> Empty;
    /// Finds a namespace by name, or [`MetadataError::NoSuchNamespace`].
    8 get_namespace: GetNamespace(GetNamespace) -> Namespace;
    /// Records accesses in the ledgers of their projects.
    220 record_accesses: RecordAccesses(RecordAccesses) -> Empty;

    /// Creates a bucket.
    20 create_bucket: CreateBucket(CreateBucket) -> Bucket;
    /// Finds a bucket by name.
    21 get_bucket: GetBucket(GetBucket) -> Bucket;
    /// Deletes an empty bucket.
    22 delete_bucket: DeleteBucket(DeleteBucket) -> Empty;
    /// Lists a project's buckets.
    23 list_buckets: ListBuckets(ListBuckets) -> Vec<Bucket>;
    /// Changes a bucket's settings.
    24 update_bucket: UpdateBucket(UpdateBucket) -> Bucket;
    /// Reads a bucket's document, or [`MetadataError::NoSuchDocument`].
    25 get_bucket_document: GetBucketDocument(GetBucketDocument) -> BucketDocument;

    /// Makes a version visible.
    40 put_object: PutObject(PutObject) -> Written;
    /// Reads a version's record.
    41 get_object: GetObject(GetObject) -> FoundObject;
    /// Reads a page of a multipart object's parts.
    42 get_part_page: GetPartPage(GetPartPage) -> PartPage;
    /// Copies within a project by sharing blobs.
    43 copy_object: CopyObject(CopyObject) -> Written;
    /// Deletes a key or removes a version.
    44 delete_object: DeleteObject(DeleteObject) -> Deleted;
    /// Changes tags, ACL, retention or hold of a version.
    45 update_version: UpdateVersion(UpdateVersion) -> FoundObject;
    /// Lists current versions.
    46 list_objects: ListObjects(ListObjects) -> ObjectList;
    /// Lists all versions.
    47 list_versions: ListVersions(ListVersions) -> VersionList;

    /// Opens a multipart upload.
    60 create_upload: CreateUpload(CreateUpload) -> Upload;
    /// Reads an open upload.
    61 get_upload: GetUpload(GetUpload) -> Upload;
    /// Commits a part.
    62 put_part: PutPart(PutPart) -> PartRecord;
    /// Lists an upload's parts.
    63 list_parts: ListParts(ListParts) -> PartList;
    /// Turns an upload into a version. Repeated after success it returns the same version.
    64 complete_upload: CompleteUpload(CompleteUpload) -> Written;
    /// Throws an upload away.
    65 abort_upload: AbortUpload(AbortUpload) -> Empty;
    /// Lists open uploads.
    66 list_uploads: ListUploads(ListUploads) -> UploadList;

    /// Blobs that should have shards, in id order: what a census compares disks with.
    80 list_blobs: ListBlobs(ListBlobs) -> Vec<LiveBlob>;
    /// Which of the given blobs are orphans, by the rule in the architecture: unreferenced in a snapshot taken after
    /// their incarnation was fenced or published a higher low-water mark. Absence alone is never enough.
    81 find_orphans: FindOrphans(BlobIds) -> BlobIds;
    /// Queues blobs for repair (a read met a corrupt or missing shard).
    82 queue_repair: QueueRepair(BlobIds) -> Empty;
    /// Blobs waiting for repair, oldest first.
    83 list_repairs: ListRepairs(Limit) -> Vec<LiveBlob>;
    /// These blobs have all their shards again, verified by a census.
    84 finish_repairs: FinishRepairs(BlobIds) -> Empty;
    /// Blobs whose shards are to be deleted, oldest first.
    85 list_doomed: ListDoomed(Limit) -> Vec<DoomedBlob>;
    /// Records which disks have deleted a doomed blob's shards.
    86 answer_doomed: AnswerDoomed(DoomedAnswer) -> Empty;

    /// Lists users in name order.
    120 list_users: ListUsers(ListUsers) -> Vec<UserEntry>;
    /// A user with all access keys.
    121 describe_user: DescribeUser(GetUser) -> UserDetail;
    /// Adds an access key to a user.
    122 create_access_key: CreateAccessKey(CreateAccessKey) -> AccessKeyEntry;
    /// Enables or disables an access key.
    123 update_access_key: UpdateAccessKey(UpdateAccessKey) -> AccessKeyEntry;
    /// Deletes an access key.
    124 delete_access_key: DeleteAccessKey(DeleteAccessKey) -> Empty;
    /// Changes what is said of a user.
    125 update_user: UpdateUser(UpdateUser) -> User;
    /// Deletes a user with all access keys, unless the user owns buckets.
    126 delete_user: DeleteUser(DeleteUser) -> Empty;

    /// Makes a governed project.
    140 create_project: CreateProject(CreateProject) -> Project;
    /// Finds a project.
    141 get_project: GetProject(GetProject) -> Project;
    /// Lists projects in name order.
    142 list_projects: ListProjects(ListProjects) -> Vec<Project>;
    /// Changes a project's properties.
    143 update_project: UpdateProject(UpdateProject) -> Project;
    /// Makes a governed project of an ungoverned one.
    144 govern_project: GovernProject(GovernProject) -> Project;
    /// Makes a user a member, or gives a member other roles.
    145 set_member: SetMember(SetMember) -> Member;
    /// Ends a membership.
    146 remove_member: RemoveMember(RemoveMember) -> Empty;
    /// Lists a project's members.
    147 list_members: ListMembers(ListMembers) -> Vec<Member>;
    /// In which projects a user is a member.
    148 projects_of: ProjectsOf(ProjectsOf) -> Vec<Membership>;

    /// Proposes an act that needs a second person.
    190 propose_act: ProposeAct(ProposeAct) -> Proposal;
    /// Approves or rejects a proposal. Approval carries the act out, at once or when its cooling-off time is over.
    191 answer_proposal: AnswerProposal(AnswerProposal) -> Proposal;
    /// Finds a proposal.
    192 get_proposal: GetProposal(GetProposal) -> Proposal;
    /// Lists proposals, newest first.
    193 list_proposals: ListProposals(ListProposals) -> Vec<Proposal>;
    /// Makes a token for the admin service.
    180 create_token: CreateToken(CreateToken) -> TokenEntry;
    /// Lists tokens, newest last.
    181 list_tokens: ListTokens(ListTokens) -> Vec<TokenEntry>;
    /// Revokes a token.
    182 revoke_token: RevokeToken(RevokeToken) -> TokenEntry;
    /// Whom a token stands for, or [`TokenConflict::NotValid`].
    183 check_token: CheckToken(CheckToken) -> TokenGrant;
    /// Adds a custodian.
    260 create_custodian: CreateCustodian(CreateCustodian) -> Custodian;
    /// Changes what is said of a custodian.
    261 update_custodian: UpdateCustodian(UpdateCustodian) -> Custodian;
    /// Removes a custodian that has no disks.
    262 remove_custodian: RemoveCustodian(RemoveCustodian) -> Empty;
    /// All custodians, by organisation.
    263 list_custodians: ListCustodians(Empty) -> Vec<Custodian>;
    /// Says who runs a disk, and until when it is guaranteed.
    264 set_disk_custody: SetDiskCustody(SetDiskCustody) -> DiskCustody;
    /// Every disk that a pool uses or that something was said of, in the order of their ids.
    265 list_disk_custody: ListDiskCustody(Empty) -> Vec<DiskCustody>;

    /// Records in the ledgers of the projects whose they are that blobs were repaired.
    230 note_repairs: NoteRepairs(NoteRepairs) -> Empty;
    /// Offers a project to another controller.
    266 offer_transfer: OfferTransfer(OfferTransfer) -> Transfer;
    /// The transfer of a project that was offered last.
    267 get_transfer: GetTransfer(GetTransfer) -> Transfer;
    /// Accepts an offer: the project changes hands.
    268 accept_transfer: AcceptTransfer(AcceptTransfer) -> Transfer;
    /// Withdraws or declines an offer.
    269 withdraw_transfer: WithdrawTransfer(WithdrawTransfer) -> Transfer;
    /// Makes an opening.
    160 create_opening: CreateOpening(CreateOpening) -> Opening;
    /// Ends an opening.
    161 revoke_opening: RevokeOpening(RevokeOpening) -> Opening;
    /// Lists a project's openings.
    162 list_openings: ListOpenings(ListOpenings) -> Vec<Opening>;
    /// Shows an opening.
    163 get_opening: GetOpening(GetOpening) -> Opening;
    /// What is open in a bucket: what gateways ask.
    164 get_bucket_openings: GetBucketOpenings(GetBucketOpenings) -> BucketOpenings;
    /// Draws from a byte budget. Each call draws anew: an answer that was lost is a few bytes lost, never too many sent.
    165 draw_opening_budget: DrawOpeningBudget(DrawOpeningBudget) -> DrawnBudget;
    /// Makes or changes a network zone.
    166 set_zone: SetZone(SetZone) -> Zone;
    /// Removes a network zone.
    167 remove_zone: RemoveZone(RemoveZone) -> Empty;
    /// Lists all network zones.
    168 list_zones: ListZones(ListZones) -> Vec<Zone>;
}

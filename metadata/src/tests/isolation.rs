//! Isolation: whatever is done in one project, nothing that another one sees changes.
//!
//! Two projects share a namespace, which is the hard case: what their buckets may be called is all that they have in
//! common. A view of project B is every question that B's people, gateways and reports ask, with the answers and
//! refusals as they are written out, among them writes that B's own quota, locks and roles refuse. Then random changes
//! are made in project A, by all that A's people and operators can do there, and by A's people who reach for what is
//! B's. The views before, between and after are equal, byte for byte.
//!
//! Two ways from A to B are there on purpose, and not among the changes: A opens a bucket to B, and A takes a name that
//! B has not (so B asks for names that A does not take).

use crate::MetadataConfig;
use crate::testing::{Fixture, actor, block_on, list_versions, principal};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use valv_codec::DataKey;
use valv_ledger::usage::Month;
use valv_lifecycle::{Configuration, Expiration, Filter, FilterForm, MinimumSize, Rule, Scope, SizeBounds, Status};
use valv_metadata_api::*;
use valv_types::*;

const CHANGES: usize = 4_000;
/// Changes between two views.
const VIEW_EVERY: usize = 50;
/// Names the environment variable that has a run made with the choices of an earlier one. Ids differ all the same.
const SEED: &str = "ISOLATION_SEED";
/// Of so many changes at least so many succeed: the others are refused, as they should be.
const DONE_MIN: usize = 1_500;
/// Buckets and open uploads that A has at most.
const BUCKETS_MAX: usize = 8;
const UPLOADS_MAX: usize = 30;
const KEYS: [&[u8]; 5] = [b"a", b"a/b", b"a\0", b"b", b"z/y/x"];
const HOUR_SECS: u64 = 3_600;
const YEAR_SECS: u64 = 366 * 24 * HOUR_SECS;

/// SplitMix64 (Steele, Lea, Flood 2014): a run's choices are made again from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { all.get(self.below(all.len())).cloned() }
    }

    fn key(&mut self) -> &'static [u8] {
        KEYS[self.below(KEYS.len())]
    }
}

fn text(what: &str) -> String {
    what.to_owned()
}

fn key(bytes: &[u8]) -> ObjectKey {
    ObjectKey::new(bytes).unwrap()
}

fn id(text: &str) -> AccessKeyId {
    AccessKeyId::new(text).unwrap()
}

fn md5_of(number: u16) -> [u8; 16] {
    let mut md5 = [0; 16];
    md5[..2].copy_from_slice(&number.to_be_bytes());
    md5
}

/// Everything under `prefix` goes after a thousand days, so nothing does while the test runs.
fn lifecycle(prefix: &str) -> BucketDocument {
    let filter = Filter::new(FilterForm::Single, Some(text(prefix)), vec![], SizeBounds::default()).unwrap();
    let expiration = Expiration::days(1_000).unwrap();
    let rule = Rule::new(text("r"), Status::Enabled, Scope::Filter(filter), Some(expiration), None, None);
    let body = Configuration::new(vec![rule.unwrap()], MinimumSize::default()).unwrap().encode();
    BucketDocument { kind: BucketDocumentKind::Lifecycle, body }
}

/// A project and somebody who acts there.
#[derive(Clone)]
struct Side {
    actor: Actor,
    project: ProjectId,
    name: String,
}

impl Side {
    /// At the admin service: a user who may also be an operator.
    fn person(&self, is_operator: bool) -> Person {
        Person { actor: Actor { caller: Some(text("a test")), ..self.actor.clone() }, is_operator }
    }
}

struct World {
    fixture: Fixture,
    a: Side,
    b: Side,
    bill: UserId,
    elsewhere: NamespaceId,
}

impl World {
    async fn new() -> Self {
        let config =
            MetadataConfig { trash_secs: 600, key_retire_secs: 0, key_lease_ms: 0, ..MetadataConfig::default() };
        let fixture = Fixture::with_config(config).await;
        let service = &fixture.service;
        let of = |name: &str, project: &str| EnsurePrincipal { project_name: text(project), ..principal(name) };
        let alice = service.ensure_principal(of("alice", "project a")).await.unwrap();
        service.ensure_principal(of("anna", "project a")).await.unwrap();
        let beth = service.ensure_principal(of("beth", "project b")).await.unwrap();
        let bill = service.ensure_principal(of("bill", "project b")).await.unwrap().user;
        let carl = EnsurePrincipal { namespace_name: text("elsewhere"), ..principal("carl") };
        let elsewhere = service.ensure_principal(carl).await.unwrap().namespace;
        assert_eq!(alice.namespace, beth.namespace);
        let side = |made: &EnsuredPrincipal, name: &str| Side {
            actor: actor(made.project, made.user),
            project: made.project,
            name: text(name),
        };
        let (a, b) = (side(&alice, "project a"), side(&beth, "project b"));
        Self { a, b, bill, elsewhere, fixture }
    }

    fn now(&self) -> TimestampMicros {
        self.fixture.service.0.clock.now()
    }

    async fn make_bucket(&self, side: &Side, name: &str, object_lock: bool) -> Result<Bucket, MetadataError> {
        let request = CreateBucket {
            actor: side.actor.clone(),
            namespace: self.fixture.namespace,
            name: text(name),
            object_lock,
            documents: Vec::new(),
            commit: CommitId::random(),
        };
        self.fixture.service.create_bucket(request).await
    }

    async fn change(&self, side: &Side, bucket: BucketId, change: BucketChange) -> Result<Bucket, MetadataError> {
        let request = UpdateBucket { actor: side.actor.clone(), bucket, change, commit: CommitId::random() };
        self.fixture.service.update_bucket(request).await
    }

    /// A blob whose key is really wrapped, so that the project's key can be replaced.
    fn blob(&self, side: &Side, len_bytes: u64, place: BlobPlace) -> BlobRecord {
        let mut blob = self.fixture.blob(len_bytes, place);
        let project_key = self.fixture.service.keys().project_key(side.project, None).unwrap();
        let data_key = DataKey::generate().unwrap();
        blob.wrapped_key = project_key.wrap_data_key(side.project, blob.blob, &data_key, None).unwrap();
        blob
    }

    fn put(&self, side: &Side, bucket: BucketId, key: &[u8], len_bytes: u64) -> PutObject {
        let blob = self.blob(side, len_bytes, BlobPlace::Shards);
        PutObject { actor: side.actor.clone(), body: NewBody::Blob(blob), ..self.fixture.put(bucket, key) }
    }

    fn delete(&self, side: &Side, bucket: BucketId, key: &[u8], version: VersionSelector) -> DeleteObject {
        DeleteObject { actor: side.actor.clone(), ..self.fixture.delete(bucket, key, version) }
    }

    async fn begin(&self, side: &Side, bucket: BucketId, at: &[u8]) -> Result<Upload, MetadataError> {
        let request = CreateUpload {
            actor: side.actor.clone(),
            bucket,
            key: key(at),
            attributes: Attributes::default(),
            lock: LockRequest::default(),
            checksum: None,
            commit: CommitId::random(),
        };
        self.fixture.service.create_upload(request).await
    }

    async fn part(&self, side: &Side, upload: &Upload, number: u16) -> Result<PartRecord, MetadataError> {
        let request = PutPart {
            actor: side.actor.clone(),
            bucket: upload.bucket,
            key: upload.key.clone(),
            upload: upload.id,
            number,
            body: NewBody::Blob(self.blob(side, 5 << 20, BlobPlace::Shards)),
            md5: md5_of(number),
            checksums: Vec::new(),
            proof: self.fixture.proof(),
            commit: CommitId::random(),
        };
        self.fixture.service.put_part(request).await
    }

    async fn hold(&self, side: &Side, bucket: Option<BucketId>, prefix: &[u8]) -> Result<Hold, MetadataError> {
        let request = SetHold {
            actor: side.actor.clone(),
            project: side.project,
            scope: RetentionScope { bucket, prefix: prefix.to_vec() },
            reason: text("inquiry"),
            reference: text("court 1/30"),
            commit: CommitId::random(),
        };
        self.fixture.service.set_hold(request).await
    }

    async fn class(&self, side: &Side, default_days: u32, class: &str) -> Result<(), MetadataError> {
        let retention = ProjectRetention { default_days, class: text(class), ..ProjectRetention::default() };
        let request = SetProjectRetention {
            actor: side.actor.clone(),
            project: side.project,
            retention,
            reason: text("r"),
            commit: CommitId::random(),
        };
        self.fixture.service.set_project_retention(request).await
    }

    async fn limit(&self, by: Person, project: ProjectId, changes: ProjectChanges) -> Result<Project, MetadataError> {
        let request = UpdateProject { by, project, changes, commit: CommitId::random() };
        self.fixture.service.update_project(request).await
    }

    async fn member(&self, by: &Side, project: ProjectId, user: &str, roles: Roles) -> Result<Member, MetadataError> {
        let by = by.person(true);
        let request = SetMember { by, project, user_name: text(user), roles, commit: CommitId::random() };
        self.fixture.service.set_member(request).await
    }

    async fn govern(&self, side: &Side, controller: &str) -> Result<Project, MetadataError> {
        let (by, project) = (side.person(true), side.project);
        let request = GovernProject { by, project, controller: text(controller), commit: CommitId::random() };
        self.fixture.service.govern_project(request).await
    }

    async fn open(
        &self,
        by: &Side,
        project: ProjectId,
        bucket_name: Option<String>,
        to: OpeningTo,
        alias: Option<String>,
        zones: Vec<String>,
    ) -> Result<Opening, MetadataError> {
        let request = CreateOpening {
            actor: by.actor.clone(),
            is_operator: true,
            opening: NewOpening {
                project,
                bucket_name,
                to,
                prefix: b"a".to_vec(),
                scope: OpeningScope::Actions(3),
                purpose: text("cohort study"),
                reference: text("board 4/36"),
                start: None,
                expiry: Some(self.now().plus_secs(YEAR_SECS)),
                zones,
                budget_bytes: Some(1 << 30),
                alias,
                is_configured: false,
            },
            commit: CommitId::random(),
        };
        self.fixture.service.create_opening(request).await
    }

    async fn revoke(&self, by: &Side, project: ProjectId, opening: OpeningId) -> Result<Opening, MetadataError> {
        let request = RevokeOpening {
            actor: by.actor.clone(),
            is_operator: true,
            project,
            opening,
            reason: text("over"),
            commit: CommitId::random(),
        };
        self.fixture.service.revoke_opening(request).await
    }

    async fn zone(&self, side: &Side, name: &str) -> Result<Zone, MetadataError> {
        let blocks = vec![text("192.0.2.0/24")];
        let request = SetZone { actor: side.actor.clone(), name: text(name), blocks, commit: CommitId::random() };
        self.fixture.service.set_zone(request).await
    }

    async fn propose(&self, by: &Side, project: ProjectId, user: UserId) -> Result<Proposal, MetadataError> {
        let request = ProposeAct {
            act: Act::AppointController(AppointController { project, user }),
            by: by.person(true),
            reason: text("the controller left"),
            reference: text("board 5/36"),
            commit: CommitId::random(),
        };
        self.fixture.service.propose_act(request).await
    }

    async fn answer(&self, by: Person, project: ProjectId, proposal: ProposalId) -> Result<Proposal, MetadataError> {
        let request = AnswerProposal {
            proposal,
            project: Some(project),
            by,
            approve: false,
            reason: text("no"),
            commit: CommitId::random(),
        };
        self.fixture.service.answer_proposal(request).await
    }
}

/// What there is of project B.
struct Held {
    locked: BucketId,
    plain: BucketId,
    uploads: Vec<Upload>,
    hold: HoldId,
    opening: OpeningId,
    proposal: ProposalId,
}

impl World {
    async fn furnish_b(&self) -> Held {
        let (b, service) = (&self.b, &self.fixture.service);
        let locked = self.make_bucket(b, "b-locked", true).await.unwrap().id;
        let plain = self.make_bucket(b, "b-plain", false).await.unwrap().id;
        let quota = Some(Quota { bytes: Some(200 << 20), objects: Some(100) });
        let quota = ProjectChanges { quota, ..ProjectChanges::default() };
        self.limit(b.person(true), b.project, quota).await.unwrap();
        for kind in [BucketDocumentKind::Policy, BucketDocumentKind::Cors, BucketDocumentKind::Tagging] {
            let document = BucketDocument { kind, body: format!("{kind:?} of b").into_bytes() };
            self.change(b, locked, BucketChange::SetDocument(document)).await.unwrap();
        }
        self.change(b, plain, BucketChange::SetDocument(lifecycle("a"))).await.unwrap();
        for at in KEYS {
            for bucket in [locked, locked, plain, plain] {
                service.put_object(self.put(b, bucket, at, 1 << 20)).await.unwrap();
            }
        }
        let retention = Some(Retention { mode: RetentionMode::Compliance, until: self.now().plus_secs(YEAR_SECS) });
        let mut kept = self.put(b, locked, b"kept", 3);
        kept.lock = LockRequest { retention, legal_hold: true };
        service.put_object(kept).await.unwrap();
        service.delete_object(self.delete(b, locked, b"b", VersionSelector::Current)).await.unwrap();
        service.delete_object(self.delete(b, plain, b"a\0", VersionSelector::Current)).await.unwrap();
        let mut uploads = Vec::new();
        for bucket in [locked, plain] {
            let upload = self.begin(b, bucket, b"a/upload").await.unwrap();
            for number in 1..=3 {
                self.part(b, &upload, number).await.unwrap();
            }
            uploads.push(upload);
        }
        self.class(b, 0, "ten years").await.unwrap();
        self.govern(b, "beth").await.unwrap();
        self.member(b, b.project, "bill", Roles::NONE.with(Role::Reader)).await.unwrap();
        let hold = self.hold(b, Some(locked), b"a/").await.unwrap().id;
        self.zone(b, "b-zone").await.unwrap();
        let to = OpeningTo::User(text("carl"));
        let opening = self.open(b, b.project, Some(text("b-plain")), to, None, vec![text("b-zone")]).await.unwrap().id;
        let proposal = self.propose(b, b.project, self.bill).await.unwrap().id;
        Held { locked, plain, uploads, hold, opening, proposal }
    }
}

/// Questions and what was answered.
#[derive(Default)]
struct View(BTreeMap<String, String>);

impl View {
    fn add(&mut self, question: impl Into<String>, answer: impl Debug) {
        let question = question.into();
        assert!(self.0.insert(question.clone(), format!("{answer:?}")).is_none(), "{question} is asked twice");
    }

    /// What B is answered now. Asking changes nothing, which two views in a row show.
    async fn of(world: &World, held: &Held) -> Self {
        let mut view = Self::default();
        view.of_buckets(world, held).await;
        view.of_objects(world, held).await;
        view.of_people(world, held).await;
        view.of_refused_writes(world, held).await;
        view.of_counts(world).await;
        view
    }

    async fn of_buckets(&mut self, world: &World, held: &Held) {
        let (b, service) = (&world.b, &world.fixture.service);
        let shared = world.fixture.namespace;
        let opened_to = OpenedTo { user: b.actor.user.unwrap(), namespace: shared };
        for (limit, opened_to) in [(1, None), (1_000, None), (1_000, Some(opened_to))] {
            for prefix in ["", "b-l", "a-"] {
                let request = ListBuckets { project: b.project, prefix: text(prefix), after: None, limit, opened_to };
                let listed = service.list_buckets(request).await;
                self.add(format!("buckets {limit} {prefix} {}", opened_to.is_some()), listed);
            }
        }
        for name in ["b-locked", "b-plain", "b-missing", "missing", "", "B"] {
            for namespace in [shared, world.elsewhere] {
                let found = service.get_bucket(GetBucket { namespace, name: text(name) }).await;
                self.add(format!("bucket {name:?} in {namespace}"), found);
            }
        }
        for bucket in [held.locked, held.plain, BucketId::from_bytes([9; 16])] {
            for kind in BucketDocumentKind::ALL {
                let document = service.get_bucket_document(GetBucketDocument { bucket, kind }).await;
                self.add(format!("document {bucket} {kind:?}"), document);
            }
            let openings = GetBucketOpenings { bucket, project: b.project };
            self.add(format!("openings of {bucket}"), service.get_bucket_openings(openings).await);
        }
    }

    async fn of_objects(&mut self, world: &World, held: &Held) {
        let service = &world.fixture.service;
        for bucket in [held.locked, held.plain, BucketId::from_bytes([9; 16])] {
            for (prefix, delimiter) in [("", ""), ("", "/"), ("a", ""), ("a", "/")] {
                let (prefix, delimiter) = (prefix.as_bytes().to_vec(), delimiter.as_bytes().to_vec());
                for limit in [2, 1_000] {
                    let what = format!("{bucket} {prefix:?} {delimiter:?} {limit}");
                    let request = ListObjects {
                        bucket,
                        prefix: prefix.clone(),
                        delimiter: delimiter.clone(),
                        after: Vec::new(),
                        limit,
                    };
                    self.add(format!("objects {what}"), service.list_objects(request).await);
                    let request = list_versions(bucket, &prefix, &delimiter, limit);
                    self.add(format!("versions {what}"), service.list_versions(request).await);
                    let request = ListUploads {
                        bucket,
                        prefix: prefix.clone(),
                        delimiter: delimiter.clone(),
                        after: Vec::new(),
                        after_upload: None,
                        limit,
                    };
                    self.add(format!("uploads {what}"), service.list_uploads(request).await);
                }
            }
            for at in KEYS.into_iter().chain([&b"kept"[..], b"missing", b"a/upload"]) {
                let mut which = vec![VersionSelector::Current, VersionSelector::Null];
                which.push(VersionSelector::Id(VersionId::from_bytes([9; 16])));
                if let Ok(page) = service.list_versions(list_versions(bucket, at, b"", 1_000)).await {
                    let own = page.entries.iter().filter(|entry| entry.key.as_bytes() == at);
                    which.extend(own.map(|entry| VersionSelector::Id(entry.id)));
                }
                for which in which {
                    let found = service.get_object(world.fixture.get(bucket, at, which)).await;
                    self.add(format!("object {bucket} {} {which:?}", at.escape_ascii()), found);
                }
            }
            self.add(format!("manifest {bucket}"), service.manifest_page(bucket, Vec::new(), None).await);
        }
        let missing = Upload { id: UploadId::from_bytes([9; 16]), ..held.uploads[0].clone() };
        for upload in held.uploads.iter().chain([&missing]) {
            let (bucket, key, upload) = (upload.bucket, upload.key.clone(), upload.id);
            let request = GetUpload { bucket, key: key.clone(), upload };
            self.add(format!("upload {upload}"), service.get_upload(request).await);
            for limit in [1, 1_000] {
                let request = ListParts { bucket, key: key.clone(), upload, after: 0, limit };
                self.add(format!("parts {upload} {limit}"), service.list_parts(request).await);
            }
        }
    }

    async fn of_people(&mut self, world: &World, held: &Held) {
        let (b, service) = (&world.b, &world.fixture.service);
        for key in ["KEY-beth", "KEY-bill", "KEY-nobody"] {
            self.add(key, service.get_access_key(GetAccessKey { id: id(key) }).await);
        }
        for name in ["beth", "bill", "nobody"] {
            self.add(format!("user {name}"), service.get_user(GetUser::Name(text(name))).await);
            let email = GetUser::Email(format!("{name}@example.org"));
            self.add(format!("address of {name}"), service.get_user(email).await);
        }
        self.add("beth in full", service.describe_user(GetUser::Name(text("beth"))).await);
        self.add("projects of beth", service.projects_of(ProjectsOf { user: b.actor.user.unwrap() }).await);
        self.add("members", service.list_members(ListMembers { project: b.project }).await);
        self.add("project by name", service.get_project(GetProject::Name(b.name.clone())).await);
        self.add("project by id", service.get_project(GetProject::Id(b.project)).await);
        for version in [None, Some(1), Some(2)] {
            let key = service.get_project_key(GetProjectKey { project: b.project, version }).await;
            self.add(format!("project key {version:?}"), key);
        }
        self.add("project keys", service.project_keys(b.project).await);
        self.add("retention", service.project_retention(b.project).await);
        self.add("holds", service.list_holds(b.project).await);
        self.add("disposals", service.disposals(b.project).await);
        let request = ListTrash { project: b.project, bucket: None, prefix: Vec::new(), after: None, limit: 1_000 };
        self.add("trash", service.list_trash(request).await);
        for flag in [false, true] {
            let request = ListOpenings { project: b.project, with_ended: flag };
            self.add(format!("openings {flag}"), service.list_openings(request).await);
            let request = ListProposals { project: Some(b.project), open_only: flag };
            self.add(format!("proposals {flag}"), service.list_proposals(request).await);
        }
        for opening in [held.opening, OpeningId::from_bytes([9; 16])] {
            let found = service.get_opening(GetOpening { project: b.project, opening }).await;
            self.add(format!("opening {opening}"), found);
        }
        for proposal in [held.proposal, ProposalId::from_bytes([9; 16])] {
            let found = service.get_proposal(GetProposal { proposal, project: Some(b.project) }).await;
            self.add(format!("proposal {proposal}"), found);
        }
    }

    /// Decisions on writes that B's own state refuses.
    async fn of_refused_writes(&mut self, world: &World, held: &Held) {
        let (b, service) = (&world.b, &world.fixture.service);
        self.add("make own", world.make_bucket(b, "b-plain", false).await);
        self.add("fill up", service.put_object(world.put(b, held.plain, b"a", 1 << 30)).await);
        let mut conditional = world.put(b, held.plain, b"a", 1);
        conditional.condition.if_none_match = Some(vec![text("*")]);
        self.add("put anew", service.put_object(conditional).await);
        let versions = service.list_versions(list_versions(held.locked, b"", b"", 1_000)).await.unwrap();
        for entry in versions.entries {
            let at = entry.key.as_bytes();
            if at.starts_with(b"a/") || at == b"kept" {
                let request = world.delete(b, held.locked, at, VersionSelector::Id(entry.id));
                self.add(format!("delete {}", entry.id), service.delete_object(request).await);
            }
        }
        self.add("suspend", world.change(b, held.locked, BucketChange::Versioning(Versioning::Suspended)).await);
        self.add("no controller", world.member(b, b.project, "beth", Roles::NONE.with(Role::Reader)).await);
        let operator = Person { actor: Actor { user: None, ..b.actor.clone() }, is_operator: true };
        let changes = ProjectChanges { note: Some(text("mine")), ..ProjectChanges::default() };
        self.add("operator", world.limit(operator, b.project, changes).await);
        self.add(
            "own proposal",
            world.answer(Side::person(b, false), b.project, ProposalId::from_bytes([9; 16])).await,
        );
    }

    async fn of_counts(&mut self, world: &World) {
        let (b, service) = (&world.b, &world.fixture.service);
        self.add("repairs", service.repairs_of(b.project).await);
        // Of a month to come: what is held until now grows with time, whoever does what.
        let month = Month::of(world.now().plus_secs(40 * YEAR_SECS));
        self.add("usage", service.usage(Some(&b.name), month).await);
        self.add("held", service.held_versions(b.project, None).await);
    }

    fn assert_is(&self, before: &Self, when: &str) {
        let differs = |(question, _): &(&String, &String)| self.0.get(*question) != before.0.get(*question);
        let differing: Vec<_> = before.0.iter().filter(differs).collect();
        let now: Vec<_> = differing.iter().map(|(question, _)| self.0.get(*question)).collect();
        assert!(differing.is_empty(), "{when}: were {differing:#?}, are {now:#?}");
        assert_eq!(self.0.len(), before.0.len(), "{when}");
    }
}

/// What project A has by now.
struct Changes {
    random: Random,
    buckets: Vec<(BucketId, String)>,
    uploads: Vec<(Upload, u16)>,
    holds: Vec<HoldId>,
    openings: Vec<OpeningId>,
    keys: Vec<AccessKeyId>,
    users: Vec<String>,
    proposals: Vec<ProposalId>,
    made: usize,
    /// How often each kind of change succeeded.
    done: BTreeMap<&'static str, usize>,
    tried: BTreeSet<&'static str>,
}

fn done<T>(outcome: Result<T, MetadataError>) -> Result<(), MetadataError> {
    outcome.map(|_| ())
}

impl Changes {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            buckets: Vec::new(),
            uploads: Vec::new(),
            holds: Vec::new(),
            openings: Vec::new(),
            keys: Vec::new(),
            users: Vec::new(),
            proposals: Vec::new(),
            made: 0,
            done: BTreeMap::new(),
            tried: BTreeSet::new(),
        }
    }

    async fn make_one(&mut self, world: &World, held: &Held) {
        self.made += 1;
        let (what, outcome) = match self.random.below(10) {
            0..=4 => self.in_objects(world).await,
            5 => self.in_buckets(world).await,
            6 | 7 => self.in_project(world).await,
            8 => self.in_openings(world).await,
            _ => {
                let outcome = self.reach_out(world, held).await;
                if let Some((what, outcome)) = outcome {
                    assert!(outcome.is_err(), "{what} reached into another project");
                    self.tried.insert(what);
                }
                return;
            }
        };
        self.tried.insert(what);
        match outcome {
            Ok(()) => *self.done.entry(what).or_default() += 1,
            Err(error @ (MetadataError::Corrupt { .. } | MetadataError::Malformed { .. })) => panic!("{what}: {error}"),
            Err(_) => {}
        }
    }

    fn bucket(&mut self) -> (BucketId, String) {
        self.random.of(&self.buckets).unwrap_or((BucketId::from_bytes([8; 16]), text("a-none")))
    }

    async fn version(&mut self, world: &World, bucket: BucketId) -> Option<ListEntry> {
        let page = world.fixture.service.list_versions(list_versions(bucket, b"", b"", 100)).await.ok()?;
        self.random.of(&page.entries)
    }

    async fn in_objects(&mut self, world: &World) -> (&'static str, Result<(), MetadataError>) {
        let (a, service) = (&world.a, &world.fixture.service);
        let (bucket, at) = (self.bucket().0, self.random.key());
        let version = self.version(world, bucket).await;
        let (old, which) = version.map_or((key(at), VersionSelector::Null), |entry| {
            (entry.key, if entry.is_null { VersionSelector::Null } else { VersionSelector::Id(entry.id) })
        });
        let update = |change: VersionChange| UpdateVersion {
            actor: a.actor.clone(),
            bucket,
            key: old.clone(),
            version: which,
            change,
            commit: CommitId::random(),
        };
        match self.random.below(14) {
            0..=2 => {
                let mut put = world.put(a, bucket, at, 1 + self.random.next() % (2 << 20));
                if self.random.one_in(4) {
                    let until = world.now().plus_secs(HOUR_SECS);
                    put.lock.retention = Some(Retention { mode: RetentionMode::Governance, until });
                }
                ("put", done(service.put_object(put).await))
            }
            3 => {
                let mut put = world.put(a, bucket, at, 5);
                put.body = NewBody::Inline(world.blob(a, 5, BlobPlace::Inline), vec![9; 21]);
                ("put inline", done(service.put_object(put).await))
            }
            4 => ("delete", done(service.delete_object(world.delete(a, bucket, at, VersionSelector::Current)).await)),
            5 | 6 => {
                let mut delete = world.delete(a, bucket, old.as_bytes(), which);
                delete.bypass_governance = self.random.one_in(2);
                ("delete version", done(service.delete_object(delete).await))
            }
            7 => {
                let found = service.get_object(world.fixture.get(bucket, old.as_bytes(), which)).await;
                let from = found.map_or(VersionId::from_bytes([8; 16]), |found| found.version.id);
                let copy = world.fixture.copy(bucket, (old.as_bytes(), from), at);
                let to = self.bucket().0;
                let copy = CopyObject { actor: a.actor.clone(), bucket: to, ..copy };
                ("copy", done(service.copy_object(copy).await))
            }
            8 => {
                let tags = VersionChange::Tags(vec![(text("t"), self.made.to_string())]);
                ("tag", done(service.update_version(update(tags)).await))
            }
            9 => {
                let hold = VersionChange::LegalHold(self.random.one_in(3));
                ("hold a version", done(service.update_version(update(hold)).await))
            }
            10 => {
                let until = world.now().plus_secs(2 * HOUR_SECS);
                let retention = Some(Retention { mode: RetentionMode::Governance, until });
                let change = VersionChange::Retention { retention, bypass_governance: true };
                ("retain a version", done(service.update_version(update(change)).await))
            }
            11 if self.uploads.len() < UPLOADS_MAX => {
                let upload = world.begin(a, bucket, at).await;
                if let Ok(upload) = &upload {
                    self.uploads.push((upload.clone(), 0));
                }
                ("begin upload", done(upload))
            }
            12 if !self.uploads.is_empty() => {
                let index = self.random.below(self.uploads.len());
                let number = self.uploads[index].1 + 1;
                let part = world.part(a, &self.uploads[index].0, number).await;
                if part.is_ok() {
                    self.uploads[index].1 = number;
                }
                ("put part", done(part))
            }
            _ if !self.uploads.is_empty() => {
                let index = self.random.below(self.uploads.len());
                let (upload, parts) = self.uploads.swap_remove(index);
                let (bucket, key, id) = (upload.bucket, upload.key, upload.id);
                let (actor, commit) = (a.actor.clone(), CommitId::random());
                if parts == 0 || self.random.one_in(3) {
                    let abort = AbortUpload { actor, bucket, key, upload: id, commit };
                    return ("abort upload", done(service.abort_upload(abort).await));
                }
                let complete = CompleteUpload {
                    actor,
                    bucket,
                    key,
                    upload: id,
                    parts: (1..=parts).map(|number| CompletedPart { number, md5: md5_of(number) }).collect(),
                    etag: text("made of parts"),
                    checksums: Vec::new(),
                    condition: WriteCondition::default(),
                    commit,
                };
                ("complete upload", done(service.complete_upload(complete).await))
            }
            _ => ("put", done(service.put_object(world.put(a, bucket, at, 7)).await)),
        }
    }

    async fn in_buckets(&mut self, world: &World) -> (&'static str, Result<(), MetadataError>) {
        let (a, service) = (&world.a, &world.fixture.service);
        let (bucket, name) = self.bucket();
        match self.random.below(8) {
            _ if self.buckets.len() < 2 => self.new_bucket(world).await,
            0 | 1 if self.buckets.len() < BUCKETS_MAX => self.new_bucket(world).await,
            2 => {
                let request = DeleteBucket { actor: a.actor.clone(), bucket, commit: CommitId::random() };
                let deleted = service.delete_bucket(request).await;
                if deleted.is_ok() {
                    self.buckets.retain(|(_, other)| *other != name);
                }
                ("delete bucket", done(deleted))
            }
            3 => {
                let versioning = if self.random.one_in(3) { Versioning::Suspended } else { Versioning::Enabled };
                ("versioning", done(world.change(a, bucket, BucketChange::Versioning(versioning)).await))
            }
            4 => {
                let period = RetentionPeriod::Days(1 + self.random.below(3) as u32);
                let default = Some(DefaultRetention { mode: RetentionMode::Governance, period });
                let default = default.filter(|_| self.random.one_in(4));
                ("object lock", done(world.change(a, bucket, BucketChange::ObjectLock(ObjectLock { default })).await))
            }
            5 => ("lifecycle", done(world.change(a, bucket, BucketChange::SetDocument(lifecycle(""))).await)),
            6 => {
                let kind = BucketDocumentKind::ALL[self.random.below(BucketDocumentKind::ALL.len())];
                ("remove document", done(world.change(a, bucket, BucketChange::RemoveDocument(kind)).await))
            }
            _ => {
                let kinds: Vec<_> =
                    BucketDocumentKind::ALL.into_iter().filter(|kind| *kind != BucketDocumentKind::Lifecycle).collect();
                let kind = self.random.of(&kinds).unwrap();
                let document = BucketDocument { kind, body: self.made.to_string().into_bytes() };
                ("set document", done(world.change(a, bucket, BucketChange::SetDocument(document)).await))
            }
        }
    }

    async fn new_bucket(&mut self, world: &World) -> (&'static str, Result<(), MetadataError>) {
        let name = format!("a-{}", self.made);
        let bucket = world.make_bucket(&world.a, &name, self.random.one_in(4)).await;
        if let Ok(bucket) = &bucket {
            self.buckets.push((bucket.id, name));
        }
        ("make bucket", done(bucket))
    }

    async fn in_project(&mut self, world: &World) -> (&'static str, Result<(), MetadataError>) {
        let (a, service) = (&world.a, &world.fixture.service);
        let nothing = ProjectChanges::default();
        let bucket = self.bucket().0;
        match self.random.below(18) {
            0 => {
                let bytes = Some(self.random.next() % (500 << 20)).filter(|_| self.random.one_in(2));
                let objects = Some(self.random.next() % 500).filter(|_| self.random.one_in(3));
                let changes = ProjectChanges { quota: Some(Quota { bytes, objects }), ..nothing };
                ("quota", done(world.limit(a.person(true), a.project, changes).await))
            }
            1 | 2 => {
                let until = match self.random.below(8) {
                    0 => Some(TimestampMicros(7)),
                    1 | 2 => Some(world.now().plus_secs(YEAR_SECS)),
                    _ => None,
                };
                let changes = ProjectChanges { paid_until: Some(PaidUntil { until }), ..nothing };
                ("paid until", done(world.limit(a.person(true), a.project, changes).await))
            }
            3 => {
                let changes = ProjectChanges { note: Some(format!("note {}", self.made)), ..nothing };
                ("details", done(world.limit(a.person(true), a.project, changes).await))
            }
            4 if self.made > CHANGES / 3 => ("govern", done(world.govern(a, "alice").await)),
            5 | 6 => {
                let user = self.random.of(&["anna", "carl", "bill"]).unwrap();
                if self.random.one_in(3) {
                    let (by, commit) = (a.person(true), CommitId::random());
                    let request = RemoveMember { by, project: a.project, user_name: text(user), commit };
                    return ("remove member", done(service.remove_member(request).await));
                }
                let roles = Role::ALL.into_iter().filter(|_| self.random.one_in(2)).collect();
                ("set member", done(world.member(a, a.project, user, roles).await))
            }
            7 => {
                let whole = self.random.one_in(6);
                let prefix: &[u8] = if whole { b"" } else { b"z" };
                let hold = world.hold(a, Some(bucket).filter(|_| !whole), prefix).await;
                if let Ok(hold) = &hold {
                    self.holds.push(hold.id);
                }
                ("hold", done(hold))
            }
            8 | 9 => {
                let Some(hold) = self.holds.pop() else { return ("release", Err(MetadataError::Conflict)) };
                let (actor, reason, commit) = (a.actor.clone(), text("closed"), CommitId::random());
                let request = ReleaseHold { actor, project: a.project, hold, reason, commit };
                ("release", done(service.release_hold(request).await))
            }
            10 => {
                let days = if self.random.one_in(5) { 2 } else { 0 };
                ("class", world.class(a, days, &format!("class {}", self.made)).await)
            }
            11 => {
                let key = AccessKeyId::new(format!("AKEY{}", self.made)).unwrap();
                let request = CreateAccessKey {
                    user_name: text("alice"),
                    project_name: Some(a.name.clone()),
                    namespace_name: String::new(),
                    id: key.clone(),
                    secret: Secret::new(b"a secret".to_vec()),
                    commit: CommitId::random(),
                    by: Some(a.person(true)),
                };
                let made = service.create_access_key(request).await;
                if made.is_ok() {
                    self.keys.push(key);
                }
                ("make key", done(made))
            }
            12 if !self.keys.is_empty() => {
                let (index, commit) = (self.random.below(self.keys.len()), CommitId::random());
                if self.random.one_in(2) {
                    let id = self.keys.swap_remove(index);
                    return ("delete key", done(service.delete_access_key(DeleteAccessKey { id, commit }).await));
                }
                let state = if self.random.one_in(2) { KeyState::Enabled } else { KeyState::Disabled };
                let request = UpdateAccessKey { id: self.keys[index].clone(), state, commit };
                ("change key", done(service.update_access_key(request).await))
            }
            13 => {
                let name = format!("temp-{}", self.made);
                let new = EnsurePrincipal { project_name: a.name.clone(), ..principal(&name) };
                let made = service.ensure_principal(new).await;
                if made.is_ok() {
                    self.users.push(name);
                }
                ("make user", done(made))
            }
            14 => {
                if let (true, Some(user_name)) = (self.random.one_in(2), self.users.pop()) {
                    let request = DeleteUser { user_name, commit: CommitId::random() };
                    return ("delete user", done(service.delete_user(request).await));
                }
                let request = UpdateUser {
                    user_name: text("anna"),
                    display_name: Some(format!("Anna {}", self.made)),
                    email: Some(format!("anna-{}@example.org", self.made)),
                    project_name: None,
                    commit: CommitId::random(),
                };
                ("change user", done(service.update_user(request).await))
            }
            15 => ("rotate", done(service.rotate_project_key(&a.actor).await)),
            16 => {
                let anna = service.get_user(GetUser::Name(text("anna"))).await.unwrap().id;
                if let (true, Some(proposal)) = (self.random.one_in(2), self.proposals.pop()) {
                    let by = Person { actor: actor(a.project, anna), is_operator: true };
                    return ("answer", done(world.answer(by, a.project, proposal).await));
                }
                let proposal = world.propose(a, a.project, anna).await;
                if let Ok(proposal) = &proposal {
                    self.proposals.push(proposal.id);
                }
                ("propose", done(proposal))
            }
            // What runs in the background runs for all projects.
            _ => match self.random.below(3) {
                0 => ("purge", done(service.purge_trash().await)),
                1 => ("rotation goes on", done(service.advance_rotations().await)),
                _ => ("lifecycle runs", done(service.run_lifecycle(world.now()).await)),
            },
        }
    }

    async fn in_openings(&mut self, world: &World) -> (&'static str, Result<(), MetadataError>) {
        let (a, service) = (&world.a, &world.fixture.service);
        let name = self.bucket().1;
        let zones = ["a-zone-0", "a-zone-1", "a-zone-2"];
        let zone = self.random.of(&zones).unwrap();
        match self.random.below(10) {
            0..=4 => {
                let to = match self.random.below(5) {
                    0 | 1 => OpeningTo::User(text("carl")),
                    2 => OpeningTo::Project(text("project of carl")),
                    3 => OpeningTo::Public(text("elsewhere")),
                    _ => OpeningTo::Public(String::new()),
                };
                let alias = Some(format!("a-alias-{}", self.random.below(5))).filter(|_| self.random.one_in(2));
                let bucket = Some(name).filter(|_| alias.is_some() || !self.random.one_in(5));
                let zones = if self.random.one_in(3) { vec![text(zone)] } else { Vec::new() };
                let opening = world.open(a, a.project, bucket, to, alias, zones).await;
                if let Ok(opening) = &opening {
                    self.openings.push(opening.id);
                }
                ("open", done(opening))
            }
            5 | 6 if !self.openings.is_empty() => {
                let opening = self.openings.swap_remove(self.random.below(self.openings.len()));
                ("revoke", done(world.revoke(a, a.project, opening).await))
            }
            7 if !self.openings.is_empty() => {
                let opening = self.random.of(&self.openings).unwrap();
                let request = DrawOpeningBudget { project: a.project, opening, want_bytes: 1000, give_back_bytes: 0 };
                ("draw", done(service.draw_opening_budget(request).await))
            }
            8 => {
                let (actor, commit) = (a.actor.clone(), CommitId::random());
                ("remove zone", done(service.remove_zone(RemoveZone { actor, name: text(zone), commit }).await))
            }
            _ => ("zone", done(world.zone(a, zone).await)),
        }
    }

    /// A's people try their hands at what is B's: all of it is refused.
    async fn reach_out(&mut self, world: &World, held: &Held) -> Option<(&'static str, Result<(), MetadataError>)> {
        let (a, b, service) = (&world.a, &world.b, &world.fixture.service);
        let (bucket, _) = self.random.of(&self.buckets)?;
        let carl = || OpeningTo::User(text("carl"));
        let own = self.random.of(&self.buckets).map(|(_, name)| name);
        let commit = CommitId::random();
        Some(match self.random.below(16) {
            0 => ("a name of B", done(world.make_bucket(a, "b-plain", false).await)),
            1 => ("an alias of B", {
                let to = OpeningTo::Public(String::new());
                done(world.open(a, a.project, own, to, Some(text("b-locked")), Vec::new()).await)
            }),
            2 => ("an alias that B gave", {
                done(world.open(a, a.project, own, carl(), Some(text("b-plain")), Vec::new()).await)
            }),
            3 => ("open a bucket of B", {
                done(world.open(a, a.project, Some(text("b-plain")), carl(), None, Vec::new()).await)
            }),
            4 => ("open for B", done(world.open(a, b.project, Some(text("b-plain")), carl(), None, Vec::new()).await)),
            5 => ("revoke for B", done(world.revoke(a, b.project, held.opening).await)),
            6 => ("revoke of B", done(world.revoke(a, a.project, held.opening).await)),
            7 => ("hold a bucket of B", done(world.hold(a, Some(held.plain), b"").await)),
            8 => ("release of B", {
                let (actor, reason) = (a.actor.clone(), text("closed"));
                let request = ReleaseHold { actor, project: a.project, hold: held.hold, reason, commit };
                done(service.release_hold(request).await)
            }),
            9 => ("join B", done(world.member(a, b.project, "alice", Roles::NONE.with(Role::Controller)).await)),
            10 => ("say of B", {
                let changes = ProjectChanges { note: Some(text("ours")), ..ProjectChanges::default() };
                done(world.limit(a.person(true), b.project, changes).await)
            }),
            11 => ("dispose of B", {
                let request = ProposeDisposal {
                    actor: a.actor.clone(),
                    project: a.project,
                    bucket: held.plain,
                    prefix: Vec::new(),
                    reason: text("end of study"),
                    reference: text("board 4/36"),
                    disposal: DisposalId::random(),
                };
                done(service.propose_disposal(request).await)
            }),
            12 => ("answer for B", done(world.answer(a.person(false), b.project, held.proposal).await)),
            13 => ("a key of B", {
                let request = CreateAccessKey {
                    user_name: text("alice"),
                    project_name: Some(a.name.clone()),
                    namespace_name: String::new(),
                    id: id("KEY-beth"),
                    secret: Secret::new(b"another secret".to_vec()),
                    commit,
                    by: Some(a.person(true)),
                };
                done(service.create_access_key(request).await)
            }),
            14 => ("a key into B", {
                let request = CreateAccessKey {
                    user_name: text("alice"),
                    project_name: Some(b.name.clone()),
                    namespace_name: String::new(),
                    id: id("KEY-into-b"),
                    secret: Secret::new(b"another secret".to_vec()),
                    commit,
                    by: Some(a.person(true)),
                };
                done(service.create_access_key(request).await)
            }),
            _ => ("an upload of B in another bucket", {
                let (upload, actor) = (&held.uploads[1], a.actor.clone());
                let (key, upload) = (upload.key.clone(), upload.id);
                done(service.abort_upload(AbortUpload { actor, bucket, key, upload, commit }).await)
            }),
        })
    }
}

#[test]
fn nothing_done_in_one_project_changes_what_another_sees() {
    let random = u64::from_be_bytes(*CommitId::random().as_bytes().first_chunk().unwrap());
    let seed = std::env::var(SEED).map_or(random, |seed| seed.parse().unwrap());
    println!("{SEED}={seed}");
    block_on(async {
        let world = World::new().await;
        let held = world.furnish_b().await;
        let before = View::of(&world, &held).await;
        View::of(&world, &held).await.assert_is(&before, "asking changes what is asked");
        assert!(before.0.values().filter(|answer| answer.starts_with("Err")).count() > 30);
        assert!(before.0.values().filter(|answer| answer.starts_with("Ok")).count() > 100);
        for question in ["fill up", "make own", "suspend", "no controller", "operator", "put anew"] {
            assert!(before.0[question].starts_with("Err"), "{question}: {}", before.0[question]);
        }
        let mut changes = Changes::new(seed);
        for number in 1..=CHANGES {
            changes.make_one(&world, &held).await;
            if number % VIEW_EVERY == 0 {
                let when = format!("seed {seed}, after {number} changes, of which succeeded {:?}", changes.done);
                View::of(&world, &held).await.assert_is(&before, &when);
            }
        }
        let all: usize = changes.done.values().sum();
        assert!(all >= DONE_MIN, "seed {seed}: {all} changes were made: {:?}", changes.done);
        // Each kind was made at least once, or the property says less than it seems to.
        let never: Vec<_> = [
            "put",
            "put inline",
            "delete",
            "delete version",
            "copy",
            "tag",
            "begin upload",
            "put part",
            "make bucket",
            "versioning",
            "lifecycle",
            "set document",
            "quota",
            "paid until",
            "hold",
            "release",
            "class",
            "make key",
            "make user",
            "change user",
            "open",
            "revoke",
            "zone",
            "rotate",
            "govern",
            "set member",
            "propose",
        ]
        .into_iter()
        .filter(|what| !changes.done.contains_key(what))
        .collect();
        assert!(never.is_empty(), "seed {seed}: never {never:?}; {:?}", changes.done);
    });
}

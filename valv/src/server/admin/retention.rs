//! Retention classes, legal holds, disposal, trash and manifests.

mod manifest;

use super::error::refused;
use super::{AdminState, Caller};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use valv_ledger::statement::StatementKind;
use valv_metadata::MetadataService;
use valv_metadata_api::*;
use valv_proto::admin::v1 as wire;
use valv_proto::admin::v1::retention_server::Retention as RetentionApi;
use valv_types::{BucketId, CommitId, DisposalId, HoldId, ProjectId, TimestampMicros, UserId, VersionId};

/// Who decides on retention, holds and disposal.
const DECIDERS: &[Role] = &[Role::Controller];
/// Who looks after the data: trash and manifests.
const STEWARDS: &[Role] = &[Role::Controller, Role::Steward];
/// Who may see what was decided.
const WITNESSES: &[Role] = &[Role::Controller, Role::Steward, Role::Auditor];
/// Entries of a page of trash: some 1.3 KiB at most each, far below a message's bound.
const TRASH_PAGE: u32 = 1_000;

/// Answers from this process's metadata service.
pub(super) struct Retaining(pub(super) Arc<AdminState>);

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Retaining {
    /// The project, once the caller may act there in one of these roles.
    async fn project(&self, caller: &Caller, name: &str, roles: &[Role]) -> Result<ProjectId, Status> {
        Ok(self.0.require(caller, name, roles).await?.id)
    }

    /// The project's bucket of this name.
    async fn bucket(&self, project: ProjectId, name: &str) -> Result<BucketId, Status> {
        let list = ListBuckets { project, prefix: name.to_owned(), after: None, limit: u32::MAX, opened_to: None };
        let buckets = self.0.metadata()?.list_buckets(list).await.map_err(refused)?;
        let found = buckets.into_iter().find(|bucket| bucket.name == name);
        found.map(|bucket| bucket.id).ok_or_else(|| Status::not_found(format!("the project has no bucket {name:?}")))
    }

    async fn names(&self, project: ProjectId) -> Result<Names, Status> {
        let list = ListBuckets { project, prefix: String::new(), after: None, limit: u32::MAX, opened_to: None };
        let service = self.0.metadata()?.clone();
        let buckets = service.list_buckets(list).await.map_err(refused)?;
        let buckets = buckets.into_iter().map(|bucket| (bucket.id, bucket.name)).collect();
        Ok(Names { service, buckets, users: HashMap::new() })
    }
}

/// Names of buckets and users, for answers that show them.
struct Names {
    service: Arc<MetadataService>,
    buckets: HashMap<BucketId, String>,
    users: HashMap<UserId, String>,
}

impl Names {
    /// A bucket's name; a deleted one's is told by its id.
    fn bucket(&self, id: BucketId) -> String {
        self.buckets.get(&id).cloned().unwrap_or_else(|| format!("(deleted bucket {id})"))
    }

    /// A user's name; a deleted one's is told by the id.
    async fn user(&mut self, id: Option<UserId>) -> Result<String, Status> {
        let Some(id) = id else { return Ok(String::new()) };
        if let Some(name) = self.users.get(&id) {
            return Ok(name.clone());
        }
        let name = match self.service.get_user(GetUser::Id(id)).await {
            Ok(user) => user.name,
            Err(MetadataError::NoSuchUser) => format!("(deleted user {id})"),
            Err(error) => return Err(refused(error)),
        };
        self.users.insert(id, name.clone());
        Ok(name)
    }

    async fn hold(&mut self, hold: Hold) -> Result<wire::LegalHold, Status> {
        Ok(wire::LegalHold {
            id: hold.id.to_string(),
            bucket: hold.scope.bucket.map(|bucket| self.bucket(bucket)).unwrap_or_default(),
            prefix: hold.scope.prefix.into(),
            set_micros: hold.set.0,
            by: self.user(hold.by).await?,
            reason: hold.reason,
            reference: hold.reference,
        })
    }

    async fn disposal(&mut self, disposal: Disposal) -> Result<wire::DisposalMessage, Status> {
        let mut deciders = Vec::with_capacity(disposal.deciders.len());
        for user in disposal.deciders {
            deciders.push(self.user(Some(user)).await?);
        }
        Ok(wire::DisposalMessage {
            id: disposal.id.to_string(),
            bucket: self.bucket(disposal.bucket),
            prefix: disposal.prefix.into(),
            state: disposal.state.name().to_owned(),
            proposer: self.user(disposal.proposer).await?,
            proposed_micros: disposal.proposed.0,
            reason: disposal.reason,
            reference: disposal.reference,
            versions: disposal.listed.versions,
            bytes: disposal.listed.bytes,
            kept: disposal.listed.kept,
            digest: disposal.listed.digest.to_vec().into(),
            retention_ended_micros: disposal.listed.retention_ended.map_or(0, |time| time.0),
            deciders,
            removed: disposal.removed,
            removed_bytes: disposal.removed_bytes,
            refused: disposal.refused,
            gone: disposal.gone,
            markers: disposal.markers,
            ended_micros: disposal.ended.map_or(0, |time| time.0),
        })
    }
}

#[allow(clippy::result_large_err, reason = "tonic's error type")]
fn id<I: std::str::FromStr>(text: &str, what: &str) -> Result<I, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("{what} has 32 hexadecimal digits, not {text:?}")))
}

fn class_message(class: ProjectRetention) -> wire::RetentionClass {
    wire::RetentionClass {
        default_days: class.default_days,
        minimum_days: class.minimum_days,
        lifecycle_disposal: class.lifecycle_disposal,
        class: class.class,
    }
}

#[tonic::async_trait]
impl RetentionApi for Retaining {
    async fn get_retention(
        &self,
        request: Request<wire::GetRetentionRequest>,
    ) -> Result<Response<wire::RetentionClass>, Status> {
        let project = self.project(&Caller::of(&request)?, &request.get_ref().project, WITNESSES).await?;
        let class = self.0.metadata()?.project_retention(project).await.map_err(refused)?;
        Ok(Response::new(class_message(class)))
    }

    async fn set_retention(
        &self,
        request: Request<wire::SetRetentionRequest>,
    ) -> Result<Response<wire::SetRetentionReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.project(&caller, &request.project, DECIDERS).await?;
        let class = request.retention.ok_or_else(|| Status::invalid_argument("no retention class was given"))?;
        let retention = ProjectRetention {
            default_days: class.default_days,
            minimum_days: class.minimum_days,
            lifecycle_disposal: class.lifecycle_disposal,
            class: class.class,
        };
        let service = self.0.metadata()?;
        let old = service.project_retention(project).await.map_err(refused)?;
        if request.propose && old.is_lowered_by(&retention) {
            let propose = ProposeAct {
                act: Act::LowerRetention(LowerRetention { project, retention }),
                by: caller.person(project),
                reason: request.reason,
                reference: request.reference,
                commit: CommitId::random(),
            };
            let proposal = service.propose_act(propose).await.map_err(refused)?;
            let retention = Some(class_message(old));
            return Ok(Response::new(wire::SetRetentionReply { retention, proposal: proposal.id.to_string() }));
        }
        let set = SetProjectRetention {
            actor: caller.actor(project),
            project,
            retention: retention.clone(),
            reason: request.reason,
            commit: CommitId::random(),
        };
        service.set_project_retention(set).await.map_err(refused)?;
        let retention = Some(class_message(retention));
        Ok(Response::new(wire::SetRetentionReply { retention, proposal: String::new() }))
    }

    type ExtendRetentionStream = Streamed<wire::ExtendRetentionProgress>;

    async fn extend_retention(
        &self,
        request: Request<wire::ExtendRetentionRequest>,
    ) -> Result<Response<Self::ExtendRetentionStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.project(&caller, &request.project, DECIDERS).await?;
        let bucket = self.bucket(project, &request.bucket).await?;
        let prefix = request.prefix.to_vec();
        let which = if request.version.is_empty() {
            ExtendWhich::Prefix(prefix)
        } else {
            let key = ObjectKey::new(prefix).ok_or_else(|| Status::invalid_argument("a version needs its key"))?;
            ExtendWhich::Version(key, id(&request.version, "a version id")?)
        };
        let extend = ExtendRetention {
            actor: caller.actor(project),
            bucket,
            which,
            until: TimestampMicros(request.until_micros),
            reason: request.reason,
            after: None,
        };
        let service = self.0.metadata()?.clone();
        // The first page here: what is refused is refused before anything streams.
        let first = service.extend_retention(extend.clone()).await.map_err(refused)?;
        let pages = futures_util::stream::try_unfold(
            (service, extend, Some(first), wire::ExtendRetentionProgress::default()),
            |(service, extend, done, mut progress)| async move {
                if progress.finished {
                    return Ok(None);
                }
                let done = match done {
                    Some(done) => done,
                    None => service.extend_retention(extend.clone()).await.map_err(refused)?,
                };
                progress.extended += done.extended;
                progress.unchanged += done.unchanged;
                progress.finished = done.next.is_none();
                let extend = ExtendRetention { after: done.next, ..extend };
                Ok::<_, Status>(Some((progress, (service, extend, None, progress))))
            },
        );
        Ok(Response::new(Box::pin(pages)))
    }

    async fn set_hold(&self, request: Request<wire::SetHoldRequest>) -> Result<Response<wire::LegalHold>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.project(&caller, &request.project, DECIDERS).await?;
        let bucket = match request.bucket.is_empty() {
            true => None,
            false => Some(self.bucket(project, &request.bucket).await?),
        };
        let set = SetHold {
            actor: caller.actor(project),
            project,
            scope: RetentionScope { bucket, prefix: request.prefix.to_vec() },
            reason: request.reason,
            reference: request.reference,
            commit: CommitId::random(),
        };
        let hold = self.0.metadata()?.set_hold(set).await.map_err(refused)?;
        Ok(Response::new(self.names(project).await?.hold(hold).await?))
    }

    async fn release_hold(
        &self,
        request: Request<wire::ReleaseHoldRequest>,
    ) -> Result<Response<wire::LegalHold>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.project(&caller, &request.project, DECIDERS).await?;
        let release = ReleaseHold {
            actor: caller.actor(project),
            project,
            hold: id::<HoldId>(&request.hold, "a hold's id")?,
            reason: request.reason,
            commit: CommitId::random(),
        };
        let hold = self.0.metadata()?.release_hold(release).await.map_err(refused)?;
        Ok(Response::new(self.names(project).await?.hold(hold).await?))
    }

    async fn list_holds(
        &self,
        request: Request<wire::ListHoldsRequest>,
    ) -> Result<Response<wire::ListHoldsReply>, Status> {
        let project = self.project(&Caller::of(&request)?, &request.get_ref().project, WITNESSES).await?;
        let mut names = self.names(project).await?;
        let mut holds = Vec::new();
        for hold in self.0.metadata()?.list_holds(project).await.map_err(refused)? {
            holds.push(names.hold(hold).await?);
        }
        Ok(Response::new(wire::ListHoldsReply { holds }))
    }

    async fn propose_disposal(
        &self,
        request: Request<wire::ProposeDisposalRequest>,
    ) -> Result<Response<wire::DisposalMessage>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.project(&caller, &request.project, DECIDERS).await?;
        if caller.user.is_none() {
            // The proposal would be refused for it, and a list be made in vain.
            return Err(refused(ApprovalRefusal::NobodyKnown.into()));
        }
        let bucket = self.bucket(project, &request.bucket).await?;
        let disposal = DisposalId::random();
        let propose = ProposeDisposal {
            actor: caller.actor(project),
            project,
            bucket,
            prefix: request.prefix.to_vec(),
            reason: request.reason.clone(),
            reference: request.reference.clone(),
            disposal,
        };
        let service = self.0.metadata()?;
        let listed = service.propose_disposal(propose).await.map_err(refused)?;
        let propose = ProposeAct {
            act: Act::Dispose(Dispose { project, disposal }),
            by: caller.person(project),
            reason: request.reason,
            reference: request.reference,
            // The proposal's id is the disposal's.
            commit: CommitId::from_bytes(*disposal.as_bytes()),
        };
        service.propose_act(propose).await.map_err(refused)?;
        Ok(Response::new(self.names(project).await?.disposal(listed).await?))
    }

    async fn get_disposal(
        &self,
        request: Request<wire::GetDisposalRequest>,
    ) -> Result<Response<wire::DisposalMessage>, Status> {
        let project = self.project(&Caller::of(&request)?, &request.get_ref().project, WITNESSES).await?;
        let disposal = id(&request.get_ref().disposal, "a disposal's id")?;
        let disposal = self.0.metadata()?.disposal(project, disposal).await.map_err(refused)?;
        Ok(Response::new(self.names(project).await?.disposal(disposal).await?))
    }

    async fn list_disposals(
        &self,
        request: Request<wire::ListDisposalsRequest>,
    ) -> Result<Response<wire::ListDisposalsReply>, Status> {
        let project = self.project(&Caller::of(&request)?, &request.get_ref().project, WITNESSES).await?;
        let mut names = self.names(project).await?;
        let mut disposals = Vec::new();
        for disposal in self.0.metadata()?.disposals(project).await.map_err(refused)? {
            disposals.push(names.disposal(disposal).await?);
        }
        Ok(Response::new(wire::ListDisposalsReply { disposals }))
    }

    type ListDisposalEntriesStream = Streamed<wire::ExportedBytes>;

    async fn list_disposal_entries(
        &self,
        request: Request<wire::GetDisposalRequest>,
    ) -> Result<Response<Self::ListDisposalEntriesStream>, Status> {
        let project = self.project(&Caller::of(&request)?, &request.get_ref().project, WITNESSES).await?;
        let disposal: DisposalId = id(&request.get_ref().disposal, "a disposal's id")?;
        let service = self.0.metadata()?.clone();
        service.disposal(project, disposal).await.map_err(refused)?;
        let pages = futures_util::stream::try_unfold((service, 0), move |(service, page)| async move {
            let entries = service.disposal_list(project, disposal, page).await.map_err(refused)?;
            let Some(entries) = entries else { return Ok(None) };
            let mut lines = Vec::new();
            for entry in &entries {
                let mut line = serde_json::Map::new();
                manifest::put_key(&mut line, entry.key.as_bytes());
                line.insert("version".to_owned(), entry.version.to_string().into());
                line.insert("size".to_owned(), entry.len_bytes.into());
                lines.extend_from_slice(serde_json::Value::Object(line).to_string().as_bytes());
                lines.push(b'\n');
            }
            Ok::<_, Status>(Some((wire::ExportedBytes { json_lines: lines.into() }, (service, page + 1))))
        });
        Ok(Response::new(Box::pin(pages)))
    }

    async fn get_disposal_receipt(
        &self,
        request: Request<wire::GetDisposalRequest>,
    ) -> Result<Response<wire::DisposalReceipt>, Status> {
        let project = self.project(&Caller::of(&request)?, &request.get_ref().project, WITNESSES).await?;
        let disposal = id(&request.get_ref().disposal, "a disposal's id")?;
        let service = self.0.metadata()?;
        let disposal = service.disposal(project, disposal).await.map_err(refused)?;
        if disposal.state != DisposalState::Done {
            let said = format!("a receipt is for a disposal that is done; this one is {}", disposal.state.name());
            return Err(Status::failed_precondition(said));
        }
        let mut facts = valv_metadata::disposal_facts(&disposal);
        facts["bucket_name"] = self.names(project).await?.bucket(disposal.bucket).into();
        let signed = service.statement(StatementKind::DisposalReceipt, project, facts).await.map_err(refused)?;
        Ok(Response::new(wire::DisposalReceipt { line: signed.to_line() }))
    }

    async fn list_trash(
        &self,
        request: Request<wire::ListTrashRequest>,
    ) -> Result<Response<wire::ListTrashReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.project(&caller, &request.project, STEWARDS).await?;
        let bucket = match request.bucket.is_empty() {
            true => None,
            false => Some(self.bucket(project, &request.bucket).await?),
        };
        let after = match request.after.is_empty() {
            true => None,
            false => Some(place_of(&request.after).ok_or_else(|| Status::invalid_argument("no place in the trash"))?),
        };
        let list = ListTrash { project, bucket, prefix: request.prefix.to_vec(), after, limit: TRASH_PAGE };
        let page = self.0.metadata()?.list_trash(list).await.map_err(refused)?;
        let mut names = Names { service: self.0.metadata()?.clone(), buckets: HashMap::new(), users: HashMap::new() };
        let mut versions = Vec::with_capacity(page.entries.len());
        for entry in page.entries {
            versions.push(wire::TrashedVersion {
                version: entry.place.version.to_string(),
                due_micros: entry.place.due.0,
                bucket: entry.bucket_name.unwrap_or_default(),
                key: entry.key.as_bytes().to_vec().into(),
                len_bytes: entry.len_bytes,
                written_micros: entry.written.0,
                removed_micros: entry.removed.0,
                by: names.user(entry.by).await?,
                is_null: entry.is_null,
            });
        }
        let next = page.next.map(place_bytes).unwrap_or_default();
        Ok(Response::new(wire::ListTrashReply { versions, next: next.into() }))
    }

    async fn restore_version(
        &self,
        request: Request<wire::RestoreVersionRequest>,
    ) -> Result<Response<wire::RestoreVersionReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.project(&caller, &request.project, STEWARDS).await?;
        let version: VersionId = id(&request.version, "a version id")?;
        let (service, actor) = (self.0.metadata()?, caller.actor(project));
        let restored = match request.due_micros {
            0 => service.undelete(&actor, version).await,
            due => service.undelete_at(&actor, TrashPlace { due: TimestampMicros(due), version }).await,
        };
        restored.map_err(|error| match error {
            MetadataError::NoSuchVersion => Status::not_found("the trash has no such version of this project"),
            MetadataError::NoSuchBucket => {
                Status::failed_precondition("its bucket is deleted: nothing can go back there")
            }
            MetadataError::InvalidBucketState => Status::failed_precondition(
                "its key has another null version by now: enable versioning, write that one anew, and try again",
            ),
            other => refused(other),
        })?;
        Ok(Response::new(wire::RestoreVersionReply {}))
    }

    type ExportManifestStream = Streamed<wire::ExportedBytes>;

    async fn export_manifest(
        &self,
        request: Request<wire::ExportManifestRequest>,
    ) -> Result<Response<Self::ExportManifestStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.project(&caller, &request.project, STEWARDS).await?;
        let bucket = self.bucket(project, &request.bucket).await?;
        Ok(Response::new(Box::pin(manifest::export(self.0.metadata()?.clone(), project, bucket, request)?)))
    }
}

fn place_bytes(place: TrashPlace) -> Vec<u8> {
    [place.due.0.to_be_bytes().as_slice(), place.version.as_bytes()].concat()
}

fn place_of(bytes: &[u8]) -> Option<TrashPlace> {
    let due = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    Some(TrashPlace { due: TimestampMicros(due), version: VersionId::from_slice(bytes.get(8..)?).ok()? })
}

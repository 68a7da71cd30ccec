//! The root key's seal, and keys that are replaced.

use super::error::refused;
use super::{AdminState, Caller};
use crate::server::sealed::SealView;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use valv_metadata::{KeyVersion, Rotation};
use valv_metadata_api::{
    Act, GetBucket, GetProject, Metadata as _, ObjectKey, ProposeAct, Role, ShredObject, ShredProject,
};
use valv_proto::admin::v1 as wire;
use valv_proto::admin::v1::keys_server::Keys;
use valv_types::CommitId;
use zeroize::Zeroizing;

/// Answers while the server is sealed, too.
pub(super) struct KeysService(pub(super) Arc<AdminState>);

impl KeysService {
    fn status(&self, view: SealView) -> wire::SealStatusReply {
        wire::SealStatusReply {
            sealed: view.is_sealed,
            method: view.method.to_owned(),
            threshold: view.threshold,
            shares_given: view.given,
            set: view.set,
            root_version: self.0.metadata.as_ref().map_or(0, |metadata| metadata.keys().root_version()),
        }
    }
}

#[tonic::async_trait]
impl Keys for KeysService {
    async fn seal_status(
        &self,
        request: Request<wire::SealStatusRequest>,
    ) -> Result<Response<wire::SealStatusReply>, Status> {
        Caller::of(&request)?.require_operator()?;
        Ok(Response::new(self.status(self.0.seal.view())))
    }

    async fn submit_share(
        &self,
        request: Request<wire::SubmitShareRequest>,
    ) -> Result<Response<wire::SealStatusReply>, Status> {
        let caller = Caller::of(&request)?;
        caller.require_operator()?;
        let share = Zeroizing::new(request.into_inner().share);
        let view = self.0.seal.submit(&share).map_err(|error| match error {
            crate::server::sealed::SubmitError::NotSealed => Status::failed_precondition(error.to_string()),
            crate::server::sealed::SubmitError::Share(_) | crate::server::sealed::SubmitError::Wrong => {
                Status::invalid_argument(error.to_string())
            }
        })?;
        tracing::info!(%caller, "a share was given");
        Ok(Response::new(self.status(view)))
    }

    async fn rotate_root_key(
        &self,
        request: Request<wire::RotateRootKeyRequest>,
    ) -> Result<Response<wire::RotateRootKeyReply>, Status> {
        let caller = Caller::of(&request)?;
        caller.require_operator()?;
        let service = self.0.metadata()?.clone();
        let root_version = service.rotate_root_key(&caller.actor(valv_types::ProjectId::CLUSTER)).await;
        let root_version = root_version.map_err(refused)?;
        Ok(Response::new(wire::RotateRootKeyReply { root_version }))
    }

    type RotateProjectKeyStream = Pin<Box<dyn Stream<Item = Result<wire::KeyRotation, Status>> + Send>>;

    async fn rotate_project_key(
        &self,
        request: Request<wire::RotateProjectKeyRequest>,
    ) -> Result<Response<Self::RotateProjectKeyStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.0.require(&caller, &request.project, &[Role::Controller]).await?.id;
        let service = self.0.metadata()?.clone();
        let begun = service.rotate_project_key(&caller.actor(project)).await.map_err(refused)?;
        if request.detach || begun.ended.is_some() {
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(rotation_message(&begun))))));
        }
        let (sender, progress) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let step = service.project_keys(project).await.map_err(refused);
                let rotation = step.map(|keys| keys.rotation);
                let has_ended = !matches!(&rotation, Ok(Some(rotation)) if rotation.ended.is_none());
                let message = rotation.map(|rotation| rotation_message(&rotation.unwrap_or_else(|| begun.clone())));
                // Without a listener, background work goes on by itself.
                if sender.send(message).await.is_err() || has_ended {
                    return;
                }
                tokio::time::sleep(PROGRESS_EVERY).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(progress))))
    }

    async fn get_project_keys(
        &self,
        request: Request<wire::GetProjectKeysRequest>,
    ) -> Result<Response<wire::ProjectKeys>, Status> {
        let caller = Caller::of(&request)?;
        let roles = [Role::Controller, Role::Steward, Role::Auditor];
        let project = self.0.require(&caller, &request.into_inner().project, &roles).await?.id;
        let keys = self.0.metadata()?.project_keys(project).await.map_err(refused)?;
        let version = |key: &KeyVersion| wire::ProjectKeyVersion {
            version: key.version,
            created_micros: key.created.0,
            fingerprint: key.fingerprint.clone(),
        };
        Ok(Response::new(wire::ProjectKeys {
            versions: keys.versions.iter().map(version).collect(),
            rotation: keys.rotation.as_ref().map(rotation_message),
        }))
    }

    async fn propose_shredding(
        &self,
        request: Request<wire::ProposeShreddingRequest>,
    ) -> Result<Response<wire::Proposal>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let metadata = self.0.metadata()?;
        let found = metadata.get_project(GetProject::Name(request.project.clone())).await.map_err(refused)?;
        let project = found.id;
        let act = if request.bucket.is_empty() && request.key.is_empty() && request.version.is_empty() {
            Act::ShredProject(ShredProject { project })
        } else {
            let get = GetBucket { namespace: found.namespace, name: request.bucket };
            let bucket = metadata.get_bucket(get).await.map_err(refused)?;
            let key =
                ObjectKey::new(request.key.to_vec()).ok_or_else(|| Status::invalid_argument("the key is empty"))?;
            let version = request.version.parse().map_err(|_| Status::invalid_argument("no version has this id"))?;
            Act::ShredObject(ShredObject { project, bucket: bucket.id, key, version })
        };
        let propose = ProposeAct {
            act,
            by: caller.person(project),
            reason: request.reason,
            reference: request.reference,
            commit: CommitId::random(),
        };
        let proposal = metadata.propose_act(propose).await.map_err(refused)?;
        Ok(Response::new(self.0.proposal_message(&request.project, proposal).await?))
    }

    async fn get_shred_certificate(
        &self,
        request: Request<wire::GetShredCertificateRequest>,
    ) -> Result<Response<wire::ShredCertificate>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = match caller.is_operator {
            true => {
                let name = GetProject::Name(request.project.clone());
                self.0.metadata()?.get_project(name).await.map_err(refused)?.id
            }
            false => {
                let roles = [Role::Controller, Role::Steward, Role::Auditor];
                self.0.require(&caller, &request.project, &roles).await?.id
            }
        };
        let proposal = request.proposal.parse().map_err(|_| Status::invalid_argument("no proposal has this id"))?;
        let statement = self.0.metadata()?.shred_certificate(project, proposal).await.map_err(refused)?;
        let statement = statement.ok_or_else(|| Status::not_found("there is no certificate yet"))?;
        Ok(Response::new(wire::ShredCertificate { statement }))
    }
}

/// How often a client that waits is told how far a rotation is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

fn rotation_message(rotation: &Rotation) -> wire::KeyRotation {
    wire::KeyRotation {
        version: rotation.version,
        started_micros: rotation.started.0,
        passes: rotation.passes,
        seen: rotation.seen,
        moved: rotation.moved,
        settles_micros: rotation.settles.map_or(0, |at| at.0),
        ended_micros: rotation.ended.map_or(0, |at| at.0),
        kept: rotation.kept,
    }
}

//! The root key's seal, and keys that are replaced.

use super::error::refused;
use super::{AdminState, Caller};
use crate::server::sealed::SealView;
use std::sync::Arc;
use tonic::{Request, Response, Status};
use valv_proto::admin::v1 as wire;
use valv_proto::admin::v1::keys_server::Keys;
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
}

//! Tokens for the admin service, and who a caller is.

use super::error::{invalid, refused, with_reason};
use super::{AdminState, Caller};
use crate::credentials::{format_token, generate_token_secret, parse_token_id};
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};
use valv_metadata_api::*;
use valv_proto::admin::v1 as wire;
use valv_proto::admin::v1::credentials_server::Credentials;
use valv_types::{CommitId, ProjectId, TokenId};

/// How long a token is valid if the request does not say.
const DAYS_DEFAULT: u32 = 90;

/// Answers from the metadata of this process.
pub(super) struct CredentialsService(pub(super) Arc<AdminState>);

impl CredentialsService {
    /// The user whose tokens a call is about: the one that it names, or the caller.
    #[allow(clippy::result_large_err, reason = "tonic's error type")]
    fn subject(caller: &Caller, named: String) -> Result<String, Status> {
        match (named.is_empty(), &caller.user_name) {
            (false, _) => Ok(named),
            (true, Some(name)) => Ok(name.clone()),
            (true, None) => Err(invalid("user", "name a user: the local operator is none")),
        }
    }
}

#[tonic::async_trait]
impl Credentials for CredentialsService {
    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Result<Response<wire::CreateTokenReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (id, secret) =
            (TokenId::random(), generate_token_secret().map_err(|_| Status::unavailable("no randomness"))?);
        let create = CreateToken {
            actor: caller.actor(ProjectId::CLUSTER),
            asked_by_operator: caller.is_operator,
            user_name: Self::subject(&caller, request.user)?,
            is_operator: request.operator,
            days: if request.days == 0 { DAYS_DEFAULT } else { request.days },
            description: request.description,
            id,
            secret: Secret::new(secret.to_vec()),
            commit: CommitId::random(),
        };
        let made = self.0.metadata()?.create_token(create).await.map_err(refused)?;
        let reply = wire::CreateTokenReply { token: Some(token_message(made)), secret: format_token(id, &secret) };
        Ok(Response::new(reply))
    }

    async fn list_tokens(
        &self,
        request: Request<wire::ListTokensRequest>,
    ) -> Result<Response<wire::ListTokensReply>, Status> {
        let caller = Caller::of(&request)?;
        let named = request.into_inner().user;
        let user_name = match (caller.is_operator, named.is_empty()) {
            (true, true) => None,
            (false, _) if !named.is_empty() && caller.user_name.as_ref() != Some(&named) => {
                return Err(with_reason(
                    Code::PermissionDenied,
                    "NOT_YOURS",
                    "only operators see tokens of other users",
                ));
            }
            _ => Some(Self::subject(&caller, named)?),
        };
        let tokens = self.0.metadata()?.list_tokens(ListTokens { user_name }).await.map_err(refused)?;
        Ok(Response::new(wire::ListTokensReply { tokens: tokens.into_iter().map(token_message).collect() }))
    }

    async fn revoke_token(&self, request: Request<wire::RevokeTokenRequest>) -> Result<Response<wire::Token>, Status> {
        let caller = Caller::of(&request)?;
        let id = parse_token_id(&request.into_inner().id)
            .ok_or_else(|| invalid("id", "a token's id has 32 hexadecimal digits"))?;
        let revoke = RevokeToken {
            actor: caller.actor(ProjectId::CLUSTER),
            asked_by_operator: caller.is_operator,
            id,
            commit: CommitId::random(),
        };
        let revoked = self.0.metadata()?.revoke_token(revoke).await.map_err(refused)?;
        Ok(Response::new(token_message(revoked)))
    }

    async fn who_am_i(&self, request: Request<wire::WhoAmIRequest>) -> Result<Response<wire::WhoAmIReply>, Status> {
        let caller = Caller::of(&request)?;
        let user_id = caller.user.map(|user| user.to_string()).unwrap_or_default();
        let user = caller.user_name.unwrap_or_default();
        Ok(Response::new(wire::WhoAmIReply {
            user_id,
            user,
            operator: caller.is_operator,
            by: caller.by,
            remote: caller.remote,
        }))
    }
}

fn token_message(entry: TokenEntry) -> wire::Token {
    let state = match entry.state {
        TokenState::Valid => "valid",
        TokenState::Expired => "expired",
        TokenState::Revoked => "revoked",
    };
    let made_by = match entry.made_by {
        Some(user) if user == entry.user => "user",
        Some(_) | None => "operator",
    };
    wire::Token {
        id: entry.id.to_string(),
        user: entry.user_name,
        operator: entry.is_operator,
        created_micros: entry.created.0,
        expires_micros: entry.expires.0,
        description: entry.description,
        made_by: made_by.to_owned(),
        revoked_micros: entry.revoked.map(|time| time.0),
        state: state.to_owned(),
    }
}

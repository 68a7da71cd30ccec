//! Who calls the admin service.

use super::error::with_reason;
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use std::fmt;
use tonic::{Code, Request, Status};
use valv_metadata_api::{Actor, Person, TokenGrant};
use valv_types::{CommitId, ProjectId, TokenId, UserId};

/// Who calls, as the connection and the call's metadata prove it. Found out once a call, before any service sees it
/// (`authenticate.rs`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The user, if the caller is one. The local operator is none.
    pub(crate) user: Option<UserId>,
    /// That user's unique name.
    pub(crate) user_name: Option<String>,
    /// Whether the caller may do what only operators may.
    pub(crate) is_operator: bool,
    /// By what the caller is known, for the ledger.
    pub(crate) by: String,
    /// The peer's address as text; `local` on the server's socket.
    pub(crate) remote: String,
}

impl Caller {
    /// Who sent `request`.
    ///
    /// # Errors
    /// UNAUTHENTICATED.
    #[allow(clippy::result_large_err, reason = "tonic's error type")]
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(nobody)
    }

    /// Whoever may open the server's socket is an operator of it.
    pub(super) fn local_operator(uid: Option<u32>) -> Self {
        let by = match uid {
            Some(uid) => format!("operator on the server's socket (uid {uid})"),
            None => "operator on the server's socket".to_owned(),
        };
        Self { user: None, user_name: None, is_operator: true, by, remote: "local".to_owned() }
    }

    /// Who showed a token. On the server's socket, too, that is the token's user and no longer the local operator.
    pub(super) fn with_token(id: TokenId, grant: TokenGrant, remote: String) -> Self {
        let is_operator = grant.is_operator;
        Self {
            user: Some(grant.user),
            user_name: Some(grant.user_name),
            is_operator,
            by: format!("token {id}"),
            remote,
        }
    }

    /// Who showed a client certificate that is verified. `user` is unknown only while the server is sealed.
    pub(super) fn with_certificate(
        shown: &CertificateDer<'_>,
        user: Option<UserId>,
        user_name: String,
        is_operator: bool,
        remote: String,
    ) -> Self {
        let fingerprint = hex::encode(Sha256::digest(shown.as_ref()));
        let by = format!("certificate with SHA-256 {fingerprint}");
        Self { user, user_name: Some(user_name), is_operator, by, remote }
    }

    /// The caller, for metadata and the ledger of `project`.
    pub(crate) fn actor(&self, project: ProjectId) -> Actor {
        Actor {
            project,
            user: self.user,
            access_key: None,
            request_id: CommitId::random().to_string(),
            remote: self.remote.clone(),
            caller: Some(self.by.clone()),
            opening: None,
        }
    }

    /// The caller with the right that the credential gives, for what metadata decides itself.
    pub(crate) fn person(&self, project: ProjectId) -> Person {
        Person { actor: self.actor(project), is_operator: self.is_operator }
    }

    /// Lets operators through.
    ///
    /// # Errors
    /// PERMISSION_DENIED.
    #[allow(clippy::result_large_err, reason = "tonic's error type")]
    pub(crate) fn require_operator(&self) -> Result<(), Status> {
        if self.is_operator { Ok(()) } else { Err(operators_only()) }
    }
}

fn operators_only() -> Status {
    with_reason(Code::PermissionDenied, "OPERATORS_ONLY", "this is for operators only")
}

/// What a caller without credentials is told.
pub(super) fn nobody() -> Status {
    let message = "show a token (authorization: Bearer valv-...) or a client certificate";
    with_reason(Code::Unauthenticated, "NO_CREDENTIALS", message)
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user_name {
            Some(name) => write!(f, "{name} ({})", self.by),
            None => f.write_str(&self.by),
        }
    }
}

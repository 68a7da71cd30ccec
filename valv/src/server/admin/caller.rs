//! Who calls the admin service.

use std::fmt;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};
use valv_metadata_api::Actor;
use valv_types::{CommitId, ProjectId, UserId};

/// Who calls, as the connection and the call's metadata prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The user, if the caller is one. The local operator is none.
    pub(crate) user: Option<UserId>,
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
        match request.extensions().get::<UdsConnectInfo>() {
            Some(socket) => Ok(Self::local_operator(socket.peer_cred.map(|peer| peer.uid()))),
            None => Err(Status::unauthenticated("nobody is known by this connection")),
        }
    }

    /// Whoever may open the server's socket is an operator of it.
    fn local_operator(uid: Option<u32>) -> Self {
        let by = match uid {
            Some(uid) => format!("operator on the server's socket (uid {uid})"),
            None => "operator on the server's socket".to_owned(),
        };
        Self { user: None, is_operator: true, by, remote: "local".to_owned() }
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
        }
    }

    /// Lets operators through.
    ///
    /// # Errors
    /// PERMISSION_DENIED.
    #[allow(clippy::result_large_err, reason = "tonic's error type")]
    pub(crate) fn require_operator(&self) -> Result<(), Status> {
        if self.is_operator { Ok(()) } else { Err(Status::permission_denied("this is for operators only")) }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.by)
    }
}

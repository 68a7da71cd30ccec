//! Accesses on their way into the ledger: what a gateway gathered while the batch before was being committed.

use minicbor::{Decode, Encode};
use valv_ledger::{Access, AccessName, Client, Completion};
use valv_types::{CommitId, ProjectId, RecorderId};

/// Most accesses of one call, of which each may be of another project, and so a leaf with three rows: far below what a commit
/// may write.
pub const ACCESSES_PER_CALL_MAX: usize = 2_048;
/// Most completions of one call.
pub const COMPLETIONS_PER_CALL_MAX: usize = 8_192;

/// Records accesses: one commit, however many projects they are of.
#[derive(Debug, Clone, Encode, Decode)]
pub struct RecordAccesses {
    /// The gateway's run; numbers count within it.
    #[n(0)]
    pub recorder: RecorderId,
    /// Who asks from where: [`AccessName::client`] is an index into them.
    #[n(1)]
    pub clients: Vec<Client>,
    /// Accesses, in the order of their numbers.
    #[n(2)]
    pub accesses: Vec<ProjectAccess>,
    /// Ends of accesses that were recorded before, or are in this call.
    #[n(3)]
    pub completions: Vec<ProjectCompletion>,
    /// Resolves the outcome if the answer is lost.
    #[n(4)]
    pub commit: CommitId,
}

/// An access and its names.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ProjectAccess {
    /// Whose ledger: the project that owns what was accessed.
    #[n(0)]
    pub project: ProjectId,
    /// What happened.
    #[n(1)]
    pub access: Access,
    /// What of it has a name.
    #[n(2)]
    pub name: AccessName,
}

/// How an access ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ProjectCompletion {
    /// As that of the access.
    #[n(0)]
    pub project: ProjectId,
    /// Its end.
    #[n(1)]
    pub completion: Completion,
}

//! Projects as controllers and operators see and change them: what is said of one, its limits, its members.
//!
//! A project is **governed** once it has members: then an access key works only as far as its user's roles there allow, and
//! members and roles are changed by controllers alone. A project that the configuration or `valv user add` made is
//! ungoverned until an operator names its first controller, and every access key that acts in it is a full member.
//!
//! Every change is one commit with a record in the project's own ledger. A role that is taken away stops working everywhere
//! within [`crate::AccessGrant::lease_ms`], running transfers included.

use crate::{Person, Roles};
use minicbor::{Decode, Encode};
use valv_types::{CommitId, NamespaceId, PoolId, ProjectId, TimestampMicros, UserId};

/// Most members of a project: a list of them is one answer of some 300 KiB.
pub const MEMBERS_MAX: usize = 1_000;
/// Longest text said of a project, in bytes.
pub const PROJECT_TEXT_LEN_BYTES_MAX: usize = 4096;

/// What is said of a project. Sealed under the project's key; any text may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct ProjectDetails {
    /// The controller: the organisation that answers for the data (GDPR Art. 4(7)).
    #[n(0)]
    pub organisation: String,
    /// Whom to ask there.
    #[n(1)]
    pub contact: String,
    /// Where the legal basis is on file.
    #[n(2)]
    pub legal_basis: String,
    /// Where the ethics approval is on file.
    #[n(3)]
    pub ethics_approval: String,
    /// Anything else.
    #[n(4)]
    pub note: String,
}

/// How much a project may hold, versions in the trash and parts of open uploads included. `None`: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Quota {
    /// Bytes of plaintext.
    #[n(0)]
    pub bytes: Option<u64>,
    /// Object versions.
    #[n(1)]
    pub objects: Option<u64>,
}

/// What counts against a quota at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct QuotaUse {
    /// Bytes of plaintext.
    #[n(0)]
    pub bytes: u64,
    /// Object versions.
    #[n(1)]
    pub objects: u64,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Project {
    /// Its id.
    #[n(0)]
    pub id: ProjectId,
    /// Its unique name.
    #[n(1)]
    pub name: String,
    /// Where its bucket names are unique.
    #[n(2)]
    pub namespace: NamespaceId,
    /// The namespace's name.
    #[n(3)]
    pub namespace_name: String,
    /// The pool of its new buckets.
    #[n(4)]
    pub pool: PoolId,
    /// Since when there is this project.
    #[n(5)]
    pub created: TimestampMicros,
    /// Since when it has members; `None`: it is ungoverned.
    #[n(6)]
    pub governed: Option<TimestampMicros>,
    /// What is said of it; `None` once its key is gone.
    #[n(7)]
    pub details: Option<ProjectDetails>,
    /// How much it may hold.
    #[n(9)]
    pub quota: Quota,
    /// What counts against the quota; `None` without one, and while what was there before the quota is being counted.
    #[n(10)]
    pub used: Option<QuotaUse>,
    /// Until when it is paid for. From then on it is read-only; nothing is ever deleted for it.
    #[n(11)]
    pub paid_until: Option<TimestampMicros>,
    /// Whether a second controller has to approve each opening.
    #[n(12)]
    #[cbor(default)]
    pub two_person_openings: bool,
}

impl Project {
    /// Whether it has members.
    pub fn is_governed(&self) -> bool {
        self.governed.is_some()
    }
}

/// A project by one of its names.
#[derive(Debug, Clone, Encode, Decode)]
pub enum GetProject {
    /// By name.
    #[n(0)]
    Name(#[n(0)] String),
    /// By id.
    #[n(1)]
    Id(#[n(0)] ProjectId),
}

/// Lists projects in name order.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListProjects {
    /// Only names after this one.
    #[n(0)]
    pub after: Option<String>,
    /// At most this many, and never more than 500.
    #[n(1)]
    pub limit: u32,
}

/// Makes a governed project. For operators.
#[derive(Debug, Clone, Encode, Decode)]
pub struct CreateProject {
    /// Who asks.
    #[n(0)]
    pub by: Person,
    /// Its unique name.
    #[n(1)]
    pub name: String,
    /// A namespace to share with others; empty: one of its own, of the project's name.
    #[n(2)]
    pub namespace_name: String,
    /// The user who becomes its first controller, by name.
    #[n(3)]
    pub controller: String,
    /// Everything else, as [`UpdateProject`] would change it.
    #[n(4)]
    pub properties: ProjectChanges,
    /// The project's id, and resolves the outcome if the answer is lost.
    #[n(5)]
    pub commit: CommitId,
}

/// Makes a governed project of an ungoverned one, by naming its first controller. For operators. From that moment access keys
/// of users who are no members are refused there.
#[derive(Debug, Clone, Encode, Decode)]
pub struct GovernProject {
    /// Who asks.
    #[n(0)]
    pub by: Person,
    /// Which.
    #[n(1)]
    pub project: ProjectId,
    /// The user who becomes its first controller, by name.
    #[n(2)]
    pub controller: String,
    /// Resolves the outcome if the answer is lost.
    #[n(3)]
    pub commit: CommitId,
}

/// A date, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct PaidUntil {
    /// The date; `None`: without end.
    #[n(0)]
    pub until: Option<TimestampMicros>,
}

/// What becomes of a project's properties. `None` leaves one as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct ProjectChanges {
    /// See [`ProjectDetails::organisation`]. The controller's.
    #[n(0)]
    pub organisation: Option<String>,
    /// See [`ProjectDetails::contact`]. The controller's.
    #[n(1)]
    pub contact: Option<String>,
    /// See [`ProjectDetails::legal_basis`]. The controller's.
    #[n(2)]
    pub legal_basis: Option<String>,
    /// See [`ProjectDetails::ethics_approval`]. The controller's.
    #[n(3)]
    pub ethics_approval: Option<String>,
    /// See [`ProjectDetails::note`]. The controller's.
    #[n(4)]
    pub note: Option<String>,
    /// The pool of buckets made from now on. The operator's.
    #[n(6)]
    pub pool: Option<PoolId>,
    /// The operator's. One below what the project holds refuses every write until enough is gone.
    #[n(7)]
    pub quota: Option<Quota>,
    /// The operator's.
    #[n(8)]
    pub paid_until: Option<PaidUntil>,
    /// Whether a second controller has to approve each opening. The controller's; it is taken back by two of them only.
    #[n(9)]
    pub two_person_openings: Option<bool>,
}

impl ProjectChanges {
    /// Whether something changes that is the controller's to decide.
    pub fn has_controllers(&self) -> bool {
        let texts = [&self.organisation, &self.contact, &self.legal_basis, &self.ethics_approval, &self.note];
        self.two_person_openings.is_some() || texts.into_iter().any(Option::is_some)
    }

    /// Whether something changes that is the operator's to decide.
    pub fn has_operators(&self) -> bool {
        self.pool.is_some() || self.quota.is_some() || self.paid_until.is_some()
    }
}

/// Changes a project's properties: the controller's by a controller, the operator's by an operator. In an ungoverned project
/// the operator stands in for the controller.
#[derive(Debug, Clone, Encode, Decode)]
pub struct UpdateProject {
    /// Who asks.
    #[n(0)]
    pub by: Person,
    /// Which.
    #[n(1)]
    pub project: ProjectId,
    /// What becomes of it.
    #[n(2)]
    pub changes: ProjectChanges,
    /// Resolves the outcome if the answer is lost.
    #[n(3)]
    pub commit: CommitId,
}

/// Makes a user a member, or gives a member other roles. For controllers.
#[derive(Debug, Clone, Encode, Decode)]
pub struct SetMember {
    /// Who asks.
    #[n(0)]
    pub by: Person,
    /// Of which project.
    #[n(1)]
    pub project: ProjectId,
    /// The user's unique name.
    #[n(2)]
    pub user_name: String,
    /// All roles that the member has from now on; at least one.
    #[n(3)]
    pub roles: Roles,
    /// Resolves the outcome if the answer is lost.
    #[n(4)]
    pub commit: CommitId,
}

/// Ends a membership. For controllers, and for members who leave. The last controller stays.
#[derive(Debug, Clone, Encode, Decode)]
pub struct RemoveMember {
    /// Who asks.
    #[n(0)]
    pub by: Person,
    /// Of which project.
    #[n(1)]
    pub project: ProjectId,
    /// The user's unique name.
    #[n(2)]
    pub user_name: String,
    /// Resolves the outcome if the answer is lost.
    #[n(3)]
    pub commit: CommitId,
}

/// Lists a project's members in name order.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListMembers {
    /// Of which project.
    #[n(0)]
    pub project: ProjectId,
}

/// A member of a project.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// The user.
    #[n(0)]
    pub user: UserId,
    /// The user's unique name.
    #[n(1)]
    pub user_name: String,
    /// The name shown in listings.
    #[n(2)]
    pub display_name: String,
    /// What the member may do.
    #[n(3)]
    pub roles: Roles,
    /// Since when.
    #[n(4)]
    pub since: TimestampMicros,
}

/// In which projects a user is a member.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ProjectsOf {
    /// The user.
    #[n(0)]
    pub user: UserId,
}

/// One of a user's memberships.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Membership {
    /// Where.
    #[n(0)]
    pub project: ProjectId,
    /// That project's name.
    #[n(1)]
    pub project_name: String,
    /// As what.
    #[n(2)]
    pub roles: Roles,
    /// Since when.
    #[n(3)]
    pub since: TimestampMicros,
}

/// Why a change of a project, its members or their keys is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Encode, Decode)]
#[cbor(index_only)]
pub enum ProjectRefusal {
    /// There is no project of this name or id.
    #[error("there is no such project")]
    #[n(1)]
    NoSuchProject,
    /// The caller lacks the role.
    #[error("only a member with the role that this needs may do it; operators can't")]
    #[n(2)]
    RoleMissing,
    /// Only operators may.
    #[error("this is for operators only")]
    #[n(3)]
    OperatorsOnly,
    /// The name is taken.
    #[error("there is a project of this name")]
    #[n(4)]
    NameTaken,
    /// A namespace of one's own can't be one that is there.
    #[error("there is a namespace of the project's name: name it to share it, or choose another name")]
    #[n(5)]
    NamespaceTaken,
    /// It has members already.
    #[error("the project is governed already")]
    #[n(6)]
    AlreadyGoverned,
    /// It has no members.
    #[error("the project has no members: an operator has to name its first controller (valv project govern)")]
    #[n(7)]
    Ungoverned,
    /// Somebody has to answer for the data.
    #[error("this is the project's last controller: name another one first")]
    #[n(8)]
    LastController,
    /// The user is no member.
    #[error("the user is no member of this project")]
    #[n(9)]
    NoSuchMember,
    /// A member has at least one role.
    #[error("a member has at least one role")]
    #[n(10)]
    NoRole,
    /// The project has [`MEMBERS_MAX`] members.
    #[error("a project has at most {MEMBERS_MAX} members")]
    #[n(11)]
    TooManyMembers,
    /// Who makes a key knows its secret, so in a governed project nobody but a member's own first key is made by an operator.
    #[error(
        "in a governed project an operator makes a member's first access key only: further ones are made by the member or by a controller"
    )]
    #[n(12)]
    KeyOfMember,
    /// An access key of a governed project stands for a member.
    #[error("the project is governed, and this user is no member of it: a controller has to make the user one first")]
    #[n(13)]
    KeyOfStranger,
    /// A secret that somebody else sets is a way in.
    #[error("in a governed project the secret of an access key can't be replaced: add another key")]
    #[n(14)]
    SecretFixed,
    /// A quota is at most 2^63 - 1.
    #[error("a quota is at most 9223372036854775807")]
    #[n(15)]
    QuotaTooLarge,
    /// A text is too long or has control characters.
    #[error(
        "what is said of a project is text of at most {PROJECT_TEXT_LEN_BYTES_MAX} bytes without control characters"
    )]
    #[n(16)]
    TextMalformed,
    /// There is no pool of this number.
    #[error("there is no such pool")]
    #[n(17)]
    NoSuchPool,
    /// Deleting a user would leave a project without a controller.
    #[error("this user is the last controller of a project: that project has to have another one first")]
    #[n(18)]
    UserIsLastController,
}

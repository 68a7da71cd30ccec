//! What a refusal of metadata is for a caller of the admin service: one mapping, for all groups of acts.

use tonic::{Code, Status};
use valv_metadata_api::{CustodyRefusal, MetadataError, PrincipalConflict, ProjectRefusal, TokenConflict};

/// The status that tells `error`.
pub(crate) fn refused(error: MetadataError) -> Status {
    Status::new(code(&error), error.to_string())
}

/// Who has to act: the caller (with other words, other rights, or at another time), or an operator.
fn code(error: &MetadataError) -> Code {
    match error {
        MetadataError::NoSuchUser
        | MetadataError::NoSuchAccessKey
        | MetadataError::NoSuchBucket
        | MetadataError::NoSuchKey
        | MetadataError::NoSuchVersion
        | MetadataError::NoSuchUpload
        | MetadataError::NoSuchDocument
        | MetadataError::NoSuchNamespace => Code::NotFound,
        MetadataError::Principal { reason: PrincipalConflict::NoSuchProject } => Code::NotFound,
        MetadataError::Principal { .. } => Code::FailedPrecondition,
        MetadataError::Project { reason } => match reason {
            ProjectRefusal::NoSuchProject | ProjectRefusal::NoSuchMember => Code::NotFound,
            ProjectRefusal::RoleMissing
            | ProjectRefusal::OperatorsOnly
            | ProjectRefusal::KeyOfMember
            | ProjectRefusal::KeyOfStranger => Code::PermissionDenied,
            ProjectRefusal::NoRole | ProjectRefusal::TextMalformed => Code::InvalidArgument,
            ProjectRefusal::NameTaken | ProjectRefusal::NamespaceTaken => Code::AlreadyExists,
            ProjectRefusal::AlreadyGoverned
            | ProjectRefusal::Ungoverned
            | ProjectRefusal::LastController
            | ProjectRefusal::TooManyMembers
            | ProjectRefusal::SecretFixed
            | ProjectRefusal::RetentionShortened
            | ProjectRefusal::NoSuchPool
            | ProjectRefusal::UserIsLastController => Code::FailedPrecondition,
        },
        MetadataError::Custody { reason } => match reason {
            CustodyRefusal::NoSuchCustodian => Code::NotFound,
            CustodyRefusal::OrganisationTaken => Code::AlreadyExists,
            CustodyRefusal::TextMalformed | CustodyRefusal::NothingToChange => Code::InvalidArgument,
            CustodyRefusal::HasDisks | CustodyRefusal::TooMany => Code::FailedPrecondition,
        },
        MetadataError::Token { reason } => match reason {
            TokenConflict::NotValid => Code::Unauthenticated,
            TokenConflict::NoSuchToken => Code::NotFound,
            TokenConflict::NotYours | TokenConflict::OperatorsOnly | TokenConflict::OwnTokenNeeded => {
                Code::PermissionDenied
            }
            TokenConflict::DaysOutOfRange | TokenConflict::DescriptionMalformed => Code::InvalidArgument,
            TokenConflict::TooMany | TokenConflict::TooManyProjects => Code::FailedPrecondition,
        },
        MetadataError::Malformed { .. } => Code::InvalidArgument,
        MetadataError::Unavailable { .. } | MetadataError::Conflict => Code::Unavailable,
        _ => Code::Internal,
    }
}

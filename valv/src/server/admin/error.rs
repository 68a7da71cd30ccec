//! What a refusal is for a caller of the admin service: one mapping, for all groups of acts.
//!
//! A status carries details as google.rpc.Status does (grpc-status-details-bin). Its ErrorInfo says in one word, which stays
//! the same, what is wrong: domain `valv`, reason such as OWN_TOKEN_NEEDED. Requests that are wrong in a field carry a
//! BadRequest that names it. The message is for people and may change.

use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::{BadRequest, ErrorDetails, FieldViolation, StatusExt as _};
use valv_metadata_api::{
    ApprovalRefusal, CustodyRefusal, MetadataError, OpeningRefusal, PrincipalConflict, ProjectRefusal,
    RetentionRefusal, TokenConflict,
};

/// The domain of every reason.
pub(crate) const ERROR_DOMAIN: &str = "valv";

/// The status that tells what metadata said.
pub(crate) fn refused(error: MetadataError) -> Status {
    let (code, reason, message) = (code(&error), reason(&error), error.to_string());
    match field(&error) {
        Some(field) => violation(code, &reason, field, &message),
        None => with_reason(code, &reason, &message),
    }
}

/// A request that is wrong in one field.
pub(crate) fn invalid(field: &str, message: &str) -> Status {
    violation(Code::InvalidArgument, "INVALID_FIELD", field, message)
}

/// A status whose reason is the word `reason`.
pub(crate) fn with_reason(code: Code, reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}

fn violation(code: Code, reason: &str, field: &str, message: &str) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new());
    details.set_bad_request(BadRequest::new(vec![FieldViolation::new(field, message)]).field_violations);
    Status::with_error_details(code, message, details)
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
            ProjectRefusal::NoRole | ProjectRefusal::TextMalformed | ProjectRefusal::QuotaTooLarge => {
                Code::InvalidArgument
            }
            ProjectRefusal::NameTaken | ProjectRefusal::NamespaceTaken => Code::AlreadyExists,
            ProjectRefusal::AlreadyGoverned
            | ProjectRefusal::Ungoverned
            | ProjectRefusal::LastController
            | ProjectRefusal::TooManyMembers
            | ProjectRefusal::SecretFixed
            | ProjectRefusal::NoSuchPool
            | ProjectRefusal::UserIsLastController => Code::FailedPrecondition,
        },
        MetadataError::Custody { reason } => match reason {
            CustodyRefusal::NoSuchCustodian => Code::NotFound,
            CustodyRefusal::OrganisationTaken => Code::AlreadyExists,
            CustodyRefusal::TextMalformed | CustodyRefusal::NothingToChange => Code::InvalidArgument,
            CustodyRefusal::NoSuchOffer => Code::NotFound,
            CustodyRefusal::NotYourOffer => Code::PermissionDenied,
            CustodyRefusal::OfferedToYourself | CustodyRefusal::ValidityOutOfRange | CustodyRefusal::TermsMissing => {
                Code::InvalidArgument
            }
            CustodyRefusal::HasDisks
            | CustodyRefusal::TooMany
            | CustodyRefusal::OfferExpired
            | CustodyRefusal::OfferChanged
            | CustodyRefusal::OfferOpen
            | CustodyRefusal::OfferLapsed => Code::FailedPrecondition,
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
        MetadataError::Approval { reason } => match reason {
            ApprovalRefusal::NobodyKnown => Code::Unauthenticated,
            ApprovalRefusal::NotAllowed | ApprovalRefusal::OwnProposal => Code::PermissionDenied,
            ApprovalRefusal::NoSuchProposal => Code::NotFound,
            ApprovalRefusal::ReasonMalformed => Code::InvalidArgument,
            ApprovalRefusal::Settled | ApprovalRefusal::Unfit => Code::FailedPrecondition,
        },
        MetadataError::Retention { reason } => match reason {
            RetentionRefusal::NoSuchHold | RetentionRefusal::NoSuchDisposal => Code::NotFound,
            RetentionRefusal::Days
            | RetentionRefusal::Text
            | RetentionRefusal::TextMissing
            | RetentionRefusal::Scope
            | RetentionRefusal::OtherProject
            | RetentionRefusal::Date => Code::InvalidArgument,
            RetentionRefusal::NeedsApproval
            | RetentionRefusal::TooManyHolds
            | RetentionRefusal::DisposalState
            | RetentionRefusal::NothingToDispose
            | RetentionRefusal::NotApproved => Code::FailedPrecondition,
        },
        MetadataError::Locked { .. }
        | MetadataError::InvalidBucketState
        | MetadataError::BucketNotEmpty
        | MetadataError::RetentionBelowMinimum { .. }
        | MetadataError::KeyDestroyed
        | MetadataError::KeyUnavailable => Code::FailedPrecondition,
        MetadataError::QuotaExceeded => Code::ResourceExhausted,
        MetadataError::Opening { reason } => match reason {
            OpeningRefusal::NoSuchOpening
            | OpeningRefusal::NoSuchRecipient
            | OpeningRefusal::NoSuchZone
            | OpeningRefusal::NoSuchProject => Code::NotFound,
            OpeningRefusal::NotAllowed => Code::PermissionDenied,
            OpeningRefusal::AliasTaken
            | OpeningRefusal::TooMany
            | OpeningRefusal::OwnProject
            | OpeningRefusal::NeedsSecondPerson => Code::FailedPrecondition,
            OpeningRefusal::AliasWithoutBucket
            | OpeningRefusal::TimesMalformed
            | OpeningRefusal::TextMalformed
            | OpeningRefusal::NothingOpened => Code::InvalidArgument,
        },
        MetadataError::Malformed { .. } => Code::InvalidArgument,
        MetadataError::Unavailable { .. } | MetadataError::Conflict => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// The field of a request that the error is about, where all requests name it alike.
fn field(error: &MetadataError) -> Option<&'static str> {
    match error {
        MetadataError::Token { reason: TokenConflict::DaysOutOfRange } => Some("days"),
        MetadataError::Token { reason: TokenConflict::DescriptionMalformed } => Some("description"),
        MetadataError::Principal { reason: PrincipalConflict::CanonicalIdMalformed } => Some("canonical_id"),
        MetadataError::Principal { reason: PrincipalConflict::NameMalformed } => Some("name"),
        _ => None,
    }
}

/// The word for what is wrong: the name of the refusal, or of the error if it holds none.
fn reason(error: &MetadataError) -> String {
    match error {
        MetadataError::Principal { reason } => word(reason),
        MetadataError::Token { reason } => word(reason),
        MetadataError::Project { reason } => word(reason),
        MetadataError::Approval { reason } => word(reason),
        MetadataError::Custody { reason } => word(reason),
        MetadataError::Retention { reason } => word(reason),
        other => word(other),
    }
}

/// `OwnTokenNeeded` as OWN_TOKEN_NEEDED.
fn word(error: &impl std::fmt::Debug) -> String {
    let name = format!("{error:?}");
    let name = name.chars().take_while(char::is_ascii_alphanumeric);
    name.enumerate().fold(String::new(), |mut word, (at, letter)| {
        if at > 0 && letter.is_ascii_uppercase() {
            word.push('_');
        }
        word.push(letter.to_ascii_uppercase());
        word
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use valv_metadata_api::LockReason;

    #[test]
    fn a_refusal_has_a_code_a_word_and_the_field_it_is_about() {
        for (error, code, reason, field) in [
            (MetadataError::NoSuchUser, Code::NotFound, "NO_SUCH_USER", None),
            (TokenConflict::OwnTokenNeeded.into(), Code::PermissionDenied, "OWN_TOKEN_NEEDED", None),
            (TokenConflict::DaysOutOfRange.into(), Code::InvalidArgument, "DAYS_OUT_OF_RANGE", Some("days")),
            (PrincipalConflict::OwnsBuckets.into(), Code::FailedPrecondition, "OWNS_BUCKETS", None),
            (MetadataError::Malformed { what: "x".to_owned() }, Code::InvalidArgument, "MALFORMED", None),
            (MetadataError::Locked { reason: LockReason::LegalHold }, Code::FailedPrecondition, "LOCKED", None),
        ] {
            let message = error.to_string();
            let status = refused(error);
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!((status.code(), status.message()), (code, message.as_str()));
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, ERROR_DOMAIN));
            let violated = details.bad_request().map(|bad| bad.field_violations[0].field.as_str());
            assert_eq!(violated, field, "{message}");
        }
        assert!(invalid("id", "no id").get_error_details().bad_request().is_some());
    }
}

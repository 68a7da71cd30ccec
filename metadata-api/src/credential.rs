//! Tokens: what users show to the admin service. Access keys, which sign S3 requests, are something else and are never
//! taken instead.
//!
//! Every creation and revocation is one commit with a record in the ledger of the user's default project and of every
//! governed project where the user is a member. A revoked token is refused from that commit on.

use crate::{Actor, Secret};
use minicbor::{Decode, Encode};
use valv_types::{CommitId, TimestampMicros, TokenId, UserId};

/// Most valid tokens of one user: a person has some machines and some scripts.
pub const TOKENS_PER_USER_MAX: usize = 20;
/// A token is valid for at most so many days: three years, so that it outlives a project's grant but not its holder.
pub const TOKEN_DAYS_MAX: u32 = 1_096;
/// The secret half of a token: 256 random bits.
pub const TOKEN_SECRET_LEN_BYTES: usize = 32;
/// Longest description of a token, in bytes.
pub const TOKEN_DESCRIPTION_LEN_BYTES_MAX: usize = 256;

/// Makes a token.
#[derive(Debug, Clone, Encode, Decode)]
pub struct CreateToken {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// Whether the asker may do what only operators may.
    #[n(1)]
    pub asked_by_operator: bool,
    /// For whom: the user's unique name.
    #[n(2)]
    pub user_name: String,
    /// Whether the holder shall be an operator.
    #[n(3)]
    pub is_operator: bool,
    /// How long it is valid: 1 to [`TOKEN_DAYS_MAX`] days.
    #[n(4)]
    pub days: u32,
    /// What it is for, in the asker's words; may be empty.
    #[n(5)]
    pub description: String,
    /// Its public half.
    #[n(6)]
    pub id: TokenId,
    /// Its secret half: [`TOKEN_SECRET_LEN_BYTES`] random bytes. Only a keyed hash of it is kept.
    #[n(7)]
    pub secret: Secret,
    /// Resolves the outcome if the answer is lost.
    #[n(8)]
    pub commit: CommitId,
}

/// Lists tokens, those that are not valid any more included.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListTokens {
    /// Whose: the user's unique name; `None`: everybody's.
    #[n(0)]
    pub user_name: Option<String>,
}

/// Whether a token is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum TokenState {
    /// It is.
    #[n(1)]
    Valid,
    /// Its time is over.
    #[n(2)]
    Expired,
    /// Somebody revoked it.
    #[n(3)]
    Revoked,
}

/// A token, without its secret, which nobody is shown again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TokenEntry {
    /// Its public half.
    #[n(0)]
    pub id: TokenId,
    /// Whose it is.
    #[n(1)]
    pub user: UserId,
    /// That user's unique name.
    #[n(2)]
    pub user_name: String,
    /// Whether the holder is an operator.
    #[n(3)]
    pub is_operator: bool,
    /// When it was made.
    #[n(4)]
    pub created: TimestampMicros,
    /// Until when it is valid, unless it is revoked before.
    #[n(5)]
    pub expires: TimestampMicros,
    /// What it is for.
    #[n(6)]
    pub description: String,
    /// Who made it; `None`: an operator who is no user.
    #[n(7)]
    pub made_by: Option<UserId>,
    /// When it was revoked.
    #[n(8)]
    pub revoked: Option<TimestampMicros>,
    /// Whether it is taken now.
    #[n(9)]
    pub state: TokenState,
}

/// Revokes a token. Harmless if it is revoked already.
#[derive(Debug, Clone, Encode, Decode)]
pub struct RevokeToken {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// Whether the asker may do what only operators may.
    #[n(1)]
    pub asked_by_operator: bool,
    /// Which.
    #[n(2)]
    pub id: TokenId,
    /// Resolves the outcome if the answer is lost.
    #[n(3)]
    pub commit: CommitId,
}

/// Asks who shows a token.
#[derive(Debug, Clone, Encode, Decode)]
pub struct CheckToken {
    /// Its public half.
    #[n(0)]
    pub id: TokenId,
    /// Its secret half.
    #[n(1)]
    pub secret: Secret,
}

/// Whom a token stands for. Good for the call that it came with, and no longer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TokenGrant {
    /// The user.
    #[n(0)]
    pub user: UserId,
    /// The user's unique name.
    #[n(1)]
    pub user_name: String,
    /// Whether the token is an operator's.
    #[n(2)]
    pub is_operator: bool,
}

/// What stands against making, revoking or taking a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Encode, Decode)]
#[cbor(index_only)]
pub enum TokenConflict {
    /// Unknown, revoked, expired, or with another secret: it is not said which.
    #[error("this token is not valid")]
    #[n(1)]
    NotValid,
    /// There is no token of this id (that the asker may know of).
    #[error("there is no such token")]
    #[n(2)]
    NoSuchToken,
    /// Tokens of others are made and revoked by operators.
    #[error("only operators make and revoke tokens of other users")]
    #[n(3)]
    NotYours,
    /// Only operators make operators.
    #[error("only an operator can make an operator's token")]
    #[n(4)]
    OperatorsOnly,
    /// A user of a governed project who has had a token makes further ones with it: an operator with a second token of a
    /// controller could act as one.
    #[error(
        "this user is a member of a governed project and has had a token: a further one is made with the user's own \
         token, not by an operator"
    )]
    #[n(5)]
    OwnTokenNeeded,
    /// The user has as many tokens as a user may have.
    #[error("this user has {TOKENS_PER_USER_MAX} valid tokens, which is as many as a user may have: revoke one")]
    #[n(6)]
    TooMany,
    /// A token is valid for 1 to [`TOKEN_DAYS_MAX`] days.
    #[error("a token is valid for 1 to {TOKEN_DAYS_MAX} days")]
    #[n(7)]
    DaysOutOfRange,
    /// A description is at most 256 bytes without control characters.
    #[error("a description must have at most {TOKEN_DESCRIPTION_LEN_BYTES_MAX} bytes, and no control characters")]
    #[n(8)]
    DescriptionMalformed,
    /// More governed projects than one act can be recorded in.
    #[error("this user is a member of too many governed projects for one act to be recorded in all of them")]
    #[n(9)]
    TooManyProjects,
}

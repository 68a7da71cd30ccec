//! Projects and their members: who answers for the data, and who may do what in which role.

use minicbor::{Decode, Encode};
use std::fmt;
use std::str::FromStr;

/// What a member of a project may do. A member may have several roles; they add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
#[repr(u8)]
pub enum Role {
    /// Answers for the data (GDPR Art. 4(7)): members, openings, retention, disposal, and all that the others may.
    #[n(1)]
    Controller = 1,
    /// Looks after the data: reads and writes, changes buckets' settings, brings back from the trash.
    #[n(2)]
    Steward = 2,
    /// Brings data in, and lists it; reads no contents and removes nothing.
    #[n(3)]
    Depositor = 3,
    /// Reads and lists.
    #[n(4)]
    Reader = 4,
    /// Reads the ledger, usage and reports; no object.
    #[n(5)]
    Auditor = 5,
}

impl Role {
    /// Every role, the one that may most first.
    pub const ALL: [Self; 5] = [Self::Controller, Self::Steward, Self::Depositor, Self::Reader, Self::Auditor];

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Steward => "steward",
            Self::Depositor => "depositor",
            Self::Reader => "reader",
            Self::Auditor => "auditor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no role {0:?}: a role is controller, steward, depositor, reader or auditor")]
pub struct RoleError(pub String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| RoleError(text.to_owned()))
    }
}

/// A set of roles: bit `1 << role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Roles(#[n(0)] u8);

impl Roles {
    /// No role: not a member.
    pub const NONE: Self = Self(0);

    /// Adds a role.
    #[must_use]
    pub fn with(self, role: Role) -> Self {
        Self(self.0 | 1 << role as u8)
    }

    /// Whether the role is among them.
    pub fn has(self, role: Role) -> bool {
        self.0 & 1 << role as u8 != 0
    }

    /// Whether any of `roles` is among them.
    pub fn has_any(self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.has(*role))
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The roles, the one that may most first.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::NONE, Self::with)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn roles_add_up_and_are_read_back_by_name() {
        let roles: Roles = [Role::Reader, Role::Auditor].into_iter().collect();
        assert!(roles.has(Role::Reader) && roles.has_any(&[Role::Controller, Role::Auditor]));
        assert!(!roles.has(Role::Controller) && !Roles::NONE.has_any(&Role::ALL));
        for role in Role::ALL {
            assert_eq!(role.name().parse::<Role>().unwrap(), role);
        }
        assert!("owner".parse::<Role>().is_err());
    }
}

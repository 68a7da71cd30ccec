//! Keys that a customer brings with each request and that nobody keeps (S3's SSE-C).
//!
//! A blob's data key is then wrapped twice: by the customer's key, and that wrap by the project's. Neither opens it alone;
//! the outer layer can be made anew when the project's key is rotated, without the customer.

use crate::kdf::{KEY_LEN, derive};
use crate::keys::{KeyError, random};
use crate::wrap::{Binding, WRAP_OVERHEAD_LEN};
use subtle::ConstantTimeEq;
use valv_types::ProjectId;
use zeroize::Zeroizing;

/// A data key under a customer's key.
pub(crate) const CUSTOMER_WRAP_LEN: usize = KEY_LEN + WRAP_OVERHEAD_LEN;
const LABEL: &[u8] = b"valv customer wrap v1";
const CHECK_LABEL: &[u8] = b"valv customer key check v1";

/// A customer's key: held while its request lasts, never stored.
///
/// Zeroised when dropped; has no `Debug` output and is never serialised.
#[derive(Clone)]
pub struct CustomerKey(Zeroizing<[u8; KEY_LEN]>);

impl std::fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CustomerKey(..)")
    }
}

/// By what a customer's key is known again: a salted digest, from which nothing can be opened.
///
/// It stands in sealed records only, and exports leave it out. A customer's key with little entropy could be guessed from
/// it by somebody who has the project's key as well, as from any ciphertext under such a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustomerKeyCheck {
    /// Random for each check.
    pub salt: [u8; 16],
    /// HKDF of the key with this salt.
    pub digest: [u8; KEY_LEN],
}

fn digest(key: &[u8; KEY_LEN], project: ProjectId, salt: &[u8; 16]) -> [u8; KEY_LEN] {
    *derive::<KEY_LEN>(key, salt, &[CHECK_LABEL, project.as_bytes()])
}

impl CustomerKey {
    /// The key with these bytes.
    ///
    /// # Errors
    /// [`KeyError::Length`] unless they are 32.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() != KEY_LEN {
            return Err(KeyError::Length);
        }
        let mut key = Zeroizing::new([0; KEY_LEN]);
        key.copy_from_slice(bytes);
        Ok(Self(key))
    }

    /// What to keep of the key, under a fresh salt.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn check(&self, project: ProjectId) -> Result<CustomerKeyCheck, KeyError> {
        let salt = random()?;
        Ok(CustomerKeyCheck { salt, digest: digest(&self.0, project, &salt) })
    }

    /// Whether `check` was made of this key for this project. Takes the same time either way.
    pub fn matches(&self, project: ProjectId, check: &CustomerKeyCheck) -> bool {
        digest(&self.0, project, &check.salt).ct_eq(&check.digest).into()
    }

    pub(crate) fn wrap(
        &self,
        context: &[u8],
        inner: &[u8; KEY_LEN],
    ) -> Result<Zeroizing<[u8; CUSTOMER_WRAP_LEN]>, KeyError> {
        let mut out = Zeroizing::new([0; CUSTOMER_WRAP_LEN]);
        Binding { label: LABEL, context, head: &[] }.wrap(&self.0, inner, out.as_mut_slice())?;
        Ok(out)
    }

    pub(crate) fn unwrap(
        &self,
        context: &[u8],
        wrapped: &[u8; CUSTOMER_WRAP_LEN],
    ) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
        let binding = Binding { label: LABEL, context, head: &[] };
        binding.unwrap(&self.0, wrapped).map_err(|_| KeyError::CustomerMismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_knows_its_own_key_in_its_own_project_only() {
        let project = ProjectId::random();
        let (key, other) = (CustomerKey::from_bytes(&[1; 32]).unwrap(), CustomerKey::from_bytes(&[2; 32]).unwrap());
        let check = key.check(project).unwrap();
        assert!(key.matches(project, &check));
        assert!(!other.matches(project, &check));
        assert!(!key.matches(ProjectId::random(), &check));
        assert_ne!(key.check(project).unwrap(), check, "salted");
        assert_ne!(check.digest, [1; 32]);
    }

    #[test]
    fn a_key_has_32_bytes_and_does_not_print_itself() {
        for len in [0, 16, 31, 33] {
            assert_eq!(CustomerKey::from_bytes(&vec![1; len]).unwrap_err(), KeyError::Length);
        }
        assert_eq!(format!("{:?}", CustomerKey::from_bytes(&[0x41; 32]).unwrap()), "CustomerKey(..)");
    }

    /// Made by another implementation from docs/format.md; never to be made anew.
    #[test]
    fn the_golden_check_knows_its_key() {
        let mut digest = [0; KEY_LEN];
        let hex = "917f0f71d2d56f7371c595fd7db12804d8b36faa6158d06dd431a977858143cc";
        hex::decode_to_slice(hex, &mut digest).unwrap();
        let key = CustomerKey::from_bytes(&[0x22; 32]).unwrap();
        assert!(key.matches(ProjectId::from_bytes([0x44; 16]), &CustomerKeyCheck { salt: [0x88; 16], digest }));
    }
}

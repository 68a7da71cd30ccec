//! The key hierarchy and its wraps.

use crate::kdf::{KEY_LEN, aead_key, derive};
use crate::record::RecordKey;
use ring::aead::{Aad, Nonce};
use subtle::ConstantTimeEq;
use valv_types::{BlobId, ProjectId};
use zeroize::Zeroizing;

/// Length of root, project and data keys.
pub const KEY_LEN_BYTES: usize = KEY_LEN;

const SALT_LEN: usize = 16;
const TAG_LEN: usize = 16;
const FORMAT: u8 = 1;
/// HKDF-SHA256 + AES-256-GCM + 32-byte commitment.
const ALGORITHM: u8 = 1;
/// format, algorithm, key version, salt, commitment, sealed key and tag.
const WRAP_LEN: usize = 1 + 1 + 4 + SALT_LEN + KEY_LEN + KEY_LEN + TAG_LEN;

/// Bytes of a wrapped data key as it stands in a version record.
pub const WRAPPED_DATA_KEY_LEN_BYTES: usize = WRAP_LEN;
/// Bytes of a wrapped project key as it stands in the key store.
pub const WRAPPED_PROJECT_KEY_LEN_BYTES: usize = WRAP_LEN;

/// Why a key could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The wrap has the wrong length, format or algorithm: written by a newer Valv, or damaged.
    #[error("a wrapped key of an unknown format")]
    UnknownFormat,
    /// The wrap was made under another version of the key.
    #[error("the wrap needs key version {needed}, not {given}")]
    WrongVersion {
        /// The version that made the wrap.
        needed: u32,
        /// The version that was tried.
        given: u32,
    },
    /// The commitment or the tag does not fit: another key, another blob or project, or damage.
    #[error("a wrapped key does not belong here or is damaged")]
    Mismatch,
    /// Raw key bytes of the wrong length.
    #[error("a key must be {KEY_LEN_BYTES} bytes")]
    Length,
    /// The operating system gave no randomness.
    #[error("no randomness available")]
    NoRandomness,
}

fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
    Ok(bytes)
}

/// Wraps `inner` under a key that is derived from `outer` for this wrap alone. The context goes into the derivation
/// and into the associated data, so a wrap moved to another place opens nowhere.
fn wrap(
    outer: &[u8; KEY_LEN],
    version: u32,
    context: &[u8],
    inner: &[u8; KEY_LEN],
) -> Result<[u8; WRAP_LEN], KeyError> {
    let salt: [u8; SALT_LEN] = random()?;
    let (key, commitment) = wrapping_key(outer, &salt, context);
    let mut out = [0; WRAP_LEN];
    out[0] = FORMAT;
    out[1] = ALGORITHM;
    out[2..6].copy_from_slice(&version.to_be_bytes());
    out[6..22].copy_from_slice(&salt);
    out[22..54].copy_from_slice(&commitment);
    out[54..86].copy_from_slice(inner);
    let (head, sealed) = out.split_at_mut(54);
    let (body, tag) = sealed.split_at_mut(KEY_LEN);
    let aad = Aad::from([&head[..6], context].concat());
    // The nonce is fixed because the key is used once: it was derived with a fresh 128-bit salt.
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let made = aead_key(&key).seal_in_place_separate_tag(nonce, aad, body).map_err(|_| KeyError::Mismatch)?;
    tag.copy_from_slice(made.as_ref());
    Ok(out)
}

fn unwrap(
    outer: &[u8; KEY_LEN],
    version: u32,
    context: &[u8],
    wrapped: &[u8],
) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let needed = wrapped_version(wrapped)?;
    if needed != version {
        return Err(KeyError::WrongVersion { needed, given: version });
    }
    let (key, commitment) = wrapping_key(outer, &wrapped[6..22], context);
    if !bool::from(commitment.ct_eq(&wrapped[22..54])) {
        return Err(KeyError::Mismatch);
    }
    let mut sealed = Zeroizing::new([0; KEY_LEN + TAG_LEN]);
    sealed.copy_from_slice(&wrapped[54..]);
    let aad = Aad::from([&wrapped[..6], context].concat());
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let opened = aead_key(&key).open_in_place(nonce, aad, sealed.as_mut_slice()).map_err(|_| KeyError::Mismatch)?;
    let mut inner = Zeroizing::new([0; KEY_LEN]);
    inner.copy_from_slice(opened);
    Ok(inner)
}

fn wrapping_key(outer: &[u8; KEY_LEN], salt: &[u8], context: &[u8]) -> (Zeroizing<[u8; KEY_LEN]>, [u8; KEY_LEN]) {
    let both = derive::<{ 2 * KEY_LEN }>(outer, salt, &[b"valv wrap v1", context]);
    let mut key = Zeroizing::new([0; KEY_LEN]);
    key.copy_from_slice(&both[..KEY_LEN]);
    let mut commitment = [0; KEY_LEN];
    commitment.copy_from_slice(&both[KEY_LEN..]);
    (key, commitment)
}

fn wrapped_version(wrapped: &[u8]) -> Result<u32, KeyError> {
    if wrapped.len() != WRAP_LEN || wrapped[0] != FORMAT || wrapped[1] != ALGORITHM {
        return Err(KeyError::UnknownFormat);
    }
    Ok(u32::from_be_bytes([wrapped[2], wrapped[3], wrapped[4], wrapped[5]]))
}

/// Which version of the project key wraps this data key.
pub fn wrapped_data_key_version(wrapped: &[u8]) -> Result<u32, KeyError> {
    wrapped_version(wrapped)
}

macro_rules! secret_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Zeroised when dropped; has no `Debug` output and is never serialised.
        #[derive(Clone)]
        pub struct $name {
            version: u32,
            bytes: Zeroizing<[u8; KEY_LEN]>,
        }

        impl $name {
            /// A fresh random key.
            pub fn generate(version: u32) -> Result<Self, KeyError> {
                Ok(Self { version, bytes: Zeroizing::new(random()?) })
            }

            /// The key with these bytes.
            pub fn from_bytes(version: u32, bytes: &[u8]) -> Result<Self, KeyError> {
                let bytes: [u8; KEY_LEN] = bytes.try_into().map_err(|_| KeyError::Length)?;
                Ok(Self { version, bytes: Zeroizing::new(bytes) })
            }

            /// The key's version: wraps name it.
            pub fn version(&self) -> u32 {
                self.version
            }

            /// The key's bytes, for the one who must store or send them under protection.
            pub fn expose(&self) -> &[u8; KEY_LEN] {
                &self.bytes
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "(version {})"), self.version)
            }
        }
    };
}

secret_key! {
    /// The root of all keys of a cluster.
    RootKey
}

secret_key! {
    /// One version of a project's key.
    ProjectKey
}

impl RootKey {
    /// Wraps a project key for the key store.
    pub fn wrap_project_key(&self, project: ProjectId, key: &ProjectKey) -> Result<Vec<u8>, KeyError> {
        Ok(wrap(&self.bytes, self.version, &project_context(project, key.version), &key.bytes)?.to_vec())
    }

    /// Unwraps version `version` of a project's key.
    pub fn unwrap_project_key(&self, project: ProjectId, version: u32, wrapped: &[u8]) -> Result<ProjectKey, KeyError> {
        let bytes = unwrap(&self.bytes, self.version, &project_context(project, version), wrapped)?;
        Ok(ProjectKey { version, bytes })
    }

    /// The key that seals what belongs to no project: access keys' secrets, and the mirror of metadata commits on the
    /// storage nodes. `purpose` separates them.
    pub fn system_record_key(&self, purpose: &str) -> RecordKey {
        RecordKey::derived(&self.bytes, &[b"valv system record v1", purpose.as_bytes()])
    }
}

fn project_context(project: ProjectId, version: u32) -> [u8; 28] {
    let mut context = [0; 28];
    context[..8].copy_from_slice(b"project\0");
    context[8..24].copy_from_slice(project.as_bytes());
    context[24..].copy_from_slice(&version.to_be_bytes());
    context
}

impl ProjectKey {
    /// Wraps a blob's data key for its version record.
    pub fn wrap_data_key(&self, project: ProjectId, blob: BlobId, key: &DataKey) -> Result<Vec<u8>, KeyError> {
        Ok(wrap(&self.bytes, self.version, &blob_context(project, blob), &key.0)?.to_vec())
    }

    /// Unwraps a blob's data key. Fails unless the wrap was made for this project and blob under this key.
    pub fn unwrap_data_key(&self, project: ProjectId, blob: BlobId, wrapped: &[u8]) -> Result<DataKey, KeyError> {
        Ok(DataKey(unwrap(&self.bytes, self.version, &blob_context(project, blob), wrapped)?))
    }

    /// The key that seals the project's metadata records.
    pub fn record_key(&self, project: ProjectId) -> RecordKey {
        RecordKey::derived(&self.bytes, &[b"valv project record v1", project.as_bytes()])
    }
}

fn blob_context(project: ProjectId, blob: BlobId) -> [u8; 40] {
    let mut context = [0; 40];
    context[..8].copy_from_slice(b"blob\0\0\0\0");
    context[8..24].copy_from_slice(project.as_bytes());
    context[24..].copy_from_slice(blob.as_bytes());
    context
}

/// The key of one blob: made for it, used for nothing else, destroyed with it.
#[derive(Clone)]
pub struct DataKey(pub(crate) Zeroizing<[u8; KEY_LEN]>);

impl DataKey {
    /// A fresh random key.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(Zeroizing::new(random()?)))
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use valv_types::IncarnationId;

    fn fixture() -> (ProjectKey, ProjectId, BlobId, DataKey) {
        let blob = BlobId::new(IncarnationId(1), 1);
        (ProjectKey::generate(3).unwrap(), ProjectId::random(), blob, DataKey::generate().unwrap())
    }

    #[test]
    fn a_data_key_unwraps_for_its_own_project_and_blob_only() {
        let (key, project, blob, data_key) = fixture();
        let wrapped = key.wrap_data_key(project, blob, &data_key).unwrap();
        assert_eq!(wrapped.len(), WRAPPED_DATA_KEY_LEN_BYTES);
        assert_eq!(*key.unwrap_data_key(project, blob, &wrapped).unwrap().0, *data_key.0);
        let elsewhere = key.unwrap_data_key(ProjectId::random(), blob, &wrapped);
        assert_eq!(elsewhere.unwrap_err(), KeyError::Mismatch);
        let other_blob = BlobId::new(IncarnationId(1), 2);
        assert_eq!(key.unwrap_data_key(project, other_blob, &wrapped).unwrap_err(), KeyError::Mismatch);
        let other_key = ProjectKey::generate(3).unwrap();
        assert_eq!(other_key.unwrap_data_key(project, blob, &wrapped).unwrap_err(), KeyError::Mismatch);
    }

    #[test]
    fn every_flipped_bit_of_a_wrap_is_noticed() {
        let (key, project, blob, data_key) = fixture();
        let wrapped = key.wrap_data_key(project, blob, &data_key).unwrap();
        for bit in 0..wrapped.len() * 8 {
            let mut damaged = wrapped.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(key.unwrap_data_key(project, blob, &damaged).is_err(), "bit {bit}");
        }
        assert_eq!(key.unwrap_data_key(project, blob, &wrapped[1..]).unwrap_err(), KeyError::UnknownFormat);
    }

    #[test]
    fn a_wrap_names_the_version_that_made_it() {
        let (key, project, blob, data_key) = fixture();
        let wrapped = key.wrap_data_key(project, blob, &data_key).unwrap();
        assert_eq!(wrapped_data_key_version(&wrapped), Ok(3));
        let newer = ProjectKey::from_bytes(4, key.expose()).unwrap();
        let error = newer.unwrap_data_key(project, blob, &wrapped).unwrap_err();
        assert_eq!(error, KeyError::WrongVersion { needed: 3, given: 4 });
    }

    #[test]
    fn a_project_key_unwraps_under_its_root_only() {
        let (root, project) = (RootKey::generate(1).unwrap(), ProjectId::random());
        let key = ProjectKey::generate(1).unwrap();
        let wrapped = root.wrap_project_key(project, &key).unwrap();
        assert_eq!(root.unwrap_project_key(project, 1, &wrapped).unwrap().expose(), key.expose());
        assert!(RootKey::generate(1).unwrap().unwrap_project_key(project, 1, &wrapped).is_err());
        assert!(root.unwrap_project_key(project, 2, &wrapped).is_err());
    }

    #[test]
    fn keys_do_not_print_themselves() {
        let key = ProjectKey::from_bytes(1, &[0x41; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "ProjectKey(version 1)");
        assert_eq!(format!("{:?}", DataKey::generate().unwrap()), "DataKey(..)");
    }
}

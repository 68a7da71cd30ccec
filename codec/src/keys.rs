//! The key hierarchy and its wraps.

use crate::customer::{CUSTOMER_WRAP_LEN, CustomerKey};
use crate::kdf::KEY_LEN;
use crate::record::RecordKey;
use crate::signing::SigningKey;
use crate::wrap::{Binding, WRAP_OVERHEAD_LEN};
use valv_types::{BlobId, ProjectId};
use zeroize::Zeroizing;

/// Length of root, project and data keys.
pub const KEY_LEN_BYTES: usize = KEY_LEN;

const FORMAT: u8 = 1;
/// HKDF-SHA256 + AES-256-GCM + 32-byte commitment, around a key.
const ALGORITHM: u8 = 1;
/// The same, around a data key that a customer's key wraps.
const ALGORITHM_CUSTOMER: u8 = 2;
/// format, algorithm, key version.
const HEAD_LEN: usize = 1 + 1 + 4;
const WRAP_LEN: usize = HEAD_LEN + KEY_LEN + WRAP_OVERHEAD_LEN;

/// Bytes of a wrapped data key as it stands in a version record.
pub const WRAPPED_DATA_KEY_LEN_BYTES: usize = WRAP_LEN;
/// Bytes of a wrapped data key that its customer's key is needed for, too.
pub const WRAPPED_CUSTOMER_DATA_KEY_LEN_BYTES: usize = HEAD_LEN + CUSTOMER_WRAP_LEN + WRAP_OVERHEAD_LEN;
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
    /// The data key is wrapped by a customer's key as well, and none was given.
    #[error("the wrap needs its customer's key, too")]
    CustomerKeyMissing,
    /// The customer's key is another than the one that wrapped the data key.
    #[error("the customer's key does not open the wrap")]
    CustomerMismatch,
    /// Raw key bytes of the wrong length.
    #[error("a key must be {KEY_LEN_BYTES} bytes")]
    Length,
    /// The operating system gave no randomness.
    #[error("no randomness available")]
    NoRandomness,
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
    Ok(bytes)
}

const LABEL: &[u8] = b"valv wrap v1";

fn head(algorithm: u8, version: u32) -> [u8; HEAD_LEN] {
    let [a, b, c, d] = version.to_be_bytes();
    [FORMAT, algorithm, a, b, c, d]
}

fn wrap<const N: usize>(
    outer: &[u8; KEY_LEN],
    head: [u8; HEAD_LEN],
    context: &[u8],
    inner: &[u8; N],
) -> Result<Vec<u8>, KeyError> {
    let mut out = vec![0; HEAD_LEN + N + WRAP_OVERHEAD_LEN];
    out[..HEAD_LEN].copy_from_slice(&head);
    Binding { label: LABEL, context, head: &head }.wrap(outer, inner, &mut out[HEAD_LEN..])?;
    Ok(out)
}

fn unwrap<const N: usize>(
    outer: &[u8; KEY_LEN],
    version: u32,
    context: &[u8],
    wrapped: &[u8],
) -> Result<Zeroizing<[u8; N]>, KeyError> {
    let (_, needed) = read_head(wrapped)?;
    if needed != version {
        return Err(KeyError::WrongVersion { needed, given: version });
    }
    let (head, sealed) = wrapped.split_at(HEAD_LEN);
    Binding { label: LABEL, context, head }.unwrap(outer, sealed)
}

/// What is wrapped, and the version of the key that wraps it.
fn read_head(wrapped: &[u8]) -> Result<(Layers, u32), KeyError> {
    let Some((&[FORMAT, algorithm, a, b, c, d], _)) = wrapped.split_first_chunk() else {
        return Err(KeyError::UnknownFormat);
    };
    let layers = match (algorithm, wrapped.len()) {
        (ALGORITHM, WRAP_LEN) => Layers::One,
        (ALGORITHM_CUSTOMER, WRAPPED_CUSTOMER_DATA_KEY_LEN_BYTES) => Layers::Customer,
        _ => return Err(KeyError::UnknownFormat),
    };
    Ok((layers, u32::from_be_bytes([a, b, c, d])))
}

/// What a wrap holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layers {
    /// The inner key.
    One,
    /// A data key, wrapped by a customer's key.
    Customer,
}

/// Which version of the project key wraps this data key.
pub fn wrapped_data_key_version(wrapped: &[u8]) -> Result<u32, KeyError> {
    Ok(read_head(wrapped)?.1)
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

secret_key! {
    /// What the system's own records are sealed under, and what its signing key follows from. It lies in the key store,
    /// wrapped by the root key, so that the root key can be replaced and these stay.
    SystemKey
}

impl RootKey {
    /// Wraps a project key for the key store.
    pub fn wrap_project_key(&self, project: ProjectId, key: &ProjectKey) -> Result<Vec<u8>, KeyError> {
        wrap(&self.bytes, head(ALGORITHM, self.version), &project_context(project, key.version), &key.bytes)
    }

    /// Unwraps version `version` of a project's key.
    pub fn unwrap_project_key(&self, project: ProjectId, version: u32, wrapped: &[u8]) -> Result<ProjectKey, KeyError> {
        let bytes = unwrap(&self.bytes, self.version, &project_context(project, version), wrapped)?;
        Ok(ProjectKey { version, bytes })
    }

    /// Wraps the system key for the key store.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn wrap_system_key(&self, key: &SystemKey) -> Result<Vec<u8>, KeyError> {
        wrap(&self.bytes, head(ALGORITHM, self.version), &system_context(key.version), &key.bytes)
    }

    /// Unwraps version `version` of the system key.
    ///
    /// # Errors
    /// [`KeyError`], if the wrap was made for something else or under another root key.
    pub fn unwrap_system_key(&self, version: u32, wrapped: &[u8]) -> Result<SystemKey, KeyError> {
        let bytes = unwrap(&self.bytes, self.version, &system_context(version), wrapped)?;
        Ok(SystemKey { version, bytes })
    }

    /// The system key of a cluster that was made before there was one: the same bytes.
    pub fn as_system_key(&self) -> SystemKey {
        SystemKey { version: 1, bytes: self.bytes.clone() }
    }

    pub(crate) fn sealed_under(&self, sealing: &[u8; KEY_LEN], context: &[u8]) -> Result<Vec<u8>, KeyError> {
        wrap(sealing, head(ALGORITHM, self.version), context, &self.bytes)
    }

    pub(crate) fn opened_under(
        sealing: &[u8; KEY_LEN],
        version: u32,
        context: &[u8],
        sealed: &[u8],
    ) -> Result<Self, KeyError> {
        Ok(Self { version, bytes: unwrap(sealing, version, context, sealed)? })
    }
}

impl SystemKey {
    /// The key that seals what belongs to no project: access keys' secrets, and the mirror of metadata commits on the
    /// storage nodes. `purpose` separates them.
    pub fn system_record_key(&self, purpose: &str) -> RecordKey {
        RecordKey::derived(&self.bytes, &[b"valv system record v1", purpose.as_bytes()])
    }

    /// The key that signs what Valv states to outsiders: heads of ledgers.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::derived(&self.bytes)
    }
}

fn system_context(version: u32) -> [u8; 12] {
    let mut context = [0; 12];
    context[..8].copy_from_slice(b"system\0\0");
    context[8..].copy_from_slice(&version.to_be_bytes());
    context
}

fn project_context(project: ProjectId, version: u32) -> [u8; 28] {
    let mut context = [0; 28];
    context[..8].copy_from_slice(b"project\0");
    context[8..24].copy_from_slice(project.as_bytes());
    context[24..].copy_from_slice(&version.to_be_bytes());
    context
}

impl ProjectKey {
    /// Wraps a blob's data key for its version record: by this key alone, or by the customer's first.
    pub fn wrap_data_key(
        &self,
        project: ProjectId,
        blob: BlobId,
        key: &DataKey,
        customer: Option<&CustomerKey>,
    ) -> Result<Vec<u8>, KeyError> {
        let context = blob_context(project, blob);
        match customer {
            None => wrap(&self.bytes, head(ALGORITHM, self.version), &context, &key.0),
            Some(customer) => {
                let inner = customer.wrap(&context, &key.0)?;
                wrap(&self.bytes, head(ALGORITHM_CUSTOMER, self.version), &context, &inner)
            }
        }
    }

    /// Unwraps a blob's data key. Fails unless the wrap was made for this project and blob under this key, and with the
    /// same customer's key or none.
    ///
    /// # Errors
    /// [`KeyError::CustomerKeyMissing`], [`KeyError::CustomerMismatch`] if the customer's key is at fault; a wrap without
    /// customer's key where one is given is not the one that was made, so [`KeyError::Mismatch`].
    pub fn unwrap_data_key(
        &self,
        project: ProjectId,
        blob: BlobId,
        wrapped: &[u8],
        customer: Option<&CustomerKey>,
    ) -> Result<DataKey, KeyError> {
        let context = blob_context(project, blob);
        let key = match (read_head(wrapped)?.0, customer) {
            (Layers::One, None) => unwrap(&self.bytes, self.version, &context, wrapped)?,
            (Layers::One, Some(_)) => return Err(KeyError::Mismatch),
            (Layers::Customer, None) => return Err(KeyError::CustomerKeyMissing),
            (Layers::Customer, Some(customer)) => {
                let inner: Zeroizing<[u8; CUSTOMER_WRAP_LEN]> = unwrap(&self.bytes, self.version, &context, wrapped)?;
                customer.unwrap(&context, &inner)?
            }
        };
        Ok(DataKey(key))
    }

    /// Makes a blob's wrap anew under this key, where `old` made it. A customer's layer stays as it is: nobody's key but
    /// the project's is needed.
    ///
    /// # Errors
    /// [`KeyError`], if `old` did not make the wrap for this project and blob.
    pub fn rewrap_data_key(
        &self,
        old: &Self,
        project: ProjectId,
        blob: BlobId,
        wrapped: &[u8],
    ) -> Result<Vec<u8>, KeyError> {
        let context = blob_context(project, blob);
        match read_head(wrapped)?.0 {
            Layers::One => {
                let inner: Zeroizing<[u8; KEY_LEN]> = unwrap(&old.bytes, old.version, &context, wrapped)?;
                wrap(&self.bytes, head(ALGORITHM, self.version), &context, &inner)
            }
            Layers::Customer => {
                let inner: Zeroizing<[u8; CUSTOMER_WRAP_LEN]> = unwrap(&old.bytes, old.version, &context, wrapped)?;
                wrap(&self.bytes, head(ALGORITHM_CUSTOMER, self.version), &context, &inner)
            }
        }
    }

    /// By what the key is known when it is gone: 16 bytes that follow from it and tell nothing of it.
    pub fn fingerprint(&self, project: ProjectId) -> [u8; 16] {
        *crate::kdf::derive::<16>(&*self.bytes, &[], &[b"valv key fingerprint v1", project.as_bytes()])
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
    use proptest::prelude::*;
    use valv_types::IncarnationId;

    fn fixture() -> (ProjectKey, ProjectId, BlobId, DataKey) {
        let blob = BlobId::new(IncarnationId(1), 1);
        (ProjectKey::generate(3).unwrap(), ProjectId::random(), blob, DataKey::generate().unwrap())
    }

    #[test]
    fn a_data_key_unwraps_for_its_own_project_and_blob_only() {
        let (key, project, blob, data_key) = fixture();
        let wrapped = key.wrap_data_key(project, blob, &data_key, None).unwrap();
        assert_eq!(wrapped.len(), WRAPPED_DATA_KEY_LEN_BYTES);
        assert_eq!(*key.unwrap_data_key(project, blob, &wrapped, None).unwrap().0, *data_key.0);
        let elsewhere = key.unwrap_data_key(ProjectId::random(), blob, &wrapped, None);
        assert_eq!(elsewhere.unwrap_err(), KeyError::Mismatch);
        let other_blob = BlobId::new(IncarnationId(1), 2);
        assert_eq!(key.unwrap_data_key(project, other_blob, &wrapped, None).unwrap_err(), KeyError::Mismatch);
        let other_key = ProjectKey::generate(3).unwrap();
        assert_eq!(other_key.unwrap_data_key(project, blob, &wrapped, None).unwrap_err(), KeyError::Mismatch);
    }

    #[test]
    fn every_flipped_bit_of_a_wrap_is_noticed() {
        let (key, project, blob, data_key) = fixture();
        let wrapped = key.wrap_data_key(project, blob, &data_key, None).unwrap();
        for bit in 0..wrapped.len() * 8 {
            let mut damaged = wrapped.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(key.unwrap_data_key(project, blob, &damaged, None).is_err(), "bit {bit}");
        }
        assert_eq!(key.unwrap_data_key(project, blob, &wrapped[1..], None).unwrap_err(), KeyError::UnknownFormat);
    }

    #[test]
    fn a_wrap_names_the_version_that_made_it() {
        let (key, project, blob, data_key) = fixture();
        let wrapped = key.wrap_data_key(project, blob, &data_key, None).unwrap();
        assert_eq!(wrapped_data_key_version(&wrapped), Ok(3));
        let newer = ProjectKey::from_bytes(4, key.expose()).unwrap();
        let error = newer.unwrap_data_key(project, blob, &wrapped, None).unwrap_err();
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
    fn a_wrap_is_made_anew_without_the_customers_key() {
        let (old, project, blob, data_key) = fixture();
        let new = ProjectKey::generate(4).unwrap();
        let customer = CustomerKey::from_bytes(&[7; 32]).unwrap();
        for customer in [None, Some(&customer)] {
            let wrapped = old.wrap_data_key(project, blob, &data_key, customer).unwrap();
            let again = new.rewrap_data_key(&old, project, blob, &wrapped).unwrap();
            assert_eq!((again.len(), wrapped_data_key_version(&again)), (wrapped.len(), Ok(4)));
            assert_eq!(*new.unwrap_data_key(project, blob, &again, customer).unwrap().0, *data_key.0);
            assert!(old.unwrap_data_key(project, blob, &again, customer).is_err());
            assert!(new.rewrap_data_key(&old, ProjectId::random(), blob, &wrapped).is_err());
            assert!(new.rewrap_data_key(&old, project, blob, &again).is_err());
        }
        assert_ne!(old.fingerprint(project), new.fingerprint(project));
        assert_ne!(old.fingerprint(project), old.fingerprint(ProjectId::random()));
    }

    #[test]
    fn the_system_key_unwraps_under_its_root_only() {
        let (root, system) = (RootKey::generate(2).unwrap(), SystemKey::generate(1).unwrap());
        let wrapped = root.wrap_system_key(&system).unwrap();
        assert_eq!(root.unwrap_system_key(1, &wrapped).unwrap().expose(), system.expose());
        assert!(root.unwrap_system_key(2, &wrapped).is_err());
        assert!(RootKey::generate(2).unwrap().unwrap_system_key(1, &wrapped).is_err());
        assert!(root.unwrap_project_key(ProjectId::random(), 1, &wrapped).is_err());
        assert_eq!(root.as_system_key().expose(), root.expose());
    }

    #[test]
    fn a_customers_data_key_needs_both_keys_and_its_own_place() {
        let (key, project, blob, data_key) = fixture();
        let (customer, other) =
            (CustomerKey::from_bytes(&[7; 32]).unwrap(), CustomerKey::from_bytes(&[8; 32]).unwrap());
        let wrapped = key.wrap_data_key(project, blob, &data_key, Some(&customer)).unwrap();
        assert_eq!(wrapped.len(), WRAPPED_CUSTOMER_DATA_KEY_LEN_BYTES);
        assert_eq!(wrapped_data_key_version(&wrapped), Ok(3));
        let open = |key: &ProjectKey, project, blob, customer| key.unwrap_data_key(project, blob, &wrapped, customer);
        assert_eq!(*open(&key, project, blob, Some(&customer)).unwrap().0, *data_key.0);
        let elsewhere = BlobId::new(IncarnationId(1), 2);
        let newer = ProjectKey::from_bytes(4, key.expose()).unwrap();
        for (opened, expected) in [
            (open(&key, project, blob, None), KeyError::CustomerKeyMissing),
            (open(&key, project, blob, Some(&other)), KeyError::CustomerMismatch),
            (open(&key, ProjectId::random(), blob, Some(&customer)), KeyError::Mismatch),
            (open(&key, project, elsewhere, Some(&customer)), KeyError::Mismatch),
            (open(&ProjectKey::generate(3).unwrap(), project, blob, Some(&customer)), KeyError::Mismatch),
            (open(&newer, project, blob, Some(&customer)), KeyError::WrongVersion { needed: 3, given: 4 }),
        ] {
            assert_eq!(opened.unwrap_err(), expected);
        }
        // A wrap that the project's key opens alone, put in the place of one that it should not.
        let plain = key.wrap_data_key(project, blob, &data_key, None).unwrap();
        let swapped = key.unwrap_data_key(project, blob, &plain, Some(&customer));
        assert_eq!(swapped.unwrap_err(), KeyError::Mismatch);
    }

    #[test]
    fn a_data_key_is_no_project_key() {
        let (root, project) = (RootKey::generate(3).unwrap(), ProjectId::random());
        let (_, _, blob, data_key) = fixture();
        let key = ProjectKey::from_bytes(3, root.expose()).unwrap();
        let customer = CustomerKey::from_bytes(&[7; 32]).unwrap();
        for customer in [None, Some(&customer)] {
            let wrapped = key.wrap_data_key(project, blob, &data_key, customer).unwrap();
            assert!(root.unwrap_project_key(project, 3, &wrapped).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_change_of_a_customers_wrap_or_key_is_noticed(
            bytes in any::<[u8; 32]>(),
            bit in any::<prop::sample::Index>(),
            key_bit in 0..256_usize,
        ) {
            let (key, project, blob, data_key) = fixture();
            let customer = CustomerKey::from_bytes(&bytes).unwrap();
            let mut wrapped = key.wrap_data_key(project, blob, &data_key, Some(&customer)).unwrap();
            let mut near = bytes;
            near[key_bit / 8] ^= 1 << (key_bit % 8);
            let near = CustomerKey::from_bytes(&near).unwrap();
            let opened = key.unwrap_data_key(project, blob, &wrapped, Some(&near));
            prop_assert_eq!(opened.unwrap_err(), KeyError::CustomerMismatch);
            let bit = bit.index(wrapped.len() * 8);
            wrapped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(key.unwrap_data_key(project, blob, &wrapped, Some(&customer)).is_err());
        }
    }

    /// Made by another implementation (Python's `cryptography`) from docs/format.md; never to be made anew.
    #[test]
    fn golden_wraps_open() {
        let (project, blob) = (ProjectId::from_bytes([0x44; 16]), BlobId::from_bytes([0x55; 16]));
        let key = ProjectKey::from_bytes(7, &[0x11; 32]).unwrap();
        let customer = CustomerKey::from_bytes(&[0x22; 32]).unwrap();
        let plain = hex::decode(
            "0101000000076666666666666666666666666666666693b1f306c119c6be4c02e7ea7115235b8d0d9c7860e5ef81531b\
             104e71ef2cf06bb976fca6b62e65cdce52c3e3c72f5b04567fadf41fda59d1b4cfdf6236af542b26a1a7d3a93438fd9f\
             606502e51c77",
        )
        .unwrap();
        assert_eq!(*key.unwrap_data_key(project, blob, &plain, None).unwrap().0, [0x33; 32]);
        let both = hex::decode(
            "0102000000076666666666666666666666666666666693b1f306c119c6be4c02e7ea7115235b8d0d9c7860e5ef81531b\
             104e71ef2cf02ffd32b8e2f26a21898a1687a7836b1f5298d96d9f688d7ca44948c7417161dcc9d6768ae5bff45f01a6\
             8147453403b9d512b8d1b74f0499e2b8890e84942f3e962494be88407c2ceed9141c75027b2a9ad570f82efa75afe387\
             aa246898df7b46187a9f06459d39031d6cd103f0ee52",
        )
        .unwrap();
        assert_eq!(*key.unwrap_data_key(project, blob, &both, Some(&customer)).unwrap().0, [0x33; 32]);
    }

    #[test]
    fn keys_do_not_print_themselves() {
        let key = ProjectKey::from_bytes(1, &[0x41; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "ProjectKey(version 1)");
        assert_eq!(format!("{:?}", DataKey::generate().unwrap()), "DataKey(..)");
    }
}

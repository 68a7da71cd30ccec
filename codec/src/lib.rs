//! Keys and frames: everything that touches key material or calls the AEAD.
//!
//! Hierarchy: root key -> system key and project keys; project keys -> one data key per blob -> frames; a customer's own key may stand between project
//! and data key. Each step down is a wrap under a key that HKDF derives for that one wrap, so no nonce limit applies, and
//! each wrap and each blob commits to its key, so that a ciphertext opens under one key only. This crate must never know
//! about disks, metadata rows or S3.
//!
//! The bytes are specified in `docs/format.md`, "Keys" and "Frames".

mod backup;
mod customer;
mod frame;
mod kdf;
mod keys;
mod record;
mod sealing;
mod shamir;
mod signing;
mod wrap;

pub use backup::{BACKUP_ITERATIONS, SealedBackup};
pub use customer::{CustomerKey, CustomerKeyCheck};
pub use frame::{BlobContext, FrameError, FrameOpener, FrameSealer};
pub use keys::{
    DataKey, KEY_LEN_BYTES, KeyError, ProjectKey, RootKey, SystemKey, WRAPPED_CUSTOMER_DATA_KEY_LEN_BYTES,
    WRAPPED_DATA_KEY_LEN_BYTES, WRAPPED_PROJECT_KEY_LEN_BYTES, wrapped_data_key_version,
};
pub use record::{RECORD_OVERHEAD_BYTES, RecordKey};
pub use sealing::{SEALED_ROOT_KEY_LEN_BYTES, SEALING_ITERATIONS, SealingKey};
pub use shamir::{SHARES_MAX, Share, ShareError, ShareSet, SplitError};
pub use signing::{PUBLIC_KEY_LEN_BYTES, SIGNATURE_LEN_BYTES, SigningKey};

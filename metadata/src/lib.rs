//! The metadata service: retention, custody and placement over an ordered, transactional store.
//!
//! Domain logic is deterministic code over the `MetaStore` trait. RocksDB is known only to `store::rocks`; this crate
//! knows the shard API only to mirror its commits, and never how shards lie on disk.

mod accesses;
mod appointments;
mod approvals;
mod attempt;
mod background;
mod blobs;
mod bootstrap;
mod buckets;
mod clock;
mod conditions;
mod copies;
mod credentials;
mod custody;
mod export;
pub mod grpc;
mod holdings;
mod incarnations;
mod keystore;
mod ledger;
mod lifecycle;
mod listing;
mod lock;
mod members;
mod objects;
mod openings;
mod principals;
mod projects;
mod proofs;
mod quota;
mod receipts;
mod records;
mod repairs;
mod retention;
mod rotation;
mod rows;
mod seal;
mod sequencer;
mod service;
mod shredding;
mod statements;
pub mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod trash;
mod uploads;
mod usage;
mod users;
mod versions;

pub use bootstrap::{BootstrapConfig, BootstrapError};
pub use custody::{FoundHorizon, HorizonProgress};
pub use export::ExportError;
pub use holdings::{HeldCursor, HeldPage, HeldVersion};
pub use keystore::{
    KeyStore, KeyStoreError, KeyVersion, ROOT_KEY_FILE, RootHome, RootKeyFile, SEALED_ROOT_KEY_FILE, SealMethod,
    SealedRootKey, ShreddedKey, ShreddedProject, destroy_file,
};
pub use lifecycle::LifecycleCounts;
pub use openings::ConfiguredOpening;
pub use proofs::{Consistency, EventAsked, Inclusion};
pub use receipts::ReceiptAsked;
pub use retention::disposal_facts;
pub use rotation::{ProjectKeys, Rotation};
pub use sequencer::LedgerExportError;
pub use service::{MetadataConfig, MetadataService, OpenError};
pub use usage::ProjectUsage;

//! One engine per disk folder. Extents are the truth, the index is derived from them.
//!
//! The writer thread alone appends and alone changes shards' rows of the index; readers look up, read and verify; the
//! maintenance thread reclaims, scrubs and watches space. See ARCHITECTURE.md and `docs/format-disk.md`.

mod allocate;
mod disk;
mod folder;
mod index;
pub(crate) mod io;
mod queue;
mod read;
mod reclaim;
mod recovery;
mod scrub;
mod shared;
mod space;
mod stage;
mod walk;
mod writer;

pub use disk::{Disk, DiskContext, OpenError};
pub(crate) use disk::{absent_status, is_same};
pub use folder::{ExpectedDisk, FolderError, Identity, read_superblock};
pub use io::{ExtentIo, SystemIo};
pub(crate) use read::VerifiedBlocks;
pub use scrub::ScrubOutcome;
pub(crate) use scrub::successor;
pub use shared::CorruptReport;
pub(crate) use shared::REPORTS_MAX;

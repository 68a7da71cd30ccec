//! The data folder: taken by one server at a time, and known by its identity file.

use crate::config::{Config, Role};
use crate::identity::Identity;
use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An open data folder. Dropping it lets another server have it.
pub(crate) struct DataFolder {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Whose it is.
    pub(crate) identity: Identity,
    _lock: File,
}

/// Locks the data folder and reads its identity, or makes it on the first start.
pub(crate) fn open_folder(config: &Config) -> anyhow::Result<DataFolder> {
    let path = config.data.clone();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .with_context(|| format!("creating the data folder {}", path.display()))?;
    let lock = lock(&path)?;
    let folders: &[PathBuf] = if config.has(Role::Storage) { &config.storage.disks } else { &[] };
    let identity = match Identity::load(&path)? {
        Some(identity) => {
            identity.check_cluster(config.cluster.as_deref())?;
            identity
        }
        None => {
            refuse_leftovers(&path, folders)?;
            let identity = Identity::new(config.cluster.as_deref(), folders);
            identity.store(&path)?;
            identity
        }
    };
    Ok(DataFolder { path, identity, _lock: lock })
}

impl DataFolder {
    /// Whether a first start has not got to its end yet. After a crash in the middle of one, the next start finishes it.
    pub(crate) fn is_first_start(&self) -> bool {
        !self.identity.initialised
    }

    /// The first start is over: from now on an empty disk folder is a disk that is away.
    pub(crate) fn finish_first_start(&mut self) -> anyhow::Result<()> {
        if self.is_first_start() {
            self.identity.initialised = true;
            self.identity.store(&self.path)?;
        }
        Ok(())
    }
}

/// Takes a data folder that is there, so that no server starts over it meanwhile; it is let go when the file is dropped.
pub(crate) fn lock(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path.join("lock"))
        .with_context(|| format!("opening the lock of {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("{} is in use by another Valv server", path.display());
    }
    Ok(file)
}

/// Without an identity, nothing may be there that a new identity would hide: absence of the file is no evidence that
/// the data is gone too.
fn refuse_leftovers(path: &Path, disks: &[PathBuf]) -> anyhow::Result<()> {
    let mut leftovers: Vec<PathBuf> =
        ["metadata", "keys", "root.key", "root.key.sealed"].iter().map(|name| path.join(name)).collect();
    leftovers.extend(disks.iter().map(|disk| disk.join("superblock.0")));
    leftovers.extend(disks.iter().map(|disk| disk.join("superblock.1")));
    for leftover in leftovers {
        if fs::exists(&leftover).with_context(|| format!("looking at {}", leftover.display()))? {
            bail!(
                "{} is there, but {} is not: put the identity file back from a backup, or use an empty folder",
                leftover.display(),
                path.join("identity.json").display()
            );
        }
    }
    Ok(())
}

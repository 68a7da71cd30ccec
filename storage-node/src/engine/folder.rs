//! A disk's folder: superblocks, lock, names of files, and the durable directory operations.

use rustix::fs::FlockOperation;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use valv_disk_format::{ExtentId, FormatError, SUPERBLOCK_LEN, Superblock};
use valv_types::{ClusterId, DiskId, NodeId, TimestampMicros};

const SUPERBLOCKS: [&str; 2] = ["superblock.0", "superblock.1"];
const LOCK: &str = "lock";
const EXTENTS: &str = "extents";
const INDEX: &str = "index";
/// Where an index that can't be trusted waits until its replacement is built.
const INDEX_BAD: &str = "index.bad";
/// Says that the index failed while it was in use and must be rebuilt, however good it looks.
const INDEX_MARK: &str = "index.rebuild";

/// Who a folder is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node that initialises it.
    pub node: NodeId,
    /// The disk.
    pub disk: DiskId,
    /// A name for people, at most 255 bytes.
    pub name: String,
}

/// Which disk is expected in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedDisk {
    /// The cluster.
    pub cluster: ClusterId,
    /// The disk.
    pub disk: DiskId,
}

/// Why a folder was not opened or initialised. Nothing in it was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FolderError {
    /// There is no such folder.
    #[error("the folder is missing")]
    Missing,
    /// The folder is empty: most likely its file system is not mounted. Initialising it is a command of its own.
    #[error("the folder is empty")]
    Empty,
    /// The folder holds something, but no superblock.
    #[error("the folder holds no superblock")]
    NoSuperblock,
    /// To initialise: the folder is not empty.
    #[error("the folder is not empty")]
    NotEmpty,
    /// Neither copy of the superblock can be read.
    #[error("both superblocks are damaged: {0}")]
    Damaged(FormatError),
    /// The folder belongs to another disk.
    #[error("the folder belongs to disk {disk} of cluster {cluster}")]
    Foreign {
        /// The cluster it belongs to.
        cluster: ClusterId,
        /// The disk it is.
        disk: DiskId,
    },
    /// Another process, or another engine of this one, has the folder open.
    #[error("the folder is in use by another process")]
    InUse,
    /// The operating system refused.
    #[error("the folder can't be used: {0}")]
    Io(#[source] Arc<io::Error>),
}

impl From<io::Error> for FolderError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Names of what is in a disk's folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: PathBuf,
}

/// Holds the folder's lock until it is dropped.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl Folder {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn extents(&self) -> PathBuf {
        self.root.join(EXTENTS)
    }

    pub(crate) fn extent(&self, id: ExtentId) -> PathBuf {
        self.root.join(EXTENTS).join(format!("{id}.ext"))
    }

    /// The file of a reclaimed extent that waits to become another.
    pub(crate) fn recycled(&self, id: ExtentId) -> PathBuf {
        self.root.join(EXTENTS).join(format!("{id}.free"))
    }

    /// An extent that is being made. What is found under such a name after a crash was never used.
    pub(crate) fn unborn(&self, id: ExtentId) -> PathBuf {
        self.root.join(EXTENTS).join(format!("{id}.tmp"))
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join(INDEX)
    }

    pub(crate) fn index_bad(&self) -> PathBuf {
        self.root.join(INDEX_BAD)
    }

    pub(crate) fn index_mark(&self) -> PathBuf {
        self.root.join(INDEX_MARK)
    }

    pub(crate) fn superblock(&self, copy: usize) -> PathBuf {
        self.root.join(SUPERBLOCKS[copy])
    }

    /// Takes the folder's lock, or says who is in the way. The kernel drops it with the process, however that ends.
    pub(crate) fn lock(&self) -> Result<FolderLock, FolderError> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.root.join(LOCK))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FolderError::InUse),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// The best superblock of the folder, and which copies are damaged or behind.
    pub(crate) fn read_superblock(&self) -> Result<(Superblock, [bool; 2]), FolderError> {
        let copies = [0, 1].map(|copy| read_copy(&self.superblock(copy)));
        let best = copies.iter().flatten().flatten().max_by_key(|copy| copy.sequence).cloned();
        if let Some(best) = best {
            let stale = copies.map(|copy| !matches!(copy, Ok(Ok(ref found)) if *found == best));
            return Ok((best, stale));
        }
        let mut damage = None;
        for copy in copies {
            match copy {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => damage = Some(FolderError::Damaged(error)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        match damage {
            Some(error) => Err(error),
            None => Err(match fs::read_dir(&self.root) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => FolderError::Missing,
                Err(error) => error.into(),
                Ok(mut entries) => {
                    // A file system's own folder does not make a mount point less empty.
                    if entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lost+found")) {
                        FolderError::Empty
                    } else {
                        FolderError::NoSuperblock
                    }
                }
            }),
        }
    }

    /// Writes both copies, one after the other, each durable before the next is touched.
    pub(crate) fn write_superblock(&self, superblock: &Superblock) -> Result<(), FolderError> {
        let bytes = superblock.encode().map_err(FolderError::Damaged)?;
        for copy in 0..SUPERBLOCKS.len() {
            let path = self.superblock(copy);
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
        }
        sync_folder(&self.root)?;
        Ok(())
    }

    /// Initialises an empty folder (or makes one). Everything is durable when it returns. What a crash in the middle
    /// leaves is taken up where it was left.
    pub(crate) fn format(&self, identity: &Identity) -> Result<Superblock, FolderError> {
        fs::create_dir_all(&self.root)?;
        match self.read_superblock() {
            Err(FolderError::Empty) => {}
            Ok(_) => return Err(FolderError::NotEmpty),
            Err(FolderError::NoSuperblock | FolderError::Damaged(_)) if self.is_half_made()? => {}
            Err(FolderError::NoSuperblock | FolderError::Damaged(_)) => return Err(FolderError::NotEmpty),
            Err(error) => return Err(error),
        }
        let _lock = self.lock()?;
        let superblock = Superblock {
            sequence: 1,
            cluster: identity.cluster,
            node: identity.node,
            disk: identity.disk,
            formatted: *NodeId::random().as_bytes(),
            opened: TimestampMicros::now().0,
            name: identity.name.clone(),
        };
        // Refuses a name that is too long before anything is written.
        superblock.encode().map_err(FolderError::Damaged)?;
        fs::create_dir_all(self.extents())?;
        sync_folder(&self.extents())?;
        // The superblock comes last: a folder that has one is complete.
        self.write_superblock(&superblock)?;
        if let Some(parent) = self.root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent)?;
        }
        Ok(superblock)
    }

    /// Whether the folder holds only what [`Self::format`] makes before it is done. A disk that was ever opened has an
    /// index, or an extent, so no data can be in such a folder.
    fn is_half_made(&self) -> io::Result<bool> {
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            let is_known = name.to_str().is_some_and(|name| {
                name == LOCK || name == EXTENTS || name == "lost+found" || SUPERBLOCKS.contains(&name)
            });
            if !is_known {
                return Ok(false);
            }
        }
        match fs::read_dir(self.extents()) {
            Ok(mut extents) => Ok(extents.next().is_none()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

fn read_copy(path: &Path) -> io::Result<Result<Superblock, FormatError>> {
    let file = File::open(path)?;
    let bytes = super::io::read_at(&file, 0, SUPERBLOCK_LEN)?;
    Ok(Superblock::decode(&bytes))
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Reads the superblock of the disk folder at `path`, for tools: takes no lock and changes nothing.
pub fn read_superblock(path: &Path) -> Result<Superblock, FolderError> {
    Folder::new(path).read_superblock().map(|(superblock, _)| superblock)
}

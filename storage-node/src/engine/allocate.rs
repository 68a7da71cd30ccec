//! Makes new extents: from a recycled file where there is one, else preallocated.

use super::folder::sync_folder;
use super::io::write_all_at;
use super::shared::{ExtentFile, Shared};
use super::space::FileSystem;
use rustix::fs::FallocateFlags;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use valv_disk_format::{EXTENT_HEADER_LEN, ExtentHeader, ExtentId, RECORD_HEADER_LEN};
use valv_types::{SYSTEM_POOL, ShardKey};

/// What an extent is needed for: puts leave the reserve alone, the others may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Put,
    /// Deletes, and copies by compaction: they are how space comes back.
    FreeSpace,
}

/// What a put is for. The metadata mirror's may use the reserve: without a commit nothing can be deleted, so refusing
/// them on a full disk would keep it full for ever.
pub(crate) fn purpose_of(key: &ShardKey) -> Purpose {
    if key.pool == SYSTEM_POOL { Purpose::FreeSpace } else { Purpose::Put }
}

/// Why there is no new extent.
#[derive(Debug)]
pub(crate) enum AllocateError {
    /// The file system has no room for it.
    Full,
    /// The disk does not do what it should.
    Io(io::Error),
}

impl From<io::Error> for AllocateError {
    fn from(error: io::Error) -> Self {
        // Running out of space while preallocating says nothing about what is already written.
        if error.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) { Self::Full } else { Self::Io(error) }
    }
}

/// An extent whose header is durable but whose name is not yet: see [`Unborn::publish`].
pub(crate) struct Unborn {
    id: ExtentId,
    path: PathBuf,
    pub(crate) len: u64,
}

/// Makes the file of extent `id`, with room for a record of `record_len` bytes and the seal.
pub(crate) fn prepare(
    shared: &Shared,
    id: ExtentId,
    sequence: u64,
    record_len: u64,
    purpose: Purpose,
) -> Result<Unborn, AllocateError> {
    let needed = EXTENT_HEADER_LEN + record_len + RECORD_HEADER_LEN as u64;
    if needed <= shared.config.extent_len_bytes
        && let Some(path) = shared.recycled.lock().pop()
    {
        let len = fs::metadata(&path)?.len();
        write_header(shared, &File::options().write(true).open(&path)?, id, sequence, len)?;
        return Ok(Unborn { id, path, len });
    }
    let available = FileSystem::of(shared.folder.root())?.available_bytes;
    let reserve = shared.space.reserve_bytes();
    // Small extents when space is short: half of the reserve is left for deletes, and they take it in halves.
    let room = match purpose {
        Purpose::Put => available.saturating_sub(reserve / 2),
        Purpose::FreeSpace => available / 2,
    };
    if room < needed {
        return Err(AllocateError::Full);
    }
    let len = shared.config.extent_len_bytes.min(room / EXTENT_HEADER_LEN * EXTENT_HEADER_LEN).max(needed);
    let path = shared.folder.unborn(id);
    let made = (|| {
        let file = File::options().create(true).truncate(true).write(true).open(&path)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
            Ok(()) => {}
            // Not every file system preallocates; the length alone then has to do.
            Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(len)?,
            Err(error) => return Err(error.into()),
        }
        write_header(shared, &file, id, sequence, len)?;
        // The length too has to be durable.
        file.sync_all()
    })();
    if let Err(error) = made {
        let _ = fs::remove_file(&path);
        return Err(error.into());
    }
    Ok(Unborn { id, path, len })
}

fn write_header(shared: &Shared, file: &File, id: ExtentId, sequence: u64, len_bytes: u64) -> io::Result<()> {
    let superblock = &shared.superblock;
    let header =
        ExtentHeader { extent: id, cluster: superblock.cluster, disk: superblock.disk, sequence, len_bytes }.encode();
    write_all_at(&*shared.config.io, file, &mut [IoSlice::new(&header)], 0)?;
    shared.config.io.sync_data(file)
}

impl Unborn {
    /// Gives the extent its name, durably, and lets it be read.
    pub(crate) fn publish(self, shared: &Shared) -> io::Result<Arc<ExtentFile>> {
        let path = shared.folder.extent(self.id);
        fs::rename(&self.path, &path)?;
        sync_folder(&shared.folder.extents())?;
        let file = Arc::new(ExtentFile::new(self.id, path));
        shared.extents.write().insert(self.id, file.clone());
        Ok(file)
    }
}

/// Keeps the file of a reclaimed extent for reuse, or unlinks it. The change is durable when this returns.
pub(crate) fn recycle_or_unlink(shared: &Shared, id: ExtentId, path: &Path) -> io::Result<()> {
    let is_full_size = fs::metadata(path)?.len() == shared.config.extent_len_bytes;
    let has_room = shared.recycled.lock().len() < shared.config.recycled_extents_max;
    if is_full_size && has_room {
        let kept = shared.folder.recycled(id);
        fs::rename(path, &kept)?;
        sync_folder(&shared.folder.extents())?;
        shared.recycled.lock().push(kept);
    } else {
        fs::remove_file(path)?;
        sync_folder(&shared.folder.extents())?;
    }
    Ok(())
}

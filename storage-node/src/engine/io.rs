//! The two calls on which durability hangs, behind a trait so that tests can make them fail.

use rustix::fd::AsFd;
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};

/// Writes and syncs of extent files.
pub trait ExtentIo: Send + Sync + fmt::Debug + 'static {
    /// Writes from `slices` at `offset`; may write less than all, as `pwritev` does.
    fn write_vectored_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Makes what was written to `file` durable.
    fn sync_data(&self, file: &File) -> io::Result<()>;
}

/// `pwritev` and `fdatasync`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIo;

impl ExtentIo for SystemIo {
    fn write_vectored_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        loop {
            match rustix::io::pwritev(file.as_fd(), slices, offset) {
                Ok(written) => return Ok(written),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Slices in one call: Linux's IOV_MAX.
const SLICES_MAX: usize = 1024;

/// Writes all of `slices` at `offset`, in as few calls as the kernel allows.
pub(crate) fn write_all_at(
    io: &dyn ExtentIo,
    file: &File,
    slices: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    let mut rest = slices;
    while !rest.is_empty() {
        let count = rest.len().min(SLICES_MAX);
        let written = io.write_vectored_at(file, &rest[..count], offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        offset += written as u64;
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

/// Reads up to `len` bytes at `offset` into a fresh buffer, without zeroing it first. Shorter only at the file's end.
pub(crate) fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(len);
    while buffer.len() < len {
        let at = offset + buffer.len() as u64;
        match rustix::io::pread(file.as_fd(), rustix::buffer::spare_capacity(&mut buffer), at) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may have given more room than was asked for.
    buffer.truncate(len);
    Ok(buffer)
}

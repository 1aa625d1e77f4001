//! What the journal asks of a disk, and the disk itself. The trait is the seam at which tests put disks that fail.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::FallocateFlags;

/// What is written while the journal runs.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Writes all of it at that offset.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Makes what was written durable.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Makes a file of zeros whose every block is allocated and written, so that a write into it later changes no
    /// metadata and can not find the disk full. Gives up when `stop` says so.
    fn allocate(&self, path: &Path, bytes: u64, stop: &dyn Fn() -> bool) -> io::Result<File> {
        let made = allocate(path, bytes, stop);
        if made.is_err() {
            // Half a file would keep from others the little room there is; it may also never have been made.
            let _ = std::fs::remove_file(path);
        }
        made
    }
}

/// The file system.
#[derive(Debug)]
pub(crate) struct FileSystem;

impl Disk for FileSystem {}

fn allocate(path: &Path, bytes: u64, stop: &dyn Fn() -> bool) -> io::Result<File> {
    // Not from the heap, where a mebibyte that was taken once stays resident.
    static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // Writing zeros allocates too, only later and in pieces.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    let mut offset = 0;
    while offset < bytes {
        if stop() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = (bytes - offset).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..len as usize], offset)?;
        offset += len;
    }
    file.sync_all()?;
    Ok(file)
}

/// Makes a directory's entries durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

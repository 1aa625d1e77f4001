//! What the journal asks of a disk, and the disk itself. The trait is the seam at which tests put disks that fail.
//!
//! A segment is allocated and written before it is used, so that a record finds its room whatever else fills the disk.
//! That holds where a write goes to the place it names (ext4, XFS), and not on file systems that copy on write
//! (btrfs, ZFS, bcachefs): there each write takes new blocks, and a full disk is a failure ([`doubts`]).

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

/// What the file system of this file can not give, in words.
pub(crate) fn doubts(file: &File) -> io::Result<Option<&'static str>> {
    Ok(doubt(rustix::fs::fstatfs(file)?.f_type as u64))
}

/// By the numbers of statfs(2); that of ZFS is OpenZFS's own.
fn doubt(kind: u64) -> Option<&'static str> {
    match kind & 0xffff_ffff {
        0x9123_683e | 0x2fc1_2fc1 | 0xca45_1a4e => Some(
            "this file system copies on write (btrfs, ZFS, bcachefs): room that was allocated is not certain, and a \
             full disk can fail the journal for good instead of refusing new requests; keep it on ext4 or XFS",
        ),
        0x0102_1994 | 0x8584_58f6 => Some("this file system is in memory: a restart of the machine loses the journal"),
        _ => None,
    }
}

/// Makes a directory's entries durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_on_which_allocated_room_is_not_certain_are_named() {
        for kind in [0x9123_683e, 0x2fc1_2fc1, 0xca45_1a4e, 0xffff_ffff_9123_683e] {
            assert!(doubt(kind).is_some_and(|doubt| doubt.contains("copies on write")), "{kind:x}");
        }
        // ext4, XFS
        assert_eq!([0xef53, 0x5846_5342].map(doubt), [None; 2]);
    }
}

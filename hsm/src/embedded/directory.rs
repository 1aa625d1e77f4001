//! The directory of key files: nobody else may enter it, files are written whole or not at all.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{Error, Kind, Result};

/// Longest key file: RSA-8192 in PEM is 6.4 KiB.
const FILE_LEN_MAX: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct KeyDirectory {
    path: PathBuf,
}

impl KeyDirectory {
    pub(super) fn open(path: &Path) -> Result<KeyDirectory> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refused(path, error)),
        }
        let meta = fs::metadata(path).map_err(|error| refused(path, error))?;
        if !meta.is_dir() {
            return Err(refused(path, "is no directory"));
        }
        // An access ACL shows in the group bits (they are its mask), so this sees named users as well.
        if meta.mode() & 0o077 != 0 {
            return Err(refused(path, format!("mode {:04o} lets others in: make it 0700", meta.mode() & 0o7777)));
        }
        let euid = rustix::process::geteuid().as_raw();
        if meta.uid() != euid && meta.uid() != 0 {
            return Err(refused(path, format!("belongs to user {}, not to this process's {euid}", meta.uid())));
        }
        Ok(KeyDirectory { path: path.to_owned() })
    }

    /// Whether there is a file of that name.
    pub(super) fn holds(&self, file: &str) -> Result<bool> {
        let path = self.path_of(file)?;
        path.try_exists().map_err(|error| refused(&path, error))
    }

    /// The whole file, wiped when dropped.
    pub(super) fn read(&self, file: &str) -> Result<Zeroizing<Vec<u8>>> {
        let path = self.path_of(file)?;
        let missing =
            |error: io::Error| Error::of(Kind::KeyMissing, "key file", format!("{}: {error}", path.display()));
        let mut opened = File::open(&path).map_err(missing)?;
        let meta = opened.metadata().map_err(missing)?;
        if meta.mode() & 0o077 != 0 {
            let mode = meta.mode() & 0o7777;
            let detail = format!("{}: mode {mode:04o} lets others in: make it 0600", path.display());
            return Err(Error::of(Kind::KeyUnusable, "key file", detail));
        }
        // As long as the file can be, so that nothing is left behind by a growing buffer.
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_LEN_MAX + 1));
        Read::by_ref(&mut opened).take(FILE_LEN_MAX as u64 + 1).read_to_end(&mut bytes).map_err(missing)?;
        if bytes.len() > FILE_LEN_MAX {
            let detail = format!("{}: longer than {FILE_LEN_MAX} bytes", path.display());
            return Err(Error::of(Kind::KeyUnusable, "key file", detail));
        }
        Ok(bytes)
    }

    /// Puts a file there, mode 0600, durable when this returns, never seen half written. It must not exist yet.
    pub(super) fn write(&self, file: &str, contents: &[u8]) -> Result<()> {
        let path = self.path_of(file)?;
        let temporary = self.path.join(format!(".{file}.{}", std::process::id()));
        let written = (|| {
            let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            opened.write_all(contents)?;
            opened.sync_all()?;
            // A link, unlike a rename, does not replace what somebody else has put there meanwhile.
            fs::hard_link(&temporary, &path)
        })();
        let removed = fs::remove_file(&temporary);
        written.and(removed).and_then(|()| File::open(&self.path)?.sync_all()).map_err(|error| refused(&path, error))
    }

    /// One visible name, so nothing outside the directory and none of our temporary files.
    fn path_of(&self, file: &str) -> Result<PathBuf> {
        let mut parts = Path::new(file).components();
        let one =
            matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == OsStr::new(file));
        if !one || file.starts_with('.') || file.len() > 200 || file.contains('\0') {
            return Err(Error::of(Kind::KeyMissing, "locator", format!("{file:?} is no plain file name")));
        }
        Ok(self.path.join(file))
    }
}

fn refused(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::of(Kind::Module, "key directory", format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_others_may_enter_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("keys");
        KeyDirectory::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        for mode in [0o750, 0o701, 0o710, 0o707] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(KeyDirectory::open(&path).unwrap_err().kind(), Kind::Module, "mode {mode:o}");
        }
    }

    #[test]
    fn a_file_is_written_once_with_mode_0600_and_leaves_nothing_beside_it() {
        let parent = tempfile::tempdir().unwrap();
        let directory = KeyDirectory::open(&parent.path().join("keys")).unwrap();
        directory.write("a.pem", b"first").unwrap();
        assert!(directory.write("a.pem", b"second").is_err());
        assert_eq!(&**directory.read("a.pem").unwrap(), b"first");
        let entries: Vec<_> = fs::read_dir(&directory.path).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_others_may_read_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = KeyDirectory::open(&parent.path().join("keys")).unwrap();
        directory.write("a.pem", b"x").unwrap();
        fs::set_permissions(directory.path.join("a.pem"), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(directory.read("a.pem").unwrap_err().kind(), Kind::KeyUnusable);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = KeyDirectory::open(&parent.path().join("keys")).unwrap();
        for name in ["", ".", "..", "../x", "/etc/passwd", "a/b", "a/", "./a", ".hidden", "nul\0"] {
            assert_eq!(directory.holds(name).unwrap_err().kind(), Kind::KeyMissing, "{name:?}");
        }
    }
}

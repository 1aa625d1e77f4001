//! Files from outside: limited in length, and secrets only when others cannot read them.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use zeroize::Zeroizing;

/// Longest file that is read: configurations, chains and CA bundles are far shorter.
const FILE_MAX: u64 = 4 << 20;

/// Reads a file that is no secret.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_limited(&File::open(path)?, &mut bytes)?;
    Ok(bytes)
}

/// Reads a secret; refuses a file that others than its owner and group can read or write.
pub(crate) fn read_secret(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o027 != 0 {
        let message = format!("its mode is {mode:03o}: others must not read it nor its group write it; chmod 0600 it");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    // Room for all of it from the start: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len().min(FILE_MAX) as usize + 1));
    read_limited(&file, &mut bytes)?;
    Ok(bytes)
}

fn read_limited(file: &File, bytes: &mut Vec<u8>) -> io::Result<()> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    file.take(FILE_MAX + 1).read_to_end(bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::other(format!("it is longer than {FILE_MAX} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        fs::write(&path, "secret").unwrap();
        for (mode, allowed) in
            [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o604, false), (0o660, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_secret(&path).is_ok(), allowed, "{mode:o}");
        }
        assert_eq!(read_secret(directory.path()).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_file_without_end_is_refused() {
        assert!(read(Path::new("/dev/zero")).is_err());
    }
}

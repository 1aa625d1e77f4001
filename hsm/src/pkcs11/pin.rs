//! Where the PIN comes from, and who else could read it there.

use std::{
    env, fmt,
    fs::{self, File},
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::acl;
use crate::{Error, Kind, Result};

/// Longest PIN, in bytes; tokens take 4 to 255.
const PIN_LEN_MAX: usize = 255;

/// Where a token's PIN is to be had. It is read anew at every login, and never kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinSource {
    /// The credential of this name, in the directory that systemd names in `$CREDENTIALS_DIRECTORY`
    Credential(String),
    /// A file
    File(PathBuf),
    /// No PIN: the token needs no login, or a person enters it at the device
    None,
}

/// A PIN in memory, wiped when dropped.
pub(super) struct Pin(Zeroizing<Vec<u8>>);

impl Pin {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}

impl PinSource {
    /// Checks that the PIN is there and that nobody else can read it, without a token: for the daemon's `check`.
    pub fn check(&self) -> Result<()> {
        self.read().map(drop)
    }

    /// The same with the eyes of another user, for who looks after the daemon as root.
    pub fn check_for(&self, uid: u32) -> Result<()> {
        self.read_as(uid).map(drop)
    }

    pub(super) fn read(&self) -> Result<Option<Pin>> {
        self.read_as(rustix::process::geteuid().as_raw())
    }

    fn read_as(&self, uid: u32) -> Result<Option<Pin>> {
        let path = match self {
            PinSource::None => return Ok(None),
            PinSource::File(path) => path.clone(),
            PinSource::Credential(name) => {
                if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
                    return Err(unavailable(Path::new(name), "no name of a credential"));
                }
                let directory = env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty());
                let unset = "$CREDENTIALS_DIRECTORY is not set: the unit has no LoadCredential= or the like";
                PathBuf::from(directory.ok_or_else(|| unavailable(Path::new(name), unset))?).join(name)
            }
        };
        read_file(&path, uid).map(Some)
    }
}

/// Reads it if nobody but root and that user could have.
fn read_file(path: &Path, euid: u32) -> Result<Pin> {
    let refuse = |why: &dyn fmt::Display| unavailable(path, why);
    if !path.is_absolute() {
        return Err(refuse(&"not an absolute path"));
    }
    let name = path.file_name().ok_or_else(|| refuse(&"names no file"))?;
    // Opened by the way that was judged, not by links that could lead elsewhere by now. What is judged below is the
    // opened file itself, so nothing can be exchanged in between. Not blocking, lest a named pipe holds us.
    let resolved = checked_directory(path, euid)?.join(name);
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file =
        File::options().read(true).custom_flags(flags.bits() as i32).open(resolved).map_err(|error| refuse(&error))?;
    let meta = file.metadata().map_err(|error| refuse(&error))?;
    if !meta.is_file() {
        return Err(refuse(&"no regular file"));
    }
    if meta.uid() != 0 && meta.uid() != euid {
        return Err(refuse(&format!("belongs to user {}, neither root nor our own {euid}", meta.uid())));
    }
    if let Some(stranger) = acl::stranger(&file, euid).map_err(|error| refuse(&error))? {
        return Err(refuse(&format!("others could read or change the PIN: {stranger}")));
    }
    // One allocation that is never moved, so that one wipe gets all of it: the PIN, a newline, one byte too many.
    let mut pin = Zeroizing::new(Vec::with_capacity(PIN_LEN_MAX + 2));
    Read::by_ref(&mut file).take(PIN_LEN_MAX as u64 + 2).read_to_end(&mut pin).map_err(|error| refuse(&error))?;
    if pin.last() == Some(&b'\n') {
        pin.pop();
    }
    match pin.len() {
        0 => Err(refuse(&"empty")),
        1..=PIN_LEN_MAX => Ok(Pin(pin)),
        _ => Err(refuse(&format!("longer than {PIN_LEN_MAX} bytes"))),
    }
}

/// The file's directory without links. Whoever may write to a directory on the way can put another file there. A sticky directory such as /tmp may be
/// farther up, since only an entry's owner can replace it there, but not hold the file itself.
fn checked_directory(path: &Path, euid: u32) -> Result<PathBuf> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let resolved = parent.canonicalize().map_err(|error| unavailable(parent, error))?;
    for (depth, directory) in resolved.ancestors().enumerate() {
        let meta = fs::metadata(directory).map_err(|error| unavailable(directory, error))?;
        let sticky = depth > 0 && meta.mode() & 0o1000 != 0;
        if meta.uid() != 0 && meta.uid() != euid {
            let why = format!("the PIN's directory belongs to user {}, neither root nor our own {euid}", meta.uid());
            return Err(unavailable(directory, why));
        }
        // The mask of an ACL stands in the group bits: entries that may write are seen here as well.
        if meta.mode() & 0o022 != 0 && !sticky {
            let why = format!("others may write to the PIN's directory (mode {:04o})", meta.mode() & 0o7777);
            return Err(unavailable(directory, why));
        }
    }
    Ok(resolved)
}

fn unavailable(path: &Path, why: impl fmt::Display) -> Error {
    Error::of(Kind::PinUnavailable, "PIN", format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    fn read(path: &Path) -> Result<Pin> {
        read_file(path, rustix::process::geteuid().as_raw())
    }

    fn file(directory: &Path, contents: &[u8], mode: u32) -> PathBuf {
        let path = directory.join("pin");
        let _ = fs::remove_file(&path);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn refusal(path: &Path) -> String {
        let error = read(path).unwrap_err();
        assert_eq!(error.kind(), Kind::PinUnavailable);
        error.to_string()
    }

    #[test]
    fn one_newline_at_the_end_is_no_part_of_the_pin() {
        let directory = tempfile::tempdir().unwrap();
        for (contents, pin) in [("1234", "1234"), ("1234\n", "1234"), ("1234\n\n", "1234\n"), (" 12 \n", " 12 ")] {
            let path = file(directory.path(), contents.as_bytes(), 0o600);
            assert_eq!(read(&path).unwrap().as_bytes(), pin.as_bytes());
        }
    }

    #[test]
    fn a_pin_that_can_not_be_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(refusal(&file(directory.path(), b"", 0o600)).contains("empty"));
        assert!(refusal(&file(directory.path(), b"\n", 0o600)).contains("empty"));
        assert!(refusal(&file(directory.path(), &[b'1'; 256], 0o600)).contains("longer"));
        assert_eq!(read(&file(directory.path(), &[b'1'; 255], 0o600)).unwrap().as_bytes().len(), 255);
        assert!(refusal(&directory.path().join("missing")).contains("No such file"));
        assert!(refusal(Path::new("pin")).contains("absolute"));
    }

    #[test]
    fn a_file_others_may_read_or_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o660] {
            assert!(refusal(&file(directory.path(), b"1234", mode)).contains("let"), "{mode:o}");
        }
        for mode in [0o400, 0o600] {
            read(&file(directory.path(), b"1234", mode)).unwrap();
        }
    }

    #[test]
    fn an_acl_counts_where_the_mode_alone_looks_harmless_or_harmful() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), b"1234", 0o600);
        let set = |user: u32| {
            let set = std::process::Command::new("setfacl").arg("-m").arg(format!("u:{user}:r")).arg(&path).status();
            assert!(set.expect("setfacl is missing: `cargo xtask test` installs what the tests need").success());
        };
        // Our own entry, as systemd makes it: the mode is 0640 now, and still nobody else can read it.
        set(rustix::process::geteuid().as_raw());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        read(&path).unwrap();
        set(12_345);
        assert!(refusal(&path).contains("user 12345"));
    }

    #[test]
    fn a_directory_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for mode in [0o770, 0o702, 0o1777] {
            fs::set_permissions(&inner, Permissions::from_mode(mode)).unwrap();
            assert!(refusal(&file(&inner, b"1234", 0o600)).contains("may write"), "{mode:o}");
        }
        fs::set_permissions(&inner, Permissions::from_mode(0o755)).unwrap();
        read(&file(&inner, b"1234", 0o600)).unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(refusal(&inner.join("pin")).contains("may write"));
    }

    #[test]
    fn a_directory_may_be_reached_by_a_link_and_is_judged_where_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let (inner, link) = (directory.path().join("inner"), directory.path().join("link"));
        fs::create_dir(&inner).unwrap();
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        file(&inner, b"1234", 0o600);
        assert_eq!(read(&link.join("pin")).unwrap().as_bytes(), b"1234");
        fs::set_permissions(&inner, Permissions::from_mode(0o770)).unwrap();
        assert!(refusal(&link.join("pin")).contains("may write"));
        assert!(refusal(&link.join("..")).contains("names no file"));
    }

    #[test]
    fn a_link_or_a_pipe_is_no_pin_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), b"1234", 0o600);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(path, &link).unwrap();
        refusal(&link);
        assert!(
            refusal(&{
                let directory = directory.path().join("as-a-file");
                fs::create_dir(&directory).unwrap();
                directory
            })
            .contains("regular")
        );
    }

    #[test]
    fn a_pin_is_never_printed() {
        let directory = tempfile::tempdir().unwrap();
        let pin = read(&file(directory.path(), b"31415926", 0o600)).unwrap();
        assert_eq!(format!("{pin:?}"), "Pin");
    }
}

//! The socket's file: made for those who may use it, taken over from a segld that died, left to one that lives.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixListener;

use crate::config::Control;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// A process listens there
    #[error("{}: another segld serves this control socket; stop it, or give this one its own [control] `socket`", .0.display())]
    Taken(PathBuf),
    /// Something else is there
    #[error("{}: there is something that is no socket; take it away, or give another [control] `socket`", .0.display())]
    NoSocket(PathBuf),
    /// The system refused
    #[error("{}: the control socket can not be made: {error}; its directory must be there and segld's own, as systemd's RuntimeDirectory=segl makes it", path.display())]
    System {
        /// The socket
        path: PathBuf,
        /// The system's word
        error: io::Error,
    },
}

/// Takes the file away when it is dropped, if it is still this one.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    /// As long as it is held, no other file has its number
    _held: OwnedFd,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|now| now == self.inode) {
            // A stale file is taken over by the next segld anyway.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds it, within a runtime. Who may connect is decided by who asks; the file's mode keeps out most others before that.
pub(super) fn bind(settings: &Control) -> Result<(UnixListener, SocketFile), SocketError> {
    let path = &settings.socket;
    let failed = |error| SocketError::System { path: path.clone(), error };
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            take_over(path)?;
            UnixListener::bind(path).map_err(failed)?
        }
        bound => bound.map_err(failed)?,
    };
    let held = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let held = held.map_err(|error| failed(error.into()))?;
    let file = SocketFile { path: path.clone(), inode: inode(path).map_err(failed)?, _held: held };
    let mode = match (settings.operators.gid, settings.watchers.is_some()) {
        // One group, if it can be the file's: by its directory's set-group-ID bit (systemd/tmpfiles.d), or by our right.
        (Some(gid), false) if belongs_to(path, gid) || chown(path, None, Some(gid)).is_ok() => 0o660,
        (None, false) => 0o600,
        _ => 0o666,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok((listener, file))
}

fn belongs_to(path: &Path, gid: u32) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.gid() == gid)
}

/// Removes a socket that nobody listens on any more.
fn take_over(path: &Path) -> Result<(), SocketError> {
    let failed = |error| SocketError::System { path: path.to_owned(), error };
    if !fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
        return Err(SocketError::NoSocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            tracing::warn!(path = %path.display(), "a socket of a segld that is gone is taken over");
            fs::remove_file(path).map_err(failed)
        }
        // Also where it is too busy to be connected to, it lives.
        _ => Err(SocketError::Taken(path.to_owned())),
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Group;

    fn settings(path: PathBuf) -> Control {
        let operators = Group { name: "nobody's".into(), gid: None };
        Control { socket: path, demanded: true, operators, watchers: None }
    }

    #[tokio::test]
    async fn a_stale_socket_is_taken_over_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path().join("control.sock"));
        let (first, file) = bind(&settings).unwrap();
        assert!(matches!(bind(&settings), Err(SocketError::Taken(_))));
        assert_eq!(fs::metadata(&settings.socket).unwrap().mode() & 0o777, 0o600);
        drop(first);
        let (_second, second_file) = bind(&settings).unwrap();
        // The first one's end takes nothing from the second.
        drop(file);
        assert!(settings.socket.exists());
        drop(second_file);
        assert!(!settings.socket.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path().join("notes.txt"));
        fs::write(&settings.socket, "keep").unwrap();
        assert!(matches!(bind(&settings), Err(SocketError::NoSocket(_))));
        assert_eq!(fs::read(&settings.socket).unwrap(), b"keep");
        let nowhere = Control { socket: directory.path().join("no/such/control.sock"), ..settings };
        let error = bind(&nowhere).unwrap_err().to_string();
        assert!(error.contains("no/such/control.sock: the control socket can not be made"), "{error}");
    }
}

//! The files a configuration names: where they are, and what is in them.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{FromFile, Surroundings, findings::Collector, reader::Value};

/// Longest certificate, key or revocation list file that is read, in bytes. National CRLs reach some megabytes.
const CONTENT_MAX: u64 = 64 << 20;

/// Finds and reads what a configuration names.
pub(super) struct Files<'a> {
    directory: PathBuf,
    surroundings: &'a Surroundings,
    collector: &'a Collector<'a>,
}

/// A path as configured: a file, relative to the configuration's directory, or `credential:NAME`, which systemd puts
/// into `$CREDENTIALS_DIRECTORY` (systemd.exec(5)).
pub(super) enum Located {
    At(PathBuf),
    /// A credential, looked at from where none can be seen
    OutOfSight,
}

impl<'a> Files<'a> {
    pub(super) fn new(config: &Path, surroundings: &'a Surroundings, collector: &'a Collector<'a>) -> Self {
        let absolute = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let directory = absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
        Files { directory, surroundings, collector }
    }

    pub(super) fn now_unix_s(&self) -> i64 {
        self.surroundings.now_unix_s
    }

    pub(super) fn cores(&self) -> &[usize] {
        &self.surroundings.cores
    }

    /// Which host this is.
    pub(super) fn machine_id(&self) -> Option<&str> {
        self.surroundings.machine_id.as_deref()
    }

    pub(super) fn collector(&self) -> &'a Collector<'a> {
        self.collector
    }

    /// A path, not looked at.
    pub(super) fn path(&self, value: Value<'_>) -> Option<PathBuf> {
        let text = value.text()?;
        if text.is_empty() {
            value.wrong("a path", "name a file or directory");
            return None;
        }
        Some(self.directory.join(text))
    }

    /// A path or a credential; reported when it can not be told where it is.
    pub(super) fn locate(&self, value: Value<'_>) -> Option<Located> {
        match value.text()?.strip_prefix("credential:") {
            Some(name) => self.credential(value, name),
            None => self.path(value).map(Located::At),
        }
    }

    /// A credential by its name.
    pub(super) fn credential(&self, value: Value<'_>, name: &str) -> Option<Located> {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            value.wrong("the name of a credential", "the part before the colon in systemd's LoadCredential=");
            return None;
        }
        if let Some(directory) = &self.surroundings.credentials {
            return Some(Located::At(directory.join(name)));
        }
        let text = format!("credential `{name}`: $CREDENTIALS_DIRECTORY is not set");
        if self.surroundings.as_daemon {
            value.error(text, "start segld from a unit with LoadCredential=, or give a file");
            return None;
        }
        let hint = "only the service sees it; `systemd-run -p LoadCredential=... segl check` looks at it too";
        self.collector.warning(&value.span(), text, hint);
        Some(Located::OutOfSight)
    }

    /// Reads a file with content of some kind, and reports what is wrong with it. None without a report: out of sight.
    pub(super) fn content<T>(
        &self,
        value: Value<'_>,
        what: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Option<FromFile<T>> {
        let Located::At(path) = self.locate(value)? else { return None };
        let bytes = match read_bounded(&path, CONTENT_MAX) {
            Ok(bytes) => bytes,
            Err(error) => {
                let hint = format!("put a {what} there that segld's user may read, or correct the path");
                value.error(format!("{} can not be read: {error}", path.display()), hint);
                return None;
            }
        };
        match parse(&bytes) {
            Ok(content) => Some(FromFile { path, content }),
            Err(reason) => {
                value.error(
                    format!("{} is no {what}: {reason}", path.display()),
                    format!("give a PEM file with a {what}"),
                );
                None
            }
        }
    }

    /// Something that is judged with the eyes of the user who asks: an error where that is the daemon itself.
    pub(super) fn judged_as_daemon(&self, value: Value<'_>, text: String, hint: &str) {
        if self.surroundings.as_daemon {
            value.error(text, hint);
        } else {
            value.warning(text, format!("{hint}; this is judged as the user that runs `check`"));
        }
    }

    /// Reports a file that is not there; its content is another's business.
    pub(super) fn must_exist(&self, value: Value<'_>, path: &Path, what: &str) {
        match path.metadata() {
            Ok(found) if found.is_file() => {}
            Ok(_) => value.error(format!("{} is not a file", path.display()), format!("give the path of a {what}")),
            Err(error) => value.error(
                format!("{} can not be found: {error}", path.display()),
                format!("put a {what} there, or correct the path"),
            ),
        }
    }
}

/// Reads a regular file of at most so many bytes; never waits on a pipe or device.
pub(super) fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let found = path.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {max} bytes")));
    }
    Ok(bytes)
}

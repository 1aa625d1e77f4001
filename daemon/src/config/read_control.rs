//! Reads `[control]`: where `segl` finds the daemon, and who may speak to it.

use std::{env, os::unix::ffi::OsStrExt, path::PathBuf};

use nix::unistd::{Gid, Group as HostGroup};

use super::{
    Control, Group,
    files::Files,
    reader::{Section, Value},
};

/// Where the socket is unless the file says otherwise: what `segl` looks for.
pub const DEFAULT_SOCKET: &str = "/run/segl/control.sock";

/// Longest path of a socket in bytes (`sun_path`, unix(7)), its final zero aside.
const PATH_MAX: usize = 107;

/// The operators' group, made by the package.
const DEFAULT_GROUP: &str = "segl-operator";

pub(super) fn control(section: Section<'_>, files: &Files<'_>) -> Control {
    let given = section.value("socket").and_then(|value| socket(value, files));
    let demanded = given.is_some();
    let operators = section.value("operator_group").and_then(group);
    let watchers = section.value("watcher_group").and_then(group);
    section.finish();
    let operators = operators.unwrap_or_else(|| Group { name: DEFAULT_GROUP.into(), gid: gid(DEFAULT_GROUP) });
    Control { socket: given.unwrap_or_else(default_socket), demanded, operators, watchers }
}

/// systemd's RuntimeDirectory, which is ours already and goes with us.
fn default_socket() -> PathBuf {
    let first = env::var_os("RUNTIME_DIRECTORY").and_then(|all| {
        let first = all.as_bytes().split(|byte| *byte == b':').next()?;
        (!first.is_empty()).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(first)))
    });
    first.map_or_else(|| PathBuf::from(DEFAULT_SOCKET), |directory| directory.join("control.sock"))
}

fn socket(value: Value<'_>, files: &Files<'_>) -> Option<PathBuf> {
    let path = files.path(value)?;
    let bytes = path.as_os_str().len();
    if bytes > PATH_MAX {
        let text = format!("{} has {bytes} bytes, and a socket's path at most {PATH_MAX}", path.display());
        value.error(text, format!("put it higher up, as {DEFAULT_SOCKET}"));
        return None;
    }
    Some(path)
}

fn group(value: Value<'_>) -> Option<Group> {
    let name = value.text()?.to_owned();
    let gid = gid(&name);
    if gid.is_none() {
        value.error(format!("there is no group {name:?} on this host"), format!("groupadd --system {name}"));
    }
    Some(Group { name, gid })
}

/// By its name in the host's database, or by its number.
fn gid(name: &str) -> Option<u32> {
    let by_number = || HostGroup::from_gid(Gid::from_raw(name.parse().ok()?)).ok().flatten();
    let found = HostGroup::from_name(name).ok().flatten().or_else(by_number);
    found.map(|group| group.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use crate::config::tests::Site;

    #[test]
    fn groups_are_looked_up_and_the_socket_has_a_path_that_the_kernel_takes() {
        let site = Site::new();
        let read = |control: &str| {
            let (config, findings) = site.read(&format!("{}\n[control]\n{control}", crate::config::tests::MINIMAL));
            config.map(|config| config.control).ok_or(findings.to_string())
        };
        let control = read("socket = \"c.sock\"\noperator_group = \"root\"\nwatcher_group = \"0\"").unwrap();
        assert_eq!((control.operators.gid, control.watchers.and_then(|group| group.gid)), (Some(0), Some(0)));
        assert!(control.demanded && control.socket.is_absolute());
        assert!(read("operator_group = \"no-such-group\"").unwrap_err().contains("groupadd --system no-such-group"));
        let long = format!("socket = \"/{}\"", "x".repeat(107));
        assert!(read(&long).unwrap_err().contains("108 bytes, and a socket's path at most 107"));
        assert!(!read("").unwrap().demanded);
    }
}

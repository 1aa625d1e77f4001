//! The root directory of the container in which the units are tested: Debian 12 with systemd and what Segl meets on a
//! host: an HSM in software, a time daemon, a TPM's tools.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Result, cache, command::Job, install::on_path, workspace};

/// What is in it. A change needs another [`VERSION`].
const INCLUDE: &str =
    "--include=systemd,systemd-sysv,dbus,procps,libgcc-s1,softhsm2,chrony,tpm2-tools,libtss2-tcti-swtpm0";
/// The time daemon is there to be asked. It never touches the clock, which is the host's, and starts only where a test
/// starts it.
const TAME_CHRONY: [&str; 2] = [
    "--customize-hook=echo DAEMON_OPTS=-x > \"$1/etc/default/chrony\"",
    "--customize-hook=chroot \"$1\" systemctl disable chrony.service",
];
/// Part of the cached directory's name.
const VERSION: &str = "bookworm-2";
/// It takes a minute; this allows for a slow mirror.
const LIMIT: Duration = Duration::from_secs(600);

/// Why no container can be started here, if so.
pub(crate) fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("starting a container needs root".to_owned());
    }
    ["systemd-nspawn", "mmdebstrap"].iter().find(|name| !on_path(name)).map(|name| format!("{name} is missing"))
}

/// The root directory, made on first use. Tests lay an overlay on it and never write to it.
pub(crate) fn root(log: &Path) -> Result<PathBuf> {
    let root = cache()?.join(format!("nspawn-{VERSION}"));
    if root.is_dir() {
        return Ok(root);
    }
    let unfinished = cache()?.join(format!("nspawn-{VERSION}.unfinished"));
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    println!("  making the container's root in {}: about a minute, once", root.display());
    Job::new("mmdebstrap", &workspace(), log.to_path_buf())
        .args(["--variant=minbase", INCLUDE])
        .args(TAME_CHRONY)
        .arg("bookworm")
        .arg(&unfinished)
        .must(LIMIT)?;
    std::fs::rename(&unfinished, &root)?;
    Ok(root)
}

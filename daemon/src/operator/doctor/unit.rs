//! What systemd knows of segld.service, and the kernel of its process.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::child;

/// The daemon's unit.
const UNIT: &str = "segld.service";

/// What of it is asked for.
const PROPERTIES: &str = "LoadState,ActiveState,MainPID,User,Environment,LimitMEMLOCK,LimitNOFILE,CPUAffinity,Result";

/// systemd answers at once, or is in trouble itself.
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(10);

/// A credential that the unit gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) name: String,
    /// Where systemd takes it from; relative ones from its credential stores
    pub(super) source: PathBuf,
    /// LoadCredentialEncrypted=
    pub(super) sealed: bool,
}

/// The unit as it is installed, with its drop-ins.
#[derive(Debug)]
pub(super) struct Unit {
    properties: BTreeMap<String, String>,
    pub(super) credentials: Vec<Credential>,
}

impl Unit {
    /// None where there is no systemd or no such unit.
    pub(super) fn look() -> Option<Unit> {
        if !Path::new("/run/systemd/system").is_dir() {
            return None;
        }
        let shown = systemctl(&["show", "--property", PROPERTIES, UNIT])?;
        let properties: BTreeMap<_, _> = shown
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        // `show` has no words for credentials.
        let credentials = credentials(&systemctl(&["cat", UNIT]).unwrap_or_default());
        let unit = Unit { properties, credentials };
        (unit.property("LoadState") == Some("loaded")).then_some(unit)
    }

    pub(super) fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Its main process, while it runs.
    pub(super) fn process(&self) -> Option<Process> {
        let pid = self.property("MainPID")?.parse().ok().filter(|pid| *pid != 0)?;
        Process::look(pid)
    }

    /// Its environment, as far as the unit itself names it: a module's configuration is often found by it.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let words = self.property("Environment").unwrap_or_default().split_ascii_whitespace();
        words.filter_map(|word| word.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
    }
}

fn systemctl(arguments: &[&str]) -> Option<String> {
    let ended = child::run(Command::new("systemctl").args(arguments).arg("--no-pager"), SYSTEMCTL_LIMIT).ok()?;
    ended.status.success().then(|| String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// Reads unit files one after the other, drop-ins last, as systemd does: an empty value takes back all before it.
fn credentials(text: &str) -> Vec<Credential> {
    let mut found: Vec<Credential> = Vec::new();
    for line in text.lines() {
        let Some((setting, value)) = line.trim().split_once('=') else { continue };
        let sealed = match setting.trim() {
            "LoadCredential" => false,
            "LoadCredentialEncrypted" => true,
            _ => continue,
        };
        let value = value.trim();
        if value.is_empty() {
            found.clear();
            continue;
        }
        let (name, source) = value.split_once(':').unwrap_or((value, value));
        found.retain(|before| before.name != name);
        found.push(Credential { name: name.to_owned(), source: source.into(), sealed });
    }
    found
}

/// What the kernel tells of the daemon's process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    status: String,
    limits: String,
}

impl Process {
    pub(super) fn look(pid: u32) -> Option<Process> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        Some(Process { pid, status: read("status")?, limits: read("limits")? })
    }

    /// A line of `/proc/PID/status`.
    pub(super) fn status(&self, name: &str) -> Option<&str> {
        let line = self.status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim())
    }

    /// A soft limit as `/proc/PID/limits` has it: a number or `unlimited`.
    pub(super) fn limit(&self, name: &str) -> Option<&str> {
        self.limits.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_that_the_last_drop_in_leaves() {
        let text = "# /lib/systemd/system/segld.service\n[Service]\nLoadCredentialEncrypted=pin:/etc/segl/pin.cred\n\
                    LoadCredentialEncrypted=tls-key:/etc/segl/tls-key.cred\n# LoadCredential=commented:/out\n";
        let sealed = |name: &str, source: &str| Credential { name: name.into(), source: source.into(), sealed: true };
        let both = [sealed("pin", "/etc/segl/pin.cred"), sealed("tls-key", "/etc/segl/tls-key.cred")];
        assert_eq!(credentials(text), both);
        let drop_in = "[Service]\nLoadCredentialEncrypted=\nLoadCredential=pin:/etc/segl/pin\n";
        let plain = Credential { name: "pin".into(), source: "/etc/segl/pin".into(), sealed: false };
        assert_eq!(credentials(&format!("{text}{drop_in}")), [plain]);
        let again = "LoadCredentialEncrypted=pin:/elsewhere.cred\n";
        assert_eq!(credentials(&format!("{text}{again}"))[1], sealed("pin", "/elsewhere.cred"));
    }

    #[test]
    fn a_process_is_read_as_the_kernel_shows_it() {
        let own = Process::look(std::process::id()).unwrap();
        assert_eq!(own.status("Pid"), Some(std::process::id().to_string().as_str()));
        assert!(own.limit("Max open files").is_some_and(|limit| limit == "unlimited" || limit.parse::<u64>().is_ok()));
        assert_eq!(own.limit("Max nonsense"), None);
    }
}

//! What an installation consists of: configuration, unit, users, and who may change what.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::{Check, Subject};

/// Who may speak to the control socket.
const OPERATORS: &str = "segl-operator";

const PACKAGE: &str = "install the package segld: it brings units, users and directories";

pub(super) fn checks(subject: &Subject) -> Vec<Check> {
    let mut checks = vec![configuration(subject), unit(subject), users(subject)];
    if subject.path.exists() {
        checks.push(owner(subject.path));
    }
    checks
}

fn configuration(subject: &Subject) -> Check {
    const NAME: &str = "configuration";
    let path = subject.path.display();
    if !subject.path.exists() {
        let advice = "write it: /usr/share/doc/segld/segld.toml is a whole one, OPERATIONS.md gives every setting; or --config FILE";
        return Check::not_known(NAME, format!("{path} is not there"), advice);
    }
    let advice = format!("segl check --config {path}");
    let findings = subject.findings.iter().count();
    if subject.findings.fatal() {
        return Check::problem(NAME, format!("segld would not start with {path}"), advice);
    }
    match findings {
        0 => Check::ok(NAME, format!("{path} is good")),
        some => Check::warning(NAME, format!("{path} is taken, with {some} to look at"), advice),
    }
}

fn unit(subject: &Subject) -> Check {
    const NAME: &str = "unit";
    let Some(unit) = &subject.unit else {
        return Check::not_known(NAME, "there is no segld.service here, or no systemd", PACKAGE);
    };
    let state = unit.property("ActiveState").unwrap_or("unknown");
    let result = unit.property("Result").unwrap_or("success");
    let seen = format!("segld.service is {state}");
    match (state, result) {
        ("active" | "reloading", _) => Check::ok(NAME, seen),
        ("failed", _) | (_, "exit-code" | "signal" | "watchdog" | "start-limit-hit" | "timeout" | "resources") => {
            Check::problem(
                NAME,
                format!("{seen}, its last end was {result}"),
                "journalctl -u segld -n 50; then systemctl reset-failed segld.service segld.socket and start both",
            )
        }
        _ => Check::warning(NAME, seen, "systemctl enable --now segld.socket segld.service, once the rest is well"),
    }
}

fn users(subject: &Subject) -> Check {
    const NAME: &str = "users";
    match (subject.user, group(OPERATORS)) {
        (Some(user), true) => {
            Check::ok(NAME, format!("segl ({user}), and the group {OPERATORS} for the control socket"))
        }
        (None, _) => Check::not_known(NAME, "there is no user segl", PACKAGE),
        (Some(_), false) => {
            Check::warning(NAME, format!("there is no group {OPERATORS}: root alone can ask segld"), "systemd-sysusers")
        }
    }
}

fn group(name: &str) -> bool {
    nix::unistd::Group::from_name(name).is_ok_and(|group| group.is_some())
}

/// Whoever can write the configuration, or put another in its place, decides who may sign what.
fn owner(path: &Path) -> Check {
    const NAME: &str = "configuration's owner";
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let loose = absolute.ancestors().find_map(|part| {
        let found = fs::metadata(part).ok()?;
        // In a sticky directory (/tmp) nobody replaces what is another's.
        let sticky = found.is_dir() && found.mode() & 0o1000 != 0;
        let open = found.uid() != 0 || (found.mode() & 0o022 != 0 && !sticky);
        open.then(|| {
            format!("{} belongs to user {} with mode {:o}", part.display(), found.uid(), found.mode() & 0o7777)
        })
    });
    match loose {
        None => Check::ok(NAME, "root alone can change it"),
        Some(seen) => Check::warning(
            NAME,
            format!("{seen}: others than root decide who may sign what"),
            "chown root, chmod go-w, for the file and the directories above",
        ),
    }
}

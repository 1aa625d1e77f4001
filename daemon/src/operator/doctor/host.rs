//! The host itself: kernel, io_uring, clock, and whether it is the one that the configuration is for.

use std::time::Duration;

use super::{Check, Subject};
use crate::{
    config::{self, Io, machine_id},
    reactor::RING_ENTRIES,
    synchronisation::{Sources, State},
    transport::probe_uring,
};

/// The first kernel whose io_uring the reactors can use.
const URING_SINCE: (u32, u32) = (5, 11);

pub(super) fn checks(subject: &Subject) -> Vec<Check> {
    vec![kernel(), uring(subject), clock(subject), pin(subject)]
}

fn kernel() -> Check {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    match version(&release) {
        Some(version) if version >= URING_SINCE => Check::ok("kernel", release),
        Some(_) => {
            Check::warning("kernel", release, "io_uring, as segld uses it, began with 5.11; epoll is taken here")
        }
        None => Check::not_known("kernel", release, "segld is for Linux 5.11 and later"),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn uring(subject: &Subject) -> Check {
    const NAME: &str = "io_uring";
    let wanted = subject.draft.as_ref().map_or(Io::Auto, |draft| draft.reactor.io);
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let obstacle = match (probe_uring(RING_ENTRIES), disabled.trim()) {
        (Err(why), _) => why,
        // Root is let in where the service's user is not.
        (Ok(()), "1") => {
            "sysctl kernel.io_uring_disabled is 1: only the group of kernel.io_uring_group has it".to_owned()
        }
        (Ok(()), _) => return Check::ok(NAME, "works"),
    };
    let advice = "see sysctl kernel.io_uring_disabled, or choose [reactor] io = \"epoll\"";
    match wanted {
        Io::Epoll => Check::ok(NAME, format!("not to be had ({obstacle}), and not wanted")),
        Io::Auto => Check::warning(NAME, format!("{obstacle}; segld takes epoll"), advice),
        Io::Uring => Check::problem(NAME, format!("{obstacle}, and [reactor] io = \"uring\""), advice),
    }
}

fn clock(subject: &Subject) -> Check {
    const NAME: &str = "clock";
    let host = subject.draft.as_ref().map(|draft| &draft.host);
    // Two hours is the configuration's own default.
    let (marker, age_max) =
        host.map_or((None, Duration::from_secs(7200)), |host| (host.clock_marker.clone(), host.clock_age_max));
    let seen = Sources::of_host(marker, age_max).look();
    let advice = match seen.state {
        State::Synchronised => return Check::ok(NAME, seen.to_string()),
        State::Unsynchronised => {
            "see that the time daemon reaches its servers: chronyc sources, timedatectl timesync-status, ntpq -p"
        }
        State::Unknown => "install one (apt install chrony), or name in [host] clock_marker what yours touches (PTP)",
    };
    match host.map(|host| host.clock) {
        Some(config::Clock::Required) => Check::problem(NAME, seen.to_string(), advice),
        _ => Check::warning(NAME, seen.to_string(), advice),
    }
}

fn pin(subject: &Subject) -> Check {
    const NAME: &str = "host pin";
    let Some(draft) = &subject.draft else { return subject.unread(NAME) };
    let ids = &draft.host.machine_ids;
    match machine_id() {
        _ if ids.is_empty() => Check::ok(NAME, "none: [host] machine_ids could name the hosts that this file is for"),
        Some(ours) if ids.contains(&ours) => Check::ok(NAME, format!("this host, {ours}, is one of {}", ids.len())),
        Some(ours) => {
            let advice =
                "this configuration was made for another host: see that keys, name and certificates fit this one";
            Check::problem(NAME, format!("this host, {ours}, is not in [host] machine_ids"), advice)
        }
        None => Check::problem(NAME, "/etc/machine-id can not be read or is no id", "systemd-machine-id-setup"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart_by_their_numbers() {
        assert_eq!(version("6.1.0-28-amd64"), Some((6, 1)));
        assert_eq!(version("5.11"), Some((5, 11)));
        assert!(version("5.9.1").unwrap() < URING_SINCE && version("10.0-rc1").unwrap() > URING_SINCE);
        assert_eq!(version("unknown"), None);
    }
}

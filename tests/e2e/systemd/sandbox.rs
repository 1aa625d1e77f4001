//! The sandbox as it is seen from inside: by a program that runs before segld in the same unit and tries what should
//! not be possible.

use std::collections::BTreeMap;

use segl_tests::site::Token;

use super::host::{Host, with_a_clock};
use crate::room::{connect, sound};

const PROBE: &str = include_str!("sandbox.pl");

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
#[cfg(target_arch = "x86_64")]
fn from_inside_there_is_nothing_to_write_no_code_to_make_and_nobody_else_to_speak_to() {
    let host = Host::boot_with("segl-sandbox", Token::SoftHsm, |container, site| {
        with_a_clock(container, site);
        container.put("/etc/segl/probe.pl", PROBE.as_bytes()).unwrap();
        let probe = "[Service]\nExecStartPre=/usr/bin/perl /etc/segl/probe.pl\nCPUAffinity=\nCPUAffinity=1\n";
        Host::drop_in(container, "probe", probe);
        site.segld_toml.push_str("\n[reactor]\ncores = [1]\n");
        site.segld_toml = site.segld_toml.replace("sessions = 4", "sessions = 4\ncores = [1]");
    });
    host.seal_all();
    host.start_by_socket();
    host.inside(|| sound(&mut connect(&host.site, 0)));
    host.is_well();

    let said = host.container.log("segld.service").unwrap();
    let tried: BTreeMap<_, _> =
        said.lines().filter_map(|line| line.strip_prefix("probe ")?.rsplit_once(": ")).collect();
    let (read_only, denied) = ("Read-only file system", "Permission denied");
    let forbidden = "Operation not permitted";
    let no_family = "Address family not supported by protocol";
    let expected = BTreeMap::from([
        ("write /etc/segl/segld/x", read_only),
        ("write /usr/bin/x", read_only),
        ("write /var/lib/x", read_only),
        ("write /run/x", denied),
        ("write /home/x", denied),
        ("write /var/lib/segl/x", "ok"),
        ("read /etc/segl/credentials/pin.cred", denied),
        ("read /dev/mem", "No such file or directory"),
        ("read /dev/kmsg", "No such file or directory"),
        ("read /dev/null", "ok"),
        ("read /proc/1/status", "No such file or directory"),
        ("memory w+x", forbidden),
        ("memory w then x", forbidden),
        ("memory w", "ok"),
        ("socket unix", "ok"),
        ("socket inet", "ok"),
        ("socket inet6", "ok"),
        ("socket netlink", no_family),
        ("socket packet", no_family),
        ("socket bluetooth", no_family),
        ("socket alg", no_family),
        ("socket vsock", no_family),
        ("ptrace", forbidden),
        ("mount", forbidden),
        ("unshare", forbidden),
        ("bpf", forbidden),
        ("keyctl", forbidden),
        ("chown", forbidden),
        ("setuid", forbidden),
        ("adjtimex", forbidden),
    ]);
    assert_eq!(tried, expected);

    // The process itself, as the kernel tells.
    let pid = host.container.show("segld.service", "MainPID").unwrap();
    let status = host.container.run(&["cat", &format!("/proc/{pid}/status")]).unwrap();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    assert_eq!((line("NoNewPrivs:"), line("Seccomp:"), line("CapEff:")), ("1", "2", "0000000000000000"));
    assert_eq!(line("CapBnd:"), "0000000000000000");
    // Of a process that can not be dumped, the files in /proc are root's.
    assert_eq!(host.container.run(&["stat", "--format=%U", &format!("/proc/{pid}/environ")]).unwrap(), "root");
    let limits = host.container.run(&["cat", &format!("/proc/{pid}/limits")]).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max core file size") && line.contains(" 0 ")), "{limits}");
    let affinity = format!("grep -h Cpus_allowed_list /proc/{pid}/task/*/status | sort -u");
    assert_eq!(host.container.run(&["sh", "-c", &affinity]).unwrap(), "Cpus_allowed_list:\t1");
    let threads = host.container.run(&["sh", "-c", &format!("ls /proc/{pid}/task | wc -l")]).unwrap();
    assert!(threads.parse::<u32>().unwrap() > 6, "{threads}");
    assert!(said.contains("in force: core dumps off, not dumpable, no new privileges"), "{said}");
}

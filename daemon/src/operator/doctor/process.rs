//! What the running daemon has done to itself, and its unit to it: as the kernel tells, not as the log does.

use std::os::unix::fs::MetadataExt;

use super::{Check, Subject};

pub(super) fn checks(subject: &Subject) -> Vec<Check> {
    const NAME: &str = "process";
    let Some(process) = &subject.process else {
        let seen = "segld does not run as a unit here";
        return vec![Check::not_known(NAME, seen, "systemctl start segld.socket segld.service, once the rest is well")];
    };
    let is = |name, value| process.status(name) == Some(value);
    // Of a process that can not be dumped, root owns what is in /proc.
    let dumpable = !std::fs::metadata(format!("/proc/{}/environ", process.pid)).is_ok_and(|found| found.uid() == 0);
    let as_root = process.status("Uid").is_some_and(|ids| ids.starts_with("0\t"));
    let found = [
        (as_root, "it runs as root"),
        (!is("NoNewPrivs", "1"), "it may gain privileges"),
        (!is("Seccomp", "2"), "no system call is forbidden to it"),
        (!is("CapEff", "0000000000000000"), "it has capabilities"),
        (process.limit("Max core file size") != Some("0"), "it may dump core"),
        (dumpable, "its memory can be read by its own user"),
    ];
    let wrong: Vec<_> = found.into_iter().filter(|(wrong, _)| *wrong).map(|(_, text)| text).collect();
    vec![if wrong.is_empty() {
        let seen = format!("{}: no privileges, no core dumps, not dumpable, system calls filtered", process.pid);
        Check::ok(NAME, seen)
    } else {
        Check::problem(
            NAME,
            format!("{}: {}", process.pid, wrong.join(", ")),
            "start it by segld.service, unchanged but for drop-ins",
        )
    }]
}

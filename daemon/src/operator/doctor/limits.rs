//! Limits and cores: what the running daemon has, else what its unit would give it.

use std::collections::BTreeSet;

use super::{Check, Outcome, Subject};

/// Descriptors beside connections: sockets, rings, the journal, modules with their own connections to HSMs.
const OTHER_DESCRIPTORS: u64 = 256;

pub(super) fn checks(subject: &Subject) -> Vec<Check> {
    vec![memory(subject), descriptors(subject), cores(subject)]
}

/// A limit of the process, or as the unit has it, and which of the two it is.
fn limit(subject: &Subject, process: &str, unit: &str) -> Option<(String, &'static str)> {
    if let Some(running) = &subject.process {
        return Some((running.limit(process)?.to_owned(), "segld runs with"));
    }
    Some((subject.unit.as_ref()?.property(unit)?.to_owned(), "the unit gives"))
}

fn memory(subject: &Subject) -> Check {
    const NAME: &str = "memory lock";
    let advice = "LimitMEMLOCK=infinity in the unit, or no swap on this host";
    let Some((limit, whose)) = limit(subject, "Max locked memory", "LimitMEMLOCK") else {
        return Check::not_known(NAME, "segld.service is not installed here", advice);
    };
    let swap = std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1);
    let locked = subject.process.as_ref().map(|process| process.status("VmLck").is_some_and(|kb| kb != "0 kB"));
    let unlimited = limit == "unlimited" || limit == "infinity";
    match (locked, unlimited) {
        (Some(true), _) => Check::ok(NAME, "segld has locked its memory"),
        (None, true) => Check::ok(NAME, "the unit lets segld lock all of its memory"),
        _ => {
            let (outcome, swap) =
                if swap { (Outcome::Problem, "and there is swap") } else { (Outcome::Warning, "there is no swap") };
            Check::new(NAME, outcome, format!("{whose} a limit of {limit}; its memory is not locked, {swap}"), advice)
        }
    }
}

fn descriptors(subject: &Subject) -> Check {
    const NAME: &str = "descriptors";
    let connections = subject.draft.as_ref().map_or(4_096, |draft| draft.limits.connections as u64);
    let needed = connections + OTHER_DESCRIPTORS;
    let advice = format!("LimitNOFILE={} in a drop-in, or fewer [limits] connections", needed.next_power_of_two());
    let Some((limit, whose)) = limit(subject, "Max open files", "LimitNOFILE") else {
        return Check::not_known(NAME, "segld.service is not installed here", advice);
    };
    let enough = limit == "unlimited" || limit == "infinity" || limit.parse::<u64>().is_ok_and(|limit| limit >= needed);
    let seen = format!("{whose} {limit}, and {connections} connections need {needed}");
    if enough { Check::ok(NAME, seen) } else { Check::problem(NAME, seen, advice) }
}

/// The cores that the configuration names, against those that segld may run on.
fn cores(subject: &Subject) -> Check {
    const NAME: &str = "cores";
    let Some(draft) = &subject.draft else { return subject.unread(NAME) };
    let sessions = draft.tokens.iter().flat_map(|token| &token.cores);
    let wanted: BTreeSet<usize> = draft.reactor.cores.iter().chain(sessions).copied().collect();
    if wanted.is_empty() {
        return Check::ok(NAME, "the configuration pins no thread");
    }
    let list = wanted.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
    let advice = format!("CPUAffinity={list} in a drop-in, see examples/cores.conf");
    let given = match (&subject.process, &subject.unit) {
        (Some(process), _) => process.status("Cpus_allowed_list"),
        (None, Some(unit)) => unit.property("CPUAffinity"),
        (None, None) => None,
    };
    let Some(given) = given.and_then(core_list) else {
        let seen = format!("cores {list} are named, and the unit has no CPUAffinity=: other threads run anywhere");
        return Check::warning(NAME, seen, advice);
    };
    let missing: Vec<_> = wanted.difference(&given).map(usize::to_string).collect();
    if !missing.is_empty() {
        let seen = format!("core {} is named, and the unit does not give it", missing.join(", "));
        return Check::problem(NAME, seen, advice);
    }
    if given != wanted {
        let seen =
            format!("cores {list} are named; segld's other threads may run on {} more", given.len() - wanted.len());
        return Check::warning(NAME, seen, advice);
    }
    Check::ok(NAME, format!("{list}: reactors and session threads, and no others are given"))
}

/// `0-3,8` and `0 2-3`.
fn core_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut cores = BTreeSet::new();
    for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        if last > 8_191 {
            return None;
        }
        cores.extend::<std::ops::RangeInclusive<usize>>(first..=last);
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read_as_the_kernel_and_systemd_write_them() {
        assert_eq!(core_list("0-2,5"), Some([0, 1, 2, 5].into()));
        assert_eq!(core_list("0 2-3"), Some([0, 2, 3].into()));
        assert_eq!(core_list("x"), None);
        assert_eq!(core_list("0-99999999999"), None);
    }
}

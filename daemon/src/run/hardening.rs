//! What the process does to itself before it touches a secret, and says aloud where it could not.

use rustix::{
    io::{Errno, Result},
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::set_no_new_privs,
};

/// What is in force and what is not.
#[derive(Debug)]
pub(super) struct Hardening([(&'static str, Result<()>, &'static str); 4]);

/// No core dumps, no ptrace by our own user, no new privileges, no memory on swap.
pub(super) fn harden() -> Hardening {
    let by_unit = "start segld by its unit";
    Hardening([
        ("core dumps off", no_core_dumps(), by_unit),
        ("not dumpable", set_dumpable_behavior(DumpableBehavior::NotDumpable), by_unit),
        ("no new privileges", set_no_new_privs(true), by_unit),
        ("memory locked", lock_memory(), "secrets may reach swap: set LimitMEMLOCK=infinity, or do without swap"),
    ])
}

fn no_core_dumps() -> Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Under the unit they are off already, and its sandbox lets nobody touch limits.
    if getrlimit(Resource::Core) == none { Ok(()) } else { setrlimit(Resource::Core, none) }
}

fn lock_memory() -> Result<()> {
    // Under a finite limit a later allocation would fail instead of this call: a daemon that dies of its own
    // protection protects nothing. Root's CAP_IPC_LOCK makes the limit void.
    let unlimited = getrlimit(Resource::Memlock).current.is_none() || rustix::process::geteuid().is_root();
    if !unlimited {
        return Err(Errno::NOMEM);
    }
    // On fault: stacks and arenas that are never touched need no memory.
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
}

impl Hardening {
    /// One line for what is in force, and one for what is not.
    pub(super) fn report(&self) {
        let good = self.0.iter().filter(|(_, result, _)| result.is_ok()).map(|(what, ..)| *what);
        tracing::info!("in force: {}", good.collect::<Vec<_>>().join(", "));
        if let Some(text) = self.missing() {
            tracing::error!("NOT IN FORCE: {text}");
        }
    }

    fn missing(&self) -> Option<String> {
        let missing = self.0.iter().filter_map(|(what, result, hint)| {
            let error = result.as_ref().err()?;
            Some(format!("{what} ({error}; {hint})"))
        });
        let missing: Vec<_> = missing.collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_had_is_named_with_why_and_what_to_do() {
        let all = Hardening([("a", Ok(()), ""), ("b", Ok(()), ""), ("c", Ok(()), ""), ("d", Ok(()), "")]);
        assert_eq!(all.missing(), None);
        let one = Hardening([("a", Ok(()), ""), ("b", Ok(()), ""), ("c", Ok(()), ""), ("d", Err(Errno::PERM), "do e")]);
        let said = one.missing().unwrap();
        assert!(said.starts_with("d (Operation not permitted") && said.ends_with("; do e)"), "{said}");
    }
}

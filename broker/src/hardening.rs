//! What the process does to itself before it reads a private key, and says aloud where it could not.

use rustix::{
    io::{Errno, Result},
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, geteuid, getrlimit, set_dumpable_behavior, setrlimit},
    thread::set_no_new_privs,
};

/// Whether each is in force.
pub(crate) struct Hardening([(&'static str, Result<()>); 4]);

/// Nobody reads tenants' keys or callers' tokens from a core dump, from swap, or by ptrace as our own user.
pub(crate) fn harden() -> Hardening {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Under a unit they may be off already, and its sandbox may let nobody touch limits.
    let no_core = if getrlimit(Resource::Core) == none { Ok(()) } else { setrlimit(Resource::Core, none) };
    // Under a finite limit a later allocation would fail instead of this call.
    let may_lock = getrlimit(Resource::Memlock).current.is_none() || geteuid().is_root();
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    Hardening([
        ("core dumps off", no_core),
        ("not dumpable", set_dumpable_behavior(DumpableBehavior::NotDumpable)),
        ("no new privileges", set_no_new_privs(true)),
        ("memory locked", if may_lock { mlockall(flags) } else { Err(Errno::NOMEM) }),
    ])
}

impl Hardening {
    /// A line for what is in force, and one for each that is not.
    pub(crate) fn report(&self) {
        let good = self.0.iter().filter(|(_, result)| result.is_ok()).map(|(what, _)| *what);
        tracing::info!("in force: {}", good.collect::<Vec<_>>().join(", "));
        for (what, error) in self.0.iter().filter_map(|(what, result)| Some((what, result.as_ref().err()?))) {
            tracing::error!(%error, "NOT IN FORCE: {what}; the unit segl-broker.service gives what it takes");
        }
    }
}

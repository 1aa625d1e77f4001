//! What the process does to itself before it touches a secret, and says aloud where it could not.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::set_no_new_privs,
};

/// No core dumps, no ptrace by our own user, no new privileges, no memory on swap.
pub(super) fn harden() {
    report("core dumps off", no_core_dumps());
    report("not dumpable", set_dumpable_behavior(DumpableBehavior::NotDumpable));
    report("no new privileges", set_no_new_privs(true));
    lock_memory();
}

fn no_core_dumps() -> rustix::io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Under the unit they are off already, and its sandbox lets nobody touch limits.
    if getrlimit(Resource::Core) == none { Ok(()) } else { setrlimit(Resource::Core, none) }
}

fn lock_memory() {
    // Under a finite limit a later allocation would fail instead of this call: a daemon that dies of its own
    // protection protects nothing. Root's CAP_IPC_LOCK makes the limit void.
    let unlimited = getrlimit(Resource::Memlock).current.is_none() || rustix::process::geteuid().is_root();
    if !unlimited {
        return tracing::error!("MEMORY IS NOT LOCKED: secrets may reach swap; set LimitMEMLOCK=infinity");
    }
    // On fault: stacks and arenas that are never touched need no memory.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    report("memory locked", mlockall(flags));
}

fn report(what: &str, result: rustix::io::Result<()>) {
    match result {
        Ok(()) => tracing::info!(what, "in force"),
        Err(error) => tracing::error!(what, %error, "NOT IN FORCE"),
    }
}

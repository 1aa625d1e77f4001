//! What the daemon can not live without: a panic there must not leave a process that looks alive and answers nothing.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokio::task::spawn_local;

/// Runs a thread's work; a panic ends the process, and the service manager starts another.
pub(crate) fn vital<T>(name: &str, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| end(name))
}

/// Spawns a task of this thread; a panic in it ends the process.
pub(crate) fn spawn_vital(name: &'static str, work: impl Future<Output = ()> + 'static) {
    let task = spawn_local(work);
    spawn_local(async move {
        if task.await.is_err_and(|error| error.is_panic()) {
            end(name);
        }
    });
}

/// The panic's own message has been printed by then.
fn end(name: &str) -> ! {
    eprintln!("segld: {name} panicked; nothing of this process can be relied on any more");
    std::process::abort()
}

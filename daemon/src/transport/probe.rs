//! Whether io_uring can be had here. Where only `io_uring_enter` is denied, an operation waits for ever without an
//! error, so a no-op is tried on a thread of its own under a watchdog.

use std::{io, sync::mpsc, thread, time::Duration};

/// A no-op takes microseconds; a machine that needs two seconds for it is of no use with io_uring either.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Tries io_uring: a runtime with `entries` submission entries and one no-op.
///
/// # Errors
/// Why not, in words for the operator.
pub(crate) fn probe_uring(entries: u32) -> Result<(), String> {
    let (report, outcome) = mpsc::sync_channel(1);
    let probe = move || {
        // The receiver may have given up; then nobody needs the answer.
        let _ = report.send(no_op(entries));
    };
    thread::Builder::new()
        .name("segl-probe".into())
        .spawn(probe)
        .map_err(|error| format!("no thread for the probe: {error}"))?;
    match outcome.recv_timeout(PROBE_TIMEOUT) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::NOMEM.raw_os_error()) => Err(format!(
            "{error}: the ring's memory counts against RLIMIT_MEMLOCK; raise LimitMEMLOCK (256 KiB a reactor is ample)"
        )),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("a no-op did not come back: io_uring_enter seems to be denied".into()),
    }
}

fn no_op(entries: u32) -> io::Result<()> {
    let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(entries))?;
    runtime.block_on(tokio_uring::no_op())
}

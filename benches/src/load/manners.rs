//! How the load's thread takes its share of the cores.

use std::{marker::PhantomData, process::Command};

use segl_tests::Result;

/// While it lives the calling thread waits for a core, in place of taking one from whoever has it when an answer arrives
/// (SCHED_BATCH, sched(7)). Clients have cores of their own; on the same ones the load broke into segld's round of
/// answers at the first of them, and into a session's call. What it burns counts as before.
///
/// It is for closed loops: an open loop has to send on time.
#[derive(Debug)]
pub(crate) struct Patience(PhantomData<*const ()>);

impl Patience {
    pub(crate) fn begin() -> Result<Patience> {
        scheduled_as("--batch")?;
        Ok(Patience(PhantomData))
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        // It was allowed to be patient; to be as it was needs no more.
        let _ = scheduled_as("--other");
    }
}

/// The calling thread, by util-linux, which every Debian has: the call itself is not to be had without `unsafe`.
fn scheduled_as(policy: &str) -> Result<()> {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let output = Command::new("chrt").args([policy, "--pid", "0", &thread]).output();
    match output.map_err(|error| format!("chrt: {error}; on Debian: apt-get install util-linux"))? {
        output if output.status.success() => Ok(()),
        output => Err(format!("chrt {policy}: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patient_thread_is_one_until_the_end_and_others_are_not() {
        let policy_of = |thread: &str| {
            let output = Command::new("chrt").args(["--pid", thread]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let own = rustix::thread::gettid().as_raw_nonzero().to_string();
        let patience = Patience::begin().unwrap();
        assert!(policy_of(&own).contains("SCHED_BATCH"));
        assert!(policy_of(&std::process::id().to_string()).contains("SCHED_OTHER"), "the thread that runs the tests");
        drop(patience);
        assert!(policy_of(&own).contains("SCHED_OTHER"));
    }
}

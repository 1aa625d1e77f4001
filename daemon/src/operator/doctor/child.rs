//! Another program, for a limited time and with a limited answer: a doctor that hangs helps nobody.

use std::{
    io::Read,
    process::{Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Most of each of its two outputs that is kept, in bytes.
const OUTPUT_MAX: u64 = 256 << 10;

/// Between looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// How it ended, and what it said.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Runs it to its end.
///
/// # Errors
/// In words that follow its name: it could not be started, or did not end in time and was killed.
pub(super) fn run(command: &mut Command, limit: Duration) -> Result<Ended, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("could not be started: {error}"))?;
    let stdout = gather(child.stdout.take().expect("it was asked for"));
    let stderr = gather(child.stderr.take().expect("it was asked for"));
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait().map_err(|error| format!("could not be waited for: {error}"))? {
            Some(status) => {
                let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
                return Ok(Ended { status, stdout, stderr });
            }
            None if Instant::now() >= deadline => {
                // Children of its own may hold its output open: nobody waits for the readers.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("did not answer within {} s", limit.as_secs()));
            }
            None => thread::sleep(PAUSE),
        }
    }
}

/// All of it is read, so that nobody waits for room in a pipe; its beginning is kept.
fn gather(mut output: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        let _ = output.by_ref().take(OUTPUT_MAX).read_to_end(&mut kept);
        let _ = std::io::copy(&mut output, &mut std::io::sink());
        kept
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn what_it_says_is_kept_and_who_does_not_end_is_killed() {
        let ended =
            run(&mut sh("echo out; echo err >&2; exit 3"), Duration::from_secs(30)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((ended.status.code(), &*ended.stdout, &*ended.stderr), (Some(3), &b"out\n"[..], &b"err\n"[..]));
        let began = Instant::now();
        let late = run(&mut sh("exec sleep 600"), Duration::from_millis(100)).err();
        assert_eq!(late.as_deref(), Some("did not answer within 0 s"));
        assert!(began.elapsed() < Duration::from_secs(60));
        assert!(run(&mut Command::new("/nowhere/program"), Duration::from_secs(1)).is_err());
    }
}

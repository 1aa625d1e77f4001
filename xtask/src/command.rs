//! Runs one command of a stage: output into a log, a line of progress now and then, and an end at its limit.
//!
//! Every command gets a process group of its own, so that its end is also the end of what it started. The terminal's
//! Ctrl-C therefore reaches only xtask, which passes it on.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use crate::Result;

/// How often a running command is reported on: often enough to see that it lives, rare enough for a CI's log.
const PROGRESS: Duration = Duration::from_secs(20);
/// How much of a failed command's output is shown; the rest is in its log.
const TAIL_BYTES: u64 = 12 * 1024;

/// The process group that is running, for the signal's thread.
static RUNNING: Mutex<Option<Pid>> = Mutex::new(None);

/// A command and the log that takes its output.
pub(crate) struct Job {
    command: Command,
    said: String,
    log: PathBuf,
}

/// How a command ended.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// Its standard output and error, together
    pub(crate) log: PathBuf,
    /// It was killed at its limit
    pub(crate) timed_out: bool,
}

impl Job {
    pub(crate) fn new(program: impl AsRef<OsStr>, dir: &Path, log: PathBuf) -> Self {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.current_dir(dir).stdin(Stdio::null()).process_group(0);
        // Output goes into a file and parts of it are read: no colours from cargo, nextest or rustfmt.
        command.env("CARGO_TERM_COLOR", "never").env("TERM", "dumb");
        // What cargo tells a program it runs would make a cargo inside believe in another package.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
                command.env_remove(name);
            }
        }
        Job { command, said: program.to_string_lossy().into_owned(), log }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        let arg = arg.as_ref();
        self.said.push(' ');
        self.said.push_str(&arg.to_string_lossy());
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Job::arg)
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end, or kills it with everything it started when `limit` has passed.
    pub(crate) fn run(mut self, limit: Duration) -> Result<Finished> {
        println!("  $ {}", self.said);
        if let Some(dir) = self.log.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut out = File::options().create(true).append(true).open(&self.log)?;
        writeln!(out, "$ {}", self.said)?;
        self.command.stdout(out.try_clone()?).stderr(out);
        let started = Instant::now();
        let mut child = self.command.spawn().map_err(|error| format!("{}: {error}", self.said))?;
        let group = Pid::from_child(&child);
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some(group);
        let ended = pidfd_open(group, PidfdFlags::empty())?;
        let mut timed_out = false;
        loop {
            let left = limit.saturating_sub(started.elapsed());
            let wait = Timespec::try_from(left.min(PROGRESS)).expect("seconds of a few minutes fit");
            let mut fds = [PollFd::new(&ended, PollFlags::IN)];
            if poll(&mut fds, Some(&wait))? > 0 {
                break;
            }
            if !timed_out && started.elapsed() >= limit {
                timed_out = true;
                kill_process_group(group, Signal::KILL)?;
                break;
            }
            println!("    ... {} s: {}", started.elapsed().as_secs(), last_line(&self.log));
        }
        let status = child.wait()?;
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(Finished { status, log: self.log, timed_out })
    }

    /// Runs it and makes anything but success an error that shows the end of its output.
    pub(crate) fn must(self, limit: Duration) -> Result<Finished> {
        let said = self.said.clone();
        let finished = self.run(limit)?;
        if finished.status.success() { Ok(finished) } else { Err(finished.failure(&said).into()) }
    }
}

impl Finished {
    fn failure(&self, said: &str) -> String {
        let how = if self.timed_out { "was killed at its limit".to_owned() } else { self.status.to_string() };
        format!("{said}: {how}\n{}\n(all of it: {})", self.tail(), self.log.display())
    }

    /// The end of the output, in whole lines.
    pub(crate) fn tail(&self) -> String {
        let tail = end_of(&self.log, TAIL_BYTES);
        match tail.find('\n') {
            Some(first) if tail.len() as u64 >= TAIL_BYTES => tail[first + 1..].to_owned(),
            _ => tail,
        }
    }

    /// All of the output.
    pub(crate) fn output(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }
}

/// At every Ctrl-C and SIGTERM, ends what is running and then does `what`.
pub(crate) fn on_signal(mut what: impl FnMut() + Send + 'static) -> Result<()> {
    use signal_hook::{
        consts::{SIGINT, SIGTERM},
        iterator::Signals,
    };
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if let Some(group) = *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) {
                // It may have ended this moment; then there is nothing to kill.
                let _ = kill_process_group(group, Signal::TERM);
            }
            what();
        }
    });
    Ok(())
}

fn last_line(log: &Path) -> String {
    let end = end_of(log, 1024);
    let line = end.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().take(100).collect()
}

/// The last bytes of a file; nothing when it can not be read, since it only serves to show something.
fn end_of(log: &Path, bytes: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut end = Vec::new();
        file.take(bytes).read_to_end(&mut end)?;
        Ok(end)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

//! A daemon as a process: started with a notification socket as under systemd, awaited with deadlines, ended for sure.

use std::{
    fmt,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

pub use rustix::process::Signal;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal},
};

use crate::Result;

/// How much of a log is shown when a test fails.
const TAIL_LINES: usize = 60;

/// A running daemon. Dropped, it is killed; dropped while a test fails, its log is shown.
pub struct Service {
    name: String,
    child: Child,
    pidfd: OwnedFd,
    notifications: UnixDatagram,
    _socket_dir: tempfile::TempDir,
    /// Notifications read from the socket and not yet asked for
    seen: Vec<String>,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Service {
    /// Starts `command` with its output appended to `DIR/NAME.log`.
    pub fn start(command: Command, dir: &Path, name: &str) -> Result<Self> {
        Service::start_with(command, Stdio::null(), dir, name)
    }

    /// As [`start`](Self::start), with this as its standard input: a way to hand it a descriptor.
    pub fn start_with(mut command: Command, stdin: Stdio, dir: &Path, name: &str) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        // Not in `dir`, whose path may be too long for a socket's (107 bytes).
        let socket_dir = tempfile::tempdir()?;
        let socket = socket_dir.path().join("notify");
        let notifications = UnixDatagram::bind(&socket)?;
        let out = File::options().create(true).append(true).open(&log)?;
        command.env("NOTIFY_SOCKET", &socket).stdin(stdin).stdout(out.try_clone()?).stderr(out);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let (name, seen, status) = (name.to_owned(), Vec::new(), None);
        Ok(Service { name, child, pidfd, notifications, _socket_dir: socket_dir, seen, log, status })
    }

    /// Waits until it says that it is ready; its end before that is an error that shows its log.
    pub fn ready(&mut self, limit: Duration) -> Result<()> {
        self.notified("READY=1", limit)
    }

    /// Waits for a notification with this line, among those not asked for before.
    pub fn notified(&mut self, line: &str, limit: Duration) -> Result<()> {
        self.await_line(line, |seen| seen == line, limit).map(drop)
    }

    /// Waits for a notification `NAME=value` and returns the value.
    pub fn told(&mut self, name: &str, limit: Duration) -> Result<String> {
        let line = self.await_line(name, |seen| seen.split_once('=').is_some_and(|(seen, _)| seen == name), limit)?;
        Ok(line[name.len() + 1..].to_owned())
    }

    fn await_line(&mut self, what: &str, wanted: impl Fn(&str) -> bool, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = self.seen.iter().position(|seen| wanted(seen)) {
                let line = self.seen.drain(..=found).next_back();
                return Ok(line.expect("the range ends with the line that was found"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.notifications, PollFlags::IN), PollFd::new(&self.pidfd, PollFlags::IN)];
            let happened = poll(&mut fds, Some(&timespec(left)))?;
            let (notified, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if notified {
                self.receive()?;
            } else if ended {
                let status = self.child.wait()?;
                self.status = Some(status);
                return Err(self.complaint(&format!("ended with {status} before it said {what}")));
            } else if happened == 0 {
                return Err(self.complaint(&format!("said no {what} within {} s", limit.as_secs_f32())));
            }
        }
    }

    /// Sends it a signal. One that has ended already is an error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        if poll(&mut fds, Some(&timespec(limit)))? == 0 {
            return Err(self.complaint(&format!("still runs after {} s", limit.as_secs_f32())));
        }
        let status = self.child.wait()?;
        self.status = Some(status);
        Ok(status)
    }

    /// SIGTERM, and its end within the limit.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        self.wait(Duration::from_secs(30))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut datagram = [0; 4096];
        let length = self.notifications.recv(&mut datagram)?;
        let text = String::from_utf8_lossy(&datagram[..length]);
        self.seen.extend(text.lines().map(str::to_owned));
        Ok(())
    }

    fn complaint(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        format!("{} {what}; the end of its log:\n{}", self.name, self.tail()).into()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of {}'s log ---\n{}", self.name, self.tail());
        }
        if self.status.is_none() {
            // Nothing is left to do about a process that can not be killed.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.name).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).expect("a limit of a test fits")
}

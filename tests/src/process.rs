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
    /// Notifications read from the socket and not yet asked for
    seen: Vec<String>,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Service {
    /// Starts `command` with its output in `DIR/NAME.log` and its notifications to `DIR/NAME.notify`.
    ///
    /// `dir` must be short enough for a socket's path (107 bytes in all).
    pub fn start(mut command: Command, dir: &Path, name: &str) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let socket = dir.join(format!("{name}.notify"));
        if socket.exists() {
            std::fs::remove_file(&socket)?;
        }
        let notifications = UnixDatagram::bind(&socket).map_err(|error| format!("{}: {error}", socket.display()))?;
        let out = File::options().create(true).append(true).open(&log)?;
        command.env("NOTIFY_SOCKET", &socket).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok(Service { name: name.to_owned(), child, pidfd, notifications, seen: Vec::new(), log, status: None })
    }

    /// Waits until it says that it is ready; its end before that is an error that shows its log.
    pub fn ready(&mut self, limit: Duration) -> Result<()> {
        self.notified("READY=1", limit)
    }

    /// Waits for a notification with this line, among those not asked for before.
    pub fn notified(&mut self, line: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = self.seen.iter().position(|seen| seen == line) {
                self.seen.drain(..=found);
                return Ok(());
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
                return Err(self.complaint(&format!("ended with {status} before {line}")));
            } else if happened == 0 {
                return Err(self.complaint(&format!("said no {line} within {} s", limit.as_secs_f32())));
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
        self.seen.extend(text.lines().filter(|line| !line.starts_with("WATCHDOG=")).map(str::to_owned));
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

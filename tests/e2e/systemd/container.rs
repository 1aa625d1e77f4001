//! A container with a systemd of its own: an overlay on a cached root directory, booted by systemd-nspawn.
//!
//! The host need not run systemd: nspawn is put into control groups made for it and registers nowhere.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use segl_tests::{Result, process::Service};

/// Booting takes a second or two; this allows for a machine that is busy with something else.
const BOOT: Duration = Duration::from_secs(60);

/// A container that is being filled, or runs. Dropped, it is shut down and taken away.
pub(crate) struct Container {
    name: String,
    dir: tempfile::TempDir,
    groups: Vec<PathBuf>,
    environment: Vec<String>,
    running: Option<(Service, String)>,
}

impl Container {
    /// Lays an overlay on the root directory that `SEGL_NSPAWN_ROOT` names.
    pub(crate) fn prepare(name: &str) -> Result<Self> {
        let root = std::env::var_os("SEGL_NSPAWN_ROOT")
            .ok_or("SEGL_NSPAWN_ROOT names no root directory; `cargo xtask test --stage systemd` makes one")?;
        let dir = tempfile::tempdir()?;
        for part in ["upper", "work", "merged"] {
            fs::create_dir(dir.path().join(part))?;
        }
        let container = Container {
            name: format!("{name}-{}", std::process::id()),
            dir,
            groups: Vec::new(),
            environment: Vec::new(),
            running: None,
        };
        let mut layers = std::ffi::OsString::from("lowerdir=");
        layers.push(root);
        for (option, part) in [(",upperdir=", "upper"), (",workdir=", "work")] {
            layers.push(option);
            layers.push(container.dir.path().join(part));
        }
        let mount = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o"])
            .arg(layers)
            .arg(container.root())
            .output()?;
        said(&mount, "mount")?;
        Ok(container)
    }

    /// Its root directory, to be filled before it boots.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("merged")
    }

    /// A variable of its systemd's environment and of every command run in it.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push(format!("{name}={value}"));
    }

    /// Puts a file into it, with the directories above.
    pub(crate) fn put(&self, path: &str, content: &[u8]) -> Result<()> {
        let path = self.root().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().ok_or("a file's path has a directory")?)?;
        Ok(fs::write(path, content)?)
    }

    /// Boots it and waits until its systemd has reached its target.
    pub(crate) fn boot(&mut self) -> Result<()> {
        let mut join = String::new();
        let hierarchies = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        for hierarchy in hierarchies.into_iter().filter(|dir| Path::new(dir).join("cgroup.procs").exists()) {
            let group = PathBuf::from(hierarchy).join(&self.name);
            fs::create_dir(&group)?;
            join.push_str(&format!("echo $$ > {}/cgroup.procs; ", group.display()));
            self.groups.push(group);
        }
        let mut shell = Command::new("sh");
        shell.arg("-ec").arg(format!(
            "{join}exec systemd-nspawn -q -D {} --register=no --keep-unit --private-network --notify-ready=yes \
             --console=pipe --link-journal=no --resolv-conf=off --timezone=off --machine={} --capability=all {} -b",
            self.root().display(),
            self.name,
            self.environment.iter().map(|variable| format!("--setenv={variable}")).collect::<Vec<_>>().join(" ")
        ));
        let mut nspawn = Service::start(shell, self.dir.path(), "nspawn")?;
        let leader = nspawn.told("X_NSPAWN_LEADER_PID", BOOT)?;
        nspawn.ready(BOOT)?;
        self.running = Some((nspawn, leader));
        Ok(())
    }

    /// Runs a command in it; anything but success is an error.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.try_run(words)?;
        said(&output, &words.join(" "))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs a command in it, whatever comes of it.
    pub(crate) fn try_run(&self, words: &[&str]) -> Result<Output> {
        Ok(self.command(words)?.output()?)
    }

    /// Runs a command in it that reads `input`; a secret is not seen in anybody's list of processes that way.
    pub(crate) fn feed(&self, words: &[&str], input: &[u8]) -> Result<String> {
        let mut command = self.command(words)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().ok_or("it was asked for")?.write_all(input)?;
        let output = child.wait_with_output()?;
        said(&output, &words.join(" "))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A command in it, to be run.
    pub(crate) fn command(&self, words: &[&str]) -> Result<Command> {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-t", self.leader()?, "-a", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        nsenter.args(&self.environment).args(words);
        Ok(nsenter)
    }

    /// A process of the host's, such as a TPM, in its network.
    pub(crate) fn beside(&self, program: &str) -> Result<Command> {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-t", self.leader()?, "-n", program]);
        Ok(nsenter)
    }

    /// What a unit has logged since the boot.
    pub(crate) fn log(&self, unit: &str) -> Result<String> {
        // What was said before may still be on its way into the journal.
        self.run(&["journalctl", "--sync"])?;
        self.run(&["journalctl", "--no-pager", "--output=cat", "--unit", unit])
    }

    /// What a unit's property says.
    pub(crate) fn show(&self, unit: &str, property: &str) -> Result<String> {
        self.run(&["systemctl", "show", "--value", "--property", property, unit])
    }

    /// Does something in its network, on a thread of its own; everything else there is the host's.
    pub(crate) fn in_network<T: Send>(&self, what: impl FnOnce() -> T + Send) -> Result<T> {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.leader()?))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), Some(LinkNameSpaceType::Network))?;
                Ok(what())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn leader(&self) -> Result<&str> {
        let (_, leader) = self.running.as_ref().ok_or("the container has not been booted")?;
        Ok(leader)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(journal) = self.try_run(&["journalctl", "--no-pager", "--lines=80", "--output=short-monotonic"])
        {
            eprintln!("--- the container's journal ---\n{}", String::from_utf8_lossy(&journal.stdout));
        }
        // SIGKILL first would orphan the container: nspawn takes it down only when it is asked to.
        if let Some((mut nspawn, _)) = self.running.take()
            && let Err(error) = nspawn.terminate(BOOT)
        {
            eprintln!("{error}");
        }
        let unmounted = Command::new("umount").arg(self.root()).output();
        if let Err(error) = unmounted.map_err(Into::into).and_then(|output| said(&output, "umount")) {
            eprintln!("{error}");
        }
        for group in &self.groups {
            remove_group(group);
        }
    }
}

/// Removes a control group from the bottom up; one in which something still runs stays, and is the kernel's to report.
fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(group) {
        eprintln!("{}: {error}", group.display());
    }
}

fn said(output: &Output, what: &str) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{what}: {}\n{out}{err}", output.status).into())
}

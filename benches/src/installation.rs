//! A segld of the bench's own: temporary PKI, token, journal on a real disk, one tenant, one key.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use clap::{Args, ValueEnum};
use segl_tests::{
    Result, documents,
    http::Http,
    pki::{Authority, IdentityFiles},
    process::Service,
    site::{await_keys, free_addresses},
};
use segl_wire::Class;
use serde::Serialize;

use crate::{
    build::Programs,
    key::Payload,
    load::{Operation, Target, Task, Work},
    token::Token,
};

/// Long enough for the making of RSA keys on a loaded machine.
const READY: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Io {
    /// io_uring
    Uring,
    Epoll,
}

/// How segld is configured.
#[derive(Clone, Debug, Args)]
pub(crate) struct SegldArguments {
    /// Whether each signature is recorded, and its record on disk before the answer leaves
    #[arg(long, value_enum, default_value = "on")]
    pub(crate) journal: Switch,
    /// How segld's reactors talk to the kernel
    #[arg(long, value_enum, default_value = "epoll")]
    pub(crate) io: Io,
    /// Sessions that segld opens. If not given: for `ratio` the number of threads that gave most at the ceiling, and
    /// in closed loops of ECDSA and Ed25519 on SoftHSM2 the best of as many as the machine has cores, one more and
    /// twice as many; else as many as the machine has cores, or the simulated token slots
    #[arg(long)]
    pub(crate) sessions: Option<u32>,
    /// Reactors, each pinned to a core: numbers of cores with commas. One that is not pinned, if not given
    #[arg(long, value_delimiter = ',')]
    pub(crate) reactors: Vec<usize>,
    /// For how long a session's thread looks for work before it sleeps, as 50us
    #[arg(long, default_value = "0s")]
    pub(crate) spin: String,
    /// What is signed: digests, or messages where the token takes no digests, if not given. For assertions and JWS segld
    /// has a key with rules that take them; the ceiling stays the token's alone
    #[arg(long, value_enum)]
    pub(crate) operation: Option<Operation>,
    /// Jobs that a session takes at once
    #[arg(long, default_value_t = 64)]
    pub(crate) pool_batch: u32,
    /// Where token, PKI and journal are made, in a directory of their own that is removed again; below the target
    /// directory if not given. It decides on which disk the journal is
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Take segld as it lies beside this program; do not build it
    #[arg(long)]
    pub(crate) no_build: bool,
}

impl SegldArguments {
    /// In which the figures stand that they explain.
    pub(crate) fn describe(&self, sessions: u32) -> String {
        let journal = if self.journal == Switch::On { "journal on" } else { "journal OFF" };
        let io = if self.io == Io::Uring { "io_uring" } else { "epoll" };
        let spin = if self.spin == "0s" { String::new() } else { format!(", spin {}", self.spin) };
        let reactors = self.reactors.len().max(1);
        format!(
            "{}{journal}, {io}, {reactors} reactor{}, {sessions} sessions{spin}",
            match self.operation {
                Some(Operation::Assertion) => "assertions, ",
                Some(Operation::Jws) => "JWS, ",
                _ => "",
            },
            if reactors == 1 { "" } else { "s" }
        )
    }

    /// What is asked for with this token's key.
    fn operation(&self, token: &Token) -> Operation {
        self.operation.unwrap_or(match token.payload() {
            Payload::Digest => Operation::Digest,
            Payload::Message => Operation::Message,
        })
    }
}

/// The directory that all is made in, removed at the end.
#[derive(Debug)]
pub(crate) struct Workplace {
    dir: tempfile::TempDir,
    /// The journal's disk, in words
    pub(crate) disk: String,
}

impl Workplace {
    /// Below this directory, or below the target directory.
    pub(crate) fn new(below: Option<&Path>) -> Result<Workplace> {
        let below = match below {
            Some(dir) => dir.to_owned(),
            None => segl_tests::programs::target().join("segl-bench"),
        };
        fs::create_dir_all(&below)?;
        let dir = tempfile::Builder::new().prefix("run-").tempdir_in(below.canonicalize()?)?;
        let disk = file_system(dir.path(), &fs::read_to_string("/proc/self/mountinfo")?);
        eprintln!("everything is made in {} ({disk}), and removed again", dir.path().display());
        if disk.starts_with("tmpfs") {
            eprintln!("THAT IS NO DISK: the journal's figures would be flattered; give another place with --dir");
        }
        Ok(Workplace { dir, disk })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// A running segld.
#[derive(Debug)]
pub(crate) struct Segld {
    service: Service,
    address: SocketAddr,
    ca: PathBuf,
    client: IdentityFiles,
    pub(crate) journal: PathBuf,
}

impl Segld {
    /// Starts one in `dir`, which is made.
    pub(crate) fn start(
        token: &Token,
        arguments: &SegldArguments,
        load: Load,
        dir: &Path,
        programs: &Programs,
    ) -> Result<Segld> {
        fs::create_dir_all(dir)?;
        let (servers, clients) = (Authority::new("segl-bench servers")?, Authority::new("segl-bench clients")?);
        let (ca, clients_ca) = (dir.join("servers-ca.pem"), dir.join("clients-ca.pem"));
        fs::write(&ca, servers.pem())?;
        fs::write(&clients_ca, clients.pem())?;
        servers.server(&["localhost"])?.write(dir, "segld")?;
        let client = clients.client("spiffe://segl.example/bench")?.write(dir, "client")?;
        let [address, admin] = free_addresses(&[])?;
        let config = dir.join("segld.toml");
        fs::write(&config, configuration(token, arguments, load, address, admin))?;
        let mut command = Command::new(programs.segld()?);
        command.arg("--config").arg(&config);
        if let Some((variable, value)) = &token.environment {
            command.env(variable, value);
        }
        let mut service = Service::start(command, dir, "segld")?;
        service.ready(READY)?;
        await_keys(&Http::new(&format!("http://{admin}"), &servers.pem(), None)?)
            .map_err(|error| format!("segld's key does not sign: {error}\n{}", service.log()))?;
        Ok(Segld { service, address, ca, client, journal: dir.join("journal") })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.service.pid()
    }

    /// For the load.
    pub(crate) fn target(&self) -> Result<Target> {
        Target::new(&self.address.to_string(), "localhost", &self.ca, &self.client.certificate, &self.client.key)
    }

    /// Ends it in an orderly way.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.service.terminate(Duration::from_secs(30)).map(drop)
    }
}

/// How much is in flight at most, by which segld's limits are set: a bench means to fill the token, not the limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Requests on each
    pub(crate) in_flight: usize,
    /// Signatures a request asks for
    pub(crate) batch: usize,
}

/// The one kind of request that a token's bench makes.
pub(crate) fn plain_work(token: &Token, arguments: &SegldArguments, batch: usize) -> Result<Work> {
    Work::new(vec![plain_task(token, arguments, Class::Login, 1)], batch)
}

/// The same in a class and with a weight.
pub(crate) fn plain_task(token: &Token, arguments: &SegldArguments, class: Class, weight: u64) -> Task {
    let operation = arguments.operation(token);
    Task { key: "bench".to_owned(), algorithm: token.key.algorithm(), operation, class, weight }
}

fn configuration(
    token: &Token,
    arguments: &SegldArguments,
    load: Load,
    address: SocketAddr,
    admin: SocketAddr,
) -> String {
    let connection = (load.in_flight * load.batch).clamp(1024, 65_536);
    let tenant = (connection * load.connections).clamp(8192, 1_000_000);
    let frame_kib = ((load.batch * 208) / 1024 + 2).max(256);
    let unrecorded = match arguments.journal {
        Switch::On => "",
        Switch::Off => "unrecorded_for_benchmarks = true\n",
    };
    let io = if arguments.io == Io::Uring { "uring" } else { "epoll" };
    let (section, locator) = token.sections(arguments.sessions.unwrap_or_else(|| token.sessions()));
    let (purpose, rules) = match arguments.operation(token) {
        Operation::Digest | Operation::Message => ("digest", ""),
        Operation::Assertion => ("assertion", documents::ASSERTION_RULES),
        Operation::Jws => ("jws", documents::JWS_RULES),
    };
    // What a token that makes no signatures gives would not pass a test.
    let checks = if token.kind.pretends() { "self_test = \"presence\"\nverify = \"off\"\n" } else { "" };
    format!(
        r#"# Made by segl-bench.
[listen]
addresses = ["{address}"]

[admin]
address = "{admin}"

[reactor]
cores = {reactors:?}
io = "{io}"

[tls]
certificate = "segld.pem"
private_key = "segld.key"
client_ca = "clients-ca.pem"

[limits]
connections_per_tenant = {connections}
in_flight_per_connection = {connection}
in_flight_per_tenant = {tenant}
batch_max = {batch}
frame_max = "{frame_kib}KiB"
document_max = "128KiB"
message_max = "64KiB"

[pool]
spin = "{spin}"
batch_max = {pool_batch}
queue_depth_login = {tenant}
queue_depth_signature = {tenant}
queue_depth_bulk = {tenant}
tenant_depth_max = {tenant}

[audit]
directory = "journal"
{unrecorded}
[log]
level = "warn"

{section}
[[key]]
name = "bench"
purpose = "{purpose}"
tokens = ["bench"]
{locator}
algorithms = ["{algorithm}"]
accept_legacy = true
{checks}
[[tenant]]
name = "bench"
clients = [{{ san = "URI:spiffe://segl.example/bench" }}]
[[tenant.grant]]
key = "bench"
{rules}"#,
        reactors = arguments.reactors,
        connections = load.connections.max(1024),
        batch = load.batch.max(256),
        spin = arguments.spin,
        pool_batch = arguments.pool_batch,
        algorithm = token.key.algorithm().name(),
    )
}

/// File system and device of a path, from the text of `/proc/self/mountinfo`: the longest mount point above it.
fn file_system(path: &Path, mountinfo: &str) -> String {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        let mut file_system = file_system.split(' ');
        path.starts_with(point).then_some((point.len(), file_system.next()?, file_system.next()?))
    });
    let found = mounts.max_by_key(|(len, ..)| *len);
    found.map_or_else(|| "file system unknown".to_owned(), |(_, kind, device)| format!("{kind} on {device}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_that_of_the_longest_mount_point_above() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      30 22 0:5 / /tmp rw shared:2 - tmpfs tmpfs rw\n\
                      31 22 8:2 / /work rw - xfs /dev/sdb1 rw\n";
        assert_eq!(file_system(Path::new("/work/main"), mounts), "xfs on /dev/sdb1");
        assert_eq!(file_system(Path::new("/tmp/x"), mounts), "tmpfs on tmpfs");
        assert_eq!(file_system(Path::new("/workers"), mounts), "ext4 on /dev/sda1");
    }
}

//! The settings of the daemon itself, one struct a section of the file, everything parsed and resolved.
//!
//! The defaults stand in [`super::read_settings`], their reasons in `docs/CONFIGURATION.md`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use segl_pool::Rules;

use crate::certificate::Chain;

/// `[host]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What this daemon calls itself in the journal, in self-tests and in its log; the kernel's node name if not given
    pub name: String,
    /// The site it stands on; tokens of another are used when those of this one are away or too busy
    pub site: Option<String>,
    /// The hosts that this configuration is for, by `/etc/machine-id`; empty: any. A guard against mistakes and nothing
    /// more: whoever can write files here can write that one too
    pub machine_ids: Vec<String>,
    /// What a clock means that nobody calls synchronised
    pub clock: Clock,
    /// A file that is touched whenever the clock was adjusted, for time daemons that can not be asked
    pub clock_marker: Option<PathBuf>,
    /// After so long without an adjustment the clock no longer counts as synchronised
    pub clock_age_max: Duration,
}

/// What a clock means that nobody calls synchronised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Said aloud, recorded, and counted
    Warn,
    /// The same, and no start
    Required,
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where Segl opens its own sockets; empty when systemd passes them
    pub addresses: Vec<SocketAddr>,
    /// Connections that the kernel holds for us until they are accepted
    pub backlog: u32,
}

/// How the reactors talk to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// io_uring where the kernel lets us, else epoll, with a line in the log
    Auto,
    /// io_uring or no start
    Uring,
    /// epoll
    Epoll,
}

/// `[reactor]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reactor {
    /// One reactor a core, pinned to it; empty: one reactor, not pinned
    pub cores: Vec<usize>,
    /// How they talk to the kernel
    pub io: Io,
}

/// What a file held, and which file it was (for messages).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromFile<T> {
    /// Where it was read from, absolute
    pub path: PathBuf,
    /// What was in it
    pub content: T,
}

/// `[tls]`, its files read: what was checked is what is used.
#[derive(Debug)]
pub struct Tls {
    /// The daemon's own certificate chain, leaf first
    pub certificate: FromFile<Chain>,
    /// Its private key; fits the certificate
    pub private_key: FromFile<PrivateKeyDer<'static>>,
    /// Who may vouch for clients: at least one certificate
    pub client_ca: FromFile<Vec<CertificateDer<'static>>>,
    /// Revocation lists, each from one of `client_ca`; empty: none configured
    pub crls: Vec<FromFile<CertificateRevocationListDer<'static>>>,
    /// For how long after its nextUpdate a list is still honoured; nought: not at all
    pub crl_grace: Duration,
}

/// `[limits]`: every limit towards clients. All are positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, in all
    pub connections: usize,
    /// Connections at once of one tenant
    pub connections_per_tenant: usize,
    /// Connections at once that have not finished their TLS handshake, in all
    pub handshakes: usize,
    /// From accept to the end of the TLS handshake
    pub handshake_timeout: Duration,
    /// A connection without traffic and without anything in flight for so long is closed
    pub idle_timeout: Duration,
    /// A client that takes none of its answers for so long is closed
    pub write_timeout: Duration,
    /// Longest body of a frame, in bytes
    pub frame_max: u32,
    /// Requests in flight on a connection; a batch of N counts N
    pub in_flight_per_connection: u32,
    /// Requests in flight of a tenant that names no number of its own
    pub in_flight_per_tenant: u32,
    /// Bytes of answers that wait to be written on a connection, until which it is read from
    pub pending_output_max: usize,
    /// Items in a batch
    pub batch_max: u32,
    /// Longest message to sign, in bytes
    pub message_max: u32,
    /// Longest document (SAML, a JWS's header or payload), in bytes
    pub document_max: u32,
    /// Longest time a request may ask for
    pub timeout_max: Duration,
    /// From SIGTERM to the exit, answers in flight or not
    pub drain_timeout: Duration,
}

/// `[pool]`: how requests wait for sessions; what stays with the pool's own default is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Jobs that a session takes at once, at most
    pub batch_max: u16,
    /// Expected work that a session takes at once, at most
    pub batch_time: Duration,
    /// For how long a session's thread looks for work before it sleeps; nought: not at all
    pub spin: Duration,
    /// Jobs of each class that wait for one set of tokens, in the order of [`segl_wire::Class`]
    pub queue_depth_max: [u32; 3],
    /// Jobs of one tenant that wait, all classes together
    pub tenant_depth_max: u32,
    /// While signatures wait, one dispatch in so many is one of them
    pub signature_one_in: u32,
    /// While bulk waits, one dispatch in so many is bulk
    pub bulk_one_in: u32,
    /// How often a job is tried again
    pub retries_max: u8,
    /// Tries again in all, in per cent of the jobs
    pub retry_budget_percent: u32,
    /// Threads of one token that may be left behind in calls that do not return
    pub stuck_threads_max: u16,
    /// Pause after a token failed twice in a row; doubles with each further failure
    pub backoff_min: Duration,
    /// Longest such pause
    pub backoff_max: Duration,
}

impl Pool {
    /// As the pool wants them.
    pub fn rules(&self) -> Rules {
        Rules {
            batch_max: self.batch_max,
            batch_time_ns: self.batch_time.as_nanos() as u64,
            queue_depth_max: self.queue_depth_max,
            tenant_depth_max: self.tenant_depth_max,
            signature_one_in: self.signature_one_in,
            bulk_one_in: self.bulk_one_in,
            retries_max: self.retries_max,
            retry_budget_percent: self.retry_budget_percent,
            stuck_threads_max: self.stuck_threads_max,
            backoff_min_ns: self.backoff_min.as_nanos() as u64,
            backoff_max_ns: self.backoff_max.as_nanos() as u64,
            ..Rules::default()
        }
    }
}

/// `[audit]`: the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Its directory
    pub directory: PathBuf,
    /// Length of a segment file, in bytes
    pub segment_size: u64,
    /// Whether intents and outcomes are thrown away: to measure what recording costs, on this host and with tokens made
    /// for it
    pub unrecorded_for_benchmarks: bool,
}

/// `[admin]`: metrics, health, readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where they are served, in clear text
    pub address: SocketAddr,
}

/// `[control]`: the socket that `segl` speaks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Its path
    pub socket: PathBuf,
    /// Whether the file says where; else a host without that directory goes on without the socket
    pub demanded: bool,
    /// Whose members may look and change; root and the daemon's own user may in any case
    pub operators: Group,
    /// Whose members may look
    pub watchers: Option<Group>,
}

/// A group of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// As it was given
    pub name: String,
    /// Its number; none where the host has no such group
    pub gid: Option<u32>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What stops Segl
    Error,
    /// What an operator should look at
    Warn,
    /// What changes
    Info,
    /// What happens to connections and sessions
    Debug,
    /// Everything
    Trace,
}

impl LogLevel {
    /// All there are, the quietest first.
    pub const ALL: [LogLevel; 5] = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

    /// The level of that name.
    pub fn of(name: &str) -> Option<LogLevel> {
        LogLevel::ALL.into_iter().find(|level| level.name() == name)
    }

    /// As tracing's filters spell it.
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For eyes
    Text,
    /// An object a line
    Json,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How much
    pub level: LogLevel,
    /// In which form
    pub format: LogFormat,
}

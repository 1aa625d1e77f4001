//! A run of the daemon, from the configuration to the exit status.
//!
//! What is wrong in the configuration refuses the start; a token that is away does not: segld starts degraded, says
//! READY, and keeps trying.

mod admin;
mod assemble;
mod gauges;
mod hardening;
mod listeners;
mod logging;
mod reload;
mod service;
mod timekeeping;
mod tokens;

use std::{
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use segl_audit::Record;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    config::{self, Config},
    control::server::{self, Reloads, SocketError, Wanted},
    keeper::Keeper,
    reactor::{self, Control, ReactorInbox, ReactorSetup, ReactorThread, Teller},
    state::Shared,
    synchronisation::{Sighting, Sources},
    transport::{self, Io},
};
pub(crate) use assemble::{Assembly, assemble};
pub(crate) use logging::LogLevels;
use reload::Reloader;
use tokens::Tokens;

/// Name and version, as Hello, journal and `--version` have it.
pub const SOFTWARE: &str = concat!("segld ", env!("CARGO_PKG_VERSION"));

/// How long sessions get to close once everything is answered; a stuck token is left behind.
const POOL_STOP: Duration = Duration::from_secs(2);

/// How long the keeper may take to record what the pool has said last.
const KEEPER_FLUSH: Duration = Duration::from_secs(1);

/// How long the journal may take with its last records; a disk that hangs is left behind.
const JOURNAL_CLOSE: Duration = Duration::from_secs(5);

/// How often the main thread looks whether its reactors live.
const LOOK_AT_REACTORS: Duration = Duration::from_secs(1);

/// Why a run could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The configuration
    #[error("{0}")]
    Configuration(config::Findings),
    /// TLS material
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// A token's module or directory
    #[error("token {token}: {error}")]
    Token {
        /// Its name
        token: String,
        /// What is wrong
        error: segl_hsm::Error,
    },
    /// Tokens that should hold the same key do not
    #[error("{0}: tokens of one key must hold the same one; compare them, or give the key its `certificate`")]
    KeysDiffer(String),
    /// The journal
    #[error(transparent)]
    Journal(#[from] segl_audit::OpenError),
    /// The journal takes no records
    #[error("the start can not be recorded: {0}")]
    Unrecorded(#[from] segl_audit::Refusal),
    /// The clock, where it is required to be right
    #[error("[host] clock = \"required\", and the clock is {0}; see that the time daemon runs and reaches its servers")]
    Clock(String),
    /// The operator's socket
    #[error(transparent)]
    Control(#[from] SocketError),
    /// io_uring was demanded
    #[error("reactor.io = \"uring\", but io_uring can not be had: {0}")]
    NoUring(String),
    /// A reactor's thread came to an end without being told to
    #[error("a reactor ended by itself; the log before says why")]
    ReactorEnded,
    /// The system refused something
    #[error("{what}: {error}")]
    System {
        /// What
        what: String,
        /// The system's word
        error: std::io::Error,
    },
}

/// Adds what was tried to the system's word.
fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> RunError {
    |error| RunError::System { what: what.into(), error }
}

/// Prints everything that is wrong with a configuration; the status says whether segld would start with it.
pub fn check(config_path: &Path) -> ExitCode {
    let findings = config::check(config_path);
    println!("{findings}");
    if findings.fatal() {
        return ExitCode::FAILURE;
    }
    println!("{}: good", config_path.display());
    ExitCode::SUCCESS
}

/// Runs segld until it is told to stop. Errors are printed; the status is for the service manager.
pub fn run(config_path: &Path) -> ExitCode {
    match try_run(config_path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("segld can not go on: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(config_path: &Path) -> Result<(), RunError> {
    // Before a private key is read; said when there is a log.
    let hardening = hardening::harden();
    let (config, findings) = config::load(config_path).map_err(RunError::Configuration)?;
    let (_log, levels) = logging::start(&config.log);
    if !findings.is_empty() {
        tracing::warn!("{findings}");
    }
    hardening.report();
    let clock = timekeeping::begin(&config.host)?;
    let prometheus = gauges::install();
    let io = choose_io(config.reactor.io)?;
    let listeners = listeners::open(&config.listen)?;
    let addresses = listeners.addresses();

    let Assembly { shared, inboxes, keeper, registry, tokens } = assemble(&config)?;
    gauges::zero(&shared.token_names);
    let reactors = start_reactors(&shared, &config, io, listeners, inboxes)?;
    let main = Main {
        reloader: Reloader::new(
            config_path.to_owned(),
            registry,
            tokens.clone(),
            shared.clone(),
            keeper.clone(),
            &config,
        ),
        tokens,
        levels,
        addresses,
        started: (SystemTime::now(), Instant::now()),
        keeper,
        config,
        shared,
        reactors,
        prometheus,
        clock,
    };
    main.serve()
}

fn choose_io(wanted: config::Io) -> Result<Io, RunError> {
    match (wanted, transport::probe_uring(reactor::RING_ENTRIES)) {
        (config::Io::Epoll, _) => Ok(Io::Epoll),
        (_, Ok(())) => Ok(Io::Uring),
        (config::Io::Uring, Err(why)) => Err(RunError::NoUring(why)),
        (config::Io::Auto, Err(why)) => {
            tracing::error!(why, "IO_URING IS NOT AVAILABLE HERE: falling back to epoll");
            Ok(Io::Epoll)
        }
    }
}

fn start_reactors(
    shared: &Arc<Shared>,
    config: &Config,
    io: Io,
    listeners: listeners::Listeners,
    inboxes: Vec<Arc<ReactorInbox>>,
) -> Result<Vec<ReactorThread>, RunError> {
    let per_reactor = listeners.share_out(inboxes.len())?;
    let start = |(index, (inbox, listeners)): (usize, (Arc<ReactorInbox>, Vec<std::net::TcpListener>))| {
        let setup = ReactorSetup {
            index: u16::try_from(index).expect("there are no more reactors than cores"),
            core: config.reactor.cores.get(index).copied(),
            io,
            listeners,
            inbox,
        };
        shared.progress[index].made(shared.desk.now_ns());
        reactor::spawn(shared.clone(), setup).map_err(system("a reactor's thread"))
    };
    let reactors = inboxes.into_iter().zip(per_reactor).enumerate().map(start).collect::<Result<Vec<_>, _>>()?;
    tracing::info!(reactors = reactors.len(), io = io.name(), "reactors started");
    Ok(reactors)
}

/// Why segld stops.
#[derive(Clone, Copy)]
enum Reason {
    Signal(&'static str),
    ReactorEnded,
}

/// The main thread, once everything runs: signals, health, metrics, the watchdog.
struct Main {
    config: Config,
    shared: Arc<Shared>,
    reactors: Vec<ReactorThread>,
    reloader: Reloader,
    tokens: Tokens,
    levels: LogLevels,
    /// Where clients connect
    addresses: Vec<SocketAddr>,
    started: (SystemTime, Instant),
    keeper: Arc<Keeper>,
    prometheus: metrics_exporter_prometheus::PrometheusHandle,
    /// Where the clock is looked at, and what was seen there first
    clock: (Sources, Sighting),
}

impl Main {
    fn serve(self) -> Result<(), RunError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("the main thread's runtime"))?;
        let reason = runtime.block_on(self.until_stopped())?;
        // The main thread's tasks end with their runtime: from here on nobody reads health or metrics.
        runtime.shutdown_background();
        self.stop(reason)
    }

    /// Waits until there is a reason to stop.
    async fn until_stopped(&self) -> Result<Reason, RunError> {
        let mut hangup = signal(SignalKind::hangup()).map_err(system("SIGHUP"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(system("SIGTERM"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("SIGINT"))?;
        let health = service::Health::new(self.shared.clone());
        admin::start(&self.config.admin, self.shared.clone(), health.clone(), self.prometheus.clone()).await?;
        tokio::spawn(service::feed_watchdog(health.clone()));
        let (sources, first) = self.clock.clone();
        tokio::spawn(timekeeping::look_after(self.shared.clone(), sources, first));
        tokio::spawn(gauges::watch_disk(self.config.audit.directory.clone()));
        let (reloads, wanted) = Reloads::new(*self.config.digest());
        let tellers = self.reactors.iter().map(ReactorThread::teller).collect();
        tokio::spawn(reload_when(wanted, reloads.clone(), self.reloader.clone(), tellers));
        let door = server::open(&self.config.control)?;
        // Taken away when this returns.
        let _socket = door.map(|door| server::serve(door, self.control(reloads.clone(), health)));
        service::ready();
        tracing::info!(version = SOFTWARE, "ready");
        let mut looks = tokio::time::interval(LOOK_AT_REACTORS);
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(Reason::Signal("SIGTERM")),
                _ = interrupt.recv() => return Ok(Reason::Signal("SIGINT")),
                // One that comes during a reload is done after it; two are as good as one.
                _ = hangup.recv() => reloads.want(),
                _ = looks.tick() => {
                    if self.reactors.iter().any(ReactorThread::is_finished) {
                        return Ok(Reason::ReactorEnded);
                    }
                }
            }
        }
    }

    /// What the control socket shows and moves.
    fn control(&self, reloads: Reloads, health: service::Health) -> server::Context {
        server::Context {
            shared: self.shared.clone(),
            keeper: self.keeper.clone(),
            tokens: self.tokens.all().to_vec(),
            facts: server::Facts {
                host: self.config.host.clone(),
                tokens: self.config.tokens.clone(),
                listeners: self.addresses.clone(),
                control: self.config.control.clone(),
                started: self.started.0,
                began: self.started.1,
            },
            reloads,
            levels: self.levels.clone(),
            window: Arc::default(),
            health: Box::new(move || health.check()),
        }
    }

    fn stop(self, reason: Reason) -> Result<(), RunError> {
        service::stopping();
        let text = match reason {
            Reason::Signal(name) => name,
            Reason::ReactorEnded => "a reactor ended by itself",
        };
        tracing::info!(reason = text, "stopping");
        let desk = &self.shared.desk;
        let limit = self.config.limits.drain_timeout;
        self.reactors.iter().for_each(|reactor| reactor.teller().tell(Control::Drain(limit)));
        for reactor in self.reactors {
            if let Err(error) = reactor.join() {
                tracing::error!(%error, "a reactor ended badly");
            }
        }
        desk.drain();
        let stopped = desk.stop(POOL_STOP);
        if stopped.threads_left > 0 {
            tracing::error!(threads = stopped.threads_left, "left behind: stuck inside a token's call");
        }
        if !self.keeper.flush(KEEPER_FLUSH) {
            tracing::error!("the keeper did not come to its end in time: what it had to record may be missing");
        }
        desk.note(&Record::Stop(segl_audit::Stop { reason: text.into() }));
        if let Err(why) = desk.journal().close(JOURNAL_CLOSE) {
            tracing::error!(why, "the journal could not be closed in order");
        }
        // Tokens close their last sessions when they are dropped, and one that is away may take its time over it:
        // the process's end does the same at once.
        std::mem::forget((self.reloader, self.tokens, self.shared));
        tracing::info!("stopped");
        match reason {
            Reason::Signal(_) => Ok(()),
            Reason::ReactorEnded => Err(RunError::ReactorEnded),
        }
    }
}

/// Reloads whenever it is wanted, one after the other. All who want one when it begins are told what came of it.
async fn reload_when(mut wanted: mpsc::Receiver<Wanted>, reloads: Reloads, reloader: Reloader, reactors: Vec<Teller>) {
    while let Some(first) = wanted.recv().await {
        let mut waiting: Vec<_> = first.into_iter().collect();
        while let Ok(another) = wanted.try_recv() {
            waiting.extend(another);
        }
        service::reloading();
        let reloader = reloader.clone();
        let reloaded = tokio::task::spawn_blocking(move || reloader.reload()).await;
        let (outcome, digest) = match reloaded {
            Ok(reloaded) => reloaded,
            // What it left behind nobody knows; a reload that succeeds puts it right.
            Err(_) => (Err("the reload panicked; the log says where".to_owned()), [0; 32]),
        };
        if outcome.is_ok() {
            reactors.iter().for_each(|reactor| reactor.tell(Control::Reloaded));
        }
        reloads.done(outcome.clone(), digest);
        service::ready();
        // Who waited may be gone.
        waiting.into_iter().for_each(|tell| drop(tell.send(outcome.clone())));
    }
}

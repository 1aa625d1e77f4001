//! The process: start, signals, reload, the way out, and what systemd is told.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{self, IsTerminal as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tracing_subscriber::EnvFilter;

use crate::{
    api::{self, Broker, Limits, Snapshot},
    callers::Callers,
    clock,
    config::{Config, Loaded},
    hardening::harden,
    idempotency::Idempotency,
    in_flight::InFlight,
    metrics,
    published::Published,
    server::Server,
    upstream::{Client, Member, Tenant},
};

/// How long new roads may take before a start or a reload goes on without them.
const ROADS_WAIT_MAX: Duration = Duration::from_secs(3);

/// Connections of the operator's tools.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// A certificate that ends within this is warned of.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);

/// Runs until SIGTERM.
pub(crate) fn main(path: &Path) -> ExitCode {
    // Before a private key is read; said when there is a log.
    let hardening = harden();
    let (config, loaded) = match Config::open(path) {
        Ok(opened) => opened,
        Err(findings) => {
            for finding in &findings.0 {
                eprintln!("{}:{}: {}", path.display(), finding.line, finding.message);
            }
            return ExitCode::FAILURE;
        }
    };
    start_log(&config);
    hardening.report();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(path.to_owned(), config, loaded));
    // What is still running was given its time: nothing may hold the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the broker cannot run");
            ExitCode::FAILURE
        }
    }
}

fn start_log(config: &Config) {
    let filter = EnvFilter::try_new(&config.log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if config.log.json {
        log.json().init();
    } else {
        log.with_ansi(io::stderr().is_terminal()).init();
    }
}

async fn run(path: PathBuf, config: Config, loaded: Loaded) -> io::Result<()> {
    metrics::exposition();
    let mut signals = Signals::new()?;
    let listeners = listeners(&config).await?;
    let admin = match config.admin {
        Some(address) => Some(bind(address).await?),
        None => None,
    };

    let (epoch, epoch_seen) = watch::channel(0);
    let mut roads = Roads::default();
    let snapshot = roads.build(&config, &loaded, &path).await;
    let broker = Arc::new(Broker {
        snapshot: ArcSwap::from_pointee(snapshot),
        idempotency: Idempotency::new(
            config.idempotency.window,
            config.idempotency.entries_per_caller,
            config.idempotency.bytes_max,
        ),
        in_flight: InFlight::new(config.http.in_flight_per_caller),
        published: Published::default(),
        limits: Limits {
            body_max: config.http.body_max,
            body_timeout: config.http.body_timeout,
            batch_max: config.http.batch_max,
            timeout: config.http.request_timeout,
            timeout_max: config.http.request_timeout_max,
        },
        draining: AtomicBool::new(false),
    });
    report_expiries(&loaded);

    let tls = Arc::new(ArcSwapOption::new(loaded.http_tls));
    let connections = Arc::new(Semaphore::new(config.http.connections_max));
    let server = Server {
        router: api::router(broker.clone()),
        tls: tls.clone(),
        handshake_timeout: config.http.handshake_timeout,
        header_timeout: config.http.header_timeout,
        connections: connections.clone(),
        epoch: epoch_seen.clone(),
    };
    let mut accepting = JoinSet::<Infallible>::new();
    for listener in listeners {
        let address = listener.local_addr()?;
        tracing::info!(%address, tls = server.tls.load().is_some(), "serving callers");
        accepting.spawn(server.clone().accept(listener));
    }
    let mut background = JoinSet::<Infallible>::new();
    if let Some(listener) = admin {
        let address = listener.local_addr()?;
        tracing::info!(%address, "serving metrics and health");
        let server = Server {
            router: api::admin_router(broker.clone()),
            tls: Arc::new(ArcSwapOption::empty()),
            connections: Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX)),
            ..server.clone()
        };
        background.spawn(server.accept(listener));
    }
    background.spawn(upkeep());
    if let Some(limit) = sd_notify::watchdog_enabled() {
        background.spawn(feed_watchdog(limit));
    }
    notify(&[NotifyState::Ready]);

    let mut running = Running { path, config, roads, broker: broker.clone(), tls, epoch };
    while signals.next().await == Wanted::Reload {
        running.reload().await;
    }

    tracing::info!("leaving: finishing what is in flight");
    notify(&[NotifyState::Stopping]);
    broker.draining.store(true, Ordering::Release);
    accepting.shutdown().await;
    running.epoch.send_modify(|epoch| *epoch += 1);
    let all = u32::try_from(running.config.http.connections_max).unwrap_or(u32::MAX);
    match timeout(running.config.http.drain_timeout, connections.acquire_many(all)).await {
        Ok(_) => tracing::info!("left: nothing was in flight any more"),
        Err(_) => tracing::warn!("left with requests in flight: drain_timeout_ms was over"),
    }
    Ok(())
}

/// What a reload works on.
struct Running {
    path: PathBuf,
    config: Config,
    roads: Roads,
    broker: Arc<Broker>,
    tls: Arc<ArcSwapOption<rustls::ServerConfig>>,
    epoch: watch::Sender<u64>,
}

impl Running {
    /// All or nothing: what is at work stays until everything new was read and found good.
    async fn reload(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(_) => notify(&[NotifyState::Reloading]),
        }
        match Config::open(&self.path) {
            Ok((config, loaded)) => {
                let snapshot = self.roads.build(&config, &loaded, &self.path).await;
                report_expiries(&loaded);
                for section in needs_restart(&self.config, &config) {
                    tracing::warn!(section, "changed, which takes a restart to have an effect");
                }
                // Roads that go take along what was seen on them.
                self.broker.published.look(&self.broker.snapshot.load());
                self.broker.snapshot.store(Arc::new(snapshot));
                if self.tls.load().is_some() && loaded.http_tls.is_some() {
                    self.tls.store(loaded.http_tls);
                }
                self.epoch.send_modify(|epoch| *epoch += 1);
                let kept = self.config.clone();
                self.config = config;
                // These are at work as they were at the start, whatever the file says now.
                self.config.http = kept.http;
                self.config.admin = kept.admin;
                self.config.log = kept.log;
                self.config.idempotency = kept.idempotency;
                tracing::info!(callers = self.config.callers.len(), "reloaded");
                metrics::reloaded("ok");
            }
            Err(findings) => {
                for finding in &findings.0 {
                    tracing::error!(line = finding.line, finding = finding.message, "reload refused");
                }
                metrics::reloaded("refused");
            }
        }
        notify(&[NotifyState::Ready]);
    }
}

/// Sections whose change has no effect before a restart.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut http = new.http.clone();
    // The files are read anew; lines move without meaning anything.
    http.identity.clone_from(&old.http.identity);
    http.client_ca.clone_from(&old.http.client_ca);
    let listens = |config: &Config| config.http.listen.iter().map(|listen| listen.value).collect::<Vec<_>>();
    if listens(old) == listens(new) {
        http.listen.clone_from(&old.http.listen);
    }
    let idempotency = |config: &Config| {
        let kept = &config.idempotency;
        (kept.window, kept.entries_per_caller, kept.bytes_max)
    };
    let changed = [
        ("[http]", http != old.http || old.http.identity.is_some() != new.http.identity.is_some()),
        ("[admin]", old.admin != new.admin),
        ("[log]", old.log != new.log),
        ("[idempotency]", idempotency(old) != idempotency(new)),
    ];
    changed.into_iter().filter_map(|(section, changed)| changed.then_some(section)).collect()
}

/// The roads at work, so that a reload keeps those that did not change.
#[derive(Default)]
struct Roads(BTreeMap<RoadKey, Arc<Member>>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RoadKey {
    tenant: String,
    /// Of certificate, key and CA
    identity: String,
    segld: String,
    address: String,
    server_name: String,
    refresh: Duration,
    connect_timeout: Duration,
}

impl Roads {
    /// Builds all tenants, waiting a little for roads that are new.
    async fn build(&mut self, config: &Config, loaded: &Loaded, path: &Path) -> Snapshot {
        let mut roads = BTreeMap::new();
        let mut tenants = BTreeMap::new();
        for tenant in &loaded.tenants {
            let mut members = Vec::new();
            for segld in &config.segld {
                let key = RoadKey {
                    tenant: tenant.name.clone(),
                    identity: tenant.fingerprint.to_string(),
                    segld: segld.name.clone(),
                    address: segld.address.value.clone(),
                    server_name: segld.server_name.value.clone(),
                    refresh: config.upstream.keys_refresh,
                    connect_timeout: config.upstream.connect_timeout,
                };
                let member = self.0.get(&key).cloned().unwrap_or_else(|| {
                    let timeout = config.upstream.connect_timeout;
                    let client = Client::start(&segld.address, &segld.server_name, tenant.tls.clone(), timeout);
                    Member::start(segld.name.clone(), Arc::new(client), config.upstream.keys_refresh)
                });
                members.push(member.clone());
                roads.insert(key, member);
            }
            let tenant = Arc::new(Tenant::new(tenant.name.clone(), members));
            tenants.insert(tenant.name.clone(), tenant);
        }
        self.0 = roads;
        let deadline = Instant::now() + ROADS_WAIT_MAX;
        for tenant in tenants.values() {
            if !tenant.wait_seen(deadline.saturating_duration_since(Instant::now())).await {
                tracing::warn!(tenant = tenant.name, config = %path.display(), "no segld has answered yet; trying on");
            }
        }
        let callers = Callers::new(&config.callers);
        Snapshot {
            callers,
            tenants,
            repeatable_keys: config.upstream.repeatable_keys.clone(),
            publish: config.publish.clone(),
            providers: loaded.providers.clone(),
        }
    }
}

/// Sockets passed by systemd, else those of the configuration.
async fn listeners(config: &Config) -> io::Result<Vec<TcpListener>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for at in 0..passed.len() {
        if let Some(listener) = passed.take_tcp_listener(at)? {
            listener.set_nonblocking(true)?;
            if config.http.insecure_loopback && !listener.local_addr()?.ip().is_loopback() {
                return Err(io::Error::other("plain HTTP is served on loopback only, and a socket passed is not"));
            }
            listeners.push(TcpListener::from_std(listener)?);
        }
    }
    if listeners.is_empty() {
        for address in &config.http.listen {
            listeners.push(bind(address.value).await?);
        }
    }
    if listeners.is_empty() {
        return Err(io::Error::other("there is no [http] `listen`, and systemd passed no socket"));
    }
    Ok(listeners)
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Reload,
    Leave,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::Leave,
            _ = self.interrupt.recv() => Wanted::Leave,
            _ = self.hangup.recv() => Wanted::Reload,
        }
    }
}

/// Tells systemd, when it listens.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// Feeds the watchdog through the same runtime that serves: when it stands still, so does this.
async fn feed_watchdog(limit: Duration) -> Infallible {
    let mut tick = interval(limit / 3);
    loop {
        tick.tick().await;
        if tokio::spawn(tokio::task::yield_now()).await.is_ok() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

async fn upkeep() -> Infallible {
    let mut tick = interval(metrics::UPKEEP_INTERVAL);
    loop {
        tick.tick().await;
        metrics::exposition().run_upkeep();
    }
}

fn report_expiries(loaded: &Loaded) {
    for (holder, not_after_s) in &loaded.expiries {
        metrics::certificate(holder, *not_after_s);
    }
    for (provider, until_s) in &loaded.metadata_ends {
        metrics::metadata(provider, *until_s);
    }
    for warning in loaded.warnings.iter().cloned().chain(expiry_warnings(&loaded.expiries)) {
        tracing::warn!("{warning}");
    }
}

/// A line for each certificate that has ended or soon will.
pub(crate) fn expiry_warnings(expiries: &[(String, i64)]) -> Vec<String> {
    let now_s = clock::unix_s() as i64;
    let warnings = expiries.iter().filter_map(|(holder, not_after_s)| {
        let left_s = not_after_s - now_s;
        if left_s < 0 {
            Some(format!("the certificate of {holder} has expired"))
        } else if left_s < EXPIRY_WARNING.as_secs() as i64 {
            Some(format!("the certificate of {holder} expires in {} days", left_s / 86_400))
        } else {
            None
        }
    });
    warnings.collect()
}

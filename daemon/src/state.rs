//! What all threads of the daemon share.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use segl_wire::{Hello, Limits as WireLimits};

use crate::{
    config::Limits,
    gate::Gate,
    keybook::{Cards, KeyBook},
    meters::{TenantCounts, Times},
    policy::{Policy, TenantId},
    signing::Desk,
    synchronisation::Watch,
    tls::TlsSnapshot,
};

/// What a reload replaces, all of it at once.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Who may do what
    pub(crate) policy: Policy,
    /// The keys it speaks of
    pub(crate) cards: Arc<Cards>,
    /// Who we are and who may connect
    pub(crate) tls: TlsSnapshot,
}

/// Everything that lives as long as the daemon.
pub(crate) struct Shared {
    /// Policy and TLS in force
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    /// The only road to the keys
    pub(crate) desk: Desk,
    /// What is known of each key that is looked after: a little more than those in force while a reload is under way
    pub(crate) keys: Arc<KeyBook>,
    /// Names of the tokens, by their index in the pool
    pub(crate) token_names: Vec<Arc<str>>,
    /// Limits towards clients
    pub(crate) limits: Limits,
    /// The same as the codec has them
    pub(crate) wire_limits: WireLimits,
    /// What every client is told first
    pub(crate) hello: Hello<'static>,
    /// Who is here
    pub(crate) census: Census,
    /// Where requests' time goes
    pub(crate) times: Arc<Times>,
    /// What was answered to each tenant
    pub(crate) tenants: Arc<TenantCounts>,
    /// Each reactor's heartbeat
    pub(crate) progress: Vec<Heartbeat>,
    /// Whether the host's clock is synchronised
    pub(crate) clock: Watch,
}

/// When a thread last came round, on the pool's clock.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat(AtomicU64);

impl Heartbeat {
    pub(crate) fn made(&self, now_ns: u64) {
        self.0.store(now_ns, Ordering::Relaxed);
    }

    /// How long ago that was.
    pub(crate) fn age_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.0.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("census", &self.census).finish_non_exhaustive()
    }
}

/// What a tenant has in flight and open, over all its connections and all reactors.
#[derive(Debug)]
pub(crate) struct Load {
    taken: AtomicU32,
    connections: AtomicUsize,
    /// For what it causes in log and journal without signing anything
    pub(crate) events: Gate,
}

impl Default for Load {
    fn default() -> Self {
        Load { taken: AtomicU32::new(0), connections: AtomicUsize::new(0), events: Gate::new(TENANT_EVENTS) }
    }
}

impl Default for Census {
    fn default() -> Self {
        Census {
            strangers: Gate::new(STRANGERS_EVENTS),
            connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            connection_ids: AtomicU64::new(0),
            loads: Mutex::default(),
        }
    }
}

impl Load {
    /// Takes `weight` out of a budget of `most`, or nothing.
    pub(crate) fn takes(&self, weight: u32, most: u32) -> bool {
        let within = |taken: u32| taken.checked_add(weight).filter(|sum| *sum <= most);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    /// Gives it back.
    pub(crate) fn gave_back(&self, weight: u32) {
        let before = self.taken.fetch_sub(weight, Ordering::Relaxed);
        debug_assert!(before >= weight, "nothing is given back that was not taken");
    }

    /// What is taken now.
    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Counts a connection in, unless the tenant has its most.
    pub(crate) fn admits_connection(&self, most: usize) -> bool {
        let within = |open: usize| (open < most).then_some(open + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    /// Counts in a connection that was another tenant's until a reload.
    pub(crate) fn adopts_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// One of its connections ended.
    pub(crate) fn connection_ended(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Events of one tenant that are recorded each second, beside its signatures: an honest one has a few a minute.
const TENANT_EVENTS: u32 = 20;

/// Events of clients without a tenant that are recorded each second.
const STRANGERS_EVENTS: u32 = 10;

/// Counts of connections, and each tenant's load.
#[derive(Debug)]
pub(crate) struct Census {
    /// For what clients without a tenant cause in log and journal
    pub(crate) strangers: Gate,
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    connection_ids: AtomicU64,
    loads: Mutex<HashMap<TenantId, Arc<Load>>>,
}

impl Census {
    /// Counts a connection in, unless there are too many.
    pub(crate) fn admits(&self, limits: &Limits) -> bool {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= limits.connections {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// A connection's handshake ended, well or badly.
    pub(crate) fn handshake_ended(&self) {
        self.handshakes.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection ended.
    pub(crate) fn connection_ended(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections now.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Handshakes now.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// The next connection's number, from 1.
    pub(crate) fn next_connection_id(&self) -> u64 {
        self.connection_ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The tenant's load, the same for all its connections and over reloads.
    pub(crate) fn load(&self, tenant: TenantId) -> Arc<Load> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant).or_default().clone()
    }
}

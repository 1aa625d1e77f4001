//! Putting the daemon together, but for its sockets: journal, tokens, pool, policy, key book, keeper.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use segl_audit::{Journal, Record};
use segl_pool::{Inbox, Pool};
use segl_wire::{Hello, Limits as WireLimits};

use super::{
    RunError, SOFTWARE, system,
    tokens::{self, Tokens},
};
use crate::{
    config::Config,
    keeper::Keeper,
    keybook::KeyBook,
    policy::{Policy, Registry},
    reactor::ReactorInbox,
    signing::Desk,
    state::{Census, Heartbeat, Shared, Snapshot},
    synchronisation::Watch,
    tls::TlsSnapshot,
};

/// How long the start waits for tokens to show themselves before it goes on without them.
const TOKENS_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that stands before the first connection.
pub(crate) struct Assembly {
    /// What the reactors share
    pub(crate) shared: Arc<Shared>,
    /// One for each reactor
    pub(crate) inboxes: Vec<Arc<ReactorInbox>>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) registry: Registry,
    pub(super) tokens: Tokens,
}

/// Opens the journal and the tokens, starts the pool and the keeper, and gives the tokens a first chance.
pub(crate) fn assemble(config: &Config) -> Result<Assembly, RunError> {
    let journal = open_journal(config)?;
    if config.audit.unrecorded_for_benchmarks {
        tracing::warn!("NOTHING IS RECORDED of what is signed: `unrecorded_for_benchmarks` is set");
    }
    let tokens = tokens::build(config)?;
    let mut registry = Registry::new();
    let (policy, tls) = (Policy::new(config, &mut registry), TlsSnapshot::new(&config.tls, None)?);
    tokens.add_keys(policy.keys());
    tokens.verify(policy.keys());

    let reactors = config.reactor.cores.len().max(1);
    let inboxes: Vec<Arc<ReactorInbox>> = (0..reactors).map(|_| Arc::default()).collect();
    let keys: Arc<KeyBook> = Arc::default();
    let cards = keys.replace(policy.keys().iter().cloned());
    let (news, tests, keeper) = Keeper::prepare(keys.clone(), tokens.names(), tokens.modules());
    let mut pool_inboxes: Vec<Arc<dyn Inbox>> = inboxes.iter().map(|inbox| inbox.clone() as _).collect();
    pool_inboxes.push(Arc::new(tests));
    let tests_inbox = u16::try_from(reactors).expect("there are no more reactors than cores");
    let pool = Pool::start(tokens::pool_config(config), tokens.setups(config), pool_inboxes, Arc::new(news))
        .map_err(system("the pool's threads"))?;
    let rings = inboxes.clone();
    journal.subscribe(Box::new(move || rings.iter().for_each(|inbox| inbox.journal_moved())));

    let shared = Arc::new(Shared {
        desk: Desk::new(pool, journal, &config.host.name, tokens.names())
            .throwing_records_away(config.audit.unrecorded_for_benchmarks),
        keys,
        token_names: tokens.names(),
        wire_limits: WireLimits::from(&hello(config)),
        hello: hello(config),
        limits: config.limits.clone(),
        census: Census::default(),
        times: Arc::default(),
        tenants: Arc::default(),
        progress: (0..reactors).map(|_| Heartbeat::default()).collect(),
        clock: Watch::default(),
        snapshot: Arc::new(ArcSwap::from_pointee(Snapshot { policy, cards, tls })),
    });
    let keeper = keeper.start(shared.clone(), tests_inbox).map_err(system("the keeper's thread"))?;
    await_tokens(&shared, &keeper);
    // Which of them is right nobody here can say, and to sign with the wrong one is worse than not to begin. A token
    // that shows itself later is not used for such a key, and alarms.
    match shared.keys.strangers(None) {
        strangers if strangers.is_empty() => {}
        strangers => return Err(RunError::KeysDiffer(strangers.join("; "))),
    }
    Ok(Assembly { shared, inboxes, keeper, registry, tokens })
}

/// A first chance for every token to log in and pass its self-tests, so that READY means ready where it can.
fn await_tokens(shared: &Shared, keeper: &Keeper) {
    let tokens = shared.token_names.len() as u16;
    if !keeper.wait_for_first_reports(tokens, TOKENS_TIMEOUT) || !keeper.wait_until_idle(TOKENS_TIMEOUT) {
        tracing::error!("not every token has shown itself: starting degraded, and trying on");
    }
    for card in shared.keys.cards() {
        let state = card.state(|route| shared.desk.route_usable(route));
        tracing::info!(key = &*card.entry.label, ?state, holdings = ?card.holdings(), "key");
    }
}

fn open_journal(config: &Config) -> Result<Journal, RunError> {
    let (journal, recovery) = Journal::open(journal_config(config))?;
    if let Some(repair) = &recovery.repaired {
        tracing::warn!(?repair, "the journal's end was torn by a crash and was repaired");
    }
    recovery.warnings.iter().for_each(|warning| tracing::warn!("the journal: {warning}"));
    record_start(&journal, config, recovery.last_seq)?;
    Ok(journal)
}

fn journal_config(config: &Config) -> segl_audit::Config {
    let mut journal = segl_audit::Config::new(&config.audit.directory);
    journal.host = config.host.name.clone();
    journal.segment_bytes = config.audit.segment_size;
    // The tenants' limits are the limit, as far as a segment has room for the outcomes: a tenant with a token that
    // hangs must not take the others' room.
    let in_flight: u64 = config.tenants.iter().map(|tenant| u64::from(tenant.in_flight_max)).sum();
    let room = segl_audit::open_intents_possible(config.audit.segment_size);
    journal.open_intents_max = u32::try_from(in_flight).unwrap_or(u32::MAX).clamp(1, room);
    journal
}

fn record_start(journal: &Journal, config: &Config, last_seq: u64) -> Result<(), RunError> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    journal.append(&Record::Start(segl_audit::Start {
        version: SOFTWARE.into(),
        host: config.host.name.as_str().into(),
        boot_id: boot_id.trim().into(),
        config_digest: *config.digest(),
        last_seq,
    }))?;
    Ok(())
}

fn hello(config: &Config) -> Hello<'static> {
    let limits = &config.limits;
    let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    Hello {
        server: SOFTWARE.into(),
        frame_max: limits.frame_max,
        in_flight_max: limits.in_flight_per_connection,
        batch_max: limits.batch_max,
        message_max: limits.message_max,
        timeout_max_ms: ms(limits.timeout_max),
        idle_ms: ms(limits.idle_timeout),
        document_max: limits.document_max,
    }
}

//! Rates and times of the last ten seconds and the last minute, from what is counted anyway: a look a second at
//! counters that only rise, so that a request pays nothing for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use segl_pool::{Counters, Times};

use crate::{histogram::Counts, policy::TenantId, state::Shared};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longer stretch, in looks.
const LOOKS: usize = 60;

/// The shorter stretch, in looks.
const FEW_LOOKS: usize = 10;

/// The last minute's looks, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Window(Mutex<VecDeque<Arc<Look>>>);

/// All counters at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    pub(super) at_ns: u64,
    pub(super) requests: Counts,
    pub(super) counters: Counters,
    /// By the pool's indices
    pub(super) tokens: Vec<TokenCounts>,
    /// Served and refused
    pub(super) tenants: HashMap<TenantId, (u64, u64)>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct TokenCounts {
    pub(super) times: Times,
    pub(super) errors: u64,
}

impl TokenCounts {
    pub(super) fn signed(&self) -> u64 {
        self.times.total()
    }
}

impl Window {
    /// The looks of ten seconds and of a minute ago, or the oldest there are; none before the first.
    pub(super) fn earlier(&self) -> Option<(Arc<Look>, Arc<Look>)> {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let few = looks.len().saturating_sub(FEW_LOOKS);
        Some((looks.get(few)?.clone(), looks.front()?.clone()))
    }

    fn add(&self, look: Look) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() >= LOOKS {
            looks.pop_front();
        }
        looks.push_back(Arc::new(look));
    }
}

impl Look {
    /// Reads everything now.
    pub(super) fn now(shared: &Shared) -> Look {
        Look::with(shared, &shared.desk.pool_snapshot())
    }

    /// The same, where the pool was looked at already.
    pub(super) fn with(shared: &Shared, pool: &segl_pool::Snapshot) -> Look {
        let snapshot = shared.snapshot.load();
        let tokens = pool.tokens.iter();
        Look {
            at_ns: shared.desk.now_ns(),
            requests: shared.times.total().counts(),
            counters: pool.counters,
            tokens: tokens.map(|token| TokenCounts { times: token.times.clone(), errors: token.errors }).collect(),
            tenants: (snapshot.policy.tenants().iter())
                .map(|tenant| (tenant.id(), shared.tenants.of(tenant.id()).read()))
                .collect(),
        }
    }

    /// So many since then, each second.
    pub(super) fn per_s(&self, earlier: &Look, count: impl Fn(&Look) -> u64) -> f64 {
        let seconds = self.at_ns.saturating_sub(earlier.at_ns) as f64 / 1e9;
        let more = count(self).saturating_sub(count(earlier));
        // Two looks in the same instant say nothing of a rate.
        if seconds < 0.01 { 0.0 } else { round(more as f64 / seconds) }
    }
}

/// To a tenth: more is noise.
fn round(per_s: f64) -> f64 {
    (per_s * 10.0).round() / 10.0
}

/// Looks each second for as long as the runtime lives.
pub(super) async fn keep(window: Arc<Window>, shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        window.add(Look::now(&shared));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(second: u64, signed: u64) -> Look {
        let counters = Counters { signed, ..Counters::default() };
        Look { at_ns: second * 1_000_000_000, counters, ..Look::default() }
    }

    #[test]
    fn rates_are_those_of_the_stretch_and_old_looks_are_forgotten() {
        let window = Window::default();
        assert!(window.earlier().is_none());
        // A hundred a second for a minute and a half, then a thousand for ten seconds.
        let signed = |second: u64| if second <= 90 { second * 100 } else { 9_000 + (second - 90) * 1_000 };
        for second in 0..=99 {
            window.add(look(second, signed(second)));
        }
        let now = look(100, signed(100));
        let (few, all) = window.earlier().unwrap();
        let count = |look: &Look| look.counters.signed;
        assert_eq!((few.at_ns, all.at_ns), (90_000_000_000, 40_000_000_000));
        assert_eq!(now.per_s(&few, count), 1_000.0);
        assert_eq!(now.per_s(&all, count), 250.0);
        assert_eq!(now.per_s(&now, count), 0.0);
    }
}

//! How many signatures a caller may have asked for at once.
//!
//! Callers of one tenant share its roads. Each road takes so many signatures at once, and what does not fit waits in
//! the order in which it came: who asks for as much as he can would stand before everybody else. So there are two
//! bounds. One is the operator's, the same for every caller. The other leaves room for those who are not here yet: a
//! caller has no more in flight than there is room left on his tenant's roads. One greedy caller then gets half of them,
//! two get a third each and leave a third, and nobody needs a share of his own that lies idle when he does (the dynamic
//! thresholds of Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998). Who has nothing in flight is
//! always let in, so that a batch is never too large and nobody waits for others to end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    callers::Caller,
    problem::{Code, Problem, Retry},
};

/// When a caller who was refused may come again, in milliseconds: what is in flight takes that long or less.
const RETRY_AFTER_MS: u32 = 100;

/// Who has how many in flight. It outlives reloads, as requests do.
#[derive(Debug)]
pub struct InFlight {
    per_caller_max: usize,
    counts: Mutex<Counts>,
}

/// Signatures by name; names that have none are not kept.
#[derive(Debug, Default)]
struct Counts {
    callers: HashMap<String, usize>,
    tenants: HashMap<String, usize>,
}

/// Room for so many signatures, given back when dropped.
#[derive(Debug)]
pub struct Place {
    of: Arc<InFlight>,
    caller: Arc<Caller>,
    count: usize,
}

impl InFlight {
    /// With the operator's bound.
    pub fn new(per_caller_max: usize) -> Arc<Self> {
        Arc::new(Self { per_caller_max, counts: Mutex::default() })
    }

    /// Room for `count` more signatures of a caller, whose tenant's roads take `capacity` at once; 0 when that is not
    /// known.
    pub fn enter(self: &Arc<Self>, caller: &Arc<Caller>, count: usize, capacity: usize) -> Result<Place, Problem> {
        let mut counts = self.lock();
        let own = counts.callers.get(&caller.name).copied().unwrap_or(0);
        let taken = counts.tenants.get(&caller.tenant).copied().unwrap_or(0);
        let room = if capacity == 0 { usize::MAX } else { capacity.saturating_sub(taken + count) };
        let allowed = room.min(self.per_caller_max);
        if own > 0 && own + count > allowed {
            let detail = format!("{own} signatures of this caller are in flight, and {allowed} may be now");
            let problem = Problem::new(Code::CallerLimit, detail);
            return Err(Problem { retry: Retry::Here, retry_after_ms: Some(RETRY_AFTER_MS), ..problem });
        }
        *counts.callers.entry(caller.name.clone()).or_default() += count;
        *counts.tenants.entry(caller.tenant.clone()).or_default() += count;
        drop(counts);
        Ok(Place { of: self.clone(), caller: caller.clone(), count })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.of.lock();
        let Counts { callers, tenants } = &mut *counts;
        for (table, name) in [(callers, &self.caller.name), (tenants, &self.caller.tenant)] {
            if let Some(count) = table.get_mut(name) {
                *count -= self.count;
                if *count == 0 {
                    table.remove(name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        callers::{Callers, TokenHash},
        config::{self, At},
    };

    fn at<T>(value: T) -> At<T> {
        At { value, line: 1 }
    }

    fn caller(name: &str) -> Arc<Caller> {
        let configured = config::Caller {
            name: at(name.into()),
            tenant: at("t".into()),
            tokens: vec![at(TokenHash::of(name.as_bytes()))],
            certificates: vec![],
            keys: [].into(),
            operations: [].into(),
        };
        Callers::new(&[configured]).authenticate(Some(format!("Bearer {name}").as_bytes()), None, 0).unwrap()
    }

    /// Takes one place after the other until refused.
    fn all(of: &Arc<InFlight>, caller: &Arc<Caller>, capacity: usize) -> Vec<Place> {
        std::iter::from_fn(|| of.enter(caller, 1, capacity).ok()).collect()
    }

    #[test]
    fn a_greedy_caller_leaves_room_for_others_and_two_share() {
        let of = InFlight::new(1_000);
        let (one, two, three) = (caller("one"), caller("two"), caller("three"));
        let first = all(&of, &one, 90);
        assert_eq!(first.len(), 45);
        let second = all(&of, &two, 90);
        assert_eq!(second.len(), 22, "the room that is left is shared in the same way");
        drop(first);
        assert_eq!(all(&of, &one, 90).len(), 34);
        assert_eq!(all(&of, &three, 90).len(), 34, "and given back");
    }

    #[test]
    fn who_has_nothing_in_flight_is_let_in_however_full_it_is() {
        let of = InFlight::new(1_000);
        let _all = of.enter(&caller("one"), 500, 10).unwrap();
        let _place = of.enter(&caller("two"), 256, 10).unwrap();
        let problem = of.enter(&caller("two"), 1, 10).unwrap_err();
        assert_eq!((problem.code, problem.retry), (Code::CallerLimit, Retry::Here));
    }

    #[test]
    fn the_operators_bound_holds_where_the_roads_are_not_known() {
        let of = InFlight::new(7);
        let one = caller("one");
        let places = all(&of, &one, 0);
        assert_eq!(places.len(), 7);
        assert!(of.enter(&caller("two"), 7, 0).is_ok(), "each has his own");
        drop(places);
        let counts = of.lock();
        assert!(counts.callers.is_empty() && counts.tenants.is_empty(), "nothing is left behind");
    }
}

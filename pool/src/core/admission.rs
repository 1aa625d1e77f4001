//! Who is let in, and what those who are not are told: when to come back.
//!
//! A wait is what stands before a job in expected token time, by the sessions that sign. Both are observed, service
//! times as they are under the present load, so this is the rate at which the queue drains.

use crate::{
    Attempts, Class, Completion, Failure, Job, QueueSnapshot, TokenSet, Work,
    core::{Action, Core, jobs::Place},
};

/// What those are told who wait for tokens that only an operator can bring back.
const RETRY_AFTER_OPERATOR_MS: u32 = 10_000;
/// Nobody is told to come back earlier or later.
const RETRY_AFTER_MS: std::ops::RangeInclusive<u64> = 10..=60_000;

impl<P: Clone> Core<P> {
    /// Lets a job in, or refuses it at once.
    pub(super) fn submit(&mut self, now_ns: u64, job: Job<P>, out: &mut Vec<Action<P>>) {
        self.counters.submitted += 1;
        let row = self.costs.row(job.key, (job.work == Work::Sign).then_some(job.algorithm));
        let mut tokens = self.routes.get(job.route.0 as usize).copied().unwrap_or_default();
        if let Some(token) = job.only_token {
            tokens = if tokens.contains(token) { TokenSet::only(token) } else { TokenSet::EMPTY };
        }
        let refusal = if self.draining {
            Some(Failure::Draining)
        } else if !self.hopeful(tokens) {
            Some(self.unavailable(now_ns, tokens))
        } else if job.deadline_ns <= now_ns {
            Some(Failure::Expired)
        } else {
            None
        };
        if let Some(failure) = refusal {
            return self.refuse(job, failure, out);
        }
        let group = self.queues.group(tokens);
        let lane = self.queues.lane(job.tenant, job.class);
        if let Some(failure) = self.overload(now_ns, &job, row, lane, group) {
            return self.refuse(job, failure, out);
        }
        let cost_ns = self.costs.anywhere_ns(row);
        let deadline_ns = job.deadline_ns;
        let slot = self.jobs.insert(job, Place::Waiting { lane, group }, row, cost_ns, now_ns);
        self.deadlines.push(deadline_ns, slot, &self.jobs);
        self.queues.push(&mut self.jobs, slot);
    }

    /// Why there is no room for a job, if there is none.
    fn overload(&self, now_ns: u64, job: &Job<P>, row: u16, lane: u32, group: u16) -> Option<Failure> {
        let tokens = self.queues.groups()[usize::from(group)].tokens;
        let wait_ns = |ahead_ns: u64| ahead_ns / u64::from(self.sessions_of(tokens).max(1));
        let depth = self.queues.groups()[usize::from(group)].depth[job.class.index()];
        // Those who are told to come back all come at once: so not when there is room, but when half of it is free.
        let half_ns = wait_ns(self.queues.backlog_ns(group, job.class)) / 2;
        if self.queues.waiting_of_tenant(lane) >= self.rules.tenant_depth_max {
            return Some(Failure::TenantLimit { retry_after_ms: bounded_ms(half_ns) });
        }
        if depth >= self.rules.queue_depth_max[job.class.index()] {
            return Some(Failure::Overloaded { retry_after_ms: bounded_ms(half_ns) });
        }
        // Before sessions sign and costs are learned nobody is refused on a guess.
        if self.sessions_of(tokens) > 0 && self.costs.is_solid(row) {
            let wait_ns = wait_ns(self.queues.ahead_ns(lane, group));
            if now_ns.saturating_add(wait_ns) >= job.deadline_ns {
                return Some(Failure::Overloaded { retry_after_ms: bounded_ms(wait_ns) });
            }
        }
        None
    }

    fn refuse(&mut self, job: Job<P>, failure: Failure, out: &mut Vec<Action<P>>) {
        let completion = Completion {
            tag: job.tag,
            result: Err(failure),
            queue_us: 0,
            token_us: 0,
            token: None,
            attempts: Attempts::NONE,
        };
        self.emit(job.inbox, completion, job.input, out);
    }

    /// What those are told who wait for tokens that are all away.
    pub(super) fn unavailable(&self, now_ns: u64, tokens: TokenSet) -> Failure {
        if self.draining {
            return Failure::Draining;
        }
        let next_try_ns = tokens.iter().filter_map(|token| self.fleet.next_try_ns(token)).min();
        // A try that is under way will be over who knows when.
        let retry_after_ms = next_try_ns.map_or(RETRY_AFTER_OPERATOR_MS, |at_ns| {
            bounded_ms(at_ns.saturating_sub(now_ns).max(self.rules.backoff_min_ns))
        });
        Failure::KeyUnavailable { retry_after_ms }
    }

    pub(super) fn queue_snapshots(&self) -> Vec<QueueSnapshot> {
        let groups = self.queues.groups().iter().enumerate();
        groups
            .map(|(index, group)| {
                let sessions = u64::from(self.sessions_of(group.tokens));
                let backlog_ns = self.queues.backlog_ns(index as u16, Class::Bulk);
                QueueSnapshot { tokens: group.tokens, depth: group.depth, wait_ns: backlog_ns.checked_div(sessions) }
            })
            .collect()
    }
}

fn bounded_ms(ns: u64) -> u32 {
    let ms = (ns / 1_000_000).clamp(*RETRY_AFTER_MS.start(), *RETRY_AFTER_MS.end());
    u32::try_from(ms).expect("a minute of milliseconds fits")
}

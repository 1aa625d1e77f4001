//! Who is let in, and what those who are not are told: when to come back.
//!
//! Bounds are kept per set of tokens: a slow one's queue says nothing against work for another. In each, a class has its
//! bound and so has each tenant in each class. Where a class is full, a tenant with more waiting there gives way to one
//! with less: it loses its newest job, which would have waited longest.
//!
//! A wait is what stands before a job in expected token time, by the sessions that sign and the pace at which they
//! really drain this queue (see `pace`).

use crate::{
    Attempts, Class, Completion, Failure, Job, QueueSnapshot, TokenSet, Work,
    core::{Action, Core, jobs::Place, queues::Group},
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
        } else if !self.hopeful(tokens, job.probe) {
            Some(self.unavailable(now_ns, tokens))
        } else if job.deadline_ns <= now_ns {
            Some(Failure::Expired)
        } else {
            None
        };
        if let Some(failure) = refusal {
            return self.refuse(job, failure, out);
        }
        let group = self.queues.group(tokens, job.probe);
        let lane = self.queues.lane(job.tenant, job.class);
        if let Err(failure) = self.make_room(now_ns, &job, row, lane, group, out) {
            return self.refuse(job, failure, out);
        }
        self.budget.earn();
        let cost_ns = self.costs.anywhere_ns(row);
        let deadline_ns = job.deadline_ns;
        let slot = self.jobs.insert(job, Place::Waiting { lane, group }, row, cost_ns, now_ns);
        self.deadlines.push(deadline_ns, slot, &self.jobs);
        self.wait(now_ns, slot);
    }

    /// Sees to it that a job can wait: in time for its deadline, within its tenant's bound, and within its queue's, if
    /// need be in the place of a tenant that has more waiting there.
    fn make_room(
        &mut self,
        now_ns: u64,
        job: &Job<P>,
        row: u16,
        lane: u32,
        group: u16,
        out: &mut Vec<Action<P>>,
    ) -> Result<(), Failure> {
        let Group { tokens, depth, .. } = &self.queues.groups()[usize::from(group)];
        let depth = depth[job.class.index()];
        let sessions = self.sessions_for(tokens.iter());
        self.queues.pace(group).look(now_ns, sessions);
        let pace = self.queues.groups()[usize::from(group)].pace;
        let ahead_ns = pace.time_for_ns(self.queues.ahead_ns(lane, group), sessions);
        // Those who are told to come back all come at once: so not when there is room, but when half of it is free.
        if self.queues.waiting_of_lane(lane, group) >= self.rules.tenant_depth_max {
            return Err(Failure::TenantLimit { retry_after_ms: bounded_ms(ahead_ns / 2) });
        }
        // Before sessions sign and costs are learned nobody is refused on a guess.
        if sessions > 0 && self.costs.is_solid(row) && now_ns.saturating_add(ahead_ns) >= job.deadline_ns {
            return Err(Failure::Overloaded { retry_after_ms: bounded_ms(ahead_ns) });
        }
        if depth >= self.rules.queue_depth_max[job.class.index()] {
            let half_ns = pace.time_for_ns(self.queues.backlog_ns(group, job.class), sessions) / 2;
            let failure = Failure::Overloaded { retry_after_ms: bounded_ms(half_ns) };
            match self.queues.newest_of_longest(lane, group) {
                // What was begun once is not given up: it has cost a token's time.
                Some(slot) if self.jobs[slot].attempts.is_empty() => {
                    self.counters.displaced += 1;
                    self.fail_waiting(now_ns, slot, failure, out);
                }
                _ => return Err(failure),
            }
        }
        Ok(())
    }

    fn refuse(&mut self, job: Job<P>, failure: Failure, out: &mut Vec<Action<P>>) {
        let completion = Completion {
            tag: job.tag,
            result: Err(failure),
            queue_us: 0,
            token_us: 0,
            token: None,
            attempts: Attempts::default(),
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
                let sessions = self.sessions_for(group.tokens.iter());
                let backlog_ns = self.queues.backlog_ns(index as u16, Class::Bulk);
                let wait_ns = (sessions > 0).then(|| group.pace.time_for_ns(backlog_ns, sessions));
                QueueSnapshot { tokens: group.tokens, depth: group.depth, wait_ns }
            })
            .collect()
    }
}

fn bounded_ms(ns: u64) -> u32 {
    let ms = (ns / 1_000_000).clamp(*RETRY_AFTER_MS.start(), *RETRY_AFTER_MS.end());
    u32::try_from(ms).expect("a minute of milliseconds fits")
}

//! The ways in which Core is broken to see whether the simulator notices.

/// One way: in this file of the pool, what is found exactly once is replaced.
pub(super) struct Mutation {
    pub(super) name: &'static str,
    pub(super) file: &'static str,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
}

pub(super) const MUTATIONS: &[Mutation] = &[
    // An error that speaks against the whole token costs one session only: its stale handles are used on.
    Mutation {
        name: "skip the token's rung",
        file: "pool/src/core/fleet/failure.rs",
        from: "if rung >= Rung::Token {\n            self.rebuild(now_ns, index, error, out);",
        to: "if rung > Rung::Operator {\n            self.rebuild(now_ns, index, error, out);",
    },
    // C_Finalize and C_Initialize are never asked for: what only they repair stays away.
    Mutation {
        name: "skip the module's rung",
        file: "pool/src/core/fleet/module.rs",
        from: "if count < self.module_after ||",
        to: "if count < u32::MAX ||",
    },
    // A late answer of the session before is taken for the present one's.
    Mutation {
        name: "reuse a generation",
        file: "pool/src/core/fleet/open.rs",
        from: "session.generation = Generation(session.generation.0 + 1);",
        to: "session.generation = Generation(session.generation.0.max(1));",
    },
    // An expired job leaves its queue and nobody is told.
    Mutation {
        name: "forget a completion",
        file: "pool/src/core/mod.rs",
        from: "self.fail_waiting(now_ns, slot, Failure::Expired, out);",
        to: "self.queues.remove(&mut self.jobs, slot);",
    },
    // The session's thread would begin it however late it is.
    Mutation {
        name: "no deadline on a call",
        file: "pool/src/core/placement.rs",
        from: "deadline_ns: job.deadline_ns,",
        to: "deadline_ns: u64::MAX,",
    },
    // What may have been signed is signed again.
    Mutation {
        name: "retry what is in doubt",
        file: "pool/src/core/mod.rs",
        from: "let allowed = (!unknown || entry.job.repeatable)",
        to: "let allowed = true",
    },
    // What was cancelled is tried again.
    Mutation {
        name: "retry what is cancelled",
        file: "pool/src/core/mod.rs",
        from: "            && !entry.cancelled\n",
        to: "",
    },
    // A dying token drags the healthy one down.
    Mutation {
        name: "no retry budget",
        file: "pool/src/core/mod.rs",
        from: "if !self.budget.spend() {",
        to: "if !self.budget.spend() && false {",
    },
    // The error of one token reaches a client though another one is there.
    Mutation {
        name: "never retry",
        file: "pool/src/core/mod.rs",
        from: "entry.attempts.count() <= self.retries_max()",
        to: "entry.attempts.count() == 0",
    },
    // A module is begun anew under a call that has not come back.
    Mutation {
        name: "reinitialise with a call inside",
        file: "pool/src/core/fleet/module.rs",
        from: "self.strays.iter().any(stray)\n            || tokens",
        to: "self.strays.iter().any(stray) && false\n            || tokens",
    },
    // A module is begun anew while sessions of it are open.
    Mutation {
        name: "reinitialise with sessions open",
        file: "pool/src/core/fleet/module.rs",
        from: "if tokens.iter().any(|token| self.tokens[usize::from(token)].taken() > 0) {",
        to: "if tokens.iter().any(|token| self.tokens[usize::from(token)].taken() > 1) {",
    },
    // A PIN is used up to its last try.
    Mutation {
        name: "try a refused PIN again",
        file: "pool/src/core/fleet/failure.rs",
        from: "        if rung == Rung::Operator {\n            if token.standing",
        to: "        if rung > Rung::Operator {\n            if token.standing",
    },
    // The right PIN is in its place, and nobody looks.
    Mutation {
        name: "forget the operator's word",
        file: "pool/src/core/fleet/failure.rs",
        from: "if rung == Rung::Operator && std::mem::take(&mut token.refresh) {",
        to: "if rung == Rung::Operator && std::mem::take(&mut token.refresh) && false {",
    },
    // Clients find out whether a token that comes back works.
    Mutation {
        name: "client jobs on probation",
        file: "pool/src/core/placement.rs",
        from: "if !probe && self.fleet.is_on_probation(token) {",
        to: "if !probe && false {",
    },
    // A token is asked for more sessions than it gives, again and again.
    Mutation {
        name: "ignore the session cap",
        file: "pool/src/core/fleet/failure.rs",
        from: "token.cap = token.cap.min(taken.max(1));",
        to: "token.cap = token.cap.min(u16::MAX);",
    },
    // Who floods a token has it for himself.
    Mutation {
        name: "no fairness among tenants",
        file: "pool/src/core/queues.rs",
        from: "clock.finish_ns = start_ns.saturating_add(cost_ns - free_ns);",
        to: "clock.finish_ns = start_ns.saturating_add(0 * (cost_ns - free_ns));",
    },
    // Bulk waits for ever behind logins.
    Mutation {
        name: "starve the less urgent",
        file: "pool/src/core/queues.rs",
        from: "turns.passed_over[class] + 1 >= self.one_in[class]",
        to: "turns.passed_over[class] >= u32::MAX",
    },
    // What stands behind a stuck call in its batch is never asked back.
    Mutation {
        name: "lose the rest of a stuck batch",
        file: "pool/src/core/fleet/stuck.rs",
        from: "for &(call, _) in &session.calls {",
        to: "for &(call, _) in session.calls.iter().take(0) {",
    },
    // A signature that comes too late is passed over in silence.
    Mutation {
        name: "keep a late answer quiet",
        file: "pool/src/core/mod.rs",
        from: "discard_late(reference, token, &result, out);",
        to: "drop((reference, token, &result));",
    },
    // A stuck call is waited for without end.
    Mutation {
        name: "never give up a stuck call",
        file: "pool/src/core/fleet/stuck.rs",
        from: "if self.stuck_check_ns > now_ns {",
        to: "self.stuck_check_ns = u64::MAX;\n        if self.stuck_check_ns > now_ns {",
    },
    // A token that is hung for good eats thread after thread.
    Mutation {
        name: "unbounded stuck threads",
        file: "pool/src/core/fleet/stuck.rs",
        from: "let replaced = token.strays < self.stuck_threads_max;",
        to: "let replaced = token.strays < u16::MAX;",
    },
    // Jobs wait though a session is free.
    Mutation {
        name: "leave a session idle",
        file: "pool/src/core/placement.rs",
        from: "while self.fleet.has_idle(token) && self.hand_batch",
        to: "if self.fleet.has_idle(token) && self.hand_batch",
    },
    // An attempt is not told, so that the journal misses a signature.
    Mutation {
        name: "forget an attempt",
        file: "pool/src/core/mod.rs",
        from: "        entry.attempts.push(attempt);\n",
        to: "",
    },
];

//! The status as it is now, read off where it lives.

use segl_audit::utc;
use segl_hsm::KeyId;
use segl_pool::{Class, Snapshot as PoolSnapshot, TokenSet, TokenSnapshot, TokenState};

use super::{
    Context, act, findings,
    window::{Look, TokenCounts},
};
use crate::{
    certificate::Validity,
    clock,
    config::TokenKind,
    control::status::{
        Crl, Daemon, FORMAT, Health, Holding, Journal, Key, Queued, Reload, Requests, Rungs, SelfTest, Status, Tenant,
        Tls, Token, TokenError,
    },
    keybook::{self, KeyCard, phase_name, state_name},
    run::SOFTWARE,
    state::Snapshot,
};

/// Looks at everything. Takes the pool's lock twice, and no other that a request waits for.
pub(super) fn status(context: &Context) -> Status {
    let shared = &context.shared;
    let pool = shared.desk.pool_snapshot();
    let now = Look::with(shared, &pool);
    let earlier = context.window.earlier();
    let moment = Moment::now(shared.desk.now_ns());
    // Without an earlier look nothing is known of any stretch of time.
    let (few, all) = earlier.as_ref().map_or((&now, &now), |(few, all)| (&**few, &**all));
    let stretch = Stretch { now: &now, few, all };
    let snapshot = shared.snapshot.load();
    let mut status = Status {
        format: FORMAT,
        health: Health::Ok,
        findings: Vec::new(),
        daemon: daemon(context, &moment),
        requests: requests(&pool, &stretch),
        tokens: tokens(context, &pool, &stretch, &moment),
        keys: keys(context, &snapshot, &pool, &moment),
        tenants: tenants(context, &snapshot, &stretch),
        tls: tls(&snapshot, &moment),
        journal: journal(context),
    };
    status.findings = findings::of(&status, (context.health)().err());
    status.health = findings::health(&status.findings);
    status
}

/// Now, on both clocks.
struct Moment {
    pool_ns: u64,
    unix_ns: u64,
    unix_s: i64,
}

impl Moment {
    fn now(pool_ns: u64) -> Moment {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Moment { pool_ns, unix_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), unix_s: clock::unix_s() }
    }

    /// A time of the pool's clock as one of day.
    fn of_pool(&self, ns: u64) -> String {
        seconds(self.unix_ns.saturating_sub(self.pool_ns.saturating_sub(ns)) / 1_000_000_000)
    }
}

fn seconds(unix_s: u64) -> String {
    utc(unix_s.saturating_mul(1_000_000_000))
}

fn time(unix_s: i64) -> String {
    seconds(u64::try_from(unix_s).unwrap_or(0))
}

/// Now, ten seconds ago, a minute ago.
struct Stretch<'a> {
    now: &'a Look,
    few: &'a Look,
    all: &'a Look,
}

impl Stretch<'_> {
    fn rates(&self, count: impl Fn(&Look) -> u64 + Copy) -> (f64, f64) {
        (self.now.per_s(self.few, count), self.now.per_s(self.all, count))
    }

    fn in_all(&self, count: impl Fn(&Look) -> u64) -> u64 {
        count(self.now).saturating_sub(count(self.all))
    }
}

fn daemon(context: &Context, moment: &Moment) -> Daemon {
    let facts = &context.facts;
    let (last, clock) = (context.reloads.last(), context.shared.clock.latest());
    let started = facts.started.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Daemon {
        software: SOFTWARE.into(),
        host: facts.host.name.clone(),
        site: facts.host.site.clone(),
        pid: std::process::id(),
        time: seconds(moment.unix_ns / 1_000_000_000),
        started: seconds(started.as_secs()),
        uptime_s: facts.began.elapsed().as_secs(),
        listeners: facts.listeners.iter().map(ToString::to_string).collect(),
        connections: context.shared.census.connections(),
        handshakes: context.shared.census.handshakes(),
        log_level: context.levels.now(),
        clock_synchronised: clock.is_good(),
        clock: clock.to_string(),
        config_sha256: last.config_digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        reload: last.reload.map(|seen| Reload {
            time: time(seen.at_s),
            ok: seen.outcome.is_ok(),
            message: seen.outcome.unwrap_or_else(|why| why),
        }),
    }
}

fn requests(pool: &PoolSnapshot, stretch: &Stretch<'_>) -> Requests {
    let (signatures_per_s, signatures_per_s_1m) = stretch.rates(|look| look.counters.signed);
    let times = stretch.now.requests.since(&stretch.all.requests);
    let us = |part| times.quantile_ns(part).map(|ns| ns / 1_000);
    Requests {
        signatures_per_s,
        signatures_per_s_1m,
        p50_us: us(0.5),
        p99_us: us(0.99),
        queued: Queued {
            login: pool.queued(Class::Login),
            signature: pool.queued(Class::Signature),
            bulk: pool.queued(Class::Bulk),
        },
        running: pool.running,
        retries_left: pool.retries_left,
        retries_refused_1m: stretch.in_all(|look| look.counters.retries_refused),
        overloaded_1m: stretch.in_all(|look| look.counters.overloaded + look.counters.tenant_limit),
    }
}

fn tokens(context: &Context, pool: &PoolSnapshot, stretch: &Stretch<'_>, moment: &Moment) -> Vec<Token> {
    let with_settings = pool.tokens.iter().zip(&context.facts.tokens).enumerate();
    let token = |(index, (token, settings)): (usize, (&TokenSnapshot, &crate::config::Token))| {
        let counts = |look: &Look| look.tokens.get(index).map(TokenCounts::signed).unwrap_or_default();
        let (signatures_per_s, signatures_per_s_1m) = stretch.rates(counts);
        let before = stretch.all.tokens.get(index).cloned().unwrap_or_default();
        let times = token.times.since(&before.times);
        let us = |part| times.quantile_ns(part).map(|ns| ns / 1_000);
        let waits_for_it = |tokens: &TokenSet| tokens.contains(index as u16);
        let queues = pool.queues.iter().filter(|queue| waits_for_it(&queue.tokens));
        Token {
            name: token.name.to_string(),
            kind: match settings.kind {
                TokenKind::Pkcs11 { .. } => "pkcs11".into(),
                TokenKind::Embedded { .. } => "embedded".into(),
            },
            state: token.state.name().into(),
            preferred: settings.preferred,
            sessions_busy: token.sessions_busy,
            sessions_open: token.sessions_open,
            sessions_cap: token.sessions_cap,
            sessions_configured: settings.sessions,
            threads_stuck: token.threads_stuck,
            queued: queues.flat_map(|queue| queue.depth).sum(),
            signatures_per_s,
            signatures_per_s_1m,
            p50_us: us(0.5),
            p99_us: us(0.99),
            errors_1m: token.errors.saturating_sub(before.errors),
            last_error: token.last_error.as_ref().map(|error| TokenError {
                time: moment.of_pool(token.last_error_ns),
                kind: error.kind().name().into(),
                text: error.to_string(),
            }),
            rungs: Rungs {
                session: token.rungs.session_replaced,
                thread: token.rungs.thread_replaced,
                login: token.rungs.login_again,
                token: token.rungs.token_rebuilt,
                module: token.rungs.module_reinitialised,
                probation: token.rungs.probations,
            },
        }
    };
    with_settings.map(token).collect()
}

fn keys(context: &Context, snapshot: &Snapshot, pool: &PoolSnapshot, moment: &Moment) -> Vec<Key> {
    let shared = &context.shared;
    let now_s = moment.unix_s;
    let granted: std::collections::HashSet<KeyId> = (snapshot.policy.tenants().iter())
        .flat_map(|tenant| tenant.grants().flat_map(|grant| grant.key.versions().iter().map(|version| version.id)))
        .collect();
    let key = |card: std::sync::Arc<KeyCard>| {
        let entry = &card.entry;
        // The pool's own word, taken once for all keys.
        let state = card.state(|route| pool.route_usable.get(route.0 as usize).copied().unwrap_or_default());
        let ends_s = entry.certificate.as_ref().map(|chain| chain.not_after_unix_s());
        Key {
            name: entry.name.to_string(),
            version: entry.version().map(|version| version.to_string()),
            phase: entry.version().map(|_| phase_name(entry.phase(now_s)).to_owned()),
            state: state_name(state).into(),
            purpose: entry.purpose.name().into(),
            algorithms: entry.algorithms.iter().map(|algorithm| algorithm.name().to_owned()).collect(),
            granted: granted.contains(&entry.id),
            tokens: entry.tokens.iter().map(|name| holding(context, pool, &card, name)).collect(),
            certificate_ends: ends_s.map(time),
            certificate_ends_in_s: ends_s.map(|ends_s| ends_s - now_s),
            begins_in_s: entry.term.as_ref().map(|term| term.from_unix_s - now_s),
        }
    };
    shared.keys.cards().into_iter().map(key).collect()
}

fn holding(context: &Context, pool: &PoolSnapshot, card: &KeyCard, name: &str) -> Holding {
    let index = context.shared.token_names.iter().position(|token| **token == *name).map(|at| at as u16);
    let signs = index.is_some_and(|token| pool.tokens[usize::from(token)].state == TokenState::Ready);
    let found = index.and_then(|token| card.holding(token));
    let test = index.and_then(|token| card.last_test(token));
    let (said, detail) = match found {
        None => ("unseen", "the token has not said yet what it holds".to_owned()),
        Some(keybook::Holding::Untested) => ("untested", "it has not passed a self-test yet".to_owned()),
        Some(keybook::Holding::Passed(_)) => ("passed", String::new()),
        Some(keybook::Holding::Failed(why)) => ("failed", why),
        Some(keybook::Holding::Unfit(why)) => ("unfit", why),
        Some(keybook::Holding::Stranger(why)) => ("stranger", why),
    };
    Holding {
        token: name.to_owned(),
        state: said.into(),
        detail,
        used: said == "passed" && signs && card.entry.validity(clock::unix_s()) == Validity::Valid,
        self_test: test.map(|test| SelfTest {
            time: time(test.at_s),
            result: act::verdict(test.verdict).0,
            signed: test.signed,
        }),
    }
}

fn tenants(context: &Context, snapshot: &Snapshot, stretch: &Stretch<'_>) -> Vec<Tenant> {
    let tenant = |tenant: &std::sync::Arc<crate::policy::Tenant>| {
        let counts = |look: &Look| look.tenants.get(&tenant.id()).copied().unwrap_or_default();
        let (served, refused) = counts(stretch.now);
        Tenant {
            name: tenant.name().to_string(),
            in_flight: context.shared.census.load(tenant.id()).taken(),
            in_flight_max: tenant.in_flight_max(),
            served_per_s: stretch.now.per_s(stretch.few, |look| counts(look).0),
            refused_per_s: stretch.now.per_s(stretch.few, |look| counts(look).1),
            served,
            refused,
        }
    };
    snapshot.policy.tenants().iter().map(tenant).collect()
}

fn tls(snapshot: &Snapshot, moment: &Moment) -> Tls {
    let ends_s = snapshot.tls.certificate_not_after_s;
    let crl_grace_s = i64::try_from(snapshot.tls.crl_grace.as_secs()).unwrap_or(i64::MAX);
    let crls = snapshot.tls.crls.iter().map(|crl| Crl {
        issuer: crl.issuer.clone(),
        made: time(crl.this_update_s),
        next_update: time(crl.next_update_s),
        next_update_in_s: crl.next_update_s - moment.unix_s,
        lasts_s: crl.next_update_s - crl.this_update_s,
    });
    Tls {
        certificate_ends: time(ends_s),
        certificate_ends_in_s: ends_s - moment.unix_s,
        crl_grace_s,
        crls: crls.collect(),
    }
}

fn journal(context: &Context) -> Journal {
    let journal = context.shared.desk.journal();
    let stats = journal.stats();
    Journal {
        state: format!("{:?}", journal.state()).to_lowercase(),
        trouble: journal.trouble(),
        records: stats.appended_seq,
        lag: stats.appended_seq.saturating_sub(stats.durable_seq),
        committing_ms: stats.committing_ns / 1_000_000,
        refused: stats.refused,
    }
}

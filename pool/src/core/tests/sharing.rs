//! Who gets how much of the tokens when they are not enough: measured, under traffic.

use segl_hsm::{Retry, Rung, Signed};

use super::{
    MS, SECOND, error, job,
    traffic::{Asked, Draw, Model, Record, Source, Traffic, quantile, token},
};
use crate::{Class, Job, Rules, core::Event};

fn source(tenant: u32, class: Class, rate: u64) -> Source {
    Source { job: Job { tenant, class, ..job(0) }, rate, timeout_ns: 10 * SECOND, until_ns: u64::MAX }
}

/// The 99th percentile of nine tenants at 8 % of the capacity each, beside a tenth that sends so much.
fn beside(rate: u64, sessions: u16, service_ns: u64) -> u64 {
    let capacity = u64::from(sessions) * SECOND / service_ns;
    let model = move |_: &Asked, draw: &mut Draw| (draw.about(service_ns), Ok(()));
    let mut traffic = Traffic::new(Rules::default(), &[token(sessions)], Box::new(model));
    traffic.add(source(0, Class::Login, capacity * rate / 100));
    (1..10).for_each(|tenant| traffic.add(source(tenant, Class::Login, capacity * 8 / 100)));
    // As long as some thousand signatures of each tenant take.
    let end_ns = SECOND + service_ns * 150_000 / u64::from(sessions);
    traffic.play_until(end_ns);
    let others = traffic.done.iter().filter(|record| record.job.tenant > 0);
    assert_eq!(others.filter(|record| record.failure.is_some()).count(), 0, "nobody else is refused anything");
    quantile(&traffic.latencies(|record| record.job.tenant > 0), 990)
}

#[test]
fn a_flood_of_ten_times_a_tenants_share_costs_the_others_little() {
    // A network HSM, a card, and SoftHSM with its batches of many short calls.
    for (sessions, service_ns) in [(16, MS), (1, 20 * MS), (2, 55_000)] {
        let calm_ns = beside(8, sessions, service_ns);
        let flood_ns = beside(100, sessions, service_ns);
        let told = format!("{sessions} sessions of {service_ns} ns: p99 {calm_ns} ns, beside a flood {flood_ns} ns");
        eprintln!("{told}");
        assert!(flood_ns <= 2 * calm_ns + service_ns, "{told}");
    }
}

#[test]
fn bulk_gets_its_part_of_the_dispatches_however_many_logins_wait() {
    let rules = Rules { bulk_one_in: 16, ..Rules::default() };
    let model = |_: &Asked, draw: &mut Draw| (draw.about(MS), Ok(()));
    let mut traffic = Traffic::new(rules, &[token(4)], Box::new(model));
    (0..3).for_each(|tenant| traffic.add(source(tenant, Class::Login, 2_000)));
    traffic.add(source(9, Class::Bulk, 2_000));
    traffic.play_until(11 * SECOND);
    let signed = || traffic.done.iter().filter(|record| record.failure.is_none());
    let ends: Vec<u64> = signed().filter(|it| it.job.class == Class::Bulk).map(|it| it.done_ns).collect();
    let part = ends.len() * 1_000 / signed().count();
    assert!((58..=66).contains(&part), "one in sixteen are 62 of 1,000: {part}");
    let gap_ns = ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(gap_ns < 20 * MS, "sixteen dispatches on four sessions: {gap_ns}");
}

/// What two tenants with more to do than they can get were given in ten seconds, in token time.
fn shares(model: Model, cancels: bool) -> [u64; 2] {
    let mut traffic =
        Traffic::new(Rules { retry_budget_percent: 100, ..Rules::default() }, &[token(2), token(2)], model);
    (0..2).for_each(|tenant| traffic.add(source(tenant, Class::Login, 8_000)));
    for second in 2..12 {
        for part in 0..10 {
            traffic.play_until(second * SECOND + part * SECOND / 10);
            if cancels {
                let tags = traffic.waiting_tags(0);
                traffic.tell(tags.into_iter().step_by(2).map(|tag| Event::Cancel { inbox: 0, tag }).collect());
            }
        }
    }
    traffic.given_ns[..2].try_into().unwrap()
}

#[test]
fn neither_retries_nor_cancels_nor_lost_sessions_shift_a_tenants_share() {
    let calm = |_: &Asked, draw: &mut Draw| (draw.about(MS), Ok(()));
    // Every tenth call of tenant 0 fails and is tried again; the other way, it spoils the session and all of its batch.
    let retried = |asked: &Asked, draw: &mut Draw| {
        let fails = asked.tenant == 0 && draw.below(10) == 0;
        (draw.about(MS), if fails { Err(error(Signed::No, Retry::Here, Rung::None)) } else { Ok(()) })
    };
    let spoils = |asked: &Asked, draw: &mut Draw| {
        let fails = asked.tenant == 0 && draw.below(50) == 0;
        (draw.about(MS / 8), if fails { Err(error(Signed::No, Retry::Here, Rung::Session)) } else { Ok(()) })
    };
    let cases: [(&str, Model, bool); 4] = [
        ("calm", Box::new(calm), false),
        ("cancels", Box::new(calm), true),
        ("retries", Box::new(retried), false),
        ("lost sessions", Box::new(spoils), false),
    ];
    for (name, model, cancels) in cases {
        let [one, other] = shares(model, cancels);
        let part = one * 1_000 / (one + other);
        assert!((485..=515).contains(&part), "{name}: tenant 0 gets {part} of 1,000");
    }
}

#[test]
fn greed_never_returns() {
    // What cost a prototype three quarters of its throughput: one session took what 32 should have shared.
    for tokens in [vec![token(32)], vec![token(16), token(16)]] {
        let model = |_: &Asked, draw: &mut Draw| (draw.about(20 * MS), Ok(()));
        let rules = Rules { batch_time_ns: 10 * SECOND, ..Rules::default() };
        let mut traffic = Traffic::new(rules, &tokens, Box::new(model));
        traffic.in_flight = true;
        let deadline_ns = u64::MAX;
        traffic.submit((0..64).map(|_| Job { deadline_ns, ..job(0) }));
        traffic.play_until(3 * SECOND);
        let before_ns: u64 = traffic.busy_ns.iter().sum();
        traffic.play_until(13 * SECOND);
        let busy = (traffic.busy_ns.iter().sum::<u64>() - before_ns) * 1_000 / (32 * 10 * SECOND);
        assert!(busy >= 990, "the sessions are busy {busy} of 1,000");
        assert!(traffic.greed.is_empty(), "batches by the share they exceeded: {:?}", traffic.greed);
    }
}

#[test]
fn a_full_queue_is_shared_by_those_who_fill_it() {
    let rules = Rules { queue_depth_max: [1_000; 3], tenant_depth_max: 1_000, ..Rules::default() };
    let model = |_: &Asked, draw: &mut Draw| (draw.about(MS), Ok(()));
    let mut traffic = Traffic::new(rules, &[token(2)], Box::new(model));
    traffic.submit((0..1_000).map(|_| Job { tenant: 0, ..job(0) }));
    traffic.submit((0..1_000).map(|_| Job { tenant: 1, ..job(0) }));
    traffic.submit((0..1_000).map(|_| Job { tenant: 2, ..job(0) }));
    let waiting: Vec<usize> = (0..3).map(|tenant| traffic.waiting_tags(tenant).len()).collect();
    assert!(waiting.iter().all(|&waiting| (330..=340).contains(&waiting)), "{waiting:?}");
    let snapshot = traffic.core.snapshot();
    assert_eq!(snapshot.queues[0].depth[0], 1_000);
    let displaced = snapshot.counters.displaced;
    assert!((820..=835).contains(&displaced), "500 by the second, 333 by the third: {displaced}");
}

#[test]
fn the_wait_that_is_told_is_the_one_that_comes() {
    // Sessions deliver a third of what their service times promise: their threads get no more of the machine.
    let model = |_: &Asked, draw: &mut Draw| (draw.about(MS), Ok(()));
    let rules = Rules { queue_depth_max: [4_000; 3], ..Rules::default() };
    let mut traffic = Traffic::new(rules, &[token(4)], Box::new(model));
    traffic.overhead_ns = 2 * MS;
    traffic.add(Source { timeout_ns: 500 * MS, ..source(0, Class::Login, 4_000) });
    traffic.play_until(6 * SECOND);
    let since = |records: &[Record], failure| {
        records.iter().filter(|it| it.submitted_ns > 4 * SECOND && it.failure == failure).count()
    };
    let (signed, refused) = (since(&traffic.done, None), since(&traffic.done, Some("overloaded")));
    let expired = since(&traffic.done, Some("expired"));
    assert!(signed > 1_500 && refused > 4_000, "{signed} signed, {refused} refused");
    assert!(expired * 20 < signed, "{expired} waited in vain, {signed} did not");
}

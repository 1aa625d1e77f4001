//! Where traffic goes: near and fast tokens first, the others when that is the sooner end of it.

use segl_hsm::{Retry, Rung, Signed};

use super::{
    MS, SECOND, error, job,
    traffic::{Asked, Draw, Record, Source, Traffic, quantile, token},
};
use crate::{
    Job, RouteId, Rules,
    core::{Event, TokenSpec},
};

/// Four sessions on the own site, four on the other.
fn sites() -> [TokenSpec; 2] {
    [token(4), TokenSpec { preferred: false, ..token(4) }]
}

fn traffic(
    tokens: &[TokenSpec],
    model: impl FnMut(&Asked, &mut Draw) -> (u64, Result<(), segl_hsm::Error>) + 'static,
) -> Traffic {
    Traffic::new(Rules::default(), tokens, Box::new(model))
}

fn source(rate: u64, until_ns: u64) -> Source {
    Source { job: job(0), rate, timeout_ns: 10 * SECOND, until_ns }
}

/// Plays so long; what ended meanwhile, and of 1,000 of these, what token 1 did.
fn play(traffic: &mut Traffic, for_ns: u64) -> (Vec<Record>, usize) {
    traffic.done.clear();
    traffic.play_until(traffic.now_ns + for_ns);
    let done = std::mem::take(&mut traffic.done);
    assert!(done.iter().all(|record| record.failure.is_none()), "nothing fails here");
    let far = done.iter().filter(|record| record.token == Some(1)).count() * 1_000 / done.len().max(1);
    (done, far)
}

fn p99_ns(records: &[Record]) -> u64 {
    let mut latencies: Vec<u64> = records.iter().map(Record::latency_ns).collect();
    latencies.sort_unstable();
    quantile(&latencies, 990)
}

#[test]
fn traffic_stays_on_its_own_site_until_the_wait_there_says_otherwise_and_returns() {
    // The other site is 2 ms away. The own one does 4,000 a second, the other 1,333.
    let mut traffic = traffic(&sites(), |asked, draw| (draw.about(if asked.token == 0 { MS } else { 3 * MS }), Ok(())));
    traffic.add(source(2_000, u64::MAX));
    let (calm, far) = play(&mut traffic, 5 * SECOND);
    assert!(far < 5, "at half its load the own site does all: {far} of 1,000 elsewhere");
    let calm_ns = p99_ns(&calm);

    let rush_ns = traffic.now_ns + 5 * SECOND;
    traffic.add(source(2_800, rush_ns));
    let (rush, far) = play(&mut traffic, 5 * SECOND);
    assert!((150..300).contains(&far), "at 4,800 a second the other site does what the own one can not: {far}");
    let rush_p99_ns = p99_ns(&rush);
    assert!(rush_p99_ns < calm_ns + 2 * 3 * MS, "{calm_ns} ns calm, {rush_p99_ns} ns in the rush");

    play(&mut traffic, SECOND);
    let (_, far) = play(&mut traffic, 4 * SECOND);
    assert!(far < 5, "and afterwards again: {far} of 1,000 elsewhere");
}

#[test]
fn when_the_own_site_is_away_the_other_does_all_at_once_and_only_until_it_is_back() {
    let mut traffic = traffic(&sites(), |_, draw| (draw.about(MS), Ok(())));
    traffic.add(source(1_000, u64::MAX));
    let (_, far) = play(&mut traffic, SECOND);
    assert!(far < 20, "{far}");
    traffic.tell(vec![Event::Leave { token: 0 }]);
    let (away, far) = play(&mut traffic, SECOND);
    assert!(far >= 990, "but for what was with its sessions: {far}");
    assert!(p99_ns(&away) < 3 * MS, "nobody has to wait for that: {} ns", p99_ns(&away));
    traffic.tell(vec![Event::Join { token: 0 }]);
    play(&mut traffic, SECOND / 10);
    let (_, far) = play(&mut traffic, SECOND);
    assert!(far < 20, "{far}");
}

#[test]
fn a_stall_of_the_own_site_holds_only_what_is_in_it() {
    // For two seconds, no call to the own site comes back.
    let stall = 3 * SECOND..5 * SECOND;
    let mut traffic = traffic(&sites(), {
        let stall = stall.clone();
        move |asked, draw| {
            let stalls = asked.token == 0 && stall.contains(&asked.now_ns);
            (if stalls { stall.end - asked.now_ns } else { draw.about(MS) }, Ok(()))
        }
    });
    traffic.add(source(1_000, u64::MAX));
    traffic.play_until(6 * SECOND);
    let meanwhile = |record: &Record| (stall.start + 100 * MS..stall.end).contains(&record.submitted_ns);
    let latencies = traffic.latencies(meanwhile);
    assert!(latencies.len() > 1_500);
    let worst_ns = *latencies.last().unwrap();
    assert!(worst_ns < 10 * MS, "all who came during the stall were served elsewhere, in {worst_ns} ns at most");
    let held = traffic.latencies(|record| record.latency_ns() > SECOND);
    assert!(held.len() <= 2 * 4, "a call and what stood behind it in each of four sessions: {}", held.len());
}

#[test]
fn a_slower_token_is_used_when_it_helps_and_again_like_the_others_once_it_is_fast() {
    let fast_ns = 40 * SECOND;
    let mut traffic = traffic(&[token(4), token(4)], move |asked, draw| {
        let slow = asked.token == 1 && asked.now_ns < fast_ns;
        (draw.about(if slow { 35 * MS } else { MS }), Ok(()))
    });
    traffic.add(source(2_000, u64::MAX));
    play(&mut traffic, 2 * SECOND);
    let (_, far) = play(&mut traffic, 35 * SECOND);
    assert!(far <= 1, "once in a while it is asked whether it is still slow: {far} of 1,000");
    let until_ns = traffic.now_ns + SECOND;
    traffic.add(source(3_000, until_ns));
    let (_, far) = play(&mut traffic, SECOND);
    assert!(far > 3, "beyond what the fast one can do, it helps: {far} of 1,000");
    traffic.play_until(fast_ns + 11 * SECOND);
    let (_, far) = play(&mut traffic, 2 * SECOND);
    assert!((400..600).contains(&far), "it is like the other now: {far} of 1,000");
}

#[test]
fn two_tokens_each_better_at_one_key_do_not_wait_for_each_other() {
    let mut traffic = traffic(&[token(1), token(1)], |asked, draw| {
        let own = u32::from(asked.token) == asked.call.key.0;
        (draw.about(if own { MS } else { 20 * MS }), Ok(()))
    });
    for key in 0..2 {
        traffic.add(Source { job: Job { key: segl_hsm::KeyId(key), tenant: key, ..job(0) }, ..source(400, u64::MAX) });
    }
    play(&mut traffic, SECOND);
    // That none stands idle without reason is looked at after every step.
    let (done, _) = play(&mut traffic, 5 * SECOND);
    let astray = done.iter().filter(|record| record.token != Some(record.job.key.0 as u16)).count();
    assert!(astray * 20 < done.len(), "{astray} of {} went to the token that is slow for them", done.len());
}

#[test]
fn who_comes_over_from_a_better_token_has_saved_nothing_up_against_those_who_were_there() {
    let mut traffic = traffic(&[TokenSpec { preferred: false, ..token(4) }, token(8)], |asked, draw| {
        (draw.about(if asked.token == 0 { 20 * MS } else { MS }), Ok(()))
    });
    // Tenant 5 has only the far token; tenant 1 is at home on the near one, where it is well served.
    traffic.add(Source { job: Job { tenant: 5, route: RouteId(1), ..job(0) }, ..source(150, u64::MAX) });
    traffic.add(source(5_000, u64::MAX));
    play(&mut traffic, 20 * SECOND);
    traffic.tell(vec![Event::Leave { token: 1 }]);
    traffic.play_until(traffic.now_ns + SECOND);
    traffic.given_ns.fill(0);
    traffic.play_until(traffic.now_ns + 4 * SECOND);
    let [one, five] = [traffic.given_ns[1], traffic.given_ns[5]];
    let part = five * 1_000 / (one + five);
    assert!((485..=515).contains(&part), "both want more than half, so half is what they get: {part} of 1,000");
}

#[test]
fn retries_add_a_bounded_share_to_the_load_of_the_healthy() {
    // Token 1 is dying: every other call fails, and it is never taken to be away for it.
    let heals_ns = 6 * SECOND;
    let rules = Rules { retry_budget_percent: 10, retry_burst: 20, ..Rules::default() };
    let model = move |asked: &Asked, draw: &mut Draw| {
        let fails = asked.token == 1 && asked.now_ns < heals_ns && draw.below(2) == 0;
        let error = || error(Signed::No, Retry::Here, Rung::None);
        (draw.about(MS), if fails { Err(error()) } else { Ok(()) })
    };
    let mut traffic = Traffic::new(rules, &[token(4), token(4)], Box::new(model));
    traffic.add(source(2_000, u64::MAX));
    traffic.play_until(heals_ns);
    let counters = traffic.core.snapshot().counters;
    let allowed = counters.submitted / 10 + 20;
    assert!(counters.retries > allowed * 9 / 10, "the budget is used: {counters:?}");
    assert!(counters.retries <= allowed, "{} retries, {allowed} allowed", counters.retries);
    assert!(counters.retries_refused > 0 && counters.token_error >= counters.retries_refused, "{counters:?}");

    traffic.play_until(heals_ns + SECOND);
    traffic.done.clear();
    let before = traffic.core.snapshot();
    assert_eq!(before.retries_left, 20, "a quiet second fills it");
    traffic.play_until(heals_ns + 2 * SECOND);
    assert!(traffic.done.iter().all(|record| record.failure.is_none()));
    assert_eq!(traffic.core.snapshot().counters.retries, before.counters.retries);
}

#[test]
fn a_token_that_refuses_a_key_is_asked_last_for_it_and_again_once_it_does_it() {
    let heals_ns = 6 * SECOND;
    let mut traffic = traffic(&[token(4), token(4)], move |asked, draw| {
        let fails = asked.token == 1 && asked.now_ns < heals_ns;
        (draw.about(MS), if fails { Err(error(Signed::No, Retry::Elsewhere, Rung::None)) } else { Ok(()) })
    });
    traffic.add(source(2_000, u64::MAX));
    play(&mut traffic, 4 * SECOND);
    assert!(traffic.core.snapshot().counters.retries < 20, "each session may find out at the same time, no more");
    traffic.play_until(heals_ns + 11 * SECOND);
    let (_, far) = play(&mut traffic, SECOND);
    assert!((400..600).contains(&far), "it is like the other again: {far} of 1,000");
}

//! Order, batches, deadlines, bounds.

use segl_hsm::{Algorithm, KeyId};

use super::{MS, SECOND, job, scene::Scene};
use crate::{
    Class, Failure, Job, RouteId, Rules, TokenSet,
    core::{CallResult, Event},
};

fn rules() -> Rules {
    Rules { batch_time_ns: u64::MAX, ..Rules::default() }
}

/// One session, so that the order of service shows.
fn one_by_one() -> Scene {
    Scene::ready(Rules { batch_max: 1, ..rules() }, &[1])
}

fn order_of_service(scene: &mut Scene) -> Vec<u64> {
    let mut order = Vec::new();
    while !scene.batches.is_empty() {
        order.extend(scene.sign_batch().tags());
    }
    order
}

#[test]
fn what_waits_is_shared_out_so_that_no_session_stands_idle() {
    let mut scene = Scene::ready(rules(), &[8]);
    scene.submit((0..4).map(job));
    assert_eq!(scene.batches.iter().map(|batch| batch.calls.len()).collect::<Vec<_>>(), [1, 1, 1, 1]);
    scene.sign_all();

    scene.submit((0..64).map(job));
    let sizes: Vec<_> = scene.batches.iter().map(|batch| batch.calls.len()).collect();
    assert_eq!(sizes.len(), 8, "all sessions have work: {sizes:?}");
    assert_eq!(sizes[0], 8, "ceil(64 / 8)");

    let mut two = Scene::ready(rules(), &[2]);
    two.submit((0..3).map(job));
    assert_eq!(two.batches.iter().map(|batch| batch.calls.len()).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn a_share_counts_the_sessions_of_all_tokens_that_hold_the_key() {
    let mut scene = Scene::ready(rules(), &[2, 2]);
    scene.submit((0..8).map(job));
    let sizes: Vec<_> = scene.batches.iter().map(|batch| batch.calls.len()).collect();
    assert_eq!(sizes, [2, 2, 1, 1], "ceil of what is left, by four sessions");
    scene.sign_all();
    assert_eq!(scene.take_done().len(), 8);
}

#[test]
fn a_batch_is_bounded_in_jobs_and_in_expected_time() {
    let mut scene = Scene::ready(Rules { batch_max: 16, batch_time_ns: 10 * MS, ..Rules::default() }, &[1]);
    scene.submit([job(0)]);
    scene.sign_all();
    scene.submit((1..100).map(job));
    assert_eq!(scene.batches[0].calls.len(), 10, "10 ms of signatures that take 1 ms");

    let batch = scene.batches.pop_front().unwrap();
    let results = vec![CallResult::Signed(vec![1]); batch.calls.len()];
    scene.return_batch(&batch, results, 20 * MS);
    assert_eq!(scene.batches[0].calls.len(), 1, "one at least, however long it takes");

    let mut quick = Scene::ready(Rules { batch_max: 16, ..rules() }, &[1]);
    quick.submit((0..100).map(job));
    assert_eq!(quick.batches[0].calls.len(), 16);
}

#[test]
fn inside_a_tenant_who_came_first_goes_first() {
    let mut scene = one_by_one();
    scene.submit((0..20).map(job));
    assert_eq!(order_of_service(&mut scene), (0..20).collect::<Vec<_>>());
}

#[test]
fn the_urgent_go_first_and_nobody_starves() {
    let mut scene = Scene::ready(Rules { batch_max: 1, signature_one_in: 4, bulk_one_in: 10, ..rules() }, &[1]);
    let of = |class: Class, range: std::ops::Range<u64>| range.map(move |tag| Job { class, ..job(tag) });
    scene.submit(of(Class::Bulk, 2000..2100).chain(of(Class::Signature, 1000..1100)).chain(of(Class::Login, 0..100)));
    let order = order_of_service(&mut scene);
    assert!(order[0] < 1000, "a login is first though it came last");
    let (signatures, bulk): (Vec<u64>, Vec<u64>) =
        order[..100].iter().filter(|&&tag| tag >= 1000).partition(|&&tag| tag < 2000);
    assert_eq!(bulk.len(), 10, "one in ten is bulk");
    assert!((18..=25).contains(&signatures.len()), "about one in four is a signature: {}", signatures.len());
    let gaps = |low: u64| {
        let places: Vec<_> = order.iter().enumerate().filter(|(_, tag)| **tag / 1000 == low).map(|(i, _)| i).collect();
        places.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    };
    assert!(gaps(2) <= 10 && gaps(1) <= 5, "bulk waits {} dispatches, signatures {}", gaps(2), gaps(1));
}

#[test]
fn a_flood_of_one_tenant_is_served_turn_about_with_the_others() {
    let mut scene = one_by_one();
    scene.submit((0..1000).map(|tag| Job { tenant: 1, ..job(tag) }));
    scene.submit((1000..1010).map(|tag| Job { tenant: 2, ..job(tag) }));
    let order = order_of_service(&mut scene);
    let last = order.iter().position(|&tag| tag == 1009).unwrap();
    assert!(last <= 22, "ten jobs beside a flood are through after {last} dispatches");
}

#[test]
fn tenants_share_time_and_not_counts() {
    let mut scene = one_by_one();
    let slow = |tag| Job { algorithm: Algorithm::RsaPssSha256, key: KeyId(2), tenant: 2, ..job(tag) };
    // The costs are learned first: 1 ms and 10 ms.
    scene.submit([job(0)]);
    scene.sign_all();
    scene.submit([slow(1)]);
    let batch = scene.batches.pop_front().unwrap();
    scene.return_batch(&batch, vec![CallResult::Signed(vec![1])], 10 * MS);

    scene.submit((100..400).map(job));
    scene.submit((1000..1100).map(slow));
    let mut order = Vec::new();
    while let Some(batch) = scene.batches.pop_front() {
        order.extend(batch.tags());
        let token_ns = if batch.tags()[0] >= 1000 { 10 * MS } else { MS };
        scene.return_batch(&batch, vec![CallResult::Signed(vec![1])], token_ns);
    }
    let among = order[..110].iter().filter(|&&tag| tag >= 1000).count();
    assert!((9..=12).contains(&among), "{among} of 110 are ten times as dear");
}

#[test]
fn a_tenant_that_was_away_saves_nothing_up() {
    let mut scene = one_by_one();
    scene.submit((0..500).map(|tag| Job { tenant: 1, ..job(tag) }));
    for _ in 0..300 {
        scene.sign_batch();
    }
    scene.submit((1000..1100).map(|tag| Job { tenant: 2, ..job(tag) }));
    let order = order_of_service(&mut scene);
    let late = order[..40].iter().filter(|&&tag| tag >= 1000).count();
    assert!((18..=22).contains(&late), "the newcomer gets its half, not more: {late} of 40");
}

#[test]
fn a_busy_slow_token_does_not_let_its_old_tenant_lock_a_new_one_out() {
    // Tenant 1 keeps token 0 busy, tenant 2 the much faster token 1. Then tenant 2 comes to token 0 too.
    let mut scene = Scene::ready(Rules { batch_max: 1, ..rules() }, &[1, 1]);
    scene.step(Event::Routes(vec![TokenSet::only(0), TokenSet::only(1)]));
    scene.submit((0..200).map(|tag| Job { tenant: 1, ..job(tag) }));
    scene.submit((1000..1500).map(|tag| Job { tenant: 2, route: RouteId(1), ..job(tag) }));
    let on_token_0 = scene.batches.iter().position(|batch| batch.tags()[0] < 1000).unwrap();
    let held = scene.batches.remove(on_token_0).unwrap();
    for _ in 0..400 {
        scene.sign_batch();
    }
    scene.submit((5000..5010).map(|tag| Job { tenant: 2, ..job(tag) }));
    scene.return_batch(&held, vec![CallResult::Signed(vec![1])], MS);
    let order: Vec<_> = order_of_service(&mut scene).into_iter().filter(|tag| !(1000..5000).contains(tag)).collect();
    let last = order.iter().position(|&tag| tag == 5009).unwrap();
    assert!(last <= 22, "turn about on token 0 as well: {last}");
}

#[test]
fn who_waits_past_the_deadline_is_answered_then_and_not_begun() {
    let mut scene = one_by_one();
    let deadline_ns = scene.now_ns + 5 * MS;
    scene.submit([job(1), Job { deadline_ns, ..job(2) }, job(3)]);
    assert_eq!(scene.core.next_timeout_ns(), Some(deadline_ns));
    scene.await_timer();
    assert_eq!(scene.now_ns, deadline_ns);
    assert_eq!(scene.take_done(), [(2, Err("expired"))]);
    assert_eq!(order_of_service(&mut scene), [1, 3]);
    scene.submit([Job { deadline_ns, ..job(4) }]);
    assert_eq!(scene.take_done().last(), Some(&(4, Err("expired"))), "a deadline in the past");
}

#[test]
fn the_session_says_what_expired_in_its_batch() {
    let mut scene = Scene::ready(rules(), &[1]);
    scene.submit((0..3).map(job));
    let batch = scene.batches.pop_front().unwrap();
    let results = vec![CallResult::Signed(vec![1]), CallResult::Expired, CallResult::Signed(vec![1])];
    scene.return_batch(&batch, results, MS);
    let done = scene.done.iter().find(|done| done.tag == 1).unwrap();
    assert!(matches!(done.result, Err(Failure::Expired)));
    assert_eq!((done.attempts.count(), done.attempts.unknown()), (0, 0));
}

#[test]
fn the_heap_of_deadlines_does_not_grow_with_what_is_done() {
    let mut scene = one_by_one();
    for tag in 0..20_000 {
        scene.submit([job(tag)]);
        scene.sign_batch();
    }
    assert!(scene.core.deadlines.len() < 3000, "{}", scene.core.deadlines.len());
}

#[test]
fn a_job_taken_back_completes_as_cancelled_unless_a_session_has_it() {
    let mut scene = one_by_one();
    scene.submit([job(1), job(2)]);
    scene.step(Event::Cancel { inbox: 0, tag: 2 });
    assert_eq!(scene.take_done(), [(2, Err("cancelled"))]);
    scene.step(Event::Cancel { inbox: 0, tag: 1 });
    scene.step(Event::Cancel { inbox: 0, tag: 99 });
    assert_eq!(scene.take_done(), []);
    scene.sign_batch();
    assert_eq!(scene.take_done(), [(1, Ok(()))]);
    scene.step(Event::Cancel { inbox: 0, tag: 1 });
    assert_eq!(scene.take_done(), [], "long gone");
}

#[test]
fn queues_are_bounded_by_set_and_class_and_by_tenant() {
    let rules = Rules { batch_max: 1, queue_depth_max: [5, 5, 3], tenant_depth_max: 4, ..rules() };
    let mut scene = Scene::ready(rules, &[1]);
    scene.submit([job(0)]);
    scene.submit((1..5).map(job));
    assert_eq!(scene.take_done(), [], "one with the session, four waiting");
    scene.submit([job(5)]);
    assert_eq!(scene.take_done(), [(5, Err("tenant-limit"))]);
    scene.submit((10..14).map(|tag| Job { tenant: 2, ..job(tag) }));
    let displaced = [(4, Err("overloaded")), (12, Err("overloaded")), (13, Err("overloaded"))];
    assert_eq!(scene.take_done(), displaced, "who has the most gives way until shares are as equal as they can be");
    scene.submit((20..24).map(|tag| Job { tenant: 3, class: Class::Bulk, ..job(tag) }));
    assert_eq!(scene.take_done(), [(23, Err("overloaded"))], "each class has its own bound");
    scene.sign_all();
    assert_eq!(scene.take_done().len(), 4 + 2 + 3);
}

#[test]
fn those_refused_are_told_when_half_the_queue_is_served() {
    let mut scene = Scene::ready(Rules { batch_max: 1, queue_depth_max: [1000; 3], ..rules() }, &[1]);
    scene.submit([job(0)]);
    scene.sign_all();
    scene.submit((1..1003).map(job));
    let refused = scene.done.last().unwrap();
    assert_eq!(refused.result.as_ref().unwrap_err().retry_after_ms(), Some(500), "1,000 that take 1 ms each");
    assert_eq!(refused.attempts.count(), 0);
}

#[test]
fn what_cannot_be_done_in_time_is_refused_at_once_when_that_is_known() {
    let mut scene = one_by_one();
    let in_20_ms = |scene: &Scene, tag| Job { deadline_ns: scene.now_ns + 20 * MS, ..job(tag) };
    scene.submit((0..50).map(job));
    let hurried = in_20_ms(&scene, 100);
    scene.submit([hurried]);
    assert_eq!(scene.take_done(), [], "nobody is refused on a guess");
    scene.sign_all();
    scene.take_done();

    scene.submit((200..250).map(job));
    let hurried = in_20_ms(&scene, 300);
    scene.submit([hurried]);
    let refused = scene.done.pop().expect("fifty of 1 ms before it");
    assert!(matches!(refused.result, Err(Failure::Overloaded { retry_after_ms: 40..60 })), "{refused:?}");
    let other_tenant = Job { tenant: 2, ..in_20_ms(&scene, 301) };
    scene.submit([other_tenant]);
    assert!(scene.done.is_empty(), "fair sharing lets another tenant pass");
}

#[test]
fn draining_refuses_what_is_new_and_finishes_what_is_there() {
    let mut scene = one_by_one();
    scene.submit((0..3).map(job));
    scene.step(Event::Drain);
    scene.submit([job(9)]);
    assert_eq!(scene.take_done(), [(9, Err("draining"))]);
    scene.sign_all();
    assert_eq!(scene.take_done(), [(0, Ok(())), (1, Ok(())), (2, Ok(()))]);
}

#[test]
fn routes_can_be_added_and_jobs_that_wait_keep_their_set() {
    let mut scene = Scene::ready(Rules { batch_max: 1, ..rules() }, &[1, 1]);
    scene.step(Event::Routes(vec![TokenSet::only(0)]));
    scene.submit((0..2).map(job));
    scene.submit([Job { route: RouteId(7), ..job(7) }]);
    assert_eq!(scene.take_done(), [(7, Err("key-unavailable"))], "a route nobody has named");
    scene.step(Event::Routes(vec![TokenSet::only(1), TokenSet::only(0)]));
    assert_eq!(scene.batches.len(), 1, "job 1 still waits for token 0");
    scene.submit([job(2), Job { route: RouteId(1), ..job(3) }]);
    assert_eq!(scene.batches.len(), 2, "job 2 goes to token 1 at once");
    scene.step(Event::Routes(vec![TokenSet::only(0)]));
    scene.step(Event::Routes(vec![TokenSet::only(0), TokenSet::only(0), TokenSet::only(63)]));
    assert!(!scene.core.route_usable(RouteId(2)), "a token that is not there");
    scene.step(Event::Routes(vec![TokenSet::only(0)]));
    assert!(scene.core.route_usable(RouteId(1)), "routes beyond the list stay");
    scene.sign_all();
    assert_eq!(scene.take_done().len(), 4);
}

#[test]
fn a_job_for_one_token_goes_there_or_nowhere() {
    let mut scene = Scene::ready(rules(), &[1, 1]);
    scene.submit([Job { only_token: Some(1), ..job(1) }, Job { only_token: Some(1), ..job(2) }]);
    assert_eq!(scene.batches.len(), 1, "the other token's session is not for them");
    scene.sign_all();
    assert!(scene.done.iter().all(|done| done.token == Some(1) && done.result.is_ok()));
    scene.take_done();
    scene.step(Event::Leave { token: 1 });
    scene.submit([Job { only_token: Some(1), ..job(3) }, Job { only_token: Some(9), ..job(4) }]);
    assert_eq!(scene.take_done(), [(3, Err("key-unavailable")), (4, Err("key-unavailable"))]);
}

#[test]
fn times_in_a_completion_are_those_of_the_attempt() {
    let mut scene = one_by_one();
    scene.submit([job(1), job(2)]);
    scene.sign_all();
    let second = &scene.done[1];
    assert_eq!((second.queue_us, second.token_us), (1000, 1000));
    assert_eq!((second.token, second.attempts.count()), (Some(0), 1));
    assert!(scene.now_ns < 2 * SECOND);
}

#[test]
fn what_waits_behind_a_call_that_does_not_return_is_asked_back_at_its_deadline() {
    let mut scene = Scene::ready(rules(), &[1]);
    scene.submit([job(0)]);
    let deadline_ns = scene.now_ns + SECOND;
    scene.submit([job(1), Job { deadline_ns, ..job(2) }, job(3)]);
    scene.sign_batch();
    let batch = scene.batches.pop_front().unwrap();
    assert_eq!(batch.tags(), [1, 2, 3]);
    scene.await_timer();
    assert_eq!(scene.now_ns, deadline_ns);
    assert_eq!(scene.taken_back, [(batch.session, batch.generation, batch.calls[1].id)]);
    scene.await_timer();
    assert_eq!(scene.taken_back.len(), 2, "asked again: the first time it may not have been there yet");
    assert_eq!(scene.take_done(), [(0, Ok(()))]);

    let returned = |call: usize, result| Event::Returned {
        session: batch.session,
        generation: batch.generation,
        call: batch.calls[call].id,
        result,
        started_ns: deadline_ns,
        token_ns: MS,
    };
    scene.step(returned(1, CallResult::Expired));
    assert_eq!(scene.take_done(), [(2, Err("expired"))]);
    scene.submit([job(4)]);
    assert!(scene.batches.is_empty(), "the session has not returned");
    // Should it say something of it after all, that is thrown away.
    scene.step_all([returned(0, CallResult::Signed(vec![1])), returned(1, CallResult::Signed(vec![6]))]);
    scene.step(returned(2, CallResult::Signed(vec![1])));
    assert_eq!(scene.take_done(), [(1, Ok(())), (3, Ok(()))]);
    assert_eq!(scene.core.snapshot().counters.stale, 1);
    assert_eq!(scene.batches.len(), 1);
}

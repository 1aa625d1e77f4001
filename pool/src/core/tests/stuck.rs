//! What becomes of a call that does not return, of the rest of its batch, and of the thread that made it.

use segl_hsm::{Error, Kind, Retry, Rung, Signed};

use super::{MS, SECOND, error, job, scene::Scene};
use crate::{
    Attempt, Discard, Failure, Fate, Job, Rules, TokenState,
    core::{Alarm, CallResult, Event, Generation, TokenSpec},
};

const STUCK_AFTER_NS: u64 = 5 * SECOND;

fn token(sessions: u16) -> TokenSpec {
    TokenSpec { sessions, stuck_after_ns: STUCK_AFTER_NS, ..TokenSpec::default() }
}

fn ready(rules: Rules, tokens: &[u16]) -> Scene {
    let rules = Rules { batch_time_ns: u64::MAX, ..rules };
    let mut scene = Scene::of(rules, tokens.iter().map(|&sessions| token(sessions)).collect());
    scene.join_all();
    scene
}

/// Jobs far from their deadlines, named in the journal by 100 and their tag.
fn patient(tag: u64) -> Job<u64> {
    Job { deadline_ns: u64::MAX, reference: 100 + tag, ..job(tag) }
}

/// The clock moves until somebody is given up.
fn wait_until_stuck(scene: &mut Scene) {
    let since_ns = scene.now_ns;
    while !scene.alarms.iter().any(|alarm| matches!(alarm, Alarm::Stuck { .. })) {
        scene.await_timer();
    }
    assert!(scene.now_ns <= since_ns + STUCK_AFTER_NS, "late");
}

#[test]
fn a_call_that_does_not_return_holds_its_job_no_longer_and_the_rest_of_its_batch_goes_on_elsewhere() {
    let mut scene = ready(Rules::default(), &[1, 1]);
    scene.submit((0..8).map(patient));
    let (hung, other) = (scene.batches.pop_front().unwrap(), scene.batches.pop_front().unwrap());
    scene.return_batch(&other, vec![CallResult::Signed(vec![1]); other.calls.len()], MS);
    scene.sign_all();
    scene.take_done();
    wait_until_stuck(&mut scene);
    let [stuck] = &scene.done[..] else { panic!("{:?}", scene.done) };
    assert!(matches!(stuck.result, Err(Failure::Stuck)));
    assert_eq!((stuck.tag, stuck.verdict().unwrap().signed), (hung.tags()[0], Signed::Unknown));
    let attempt = stuck.attempts[0];
    assert_eq!((attempt.fate, attempt.code, attempt.session), (Fate::Unknown, Some("stuck"), hung.session.0));
    assert_eq!(scene.replaced, [(hung.session, hung.generation)]);
    assert_eq!(scene.taken_back.len(), hung.calls.len() - 1, "each of the others is asked back");
    scene.take_done();
    // The driver finds that none of them has begun.
    let skipped = hung.calls[1..].iter().map(|call| Event::Returned {
        session: hung.session,
        generation: hung.generation,
        call: call.id,
        result: CallResult::Skipped,
        started_ns: 0,
        token_ns: 0,
    });
    scene.step_all(skipped);
    assert!(!scene.batches.is_empty(), "the other token has them at once");
    scene.sign_all();
    assert_eq!(scene.take_done().len(), hung.calls.len() - 1);
}

#[test]
fn the_time_of_a_call_runs_from_the_return_of_the_one_before() {
    let mut scene = ready(Rules::default(), &[1]);
    scene.submit((0..3).map(patient));
    let batch = scene.batches.pop_front().unwrap();
    let (session, generation) = (batch.session, batch.generation);
    for call in &batch.calls[..2] {
        let started_ns = scene.now_ns;
        scene.now_ns += STUCK_AFTER_NS - MS;
        let (result, token_ns) = (CallResult::Signed(vec![1]), STUCK_AFTER_NS - MS);
        scene.step_all([
            Event::Timer,
            Event::Returned { session, generation, call: call.id, result, started_ns, token_ns },
        ]);
    }
    assert_eq!(scene.take_done(), [(0, Ok(())), (1, Ok(()))], "slow is not stuck");
    wait_until_stuck(&mut scene);
    assert_eq!(scene.take_done(), [(2, Err("stuck"))]);
}

#[test]
fn a_stuck_job_is_tried_elsewhere_if_that_is_harmless_and_both_attempts_are_told() {
    let mut scene = ready(Rules::default(), &[1, 1]);
    scene.submit([Job { repeatable: true, ..patient(1) }]);
    let hung = scene.batches.pop_front().unwrap();
    wait_until_stuck(&mut scene);
    let second = scene.sign_batch();
    assert_ne!(second.session, hung.session);
    let done = scene.done.pop().unwrap();
    assert!(done.result.is_ok());
    let fates: Vec<_> = done.attempts.iter().map(|attempt| (attempt.session, attempt.fate)).collect();
    assert_eq!(fates, [(hung.session.0, Fate::Unknown), (second.session.0, Fate::Released)]);
}

#[test]
fn a_signature_that_comes_after_all_is_discarded_and_told_by_the_jobs_name() {
    let mut scene = ready(Rules::default(), &[1]);
    scene.submit([patient(1)]);
    let hung = scene.batches.pop_front().unwrap();
    wait_until_stuck(&mut scene);
    assert_eq!(scene.take_done(), [(1, Err("stuck"))]);
    scene.answer_all_well();
    scene.submit([patient(2)]);
    let present = scene.batches.pop_front().unwrap();
    assert_eq!((present.session, present.generation > hung.generation), (hung.session, true));
    scene.return_batch(&hung, vec![CallResult::Signed(vec![6])], SECOND);
    assert!(scene.done.is_empty(), "nobody gets it");
    let told = |alarm: &&Alarm| matches!(alarm, Alarm::Discarded { .. });
    assert!(matches!(
        scene.alarms.iter().find(told),
        Some(Alarm::Discarded { reference: 101, token: 0, reason: Discard::Late, signed: true })
    ));
    scene.return_batch(&present, vec![CallResult::Signed(vec![2])], MS);
    assert_eq!(scene.done[0].result.as_ref().unwrap(), &[2]);
    scene.return_batch(&hung, vec![CallResult::Signed(vec![6])], SECOND);
    assert_eq!(scene.alarms.iter().filter(told).count(), 1, "once");
}

#[test]
fn a_late_answer_without_a_signature_ends_the_doubt_and_one_that_does_not_know_does_not() {
    for (signed, told) in [(Signed::No, true), (Signed::Unknown, false)] {
        let mut scene = ready(Rules::default(), &[1]);
        scene.submit([patient(1)]);
        let hung = scene.batches.pop_front().unwrap();
        wait_until_stuck(&mut scene);
        let failed = CallResult::Failed(error(signed, Retry::Here, Rung::Session));
        scene.return_batch(&hung, vec![failed], SECOND);
        let said = scene.alarms.iter().any(|alarm| matches!(alarm, Alarm::Discarded { signed: false, .. }));
        assert_eq!(said, told, "{signed:?}");
    }
}

#[test]
fn a_wrong_signature_takes_the_token_out_also_when_it_comes_late() {
    let mut scene = ready(Rules::default(), &[1]);
    scene.submit([patient(1)]);
    let hung = scene.batches.pop_front().unwrap();
    wait_until_stuck(&mut scene);
    let wrong = Error::of(Kind::WrongSignature, "verify", "not by this key");
    scene.return_batch(&hung, vec![CallResult::Failed(wrong)], SECOND);
    assert_eq!(scene.core.snapshot().tokens[0].state, TokenState::NeedsOperator);
}

#[test]
fn a_call_that_had_begun_after_all_when_its_batch_was_given_up_is_answered_as_it_ends() {
    let mut scene = ready(Rules::default(), &[1]);
    scene.submit([patient(1), patient(2)]);
    let hung = scene.batches.pop_front().unwrap();
    wait_until_stuck(&mut scene);
    assert_eq!(scene.take_done(), [(1, Err("stuck"))]);
    let results = vec![CallResult::Signed(vec![6]), CallResult::Signed(vec![2])];
    scene.return_batch(&hung, results, SECOND);
    assert_eq!(scene.take_done(), [(2, Ok(()))], "it was never given up");
}

#[test]
fn what_had_begun_after_all_is_given_up_in_its_turn() {
    let mut scene = ready(Rules::default(), &[1]);
    scene.submit([patient(1), patient(2)]);
    wait_until_stuck(&mut scene);
    let first_ns = scene.now_ns;
    while scene.done.len() < 2 {
        scene.await_timer();
    }
    assert_eq!(scene.now_ns, first_ns + STUCK_AFTER_NS);
    assert_eq!(scene.take_done(), [(1, Err("stuck")), (2, Err("stuck"))]);
}

#[test]
fn threads_are_replaced_up_to_a_number_and_beyond_it_the_place_waits_for_its_call() {
    let rules = Rules { stuck_threads_max: 1, batch_max: 1, ..Rules::default() };
    let mut scene = ready(rules, &[2]);
    scene.submit([patient(1), patient(2)]);
    let calls: Vec<_> = scene.batches.drain(..).collect();
    wait_until_stuck(&mut scene);
    assert_eq!(scene.take_done().len(), 2);
    let lost = calls.iter().find(|call| scene.replaced[0].0 != call.session).unwrap();
    assert_eq!((scene.replaced.len(), scene.core.snapshot().tokens[0].threads_stuck), (1, 2));
    scene.answer_all_well();
    scene.submit([patient(3)]);
    assert_ne!(scene.batches[0].session, lost.session);
    scene.sign_all();
    scene.return_batch(lost, vec![CallResult::Signed(vec![6])], SECOND);
    assert_eq!(scene.closes, [(lost.session, lost.generation)], "on its own thread, in its own generation");
    let (session, generation) = scene.replaced[0];
    scene.step(Event::Gone { session, generation });
    assert_eq!(scene.core.snapshot().tokens[0].threads_stuck, 0);
}

#[test]
fn a_token_whose_every_thread_is_stuck_is_away_until_one_returns() {
    let rules = Rules { stuck_threads_max: 0, ..Rules::default() };
    let mut scene = ready(rules, &[1]);
    scene.submit([patient(1)]);
    let hung = scene.batches.pop_front().unwrap();
    wait_until_stuck(&mut scene);
    scene.submit([patient(2)]);
    assert_eq!(scene.take_done(), [(1, Err("stuck")), (2, Err("key-unavailable"))]);
    assert_eq!(scene.core.snapshot().tokens[0].state, TokenState::Away);
    assert_eq!(scene.core.sessions_out(), 0, "nobody who stops waits for it");
    scene.return_batch(&hung, vec![CallResult::Signed(vec![6])], SECOND);
    while scene.core.snapshot().tokens[0].state != TokenState::Ready {
        scene.answer_all_well();
        if scene.core.snapshot().tokens[0].state != TokenState::Ready {
            scene.await_timer();
        }
    }
}

#[test]
fn an_open_a_login_and_a_close_that_do_not_return_are_given_up_too() {
    for step in ["open", "login", "close"] {
        let mut scene = Scene::of(Rules::default(), vec![token(1)]);
        scene.step(Event::Join { token: 0 });
        let (session, generation) = scene.opens.pop_front().unwrap();
        if step != "open" {
            scene.step(Event::Opened { session, generation, result: Ok(()) });
            scene.logins.pop_front().unwrap();
        }
        if step == "close" {
            scene.step(Event::LoggedIn { session, generation, result: Ok(()) });
            scene.vouch(0, true);
            scene.submit([patient(1)]);
            scene.fail_batch(error(Signed::No, Retry::Never, Rung::Session));
            scene.closes.pop_front().unwrap();
        }
        wait_until_stuck(&mut scene);
        let named = |alarm: &Alarm| matches!(alarm, Alarm::Stuck { call, replaced: true, .. } if *call == step);
        assert!(scene.alarms.iter().any(named), "{step}: {:?}", scene.alarms);
        assert_eq!(scene.replaced, [(session, generation)]);
        while scene.opens.is_empty() {
            scene.await_timer();
        }
        assert_eq!(scene.opens[0], (session, Generation(generation.0 + 1)), "{step}");
        // What the first thread says now is of a generation that is over.
        scene.step(Event::Opened { session, generation, result: Ok(()) });
        scene.step(Event::LoggedIn { session, generation, result: Ok(()) });
        scene.step(Event::Closed { session, generation });
        scene.step(Event::Gone { session, generation });
        assert!(scene.logins.is_empty() && scene.closes.is_empty());
        scene.probations.clear();
        scene.answer_all_well();
        assert_eq!(scene.core.snapshot().tokens[0].state, TokenState::Ready, "{step}");
    }
}

#[test]
fn a_thread_that_ends_with_calls_in_hand_leaves_their_jobs_in_doubt_and_not_without_an_answer() {
    let mut scene = ready(Rules::default(), &[1]);
    scene.submit([patient(1), patient(2)]);
    wait_until_stuck(&mut scene);
    let (session, generation) = scene.replaced[0];
    scene.step(Event::Gone { session, generation });
    assert_eq!(scene.take_done(), [(1, Err("stuck")), (2, Err("stuck"))]);
}

#[test]
fn every_attempt_is_listed_with_what_became_of_it() {
    let mut scene = ready(Rules::default(), &[1, 1]);
    scene.submit([Job { repeatable: true, ..patient(1) }]);
    scene.fail_batch(error(Signed::Unknown, Retry::Elsewhere, Rung::Session).with_code("CKR_DEVICE_ERROR"));
    scene.answer_all_well();
    scene.sign_all();
    let done = scene.done.pop().unwrap();
    let [first, second] = done.attempts[..] else { panic!("{:?}", done.attempts) };
    assert_eq!((first.fate, first.code, first.call), (Fate::Unknown, Some("CKR_DEVICE_ERROR"), Some("C_Sign")));
    assert_eq!(second, Attempt { fate: Fate::Released, code: None, call: None, token_us: 1000, ..second });
    assert_eq!((done.token, done.token_us), (Some(second.token), second.token_us));
}

#[test]
fn a_late_error_that_costs_all_sessions_costs_the_login_unless_that_is_newer() {
    let mut scene = ready(Rules::default(), &[2]);
    scene.submit([patient(1)]);
    let hung = scene.batches.pop_front().unwrap();
    wait_until_stuck(&mut scene);
    let device = error(Signed::Unknown, Retry::Elsewhere, Rung::Token);
    let late = |scene: &mut Scene, error: &Error| {
        let (session, generation, call) = (hung.session, hung.generation, hung.calls[0].id);
        let result = CallResult::Failed(error.clone());
        scene.step(Event::Returned { session, generation, call, result, started_ns: 0, token_ns: 1 });
    };
    late(&mut scene, &device);
    assert_eq!(scene.core.snapshot().tokens[0].rungs.token_rebuilt, 1);
    assert_eq!(scene.closes.len(), 1, "what was opened before is void");
    scene.answer_all_well();
    // Of a generation that is over it says nothing.
    late(&mut scene, &device);
    scene.step(Event::LoggedIn { session: hung.session, generation: hung.generation, result: Err(device) });
    assert_eq!(scene.core.snapshot().tokens[0].rungs.token_rebuilt, 1);
    assert_eq!(scene.core.snapshot().tokens[0].state, TokenState::Ready);
}

#[test]
fn a_late_error_of_a_login_costs_the_login_that_another_session_has_done_meanwhile() {
    let rules = Rules { backoff_min_ns: MS, backoff_max_ns: MS, ..Rules::default() };
    let mut scene = Scene::of(rules, vec![token(2)]);
    scene.step(Event::Join { token: 0 });
    let (session, generation) = scene.opens.pop_front().unwrap();
    scene.step(Event::Opened { session, generation, result: Ok(()) });
    assert_eq!(scene.logins.pop_front(), Some((session, generation)));
    wait_until_stuck(&mut scene);
    while scene.core.snapshot().tokens[0].state != TokenState::Ready {
        scene.await_timer();
        scene.answer_all_well();
    }
    let device = error(Signed::No, Retry::Elsewhere, Rung::Token);
    scene.step(Event::LoggedIn { session, generation, result: Err(device) });
    assert_eq!(scene.core.snapshot().tokens[0].rungs.token_rebuilt, 1);
}

//! What becomes of tokens, sessions and their jobs when something fails.

use segl_hsm::{Error, Fault, Kind, Retry, Rung, Signed, Verdict};

use super::{MS, SECOND, error, job, scene::Scene};
use crate::{
    Failure, Job, Rules, TokenSet, TokenState,
    core::{Alarm, CallResult, Event, Generation, SessionId},
};

fn session_error() -> Error {
    error(Signed::No, Retry::Here, Rung::Session)
}

fn ready(sessions: &[u16]) -> Scene {
    Scene::ready(Rules { batch_time_ns: u64::MAX, ..Rules::default() }, sessions)
}

fn state(scene: &Scene, token: usize) -> TokenState {
    scene.core.snapshot().tokens[token].state
}

#[test]
fn one_session_opens_and_logs_in_before_the_others_are_opened_for_those_who_wait() {
    let mut scene = Scene::new(Rules::default(), &[3]);
    assert_eq!(state(&scene, 0), TokenState::Drained);
    scene.step(Event::Join { token: 0 });
    scene.submit((0..3).map(job));
    assert_eq!((scene.opens.len(), state(&scene, 0)), (1, TokenState::Opening));
    let (session, generation) = scene.opens.pop_front().unwrap();
    scene.step(Event::Opened { session, generation, result: Ok(()) });
    assert_eq!((scene.opens.len(), scene.logins.len(), state(&scene, 0)), (0, 1, TokenState::LoggingIn));
    assert!(scene.batches.is_empty(), "nothing is signed before the login");
    let (session, generation) = scene.logins.pop_front().unwrap();
    scene.step(Event::LoggedIn { session, generation, result: Ok(()) });
    assert_eq!((scene.opens.len(), scene.batches.len(), state(&scene, 0)), (0, 0, TokenState::Probation));
    scene.probations.clear();
    scene.vouch(0, true);
    assert_eq!((scene.opens.len(), scene.batches.len(), state(&scene, 0)), (1, 1, TokenState::Ready));
    scene.answer_all_well();
    scene.sign_all();
    assert_eq!(scene.take_done().len(), 3);
    assert_eq!(scene.core.snapshot().tokens[0].sessions_open, 3);
    assert_eq!(scene.logins.len(), 0, "one login for all");
}

#[test]
fn when_the_first_open_fails_those_who_wait_hear_it_at_once_and_those_who_come() {
    let mut scene = Scene::new(Rules::default(), &[2]);
    scene.step(Event::Join { token: 0 });
    scene.submit([job(1)]);
    assert!(scene.done.is_empty(), "the first try is under way: jobs wait");
    scene.fail_open(error(Signed::No, Retry::Elsewhere, Rung::Token));
    scene.submit([job(2)]);
    assert_eq!(scene.take_done(), [(1, Err("key-unavailable")), (2, Err("key-unavailable"))]);
    assert!(matches!(scene.alarms[..], [Alarm::TokenAway { token: 0, .. }]));
    assert_eq!(state(&scene, 0), TokenState::Away);

    scene.await_timer();
    assert_eq!(scene.opens.len(), 1, "one session asks, not all");
    scene.submit([job(3)]);
    assert_eq!(scene.take_done(), [(3, Err("key-unavailable"))], "a second try is no hope yet");
    scene.answer_all_well();
    assert!(matches!(scene.alarms[..], [_, Alarm::TokenBack { token: 0 }]));
    scene.submit([job(4)]);
    scene.sign_all();
    assert_eq!(scene.take_done(), [(4, Ok(()))]);
}

#[test]
fn tries_to_reach_a_token_come_at_growing_intervals() {
    let mut scene = Scene::new(Rules { module_after: u32::MAX, ..Rules::default() }, &[4]);
    scene.step(Event::Join { token: 0 });
    let mut pauses = Vec::new();
    for _ in 0..12 {
        scene.fail_open(error(Signed::No, Retry::Elsewhere, Rung::Token));
        let failed_ns = scene.now_ns;
        while scene.opens.is_empty() {
            scene.await_timer();
        }
        pauses.push(scene.now_ns - failed_ns);
    }
    assert!(pauses[0] <= 100 * MS && pauses[11] >= 5 * SECOND && pauses[11] <= 10 * SECOND, "{pauses:?}");
    assert_eq!(scene.alarms.len(), 1, "a storm is told of once");
}

#[test]
fn a_spoilt_session_is_closed_and_opened_again_in_its_next_generation() {
    let mut scene = ready(&[1]);
    scene.submit((0..4).map(job));
    let failed = scene.fail_batch(session_error());
    assert_eq!(scene.closes, [(SessionId(0), Generation(1))]);
    assert!(scene.opens.is_empty() && scene.batches.is_empty(), "nothing is asked of it before it is closed");
    assert!(matches!(scene.alarms[..], [Alarm::SessionLost { token: 0, .. }]));
    scene.answer_all_well();
    let batch = scene.batches[0].clone();
    assert_eq!(batch.generation, Generation(2));
    assert_eq!(batch.tags(), failed.tags(), "the failed and the unstarted wait again, in their order");
    scene.sign_all();
    assert_eq!(scene.done.iter().map(|done| done.attempts.count()).collect::<Vec<_>>(), [2, 1, 1, 1]);
}

#[test]
fn what_was_not_begun_comes_back_before_what_came_later() {
    let mut scene = Scene::ready(Rules { batch_max: 4, batch_time_ns: u64::MAX, ..Rules::default() }, &[1]);
    scene.submit((0..8).map(job));
    scene.fail_batch(session_error());
    scene.answer_all_well();
    assert_eq!(scene.sign_batch().tags(), [0, 1, 2, 3]);
    assert_eq!(scene.sign_batch().tags(), [4, 5, 6, 7]);
}

#[test]
fn the_first_replacement_comes_at_once_and_the_next_after_growing_pauses() {
    let mut scene = ready(&[1]);
    let mut pauses = Vec::new();
    for tag in 0..8 {
        scene.submit([job(tag)]);
        scene.fail_batch(error(Signed::No, Retry::Never, Rung::Session));
        let (session, generation) = scene.closes.pop_front().unwrap();
        scene.step(Event::Closed { session, generation });
        let lost_ns = scene.now_ns;
        if scene.opens.is_empty() {
            scene.submit([job(100 + tag)]);
            assert_eq!(scene.take_done().last(), Some(&(100 + tag, Err("key-unavailable"))));
            scene.await_timer();
        }
        pauses.push(scene.now_ns - lost_ns);
        scene.answer_all_well();
    }
    assert_eq!(pauses[0], 0);
    assert!(pauses[1] >= 50 * MS && pauses[7] > pauses[2], "{pauses:?}");
    scene.submit([job(50)]);
    scene.sign_all();
    scene.submit([job(51)]);
    scene.fail_batch(error(Signed::No, Retry::Never, Rung::Session));
    let (session, generation) = scene.closes.pop_front().unwrap();
    scene.step(Event::Closed { session, generation });
    assert_eq!(scene.opens.len(), 1, "a signature in between clears the record");
}

#[test]
fn requests_that_the_token_refuses_take_no_session_away_for_long() {
    let mut scene = ready(&[1]);
    let verdict = Verdict { fault: Fault::Client, signed: Signed::No, retry: Retry::Never, rung: Rung::Session };
    for tag in 0..20 {
        scene.submit([job(tag)]);
        scene.fail_batch(Error::new(Kind::InputRefused, verdict, "C_Sign", "data length"));
        scene.answer_all_well();
        assert_eq!(state(&scene, 0), TokenState::Ready);
    }
    assert_eq!(scene.take_done().len(), 20);
}

#[test]
fn an_error_that_spoils_nothing_costs_no_session() {
    let mut scene = ready(&[1]);
    scene.submit((0..3).map(job));
    scene.fail_batch(error(Signed::No, Retry::Never, Rung::None));
    assert!(scene.closes.is_empty());
    assert_eq!(scene.take_done(), [(0, Err("token")), (1, Ok(())), (2, Ok(()))]);
}

#[test]
fn what_may_have_been_signed_is_tried_again_only_if_that_is_harmless() {
    let mut scene = ready(&[2]);
    scene.submit([job(1), Job { repeatable: true, ..job(2) }]);
    scene.fail_batch(error(Signed::Unknown, Retry::Here, Rung::Session));
    scene.fail_batch(error(Signed::Unknown, Retry::Here, Rung::Session));
    scene.answer_all_well();
    scene.sign_all();
    let [first, second] = &scene.done[..] else { panic!("{:?}", scene.done) };
    assert_eq!((first.tag, first.verdict().unwrap().signed), (1, Signed::Unknown));
    assert_eq!((second.tag, second.attempts.count(), second.attempts.unknown()), (2, 2, 1));
    assert!(second.result.is_ok());
}

#[test]
fn the_doubt_of_an_earlier_attempt_stays_with_the_last_answer() {
    let mut scene = ready(&[1]);
    scene.submit([Job { repeatable: true, ..job(1) }]);
    scene.fail_batch(error(Signed::Unknown, Retry::Here, Rung::Session));
    scene.step(Event::Cancel { inbox: 0, tag: 1 });
    let done = scene.done.pop().unwrap();
    assert!(matches!(done.result, Err(Failure::Cancelled)));
    assert_eq!(done.verdict().unwrap().signed, Signed::Unknown);
}

#[test]
fn a_job_is_tried_three_times_and_then_answered() {
    let mut scene = ready(&[8]);
    scene.submit([job(1)]);
    for _ in 0..3 {
        assert!(scene.done.is_empty());
        scene.fail_batch(session_error());
    }
    assert_eq!(scene.done[0].attempts.count(), 3);
    assert_eq!(scene.take_done(), [(1, Err("token"))]);
    assert_eq!(scene.core.snapshot().counters.retries, 2);
}

#[test]
fn nothing_is_tried_again_past_its_deadline_or_after_it_was_taken_back() {
    let mut scene = ready(&[4]);
    let deadline_ns = scene.now_ns + MS;
    scene.submit([Job { deadline_ns, ..job(1) }, job(2)]);
    scene.step(Event::Cancel { inbox: 0, tag: 2 });
    scene.fail_batch(session_error());
    scene.fail_batch(session_error());
    assert_eq!(scene.take_done(), [(1, Err("token")), (2, Err("token"))]);
}

#[test]
fn elsewhere_means_another_token_where_there_is_one() {
    let mut scene = ready(&[2, 2]);
    scene.submit([job(1)]);
    let first = scene.fail_batch(error(Signed::No, Retry::Elsewhere, Rung::Session));
    let second = scene.sign_batch();
    assert_ne!(first.session.0 / 2, second.session.0 / 2);

    let mut alone = ready(&[2]);
    alone.submit([job(1)]);
    alone.fail_batch(error(Signed::No, Retry::Elsewhere, Rung::Session));
    alone.sign_batch();
    assert_eq!(alone.take_done(), [(1, Ok(()))], "with no other token, another session is better than an error");
}

#[test]
fn an_error_of_the_whole_token_costs_all_its_sessions_and_a_new_login_comes_first() {
    let mut scene = ready(&[3]);
    scene.submit([job(1), job(2)]);
    scene.fail_batch(error(Signed::No, Retry::Here, Rung::Token));
    assert_eq!(scene.closes.len(), 2, "the failed one and the idle one; the other still signs");
    scene.sign_batch();
    assert_eq!(scene.closes.len(), 3, "its handles are void too");
    assert_eq!(scene.take_done(), [(2, Ok(()))]);
    while let Some((session, generation)) = scene.closes.pop_front() {
        scene.step(Event::Closed { session, generation });
    }
    assert_eq!((scene.opens.len(), scene.logins.len()), (1, 0));
    let (session, generation) = scene.opens.pop_front().unwrap();
    scene.step(Event::Opened { session, generation, result: Ok(()) });
    assert!(scene.batches.is_empty() && scene.logins.len() == 1);
    scene.answer_all_well();
    scene.sign_all();
    assert_eq!(scene.take_done(), [(1, Ok(()))]);
    assert_eq!(scene.core.snapshot().tokens[0].rungs.token_rebuilt, 1);
}

#[test]
fn a_session_of_the_old_generation_that_does_not_return_holds_up_no_rebuild() {
    let mut scene = ready(&[3]);
    scene.submit([job(1), job(2)]);
    let stuck = scene.batches.pop_back().unwrap();
    scene.fail_batch(error(Signed::No, Retry::Here, Rung::Token));
    scene.answer_all_well();
    scene.sign_all();
    assert_eq!(scene.take_done(), [(1, Ok(()))]);
    scene.return_batch(&stuck, vec![CallResult::Failed(error(Signed::No, Retry::Here, Rung::Token))], MS);
    assert_eq!(scene.closes.len(), 1, "what it says of a generation that is over costs nobody else");
}

#[test]
fn a_token_that_fails_right_after_each_rebuild_is_away_between() {
    let mut scene = ready(&[2]);
    for tag in 0..2 {
        scene.submit([job(tag)]);
        scene.fail_batch(error(Signed::No, Retry::Never, Rung::Token));
        let (session, generation) = (scene.closes[0].0, scene.closes[0].1);
        assert!(session.0 < 2 && generation >= Generation(1));
        while let Some((session, generation)) = scene.closes.pop_front() {
            scene.step(Event::Closed { session, generation });
        }
        if tag == 0 {
            scene.answer_all_well();
        }
    }
    assert_eq!((state(&scene, 0), scene.opens.len()), (TokenState::Away, 0));
    scene.await_timer();
    scene.answer_all_well();
    assert_eq!(state(&scene, 0), TokenState::Ready);
}

#[test]
fn a_lost_login_is_done_again_on_a_free_session_before_anything_is_signed() {
    let mut scene = ready(&[2]);
    scene.submit([job(1)]);
    scene.fail_batch(error(Signed::No, Retry::Here, Rung::Login));
    assert_eq!((scene.logins.len(), scene.batches.len()), (1, 0));
    scene.answer_all_well();
    scene.sign_all();
    assert_eq!(scene.take_done(), [(1, Ok(()))]);
}

#[test]
fn a_refused_login_waits_for_the_operator_and_not_for_the_clock() {
    let mut scene = Scene::new(Rules::default(), &[2]);
    scene.step(Event::Join { token: 0 });
    let (session, generation) = scene.opens.pop_front().unwrap();
    scene.step(Event::Opened { session, generation, result: Ok(()) });
    scene.submit([job(1)]);
    scene.fail_login(Error::of(Kind::PinIncorrect, "C_Login", "refused"));
    assert_eq!(scene.take_done(), [(1, Err("key-unavailable"))]);
    assert!(matches!(scene.alarms[..], [Alarm::NeedsOperator { token: 0, .. }]));
    assert_eq!(scene.closes.len(), 1);
    scene.answer_all_well();
    while scene.core.next_timeout_ns().is_some() {
        scene.await_timer();
    }
    assert_eq!(scene.opens.len(), 0, "nothing is tried by itself");

    scene.step(Event::Refresh { token: 0 });
    scene.answer_all_well();
    assert_eq!(state(&scene, 0), TokenState::Ready);
    assert!(matches!(scene.alarms[..], [_, Alarm::TokenBack { token: 0 }]));
}

#[test]
fn a_refresh_logs_in_on_a_free_session_while_the_others_sign() {
    let mut scene = ready(&[2]);
    scene.submit([job(1), job(2)]);
    scene.step(Event::Refresh { token: 0 });
    assert_eq!(scene.logins.len(), 0, "both are busy");
    scene.sign_batch();
    assert_eq!(scene.logins.len(), 1);
    scene.submit([job(3)]);
    scene.sign_batch();
    scene.sign_batch();
    assert_eq!(scene.take_done().len(), 3, "the other one signs on");
    scene.fail_login(error(Signed::No, Retry::Here, Rung::None));
    assert_eq!(state(&scene, 0), TokenState::Ready);
    assert!(matches!(scene.alarms[..], [Alarm::RefreshFailed { token: 0, .. }]));
}

#[test]
fn a_refresh_that_fails_puts_no_token_away_that_signs() {
    let mut scene = ready(&[2]);
    scene.submit([job(1)]);
    scene.fail_batch(session_error());
    let (session, generation) = scene.closes.pop_front().unwrap();
    scene.sign_batch();
    scene.step(Event::Refresh { token: 0 });
    scene.step(Event::Closed { session, generation });
    scene.fail_login(error(Signed::No, Retry::Here, Rung::None));
    assert_eq!(state(&scene, 0), TokenState::Ready);
    scene.submit([job(2)]);
    scene.sign_all();
    assert_eq!(scene.take_done(), [(1, Ok(())), (2, Ok(()))]);
}

#[test]
fn who_loses_the_last_session_while_none_can_be_opened_is_away() {
    let mut scene = ready(&[2]);
    scene.submit([job(1), job(2)]);
    scene.fail_batch(error(Signed::No, Retry::Never, Rung::Session));
    let (session, generation) = scene.closes.pop_front().unwrap();
    scene.step(Event::Closed { session, generation });
    scene.submit([job(4)]);
    scene.fail_open(session_error());
    assert_eq!(state(&scene, 0), TokenState::Ready, "the other one signs");
    scene.fail_batch(error(Signed::No, Retry::Never, Rung::Session));
    assert_eq!(state(&scene, 0), TokenState::Away);
    scene.submit([job(3)]);
    assert_eq!(scene.take_done().last(), Some(&(3, Err("key-unavailable"))));
}

#[test]
fn a_refresh_during_a_login_is_followed_by_another_login() {
    let mut scene = Scene::new(Rules::default(), &[1]);
    scene.step(Event::Join { token: 0 });
    let (session, generation) = scene.opens.pop_front().unwrap();
    scene.step(Event::Opened { session, generation, result: Ok(()) });
    scene.step(Event::Refresh { token: 0 });
    let (session, generation) = scene.logins.pop_front().unwrap();
    scene.step(Event::LoggedIn { session, generation, result: Ok(()) });
    assert_eq!(scene.logins.len(), 1, "the first may have looked the keys up before they were added");
}

#[test]
fn a_login_that_was_under_way_when_the_operator_spoke_is_not_the_last_word() {
    let mut scene = Scene::new(Rules::default(), &[1]);
    scene.step(Event::Join { token: 0 });
    let (session, generation) = scene.opens.pop_front().unwrap();
    scene.step(Event::Opened { session, generation, result: Ok(()) });
    // The right PIN comes into its place while the wrong one is being tried.
    scene.step(Event::Refresh { token: 0 });
    scene.fail_login(Error::of(Kind::PinIncorrect, "C_Login", "refused"));
    assert!(matches!(scene.alarms[..], [Alarm::TokenAway { token: 0, .. }]), "{:?}", scene.alarms);
    scene.answer_all_well();
    assert_eq!(state(&scene, 0), TokenState::Ready);

    scene.step(Event::Refresh { token: 0 });
    scene.fail_login(Error::of(Kind::PinIncorrect, "C_Login", "refused"));
    scene.submit([job(1)]);
    scene.fail_batch(error(Signed::No, Retry::Never, Rung::Token));
    scene.answer_all_well();
    assert_eq!(state(&scene, 0), TokenState::NeedsOperator, "once more, not again and again");
}

#[test]
fn what_an_earlier_generation_still_has_to_say_is_counted_and_thrown_away() {
    let mut scene = ready(&[1]);
    scene.submit([job(1)]);
    let old = scene.fail_batch(session_error());
    scene.answer_all_well();
    let new = scene.batches[0].clone();
    scene.return_batch(&old, vec![CallResult::Signed(vec![6, 6, 6])], MS);
    let (session, generation) = (old.session, old.generation);
    scene.step(Event::Opened { session, generation, result: Ok(()) });
    scene.step(Event::LoggedIn { session, generation, result: Ok(()) });
    scene.step(Event::Closed { session, generation });
    assert_eq!(scene.core.snapshot().counters.stale, 4);
    assert!(scene.done.is_empty());
    // Also a call of an earlier batch under the present generation.
    let twice = CallResult::Signed(vec![7]);
    scene.sign_batch();
    scene.return_batch(&new, vec![twice], MS);
    assert_eq!(scene.core.snapshot().counters.stale, 5);
    assert_eq!(scene.done.len(), 1);
    assert_eq!(scene.done[0].result.as_ref().unwrap(), &[1]);
}

#[test]
fn a_token_with_fewer_sessions_than_configured_is_used_with_those_it_gives() {
    let mut scene = Scene::new(Rules { batch_max: 1, ..Rules::default() }, &[4]);
    scene.step(Event::Join { token: 0 });
    scene.answer_all_well();
    scene.submit((0..6).map(job));
    let (session, generation) = scene.opens.pop_front().unwrap();
    scene.step(Event::Opened { session, generation, result: Ok(()) });
    assert_eq!(scene.opens.len(), 2, "as many as there are");
    scene.fail_open(Error::of(Kind::SessionCount, "C_OpenSession", "no more"));
    scene.fail_open(Error::of(Kind::SessionCount, "C_OpenSession", "no more"));
    assert!(matches!(scene.alarms[..], [Alarm::FewerSessions { token: 0, sessions: 2 }]));
    assert_eq!((state(&scene, 0), scene.core.snapshot().tokens[0].sessions_cap), (TokenState::Ready, 2));
    let asked_ns = scene.now_ns;
    scene.sign_all();
    while scene.now_ns < asked_ns + 60 * SECOND {
        assert_eq!(scene.core.snapshot().tokens[0].sessions_cap, 2);
        scene.await_timer();
    }
    scene.submit((6..12).map(|tag| Job { deadline_ns: u64::MAX, ..job(tag) }));
    scene.answer_all_well();
    assert_eq!(scene.core.snapshot().tokens[0].sessions_open, 4, "asked again, after a long while");
}

#[test]
fn an_open_that_fails_costs_no_session_that_signs_and_is_tried_again_at_growing_intervals() {
    for rung in [Rung::Session, Rung::Token, Rung::Module, Rung::Operator] {
        let mut scene = ready(&[3]);
        scene.submit((1..8).map(|tag| Job { deadline_ns: u64::MAX, ..job(tag) }));
        scene.fail_batch(error(Signed::No, Retry::Never, Rung::Session));
        let (session, generation) = scene.closes.pop_front().unwrap();
        scene.step(Event::Closed { session, generation });
        let mut pauses = Vec::new();
        for _ in 0..8 {
            scene.fail_open(error(Signed::No, Retry::Elsewhere, rung));
            assert!(scene.closes.is_empty() && scene.opens.is_empty(), "{rung:?}");
            assert_eq!((state(&scene, 0), scene.core.snapshot().tokens[0].sessions_cap), (TokenState::Ready, 2));
            let failed_ns = scene.now_ns;
            while scene.opens.is_empty() {
                scene.await_timer();
            }
            pauses.push(scene.now_ns - failed_ns);
        }
        assert!(pauses[0] <= 100 * MS && pauses[7] > pauses[2] && pauses[7] <= 10 * SECOND, "{pauses:?}");
        let told = scene.alarms.iter().filter(|alarm| matches!(alarm, Alarm::FewerSessions { sessions: 2, .. }));
        assert_eq!(told.count(), 1, "a storm is told of once");
        scene.answer_all_well();
        scene.sign_all();
        assert_eq!(scene.core.snapshot().tokens[0].sessions_open, 3);
    }
}

#[test]
fn a_token_that_leaves_finishes_what_it_has_and_the_other_takes_the_rest() {
    let mut scene = Scene::ready(Rules { batch_max: 1, ..Rules::default() }, &[1, 1]);
    scene.submit((0..5).map(job));
    scene.step(Event::Leave { token: 0 });
    scene.sign_all();
    assert_eq!(scene.take_done().len(), 5);
    assert_eq!((state(&scene, 0), scene.closes.len()), (TokenState::Draining, 1));
    scene.answer_all_well();
    assert_eq!(state(&scene, 0), TokenState::Drained);
    scene.step(Event::Leave { token: 1 });
    scene.answer_all_well();
    assert_eq!(scene.core.sessions_out(), 0);
    scene.submit([job(9)]);
    assert_eq!(scene.take_done(), [(9, Err("key-unavailable"))]);
    scene.step(Event::Join { token: 0 });
    scene.answer_all_well();
    scene.submit([job(10)]);
    scene.sign_all();
    assert_eq!(scene.take_done(), [(10, Ok(()))]);
}

#[test]
fn the_last_leaving_token_answers_those_who_wait_for_it() {
    let mut scene = Scene::ready(Rules { batch_max: 1, ..Rules::default() }, &[1]);
    scene.submit((0..3).map(job));
    scene.step(Event::Leave { token: 0 });
    assert_eq!(scene.take_done(), [(1, Err("key-unavailable")), (2, Err("key-unavailable"))]);
    scene.sign_all();
    assert_eq!(scene.take_done(), [(0, Ok(()))]);
}

#[test]
fn a_call_given_up_completes_as_stuck_and_its_session_is_closed_when_it_returns() {
    let mut scene = ready(&[1]);
    scene.submit([job(1), job(2)]);
    scene.step(Event::Abandon);
    assert_eq!(scene.done.iter().map(|done| done.verdict().unwrap().signed).collect::<Vec<_>>(), [Signed::Unknown; 2]);
    assert_eq!(scene.take_done(), [(1, Err("stuck")), (2, Err("stuck"))]);
    let batch = scene.batches.pop_front().unwrap();
    scene.return_batch(&batch, vec![CallResult::Signed(vec![1]), CallResult::Skipped], MS);
    assert_eq!(scene.closes, [(batch.session, batch.generation)]);
    assert!(scene.done.is_empty(), "the late signature is thrown away");
    assert_eq!(scene.core.snapshot().counters.stale, 2);
}

#[test]
fn a_route_is_usable_while_some_session_of_it_signs() {
    let mut scene = ready(&[1, 1]);
    scene.step(Event::Routes(vec![TokenSet::only(0), [0, 1].into_iter().collect(), TokenSet::EMPTY]));
    assert_eq!(scene.core.snapshot().route_usable, [true, true, false]);
    scene.step(Event::Leave { token: 0 });
    assert_eq!(scene.core.snapshot().route_usable, [false, true, false]);
}

#[test]
fn a_login_refused_at_a_refresh_is_not_tried_again_and_the_token_signs_as_long_as_the_one_before_holds() {
    let mut scene = ready(&[1]);
    scene.step(Event::Refresh { token: 0 });
    scene.fail_login(error(Signed::No, Retry::Elsewhere, Rung::Operator));
    assert!(matches!(scene.alarms[..], [Alarm::RefreshFailed { token: 0, .. }]));
    scene.submit([job(1)]);
    scene.sign_all();
    assert_eq!(scene.take_done(), [(1, Ok(()))]);

    scene.submit([job(2)]);
    scene.fail_batch(error(Signed::No, Retry::Never, Rung::Token));
    scene.answer_all_well();
    assert_eq!((state(&scene, 0), scene.logins.len()), (TokenState::NeedsOperator, 0));
    scene.step(Event::Refresh { token: 0 });
    scene.answer_all_well();
    assert_eq!(state(&scene, 0), TokenState::Ready);
}

#[test]
fn who_is_to_be_tried_again_elsewhere_comes_back_when_elsewhere_goes_away() {
    let mut scene = ready(&[2, 1]);
    scene.step(Event::Leave { token: 1 });
    scene.answer_all_well();
    scene.step(Event::Join { token: 1 });
    // Only one try at the second token is under way.
    scene.submit([job(1)]);
    scene.fail_batch(error(Signed::No, Retry::Elsewhere, Rung::Session));
    assert!(scene.take_done().is_empty(), "it waits for the second token");
    scene.fail_open(error(Signed::No, Retry::Elsewhere, Rung::Session));
    scene.answer_all_well();
    scene.sign_all();
    assert_eq!(scene.take_done(), [(1, Ok(()))]);
}

//! How a token comes back: on probation, by its self-test, and by nobody's job.

use segl_hsm::{Error, Kind, Retry, Rung, Signed};

use super::{SECOND, error, job, scene::Scene};
use crate::{
    Discard, Fate, Job, Rules, TokenState,
    core::{Alarm, CallResult, Event, TokenSpec},
};

fn probe(tag: u64) -> Job<u64> {
    Job { probe: true, only_token: Some(0), deadline_ns: u64::MAX, ..job(tag) }
}

fn state(scene: &Scene, token: usize) -> TokenState {
    scene.core.snapshot().tokens[token].state
}

/// Token 0 is open and logged in for the first time.
fn on_probation() -> Scene {
    let mut scene = Scene::new(Rules::default(), &[1]);
    scene.step(Event::Join { token: 0 });
    let (session, generation) = scene.opens.pop_front().unwrap();
    scene.step(Event::Opened { session, generation, result: Ok(()) });
    let (session, generation) = scene.logins.pop_front().unwrap();
    scene.step(Event::LoggedIn { session, generation, result: Ok(()) });
    assert_eq!((state(&scene, 0), scene.probations.drain(..).collect::<Vec<_>>()), (TokenState::Probation, vec![0]));
    scene
}

#[test]
fn on_probation_a_token_signs_probes_and_nothing_else() {
    let mut scene = on_probation();
    scene.submit([job(1), probe(2), job(3)]);
    assert_eq!(scene.sign_batch().tags(), [2]);
    assert!(scene.batches.is_empty(), "the others wait: it is the first time it is here");
    assert!(!scene.core.route_usable(crate::RouteId(0)));
    scene.vouch(0, true);
    scene.sign_all();
    assert_eq!(scene.take_done().len(), 3);
    assert_eq!(state(&scene, 0), TokenState::Ready);
}

#[test]
fn whom_nobody_vouches_for_is_away_for_a_pause_that_grows() {
    let mut scene = on_probation();
    scene.submit([job(1)]);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        scene.vouch(0, false);
        assert_eq!(state(&scene, 0), TokenState::Away);
        let refused_ns = scene.now_ns;
        let (session, generation) = scene.closes.pop_front().unwrap();
        scene.step(Event::Closed { session, generation });
        while scene.opens.is_empty() {
            scene.await_timer();
        }
        pauses.push(scene.now_ns - refused_ns);
        let (session, generation) = scene.opens.pop_front().unwrap();
        scene.step(Event::Opened { session, generation, result: Ok(()) });
        let (session, generation) = scene.logins.pop_front().unwrap();
        scene.step(Event::LoggedIn { session, generation, result: Ok(()) });
        assert_eq!(scene.probations.pop_front(), Some(0));
    }
    assert!(pauses[7] > pauses[2] && pauses[7] <= 10 * SECOND, "{pauses:?}");
    assert_eq!(scene.take_done(), [(1, Err("key-unavailable"))], "who waited has heard it");
    let away = scene.alarms.iter().filter(|alarm| matches!(alarm, Alarm::TokenAway { .. }));
    assert_eq!(away.count(), 1, "told once");
    scene.vouch(0, true);
    assert!(matches!(scene.alarms.last(), Some(Alarm::TokenBack { token: 0 })));
    assert_eq!(scene.core.snapshot().tokens[0].rungs.probations, 9);
}

#[test]
fn who_was_away_gets_probes_while_everybody_else_is_refused_at_once() {
    let mut scene = Scene::new(Rules::default(), &[1]);
    scene.step(Event::Join { token: 0 });
    scene.fail_open(error(Signed::No, Retry::Elsewhere, Rung::Session));
    scene.submit([probe(1)]);
    assert_eq!(scene.take_done(), [(1, Err("key-unavailable"))], "not before it is logged in");
    scene.await_timer();
    let (session, generation) = scene.opens.pop_front().unwrap();
    scene.step(Event::Opened { session, generation, result: Ok(()) });
    let (session, generation) = scene.logins.pop_front().unwrap();
    scene.step(Event::LoggedIn { session, generation, result: Ok(()) });
    scene.submit([job(2), probe(3)]);
    scene.sign_all();
    assert_eq!(scene.take_done(), [(2, Err("key-unavailable")), (3, Ok(()))]);
}

#[test]
fn a_token_on_probation_takes_nothing_from_one_that_signs() {
    let mut scene = Scene::new(Rules::default(), &[1, 1]);
    for token in [0, 1] {
        scene.step(Event::Join { token });
        let (session, generation) = scene.opens.pop_front().unwrap();
        scene.step(Event::Opened { session, generation, result: Ok(()) });
        let (session, generation) = scene.logins.pop_front().unwrap();
        scene.step(Event::LoggedIn { session, generation, result: Ok(()) });
    }
    scene.vouch(1, true);
    scene.submit((1..20).map(job));
    while !scene.batches.is_empty() {
        assert_eq!(scene.sign_batch().session.0, 1);
    }
    assert_eq!(scene.take_done().len(), 19);
}

#[test]
fn a_word_for_a_token_that_is_not_on_probation_changes_nothing() {
    let mut scene = Scene::ready(Rules::default(), &[1]);
    scene.vouch(0, false);
    assert_eq!((state(&scene, 0), scene.closes.len()), (TokenState::Ready, 0));
    scene.step(Event::Leave { token: 0 });
    scene.vouch(0, true);
    assert_eq!(state(&scene, 0), TokenState::Draining);
}

#[test]
fn a_word_on_an_earlier_probation_counts_for_no_later_one() {
    let mut scene = on_probation();
    scene.vouch(0, false);
    let (session, generation) = scene.closes.pop_front().unwrap();
    scene.step(Event::Closed { session, generation });
    while scene.opens.is_empty() {
        scene.await_timer();
    }
    let (session, generation) = scene.opens.pop_front().unwrap();
    scene.step(Event::Opened { session, generation, result: Ok(()) });
    let (session, generation) = scene.logins.pop_front().unwrap();
    scene.step(Event::LoggedIn { session, generation, result: Ok(()) });
    for ok in [true, false] {
        scene.step(Event::Vouch { token: 0, round: 1, ok });
        assert_eq!((state(&scene, 0), scene.closes.len()), (TokenState::Probation, 0));
    }
    scene.step(Event::Vouch { token: 0, round: 2, ok: true });
    assert_eq!(state(&scene, 0), TokenState::Ready);
}

#[test]
fn a_wrong_signature_takes_the_token_out_until_the_operator_brings_it_back_on_probation() {
    let mut scene = Scene::ready(Rules::default(), &[2, 1]);
    scene.submit([Job { deadline_ns: u64::MAX, ..job(1) }]);
    let wrong = scene.batches[0].session;
    let token = usize::from(wrong.0 / 2);
    scene.fail_batch(Error::of(Kind::WrongSignature, "verify", "not by this key"));
    assert_eq!(state(&scene, token), TokenState::NeedsOperator);
    assert!(scene.alarms.iter().any(|alarm| matches!(alarm, Alarm::WrongSignature { .. })));
    let second = scene.sign_batch();
    assert_ne!(usize::from(second.session.0 / 2), token);
    let done = scene.done.pop().unwrap();
    let fates: Vec<_> = done.attempts.iter().map(|attempt| attempt.fate).collect();
    assert_eq!(fates, [Fate::Discarded(Discard::WrongSignature), Fate::Released]);
    assert_eq!(done.verdict(), None);
    scene.answer_all_well();
    while scene.core.next_timeout_ns().is_some_and(|due_ns| due_ns < u64::MAX) {
        scene.await_timer();
    }
    assert_eq!((state(&scene, token), scene.opens.len()), (TokenState::NeedsOperator, 0), "not by itself");
    scene.step(Event::Refresh { token: token as u16 });
    let (session, generation) = scene.opens.pop_front().unwrap();
    scene.step(Event::Opened { session, generation, result: Ok(()) });
    let (session, generation) = scene.logins.pop_front().unwrap();
    scene.step(Event::LoggedIn { session, generation, result: Ok(()) });
    assert_eq!(state(&scene, token), TokenState::Probation);
}

#[test]
fn a_void_session_has_the_idle_ones_asked_and_the_last_try_goes_elsewhere() {
    let tokens = vec![
        TokenSpec { sessions: 4, ..TokenSpec::default() },
        TokenSpec { sessions: 1, preferred: false, ..TokenSpec::default() },
    ];
    let mut scene = Scene::of(Rules::default(), tokens);
    scene.join_all();
    scene.now_ns += SECOND;
    scene.submit([job(1)]);
    // Found out in no time, so that nothing else has become better meanwhile.
    let lose = |scene: &mut Scene| {
        let batch = scene.batches.pop_front().unwrap();
        let void = Error::of(Kind::Session, "C_SignInit", "a fail-over has taken it");
        scene.return_batch(&batch, vec![CallResult::Failed(void)], 0);
    };
    assert!(scene.batches[0].session.0 < 4, "the preferred token has the job");
    lose(&mut scene);
    assert_eq!(scene.reminders.len(), 3, "each session that has been idle since before is asked first");
    // They are well, but the one that gets the job is lost again.
    scene.answer_all_well();
    assert!(scene.batches[0].session.0 < 4, "the preferred token has the job");
    lose(&mut scene);
    assert_eq!(scene.batches[0].session.0, 4, "a third session of the same token might be as void");
    scene.sign_all();
    assert_eq!(scene.take_done(), [(1, Ok(()))]);
}

//! When a module is finalised and initialised anew, and when not.

use segl_hsm::{Error, Kind, ModuleId};

use super::{SECOND, job, scene::Scene};
use crate::{
    Job, Rules, TokenSet, TokenState,
    core::{Alarm, Event, Obstacle, TokenSpec},
};

fn absent() -> Error {
    Error::of(Kind::TokenAbsent, "C_GetSlotList", "no slot holds it")
}

/// Tokens of one session each, by their modules.
fn scene(modules: &[u32]) -> Scene {
    let token = |&module| TokenSpec { sessions: 1, module: ModuleId(module), ..TokenSpec::default() };
    let rules = Rules { module_after: 3, ..Rules::default() };
    Scene::of(rules, modules.iter().map(token).collect())
}

/// The token fails to open as often as it is asked, until it is asked no more or the module is; others are well.
fn fail_opens(scene: &mut Scene, most: u32) -> u32 {
    let mut failed = 0;
    while failed < most && scene.reinitialises.is_empty() {
        while let Some((session, generation)) = scene.reminders.pop_front() {
            scene.step(Event::KeptAlive { session, generation, result: Ok(()) });
        }
        while scene.opens.is_empty() && scene.reinitialises.is_empty() {
            scene.await_timer();
        }
        if scene.reinitialises.is_empty() {
            scene.fail_open(absent());
            failed += 1;
        }
    }
    failed
}

#[test]
fn a_token_that_stays_out_of_reach_gets_its_module_begun_anew_and_comes_back() {
    let mut scene = scene(&[7]);
    scene.step(Event::Join { token: 0 });
    assert_eq!(fail_opens(&mut scene, 9), 3);
    assert!(scene.opens.is_empty(), "nothing is opened meanwhile");
    let (module, session, generation) = scene.reinitialises.pop_front().unwrap();
    assert_eq!(module, ModuleId(7));
    scene.step(Event::Reinitialised { module, session, generation, result: Ok(()) });
    assert!(matches!(scene.alarms.last(), Some(Alarm::ModuleReinitialised { module: ModuleId(7) })));
    assert!(scene.opens[0].1 > generation, "at once, in the next generation");
    scene.answer_all_well();
    let token = &scene.core.snapshot().tokens[0];
    assert_eq!((token.state, token.rungs.module_reinitialised), (TokenState::Ready, 1));
}

#[test]
fn a_module_whose_beginning_anew_does_not_help_is_left_alone_for_growing_intervals_while_its_token_is_tried() {
    let mut scene = scene(&[7]);
    scene.step(Event::Join { token: 0 });
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let before_ns = scene.now_ns;
        let tried = fail_opens(&mut scene, u32::MAX);
        pauses.push(scene.now_ns - before_ns);
        assert!(tried >= 3, "a token that is back does not wait for its module: {tried}");
        let (module, session, generation) = scene.reinitialises.pop_front().unwrap();
        let result = if pauses.len() % 2 == 0 { Ok(()) } else { Err(absent()) };
        scene.step(Event::Reinitialised { module, session, generation, result });
    }
    assert!(pauses[0] < SECOND, "at once the first time: {pauses:?}");
    assert!(pauses[1..].iter().all(|&pause_ns| pause_ns >= 5 * SECOND / 2), "{pauses:?}");
    assert!(pauses[7] >= 30 * SECOND && pauses[7] <= 80 * SECOND, "{pauses:?}");
    assert!(matches!(scene.alarms.last(), Some(Alarm::ModuleReinitialised { .. })));
}

#[test]
fn no_module_is_begun_anew_while_another_token_of_it_signs() {
    let mut scene = scene(&[7, 7]);
    scene.step(Event::Join { token: 1 });
    scene.answer_all_well();
    scene.step(Event::Join { token: 0 });
    assert_eq!(fail_opens(&mut scene, 12), 12);
    assert!(scene.reinitialises.is_empty());
    scene.answer_all_well();
    scene.submit([Job { deadline_ns: u64::MAX, ..job(1) }]);
    scene.sign_all();
    assert_eq!(scene.take_done(), [(1, Ok(()))]);
    // With the other one gone nobody is hurt.
    scene.step(Event::Leave { token: 1 });
    scene.answer_closes();
    fail_opens(&mut scene, 9);
    assert_eq!(scene.reinitialises.len(), 1);
}

#[test]
fn an_operator_has_a_module_begun_anew_and_what_its_token_has_is_finished_first() {
    let mut scene = Scene::ready(Rules::default(), &[1]);
    scene.submit([job(1), job(2)]);
    scene.step(Event::Reinitialise { token: 0 });
    assert!(scene.reinitialises.is_empty(), "a call is inside");
    assert_eq!(scene.core.obstacle(0), Some(Obstacle::UnderWay));
    scene.sign_batch();
    scene.answer_closes();
    let (module, session, generation) = scene.reinitialises.pop_front().unwrap();
    scene.step(Event::Reinitialised { module, session, generation, result: Ok(()) });
    scene.submit([job(3)]);
    scene.answer_all_well();
    scene.sign_all();
    assert_eq!(scene.take_done(), [(1, Ok(())), (2, Ok(())), (3, Ok(()))]);
    assert_eq!(scene.core.snapshot().tokens[0].rungs.module_reinitialised, 1);
}

#[test]
fn an_operator_s_word_begins_no_module_anew_that_others_sign_with_or_whose_token_is_out() {
    let mut scene = scene(&[7, 7]);
    scene.step(Event::Join { token: 0 });
    scene.step(Event::Join { token: 1 });
    scene.answer_all_well();
    assert_eq!(scene.core.obstacle(0), Some(Obstacle::OthersSign(TokenSet::only(1))));
    scene.step(Event::Reinitialise { token: 0 });
    scene.step(Event::Leave { token: 1 });
    scene.answer_closes();
    assert_eq!((scene.core.obstacle(0), scene.core.obstacle(1)), (None, Some(Obstacle::NotInUse)));
    scene.step(Event::Reinitialise { token: 1 });
    assert!(scene.reinitialises.is_empty());
}

#[test]
fn a_token_of_another_module_holds_nobody_back_and_is_not_touched() {
    let mut scene = scene(&[7, 8]);
    scene.step(Event::Join { token: 1 });
    scene.answer_all_well();
    scene.step(Event::Join { token: 0 });
    fail_opens(&mut scene, 9);
    assert_eq!(scene.reinitialises.len(), 1);
    assert!(scene.closes.is_empty());
    assert_eq!(scene.core.snapshot().tokens[1].state, TokenState::Ready);
}

#[test]
fn a_module_is_begun_anew_only_when_the_last_session_of_all_its_tokens_is_closed() {
    let mut scene = scene(&[7, 7]);
    scene.step(Event::Join { token: 1 });
    let other = scene.opens.pop_front().unwrap();
    scene.step(Event::Join { token: 0 });
    // The other one is open and not logged in: it has a session, but it is not healthy.
    scene.step(Event::Opened { session: other.0, generation: other.1, result: Ok(()) });
    scene.logins.clear();
    for _ in 0..3 {
        while scene.opens.is_empty() {
            scene.await_timer();
        }
        scene.fail_open(absent());
    }
    assert!(scene.reinitialises.is_empty(), "a login is under way inside it");
    scene.step(Event::LoggedIn { session: other.0, generation: other.1, result: Ok(()) });
    assert_eq!(scene.closes, [other], "it would be lost anyhow");
    assert!(scene.reinitialises.is_empty() && scene.opens.is_empty());
    scene.closes.clear();
    scene.step(Event::Closed { session: other.0, generation: other.1 });
    assert_eq!(scene.reinitialises.len(), 1);
    let (module, session, generation) = scene.reinitialises.pop_front().unwrap();
    scene.step(Event::Reinitialised { module, session, generation, result: Ok(()) });
    assert_eq!(scene.opens.len(), 2, "both are there again");
}

#[test]
fn a_call_stuck_inside_the_module_forbids_it_until_that_returns() {
    let mut scene = scene(&[7, 7]);
    scene.step(Event::Join { token: 1 });
    let (session, generation) = scene.opens.pop_front().unwrap();
    while scene.replaced.is_empty() {
        scene.await_timer();
    }
    scene.step(Event::Leave { token: 1 });
    scene.opens.clear();
    scene.step(Event::Join { token: 0 });
    assert_eq!(fail_opens(&mut scene, 8), 8);
    assert!(scene.reinitialises.is_empty());
    let wedged = scene.alarms.iter().filter(|alarm| matches!(alarm, Alarm::ModuleWedged { module: ModuleId(7) }));
    assert_eq!(wedged.count(), 1, "said once");
    assert_eq!(scene.core.snapshot().tokens[0].state, TokenState::Wedged);
    scene.step(Event::Gone { session, generation });
    assert_eq!(scene.core.snapshot().tokens[0].state, TokenState::Away);
    fail_opens(&mut scene, 8);
    assert_eq!(scene.reinitialises.len(), 1, "now it is safe");
}

#[test]
fn a_module_that_hangs_when_it_is_begun_anew_is_left_alone_until_it_returns() {
    let mut scene = scene(&[7]);
    scene.step(Event::Join { token: 0 });
    fail_opens(&mut scene, 9);
    let (module, session, generation) = scene.reinitialises.pop_front().unwrap();
    while scene.replaced.is_empty() {
        scene.await_timer();
    }
    assert!(scene.alarms.iter().any(|alarm| matches!(alarm, Alarm::Stuck { call: "reinitialise", .. })));
    while scene.core.next_timeout_ns().is_some() {
        scene.await_timer();
    }
    assert!(scene.opens.is_empty(), "whoever knocked would hang too");
    assert_eq!(scene.core.snapshot().tokens[0].state, TokenState::Wedged);
    scene.step(Event::Reinitialised { module, session, generation, result: Ok(()) });
    scene.step(Event::Gone { session, generation });
    scene.answer_all_well();
    assert_eq!(scene.core.snapshot().tokens[0].state, TokenState::Ready);
}

/// Token 0 fails as often as makes it climb, with its opens answered at once.
fn climb(scene: &mut Scene) {
    for _ in 0..3 {
        while !scene.opens.iter().any(|(session, _)| session.0 == 0) {
            scene.await_timer();
        }
        let (session, generation) =
            scene.opens.remove(scene.opens.iter().position(|open| open.0.0 == 0).unwrap()).unwrap();
        scene.step(Event::Opened { session, generation, result: Err(absent()) });
    }
}

#[test]
fn a_token_that_nobody_uses_is_asked_before_it_forbids_that_its_module_is_begun_anew() {
    let mut scene = scene(&[7, 7]);
    scene.step(Event::Join { token: 1 });
    scene.answer_all_well();
    scene.step(Event::Join { token: 0 });
    climb(&mut scene);
    let (session, generation) = scene.reminders.pop_front().expect("it is asked");
    assert_eq!((session.0, scene.reinitialises.len()), (1, 0));
    // It is well, and asked again when the other fails again.
    scene.step(Event::KeptAlive { session, generation, result: Ok(()) });
    fail_opens(&mut scene, 1);
    let (session, generation) = scene.reminders.pop_front().expect("it is asked again");
    // Nobody has used it, and so nobody has noticed.
    scene.step(Event::KeptAlive { session, generation, result: Err(absent()) });
    scene.answer_closes();
    fail_opens(&mut scene, 9);
    assert_eq!(scene.reinitialises.len(), 1);
}

#[test]
fn a_token_in_a_call_is_not_asked_since_it_will_speak_for_itself() {
    let mut scene = scene(&[7, 7]);
    scene.step(Event::Join { token: 1 });
    scene.answer_all_well();
    scene.submit([Job { deadline_ns: u64::MAX, ..job(1) }]);
    scene.step(Event::Join { token: 0 });
    climb(&mut scene);
    assert!(scene.reminders.is_empty() && scene.reinitialises.is_empty());
}

#[test]
fn each_token_of_a_module_that_was_begun_anew_is_on_probation_also_one_that_was_not_away() {
    let mut scene = scene(&[7, 7]);
    scene.step(Event::Join { token: 1 });
    scene.answer_all_well();
    // It has lost its only session, which is being opened again: it is not away, and it does not sign.
    scene.submit([job(1)]);
    scene.fail_batch(Error::of(Kind::Session, "C_Sign", "the session is gone"));
    scene.answer_closes();
    let other = scene.opens.pop_front().unwrap();
    scene.step(Event::Join { token: 0 });
    climb(&mut scene);
    scene.step(Event::Opened { session: other.0, generation: other.1, result: Ok(()) });
    scene.answer_closes();
    let (module, session, generation) = scene.reinitialises.pop_front().unwrap();
    assert!(!scene.alarms.iter().any(|alarm| matches!(alarm, Alarm::TokenAway { token: 1, .. })));
    scene.step(Event::Reinitialised { module, session, generation, result: Ok(()) });
    while scene.probations.len() < 2 {
        if let Some((session, generation)) = scene.opens.pop_front() {
            scene.step(Event::Opened { session, generation, result: Ok(()) });
        }
        let (session, generation) = scene.logins.pop_front().expect("its keys have other handles now");
        scene.step(Event::LoggedIn { session, generation, result: Ok(()) });
    }
    let states: Vec<_> = scene.core.snapshot().tokens.iter().map(|token| token.state).collect();
    assert_eq!(states, [TokenState::Probation; 2]);
}

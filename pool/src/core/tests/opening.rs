//! How many sessions are open: as many as work waits for, and alive.

use segl_hsm::{Retry, Rung, Signed};

use super::{SECOND, error, job, scene::Scene};
use crate::{
    Job, Rules, TokenState,
    core::{Event, TokenSpec},
};

const KEEP_ALIVE_NS: u64 = 20 * SECOND;

fn open(scene: &Scene) -> u16 {
    scene.core.snapshot().tokens[0].sessions_open
}

fn patient(tag: u64) -> Job<u64> {
    Job { deadline_ns: u64::MAX, ..job(tag) }
}

#[test]
fn further_sessions_are_opened_only_while_work_waits_that_no_idle_one_takes() {
    let mut scene = Scene::new(Rules { batch_max: 1, ..Rules::default() }, &[8]);
    scene.step(Event::Join { token: 0 });
    scene.answer_all_well();
    assert_eq!(open(&scene), 1);
    for tag in 0..10 {
        scene.submit([patient(tag)]);
        scene.sign_all();
    }
    assert_eq!((open(&scene), scene.opens.len()), (1, 0), "one is enough");
    scene.submit((10..13).map(patient));
    scene.answer_all_well();
    assert_eq!(open(&scene), 3, "one for each that waits");
    scene.sign_all();
    assert_eq!(scene.take_done().len(), 13);
}

#[test]
fn under_a_flood_as_many_are_opened_at_once_as_there_are_up_to_the_cap() {
    let mut scene = Scene::new(Rules { batch_max: 1, ..Rules::default() }, &[7]);
    scene.step(Event::Join { token: 0 });
    scene.answer_all_well();
    scene.submit((0..50).map(patient));
    let mut rounds = Vec::new();
    while !scene.opens.is_empty() {
        rounds.push(scene.opens.len());
        let round: Vec<_> = scene.opens.drain(..).collect();
        let opened =
            round.into_iter().map(|(session, generation)| Event::Opened { session, generation, result: Ok(()) });
        scene.step_all(opened);
    }
    assert_eq!(rounds, [1, 2, 3]);
    assert_eq!((open(&scene), scene.batches.len()), (7, 7));
}

#[test]
fn a_lost_session_is_not_replaced_before_work_waits_for_it() {
    let mut scene = Scene::ready(Rules { batch_max: 1, ..Rules::default() }, &[2]);
    scene.submit([patient(1)]);
    scene.fail_batch(error(Signed::No, Retry::Never, Rung::Session));
    scene.answer_all_well();
    assert_eq!(open(&scene), 1);
    scene.submit([patient(2), patient(3)]);
    scene.answer_all_well();
    assert_eq!(open(&scene), 2);
}

fn kept(sessions: u16) -> Scene {
    let token = TokenSpec { sessions, keep_alive_ns: KEEP_ALIVE_NS, ..TokenSpec::default() };
    let mut scene = Scene::of(Rules { batch_max: 1, ..Rules::default() }, vec![token]);
    scene.join_all();
    scene
}

fn await_reminder(scene: &mut Scene) {
    while scene.reminders.is_empty() {
        scene.await_timer();
    }
}

#[test]
fn a_session_that_stands_idle_is_kept_alive_and_one_that_signs_is_not_disturbed() {
    let mut scene = kept(1);
    let idle_ns = scene.now_ns;
    await_reminder(&mut scene);
    assert_eq!(scene.now_ns, idle_ns + KEEP_ALIVE_NS);
    scene.submit([patient(1)]);
    assert!(scene.batches.is_empty(), "one call at a time");
    scene.answer_all_well();
    assert_eq!(scene.sign_batch().tags(), [1], "and then it signs");
    // Now it is busy all the time.
    for tag in 2..12 {
        scene.submit([patient(tag)]);
        scene.now_ns += KEEP_ALIVE_NS / 2;
        scene.step(Event::Timer);
        scene.sign_batch();
    }
    assert!(scene.reminders.is_empty());
}

#[test]
fn while_some_are_kept_alive_the_others_serve_and_all_have_their_turn() {
    let mut scene = kept(5);
    await_reminder(&mut scene);
    assert_eq!(scene.reminders.len(), 3);
    scene.submit([patient(1)]);
    assert_eq!(scene.batches.len(), 1, "nobody waits for it");
    scene.sign_all();
    let first: Vec<_> = scene.reminders.iter().map(|reminder| reminder.0).collect();
    while let Some((session, generation)) = scene.reminders.pop_front() {
        scene.step(Event::KeptAlive { session, generation, result: Ok(()) });
        if scene.reminders.iter().any(|reminder| !first.contains(&reminder.0)) {
            return;
        }
    }
    panic!("the others were never reminded");
}

#[test]
fn a_session_that_is_found_dead_is_replaced_before_a_job_finds_it() {
    let mut scene = kept(1);
    await_reminder(&mut scene);
    let (session, generation) = scene.reminders.pop_front().unwrap();
    let dead = error(Signed::No, Retry::Here, Rung::Session);
    scene.step(Event::KeptAlive { session, generation, result: Err(dead) });
    assert_eq!(scene.closes, [(session, generation)]);
    scene.answer_all_well();
    assert_eq!(scene.core.snapshot().tokens[0].state, TokenState::Ready);
    scene.submit([patient(1)]);
    assert_eq!(scene.sign_batch().generation.0, generation.0 + 1);
    assert_eq!(scene.done[0].attempts.count(), 1);
}

#[test]
fn whoever_asks_for_no_keep_alive_gets_none() {
    let mut scene = Scene::ready(Rules::default(), &[2]);
    while scene.core.next_timeout_ns().is_some() {
        scene.await_timer();
    }
    assert!(scene.reminders.is_empty());
}

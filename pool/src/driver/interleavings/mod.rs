//! The driver under a scheduler that picks, at every lock, wake-up and atomic, who runs next: the same sources once
//! more, with Shuttle's threads and locks in the place of the standard library's.
//!
//! What is looked for: a wake-up that is lost (then nothing moves any more, and Shuttle says so), a call that is begun
//! and taken back, a job answered twice or never, a stop that does not end. Shuttle's atomics are sequentially
//! consistent, so a memory ordering that is too weak is not found here. A failure prints a schedule; `shuttle::replay`
//! in the place of [`explore`] plays it again.

// The driver's sources are compiled a second time, which is what this is about, and not all of them is used here.
#![allow(clippy::duplicate_mod, dead_code, unreachable_pub)]

#[path = "../crew.rs"]
mod crew;
#[path = "../pool.rs"]
mod pool;
#[path = "../seat.rs"]
mod seat;
#[path = "../session.rs"]
mod session;
#[path = "../shared.rs"]
mod shared;
mod stage;
mod sync;
#[path = "../timer.rs"]
mod timer;

use std::time::Duration;

use shuttle::{
    Config, MaxSteps, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};

use self::{
    stage::{HANGS, QUICK, Stage, pass},
    sync::thread,
};
use crate::{Failure, Job};

/// Longer than a schedule takes, unless somebody lets time pass.
const LONG: Duration = Duration::from_secs(3600);

/// Plays schedules, the same ones each time: half of them arbitrary ones, half with few switches at the worst moments.
fn explore(scenario: fn()) {
    const SCHEDULES: usize = 4_000;
    play(RandomScheduler::new_from_seed(1, SCHEDULES), scenario);
    play(PctScheduler::new_from_seed(1, 3, SCHEDULES), scenario);
}

fn play(scheduler: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    // Beyond it somebody runs in circles.
    config.max_steps = MaxSteps::FailAfter(200_000);
    config.max_time = Some(Duration::from_secs(5));
    let played = Runner::new(scheduler, config).run(scenario);
    assert!(played > 0);
}

#[test]
fn no_wake_up_is_lost_between_those_who_ask_and_those_who_sign() {
    explore(|| ask_from_two_sides(0));
}

#[test]
fn no_wake_up_is_lost_by_threads_that_look_for_work_before_they_park() {
    explore(|| ask_from_two_sides(5_000));
}

fn ask_from_two_sides(spin_ns: u64) {
    let stage = Stage::new(2, spin_ns, LONG);
    for first in [0, 2] {
        stage.spawn(move |pool, _| {
            pool.submit(&mut vec![Stage::job(QUICK, first)]);
            pool.submit(&mut vec![Stage::job(QUICK, first + 1)]);
        });
    }
    stage.book.wait(|seen| seen.done.len() == 4);
    assert_eq!(stage.stop(LONG), 0);
    stage.check_answers(4);
    stage.book.ask(|seen| assert!(seen.done.iter().all(|done| done.result.is_ok())));
}

#[test]
fn a_call_is_begun_or_taken_back_and_never_both() {
    explore(|| {
        let stage = Stage::new(1, 0, LONG);
        let soon_ns = stage.pool.clock().in_ns(Duration::from_millis(100));
        let job = |tag| Job { deadline_ns: if tag % 2 == 1 { soon_ns } else { u64::MAX }, ..Stage::job(QUICK, tag) };
        stage.pool.submit(&mut (0..6).map(job).collect());
        stage.spawn(|pool, _| pass(pool, Duration::from_millis(150)));
        stage.book.wait(|seen| seen.done.len() == 6);
        assert_eq!(stage.stop(LONG), 0);
        stage.check_answers(6);
        stage.book.ask(|seen| {
            for done in &seen.done {
                let expired = matches!(done.result, Err(Failure::Expired)) && done.tag % 2 == 1;
                assert!(done.result.is_ok() || expired, "{done:?}");
            }
        });
    });
}

#[test]
fn a_thread_that_comes_back_while_it_is_replaced_is_heard_once_and_closes_what_it_holds() {
    explore(|| {
        let stage = Stage::new(1, 0, Duration::from_secs(1));
        stage.pool.submit(&mut vec![Stage::job(HANGS, 0), Stage::job(QUICK, 1), Stage::job(QUICK, 2)]);
        stage.spawn(|_, book| {
            book.wait(|seen| seen.hangs);
            book.note(|seen| seen.let_go = true);
        });
        stage.spawn(|pool, book| {
            book.wait(|seen| seen.hangs);
            pass(pool, Duration::from_secs(2));
            // Pauses after what may have looked like failures.
            while !book.ask(|seen| seen.over || seen.done.len() == 3) {
                pass(pool, Duration::from_millis(100));
                thread::yield_now();
            }
        });
        stage.book.wait(|seen| seen.done.len() == 3);
        stage.stop(LONG);
        stage.check_answers(3);
    });
}

#[test]
fn a_thread_that_is_given_up_at_any_moment_leaves_nothing_behind_that_is_lost_or_made_twice() {
    explore(|| {
        let stage = Stage::new(1, 0, Duration::from_secs(1));
        stage.spawn(|pool, book| {
            while !book.ask(|seen| seen.over || seen.done.len() == 2) {
                pass(pool, Duration::from_millis(600));
                thread::yield_now();
            }
        });
        let job = |tag| Job { repeatable: true, ..Stage::job(QUICK, tag) };
        stage.pool.submit(&mut vec![job(0)]);
        stage.pool.submit(&mut vec![job(1)]);
        stage.book.wait(|seen| seen.done.len() == 2);
        stage.stop(LONG);
        stage.check_answers(2);
    });
}

#[test]
fn a_stop_ends_by_itself_whoever_submits_and_cancels_meanwhile() {
    explore(|| {
        let stage = Stage::new(2, 0, LONG);
        let submit = stage.spawn(|pool, _| {
            pool.submit(&mut vec![Stage::job(QUICK, 0), Stage::job(QUICK, 1)]);
            pool.submit(&mut vec![Stage::job(QUICK, 2)]);
        });
        let cancel = stage.spawn(|pool, _| (0..3).for_each(|tag| pool.cancel(0, tag)));
        assert_eq!(stage.stop(LONG), 0);
        submit.join().unwrap();
        cancel.join().unwrap();
        stage.check_answers(3);
    });
}

#[test]
fn a_stop_does_not_wait_beyond_its_limit_for_a_call_that_hangs() {
    explore(|| {
        let stage = Stage::new(2, 0, LONG);
        let submit = stage.spawn(|pool, _| {
            pool.submit(&mut vec![Stage::job(QUICK, 0), Stage::job(HANGS, 1), Stage::job(QUICK, 2)]);
            pool.submit(&mut vec![Stage::job(QUICK, 3)]);
        });
        stage.spawn(|pool, book| {
            while !book.ask(|seen| seen.over) {
                pass(pool, Duration::from_millis(20));
                thread::yield_now();
            }
        });
        stage.stop(Duration::from_millis(200));
        submit.join().unwrap();
        stage.check_answers(4);
    });
}

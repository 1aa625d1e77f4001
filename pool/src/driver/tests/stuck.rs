//! Threads that do not return from a token's code, and what goes on without them.

use std::time::{Duration, Instant};

use segl_hsm::{Error, Kind};

use super::stage::{FOREVER, GATED, QUICK, Script, Stage, outcomes};
use crate::{Config, Fate, Job, Rules, TokenSetup, TokenState};

/// Long enough for a call that is not stuck, on a machine that has much else to do.
const STUCK_AFTER: Duration = Duration::from_millis(300);

fn impatient(setup: &mut TokenSetup) {
    setup.stuck_after_ns = STUCK_AFTER.as_nanos() as u64;
}

fn stage(sessions: &[u16], prepare: impl Fn(&Script)) -> Stage {
    let rules = Rules { batch_time_ns: u64::MAX, backoff_min_ns: 1_000_000, ..Rules::default() };
    Stage::set_up(Config { rules, ..Config::default() }, sessions, prepare, impatient)
}

#[test]
fn a_stuck_signature_is_answered_another_thread_takes_over_and_what_comes_late_is_discarded() {
    let stage = stage(&[1], |_| {});
    stage.submit([stage.job(GATED, 1)]);
    let done = stage.inbox().take(1);
    assert_eq!(outcomes(&done)[&1], "stuck");
    assert_eq!(done[0].attempts[0].fate, Fate::Unknown);
    stage.observer.wait_for("stuck and replaced");
    stage.submit([stage.job(QUICK, 2)]);
    assert_eq!(outcomes(&stage.inbox().take(1))[&2], "signed", "while the first is still inside");
    assert_eq!(stage.pool.snapshot().tokens[0].threads_stuck, 1);

    stage.script().open_gate(1);
    stage.observer.wait_for("signed too late");
    // It closes its own session on its own thread, and ends.
    stage.script().wait(|told| told.closed == 1);
    assert_eq!(stage.script().ask(|told| (told.opened, told.strangers)), (2, 0));
    assert_eq!(stage.pool.stop(FOREVER).threads_left, 0);
    assert_eq!(stage.pool.snapshot().tokens[0].threads_stuck, 0);
    assert!(stage.inbox().is_empty());
}

#[test]
fn the_rest_of_a_stuck_batch_is_signed_elsewhere_while_the_call_is_stuck() {
    let stage = stage(&[1], |_| {});
    stage.wait_until_ready(0);
    stage.submit([stage.job(GATED, 0), stage.job(QUICK, 1), stage.job(QUICK, 2)]);
    let done = stage.inbox().take(3);
    let by_tag = outcomes(&done);
    assert_eq!((by_tag[&0], by_tag[&1], by_tag[&2]), ("stuck", "signed", "signed"));
    assert!(done.iter().filter(|done| done.tag > 0).all(|done| done.attempts.count() == 1));
    stage.script().open_gate(1);
    stage.script().wait(|told| told.closed == 1);
    assert_eq!(stage.script().ask(|told| told.begun.clone()), [0, 1, 2], "nothing is begun twice");
}

#[test]
fn what_was_done_before_the_stuck_call_is_not_taken_for_stuck() {
    let stage = stage(&[1], |_| {});
    stage.wait_until_ready(0);
    stage.submit([stage.job(QUICK, 0), stage.job(QUICK, 1), stage.job(GATED, 2)]);
    let by_tag = outcomes(&stage.inbox().take(3));
    assert_eq!((by_tag[&0], by_tag[&1], by_tag[&2]), ("signed", "signed", "stuck"));
    assert!(!stage.observer.heard().contains(&"signed too late"));
    stage.script().open_gate(1);
}

#[test]
fn a_stuck_job_is_signed_by_another_token_if_that_is_harmless() {
    let stage = stage(&[1, 1], |_| {});
    stage.wait_until_ready(0);
    stage.wait_until_ready(1);
    stage.scripts[1].open_gate(1);
    stage.submit([Job { repeatable: true, ..stage.job(GATED, 1) }]);
    let done = stage.inbox().take(1);
    assert_eq!(outcomes(&done)[&1], "signed");
    assert_eq!(done[0].token, Some(1));
    stage.script().open_gate(1);
}

#[test]
fn an_open_that_hangs_holds_up_neither_other_tokens_nor_the_stop() {
    let stage = stage(&[2, 1], |_| {});
    let hung = |script: &Script| script.tell(|told| told.hanging_opens = u32::MAX);
    stage.wait_until_ready(0);
    hung(stage.script());
    stage.pool.leave(0);
    stage.script().wait(|told| told.closed == 1);
    stage.pool.join(0);
    stage.observer.wait_for("stuck and replaced");
    stage.submit([stage.job(QUICK, 1)]);
    assert_eq!(outcomes(&stage.inbox().take(1))[&1], "signed");
    let began = Instant::now();
    let stopped = stage.pool.stop(FOREVER);
    assert!(stopped.threads_left >= 1);
    assert!(began.elapsed() < FOREVER / 2, "only what is not known to be stuck is waited for");
    stage.script().open_gate(64);
}

#[test]
fn a_module_is_begun_anew_when_a_token_stays_away_and_one_that_hangs_there_holds_up_no_stop() {
    let away = || Error::of(Kind::TokenAbsent, "C_GetSlotList", "no slot holds it");
    let comes_back = stage(&[1], |script| script.tell(|told| told.open_errors = vec![away(), away(), away()]));
    comes_back.observer.wait_for("module initialised");
    comes_back.wait_until_ready(0);
    assert_eq!(comes_back.script().ask(|told| told.reinitialised), 1);

    let hangs = stage(&[1], |script| {
        script.tell(|told| {
            told.open_errors = vec![away(), away(), away()];
            told.finalise_hangs = true;
        });
    });
    hangs.observer.wait_for("module wedged");
    assert_eq!(hangs.pool.snapshot().tokens[0].state, TokenState::Wedged);
    let began = Instant::now();
    assert_eq!(hangs.pool.stop(FOREVER).threads_left, 1);
    assert!(began.elapsed() < FOREVER / 2);
    hangs.script().open_gate(1);
    hangs.script().wait(|told| told.reinitialised == 1);
}

#[test]
fn a_module_that_returns_late_from_being_begun_anew_is_used_again() {
    let away = || Error::of(Kind::TokenAbsent, "C_GetSlotList", "no slot holds it");
    let stage = stage(&[1], |script| {
        script.tell(|told| {
            told.open_errors = vec![away(), away(), away()];
            told.finalise_hangs = true;
        });
    });
    stage.observer.wait_for("module wedged");
    stage.script().open_gate(1);
    stage.wait_until_ready(0);
    stage.submit([stage.job(QUICK, 1)]);
    assert_eq!(outcomes(&stage.inbox().take(1))[&1], "signed");
}

#[test]
fn on_probation_nobodys_job_is_signed_until_somebody_vouches() {
    let stage = stage(&[1], |_| {});
    stage.wait_until_ready(0);
    stage.observer.mute();
    stage.pool.leave(0);
    stage.script().wait(|told| told.closed == 1);
    stage.pool.join(0);
    stage.observer.wait_for("probation");
    let probe = Job { probe: true, only_token: Some(0), ..stage.job(QUICK, 2) };
    stage.submit([stage.job(QUICK, 1), probe]);
    assert_eq!(outcomes(&stage.inbox().take(1))[&2], "signed");
    assert!(stage.inbox().is_empty());
    stage.pool.vouch(0, 1, true);
    assert!(stage.inbox().is_empty(), "that was said of an earlier time");
    stage.pool.vouch(0, 2, true);
    assert_eq!(outcomes(&stage.inbox().take(1))[&1], "signed");
}

#[test]
fn idle_sessions_are_kept_alive_on_their_own_threads() {
    let keep = |setup: &mut TokenSetup| setup.keep_alive_ns = 1_000_000;
    let stage = Stage::set_up(Config::default(), &[1], |_| {}, keep);
    stage.script().wait(|told| told.kept_alive >= 3);
    stage.submit([stage.job(QUICK, 1)]);
    assert_eq!(outcomes(&stage.inbox().take(1))[&1], "signed");
    assert_eq!(stage.script().ask(|told| told.strangers), 0);
}

//! The driver's promises, on real threads, with tokens that do as they are told.

mod stage;
mod stuck;

use std::{
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread,
    time::Duration,
};

use segl_hsm::{Error, Fault, Kind, Retry, Rung, Signed, Verdict};

use self::stage::{FAILS, FOREVER, GATED, GATED_TOO, PANICS, QUICK, Stage, Tags, outcomes};
use crate::{Completion, Config, Failure, Inbox, Job, Pool, Rules, ThreadRole, TokenState, Work};

fn session_error() -> Error {
    Error::of(Kind::Session, "C_Sign", "the session is gone")
}

#[test]
fn every_job_is_answered_with_its_own_signature() {
    let stage = Stage::new(&[2, 2]);
    stage.submit((0..1000).map(|tag| stage.job(QUICK, tag)));
    let done = stage.inbox().take(1000);
    assert_eq!(outcomes(&done).len(), 1000);
    assert!(done.iter().all(|done| done.result.as_ref().unwrap() == &done.tag.to_le_bytes()));
    assert!(done.iter().all(|done| done.attempts.count() == 1 && done.token.is_some()));
}

#[test]
fn a_signature_takes_no_more_room_than_it_needs() {
    let stage = Stage::new(&[1]);
    stage.submit((0..10).map(|tag| stage.job(QUICK, tag)));
    for done in stage.inbox().take(10) {
        let signature = done.result.unwrap();
        assert_eq!((signature.len(), signature.capacity()), (8, 8));
    }
}

#[test]
fn whether_a_key_is_there_is_answered_without_signing() {
    let stage = Stage::new(&[1]);
    let look = |key, tag| Job { work: Work::Presence, ..stage.job(key, tag) };
    stage.submit([look(QUICK, 1), look(FAILS, 2), stage.job(QUICK, 3)]);
    let done = stage.inbox().take(3);
    let result = |tag| &done.iter().find(|done| done.tag == tag).unwrap().result;
    assert_eq!(result(1).as_ref().unwrap(), &[]);
    let Err(Failure::Token(error)) = result(2) else { panic!("{:?}", result(2)) };
    assert_eq!(error.kind(), Kind::KeyMissing);
    assert!(result(3).is_ok());
    assert_eq!(stage.script().ask(|told| told.begun.clone()), [3]);
}

#[test]
fn a_batch_is_delivered_at_once_and_to_each_inbox_its_own() {
    let stage = Stage::new(&[1]);
    stage.occupy(0);
    stage.submit((1..=10).map(|tag| Job { inbox: (tag % 2) as u16, ..stage.job(QUICK, tag) }));
    stage.script().open_gate(1);
    assert_eq!(stage.inboxes[0].take(6).len(), 6);
    assert_eq!(stage.inboxes[1].take(5).len(), 5);
    assert_eq!(stage.inboxes[0].deliveries(), [1, 5]);
    assert_eq!(stage.inboxes[1].deliveries(), [5]);
}

#[test]
fn a_refusal_is_a_completion_and_comes_before_submit_returns() {
    let stage = Stage::new(&[1]);
    stage.pool.drain();
    stage.submit([stage.job(QUICK, 1)]);
    assert!(!stage.inbox().is_empty());
    assert_eq!(outcomes(&stage.inbox().take(1))[&1], "draining");
}

#[test]
fn draining_finishes_what_is_there() {
    let stage = Stage::new(&[1]);
    stage.occupy(0);
    stage.submit([stage.job(QUICK, 1)]);
    stage.pool.drain();
    stage.submit([stage.job(QUICK, 2)]);
    stage.script().open_gate(1);
    let done = stage.inbox().take(3);
    let done = outcomes(&done);
    assert_eq!((done[&0], done[&1], done[&2]), ("signed", "signed", "draining"));
}

#[test]
fn a_job_that_waits_can_be_taken_back() {
    let stage = Stage::new(&[1]);
    stage.occupy(0);
    stage.submit([stage.job(QUICK, 1)]);
    stage.pool.cancel(0, 1);
    assert_eq!(outcomes(&stage.inbox().take(1))[&1], "cancelled");
    stage.script().open_gate(1);
    assert_eq!(outcomes(&stage.inbox().take(1))[&0], "signed");
    assert_eq!(stage.script().ask(|told| told.begun.clone()), [0]);
}

#[test]
fn the_timer_answers_who_waits_past_the_deadline() {
    let stage = Stage::new(&[1]);
    stage.occupy(0);
    let deadline_ns = stage.pool.clock().in_ns(Duration::from_millis(1));
    stage.submit([Job { deadline_ns, ..stage.job(QUICK, 1) }]);
    assert_eq!(outcomes(&stage.inbox().take(1))[&1], "expired");
    assert!(stage.pool.clock().now_ns() >= deadline_ns);
    stage.script().open_gate(1);
    stage.inbox().take(1);
}

#[test]
fn the_deadline_is_looked_at_again_right_before_the_call() {
    let stage = Stage::new(&[1]);
    stage.occupy(0);
    let deadline_ns = stage.pool.clock().in_ns(Duration::from_millis(200));
    stage.submit([stage.job(GATED, 1), Job { deadline_ns, ..stage.job(QUICK, 2) }]);
    stage.script().open_gate(1);
    stage.script().wait(|told| told.entered == 2);
    while stage.pool.clock().now_ns() < deadline_ns {
        thread::yield_now();
    }
    stage.script().open_gate(1);
    let done = stage.inbox().take(3);
    assert_eq!(outcomes(&done)[&2], "expired");
    assert_eq!(stage.script().ask(|told| told.begun.clone()), [0, 1]);
}

#[test]
fn what_waits_behind_a_stuck_call_is_answered_at_its_deadline_and_not_begun() {
    let stage = Stage::new(&[1]);
    stage.occupy(0);
    let deadline_ns = stage.pool.clock().in_ns(Duration::from_millis(50));
    stage.submit([stage.job(GATED, 1), Job { deadline_ns, ..stage.job(QUICK, 2) }, stage.job(QUICK, 3)]);
    stage.script().open_gate(1);
    stage.script().wait(|told| told.entered == 2);
    // While the call before it is still in the token.
    let done = stage.inbox().take(2);
    let by_tag = outcomes(&done);
    assert_eq!((by_tag[&0], by_tag[&2]), ("signed", "expired"));
    assert_eq!(done.iter().find(|done| done.tag == 2).unwrap().attempts.count(), 0);
    stage.script().open_gate(1);
    assert_eq!(outcomes(&stage.inbox().take(2)).len(), 2);
    assert_eq!(stage.script().ask(|told| told.begun.clone()), [0, 1, 3]);
    assert!(stage.inbox().is_empty());
}

#[test]
fn what_was_done_before_a_stuck_call_is_answered_while_it_is_stuck() {
    let stage = Stage::new(&[1]);
    stage.occupy(0);
    stage.submit([stage.job(QUICK, 1), stage.job(GATED, 2)]);
    stage.script().open_gate(1);
    let done = stage.inbox().take(1);
    assert_eq!(outcomes(&done)[&0], "signed");
    stage.script().wait(|told| told.entered == 2);
    assert_eq!(outcomes(&stage.inbox().take(1))[&1], "signed");
    stage.script().open_gate(1);
    assert_eq!(outcomes(&stage.inbox().take(1))[&2], "signed");
}

#[test]
fn what_is_done_is_answered_before_the_next_call_when_a_batch_takes_long() {
    let batch_time_ns = 1_000_000;
    let rules = Rules { batch_time_ns, service_guess_ns: 1, ..Rules::default() };
    let stage = Stage::by_rules(Config { rules, ..Config::default() }, &[1], |_| {});
    stage.occupy(0);
    // What nobody has measured yet is expected to be quick, so these are one batch.
    stage.submit([stage.job(GATED_TOO, 1), stage.job(GATED_TOO, 2)]);
    stage.script().open_gate(1);
    stage.script().wait(|told| told.entered == 2);
    assert_eq!(outcomes(&stage.inbox().take(1))[&0], "signed");
    let long_ns = stage.pool.clock().now_ns() + 2 * batch_time_ns;
    while stage.pool.clock().now_ns() < long_ns {
        thread::yield_now();
    }
    stage.script().open_gate(1);
    stage.script().wait(|told| told.entered == 3);
    assert!(!stage.inbox().is_empty());
    assert_eq!(outcomes(&stage.inbox().take(1))[&1], "signed");
    stage.script().open_gate(1);
    assert_eq!(outcomes(&stage.inbox().take(1))[&2], "signed");
}

#[test]
fn a_spoilt_session_is_closed_and_replaced_on_its_own_thread_and_the_job_tried_again() {
    let stage = Stage::with(Config::default(), &[1], |script| {
        script.tell(|told| told.sign_errors.push(session_error()));
    });
    stage.submit([stage.job(FAILS, 1)]);
    let done = stage.inbox().take(1);
    assert_eq!((outcomes(&done)[&1], done[0].attempts.count()), ("signed", 2));
    stage.observer.wait_for("session lost");
    assert_eq!(stage.script().ask(|told| (told.opened, told.closed, told.strangers)), (2, 1, 0));
}

#[test]
fn the_rest_of_a_spoilt_batch_is_not_begun_on_that_session() {
    let stage = Stage::with(Config::default(), &[1], |script| {
        let verdict = Verdict { fault: Fault::Token, signed: Signed::Unknown, retry: Retry::Here, rung: Rung::Session };
        script.tell(|told| told.sign_errors.push(Error::new(Kind::Device, verdict, "C_Sign", "broken off")));
    });
    stage.occupy(0);
    stage.submit([stage.job(FAILS, 1), stage.job(QUICK, 2), stage.job(QUICK, 3)]);
    stage.script().open_gate(1);
    let done = stage.inbox().take(4);
    let by_tag = outcomes(&done);
    assert_eq!((by_tag[&1], by_tag[&2], by_tag[&3]), ("token", "signed", "signed"));
    let failed = done.iter().find(|done| done.tag == 1).unwrap();
    assert_eq!((failed.attempts.count(), failed.verdict().unwrap().signed), (1, Signed::Unknown));
    assert_eq!(stage.script().ask(|told| (told.begun.clone(), told.opened)), (vec![0, 1, 2, 3], 2));
}

#[test]
fn a_panic_in_a_token_costs_its_session_and_not_the_process() {
    let stage = Stage::new(&[1]);
    stage.submit([Job { repeatable: true, ..stage.job(PANICS, 1) }, stage.job(QUICK, 2)]);
    let done = stage.inbox().take(2);
    assert_eq!(outcomes(&done)[&2], "signed");
    let panicked = done.iter().find(|done| done.tag == 1).unwrap();
    let verdict = panicked.verdict().unwrap();
    assert_eq!((verdict.signed, panicked.attempts.count()), (Signed::Unknown, 1), "not tried again");
    assert_eq!(stage.script().ask(|told| (told.opened, told.closed)), (2, 1));
}

#[test]
fn a_token_that_is_away_at_the_start_is_used_when_it_is_back() {
    let away = || Error::of(Kind::TokenAbsent, "C_GetSlotList", "no slot holds it");
    let stage = Stage::with(Config::default(), &[2], |script| {
        script.tell(|told| told.open_errors = vec![away(), away(), away()]);
    });
    stage.observer.wait_for("away");
    stage.observer.wait_for("back");
    stage.submit([stage.job(QUICK, 1)]);
    assert_eq!(outcomes(&stage.inbox().take(1))[&1], "signed");
}

#[test]
fn a_login_is_heard_of_before_anything_is_signed() {
    let stage = Stage::new(&[1]);
    stage.submit([stage.job(QUICK, 1)]);
    stage.inbox().take(1);
    assert_eq!(stage.observer.heard(), ["logged in"]);
    assert_eq!(stage.script().ask(|told| told.logins), 1);
    stage.pool.refresh(0);
    stage.script().wait(|told| told.logins == 2);
}

#[test]
fn stopping_closes_all_sessions_and_answers_who_waits() {
    let stage = Stage::new(&[1, 3]);
    stage.scripts[1].wait(|told| told.logins == 1);
    stage.occupy_token_0();
    let (pool, script) = (&stage.pool, stage.script());
    let stopped = thread::scope(|scope| {
        let stopped = scope.spawn(|| pool.stop(FOREVER));
        // What waited is answered before what runs is back.
        assert_eq!(outcomes(&stage.inbox().take(1))[&1], "draining");
        script.open_gate(1);
        stopped.join().unwrap()
    });
    assert_eq!(stopped.threads_left, 0);
    assert_eq!(outcomes(&stage.inbox().take(1))[&0], "signed");
    for script in &stage.scripts {
        assert_eq!(script.ask(|told| (told.opened - told.closed, told.strangers)), (0, 0));
    }
    stage.submit([stage.job(QUICK, 9)]);
    assert_eq!(outcomes(&stage.inbox().take(1))[&9], "draining");
}

#[test]
fn stopping_leaves_a_stuck_thread_behind_and_says_so() {
    let stage = Stage::new(&[1, 1]);
    stage.scripts[1].wait(|told| told.logins == 1);
    stage.occupy_token_0();
    let stopped = stage.pool.stop(Duration::from_millis(300));
    assert_eq!(stopped.threads_left, 1);
    let done = stage.inbox().take(2);
    let by_tag = outcomes(&done);
    assert_eq!((by_tag[&0], by_tag[&1]), ("stuck", "draining"));
    let stuck = done.iter().find(|done| done.tag == 0).unwrap();
    assert!(matches!(stuck.result, Err(Failure::Stuck)));
    assert_eq!(stuck.verdict().unwrap().signed, Signed::Unknown);
    assert_eq!(stage.scripts[1].ask(|told| told.closed), 1);
    // When it returns after all, it closes its own session and nothing more is said.
    stage.script().open_gate(1);
    stage.script().wait(|told| told.closed == 1);
    assert!(stage.inbox().is_empty());
}

#[test]
fn of_a_stuck_batch_only_the_call_in_the_token_is_in_doubt() {
    let stage = Stage::new(&[1]);
    stage.occupy(0);
    stage.submit([stage.job(QUICK, 1), stage.job(GATED, 2), stage.job(QUICK, 3)]);
    stage.script().open_gate(1);
    stage.script().wait(|told| told.entered == 2);
    stage.pool.stop(Duration::ZERO);
    let done = stage.inbox().take(4);
    let by_tag = outcomes(&done);
    assert_eq!((by_tag[&1], by_tag[&2], by_tag[&3]), ("signed", "stuck", "draining"));
    let unbegun = done.iter().find(|done| done.tag == 3).unwrap();
    assert_eq!((unbegun.attempts.count(), unbegun.verdict().unwrap().signed), (0, Signed::No));
    stage.script().open_gate(1);
    stage.script().wait(|told| told.closed == 1);
    assert_eq!(stage.script().ask(|told| told.begun.clone()), [0, 1, 2]);
    assert!(stage.inbox().is_empty());
}

#[test]
fn a_pool_that_is_dropped_does_not_wait_for_a_stuck_token() {
    let stage = Stage::new(&[1]);
    stage.occupy(0);
    let Stage { pool, scripts, inboxes, .. } = stage;
    drop(pool);
    assert_eq!(outcomes(&inboxes[0].take(1))[&0], "stuck");
    scripts[0].open_gate(1);
    scripts[0].wait(|told| told.closed == 1);
}

#[test]
fn an_inbox_may_submit_from_within() {
    struct Chain {
        pool: OnceLock<Pool>,
        done: mpsc::Sender<u64>,
        again: Mutex<Vec<Job>>,
    }
    impl Inbox for Chain {
        fn deliver(&self, completions: &mut Vec<Completion>) {
            for done in completions.drain(..) {
                self.done.send(done.tag).unwrap();
                let mut next: Vec<Job> = self.again.lock().unwrap().pop().into_iter().collect();
                self.pool.get().expect("the pool was there when this was submitted").submit(&mut next);
            }
        }
    }
    let stage = Stage::new(&[1]);
    let (done, heard) = mpsc::channel();
    let jobs = (1..100).map(|tag| stage.job(QUICK, tag)).collect();
    let chain = Arc::new(Chain { pool: OnceLock::new(), done, again: Mutex::new(jobs) });
    let pool = stage.second_pool(chain.clone());
    let first = stage.job(QUICK, 0);
    chain.pool.set(pool).unwrap();
    chain.pool.get().unwrap().submit(&mut vec![first]);
    let tags: Vec<u64> = (0..100).map(|_| heard.recv_timeout(FOREVER).unwrap()).collect();
    assert_eq!((tags[0], tags[1], tags[99]), (0, 99, 1));
    chain.pool.get().unwrap().stop(FOREVER);
}

#[test]
fn every_thread_is_introduced_by_its_role_and_carries_a_name() {
    let (seen, heard) = mpsc::channel();
    let seen = Mutex::new(seen);
    let on_start = move |role: ThreadRole| {
        let name = thread::current().name().unwrap().to_owned();
        seen.lock().unwrap().send((role, name)).unwrap();
    };
    let config = Config { on_thread_start: Some(Arc::new(on_start)), ..Config::default() };
    let _stage = Stage::with(config, &[1, 2], |_| {});
    let mut names: Vec<_> = (0..4).map(|_| heard.recv_timeout(FOREVER).unwrap()).collect();
    names.sort_by(|one, other| one.1.cmp(&other.1));
    let session = |token, session| ThreadRole::Session { token, session };
    let expected = [
        (session(0, 0), "segl-s-hsm0-0".to_owned()),
        (session(1, 0), "segl-s-hsm1-0".to_owned()),
        (session(1, 1), "segl-s-hsm1-1".to_owned()),
        (ThreadRole::Timer, "segl-timer".to_owned()),
    ];
    assert_eq!(names, expected);
    assert_eq!(super::crew::session_thread_name("a-long-name-of-a-token", 123), "segl-s-a-lo-123");
}

#[test]
fn a_thread_inside_a_token_does_not_count_as_behind() {
    let stage = Stage::new(&[1]);
    stage.occupy(0);
    assert_eq!(stage.pool.progress().session_lag_ns, 0);
    stage.submit([stage.job(QUICK, 1)]);
    assert_eq!(stage.pool.progress().session_lag_ns, 0, "what waits is with Core");
    stage.script().open_gate(1);
    stage.inbox().take(2);
}

#[test]
fn the_snapshot_counts_what_there_is() {
    let stage = Stage::new(&[2]);
    stage.occupy(0);
    stage.pool.set_routes(&[]);
    let snapshot = stage.pool.snapshot();
    assert_eq!((snapshot.tokens[0].state, snapshot.running), (TokenState::Ready, 1));
    assert_eq!((snapshot.tokens[0].sessions_busy, &*snapshot.tokens[0].name), (1, "hsm0"));
    assert!(stage.pool.route_usable(crate::RouteId(0)));
    stage.script().open_gate(1);
    stage.inbox().take(1);
    let snapshot = stage.pool.snapshot();
    assert_eq!((snapshot.counters.signed, snapshot.running, snapshot.tokens[0].calls), (1, 0, 1));
}

#[test]
fn many_threads_submit_at_once_while_sessions_die_and_each_job_is_answered_once() {
    const SUBMITTERS: u64 = 4;
    const JOBS: u64 = 2_000;
    let stage = Stage::with(Config { spin_ns: 20_000, ..Config::default() }, &[2, 2], |script| {
        script.tell(|told| told.sign_errors = (0..40).map(|_| session_error()).collect());
    });
    let tags = Tags::default();
    thread::scope(|scope| {
        for _ in 0..SUBMITTERS {
            scope.spawn(|| {
                for _ in 0..JOBS / 8 {
                    let key = |tag| if tag % 50 == 0 { FAILS } else { QUICK };
                    stage.submit((0..8).map(|_| tags.draw()).map(|tag| stage.job(key(tag), tag)));
                }
            });
        }
    });
    let done = stage.inbox().take((SUBMITTERS * JOBS) as usize);
    assert_eq!(outcomes(&done).len() as u64, SUBMITTERS * JOBS);
    let counters = stage.pool.snapshot().counters;
    assert_eq!((counters.submitted, counters.completed()), (SUBMITTERS * JOBS, SUBMITTERS * JOBS));
    assert_eq!(stage.pool.stop(FOREVER).threads_left, 0);
    assert!(stage.scripts.iter().all(|script| script.ask(|told| told.strangers) == 0));
    assert!(stage.inbox().is_empty());
}

/// In a process of its own: the test runs itself again.
#[test]
fn a_panic_in_an_inbox_ends_the_process_rather_than_to_leave_everybody_waiting() {
    const CHILD: &str = "SEGL_TEST_PANIC";
    struct Broken;
    impl Inbox for Broken {
        fn deliver(&self, _: &mut Vec<Completion>) {
            panic!("a bug in an inbox, as the test wants it");
        }
    }
    if std::env::var_os(CHILD).is_some() {
        let stage = Stage::new(&[1]);
        let pool = stage.second_pool(Arc::new(Broken));
        pool.submit(&mut vec![stage.job(QUICK, 1)]);
        thread::sleep(FOREVER);
        return;
    }
    let name = "driver::tests::a_panic_in_an_inbox_ends_the_process_rather_than_to_leave_everybody_waiting";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(6), "{said}");
    assert!(said.contains("a thread of the pool panicked"), "{said}");
}

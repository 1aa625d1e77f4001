//! The simulator for a few seconds: `cargo xtask simulate` runs it for longer.

use std::time::{Duration, Instant};

use super::{explain, run, trace};

/// How long the runs may take, beyond the first ones.
const LIMIT: Duration = Duration::from_secs(5);
/// Runs that are made however long they take.
const SEEDS_MIN: u64 = 100;

#[test]
fn whatever_fails_core_keeps_its_promises() {
    let started = Instant::now();
    for seed in (0..).take_while(|&seed| seed < SEEDS_MIN || started.elapsed() < LIMIT) {
        if run(seed).is_err() {
            let failure = explain(seed).expect("a run that failed fails again");
            let trace = &failure.trace[failure.trace.len().saturating_sub(80)..];
            panic!("seed {seed}: {:?}\n{}", failure.violation, trace.join("\n"));
        }
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..5 {
        assert_eq!(trace(seed).1, trace(seed).1);
    }
}

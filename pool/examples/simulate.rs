//! Plays seeds of the simulator: what `cargo xtask simulate` runs, on Core as it is and on broken copies of it.
//!
//! `simulate FIRST COUNT SECONDS [--trace] [--all]` plays up to COUNT seeds from FIRST on, for SECONDS at most (0: no limit), and
//! stops at the first that fails. The last line is `passed SEEDS JOBS SIGNATURES`, with exit code 0, or
//! `broken SEED PROMISE`, with exit code 1. With `--all` it goes on and only lists what fails, a line each.

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use segl_pool::simulator::{self, Violation};

/// How much of a failed run's trace is shown unless all of it was asked for.
const TAIL: usize = 60;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let numbers: Vec<u64> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let whole = words.iter().any(|word| word == "--trace");
    let all = words.iter().any(|word| word == "--all");
    let &[first, count, seconds] = numbers.as_slice() else {
        eprintln!("simulate FIRST COUNT SECONDS [--trace]");
        return ExitCode::from(2);
    };
    // A panic of Core is a finding, told like the others.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let limit = if seconds == 0 { Duration::MAX } else { Duration::from_secs(seconds) };
    let (mut seeds, mut jobs, mut signatures) = (0u64, 0u64, 0u64);
    for seed in first..first.saturating_add(count) {
        if started.elapsed() >= limit {
            break;
        }
        match simulator::run(seed) {
            Ok(summary) => {
                seeds += 1;
                jobs += summary.jobs;
                signatures += summary.signatures;
            }
            Err(violation) if all => println!("seed {seed}: {}: {}", violation.promise, violation.detail),
            Err(violation) => {
                tell(seed, &violation, whole);
                return ExitCode::FAILURE;
            }
        }
    }
    if whole && count == 1 {
        println!("{}", simulator::trace(first).1.join("\n"));
    }
    println!("passed {seeds} {jobs} {signatures}");
    ExitCode::SUCCESS
}

fn tell(seed: u64, violation: &Violation, whole: bool) {
    println!("seed {seed} breaks: {}", violation.promise);
    println!("  {}", violation.detail);
    if let Some(short) = simulator::explain(seed) {
        let (before, after) = short.acts;
        let start = if whole { 0 } else { short.trace.len().saturating_sub(TAIL) };
        println!("\nshortened from {before} acts to {after} ({}):", short.violation.detail);
        if start > 0 {
            println!("  ... {start} lines before; all of them with --trace");
        }
        println!("{}", short.trace[start..].join("\n"));
    }
    println!("broken {seed} {}", violation.promise);
}

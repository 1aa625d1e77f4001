//! `cargo xtask simulate`: the pool's Core under random fire in virtual time, and with `--prove` the proof that the
//! simulator would notice if Core were broken.
//!
//! The simulator is `pool/src/simulator`, behind a feature; it is built and run as an example of that crate, so that
//! nothing else is built with it.

mod mutations;
mod prove;

use std::{
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use clap::Args;

use crate::{Result, command::Job, workspace};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many seeds to play
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    seeds: u64,
    /// The first of them; alone, the only one
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    seconds: u64,
    /// Show the whole trace: of a seed that fails, and of a single one that does not
    #[arg(long)]
    trace: bool,
    /// Go on after a seed that fails, and list them
    #[arg(long, conflicts_with = "trace")]
    all: bool,
    /// Break Core in every documented way, one after the other, and show that the simulator finds each
    #[arg(long, conflicts_with_all = ["seed", "trace", "all", "seconds"])]
    prove: bool,
    /// Of these ways only those whose names contain this
    #[arg(long, value_name = "PART", requires = "prove", default_value = "")]
    only: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.prove {
        let log = workspace().join("target/xtask/prove.log");
        let proved = prove::run(&log, &arguments.only)?;
        return Ok(if proved { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let alone = arguments.seed.is_some() && !std::env::args().any(|word| word.starts_with("--seeds"));
    let count = if alone { 1 } else { arguments.seeds };
    let numbers = [arguments.seed.unwrap_or_default(), count, arguments.seconds].map(|number| number.to_string());
    let mut cargo = Command::new("cargo");
    cargo.args(BUILD).arg("--").args(numbers).current_dir(workspace()).stdin(Stdio::null());
    for (given, flag) in [(arguments.trace, "--trace"), (arguments.all, "--all")] {
        if given {
            cargo.arg(flag);
        }
    }
    let status = cargo.status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As a stage of the tests: other seeds each day would make a failure somebody else's, so they are always the same.
pub(crate) fn stage(log: &std::path::Path, seconds: u64, limit: Duration) -> Result<()> {
    let numbers = ["0".to_owned(), u32::MAX.to_string(), seconds.to_string()];
    let job = Job::new("cargo", &workspace(), log.to_path_buf()).args(BUILD).arg("--").args(numbers);
    let output = job.must(limit)?.output()?;
    let passed = output.lines().rev().find(|line| line.starts_with("passed "));
    println!("  {}", told(passed.ok_or("the simulator does not say that it passed")?));
    Ok(())
}

const BUILD: [&str; 9] =
    ["run", "--locked", "--quiet", "--package", "segl-pool", "--features", "simulator", "--example", "simulate"];

/// `passed SEEDS JOBS SIGNATURES` for people.
fn told(passed: &str) -> String {
    match passed.split(' ').collect::<Vec<_>>()[..] {
        [_, seeds, jobs, signatures] => {
            format!("{seeds} seeds, {jobs} jobs, {signatures} signatures: no promise broken")
        }
        _ => passed.to_owned(),
    }
}

//! `cargo xtask fuzz`: random bytes, guided by coverage, at whatever reads bytes from outside first.
//!
//! The targets are a workspace of their own, tests/fuzz. Everything in it is compiled with the instrumentation that
//! libFuzzer wants, by LLVM's passes that a stable rustc has too, into a target folder of its own. What a target finds
//! stays under target/fuzz/found, what it learnt under target/fuzz/corpus; the seeds are in the repository.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use crate::{Result, command, command::Job, tally::Tally, workspace};

/// What cargo-fuzz passes too, but for the sanitizers, which need a nightly rustc; nothing here is unsafe.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                         -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                         -Cllvm-args=-sanitizer-coverage-pc-table \
                         -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// Building it all for the first time.
const BUILD_LIMIT: Duration = Duration::from_secs(900);

/// Longest input: a large assertion with its frame.
const INPUT_BYTES_MAX: u32 = 16 << 10;

/// Longest one input may take, in seconds. It is a thousand times what any needs.
const INPUT_LIMIT_S: u32 = 5;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only this target: saml, privileges, jws, publish, metadata, wire, uri or journal
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    command::on_signal(|| std::process::exit(130))?;
    let log = workspace().join("target/xtask/fuzz.log");
    let tally = all(arguments.target.as_deref(), arguments.seconds, &log)?;
    println!("{tally}");
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the targets and runs them one after the other, or `only` one.
pub(crate) fn all(only: Option<&str>, seconds: u32, log: &Path) -> Result<Tally> {
    let targets = targets()?;
    if let Some(only) = only.filter(|only| !targets.iter().any(|target| target == only)) {
        return Err(format!("no target {only}; there are {}", targets.join(", ")).into());
    }
    let home = workspace().join("target/fuzz");
    let build = Job::new("cargo", &workspace().join("tests/fuzz"), log.to_path_buf()).env("RUSTFLAGS", RUSTFLAGS);
    let build = build.args(["build", "--quiet", "--release", "--bins", "--target", &triple(), "--target-dir"]);
    build.arg(&home).must(BUILD_LIMIT)?;
    let mut tally = Tally::default();
    for target in targets.iter().filter(|target| only.is_none_or(|only| only == *target)) {
        match one(&home, target, seconds, log) {
            Ok(summary) => {
                println!("  {target}: {summary}");
                tally.passed += 1;
            }
            Err(error) => {
                println!("  {target}: {error}");
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

/// Named to cargo, so that the flags above are for the targets alone and not for build scripts.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// The names of the programs in tests/fuzz/targets.
fn targets() -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(workspace().join("tests/fuzz/targets"))? {
        let path = entry?.path();
        targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    targets.sort_unstable();
    Ok(targets)
}

fn one(home: &Path, target: &str, seconds: u32, log: &Path) -> Result<String> {
    let (corpus, found) = (home.join("corpus").join(target), home.join("found").join(target));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;
    let fuzz = workspace().join("tests/fuzz");
    // Memory: some targets read what they were given from a file.
    let scratch = PathBuf::from(format!("/dev/shm/segl-fuzz-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let mut job = Job::new(home.join(triple()).join("release").join(target), home, log.to_path_buf())
        .env("TMPDIR", &scratch)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-timeout={INPUT_LIMIT_S}"))
        .arg("-rss_limit_mb=1024")
        .arg(format!("-artifact_prefix={}/", found.display()));
    let words = fuzz.join("words").join(target);
    if words.exists() {
        job = job.arg(format!("-dict={}", words.display()));
    }
    let job = job.arg(&corpus).arg(fuzz.join("seeds").join(target));
    let finished = job.must(Duration::from_secs(u64::from(seconds) + 60));
    fs::remove_dir_all(&scratch)?;
    let output = finished?.output()?;
    let done = output.lines().rev().find(|line| line.starts_with("Done "));
    Ok(done.ok_or("it ended without saying how many inputs it tried")?.to_lowercase())
}

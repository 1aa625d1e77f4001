//! `cargo xtask soak`: segld at full load on HSMs that misbehave at random, and whether its promise held.
//!
//! The soak itself is `segl_tests::soak`; here are its command, its directory and its end.

use std::{
    fs::File,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use segl_tests::{programs, soak};

use crate::{
    Result,
    command::{self, Job},
    workspace,
};

/// From an empty target folder on a slow machine.
const BUILD: Duration = Duration::from_secs(1800);

#[derive(Args)]
pub(crate) struct Arguments {
    /// How long there is load
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// So many seconds instead
    #[arg(long, value_name = "N", conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(10..))]
    seconds: Option<u64>,
    /// The same troubles in the same order; what the machine makes of them is not the same
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Write the report there as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    command::on_signal(move || stopping.store(true, Ordering::Relaxed))?;
    let seed = arguments
        .seed
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    let lasts = Duration::from_secs(arguments.seconds.unwrap_or(arguments.minutes * 60));

    let target = programs::target().join("soak");
    std::fs::create_dir_all(&target)?;
    let lock = File::create(target.join("lock"))?;
    lock.try_lock().map_err(|error| format!("another soak runs in {}: {error}", target.display()))?;
    if std::env::var_os("SEGL_BIN_DIR").is_none() {
        println!("Building segld and segl (development profile)");
        let build = ["build", "--locked", "--package", "segl-daemon", "--bins"];
        Job::new("cargo", &workspace(), target.join("build.log")).args(build).must(BUILD)?;
        programs::built_in(programs::target().join("debug"));
    }
    // Left in place until the next one, for who looks into a broken promise.
    let dir = target.join("site");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    println!(
        "Soaking for {} s; `--seed {seed}` repeats the troubles, not what the machine makes of them",
        lasts.as_secs()
    );
    let report = soak::run(&dir, seed, lasts, &stop, |line| println!("{line}"))?;
    println!("\n{report}");
    if let Some(file) = &arguments.json {
        std::fs::write(file, format!("{:#}\n", report.to_json()))?;
    }
    Ok(if report.promise_held() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

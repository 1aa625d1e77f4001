//! `cargo xtask test`: every test in stages, each with a budget of time, and the totals at the end.
//!
//! A stage past its budget is named in the summary; at twice the budget it is killed and counts as failed. The budgets
//! hold for two cores and an empty target folder. A failed stage does not hide what the later ones would say, but for
//! `install` and `build`, without which the others only repeat the same complaint.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::OnceLock,
    time::{Duration, Instant},
};

use clap::Args;

use crate::{Result, cache, command, command::Job, fuzz, install, kryoptic, nspawn, simulate, tally::Tally, workspace};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Run only this stage; may be given more than once
    #[arg(long = "stage", value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(names()))]
    only: Vec<String>,
}

struct Stage {
    name: &'static str,
    budget_s: u64,
    what: &'static str,
    run: fn(&Place) -> Result<Tally>,
    /// Nothing after it makes sense when it fails
    vital: bool,
}

/// Where a stage works.
struct Place {
    log: PathBuf,
    limit: Duration,
}

const STAGES: &[Stage] = &[
    Stage { name: "install", budget_s: 240, what: "what the tests need", run: prepare, vital: true },
    Stage { name: "fmt", budget_s: 20, what: "rustfmt has nothing to say", run: fmt, vital: false },
    Stage { name: "build", budget_s: 600, what: "every crate, binary and test", run: build, vital: true },
    Stage { name: "clippy", budget_s: 300, what: "clippy has nothing to say", run: clippy, vital: false },
    Stage { name: "kryoptic", budget_s: 420, what: "a second PKCS#11 token, built once", run: kryoptic, vital: false },
    Stage { name: "tests", budget_s: 600, what: "unit, property and end-to-end tests", run: tests, vital: false },
    Stage { name: "python", budget_s: 60, what: "the client and judges in Python", run: python, vital: false },
    Stage {
        name: "fuzz",
        budget_s: 400,
        what: "random bytes at what reads bytes from outside",
        run: fuzz,
        vital: false,
    },
    Stage { name: "demo", budget_s: 300, what: "the demo on either token", run: demo, vital: false },
    Stage {
        name: "simulator",
        budget_s: 180,
        what: "20 s of the pool under random fire",
        run: simulator,
        vital: false,
    },
    Stage { name: "soak", budget_s: 240, what: "25 s of segld on HSMs that misbehave", run: soak, vital: false },
    Stage { name: "systemd", budget_s: 120, what: "the units under a real systemd", run: systemd, vital: false },
];

/// How long each target of the stage `fuzz` runs. The stage's budget is for building them for the first time.
const FUZZ_SECONDS: u32 = 3;

/// Stages whose tests are ignored ones to the stage `tests`.
const IGNORED_BY_TESTS: [&str; 2] = ["python", "systemd"];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    command::on_signal(|| std::process::exit(130))?;
    let logs = workspace().join("target/xtask");
    let chosen: Vec<&Stage> = STAGES
        .iter()
        .filter(|stage| arguments.only.is_empty() || arguments.only.iter().any(|name| name == stage.name))
        .collect();
    let mut total = Tally::default();
    let mut summary = Vec::new();
    let started = Instant::now();
    let mut stopped_by = None;
    for stage in &chosen {
        if let Some(vital) = stopped_by {
            total += Tally { skipped: 1, ..Tally::default() };
            summary.push(format!("{:<10} not run, since {vital} failed", stage.name));
            continue;
        }
        println!("== {}: {} (budget {} s)", stage.name, stage.what, stage.budget_s);
        let log = logs.join(format!("{}.log", stage.name));
        if log.exists() {
            std::fs::remove_file(&log)?;
        }
        let stage_started = Instant::now();
        let limit = Duration::from_secs(2 * stage.budget_s);
        let tally = (stage.run)(&Place { log, limit }).unwrap_or_else(|error| {
            println!("  {error}");
            Tally { failed: 1, ..Tally::default() }
        });
        let took_s = stage_started.elapsed().as_secs();
        let late =
            if took_s > stage.budget_s { format!(", over its budget of {} s", stage.budget_s) } else { String::new() };
        println!("   {}: {tally} in {took_s} s{late}", stage.name);
        summary.push(format!("{:<10} {tally} in {took_s} s{late}", stage.name));
        if stage.vital && tally.failed > 0 {
            stopped_by = Some(stage.name);
        }
        if IGNORED_BY_TESTS.contains(&stage.name) {
            // `tests` has counted them as skipped, when it was run.
            total.skipped = total.skipped.saturating_sub(tally.passed + tally.failed);
        }
        total += tally;
    }
    println!("\n== summary after {} s", started.elapsed().as_secs());
    for line in &summary {
        println!("{line}");
    }
    println!("{total}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn names() -> Vec<&'static str> {
    STAGES.iter().map(|stage| stage.name).collect()
}

fn prepare(place: &Place) -> Result<Tally> {
    install::packages(&[], &place.log)?;
    install::python(&place.log)?;
    install::node(&place.log)?;
    install::promtool(&place.log)?;
    match nspawn::obstacle() {
        None => drop(nspawn::root(&place.log)?),
        Some(why) => println!("  no container's root: {why}"),
    }
    Ok(Tally::PASSED)
}

fn fmt(place: &Place) -> Result<Tally> {
    place.cargo().args(["fmt", "--all", "--check"]).must(place.limit)?;
    Ok(Tally::PASSED)
}

fn build(place: &Place) -> Result<Tally> {
    place.cargo().args(["build", "--locked", "--workspace", "--all-targets"]).must(place.limit)?;
    Ok(Tally::PASSED)
}

fn clippy(place: &Place) -> Result<Tally> {
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    place.cargo().args(clippy).must(place.limit)?;
    Ok(Tally::PASSED)
}

/// The module that the stage `kryoptic` found or built.
static KRYOPTIC: OnceLock<PathBuf> = OnceLock::new();

fn kryoptic(place: &Place) -> Result<Tally> {
    install::debian(kryoptic::PACKAGES, "needed to build Kryoptic", &place.log)?;
    let module = kryoptic::ensure(&cache()?)?;
    KRYOPTIC.set(module).expect("a stage runs once");
    Ok(Tally::PASSED)
}

fn tests(place: &Place) -> Result<Tally> {
    let (python, node) = (install::python(&place.log)?, install::node(&place.log)?);
    let promtool = install::promtool(&place.log)?;
    let mut env =
        vec![("SEGL_PYTHON", python.as_path()), ("SEGL_NODE", node.as_path()), ("SEGL_PROMTOOL", promtool.as_path())];
    match KRYOPTIC.get() {
        Some(module) => env.push(("SEGL_KRYOPTIC", module.as_path())),
        None => println!("  SKIPPED: the tokens' suite on Kryoptic, since its stage was not run or failed"),
    }
    place.tests(&["--workspace"], &[], &env)
}

/// Runs the tests that need Python: the protocol's client, and judges of XML. To the stage `tests` they are ignored.
fn python(place: &Place) -> Result<Tally> {
    let python = install::python(&place.log)?;
    let mut tally = place.tests(&["--workspace"], &["python::"], &[("SEGL_PYTHON", &python)])?;
    tally.skipped = 0;
    Ok(tally)
}

/// A few seconds a target: that all of them build and run, and what the seeds and their nearest neighbours find.
fn fuzz(place: &Place) -> Result<Tally> {
    fuzz::all(None, FUZZ_SECONDS, &place.log)
}

fn demo(place: &Place) -> Result<Tally> {
    let mut tally = Tally::default();
    for token in ["embedded", "softhsm"] {
        // Not by our own executable's path: the build may have put another in its place.
        let xtask = ["run", "--locked", "--quiet", "--package", "xtask", "--", "demo", "--once", "--token", token];
        let finished = place.cargo_with_programs().args(xtask).must(place.limit);
        match finished {
            Ok(_) => tally.passed += 1,
            Err(error) => {
                println!("  {error}");
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

/// Seconds of seeds. What proves that they mean something, `cargo xtask simulate --prove`, takes minutes.
const SIMULATED_S: u64 = 20;

fn simulator(place: &Place) -> Result<Tally> {
    simulate::stage(&place.log, SIMULATED_S, place.limit)?;
    Ok(Tally::PASSED)
}

/// Seconds of load in a soak, and what its troubles are drawn from: as in the simulator's stage always the same.
const SOAKED: [&str; 4] = ["--seconds", "25", "--seed", "1"];

fn soak(place: &Place) -> Result<Tally> {
    let xtask = ["run", "--locked", "--quiet", "--package", "xtask", "--", "soak"];
    let output = place.cargo_with_programs().args(xtask).args(SOAKED).must(place.limit)?.output()?;
    for line in output.lines().filter(|line| line.starts_with("clients") || line.starts_with("The promise")) {
        println!("  {line}");
    }
    Ok(Tally::PASSED)
}

/// Runs the end-to-end tests that need a container. To the stage `tests` they are ignored ones.
fn systemd(place: &Place) -> Result<Tally> {
    if let Some(why) = nspawn::obstacle() {
        println!("  SKIPPED: {why}");
        return Ok(Tally { skipped: 1, ..Tally::default() });
    }
    let root = nspawn::root(&place.log)?;
    let env = [("SEGL_NSPAWN_ROOT", root.as_path())];
    let mut tally = place.tests(&["--workspace"], &["systemd::"], &env)?;
    tally.skipped = 0;
    Ok(tally)
}

impl Place {
    fn cargo(&self) -> Job {
        Job::new("cargo", &workspace(), self.log.clone())
    }

    /// With the programs that the stage `build` has made, with the same features as everything else.
    fn cargo_with_programs(&self) -> Job {
        self.cargo().env("SEGL_BIN_DIR", workspace().join("target/debug"))
    }

    /// Runs tests with nextest, or with `cargo test` where nextest is not installed; with `only`, the ignored tests
    /// whose names contain it.
    fn tests(&self, which: &[&str], only: &[&str], env: &[(&str, &Path)]) -> Result<Tally> {
        let nextest = install::on_path("cargo-nextest");
        let mut job = self.cargo_with_programs();
        for (name, value) in env {
            job = job.env(name, value);
        }
        job = if nextest {
            job.args(["nextest", "run", "--locked", "--no-fail-fast", "--hide-progress-bar"]).args(which)
        } else {
            job.args(["test", "--locked", "--no-fail-fast"]).args(which)
        };
        job = match (nextest, only.is_empty()) {
            (_, true) => job,
            (true, false) => job.args(["--run-ignored", "only", "--no-tests", "fail"]).args(only),
            (false, false) => job.args(["--", "--ignored"]).args(only),
        };
        let finished = job.run(self.limit)?;
        let mut tally = Tally::of_test_output(&finished.output()?);
        if !finished.status.success() {
            println!("{}", finished.tail());
            println!("  (all of it: {})", finished.log.display());
            // A build that broke, or a run that was killed, has no failed test to show for it.
            tally.failed = tally.failed.max(1);
        }
        Ok(tally)
    }
}

//! `cargo xtask package`: the Debian packages, `segld` (with `segl`) and `segl-broker`.
//!
//! Plain dpkg-deb over a tree that is made here; what goes where stands in [`contents`], what dpkg runs in `debian/`.
//! The same commit gives the same bytes: files have the commit's time and belong to root, and with the profile
//! `release` the paths of the building machine are kept out of the programs.

mod contents;
mod deb;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};

use crate::{Result, command, command::Job, workspace};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How the programs are built. `dev` is quick, slow to run and for tests
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// Where the packages go
    #[arg(long, value_name = "DIRECTORY", default_value = "target/debian")]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// As it is installed
    Release,
    /// As `cargo build` makes it; those that SEGL_BIN_DIR names, if it is set
    Dev,
}

/// Longest that a build may take, from nothing and on a machine with other work.
const BUILD: Duration = Duration::from_secs(3600);
/// The same for the other commands, which take seconds.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    command::on_signal(|| std::process::exit(130))?;
    let root = workspace();
    let out = root.join(&arguments.out);
    std::fs::create_dir_all(&out)?;
    let log = out.join("package.log");
    let epoch_s = source_date()?;
    let programs = build(arguments.profile, &log)?;

    let share = out.join("share");
    if share.exists() {
        std::fs::remove_dir_all(&share)?;
    }
    let manual = Job::new(programs.join("segl-manual"), &root, log.clone());
    manual.arg("--date").arg(date(epoch_s)?).arg(&share).must(LIMIT)?;

    let version = env!("CARGO_PKG_VERSION");
    for package in contents::PACKAGES {
        let tree = deb::Tree::new(&out.join(package.name), &log, arguments.profile == Profile::Dev)?;
        package.fill(&tree, &root, &programs, &share)?;
        let made = tree.build(package.name, version, epoch_s)?;
        println!("{}", made.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the programs and returns where they are. One after the other: together they would get each other's features,
/// and segld is to be without the broker's.
fn build(profile: Profile, log: &Path) -> Result<PathBuf> {
    if let (Profile::Dev, Some(built)) = (profile, std::env::var_os("SEGL_BIN_DIR")) {
        return Ok(built.into());
    }
    let root = workspace();
    // Flags of its own make a build of its own; it must not push the others' out of their directory.
    let target = if profile == Profile::Release { root.join("target/package") } else { root.join("target") };
    // Last the one that holds both, and nothing that is shipped.
    for package in ["segl-broker", "segl-daemon", "segl-manual"] {
        let mut cargo = Job::new("cargo", &root, log.to_path_buf())
            .args(["build", "--locked", "--bins", "--package", package, "--target-dir"])
            .arg(&target);
        if profile == Profile::Release {
            cargo = cargo.arg("--release").env("RUSTFLAGS", remap(&root)?);
        }
        cargo.must(BUILD)?;
    }
    Ok(target.join(if profile == Profile::Release { "release" } else { "debug" }))
}

/// Keeps where it was built, and by whom, out of panics and line tables.
fn remap(root: &Path) -> Result<String> {
    let cargo_home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").ok_or("neither CARGO_HOME nor HOME is set")?).join(".cargo"),
    };
    let pair = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    Ok([pair(root, "/usr/src/segl"), pair(&cargo_home, "/usr/src/cargo")].join(" "))
}

/// When what is packaged was made, in Unix seconds: `SOURCE_DATE_EPOCH`, or the last commit.
fn source_date() -> Result<u64> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return epoch.parse().map_err(|_| format!("SOURCE_DATE_EPOCH is no number of seconds: {epoch}").into());
    }
    let mut git = std::process::Command::new("git");
    let output = git.current_dir(workspace()).args(["log", "-1", "--format=%ct"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| "neither SOURCE_DATE_EPOCH nor a git commit says when this was made".into())
}

/// As man pages have it.
fn date(epoch_s: u64) -> Result<String> {
    let output = std::process::Command::new("date").args(["-u", "+%F", "-d", &format!("@{epoch_s}")]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

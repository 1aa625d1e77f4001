//! The project's chores, as `cargo xtask CHORE`: what needs more than one cargo command, or a machine prepared for it.

mod command;
mod demo;
mod fuzz;
mod install;
mod kryoptic;
mod nspawn;
mod package;
mod simulate;
mod soak;
mod stages;
mod tally;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// A chore's failure is a sentence for the person who typed the command; no code tells them apart.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(about = "The project's chores", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Installs what the tests need, runs everything in stages and prints the totals
    Test(stages::Arguments),
    /// Makes an installation under target/demo, signs with every kind of key over HTTP, and lets openssl verify
    Demo(demo::Arguments),
    /// Throws random bytes, guided by coverage, at whatever reads bytes from outside
    Fuzz(fuzz::Arguments),
    /// Puts the pool's Core under random fire in virtual time, or proves that the simulator would notice a broken Core
    Simulate(simulate::Arguments),
    /// Runs segld at full load on HSMs that misbehave at random, and tells whether its promise held
    Soak(soak::Arguments),
    /// Builds the Debian packages of segld (with segl) and segl-broker
    Package(package::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Test(arguments) => stages::run(&arguments),
        Chore::Demo(arguments) => demo::run(&arguments),
        Chore::Fuzz(arguments) => fuzz::run(&arguments),
        Chore::Simulate(arguments) => simulate::run(&arguments),
        Chore::Soak(arguments) => soak::run(&arguments),
        Chore::Package(arguments) => package::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error}");
        ExitCode::FAILURE
    })
}

/// The workspace's root: cargo says where this crate's manifest is, whatever the current directory.
fn workspace() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask is a folder of the workspace").to_path_buf()
}

/// Where slow things are kept between builds and clones: outside `target`, each under a name with its version.
fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").ok_or("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    let dir = base.join("segl");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

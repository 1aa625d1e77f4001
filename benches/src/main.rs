//! `segl-bench`: numbers that can be trusted.

mod bare;
mod build;
mod commands;
mod cpu;
mod installation;
mod key;
mod load;
mod report;
mod statistics;
mod token;
mod wakeup;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use segl_bench::hot_path;

use commands::{ceiling, instructions, load as load_command, month, ratio, sweep};

/// Numbers about Segl that can be trusted.
///
/// Machines drift and are shared: a throughput read today says little about one read yesterday. So what matters is measured
/// as a ratio of two things in turn, in the same minute, on the same cores. Begin with `ratio`; `docs/PERFORMANCE.md` tells
/// the method.
#[derive(Parser)]
#[command(name = "segl-bench", version, disable_help_subcommand = true, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Ceiling(Box<ceiling::Arguments>),
    Load(Box<load_command::Arguments>),
    Ratio(Box<ratio::Arguments>),
    Month(Box<month::Arguments>),
    Sweep(Box<sweep::Arguments>),
    Instructions(instructions::Arguments),
    /// The token alone, in a process of its own, as orders come on standard input
    #[command(hide = true)]
    Worker {
        assignment: String,
    },
    /// A part of the hot path, for callgrind
    #[command(hide = true)]
    HotPath {
        part: String,
        times: u64,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Ceiling(arguments) => ceiling::run(&arguments),
        Command::Load(arguments) => load_command::run(&arguments),
        Command::Ratio(arguments) => ratio::run(&arguments),
        Command::Month(arguments) => month::run(&arguments),
        Command::Sweep(arguments) => sweep::run(&arguments),
        Command::Instructions(arguments) => instructions::run(&arguments),
        Command::Worker { assignment } => worker::main(&assignment).map(|()| ExitCode::SUCCESS),
        Command::HotPath { part, times } => hot_path::run(&part, times).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("segl-bench: {error}");
        ExitCode::from(2)
    })
}

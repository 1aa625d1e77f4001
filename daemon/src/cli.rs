//! segld's command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

/// The signing daemon: holds the only road to the HSMs, and takes requests over mutual TLS.
///
/// SIGHUP reads the configuration again (certificates, CAs, CRLs, tenants, keys; all or nothing), SIGTERM drains and
/// stops. The log says what is in force, /readyz on the admin address which keys can sign.
#[derive(Parser)]
#[command(name = "segld", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    configuration: Option<Configuration>,
}

#[derive(Args)]
struct Configuration {
    /// The configuration file (TOML); segld.toml(5) describes it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Says everything that is wrong with a configuration, with line and column, and starts nothing
    Check(Configuration),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match (arguments.command, arguments.configuration) {
        (Some(Command::Check(Configuration { config })), _) => crate::check(&config),
        (None, Some(Configuration { config })) => crate::run(&config),
        (None, None) => {
            eprintln!("segld: --config FILE is needed; segld --help says more");
            ExitCode::from(2)
        }
    }
}

/// The command line's definition, for the manual.
pub fn command() -> clap::Command {
    Arguments::command()
}

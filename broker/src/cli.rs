//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{callers, config::Config, run};

/// Gives Segl's signatures to everyone who speaks HTTP.
///
/// Callers send JSON over HTTPS and are told apart by bearer token or client certificate. Each belongs to one tenant,
/// and its requests travel to segld over mutual TLS with that tenant's own certificate.
#[derive(Debug, Parser)]
#[command(
    name = "segl-broker",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Signals:
  SIGHUP   reads the configuration, certificates and keys again, all or nothing; connections are told to come again
  SIGTERM  stops accepting, finishes what is in flight within drain_timeout_ms, exits 0

Examples:
  segl-broker new-token                                          a token for a caller, and its hash for the configuration
  segl-broker check --config /etc/segl/broker/segl-broker.toml   everything that is wrong, with line numbers
  segl-broker --config /etc/segl/broker/segl-broker.toml         serve until SIGTERM

  curl -H \"Authorization: Bearer $TOKEN\" https://broker:8443/v1/keys"
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file (TOML); segl-broker.toml(5) describes it
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell everything that is wrong with a configuration and the files it names, then exit: 0 when nothing is
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Make a bearer token of 32 random bytes and print it with its SHA-256: the token is for the caller, the hash for
    /// `bearer_sha256`. The token is shown once and kept nowhere
    NewToken,
}

/// The command line's definition, for the manual.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match (arguments.command, arguments.config) {
        (Some(Command::Check { config }), _) => check(&config),
        (Some(Command::NewToken), _) => new_token(),
        (None, Some(config)) => run::main(&config),
        (None, None) => unreachable!("clap demands --config without a subcommand"),
    }
}

fn check(path: &std::path::Path) -> ExitCode {
    match Config::open(path) {
        Ok((config, loaded)) => {
            println!(
                "{}: good; {} callers, {} tenants, {} segld",
                path.display(),
                config.callers.len(),
                config.tenants.len(),
                config.segld.len()
            );
            for warning in loaded.warnings.into_iter().chain(run::expiry_warnings(&loaded.expiries)) {
                println!("warning: {warning}");
            }
            ExitCode::SUCCESS
        }
        Err(findings) => {
            for finding in &findings.0 {
                eprintln!("{}:{}: {}", path.display(), finding.line, finding.message);
            }
            ExitCode::FAILURE
        }
    }
}

fn new_token() -> ExitCode {
    match callers::new_token() {
        Ok((token, hash)) => {
            println!("token         {}", token.as_str());
            println!("bearer_sha256 {hash}");
            ExitCode::SUCCESS
        }
        Err(_) => {
            eprintln!("the system gives no random numbers");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
        assert!(Arguments::try_parse_from(["segl-broker"]).is_err());
        assert!(Arguments::try_parse_from(["segl-broker", "check", "--config", "x"]).is_ok());
        assert!(Arguments::try_parse_from(["segl-broker", "--config", "x"]).is_ok());
        assert!(Arguments::try_parse_from(["segl-broker", "new-token"]).is_ok());
    }
}

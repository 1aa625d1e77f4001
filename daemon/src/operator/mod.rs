//! `segl`, the operator's command: its tree of subcommands, one file each, and what runs them.
//!
//! What looks at files (`audit`, `check`) needs no segld; everything else asks the one that runs, over its control
//! socket ([`crate::control`]). A subcommand of its own, such as a doctor for the host (`doctor/`) or ceremonies that
//! make keys (`ceremony/`), gets a folder here, a variant in [`Command`] once it does something, and its own `run`.
//!
//! [`command`] is the tree for those who make man pages and completions of it.

mod ask;
mod audit;
mod check;
mod doctor;
mod keys;
mod log_level;
mod paint;
mod pin;
mod reload;
mod selftest;
mod status;
mod token;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

/// The operator's command: shows what segld does and what it has recorded, and tells it what to do.
///
/// Root and members of the group segl-operator may ask and change, members of [control] `watcher_group` may ask; every
/// command that changes something, or uses a key, is recorded in the audit journal before it is carried out.
#[derive(Parser)]
#[command(name = "segl", version, after_help = EXIT_STATUS)]
struct Arguments {
    #[command(flatten)]
    reach: ask::Reach,
    #[command(subcommand)]
    command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 done or all well; 1 refused, failed or, for status, degraded; 2 nothing is signed (status); \
                           3 segld can not be reached, or the command line is wrong.";

/// The command line is no command, or segld is not there: nothing is known, which monitoring calls 3.
const UNKNOWN: u8 = 3;

#[derive(Subcommand)]
enum Command {
    Status(status::Status),
    Top(top::Top),
    Keys(keys::Keys),
    /// Tokens: give one no more work, take it in again, begin its module anew
    #[command(subcommand)]
    Token(token::Token),
    /// PINs that a token has refused
    #[command(subcommand)]
    Pin(pin::Pin),
    Selftest(selftest::Selftest),
    Reload(reload::Reload),
    LogLevel(log_level::LogLevel),
    Check(check::Check),
    Doctor(doctor::Doctor),
    /// The audit journal
    #[command(subcommand)]
    Audit(audit::Audit),
}

/// The whole tree of commands and options.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Does what the command line says; the status is the process's.
pub fn run() -> ExitCode {
    let Arguments { reach, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Where it can not be printed nobody would read a complaint either.
            let _ = error.print();
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(UNKNOWN) };
        }
    };
    match command {
        Command::Status(status) => status::run(&reach, &status),
        Command::Top(top) => top::run(&reach, &top),
        Command::Keys(keys) => keys::run(&reach, &keys),
        Command::Token(token) => token::run(&reach, &token),
        Command::Pin(pin) => pin::run(&reach, &pin),
        Command::Selftest(selftest) => selftest::run(&reach, selftest),
        Command::Reload(reload) => reload::run(&reach, &reload),
        Command::LogLevel(level) => log_level::run(&reach, level),
        Command::Check(check) => check::run(&check),
        Command::Doctor(doctor) => doctor::run(&reach, &doctor),
        Command::Audit(audit) => audit::run(audit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound_and_says_what_each_is_for() {
        command().debug_assert();
        fn look(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            command.get_subcommands().for_each(look);
        }
        look(&command());
    }
}

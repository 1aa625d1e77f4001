//! `segl log-level`: how much is logged, until the next start.

use std::process::ExitCode;

use clap::Args;

use super::{ask, paint::plain};
use crate::{
    config,
    control::{Answer, Request},
};

/// Says how much is logged, or changes it until the next start
#[derive(Args)]
pub(super) struct LogLevel {
    /// The new level
    #[arg(value_name = "LEVEL", value_parser = clap::builder::PossibleValuesParser::new(
        config::LogLevel::ALL.map(config::LogLevel::name)
    ))]
    level: Option<String>,
}

pub(super) fn run(reach: &ask::Reach, arguments: LogLevel) -> ExitCode {
    match reach.ask(&Request::LogLevel { level: arguments.level }) {
        Ok(Answer::LogLevel(level)) => {
            println!("{}", plain(&level));
            ExitCode::SUCCESS
        }
        Ok(_) => ask::unexpected(),
        Err(error) => ask::complain(&error),
    }
}

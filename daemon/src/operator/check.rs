//! `segl check`: what segld would say of a configuration, before it is asked to.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

/// Says everything that is wrong with a configuration, with line and column; 0 if segld would take it
#[derive(Args)]
pub(super) struct Check {
    /// The configuration file (TOML)
    #[arg(value_name = "FILE", default_value = "/etc/segl/segld/segld.toml")]
    file: PathBuf,
    /// The same, as segld itself is told
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
}

pub(super) fn run(check: &Check) -> ExitCode {
    crate::check(check.config.as_ref().unwrap_or(&check.file))
}

//! `segl reload`: the configuration read again, and whether it was taken.

use std::process::ExitCode;

use clap::Args;

use super::ask::Reach;
use crate::control::Request;

/// Reads the configuration again: certificates, CAs, CRLs, tenants, keys; all of it or nothing
///
/// SIGHUP does the same, and tells nobody what came of it.
#[derive(Args)]
pub(super) struct Reload {
    /// Wait until it is taken, or refused: then say why on standard error and exit with 1
    #[arg(long)]
    wait: bool,
}

pub(super) fn run(reach: &Reach, arguments: &Reload) -> ExitCode {
    reach.tell(&Request::Reload { wait: arguments.wait })
}

//! `segl doctor`: looks at the host before an installation and at any time after, and says for everything it looks at
//! what was seen, whether that is well, and what to do. One file a group of checks.
//!
//! It changes nothing, needs no segld, and asks the one that runs for what only that can know.

mod certificates;
mod check;
mod child;
mod credentials;
mod host;
mod installation;
mod keys;
mod limits;
mod process;
mod tokens;
mod unit;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use self::{
    check::{Check, Outcome, Report},
    unit::{Process, Unit},
};
use super::ask::Reach;
use crate::{
    config::{self, Draft, Findings},
    control::{Answer, Request, Status},
};

/// Where the package's unit has it.
const CONFIGURATION: &str = "/etc/segl/segld/segld.toml";

/// How long segld may take to say how it is.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// Looks at the host, the installation and the segld that runs, and says for each thing what to do.
///
/// Checked are kernel, io_uring, clock and host pin; the configuration and who may change it; the unit, its limits, cores
/// and sandbox; PINs and private keys on the disk; certificates and revocation lists; whether modules load and tokens are
/// seen, and whether every key signs. Works before an installation too: what can not be told then is `not known`.
///
/// Run it as root to see everything. A module is loaded in a process of its own, and only while no segld runs here.
///
/// Exit status: 0 nothing is wrong, 1 there are warnings, 2 there are problems.
#[derive(Args)]
#[command(after_help = "\
Examples:
  segl doctor                                  the installation of this host
  segl doctor --config ./segld.toml            with a configuration that is being written
  segl doctor --json | jq '.checks[] | select(.outcome == \"problem\")'")]
pub(super) struct Doctor {
    /// The configuration of the segld on this host
    #[arg(long, value_name = "FILE", default_value = CONFIGURATION)]
    config: PathBuf,
    /// One JSON object: `outcome`, and `checks` with `name`, `outcome`, `seen` and `advice`
    #[arg(long)]
    json: bool,
    /// The doctor's own: what a process of its own is started for
    #[arg(long = "look-into", hide = true, num_args = 2, value_names = ["MODULE", "URI"])]
    look_into: Vec<PathBuf>,
}

/// What is looked at.
struct Subject<'a> {
    /// The configuration's file
    path: &'a Path,
    /// What of it could be read
    draft: Option<Draft>,
    findings: Findings,
    unit: Option<Unit>,
    /// The unit's process
    process: Option<Process>,
    /// What the segld that runs says
    status: Option<Status>,
    /// segld's user
    user: Option<u32>,
    group: Option<u32>,
}

impl Subject<'_> {
    /// Whether a segld is at work here.
    fn runs(&self) -> bool {
        self.process.is_some() || self.status.is_some()
    }

    /// For what rests on a configuration that could not be read.
    fn unread(&self, name: &str) -> Check {
        Check::not_known(name, "the configuration can not be read", "see `configuration`")
    }
}

/// Looks at everything and prints it.
pub(super) fn run(reach: &Reach, arguments: &Doctor) -> ExitCode {
    if !arguments.look_into.is_empty() {
        return tokens::survey(&arguments.look_into);
    }
    let report = Report::new(examine(&arguments.config, status(reach)));
    if arguments.json {
        match serde_json::to_string_pretty(&report) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("segl: {error}"),
        }
    } else {
        println!("{}", report.text());
    }
    ExitCode::from(report.status())
}

fn examine(path: &Path, status: Option<Status>) -> Vec<Check> {
    let (draft, findings) = config::draft(path);
    let unit = Unit::look();
    let process = match &status {
        Some(status) => Process::look(status.daemon.pid),
        None => unit.as_ref().and_then(Unit::process),
    };
    let name = unit.as_ref().and_then(|unit| unit.property("User")).unwrap_or("segl");
    let (user, group) = user(name).unzip();
    let subject = Subject { path, draft, findings, unit, process, status, user, group };
    let groups = [
        host::checks,
        installation::checks,
        limits::checks,
        process::checks,
        credentials::checks,
        certificates::checks,
        tokens::checks,
        keys::checks,
    ];
    groups.iter().flat_map(|checks| checks(&subject)).collect()
}

/// What the segld that runs says of itself, if one does.
fn status(reach: &Reach) -> Option<Status> {
    match reach.connect().ok()?.ask(&Request::Status {}, STATUS_LIMIT).ok()? {
        Answer::Status(status) => Some(*status),
        _ => None,
    }
}

/// User and group id, wherever the host keeps its users.
fn user(name: &str) -> Option<(u32, u32)> {
    let user = nix::unistd::User::from_name(name).ok()??;
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

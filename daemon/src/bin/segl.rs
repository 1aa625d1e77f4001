//! segl, the operator's command.

use std::process::ExitCode;

fn main() -> ExitCode {
    segl_daemon::operator::run()
}

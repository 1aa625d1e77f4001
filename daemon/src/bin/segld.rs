//! segld, the signing daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    segl_daemon::cli::main()
}

//! The `segl-broker` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    segl_broker::cli::main()
}

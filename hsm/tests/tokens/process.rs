//! A test in a process of its own: C_Initialize is once per process, and a module reads its configuration from the
//! environment, which a process with threads can not change.

use std::{
    env,
    ffi::OsString,
    path::Path,
    process::{Command, Output},
};

const DIRECTORY: &str = "SEGL_TEST_DIRECTORY";

/// Runs the test named `test` again as a child with the variables that `environment` makes of a fresh directory, and
/// there `body`.
pub(crate) fn in_own_process(
    test: &str,
    environment: impl FnOnce(&Path) -> Vec<(&'static str, OsString)>,
    body: impl FnOnce(&Path),
) {
    if let Some(directory) = env::var_os(DIRECTORY) {
        return body(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let variables = environment(directory.path());
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory.path())
        .envs(variables)
        .output()
        .unwrap();
    let output = text(&child);
    print!("{output}");
    // A name that selects nothing would pass as well, so the child must have run one test.
    assert!(child.status.success() && output.contains("1 passed"), "{test} failed in its own process");
}

/// Runs a command to its end and gives what it printed; panics when it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}. `cargo xtask test` installs what the tests need");
    });
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

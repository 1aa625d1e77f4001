//! Finds the built programs.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::run;

/// The workspace's root.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("tests is a folder of the workspace").to_path_buf()
}

/// `segld`, the daemon.
pub fn segld() -> PathBuf {
    directory().join("segld")
}

/// `segl`, the operator's command.
pub fn segl() -> PathBuf {
    directory().join("segl")
}

/// `segl-broker`.
pub fn broker() -> PathBuf {
    directory().join("segl-broker")
}

/// Runs a chore, as `cargo xtask` does, with the programs that are built.
pub fn xtask() -> Command {
    let mut command = Command::new(directory().join("xtask"));
    command.current_dir(workspace()).env("SEGL_BIN_DIR", directory());
    command
}

/// Says that the programs have been built, and where they are.
pub fn built_in(directory: PathBuf) {
    // Said twice, or after the first use, it changes nothing.
    let _ = DIRECTORY.set(directory);
}

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Where the programs are: as [`built_in`] or `SEGL_BIN_DIR` says, otherwise they are built first, so that no test ever
/// runs yesterday's daemon: once a process, and under nextest, where each test is one, once a run.
fn directory() -> &'static Path {
    DIRECTORY.get_or_init(|| {
        if let Some(dir) = std::env::var_os("SEGL_BIN_DIR") {
            return PathBuf::from(dir);
        }
        let directory = target().join("debug");
        let run_id = std::env::var("NEXTEST_RUN_ID").unwrap_or_default();
        let stamp = directory.join("segl-programs-built-for");
        if !run_id.is_empty() && std::fs::read_to_string(&stamp).is_ok_and(|built_for| built_for == run_id) {
            return directory;
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--bins"]);
        for package in ["segl-daemon", "segl-broker", "segl-manual", "xtask"] {
            cargo.args(["--package", package]);
        }
        run(cargo.current_dir(workspace())).expect("the programs build");
        std::fs::write(stamp, run_id).expect("the target directory was just written to");
        directory
    })
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

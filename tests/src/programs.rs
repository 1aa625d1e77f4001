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

/// Where the programs are: `SEGL_BIN_DIR` when somebody has built them already, otherwise they are built once a
/// process, so that no test ever runs yesterday's daemon.
fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        if let Some(dir) = std::env::var_os("SEGL_BIN_DIR") {
            return PathBuf::from(dir);
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", "segl-daemon", "--package", "segl-broker", "--bins"]);
        run(cargo.current_dir(workspace())).expect("the programs build");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
        target.join("debug")
    })
}

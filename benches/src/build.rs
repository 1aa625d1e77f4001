//! The programs that the bench starts: built first where the sources are, so that nobody measures yesterday's segld.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use segl_tests::{Result, programs};

/// Where the built programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    directory: PathBuf,
    /// How they came there, for the report
    pub(crate) origin: String,
}

impl Programs {
    /// Builds segld and the simulated token with the profile this program was built with, if it lies in the target
    /// directory of its own sources; else, and with `as_they_are`, takes those beside it.
    pub(crate) fn find(as_they_are: bool) -> Result<Programs> {
        let own = std::env::current_exe()?;
        let directory = own.parent().ok_or("this program lies nowhere")?.to_path_buf();
        let sources = programs::workspace();
        let in_target = directory.starts_with(programs::target()) && sources.join("Cargo.toml").exists();
        if as_they_are || !in_target {
            let origin = format!("as found in {}", directory.display());
            let found = Programs { directory, origin };
            found.segld()?;
            found.tell();
            return Ok(found);
        }
        let release = !cfg!(debug_assertions);
        eprintln!("building segld and the simulated token ({}), if they are not yet", profile(release));
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(sources).args(["build", "--package", "segl-daemon", "--package", "segl-simulated-token"]);
        if release {
            cargo.arg("--release");
        }
        if !cargo.status()?.success() {
            return Err("segld does not build".into());
        }
        let programs = Programs { directory, origin: format!("built from the sources, {}", profile(release)) };
        programs.tell();
        Ok(programs)
    }

    pub(crate) fn segld(&self) -> Result<PathBuf> {
        there(self.directory.join("segld"))
    }

    pub(crate) fn simulated_token(&self) -> Result<PathBuf> {
        there(self.directory.join("libsegl_simulated_token.so"))
    }

    fn tell(&self) {
        eprintln!("segld: {}, {}", self.directory.join("segld").display(), self.origin);
        if cfg!(debug_assertions) {
            eprintln!("THIS IS A DEVELOPMENT BUILD: its figures say nothing; use cargo run --release");
        }
    }
}

fn profile(release: bool) -> &'static str {
    if release { "release" } else { "DEVELOPMENT BUILD" }
}

fn there(path: PathBuf) -> Result<PathBuf> {
    if !Path::exists(&path) {
        return Err(format!("there is no {}; from a clone: cargo run --release -p segl-bench", path.display()).into());
    }
    Ok(path)
}

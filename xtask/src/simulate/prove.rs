//! The mutation check: Core is broken in ways that are each documented, and the simulator must notice.
//!
//! What is broken is a copy of the pool in a workspace of its own under `target`, by an exact search and replace: the
//! code itself carries no hooks for it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::mutations::{MUTATIONS, Mutation};
use crate::{
    Result,
    command::{Finished, Job},
    workspace,
};

/// Seeds that Core as it is must pass, and in which each broken one must be found.
const SEEDS: u64 = 1_500;
/// Longest for a build or a run of the copy.
const LIMIT: Duration = Duration::from_secs(180);

/// Whether Core as it is passes, and each broken one is found.
pub(super) fn run(log: &Path, only: &str) -> Result<bool> {
    let started = Instant::now();
    let copy = Copy::make(log)?;
    copy.build()?;
    let whole = copy.play()?;
    if !whole.status.success() {
        return Err(format!("Core as it is does not pass:\n{}", whole.tail()).into());
    }
    println!("  Core as it is: {SEEDS} seeds passed");
    let mut proved = true;
    let mut table = Vec::new();
    for mutation in MUTATIONS.iter().filter(|mutation| mutation.name.contains(only)) {
        copy.mutate(mutation)?;
        let built = copy.build();
        copy.restore(mutation)?;
        built.map_err(|error| format!("mutation {:?} does not compile: {error}", mutation.name))?;
        let found = found_by(&copy.play()?)?;
        proved &= found.is_some();
        let found = found.map_or("NOT FOUND".to_owned(), |(seed, promise)| format!("seed {seed}: {promise}"));
        table.push(format!("{:<34} {found}", mutation.name));
    }
    println!("  {:<34} found by", "mutation");
    for line in table {
        println!("  {line}");
    }
    println!("  proved in {} s", started.elapsed().as_secs());
    Ok(proved)
}

/// The seed and the promise, from the last line of a run that found something.
fn found_by(finished: &Finished) -> Result<Option<(u64, String)>> {
    let output = finished.output()?;
    let last = output.lines().rev().find(|line| line.starts_with("broken ") || line.starts_with("passed "));
    match last.and_then(|line| line.strip_prefix("broken ")).and_then(|found| found.split_once(' ')) {
        Some((seed, promise)) => Ok(Some((seed.parse()?, promise.to_owned()))),
        None if last.is_some() => Ok(None),
        // A broken Core may also go round for ever; it is no proof of anything.
        None => Err(format!("the run ended without a word:\n{}", finished.tail()).into()),
    }
}

/// A workspace of the pool and what it needs.
struct Copy {
    root: PathBuf,
    log: PathBuf,
}

impl Copy {
    fn make(log: &Path) -> Result<Copy> {
        let root = workspace().join("target/simulate/workspace");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        for (crate_dir, parts) in [("pool", &["src", "examples"][..]), ("hsm", &["src"])] {
            for part in parts {
                copy_dir(&workspace().join(crate_dir).join(part), &root.join(crate_dir).join(part))?;
            }
            let manifest = fs::read_to_string(workspace().join(crate_dir).join("Cargo.toml"))?;
            fs::write(root.join(crate_dir).join("Cargo.toml"), without_section(&manifest, "[dev-dependencies]"))?;
        }
        fs::copy(workspace().join("Cargo.lock"), root.join("Cargo.lock"))?;
        let manifest = fs::read_to_string(workspace().join("Cargo.toml"))?;
        fs::write(root.join("Cargo.toml"), workspace_manifest(&manifest)?)?;
        let copy = Copy { root, log: log.to_path_buf() };
        for mutation in MUTATIONS {
            copy.mutated(mutation)?;
        }
        Ok(copy)
    }

    /// The file's text with the mutation in it.
    fn mutated(&self, mutation: &Mutation) -> Result<String> {
        let text = fs::read_to_string(workspace().join(mutation.file))
            .map_err(|error| format!("mutation {:?}: {}: {error}", mutation.name, mutation.file))?;
        match text.matches(mutation.from).count() {
            1 => Ok(text.replacen(mutation.from, mutation.to, 1)),
            count => Err(format!(
                "mutation {:?}: its pattern is found {count} times in {}, not once. The code has changed: \
                 say in xtask/src/simulate/mutations.rs where it breaks now",
                mutation.name, mutation.file
            )
            .into()),
        }
    }

    fn mutate(&self, mutation: &Mutation) -> Result<()> {
        Ok(fs::write(self.root.join(mutation.file), self.mutated(mutation)?)?)
    }

    fn restore(&self, mutation: &Mutation) -> Result<()> {
        fs::copy(workspace().join(mutation.file), self.root.join(mutation.file))?;
        Ok(())
    }

    fn build(&self) -> Result<()> {
        let build = ["build", "--offline", "--quiet", "--package", "segl-pool", "--features", "simulator"];
        // What is broken has unused parts.
        let job = Job::new("cargo", &self.root, self.log.clone()).args(build).args(["--example", "simulate"]);
        job.env("CARGO_TARGET_DIR", self.target()).env("RUSTFLAGS", "-Awarnings").must(LIMIT)?;
        Ok(())
    }

    fn play(&self) -> Result<Finished> {
        // A run that finds something appends to the log, and the last word counts.
        if self.log.exists() {
            fs::remove_file(&self.log)?;
        }
        let program = self.target().join("debug/examples/simulate");
        let numbers = ["0".to_owned(), SEEDS.to_string(), "0".to_owned()];
        Job::new(program, &self.root, self.log.clone()).args(numbers).run(LIMIT)
    }

    fn target(&self) -> PathBuf {
        workspace().join("target/simulate/target")
    }
}

/// The workspace's manifest for the copy: two members, and a profile that is quick to build.
fn workspace_manifest(manifest: &str) -> Result<String> {
    let (head, _) =
        manifest.split_once("\n# One profile for").ok_or("the workspace's profiles are not where they were")?;
    let is_list = |line: &&str| line.starts_with("members = ");
    let members = head.lines().find(is_list).ok_or("the workspace lists no members")?;
    let head = head.replace(members, "members = [\"hsm\", \"pool\"]");
    Ok(format!("{head}\n[profile.dev]\nopt-level = 1\ndebug = false\n"))
}

/// A manifest without one of its sections.
fn without_section(manifest: &str, section: &str) -> String {
    let mut inside = false;
    let kept = manifest.lines().filter(|line| {
        inside = if line.starts_with('[') { *line == section } else { inside };
        !inside
    });
    kept.collect::<Vec<_>>().join("\n")
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_still_names_exactly_one_place_in_the_code_and_changes_it() {
        let copy = Copy { root: PathBuf::new(), log: PathBuf::new() };
        for mutation in MUTATIONS {
            let whole = fs::read_to_string(workspace().join(mutation.file)).unwrap();
            assert_ne!(copy.mutated(mutation).unwrap(), whole, "{}", mutation.name);
        }
    }

    #[test]
    fn a_section_of_a_manifest_is_cut_out_up_to_the_next() {
        let manifest = "[a]\nx = 1\n[dev-dependencies]\ny = 1\n\n[[example]]\nz = 1";
        assert_eq!(without_section(manifest, "[dev-dependencies]"), "[a]\nx = 1\n[[example]]\nz = 1");
    }
}

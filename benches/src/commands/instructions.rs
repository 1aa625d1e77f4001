//! `instructions`: how many machine instructions the hot path takes, by callgrind. Unlike times they repeat exactly, so a
//! regression of a few per cent shows on the noisiest machine.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use clap::Args;
use segl_bench::hot_path;
use segl_tests::Result;

use super::progress;
use crate::report::Table;

/// Instructions of the hot path's parts, by callgrind, against the figures in the repository.
///
/// Each part runs so many times and twice as many times under valgrind; half the difference is the part, without what
/// surrounds it. Exit status: 0; 1 if a part takes more than the tolerance above its figure; 2 for errors.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  segl-bench instructions               (needs valgrind: apt-get install valgrind)
  segl-bench instructions --update      (after a change that is worth its instructions; commit the file)")]
pub(crate) struct Arguments {
    /// Write what was found into the file
    #[arg(long)]
    update: bool,
    /// In per cent above the figure. Compilers differ a little
    #[arg(long, default_value_t = 5.0)]
    tolerance: f64,
    /// The figures
    #[arg(long)]
    figures: Option<PathBuf>,
}

/// How often a part runs.
const TIMES: u64 = 2000;

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let file = arguments
        .figures
        .clone()
        .unwrap_or_else(|| segl_tests::programs::workspace().join("benches/instructions.json"));
    let known: BTreeMap<String, u64> = match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(error) if arguments.update && error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(format!("{}: {error}", file.display()).into()),
    };
    let mut found = BTreeMap::new();
    let mut table = Table::new(&["part", "instructions", "figure in the repository", "change"]);
    let mut worse = Vec::new();
    for part in hot_path::PARTS {
        progress::show(&format!("counting: {}", part.name));
        let count = (instructions(part.name, 2 * TIMES)? - instructions(part.name, TIMES)?) / TIMES;
        let (figure, change) = match known.get(part.name) {
            Some(figure) => {
                let change = 100.0 * (count as f64 / *figure as f64 - 1.0);
                if change > arguments.tolerance {
                    worse.push(part.name);
                }
                (figure.to_string(), format!("{change:+.1}%"))
            }
            None => ("none".to_owned(), String::new()),
        };
        table.row(&[part.name, &count.to_string(), &figure, &change]);
        found.insert(part.name.to_owned(), count);
    }
    progress::end();
    print!("{}", table.text());
    if arguments.update {
        let mut text = serde_json::to_string_pretty(&found)?;
        text.push('\n');
        std::fs::write(&file, text)?;
        return Ok(ExitCode::SUCCESS);
    }
    if cfg!(debug_assertions) {
        progress::say("a development build takes more: the figures are those of --release");
    }
    if !worse.is_empty() {
        eprintln!("more than {}% above the figure: {}", arguments.tolerance, worse.join(", "));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Of the whole program that runs a part so often.
fn instructions(part: &str, times: u64) -> Result<u64> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", out.display()));
    valgrind.arg(std::env::current_exe()?).args(["hot-path", part, &times.to_string()]);
    let output =
        valgrind.output().map_err(|error| format!("valgrind: {error}; on Debian: apt-get install valgrind"))?;
    if !output.status.success() {
        return Err(format!("valgrind: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    total(&out)
}

/// From the line `totals: N` (or `summary: N`).
fn total(out: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(out)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    Ok(total.ok_or("callgrind wrote no total")?.trim().parse()?)
}

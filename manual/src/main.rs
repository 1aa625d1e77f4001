//! Writes Segl's man pages and shell completions: `segl-manual DIRECTORY`.
//!
//! Commands' pages come from the definitions that the programs parse their arguments with, the pages about files and
//! procedures from `docs/`. So nothing here can say anything else than they do. The layout is that of `/usr/share`.

mod chapter;
mod roff;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Command, Parser};
use clap_complete::Shell;

/// Writes man pages and shell completions, laid out as in /usr/share.
#[derive(Parser)]
struct Arguments {
    /// Where to
    directory: PathBuf,
    /// The date at the foot of each page, as 2026-11-30
    #[arg(long)]
    date: String,
}

/// What stands at the foot of each page.
const SOURCE: &str = concat!("Segl ", env!("CARGO_PKG_VERSION"));
const MANUAL: &str = "Segl";

const CONFIGURATION: &str = include_str!("../../docs/CONFIGURATION.md");
const OPERATIONS: &str = include_str!("../../docs/OPERATIONS.md");
const BROKER_SAMPLE: &str = include_str!("../../docs/samples/segl-broker.toml");

fn main() -> ExitCode {
    let Arguments { directory, date } = Arguments::parse();
    match write(&directory, &date) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("segl-manual: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path, date: &str) -> Result<(), Box<dyn Error>> {
    let daemon = segl_daemon::cli::command();
    let broker = segl_broker::cli::command();
    let operator = segl_daemon::operator::command();
    let others = "segl(1), segld.toml(5), segl\\-broker.toml(5), segl\\-operations(7), segld(8), segl\\-broker(8)";
    let see_also = format!(".SH \"SEE ALSO\"\n{others}\n");
    for (command, section) in [(&operator, "1"), (&daemon, "8"), (&broker, "8")] {
        for page in pages(command) {
            let name = page.get_display_name().unwrap_or_else(|| page.get_name()).to_owned();
            let man = clap_mangen::Man::new(page).section(section).date(date).source(SOURCE).manual(MANUAL);
            let mut text = Vec::new();
            man.render(&mut text)?;
            let text = as_it_stands(&String::from_utf8(text)?) + &see_also;
            put(directory, &name, section, &text)?;
        }
    }
    let sample = format!("\n### A whole file\n\n```toml\n{BROKER_SAMPLE}```\n");
    let chapters = [
        ("segld.toml", "5", "configuration of segld", chapter::of(CONFIGURATION, "segld")?.to_owned()),
        ("segl-broker.toml", "5", "configuration of segl-broker", chapter::of(CONFIGURATION, "segl-broker")? + &sample),
        ("segl-operations", "7", "how to run Segl, what to watch, and what to do", OPERATIONS.to_owned()),
    ];
    for (name, section, what, markdown) in chapters {
        let head = roff::Head { name, section, date, source: SOURCE, manual: MANUAL, what };
        put(directory, name, section, &(roff::page(&head, &markdown) + &see_also))?;
    }
    for command in [operator, daemon, broker] {
        complete(directory, command)?;
    }
    Ok(())
}

/// The command and all below it that are not hidden, each of which has a page.
fn pages(command: &Command) -> Vec<Command> {
    fn gather(command: &Command, into: &mut Vec<Command>) {
        into.push(command.clone());
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            gather(below, into);
        }
    }
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    gather(&command, &mut pages);
    pages
}

/// What follows a command's help (signals, examples) keeps its lines, and gets a title that says something.
fn as_it_stands(page: &str) -> String {
    match page.split_once("\n.SH EXTRA\n") {
        Some((before, rest)) => {
            let (extra, after) = rest.split_once("\n.SH ").unwrap_or((rest, "NOTES"));
            format!("{before}\n.SH NOTES\n.nf\n{extra}\n.fi\n.SH {after}")
        }
        None => page.to_owned(),
    }
}

fn put(directory: &Path, name: &str, section: &str, text: &str) -> Result<(), Box<dyn Error>> {
    let section_directory = directory.join(format!("man/man{section}"));
    fs::create_dir_all(&section_directory)?;
    fs::write(section_directory.join(format!("{name}.{section}")), text)?;
    Ok(())
}

fn complete(directory: &Path, mut command: Command) -> Result<(), Box<dyn Error>> {
    let name = command.get_name().to_owned();
    // Under the names by which Debian's shells look for them.
    for (shell, folder, file) in [
        (Shell::Bash, "bash-completion/completions", name.clone()),
        (Shell::Zsh, "zsh/vendor-completions", format!("_{name}")),
        (Shell::Fish, "fish/vendor_completions.d", format!("{name}.fish")),
    ] {
        let folder = directory.join(folder);
        fs::create_dir_all(&folder)?;
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, &name, &mut text);
        fs::write(folder.join(file), text)?;
    }
    Ok(())
}

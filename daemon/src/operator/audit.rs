//! `segl audit`: what the journal says, and whether it is whole. Reads the files, and needs no segld.

use std::{
    io::{self, BufWriter},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use segl_audit::{Filter, Format, Report};

#[derive(Subcommand)]
pub(super) enum Audit {
    /// Reads every byte of a journal and checks headers, checksums, hashes, numbers, and that every outcome has its
    /// intent. Exit status 0: sound, 1: not sound, and where
    Verify {
        /// The journal's directory; it may be in use
        directory: PathBuf,
    },
    /// Prints records, oldest first
    Show(Show),
}

#[derive(Args)]
pub(super) struct Show {
    /// The journal's directory; it may be in use
    directory: PathBuf,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Of this tenant only
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Of this key only
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// With this reference only
    #[arg(long, value_name = "TEXT")]
    reference: Option<String>,
    /// Not earlier than this, UTC: 2026-11-21T20:15:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<u64>,
    /// Earlier than this, UTC
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<u64>,
    /// The last so many only
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

pub(super) fn run(audit: Audit) -> ExitCode {
    match audit {
        Audit::Verify { directory } => verify(&directory),
        Audit::Show(arguments) => show(arguments),
    }
}

fn time(text: &str) -> Result<u64, String> {
    segl_audit::parse_utc(text).ok_or_else(|| "not a time in RFC 3339, such as 2026-11-21T20:15:00Z".into())
}

fn verify(directory: &Path) -> ExitCode {
    match segl_audit::verify(directory) {
        Ok(report) => {
            print_report(&report);
            if report.is_consistent() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("NOT SOUND: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_report(report: &Report) {
    let hash: String = report.last_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("segments       {}", report.segments);
    println!("records        {} ({} to {})", report.records, report.first_seq, report.last_seq);
    println!("from           {}", segl_audit::utc(report.first_ns));
    println!("to             {}", segl_audit::utc(report.last_ns));
    println!("uses of keys   {} ({} without an outcome yet)", report.intents, report.open_intents);
    let made = report.signatures;
    println!("signatures     {} released, {} discarded with a reason", made.released, made.discarded);
    if made.unknown + made.interrupted > 0 {
        let late = format!("{} signed and {} failed, as came out later", made.unknown_signed, made.unknown_failed);
        println!("in doubt       {} calls ({late}), {} interrupted uses", made.unknown, made.interrupted);
    }
    match made.at_most() {
        Some(most) if most > made.at_least() => println!("made by tokens {} to {most}", made.at_least()),
        Some(most) => println!("made by tokens {most}"),
        None => println!("made by tokens {} or more", made.at_least()),
    }
    println!("repairs        {}", report.repairs);
    println!("not recorded   {} (refused to their callers)", report.refused_records);
    if let Some(tail) = &report.torn_tail {
        println!("torn end       {tail:?}: the next start of segld repairs it");
    }
    for seq in &report.contradictions_listed {
        println!("CONTRADICTION  record {seq}: an outcome without an open intent");
    }
    println!("last hash      {hash}");
    println!("{}", if report.is_consistent() { "SOUND" } else { "NOT CONSISTENT" });
}

fn show(arguments: Show) -> ExitCode {
    let filter = Filter {
        tenant: arguments.tenant,
        key: arguments.key,
        reference: arguments.reference,
        since_ns: arguments.since,
        until_ns: arguments.until,
        last: arguments.last,
    };
    let format = if arguments.json { Format::Json } else { Format::Text };
    let mut out = BufWriter::new(io::stdout().lock());
    match segl_audit::show(&arguments.directory, &filter, format, &mut out) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("segl: {error}");
            ExitCode::FAILURE
        }
    }
}

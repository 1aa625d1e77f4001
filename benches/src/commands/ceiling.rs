//! `ceiling`: what the token gives alone, and what segl-hsm's sessions take away from it.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use segl_tests::Result;
use serde_json::json;

use super::{Output, progress};
use crate::{
    build::Programs,
    installation::Workplace,
    report::{Chart, Report, Series, Table},
    statistics::{Estimate, Side, median, turn},
    token::{Token, TokenArguments},
    worker::{Road, Worker},
};

/// The token alone: a bare loop of C_SignInit and C_Sign (or ring), the best over several numbers of threads.
///
/// Not through segl-hsm, so that a slower segl-hsm can not flatter a ratio. What segl-hsm's sessions take away on the same
/// threads is a row of its own, measured in turn.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  segl-bench ceiling --token softhsm --key rsa2048
  segl-bench ceiling --token pkcs11 --module /usr/lib/vendor.so --uri pkcs11:token=BENCH --pin-file pin \\
      --key-uri pkcs11:object=bench --threads 1,4,8,16,30")]
pub(crate) struct Arguments {
    #[command(flatten)]
    token: TokenArguments,
    /// Numbers of threads to try, with commas; chosen by the token if not given
    #[arg(long, value_delimiter = ',')]
    threads: Vec<usize>,
    /// Length of a slice, in milliseconds
    #[arg(long, default_value_t = 500)]
    slice_ms: u64,
    /// Pairs of slices, bare and through segl-hsm
    #[arg(long, default_value_t = 12)]
    pairs: usize,
    /// Where the token is made, in a directory of its own that is removed again
    #[arg(long)]
    dir: Option<std::path::PathBuf>,
    /// Take the simulated token as it lies beside this program; do not build it
    #[arg(long)]
    no_build: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let programs = Programs::find(arguments.no_build)?;
    let place = Workplace::new(arguments.dir.as_deref())?;
    let token = Token::prepare(&arguments.token, place.path(), &programs)?;
    let slice = Duration::from_millis(arguments.slice_ms);
    let counts = if arguments.threads.is_empty() { token.ceiling_threads() } else { arguments.threads.clone() };
    let most = counts.iter().copied().max().unwrap_or(1);
    let mut bare = Worker::start_with(&token, Road::Bare, place.path().join("state"), most)?;
    let mut hsm = Worker::start_with(&token, Road::Hsm, place.path().join("state"), most)?;
    progress::say("finding the number of threads that gives most");
    let by_threads = bare.calibrate(&counts, slice)?;
    hsm.threads = bare.threads;

    let (mut bare_rates, mut hsm_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bare_cpu, mut hsm_cpu) = ((0, 0), (0, 0));
    for at in 0..arguments.pairs * 2 {
        let (worker, rates, cpu) = match turn(at) {
            Side::A => (&mut bare, &mut bare_rates, &mut bare_cpu),
            Side::B => (&mut hsm, &mut hsm_rates, &mut hsm_cpu),
        };
        let made = worker.slice(slice)?;
        rates.push(made.rate);
        cpu.0 += made.cpu_ns;
        cpu.1 += made.signatures;
        if at % 2 == 1
            && let (Some(bare), Some(hsm)) = (bare_rates.last(), hsm_rates.last())
        {
            ratios.push(hsm / bare);
            progress::show(&format!("pair {} of {}: {hsm:.0}/s of {bare:.0}/s", ratios.len(), arguments.pairs));
        }
    }
    progress::end();
    let kept = Estimate::bootstrap(&ratios);
    let us = |(ns, signatures): (u64, u64)| ns as f64 / 1000.0 / signatures.max(1) as f64;

    let mut report = Report::new("ceiling", &format!("{}, the token alone", token.description));
    if token.kind.pretends() {
        report.note("SIMULATED: it makes no signatures");
    }
    let mut table = Table::new(&["what", "signatures", "CPU of a signature"]);
    let rate = |rates: &[f64]| format!("{:.0}/s", median(rates));
    table.row(&[&format!("bare, {} threads", bare.threads), &rate(&bare_rates), &format!("{:.2} us", us(bare_cpu))]);
    table.row(&["through segl-hsm's sessions", &rate(&hsm_rates), &format!("{:.2} us", us(hsm_cpu))]);
    table.row(&["segl-hsm of bare, median of pairs [95%]", &kept.to_string(), ""]);
    report.table("The ceiling", table);
    let mut threads = Table::new(&["threads", "bare"]);
    by_threads.iter().for_each(|(count, rate)| threads.row(&[&count.to_string(), &format!("{rate:.0}/s")]));
    report.table("By number of threads", threads);
    report.chart(Chart {
        title: "The bare token by number of threads".into(),
        x: "threads".into(),
        y: "signatures a second".into(),
        series: vec![Series {
            name: "bare".into(),
            points: by_threads.iter().map(|(count, rate)| (*count as f64, *rate)).collect(),
        }],
        ..Chart::default()
    });
    report.data = json!({
        "token": token.description, "simulated": token.kind.pretends(), "threads": bare.threads,
        "bare_per_s": median(&bare_rates), "hsm_per_s": median(&hsm_rates), "hsm_of_bare": kept,
        "bare_cpu_us": us(bare_cpu), "hsm_cpu_us": us(hsm_cpu), "by_threads": by_threads,
    });
    report.print();
    arguments.output.write(&report)?;
    Ok(ExitCode::SUCCESS)
}

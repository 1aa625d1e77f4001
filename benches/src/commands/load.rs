//! `load`: on a segld that runs already.

use std::{path::PathBuf, process::ExitCode, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};
use segl_hsm::Algorithm;
use segl_tests::Result;
use segl_wire::Class;
use serde_json::json;

use super::{Measured, Output, measure};
use crate::{
    load::{Engine, Length, Operation, Pace, Schedule, Target, Task, Verification, Verified, Work},
    report::{self, Chart, Report, Series, Table},
};

/// Load on a segld that runs: closed loop, or open loop at a rate.
///
/// Closed loop: so many requests are in flight on each connection, always; it finds out what throughput there is. Open
/// loop (--rate): requests are sent by the clock whether segld keeps up or not, and latency counts from the moment that a
/// request was meant to be sent; it finds out what users would see.
///
/// Exit status: 0; 1 for errors that are not allowed, or wrong signatures; 2 if there is no measurement.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  P=target/demo/pki
  segl-bench load --address 127.0.0.1:7443 --ca $P/servers-ca.pem --certificate $P/town-hall.pem \\
      --private-key $P/town-hall.key --sign seal-p256=ecdsa-p256-sha256
  ... --rate 1000 --duration-s 30 --html report.html
  ... --sign seal-p256=ecdsa-p256-sha256@98 --sign seal-rsa=rsa-pss-sha256@2 --verify all
  ... --sign login-p256=ecdsa-p256-sha256 --operation assertion")]
pub(crate) struct Arguments {
    /// segld's address and port
    #[arg(long)]
    address: String,
    /// The name in segld's certificate
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// CA of segld's certificate, PEM
    #[arg(long)]
    ca: PathBuf,
    /// The client's certificate, PEM
    #[arg(long)]
    certificate: PathBuf,
    /// The client's private key, PEM
    #[arg(long)]
    private_key: PathBuf,
    /// What is signed with: KEY=ALGORITHM, or KEY=ALGORITHM@WEIGHT, several times for a mix
    #[arg(long, required = true, value_name = "KEY=ALGORITHM[@WEIGHT]")]
    sign: Vec<Mixed>,
    /// What is signed
    #[arg(long, value_enum, default_value = "digest")]
    operation: Operation,
    /// How urgent it is
    #[arg(long, value_enum, default_value = "login")]
    class: ClassName,
    /// Connections
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests in flight on each connection (closed loop)
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Signatures that each request asks for
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Open loop: so many requests a second
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0)]
    duration_s: f64,
    /// Seconds before, that are not
    #[arg(long, default_value_t = 1.0)]
    warm_up_s: f64,
    /// Which signatures are verified, when the clock has stopped
    #[arg(long, value_enum, default_value = "sample")]
    verify: Verification,
    /// Errors do not make the exit status 1
    #[arg(long)]
    allow_errors: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ClassName {
    Login,
    Signature,
    Bulk,
}

/// A key, its algorithm and its weight in the mix.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mixed {
    key: String,
    algorithm: Algorithm,
    weight: u64,
}

impl FromStr for Mixed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, rest) = text.split_once('=').ok_or("KEY=ALGORITHM, as seal-p256=ecdsa-p256-sha256")?;
        let (algorithm, weight) = rest.split_once('@').unwrap_or((rest, "1"));
        let known = || Algorithm::ALL.map(Algorithm::name).join(", ");
        Ok(Mixed {
            key: key.to_owned(),
            algorithm: algorithm.parse().map_err(|_| format!("{algorithm} is none of {}", known()))?,
            weight: weight.parse().map_err(|_| format!("{weight} is no weight"))?,
        })
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let class = match arguments.class {
        ClassName::Login => Class::Login,
        ClassName::Signature => Class::Signature,
        ClassName::Bulk => Class::Bulk,
    };
    let tasks = arguments.sign.iter().map(|mixed| {
        // Ed25519 signs no digests.
        let operation = match (arguments.operation, mixed.algorithm) {
            (Operation::Digest, Algorithm::Ed25519) => Operation::Message,
            (operation, _) => operation,
        };
        let Mixed { key, algorithm, weight } = mixed.clone();
        Task { key, algorithm, operation, class, weight }
    });
    let work = Work::new(tasks.collect(), arguments.batch)?;
    let target = Target::new(
        &arguments.address,
        &arguments.server_name,
        &arguments.ca,
        &arguments.certificate,
        &arguments.private_key,
    )?;
    let mut engine = Engine::connect(&target, work, arguments.connections)?;
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds);
    let (warm_up, duration) = (seconds(arguments.warm_up_s)?, seconds(arguments.duration_s)?);
    let pace = match arguments.rate {
        Some(rate) if rate > 0.0 => Pace::Open(Schedule::constant(rate, (warm_up + duration).as_nanos() as u64)),
        Some(_) => return Err("--rate has to be positive".into()),
        None => Pace::Closed(arguments.in_flight),
    };
    let length = Length::Time(duration);
    let Measured { seen, load_us, .. } = measure(&mut engine, pace, warm_up, length, arguments.verify, None)?;
    let (work, spkis) = (engine.work(), &engine.spkis_der);
    let verified = Verified::look_at(arguments.verify, work, spkis, &seen.samples, seen.signatures)?;

    let pattern = match arguments.rate {
        Some(rate) => format!("open loop at {rate}/s"),
        None => format!("{} in flight on each", arguments.in_flight),
    };
    let title = format!(
        "{}: {} connections, {pattern}, {:.1} s",
        arguments.address,
        arguments.connections,
        seen.window.as_secs_f64()
    );
    let mut report = Report::new("load", &title);
    report.note(&format!("signatures: {}, {} wrong", verified.which, verified.wrong));
    let mut table = Table::new(&["what", "value"]);
    table.row(&["signatures", &format!("{} ({:.0}/s)", seen.signatures, seen.rate())]);
    table.row(&["CPU of the load", &format!("{load_us:.2} us a signature")]);
    table.row(&["errors", &seen.errors_in_all().to_string()]);
    for (error, times) in &seen.errors {
        table.row(&[&format!("  {error}"), &times.to_string()]);
    }
    report.table("Throughput", table);
    report.table("Latency of a request", report::latency_table(&seen));
    report.chart(Chart::by_percentile("Latency by percentile", &seen));
    report.chart(Chart {
        title: "Throughput over time".into(),
        x: "seconds".into(),
        y: "signatures a second".into(),
        series: vec![Series {
            name: "signatures a second".into(),
            points: seen.intervals.iter().map(|it| (it.until_s, it.signatures_per_s)).collect(),
        }],
        ..Chart::default()
    });
    report.chart(Chart::over_time("Latency over time", &seen.intervals));
    report.data = json!({
        "signatures": seen.signatures, "per_s": seen.rate(), "seconds": seen.window.as_secs_f64(),
        "connections": arguments.connections, "in_flight": arguments.in_flight, "batch": arguments.batch,
        "rate": arguments.rate, "errors": seen.errors, "verified": verified, "load_cpu_us": load_us,
        "latency": seen.total.summary(), "added": seen.added.summary(), "queue": seen.queue.summary(),
        "in_token": seen.token.summary(), "late_load": seen.late.summary(), "series": seen.intervals,
    });
    report.print();
    arguments.output.write(&report)?;
    let failed = seen.signatures == 0 || verified.wrong > 0 || seen.errors_in_all() > 0 && !arguments.allow_errors;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_with_and_without_weights() {
        let mixed: Mixed = "seal-p256=ecdsa-p256-sha256@98".parse().unwrap();
        assert_eq!((mixed.key.as_str(), mixed.weight), ("seal-p256", 98));
        assert_eq!("a=ed25519".parse::<Mixed>().unwrap().weight, 1);
        for wrong in ["a", "a=md5", "a=ed25519@x"] {
            assert!(wrong.parse::<Mixed>().is_err(), "{wrong}");
        }
    }
}

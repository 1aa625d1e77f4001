//! `month`: NemLog-in's month of signatures, as fast as it goes, or in the shape of a week.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use clap::Args;
use segl_tests::Result;
use segl_wire::Class;
use serde_json::json;

use super::{Measured, Output, measure, progress};
use crate::{
    build::Programs,
    installation::{Load, Segld, SegldArguments, Switch, Workplace, plain_task},
    load::{Engine, Interval, Latencies, Length, Observations, Pace, Schedule, Stretch, Verification, Verified, Work},
    report::{self, Chart, Report, Series, Table},
    token::{Token, TokenArguments},
};

/// Login signings in a month, as NemLog-in publishes them.
const LOGINS: u64 = 30_000_000;
/// Digital signatures in a month.
const SIGNATURES: u64 = 560_000;
/// Both.
const MONTH: u64 = LOGINS + SIGNATURES;

/// NemLog-in's month: 30,000,000 login signings and 560,000 digital signatures, mixed.
///
/// In a closed loop, as fast as it goes: how long a whole month takes. With --shape in an open loop, in the shape of a
/// working week with its nights and one peak hour, compressed so that the peak hour is what --peak of the machine's own
/// closed-loop throughput is: what the tails are.
///
/// Exit status: 0; 1 for errors or wrong signatures; 2 if there is no measurement.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  segl-bench month --fraction 0.02                      (about ten seconds, and what the whole month would take)
  segl-bench month                                      (all of it)
  segl-bench month --shape --fraction 0.05 --html week.html

The journal of a whole month takes some 20 GB. Segments are never deleted by segld: the archive does that; here the bench
does, all but the newest, as long as it runs.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    token: MonthToken,
    #[command(flatten)]
    segld: SegldArguments,
    /// How much of a month
    #[arg(long, default_value_t = 1.0)]
    fraction: f64,
    /// Open loop in the shape of a week
    #[arg(long)]
    shape: bool,
    /// With --shape: the peak hour's rate, of the throughput found in a closed loop before
    #[arg(long, default_value_t = 0.7)]
    peak: f64,
    /// Connections of the load
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Signatures that each request asks for
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Which signatures are verified, when the clock has stopped
    #[arg(long, value_enum, default_value = "sample")]
    verify: Verification,
    #[command(flatten)]
    output: Output,
}

/// As [`TokenArguments`], with the embedded token unless told otherwise.
#[derive(Clone, Debug)]
struct MonthToken(TokenArguments);

impl Args for MonthToken {
    fn augment_args(command: clap::Command) -> clap::Command {
        TokenArguments::augment_args(command).mut_arg("token", |token| token.default_value("embedded"))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        MonthToken::augment_args(command)
    }
}

impl clap::FromArgMatches for MonthToken {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        TokenArguments::from_arg_matches(matches).map(MonthToken)
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !(arguments.fraction > 0.0 && arguments.peak > 0.0) {
        return Err("--fraction and --peak have to be positive".into());
    }
    let programs = Programs::find(arguments.segld.no_build)?;
    let place = Workplace::new(arguments.segld.dir.as_deref())?;
    let token = Token::prepare(&arguments.token.0, place.path(), &programs)?;
    let in_flight = if arguments.shape { 1024 } else { arguments.in_flight };
    let load = Load { connections: arguments.connections, in_flight, batch: arguments.batch };
    let segld = Segld::start(&token, &arguments.segld, load, &place.path().join("segld"), &programs)?;
    let task = |class, weight| plain_task(&token, &arguments.segld, class, weight);
    let tasks = vec![task(Class::Login, LOGINS), task(Class::Signature, SIGNATURES)];
    let mut engine = Engine::connect(&segld.target()?, Work::new(tasks, arguments.batch)?, arguments.connections)?;
    let archive = (arguments.segld.journal == Switch::On).then(|| Archive::start(segld.journal.clone()));
    let signatures = ((MONTH as f64 * arguments.fraction) as u64).max(1);

    let warm_up = Duration::from_millis(500);
    let closed = Pace::Closed(arguments.in_flight.min(in_flight));
    let (measured, stretches) = if arguments.shape {
        progress::say("finding what the machine can do, in a closed loop");
        let length = Length::Time(Duration::from_secs(3));
        let found = measure(&mut engine, closed, warm_up, length, Verification::Off, Some(&segld))?;
        let week = week(signatures, found.seen.rate() * arguments.peak / arguments.batch as f64, arguments.batch);
        let run: Duration = week.iter().map(|stretch| Duration::from_nanos(stretch.duration_ns)).sum();
        progress::say(&format!("{signatures} signatures in the shape of a week, in {:.0} s", run.as_secs_f64()));
        let pace = Pace::Open(Schedule::new(week.clone()));
        let length = Length::Time(run);
        (measure(&mut engine, pace, Duration::ZERO, length, arguments.verify, Some(&segld))?, week)
    } else {
        let length = Length::Signatures(signatures);
        (measure(&mut engine, closed, Duration::ZERO, length, arguments.verify, Some(&segld))?, Vec::new())
    };
    let Measured { seen, load_us, segld_us, .. } = measured;
    let verified = match token.kind.pretends() {
        true => Verified::not("not verified: the simulated token makes no signatures"),
        false => Verified::look_at(arguments.verify, engine.work(), &engine.spkis_der, &seen.samples, seen.signatures)?,
    };
    drop(engine);
    let removed = archive.map_or(0, Archive::end);
    segld.stop()?;

    let sessions = arguments.segld.sessions.unwrap_or_else(|| token.sessions());
    let setting = arguments.segld.describe(sessions);
    let manner = if arguments.shape { "in the shape of a week" } else { "as fast as it goes" };
    let title = format!("{signatures} signatures of NemLog-in's month {manner}: {}, {setting}", token.description);
    let mut report = Report::new("month", &title);
    report.note(&format!("segld {}; journal's disk: {}", programs.origin, place.disk));
    report.note(&format!("signatures: {}, {} wrong", verified.which, verified.wrong));
    if removed > 0 {
        report.note(&format!("{removed} segments of the journal were removed while it ran, as an archive would"));
    }
    let whole_s = MONTH as f64 / seen.rate();
    let mut table = Table::new(&["what", "value"]);
    let took_s = seen.window.as_secs_f64();
    table.row(&["signatures", &format!("{} in {took_s:.1} s: {:.0}/s", seen.signatures, seen.rate())]);
    if !arguments.shape {
        let whole = format!("{:.0} min {:.0} s", (whole_s / 60.0).floor(), whole_s % 60.0);
        table.row(&[&format!("A WHOLE MONTH ({MONTH} signatures)"), &whole]);
    }
    table.row(&["CPU of segld", &format!("{segld_us:.2} us a signature")]);
    table.row(&["CPU of the load", &format!("{load_us:.2} us a signature")]);
    table.row(&["errors", &seen.errors_in_all().to_string()]);
    report.table("The month", table);
    report.table("Latency of a request", report::latency_table(&seen));
    if arguments.shape {
        report.table(
            "Parts of the week (medians of half seconds; the tail is the worst of them)",
            parts(&stretches, &seen),
        );
    }
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
        "token": token.description, "simulated": token.kind.pretends(), "setting": setting,
        "journal": arguments.segld.journal, "io": arguments.segld.io, "shape": arguments.shape,
        "fraction": arguments.fraction, "signatures": seen.signatures, "seconds": took_s, "per_s": seen.rate(),
        "whole_month_s": (!arguments.shape).then_some(whole_s), "errors": seen.errors, "verified": verified,
        "cpu_us": { "segld": segld_us, "load": load_us }, "latency": seen.total.summary(),
        "added": seen.added.summary(), "late_load": seen.late.summary(), "series": seen.intervals,
    });
    report.print();
    arguments.output.write(&report)?;
    let failed = seen.signatures == 0 || verified.wrong > 0 || seen.errors_in_all() > 0;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// How busy each hour of a working day is, of the busiest: the night sleeps, the morning begins at seven.
const WORKING_DAY: [f64; 24] = [
    0.04, 0.03, 0.02, 0.02, 0.03, 0.06, 0.15, 0.35, 0.60, 0.68, 0.70, 0.68, 0.62, 0.64, 0.62, 0.58, 0.55, 0.50, 0.48,
    0.50, 0.48, 0.36, 0.20, 0.09,
];
/// Of a Saturday or Sunday.
const WEEKEND: f64 = 0.45;
/// Day and hour at which everybody comes at once: Monday at ten, when tax assessments are out.
const PEAK: (usize, usize) = (0, 10);

/// A week's hours, so short that they hold so many signatures with the peak hour at this rate (requests a second).
fn week(signatures: u64, peak_rate: f64, batch: usize) -> Vec<Stretch> {
    let hours = (0..7).flat_map(|day| (0..24).map(move |hour| (day, hour)));
    let busy = |(day, hour): (usize, usize)| match (day, hour) {
        PEAK => 1.0,
        (5 | 6, hour) => WORKING_DAY[hour] * WEEKEND,
        (_, hour) => WORKING_DAY[hour],
    };
    let sum: f64 = hours.clone().map(busy).sum();
    let hour_s = signatures as f64 / batch as f64 / peak_rate / sum;
    let stretch = |at: (usize, usize)| Stretch {
        name: match at {
            PEAK => "peak hour",
            (5 | 6, _) => "weekend",
            (_, 7..=20) => "day",
            _ => "night",
        },
        duration_ns: (hour_s * 1e9) as u64,
        rate: peak_rate * busy(at),
    };
    hours.map(stretch).collect()
}

/// What each part of the week saw.
fn parts(stretches: &[Stretch], seen: &Observations) -> Table {
    let mut table = Table::new(&["part", "requests a second", "median us", "99% us, worst", "longest us"]);
    for name in ["night", "day", "peak hour", "weekend"] {
        let mut until_s = 0.0;
        let mut of_part: Vec<&Interval> = Vec::new();
        let mut rate = 0.0f64;
        for stretch in stretches {
            let from_s = until_s;
            until_s += stretch.duration_ns as f64 / 1e9;
            if stretch.name == name {
                rate = rate.max(stretch.rate);
                of_part.extend(seen.intervals.iter().filter(|it| it.until_s > from_s && it.until_s <= until_s));
            }
        }
        let mut medians = Latencies::default();
        of_part.iter().for_each(|it| medians.record((it.p50_us * 1000.0) as u64));
        let worst = |value: fn(&Interval) -> f64| of_part.iter().map(|it| value(it)).fold(0.0, f64::max);
        let figure =
            |value: f64| if of_part.is_empty() { "shorter than half a second".into() } else { format!("{value:.0}") };
        table.row(&[
            name,
            &format!("up to {rate:.0}"),
            &figure(medians.percentile_us(50.0)),
            &figure(worst(|it| it.p99_us)),
            &figure(worst(|it| it.max_us)),
        ]);
    }
    table
}

/// Takes full segments away while segld goes on: all but the newest ones.
struct Archive {
    end: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
    removed: Arc<AtomicU64>,
}

/// Segments that stay: what segld writes, has made ahead, and may still look at.
const SEGMENTS_KEPT: usize = 8;

impl Archive {
    fn start(journal: PathBuf) -> Archive {
        let (end, ended) = mpsc::channel();
        let removed = Arc::new(AtomicU64::new(0));
        let thread = thread::spawn({
            let removed = removed.clone();
            move || {
                while ended.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                    removed.fetch_add(remove_old(&journal), Ordering::Relaxed);
                }
            }
        });
        Archive { end, thread, removed }
    }

    /// Returns how many it has taken.
    fn end(self) -> u64 {
        drop(self.end);
        let _ = self.thread.join();
        self.removed.load(Ordering::Relaxed)
    }
}

fn remove_old(journal: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(journal) else { return 0 };
    let mut segments: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_segment(path)).collect();
    segments.sort();
    let old = segments.len().saturating_sub(SEGMENTS_KEPT);
    segments[..old].iter().filter(|path| std::fs::remove_file(path).is_ok()).count() as u64
}

/// `segl-` and the number of its first record, so that they sort by age.
fn is_segment(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("segl-") && name.ends_with(".journal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_holds_all_signatures_and_its_peak_hour_has_the_peak_rate() {
        let week = week(1_000_000, 5000.0, 1);
        assert_eq!(week.len(), 168);
        let peak: Vec<_> = week.iter().filter(|stretch| stretch.name == "peak hour").collect();
        assert_eq!((peak.len(), peak[0].rate), (1, 5000.0));
        assert!(week.iter().all(|stretch| stretch.rate <= 5000.0));
        let requests = Schedule::new(week.clone()).count() as f64;
        assert!((requests / 1_000_000.0 - 1.0).abs() < 0.001, "{requests}");
        assert!((Schedule::new(super::week(64_000, 100.0, 64)).count() as f64 / 1000.0 - 1.0).abs() < 0.1);
    }

    #[test]
    fn the_newest_segments_stay() {
        let dir = tempfile::tempdir().unwrap();
        for at in 1..=20 {
            std::fs::write(dir.path().join(format!("segl-{at:020}.journal")), "").unwrap();
        }
        std::fs::write(dir.path().join("lock"), "").unwrap();
        assert_eq!(remove_old(dir.path()), 12);
        assert!(dir.path().join(format!("segl-{:020}.journal", 13)).exists() && dir.path().join("lock").exists());
        assert_eq!(remove_old(dir.path()), 0);
    }
}

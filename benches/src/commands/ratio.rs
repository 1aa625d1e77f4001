//! `ratio`: how much of what the token gives alone reaches clients through segld. Both sides stay alive and are measured
//! in turn, in slices so short that the machine's drift is the same for both.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use segl_tests::Result;
use serde_json::{Value, json};

use super::{Output, TOO_NOISY, measure, progress};
use crate::{
    build::Programs,
    cpu::Watch,
    installation::{Load, Segld, SegldArguments, Workplace, plain_work},
    load::{Engine, Length, Observations, Pace, Schedule, Verification, Verified},
    report::{self, Chart, Report, Series, Table},
    statistics::{Estimate, Side, median, turn},
    token::{Token, TokenArguments},
    wakeup,
    worker::{Road, Worker},
};

/// The proof: how much of what the token gives alone reaches clients through segld.
///
/// Starts a segld of its own, on the same token as a bare loop of C_SignInit and C_Sign (or ring), keeps both alive, and
/// measures them in short slices in ABBA order. Prints the median of the pairs' ratios with its 95% interval, and goes on
/// until that is known to 0.02 either way; with --min-ratio also, for two minutes at most, until the interval lies on one
/// side of it.
///
/// Exit status: 0; 1 if below --min-ratio; 2 for errors; 3 if the machine is too noisy to tell, or others use it.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  segl-bench ratio --token softhsm --key p256 --journal off --min-ratio 0.92
  segl-bench ratio --token softhsm --key rsa2048 --connections 64 --in-flight 1
  segl-bench ratio --token softhsm --key rsa3072 --operation assertion --connections 64 --in-flight 1
  segl-bench ratio --token simulated --service-us 1000 --slots 32 --json simulated.json
  segl-bench ratio --token softhsm --rate 1000 --spin 50us      (open loop: what segld adds to a lonely request)

How to read it:
  ratio      throughput through segld, load generator and TLS included, over the token's own on the same cores
  CPU ratio  the ceiling's CPU for a signature over segld's and the load's together; it does not drift with the machine
  added      a request's time less that same request's time in the token, as the answer tells it")]
pub(crate) struct Arguments {
    #[command(flatten)]
    token: TokenArguments,
    #[command(flatten)]
    segld: SegldArguments,
    /// Connections of the load
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Signatures that each request asks for
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Open loop: so many requests a second, evenly, latency from the intended moment. Then there is no ratio of
    /// throughputs, only what is added
    #[arg(long)]
    rate: Option<f64>,
    /// Length of a slice, in milliseconds
    #[arg(long, default_value_t = 500)]
    slice_ms: u64,
    /// Pairs at least
    #[arg(long, default_value_t = 8)]
    pairs_min: usize,
    /// Give up when the ratio is not known well enough after so many seconds of slices
    #[arg(long, default_value_t = 240)]
    time_max_s: u64,
    /// Which signatures are verified, when the clock has stopped
    #[arg(long, value_enum, default_value = "sample")]
    verify: Verification,
    /// Exit with 1 if the ratio is below this
    #[arg(long)]
    min_ratio: Option<f64>,
    #[command(flatten)]
    output: Output,
}

/// Half the interval's width that is good enough.
const HALF_WIDTH_MAX: f64 = 0.02;

/// After so long the median decides on which side of `--min-ratio` it is.
const VERDICT_MAX: Duration = Duration::from_secs(120);

/// The load runs for so long before a slice through segld begins: until the queue is as long as this load makes it, and
/// segld has seen for a while what waits that means (which takes its reactors 100 ms).
const WARM_UP: Duration = Duration::from_millis(300);

/// What one slice through segld used beside its signatures.
#[derive(Debug, Default)]
struct Used {
    segld_ns: u64,
    load_ns: u64,
    by_thread: std::collections::BTreeMap<String, u64>,
}

/// The sums over all slices.
#[derive(Debug, Default)]
struct Sums {
    ceiling_rates: Vec<f64>,
    segld_rates: Vec<f64>,
    ceiling_cpu_ns: u64,
    ceiling_signatures: u64,
    ceiling_time: Duration,
    used: Used,
    seen: Observations,
    /// CPUs that others used meanwhile
    others_cpus: f64,
}

/// Others may use so much of the machine: it takes from both sides, if not from both alike.
const OTHERS_SHARE_MAX: f64 = 0.1;

impl Sums {
    /// Whether somebody else used so much of the machine that nothing is proven.
    fn disturbed(&self) -> bool {
        self.others_cpus > OTHERS_SHARE_MAX * crate::token::cores() as f64
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let programs = Programs::find(arguments.segld.no_build)?;
    let place = Workplace::new(arguments.segld.dir.as_deref())?;
    let token = Token::prepare(&arguments.token, place.path(), &programs)?;
    let in_flight = if arguments.rate.is_some() { 1024 } else { arguments.in_flight };
    let load = Load { connections: arguments.connections, in_flight, batch: arguments.batch };
    let slice = Duration::from_millis(arguments.slice_ms);

    progress::say("finding the ceiling");
    let choice = arguments.rate.is_none() && arguments.segld.sessions.is_none();
    let processes = if choice { token.sessions_beside(1).len() } else { 1 };
    let (mut worker, calibration) = best_worker(processes, &token, &place, slice.min(Duration::from_millis(300)))?;
    // The ceiling had its choice of threads.
    let threads = u32::try_from(worker.threads).unwrap_or(u32::MAX);
    let candidates =
        if choice { token.sessions_beside(threads) } else { vec![arguments.segld.sessions.unwrap_or(threads)] };
    let (Contender { segld, mut engine, setting }, by_sessions) =
        best(&candidates, &token, arguments, load, &place, &programs)?;
    let wakeup = wakeup::measure()?;

    let mut sums = Sums::default();
    let (mut ratios, mut estimate) = (Vec::new(), None);
    let began = Instant::now();
    let watch = Watch::begin(&[std::process::id(), worker.pid(), segld.pid()])?;
    let mut known = false;
    for at in 0.. {
        match turn(at) {
            Side::A => {
                let made = worker.slice(slice)?;
                sums.ceiling_rates.push(made.rate);
                sums.ceiling_cpu_ns += made.cpu_ns;
                sums.ceiling_signatures += made.signatures;
                sums.ceiling_time += slice;
            }
            Side::B => {
                let seen = through_segld(&mut engine, &segld, arguments, slice, &mut sums.used)?;
                sums.segld_rates.push(seen.rate());
                sums.seen.add(seen);
            }
        }
        if at % 2 == 0 {
            continue;
        }
        let (ceiling, through) = (sums.ceiling_rates.last(), sums.segld_rates.last());
        let (Some(ceiling), Some(through)) = (ceiling, through) else { continue };
        ratios.push(through / ceiling);
        let now = Estimate::bootstrap(&ratios);
        progress::show(&format!("pair {}: {:.0}/s of {:.0}/s; ratio {now}", ratios.len(), through, ceiling));
        estimate = Some(now);
        // Whole ABBA rounds only.
        known = arguments.rate.is_some() || now.half_width() <= HALF_WIDTH_MAX;
        let enough = ratios.len() >= arguments.pairs_min && ratios.len().is_multiple_of(2);
        // A verdict is not to be a throw of dice. One that comes early takes more: so often is looked.
        let decided = arguments.min_ratio.is_none_or(|least| {
            ratios.len() >= 2 * arguments.pairs_min && !(now.low..=now.high).contains(&least)
                || began.elapsed() > VERDICT_MAX
        });
        if enough && known && decided || began.elapsed() > Duration::from_secs(arguments.time_max_s) {
            break;
        }
    }
    progress::end();
    sums.others_cpus = watch.others_cpus()?;
    let ratio = estimate.ok_or("nothing was measured")?;
    let errors = sums.seen.errors_in_all();
    let verified = match token.kind.pretends() {
        true => Verified::not("not verified: the simulated token makes no signatures"),
        false => {
            let (work, spkis) = (engine.work(), &engine.spkis_der);
            Verified::look_at(arguments.verify, work, spkis, &sums.seen.samples, sums.seen.signatures)?
        }
    };
    drop((engine, worker));
    segld.stop()?;

    let report = describe(
        arguments,
        &token,
        &setting,
        &sums,
        &ratios,
        ratio,
        &verified,
        [&calibration, &by_sessions],
        wakeup,
        &place,
        &programs,
    );
    report.print();
    arguments.output.write(&report)?;
    if errors > 0 || verified.wrong > 0 {
        eprintln!("{errors} errors, {} wrong signatures: {:?}", verified.wrong, sums.seen.errors);
        return Ok(ExitCode::from(2));
    }
    if sums.disturbed() {
        eprintln!("others used {:.2} CPUs meanwhile: what was found is no proof", sums.others_cpus);
        return Ok(ExitCode::from(TOO_NOISY));
    }
    if !known {
        eprintln!(
            "the machine is too noisy: after {} pairs the ratio is known to {:.3} either way only, not to {HALF_WIDTH_MAX}",
            ratios.len(),
            ratio.half_width()
        );
        return Ok(ExitCode::from(TOO_NOISY));
    }
    match arguments.min_ratio {
        Some(least) if ratio.median < least => {
            eprintln!("the ratio {:.3} is below {least}", ratio.median);
            Ok(ExitCode::FAILURE)
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// How many threads or sessions gave how much.
type Rates = Vec<(usize, f64)>;

/// The token alone, in the best of so many processes, as many as segld gets, each with its choice of threads. Returns
/// what these gave as well.
fn best_worker(processes: usize, token: &Token, place: &Workplace, slice: Duration) -> Result<(Worker, Rates)> {
    let most = |rates: &Rates| rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let mut best: Option<(Worker, Rates)> = None;
    for at in 0..processes {
        let mut worker = Worker::start(token, Road::Bare, place.path().join(format!("ceiling-state-{at}")))?;
        let rates = worker.calibrate(&token.ceiling_threads(), slice)?;
        if best.as_ref().is_none_or(|(_, so_far)| most(&rates) > most(so_far)) {
            best = Some((worker, rates));
        }
    }
    best.ok_or_else(|| "a token is measured in one process at least".into())
}

/// A segld with its load.
struct Contender {
    segld: Segld,
    engine: Engine,
    /// How it is configured, in words
    setting: String,
}

/// Starts one for each number of sessions, and keeps that which gives most in a short slice: what the ceiling's choice of
/// threads is to the other side. Returns what each gave as well, where there was a choice.
fn best(
    candidates: &[u32],
    token: &Token,
    arguments: &Arguments,
    load: Load,
    place: &Workplace,
    programs: &Programs,
) -> Result<(Contender, Rates)> {
    let (mut best, mut rates): (Option<(f64, Contender)>, _) = (None, Rates::new());
    for &sessions in candidates {
        let settings = SegldArguments { sessions: Some(sessions), ..arguments.segld.clone() };
        let directory = place.path().join(format!("segld-{sessions}"));
        let segld = Segld::start(token, &settings, load, &directory, programs)?;
        let work = plain_work(token, &arguments.segld, arguments.batch)?;
        let engine = Engine::connect(&segld.target()?, work, arguments.connections)?;
        let mut contender = Contender { segld, engine, setting: settings.describe(sessions) };
        let mut rate = 0.0;
        if candidates.len() > 1 {
            progress::show(&format!("looking for the number of sessions: {sessions}"));
            let (slice, mut used) = (Duration::from_millis(arguments.slice_ms), Used::default());
            rate = through_segld(&mut contender.engine, &contender.segld, arguments, slice, &mut used)?.rate();
            rates.push((sessions as usize, rate));
        }
        let is_better = best.as_ref().is_none_or(|(so_far, _)| rate > *so_far);
        let loser = if is_better { best.replace((rate, contender)).map(|(_, worse)| worse) } else { Some(contender) };
        if let Some(Contender { segld, engine, .. }) = loser {
            drop(engine);
            segld.stop()?;
        }
    }
    let (_, contender) = best.ok_or("a segld has one session at least")?;
    Ok((contender, rates))
}

fn through_segld(
    engine: &mut Engine,
    segld: &Segld,
    arguments: &Arguments,
    slice: Duration,
    used: &mut Used,
) -> Result<Observations> {
    let pace = match arguments.rate {
        Some(rate) => Pace::Open(Schedule::constant(rate, (slice + WARM_UP).as_nanos() as u64)),
        None => Pace::Closed(arguments.in_flight),
    };
    let length = Length::Time(slice);
    let measured = measure(engine, pace, WARM_UP, length, arguments.verify, Some(segld))?;
    let signatures = measured.seen.signatures as f64;
    for (group, ns) in measured.segld_by_thread {
        *used.by_thread.entry(group).or_insert(0) += ns;
        used.segld_ns += ns;
    }
    used.load_ns += (measured.load_us * 1000.0 * signatures) as u64;
    Ok(measured.seen)
}

#[allow(clippy::too_many_arguments)] // the parts of a report, brought together once
fn describe(
    arguments: &Arguments,
    token: &Token,
    setting: &str,
    sums: &Sums,
    ratios: &[f64],
    ratio: Estimate,
    verified: &Verified,
    [by_threads, by_sessions]: [&Rates; 2],
    wakeup: wakeup::Wakeup,
    place: &Workplace,
    programs: &Programs,
) -> Report {
    let per = |ns: u64, signatures: u64| ns as f64 / 1000.0 / signatures.max(1) as f64;
    let ceiling_us = per(sums.ceiling_cpu_ns, sums.ceiling_signatures);
    let (segld_us, load_us) =
        (per(sums.used.segld_ns, sums.seen.signatures), per(sums.used.load_ns, sums.seen.signatures));
    let (ceiling, through) = (median(&sums.ceiling_rates), median(&sums.segld_rates));
    let cpu_ratio = (!token.kind.pretends()).then(|| ceiling_us / (segld_us + load_us));
    let pattern = match arguments.rate {
        Some(rate) => format!("{} connections, open loop at {rate}/s", arguments.connections),
        None => format!("{} x {} in flight", arguments.connections, arguments.in_flight),
    };
    let batch = if arguments.batch > 1 { format!(", batches of {}", arguments.batch) } else { String::new() };
    let title = format!("{}, {pattern}{batch}: {setting}", token.description);
    let choice =
        |rates: &Rates| rates.iter().map(|(many, rate)| format!("{many}: {rate:.0}/s")).collect::<Vec<_>>().join(", ");

    let mut report = Report::new("ratio", &title);
    report.note(&format!("segld {}; journal's disk: {}", programs.origin, place.disk));
    report.note(&format!("signatures: {}", verified.which));
    let mut table = Table::new(&["what", "value"]);
    table.row(&["ceiling (the token alone)", &format!("{ceiling:.0}/s")]);
    table.row(&["  by threads", &choice(by_threads)]);
    table.row(&["through segld", &format!("{through:.0}/s")]);
    if !by_sessions.is_empty() {
        table.row(&["  by sessions", &choice(by_sessions)]);
    }
    if arguments.rate.is_none() {
        table.row(&["RATIO, median of pairs [95%]", &format!("{ratio}, {} pairs", ratios.len())]);
    }
    if let Some(cpu_ratio) = cpu_ratio {
        table.row(&["CPU ratio", &format!("{cpu_ratio:.3}")]);
    }
    let cpus = |ns: u64, time: Duration| ns as f64 / time.as_nanos().max(1) as f64;
    let ceiling_cpus = cpus(sums.ceiling_cpu_ns, sums.ceiling_time);
    let segld_cpus = cpus(sums.used.segld_ns + sums.used.load_ns, sums.seen.window);
    let cores = crate::token::cores();
    table.row(&["CPUs in use", &format!("ceiling {ceiling_cpus:.2}, segld and load {segld_cpus:.2}, of {cores}")]);
    table.row(&["CPUs that others used", &format!("{:.2}", sums.others_cpus)]);
    if sums.disturbed() {
        report.note(&format!("OTHERS USE THIS MACHINE: {:.2} of its {cores} CPUs", sums.others_cpus));
    }
    table.row(&["CPU of the ceiling", &format!("{ceiling_us:.2} us a signature")]);
    table.row(&["CPU of segld", &format!("{segld_us:.2} us a signature")]);
    // Threads that hardly do anything would only fill the table.
    for (group, ns) in sums.used.by_thread.iter().filter(|(_, ns)| per(**ns, sums.seen.signatures) >= 0.005) {
        table.row(&[&format!("  {group}"), &format!("{:.2} us", per(*ns, sums.seen.signatures))]);
    }
    table.row(&["CPU of the load", &format!("{load_us:.2} us a signature")]);
    table.row(&["an idle cross-core wake-up", &format!("{wakeup}")]);
    table.row(&["errors", &sums.seen.errors_in_all().to_string()]);
    report.table("Throughput and CPU", table);
    report.table("Latency of a request", report::latency_table(&sums.seen));
    report.chart(Chart::by_percentile("Latency by percentile", &sums.seen));
    let points = |rates: &[f64]| rates.iter().enumerate().map(|(at, rate)| (at as f64, *rate)).collect();
    report.chart(Chart {
        title: "Slices in turn: the token alone, and through segld".into(),
        x: "slice".into(),
        y: "signatures a second".into(),
        series: vec![
            Series { name: "token alone".into(), points: points(&sums.ceiling_rates) },
            Series { name: "through segld".into(), points: points(&sums.segld_rates) },
        ],
        ..Chart::default()
    });
    let throughput = sums.seen.intervals.iter().map(|interval| (interval.signatures_per_s, interval.p50_us));
    let tail = sums.seen.intervals.iter().map(|interval| (interval.signatures_per_s, interval.p99_us));
    report.chart(Chart {
        title: "Throughput against latency, slice by slice".into(),
        x: "signatures a second".into(),
        y: "microseconds".into(),
        series: vec![
            Series { name: "median".into(), points: throughput.collect() },
            Series { name: "99th percentile".into(), points: tail.collect() },
        ],
        dots: true,
        ..Chart::default()
    });
    let by_thread: serde_json::Map<String, Value> =
        sums.used.by_thread.iter().map(|(group, ns)| (group.clone(), json!(per(*ns, sums.seen.signatures)))).collect();
    report.data = json!({
        "token": token.description, "simulated": token.kind.pretends(), "key": token.key.name(),
        "journal": arguments.segld.journal, "io": arguments.segld.io, "setting": setting,
        "connections": arguments.connections, "in_flight": arguments.in_flight, "batch": arguments.batch,
        "rate": arguments.rate, "disk": place.disk, "segld": programs.origin,
        "ceiling_per_s": ceiling, "ceiling_by_threads": by_threads, "segld_by_sessions": by_sessions, "through_segld_per_s": through,
        "ratio": arguments.rate.is_none().then_some(ratio), "pairs": ratios, "cpu_ratio": cpu_ratio,
        "cpu_us": { "ceiling": ceiling_us, "segld": segld_us, "load": load_us, "segld_by_thread": by_thread },
        "cpus": { "ceiling": ceiling_cpus, "segld_and_load": segld_cpus, "of": cores, "others": sums.others_cpus },
        "latency": sums.seen.total.summary(), "added": sums.seen.added.summary(),
        "queue": sums.seen.queue.summary(), "in_token": sums.seen.token.summary(),
        "late_load": sums.seen.late.summary(), "wakeup": wakeup, "verified": verified, "errors": sums.seen.errors,
        "series": sums.seen.intervals,
    });
    report
}

//! What the program can be told to do, and what that has in common.

pub(crate) mod ceiling;
pub(crate) mod instructions;
pub(crate) mod load;
pub(crate) mod month;
pub(crate) mod ratio;
pub(crate) mod sweep;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::PathBuf,
    sync::{atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use clap::Args;
use segl_tests::Result;

use crate::{
    cpu::CpuTimes,
    installation::Segld,
    load::{Edge, Engine, Length, Observations, Pace, Patience, Progress, Run, Verification},
    report::Report,
};

/// Exit status of a measurement that the machine's noise has spoiled.
pub(crate) const TOO_NOISY: u8 = 3;

/// Where results go, beside the terminal.
#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with charts, one file that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Output {
    pub(crate) fn write(&self, report: &Report) -> Result<()> {
        if let Some(file) = &self.json {
            std::fs::write(file, serde_json::to_vec_pretty(&report.json())?)
                .map_err(|error| format!("{}: {error}", file.display()))?;
        }
        if let Some(file) = &self.html {
            std::fs::write(file, report.html()?).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(())
    }
}

/// A run, and the CPU it cost.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) seen: Observations,
    /// This program's, for each signature, in microseconds
    pub(crate) load_us: f64,
    /// segld's, where it is ours
    pub(crate) segld_us: f64,
    /// The same in nanoseconds in all, by groups of threads
    pub(crate) segld_by_thread: BTreeMap<String, u64>,
}

/// Runs the load with a progress line, and looks at the CPU times at both ends of what is measured.
pub(crate) fn measure(
    engine: &mut Engine,
    pace: Pace,
    warm_up: Duration,
    length: Length,
    verification: Verification,
    segld: Option<&Segld>,
) -> Result<Measured> {
    let times = RefCell::new(Vec::new());
    let mut edge = |_: Edge| {
        let of = |pid| CpuTimes::of(pid).unwrap_or_default();
        times.borrow_mut().push((of(std::process::id()), segld.map(|segld| of(segld.pid())).unwrap_or_default()));
    };
    let seen_so_far = Progress::default();
    let run = Run {
        pace,
        warm_up,
        length,
        verification,
        interval: Duration::from_millis(500),
        edge: &mut edge,
        progress: &seen_so_far,
    };
    let (end, ended) = mpsc::channel::<()>();
    let patience = if matches!(run.pace, Pace::Closed(_)) { Some(Patience::begin()?) } else { None };
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            let ended = ended;
            let began = Instant::now();
            let (mut last, mut shown) = ((0, began), false);
            while ended.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
                let (now, signatures) = (Instant::now(), seen_so_far.signatures.load(Ordering::Relaxed));
                let rate = signatures.saturating_sub(last.0) as f64 / (now - last.1).as_secs_f64();
                progress::show(&format!(
                    "{:.0} s: {signatures} signatures, {rate:.0}/s",
                    began.elapsed().as_secs_f64()
                ));
                (last, shown) = ((signatures, now), true);
            }
            if shown {
                progress::end();
            }
        });
        let seen = engine.run(run);
        drop(end);
        seen
    })?;
    drop(patience);
    let times = times.into_inner();
    let [(own_before, segld_before), (own_after, segld_after)] = &times[..] else {
        return Err("the run ended before anything was measured: it is shorter than its warm-up".into());
    };
    let signatures = seen.signatures.max(1) as f64;
    let segld_by_thread = segld_after.since(segld_before);
    Ok(Measured {
        load_us: own_after.total_since(own_before) as f64 / 1000.0 / signatures,
        segld_us: segld_by_thread.values().sum::<u64>() as f64 / 1000.0 / signatures,
        segld_by_thread,
        seen,
    })
}

/// The progress line, on standard error: over and over the same line on a terminal, nothing elsewhere.
pub(crate) mod progress {
    use std::io::{IsTerminal, Write, stderr};

    pub(crate) fn show(text: &str) {
        let mut stderr = stderr();
        if stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[K{text}");
            let _ = stderr.flush();
        }
    }

    /// Goes on to the next line.
    pub(crate) fn end() {
        show("");
    }

    /// A line that stays.
    pub(crate) fn say(text: &str) {
        let _ = writeln!(stderr(), "{text}");
    }
}

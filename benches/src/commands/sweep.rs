//! `sweep`: which sessions, pool batch and load suit a token best, over a grid.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use segl_tests::Result;
use serde::Serialize;
use serde_json::json;

use super::{Output, measure, progress};
use crate::{
    build::Programs,
    installation::{Load, Segld, SegldArguments, Workplace, plain_work},
    load::{Engine, Length, Pace, Verification},
    report::{Chart, Report, Series, Table},
    statistics::median,
    token::{Token, TokenArguments},
};

/// Looks for the setting that suits a token best: sessions, jobs a session takes at once, requests in flight.
///
/// For an operator with a new HSM: its maker's figure for sessions is a beginning, this is the end. Each cell of the grid
/// has several short slices, in turn with all others, and the median counts.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  segl-bench sweep --token pkcs11 --module /usr/lib/vendor.so --uri pkcs11:token=BENCH --pin-file pin \\
      --key-uri pkcs11:object=bench --sessions-list 4,8,16,30 --html sweep.html
  segl-bench sweep --token simulated --service-us 2000 --slots 16

How to read it: beyond the HSM's own parallelism more sessions give nothing, and more in flight gives latency only. Take
the fewest sessions that give nearly the most.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    token: TokenArguments,
    #[command(flatten)]
    segld: SegldArguments,
    /// Sessions to try
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32])]
    sessions_list: Vec<u32>,
    /// Jobs that a session takes at once, to try ([pool] batch_max)
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64])]
    batch_list: Vec<u32>,
    /// Requests in flight on each connection, to try
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    in_flight_list: Vec<usize>,
    /// Connections of the load
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Length of a slice, in milliseconds
    #[arg(long, default_value_t = 500)]
    slice_ms: u64,
    /// Slices of each cell
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    output: Output,
}

/// A cell of the grid.
#[derive(Debug, Default, Serialize)]
struct Cell {
    sessions: u32,
    batch: u32,
    in_flight: usize,
    rates: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    errors: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let programs = Programs::find(arguments.segld.no_build)?;
    let place = Workplace::new(arguments.segld.dir.as_deref())?;
    let token = Token::prepare(&arguments.token, place.path(), &programs)?;
    let mut cells: Vec<Cell> = Vec::new();
    for sessions in &arguments.sessions_list {
        for batch in &arguments.batch_list {
            for in_flight in &arguments.in_flight_list {
                let (sessions, batch, in_flight) = (*sessions, *batch, *in_flight);
                cells.push(Cell { sessions, batch, in_flight, ..Cell::default() });
            }
        }
    }
    let most = arguments.in_flight_list.iter().copied().max().unwrap_or(1);
    let load = Load { connections: arguments.connections, in_flight: most, batch: 1 };
    let slice = Duration::from_millis(arguments.slice_ms);
    let in_all = cells.len() * arguments.rounds;
    let mut done = 0;
    for round in 0..arguments.rounds {
        for group in cells.chunk_by_mut(|a, b| (a.sessions, a.batch) == (b.sessions, b.batch)) {
            let settings = SegldArguments {
                sessions: group.first().map(|cell| cell.sessions),
                pool_batch: group.first().map_or(1, |cell| cell.batch),
                ..arguments.segld.clone()
            };
            let dir = place.path().join(format!("segld-{round}-{done}"));
            let segld = Segld::start(&token, &settings, load, &dir, &programs)?;
            let mut engine =
                Engine::connect(&segld.target()?, plain_work(&token, &arguments.segld, 1)?, arguments.connections)?;
            for cell in group {
                done += 1;
                progress::show(&format!(
                    "{done} of {in_all}: {} sessions, batch {}, {} in flight",
                    cell.sessions, cell.batch, cell.in_flight
                ));
                let warm_up = Duration::from_millis(150);
                let (pace, length) = (Pace::Closed(cell.in_flight), Length::Time(slice));
                let seen = measure(&mut engine, pace, warm_up, length, Verification::Off, None)?.seen;
                cell.rates.push(seen.rate());
                cell.p50_us.push(seen.total.percentile_us(50.0));
                cell.p99_us.push(seen.total.percentile_us(99.0));
                cell.errors += seen.errors_in_all();
            }
            drop(engine);
            segld.stop()?;
            std::fs::remove_dir_all(dir)?;
        }
    }
    progress::end();

    let setting = arguments.segld.describe(0).replace(", 0 sessions", "");
    let title = format!("{}, {} connections: {setting}", token.description, arguments.connections);
    let mut report = Report::new("sweep", &title);
    report.note(&format!("segld {}; journal's disk: {}", programs.origin, place.disk));
    if token.kind.pretends() {
        report.note("SIMULATED: the token makes no signatures");
    }
    let best = cells.iter().map(|cell| median(&cell.rates)).fold(0.0, f64::max);
    let mut table =
        Table::new(&["sessions", "batch", "in flight", "signatures", "of the best", "50% us", "99% us", "errors"]);
    for cell in &cells {
        let rate = median(&cell.rates);
        table.row(&[
            &cell.sessions.to_string(),
            &cell.batch.to_string(),
            &(cell.in_flight * arguments.connections).to_string(),
            &format!("{rate:.0}/s"),
            &format!("{:.2}", rate / best),
            &format!("{:.0}", median(&cell.p50_us)),
            &format!("{:.0}", median(&cell.p99_us)),
            &cell.errors.to_string(),
        ]);
    }
    report.table("The grid", table);
    let enough = cells.iter().filter(|cell| median(&cell.rates) >= 0.97 * best);
    if let Some(cell) = enough.min_by_key(|cell| (cell.sessions, cell.in_flight, cell.batch)) {
        report.note(&format!(
            "the fewest sessions within 3% of the best: {} (batch_max {}, {} in flight): {:.0}/s",
            cell.sessions,
            cell.batch,
            cell.in_flight * arguments.connections,
            median(&cell.rates)
        ));
    }
    let lines = cells.chunk_by(|a, b| (a.sessions, a.batch) == (b.sessions, b.batch)).map(|group| Series {
        name: group.first().map(|cell| format!("{} sessions, batch {}", cell.sessions, cell.batch)).unwrap_or_default(),
        points: group.iter().map(|cell| (median(&cell.rates), median(&cell.p99_us))).collect(),
    });
    report.chart(Chart {
        title: "Throughput against latency: a line a setting, more in flight along it".into(),
        x: "signatures a second".into(),
        y: "99th percentile, microseconds".into(),
        series: lines.collect(),
        logarithmic: true,
        ..Chart::default()
    });
    let errors: u64 = cells.iter().map(|cell| cell.errors).sum();
    report.data = json!({
        "token": token.description, "simulated": token.kind.pretends(), "setting": setting,
        "connections": arguments.connections, "journal": arguments.segld.journal, "io": arguments.segld.io,
        "cells": cells,
    });
    report.print();
    arguments.output.write(&report)?;
    Ok(if errors > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

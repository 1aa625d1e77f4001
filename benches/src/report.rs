//! Results: as a table for the terminal, as JSON for programs, as one HTML file with its charts inside for people.

mod chart;
mod html;

use std::fmt::Write as _;

use segl_tests::Result;
use serde_json::{Value, json};

pub(crate) use chart::{Chart, Series};

use crate::load::{Latencies, Observations};

/// What a run has to say.
#[derive(Debug)]
pub(crate) struct Report {
    command: &'static str,
    title: String,
    notes: Vec<String>,
    tables: Vec<(String, Table)>,
    charts: Vec<Chart>,
    /// For programs
    pub(crate) data: Value,
}

/// Rows under heads.
#[derive(Debug)]
pub(crate) struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heads: &[&str]) -> Table {
        Table { heads: heads.iter().map(|head| (*head).to_owned()).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(|cell| (*cell).to_owned()).collect());
    }

    pub(crate) fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.heads]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let mut text = String::new();
        for row in [&self.heads].into_iter().chain(&self.rows) {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
            let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
        }
        text
    }
}

impl Report {
    pub(crate) fn new(command: &'static str, title: &str) -> Report {
        let (notes, tables, charts) = (Vec::new(), Vec::new(), Vec::new());
        let mut report = Report { command, title: title.to_owned(), notes, tables, charts, data: Value::Null };
        if cfg!(debug_assertions) {
            report.note("MADE BY A DEVELOPMENT BUILD: these figures say nothing");
        }
        report
    }

    pub(crate) fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }

    pub(crate) fn table(&mut self, title: &str, table: Table) {
        self.tables.push((title.to_owned(), table));
    }

    pub(crate) fn chart(&mut self, chart: Chart) {
        self.charts.push(chart);
    }

    /// To standard output.
    pub(crate) fn print(&self) {
        println!("{}", self.title);
        for note in &self.notes {
            println!("  {note}");
        }
        for (title, table) in &self.tables {
            print!("\n{title}\n{}", table.text());
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "program": concat!("segl-bench ", env!("CARGO_PKG_VERSION")),
            "command": self.command,
            "arguments": std::env::args().skip(1).collect::<Vec<_>>(),
            "title": self.title,
            "unix_s": std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            "machine": machine(),
            "development_build": cfg!(debug_assertions),
            "notes": self.notes,
            "results": self.data,
        })
    }

    pub(crate) fn html(&self) -> Result<String> {
        html::page(self)
    }
}

/// Percentiles of all that a request's time is made of.
pub(crate) fn latency_table(seen: &Observations) -> Table {
    let mut table = Table::new(&["microseconds", "50%", "90%", "99%", "99.9%", "longest"]);
    let mut row = |name: &str, latencies: &Latencies| {
        if latencies.len() == 0 {
            return;
        }
        let cells = [50.0, 90.0, 99.0, 99.9, 100.0].map(|percentile| figure(latencies.percentile_us(percentile)));
        let cells: Vec<&str> = [name].into_iter().chain(cells.iter().map(String::as_str)).collect();
        table.row(&cells);
    };
    row("total", &seen.total);
    row("added (total less its own time in the token)", &seen.added);
    row("  in segld's queue", &seen.queue);
    row("in the token", &seen.token);
    row("the load's own lateness (open loop)", &seen.late);
    table
}

/// Three digits or more.
fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// On what all this was measured.
pub(crate) fn machine() -> Value {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, it)| it));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "cpu": model, "cores": crate::token::cores(),
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "load_average_at_end": load.split_whitespace().next(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let mut table = Table::new(&["what", "value"]);
        table.row(&["throughput", "1"]);
        table.row(&["é", "22"]);
        assert_eq!(table.text(), "  what        value\n  throughput  1\n  é           22\n");
    }

    #[test]
    fn a_page_holds_everything_and_fetches_nothing() {
        let mut seen = Observations::default();
        (1..1000u64).for_each(|us| seen.answered(us * 1000, None, 1));
        let mut report = Report::new("load", "a <title>");
        report.table("Latency", latency_table(&seen));
        report.chart(Chart::by_percentile("Latency by percentile", &seen));
        report.chart(Chart { title: "nothing was seen".into(), ..Chart::default() });
        let page = report.html().unwrap();
        assert!(page.contains("a &lt;title&gt;") && page.contains("<svg") && page.contains("total"), "{page}");
        for outside in ["src=", "href=\"http", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(report.json()["command"], "load");
    }
}

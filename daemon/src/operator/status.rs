//! `segl status`: everything at a glance, what is wrong first.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;

use super::{
    UNKNOWN, ask,
    paint::{Colour, Paint, cell, colour_of, ends_in, micros, number, one_line, span, table},
};
use crate::control::{
    self, Answer, ClientError, Request,
    status::{Health, Journal, Key, Requests, Rungs, Severity, Tenant, Tls, Token},
};

/// Everything at a glance: what is wrong and what to do about it, then tokens, keys, tenants, certificates, journal
///
/// Exit status, as monitoring has it: 0 all well, 1 degraded (it signs, and somebody should look), 2 nothing is signed
/// or nobody can ask for it, 3 segld can not be reached.
#[derive(Args)]
pub(super) struct Status {
    /// As JSON, for scripts; docs/OPERATIONS.md describes it
    #[arg(long)]
    json: bool,
}

pub(super) fn run(reach: &ask::Reach, arguments: &Status) -> ExitCode {
    let status = match reach.ask(&Request::Status {}) {
        Ok(Answer::Status(status)) => status,
        Ok(_) => return ask::unexpected(),
        Err(error) => {
            ask::complain(&error);
            // Also who may not ask knows nothing.
            return ExitCode::from(UNKNOWN);
        }
    };
    if arguments.json {
        match serde_json::to_string_pretty(&status) {
            Ok(text) => println!("{text}"),
            Err(error) => return ask::complain(&ClientError::Unreadable(error.to_string())),
        }
    } else {
        print!("{}", show(&status, Paint::for_stdout()));
    }
    match status.health {
        Health::Ok => ExitCode::SUCCESS,
        Health::Degraded => ExitCode::from(1),
        Health::Down => ExitCode::from(2),
    }
}

/// All of it.
fn show(status: &control::Status, paint: Paint) -> String {
    let mut out = String::new();
    head(&mut out, paint, status);
    findings(&mut out, paint, status);
    tokens(&mut out, paint, &status.tokens);
    keys(&mut out, paint, &status.keys);
    tenants(&mut out, paint, &status.tenants);
    rest(&mut out, paint, status);
    out
}

pub(super) fn in_a_word(health: Health) -> (&'static str, Colour) {
    match health {
        Health::Ok => ("OK", Colour::Green),
        Health::Degraded => ("DEGRADED", Colour::Yellow),
        Health::Down => ("DOWN", Colour::Red),
    }
}

fn head(out: &mut String, paint: Paint, status: &control::Status) {
    let (word, colour) = in_a_word(status.health);
    let daemon = &status.daemon;
    let (place, software, up) = (ask::place(daemon), &daemon.software, span(daemon.uptime_s));
    // Writing to a String can not fail.
    let _ = writeln!(out, "{}  {place}  {software}  up {up}  pid {}", paint.paint(colour, word), daemon.pid);
    let Requests { signatures_per_s, signatures_per_s_1m, p50_us, p99_us, queued, running, .. } = &status.requests;
    let waiting = queued.login + queued.signature + queued.bulk;
    let _ = writeln!(
        out,
        "{signatures_per_s:.1} signatures/s ({signatures_per_s_1m:.1} over a minute), p50 {} p99 {}, {waiting} waiting, \
         {running} in tokens, {} connections\n",
        micros(*p50_us),
        micros(*p99_us),
        daemon.connections
    );
}

pub(super) fn severity(severity: Severity) -> (&'static str, Colour) {
    match severity {
        Severity::Critical => ("critical", Colour::Red),
        Severity::Warning => ("warning", Colour::Yellow),
        Severity::Notice => ("notice", Colour::Plain),
    }
}

fn findings(out: &mut String, paint: Paint, status: &control::Status) {
    for finding in &status.findings {
        let (word, colour) = severity(finding.severity);
        let _ = writeln!(out, "{}  {}", paint.paint(colour, &format!("{word:<8}")), one_line(&finding.what));
        let _ = writeln!(out, "          {}", one_line(&finding.action));
        let _ = writeln!(out, "          {}", paint.paint(Colour::Dim, &finding.anchor));
    }
    if !status.findings.is_empty() {
        out.push('\n');
    }
}

fn tokens(out: &mut String, paint: Paint, tokens: &[Token]) {
    let row = |token: &Token| {
        let error = match &token.last_error {
            Some(error) => format!("{} {}", error.time, one_line(&error.text)),
            None => "-".into(),
        };
        let stuck = if token.threads_stuck > 0 { format!(" ({} stuck)", token.threads_stuck) } else { String::new() };
        vec![
            cell(&token.name),
            cell(format!("{}{stuck}", token.state)).coloured(colour_of(&token.state)),
            number(format!("{}/{}/{}", token.sessions_busy, token.sessions_open, token.sessions_cap)),
            number(token.queued),
            number(format!("{:.1}", token.signatures_per_s)),
            number(micros(token.p50_us)),
            number(micros(token.p99_us)),
            number(token.errors_1m),
            cell(rungs(token.rungs)),
            cell(error),
        ]
    };
    let heading =
        ["TOKEN", "STATE", "BUSY/OPEN/CAP", "QUEUE", "SIG/S", "P50", "P99", "ERRORS/MIN", "RUNGS", "LAST ERROR"];
    table(out, paint, &heading, tokens.iter().map(row).collect());
}

/// Those that were taken: `session 3, login 1`.
fn rungs(rungs: Rungs) -> String {
    let Rungs { session, thread, login, token, module, probation } = rungs;
    let all = [
        ("session", session),
        ("thread", thread),
        ("login", login),
        ("token", token),
        ("module", module),
        ("probation", probation),
    ];
    let taken: Vec<_> =
        all.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    if taken.is_empty() { "-".into() } else { taken.join(", ") }
}

pub(super) fn label(key: &Key) -> String {
    match &key.version {
        Some(version) => format!("{}/{version}", key.name),
        None => key.name.clone(),
    }
}

fn keys(out: &mut String, paint: Paint, keys: &[Key]) {
    let row = |key: &Key| {
        let used: Vec<_> = key.tokens.iter().filter(|holding| holding.used).map(|holding| &*holding.token).collect();
        let used = if used.is_empty() { "nowhere".into() } else { used.join(", ") };
        let last = key.tokens.iter().filter_map(|holding| holding.self_test.as_ref()).max_by_key(|test| &test.time);
        let (test, colour) = match last {
            Some(test) => (format!("{} {}", test.result.name(), test.time), colour_of(test.result.name())),
            None => ("-".into(), Colour::Plain),
        };
        let (ends, ends_colour) = key.certificate_ends_in_s.map_or(("-".into(), Colour::Plain), ends_in);
        let state = match (&key.phase, key.granted) {
            (Some(phase), _) => format!("{} ({phase})", key.state),
            (None, true) => key.state.clone(),
            (None, false) => format!("{} (granted to nobody)", key.state),
        };
        vec![
            cell(label(key)),
            cell(&key.purpose),
            cell(state).coloured(colour_of(&key.state)),
            cell(used),
            cell(test).coloured(colour),
            cell(ends).coloured(ends_colour),
        ]
    };
    let heading = ["KEY", "PURPOSE", "STATE", "SIGNS ON", "LAST SELF-TEST", "CERTIFICATE ENDS"];
    table(out, paint, &heading, keys.iter().map(row).collect());
}

fn tenants(out: &mut String, paint: Paint, tenants: &[Tenant]) {
    let row = |tenant: &Tenant| {
        vec![
            cell(&tenant.name),
            number(format!("{}/{}", tenant.in_flight, tenant.in_flight_max)),
            number(format!("{:.1}", tenant.served_per_s)),
            number(format!("{:.1}", tenant.refused_per_s)).coloured(match tenant.refused_per_s {
                0.0 => Colour::Plain,
                _ => Colour::Yellow,
            }),
            number(tenant.served),
            number(tenant.refused),
        ]
    };
    let heading = ["TENANT", "IN FLIGHT", "SERVED/S", "REFUSED/S", "SERVED", "REFUSED"];
    table(out, paint, &heading, tenants.iter().map(row).collect());
}

fn rest(out: &mut String, paint: Paint, status: &control::Status) {
    let control::Status { daemon, tls, journal, .. } = status;
    let mut line = |name: &str, text: String, colour| {
        let _ = writeln!(out, "{}  {}", paint.paint(Colour::Bold, &format!("{name:<9}")), paint.paint(colour, &text));
    };
    line("LISTENERS", daemon.listeners.join(", "), Colour::Plain);
    let Tls { certificate_ends, certificate_ends_in_s, crls, .. } = tls;
    let (ends, colour) = ends_in(*certificate_ends_in_s);
    line("TLS", format!("certificate ends {ends} ({certificate_ends})"), colour);
    for crl in crls {
        let (name, runs_out) = (one_line(&crl.issuer), &crl.next_update);
        let colour = if crl.next_update_in_s < crl.lasts_s / 5 { Colour::Yellow } else { Colour::Plain };
        line("CRL", format!("{name}: next one due {} ({runs_out})", ends_in(crl.next_update_in_s).0), colour);
    }
    let Journal { state, records, lag, .. } = journal;
    line(
        "JOURNAL",
        format!("{state}, {records} records, {lag} not on disk yet"),
        match state.as_str() {
            "open" => Colour::Plain,
            _ => Colour::Red,
        },
    );
    if let Some(reload) = &daemon.reload {
        let word = if reload.ok { "taken" } else { "REFUSED" };
        let colour = if reload.ok { Colour::Plain } else { Colour::Yellow };
        line("RELOAD", format!("{word} {}: {}", reload.time, one_line(&reload.message)), colour);
    }
    line("CLOCK", one_line(&daemon.clock), if daemon.clock_synchronised { Colour::Plain } else { Colour::Yellow });
    line("LOG", daemon.log_level.clone(), Colour::Plain);
}

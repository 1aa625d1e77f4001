//! The screen, drawn from the model.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Cell, Paragraph, Row, Sparkline, Table},
};

use super::model::Model;
use crate::{
    control::{Status, status},
    operator::{
        ask::place,
        paint::{Colour, colour_of, micros, one_line, span},
        status::{in_a_word, label, severity},
    },
};

/// Findings that are shown; the rest is in `segl status`.
const FINDINGS_MAX: usize = 4;

const HELP: &str = "up/down token   d drain   r resume   R reload   q quit";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let Some(status) = &model.status else {
        let text = model.trouble.as_deref().unwrap_or("asking segld ...");
        return frame.render_widget(Paragraph::new(text), frame.area());
    };
    let findings = status.findings.len().min(FINDINGS_MAX) as u16;
    let tokens = status.tokens.len() as u16 + 3;
    let [head, found, table, charts, lists, events, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(findings),
        Constraint::Length(tokens),
        Constraint::Length(6),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(heading(status, model), head);
    frame.render_widget(self::findings(status), found);
    frame.render_widget(self::tokens(status, model.selected), table);
    let [rates, times] = Layout::horizontal([Constraint::Fill(1); 2]).areas(charts);
    let requests = &status.requests;
    chart(frame, rates, format!(" signatures/s {:.0} ", requests.signatures_per_s), model.rates.iter().copied());
    let (p50, p99) = (micros(requests.p50_us), micros(requests.p99_us));
    chart(frame, times, format!(" p99 {p99}, p50 {p50} "), model.p99s_us.iter().copied());
    let [keys, tenants] = Layout::horizontal([Constraint::Fill(1); 2]).areas(lists);
    frame.render_widget(self::keys(status), keys);
    frame.render_widget(self::tenants(status), tenants);
    // The latest at the bottom, as many as there is room for.
    let room = events.height.saturating_sub(2) as usize;
    let latest =
        model.events.iter().skip(model.events.len().saturating_sub(room)).map(|event| Line::raw(event.as_str()));
    frame.render_widget(Paragraph::new(latest.collect::<Vec<_>>()).block(Block::bordered().title(" events ")), events);
    frame.render_widget(footer(model), foot);
}

fn style(colour: Colour) -> Style {
    match colour {
        Colour::Plain => Style::new(),
        Colour::Bold => Style::new().add_modifier(Modifier::BOLD),
        Colour::Dim => Style::new().add_modifier(Modifier::DIM),
        Colour::Red => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        Colour::Yellow => Style::new().fg(Color::Yellow),
        Colour::Green => Style::new().fg(Color::Green),
    }
}

fn heading<'a>(status: &Status, model: &Model) -> Paragraph<'a> {
    let (word, colour) = in_a_word(status.health);
    let daemon = &status.daemon;
    let queued = status.requests.queued;
    let waiting = queued.login + queued.signature + queued.bulk;
    let mut spans = vec![
        Span::styled(format!(" {word} "), style(colour).add_modifier(Modifier::REVERSED)),
        Span::raw(format!(
            "  {}  {}  up {}  {} connections  {waiting} waiting  {}",
            place(daemon),
            daemon.software,
            span(daemon.uptime_s),
            daemon.connections,
            daemon.time
        )),
    ];
    if let Some(trouble) = &model.trouble {
        spans.push(Span::styled(format!("  NOT ANSWERING: {trouble}"), style(Colour::Red)));
    }
    Paragraph::new(Line::from(spans))
}

fn findings<'a>(status: &Status) -> Paragraph<'a> {
    let line = |finding: &status::Finding| {
        let (word, colour) = severity(finding.severity);
        Line::from(vec![
            Span::styled(format!("{word:<8}  "), style(colour)),
            Span::raw(format!("{} -> {}", one_line(&finding.what), one_line(&finding.action))),
        ])
    };
    Paragraph::new(status.findings.iter().take(FINDINGS_MAX).map(line).collect::<Vec<_>>())
}

/// A cell for each session: full while it works, shaded while it is open, a dot where it could be opened.
fn sessions(token: &status::Token) -> String {
    let cells = |count: u16, cell: &str| cell.repeat(usize::from(count));
    let idle = token.sessions_open.saturating_sub(token.sessions_busy);
    let closed = token.sessions_cap.saturating_sub(token.sessions_open);
    format!("{}{}{}", cells(token.sessions_busy, "█"), cells(idle, "▒"), cells(closed, "·"))
}

fn tokens<'a>(status: &Status, selected: usize) -> Table<'a> {
    let row = |(index, token): (usize, &status::Token)| {
        let stuck = if token.threads_stuck > 0 { format!(" ({} stuck)", token.threads_stuck) } else { String::new() };
        let row = Row::new([
            Cell::from(format!("{} {}", if index == selected { ">" } else { " " }, token.name)),
            Cell::from(format!("{}{stuck}", token.state)).style(style(colour_of(&token.state))),
            Cell::from(sessions(token)),
            Cell::from(token.queued.to_string()),
            Cell::from(format!("{:.0}", token.signatures_per_s)),
            Cell::from(micros(token.p50_us)),
            Cell::from(micros(token.p99_us)),
            Cell::from(token.errors_1m.to_string()),
        ]);
        if index == selected { row.style(Style::new().add_modifier(Modifier::BOLD)) } else { row }
    };
    let widths = [
        Constraint::Length(18),
        Constraint::Length(24),
        Constraint::Fill(1),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    let heading = Row::new(["  token", "state", "sessions", "queue", "sig/s", "p50", "p99", "err/min"]);
    Table::new(status.tokens.iter().enumerate().map(row), widths)
        .header(heading.style(style(Colour::Dim)))
        .block(Block::bordered().title(" tokens "))
}

/// The latest to the right, as many seconds as there is room for.
fn chart(frame: &mut Frame<'_>, area: Rect, title: String, values: impl DoubleEndedIterator<Item = u64>) {
    let room = usize::from(area.width.saturating_sub(2));
    let mut latest: Vec<u64> = values.rev().take(room).collect();
    latest.resize(room, 0);
    latest.reverse();
    let block = Block::bordered().title(title);
    frame.render_widget(Sparkline::default().block(block).data(latest).style(style(Colour::Green)), area);
}

fn keys<'a>(status: &Status) -> Paragraph<'a> {
    // Those that do not sign first: they are what somebody looks for.
    let mut keys: Vec<_> = status.keys.iter().collect();
    keys.sort_by_key(|key| key.state == "usable");
    let line = |key: &status::Key| {
        let used: Vec<_> = key.tokens.iter().filter(|holding| holding.used).map(|holding| &*holding.token).collect();
        Line::from(vec![
            Span::styled(format!("{:<12}", key.state), style(colour_of(&key.state))),
            Span::raw(format!("{}  on {}", label(key), if used.is_empty() { "none".into() } else { used.join(", ") })),
        ])
    };
    Paragraph::new(keys.into_iter().map(line).collect::<Vec<_>>()).block(Block::bordered().title(" keys "))
}

fn tenants<'a>(status: &Status) -> Paragraph<'a> {
    let line = |tenant: &status::Tenant| {
        let refused = format!("{:.1} refused/s", tenant.refused_per_s);
        let colour = if tenant.refused_per_s > 0.0 { Colour::Yellow } else { Colour::Plain };
        Line::from(vec![
            Span::raw(format!(
                "{:<20} {:>8.1}/s  {:>5} in flight  ",
                tenant.name, tenant.served_per_s, tenant.in_flight
            )),
            Span::styled(refused, style(colour)),
        ])
    };
    Paragraph::new(status.tenants.iter().map(line).collect::<Vec<_>>()).block(Block::bordered().title(" tenants "))
}

fn footer(model: &Model) -> Paragraph<'_> {
    let line = match (&model.question, &model.message) {
        (Some(question), _) => {
            Line::styled(format!(" {}  y/n ", question.text), style(Colour::Yellow).add_modifier(Modifier::REVERSED))
        }
        (None, Some(message)) => Line::from(vec![
            Span::styled(format!("{message}   "), style(Colour::Bold)),
            Span::styled(HELP, style(Colour::Dim)),
        ]),
        (None, None) => Line::styled(HELP, style(Colour::Dim)),
    };
    Paragraph::new(line)
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::{control::status::examples::degraded, operator::top::model::News};

    fn screen(width: u16, height: u16, model: &Model) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(row).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_screen_shows_tokens_sessions_rates_and_what_is_wrong() {
        let mut model = Model::default();
        assert!(screen(40, 3, &model).contains("asking segld"));
        model.hear(News::Status(Box::new(Ok(degraded()))));
        let shown = screen(120, 30, &model);
        for expected in [
            "DEGRADED",
            "room-1 (site A)",
            "token hsm-b is away",
            "> hsm-a",
            "██▒▒····",
            "signatures/s 812",
            "1.2ms",
            "login  on hsm-a",
            "borger",
            "q quit",
        ] {
            assert!(shown.contains(expected), "{expected:?} is not on\n{shown}");
        }
    }

    #[test]
    fn no_terminal_is_too_small() {
        let mut model = Model::default();
        model.hear(News::Status(Box::new(Ok(degraded()))));
        for (width, height) in [(1, 1), (10, 3), (80, 8), (500, 2)] {
            screen(width, height, &model);
        }
    }
}

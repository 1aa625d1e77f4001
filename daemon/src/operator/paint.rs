//! Text for people: tables, colours where there is a terminal, times in words, and nothing that could move the cursor.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal},
};

/// Whether text is coloured.
#[derive(Clone, Copy)]
pub(super) struct Paint(bool);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Plain,
    Bold,
    Dim,
    Red,
    Yellow,
    Green,
}

impl Paint {
    /// Where standard output is a terminal that did not say NO_COLOR (no-color.org).
    pub(super) fn for_stdout() -> Paint {
        Paint(io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Plain => return text.to_owned(),
            Colour::Bold => "1",
            Colour::Dim => "2",
            Colour::Red => "1;31",
            Colour::Yellow => "33",
            Colour::Green => "32",
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A cell of a table.
pub(super) struct Cell {
    text: String,
    colour: Colour,
    right: bool,
}

/// Text, to the left.
pub(super) fn cell(text: impl AsRef<str>) -> Cell {
    Cell { text: plain(text.as_ref()), colour: Colour::Plain, right: false }
}

/// A number, to the right.
pub(super) fn number(text: impl ToString) -> Cell {
    Cell { text: text.to_string(), colour: Colour::Plain, right: true }
}

impl Cell {
    pub(super) fn coloured(self, colour: Colour) -> Cell {
        Cell { colour, ..self }
    }
}

/// Rows under a heading, each column as wide as its widest cell; what has no rows is not shown.
pub(super) fn table(out: &mut String, paint: Paint, heading: &[&str], rows: Vec<Vec<Cell>>) {
    if rows.is_empty() {
        return;
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
        cells.chain([heading[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let titles = heading.iter().enumerate().map(|(column, title)| {
        let right = rows.iter().any(|row| row.get(column).is_some_and(|cell| cell.right));
        Cell { text: (*title).to_owned(), colour: Colour::Bold, right }
    });
    for row in [titles.collect()].into_iter().chain(rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.into_iter().zip(&widths).enumerate() {
            let gap = " ".repeat(width.saturating_sub(cell.text.chars().count()));
            let text = paint.paint(cell.colour, &cell.text);
            let before = if column > 0 { "  " } else { "" };
            // Writing to a String can not fail.
            let _ = if cell.right { write!(line, "{before}{gap}{text}") } else { write!(line, "{before}{text}{gap}") };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push('\n');
}

/// Without control characters: a device's error text must not move an operator's cursor. Line ends stay.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// The same on one line.
pub(super) fn one_line(text: &str) -> String {
    plain(text).replace('\n', " ")
}

/// A short time: `850us`, `1.2ms`, `3.4s`.
pub(super) fn micros(us: Option<u64>) -> String {
    match us {
        None => "-".into(),
        Some(us @ 0..1_000) => format!("{us}us"),
        Some(us @ 1_000..100_000) => format!("{:.1}ms", us as f64 / 1e3),
        Some(us @ 100_000..1_000_000) => format!("{}ms", us / 1_000),
        Some(us) => format!("{:.1}s", us as f64 / 1e6),
    }
}

/// A long time, roughly: `42 s`, `3 min`, `5 h`, `12 d`.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// When something ends, from how long that is off.
pub(super) fn ends_in(seconds: i64) -> (String, Colour) {
    const SOON_S: i64 = 14 * 86_400;
    match seconds {
        ..0 => (format!("ENDED {} ago", span(seconds.unsigned_abs())), Colour::Red),
        0..SOON_S => (format!("in {}", span(seconds.unsigned_abs())), Colour::Yellow),
        _ => (format!("in {}", span(seconds.unsigned_abs())), Colour::Plain),
    }
}

/// A state's colour.
pub(super) fn colour_of(state: &str) -> Colour {
    match state {
        "ready" | "usable" | "passed" | "open" => Colour::Green,
        "away" | "wedged" | "needs-operator" | "failed" | "faulty" | "expired" | "unfit" | "stranger" | "full" => {
            Colour::Red
        }
        _ => Colour::Yellow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_colours_take_no_room() {
        let rows = || vec![vec![cell("hsm-a"), number(7).coloured(Colour::Red)], vec![cell("b"), number(1_234)]];
        let mut bare = String::new();
        table(&mut bare, Paint(false), &["TOKEN", "N"], rows());
        assert_eq!(bare, "TOKEN     N\nhsm-a     7\nb      1234\n\n");
        let mut painted = String::new();
        table(&mut painted, Paint(true), &["TOKEN", "N"], rows());
        assert!(painted.contains("hsm-a     \x1b[1;31m7\x1b[0m\n"), "{painted:?}");
    }

    #[test]
    fn nothing_that_comes_from_a_device_moves_the_cursor() {
        assert_eq!(one_line("CKR\x1b[2J\r\nnext"), "CKR\u{fffd}[2J\u{fffd} next");
    }

    #[test]
    fn times_are_short() {
        let shown = [Some(850), Some(1_234), Some(234_567), Some(3_400_000), None].map(micros);
        assert_eq!(shown, ["850us", "1.2ms", "234ms", "3.4s", "-"]);
        assert_eq!([5, 300, 80_000, 1_000_000].map(span), ["5 s", "5 min", "22 h", "11 d"]);
    }
}

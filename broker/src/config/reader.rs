//! Reads a TOML document field by field, so that everything that is wrong is told at once, each with its line.
//!
//! serde would stop at the first error; here a wrong field is noted and reading goes on.

use std::{cell::RefCell, fmt, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Something wrong in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Line in the file, from 1
    pub line: usize,
    /// What is wrong and what would be right
    pub message: String,
}

/// Everything that is wrong, by line; never empty when used as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Findings(pub Vec<Finding>);

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, finding) in self.0.iter().enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}line {}: {}", finding.line, finding.message)?;
        }
        Ok(())
    }
}

impl Findings {
    pub(crate) fn push(&mut self, line: usize, message: impl Into<String>) {
        self.0.push(Finding { line, message: message.into() });
    }

    /// `Ok` when nothing was found, else everything by line.
    pub(crate) fn into_result(mut self) -> Result<(), Self> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort();
        self.0.dedup();
        Err(self)
    }
}

/// A value and the line it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value
    pub value: T,
    /// Line in the file, from 1; 0 for a default
    pub line: usize,
}

impl<T> std::ops::Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// The text, and what was found wrong in it so far.
pub(super) struct Source<'t> {
    text: &'t str,
    findings: RefCell<Findings>,
}

impl<'t> Source<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, findings: RefCell::default() }
    }

    /// The document; what does not parse is noted and left out.
    pub(super) fn document(&self) -> Spanned<DeTable<'t>> {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let line = error.span().map_or(1, |span| self.line(&span));
            self.note(line, format!("not TOML: {}", error.message()));
        }
        document
    }

    pub(super) fn note(&self, line: usize, message: impl Into<String>) {
        self.findings.borrow_mut().push(line, message);
    }

    pub(super) fn into_findings(self) -> Findings {
        self.findings.into_inner()
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// One table being read. Fields that nobody asked for are noted by [`Section::finish`].
pub(super) struct Section<'d> {
    source: &'d Source<'d>,
    table: Option<&'d DeTable<'d>>,
    /// For messages: `[http]` or `[[caller]]`
    name: String,
    /// Where the table begins
    pub(super) line: usize,
    known: Vec<&'static str>,
}

impl<'d> Section<'d> {
    pub(super) fn root(source: &'d Source<'d>, document: &'d Spanned<DeTable<'d>>) -> Self {
        Self { source, table: Some(document.get_ref()), name: "the top level".into(), line: 1, known: Vec::new() }
    }

    /// The table of this name; an absent one reads as empty.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'d> {
        let mut section =
            Section { source: self.source, table: None, name: format!("[{name}]"), line: self.line, known: Vec::new() };
        if let Some((line, value)) = self.field(name) {
            section.line = line;
            match value {
                DeValue::Table(table) => section.table = Some(table),
                other => self.wrong(line, name, "a table", other),
            }
        }
        section
    }

    /// The array of tables of this name.
    pub(super) fn sections(&mut self, name: &'static str) -> Vec<Section<'d>> {
        let Some((line, value)) = self.field(name) else { return Vec::new() };
        let DeValue::Array(items) = value else {
            self.wrong(line, name, &format!("tables, each begun with [[{name}]]"), value);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items.iter() {
            let line = self.source.line(&item.span());
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Section {
                    source: self.source,
                    table: Some(table),
                    name: format!("[[{name}]]"),
                    line,
                    known: Vec::new(),
                }),
                other => self.wrong(line, name, "a table", other),
            }
        }
        sections
    }

    /// A string; absent is `None`.
    pub(super) fn string(&mut self, name: &'static str) -> Option<At<String>> {
        let (line, value) = self.field(name)?;
        match value {
            DeValue::String(text) if !text.is_empty() => Some(At { value: text.to_string(), line }),
            DeValue::String(_) => {
                self.source.note(line, format!("{}: `{name}` is empty", self.name));
                None
            }
            other => {
                self.wrong(line, name, "a string", other);
                None
            }
        }
    }

    /// A string that must be there.
    pub(super) fn required(&mut self, name: &'static str) -> Option<At<String>> {
        self.demand(name);
        self.string(name)
    }

    /// Strings; absent is empty.
    pub(super) fn strings(&mut self, name: &'static str) -> Vec<At<String>> {
        let Some((line, value)) = self.field(name) else { return Vec::new() };
        let DeValue::Array(items) = value else {
            self.wrong(line, name, "an array of strings", value);
            return Vec::new();
        };
        let mut strings = Vec::new();
        for item in items.iter() {
            let line = self.source.line(&item.span());
            match item.get_ref() {
                DeValue::String(text) if !text.is_empty() => strings.push(At { value: text.to_string(), line }),
                other => self.wrong(line, name, "an array of strings that are not empty", other),
            }
        }
        strings
    }

    /// A whole number within limits, or the default.
    pub(super) fn number(&mut self, name: &'static str, range: std::ops::RangeInclusive<u64>, default: u64) -> u64 {
        let Some((line, value)) = self.field(name) else { return default };
        let number = match value {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            other => {
                self.wrong(line, name, "a whole number", other);
                return default;
            }
        };
        match number {
            Some(number) if range.contains(&number) => number,
            _ => {
                let (least, most) = (range.start(), range.end());
                self.source.note(line, format!("{}: `{name}` must be between {least} and {most}", self.name));
                default
            }
        }
    }

    /// A boolean, or the default.
    pub(super) fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        match self.field(name) {
            None => default,
            Some((_, DeValue::Boolean(value))) => *value,
            Some((line, other)) => {
                self.wrong(line, name, "true or false", other);
                default
            }
        }
    }

    /// Something that a string is parsed to.
    pub(super) fn parsed<T: std::str::FromStr>(&mut self, name: &'static str, expected: &str) -> Option<At<T>> {
        let text = self.string(name)?;
        let parsed = self.parse(name, expected, &text, true);
        parsed.map(|value| At { value, line: text.line })
    }

    /// A list of what strings are parsed to.
    pub(super) fn parsed_list<T: std::str::FromStr>(&mut self, name: &'static str, expected: &str) -> Vec<At<T>> {
        self.list(name, expected, true)
    }

    /// The same, but what is wrong is never repeated: it may be the secret itself, put there by mistake.
    pub(super) fn secret_list<T: std::str::FromStr>(&mut self, name: &'static str, expected: &str) -> Vec<At<T>> {
        self.list(name, expected, false)
    }

    fn list<T: std::str::FromStr>(&mut self, name: &'static str, expected: &str, repeat: bool) -> Vec<At<T>> {
        let texts = self.strings(name);
        let parse = |text: &At<String>| Some(At { value: self.parse(name, expected, text, repeat)?, line: text.line });
        texts.iter().filter_map(parse).collect()
    }

    fn parse<T: std::str::FromStr>(&self, name: &str, expected: &str, text: &At<String>, repeat: bool) -> Option<T> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let found = if repeat { format!(", not `{}`", text.value) } else { String::new() };
            self.source.note(text.line, format!("{}: `{name}` must be {expected}{found}", self.name));
        }
        parsed
    }

    /// Notes the field as missing when it is.
    pub(super) fn demand(&mut self, name: &'static str) {
        if !self.has(name) {
            self.source.note(self.line, format!("{}: `{name}` is missing", self.name));
        }
    }

    /// Whether the field is there, good or not.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(name))
    }

    /// Notes something about this table.
    pub(super) fn note(&self, line: usize, message: &str) {
        self.source.note(line, format!("{}: {message}", self.name));
    }

    /// Notes every field that nobody asked for.
    pub(super) fn finish(self) {
        let Some(table) = self.table else { return };
        for (key, _) in table.iter() {
            if !self.known.iter().any(|known| *known == key.get_ref().as_ref()) {
                let line = self.source.line(&key.span());
                let known = self.known.join(", ");
                self.source.note(line, format!("{}: unknown `{}`; known are {known}", self.name, key.get_ref()));
            }
        }
    }

    fn field(&mut self, name: &'static str) -> Option<(usize, &'d DeValue<'d>)> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        let value = self.table?.get(name)?;
        Some((self.source.line(&value.span()), value.get_ref()))
    }

    fn wrong(&self, line: usize, name: &str, expected: &str, found: &DeValue<'_>) {
        let found = found.type_str();
        self.source.note(line, format!("{}: `{name}` must be {expected}, found {found}", self.name));
    }
}

//! What is wrong with a configuration, and where: collected, sorted by place, printed all at once.

use std::{cell::RefCell, fmt, ops::Range, path::PathBuf};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Segl does not take this configuration
    Error,
    /// It does, and somebody should look at it
    Warning,
}

/// One thing to say about the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is
    pub severity: Severity,
    /// The configuration file
    pub file: PathBuf,
    /// Line and column in it, from 1, the column in characters; none when it is about the file as a whole
    pub place: Option<(usize, usize)>,
    /// What is wrong
    pub text: String,
    /// What to do
    pub hint: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, " {severity}: {}\n    hint: {}", self.text, self.hint)
    }
}

/// Everything there is to say about a configuration, in the order of the file. Printed, it ends with the totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    list: Vec<Finding>,
}

impl Findings {
    /// Whether Segl refuses the configuration.
    pub fn fatal(&self) -> bool {
        self.list.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// One by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.list.iter()
    }

    /// Nothing to say.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn one(finding: Finding) -> Findings {
        Findings { list: vec![finding] }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.list {
            writeln!(f, "{finding}")?;
        }
        let errors = self.list.iter().filter(|finding| finding.severity == Severity::Error).count();
        let plural = |n: usize, word: &str| if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") };
        write!(f, "{}, {}", plural(errors, "error"), plural(self.list.len() - errors, "warning"))
    }
}

impl std::error::Error for Findings {}

/// Collects findings while the file is read.
pub(super) struct Collector<'a> {
    file: PathBuf,
    text: &'a str,
    /// Lines are missing: what is not there may be on one of them
    incomplete: bool,
    found: RefCell<Vec<(usize, Finding)>>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(file: PathBuf, text: &'a str) -> Self {
        Collector { file, text, incomplete: false, found: RefCell::default() }
    }

    /// A syntax error. From now on nothing is said about what seems to be missing.
    pub(super) fn syntax(&mut self, offset: usize, text: String) {
        self.incomplete = true;
        let hint = "see https://toml.io: text needs quotes, every line is `name = value` or a [section]";
        self.error(&(offset..offset), text, hint);
    }

    pub(super) fn error(&self, span: &Range<usize>, text: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Error, span, text.into(), hint.into());
    }

    pub(super) fn warning(&self, span: &Range<usize>, text: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Warning, span, text.into(), hint.into());
    }

    /// Something that is not there (a setting, a name's definition): after a syntax error it may well be, on a line
    /// that could not be read, so it is said only when the syntax is sound.
    pub(super) fn missing(&self, span: &Range<usize>, text: impl Into<String>, hint: impl Into<String>) {
        if !self.incomplete {
            self.say(Severity::Error, span, text.into(), hint.into());
        }
    }

    fn say(&self, severity: Severity, span: &Range<usize>, text: String, hint: String) {
        let place = Some(self.place(span.start));
        let finding = Finding { severity, file: self.file.clone(), place, text, hint };
        self.found.borrow_mut().push((span.start, finding));
    }

    /// "line 12", for a finding that points at another place.
    pub(super) fn line(&self, span: &Range<usize>) -> String {
        format!("line {}", self.place(span.start).0)
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    pub(super) fn finish(self) -> Findings {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(offset, finding)| (*offset, finding.severity));
        Findings { list: found.into_iter().map(|(_, finding)| finding).collect() }
    }
}

//! Reads a parsed TOML tree setting by setting, so that every mistake is told with its place and none hides another.
//!
//! A setting that is wrong is reported and then read as its default: the configuration is thrown away in the end, but
//! what follows can still be looked at.

use std::{
    cell::RefCell,
    ops::{Range, RangeInclusive},
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    findings::Collector,
    quantity::{self, duration_text, size_text},
};

/// A place in the file.
pub(super) type Span = Range<usize>;

/// Something read, and where it stood.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

impl<T> At<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), span: self.span }
    }
}

/// A table that is being read; what is left unread at [`Section::finish`] has no meaning and is reported.
pub(super) struct Section<'a> {
    /// As messages call it: `[limits]`, `[[key]] "login"`
    title: RefCell<String>,
    span: Span,
    table: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<&'static str>>,
    collector: &'a Collector<'a>,
}

impl<'a> Section<'a> {
    pub(super) fn root(tree: &'a Spanned<DeTable<'a>>, collector: &'a Collector<'a>) -> Self {
        Section::new(String::new(), 0..0, Some(tree.get_ref()), collector)
    }

    fn new(title: String, span: Span, table: Option<&'a DeTable<'a>>, collector: &'a Collector<'a>) -> Self {
        Section { title: RefCell::new(title), span, table, asked: RefCell::default(), collector }
    }

    /// Names the section in messages, once its name is known.
    pub(super) fn rename(&self, title: String) {
        *self.title.borrow_mut() = title;
    }

    /// Where it begins; for an absent section the beginning of the file.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    pub(super) fn collector(&self) -> &'a Collector<'a> {
        self.collector
    }

    /// Whether the setting is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(name))
    }

    /// A setting, if it is there.
    pub(super) fn value(&self, name: &'static str) -> Option<Value<'a>> {
        if !self.asked.borrow().contains(&name) {
            self.asked.borrow_mut().push(name);
        }
        let value = self.table?.get(name)?;
        Some(Value { name, value, collector: self.collector })
    }

    /// A setting that must be there.
    pub(super) fn required(&self, name: &'static str, hint: &str) -> Option<Value<'a>> {
        let value = self.value(name);
        if value.is_none() {
            let title = self.title.borrow();
            self.collector.missing(&self.span, format!("{title} has no `{name}`"), hint);
        }
        value
    }

    /// A `[name]` section; one that is absent reads as one that is empty.
    pub(super) fn section(&self, name: &'static str) -> Section<'a> {
        let title = format!("[{name}]");
        match self.value(name) {
            None => Section::new(title, 0..0, None, self.collector),
            Some(value) => match value.value.get_ref() {
                DeValue::Table(table) => Section::new(title, value.span(), Some(table), self.collector),
                _ => {
                    value.wrong("a section", &format!("write `[{name}]` on a line of its own"));
                    Section::new(title, value.span(), None, self.collector)
                }
            },
        }
    }

    /// The `[[name]]` sections, in the order of the file.
    pub(super) fn sections(&self, name: &'static str, title: &str) -> Vec<Section<'a>> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let hint = format!("write `{title}` on a line of its own for each");
        let DeValue::Array(items) = value.value.get_ref() else {
            value.wrong("a list of sections", &hint);
            return Vec::new();
        };
        let section = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
            DeValue::Table(table) => Some(Section::new(title.to_owned(), item.span(), Some(table), self.collector)),
            _ => {
                Value { name, value: item, collector: self.collector }.wrong("a section", &hint);
                None
            }
        };
        items.iter().filter_map(section).collect()
    }

    pub(super) fn integer(&self, name: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.value(name).and_then(|value| value.integer(range)).unwrap_or(default)
    }

    /// A number that fits 32 bits, by its range.
    pub(super) fn count(&self, name: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        u32::try_from(self.integer(name, default.into(), range)).expect("the range ends within 32 bits")
    }

    pub(super) fn duration(&self, name: &'static str, default: &str, range: RangeInclusive<Duration>) -> Duration {
        let default = quantity::duration(default).expect("the defaults in this crate are durations");
        self.value(name).and_then(|value| value.duration(range)).unwrap_or(default)
    }

    pub(super) fn size(&self, name: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.value(name).and_then(|value| value.size(range)).unwrap_or(default)
    }

    pub(super) fn flag(&self, name: &'static str, default: bool) -> bool {
        self.value(name).and_then(Value::flag).unwrap_or(default)
    }

    pub(super) fn one_of<T: Copy>(&self, name: &'static str, default: T, choices: &[(&str, T)]) -> T {
        self.value(name).and_then(|value| value.one_of(choices)).unwrap_or(default)
    }

    /// Reports what nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.into_inner();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) {
                continue;
            }
            let title = self.title.borrow();
            let text = match title.as_str() {
                "" => format!("there is no section `{name}`"),
                title => format!("{title} has no setting `{name}`"),
            };
            let hint = match nearest(name, asked.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("take it out; known here: {}", asked.join(", ")),
            };
            self.collector.error(&key.span(), text, hint);
        }
    }
}

/// A setting's value.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    name: &'static str,
    value: &'a Spanned<DeValue<'a>>,
    collector: &'a Collector<'a>,
}

impl<'a> Value<'a> {
    pub(super) fn span(self) -> Span {
        self.value.span()
    }

    pub(super) fn at<T>(self, value: T) -> At<T> {
        At { value, span: self.span() }
    }

    /// Says that it is not what it should be.
    pub(super) fn wrong(self, expected: &str, hint: &str) {
        let got = match self.value.get_ref() {
            DeValue::String(text) => format!("{:?}", shorten(text)),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(moment) => moment.to_string(),
            other => format!("a TOML {}", other.type_str()),
        };
        self.error(format!("`{}` must be {expected}, not {got}", self.name), hint);
    }

    pub(super) fn error(self, text: impl Into<String>, hint: impl Into<String>) {
        self.collector.error(&self.span(), text, hint);
    }

    pub(super) fn warning(self, text: impl Into<String>, hint: impl Into<String>) {
        self.collector.warning(&self.span(), text, hint);
    }

    /// Something that one of its elements names is not defined.
    pub(super) fn missing(self, span: &Span, text: impl Into<String>, hint: impl Into<String>) {
        self.collector.missing(span, text, hint);
    }

    pub(super) fn text(self) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => {
                self.wrong("text", "put it in quotes");
                None
            }
        }
    }

    pub(super) fn integer(self, range: RangeInclusive<u64>) -> Option<u64> {
        let between = format!("a number from {} to {}", range.start(), range.end());
        let number = match self.value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match number {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                self.wrong(&between, "give a whole number in that range, without quotes");
                None
            }
        }
    }

    pub(super) fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let expected = format!("from {} to {}", duration_text(*range.start()), duration_text(*range.end()));
        self.quantity(quantity::duration, range, "a duration", &expected, "\"250ms\", \"5s\", \"10m\", \"2h\", \"1d\"")
    }

    pub(super) fn size(self, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("from {} to {}", size_text(*range.start()), size_text(*range.end()));
        self.quantity(quantity::size, range, "a size", &expected, "\"512B\", \"64KiB\", \"1MiB\", \"1GiB\"")
    }

    /// A moment, in seconds since 1970: as text, or as TOML has moments itself.
    pub(super) fn instant(self) -> Option<i64> {
        let parsed = match self.value.get_ref() {
            DeValue::String(text) => quantity::instant(text),
            DeValue::Datetime(moment) => quantity::instant(&moment.to_string()),
            _ => None,
        };
        if parsed.is_none() {
            self.wrong("a moment in UTC, to the second", "write it as 2027-01-01T00:00:00Z");
        }
        parsed
    }

    fn quantity<T: PartialOrd>(
        self,
        parse: fn(&str) -> Option<T>,
        range: RangeInclusive<T>,
        what: &str,
        expected: &str,
        examples: &str,
    ) -> Option<T> {
        let parsed = match self.value.get_ref() {
            DeValue::String(text) => parse(text),
            _ => None,
        };
        match parsed {
            Some(value) if range.contains(&value) => Some(value),
            Some(_) => {
                self.wrong(&format!("{what} {expected}"), "choose one in that range");
                None
            }
            None => {
                self.wrong(what, &format!("write it in quotes with its unit, as {examples}"));
                None
            }
        }
    }

    pub(super) fn flag(self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => {
                self.wrong("true or false", "without quotes");
                None
            }
        }
    }

    pub(super) fn one_of<T: Copy>(self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let choice = choices.iter().find(|(name, _)| *name == text);
        if choice.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let hint = match nearest(text, choices.iter().map(|(name, _)| *name)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "choose one of these".to_owned(),
            };
            self.wrong(&format!("one of {}", names.join(", ")), &hint);
        }
        choice.map(|(_, value)| *value)
    }

    /// The elements of a list.
    pub(super) fn list(self) -> Option<Vec<Value<'a>>> {
        match self.value.get_ref() {
            DeValue::Array(items) => Some(items.iter().map(|value| Value { value, ..self }).collect()),
            _ => {
                self.wrong("a list", "put it in brackets: [\"...\", \"...\"]");
                None
            }
        }
    }

    /// A table written in place: `{ ... }`.
    pub(super) fn table(self) -> Option<Section<'a>> {
        match self.value.get_ref() {
            DeValue::Table(table) => {
                Some(Section::new(format!("`{}`", self.name), self.span(), Some(table), self.collector))
            }
            _ => {
                self.wrong("a table", "write { name = \"value\", ... }");
                None
            }
        }
    }

    /// Elements of a list, each read by `read`, those that are given twice reported.
    pub(super) fn distinct<T: PartialEq>(self, read: impl Fn(Value<'a>) -> Option<T>) -> Option<Vec<At<T>>> {
        let mut out: Vec<At<T>> = Vec::new();
        for item in self.list()? {
            let Some(value) = read(item) else { continue };
            if out.iter().any(|earlier| earlier.value == value) {
                item.error(format!("`{}` names the same thing twice", self.name), "take one of them out");
            } else {
                out.push(item.at(value));
            }
        }
        Some(out)
    }
}

/// The known name that was probably meant.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
    known.min_by_key(distance).filter(|known| distance(known) <= name.len().max(known.len()) / 3)
}

/// Enough of a text to know it again: what stands in the wrong place may be long, or a secret.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

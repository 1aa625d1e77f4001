//! Records for human eyes, and as JSON for everything else.

use std::{
    collections::{HashSet, VecDeque},
    fmt::{self, Write as _},
    io::{self, Write},
    path::Path,
};

use serde_json::{Map, Value as Json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    codec::Value,
    read::Reader,
    record::{Attempt, Capacity, Entry, Record},
    scan::ReadError,
};

/// Which records are shown: those that meet every condition given. An outcome is shown with its intent,
/// and so is what came too late for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this tenant
    pub tenant: Option<String>,
    /// Of this key
    pub key: Option<String>,
    /// With this reference
    pub reference: Option<String>,
    /// Not earlier, UTC in nanoseconds since 1970
    pub since_ns: Option<u64>,
    /// Earlier than that
    pub until_ns: Option<u64>,
    /// The last so many only
    pub last: Option<usize>,
}

/// How records are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A line each: number, time, kind, `name=value`
    #[default]
    Text,
    /// A JSON object a line
    Json,
}

/// Why showing ended early.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// The journal can not be read any further
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nobody takes what is shown
    #[error("can not write: {0}")]
    Write(#[from] io::Error),
}

/// Shows a journal's records and returns how many. After an error of the journal everything before the place has been
/// shown.
pub fn show(directory: &Path, filter: &Filter, format: Format, out: &mut dyn Write) -> Result<u64, ShowError> {
    let mut wanted = Wanted { filter, intents: HashSet::new() };
    let mut last = VecDeque::new();
    let mut shown = 0;
    let mut end = Ok(());
    for entry in Reader::open(directory)? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                end = Err(error.into());
                break;
            }
        };
        if !wanted.wants(&entry) {
            continue;
        }
        match filter.last {
            None => {
                write_entry(&entry, format, out)?;
                shown += 1;
            }
            Some(0) => {}
            Some(limit) => {
                if last.len() == limit {
                    last.pop_front();
                }
                last.push_back(entry);
            }
        }
    }
    for entry in &last {
        write_entry(entry, format, out)?;
        shown += 1;
    }
    out.flush()?;
    end.map(|()| shown)
}

fn write_entry(entry: &Entry, format: Format, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Text => writeln!(out, "{entry}"),
        Format::Json => writeln!(out, "{}", to_json(entry)),
    }
}

struct Wanted<'f> {
    filter: &'f Filter,
    /// Those shown of which more may come
    intents: HashSet<u64>,
}

impl Wanted<'_> {
    fn wants(&mut self, entry: &Entry) -> bool {
        let Filter { tenant, key, reference, since_ns, until_ns, last: _ } = self.filter;
        if since_ns.is_some_and(|since| entry.time_ns < since) || until_ns.is_some_and(|until| entry.time_ns >= until) {
            return false;
        }
        let asked = [("tenant", tenant), ("key", key), ("reference", reference)];
        if asked.iter().all(|(_, wanted)| wanted.is_none()) {
            return true;
        }
        match &entry.record {
            // A call of unknown fate may still come back.
            Record::Outcome(outcome) if outcome.attempts_unknown > 0 => return self.intents.contains(&outcome.intent),
            Record::Outcome(outcome) => return self.intents.remove(&outcome.intent),
            Record::Discarded(discarded) => return self.intents.contains(&discarded.intent),
            _ => {}
        }
        let fits = asked.iter().all(|(name, wanted)| match wanted {
            None => true,
            Some(wanted) => {
                let mut fits = false;
                entry.record.each_field(|_, field, value| {
                    fits |= field == *name && matches!(value, Value::Text(text) if text == wanted);
                });
                fits
            }
        });
        if fits && matches!(entry.record, Record::Intent(_)) {
            self.intents.insert(entry.seq);
        }
        fits
    }
}

/// A line for a human: number, UTC time, kind, and each field as `name=value`. Texts with spaces or control characters
/// stand in quotation marks, escaped, so no record can look like two.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.seq, utc(self.time_ns), self.record.kind().1)?;
        let mut result = Ok(());
        self.record.each_field(|_, name, value| {
            if result.is_ok() {
                result = write!(f, " {name}=").and_then(|()| match value {
                    Value::Text(text) if is_plain(text) => f.write_str(text),
                    Value::Text(text) => write!(f, "{text:?}"),
                    Value::Bytes(bytes) => f.write_str(&hex(bytes)),
                    Value::Number(number) => write!(f, "{number}"),
                    Value::Time(time_ns) => f.write_str(&utc(time_ns)),
                    Value::Flag(flag) => write!(f, "{flag}"),
                    Value::Choice(_, name) => f.write_str(name),
                    Value::Tries(tries) => {
                        write!(f, "[{}]", tries.iter().map(Attempt::to_string).collect::<Vec<_>>().join(" "))
                    }
                    // Only what is read from a file has it, and no record is made of that.
                    Value::Array(_) => Ok(()),
                });
            }
        });
        result
    }
}

/// A record as a JSON object: `seq`, `time` (RFC 3339), `time_ns`, `kind`, and its fields by name; bytes are hex.
pub fn to_json(entry: &Entry) -> Json {
    let mut object = Map::new();
    object.insert("seq".to_owned(), entry.seq.into());
    object.insert("time".to_owned(), utc(entry.time_ns).into());
    object.insert("time_ns".to_owned(), entry.time_ns.into());
    object.insert("kind".to_owned(), entry.record.kind().1.into());
    entry.record.each_field(|_, name, value| {
        let value = match value {
            Value::Text(text) => text.into(),
            Value::Bytes(bytes) => hex(bytes).into(),
            Value::Number(number) => number.into(),
            Value::Time(time_ns) => utc(time_ns).into(),
            Value::Flag(flag) => flag.into(),
            Value::Choice(_, name) => name.into(),
            Value::Tries(tries) => tries.iter().map(attempt_json).collect::<Vec<_>>().into(),
            Value::Array(_) => Json::Null,
        };
        object.insert(name.to_owned(), value);
    });
    Json::Object(object)
}

/// `token/session:released:55us`, or `token/session:unknown:CKR_DEVICE_ERROR:C_Sign:900us`.
impl fmt::Display for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |text: &str| if is_plain(text) { text.to_owned() } else { format!("{text:?}") };
        write!(f, "{}/{}:{}", name(&self.token), self.session, self.fate.name())?;
        for text in [&self.code, &self.call].into_iter().flatten() {
            write!(f, ":{}", name(text))?;
        }
        write!(f, ":{}us", self.token_us)
    }
}

fn attempt_json(attempt: &Attempt<'_>) -> Json {
    serde_json::json!({
        "token": attempt.token,
        "session": attempt.session,
        "fate": attempt.fate.name(),
        "code": attempt.code,
        "call": attempt.call,
        "token_us": attempt.token_us,
    })
}

/// A capacity as it is shown: `citizen`, or the CVR number.
impl fmt::Display for Capacity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Capacity::Citizen => "citizen",
            Capacity::Company(cvr) => cvr,
        })
    }
}

/// RFC 3339 in UTC of nanoseconds since 1970.
pub fn utc(time_ns: u64) -> String {
    // 64 bits of nanoseconds end in the year 2554, within what the format can say.
    OffsetDateTime::from_unix_timestamp_nanos(time_ns.into())
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{time_ns}ns"))
}

/// Nanoseconds since 1970 of a time in RFC 3339 (`2026-11-21T20:15:00Z`); none when it is no such time.
pub fn parse_utc(text: &str) -> Option<u64> {
    OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos().try_into().ok()
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\'))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

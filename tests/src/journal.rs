//! A journal as `segl audit` shows it, and the calls to tokens that stand in it.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader},
    iter::Sum,
    path::Path,
    process::{Command, Stdio},
};

use segl_faulty_token::KeyCounts;
use serde_json::Value;

use crate::{Result, programs};

/// Has `segl audit verify` look at it; anything but a sound one is an error.
pub fn verify(directory: &Path) -> Result<()> {
    let verdict = crate::run(Command::new(programs::segl()).args(["audit", "verify"]).arg(directory))?;
    let verdict = String::from_utf8_lossy(&verdict);
    if verdict.ends_with("SOUND\n") { Ok(()) } else { Err(verdict.into()) }
}

/// Gives out every record, oldest first, without holding more than one.
pub fn read(directory: &Path, mut each: impl FnMut(&Value) -> Result<()>) -> Result<()> {
    let mut segl = Command::new(programs::segl());
    let mut segl = segl.args(["audit", "show", "--json"]).arg(directory).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(segl.stdout.take().expect("it was asked for")).lines();
    let read = lines.map_while(Result::ok).try_for_each(|line| each(&serde_json::from_str(&line)?));
    if read.is_err() {
        // It may be at its end already.
        let _ = segl.kill();
    }
    let status = segl.wait()?;
    read?;
    if status.success() { Ok(()) } else { Err(format!("segl audit show: {status}").into()) }
}

/// What the journal says of calls with one key to one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// They made a signature that was the job's
    pub released: u64,
    /// They certainly made none
    pub failed: u64,
    /// Nobody knows
    pub unknown: u64,
    /// They made a signature that was not used
    pub discarded: u64,
    /// Of the unknown, those that came back and had signed
    pub late_signed: u64,
    /// Of the unknown, those that came back and had failed
    pub late_failed: u64,
    /// Of the failed and the unknown, those that failed in C_Sign itself
    pub in_sign: u64,
    /// Of the unknown, those that were given up: where they are nobody knows
    pub stuck: u64,
}

impl Calls {
    /// Whether these are the calls that an HSM has counted: the signatures that it made and gave out are those released
    /// and those discarded with a reason, and its C_Sign calls are those of which that is known.
    pub fn account_for(&self, made: &KeyCounts) -> bool {
        let given_out = self.released + self.discarded + self.late_signed;
        let entered = given_out + self.in_sign;
        // One that came back late and with an error, or not yet, may have been beside C_Sign as well.
        let unsettled = self.stuck - self.late_signed;
        made.given_out() == given_out && (entered..=entered + unsettled).contains(&made.entered)
    }
}

impl Sum for Calls {
    fn sum<I: Iterator<Item = Calls>>(calls: I) -> Calls {
        calls.fold(Calls::default(), |sum, calls| Calls {
            released: sum.released + calls.released,
            failed: sum.failed + calls.failed,
            unknown: sum.unknown + calls.unknown,
            discarded: sum.discarded + calls.discarded,
            late_signed: sum.late_signed + calls.late_signed,
            late_failed: sum.late_failed + calls.late_failed,
            in_sign: sum.in_sign + calls.in_sign,
            stuck: sum.stuck + calls.stuck,
        })
    }
}

/// The calls of a whole journal.
#[derive(Debug, Default)]
pub struct Register {
    /// By token and key
    pub calls: BTreeMap<(String, String), Calls>,
    /// The keys of intents that are open, or of which some call is in doubt
    keys: HashMap<u64, String>,
}

impl Register {
    /// Takes the next record.
    pub fn note(&mut self, record: &Value) -> Result<()> {
        match text(record, "kind")? {
            "intent" => {
                self.keys.insert(number(record, "seq")?, text(record, "key")?.to_owned());
            }
            "outcome" => {
                let intent = number(record, "intent")?;
                let key = self.keys.remove(&intent).ok_or_else(|| format!("an outcome without an intent: {record}"))?;
                let mut doubt = false;
                for call in record["tries"].as_array().into_iter().flatten() {
                    let fate = text(call, "fate")?;
                    doubt |= fate == "unknown";
                    let calls = self.entry(text(call, "token")?, &key);
                    *match fate {
                        "released" => &mut calls.released,
                        "failed" => &mut calls.failed,
                        "unknown" => &mut calls.unknown,
                        "discarded" => &mut calls.discarded,
                        other => return Err(format!("a call's fate is {other}: {record}").into()),
                    } += 1;
                    calls.in_sign += u64::from(matches!(fate, "failed" | "unknown") && call["call"] == "C_Sign");
                    calls.stuck += u64::from(call["code"] == "stuck");
                }
                if doubt {
                    self.keys.insert(intent, key);
                }
            }
            "discarded" => {
                let key = self.keys.get(&number(record, "intent")?).cloned();
                let key = key.ok_or_else(|| format!("a late answer to no call in doubt: {record}"))?;
                let signed = record["signed"].as_bool().ok_or("no `signed`")?;
                let calls = self.entry(text(record, "token")?, &key);
                *(if signed { &mut calls.late_signed } else { &mut calls.late_failed }) += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// All keys of a token together.
    pub fn of_token(&self, token: &str) -> Calls {
        let mine = self.calls.iter().filter(|((name, _), _)| name == token);
        mine.map(|(_, calls)| *calls).sum()
    }

    /// One key of a token.
    pub fn of_key(&self, token: &str, key: &str) -> Calls {
        self.calls.get(&(token.to_owned(), key.to_owned())).copied().unwrap_or_default()
    }

    fn entry(&mut self, token: &str, key: &str) -> &mut Calls {
        self.calls.entry((token.to_owned(), key.to_owned())).or_default()
    }
}

/// A record's field.
pub fn text<'v>(record: &'v Value, field: &str) -> Result<&'v str> {
    record[field].as_str().ok_or_else(|| format!("no text {field:?} in {record}").into())
}

/// A record's field.
pub fn number(record: &Value, field: &str) -> Result<u64> {
    record[field].as_u64().ok_or_else(|| format!("no number {field:?} in {record}").into())
}

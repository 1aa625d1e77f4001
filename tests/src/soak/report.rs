//! What a soak ends with, for people and as JSON.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Value, json};

use super::{host::Footprint, operator::Reloads, weather::Recovery};
use crate::journal::Calls;

/// What was seen, and whether the promise held.
#[derive(Debug)]
pub struct Report {
    /// What the troubles were drawn from
    pub seed: u64,
    /// How long there was load
    pub lasted: Duration,
    /// Signatures that clients asked for
    pub requests: u64,
    /// Those they got, each verified
    pub signatures: u64,
    /// Errors they got
    pub errors: u64,
    /// Answers they did not wait for
    pub forgone: u64,
    /// Requests they took back
    pub cancels: u64,
    /// Connections they made
    pub connections: u64,
    /// Allowed errors, by name and by the rule that allows them
    pub allowed: BTreeMap<(&'static str, &'static str), u64>,
    /// Errors that no rule allows, by name
    pub not_allowed: BTreeMap<&'static str, u64>,
    /// How tokens came back, by trouble
    pub recoveries: BTreeMap<&'static str, Vec<Recovery>>,
    /// The longest time in which no request with the key was answered with a signature, while requests waited and one
    /// token that holds it was well, by key
    pub stalls: BTreeMap<&'static str, Duration>,
    /// The longest that an answer took
    pub slowest: Duration,
    pub(super) reloads: Reloads,
    pub(super) before: Footprint,
    pub(super) after: Footprint,
    /// Calls to tokens as the journal has them
    pub calls: Calls,
    /// C_Sign calls and signatures as the HSMs count them
    pub counted: segl_faulty_token::KeyCounts,
    /// Records in the journal
    pub records: u64,
    /// Signatures that were on their way to clients that had gone
    pub released_to_nobody: u64,
    /// Tries that the retry budget did not allow
    pub retries_refused: u64,
    /// Everything that is against the promise
    pub broken: Vec<String>,
}

/// More is in the JSON.
const SHOWN: usize = 20;

impl Report {
    /// Whether nothing was against the promise.
    pub fn promise_held(&self) -> bool {
        self.broken.is_empty()
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        let allowed = self
            .allowed
            .iter()
            .map(|((code, reason), count)| json!({ "error": code, "allowed_because": reason, "count": count }));
        let ms = |duration: Duration| duration.as_millis() as u64;
        let recoveries = self.recoveries.iter().map(|(trouble, took)| {
            let recoveries = took.iter().map(|recovery| json!({ "what": recovery.what, "took_ms": ms(recovery.took) }));
            ((*trouble).to_owned(), recoveries.collect::<Vec<_>>().into())
        });
        let stalls: BTreeMap<_, _> = self.stalls.iter().map(|(key, stall)| (key, ms(*stall))).collect();
        let Calls { released, failed, unknown, discarded, late_signed, late_failed, .. } = self.calls;
        json!({
            "promise_held": self.promise_held(),
            "broken": self.broken,
            "seed": self.seed,
            "lasted_ms": ms(self.lasted),
            "requests": self.requests,
            "signatures": self.signatures,
            "errors": self.errors,
            "forgone": self.forgone,
            "cancels": self.cancels,
            "connections": self.connections,
            "errors_allowed": allowed.collect::<Vec<_>>(),
            "errors_not_allowed": self.not_allowed,
            "troubles": recoveries.collect::<serde_json::Map<_, _>>(),
            "longest_stall_ms": stalls,
            "slowest_answer_ms": ms(self.slowest),
            "reloads": { "taken": self.reloads.taken, "refused": self.reloads.refused,
                         "longest_ms": ms(self.reloads.longest) },
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "journal": { "records": self.records, "released": released, "failed": failed, "unknown": unknown,
                         "discarded": discarded, "late_signed": late_signed, "late_failed": late_failed,
                         "released_to_nobody": self.released_to_nobody },
            "hsms": self.counted,
            "retries_refused": self.retries_refused,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |duration: &Duration| duration.as_secs_f64();
        writeln!(f, "seed {}, {:.0} s of load", self.seed, s(&self.lasted))?;
        writeln!(
            f,
            "clients     {} requests on {} connections: {} signatures, all verified, {} errors, {} forgone; {} taken back",
            self.requests, self.connections, self.signatures, self.errors, self.forgone, self.cancels
        )?;
        for ((code, reason), count) in &self.allowed {
            writeln!(f, "            {count:>8} {code}: {reason}")?;
        }
        for (code, count) in &self.not_allowed {
            writeln!(f, "            {count:>8} {code}: NOT ALLOWED")?;
        }
        for (trouble, took) in &self.recoveries {
            let longest = took.iter().map(|recovery| recovery.took).max().unwrap_or_default();
            let mean = took.iter().map(|recovery| recovery.took).sum::<Duration>() / took.len().max(1) as u32;
            writeln!(
                f,
                "trouble     {trouble}: {} times, signing again after {:.2} s on average, {:.2} s at most",
                took.len(),
                s(&mean),
                s(&longest)
            )?;
        }
        for (key, stall) in &self.stalls {
            writeln!(f, "stall       {key}: {:.3} s at most while a token with it was well", s(stall))?;
        }
        writeln!(f, "answers     {:.3} s at most", s(&self.slowest))?;
        let Reloads { taken, refused, longest } = self.reloads;
        writeln!(f, "reloads     {taken} taken, {refused} refused as they should be, {:.3} s at most", s(&longest))?;
        writeln!(f, "segld       at the start {}\n            at the end   {}", self.before, self.after)?;
        let Calls { released, failed, unknown, discarded, late_signed, late_failed, .. } = self.calls;
        writeln!(
            f,
            "journal     {} records, sound; calls: {released} released ({} to clients that had gone), {discarded} \
             discarded, {failed} failed, {unknown} unknown, of which {late_signed} signed late and {late_failed} \
             failed late",
            self.records, self.released_to_nobody
        )?;
        let counted = &self.counted;
        writeln!(
            f,
            "HSMs        {} C_Sign, {} signatures: {} wrong, {} of a wrong length, {} withheld",
            counted.entered, counted.signed, counted.wrong, counted.cut, counted.withheld
        )?;
        writeln!(f, "retries     {} not allowed by the budget", self.retries_refused)?;
        for broken in self.broken.iter().take(SHOWN) {
            writeln!(f, "BROKEN      {broken}")?;
        }
        if self.broken.len() > SHOWN {
            writeln!(f, "            and {} more", self.broken.len() - SHOWN)?;
        }
        write!(f, "{}", if self.promise_held() { "The promise held." } else { "THE PROMISE WAS BROKEN." })
    }
}

//! The durable record of every use of a key, and its verifier.
//!
//! A [`Journal`] is a directory of segment files to which records are only ever appended. A record gets its number
//! under the lock that puts it into the buffer; a thread of the journal's own turns what has gathered into one batch,
//! writes it into a segment that was allocated and zeroed before, and calls fdatasync once for all of them. Whoever
//! must not answer before his record is on disk asks [`Journal::settled`], and [`Journal::subscribe`] says when to ask.
//!
//! What it promises:
//! - **Numbers have no holes.** A record that is refused has no number; how many were refused, when and why, is a
//!   record itself ([`Gap`]) as soon as one can be written. A run that ends by a crash continues with the number
//!   after the last record that is sound; numbers of lost records were never [`Settled::Durable`].
//! - **Every record is chained** to all before it by SHA-256, and each batch and record has a CRC-32C. A chain shows
//!   that something was changed, as long as its last hash is kept elsewhere; it can not show that the end was cut
//!   off, nor that all of it was made anew. Signed checkpoints will (see `writer.rs` for their place).
//! - **Every intent gets an outcome**, if need be from the next run: `unknown`, code `interrupted`. How far back that
//!   has to look stands in each segment's header; an intent in a segment that was taken away is not looked for.
//! - **Room for outcomes is reserved** when the intent is taken. On a full disk intents are refused
//!   ([`Refusal::Full`], [`State::Full`]); the disk is looked at every second, and service resumes by itself.
//! - **A failed write or fdatasync is for good** ([`State::Failed`]): after it nobody can tell what is on disk, and
//!   asking again may report success for what was dropped. The next start reads from the disk, not from memory.
//! - **A torn end is repaired, anything else is refused.** One batch at a time is on its way, so a crash leaves at
//!   most one torn batch at the very end. It is copied to `<segment>.torn-<offset>`, zeroed, and the repair recorded
//!   (on a disk without room even for that, only the repair and the hash of the torn bytes).
//!   A last batch whose bytes rot later looks the same; the [`Repaired`] record and the copy tell of it.
//! - Segments are never deleted: that is the archive's business.
//!
//! [`Reader`], [`verify`] and [`show`] read a journal, also while it is written.

#![warn(missing_docs)]

mod codec;
mod disk;
mod format;
mod journal;
mod ledger;
mod open;
mod open_intents;
mod pace;
mod read;
mod record;
mod scan;
mod show;
#[cfg(test)]
mod simulated;
mod verify;
mod writer;

pub use journal::{
    Config, Journal, OpenError, Recovery, Refusal, Repair, Settled, State, Stats, open_intents_possible,
};
pub use read::{Reader, TornTail};
pub use record::{
    ATTEMPTS_MAX, Attempt, Capacity, Clock, Connection, ConnectionEvent, DIGEST_MAX, Discarded, Entry, Fate, Gap,
    Intent, NAME_MAX, Operator, Outcome, OutcomeResult, Record, Refused, Reload, Repaired, Start, Stop, TEXT_MAX,
    Token,
};
pub use scan::{Defect, ReadError};
pub use show::{Filter, Format, ShowError, parse_utc, show, to_json, utc};
pub use verify::{Report, Signatures, verify};

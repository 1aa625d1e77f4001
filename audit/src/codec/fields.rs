//! What fields a record of each kind has, listed once: the writer and `show` both walk this list.

use crate::record::{ATTEMPTS_MAX, Attempt, Capacity, ConnectionEvent, Intent, Outcome, OutcomeResult, Record};

/// A field's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Number(u64),
    /// Nanoseconds since 1970: a number that is shown as a date
    Time(u64),
    Flag(bool),
    /// One of few: the number is stored, the name is shown
    Choice(u64, &'static str),
    /// An array of arrays: token, session, fate, code or null, microseconds
    Tries(&'a [Attempt<'a>]),
    /// Such an array as it was read
    Array(&'a [u8]),
}

/// A capacity that is no company's.
pub(super) const CITIZEN: &str = "citizen";

impl Record<'_> {
    /// Number and name of its kind.
    pub(crate) fn kind(&self) -> (u8, &'static str) {
        match self {
            Record::Start(_) => (1, "start"),
            Record::Stop(_) => (2, "stop"),
            Record::Intent(_) => (3, "intent"),
            Record::Outcome(_) => (4, "outcome"),
            Record::Refused(_) => (5, "refused"),
            Record::Reload(_) => (6, "reload"),
            Record::Connection(_) => (7, "connection"),
            Record::Repaired(_) => (8, "repaired"),
            Record::Gap(_) => (9, "gap"),
            Record::Operator(_) => (10, "operator"),
            Record::Token(_) => (11, "token"),
            Record::Discarded(_) => (12, "discarded"),
            Record::Clock(_) => (13, "clock"),
        }
    }

    /// Calls `visit` with number, name and value of each field that is there; the numbers rise.
    pub(crate) fn each_field<'s>(&'s self, mut visit: impl FnMut(u8, &'static str, Value<'s>)) {
        let mut text = |number, name, value: &'s str| visit(number, name, Value::Text(value));
        match self {
            Record::Start(r) => {
                text(1, "version", &r.version);
                text(2, "host", &r.host);
                text(3, "boot_id", &r.boot_id);
                visit(4, "config_digest", Value::Bytes(&r.config_digest));
                visit(5, "last_seq", Value::Number(r.last_seq));
            }
            Record::Stop(r) => text(1, "reason", &r.reason),
            Record::Intent(r) => intent_fields(r, visit),
            Record::Outcome(r) => outcome_fields(r, visit),
            Record::Refused(r) => {
                if let Some(tenant) = &r.tenant {
                    text(1, "tenant", tenant);
                }
                text(2, "client", &r.client);
                text(3, "operation", &r.operation);
                text(4, "key", &r.key);
                text(5, "code", &r.code);
                text(6, "reason", &r.reason);
            }
            Record::Reload(r) => {
                visit(1, "ok", Value::Flag(r.ok));
                visit(2, "message", Value::Text(&r.message));
                visit(3, "config_digest", Value::Bytes(&r.config_digest));
            }
            Record::Connection(r) => {
                let event = match r.event {
                    ConnectionEvent::Opened => Value::Choice(0, "opened"),
                    ConnectionEvent::Closed => Value::Choice(1, "closed"),
                    ConnectionEvent::Refused => Value::Choice(2, "refused"),
                };
                for (number, name, value) in [(1, "client", &r.client), (2, "tenant", &r.tenant), (3, "peer", &r.peer)]
                {
                    if let Some(value) = value {
                        text(number, name, value);
                    }
                }
                visit(4, "connection_id", Value::Number(r.connection_id));
                visit(5, "event", event);
                if let Some(reason) = &r.reason {
                    visit(6, "reason", Value::Text(reason));
                }
            }
            Record::Repaired(r) => {
                visit(1, "file", Value::Text(&r.file));
                visit(2, "offset", Value::Number(r.offset));
                visit(3, "bytes", Value::Number(r.bytes));
                visit(4, "sha256", Value::Bytes(&r.sha256));
                visit(5, "side_file", Value::Text(&r.side_file));
            }
            Record::Gap(r) => {
                visit(1, "from", Value::Time(r.from_ns));
                visit(2, "to", Value::Time(r.to_ns));
                visit(3, "records", Value::Number(r.records));
                visit(4, "why", Value::Text(&r.why));
            }
            Record::Operator(r) => {
                text(1, "who", &r.who);
                text(2, "command", &r.command);
                text(3, "result", &r.result);
                let numbers =
                    [(4, "uid", r.uid.map(u64::from)), (5, "pid", r.pid.map(u64::from)), (6, "asked", r.asked)];
                for (number, name, value) in numbers {
                    if let Some(value) = value {
                        visit(number, name, Value::Number(value));
                    }
                }
            }
            Record::Token(r) => {
                text(1, "token", &r.token);
                text(2, "event", &r.event);
                text(3, "detail", &r.detail);
            }
            Record::Discarded(r) => {
                visit(1, "intent", Value::Number(r.intent));
                visit(2, "token", Value::Text(&r.token));
                visit(3, "reason", Value::Text(&r.reason));
                visit(4, "signed", Value::Flag(r.signed));
            }
            Record::Clock(r) => {
                visit(1, "synchronised", Value::Flag(r.synchronised));
                visit(2, "source", Value::Text(&r.source));
                visit(3, "detail", Value::Text(&r.detail));
            }
        }
    }
}

fn intent_fields<'s>(r: &'s Intent<'_>, mut visit: impl FnMut(u8, &'static str, Value<'s>)) {
    visit(1, "tenant", Value::Text(&r.tenant));
    visit(2, "client", Value::Text(&r.client));
    if let Some(peer) = &r.peer {
        visit(3, "peer", Value::Text(peer));
    }
    if let Some(who) = &r.on_behalf_of {
        visit(4, "on_behalf_of", Value::Text(who));
    }
    visit(5, "operation", Value::Text(&r.operation));
    visit(6, "key", Value::Text(&r.key));
    visit(7, "key_spki_sha256", Value::Bytes(&r.key_spki_sha256));
    visit(8, "algorithm", Value::Text(&r.algorithm));
    visit(9, "digest", Value::Bytes(&r.digest));
    if let Some(len) = r.message_len {
        visit(10, "message_len", Value::Number(len));
    }
    match &r.capacity {
        None => {}
        // CVR numbers are digits, so the word can not be one.
        Some(Capacity::Citizen) => visit(11, "capacity", Value::Text(CITIZEN)),
        Some(Capacity::Company(cvr)) => visit(11, "capacity", Value::Text(cvr)),
    }
    visit(12, "class", Value::Text(&r.class));
    if let Some(reference) = &r.reference {
        visit(13, "reference", Value::Text(reference));
    }
    visit(14, "attempt", Value::Number(r.attempt.into()));
    visit(15, "request_id", Value::Number(r.request_id));
    visit(16, "connection_id", Value::Number(r.connection_id));
    if let Some(document) = &r.document {
        visit(17, "document", Value::Text(document));
    }
    if let Some(version) = &r.key_version {
        visit(18, "key_version", Value::Text(version));
    }
}

fn outcome_fields<'s>(r: &'s Outcome<'_>, mut visit: impl FnMut(u8, &'static str, Value<'s>)) {
    let (choice, name, why, signature): (u64, _, Option<&'s str>, Option<&'s [u8; 32]>) = match &r.result {
        OutcomeResult::Released { signature_sha256 } => (0, "released", None, Some(signature_sha256)),
        OutcomeResult::Discarded { reason, signature_sha256 } => {
            (1, "discarded", Some(reason), signature_sha256.as_ref())
        }
        OutcomeResult::NotSigned { code } => (2, "not-signed", Some(code), None),
        OutcomeResult::Unknown { code } => (3, "unknown", Some(code), None),
    };
    visit(1, "intent", Value::Number(r.intent));
    visit(2, "result", Value::Choice(choice, name));
    if let Some(why) = why {
        visit(3, "why", Value::Text(why));
    }
    if let Some(signature) = signature {
        visit(4, "signature_sha256", Value::Bytes(signature));
    }
    if let Some(token) = &r.token {
        visit(5, "token", Value::Text(token));
    }
    visit(6, "queue_us", Value::Number(r.queue_us.into()));
    visit(7, "token_us", Value::Number(r.token_us.into()));
    visit(8, "attempts", Value::Number(r.attempts.into()));
    visit(9, "attempts_unknown", Value::Number(r.attempts_unknown.into()));
    if !r.tries.is_empty() {
        visit(10, "tries", Value::Tries(&r.tries[..r.tries.len().min(ATTEMPTS_MAX)]));
    }
}

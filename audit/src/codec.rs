//! Records as bytes: `[seq, time_ns, kind, {field: value}]` in deterministic CBOR (RFC 8949 §4.2.1).
//!
//! Every kind lists its fields once, in [`Record::each_field`]; the encoder and `show` both walk that list. A reader
//! skips fields it does not know, so a field may be added; a kind it does not know is an error.

use std::borrow::Cow;

use minicbor::{Decoder, Encoder, data::Type};

use crate::record::{
    ATTEMPTS_MAX, Attempt, Capacity, Clock, Connection, ConnectionEvent, DIGEST_MAX, Discarded, Entry, Fate, Gap,
    Intent, NAME_MAX, Operator, Outcome, OutcomeResult, Record, Refused, Reload, Repaired, Start, Stop, TEXT_MAX,
    Token,
};

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

const MEMORY: &str = "writing to memory does not fail";

/// Fields are numbered from 1; a CBOR key of one byte reaches to 23.
const SLOTS: usize = 24;

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

const CITIZEN: &str = "citizen";

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

/// Appends what comes first in a body: the array's head, the number and the time.
pub(crate) fn put_prefix(seq: u64, time_ns: u64, out: &mut Vec<u8>) {
    let mut encoder = Encoder::new(out);
    encoder.array(4).and_then(|e| e.u64(seq)).and_then(|e| e.u64(time_ns)).expect(MEMORY);
}

/// Appends the rest of a body: the kind and the fields. No when a digest is longer than any hash.
pub(crate) fn put_rest(record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), DigestTooLong> {
    if let Record::Intent(intent) = record
        && intent.digest.len() > DIGEST_MAX
    {
        return Err(DigestTooLong);
    }
    let mut count = 0;
    record.each_field(|_, _, _| count += 1);
    let mut encoder = Encoder::new(out);
    encoder.u8(record.kind().0).and_then(|e| e.map(count)).expect(MEMORY);
    record.each_field(|number, _, value| {
        let encoder = encoder.u8(number).expect(MEMORY);
        let put = match value {
            Value::Text(text) => encoder.str(&cut(text, TEXT_MAX)),
            Value::Tries(tries) => {
                put_tries(tries, encoder);
                return;
            }
            Value::Array(_) => unreachable!("only what is read has it"),
            Value::Bytes(bytes) => encoder.bytes(bytes),
            Value::Number(number) | Value::Time(number) | Value::Choice(number, _) => encoder.u64(number),
            Value::Flag(flag) => encoder.bool(flag),
        };
        put.expect(MEMORY);
    });
    Ok(())
}

/// A digest longer than [`DIGEST_MAX`] bytes is none: cutting it would record something else than what was signed.
#[derive(Debug)]
pub(crate) struct DigestTooLong;

fn put_tries(tries: &[Attempt<'_>], encoder: &mut Encoder<&mut Vec<u8>>) {
    encoder.array(tries.len() as u64).expect(MEMORY);
    for Attempt { token, session, fate, code, call, token_us } in tries {
        let fate = match fate {
            Fate::Released => 0,
            Fate::Failed => 1,
            Fate::Unknown => 2,
            Fate::Discarded => 3,
        };
        let head = encoder.array(6).and_then(|e| e.str(&cut(token, NAME_MAX))).and_then(|e| e.u16(*session));
        head.and_then(|e| e.u8(fate)).expect(MEMORY);
        put_name(code.as_deref(), encoder);
        encoder.u32(*token_us).expect(MEMORY);
        put_name(call.as_deref(), encoder);
    }
}

fn take_tries(bytes: &[u8]) -> Result<Vec<Attempt<'static>>, DecodeError> {
    const WRONG: DecodeError = DecodeError::Field(10);
    let mut decoder = Decoder::new(bytes);
    let count = decoder.array()?.filter(|count| *count <= ATTEMPTS_MAX as u64).ok_or(WRONG)?;
    (0..count)
        .map(|_| {
            // The first ones did not say in which call it failed.
            let has_call = match decoder.array()? {
                Some(5) => false,
                Some(6) => true,
                _ => return Err(WRONG),
            };
            Ok(Attempt {
                token: Cow::Owned(decoder.str()?.to_owned()),
                session: decoder.u16()?,
                fate: match decoder.u8()? {
                    0 => Fate::Released,
                    1 => Fate::Failed,
                    2 => Fate::Unknown,
                    3 => Fate::Discarded,
                    _ => return Err(WRONG),
                },
                code: take_name(&mut decoder)?,
                token_us: decoder.u32()?,
                call: if has_call { take_name(&mut decoder)? } else { None },
            })
        })
        .collect()
}

fn put_name(name: Option<&str>, encoder: &mut Encoder<&mut Vec<u8>>) {
    let put = match name {
        Some(name) => encoder.str(&cut(name, NAME_MAX)),
        None => encoder.null(),
    };
    put.expect(MEMORY);
}

fn take_name(decoder: &mut Decoder<'_>) -> Result<Option<Cow<'static, str>>, DecodeError> {
    if decoder.datatype()? == Type::Null {
        decoder.null()?;
        return Ok(None);
    }
    Ok(Some(Cow::Owned(decoder.str()?.to_owned())))
}

fn cut(text: &str, max: usize) -> Cow<'_, str> {
    const MARK: &str = "…";
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(max - MARK.len());
    Cow::Owned(format!("{}{MARK}", &text[..end]))
}

/// Why a body is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("not the CBOR of a record: {0}")]
    Cbor(String),
    #[error("a record of kind {0}, which this version does not know")]
    Kind(u8),
    #[error("field {0} is missing or of the wrong type")]
    Field(u8),
    #[error("bytes after the record")]
    Trailing,
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(error: minicbor::decode::Error) -> Self {
        DecodeError::Cbor(error.to_string())
    }
}

/// Reads a body.
pub(crate) fn decode(body: &[u8]) -> Result<Entry, DecodeError> {
    let mut decoder = Decoder::new(body);
    if decoder.array()? != Some(4) {
        return Err(DecodeError::Cbor("not an array of four".to_owned()));
    }
    let (seq, time_ns, kind) = (decoder.u64()?, decoder.u64()?, decoder.u8()?);
    let fields = Fields::read(&mut decoder)?;
    if decoder.position() != body.len() {
        return Err(DecodeError::Trailing);
    }
    Ok(Entry { seq, time_ns, record: fields.record(kind)? })
}

/// The fields of a map by number.
struct Fields<'b>([Option<Value<'b>>; SLOTS]);

impl<'b> Fields<'b> {
    fn read(decoder: &mut Decoder<'b>) -> Result<Self, DecodeError> {
        let mut slots = [None; SLOTS];
        let count = decoder.map()?.ok_or_else(|| DecodeError::Cbor("a map of indefinite length".to_owned()))?;
        let mut last = None;
        for _ in 0..count {
            let number = decoder.u8()?;
            if last.is_some_and(|last| number <= last) {
                return Err(DecodeError::Cbor("fields that do not rise".to_owned()));
            }
            last = Some(number);
            let Some(slot) = slots.get_mut(usize::from(number)) else {
                decoder.skip()?;
                continue;
            };
            *slot = Some(match decoder.datatype()? {
                Type::U8 | Type::U16 | Type::U32 | Type::U64 => Value::Number(decoder.u64()?),
                Type::String => Value::Text(decoder.str()?),
                Type::Bytes => Value::Bytes(decoder.bytes()?),
                Type::Bool => Value::Flag(decoder.bool()?),
                Type::Array => {
                    let start = decoder.position();
                    decoder.skip()?;
                    Value::Array(&decoder.input()[start..decoder.position()])
                }
                _ => {
                    decoder.skip()?;
                    continue;
                }
            });
        }
        Ok(Fields(slots))
    }

    fn record(&self, kind: u8) -> Result<Record<'static>, DecodeError> {
        Ok(match kind {
            1 => Record::Start(Start {
                version: self.text(1)?,
                host: self.text(2)?,
                boot_id: self.text(3)?,
                config_digest: self.hash(4)?,
                last_seq: self.number(5)?,
            }),
            2 => Record::Stop(Stop { reason: self.text(1)? }),
            3 => Record::Intent(self.intent()?),
            4 => Record::Outcome(self.outcome()?),
            5 => Record::Refused(Refused {
                tenant: self.text_if_any(1)?,
                client: self.text(2)?,
                operation: self.text(3)?,
                key: self.text(4)?,
                code: self.text(5)?,
                reason: self.text(6)?,
            }),
            6 => Record::Reload(Reload { ok: self.flag(1)?, message: self.text(2)?, config_digest: self.hash(3)? }),
            7 => Record::Connection(Connection {
                client: self.text_if_any(1)?,
                tenant: self.text_if_any(2)?,
                peer: self.text_if_any(3)?,
                connection_id: self.number(4)?,
                event: match self.number(5)? {
                    0u64 => ConnectionEvent::Opened,
                    1 => ConnectionEvent::Closed,
                    2 => ConnectionEvent::Refused,
                    _ => return Err(DecodeError::Field(5)),
                },
                reason: self.text_if_any(6)?,
            }),
            8 => Record::Repaired(Repaired {
                file: self.text(1)?,
                offset: self.number(2)?,
                bytes: self.number(3)?,
                sha256: self.hash(4)?,
                side_file: self.text(5)?,
            }),
            9 => Record::Gap(Gap {
                from_ns: self.number(1)?,
                to_ns: self.number(2)?,
                records: self.number(3)?,
                why: self.text(4)?,
            }),
            10 => Record::Operator(Operator {
                who: self.text(1)?,
                command: self.text(2)?,
                result: self.text(3)?,
                uid: self.number_if_any(4)?,
                pid: self.number_if_any(5)?,
                asked: self.number_if_any(6)?,
            }),
            11 => Record::Token(Token { token: self.text(1)?, event: self.text(2)?, detail: self.text(3)? }),
            12 => Record::Discarded(Discarded {
                intent: self.number(1)?,
                token: self.text(2)?,
                reason: self.text(3)?,
                signed: self.flag(4)?,
            }),
            13 => Record::Clock(Clock { synchronised: self.flag(1)?, source: self.text(2)?, detail: self.text(3)? }),
            other => return Err(DecodeError::Kind(other)),
        })
    }

    fn intent(&self) -> Result<Intent<'static>, DecodeError> {
        Ok(Intent {
            tenant: self.text(1)?,
            client: self.text(2)?,
            peer: self.text_if_any(3)?,
            on_behalf_of: self.text_if_any(4)?,
            operation: self.text(5)?,
            key: self.text(6)?,
            key_spki_sha256: self.hash(7)?,
            algorithm: self.text(8)?,
            digest: Cow::Owned(self.bytes(9)?.to_vec()),
            message_len: self.number_if_any(10)?,
            capacity: self.text_if_any(11)?.map(|text| match text == CITIZEN {
                true => Capacity::Citizen,
                false => Capacity::Company(text),
            }),
            class: self.text(12)?,
            reference: self.text_if_any(13)?,
            attempt: self.number(14)?,
            request_id: self.number(15)?,
            connection_id: self.number(16)?,
            document: self.text_if_any(17)?,
            key_version: self.text_if_any(18)?,
        })
    }

    fn outcome(&self) -> Result<Outcome<'static>, DecodeError> {
        let result = match self.number(2)? {
            0u64 => OutcomeResult::Released { signature_sha256: self.hash(4)? },
            1 => OutcomeResult::Discarded {
                reason: self.text(3)?,
                signature_sha256: if self.0[4].is_some() { Some(self.hash(4)?) } else { None },
            },
            2 => OutcomeResult::NotSigned { code: self.text(3)? },
            3 => OutcomeResult::Unknown { code: self.text(3)? },
            _ => return Err(DecodeError::Field(2)),
        };
        Ok(Outcome {
            intent: self.number(1)?,
            result,
            token: self.text_if_any(5)?,
            // The first journals did not count them.
            attempts: self.number_if_any(8)?.unwrap_or(0),
            attempts_unknown: self.number_if_any(9)?.unwrap_or(0),
            tries: match self.0[10] {
                None => Cow::Borrowed(&[]),
                Some(Value::Array(bytes)) => Cow::Owned(take_tries(bytes)?),
                Some(_) => return Err(DecodeError::Field(10)),
            },
            queue_us: self.number(6)?,
            token_us: self.number(7)?,
        })
    }

    fn text(&self, number: u8) -> Result<Cow<'static, str>, DecodeError> {
        self.text_if_any(number)?.ok_or(DecodeError::Field(number))
    }

    fn text_if_any(&self, number: u8) -> Result<Option<Cow<'static, str>>, DecodeError> {
        match self.0[usize::from(number)] {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(Cow::Owned(text.to_owned()))),
            Some(_) => Err(DecodeError::Field(number)),
        }
    }

    fn bytes(&self, number: u8) -> Result<&'b [u8], DecodeError> {
        match self.0[usize::from(number)] {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            _ => Err(DecodeError::Field(number)),
        }
    }

    fn hash(&self, number: u8) -> Result<[u8; 32], DecodeError> {
        self.bytes(number)?.try_into().map_err(|_| DecodeError::Field(number))
    }

    fn number<N: TryFrom<u64>>(&self, number: u8) -> Result<N, DecodeError> {
        self.number_if_any(number)?.ok_or(DecodeError::Field(number))
    }

    fn number_if_any<N: TryFrom<u64>>(&self, number: u8) -> Result<Option<N>, DecodeError> {
        match self.0[usize::from(number)] {
            None => Ok(None),
            Some(Value::Number(value)) => N::try_from(value).map(Some).map_err(|_| DecodeError::Field(number)),
            Some(_) => Err(DecodeError::Field(number)),
        }
    }

    fn flag(&self, number: u8) -> Result<bool, DecodeError> {
        match self.0[usize::from(number)] {
            Some(Value::Flag(flag)) => Ok(flag),
            _ => Err(DecodeError::Field(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_cut_to_their_room_and_read_only_within_it() {
        let attempt = Attempt {
            token: "t".repeat(70).into(),
            session: 1,
            fate: Fate::Unknown,
            code: Some("CKR_GENERAL_ERROR".into()),
            call: Some("C_Sign".into()),
            token_us: 2,
        };
        let mut bytes = Vec::new();
        put_tries(
            &[attempt.clone(), Attempt { code: None, call: None, ..attempt.clone() }],
            &mut Encoder::new(&mut bytes),
        );
        let read = take_tries(&bytes).expect("it was just written");
        assert_eq!(read[0].token.len(), NAME_MAX);
        assert_eq!((read.len(), &read[0].code, &read[1].code), (2, &attempt.code, &None));
        assert_eq!((&read[0].call, &read[1].call), (&attempt.call, &None));
        for end in 0..bytes.len() {
            assert!(take_tries(&bytes[..end]).is_err(), "cut at {end}");
        }
        let five = vec![attempt; 5];
        let mut bytes = Vec::new();
        put_tries(&five, &mut Encoder::new(&mut bytes));
        assert_eq!(take_tries(&bytes).unwrap_err(), DecodeError::Field(10));
    }

    #[test]
    fn an_attempt_written_before_its_call_was_recorded_is_read_without() {
        let attempt =
            Attempt { token: "t".into(), session: 1, fate: Fate::Failed, code: None, call: None, token_us: 2 };
        let mut bytes = Vec::new();
        put_tries(std::slice::from_ref(&attempt), &mut Encoder::new(&mut bytes));
        // An array of six, the last of them null.
        assert_eq!((bytes[1], bytes.pop()), (0x86, Some(0xf6)));
        bytes[1] = 0x85;
        assert_eq!(take_tries(&bytes), Ok(vec![attempt]));
    }

    #[test]
    fn an_outcome_written_before_attempts_were_counted_is_read_with_none() {
        let outcome = Outcome {
            intent: 1,
            result: OutcomeResult::NotSigned { code: "expired".into() },
            token: None,
            attempts: 0,
            attempts_unknown: 0,
            tries: Cow::Borrowed(&[]),
            queue_us: 3,
            token_us: 4,
        };
        let mut body = Vec::new();
        put_prefix(2, 5, &mut body);
        put_rest(&Record::Outcome(outcome.clone()), &mut body).expect("it holds no digest");
        // Two fields fewer: the map's head, and twice a key and a zero at the end.
        let map = body.iter().rposition(|&byte| byte == 0xa7).expect("a map of seven");
        body[map] = 0xa5;
        body.truncate(body.len() - 4);
        let entry = decode(&body).expect("it is a whole record");
        assert_eq!(entry.record, Record::Outcome(outcome));
    }
}

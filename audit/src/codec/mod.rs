//! Records as bytes: `[seq, time_ns, kind, {field: value}]` in deterministic CBOR (RFC 8949 §4.2.1).
//!
//! Every kind lists its fields once, in [`Record::each_field`]; the encoder and `show` both walk that list. A reader
//! skips fields it does not know, so a field may be added; a kind it does not know is an error.

mod attempts;
mod fields;
mod read;

use std::borrow::Cow;

use minicbor::Encoder;

pub(crate) use self::{
    fields::Value,
    read::{DecodeError, decode},
};
use crate::record::{DIGEST_MAX, Record, TEXT_MAX};

const MEMORY: &str = "writing to memory does not fail";

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
                attempts::put_tries(tries, encoder);
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

fn cut(text: &str, max: usize) -> Cow<'_, str> {
    const MARK: &str = "…";
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(max - MARK.len());
    Cow::Owned(format!("{}{MARK}", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Outcome, OutcomeResult};

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

//! The attempts of an outcome, as an array of arrays in one of its fields.

use std::borrow::Cow;

use minicbor::{Decoder, Encoder, data::Type};

use super::{DecodeError, MEMORY, cut};
use crate::record::{ATTEMPTS_MAX, Attempt, Fate, NAME_MAX};

pub(super) fn put_tries(tries: &[Attempt<'_>], encoder: &mut Encoder<&mut Vec<u8>>) {
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

pub(super) fn take_tries(bytes: &[u8]) -> Result<Vec<Attempt<'static>>, DecodeError> {
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
}

//! A body read back as an entry. Fields that are not known are skipped, so that one may be added.

use std::borrow::Cow;

use minicbor::{Decoder, data::Type};

use super::{
    attempts::take_tries,
    fields::{CITIZEN, Value},
};
use crate::record::{
    Capacity, Clock, Connection, ConnectionEvent, Discarded, Entry, Gap, Intent, Operator, Outcome, OutcomeResult,
    Record, Refused, Reload, Repaired, Start, Stop, Token,
};

/// Fields are numbered from 1; a CBOR key of one byte reaches to 23.
const SLOTS: usize = 24;

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

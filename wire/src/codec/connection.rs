//! Hello, Ping and Pong, GoAway.

use std::borrow::Cow;

use super::{Body, Limits, Result, bytes_up_to, need};
use crate::{
    Code, EXPLANATION_MAX, GoAway, GoAwayReason, Hello, PING_MAX, Ping, TEXT_MAX,
    cbor::{Reader, Writer},
};

impl<'a> Body<'a> for Hello<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(8);
        w.uint(1u8);
        w.text(&self.server);
        for (key, number) in [
            (2u8, self.frame_max),
            (3, self.in_flight_max),
            (4, self.batch_max),
            (5, self.message_max),
            (6, self.timeout_max_ms),
            (7, self.idle_ms),
            (8, self.document_max),
        ] {
            w.uint(key);
            w.uint(number);
        }
    }

    fn read(r: &mut Reader<'a>, _: &Limits) -> Result<Self> {
        let mut server = None;
        let mut numbers = [None; 7];
        r.map(|r, key| {
            match key {
                1 => server = Some(Cow::Borrowed(r.text(TEXT_MAX)?)),
                2..=8 => numbers[key as usize - 2] = Some(r.u32()?),
                _ => return r.extension(key),
            }
            Ok(())
        })?;
        let [frame_max, in_flight_max, batch_max, message_max, timeout_max_ms, idle_ms, document_max] = numbers;
        Ok(Hello {
            server: need(server, r, "no server")?,
            frame_max: need(frame_max, r, "no frame_max")?,
            in_flight_max: need(in_flight_max, r, "no in_flight_max")?,
            batch_max: need(batch_max, r, "no batch_max")?,
            message_max: need(message_max, r, "no message_max")?,
            timeout_max_ms: need(timeout_max_ms, r, "no timeout_max_ms")?,
            idle_ms: need(idle_ms, r, "no idle_ms")?,
            document_max: need(document_max, r, "no document_max")?,
        })
    }
}

impl<'a> Body<'a> for Ping<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(1);
        w.uint(1u8);
        w.bytes(&self.data);
    }

    fn read(r: &mut Reader<'a>, _: &Limits) -> Result<Self> {
        let mut data = None;
        r.map(|r, key| {
            match key {
                1 => data = Some(Cow::Borrowed(bytes_up_to(r, PING_MAX, Code::Malformed, "data too long")?)),
                _ => return r.extension(key),
            }
            Ok(())
        })?;
        Ok(Ping { data: need(data, r, "no data")? })
    }
}

impl<'a> Body<'a> for GoAway<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(3);
        w.uint(1u8);
        w.uint(self.last_id);
        w.uint(2u8);
        w.uint(self.reason as u8);
        w.uint(3u8);
        w.text(&self.message);
    }

    fn read(r: &mut Reader<'a>, _: &Limits) -> Result<Self> {
        let (mut last_id, mut reason, mut message) = (None, None, None);
        r.map(|r, key| {
            match key {
                1 => last_id = Some(r.u64()?),
                2 => reason = Some(r.number(GoAwayReason::from_u8, "no such reason")?),
                3 => message = Some(Cow::Borrowed(r.text(EXPLANATION_MAX)?)),
                _ => return r.extension(key),
            }
            Ok(())
        })?;
        Ok(GoAway {
            last_id: need(last_id, r, "no last_id")?,
            reason: need(reason, r, "no reason")?,
            message: need(message, r, "no message")?,
        })
    }
}

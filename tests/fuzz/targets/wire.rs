//! What a peer sends: frames cut from a stream, their bodies read as whatever they say they are.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use segl_wire::{
    Cancel, EXTENSION_KEY_MIN, Error, FrameBuffer, GoAway, Header, Hello, Keys, Kind, Limits, ListKeys, Message, Ping,
    Sign, SignAssertion, SignAssertionBatch, SignBatch, SignJws, Signed, SignedAssertion, SignedAssertionBatch,
    SignedBatch, SignedJws, check, encode_frame,
};

const LIMITS: Limits = Limits { batch_max: 1000, message_max: 65_536, document_max: 65_536 };

/// What is read is written into `frame` as it was, but for keys that may be skipped, and read again as the same: there
/// is one encoding.
fn read<'a, M: Message<'a> + Debug + PartialEq>(kind: Kind, id: u64, body: &'a [u8], frame: &'a mut Vec<u8>) {
    let Ok(message) = M::decode(body, &LIMITS) else { return };
    assert_eq!(check(body), Ok(()), "a body that is read is deterministic CBOR");
    let len = encode_frame(kind, id, &message, frame);
    let frame: &'a [u8] = frame;
    let (header, written) = frame.split_at(frame.len() - len);
    assert_eq!(header, Header { len: len as u32, kind: kind as u8, id }.encode());
    assert_eq!(M::decode(written, &LIMITS).as_ref(), Ok(&message), "what is written is read as the same");

    let (mut rest, mut known) = (body, Vec::new());
    without_extensions(&mut rest, &mut known);
    assert!(rest.is_empty(), "a body is one item");
    // Who reads a code of a later version as `Internal` writes that. Debug is asked only where the bytes differ.
    let has_code = matches!(kind, Kind::Error | Kind::SignedBatch | Kind::SignedAssertionBatch);
    let of_later_version = || has_code && format!("{message:?}").contains("code: Internal");
    assert!(written == known || of_later_version(), "{message:?} was {known:02x?} and became {written:02x?}");
}

/// Copies one item of deterministic CBOR, but for keys that a reader which does not know them skips.
fn without_extensions(rest: &mut &[u8], out: &mut Vec<u8>) {
    let (head, argument) = head_of(rest);
    match head[0] >> 5 {
        // Strings
        2 | 3 => {
            out.extend_from_slice(head);
            out.extend_from_slice(take(rest, argument as usize));
        }
        // An array
        4 => {
            out.extend_from_slice(head);
            (0..argument).for_each(|_| without_extensions(rest, out));
        }
        // A map
        5 => {
            let (mut pairs, mut count) = (Vec::new(), 0_u8);
            for _ in 0..argument {
                let (key, number) = head_of(rest);
                let mut value = Vec::new();
                without_extensions(rest, &mut value);
                if number < EXTENSION_KEY_MIN {
                    pairs.extend_from_slice(key);
                    pairs.extend_from_slice(&value);
                    count += 1;
                }
            }
            // There are no more than 64 such keys, each once.
            match count {
                0..24 => out.push(0xa0 | count),
                _ => out.extend_from_slice(&[0xb8, count]),
            }
            out.extend_from_slice(&pairs);
        }
        // Numbers, true and false
        _ => out.extend_from_slice(head),
    }
}

/// The first bytes of an item of CBOR, its type and argument, and what the argument is.
fn head_of<'a>(rest: &mut &'a [u8]) -> (&'a [u8], u64) {
    let short = rest[0] & 0x1f;
    let more = if short < 24 { 0 } else { 1_usize << (short - 24) };
    let head = take(rest, 1 + more);
    let long = || head[1..].iter().fold(0_u64, |argument, byte| argument << 8 | u64::from(*byte));
    (head, if more == 0 { short.into() } else { long() })
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, after) = (*rest).split_at(len);
    *rest = after;
    taken
}

fuzz_target!(|bytes: &[u8]| {
    let _ = check(bytes);
    let mut frames = FrameBuffer::new(65_536);
    let mut rest = bytes;
    while !rest.is_empty() {
        let taken = frames.push(rest);
        rest = &rest[taken..];
        let mut got = false;
        loop {
            match frames.next_frame() {
                Err(_) => return,
                Ok(None) => break,
                Ok(Some((header, body))) => {
                    got = true;
                    let id = header.id;
                    let Some(kind) = header.known_kind() else { continue };
                    let mut frame = Vec::new();
                    let again = &mut frame;
                    match kind {
                        Kind::Hello => read::<Hello<'_>>(kind, id, body, again),
                        Kind::Ping | Kind::Pong => read::<Ping<'_>>(kind, id, body, again),
                        Kind::ListKeys => read::<ListKeys>(kind, id, body, again),
                        Kind::Keys => read::<Keys<'_>>(kind, id, body, again),
                        Kind::Sign => read::<Sign<'_>>(kind, id, body, again),
                        Kind::Signed => read::<Signed<'_>>(kind, id, body, again),
                        Kind::SignBatch => read::<SignBatch<'_>>(kind, id, body, again),
                        Kind::SignedBatch => read::<SignedBatch<'_>>(kind, id, body, again),
                        Kind::SignAssertion => read::<SignAssertion<'_>>(kind, id, body, again),
                        Kind::SignedAssertion => read::<SignedAssertion<'_>>(kind, id, body, again),
                        Kind::SignAssertionBatch => read::<SignAssertionBatch<'_>>(kind, id, body, again),
                        Kind::SignedAssertionBatch => read::<SignedAssertionBatch<'_>>(kind, id, body, again),
                        Kind::SignJws => read::<SignJws<'_>>(kind, id, body, again),
                        Kind::SignedJws => read::<SignedJws<'_>>(kind, id, body, again),
                        Kind::Cancel => read::<Cancel>(kind, id, body, again),
                        Kind::GoAway => read::<GoAway<'_>>(kind, id, body, again),
                        Kind::Error => read::<Error<'_>>(kind, id, body, again),
                    }
                }
            }
        }
        if taken == 0 && !got {
            return;
        }
    }
});

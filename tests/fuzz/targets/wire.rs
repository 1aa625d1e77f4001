//! What a peer sends: frames cut from a stream, their bodies read as whatever they say they are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use segl_wire::{
    Error, FrameBuffer, GoAway, Hello, Keys, Kind, Limits, ListKeys, Message, Sign, SignAssertion, SignAssertionBatch,
    SignBatch, SignJws, Signed, SignedAssertion, SignedAssertionBatch, SignedBatch, SignedJws, check, encode_frame,
};

const LIMITS: Limits = Limits { batch_max: 1000, message_max: 65_536, document_max: 65_536 };

/// Whatever is read is written again as it was: there is one encoding.
fn read<'a, M: Message<'a>>(kind: Kind, id: u64, body: &'a [u8]) {
    let Ok(message) = M::decode(body, &LIMITS) else { return };
    assert_eq!(check(body), Ok(()), "a body that is read is deterministic CBOR");
    let mut frame = Vec::new();
    encode_frame(kind, id, &message, &mut frame);
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
                    match kind {
                        Kind::Hello => read::<Hello<'_>>(kind, id, body),
                        Kind::ListKeys => read::<ListKeys>(kind, id, body),
                        Kind::Keys => read::<Keys<'_>>(kind, id, body),
                        Kind::Sign => read::<Sign<'_>>(kind, id, body),
                        Kind::Signed => read::<Signed<'_>>(kind, id, body),
                        Kind::SignBatch => read::<SignBatch<'_>>(kind, id, body),
                        Kind::SignedBatch => read::<SignedBatch<'_>>(kind, id, body),
                        Kind::SignAssertion => read::<SignAssertion<'_>>(kind, id, body),
                        Kind::SignedAssertion => read::<SignedAssertion<'_>>(kind, id, body),
                        Kind::SignAssertionBatch => read::<SignAssertionBatch<'_>>(kind, id, body),
                        Kind::SignedAssertionBatch => read::<SignedAssertionBatch<'_>>(kind, id, body),
                        Kind::SignJws => read::<SignJws<'_>>(kind, id, body),
                        Kind::SignedJws => read::<SignedJws<'_>>(kind, id, body),
                        Kind::GoAway => read::<GoAway<'_>>(kind, id, body),
                        Kind::Error => read::<Error<'_>>(kind, id, body),
                        Kind::Ping | Kind::Pong | Kind::Cancel => {}
                    }
                }
            }
        }
        if taken == 0 && !got {
            return;
        }
    }
});

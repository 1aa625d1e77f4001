//! Arbitrary bytes: no decoder panics, and none takes memory by a length that is only announced.

use proptest::prelude::*;
use segl_wire::*;

use crate::cases::{DECODERS, any_case};

/// The most memory that a decoded body may take, for each byte of it: a certificate of no bytes is one byte on the
/// wire and a `Cow` in memory.
const MEMORY_PER_BYTE: u64 = 32;

fn nothing_bad_happens(body: &[u8]) {
    for (kind, again) in DECODERS {
        let mut result = Ok(Vec::new());
        let memory = allocation_counter::measure(|| result = again(body));
        let allowed = MEMORY_PER_BYTE * body.len() as u64 + result.as_ref().map_or(0, |out| 3 * out.len() as u64);
        assert!(memory.bytes_max <= allowed, "{kind:?} took {} of {allowed} bytes", memory.bytes_max);
        if result.is_ok() {
            assert_eq!(check(body), Ok(()), "{kind:?} took what is not the protocol's CBOR");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn arbitrary_bytes_never_panic_and_never_take_memory(body in prop::collection::vec(any::<u8>(), 0..300)) {
        nothing_bad_happens(&body);
    }

    #[test]
    fn a_broken_message_never_panics_and_never_takes_memory(
        case in any_case(), breaks in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut body = case.body;
        for (at, byte) in breaks {
            let at = at.index(body.len());
            body[at] = byte;
        }
        nothing_bad_happens(&body);
    }

    #[test]
    fn any_header_is_read_or_refused(bytes in any::<[u8; HEADER_LEN]>()) {
        match Header::parse(&bytes) {
            Ok(header) => prop_assert_eq!(header.encode(), bytes),
            Err(error) => {
                prop_assert_eq!(error, HeaderError::Reserved);
                prop_assert_ne!(&bytes[5..8], &[0; 3]);
            }
        }
    }
}

#[test]
fn an_announced_length_takes_no_memory() {
    // A batch, and a list of keys, of 2^32 - 1 and of 2^64 - 1 items; then a text and bytes of such a length.
    let heads: [&[u8]; 6] = [
        &[0xa1, 0x10, 0x9a, 0xff, 0xff, 0xff, 0xff],
        &[0xa1, 0x01, 0x9a, 0xff, 0xff, 0xff, 0xff],
        &[0xa1, 0x01, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xa1, 0x01, 0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xa1, 0x01, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    for head in heads {
        for (kind, again) in DECODERS {
            let memory = allocation_counter::measure(|| assert!(again(head).is_err(), "{kind:?}"));
            assert_eq!(memory.bytes_max, 0, "{kind:?} {head:02x?}");
        }
    }
}

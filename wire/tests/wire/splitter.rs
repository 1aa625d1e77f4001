//! The receive buffer: every frame comes out whole however its bytes arrive, and memory stays bounded.

use proptest::prelude::*;
use segl_wire::*;

use crate::cases::any_case;

/// The buffer's promise: a longest frame, and one read.
fn memory_max(frame_max: u32) -> usize {
    HEADER_LEN + frame_max as usize + 16 * 1024
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_reads_bring(
        cases in prop::collection::vec(any_case(), 1..30),
        cuts in prop::collection::vec(1..700usize, 1..20),
    ) {
        let longest = cases.iter().map(|case| case.body.len()).max().unwrap();
        let mut stream = Vec::new();
        for (id, case) in cases.iter().enumerate() {
            let header = Header { len: case.body.len() as u32, kind: case.kind as u8, id: id as u64 };
            stream.extend_from_slice(&header.encode());
            stream.extend_from_slice(&case.body);
        }
        let mut buffer = FrameBuffer::new(longest as u32);
        let mut cuts = cuts.iter().copied().cycle();
        let (mut rest, mut received) = (stream.as_slice(), 0);
        while !rest.is_empty() {
            let len = cuts.next().unwrap().min(rest.len());
            let taken = buffer.push(&rest[..len]);
            prop_assert!(taken > 0, "there is room once every frame was taken");
            rest = &rest[taken..];
            while let Some((header, body)) = buffer.next_frame().unwrap() {
                prop_assert_eq!(header.known_kind(), Some(cases[received].kind));
                prop_assert_eq!(header.id, received as u64);
                prop_assert_eq!(body, &cases[received].body);
                received += 1;
            }
            prop_assert!(buffer.capacity() <= memory_max(longest as u32));
        }
        prop_assert_eq!((received, buffer.pending()), (cases.len(), 0));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_take_more_than_a_frame(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..500), 1..40),
        frame_max in 0..2000u32,
    ) {
        let mut buffer = FrameBuffer::new(frame_max);
        'all: for chunk in chunks {
            let mut rest = chunk.as_slice();
            while !rest.is_empty() {
                let taken = buffer.push(rest);
                rest = &rest[taken..];
                loop {
                    match buffer.next_frame() {
                        Ok(Some((header, body))) => prop_assert_eq!(header.len as usize, body.len()),
                        Ok(None) => break,
                        Err(_) => break 'all,
                    }
                }
                prop_assert!(buffer.capacity() <= memory_max(frame_max));
            }
        }
    }
}

#[test]
fn a_length_above_the_limit_is_refused_with_the_header_alone() {
    let mut buffer = FrameBuffer::new(1000);
    let header = Header { len: 1001, kind: Kind::Sign as u8, id: 1 };
    assert_eq!(buffer.push(&header.encode()[..15]), 15);
    assert_eq!(buffer.next_frame(), Ok(None));
    assert_eq!(buffer.push(&header.encode()[15..]), 1);
    let error = buffer.next_frame().unwrap_err();
    assert_eq!(error, HeaderError::TooLong { len: 1001, max: 1000 });
    assert_eq!(error.code(), Code::FrameTooLong);
    assert!(buffer.capacity() <= 16 * 1024);
}

#[test]
fn an_announced_body_takes_memory_only_as_it_comes() {
    let mut buffer = FrameBuffer::new(16 << 20);
    let header = Header { len: 16 << 20, kind: Kind::Sign as u8, id: 1 };
    assert_eq!(buffer.push(&header.encode()), HEADER_LEN);
    assert_eq!(buffer.next_frame(), Ok(None));
    buffer.room();
    assert!(buffer.capacity() <= 64 * 1024, "{}", buffer.capacity());
}

#[test]
fn memory_of_a_long_frame_is_given_back() {
    let mut buffer = FrameBuffer::new(1 << 20);
    let header = Header { len: 1 << 20, kind: Kind::Sign as u8, id: 1 };
    let stream = [&header.encode()[..], &vec![0; 1 << 20]].concat();
    let mut rest = stream.as_slice();
    while !rest.is_empty() {
        let taken = buffer.push(rest);
        rest = &rest[taken..];
    }
    assert_eq!(buffer.next_frame().unwrap().unwrap().1.len(), 1 << 20);
    assert!(buffer.capacity() > 1 << 20);
    buffer.room();
    assert!(buffer.capacity() <= 16 * 1024);
}

#[test]
fn flags_and_reserved_bytes_must_be_zero() {
    for at in 5..8 {
        let mut bytes = Header { len: 0, kind: Kind::Ping as u8, id: 0 }.encode();
        bytes[at] = 1;
        let mut buffer = FrameBuffer::new(1000);
        assert_eq!(buffer.push(&bytes), HEADER_LEN);
        assert_eq!(buffer.next_frame().unwrap_err().code(), Code::Malformed);
    }
}

#[test]
fn a_frame_is_appended_whole_to_what_is_there() {
    let mut out = b"before".to_vec();
    let ping = Ping { data: b"x".as_slice().into() };
    assert_eq!(encode_frame(Kind::Ping, 0x0102, &ping, &mut out), 4);
    assert_eq!(out, b"before\0\0\0\x04\x02\0\0\0\0\0\0\0\0\0\x01\x02\xa1\x01\x41x");
}

//! What a request and its answer cost the protocol: once decoded, once encoded, on every signature's way.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use segl_wire::{
    Capacity, Class, Context, Cvr, EcdsaEncoding, FrameBuffer, Kind, Limits, Message, Meta, Payload, Sign, Signed,
    Timings, encode_frame,
};

const LIMITS: Limits = Limits { batch_max: 1000, message_max: 65_536, document_max: 65_536 };

fn request() -> Sign<'static> {
    let context = Context {
        reference: Some("4f1c2ab09d7e4d21".into()),
        on_behalf_of: Some("town-hall-portal".into()),
        capacity: Cvr::new("12345678").map(Capacity::Company),
    };
    Sign {
        meta: Meta { timeout_ms: 5000, class: Class::Signature, context },
        key: "seal-p256".into(),
        algorithm: "ecdsa-p256-sha256".into(),
        payload: Payload::Digest(vec![7; 32].into()),
        encoding: EcdsaEncoding::Der,
        timings: true,
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    let mut frame = Vec::new();
    encode_frame(Kind::Sign, 1, &request(), &mut frame);
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("cut and decode Sign", |bencher| {
        let mut frames = FrameBuffer::new(65_536);
        bencher.iter(|| {
            assert_eq!(frames.push(&frame), frame.len());
            let (header, body) = frames.next_frame().expect("it is sound").expect("it is whole");
            Sign::decode(body, &LIMITS).map(|sign| sign.key.len() + header.id as usize)
        });
    });
    let answer =
        Signed { signature: vec![9; 71].into(), timings: Some(Timings { queue_us: 40, token_us: 900 }), version: None };
    group.bench_function("encode Signed", |bencher| {
        let mut out = Vec::with_capacity(1024);
        bencher.iter(|| {
            out.clear();
            encode_frame(Kind::Signed, 1, &answer, &mut out)
        });
    });
}

criterion_group!(benches, codec);
criterion_main!(benches);

//! What a SAML assertion costs before and after the token: bytes to what is signed, and the signature to the answer.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use segl_assertion::saml::{DigestMethod, Document, KeyInfo, Limits, SignatureMethod};

const SAMPLES: [(&str, &str); 2] = [
    ("person", include_str!("../../assertion/tests/samples/person.xml")),
    ("company", include_str!("../../assertion/tests/samples/company.xml")),
];

fn assertion(criterion: &mut Criterion) {
    let limits = Limits::default();
    // A leaf with an RSA key of 3072 bits has about this many bytes.
    let key_info = KeyInfo::x509(&[vec![7; 1200]]);
    for (name, sample) in SAMPLES {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(sample.len() as u64));
        let parse = || Document::parse(sample.as_bytes(), &limits).expect("the sample is sound");
        group.bench_function("bytes to digest", |bencher| {
            bencher.iter(|| parse().digest(DigestMethod::Sha256));
        });
        group.bench_function("parse and check", |bencher| bencher.iter(|| parse().assertion().id().len()));
        let document = parse();
        group.bench_function("canonical form to digest", |bencher| {
            bencher.iter(|| document.digest(DigestMethod::Sha256));
        });
        let octets = document.canonical_form();
        group.bench_function("SHA-256 of the canonical form", |bencher| {
            bencher.iter(|| ring::digest::digest(&ring::digest::SHA256, &octets));
        });
        let prepare = || document.prepare(SignatureMethod::RsaSha256, DigestMethod::Sha256, &key_info);
        group.bench_function("digest and prepare", |bencher| bencher.iter(prepare));
        let prepared = prepare();
        group.bench_function("finish", |bencher| {
            bencher.iter_batched(
                || prepared.clone(),
                |prepared| prepared.finish(&[7; 384]),
                criterion::BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, assertion);
criterion_main!(benches);

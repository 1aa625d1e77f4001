//! Each part of a request's way by itself.

use criterion::{Criterion, criterion_group, criterion_main};

fn hot_path(criterion: &mut Criterion) {
    for part in segl_bench::hot_path::PARTS {
        let mut once = part.prepare().expect("what the part needs can be made");
        criterion.bench_function(part.name, |bencher| bencher.iter(&mut once));
    }
}

criterion_group!(benches, hot_path);
criterion_main!(benches);

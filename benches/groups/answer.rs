//! What a loaded model takes to answer: one row, and many.

use burn::tensor::{Device, Distribution, Tensor};
use burn_ema::model::MlpConfig;
use criterion::{BenchmarkId, Criterion, Throughput};

pub fn answers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("answer");
    let device = Device::flex();
    for (name, sizes) in
        [("64-32-10", vec![64, 32, 10]), ("784-512-256-10", vec![784, 512, 256, 10])]
    {
        let mlp = MlpConfig::new(sizes.clone()).init(&device).unwrap();
        for rows in [1, 1024] {
            let input = Tensor::<2>::random([rows, sizes[0]], Distribution::Default, &device);
            group.throughput(Throughput::Elements(rows as u64));
            group.bench_function(BenchmarkId::new(format!("{rows} row(s)"), name), |bench| {
                bench.iter(|| mlp.forward(input.clone()));
            });
        }
    }
}

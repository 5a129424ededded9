//! One dense layer of sigmoids: its answer, and with the way back.

use burn::tensor::{Device, Distribution, Tensor};
use burn_ema::model::MlpConfig;
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::workload::device;

pub fn layers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layer");
    for [batch, inputs, outputs] in [[32, 64, 32], [64, 784, 512], [512, 784, 512]] {
        let name = format!("{inputs}-{outputs}-b{batch}");
        let layer = |device: &Device| MlpConfig::new(vec![inputs, outputs]).init(device).unwrap();
        let random = |width, device: &Device| {
            Tensor::<2>::random([batch, width], Distribution::Normal(0.0, 1.0), device)
        };
        group.throughput(Throughput::Elements((batch * inputs * outputs) as u64));
        let plain = Device::flex();
        let (mlp, input) = (layer(&plain), random(inputs, &plain));
        group.bench_function(BenchmarkId::new("forward", &name), |bench| {
            bench.iter(|| mlp.forward(input.clone()));
        });
        let (mlp, input) = (layer(&device()), random(inputs, &device()));
        let input = input.require_grad();
        group.bench_function(BenchmarkId::new("forward and backward", &name), |bench| {
            bench.iter(|| mlp.forward(input.clone()).sum().backward());
        });
    }
}

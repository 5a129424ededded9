//! The module of an average, as a loop asks for it at each step, beside a clone of live.

use std::hint::black_box;

use burn::{
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::Device,
};
use burn_ema::{AverageConfig, Rule};
use criterion::Criterion;

/// A network of reinforcement learning: two layers of 64.
#[derive(Module, Debug)]
struct Agent {
    first: Linear,
    second: Linear,
    last: Linear,
}

pub fn modules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("module");
    let device = Device::flex();
    let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(&device);
    let live = Agent { first: linear(4, 64), second: linear(64, 64), last: linear(64, 2) };
    let mut target = AverageConfig::new(Rule::target(0.005)).init(&live).unwrap();
    group.bench_function("clone of live", |bench| bench.iter(|| black_box(live.clone())));
    group.bench_function("valid of live", |bench| bench.iter(|| black_box(live.valid())));
    group.bench_function("of a target", |bench| bench.iter(|| black_box(target.module())));
    group.bench_function("update of a target", |bench| {
        bench.iter(|| target.advance(&live).unwrap());
    });
    group.bench_function("update and module of a target", |bench| {
        bench.iter(|| {
            target.advance(&live).unwrap();
            black_box(target.module())
        });
    });
}

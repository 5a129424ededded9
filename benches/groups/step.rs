//! Training steps, in a loop of one's own with and without an average, and by Burn's Learner.

use criterion::{BenchmarkId, Criterion, Throughput};

use crate::workload::{Hooked, Learned, NETWORKS, OPTIMIZERS, OwnLoop, device};

pub fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step");
    let device = device();
    for network in &NETWORKS {
        let rows = network.rows(&device);
        group.throughput(Throughput::Elements(network.weights() as u64));
        for optimizer in OPTIMIZERS {
            let id = |what| BenchmarkId::new(format!("{} {what}", optimizer.name()), network.name);
            for (what, averages) in [("without average", false), ("with average", true)] {
                let mut training = OwnLoop::new(network, optimizer, averages, &device).unwrap();
                group.bench_function(id(what), |bench| {
                    bench.iter(|| training.step(rows.clone()).unwrap());
                });
            }
            let mut training = Hooked::new(network, optimizer, &device).unwrap();
            group.bench_function(id("with the hook"), |bench| {
                bench.iter(|| training.step(rows.clone()));
            });
            let mut training = Learned::new(network, optimizer, &device).unwrap();
            group.bench_function(id("in Learner"), |bench| {
                bench.iter(|| training.step(rows.clone()));
            });
        }
    }
}

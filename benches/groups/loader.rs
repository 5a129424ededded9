//! Passes over a loader, and epochs whose batches are made in line or ahead by a thread.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use burn::data::dataloader::DataLoader;
use burn_ema::model::Batch;
use burn_ema_lab::{
    data::{Sample, loader},
    run::OptimizerKind,
};
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::workload::{NETWORKS, Network, OwnLoop, device};

const BATCHES: usize = 50;

/// Rows for a network, in random order.
fn rows(network: &Network) -> Arc<dyn DataLoader<Batch>> {
    let Network { sizes, batch, .. } = network;
    let number = |i: usize| (i % 97) as f32 * 0.01;
    let sample = |row| Sample {
        inputs: (0..sizes[0]).map(|i| number(row + i)).collect(),
        targets: (0..sizes[sizes.len() - 1]).map(|i| number(row * i)).collect(),
    };
    loader((0..BATCHES * batch).map(sample).collect(), *batch, Some(1), &device()).unwrap()
}

pub fn passes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("loader");
    for network in &NETWORKS[..4] {
        let loader = rows(network);
        group.throughput(Throughput::Elements(loader.num_items() as u64));
        group.bench_function(BenchmarkId::new("pass", network.name), |bench| {
            bench.iter(|| loader.iter().for_each(drop));
        });
        group.bench_function(BenchmarkId::new("pass not taken", network.name), |bench| {
            bench.iter(|| drop(loader.iter()));
        });
    }
}

pub fn epochs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("epoch");
    for network in &NETWORKS[..4] {
        let loader = &rows(network);
        let mut training = OwnLoop::new(network, OptimizerKind::Sgd, true, &device()).unwrap();
        let batches: Vec<_> = loader.iter().collect::<Result<_, _>>().unwrap();
        group.bench_function(
            BenchmarkId::new("of batches that are there", network.name),
            |bench| {
                bench.iter(|| batches.iter().try_for_each(|b| training.step(b.clone())).unwrap());
            },
        );
        group.bench_function(BenchmarkId::new("of batches in line", network.name), |bench| {
            bench.iter(|| loader.iter().for_each(|b| training.step(b.unwrap()).unwrap()));
        });
        group.bench_function(BenchmarkId::new("of batches made ahead", network.name), |bench| {
            bench.iter(|| {
                thread::scope(|scope| {
                    let (made, taken) = mpsc::sync_channel(2);
                    scope.spawn(move || loader.iter().for_each(|b| made.send(b).unwrap()));
                    (0..BATCHES).for_each(|_| {
                        training.step(taken.recv().unwrap().unwrap()).unwrap();
                    });
                });
            });
        });
    }
}

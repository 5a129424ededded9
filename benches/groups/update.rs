//! One update of an average, and of four.

use burn::tensor::Device;
use burn_ema::{Average, average::update_all};
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::{
    weights::{M_25, TINY, Tensors, Weights},
    workload::average,
};

pub fn updates(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("update");
    let shapes: [(&str, Tensors); 4] =
        [("1000x400", TINY), ("1M", &[[1, 1_000_000]]), ("10M", &[[10, 1_000_000]]), ("25M", M_25)];
    for (name, tensors) in shapes {
        let weights: usize = tensors.iter().map(|[count, size]| count * size).sum();
        for count in [1, 4] {
            let live = Weights::new(tensors, &Device::flex());
            let averages = (0..count).map(|_| average().init(&live));
            let mut averages: Vec<Average<_>> = averages.collect::<Result<_, _>>().unwrap();
            let mut step = 0;
            group.throughput(Throughput::Elements((count * weights) as u64));
            group.bench_function(BenchmarkId::new(format!("{count} average(s)"), name), |bench| {
                bench.iter(|| {
                    step += 1;
                    update_all(&mut averages, &live, step, None).unwrap();
                });
            });
        }
    }
}

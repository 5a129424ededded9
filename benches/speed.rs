//! Criterion's benches, with the allocator that programs here take:
//! `cargo bench --bench speed -- NAME`.

mod groups;
mod weights;
mod workload;

use criterion::criterion_main;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_main!(groups::all);

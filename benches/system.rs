//! The same benches with the system's allocator. Run after them, they print as a change what
//! that one costs: `cargo bench --bench speed --bench system -- step`.

mod groups;
mod weights;
mod workload;

use criterion::criterion_main;

criterion_main!(groups::all);

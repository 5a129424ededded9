//! What is measured, a group a file.

mod answer;
mod layer;
mod loader;
mod module;
mod step;
mod update;

use std::time::Duration;

use criterion::{Criterion, criterion_group};

criterion_group! {
    name = all;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    targets =
        update::updates,
        module::modules,
        layer::layers,
        step::steps,
        loader::passes,
        loader::epochs,
        answer::answers,
}

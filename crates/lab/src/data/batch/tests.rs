use burn::data::dataloader::{DataLoaderBuilder, batcher::Batcher};
use burn::data::dataset::InMemDataset;

use super::*;

/// Samples with the inputs `[i, i + 0.5]` and the target `[-i]`.
fn samples(count: usize) -> Vec<Sample> {
    let sample = |i| Sample { inputs: vec![i as f32, i as f32 + 0.5], targets: vec![-(i as f32)] };
    (0..count).map(sample).collect()
}

fn load(samples: Vec<Sample>, batch_size: usize, shuffle: Option<u64>) -> Result<Loader> {
    loader(samples, batch_size, shuffle, &Device::default())
}

/// As callers see it.
type Loader = Arc<dyn DataLoader<Batch>>;

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// The numbers of the samples of one pass, after a check that inputs and targets belong.
fn pass(loader: &Loader) -> Vec<f32> {
    let targets = |batch: Batch| {
        let (inputs, targets) = (values(batch.inputs), values(batch.targets));
        for (input, target) in inputs.chunks_exact(2).zip(&targets) {
            assert_eq!(input, [-target, -target + 0.5]);
        }
        targets.into_iter().map(|target| -target)
    };
    loader.iter().flat_map(|batch| targets(batch.unwrap())).collect()
}

#[test]
fn batches_hold_the_samples_in_their_order() {
    let loader = load(samples(7), 3, None).unwrap();
    let batches: Vec<_> = loader.iter().map(Result::unwrap).collect();
    let shapes: Vec<_> =
        batches.iter().map(|batch| (batch.inputs.dims(), batch.targets.dims())).collect();
    assert_eq!(shapes, [([3, 2], [3, 1]), ([3, 2], [3, 1]), ([1, 2], [1, 1])]);
    assert_eq!(pass(&loader), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(loader.num_items(), 7);
}

#[test]
fn a_seed_decides_the_order_of_each_pass() {
    for seed in 0..5 {
        let passes = || {
            let loader = load(samples(50), 8, Some(seed)).unwrap();
            [pass(&loader), pass(&loader)]
        };
        let [first, second] = passes();
        assert_eq!([first.clone(), second.clone()], passes());
        assert_ne!(first, second);
        let mut sorted = first.clone();
        sorted.sort_by(f32::total_cmp);
        assert_ne!(first, sorted);
        assert_eq!(sorted, pass(&load(samples(50), 8, None).unwrap()));
    }
}

/// Burn's loader of the same samples.
fn burns(samples: Vec<Sample>, batch_size: usize, shuffle: Option<u64>) -> Loader {
    struct Stack;
    impl Batcher<Sample, Batch> for Stack {
        fn batch(&self, samples: Vec<Sample>, device: &Device) -> Batch {
            let stack = |row: fn(&Sample) -> &Vec<f32>| {
                let values: Vec<f32> = samples.iter().flat_map(row).copied().collect();
                let columns = values.len() / samples.len();
                Tensor::from_data(TensorData::new(values, [samples.len(), columns]), device)
            };
            let targets = stack(|sample| &sample.targets);
            Batch { inputs: stack(|sample| &sample.inputs), targets }
        }
    }
    let builder = DataLoaderBuilder::new(Stack).batch_size(batch_size);
    match shuffle {
        Some(seed) => builder.shuffle(seed).build(InMemDataset::new(samples)),
        None => builder.build(InMemDataset::new(samples)),
    }
}

/// Asserts so many items of all those of a loader.
#[track_caller]
fn assert_progress(progress: &Progress, processed: usize, loader: &Loader) {
    // The name of the field of all items depends on the version of Burn.
    let expected = Progress::new(processed, loader.num_items(), progress.unit.clone());
    assert_eq!(format!("{progress:?}"), format!("{expected:?}"));
}

/// The numbers, batch sizes and progress of a pass.
fn trace(loader: &Loader) -> Vec<(Vec<f32>, usize, Option<String>)> {
    let mut batches = loader.iter();
    let mut trace = Vec::new();
    while let Some(batch) = batches.next() {
        let progress = batches.progress();
        assert_progress(&progress, progress.items_processed, loader);
        trace.push((values(batch.unwrap().targets), progress.items_processed, progress.unit));
    }
    assert_progress(&batches.progress(), loader.num_items(), loader);
    trace
}

#[test]
fn orders_and_progress_are_those_of_burns_loader() {
    let device = Device::default();
    for seed in [None, Some(0), Some(1), Some(7), Some(u64::MAX)] {
        for (count, batch_size) in [(1, 1), (7, 3), (64, 8), (300, 7)] {
            let ours = load(samples(count), batch_size, seed).unwrap();
            let theirs = burns(samples(count), batch_size, seed);
            let passes = |loader: &Loader| {
                let first = trace(loader);
                let moved = loader.to_device(&device);
                let parts = [loader.slice(0, count / 2), moved.slice(count / 2, count)];
                // A pass that nobody takes is one.
                drop(loader.iter());
                let counts = parts.each_ref().map(|part| part.num_items());
                let twice = parts[1].slice(0, counts[1] / 2);
                let loaders = [loader, &parts[0], &parts[1], &twice, &moved, loader];
                (first, counts, loaders.map(trace))
            };
            assert_eq!(passes(&ours), passes(&theirs), "{seed:?}, {count} by {batch_size}");
        }
    }
}

#[test]
#[should_panic(expected = "a slice 2..8 of a loader of 7 rows")]
fn a_slice_beyond_the_samples_panics() {
    load(samples(7), 3, None).unwrap().slice(2, 8);
}

#[test]
fn a_batch_larger_than_the_samples_is_all_of_them() {
    let loader = load(samples(4), usize::MAX, None).unwrap();
    assert_eq!(loader.iter().count(), 1);
    assert_eq!(pass(&loader).len(), 4);
}

#[test]
fn inputs_are_a_row_a_sample() {
    let found = inputs(&samples(3), &Device::default()).unwrap();
    assert_eq!((found.dims(), values(found)), ([3, 2], vec![0.0, 0.5, 1.0, 1.5, 2.0, 2.5]));
    let mut uneven = samples(3);
    uneven[1].inputs.push(7.0);
    let message = inputs(&uneven, &Device::default()).unwrap_err().to_string();
    assert_eq!(message, "sample 1 is 3 inputs and 1 targets, expected 2 inputs and 1 targets");
    inputs(&[], &Device::default()).unwrap_err();
}

#[test]
fn what_cannot_be_loaded_is_refused() {
    let refusal = |samples, size| load(samples, size, None).err().unwrap().to_string();
    assert_eq!(refusal(samples(3), 0), "the batch size is 0, expected 1 or more");
    assert_eq!(refusal(vec![], 1), "the number of samples is 0, expected 1 or more");
    let mut uneven = samples(3);
    uneven[2].inputs.pop();
    assert_eq!(
        refusal(uneven, 2),
        "sample 2 is 1 inputs and 1 targets, expected 2 inputs and 1 targets"
    );
    let empty = vec![Sample { inputs: vec![], targets: vec![1.0] }];
    assert!(refusal(empty, 1).starts_with("sample 0 is 0 inputs"));
}

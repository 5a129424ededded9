//! Tests of Burn 0.22.1, not of this crate.
//!
//! They pin what Burn does today, so that we notice when Burn mends it. A failure here is good news:
//! remove the workaround that the test's comment names.

use std::{
    collections::BTreeSet,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
#[cfg(target_os = "linux")]
use std::{
    io::{Read as _, Seek as _},
    process::{Command, ExitStatus},
    time::Instant,
};

use burn::{
    data::{
        dataloader::{DataLoader, DataLoaderBuilder, batcher::Batcher},
        dataset::InMemDataset,
    },
    lr_scheduler::constant::ConstantLr,
    module::{Module, Param, ParamId},
    optim::ModuleOptimizer,
    store::ModuleRecord,
    tensor::{DType, Device, Int, Tensor, TensorData},
    train::{
        Learner, SupervisedTraining, TrainStep, checkpoint::KeepLastNCheckpoints,
        metric::LossMetric,
    },
};
use burn_ema::runs::ProgressLines;

use crate::{
    common::{Net, Plan, Points, Weights, adam, device, flat, points},
    hand::cast,
    next::{NEXT, total},
};

/// The message that a call panics with.
#[track_caller]
fn panic_of<T>(call: impl FnOnce() -> T) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(call)) else { panic!("no panic") };
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => (*payload.downcast_ref::<&str>().unwrap()).to_owned(),
    }
}

fn answer(net: &Net, device: &Device) -> Vec<f32> {
    let x = Tensor::from_data([[0.3, -0.7], [1.1, 0.2]], device);
    net.forward(x).into_data().try_into_vec().unwrap()
}

/// What a network loaded from the file of one answers, after the file became another's; and what
/// these two answer.
fn answers_around_a_replaced_file(seed: u64, device: &Device) -> [Vec<f32>; 3] {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.bpk");
    let [a, b] = [seed, seed + 10].map(|seed| Net::new(seed, device));
    a.clone().save_file(&path).unwrap();
    let loaded = Net::new(seed + 20, device).try_load_file(&path).unwrap();
    b.clone().save_file(&path).unwrap();
    [&loaded, &a, &b].map(|net| answer(net, device))
}

/// Hence `average/pack.rs` and `average/record.rs` read a record into memory before it is loaded.
#[test]
fn flex_reads_a_loaded_file_at_first_use_and_answers_with_what_it_has_become() {
    for seed in 0..3 {
        let [loaded, a, b] = answers_around_a_replaced_file(seed, &device());
        assert_eq!(loaded, b);
        assert_ne!(loaded, a);
    }
}

/// Where the fault is not: a failure here is bad news.
#[test]
#[cfg(feature = "ndarray")]
fn ndarray_reads_a_loaded_file_at_once() {
    #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
    let device = Device::ndarray();
    for seed in 0..3 {
        let [loaded, a, b] = answers_around_a_replaced_file(seed, &device);
        assert_eq!(loaded, a);
        assert_ne!(loaded, b);
    }
}

/// Hence the same.
#[test]
fn flex_panics_where_a_loaded_file_is_gone_at_first_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.bpk");
    Net::new(0, &device()).save_file(&path).unwrap();
    let loaded = Net::new(1, &device()).try_load_file(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let message = panic_of(|| answer(&loaded, &device()));
    assert!(message.starts_with("bytes: host access failed"), "{message}");
}

fn file_names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// Hence `burn-ema-runs` makes the three files one commit, and deletes none for a failed one.
#[test]
fn the_last_checkpoint_is_deleted_although_the_next_one_failed_to_save() {
    let all = ["model", "optim", "scheduler"];
    for failing in [&all[..1], &all[1..2], &all] {
        let directory = tempfile::tempdir().unwrap();
        let checkpoints = directory.path().join("checkpoint");
        for name in failing {
            // A scratch file cannot be renamed to a directory that is not empty.
            fs::create_dir_all(checkpoints.join(format!("{name}-2.bpk/full"))).unwrap();
        }
        let plan = Plan { epochs: 3, checkpoints: true, ..Plan::new(directory.path()) };
        let training = plan.training().with_checkpointing_strategy(KeepLastNCheckpoints::new(1));
        let result = training.launch(learner(0));
        let error = result.error.unwrap().to_string();
        assert!(error.contains("-2.bpk"), "{error}");
        // Epoch 1 was whole and is gone, epoch 2 is not whole, epoch 3 was not reached.
        let left = all.iter().filter(|name| !failing.contains(name));
        assert_eq!(file_names(&checkpoints), left.map(|name| format!("{name}-2.bpk")).collect());
    }
}

fn learner(seed: u64) -> Learner<Net> {
    Learner::new(Net::new(seed, &device()).train(), adam(), ConstantLr::new(0.02))
}

const DIRECTORY: &str = "BURN_TEST_DIRECTORY";
const EPOCHS: &str = "BURN_TEST_EPOCHS";

/// A training with a metric that Burn logs, in a process that may not survive it.
#[test]
#[ignore = "a process that other tests start"]
fn child_trains() {
    let (Ok(directory), Ok(epochs)) = (env::var(DIRECTORY), env::var(EPOCHS)) else { return };
    let plan = Plan { epochs: epochs.parse().unwrap(), ..Plan::new(directory.as_ref()) };
    let result = plan.training().metrics((LossMetric::new(),)).launch(learner(0));
    println!("returned {:?}", result.error);
}

/// The end of the process, and its text on both streams. It is killed after a minute.
#[cfg(target_os = "linux")]
fn child(directory: &Path, epochs: usize) -> (ExitStatus, String) {
    let mut streams = tempfile::tempfile().unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "burn::child_trains", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(EPOCHS, epochs.to_string())
        .stdout(streams.try_clone().unwrap())
        .stderr(streams.try_clone().unwrap())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let status = child.wait().unwrap();
    let mut text = String::new();
    streams.rewind().unwrap();
    streams.read_to_string(&mut text).unwrap();
    (status, text)
}

/// Hence `crates/runs/src/history.rs` holds the metrics of a run.
///
/// Burn writes its logs in threads of their own; a training that is at its end when one fails
/// panics instead. A training that waits for its metrics when the thread dies waits for ever, since
/// the request stays in a channel that nobody reads.
#[test]
#[cfg(target_os = "linux")]
fn a_metric_log_that_cannot_be_written_aborts_the_process_or_stops_it_for_ever() {
    use std::os::unix::{fs::symlink, process::ExitStatusExt};

    let [healthy, no_directory, full_disk] = [0, 1, 2].map(|_| tempfile::tempdir().unwrap());
    let (status, text) = child(healthy.path(), 1);
    assert!(status.success() && text.contains("returned None"), "{text}");

    let epoch = |directory: &tempfile::TempDir| directory.path().join("train/epoch-1");
    fs::create_dir(no_directory.path().join("train")).unwrap();
    fs::write(epoch(&no_directory), "").unwrap();
    fs::create_dir_all(epoch(&full_disk)).unwrap();
    symlink("/dev/full", epoch(&full_disk).join("Loss.log")).unwrap();
    for (directory, cause) in [
        (no_directory, "Loss.log': Not a directory (os error 20)"),
        (full_disk, "Can log an item.: Os { code: 28, kind: StorageFull"),
    ] {
        // Far more epochs than it gets through.
        let (status, text) = child(directory.path(), 2_000);
        const SIGABRT: i32 = 6;
        const SIGKILL: i32 = 9;
        assert!(text.contains(cause) && !text.contains("returned"), "{text}");
        match status.signal() {
            Some(SIGABRT) => {
                assert!(text.contains("panic in a destructor during cleanup"), "{text}");
            }
            signal => assert_eq!(signal, Some(SIGKILL), "{text}"),
        }
    }
}

fn step(net: Net, optimizer: &mut ModuleOptimizer) -> Net {
    let device = device().autodiff();
    let batch = points(8, 3).to_device(&device).iter().next().unwrap().unwrap();
    let grads = TrainStep::step(&net, batch).grads;
    net.optimize(optimizer, 0.02.into(), grads)
}

/// Hence `burn-ema-runs` keeps the digest of an optimizer's file in a manifest, and checks what it
/// must hold.
#[test]
fn an_optimizer_file_with_a_flipped_bit_loads_as_a_fresh_optimizer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("optim.bpk");
    let (mut net, mut optimizer) = (Net::new(0, &device()).train(), adam());
    for _ in 0..5 {
        net = step(net, &mut optimizer);
    }
    optimizer.save(&path).unwrap();
    let next = |mut optimizer| flat(&step(net.clone(), &mut optimizer).valid(), false);
    let [whole, fresh] = [adam().load(&path).unwrap(), adam()].map(next);
    assert_eq!(whole, next(optimizer));
    assert_ne!(whole, fresh);

    let bytes = fs::read(&path).unwrap();
    let key = bytes.windows(7).position(|window| window == b"scalars").unwrap();
    let mut silent = 0;
    for bit in 0..56 {
        let mut damaged = bytes.clone();
        damaged[key + bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, damaged).unwrap();
        let Ok(loaded) = adam().load(&path) else { continue };
        silent += 1;
        assert!(loaded.to_record().is_empty());
        assert_eq!(next(loaded), fresh);
    }
    assert_eq!(silent, 49);
}

/// A batcher that notes its items, and panics at one.
#[derive(Clone, Default)]
struct Noting {
    items: Arc<Mutex<Vec<usize>>>,
    broken: Option<usize>,
}

impl Noting {
    /// The items since the last call.
    fn take(&self) -> Vec<usize> {
        std::mem::take(&mut self.items.lock().unwrap())
    }

    fn loader(&self) -> DataLoaderBuilder<usize, Points> {
        DataLoaderBuilder::new(self.clone()).batch_size(8)
    }
}

impl Batcher<usize, Points> for Noting {
    fn batch(&self, items: Vec<usize>, device: &Device) -> Points {
        assert!(self.broken.is_none_or(|broken| !items.contains(&broken)), "a broken item");
        self.items.lock().unwrap().extend(&items);
        let of = |columns| {
            let values = items.iter().flat_map(|&item| vec![item as f32 / 64.0; columns]);
            TensorData::new(values.collect::<Vec<_>>(), [items.len(), columns])
        };
        Points { x: Tensor::from_data(of(2), device), y: Tensor::from_data(of(3), device) }
    }
}

/// The numbers to 64.
fn dataset() -> InMemDataset<usize> {
    InMemDataset::new((0..64).collect())
}

fn training(directory: &Path, loader: Arc<dyn DataLoader<Points>>) -> SupervisedTraining<Net> {
    SupervisedTraining::new(directory, loader, points(24, 2))
        .with_application_logger(None)
        .renderer(Box::new(ProgressLines::new(std::io::sink())))
}

/// Hence `train/strategy.rs` asks at the end of an epoch how many items there were.
#[test]
fn an_epoch_ends_early_and_well_where_a_worker_of_the_loader_panics() {
    // Two workers of 32 items each, the first of which gets as far as the broken one's batch.
    for (broken, expected) in [(0, 32), (20, 48), (63, 56)] {
        let batcher = Noting { broken: Some(broken), ..Noting::default() };
        let directory = tempfile::tempdir().unwrap();
        let loader = batcher.loader().num_workers(2).build(dataset());
        let result = training(directory.path(), loader)
            .metrics((LossMetric::new(),))
            .launch(learner(broken as u64));
        // The next version has an error then.
        let error = result.error.map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(error.contains("workers disconnected before completing"), NEXT, "{error}");
        assert!((NEXT || error.is_empty()) && result.interrupted.is_none());
        assert_eq!(batcher.take().len(), expected);
        let steps = fs::read_to_string(directory.path().join("train/epoch-1/Loss.log")).unwrap();
        // One line a step, and one of the epoch.
        assert_eq!(steps.lines().count(), expected / 8 + 1);
    }
}

/// Hence the same: this panic comes one epoch late, and not where that was the last.
#[test]
fn the_epoch_after_a_panic_of_a_worker_panics() {
    let batcher = Noting { broken: Some(20), ..Noting::default() };
    let loader = batcher.loader().num_workers(2).build(dataset());
    let mut batches = loader.iter();
    let (whole, broken): (Vec<_>, Vec<_>) = batches.by_ref().partition(Result::is_ok);
    assert_eq!((whole.len(), broken.len()), (6, usize::from(NEXT)));
    let progress = batches.progress();
    assert_eq!((progress.items_processed, total(&progress)), (48, Some(64)));
    // The worker may take a while to be gone.
    let message = panic_of(|| {
        for _ in 0..10_000 {
            drop(loader.iter());
            thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(message.starts_with("Dataloader worker thread should be alive"), "{message}");
}

/// Hence `average/record.rs` compares dtypes before a record is applied.
#[test]
fn a_record_of_doubles_makes_a_module_of_singles_one_of_doubles() {
    let double = cast(Net::new(0, &device()), DType::F64);
    let loaded = Net::new(1, &device()).try_load_record(double.clone().into_record()).unwrap();
    assert_eq!(loaded.last.bias.as_ref().unwrap().dtype(), DType::F64);
    assert_eq!(flat(&loaded, true), flat(&double, true));
    let message = panic_of(|| answer(&loaded, &device()));
    let reason = if NEXT { "do not have the same dtype" } else { "dtype mismatch" };
    assert!(message.contains(reason), "{message}");
}

/// `Weights` with integers.
#[derive(Module, Debug)]
struct Counts {
    w: Param<Tensor<1, Int>>,
}

/// Hence the same.
#[test]
fn a_record_of_integers_panics_in_a_module_of_floats() {
    let counts = Tensor::from_data([1, 2], &device());
    let counts = Counts { w: Param::initialized(ParamId::new(), counts) };
    let bytes = counts.into_record().into_bytes().unwrap();
    let weights = Weights::new(&[0.5, 0.25], DType::F32, &device());
    let record = ModuleRecord::from_bytes(bytes).unwrap();
    let message = panic_of(|| weights.try_load_record(record).map(|_| ()));
    assert_eq!(message, "Expected float dtype, got I32");
}

/// Hence `train/fit.rs` resumes from a commit, which says how far it came.
#[test]
fn a_resume_without_checkpointers_goes_on_with_untrained_weights() {
    let train = |epochs, resume| {
        let directory = tempfile::tempdir().unwrap();
        let plan = Plan { epochs, resume, ..Plan::new(directory.path()) };
        // `launch` asserts that Burn tells of no error.
        flat(&plan.launch(Net::new(7, &device())).model, true)
    };
    // Epoch 6 of 6 is the first of one; of five epochs, nothing is left to do.
    assert_eq!(train(6, Some(5)), train(1, None));
    assert_eq!(train(5, Some(5)), flat(&Net::new(7, &device()), true));
}

/// Hence `train/strategy.rs` draws the orders of the epochs that are done before it goes on.
#[test]
fn a_resumed_training_shuffles_as_in_its_first_epoch() {
    for seed in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let batcher = Noting::default();
        let order = |epochs| {
            let loader = batcher.loader().shuffle(seed).build(dataset());
            training(directory.path(), loader).num_epochs(epochs).with_default_checkpointers()
        };
        let run = |training: SupervisedTraining<Net>| {
            assert!(training.launch(learner(seed)).error.is_none());
            batcher.take()
        };
        let straight = run(order(3));
        let resumed = run(order(3).checkpoint(2));
        let epochs: Vec<_> = straight.chunks(64).collect();
        assert_eq!(resumed, epochs[0]);
        assert_ne!(resumed, epochs[2]);
    }
}

//! A plain Burn model, without any average, in a run that commits, fails or is killed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use burn::{
    lr_scheduler::constant::ConstantLr,
    module::Module,
    nn::{LinearConfig, LinearLayout},
    tensor::Bytes,
    train::{InferenceStep, MultiDeviceOptim, RegressionOutput, TrainOutput, TrainStep},
};
use burn_ema::{
    AverageConfig, Error, Result, Rule,
    runs::{Commit, CommitConfig, Commits, Fit, Progress, RunModel, fit},
    train::Averaged,
};
use burn_pack::Reader;

use crate::{
    common::{Net, Plan, Points, adam, assert_same, device, flat, randomized},
    examples::{example, succeeds},
};

impl RunModel for Net {}

/// The plan's training of a model, with commits.
fn committing<M>(plan: &Plan, model: M, lr: f64, commits: CommitConfig) -> Result<Fit<M>>
where
    M: RunModel + TrainStep<Input = Points> + InferenceStep<Input = Points>,
{
    fit(plan.training(), model, adam(), ConstantLr::new(lr)).with_commits(commits.with_keep_last(9))
}

fn newest(run: &Path) -> Option<Commit> {
    Commits::of(run).newest().unwrap().commit
}

/// The tensors and numbers of a file of a commit, by path in the place of ids, which are drawn.
fn entries(commit: &Commit, file: &str) -> BTreeMap<String, (String, Bytes)> {
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(commit.read(file).unwrap())).unwrap();
    let paths = reader.metadata().clone();
    let named = |name: &str| {
        let (id, rest) = name.split_once('.').unwrap_or((name, ""));
        paths.get(id).map_or(name.to_owned(), |path| format!("{path}: {rest}"))
    };
    let numbers = reader.scalars().iter();
    let numbers: Vec<_> =
        numbers.map(|(name, number)| (named(name), format!("{number:?}"))).collect();
    let numbers = numbers.into_iter();
    let tensors = reader.into_tensors().unwrap().into_iter().map(|tensor| {
        let what = format!("{} {:?}", tensor.dtype.name(), tensor.shape);
        (named(&tensor.name), (what, tensor.to_bytes().unwrap()))
    });
    let none = || Bytes::from_bytes_vec(Vec::new());
    tensors.chain(numbers.map(|(name, number)| (name, (number, none())))).collect()
}

#[test]
fn killed_again_and_again_it_ends_bit_for_bit_as_undisturbed() {
    let directory = tempfile::tempdir().unwrap();
    let [whole, run] = ["whole", "killed"].map(|name| directory.path().join(name));
    succeeds(example("plain_run").arg(&whole));

    for kills in 0..10 {
        let steps = || newest(&run).map_or(0, |commit| commit.manifest().steps);
        let before = steps();
        let mut command = example("plain_run");
        command.arg(&run).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        while steps() < before + 30 {
            assert!(child.try_wait().unwrap().is_none(), "it ended at step {}", steps());
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(3 * kills));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "it ended at step {}", steps());
    }
    let (_, lines) = succeeds(example("plain_run").arg(&run));
    assert!(lines.contains("epoch 8/8"), "{lines}");

    let [whole_end, end] = [&whole, &run].map(|run| newest(run).unwrap());
    assert_eq!(end.manifest().steps, 8 * 111);
    assert_eq!(end.progress(), whole_end.progress());
    for file in ["model.bpk", "optimizer.bpk", "scheduler.bpk"] {
        assert_eq!(entries(&end, file), entries(&whole_end, file), "{file}");
    }
    let [whole, run] =
        [&whole, &run].map(|run| fs::read_to_string(run.join("metrics.csv")).unwrap());
    assert_eq!(run, whole);
}

#[test]
fn a_weight_that_burn_cannot_load_is_committed_within_an_averaged_alone() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan::new(&directory.path().join("a"));
    let net = |seed| {
        let columns = LinearConfig::new(2, 16).with_layout(LinearLayout::Col).init(&device());
        randomized(Net { first: columns, ..Net::new(seed, &device()) }, seed)
    };
    let commits = |plan: &Plan| CommitConfig::new(&plan.directory);
    let refused = committing(&plan, net(1), 0.02, commits(&plan)).map(drop).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "first.weight: expected to be saved as [2, 16], its shape in memory, found [16, 2]: Burn \
         loads no parameter that it saves in another shape, such as the weight of a Linear in the \
         column layout"
    );

    let launch = |plan: Plan, seed| {
        let model = Averaged::new(net(seed), [AverageConfig::new(Rule::ema(0.9))]).unwrap();
        let fit = committing(&plan, model, 0.02, commits(&plan)).unwrap();
        fit.resume().unwrap().launch().unwrap().model
    };
    launch(Plan { epochs: 1, ..plan.clone() }, 1);
    let resumed = launch(Plan { epochs: 3, ..plan.clone() }, 2);
    let whole = Plan { epochs: 3, directory: directory.path().join("b"), ..plan };
    let whole = launch(whole, 1);
    assert_same(&flat(resumed.live(), true), &flat(whole.live(), true));
}

/// The network, which keeps an error of its own from a step on, and stops nothing.
#[derive(Module, Debug)]
struct Complaining {
    net: Net,
    #[module(skip)]
    counts: Arc<Passes>,
    /// The steps without an error.
    #[module(skip)]
    quiet: u64,
}

/// The forward passes of a model.
#[derive(Debug, Default)]
struct Passes {
    training: AtomicU64,
    validation: AtomicU64,
}

impl TrainStep for Complaining {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        self.counts.training.fetch_add(1, Ordering::Relaxed);
        TrainStep::step(&self.net, points)
    }
}

impl InferenceStep for Complaining {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> RegressionOutput {
        self.counts.validation.fetch_add(1, Ordering::Relaxed);
        InferenceStep::step(&self.net, points)
    }
}

impl RunModel for Complaining {
    fn error(&self) -> Option<Error> {
        let steps = self.counts.training.load(Ordering::Relaxed);
        (steps > self.quiet).then(|| Error::other("it complains"))
    }
}

/// Eight steps and three batches of validation are an epoch.
#[test]
fn a_model_that_keeps_an_error_is_neither_validated_nor_committed() {
    let (nan, epoch) = (f64::NAN, Progress::after(1));
    let within = |batches| Progress { epochs: 0, batches };
    for (quiet, every, lr, places, validated) in [
        (0, Some(1), nan, vec![], 0),
        (0, None, nan, vec![], 0),
        (5, Some(2), 0.02, vec![within(2), within(4)], 0),
        (7, None, 0.02, vec![], 0),
        (8, None, 0.02, vec![epoch], 3),
    ] {
        for allow in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let plan = Plan::new(directory.path());
            let counts = Arc::new(Passes::default());
            let model =
                Complaining { net: Net::new(1, &device()), counts: Arc::clone(&counts), quiet };
            let commits = CommitConfig::new(directory.path()).with_every_steps(every);
            let fit = committing(&plan, model, lr, commits.allow_non_finite(allow)).unwrap();
            let error = fit.launch().map(drop).unwrap_err();
            assert_eq!(error.to_string(), "it complains", "after {quiet} steps");
            assert_eq!(Commits::of(directory.path()).list().unwrap(), places);
            assert_eq!(counts.validation.load(Ordering::Relaxed), validated);
        }
    }
}

/// Burn's loops validate before they save, which brings the statistics of batch norms up to date.
#[test]
fn a_kept_strategy_of_burns_commits_statistics_of_the_last_forward_pass() {
    let single = (vec![device()], MultiDeviceOptim::OptimMainDevice);
    let main = (vec![device(); 2], MultiDeviceOptim::OptimMainDevice);
    let sharded = (vec![device(); 2], MultiDeviceOptim::OptimSharded);
    for (devices, optim) in [single, main, sharded] {
        let directory = tempfile::tempdir().unwrap();
        let plan = Plan { devices, optim, ..Plan::new(directory.path()) };
        let commits = CommitConfig::new(directory.path());
        let fit = committing(&plan, Net::new(1, &device()), 0.02, commits).unwrap();
        let trained = fit.keep_strategy().launch().unwrap().model;
        let committed = newest(directory.path()).unwrap().model(Net::new(2, &device())).unwrap();
        assert_same(&flat(&committed, true), &flat(&trained, true));
    }
}

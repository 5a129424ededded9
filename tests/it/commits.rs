//! Commits of a training in this process: the loop against Burn's, what is kept, who may write.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use burn::{
    data::dataset::DatasetError,
    lr_scheduler::constant::ConstantLr,
    optim::{self as burns, ModuleOptimizer, momentum::MomentumConfig},
    tensor::TensorReadError,
    train::{
        EarlyStoppingStrategy, Interrupter, LearningResult, MultiDeviceOptim,
        logger::{InMemoryMetricLogger, TrainingProgressLogger},
        metric::{
            LossInput, LossMetric, Metric, MetricMetadata, MetricName, Numeric, NumericEntry,
            SerializedEntry,
            store::{Aggregate, Direction, EventStoreClient, Split},
        },
    },
};
use burn_ema::{
    AverageConfig, Error, NonFinite, Rule,
    fast::{AdamConfig, AdamWConfig, SgdConfig},
    runs::{CommitConfig, Commits, Fit, Progress, fit},
    train::Averaged,
};

use crate::{
    common::{Net, Plan, adam, assert_same, device, flat},
    next::{SplitProgress, no_end},
};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Live, its average and its steps are the same, bit for bit.
#[track_caller]
fn assert_same_state(one: &Averaged<Net>, other: &Averaged<Net>, statistics: bool) {
    assert_same(&flat(one.live(), statistics), &flat(other.live(), statistics));
    let averages = [one, other].map(|model| flat(&model.average(0).unwrap(), statistics));
    assert_same(&averages[0], &averages[1]);
    assert_eq!(one.steps(), other.steps());
}

fn averaged(seed: u64) -> Averaged<Net> {
    Averaged::new(Net::new(seed, &device()), [AverageConfig::new(Rule::ema(0.9))]).unwrap()
}

fn committing(plan: &Plan, seed: u64, commits: CommitConfig) -> Fit<Averaged<Net>> {
    let training = plan.training().metrics((LossMetric::new(),));
    fit(training, averaged(seed), adam(), ConstantLr::new(0.02)).with_commits(commits).unwrap()
}

fn places(plan: &Plan) -> Vec<Progress> {
    Commits::of(&plan.directory).list().unwrap()
}

#[test]
fn the_loop_that_commits_trains_as_burns_does() {
    for (accumulate, seed) in [(1, 1), (3, 2), (4, 3), (8, 4)] {
        let directory = directory();
        let plan = Plan { accumulate, ..Plan::new(&directory.path().join("a")) };
        let burns = plan.launch(averaged(seed)).model;
        let commits = CommitConfig::new(&plan.directory).with_every_steps(Some(1));
        let ours = committing(&plan, seed, commits).launch().unwrap().model;
        assert_same_state(&ours, &burns, true);
    }
}

#[test]
fn each_strategy_of_burns_commits_every_epoch_and_goes_on() {
    let single = (vec![device()], MultiDeviceOptim::OptimMainDevice);
    let main = (vec![device(); 2], MultiDeviceOptim::OptimMainDevice);
    let sharded = (vec![device(); 2], MultiDeviceOptim::OptimSharded);
    for (devices, optim) in [single, main, sharded] {
        let directory = directory();
        let plan = Plan { devices, optim, ..Plan::new(&directory.path().join("a")) };
        let commits = CommitConfig::new(&plan.directory).with_keep_last(9);
        let launch = |plan: &Plan| {
            let fit = committing(plan, 5, commits.clone()).keep_strategy();
            fit.resume().unwrap().launch().unwrap()
        };
        launch(&plan);
        assert_eq!(places(&plan), [1, 2].map(Progress::after));
        let longer = Plan { epochs: 4, ..plan };
        let resumed = launch(&longer);
        assert_eq!(places(&longer), [1, 2, 3, 4].map(Progress::after));
        // Points in a fixed order and no random number: nothing is left that could differ.
        // Workers share the statistics of a batch norm, and which of them comes last is chance.
        let statistics = longer.devices.len() == 1;
        let whole = Plan { directory: directory.path().join("b"), ..longer };
        assert_same_state(&resumed.model, &whole.launch(averaged(5)).model, statistics);
    }
}

/// The optimizer's state is that of live alone, and goes back to it.
#[test]
fn a_module_with_averages_resumes_with_the_state_of_every_optimizer() {
    let momentum = || Some(MomentumConfig::new());
    let optimizers = || {
        [
            ("sgd", SgdConfig::new().init()),
            ("sgd, momentum", SgdConfig::new().with_momentum(momentum()).init()),
            ("adam", AdamConfig::new().init()),
            ("adamw", AdamWConfig::new().init()),
            ("burn's sgd", burns::SgdConfig::new().with_momentum(momentum()).init()),
            ("burn's adam", burns::AdamConfig::new().init()),
            ("burn's adamw", burns::AdamWConfig::new().init()),
        ]
    };
    let launch = |plan: &Plan, optim: ModuleOptimizer| {
        let averages = [Rule::ema(0.9), Rule::Equal].map(AverageConfig::new);
        let model = Averaged::new(Net::new(6, &device()), averages).unwrap();
        let training = plan.training().metrics((LossMetric::new(),));
        let fit = fit(training, model, optim, ConstantLr::new(0.02));
        let fit = fit.with_commits(CommitConfig::new(&plan.directory)).unwrap().resume()?;
        fit.launch().map(|result| result.model)
    };
    for (name, optim) in optimizers() {
        let directory = directory();
        let plan = Plan::new(&directory.path().join("a"));
        launch(&plan, optim.clone()).unwrap();
        let longer = Plan { epochs: 4, ..plan };
        let resumed =
            launch(&longer, optim.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let whole = Plan { directory: directory.path().join("b"), ..longer };
        assert_same_state(&resumed, &launch(&whole, optim).unwrap(), true);
        assert_eq!(resumed.steps(), 32, "{name}");
    }

    // Of another optimizer it is refused.
    let directory = directory();
    let plan = Plan::new(&directory.path().join("a"));
    launch(&plan, AdamConfig::new().init()).unwrap();
    let other = SgdConfig::new().with_momentum(momentum()).init();
    let error = launch(&plan, other).map(|_| ()).unwrap_err();
    let file = plan.directory.join("commits/epoch-0002/optimizer.bpk");
    assert_eq!(error.to_string(), format!("cannot resume from {}", file.display()));
}

#[test]
fn a_kept_strategy_begins_at_an_epoch() {
    let directory = directory();
    let plan = Plan::new(&directory.path().join("a"));
    let every = CommitConfig::new(&plan.directory).with_every(Some(Duration::ZERO));
    let training = committing(&plan, 1, every.clone());
    drop(training.launch().unwrap());
    let newest = Commits::of(&plan.directory).open(Progress::after(2)).unwrap();
    fs::remove_dir_all(newest.path()).unwrap();
    assert_eq!(places(&plan).last(), Some(&Progress { epochs: 1, batches: 7 }));
    let refused = committing(&plan, 1, every.clone()).resume().unwrap().keep_strategy().launch();
    assert_eq!(
        refused.map(|_| ()).unwrap_err().to_string(),
        "the commit is batch 7 of epoch 2, expected the end of an epoch, at which a kept strategy \
         can go on"
    );
    committing(&plan, 1, every).resume().unwrap().launch().unwrap();
    assert_eq!(places(&plan).last(), Some(&Progress::after(2)));
}

#[test]
fn the_best_and_the_newest_are_kept() {
    for (seed, lowest) in [(1, true), (2, true), (3, false), (4, false)] {
        let directory = directory();
        let plan = Plan { epochs: 6, ..Plan::new(&directory.path().join("a")) };
        let direction = if lowest { Direction::Lowest } else { Direction::Highest };
        let commits = CommitConfig::new(&plan.directory)
            .with_keep_last(1)
            .with_keep_best(&LossMetric::new(), direction);
        committing(&plan, seed, commits).launch().unwrap();
        let metrics = fs::read_to_string(plan.directory.join("metrics.csv")).unwrap();
        let of_epoch = metrics.lines().filter_map(|line| {
            let rest = line.strip_prefix("valid,")?.strip_suffix(",epoch")?;
            let (epoch, value) = rest.split_once(",Loss,")?;
            let value: f64 = value.parse().unwrap();
            Some((epoch.parse::<usize>().unwrap(), if lowest { value } else { -value }))
        });
        let best = of_epoch.min_by(|(_, one), (_, other)| one.total_cmp(other)).unwrap().0;
        let mut expected = vec![Progress::after(best), Progress::after(6)];
        expected.dedup();
        assert_eq!(places(&plan), expected, "seed {seed}");
    }
}

/// What keeps a commit from being written keeps the older ones, of which two are to stay.
#[test]
#[cfg(target_os = "linux")]
fn older_commits_stay_until_a_newer_one_is_there() {
    let directory = directory();
    let plan = Plan { epochs: 2, ..Plan::new(&directory.path().join("a")) };
    let commits = CommitConfig::new(&plan.directory);
    committing(&plan, 1, commits.clone()).launch().unwrap();
    let both = [1, 2].map(Progress::after);
    assert_eq!(places(&plan), both);
    // No directory can be made there, nor is it one that can be removed.
    let unfinished = plan.directory.join("commits/.unfinished-epoch-0003");
    fs::write(&unfinished, "in the way").unwrap();
    let plan = Plan { epochs: 3, ..plan };
    let error = committing(&plan, 1, commits.clone()).resume().unwrap().launch().map(drop);
    let error = error.unwrap_err();
    assert!(error.to_string().contains(".unfinished-epoch-0003"), "{error}");
    assert_eq!(places(&plan), both);
    fs::remove_file(unfinished).unwrap();
    committing(&plan, 1, commits).resume().unwrap().launch().unwrap();
    assert_eq!(places(&plan), [2, 3].map(Progress::after));
}

/// What a training lets through, its commits do not, unless they are allowed to.
#[test]
fn numbers_that_are_not_finite_are_not_committed() {
    for (allow, expected) in [(false, &[][..]), (true, &[1, 2])] {
        let directory = directory();
        let plan = Plan { epochs: 2, ..Plan::new(&directory.path().join("a")) };
        let average = AverageConfig::new(Rule::ema(0.9)).with_non_finite(NonFinite::Take);
        let model = Averaged::new(Net::new(1, &device()), [average]).unwrap();
        let model = model.with_non_finite(NonFinite::Take).unwrap();
        let commits = CommitConfig::new(&plan.directory).allow_non_finite(allow);
        let fit = fit(plan.training(), model, adam(), ConstantLr::new(f64::NAN));
        let launched = fit.with_commits(commits).unwrap().launch();
        assert_eq!(launched.is_ok(), allow);
        if let Err(error) = launched {
            let start = "cannot commit ";
            let error = error.to_string();
            assert!(error.starts_with(start) && error.contains("epoch-0001/model.bpk"), "{error}");
        }
        let expected: Vec<_> = expected.iter().copied().map(Progress::after).collect();
        assert_eq!(places(&plan), expected);
    }
}

#[test]
fn a_configuration_has_at_most_one_mebibyte() {
    let config = |bytes: usize| CommitConfig::new("run").with_config(&"a".repeat(bytes - 2));
    config(1 << 20).unwrap();
    let expected = "the configuration is 1048577 bytes, expected at most 1048576 bytes of JSON";
    assert_eq!(config((1 << 20) + 1).unwrap_err().to_string(), expected);
}

#[test]
fn one_directory_has_one_writer() {
    let directory = directory();
    let plan = Plan::new(&directory.path().join("a"));
    let commits = CommitConfig::new(&plan.directory);
    let first = committing(&plan, 1, commits.clone());
    let training = plan.training();
    let second = fit(training, averaged(1), adam(), ConstantLr::new(0.02));
    let error = second.with_commits(commits.clone()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
    let LearningResult { error, .. } = first.launch().unwrap();
    assert!(error.is_none());
    // It is free again, and holds a run.
    let error = committing(&plan, 1, commits.clone()).launch().map(|_| ()).unwrap_err();
    let error = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(error, "the run is one with commits, expected a new one, or one to resume");
    let resumed = committing(&plan, 1, commits).resume().unwrap();
    assert_eq!(resumed.resumed().unwrap().to_string(), "resuming after epoch 2, step 16");
}

#[test]
fn weights_of_another_average_are_refused_by_name() {
    let directory = directory();
    let plan = Plan::new(&directory.path().join("a"));
    let commits = CommitConfig::new(&plan.directory);
    committing(&plan, 1, commits.clone()).launch().unwrap();
    let other = [AverageConfig::new(Rule::ema(0.5))];
    let other = Averaged::new(Net::new(1, &device()), other).unwrap();
    let fit = fit(plan.training(), other, adam(), ConstantLr::new(0.02));
    let error = fit.with_commits(commits).unwrap().resume().map(|_| ()).unwrap_err();
    assert!(error.to_string().ends_with("epoch-0002/model.bpk"), "{error}");
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("averages.ema(0.9): expected no average of this name"), "{why}");
}

#[test]
fn the_average_of_a_commit_is_a_plain_module() {
    let directory = directory();
    let plan = Plan::new(&directory.path().join("a"));
    let result = committing(&plan, 7, CommitConfig::new(&plan.directory)).launch().unwrap();
    let path = directory.path().join("average.bpk");
    result.model.averages()[0].save_file(&path, "a test").unwrap();
    let loaded = burn_ema::average::load_file(Net::new(0, &device()), &path).unwrap();
    assert_eq!(flat(&loaded, true), flat(&result.model.average(0).unwrap(), true));
}

/// A batch norm takes the statistics of a forward pass over at the next one, and an average that is
/// due at every third step alone asks for them no sooner.
#[test]
fn statistics_of_batch_norms_are_those_of_the_last_step() {
    let directory = directory();
    let plan = Plan::new(&directory.path().join("a"));
    let averages = || [AverageConfig::new(Rule::ema(0.9)).with_every(3).with_start(5)];
    let model = || Averaged::new(Net::new(3, &device()), averages()).unwrap();
    let launch = |plan: &Plan, from: Option<Progress>| {
        let commits =
            CommitConfig::new(&plan.directory).with_every_steps(Some(1)).with_keep_last(99);
        let training = plan.training().metrics((LossMetric::new(),));
        let fit = fit(training, model(), adam(), ConstantLr::new(0.02));
        let fit = fit.with_commits(commits).unwrap();
        let fit = match from {
            Some(place) => fit.resume_from(place).unwrap(),
            None => fit,
        };
        fit.launch().unwrap().model
    };
    let whole = launch(&plan, None);
    let metrics = fs::read(plan.directory.join("metrics.csv")).unwrap();
    // From the last place to the first, so that those before are still there.
    for place in places(&plan).into_iter().rev().take(12) {
        let resumed = launch(&plan, Some(place));
        assert_same_state(&resumed, &whole, true);
        assert_eq!(fs::read(plan.directory.join("metrics.csv")).unwrap(), metrics, "{place}");
    }
}

/// Asks for the best epoch so far, and keeps the answer.
#[derive(Clone, Default)]
struct Asking(Arc<Mutex<Vec<Told>>>);

/// An epoch, and the best one when it ended.
type Told = (usize, Option<usize>);

impl EarlyStoppingStrategy for Asking {
    fn should_stop(&mut self, epoch: usize, store: &EventStoreClient) -> bool {
        let best = store.find_epoch("Loss", Aggregate::Mean, Direction::Lowest, &Split::Valid);
        self.0.lock().unwrap().push((epoch, best));
        false
    }
}

/// What is decided again of earlier epochs does not see the later ones.
#[test]
fn decisions_are_made_again_as_they_were_made() {
    let directory = directory();
    for seed in 1..4 {
        let run = |name: String, lengths: &[usize]| {
            let plan = Plan::new(&directory.path().join(name));
            let mut answer = Vec::new();
            for &epochs in lengths {
                let plan = Plan { epochs, ..plan.clone() };
                let asking = Asking::default();
                let training = plan.training().metrics((LossMetric::new(),));
                let training = training.early_stopping(asking.clone());
                let fit = fit(training, averaged(seed), adam(), ConstantLr::new(0.3));
                let commits = CommitConfig::new(&plan.directory);
                let fit = fit.with_commits(commits).unwrap().resume().unwrap();
                fit.launch().unwrap();
                answer = asking.0.lock().unwrap().clone();
            }
            answer
        };
        let whole = run(format!("{seed}-whole"), &[6]);
        assert_eq!(whole.len(), 6);
        assert_eq!(run(format!("{seed}-parts"), &[2, 5, 6]), whole);
    }
}

/// Lines of a course that is given up are aside before the first step of the new one, as its commits
/// are; those of steps after the last commit are done again, and no one misses them.
#[test]
fn metrics_after_the_commit_are_cut_off() {
    let directory = directory();
    let plan = Plan::new(&directory.path().join("a"));
    let commits = CommitConfig::new(&plan.directory);
    committing(&plan, 1, commits.clone()).launch().unwrap();
    let metrics = || fs::read_to_string(plan.directory.join("metrics.csv")).unwrap();
    let epochs = |text: &str| {
        let epochs = text.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().to_owned());
        epochs.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(epochs(&metrics()), ["1", "2"].map(str::to_owned).into());
    let training = plan.training().metrics((LossMetric::new(),));
    training.interrupter().stop(Some("before it began"));
    let fit = fit(training, averaged(1), adam(), ConstantLr::new(0.02));
    let fit = fit.with_commits(commits.clone()).unwrap();
    let fit = fit.resume_from(Progress::after(1)).unwrap();
    assert_eq!(epochs(&metrics()), ["1", "2"].map(str::to_owned).into(), "not before the launch");
    let whole = metrics();
    let aside = |count| plan.directory.join(format!("metrics.csv.aside-{count}"));
    assert!(!aside(1).exists());
    let interrupted = fit.launch().unwrap().interrupted;
    assert_eq!(interrupted.unwrap().reason.as_deref(), Some("before it began"));
    assert_eq!(epochs(&metrics()), ["1"].map(str::to_owned).into());
    assert_eq!(places(&plan), [Progress::after(1)], "the later one is aside");
    assert_eq!(fs::read_to_string(aside(1)).unwrap(), whole);
    // A killed process leaves lines after its last commit.
    fs::write(plan.directory.join("metrics.csv"), metrics() + "train,2,Loss,0.5,8\n").unwrap();
    committing(&plan, 1, commits).resume().unwrap().launch().unwrap();
    assert_eq!(places(&plan), [1, 2].map(Progress::after));
    assert!(!metrics().contains("train,2,Loss,0.5,8") && !aside(2).exists());
}

/// Forgets at the end what ended the training, as Burn's dashboard does.
struct Forgetful(Interrupter);

impl TrainingProgressLogger for Forgetful {
    fn start(&mut self, _: usize, _: usize, _: Option<usize>, _: Option<&str>) {}
    fn update_epoch(&mut self, _epoch: usize) {}
    fn start_split(&mut self, _split: &str, _: SplitProgress) {}
    fn update_split(&mut self, _: SplitProgress) {}
    no_end!(end_split);
    fn log_event_training(&mut self, _event: String) {}

    fn end(&mut self) {
        self.0.reset();
    }
}

#[test]
fn what_ended_a_training_is_known_when_burn_has_forgotten_it() {
    let directory = directory();
    let plan = Plan::new(&directory.path().join("a"));
    let launch = |end: fn(&Interrupter)| {
        let training = plan.training().metrics((LossMetric::new(),));
        let interrupter = training.interrupter();
        end(&interrupter);
        let training = training.with_progress_logger(Forgetful(interrupter));
        let fit = fit(training, averaged(1), adam(), ConstantLr::new(0.02));
        let fit = fit.with_commits(CommitConfig::new(&plan.directory)).unwrap();
        fit.launch().map(|result| result.interrupted.and_then(|stop| stop.reason))
    };
    let stopped = launch(|interrupter| interrupter.stop(Some("by hand")));
    assert_eq!(stopped.unwrap().as_deref(), Some("by hand"));
    let failed = launch(|interrupter| interrupter.fail(DatasetError::new(std::fmt::Error)));
    assert!(matches!(failed, Err(Error::Training(_))), "{failed:?}");
    assert_eq!(launch(|_| {}).unwrap(), None);
}

/// A metric that ends an epoch with a value as any other, as Burn's AUROC and CPU use do.
#[derive(Clone, Default)]
struct Endless(f64);

impl Metric for Endless {
    type Input = LossInput;

    fn name(&self) -> MetricName {
        MetricName::new("Endless".to_owned())
    }

    fn update(
        &mut self,
        _: &LossInput,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.0 += 1.0;
        Ok(SerializedEntry::new(String::new(), NumericEntry::Value(self.0).serialize()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(SerializedEntry::new(String::new(), NumericEntry::Value(self.0).serialize()))
    }

    fn clear(&mut self) {}
}

impl Numeric for Endless {
    fn value(&self) -> Option<NumericEntry> {
        Some(NumericEntry::Value(self.0))
    }

    fn running_value(&self) -> Option<NumericEntry> {
        None
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Value(self.0)
    }
}

#[test]
fn a_metric_without_an_end_ends_with_its_epoch() {
    let directory = directory();
    let plan = Plan { epochs: 4, ..Plan::new(&directory.path().join("a")) };
    let commits = CommitConfig::new(&plan.directory)
        .with_keep_last(1)
        .with_keep_best(&Endless::default(), Direction::Lowest);
    let training = plan.training().metric_valid_numeric(Endless::default());
    let fit = fit(training, averaged(1), adam(), ConstantLr::new(0.02));
    fit.with_commits(commits).unwrap().launch().unwrap();
    let metrics = fs::read_to_string(plan.directory.join("metrics.csv")).unwrap();
    let ends: Vec<_> = metrics.lines().filter(|line| line.ends_with(",epoch")).collect();
    // Three batches and the end of the third: (1 + 2 + 3 + 3) / 4, then (4 + 5 + 6 + 6) / 4, ...
    let expected = [2.25, 5.25, 8.25, 11.25].into_iter().enumerate();
    let expected =
        expected.map(|(index, mean)| format!("valid,{},Endless,{mean},epoch", index + 1));
    assert_eq!(ends, expected.collect::<Vec<_>>());
    assert_eq!(places(&plan), [1, 4].map(Progress::after), "it rises: the first is the lowest");
}

/// A metric that fails at its third batch, so late that the training is further by then.
#[derive(Clone, Default)]
struct Failing(usize);

impl Metric for Failing {
    type Input = LossInput;

    fn name(&self) -> MetricName {
        MetricName::new("Failing".to_owned())
    }

    fn update(
        &mut self,
        _: &LossInput,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.0 += 1;
        if self.0 == 3 {
            std::thread::sleep(std::time::Duration::from_millis(200));
            return Err(TensorReadError::InvalidShape { expected: 1, actual: 2 });
        }
        Ok(SerializedEntry::new("fine".to_owned(), "fine".to_owned()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(SerializedEntry::new("fine".to_owned(), "fine".to_owned()))
    }

    fn clear(&mut self) {}
}

/// Its metrics would lack what came with the error.
#[test]
fn nothing_is_committed_after_an_error() {
    let directory = directory();
    for (case, (trains, keeps)) in [(true, false), (false, false), (false, true)].iter().enumerate()
    {
        let plan = Plan::new(&directory.path().join(case.to_string()));
        let training = match trains {
            true => plan.training().metric_train(Failing::default()),
            false => plan.training().metric_valid(Failing::default()),
        };
        let commits = CommitConfig::new(&plan.directory).with_every_steps(trains.then_some(3));
        let fit = fit(training, averaged(1), adam(), ConstantLr::new(0.02));
        let fit = fit.with_commits(commits).unwrap();
        let fit = if *keeps { fit.keep_strategy() } else { fit };
        let error = fit.launch().map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Training(_)), "{error:?}");
        assert_eq!(places(&plan), [], "case {case}");
    }
}

#[test]
fn a_logger_beside_ours_is_an_error() {
    let directory = directory();
    for keeps in [false, true] {
        let plan = Plan::new(&directory.path().join(keeps.to_string()));
        let training = plan.training().with_metric_logger(InMemoryMetricLogger::new());
        let fit = fit(training, averaged(1), adam(), ConstantLr::new(0.02));
        let fit = fit.with_commits(CommitConfig::new(&plan.directory)).unwrap();
        let fit = if keeps { fit.keep_strategy() } else { fit };
        assert_eq!(
            fit.launch().map(|_| ()).unwrap_err().to_string(),
            "the metric logger of the training is another one, expected none: with commits, the \
             metrics are kept in metrics.csv"
        );
        assert_eq!(places(&plan), []);
    }
}

#[test]
fn metrics_are_not_written_over_another_file() {
    let directory = directory();
    let plan = Plan::new(directory.path());
    fs::write(directory.path().join("metrics.csv"), "mine,too\n1,2\n").unwrap();
    let fit = committing(&plan, 1, CommitConfig::new(directory.path()));
    let error = fit.launch().map(|_| ()).unwrap_err();
    assert!(error.to_string().starts_with("cannot write the metrics to "), "{error}");
    let kept = fs::read_to_string(directory.path().join("metrics.csv")).unwrap();
    assert_eq!(kept, "mine,too\n1,2\n");
}

/// `device.seed` decides dropout, as without commits; the seed is drawn when the run begins.
#[test]
fn a_seed_that_is_not_given_is_drawn_once() {
    let directory = directory();
    let plan = Plan::new(&directory.path().join("a"));
    let commits = CommitConfig::new(&plan.directory);
    let seed = |plan: &Plan| {
        let newest = Commits::of(&plan.directory).newest().unwrap();
        newest.commit.unwrap().manifest().seed
    };
    committing(&plan, 1, commits.clone()).launch().unwrap();
    let drawn = seed(&plan);
    let longer = Plan { epochs: 3, ..plan.clone() };
    committing(&longer, 1, commits.clone()).resume().unwrap().launch().unwrap();
    assert_eq!(seed(&longer), drawn);
    let other = committing(&longer, 1, commits.with_seed(drawn ^ 1)).resume();
    let error = std::error::Error::source(&other.map(|_| ()).unwrap_err()).unwrap().to_string();
    assert!(error.starts_with(&format!("the seed: expected {drawn}, as in the run")), "{error}");
    let second = Plan { directory: directory.path().join("b"), ..plan };
    committing(&second, 1, CommitConfig::new(&second.directory)).launch().unwrap();
    assert_ne!(seed(&second), drawn);
}

/// A pipe never ends, and a device gives bytes without end.
#[test]
#[cfg(unix)]
fn what_is_no_file_is_not_read() {
    let directory = directory();
    let plan = Plan::new(&directory.path().join("a"));
    committing(&plan, 1, CommitConfig::new(&plan.directory)).launch().unwrap();
    let commits = Commits::of(&plan.directory);
    let path = commits.open(Progress::after(2)).unwrap().path().to_owned();
    for name in ["MANIFEST.json", "model.bpk"] {
        let whole = fs::read(path.join(name)).unwrap();
        for target in ["/dev/zero", "/dev/null"] {
            fs::remove_file(path.join(name)).unwrap();
            std::os::unix::fs::symlink(target, path.join(name)).unwrap();
            let error = commits.open(Progress::after(2)).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot read {}", path.join(name).display()));
        }
        fs::remove_file(path.join(name)).unwrap();
        fs::write(path.join(name), whole).unwrap();
    }
    commits.open(Progress::after(2)).unwrap();
}

//! The best commit and early stopping by metrics that are there, and by those that are not.

use std::path::Path;

use burn::{
    lr_scheduler::constant::ConstantLr,
    tensor::TensorReadError,
    train::{
        MetricEarlyStoppingStrategy, StoppingCondition, SupervisedTraining,
        metric::{
            LossInput, LossMetric, Metric, MetricMetadata, MetricName, Numeric, NumericEntry,
            SerializedEntry,
            store::{Aggregate, Direction, Split},
        },
    },
};
use burn_ema::{
    AverageConfig, Rule,
    runs::{CommitConfig, Commits, Fit, Progress, fit},
    train::Averaged,
};

use crate::common::{Net, Plan, adam, device};

type Training = SupervisedTraining<Averaged<Net>>;

fn prepared(training: Training, commits: CommitConfig) -> Fit<Averaged<Net>> {
    let average = AverageConfig::new(Rule::ema(0.9));
    let model = Averaged::new(Net::new(1, &device()), [average]).unwrap();
    fit(training, model, adam(), ConstantLr::new(0.02)).with_commits(commits).unwrap()
}

fn places(run: &Path) -> Vec<Progress> {
    Commits::of(run).list().unwrap()
}

/// The training with each kind of loop, which ends after its first epoch with this error.
#[track_caller]
fn ends_after_an_epoch(
    training: impl Fn(Training) -> Training,
    commits: impl Fn(CommitConfig) -> CommitConfig,
    expected: &[&str],
) {
    for keeps in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        let plan = Plan { epochs: 5, ..Plan::new(run) };
        let fit = prepared(training(plan.training()), commits(CommitConfig::new(run)));
        let fit = if keeps { fit.keep_strategy() } else { fit };
        let error = fit.launch().map(drop).unwrap_err().to_string();
        for expected in expected {
            assert!(error.contains(expected), "{expected:?} in {error:?}");
        }
        // The epoch is not lost, and the run goes on with another setting.
        assert_eq!(places(run), [Progress::after(1)], "kept: {keeps}");
        let plan = Plan { epochs: 2, ..plan };
        let training = plan.training().metrics((LossMetric::new(),));
        let fit = prepared(training, CommitConfig::new(run)).resume().unwrap();
        fit.launch().unwrap();
        assert_eq!(places(run), [1, 2].map(Progress::after));
    }
}

/// The loss under another name, with other numbers.
#[derive(Clone)]
struct Named(&'static str, LossMetric, fn(NumericEntry) -> NumericEntry);

/// A metric that no training has, unless it is registered here.
fn absent() -> Named {
    Named("Accuracy", LossMetric::new(), |entry| entry)
}

/// A metric that gives NaN.
fn nan(name: &'static str) -> Named {
    Named(name, LossMetric::new(), |entry| match entry {
        NumericEntry::Final(_) => NumericEntry::Final(f64::NAN),
        _ => NumericEntry::Value(f64::NAN),
    })
}

/// A metric of an epoch that is no mean over its batches.
fn no_mean() -> Named {
    Named("Accuracy", LossMetric::new(), |entry| match entry {
        NumericEntry::Final(value) => NumericEntry::Final(value * 3.0),
        entry => entry,
    })
}

impl Named {
    fn of(&self, entry: SerializedEntry) -> SerializedEntry {
        match NumericEntry::deserialize(&entry.serialized) {
            Ok(number) => SerializedEntry::new(entry.formatted, self.2(number).serialize()),
            Err(_) => entry,
        }
    }
}

impl Metric for Named {
    type Input = LossInput;

    fn name(&self) -> MetricName {
        MetricName::new(self.0.to_owned())
    }

    fn update(
        &mut self,
        item: &LossInput,
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.1.update(item, metadata).map(|entry| self.of(entry))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        self.1.compute().map(|entry| self.of(entry))
    }

    fn clear(&mut self) {
        self.1.clear();
    }
}

impl Numeric for Named {
    fn value(&self) -> Option<NumericEntry> {
        self.1.value().map(self.2)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.1.running_value().map(self.2)
    }

    fn final_value(&self) -> NumericEntry {
        self.2(self.1.final_value())
    }
}

#[test]
fn the_best_by_a_metric_that_gives_no_number_is_an_error() {
    let highest = |commits: CommitConfig| commits.with_keep_best(&absent(), Direction::Highest);
    let lowest =
        |commits: CommitConfig| commits.with_keep_best(&LossMetric::new(), Direction::Lowest);
    let start = "valid/Accuracy: expected a metric that gives numbers, by which the best commit";
    ends_after_an_epoch(
        |training| training.metrics((LossMetric::new(),)),
        highest,
        &[start, "found none of this name; those that give numbers: train/Loss, valid/Loss"],
    );
    ends_after_an_epoch(|training| training, highest, &[start, "those that give numbers: none"]);
    // Registered for training alone, and as text.
    ends_after_an_epoch(
        |training| training.metric_train_numeric(LossMetric::new()),
        lowest,
        &["valid/Loss: expected", "found none of this name", "numbers: train/Loss"],
    );
    ends_after_an_epoch(
        |training| training.metric_valid(LossMetric::new()),
        lowest,
        &["valid/Loss: expected", "found one that gives text"],
    );
    ends_after_an_epoch(
        |training| training.metrics((LossMetric::new(),)).metric_valid(absent()),
        highest,
        &[start, "found one that gives text; those that give numbers: train/Loss, valid/Loss"],
    );
}

#[test]
fn the_best_by_default_is_a_warning_where_there_is_no_loss() {
    let launch = |training: Training, commits: CommitConfig, run: &Path| {
        let fit = prepared(training, commits);
        let warnings = fit.warnings();
        fit.launch().unwrap();
        assert_eq!(places(run), [2, 3].map(Progress::after));
        let texts: Vec<_> = warnings.take().iter().map(ToString::to_string).collect();
        assert!(warnings.take().is_empty(), "taken once");
        texts
    };
    let with = |training: fn(Training) -> Training, commits: fn(CommitConfig) -> CommitConfig| {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        let plan = Plan { epochs: 3, ..Plan::new(run) };
        launch(training(plan.training()), commits(CommitConfig::new(run)), run)
    };
    let warned = with(|training| training.metric_valid_numeric(absent()), |commits| commits);
    assert_eq!(warned.len(), 1, "once: {warned:?}");
    assert!(
        warned[0].starts_with("valid/Loss: expected a metric that gives numbers"),
        "{warned:?}"
    );
    assert!(warned[0].ends_with("those that give numbers: valid/Accuracy"), "{warned:?}");
    let silent = with(|training| training, CommitConfig::without_best);
    assert!(silent.is_empty(), "{silent:?}");
}

fn stops_by(metric: &impl Metric, split: Split) -> MetricEarlyStoppingStrategy {
    MetricEarlyStoppingStrategy::new(
        metric,
        Aggregate::Mean,
        Direction::Lowest,
        split,
        StoppingCondition::NoImprovementSince { n_epochs: 3 },
    )
}

#[test]
fn early_stopping_by_a_metric_that_never_comes_is_an_error() {
    let commits = |commits: CommitConfig| commits;
    let loss = |training: Training| training.metrics((LossMetric::new(),));
    for (split, key) in [(Split::Valid, "valid/Accuracy"), (Split::Train, "train/Accuracy")] {
        let start = format!("{key}: expected a metric that gives numbers, by which early stopping");
        ends_after_an_epoch(
            |training| loss(training).early_stopping(stops_by(&absent(), split.clone())),
            commits,
            &[&start, "numbers: train/Loss, valid/Loss"],
        );
    }
    ends_after_an_epoch(
        |training| {
            let training = training.metric_valid_numeric(LossMetric::new());
            training.early_stopping(stops_by(&LossMetric::new(), Split::Train))
        },
        commits,
        &["train/Loss: expected", "those that give numbers: valid/Loss"],
    );
}

/// A metric that a run gets when it goes on has no value in the epochs before.
#[test]
fn early_stopping_by_a_metric_that_comes_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path();
    let plan = Plan::new(run);
    let training = plan.training().metric_train_numeric(LossMetric::new());
    prepared(training, CommitConfig::new(run)).launch().unwrap();
    let plan = Plan { epochs: 5, ..plan };
    let training = plan.training().metrics((LossMetric::new(),));
    let training = training.early_stopping(stops_by(&LossMetric::new(), Split::Valid));
    let fit = prepared(training, CommitConfig::new(run)).resume().unwrap();
    let warnings = fit.warnings();
    fit.launch().unwrap();
    assert!(warnings.take().is_empty());
    assert_eq!(places(run).last(), Some(&Progress::after(5)));
}

#[test]
fn a_metric_that_is_nan_is_an_error() {
    let accuracy = |training: Training| {
        training.metrics((LossMetric::new(),)).metric_valid_numeric(nan("Accuracy"))
    };
    let found = "found a NaN in epoch 1; those that give numbers: train/Loss, valid/Loss";
    ends_after_an_epoch(
        accuracy,
        |commits| commits.with_keep_best(&absent(), Direction::Highest),
        &["valid/Accuracy: expected a metric that gives numbers, by which the best", found],
    );
    ends_after_an_epoch(
        |training| accuracy(training).early_stopping(stops_by(&absent(), Split::Valid)),
        |commits| commits,
        &["valid/Accuracy: expected a metric that gives numbers, by which early stopping", found],
    );
    // Where the best is kept by default, it is a warning.
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan::new(directory.path());
    let training = plan.training().metric_valid_numeric(nan("Loss"));
    let fit = prepared(training, CommitConfig::new(directory.path()));
    let warnings = fit.warnings();
    fit.launch().unwrap();
    let warned: Vec<_> = warnings.take().iter().map(ToString::to_string).collect();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].ends_with("found a NaN in epoch 1; those that give numbers: none"));
}

/// The training goes on after three epochs with a metric of validation and training, until the
/// fifth.
fn gone_on(
    keeps: bool,
    training: impl Fn(Training) -> Training,
    commits: impl Fn(CommitConfig) -> CommitConfig,
) -> (Result<(), String>, Vec<String>, Vec<Progress>) {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path();
    let plan = Plan { epochs: 3, ..Plan::new(run) };
    let first = plan.training().metrics((LossMetric::new(), absent()));
    let kept = |fit: Fit<_>| if keeps { fit.keep_strategy() } else { fit };
    kept(prepared(first, commits(CommitConfig::new(run)))).launch().unwrap();
    let plan = Plan { epochs: 5, ..plan };
    let fit = kept(prepared(training(plan.training()), commits(CommitConfig::new(run))));
    let fit = fit.resume().unwrap();
    let warnings = fit.warnings();
    let launched = fit.launch().map(drop).map_err(|error| error.to_string());
    let warned = warnings.take().iter().map(ToString::to_string).collect();
    (launched, warned, places(run))
}

#[test]
fn a_metric_that_a_resumed_run_lacks_is_an_error() {
    let found = [
        "found none of this name; those that give numbers: train/Loss, valid/Loss",
        "found one that gives text; those that give numbers: train/Loss, valid/Loss",
        "found a NaN in epoch 4; those that give numbers: train/Loss, valid/Loss",
    ];
    let resumed: [fn(Training) -> Training; 3] = [
        |training| training.metrics((LossMetric::new(),)),
        |training| training.metrics((LossMetric::new(),)).metric_valid(absent()),
        |training| training.metrics((LossMetric::new(),)).metric_valid_numeric(nan("Accuracy")),
    ];
    let best = |commits: CommitConfig| commits.with_keep_best(&absent(), Direction::Highest);
    for keeps in [false, true] {
        for (resumed, found) in resumed.iter().zip(found) {
            let (launched, _, places) = gone_on(keeps, resumed, best);
            let error = launched.unwrap_err();
            let start = "valid/Accuracy: expected a metric that gives numbers, by which the best";
            assert!(error.starts_with(start) && error.ends_with(found), "{error}");
            assert_eq!(places.last(), Some(&Progress::after(4)), "kept: {keeps}");
        }
        for (split, resumed, found) in [
            (Split::Valid, resumed[0], found[0]),
            (Split::Train, resumed[0], found[0]),
            (Split::Valid, resumed[1], found[1]),
        ] {
            let stops = stops_by(&absent(), split.clone());
            let training = |training| resumed(training).early_stopping(stops.clone());
            let (launched, ..) = gone_on(keeps, training, |commits| commits);
            let error = launched.unwrap_err();
            let start = format!("{split}/Accuracy: expected a metric that gives numbers, by which");
            assert!(error.starts_with(&start) && error.ends_with(found), "{error}");
        }
        // For early stopping a NaN after numbers is an epoch without improvement.
        let stops = stops_by(&absent(), Split::Valid);
        let training = |training| resumed[2](training).early_stopping(stops.clone());
        let (launched, ..) = gone_on(keeps, training, |commits| commits);
        assert_eq!(launched, Ok(()));
        // The best by default.
        let training = |training: Training| training.metric_valid_numeric(absent());
        let (launched, warned, places) = gone_on(keeps, training, |commits| commits);
        assert_eq!((launched, places.last()), (Ok(()), Some(&Progress::after(5))));
        let warned: [String; 1] = warned.try_into().unwrap();
        assert!(warned[0].starts_with("valid/Loss: expected a metric"), "{warned:?}");
    }
}

/// What such a metric is of the whole epoch is not known, but it is there.
#[test]
fn early_stopping_by_a_metric_of_a_part_of_an_epoch_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path();
    let plan = Plan::new(run);
    let commits = || CommitConfig::new(run).with_every_steps(Some(3)).with_keep_last(99);
    let training = || {
        let training = plan.training().metrics((LossMetric::new(), no_mean()));
        training.early_stopping(stops_by(&no_mean(), Split::Train))
    };
    prepared(training(), commits()).launch().unwrap();
    let within = Progress { epochs: 0, batches: 3 };
    let fit = prepared(training(), commits()).resume_from(within).unwrap();
    assert_eq!(fit.launch().unwrap().model.steps(), 16);
    let metrics = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let parts = metrics.lines().filter(|line| line.starts_with("train,1,Accuracy"));
    assert_eq!(parts.filter(|line| line.ends_with(",part")).count(), 1, "{metrics}");
}

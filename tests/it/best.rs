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

/// The loss under another name.
#[derive(Clone)]
struct Named(&'static str, LossMetric);

/// A metric that no training has, unless it is registered here.
fn absent() -> Named {
    Named("Accuracy", LossMetric::new())
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
        self.1.update(item, metadata)
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        self.1.compute()
    }

    fn clear(&mut self) {
        self.1.clear();
    }
}

impl Numeric for Named {
    fn value(&self) -> Option<NumericEntry> {
        self.1.value()
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.1.running_value()
    }

    fn final_value(&self) -> NumericEntry {
        self.1.final_value()
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

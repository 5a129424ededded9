//! Live and the averages beside each other in Burn's metrics, logs and decisions.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use burn::{
    lr_scheduler::constant::ConstantLr,
    module::Module,
    tensor::TensorReadError,
    train::{
        InferenceStep, LearnerSummary, MetricEarlyStoppingStrategy, RegressionOutput,
        StoppingCondition, TrainOutput, TrainStep,
        checkpoint::MetricCheckpointingStrategy,
        metric::{
            Adaptor, LossMetric, Metric, MetricMetadata, MetricName, Numeric, NumericEntry,
            SerializedEntry,
            store::{Aggregate, Direction, Split},
        },
    },
};
use burn_ema::{AverageConfig, Rule, runs::fit, train::Averaged};

use crate::common::{Net, Plan, Points, adam, assert_close, device, points};

/// The value of the last epoch, or of a test, that Burn's file logger wrote for a metric.
pub fn logged(directory: &Path, split: &str, name: &str) -> f64 {
    let mut found = Vec::new();
    let mut open = vec![directory.join(split)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_stem().is_some_and(|stem| stem == name) {
                found.push(path);
            }
        }
    }
    found.sort();
    let path = found.last().unwrap_or_else(|| panic!("no log of {name} in {directory:?}"));
    let text = std::fs::read_to_string(path).unwrap();
    let entries: Vec<_> = text.lines().map(|l| NumericEntry::deserialize(l).unwrap()).collect();
    match entries.last().unwrap() {
        NumericEntry::Final(value) => *value,
        // A test has no epoch to conclude: the mean of its batches.
        _ => mean(&entries.iter().map(NumericEntry::current).collect::<Vec<_>>()),
    }
}

/// What was logged for a metric at the end of an epoch.
pub fn logged_at(directory: &Path, split: &str, epoch: usize, name: &str) -> f64 {
    let path = directory.join(format!("{split}/epoch-{epoch}/{name}.log"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let last = NumericEntry::deserialize(text.lines().last().unwrap()).unwrap();
    assert!(matches!(last, NumericEntry::Final(_)), "{last:?}");
    last.current()
}

/// A metric of a user's own: the smallest loss of a batch.
#[derive(Clone, Default)]
struct Smallest {
    least: f64,
}

struct SmallestInput(f64);

impl Adaptor<SmallestInput> for burn::train::RegressionOutput {
    fn adapt(&self) -> SmallestInput {
        SmallestInput(self.loss.clone().into_scalar::<f64>())
    }
}

impl Metric for Smallest {
    type Input = SmallestInput;

    fn name(&self) -> MetricName {
        MetricName::new("Smallest".into())
    }

    fn update(
        &mut self,
        item: &SmallestInput,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.least = self.least.min(item.0);
        self.compute()
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(SerializedEntry::new(self.least.to_string(), self.final_value().serialize()))
    }

    fn clear(&mut self) {
        self.least = f64::MAX;
    }
}

impl Numeric for Smallest {
    fn value(&self) -> Option<NumericEntry> {
        Some(NumericEntry::Value(self.least))
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.least)
    }
}

/// The losses of the three batches of validation.
pub fn losses(net: &Net) -> Vec<f64> {
    let valid = points(24, 2);
    let batches = valid.iter();
    batches.map(|batch| InferenceStep::step(net, batch.unwrap()).loss.into_scalar()).collect()
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn validation_shows_average_live_and_others_with_any_metric() {
    for seed in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let plan = Plan { epochs: 3, ..Plan::new(directory.path()) };
        let configs = [0.9, 0.5].map(|decay| AverageConfig::new(Rule::ema(decay)));
        let model = Averaged::new(Net::new(seed, &device()), configs).unwrap();
        let training = plan
            .training()
            .metrics((LossMetric::new(), Smallest { least: f64::MAX }))
            .metric_valid_numeric(model.live_metric(LossMetric::new()))
            .metric_valid_numeric(model.live_metric(Smallest { least: f64::MAX }))
            .metric_valid_numeric(model.average_metric(1, LossMetric::new()).unwrap());
        let result = fit(training, model, adam(), ConstantLr::new(0.02)).launch().unwrap();
        let model = &result.model;
        let [live, first, second] =
            [model.live().clone(), model.average(0).unwrap(), model.average(1).unwrap()]
                .map(|net| losses(&net));
        let logged = |name: &str| logged(directory.path(), "valid", name);
        let least = |losses: &[f64]| losses.iter().copied().fold(f64::MAX, f64::min);
        for (name, expected) in [
            ("Loss", mean(&first)),
            ("Loss_(live)", mean(&live)),
            ("Loss_(ema(0.5))", mean(&second)),
            ("Smallest", least(&first)),
            ("Smallest_(live)", least(&live)),
        ] {
            assert_close(&[logged(name)], &[expected], 1e-6);
        }
        assert_ne!(mean(&live), mean(&first));
        let summary = LearnerSummary::new(directory.path(), &["Loss", "Loss (live)"]).unwrap();
        for (shown, expected) in summary.metrics.valid.iter().zip([&first, &live]) {
            assert_close(&[shown.entries[2].value], &[mean(expected)], 1e-6);
        }
        assert_eq!(summary.metrics.valid.len(), 2);
        let train = directory.path().join("train/epoch-1");
        assert!(train.join("Loss.log").exists());
        assert!(!train.join("Loss_(live).log").exists(), "validation only");
    }
}

/// A model that counts its answers.
#[derive(Module, Debug)]
pub struct Counted {
    pub net: Net,
    #[module(skip)]
    pub answers: Arc<AtomicUsize>,
}

impl TrainStep for Counted {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        TrainStep::step(&self.net, points)
    }
}

impl InferenceStep for Counted {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> RegressionOutput {
        self.answers.fetch_add(1, Ordering::Relaxed);
        InferenceStep::step(&self.net, points)
    }
}

/// Whatever has no metric costs no forward pass.
#[test]
fn only_what_a_metric_asks_for_answers() {
    let answers = |beside: usize| {
        let directory = tempfile::tempdir().unwrap();
        let counted = Counted { net: Net::new(0, &device()), answers: Arc::default() };
        let answers = counted.answers.clone();
        let model = Averaged::new(counted, [AverageConfig::new(Rule::ema(0.9))]).unwrap();
        drop(model.live_metric(LossMetric::new())); // one that is gone
        let mut training = Plan { epochs: 1, ..Plan::new(directory.path()) }.training();
        for index in 0..beside {
            training = match index {
                0 => training.metric_valid_numeric(model.live_metric(LossMetric::new())),
                _ => training.metric_valid(model.live_metric(Smallest { least: f64::MAX })),
            };
        }
        fit(training, model, adam(), ConstantLr::new(0.02)).launch().unwrap();
        answers.load(Ordering::Relaxed)
    };
    assert_eq!(answers(0), 3, "the average answers three batches");
    assert_eq!(answers(1), 6, "live too");
    assert_eq!(answers(2), 6, "once for all its metrics");

    let model =
        Averaged::new(Net::new(0, &device()), [AverageConfig::new(Rule::ema(0.9))]).unwrap();
    let metric = model.average_metric(1, LossMetric::new()).map(|_| ());
    assert!(metric.unwrap_err().to_string().contains("is 1, expected a number below 1"));
}

/// What was answered before the training, or registered for training too, shifts nothing.
#[test]
fn a_metric_beside_stays_with_its_batch() {
    let directory = tempfile::tempdir().unwrap();
    let configs = [AverageConfig::new(Rule::ema(0.9))];
    let model = Averaged::new(Net::new(0, &device()), configs).unwrap();
    let live = model.live_metric(LossMetric::new());
    let stray = points(8, 9).iter().next().unwrap().unwrap();
    InferenceStep::step(&model.valid(), stray.clone());
    InferenceStep::step(&model, stray);
    let training = Plan::new(directory.path()).training().metrics((live,));
    let result = fit(training, model, adam(), ConstantLr::new(0.02)).launch().unwrap();
    let expected = mean(&losses(result.model.live()));
    assert_close(&[logged(directory.path(), "valid", "Loss_(live)")], &[expected], 1e-6);
    let train = directory.path().join("train/epoch-1/Loss_(live).log");
    assert!(!train.exists(), "it has no value in training");
}

/// The checkpoint that is kept as the best one is the best of the average, not that of live.
#[test]
fn the_best_model_is_that_of_the_average() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan { epochs: 6, checkpoints: true, ..Plan::new(directory.path()) };
    // An average that hardly moves does not follow live, whose loss falls.
    let frozen = AverageConfig::new(Rule::ema(1.0 - 1e-12));
    let model = Averaged::new(Net::new(0, &device()), [frozen]).unwrap();
    let best = MetricCheckpointingStrategy::new(
        &LossMetric::new(),
        Aggregate::Mean,
        Direction::Lowest,
        Split::Valid,
    );
    let live = model.live_metric(LossMetric::new());
    let training = plan
        .training()
        .metrics((LossMetric::new(),))
        .metric_valid_numeric(live)
        .with_checkpointing_strategy(best);
    fit(training, model, adam(), ConstantLr::new(0.02)).launch().unwrap();
    let best = |name: &str| {
        let loss = |epoch: &usize| logged_at(directory.path(), "valid", *epoch, name);
        (1..=6).min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap()
    };
    assert_ne!(best("Loss"), best("Loss_(live)"), "else the test shows nothing");
    let kept = |epoch| directory.path().join(format!("checkpoint/model-{epoch}.bpk")).exists();
    let kept: Vec<_> = (1..=6).filter(|&epoch| kept(epoch)).collect();
    assert_eq!(kept, [best("Loss")]);
}

/// Early stopping goes by "Loss", which is the average's: a live loss that falls does not help.
#[test]
fn early_stopping_follows_the_average() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan { epochs: 10, ..Plan::new(directory.path()) };
    // An average that hardly moves cannot get better by more than rounding.
    let frozen = AverageConfig::new(Rule::ema(1.0 - 1e-12));
    let model = Averaged::new(Net::new(0, &device()), [frozen]).unwrap();
    let early = MetricEarlyStoppingStrategy::new(
        &LossMetric::new(),
        Aggregate::Mean,
        Direction::Lowest,
        Split::Valid,
        StoppingCondition::NoImprovementSince { n_epochs: 2 },
    );
    let live = model.live_metric(LossMetric::new());
    let training = plan
        .training()
        .metrics((LossMetric::new(),))
        .metric_valid_numeric(live)
        .early_stopping(early);
    fit(training, model, adam(), ConstantLr::new(0.02)).launch().unwrap();
    let epochs = std::fs::read_dir(directory.path().join("valid")).unwrap().count();
    assert!(epochs < 10, "{epochs} epochs, although the average did not move");
}

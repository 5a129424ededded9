//! Several averages of one training: their metrics, gaps and distances, and which is best.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use burn::{
    lr_scheduler::constant::ConstantLr,
    module::Module,
    tensor::{DType, Device},
    train::metric::{LossMetric, Metric, MetricAttributes, Numeric},
};
use burn_ema::{
    AverageConfig, Error, NonFinite, Policy, Rule,
    runs::fit,
    train::{Averaged, Ranking},
};

use crate::{
    common::{Net, Plan, Weights, adam, assert_close, device, flat},
    metrics::{Counted, logged_at, losses, mean},
};

fn averaged(seed: u64) -> Averaged<Net> {
    let named = AverageConfig::new(Rule::Equal).with_name(Some("all of them".into()));
    let [fast, slow] = [0.5, 0.9].map(|decay| AverageConfig::new(Rule::ema(decay)));
    Averaged::new(Net::new(seed, &device()), [slow, fast, named]).unwrap()
}

fn loss(net: &Net) -> f64 {
    mean(&losses(net))
}

const FIRST: &str = "Loss_(ema(0.9))";
const SECOND: &str = "Loss_(ema(0.5))";
const THIRD: &str = "Loss_(all_of_them)";
const GAP: &str = "Loss_gap_(live_-_average)";
const DISTANCES: [&str; 2] = ["Distance_(ema(0.9))", "Distance_(all_of_them)"];

#[test]
fn one_epoch_shows_every_average_the_gap_and_the_distances() {
    for seed in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let plan = Plan { epochs: 3, ..Plan::new(directory.path()) };
        let model = averaged(seed);
        let of = |index| model.average_metric(index, LossMetric::new()).unwrap();
        let training = plan
            .training()
            .metrics((LossMetric::new(),))
            .metric_valid_numeric(model.live_metric(LossMetric::new()))
            .metric_valid_numeric(of(0))
            .metric_valid_numeric(of(1))
            .metric_valid_numeric(of(2))
            .metric_valid_numeric(model.gap_metric(LossMetric::new()))
            .metric_valid_numeric(model.distance_metric(0).unwrap())
            .metric_valid_numeric(model.distance_metric(2).unwrap());
        let model = fit(training, model, adam(), ConstantLr::new(0.02)).launch().unwrap().model;
        let logged = |epoch, name| logged_at(directory.path(), "valid", epoch, name);

        let modules = [0, 1, 2].map(|index| loss(&model.average(index).unwrap()));
        for (name, expected) in ["Loss", SECOND, THIRD].into_iter().zip(modules) {
            assert_close(&[logged(3, name)], &[expected], 1e-6);
        }
        let gap = loss(model.live()) - modules[0];
        assert_close(&[logged(3, GAP)], &[gap], 1e-4);
        assert_ne!(gap, 0.0);
        for epoch in 1..=3 {
            // The first average has the plain name too.
            assert_eq!(logged(epoch, FIRST).to_bits(), logged(epoch, "Loss").to_bits());
            let gap = logged(epoch, "Loss_(live)") - logged(epoch, "Loss");
            assert_close(&[logged(epoch, GAP)], &[gap], 1e-12);
        }
        for (name, index) in DISTANCES.into_iter().zip([0, 2]) {
            let distance = model.averages()[index].distance(model.live()).unwrap();
            assert_eq!(logged(3, name), distance.relative);
            assert_ne!(logged(2, name), distance.relative, "measured in each epoch");

            // The distance as one writes it, over the weights without statistics.
            let average = flat(&model.average(index).unwrap(), false);
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let pairs = average.iter().zip(flat(model.live(), false));
            let apart = norm(&pairs.map(|(a, w)| w - a).collect::<Vec<_>>());
            assert_close(&[distance.norm], &[apart], 1e-5);
            assert_close(&[distance.relative], &[apart / norm(&average)], 1e-5);
        }
    }
}

/// Registered for training too, they have no value there: neither before the first validation nor
/// after, when the last one's is still known.
#[test]
fn in_training_gap_and_distance_have_no_value() {
    let directory = tempfile::tempdir().unwrap();
    let model = averaged(0);
    let (gap, distance) = (model.gap_metric(LossMetric::new()), model.distance_metric(0).unwrap());
    let training = Plan { epochs: 3, ..Plan::new(directory.path()) }.training().metrics((
        LossMetric::new(),
        gap,
        distance,
    ));
    let model = fit(training, model, adam(), ConstantLr::new(0.02)).launch().unwrap().model;
    let exists = |split: &str, epoch: usize, name: &str| {
        let path = format!("{split}/epoch-{epoch}/{name}.log");
        Path::new(&directory.path().join(path)).exists()
    };
    for epoch in 1..=3 {
        assert!(exists("train", epoch, "Loss"));
        for name in [GAP, DISTANCES[0]] {
            assert!(exists("valid", epoch, name), "{name} in epoch {epoch}");
            assert!(!exists("train", epoch, name), "{name} in epoch {epoch}");
        }
    }
    let gap = loss(model.live()) - loss(&model.average(0).unwrap());
    assert_close(&[logged_at(directory.path(), "valid", 3, GAP)], &[gap], 1e-4);
    let distance = model.averages()[0].distance(model.live()).unwrap().relative;
    assert_eq!(logged_at(directory.path(), "valid", 3, DISTANCES[0]), distance);
}

#[test]
fn metrics_say_what_they_are() {
    let model = averaged(0);
    let gap = model.gap_metric(LossMetric::new());
    let distance = model.distance_metric(2).unwrap();
    assert_eq!(gap.name().to_string(), "Loss gap (live - average)");
    assert_eq!(distance.name().to_string(), "Distance (all of them)");
    assert!(gap.value().is_none() && distance.value().is_none(), "before the first validation");
    for attributes in [gap.attributes(), distance.attributes()] {
        let MetricAttributes::Numeric(attributes) = attributes else { panic!("{attributes:?}") };
        assert!(!attributes.higher_is_better);
    }
    let expected = "the index of an average is 3, expected a number below 3";
    assert_eq!(model.distance_metric(3).map(|_| ()).unwrap_err().to_string(), expected);
    let metric = model.average_metric(3, LossMetric::new());
    assert_eq!(metric.map(|_| ()).unwrap_err().to_string(), expected);
}

/// A gap has live answer, a distance nobody; what was dropped costs no forward pass.
#[test]
fn dropped_metrics_cost_nothing() {
    let answers = |keep: [bool; 3]| {
        let directory = tempfile::tempdir().unwrap();
        let counted = Counted { net: Net::new(0, &device()), answers: Arc::default() };
        let answers = counted.answers.clone();
        let configs = [0.9, 0.5].map(|decay| AverageConfig::new(Rule::ema(decay)));
        let model = Averaged::new(counted, configs).unwrap();
        let gap = model.gap_metric(LossMetric::new());
        let distance = model.distance_metric(1).unwrap();
        let average = model.average_metric(1, LossMetric::new()).unwrap();
        let mut training = Plan { epochs: 1, ..Plan::new(directory.path()) }.training();
        if keep[0] {
            training = training.metric_valid_numeric(gap);
        } else {
            drop(gap);
        }
        if keep[1] {
            training = training.metric_valid_numeric(distance);
        } else {
            drop(distance);
        }
        if keep[2] {
            training = training.metric_valid_numeric(average);
        } else {
            drop(average);
        }
        fit(training, model, adam(), ConstantLr::new(0.02)).launch().unwrap();
        answers.load(Ordering::Relaxed)
    };
    assert_eq!(answers([false; 3]), 3, "three batches, each answered once");
    assert_eq!(answers([true, false, false]), 6);
    assert_eq!(answers([false, true, false]), 3);
    assert_eq!(answers([false, false, true]), 6);
    assert_eq!(answers([true; 3]), 9);
}

#[test]
fn the_best_average_has_the_least_loss() {
    let directory = tempfile::tempdir().unwrap();
    let model = Plan::new(directory.path()).launch(averaged(1)).model;
    let ranking = model.rank(|net| Ok(loss(net))).unwrap();
    let expected = [0, 1, 2].map(|index| loss(&model.average(index).unwrap()));
    assert_eq!(ranking.live, loss(model.live()));
    let (names, found): (Vec<_>, Vec<_>) = ranking.averages.iter().cloned().unzip();
    assert_eq!((names, found), (model.names(), expected.to_vec()));
    let least = expected.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(expected[ranking.best], least);
    assert_eq!(ranking.best_name(), model.names()[ranking.best]);
    assert_eq!(loss(&model.average(ranking.best).unwrap()), least, "that is what is saved");

    // It travels, and prints itself in a line.
    let text = serde_json::to_string(&ranking).unwrap();
    assert_eq!(serde_json::from_str::<Ranking>(&text).unwrap(), ranking);
    let line = ranking.to_string();
    assert!(line.starts_with(&format!("live {:.6}, ema(0.9) ", ranking.live)), "{line}");
    assert_eq!(line.matches("(best)").count(), 1);
    assert!(line.contains(&format!("{} {least:.6} (best)", ranking.best_name())), "{line}");
}

#[test]
fn ties_go_to_the_first_and_no_number_is_the_worst() {
    let model = averaged(0);
    let best = |losses: [f64; 3]| {
        let mut next = [7.0].into_iter().chain(losses);
        model.rank(|_| Ok(next.next().unwrap())).unwrap().best
    };
    const NAN: f64 = f64::NAN;
    for (losses, expected) in [
        ([3.0, 1.0, 2.0], 1),
        ([1.0, 1.0, 1.0], 0),
        ([2.0, 1.0, 1.0], 1),
        ([0.0, -0.0, 0.0], 0),
        ([2.0, -1.0, 1.0], 1),
        ([NAN, 5.0, 4.0], 2),
        ([-NAN, 5.0, 5.0], 1),
        ([NAN, f64::INFINITY, NAN], 1),
        ([f64::INFINITY, f64::MAX, NAN], 1),
        ([NAN, NAN, NAN], 0),
    ] {
        assert_eq!(best(losses), expected, "{losses:?}");
    }
    // The first error is the answer, and modules are in validation mode.
    let mut asked = 0;
    let error = model.clone().train().rank(|net: &Net| {
        assert!(!net.first.weight.val().is_autodiff());
        asked += 1;
        if asked == 3 { Err(Error::Poisoned) } else { Ok(0.0) }
    });
    assert!(matches!(error, Err(Error::Poisoned)));
    assert_eq!(asked, 3);
}

/// Sums and squares that are no numbers in the dtype of the weights.
#[test]
fn a_distance_is_a_number_whatever_the_dtype() {
    let device = Device::flex();
    let weights = |x: f64, count: usize, dtype| Weights::new(&vec![x; count], dtype, &device);
    for (dtype, count, from, to) in [
        (DType::F16, 100_000, 1.0, 2.0),
        (DType::BF16, 1000, 1.0, 2.0),
        (DType::F32, 10, 1e25, 2e25),
        (DType::F64, 10, 1e150, 2e150),
    ] {
        let config = AverageConfig::new(Rule::ema(0.5)).with_non_finite(NonFinite::Take);
        let average = config.init(&weights(from, count, dtype)).unwrap();
        let distance = average.distance(&weights(to, count, dtype)).unwrap();
        assert!((distance.relative - 1.0).abs() < 1e-2, "{dtype:?}: {distance:?}");
        let expected = from * (count as f64).sqrt();
        assert!((distance.norm / expected - 1.0).abs() < 1e-2, "{dtype:?}: {distance:?}");
    }
    let frozen = AverageConfig::new(Rule::ema(0.5)).on("w", Policy::Freeze);
    for config in [AverageConfig::new(Rule::ema(0.5)), frozen] {
        let average = config.init(&weights(0.0, 3, DType::F32)).unwrap();
        let distance = average.distance(&weights(0.0, 3, DType::F32)).unwrap();
        let numbers = [distance.norm, distance.relative].map(f64::to_bits);
        assert_eq!(numbers, [0.0f64; 2].map(f64::to_bits), "of nothing");
    }
}

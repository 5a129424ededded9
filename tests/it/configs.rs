//! Configurations of runs, as they are compared when a run goes on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    error::Error as _,
    path::Path,
};

use burn::{lr_scheduler::constant::ConstantLr, train::metric::LossMetric};
use burn_ema::{
    AverageConfig, Result, Rule,
    runs::{CommitConfig, fit},
    train::Averaged,
};
use serde::Serialize;
use serde_json::json;

use crate::common::{Net, Plan, adam, device};

/// Trains an epoch more, or says why the run does not go on.
fn train(run: &Path, epochs: usize, config: &impl Serialize) -> Result<()> {
    let plan = Plan { epochs, points: 8, ..Plan::new(run) };
    let average = AverageConfig::new(Rule::ema(0.9));
    let model = Averaged::new(Net::new(1, &device()), [average]).unwrap();
    let training = plan.training().metrics((LossMetric::new(),));
    let fit = fit(training, model, adam(), ConstantLr::new(0.02));
    let commits = CommitConfig::new(run).with_config(config)?;
    fit.with_commits(commits)?.resume()?.launch().map(drop)
}

fn cause(error: burn_ema::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[derive(Serialize)]
struct Config<S> {
    lr: f64,
    warm_up: Option<f32>,
    columns: S,
}

fn config<S>(columns: S) -> Config<S> {
    Config { lr: 0.1, warm_up: None, columns }
}

#[test]
fn what_json_does_not_have_is_refused_by_its_field() {
    let refused = |config: &Config<Vec<f64>>| {
        let refused = CommitConfig::new("run").with_config(config).map(drop);
        refused.map_err(|error| error.to_string()).err()
    };
    assert_eq!(refused(&config(vec![1.0, f64::MAX, f64::MIN_POSITIVE, -0.0])), None);
    for (config, place, found) in [
        (Config { lr: f64::INFINITY, ..config(vec![]) }, "config.lr", "inf"),
        (Config { warm_up: Some(f32::NAN), ..config(vec![]) }, "config.warm_up", "NaN"),
        (config(vec![0.0, f64::NEG_INFINITY]), "config.columns[1]", "-inf"),
    ] {
        let message = refused(&config).unwrap();
        assert!(message.starts_with(&format!("{place}: expected a finite number")), "{message}");
        assert!(message.ends_with(&format!("found {found}")), "{message}");
    }
    // An absent number is one that may come.
    let directory = tempfile::tempdir().unwrap();
    train(directory.path(), 1, &config(0)).unwrap();
    let other = Config { warm_up: Some(0.5), ..config(0) };
    let error = cause(train(directory.path(), 2, &other).unwrap_err());
    assert_eq!(error, "config.warm_up: expected null, as in the run, found 0.5");
}

#[test]
fn equal_numbers_are_equal() {
    for (begun, given) in [
        (json!({ "a": 1, "b": [2.0, { "c": -3 }] }), json!({ "a": 1.0, "b": [2, { "c": -3.0 }] })),
        (json!({ "a": 0 }), json!({ "a": -0.0 })),
        (json!({ "a": 0.1 + 0.2 }), json!({ "a": 0.300_000_000_000_000_04 })),
        (json!({ "a": u64::MAX, "b": i64::MIN }), json!({ "a": u64::MAX, "b": i64::MIN })),
        (json!({ "epochs": 3.0 }), json!({ "epochs": 3 })),
        (json!({ "a": null }), json!({})),
    ] {
        let directory = tempfile::tempdir().unwrap();
        train(directory.path(), 1, &begun).unwrap();
        train(directory.path(), 2, &given).unwrap();
        train(directory.path(), 3, &begun).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    train(directory.path(), 1, &json!({ "rows": 9_007_199_254_740_993_u64 })).unwrap();
    let other = train(directory.path(), 2, &json!({ "rows": 9_007_199_254_740_992.0 }));
    let error = cause(other.unwrap_err());
    assert!(error.starts_with("config.rows: expected 9007199254740993, as in the run"), "{error}");
}

#[test]
fn a_set_without_an_order_is_named_as_such() {
    let names = || ["a", "b", "c", "d", "e", "f", "g", "h"];
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path();
    let first = HashSet::from(names());
    train(run, 1, &config(&first)).unwrap();
    // Another set of the same names, which some set has in another order.
    let other = (0..100).map(|_| HashSet::from(names())).find(|set| !set.iter().eq(&first));
    let error = cause(train(run, 2, &config(other.unwrap())).unwrap_err());
    assert!(error.starts_with("config.columns: expected ["), "{error}");
    assert!(error.contains("HashSet") && error.contains("BTreeSet"), "{error}");
    let mut reversed: Vec<_> = first.iter().collect();
    reversed.reverse();
    let error = cause(train(run, 2, &config(&reversed)).unwrap_err());
    assert!(error.contains("the order alone differs"), "{error}");
    // Other names are other names.
    let error = cause(train(run, 2, &config(["z"; 8])).unwrap_err());
    assert!(!error.contains("HashSet"), "{error}");

    // A set with an order, and a map of either kind, go on.
    let directory = tempfile::tempdir().unwrap();
    let pairs = || names().into_iter().zip(0..);
    for epochs in 1..4 {
        let columns = (
            BTreeSet::from(names()),
            pairs().collect::<HashMap<_, _>>(),
            pairs().collect::<BTreeMap<_, _>>(),
        );
        train(directory.path(), epochs, &config(columns)).unwrap();
    }
}

/// A configuration that is another each time it is written, as one with a clock.
#[test]
fn a_configuration_that_changes_as_it_is_written_is_refused() {
    struct Clock(std::cell::Cell<u32>);
    impl Serialize for Clock {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.set(self.0.get() + 1);
            serializer.serialize_u32(self.0.get())
        }
    }
    let clock = config(Clock(std::cell::Cell::new(0)));
    let error = CommitConfig::new("run").with_config(&clock).map(drop).unwrap_err().to_string();
    assert!(error.starts_with("config.columns: expected the same value each time"), "{error}");
}

//! Trainings that end early.

use burn::train::{
    EarlyStoppingStrategy,
    metric::{
        LossMetric,
        store::{Direction, EventStoreClient},
    },
};

use super::*;
use crate::next::NEXT;

/// The average after so many steps of a live that stands still.
fn after(config: &AverageConfig, steps: u64) -> Average<Net> {
    let live = Net::new(0, &device());
    let mut average = config.init(&live).unwrap();
    for step in 1..=steps {
        average.update(&live, step).unwrap();
    }
    average
}

fn share(warnings: &[Warning]) -> Option<f64> {
    warnings.iter().find_map(|warning| match warning {
        Warning::Start { share, .. } => Some(*share),
        _ => None,
    })
}

#[test]
fn an_average_is_judged_by_what_it_has_seen() {
    let config = AverageConfig::new(Rule::ema(0.999)).with_total_steps(Some(20_000));
    let mut average = after(&config, 24);
    assert_eq!(average.take_warnings(), []);
    let warnings = average.take_final_warnings();
    assert!((share(&warnings).unwrap() - 0.999_f64.powi(24)).abs() < 1e-12, "{warnings:?}");
    assert_eq!(average.take_final_warnings(), []);
}

#[test]
fn a_share_that_grew_worse_is_a_warning_again() {
    // Foretold as 14 %, and 98 % in the end, since it was updated once an epoch.
    let config = AverageConfig::new(Rule::ema(0.998)).with_total_steps(Some(980));
    let mut average = after(&config, 0);
    let foretold = share(&average.take_warnings()).unwrap();
    assert!((foretold - 0.998_f64.powi(980)).abs() < 1e-12);
    for step in 1..=10 {
        average.update(&Net::new(0, &device()), step).unwrap();
    }
    assert_eq!(average.take_warnings(), []);
    let found = share(&average.take_final_warnings()).unwrap();
    assert!((found - 0.998_f64.powi(10)).abs() < 1e-12);
}

#[test]
fn a_start_that_was_never_reached_is_a_warning() {
    let config = AverageConfig::new(Rule::Equal).with_start(600).with_total_steps(Some(800));
    let average = after(&config, 24);
    assert_eq!(average.warnings(), []);
    let warnings = average.final_warnings();
    let [Warning::NoUpdate { first: 601, end: 24, .. }] = warnings[..] else {
        panic!("{warnings:?}")
    };
    assert_eq!(after(&config, 800).final_warnings(), []);
}

#[test]
fn a_fit_that_was_stopped_ends_with_the_final_warnings() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan { epochs: 100, ..Plan::new(directory.path()) };
    let config = AverageConfig::new(Rule::ema(0.999)).with_total_steps(Some(20_000));
    let model = Averaged::new(Net::new(0, &device()), [config]).unwrap();
    let training = plan.training();
    let interrupter: Interrupter = training.interrupter();
    interrupter.stop(Some("enough"));
    let lr = burn::lr_scheduler::constant::ConstantLr::new(0.02);
    let result = fit(training, model, adam(), lr).launch().unwrap();
    let steps = result.model.steps() as i32;
    let warnings = result.model.take_warnings();
    if NEXT {
        // The next version makes no step of a training that is stopped before it begins.
        assert_eq!((steps, share(&warnings)), (0, None));
        return;
    }
    let found = share(&warnings).expect("the average is mostly its start");
    assert!((found - 0.999_f64.powi(steps)).abs() < 1e-12, "{warnings:?}");
}

/// A panic after the first epoch.
#[derive(Clone)]
struct Panics;

impl EarlyStoppingStrategy for Panics {
    fn should_stop(&mut self, _: usize, _: &EventStoreClient) -> bool {
        panic!("no more")
    }
}

/// The model is not returned with an error, and a clone from before shares its averages.
#[test]
fn a_fit_that_ends_with_an_error_ends_for_its_clones() {
    for case in ["commits", "a kept strategy", "a panic"] {
        let directory = tempfile::tempdir().unwrap();
        let plan = Plan { epochs: 100, ..Plan::new(directory.path()) };
        let config = AverageConfig::new(Rule::ema(0.999)).with_total_steps(Some(20_000));
        let model = Averaged::new(Net::new(0, &device()), [config]).unwrap();
        let clone = model.clone();
        // By a metric that is not there, which is an error after an epoch.
        let commits = CommitConfig::new(directory.path())
            .with_keep_best(&LossMetric::new(), Direction::Lowest);
        let lr = burn::lr_scheduler::constant::ConstantLr::new(0.02);
        let fit = match case {
            "a panic" => fit(plan.training().early_stopping(Panics), model, adam(), lr),
            _ => fit(plan.training(), model, adam(), lr).with_commits(commits).unwrap(),
        };
        let fit = if case == "a kept strategy" { fit.keep_strategy() } else { fit };
        fit.launch().map(drop).unwrap_err();
        let warnings = clone.take_warnings();
        let found = share(&warnings).unwrap_or_else(|| panic!("{case}: {warnings:?}"));
        let steps = clone.averages()[0].last_step();
        assert!((8..16).contains(&steps), "{case}: {steps}");
        assert!((found - 0.999_f64.powi(steps as i32)).abs() < 1e-12, "{case}: {warnings:?}");
    }
}

//! Trainings that end early.

use super::*;

/// The average after so many steps of a live that stands still.
fn after(config: &AverageConfig, steps: u64) -> Average<Net> {
    let live = Net::new(0, &device());
    let mut average = config.init(&live).unwrap();
    (1..=steps).for_each(|step| average.update(&live, step).unwrap());
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
    (1..=10).for_each(|step| average.update(&Net::new(0, &device()), step).unwrap());
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
    let found = share(&warnings).expect("the average is mostly its start");
    assert!((found - 0.999_f64.powi(steps)).abs() < 1e-12, "{warnings:?}");
}

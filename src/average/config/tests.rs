use burn::nn::LinearConfig;
use proptest::prelude::*;

use super::*;

/// The decay and the memory in steps of the suggested average, which has bias correction.
fn suggested(total_steps: u64) -> (f64, f64) {
    let config = AverageConfig::suggest(total_steps);
    let Rule::Constant { decay, debias: true } = config.rule else { panic!("{}", config.rule) };
    (decay, 1.0 / (1.0 - decay))
}

#[test]
fn what_is_suggested_is_a_round_number_of_steps() {
    let expected = [
        (1, "0"),
        (9, "0"),
        (10, "0.5"),
        (24, "0.5"),
        (25, "0.8"),
        (49, "0.8"),
        (50, "0.9"),
        (100, "0.95"),
        (250, "0.98"),
        (499, "0.98"),
        (500, "0.99"),
        (1_000, "0.995"),
        (2_500, "0.998"),
        (4_999, "0.998"),
        (5_000, "0.999"),
        (5_400, "0.999"),
        (10_000, "0.9995"),
        (25_000, "0.9998"),
        (49_999, "0.9998"),
        (50_000, "0.9999"),
        (1_000_000, "0.9999"),
        (u64::MAX, "0.9999"),
    ];
    for (steps, decay) in expected {
        let config = AverageConfig::suggest(steps);
        assert_eq!(config.rule.to_string(), format!("ema({decay}, debias)"), "{steps} steps");
        assert_eq!(config.total_steps, Some(steps));
    }
}

#[test]
fn no_steps_are_refused_by_name() {
    let model = LinearConfig::new(2, 3).init(&Default::default());
    let error = AverageConfig::suggest(0).init(&model).unwrap_err().to_string();
    assert_eq!(error, "total_steps is 0, expected 1 or more");
}

proptest! {
    #[test]
    fn what_is_suggested_is_valid_and_warned_of_by_nothing(
        steps in prop_oneof![1_u64..=100, 1_u64..=100_000, 1_u64..=1_000_000_000_000],
    ) {
        let model = LinearConfig::new(2, 3).init(&Default::default());
        let average = AverageConfig::suggest(steps).init(&model).unwrap();
        prop_assert_eq!(average.warnings(), vec![]);
    }

    #[test]
    fn a_longer_training_has_no_shorter_memory(
        steps in prop_oneof![1_u64..=1_000, 1_u64..=1_000_000_000_000],
        more in prop_oneof![0_u64..=10, 0_u64..=1_000_000_000_000],
    ) {
        prop_assert!(suggested(steps + more).0 >= suggested(steps).0);
    }

    #[test]
    fn the_memory_is_8_to_20_percent_of_the_training(
        steps in 10_u64..=50_000,
    ) {
        let share = suggested(steps).1 / steps as f64;
        prop_assert!((0.08 - 1e-9..=0.2 + 1e-9).contains(&share), "{} of {steps} steps", share);
    }
}

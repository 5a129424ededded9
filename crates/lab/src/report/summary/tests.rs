use super::*;
use burn_ema::{AverageConfig, Rule};

fn made_of(rule: &str, every: u64, start: u64, steps: u64) -> MadeOf {
    let config = AverageConfig::new(rule.parse::<Rule>().unwrap());
    let config = config.with_every(every).with_start(start);
    MadeOf::of(&config.profile_after(steps).unwrap(), steps)
}

#[test]
fn the_columns_hold_all_weight() {
    let rules = [
        "ema(0.9)",
        "ema(0.999)",
        "ema(0.9999, debias)",
        "equal",
        "power(sigma_rel=0.1)",
        "window(5 snapshots, 100 steps)",
        "bema(rho=10, gamma=1, eta=0.2, kappa=0.5)",
        "ema(0)",
    ];
    for rule in rules {
        for (every, start, steps) in [(1, 0, 27_000), (1, 0, 7), (10, 0, 5405), (3, 1000, 5400)] {
            let made = made_of(rule, every, start, steps);
            let sum: f64 = made.columns.iter().sum::<f64>() + made.older + made.mass_on_start;
            assert!((sum - 1.0).abs() < 1e-9, "{rule} every {every}: {sum}");
            let shown: f64 = made.columns.iter().map(|weight| weight.abs()).sum();
            assert!(made.older.abs() <= 1.001 * LEFT_OUT * shown, "{rule}: {}", made.older);
            let count = made.columns.len();
            assert!((1..=COLUMNS as usize).contains(&count), "{rule}: {count} columns");
        }
    }
}

#[test]
fn a_column_is_the_weight_of_its_steps() {
    // Of a short memory, each step; of the rest, what is too little to be seen.
    let made = made_of("ema(0.9)", 1, 0, 1000);
    assert_eq!((made.width, made.columns.len()), (1, 66));
    for (age, weight) in made.columns.iter().rev().enumerate() {
        assert!((weight - 0.1 * 0.9f64.powi(age as i32)).abs() < 1e-12, "{age}: {weight}");
    }
    assert!((made.older - 0.9f64.powi(66)).abs() < 1e-12);

    // All steps alike, in columns of several; the first has a few fewer.
    let made = made_of("equal", 1, 0, 27_000);
    assert_eq!((made.width, made.columns.len()), (135, 200));
    assert!(made.columns[1..].iter().all(|weight| (weight * 200.0 - 1.0).abs() < 1e-9));

    // An update stands for the steps that it covers.
    let made = made_of("equal", 20, 0, 100);
    assert_eq!((made.width, made.columns.len()), (1, 100));
    assert!(made.columns.iter().all(|weight| (weight - 0.01).abs() < 1e-12));

    // One that covers steps before the picture has the rest of its weight there.
    let made = made_of("ema(0)", 7, 0, 15);
    assert_eq!((made.width, made.columns.len()), (1, 8));
    assert_eq!(made.columns[7], 0.0, "the last step was not seen");
    assert!(made.columns[..7].iter().all(|weight| (weight - 1.0 / 7.0).abs() < 1e-12));
}

#[test]
fn answers_are_counted_by_class() {
    let counts = confusion(&[0, 1, 1, 2, 1], &[0, 2, 1, 2, 2]);
    assert_eq!(counts, [(0, 0, 1), (1, 1, 1), (1, 2, 2), (2, 2, 1)]);
}

/// JSON has no NaN.
#[test]
fn what_is_unknown_comes_back_as_unknown() {
    let [mass_on_start, mean_age, standard_deviation, half_life, effective_steps] = [f64::NAN; 5];
    let known = made_of("ema(0.9)", 1, 0, 10);
    let unknown = MadeOf {
        mass_on_start,
        mean_age,
        standard_deviation,
        half_life,
        effective_steps,
        ..known.clone()
    };
    let back = |made: &MadeOf| -> MadeOf {
        serde_json::from_str(&serde_json::to_string(made).unwrap()).unwrap()
    };
    assert_eq!(back(&known), known);
    let back = back(&unknown);
    let numbers = [
        back.mass_on_start,
        back.mean_age,
        back.standard_deviation,
        back.half_life,
        back.effective_steps,
    ];
    assert!(numbers.iter().all(|number| number.is_nan()), "{numbers:?}");
}

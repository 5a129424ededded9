//! The same step again.

use super::*;

fn live(seed: u64) -> Net {
    // Weights in the memory of a GPU are not sampled, since that would be a wait.
    Net::new(seed, &Device::flex())
}

#[test]
fn other_weights_at_the_last_step_are_counted_and_warned_of() {
    let mut average = AverageConfig::new(Rule::debiased(0.9)).init(&live(0)).unwrap();
    for seed in 1..=50 {
        average.update(&live(seed), 1).unwrap();
    }
    let warnings = average.take_warnings();
    let repeated = warnings.iter().find(|w| matches!(w, Warning::RepeatedStep { .. }));
    let Some(Warning::RepeatedStep { count: 49, step: 1, .. }) = repeated else {
        panic!("{warnings:?}")
    };
    assert!(average.take_warnings().is_empty());
    // Also where the end is known, and beside other averages.
    let config = AverageConfig::new(Rule::debiased(0.9)).with_total_steps(Some(50));
    let start = live(0);
    let mut averages = [config.init(&start).unwrap(), copy_of_live().init(&start).unwrap()];
    for (seed, step) in [(1, 1), (2, 2), (3, 2), (3, 2), (4, 3), (4, 3)] {
        burn_ema::average::update_all(&mut averages, &live(seed), step, None).unwrap();
    }
    for average in &averages {
        let warnings = average.warnings();
        let repeated = warnings.iter().filter(|w| matches!(w, Warning::RepeatedStep { .. }));
        let counts: Vec<_> = repeated.cloned().collect();
        let [Warning::RepeatedStep { count: 2, step: 3, .. }] = counts[..] else {
            panic!("{counts:?}")
        };
    }
    assert_eq!(flat(&averages[1].module(), false), flat(&live(4), false), "as before: none");
}

#[test]
fn replicas_of_one_step_are_silent() {
    let mut average = copy_of_live().init(&live(0)).unwrap();
    for step in 1..=5 {
        let replica = live(step);
        // Another replica has the same weights in tensors of its own, and other statistics.
        let other = live(step);
        let _ = other.train().forward(Tensor::ones([4, 2], &Device::flex().autodiff()));
        average.update(&replica, step).unwrap();
        average.update(&live(step), step).unwrap();
        average.update(&replica.clone(), step).unwrap();
    }
    assert_eq!(average.warnings(), []);
}

/// A large part that stands still, and a small one that is trained.
#[derive(Module, Debug)]
struct FineTuned {
    still: Vec<Param<Tensor<1>>>,
    head: Param<Tensor<1>>,
}

#[test]
fn a_small_part_is_enough_and_an_update_need_not_be_due() {
    let device = Device::flex();
    let live = |seed: u64| FineTuned {
        still: (0..100).map(|i| Weights::new(&[f64::from(i); 50], DTYPE, &device).w).collect(),
        head: Weights::new(&[seed as f64], DTYPE, &device).w,
    };
    for every in [1, 10] {
        let mut average = copy_of_live().with_every(every).init(&live(0)).unwrap();
        for seed in 1..=50 {
            average.update(&live(seed), 1).unwrap();
        }
        let warnings = average.warnings();
        let repeated =
            warnings.iter().any(|w| matches!(w, Warning::RepeatedStep { count: 49, .. }));
        assert!(repeated, "{warnings:?}");
    }
}

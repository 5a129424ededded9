//! BEMA as TRL updates it, every so many steps: against the numbers of TRL's callback, and against
//! the sum that its recurrence is.

use burn::tensor::{DType, Device};
use burn_ema::{Average, AverageConfig, Rule};
use serde_json::Value;

use crate::common::{Weights, assert_close, flat, kinds, numbers};

/// The settings of TRL's `BEMACallback`.
#[derive(Clone, Copy)]
struct Trl {
    update_freq: u64,
    update_after: u64,
    lag: f64,
    multiplier: f64,
    ema_power: f64,
    bias_power: f64,
}

impl Trl {
    fn of(settings: &Value) -> Self {
        let float = |key: &str| settings[key].as_f64().unwrap();
        let integer = |key: &str| settings[key].as_u64().unwrap();
        Self {
            update_freq: integer("update_freq"),
            update_after: integer("update_after"),
            lag: float("lag"),
            multiplier: float("multiplier"),
            ema_power: float("ema_power"),
            bias_power: float("bias_power"),
        }
    }

    /// TRL counts all steps of the training, so that the steps before the start are in the lag; the
    /// rule counts the updates of the average.
    fn rule(self) -> Rule {
        Rule::Bema {
            rho: self.lag + self.multiplier * self.update_after as f64,
            gamma: self.multiplier * self.update_freq as f64,
            eta: self.bias_power,
            kappa: self.ema_power,
        }
    }

    fn average(self, dtype: DType, device: &Device) -> Average<Weights> {
        let start = Weights::new(&weights(self.update_after), dtype, device);
        AverageConfig::new(self.rule()).init(&start).unwrap()
    }

    /// The output after `updates` updates, as a sum: each update's weights have their share in the
    /// average, the start has the rest, and the correction moves from the start to the last ones.
    fn sum(self, updates: u64) -> Vec<f64> {
        let step = |update: u64| self.update_after + self.update_freq * update;
        let power = |update: u64, power: f64| {
            (self.lag + self.multiplier * step(update) as f64).powf(-power)
        };
        let kept_after = |update: u64| {
            (update + 1..=updates).map(|later| 1.0 - power(later, self.ema_power)).product::<f64>()
        };
        let mut sum = weights(step(0)).map(|w| kept_after(0) * w);
        for update in 1..=updates {
            let share = power(update, self.ema_power) * kept_after(update);
            for (sum, w) in sum.iter_mut().zip(weights(step(update))) {
                *sum += share * w;
            }
        }
        let (first, last) = (weights(step(0)), weights(step(updates)));
        for (sum, (last, first)) in sum.iter_mut().zip(last.into_iter().zip(first)) {
            *sum += power(updates, self.bias_power) * (last - first);
        }
        sum.into()
    }
}

/// The weights of `tests/oracle/trl_bema.py` after `step` steps, with the same bits.
fn weights(step: u64) -> [f64; 3] {
    [0, 1, 2]
        .map(|place| (step * (7 + place) % 101) as f64 / 101.0 + step as f64 / 512.0 - place as f64)
}

/// A run of the callback.
struct Case {
    trl: Trl,
    /// The step of each update, and the output after it.
    outputs: Vec<(u64, Vec<f64>)>,
}

fn cases() -> Vec<Case> {
    let oracle: Value = serde_json::from_str(include_str!("../oracle/trl_bema.json")).unwrap();
    let output = |output: &Value| (output[0].as_u64().unwrap(), numbers(&output[1]));
    let case = |case: &Value| {
        let outputs = case["outputs"].as_array().unwrap().iter().map(output).collect();
        Case { trl: Trl::of(&case["settings"]), outputs }
    };
    oracle["cases"].as_array().unwrap().iter().map(case).collect()
}

#[test]
fn bema_by_advance_has_the_numbers_of_trls_callback() {
    let cases = cases();
    assert_eq!(cases[0].trl.rule().to_string(), "bema(rho=10, gamma=400, eta=0.2, kappa=0.5)");
    assert_eq!(cases[1].trl.rule().to_string(), "bema(rho=160, gamma=400, eta=0.2, kappa=0.5)");
    for (device, dtype, tolerance) in kinds() {
        for Case { trl, outputs } in &cases {
            let mut average = trl.average(dtype, &device);
            assert!(outputs.len() >= 9);
            for (update, (step, expected)) in (1..).zip(outputs) {
                let live = Weights::new(&weights(*step), dtype, &device);
                average.advance(&live).unwrap();
                let found = flat(&average.module(), true);
                assert_close(&found, expected, tolerance);
                assert_close(&found, &trl.sum(update), tolerance);
            }
        }
    }
}

/// Where TRL updates at every step, `with_start` is its `update_after`, and the hook can update.
#[test]
fn a_start_is_trls_update_after() {
    let (device, dtype, tolerance) = kinds().pop().unwrap();
    let is_asked = |case: &Case| (case.trl.update_freq, case.trl.update_after) == (1, 7);
    let Case { trl, outputs } = cases().into_iter().find(is_asked).unwrap();
    let start = Weights::new(&weights(0), dtype, &device);
    let config = AverageConfig::new(trl.rule()).with_start(trl.update_after);
    let mut average = config.init(&start).unwrap();
    let mut outputs = outputs.iter().peekable();
    for step in 1..=40 {
        average.update(&Weights::new(&weights(step), dtype, &device), step).unwrap();
        let found = flat(&average.module(), true);
        match outputs.next_if(|(of, _)| *of == step) {
            Some((_, expected)) => assert_close(&found, expected, tolerance),
            None => assert_eq!((step <= 7, found), (true, weights(step).to_vec())),
        }
    }
    assert!(outputs.next().is_none());
}

/// An update that covers 400 steps keeps the product of their decays, not the decay of the last.
#[test]
fn bema_over_many_steps_at_once_is_not_trls() {
    let Case { trl, outputs } = cases().swap_remove(0);
    let (device, dtype, _) = kinds().pop().unwrap();
    let rule = Rule::bema();
    let start = Weights::new(&weights(0), dtype, &device);
    let mut average = AverageConfig::new(rule).init(&start).unwrap();
    let (step, expected) = &outputs[0];
    assert_eq!(*step, trl.update_freq);
    average.update(&Weights::new(&weights(*step), dtype, &device), *step).unwrap();
    // It is near live, moved on, where TRL's average is still near the start.
    let apart = flat(&average.module(), true)[0] - expected[0];
    let way = weights(*step)[0] - weights(0)[0];
    assert!(apart / way > 0.9, "{apart} of {way}");
}

//! The warnings of an average, and when they come.

use burn::{
    module::Module,
    tensor::{DType, FloatDType},
};
use burn_ema::{
    Average, AverageConfig, NonFinite, Policy, Rule, average::Warning, train::Averaged,
};

use crate::{
    common::{Net, Plan, device, flat},
    hand::with_floats,
};

fn net() -> Net {
    Net::new(0, &device())
}

/// The average after so many steps of a live that stands still.
fn after(config: &AverageConfig, steps: u64) -> Average<Net> {
    let live = net();
    let mut average = config.init(&live).unwrap();
    for step in 1..=steps {
        average.update(&live, step).unwrap();
    }
    average
}

fn texts(warnings: &[Warning]) -> Vec<String> {
    warnings.iter().map(ToString::to_string).collect()
}

const START: &str = "ema(0.99): at step 100, 37 % of this average is the weights it started from; \
                     a smaller decay, bias correction, a later start or a rule that warms up \
                     leaves less; for a target network take the rule `target(tau=0.01)`";

#[test]
fn too_much_of_the_start_is_a_warning_at_the_beginning_and_at_the_end() {
    let config = AverageConfig::new(Rule::ema(0.99));
    let share = 0.99f64.powi(100);
    for average in [after(&config, 100), after(&config.with_total_steps(Some(100)), 0)] {
        let warnings = average.warnings();
        assert_eq!(texts(&warnings), [START]);
        let Warning::Start { name, share: found, step: 100, .. } = &warnings[0] else {
            panic!("{warnings:?}")
        };
        assert_eq!(name, "ema(0.99)");
        assert!((found - share).abs() < 1e-12, "{found}");
    }
    // A tenth is the limit: 0.99^229 is above it and 0.99^230 below.
    let config = AverageConfig::new(Rule::ema(0.99));
    assert_eq!(after(&config, 229).warnings().len(), 1);
    assert_eq!(after(&config, 230).warnings().len(), 0);
    let predicted =
        |steps| after(&AverageConfig::new(Rule::ema(0.99)).with_total_steps(Some(steps)), 0);
    assert_eq!(predicted(229).warnings().len(), 1);
    assert_eq!(predicted(230).warnings().len(), 0);
    // A prediction counts the steps from the start of the average, and its updates.
    let late =
        |start| AverageConfig::new(Rule::ema(0.99)).with_total_steps(Some(1000)).with_start(start);
    assert_eq!(after(&late(700), 0).warnings(), []);
    assert!(matches!(after(&late(900), 0).warnings()[..], [Warning::Start { step: 1000, .. }]));
    let rare = AverageConfig::new(Rule::ema(0.5)).with_every(60).with_total_steps(Some(50));
    let no_update = "ema(0.5): its first update would come at step 60, and the training has 50: it \
                     is live, or what it started from, until the end";
    assert_eq!(texts(&after(&rare, 0).warnings())[0], no_update);
    // Of paths with a rule of their own too.
    let own = AverageConfig::new(Rule::Equal).on("last.*", Policy::Rule(Rule::ema(0.99)));
    for average in [after(&own, 100), after(&own.with_total_steps(Some(100)), 0)] {
        assert!(matches!(average.warnings()[..], [Warning::Start { step: 100, .. }]));
    }
}

/// A share that is foretold and then comes, but for the rounding of each update.
#[test]
fn a_share_of_the_start_is_warned_of_once() {
    for steps in [3, 30, 405, 945] {
        let live = net();
        let config = AverageConfig::new(Rule::target(0.00001)).with_total_steps(Some(steps));
        let mut average = config.init(&live).unwrap();
        assert!(matches!(average.take_warnings()[..], [Warning::Start { .. }]));
        (1..=steps).for_each(|step| _ = average.update(&live, step).unwrap());
        assert_eq!(average.take_warnings(), [], "{steps}");
    }
}

#[test]
fn a_window_longer_than_the_training_is_a_warning() {
    // Bias correction leaves no start, and remembers no more than there is.
    let config = AverageConfig::new(Rule::debiased(0.999)).with_total_steps(Some(400));
    let expected = "ema(0.999, debias): this average remembers about 1000 steps, but the training \
                    has 400 of them: it is no smoother than a mean of all steps, and lags behind; \
                    take a fifth of the training or less";
    for steps in [0, 3] {
        assert_eq!(texts(&after(&config, steps).warnings()), [expected]);
    }
    for (rule, window) in [
        (Rule::half_life(100.0), 100.0 / std::f64::consts::LN_2),
        (Rule::lawa(5, 30), 150.0),
        (Rule::debiased(0.99), 100.0),
    ] {
        let with = |steps: f64| {
            let config = AverageConfig::new(rule.clone()).with_total_steps(Some(steps as u64));
            let warnings = after(&config, 0).warnings().into_iter();
            let found = warnings.filter_map(|warning| match warning {
                Warning::Window { window, .. } => Some(window),
                _ => None,
            });
            found.collect::<Vec<_>>()
        };
        let found = with(window - 1.0);
        assert!((found[0] - window).abs() < 1e-9, "{rule}: {found:?}");
        assert_eq!(with(window + 1.0), [0.0; 0], "{rule}");
    }
}

#[test]
fn a_dtype_that_rounds_updates_away_is_a_warning() {
    if cfg!(feature = "wgpu") {
        return; // 16 bits there depend on the adapter
    }
    let in_half = |decay: f64, dtype| {
        let config = AverageConfig::new(Rule::ema(decay)).with_dtype(Some(dtype));
        after(&config.with_total_steps(Some(1_000_000)), 0)
    };
    let average = in_half(0.999, FloatDType::F16);
    assert_eq!(
        texts(&average.warnings()),
        [
            "ema(0.999): first.weight is kept in f16, where an update with a share of 1.0e-3 is lost \
          unless the weight changes by more than 24 % in a step: keep it in f32"
        ]
    );
    let average = in_half(0.999, FloatDType::BF16);
    let warnings = average.warnings();
    let [Warning::Dtype { name, path, dtype, alpha }] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert_eq!((&name[..], &path[..], *dtype), ("ema(0.999)", "first.weight", DType::BF16));
    assert!((alpha - 1e-3).abs() < 1e-12);
    assert!(warnings[0].to_string().contains("more than 195 % in a step"), "{}", warnings[0]);
    assert_eq!(in_half(0.99, FloatDType::F16).warnings(), [], "2.4 %");
    assert_eq!(in_half(0.999, FloatDType::F32).warnings(), []);
    // f32 has its limit too; updates every hundred steps are larger.
    let slow = AverageConfig::new(Rule::debiased(1.0 - 1e-7)).with_total_steps(Some(1 << 40));
    assert!(matches!(after(&slow, 0).warnings()[..], [Warning::Dtype { dtype: DType::F32, .. }]));
    assert_eq!(after(&slow.with_every(100), 0).warnings(), []);

    // The warning is right: that average does not move, and one in f32 does.
    let (start, step) = (flat(&net(), false), 1.05);
    let live = || with_floats(net(), &start.iter().map(|x| x * step).collect::<Vec<_>>());
    let moved = |dtype| {
        let config = AverageConfig::new(Rule::ema(0.999)).with_dtype(Some(dtype));
        let mut average = config.init(&net()).unwrap();
        let before = flat(&average.module_as_kept(), false);
        average.update(&live(), 1).unwrap();
        let after = flat(&average.module_as_kept(), false);
        after.iter().zip(&before).filter(|(a, b)| a != b).count()
    };
    assert_eq!(moved(FloatDType::BF16), 0);
    assert!(moved(FloatDType::F32) > 100);
}

#[test]
fn refusals_are_warnings() {
    let mut average = after(&AverageConfig::new(Rule::Equal), 3);
    assert_eq!(average.warnings(), []);
    let mut broken = flat(&net(), false);
    broken[0] = f64::NAN;
    for step in 4..=5 {
        average.update(&with_floats(net(), &broken), step).unwrap();
    }
    let expected =
        Warning::NonFinite { name: "equal".into(), count: 2, path: "first.weight".into(), step: 5 };
    assert_eq!(average.warnings(), [expected]);
    assert_eq!(
        texts(&average.take_warnings()),
        [
            "equal: 2 updates were refused, the last at step 5: first.weight held a NaN or an infinity"
        ]
    );
    average.update(&net(), 6).unwrap();
    assert_eq!(average.warnings().len(), 1, "it stays true");
    assert_eq!(average.take_warnings(), [], "and was warned of");
}

#[test]
fn each_warning_comes_once() {
    let config = AverageConfig::new(Rule::ema(0.9999)).with_total_steps(Some(1000));
    let mut average = config.init(&net()).unwrap();
    let kinds = |warnings: &[Warning]| {
        let kind = |warning: &Warning| match warning {
            Warning::Start { .. } => "start",
            Warning::Window { .. } => "window",
            Warning::Dtype { .. } => "dtype",
            Warning::NonFinite { .. } => "non-finite",
            other => panic!("{other:?}"),
        };
        warnings.iter().map(kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&average.take_warnings()), ["start", "window"]);
    assert_eq!(average.take_warnings(), []);
    let mut broken = flat(&net(), false);
    broken[0] = f64::INFINITY;
    average.update(&with_floats(net(), &broken), 1).unwrap();
    assert_eq!(kinds(&average.take_warnings()), ["non-finite"], "what is new");
    assert_eq!(kinds(&average.warnings()), ["start", "window", "non-finite"]);
    assert_eq!(average.take_warnings(), []);
}

#[test]
fn the_hook_warns_of_all_its_averages() {
    let directory = tempfile::tempdir().unwrap();
    let sane = AverageConfig::new(Rule::debiased(0.8));
    let configs = [AverageConfig::new(Rule::ema(0.99)), sane, AverageConfig::new(Rule::ema(0.97))];
    let model = Averaged::new(net(), configs).unwrap();
    assert_eq!(model.take_warnings(), [], "nothing is known of the training yet");
    let model = Plan::new(directory.path()).launch(model).model;
    let warnings = texts(&model.take_warnings());
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    let begins = ["ema(0.99): at step 16, 85 %", "ema(0.99): this average remembers about 100"];
    for (text, begin) in warnings.iter().zip(begins) {
        assert!(text.starts_with(begin), "{text}");
    }
    assert!(warnings[2].starts_with("ema(0.97): at step 16, 61 %"), "{}", warnings[2]);
    assert_eq!(model.take_warnings(), []);
    assert_eq!(model.clone().take_warnings(), [], "nor by a clone");
}

/// The correction of BEMA is `(10 + t)^-0.2`, of the way from the start to live.
#[test]
fn an_output_far_beyond_its_average_is_a_warning() {
    let rule = Rule::bema();
    let overshoot = |average: &Average<Net>| {
        let found = average.warnings().into_iter().filter_map(|warning| match warning {
            Warning::Overshoot { share, step, .. } => Some((share, step)),
            _ => None,
        });
        found.collect::<Vec<_>>()
    };
    for (steps, every, start) in [(1, 1, 0), (90, 1, 0), (200, 1, 0), (200, 7, 0), (200, 1, 150)] {
        let config = AverageConfig::new(rule.clone()).with_every(every).with_start(start);
        let whole = config.clone().with_total_steps(Some(steps));
        // The correction is that of the last update.
        let share = (10.0 + ((steps - start) / every * every) as f64).powf(-0.2);
        for average in [after(&config, steps), after(&whole, 0)] {
            let [(found, step)] = overshoot(&average)[..] else { panic!("{every}, {start}") };
            assert_eq!(step, steps);
            assert!((found - share).abs() < 1e-12, "{found} for {share}");
        }
    }
    let expected = "bema(rho=10, gamma=1, eta=0.2, kappa=0.5): at step 200, it goes beyond its \
                    average by 34 % of the whole way from the start to live, which may be too far: \
                    compare it with live, or take `ema(.., debias)`, or `equal` with a late start";
    let config = AverageConfig::new(rule.clone());
    assert_eq!(texts(&after(&config, 200).final_warnings()), [expected]);
    // A tenth is the limit: 100,000^-0.2.
    let known = |steps| after(&config.clone().with_total_steps(Some(steps)), 0);
    assert_eq!(overshoot(&known(99_989)).len(), 1);
    assert_eq!(overshoot(&known(99_991)).len(), 0);
    // Of paths with a rule of their own too; not where nothing was updated yet, nor with a small
    // correction.
    let own = AverageConfig::new(Rule::Equal).on("last.*", Policy::Rule(rule.clone()));
    assert_eq!(overshoot(&after(&own, 200)).len(), 1);
    assert_eq!(overshoot(&after(&config.clone().with_every(7), 6)), []);
    assert_eq!(overshoot(&after(&config.clone().with_start(7), 7)), []);
    let none = Rule::Bema { rho: 10.0, gamma: 1.0, eta: 2.0, kappa: 0.5 };
    assert_eq!(overshoot(&after(&AverageConfig::new(none), 200)), []);
    // It becomes less with each step, and is said once.
    let mut average = after(&config, 10);
    assert_eq!(average.take_warnings().len(), 1);
    average.update(&net(), 11).unwrap();
    assert_eq!(average.take_warnings(), []);
}

#[test]
fn there_is_nothing_to_say_of_a_sane_average() {
    let rules = [
        Rule::ema(0.99),
        Rule::debiased(0.99),
        Rule::half_life(100.0),
        Rule::warm_up(0.99),
        Rule::inverse_gamma(0.75, 0.999),
        Rule::power_function(0.05),
        Rule::power_function(0.1),
        Rule::Equal,
        Rule::lawa(5, 100),
    ];
    for rule in rules {
        let config = AverageConfig::new(rule.clone()).with_total_steps(Some(1000));
        let fresh = after(&config, 0);
        let done = after(&AverageConfig::new(rule.clone()), 1000);
        assert_eq!(fresh.warnings(), [], "{rule}");
        assert_eq!(done.warnings(), [], "{rule}");
    }
    // A teacher that stands still at its end does so on purpose.
    let teacher = AverageConfig::new(Rule::cosine(1000.0)).with_total_steps(Some(1000));
    let warnings = after(&teacher, 0).warnings();
    assert!(
        warnings.iter().all(|warning| !matches!(warning, Warning::Dtype { .. })),
        "{warnings:?}"
    );
    // Before its start an average is live, and there is nothing to say yet.
    let late = AverageConfig::new(Rule::ema(0.999)).with_start(50);
    assert_eq!(after(&late, 50).warnings(), []);
    assert_eq!(late.non_finite, NonFinite::Auto);
    assert_eq!(after(&late, 49).module().num_params(), net().num_params());
}

/// A target network starts as live, and its copies are rare, on purpose.
#[test]
fn a_target_network_is_warned_of_only_if_it_stays_behind() {
    for (rule, every) in [(Rule::target(0.005), 1), (Rule::target(0.005), 50), (Rule::copy(100), 1)]
    {
        let config = AverageConfig::new(rule).with_every(every);
        for steps in [0, 1, 99, 101, 600] {
            assert_eq!(after(&config, steps).warnings(), [], "{} after {steps}", config.rule);
        }
        let whole = config.with_total_steps(Some(100_000));
        assert_eq!(after(&whole, 10).warnings(), []);
    }
    // 0.995^100 is 0.61, and an update every ten steps leaves 0.995^10, 0.95.
    for (every, share) in [(1, "61"), (10, "95")] {
        let config = AverageConfig::new(Rule::target(0.005)).with_every(every);
        let expected = format!(
            "target(tau=0.005): at step 100, {share} % of this average is the weights it started \
             from; a larger tau or more updates leave less"
        );
        assert_eq!(texts(&after(&config, 100).final_warnings()), [expected.as_str()]);
        let known = config.with_total_steps(Some(100));
        assert_eq!(texts(&after(&known, 0).warnings()), [expected]);
    }
    let never = AverageConfig::new(Rule::copy(100)).with_total_steps(Some(99));
    let expected = "copy(every=100): its first update would come at step 100, and the training has \
                    99: it is live, or what it started from, until the end";
    assert_eq!(texts(&after(&never, 0).warnings()), [expected]);
}

#[test]
fn an_average_that_is_never_updated_is_a_warning() {
    for (start, every, first) in [(30, 1, 31), (0, 21, 21), (20, 1, 21)] {
        let config = AverageConfig::new(Rule::Equal).with_start(start).with_every(every);
        let known = config.clone().with_total_steps(Some(20));
        let expected = Warning::NoUpdate { name: "equal".into(), first, end: 20 };
        assert_eq!(after(&known, 0).warnings(), [expected]);
        let now = after(&config, 20).warnings();
        let warned = now.iter().any(|warning| matches!(warning, Warning::NoUpdate { .. }));
        assert!(!warned, "there may be more steps to come");
    }
    let last = AverageConfig::new(Rule::Equal).with_start(19).with_total_steps(Some(20));
    assert_eq!(after(&last, 0).warnings(), []);
}

#[test]
fn an_interval_beyond_the_memory_is_a_warning() {
    let of = |rule, every| {
        let config = AverageConfig::new(rule).with_every(every).with_total_steps(Some(10_000));
        texts(&after(&config, 0).warnings())
    };
    let expected = "ema(0.9): an update every 11 steps covers more than the 10 steps that count, \
                    so that it is next to live: update it more often, or for the copies of a \
                    target network take the rule `copy(every=11)`";
    assert_eq!(of(Rule::ema(0.9), 11), [expected]);
    assert!(of(Rule::ema(0.9), 9).is_empty());
    assert!(of(Rule::lawa(5, 10), 10).is_empty());
    assert!(of(Rule::lawa(5, 10), 11)[0].contains("covers more than the 10 steps that count"));
    assert!(of(Rule::ema(0.0), 1).is_empty(), "decay 0 is live on purpose");
}

#[test]
fn a_teacher_that_stops_before_the_end_is_a_warning() {
    let of = |rule: &str, total| {
        let config = AverageConfig::new(rule.parse().unwrap()).with_total_steps(Some(total));
        texts(&after(&config, 0).warnings())
    };
    let rule = "cosine(0.9, end=1, steps=100)";
    let expected =
        format!("{rule}: from step 100 of 200 on it takes nothing any more, since its decay is 1");
    assert_eq!(of(rule, 200), [expected]);
    assert!(of(rule, 100).is_empty());
    assert!(of("cosine(0.9, end=0.99, steps=100)", 2000).is_empty());
    assert!(of("linear(0.9, end=1, steps=100)", 200)[0].contains("from step 100 of 200 on"));
}

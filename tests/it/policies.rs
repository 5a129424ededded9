//! What an average does with which parameter: globs, policies, statistics, constants.

use burn::{
    module::{Lora, Module, ModuleMapper, Param, ParamGroup},
    nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig},
    tensor::{Bool, Int, Tensor, TensorData},
};
use burn_ema::{Average, AverageConfig, Policy, Rule};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::common::{Net, assert_same, constants, device, flat, floats, lerp, randomized};

/// Lists, a batch norm and constants.
#[derive(Module, Debug)]
struct Tower {
    layers: Vec<Linear>,
    norm: BatchNorm,
    head: Linear,
    counts: Param<Tensor<1, Int>>,
    mask: Param<Tensor<1, Bool>>,
}

const PATHS: [&str; 12] = [
    "layers.0.weight",
    "layers.0.bias",
    "layers.1.weight",
    "layers.1.bias",
    "layers.2.weight",
    "layers.2.bias",
    "norm.gamma",
    "norm.beta",
    "norm.running_mean",
    "norm.running_var",
    "head.weight",
    "head.bias",
];

impl Tower {
    fn new(seed: u64) -> Self {
        let device = device();
        let linear = || LinearConfig::new(3, 3).init(&device);
        let (counts, mask) = constants(seed);
        let tower = Self {
            layers: (0..3).map(|_| linear()).collect(),
            norm: BatchNormConfig::new(3).init(&device),
            head: linear(),
            counts,
            mask,
        };
        // Also statistics and scales, which `randomized` leaves alone.
        struct Draw(ChaCha8Rng);
        impl ModuleMapper for Draw {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|tensor| {
                    let shape = tensor.shape();
                    let values = (0..shape.num_elements()).map(|_| self.0.random::<f32>() + 0.1);
                    let data = TensorData::new(values.collect::<Vec<_>>(), shape);
                    Tensor::from_data(data, &tensor.device())
                })
            }
        }
        let norm = tower.norm.map(&mut Draw(ChaCha8Rng::seed_from_u64(seed)));
        randomized(Self { norm, ..tower }, seed)
    }

    fn constants(&self) -> (Vec<i32>, Vec<bool>) {
        let counts = self.counts.val().into_data().convert::<i32>();
        let mask = self.mask.val().into_data();
        (counts.try_into_vec().unwrap(), mask.iter::<bool>().collect())
    }
}

fn of<M: Module>(module: &M, path: &str) -> Vec<f64> {
    let mut found = floats(module).into_iter().filter(|(known, ..)| known == path);
    found.next().unwrap_or_else(|| panic!("no {path}")).2
}

fn half() -> AverageConfig {
    AverageConfig::new(Rule::ema(0.5)).with_statistics(Policy::Average)
}

/// The average after one step from the tower of one seed to that of another.
fn after_a_step(config: &AverageConfig, seed: u64) -> (Tower, Tower, Average<Tower>) {
    let (start, live) = (Tower::new(seed), Tower::new(seed + 1));
    let mut average = config.init(&start).unwrap();
    average.update(&live, 1).unwrap();
    (start, live, average)
}

fn between(start: &[f64], live: &[f64], alpha: f64) -> Vec<f64> {
    let mut average = start.to_vec();
    lerp(&mut average, live, alpha);
    average
}

/// The paths that a pattern chose, seen by what it froze.
fn chosen(pattern: &str) -> Vec<&'static str> {
    let (start, live, average) = after_a_step(&half().on(pattern, Policy::Freeze), 1);
    let module = average.module();
    let frozen = |path: &&str| {
        let (start, live, found) = (of(&start, path), of(&live, path), of(&module, path));
        let frozen = found == start;
        assert_ne!(start, live);
        if !frozen {
            assert_same(&found, &between(&start, &live, 0.5));
        }
        frozen
    };
    PATHS.into_iter().filter(frozen).collect()
}

#[test]
fn globs_choose_paths() {
    let with = |wanted: fn(&str) -> bool| -> Vec<_> {
        PATHS.into_iter().filter(|path| wanted(path)).collect()
    };
    let cases: [(&str, Vec<&str>); 15] = [
        ("head.weight", with(|path| path == "head.weight")),
        ("head.*", with(|path| path.starts_with("head"))),
        ("layers.*.weight", with(|path| path.starts_with("layers") && path.ends_with("weight"))),
        ("layers.**", with(|path| path.starts_with("layers"))),
        ("**.bias", with(|path| path.ends_with("bias"))),
        ("**", with(|_| true)),
        // A star stands for no dot.
        ("*.bias", with(|path| path == "head.bias")),
        ("*.*", with(|path| !path.starts_with("layers"))),
        ("layers.?.bias", with(|path| path.starts_with("layers") && path.ends_with("bias"))),
        ("layers.[01].*", with(|path| path.contains(".0.") || path.contains(".1."))),
        ("layers.[!0].weight", vec!["layers.1.weight", "layers.2.weight"]),
        ("layers.[1-2].bias", vec!["layers.1.bias", "layers.2.bias"]),
        ("norm.running_*", vec!["norm.running_mean", "norm.running_var"]),
        ("**.[gw]*", with(|path| path.ends_with("weight") || path.ends_with("gamma"))),
        // Constants have paths too.
        ("counts", vec![]),
    ];
    for (pattern, expected) in cases {
        assert_eq!(chosen(pattern), expected, "{pattern}");
    }
}

#[test]
fn the_last_pattern_that_matches_decides() {
    let config = half()
        .on("**", Policy::Freeze)
        .on("layers.*.bias", Policy::Average)
        .on("layers.[02].*", Policy::Rule(Rule::ema(0.25)))
        .on("layers.2.bias", Policy::Copy);
    let (start, live, average) = after_a_step(&config, 3);
    let module = average.module();
    for path in PATHS {
        let (start, live) = (of(&start, path), of(&live, path));
        let expected = match path {
            "layers.2.bias" => live,
            "layers.1.bias" => between(&start, &live, 0.5),
            _ if path.starts_with("layers.0") || path == "layers.2.weight" => {
                between(&start, &live, 0.75)
            }
            _ => start,
        };
        assert_same(&of(&module, path), &expected);
    }
    assert_eq!(module.constants(), start.constants(), "frozen by the first pattern");
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error_with_the_paths() {
    let message = |pattern: &str| {
        let config = half().on("head.*", Policy::Copy).on(pattern, Policy::Freeze);
        config.init(&Tower::new(0)).map(|_| ()).unwrap_err().to_string()
    };
    // One level is missing; names differ by case; the crate's paths have no slashes.
    for pattern in ["layers.*", "Head.weight", "head", "layer.0.weight", "layers.3.*"] {
        assert_eq!(
            message(pattern),
            format!(
                "the pattern of a policy is `{pattern}`, which matches none to freeze, expected a glob \
                 that matches a parameter of the module (layers.0.weight, layers.0.bias, \
                 layers.1.weight, layers.1.bias, layers.2.weight, layers.2.bias, ...)"
            )
        );
    }
    for pattern in ["head.[", "a***", "layers**"] {
        let message = message(pattern);
        assert!(message.contains("expected a glob such as `encoder.**` or `*.bias`"), "{message}");
        assert!(message.contains(pattern), "{message}");
    }
}

#[test]
fn each_policy_does_what_it_says() {
    for seed in 0..3 {
        let of_head = |policy| half().on("head.*", policy);
        for policy in [
            Policy::Average,
            Policy::Copy,
            Policy::Freeze,
            Policy::LeaveOut,
            Policy::Rule(Rule::Equal),
            Policy::Rule(Rule::ema(0.25)),
        ] {
            let (start, live, average) = after_a_step(&of_head(policy.clone()), seed);
            let (module, like) = (average.module(), average.module_like(&live).unwrap());
            for path in PATHS {
                let (start, live) = (of(&start, path), of(&live, path));
                let head = path.starts_with("head");
                let expected = match policy {
                    _ if !head => between(&start, &live, 0.5),
                    Policy::Average => between(&start, &live, 0.5),
                    Policy::Copy | Policy::Rule(Rule::Equal) => live.clone(),
                    Policy::Rule(_) => between(&start, &live, 0.75),
                    _ => start,
                };
                assert_same(&of(&module, path), &expected);
                assert_same(&of(&average.module_as_kept(), path), &expected);
                let left_out = head && policy == Policy::LeaveOut;
                assert_same(&of(&like, path), if left_out { &live } else { &expected });
            }
            let profile = average.profile_of("head.weight");
            match policy {
                Policy::Copy | Policy::Freeze | Policy::LeaveOut => assert!(profile.is_none()),
                Policy::Average => assert_eq!(profile.unwrap(), average.profile()),
                Policy::Rule(Rule::Equal) => assert_eq!(profile.unwrap().mass_on_start(), 0.0),
                _ => assert_eq!(profile.unwrap().mass_on_start(), 0.25),
            }
            assert!(average.profile_of("tail.weight").is_none());
        }
    }
}

/// Step by step, the parameters of a rule are those of an average by that rule.
#[test]
fn a_rule_of_its_own_is_an_average_of_its_own() {
    let rules = [Rule::Equal, Rule::debiased(0.8), Rule::lawa(2, 2), Rule::bema(), Rule::ema(0.9)];
    for rule in rules {
        let config = half()
            .with_every(2)
            .with_start(3)
            .on("head.*", Policy::Rule(rule.clone()))
            .on("layers.1.*", Policy::Rule(rule.clone()))
            .on("layers.2.*", Policy::Rule(Rule::ema(0.3)));
        let alone = |rule: &Rule| AverageConfig { rule: rule.clone(), ..half() };
        let alone = |rule: &Rule| alone(rule).with_every(2).with_start(3);
        let start = Tower::new(0);
        let mut mixed = config.init(&start).unwrap();
        let others = [&rule, &Rule::ema(0.3), &Rule::ema(0.5)];
        let mut others = others.map(|rule| alone(rule).init(&start).unwrap());
        for step in 1..=12 {
            let live = Tower::new(10 + step);
            mixed.update(&live, step).unwrap();
            for other in &mut others {
                other.update(&live, step).unwrap();
            }
            let module = mixed.module();
            for path in PATHS {
                let other = match path {
                    _ if path.starts_with("head") || path.starts_with("layers.1") => &others[0],
                    _ if path.starts_with("layers.2") => &others[1],
                    _ => &others[2],
                };
                assert_same(&of(&module, path), &of(&other.module(), path));
                assert_eq!(mixed.profile_of(path).unwrap(), other.profile(), "{rule} {path}");
            }
        }
    }
}

#[test]
fn averaged_statistics_equal_a_lerp_by_hand() {
    for seed in 0..3 {
        let config = |statistics| AverageConfig::new(Rule::ema(0.9)).with_statistics(statistics);
        let start = Tower::new(seed);
        let mut averages = [
            config(Policy::Average),
            config(Policy::Rule(Rule::ema(0.7))),
            config(Policy::Copy),
            config(Policy::Freeze),
            // A pattern goes before the policy of statistics.
            config(Policy::Freeze).on("norm.running_mean", Policy::Average),
        ]
        .map(|config| config.init(&start).unwrap());
        let statistics = ["norm.running_mean", "norm.running_var"];
        let at_start = statistics.map(|path| of(&start, path));
        let (mut slow, mut fast) = (at_start.clone(), at_start.clone());
        let mut newest = at_start.clone();
        for step in 1..=8 {
            let live = Tower::new(seed + 10 * step);
            newest = statistics.map(|path| of(&live, path));
            for (index, now) in newest.iter().enumerate() {
                lerp(&mut slow[index], now, 1.0 - 0.9);
                lerp(&mut fast[index], now, 1.0 - 0.7);
            }
            for average in &mut averages {
                average.update(&live, step).unwrap();
            }
        }
        let found = averages.each_ref().map(|average| {
            let module = average.module();
            statistics.map(|path| of(&module, path))
        });
        let mixed = [slow[0].clone(), at_start[1].clone()];
        for (found, expected) in found.iter().zip([slow, fast, newest, at_start, mixed]) {
            for (found, expected) in found.iter().zip(&expected) {
                assert_same(found, expected);
            }
        }
    }
}

#[test]
fn constants_are_always_copied() {
    // A pattern that reaches floats too is no slip, one that reaches constants alone is.
    for policy in [Policy::Average, Policy::Rule(Rule::Equal)] {
        let (_, live, average) = after_a_step(&half().on("**", policy.clone()), 4);
        assert_eq!(average.module().constants(), live.constants());
        let error = half().on("mask", policy).init(&Tower::new(4)).unwrap_err().to_string();
        assert!(error.contains("is `mask`, which matches none to average"), "{error}");
    }
    let config = half().on("counts", Policy::Copy).on("mask", Policy::Copy);
    let (_, live, average) = after_a_step(&config, 4);
    assert_eq!(average.module().constants(), live.constants());
    assert_eq!(average.module_as_kept().constants(), live.constants());
    let (start, live, average) = after_a_step(&half(), 4);
    assert_ne!(start.constants(), live.constants());
    assert_eq!(average.module().constants(), live.constants(), "without a policy too");
    for policy in [Policy::Freeze, Policy::LeaveOut] {
        let config = half().on("counts", policy.clone()).on("mask", policy.clone());
        let (start, live, average) = after_a_step(&config, 4);
        assert_eq!(average.module().constants(), start.constants());
        let like = average.module_like(&live).unwrap().constants();
        let expected = if policy == Policy::Freeze { start } else { live };
        assert_eq!(like, expected.constants());
    }
}

/// Frozen is what live was at the start of the average, which need not be step 0.
#[test]
fn a_frozen_parameter_is_that_of_the_start() {
    let config = half().with_start(3).on("head.*", Policy::Freeze);
    let mut average = config.init(&Tower::new(0)).unwrap();
    for step in 1..=6 {
        average.update(&Tower::new(step), step).unwrap();
        let expected = of(&Tower::new(step.min(3)), "head.weight");
        assert_eq!(of(&average.module(), "head.weight"), expected, "step {step}");
    }
}

/// Burn's own freezing says what an optimizer moves, not what is averaged; and what is handed out
/// trains as live does.
#[test]
fn adapters_and_untrained_parameters_are_averaged() {
    for seed in 0..2 {
        let plain = Net::new(seed, &device())
            .freeze_group(ParamGroup::from_paths(vec!["first.weight", "norm.beta"]));
        let lora = Net::new(seed, &device()).apply_lora(Lora::new(2, 2.0));
        // Not where LoRA starts: an adapter that adds nothing would not be missed.
        for start in [plain, lora].map(|net| randomized(net, seed + 3)) {
            let moved = randomized(start.valid(), seed + 7);
            let mut average = AverageConfig::new(Rule::ema(0.75)).init(&start).unwrap();
            average.update(&moved, 1).unwrap();
            let mut expected = flat(&start, false);
            lerp(&mut expected, &flat(&moved, false), 0.25);
            let module = average.module();
            assert_same(&flat(&module, false), &expected);
            assert_eq!(floats(&module).len(), floats(&start).len(), "adapters are there");
            let trained = |net: Net| {
                let net = net.train();
                [&net.first.weight, &net.last.weight].map(|weight| weight.base().is_require_grad())
            };
            assert_eq!(trained(module), trained(start));
        }
    }
}

//! Which weight goes into which average.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::Tensor,
};
use burn_ema::{AverageConfig, Error, Policy, Rule};

use crate::{
    average::Pair,
    common::{Net, assert_same, device, flat, floats, lerp},
};

/// The parameters that train, in the order in which the module shows them.
fn trainable(module: &Pair) -> Vec<f32> {
    struct Trainable(Vec<f32>);
    impl ModuleVisitor for Trainable {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.val().is_require_grad() {
                self.0.push(param.val().into_scalar());
            }
        }
    }
    let mut found = Trainable(Vec::new());
    module.visit(&mut found);
    found.0
}

/// As PyTorch's AveragedModel, ema-pytorch and diffusers have it: the shadow's list beside
/// live's, pair after pair, to the end of the shorter one.
fn zipped(shadow: &mut [f32], live: &[f32]) {
    shadow.iter_mut().zip(live).for_each(|(a, w)| *a += 0.5 * (w - *a));
}

fn training(values: [f32; 2], b_first: bool) -> Pair {
    Pair::new(values, b_first).to_device(&device().autodiff()).train()
}

/// What live becomes in the course of a training: its order turned, or `a` frozen.
fn changes(values: [f32; 2]) -> [Pair; 2] {
    let frozen = training(values, false);
    let frozen = Pair { a: frozen.a.set_require_grad(false), ..frozen };
    [training(values, true), frozen]
}

/// Values of `b` that differ from those of `a` by much, so that a mix of both shows.
fn values(seed: u8) -> ([f32; 2], [f32; 2]) {
    let seed = f32::from(seed);
    ([0.1 + seed, 100.0 + seed], [0.3 + seed, 101.0 - seed])
}

#[test]
fn a_zip_of_two_lists_mixes_weights_of_different_parameters() {
    for seed in 0..4 {
        let (start, later) = values(seed);
        for live in changes(later) {
            let mut shadow = trainable(&training(start, false));
            assert_eq!(shadow, start);
            zipped(&mut shadow, &trainable(&live));
            assert!(shadow[0] > 40.0, "the average of small numbers is {}", shadow[0]);
        }
    }
}

#[test]
fn an_average_pairs_by_path_whatever_the_order_and_whatever_is_frozen() {
    for seed in 0..4 {
        let (start, later) = values(seed);
        for (case, live) in changes(later).into_iter().enumerate() {
            let mut average =
                AverageConfig::new(Rule::ema(0.5)).init(&training(start, false)).unwrap();
            let mut expected = start.map(f64::from);
            for step in 1..=3 {
                average.update(&live, step).unwrap();
                lerp(&mut expected, &later.map(f64::from), 0.5);
            }
            let module = average.module();
            let found =
                [module.a, module.b].map(|param| f64::from(param.val().into_scalar::<f32>()));
            assert_same(&found, &expected);
            assert_eq!(trainable(&live).len(), 2 - case, "else nothing was frozen");
        }
    }
}

/// As shadows that are keyed by name have it: a name that is not there is passed over.
fn keyed(shadow: &mut BTreeMap<String, Vec<f64>>, live: &BTreeMap<String, Vec<f64>>) {
    for (name, live) in live {
        if let Some(shadow) = shadow.get_mut(name) {
            lerp(shadow, live, 0.5);
        }
    }
}

/// A module that a compiler may have wrapped, as `torch.compile` does: the same weights under
/// other names.
#[derive(Module, Debug)]
enum Wrapped {
    Plain(Net),
    Compiled(Compiled),
}

#[derive(Module, Debug)]
struct Compiled {
    _orig_mod: Net,
}

impl Wrapped {
    fn plain(seed: u64) -> Self {
        Self::Plain(Net::new(seed, &device()))
    }

    fn compiled(seed: u64) -> Self {
        Self::Compiled(Compiled { _orig_mod: Net::new(seed, &device()) })
    }
}

#[test]
fn a_shadow_that_passes_over_unknown_names_never_moves() {
    for seed in 0..3 {
        let named = |module: &Wrapped| -> BTreeMap<_, _> {
            floats(module).into_iter().map(|(path, _, values)| (path, values)).collect()
        };
        let start = named(&Wrapped::plain(seed));
        let mut shadow = start.clone();
        for step in 1..100 {
            keyed(&mut shadow, &named(&Wrapped::compiled(seed + step)));
        }
        assert_eq!(shadow, start, "without an error");
        keyed(&mut shadow, &named(&Wrapped::plain(seed + 1)));
        assert_ne!(shadow, start);
    }
}

#[test]
fn changed_names_are_an_error_by_path() {
    for seed in 0..3 {
        let config = AverageConfig::new(Rule::ema(0.5));
        let mut average = config.init(&Wrapped::plain(seed)).unwrap();
        let before = flat(&average.module(), true);
        let error = average.update(&Wrapped::compiled(seed + 1), 1).unwrap_err();
        let Error::Parameter { path, found, .. } = &error else { panic!("{error}") };
        assert!(path.ends_with("first.weight") && found == "no parameter of this path", "{error}");
        assert_eq!(flat(&average.module(), true), before);
        assert_eq!(average.last_step(), 0);

        // The same on resume: a record of the plain module for an average of the compiled one.
        let fresh = config.init(&Wrapped::compiled(seed)).unwrap();
        let error = fresh.try_load_record(average.into_record()).unwrap_err().to_string();
        assert!(error.contains("_orig_mod.first"), "{error}");
    }
}

#[test]
fn a_glob_that_matches_nothing_is_an_error() {
    let module = Wrapped::compiled(0);
    let on = |glob: &str| AverageConfig::new(Rule::ema(0.5)).on(glob, Policy::Copy).init(&module);
    on("**.first.*").unwrap();
    for glob in ["first.*", "module.**", "**.frist.weight", "**.weigth"] {
        let error = on(glob).unwrap_err().to_string();
        assert!(error.contains(&format!("`{glob}`, which matches none")), "{error}");
        assert!(error.contains("_orig_mod.first.weight"), "it says what there is: {error}");
    }
}

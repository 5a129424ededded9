//! Optimizers of one pass against Burn's of the same names: weights, records, memory.

#[cfg(not(any(feature = "portable", feature = "wgpu")))]
mod in_place; // where the numbers of a step lie before and after it

use burn::{
    grad_clipping::GradientClippingConfig,
    lr_scheduler::constant::ConstantLr,
    module::{Param, ParamId},
    optim::{
        GradientsParams, ModuleOptimizer, OptimizerRecord, decay::WeightDecayConfig,
        momentum::MomentumConfig,
    },
    tensor::{DType, Device, Tensor, TensorData},
};
use burn_ema::{
    AverageConfig, Rule,
    fast::{AdamConfig, AdamWConfig, SgdConfig},
    runs::{CommitConfig, fit},
    train::Averaged,
};
use burn_pack::Reader;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Serialize, de::DeserializeOwned};

use crate::common::{Net, Plan, assert_close, assert_same, device, flat, kinds};

/// Parameters and nothing else.
type Parameters = Vec<Param<Tensor<2>>>;

/// One configuration, for our optimizer and for Burn's.
struct Pair {
    name: &'static str,
    ours: ModuleOptimizer,
    burns: ModuleOptimizer,
}

/// Burn's configuration of the same fields.
fn burns<Ours: Serialize, Burns: DeserializeOwned>(ours: &Ours) -> Burns {
    serde_json::from_value(serde_json::to_value(ours).unwrap()).unwrap()
}

fn sgd(name: &'static str, config: SgdConfig) -> Pair {
    let burns: burn::optim::SgdConfig = burns(&config);
    Pair { name, ours: config.init(), burns: burns.init() }
}

fn adam(name: &'static str, config: AdamConfig) -> Pair {
    let burns: burn::optim::AdamConfig = burns(&config);
    Pair { name, ours: config.init(), burns: burns.init() }
}

fn adam_w(name: &'static str, config: AdamWConfig) -> Pair {
    let burns: burn::optim::AdamWConfig = burns(&config);
    Pair { name, ours: config.init(), burns: burns.init() }
}

/// Every branch of the optimizers.
fn pairs() -> Vec<Pair> {
    let decay = Some(WeightDecayConfig { penalty: 0.03 });
    let momentum = MomentumConfig { momentum: 0.8, dampening: 0.3, nesterov: false };
    let nesterov = MomentumConfig { nesterov: true, ..momentum.clone() };
    let clipping = Some(GradientClippingConfig::Norm(0.5));
    vec![
        sgd("sgd", SgdConfig::new()),
        sgd("sgd, decay", SgdConfig::new().with_weight_decay(decay.clone())),
        sgd("sgd, momentum", SgdConfig::new().with_momentum(Some(momentum))),
        sgd(
            "sgd, everything",
            SgdConfig::new()
                .with_weight_decay(decay.clone())
                .with_momentum(Some(nesterov))
                .with_gradient_clipping(clipping.clone()),
        ),
        adam("adam", AdamConfig::new()),
        adam("adam, amsgrad", AdamConfig::new().with_amsgrad(true)),
        adam(
            "adam, everything",
            AdamConfig::new()
                .with_beta_1(0.5)
                .with_beta_2(0.7)
                .with_epsilon(1e-3)
                .with_weight_decay(decay)
                .with_grad_clipping(clipping.clone()),
        ),
        adam_w("adamw", AdamWConfig::new()),
        adam_w("adamw, no decay", AdamWConfig::new().with_weight_decay(0.0)),
        adam_w("adamw, amsgrad", AdamWConfig::new().with_amsgrad(true)),
        adam_w("adamw, cautious", AdamWConfig::new().with_cautious_weight_decay(true)),
        adam_w(
            "adamw, everything",
            AdamWConfig::new()
                .with_beta_1(0.5)
                .with_beta_2(0.7)
                .with_epsilon(1e-3)
                .with_weight_decay(0.4)
                .with_grad_clipping(clipping),
        ),
    ]
}

/// Numbers in (-1, 1), zeros of both signs at the same places of every draw; a view where asked.
fn drawn(shape: [usize; 2], transposed: bool, rng: &mut ChaCha8Rng, like: &Like) -> Tensor<2> {
    let mut number = |index| match index % 14 {
        0 => -0.0,
        7 => 0.0,
        _ => rng.random_range(-1.0..1.0),
    };
    let numbers: Vec<f64> = (0..shape[0] * shape[1]).map(&mut number).collect();
    let [rows, columns] = shape;
    let (device, dtype) = like;
    let tensor = |shape| Tensor::from_data(TensorData::new(numbers, shape), (device, *dtype));
    if transposed { tensor([columns, rows]).transpose() } else { tensor([rows, columns]) }
}

type Like = (Device, DType);

const SHAPES: [[usize; 2]; 6] = [[0, 3], [1, 1], [3, 7], [31, 67], [7, 2], [1, 2100]];

fn parameters(shapes: &[[usize; 2]], seed: u64, like: &Like) -> Parameters {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let parameter = |(index, &shape): (usize, _)| {
        let tensor = drawn(shape, index % 4 == 2, &mut rng, like);
        Param::initialized(ParamId::from(index as u64 + 1), Tensor::from_inner(tensor))
    };
    shapes.iter().enumerate().map(parameter).collect()
}

fn gradients(model: &Parameters, seed: u64, like: &Like) -> GradientsParams {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut gradients = GradientsParams::new();
    for (index, parameter) in model.iter().enumerate() {
        let gradient = drawn(parameter.val().dims(), index % 2 == 1, &mut rng, like);
        gradients.register(parameter.id, gradient);
    }
    gradients
}

/// What of a step is also held by someone else, which is then not changed in place.
#[derive(Clone, Copy, Debug)]
enum Held {
    Nothing,
    Weights,
    /// Weights and gradients.
    Inputs,
    /// As Burn's Learner and a guarded [`Averaged`] do.
    WeightsAndMoments,
    Everything,
}

const HELD: [Held; 5] =
    [Held::Nothing, Held::Weights, Held::Inputs, Held::WeightsAndMoments, Held::Everything];

/// Steps with a learning rate that changes; what else is held stays as it is.
fn train(
    mut model: Parameters,
    optimizer: &mut ModuleOptimizer,
    steps: std::ops::Range<u64>,
    seed: u64,
    held: Held,
    like: &Like,
) -> Parameters {
    for step in steps {
        let gradients = gradients(&model, 100 * seed + step, like);
        let of = |parameter: &Param<Tensor<2>>| gradients.get::<2>(parameter.id).unwrap();
        let weights = (!matches!(held, Held::Nothing)).then(|| model.clone());
        let inputs = matches!(held, Held::Inputs | Held::Everything);
        let inputs: Vec<_> = model.iter().filter(|_| inputs).map(of).collect();
        let moments = matches!(held, Held::WeightsAndMoments | Held::Everything);
        let moments = moments.then(|| optimizer.clone());
        let numbers = || {
            let inputs = inputs.iter().map(Tensor::to_data).collect::<Vec<_>>();
            let weights = weights.as_ref().map(|weights| flat(weights, true));
            (weights, inputs, moments.as_ref().map(record))
        };
        let before = numbers();
        model = optimizer.step(0.1 / (1.0 + step as f64), model, gradients);
        assert_eq!(numbers(), before, "what others hold has changed");
    }
    model
}

/// An optimizer's record: names, what stands there, and the numbers.
fn record(optimizer: &ModuleOptimizer) -> Vec<(String, String, Vec<f64>)> {
    let reader = Reader::from_bytes(optimizer.to_record().into_bytes().unwrap()).unwrap();
    let (scalars, paths) = (reader.scalars().clone(), reader.metadata().clone());
    let scalars = scalars.into_iter().map(|(name, scalar)| (name, format!("{scalar:?}"), vec![]));
    let paths = paths.into_iter().map(|(id, path)| (id, path, vec![]));
    let tensors = reader.into_tensors().unwrap().into_iter().map(|tensor| {
        let what = format!("{:?} {:?} {:?}", tensor.dtype, tensor.shape, tensor.param_id);
        let data =
            TensorData::from_bytes(tensor.to_bytes().unwrap(), tensor.shape.clone(), tensor.dtype);
        (tensor.name.clone(), what, data.convert::<f64>().try_into_vec().unwrap())
    });
    let mut entries: Vec<_> = scalars.chain(paths).chain(tensors).collect();
    entries.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    entries
}

#[track_caller]
fn assert_same_records(one: &ModuleOptimizer, other: &ModuleOptimizer) {
    let [one, other] = [one, other].map(record);
    assert_eq!(one.len(), other.len());
    for ((name, what, numbers), (other_name, other_what, others)) in one.iter().zip(&other) {
        assert_eq!((name, what), (other_name, other_what));
        assert_same(numbers, others);
    }
}

#[test]
fn configurations_are_burns() {
    let text = |text: String| text.replace(' ', "");
    let ours = [
        SgdConfig::new().to_string(),
        AdamConfig::new().to_string(),
        AdamWConfig::new().to_string(),
    ];
    let burns = [
        burn::optim::SgdConfig::new().to_string(),
        burn::optim::AdamConfig::new().to_string(),
        burn::optim::AdamWConfig::new().to_string(),
    ];
    assert_eq!(ours.map(text), burns.map(text));
}

#[test]
fn steps_are_burns_whoever_holds_what() {
    for (device, dtype, _) in kinds() {
        let like = (device, dtype);
        for seed in 1..4 {
            for held in HELD {
                for Pair { name, mut ours, mut burns } in pairs() {
                    println!("{name}, seed {seed}, {held:?}, {like:?}");
                    let start = || parameters(&SHAPES, seed, &like);
                    let found = train(start(), &mut ours, 0..4, seed, held, &like);
                    let expected = train(start(), &mut burns, 0..4, seed, Held::Nothing, &like);
                    assert_same(&flat(&found, true), &flat(&expected, true));
                    assert_same_records(&ours, &burns);
                }
            }
        }
    }
}

/// More numbers than one thread takes, and not a multiple of a block.
#[test]
fn steps_on_threads_are_burns_for_any_number_of_them() {
    let shape = [[777, 701]];
    let plans = [
        ("sgd", Held::Nothing),
        ("sgd, everything", Held::WeightsAndMoments),
        ("adam", Held::Everything),
        ("adamw", Held::Nothing),
    ];
    for (device, dtype, _) in kinds().into_iter().filter(|(_, dtype, _)| *dtype == DType::F32) {
        let like = (device, dtype);
        for (seed, (name, held)) in (1..).zip(plans) {
            println!("{name}, {held:?}, {like:?}");
            let Pair { ours, mut burns, .. } =
                pairs().into_iter().find(|p| p.name == name).unwrap();
            let start = || parameters(&shape, seed, &like);
            let expected = train(start(), &mut burns, 0..2, seed, Held::Nothing, &like);
            for threads in [1, 3] {
                let mut ours = ours.clone();
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let step = || train(start(), &mut ours, 0..2, seed, held, &like);
                let found = pool.build().unwrap().install(step);
                assert_same(&flat(&found, true), &flat(&expected, true));
                assert_same_records(&ours, &burns);
            }
        }
    }
}

/// A training goes on under the other optimizer as if nothing had changed.
#[test]
fn records_are_burns_both_ways() {
    let like = (device(), DType::F32);
    for seed in 1..4 {
        for Pair { name, ours, burns } in pairs() {
            println!("{name}, seed {seed}");
            let start = || parameters(&SHAPES, seed, &like);
            let mut whole = burns.clone();
            let expected = train(start(), &mut whole, 0..8, seed, Held::Nothing, &like);
            for order in [[&ours, &burns, &ours], [&burns, &ours, &burns]] {
                let (mut model, mut record) = (start(), OptimizerRecord::default());
                let mut last = None;
                for (optimizer, steps) in order.into_iter().zip([0..3, 3..5, 5..8]) {
                    let mut optimizer = optimizer.clone().load_record(record);
                    model = train(model, &mut optimizer, steps, seed, Held::Nothing, &like);
                    record = optimizer.to_record();
                    last = Some(optimizer);
                }
                assert_same(&flat(&model, true), &flat(&expected, true));
                assert_same_records(&last.unwrap(), &whole);
            }
        }
    }
}

/// A state moves with its parameter.
#[test]
#[cfg(feature = "ndarray")]
fn a_state_follows_to_another_device() {
    use burn::module::Module as _;

    let [first, .., second] =
        &kinds().into_iter().map(|(d, ..)| (d, DType::F32)).collect::<Vec<_>>()[..]
    else {
        panic!("two devices")
    };
    for Pair { name, ours, burns } in pairs() {
        println!("{name}");
        let [found, expected] = [ours, burns].map(|mut optimizer| {
            let start = parameters(&SHAPES, 5, first);
            let model = train(start, &mut optimizer, 0..2, 5, Held::Nothing, first);
            let model = model.to_device(&second.0);
            (train(model, &mut optimizer, 2..4, 5, Held::Nothing, second), optimizer)
        });
        assert_eq!(found.0[1].val().inner().device(), second.0);
        assert_same(&flat(&found.0, true), &flat(&expected.0, true));
        assert_same_records(&found.1, &expected.1);
    }
}

/// Half precision is not for one pass; Burn's operations are.
#[test]
#[cfg(not(feature = "wgpu"))]
fn other_dtypes_take_burns_way() {
    let like = (device(), DType::F16);
    for Pair { name, mut ours, mut burns } in pairs() {
        println!("{name}");
        let start = || parameters(&SHAPES[1..], 6, &like);
        let found = train(start(), &mut ours, 0..4, 6, Held::Nothing, &like);
        let expected = train(start(), &mut burns, 0..4, 6, Held::Nothing, &like);
        assert_same(&flat(&found, true), &flat(&expected, true));
    }
}

#[test]
fn a_nan_and_an_infinity_go_where_burns_go() {
    let like = (device(), DType::F32);
    for Pair { name, ours, burns } in pairs().into_iter().filter(|p| !p.name.contains("every")) {
        let [found, expected] = [ours, burns].map(|mut optimizer| {
            let mut model = parameters(&[[1, 6]], 8, &like);
            let data = [[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, 0.0, -1.0]];
            for _ in 0..2 {
                let mut gradients = GradientsParams::new();
                gradients.register(model[0].id, Tensor::<2>::from_data(data, &like.0));
                model = optimizer.step(0.1, model, gradients);
            }
            flat(&model, true)
        });
        // Which NaN it is, no one says.
        let what = |x: &f64| if x.is_nan() { "NaN".to_owned() } else { format!("{x:?}") };
        let what = |numbers: Vec<f64>| numbers.iter().map(what).collect::<Vec<_>>();
        let (found, expected) = (what(found), what(expected));
        assert_eq!(found[0], "NaN", "{name}");
        assert_eq!(found, expected, "{name}");
    }
}

/// Algorithm 1 of Kingma and Ba, by hand: means without the form that saves a division.
#[test]
fn adam_is_the_published_one() {
    for (device, dtype, tolerance) in kinds() {
        let like = (device, dtype);
        let config = AdamConfig::new().with_beta_1(0.75).with_beta_2(0.875).with_epsilon(0.0);
        for seed in 1..4 {
            let mut optimizer = config.init();
            let mut model = parameters(&[[5, 3]], seed, &like);
            let mut weights = flat(&model, true);
            let mut means = vec![(0.0, 0.0); weights.len()];
            for step in 1..6 {
                let mut gradients = gradients(&model, seed + step, &like);
                let id = model[0].id;
                // Without zeros, by which would be divided.
                let gradient = gradients.remove::<2>(id).unwrap().add_scalar(2.0);
                let numbers = gradient.to_data().convert::<f64>().try_into_vec::<f64>().unwrap();
                gradients.register(id, gradient);
                model = optimizer.step(0.25, model, gradients);
                for ((weight, (first, second)), g) in
                    weights.iter_mut().zip(&mut means).zip(numbers)
                {
                    *first = 0.75 * *first + 0.25 * g;
                    *second = 0.875 * *second + 0.125 * g * g;
                    let first = *first / (1.0 - 0.75f64.powi(step as i32));
                    let second = *second / (1.0 - 0.875f64.powi(step as i32));
                    *weight -= 0.25 * first / second.sqrt();
                }
                // Burn corrects the means by numbers of single precision.
                assert_close(&flat(&model, true), &weights, tolerance.max(3e-7));
            }
        }
    }
}

/// Commits keep and check the state of these optimizers, and a training goes on with it; also under
/// Burn's of the same name.
#[test]
fn commits_resume_and_change_the_optimizer() {
    for Pair { name, ours, burns } in pairs().into_iter().filter(|p| !p.name.contains("amsgrad")) {
        let directory = tempfile::tempdir().unwrap();
        let launch = |run: &str, epochs, optimizer: &ModuleOptimizer| {
            let plan = Plan { epochs, ..Plan::new(&directory.path().join(run)) };
            let averages = [AverageConfig::new(Rule::ema(0.9))];
            let model = Averaged::new(Net::new(2, &device()), averages).unwrap();
            let lr = ConstantLr::new(0.02);
            let training = fit(plan.training(), model, optimizer.clone(), lr);
            let commits = CommitConfig::new(&plan.directory);
            let fit = training.with_commits(commits).unwrap().resume().unwrap();
            let model = fit.launch().unwrap().model;
            [flat(model.live(), true), flat(&model.average(0).unwrap(), true)].concat()
        };
        let whole = launch("whole", 3, &burns);
        launch("parts", 1, &ours);
        launch("parts", 2, &burns);
        println!("{name}");
        assert_same(&launch("parts", 3, &ours), &whole);
    }
}

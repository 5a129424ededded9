//! The correlation of the weights of merged files.

use burn_ema::export::merge::Alike;

use super::*;
use crate::export::Every;

/// Draws every number of a module, or adds a share of what is drawn.
struct Noise(ChaCha8Rng, f32);

impl burn::module::ModuleMapper for Noise {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Self(random, share) = self;
        param.map(|tensor| {
            let draw = |x: f32| x + *share * (random.random::<f32>() - 0.5);
            let numbers: Vec<_> = tensor.to_data().iter().map(draw).collect();
            Tensor::from_data(TensorData::new(numbers, tensor.shape()), &tensor.device())
                .set_require_grad(tensor.is_require_grad())
        })
    }
}

/// A perceptron whose first weights are those of a seed.
fn start(sizes: &[usize], seed: u64) -> Mlp {
    let zeros = MlpConfig::new(sizes.to_vec()).init(&device()).unwrap();
    let zeros = zeros.map(&mut Zeros);
    zeros.map(&mut Noise(ChaCha8Rng::seed_from_u64(seed), 1.0))
}

struct Zeros;

impl burn::module::ModuleMapper for Zeros {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.zeros_like().set_require_grad(tensor.is_require_grad()))
    }
}

fn tuned(base: &Mlp, seed: u64, share: f32) -> Mlp {
    base.clone().map(&mut Noise(ChaCha8Rng::seed_from_u64(seed), share))
}

/// Pearson's correlation of each matrix of two perceptrons, and of these the mean.
fn expected(one: &Mlp, other: &Mlp) -> f64 {
    let matrices = |mlp: &Mlp| -> Vec<Vec<f64>> {
        let all = floats(mlp).into_iter().filter(|(path, ..)| path.ends_with("weight"));
        all.map(|(.., numbers)| numbers).collect()
    };
    let pearson = |(a, b): (Vec<f64>, Vec<f64>)| {
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let (at, bt) = (mean(&a), mean(&b));
        let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
            a.iter().zip(&b).map(|(a, b)| f(a - at, b - bt)).sum()
        };
        sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
    };
    let pairs: Vec<_> = matrices(one).into_iter().zip(matrices(other)).collect();
    let count = pairs.len() as f64;
    pairs.into_iter().map(pearson).sum::<f64>() / count
}

fn merged_mlps(mlps: &[Mlp], weights: &[f64], form: &Form) -> (Merged<Mlp>, Vec<PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let paths: Vec<_> = mlps
        .iter()
        .enumerate()
        .map(|(index, mlp)| written(directory.path(), &index.to_string(), mlp, form))
        .collect();
    let merge = Merge::new(&paths).with_weights(Shares::Given(weights.to_vec()));
    (merge.load(&mlps[0]).unwrap(), paths)
}

/// The closed form where every number is compared, and near it where some are.
#[test]
fn the_least_correlation_is_pearsons() {
    for (sizes, tolerance) in [(&[6, 9, 4][..], 1e-12), (&[60, 80, 70], 0.07)] {
        let base = start(sizes, 1);
        let mlps = [tuned(&base, 2, 0.1), tuned(&base, 3, 1.0), start(sizes, 4), base.clone()];
        for form in FORMS {
            let pairs = [(0, 1, 0.7), (0, 2, 0.0), (1, 3, 0.7)];
            for (one, other, about) in pairs {
                let both = [mlps[one].clone(), mlps[other].clone()];
                let (made, paths) = merged_mlps(&both, &[0.5, 0.5], &form());
                let Alike { files, correlation, .. } = made.least_alike.unwrap();
                assert_eq!(files[..], paths);
                let exact = expected(&both[0], &both[1]);
                assert!((correlation - exact).abs() < tolerance, "{correlation} for {exact}");
                assert!((exact - about).abs() < 0.25, "{exact} {about}");
                let is_noted = made.notes.iter().any(|it| it.contains("a correlation of weights"));
                assert_eq!(is_noted, about == 0.0, "{exact} {:?}", made.notes);
            }
        }
    }
}

/// One unrelated file among many is found, whatever its weight, unless it has none.
#[test]
fn the_least_pair_is_that_of_the_unrelated_file() {
    let base = start(&[20, 30, 10], 1);
    let mut mlps: Vec<_> = (2..9).map(|seed| tuned(&base, seed, 0.3)).collect();
    mlps.push(start(&[20, 30, 10], 10));
    let equal = vec![1.0 / 8.0; 8];
    let (made, paths) = merged_mlps(&mlps, &equal, &Form::Burnpack);
    let Alike { files, correlation, .. } = made.least_alike.unwrap();
    assert!(files[1] == paths[7] && correlation < 0.15, "{files:?} {correlation}");
    assert_eq!(made.notes.len(), 1);
    let start = format!("{} and {} have a correlation", files[0].display(), files[1].display());
    assert!(made.notes[0].starts_with(&start), "{:?}", made.notes);
    // Without a weight it is no part of the merge, and not read.
    let weights: Vec<_> = (0..8).map(|index| if index == 7 { 0.0 } else { 1.0 / 7.0 }).collect();
    let (made, _) = merged_mlps(&mlps, &weights, &Form::Burnpack);
    let Alike { correlation, .. } = made.least_alike.unwrap();
    assert!(correlation > 0.9 && made.notes.len() == 1, "{correlation} {:?}", made.notes);
    // A greedy merge of one file has no pair.
    let directory = tempfile::tempdir().unwrap();
    let paths = [0, 7].map(|index: usize| {
        written(directory.path(), &index.to_string(), &mlps[index], &Form::Burnpack)
    });
    let mut scores = [2.0, 1.0, 0.0].into_iter();
    let greedy = Merge::new(&paths).greedy(&mlps[0], |_| Ok::<_, Error>(scores.next().unwrap()));
    let merged = greedy.unwrap().merged;
    assert!(merged.least_alike.is_none() && merged.notes.is_empty(), "{:?}", merged.notes);
}

/// Vectors, and tensors of equal numbers, have no correlation that shows anything.
#[test]
fn files_without_matrices_have_no_correlation() {
    let numbers = drawn(3, 40, 11);
    let made = merged(&numbers, Shares::Equal, DType::F32);
    assert!(made.least_alike.is_none() && made.notes.is_empty(), "{:?}", made.notes);
    let zeros = start(&[4, 3, 2], 1).map(&mut Zeros);
    let (made, _) = merged_mlps(&[zeros, start(&[4, 3, 2], 2)], &[0.5, 0.5], &Form::Burnpack);
    assert!(made.least_alike.is_none() && made.notes.is_empty(), "{:?}", made.notes);
    // Copies are 1, in every dtype.
    let directory = tempfile::tempdir().unwrap();
    for dtype in
        [DType::F32, DType::F64, DType::F16].into_iter().filter(|it| EXACT || *it == DType::F32)
    {
        let module = cast(Every::new(3), dtype);
        let name = dtype.name();
        let paths = ["a", "b"]
            .map(|it| written(directory.path(), &format!("{it}-{name}"), &module, &Form::Burnpack));
        let made = Merge::new(&paths).load(&module).unwrap();
        assert_close(&[made.least_alike.unwrap().correlation], &[1.0], 1e-12);
    }
}

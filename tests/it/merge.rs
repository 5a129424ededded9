//! Merges of saved models: against closed forms, of every form, what is refused, memory.

mod alike; // the correlation of the files' weights
#[cfg(unix)]
mod program; // the example
mod runs; // commits and snapshots, merged

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::{
    module::{Module, Param, ParamId},
    tensor::{Bool, DType, Int, Tensor, TensorData},
};
use burn_ema::{
    Error, Rule,
    average::Description,
    export::{
        self, Contents, Form, LoadOptions,
        merge::{Buffers, Decay, Merge, Merged, Weights as Shares},
    },
    model::{Mlp, MlpConfig},
};
use burn_ema_base::digest::sha256;
use half::{bf16, f16};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    common::{EXACT, Net, Weights, assert_close, device, flat, floats},
    export::{Every, oracle, record},
    hand::cast,
};

const FORMS: [fn() -> Form; 3] = [|| Form::Burnpack, || Form::Safetensors, Form::torch];

/// Writes a module as `NAME` with the extension of the form, and returns the path.
fn written<M: Module>(directory: &Path, name: &str, module: &M, form: &Form) -> PathBuf {
    let extension = if *form == Form::Burnpack { "bpk" } else { "safetensors" };
    let path = directory.join(name).with_extension(extension);
    export::save(module, &path, form, &Description::new("live", 7, "a test")).unwrap();
    path
}

/// The error with all its causes.
#[track_caller]
fn why<T>(result: Result<T, Error>) -> String {
    let error = result.err().expect("an error");
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Numbers of some files, none near another.
fn drawn(files: usize, numbers: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = || (0..numbers).map(|_| 4.0 * random.random::<f64>() - 2.0).collect();
    (0..files).map(|_| draw()).collect()
}

/// Files that hold these numbers in a dtype.
fn files(directory: &Path, numbers: &[Vec<f64>], dtype: DType) -> Vec<PathBuf> {
    let each = numbers.iter().enumerate().map(|(index, numbers)| {
        let module = Weights::new(numbers, dtype, &device());
        written(directory, &format!("{index}"), &module, &FORMS[index % 2]())
    });
    each.collect()
}

/// The numbers of a merge of files of these numbers.
fn merged(numbers: &[Vec<f64>], shares: Shares, dtype: DType) -> Merged<Weights> {
    let directory = tempfile::tempdir().unwrap();
    let files = files(directory.path(), numbers, dtype);
    let module = Weights::new(&vec![0.0; numbers[0].len()], dtype, &device());
    Merge::new(files).with_weights(shares).load(&module).unwrap()
}

fn weighted(numbers: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let sum = |index: usize| numbers.iter().zip(weights).map(|(x, w)| w * x[index]).sum();
    (0..numbers[0].len()).map(sum).collect()
}

/// Five files, merged by all kinds of weights, against sums written out.
#[test]
fn sums_are_those_of_the_closed_forms() {
    let cosine = |x: f64| (1.0 + (std::f64::consts::PI * x).cos()) / 2.0;
    let of_decay = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
        (0..5).map(|j| f(f64::from(j) / 5.0) - f(f64::from(j + 1) / 5.0)).collect()
    };
    let given = vec![0.1, 0.2, 0.3, 0.25, 0.15];
    let cases = [
        (Shares::Equal, vec![0.2; 5]),
        (Shares::Given(given.clone()), given),
        (Shares::Given(vec![2.0, -0.5, 0.0, -1.5, 1.0]), vec![2.0, -0.5, 0.0, -1.5, 1.0]),
        // The first file is the start.
        (Shares::Rule(Rule::ema(0.9)), {
            let mut weights: Vec<_> = (1..5).map(|t| 0.1 * 0.9_f64.powi(4 - t)).collect();
            weights.insert(0, 0.9_f64.powi(4));
            weights
        }),
        (Shares::Rule(Rule::debiased(0.9)), {
            let weight = |t| 0.1 * 0.9_f64.powi(5 - t) / (1.0 - 0.9_f64.powi(5));
            (1..=5).map(weight).collect()
        }),
        (Shares::Rule(Rule::Equal), vec![0.2; 5]),
        (Shares::Rule(Rule::lawa(2, 1)), vec![0.0, 0.0, 0.0, 0.5, 0.5]),
        // Updates at the steps 2 and 4 alone; none, so that the start stays.
        (Shares::Rule(Rule::copy(2)), vec![0.0, 0.0, 0.0, 1.0, 0.0]),
        (Shares::Rule(Rule::copy(6)), vec![1.0, 0.0, 0.0, 0.0, 0.0]),
        (Shares::Rule(Rule::PowerFunctionGamma { gamma: 1.0 }), {
            (1..=5).map(|t| f64::from(2 * t - 1) / 25.0).collect()
        }),
        (Shares::Decay(Decay::Linear), vec![0.2; 5]),
        (Shares::Decay(Decay::Sqrt), of_decay(&|x| 1.0 - x.sqrt())),
        (Shares::Decay(Decay::Cosine), of_decay(&cosine)),
        (Shares::TaskArithmetic { scale: 0.4 }, vec![-0.6, 0.4, 0.4, 0.4, 0.4]),
        (Shares::TaskArithmetic { scale: -0.3 }, vec![2.2, -0.3, -0.3, -0.3, -0.3]),
    ];
    let numbers = drawn(5, 40, 1);
    for (shares, weights) in cases {
        let found = shares.of(5).unwrap();
        assert_close(&found, &weights, 1e-15);
        if EXACT {
            let wide = merged(&numbers, shares.clone(), DType::F64);
            assert_close(&flat(&wide.module, true), &weighted(&numbers, &weights), 1e-12);
        }
        let single: Vec<Vec<_>> = numbers
            .iter()
            .map(|file| file.iter().map(|x| f64::from(*x as f32)).collect())
            .collect();
        let narrow = merged(&single, shares.clone(), DType::F32);
        // One rounding of a sum that may differ in its last bits, where a tie is broken.
        for (found, sum) in flat(&narrow.module, true).into_iter().zip(weighted(&single, &weights))
        {
            let near = [sum - 4e-15, sum + 4e-15].map(|sum| f64::from(sum as f32));
            assert!(near.contains(&found), "{shares}: {found} for {sum}");
        }
    }
}

/// Task arithmetic as it is written: the base and the sum of the differences from it.
#[test]
fn task_arithmetic_adds_differences_to_the_base() {
    let numbers = drawn(4, 30, 2);
    let found = merged(&numbers, Shares::TaskArithmetic { scale: 0.7 }, DType::F32);
    let number = |index: usize| {
        let base = numbers[0][index];
        base + 0.7 * numbers[1..].iter().map(|file| file[index] - base).sum::<f64>()
    };
    assert_close(&flat(&found.module, true), &(0..30).map(number).collect::<Vec<_>>(), 1e-6);
}

/// A sum is rounded to 16 bits once; by way of 32 bits, it would be rounded to the middle between
/// two numbers first, and then to the wrong one.
#[test]
fn sums_are_rounded_once() {
    if !EXACT {
        return;
    }
    // A little more than half way from 1 to the next number of each dtype.
    let half_way = |next: f64| vec![1.0 + (next - 1.0) / 2.0 + 2_f64.powi(-40), 1.0];
    let cases = [
        (DType::F16, f16::from_f32(1.0).to_f64() + 2_f64.powi(-10)),
        (DType::BF16, bf16::from_f32(1.0).to_f64() + 2_f64.powi(-7)),
    ];
    for (dtype, next) in cases {
        let numbers = [half_way(next), half_way(next)];
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path(), &numbers, DType::F64);
        let options = LoadOptions::new().with_cast(true);
        let module = Weights::new(&[0.0, 0.0], dtype, &device());
        let merge = Merge::new(files).with_options(options);
        let found = merge.load(&module).unwrap().module;
        assert_eq!(flat(&found, true), [next, 1.0], "{dtype:?}");
    }
}

/// Each form in, mixed with the others, and each form out, of modules with every layout.
#[test]
fn every_form_goes_in_and_out() {
    let directory = tempfile::tempdir().unwrap();
    let dtypes = [DType::F32, DType::F64, DType::BF16];
    for dtype in dtypes.into_iter().filter(|dtype| EXACT || *dtype == DType::F32) {
        // Their integers and booleans are equal.
        let modules = [2, 4, 6].map(|seed| cast(Every::new(seed).with_constants_of(2), dtype));
        let paths: Vec<_> = modules
            .iter()
            .zip(FORMS)
            .map(|(module, form)| {
                let name = format!("{}-{:?}", dtype.name(), &form());
                written(directory.path(), &name.replace([' ', '{', '}'], ""), module, &form())
            })
            .collect();
        let fresh = cast(Every::new(8), dtype);
        let Merged { module, description, notes, .. } = Merge::new(&paths).load(&fresh).unwrap();
        // Nothing but that they are of other first weights.
        assert!(notes.len() == 1 && notes[0].contains("a correlation of weights"), "{notes:?}");
        let each = modules.each_ref().map(|module| flat(module, true));
        let mean: Vec<_> = (0..each[0].len())
            .map(|index| each.iter().map(|numbers| numbers[index]).sum::<f64>() / 3.0)
            .collect();
        let tolerance = if dtype == DType::BF16 { 4e-3 } else { 1e-7 };
        assert_close(&flat(&module, true), &mean, tolerance);
        for form in FORMS {
            let path = written(directory.path(), "out", &module, &form());
            export::save(&module, &path, &form(), &description).unwrap();
            let loaded = export::load(cast(Every::new(9), dtype), &path).unwrap();
            assert_eq!(record(&loaded), record(&module), "{:?}", form());
            assert_eq!(Contents::read(&path).unwrap().description.as_ref(), Some(&description));
        }
    }
}

/// Files of `torch.save`, new and old, beside safetensors of PyTorch and files of ours.
#[test]
fn files_of_pytorch_are_merged_with_ours() {
    let directory = tempfile::tempdir().unwrap();
    let fresh = || MlpConfig::new(vec![64, 32, 10]).init(&device()).unwrap();
    let theirs = ["torch_mlp.pt", "torch_mlp_legacy.pt", "torch_mlp.safetensors"].map(oracle);
    let ours = written(directory.path(), "ours", &fresh(), &Form::Burnpack);
    let read = |path: &PathBuf| flat(&export::load(fresh(), path).unwrap(), true);
    for theirs in &theirs {
        let weights = vec![0.25, 0.75];
        let merge = Merge::new([theirs, &ours]).with_weights(Shares::Given(weights));
        let found = merge.load(&fresh()).unwrap();
        let expected = weighted(&[read(theirs), read(&ours)], &[0.25, 0.75]);
        assert_close(&flat(&found.module, true), &expected, 1e-7);
        let file = &found.description.files[0];
        assert_eq!(file.sha256, sha256(&fs::read(theirs).unwrap()), "{}", theirs.display());
    }
}

/// The file of a merge shows what it was made of.
#[test]
fn a_merge_says_what_it_was_made_of() {
    let directory = tempfile::tempdir().unwrap();
    let paths = files(directory.path(), &drawn(3, 4, 3), DType::F32);
    let module = Weights::new(&[0.0; 4], DType::F32, &device());
    let merge = Merge::new(&paths).with_weights(Shares::Rule("ema(0.5)".parse().unwrap()));
    let made = merge.load(&module).unwrap();
    for form in FORMS {
        let file = written(directory.path(), "soup", &made.module, &form());
        export::save(&made.module, &file, &form(), &made.description).unwrap();
        let description = Contents::read(&file).unwrap().description.unwrap();
        assert_eq!(description.rule, "merge of 3 files, weights of ema(0.5)");
        assert_eq!(description.step, 7);
        let named: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        assert_eq!(description.source, named.join(", "));
        assert_eq!(description.files.len(), 3);
        for ((file, path), weight) in description.files.iter().zip(&paths).zip([0.25, 0.25, 0.5]) {
            assert_eq!(file.path, path.display().to_string());
            assert_eq!(file.sha256, sha256(&fs::read(path).unwrap()));
            assert_eq!(file.weight, weight);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The weights of all kinds sum to 1, for any number of files.
    #[test]
    fn weights_sum_to_one(files in 2_usize..200, decay in 0.0..0.999, scale in -2.0..2.0) {
        for shares in [
            Shares::Equal,
            Shares::Rule(Rule::ema(decay)),
            Shares::Rule(Rule::debiased(decay)),
            Shares::Rule(Rule::Equal),
            Shares::Rule(Rule::bema()),
            Shares::Decay(Decay::Sqrt),
            Shares::Decay(Decay::Linear),
            Shares::Decay(Decay::Cosine),
            Shares::TaskArithmetic { scale },
        ] {
            let weights = shares.of(files).unwrap();
            prop_assert_eq!(weights.len(), files);
            // Large weights of both signs round more.
            let magnitude = weights.iter().map(|weight| weight.abs()).sum::<f64>();
            let off = (weights.iter().sum::<f64>() - 1.0).abs();
            prop_assert!(off <= 1e-12 * magnitude.max(1.0), "{}", shares);
            let signed = matches!(shares, Shares::TaskArithmetic { .. } | Shares::Rule(Rule::Bema { .. }));
            prop_assert!(signed || weights.iter().all(|weight| *weight >= 0.0), "{}", shares);
        }
    }

    /// Equal weights give the same bits in every order of the files, and so do others that go with
    /// their files.
    #[test]
    fn the_order_of_the_files_makes_no_difference(
        order in Just(vec![0_usize, 1, 2, 3, 4]).prop_shuffle(), seed in 0_u64..1000,
    ) {
        let dtype = if EXACT { DType::F64 } else { DType::F32 };
        let directory = tempfile::tempdir().unwrap();
        let numbers = drawn(5, 20, seed);
        let paths = files(directory.path(), &numbers, dtype);
        let module = Weights::new(&[0.0; 20], dtype, &device());
        let weights = [0.7, 0.6, -0.2, 0.3, -0.4];
        for given in [None, Some(weights)] {
            let merge = |order: &[usize]| {
                let merge = Merge::new(order.iter().map(|&index| paths[index].clone()));
                let weights = given.map(|it| order.iter().map(|&index| it[index]).collect());
                let merge = merge.with_weights(weights.map_or(Shares::Equal, Shares::Given));
                flat(&merge.load(&module).unwrap().module, true)
            };
            prop_assert_eq!(merge(&order), merge(&[0, 1, 2, 3, 4]));
        }
    }

    /// Copies of one file give that file, bit for bit, by all weights; so a 0 keeps its sign.
    #[test]
    fn copies_of_one_file_give_that_file(
        count in 2_usize..6, seed in 0_u64..1000, scale in -1.0..1.0,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let dtypes = [DType::F32, DType::F64, DType::F16];
        for dtype in dtypes.into_iter().filter(|dtype| EXACT || *dtype == DType::F32) {
            let module = cast(Every::new(seed).map(&mut NegativeZeros), dtype);
            let paths: Vec<_> = (0..count)
                .map(|index| {
                    let form = &FORMS[index % 3]();
                    written(directory.path(), &format!("{}-{index}", dtype.name()), &module, form)
                })
                .collect();
            for shares in [
                Shares::Equal,
                Shares::Decay(Decay::Sqrt),
                Shares::Rule(Rule::ema(0.7)),
                Shares::TaskArithmetic { scale },
            ] {
                let merge = Merge::new(&paths).with_weights(shares);
                let found = merge.load(&cast(Every::new(seed + 1), dtype)).unwrap();
                prop_assert_eq!(record(&found.module), record(&module));
            }
        }
    }
}

/// A module keeps its ids and its statistics, and the result shares nothing with it.
#[test]
fn the_module_that_was_given_stays_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let nets = [1, 2].map(with_statistics);
    let paths: Vec<_> = nets
        .iter()
        .enumerate()
        .map(|(index, net)| written(directory.path(), &index.to_string(), net, &Form::Burnpack))
        .collect();
    let fresh = Net::new(3, &device());
    let before = floats(&fresh);
    let found = Merge::new(paths).load(&fresh).unwrap().module;
    assert_eq!(floats(&fresh), before);
    let ids =
        |net: &Net| floats(net).into_iter().map(|(path, id, _)| (path, id)).collect::<Vec<_>>();
    assert_eq!(ids(&found), ids(&fresh));
    assert_ne!(flat(&found, false), flat(&fresh, false));
}

/// A batch norm with statistics that are not those of a fresh one.
fn with_statistics(seed: u64) -> Net {
    let net = Net::new(seed, &device()).train();
    let rows = TensorData::new(drawn(1, 16, seed).remove(0), [8, 2]);
    for _ in 0..3 {
        net.forward(Tensor::from_data(rows.clone(), &device()));
    }
    net.valid()
}

#[test]
fn statistics_are_averaged_or_those_of_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let nets = [1, 2, 3].map(with_statistics);
    let paths = [0, 1, 2]
        .map(|index| written(directory.path(), &index.to_string(), &nets[index], &FORMS[index]()));
    let of = |net: &Net| -> Vec<f64> {
        let all = floats(net).into_iter().filter(|(path, ..)| path.contains("running_"));
        all.flat_map(|(.., values)| values).collect()
    };
    let weights = [0.5, 0.3, 0.2];
    let merge = Merge::new(&paths).with_weights(Shares::Given(weights.to_vec()));
    let statistics = nets.each_ref().map(of);
    let cases = [
        (Buffers::Merge, weighted(&statistics, &weights), "averaged"),
        (Buffers::First, statistics[0].clone(), "those of the first file"),
        (Buffers::Last, statistics[2].clone(), "those of the last file"),
    ];
    for (policy, expected, word) in cases {
        let found = merge.clone().with_statistics(policy).load(&nets[0]).unwrap();
        assert_close(&of(&found.module), &expected, 1e-6);
        let others = weighted(&nets.each_ref().map(|net| flat(net, false)), &weights);
        assert_close(&flat(&found.module, false), &others, 1e-6);
        let note = format!(
            "running states, such as norm.running_mean, are {word}: re-estimate them by \
             `reestimate_statistics`, since the merged weights have others"
        );
        assert_eq!(found.notes[0], note);
        assert!(found.notes.len() == 2 && found.notes[1].contains("a correlation of weights"));
    }
    // The variances of the first net are far below those of the sum.
    let away = Shares::TaskArithmetic { scale: -40.0 };
    let merge = Merge::new([&paths[0], &paths[1]]).with_weights(away);
    let refused = ["norm.running_var: expected variances of at least 0, found -"];
    let other =
        Merge::new([&paths[1], &paths[0]]).with_weights(Shares::TaskArithmetic { scale: -40.0 });
    let messages = [&merge, &other].map(|merge| merge.load(&nets[0]).err().map(|e| e.to_string()));
    assert!(messages.iter().flatten().any(|it| it.starts_with(refused[0])), "{messages:?}");
    merge.with_statistics(Buffers::First).load(&nets[0]).unwrap();
}

#[test]
fn integers_must_agree_or_are_those_of_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let modules = [1, 2, 3].map(Every::new);
    let paths = [0, 1, 2].map(|index| {
        written(directory.path(), &index.to_string(), &modules[index], &FORMS[index]())
    });
    let merge = Merge::new(&paths);
    let [first, second] = [&paths[0], &paths[1]].map(|path| path.display().to_string());
    assert_eq!(
        why(merge.load(&modules[0])),
        format!(
            "cannot merge {second}: counts: expected 1 at index 0, as in {first}, found 2 at index 0; \
             `with_integers` takes those of one file"
        )
    );
    for (policy, expected) in [(Buffers::First, &modules[0]), (Buffers::Last, &modules[2])] {
        let found = merge.clone().with_integers(policy).load(&modules[1]).unwrap().module;
        let (found, expected) = (record(&found), record(expected));
        for name in ["counts", "mask"] {
            assert_eq!(found[name], expected[name], "{policy:?} {name}");
        }
        assert_ne!(found["square.weight"], expected["square.weight"]);
    }
}

/// What is refused, with file, tensor, what was expected and what was found.
#[test]
fn what_does_not_fit_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let mlp = |sizes: &[usize]| MlpConfig::new(sizes.to_vec()).init(&device()).unwrap();
    let module = mlp(&[4, 3, 2]);
    let at = |name: &str, mlp: &Mlp, form: &Form| written(directory.path(), name, mlp, form);
    let a = at("a", &module, &Form::Burnpack);
    let b = at("b", &mlp(&[4, 5, 2]), &Form::torch());
    let c = at("c", &mlp(&[4, 3, 2, 2]), &Form::Safetensors);
    let refused = |files: &[&PathBuf]| why(Merge::new(files.iter().copied()).load(&module));

    // All of both files at once, and nothing is read.
    let text = refused(&[&a, &b, &c]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "the files cannot be merged:");
    let [b_line, c_line] = [&b, &c].map(|path| format!("  cannot merge {}: ", path.display()));
    let expected = [
        format!("{b_line}0.bias (layers.0.bias here): expected f32 [3], found f32 [5]"),
        format!("{b_line}0.weight (layers.0.weight here): expected f32 [3, 4], found f32 [5, 4]"),
        format!("{b_line}2.weight (layers.1.weight here): expected f32 [2, 3], found f32 [2, 5]"),
        format!(
            "{c_line}layers.2.bias: expected no tensor of this name, found f32 [2] in the file, \
             which the option leave_out passes over; likewise 1 more: layers.2.weight"
        ),
    ];
    assert_eq!(lines[1..], expected);
    assert_eq!(refused(&[&a, &b]).lines().count(), 4);

    let wide = at("wide", &cast(module.clone(), DType::F16), &Form::Burnpack);
    let text = refused(&[&a, &wide]);
    let line =
        format!("cannot merge {}: layers.0.bias: expected f32 [3], found f16 [3]", wide.display());
    assert!(text.contains(&line), "{text}");
    // A cause is there once, with the names of all that it is of.
    let rest = "; likewise 3 more: layers.0.weight, layers.1.bias, layers.1.weight";
    assert!(text.ends_with(&format!("which the option cast widens without loss{rest}")), "{text}");
    let long = |width: usize| mlp(&[vec![2; 13], vec![width]].concat());
    let a12 = at("a12", &long(1), &Form::Burnpack);
    let b12 = at("b12", &mlp(&[vec![3; 13], vec![1]].concat()), &Form::Burnpack);
    let text = why(Merge::new([&a12, &b12]).load(&long(1)));
    assert_eq!(text.lines().count(), 1 + 8 + 1, "{text}");
    assert!(text.ends_with("b12.bpk: 17 more tensors do not fit"), "{text}");
    let text = why(Merge::new([&a12, &b12]).load(&mlp(&[2, 2])));
    assert!(text.contains("likewise 23 more: layers.1.weight, layers.10.bias, "), "{text}");

    let missing = directory.path().join("missing.bpk");
    let text = refused(&[&missing, &a]);
    assert!(text.starts_with(&format!("cannot read {}: ", missing.display())), "{text}");
    let other = directory.path().join("table.csv");
    fs::write(&other, "a,b\n1,2\n").unwrap();
    let text = refused(&[&a, &other]);
    assert!(text.contains("the first bytes: expected those of burnpack, safetensors"), "{text}");

    assert_eq!(refused(&[&a]), "the number of files of a merge is 1, expected 2 or more");
    assert_eq!(refused(&[]), "the number of files of a merge is 0, expected 2 or more");
    let weights = |weights: &[f64]| {
        let shares = Shares::Given(weights.to_vec());
        why(Merge::new([&a, &a]).with_weights(shares).load(&module))
    };
    assert_eq!(
        weights(&[0.5, 0.25, 0.25]),
        "the number of weights of a merge is 3, expected 2, one for each file"
    );
    assert_eq!(weights(&[f64::NAN, 1.0]), "weight 1 of a merge is NaN, expected a finite number");
    assert_eq!(
        weights(&[0.5, f64::INFINITY]),
        "weight 2 of a merge is inf, expected a finite number"
    );
    assert_eq!(
        weights(&[1.0, 3.0]),
        "the sum of the weights of a merge is 4 (divided by it, the weights are 0.25, 0.75), \
         expected 1"
    );
    assert_eq!(
        weights(&[0.2, 0.7]),
        "the sum of the weights of a merge is 0.9 (divided by it, the weights are \
         0.222222222222222, 0.777777777777778), expected 1"
    );
    Shares::Given(vec![0.222222222222222, 0.777777777777778]).of(2).unwrap();
    assert_eq!(weights(&[1.0, -1.0]), "the sum of the weights of a merge is 0, expected 1");
    // However large the weights are, a sum of 0 is not one of 1.
    assert_eq!(weights(&[1e12, -1e12]), "the sum of the weights of a merge is 0, expected 1");
    Shares::Given(vec![1e12, 1.0 - 1e12]).of(2).unwrap();
    let rule = Shares::Rule("half-life(64000 samples)".parse().unwrap());
    assert!(why(rule.of(3)).contains("samples_per_step"), "{}", why(rule.of(3)));
    assert!(why(Shares::Rule(Rule::ema(2.0)).of(3)).contains("decay is 2"));
    // The sum of large weights of both signs is rounded by more than 1e-12.
    Shares::TaskArithmetic { scale: -1.4453546473328176 }.of(191).unwrap();
    // Twice the same file is no error, and is noted.
    let twice = Merge::new([&a, &a]).load(&module).unwrap();
    let a = a.display();
    assert_eq!(twice.notes, [format!("{a} has the content of {a}, which so counts twice")]);
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let module = Weights::new(&[0.0; 3], DType::F32, &device());
    for (number, word) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
        let numbers = [vec![1.0, 2.0, 3.0], vec![1.0, number, 3.0]];
        let paths = files(directory.path(), &numbers, DType::F32);
        let expected = format!(
            "cannot merge {}: w: expected finite numbers, found {word} at index 1",
            paths[1].display()
        );
        assert_eq!(why(Merge::new(&paths).load(&module)), expected);
        // A file without a weight is not read.
        let first = Merge::new(&paths).with_weights(Shares::Given(vec![1.0, 0.0]));
        let first = first.load(&module).unwrap();
        assert_eq!(flat(&first.module, true), numbers[0]);
        let note = format!("{} has the weight 0: no part in the weights", paths[1].display());
        assert_eq!(first.notes, [note]);
    }
    // A sum beyond the dtype.
    let largest = f64::from(f32::MAX);
    let paths = files(directory.path(), &[vec![largest; 3], vec![0.0; 3]], DType::F32);
    let merge = Merge::new(paths).with_weights(Shares::Given(vec![2.0, -1.0]));
    assert_eq!(why(merge.load(&module)), "w: expected a sum that f32 holds, found inf at index 0");
}

/// A byte of a tensor, of the header or of the digest that differs from what was written.
#[test]
fn altered_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let module = Weights::new(&[1.0; 30], DType::F32, &device());
    for form in FORMS {
        let path = written(directory.path(), "a", &module, &form());
        let whole = fs::read(&path).unwrap();
        let other = written(directory.path(), "b", &module, &form());
        for at in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let text = why(Merge::new([&other, &path]).load(&module));
            // Both readers find the damage.
            assert!(export::load(module.clone(), &path).is_err(), "{at}");
            assert!(text.contains("a.bpk") || text.contains("a.safetensors"), "{at}: {text}");
        }
        for length in [0, 5, 9, 40, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(Merge::new([&other, &path]).load(&module).is_err(), "{length}");
        }
    }
}

/// A part of each file, in another dtype, without the tensors that are not the module's.
#[test]
fn a_part_of_each_file_is_merged() {
    let directory = tempfile::tempdir().unwrap();
    let fresh = || Net::new(3, &device());
    let ours = written(
        directory.path(),
        "ours",
        &cast(Net::new(1, &device()), DType::F16),
        &Form::Burnpack,
    );
    let options = LoadOptions::new().with_cast(true);
    let merge = Merge::new([oracle("torch_net.safetensors"), ours.clone()]);
    let found = merge.with_options(options.clone()).load(&fresh()).unwrap();
    let read = |path: PathBuf| flat(&export::load_with(fresh(), path, &options).unwrap(), true);
    let expected = weighted(&[read(oracle("torch_net.safetensors")), read(ours)], &[0.5, 0.5]);
    assert_close(&flat(&found.module, true), &expected, 1e-7);
}

/// A quadratic score of which the best single file, the equal merge and the greedy one differ.
#[test]
fn the_greedy_merge_takes_what_makes_the_score_better() {
    let directory = tempfile::tempdir().unwrap();
    // The best is 0: files on both sides of it, and one far away.
    let numbers = [vec![0.6], vec![-0.4], vec![5.0], vec![-0.5], vec![f64::from(f32::MIN)]];
    let paths = files(directory.path(), &numbers, DType::F32);
    let module = Weights::new(&[0.0], DType::F32, &device());
    let score = |module: &Weights| {
        let x = flat(module, true)[0];
        Ok::<_, Error>(if x.abs() > 1e30 { f64::NAN } else { -x * x })
    };
    let made = Merge::new(&paths).greedy(&module, score).unwrap();
    // -0.4, then with -0.5 worse, with 0.6 better, with 5 worse.
    let tried: Vec<_> = made.candidates.iter().map(|it| (it.path.clone(), it.taken)).collect();
    let expected = [(1, true), (3, false), (0, true), (2, false), (4, false)];
    assert_eq!(tried, expected.map(|(index, taken)| (paths[index].clone(), taken)));
    assert_close(&flat(&made.merged.module, true), &[0.1], 1e-6);
    assert_close(&[made.score], &[-0.01], 1e-6);
    assert!(made.candidates[4].alone.is_nan());
    let description = &made.merged.description;
    assert_eq!(description.rule, "greedy merge of 2 of 5 files");
    let taken: Vec<_> = description.files.iter().map(|it| (it.path.clone(), it.weight)).collect();
    assert_eq!(taken, [0, 1].map(|index| (paths[index].display().to_string(), 0.5)));

    // A file that changes in the meantime.
    let mut calls = 0;
    let changed = Merge::new(&paths).greedy(&module, |_| {
        calls += 1;
        if calls == 3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            files(directory.path(), &numbers, DType::F32);
        }
        Ok::<_, Error>(1.0)
    });
    let text = why(changed);
    assert!(text.ends_with("the file: expected one that stays as it is, found a change"), "{text}");

    // A score that stays is no reason to leave a file out.
    let same = Merge::new(&paths).greedy(&module, |_| Ok::<_, Error>(1.0)).unwrap();
    assert_eq!(same.merged.description.files.len(), 5);
    // Errors: of the caller's own type, weights that do not count, no number at all.
    #[derive(Debug, PartialEq)]
    struct Own(String);
    impl From<Error> for Own {
        fn from(error: Error) -> Self {
            Self(error.to_string())
        }
    }
    let own = Merge::new(&paths).greedy(&module, |_| Err::<f64, _>(Own("mine".into())));
    assert_eq!(own.unwrap_err(), Own("mine".into()));
    let weighted = Merge::new(&paths).with_weights(Shares::Decay(Decay::Sqrt));
    assert_eq!(
        why(weighted.greedy(&module, score)),
        "the weights of a greedy merge is weights of the decay 1-sqrt, expected equal"
    );
    let none = Merge::new(&paths).greedy(&module, |_| Ok::<_, Error>(f64::NAN));
    assert_eq!(why(none), "the scores of a merge is NaN for each file, expected a number");
}

/// Sets each small number of a module to -0.
struct NegativeZeros;

impl burn::module::ModuleMapper for NegativeZeros {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let zero = |x: f32| if x.abs() < 0.1 { -0.0 } else { x };
            let numbers: Vec<_> = tensor.to_data().iter().map(zero).collect();
            Tensor::from_data(TensorData::new(numbers, tensor.shape()), &tensor.device())
                .set_require_grad(tensor.is_require_grad())
        })
    }
}

/// A NaN is less than `-inf`, whichever comes first.
#[test]
fn a_greedy_merge_ranks_nan_below_all_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let paths = files(directory.path(), &[vec![1.0], vec![2.0]], DType::F32);
    let module = Weights::new(&[0.0], DType::F32, &device());
    for numbers in [[f64::NAN, f64::NEG_INFINITY], [f64::NEG_INFINITY, f64::NAN]] {
        let mut scores = numbers.into_iter().chain([f64::NAN]);
        let made = Merge::new(&paths).greedy(&module, |_| Ok::<_, Error>(scores.next().unwrap()));
        let made = made.unwrap();
        assert_eq!(made.score, f64::NEG_INFINITY);
        let best = numbers.iter().position(|number| !number.is_nan()).unwrap();
        assert_eq!(made.candidates[0].path, paths[best]);
        assert_eq!(flat(&made.merged.module, true), [[1.0], [2.0]][best]);
    }
}

/// The first and the last file are those in the order of the files, not of the scores.
#[test]
fn a_greedy_merge_has_the_order_of_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let nets = [1, 2, 3].map(with_statistics);
    let paths = [0, 1, 2]
        .map(|index| written(directory.path(), &index.to_string(), &nets[index], &FORMS[index]()));
    let mean = |net: &Net| -> Vec<f64> {
        let mut all = floats(net).into_iter();
        all.find(|(path, ..)| path.ends_with("running_mean")).unwrap().2
    };
    for (policy, index) in [(Buffers::First, 0), (Buffers::Last, 2)] {
        // The second file is the best, then the third, then the first.
        let mut scores = [1.0, 3.0, 2.0, 4.0, 5.0].into_iter();
        let merge = Merge::new(&paths).with_statistics(policy);
        let made = merge.greedy(&nets[0], |_| Ok::<_, Error>(scores.next().unwrap())).unwrap();
        let tried: Vec<_> = made.candidates.iter().map(|it| (it.path.clone(), it.taken)).collect();
        assert_eq!(tried, [1, 2, 0].map(|index| (paths[index].clone(), true)));
        assert_eq!(mean(&made.merged.module), mean(&nets[index]), "{policy:?}");
    }
}

/// A module that shows `w` to `visit` alone or to `map` alone.
#[derive(Clone, Debug)]
struct Half {
    v: Param<Tensor<1>>,
    w: Param<Tensor<1>>,
    visited: bool,
}

impl Half {
    fn each(self, map: impl Fn(Param<Tensor<1>>) -> Param<Tensor<1>>) -> Self {
        Self { v: map(self.v), w: map(self.w), ..self }
    }
}

impl Module for Half {
    fn visit<V: burn::module::ModuleVisitor>(&self, visitor: &mut V) {
        for (name, param, shown) in [("v", &self.v, true), ("w", &self.w, self.visited)] {
            if shown {
                visitor.enter_module(name, "Struct:Half");
                visitor.visit_float(param);
                visitor.exit_module(name, "Struct:Half");
            }
        }
    }

    fn map<P: burn::module::ModuleMapper>(self, mapper: &mut P) -> Self {
        let mut map = |name: &str, param| {
            mapper.enter_module(name, "Struct:Half");
            let param = mapper.map_float(param);
            mapper.exit_module(name, "Struct:Half");
            param
        };
        let v = map("v", self.v);
        let w = if self.visited { self.w } else { map("w", self.w) };
        Self { v, w, ..self }
    }

    fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
        self.v.collect_devices(devices)
    }

    fn fork(self, device: &burn::tensor::Device) -> Self {
        self.each(|param| param.fork(device))
    }

    fn to_device(self, device: &burn::tensor::Device) -> Self {
        self.each(|param| param.to_device(device))
    }

    fn train(self) -> Self {
        self.each(Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().each(|param| param.valid())
    }

    fn materialize(self) -> Self {
        self
    }
}

/// A parameter that the merge cannot put in place would keep the number of the module.
#[test]
fn parameters_that_visit_or_map_alone_shows_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (visited, word) in [(true, "visit"), (false, "map")] {
        let param = || Param::from_data([1.0], &device());
        let half = Half { v: param(), w: param(), visited };
        // A record of it has what `visit` shows.
        let paths = ["a", "b"].map(|name| written(directory.path(), name, &half, &Form::Burnpack));
        assert_eq!(
            why(Merge::new(paths).load(&half)),
            format!(
                "w: expected a parameter that `visit` and `map` of the module show, found one that \
                 only `{word}` shows"
            )
        );
    }
}

impl Every {
    /// The module with the integers and booleans of another.
    fn with_constants_of(self, seed: u64) -> Self {
        struct Constants(Every);
        impl burn::module::ModuleMapper for Constants {
            fn map_int<const D: usize>(
                &mut self,
                param: Param<Tensor<D, Int>>,
            ) -> Param<Tensor<D, Int>> {
                let data = record(&self.0)["counts"].clone();
                let data = TensorData::from_bytes_vec(data.2, data.1, data.0);
                Param::initialized(ParamId::new(), Tensor::from_data(data, &param.device()))
            }
            fn map_bool<const D: usize>(
                &mut self,
                param: Param<Tensor<D, Bool>>,
            ) -> Param<Tensor<D, Bool>> {
                let data = record(&self.0)["mask"].clone();
                let data = TensorData::from_bytes_vec(data.2, data.1, data.0);
                Param::initialized(ParamId::new(), Tensor::from_data(data, &param.device()))
            }
        }
        self.map(&mut Constants(Every::new(seed)))
    }
}

/// Peak memory of a merge, measured in a process of its own.
#[cfg(target_os = "linux")]
mod memory {
    use std::process::Command;

    use super::*;
    use crate::memory::peak;

    const TASK: &str = "BURN_EMA_MERGE";
    /// Eight layers of 2.25 MiB.
    const SIZES: [usize; 9] = [768; 9];

    fn network() -> Mlp {
        MlpConfig::new(SIZES.to_vec()).init(&burn::tensor::Device::flex()).unwrap()
    }

    /// The process that is measured; on its own it does nothing.
    #[test]
    fn child() {
        let Ok(task) = std::env::var(TASK) else { return };
        let module = network();
        // All weights are there before.
        for layer in &module.layers {
            let bias = layer.bias.as_ref().map(|bias| bias.val());
            drop((layer.weight.val(), bias));
        }
        let files: Vec<_> = task.split(':').filter(|it| !it.is_empty()).collect();
        let made = (!files.is_empty()).then(|| Merge::new(files).load(&module).unwrap());
        println!("peak {}", peak());
        drop(made);
    }

    fn peak_of(files: &[PathBuf]) -> usize {
        let task: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "merge::memory::child", "--nocapture"])
            .env(TASK, task.join(":"))
            .env("RAYON_NUM_THREADS", "1")
            .env("MALLOC_MMAP_THRESHOLD_", "65536")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let peak = text.split("peak ").nth(1).unwrap_or_else(|| panic!("{text}"));
        peak.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Two files or six, in each form: the result, and of one tensor the sum and the numbers read.
    #[test]
    fn a_merge_takes_the_result_and_a_few_tensors() {
        let directory = tempfile::tempdir().unwrap();
        let tensor = (768 * 768 * 4) as f64;
        let (without, mut each) = (peak_of(&[]), Vec::new());
        for form in FORMS {
            let files: Vec<_> = (0..6)
                .map(|index| written(directory.path(), &index.to_string(), &network(), &form()))
                .collect();
            let [two, six] = [&files[..2], &files[..]].map(|files| {
                let more = peak_of(files) as f64 - without as f64;
                println!("{:?}, {} files: {:.2} tensors more", form(), files.len(), more / tensor);
                more / tensor
            });
            // The result is eight tensors; the sum of one, in f64, is as large as two, and what is
            // read of a file is one. The last tensor of the result is made of the sum. What else the
            // process holds differs by as much as one. Whole files in memory would be eight each.
            assert!(two > 8.5 && six < 12.0, "{:?}: {two} {six}", form());
            assert!((six - two).abs() < 1.5, "{:?}: {two} {six}", form());
            each.push(two);
        }
        // A copy that is turned to Burn's layout would be one more.
        assert!((each[2] - each[1]).abs() < 0.6, "PyTorch's layout beside Burn's: {each:?}");
    }
}

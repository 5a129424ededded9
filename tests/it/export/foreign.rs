//! Files of other programs: a part of a checkpoint, layouts, dtypes, large headers, shared tensors,
//! and files that are no weights at all.

use std::{collections::HashMap, fs, path::Path};

use burn::{
    module::{Module, Param, ParamId},
    nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig},
    tensor::{Bytes, DType, Int, Tensor, TensorData},
};
use burn_ema::{
    AverageConfig, Rule,
    export::{self, Contents, Form, Kind, LoadOptions, Names},
    train::Averaged,
};
use burn_pack::{Reader, Writer};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;

use super::{Every, FORMS, damage::why, description, oracle, record};
use crate::{
    common::{EXACT, Net, assert_close, device, numbers, randomized},
    hand::cast,
};

/// What the networks of the script answer.
fn answers() -> Value {
    let text = fs::read_to_string(oracle("torch_checkpoints.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn net() -> Net {
    Net::new(1, &device())
}

#[track_caller]
fn assert_answers(net: Net, name: &str) {
    let answers = answers();
    let inputs: Vec<f32> = numbers(&answers["inputs"]).into_iter().map(|x| x as f32).collect();
    let inputs = Tensor::<2>::from_data(TensorData::new(inputs, [5, 2]), &device());
    let outputs = net.valid().forward(inputs).into_data().convert::<f64>();
    assert_close(&outputs.try_into_vec::<f64>().unwrap(), &numbers(&answers[name]), 1e-5);
}

fn under(prefix: &str) -> LoadOptions {
    LoadOptions::new().with_prefix(prefix)
}

/// The parts of checkpoints, and which network of the script each is.
const PARTS: [(&str, &str, &str); 8] = [
    ("torch_averaged_model.pt", "module", "swa"),
    ("torch_averaged_model.safetensors", "module", "swa"),
    ("ema_pytorch.pt", "online_model", "live"),
    ("ema_pytorch.pt", "ema_model", "ema"),
    ("timm_checkpoint.pt", "state_dict", "live"),
    ("timm_checkpoint.pt", "state_dict_ema", "swa"),
    ("lightning.ckpt", "state_dict.model", "live"),
    ("torch_net.safetensors", "", "itself"),
];

#[test]
fn a_part_of_a_checkpoint_answers_as_there() {
    for (file, prefix, name) in &PARTS[..7] {
        for prefix in [(*prefix).to_owned(), format!("{prefix}.")] {
            let net = export::load_with(net(), oracle(file), &under(&prefix)).unwrap();
            assert_answers(net, name);
        }
        let contents = Contents::read_with(oracle(file), &under(prefix)).unwrap();
        assert!(contents.tensors.contains_key("first.weight"), "{file}");
        assert!(contents.tensors.len() <= 9, "{file}: {:?}", contents.tensors);
    }
    // Without a prefix, the whole file is meant.
    let whole = export::load_with(net(), oracle("torch_net.safetensors"), &under("")).unwrap();
    let loaded = export::load(net(), oracle("torch_net.safetensors")).unwrap();
    assert_eq!(record(&whole), record(&loaded));
    // The updates that the average has seen are passed over where its weights are not renamed.
    let form = Form::Torch(Names::new().with("", "module"));
    for file in ["torch_averaged_model.pt", "torch_averaged_model.safetensors"] {
        assert_answers(export::load_as(net(), oracle(file), &form).unwrap(), "swa");
    }
}

#[test]
fn a_refusal_lists_the_prefixes_and_takes_none_by_itself() {
    let expected = |shown: &str| format!("; all of it fits with the option prefix {shown}");
    for (file, shown) in [
        ("torch_averaged_model.pt", "`module`"),
        ("torch_averaged_model.safetensors", "`module`"),
        ("ema_pytorch.pt", "`ema_model` or `online_model`"),
        ("timm_checkpoint.pt", "`state_dict` or `state_dict_ema`"),
        ("lightning.ckpt", "`state_dict.model`"),
    ] {
        let file = oracle(file);
        let found = why(export::load(net(), &file), &file);
        assert!(found.starts_with("first.bias: expected f32 [16], found nothing"), "{found}");
        assert!(found.ends_with(&expected(shown)), "{found}");
        // Neither the beginning of a part nor a part of something else is a prefix.
        for prefix in ["ema", "state", "optimizer", "mod", "module.module"] {
            let found = why(export::load_with(net(), &file, &under(prefix)), &file);
            assert!(found.ends_with(&expected(shown)), "{prefix}: {found}");
        }
    }
    let file = oracle("ema_pytorch.pt");
    let found = why(export::load_with(net(), &file, &under("ema")), &file);
    let start = "ema.first.bias (first.bias here): expected f32 [16], found nothing under the \
                 prefix ema.;";
    assert!(found.starts_with(start), "{found}");
    // One that is not needed.
    let file = oracle("torch_net.safetensors");
    let found = why(export::load_with(net(), &file, &under("module")), &file);
    assert!(found.ends_with("; all of it fits without the option prefix"), "{found}");
    // A module of other shapes has no prefix.
    let other = LinearConfig::new(2, 3).init(&device());
    let file = oracle("timm_checkpoint.pt");
    let found = why(export::load_with(other, &file, &under("")), &file);
    assert!(!found.contains("prefix"), "{found}");
}

#[test]
fn what_is_beside_the_module_is_left_out_by_name() {
    let file = oracle("torch_beside.safetensors");
    let all = ["*.inv_freq", "*.position_ids", "total_ops", "*.total_params", "scale"];
    let leave = |globs: &[&str]| LoadOptions::new().with_leave_out(globs.iter().copied());
    assert_answers(export::load_with(net(), &file, &leave(&all)).unwrap(), "live");
    assert_answers(
        export::load_with(net(), &file, &leave(&["*_*s", "**.inv_freq", "[st]*"])).unwrap(),
        "live",
    );
    // Each is named until it is left out.
    let found = |globs: &[&str]| why(export::load_with(net(), &file, &leave(globs)), &file);
    assert_eq!(found(&[]), "scale: expected a dtype of Burn's, found F8_E4M3");
    let extra = |name: &str, what: &str| {
        let way_on = "which the option leave_out passes over";
        format!("{name}: expected no tensor of this name, found {what} in the file, {way_on}")
    };
    assert_eq!(found(&["scale"]), extra("embeddings.position_ids", "i64 [1, 6]"));
    assert_eq!(found(&[all[4], all[1]]), extra("encoder.0.rotary_emb.inv_freq", "f32 [4]"));
    assert_eq!(found(&[all[4], all[1], all[0]]), extra("first.total_params", "f64 [1]"));
    // What the module has is not left out, and a pattern must be one.
    let refused = found(&["scale", "first.*"]);
    let expected = "first.bias: expected f32 [16], found a tensor that is left out";
    assert_eq!(refused, expected);
    assert!(found(&["scale["]).starts_with("a name to leave out is `scale[` ("));
    let contents = Contents::read_with(&file, &leave(&all)).unwrap();
    assert_eq!(contents.tensors.len(), 9, "{:?}", contents.tensors);
}

/// Tensors as a file of safetensors with metadata.
fn written(path: &Path, tensors: &[(&str, Dtype, &[usize], Vec<u8>)], metadata: &[(&str, &str)]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
    });
    let metadata: HashMap<_, _> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    fs::write(path, safetensors::serialize(views, metadata).unwrap()).unwrap();
}

/// The metadata that programs write: none, burn-store's in either layout, and PyTorch's.
const WRITERS: [&[(&str, &str)]; 3] =
    [&[], &[("format", "safetensors"), ("producer", "burn")], &[("format", "pt")]];

/// The module's weights in a layout, with the metadata of another program.
fn rewritten<M: Module>(path: &Path, module: &M, form: &Form, metadata: &[(&str, &str)]) {
    export::save(module, path, form, &description()).unwrap();
    let whole = fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let tensors: Vec<_> = tensors.iter().collect();
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, view)| (*name, view.dtype(), view.shape(), view.data().to_vec()))
        .collect();
    written(path, &tensors, metadata);
}

#[derive(Module, Debug)]
struct SquareAndNorm {
    square: Linear,
    norm: LayerNorm,
}

#[derive(Module, Debug)]
struct Two {
    square: Linear,
    other: Linear,
}

/// Every module, in both layouts, whatever the metadata say, where names or shapes show it.
#[test]
fn names_and_shapes_tell_the_layout() {
    fn both<M: Module>(path: &Path, module: impl Fn(u64) -> M) {
        let kinds = [Kind::Torch, Kind::Safetensors, Kind::Torch];
        for (metadata, kind) in WRITERS.into_iter().zip(kinds) {
            for form in [Form::Safetensors, Form::torch()] {
                rewritten(path, &module(1), &form, metadata);
                assert_eq!(Contents::read(path).unwrap().kind, kind);
                let loaded = export::load(module(2), path).unwrap();
                assert_eq!(record(&loaded), record(&module(1)), "{form:?} {metadata:?}");
            }
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = &directory.path().join("model.safetensors");
    let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(&device());
    both(path, |seed| Net::new(seed, &device()));
    both(path, Every::new);
    both(path, |seed| randomized(linear(2, 3), seed));
    both(path, |seed| randomized(linear(1, 4), seed));
    // One number is the same either way.
    both(path, |seed| randomized(linear(1, 1), seed));
    both(path, |seed| {
        let norm = LayerNormConfig::new(3).init(&device());
        randomized(SquareAndNorm { square: linear(3, 3), norm }, seed)
    });
    both(path, |seed| randomized(Two { square: linear(3, 3), other: linear(3, 2) }, seed));
    both(path, |seed| {
        let mlp = burn_ema::model::MlpConfig::new(vec![3, 3, 3]).init(&device()).unwrap();
        randomized(mlp, seed)
    });
}

#[test]
fn square_matrices_alone_are_refused_with_the_call_that_says_which() {
    let directory = tempfile::tempdir().unwrap();
    let path = &directory.path().join("model.safetensors");
    let linear = || LinearConfig::new(3, 3).init(&device());
    let written = |seed| randomized(linear(), seed);
    let says = "say which by `load_as` with `&Form::Safetensors` (Burn's) or `&Form::torch()` \
                (PyTorch's), or by the option form";
    for metadata in &WRITERS[..2] {
        for form in [Form::Safetensors, Form::torch()] {
            rewritten(path, &written(1), &form, metadata);
            let found = why(export::load(linear(), path), path);
            let expected = "weight: expected a layout that names or shapes show, found a square \
                            matrix, f32 [3, 3]: ";
            assert_eq!(found, format!("{expected}{says}"));
            let loaded = export::load_as(linear(), path, &form).unwrap();
            assert_eq!(record(&loaded), record(&written(1)));
        }
        // Of several, the first is named; below a prefix too.
        let two = Two { square: linear(), other: linear() };
        rewritten(path, &two, &Form::torch(), metadata);
        let found = why(export::load(two.clone(), path), path);
        assert!(found.starts_with("other.weight: expected a layout"), "{found}");
        let options = under("other");
        let found = why(export::load_with(linear(), path, &options), path);
        assert!(found.starts_with("other.weight (weight here): expected a layout"), "{found}");
        export::load_with(linear(), path, &options.with_form(Form::torch())).unwrap();
    }
    // PyTorch's own.
    let file = oracle("torch_square.safetensors");
    assert!(why(export::load(linear(), &file), &file).ends_with(says));
    let by_form = export::load_as(linear(), &file, &Form::torch()).unwrap();
    let said = export::load(linear(), oracle("torch_square_pt.safetensors")).unwrap();
    assert_eq!(record(&by_form), record(&said));
    let answer = said.forward(Tensor::<2>::eye(3, &device())).into_data().convert::<f64>();
    let answer: Vec<f64> = answer.try_into_vec().unwrap();
    assert_close(&answer, &numbers(&answers()["square"]), 1e-6);
    // Ours say which they are.
    for form in [Form::Safetensors, Form::torch()] {
        export::save(&written(1), path, &form, &description()).unwrap();
        assert_eq!(record(&export::load(linear(), path).unwrap()), record(&written(1)));
    }
}

#[test]
fn a_form_that_does_not_fit_hints_at_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model");
    let torch = "; all of it fits with the option form `Form::torch()`";
    // A norm's names, a transposed shape.
    let file = oracle("torch_net.safetensors");
    let found = why(export::load_as(net(), &file, &Form::Safetensors), &file);
    assert!(found.starts_with("first.weight: expected f32 [2, 16], found f32 [16, 2]"), "{found}");
    assert!(found.ends_with(torch), "{found}");
    let file = oracle("torch_averaged_model.pt");
    let options = under("module").with_form(Form::Safetensors);
    assert!(why(export::load_with(net(), &file, &options), &file).ends_with(torch));
    let options = LoadOptions::new().with_form(Form::Safetensors);
    let found = why(export::load_with(net(), &file, &options), &file);
    let both = "; all of it fits with the option prefix `module` and with the option \
                form `Form::torch()`";
    assert!(found.ends_with(both), "{found}");
    let file = oracle("torch_net.safetensors");
    let options = under("module").with_form(Form::Safetensors);
    let found = why(export::load_with(net(), &file, &options), &file);
    let without = "; all of it fits without the option prefix and with the option form \
                   `Form::torch()`";
    assert!(found.ends_with(without), "{found}");
    // And back.
    let path = path.with_extension("safetensors");
    export::save(&net(), &path, &Form::Safetensors, &description()).unwrap();
    let found = why(export::load_as(net(), &path, &Form::torch()), &path);
    assert!(
        found.ends_with("; all of it fits with the option form `Form::Safetensors`"),
        "{found}"
    );
}

#[test]
fn a_file_of_plain_burn_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.bpk");
    let every = Every::new(1);
    every.clone().save_file(&path).unwrap();
    for loaded in [
        export::load(Every::new(2), &path).unwrap(),
        export::load(Every::new(2), path.with_extension("")).unwrap(),
        export::load_as(Every::new(2), &path, &Form::Burnpack).unwrap(),
    ] {
        assert_eq!(record(&loaded), record(&every));
    }
    let contents = Contents::read(&path).unwrap();
    assert_eq!((contents.kind, contents.description), (Kind::Burnpack, None));
    // burn-store may have written it in PyTorch's layout: the bytes of our form, as a record.
    let torch = path.with_extension("safetensors");
    export::save(&net(), &torch, &Form::torch(), &description()).unwrap();
    let bytes = fs::read(&torch).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors = tensors.iter().map(|(name, view)| {
        let bytes = Bytes::from_bytes_vec(view.data().to_vec());
        burn_pack::Tensor::new(name.to_owned(), DType::F32, view.shape().to_vec(), None, bytes)
    });
    let other = path.with_extension("other");
    fs::write(&other, &*Writer::new(tensors.collect()).into_bytes().unwrap()).unwrap();
    let loaded = export::load(Net::new(2, &device()), &other).unwrap();
    assert_eq!(record(&loaded), record(&net()));
    // What does not fit is refused as ever, and a NaN is.
    let found = why(export::load(net(), &path), &path);
    assert!(found.starts_with("first.bias: expected f32 [16], found nothing"), "{found}");
    let nan = LinearConfig::new(2, 3).init(&device());
    let nan = Linear { bias: nan.bias.clone().map(|it| it.map(|it| it * f32::NAN)), ..nan };
    nan.clone().save_file(&path).unwrap();
    let found = why(export::load(nan, &path), &path);
    assert_eq!(found, "bias: expected finite numbers, found NaN at index 0");
}

/// Burn's record of a hook holds live and every average.
#[test]
fn a_part_of_the_record_of_a_hook_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hook.bpk");
    let configs = [Rule::ema(0.9), Rule::Equal].map(AverageConfig::new);
    let hook = Averaged::new(net(), configs).unwrap();
    hook.clone().save_file(&path).unwrap();
    let found = why(export::load(net(), &path), &path);
    let prefixes = "`averages.ema(0.9).weights` or `averages.equal.weights` or `live`";
    let expected = format!("; all of it fits with the option prefix {prefixes}");
    assert!(found.ends_with(&expected), "{found}");
    let fresh = || Net::new(2, &device());
    let live = export::load_with(fresh(), &path, &under("live")).unwrap();
    assert_eq!(record(&live), record(&net()));
    let average = export::load_with(fresh(), &path, &under("averages.equal.weights")).unwrap();
    assert_eq!(record(&average), record(&hook.average(1).unwrap()));
}

/// A file with our keys and without the digest is none of plain Burn.
#[test]
fn a_file_of_ours_that_lost_its_digest_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.bpk");
    export::save(&net(), &path, &Form::Burnpack, &description()).unwrap();
    for kept in ["burn-ema.", "burn-ema.version"] {
        let reader = Reader::from_bytes(Bytes::from_bytes_vec(fs::read(&path).unwrap())).unwrap();
        let metadata = reader.metadata().clone();
        let kept = metadata
            .iter()
            .filter(|(key, _)| key.starts_with(kept) && !key.ends_with("sha256"))
            .collect::<Vec<_>>();
        assert!(!kept.is_empty());
        let writer = Writer::new(reader.into_tensors().unwrap());
        let writer =
            kept.iter().fold(writer, |writer, (key, value)| writer.with_metadata(key, value));
        let other = path.with_extension("other");
        fs::write(&other, &*writer.into_bytes().unwrap()).unwrap();
        let expected =
            "burn-ema.sha256: expected an entry of this name, found none: it was altered";
        assert_eq!(why(export::load(net(), &other), &other), expected);
        assert_eq!(why(Contents::read(&other), &other), expected);
    }
}

/// One tensor of the dtypes that a file may have, in a module of another.
#[test]
fn other_dtypes_are_cast_where_asked_for() {
    let casting = LoadOptions::new().with_cast(true);
    for (dtype, how) in
        [("f16", "widens without loss"), ("bf16", "widens without loss"), ("f64", "rounds")]
    {
        let file = oracle(&format!("torch_{dtype}.safetensors"));
        let found = why(export::load(net(), &file), &file);
        let expected = format!(
            "first.bias: expected f32 [16], found {dtype} [16], which the option cast {how}"
        );
        assert_eq!(found, expected);
        assert_answers(export::load_with(net(), &file, &casting).unwrap(), dtype);
        // In the file's own dtype it needs no option.
        if EXACT {
            let own = [DType::F16, DType::BF16, DType::F64];
            let own = own.into_iter().find(|own| own.name() == dtype).unwrap();
            let exact = export::load(cast(net(), own), &file).unwrap();
            let widened = export::load_with(net(), &file, &casting).unwrap();
            assert_eq!(record(&cast(exact, DType::F32)), record(&widened), "{dtype}");
        }
    }
    if !EXACT {
        return;
    }
    // From a file of PyTorch in 32 bits to a module of 16, and to one of 64.
    let file = oracle("torch_net.safetensors");
    let full = export::load(net(), &file).unwrap();
    for (dtype, how) in
        [(DType::F16, "rounds"), (DType::BF16, "rounds"), (DType::F64, "widens without loss")]
    {
        let found = why(export::load(cast(net(), dtype), &file), &file);
        assert!(found.ends_with(&format!("which the option cast {how}")), "{found}");
        let loaded = export::load_with(cast(net(), dtype), &file, &casting).unwrap();
        let full = cast(export::load(net(), &file).unwrap(), dtype);
        assert_eq!(record(&loaded), record(&full), "{dtype:?}");
    }
    drop(full);
}

#[derive(Module, Debug)]
struct Counts {
    counts: Param<Tensor<1, Int>>,
    weights: Param<Tensor<1>>,
}

#[test]
fn a_number_that_the_module_does_not_hold_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = &directory.path().join("numbers.safetensors");
    let int = |dtype| {
        let counts = Tensor::<1, Int>::from_data([0, 0], (&device(), dtype));
        let weights = Tensor::<1>::from_data([0.0, 0.0], &device());
        Counts {
            counts: Param::initialized(ParamId::new(), counts),
            weights: Param::initialized(ParamId::new(), weights),
        }
    };
    let module = || int(DType::I32);
    let casting = LoadOptions::new().with_cast(true);
    let file = |counts: [i64; 2], weights: [f64; 2]| {
        let counts = counts.iter().flat_map(|x| x.to_le_bytes()).collect();
        let weights = weights.iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensors =
            [("counts", Dtype::I64, &[2][..], counts), ("weights", Dtype::F64, &[2], weights)];
        written(path, &tensors, &[]);
    };
    let loaded = || export::load_with(module(), path, &casting);
    let values = |module: Counts| {
        let counts = module.counts.val().into_data().iter::<i64>().collect::<Vec<_>>();
        let weights = module.weights.val().into_data().iter::<f64>().collect::<Vec<_>>();
        (counts, weights)
    };
    // The nearest number of single precision.
    file([-7, i64::from(i32::MAX)], [0.1, 1.0 + 1e-12]);
    let expected = (vec![-7, i64::from(i32::MAX)], vec![f64::from(0.1_f32), 1.0]);
    assert_eq!(values(loaded().unwrap()), expected);
    let found = why(export::load(module(), path), path);
    let way_on = "which the option cast converts where the numbers fit";
    assert_eq!(found, format!("counts: expected i32 [2], found i64 [2], {way_on}"));

    file([0, 1 << 31], [0.0, 0.0]);
    let expected = "counts: expected numbers that i32 holds, found 2147483648 at index 1";
    assert_eq!(why(loaded(), path), expected);
    file([-(1 << 31) - 1, 0], [0.0, 0.0]);
    let expected = "counts: expected numbers that i32 holds, found -2147483649 at index 0";
    assert_eq!(why(loaded(), path), expected);
    file([0, 0], [1.0, -1e39]);
    let found = why(loaded(), path);
    assert!(found.starts_with("weights: expected numbers that f32 holds, found -1"), "{found}");
    assert!(found.ends_with(" at index 1"), "{found}");
    file([0, 0], [f64::NAN, 1e39]);
    assert_eq!(why(loaded(), path), "weights: expected finite numbers, found NaN at index 0");

    // A float is no count, and a count no float.
    let tensors =
        [("counts", Dtype::F32, &[2][..], vec![0; 8]), ("weights", Dtype::F32, &[2], vec![0; 8])];
    written(path, &tensors, &[]);
    assert_eq!(why(loaded(), path), "counts: expected i32 [2], found f32 [2]");
    let tensors =
        [("counts", Dtype::I32, &[2][..], vec![0; 8]), ("weights", Dtype::I64, &[2], vec![0; 16])];
    written(path, &tensors, &[]);
    assert_eq!(why(loaded(), path), "weights: expected f32 [2], found i64 [2]");
    let tensors =
        [("counts", Dtype::BOOL, &[2][..], vec![0; 2]), ("weights", Dtype::F32, &[2], vec![0; 8])];
    written(path, &tensors, &[]);
    assert_eq!(why(loaded(), path), "counts: expected i32 [2], found bool [2]");
}

#[derive(Module, Debug)]
struct Many {
    layers: Vec<Linear>,
}

/// What is written is read, however little each tensor holds.
#[test]
fn thousands_of_tiny_tensors_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let many = |seed| {
        let linear = |_| LinearConfig::new(1, 1).init(&device());
        randomized(Many { layers: (0..7500).map(linear).collect() }, seed)
    };
    let (written, fresh) = (many(1), many(2));
    let record_of = record(&written);
    for (number, form) in FORMS.iter().enumerate() {
        let path = directory.path().join(format!("{number}"));
        export::save(&written, &path, &form(), &description()).unwrap();
        let loaded = export::load(fresh.clone(), &path).unwrap();
        assert!(record(&loaded) == record_of, "{:?}", form());
        assert_eq!(Contents::read(&path).unwrap().tensors.len(), 15_000);
    }
}

#[test]
fn a_long_text_beside_the_tensors_is_no_reason_to_refuse() {
    let directory = tempfile::tempdir().unwrap();
    let path = &directory.path().join("metadata.safetensors");
    let linear = || LinearConfig::new(2, 3).init(&device());
    let text = "a line of a log, [1, 2, 3], {\\\"a\\\": \\\\}\n".repeat(100_000);
    let many: Vec<_> = (0..20_000).map(|key| (format!("key {key}"), "value, [,{")).collect();
    let many: Vec<_> = many.iter().map(|(key, value)| (&key[..], *value)).collect();
    for metadata in [&[("log", &text[..])][..], &many] {
        rewritten(path, &randomized(linear(), 1), &Form::torch(), metadata);
        let loaded = export::load(linear(), path).unwrap();
        assert_eq!(record(&loaded), record(&randomized(linear(), 1)));
    }
}

/// A head that is the embedding, with a parameter of its own.
#[derive(Module, Debug)]
struct Untied {
    embed: Embedding,
    head: Linear,
}

impl Untied {
    fn new() -> Self {
        let embed = EmbeddingConfig::new(7, 4).init(&device());
        Self { embed, head: LinearConfig::new(4, 7).with_bias(false).init(&device()) }
    }

    fn answer(&self) -> Vec<f64> {
        let rows = Tensor::<2, Int>::from_data([[0, 3, 6]], &device());
        let answer = self.head.forward(self.embed.forward(rows)).into_data().convert::<f64>();
        answer.try_into_vec().unwrap()
    }
}

#[derive(Module, Debug)]
struct Head {
    weight: Param<Tensor<2>>,
}

/// Two paths of one parameter.
#[derive(Module, Debug)]
struct Tied {
    embed: Embedding,
    head: Head,
}

impl Tied {
    fn new(seed: u64) -> Self {
        let embed = randomized(EmbeddingConfig::new(7, 4).init(&device()), seed);
        let head = Head { weight: embed.weight.clone() };
        Self { embed, head }
    }

    fn weights(&self) -> [Vec<f32>; 2] {
        [&self.embed.weight, &self.head.weight]
            .map(|it| it.val().into_data().try_into_vec().unwrap())
    }
}

/// PyTorch's `save_model` writes one of two names, and says so.
#[test]
fn a_shared_tensor_of_pytorch_is_in_both_places() {
    let expected = numbers(&answers()["tied"]);
    for file in ["torch_tied.safetensors", "torch_tied.pt"] {
        let untied = export::load(Untied::new(), oracle(file)).unwrap();
        assert_close(&untied.answer(), &expected, 1e-5);
        let tied = export::load(Tied::new(1), oracle(file)).unwrap();
        let [embed, head] = tied.weights();
        assert_eq!(embed, head);
        assert_eq!(embed, untied.embed.weight.val().into_data().try_into_vec::<f32>().unwrap());
        assert_eq!(tied.embed.weight.id, tied.head.weight.id);
    }
    // Under a prefix, as a part of something larger.
    let directory = tempfile::tempdir().unwrap();
    let path = &directory.path().join("larger.safetensors");
    let whole = fs::read(oracle("torch_tied.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let (name, weight) = tensors.iter().next().unwrap();
    let other = if name == "embed.weight" { "head.weight" } else { "embed.weight" };
    let names = [format!("ema.{name}"), format!("ema.{other}")];
    let tensors = [(&names[0][..], Dtype::F32, &[7, 4][..], weight.data().to_vec())];
    written(path, &tensors, &[(&names[1], &names[0])]);
    let untied = export::load_with(Untied::new(), path, &under("ema")).unwrap();
    assert_close(&untied.answer(), &expected, 1e-5);
    let found = why(export::load(Untied::new(), path), path);
    assert!(found.ends_with("; all of it fits with the option prefix `ema`"), "{found}");

    // A file that does not say so needs the module's own tie, or a name.
    for (name, other) in [("embed", "head"), ("head", "embed")] {
        let name = format!("{name}.weight");
        written(path, &[(&name, Dtype::F32, &[7, 4], weight.data().to_vec())], &[]);
        let [embed, head] = export::load(Tied::new(1), path).unwrap().weights();
        assert_eq!(embed, head);
        let found = why(export::load(Untied::new(), path), path);
        assert!(found.starts_with(&format!("{other}.weight: expected f32 [7, 4]")), "{found}");
        let (shared, renamed) = (name.strip_suffix(".weight").unwrap(), other);
        let form = Form::Torch(Names::new().with(renamed, shared));
        let untied = export::load_as(Untied::new(), path, &form).unwrap();
        assert_close(&untied.answer(), &expected, 1e-5);
    }
    // Only a tensor of the same shape is shared.
    written(path, &[("embed.weight", Dtype::F32, &[4, 7], weight.data().to_vec())], &[]);
    let found = why(export::load(Tied::new(1), path), path);
    assert!(found.contains("expected f32 [7, 4], found f32 [4, 7]"), "{found}");
}

#[test]
fn a_tied_module_comes_back_from_every_form() {
    let directory = tempfile::tempdir().unwrap();
    let as_one = Form::Torch(Names::new().with("head", "embed"));
    for (number, form) in FORMS.iter().map(|form| form()).chain([as_one.clone()]).enumerate() {
        let path = directory.path().join(format!("{number}"));
        export::save(&Tied::new(1), &path, &form, &description()).unwrap();
        let loaded = export::load_as(Tied::new(2), &path, &form).unwrap();
        assert_eq!(loaded.weights(), Tied::new(1).weights(), "{form:?}");
        assert_eq!(loaded.embed.weight.id, loaded.head.weight.id);
        let count = Contents::read(&path).unwrap().tensors.len();
        assert_eq!(count, if number == 3 { 1 } else { 2 });
    }
    // Two parameters are not written as one.
    let path = directory.path().join("two.safetensors");
    let two = Tied { head: Tied::new(2).head, ..Tied::new(1) };
    let expected = "embed.weight: expected one tensor of this name, found those of embed.weight \
                    and head.weight";
    assert_eq!(why(export::save(&two, &path, &as_one, &description()), &path), expected);
}

#[test]
fn what_is_no_file_of_weights_is_called_that() {
    let directory = tempfile::tempdir().unwrap();
    let index = r#"{"metadata": {"total_size": 9}, "weight_map": {
        "model.embed.weight": "model-00001-of-00002.safetensors",
        "head.weight": "model-00002-of-00002.safetensors"}}"#;
    let padded = format!("{{\"metadata\": \"{}\",{}", "x".repeat(5000), &index[1..]);
    let shards = "an index of a model in shards";
    let shards = shards.replace("an index", "the index");
    let named = "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors";
    for (name, bytes, expected) in [
        ("model.safetensors.index.json", index.as_bytes(), &shards[..]),
        ("padded.index.json", padded.as_bytes(), &shards),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid ", "a Git LFS"),
        ("model.pt", b"<!DOCTYPE html><html><head><title>Sign in", "a web page"),
        ("model.bin", b"\n<html>\n{", "a web page"),
        ("model.safetensors.gz", &[31, 139, 8, 0, 0, 0, 0, 0, 0, 3], "a gzip file"),
        ("config.json", b"{\"architectures\": [\"GPT2\"]}", "a JSON text"),
        ("model.gguf", b"GGUF\x03\0\0\0{", "a GGUF file"),
        ("model.h5", b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file"),
    ] {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        for found in [why(export::load(net(), &path), &path), why(Contents::read(&path), &path)] {
            let start = format!("the file: expected weights, found {expected}");
            assert!(found.starts_with(&start), "{name}: {found}");
            assert!(!name.ends_with("index.json") || found.ends_with(named), "{found}");
        }
    }
}

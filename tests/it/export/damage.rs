//! What is cut, altered, claimed, or does not fit: an error by its name, or the same model.

use std::{error::Error as _, fs, path::Path};

use burn::{
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::{DType, quantization::QuantScheme},
};
use burn_ema::{
    AverageConfig, Error, Rule,
    export::{self, Contents, Form, Names},
    model::MlpConfig,
    train::Averaged,
};
use safetensors::{Dtype, tensor::TensorView};

use super::{FORMS, description, oracle, record};
use crate::{
    common::{Net, device, randomized},
    hand::cast,
};

fn linear(seed: u64) -> Linear {
    randomized(LinearConfig::new(2, 3).init(&device()), seed)
}

/// Why a file was refused, without the file, which the error names.
#[track_caller]
pub fn why<T>(result: burn_ema::Result<T>, path: &Path) -> String {
    let error = result.map(|_| ()).unwrap_err();
    assert!(error.to_string().ends_with(&path.display().to_string()), "{error}");
    error.source().map_or_else(String::new, ToString::to_string)
}

#[test]
fn what_was_cut_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.safetensors");
    let mut files: Vec<_> = FORMS
        .iter()
        .map(|form| {
            export::save(&linear(1), &path, &form(), &description()).unwrap();
            (fs::read(&path).unwrap(), 1)
        })
        .collect();
    // Of others, without a digest.
    files.extend([
        (fs::read(oracle("torch_mlp.safetensors")).unwrap(), 7),
        (fs::read(oracle("torch_mlp.pt")).unwrap(), 7),
        (fs::read(oracle("torch_mlp_legacy.pt")).unwrap(), 7),
    ]);
    let mlp = MlpConfig::new(vec![64, 32, 10]).init(&device()).unwrap();
    for (number, (whole, every)) in files.iter().enumerate() {
        for length in (0..whole.len()).step_by(*every) {
            fs::write(&path, &whole[..length]).unwrap();
            let refused = match number {
                0..3 => why(export::load(linear(2), &path), &path),
                _ => why(export::load(mlp.clone(), &path), &path),
            };
            assert!(!refused.is_empty(), "{length} of file {number}");
        }
        // And what was added to.
        fs::write(&path, [&whole[..], &[0; 9]].concat()).unwrap();
        if matches!(number, 1..4) {
            why(Contents::read(&path), &path);
        }
    }
}

#[test]
fn what_was_altered_is_refused_or_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("altered.safetensors");
    let original = record(&linear(1));
    for (number, form) in FORMS.iter().enumerate().skip(1) {
        export::save(&linear(1), &path, &form(), &description()).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut unnoticed = Vec::new();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&path, &bytes).unwrap();
                match export::load(linear(2), &path) {
                    Err(_) => _ = why(export::load(linear(2), &path), &path),
                    Ok(loaded) => {
                        assert_eq!(record(&loaded), original, "bit {bit} of {at}");
                        unnoticed.push(at);
                    }
                }
            }
        }
        assert_eq!(unnoticed, Vec::<usize>::new(), "{number}");
    }
}

/// The archive has a checksum of all that matters; before it there was none.
#[test]
fn an_altered_file_of_pytorch_is_refused_or_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("altered.pt");
    let fresh = MlpConfig::new(vec![64, 32, 10]).init(&device()).unwrap();
    for (name, is_checked) in [("torch_mlp.pt", true), ("torch_mlp_legacy.pt", false)] {
        let whole = fs::read(oracle(name)).unwrap();
        let original = record(&export::load(fresh.clone(), oracle(name)).unwrap());
        let mut refused = 0;
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at / 3 % 8);
            fs::write(&path, &bytes).unwrap();
            match export::load(fresh.clone(), &path) {
                Err(_) => refused += 1,
                Ok(loaded) if is_checked => assert_eq!(record(&loaded), original, "byte {at}"),
                Ok(_) => {}
            }
        }
        assert!(refused > if is_checked { 3000 } else { 100 }, "{name}: {refused}");
    }
}

/// A tensor of any bytes.
fn tensor(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let view = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let bias = TensorView::new(Dtype::F32, vec![3], &[0; 12]).unwrap();
    safetensors::serialize([("weight", view), ("bias", bias)], None).unwrap()
}

#[test]
fn a_tensor_that_does_not_fit_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.safetensors");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        why(export::load(linear(1), &path), &path)
    };
    let of = |dtype, shape: &[usize], bytes: usize| refused(&tensor(dtype, shape, &vec![0; bytes]));
    assert_eq!(of(Dtype::F32, &[3, 3], 36), "weight: expected f32 [3, 2], found f32 [3, 3]");
    assert_eq!(of(Dtype::F32, &[6], 24), "weight: expected f32 [3, 2], found f32 [6]");
    let castable = |dtype: &str, how: &str| {
        let found = format!("{dtype} [3, 2], which the option cast {how}");
        format!("weight: expected f32 [3, 2], found {found}")
    };
    assert_eq!(of(Dtype::F64, &[3, 2], 48), castable("f64", "rounds"));
    assert_eq!(of(Dtype::BF16, &[3, 2], 12), castable("bf16", "widens without loss"));
    assert_eq!(of(Dtype::I32, &[3, 2], 24), "weight: expected f32 [3, 2], found i32 [3, 2]");
    let eighths = "weight: expected a dtype of Burn's, found F8_E4M3";
    assert_eq!(of(Dtype::F8_E4M3, &[3, 2], 6), eighths);
    let nan: Vec<u8> =
        [0.0, 1.0, 2.0, f32::NAN, 4.0, 5.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let refusal = refused(&tensor(Dtype::F32, &[3, 2], &nan));
    // In the order that the numbers have here.
    assert_eq!(refusal, "weight: expected finite numbers, found NaN at index 4");

    // Missing and further ones, of every kind of file.
    for (file, first) in [("torch_mlp.safetensors", "0.bias"), ("torch_mlp.pt", "0.bias")] {
        let path = oracle(file);
        let load = |sizes: &[usize]| {
            let mlp = MlpConfig::new(sizes.to_vec()).init(&device()).unwrap();
            why(export::load(mlp, &path), &path)
        };
        let here = "(layers.0.bias here)";
        assert_eq!(
            load(&[64, 31, 10]),
            format!("{first} {here}: expected f32 [31], found f32 [32]")
        );
        let weight = "0.weight (layers.0.weight here)";
        assert_eq!(
            load(&[63, 32, 10]),
            format!("{weight}: expected f32 [32, 63], found f32 [32, 64]")
        );
        let expected =
            "4.bias (layers.2.bias here): expected f32 [4], found nothing of this name in the file";
        assert_eq!(load(&[64, 32, 10, 4]), expected);
        assert_eq!(
            load(&[64, 32]),
            "2.bias: expected no tensor of this name, found f32 [10] in the file, which the option \
             leave_out passes over"
        );
        let double = cast(MlpConfig::new(vec![64, 32, 10]).init(&device()).unwrap(), DType::F64);
        let error = why(export::load(double, &path), &path);
        let way_on = "which the option cast widens without loss";
        let found = format!("found f32 [32], {way_on}");
        assert_eq!(error, format!("0.bias (layers.0.bias here): expected f64 [32], {found}"));
        let error = why(export::load(Net::new(1, &device()), &path), &path);
        let others = "nothing of this name among 0.bias, 0.weight, 2.bias, ...";
        assert_eq!(error, format!("first.bias: expected f32 [16], found {others}"));
    }
    export::save(&linear(1), &path, &Form::Burnpack, &description()).unwrap();
    let error = why(export::load(LinearConfig::new(3, 2).init(&device()), &path), &path);
    assert_eq!(error, "bias: expected f32 [2], found f32 [3]");
}

/// A header, and as many bytes as it says.
fn with_header(header: &str, bytes: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![0; bytes]].concat()
}

#[test]
fn what_a_header_claims_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("claims.safetensors");
    // As large as numbers go, one after the other.
    let step = 1_u64 << 61;
    let claims = (0..8).map(|index| {
        let (from, to) = (index * (step - 4), (index + 1) * (step - 4));
        let shape = step / 4 - 1;
        format!(r#""{index}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{from},{to}]}}"#)
    });
    let claims = format!("{{{}}}", claims.collect::<Vec<_>>().join(","));
    let one = |shape: &str, offsets: &str| {
        format!(r#"{{"weight":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let twice = one("[2]", "[0,8]");
    let twice = twice.trim_matches(['{', '}']);
    let twice = format!("{{{twice}}},{twice}}}}}");
    let nested = format!("{{{}", r#""a":{"#.repeat(100_000));
    let cases = [
        (claims, 0, "the tensors: expected 18446744073709551584 bytes"),
        (one("[4294967296,4294967296]", "[0,0]"), 0, "overflow"),
        (one("[2]", "[0,16]"), 16, "the header"),
        (one("[2]", "[8,0]"), 8, "the header"),
        (one("[2]", "[8,16]"), 16, "the header"),
        (
            one("[2]", "[0,8]"),
            7,
            "the tensors: expected 8 bytes, as the header says, found 7 bytes",
        ),
        (
            one("[2]", "[0,8]"),
            9,
            "the tensors: expected 8 bytes, as the header says, found 9 bytes",
        ),
        (one("[-1]", "[0,8]"), 8, "the header"),
        (r#"{"weight":7}"#.to_owned(), 8, "the header"),
        (nested, 0, "the header"),
        (
            one(&format!("[{}1]", "1,".repeat(1_200_000)), "[0,4]"),
            4,
            "the header: weight: expected at most 64 dimensions, found 1200001",
        ),
        (twice, 8, "weight is there twice"),
        ("{\"\u{fffd}".to_owned(), 0, "the header"),
    ];
    for (header, bytes, expected) in cases {
        fs::write(&path, with_header(&header, bytes)).unwrap();
        let found = why(export::load(linear(1), &path), &path);
        assert!(found.contains(expected), "{found}");
        assert_eq!(why(Contents::read(&path), &path), found);
    }
    for (bytes, expected) in [
        (
            &b""[..],
            "the first bytes: expected those of burnpack, safetensors or torch.save, found []",
        ),
        (b"weights!", "found [77, 65, 69, 67, 68, 74, 73, 21]"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff{}", "expected 18446744073709551615 bytes, as it says"),
        (b"\x03\0\0\0\0\0\0\0{}", "the header: expected 3 bytes, as it says, found a file of 10"),
        (b"PK\x03\x04 and no more", "torch.save"),
        (b"\x80\x02 and no more", "torch.save"),
    ] {
        fs::write(&path, bytes).unwrap();
        let found = why(export::load(linear(1), &path), &path);
        assert!(found.contains(expected), "{found}");
    }
    why(export::load(linear(1), directory.path()), directory.path());
    let nowhere = directory.path().join("nowhere");
    why(export::load(linear(1), &nowhere), &nowhere);
}

/// A truth value is 0 or 1.
#[test]
fn no_other_truth_than_two() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mask.safetensors");
    export::save(&super::Every::new(1), &path, &Form::torch(), &description()).unwrap();
    let whole = fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, view)| match name {
            "mask" => (name, TensorView::new(Dtype::BOOL, vec![2], &[1, 2]).unwrap()),
            _ => (name, view),
        })
        .collect();
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let error = why(export::load(super::Every::new(2), &path), &path);
    assert_eq!(
        error,
        "mask: expected a tensor that can be read, found 2 for a truth value at index 1"
    );
}

#[test]
fn what_cannot_be_written_leaves_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    fs::write(&path, "older").unwrap();
    let save = |form: Form| {
        why(export::save(&Net::new(1, &device()), &path, &form, &description()), &path)
    };
    let names = Names::new().with("first", "both").with("last", "both");
    let expected = "both.weight: expected one tensor of this name, found those of first.weight and last.weight";
    assert_eq!(save(Form::Torch(names)), expected);

    let scheme = QuantScheme::default();
    let quantized = linear(1).map(&mut Quantize(scheme));
    let error = why(export::save(&quantized, &path, &Form::torch(), &description()), &path);
    assert_eq!(error, "weight: expected a dtype that safetensors have, found qfloat");

    // A hook is several modules.
    let hook = Averaged::new(Net::new(1, &device()), [AverageConfig::new(Rule::ema(0.9))]).unwrap();
    let error = why(export::save(&hook, &path, &Form::Safetensors, &description()), &path);
    let found = "nothing: save one of its modules alone";
    assert_eq!(
        error,
        format!("first.bias: expected an entry in the module's record, found {found}")
    );

    assert_eq!(fs::read_to_string(&path).unwrap(), "older");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let nowhere = directory.path().join("nowhere/model.safetensors");
    let error = export::save(&linear(1), &nowhere, &Form::torch(), &description()).unwrap_err();
    assert!(matches!(&error, Error::File { path, .. } if *path == nowhere), "{error}");
}

struct Quantize(QuantScheme);

impl burn::module::ModuleMapper for Quantize {
    fn map_float<const D: usize>(
        &mut self,
        param: burn::module::Param<burn::tensor::Tensor<D>>,
    ) -> burn::module::Param<burn::tensor::Tensor<D>> {
        if D == 1 {
            return param;
        }
        param.map(|tensor| tensor.quantize_dynamic(&self.0))
    }
}

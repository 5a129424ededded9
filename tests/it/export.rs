//! Models as files of other frameworks, and from them.

mod damage; // what is cut, altered, claimed or does not fit
mod foreign; // files of other programs

use std::{
    collections::BTreeMap,
    fs,
    io::{Write as _, stderr},
    path::{Path, PathBuf},
    process::Command,
};

use burn::{
    module::{Module, Param},
    nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout},
    tensor::{Bool, DType, Int, Tensor, TensorData},
};
use burn_ema::{
    AverageConfig, Rule,
    average::Description,
    export::{self, Contents, Form, Kind, Names},
    model::{Mlp, MlpConfig},
};
use burn_ema_lab::data::{Targets, digits};
use burn_pack::Reader;
use serde_json::Value;

use crate::{
    common::{EXACT, Net, assert_close, constants, device, numbers, randomized},
    hand::cast,
};

/// What other programs made.
pub fn oracle(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(name)
}

/// Every tensor of a module as a record has it: dtype, shape, bytes.
pub fn record<M: Module>(module: &M) -> BTreeMap<String, (DType, Vec<usize>, Vec<u8>)> {
    let bytes = module.clone().into_record().into_bytes().unwrap();
    let tensors = Reader::from_bytes(bytes).unwrap().into_tensors().unwrap().into_iter();
    let parts = tensors.map(|tensor| tensor.into_parts().unwrap());
    parts
        .map(|(path, dtype, shape, _, bytes)| (path, (dtype, shape.to_vec(), bytes.to_vec())))
        .collect()
}

/// One of everything that has a name or a layout of its own somewhere.
#[derive(Module, Debug)]
pub struct Every {
    body: Mlp,
    norm: LayerNorm,
    part: Part,
    square: Linear,
    none: Option<Linear>,
    counts: Param<Tensor<1, Int>>,
    mask: Param<Tensor<1, Bool>>,
}

#[derive(Module, Debug)]
enum Part {
    Wide(Linear),
    Narrow(Linear),
}

impl Every {
    pub fn new(seed: u64) -> Self {
        let device = &device();
        let (counts, mask) = constants(seed);
        let every = Self {
            body: MlpConfig::new(vec![3, 5, 2]).init(device).unwrap(),
            norm: LayerNormConfig::new(2).init(device),
            part: Part::Wide(LinearConfig::new(2, 7).init(device)),
            // The saved form is transposed.
            square: LinearConfig::new(4, 4).with_layout(LinearLayout::Col).init(device),
            none: None,
            counts,
            mask,
        };
        randomized(every, seed)
    }
}

fn description() -> Description {
    Description::new("live", 7, "a test")
}

const FORMS: [fn() -> Form; 3] = [|| Form::Burnpack, || Form::Safetensors, Form::torch];

/// What PyTorch wrote answers as PyTorch did, whatever its file is called.
#[test]
fn pytorchs_perceptron_answers_as_there() {
    let text = fs::read_to_string(oracle("torch_mlp.json")).unwrap();
    let case: Value = serde_json::from_str(&text).unwrap();
    let rows = case["inputs"].as_array().unwrap().len();
    let inputs: Vec<f32> = numbers(&case["inputs"]).into_iter().map(|x| x as f32).collect();
    let inputs = Tensor::<2>::from_data(TensorData::new(inputs, [rows, 64]), &device());
    let directory = tempfile::tempdir().unwrap();
    let files = [
        ("torch_mlp.safetensors", Kind::Torch),
        ("torch_mlp.pt", Kind::Pt),
        ("torch_mlp_legacy.pt", Kind::Pt),
    ];
    for (file, kind) in files {
        let path = directory.path().join("weights.of_some_kind");
        fs::copy(oracle(file), &path).unwrap();
        let Contents { kind: found, description, tensors, .. } = Contents::read(&path).unwrap();
        assert_eq!((found, description.is_none(), tensors.len()), (kind, true, 4));
        let fresh = MlpConfig::new(vec![64, 32, 10]).init(&device()).unwrap();
        let ids = |mlp: &Mlp| mlp.layers.iter().map(|layer| layer.weight.id).collect::<Vec<_>>();
        let own = ids(&fresh);
        let mlp = export::load(fresh, &path).unwrap();
        assert_eq!(ids(&mlp), own, "a file without ids leaves the module its own");
        let outputs = mlp.forward(inputs.clone()).into_data().convert::<f64>();
        let outputs: Vec<f64> = outputs.try_into_vec().unwrap();
        let off = outputs.iter().zip(numbers(&case["outputs"])).map(|(a, b)| (a - b).abs());
        let most = off.fold(0.0, f64::max);
        assert!(most <= if EXACT { 1e-6 } else { 1e-5 }, "{file}: off by {most}");

        let table = digits().unwrap();
        let Targets::Classes { of_row, .. } = table.targets() else { panic!() };
        let all: Vec<f32> =
            table.features().iter().flatten().map(|&ink| (ink / 16.0) as f32).collect();
        let all = TensorData::new(all, [of_row.len(), 64]);
        let classes = mlp.forward(Tensor::from_data(all, &device())).argmax(1).into_data();
        let right = classes.iter::<i64>().zip(of_row).filter(|(a, b)| *a == **b as i64).count();
        let accuracy = case["accuracy_on_all_1797"].as_f64().unwrap();
        assert!((right as f64 / of_row.len() as f64 - accuracy).abs() < 1e-6, "{file}: {right}");
    }
}

/// Its batch norm too, whose count of batches Burn has no place for.
#[test]
fn pytorchs_batch_norm_answers_as_there() {
    let text = fs::read_to_string(oracle("torch_net.json")).unwrap();
    let case: Value = serde_json::from_str(&text).unwrap();
    let net = export::load(Net::new(1, &device()), oracle("torch_net.safetensors")).unwrap();
    let inputs: Vec<f32> = numbers(&case["inputs"]).into_iter().map(|x| x as f32).collect();
    let inputs = Tensor::<2>::from_data(TensorData::new(inputs, [5, 2]), &device());
    let outputs = net.valid().forward(inputs).into_data().convert::<f64>();
    let outputs: Vec<f64> = outputs.try_into_vec().unwrap();
    assert_close(&outputs, &numbers(&case["outputs"]), 1e-5);
}

/// Any module, in any form and dtype, bit for bit.
#[test]
fn what_is_written_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let dtypes = [DType::F32, DType::F64, DType::F16, DType::BF16];
    for dtype in dtypes.into_iter().filter(|dtype| EXACT || *dtype == DType::F32) {
        for (number, form) in FORMS.iter().enumerate() {
            let written = cast(Every::new(1), dtype);
            let path = directory.path().join(format!("{}-{number}", dtype.name()));
            export::save(&written, &path, &form(), &description()).unwrap();
            let other = cast(Every::new(2), dtype);
            assert_ne!(record(&other), record(&written));
            let loaded = export::load(other, &path).unwrap();
            assert_eq!(record(&loaded), record(&written), "{dtype:?}, {:?}", form());
            // Once more, to the same bytes.
            let file = path.with_extension(["bpk", "safetensors", "safetensors"][number]);
            let before = fs::read(&file).unwrap();
            export::save(&written, &path, &form(), &description()).unwrap();
            assert!(fs::read(&file).unwrap() == before, "{:?}", form());
        }
    }
    let files = fs::read_dir(directory.path()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert!(
        names.into_iter().all(|name| name.ends_with(".bpk") || name.ends_with(".safetensors")),
        "nothing else stays there"
    );
}

/// The names and shapes of the file.
fn names_in(path: &Path) -> Vec<String> {
    let tensors = Contents::read(path).unwrap().tensors.into_iter();
    tensors
        .map(|(name, (dtype, shape))| format!("{name} {} {:?}", dtype.name(), shape.as_slice()))
        .collect()
}

#[test]
fn names_and_shapes_are_those_of_pytorch() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let mlp = MlpConfig::new(vec![4, 3, 2]).init(&device()).unwrap();
    export::save(&mlp, &path, &Form::torch(), &description()).unwrap();
    let expected =
        ["0.bias f32 [3]", "0.weight f32 [3, 4]", "2.bias f32 [2]", "2.weight f32 [2, 3]"];
    assert_eq!(names_in(&path), expected);

    export::save(&Net::new(1, &device()), &path, &Form::torch(), &description()).unwrap();
    let expected = [
        "first.bias f32 [16]",
        "first.weight f32 [16, 2]",
        "last.bias f32 [3]",
        "last.weight f32 [3, 16]",
        "norm.bias f32 [16]",
        "norm.running_mean f32 [16]",
        "norm.running_var f32 [16]",
        "norm.weight f32 [16]",
    ];
    assert_eq!(names_in(&path), expected);

    let int = Every::new(1).counts.dtype().name();
    export::save(&Every::new(1), &path, &Form::torch(), &description()).unwrap();
    let expected = [
        "body.0.bias f32 [5]",
        "body.0.weight f32 [5, 3]",
        "body.2.bias f32 [2]",
        "body.2.weight f32 [2, 5]",
        &format!("counts {int} [2]"),
        "mask bool [2]",
        "norm.bias f32 [2]",
        "norm.weight f32 [2]",
        "part.bias f32 [7]",
        "part.weight f32 [7, 2]",
        "square.bias f32 [4]",
        "square.weight f32 [4, 4]",
    ];
    assert_eq!(names_in(&path), expected);
    export::save(&Every::new(1), &path, &Form::Safetensors, &description()).unwrap();
    let expected = ["body.layers.0.bias f32 [5]", "body.layers.0.weight f32 [3, 5]"];
    assert_eq!(names_in(&path)[..2], expected);
    assert!(names_in(&path).contains(&"part.Wide.weight f32 [2, 7]".to_owned()));
}

/// What is called otherwise in PyTorch.
#[test]
fn names_of_yours_go_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let net = Net::new(1, &device());
    let names =
        Names::new().with("", "net").with("first", "net.0").with("norm", "1").with("las", "no");
    let form = Form::Torch(names);
    export::save(&net, &path, &form, &description()).unwrap();
    let names = names_in(&path);
    let names: Vec<_> = names.iter().map(|name| name.split(' ').next().unwrap()).collect();
    let expected = [
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.weight",
        "net.0.bias",
        "net.0.weight",
        "net.last.bias",
        "net.last.weight",
    ];
    assert_eq!(names, expected);
    let loaded = export::load_as(Net::new(2, &device()), &path, &form).unwrap();
    assert_eq!(record(&loaded), record(&net));

    let body = Every::new(1).body;
    let form = Form::Torch(Names::new().with("0.weight", "first").with("2", ""));
    export::save(&body, &path, &form, &description()).unwrap();
    let names = names_in(&path);
    let expected = ["0.bias f32 [5]", "bias f32 [2]", "first f32 [5, 3]", "weight f32 [2, 5]"];
    assert_eq!(names, expected);

    let form = Form::Torch(Names::new().with("0.bias", "__metadata__"));
    let error = export::save(&body, &path, &form, &description()).unwrap_err();
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.starts_with("__metadata__: expected a name"), "{reason}");
}

/// Structs of a user that have the names of this crate's, one of them of this crate's layers.
mod theirs {
    use burn::{
        module::{Module, Param},
        tensor::Tensor,
    };

    #[derive(Module, Debug)]
    pub struct Dense {
        pub weight: Param<Tensor<2>>,
    }

    #[derive(Module, Debug)]
    pub struct Mlp<D> {
        pub layers: Vec<D>,
    }

    #[derive(Module, Debug)]
    pub struct Decoder {
        pub layers: Vec<Dense>,
        pub body: Mlp<Dense>,
        pub ours: Mlp<burn_ema::model::Dense>,
    }
}

/// The type decides about a dense layer and a perceptron, not its name.
#[test]
fn structs_of_yours_are_written_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let decoder = |seed| {
        let zeros = |shape| Param::from_tensor(Tensor::<2>::zeros(shape, &device()));
        let dense = |shape| theirs::Dense { weight: zeros(shape) };
        let ours = MlpConfig::new(vec![4, 3, 2]).init(&device()).unwrap();
        let decoder = theirs::Decoder {
            layers: vec![dense([3, 3])],
            body: theirs::Mlp { layers: vec![dense([2, 3]), dense([3, 3])] },
            ours: theirs::Mlp { layers: ours.layers },
        };
        randomized(decoder, seed)
    };
    export::save(&decoder(1), &path, &Form::torch(), &description()).unwrap();
    let expected = [
        "body.layers.0.weight f32 [2, 3]",
        "body.layers.1.weight f32 [3, 3]",
        "layers.0.weight f32 [3, 3]",
        // A dense layer of this crate in a list of theirs.
        "ours.layers.0.bias f32 [3]",
        "ours.layers.0.weight f32 [3, 4]",
        "ours.layers.1.bias f32 [2]",
        "ours.layers.1.weight f32 [2, 3]",
    ];
    assert_eq!(names_in(&path), expected);
    let loaded = export::load_as(decoder(2), &path, &Form::torch()).unwrap();
    assert_eq!(record(&loaded), record(&decoder(1)));

    // The file has their numbers in the order of the module.
    let theirs = |seed| {
        let theirs::Decoder { layers, body, .. } = decoder(seed);
        theirs::Decoder { layers, body, ours: theirs::Mlp { layers: Vec::new() } }
    };
    export::save(&theirs(1), &path, &Form::torch(), &description()).unwrap();
    let as_it_is = export::load_as(theirs(2), &path, &Form::Safetensors).unwrap();
    assert_eq!(record(&as_it_is), record(&theirs(1)));
}

/// The average and live of a training, with what is said of each.
#[test]
fn an_average_and_live_say_what_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let [start, live] = [1, 2].map(|seed| Net::new(seed, &device()));
    let mut average = AverageConfig::new(Rule::ema(0.75)).init(&start).unwrap();
    average.update(&live, 1).unwrap();
    let described = average.describe("run 7 of Tuesday");
    assert_eq!(
        described.to_string(),
        "ema(0.75) at step 1, 75.0 % of it the start, from run 7 of Tuesday"
    );
    assert_eq!((described.mass, described.mass_on_start), (average.mass(), 0.75));
    let of_live = Description::new("live", 1, "run 7 of Tuesday");
    assert_eq!(of_live.to_string(), "live at step 1, 0.0 % of it the start, from run 7 of Tuesday");
    for (number, form) in FORMS.iter().enumerate() {
        for (module, description) in [(average.module(), &described), (live.clone(), &of_live)] {
            let path = directory.path().join(format!("{number}"));
            export::save(&module, &path, &form(), description).unwrap();
            let contents = Contents::read(&path).unwrap();
            assert_eq!(contents.description.as_ref(), Some(description), "{:?}", form());
            let kind = [Kind::Burnpack, Kind::Safetensors, Kind::Torch][number];
            assert_eq!(contents.kind, kind);
            let loaded = export::load(Net::new(3, &device()), &path).unwrap();
            assert_eq!(record(&loaded), record(&module));
        }
    }
    // What an average keeps to go on from is read too, as its weights.
    let path = directory.path().join("going-on.bpk");
    let config = AverageConfig::new("window(2 snapshots, 1 steps)".parse().unwrap());
    let mut window = config.init(&start).unwrap();
    window.update(&live, 1).unwrap();
    window.save_file(&path, "a test").unwrap();
    let contents = Contents::read(&path).unwrap();
    assert_eq!(contents.tensors.len(), 8, "{:?}", contents.tensors);
    assert_eq!(contents.description, Some(window.describe("a test")));
    let loaded = export::load(Net::new(3, &device()), &path).unwrap();
    assert_eq!(record(&loaded), record(&window.module()));
}

/// Python, if it has what a script needs; else the reason, aloud.
fn python(needs: &str) -> Option<Command> {
    let has = Command::new("python3").args(["-c", &format!("import {needs}")]).output();
    match has {
        Ok(output) if output.status.success() => Some(Command::new("python3")),
        _ => {
            // Past what the harness captures.
            let said = format!("SKIPPED: there is no python3 with {needs} here\n");
            stderr().write_all(said.as_bytes()).unwrap();
            None
        }
    }
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What we write, Python's safetensors reads, byte for byte.
#[test]
fn python_reads_the_same_bytes() {
    const READ: &str = "
import sys, safetensors, safetensors.numpy
for name, array in sorted(safetensors.numpy.load_file(sys.argv[1]).items()):
    print(name, array.dtype, list(array.shape), array.tobytes().hex())
with safetensors.safe_open(sys.argv[1], 'numpy') as file:
    print(file.metadata()['burn-ema.rule'], file.metadata()['burn-ema.step'], file.metadata().get('format'))
";
    let Some(mut command) = python("numpy, safetensors") else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    command.args(["-c", READ]).arg(&path);
    for dtype in [DType::F32, DType::F64, DType::F16].into_iter().filter(|_| EXACT) {
        let every = cast(Every::new(3), dtype);
        export::save(&every, &path, &Form::Safetensors, &description()).unwrap();
        let numpy = |dtype: DType| match dtype {
            DType::F64 => "float64",
            DType::F32 => "float32",
            DType::F16 => "float16",
            DType::I64 => "int64",
            DType::I32 => "int32",
            DType::Bool(_) => "bool",
            other => panic!("{other:?}"),
        };
        let lines = record(&every).into_iter().map(|(name, (dtype, shape, bytes))| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{name} {} {shape:?} {hex}\n", numpy(dtype))
        });
        assert_eq!(said(&mut command), lines.collect::<String>() + "live 7 None\n");
    }
    // The same numbers, turned.
    let linear = randomized(LinearConfig::new(2, 3).with_bias(false).init(&device()), 4);
    export::save(&linear, &path, &Form::torch(), &description()).unwrap();
    let weight = linear.weight.val().transpose().into_data();
    let hex: String = weight.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(said(&mut command), format!("weight float32 [3, 2] {hex}\nlive 7 pt\n"));
}

/// PyTorch loads what we write for it, and answers as we do.
#[test]
fn pytorch_answers_as_we_do() {
    const ANSWER: &str = "
import sys, torch, safetensors.torch as s
layers = [torch.nn.Linear(4, 3), torch.nn.Sigmoid(), torch.nn.Linear(3, 2), torch.nn.Sigmoid()]
mlp = torch.nn.Sequential(*layers)
mlp.load_state_dict(s.load_file(sys.argv[1]))
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 16)
        self.norm = torch.nn.BatchNorm1d(16)
        self.last = torch.nn.Linear(16, 3)
net = Net().eval()
net.load_state_dict(s.load_file(sys.argv[2]))
forward = lambda x: net.last(torch.sigmoid(net.norm(net.first(x))))
print(mlp(torch.tensor([[0.1, -0.2, 0.3, 0.5]])).tolist()[0] + forward(torch.tensor([[0.4, -0.7]])).tolist()[0])
";
    let Some(mut command) = python("torch, safetensors.torch") else { return };
    let directory = tempfile::tempdir().unwrap();
    let paths =
        ["mlp", "net"].map(|name| directory.path().join(name).with_extension("safetensors"));
    let mlp = randomized(MlpConfig::new(vec![4, 3, 2]).init(&device()).unwrap(), 5);
    export::save(&mlp, &paths[0], &Form::torch(), &description()).unwrap();
    // Statistics of its own.
    let net =
        export::load(Net::new(1, &device()), oracle("torch_net.safetensors")).unwrap().valid();
    export::save(&net, &paths[1], &Form::torch(), &description()).unwrap();
    let found: Value =
        serde_json::from_str(&said(command.args(["-c", ANSWER]).args(&paths))).unwrap();
    let of_mlp = mlp.forward(Tensor::from_data([[0.1, -0.2, 0.3, 0.5]], &device()));
    let of_net = net.forward(Tensor::from_data([[0.4, -0.7]], &device()));
    let ours = [of_mlp, of_net].map(|answer| answer.into_data().convert::<f64>());
    let ours = ours.into_iter().flat_map(|answer| answer.try_into_vec::<f64>().unwrap());
    assert_close(&numbers(&found), &ours.collect::<Vec<_>>(), 1e-5);
}

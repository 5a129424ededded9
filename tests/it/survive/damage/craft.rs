//! Runs to damage, and files altered so that their digests fit all the same.

use std::{
    collections::BTreeMap,
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::LazyLock,
};

use burn::{
    module::Module as _,
    tensor::{Bytes, Device},
};
use burn_ema::{
    AverageConfig, Result, Rule,
    model::Mlp,
    runs::{Commits, Fit, Progress},
    train::Averaged,
};
use burn_ema_lab::run::{RunConfig, RunDirectory};
use burn_pack::{Reader, Tensor, Writer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::survive::workload::{Net, Plan, chain, scratch};

pub const MANIFEST: &str = "MANIFEST.json";
pub const MODEL: &str = "model.bpk";
pub const OPTIMIZER: &str = "optimizer.bpk";
pub const SCHEDULER: &str = "scheduler.bpk";
/// The files of a commit that its manifest names.
pub const NAMED: [&str; 3] = [MODEL, OPTIMIZER, SCHEDULER];

/// A whole run, and one of another seed.
pub static RUN: LazyLock<Run> = LazyLock::new(|| Run::trained(|_| ()));
pub static OTHER: LazyLock<Run> = LazyLock::new(|| Run::trained(|plan| plan.seed = 2));

/// A run that was trained in a process of its own, in memory, so that nothing damages it.
pub struct Run {
    plan: Plan,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// A copy of a run to damage, gone with its test.
pub struct Copy {
    pub plan: Plan,
    _scratch: Option<TempDir>,
}

impl Run {
    /// Two epochs of four batches, but for a change, and every commit that they make.
    pub fn trained(change: impl FnOnce(&mut Plan)) -> Self {
        let scratch = scratch();
        let run = scratch.path().join("run");
        let mut plan = Plan { epochs: 2, batch_size: 16, keep_last: 1000, ..Plan::new(run) };
        change(&mut plan);
        plan.golden();
        let mut files = read_all(&plan.run);
        files.remove(Path::new("LOCK"));
        Self { plan, files }
    }

    /// The run in a directory.
    pub fn at(&self, directory: impl Into<PathBuf>) -> Copy {
        let plan = Plan { run: directory.into(), resume: true, ..self.plan.clone() };
        write_all(&plan.run, &self.files);
        Copy { plan, _scratch: None }
    }

    pub fn copy(&self) -> Copy {
        let scratch = scratch();
        let Copy { plan, .. } = self.at(scratch.path().join("run"));
        Copy { plan, _scratch: Some(scratch) }
    }

    /// A file of the newest commit.
    pub fn file(&self, name: &str) -> &[u8] {
        let commit = Path::new("commits").join("epoch-0002");
        &self.files[&commit.join(name)]
    }
}

impl Copy {
    /// The run without all commits but the newest.
    pub fn with_one_commit(self) -> Self {
        for place in self.plan.commits().into_iter().filter(|place| *place != self.newest()) {
            fs::remove_dir_all(self.at(place)).unwrap();
        }
        self
    }

    pub fn commits(&self) -> Commits {
        Commits::of(&self.plan.run)
    }

    pub fn newest(&self) -> Progress {
        Progress::after(2)
    }

    /// The directory of a commit.
    pub fn at(&self, Progress { epochs, batches }: Progress) -> PathBuf {
        let name = match batches {
            0 => format!("epoch-{epochs:04}"),
            batches => format!("epoch-{epochs:04}-batch-{batches:06}"),
        };
        self.plan.run.join("commits").join(name)
    }

    /// A file of the newest commit.
    pub fn path(&self, name: &str) -> PathBuf {
        self.at(self.newest()).join(name)
    }

    /// Replaces a file of the newest commit, and its digest.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        put(&self.at(self.newest()), name, bytes);
    }

    /// Alters the manifest of the newest commit, and its digest.
    pub fn reseal(&self, edit: impl FnOnce(&mut Value)) {
        reseal(&self.path(MANIFEST), edit);
    }

    /// Goes on in this process, but for the training itself.
    pub fn resume(&self) -> Result<Fit<Averaged<Net>>> {
        self.plan.fit()?.resume()
    }

    /// Why the run cannot go on with a file whose digest fits.
    #[track_caller]
    pub fn refusal_of(&self, name: &str, bytes: &[u8]) -> String {
        let before = fs::read(self.path(name)).unwrap();
        self.put(name, bytes);
        self.commits().open(self.newest()).unwrap();
        let error = self.within(name, &refusal(self.resume()));
        self.put(name, &before);
        error
    }

    /// The rest of an error that begins with the path of a file of the newest commit.
    #[track_caller]
    pub fn within(&self, name: &str, error: &str) -> String {
        let path = self.path(name).display().to_string();
        let rest = error.split_once(&format!("{path}: "));
        rest.unwrap_or_else(|| panic!("{path} is not in: {error}")).1.to_owned()
    }
}

/// All files of a directory, by their paths in it.
pub fn read_all(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        match path.is_dir() {
            true => {
                let within = read_all(&path).into_iter();
                files.extend(within.map(|(path, bytes)| (name.join(path), bytes)));
            }
            false => _ = files.insert(name, fs::read(path).unwrap()),
        }
    }
    files
}

pub fn write_all(root: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, bytes) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Replaces a file of the commit in a directory, and its digest.
pub fn put(commit: &Path, name: &str, bytes: &[u8]) {
    fs::write(commit.join(name), bytes).unwrap();
    reseal(&commit.join(MANIFEST), |manifest| {
        manifest["files"][name] = json!({ "bytes": bytes.len(), "sha256": sha256(bytes) });
    });
}

/// Alters a manifest, and its digest.
pub fn reseal(path: &Path, edit: impl FnOnce(&mut Value)) {
    let text = fs::read_to_string(path).unwrap();
    let (json, _) = text.split_once("\nsha256 ").unwrap();
    let mut manifest = serde_json::from_str(json).unwrap();
    edit(&mut manifest);
    let json = serde_json::to_string_pretty(&manifest).unwrap() + "\n";
    fs::write(path, signed(json.as_bytes())).unwrap();
}

/// The text of a manifest, with its digest.
pub fn signed(json: &[u8]) -> Vec<u8> {
    [json, format!("sha256 {}\n", sha256(json)).as_bytes()].concat()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An error with its reasons.
#[track_caller]
pub fn refusal<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(error) => chain(&error),
    }
}

/// A file that is altered in place, which takes less time than to write it anew.
pub struct Altered(fs::File);

impl Altered {
    pub fn open(path: &Path) -> Self {
        Self(fs::File::options().write(true).open(path).unwrap())
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0.seek(SeekFrom::Start(at as u64)).unwrap();
        self.0.write_all(bytes).unwrap();
    }

    pub fn cut(&self, length: u64) {
        self.0.set_len(length).unwrap();
    }
}

/// Where the metadata of Burn's bytes begins, whose length stands before it.
const METADATA: usize = 10;

/// The metadata of Burn's bytes, and where the tensors begin.
fn metadata(bytes: &[u8]) -> (Value, usize) {
    let length = u32::from_le_bytes(bytes[METADATA - 4..METADATA].try_into().unwrap());
    let end = METADATA + length as usize;
    (ciborium::from_reader(&bytes[METADATA..end]).unwrap(), end.next_multiple_of(256))
}

/// Burn's bytes with other metadata before the tensors.
pub fn with_metadata(bytes: &[u8], edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (mut value, start) = metadata(bytes);
    edit(&mut value);
    let mut metadata = Vec::new();
    ciborium::into_writer(&value, &mut metadata).unwrap();
    with_cbor(&metadata, bytes.get(start..).unwrap_or(&[]))
}

/// Burn's bytes of any metadata, which need not be some.
pub fn with_cbor(metadata: &[u8], tensors: &[u8]) -> Vec<u8> {
    let mut bytes = b"NRUB\x01\0".to_vec();
    bytes.extend((metadata.len() as u32).to_le_bytes());
    bytes.extend(metadata);
    bytes.resize(bytes.len().next_multiple_of(256), 0);
    bytes.extend(tensors);
    bytes
}

/// Burn's bytes that say another length of their metadata.
pub fn with_claim(bytes: &[u8], length: u32) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[METADATA - 4..METADATA].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// The file of an average with the digest that fits it, if it has a place for one.
pub fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    // The key, and the head of a text of 64 bytes.
    let mark = b"burn-ema.sha256\x78\x40";
    let start = bytes.windows(mark.len()).position(|window| window == mark)? + mark.len();
    let place = start..start + 64;
    let mut sealed = bytes.to_vec();
    sealed.get_mut(place.clone())?.fill(b'0');
    let digest = sha256(&sealed);
    sealed[place].copy_from_slice(digest.as_bytes());
    Some(sealed)
}

/// Burn's bytes with a number of a tensor of f32 replaced.
pub fn with_number(bytes: &[u8], tensor: &str, index: usize, number: f32) -> Vec<u8> {
    let (metadata, start) = metadata(bytes);
    let offset = metadata["tensors"][tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    let at = start + offset + 4 * index;
    let mut bytes = bytes.to_vec();
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Burn's bytes with each tensor replaced, or left out.
pub fn with_tensors(bytes: &[u8], edit: impl FnMut(Tensor) -> Option<Tensor>) -> Vec<u8> {
    with_list(bytes, |tensors| tensors.into_iter().filter_map(edit).collect())
}

/// Burn's bytes with their tensors in the opposite order.
pub fn turned_around(bytes: &[u8]) -> Vec<u8> {
    with_list(bytes, |tensors| tensors.into_iter().rev().collect())
}

fn with_list(bytes: &[u8], edit: impl FnOnce(Vec<Tensor>) -> Vec<Tensor>) -> Vec<u8> {
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(bytes.to_vec())).unwrap();
    let (scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
    let mut writer = Writer::new(edit(reader.into_tensors().unwrap()));
    for (key, value) in scalars {
        writer = writer.with_scalar(&key, value);
    }
    for (key, value) in metadata {
        writer = writer.with_metadata(&key, &value);
    }
    writer.into_bytes().unwrap().to_vec()
}

/// Bytes that a reader may believe too much, made of those of a file.
pub fn hostile(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let deep = |bytes: &[u8]| with_cbor(&bytes.repeat(100_000), &[]);
    let huge = |kind: u8| {
        let length = (u64::MAX / 2).to_be_bytes();
        with_cbor(&[&[kind << 5 | 27], &length[..], &[0x61; 99]].concat(), &[])
    };
    let entries = |field: &'static str, count: usize, entry: Value| {
        with_metadata(bytes, |metadata| {
            if metadata[field].is_null() {
                metadata[field] = json!({});
            }
            let entries = metadata[field].as_object_mut().unwrap();
            entries.extend((0..count).map(|index| (format!("{index}"), entry.clone())));
        })
    };
    let empty = json!({ "dtype": "F32", "shape": [0], "data_offsets": [0, 0] });
    let mut version = bytes.to_vec();
    version[4] = 2;
    let mut files = vec![
        ("nothing", Vec::new()),
        ("one byte", bytes[..1].to_vec()),
        ("zeros", vec![0; bytes.len()]),
        ("a newer version", version),
        ("100 MB of metadata", with_claim(bytes, 100 << 20)),
        ("4 GB of metadata", with_claim(bytes, u32::MAX)),
        ("lists in lists", deep(&[0x81])),
        ("maps in maps", deep(&[0xa1, 0x60])),
        ("tags of tags", deep(&[0xc1])),
        ("a text without end", with_cbor(&[&[0x7f], &[0x61; 99][..]].concat(), &[])),
        ("bytes of 8 EB", huge(2)),
        ("a text of 8 EB", huge(3)),
        ("a list of 8 EB", huge(4)),
        ("a map of 8 EB", huge(5)),
        ("90,000 tensors", entries("tensors", 90_000, empty)),
        ("90,000 scalars", entries("scalars", 90_000, json!({ "Bool": true }))),
        ("90,000 texts", entries("metadata", 90_000, json!(""))),
        ("9,000 scalars", entries("scalars", 9000, json!({ "Bool": true }))),
        ("9,000 texts", entries("metadata", 9000, json!(""))),
    ];
    if let Some(name) = names(bytes).first() {
        let tensor = |field: &'static str, value: Value| {
            with_metadata(bytes, |metadata| metadata["tensors"][name][field] = value)
        };
        let of_shape = |shape: Value, bytes_after: u64| {
            with_metadata(bytes, |metadata| {
                let tensor = &mut metadata["tensors"][name];
                tensor["shape"] = shape;
                tensor["data_offsets"] = json!([0, bytes_after]);
            })
        };
        let most = u64::MAX;
        files.extend([
            ("a shape of 2^65 numbers", tensor("shape", json!([most, 2]))),
            ("a shape of 2^64 numbers", tensor("shape", json!([1_u64 << 32, 1_u64 << 32]))),
            ("nothing in many rows", of_shape(json!([0, most]), 0)),
            ("a rank of 10,000", of_shape(json!(vec![1; 10_000]), 4)),
            ("a rank of 2,000,000", of_shape(json!(vec![1; 2_000_000]), 4)),
            ("9 GB of numbers", of_shape(json!([9_u64 << 28]), 9 << 30)),
            ("99 GB of numbers", of_shape(json!([99_u64 << 28]), 99 << 30)),
            ("a place after the end", tensor("data_offsets", json!([1_u64 << 40, 1_u64 << 40]))),
            ("a place before its begin", tensor("data_offsets", json!([256, 0]))),
            ("a place without bounds", tensor("data_offsets", json!([most, most]))),
            ("an unknown dtype", tensor("dtype", json!("F31"))),
            ("a boolean", tensor("dtype", json!({ "Bool": "Native" }))),
        ]);
    }
    files
}

/// Headers of safetensors that claim much, and the bytes behind each.
pub fn hostile_headers() -> Vec<(&'static str, String, usize)> {
    let tensors = |count: usize, shape: &str, width: usize| {
        let tensor = |index| {
            let (from, to) = (index * width, (index + 1) * width);
            format!(r#""{index}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        format!("{{{}}}", (0..count).map(tensor).collect::<Vec<_>>().join(","))
    };
    let texts = |count| {
        let texts: Vec<_> = (0..count).map(|index| format!(r#""{index:x}":"""#)).collect();
        format!(r#"{{"__metadata__":{{{}}}}}"#, texts.join(","))
    };
    let rank = |rank| format!("[{}]", vec!["1"; rank].join(","));
    vec![
        ("60,000 tensors of nothing", tensors(60_000, "[0]", 0), 0),
        ("150,000 tensors of nothing", tensors(150_000, "[0]", 0), 0),
        ("300,000 tensors of nothing", tensors(300_000, "[0]", 0), 0),
        ("a rank of 1,000,000", tensors(1, &rank(1_000_000), 4), 4),
        ("a rank of 4,000,000", tensors(1, &rank(4_000_000), 4), 4),
        ("60,000 texts", texts(60_000), 0),
        ("2,000,000 texts", texts(2_000_000), 0),
        ("a text of 8 MB", format!(r#"{{"__metadata__":{{"a":"{}"}}}}"#, "a".repeat(8 << 20)), 0),
        ("white space of 8 MB", format!("{{{}}}", " ".repeat(8 << 20)), 0),
    ]
}

/// Configurations that a reader may believe too much, made of one, and whether they are none.
///
/// Where they are as long as one may be, their digests fit, so that a parser is reached.
pub fn hostile_configs(config: &str) -> Vec<(&'static str, String, bool)> {
    const MAX_BYTES: usize = 1 << 20;
    // As many as there is room for, in place of a field that is there or beside all.
    let full = |field: Option<&str>, item: &str| {
        let mut value: Value = serde_json::from_str(config).unwrap();
        let place = match field {
            Some(field) => value.pointer_mut(field).unwrap(),
            None => &mut value["more"],
        };
        *place = "here".into();
        let text = serde_json::to_string_pretty(&value).unwrap() + "\n";
        let room = MAX_BYTES - text.len();
        let items = vec![item; room / (item.len() + 1)].join(",");
        sealed_config(&text.replace("\"here\"", &format!("[{items}]")))
    };
    let value: Value = serde_json::from_str(config).unwrap();
    let compact = |pointer: &str| value.pointer(pointer).unwrap().to_string();
    let deep = |open: &str| sealed_config(&config.replacen('{', &open.repeat(100_000), 1));
    vec![
        ("nothing", String::new(), true),
        ("longer than any", sealed_config(&(config.to_owned() + &" ".repeat(MAX_BYTES))), true),
        ("a list of 100 MB", format!("[{}0]", "0,".repeat(50_000_000)), true),
        ("a list that is not sealed", format!("[{}0]", "0,".repeat(MAX_BYTES / 2 - 2)), true),
        ("many layers", full(Some("/model/sizes"), "2"), false),
        (
            "many features",
            full(Some("/preparation/features"), &compact("/preparation/features/0")),
            true,
        ),
        ("many averages", full(Some("/averages"), &compact("/averages/0")), false),
        ("many labels", full(Some("/preparation/task/Classification/labels"), "\"\""), true),
        ("many numbers beside it", full(None, "0"), false),
        ("many maps beside it", full(None, "{\"\":0}"), false),
        ("lists in lists", deep("["), true),
        ("maps in maps", deep("{\"\":"), true),
    ]
}

/// A configuration with the digest that fits it.
fn sealed_config(text: &str) -> String {
    let (before, rest) = text.split_once("\n  \"sha256\": \"").unwrap();
    let text = format!("{before}\n  \"sha256\": \"{}{}", "0".repeat(64), &rest[64..]);
    let digest = sha256(text.as_bytes());
    text.replacen(&"0".repeat(64), &digest, 1)
}

/// Texts in the place of the manifest of a run's newest commit: what it is, the file that an error
/// must name, and the text, without its digest.
pub fn hostile_manifests(run: &Run) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let text = String::from_utf8(run.file(MANIFEST).to_vec()).unwrap();
    let manifest: Value = serde_json::from_str(text.split_once("\nsha256 ").unwrap().0).unwrap();
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut manifest = manifest.clone();
        edit(&mut manifest);
        manifest.to_string().into_bytes()
    };
    let file = json!({ "bytes": 1, "sha256": sha256(b"1") });
    let named = |name: &str| with(&|manifest| manifest["files"][name] = file.clone());
    let seed = |seed: Value| with(&|manifest| manifest["seed"] = seed.clone());
    let most = |what: &str, count: usize| what.repeat(count).into_bytes();
    let fields: serde_json::Map<_, _> =
        (0..90_000).map(|index| (index.to_string(), json!(0))).collect();
    let mut texts = vec![
        ("nothing", MANIFEST, Vec::new()),
        ("zeros", MANIFEST, vec![0; 4096]),
        ("no text", MANIFEST, vec![0xff; 4096]),
        ("lists in lists", MANIFEST, most("[", 100_000)),
        ("maps in maps", MANIFEST, most("{\"a\":", 100_000)),
        ("a number of 100,000 digits", MANIFEST, most("9", 100_000)),
        ("a text without end", MANIFEST, [b"\"", &most("a", 1 << 20)[..]].concat()),
        ("twice as much", MANIFEST, with(&|_| ()).repeat(2)),
        ("a list of 200,000 numbers", MANIFEST, seed(json!(vec![0; 200_000]))),
        ("a map of 90,000 numbers", MANIFEST, seed(fields.into())),
        ("a text of 4 MB", MANIFEST, seed("a".repeat(4 << 20).into())),
        (
            "a configuration of 300,000 maps",
            MANIFEST,
            with(&|m| m["config"] = json!(vec![json!({ "a": 0 }); 300_000])),
        ),
        ("a list as configuration", MANIFEST, with(&|m| m["config"] = json!(vec![0; 200_000]))),
        (
            "90,000 averages",
            MANIFEST,
            with(&|m| m["averages"] = json!(vec![["ema(0.9)", "ema(0.9)"]; 90_000])),
        ),
        ("a file of 18 EB", MODEL, with(&|m| m["files"][MODEL]["bytes"] = json!(u64::MAX))),
        ("a file that is none", MANIFEST, named("/dev/zero")),
        ("a file elsewhere", MANIFEST, named("../../metrics.csv")),
        ("a file further down", MANIFEST, named("a/b")),
        ("the directory", MANIFEST, named(".")),
        ("a file without a name", MANIFEST, named("")),
        (
            "90,000 files",
            "0",
            with(&|m| {
                let files = m["files"].as_object_mut().unwrap();
                files.extend((0..90_000).map(|index| (index.to_string(), file.clone())));
            }),
        ),
    ];
    for (_, _, text) in &mut texts {
        text.push(b'\n');
    }
    texts
}

/// The names of the tensors in Burn's bytes.
pub fn names(bytes: &[u8]) -> Vec<String> {
    metadata(bytes).0["tensors"].as_object().unwrap().keys().cloned().collect()
}

/// A run of the perceptron that has left its model.
pub struct Perceptron {
    pub run: RunDirectory,
    pub config: RunConfig,
    pub model: Mlp,
    _scratch: TempDir,
}

impl Perceptron {
    pub fn new() -> Self {
        let scratch = scratch();
        let config = small_config();
        let run = RunDirectory::create(scratch.path().join("run"), &config).unwrap();
        let model = config.model.init(&Device::flex()).unwrap();
        burn_ema::average::save_file(&model, run.model_file(), "a test").unwrap();
        Self { run, config, model, _scratch: scratch }
    }
}

impl Perceptron {
    /// The run before it has left its model: its newest commit has the average.
    pub fn with_commit() -> (Self, PathBuf) {
        let this = Self::new();
        fs::remove_file(this.run.model_file()).unwrap();
        let commits = RUN.copy().with_one_commit();
        let copy = Copy {
            plan: Plan { run: this.run.path().to_owned(), ..commits.plan.clone() },
            _scratch: None,
        };
        let directory = copy.at(copy.newest());
        fs::create_dir_all(&directory).unwrap();
        for name in [MANIFEST, MODEL, OPTIMIZER, SCHEDULER] {
            fs::copy(commits.path(name), directory.join(name)).unwrap();
        }
        let averages = [AverageConfig::new(Rule::ema(0.9))];
        let record = Averaged::new(this.model.clone(), averages).unwrap().into_record();
        copy.put(MODEL, &record.into_bytes().unwrap());
        (this, directory.join(MODEL))
    }
}

/// A configuration with something in every field.
fn small_config() -> RunConfig {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts/digits/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(committed).unwrap()).unwrap();
    config["model"]["sizes"] = json!([2, 3, 2]);
    let shorter = |list: &mut Value| list.as_array_mut().unwrap().truncate(2);
    shorter(&mut config["preparation"]["features"]);
    serde_json::from_value(config).unwrap()
}

//! Damage to files: each is refused by its name, and what is not refused is the same.

mod craft; // runs to damage, and files altered so that their digests fit all the same

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use burn::{
    module::{Module, ModuleMapper, Param},
    store::ModuleRecord,
    tensor::{DType, Device, Tensor, TensorData},
    train::InferenceStep,
};
use burn_ema::{
    Average, AverageConfig, Result, Rule,
    average::{self, Description, Snapshots},
    export,
    model::{Activation, Batch, MlpConfig},
    runs::{Commits, Progress, RunLock},
    train::{Averaged, AveragedCommit as _},
};
use burn_ema_lab::{
    report::Page,
    run::{RunConfig, RunDirectory},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::craft::{
    Altered, Copy, MANIFEST, MODEL, NAMED, OPTIMIZER, OTHER, Perceptron, RUN, Run, SCHEDULER,
    names, refusal, sha256, turned_around, with_metadata, with_number, with_tensors,
};
use super::{
    rows,
    workload::{Ended, Net, Plan, chain, scratch},
};
use crate::{child, common::tensors};

/// The files of a commit: its manifest, and those that the manifest names.
fn files() -> impl Iterator<Item = &'static str> {
    [MANIFEST].into_iter().chain(NAMED)
}

/// Checks that the newest commit is passed over for its file of this name, and returns why.
#[track_caller]
fn passed_over(copy: &Copy, name: &str) -> String {
    let newest = copy.commits().newest().unwrap();
    let [error] = &newest.passed_over[..] else { panic!("{newest:?}") };
    let earlier = Progress { epochs: 1, batches: 3 };
    assert_eq!(newest.commit.unwrap().progress(), earlier);
    copy.within(name, &chain(error))
}

#[test]
fn every_file_cut_at_every_byte() {
    let copy = RUN.copy();
    let mut cases = 0;
    for name in files() {
        let path = copy.path(name);
        let whole = fs::read(&path).unwrap();
        let file = Altered::open(&path);
        for length in (0..whole.len()).rev() {
            file.cut(length as u64);
            let error = passed_over(&copy, name);
            if name == MANIFEST {
                assert!(error.starts_with("sha256: expected "), "{length}: {error}");
            } else {
                let found = format!("expected {} bytes, found {length} bytes", whole.len());
                assert_eq!(error, format!("its length: {found}"));
            }
            cases += 1;
        }
        fs::write(path, whole).unwrap();
    }
    assert!(copy.commits().newest().unwrap().passed_over.is_empty());
    cases += metrics_cut_at_every_byte() + exported_models_cut_at_every_byte();
    rows::ran(7, cases);
}

/// Nothing is decided by the metrics, so that the commit is used all the same.
fn metrics_cut_at_every_byte() -> usize {
    // Of a run that has few.
    let copy = Run::trained(|plan| (plan.epochs, plan.batch_size) = (1, 64)).copy();
    let newest = Progress::after(1);
    let path = copy.plan.run.join("metrics.csv");
    let whole = fs::read(&path).unwrap();
    let damaged = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let fit = copy.resume().unwrap();
        let resumed = fit.resumed().unwrap();
        assert_eq!(resumed.from, Some(newest));
        let [error] = &resumed.passed_over[..] else { panic!("{resumed:?}") };
        let start = format!("cannot go on with {}: ", path.display());
        chain(error).strip_prefix(&start).unwrap().to_owned()
    };
    for length in 0..whole.len() {
        let expected = format!("expected at least {} bytes, found {length} bytes", whole.len());
        assert_eq!(damaged(&whole[..length]), format!("its length: {expected}"));
    }
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let (expected, found) = (sha256(&whole), sha256(&bytes));
        let expected = format!("sha256: expected {expected}, found {found}: it was altered");
        assert_eq!(damaged(&bytes), expected);
    }
    // What is damaged is set aside when the training begins.
    let cut = &whole[..whole.len() / 2];
    damaged(cut);
    assert_eq!(fs::read(&path).unwrap(), cut);
    copy.resume().unwrap().launch().unwrap();
    assert_eq!(fs::read(path.with_extension("csv.aside-1")).unwrap(), cut);
    whole.len() + whole.len().div_ceil(7)
}

/// An average in a file of its own, and a module that was made of averages.
fn exported() -> Vec<Exported> {
    let [live, other] = [1, 2].map(|seed| crate::common::randomized(net(8), seed));
    let mut average = AverageConfig::new(Rule::ema(0.9)).init(&live).unwrap();
    average.update(&other, 1).unwrap();
    let scratch = [scratch(), scratch()];
    let paths = scratch.each_ref().map(|scratch| scratch.path().join("model.bpk"));
    average.save_file(&paths[0], "a test").unwrap();
    average::save_file(&live, &paths[1], "a test").unwrap();
    let modules = [average.module(), live];
    let averages = [Some(average), None];
    let all = scratch.into_iter().zip(paths).zip(modules).zip(averages);
    all.map(|(((scratch, path), module), average)| {
        let bytes = fs::read(&path).unwrap();
        Exported { _scratch: scratch, path, bytes, module, average }
    })
    .collect()
}

struct Exported {
    _scratch: tempfile::TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
    module: Net,
    average: Option<Average<Net>>,
}

impl Exported {
    /// The errors of every way to load the file, each of which loads the same module otherwise.
    #[track_caller]
    fn errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        match average::load_file(net(8), &self.path) {
            Ok(module) => assert_eq!(contents(&module), contents(&self.module)),
            Err(error) => errors.push(chain(&error)),
        }
        if let Some(average) = &self.average {
            let other = AverageConfig::new(Rule::ema(0.9)).init(&net(8)).unwrap();
            match other.try_load_file(&self.path) {
                Ok(loaded) => {
                    assert_eq!(contents(&loaded.module()), contents(&self.module));
                    assert_eq!(loaded.clock(), average.clock());
                    assert_eq!(loaded.mass().to_bits(), average.mass().to_bits());
                }
                Err(error) => errors.push(chain(&error)),
            }
        }
        let path = self.path.display().to_string();
        for error in &errors {
            assert!(error.contains(&path), "{error}");
        }
        errors
    }

    fn ways(&self) -> usize {
        1 + usize::from(self.average.is_some())
    }
}

/// What a module holds, but for the ids of its parameters.
fn contents<M: Module>(module: &M) -> Vec<(String, DType, TensorData)> {
    let tensors = tensors(module).into_iter();
    tensors.map(|(path, _, dtype, data)| (path, dtype, data)).collect()
}

fn net(hidden: usize) -> Net {
    Net::new(hidden, &Device::flex())
}

fn exported_models_cut_at_every_byte() -> usize {
    let mut cases = 0;
    for exported in exported() {
        let file = Altered::open(&exported.path);
        for length in (0..exported.bytes.len()).rev() {
            file.cut(length as u64);
            assert_eq!(exported.errors().len(), exported.ways(), "{length}");
            let described = refusal(Description::read(&exported.path));
            assert!(described.contains(&exported.path.display().to_string()), "{described}");
            cases += 1;
        }
    }
    // The model that a run left is its model, even where a commit would serve.
    let (Perceptron { run, model, .. }, _) = &Perceptron::with_commit();
    run.model(&Device::flex()).unwrap();
    let path = run.model_file();
    average::save_file(model, &path, "a test").unwrap();
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(17) {
        fs::write(&path, &whole[..length]).unwrap();
        let error = refusal(run.model(&Device::flex()));
        assert!(error.contains(&path.display().to_string()), "{error}");
        cases += 1;
    }
    cases
}

#[test]
fn every_bit_of_every_file() {
    let copy = RUN.copy();
    let commit = copy.commits().open(copy.newest()).unwrap();
    let mut cases = 0;
    for name in files() {
        let path = copy.path(name);
        let whole = fs::read(&path).unwrap();
        let mut file = Altered::open(&path);
        for (at, byte) in whole.iter().enumerate() {
            for bit in 0..8 {
                file.put(at, &[byte ^ 1 << bit]);
                // What a resume and a check of the whole commit call for each file.
                let error = match name {
                    MANIFEST => refusal(copy.commits().open(copy.newest())),
                    _ => refusal(commit.read(name)),
                };
                let error = copy.within(name, &error);
                assert!(error.starts_with("sha256: expected "), "bit {bit} of {at}: {error}");
                if name != MANIFEST {
                    assert!(error.contains(&format!("expected {}, found ", sha256(&whole))));
                    assert!(error.ends_with(": it was altered"), "{error}");
                }
                cases += 1;
            }
            file.put(at, &[*byte]);
        }
    }
    assert!(copy.commits().newest().unwrap().passed_over.is_empty());
    rows::ran(8, cases);
}

#[test]
fn every_bit_of_an_exported_model() {
    let mut cases = 0;
    for exported in exported() {
        let mut file = Altered::open(&exported.path);
        for (at, byte) in exported.bytes.iter().enumerate() {
            for bit in 0..8 {
                file.put(at, &[byte ^ 1 << bit]);
                assert_eq!(exported.errors().len(), exported.ways(), "bit {bit} of {at}");
                cases += 1;
            }
            file.put(at, &[*byte]);
        }
        assert_eq!(exported.errors(), [""; 0]);
        // The same tensors and texts, in other bytes or with more around them.
        let whole = &exported.bytes;
        let written_otherwise = with_metadata(whole, |_| ());
        let scalars = with_metadata(whole, |metadata| {
            metadata["scalars"] = json!({ "more": { "Bool": true } });
        });
        let longer = |more: &[u8]| [whole, more].concat();
        let others = [written_otherwise, scalars, longer(&[0]), longer(&[0; 256])];
        for bytes in others {
            assert_ne!(bytes, *whole);
            fs::write(&exported.path, &bytes).unwrap();
            for error in exported.errors() {
                assert!(error.contains("burn-ema.sha256: expected "), "{error}");
                assert!(error.ends_with(": it was altered"), "{error}");
            }
            assert_eq!(exported.errors().len(), exported.ways());
            cases += 1;
        }
    }
    rows::ran(8, cases);
}

/// Bytes with several bits flipped, a block zeroed, or a block written over another.
fn damaged(rng: &mut ChaCha8Rng, bytes: &[u8]) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    let block = |rng: &mut ChaCha8Rng| -> Range<usize> {
        let length = (1 << rng.random_range(0..=9)).min(bytes.len());
        let from = rng.random_range(0..=bytes.len() - length);
        from..from + length
    };
    match rng.random_range(0..3) {
        0 => {
            for _ in 0..rng.random_range(2..=64) {
                damaged[rng.random_range(0..bytes.len())] ^= 1 << rng.random_range(0..8);
            }
        }
        1 => damaged[block(rng)].fill(0),
        _ => {
            let from = block(rng);
            let to = rng.random_range(0..=bytes.len() - from.len());
            damaged.copy_within(from, to);
        }
    }
    damaged
}

#[test]
fn many_bits_and_blocks() {
    let (copy, exported) = (RUN.copy(), exported());
    let mut cases = 0;
    for seed in 0..4 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut left = 2500;
        while left > 0 {
            // A file of the commit, one time in three an exported model.
            let which = rng.random_range(0..6_usize);
            let name = files().nth(which);
            let (path, whole) = match name {
                Some(name) => (copy.path(name), RUN.file(name)),
                None => (exported[which - 4].path.clone(), &exported[which - 4].bytes[..]),
            };
            let damaged = damaged(&mut rng, whole);
            if damaged == whole {
                continue;
            }
            let mut file = Altered::open(&path);
            file.put(0, &damaged);
            match name {
                Some(name) => _ = passed_over(&copy, name),
                None => {
                    let exported = &exported[which - 4];
                    assert_eq!(
                        exported.errors().len(),
                        exported.ways(),
                        "seed {seed}, {left} left"
                    );
                }
            }
            file.put(0, whole);
            left -= 1;
            cases += 1;
        }
    }
    rows::ran(8, cases);
}

/// Through the whole of a resume, from the commit before, or not at all where there is none.
#[test]
fn a_run_goes_on_before_the_damage() {
    let [several, one] = [RUN.copy(), RUN.copy().with_one_commit()];
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut cases = 0;
    for name in files() {
        for round in 0..32 {
            let mut bytes = RUN.file(name).to_vec();
            match round % 2 {
                0 => {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] ^= 1 << rng.random_range(0..8);
                }
                _ => bytes.truncate(rng.random_range(0..bytes.len())),
            }
            for copy in [&several, &one] {
                fs::write(copy.path(name), &bytes).unwrap();
            }
            let fit = several.resume().unwrap();
            let resumed = fit.resumed().unwrap();
            assert_eq!(resumed.from, Some(Progress { epochs: 1, batches: 3 }));
            assert_eq!(resumed.passed_over.len(), 1);
            several.within(name, &chain(&resumed.passed_over[0]));
            one.within(name, &refusal(one.resume()));
            // Nothing is set aside by a resume that is not launched.
            assert_eq!(several.plan.commits().len(), 4);
            cases += 2;
        }
        for copy in [&several, &one] {
            fs::write(copy.path(name), RUN.file(name)).unwrap();
        }
    }
    rows::ran(8, cases);
}

#[test]
fn every_bit_of_a_configuration() {
    let Perceptron { run, .. } = &Perceptron::new();
    let path = run.path().join("config.json");
    let whole = fs::read(&path).unwrap();
    let mut file = Altered::open(&path);
    for (at, byte) in whole.iter().enumerate() {
        for bit in 0..8 {
            file.put(at, &[byte ^ 1 << bit]);
            let error = refusal(run.config());
            let start = format!("cannot use the configuration in {}: sha256: ", path.display());
            assert!(error.starts_with(&start), "bit {bit} of {at}: {error}");
        }
        file.put(at, &[*byte]);
    }
    run.config().unwrap();
    rows::ran(8, 8 * whole.len());
}

#[test]
fn a_configuration_that_could_not_be_read_is_not_written() {
    let Perceptron { run, config, .. } = &Perceptron::new();
    let path = run.path().join("config.json");
    let before = fs::read(&path).unwrap();
    let data = Some(PathBuf::from("a".repeat(1 << 20)));
    let error = refusal(run.write_config(&RunConfig { data, ..config.clone() }));
    let start = format!("cannot write {}: its length: expected at most 1048576", path.display());
    assert!(error.starts_with(&start), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// A way to load files, in a child whose memory is measured; modules are of a width.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Load {
    Resume(Plan),
    Committed(Plan),
    Module(PathBuf, usize),
    Average(PathBuf, usize),
    Description(PathBuf),
    /// A file of other programs.
    Foreign(PathBuf, usize),
    /// The configuration of a run.
    Config(PathBuf),
}

impl Load {
    /// What came of it, without making what it loads into.
    fn prepared(self) -> Box<dyn FnOnce() -> Result<()>> {
        match self {
            Self::Resume(plan) => {
                let fit = plan.fit().unwrap();
                Box::new(|| fit.resume().map(drop))
            }
            Self::Committed(plan) => {
                let net = net(plan.hidden);
                let newest = Commits::of(plan.run).newest().unwrap();
                Box::new(|| newest.commit.unwrap().average(net).map(drop))
            }
            Self::Module(path, hidden) => {
                let net = net(hidden);
                Box::new(|| average::load_file(net, path).map(drop))
            }
            Self::Average(path, hidden) => {
                let average = AverageConfig::new(Rule::ema(0.9)).init(&net(hidden)).unwrap();
                Box::new(|| average.try_load_file(path).map(drop))
            }
            Self::Description(path) => Box::new(|| Description::read(path).map(drop)),
            Self::Foreign(path, hidden) => {
                let net = net(hidden);
                Box::new(|| export::load(net, path).map(drop))
            }
            Self::Config(path) => {
                let run = RunDirectory::open(path).unwrap();
                Box::new(move || run.config().map(drop))
            }
        }
    }
}

/// What a child says of a load.
#[derive(Debug, Serialize, Deserialize)]
struct Loaded {
    error: Option<String>,
    /// Bytes at the peak that the process did not have before.
    peak: u64,
    /// Processor time, which does not depend on other processes.
    seconds: f64,
}

#[test]
#[ignore = "a process of the other tests"]
fn child() {
    let Some(task) = child::task() else { return };
    let load: Load = serde_json::from_str(&task).unwrap();
    let load = load.prepared();
    // The peak begins anew; a system that refuses counts more than the load took.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let (before, code, begun) = (memory("VmRSS"), memory("RssFile"), processor_seconds());
    let error = load().err().map(|error| chain(&error));
    let seconds = processor_seconds() - begun;
    // The code that ran first in the load is no memory that a file takes.
    let code = memory("RssFile").saturating_sub(code);
    let peak = memory("VmHWM").saturating_sub(before + code);
    child::say(&serde_json::to_string(&Loaded { error, peak, seconds }).unwrap());
}

/// The processor time that this process has had.
fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The name of the program, in brackets, may hold spaces; the times are in hundredths.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let times = fields.split_whitespace().skip(11).take(2);
    times.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// A figure of this process, in bytes.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// What a child of its own says of each load; one that does not end is ended.
fn loaded(loads: &[Load]) -> Vec<Loaded> {
    let through = ["timeout", "--signal=KILL", "60"];
    let loaded = |load: &Load| {
        let task = serde_json::to_string(load).unwrap();
        let output = child::command(&through, "survive::damage::child", &task).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let said = text.lines().find_map(|line| line.strip_prefix("child: "));
        serde_json::from_str(said.unwrap_or_else(|| panic!("{load:?}: {output:?}"))).unwrap()
    };
    loads.iter().map(loaded).collect()
}

/// A load of a file, and what it may come to.
struct Case {
    what: String,
    path: PathBuf,
    load: Load,
    /// The memory and the time that it may take.
    most: u64,
    seconds: f64,
    refused: bool,
}

/// Digests fit where a parser is to be reached, so that it is the contents that are refused.
#[test]
#[cfg(target_os = "linux")]
fn files_that_claim_too_much() {
    let scratch = scratch();
    let mut cases = Vec::new();
    let mut add = |what: String, path: &Path, load, refused| {
        let bytes = fs::metadata(path).unwrap().len();
        let most = 2 * bytes + (16 << 20);
        cases.push(Case { what, path: path.to_owned(), load, most, seconds: 1.0, refused });
    };
    for name in NAMED {
        for (index, (what, bytes)) in craft::hostile(RUN.file(name)).into_iter().enumerate() {
            let copy = RUN.at(scratch.path().join(format!("{name}-{index}"))).with_one_commit();
            copy.put(name, &bytes);
            copy.commits().open(copy.newest()).unwrap();
            // A module has neither, and does not look.
            let refused = name != MODEL || !matches!(what, "9,000 scalars" | "9,000 texts");
            let load = Load::Resume(copy.plan.clone());
            add(format!("{name}: {what}"), &copy.path(name), load, refused);
        }
    }
    let [exported, _] = &exported()[..] else { panic!() };
    assert_eq!(craft::sealed(&exported.bytes).as_ref(), Some(&exported.bytes));
    for (index, (what, bytes)) in craft::hostile(&exported.bytes).into_iter().enumerate() {
        let path = scratch.path().join(format!("exported-{index}.bpk"));
        fs::write(&path, &bytes).unwrap();
        let sealed = craft::sealed(&bytes).map(|bytes| {
            let path = path.with_extension("sealed");
            fs::write(&path, bytes).unwrap();
            path
        });
        for load in [Load::Module, Load::Average] {
            add(format!("exported: {what}"), &path, load(path.clone(), 8), true);
            if let Some(path) = &sealed {
                // It has its digest, and a module has no place for more.
                let refused = !matches!(what, "9,000 scalars" | "9,000 texts");
                add(format!("sealed: {what}"), path, load(path.clone(), 8), refused);
            }
        }
        // It reads no weights, whose shapes it does not know.
        let unknown = ["9,000 ", "a rank of 10,000", "nothing in many rows"];
        let refused = !unknown.iter().any(|unknown| what.starts_with(unknown));
        add(format!("described: {what}"), &path, Load::Description(path.clone()), refused);
    }
    let Perceptron { run, .. } = &Perceptron::new();
    let text = fs::read_to_string(run.path().join("config.json")).unwrap();
    for (index, (what, text, refused)) in craft::hostile_configs(&text).into_iter().enumerate() {
        let run = scratch.path().join(format!("config-{index}"));
        fs::create_dir(&run).unwrap();
        let path = run.join("config.json");
        fs::write(&path, text).unwrap();
        add(format!("config: {what}"), &path, Load::Config(run), refused);
    }
    // A file that has grown, whose digest does not fit; what is after the metrics is cut off.
    for name in [MANIFEST, MODEL, OPTIMIZER, SCHEDULER, "metrics.csv"] {
        for grown in [1, 1 << 30] {
            let run = scratch.path().join(format!("grown-{grown}-{name}"));
            let copy = RUN.at(run).with_one_commit();
            let metrics = name == "metrics.csv";
            let path = if metrics { copy.plan.run.join(name) } else { copy.path(name) };
            let file = Altered::open(&path);
            file.cut(fs::metadata(&path).unwrap().len() + grown);
            let what = format!("{name} grown by {grown} bytes");
            cases.push(Case {
                what,
                path,
                load: Load::Resume(copy.plan.clone()),
                most: 16 << 20,
                seconds: 1.0,
                refused: !metrics,
            });
        }
    }
    // Safetensors of others have no digest, and their entries take ten times their length. Without
    // optimization, the parser takes a second for eight million bytes of them.
    for (index, (what, header, bytes)) in craft::hostile_headers().into_iter().enumerate() {
        let path = scratch.path().join(format!("header-{index}.safetensors"));
        let length = (header.len() as u64).to_le_bytes();
        fs::write(&path, [&length[..], header.as_bytes(), &vec![0; bytes]].concat()).unwrap();
        let most = 10 * fs::metadata(&path).unwrap().len() + (16 << 20);
        let load = Load::Foreign(path.clone(), 8);
        cases.push(Case {
            what: format!("safetensors: {what}"),
            path,
            load,
            most,
            seconds: 5.0,
            refused: true,
        });
    }
    // What a manifest says is believed where its digest fits. The names of averages in it are for
    // readers: a resume goes by those in the model.
    for (index, (what, of, text)) in craft::hostile_manifests(&RUN).into_iter().enumerate() {
        let copy = RUN.at(scratch.path().join(format!("manifest-{index}"))).with_one_commit();
        fs::write(copy.path(MANIFEST), craft::signed(&text)).unwrap();
        let most = 2 * text.len() as u64 + (16 << 20);
        let refused = what != "90,000 averages";
        let (what, path) = (format!("manifest: {what}"), copy.path(of));
        cases.push(Case {
            what,
            path,
            load: Load::Resume(copy.plan.clone()),
            most,
            seconds: 1.0,
            refused,
        });
    }
    let loads: Vec<_> = cases.iter().map(|case| case.load.clone()).collect();
    let mut failed = Vec::new();
    let (mut slowest, mut largest) = (0.0_f64, 0);
    for (case, loaded) in cases.iter().zip(loaded(&loads)) {
        let named = case.path.display().to_string();
        let found = match &loaded.error {
            Some(error) => case.refused && error.contains(&named),
            None => !case.refused,
        };
        if !found || loaded.peak > case.most || loaded.seconds > case.seconds {
            failed.push(format!("{} {}: {loaded:?}", case.what, case.most));
        }
        (slowest, largest) = (slowest.max(loaded.seconds), largest.max(loaded.peak));
    }
    println!("{} loads, at most {slowest:.3} s and {largest} bytes", cases.len());
    assert!(failed.is_empty(), "{failed:#?}");
    rows::ran(9, cases.len());
}

/// Whole files, so large that what else a process needs does not hide how much they take.
#[test]
#[cfg(target_os = "linux")]
#[ignore = "takes a minute"]
fn large_files() {
    let scratch = scratch();
    let bytes = |path: &Path| fs::metadata(path).unwrap().len();
    let plan = Plan { epochs: 1, every_steps: None, hidden: 1_200_000, ..Plan::new("") };
    let plan = Plan { run: scratch.path().join("run"), ..plan };
    plan.golden();
    let commit = Commits::of(&plan.run).newest().unwrap().commit.unwrap();
    let model = bytes(&commit.path().join(MODEL));
    // A resume holds all three until the training takes them over.
    let all = NAMED.map(|name| bytes(&commit.path().join(name))).iter().sum();
    let hidden = 3_600_000;
    let paths = ["average.bpk", "module.bpk"].map(|name| scratch.path().join(name));
    let module = net(hidden);
    let average = AverageConfig::new(Rule::ema(0.9)).init(&module).unwrap();
    average.save_file(&paths[0], "a test").unwrap();
    average::save_file(&module, &paths[1], "a test").unwrap();
    let [average, module] = paths;
    let loads = [
        (Load::Resume(Plan { resume: true, ..plan.clone() }), all),
        (Load::Committed(plan), model),
        (Load::Average(average.clone(), hidden), bytes(&average)),
        (Load::Module(module.clone(), hidden), bytes(&module)),
    ];
    for (load, file) in loads {
        assert!(file >= 100_000_000, "{load:?}: {file}");
        let [loaded] = &loaded(std::slice::from_ref(&load))[..] else { panic!() };
        let share = loaded.peak as f64 / file as f64;
        println!("{load:?}: {:.2} of {file} bytes, {:.1} s", share, loaded.seconds);
        assert_eq!(loaded.error, None);
        assert!(loaded.peak <= 2 * file + (16 << 20), "{load:?}: {share:.2} of {file} bytes");
    }
}

/// Puts something at a path.
#[cfg(unix)]
type Put = fn(&Path);

/// What stands where a file should: it never ends, waits for someone, or is something else.
#[cfg(unix)]
const NO_FILES: [(&str, Put); 3] = [
    ("a pipe", |path| {
        let made = Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    }),
    ("a device", |path| std::os::unix::fs::symlink("/dev/null", path).unwrap()),
    ("a directory", |path| fs::create_dir(path).unwrap()),
];

/// What comes of work that must not wait for anyone.
#[track_caller]
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    thread::spawn(move || _ = done.send(work()));
    result.recv_timeout(Duration::from_secs(60)).expect("it waits, or panicked")
}

/// A reader or a resume that opened one would wait for ever, or never come to an end.
#[test]
#[cfg(unix)]
fn what_is_no_file() {
    type Reader = fn(PathBuf) -> Result<()>;
    let scratch = scratch();
    let exported: [Reader; 4] = [
        |path| average::load_file(net(8), path).map(drop),
        |path| {
            let average = AverageConfig::new(Rule::ema(0.9)).init(&net(8)).unwrap();
            average.try_load_file(path).map(drop)
        },
        |path| Description::read(path).map(drop),
        |path| Snapshots::open(path.parent().unwrap())?.list().map(drop),
    ];
    let of_run: [(&str, Reader); 3] = [
        ("config.json", |path| RunDirectory::open(path.parent().unwrap())?.config().map(drop)),
        ("model.bpk", |path| {
            RunDirectory::open(path.parent().unwrap())?.model(&Device::flex()).map(drop)
        }),
        ("LOCK", |path| RunDirectory::resume(path.parent().unwrap()).map(drop)),
    ];
    let drawn = ["metrics.csv", "report.json", "summary.json", "remarks.txt"];
    let draw: Reader = |path| Page::of(&[RunDirectory::open(path.parent().unwrap())?]).map(drop);
    let refused = |error: &str, path: &Path, what: &str| {
        let end = format!("{}: it is no file", path.display());
        assert!(error.ends_with(&end), "{what}: {error}");
    };
    for (index, (what, put)) in NO_FILES.into_iter().enumerate() {
        let path = scratch.path().join(format!("{index}/model.bpk"));
        fs::create_dir(path.parent().unwrap()).unwrap();
        put(&path);
        for read in exported {
            let given = path.clone();
            let error = in_time(move || refusal(read(given)));
            refused(&error, &path, what);
        }
        for (name, read) in of_run.into_iter().chain(drawn.map(|name| (name, draw))) {
            let Perceptron { run, .. } = &Perceptron::new();
            let path = run.path().join(name);
            let _ = fs::remove_file(&path);
            put(&path);
            let given = path.clone();
            refused(&in_time(move || refusal(read(given))), &path, what);
        }
        for name in files().chain(["metrics.csv"]) {
            let copy = RUN.copy();
            let metrics = name == "metrics.csv";
            let path = if metrics { copy.plan.run.join(name) } else { copy.path(name) };
            fs::remove_file(&path).unwrap();
            put(&path);
            let plan = copy.plan.clone();
            let passed_over = in_time(move || {
                let fit = plan.fit().unwrap().resume().unwrap();
                let passed_over = chain(&fit.resumed().unwrap().passed_over[0]);
                fit.launch().unwrap();
                passed_over
            });
            refused(&passed_over, &path, what);
        }
        // Where a new run would write its metrics.
        let run = scratch.path().join(format!("run-{index}"));
        fs::create_dir(&run).unwrap();
        let path = run.join("metrics.csv");
        put(&path);
        let error = in_time(move || refusal(Plan::new(run).fit().unwrap().launch()));
        refused(&error, &path, what);
    }
}

#[test]
#[cfg(unix)]
fn metrics_that_are_a_link_to_nothing_are_set_aside() {
    for leads_to in ["metrics.csv", "nowhere"] {
        let copy = RUN.copy();
        let path = copy.plan.run.join("metrics.csv");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(leads_to, &path).unwrap();
        copy.resume().unwrap().launch().unwrap();
        assert!(path.symlink_metadata().unwrap().is_file(), "{leads_to}");
        let aside = copy.plan.run.join("metrics.csv.aside-1");
        assert!(aside.is_symlink(), "{leads_to}");
        assert!(!copy.plan.run.join("nowhere").exists());
    }
}

/// The names of the tensors of one parameter in a model file of a commit.
const LIVE: &str = "live.first.weight";
const AVERAGE: &str = "averages.ema(0.9).weights.first.bias";

#[test]
fn another_architecture() {
    let copy = RUN.copy().with_one_commit();
    let model = RUN.file(MODEL);
    let rename = |from: &str, to: &str| {
        with_tensors(model, |mut tensor| {
            if tensor.name == from {
                tensor.name = to.to_owned();
            }
            Some(tensor)
        })
    };
    let swap = |one: &str, other: &str| {
        with_metadata(model, |metadata| {
            let tensors = &mut metadata["tensors"];
            let kept = tensors[one].take();
            tensors[one] = tensors[other].take();
            tensors[other] = kept;
        })
    };
    let without =
        |name: &str| with_tensors(model, |tensor| (tensor.name != name).then_some(tensor));
    let of_average = "averages.ema(0.9).weights.first.weight";
    let cases = [
        (
            rename(LIVE, "live.first.wait"),
            "live.first.weight: expected f32 [4, 8], found nothing in the record",
        ),
        (
            rename(of_average, "averages.ema(0.8).weights.first.weight"),
            "averages.ema(0.8): expected no average of this name, found an average in the record \
             (it can be dropped: `allow_dropped`)",
        ),
        (
            without(AVERAGE),
            "averages.ema(0.9).weights.first.bias: expected f32 [8], found nothing in the record",
        ),
        (
            without("step"),
            "step: expected a record of a module with averages, found a record of a plain module; load it into the module before the averages",
        ),
        (
            swap("live.first.weight", "live.last.weight"),
            "live.first.weight: expected f32 [4, 8], found f32 [8, 2]",
        ),
        (
            swap("live.first.bias", "live.last.bias"),
            "live.first.bias: expected f32 [8], found f32 [2]",
        ),
        (
            with_metadata(model, |metadata| {
                metadata["tensors"]["live.third"] = metadata["tensors"][LIVE].clone();
            }),
            "live.third: expected no entry of this path, found f32 [4, 8] in the record",
        ),
    ];
    let mut ran = 0;
    for (bytes, expected) in cases {
        assert_eq!(copy.refusal_of(MODEL, &bytes), expected);
        ran += 1;
    }
    // A file says which tensor is which: their order in it says nothing.
    let turned = turned_around(model);
    assert_ne!(turned, model);
    copy.put(MODEL, &turned);
    copy.resume().unwrap();
    // A network of another width, whose configuration does not say so.
    copy.reseal(|manifest| manifest["config"]["hidden"] = json!(9));
    let wider = Plan { hidden: 9, ..copy.plan.clone() };
    let error = copy.within(MODEL, &refusal(wider.fit().unwrap().resume()));
    assert_eq!(error, "averages.ema(0.9).weights.first.bias: expected f32 [9], found f32 [8]");
    // The same weights with another activation between them.
    let Perceptron { config, .. } = Perceptron::new();
    copy.reseal(|manifest| manifest["config"] = serde_json::to_value(&config).unwrap());
    let model = MlpConfig { hidden: Activation::Tanh, ..config.model.clone() };
    let other = copy.plan.fit_with(&RunConfig { model, ..config }).unwrap();
    assert_eq!(
        copy.within(MANIFEST, &refusal(other.resume())),
        "config.model.hidden: expected \"Sigmoid\", as in the run, found \"Tanh\""
    );
    rows::ran(11, ran + 3);
}

/// The numbers of a tensor of f32 in another dtype.
fn cast(mut tensor: burn_pack::Tensor, dtype: DType) -> burn_pack::Tensor {
    let (name, shape, id) = (tensor.name.clone(), tensor.shape.clone(), tensor.param_id);
    tensor.dtype = DType::F32;
    let data = TensorData::from_bytes(tensor.into_bytes().unwrap(), shape.clone(), DType::F32);
    let (bytes, ..) = data.convert_dtype(dtype).into_parts();
    burn_pack::Tensor::new(name, dtype, shape, id, bytes)
}

/// Burn's bytes with the floats under names that begin so in another dtype.
fn with_dtype(bytes: &[u8], of: &str, dtype: DType) -> Vec<u8> {
    with_tensors(bytes, |tensor| {
        let casts = tensor.dtype == DType::F32 && tensor.name.starts_with(of);
        Some(if casts { cast(tensor, dtype) } else { tensor })
    })
}

#[test]
fn another_dtype() {
    let copy = RUN.copy().with_one_commit();
    let [exported, _] = &exported()[..] else { panic!() };
    let moment = craft::names(RUN.file(OPTIMIZER))[0].clone();
    let mut cases = 0;
    for dtype in [DType::F64, DType::F16, DType::BF16, DType::I32] {
        let found = dtype.name();
        // One parameter, all of live, all.
        for (of, first) in [(AVERAGE, AVERAGE), ("live.", "live.first.bias"), ("", AVERAGE)] {
            let bytes = with_dtype(RUN.file(MODEL), of, dtype);
            let error = copy.refusal_of(MODEL, &bytes);
            assert_eq!(error, format!("{first}: expected f32 [8], found {found} [8]"));
            cases += 1;
        }
        let bytes = with_dtype(RUN.file(OPTIMIZER), &moment, dtype);
        let error = copy.refusal_of(OPTIMIZER, &bytes);
        assert!(error.starts_with("momentum.moment_1 of "), "{error}");
        assert!(error.contains(&format!("found {found} [")), "{error}");
        // A module of such a dtype that says what it is.
        let path = exported.path.with_file_name("other.bpk");
        let other = net(8).map(&mut To(dtype));
        if dtype != DType::I32 {
            average::save_file(&other, &path, "a test").unwrap();
            let error = refusal(average::load_file(net(8), &path));
            let expected = format!("first.bias: expected f32 [8], found {found} [8]");
            let path = path.display();
            assert_eq!(error, format!("cannot load the average in {path}: {expected}"));
            cases += 1;
        }
        cases += 1;
    }
    // Quantized numbers, which a scale stands beside.
    for (name, of) in [(MODEL, AVERAGE), (MODEL, LIVE), (OPTIMIZER, &moment)] {
        let bytes = with_tensors(RUN.file(name), |tensor| {
            Some(if tensor.name == of { quantized(tensor) } else { tensor })
        });
        let error = copy.refusal_of(name, &bytes);
        assert!(error.contains("expected f32 [") && error.contains("found qfloat ["), "{error}");
        cases += 1;
    }
    let path = exported.path.with_file_name("quantized.bpk");
    average::save_file(&net(8).map(&mut Quantized), &path, "a test").unwrap();
    let error = refusal(average::load_file(net(8), &path));
    let expected = "first.bias: expected f32 [8], found qfloat [8]";
    assert_eq!(error, format!("cannot load the average in {}: {expected}", path.display()));
    rows::ran(12, cases + 1);
}

/// A tensor of the same shape that is quantized.
fn quantized(tensor: burn_pack::Tensor) -> burn_pack::Tensor {
    let (name, shape, id) = (tensor.name.clone(), tensor.shape.clone(), tensor.param_id);
    let numbers = vec![1_i8; shape.num_elements()];
    let data = TensorData::quantized(numbers, shape.clone(), Default::default(), &[0.5], None);
    let (bytes, _, dtype) = data.into_parts();
    burn_pack::Tensor::new(name, dtype, shape, id, bytes)
}

/// Quantizes all floats.
struct Quantized;

impl ModuleMapper for Quantized {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.quantize_dynamic(&Default::default()))
    }
}

/// Casts all floats.
struct To(DType);

impl ModuleMapper for To {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.is_float() {
            true => param.map(|tensor| tensor.cast(self.0)),
            false => param,
        }
    }
}

#[test]
fn files_in_each_others_place() {
    let copy = RUN.copy();
    let mut cases = 0;
    // Roles within a commit, as they are and with digests that fit.
    for (one, other) in pairs(NAMED) {
        let bytes = RUN.file(other);
        fs::write(copy.path(one), bytes).unwrap();
        passed_over(&copy, one);
        fs::write(copy.path(one), RUN.file(one)).unwrap();
        let error = RUN.copy().with_one_commit().refusal_of(one, bytes);
        let first = match (one, other) {
            (MODEL, _) => "step: expected a record of a module with averages, found a record",
            (OPTIMIZER, MODEL) => "state of averages: expected a parameter of this model, found",
            (OPTIMIZER, _) => "state of 0: expected a parameter of this model, found",
            _ => "0.current_iter of the scheduler: expected an unsigned integer, found nothing",
        };
        assert!(error.starts_with(first), "{one}, {other}: {error}");
        cases += 2;
    }
    // The files of one step in the commit of another.
    for (one, other) in pairs(copy.plan.commits()) {
        for name in NAMED {
            let (to, from) = (copy.at(one).join(name), copy.at(other).join(name));
            let (kept, bytes) = (fs::read(&to).unwrap(), fs::read(from).unwrap());
            assert_ne!(kept, bytes, "{name} of {one} and {other}");
            fs::write(&to, &bytes).unwrap();
            let error = refusal(copy.commits().open(one));
            let path = to.display();
            let expected = match kept.len() == bytes.len() {
                true => format!(
                    "sha256: expected {}, found {}: it was altered",
                    sha256(&kept),
                    sha256(&bytes)
                ),
                false => format!(
                    "its length: expected {} bytes, found {} bytes",
                    kept.len(),
                    bytes.len()
                ),
            };
            assert_eq!(error, format!("cannot use the commit of {path}: {expected}"));
            fs::write(to, kept).unwrap();
            cases += 1;
        }
        // A whole commit under another's name.
        let directory = copy.plan.run.join("commits");
        let aside = directory.join("aside");
        fs::rename(copy.at(one), &aside).unwrap();
        fs::rename(copy.at(other), copy.at(one)).unwrap();
        assert_eq!(
            refusal(copy.commits().open(one)),
            format!(
                "cannot use the commit of {}: progress: expected {one}, found {other}",
                copy.at(one).join(MANIFEST).display()
            )
        );
        fs::rename(copy.at(one), copy.at(other)).unwrap();
        fs::rename(aside, copy.at(one)).unwrap();
        cases += 1;
    }
    // With digests that fit: of another step, of another run.
    let copy = copy.with_one_commit();
    let earlier = RUN.copy();
    let earlier = earlier.at(Progress { epochs: 1, batches: 3 });
    let model = fs::read(earlier.join(MODEL)).unwrap();
    assert_eq!(copy.refusal_of(MODEL, &model), "step: expected 8, as in MANIFEST.json, found 7");
    let stranger = |error: &str, of: &[u8]| {
        let id = names(of)[0].split('.').next().unwrap().to_owned();
        let start = format!("state of {id}: expected a parameter of this model, found a stranger");
        assert!(error.starts_with(&start), "{error}");
    };
    let optimizer = OTHER.file(OPTIMIZER);
    stranger(&copy.refusal_of(OPTIMIZER, optimizer), optimizer);
    // Two averages under each other's names.
    let swapped = averages_swapped(RUN.file(MODEL));
    let error = copy.refusal_of(MODEL, &swapped);
    let expected =
        "averages.ema(0.9).state: expected the rule ema(0.9), found power(sigma_rel=0.2)";
    assert_eq!(error, expected);
    // The model of another seed loads, and its optimizer is a stranger then.
    copy.put(MODEL, OTHER.file(MODEL));
    stranger(&copy.within(OPTIMIZER, &refusal(copy.resume())), RUN.file(OPTIMIZER));
    rows::ran(13, cases + 4 + exports_in_each_others_place());
}

/// The model with the entries of its averages under the names of each other.
fn averages_swapped(model: &[u8]) -> Vec<u8> {
    let names = names(model);
    let of = |name: &str| Some(name.strip_prefix("averages.")?.split_once(".state")?.0.to_owned());
    let averages: Vec<_> = names.iter().filter_map(|name| of(name)).collect();
    let [one, other] = &averages[..] else { panic!("{names:?}") };
    with_tensors(model, |mut tensor| {
        for (from, to) in [(one, other), (other, one)] {
            if let Some(rest) = tensor.name.strip_prefix(&format!("averages.{from}.")) {
                tensor.name = format!("averages.{to}.{rest}");
                break;
            }
        }
        Some(tensor)
    })
}

/// Files of averages of one module, and of the module itself, loaded for each other.
fn exports_in_each_others_place() -> usize {
    let scratch = scratch();
    let rules = [Rule::ema(0.9), Rule::ema(0.8), Rule::Equal, Rule::lawa(2, 1)];
    let averages = rules.map(|rule| AverageConfig::new(rule).init(&net(8)).unwrap());
    let paths = averages.each_ref().map(|average| {
        let path = scratch.path().join(format!("{}.bpk", average.name()));
        average.save_file(&path, "a test").unwrap();
        path
    });
    let mut cases = 0;
    for (one, average) in averages.iter().enumerate() {
        for (other, path) in paths.iter().enumerate() {
            let loaded = average.clone().try_load_file(path);
            if one == other {
                loaded.unwrap();
                continue;
            }
            let error = refusal(loaded);
            let start = format!("cannot load the average in {}: burn-ema.state: ", path.display());
            assert!(error.starts_with(&start), "{error}");
            assert!(error.contains(&average.rule().to_string()), "{error}");
            cases += 1;
        }
        let path = scratch.path().join("module.bpk");
        average::save_file(&net(8), &path, "a test").unwrap();
        let error = refusal(average.clone().try_load_file(&path));
        let start = format!("cannot load the average in {}: burn-ema.", path.display());
        assert!(error.starts_with(&start), "{error}");
        cases += 1;
    }
    cases
}

/// All ordered pairs of different ones.
fn pairs<T: std::marker::Copy + PartialEq>(all: impl AsRef<[T]>) -> Vec<(T, T)> {
    let all = all.as_ref();
    let pairs = all.iter().flat_map(|one| all.iter().map(|other| (*one, *other)));
    pairs.filter(|(one, other)| one != other).collect()
}

#[test]
fn missing_and_left_over_files() {
    let mut cases = 0;
    let no_such_file = |path: &Path| {
        format!("cannot read {}: No such file or directory (os error 2)", path.display())
    };
    for name in files() {
        let copy = RUN.copy();
        let path = copy.path(name);
        fs::remove_file(&path).unwrap();
        assert_eq!(refusal(copy.commits().open(copy.newest())), no_such_file(&path));
        let fit = copy.resume().unwrap();
        let resumed = fit.resumed().unwrap();
        assert_eq!(resumed.from, Some(Progress { epochs: 1, batches: 3 }));
        assert_eq!(chain(&resumed.passed_over[0]), no_such_file(&path));
        drop(fit);
        // The last one there is.
        let copy = copy.with_one_commit();
        assert_eq!(refusal(copy.resume()), no_such_file(&path));
        cases += 3;
    }
    let copy = RUN.copy();
    let places = copy.plan.commits();
    let never = Progress::after(9);
    let path = copy.at(never).join(MANIFEST);
    assert_eq!(refusal(copy.commits().open(never)), no_such_file(&path));
    // A commit that is removed, at every point of its removal and of its making.
    let commits = copy.plan.run.join("commits");
    for prefix in [".unfinished-", ".removed-"] {
        for missing in 0..=4 {
            let left = commits.join(format!("{prefix}epoch-000{missing}"));
            fs::create_dir(&left).unwrap();
            for name in files().skip(missing) {
                fs::write(left.join(name), RUN.file(name)).unwrap();
            }
            cases += 1;
        }
    }
    // What is no commit at all.
    fs::write(copy.path("remarks.txt"), "mine").unwrap();
    fs::write(commits.join("remarks.txt"), "mine").unwrap();
    fs::create_dir(commits.join("epoch-9")).unwrap();
    fs::create_dir(commits.join("epoch-0001.aside-1")).unwrap();
    assert_eq!(copy.plan.commits(), places);
    let newest = copy.commits().newest().unwrap();
    assert!(newest.passed_over.is_empty());
    assert_eq!(newest.commit.unwrap().progress(), copy.newest());
    let resumed = copy.resume().unwrap();
    assert_eq!(resumed.resumed().unwrap().from, Some(copy.newest()));
    // The holder of the lock clears its own, and nothing else.
    let mut names: Vec<_> = fs::read_dir(&commits)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "epoch-0000-batch-000003",
            "epoch-0001",
            "epoch-0001-batch-000003",
            "epoch-0001.aside-1",
            "epoch-0002",
            "epoch-9",
            "remarks.txt"
        ]
    );
    assert!(copy.path("remarks.txt").exists());
    // Metrics that are gone are reported, and are no error.
    drop(resumed);
    let path = copy.plan.run.join("metrics.csv");
    fs::remove_file(&path).unwrap();
    let resumed = copy.resume().unwrap();
    let [error] = &resumed.resumed().unwrap().passed_over[..] else { panic!() };
    assert_eq!(chain(error), no_such_file(&path));
    // A file where a commit should be.
    drop(resumed);
    fs::remove_dir_all(copy.at(copy.newest())).unwrap();
    fs::write(copy.at(copy.newest()), "").unwrap();
    let newest = copy.commits().newest().unwrap();
    let error = copy.within(MANIFEST, &chain(&newest.passed_over[0]));
    assert_eq!(error, "Not a directory (os error 20)");
    rows::ran(14, cases + 4);
}

/// A process that was killed while it wrote its model has left what it had of it.
#[test]
fn a_model_that_was_begun() {
    let perceptron = Perceptron::new();
    let path = perceptron.run.path().to_owned();
    drop(perceptron.run);
    let begun = ["model.bpk.1-0.tmp", "model.bpk.4194304-17.tmp"];
    let others = [
        "model.bpk.tmp",
        "model.bpk.1-.tmp",
        "model.bpk.1-0.tmp.bpk",
        "model.bpk.a-0.tmp",
        "other.bpk.1-0.tmp",
        "model.bpk-1-0.tmp",
    ];
    for name in begun.iter().chain(&others) {
        fs::write(path.join(name), "half").unwrap();
    }
    // Who reads changes nothing, nor does who is locked out.
    RunDirectory::open(&path).unwrap().model(&Device::flex()).unwrap();
    let held = RunLock::take(&path).unwrap();
    refusal(RunDirectory::resume(&path));
    drop(held);
    assert!(begun.iter().all(|name| path.join(name).exists()));
    let run = RunDirectory::resume(&path).unwrap();
    assert!(!begun.iter().any(|name| path.join(name).exists()));
    assert!(others.iter().all(|name| path.join(name).exists()));
    run.model(&Device::flex()).unwrap();
}

#[test]
fn not_finite_in_a_whole_file() {
    let copy = RUN.copy().with_one_commit();
    let moments = craft::names(RUN.file(OPTIMIZER));
    let numbers = [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")];
    let mut cases = 0;
    for (number, found) in numbers {
        let of_live = [(MODEL, LIVE, 0), (MODEL, LIVE, 31), (MODEL, AVERAGE, 5)];
        let of_moments = moments.iter().map(|name| (OPTIMIZER, &name[..], 1));
        for (name, tensor, index) in of_live.into_iter().chain(of_moments) {
            let bytes = with_number(RUN.file(name), tensor, index, number);
            let error = copy.refusal_of(name, &bytes);
            let found = format!("found {found} at index {index}");
            assert_eq!(error, format!("{tensor}: expected finite numbers, {found}"));
            cases += 1;
        }
        // What a run leaves, with the digest of what it is.
        let perceptron = Perceptron::new();
        let Perceptron { run, model, .. } = &perceptron;
        let mut values: Vec<f32> = vec![0.5; 3];
        values[2] = number;
        let data = TensorData::new(values, [3]);
        let mut broken = model.clone();
        let bias = broken.layers[0].bias.take().unwrap();
        let bias = bias.map(|bias| Tensor::from_data(data.clone(), &bias.device()));
        broken.layers[0].bias = Some(bias);
        average::save_file(&broken, run.model_file(), "a test").unwrap();
        let path = run.model_file().display().to_string();
        let expected = format!(
            "cannot load the average in {path}: layers.0.bias: expected finite numbers, \
             found {found} at index 2"
        );
        assert_eq!(refusal(average::load_file(model.clone(), run.model_file())), expected);
        assert_eq!(refusal(run.model(&Device::flex())), expected);
        // What it has not left yet, from its commit.
        let (Perceptron { run, .. }, path) = &Perceptron::with_commit();
        let bias = "averages.ema(0.9).weights.layers.0.bias";
        let bytes = with_number(&fs::read(path).unwrap(), bias, 2, number);
        craft::put(path.parent().unwrap(), MODEL, &bytes);
        let expected = format!(
            "cannot load the model from {}: layers.0.bias: expected finite numbers, \
             found {found} at index 2",
            path.display()
        );
        assert_eq!(refusal(run.model(&Device::flex())), expected);
        cases += 3;
    }
    rows::ran(16, cases);
}

/// What a network answers.
fn answers(net: &Net) -> Vec<f32> {
    let device = Device::flex();
    let inputs = Tensor::from_data([[0.1, 0.2, 0.3, 0.4]], &device);
    let targets = Tensor::from_data([[0.0, 0.0]], &device);
    InferenceStep::step(net, Batch { inputs, targets }).outputs.into_data().try_to_vec().unwrap()
}

/// Burn itself reads a file at first use, and by its path.
#[test]
fn a_file_replaced_after_it_was_loaded() {
    let mut cases = 0;
    for deleted in [false, true] {
        let gone = |path: &Path| match deleted {
            true => fs::remove_file(path).unwrap(),
            false => {
                fs::write(path, vec![0x3f; fs::metadata(path).unwrap().len() as usize]).unwrap()
            }
        };
        for Exported { path, module, average, .. } in &exported() {
            let loaded = average::load_file(net(8), path).unwrap();
            let average = average.is_some().then(|| {
                let average = AverageConfig::new(Rule::ema(0.9)).init(&net(8)).unwrap();
                average.try_load_file(path).unwrap()
            });
            gone(path);
            for loaded in [Some(loaded), average.map(|average| average.module())] {
                let Some(loaded) = loaded else { continue };
                assert_eq!(answers(&loaded), answers(module));
                assert_eq!(contents(&loaded), contents(module));
                cases += 1;
            }
        }
        // The module with its averages, from the file of a commit.
        let copy = RUN.copy();
        let path = copy.path(MODEL);
        let load = |plan: &Plan| {
            let record = ModuleRecord::load(&path).unwrap();
            plan.model().unwrap().try_load_record(record).unwrap()
        };
        let expected = load(&copy.plan);
        let all = |model: &Averaged<Net>| {
            [model.live().clone(), model.average(0).unwrap(), model.average(1).unwrap()]
        };
        let [live, ..] = &all(&expected);
        let (expected, answered) = (all(&expected).map(|net| contents(&net)), answers(live));
        let loaded = load(&copy.plan);
        gone(&path);
        assert_eq!(answers(loaded.live()), answered);
        assert_eq!(all(&loaded).map(|net| contents(&net)), expected);
        // The perceptron, from what its run left and from a commit.
        let (perceptron, (committed, path)) = (Perceptron::new(), Perceptron::with_commit());
        for (Perceptron { run, model, .. }, path) in
            [(&perceptron, perceptron.run.model_file()), (&committed, path)]
        {
            let loaded = run.model(&Device::flex()).unwrap();
            gone(&path);
            let inputs = Tensor::from_data([[0.1, 0.2]], &Device::flex());
            let [loaded, expected] =
                [&loaded, model].map(|mlp| mlp.forward(inputs.clone()).into_data());
            assert_eq!(loaded, expected);
        }
        // A run that goes on, but for its metrics.
        let copy = RUN.copy();
        let fit = copy.resume().unwrap();
        for name in files() {
            gone(&copy.path(name));
        }
        let model = fit.launch().unwrap().model;
        assert_eq!(all(&model).map(|net| contents(&net.valid())), expected);
        cases += 4;
    }
    rows::ran(21, cases);
}

#[test]
#[cfg(unix)]
fn odd_paths() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    let scratch = scratch();
    let root = scratch.path();
    fs::create_dir(root.join("a")).unwrap();
    let long = "n".repeat(255);
    let odd: [PathBuf; 9] = [
        OsStr::from_bytes(b"not \xff text").into(),
        " two  spaces ".into(),
        "a line\nand \"quotes\" {} %s".into(),
        "Kn\u{f6}del \u{1f95f}".into(),
        "a/../b".into(),
        "slash/".into(),
        "dots.in.names".into(),
        (&long).into(),
        ["deep"; 600].iter().collect(),
    ];
    for name in &odd {
        let run = root.join(name);
        let first = Plan { epochs: 1, batch_size: 16, ..Plan::new(&run) };
        first.fit().unwrap().launch().unwrap();
        let commit = Commits::of(&run).newest().unwrap().commit.unwrap();
        assert_eq!(commit.progress(), Progress::after(1), "{run:?}");
        let fit = Plan { epochs: 2, ..first }.fit().unwrap().resume().unwrap();
        assert_eq!(fit.resumed().unwrap().from, Some(Progress::after(1)));
        fit.launch().unwrap();
        assert_eq!(Commits::of(&run).list().unwrap().last(), Some(&Progress::after(2)));
        // Errors print what can be printed.
        let commit = Commits::of(&run).open(Progress::after(2)).unwrap();
        let path = commit.path().join(MODEL);
        fs::write(&path, "").unwrap();
        let error = refusal(Commits::of(&run).open(Progress::after(2)));
        assert!(error.starts_with(&format!("cannot use the commit of {}: ", path.display())));
    }
    // Files of models: without an extension Burn's is added.
    let model = &exported()[1].module;
    for name in &odd[..7] {
        let path = root.join("files").join(name).join("model");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        average::save_file(model, &path, "a test").unwrap();
        assert!(path.with_extension("bpk").exists() && !path.exists());
        assert_eq!(contents(&average::load_file(net(8), &path).unwrap()), contents(model));
        average::save_file(model, path.with_extension("other"), "a test").unwrap();
        let loaded = average::load_file(net(8), path.with_extension("other")).unwrap();
        assert_eq!(contents(&loaded), contents(model));
    }
    // What no file system takes.
    let most = root.join(["deep"; 2000].iter().collect::<PathBuf>());
    for path in [root.join(&long).join(long.clone() + "n"), most] {
        let name = path.display().to_string();
        let error = refusal(Plan::new(&path).fit());
        assert!(error.starts_with(&format!("cannot create {name}: ")), "{error}");
        let error = refusal(average::save_file(model, &path, "a test"));
        assert!(error.starts_with(&format!("cannot write {name}: ")), "{error}");
        let error = refusal(average::load_file(net(8), &path));
        assert!(error.starts_with(&format!("cannot read {name}")), "{error}");
        assert!(refusal(RunDirectory::open(&path)).contains(&name));
    }
    assert!(refusal(Plan::new("").fit()).starts_with("cannot create : "));
    // Relative ones, in a process that is elsewhere.
    let golden = Plan { epochs: 1, ..Plan::new(root.join("golden")) }.golden();
    let relative = [".", "run", "./run/../other", "../above"];
    for (index, run) in relative.into_iter().enumerate() {
        let there = root.join(format!("there-{index}/here"));
        fs::create_dir_all(there.join("run")).unwrap();
        let plan = Plan { epochs: 1, ..Plan::new(run) };
        let ended = |plan: &Plan| {
            let mut command = plan.command();
            Ended::of(command.current_dir(&there).output().unwrap())
        };
        assert_eq!(ended(&plan).digest(), golden, "{run}");
        let again = ended(&Plan { resume: true, ..plan });
        assert_eq!(again.line_after("RESUMED"), "resuming after epoch 1, step 8");
        assert!(there.join(run).join("commits/epoch-0001").is_dir());
    }
    rows::ran(22, odd.len() + 7 + 3 + relative.len());
}

/// What a clock said when a file was written is for people alone.
#[test]
fn clocks_that_jump() {
    let longer = |copy: &Copy| Plan { epochs: 3, ..copy.plan.clone() }.resumed();
    let golden = longer(&RUN.copy());
    let written = |of: fn(u64) -> u64| {
        let copy = RUN.copy();
        for (place, index) in copy.plan.commits().into_iter().zip(0..) {
            let manifest = copy.at(place).join(MANIFEST);
            craft::reseal(&manifest, |manifest| manifest["written"] = json!(of(index)));
        }
        copy
    };
    let modified = |seconds: u64| {
        let copy = RUN.copy();
        fs::write(copy.plan.run.join("LOCK"), "pid 1 on box\n").unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        for path in craft::read_all(&copy.plan.run).keys() {
            let path = copy.plan.run.join(path);
            for path in [&*path, path.parent().unwrap()] {
                fs::File::open(path).unwrap().set_modified(time).unwrap();
            }
        }
        copy
    };
    // Always the same, ever earlier; before all that is there, and in the year 2100.
    let copies = [
        written(|_| 0),
        written(|_| u64::MAX),
        written(|index| u64::MAX - index),
        modified(0),
        modified(4_102_444_800),
    ];
    for copy in &copies {
        let newest = copy.commits().newest().unwrap();
        assert!(newest.passed_over.is_empty());
        assert_eq!(newest.commit.unwrap().progress(), copy.newest());
        assert_eq!(longer(copy), golden);
    }
    rows::ran(26, copies.len());
}

/// A run of the first form of commits: its newest commit and its metrics.
fn first_form() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/commit-format-1")
}

/// Writes it. Once a version is released, a new form gets a fixture of its own instead:
/// `cargo test --features ndarray -- --ignored survive::damage::make_the_fixture`.
#[test]
#[ignore = "writes into the repository"]
fn make_the_fixture() {
    let path = first_form();
    let _ = fs::remove_dir_all(&path);
    RUN.at(&path).with_one_commit();
}

#[test]
fn another_version() {
    let copy = RUN.copy();
    fs::remove_dir_all(&copy.plan.run).unwrap();
    let files = craft::read_all(&first_form());
    craft::write_all(&copy.plan.run, &files);
    let plan = Plan { epochs: 3, ..copy.plan.clone() };
    let ended = plan.run();
    assert_eq!(ended.line_after("RESUMED"), "resuming after epoch 2, step 8");
    ended.digest();
    assert_eq!(plan.commits().last(), Some(&Progress::after(3)));
    let metrics = fs::read(plan.run.join("metrics.csv")).unwrap();
    assert!(metrics.starts_with(&files[Path::new("metrics.csv")]));
    // Other forms, whole by their digests.
    type Edit = fn(&mut Value);
    let copy = RUN.copy().with_one_commit();
    let refused = |edit: Edit| {
        let before = fs::read(copy.path(MANIFEST)).unwrap();
        copy.reseal(edit);
        let errors = [refusal(copy.commits().open(copy.newest())), refusal(copy.resume())];
        fs::write(copy.path(MANIFEST), before).unwrap();
        assert_eq!(errors[0], errors[1]);
        copy.within(MANIFEST, &errors[0])
    };
    let another = ": it was written by another version of this crate";
    let cases: [(Edit, &str); 8] = [
        (|manifest| manifest["format"] = json!(2), "format: expected 1, found 2"),
        (|manifest| *manifest = json!({ "format": 3, "new": [] }), "format: expected 1, found 3"),
        (|manifest| manifest["format"] = json!(0), "format: expected 1, found 0"),
        (|manifest| manifest["format"] = json!("1"), "the JSON: expected a manifest, found "),
        (
            |manifest| manifest["new"] = json!(1),
            "the JSON: expected a manifest, found unknown field `new`",
        ),
        (
            |manifest| manifest["steps"] = json!(-1),
            "the JSON: expected a manifest, found invalid value",
        ),
        (
            |manifest| manifest["config"] = json!(vec![json!({ "a": 0 }); 300_000]),
            "config: expected at most 524288 values, found 600001",
        ),
        (|manifest| *manifest = json!([]), "the JSON: expected a manifest, found "),
    ];
    for (edit, expected) in cases {
        let error = refused(edit);
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(error.ends_with(another), expected.starts_with("format"), "{error}");
    }
    rows::ran(25, cases.len() + 1);
}

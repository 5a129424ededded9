//! Hostile records of modules with averages, and hostile files of averages.

use std::fs;

use burn::{
    module::Module,
    optim::AdamConfig,
    store::ModuleRecord,
    tensor::{Bytes, Device, Tensor},
    train::TrainStep,
};
use burn_ema_base::header;

use super::Averaged;
use crate::{
    Average, AverageConfig, Error, Rule,
    average::{self, Description, ReadRecord},
    model::Batch,
    model::{Mlp, MlpConfig},
};

#[path = "../../../tests/shared/hostile.rs"]
mod hostile;

use hostile::{Corpus, among, fixed, fuzz};

fn mlp(sizes: &[usize]) -> Mlp {
    MlpConfig::new(sizes.to_vec()).init(&Device::flex().autodiff()).unwrap()
}

/// A module with averages, and averages by themselves: weights alone, weights with snapshots beside
/// them, weights with their start.
struct RecordModule {
    model: Averaged<Mlp>,
    averages: [Average<Mlp>; 3],
    /// Of the module, then of the averages, and then others.
    corpus: Corpus,
}

impl RecordModule {
    fn new() -> Self {
        let live = fixed(mlp(&[3, 4, 2]));
        let configs = [Rule::ema(0.9), Rule::lawa(2, 1), Rule::bema()].map(AverageConfig::new);
        let averages = configs.clone().map(|config| {
            let mut average = config.init(&live.valid()).unwrap();
            for step in 1..=3 {
                average.update(&live.valid(), step).unwrap();
            }
            average
        });
        let mut optimizer = AdamConfig::new().init();
        let mut model = Averaged::new(live, configs).unwrap();
        let device = Device::flex().autodiff();
        for _ in 0..3 {
            let inputs = Tensor::ones([2, 3], &device);
            let targets = Tensor::zeros([2, 2], &device);
            let gradients = TrainStep::step(&model, Batch { inputs, targets }).grads;
            model = model.optimize(&mut optimizer, 0.01.into(), gradients);
        }
        let mut corpus = Corpus::default();
        corpus.add(model.clone().into_record().into_bytes().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("average.bpk");
        for average in &averages {
            average.save_file(&path, "a corpus").unwrap();
            corpus.add(Bytes::from_bytes_vec(fs::read(&path).unwrap()));
        }
        corpus.add(fixed(mlp(&[3, 2])).into_record().into_bytes().unwrap());
        corpus.add(optimizer.into_bytes().unwrap());
        corpus.add_hostile();
        Self { model, averages, corpus }
    }
}

/// As a resume reads it, and a program that answers.
#[test]
fn fuzz_model_record() {
    let RecordModule { model, corpus, .. } = RecordModule::new();
    fuzz("model_record", &corpus, 0..1, |_, bytes| {
        let bytes = bytes.shared();
        header::check(&bytes)?;
        let average = ReadRecord::of_bytes(bytes.clone())?.average("ema(0.9)");
        let average = average.and_then(|average| average.finite(|_| true));
        let average = average.and_then(|average| average.apply(mlp(&[3, 4, 2]), &[], |_| false));
        let copy = model.valid().train();
        let loaded = copy.try_load_record(ModuleRecord::from_bytes(bytes)?);
        average.and(loaded.map(drop).map_err(Error::from))
    });
}

/// As a file, whose digest is made to fit, so that what stands behind it is reached.
#[test]
fn fuzz_exported_average() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("average.bpk");
    let RecordModule { averages, corpus, .. } = RecordModule::new();
    fuzz("exported_average", &corpus, 1..4, |index, bytes| {
        let average = &averages[among(&(1..4), index)];
        let load = || average.clone().try_load_file(&path);
        fs::write(&path, &*bytes).unwrap();
        let mut loaded = load();
        if let Some([written, found]) = loaded.as_ref().err().and_then(digests) {
            fs::write(&path, replaced(&bytes, written.as_bytes(), found.as_bytes())).unwrap();
            loaded = load();
        }
        let _ = Description::read(&path);
        let module = average::load_file(mlp(&[3, 4, 2]), &path);
        loaded.and(module).map(drop)
    });
}

/// The digest that stands in a file, and the one that was expected, where an error names both.
fn digests(error: &Error) -> Option<[String; 2]> {
    let source = std::error::Error::source(error)?.to_string();
    let (_, digests) = source.split_once(": expected ")?;
    let (written, found) = digests.strip_suffix(": it was altered")?.split_once(", found ")?;
    (written.len() == found.len()).then(|| [written.to_owned(), found.to_owned()])
}

/// The bytes with some of them replaced, by as many, wherever they stand.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let places = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(from));
    for at in places.collect::<Vec<_>>() {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

//! Hostile bytes, most of them made of valid ones: any answer is right; a panic is not, nor a hang.
//!
//! `BURN_EMA_FUZZ_SECONDS` is how long each test goes on, about 1 by default.
//! Each prints its seed; `BURN_EMA_FUZZ_SEED` repeats it, input by input.
//!
//! Before that it takes inputs that were kept, in `tests/fixtures/fuzz/`, one for each answer that
//! was seen; `BURN_EMA_FUZZ_KEEP=1` keeps them anew.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use burn::{
    module::{ModuleMapper, ParamId},
    store::ModuleRecord,
    tensor::Device,
    train::TrainStep,
};
use ciborium::Value;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    tests::{Remembering, edited, mlp, optimizers, schedulers, trained},
    *,
};
use burn_ema_base::header;

use crate::{
    Average, AverageConfig, Rule,
    average::{self, Description, Opened},
    model::{Batch, Mlp},
    train::Averaged,
};

/// Words that mean something in a record.
const WORDS: [&str; 22] = [
    "tensors",
    "metadata",
    "scalars",
    "dtype",
    "shape",
    "data_offsets",
    "param_id",
    "F64",
    "F32",
    "F16",
    "BF16",
    "I64",
    "U8",
    "Bool",
    "QFloat",
    "UInt",
    "Int",
    "Float",
    "1.__rank",
    "1.time",
    "1.momentum.moment_1",
    "layers.0.weight",
];

/// Numbers at an edge of something.
const NUMBERS: [i128; 16] = [
    -1,
    0,
    1,
    2,
    3,
    8,
    9,
    255,
    256,
    4096,
    i32::MAX as i128 + 1,
    u32::MAX as i128,
    i64::MIN as i128,
    i64::MAX as i128,
    1 << 63,
    u64::MAX as i128,
];

/// Records as they are saved, in an order of their own: one seed makes the same inputs again.
struct Corpus {
    optimizers: Vec<Probe>,
    schedulers: Vec<ModuleLrScheduler>,
    model: Averaged<Mlp>,
    averages: Vec<Average<Mlp>>,
    /// The files of the optimizers, then of the schedulers, of the model, of the averages, and
    /// then others.
    files: Vec<Vec<u8>>,
}

impl Corpus {
    fn new() -> Self {
        struct Fixed(u64);
        impl ModuleMapper for Fixed {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                self.0 += 1;
                let (_, tensor, mapper) = param.consume();
                let ones = tensor.without_autodiff().ones_like().autodiff().require_grad();
                Param::from_mapped_value(ParamId::from(self.0), ones, mapper)
            }
        }
        let live = mlp(&[3, 4, 2]).map(&mut Fixed(0));
        // Weights alone, weights with snapshots beside them, with their start.
        let configs = [Rule::ema(0.9), Rule::lawa(2, 1), Rule::bema()].map(AverageConfig::new);
        let averages = configs.clone().map(|config| {
            let mut average = config.init(&live.valid()).unwrap();
            (1..=3).for_each(|step| average.update(&live.valid(), step).unwrap());
            average
        });
        let mut corpus = Self {
            optimizers: Vec::new(),
            schedulers: Vec::new(),
            model: stepped(Averaged::new(live.clone(), configs).unwrap()),
            averages: averages.into(),
            files: Vec::new(),
        };
        let remembering = ("remembering", Remembering { first: false }.into());
        for (_, fresh) in optimizers().into_iter().chain([remembering]) {
            corpus.optimizers.push(Probe::new(&fresh, &live).unwrap());
            let (optimizer, _) = trained(fresh, live.clone(), 3);
            corpus.add(optimizer.into_bytes().unwrap());
        }
        for (_, mut scheduler) in schedulers() {
            corpus.schedulers.push(scheduler.clone());
            scheduler.step();
            corpus.add(scheduler.to_record().into_bytes().unwrap());
        }
        corpus.add(corpus.model.clone().into_record().into_bytes().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("average.bpk");
        for average in corpus.averages.clone() {
            average.save_file(&path, "a corpus").unwrap();
            corpus.add(Bytes::from_bytes_vec(fs::read(&path).unwrap()));
        }
        corpus.add(mlp(&[3, 2]).map(&mut Fixed(0)).into_record().into_bytes().unwrap());
        let deep = |byte: u8, count: usize| with_metadata(&corpus.files[0], &vec![byte; count]);
        let hostile = [deep(0x81, 200), deep(0xa1, 200), deep(0xbb, 9), deep(0x9f, 60_000)];
        corpus.files.extend(hostile);
        corpus.files.extend([Vec::new(), vec![0; 4096]]);
        corpus
    }

    fn add(&mut self, bytes: Bytes) {
        // Ids are drawn, but for those of live.
        let fix = |entries: &mut Entries| {
            for (number, tensor) in (100..).zip(entries.tensors.values_mut()) {
                tensor.param_id = tensor.param_id.map(|id| if id < 100 { id } else { number });
            }
        };
        self.files.push(edited(bytes, fix).to_vec());
    }

    fn of_optimizers(&self) -> Range<usize> {
        0..self.optimizers.len()
    }

    fn of_schedulers(&self) -> Range<usize> {
        let start = self.of_optimizers().end;
        start..start + self.schedulers.len()
    }

    fn of_model(&self) -> Range<usize> {
        let start = self.of_schedulers().end;
        start..start + 1
    }

    fn of_averages(&self) -> Range<usize> {
        let start = self.of_model().end;
        start..start + self.averages.len()
    }

    fn any(&self, random: &mut ChaCha8Rng) -> usize {
        random.random_range(0..self.files.len())
    }

    /// A file with some damages.
    fn damaged(&self, index: usize, random: &mut ChaCha8Rng) -> Vec<u8> {
        let mut file = self.files[index].clone();
        for _ in 0..random.random_range(1..4) {
            // Most of the damages keep a record that can be read.
            match random.random_range(0..4) {
                0 => self.damage(&mut file, random),
                _ => file = with_other_metadata(&file, random).unwrap_or(file),
            }
        }
        file
    }

    /// Damages bytes whatever they mean.
    fn damage(&self, file: &mut Vec<u8>, random: &mut ChaCha8Rng) {
        // Half of the time near the beginning, where the meaning is.
        let end = if random.random() { file.len().min(1024) } else { file.len() };
        let range = {
            let start = random.random_range(0..=end);
            start..end.min(start + random.random_range(1..64))
        };
        match random.random_range(0..8) {
            0 if !range.is_empty() => file[range.start] ^= 1 << random.random_range(0..8),
            1 if !range.is_empty() => file[range.start] = random.random(),
            2 => file.truncate(range.start),
            3 => file.resize(file.len() + random.random_range(1..4096), random.random()),
            4 => file[range].fill(0),
            5 => {
                let block = file[range].to_vec();
                let place = random.random_range(0..=file.len());
                file.splice(place..place, block);
            }
            6 => _ = file.drain(range),
            _ => {
                let other = &self.files[self.any(random)];
                let place = random.random_range(0..=other.len());
                file.truncate(range.start);
                file.extend(&other[place..]);
            }
        }
    }
}

/// The model after some steps.
fn stepped(mut model: Averaged<Mlp>) -> Averaged<Mlp> {
    let device = Device::flex().autodiff();
    let mut optimizer = burn::optim::AdamConfig::new().init();
    for _ in 0..3 {
        let inputs = Tensor::ones([2, 3], &device);
        let targets = Tensor::zeros([2, 2], &device);
        let gradients = TrainStep::step(&model, Batch { inputs, targets }).grads;
        model = model.optimize(&mut optimizer, 0.01.into(), gradients);
    }
    model
}

/// The file with other metadata, its data in place behind it.
fn with_metadata(file: &[u8], metadata: &[u8]) -> Vec<u8> {
    let data = (10 + metadata_size(file)).next_multiple_of(256).min(file.len());
    let mut bytes = file[..6].to_vec();
    bytes.extend((metadata.len() as u32).to_le_bytes());
    bytes.extend(metadata);
    bytes.resize(bytes.len().next_multiple_of(256), 0);
    bytes.extend(&file[data..]);
    bytes
}

/// The file with one value of its metadata changed; none if there is no metadata.
fn with_other_metadata(file: &[u8], random: &mut ChaCha8Rng) -> Option<Vec<u8>> {
    let metadata = file.get(10..)?.get(..metadata_size(file))?;
    let mut root: Value = ciborium::from_reader(metadata).ok()?;
    let count = count(&root);
    let mut any = || random.random_range(0..count);
    let (chosen, other) = (any(), nth(&mut root, &mut any()).cloned()?);
    change(nth(&mut root, &mut { chosen })?, other, random);
    let mut metadata = Vec::new();
    ciborium::into_writer(&root, &mut metadata).unwrap();
    Some(with_metadata(file, &metadata))
}

/// The number of values in a value, itself among them.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|(key, item)| count(key) + count(item)).sum(),
        _ => 0,
    }
}

/// One of the values in a value, counted from itself.
fn nth<'v>(value: &'v mut Value, index: &mut usize) -> Option<&'v mut Value> {
    if *index == 0 {
        return Some(value);
    }
    *index -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, index)),
        Value::Map(entries) => {
            entries.iter_mut().find_map(|(key, item)| nth(key, index).or_else(|| nth(item, index)))
        }
        _ => None,
    }
}

/// Changes a value, mostly within its type.
fn change(value: &mut Value, other: Value, random: &mut ChaCha8Rng) {
    if random.random_ratio(1, 6) {
        *value = if random.random() { other } else { Value::Array(vec![other; 3]) };
        return;
    }
    match value {
        Value::Integer(_) => {
            let number = NUMBERS[random.random_range(0..NUMBERS.len())];
            *value = Value::Integer(number.try_into().unwrap());
        }
        Value::Float(number) => *number = f64::from_bits(random.random()),
        Value::Bool(truth) => *truth = !*truth,
        Value::Text(text) => {
            let index = random.random_range(0..=text.chars().count());
            match random.random_range(0..3) {
                0 => *text = WORDS[random.random_range(0..WORDS.len())].to_owned(),
                1 => *text = text.chars().take(index).chain(['.', '7']).collect(),
                _ => *text = text.chars().skip(index).collect(),
            }
        }
        Value::Array(items) => {
            let index = random.random_range(0..=items.len());
            if index < items.len() && random.random() {
                items.remove(index);
            } else {
                items.insert(index, other);
            }
        }
        Value::Map(entries) => {
            let index = random.random_range(0..=entries.len());
            if index < entries.len() && random.random() {
                entries.remove(index);
            } else {
                let key = WORDS[random.random_range(0..WORDS.len())].to_owned();
                entries.insert(index, (Value::Text(key), other));
            }
        }
        _ => *value = other,
    }
}

/// An input that was kept.
struct Kept {
    /// Which file of the corpus it was.
    index: usize,
    bytes: Vec<u8>,
}

impl Kept {
    fn path(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/fuzz/{name}.gz"))
    }

    fn read(name: &str) -> Vec<Self> {
        let mut text = Vec::new();
        GzDecoder::new(&fs::read(Self::path(name)).unwrap()[..]).read_to_end(&mut text).unwrap();
        let mut rest = &text[..];
        let mut kept = Vec::new();
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            let number =
                |at: usize| u32::from_le_bytes(*head[at..].first_chunk().unwrap()) as usize;
            let (bytes, after) = after.split_at(number(4));
            kept.push(Self { index: number(0), bytes: bytes.to_vec() });
            rest = after;
        }
        kept
    }

    fn write(name: &str, kept: &[Self]) {
        fs::create_dir_all(Self::path(name).parent().unwrap()).unwrap();
        let mut file =
            GzEncoder::new(fs::File::create(Self::path(name)).unwrap(), Compression::best());
        for Self { index, bytes } in kept {
            for number in [*index, bytes.len()] {
                file.write_all(&(number as u32).to_le_bytes()).unwrap();
            }
            file.write_all(bytes).unwrap();
        }
        file.finish().unwrap();
    }
}

/// What a loader says of a file, without the numbers and names in it.
fn answer(opened: &Result<()>) -> String {
    let Err(error) = opened else { return String::new() };
    let text = std::error::Error::source(error).map_or(error.to_string(), ToString::to_string);
    let words = text.split(": expected ").last().unwrap_or_default().split_whitespace();
    words.filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == ',')).collect()
}

/// Hands hostile files to `open` as long as the environment says, and prints how many it took.
///
/// It is told which file of the corpus each was, and most are of those named `own`.
fn fuzz(
    name: &str,
    own: impl Fn(&Corpus) -> Range<usize>,
    mut open: impl FnMut(&Corpus, usize, Bytes) -> Result<()>,
) {
    struct Input(u64);
    impl Drop for Input {
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("repeat it with BURN_EMA_FUZZ_SEED={}", self.0);
            }
        }
    }
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seconds = number("BURN_EMA_FUZZ_SECONDS").unwrap_or(1);
    let seed = number("BURN_EMA_FUZZ_SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
    println!("{name}: seed {seed}");
    let corpus = Corpus::new();
    let keeps = number("BURN_EMA_FUZZ_KEEP").is_some();
    let mut kept = if keeps { Vec::new() } else { Kept::read(name) };
    for Kept { index, bytes } in &kept {
        let _ = open(&corpus, *index, Bytes::from_bytes_vec(bytes.clone()));
    }
    let repeated = kept.len();
    let mut answers = BTreeSet::new();
    let (start, mut inputs, mut taken) = (Instant::now(), 0, 0);
    let mut slowest = Duration::ZERO;
    while inputs == 0 || start.elapsed() < Duration::from_secs(seconds) {
        let input = Input(seed.wrapping_add(inputs));
        let mut random = ChaCha8Rng::seed_from_u64(input.0);
        let own = random.random_ratio(3, 4).then(|| random.random_range(own(&corpus)));
        let index = own.unwrap_or_else(|| corpus.any(&mut random));
        let damaged = corpus.damaged(index, &mut random);
        let bytes = Bytes::from_bytes_vec(damaged.clone());
        let begin = Instant::now();
        let opened = open(&corpus, index, bytes);
        slowest = slowest.max(begin.elapsed());
        taken += u64::from(opened.is_ok());
        if keeps && damaged.len() < 1 << 14 && answers.insert(answer(&opened)) {
            kept.push(Kept { index, bytes: damaged });
        }
        inputs += 1;
    }
    if keeps {
        Kept::write(name, &kept);
    }
    println!("{name}: {repeated} inputs that were kept");
    println!("{name}: {inputs} inputs, {taken} taken, the slowest in {slowest:?}");
}

#[test]
fn fuzz_optimizer_record() {
    fuzz("optimizer_record", Corpus::of_optimizers, |corpus, index, bytes| {
        corpus.optimizers[index % corpus.optimizers.len()].record(bytes, 3).map(drop)
    });
}

#[test]
fn fuzz_scheduler_record() {
    fuzz("scheduler_record", Corpus::of_schedulers, |corpus, index, bytes| {
        let index = among(&corpus.of_schedulers(), index);
        scheduler_record(bytes, &corpus.schedulers[index]).map(drop)
    });
}

/// Which of its own files one is to a loader, or is taken for.
fn among(own: &Range<usize>, index: usize) -> usize {
    (index + own.len() - own.start % own.len()) % own.len()
}

#[test]
fn fuzz_check_finite() {
    fuzz("check_finite", |corpus| 0..corpus.files.len(), |_, _, bytes| check_finite(bytes));
}

/// As a resume reads it, and a program that answers.
#[test]
fn fuzz_model_record() {
    fuzz("model_record", Corpus::of_model, |corpus, _, bytes| {
        let bytes = bytes.shared();
        header::check(&bytes)?;
        let average = Opened::of_bytes(bytes.clone())?.average("ema(0.9)");
        let average = average.and_then(|average| average.finite(|_| true));
        let average = average.and_then(|average| average.apply(mlp(&[3, 4, 2]), &[], |_| false));
        let copy = corpus.model.valid().train();
        let loaded = copy.try_load_record(ModuleRecord::from_bytes(bytes)?);
        average.and(loaded.map(drop).map_err(Error::from))
    });
}

/// As a file, whose digest is made to fit, so that what stands behind it is reached.
#[test]
fn fuzz_exported_average() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("average.bpk");
    fuzz("exported_average", Corpus::of_averages, |corpus, index, bytes| {
        let average = &corpus.averages[among(&corpus.of_averages(), index)];
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

/// The digest that stands in a file, and the one that would, where a loader told them.
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

//! Hostile bytes, most of them made of valid ones: any answer is right; a panic is not, nor a hang.
//!
//! `BURN_EMA_FUZZ_SECONDS` is how long each test goes on, about 1 by default.
//! Each prints its seed; `BURN_EMA_FUZZ_SEED` repeats it, input by input.

use std::{
    env,
    ops::Range,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use burn::module::{ModuleMapper, ParamId};
use ciborium::Value;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    tests::{Remembering, edited, mlp, optimizers, schedulers, trained},
    *,
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
    /// The files of the optimizers, then of the schedulers, then others.
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
        let mut corpus = Self { optimizers: Vec::new(), schedulers: Vec::new(), files: Vec::new() };
        let remembering = ("remembering", Remembering { first: false }.into());
        for (_, fresh) in optimizers().into_iter().chain([remembering]) {
            let module = mlp(&[3, 4, 2]).map(&mut Fixed(0));
            corpus.optimizers.push(Probe::new(&fresh, &module).unwrap());
            let (optimizer, _) = trained(fresh, module, 3);
            corpus.add(optimizer.into_bytes().unwrap());
        }
        for (_, mut scheduler) in schedulers() {
            corpus.schedulers.push(scheduler.clone());
            scheduler.step();
            corpus.add(scheduler.to_record().into_bytes().unwrap());
        }
        corpus.add(mlp(&[3, 2]).map(&mut Fixed(0)).into_record().into_bytes().unwrap());
        let deep = |byte: u8, count: usize| with_metadata(&corpus.files[0], &vec![byte; count]);
        let hostile = [deep(0x81, 200), deep(0xa1, 200), deep(0xbb, 9), deep(0x9f, 60_000)];
        corpus.files.extend(hostile);
        corpus.files.extend([Vec::new(), vec![0; 4096]]);
        corpus
    }

    fn add(&mut self, bytes: Bytes) {
        self.files.push(edited(bytes, |_| ()).to_vec());
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
    let (start, mut inputs, mut taken) = (Instant::now(), 0, 0);
    let mut slowest = Duration::ZERO;
    while inputs == 0 || start.elapsed() < Duration::from_secs(seconds) {
        let input = Input(seed.wrapping_add(inputs));
        let mut random = ChaCha8Rng::seed_from_u64(input.0);
        let own = random.random_ratio(3, 4).then(|| random.random_range(own(&corpus)));
        let index = own.unwrap_or_else(|| corpus.any(&mut random));
        let bytes = Bytes::from_bytes_vec(corpus.damaged(index, &mut random));
        let begin = Instant::now();
        taken += u64::from(open(&corpus, index, bytes).is_ok());
        slowest = slowest.max(begin.elapsed());
        inputs += 1;
    }
    println!("{name}: {inputs} inputs, {taken} taken, the slowest in {slowest:?}");
}

#[test]
fn fuzz_optimizer_record() {
    let own = |corpus: &Corpus| 0..corpus.optimizers.len();
    fuzz("optimizer_record", own, |corpus, index, bytes| {
        corpus.optimizers[index % corpus.optimizers.len()].record(bytes, 3).map(drop)
    });
}

#[test]
fn fuzz_scheduler_record() {
    let own = |corpus: &Corpus| {
        let start = corpus.optimizers.len();
        start..start + corpus.schedulers.len()
    };
    fuzz("scheduler_record", own, |corpus, index, bytes| {
        let index = index + corpus.schedulers.len() - own(corpus).start % corpus.schedulers.len();
        scheduler_record(bytes, &corpus.schedulers[index % corpus.schedulers.len()]).map(drop)
    });
}

#[test]
fn fuzz_check_finite() {
    let own = |corpus: &Corpus| 0..corpus.files.len();
    fuzz("check_finite", own, |_, _, bytes| check_finite(bytes));
}

//! Hostile bytes, most of them made of valid ones: any answer is right; a panic is not, nor a hang.
//!
//! A module of several crates' unit tests, each of which keeps inputs in `tests/fixtures/fuzz/` of
//! its own, one for each answer that was seen, and takes them first.
//!
//! `BURN_EMA_FUZZ_SECONDS` is how long each test goes on, about 1 by default.
//! Each prints its seed; `BURN_EMA_FUZZ_SEED` repeats it, input by input; `BURN_EMA_FUZZ_KEEP=1`
//! keeps the inputs anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    fs,
    io::{Read as _, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::{Bytes, Tensor},
};
use burn_pack::{Reader, Writer};
use ciborium::Value;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

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

/// Valid files of Burn and others, in an order of their own: one seed makes the same inputs again.
#[derive(Default)]
pub struct Corpus {
    files: Vec<Vec<u8>>,
}

impl Corpus {
    /// Adds a file; the ids of its parameters that are above those of [`fixed`] are drawn anew.
    pub fn add(&mut self, bytes: Bytes) {
        let reader = Reader::from_bytes(bytes).unwrap();
        let (scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
        let tensors = reader.into_tensors().unwrap().into_iter();
        let mut tensors: BTreeMap<_, _> =
            tensors.map(|tensor| (tensor.name.clone(), tensor)).collect();
        for (number, tensor) in (100..).zip(tensors.values_mut()) {
            tensor.param_id = tensor.param_id.map(|id| if id < 100 { id } else { number });
        }
        let writer = Writer::new(tensors.into_values().collect());
        let writer =
            scalars.iter().fold(writer, |writer, (key, value)| writer.with_scalar(key, *value));
        let writer =
            metadata.iter().fold(writer, |writer, (key, value)| writer.with_metadata(key, value));
        self.files.push(writer.into_bytes().unwrap().to_vec());
    }

    /// Adds files that no one saved.
    pub fn add_hostile(&mut self) {
        let deep = |byte: u8, count: usize| with_metadata(&self.files[0], &vec![byte; count]);
        let hostile = [deep(0x81, 200), deep(0xa1, 200), deep(0xbb, 9), deep(0x9f, 60_000)];
        self.files.extend(hostile);
        self.files.extend([Vec::new(), vec![0; 4096]]);
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

/// The module with ones for weights, and ids from 1 on.
pub fn fixed<M: Module>(module: M) -> M {
    struct Fixed(u64);
    impl ModuleMapper for Fixed {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.0 += 1;
            let (_, tensor, mapper) = param.consume();
            let ones = tensor.without_autodiff().ones_like().autodiff().require_grad();
            Param::from_mapped_value(ParamId::from(self.0), ones, mapper)
        }
    }
    module.map(&mut Fixed(0))
}

/// The size of the metadata that the header of Burn's bytes claims.
fn metadata_size(bytes: &[u8]) -> usize {
    let size = bytes.get(6..).and_then(|bytes| bytes.first_chunk::<4>());
    size.map_or(0, |size| u32::from_le_bytes(*size) as usize)
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
fn answer<E: Error>(opened: &Result<(), E>) -> String {
    let Err(error) = opened else { return String::new() };
    let text = error.source().map_or(error.to_string(), ToString::to_string);
    let words = text.split(": expected ").last().unwrap_or_default().split_whitespace();
    words.filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == ',')).collect()
}

/// Hands hostile files to `open` as long as the environment says, and prints how many it took.
///
/// `open` gets the index of the file of the corpus that each was; most are of those named `own`.
pub fn fuzz<E: Error>(
    name: &str,
    corpus: &Corpus,
    own: Range<usize>,
    mut open: impl FnMut(usize, Bytes) -> Result<(), E>,
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
    let keeps = number("BURN_EMA_FUZZ_KEEP").is_some();
    let mut kept = if keeps { Vec::new() } else { Kept::read(name) };
    for Kept { index, bytes } in &kept {
        let _ = open(*index, Bytes::from_bytes_vec(bytes.clone()));
    }
    let repeated = kept.len();
    let mut answers = BTreeSet::new();
    let (start, mut inputs, mut taken) = (Instant::now(), 0, 0);
    let mut slowest = Duration::ZERO;
    while inputs == 0 || start.elapsed() < Duration::from_secs(seconds) {
        let input = Input(seed.wrapping_add(inputs));
        let mut random = ChaCha8Rng::seed_from_u64(input.0);
        let drawn = random.random_ratio(3, 4).then(|| random.random_range(own.clone()));
        let index = drawn.unwrap_or_else(|| corpus.any(&mut random));
        let damaged = corpus.damaged(index, &mut random);
        let bytes = Bytes::from_bytes_vec(damaged.clone());
        let begin = Instant::now();
        let opened = open(index, bytes);
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

/// Which of its own files one is to a loader, or is taken for.
pub fn among(own: &Range<usize>, index: usize) -> usize {
    (index + own.len() - own.start % own.len()) % own.len()
}

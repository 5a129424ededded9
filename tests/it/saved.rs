//! Averages in records and files: going on after a load, what is refused, what plain Burn reads,
//! and what damage does.

use std::path::Path;

use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig},
    store::ModuleRecord,
    tensor::{Bytes, DType, FloatDType, Int, Tensor, TensorData},
};
use burn_ema::{Average, AverageConfig, Clock, NonFinite, Policy, Rule, average::Description};
use burn_pack::Reader;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    common::{EXACT, custom, device, floats},
    rules::{config, every_rule},
};

/// Weights, statistics and an integer: the step that they are of.
#[derive(Module, Debug)]
struct Small {
    first: Linear,
    norm: BatchNorm,
    last: Linear,
    step: Param<Tensor<1, Int>>,
}

impl Small {
    /// Numbers in (0, 1) that depend on the step alone; some steps have a NaN.
    fn at(step: u64, dtype: DType) -> Self {
        let (small, mut rng) = (Self::shaped(3, true), ChaCha8Rng::seed_from_u64(step));
        let small = small.map(&mut Draw(&mut rng, dtype));
        let step_of = Tensor::from_data([step as i32], &device());
        let mut small = Self { step: Param::initialized(ParamId::new(), step_of), ..small };
        if NOT_FINITE.contains(&step) {
            small.last.bias = small.last.bias.map(|bias| bias.map(|bias| bias * f32::NAN));
        }
        small
    }

    fn shaped(width: usize, bias: bool) -> Self {
        let device = device();
        Self {
            first: LinearConfig::new(2, width).init(&device),
            norm: BatchNormConfig::new(width).init(&device),
            last: LinearConfig::new(width, 2).with_bias(bias).init(&device),
            step: Param::initialized(ParamId::new(), Tensor::from_data([0], &device)),
        }
    }
}

struct Draw<'a>(&'a mut ChaCha8Rng, DType);

impl ModuleMapper for Draw<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let shape = tensor.shape();
            let values: Vec<f32> = (0..shape.num_elements()).map(|_| self.0.random()).collect();
            Tensor::from_data(TensorData::new(values, shape), (&tensor.device(), self.1))
        })
    }
}

/// The steps of a run, and those of them that an average refuses.
const STEPS: u64 = 12;
const NOT_FINITE: [u64; 3] = [5, 6, 7];

/// The clock of a step: batches are of several sizes.
fn clock(step: u64) -> Clock {
    (0..step).fold(Clock::default(), |clock, step| clock.after([64, 20, 100][step as usize % 3]))
}

/// Live's dtype and the settings of an average, for everything that a saved form has to hold.
fn cases() -> Vec<(DType, AverageConfig)> {
    let mut cases: Vec<_> =
        every_rule().into_iter().map(|rule| (DType::F32, config(rule))).collect();
    for rule in [
        Rule::ema(0.9),
        Rule::debiased(0.9),
        Rule::lawa(2, 3),
        Rule::bema(),
        Rule::power_function(0.1),
        custom(3.0),
    ] {
        cases.push((DType::F32, config(rule.clone()).with_every(3).with_start(2)));
        cases.push((DType::F32, config(rule.clone()).with_start(9).with_count_samples(true)));
        let statistics = config(rule.clone()).with_statistics(Policy::Average);
        cases.push((DType::F32, statistics.with_start_epoch(Some(1))));
        if EXACT {
            cases.push((DType::BF16, config(rule.clone())));
            cases.push((DType::F32, config(rule.clone()).with_dtype(Some(FloatDType::BF16))));
            cases.push((DType::F64, config(rule).with_dtype(Some(FloatDType::F32))));
        }
    }
    let policies = config(Rule::Equal)
        .with_start(3)
        .with_statistics(Policy::Rule(Rule::lawa(3, 2)))
        .on("first.*", Policy::Freeze)
        .on("**.weight", Policy::Copy)
        .on("norm.gamma", Policy::Rule(Rule::bema()))
        .on("norm.beta", Policy::LeaveOut)
        .on("last.weight", Policy::Rule(Rule::lawa(2, 1)));
    cases.push((DType::F32, policies.clone().with_every(2)));
    if EXACT {
        cases.push((DType::BF16, policies));
    }
    let limit = NOT_FINITE.len() as u64 + 1;
    let cases = cases.into_iter().map(|(dtype, config)| {
        (dtype, config.with_non_finite(NonFinite::Skip { limit }).with_name(Some("it".into())))
    });
    cases.collect()
}

/// The average at the start and after each step.
fn run(config: &AverageConfig, dtype: DType) -> Vec<Average<Small>> {
    let mut average = config.init(&Small::at(0, dtype)).unwrap();
    let mut states = vec![average.clone()];
    for step in 1..=STEPS {
        average.update_at(&Small::at(step, dtype), clock(step)).unwrap();
        states.push(average.clone());
    }
    states
}

/// An average of other weights that has come elsewhere, as a new process may have it.
fn elsewhere(config: &AverageConfig, dtype: DType) -> Average<Small> {
    let mut average = config.init(&Small::at(100, dtype)).unwrap();
    for step in 101..105 {
        average.update(&Small::at(step, dtype), step).unwrap();
    }
    average
}

/// All numbers of a module to the bit, but for what the average leaves out.
fn bits(average: &Average<Small>, module: &Small) -> Vec<(String, Vec<u64>)> {
    let policies = &average.config().policies;
    let left_out = policies.iter().filter(|own| own.policy == Policy::LeaveOut);
    let left_out: Vec<_> = left_out.map(|own| &own.pattern).collect();
    let floats = floats(module).into_iter().filter(|(path, ..)| !left_out.contains(&path));
    let floats =
        floats.map(|(path, _, values)| (path, values.into_iter().map(f64::to_bits).collect()));
    let step = module.step.val().into_scalar::<i32>();
    floats.chain([("step".to_owned(), vec![step as u64])]).collect()
}

/// Every number of an average but its weights, as a record has them.
fn words(average: &Average<Small>) -> Vec<i32> {
    let record = average.clone().into_record().into_bytes().unwrap();
    let state = Reader::from_bytes(record).unwrap().tensor_data("state").unwrap();
    state.chunks_exact(4).map(|word| i32::from_le_bytes(word.try_into().unwrap())).collect()
}

#[track_caller]
fn assert_equal(found: &Average<Small>, expected: &Average<Small>) {
    let name = || format!("{} at {}", expected.rule(), expected.last_step());
    assert_eq!(words(found), words(expected), "{}", name());
    let kept = |average: &Average<Small>| bits(average, &average.module_as_kept());
    assert_eq!(kept(found), kept(expected), "{}", name());
    let module = |average: &Average<Small>| bits(average, &average.module());
    assert_eq!(module(found), module(expected), "{}", name());
    assert_eq!(found.clock(), expected.clock(), "{}", name());
    assert_eq!(found.has_begun(), expected.has_begun(), "{}", name());
    assert_eq!(found.mass().to_bits(), expected.mass().to_bits(), "{}", name());
    assert_eq!(found.refused(), expected.refused(), "{}", name());
    for path in ["first.bias", "norm.gamma", "norm.running_mean", "last.weight"] {
        assert_eq!(found.profile_of(path), expected.profile_of(path), "{} {path}", name());
    }
    assert_eq!(found.profile(), expected.profile(), "{}", name());
}

/// N + M steps are N steps, a load, and M more, at every N.
#[track_caller]
fn assert_goes_on(mut loaded: Average<Small>, states: &[Average<Small>], dtype: DType) {
    let cut = loaded.last_step();
    assert_equal(&loaded, &states[cut as usize]);
    for step in cut + 1..=STEPS {
        loaded.update_at(&Small::at(step, dtype), clock(step)).unwrap();
        assert_equal(&loaded, &states[step as usize]);
    }
}

#[test]
fn what_a_record_brings_back_goes_on_bit_for_bit() {
    for (dtype, config) in cases() {
        let states = run(&config, dtype);
        let there = elsewhere(&config, dtype);
        for (cut, state) in states.iter().enumerate() {
            let loaded = there.clone().try_load_record(state.clone().into_record()).unwrap();
            assert_eq!(loaded.last_step(), cut as u64);
            assert_goes_on(loaded, &states, dtype);
        }
    }
}

#[test]
fn what_a_file_brings_back_goes_on_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("average");
    for (index, (dtype, config)) in cases().into_iter().enumerate() {
        let states = run(&config, dtype);
        let there = elsewhere(&config, dtype);
        // Files take their time: every cut, but not of every case.
        for (cut, state) in states.iter().enumerate().skip(index % 4).step_by(4) {
            state.save_file(&path, "").unwrap();
            let loaded = there.clone().try_load_file(&path).unwrap();
            std::fs::remove_file(path.with_extension("bpk")).unwrap();
            assert_eq!(loaded.last_step(), cut as u64);
            assert_goes_on(loaded, &states, dtype);
        }
    }
}

/// Whether a file holds more than the plain module: the average as it is kept, or tensors beside.
fn holds_more(config: &AverageConfig, dtype: DType) -> bool {
    let beside = |rule: &Rule| matches!(rule, Rule::Window { .. } | Rule::Bema { .. });
    let own = config.policies.iter().map(|own| &own.policy).chain([&config.statistics]);
    let own = own.filter_map(|policy| match policy {
        Policy::Rule(rule) => Some(rule),
        _ => None,
    });
    dtype == DType::BF16 || config.dtype.is_some() || own.chain([&config.rule]).any(beside)
}

#[test]
fn plain_burn_loads_the_file_of_an_average() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("average.bpk");
    for (dtype, config) in cases() {
        for state in run(&config, dtype).iter().step_by(6) {
            state.save_file(&path, "").unwrap();
            let plain = || Small::at(200, dtype);
            let partial = config.policies.iter().any(|own| own.policy == Policy::LeaveOut);
            let more = holds_more(&config, dtype);
            let loaded = match (more, partial) {
                (false, false) => plain().load_file(&path),
                _ => {
                    assert!(plain().try_load_file(&path).is_err(), "{config:?}");
                    let record = ModuleRecord::load(&path).unwrap();
                    plain().load_record(record.allow_unused(more).allow_partial(partial))
                }
            };
            assert_eq!(bits(state, &loaded), bits(state, &state.module()), "{config:?}");
        }
    }
}

#[test]
fn what_is_left_out_is_in_no_file_and_no_record() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("average.bpk");
    for rule in [Rule::ema(0.9), Rule::bema()] {
        let config = config(rule).on("norm.beta", Policy::LeaveOut);
        let average = config.init(&Small::at(0, DType::F32)).unwrap();
        average.save_file(&path, "").unwrap();
        let record = average.into_record().into_bytes().unwrap();
        for saved in [Reader::from_file(&path).unwrap(), Reader::from_bytes(record).unwrap()] {
            let names = saved.tensor_names();
            assert!(names.iter().any(|name| name.ends_with("norm.gamma")));
            assert!(!names.iter().any(|name| name.ends_with("norm.beta")), "{names:?}");
        }
    }
}

#[test]
fn a_file_says_what_made_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("average");
    for (dtype, config) in cases() {
        for state in run(&config, dtype).iter().skip(4).step_by(8) {
            state.save_file(&path, "run 7 of Tuesday").unwrap();
            for path in [path.clone(), path.with_extension("bpk")] {
                let described = Description::read(path).unwrap();
                assert_eq!(described.name, "it");
                assert_eq!(described.rule, config.rule.to_string());
                assert_eq!(described.rule.parse::<Rule>().unwrap(), config.rule);
                assert_eq!((described.step, described.samples), {
                    let Clock { step, samples } = state.clock();
                    (step, samples)
                });
                assert_eq!(described.mass.to_bits(), state.mass().to_bits());
                // BEMA's correction takes from the start what it gives to the newest weights.
                if !matches!(config.rule, Rule::Bema { .. }) {
                    let start = state.profile().mass_on_start();
                    assert!((described.mass_on_start - start).abs() < 1e-12, "{}", config.rule);
                }
                assert_eq!(described.source, "run 7 of Tuesday");
                assert_eq!(described.version, env!("CARGO_PKG_VERSION"));
            }
        }
    }
}

/// An error with all that caused it.
fn whole(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", whole(cause)),
        None => error.to_string(),
    }
}

/// Averages that are not those of `base()`, and what the error of a load has to name.
fn others() -> Vec<(Average<Small>, &'static str)> {
    let of = |config: AverageConfig| config.init(&Small::at(100, DType::F32)).unwrap();
    let mut others = vec![
        (of(base_config(Rule::ema(0.5))), "expected the rule ema(0.5), found ema(0.9)"),
        (
            of(base_config(Rule::debiased(0.9))),
            "expected the rule ema(0.9, debias), found ema(0.9)",
        ),
        (of(base().with_every(3)), "expected every 3, found 2"),
        (of(base().with_start(4)), "expected start 4, found 3"),
        (of(base().with_start(0).with_start_epoch(Some(1))), "expected start 0, found 3"),
        (of(base().with_samples_per_step(Some(9))), "expected samples_per_step 9, found 64"),
        (of(base().with_count_samples(false)), "expected samples_per_step none, found 64"),
        (of(base().with_steps_per_epoch(Some(4))), "expected steps_per_epoch 4, found 9"),
        (
            of(base().on("last.bias", Policy::Freeze)),
            "expected policies [first.*: copy, norm.beta: half-life(1.5 epochs), \
             last.bias: freeze], found [first.*: copy, norm.beta: half-life(1.5 epochs)]",
        ),
        (of(base().with_statistics(Policy::Average)), "expected statistics average, found copy"),
        (
            base().init(&Small::shaped(4, true)).unwrap(),
            "first.bias: expected f32 [4], found f32 [3]",
        ),
        (
            base().init(&Small::shaped(3, false)).unwrap(),
            "last.bias: expected no entry of this path, found f32 [2] in the record",
        ),
    ];
    if EXACT {
        others.push((
            base().init(&Small::at(100, DType::F64)).unwrap(),
            "first.bias: expected f64 [3], found f32 [3]",
        ));
    }
    others
}

fn base_config(rule: Rule) -> AverageConfig {
    config(rule)
        .with_every(2)
        .with_start(3)
        .with_name(Some("it".into()))
        .with_count_samples(true)
        .on("first.*", Policy::Copy)
        .on("norm.beta", Policy::Rule(Rule::HalfLifeEpochs { epochs: 1.5 }))
        .with_non_finite(NonFinite::Skip { limit: 9 })
}

fn base() -> AverageConfig {
    base_config(Rule::ema(0.9))
}

#[test]
fn an_average_of_other_settings_or_another_module_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("average.bpk");
    let saved = run(&base(), DType::F32).pop().unwrap();
    saved.save_file(&path, "").unwrap();
    for (other, expected) in others() {
        let refusals = [
            other.clone().try_load_record(saved.clone().into_record()).unwrap_err(),
            other.try_load_file(&path).unwrap_err(),
        ];
        for refusal in refusals {
            let refusal = whole(&refusal);
            assert!(refusal.contains(expected), "{refusal}");
        }
    }
    // The dtype that it is kept in, where the tensors alone would not tell.
    if EXACT {
        let kept = base().with_dtype(Some(FloatDType::F64));
        let kept = kept.init(&Small::at(100, DType::F32)).unwrap();
        for refusal in [
            kept.clone().try_load_record(saved.clone().into_record()).unwrap_err(),
            kept.try_load_file(&path).unwrap_err(),
        ] {
            let expected = "state: expected dtypes f64 for live's f32, found live's own";
            assert!(whole(&refusal).contains(expected), "{}", whole(&refusal));
        }
        let half = base().init(&Small::at(100, DType::BF16)).unwrap();
        let refusal = half.try_load_record(saved.clone().into_record()).unwrap_err();
        let expected = "state: expected dtypes f32 for live's bf16, found live's own";
        assert!(whole(&refusal).contains(expected), "{}", whole(&refusal));
    }

    // And the other way round: a parameter that the file lacks.
    let other = base().init(&Small::shaped(3, false)).unwrap();
    other.save_file(&path, "").unwrap();
    let target = || base().init(&Small::at(100, DType::F32)).unwrap();
    for refusal in [
        target().try_load_record(other.into_record()).unwrap_err(),
        target().try_load_file(&path).unwrap_err(),
    ] {
        let expected = "last.bias: expected f32 [2], found nothing in the record";
        assert!(whole(&refusal).contains(expected), "{refusal}");
    }
}

/// A file of the average that [`damaged`] damages, in which everything occurs that a file has.
fn intact() -> (Average<Small>, Vec<u8>) {
    let config = config(Rule::lawa(2, 3))
        .with_name(Some("it".into()))
        .with_non_finite(NonFinite::Skip { limit: 9 })
        .on("norm.*", Policy::Rule(Rule::bema()))
        .on("last.*", Policy::Rule(Rule::debiased(0.9)));
    let average = run(&config, DType::F32).pop().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("average.bpk");
    average.save_file(&path, "a source").unwrap();
    let bytes = std::fs::read(path).unwrap();
    (average, bytes)
}

/// What a load of these bytes gives, from a file.
fn load(bytes: &[u8], into: &Average<Small>) -> Result<Average<Small>, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("average.bpk");
    std::fs::write(&path, bytes).unwrap();
    let _ = Description::read(&path);
    into.clone().try_load_file(&path).map_err(|error| whole(&error))
}

#[test]
fn a_file_that_no_average_wrote_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain.bpk");
    Small::at(0, DType::F32).save_file(&plain).unwrap();
    let (average, bytes) = intact();
    let refused = |path: &Path, expected: &str| {
        for refusal in
            [Description::read(path).unwrap_err(), average.clone().try_load_file(path).unwrap_err()]
        {
            let refusal = whole(&refusal);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(refusal.contains(expected) && refusal.contains(name), "{refusal}");
        }
    };
    refused(&plain, "expected an entry of this name, found a file without it");
    refused(&directory.path().join("missing"), "cannot read");
    let foreign: [&[u8]; 5] = [b"", b"w,1,2\n", b"PK\x03\x04", &[0; 5000], &8u64.to_le_bytes()];
    for foreign in foreign {
        let path = directory.path().join("foreign");
        std::fs::write(&path, foreign).unwrap();
        refused(&path, "cannot read");
    }
    // All of the header, some of the rest, and the last bytes.
    let cuts = (0..40).chain((40..bytes.len()).step_by(211)).chain(bytes.len() - 9..bytes.len());
    for cut in cuts {
        assert!(load(&bytes[..cut], &average).is_err(), "cut to {cut} bytes");
    }
}

/// The digest stands where its name does in the file, so that no other text may look like it.
#[test]
fn a_source_like_the_digest_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("average.bpk");
    let (average, _) = intact();
    let refusal = average.save_file(&path, "burn-ema.sha256x@0123").unwrap_err();
    let found = "expected one entry of this name, found names like it";
    let expected = format!("cannot write {}: burn-ema.sha256: {found}", path.display());
    assert_eq!(whole(&refusal), expected);
    assert!(!path.exists());
    average.save_file(&path, "burn-ema.sha256").unwrap();
    elsewhere(average.config(), DType::F32).try_load_file(&path).unwrap();
}

/// Bytes that changed at some places, perhaps cut or with others inserted.
fn damaged(bytes: &[u8]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let bytes = bytes.to_vec();
    let place = || any::<prop::sample::Index>();
    let flips = prop::collection::vec((place(), 0_u8..8), 0..4);
    let writes = prop::collection::vec((place(), any::<u8>()), 0..3);
    let insertion = prop::option::weighted(0.2, (place(), any::<[u8; 5]>()));
    let cut = prop::option::weighted(0.1, place());
    (flips, writes, insertion, cut).prop_map(move |(flips, writes, insertion, cut)| {
        let mut bytes = bytes.clone();
        let length = bytes.len();
        flips.into_iter().for_each(|(place, bit)| bytes[place.index(length)] ^= 1 << bit);
        writes.into_iter().for_each(|(place, byte)| bytes[place.index(length)] = byte);
        if let Some((place, inserted)) = insertion {
            let place = place.index(length);
            bytes.splice(place..place, inserted);
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(length)));
        bytes
    })
}

proptest! {
    #[test]
    fn a_damaged_file_or_record_never_panics(bytes in damaged(&intact().1), record in damaged(
        &intact().0.into_record().into_bytes().unwrap()
    )) {
        let (average, _) = intact();
        if let Ok(loaded) = load(&bytes, &elsewhere(average.config(), DType::F32)) {
            loaded.module();
        }
        let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(record));
        let there = elsewhere(average.config(), DType::F32);
        if let Some(Ok(loaded)) = record.ok().map(|record| there.try_load_record(record)) {
            loaded.module();
        }
    }
}

/// A file beside what became of it: ids are drawn, so that no two are the same.
fn damaged_and_whole() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let (_, whole) = intact();
    damaged(&whole).prop_map(move |bytes| (bytes, whole.clone()))
}

proptest! {
    /// Burn's files have no checksum, so that this one needs its own.
    #[test]
    fn a_damaged_file_is_an_error((bytes, whole) in damaged_and_whole()) {
        let (average, _) = intact();
        match load(&bytes, &elsewhere(average.config(), DType::F32)) {
            Err(_) => prop_assert!(bytes != whole),
            Ok(loaded) => {
                prop_assert!(bytes == whole);
                assert_equal(&loaded, &average);
            }
        }
    }
}

/// Numbers that pass for those of an average would be believed, and some of them ask for more
/// memory than there is.
#[test]
fn numbers_that_no_average_has_are_refused() {
    let config = config(Rule::ema(0.9)).with_every(2).with_start(2);
    let mut average = config.init(&Small::at(100, DType::F32)).unwrap();
    for step in 1..=12 {
        average.update(&Small::at(100 + step, DType::F32), step).unwrap();
    }
    let record = average.clone().into_record().into_bytes().unwrap();
    // The settings come first: as many pairs of texts as a number says.
    let state = words(&average);
    let mut at = 3;
    for _ in 0..2 * state[1] {
        at += 2 + (state[at] as usize).div_ceil(4);
    }
    // Step, samples, the step of the last update, whether it has begun and where, the runs.
    assert_eq!([0, 4, 6, 8, 10, 12, 14].map(|i| state[at + i]), [12, 12, 1, 2, 1, 5, 2]);
    let damages: [(&str, &[(usize, i32)]); 6] = [
        ("the last update lies ahead", &[(4, 13)]),
        ("the start lies ahead", &[(8, 13)]),
        ("it began before its start", &[(8, 0)]),
        ("it has not begun, and was updated", &[(6, 0)]),
        ("more updates than steps", &[(12, 99)]),
        ("more steps, and updates, than a training has", &[(1, 1 << 20), (13, 1 << 19)]),
    ];
    let accepted = damages.into_iter().filter(|(_, changes)| {
        let mut state = state.clone();
        changes.iter().for_each(|(place, word)| state[at + place] = *word);
        let tensors = Reader::from_bytes(record.clone()).unwrap().into_tensors().unwrap();
        let tensors = tensors.into_iter().map(|tensor| match &tensor.name[..] {
            "state" => {
                let bytes = state.iter().flat_map(|word| word.to_le_bytes()).collect();
                let bytes = Bytes::from_bytes_vec(bytes);
                burn_pack::Tensor::new(tensor.name, DType::I32, vec![state.len()], None, bytes)
            }
            _ => tensor,
        });
        let bytes = burn_pack::Writer::new(tensors.collect()).into_bytes().unwrap();
        let record = ModuleRecord::from_bytes(bytes).unwrap();
        average.clone().try_load_record(record).is_ok()
    });
    let accepted: Vec<_> = accepted.map(|(damage, _)| damage).collect();
    assert!(accepted.is_empty(), "{accepted:?}");
}

#[cfg(feature = "train")]
mod hook {
    use burn::{
        optim::{
            GradientsParams, ModuleOptimizer, SgdConfig,
            lr_scheduler::module_lr_scheduler::ModuleLearningRate,
        },
        train::{InferenceStep, TrainOutput, TrainStep},
    };
    use burn_ema::train::Averaged;

    use super::*;

    impl TrainStep for Small {
        /// The samples of a batch.
        type Input = u64;
        type Output = ();

        fn step(&self, _: u64) -> TrainOutput<()> {
            TrainOutput { grads: GradientsParams::new(), item: () }
        }

        /// Each step has weights of its own, whatever the gradients are.
        fn optimize(
            self,
            _: &mut ModuleOptimizer,
            _: ModuleLearningRate,
            _: GradientsParams,
        ) -> Self {
            let step = self.step.val().into_scalar::<i32>() as u64;
            Self::at(step + 1, self.first.weight.val().dtype())
        }
    }

    impl InferenceStep for Small {
        type Input = u64;
        type Output = ();

        fn step(&self, _: u64) {}
    }

    fn averaged(step: u64, dtype: DType, configs: &[AverageConfig]) -> Averaged<Small> {
        let model = Averaged::new(Small::at(step, dtype), configs.to_vec()).unwrap();
        model.with_samples(|samples| *samples)
    }

    /// One optimizer step with a batch.
    fn next(model: Averaged<Small>) -> Averaged<Small> {
        let step = model.steps();
        let batch = clock(step + 1).samples - clock(step).samples;
        let grads = TrainStep::step(&model, batch).grads;
        model.optimize(&mut SgdConfig::new().init(), 0.1.into(), grads)
    }

    #[track_caller]
    fn assert_all_equal(model: &Averaged<Small>, runs: &[Vec<Average<Small>>], dtype: DType) {
        assert!(model.error().is_none(), "{:?}", model.error());
        let step = model.steps();
        let live = Small::at(step, dtype);
        for (index, (found, states)) in model.averages().iter().zip(runs).enumerate() {
            let expected = &states[step as usize];
            assert_equal(found, expected);
            let handed_out = model.average(index).unwrap();
            let like = expected.module_like(&live).unwrap();
            assert_eq!(bits(expected, &handed_out), bits(expected, &like));
        }
    }

    /// All averages in one model: the record of the hook, in memory and as a file, brings each of
    /// them back at every step, and they are those of a loop by hand.
    #[test]
    fn what_a_record_of_the_hook_brings_back_goes_on_bit_for_bit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.bpk");
        for dtype in [DType::F32, DType::BF16, DType::F64] {
            let configs = cases().into_iter().filter(|(of, _)| *of == dtype);
            let named = (0..)
                .zip(configs)
                .map(|(index, (_, config))| config.with_name(Some(format!("number {index}"))));
            let configs: Vec<_> = named.collect();
            if configs.is_empty() {
                continue;
            }
            let runs: Vec<_> = configs.iter().map(|config| run(config, dtype)).collect();
            let mut model = averaged(0, dtype, &configs);
            for cut in 0..=STEPS {
                assert_all_equal(&model, &runs, dtype);
                let in_memory =
                    averaged(50, dtype, &configs).load_record(model.clone().into_record());
                assert_all_equal(&in_memory, &runs, dtype);
                // Every other cut goes on to the end, which is enough and half the time.
                if cut % 2 == 1 {
                    model.clone().save_file(&path).unwrap();
                    let mut from_file = averaged(50, dtype, &configs).load_file(&path);
                    std::fs::remove_file(&path).unwrap();
                    for _ in cut..STEPS {
                        from_file = next(from_file);
                    }
                    assert_eq!(from_file.steps(), STEPS);
                    assert_all_equal(&from_file, &runs, dtype);
                }
                if cut < STEPS {
                    model = next(model);
                }
            }
        }
    }

    #[test]
    fn a_record_of_the_hook_with_another_average_is_refused_by_name() {
        let mut model = averaged(0, DType::F32, &[base()]);
        for _ in 0..STEPS {
            model = next(model);
        }
        for (other, expected) in others() {
            let live = other.module();
            let target = Averaged::new(live, [other.config().clone()]).unwrap();
            let target = target.with_samples(|_| 1);
            let refusal = target.try_load_record(model.clone().into_record());
            let refusal = whole(&refusal.map(|_| ()).unwrap_err());
            assert!(refusal.contains(expected), "{refusal}");
        }
    }
}

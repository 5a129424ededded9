//! `Average` by itself: pairing by path, records, storage.

use std::cell::Cell;

use burn::{
    module::{Module, Param},
    nn::{BatchNormConfig, Linear, LinearConfig},
    tensor::{Bool, DType, Device, Int, Tensor},
};
use burn_ema::{Average, AverageConfig, Error, Rule};

use crate::common::{
    EXACT, Net, Weights, assert_same, constants, device, flat, floats, lerp, randomized,
};

#[test]
fn decay_zero_is_live_bit_for_bit_after_every_step() {
    for seed in 0..3 {
        for debias in [false, true] {
            let config = AverageConfig::new(Rule::Constant { decay: 0.0, debias });
            let mut average = config.init(&Net::new(seed, &device())).unwrap();
            for step in 1..=5 {
                let live = Net::new(seed + 10 * step, &device());
                average.update(&live, step).unwrap();
                assert_eq!(flat(&average.module(), true), flat(&live, true));
            }
        }
    }
}

#[test]
fn a_decay_outside_its_range_is_an_error() {
    let net = Net::new(0, &device());
    for decay in [-0.5, 1.0, f64::NAN] {
        let error = AverageConfig::new(Rule::ema(decay)).init(&net).unwrap_err();
        let expected = format!("decay is {decay}, expected a number in [0, 1)");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn the_same_step_is_one_update_and_a_step_back_is_an_error() {
    let mut average = AverageConfig::new(Rule::ema(0.5)).init(&Net::new(0, &device())).unwrap();
    average.update(&Net::new(1, &device()), 3).unwrap();
    let before = flat(&average.module(), true);
    average.update(&Net::new(2, &device()), 3).unwrap();
    assert_eq!(flat(&average.module(), true), before);
    let error = average.update(&Net::new(2, &device()), 2).unwrap_err();
    assert!(matches!(error, Error::StepBack { step: 2, last: 3 }), "{error}");
    assert_eq!(flat(&average.module(), true), before);
    assert_eq!(average.last_step(), 3);

    // Before the first step there is nothing to take.
    let config = AverageConfig::new(Rule::Constant { decay: 0.5, debias: true });
    let mut average = config.init(&Net::new(0, &device())).unwrap();
    let error = average.update(&Net::new(1, &device()), 0).unwrap_err().to_string();
    assert_eq!(error, "the step is 0, expected a number from 1");
    assert_eq!(flat(&average.module(), true), flat(&Net::new(0, &device()), true));
}

/// `k` steps in one update keep `decay^k` of the old average.
#[test]
fn an_update_over_several_steps_keeps_the_width() {
    let (start, live) = (Net::new(0, &device()), Net::new(1, &device()));
    let mut average = AverageConfig::new(Rule::ema(0.5)).init(&start).unwrap();
    average.update(&live, 3).unwrap();
    let mut expected = flat(&start, false);
    lerp(&mut expected, &flat(&live, false), 0.875);
    assert_same(&flat(&average.module(), false), &expected);
}

/// Shapes that another structure of the same type can have: a list, an option, an enum.
#[derive(Module, Debug)]
enum Head {
    Plain(Linear),
    Deep(Deep),
}

#[derive(Module, Debug)]
struct Deep {
    inner: Linear,
}

#[derive(Module, Debug)]
struct Zoo {
    list: Vec<Linear>,
    option: Option<Linear>,
    tuple: (Linear, Linear),
    head: Head,
    counts: Param<Tensor<1, Int>>,
    mask: Param<Tensor<1, Bool>>,
}

impl Zoo {
    fn new(seed: u64, list: usize, option: bool, deep: bool) -> Self {
        let device = device();
        let linear = || LinearConfig::new(2, 3).init(&device);
        let (counts, mask) = constants(seed);
        let zoo = Self {
            list: (0..list).map(|_| linear()).collect(),
            option: option.then(linear),
            tuple: (linear(), linear()),
            head: if deep { Head::Deep(Deep { inner: linear() }) } else { Head::Plain(linear()) },
            counts,
            mask,
        };
        randomized(zoo, seed)
    }
}

#[test]
fn every_structure_is_averaged_whole() {
    for seed in [1, 4] {
        for deep in [false, true] {
            let (start, live) = (Zoo::new(seed, 3, true, deep), Zoo::new(seed + 1, 3, true, deep));
            let mut average = AverageConfig::new(Rule::ema(0.25)).init(&start).unwrap();
            average.update(&live, 1).unwrap();
            let module = average.module();
            let mut expected = flat(&start, true);
            assert_eq!(expected.len(), 9 * 7, "all seven layers");
            lerp(&mut expected, &flat(&live, true), 0.75);
            assert_same(&flat(&module, true), &expected);
            // Integers and booleans are live's.
            module.counts.val().into_data().assert_eq(&live.counts.val().into_data(), true);
            module.mask.val().into_data().assert_eq(&live.mask.val().into_data(), true);
        }
    }
}

#[test]
fn a_mismatch_is_an_error_with_the_path_and_leaves_the_average() {
    let start = Zoo::new(1, 2, true, false);
    let mut average = AverageConfig::new(Rule::ema(0.5)).init(&start).unwrap();
    let cases = [
        (Zoo::new(2, 1, true, false), "list.1.weight: expected f32 [2, 3], found no parameter"),
        (Zoo::new(2, 3, true, false), "list.2.bias: expected no parameter of this path, found"),
        (Zoo::new(2, 2, false, false), "option.weight: expected f32 [2, 3], found no parameter"),
        (Zoo::new(2, 2, true, true), "head.Plain.weight: expected f32 [2, 3], found no parameter"),
    ];
    for (live, expected) in cases {
        let error = average.update(&live, 1).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(average.last_step(), 0);
        assert_eq!(flat(&average.module(), true), flat(&start, true));
    }

    let mut average = AverageConfig::new(Rule::ema(0.5))
        .init(&Weights::new(&[1.0, 2.0], DType::F32, &device()))
        .unwrap();
    let longer = Weights::new(&[1.0, 2.0, 3.0], DType::F32, &device());
    let error = average.update(&longer, 1).unwrap_err().to_string();
    assert_eq!(error, "w: expected f32 [2], found f32 [3]");
}

#[test]
fn parameters_pair_by_path_also_when_their_ids_change() {
    let mut average = AverageConfig::new(Rule::ema(0.5)).init(&Net::new(0, &device())).unwrap();
    let mut expected = flat(&Net::new(0, &device()), false);
    for seed in 1..4 {
        let live = Net::new(seed, &device()); // ids of its own
        average.update(&live, seed).unwrap();
        lerp(&mut expected, &flat(&live, false), 0.5);
    }
    assert_same(&flat(&average.module(), false), &expected);
}

/// A module that may show its two parameters in either order.
#[derive(Clone, Debug)]
pub struct Pair {
    pub a: Param<Tensor<1>>,
    pub b: Param<Tensor<1>>,
    pub b_first: bool,
}

impl Pair {
    pub fn new([a, b]: [f32; 2], b_first: bool) -> Self {
        let param = |value| Param::from_data([value], &device());
        Self { a: param(a), b: param(b), b_first }
    }

    fn each(self, map: impl Fn(Param<Tensor<1>>) -> Param<Tensor<1>>) -> Self {
        Self { a: map(self.a), b: map(self.b), ..self }
    }
}

impl Module for Pair {
    fn visit<V: burn::module::ModuleVisitor>(&self, visitor: &mut V) {
        let mut both = [("a", &self.a), ("b", &self.b)];
        if self.b_first {
            both.reverse();
        }
        for (name, param) in both {
            visitor.enter_module(name, "Struct:Pair");
            visitor.visit_float(param);
            visitor.exit_module(name, "Struct:Pair");
        }
    }

    fn map<P: burn::module::ModuleMapper>(self, mapper: &mut P) -> Self {
        let mut map = |name: &str, param| {
            mapper.enter_module(name, "Struct:Pair");
            let param = mapper.map_float(param);
            mapper.exit_module(name, "Struct:Pair");
            param
        };
        Self { a: map("a", self.a), b: map("b", self.b), ..self }
    }

    fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
        self.a.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.each(|param| param.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.each(|param| param.to_device(device))
    }

    fn train(self) -> Self {
        self.each(Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().each(|param| param.valid())
    }

    fn materialize(self) -> Self {
        self
    }
}

#[test]
fn parameters_never_pair_by_position() {
    let mut average =
        AverageConfig::new(Rule::ema(0.5)).init(&Pair::new([0.0, 0.0], false)).unwrap();
    let live = Pair::new([1.0, 3.0], true);
    for step in 1..=3 {
        average.update(&live, step).unwrap(); // the same ids each time, in the other order
    }
    let found = average.module();
    let value = |param: Param<Tensor<1>>| param.val().into_scalar::<f32>();
    assert_eq!((value(found.a), value(found.b)), (0.875, 2.625));
}

#[test]
fn statistics_of_a_batch_norm_are_copied_and_never_shared() {
    let device = device();
    let live = Net::new(0, &device);
    let mut average = AverageConfig::new(Rule::ema(0.5)).init(&live).unwrap();
    let statistics =
        |net: &Net| net.norm.running_mean.value_sync().into_data().try_into_vec::<f32>().unwrap();
    let at_start = average.module();
    assert_eq!(statistics(&at_start), [0.0; 16]);

    let trained = live.clone().train();
    trained.forward(Tensor::<2>::ones([4, 2], &device.clone().autodiff()));
    assert_eq!(statistics(&average.module()), [0.0; 16], "live's moved, but not the average's");
    average.update(&trained, 1).unwrap(); // before anything else asks for them
    let moved = trained.valid();
    assert_ne!(statistics(&moved), [0.0; 16], "the forward pass moved live's statistics");
    assert_eq!(statistics(&average.module()), statistics(&moved), "current, not one pass late");
    assert_eq!(statistics(&at_start), [0.0; 16], "nor those of a module handed out before");

    // Writing through a module that was handed out reaches neither.
    let handed_out = average.module();
    let _ = handed_out.norm.running_mean.clone().map(&mut AddOne);
    assert_eq!(statistics(&average.module()), statistics(&moved));
}

struct AddOne;

impl burn::module::ModuleMapper for AddOne {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor + 1.0)
    }
}

#[test]
fn what_is_handed_out_is_plain_independent_and_has_ids_of_its_own() {
    let device = device();
    let live = Net::new(0, &device).train();
    assert!(live.first.weight.val().is_autodiff());
    let mut average = AverageConfig::new(Rule::ema(0.5)).init(&live).unwrap();
    let module = average.module();
    let before = flat(&module, true);
    average.update(&Net::new(1, &device).train(), 1).unwrap();
    assert_eq!(flat(&module, true), before, "a later update does not reach it");
    assert_ne!(flat(&average.module(), true), before);

    for module in [module, average.module()] {
        assert!(!module.first.weight.val().is_autodiff());
        assert!(!module.first.weight.val().is_require_grad());
        let ids: Vec<_> = floats(&live).into_iter().map(|(_, id, _)| id).collect();
        let weights = ["first.weight", "first.bias", "last.weight", "last.bias"];
        for (path, id, _) in floats(&module) {
            assert!(!weights.contains(&path.as_str()) || !ids.contains(&id), "{path}");
        }
    }
    let again = average.module().train();
    assert!(again.first.weight.val().is_require_grad(), "it can be trained on");
}

#[test]
fn a_record_brings_the_average_back_bit_for_bit() {
    let device = device();
    for debias in [false, true] {
        let config = AverageConfig::new(Rule::Constant { decay: 0.9, debias });
        let mut average = config.init(&Net::new(0, &device)).unwrap();
        for step in 1..=3 {
            average.update(&Net::new(step, &device), step).unwrap();
        }
        let record = average.clone().into_record();
        let fresh = config.init(&Net::new(9, &device)).unwrap();
        let mut loaded = fresh.try_load_record(record).unwrap();
        assert_eq!(loaded.mass().to_bits(), average.mass().to_bits());
        for step in 3..6 {
            assert_eq!(loaded.last_step(), average.last_step());
            assert_eq!(flat(&loaded.module(), true), flat(&average.module(), true));
            let live = Net::new(step + 1, &device);
            average.update(&live, step + 1).unwrap();
            loaded.update(&live, step + 1).unwrap();
        }
    }
}

#[test]
fn a_record_of_another_rule_shape_dtype_or_structure_is_refused() {
    let device = device();
    let config = |decay| AverageConfig::new(Rule::ema(decay));
    let of =
        |values: &[f64], dtype| config(0.5).init(&Weights::new(values, dtype, &device)).unwrap();
    let target = || of(&[1.0, 2.0], DType::F32);

    let other = config(0.9).init(&Weights::new(&[1.0, 2.0], DType::F32, &device)).unwrap();
    let refusal = |record| {
        let error: Error = Average::try_load_record(target(), record).unwrap_err();
        error.to_string()
    };
    assert_eq!(refusal(other.into_record()), "state: expected the rule ema(0.5), found ema(0.9)");
    assert_eq!(
        refusal(of(&[1.0], DType::F32).into_record()),
        "weights.w: expected f32 [2], found f32 [1]"
    );
    if EXACT {
        assert_eq!(
            refusal(of(&[1.0, 2.0], DType::F64).into_record()),
            "weights.w: expected f32 [2], found f64 [2]"
        );
    }
    let linear = |bias| {
        let linear = LinearConfig::new(2, 3).with_bias(bias).init(&device);
        config(0.5).init(&linear).unwrap()
    };
    let error = linear(false).try_load_record(linear(true).into_record()).unwrap_err();
    let expected = "weights.bias: expected no entry of this path, found f32 [3] in the record";
    assert_eq!(error.to_string(), expected);
    assert_eq!(
        refusal(Weights::new(&[1.0, 2.0], DType::F32, &device).into_record()),
        "state: expected a list of i32 words, found nothing of this name"
    );
}

/// A transposed weight (Burn's column layout) is saved and averaged as any other.
#[test]
fn layout_mappings_survive() {
    let device = device();
    let config = LinearConfig::new(2, 3).with_layout(burn::nn::LinearLayout::Col);
    let linear = |seed| randomized(config.init(&device), seed);
    let mut average = AverageConfig::new(Rule::ema(0.5)).init(&linear(0)).unwrap();
    average.update(&linear(1), 1).unwrap();
    let mut expected = flat(&linear(0), true);
    lerp(&mut expected, &flat(&linear(1), true), 0.5);
    assert_same(&flat(&average.module(), true), &expected);

    let record = average.clone().into_record();
    let fresh = AverageConfig::new(Rule::ema(0.5)).init(&linear(2)).unwrap();
    let loaded = fresh.try_load_record(record).unwrap();
    assert_same(&flat(&loaded.module(), true), &expected);
    let plain = config.init(&device).load_record(average.module().into_record());
    assert_same(&flat(&plain, true), &expected);
}

#[test]
fn an_empty_or_ambiguous_name_is_refused() {
    let net = Net::new(0, &device());
    for name in ["", "a.weights", "ema/0.9", "a\nb"] {
        let config = AverageConfig::new(Rule::ema(0.5)).with_name(Some(name.into()));
        assert!(config.init(&net).is_err());
    }
}

/// Counts the large allocations of the thread that asks for it.
struct Counting;

thread_local! {
    pub static LARGE: Cell<usize> = const { Cell::new(0) };
}

const WEIGHT_SIZED: usize = 64 << 10;

// SAFETY: every call goes to the system's allocator unchanged; the count is a plain cell.
unsafe impl std::alloc::GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        if layout.size() >= WEIGHT_SIZED {
            let _ = LARGE.try_with(|count| count.set(count.get() + 1));
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: std::alloc::Layout) {
        // SAFETY: the pointer came from `alloc` above, that is from the system's allocator.
        unsafe { std::alloc::System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
#[cfg(feature = "flex")]
#[cfg_attr(feature = "portable", ignore = "Burn's operations make new tensors")]
fn on_flex_an_update_allocates_no_weight_sized_memory_and_moves_no_buffer() {
    use burn::backend::Flex;

    let device = Device::flex();
    let large = |seed| randomized(LinearConfig::new(256, 256).init(&device), seed); // 256 KiB
    let (start, lives) = (large(0), [large(1), large(2)]); // the start lives on, beside its average
    for rule in [Rule::ema(0.9), Rule::Constant { decay: 0.0, debias: true }] {
        let mut average = AverageConfig::new(rule.clone()).init(&start).unwrap();
        let buffer = |average: &Average<Linear>| {
            let weight = average.module().weight.val();
            weight.try_into_primitive::<Flex>().unwrap().bytes().as_ptr()
        };
        let before = (buffer(&average), LARGE.get());
        for step in 1..=100 {
            average.update(&lives[step as usize % 2], step).unwrap();
        }
        assert_eq!((buffer(&average), LARGE.get()), before, "{rule}");

        // A module that is kept costs one copy at the next update, and none after that.
        let kept = average.module();
        for step in 101..=110 {
            average.update(&lives[0], step).unwrap();
        }
        assert_eq!(LARGE.get(), before.1 + 1, "{rule}");
        drop(kept);
    }
}

#[test]
fn statistics_are_found_by_the_layer_and_not_by_the_name_alone() {
    #[derive(Module, Debug)]
    struct Odd {
        running_mean: Param<Tensor<1>>,
        norm: burn::nn::BatchNorm,
    }
    let odd = |value: f32| Odd {
        running_mean: Param::from_data([value], &device()),
        norm: BatchNormConfig::new(1).init(&device()),
    };
    let mut average = AverageConfig::new(Rule::ema(0.5)).init(&odd(0.0)).unwrap();
    average.update(&odd(2.0), 1).unwrap();
    assert_eq!(floats(&average.module())[0].2, [1.0], "a weight of that name is averaged");
}

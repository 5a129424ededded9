//! In which dtype and on which device an average is kept and handed out, and that nothing of it
//! is anyone else's.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, FloatDType, Tensor},
};
use burn_ema::{Average, AverageConfig, Policy, Rule};

use crate::{
    common::{Net, assert_same, device, flat, lerp, tensors},
    hand::{cast, with_floats},
};

/// The dtype of every float, statistics included, with its path.
fn dtypes<M: Module>(module: &M) -> Vec<(String, DType)> {
    tensors(module).into_iter().map(|(path, _, dtype, _)| (path, dtype)).collect()
}

#[track_caller]
fn assert_dtypes(module: &Net, weights: DType, statistics: DType) {
    for (path, dtype) in dtypes(module) {
        let expected = if path.contains("running_") { statistics } else { weights };
        assert_eq!(dtype, expected, "{path}");
    }
}

/// `a + alpha (w - a)` in double precision.
fn lerp_in_double(average: &mut [f64], live: &[f64], alpha: f64) {
    average.iter_mut().zip(live).for_each(|(a, w)| *a += alpha * (w - *a));
}

/// The network of a seed in a dtype; in f64 its weights have digits that f32 has not.
fn net(seed: u64, dtype: DType) -> Net {
    let net = cast(Net::new(seed, &device()), dtype);
    match dtype {
        DType::F64 => {
            let finer: Vec<_> = flat(&net, false).iter().map(|x| x * (1.0 + 1e-12)).collect();
            with_floats(net, &finer)
        }
        _ => net,
    }
}

fn ema() -> AverageConfig {
    AverageConfig::new(Rule::ema(0.9))
}

fn updated(config: &AverageConfig, dtype: DType) -> (Average<Net>, Net, Vec<Vec<f64>>) {
    let start = net(0, dtype);
    let mut average = config.init(&start).unwrap();
    let mut seen = vec![flat(&start, false)];
    for step in 1..=5 {
        let live = net(step, dtype);
        seen.push(flat(&live, false));
        average.update(&live, step).unwrap();
    }
    (average, net(5, dtype), seen)
}

#[test]
fn half_precision_is_kept_in_single_and_handed_out_in_half() {
    for dtype in [DType::F16, DType::BF16] {
        let (average, live, seen) = updated(&ema(), dtype);
        let mut expected = seen[0].clone();
        seen[1..].iter().for_each(|live| lerp(&mut expected, live, 1.0 - 0.9));

        // Statistics are copied, and keep live's dtype.
        let kept = average.module_as_kept();
        assert_dtypes(&kept, DType::F32, dtype);
        assert_same(&flat(&kept, false), &expected);
        let rounded = with_floats(cast(Net::new(0, &device()), dtype), &expected);
        for module in [average.module(), average.module_like(&live).unwrap()] {
            assert_dtypes(&module, dtype, dtype);
            assert_same(&flat(&module, false), &flat(&rounded, false));
        }
        assert_ne!(flat(&rounded, false), expected, "else rounding is not seen");

        // Kept in half it is another average.
        let half = if dtype == DType::F16 { FloatDType::F16 } else { FloatDType::BF16 };
        let (coarse, ..) = updated(&ema().with_dtype(Some(half)), dtype);
        assert_dtypes(&coarse.module_as_kept(), dtype, dtype);
        assert_ne!(flat(&coarse.module(), false), flat(&average.module(), false));
        // Averaged statistics are kept as weights are.
        let (averaged, ..) = updated(&ema().with_statistics(Policy::Average), dtype);
        assert_dtypes(&averaged.module_as_kept(), DType::F32, DType::F32);
        assert_dtypes(&averaged.module(), dtype, dtype);
        // What is not averaged keeps live's dtype.
        for policy in [Policy::Copy, Policy::Freeze, Policy::LeaveOut] {
            let (other, ..) = updated(&ema().on("**", policy), dtype);
            assert_dtypes(&other.module_as_kept(), dtype, dtype);
        }
    }
}

/// Small steps of a long average add up in f32, though live is in half precision.
#[test]
fn an_average_in_single_moves_where_one_in_half_stands() {
    for (dtype, half) in [(DType::F16, FloatDType::F16), (DType::BF16, FloatDType::BF16)] {
        let [start, live] = [net(0, dtype), net(1, dtype)];
        let config = AverageConfig::new(Rule::ema(0.9999));
        let mut single = config.init(&start).unwrap();
        let mut coarse = config.with_dtype(Some(half)).init(&start).unwrap();
        for step in 1..=300 {
            single.update(&live, step).unwrap();
            coarse.update(&live, step).unwrap();
        }
        let (from, to) = (flat(&start, false), flat(&live, false));
        let gone = |average: &Average<Net>| {
            let at = flat(&average.module_as_kept(), false);
            let shares = from.iter().zip(&to).zip(&at).filter(|((from, to), _)| from != to);
            let shares: Vec<_> = shares.map(|((from, to), at)| (at - from) / (to - from)).collect();
            shares.iter().sum::<f64>() / shares.len() as f64
        };
        let expected = 1.0 - 0.9999f64.powi(300);
        assert!((gone(&single) / expected - 1.0).abs() < 0.01, "{}", gone(&single));
        assert!((gone(&coarse) / expected - 1.0).abs() > 0.2, "{}", gone(&coarse));
    }
}

#[test]
fn double_precision_stays_double() {
    let (average, live, seen) = updated(&ema(), DType::F64);
    let mut expected = seen[0].clone();
    seen[1..].iter().for_each(|live| lerp_in_double(&mut expected, live, 1.0 - 0.9));
    for module in [average.module(), average.module_as_kept(), average.module_like(&live).unwrap()]
    {
        assert_dtypes(&module, DType::F64, DType::F64);
        assert_eq!(flat(&module, false), expected);
    }
    let single = |x: &f64| f64::from(*x as f32);
    assert!(expected.iter().any(|x| single(x) != *x), "else f32 would do");
}

#[test]
fn an_average_of_a_single_can_be_kept_in_double() {
    let (average, live, seen) = updated(&ema().with_dtype(Some(FloatDType::F64)), DType::F32);
    let mut expected = seen[0].clone();
    seen[1..].iter().for_each(|live| lerp_in_double(&mut expected, live, 1.0 - 0.9));
    assert_dtypes(&average.module_as_kept(), DType::F64, DType::F32);
    assert_eq!(flat(&average.module_as_kept(), false), expected);
    let single: Vec<_> = expected.iter().map(|x| f64::from(*x as f32)).collect();
    for module in [average.module(), average.module_like(&live).unwrap()] {
        assert_dtypes(&module, DType::F32, DType::F32);
        assert_eq!(flat(&module, false), single);
    }
    let (rough, ..) = updated(&ema(), DType::F32);
    assert_ne!(flat(&rough.module(), false), single, "rounding once differs from every time");
}

#[test]
#[cfg(feature = "ndarray")]
fn kept_on_another_device_it_is_handed_out_beside_live() {
    #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
    let ndarray = burn::tensor::Device::ndarray();
    let mixed = || {
        ema()
            .on("first.weight", Policy::Copy)
            .on("first.bias", Policy::Freeze)
            .on("last.bias", Policy::LeaveOut)
            .on("norm.gamma", Policy::Rule(Rule::lawa(2, 1)))
            .on("norm.beta", Policy::Rule(Rule::bema()))
    };
    for config in [ema(), mixed(), ema().with_dtype(Some(FloatDType::F64)), ema().with_start(2)] {
        let mut here = config.init(&Net::new(0, &device())).unwrap();
        let mut there = config.init(&Net::new(0, &device())).unwrap().keep_on(&ndarray);
        for step in 1..=5 {
            let live = Net::new(step, &device());
            for average in [&mut here, &mut there] {
                average.update(&live, step).unwrap();
            }
            assert_eq!(there.module_as_kept().devices(), std::slice::from_ref(&ndarray));
            let like = there.module_like(&live).unwrap();
            for (module, expected) in
                [(there.module(), here.module()), (like, here.module_like(&live).unwrap())]
            {
                assert_eq!(module.devices(), [device()]);
                assert_eq!(dtypes(&module), dtypes(&expected));
                assert_same(&flat(&module, true), &flat(&expected, true));
            }
            assert_same(&flat(&there.module_as_kept(), true), &flat(&here.module_as_kept(), true));
        }
        // It comes back as it went, and a clone stays there too.
        let mut back = there.clone().keep_on(&device());
        let live = Net::new(9, &device());
        back.update(&live, 6).unwrap();
        there.update(&live, 6).unwrap();
        assert_eq!(back.module_as_kept().devices(), [device()]);
        assert_eq!(there.module_as_kept().devices(), std::slice::from_ref(&ndarray));
        assert_same(&flat(&back.module(), true), &flat(&there.module(), true));
    }
}

/// Burn's `map` writes through to all clones of a batch norm, and so does training: what is handed
/// out is nobody's clone.
#[test]
fn nothing_that_is_handed_out_is_shared() {
    struct AddOne;
    impl ModuleMapper for AddOne {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor + 1.0)
        }
    }
    let statistics = |net: &Net| flat(&net.norm.valid(), true);
    let move_statistics = |net: &Net| {
        let before = statistics(net);
        drop(net.norm.clone().map(&mut AddOne));
        assert_ne!(statistics(net), before, "else nothing is shown");
    };
    for policy in [Policy::Copy, Policy::Average, Policy::Freeze, Policy::LeaveOut] {
        let live = Net::new(0, &device());
        let config = ema().with_statistics(policy.clone());
        let mut average = config.init(&live).unwrap();
        average.update(&live, 1).unwrap();
        let hand_out = |average: &Average<Net>| {
            [average.module(), average.module_as_kept(), average.module_like(&live).unwrap()]
        };
        let clone = average.clone();
        let modules: Vec<_> = [&average, &average, &clone].into_iter().flat_map(hand_out).collect();
        let before: Vec<_> = modules.iter().map(statistics).collect();
        let (of_live, of_average) = (statistics(&live), statistics(&average.module()));
        for (index, module) in modules.iter().enumerate() {
            move_statistics(module);
            let others = modules.iter().zip(&before).skip(index + 1);
            others.for_each(|(other, before)| assert_eq!(statistics(other), *before, "{policy:?}"));
        }
        assert_eq!(statistics(&live), of_live, "{policy:?}");
        for average in [&average, &clone] {
            assert_eq!(statistics(&average.module()), of_average, "{policy:?}");
        }

        // The other way round: live moves.
        move_statistics(&live);
        for average in [&average, &clone] {
            assert_eq!(statistics(&average.module()), of_average, "{policy:?}");
        }
        average.update(&Net::new(3, &device()), 2).unwrap();
        assert_eq!(flat(&clone.module(), false), flat(&modules[1], false), "{policy:?}");
        assert_ne!(flat(&average.module(), false), flat(&modules[1], false), "{policy:?}");
    }
}

//! Modules without anything to average.

use super::*;

#[derive(Module, Debug)]
struct Plain {
    a: Tensor<2>,
}

#[derive(Module, Debug)]
struct Integers {
    table: Param<Tensor<1, Int>>,
}

#[test]
fn a_module_without_a_floating_point_parameter_is_a_warning_from_the_start_on() {
    let device = device();
    let plain = Plain { a: Tensor::ones([2, 2], &device) };
    let table = Param::initialized(ParamId::new(), Tensor::from_data([1, 2], &device));
    let integers = Integers { table };
    fn warned<M: Module>(config: AverageConfig, module: &M) -> Vec<Warning> {
        let mut average = config.init(module).unwrap();
        let first = average.take_warnings();
        for step in 1..=20 {
            average.update(module, step).unwrap();
        }
        assert_eq!(average.warnings(), first);
        assert_eq!(average.take_warnings(), []);
        first
    }
    for warnings in [warned(copy_of_live(), &plain), warned(AverageConfig::suggest(20), &integers)]
    {
        assert!(matches!(warnings[..], [Warning::Nothing { .. }]), "{warnings:?}");
        let text = warnings[0].to_string();
        assert!(text.contains("no floating-point parameter"), "{text}");
        assert!(text.contains("Param<Tensor<D>>"), "{text}");
    }
    for policy in [Policy::Copy, Policy::Freeze, Policy::LeaveOut] {
        assert_eq!(warned(copy_of_live().on("**", policy.clone()), &integers), []);
        let floats = Weights::new(&[1.0], DTYPE, &device);
        assert_eq!(warned(copy_of_live().on("w", policy), &floats), []);
    }
}

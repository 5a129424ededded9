use burn::{
    backend::DispatchTensor,
    tensor::{DType, Device, Tensor, TensorData},
};
use proptest::prelude::*;

use super::*;

pub(super) fn devices() -> Vec<Device> {
    [
        Device::flex(),
        #[cfg(feature = "ndarray")]
        #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
        Device::ndarray(),
        #[cfg(feature = "wgpu")]
        Device::wgpu(Default::default()),
    ]
    .into()
}

fn tensor(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

fn values(tensor: DispatchTensor) -> Vec<f32> {
    Tensor::<1>::from_dispatch(tensor).into_data().try_into_vec().unwrap()
}

/// The number that the kernels must compute, as an expression.
pub(super) fn expected(a: f32, w: f32, alpha: f64) -> f32 {
    if alpha == 1.0 { w } else { a + alpha as f32 * (w - a) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Every backend computes the expression to the last bit (a shader to within one
    /// rounding of the larger number, since it may contract).
    #[test]
    fn every_path_computes_the_expression(
        pairs in prop::collection::vec((-4f32..4.0, -4f32..4.0), 1..70),
        alpha in prop_oneof![Just(1.0), 1e-4f64..1.0],
    ) {
        let (a, w): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        for device in devices() {
            let mut average = tensor(&a, &device).into_dispatch();
            let live = tensor(&w, &device).into_dispatch();
            lerp(&mut average, &live, alpha);
            prop_assert_eq!(values(live), w.clone());
            for ((found, &a), &w) in values(average).into_iter().zip(&a).zip(&w) {
                let expected = expected(a, w, alpha);
                let ulp = f32::EPSILON * a.abs().max(w.abs());
                let slack = if format!("{device:?}").contains("Cube") { ulp } else { 0.0 };
                prop_assert!((found - expected).abs() <= slack, "{found} {expected} {device:?}");
            }
        }
    }
}

#[test]
fn views_and_shared_storage_are_handled() {
    for device in devices() {
        let base = Tensor::<2>::from_data([[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]], &device);
        let live = base.clone().transpose(); // a view of base
        let start = Tensor::<2>::zeros([2, 3], &device);
        let mut average = start.clone().transpose().into_dispatch(); // shared with start
        lerp(&mut average, &live.clone().into_dispatch(), 0.5);
        let found = Tensor::<2>::from_dispatch(average).into_data();
        found.assert_eq(&TensorData::from([[0.5f32, 2.0], [1.0, 2.5], [1.5, 3.0]]), true);
        start.into_data().assert_eq(&TensorData::from([[0.0f32; 3]; 2]), true);
    }
}

#[test]
fn double_and_empty_tensors_are_handled() {
    let device = Device::flex();
    let double = |v: [f64; 2]| Tensor::<1>::from_data(v, (&device, DType::F64)).into_dispatch();
    let mut average = double([1.0, 1e-300]);
    lerp(&mut average, &double([2.0, 3e-300]), 0.25);
    let found = Tensor::<1>::from_dispatch(average).into_data();
    found.assert_eq(&TensorData::from([1.25f64, 1.5e-300]), true);

    let mut empty = Tensor::<1>::zeros([0], &device).into_dispatch();
    let live = empty.clone();
    lerp(&mut empty, &live, 0.5);
    assert!(values(empty).is_empty());
}

#[test]
#[cfg(feature = "ndarray")]
fn tensors_of_every_kind_change_devices() {
    use burn::tensor::{Bool, Int};

    let [flex, ndarray] = [&devices()[0], &devices()[1]];
    let there = tensor(&[3.0], ndarray).into_dispatch();
    let float = on_device_of(tensor(&[1.0], flex).into_dispatch(), &there);
    assert_eq!(Tensor::<1>::from_dispatch(float.clone()).device(), *ndarray);
    assert_eq!(values(float), [1.0]);
    let int = Tensor::<1, Int>::from_data([7], flex).into_dispatch();
    let int = Tensor::<1, Int>::from_dispatch(on_device_of(int, &there));
    assert_eq!((int.device(), int.into_scalar::<i32>()), (ndarray.clone(), 7));
    let bool = Tensor::<1, Bool>::from_data([true], flex).into_dispatch();
    let bool = Tensor::<1, Bool>::from_dispatch(on_device_of(bool, &there));
    assert_eq!((bool.device(), bool.into_scalar::<bool>()), (ndarray.clone(), true));
}

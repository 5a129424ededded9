//! Where the numbers of a step lie before and after it, on the host.

use std::sync::{Arc, Mutex};

use burn::{
    backend::{BackendTensor, DispatchTensorKind},
    optim::{AdamState, GradientsParams, ModuleOptimizer, Optimizer},
    tensor::{DType, Device, Tensor},
};
use burn_ema::fast::{Adam, AdamConfig};

use super::{gradients, parameters};
use crate::common::{Net, kinds};

/// Where the numbers of a tensor begin.
#[cfg_attr(feature = "ndarray", expect(deprecated, reason = "Burn still ships it"))]
fn address<const D: usize>(tensor: &Tensor<D>) -> usize {
    match tensor.clone().without_autodiff().into_dispatch().kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => tensor.bytes().as_ptr().addr(),
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(tensor)) => match tensor {
            burn::backend::ndarray::NdArrayTensor::F32(storage) => storage.view().as_ptr().addr(),
            _ => panic!("not f32"),
        },
        _ => panic!("not of the host"),
    }
}

/// Where both moments of a parameter are, if there are any.
type Places = Option<[usize; 2]>;

/// Adam, and where its moments were before and after each step.
#[derive(Clone)]
struct Watched(Adam, Arc<Mutex<Vec<[Places; 2]>>>);

impl Optimizer for Watched {
    type State<const D: usize> = AdamState<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamState<D>>,
    ) -> (Tensor<D>, Option<AdamState<D>>) {
        let places = |state: &Option<AdamState<D>>| {
            let moments = |state: &AdamState<D>| {
                [&state.momentum.moment_1, &state.momentum.moment_2].map(address)
            };
            state.as_ref().map(moments)
        };
        let before = places(&state);
        let (weights, state) = self.0.step(lr, weights, gradient, state);
        self.1.lock().unwrap().push([before, places(&state)]);
        (weights, state)
    }

    fn to_device<const D: usize>(state: AdamState<D>, device: &Device) -> AdamState<D> {
        Adam::to_device(state, device)
    }
}

/// The devices on which steps are made in place.
fn hosts() -> Vec<Device> {
    let f32s = kinds().into_iter().filter(|(_, dtype, _)| *dtype == DType::F32);
    f32s.map(|(device, ..)| device).collect()
}

/// A loop as users write it: nothing of a step is allocated anew.
#[test]
fn a_plain_loop_steps_in_place() {
    for device in hosts() {
        let device = device.autodiff();
        let seen = Arc::default();
        let watched = Watched(AdamConfig::new().build(), Arc::clone(&seen));
        let mut optimizer = ModuleOptimizer::from(watched);
        let mut net = Net::new(1, &device);
        let mut places = Vec::new();
        for _ in 0..4 {
            let loss = net.forward(Tensor::<2>::ones([5, 2], &device)).mean();
            let gradients = GradientsParams::from_grads(loss.backward(), &net);
            net = optimizer.step(0.1, net, gradients);
            places.push([&net.first.weight, &net.last.weight].map(|w| address(&w.val())));
        }
        assert!(places.windows(2).all(|pair| pair[0] == pair[1]), "{places:?}");
        let seen = seen.lock().unwrap();
        let parameters = seen.len() / 4;
        assert_eq!(parameters, 6);
        for (index, [before, after]) in seen.iter().enumerate() {
            assert!(after.is_some() && (index < parameters || before == after), "{seen:?}");
        }
    }
}

/// A model with a clone, as in Burn's Learner, is written over the gradient.
#[test]
fn shared_weights_go_over_the_gradient() {
    for device in hosts() {
        let like = (device, DType::F32);
        let (model, mut optimizer) = (parameters(&[[40, 50]], 1, &like), AdamConfig::new().init());
        let gradients = gradients(&model, 1, &like);
        let place = address(&gradients.get::<2>(model[0].id).unwrap());
        let held = model.clone();
        let stepped = optimizer.step(0.1, model, gradients);
        assert_eq!(address(&stepped[0].val()), place);
        assert_ne!(address(&held[0].val()), place);
    }
}

//! Stochastic gradient descent, with momentum or without.

use burn::{
    config::Config,
    grad_clipping::GradientClippingConfig,
    optim::{
        LearningRate, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource,
        decay::WeightDecayConfig, momentum::MomentumConfig,
    },
    tensor::{Device, Tensor},
};
use burn_ema_host::Real;
use multiversion::multiversion;

use super::{
    decayed,
    pass::{Formula, Tensors},
};

/// The configuration of [`Sgd`]: the fields of [`burn::optim::SgdConfig`], with the same
/// meanings and defaults.
#[derive(Config, Debug)]
pub struct SgdConfig {
    /// The share of the weights that is added to their gradient; `None`, the default, adds nothing.
    pub weight_decay: Option<WeightDecayConfig>,
    /// The momentum; with `None`, the default, there is no velocity.
    pub momentum: Option<MomentumConfig>,
    /// How gradients are clipped before a step; with `None`, the default, they are not.
    /// [`init`](SgdConfig::init) makes an optimizer that clips;
    /// [`build`](SgdConfig::build) ignores this.
    pub gradient_clipping: Option<GradientClippingConfig>,
}

impl SgdConfig {
    /// The optimizer without gradient clipping, for [`ModuleOptimizer::with_group`].
    pub fn build(&self) -> Sgd {
        Sgd {
            penalty: self.weight_decay.as_ref().map(|decay| decay.penalty),
            momentum: self.momentum.clone(),
        }
    }

    /// The optimizer of a whole module, with gradient clipping, before its first step.
    pub fn init(&self) -> ModuleOptimizer {
        super::clipping(self.build(), self.gradient_clipping.as_ref())
    }
}

/// Stochastic gradient descent: `w <- w - lr u`, with `g <- g + penalty w` where weights decay.
///
/// The update `u` depends on the gradient `g` and the velocity `v`:
/// - Without momentum: `u = g`.
/// - With momentum (Polyak 1964): `v <- momentum v + (1 - dampening) g`, from `v = g` in the first
///   step, and `u = v`.
/// - With Nesterov momentum (Sutskever et al. 2013, "On the importance of initialization and
///   momentum in deep learning"): `u = g + momentum v`, with the new `v`.
///
/// The results and the records are those of Burn's optimizer of this name.
#[derive(Clone, Debug)]
pub struct Sgd {
    penalty: Option<f32>,
    momentum: Option<MomentumConfig>,
}

/// The state of [`Sgd`] for a parameter.
#[derive(Clone, Debug)]
pub struct SgdState<const D: usize> {
    /// The velocity, in the shape of the parameter; `None` without momentum.
    pub velocity: Option<Tensor<D>>,
}

impl Optimizer for Sgd {
    type State<const D: usize> = SgdState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<SgdState<D>>,
    ) -> (Tensor<D>, Option<SgdState<D>>) {
        let velocity = state.and_then(|state| state.velocity);
        let (weights, velocity) = match &self.momentum {
            None => {
                let tensors = Tensors::new(weights, gradient, Some([]));
                if tensors.fits() {
                    let (weights, []) = tensors.step(&PlainStep::new(lr, self.penalty));
                    (weights, velocity)
                } else {
                    let (weights, gradient, _) = tensors.into_parts();
                    self.step_by_operations(lr, weights, gradient, velocity)
                }
            }
            Some(momentum) => {
                let formula = MomentumStep::new(lr, self.penalty, momentum, velocity.is_none());
                let tensors = Tensors::new(weights, gradient, velocity.map(|velocity| [velocity]));
                if tensors.fits() {
                    let (weights, [velocity]) = tensors.step(&formula);
                    (weights, Some(velocity))
                } else {
                    let (weights, gradient, velocity) = tensors.into_parts();
                    let velocity = velocity.map(|[velocity]| velocity);
                    self.step_by_operations(lr, weights, gradient, velocity)
                }
            }
        };
        (weights, Some(SgdState { velocity }))
    }

    fn to_device<const D: usize>(state: SgdState<D>, device: &Device) -> SgdState<D> {
        SgdState { velocity: state.velocity.map(|velocity| velocity.to_device(device)) }
    }
}

impl Sgd {
    /// Makes a step by Burn's operations, for the tensors that the pass does not support, and
    /// returns the new weights and velocity.
    fn step_by_operations<const D: usize>(
        &self,
        lr: LearningRate,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        velocity: Option<Tensor<D>>,
    ) -> (Tensor<D>, Option<Tensor<D>>) {
        let gradient = match self.penalty {
            Some(penalty) => weights.clone().mul_scalar(penalty) + gradient,
            None => gradient,
        };
        let Some(momentum) = &self.momentum else {
            return (weights - gradient.mul_scalar(lr), velocity);
        };
        let keep = momentum.momentum as f32;
        let velocity = match velocity {
            Some(velocity) => {
                gradient.clone().mul_scalar(1.0 - momentum.dampening) + velocity.mul_scalar(keep)
            }
            None => gradient.clone(),
        };
        let update = match momentum.nesterov {
            true => velocity.clone().mul_scalar(keep) + gradient,
            false => velocity.clone(),
        };
        (weights - update.mul_scalar(lr), Some(velocity))
    }
}

impl<const D: usize> RecordState for SgdState<D> {
    // The name in a record is that of Burn's optimizer.
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        if let Some(velocity) = &self.velocity {
            out.push_tensor(prefix, VELOCITY, velocity.to_data());
        }
    }

    fn state_unflatten(prefix: &str, source: &mut StateSource, device: &Device) -> Option<Self> {
        let velocity = source.take_tensor(prefix, VELOCITY);
        Some(Self { velocity: velocity.map(|velocity| Tensor::from_data(velocity, device)) })
    }
}

const VELOCITY: &str = "momentum.velocity";

struct PlainStep {
    lr: f64,
    penalty: Option<f64>,
}

impl PlainStep {
    fn new(lr: f64, penalty: Option<f32>) -> Self {
        Self { lr, penalty: penalty.map(f64::from) }
    }
}

impl Formula<0> for PlainStep {
    fn step<T: Real>(&self, weights: &mut [T], gradient: &[T], []: [&mut [T]; 0]) {
        plain(weights, gradient, T::of(self.lr), self.penalty.map(T::of));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn plain<T: Real>(weights: &mut [T], gradient: &[T], lr: T, penalty: Option<T>) {
    for (weight, &gradient) in weights.iter_mut().zip(gradient) {
        *weight = *weight - decayed(gradient, *weight, penalty) * lr;
    }
}

/// The formula with momentum (the heavy-ball method).
struct MomentumStep {
    lr: f64,
    penalty: Option<f64>,
    /// The share of the gradient that is added to the velocity: `1 - dampening`, and 1 in the first
    /// step.
    take: f64,
    /// The share of the old velocity that is kept: the momentum, and 1 in the first step, where
    /// the old velocity is -0.
    keep: f64,
    /// The share of the new velocity that is added to the gradient; `None` without Nesterov
    /// momentum.
    ahead: Option<f64>,
}

impl MomentumStep {
    fn new(lr: f64, penalty: Option<f32>, momentum: &MomentumConfig, is_first: bool) -> Self {
        // Burn computes with the momentum in single precision.
        let share = f64::from(momentum.momentum as f32);
        let taken = 1.0 - momentum.dampening;
        let (take, keep) = if is_first { (1.0, 1.0) } else { (taken, share) };
        let ahead = momentum.nesterov.then_some(share);
        let penalty = penalty.map(f64::from);
        Self { lr, penalty, take, keep, ahead }
    }
}

impl Formula<1> for MomentumStep {
    fn step<T: Real>(&self, weights: &mut [T], gradient: &[T], [velocity]: [&mut [T]; 1]) {
        let shares = [self.lr, self.take, self.keep].map(T::of);
        let (penalty, ahead) = (self.penalty.map(T::of), self.ahead.map(T::of));
        heavy(weights, gradient, velocity, shares, penalty, ahead);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn heavy<T: Real>(
    weights: &mut [T],
    gradient: &[T],
    velocity: &mut [T],
    [lr, take, keep]: [T; 3],
    penalty: Option<T>,
    ahead: Option<T>,
) {
    for ((weight, &gradient), velocity) in weights.iter_mut().zip(gradient).zip(velocity) {
        let gradient = decayed(gradient, *weight, penalty);
        *velocity = gradient * take + *velocity * keep;
        let update = match ahead {
            Some(share) => *velocity * share + gradient,
            None => *velocity,
        };
        *weight = *weight - update * lr;
    }
}

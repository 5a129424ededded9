//! AdamW: Adam with a weight decay that is applied to the weights, not to their gradient.

use burn::{
    config::Config,
    grad_clipping::GradientClippingConfig,
    optim::{AdamWState, LearningRate, ModuleOptimizer, Optimizer},
    tensor::{Device, Tensor},
};
use burn_ema_host::Real;
use multiversion::multiversion;

use super::{
    moments::{self, MomentShares, StepInput},
    pass::Formula,
};

/// The configuration of [`AdamW`]: the fields of [`burn::optim::AdamWConfig`], with the same
/// meanings and defaults.
#[derive(Config, Debug)]
pub struct AdamWConfig {
    /// The share of the running mean of gradients that a step keeps, in `[0, 1)`.
    #[config(default = 0.9)]
    pub beta_1: f32,
    /// The share of the running mean of squared gradients that a step keeps, in `[0, 1)`.
    #[config(default = 0.999)]
    pub beta_2: f32,
    /// The number above 0 that is added to the root of the mean of squared gradients, so that
    /// nothing is divided by zero.
    #[config(default = 1e-5)]
    pub epsilon: f32,
    /// The weight decay: a step multiplies the weights by 1 - learning rate * `weight_decay`.
    #[config(default = 1e-4)]
    pub weight_decay: f32,
    /// True if only those weights decay that have the sign of their mean gradient (Chen et al.
    /// 2025, "Cautious weight decay"). Burn's own optimizer then makes the steps.
    #[config(default = false)]
    pub cautious_weight_decay: bool,
    /// True to divide by the largest mean of squared gradients so far in place of the current one
    /// (Reddi et al. 2018, "On the convergence of Adam and beyond"). Burn's own optimizer then
    /// makes the steps.
    #[config(default = false)]
    pub amsgrad: bool,
    /// How gradients are clipped before a step; with `None`, the default, they are not.
    /// [`init`](AdamWConfig::init) makes an optimizer that clips;
    /// [`build`](AdamWConfig::build) ignores this.
    pub grad_clipping: Option<GradientClippingConfig>,
}

impl AdamWConfig {
    /// The optimizer without gradient clipping, for [`ModuleOptimizer::with_group`].
    pub fn build(&self) -> AdamW {
        let burn = burn::optim::AdamWConfig::new()
            .with_beta_1(self.beta_1)
            .with_beta_2(self.beta_2)
            .with_epsilon(self.epsilon)
            .with_weight_decay(self.weight_decay)
            .with_cautious_weight_decay(self.cautious_weight_decay)
            .with_amsgrad(self.amsgrad)
            .build();
        AdamW { config: self.clone(), burn }
    }

    /// The optimizer of a whole module, with gradient clipping, before its first step.
    pub fn init(&self) -> ModuleOptimizer {
        super::clipping(self.build(), self.grad_clipping.as_ref())
    }
}

/// AdamW (Loshchilov and Hutter 2019, "Decoupled weight decay regularization", algorithm 2).
///
/// Step `t`, counted from 1, with weights `w`, gradient `g`, learning rate `lr`, weight decay
/// `decay` and moments `m` and `v` that start at zero:
/// - `m <- beta_1 m + (1 - beta_1) g`, `v <- beta_2 v + (1 - beta_2) g^2`;
/// - `w <- w (1 - lr decay) - lr m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + epsilon)`.
///
/// The results and the records are those of Burn's optimizer of this name.
#[derive(Clone)]
pub struct AdamW {
    config: AdamWConfig,
    /// Burn's optimizer, for the tensors and settings that the pass does not support.
    burn: burn::optim::AdamW,
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let is_burns = self.config.amsgrad || self.config.cautious_weight_decay;
        let start = StepInput::new(weights, gradient, state.map(|state| state.momentum));
        if is_burns || !start.fits() {
            let (weights, gradient, state) = start.into_parts();
            return self.burn.step(lr, weights, gradient, state.map(AdamWState::new));
        }
        let (weights, state) = start.step(|time| AdamWStep::new(&self.config, lr, time));
        (weights, Some(AdamWState::new(state)))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        burn::optim::AdamW::to_device(state, device)
    }
}

struct AdamWStep {
    shares: MomentShares<f64>,
    /// `1 - beta_1^t` and `1 - beta_2^t`.
    corrections: [f64; 2],
    epsilon: f64,
    lr: f64,
    decay: f64,
}

impl AdamWStep {
    fn new(config: &AdamWConfig, lr: f64, time: usize) -> Self {
        let betas = [config.beta_1, config.beta_2];
        Self {
            shares: MomentShares::new(betas),
            corrections: moments::corrections(betas, time).map(f64::from),
            epsilon: config.epsilon.into(),
            lr,
            decay: config.weight_decay.into(),
        }
    }
}

impl Formula<2> for AdamWStep {
    fn step<T: Real>(&self, weights: &mut [T], gradient: &[T], moments: [&mut [T]; 2]) {
        // The factor of the old weights.
        let keep = 1.0 - self.lr * self.decay;
        let numbers = [self.epsilon, self.lr, keep].map(T::of);
        let corrections = self.corrections.map(T::of);
        adam_w(weights, gradient, moments, self.shares.of(), corrections, numbers);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn adam_w<T: Real>(
    weights: &mut [T],
    gradient: &[T],
    [first, second]: [&mut [T]; 2],
    shares: MomentShares<T>,
    corrections: [T; 2],
    [epsilon, lr, keep]: [T; 3],
) {
    let moments = first.iter_mut().zip(second);
    for ((weight, &gradient), (first, second)) in weights.iter_mut().zip(gradient).zip(moments) {
        let (first, second) = shares.step(gradient, first, second);
        let spread = (second / corrections[1]).root();
        *weight = *weight * keep - first / corrections[0] / (spread + epsilon) * lr;
    }
}

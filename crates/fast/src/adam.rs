//! Adam: steps in the direction of the mean gradient, divided by the root of its mean square.

use burn::{
    config::Config,
    grad_clipping::GradientClippingConfig,
    optim::{AdamState, LearningRate, ModuleOptimizer, Optimizer, decay::WeightDecayConfig},
    tensor::{Device, Tensor},
};
use burn_ema_host::Real;
use multiversion::multiversion;

use super::{
    decayed,
    moments::{self, MomentShares, StepInput},
    pass::Formula,
};

/// The configuration of [`Adam`]: the fields of [`burn::optim::AdamConfig`], with the same
/// meanings and defaults.
#[derive(Config, Debug)]
pub struct AdamConfig {
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
    /// True to divide by the largest mean of squared gradients so far in place of the current one
    /// (Reddi et al. 2018, "On the convergence of Adam and beyond"). Burn's own optimizer then
    /// makes the steps.
    #[config(default = false)]
    pub amsgrad: bool,
    /// The share of the weights that is added to their gradient; `None`, the default, adds nothing.
    pub weight_decay: Option<WeightDecayConfig>,
    /// How gradients are clipped before a step; with `None`, the default, they are not.
    /// [`init`](AdamConfig::init) makes an optimizer that clips;
    /// [`build`](AdamConfig::build) ignores this.
    pub grad_clipping: Option<GradientClippingConfig>,
}

impl AdamConfig {
    /// The optimizer without gradient clipping, for [`ModuleOptimizer::with_group`].
    pub fn build(&self) -> Adam {
        let burn = burn::optim::AdamConfig::new()
            .with_beta_1(self.beta_1)
            .with_beta_2(self.beta_2)
            .with_epsilon(self.epsilon)
            .with_amsgrad(self.amsgrad)
            .with_weight_decay(self.weight_decay.clone())
            .build();
        Adam { config: self.clone(), burn }
    }

    /// The optimizer of a whole module, with gradient clipping, before its first step.
    pub fn init(&self) -> ModuleOptimizer {
        super::clipping(self.build(), self.grad_clipping.as_ref())
    }
}

/// Adam (Kingma and Ba 2015, algorithm 1, in the form at the end of its section 2), with
/// `g <- g + penalty w` where weights decay.
///
/// Step `t`, counted from 1, with weights `w`, gradient `g`, learning rate `lr` and moments `m` and
/// `v` that start at zero:
/// - `m <- beta_1 m + (1 - beta_1) g`, `v <- beta_2 v + (1 - beta_2) g^2`;
/// - `c = sqrt(1 - beta_2^t)`, `w <- w - lr m c / (1 - beta_1^t) / (sqrt(v) + epsilon c)`.
///
/// The results and the records are those of Burn's optimizer of this name.
#[derive(Clone)]
pub struct Adam {
    config: AdamConfig,
    /// Burn's optimizer, for the tensors and settings that the pass does not support.
    burn: burn::optim::Adam,
}

impl Optimizer for Adam {
    type State<const D: usize> = AdamState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamState<D>>,
    ) -> (Tensor<D>, Option<AdamState<D>>) {
        let start = StepInput::new(weights, gradient, state.map(|state| state.momentum));
        if self.config.amsgrad || !start.fits() {
            let (weights, gradient, state) = start.into_parts();
            return self.burn.step(lr, weights, gradient, state.map(AdamState::new));
        }
        let (weights, state) = start.step(|time| AdamStep::new(&self.config, lr, time));
        (weights, Some(AdamState::new(state)))
    }

    fn to_device<const D: usize>(state: AdamState<D>, device: &Device) -> AdamState<D> {
        burn::optim::Adam::to_device(state, device)
    }
}

struct AdamStep {
    shares: MomentShares<f64>,
    /// The factor of the first moment: `sqrt(1 - beta_2^t) / (1 - beta_1^t)`.
    scale: f64,
    /// The configured epsilon times `sqrt(1 - beta_2^t)`.
    epsilon: f64,
    lr: f64,
    penalty: Option<f64>,
}

impl AdamStep {
    fn new(config: &AdamConfig, lr: f64, time: usize) -> Self {
        let betas = [config.beta_1, config.beta_2];
        let [first, second] = moments::corrections(betas, time);
        let root = second.sqrt();
        Self {
            shares: MomentShares::new(betas),
            scale: (root / first).into(),
            epsilon: (config.epsilon * root).into(),
            lr,
            penalty: config.weight_decay.as_ref().map(|decay| decay.penalty.into()),
        }
    }
}

impl Formula<2> for AdamStep {
    fn step<T: Real>(&self, weights: &mut [T], gradient: &[T], moments: [&mut [T]; 2]) {
        let numbers = [self.scale, self.epsilon, self.lr].map(T::of);
        adam(weights, gradient, moments, self.shares.of(), numbers, self.penalty.map(T::of));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn adam<T: Real>(
    weights: &mut [T],
    gradient: &[T],
    [first, second]: [&mut [T]; 2],
    shares: MomentShares<T>,
    [scale, epsilon, lr]: [T; 3],
    penalty: Option<T>,
) {
    let moments = first.iter_mut().zip(second);
    for ((weight, &gradient), (first, second)) in weights.iter_mut().zip(gradient).zip(moments) {
        let gradient = decayed(gradient, *weight, penalty);
        let (first, second) = shares.step(gradient, first, second);
        *weight = *weight - first * scale / (second.root() + epsilon) * lr;
    }
}

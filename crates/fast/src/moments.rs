//! The two moments that Adam and AdamW keep: running means of gradients and of their squares.

use burn::{optim::AdaptiveMomentumState, tensor::Tensor};

use burn_ema_host::Real;

use super::pass::{Formula, Tensors};

/// The factors in the running means of the first and the second moment: `keep` for the old moment,
/// `take` for the new term.
#[derive(Clone, Copy)]
pub(super) struct MomentShares<T> {
    keep: [T; 2],
    take: [T; 2],
}

impl MomentShares<f64> {
    /// The factors for `betas`, computed in `f32` as in Burn, whatever the dtype of the weights.
    pub fn new(betas: [f32; 2]) -> Self {
        Self { keep: betas.map(f64::from), take: betas.map(|beta| f64::from(1.0 - beta)) }
    }

    /// The factors in another type.
    pub fn of<T: Real>(self) -> MomentShares<T> {
        MomentShares { keep: self.keep.map(T::of), take: self.take.map(T::of) }
    }
}

impl<T: Real> MomentShares<T> {
    /// Updates both moments in place by a gradient, and returns their new values.
    #[inline(always)]
    pub fn step(&self, gradient: T, first: &mut T, second: &mut T) -> (T, T) {
        *first = *first * self.keep[0] + gradient * self.take[0];
        *second = *second * self.keep[1] + gradient * gradient * self.take[1];
        (*first, *second)
    }
}

/// The bias corrections of moments that started at zero, after `time` steps: `1 - beta^time`.
pub(super) fn corrections(betas: [f32; 2], time: usize) -> [f32; 2] {
    betas.map(|beta| 1.0 - beta.powi(time as i32))
}

type State<const D: usize> = AdaptiveMomentumState<D>;

/// The input of an optimizer step of one parameter.
pub(super) struct StepInput<const D: usize> {
    tensors: Tensors<2>,
    /// The number of steps before this one.
    time: usize,
    /// The largest second moments, which only AMSGrad has; [`StepInput::step`] leaves them
    /// unchanged.
    max_moment_2: Option<Tensor<D>>,
}

impl<const D: usize> StepInput<D> {
    pub fn new(weights: Tensor<D>, gradient: Tensor<D>, state: Option<State<D>>) -> Self {
        let (time, moments, max_moment_2) = match state {
            Some(State { time, moment_1, moment_2, max_moment_2 }) => {
                (time, Some([moment_1, moment_2]), max_moment_2)
            }
            None => (0, None, None),
        };
        Self { tensors: Tensors::new(weights, gradient, moments), time, max_moment_2 }
    }

    /// True if the pass can make the step; see [`Tensors::fits`].
    pub fn fits(&self) -> bool {
        self.tensors.fits()
    }

    /// The weights, the gradient and the state that [`new`](Self::new) was called with.
    pub fn into_parts(self) -> (Tensor<D>, Tensor<D>, Option<State<D>>) {
        let Self { tensors, time, max_moment_2 } = self;
        let (weights, gradient, moments) = tensors.into_parts();
        let state = |[moment_1, moment_2]: [_; 2]| State { time, moment_1, moment_2, max_moment_2 };
        (weights, gradient, moments.map(state))
    }

    /// Makes the step, and returns the new weights and state.
    ///
    /// `formula` is called with the number of steps, this one included. The tensors must
    /// [fit](Self::fits).
    pub fn step<F: Formula<2>>(self, formula: impl FnOnce(usize) -> F) -> (Tensor<D>, State<D>) {
        let Self { tensors, time, max_moment_2 } = self;
        let time = time + 1;
        let (weights, [moment_1, moment_2]) = tensors.step(&formula(time));
        (weights, State { time, moment_1, moment_2, max_moment_2 })
    }
}

//! The operations as steps of Burn's autodiff.

use burn::backend::{
    Autodiff,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

use super::{Bias, Kept, Kernels, Operations};
use crate::model::Activation;

impl<B: Kernels, C: CheckpointStrategy> Operations for Autodiff<B, C> {
    fn dense(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Bias<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        match bias {
            Bias::Each(bias) => dense::<B, C, 3>([input, weight, bias], activation),
            Bias::None => dense::<B, C, 2>([input, weight], activation),
        }
    }

    fn half_squared_errors(
        outputs: FloatTensor<Self>,
        targets: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [outputs.node(), targets.node()];
        let [outputs, targets] = [outputs, targets].map(|parent| parent.into_primitive());
        let errors = B::half_squared_errors(outputs.clone(), targets.clone());
        match HalfSquaredErrors.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish((outputs, targets), errors),
            OpsKind::UnTracked(step) => step.finish(errors),
        }
    }
}

/// The output of a layer of these parents: input, weight and, if there are three, bias.
///
/// What a backward needs is kept, not computed again: a layer is bound by its product under every
/// strategy of checkpointing.
fn dense<B: Kernels, C: CheckpointStrategy, const N: usize>(
    parents: [FloatTensor<Autodiff<B, C>>; N],
    activation: Activation,
) -> FloatTensor<Autodiff<B, C>> {
    let tracked = parents.each_ref().map(|parent| parent.is_tracked());
    let nodes = parents.each_ref().map(|parent| parent.node());
    let mut parents = parents.into_iter().map(|parent| parent.into_primitive());
    let (Some(input), Some(weight), bias) = (parents.next(), parents.next(), parents.next()) else {
        unreachable!("a layer has an input and weights")
    };
    match Dense.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(step) => {
            let kept_input = tracked[1].then(|| input.clone());
            let kept_weight = tracked[0].then(|| weight.clone());
            let output = <B as Kernels>::dense(input, weight, bias, activation);
            let kept = Kept {
                input: kept_input,
                weight: kept_weight,
                bias: tracked.get(2) == Some(&true),
                output: output.clone(),
                activation,
            };
            step.finish(kept, output)
        }
        OpsKind::UnTracked(step) => {
            step.finish(<B as Kernels>::dense(input, weight, bias, activation))
        }
    }
}

#[derive(Debug)]
struct Dense;

impl<B: Kernels, const N: usize> Backward<B, N> for Dense {
    type State = Kept<B>;

    fn backward(self, ops: Ops<Kept<B>, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let by_parent = B::dense_backward(gradient, ops.state);
        for (parent, gradient) in ops.parents.into_iter().zip(by_parent) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct HalfSquaredErrors;

impl<B: Kernels> Backward<B, 2> for HalfSquaredErrors {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let (outputs, targets) = ops.state;
        let by_outputs = B::half_squared_errors_backward(gradient, outputs, targets);
        let [outputs, targets] = ops.parents;
        if let Some(targets) = targets {
            gradients.register::<B>(targets.id, B::float_neg(by_outputs.clone()));
        }
        if let Some(outputs) = outputs {
            gradients.register::<B>(outputs.id, by_outputs);
        }
    }
}

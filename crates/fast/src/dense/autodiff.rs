//! The operations as steps of Burn's autodiff.

use burn::backend::{
    Autodiff, Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    flex::FlexTensor,
    ops::FloatTensorOps,
    tensor::FloatTensor,
};

use super::{
    Bias, Nonlinearity, Operations,
    host::{Residuals, dense_backward, half_squared_errors_backward},
};

impl<C: CheckpointStrategy> Operations for Autodiff<Flex, C> {
    fn dense(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Bias<Self>,
        nonlinearity: Nonlinearity,
    ) -> FloatTensor<Self> {
        match bias {
            Bias::Each(bias) => dense::<C, 3>([input, weight, bias], nonlinearity),
            Bias::None => dense::<C, 2>([input, weight], nonlinearity),
        }
    }

    fn half_squared_errors(
        outputs: FloatTensor<Self>,
        targets: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [outputs.node(), targets.node()];
        let [outputs, targets] = [outputs, targets].map(|parent| parent.into_primitive());
        let errors = Flex::half_squared_errors(outputs.clone(), targets.clone());
        match HalfSquaredErrorsStep.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish((outputs, targets), errors),
            OpsKind::UnTracked(step) => step.finish(errors),
        }
    }
}

/// The output of a layer. The parents are the input, the weights and, if there are three, the bias.
///
/// The tensors that the backward pass needs are kept and not computed again, under every
/// checkpointing strategy, since the layer's product is costly (Burn's `compute_bound`).
fn dense<C: CheckpointStrategy, const N: usize>(
    parents: [FloatTensor<Autodiff<Flex, C>>; N],
    nonlinearity: Nonlinearity,
) -> FloatTensor<Autodiff<Flex, C>> {
    let tracked = parents.each_ref().map(|parent| parent.is_tracked());
    let nodes = parents.each_ref().map(|parent| parent.node());
    let mut parents = parents.into_iter().map(|parent| parent.into_primitive());
    let (Some(input), Some(weight), bias) = (parents.next(), parents.next(), parents.next()) else {
        unreachable!("a layer has an input and weights")
    };
    let layer = |input, weight, bias: Option<FlexTensor>| {
        let bias = bias.map_or(Bias::None, Bias::Each);
        <Flex as Operations>::dense(input, weight, bias, nonlinearity)
    };
    match DenseStep.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(step) => {
            let kept_input = tracked[1].then(|| input.clone());
            let kept_weight = tracked[0].then(|| weight.clone());
            let output = layer(input, weight, bias);
            let kept = Residuals {
                input: kept_input,
                weight: kept_weight,
                bias: tracked.get(2) == Some(&true),
                output: output.clone(),
                nonlinearity,
            };
            step.finish(kept, output)
        }
        OpsKind::UnTracked(step) => step.finish(layer(input, weight, bias)),
    }
}

#[derive(Debug)]
struct DenseStep;

impl<const N: usize> Backward<Flex, N> for DenseStep {
    type State = Residuals;

    fn backward(self, ops: Ops<Residuals, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let by_parent = dense_backward(gradient, ops.state);
        for (parent, gradient) in ops.parents.into_iter().zip(by_parent) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct HalfSquaredErrorsStep;

impl Backward<Flex, 2> for HalfSquaredErrorsStep {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (outputs, targets) = ops.state;
        let by_outputs = half_squared_errors_backward(gradient, outputs, targets);
        let [outputs, targets] = ops.parents;
        if let Some(targets) = targets {
            gradients.register::<Flex>(targets.id, Flex::float_neg(by_outputs.clone()));
        }
        if let Some(outputs) = outputs {
            gradients.register::<Flex>(outputs.id, by_outputs);
        }
    }
}

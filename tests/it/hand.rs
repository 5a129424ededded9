//! What tests of the hook write by hand: beside a training, such as a diary, and into a module.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
};

use burn::{
    module::{Module, ModuleMapper, Param},
    optim::{
        GradientsParams, ModuleOptimizer, MultiGradientsParams,
        lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    },
    tensor::{DType, Tensor, TensorData},
    train::{InferenceStep, RegressionOutput, TrainOutput, TrainStep},
};
use burn_ema::Clock;

use crate::common::{Net, Points, device, flat};

/// The module with these values in its floats, in its order; each keeps its id and its state of
/// training. Statistics of batch norms are passed over.
pub fn with_floats<M: Module>(module: M, values: &[f64]) -> M {
    struct Put<'a>(&'a [f64], String);
    impl ModuleMapper for Put<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.1 = name.to_owned();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.1.starts_with("running") {
                return param;
            }
            param.map(|tensor| {
                let (now, later) = self.0.split_at(tensor.shape().num_elements());
                self.0 = later;
                let data = TensorData::new(now.to_vec(), tensor.shape());
                Tensor::from_data(data, (&tensor.device(), tensor.dtype()))
                    .set_require_grad(tensor.is_require_grad())
            })
        }
    }
    let mut put = Put(values, String::new());
    let module = module.map(&mut put);
    assert!(put.0.is_empty(), "a value for every float");
    module
}

/// The module with its floats in a dtype, statistics included.
///
/// Those are written through to clones of the module.
pub fn cast<M: Module>(module: M, dtype: DType) -> M {
    struct Cast(DType);
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(self.0))
        }
    }
    module.map(&mut Cast(dtype))
}

/// What is done by hand while a network trains.
pub trait Hand: Clone + Debug + Send + Sync + 'static {
    /// A batch is about to be computed.
    fn at_batch(&mut self, _net: &Net, _samples: u64) {}

    /// The forward and backward pass of a batch.
    fn learn(&self, net: &Net, points: Points) -> TrainOutput<RegressionOutput> {
        TrainStep::step(net, points)
    }

    /// The optimizer stepped: what live is from then on.
    fn after_step(&mut self, net: Net) -> Net;
}

/// The network, by whose training a hand works, without the hook.
#[derive(Module, Debug)]
pub struct ByHand<H: Hand> {
    pub net: Net,
    #[module(skip)]
    hand: Arc<Mutex<H>>,
}

impl<H: Hand> ByHand<H> {
    pub fn of(net: Net, hand: H) -> Self {
        Self { net, hand: Arc::new(Mutex::new(hand)) }
    }

    /// What the hand holds by now.
    pub fn held(&self) -> H {
        self.hand.lock().unwrap().clone()
    }

    fn after_step(mut self) -> Self {
        self.net = self.hand.lock().unwrap().after_step(self.net);
        self
    }
}

/// Live after every optimizer step, and the clock then.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    samples: u64,
    pages: Vec<(Clock, Net)>,
}

impl Hand for Pages {
    fn at_batch(&mut self, _: &Net, samples: u64) {
        self.samples += samples;
    }

    fn after_step(&mut self, net: Net) -> Net {
        let clock = Clock { step: self.pages.len() as u64 + 1, samples: self.samples };
        // With weights of its own, which do not follow live's and do not keep them alive.
        let copy = with_floats(net.valid(), &flat(&net, false));
        self.pages.push((clock, copy));
        net
    }
}

/// The network, which writes down itself and the clock after every optimizer step.
pub type Diary = ByHand<Pages>;

impl Diary {
    pub fn new(seed: u64) -> Self {
        Self::of(Net::new(seed, &device()), Pages::default())
    }

    /// Live after each step, and the clock then.
    pub fn pages(&self) -> Vec<(Clock, Self)> {
        let pages = self.held().pages.into_iter();
        pages.map(|(clock, net)| (clock, Self { net, ..self.clone() })).collect()
    }
}

impl<H: Hand> TrainStep for ByHand<H> {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        self.hand.lock().unwrap().at_batch(&self.net, points.x.dims()[0] as u64);
        self.held().learn(&self.net, points)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        optim.step(lr, self, grads).after_step()
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        optim.step_multi(lr, self, grads).after_step()
    }
}

impl<H: Hand> InferenceStep for ByHand<H> {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> RegressionOutput {
        InferenceStep::step(&self.net, points)
    }
}

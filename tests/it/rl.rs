//! An average as the target network of an agent of Burn's reinforcement learning.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use burn::{
    module::Module,
    optim::{GradientsParams, ModuleOptimizer},
    rl::{
        Batchable, Environment, LearnerTransitionBatch, Policy, PolicyLearner, PolicyState,
        RLTrainOutput, SliceAccess, StepResult, ToAction, ToObservation, TransitionBatch,
    },
    store::ModuleRecord,
    tensor::{Device, Int, Tensor},
    train::{
        OffPolicyConfig, RLComponentsMarker, RLResult, RLStrategies, RLTraining,
        checkpoint::KeepLastNCheckpoints,
    },
};
use burn_ema::{
    Average, AverageConfig, Rule,
    fast::AdamConfig,
    model::{Activation, Mlp, MlpConfig},
    runs::ProgressLines,
    train::Bundle,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    common::{assert_same, flat},
    target::cart_pole::{CartPole, End, MOST_STEPS},
};

/// Inputs, values or actions, a row for each state.
#[derive(Clone)]
struct Rows(Tensor<2>);

impl Batchable for Rows {
    fn batch(rows: Vec<Self>) -> Self {
        Self(Tensor::cat(rows.into_iter().map(|rows| rows.0).collect(), 0))
    }

    fn unbatch(self) -> Vec<Self> {
        self.0.split(1, 0).into_iter().map(Self).collect()
    }
}

impl SliceAccess for Rows {
    fn zeros_like(sample: &Self, capacity: usize, device: &Device) -> Self {
        Self(SliceAccess::zeros_like(&sample.0, capacity, device))
    }

    fn select(self, dim: usize, indices: Tensor<1, Int>) -> Self {
        Self(SliceAccess::select(self.0, dim, indices))
    }

    fn slice_assign_inplace(&mut self, index: usize, value: Self) {
        self.0.slice_assign_inplace(index, value.0);
    }
}

/// The environment of the example of target networks.
struct Pole {
    cart: CartPole,
    random: ChaCha8Rng,
}

impl Pole {
    fn new() -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        Self { cart: CartPole::new(&mut random), random }
    }
}

#[derive(Clone)]
struct State([f32; 4]);

impl ToObservation<Rows> for State {
    fn to_observation(&self, device: &Device) -> Rows {
        Rows(Tensor::from_data([self.0], device))
    }
}

#[derive(Clone)]
struct Push {
    right: bool,
}

impl From<Rows> for Push {
    fn from(rows: Rows) -> Self {
        Self { right: rows.0.into_scalar::<f32>() > 0.5 }
    }
}

impl ToAction<Rows> for Push {
    fn to_action(&self, device: &Device) -> Rows {
        Rows(Tensor::from_data([[f32::from(self.right)]], device))
    }
}

impl Environment for Pole {
    type State = State;
    type Action = Push;
    const MAX_STEPS: usize = MOST_STEPS;

    fn state(&self) -> State {
        State(self.cart.inputs())
    }

    fn step(&mut self, action: Push) -> StepResult<State> {
        let end = self.cart.push(action.right);
        StepResult {
            next_state: self.state(),
            reward: 1.0,
            done: end == Some(End::Fell),
            truncated: end == Some(End::Time),
        }
    }

    fn reset(&mut self) {
        self.cart = CartPole::new(&mut self.random);
    }
}

/// Takes the action of the higher value, or, while it explores, one of ten by chance.
#[derive(Clone)]
struct Greedy {
    net: Mlp,
    random: ChaCha8Rng,
}

#[derive(Clone)]
struct Net(Mlp);

impl PolicyState for Net {
    type Record = ModuleRecord;

    fn into_record(self) -> ModuleRecord {
        self.0.into_record()
    }

    fn load_record(&self, record: ModuleRecord) -> Self {
        Self(self.0.clone().load_record(record))
    }
}

impl Policy for Greedy {
    type Observation = Rows;
    type ActionDistribution = Rows;
    type Action = Rows;
    type ActionContext = ();
    type PolicyState = Net;

    fn forward(&mut self, inputs: Rows) -> Rows {
        Rows(self.net.forward(inputs.0))
    }

    fn action(&mut self, inputs: Rows, deterministic: bool) -> (Rows, Vec<()>) {
        let best = self.forward(inputs).0.argmax(1).float();
        let rows = best.dims()[0];
        let drawn = !deterministic && self.random.random_bool(0.1);
        let actions = if drawn { best.neg() + 1 } else { best };
        (Rows(actions), vec![(); rows])
    }

    fn update(&mut self, update: Net) {
        self.net = update.0;
    }

    fn state(&self) -> Net {
        Net(self.net.clone())
    }

    fn to_device(self, device: &Device) -> Self {
        Self { net: self.net.to_device(device), ..self }
    }

    fn load_record(self, record: ModuleRecord) -> Self {
        Self { net: self.net.load_record(record), ..self }
    }
}

/// A deep Q-network whose target is an average.
#[derive(Clone)]
struct Learner {
    live: Mlp,
    target: Average<Mlp>,
    optimizer: ModuleOptimizer,
    /// Learners as they were recorded, and as they began after a load.
    seen: Arc<Mutex<Vec<Learner>>>,
}

impl Learner {
    fn new(seed: u64) -> Self {
        let device = Device::flex();
        device.seed(seed);
        let config = MlpConfig::new(vec![4, 16, 16, 2]).with_hidden(Activation::Relu);
        let config = config.with_output(Activation::Identity);
        let live = config.init(&device.autodiff()).unwrap();
        let target = AverageConfig::new(Rule::target(0.05)).init(&live).unwrap();
        Self { live, target, optimizer: AdamConfig::new().init(), seen: Arc::default() }
    }

    fn see(&self) {
        let seen = Self { seen: Arc::default(), ..self.clone() };
        self.seen.lock().unwrap().push(seen);
    }

    fn saved(&self) -> Vec<Self> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl PolicyLearner for Learner {
    type TrainContext = ();
    type InnerPolicy = Greedy;
    type Record = Bundle;

    fn train(&mut self, batch: LearnerTransitionBatch<Greedy>) -> RLTrainOutput<(), Net> {
        let TransitionBatch { states, next_states, actions, rewards, dones } = batch;
        let ahead = self.target.module().forward(next_states.0).max_dim(1);
        let expected = rewards + ahead * (dones.neg() + 1) * 0.99;
        let off = self.live.forward(states.0).gather(1, actions.0.int()) - expected;
        let gradients = (off.clone() * off).mean().backward();
        let gradients = GradientsParams::from_grads(gradients, &self.live);
        self.live = self.optimizer.step(0.01, self.live.clone(), gradients);
        self.target.advance(&self.live).unwrap();
        RLTrainOutput { policy: self.policy().state(), item: () }
    }

    fn policy(&self) -> Greedy {
        Greedy { net: self.live.valid(), random: ChaCha8Rng::seed_from_u64(1) }
    }

    /// Burn calls it after a load with the policy that the environments had, which is a training step
    /// behind: live is that of the record instead.
    fn update_policy(&mut self, _: Greedy) {
        self.see();
    }

    fn record(&self) -> Bundle {
        self.see();
        let bundle = Bundle::new()
            .with("live", self.live.valid().into_record())
            .and_then(|bundle| bundle.with("target", self.target.clone().into_record()));
        bundle.unwrap().with("optimizer", self.optimizer.to_record()).unwrap()
    }

    fn load_record(self, mut record: Bundle) -> Self {
        Self {
            live: self.live.load_record(record.take("live").unwrap()),
            target: self.target.try_load_record(record.take("target").unwrap()).unwrap(),
            optimizer: self.optimizer.load_record(record.take("optimizer").unwrap()),
            seen: self.seen,
        }
    }

    fn device(&self) -> Device {
        Device::flex()
    }
}

type Training = RLTraining<RLComponentsMarker<Pole, fn() -> Pole, Learner>>;

/// Trains until a step of the environment, with a checkpoint every 100 of them.
fn train(learner: Learner, directory: &Path, from: Option<usize>, until: usize) -> Greedy {
    let strategy = OffPolicyConfig::new().with_eval_interval(100).with_warmup_steps(50);
    let mut training = Training::new(directory, Pole::new)
        .with_learning_strategy(RLStrategies::OffPolicyStrategy(strategy))
        .with_checkpointing_strategy(KeepLastNCheckpoints::new(9))
        .with_checkpointer()
        .with_application_logger(None)
        .renderer(Box::new(ProgressLines::new(std::io::sink())))
        .with_inference_device(Device::flex())
        .num_steps(until);
    if let Some(from) = from {
        training = training.checkpoint(from);
    }
    let RLResult { policy, error, .. } = training.launch(learner);
    assert!(error.is_none());
    policy
}

#[track_caller]
fn assert_equal(one: &Learner, other: &Learner) {
    assert_same(&flat(&one.live, true), &flat(&other.live, true));
    assert_same(&flat(&one.target.module(), true), &flat(&other.target.module(), true));
    assert_eq!(one.target.last_step(), other.target.last_step());
}

/// The checkpoint of an agent holds live, target and optimizer: a new agent of other weights that
/// loads it is the recorded one, and further steps on the same batches keep it so.
#[test]
fn an_agent_of_burn_goes_on_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    let learner = Learner::new(1);
    train(learner.clone(), directory.path(), None, 300);
    let recorded = learner.saved();
    assert_eq!(recorded.len(), 3, "a checkpoint every 100 steps");
    let [first, second, third] = [0, 1, 2].map(|index| &recorded[index]);
    let [a, b] = [second, third].map(|one| one.target.last_step());
    assert!(a > 100 && b == a + 100, "an update each step: {a} and {b} of 200 and 300");
    // The target is on its way to live.
    let distance = |one: &Learner, other: &[f64]| -> f64 {
        flat(&one.live, true).iter().zip(other).map(|(a, b)| (a - b).abs()).sum()
    };
    assert!(distance(third, &flat(&third.target.module(), true)) > 0.1);
    assert!(distance(third, &flat(&first.live, true)) > 0.1);

    let other = Learner::new(2);
    let policy = train(other.clone(), directory.path(), Some(200), 250);
    let loaded = other.saved().into_iter().next().unwrap();
    assert_equal(&loaded, second);
    assert!(distance(&loaded, &flat(&policy.net, true)) > 0.1, "the training went on");

    // Burn's own checkpoint of the policy is that of an earlier step.
    let record = directory.path().join("checkpoint/policy-200.bpk");
    let record = ModuleRecord::load(record).unwrap();
    let behind = loaded.live.valid().load_record(record);
    assert!(distance(&loaded, &flat(&behind, true)) > 0.0);

    let [mut one, mut same] = [second.clone(), loaded];
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..20 {
        let mut rows = |width: usize| {
            let numbers: Vec<f32> = (0..8 * width).map(|_| random.random::<f32>()).collect();
            Tensor::<1>::from_data(&numbers[..], &Device::flex()).reshape([8, width])
        };
        let [states, next_states] = [rows(4), rows(4)];
        let [actions, dones] = [rows(1), rows(1)].map(|rows| rows.greater_elem(0.5).float());
        let batch = || TransitionBatch {
            states: Rows(states.clone()),
            next_states: Rows(next_states.clone()),
            actions: Rows(actions.clone()),
            rewards: Tensor::ones([8, 1], &Device::flex()),
            dones: dones.clone(),
        };
        one.train(batch());
        same.train(batch());
        assert_equal(&one, &same);
    }
}

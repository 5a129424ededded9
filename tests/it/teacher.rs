//! A teacher inside the loss: against one that is kept by hand, in all its places and modes.

mod records; // the settings of a teacher in records

use std::{
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use burn::{
    lr_scheduler::constant::ConstantLr,
    module::{Module, ModuleMapper, Param, RunningState},
    nn::{Dropout, DropoutConfig, Linear, LinearConfig},
    optim::{
        GradientsParams, ModuleOptimizer, SgdConfig,
        lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    },
    tensor::{Device, Tensor, activation},
    train::{InferenceStep, MultiDeviceOptim, RegressionOutput, TrainOutput, TrainStep},
};
use burn_ema::{
    AverageConfig, Error, Policy, Result, Rule,
    runs::{CommitConfig, Commits, fit},
    train::Averaged,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    average::LARGE,
    child::{self, Child},
    common::{Net, Plan, Points, adam, assert_same, device, flat, lerp, randomized},
    hand::{ByHand, Hand, with_floats},
};

const DECAY: f64 = 0.9;

fn taught(seed: u64) -> Averaged<Net> {
    Averaged::new(Net::new(seed, &device()), [AverageConfig::new(Rule::ema(DECAY))])
        .unwrap()
        .with_teacher(0, learn)
        .unwrap()
}

/// The targets of the batch and the outputs of the teacher, in equal parts.
fn learn(student: &Net, teacher: &Net, points: Points) -> TrainOutput<RegressionOutput> {
    let output = student.forward(points.x.clone());
    let wanted = teacher.forward(points.x);
    let squared = |error: Tensor<2>| (error.clone() * error).mean();
    let loss = squared(output.clone() - points.y.clone()) + squared(output.clone() - wanted);
    TrainOutput::new(student, loss.backward(), RegressionOutput::new(loss, output, points.y))
}

/// A teacher that is kept by hand, with live's statistics.
#[derive(Clone, Debug)]
struct TeacherByHand {
    teacher: Net,
    decay: fn(u64) -> f64,
    steps: u64,
}

impl TeacherByHand {
    fn of(net: Net, decay: fn(u64) -> f64) -> ByHand<Self> {
        let hand = Self { teacher: net.valid(), decay, steps: 0 };
        ByHand::of(net, hand)
    }
}

impl Hand for TeacherByHand {
    fn learn(&self, net: &Net, points: Points) -> TrainOutput<RegressionOutput> {
        let teacher = self.teacher.valid().to_device(&points.x.device().inner());
        learn(net, &teacher, points)
    }

    fn after_step(&mut self, net: Net) -> Net {
        self.steps += 1;
        let mut average = flat(&self.teacher, false);
        lerp(&mut average, &flat(&net, false), 1.0 - (self.decay)(self.steps));
        self.teacher = with_floats(net.valid(), &average);
        net
    }
}

fn check(plan: &Plan, seed: u64, steps: u64) {
    let found = plan.launch(taught(seed)).model;
    let other = tempfile::tempdir().unwrap();
    let by_hand = TeacherByHand::of(Net::new(seed, &device()), |_| DECAY);
    let by_hand = Plan { directory: other.path().into(), ..plan.clone() }.launch(by_hand).model;
    assert_eq!((found.steps(), by_hand.held().steps), (steps, steps));
    assert!(found.error().is_none());
    assert_same(&flat(found.live(), true), &flat(&by_hand.net, true));
    assert_same(&flat(&found.average(0).unwrap(), true), &flat(&by_hand.held().teacher, true));
    // It has learnt from the teacher: without one, live is another.
    let other = tempfile::tempdir().unwrap();
    let alone = Averaged::new(Net::new(seed, &device()), [AverageConfig::new(Rule::ema(DECAY))]);
    let alone = Plan { directory: other.path().into(), ..plan.clone() }.launch(alone.unwrap());
    assert_ne!(flat(alone.model.live(), false), flat(found.live(), false));
}

#[test]
fn a_teacher_is_the_average_after_the_last_step() {
    for seed in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        check(&Plan::new(directory.path()), seed, 16);
    }
}

#[test]
fn all_batches_that_are_accumulated_have_one_teacher() {
    let directory = tempfile::tempdir().unwrap();
    check(&Plan { accumulate: 4, ..Plan::new(directory.path()) }, 1, 4);
}

#[test]
fn all_devices_have_one_teacher() {
    for optim in [MultiDeviceOptim::OptimMainDevice, MultiDeviceOptim::OptimSharded] {
        let directory = tempfile::tempdir().unwrap();
        let plan = Plan { devices: vec![device(); 2], optim, ..Plan::new(directory.path()) };
        check(&plan, 2, 8);
    }
}

/// The teacher goes with live to a worker's device.
#[test]
#[cfg(feature = "ndarray")]
fn a_device_of_another_backend_has_the_teacher_too() {
    #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
    let ndarray = Device::ndarray();
    for optim in [MultiDeviceOptim::OptimMainDevice, MultiDeviceOptim::OptimSharded] {
        let directory = tempfile::tempdir().unwrap();
        let devices = vec![device(), ndarray.clone()];
        check(&Plan { devices, optim, ..Plan::new(directory.path()) }, 3, 8);
    }
}

/// A network whose `optimize` is the user's own: it steps, then shrinks every weight.
#[derive(Module, Debug)]
struct Shrinking {
    net: Net,
}

impl TrainStep for Shrinking {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        TrainStep::step(&self.net, points)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        let net = optim.step(lr, self.net, grads);
        let smaller: Vec<_> = flat(&net, false).iter().map(|w| 0.999 * w).collect();
        Self { net: with_floats(net, &smaller) }
    }
}

impl InferenceStep for Shrinking {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> RegressionOutput {
        InferenceStep::step(&self.net, points)
    }
}

/// Batches of random points on the training device, the same for the same seed.
fn batch(seed: u64) -> Points {
    let (mut rng, device) = (ChaCha8Rng::seed_from_u64(seed), device().autodiff());
    let mut draw = |columns| {
        let values: Vec<f32> = (0..8 * columns).map(|_| rng.random::<f32>()).collect();
        Tensor::from_data(burn::tensor::TensorData::new(values, [8, columns]), &device)
    };
    Points { x: draw(2), y: draw(3) }
}

/// One step of a loop of one's own.
fn step<M>(model: Averaged<M>, optimizer: &mut ModuleOptimizer, points: Points) -> Averaged<M>
where
    M: burn::train::LearnerModel + TrainStep<Input = Points, Output = RegressionOutput>,
{
    let output = TrainStep::step(&model, points);
    model.optimize(optimizer, 0.05.into(), output.grads)
}

#[test]
fn an_optimize_of_the_users_own_is_followed() {
    let live = Shrinking { net: Net::new(5, &device()) };
    let average = AverageConfig::new(Rule::ema(DECAY));
    let mut model = Averaged::new(live, [average.clone()])
        .unwrap()
        .with_teacher(0, |student, teacher, points| learn(&student.net, &teacher.net, points))
        .unwrap()
        .train();
    let mut optimizer = SgdConfig::new().init();
    let mut live = Shrinking { net: Net::new(5, &device()) };
    let mut by_hand = average.init(&live.net).unwrap();
    live = live.train();
    let mut own = SgdConfig::new().init();
    for number in 1..=20 {
        model = step(model, &mut optimizer, batch(number));
        let teacher = by_hand.module();
        let output = learn(&live.net, &teacher, batch(number));
        drop(teacher);
        live = live.optimize(&mut own, 0.05.into(), output.grads);
        by_hand.update(&live.net, number).unwrap();
    }
    assert_same(&flat(&model.live().net, true), &flat(&live.net, true));
    assert_same(&flat(&model.average(0).unwrap().net, true), &flat(&by_hand.module(), true));
}

#[test]
fn a_refused_step_leaves_the_teacher_as_it_was() {
    let run = |spoilt: Option<u64>| {
        let (mut model, mut optimizer) = (taught(6).train(), SgdConfig::new().init());
        for number in 1..=12 {
            if spoilt == Some(number) {
                let Points { x, y } = batch(99);
                model = step(model, &mut optimizer, Points { x: x * f32::NAN, y });
            }
            model = step(model, &mut optimizer, batch(number));
        }
        model
    };
    let (whole, found) = (run(None), run(Some(7)));
    assert_eq!((found.steps(), found.refused_steps().count), (12, 1));
    assert_same(&flat(found.live(), true), &flat(whole.live(), true));
    assert_same(&flat(&found.average(0).unwrap(), true), &flat(&whole.average(0).unwrap(), true));
}

#[test]
fn there_is_no_teacher_of_an_index_that_no_average_has() {
    let model = Averaged::new(Net::new(0, &device()), [AverageConfig::new(Rule::ema(0.5))]);
    let model = model.unwrap();
    for refused in
        [model.clone().with_teacher(1, learn), model.with_teacher_in_training_mode(1, learn)]
    {
        let error = refused.map(drop).unwrap_err().to_string();
        assert_eq!(error, "the index of an average is 1, expected a number below 1");
    }
}

/// The update after a step writes into the average's own buffer, as without a teacher.
#[test]
#[cfg(feature = "flex")]
fn a_teacher_is_let_go_before_the_step() {
    use burn::backend::Flex;

    let config = || AverageConfig::new(Rule::ema(DECAY));
    let plain = Averaged::new(Net::new(7, &device()), [config()]).unwrap().train();
    for mut model in [plain, taught(7).train()] {
        let mut optimizer = SgdConfig::new().init();
        let buffers = |model: &Averaged<Net>| {
            let average = model.averages()[0].module();
            [average.first.weight, average.last.weight].map(|weight| {
                weight.val().try_into_primitive::<Flex>().unwrap().bytes().as_ptr() as usize
            })
        };
        let before = buffers(&model);
        for number in 1..=20 {
            model = step(model, &mut optimizer, batch(number));
            assert_eq!(buffers(&model), before, "step {number}");
        }
    }
}

/// A layer whose weights are far larger than its batches.
#[derive(Module, Debug)]
struct Wide {
    layer: Linear,
}

impl TrainStep for Wide {
    type Input = Tensor<2>;
    type Output = RegressionOutput;

    fn step(&self, x: Tensor<2>) -> TrainOutput<RegressionOutput> {
        let output = self.layer.forward(x);
        let loss = output.clone().square().mean();
        TrainOutput::new(self, loss.backward(), RegressionOutput::new(loss, output.clone(), output))
    }
}

impl InferenceStep for Wide {
    type Input = Tensor<2>;
    type Output = RegressionOutput;

    fn step(&self, x: Tensor<2>) -> RegressionOutput {
        let output = self.layer.forward(x);
        RegressionOutput::new(output.clone().mean(), output.clone(), output)
    }
}

#[test]
#[cfg(feature = "flex")]
fn a_step_with_a_teacher_allocates_no_weights_more() {
    let layer = LinearConfig::new(256, 256).init(&device()); // 256 KiB, a batch of 4 KiB
    let config = AverageConfig::new(Rule::ema(DECAY));
    let averaged = Averaged::new(Wide { layer }, [config]).unwrap();
    let count = |mut model: Averaged<Wide>| {
        let (mut optimizer, x) =
            (SgdConfig::new().init(), Tensor::ones([4, 256], &device().autodiff()));
        let mut before = 0;
        for number in 1..=30 {
            if number == 11 {
                before = LARGE.get();
            }
            let output = TrainStep::step(&model, x.clone());
            model = model.optimize(&mut optimizer, 0.01.into(), output.grads);
        }
        LARGE.get() - before
    };
    let alone = count(averaged.valid().train());
    let taught = averaged.with_teacher(0, |student, teacher, x| {
        let wanted = teacher.layer.forward(x.clone()).mean();
        TrainStep::step(student, x + wanted.unsqueeze())
    });
    assert_eq!(count(taught.unwrap().train()), alone);
}

// --- Modes, and the rule of autodiff ---

/// A network with a dropout.
#[derive(Module, Debug)]
struct Dropping {
    net: Net,
    dropout: Dropout,
}

impl Dropping {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.dropout.forward(self.net.forward(x))
    }
}

impl TrainStep for Dropping {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        TrainStep::step(&self.net, points)
    }
}

impl InferenceStep for Dropping {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> RegressionOutput {
        InferenceStep::step(&self.net, points)
    }
}

#[test]
fn a_teacher_is_in_validation_mode_unless_the_other_is_asked_for() {
    let dropping =
        || Dropping { net: Net::new(8, &device()), dropout: DropoutConfig::new(0.5).init() };
    for trains in [false, true] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let look = move |student: &Dropping, teacher: &Dropping, points: Points| {
            let outputs = || teacher.forward(points.x.clone()).into_data();
            sink.lock().unwrap().extend([outputs(), outputs()]);
            TrainStep::step(&student.net, points)
        };
        let averaged = Averaged::new(dropping(), [AverageConfig::new(Rule::ema(DECAY))]).unwrap();
        let model = match trains {
            false => averaged.with_teacher(0, look),
            true => averaged.with_teacher_in_training_mode(0, look),
        };
        let model = model.unwrap().train();
        let expected = model.average(0).unwrap().forward(batch(1).x).into_data();
        drop(TrainStep::step(&model, batch(1)));
        let seen = seen.lock().unwrap();
        let zeros = seen[0].iter::<f32>().filter(|output| *output == 0.0).count();
        match trains {
            false => {
                assert_eq!((&seen[0], &seen[1]), (&expected, &expected));
                assert_eq!(zeros, 0);
            }
            true => {
                assert!(zeros > 2 && zeros < 22, "{zeros} of 24 are dropped");
                assert_ne!(seen[0], seen[1], "each pass drops others");
            }
        }
        // The average keeps its statistics, though a batch norm in training mode has moved its own.
        let kept = model.averages()[0].module().net.norm.running_var.value_sync().into_data();
        assert_eq!(kept.iter::<f32>().collect::<Vec<_>>(), [1.0; 16]);
    }
}

#[test]
fn a_teachers_weights_are_constants_of_the_loss_and_its_inputs_are_not() {
    let device = device().autodiff();
    let student = Net::new(9, &device).train();
    let teacher = AverageConfig::new(Rule::ema(DECAY)).init(&student).unwrap().module();
    let rows = |device: &Device| Tensor::<2>::from_data([[0.3, -0.7], [0.9, 0.1]], device);

    // Inputs with autodiff, inputs without: the outputs meet those of the student at once.
    for input in [rows(&device), rows(&device.clone().inner())] {
        let wanted = teacher.forward(input);
        assert!(!wanted.is_require_grad());
        let loss = (student.forward(rows(&device)) - wanted).square().mean();
        let gradients = loss.backward();
        assert!(student.last.weight.grad(&gradients).is_some());
        assert!(teacher.last.weight.grad(&gradients).is_none());
        let of_teacher = GradientsParams::from_grads(gradients, &teacher);
        assert_eq!(of_teacher.len(), 0);
    }
    // A gradient goes through the teacher to what the student has computed, unless it is detached.
    let gradient = |detached: bool| {
        let computed = student.first.weight.val().slice([0..2, 0..2]);
        let input = if detached { computed.detach() } else { computed };
        let loss = teacher.forward(input).square().mean() + student.last.weight.val().mean();
        student.first.weight.grad(&loss.backward())
    };
    assert!(gradient(false).is_some());
    assert!(gradient(true).is_none());
}

// --- Records ---

#[test]
fn an_old_handle_after_a_load_is_an_error_and_no_teacher() {
    let (old, mut optimizer) = (taught(10).train(), SgdConfig::new().init());
    let mut trained = taught(10).train();
    for number in 1..=5 {
        trained = step(trained, &mut optimizer, batch(number));
    }
    let mut loaded = old.clone().try_load_record(trained.into_record()).unwrap();
    // The teacher of what was loaded is the average of the record.
    for number in 6..=7 {
        loaded = step(loaded, &mut optimizer, batch(number));
    }
    assert_eq!((loaded.steps(), loaded.error().is_none()), (7, true));

    let before = flat(old.live(), false);
    let refused = step(old, &mut optimizer, batch(6));
    let error = refused.error().unwrap().to_string();
    assert_eq!(
        error,
        "the averages of this clone is those of step 0; ask the model of the training, expected \
         those of step 7, with which a clone goes on"
    );
    assert_eq!((refused.steps(), flat(refused.live(), false)), (0, before));
}

#[test]
fn after_an_error_no_step_is_made_since_the_teacher_stands_still() {
    let mut model = taught(11).train();
    let mut optimizer = SgdConfig::new().init();
    for number in 1..=3 {
        model = step(model, &mut optimizer, batch(number));
    }
    // Past the hook, twice.
    for number in 4..=5 {
        let output = TrainStep::step(&model, batch(number));
        model = optimizer.step(ModuleLearningRate::from(0.05), model, output.grads);
    }
    let before = flat(model.live(), false);
    for number in 6..=8 {
        model = step(model, &mut optimizer, batch(number));
    }
    assert!(matches!(model.error(), Some(Error::Bypassed { changes: 2 })), "{:?}", model.error());
    assert_eq!((model.steps(), flat(model.live(), false)), (3, before));
}

/// Weights that were put into live through the hook are not in the average yet.
#[test]
fn a_teacher_that_is_not_what_live_started_from_is_an_error() {
    struct Shift;
    impl ModuleMapper for Shift {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor + 0.5)
        }
    }
    let (model, mut optimizer) = (taught(15).map(&mut Shift).train(), SgdConfig::new().init());
    assert!(matches!(model.average(0), Err(Error::Bypassed { changes: 1 })));
    let before = flat(model.live(), false);
    let model = step(model, &mut optimizer, batch(1));
    assert!(matches!(model.error(), Some(Error::Bypassed { changes: 1 })), "{:?}", model.error());
    assert_eq!((model.steps(), flat(model.live(), false)), (0, before));
}

/// As DINO has it: a head that only the student has, a centre that follows the teacher's outputs
/// and is saved with the student, and a momentum that rises to 1.
#[derive(Module, Debug)]
struct Dino {
    body: Linear,
    head: Linear,
    centre: RunningState<Tensor<1>>,
}

impl Dino {
    fn new(seed: u64) -> Self {
        let body = LinearConfig::new(2, 6).init(&device());
        let head = LinearConfig::new(6, 6).init(&device());
        let centre = RunningState::new(Tensor::zeros([6], &device()));
        randomized(Self { body, head, centre }, seed)
    }

    fn learn(&self, teacher: &Self, points: Points) -> TrainOutput<RegressionOutput> {
        let wanted = teacher.body.forward(points.x.clone());
        let mean = wanted.clone().mean_dim(0).squeeze_dim::<1>(0);
        let centre = self.centre.value_sync();
        self.centre.update(centre.clone() * 0.9 + mean.inner() * 0.1);
        let wanted =
            activation::softmax((wanted - Tensor::from_inner(centre).unsqueeze()) / 0.1, 1);
        let output = self.head.forward(self.body.forward(points.x));
        let loss = -(wanted.clone() * activation::log_softmax(output.clone(), 1)).sum_dim(1).mean();
        TrainOutput::new(self, loss.backward(), RegressionOutput::new(loss, output, wanted))
    }

    fn averaged(seed: u64) -> Averaged<Self> {
        let rule = Rule::Cosine { start: 0.9, end: 1.0, steps: 16.0 };
        let config = AverageConfig::new(rule).on("head.**", Policy::LeaveOut);
        let model = Averaged::new(Self::new(seed), [config]).unwrap();
        model.with_teacher(0, Self::learn).unwrap().train()
    }
}

impl TrainStep for Dino {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        self.learn(&self.valid(), points)
    }
}

impl InferenceStep for Dino {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> RegressionOutput {
        let output = self.body.forward(points.x);
        RegressionOutput::new(output.clone().mean(), output.clone(), output)
    }
}

#[test]
fn momentum_centre_and_a_head_of_the_students_own_go_through_a_record() {
    let mut optimizer = SgdConfig::new().init();
    let mut whole = Dino::averaged(12);
    let mut in_two = Dino::averaged(12);
    // By hand: the body alone has a teacher.
    let mut student = Dino::new(12).train();
    let mut body = flat(&student.body, false);
    for number in 1..=20_u64 {
        whole = step(whole, &mut optimizer, batch(number));
        in_two = step(in_two, &mut optimizer, batch(number));
        if number == 9 {
            let bytes = in_two.into_record().into_bytes().unwrap();
            let record = burn::store::ModuleRecord::from_bytes(bytes).unwrap();
            in_two = Dino::averaged(99).try_load_record(record).unwrap();
        }
        let teacher = Dino { body: with_floats(student.valid().body, &body), ..student.valid() };
        let output = student.learn(&teacher, batch(number));
        student = optimizer.step(ModuleLearningRate::from(0.05), student, output.grads);
        let left = if number < 16 {
            ((std::f64::consts::PI * number as f64 / 16.0).cos() + 1.0) / 2.0
        } else {
            0.0
        };
        lerp(&mut body, &flat(&student.body, false), 1.0 - (1.0 - 0.1 * left));
    }
    assert_same(&flat(in_two.live(), true), &flat(whole.live(), true));
    assert_same(&flat(whole.live(), true), &flat(&student.valid(), true));
    assert_same(&flat(&whole.average(0).unwrap().body, false), &body);
    let centre = student.centre.value_sync().into_data();
    assert!(centre.iter::<f32>().all(|x| x != 0.0), "{centre}");
    assert_eq!(in_two.live().centre.value_sync().into_data(), centre);
    // The head of what is handed out is the student's.
    assert_same(&flat(&whole.average(0).unwrap().head, false), &flat(&student.head, false));
}

// --- Kills ---

const EPOCHS: usize = 10;
/// Batches of 8 in an epoch.
const BATCHES: usize = 300;

/// 3,000 steps in a run that commits, from where it is.
fn trained(run: &Path) -> Result<Averaged<Net>> {
    let plan = Plan { epochs: EPOCHS, points: 8 * BATCHES, ..Plan::new(run) };
    let commits = CommitConfig::new(run).with_every_steps(Some(40));
    let fit = fit(plan.training(), taught(13), adam(), ConstantLr::new(0.01));
    let trained = fit.with_commits(commits)?.resume()?.launch()?;
    Ok(trained.model)
}

#[test]
#[ignore = "a child of the test below"]
fn child() {
    if let Some(run) = child::task() {
        trained(Path::new(&run)).unwrap();
    }
}

#[test]
fn three_thousand_steps_killed_at_twenty_places_are_those_of_a_whole_run() {
    let directory = tempfile::tempdir().unwrap();
    let [whole, run] = ["whole", "killed"].map(|name| directory.path().join(name));
    let whole = trained(&whole).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(14);
    let steps = || Commits::of(&run).newest().unwrap().commit.map_or(0, |c| c.manifest().steps);
    let mut places = Vec::new();
    while places.len() < 20 {
        let before = steps();
        let command = child::command(&[], "teacher::child", run.to_str().unwrap());
        let child = Child::start(command);
        let until = before + rng.random_range(40..=100);
        child::wait_until(|| steps() >= until);
        thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
        drop(child); // it kills
        places.push(steps());
    }
    assert!(*places.last().unwrap() < 3000, "all kills came before the end: {places:?}");
    let resumed = trained(&run).unwrap();
    assert_eq!((resumed.steps(), whole.steps()), (3000, 3000));
    assert_same(&flat(resumed.live(), true), &flat(whole.live(), true));
    assert_same(&flat(&resumed.average(0).unwrap(), true), &flat(&whole.average(0).unwrap(), true));
}

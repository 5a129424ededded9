//! An average of a module: its weights and its numbers.

use std::{
    cell::OnceCell,
    collections::{HashMap, VecDeque},
    sync::OnceLock,
};

use burn::{
    backend::{DispatchTensor, TensorMetadata},
    module::{Module, ParamId},
    tensor::{Device, Tensor},
};

use super::{
    clock::Clock,
    config::{AverageConfig, NonFinite},
    course::{Course, Schedule},
    kept::{Kept, Treatment},
    numbers::{Group, Numbers, Refused},
    policy::Policy,
    profile::Profile,
    rule::Rule,
    sample::Sample,
    walk::{self, Live, Parameter, ParameterKind, Structure},
    warning::Warning,
};
use crate::{Error, Result, kernel};

/// A smoothed copy of a module; [`update`](Self::update) is called after every optimizer step.
///
/// Floating-point parameters are averaged, and running states, such as the statistics of a batch
/// norm, are copied from live, unless a [policy](Policy) says otherwise.
/// Integer, boolean and quantized parameters are copied from live.
///
/// The average holds one copy of the weights, in f32 where live has 16 bits. With [`Rule::Window`]
/// it holds one copy per snapshot, with [`Rule::Bema`] three copies.
/// On Flex an update writes in place.
/// A clone of the average shares its copy until one of the two is updated.
///
/// ```
/// use burn::nn::LinearConfig;
/// use burn_ema::{AverageConfig, Rule};
///
/// let model = LinearConfig::new(2, 3).init(&Default::default());
/// let mut average = AverageConfig::new(Rule::ema(0.99)).init(&model)?;
/// for step in 1..=3 {
///     // ... one optimizer step on `model` ...
///     average.update(&model, step)?;
/// }
/// let smoothed = average.module(); // a plain `Linear`
/// assert_eq!(average.profile().weights().len(), 3);
/// # let _ = smoothed;
/// # Ok::<_, burn_ema::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Average<M: Module> {
    pub(super) config: AverageConfig,
    name: String,
    /// Live as it was at the last update, without the tensors of its parameters.
    pub(super) structure: Structure<M>,
    pub(super) kept: Vec<Kept>,
    /// Live's parameter ids, when live's parameters were last paired with `kept`, in this order. If
    /// live has the same ids again, they are paired without comparing paths.
    pub(super) paired: Vec<ParamId>,
    /// The device on which the average stays when live moves to another one; `None` if it follows
    /// live.
    pub(super) stays: Option<Device>,
    pub(super) schedule: Schedule,
    pub(super) numbers: Numbers,
    /// True if the policies exclude all parameters but running states from averaging.
    pub(super) asks_for_nothing: bool,
    /// A few of live's weights at the last step; `None` before it, or if none are in host memory.
    pub(super) sample: Option<Sample>,
    /// The number of calls that repeated the last step with other weights, which were not taken.
    pub(super) repeated: u64,
    /// The share that the starting weights will have in each group at the end of the training, or
    /// `None` if it cannot be computed. Set on first use.
    pub(super) forecast: OnceLock<Vec<Option<f64>>>,
    /// The warnings that `take_warnings` has returned.
    pub(super) warned: Vec<Warning>,
}

impl AverageConfig {
    /// An average that starts at the module's weights, at step 0.
    ///
    /// The call initialises those parameters of the module that are not initialised yet.
    ///
    /// # Errors
    ///
    /// A setting outside its range, or one that another setting needs and that is missing; a
    /// name that is empty or contains `.weights`, a slash or a control character; a glob that
    /// matches no parameter; two parameters of one path; a NaN or an infinity in the weights,
    /// unless [`non_finite`](AverageConfig) is [`NonFinite::Take`].
    pub fn init<M: Module>(&self, module: &M) -> Result<Average<M>> {
        Average::new(self, module, Clock::default())
    }
}

impl<M: Module> Average<M> {
    /// An average that starts at a module's weights, at a clock.
    pub(crate) fn new(config: &AverageConfig, module: &M, now: Clock) -> Result<Self> {
        let schedule = config.check()?;
        // `clone` would share the running states with live; `valid` does not.
        let module = module.valid();
        let parameters = walk::parameters(&module)?;
        let paired = parameters.iter().map(|parameter| parameter.id).collect();
        let paths = parameters.iter().map(|p| (p.path.as_str(), p.kind));
        let policies = config.policies(paths)?;

        let asked = parameters.iter().zip(&policies);
        let mut asked = asked.filter(|(p, _)| p.kind != ParameterKind::Statistic).peekable();
        let asks_for_nothing = asked.peek().is_some()
            && asked.all(|(_, policy)| !matches!(policy, Policy::Average | Policy::Rule(_)));

        let mut groups = vec![config.rule.clone()];
        // Tied parameters share one id in live, and so they do here.
        let mut ids = HashMap::new();
        let kept = parameters.into_iter().zip(policies).map(|(mut parameter, policy)| {
            parameter.id = *ids.entry(parameter.id).or_insert_with(ParamId::new);
            let how = match (policy, parameter.kind) {
                (Policy::Freeze, _) => Treatment::Frozen,
                (Policy::LeaveOut, _) => Treatment::LeftOut,
                (Policy::Copy, _) | (_, ParameterKind::Constant) => Treatment::Copied,
                (Policy::Average, _) => Treatment::Averaged(0),
                (Policy::Rule(rule), _) => {
                    let known = groups.iter().position(|known| *known == rule);
                    Treatment::Averaged(known.unwrap_or_else(|| {
                        groups.push(rule);
                        groups.len() - 1
                    }))
                }
            };
            Kept { parameter, how, live_device: None, beside: VecDeque::new() }
        });
        let mut kept: Vec<_> = kept.collect();
        let groups = groups.iter().map(|rule| config.in_steps(rule).map(Group::new));
        let groups = groups.collect::<Result<Vec<_>>>()?;
        if config.non_finite != NonFinite::Take {
            let taken = kept.iter().filter_map(|Kept { parameter, how, .. }| {
                // What is frozen from the start may hold anything, such as a mask of infinities.
                let kept = config.kept_dtype(parameter.dtype);
                Some((parameter, how.most(parameter, kept, true)?))
            });
            let finite = kernel::within(taken.clone().map(|(taken, most)| (&taken.tensor, most)))?;
            if let Some(((bad, _), _)) = taken.zip(finite).find(|(_, finite)| !finite) {
                let found = "a NaN or an infinity in the weights that the average starts from";
                return Err(Error::parameter(&bad.path, "finite numbers", found));
            }
        }
        for kept in &mut kept {
            let Treatment::Averaged(group) = kept.how else { continue };
            let tensor = &mut kept.parameter.tensor;
            *tensor = kernel::cast(tensor.clone(), config.kept_dtype(tensor.dtype()));
            if let Rule::Bema { .. } = groups[group].rule {
                kept.beside = VecDeque::from([tensor.clone(), tensor.clone()]);
            }
            kernel::make_unique(tensor);
        }
        let course = Course::new(&schedule, now);
        Ok(Self {
            name: config.label(),
            config: config.clone(),
            structure: Structure::of(module),
            kept,
            paired,
            stays: None,
            schedule,
            numbers: Numbers { course, groups, refused: Refused::default() },
            asks_for_nothing,
            sample: None,
            repeated: 0,
            forecast: OnceLock::new(),
            warned: Vec::new(),
        })
    }

    /// Moves the average to `device`, where it stays: each update copies live's weights to it.
    ///
    /// Without this call, each parameter of the average follows live's parameter to its device.
    /// A model on a GPU can keep its average in host memory this way.
    pub fn keep_on(mut self, device: &Device) -> Self {
        let device = device.clone().inner();
        let there = Tensor::<1>::zeros([1], &device).into_dispatch();
        for kept in &mut self.kept {
            let tensor = &mut kept.parameter.tensor;
            if !kernel::are_on_same_device(tensor, &there) {
                kept.live_device.get_or_insert_with(|| tensor.device());
                kernel::move_to_device_of(tensor, &there);
            }
            kept.beside.iter_mut().for_each(|tensor| kernel::move_to_device_of(tensor, &there));
            if let Treatment::Averaged(_) = kept.how {
                kernel::make_unique(&mut kept.parameter.tensor);
            }
        }
        self.stays = Some(device);
        self
    }

    /// An owned plain module in validation mode with the averaged weights, in live's dtypes and
    /// on the devices where live was at the last update.
    ///
    /// Everything that is no parameter, such as a plain tensor, a skipped field or a number, is as
    /// it was in live at the last update; before the first update, as it was when the average was
    /// made or loaded.
    /// A parameter that the policies [leave out](Policy::LeaveOut) is as it was when the average
    /// was made.
    ///
    /// Where no dtype and no device has to change, the module shares the weights with the average
    /// until the next update, without a copy.
    pub fn module(&self) -> M {
        self.fill(|kept| {
            let tensor = self.in_live_dtype(kept);
            match &kept.live_device {
                Some(device) => kernel::to_device(tensor, device),
                None => tensor,
            }
        })
    }

    /// Like [`module`](Self::module), in the dtypes and on the devices in which the average is
    /// kept.
    pub fn module_as_kept(&self) -> M {
        let module = self.fill(|kept| self.value(kept));
        match &self.stays {
            Some(device) => module.to_device(device),
            None => module,
        }
    }

    /// Like [`module`](Self::module), but on the devices where live is now, and with the parameters
    /// that are left out as they are in live.
    ///
    /// If live is on several devices, the tensors that are no parameters are on the devices of the
    /// last update.
    ///
    /// # Errors
    ///
    /// A parameter that only one side has, or of another shape or dtype.
    pub fn module_like(&self, live: &M) -> Result<M> {
        // A traversal shows running states one forward pass late; `valid` makes them current.
        self.module_beside(&live.valid())
    }

    /// Like [`module_like`](Self::module_like), but it leaves live's running states alone: `valid`
    /// applies what other threads have left pending in them. So a running state that is left out is
    /// as it was before live's last forward pass.
    ///
    /// # Errors
    ///
    /// The errors of [`module_like`](Self::module_like).
    pub(crate) fn module_beside(&self, live: &M) -> Result<M> {
        let walked = Live::walk(live);
        let tensors = walked.pair(self.parameters(), &mut self.paired.clone())?;
        let mut live_of: HashMap<_, _> =
            self.parameters().map(|p| p.path.as_str()).zip(tensors.iter()).collect();
        let module = self.fill(|kept| {
            let value = self.in_live_dtype(kept);
            match live_of.remove(kept.parameter.path.as_str()) {
                Some(live) if kept.how == Treatment::LeftOut => live.clone(),
                Some(live) => kernel::on_device_of(value, live),
                None => value,
            }
        });
        Ok(match &live.devices()[..] {
            [device] => module.to_device(&device.clone().inner()),
            _ => module,
        })
    }

    /// Moves live towards the average, by the share `share` of the way, in `(0, 1]`; 1 copies the
    /// average (Li et al. 2024, "Switch EMA").
    ///
    /// Only averaged weights move; running states, such as the statistics of batch norms, do not.
    /// Each parameter keeps its training state and its id, so that an optimizer goes on with its
    /// moments.
    ///
    /// # Errors
    ///
    /// A share outside its range; a parameter that only one side has, or of another shape or
    /// dtype.
    pub fn copy_into(&self, live: M, share: f64) -> Result<M> {
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::value("the share of the average", "a number in (0, 1]", share));
        }
        Live::walk(&live).pair(self.parameters(), &mut self.paired.clone())?;
        let averaged = self.kept.iter().filter(|kept| {
            matches!(kept.how, Treatment::Averaged(_))
                && kept.parameter.kind == ParameterKind::Weight
        });
        let averaged: HashMap<_, _> =
            averaged.map(|kept| (kept.parameter.path.as_str(), kept)).collect();
        Ok(walk::map_floats(live, |path, live| {
            let average = self.value(averaged.get(path)?);
            let average = kernel::on_device_of(kernel::cast(average, live.dtype()), live);
            let mut moved = live.clone();
            kernel::lerp(&mut moved, &average, share);
            Some(moved)
        }))
    }

    /// How far live is from the average.
    ///
    /// While the learning rate is high the distance stays at the size of the noise; it falls as
    /// live settles.
    ///
    /// # Errors
    ///
    /// A parameter that only one side has, or of another shape or dtype; numbers that cannot be
    /// read back.
    pub fn distance(&self, live: &M) -> Result<Distance> {
        let walked = Live::walk(live);
        let tensors = walked.pair(self.parameters(), &mut self.paired.clone())?;
        let pairs = self.kept.iter().zip(tensors.iter()).filter(|(kept, _)| {
            matches!(kept.how, Treatment::Averaged(_))
                && kept.parameter.kind == ParameterKind::Weight
        });
        let pairs = pairs.map(|(kept, live)| {
            let average = self.value(kept);
            let live = kernel::cast(live.clone(), average.dtype());
            (average.clone(), kernel::on_device_of(live, &average))
        });
        let (apart, norm) = kernel::squared_distance(pairs)?;
        // Sums of nothing can be -0.
        let (apart, norm) = (apart.abs(), norm.abs());
        let relative = if apart == 0.0 { 0.0 } else { (apart / norm).sqrt() };
        Ok(Distance { norm: apart.sqrt(), relative })
    }

    /// The profile of the average: how much weight each past update has in it.
    ///
    /// For paths with a rule of their own, see [`profile_of`](Self::profile_of).
    /// Its numbers are NaN after more than 67 million updates.
    pub fn profile(&self) -> Profile {
        self.group_profile(&self.numbers.groups[0], ParameterKind::Weight)
    }

    /// The profile of the average of the parameter at a path; `None` if the module has no such
    /// parameter or it is not averaged.
    pub fn profile_of(&self, path: &str) -> Option<Profile> {
        let Kept { parameter, how, .. } =
            self.kept.iter().find(|kept| kept.parameter.path == path)?;
        match *how {
            Treatment::Averaged(group) => {
                Some(self.group_profile(&self.numbers.groups[group], parameter.kind))
            }
            _ => None,
        }
    }

    fn group_profile(&self, group: &Group, kind: ParameterKind) -> Profile {
        let course = &self.numbers.course;
        let (first, elapsed) = (course.first(&self.schedule), course.elapsed(&self.schedule));
        let times = course.times(&self.schedule);
        let profile = match kind {
            ParameterKind::Statistic => Profile::uncorrected(&group.rule, first, times, elapsed),
            _ => Profile::of(&group.rule, first, times, elapsed),
        };
        // These updates were all made, so this can fail only if the function of a custom rule now
        // returns other decays, or if there are more updates than a profile lists.
        profile.unwrap_or_else(|_| Profile::unknown())
    }

    /// The share of the starting weights in the average, as in [`Profile::mass_on_start`].
    pub fn mass_on_start(&self) -> f64 {
        self.numbers.groups[0].start_at(self.numbers.course.last(&self.schedule))
    }

    /// The name of the average in metrics, tables, records and files.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rule of the average.
    pub fn rule(&self) -> &Rule {
        &self.config.rule
    }

    /// The configuration that the average was made with.
    pub fn config(&self) -> &AverageConfig {
        &self.config
    }

    /// The last step that the average has seen; 0 at the start.
    pub fn last_step(&self) -> u64 {
        self.numbers.course.seen.step
    }

    /// The last clock that the average has seen.
    ///
    /// Its `samples` are counted only if `samples_per_step` is set or
    /// [`update_at`](Self::update_at) is called; else they stay 0.
    pub fn clock(&self) -> Clock {
        self.numbers.course.seen
    }

    /// True if the average has started; until then it is a copy of live.
    pub fn has_begun(&self) -> bool {
        self.numbers.course.begun.is_some()
    }

    /// True if the average has been updated since its start.
    pub(crate) fn has_updates(&self) -> bool {
        !self.numbers.course.runs.is_empty()
    }

    /// The sum of the raw weights of all steps, and of the start, so far.
    ///
    /// For a constant decay it is `1 - decay^t` with bias correction, and 1 without.
    pub fn mass(&self) -> f64 {
        self.numbers.groups[0].mass
    }

    /// The updates that were not made because they would have taken in a NaN or an infinity.
    pub fn refused(&self) -> &Refused {
        &self.numbers.refused
    }

    /// The paths of the module's running states.
    #[cfg(feature = "train")]
    pub(crate) fn statistics(&self) -> std::collections::BTreeSet<String> {
        let statistics = self.parameters().filter(|p| p.kind == ParameterKind::Statistic);
        statistics.map(|parameter| parameter.path.clone()).collect()
    }

    /// True if the average's time is counted in samples.
    #[cfg(feature = "train")]
    pub(crate) fn counts_samples(&self) -> bool {
        self.schedule.samples
    }

    /// All numbers of the average.
    #[cfg(feature = "train")]
    pub(crate) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// A new average with this one's configuration and device, which starts at a module and a
    /// clock.
    #[cfg(feature = "train")]
    pub(crate) fn started_anew(&self, module: &M, now: Clock) -> Result<Self> {
        let anew = Self::new(&self.config, module, now)?;
        Ok(match &self.stays {
            Some(device) => anew.keep_on(device),
            None => anew,
        })
    }

    /// The parameters, in their order.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &Parameter> + Clone {
        self.kept.iter().map(|kept| &kept.parameter)
    }

    pub(super) fn device(&self) -> Device {
        self.structure.devices().into_iter().next().unwrap_or_default()
    }

    /// The module with a tensor in the place of each parameter.
    pub(super) fn fill(&self, mut tensor_of: impl FnMut(&Kept) -> DispatchTensor) -> M {
        let by_path = OnceCell::new();
        let find = |path: &str| -> Option<&Kept> {
            let all = || self.kept.iter().map(|kept| (kept.parameter.path.as_str(), kept));
            by_path.get_or_init(|| all().collect::<HashMap<_, _>>()).get(path).copied()
        };
        let mut in_order = self.kept.iter();
        self.structure.filled(|path| {
            // Most likely both have the same order.
            let next = in_order.next().filter(|kept| kept.parameter.path == path);
            let kept = next.or_else(|| find(path))?;
            Some((kept.parameter.id, tensor_of(kept)))
        })
    }

    /// The parameter's value in the average, in live's dtype, on the device where it is kept.
    fn in_live_dtype(&self, kept: &Kept) -> DispatchTensor {
        let value = self.value(kept);
        match kept.parameter.kind {
            ParameterKind::Constant => value,
            _ => kernel::cast(value, kept.parameter.dtype),
        }
    }

    /// The parameter's value in the average, in the dtype and on the device where it is kept.
    fn value(&self, kept: &Kept) -> DispatchTensor {
        let tensor = &kept.parameter.tensor;
        let Treatment::Averaged(group) = kept.how else { return tensor.clone() };
        let Group { rule, counts, .. } = &self.numbers.groups[group];
        if let Some(first) = kept.beside.front()
            && rule.window().is_some()
        {
            let (mut mean, mut total) = (first.clone(), counts[0]);
            for (snapshot, count) in kept.beside.iter().zip(counts).skip(1) {
                total += count;
                kernel::lerp(&mut mean, snapshot, *count as f64 / total as f64);
            }
            return mean;
        }
        let elapsed = self.numbers.course.last(&self.schedule);
        match (rule.correction(elapsed), kept.beside.front(), kept.beside.back()) {
            // A variance must stay positive, which the correction does not ensure.
            (Some(share), Some(start), Some(live))
                if kept.parameter.kind == ParameterKind::Weight =>
            {
                kernel::shifted(tensor, live, start, share)
            }
            _ => tensor.clone(),
        }
    }
}

/// How far live is from an average, over all averaged parameters but statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Distance {
    /// The Euclidean norm of the difference.
    pub norm: f64,
    /// `norm` divided by the Euclidean norm of the average; 0 if live equals the average.
    pub relative: f64,
}

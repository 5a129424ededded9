//! An average of a module: its weights, its last step and its mass.

use std::{borrow::Cow, collections::HashMap};

use burn::{
    config::Config,
    module::{Module, ParamId},
    store::ModuleRecord,
    tensor::{Device, Tensor},
};

use super::{
    lerp,
    record::{Opened, Saved, Words},
    rule::Rule,
    walk::{self, Live, Parameter},
};
use crate::{Error, Result};

/// Configuration of an [`Average`].
///
/// ```
/// use burn::nn::LinearConfig;
/// use burn_ema::{AverageConfig, Rule};
///
/// let model = LinearConfig::new(2, 3).init(&Default::default());
/// let average = AverageConfig::new(Rule::ema(0.99)).init(&model)?;
/// assert_eq!(average.name(), "ema(0.99)");
/// # Ok::<_, burn_ema::Error>(())
/// ```
#[derive(Config, Debug)]
pub struct AverageConfig {
    /// Which average.
    pub rule: Rule,
    /// What metrics, tables and records call it; the rule's short form if not given.
    pub name: Option<String>,
}

impl AverageConfig {
    /// An average that starts at the module's weights, at step 0.
    ///
    /// Parameters that are not initialised yet are initialised by this.
    ///
    /// # Errors
    ///
    /// The rule's ranges; a name that is empty or contains `.weights`, a slash or a control
    /// character; two parameters of one path.
    pub fn init<M: Module>(&self, module: &M) -> Result<Average<M>> {
        Average::start(self, module, Start { last: 0, mass: self.rule.initial_mass() })
    }

    /// The name: the one given, else the rule's short form.
    pub(crate) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.rule.to_string())
    }
}

/// The numbers an average starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// The last step that it has seen.
    pub last: u64,
    /// The sum of the raw weights of all steps, and of the start, so far.
    pub mass: f64,
}

/// A smoothed copy of a module, one [`update`](Self::update) after every optimizer step.
///
/// Floating-point parameters are averaged.
/// Integer, boolean and quantized parameters and the running statistics of a batch norm are
/// copied from live.
///
/// The average holds one copy of the weights.
/// On Flex an update writes in place.
/// A clone shares that copy until either is updated.
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
/// # let _ = smoothed;
/// # Ok::<_, burn_ema::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Average<M: Module> {
    name: String,
    rule: Rule,
    /// The module's structure, in validation mode, without weights.
    hollow: M,
    parameters: Vec<Parameter>,
    paired: Vec<ParamId>,
    /// Whether it stays on its device when live moves to another.
    stays: bool,
    last: u64,
    mass: f64,
}

impl<M: Module> Average<M> {
    /// An average at the module's weights, with these numbers.
    pub(crate) fn start(config: &AverageConfig, module: &M, start: Start) -> Result<Self> {
        config.rule.check()?;
        let name = config.label();
        // Names stand in the paths of records and in the file names of metrics.
        let refused = |c: char| c == '/' || c == '\\' || c.is_control();
        if name.is_empty() || name.contains(".weights") || name.contains(refused) {
            let expected = "a text without `.weights`, slashes and control characters";
            return Err(Error::value("the name of an average", expected, format!("{name:?}")));
        }
        // `clone` would share a batch norm's statistics with live; `valid` does not.
        let module = module.valid();
        let mut parameters = walk::parameters(&module)?;
        let paired = parameters.iter().map(|parameter| parameter.id).collect();
        for parameter in &mut parameters {
            parameter.id = ParamId::new();
            if parameter.averaged {
                lerp::own(&mut parameter.tensor);
            }
        }
        let hollow = walk::hollow(module);
        let Start { last, mass } = start;
        Ok(Self { name, rule: config.rule, hollow, parameters, paired, stays: false, last, mass })
    }

    /// Moves the average to a device, where it stays: each update brings live's weights there.
    ///
    /// Otherwise an average follows live, parameter by parameter.
    /// A model on a GPU can so keep its average in the memory of the host.
    pub fn keep_on(mut self, device: &Device) -> Self {
        let device = device.clone().inner();
        let there = Tensor::<1>::zeros([1], &device).into_dispatch();
        self.hollow = self.hollow.to_device(&device);
        for parameter in &mut self.parameters {
            lerp::follow(&mut parameter.tensor, &there);
            lerp::own(&mut parameter.tensor);
        }
        self.stays = true;
        self
    }

    /// Takes live's weights after optimizer step `step` into the average.
    ///
    /// Steps count from 1.
    /// The same step twice is one update; an update after several steps covers all of them, so
    /// that the width of the average does not depend on how often it is updated.
    ///
    /// Parameters are paired by path, and the average follows live's parameters to other devices
    /// unless it [stays](Self::keep_on) on one.
    ///
    /// # Errors
    ///
    /// Step 0 or a step before the last one; a parameter that only one side has, or of another
    /// shape or dtype.
    /// After an error the average is as it was.
    pub fn update(&mut self, live: &M, step: u64) -> Result<()> {
        update_all(std::slice::from_mut(self), live, step)
    }

    /// An owned plain module in validation mode with the averaged weights.
    ///
    /// It shares them with the average until the next update, so that it costs no copy.
    pub fn module(&self) -> M {
        let mut parameters = self.by_path();
        walk::fill(self.hollow.valid(), |path| {
            parameters.remove(path).map(|parameter| (parameter.id, parameter.tensor.clone()))
        })
    }

    /// Like [`module`](Self::module), but on live's devices and with everything that is not
    /// averaged (statistics of batch norms, constants) as it is in live now.
    pub fn module_like(&self, live: &M) -> Result<M> {
        let live = live.valid();
        let walked = Live::walk(&live);
        let tensors = walked.pair(&self.parameters, &mut self.paired.clone())?;
        let mut parameters: HashMap<_, _> = self
            .parameters
            .iter()
            .zip(tensors.iter())
            .filter(|(parameter, _)| parameter.averaged)
            .map(|(parameter, live)| (parameter.path.as_str(), (parameter, live)))
            .collect();
        Ok(walk::fill(live.clone(), |path| {
            let (parameter, live) = parameters.remove(path)?;
            Some((parameter.id, lerp::on_device_of(parameter.tensor.clone(), live)))
        }))
    }

    /// What metrics, tables and records call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which average.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The last step that it has seen; 0 at the start.
    pub fn last_step(&self) -> u64 {
        self.last
    }

    /// The sum of the raw weights of all steps, and of the start, so far.
    ///
    /// With bias correction it is `1 - decay^t`, from a copy of the start it is 1.
    pub fn mass(&self) -> f64 {
        self.mass
    }

    /// What a later run needs to go on: the weights, the last step, the mass and the rule.
    pub fn into_record(self) -> ModuleRecord {
        let device = self.device();
        Saved::new()
            .with_module("weights", self.module())
            .with_words("state", self.words(), &device)
            .into_record()
    }

    /// The average that a record holds.
    ///
    /// # Errors
    ///
    /// A record of another rule, or whose entries differ from this average's in path, shape or
    /// dtype.
    pub fn try_load_record(self, record: ModuleRecord) -> Result<Self> {
        let opened = Opened::read(record)?;
        let start = self.saved_start(&opened, "state")?;
        let saved = Saved::new().with_module("weights", self.module());
        let mut modules = opened.apply(saved, |name| name == "state")?.into_modules();
        let weights = modules.next().expect("the one module that was saved");
        self.restored(&weights, start)
    }

    /// The numbers as words.
    pub(crate) fn words(&self) -> Words {
        Words::new().with_u64(self.last).with_f64(self.mass).with_rule(&self.rule)
    }

    /// The numbers that a record holds for this average under a name.
    pub(crate) fn saved_start(&self, opened: &Opened, name: &str) -> Result<Start> {
        let mut words = opened.words(name)?;
        let (last, mass) = (words.u64()?, words.f64()?);
        if !(0.0..=1.0).contains(&mass) {
            return Err(words.refuse("a mass in [0, 1]", mass));
        }
        let rule = words.rule()?;
        words.end()?;
        if rule != self.rule {
            return Err(Error::parameter(name, format!("the rule {}", self.rule), rule));
        }
        Ok(Start { last, mass })
    }

    /// This average with other weights and numbers.
    pub(crate) fn restored(&self, weights: &M, start: Start) -> Result<Self> {
        let restored = Self::start(&self.config(), weights, start)?;
        Ok(if self.stays { restored.keep_on(&self.device()) } else { restored })
    }

    /// This average, of a module whose reparameterizations are folded into its weights.
    #[cfg(feature = "train")]
    pub(crate) fn materialized(&self) -> Result<Self> {
        let start = Start { last: self.last, mass: self.mass };
        self.restored(&self.module().materialize(), start)
    }

    fn has_statistics(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.statistic)
    }

    fn config(&self) -> AverageConfig {
        AverageConfig::new(self.rule).with_name(Some(self.name.clone()))
    }

    fn device(&self) -> Device {
        self.hollow.devices().into_iter().next().unwrap_or_default()
    }

    fn by_path(&self) -> HashMap<&str, &Parameter> {
        self.parameters.iter().map(|parameter| (parameter.path.as_str(), parameter)).collect()
    }
}

/// Updates several averages of one module.
///
/// # Errors
///
/// Those of [`Average::update`]; after one, all averages are as they were.
pub(crate) fn update_all<M: Module>(
    averages: &mut [Average<M>],
    live: &M,
    step: u64,
) -> Result<()> {
    if step == 0 {
        return Err(Error::value("the step", "a number from 1", step));
    }
    if let Some(ahead) = averages.iter().find(|average| step < average.last) {
        return Err(Error::StepBack { step, last: ahead.last });
    }
    let mut due: Vec<_> = averages.iter_mut().filter(|average| step > average.last).collect();
    if due.is_empty() {
        return Ok(());
    }
    // A walk shows a batch norm's statistics one forward pass late, unless they are made current.
    let current;
    let live = match due.iter().any(|average| average.has_statistics()) {
        true => {
            current = live.valid();
            &current
        }
        false => live,
    };
    let live = Live::walk(live);
    let tensors = due
        .iter_mut()
        .map(|average| live.pair(&average.parameters, &mut average.paired))
        .collect::<Result<Vec<_>>>()?;
    for (average, live) in due.into_iter().zip(&tensors) {
        let update = average.rule.update(average.mass, step - average.last);
        let mut live = Cow::Borrowed(live.as_ref());
        for (index, parameter) in average.parameters.iter_mut().enumerate() {
            match average.stays {
                true => lerp::follow(&mut live.to_mut()[index], &parameter.tensor),
                false => lerp::follow(&mut parameter.tensor, &live[index]),
            }
        }
        let pairs = average.parameters.iter_mut().zip(live.iter());
        let averaged = pairs.filter_map(|(parameter, live)| {
            if parameter.averaged {
                return Some((&mut parameter.tensor, live));
            }
            parameter.tensor = live.clone();
            None
        });
        lerp::lerp(averaged, update.alpha);
        average.mass = update.mass;
        average.last = step;
    }
    Ok(())
}

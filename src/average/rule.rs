//! The share of the new weights in an update: numbers in, numbers out, no tensors.
//!
//! Every average here is `a <- a + alpha (w - a)`.
//! A rule gives the weights `w` after each step a raw weight `m` and keeps the sum `Z` of all raw
//! weights so far, its mass; then `alpha = m / Z`.
//!
//! `retention` holds the formulas, `power` the exponent of the power function, `form` the printed
//! form and `custom` the rules that programs add.

mod custom;
mod form;
mod power;
mod retention;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The formula of an average: how much weight each past step has in it.
///
/// A rule is plain data; its ranges are checked where it is parsed and where an average is made or
/// loaded.
///
/// Steps `t` count from 1 at the start of the average.
/// An update that covers several steps weighs the past as that many updates with the same weights
/// would, so the width of an average does not depend on how often it is updated.
/// The one exception is [`Target`](Self::Target), whose share counts per update.
///
/// # Printed form
///
/// A rule is printed as one line and parsed from it; this line is also its form in JSON:
///
/// | form | rule |
/// |---|---|
/// | `ema(0.999)`, `ema(0.999, debias)` | [`Constant`](Self::Constant) |
/// | `half-life(500 steps)` | [`HalfLife`](Self::HalfLife) |
/// | `half-life(64000 samples)` | [`HalfLifeSamples`](Self::HalfLifeSamples) |
/// | `half-life(2 epochs)` | [`HalfLifeEpochs`](Self::HalfLifeEpochs) |
/// | `warm-up(10, max=0.9999)` | [`WarmUp`](Self::WarmUp) |
/// | `inverse-gamma(1, power=0.75, max=0.9999)`, then perhaps `min=0.5` | [`InverseGamma`](Self::InverseGamma) |
/// | `annealing(100, max=0.9998)` | [`Annealing`](Self::Annealing) |
/// | `exp-ramp(0.9999, tau=2000)` | [`ExponentialRamp`](Self::ExponentialRamp) |
/// | `half-life-ramp(0.05)`, `half-life-ramp(0.09, max=500000 steps)` | [`HalfLifeRamp`](Self::HalfLifeRamp) |
/// | `power(sigma_rel=0.05)` | [`PowerFunction`](Self::PowerFunction) |
/// | `power(gamma=6.94)` | [`PowerFunctionGamma`](Self::PowerFunctionGamma) |
/// | `equal` | [`Equal`](Self::Equal) |
/// | `window(5 snapshots, 100 steps)` | [`Window`](Self::Window) |
/// | `cosine(0.996, end=1, steps=10000)` | [`Cosine`](Self::Cosine) |
/// | `linear(0.999, end=0.9999, steps=30000)` | [`Linear`](Self::Linear) |
/// | `bema(rho=10, gamma=1, eta=0.2, kappa=0.5)` | [`Bema`](Self::Bema) |
/// | `target(tau=0.005)` | [`Target`](Self::Target) |
/// | `copy(every=1000)` | [`Copy`](Self::Copy) |
/// | `its-name`, `its-name(1, 2.5)` | [`Custom`](Self::Custom) |
///
/// Spaces and the case of names do not matter.
/// Every argument of a built-in rule can be given by its key or by its position, and its unit can
/// be left out; `half-life` then counts steps.
/// The arguments of a registered rule are numbers, by position alone.
///
/// ```
/// use burn_ema::Rule;
///
/// let rule: Rule = "Half-life( 500 )".parse()?;
/// assert_eq!(rule, Rule::HalfLife { steps: 500.0 });
/// assert_eq!(rule.to_string(), "half-life(500 steps)");
/// # Ok::<_, burn_ema::Error>(())
/// ```
///
/// # What they are made of
///
/// After 20,000 steps, by `cargo run --example profiles -- --markdown`: the mass on the start; the
/// mean and the standard deviation of the steps that an average is made of, as shares of all steps;
/// the half-life in steps; and how many independent steps average noise down as much, see
/// [`Profile`](super::Profile).
/// The output of `bema` goes beyond live, so that its mean is above 1 and it has no deviation.
///
/// <!-- profiles -->
///
/// | rule | start | mean | deviation | half-life | effective steps |
/// |---|---|---|---|---|---|
/// | `ema(0.999)` | 2e-9 | 0.950 | 0.050 | 693 | 1999 |
/// | `ema(0.9999)` | 0.135 | 0.568 | 0.332 | 6931 | 54.5 |
/// | `ema(0.9999, debias)` | 0 | 0.657 | 0.263 | 5662 | 15232 |
/// | `half-life(1000 steps)` | 1e-6 | 0.928 | 0.072 | 1000 | 2885 |
/// | `warm-up(10, max=0.9999)` | 0 | 0.900 | 0.090 | 1483 | 4199 |
/// | `inverse-gamma(1, power=0.6667, max=0.9999)` | 0 | 0.964 | 0.035 | 506 | 1455 |
/// | `inverse-gamma(1, power=0.75, max=0.9999)` | 0 | 0.921 | 0.074 | 1140 | 3255 |
/// | `annealing(1, max=1)` | 5e-5 | 0.500 | 0.289 | 10001 | 20001 |
/// | `annealing(100, max=0.9998)` | 0 | 0.990 | 0.010 | 138 | 399 |
/// | `exp-ramp(0.9999, tau=2000)` | 0 | 0.835 | 0.097 | 3244 | 6989 |
/// | `half-life-ramp(0.05)` | 0 | 0.933 | 0.063 | 975 | 2781 |
/// | `power(sigma_rel=0.05)` | 0 | 0.947 | 0.050 | 757 | 2164 |
/// | `power(sigma_rel=0.1)` | 0 | 0.888 | 0.100 | 1672 | 4722 |
/// | `equal` | 0 | 0.500 | 0.289 | 10000 | 20000 |
/// | `window(5 snapshots, 1000 steps)` | 0 | 0.900 | 0.071 | 2000 | 5.0 |
/// | `cosine(0.996, end=1, steps=20000)` | 0 | 0.776 | 0.083 | 4420 | 5959 |
/// | `linear(0.999, end=0.9999, steps=20000)` | 2e-5 | 0.790 | 0.142 | 3757 | 9150 |
/// | `bema(rho=10, gamma=1, eta=0.2, kappa=0.5)` | -0.138 | 1.131 | none | 63.3 | 23.0 |
///
/// <!-- profiles -->
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Rule {
    /// An exponential moving average of constant decay `d`.
    ///
    /// ```math
    /// a_t = d\,a_{t-1} + (1 - d)\,w_t
    /// ```
    ///
    /// The average remembers about `1 / (1 - d)` steps; with decay 0 it is live.
    Constant {
        /// The share of the old average that one step keeps, in `[0, 1)`.
        decay: f64,
        /// Without bias correction (`false`) the average starts as a copy of the first weights,
        /// which keep the weight `decay^t` in it.
        /// With it (`true`) the start has no weight (Kingma and Ba 2015, "Adam", section 3,
        /// equations 1 to 4). The first steps have larger shares; a division of an average from 0
        /// gives the same result:
        ///
        /// ```math
        /// \alpha_t = \frac{1 - d}{1 - d^t}, \qquad a_t = \frac{v_t}{1 - d^t}
        /// \quad\text{of}\quad v_t = d\,v_{t-1} + (1 - d)\,w_t,\; v_0 = 0
        /// ```
        debias: bool,
    },

    /// The exponential moving average in which the weight of the past halves every `h = steps`
    /// steps, from a copy of the start.
    ///
    /// ```math
    /// d = 2^{-1 / h}
    /// ```
    HalfLife {
        /// The half-life in steps, above 0.
        steps: f64,
    },

    /// [`HalfLife`](Self::HalfLife) given in samples, so that it holds for every batch size
    /// (the unit of Karras et al. 2022, "EDM", and the scaling rule of Busbridge et al. 2023,
    /// "How to Scale Your EMA").
    HalfLifeSamples {
        /// The half-life in samples, above 0.
        samples: f64,
    },

    /// [`HalfLife`](Self::HalfLife) given in epochs (as in Composer).
    HalfLifeEpochs {
        /// The half-life in epochs, above 0.
        epochs: f64,
    },

    /// A decay that grows to its maximum (TensorFlow's moving averages and torch-ema with 10, d2go
    /// with any number).
    ///
    /// ```math
    /// d_t = \min\left(d_{\max},\; \frac{1 + t}{\text{warm-up} + t}\right)
    /// ```
    ///
    /// Before the maximum it is nearly the power function with `gamma = warm_up - 2`.
    WarmUp {
        /// The number of steps that the start is worth, from 1; with 1 there is no warm-up.
        warm_up: f64,
        /// The largest decay, in `[0, 1]`.
        max_decay: f64,
    },

    /// A decay that grows by an inverse power `p`, between `min_decay` and `max_decay`; with
    /// `s = t - 1` it is 0 where `s = 0` (k-diffusion, timm, ema-pytorch, diffusers).
    ///
    /// ```math
    /// d_t = 1 - \left(1 + \frac{s}{\text{inv-gamma}}\right)^{-p}
    /// ```
    ///
    /// The first update replaces the start.
    InverseGamma {
        /// The number of steps after which the growth begins to slow, above 0; 1 is the default of
        /// the four libraries.
        inv_gamma: f64,
        /// The exponent, above 0: 2/3 for long trainings, 3/4 for shorter ones, 1 for nearly equal
        /// weights.
        power: f64,
        /// The smallest decay, in `[0, max_decay]`.
        min_decay: f64,
        /// The largest decay, in `[0, 1]`.
        max_decay: f64,
    },

    /// A decay that grows to its maximum, `d_t = min(max_decay, t / (gamma + t))` (mmengine).
    ///
    /// With `gamma = 1` it is the running mean of the start and all steps until the maximum
    /// (axlearn).
    Annealing {
        /// The number of steps that the start is worth, above 0; 100 in mmengine.
        gamma: f64,
        /// The largest decay, in `[0, 1]`.
        max_decay: f64,
    },

    /// A decay that approaches its limit exponentially, `d_t = decay (1 - exp(-t / tau))`, as in
    /// several object detectors.
    ExponentialRamp {
        /// The limit, in `[0, 1)`.
        decay: f64,
        /// The steps in which the distance from the limit falls to `1 / e`, above 0.
        tau: f64,
    },

    /// A half-life that grows with training, `h_t = min(max_half_life, fraction t)` steps and
    /// `d_t = 2^(-1 / h_t)` (the code of Karras et al. 2022, "EDM", with 0.05 and at most 500,000
    /// images; torchtitan with 0.05 and no maximum).
    HalfLifeRamp {
        /// The half-life as a share of the steps so far, above 0.
        fraction: f64,
        /// The longest half-life in steps, above 0; with `None` the half-life grows for ever.
        max_half_life: Option<f64>,
    },

    /// The power function, of relative width `sigma_rel`: step `s` has a weight proportional to
    /// `s^gamma` (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion
    /// Models", section 3.1).
    ///
    /// An update from `t_0` to `t_1` keeps
    ///
    /// ```math
    /// \beta = \left(\frac{t_0}{t_1}\right)^{\gamma + 1}, \qquad
    /// \sigma_{\text{rel}} = \sqrt{\frac{\gamma + 1}{(\gamma + 2)^2\,(\gamma + 3)}}
    /// ```
    ///
    /// Its width is always the same share of the training so far, and the start has no weight.
    PowerFunction {
        /// The standard deviation of the age as a share of the steps so far, in `(0, 1/sqrt(12)]`;
        /// 0.05 and 0.1 are usual.
        sigma_rel: f64,
    },

    /// [`PowerFunction`](Self::PowerFunction) given by its exponent.
    PowerFunctionGamma {
        /// The exponent, from 0; with 0 all steps weigh the same.
        gamma: f64,
    },

    /// The mean of the weights after all steps, without the start; one update keeps `t_0 / t_1`
    /// (as SWA of PyTorch; Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better
    /// Generalization", take one model a cycle).
    ///
    /// ```math
    /// a_t = \frac{(t - 1)\,a_{t-1} + w_t}{t}
    /// ```
    Equal,

    /// The mean of the last `snapshots` snapshots, one taken every `interval` steps
    /// (Kaddour 2022, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest
    /// Weight Averaging", LAWA).
    ///
    /// Until the first snapshot the average is the start.
    ///
    /// Weights before these snapshots have no share in the average, while a decay leaves them a
    /// small one. But a window keeps one copy of the weights per snapshot, while a decay of the
    /// same mean age keeps one in all.
    /// After 20,000 steps, by
    /// `cargo run --example profiles -- --rule "window(5 snapshots, 1000 steps)" --rule "ema(0.9995)"`
    /// (columns as in the table above, and the copies beside them):
    ///
    /// | rule | copies | mean | deviation | half-life | effective steps |
    /// |---|---|---|---|---|---|
    /// | `window(5 snapshots, 1000 steps)` | 5 | 0.900 | 0.071 | 2000 | 5.0 |
    /// | `ema(0.9995)` | 1 | 0.900 | 0.100 | 1386 | 3999 |
    ///
    /// Few snapshots average less noise away than all steps do, as the last column shows.
    Window {
        /// How many snapshots count, from 1; each is a copy of the weights.
        snapshots: u64,
        /// The steps between two snapshots, from 1.
        interval: u64,
    },

    /// A decay that follows half a cosine until `t = T` of `steps`, then `end`
    /// (the teachers of BYOL, Grill et al. 2020, and DINO, Caron et al. 2021).
    ///
    /// ```math
    /// d_t = d_{\text{end}} - (d_{\text{end}} - d_{\text{start}})\,
    /// \frac{\cos(\pi t / T) + 1}{2}
    /// ```
    Cosine {
        /// The decay before the first step, in `[0, 1]`; 0.996 in both papers.
        start: f64,
        /// The decay from step `steps` on, in `[0, 1]`; 1 in both papers.
        end: f64,
        /// The steps until the end, above 0.
        steps: f64,
    },

    /// A decay that grows evenly, `d_t = end - (end - start) (1 - t / steps)` until `t = steps`,
    /// then `end` (Baevski et al. 2022, "data2vec").
    Linear {
        /// The decay before the first step, in `[0, 1]`.
        start: f64,
        /// The decay from step `steps` on, in `[0, 1]`.
        end: f64,
        /// The steps until the end, above 0.
        steps: f64,
    },

    /// Bias-corrected averaging of a fine-tuning (Block and Zhang 2025, "EMA Without the Lag:
    /// Bias-Corrected Iterate Averaging Schemes", arXiv 2508.00180): an average `a` of decay `d`,
    /// and the output `o`.
    ///
    /// ```math
    /// d_t = 1 - (\rho + \gamma t)^{-\kappa}, \qquad
    /// o_t = a_t + (\rho + \gamma t)^{-\eta}\,(w_t - w_0)
    /// ```
    ///
    /// Where `a` is updated at each step of the optimizer it lags little, and the output goes beyond
    /// live: by up to 34 % of the way from the start at step 200, see
    /// [`Warning::Overshoot`](crate::average::Warning::Overshoot).
    /// TRL's `BEMACallback` updates every 400 steps by default and takes `d_t` once for all of them,
    /// so that `a` lags far behind, and the correction makes up for a part of that: here it is
    /// `gamma` 400 with [`Average::advance`](crate::Average::advance) every 400 steps.
    /// In general, its `update_freq` `n`, `update_after` `s`, `lag` and `multiplier` are
    /// `rho = lag + multiplier s` and `gamma = multiplier n`, its `bias_power` is `eta`, its
    /// `ema_power` is `kappa`, and the average is made of the weights after step `s` and advances
    /// every `n` steps from there.
    /// `min_ema_multiplier`, the least share of new weights, which is 0 by default, has no
    /// counterpart. Before its first update, the callback's output is the weights before step 1,
    /// and this average is those after step `s`.
    Bema {
        /// The lag, from 1; 10 by default.
        rho: f64,
        /// The factor of the step in both powers, from 0; 1 by default.
        gamma: f64,
        /// The exponent of the correction, from 0; 0.2 by default.
        eta: f64,
        /// The exponent of the decay, from 0; 0.5 by default.
        kappa: f64,
    },

    /// A target network that each update moves the share `tau` of the way to live, however many
    /// steps the update covers (the soft update of Lillicrap et al. 2015, "Continuous Control with
    /// Deep Reinforcement Learning", DDPG; so count TD3 and SAC too).
    ///
    /// ```math
    /// a \leftarrow (1 - \tau)\,a + \tau\,w \quad\text{per update}
    /// ```
    ///
    /// Updated at every step it is `ema(1 - tau)`.
    /// Updated every 4 steps, `target(tau=0.005)` takes the share 0.005 of live once in 4 steps and
    /// remembers 200 updates, 800 steps; `ema(0.995)` takes the share `1 - 0.995^4 = 0.0199` then,
    /// and remembers 200 steps as before.
    Target {
        /// The share of live in each update, in `(0, 1]`; 0.005 is usual.
        tau: f64,
    },

    /// A target network that is a copy of live, made anew every `every` steps and kept unchanged
    /// between (the hard update of Mnih et al. 2015, "Human-Level Control through Deep
    /// Reinforcement Learning", DQN).
    ///
    /// An update between two copies computes and copies nothing.
    /// The copy of `copy(every=1000)` is 0 to 999 steps old. `ema(0)` with an update every 1000
    /// steps has the same weights, and `target(tau=1)` too.
    /// Each copy is made by the first update at or after a multiple of `every` steps. One that was
    /// refused, since live held a NaN, is made by the next update.
    /// In an average that has other rules for single paths, what is no averaged parameter, such as
    /// the statistics of a batch norm, follows live at each update.
    Copy {
        /// The steps from one copy to the next, from 1.
        every: u64,
    },

    /// A rule of the program's own: a function that was [registered](Self::register) computes the
    /// decay of step `t`.
    Custom {
        /// The name that the function was registered under.
        name: String,
        /// Finite numbers that the function receives.
        parameters: Vec<f64>,
    },
}

impl Rule {
    /// [`Constant`](Self::Constant) from a copy of the first weights, the form that most libraries
    /// mean by "EMA".
    pub fn ema(decay: f64) -> Self {
        Self::Constant { decay, debias: false }
    }

    /// [`Constant`](Self::Constant) with bias correction: the start has no weight.
    pub fn debiased(decay: f64) -> Self {
        Self::Constant { decay, debias: true }
    }

    /// [`HalfLife`](Self::HalfLife) in steps.
    pub fn half_life(steps: f64) -> Self {
        Self::HalfLife { steps }
    }

    /// [`WarmUp`](Self::WarmUp) by 10 steps, as in TensorFlow and torch-ema.
    pub fn warm_up(max_decay: f64) -> Self {
        Self::WarmUp { warm_up: 10.0, max_decay }
    }

    /// [`InverseGamma`](Self::InverseGamma) with `inv_gamma = 1` and no smallest decay, as in the
    /// libraries named there.
    pub fn inverse_gamma(power: f64, max_decay: f64) -> Self {
        Self::InverseGamma { inv_gamma: 1.0, power, min_decay: 0.0, max_decay }
    }

    /// [`Annealing`](Self::Annealing) with `gamma = 100`, as in mmengine.
    pub fn annealing(max_decay: f64) -> Self {
        Self::Annealing { gamma: 100.0, max_decay }
    }

    /// [`ExponentialRamp`](Self::ExponentialRamp) with `tau = 2000`, its usual value.
    pub fn exponential_ramp(decay: f64) -> Self {
        Self::ExponentialRamp { decay, tau: 2000.0 }
    }

    /// [`HalfLifeRamp`](Self::HalfLifeRamp) without a maximum.
    pub fn half_life_ramp(fraction: f64) -> Self {
        Self::HalfLifeRamp { fraction, max_half_life: None }
    }

    /// [`PowerFunction`](Self::PowerFunction) of a relative width.
    pub fn power_function(sigma_rel: f64) -> Self {
        Self::PowerFunction { sigma_rel }
    }

    /// [`Window`](Self::Window): the mean of the last `snapshots` snapshots, every `interval`
    /// steps.
    pub fn lawa(snapshots: u64, interval: u64) -> Self {
        Self::Window { snapshots, interval }
    }

    /// [`Cosine`](Self::Cosine) from 0.996 to 1, as in BYOL and DINO.
    pub fn cosine(steps: f64) -> Self {
        Self::Cosine { start: 0.996, end: 1.0, steps }
    }

    /// [`Bema`](Self::Bema) with the numbers of its paper.
    pub fn bema() -> Self {
        Self::Bema { rho: 10.0, gamma: 1.0, eta: 0.2, kappa: 0.5 }
    }

    /// [`Target`](Self::Target): each update takes the share `tau` of live.
    pub fn target(tau: f64) -> Self {
        Self::Target { tau }
    }

    /// [`Copy`](Self::Copy): a copy of live every `every` steps.
    pub fn copy(every: u64) -> Self {
        Self::Copy { every }
    }

    /// Adds a rule to this process, under the name that [`Custom`](Self::Custom) then takes.
    ///
    /// The function receives the parameters of the rule and a step, counted from 1 at the start of
    /// the average, and returns the decay of that step, in `[0, 1]`.
    /// An update that covers several steps calls the function for each of them, from the newest to
    /// the oldest, so its result must depend on nothing else.
    /// The function must not use an `Averaged`: its update holds a lock while the function runs.
    ///
    /// ```
    /// use burn_ema::Rule;
    ///
    /// Rule::register("square-root", |parameters, step| {
    ///     let slowness = parameters.first().copied().unwrap_or(1.0);
    ///     1.0 - 1.0 / (1.0 + step / slowness).sqrt()
    /// })?;
    /// let rule: Rule = "square-root(100)".parse()?;
    /// # let _ = rule;
    /// # Ok::<_, burn_ema::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A name that does not start with a lower-case letter or has other characters than lower-case
    /// letters, digits, `-` and `_`; the name of a built-in rule; a name that is already
    /// registered.
    pub fn register(
        name: &str,
        decay: impl Fn(&[f64], f64) -> f64 + Send + Sync + 'static,
    ) -> Result<()> {
        custom::register(name, form::is_built_in, decay)
    }

    /// The exponent of the [power function](Self::PowerFunction) of a relative width.
    ///
    /// ```
    /// let gamma = burn_ema::Rule::gamma_of(0.1)?;
    /// assert!((gamma - 6.9372).abs() < 1e-4);
    /// # Ok::<_, burn_ema::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A width outside `(0, 1/sqrt(12)]`.
    pub fn gamma_of(sigma_rel: f64) -> Result<f64> {
        Self::PowerFunction { sigma_rel }.check()?;
        Ok(power::gamma_of(sigma_rel))
    }

    /// The relative width of the [power function](Self::PowerFunction) of an exponent.
    ///
    /// # Errors
    ///
    /// An exponent below 0 or not finite.
    pub fn sigma_rel_of(gamma: f64) -> Result<f64> {
        Self::PowerFunctionGamma { gamma }.check()?;
        Ok(power::sigma_rel_of(gamma))
    }

    /// Checks the ranges.
    pub(crate) fn check(&self) -> Result<()> {
        match *self {
            Self::Constant { decay, .. } => below_one("decay", decay),
            Self::HalfLife { steps } => above_zero("the half-life in steps", steps),
            Self::HalfLifeSamples { samples } => above_zero("the half-life in samples", samples),
            Self::HalfLifeEpochs { epochs } => above_zero("the half-life in epochs", epochs),
            Self::WarmUp { warm_up, max_decay } => {
                at_least(1, "warm_up", warm_up)?;
                up_to_one("max_decay", max_decay)
            }
            Self::InverseGamma { inv_gamma, power, min_decay, max_decay } => {
                above_zero("inv_gamma", inv_gamma)?;
                above_zero("power", power)?;
                up_to_one("max_decay", max_decay)?;
                let expected = format!("a number in [0, {max_decay}], at most max_decay");
                within((0.0..=max_decay).contains(&min_decay), "min_decay", expected, min_decay)
            }
            Self::Annealing { gamma, max_decay } => {
                above_zero("gamma", gamma)?;
                up_to_one("max_decay", max_decay)
            }
            Self::ExponentialRamp { decay, tau } => {
                below_one("decay", decay)?;
                above_zero("tau", tau)
            }
            Self::HalfLifeRamp { fraction, max_half_life } => {
                above_zero("fraction", fraction)?;
                max_half_life.map_or(Ok(()), |steps| above_zero("max_half_life", steps))
            }
            Self::PowerFunction { sigma_rel } => {
                let inside = sigma_rel > 0.0 && sigma_rel <= power::WIDEST;
                within(inside, "sigma_rel", "a number in (0, 1/sqrt(12)]", sigma_rel)
            }
            Self::PowerFunctionGamma { gamma } => at_least(0, "gamma", gamma),
            Self::Equal => Ok(()),
            Self::Window { snapshots, interval } => {
                let whole = "a whole number from 1";
                within(snapshots > 0, "snapshots", whole, snapshots)?;
                within(interval > 0, "interval", whole, interval)
            }
            Self::Cosine { start, end, steps } | Self::Linear { start, end, steps } => {
                up_to_one("start", start)?;
                up_to_one("end", end)?;
                above_zero("steps", steps)
            }
            Self::Bema { rho, gamma, eta, kappa } => {
                at_least(1, "rho", rho)?;
                at_least(0, "gamma", gamma)?;
                at_least(0, "eta", eta)?;
                at_least(0, "kappa", kappa)
            }
            Self::Target { tau } => {
                within(tau > 0.0 && tau <= 1.0, "tau", "a number in (0, 1]", tau)
            }
            Self::Copy { every } => within(every > 0, "every", "a whole number from 1", every),
            Self::Custom { ref name, ref parameters } => {
                custom::function(name)?;
                for (position, &parameter) in (1..).zip(parameters) {
                    let what = format!("parameter {position} of the rule {name}");
                    within(parameter.is_finite(), &what, "a finite number", parameter)?;
                }
                Ok(())
            }
        }
    }

    /// This rule with its times converted to steps, the unit in which averages use it.
    pub(crate) fn in_steps(
        &self,
        samples_per_step: Option<f64>,
        steps_per_epoch: Option<f64>,
    ) -> Result<Self> {
        let needed = |what: &str, value: Option<f64>, counted: &str| {
            let expected =
                format!("a finite number above 0, since the rule {self} counts {counted}");
            match value {
                Some(value) if value > 0.0 && value.is_finite() => Ok(value),
                Some(value) => Err(Error::value(what, expected, value)),
                None => Err(Error::value(what, expected, "not set")),
            }
        };
        let steps = match *self {
            Self::HalfLifeSamples { samples } => {
                samples / needed("samples_per_step", samples_per_step, "samples")?
            }
            Self::HalfLifeEpochs { epochs } => {
                epochs * needed("steps_per_epoch", steps_per_epoch, "epochs")?
            }
            _ => return Ok(self.clone()),
        };
        let rule = Self::HalfLife { steps };
        rule.check()?;
        Ok(rule)
    }

    /// True if the rule's times are in samples.
    pub(crate) fn counts_samples(&self) -> bool {
        matches!(self, Self::HalfLifeSamples { .. })
    }

    /// True if the rule's times are in epochs.
    pub(crate) fn counts_epochs(&self) -> bool {
        matches!(self, Self::HalfLifeEpochs { .. })
    }

    /// The mass of an average that has seen no step: the raw weight of its start.
    pub(crate) fn initial_mass(&self) -> f64 {
        match self {
            Self::Constant { debias: true, .. } => 0.0,
            _ => 1.0,
        }
    }

    /// How many snapshots a window holds, and the steps between two; `None` for other rules.
    pub(crate) fn window(&self) -> Option<(u64, u64)> {
        match *self {
            Self::Window { snapshots, interval } => Some((snapshots, interval)),
            _ => None,
        }
    }

    /// How many snapshots of a window fall into the steps from `from`, not included, to `to`; 0 for
    /// other rules.
    pub(crate) fn snapshots_due(&self, from: f64, to: f64) -> u64 {
        let Some((_, interval)) = self.window() else { return 0 };
        taken(interval, to).saturating_sub(taken(interval, from))
    }

    /// True if the average is a target network, from which live's loss bootstraps.
    pub(crate) fn is_target(&self) -> bool {
        matches!(self, Self::Target { .. } | Self::Copy { .. })
    }

    /// The factor of `live - start` that the output of [`Bema`](Self::Bema) adds to the average
    /// at time `t`; `None` for other rules.
    pub(crate) fn correction(&self, t: f64) -> Option<f64> {
        match *self {
            Self::Bema { rho, gamma, eta, .. } => Some((rho + gamma * t).powf(-eta)),
            _ => None,
        }
    }
}

/// One step of `a <- a + alpha (w - a)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Update {
    /// The share of the new weights, in `[0, 1]`; 1 replaces the average.
    pub alpha: f64,
    /// The mass after the update, in `[0, 1]`.
    pub mass: f64,
}

/// How many snapshots are taken until a time.
fn taken(interval: u64, time: f64) -> u64 {
    (time / interval as f64).floor() as u64
}

fn within(
    inside: bool,
    what: &str,
    expected: impl Into<String>,
    found: impl ToString,
) -> Result<()> {
    if inside { Ok(()) } else { Err(Error::value(what, expected, found)) }
}

fn below_one(what: &str, value: f64) -> Result<()> {
    within((0.0..1.0).contains(&value), what, "a number in [0, 1)", value)
}

fn up_to_one(what: &str, value: f64) -> Result<()> {
    within((0.0..=1.0).contains(&value), what, "a number in [0, 1]", value)
}

fn above_zero(what: &str, value: f64) -> Result<()> {
    within(value > 0.0 && value.is_finite(), what, "a finite number above 0", value)
}

fn at_least(least: u32, what: &str, value: f64) -> Result<()> {
    let inside = value >= f64::from(least) && value.is_finite();
    within(inside, what, format!("a finite number from {least}"), value)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Once;

    use proptest::prelude::*;

    use super::*;

    /// Rules of every variant, in their ranges.
    pub(crate) fn any_rule() -> impl Strategy<Value = Rule> {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| {
            Rule::register("any-rule", |parameters, step| {
                let sum: f64 = parameters.iter().sum();
                1.0 - 1.0 / (1.0 + sum.abs() + step)
            })
            .unwrap();
        });
        let share = || prop_oneof![Just(0.0), Just(1.0), 0.0..1.0, 0.9..1.0];
        let steps = || prop_oneof![Just(1.0), 1e-3..1.0, 1.0..1e6];
        let decay = || prop_oneof![Just(0.0), 0.0..1.0, 0.99..1.0];
        let constant = (decay(), any::<bool>());
        let inverse = (steps(), 0.1..3.0, share(), share());
        let custom = prop::collection::vec(-1e3..1e3, 0..4);
        prop_oneof![
            constant.prop_map(|(decay, debias)| Rule::Constant { decay, debias }),
            steps().prop_map(|steps| Rule::HalfLife { steps }),
            (1.0..1e3, share())
                .prop_map(|(warm_up, max_decay)| Rule::WarmUp { warm_up, max_decay }),
            inverse.prop_map(|(inv_gamma, power, min, max)| Rule::InverseGamma {
                inv_gamma,
                power,
                min_decay: f64::min(min, max),
                max_decay: f64::max(min, max),
            }),
            (steps(), share()).prop_map(|(gamma, max_decay)| Rule::Annealing { gamma, max_decay }),
            (decay(), steps()).prop_map(|(decay, tau)| Rule::ExponentialRamp { decay, tau }),
            (1e-3..2.0, prop::option::of(steps())).prop_map(|(fraction, max_half_life)| {
                Rule::HalfLifeRamp { fraction, max_half_life }
            }),
            (1e-3..power::WIDEST).prop_map(|sigma_rel| Rule::PowerFunction { sigma_rel }),
            (0.0..100.0).prop_map(|gamma| Rule::PowerFunctionGamma { gamma }),
            Just(Rule::Equal),
            (1_u64..9, 1_u64..30)
                .prop_map(|(snapshots, interval)| Rule::Window { snapshots, interval }),
            (share(), share(), steps()).prop_map(|(start, end, steps)| Rule::Cosine {
                start,
                end,
                steps
            }),
            (share(), share(), steps()).prop_map(|(start, end, steps)| Rule::Linear {
                start,
                end,
                steps
            }),
            (1.0..50.0, 0.0..5.0, 0.0..2.0, 0.0..2.0)
                .prop_map(|(rho, gamma, eta, kappa)| Rule::Bema { rho, gamma, eta, kappa }),
            prop_oneof![Just(1.0), 1e-3..1.0].prop_map(Rule::target),
            (1_u64..30).prop_map(Rule::copy),
            custom.prop_map(|parameters| Rule::Custom { name: "any-rule".into(), parameters }),
        ]
    }

    const NOT_FINITE: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

    /// Checks that a setting takes some values and names each of the others.
    #[track_caller]
    fn assert_range(
        setting: &str,
        expected: &str,
        rule: impl Fn(f64) -> Rule,
        good: &[f64],
        bad: &[f64],
    ) {
        for &value in good {
            rule(value).check().unwrap();
        }
        for &value in bad.iter().chain(&NOT_FINITE) {
            let error = rule(value).check().unwrap_err().to_string();
            assert_eq!(error, format!("{setting} is {value}, expected {expected}"));
        }
    }

    #[test]
    fn every_setting_has_its_range() {
        let (low, high) = (-f64::MIN_POSITIVE, 1.0 + f64::EPSILON);
        let decays: (&[f64], &[f64]) = (&[0.0, 0.5, 1.0 - f64::EPSILON], &[low, 1.0, 2.0]);
        let shares: (&[f64], &[f64]) = (&[0.0, 0.5, 1.0], &[low, high, -1.0]);
        let above_zero: (&[f64], &[f64]) = (&[f64::MIN_POSITIVE, 0.5, 1e300], &[0.0, low, -1.0]);
        let from_zero: (&[f64], &[f64]) = (&[0.0, 0.5, 1e300], &[low, -1.0]);
        let from_one: (&[f64], &[f64]) = (&[1.0, 1.5, 1e300], &[1.0 - f64::EPSILON, 0.0, -1.0]);

        let decay = |name: &str, rule: &dyn Fn(f64) -> Rule| {
            assert_range(name, "a number in [0, 1)", rule, decays.0, decays.1);
        };
        let share = |name: &str, rule: &dyn Fn(f64) -> Rule| {
            assert_range(name, "a number in [0, 1]", rule, shares.0, shares.1);
        };
        let positive = |name: &str, rule: &dyn Fn(f64) -> Rule| {
            assert_range(name, "a finite number above 0", rule, above_zero.0, above_zero.1);
        };
        let zero_up = |name: &str, rule: &dyn Fn(f64) -> Rule| {
            assert_range(name, "a finite number from 0", rule, from_zero.0, from_zero.1);
        };
        let one_up = |name: &str, rule: &dyn Fn(f64) -> Rule| {
            assert_range(name, "a finite number from 1", rule, from_one.0, from_one.1);
        };

        decay("decay", &Rule::ema);
        decay("decay", &Rule::debiased);
        positive("the half-life in steps", &Rule::half_life);
        positive("the half-life in samples", &|samples| Rule::HalfLifeSamples { samples });
        positive("the half-life in epochs", &|epochs| Rule::HalfLifeEpochs { epochs });
        one_up("warm_up", &|warm_up| Rule::WarmUp { warm_up, max_decay: 0.9 });
        share("max_decay", &Rule::warm_up);
        let inverse = |inv_gamma, power, min_decay, max_decay| Rule::InverseGamma {
            inv_gamma,
            power,
            min_decay,
            max_decay,
        };
        positive("inv_gamma", &|value| inverse(value, 1.0, 0.0, 1.0));
        positive("power", &|value| inverse(1.0, value, 0.0, 1.0));
        share("max_decay", &|value| inverse(1.0, 1.0, 0.0, value));
        let expected = "a number in [0, 0.5], at most max_decay";
        let min_decay = |value| inverse(1.0, 1.0, value, 0.5);
        assert_range("min_decay", expected, min_decay, &[0.0, 0.5], &[low, 0.6]);
        positive("gamma", &|gamma| Rule::Annealing { gamma, max_decay: 0.9 });
        share("max_decay", &Rule::annealing);
        decay("decay", &Rule::exponential_ramp);
        positive("tau", &|tau| Rule::ExponentialRamp { decay: 0.9, tau });
        positive("fraction", &Rule::half_life_ramp);
        positive("max_half_life", &|steps| Rule::HalfLifeRamp {
            fraction: 0.1,
            max_half_life: Some(steps),
        });
        let widths = [5e-324, 0.05, power::WIDEST];
        let expected = "a number in (0, 1/sqrt(12)]";
        assert_range("sigma_rel", expected, Rule::power_function, &widths, &[0.0, -0.1, 0.2887]);
        zero_up("gamma", &|gamma| Rule::PowerFunctionGamma { gamma });
        share("start", &|start| Rule::Cosine { start, end: 0.9, steps: 9.0 });
        share("end", &|end| Rule::Cosine { start: 0.9, end, steps: 9.0 });
        positive("steps", &Rule::cosine);
        share("start", &|start| Rule::Linear { start, end: 0.9, steps: 9.0 });
        share("end", &|end| Rule::Linear { start: 0.9, end, steps: 9.0 });
        positive("steps", &|steps| Rule::Linear { start: 0.5, end: 0.9, steps });
        let bema = |rho, gamma, eta, kappa| Rule::Bema { rho, gamma, eta, kappa };
        one_up("rho", &|value| bema(value, 1.0, 0.2, 0.5));
        zero_up("gamma", &|value| bema(10.0, value, 0.2, 0.5));
        zero_up("eta", &|value| bema(10.0, 1.0, value, 0.5));
        zero_up("kappa", &|value| bema(10.0, 1.0, 0.2, value));
        let taus = [f64::MIN_POSITIVE, 0.005, 1.0];
        assert_range("tau", "a number in (0, 1]", Rule::target, &taus, &[0.0, low, high]);

        Rule::lawa(1, 1).check().unwrap();
        let whole = "expected a whole number from 1";
        let error = Rule::lawa(0, 1).check().unwrap_err().to_string();
        assert_eq!(error, format!("snapshots is 0, {whole}"));
        let error = Rule::lawa(1, 0).check().unwrap_err().to_string();
        assert_eq!(error, format!("interval is 0, {whole}"));
        Rule::copy(1).check().unwrap();
        let error = Rule::copy(0).check().unwrap_err().to_string();
        assert_eq!(error, format!("every is 0, {whole}"));
    }

    #[test]
    fn the_short_constructors_have_the_published_numbers_and_are_in_range() {
        let forms = [
            (Rule::ema(0.999), "ema(0.999)"),
            (Rule::debiased(0.999), "ema(0.999, debias)"),
            (Rule::half_life(500.0), "half-life(500 steps)"),
            (Rule::warm_up(0.9999), "warm-up(10, max=0.9999)"),
            (Rule::inverse_gamma(0.75, 0.9999), "inverse-gamma(1, power=0.75, max=0.9999)"),
            (Rule::annealing(0.9998), "annealing(100, max=0.9998)"),
            (Rule::exponential_ramp(0.9999), "exp-ramp(0.9999, tau=2000)"),
            (Rule::half_life_ramp(0.05), "half-life-ramp(0.05)"),
            (Rule::power_function(0.05), "power(sigma_rel=0.05)"),
            (Rule::lawa(5, 100), "window(5 snapshots, 100 steps)"),
            (Rule::cosine(10_000.0), "cosine(0.996, end=1, steps=10000)"),
            (Rule::bema(), "bema(rho=10, gamma=1, eta=0.2, kappa=0.5)"),
            (Rule::target(0.005), "target(tau=0.005)"),
            (Rule::copy(1000), "copy(every=1000)"),
        ];
        for (rule, form) in forms {
            rule.check().unwrap();
            assert_eq!(rule.to_string(), form);
        }
    }

    #[test]
    fn half_lives_in_samples_and_epochs_become_steps() {
        let samples = Rule::HalfLifeSamples { samples: 64_000.0 };
        let epochs = Rule::HalfLifeEpochs { epochs: 2.0 };
        assert_eq!(samples.in_steps(Some(128.0), None).unwrap(), Rule::half_life(500.0));
        assert_eq!(epochs.in_steps(None, Some(12.5)).unwrap(), Rule::half_life(25.0));
        for rule in [Rule::Equal, Rule::half_life(3.0), Rule::bema()] {
            assert_eq!(rule.in_steps(None, None).unwrap(), rule);
        }
    }

    #[test]
    fn a_number_that_the_steps_need_is_asked_for_by_name() {
        let samples = Rule::HalfLifeSamples { samples: 64_000.0 };
        let epochs = Rule::HalfLifeEpochs { epochs: 2.0 };
        let missing = |result: Result<Rule>| result.unwrap_err().to_string();
        let expected = "samples_per_step is not set, expected a finite number above 0, \
                        since the rule half-life(64000 samples) counts samples";
        assert_eq!(missing(samples.in_steps(None, Some(1.0))), expected);
        let expected = "steps_per_epoch is not set, expected a finite number above 0, \
                        since the rule half-life(2 epochs) counts epochs";
        assert_eq!(missing(epochs.in_steps(Some(1.0), None)), expected);
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = missing(samples.in_steps(Some(value), None));
            assert!(error.starts_with(&format!("samples_per_step is {value}, expected")));
            let error = missing(epochs.in_steps(None, Some(value)));
            assert!(error.starts_with(&format!("steps_per_epoch is {value}, expected")));
        }
        let error = missing(samples.in_steps(Some(1e-305), None));
        assert!(error.starts_with("the half-life in steps is inf"), "{error}");
    }

    #[test]
    fn the_start_has_a_mass_unless_it_is_corrected() {
        assert_eq!(Rule::debiased(0.9).initial_mass(), 0.0);
        for rule in [Rule::ema(0.9), Rule::Equal, Rule::bema(), Rule::lawa(2, 3)] {
            assert_eq!(rule.initial_mass(), 1.0);
        }
    }

    #[test]
    fn a_snapshot_is_due_at_every_multiple_of_the_interval() {
        let rule = Rule::lawa(5, 10);
        assert_eq!(rule.window(), Some((5, 10)));
        assert_eq!(Rule::Equal.window(), None);
        let due = [(0.0, 9.0, 0), (0.0, 10.0, 1), (9.0, 10.0, 1), (10.0, 19.9, 0), (9.9, 40.1, 4)];
        for (from, to, number) in due {
            assert_eq!(rule.snapshots_due(from, to), number, "{from} to {to}");
        }
        assert_eq!(Rule::Equal.snapshots_due(0.0, 100.0), 0);
    }

    #[test]
    fn width_and_exponent_are_refused_outside_their_range() {
        assert_eq!(Rule::gamma_of(Rule::sigma_rel_of(0.0).unwrap()).unwrap(), 0.0);
        let error = Rule::gamma_of(0.3).unwrap_err().to_string();
        assert_eq!(error, "sigma_rel is 0.3, expected a number in (0, 1/sqrt(12)]");
        let error = Rule::sigma_rel_of(-1.0).unwrap_err().to_string();
        assert_eq!(error, "gamma is -1, expected a finite number from 0");
    }

    proptest! {
        #[test]
        fn a_rule_is_the_same_after_json(rule in any_rule()) {
            let json = serde_json::to_string(&rule).unwrap();
            prop_assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule);
        }
    }
}

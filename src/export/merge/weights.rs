//! The weight of each file in a merge.

use std::{f64::consts::PI, fmt};

use crate::{AverageConfig, Error, Result, Rule};

/// The weights of the files of a merge, which sum to 1.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Weights {
    /// The same weight for each file (the uniform soup of Wortsman et al. 2022, "Model soups:
    /// averaging weights of multiple fine-tuned models improves accuracy without increasing
    /// inference time").
    Equal,
    /// These weights, in the order of the files; they may be negative.
    Given(Vec<f64>),
    /// The weights that an average by this rule would give the files, if each were live after one
    /// step, in their order.
    ///
    /// The first file is the start of the average, or the first step for a rule that gives its start
    /// no weight, such as `ema(0.9, debias)`. A file at whose step the rule makes no update, such as
    /// the third by `copy(every=2)`, has the weight 0.
    Rule(Rule),
    /// Weights that have the effect of a learning rate which decays over the files (Tian et al.
    /// 2025, "WSM: Decay-Free Learning Rate Schedule via Checkpoint Merging for LLM Pre-training",
    /// arXiv 2507.17634).
    ///
    /// The files are checkpoints of one training at a constant learning rate, at equal distances,
    /// oldest first. With the decay `f` from `f(0) = 1` to `f(1) = 0`, file `j` of `n`, counted from
    /// 0, has the weight `f(j / n) - f((j + 1) / n)`, so that the steps from file `j - 1` to file `j`
    /// count `f(j / n)` times.
    Decay(Decay),
    /// Task arithmetic (Ilharco et al. 2023, "Editing Models with Task Arithmetic"): the first file
    /// is the base, to which `scale` times the sum of the differences `file - base` is added. Each of
    /// the `n` other files so has the weight `scale`, and the base has `1 - n scale`.
    TaskArithmetic {
        /// The factor of each difference, such as 0.3; a negative one takes a task away.
        scale: f64,
    },
}

/// The course of a learning rate that decays from 1 to 0 while `x` goes from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// `1 - sqrt(x)`.
    Sqrt,
    /// `1 - x`, whose weights are equal.
    Linear,
    /// `(1 + cos(pi x)) / 2`.
    Cosine,
}

/// By how much a sum of weights may differ from 1, as a share of the sum of their magnitudes.
const TOLERANCE: f64 = 1e-12;

/// By how much a sum of weights may differ from 1, whatever their magnitudes.
const MOST: f64 = 5e-7;

impl Weights {
    /// The weight of each of so many files.
    ///
    /// # Errors
    ///
    /// Another number of weights than of files; a weight that is no finite number; a sum that
    /// differs from 1 by more than 1e-12 of the sum of the magnitudes, or by more than 5e-7; a rule
    /// that needs more than steps, such as samples, or whose numbers are out of range.
    pub fn of(&self, files: usize) -> Result<Vec<f64>> {
        let count = files as f64;
        let weights = match self {
            Self::Equal => vec![1.0 / count; files],
            Self::Given(weights) => weights.clone(),
            Self::Rule(rule) => of_rule(rule, files)?,
            Self::Decay(decay) => {
                let at = |index: usize| decay.at(index as f64 / count);
                (0..files).map(|index| at(index) - at(index + 1)).collect()
            }
            Self::TaskArithmetic { scale } => {
                let base = 1.0 - (count - 1.0) * scale;
                (0..files).map(|index| if index == 0 { base } else { *scale }).collect()
            }
        };
        checked(weights, files)
    }
}

fn checked(weights: Vec<f64>, files: usize) -> Result<Vec<f64>> {
    if weights.len() != files {
        let expected = format!("{files}, one for each file");
        return Err(Error::value("the number of weights of a merge", expected, weights.len()));
    }
    if let Some(index) = weights.iter().position(|weight| !weight.is_finite()) {
        let what = format!("weight {} of a merge", index + 1);
        return Err(Error::value(what, "a finite number", weights[index]));
    }
    let sum: f64 = weights.iter().sum();
    let magnitude: f64 = weights.iter().map(|weight| weight.abs()).sum();
    if files > 0 && (sum - 1.0).abs() > (TOLERANCE * magnitude.max(1.0)).min(MOST) {
        let shares: Vec<_> = weights.iter().map(|weight| rounded(weight / sum, 15)).collect();
        let found = match shares.len() {
            2..=8 if sum.abs() > TOLERANCE => {
                let shares = shares.join(", ");
                format!("{} (divided by it, the weights are {shares})", rounded(sum, 12))
            }
            _ => rounded(sum, 12),
        };
        return Err(Error::value("the sum of the weights of a merge", "1", found));
    }
    Ok(weights)
}

/// A number with at most so many digits after its point, without the last bits of a sum.
fn rounded(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "-0" => "0".to_owned(),
        text => text.to_owned(),
    }
}

/// The weights of the files, of which each is live after one step; a rule that gives its start a
/// weight starts from the first file.
fn of_rule(rule: &Rule, files: usize) -> Result<Vec<f64>> {
    let config = AverageConfig::new(rule.clone());
    let mut profile = config.profile_after(files as u64)?;
    let (mut start, mut first) = (None, 1);
    if profile.mass_on_start() != 0.0 {
        profile = config.profile_after(files.saturating_sub(1) as u64)?;
        (start, first) = (Some((0.0, profile.mass_on_start())), 0);
    }
    let mut weights = vec![0.0; files];
    for (step, weight) in start.into_iter().chain(profile.weights().iter().copied()) {
        if let Some(place) = weights.get_mut(step as usize - first) {
            *place = weight;
        }
    }
    Ok(weights)
}

impl Decay {
    fn at(self, x: f64) -> f64 {
        match self {
            // The last value is 0, which a cosine rounds past.
            _ if x >= 1.0 => 0.0,
            Self::Sqrt => 1.0 - x.sqrt(),
            Self::Linear => 1.0 - x,
            Self::Cosine => (1.0 + (PI * x).cos()) / 2.0,
        }
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => write!(f, "equal weights"),
            Self::Given(_) => write!(f, "given weights"),
            Self::Rule(rule) => write!(f, "weights of {rule}"),
            Self::Decay(decay) => write!(f, "weights of the decay {decay}"),
            Self::TaskArithmetic { scale } => {
                write!(f, "task arithmetic around the first, scale {scale}")
            }
        }
    }
}

impl fmt::Display for Decay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqrt => "1-sqrt",
            Self::Linear => "linear",
            Self::Cosine => "cosine",
        })
    }
}

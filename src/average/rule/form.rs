//! Prints rules, and parses rules from their printed form.

use std::{fmt, str::FromStr};

use super::{Rule, custom};
use crate::{Error, Result};

/// How a built-in rule is written.
struct Notation {
    name: &'static str,
    /// An example of the notation, for error messages.
    example: &'static str,
    /// In the order of their positions.
    arguments: &'static [Argument],
}

struct Argument {
    key: &'static str,
    /// The unit that may stand behind the value.
    unit: Option<&'static str>,
}

const fn plain(key: &'static str) -> Argument {
    Argument { key, unit: None }
}

const fn counted(key: &'static str, unit: &'static str) -> Argument {
    Argument { key, unit: Some(unit) }
}

const FORMS: [Notation; 15] = [
    Notation {
        name: "ema",
        example: "`ema(0.999)` or `ema(0.999, debias)`",
        arguments: &[plain("decay"), plain("debias")],
    },
    Notation {
        name: "half-life",
        example: "`half-life(500 steps)`, `half-life(64000 samples)` or `half-life(2 epochs)`",
        arguments: &[
            counted("steps", "steps"),
            counted("samples", "samples"),
            counted("epochs", "epochs"),
        ],
    },
    Notation {
        name: "warm-up",
        example: "`warm-up(10, max=0.9999)`",
        arguments: &[plain("warm_up"), plain("max")],
    },
    Notation {
        name: "inverse-gamma",
        example: "`inverse-gamma(1, power=0.75, max=0.9999)` or \
                  `inverse-gamma(1, power=0.75, max=0.9999, min=0.5)`",
        arguments: &[plain("inv_gamma"), plain("power"), plain("max"), plain("min")],
    },
    Notation {
        name: "annealing",
        example: "`annealing(100, max=0.9998)`",
        arguments: &[plain("gamma"), plain("max")],
    },
    Notation {
        name: "exp-ramp",
        example: "`exp-ramp(0.9999, tau=2000)`",
        arguments: &[plain("decay"), counted("tau", "steps")],
    },
    Notation {
        name: "half-life-ramp",
        example: "`half-life-ramp(0.05)` or `half-life-ramp(0.09, max=500000 steps)`",
        arguments: &[plain("fraction"), counted("max", "steps")],
    },
    Notation {
        name: "power",
        example: "`power(sigma_rel=0.05)` or `power(gamma=6.94)`",
        arguments: &[plain("sigma_rel"), plain("gamma")],
    },
    Notation { name: "equal", example: "`equal`", arguments: &[] },
    Notation {
        name: "window",
        example: "`window(5 snapshots, 100 steps)`",
        arguments: &[counted("snapshots", "snapshots"), counted("interval", "steps")],
    },
    Notation {
        name: "cosine",
        example: "`cosine(0.996, end=1, steps=10000)`",
        arguments: &[plain("start"), plain("end"), counted("steps", "steps")],
    },
    Notation {
        name: "linear",
        example: "`linear(0.999, end=0.9999, steps=30000)`",
        arguments: &[plain("start"), plain("end"), counted("steps", "steps")],
    },
    Notation {
        name: "bema",
        example: "`bema(rho=10, gamma=1, eta=0.2, kappa=0.5)`",
        arguments: &[plain("rho"), plain("gamma"), plain("eta"), plain("kappa")],
    },
    Notation { name: "target", example: "`target(tau=0.005)`", arguments: &[plain("tau")] },
    Notation {
        name: "copy",
        example: "`copy(every=1000)`",
        arguments: &[counted("every", "steps")],
    },
];

/// True if a built-in rule has this name.
pub(super) fn is_built_in(name: &str) -> bool {
    FORMS.iter().any(|form| form.name == name)
}

/// One line from which the same rule parses.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant { decay, debias: false } => write!(f, "ema({decay})"),
            Self::Constant { decay, debias: true } => write!(f, "ema({decay}, debias)"),
            Self::HalfLife { steps } => write!(f, "half-life({steps} steps)"),
            Self::HalfLifeSamples { samples } => write!(f, "half-life({samples} samples)"),
            Self::HalfLifeEpochs { epochs } => write!(f, "half-life({epochs} epochs)"),
            Self::WarmUp { warm_up, max_decay } => write!(f, "warm-up({warm_up}, max={max_decay})"),
            Self::InverseGamma { inv_gamma, power, min_decay, max_decay } => {
                write!(f, "inverse-gamma({inv_gamma}, power={power}, max={max_decay}")?;
                if *min_decay != 0.0 {
                    write!(f, ", min={min_decay}")?;
                }
                f.write_str(")")
            }
            Self::Annealing { gamma, max_decay } => {
                write!(f, "annealing({gamma}, max={max_decay})")
            }
            Self::ExponentialRamp { decay, tau } => write!(f, "exp-ramp({decay}, tau={tau})"),
            Self::HalfLifeRamp { fraction, max_half_life: None } => {
                write!(f, "half-life-ramp({fraction})")
            }
            Self::HalfLifeRamp { fraction, max_half_life: Some(steps) } => {
                write!(f, "half-life-ramp({fraction}, max={steps} steps)")
            }
            Self::PowerFunction { sigma_rel } => write!(f, "power(sigma_rel={sigma_rel})"),
            Self::PowerFunctionGamma { gamma } => write!(f, "power(gamma={gamma})"),
            Self::Equal => f.write_str("equal"),
            Self::Window { snapshots, interval } => {
                write!(f, "window({snapshots} snapshots, {interval} steps)")
            }
            Self::Cosine { start, end, steps } => {
                write!(f, "cosine({start}, end={end}, steps={steps})")
            }
            Self::Linear { start, end, steps } => {
                write!(f, "linear({start}, end={end}, steps={steps})")
            }
            Self::Bema { rho, gamma, eta, kappa } => {
                write!(f, "bema(rho={rho}, gamma={gamma}, eta={eta}, kappa={kappa})")
            }
            Self::Target { tau } => write!(f, "target(tau={tau})"),
            Self::Copy { every } => write!(f, "copy(every={every})"),
            Self::Custom { name, parameters } => {
                f.write_str(name)?;
                for (index, parameter) in parameters.iter().enumerate() {
                    write!(f, "{}{parameter}", if index == 0 { "(" } else { ", " })?;
                }
                if parameters.is_empty() { Ok(()) } else { f.write_str(")") }
            }
        }
    }
}

/// The rule of a printed form, with its ranges checked.
impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, arguments) = split(text)?;
        let rule = match FORMS.iter().find(|form| form.name == name) {
            Some(form) => Given::new(text, form, &arguments)?.rule()?,
            None if custom::find(&name).is_some() => registered(text, name, &arguments)?,
            None => return Err(unknown(text)),
        };
        rule.check()?;
        Ok(rule)
    }
}

/// The name in lower case, and the arguments.
fn split(text: &str) -> Result<(String, Vec<&str>)> {
    let malformed = || refuse(text, "a name with arguments in parentheses, such as `ema(0.999)`");
    let (name, arguments) = match text.trim().split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')').ok_or_else(malformed)?.trim()),
        None => (text, ""),
    };
    let name = name.trim().to_ascii_lowercase();
    if name.is_empty() || arguments.contains(['(', ')']) {
        return Err(malformed());
    }
    let arguments = match arguments {
        "" => vec![],
        arguments => arguments.split(',').map(str::trim).collect(),
    };
    Ok((name, arguments))
}

fn refuse(text: &str, expected: impl Into<String>) -> Error {
    Error::value("the rule", expected, format!("{text:?}"))
}

fn unknown(text: &str) -> Error {
    let names: Vec<_> = FORMS.iter().map(|form| form.name).collect();
    let names = names.join(", ");
    let registered = custom::names();
    refuse(
        text,
        match registered.as_slice() {
            [] => format!("one of {names}, or one that `Rule::register` has added"),
            registered => format!("one of {names}, or the registered {}", registered.join(", ")),
        },
    )
}

/// A rule that the program has added: numbers by position.
fn registered(text: &str, name: String, arguments: &[&str]) -> Result<Rule> {
    let number = |value: &&str| {
        value.parse().map_err(|_| {
            let expected = format!("numbers, not `{value}`, as in `{name}(1, 2.5)`");
            refuse(text, expected)
        })
    };
    let parameters = arguments.iter().map(number).collect::<Result<_>>()?;
    Ok(Rule::Custom { name, parameters })
}

/// The arguments that a text gives, without their keys and units.
struct Given<'a> {
    text: &'a str,
    form: &'static Notation,
    /// One for each argument of the form; `None` if the text does not give it.
    values: Vec<Option<&'a str>>,
}

impl<'a> Given<'a> {
    fn new(text: &'a str, form: &'static Notation, arguments: &[&'a str]) -> Result<Self> {
        let mut given = Self { text, form, values: vec![None; form.arguments.len()] };
        for argument in arguments {
            let (index, value) = given.place(argument)?;
            if given.values[index].replace(value).is_some() {
                let key = form.arguments[index].key;
                return Err(given.refuse(format!("the argument `{key}` only once")));
            }
        }
        Ok(given)
    }

    /// The index of the argument that a part of the text gives, and its value without key and unit.
    fn place(&self, argument: &'a str) -> Result<(usize, &'a str)> {
        let arguments = self.form.arguments;
        let (key, given) = match argument.split_once('=') {
            Some((key, given)) => (Some(key.trim().to_ascii_lowercase()), given.trim()),
            None => (None, argument),
        };
        let (value, unit) = without_unit(given);
        let index = match key {
            Some(key) => arguments
                .iter()
                .position(|argument| argument.key == key)
                .ok_or_else(|| self.refuse(self.no_argument(&key)))?,
            None => {
                // A unit, or a key without a value such as `debias`, decides before the position.
                let says = |argument: &Argument| match unit {
                    "" => argument.key.eq_ignore_ascii_case(value),
                    unit => argument.is_in(unit),
                };
                let free = || self.values.iter().position(Option::is_none);
                arguments.iter().position(says).or_else(free).ok_or_else(|| {
                    self.refuse(match arguments.len() {
                        0 => "no argument".to_string(),
                        1 => "one argument".to_string(),
                        most => format!("at most {most} arguments"),
                    })
                })?
            }
        };
        if unit.is_empty() || arguments[index].is_in(unit) {
            return Ok((index, value));
        }
        let key = arguments[index].key;
        Err(self.refuse(match arguments[index].unit {
            Some(expected) => format!("`{key}` in {expected}, not in `{unit}`"),
            None => format!("a number for `{key}`, not `{given}`"),
        }))
    }

    fn no_argument(&self, key: &str) -> String {
        let keys: Vec<_> =
            self.form.arguments.iter().map(|argument| format!("`{}`", argument.key)).collect();
        match keys.as_slice() {
            [] => format!("no argument `{key}`"),
            keys => format!("no argument `{key}` beside {}", keys.join(", ")),
        }
    }

    fn refuse(&self, problem: impl fmt::Display) -> Error {
        refuse(self.text, format!("{problem}, as in {}", self.form.example))
    }

    fn value(&self, key: &str) -> Option<&'a str> {
        let index = self.form.arguments.iter().position(|argument| argument.key == key)?;
        self.values[index]
    }

    fn optional(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.parse();
        number.map(Some).map_err(|_| self.refuse(format!("a number for `{key}`, not `{value}`")))
    }

    fn number(&self, key: &str) -> Result<f64> {
        self.optional(key)?.ok_or_else(|| self.missing(key))
    }

    fn count(&self, key: &str) -> Result<u64> {
        let value = self.value(key).ok_or_else(|| self.missing(key))?;
        let number = value.parse();
        number.map_err(|_| self.refuse(format!("a whole number for `{key}`, not `{value}`")))
    }

    fn missing(&self, key: &str) -> Error {
        self.refuse(format!("the argument `{key}`"))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.value(key).map(str::to_ascii_lowercase).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(word) if word == key => Ok(true),
            Some(word) => Err(self.refuse(format!("`{key}` or nothing, not `{word}`"))),
        }
    }

    /// The rule, whose ranges are not checked yet.
    fn rule(&self) -> Result<Rule> {
        let rule = match self.form.name {
            "ema" => Rule::Constant { decay: self.number("decay")?, debias: self.flag("debias")? },
            "half-life" => {
                let units = ["steps", "samples", "epochs"];
                match units.map(|unit| self.optional(unit)) {
                    [steps, samples, epochs] => match (steps?, samples?, epochs?) {
                        (Some(steps), None, None) => Rule::HalfLife { steps },
                        (None, Some(samples), None) => Rule::HalfLifeSamples { samples },
                        (None, None, Some(epochs)) => Rule::HalfLifeEpochs { epochs },
                        _ => return Err(self.refuse("one of `steps`, `samples` and `epochs`")),
                    },
                }
            }
            "warm-up" => {
                Rule::WarmUp { warm_up: self.number("warm_up")?, max_decay: self.number("max")? }
            }
            "inverse-gamma" => Rule::InverseGamma {
                inv_gamma: self.number("inv_gamma")?,
                power: self.number("power")?,
                min_decay: self.optional("min")?.unwrap_or(0.0),
                max_decay: self.number("max")?,
            },
            "annealing" => {
                Rule::Annealing { gamma: self.number("gamma")?, max_decay: self.number("max")? }
            }
            "exp-ramp" => {
                Rule::ExponentialRamp { decay: self.number("decay")?, tau: self.number("tau")? }
            }
            "half-life-ramp" => Rule::HalfLifeRamp {
                fraction: self.number("fraction")?,
                max_half_life: self.optional("max")?,
            },
            "power" => match (self.optional("sigma_rel")?, self.optional("gamma")?) {
                (Some(sigma_rel), None) => Rule::PowerFunction { sigma_rel },
                (None, Some(gamma)) => Rule::PowerFunctionGamma { gamma },
                _ => return Err(self.refuse("one of `sigma_rel` and `gamma`")),
            },
            "equal" => Rule::Equal,
            "window" => Rule::Window {
                snapshots: self.count("snapshots")?,
                interval: self.count("interval")?,
            },
            "cosine" => Rule::Cosine {
                start: self.number("start")?,
                end: self.number("end")?,
                steps: self.number("steps")?,
            },
            "linear" => Rule::Linear {
                start: self.number("start")?,
                end: self.number("end")?,
                steps: self.number("steps")?,
            },
            "bema" => Rule::Bema {
                rho: self.number("rho")?,
                gamma: self.number("gamma")?,
                eta: self.number("eta")?,
                kappa: self.number("kappa")?,
            },
            "target" => Rule::Target { tau: self.number("tau")? },
            "copy" => Rule::Copy { every: self.count("every")? },
            _ => return Err(unknown(self.text)),
        };
        Ok(rule)
    }
}

impl Argument {
    /// True if the argument is counted in this unit, in the singular or the plural.
    fn is_in(&self, unit: &str) -> bool {
        let unit = unit.to_ascii_lowercase();
        self.unit.is_some_and(|own| unit == own || own.strip_suffix('s') == Some(&unit))
    }
}

/// A number and the word behind it; a word alone is a value.
fn without_unit(text: &str) -> (&str, &str) {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    match number.trim_end() {
        // A sign alone belongs to a word, as in `-inf`.
        "" | "-" | "+" => (text, ""),
        value => (value, &text[number.len()..]),
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

impl TryFrom<String> for Rule {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests;

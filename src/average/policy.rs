//! Policies: how an average treats which parameter, by globs on module paths.

use std::fmt;

use glob::{MatchOptions, Pattern};
use serde::{Deserialize, Serialize};

use super::rule::Rule;
use crate::{Error, Result};

/// The way in which an average treats a parameter.
///
/// # Parameters, running states and the rest
///
/// - A `Param` of floats is a weight, whether it is trained or frozen.
/// - A `RunningState` of floats is a statistic, in whichever layer: a batch norm of Burn's or a
///   layer of your own. It has the policy of the statistics
///   ([`AverageConfig::statistics`](super::AverageConfig), by default a copy of live's), and each
///   update takes it as it is after the last forward pass.
/// - Integers, booleans and quantized parameters are copied, since there is nothing to mix.
/// - What is no parameter (plain tensors, skipped fields, numbers) has no policy:
///   [`Average::module`](super::Average::module) has it as it was in live at the last update.
///   Burn does not show a plain tensor to anyone but the module itself, so one that is to be
///   averaged must be a `Param`.
/// - Tied parameters, two fields that hold clones of one `Param`, are averaged each by itself, and
///   have one id in the average's module as they have in live. Burn's optimizers move only one of
///   the two, since they find a gradient by its id and use it up: a model that ties its head to its
///   embedding by a second field trains only one of them, also without an average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Policy {
    /// The parameter is averaged by the rule of the average.
    Average,
    /// The parameter is averaged by a rule of its own.
    Rule(Rule),
    /// The parameter is copied from live at every update.
    Copy,
    /// The parameter stays as it was in live when the average started.
    Freeze,
    /// The parameter is neither updated nor saved.
    ///
    /// [`Average::module`](super::Average::module) has it as it was when the average was made,
    /// and [`Average::module_like`](super::Average::module_like) as it is in live. Live's own
    /// tensors are not held for it, since the optimizer could not write them in place then.
    LeaveOut,
}

/// A [`Policy`] for the parameters whose path matches a glob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathPolicy {
    /// A glob on paths such as `layers.0.weight`: `*` stands for any text within a name, `**` for
    /// any number of names, `?` for one character, `[01]` for one of these.
    pub pattern: String,
    /// The policy for the parameters whose path matches.
    pub policy: Policy,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Average => f.write_str("average"),
            Self::Rule(rule) => rule.fmt(f),
            Self::Copy => f.write_str("copy"),
            Self::Freeze => f.write_str("freeze"),
            Self::LeaveOut => f.write_str("leave out"),
        }
    }
}

impl fmt::Display for PathPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pattern, self.policy)
    }
}

/// The verb for a policy, for messages.
fn verb(policy: &Policy) -> &'static str {
    match policy {
        Policy::Average | Policy::Rule(_) => "average",
        Policy::Copy => "copy",
        Policy::Freeze => "freeze",
        Policy::LeaveOut => "leave out",
    }
}

/// The globs of an average, compiled, each with whether it has matched; the last match decides.
pub(super) struct Policies<'a> {
    list: Vec<(Pattern, &'a PathPolicy, bool)>,
}

impl<'a> Policies<'a> {
    pub fn new(policies: &'a [PathPolicy]) -> Result<Self> {
        let list = policies.iter().map(|policy| {
            // The crate `glob` matches paths of files, in which a slash ends a name; here a dot
            // does.
            let pattern = Pattern::new(&policy.pattern.replace('.', "/")).map_err(|error| {
                let expected = "a glob such as `encoder.**` or `*.bias`";
                Error::value("the pattern of a policy", expected, format!("{policy} ({error})"))
            })?;
            Ok((pattern, policy, false))
        });
        Ok(Self { list: list.collect::<Result<_>>()? })
    }

    /// The policy of a path; `None` if no pattern matches it.
    ///
    /// A pattern with an averaging policy counts as used only if the parameter can be averaged.
    pub fn of(&mut self, path: &str, can_be_averaged: bool) -> Option<&'a Policy> {
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
        let path = path.replace('.', "/");
        let mut found = None;
        for (pattern, policy, used) in &mut self.list {
            if pattern.matches_with(&path, options) {
                let averages = matches!(policy.policy, Policy::Average | Policy::Rule(_));
                *used |= can_be_averaged || !averages;
                found = Some(&policy.policy);
            }
        }
        found
    }

    /// Checks that every pattern was used, since a misspelt one would silently change nothing.
    pub fn check_used(&self, paths: impl Iterator<Item = impl AsRef<str>>) -> Result<()> {
        let Some((_, unused, _)) = self.list.iter().find(|(.., used)| !used) else {
            return Ok(());
        };
        let paths: Vec<_> = paths.map(|path| path.as_ref().to_owned()).collect();
        let shown = paths.iter().take(6).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if paths.len() > 6 { ", ..." } else { "" };
        Err(Error::value(
            "the pattern of a policy",
            format!("a glob that matches a parameter of the module ({shown}{more})"),
            format!("`{}`, which matches none to {}", unused.pattern, verb(&unused.policy)),
        ))
    }
}

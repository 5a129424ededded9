//! The rules that programs add: a decay by name, for the whole process.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{Error, Result};

/// A function that returns the decay of a step, in `[0, 1]`, from the parameters of the rule and
/// the number of the step, counted from 1. The range is checked where the function is called.
pub(super) type Decay = dyn Fn(&[f64], f64) -> f64 + Send + Sync;

static RULES: RwLock<BTreeMap<String, Arc<Decay>>> = RwLock::new(BTreeMap::new());

/// Adds a rule, under a name that no built-in rule has.
pub(super) fn register(
    name: &str,
    is_built_in: impl Fn(&str) -> bool,
    decay: impl Fn(&[f64], f64) -> f64 + Send + Sync + 'static,
) -> Result<()> {
    let refuse =
        |expected: &str| Err(Error::value("the name of a rule", expected, format!("{name:?}")));
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(allowed) {
        return refuse("a lower-case letter, then lower-case letters, digits, `-` and `_`");
    }
    if is_built_in(name) {
        return refuse("a name that no built-in rule has");
    }
    let mut rules = RULES.write().unwrap_or_else(PoisonError::into_inner);
    if rules.contains_key(name) {
        return refuse("a name that is not registered yet");
    }
    rules.insert(name.to_string(), Arc::new(decay));
    Ok(())
}

/// The function that is registered under a name; an error if there is none.
pub(super) fn function(name: &str) -> Result<Arc<Decay>> {
    find(name).ok_or_else(|| {
        let expected = format!("a rule that `Rule::register` has added{}", listed());
        Error::value("the custom rule", expected, format!("{name:?}"))
    })
}

/// The function that is registered under a name; `None` if there is none.
pub(super) fn find(name: &str) -> Option<Arc<Decay>> {
    RULES.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
}

/// The registered names, in alphabetical order.
pub(super) fn names() -> Vec<String> {
    RULES.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
}

fn listed() -> String {
    match names() {
        names if names.is_empty() => String::new(),
        names => format!(" (so far {})", names.join(", ")),
    }
}

#[cfg(test)]
mod tests;

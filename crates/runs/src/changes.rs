//! The changes of a run's configuration that are allowed when it goes on.

use serde_json::Value;

use crate::{Error, Result};

/// How a field of a configuration may change when a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// To anything.
    Free,
    /// To a larger number.
    Upward,
}

/// Refuses a configuration that differs from a run's in a field that may not change.
///
/// Fields are named by their path, such as `model.sizes`; a path that may change takes what lies
/// below it along.
///
/// # Errors
///
/// The first such field, with what the run has and what was given.
pub(crate) fn check(saved: &Value, given: &Value, may: &[(String, Change)]) -> Result<()> {
    compare("config", saved, given, may)
}

fn compare(path: &str, saved: &Value, given: &Value, may: &[(String, Change)]) -> Result<()> {
    let field = path.strip_prefix("config.").unwrap_or(path);
    let change = may.iter().find(|(known, _)| known == field).map(|(_, change)| *change);
    match (change, saved, given) {
        (Some(Change::Free), ..) => Ok(()),
        (Some(Change::Upward), Value::Number(saved), Value::Number(given))
            if given.as_f64() >= saved.as_f64() =>
        {
            Ok(())
        }
        (None, Value::Object(saved), Value::Object(given)) => {
            let mut names: Vec<_> = saved.keys().chain(given.keys()).collect();
            names.sort();
            names.dedup();
            names.into_iter().try_for_each(|name| {
                let of = |fields: &serde_json::Map<String, Value>| {
                    fields.get(name).cloned().unwrap_or(Value::Null)
                };
                compare(&format!("{path}.{name}"), &of(saved), &of(given), may)
            })
        }
        (None, Value::Array(saved), Value::Array(given)) if saved.len() == given.len() => {
            let mut pairs = saved.iter().zip(given).enumerate();
            pairs.try_for_each(|(index, (saved, given))| {
                compare(&format!("{path}[{index}]"), saved, given, may)
            })
        }
        (_, saved, given) if saved == given => Ok(()),
        (change, saved, given) => {
            let more = if change == Some(Change::Upward) { " or more" } else { "" };
            let expected = format!("{saved}{more}, as in the run");
            Err(Error::parameter(path, expected, given))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_may_change_does() {
        let saved = json!({ "epochs": 6, "lr": 0.1, "model": { "sizes": [4, 2] }, "device": "a" });
        let may = [("epochs".to_owned(), Change::Upward), ("device".to_owned(), Change::Free)];
        let refusal = |path: &[&str], value: Value| {
            let mut given = saved.clone();
            let place = path.iter().fold(&mut given, |place, name| &mut place[*name]);
            *place = value;
            check(&saved, &given, &may).err().map(|error| error.to_string())
        };
        assert_eq!(refusal(&["lr"], json!(0.1)), None);
        assert_eq!(refusal(&["epochs"], json!(7)), None);
        assert_eq!(refusal(&["device"], json!(["b"])), None);
        let cases = [
            (
                &["epochs"][..],
                json!(5),
                "config.epochs: expected 6 or more, as in the run, found 5",
            ),
            (&["lr"], json!(0.2), "config.lr: expected 0.1, as in the run, found 0.2"),
            (&["new"], json!(1), "config.new: expected null, as in the run, found 1"),
            (
                &["model", "sizes"],
                json!([4, 3]),
                "config.model.sizes[1]: expected 2, as in the run, found 3",
            ),
            (
                &["model", "sizes"],
                json!([4]),
                "config.model.sizes: expected [4,2], as in the run, found [4]",
            ),
            (
                &["model"],
                json!(null),
                "config.model: expected {\"sizes\":[4,2]}, as in the run, found null",
            ),
        ];
        for (path, value, message) in cases {
            assert_eq!(refusal(path, value).as_deref(), Some(message));
        }
    }
}

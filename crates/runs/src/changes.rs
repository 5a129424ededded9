//! The changes of a run's configuration that are allowed when the run is resumed.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::{Error, Result};

/// How a field of a configuration may change when the run is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Any value is allowed, also for the fields that are nested in this one.
    Free,
    /// A number may stay or grow; another value must stay.
    Upward,
}

/// Refuses a configuration `given` that differs from that of the run, `saved`, in a field that may
/// not change.
///
/// `may` lists the fields that may change by their path, such as `model.sizes`; the first entry of
/// a path applies. The fields below a [`Free`](Change::Free) field are free too. Numbers are
/// compared by their values, so that 1 equals 1.0.
///
/// # Errors
///
/// The first field that differs, with the saved and the given value. If the values of a sequence
/// differ only in their order, the error mentions that a set has no stable order.
pub(crate) fn check(saved: &Value, given: &Value, may: &[(String, Change)]) -> Result<()> {
    compare("config", saved, given, may)
}

fn compare(path: &str, saved: &Value, given: &Value, may: &[(String, Change)]) -> Result<()> {
    // The root is no field.
    let field = path.strip_prefix("config.");
    let change = may.iter().find(|(known, _)| Some(&known[..]) == field);
    let change = change.map(|(_, change)| *change);
    match (change, saved, given) {
        (Some(Change::Free), ..) => Ok(()),
        (Some(Change::Upward), Value::Number(saved), Value::Number(given))
            if order(given, saved).is_some_and(Ordering::is_ge) =>
        {
            Ok(())
        }
        (None, Value::Number(saved), Value::Number(given))
            if order(given, saved).is_some_and(Ordering::is_eq) =>
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
        (None, Value::Array(those), Value::Array(these)) if those.len() == these.len() => {
            let mut pairs = those.iter().zip(these).enumerate();
            let compared = pairs.try_for_each(|(index, (that, this))| {
                compare(&format!("{path}[{index}]"), that, this, may)
            });
            match compared {
                Err(_) if sorted(those) == sorted(these) => {
                    let found = format!("{given}: {UNORDERED}");
                    Err(Error::parameter(path, format!("{saved}, as in the run"), found))
                }
                compared => compared,
            }
        }
        (_, saved, given) if saved == given => Ok(()),
        (change, saved, given) => {
            let more = if change == Some(Change::Upward) { " or more" } else { "" };
            let expected = format!("{saved}{more}, as in the run");
            Err(Error::parameter(path, expected, given))
        }
    }
}

/// For an error: the likely reason why the values of a sequence differ only in their order.
const UNORDERED: &str = "the order alone differs; a HashSet or a HashMap has none that \
                                    stays from one process to the next, so use a BTreeSet, a \
                                    BTreeMap or a sorted Vec";

/// The values as JSON texts, sorted.
fn sorted(values: &[Value]) -> Vec<String> {
    let mut texts: Vec<_> = values.iter().map(Value::to_string).collect();
    texts.sort();
    texts
}

/// Compares two numbers by their values, integers exactly and other numbers as `f64`.
fn order(one: &Number, other: &Number) -> Option<Ordering> {
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => one.as_f64().partial_cmp(&other.as_f64()),
    }
}

/// The number as an integer; `None` if it has a fraction or is a float of 1e38 or more.
fn whole(number: &Number) -> Option<i128> {
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e38);
    number.as_i128().or(float.map(|float| float as i128))
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
    fn refusal(saved: &Value, given: &Value) -> Option<String> {
        check(saved, given, &[]).err().map(|error| error.to_string())
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        let largest = 9_007_199_254_740_992_u64; // 2^53
        for (one, other) in [
            (json!(1), json!(1.0)),
            (json!(-3.0), json!(-3)),
            (json!(0), json!(-0.0)),
            (json!(largest), json!(largest as f64)),
            (json!(u64::MAX), json!(u64::MAX)),
            (json!({ "a": [1, { "b": 2.0 }] }), json!({ "a": [1.0, { "b": 2 }] })),
        ] {
            assert_eq!(refusal(&one, &other), None);
            assert_eq!(refusal(&other, &one), None);
        }
        for (one, other) in [
            (json!(1), json!(1.5)),
            (json!(largest + 1), json!(largest as f64)),
            (json!(largest), json!(largest + 1)),
            (json!(u64::MAX), json!(u64::MAX as f64)),
            (json!(i64::MIN), json!(i64::MIN + 1)),
            (json!(1), json!(true)),
            (json!(1), json!("1")),
            (json!(0), json!(null)),
        ] {
            assert!(refusal(&one, &other).is_some() && refusal(&other, &one).is_some(), "{one}");
        }
        // "Or more" is as exact.
        let may = [("epochs".to_owned(), Change::Upward)];
        let grows = |from: Value, to: Value| {
            check(&json!({ "epochs": from }), &json!({ "epochs": to }), &may).is_ok()
        };
        assert!(grows(json!(2), json!(2.0)) && grows(json!(2.0), json!(3)));
        assert!(grows(json!(largest), json!(largest + 1)));
        assert!(!grows(json!(largest + 1), json!(largest)) && !grows(json!(3), json!(2.5)));
    }

    #[test]
    fn a_field_may_have_any_name() {
        let given = json!({ "lr": 0.2, "config": 2 });
        for (differs, other) in [("config", "lr"), ("lr", "config")] {
            let mut saved = given.clone();
            saved[differs] = json!(1);
            let with_free =
                |field: &str| check(&saved, &given, &[(field.to_owned(), Change::Free)]);
            assert!(with_free(differs).is_ok(), "{differs}");
            assert!(with_free(other).is_err() && with_free("").is_err(), "{other}");
        }
    }

    #[test]
    fn values_in_another_order_are_named_as_such() {
        let runs = |values: Value| json!({ "model": { "names": values } });
        for (saved, given, path) in [
            (json!(["a", "b", "c"]), json!(["c", "a", "b"]), "config.model.names"),
            (json!([1, 2]), json!([2, 1]), "config.model.names"),
            // A set of pairs, and a list of sets.
            (json!([["a", 1], ["b", 2]]), json!([["b", 2], ["a", 1]]), "config.model.names"),
            (json!([["a"], ["b", "c"]]), json!([["a"], ["c", "b"]]), "config.model.names[1]"),
        ] {
            let message = refusal(&runs(saved), &runs(given)).unwrap();
            assert!(message.starts_with(&format!("{path}: expected [")), "{message}");
            assert!(message.contains("HashSet") && message.contains("BTreeSet"), "{message}");
        }
        for (saved, given) in [
            (json!(["a", "b"]), json!(["a", "c"])),
            (json!(["a", "a", "b"]), json!(["a", "b", "b"])),
        ] {
            let message = refusal(&runs(saved), &runs(given)).unwrap();
            assert!(!message.contains("HashSet"), "{message}");
        }
        // The keys of a map have no order in JSON.
        let map = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(refusal(&map(r#"{"a":1,"b":2}"#), &map(r#"{"b":2,"a":1}"#)), None);
    }
}

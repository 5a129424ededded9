//! NaNs and infinities in a configuration, which JSON would save as `null`, like `None`.

use std::fmt::{self, Display};

use serde::ser::{self, Serialize, Serializer};

use crate::{Error, Result};

/// Refuses a value that holds a NaN or an infinity. A value that cannot be serialized passes.
///
/// # Errors
///
/// The first NaN or infinity, with `path` and the path of its field in the value.
pub(crate) fn check(path: &str, value: &impl Serialize) -> Result<()> {
    match value.serialize(Field(path.to_owned())) {
        Err(Stop::NonFinite { path, found }) => {
            let expected = "a finite number, since JSON has no other (an `Option` or a text may \
                            stand for it)";
            Err(Error::parameter(path, expected, found))
        }
        // The caller serializes the value too, and reports this error.
        Err(Stop::Other) | Ok(()) => Ok(()),
    }
}

/// The reason why a serialization ends early.
#[derive(Debug)]
enum Stop {
    NonFinite { path: String, found: f64 },
    Other,
}

impl Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Stop {}

impl ser::Error for Stop {
    fn custom<T: Display>(_: T) -> Self {
        Self::Other
    }
}

type Walked = std::result::Result<(), Stop>;

/// A serializer that checks floats and writes nothing. Holds the path of the value.
struct Field(String);

/// A serializer of the fields of a value. Holds the path of the value, and the index or key of the
/// next field.
struct Fields {
    path: String,
    index: usize,
    key: String,
}

impl Field {
    fn fields(self) -> std::result::Result<Fields, Stop> {
        Ok(Fields { path: self.0, index: 0, key: String::new() })
    }

    fn below(self, name: &str) -> Self {
        Self(format!("{}.{name}", self.0))
    }
}

impl Fields {
    fn next<T: ?Sized + Serialize>(&mut self, value: &T) -> Walked {
        let path = format!("{}[{}]", self.path, self.index);
        self.index += 1;
        value.serialize(Field(path))
    }

    fn named<T: ?Sized + Serialize>(&self, name: &str, value: &T) -> Walked {
        value.serialize(Field(format!("{}.{name}", self.path)))
    }
}

/// Methods for values that are no floats and contain none: they accept any value.
macro_rules! skip {
    ($($method:ident($($argument:ty),*)),* $(,)?) => {
        $(fn $method(self, $(_: $argument),*) -> Walked {
            Ok(())
        })*
    };
}

/// Methods for values that contain other values.
macro_rules! hold {
    ($($method:ident($($argument:ty),*)),* $(,)?) => {
        $(fn $method(self, $(_: $argument),*) -> std::result::Result<Fields, Stop> {
            self.fields()
        })*
    };
}

impl Serializer for Field {
    type Ok = ();
    type Error = Stop;
    type SerializeSeq = Fields;
    type SerializeTuple = Fields;
    type SerializeTupleStruct = Fields;
    type SerializeTupleVariant = Fields;
    type SerializeMap = Fields;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    fn serialize_f32(self, number: f32) -> Walked {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, found: f64) -> Walked {
        if found.is_finite() { Ok(()) } else { Err(Stop::NonFinite { path: self.0, found }) }
    }

    skip!(
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_i128(i128),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_u128(u128),
        serialize_char(char),
        serialize_str(&str),
        serialize_bytes(&[u8]),
        serialize_none(),
        serialize_unit(),
        serialize_unit_struct(&'static str),
        serialize_unit_variant(&'static str, u32, &'static str),
    );

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Walked {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, _: &str, value: &T) -> Walked {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Walked {
        value.serialize(self.below(variant))
    }

    hold!(
        serialize_seq(Option<usize>),
        serialize_tuple(usize),
        serialize_tuple_struct(&'static str, usize),
        serialize_map(Option<usize>),
        serialize_struct(&'static str, usize),
    );

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> std::result::Result<Fields, Stop> {
        self.below(variant).fields()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> std::result::Result<Fields, Stop> {
        self.below(variant).fields()
    }
}

/// Implements the traits of sequences, whose values have an index.
macro_rules! by_index {
    ($($kind:ident::$method:ident),*) => {
        $(impl ser::$kind for Fields {
            type Ok = ();
            type Error = Stop;

            fn $method<T: ?Sized + Serialize>(&mut self, value: &T) -> Walked {
                self.next(value)
            }

            fn end(self) -> Walked {
                Ok(())
            }
        })*
    };
}

by_index!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

/// Implements the traits of structures, whose values have a name.
macro_rules! by_name {
    ($($kind:ident),*) => {
        $(impl ser::$kind for Fields {
            type Ok = ();
            type Error = Stop;

            fn serialize_field<T: ?Sized + Serialize>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Walked {
                self.named(name, value)
            }

            fn end(self) -> Walked {
                Ok(())
            }
        })*
    };
}

by_name!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Fields {
    type Ok = ();
    type Error = Stop;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Walked {
        let key = serde_json::to_value(key).unwrap_or_default();
        self.key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
        Ok(())
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Walked {
        self.named(&self.key, value)
    }

    fn end(self) -> Walked {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::{Error, check};

    #[derive(Serialize)]
    enum Schedule {
        Constant(f64),
        Steps(u32, f32),
        Linear { to: f64 },
    }

    #[derive(Serialize)]
    struct Config {
        name: &'static str,
        clip: Option<f64>,
        schedules: Vec<Schedule>,
        weights: BTreeMap<u32, (f32, f64)>,
        inner: Inner,
    }

    #[derive(Serialize)]
    struct Inner {
        #[serde(flatten)]
        more: BTreeMap<String, f64>,
    }

    fn config() -> Config {
        let schedules =
            vec![Schedule::Constant(1.0), Schedule::Steps(2, 3.0), Schedule::Linear { to: 0.0 }];
        let inner = Inner { more: [("momentum".to_owned(), 0.5)].into() };
        let weights = [(7, (1.0, 2.0))].into();
        Config { name: "a", clip: None, schedules, weights, inner }
    }

    #[test]
    fn a_float_that_is_not_finite_is_named_by_its_path() {
        type Change = fn(&mut Config);
        check("config", &config()).unwrap();
        let changes: [(Change, &str); 7] = [
            (|config| config.clip = Some(f64::NAN), "config.clip: NaN"),
            (
                |config| config.schedules[0] = Schedule::Constant(f64::INFINITY),
                "config.schedules[0].Constant: inf",
            ),
            (
                |config| config.schedules[1] = Schedule::Steps(1, f32::NEG_INFINITY),
                "config.schedules[1].Steps[1]: -inf",
            ),
            (
                |config| config.schedules[2] = Schedule::Linear { to: f64::NAN },
                "config.schedules[2].Linear.to: NaN",
            ),
            (|config| _ = config.weights.insert(7, (1.0, f64::NAN)), "config.weights.7[1]: NaN"),
            (|config| _ = config.inner.more.insert("x".into(), f64::NAN), "config.inner.x: NaN"),
            (|config| config.name = "NaN", ""),
        ];
        for (change, expected) in changes {
            let mut config = config();
            change(&mut config);
            match (check("config", &config), expected.split_once(": ")) {
                (Ok(()), None) => {}
                (Err(Error::Parameter { path, found, .. }), Some(expected)) => {
                    assert_eq!((&*path, &*found), expected);
                }
                (other, _) => panic!("{other:?} for {expected}"),
            }
        }
        // A value alone has the path of the whole.
        let error = check("config", &(1, f32::NAN)).unwrap_err().to_string();
        assert!(error.starts_with("config[1]: expected a finite number"), "{error}");
    }
}

//! The header of safetensors.
//!
//! Its entries take more room in memory than in the file, and its text does not, so the two are
//! bounded apart: entries by their number, text by the length of the file, which is in memory.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use safetensors::tensor::TensorInfo;
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, Visitor},
};

use super::METADATA;
use crate::{Error, Result};

/// The place that errors name.
const PLACE: &str = "the header";

/// The number of tensors that a file of any length may have: more than the 100,000 of Burn's
/// records.
const TENSORS: usize = 1 << 17;

/// The least length of a file for each tensor beyond [`TENSORS`], in bytes.
const BYTES_OF_TENSOR: usize = 1 << 10;

/// The entries that metadata may have.
const TEXTS: usize = 1 << 16;

/// The dimensions that a tensor may have, as in PyTorch and NumPy.
const RANK: usize = 64;

/// The entries of a header, and where the numbers begin.
#[derive(Default)]
pub(super) struct Header {
    pub metadata: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, TensorInfo>,
    pub start: usize,
}

impl Header {
    /// The number of first bytes that are the header, of a file of `length` bytes that begins with
    /// `bytes`.
    pub fn end(bytes: &[u8], length: usize) -> Result<usize> {
        let claimed = bytes.first_chunk().map(|claimed| u64::from_le_bytes(*claimed));
        let end = claimed.and_then(|claimed| usize::try_from(claimed).ok()?.checked_add(8));
        end.filter(|end| *end <= length).ok_or_else(|| {
            let expected = format!("{} bytes, as it says", claimed.unwrap_or(8));
            Error::parameter(PLACE, expected, format!("a file of {length}"))
        })
    }

    /// Reads the header of a file of `length` bytes, of which `head` are the first ones and contain
    /// the header, and checks that what it claims is there.
    ///
    /// The parser of the crate `safetensors` adds the sizes in a header unchecked, and so panics if
    /// a sum overflows.
    pub fn read(head: &[u8], length: usize) -> Result<Self> {
        let start = Self::end(head, length.min(head.len()))?;
        let text = &head[8..start];
        let most = TENSORS + length / BYTES_OF_TENSOR;
        let mut json = serde_json::Deserializer::from_slice(text);
        let header = Entries::<Tensors>::most(most).deserialize(&mut json);
        let header = header.and_then(|header| json.end().map(|()| header));
        let header =
            header.map_err(|error| Error::parameter(PLACE, "that of safetensors", error))?;
        let (expected, found) = (header.length()?, length - start);
        if expected != found {
            let expected = format!("{expected} bytes, as the header says");
            return Err(Error::parameter("the tensors", expected, format!("{found} bytes")));
        }
        Ok(Self { start, ..header })
    }

    /// The bytes of all tensors, which follow one another.
    fn length(&self) -> Result<usize> {
        let mut tensors: Vec<_> = self.tensors.iter().collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let mut end = 0_usize;
        for (name, TensorInfo { dtype, shape, data_offsets: (from, to) }) in tensors {
            let place = format!("{PLACE}: {name}");
            if shape.len() > RANK {
                let expected = format!("at most {RANK} dimensions");
                return Err(Error::parameter(place, expected, shape.len()));
            }
            let bits = shape.iter().try_fold(dtype.bitsize(), |bits, size| bits.checked_mul(*size));
            let Some(bits) = bits else {
                let found = format!("an overflow, of {shape:?}");
                return Err(Error::parameter(place, "a number of bytes", found));
            };
            let is_whole = bits.is_multiple_of(8) && end.checked_add(bits / 8) == Some(*to);
            if *from != end || !is_whole {
                let expected = format!("{bits} bits from byte {end} on");
                return Err(Error::parameter(place, expected, format!("bytes {from} to {to}")));
            }
            end = *to;
        }
        Ok(end)
    }
}

/// A JSON object of at most `most` entries, whose names differ.
struct Entries<T> {
    most: usize,
    kind: PhantomData<T>,
}

impl<T> Entries<T> {
    fn most(most: usize) -> Self {
        Self { most, kind: PhantomData }
    }

    fn add<V, E: serde::de::Error>(
        &self,
        entries: &mut BTreeMap<String, V>,
        name: String,
        value: V,
    ) -> Result<(), E> {
        if entries.len() == self.most {
            return Err(E::custom(format!("more than {} entries", self.most)));
        }
        match entries.contains_key(&name) {
            true => Err(E::custom(format!("{name} is there twice"))),
            false => Ok(_ = entries.insert(name, value)),
        }
    }
}

/// The two objects of a header.
struct Tensors;
struct Texts;

impl<'de> DeserializeSeed<'de> for Entries<Tensors> {
    type Value = Header;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<Tensors> {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensors by their names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut header, mut has_metadata) = (Header::default(), false);
        while let Some(name) = map.next_key::<String>()? {
            if name != METADATA {
                let info = map.next_value()?;
                self.add(&mut header.tensors, name, info)?;
            } else if has_metadata {
                return Err(A::Error::custom(format!("{name} is there twice")));
            } else {
                header.metadata = map.next_value_seed(Entries::<Texts>::most(TEXTS))?;
                has_metadata = true;
            }
        }
        Ok(header)
    }
}

impl<'de> DeserializeSeed<'de> for Entries<Texts> {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Entries<Texts> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("texts by their names")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some((name, text)) = map.next_entry()? {
            self.add(&mut texts, name, text)?;
        }
        Ok(texts)
    }
}

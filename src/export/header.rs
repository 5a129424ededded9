//! The header of safetensors.
//!
//! Its entries take more room in memory than in the file, and its text does not, so the two are
//! bounded apart: entries by their number, text by the length of the file, which is in memory.

use std::{collections::HashMap, fmt};

use safetensors::tensor::{Metadata, TensorInfo};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use super::METADATA;
use crate::{Error, Result};

/// Where errors place what they found.
const PLACE: &str = "the header";

/// The number of items that any header may have: enough for the hundred thousand tensors that
/// Burn's records may have.
const FREE: usize = 1 << 20;

/// The bytes of a file that come with an item beyond these, at least.
const BYTES_OF_ITEM: usize = 20;

/// The header of safetensors, and where the numbers begin.
///
/// The crate's own way from bytes to tensors adds what the header claims without a look, and so
/// ends in a panic where that is more than a number can say.
pub(super) fn read(bytes: &[u8]) -> Result<(Metadata, usize)> {
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    let start = length.and_then(|length| usize::try_from(length).ok()?.checked_add(8));
    let Some((start, header)) = start.and_then(|start| Some((start, bytes.get(8..start)?))) else {
        let expected = format!("{} bytes, as it says", length.unwrap_or(8));
        return Err(Error::parameter(PLACE, expected, format!("a file of {}", bytes.len())));
    };
    let (most, found) = (FREE + bytes.len() / BYTES_OF_ITEM, items(header));
    if found > most {
        let expected = format!("at most {most} items, in a file of {} bytes", bytes.len());
        return Err(Error::parameter(PLACE, expected, found));
    }
    let Header { metadata, mut tensors } = serde_json::from_slice(header)
        .map_err(|error| Error::parameter(PLACE, "that of safetensors", error))?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let header = Metadata::new(metadata, tensors)
        .map_err(|error| Error::parameter(PLACE, "that of safetensors", error))?;
    let (expected, found) = (header.data_len(), bytes.len() - start);
    if expected != found {
        let expected = format!("{expected} bytes, as the header says");
        return Err(Error::parameter("the tensors", expected, format!("{found} bytes")));
    }
    Ok((header, start))
}

/// The number of lists, objects and further members of them in JSON.
fn items(json: &[u8]) -> usize {
    let (mut count, mut in_text, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

/// The entries of a header, whose names differ.
struct Header {
    metadata: Option<HashMap<String, String>>,
    tensors: Vec<(String, TensorInfo)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tensors by their names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let (mut metadata, mut tensors) = (None, HashMap::new());
                while let Some(name) = map.next_key::<String>()? {
                    let is_second = match &name[..] {
                        METADATA => metadata.replace(map.next_value()?).is_some(),
                        _ => tensors.insert(name.clone(), map.next_value()?).is_some(),
                    };
                    if is_second {
                        return Err(A::Error::custom(format!("{name} is there twice")));
                    }
                }
                Ok(Header { metadata, tensors: tensors.into_iter().collect() })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::items;

    #[test]
    fn items_are_counted_outside_of_text() {
        assert_eq!(items(b""), 0);
        assert_eq!(items(b"{}"), 1);
        assert_eq!(items(br#"{"a": [1, 2, 3], "b": "[,{\"[,\\"}"#), 5);
        assert_eq!(items(br#"{"a": "\\", "b": ["#), 3);
    }
}

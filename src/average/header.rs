//! What Burn's bytes claim, looked at before Burn makes room for it.
//!
//! Names, shapes and places of tensors take some forty times the room in memory that they take in
//! a file, at worst.
//! Those of real tensors come with the tensors; a file of little but claims is refused by their
//! number, so that to read one takes no more memory than twice its length and a little.

use std::{
    io::{self, Read as _},
    ops::Range,
    path::Path,
};

use super::regular;
use crate::{Error, Result};

/// The header: a magic number, a version, and last the length of the metadata.
const HEADER: usize = 10;

/// The items that any file may have: those of some four thousand tensors.
const FREE: u64 = 1 << 16;

/// The bytes of a file that come with an item, at least: an entry has fourteen items where its
/// tensor has two dimensions, takes 80 bytes and its name, and its numbers 256 or more.
const BYTES_OF_ITEM: u64 = 24;

/// Refuses bytes whose metadata has more items than tensors of their length could have.
///
/// # Errors
///
/// More items than one in 24 bytes and 65,536. What is no metadata at all is left to the parser.
pub(crate) fn check(bytes: &[u8]) -> Result<()> {
    check_items(&bytes[metadata(bytes)], bytes.len() as u64)
}

/// Where the metadata is, as far as it is there.
pub(super) fn metadata(bytes: &[u8]) -> Range<usize> {
    let start = HEADER.min(bytes.len());
    let claimed = claim(bytes).map_or(0, |claimed| claimed as usize);
    start..bytes.len().min(start.saturating_add(claimed))
}

/// The same for a file, of which the metadata alone is read.
///
/// # Errors
///
/// A file that cannot be read; one that claims more metadata than it has bytes; those of
/// [`check`].
pub(crate) fn check_file(path: &Path) -> Result<()> {
    let broken = |error: io::Error| Error::file("read", path, error);
    let (mut file, length) = regular::open(path).map_err(broken)?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(broken)?;
    let claimed = claim(&header).map_or(0, u64::from);
    if claimed > length {
        let expected = format!("{claimed} bytes of metadata, as the file claims");
        let error = Error::parameter(PLACE, expected, format!("a file of {length} bytes"));
        return Err(Error::file("read", path, error));
    }
    let mut metadata = Vec::new();
    file.take(claimed).read_to_end(&mut metadata).map_err(broken)?;
    check_items(&metadata, length).map_err(|error| Error::file("read", path, error))
}

/// Where errors place what they found.
const PLACE: &str = "the header";

/// The length of the metadata that the header claims.
fn claim(header: &[u8]) -> Option<u32> {
    let length = header.get(..HEADER)?.last_chunk::<4>()?;
    Some(u32::from_le_bytes(*length))
}

fn check_items(metadata: &[u8], length: u64) -> Result<()> {
    let most = FREE + length / BYTES_OF_ITEM;
    let found = items(metadata);
    if found <= most {
        return Ok(());
    }
    let expected = format!("at most {most} items of metadata, in {length} bytes");
    Err(Error::parameter(PLACE, expected, found))
}

/// The items of CBOR, which each begin with a head, whatever they are nested in.
fn items(mut cbor: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((&head, rest)) = cbor.split_first() {
        count += 1;
        // The kind of the item, and a small number or how many bytes its number takes.
        let (kind, short) = (head >> 5, usize::from(head & 31));
        let width = if let 24..28 = short { 1 << (short - 24) } else { 0 };
        let long = rest.iter().take(width).fold(0, |number, &byte| number << 8 | usize::from(byte));
        let number = if width > 0 { long } else { short };
        // Bytes and texts: the number is that of the bytes that follow, but where they come in
        // pieces.
        let follow = if let (2 | 3, 0..28) = (kind, short) { number } else { 0 };
        cbor = rest.get(width.saturating_add(follow)..).unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests {
    use burn::{
        module::{Module, ParamId},
        nn::LinearConfig,
        tensor::{Bytes, DType},
    };
    use burn_pack::{Tensor, Writer};

    use super::*;

    fn cbor(value: &impl serde::Serialize) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn items_are_counted_at_any_depth() {
        assert_eq!(items(&[]), 0);
        assert_eq!(items(&cbor(&7)), 1);
        assert_eq!(items(&cbor(&[1_u64, 500, 70_000, u64::MAX])), 5);
        let text = "a text that is longer than its head can say, and 0x80 in it: \u{80}";
        for repeated in [1, 10, 2000] {
            let text = text.repeat(repeated);
            assert_eq!(items(&cbor(&(&text, 1.5, (&text, [true, false])))), 8);
        }
        // A list without an end, of texts in pieces: the list, each text, piece and break.
        let pieces = [0x9f, 0x7f, 0x62, b'a', b'b', 0x61, b'c', 0xff, 0x7f, 0xff, 0xff];
        assert_eq!(items(&pieces), 8);
        // Cut within a number or a text.
        for cut in [&[0x1b, 1, 2][..], &[0x78, 200, b'a'], &[0x62, b'a']] {
            assert_eq!(items(cut), 1);
        }
        assert_eq!(items(&[0x5b, 255, 255, 255, 255, 255, 255, 255, 255, 1, 1]), 1);
    }

    fn packed(tensors: impl Iterator<Item = (String, Vec<usize>)>) -> Vec<u8> {
        let tensors = tensors.map(|(name, shape)| {
            let bytes = Bytes::from_bytes_vec(vec![0; 4 * shape.iter().product::<usize>()]);
            Tensor::new(name, DType::F32, shape, Some(ParamId::new().val()), bytes)
        });
        Writer::new(tensors.collect()).into_bytes().unwrap().to_vec()
    }

    /// The least that real tensors come with: few numbers, short names.
    #[test]
    fn what_real_tensors_claim_is_never_refused() {
        for (count, shape) in [(1, vec![1]), (90_000, vec![1, 1]), (20_000, vec![1; 4])] {
            let bytes =
                packed((0..count).map(|index| (format!("layers.{index}.w"), shape.clone())));
            check(&bytes).unwrap();
        }
        let linear = LinearConfig::new(2, 3).init(&Default::default());
        check(&linear.into_record().into_bytes().unwrap()).unwrap();
    }

    #[test]
    fn claims_without_tensors_are_refused() {
        let bytes = packed((0..90_000).map(|index| (index.to_string(), vec![0])));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("many.bpk");
        std::fs::write(&path, &bytes).unwrap();
        let length = bytes.len();
        let most = FREE + length as u64 / 24;
        let expected =
            format!("the header: expected at most {most} items of metadata, in {length}");
        let error = check(&bytes).unwrap_err().to_string();
        assert!(error.starts_with(&expected), "{error}");
        let Error::File { source, .. } = check_file(&path).unwrap_err() else { panic!() };
        assert_eq!(source.to_string(), error);
    }

    #[test]
    fn what_is_no_header_is_left_to_the_parser() {
        for bytes in [&[][..], &[0; 9], &[255; 10], &[255; 99]] {
            check(bytes).unwrap();
        }
    }
}
